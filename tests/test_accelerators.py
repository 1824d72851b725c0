"""Accelerators of the EM map: on maps whose answer is known, on the London Times mixture, and `emcore.accelerate` itself."""

import math
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from cases import CASES, SMALL
from scipy.optimize import brentq

import emcore
from emcore import Acceleration, Status, Stop
from emcore.objective import MapObjective
from emcore.result import Breakdown, Failure, rounding
from emcore.solve import solve
from emcore.solvers import DAAREM, EM, QN1, QN2, SQUAREM, ZAL, Anderson, Auto
from emcore.solvers._acceleration import C1, Accelerated, propose
from emcore.solvers.daarem import damped
from emcore.solvers.qn2 import QN2State, _added

ACCELERATORS = [
    SQUAREM("S1"), SQUAREM("S2"), SQUAREM(), Anderson(), Anderson(2), DAAREM(), DAAREM(order=3), ZAL(1), ZAL(2), ZAL(), QN1(),
]  # fmt: skip
WORDS = {"start", "accepted", "fell back", "restarted"}


def named(solver):
    return solver.describe()


class Linear:
    """M(x) = 1 + A (x - 1) with eigenvalues given, which is EM on -(x-1)'(I-A)(x-1)/2 with the identity as its metric."""

    def __init__(self, rates):
        rates = np.array(rates, dtype=float)
        q = np.linalg.qr(np.random.default_rng(2).normal(size=(len(rates), len(rates))))[0]
        self.A, self.B = (q * rates) @ q.T, (q * (1 - rates)) @ q.T
        self.size, self.calls = len(rates), 0

    def map(self, x):
        self.calls += 1
        return x - self.B @ (x - 1)

    def value(self, x):
        return -0.5 * float((x - 1) @ self.B @ (x - 1))


# On linear maps the answer and the rates are known


@pytest.mark.parametrize("with_value", [True, False])
@pytest.mark.parametrize("solver", ACCELERATORS, ids=named)
def test_a_linear_map_is_accelerated(solver, with_value):
    """EM's error shrinks by 0.99 a pass in the end, so that it needs 1,432 of them from here to 1e-8."""
    linear = Linear([0.99, 0.9, 0.6, 0.3, 0.0])
    at, objective = np.zeros(5), linear.value if with_value else None
    em = emcore.accelerate(linear.map, at, objective, "em", stop=Stop(gain=0, residual=1e-8))
    along = np.linalg.eigh(linear.A)[1][:, -1] @ np.ones(5)
    assert em.passes == pytest.approx(math.log(1e-8 / (0.01 * abs(along))) / math.log(0.99), rel=0.01)
    result = emcore.accelerate(linear.map, at, objective, solver)
    assert result.status is Status.RESIDUAL
    assert result.theta == pytest.approx(np.ones(5), abs=2e-6)
    assert result.passes < em.passes / (3 if solver == ZAL(1) else 6)
    assert set(result.trace.event) <= WORDS


@pytest.mark.parametrize("solver", [Anderson(10), ZAL(4), DAAREM(order=4), QN1()], ids=named)
def test_an_eigenvalue_next_to_one(solver):
    """EM would need more than ten million passes."""
    linear = Linear([1 - 1e-6, 0.9, 0.5, 0.1])
    result = emcore.accelerate(linear.map, np.zeros(4), linear.value, solver, stop=Stop(gain=0, residual=1e-11, max_passes=500))
    assert result.status is Status.RESIDUAL
    assert result.theta == pytest.approx(np.ones(4), abs=1e-4)


def test_as_many_secants_as_coordinates_solve_a_linear_map():
    """Anderson acceleration is then GMRES (Walker and Ni 2011), ZAL Newton's method; Broyden's takes 2 p steps (Gay 1979)."""
    linear = Linear([0.95, 0.8, 0.6, 0.3])
    stop = Stop(gain=0, residual=1e-7)
    for solver, most in ((Anderson(4), 7), (ZAL(4), 10), (QN1(), 11)):
        result = emcore.accelerate(linear.map, np.zeros(4), None, solver, stop=stop)
        assert result.theta == pytest.approx(np.ones(4), abs=1e-5)
        assert result.passes <= most, solver


