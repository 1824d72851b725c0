"""Solvers that move after each piece of the data, on a toy in NumPy and on every model; and those that scale the EM step."""

import math
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from cases import CASES, SMALL
from hills import Evaluation, Hill, Overlap, Point, Quadratic

from emcore import solvers
from emcore.data import as_source
from emcore.models import GaussianMixture
from emcore.objective import ModelObjective
from emcore.result import Breakdown, Failure, OutOfBudget, Status, Stop, rounding
from emcore.solve import solve
from emcore.solvers import EM, SVREM, Adam, FirstOrderEM, GradientAscent, Incremental, Natural, Newton, Online, Sparse
from emcore.solvers.svrem import SVREMState

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_model = pytest.mark.parametrize("case", SMALL, ids=str)

BLOCKS = [Incremental(), Online(), SVREM(), Adam()]


def named(solver):
    return solver.describe()


def climb(case, solver, stop=None, **options):
    """Return the objective and the result of a climb from the start of a case."""
    objective = case.objective(**options)
    return objective, solve(objective, solver, case.start(objective), stop=stop)


# A toy: two normals of unit variance, weight and means unknown


class Stats(NamedTuple):
    vector: np.ndarray
    origin: np.ndarray
    weight: float


class Normals(Hill):
    """theta = (weight of the second, its mean, mean of the first). Statistics: ``[count 2 | sum 2 | sum of squares]``."""

    capabilities = frozenset({"value", "gradient", "em", "blocks"})

    def __init__(self, n=200, cut=7):
        super().__init__(3)
        rng = np.random.default_rng(5)
        self.x = np.where(rng.random(n) < 0.4, rng.normal(-1, 1, n), rng.normal(1, 1, n))
        self.parts = tuple(np.array_split(self.x, cut))
        self.visited, self.monitored, self.inside = [], 0.0, False
        self.weight = float(n)

    def pieces(self, n):
        return tuple(range(len(self.parts)))

    def point(self, theta):
        return Point(theta)

    @contextmanager
    def monitoring(self):
        self.inside = True
        yield
        self.inside = False

    def _joint(self, theta, x):
        w, m1, m0 = theta
        return np.log([1 - w, w]) - 0.5 * (x[:, None] - [m0, m1]) ** 2 - 0.5 * math.log(2 * math.pi)

    def _evaluate(self, point, x):
        joint = self._joint(point.theta, x)
        each = np.logaddexp(joint[:, 0], joint[:, 1])
        h = np.exp(joint - each[:, None])
        e = Evaluation(self, point, float(each.mean()))
        e.stats = Stats(np.array([*h.sum(0), *(h.T @ x), (x * x).sum()]), np.empty(0), float(len(x)))
        e.entropy = e.value - self.q(point, e.stats)
        e.gain = self.q(self.maximize(point, e.stats), e.stats) - self.q(point, e.stats)
        e.em_point = self.maximize(point, e.stats)
        return e

    def evaluate(self, at, blocks=None, near=None):
        point = at if isinstance(at, Point) else Point(at)
        x = self.x if blocks is None else np.concatenate([self.parts[i] for i in blocks])
        if self.inside:
            self.monitored += 1
        else:
            self._count(1.0 if blocks is None else len(blocks) / len(self.parts))
            self.visited += [] if blocks is None else [(blocks[0], point.theta)]
        return self._evaluate(point, x)

    def _count(self, fraction):
        if self.passes + fraction > self.most + 1e-9:
            raise OutOfBudget(Status.MAX_PASSES)
        self.passes += fraction

    def each(self, at, pieces):
        self._count(1.0)
        return self._evaluate(at, self.x), tuple(self._evaluate(at, self.parts[i]) for i in pieces)

    def recentre(self, stats, origin):
        return stats

    def maximize(self, at, stats):
        n0, n1, s0, s1, _ = stats.vector
        if min(n0, n1) <= 0:
            raise Breakdown(Failure(Status.COLLAPSED, "component 0"))
        return Point([n1 / (n0 + n1), s1 / n1, s0 / n0])

    def slope(self, theta):
        w, m1, m0 = theta
        h = responsibilities(theta, self.x)
        return np.array([(h - w).mean() / (w * (1 - w)), (h * (self.x - m1)).mean(), ((1 - h) * (self.x - m0)).mean()])

    def q(self, at, stats):
        (w, m1, m0), (n0, n1, s0, s1, squares) = at.theta, stats.vector
        norms = n0 * (math.log(1 - w) - 0.5 * m0 * m0) + n1 * (math.log(w) - 0.5 * m1 * m1) + s0 * m0 + s1 * m1
        return (norms - 0.5 * squares - 0.5 * (n0 + n1) * math.log(2 * math.pi)) / stats.weight


