"""Newton, Lange's EM gradient and proximal points: rates, saddles, guards; and the subproblem of a trust region."""

import math

import numpy as np
import pytest
from cases import OTHERS, SMALL

from emcore.data import as_source
from emcore.models import COVARIANCES, GaussianMixture
from emcore.objective import ModelObjective
from emcore.result import Status, Stop
from emcore.solve import solve
from emcore.solvers import EM, Lange, Newton, Proximal
from emcore.solvers._trust import COMPLETE, Path, Whole

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


# The subproblem


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
    P = np.ones((2, 2)) - np.eye(2) * 0.0
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