@pytest.mark.parametrize("solver", ACCELERATORS, ids=named)
def test_one_coordinate(solver):
    result = emcore.accelerate(lambda x: 0.9 * x + 0.3, [0.0], None, solver)
    assert result.status.ok
    assert result.theta == pytest.approx([3.0], abs=1e-6)


@pytest.mark.parametrize("solver", ACCELERATORS, ids=named)
def test_a_start_at_the_fixed_point_divides_nothing(solver):
    linear = Linear([0.9, 0.5])
    result = emcore.accelerate(linear.map, np.ones(2), linear.value, solver)
    assert (result.steps, result.passes) == (0, 1)
    on = emcore.accelerate(linear.map, np.ones(2), linear.value, solver, stop=Stop(gain=0, residual=1e-300, patience=9))
    assert on.status is Status.RESIDUAL
    assert (on.theta == 1).all()


# Steps are what the papers say


def states(solver, linear, steps, at=None):
    """Return the states of a climb, the start first."""
    objective = MapObjective(linear.map, linear.value, size=linear.size)
    out = [solver.init(objective, objective.point(np.zeros(linear.size) if at is None else at))]
    for _ in range(steps):
        out.append(solver.step(objective, out[-1]))
    return out


@pytest.mark.parametrize("scheme", ["S1", "S2", "S3"])
def test_a_step_of_squarem(scheme):
    linear = Linear([0.95, 0.5])
    first, second, third = states(SQUAREM(scheme), linear, 2)
    assert second.point.theta == pytest.approx(linear.map(linear.map(first.point.theta)), abs=1e-14)  # the bound begins at 1
    assert second.longest == 4
    x0 = second.point.theta
    x1 = linear.map(x0)
    r, v = x1 - x0, linear.map(x1) - 2 * x1 + x0
    a = {"S1": -(r @ v) / (v @ v), "S2": -(r @ r) / (r @ v), "S3": math.sqrt((r @ r) / (v @ v))}[scheme]
    a = min(max(a, 1), 4)
    assert a > 1.01
    assert third.info["length"] == pytest.approx(a)
    assert third.point.theta == pytest.approx(linear.map(x0 + 2 * a * r + a * a * v), abs=1e-13)


def test_a_step_of_anderson():
    linear = Linear([0.9, 0.7, 0.4, 0.2])
    states_ = states(Anderson(2), linear, 4)
    x = np.array([state.point.theta for state in states_])
    f = np.array([linear.map(row) - row for row in x])
    X, F = np.diff(x[1:4], axis=0).T, np.diff(f[1:4], axis=0).T
    gamma = np.linalg.lstsq(F, f[3], rcond=None)[0]
    assert x[4] == pytest.approx(x[3] + f[3] - (X + F) @ gamma, abs=1e-9)
    assert states_[4].X.shape == states_[4].F.shape == (2, 4)


def test_a_step_of_zal():
    linear = Linear([0.9, 0.7, 0.4, 0.2])
    states_ = states(ZAL(2), linear, 3)
    x = np.array([state.point.theta for state in states_])
    m = np.array([linear.map(row) for row in x])
    mm = np.array([linear.map(row) for row in m])
    U, V = (m - x)[1:3].T, (mm - m)[1:3].T
    expected = m[2] - V @ np.linalg.inv(U.T @ U - U.T @ V) @ U.T @ (x[2] - m[2])
    assert states_[3].event == "accepted"
    assert x[3] == pytest.approx(expected, rel=1e-9)


def test_the_matrix_of_qn1():
    """Broyden's update, dense: the factors stand for it, and it maps changes of the EM step to steps."""
    linear = Linear([0.9, 0.7, 0.4, 0.2])
    states_ = states(QN1(), linear, 5)
    A = -np.eye(4)
    for old, new in pairwise(states_):
        s = new.point.theta - old.point.theta
        y = -linear.B @ s
        if new.event == "fell back":
            A = -np.eye(4)
        A = A + np.outer(s - A @ y, s @ A) / (s @ A @ y)
        assert A @ y == pytest.approx(s)
        assert new.left.T @ new.right - np.eye(4) == pytest.approx(A)