def responsibilities(theta, x):
    w, m1, m0 = theta
    a, b = (1 - w) * np.exp(-0.5 * (x - m0) ** 2), w * np.exp(-0.5 * (x - m1) ** 2)
    return b / (a + b)


def update(h, x):
    """Return the M-step of responsibilities of the second component."""
    return np.array([h.mean(), (h @ x) / h.sum(), ((1 - h) @ x) / (1 - h).sum()])


BEGIN = Point([0.5, 0.3, -0.2])


def test_incremental_em_is_that_of_neal_and_hinton():
    """Against responsibilities of all rows in an array, replaced piece by piece."""
    hill = Normals()
    solver = Incremental()
    state = solver.init(hill, BEGIN)
    h, theta, edges = responsibilities(BEGIN.theta, hill.x), BEGIN.theta, np.cumsum([0, *map(len, hill.parts)])
    for sweep in range(3):
        hill.visited = []
        state = solver.step(hill, state)
        assert sorted(i for i, _ in hill.visited) == list(range(7))
        for i, seen in hill.visited:
            theta = update(h, hill.x)
            assert seen == pytest.approx(theta, rel=1e-12)
            h[edges[i] : edges[i + 1]] = responsibilities(theta, hill.parts[i])
        assert state.point.theta == pytest.approx(theta, rel=1e-12)
        entropy = -np.sum(h * np.log(h) + (1 - h) * np.log(1 - h))
        expected = (1 - h) @ hill._joint(theta, hill.x)[:, 0] + h @ hill._joint(theta, hill.x)[:, 1]
        assert state.free_energy == pytest.approx((expected + entropy) / 200, rel=1e-12)
        assert state.free_energy < state.current.value
        assert (hill.passes, hill.monitored) == (pytest.approx(2 + sweep), 1 + sweep)


def test_online_em_is_that_of_cappe_and_moulines():
    hill = Normals()
    solver = Online(exponent=0.8)
    state = solver.init(hill, BEGIN)
    s, k = state.current.stats.vector, 0
    for _ in range(2):
        hill.visited = []
        state = solver.step(hill, state)
        for i, seen in hill.visited:
            theta = np.array([s[1] / (s[0] + s[1]), s[3] / s[1], s[2] / s[0]])
            assert seen == pytest.approx(theta, rel=1e-12)
            x = hill.parts[i]
            h = responsibilities(theta, x)
            rate = (k + 2) ** -0.8
            s = (1 - rate) * s + rate * 7 * np.array([(1 - h).sum(), h.sum(), (1 - h) @ x, h @ x, x @ x])
            k += 1
        assert state.vector == pytest.approx(s, rel=1e-12)
        assert state.point.theta == pytest.approx(theta, rel=1e-12)
    assert state.updates == 14
    assert hill.passes == pytest.approx(3)


def test_averages_forget_the_beginning_and_calm_the_end():
    hill = Normals()
    plain, calm = (solve(Normals(), Online(share=0.3, averaging=a), BEGIN, stop=Stop(max_passes=60)) for a in (False, True))
    best = solve(hill, EM(), BEGIN, stop=Stop(gain=1e-15))
    errors = [np.abs(r.trace.value[20:] - best.value).mean() for r in (plain, calm)]
    assert errors[1] < 0.2 * errors[0]


