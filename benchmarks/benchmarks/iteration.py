"""The cost of one pass, and of what is made of it: an EM iteration and a gradient evaluation, side by side."""

import resource
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np

import emcore

from .common import COVARIANCES, HUGE, LARGE, SMALL, TINY, mixture_rows, random_start, require, safe_import, sizes

ModelObjective = safe_import("emcore.objective", "ModelObjective")
as_source = safe_import("emcore.data", "as_source")

SOLVERS = ("em", "gradient", "cg", "lbfgs")


class Pass:
    """An objective at a point after a few EM steps, and the two things to do there."""

    def prepare(self, covariance, size, n_threads=None):
        require(ModelObjective, as_source)
        n, d, k = sizes(size)
        X, _ = mixture_rows(n, d, k)
        self.objective = ModelObjective(emcore.models.GaussianMixture(k, covariance), as_source(X), n_threads=n_threads)
        point = self.objective.point_of(self.objective.model.from_user(random_start(X, k, covariance, seed=0)))
        for _ in range(3):
            point = self.objective.evaluate(point).em_point
        self.params, self.theta = point.params, np.array(point.theta)

    # Each from a point that knows only what the solver would know: the chart is part of the gradient's cost.
    def em(self):
        return self.objective.evaluate(self.objective.point_of(self.params)).em_point

    def gradient(self):
        return self.objective.evaluate(self.theta).gradient


class Iteration(Pass):
    param_names = ("step", "covariance", "size")
    params = (("em", "gradient"), COVARIANCES, (TINY, SMALL, LARGE))

    def setup(self, step, covariance, size):
        self.prepare(covariance, size, n_threads=1)  # the second thread of a short pass waits for other processes
        self.step = getattr(self, step)

    def time_iteration(self, step, covariance, size):
        self.step()


class Threads(Pass):
    param_names = ("step", "n_threads")
    params = (("em", "gradient"), (1, 2))

    def setup(self, step, n_threads):
        self.prepare("full", LARGE, n_threads)
        self.step = getattr(self, step)

    def time_iteration(self, step, n_threads):
        self.step()


class GradientOverEM(Pass):
    """Both are timed in turn in one run, so that the ratio means something on a noisy machine too."""

    param_names = ("covariance", "size")
    params = (COVARIANCES, (TINY, SMALL, LARGE))
    pairs = 31

    def setup(self, covariance, size):
        self.prepare(covariance, size, n_threads=1)

    def track_ratio(self, covariance, size):
        calls = 20 if size == TINY else 1
        ratios = []
        for i in range(self.pairs):
            seconds = {}
            for step in (self.em, self.gradient) if i % 2 else (self.gradient, self.em):
                begin = time.perf_counter()
                for _ in range(calls):
                    step()
                seconds[step] = time.perf_counter() - begin
            ratios.append(seconds[self.gradient] / seconds[self.em])
        return float(np.median(ratios))

    track_ratio.unit = "gradient / EM"


class Memory(Pass):
    param_names = ("covariance",)
    params = (COVARIANCES,)

    def setup(self, covariance):
        self.prepare(covariance, LARGE)

    def peakmem_em(self, covariance):
        """The whole process, its data of 12.8 MB included."""
        self.em()

    def peakmem_gradient(self, covariance):
        self.gradient()


def _memory_above_data(covariance):
    """Return by how many MB two steps of a fit raise the peak above what is resident with the data. Run in a fresh process."""
    n, d, k = sizes(HUGE)
    fit = partial(emcore.fit, emcore.models.GaussianMixture(k, covariance), stop=emcore.Stop(max_passes=3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small, _ = mixture_rows(1000, d, k)
        fit(small, start=random_start(small, k, covariance, seed=0))  # what is imported late, and threads
        X, _ = mixture_rows(n, d, k)
        start = random_start(X[:1000], k, covariance, seed=0)
        before = _resident()
        fit(X, start=start)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) - before) / 1e6


def _resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


class MemoryAboveData:
    """Nothing of size n x k is ever allocated: the peak hardly depends on the number of rows."""

    param_names = ("covariance",)
    params = (COVARIANCES,)

    def setup(self, covariance):
        require(safe_import("emcore", "fit"))
        if not Path("/proc/self/statm").exists():
            raise NotImplementedError

    def track_peak(self, covariance):
        code = f"from benchmarks.iteration import _memory_above_data as f; print(f({covariance!r}))"
        root = Path(__file__).parents[1]
        return float(subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True).stdout)

    track_peak.unit = "MB above the data"


class TinyData:
    """A climb on so few rows that what Python does between the passes is most of it."""

    param_names = ("solver",)
    params = (SOLVERS,)
    n_passes = 30

    def setup(self, solver):
        require(safe_import("emcore", "fit"))
        if solver not in emcore.solvers.names():
            raise NotImplementedError
        n, d, k = sizes(TINY)
        X, _ = mixture_rows(n, d, k, spread=0.3)  # overlapping: no solver is done after so few passes
        stop = emcore.Stop(gain=0, max_passes=self.n_passes)
        model, start = emcore.models.GaussianMixture(k), random_start(X, k, "full", seed=0)
        self.fit = partial(emcore.fit, model, X, solver=solver, stop=stop, start=start)
        warnings.simplefilter("ignore")  # it ends by its budget
        assert self.fit().passes == self.n_passes

    def time_30_passes(self, solver):
        self.fit()