def test_what_qn2_adds_to_the_metric_is_bfgs():
    """The updated inverse Hessian maps the last fall of the gradient to its step, and is the textbook's."""
    rng = np.random.default_rng(5)
    H = np.diag([1.0, 2.0, 0.5])  # EM's metric, the same everywhere
    hessian = np.diag([0.3, 0.2, 1.0]) + 0.05
    state, dense = QN2State(None, None, S=np.empty((0, 3)), Y=np.empty((0, 3)), HY=np.empty((0, 3))), H
    for _ in range(3):
        s = rng.normal(size=3)
        y = hessian @ s
        Hy = H @ y + _added(state, y)
        state = QN2State(None, None, S=np.vstack((state.S, s)), Y=np.vstack((state.Y, y)), HY=np.vstack((state.HY, Hy)))
        V = np.eye(3) - np.outer(y, s) / (s @ y)
        dense = V.T @ dense @ V + np.outer(s, s) / (s @ y)  # Nocedal and Wright (2006), eq. 6.17
    v = rng.normal(size=3)
    assert H @ v + _added(state, v) == pytest.approx(dense @ v)
    assert H @ y + _added(state, y) == pytest.approx(s)


@pytest.mark.parametrize("fraction", [0.9, 0.1, 1e-4])
def test_damping_leaves_the_fraction_asked_for(fraction):
    rng = np.random.default_rng(7)
    F, f = rng.normal(size=(3, 6)), rng.normal(size=6)
    lengths = np.linalg.norm(F, axis=1)
    A = (F / lengths[:, None]).T

    def ridged(ridge):
        return np.linalg.solve(A.T @ A + ridge * np.eye(3), A.T @ f)

    full = ridged(0.0)
    ridge = brentq(lambda r: ridged(r) @ ridged(r) - fraction * (full @ full), 0, 1e6, xtol=1e-14)
    assert damped(F, f, fraction) * lengths == pytest.approx(ridged(ridge), rel=1e-4)
    for tiny in (1e-170, 1e-290):  # whose squares vanish
        assert damped(F, tiny * f, fraction) / tiny == pytest.approx(damped(F, f, fraction), rel=1e-9)
    np.testing.assert_array_equal(damped(F, 0 * f, fraction), np.zeros(3))


def test_daarem_restarts_and_trusts():
    linear = Linear([0.97, 0.9, 0.8, 0.7, 0.5, 0.2])
    states_ = states(DAAREM(), linear, 8)
    assert [state.event for state in states_[1:]].count("restarted") == 2
    assert [len(state.X) for state in states_] == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert states_[-1].trust == 6


# The safeguard


@pytest.mark.parametrize("solver", ACCELERATORS[1:], ids=named)  # S1 is too careful to leave it
@pytest.mark.parametrize("how", ["nan", "raise", "inside", "value"])
def test_extrapolations_that_leave_the_domain_are_refused(solver, how):
    """Steps that hardly shrink until they are near the fixed point, 1: seen from afar it is 5, and the domain ends at 1.01."""
    refused, outside = [0], 1.01

    def em_map(x):
        if x.max() >= outside or x.min() <= 0:
            refused[0] += 1
            if how == "raise":
                return [math.log(outside - v) for v in x] if x.max() > outside else [1 / 0.0, 0.0]
            return np.log(-np.ones(2)) if how != "value" else x
        return x + np.clip(0.3 * (1 - x), -1, np.array([0.02, 0.01]) * (1 - 0.2 * x))

    def inside(x):
        ok = bool(x.max() < outside and x.min() > 0)
        refused[0] += not ok
        return ok

    def value(x):
        return -float(np.sum((x - 1) ** 2)) if x.max() < outside and x.min() > 0 else -math.inf

    options = {"inside": inside} if how == "inside" else {}
    result = emcore.accelerate(em_map, [0.01, 0.6], value, solver, **options)
    assert result.status is Status.RESIDUAL
    assert result.theta == pytest.approx(np.ones(2), abs=2e-6)
    assert np.isfinite(result.trace.value).all()
    assert result.value >= result.trace.value[0]
    assert refused[0] > 0


class Trap:
    """A hill on which every proposal falls: only the EM step climbs, by a hundredth, and all else is a pit."""

    def __init__(self):
        self.allowed = {0.0}

    def map(self, x):
        new = x + 0.01 / (1 + x)
        self.allowed.add(float(new[0]))
        return new

    def value(self, x):
        return float(x[0]) if float(x[0]) in self.allowed else -1.0