def test_svrem_corrects_by_what_the_piece_gave_at_the_anchor():
    hill = Normals()
    solver = SVREM(share=0.2)
    state = solver.init(hill, BEGIN)
    whole = state.current.stats.vector
    new = solver.step(hill, state)
    s = whole.copy()
    for i, seen in hill.visited:
        theta = np.array([s[1] / (s[0] + s[1]), s[3] / s[1], s[2] / s[0]])
        assert seen == pytest.approx(theta, rel=1e-12)
        here, anchor = (hill._evaluate(Point(t), hill.parts[i]).stats.vector for t in (theta, BEGIN.theta))
        s = 0.8 * s + 0.2 * (7 * (here - anchor) + whole)
    assert new.event == "swept"
    assert hill.passes == pytest.approx(3)
    assert hill.monitored == 0


def test_svrem_falls_back_to_the_em_step():
    """Statistics of the pieces that belong to another anchor make mixed ones that are no statistics of anything."""
    hill = Normals()
    solver = SVREM(share=1.0)
    state = solver.init(hill, BEGIN)
    wrong = SVREMState(state.point, state.current, vectors=state.vectors + 100)
    new = solver.step(hill, wrong)
    assert new.event == "em"
    assert new.point.theta == pytest.approx(state.current.em_point.theta)
    assert new.sweeps == 1
    hill.boundary = lambda at: ("the edge",) if at is not state.point else ()
    assert solver.step(hill, state).event == "em"


def test_svrem_never_falls():
    hill = Normals()
    result = solve(hill, SVREM(share=1.0), BEGIN, stop=Stop(max_passes=300))
    assert result.status.ok
    assert np.diff(result.trace.value).min() >= -rounding(1.5)


def test_adam_is_that_of_kingma_and_ba():
    hill = Normals()
    hill.slope = lambda theta: np.array([0.5, -2.0, 1e-3])
    solver = Adam(lr=0.02, schedule="constant")
    state = solver.step(hill, solver.init(hill, BEGIN))
    # Under a constant gradient the moments cancel: each update is lr times the sign.
    scale = [7 * len(part) / 200 for part in hill.parts]
    assert np.abs(np.array(scale) - 1).max() < 0.05
    assert state.point.theta - BEGIN.theta == pytest.approx([0.14, -0.14, 0.14], rel=0.01)
    later = Adam(lr=0.02).step(hill, state)
    assert later.info["lr"] == pytest.approx(0.02 / math.sqrt(2))
    assert later.updates == 14


def test_adam_shortens_what_leaves_the_feasible_set():
    hill = Normals()
    hill.slope = lambda theta: np.array([1.0, 0.0, 0.0])
    solver = Adam(lr=0.1, schedule="constant")
    inside = hill._evaluate

    def evaluate(point, x):
        if point.theta[0] < 1:
            return inside(point, x)
        return Evaluation(hill, point, -math.inf, Failure(Status.OUTSIDE))

    hill._evaluate = evaluate
    state = solver.step(hill, solver.init(hill, BEGIN))
    assert (state.event, state.shrink) == ("shortened", 0.5)
    assert state.point.theta[0] == pytest.approx(0.85, rel=1e-3)
    hill._evaluate = lambda point, x: Evaluation(hill, point, -math.inf, Failure(Status.OUTSIDE))
    stuck = solver.step(hill, state)
    assert stuck.failure.status is Status.OUTSIDE
    assert stuck.point is state.point


@pytest.mark.parametrize("solver", BLOCKS, ids=named)
def test_the_order_of_the_pieces_is_drawn_afresh_and_repeats(solver):
    orders = []
    for _ in range(2):
        hill = Normals()
        hill.slope = lambda theta: np.zeros(3)
        state = solver.step(hill, solver.step(hill, solver.init(hill, BEGIN)))
        orders.append([i for i, _ in hill.visited])
    assert orders[0] == orders[1]
    assert orders[0][:7] != orders[0][7:]
    assert sorted(orders[0][:7]) == sorted(orders[0][7:]) == list(range(7))
    assert state.sweeps == 2


# Every model


