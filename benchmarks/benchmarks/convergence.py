"""How many passes each solver needs: counts, the same on every run, so that a change of one is a change of the code.

Seconds to the same place stand beside them.
"""

import warnings

import numpy as np

import emcore

from .common import DETERMINISTIC, mixture_rows, random_start, require, safe_import, start_at

fit = safe_import("emcore", "fit")
ModelObjective = safe_import("emcore.objective", "ModelObjective")
as_source = safe_import("emcore.data", "as_source")
solve = safe_import("emcore.solve", "solve")
diagnosed_rate = safe_import("emcore.diagnostics", "rate")

RACED = ("em", "auto", "gradient", "cg", "lbfgs")
PROBLEMS = ("faithful full", "separated full", "overlapping full", "times poisson")
TOLERANCE = 1e-6  # per unit weight, below the best value known
MAX_PASSES = 1000  # what a climb that does not get there counts as
N_STARTS = 10
ROUNDING = 1e-12  # a smaller gap says nothing
LONG, NEVER = emcore.Stop(gain=1e-15, max_passes=20 * MAX_PASSES), emcore.Stop(gain=0, max_passes=MAX_PASSES)
NEAR, NEARER = 1e-4, 1e-9  # the gaps between which a rate is observed


def problem(name, seed=None):
    """Return the model, the rows, their weights or None, and the start: the one that all solvers share, or a random one."""
    data, kind = name.split()
    if data == "times":
        poisson = safe_import("emcore.models", "PoissonMixture")
        require(poisson)
        X, weights = emcore.data.london_deaths()
        rng = np.random.default_rng(seed)
        rates = [[1.0], [2.5]] if seed is None else rng.uniform(0.5, 5.0, size=(2, 1))
        return poisson(2), X, weights, {"weights": [0.3, 0.7], "rates": rates}
    k, rows = 2, [0, 1]
    if data == "faithful":
        X = emcore.data.faithful()
    else:
        k = 3
        X, component = mixture_rows(1000, 2, k, spread={"separated": 3.0, "overlapping": 1.0}[data])
        rows = [int(np.flatnonzero(component == c)[0]) for c in range(k)]
    start = start_at(X, rows, kind) if seed is None else random_start(X, k, kind, seed)
    return emcore.models.GaussianMixture(k, kind), X, None, start


def climb(name, solver, *, seed=None, stop=None):
    """Return the fit of a problem from its start, or from a random one."""
    model, X, weights, start = problem(name, seed)
    stop = stop or emcore.Stop(max_passes=MAX_PASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(model, X, sample_weight=weights, solver=solver, start=start, stop=stop, n_threads=1)


def observed_rate(passes, gap):
    """Return by what factor the gap shrank a pass between `NEAR` and `NEARER`, NaN where it did not get below `NEAR`."""
    near = np.flatnonzero(gap <= NEAR)
    if not len(near) or near[0] == len(gap) - 1:
        return np.nan
    first = max(near[0] - 1, 0)  # a climb may jump over both
    there = np.flatnonzero(gap <= NEARER)
    last = there[0] if len(there) else len(gap) - 1
    return float((gap[last] / gap[first]) ** (1 / (passes[last] - passes[first]))) if last > first else np.nan


class _Climbs:
    """All climbs are made once. Values are compared with the best that any solver reached in a long run."""

    param_names = ("solver", "problem")
    params = (DETERMINISTIC, PROBLEMS)
    timeout = 600

    def setup_cache(self):
        if None in (fit, solve, ModelObjective, as_source):
            return {}
        solvers = [s for s in DETERMINISTIC if s in emcore.solvers.names()]
        cache = {}
        for name in PROBLEMS:
            try:
                problem(name)
            except NotImplementedError:
                continue
            fits = {s: climb(name, s) for s in solvers}
            best = max(climb(name, "em", stop=LONG).value, *(f.value for f in fits.values()))
            for s in solvers:
                gap = np.maximum(best - fits[s].trace.value, ROUNDING)
                cache[s, name] = {"passes": fits[s].trace.passes, "gap": gap}
        return cache

    setup_cache.timeout = 600

    def setup(self, cache, solver, name):
        if (solver, name) not in cache:
            raise NotImplementedError
        self.climb = cache[solver, name]
        there = np.flatnonzero(self.climb["gap"] <= TOLERANCE)
        self.passes = float(self.climb["passes"][there[0]]) if len(there) else float(MAX_PASSES)


class Climb(_Climbs):
    def track_passes(self, cache, solver, name):
        """Passes until the gap is 1e-6, or the budget where it never is."""
        return self.passes

    track_passes.unit = "passes"

    def track_gap_after_20(self, cache, solver, name):
        return float(self.climb["gap"][self.climb["passes"] <= 20][-1])

    track_gap_after_20.unit = "per unit weight"

    def track_rate(self, cache, solver, name):
        """By what factor the gap shrinks a pass; EM's own tends to the square of `Rate.track_em_rate`."""
        return observed_rate(self.climb["passes"], self.climb["gap"])

    track_rate.unit = "per pass"


class Seconds(_Climbs):
    params = (RACED, PROBLEMS)
    number, warmup_time = 1, 0.0

    def setup(self, cache, solver, name):
        super().setup(cache, solver, name)
        model, X, weights, start = problem(name)
        self.objective = ModelObjective(model, as_source(X, weights), n_threads=1)
        self.at = self.objective.point_of(self.objective.model.from_user(start))
        self.solver = emcore.solvers.get(solver)
        self.time_to_tolerance(cache, solver, name)  # what is imported late

    def time_to_tolerance(self, cache, solver, name):
        """The climb up to there, or to the end of the budget."""
        solve(self.objective, self.solver, self.at, stop=NEVER, callback=lambda step: step.row.passes >= self.passes)


class Starts:
    """Random starts from which the best known optimum of the problem was not reached within the budget."""

    param_names = ("solver", "problem")
    params = (RACED, PROBLEMS)
    timeout = 600

    def setup_cache(self):
        if fit is None:
            return {}
        near = emcore.Stop(gain=1e-3 * TOLERANCE, max_passes=MAX_PASSES)
        cache = {}
        for name in PROBLEMS:
            try:
                top = climb(name, "em", stop=LONG).value
            except NotImplementedError:
                continue
            solvers = [s for s in RACED if s in emcore.solvers.names()]
            ends = {s: np.array([climb(name, s, seed=seed, stop=near).value for seed in range(N_STARTS)]) for s in solvers}
            top = max(top, *(values.max() for values in ends.values()))
            cache |= {(s, name): 100.0 * float(np.mean(top - values > TOLERANCE)) for s, values in ends.items()}
        return cache

    setup_cache.timeout = 600

    def setup(self, cache, solver, name):
        if (solver, name) not in cache:
            raise NotImplementedError

    def track_failures(self, cache, solver, name):
        return cache[solver, name]

    track_failures.unit = "% of starts"


class Rate:
    """By how much the distance to the solution shrinks in one EM step, near it: a property of the problem."""

    param_names = ("problem",)
    params = (PROBLEMS,)

    def setup(self, name):
        require(fit, ModelObjective, as_source)
        model, X, weights, _ = problem(name)
        end = climb(name, "em", stop=emcore.Stop(max_passes=20 * MAX_PASSES))
        self.objective = ModelObjective(model, as_source(X, weights), n_threads=1)
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