@pytest.mark.parametrize("solver", ACCELERATORS, ids=named)
def test_where_every_proposal_falls_the_climb_is_that_of_em(solver):
    trap, stop = Trap(), Stop(gain=0, xtol=1e-9, max_passes=60)
    with pytest.warns(emcore.ConvergenceWarning, match="budget of passes"):
        result, em = (emcore.accelerate(trap.map, [0.0], trap.value, method, stop=stop) for method in (solver, "em"))
    assert result.status is Status.MAX_PASSES
    assert "fell back" in result.trace.event
    assert np.diff(result.trace.value).min() > 0
    assert set(result.trace.value) <= set(em.trace.value)
    assert result.value >= em.trace.value[18]


@pytest.mark.parametrize("solver", [EM(), *ACCELERATORS], ids=named)
def test_a_map_that_lowers_its_value_is_a_failure(solver):
    """And the message says what is the matter: most likely the negative of a log-likelihood."""
    linear = Linear([0.9, 0.5])
    with pytest.warns(emcore.ConvergenceWarning, match="fell by .* along the map's own step.*not its negative"):
        result = emcore.accelerate(linear.map, np.zeros(2), lambda x: -linear.value(x), solver)
    assert result.status is Status.DECREASED
    assert (result.theta == 0).all()
    assert "The objective must be what em_map raises" in str(result)


def test_what_stands():
    """Against the EM step, or lower than asked: refused; the first costs no pass, and a fall is paid for by the slack."""
    objective = MapObjective(lambda x: x + 1, lambda x: float(x[0]), size=1)
    current = objective.evaluate([0.0])

    def stands(theta, **more):
        before = objective.passes
        state = Accelerated(current.point, current, **more)
        return propose(objective, state, np.array([theta])) is not None, objective.passes - before

    assert stands(0.5) == (True, 1)
    assert stands(-0.5) == stands(0.0) == stands(math.nan) == stands(math.inf) == (False, 0)
    objective._value = lambda x: -float(x[0])
    assert stands(0.5) == (False, 1)
    assert stands(0.5, slack=0.6) == (True, 1)
    assert stands(0.5, slack=0.6, least=-0.4) == (False, 1)
    current.gain = 1e4
    assert stands(0.5, slack=0.6) == (False, 1)
    assert stands(0.5, slack=0.6 + 1e4 * C1) == (True, 1)


def test_a_proposal_whose_em_step_breaks_is_refused():
    """The M-step of a trial may collapse where that of the point before does not: the climb goes on by EM."""
    case = SMALL[0]
    objective = case.objective()
    state = first = Anderson().init(objective, case.start(objective))
    for _ in range(2):
        state = Anderson().step(objective, state)
    maximize, broken = objective.maximize, []

    def breaks_once(at, stats):
        if not broken:
            broken.append(at)
            raise Breakdown(Failure(Status.COLLAPSED, "component 0"))
        return maximize(at, stats)

    objective.maximize = breaks_once
    new = Anderson().step(objective, state)
    assert broken
    assert new.failure is None
    assert new.event == "fell back"
    assert new.current.value > state.current.value > first.current.value


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("solver", [SQUAREM(), Anderson(), DAAREM(), ZAL(), QN1(), QN2()], ids=named)
def test_no_climb_ends_below_its_start_and_falls_end(solver, case):
    """Whatever the budget; from a point that is nothing special, where extrapolations go wrong."""
    objective = case.objective()
    at = case.somewhere(objective, seed=3)
    result = solve(objective, solver, at, stop=Stop(gain=1e-10, max_passes=150))
    noise = rounding(result.evaluation.scale)
    assert result.trace.value.min() >= result.trace.value[0] - noise
    falls = np.minimum(np.diff(result.trace.value), 0)
    slack = getattr(solver, "slack", 0.0) / case.total
    assert -falls.sum() <= slack + noise * len(falls)
    for array in result.point.params:
        assert np.isfinite(array).all()
    if "covariances" in result.point.params._fields and result.point.params.covariances.ndim == 3:
        assert np.linalg.eigvalsh(result.point.params.covariances).min() > 0


@pytest.mark.parametrize("solver", [SQUAREM(), Anderson(), DAAREM(), ZAL(), QN1(), QN2()], ids=named)
def test_states_hold_arrays_and_scalars_only(solver):
    objective = SMALL[0].objective()
    state = solver.init(objective, SMALL[0].start(objective))
    for _ in range(3):
        state = solver.step(objective, state)
    assert state.failure is None
    for f in fields(state):
        if f.name not in ("point", "current", "failure", "event", "info"):
            assert isinstance(getattr(state, f.name), (float, np.ndarray)), f.name