@every_case
@pytest.mark.parametrize("solver", [Incremental(1), Online(1, share=1.0)], ids=named)
def test_with_one_piece_it_is_em_pass_for_pass(solver, case):
    stop = Stop(gain=0, max_passes=12)
    (a, em), (b, ours) = climb(case, EM(), stop), climb(case, solver, stop)
    np.testing.assert_array_equal(ours.trace.passes, em.trace.passes)
    np.testing.assert_allclose(ours.theta, em.theta, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.trace.value, em.trace.value, rtol=1e-12)
    assert a.monitor_passes == b.monitor_passes == 0


def test_incremental_em_gains_twice_as_much_a_pass():
    """Neal and Hinton's figure: two overlapping components, 1000 rows, after 1, 2 and 5 passes."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random(1000) < 0.5, rng.normal(0, 1, 1000), rng.normal(2, 1.5, 1000))
    objective = ModelObjective(GaussianMixture(2), as_source(x[:, None]), n_threads=1)
    start = {"weights": [0.5, 0.5], "means": x.mean() + x.std() * np.array([[-1], [1]]), "covariances": [[[x.var()]]] * 2}
    at = objective.point_of(objective.model.from_user(start))
    best = solve(objective, EM(), at, stop=Stop(gain=1e-14)).value
    em, ours = (best - solve(objective, s, at, stop=Stop(gain=0, max_passes=6)).trace.value for s in (EM(), Incremental(200)))
    assert (ours[[1, 2, 5]] < 0.6 * em[[1, 2, 5]]).all()
    assert ours[1] < 1.1 * em[2]


@every_case
@pytest.mark.parametrize("n_blocks", [3, 40])
def test_the_free_energy_never_falls_and_is_a_bound(case, n_blocks):
    objective = case.objective()
    solver = Incremental(n_blocks)
    state = solver.init(objective, case.start(objective))
    for _ in range(15):
        new = solver.step(objective, state)
        assert new.failure is None
        noise = new.current.noise
        assert state.free_energy - noise <= new.free_energy <= new.current.value + noise
        state = new
    assert state.free_energy > state.current.value - 1e-2
    assert objective.monitor_passes == 15


@every_model
@pytest.mark.parametrize("solver", [Incremental(), Sparse(), EM()], ids=named)
def test_the_free_energy_in_the_trace_never_falls_and_is_at_most_the_value(solver, case):
    _, result = climb(case, solver, Stop(gain=1e-12, max_passes=400))
    free, noise = result.trace.free_energy, result.evaluation.noise
    assert len(free) > 3
    if solver.name == "em":
        assert np.isnan(free).all()
        return
    assert np.diff(free).min() >= -noise
    assert (free <= result.trace.value + noise).all()
    assert free[0] == result.trace.value[0]
    assert (free[1:-1] < result.trace.value[1:-1]).any()  # it is not the value


def test_a_free_energy_that_falls_is_a_failure():
    objective = SMALL[0].objective()
    solver = Incremental()
    state = solver.init(objective, SMALL[0].start(objective))
    for _ in range(3):
        state = solver.step(objective, state)
    object.__setattr__(state, "free_energy", state.free_energy + 1)
    new = solver.step(objective, state)
    assert new.failure.status is Status.DECREASED
    assert "free energy" in new.failure.detail
    assert new.point is state.point


@every_model
@pytest.mark.parametrize("solver", [Online(8), Online(8, averaging=True), Adam(8, lr=0.02)], ids=named)
def test_noisy_solvers_come_near_the_optimum_of_every_model(solver, case):
    best = climb(case, EM(), Stop(gain=1e-12, max_passes=5000))[1]
    objective, result = climb(case, solver, Stop(max_passes=150))
    assert result.status is Status.MAX_PASSES or result.status.ok
    assert result.value >= best.value - 5e-3
    assert result.passes <= 150
    assert objective.monitor_passes == result.steps
    falls = np.diff(result.trace.value) < -result.evaluation.noise
    np.testing.assert_array_equal(falls, result.trace.event[1:] == "fell")


@every_model
@pytest.mark.parametrize("solver", BLOCKS, ids=named)
def test_another_seed_is_another_climb(solver, case):
    other = type(solver)(seed=1)
    a, b = (climb(case, s, Stop(gain=0, max_passes=21))[1] for s in (solver, other))
    assert (a.theta != b.theta).any()
    assert other.describe() == f"{solver.name}(seed=1)"


@every_model
@pytest.mark.parametrize("solver", BLOCKS, ids=named)
def test_a_source_of_blocks_is_taken_as_it_is(solver, case):
    objective, result = climb(case, type(solver)(4), Stop(gain=0, max_passes=7), block_rows=len(case.X) // 12)
    assert objective.source.n_blocks == len(objective.pieces(4)) > 4
    assert result.passes == pytest.approx(7)


def test_no_piece_is_without_weight():
    weights = np.zeros(60)
    weights[[3, 17, 40]] = 1.0, 2.0, 3.0
    X = np.random.default_rng(0).normal(size=(60, 2))
    objective = ModelObjective(GaussianMixture(1), as_source(X, weights, block_rows=30))
    pieces = objective.pieces(60)
    assert sorted((p.block, p.start) for p in pieces) == [(0, 3), (0, 17), (1, 10)]
    assert {p.of for p in pieces} == {3}
    at = objective.point_of(objective.model.params(*objective.model.latent.initial(), *objective.model.emission.initial()))
    assert solve(objective, Incremental(60), at).status.ok


@every_case
@pytest.mark.parametrize("n", [1, 4, 50])
def test_pieces_make_the_whole(case, n):
    objective = case.objective()
    at = case.somewhere(objective)
    pieces = objective.pieces(n)
    whole = objective.evaluate(at)
    together, apart = objective.each(at, pieces)
    assert objective.passes == 2
    assert len(apart) == len(pieces)
    assert together.value == pytest.approx(whole.value, rel=1e-13)
    assert together.scale == pytest.approx(whole.scale, rel=1e-13)
    np.testing.assert_allclose(together.gradient, whole.gradient, rtol=0, atol=1e-12 * max(1, np.abs(whole.gradient).max()))
    for piece, part in zip(pieces, apart, strict=True):
        alone = objective.evaluate(at, blocks=[piece])
        np.testing.assert_array_equal(alone.stats.vector, part.stats.vector)
        assert part.stats.weight == case.w[piece.start :: piece.step].sum()
    assert objective.passes == pytest.approx(3)


def test_a_component_that_lives_on_what_a_pass_leaves_out_is_seen_piece_by_piece_too():
    X = np.random.default_rng(0).normal(size=(200, 2))
    objective = ModelObjective(GaussianMixture(2), as_source(X), n_threads=1)
    far = {"weights": [0.5, 0.5], "means": [[0.0, 0.0], [12.0, 12.0]], "covariances": [np.eye(2)] * 2}
    at = objective.point_of(objective.model.from_user(far))
    whole = objective.evaluate(at).stats.vector
    assert 0 < whole[1] < 1e-16
    np.testing.assert_allclose(objective.each(at, objective.pieces(5))[0].stats.vector, whole, rtol=1e-9)


def test_a_bad_row_of_a_piece_is_named():
    X, weights = np.random.default_rng(0).normal(size=(40, 1)), np.ones(40)
    weights[22] = 0.0
    objective = ModelObjective(GaussianMixture(1), as_source(X, weights, block_rows=20))
    at = objective.point_of(objective.model.params(*objective.model.latent.initial(), *objective.model.emission.initial()))
    far = objective.point_of(at.params._replace(means=np.full((1, 1), 1e200)))  # all rows are bad
    rows = [objective.evaluate(far, blocks=[piece]).failure.where for piece in objective.pieces(8)]
    assert rows == [f"row {i}" for i in (0, 1, 2, 3, 20, 21, 26, 23)]
    whole, parts = objective.each(far, objective.pieces(8))
    assert whole.failure.where == "row 0"
    assert len(parts) == 1


@every_model
def test_statistics_of_two_points_add_when_recentred(case):
    objective = case.objective()
    a, b = (objective.evaluate(case.somewhere(objective, seed)) for seed in (0, 1))
    if not np.array_equal(a.stats.origin, b.stats.origin):  # those about no origin always add
        with pytest.raises(ValueError, match="recentre"):
            _ = a.stats + b.stats
    both = a.stats + objective.recentre(b.stats, a.stats.origin)
    for at in (a.point, b.point):
        mean = 0.5 * (objective.q(at, a.stats) + objective.q(at, b.stats))
        assert objective.q(at, both) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("solver", BLOCKS, ids=named)
def test_sorted_rows_are_no_harm(solver):
    """A piece has rows from all over the data."""
    rng = np.random.default_rng(1)
    X = np.concatenate((rng.normal(0, 1, (500, 2)), rng.normal(4, 1, (500, 2))))
    objective = ModelObjective(GaussianMixture(2), as_source(X), n_threads=1)
    start = {"weights": [0.5, 0.5], "means": [[1, 1], [3, 3]], "covariances": [np.eye(2)] * 2}
    at = objective.point_of(objective.model.from_user(start))
    best = solve(objective, EM(), at)
    first, later = (solve(objective, solver, at, stop=Stop(max_passes=passes)).value for passes in (4, 40))
    assert first > best.value - 0.1
    assert later > best.value - 2e-4


# Scaled steps: natural gradients and first-order EM


class Metric(Quadratic):
    """A quadratic whose P is the inverse of its diagonal, whatever the statistics."""

    capabilities = frozenset({"value", "gradient", "em", "metric"})

    def evaluate(self, at, blocks=None):
        e = super().evaluate(at, blocks)
        e.precondition = lambda v: self.P * v
        e.stats = None
        return e

    def gradient(self, at, stats):
        return self.slope(at.theta)


@pytest.mark.parametrize("a", [0.4, 1.0, 1.7])
def test_a_natural_step_is_exactly_that(a):
    hill = Metric(4, 10, diagonal=True)
    solver = Natural(a)
    state = solver.step(hill, solver.init(hill, Point(np.zeros(4))))
    assert state.point.theta == pytest.approx(a * hill.P * hill.slope(np.zeros(4)))
    assert state.event == "accepted"


def test_a_natural_step_that_falls_is_the_em_step():
    hill = Metric(4, 10, diagonal=True)
    hill.P = 1.9 / np.diag(hill.A)  # the EM step climbs, 1.9 times it does not
    solver = Natural(1.9)
    state = solver.init(hill, Point(np.zeros(4)))
    new = solver.step(hill, state)
    assert new.event == "em"
    assert new.point.theta == pytest.approx(state.current.em_point.theta)
    assert hill.passes == 3


def test_the_adaptive_step_grows_until_it_does_not_pay():
    hill = Metric(4, 10, diagonal=True)  # half of a Newton step: up to 4 times it climbs
    solver = Natural()
    state, lengths = solver.init(hill, Point(np.zeros(4))), []
    assert state.length == 1.0
    state = replace(state, length=1.1**12)  # grown from 1 it would arrive before it is too long, and a fall be rounding
    for _ in range(20):
        lengths.append(state.length)
        state = solver.step(hill, state)
        if state.event == "em":
            break
    assert lengths == pytest.approx([1.1**i for i in range(12, 12 + len(lengths))])
    assert 4 <= lengths[-1] < 4.4
    assert state.length == 1.0


@every_case
def test_natural_with_one_is_em_to_first_order(case):
    objective = case.objective()
    near = climb(case, EM(), Stop(gain=1e-7))[1].point
    e = objective.evaluate(objective.point_of(near.params))
    em = e.em_point.theta - e.point.theta
    natural = e.precondition(e.gradient)
    assert np.abs(natural - em).max() <= 0.05 * np.abs(em).max() + 1e-9


@every_case
@pytest.mark.parametrize("solver", [Natural(), Natural(1.8), FirstOrderEM()], ids=named)
def test_scaled_steps_never_fall(solver, case):
    _, result = climb(case, solver, Stop(max_passes=200))
    assert np.diff(result.trace.value).min(initial=0) >= -result.evaluation.noise


def test_over_relaxation_pays_where_em_crawls():
    case = next(case for case in CASES if "full-k2-d1-overlapping" in case.name)
    passes = [climb(case, solver, Stop(gain=1e-12))[1].passes for solver in (EM(), Natural(1.8), Natural())]
    assert passes[1] < 0.7 * passes[0]
    assert passes[2] < 0.5 * passes[0]


@pytest.mark.parametrize("apart", [2.5, 5.0])
@pytest.mark.parametrize("a", [0.5, 1.0, 1.5, 1.8])
def test_a_stretched_em_step_shrinks_errors_by_the_rate_that_theory_predicts(a, apart):
    """By the largest |1 - a e| over the eigenvalues e of -PH: where all are near 1 a long step is the slower one."""
    rng = np.random.default_rng(12)
    second = np.arange(600) % 3 > 0
    objective = ModelObjective(GaussianMixture(2), as_source((rng.normal(size=600) + apart * second)[:, None]), n_threads=1)
    at = objective.point_of(objective.model.start(objective.source.block(0), np.eye(2)[second.astype(int)]))
    best = solve(objective, Newton(), at, stop=Stop(gain=0, gtol=2e-15)).evaluation
    top, unit = best.point.theta, np.eye(objective.size)
    PH = np.stack([best.precondition(h) for h in objective.hvp(best, unit).T], axis=1)
    factors, directions = np.linalg.eig(unit + a * PH)
    slowest = np.argmax(np.abs(factors))
    assert (factors[slowest] < 0) == (a > 1 and apart > 4)  # beyond the maximum and back
    errors = []
    result = solve(
        objective, Natural(a), objective.point(top + 1e-3 * directions[:, slowest].real), stop=Stop(gain=0),
        callback=lambda step: errors.append(np.linalg.norm(step.evaluation.point.theta - top)) or errors[-1] < 3e-5,
    )  # fmt: skip
    assert set(result.trace.event[1:]) == {"accepted"}
    assert (errors[-1] / errors[-4]) ** (1 / 3) == pytest.approx(abs(factors[slowest]), rel=2e-4)


@pytest.mark.parametrize("curvature", [1, 30, 1000])
def test_the_automatic_step_is_one_over_the_largest_curvature(curvature):
    hill = Metric(5, curvature)
    solver = FirstOrderEM()
    state = solver.step(hill, solver.init(hill, Point(np.zeros(5))))
    assert state.length == pytest.approx(1 / curvature, rel=1e-3)
    assert state.point.theta == pytest.approx(state.length * hill.slope(np.zeros(5)))
    assert solver.step(hill, state).length == state.length


def test_an_automatic_step_that_lowers_the_value_is_shortened_and_a_given_one_is_not():
    hill = Metric(3, 10)
    steepest = np.linalg.eigh(hill.A)[1][:, -1]
    begin = hill.slope(1 + steepest)
    hill.gradient = lambda at, stats: begin + (hill.slope(at.theta) - begin) / 50  # too little curvature
    solver = FirstOrderEM()
    state = solver.step(hill, solver.init(hill, Point(1 + steepest)))
    assert "shortened" in state.event
    assert state.current.value > -5
    given = solve(hill, FirstOrderEM(0.25), Point(1 + steepest), stop=Stop(gtol=1e-6, ftol=1e300, max_passes=20))
    assert given.status is Status.MAX_PASSES
    assert set(given.trace.event[1:]) == {"fell"}


def test_an_automatic_step_that_falls_however_short_it_is_ends_the_climb():
    hill = Metric(3, 10)
    hill.height = lambda x: -float(np.abs(x).sum())  # the gradient says otherwise
    solver = FirstOrderEM()
    state = solver.init(hill, Point(np.zeros(3)))
    new = solver.step(hill, state)
    assert new.failure.status is Status.NO_ASCENT
    assert new.point is state.point


def test_first_order_em_with_a_number_is_gradient_ascent_with_a_fixed_step():
    a, b = (solve(Overlap(), s, Overlap().begin, stop=Stop(max_passes=50)) for s in (FirstOrderEM(0.3), GradientAscent(0.3)))
    np.testing.assert_array_equal(a.trace.value, b.trace.value)


@pytest.mark.parametrize("name", ["incremental", "online", "svrem", "adam"])
def test_objectives_without_blocks_are_refused(name):
    with pytest.raises(ValueError, match=r"needs \[.*'blocks'.*\]"):
        solve(Overlap(), solvers.get(name), Overlap().begin)
