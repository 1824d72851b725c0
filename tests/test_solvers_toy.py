"""Gradient-type solvers on small hills in NumPy that know nothing of models."""

import math

import numpy as np
import pytest
from emcore._vectors import all_finite, bfgs_update, largest, largest_difference, moves, two_loop, unit_rows
from hills import Hill, Overlap, Point, Quadratic
from scipy.optimize import minimize, rosen, rosen_der

from emcore.result import Failure, Status, Stop, rounding
from emcore.solve import solve
from emcore.solvers import EM, LBFGS, ConjugateGradient, GradientAscent
from emcore.solvers.lbfgs import LBFGSState

SEARCHED = [
    GradientAscent(), GradientAscent("bb"), ConjugateGradient(), ConjugateGradient(beta="pr+"),
    ConjugateGradient(precondition=False), ConjugateGradient("pr+", precondition=False), LBFGS(), LBFGS(memory=1),
]  # fmt: skip
EVERY = [*SEARCHED, GradientAscent(0.1)]
NO_EM = [solver for solver in SEARCHED if "em" not in solver.needs]


def named(solver):
    return solver.describe()


class Rosenbrock(Hill):
    capabilities = frozenset({"value", "gradient"})

    def height(self, x):
        return -rosen(x)

    def slope(self, x):
        return -rosen_der(x)


class Gamma(Hill):
    """3 log(x) - x summed over two coordinates: infeasible from zero on downwards, top at 3."""

    def height(self, x):
        return float(np.sum(3 * np.log(x) - x)) / 2 if (x > 0).all() else Failure(Status.NON_FINITE)

    def slope(self, x):
        return (3 / x - 1) / 2

    def em(self, x):
        return x + x / 3 * (3 - x)

    def gain(self, x):
        return float(np.sum(self.slope(x) ** 2 * x / 3))


def maximum(hill, at):
    """Return what SciPy finds: Nelder-Mead needs no gradients, BFGS gives the last digits."""

    def fall(x):
        height = hill.height(x)
        return math.inf if isinstance(height, Failure) else -height

    near = minimize(fall, at.theta, method="Nelder-Mead", options={"maxfev": 5000}).x
    return minimize(fall, near, jac=lambda x: -hill.slope(x), method="BFGS", options={"gtol": 1e-10}).x


def rises(result):
    """Return the changes of the value over the trace, at least as large as minus rounding."""
    return np.diff(result.trace.value)


def test_the_toys_are_consistent():
    """Gradients agree with central differences; EM steps do not lower the value, and gains are less than the rise."""
    toys = (Quadratic(4, 10), np.arange(4.0)), (Overlap(), Overlap().begin.theta), (Gamma(2), np.array([1.0, 5]))
    for hill, x in toys:
        numeric = [(hill.height(x + e) - hill.height(x - e)) / 2e-6 for e in 1e-6 * np.eye(hill.size)]
        assert hill.slope(x) == pytest.approx(np.array(numeric), rel=1e-6, abs=1e-8)
        assert hill.height(hill.em(x)) >= hill.height(x)
    overlap = Overlap()
    x = overlap.begin.theta
    assert 0 < overlap.gain(x) <= overlap.height(overlap.em(x)) - overlap.height(x)