@pytest.mark.parametrize("covariance", ["full", "diag", "spherical"])
@pytest.mark.parametrize("solver", [SQUAREM(), Anderson(), DAAREM(), ZAL(), QN1(), QN2()], ids=named)
def test_at_the_floor_the_chart_ends_and_climbs_go_on(solver, covariance):
    """One component ends on its floor, where coordinates jump to their clamp; the others still overlap and take time."""
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + [2.2, 0], np.full((4, 2), 9.0)])
    shape = {"full": [np.eye(2)] * 3, "diag": np.ones((3, 2)), "spherical": np.ones(3)}[covariance]
    start = {"weights": [0.45, 0.45, 0.1], "means": [[0, 0], [2, 0], [9, 9]], "covariances": shape}
    model = emcore.models.GaussianMixture(3, covariance)
    best = emcore.fit(model, X, start=start, solver="em", stop=Stop(gain=1e-15))
    result = emcore.fit(model, X, start=start, solver=solver)
    assert result.status is best.status is Status.BOUNDARY
    assert result.boundary == best.boundary == ("the covariance of component 2 is at its floor",)
    assert result.value == pytest.approx(best.value, abs=1e-8)
    assert result.passes < best.passes


# The London Times mixture (Hasselblad 1969): counts of deaths a day

DEATHS = np.arange(10)
DAYS = np.array([162.0, 267, 271, 185, 111, 61, 27, 8, 3, 1])
FACTORIALS = np.array([math.lgamma(k + 1) for k in DEATHS])
STARTS = [0.3, 1.0, 2.5], [0.5, 1.0, 4.0]
BEST = 0.359885, 1.256095, 2.663404


def joint(theta):
    p, a, b = theta
    log = math.log
    return p * np.exp(DEATHS * log(a) - a - FACTORIALS), (1 - p) * np.exp(DEATHS * log(b) - b - FACTORIALS)


def poisson_em(theta):
    first, second = joint(theta)
    h = DAYS * first / (first + second)
    rest = DAYS - h
    return [h.sum() / DAYS.sum(), h @ DEATHS / h.sum(), rest @ DEATHS / rest.sum()]


def poisson_value(theta):
    first, second = joint(theta)
    return float(DAYS @ np.log(first + second)) if 0 < theta[0] < 1 else -math.inf


def between(theta):
    return bool(0 < theta[0] < 1 and theta[1] > 0 and theta[2] > 0)


@pytest.mark.parametrize("start", STARTS, ids=str)
@pytest.mark.parametrize(
    ("solver", "most"),
    [
        (SQUAREM("S1"), 90), (SQUAREM("S2"), 90), (SQUAREM(), 75), (ZAL(1), 170), (ZAL(2), 60), (ZAL(), 35), (QN1(), 100),
        (Anderson(), 40), (DAAREM(), 100),
    ],
    ids=str,
)  # fmt: skip
def test_london_times(solver, most, start):
    stop = Stop(gain=0, residual=1e-8, max_passes=3000)
    result = emcore.accelerate(poisson_em, start, poisson_value, solver, stop=stop)
    assert result.status is Status.RESIDUAL
    assert np.linalg.norm(poisson_em(result.theta) - result.theta) <= 1e-8
    assert result.theta == pytest.approx(BEST, abs=2e-6)
    assert result.value == pytest.approx(-1989.945860, abs=1e-6)
    assert result.value >= result.trace.value.max() - 1e-9
    assert result.passes <= most


def test_london_times_by_em_alone():
    passes = [
        emcore.accelerate(poisson_em, start, poisson_value, "em", stop=Stop(gain=0, residual=1e-8)).passes for start in STARTS
    ]
    assert passes == pytest.approx([2586, 2782], abs=5)


@pytest.mark.parametrize("start", STARTS, ids=str)
@pytest.mark.parametrize("method", ["squarem", "anderson", "daarem", "zal", "qn1"])
def test_london_times_without_its_value(method, start):
    result = emcore.accelerate(poisson_em, start, method=method, inside=between)
    assert result.status is Status.RESIDUAL
    assert result.theta == pytest.approx(BEST, abs=2e-6)
    assert result.passes <= 110
    assert math.isnan(result.value)
    assert "log-likelihood not known" in str(result)
    again = emcore.accelerate(poisson_em, start, method=method, inside=between)
    assert (again.theta == result.theta).all()
    assert again.trace.event.tolist() == result.trace.event.tolist()


