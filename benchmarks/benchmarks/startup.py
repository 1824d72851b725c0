"""What is paid before the first row is looked at."""

import shutil
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

import emcore

from .common import anew, require, safe_import, start_at


class Import:
    def setup_cache(self):
        """Copy what `import emcore` loads as an install lays it out: an editable install looks for changes at every module."""
        folder = Path.cwd() / "installed"
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "emcore":
                parent = folder.joinpath(*name.split(".") if hasattr(module, "__path__") else name.split(".")[:-1])
                parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(module.__file__, parent)
        plain = (
            "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__]; "
            f"sys.path.insert(0, {str(folder)!r})"
        )
        assert self._fresh(f"{plain}; import emcore; print(emcore.__file__)").startswith(str(folder))
        return plain

    def timeraw_import(self, plain):
        return "import emcore", plain

    def timeraw_import_of_numpy(self, plain):
        """The share of it that is not ours."""
        return "import numpy"

    def track_import_above_numpy(self, plain):
        """What the import adds where NumPy is loaded, in fresh processes."""
        code = f"{plain}; import time, numpy; begin = time.perf_counter(); import emcore; print(time.perf_counter() - begin)"
        return 1e3 * median(float(self._fresh(code)) for _ in range(9))

    track_import_above_numpy.unit = "ms"

    def track_modules(self, plain):
        """Modules that the import loads: extras must not be among them."""
        return int(self._fresh(f"{plain}; before = len(sys.modules); import emcore; print(len(sys.modules) - before)"))

    track_modules.unit = "modules"

    def _fresh(self, code):
        """Return what a fresh process prints."""
        return subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True).stdout


class Overhead:
    """Ten rows: what a fit and a pass cost beside the arithmetic."""

    def setup(self):
        fit, ModelObjective = safe_import("emcore", "fit"), safe_import("emcore.objective", "ModelObjective")
        require(fit, ModelObjective)
        X = np.random.default_rng(0).normal(size=(10, 2))
        model, start = emcore.models.GaussianMixture(2), start_at(X, [0, 1], "full")
        self.fit = partial(fit, model, X, solver="em", start=start, stop=emcore.Stop(max_passes=1))
        self.objective = ModelObjective(model, emcore.data.as_source(X), n_threads=1)
        self.params = self.objective.model.from_user(start)
        warnings.simplefilter("ignore")  # it ends by its budget
        self.fit()  # what is imported late

    def time_fit_of_no_step(self):
        self.fit()

    def time_pass(self):
        self.objective.evaluate(self.objective.point_of(anew(self.params)))
