"""The cost of one pass, and of what is made of it: an EM iteration and a gradient evaluation, side by side."""

import json
import os
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np

import emcore

from . import numpy_em
from .common import (
    BROAD,
    COVARIANCES,
    DEEP,
    DETERMINISTIC,
    FLAT,
    HUGE,
    LARGE,
    MANY,
    SMALL,
    TINY,
    WIDE,
    anew,
    mixture_rows,
    random_start,
    require,
    safe_import,
    seconds,
    sizes,
    times_in_turn,
)  # fmt: skip

ModelObjective = safe_import("emcore.objective", "ModelObjective")
as_source = safe_import("emcore.data", "as_source")
run = safe_import("emcore.kernels", "run")
single_lanes = safe_import("emcore.kernels", "single_lanes")
solve = safe_import("emcore.solve", "solve")


class Pass:
    """An objective at a point after a few EM steps, and the two things to do there."""

    def prepare(self, covariance, size, n_threads=1, rows="float64", **options):
        require(ModelObjective, as_source)
        dtype, _, lanes = rows.partition(" ")
        if lanes:
            options["single"] = True
            if not (single_lanes and single_lanes()):  # the pass would be one in float64
                raise NotImplementedError
        n, d, k = sizes(size)
        X = mixture_rows(n, d, k)[0].astype(dtype, copy=False)
        try:
            model = emcore.models.GaussianMixture(k, covariance, **options)
        except TypeError as error:  # this version does not know the options
            raise NotImplementedError from error
        self.objective = ModelObjective(model, as_source(X), n_threads=n_threads)
        point = self.objective.point_of(self.objective.model.from_user(random_start(X, k, covariance, seed=0)))
        for _ in range(3):
            point = self.objective.evaluate(point).em_point
        self.params, self.theta = point.params, np.array(point.theta)

    # Each from a point that knows only what the solver would know: the chart is part of the gradient's cost.
    def evaluate(self):
        return self.objective.evaluate(self.objective.point_of(anew(self.params)))

    def em(self):
        return self.evaluate().em_point

    def gradient(self):
        return self.objective.evaluate(self.theta).gradient


class Iteration(Pass):
    param_names = ("step", "covariance", "size")
    params = (("em", "gradient"), COVARIANCES, (TINY, SMALL, LARGE))

    def setup(self, step, covariance, size):
        self.prepare(covariance, size)  # one thread: the second one of a short pass waits for other processes
        self.step = getattr(self, step)

    def time_iteration(self, step, covariance, size):
        self.step()


class BesideNumPy:
    """A pass and its M-step on one thread, as a part of the time of the same in vectorised NumPy."""

    unit = "ratio"
    param_names = ("model",)
    params = (tuple(numpy_em.MODELS),)
    rounds = 9

    def setup(self, name):
        require(ModelObjective, as_source)
        build, draw, self.reference = numpy_em.MODELS[name]
        try:
            model = build(emcore.models)
        except (AttributeError, TypeError) as error:  # this version has no such model
            raise NotImplementedError from error
        self.data = draw(np.random.default_rng(1), 100_000)
        self.objective = ModelObjective(model, as_source(self.data, missing=model.takes_missing), n_threads=1)
        at = self.objective.model.start(*numpy_em.guess(self.objective))
        for _ in range(2):
            at = self.objective.evaluate(self.objective.point_of(at)).em_point.params
        self.params = at
        self.arguments = numpy_em.arguments(self.reference, self.data, self.objective.model.to_user(at))

    def track_time_over_numpy(self, name):
        def ours():
            evaluation = self.objective.evaluate(self.objective.point_of(anew(self.params)))
            return evaluation.em_point.params, evaluation.value * self.objective.weight

        def theirs():
            return self.reference(*self.arguments)

        params, loglik = ours()
        numpy_em.check(self.objective.model.to_user(params), loglik, theirs())
        times = times_in_turn(ours, theirs, rounds=self.rounds)
        return float(np.median(times[:, 0] / times[:, 1]))


class OnePass(Pass):
    """The E-step and its statistics alone, on one thread. Few samples of each: the grid is large."""

    param_names = ("covariance", "size", "rows", "way")
    params = (
        COVARIANCES,
        (FLAT, LARGE, WIDE, DEEP, BROAD, MANY),
        ("float64", "float32", "float32 lanes"),
        ("dense", "sparse"),
    )
    rounds, repeat, warmup_time = 1, (3, 7, 1.0), 0.0

    def setup(self, covariance, size, rows, way):
        self.prepare(covariance, size, rows=rows, sparse=way == "sparse")

    def time_pass(self, covariance, size, rows, way):
        self.evaluate()