# accelerate() and MapObjective


def test_calls_are_passes():
    linear = Linear([0.9, 0.5])
    for method in ("em", "squarem", "anderson", "daarem", "zal", "qn1"):
        linear.calls = 0
        result = emcore.accelerate(linear.map, np.zeros(2), linear.value, method)
        assert result.passes == result.trace.passes[-1] == linear.calls
        assert result.solver == method


def test_rules_that_can_be_judged():
    linear = Linear([0.9, 0.5])
    assert emcore.accelerate(linear.map, np.zeros(2), stop=Stop(xtol=1e-6)).status is Status.STEP
    assert emcore.accelerate(linear.map, np.zeros(2), linear.value, stop=Stop(ftol=1e-9)).status is Status.VALUE
    result = emcore.accelerate(linear.map, np.zeros(2), stop=Stop(residual=1e-5))
    assert result.status is Status.RESIDUAL
    assert result.measures.residual == pytest.approx(np.linalg.norm(linear.map(result.theta) - result.theta))
    assert 0 < result.measures.residual <= 1e-5
    assert math.isnan(result.measures.gain)
    assert math.isnan(result.measures.gradient)
    result = emcore.accelerate(linear.map, np.zeros(2), linear.value, "em", stop=Stop(aitken=1e-6))
    assert result.status is Status.AITKEN
    assert result.measures.remaining == pytest.approx(linear.value(np.ones(2)) - result.value, rel=0.01)
    assert 0 < result.measures.remaining <= 1e-6
    for name in ("gtol", "ftol", "aitken", "gain"):
        with pytest.raises(ValueError, match=f"stop: of an EM map only residual or xtol can be judged, not {name}"):
            emcore.accelerate(linear.map, np.zeros(2), stop=Stop(**{name: 1e-3}))
    for name in ("gtol", "gain"):
        with pytest.raises(ValueError, match=f"only residual, xtol, ftol or aitken can be judged, not {name}"):
            emcore.accelerate(linear.map, np.zeros(2), linear.value, stop=Stop(residual=1e-3, **{name: 1e-3}))
    with pytest.raises(TypeError, match="stop must be a Stop"):
        emcore.accelerate(linear.map, np.zeros(2), stop=1e-8)


def test_a_stop_without_a_rule_has_the_default_one():
    linear = Linear([0.9, 0.5])
    default = emcore.accelerate(linear.map, np.zeros(2))
    for stop in (Stop(), Stop(max_passes=500), Stop(max_seconds=100)):
        result = emcore.accelerate(linear.map, np.zeros(2), stop=stop)
        assert (result.status, result.stop.residual) == (Status.RESIDUAL, 1e-8)
        assert result.theta.tolist() == default.theta.tolist()
        assert result.stop.max_passes == stop.max_passes
    with pytest.warns(emcore.ConvergenceWarning, match="budget of passes"):  # but none was asked for
        result = emcore.accelerate(linear.map, np.zeros(2), method="em", stop=Stop(gain=0, max_passes=700))
    assert result.passes == 700
    assert result.measures.residual < 1e-8


def test_the_length_of_the_em_step_is_a_rule_for_every_solver():
    case = SMALL[0]
    for name in ("em", "lbfgs", "qn2", "anderson"):
        objective = case.objective()
        result = solve(objective, emcore.solvers.get(name), case.start(objective), stop=Stop(gain=0, residual=1e-5))
        assert result.status is Status.RESIDUAL
        em = objective.evaluate(result.point).em_point
        assert np.linalg.norm(em.theta - result.theta) == pytest.approx(result.measures.residual)
        assert 0 < result.measures.residual <= 1e-5


def test_budgets_callbacks_and_monotone_values():
    seen = []
    stop = Stop(gain=0, residual=1e-8, max_passes=20)
    with pytest.warns(emcore.ConvergenceWarning, match="budget of passes"):
        result = emcore.accelerate(poisson_em, STARTS[0], poisson_value, "em", stop=stop, callback=seen.append)
    assert result.status is Status.MAX_PASSES
    assert result.passes == 20 == len(seen)
    assert np.diff(result.trace.value).min() >= 0
    assert result.weight == 1
    assert result.log_likelihood == result.value


