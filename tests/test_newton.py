"""Newton, Lange's EM gradient and proximal points: rates, saddles, guards; and the subproblem of a trust region."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from broken import BrokenMetric, NoHessian
from cases import OTHERS, SMALL

from emcore.data import as_source
from emcore.models import COVARIANCES, GaussianMixture, PoissonInverse
from emcore.objective import ModelObjective
from emcore.result import Failure, Status, Stop
from emcore.solve import solve
from emcore.solvers import EM, Lange, Newton, Proximal
from emcore.solvers._trust import COMPLETE, FAR, Hill, Path, Whole, advance, reach_from

SECOND_ORDER = [
    Newton(), Newton(whole=0), Lange(), Proximal(), Proximal(beta=0.3), Proximal("1/(1+k)", whole=0), Proximal("trust-region"),
]  # fmt: skip
every_solver = pytest.mark.parametrize("solver", SECOND_ORDER, ids=lambda solver: solver.describe())


def overlapping(covariance="full", apart=2.5, n=600, **options):
    """Return an objective of two normals in one dimension and its maximum, reached to the last digits."""
    rng = np.random.default_rng(12)
    component = np.arange(n) % 3 > 0
    X = (rng.normal(size=n) + apart * component)[:, None]
    objective = ModelObjective(GaussianMixture(2, covariance), as_source(X), n_threads=1, **options)
    at = objective.point_of(objective.model.start(objective.source.block(0), np.eye(2)[component.astype(int)]))
    best = solve(objective, Newton(), at, stop=Stop(gain=0, gtol=2e-15)).point
    assert np.abs(objective.evaluate(best).gradient).max() < 1e-13
    return objective, best


def fractions(objective, at):
    """Return the eigenvalues of the derivative of the EM map at a maximum, ascending, and the uppermost eigenvector."""
    e = objective.evaluate(at)
    unit = np.eye(objective.size)
    DM = unit + np.stack([e.precondition(h) for h in objective.hvp(e, unit).T], axis=1)
    values, vectors = np.linalg.eig(DM)
    top = np.argmax(values.real)
    return np.sort(values.real), vectors[:, top].real


@every_solver
@pytest.mark.parametrize("case", SMALL + OTHERS, ids=str)
def test_values_never_fall_and_counts_are_honest(solver, case):
    objective = case.objective()
    result = solve(objective, solver, case.start(objective))
    assert result.status.ok, result
    noise = result.evaluation.noise
    assert np.diff(result.trace.value).min(initial=0.0) >= -noise
    assert (result.passes, result.hessian_passes) == (objective.passes, objective.hessian_passes)
    assert ("for Hessian products" in str(result)) == (result.hessian_passes > 0)
    assert (objective.hessian_passes > 0) == (solver.name != "lange")
    em = solve(objective, EM(), result.point, stop=Stop(gain=1e-15))
    assert em.value - result.value <= 1e-9  # EM finds nothing above it


@pytest.mark.parametrize("whole", [0, 50])
@pytest.mark.parametrize("kind", COVARIANCES)
def test_newton_converges_quadratically(kind, whole):
    objective, best = overlapping(kind)
    sizes = []
    move = 0.05 * np.random.default_rng(0).normal(size=objective.size)
    result = solve(
        objective, Newton(whole=whole), objective.point(best.theta + move), stop=Stop(gain=0, gtol=2e-15),
        callback=lambda step: sizes.append(np.linalg.norm(step.evaluation.point.theta - best.theta)),
    )  # fmt: skip
    assert result.status.ok
    assert len(sizes) <= 7
    errors = np.array([s for s in sizes if 1e-7 < s < 0.05])
    assert len(errors) >= 2
    orders = np.log(errors[1:]) / np.log(errors[:-1])
    assert orders.max() > 1.6
    assert sizes[-1] < 1e-9


@pytest.mark.parametrize("whole", [0, 50])
def test_newton_leaves_a_saddle(whole):
    """Near the point where both components are one: EM crawls along the way out, Newton follows the upward curvature."""
    objective, best = overlapping("tied", apart=3.0)
    e = objective.evaluate(best)
    one = GaussianMixture(1).bind(objective.source)
    whole_data = one.m_step(one.params(*(np.asarray(x) for x in ([1.0], [[0.0]], [[[1.0]]]))), _stats(one, objective))
    params = objective.model.params(
        np.array([0.5, 0.5]), whole_data.means[0] + np.array([[1e-2], [-1e-2]]), whole_data.covariances[0]
    )
    saddle = objective.point_of(params)
    at = objective.evaluate(saddle)
    assert np.linalg.eigvalsh(objective.hvp(at, np.eye(objective.size))).max() > 0
    result = solve(objective, Newton(whole=whole), saddle, stop=Stop(gain=1e-15))
    assert "upwards" in " ".join(result.trace.event)
    assert result.value == pytest.approx(e.value, abs=1e-12)


def _stats(model, objective):
    one = ModelObjective(model, objective.source, n_threads=1)
    params = model.params(np.ones(1), np.zeros((1, 1)), np.ones((1, 1, 1)))
    return one.evaluate(one.point_of(params)).stats


@pytest.mark.parametrize("beta", [1.0, 0.5, 0.2, 0.05, 0.01])
def test_proximal_rates(beta):
    """Along the slowest direction of EM errors shrink by beta lambda / (1 - lambda + beta lambda) a step."""
    objective, best = overlapping()
    values, slowest = fractions(objective, best)
    top = values[-1]
    predicted = beta * top / (1 - top + beta * top)
    errors = []
    solve(
        objective, Proximal(beta=beta, tol=1e-9), objective.point(best.theta + 1e-3 * slowest / np.linalg.norm(slowest)),
        stop=Stop(gain=0, gtol=2e-15, max_passes=60),
        callback=lambda step: errors.append(np.linalg.norm(step.evaluation.point.theta - best.theta)) or len(errors) > 5,
    )  # fmt: skip
    errors = np.array(errors)
    rates = (errors[1:] / errors[:-1])[(errors[1:] > 1e-9) & (errors[:-1] < 1e-3 + 1e-12)]
    assert rates[-1] == pytest.approx(predicted, rel=2e-3)


def test_proximal_with_beta_one_is_em():
    objective, best = overlapping()
    at = objective.point(best.theta + 0.1)
    em = EM().step(objective, EM().init(objective, at))
    solver = Proximal(beta=1.0, tol=1e-12)
    found = solver.step(objective, solver.init(objective, at))
    np.testing.assert_allclose(found.point.theta, em.point.theta, rtol=0, atol=1e-9)


@pytest.mark.parametrize("beta", ["2^-k", "2^(-k^2/2)"])
def test_proximal_is_superlinear_as_beta_vanishes(beta):
    objective, best = overlapping()
    errors = []
    solve(
        objective, Proximal(beta=beta, tol=1e-6), objective.point(best.theta + 0.02), stop=Stop(gain=0, gtol=2e-15),
        callback=lambda step: errors.append(np.linalg.norm(step.evaluation.point.theta - best.theta)),
    )  # fmt: skip
    errors = np.array([e for e in errors if e > 1e-9])
    rates = errors[1:] / errors[:-1]
    assert len(rates) >= 3
    assert rates[-1] < 0.5 * rates[0]
    assert (np.diff(rates[2:]) < 0).all()


def test_within_a_bound_on_the_divergence_proximal_points_are_superlinear_and_the_multiplier_vanishes():
    objective, best = overlapping()
    solver, errors, betas = Proximal("trust-region", radius=1e-3), [], []
    state = solver.init(objective, objective.point(best.theta + 0.3))
    while state.failure is None and len(errors) < 40 and state.current.gain > 1e-25:
        errors.append(np.linalg.norm(state.point.theta - best.theta))
        old, state = state, solver.step(objective, state)
        betas.append(state.info["beta"])
        assert state.current.value >= old.current.value - old.current.noise
        missing = objective.hvp(old.current, np.eye(objective.size)) - objective.q_hvp(
            old.point, old.current.stats, np.eye(objective.size)
        )
        step = state.point.theta - old.point.theta
        if betas[-1] > 0 and "shortened" not in state.event:  # on the edge of the ball
            assert step @ missing @ step <= old.radius**2
    errors.append(np.linalg.norm(state.point.theta - best.theta))
    assert errors[-1] < 1e-9
    assert betas[0] > 0.1
    assert betas[-1] == 0
    rates = np.array(errors[1:]) / errors[:-1]
    assert rates[-1] < 1e-3
    assert state.radius > 1e-3


def test_the_ball_is_one_of_the_divergence_of_posteriors():
    objective, best = overlapping()
    at = objective.evaluate(best.theta + 0.1)
    unit = np.eye(objective.size)
    missing = objective.hvp(at, unit) - objective.q_hvp(at.point, at.stats, unit)
    s = 1e-4 * np.random.default_rng(0).normal(size=objective.size)
    divergence = objective.evaluate(at.point.theta + s).value - objective.q(objective.point(at.point.theta + s), at.stats)
    assert divergence - at.entropy == pytest.approx(0.5 * s @ missing @ s, rel=1e-2)
    P = np.stack([at.precondition(e) for e in unit], axis=1)
    H = objective.hvp(at, unit)
    bound = missing + COMPLETE * np.linalg.inv(P)
    model = Whole(at.gradient, H, P, missing)
    for radius in (1e-3, 1e-2, 1e3):
        step = model.within(radius)
        assert step.length == pytest.approx(math.sqrt(step.move @ bound @ step.move), rel=1e-6)
        assert step.length <= radius * (1 + 1e-9)
        np.testing.assert_allclose((step.multiplier * bound - H) @ step.move, at.gradient, rtol=0, atol=1e-9)
        assert (step.multiplier == 0) == (step.length < 0.99 * radius)


def test_lange_converges_as_fast_as_em():
    objective, best = overlapping()
    top = fractions(objective, best)[0][-1]
    errors = []
    solve(
        objective, Lange(), objective.point(best.theta + 1e-3), stop=Stop(gain=0, gtol=2e-15, max_passes=80),
        callback=lambda step: errors.append(np.linalg.norm(step.evaluation.point.theta - best.theta)),
    )  # fmt: skip
    assert errors[40] / errors[39] == pytest.approx(top, rel=1e-3)


@pytest.mark.parametrize("whole", [0, 50])
def test_a_start_where_nothing_rises_ends_with_a_status(whole):
    objective, best = overlapping()
    result = solve(objective, Newton(whole=whole), best, stop=Stop(gain=0, xtol=0, max_passes=100))
    assert result.status in (Status.ROUNDING, Status.MAX_PASSES)
    assert result.value >= objective.evaluate(best).value - result.evaluation.noise


# Parameters that go to 0, and steps that are not to be had


def rails(seed):
    """Return the objective of two rails seen through a blur, most of whose intensities go to 0, and where to begin."""
    pixels = np.arange(48)
    K = np.exp(-0.125 * (pixels[:, None] - pixels) ** 2)
    K /= K.sum(axis=0)
    truth = np.where((pixels == 22) | (pixels == 26), 60.0, 0.0)
    y = np.random.default_rng(seed).poisson(K @ truth + 0.3).astype(float)
    objective = ModelObjective(PoissonInverse(0.3), as_source((K, y)), n_threads=1)
    return objective, objective.point_of(objective.model.from_user({"intensities": np.full(48, y.mean())}))


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_logarithms_of_what_goes_to_zero_do_not_run_away(seed):
    objective, at = rails(seed)
    highest = solve(objective, Proximal("2^(-k^2/2)"), at, stop=Stop(gain=1e-14)).value
    for solver in (Proximal(), Proximal(0.1), Proximal("trust-region"), Newton(), Newton(whole=0)):
        moves, slow = [], solver.name == "proximal" and solver.beta == 0.1
        result = solve(
            objective, solver, at, stop=Stop(gain=1e-8 if slow else 1e-12),
            callback=lambda step, moves=moves: moves.append(step.evaluation.point.theta),
        )  # fmt: skip
        assert result.status is Status.BOUNDARY, result
        assert highest - result.value < (1e-4 if slow else 1e-8)
        whole = solver.whole > 0
        assert np.abs(result.theta).max() < (200 if whole else 1e5)  # where the intensity is 0 to all digits
        if solver.name == "newton" or solver.beta == "trust-region":  # of the others a step is several
            assert all((np.abs(b - a) <= reach_from(a) * (1 + 1e-9)).all() for a, b in pairwise(moves))
        assert ("reach" in result.trace.event) == (not whole)


class NoMetric(ModelObjective):
    def precondition(self, at, stats, v):
        return np.full(v.shape, math.nan)


class AllFalls(NoHessian):
    """Whatever follows the first point lies below it."""

    first = None

    def evaluate(self, at, blocks=None):
        found = super().evaluate(at, blocks)
        if self.first is None:
            self.first = found.value
        else:
            found.value = min(found.value, self.first - 1e-3)
        return found


def spoilt(kind):
    case = SMALL[0]
    objective = kind(case.build(), case.source(), n_threads=1)
    return objective, case.somewhere(objective)


@pytest.mark.parametrize("kind", [NoHessian, NoMetric, BrokenMetric])
@pytest.mark.parametrize("solver", [Newton(), Proximal(0.5), Proximal("trust-region")], ids=lambda solver: solver.describe())
def test_without_hessian_or_metric_the_climb_is_that_of_em(solver, kind):
    objective, at = spoilt(kind)
    ours, em = solve(objective, solver, at), solve(objective, EM(), at)
    assert ours.status is em.status
    assert (ours.theta == em.theta).all()
    assert set(ours.trace.event[1:]) == {"em"}
    assert ours.passes == em.passes


@pytest.mark.parametrize("solver", [Newton(), Newton(whole=0), Proximal(0.5), Proximal("trust-region")],
                         ids=lambda solver: solver.describe())  # fmt: skip
def test_an_em_step_that_falls_is_no_way_out(solver):
    objective, at = spoilt(AllFalls)
    result = solve(objective, solver, at)
    assert result.status is Status.DECREASED
    assert result.steps == 0
    assert result.value == objective.first


def test_what_an_inner_climb_rose_is_kept_where_it_cannot_go_on():
    class Once(ModelObjective):
        """Has a Hessian at one point."""

        asked = 0

        def hvp(self, at, V):
            self.asked += 1
            return super().hvp(at, V) if self.asked == 1 else NoHessian.hvp(self, at, V)

    objective, at = spoilt(Once)
    state = Proximal(0.3).init(objective, at)
    new = Proximal(0.3).step(objective, state)
    assert new.failure is None
    assert (new.event, new.info["inner"]) == ("proximal", 1)
    assert new.current.value > state.current.value


def test_what_an_inner_climb_rose_is_kept_where_there_is_no_metric():
    class First(ModelObjective):
        """Has a metric at its first point."""

        first = None

        def precondition(self, at, stats, v):
            self.first = self.first or at
            return super().precondition(at, stats, v) if at is self.first else BrokenMetric.precondition(self, at, stats, v)

    objective, at = spoilt(First)
    state = Proximal(0.3).init(objective, at)
    new = Proximal(0.3).step(objective, state)
    assert new.failure is None
    assert (new.event, new.info["inner"]) == ("proximal", 1)
    assert new.current.value > state.current.value


@pytest.mark.parametrize("solver", [Newton(), Newton(whole=0), Proximal(0.5), Proximal("trust-region")],
                         ids=lambda solver: solver.describe())  # fmt: skip
def test_info_says_the_same_of_every_step_and_the_radius_of_the_next(solver):
    found = []
    for kind in (ModelObjective, NoHessian):
        objective, at = spoilt(kind)
        state = solver.step(objective, replace(solver.init(objective, at), radius=0.3))
        assert state.info["radius"] == state.radius
        found.append(state)
    own, em = found
    assert own.event != em.event == "em"
    assert set(own.info) == set(em.info)
    assert em.info.get("beta", 1) == 1


# The subproblem


@pytest.mark.parametrize("radius", [1.0, 1e3])
@pytest.mark.parametrize("missing", [False, True])
def test_axes_of_a_metric_that_is_not_far_are_left_as_they_are(missing, radius):
    g, H, P = quadratic(0)
    P *= 0.99 * FAR**2 / np.diag(P).max() / radius**2 * (COMPLETE if missing else 1)
    more = (np.eye(len(g)),) if missing else ()
    ours, free = Whole(g, H, P, *more, reach=FAR, radius=radius), Whole(g, H, P, *more)
    for name in ("falls", "axes", "slopes"):
        assert (getattr(ours, name) == getattr(free, name)).all()


@pytest.mark.parametrize("radius", [0.3, 1.0, 50.0, 1e5])
@pytest.mark.parametrize("missing", [None, 0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_coordinate_goes_beyond_its_reach_however_large_the_ball(seed, missing, radius):
    g, H, P = quadratic(seed, definite=seed % 2 == 0)
    P *= (0.99 * FAR) ** 2 / np.diag(P).max()
    reach = FAR * np.array([1.0, 1.0, 0.2, 3.0, 1.0, 1e3])
    model = Whole(g, 1e-9 * H, P, None if missing is None else missing * np.linalg.inv(P), reach=reach, radius=radius)
    moves = np.array([model.within(radius * part).move for part in (1.0, 0.7, 0.01)])
    assert (np.abs(moves) <= reach * (1 + 1e-9)).all()
    assert np.abs(moves[0] / reach).max() > 0.05 * min(radius, 1.0)


@pytest.mark.parametrize("radius", [0.01, 1.0, 100.0])
def test_axes_that_go_too_far_are_held_and_the_others_climb_as_they_would_alone(radius):
    g, H, P = quadratic(2, definite=True)
    alone = Whole(g, H, P).within(radius)
    long = np.zeros((7, 7))
    long[:6, :6], long[6, 6] = P, 1e130
    model = Whole(np.append(g, 1e-70), np.pad(H, (0, 1)), long, reach=FAR, radius=radius)
    step = model.within(radius)
    assert abs(step.move[6]) <= FAR
    np.testing.assert_allclose(step.move[:6], alone.move, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("where", ["P", "H", "missing"])
def test_axes_of_which_something_is_not_finite_are_left_out(where):
    g, H, P = quadratic(3)
    given = {"H": H, "P": P, "missing": np.eye(6)}
    inside = np.ix_(range(5), range(5))
    rest = Whole(g[:5], *(given[name][inside] for name in ("H", "P", "missing"))).within(0.7)
    given[where][5, 2] = math.nan
    given[where][:, 5] = math.inf
    step = Whole(g, given["H"], given["P"], given["missing"]).within(0.7)
    assert step.move[5] == 0
    assert (step.move[:5] == rest.move).all()
    assert (step.length, step.rise) == (rest.length, rest.rise)
    nothing = Whole(g, np.full((6, 6), math.nan), P).within(0.7)
    assert nothing.rise == 0
    assert nothing.move == pytest.approx(np.zeros(6), abs=0)


@pytest.mark.parametrize("reach", [0.3, np.array([0.1, 1.0, 1e9, 1e-3, 2.0, 5.0])])
@pytest.mark.parametrize("definite", [False, True])
def test_a_path_ends_where_a_coordinate_comes_to_the_end_of_its_reach(definite, reach):
    g, H, P = quadratic(4, definite=definite)
    free, held = (
        Path(g, lambda v: H @ v, lambda v: P @ v, 1e3, tol=1e-12, most=30, reach=bound) for bound in (math.inf, reach)
    )
    step = held.within(1e3)
    assert (np.abs(step.move) <= reach * (1 + 1e-12) * np.ones(6)).all()
    assert np.min(reach - np.abs(step.move)) == pytest.approx(0, abs=1e-12)
    assert step.held
    assert len(held.pieces) <= len(free.pieces)
    same = free.within(step.length)  # on the same path
    np.testing.assert_allclose(step.move, same.move, rtol=1e-7, atol=1e-12)
    assert step.rise == pytest.approx(same.rise, rel=1e-9)
    assert not same.held
    assert not held.within(0.5 * step.length).held


def quadratic(seed, n=6, definite=False):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(n, n)), rng.normal(size=(n, n))
    H = -(A @ A.T) if definite else A + A.T
    return rng.normal(size=n), H, B @ B.T + 0.1 * np.eye(n)


def rise(g, H, s):
    return g @ s + 0.5 * s @ H @ s


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("radius", [0.01, 0.5, 30.0])
def test_whole_is_the_best_in_the_ball(seed, radius):
    g, H, P = quadratic(seed, definite=seed % 2 == 0)
    step = Whole(g, H, P).within(radius)
    assert math.sqrt(step.move @ np.linalg.solve(P, step.move)) == pytest.approx(step.length, rel=1e-8)
    assert step.length <= radius * (1 + 1e-8)
    assert step.rise == pytest.approx(rise(g, H, step.move), rel=1e-9)
    # The conditions of More and Sorensen: a multiplier that makes the shifted matrix semidefinite, no other point rises more.
    inverse = np.linalg.inv(P)
    left = g + H @ step.move
    mu = left @ step.move / (step.move @ inverse @ step.move)
    np.testing.assert_allclose(left, mu * inverse @ step.move, rtol=0, atol=1e-6 * max(1.0, np.abs(left).max()))
    assert np.linalg.eigvalsh(mu * inverse - H)[0] > -1e-7 * np.abs(H).max()
    assert mu > -1e-9
    assert mu < 1e-6 or step.length == pytest.approx(radius, rel=1e-6)


def test_whole_leaves_a_stationary_point_that_is_no_maximum():
    H = np.diag([-1.0, 2.0, -3.0])
    step = Whole(np.zeros(3), H, np.eye(3)).within(0.5)
    assert step.upwards
    assert np.abs(step.move) == pytest.approx([0, 0.5, 0], abs=1e-9)
    assert step.rise == pytest.approx(0.25)
    step = Whole(np.array([0.1, 0.0, 0.0]), H, np.eye(3)).within(0.5)  # the hard case
    assert step.length == pytest.approx(0.5, rel=1e-6)
    assert step.rise > 0.25


def test_directions_that_cannot_move_are_left_out():
    P = np.ones((2, 2))
    step = Whole(np.array([1.0, 0.0]), -np.eye(2), P).within(10.0)
    assert step.move == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("seed", range(8))
def test_path_ends_at_newtons_step_and_is_cut_by_smaller_balls(seed):
    g, H, P = quadratic(seed, definite=True)
    path = Path(g, lambda v: H @ v, lambda v: P @ v, 1e9, tol=1e-12, most=30)
    newton = path.within(1e9)
    np.testing.assert_allclose(newton.move, np.linalg.solve(-H, g), rtol=1e-6)
    last = newton
    for radius in newton.length * np.array([0.9, 0.5, 0.1, 1e-3]):
        step = path.within(radius)
        assert step.length == pytest.approx(radius, rel=1e-9)
        assert math.sqrt(step.move @ np.linalg.solve(P, step.move)) == pytest.approx(radius, rel=1e-7)
        assert step.rise == pytest.approx(rise(g, H, step.move), rel=1e-8)
        assert 0 < step.rise < last.rise
        assert step.rise <= Whole(g, H, P).within(radius).rise * (1 + 1e-9)
        last = step
    first = path.within(1e-6)
    np.testing.assert_allclose(first.move, 1e-6 * P @ g / math.sqrt(g @ P @ g), rtol=1e-5)  # EM's direction


def test_path_follows_upward_curvature_to_the_edge():
    g, H, P = np.array([1.0, 1.0]), np.diag([2.0, -1.0]), np.eye(2)
    step = Path(g, lambda v: H @ v, lambda v: P @ v, 3.0, tol=1e-12, most=10).within(3.0)
    assert step.upwards
    assert step.length == pytest.approx(3.0)
    none = Path(np.zeros(2), lambda v: H @ v, lambda v: P @ v, 3.0, tol=1e-12, most=10).within(3.0)
    assert none.rise == 0


def test_without_a_ball_a_path_ends_where_the_hill_curves_upwards():
    """Whether or not coordinates have a reach; where that is shorter it cuts the path, and says so."""
    g, H, P = np.array([1.0, 1.0]), np.diag([-1.0, 0.5]), np.eye(2)
    for reach, end in ((math.inf, 4.0), (100.0, 4.0), (3.0, 3.0)):
        step = Path(g, lambda v: H @ v, lambda v: P @ v, math.inf, tol=1e-12, most=10, reach=reach).within(math.inf)
        np.testing.assert_allclose(step.move, [end, end])
        assert step.held == (reach == 3.0)


@pytest.mark.parametrize("whole", [True, False])
def test_a_trust_region_that_gives_up_says_why_trials_had_no_value(monkeypatch, whole):
    case = SMALL[0]
    objective = case.objective()
    start = objective.evaluate(case.somewhere(objective))
    monkeypatch.setattr(objective, "evaluate", lambda theta: objective._nowhere(theta, Failure(Status.OUTSIDE, "row 3")))
    found = advance(objective, Hill(objective), start, 1.0, whole=whole)
    assert found.evaluation is None
    assert found.failure.status is Status.NO_ASCENT
    assert found.failure.detail.endswith(f"The last trial without a value: {Failure(Status.OUTSIDE, 'row 3')}")