class Threads(Pass):
    """The same pass on one thread and on two."""

    param_names = ("covariance", "size", "rows")
    params = (COVARIANCES, (LARGE, WIDE), ("float64", "float32 lanes"))

    def setup(self, covariance, size, rows):
        if (os.cpu_count() or 1) < 2:
            raise NotImplementedError
        self.prepare(covariance, size, n_threads=2, rows=rows)
        self.alone = Pass()
        self.alone.prepare(covariance, size, rows=rows)

    def track_ratio(self, covariance, size, rows):
        """Half is the best that there is."""
        two, one = times_in_turn(self.evaluate, self.alone.evaluate, rounds=15).T
        return float(np.median(two / one))

    track_ratio.unit = "two threads / one"


class GradientOverEM(Pass):
    param_names = ("covariance", "size")
    params = (COVARIANCES, (TINY, SMALL, LARGE))

    def setup(self, covariance, size):
        self.prepare(covariance, size)

    def track_ratio(self, covariance, size):
        gradient, em = times_in_turn(self.gradient, self.em, rounds=31).T
        return float(np.median(gradient / em))

    track_ratio.unit = "gradient / EM"


class HvpOverPass(Pass):
    """What a column of a Hessian product costs, in dense passes: one column alone, and each of all p."""

    param_names = ("covariance", "columns", "size")
    params = (COVARIANCES, ("one", "all"), (SMALL, LARGE))

    def setup(self, covariance, columns, size):
        if (columns, size) == ("all", LARGE):
            raise NotImplementedError  # a second or more each
        self.prepare(covariance, size, sparse=False)
        if "tangent" not in self.objective.capabilities:
            raise NotImplementedError
        self.current, p = self.evaluate(), self.objective.size
        self.V = np.eye(p) if columns == "all" else np.random.default_rng(0).normal(size=(p, 1))

    def products(self):
        return self.objective.hvp(self.current, self.V)

    def track_ratio(self, covariance, columns, size):
        products, one_pass = times_in_turn(self.products, self.evaluate, rounds=15).T
        return float(np.median(products / one_pass)) / self.V.shape[1]

    track_ratio.unit = "dense passes a column"


class Memory(Pass):
    param_names = ("covariance",)
    params = (COVARIANCES,)

    def setup(self, covariance):
        self.prepare(covariance, LARGE, n_threads=None)

    def peakmem_em(self, covariance):
        """The whole process, its data of 12.8 MB included."""
        self.em()

    def peakmem_gradient(self, covariance):
        self.gradient()


def _memory_above_data(covariance):
    """Return by how many MB some things raise the peak above what is resident with the data. Run in a fresh process."""
    n, d, k = sizes(HUGE)
    model, peaks = emcore.models.GaussianMixture(k, covariance), {}

    def measure(name, action):
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        result = action()
        peaks[name] = (_resident("VmHWM") - before) / 1e6
        return result

    def em(objective, point, steps):
        for _ in range(steps):
            point = objective.evaluate(point).em_point
        return point

    def fit(X, start):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return emcore.fit(model, X, solver="em", start=start, stop=emcore.Stop(max_passes=3))

    small, _ = mixture_rows(1000, d, k)
    fit(small, random_start(small, k, covariance, seed=0))  # what is imported late, and threads
    X, _ = mixture_rows(n, d, k)
    start = random_start(X[:1000], k, covariance, seed=0)
    objective = measure("binding", lambda: ModelObjective(model, as_source(X)))
    point = objective.point_of(objective.model.from_user(start))
    measure("a pass", lambda: objective.evaluate(point))
    measure("three EM steps", lambda: em(objective, point, 3))
    measure("a fit of two steps", lambda: fit(X, start))
    return peaks