PROBLEMS = {
    "quadratic": lambda: (Quadratic(6, 30), Point(np.zeros(6))),
    "scaled quadratic": lambda: (Quadratic(6, 30, diagonal=True), Point(np.zeros(6))),
    "far quadratic": lambda: (Quadratic(3, 5), Point([1e4, -1e4, 1e4])),
    "overlap": lambda: (Overlap(), Overlap().begin),
    "gamma": lambda: (Gamma(2), Point([0.01, 60.0])),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("solver", SEARCHED, ids=named)
def test_every_solver_climbs_every_hill(solver, problem):
    hill, at = PROBLEMS[problem]()
    result = solve(hill, solver, at, stop=Stop(gain=0, gtol=1e-7, max_passes=20_000))
    assert result.status is Status.GRADIENT
    best = maximum(hill, at)
    assert result.value == pytest.approx(hill.height(best), rel=1e-10, abs=1e-10)
    assert result.theta == pytest.approx(best, rel=3e-4, abs=3e-4)  # the ridge of the overlapping mixture is flat
    assert rises(result).min() >= -rounding(result.evaluation.scale), "a search lowered the value"
    assert result.passes == hill.passes
    assert np.diff(result.trace.passes).min() >= 1


@pytest.mark.parametrize("solver", NO_EM, ids=named)
def test_rosenbrock(solver):
    hill = Rosenbrock(10)
    result = solve(hill, solver, Point(np.tile([-1.2, 1.0], 5)), stop=Stop(gtol=1e-7, max_passes=50_000))
    assert result.status is Status.GRADIENT
    # x = 1 is the top; near -1 in the first coordinate there is a second one, which SciPy's BFGS may find as well.
    assert hill.slope(result.theta) == pytest.approx(np.zeros(10), abs=1e-7)
    if isinstance(solver, LBFGS) and solver.memory == 10:
        theirs = minimize(rosen, np.tile([-1.2, 1.0], 5), jac=rosen_der, method="L-BFGS-B", options={"gtol": 1e-7})
        assert result.theta == pytest.approx(theirs.x, abs=1e-4)
        assert result.passes <= 1.5 * theirs.nfev


@pytest.mark.parametrize("beta", ["hz", "pr+"])
def test_conjugate_gradients_finish_a_quadratic_in_about_its_dimension(beta):
    n = 12
    solver = ConjugateGradient(beta, precondition=False, c2=0.01)
    result = solve(Quadratic(n, 100), solver, Point(np.zeros(n)), stop=Stop(gain=1e-13))
    assert result.steps <= n + 2
    assert result.passes <= 2 * result.steps + 5
    assert result.theta == pytest.approx(np.ones(n), abs=1e-6)


def test_the_em_step_preconditions():
    """EM scales the axes: as generalised gradient it makes the quadratic round, and an exact search ends the climb."""
    hill = Quadratic(12, 1e4, diagonal=True)
    ours = solve(hill, ConjugateGradient(), Point(np.zeros(12)), stop=Stop(gain=1e-16))
    plain = solve(hill, ConjugateGradient(precondition=False), Point(np.zeros(12)), stop=Stop(gain=1e-16))
    assert ours.steps <= 2 < 8 <= plain.steps


def test_on_overlapping_components_em_is_left_behind():
    passes = {}
    for solver in (EM(), ConjugateGradient(), LBFGS()):
        result = solve(Overlap(), solver, Overlap().begin, stop=Stop(gain=1e-12))
        assert result.status.ok
        passes[solver.name] = result.passes
    assert passes["cg"] < passes["em"] / 4
    assert passes["lbfgs"] < passes["em"] / 4


def test_the_first_trial_of_preconditioned_conjugate_gradients_is_the_em_step():
    hill = Overlap()
    state = ConjugateGradient().init(hill, hill.begin)
    asked = []
    inside = hill.evaluate
    hill.evaluate = lambda at: asked.append(at) or inside(at)
    ConjugateGradient().step(hill, state)
    assert asked[0] == pytest.approx(hill.em(hill.begin.theta), abs=1e-14)


@pytest.mark.parametrize("solver", EVERY, ids=named)
def test_a_start_at_the_top_takes_no_step(solver):
    hill = Quadratic(4, 10)
    result = solve(hill, solver, Point(np.ones(4)))
    assert result.status.ok
    assert (result.steps, result.passes) == (0, 1)
    assert (result.theta == 1).all()


@pytest.mark.parametrize("tiny", [0.0, 1e-170, 1e-300])
@pytest.mark.parametrize("solver", EVERY, ids=named)
def test_a_gradient_of_zero_divides_nothing(solver, tiny):
    """Warnings are errors here; with all rules off the solver itself says that it cannot go on, or goes on."""
    hill = Quadratic(4, 10)
    hill.slope = lambda x: np.full(4, tiny)
    state = solver.init(hill, Point(np.full(4, 0.5)))
    for _ in range(3):
        new = solver.step(hill, state)
        assert new.failure is not None
        assert new.failure.status is Status.NO_ASCENT
        assert new.current is state.current
    assert hill.passes == 1


class Pinhole(Hill):
    """A steep parabola in a ball of radius 1e-3 with nothing around; its EM step overshoots by far."""

    top = np.array([5e-4, 0.0])

    def height(self, x):
        return -1e6 * float((x - self.top) @ (x - self.top)) if x @ x < 1e-6 else Failure(Status.NON_FINITE)

    def slope(self, x):
        return -2e6 * (x - self.top)

    def em(self, x):
        return x + 10 * (self.top - x)


@pytest.mark.parametrize("solver", SEARCHED, ids=named)
def test_trials_that_are_not_finite_are_silent(solver):
    hill = Pinhole(2)
    seen = []
    inside = hill.evaluate
    hill.evaluate = lambda at: seen.append(inside(at)) or seen[-1]
    result = solve(hill, solver, Point([0.0, 1e-4]), stop=Stop(gain=0, gtol=1e-3))
    assert seen[1].failure is not None, "the first trial was feasible: the test tests nothing"
    assert result.status is Status.GRADIENT
    assert result.theta == pytest.approx(Pinhole.top, abs=1e-8)
    assert np.isfinite(result.trace.value).all()


@pytest.mark.parametrize("solver", SEARCHED, ids=named)
def test_a_budget_that_ends_mid_search_keeps_the_last_accepted_point(solver):
    inside_a_search, last = 0, -math.inf
    for budget in range(1, 40):
        hill = Gamma(2)
        result = solve(hill, solver, Point([0.01, 60.0]), stop=Stop(gain=0, max_passes=budget))
        if result.status is not Status.MAX_PASSES:
            assert result.status is Status.ROUNDING  # at the top, to the last bit
            break
        assert result.passes == budget
        assert result.value == result.trace.value[-1] == hill.height(result.theta)
        assert result.value >= last - rounding(1.0)
        last = result.value
        inside_a_search += result.trace.passes[-1] < budget
    assert inside_a_search > 0
    assert last > -3


def test_a_fixed_step_that_is_too_long_shows_its_falls_and_never_converges():
    hill = Quadratic(3, 10)
    steepest = np.linalg.eigh(hill.A)[1][:, -1]  # along it a step of 0.25 goes from x to -1.5 x
    rules = Stop(gain=1e-6, gtol=1e-6, ftol=1e300, xtol=1e300, max_passes=40)
    result = solve(hill, GradientAscent(0.25), Point(1 + steepest), stop=rules)
    assert result.status is Status.MAX_PASSES
    assert (result.trace.event[1:] == "fell").all()
    assert result.value < 100 * result.trace.value[0] < 0
    calm = solve(hill, GradientAscent(0.1), Point(np.zeros(3)), stop=Stop(max_passes=2000))
    assert calm.status is Status.GAIN
    assert set(calm.trace.event) == {"start", "accepted"}


def test_a_fixed_step_is_exactly_that():
    hill = Quadratic(3, 10)
    state = GradientAscent(0.07).init(hill, Point(np.zeros(3)))
    new = GradientAscent(0.07).step(hill, state)
    assert (new.point.theta == 0.07 * hill.slope(np.zeros(3))).all()


def test_a_fixed_step_that_leaves_the_feasible_set_is_halved():
    hill = Gamma(2)
    solver = GradientAscent(200.0)
    state = solver.step(hill, solver.init(hill, Point([30.0, 30.0])))  # where the gradient is -0.45
    assert state.event == "shortened"
    assert state.info == {"step": 50.0, "trials": 3}
    assert state.point.theta == pytest.approx(np.full(2, 7.5))
    fallen = solver.step(hill, solver.init(hill, Point([4.0, 4.0])))
    assert fallen.event == "shortened, fell"
    assert fallen.current.value < hill.height(np.full(2, 4.0))


@pytest.mark.parametrize("solver", EVERY, ids=named)
def test_the_failure_of_the_model_is_reported(solver):
    hill = Quadratic(3, 10)
    collapsed = Failure(Status.COLLAPSED, "component 2")
    height = hill.height
    hill.height = lambda x: height(x) if not x.any() else collapsed
    result = solve(hill, solver, Point(np.zeros(3)))
    assert result.status is Status.COLLAPSED
    assert result.failure.where == "component 2"
    assert result.failure.step == 1
    assert result.value == height(np.zeros(3))


@pytest.mark.parametrize("solver", SEARCHED, ids=named)
def test_a_wrong_gradient_ends_as_no_ascent(solver):
    hill = Quadratic(3, 10)
    hill.slope = lambda x: hill.A @ (x - 1)
    result = solve(hill, solver, Point(np.zeros(3)), stop=Stop(gain=0))
    assert result.status is Status.NO_ASCENT
    assert (result.theta == 0).all()
    assert result.passes <= 100


@pytest.mark.parametrize("solver", EVERY, ids=named)
def test_a_start_outside_is_refused(solver):
    with pytest.raises(ValueError, match="start"):
        solve(Gamma(2), solver, Point([-1.0, 1.0]))


def test_barzilai_and_borwein_take_the_long_and_the_short_step_in_turn():
    hill, solver = Quadratic(4, 10), GradientAscent("bb")
    state = solver.init(hill, Point(np.zeros(4)))
    for long in (True, False, True, False):
        new = solver.step(hill, state)
        s, y = new.point.theta - state.point.theta, state.current.gradient - new.current.gradient
        assert new.trial == pytest.approx((s @ s) / (s @ y) if long else (s @ y) / (y @ y))
        state = new


def test_needs_depend_on_preconditioning():
    assert ConjugateGradient().needs == {"value", "gradient", "em"}
    assert ConjugateGradient(precondition=False).needs == {"value", "gradient"}
    assert ConjugateGradient.needs == {"value", "gradient", "em"}
    with pytest.raises(ValueError, match=r"needs \['em'\]"):
        solve(Rosenbrock(2), ConjugateGradient(), Point(np.zeros(2)))


def test_restarts():
    """Only along the gradient anything is feasible: what a solver remembers leads nowhere, and it begins afresh."""
    hill = Quadratic(2, 10)
    g = hill.slope(np.zeros(2))
    across = np.array([-g[1], g[0]])
    height = hill.height
    hill.height = lambda x: height(x) if abs(across @ x) <= 1e-9 * (g @ x) else Failure(Status.NON_FINITE)
    at = Point(np.zeros(2))
    pairs = np.array([[1.0, 0.3]]), np.array([[2.0, 0.1]])
    quasi = LBFGS().step(hill, LBFGSState(at, hill.evaluate(at), S=pairs[0], Y=pairs[1]))
    assert quasi.event == "restarted"
    assert len(quasi.S) == len(quasi.Y) == 1
    assert quasi.S[0] == pytest.approx(quasi.point.theta)
    solver = ConjugateGradient(precondition=False)
    begin = solver.init(hill, at)
    old = type(begin)(
        at, begin.current, direction=g + 0.3 * across, steepest=across, gradient=g + 0.5 * across, length=0.1, since=3
    )
    conjugate = solver.step(hill, old)
    assert conjugate.event == "restarted"
    assert conjugate.since == 1
    assert solver.step(hill, begin).event == "accepted"


def test_conjugate_gradients_restart_by_count_and_by_powells_test():
    hill = Quadratic(2, 10)
    at = Point(np.zeros(2))
    solver = ConjugateGradient(precondition=False)
    begin = solver.init(hill, at)
    g = begin.current.gradient
    across = np.array([-g[1], g[0]])

    def after(since, steepest):
        last = {"direction": across, "steepest": steepest, "gradient": across, "length": 0.1, "since": since}
        return solver.step(hill, type(begin)(at, begin.current, **last)).event

    assert after(3, across) == "accepted"
    assert after(50, across) == "restarted"
    assert after(3, across + g) == "restarted"


def test_the_memory_of_lbfgs():
    hill = Quadratic(6, 1000)
    solver = LBFGS(memory=3)
    state = solver.init(hill, Point(np.zeros(6)))
    for step in range(1, 7):
        old, S = state, state.S.copy()
        state = solver.step(hill, state)
        assert (old.S == S).all()
        assert state.S.shape == state.Y.shape == (min(step, 3), 6)
        assert state.S[-1] == pytest.approx(state.point.theta - old.point.theta)
        assert state.Y[-1] == pytest.approx(old.current.gradient - state.current.gradient)
        assert (np.einsum("ij,ij->i", state.S, state.Y) > 0).all()


def test_pairs_without_curvature_are_skipped():
    hill = Hill(2)
    hill.height = lambda x: float(x.sum())  # climbs for ever, the gradient does not change
    hill.slope = lambda x: np.ones(2)
    solver = LBFGS()
    state = solver.step(hill, solver.init(hill, Point(np.zeros(2))))
    assert state.failure is None
    assert state.current.value > 0
    assert state.S.shape == (0, 2)


def test_the_direction_is_that_of_the_bfgs_matrix():
    """Nocedal and Wright (2006), eq. 6.17, dense."""
    rng = np.random.default_rng(3)
    A = np.diag([1.0, 2, 5, 9])
    S = rng.normal(size=(3, 4))
    Y = S @ A
    H = np.eye(4) * (S[-1] @ Y[-1]) / (Y[-1] @ Y[-1])
    for s, y in zip(S, Y, strict=True):
        V = np.eye(4) - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    g = rng.normal(size=4)
    assert two_loop(S, Y, g) == pytest.approx(H @ g, rel=1e-12)


def test_vectors():
    x, y = np.array([1.0, -3.0, 2.0, 0.5, 0.25]), np.array([1.0, -3.0, 4.5, 0.5, 0.25])
    assert largest(x) == 3.0
    assert largest_difference(x, y) == 2.5
    assert largest(x[:0]) == largest_difference(x[:0], y[:0]) == 0.0
    assert largest(np.array([-np.inf, 1.0])) == np.inf
    for bad in (np.array([np.nan, 7.0]), np.array([7.0, np.nan])):
        assert np.isnan(largest(bad))
        assert np.isnan(largest_difference(bad, bad))
    assert moves(x, y, 1e-15)
    assert not moves(x, y, 1e-18)
    assert moves(x, np.where(x == 0.25, y, 0.0), 1e-15)
    for refused in (
        lambda: largest_difference(x, y[1:]),
        lambda: moves(x, y[1:], 1.0),
        lambda: two_loop(x[None], y[None, 1:], x),
    ):
        with pytest.raises(ValueError, match="vectors of 5 and 4 numbers do not fit each other"):
            refused()
    with pytest.raises(ValueError, match="do not fit a vector of 4 numbers"):
        two_loop(x[None], y[None], x[1:])
    with pytest.raises(ValueError, match="there are no pairs"):
        two_loop(x[:0].reshape(0, 5), y[:0].reshape(0, 5), x)
    np.testing.assert_array_equal(bfgs_update(*3 * (np.empty((0, 5)),), x), np.zeros(5))
    units, lengths = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(units, [[0.6, 0.8], [0.0, 0.0]])
    np.testing.assert_array_equal(lengths, [5.0, 1.0])
    with pytest.raises(ValueError, match="rows must have 2 axes"):
        unit_rows(x)
    assert all_finite(x)
    assert not all_finite(np.array([1.0, np.inf]))