def test_what_the_functions_do_to_their_argument_matters_to_nobody():
    def spoils(x):
        new = 0.5 * x + 1
        x[:] = np.nan
        return new

    result = emcore.accelerate(spoils, [0.0, 1.0], lambda x: -float(np.sum((x - 2) ** 2)))
    assert result.theta == pytest.approx([2.0, 2.0], abs=1e-7)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"em_map": 3}, TypeError, "em_map must be callable with theta, got 3"),
        ({"objective": 3.0}, TypeError, "objective must be callable with theta, got 3.0"),
        ({"inside": True}, TypeError, "inside must be callable"),
        ({"theta": [[1.0]]}, ValueError, r"theta must have shape \(p,\), got \(1, 1\)"),
        ({"theta": [math.nan]}, ValueError, "theta must be finite"),
        ({"theta": []}, ValueError, "theta must have shape"),
        ({"em_map": lambda x: [1.0, 2.0]}, ValueError, r"em_map must return an array of shape \(1,\), got \(2,\)"),
        ({"em_map": lambda x: None}, ValueError, r"em_map must return an array of shape \(1,\)"),
        ({"em_map": lambda x: x * math.nan}, ValueError, "start: the EM map has no finite.*map is not finite there"),
        ({"em_map": lambda x: [1 / 0]}, ValueError, "start: .*em_map raised ZeroDivisionError: division by zero"),
        ({"objective": lambda x: 1 / 0}, ValueError, "start: .*objective raised ZeroDivisionError: division by zero"),
        ({"inside": lambda x: 1 / 0}, ValueError, "start: .*inside raised ZeroDivisionError: division by zero"),
        ({"theta": [1e200]}, ValueError, "start: .*One is as large as 1e.200"),
        ({"objective": lambda x: -math.inf}, ValueError, "start: .* or its objective has no finite .* objective is -inf"),
        ({"objective": lambda x: x}, ValueError, r"objective must return a number, got an array of shape \(1,\)"),
        ({"objective": lambda x: "x"}, TypeError, "objective must return a number, got 'x'"),
        ({"callback": 3}, TypeError, "callback must be callable or None, got 3"),
        ({"inside": lambda x: False}, ValueError, "start: .*not inside the domain"),
        ({"method": "lbfgs"}, ValueError, "method must be one of 'em', 'squarem'.* got 'lbfgs', which needs: gradient, value"),
        ({"method": QN2()}, ValueError, "method must be one of .* got 'qn2', which needs: gradient, value"),
        ({"method": "nothing"}, ValueError, "method must be one of 'em', .*'qn1', 'auto' here, .*got 'nothing'$"),
        ({"method": "SQUAREM"}, ValueError, "method must be one of .* got 'SQUAREM'; write 'squarem'$"),
        ({"method": 3}, TypeError, "method must be a name or a Solver, .* got 3"),
    ],
)
def test_what_makes_no_sense_is_refused(change, error, message):
    arguments = {"em_map": lambda x: 0.5 * x, "theta": [1.0]} | change
    with pytest.raises(error, match=message):
        emcore.accelerate(**arguments)


@pytest.mark.parametrize("with_value", [True, False])
@pytest.mark.parametrize("solver", [EM(), *ACCELERATORS], ids=named)
def test_a_map_that_runs_away_is_a_failure(solver, with_value):
    """No warning of NumPy's on the way, and the last point is a finite one."""
    objective = (lambda x: float(np.log(np.abs(x)).sum())) if with_value else None
    with pytest.warns(emcore.ConvergenceWarning, match="grow beyond all bounds") as warned:
        result = emcore.accelerate(lambda x: 2 * x, [1.0, -3.0], objective, solver)
    assert len(warned) == 1
    assert result.status is Status.DIVERGED
    assert 1e140 < np.abs(result.theta).max() <= 1e150


# A result that can be drawn, kept and gone on with


def steps(n):
    """A callback that ends a climb after n steps."""
    return lambda step: step.row.step >= n