def _resident(field):
    """Return the resident memory in bytes, now ("VmRSS") or at its peak ("VmHWM")."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split(maxsplit=1)[0])


class MemoryAboveData:
    """Nothing of size n x k is ever allocated: the peak hardly depends on the number of rows."""

    param_names = ("of", "covariance")
    params = (("binding", "a pass", "three EM steps", "a fit of two steps"), COVARIANCES)

    def setup_cache(self):
        if not os.access("/proc/self/clear_refs", os.W_OK) or None in (ModelObjective, safe_import("emcore", "fit")):
            return {}
        code = "import json; from benchmarks.iteration import _memory_above_data as f; print(json.dumps(f({!r})))"
        root = Path(__file__).parents[1]
        # What is freed goes back to the system at once: else one peak hides in what another left.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        peaks = {}
        for covariance in COVARIANCES:
            command = [sys.executable, "-c", code.format(covariance)]
            done = subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True)
            peaks |= {(of, covariance): peak for of, peak in json.loads(done.stdout).items()}
        return peaks

    def setup(self, peaks, of, covariance):
        if (of, covariance) not in peaks:
            raise NotImplementedError

    def track_peak(self, peaks, of, covariance):
        return peaks[of, covariance]

    track_peak.unit = "MB above the data"


class Inside:
    """A clock of what goes by within calls of an objective and of its coordinates: the rest is the solver's and the loop's.

    Calls within calls count once. What the clock itself takes outside of what it measures is `outside` a call.
    """

    CALLS = (
        "evaluate", "each", "free_energy", "pieces", "point", "recentre", "maximize", "q", "gradient", "precondition", "hvp",
        "q_hvp", "boundary", "condition", "coarseness",
    )  # fmt: skip

    def __init__(self, objective):
        self.clear()
        nothing = self._timed(lambda: None)
        whole = seconds(nothing, 2000)
        self.outside = whole - self.spent / self.calls
        for owner, names in ((objective, self.CALLS), (objective.coordinates, ("forward", "inverse"))):
            for name in names:
                if hasattr(owner, name):
                    setattr(owner, name, self._timed(getattr(owner, name)))

    def clear(self):
        self.spent, self.calls, self._busy = 0.0, 0, False

    def _timed(self, method):
        def called(*args, **options):
            if self._busy:
                return method(*args, **options)
            self._busy, begin = True, time.perf_counter()
            try:
                return method(*args, **options)
            finally:
                self.spent += time.perf_counter() - begin
                self.calls, self._busy = self.calls + 1, False

        return called


class TinyData:
    """A climb on so few rows that what Python does between the passes is most of it."""

    param_names = ("solver",)
    params = (DETERMINISTIC,)
    n_passes = 30

    def setup(self, solver):
        require(solve, run, ModelObjective, as_source)
        if solver not in emcore.solvers.names():
            raise NotImplementedError
        n, d, k = sizes(TINY)
        X, _ = mixture_rows(n, d, k, spread=0.3)  # overlapping: no solver is done after so few passes
        self.objective = ModelObjective(emcore.models.GaussianMixture(k), as_source(X), n_threads=1)
        model = self.objective.model
        at = self.objective.point_of(model.from_user(random_start(X, k, "full", seed=0)))
        stop = emcore.Stop(gain=0, max_passes=self.n_passes)
        self.climb = partial(solve, self.objective, emcore.solvers.get(solver), at, stop=stop)
        end = self.climb()
        self.steps, self.passes = end.steps, end.passes  # some solvers leave what is no whole step of the budget
        self.block, self.kernel = self.objective.source.block(0), model.kernel(at.params)
        self.stats = np.zeros(model.layout.size)

    def bare_pass(self):
        run(self.kernel, self.block, stats=self.stats, n_threads=1)

    def time_30_passes(self, solver):
        self.climb()

    def track_overhead(self, solver):
        """What a step costs beside its passes; those for Hessian products, or only for monitoring, are in it."""
        climb, bare = times_in_turn(self.climb, self.bare_pass, rounds=5).T
        return float(np.median(climb / bare) - self.passes) / self.steps

    track_overhead.unit = "passes over 1,000 rows, a step"

    def track_own_work(self, solver):
        """What the solver and the loop do themselves, of the overhead: the rest are M-steps, scores, charts and their like."""
        inside, own = Inside(self.objective), []
        for _ in range(11):
            inside.clear()
            whole = seconds(self.climb, 1)
            own.append((whole - inside.spent - inside.calls * inside.outside) / seconds(self.bare_pass, 30))
        return float(np.median(own)) / self.steps

    track_own_work.unit = "passes over 1,000 rows, a step"


class TinyFit:
    """A whole fit of 100 EM steps on 1000 x 2 rows from given parameters, and the bare passes in it."""

    n_steps = 100

    def setup(self):
        require(safe_import("emcore", "fit"), run, ModelObjective, as_source)
        n, d, k = sizes(TINY)
        X, _ = mixture_rows(n, d, k)
        model, start = emcore.models.GaussianMixture(k), random_start(X, k, "full", seed=0)
        stop = emcore.Stop(gain=0, max_passes=self.n_steps + 1)
        self.fit = partial(emcore.fit, model, X, solver="em", start=start, stop=stop, n_threads=1)
        warnings.simplefilter("ignore")  # it ends by its budget
        end = self.fit()
        assert end.steps == self.n_steps
        objective = ModelObjective(model, as_source(X), n_threads=1)
        self.block = objective.source.block(0)
        self.kernel = objective.model.kernel(objective.model.from_user(end.params))
        self.stats = np.zeros(objective.model.layout.size)

    def passes(self):
        for _ in range(self.n_steps + 1):
            run(self.kernel, self.block, stats=self.stats, n_threads=1)

    def time_100_em_steps(self):
        self.fit()

    def track_share_of_passes(self):
        """More is better: the rest is what a step costs beside its pass."""
        passes, whole = times_in_turn(self.passes, self.fit, rounds=31).T
        return 100.0 * float(np.median(passes / whole))

    track_share_of_passes.unit = "% of the fit"
