"""What is paid before the first row is looked at."""

import subprocess
import sys
import warnings
from functools import partial

import numpy as np

import emcore

from .common import require, safe_import, start_at


class Import:
    # An editable install looks for something to rebuild when it is first asked: that is not what is timed.
    settle = "import importlib.util; importlib.util.find_spec('emcore')"

    def timeraw_import(self):
        return "import emcore", self.settle

    def timeraw_import_of_numpy(self):
        """The share of it that is not ours."""
        return "import numpy"

    def track_modules(self):
        """Modules that the import loads: extras must not be among them."""
        code = f"{self.settle}; import sys; before = len(sys.modules); import emcore; print(len(sys.modules) - before)"
        return int(subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True).stdout)

    track_modules.unit = "modules"


class Overhead:
    """Ten rows: what a fit and a pass cost beside the arithmetic."""

    def setup(self):
        fit, ModelObjective = safe_import("emcore", "fit"), safe_import("emcore.objective", "ModelObjective")
        require(fit, ModelObjective)
        X = np.random.default_rng(0).normal(size=(10, 2))
        model, start = emcore.models.GaussianMixture(2), start_at(X, [0, 1], "full")
        self.fit = partial(fit, model, X, start=start, stop=emcore.Stop(max_passes=1))
        self.objective = ModelObjective(model, emcore.data.as_source(X), n_threads=1)
        self.params = self.objective.model.from_user(start)
        warnings.simplefilter("ignore")  # it ends by its budget
        self.fit()  # what is imported late

    def time_fit_of_no_step(self):
        self.fit()

    def time_pass(self):
        self.objective.evaluate(self.objective.point_of(self.params))