@pytest.mark.parametrize("with_value", [True, False])
@pytest.mark.parametrize("solver", [EM(), Auto(), *ACCELERATORS], ids=named)
def test_a_climb_goes_on_where_it_ended(solver, with_value, tmp_path):
    """With no call repeated, to the last bit, through a file too."""
    linear = Linear([0.99, 0.9, 0.6])
    objective = linear.value if with_value else None
    whole = emcore.accelerate(linear.map, np.zeros(3), objective, solver, callback=steps(8))
    first = emcore.accelerate(linear.map, np.zeros(3), objective, solver, callback=steps(3))
    first.save(tmp_path / "climb")
    loaded = Acceleration.load(tmp_path / "climb.npz")
    assert str(loaded) == str(first)
    for earlier in (first, loaded):
        calls = linear.calls
        second = emcore.accelerate(linear.map, earlier, objective, solver, callback=steps(whole.steps - first.steps))
        assert linear.calls - calls == second.passes == whole.passes - first.passes
        np.testing.assert_array_equal(second.theta, whole.theta)
        np.testing.assert_array_equal(second.trace.value, whole.trace.value[3:])
        assert second.start == "where that climb ended"
        second.save(tmp_path / "again.npz")
        again = Acceleration.load(tmp_path / "again.npz")
        np.testing.assert_array_equal(again.theta, whole.theta)
        assert (again.status, again.solver, again.stop) == (second.status, second.solver, second.stop)
        assert math.isnan(again.value) == (not with_value)


def test_another_climb_begins_at_the_coordinates():
    linear = Linear([0.99, 0.5])
    earlier = emcore.accelerate(linear.map, np.zeros(2), callback=steps(2))
    for method, objective in (("em", None), (SQUAREM("S1"), None), ("squarem", linear.value)):
        again = emcore.accelerate(linear.map, earlier, objective, method, callback=steps(0))
        assert again.start == "given coordinates"
        assert again.passes == 1
        assert again.theta.tolist() == earlier.theta.tolist()


def test_a_failed_climb_is_kept_too(tmp_path):
    with pytest.warns(emcore.ConvergenceWarning):
        failed = emcore.accelerate(lambda x: 0.5 * x, [1.0], lambda x: float(x @ x))
    failed.save(tmp_path / "failed.npz")
    loaded = Acceleration.load(tmp_path / "failed.npz")
    assert loaded.failure == failed.failure
    assert loaded.status is Status.DECREASED


def test_files_of_something_else_are_refused(tmp_path):
    fit = emcore.fit(emcore.models.GaussianMixture(1), np.arange(6.0)[:, None])
    fit.save(tmp_path / "fit.npz")
    emcore.accelerate(lambda x: 0.5 * x, [1.0]).save(tmp_path / "climb.npz")
    with pytest.raises(ValueError, match=r"not a saved climb of emcore\.accelerate .* 'emcore fit .*: emcore\.load"):
        Acceleration.load(tmp_path / "fit.npz")
    with pytest.raises(ValueError, match=r"not a saved fit .* 'emcore acceleration .*: emcore\.Acceleration\.load"):
        emcore.load(tmp_path / "climb.npz")
    with pytest.raises(TypeError, match=r"theta must be numbers \(p,\) or a result of emcore\.accelerate, got a Fit"):
        emcore.accelerate(lambda x: 0.5 * x, fit)


def test_a_climb_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    emcore.accelerate(lambda x: 0.5 * x, [1.0]).plot(tmp_path / "climb.svg")
    assert "an EM map of 1 coordinates" in (tmp_path / "climb.svg").read_text()
    with pytest.raises(ValueError, match="extension"):
        emcore.accelerate(lambda x: 0.5 * x, [1.0]).plot(tmp_path / "climb.bmp")


def test_everything_is_recorded_when_asked_for():
    linear = Linear([0.9, 0.5])
    stop = Stop(gain=0, ftol=1e-12)
    plain, full = (emcore.accelerate(linear.map, np.zeros(2), linear.value, "em", stop=stop, record=r) for r in (False, True))
    assert np.isnan(plain.trace.residual).all()
    assert (full.trace.residual[:-1] > 0).all()
    assert np.isfinite(full.trace.remaining[2:5]).all()
    assert full.passes == plain.passes


@pytest.mark.parametrize("cls", [QN1, QN2])
def test_a_memory_that_is_full_begins_again(cls):
    case = next(case for case in CASES if "full-k2-d1" in case.name)
    objective = case.objective()
    result = solve(objective, cls(memory=3), case.start(objective), stop=Stop(gain=1e-9))
    assert result.status.ok
    assert "restarted" in result.trace.event
