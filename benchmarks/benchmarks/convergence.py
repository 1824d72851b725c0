"""How many passes each solver needs: counts, the same on every run, so that a change of one is a change of the code."""

import warnings

import numpy as np

import emcore

from .common import mixture_rows, random_start, require, safe_import, start_at

fit = safe_import("emcore", "fit")
ModelObjective = safe_import("emcore.objective", "ModelObjective")
as_source = safe_import("emcore.data", "as_source")
diagnosed_rate = safe_import("emcore.diagnostics", "rate")

SOLVERS = ("em", "gradient", "cg", "lbfgs")
PROBLEMS = (
    "faithful full", "faithful tied", "faithful diag", "faithful spherical",
    "separated full", "overlapping full", "overlapping diag",
)  # fmt: skip
TOLERANCE = 1e-6  # per unit weight, below the best value known
MAX_PASSES = 1000  # what a climb that does not get there counts as
N_STARTS = 10
ROUNDING = 1e-12  # a smaller gap says nothing


def problem(name):
    """Return rows, number of components, covariance, and the start that all solvers share."""
    data, covariance = name.split()
    if data == "faithful":
        X = emcore.data.faithful()
        return X, 2, covariance, start_at(X, [0, 1], covariance)
    k = 3
    X, component = mixture_rows(1000, 2, k, spread={"separated": 3.0, "overlapping": 1.0}[data])
    rows = [int(np.flatnonzero(component == c)[0]) for c in range(k)]
    return X, k, covariance, start_at(X, rows, covariance)


def climb(name, solver, *, seed=None, stop=None):
    """Return the fit of a problem from its start, or from a random one."""
    X, k, covariance, start = problem(name)
    if seed is not None:
        start = random_start(X, k, covariance, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = emcore.models.GaussianMixture(k, covariance)
        return fit(model, X, solver=solver, start=start, stop=stop or emcore.Stop(max_passes=MAX_PASSES), n_threads=1)


class Climb:
    """All climbs are made once. Values are compared with the best that any solver reached in a long run."""

    param_names = ("solver", "problem")
    params = (SOLVERS, PROBLEMS)
    timeout = 600

    def setup_cache(self):
        if fit is None:
            return {}
        solvers = [s for s in SOLVERS if s in emcore.solvers.names()]
        long = emcore.Stop(gain=1e-15, max_passes=20 * MAX_PASSES)
        near = emcore.Stop(gain=1e-3 * TOLERANCE, max_passes=MAX_PASSES)
        cache = {}
        for name in PROBLEMS:
            fits = {s: climb(name, s) for s in solvers}
            best = max(climb(name, "em", stop=long).value, *(f.value for f in fits.values()))
            ends = {s: [climb(name, s, seed=seed, stop=near).value for seed in range(N_STARTS)] for s in solvers}
            top = max(best, *(value for values in ends.values() for value in values))
            for s in solvers:
                gap = np.maximum(best - fits[s].trace.value, ROUNDING)
                missed = [bool(top - value > TOLERANCE) for value in ends[s]]
                cache[s, name] = {"passes": fits[s].trace.passes, "gap": gap, "missed": missed}
        return cache

    setup_cache.timeout = 600

    def setup(self, cache, solver, problem):
        if (solver, problem) not in cache:
            raise NotImplementedError
        self.climb = cache[solver, problem]

    def track_passes(self, cache, solver, problem):
        """Passes until the gap is 1e-6, or the budget where it never is."""
        there = np.flatnonzero(self.climb["gap"] <= TOLERANCE)
        return float(self.climb["passes"][there[0]]) if len(there) else float(MAX_PASSES)

    track_passes.unit = "passes"

    def _gap_after(self, passes):
        return float(self.climb["gap"][self.climb["passes"] <= passes][-1])

    def track_gap_after_20(self, cache, solver, problem):
        return self._gap_after(20)

    def track_gap_after_50(self, cache, solver, problem):
        return self._gap_after(50)

    track_gap_after_20.unit = track_gap_after_50.unit = "per unit weight"

    def track_failures(self, cache, solver, problem):
        """Random starts from which the best known optimum of the problem was not reached within the budget."""
        return 100.0 * float(np.mean(self.climb["missed"]))

    track_failures.unit = "% of starts"


class Rate:
    """By how much the distance to the solution shrinks in one EM step, near it: a property of the problem."""

    param_names = ("problem",)
    params = (PROBLEMS,)

    def setup(self, name):
        require(fit, ModelObjective, as_source)
        X, k, covariance, _ = problem(name)
        end = climb(name, "em", stop=emcore.Stop(max_passes=20 * MAX_PASSES))
        self.objective = ModelObjective(emcore.models.GaussianMixture(k, covariance), as_source(X), n_threads=1)
        self.point = self.objective.point_of(self.objective.model.from_user(end.params))

    def track_em_rate(self, name):
        """The largest eigenvalue of the derivative of the EM step, by power iteration on differences of steps."""
        theta, h = self.point.theta, 1e-5

        def em(at):
            return self.objective.evaluate(at).em_point.theta

        rate, v = 0.0, np.random.default_rng(0).normal(size=theta.shape)
        for _ in range(200):
            v = v / np.linalg.norm(v)
            v = (em(theta + h * v) - em(theta - h * v)) / (2 * h)
            last, rate = rate, float(np.linalg.norm(v))
            if abs(rate - last) < 1e-6:
                break
        return rate

    track_em_rate.unit = "per pass"

    def track_passes_of_diagnosis(self, name):
        """What the library itself needs to find the same number."""
        if diagnosed_rate is None:
            return np.nan
        return diagnosed_rate(self.objective, self.point).passes

    track_passes_of_diagnosis.unit = "passes"
