"""The laws of models, every model against every law."""

import math
import re

import numpy as np
import pytest
from cases import (
    CASES,
    GAUSSIAN,
    INVERSE,
    MISSING,
    MISSING_GAUSSIAN,
    NORMAL_COVARIATES,
    OTHERS,
    SMALL,
    STUDENT,
    Case,
    mixture_rows,
)
from derivatives import derivative, derivatives
from reference import gmm

import emcore.models as models
from emcore.data import as_source
from emcore.models import COVARIANCES, SPD, Frozen, GaussianMixture, Positive, Real, Simplex, Stacked, Unit
from emcore.models._charts import Chart, Itself
from emcore.objective import ModelObjective, Stats
from emcore.result import Breakdown, Status, Stop, rounding
from emcore.solve import solve
from emcore.solvers import EM

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_gaussian = pytest.mark.parametrize("case", GAUSSIAN, ids=str)
SMALL_GAUSSIAN = tuple(case for case in SMALL if case in GAUSSIAN)
every_model = pytest.mark.parametrize("case", SMALL, ids=str)
every_gaussian_model = pytest.mark.parametrize("case", SMALL_GAUSSIAN, ids=str)
every_covariance = pytest.mark.parametrize("kind", COVARIANCES)


def kind_of(objective):
    return objective.model.emission.covariance


def frame_rows(case, objective):
    """Return the rows in frame units and their weights."""
    frame = objective.model.emission.frame
    return (case.X - frame.shift) * frame.scale, case.w


def oracle_pass(case, objective, params):
    """Return frame rows, weights and the oracle's responsibilities at these parameters."""
    Z, w = frame_rows(case, objective)
    k, d = params.means.shape
    sigmas = gmm.expand(kind_of(objective), params.covariances, k, d)
    resp, rows = gmm.posterior(gmm.log_density(Z, params.means, sigmas), params.weights)
    return Z, w, resp, rows + objective.model.emission.frame.log_jacobian, sigmas


def sums_to_one(chart):
    """Tell whether the parameters of a chart are probabilities."""
    parts = [part for _, part in chart.parts] if isinstance(chart, Stacked) else [chart]
    return all(isinstance(part, Simplex) for part in parts)


def feasible_directions(objective, params, rng, count):
    """Yield named tuples of tangents: weights that keep their sum, symmetric matrices."""
    for _ in range(count):
        v = objective.model.params(*(rng.normal(size=x.shape) for x in params))
        for field, t, x in zip(objective.model.fields, v, params, strict=True):
            if isinstance(field.chart, SPD):  # relative to the covariance in every direction
                L = np.linalg.cholesky(x)
                c = L @ (t + np.swapaxes(t, -1, -2)) @ np.swapaxes(L, -1, -2)
                t[...] = 0.5 * (c + np.swapaxes(c, -1, -2))
            elif not isinstance(field.chart, Real):
                t *= x
            if sums_to_one(field.chart):
                t -= x * t.sum(axis=-1, keepdims=True)
        yield v


# The pass, the M-step and the score against the oracle


@every_gaussian
def test_value_is_the_oracles(case):
    objective = case.objective()
    at = case.somewhere(objective)
    _, w, _, rows, _ = oracle_pass(case, objective, at.params)
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-13)
    assert e.scale == pytest.approx(w @ np.abs(rows) / w.sum(), rel=1e-13)
    assert e.stats.weight == pytest.approx(case.total, rel=1e-14)


@every_gaussian
def test_m_step_is_the_oracles(case):
    objective = case.objective()
    at = case.somewhere(objective)
    Z, w, resp, _, _ = oracle_pass(case, objective, at.params)
    got = objective.evaluate(at).em_point.params
    floor = objective.model.emission.reg
    for x, y in zip(got, gmm.m_step(Z, w, resp, kind_of(objective), floor), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)


@every_gaussian
def test_start_is_the_m_step_of_given_responsibilities(case):
    objective = case.objective()
    got = case.start(objective).params
    Z, w = frame_rows(case, objective)
    expected = gmm.m_step(Z, w, case.resp(objective.model.k), kind_of(objective), objective.model.emission.reg)
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)


@every_gaussian
def test_q_and_entropy_are_the_oracles(case):
    objective = case.objective()
    at, other = case.somewhere(objective), case.somewhere(objective, seed=1)
    Z, w, resp, _, sigmas = oracle_pass(case, objective, at.params)
    e = objective.evaluate(at)
    _, _, _, _, other_sigmas = oracle_pass(case, objective, other.params)
    jacobian = objective.model.emission.frame.log_jacobian
    for point, s in ((at, sigmas), (other, other_sigmas)):
        expected = gmm.q(Z, w, resp, point.params.weights, point.params.means, s) / w.sum() + jacobian
        assert objective.q(point, e.stats) == pytest.approx(expected, rel=1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(w @ np.where(resp > 0, resp * np.log(resp), 0.0).sum(axis=1)) / w.sum()
    assert e.entropy == pytest.approx(entropy, abs=1e-12)


LATENT = MISSING + MISSING_GAUSSIAN + NORMAL_COVARIATES + INVERSE  # more than the state


@pytest.mark.parametrize("case", [case for case in CASES if case not in LATENT], ids=str)
def test_entropy_is_not_negative(case):
    """That of PoissonInverse is relative to the matrix of the data, and of events, of which a row has many."""
    objective = case.objective()
    for seed in range(3):
        e = objective.evaluate(case.somewhere(objective, seed))
        assert e.entropy >= -rounding(e.scale)
        assert e.entropy <= math.log(objective.model.k) + rounding(e.scale)


@every_gaussian
def test_score_is_the_oracles(case):
    objective = case.objective()
    at = case.somewhere(objective)
    Z, w = frame_rows(case, objective)
    got = objective.model.score(at.params, objective.evaluate(at).stats)
    expected = gmm.score(Z, w, *at.params, kind_of(objective))
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11 * np.abs(y).max())


@every_case
def test_score_is_the_derivative_of_q(case):
    objective = case.objective()
    model, stats = objective.model, objective.evaluate(case.somewhere(objective)).stats
    params = case.somewhere(objective, seed=1).params
    score, rng = model.score(params, stats), np.random.default_rng(0)
    for v in feasible_directions(objective, params, rng, 5):
        slope = sum(np.sum(g * t) for g, t in zip(score, v, strict=True))
        size = sum(np.sum(np.abs(g * t)) for g, t in zip(score, v, strict=True))

        def moved(h, v=v):
            return model.q(model.params(*(x + h * t for x, t in zip(params, v, strict=True))), stats)

        assert derivative(moved, 1e-4) == pytest.approx(slope, abs=1e-8 * size)


# Fisher's identity


@every_case
def test_gradient_is_the_derivative_of_the_value(case):
    objective = case.objective()
    at = case.somewhere(objective)
    g = objective.evaluate(at).gradient
    differences = derivatives(lambda theta: objective.evaluate(theta).value, at.theta, 2e-4)
    np.testing.assert_allclose(g, differences, rtol=0, atol=1e-8 * max(1.0, np.abs(g).max()))


@every_case
def test_gradient_in_original_coordinates(case):
    objective = case.objective(coordinates="original")
    at = case.somewhere(objective)
    assert objective.size == sum(x.size for x in at.params)
    g, rng = objective.evaluate(at).gradient, np.random.default_rng(0)
    for v in feasible_directions(objective, at.params, rng, 6):
        direction = np.concatenate([x.ravel() for x in v])
        slope = derivative(lambda h, v=direction: objective.evaluate(at.theta + h * v).value, 3e-4)
        assert slope == pytest.approx(g @ direction, abs=1e-8 * max(1.0, np.abs(g * direction).sum()))


@every_case
def test_gradient_in_original_coordinates_is_tangent(case):
    objective = case.objective(coordinates="original")
    at = case.somewhere(objective)
    g = objective.coordinates.forward(at.theta)._make(
        x.reshape(y.shape)
        for x, y in zip(
            np.split(objective.evaluate(at).gradient, np.cumsum([x.size for x in at.params])[:-1]), at.params, strict=True
        )
    )
    for field, x in zip(objective.model.fields, g, strict=True):
        if sums_to_one(field.chart):
            assert np.abs(x.sum(axis=-1)).max() <= 1e-12 * max(1.0, np.abs(x).max())
        if isinstance(field.chart, SPD):
            np.testing.assert_array_equal(x, np.swapaxes(x, -1, -2))
        if field.name == "loadings":
            assert not x[..., *np.triu_indices(x.shape[-2], 1, x.shape[-1])].any()


# EM


@every_case
def test_em_never_goes_down(case):
    objective = case.objective()
    e = objective.evaluate(case.somewhere(objective, seed=2))
    for _ in range(30):
        new = objective.evaluate(e.em_point)
        assert new.value >= e.value + e.gain - rounding(e.scale)
        e = new


@every_case
def test_fixed_point_of_em_is_stationary(case):
    objective = case.objective()
    e = objective.evaluate(case.start(objective))
    for _ in range(3000):
        if e.gain <= 1e-17:
            break
        e = objective.evaluate(e.em_point)
    else:
        pytest.fail("EM did not converge")
    assert np.abs(e.gradient).max() <= 1e-5  # to the square root of what can be told of a gain
    assert not objective.boundary(e.point)


@every_case
def test_gain_is_what_the_step_is_sure_of(case):
    objective = case.objective()
    e = objective.evaluate(case.somewhere(objective))
    assert e.gain == pytest.approx(objective.q(e.em_point, e.stats) - objective.q(e.point, e.stats), abs=1e-15)
    assert e.gain > 0
    assert objective.evaluate(e.em_point).value - e.value >= e.gain - rounding(e.scale)


@every_case
def test_m_step_is_the_maximum_of_q(case):
    objective = case.objective()
    e = objective.evaluate(case.somewhere(objective))
    best, rng = e.em_point.params, np.random.default_rng(0)
    top = objective.model.q(best, e.stats)
    for v in feasible_directions(objective, best, rng, 20):
        for h in (1e-3, -1e-3):
            moved = objective.model.params(*(x + h * t for x, t in zip(best, v, strict=True)))
            assert objective.model.q(moved, e.stats) < top


@every_gaussian
def test_small_steps_along_the_metric_are_em_steps(case):
    """P gradient is the EM step: exactly for weights and means, to first order for covariances."""
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    e = objective.evaluate(at)
    step = model.metric(at.params, e.stats, model.score(at.params, e.stats))
    em = e.em_point.params
    np.testing.assert_allclose(step.weights, em.weights - at.params.weights, rtol=0, atol=1e-13)
    np.testing.assert_allclose(step.means, em.means - at.params.means, rtol=0, atol=1e-12)
    moved = em.means - at.params.means
    view = model.layout.view
    count = view(e.stats.vector, "emission.count")
    outer = np.einsum("ci,cj->cij", moved, moved)
    correction = {
        "full": lambda: outer,
        "tied": lambda: np.einsum("c,cij->ij", count, outer) / count.sum(),
        "diag": lambda: moved**2,
        "spherical": lambda: np.mean(moved**2, axis=1),
    }[kind_of(objective)]()
    np.testing.assert_allclose(step.covariances, em.covariances - at.params.covariances + correction, rtol=0, atol=1e-11)


# Statistics


@every_gaussian
def test_recentred_statistics_are_those_of_the_other_origin(case):
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    Z, w, resp, _, _ = oracle_pass(case, objective, at.params)
    stats = objective.evaluate(at).stats
    new = model.origin(case.somewhere(objective, seed=1).params)
    moved = model.recentre(stats, new)
    expected, size = gmm.statistics(Z, w, resp, new.reshape(at.params.means.shape), kind_of(objective))
    latent = model.latent.layout.size
    assert np.all(np.abs(moved.vector[latent:] - expected) <= 1e-12 * size.max())
    np.testing.assert_array_equal(moved.vector[:latent], stats.vector[:latent])
    np.testing.assert_array_equal(moved.origin, new)
    assert moved.weight == stats.weight
    back = model.recentre(moved, stats.origin)
    np.testing.assert_allclose(back.vector, stats.vector, rtol=0, atol=1e-11 * size.max())


@every_case
def test_recentring_changes_neither_q_nor_the_m_step(case):
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    stats = objective.evaluate(at).stats
    other = case.somewhere(objective, seed=1)
    moved = model.recentre(stats, model.origin(other.params))
    assert objective.q(at, moved) == pytest.approx(objective.q(at, stats), rel=1e-12)
    np.testing.assert_allclose(objective.gradient(at, moved), objective.gradient(at, stats), rtol=0, atol=1e-11)
    for x, y in zip(model.m_step(at.params, moved), model.m_step(at.params, stats), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11)


@every_gaussian_model
def test_statistics_of_different_origins_do_not_add(case):
    objective = case.objective()
    a = objective.evaluate(case.somewhere(objective, 0)).stats
    b = objective.evaluate(case.somewhere(objective, 1)).stats
    with pytest.raises(ValueError, match="recentre"):
        a + b
    both = a + objective.model.recentre(b, a.origin)
    assert both.weight == a.weight + b.weight
    assert isinstance(both, Stats)


@every_case
def test_layout_is_what_its_kernel_fills(case):
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    assert model.kernel(at.params).n_stats == model.layout.size
    vector = objective.evaluate(at).stats.vector
    view = model.layout.view
    np.testing.assert_array_equal(view(vector, "latent.count"), view(vector, "emission.count"))
    if "emission.mass" in model.layout.blocks and case not in STUDENT:
        np.testing.assert_array_equal(view(vector, "emission.mass"), view(vector, "emission.count"))
    assert view(vector, "latent.count").sum() == pytest.approx(case.total, rel=1e-13)
    assert all(np.shares_memory(view(vector, name), vector) for name in model.layout.blocks)
    assert repr(model.layout).startswith("[latent.count ")


@every_case
def test_permuted_states_are_the_same_mixture(case):
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    order = np.random.default_rng(0).permutation(model.k)
    other = objective.point_of(model.permuted(at.params, order))
    for field, x, y in zip(model.fields, other.params, at.params, strict=True):
        np.testing.assert_array_equal(x, y[order] if field.by_state else y)
    assert objective.evaluate(other).value == pytest.approx(objective.evaluate(at).value, rel=1e-14)


# Charts

HALF = np.array([[True, False, True], [False, True, False]])
SOME = np.array([[[True, False, False], [True] * 3], [[False] * 3, [False, False, True]]])
RAGGED = Stacked((2, 3), [(np.array([[0, 1, 2]]), Simplex((1, 3))), (np.array([[3, 4]]), Simplex((1, 2)))])
CHARTS = {
    "Real": Real((2, 3)),
    "Real, one number": Real(()),
    "Positive": Positive((2, 3)),
    "Positive, one number": Positive(()),
    "Positive above a floor": Positive((4,), 0.3),
    "Simplex 1": Simplex(1),
    "Simplex 2": Simplex(2),
    "Simplex 5": Simplex(5),
    "Simplex batch": Simplex((2, 3, 4)),
    "Simplex batch of the rest": Simplex((2, 3), np.array([[0.4], [0.9]])),
    "Simplex batch, some fixed": Frozen(Simplex((2, 2, 3)), SOME, np.full((2, 2, 3), 1 / 3)),
    "Simplexes stacked": RAGGED,
    "Simplexes stacked, some fixed": Frozen(RAGGED, np.array([[True, False, False], [False] * 3]), RAGGED.forward(np.zeros(3))),
    "Unit": Unit((2, 3)),
    "Unit, one number": Unit(()),
    "Unit, some fixed": Frozen(Unit((2, 3)), HALF, np.full((2, 3), 0.3)),
    "SPD 1": SPD((1, 1)),
    "SPD": SPD((3, 3)),
    "SPD batch": SPD((2, 3, 3)),
    "SPD batch of d = 1": SPD((4, 1, 1)),
    "SPD batch above a floor": SPD((2, 4, 4), 0.2),
    "Simplex of the rest": Simplex(3, 0.4),
    "Real, some fixed": Frozen(Real((2, 3)), HALF, np.full((2, 3), 2.0)),
    "Positive, some fixed": Frozen(Positive((2, 3), 0.1), HALF, np.full((2, 3), 2.0)),
    "Simplex, some fixed": Frozen(Simplex(4), np.array([True, False, False, True]), np.array([0.1, 0.3, 0.4, 0.2])),
    "SPD, one fixed": Frozen(SPD((2, 3, 3), 0.1), np.repeat([True, False], 9).reshape(2, 3, 3), np.stack([np.eye(3)] * 2)),
    "Real, all fixed": Frozen(Real((2,)), np.ones(2, bool), np.ones(2)),
}
every_chart = pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS.keys())


def inside(chart, seed=0):
    """Return coordinates and the parameters there."""
    t = np.random.default_rng(seed).normal(size=chart.size)
    return t, chart.forward(t)


def gradients(chart, seed=1):
    """Return a gradient with respect to the parameters; symmetric ones for symmetric matrices."""
    g = np.random.default_rng(seed).normal(size=chart.shape)
    return g + np.swapaxes(g, -1, -2) if isinstance(getattr(chart, "part", chart), SPD) else g


@every_chart
def test_charts_take_several_directions_at_once(chart):
    t, x = inside(chart)
    assert chart.several
    V = np.random.default_rng(2).normal(size=(3, chart.size))
    G = np.stack([gradients(chart, seed) for seed in range(3)])
    ways = {
        "push": lambda v: chart.push(t, x, v),
        "pull_inverse": lambda v: chart.pull_inverse(t, x, v),
        "curvature": lambda v: chart.curvature(t, x, G[0], v),
        "pull": lambda g: chart.pull(t, x, g),
        "push_inverse": lambda g: chart.push_inverse(t, x, chart.project(g)),
    }
    for name, way in ways.items():
        given = V if name in ("push", "pull_inverse", "curvature") else G
        expected = np.stack([way(a) for a in given])
        np.testing.assert_allclose(way(given), expected, rtol=1e-12, atol=1e-13 * np.abs(expected).max(initial=0), err_msg=name)


@every_chart
def test_chart_round_trip(chart):
    t, x = inside(chart)
    assert x.shape == chart.shape
    assert chart.contains(x)
    np.testing.assert_allclose(chart.inverse(x), t, rtol=0, atol=1e-12)
    np.testing.assert_allclose(chart.forward(chart.inverse(x)), x, rtol=1e-13, atol=1e-14)


@every_chart
def test_chart_push_is_the_derivative(chart):
    t, x = inside(chart)
    for v in np.eye(chart.size):
        np.testing.assert_allclose(chart.push(t, x, v), derivative(lambda h, v=v: chart.forward(t + h * v), 1e-3), atol=1e-9)


@every_chart
def test_chart_pull_is_the_adjoint_of_push(chart):
    t, x = inside(chart)
    g, v = gradients(chart), np.random.default_rng(2).normal(size=chart.size)
    assert chart.pull(t, x, g) @ v == pytest.approx(np.sum(g * chart.push(t, x, v)), rel=1e-12, abs=1e-14)


@every_chart
def test_chart_inverses(chart):
    t, x = inside(chart)
    v = np.random.default_rng(3).normal(size=chart.size)
    np.testing.assert_allclose(chart.push_inverse(t, x, chart.push(t, x, v)), v, rtol=0, atol=1e-11)
    np.testing.assert_allclose(chart.pull(t, x, chart.pull_inverse(t, x, v)), v, rtol=0, atol=1e-11)
    g, u = gradients(chart), chart.push(t, x, np.random.default_rng(4).normal(size=chart.size))
    again = chart.pull_inverse(t, x, chart.pull(t, x, g))  # equal to g on the tangent
    assert np.sum(again * u) == pytest.approx(np.sum(g * u), rel=1e-10, abs=1e-12)
    if isinstance(chart, SPD):
        np.testing.assert_allclose(again, g, rtol=0, atol=1e-10)


@every_chart
def test_chart_projection_is_onto_the_tangent(chart):
    t, x = inside(chart)
    g = np.random.default_rng(5).normal(size=chart.shape)
    p = chart.project(g)
    np.testing.assert_allclose(chart.project(p), p, rtol=0, atol=1e-14)
    u = chart.push(t, x, np.random.default_rng(4).normal(size=chart.size))
    np.testing.assert_allclose(chart.project(u), u, rtol=0, atol=1e-13)
    assert np.sum(p * u) == pytest.approx(np.sum(g * u), rel=1e-11, abs=1e-12)


@every_chart
def test_chart_curvature_is_the_derivative_of_pull(chart):
    t, x = inside(chart)
    g, v = gradients(chart), np.random.default_rng(2).normal(size=chart.size)
    expected = derivative(lambda h: chart.pull(t + h * v, chart.forward(t + h * v), g), 1e-3)
    np.testing.assert_allclose(chart.curvature(t, x, g, v), expected, rtol=0, atol=1e-8)


def test_a_chart_without_curvature_says_so():
    with pytest.raises(ValueError, match="Real does not provide its curvature"):
        Chart.curvature(Real((1,)), *np.zeros((4, 1)))


@every_chart
@pytest.mark.parametrize("size", [1e3, -1e3, 1e8, -1e8])
def test_charts_do_not_overflow(chart, size):
    x = chart.forward(np.full(chart.size, size))
    assert np.isfinite(x).all()
    if isinstance(chart, Simplex):
        sums = x.reshape(-1, x.shape[-1]).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(sums, np.broadcast_to(chart.total, sums.shape), rtol=1e-14)


@every_case
def test_wild_trial_points_have_a_value_or_a_failure(case):
    objective = case.objective()
    theta = case.start(objective).theta
    for size in (10.0, 1e3, 1e6, 1e200, np.inf, np.nan):
        for sign in (1.0, -1.0):
            e = objective.evaluate(theta + sign * size * np.random.default_rng(0).normal(size=theta.size))
            assert math.isfinite(e.value) == (e.failure is None)
            assert math.isfinite(e.value) or e.value == -math.inf


@pytest.mark.parametrize("case", SMALL + OTHERS, ids=str)
def test_one_bad_coordinate_is_a_failure(case):
    objective = case.objective()
    theta = case.start(objective).theta
    for j in range(theta.size):
        spoilt = theta.copy()
        spoilt[j] = np.nan
        e = objective.evaluate(spoilt)
        assert e.failure is not None, j
        assert e.value == -math.inf


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_factors_that_are_remembered_are_those_of_the_matrices(kind):
    case = next(c for c in CASES if f"-{kind}-" in c.name and "k3" in c.name)
    objective = case.objective()
    params = case.start(objective).params
    base = np.array([params.covariances])  # a view of what may change
    moved = params._replace(covariances=base[0])
    point = objective.point_of(moved)
    before = objective.evaluate(point).value
    base *= 2.0
    assert (
        objective.evaluate(point).value
        == objective.evaluate(objective.point_of(moved._replace(covariances=base[0].copy()))).value
    )
    assert objective.evaluate(point).value != before
    changed = point.params.covariances.copy()
    point = objective.point_of(moved._replace(covariances=changed))
    before = objective.evaluate(point).value
    changed.setflags(write=True)
    changed *= 2.0
    assert objective.evaluate(point).value != before


def test_parameters_in_any_order_of_memory():
    case = next(c for c in CASES if "-full-" in c.name and "k3" in c.name)
    objective = case.objective()
    params = case.start(objective).params
    a = objective.evaluate(objective.point_of(params))
    b = objective.evaluate(objective.point_of(type(params)(*map(np.asfortranarray, params))))
    assert (a.value, a.gain) == (b.value, b.gain)
    np.testing.assert_array_equal(a.gradient, b.gradient)


def test_simplex_basis_is_orthonormal_contrasts():
    for k in (1, 2, 7):
        V = Simplex(k).push_inverse(np.zeros(k - 1), np.ones(k), np.eye(k))  # contrasts of the unit vectors
        np.testing.assert_allclose(V.T @ V, np.eye(k - 1), atol=1e-15)
        np.testing.assert_allclose(V.sum(axis=0), 0, atol=1e-15)


def test_boundary_points_have_finite_coordinates():
    for chart, x in (
        (Simplex(3), np.array([0.5, 0.5, 0.0])),
        (Positive((2,), 0.1), np.array([0.1, 2.0])),
        (SPD((2, 2), 0.1), np.diag([0.1, 2.0])),
        (SPD((2, 2, 2), 0.1), np.stack([np.eye(2), np.diag([0.1, 2.0])])),
    ):
        t = chart.inverse(x)
        assert np.isfinite(t).all()
        np.testing.assert_allclose(chart.forward(t), x, rtol=0, atol=1e-8)
        assert not chart.contains(x)


@pytest.mark.parametrize(
    ("chart", "outside"),
    [
        (Simplex(2), [-0.1, 1.1]),
        (Positive((2,), 0.5), [0.4, 1.0]),
        (SPD((2, 2)), [[1.0, 2.0], [2.0, 1.0]]),
        (Real((2,)), [np.nan, 0.0]),
        (SPD((2, 2)), [[np.nan, 0.0], [0.0, 1.0]]),
    ],
)
def test_original_coordinates_outside_break_down(chart, outside):
    itself, t = Itself(chart, "name"), np.ravel(outside)
    assert not itself.contains(np.array(outside))
    with pytest.raises(Breakdown) as caught:
        itself.forward(t)
    assert caught.value.failure.status is Status.OUTSIDE
    assert caught.value.failure.where == "name"


@every_case
@pytest.mark.parametrize("coordinates", ["free", "original"])
def test_coordinates_of_a_model(case, coordinates):
    objective = case.objective(coordinates=coordinates)
    c, at = objective.coordinates, case.somewhere(objective)
    theta, params = at.theta, at.params
    for x, y in zip(c.forward(theta), params, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)
    assert theta.shape == (c.size,) == (objective.size,)
    assert [s.stop - s.start for s in c.slices.values()] == [chart.size for chart in c.charts]
    rng = np.random.default_rng(0)
    u = next(feasible_directions(objective, params, rng, 1))
    v = c.push_inverse(theta, params, u)
    for x, y in zip(c.push(theta, params, v), u, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-11)
    g = next(feasible_directions(objective, params, rng, 1))
    inner = sum(np.sum(x * y) for x, y in zip(g, u, strict=True))
    assert c.pull(theta, params, g) @ v == pytest.approx(inner, rel=1e-9, abs=1e-10)


def test_unknown_coordinates_are_refused():
    with pytest.raises(ValueError, match="coordinates must be 'free' or 'original', got 'polar'"):
        SMALL[0].objective(coordinates="polar")


# The floor


def flat_case(kind, reg=1e-2):
    """Data that lie in a plane (a line within it for one component), so that maxima sit on the floor."""

    def draw(rng):
        X, component, _ = mixture_rows(2, 3, 60, 4.0, False)(rng)
        X[:, 2] = X[:, 0]
        X[::2] = X[0] + 1e-4 * rng.normal(size=X[::2].shape)
        return X, component, None

    return Case(f"flat-{kind}", lambda: GaussianMixture(2, kind, reg=reg), draw)


@every_covariance
def test_clipped_m_step_is_the_constrained_maximum(kind):
    case = flat_case(kind)
    objective = case.objective()
    model, reg = objective.model, objective.model.emission.reg
    e = objective.evaluate(case.start(objective))
    best, rng = e.em_point.params, np.random.default_rng(0)
    k, d = best.means.shape
    free = gmm.m_step(*oracle_pass(case, objective, e.point.params)[:3], kind, 0.0)[2]

    def lowest(covariances):
        return min(np.linalg.eigvalsh(S)[0] for S in gmm.expand(kind, covariances, k, d))

    assert lowest(free) < reg
    assert lowest(best.covariances) >= reg * (1 - 1e-9)
    top, size = model.q(best, e.stats), abs(model.q(best, e.stats))
    beaten = 0
    for scale in (1e-1, 1e-2, 1e-3):
        for v in feasible_directions(objective, best, rng, 60):
            moved = model.params(*(x + scale * t * np.abs(x).max() for x, t in zip(best, v, strict=True)))
            if moved.weights.min() <= 0:
                continue
            if kind in ("full", "tied"):
                shape = moved.covariances.shape
                covariances = np.array([gmm.clip(S, reg) for S in moved.covariances.reshape(-1, d, d)]).reshape(shape)
            else:
                covariances = np.maximum(moved.covariances, reg)
            assert model.q(moved._replace(covariances=covariances), e.stats) <= top + 1e-13 * size
            only = best._replace(covariances=covariances)
            assert model.q(only, e.stats) <= top + 1e-13 * size
            beaten += 1
    assert beaten > 20


@every_covariance
def test_em_climbs_along_the_floor_and_says_so(kind):
    case = flat_case(kind)
    objective = case.objective()
    result = solve(objective, EM(), case.start(objective))
    assert np.all(np.diff(result.trace.value) >= -rounding(result.evaluation.scale))
    if kind == "tied":
        # Only the direction across the plane is at the floor.
        assert result.boundary == ("the common covariance is at its floor",)
    else:
        assert "the covariance of component 0 is at its floor" in result.boundary
    assert result.status is Status.BOUNDARY
    assert result.status.ok
    assert "floor" in str(result)


def degenerate_rows(name, rng):
    """Return rows that leave covariances at the floor: with the default `reg` their condition is a million."""
    if name == "fewer rows than columns":
        return rng.normal(size=(12, 20))
    X = rng.normal(size=(80, 4)) + 3 * (np.arange(80) % 2)[:, None]
    X[:, 3] = X[:, 0] - X[:, 1]
    return X


@every_covariance
@pytest.mark.parametrize("name", ["fewer rows than columns", "in a plane"])
def test_em_at_the_floor_ends_well(kind, name):
    for seed in range(8 if (kind, name) == ("tied", "in a plane") else 40):  # EM crawls there
        rng = np.random.default_rng(seed)
        objective = ModelObjective(GaussianMixture(2, kind), as_source(degenerate_rows(name, rng)), n_threads=1)
        resp = rng.dirichlet(np.ones(2), size=objective.source.n_rows)
        at = objective.point_of(objective.model.start(objective.source.block(0), resp))
        result = solve(objective, EM(), at)
        assert result.status.ok, (seed, str(result))


def collapsing(kind):
    """Rows of which one component holds a single value, and a start that knows it."""
    rng = np.random.default_rng(0)
    X = np.concatenate([np.full((10, 2), 5.0), rng.normal(size=(50, 2))])
    objective = ModelObjective(GaussianMixture(2, kind, reg=0), as_source(X), n_threads=1)
    resp = np.zeros((60, 2))
    resp[:10, 0], resp[10:, 1] = 0.9, 1.0
    resp[:10, 1] = 0.1
    resp[10:, 0], resp[10:, 1] = 0.02, 0.98
    return objective, objective.point_of(objective.model.start(objective.source.block(0), resp))


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_collapse_is_a_status_and_returns_what_was_reached(kind):
    objective, at = collapsing(kind)
    result = solve(objective, EM(), at)
    assert result.status is Status.COLLAPSED
    assert result.status.failed
    assert result.failure.where == "component 0"
    assert result.failure.step == result.steps + 1
    assert math.isfinite(result.value)
    assert result.value == result.trace.value[-1]
    assert all(np.isfinite(x).all() for x in result.point.params)
    assert objective.evaluate(result.point).value == result.value
    assert "component 0" in str(result)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_with_a_floor_the_same_climb_ends_at_the_boundary(kind):
    objective, at = collapsing(kind)
    model = GaussianMixture(2, kind, reg=1e-6)
    floored = ModelObjective(model, objective.source, n_threads=1)
    result = solve(floored, EM(), floored.point_of(at.params))
    assert result.status is Status.BOUNDARY
    assert result.boundary == ("the covariance of component 0 is at its floor",)


@every_covariance
def test_degenerate_parameters_are_a_failure_of_the_evaluation(kind):
    case = SMALL_GAUSSIAN[COVARIANCES.index(kind)]
    objective = case.objective()
    params = case.start(objective).params
    e = objective.evaluate(objective.point_of(params._replace(covariances=np.zeros_like(params.covariances))))
    assert e.value == -math.inf
    assert e.failure.status is Status.COLLAPSED
    assert objective.passes == 0
    for name in ("gradient", "em_point", "gain", "entropy"):
        with pytest.raises(Breakdown):
            getattr(e, name)


def test_an_empty_component_stays_where_it_is():
    for case in SMALL:
        objective = case.objective()
        params = case.start(objective).params
        weights = np.array([0.5, 0.5, 0.0])
        e = objective.evaluate(objective.point_of(params._replace(weights=weights)))
        em = e.em_point.params
        assert em.weights[2] == 0
        for name in params._fields[1:]:
            if "-tied-" not in case.name or name != "covariances":
                np.testing.assert_array_equal(getattr(em, name)[2], getattr(params, name)[2])
        assert objective.boundary(e.em_point) == ("the weight of component 2 is 0",)
        assert np.isfinite(e.gradient).all()
        assert e.gain >= 0


# Parameters of the user


@every_gaussian
def test_user_parameters_in_and_out(case):
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    user = model.to_user(at.params)
    for given in (user, user._asdict()):
        for x, y in zip(model.from_user(given), at.params, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-13, atol=1e-13)
    again = model.to_user(model.from_user(user))
    np.testing.assert_array_equal(again.weights, user.weights)
    np.testing.assert_array_equal(again.covariances, user.covariances)  # scaling by powers of two is exact
    np.testing.assert_allclose(again.means, user.means, rtol=1e-15)


@every_gaussian
def test_value_is_in_the_users_units(case):
    objective = case.objective()
    at = case.somewhere(objective)
    user = objective.model.to_user(at.params)
    k, d = user.means.shape
    sigmas = gmm.expand(kind_of(objective), user.covariances, k, d)
    rows = gmm.posterior(gmm.log_density(case.X, user.means, sigmas), user.weights)[1]
    assert objective.evaluate(at).value == pytest.approx(case.w @ rows / case.total, rel=1e-12)


def good(kind="full"):
    """Return a bound model with k = 2, d = 2 and valid parameters in the user's units."""
    X = np.random.default_rng(0).normal(size=(50, 2)) * [1.0, 100.0]
    model = GaussianMixture(2, kind).bind(as_source(X))
    covariances = {"full": [np.eye(2)] * 2, "tied": np.eye(2), "diag": np.ones((2, 2)), "spherical": np.ones(2)}[kind]
    return model, {"weights": [0.25, 0.75], "means": [[0, 0], [1, 1]], "covariances": covariances}


@every_covariance
def test_good_start_is_taken_and_is_a_copy(kind):
    model, given = good(kind)
    given["weights"] = np.array(given["weights"])
    params = model.from_user(given)
    given["weights"][:] = 7
    np.testing.assert_array_equal(params.weights, [0.25, 0.75])


BAD_STARTS = {
    "missing": (lambda g: g.pop("means"), "the parameters must be weights, means, covariances; missing or unknown: means"),
    "unknown": (lambda g: g.update(colour=1), "missing or unknown: colour"),
    "weights shape": (lambda g: g.update(weights=[1.0]), "weights must have shape (2,), got (1,)"),
    "weights negative": (lambda g: g.update(weights=[-0.5, 1.5]), "weights must be >= 0, that of component 0 is -0.5"),
    "weights sum": (lambda g: g.update(weights=[0.5, 0.6]), "weights must sum to 1, they sum to"),
    "weights nan": (lambda g: g.update(weights=[np.nan, 1.0]), "weights must be finite"),
    "weights text": (lambda g: g.update(weights=["a", "b"]), "weights is not an array of numbers"),
    "means shape": (lambda g: g.update(means=np.zeros((2, 3))), "means must have shape (2, 2), got (2, 3)"),
    "means inf": (lambda g: g.update(means=[[0, 0], [np.inf, 0]]), "means must be finite"),
    "covariances ragged": (lambda g: g.update(covariances=[[1], [1, 2]]), "covariances is not an array of numbers"),
    "covariances shape": (lambda g: g.update(covariances=np.ones(5)), "covariances must have shape"),
    "covariances nan": (lambda g: g.update(covariances=np.nan * np.array(g["covariances"])), "covariances must be finite"),
    "covariances negative": (lambda g: g.update(covariances=-np.array(g["covariances"])), "must be positive definite"),
}  # fmt: skip


@every_covariance
@pytest.mark.parametrize("name", BAD_STARTS)
def test_bad_starts_are_refused(kind, name):
    model, given = good(kind)
    change, message = BAD_STARTS[name]
    change(given)
    with pytest.raises(ValueError, match="start: .*" + re.escape(message)):
        model.from_user(given)


def test_bad_covariances_are_named():
    model, given = good("full")
    with pytest.raises(ValueError, match="start: covariances must be symmetric"):
        model.from_user(given | {"covariances": [np.eye(2), [[1.0, 0.1], [0.2, 1.0]]]})
    with pytest.raises(ValueError, match=r"the covariance of component 1 must be positive definite .* its smallest is -"):
        model.from_user(given | {"covariances": [np.eye(2), [[1.0, 20.0], [20.0, 1.0]]]})
    with pytest.raises(ValueError, match=r"of component 1 .* the floor reg=1e-06"):
        model.from_user(given | {"covariances": [np.eye(2), np.diag([1e-9, 1.0])]})
    model, given = good("tied")
    with pytest.raises(ValueError, match="start: the covariance must be positive definite"):
        model.from_user(given | {"covariances": -np.eye(2)})
    model, given = good("diag")
    with pytest.raises(ValueError, match=r"must have shape \(2, 2\) \(covariance='diag'\), got \(2, 2, 2\)"):
        model.from_user(given | {"covariances": [np.eye(2)] * 2})


@every_covariance
def test_a_result_at_the_floor_can_start_again(kind):
    case = flat_case(kind)
    objective = case.objective()
    params = solve(objective, EM(), case.start(objective)).point.params
    model = objective.model
    again = model.from_user(model.to_user(params))
    np.testing.assert_allclose(again.covariances, params.covariances, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "n_components must be >= 1, got 0"),
        ((2.0,), TypeError, "n_components must be a whole number >= 1, got 2.0"),
        ((True,), TypeError, "n_components must be a whole number"),
        ((2, "round"), ValueError, "covariance must be one of 'full', 'tied', 'diag', 'spherical', got 'round'"),
        ((2, "full", -1.0), ValueError, "reg must be a finite number >= 0, got -1.0"),
        ((2, "full", np.nan), ValueError, "reg must be a finite number >= 0, got nan"),
        ((2, "full", "a"), TypeError, "reg must be a number >= 0, got 'a'"),
        ((2, "full", 0.5), ValueError, "reg must be below 0.5"),
        ((2, "full", 1.0), ValueError, "reg must be below 0.5"),
    ],
)
def test_bad_options_are_refused(arguments, error, message):
    reg = {"reg": arguments[2]} if len(arguments) > 2 else {}
    with pytest.raises(error, match=re.escape(message)):
        GaussianMixture(*arguments[:2], **reg)


def test_models_build_again_by_name():
    model = GaussianMixture(np.int64(3), "diag", reg=1e-3)
    again = models.build(model.name, model.options)
    assert repr(again) == repr(model) == "GaussianMixture(n_components=3, covariance='diag', reg=0.001)"
    with pytest.raises(ValueError, match=r"model .Nothing. is unknown; known: .*GaussianMixture, "):
        models.build("Nothing", {})


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="X has 2 rows of positive weight, fewer than the 3 components"):
        GaussianMixture(3).bind(as_source([[1.0], [2.0], [3.0]], [1.0, 0.0, 1.0]))


def test_parts_must_agree():
    with pytest.raises(ValueError, match="latent has 2 states, emission 3"):
        models.Model(models.Mixture(2), GaussianMixture(3).emission)


def test_wrong_responsibilities_are_refused():
    model, _ = good()
    block = as_source(np.random.default_rng(0).normal(size=(50, 2))).block(0)
    for resp in (np.ones((49, 2)), np.ones((50, 3)), np.ones(50)):
        with pytest.raises(ValueError, match=r"resp must have shape \(50, 2\)"):
            model.start(block, resp)


# The frame


def fit(kind, X, w=None, stop=None):
    """Return the bound model and the climb of EM from a start that knows the components."""
    objective = ModelObjective(GaussianMixture(2, kind), as_source(X, w), n_threads=1)
    resp = np.full((len(X), 2), 0.1)
    resp[np.arange(len(X)), np.arange(len(X)) % 2] = 0.9
    start = objective.model.start(as_source(X, w, block_rows=len(X)).block(0), resp)
    return objective.model, solve(objective, EM(), objective.point_of(start), stop=stop)


def grid_rows():
    """Return two overlapping components, all values small multiples of 2^-10."""
    X, _, _ = mixture_rows(2, 2, 100, 3.0, False)(np.random.default_rng(8))
    return np.round(X * 1024) / 1024


@every_covariance
@pytest.mark.parametrize("powers", [(40, 40), (-300, -300), (20, -30), (200, 0)])
def test_fit_is_equivariant_under_scaling(kind, powers):
    if kind == "spherical" and powers[0] != powers[1]:
        powers = (powers[0], powers[0])
    scale = np.exp2(np.array(powers, dtype=float))
    X, stop = grid_rows(), Stop(gain=0, max_passes=30)
    model, plain = fit(kind, X, stop=stop)
    scaled_model, scaled = fit(kind, X * scale, stop=stop)
    np.testing.assert_array_equal(scaled_model.emission.frame.shift, model.emission.frame.shift * scale)
    np.testing.assert_array_equal(scaled_model.emission.frame.scale, model.emission.frame.scale / scale)
    for x, y in zip(scaled.point.params, plain.point.params, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11)
    user, scaled_user = model.to_user(plain.point.params), scaled_model.to_user(scaled.point.params)
    np.testing.assert_allclose(scaled_user.means / scale, user.means, rtol=1e-10, atol=1e-10)
    assert scaled.value == pytest.approx(plain.value - np.log(scale).sum(), rel=1e-12)
    if max(map(abs, powers)) <= 40:  # beyond, the log-density is so large in the user's units that its rounding decides
        assert fit(kind, X * scale)[1].steps == fit(kind, X)[1].steps


@every_covariance
@pytest.mark.parametrize("shift", [(1.0, 0.0), (-(2.0**20), 2.0**30), (2.0**40, -(2.0**40))])
def test_fit_is_equivariant_under_shifts(kind, shift):
    X = grid_rows()
    model, plain = fit(kind, X)
    shifted_model, shifted = fit(kind, X + shift)
    np.testing.assert_array_equal((X + shift) - shift, X)
    assert shifted.steps == plain.steps
    user, moved = model.to_user(plain.point.params), shifted_model.to_user(shifted.point.params)
    spacing = np.spacing(np.abs(shift).max())
    np.testing.assert_allclose(moved.means - shift, user.means, rtol=0, atol=1e-11 + 2 * spacing)
    np.testing.assert_allclose(moved.covariances, user.covariances, rtol=1e-11)
    np.testing.assert_allclose(moved.weights, user.weights, rtol=1e-11)
    assert shifted.value == pytest.approx(plain.value, rel=1e-13)


@every_covariance
def test_frame_units(kind):
    X = np.random.default_rng(0).normal(size=(500, 3)) * [1e-8, 1.0, 1e12] + [0.0, 1e6, -1e13]
    model = GaussianMixture(1, kind).bind(as_source(X))
    frame = model.emission.frame
    np.testing.assert_array_equal(np.log2(frame.scale), np.round(np.log2(frame.scale)))
    np.testing.assert_allclose(frame.shift, X.mean(axis=0), rtol=1e-12, atol=1e-20)
    np.testing.assert_allclose(frame.variance, (X.std(axis=0) * frame.scale) ** 2, rtol=1e-9)
    if kind == "spherical":
        assert len(set(frame.scale)) == 1
    else:
        assert np.all((frame.variance >= 0.5 - 1e-9) & (frame.variance <= 2 + 1e-9))
    assert frame.log_jacobian == pytest.approx(np.log(frame.scale).sum())


@every_covariance
def test_frame_does_not_see_rows_of_weight_zero(kind):
    X, w = grid_rows(), np.ones(100)
    w[[0, 50]] = 0.0
    plain = GaussianMixture(2, kind).bind(as_source(X[w > 0])).emission.frame
    X[[0, 50]] = [[1e20, -1e15], [-1e300, 1e300]]
    frame = GaussianMixture(2, kind).bind(as_source(X, w)).emission.frame
    np.testing.assert_allclose(frame.shift, plain.shift, rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(frame.scale, plain.scale)
    np.testing.assert_allclose(frame.variance, plain.variance, rtol=1e-12)
    assert frame.constant == plain.constant == ()


@every_covariance
def test_rows_of_weight_zero_change_no_fit(kind):
    X, w = grid_rows(), np.ones(100)
    w[[0, 51]] = 0.0
    _, plain = fit(kind, X, w)
    X[[0, 51]] = [[1e20, -1e15], [-1e300, 1e300]]
    _, far = fit(kind, X, w)
    assert far.steps == plain.steps
    assert far.value == pytest.approx(plain.value, rel=1e-12)
    for x, y in zip(far.point.params, plain.point.params, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)


@every_covariance
@pytest.mark.parametrize("constant", [0.0, 3.0, -1e9])
def test_a_constant_column_is_fitted_at_the_floor_and_reported(kind, constant):
    X = grid_rows()
    X = np.column_stack([X, np.full(len(X), constant)])
    model, result = fit(kind, X)
    assert result.status.ok
    ending = (
        "it adds nothing to the variance that the columns share"
        if kind == "spherical"
        else "its variance is fitted at the floor"
    )
    assert model.warnings() == (f"X is constant in column 2: {ending}",)
    assert math.isfinite(result.value)
    np.testing.assert_allclose(model.to_user(result.point.params).means[:, 2], constant, rtol=1e-15)
    if kind != "spherical":
        assert result.status is Status.BOUNDARY


def test_no_constant_column_no_warning():
    model, _ = fit("full", grid_rows())
    assert model.warnings() == ()


@pytest.mark.parametrize("dtype", ["f4", "i8", "i4"])
@every_covariance
def test_rows_of_other_dtypes_are_the_same_rows(kind, dtype):
    X = np.round(8 * grid_rows())
    _, plain = fit(kind, X)
    _, other = fit(kind, np.asfortranarray(X.astype(dtype)))
    assert other.steps == plain.steps
    for x, y in zip(other.point.params, plain.point.params, strict=True):
        np.testing.assert_array_equal(x, y)


@every_covariance
def test_whole_weights_are_rows_repeated(kind):
    X, w = grid_rows(), np.random.default_rng(3).integers(0, 4, size=100)
    stop = Stop(gain=0, max_passes=30)
    weighted, repeated = (
        ModelObjective(GaussianMixture(2, kind), source, n_threads=1)
        for source in (as_source(X, w), as_source(np.repeat(X, w, axis=0)))
    )
    resp = np.where(np.arange(100)[:, None] % 2 == [0, 1], 0.9, 0.1)
    at = weighted.model.start(weighted.source.block(0), resp)
    other = repeated.model.start(repeated.source.block(0), np.repeat(resp, w, axis=0))
    assert repeated.weight == weighted.weight
    results = [solve(o, EM(), o.point_of(p), stop=stop) for o, p in ((weighted, at), (repeated, other))]
    users = [o.model.to_user(r.point.params) for o, r in zip((weighted, repeated), results, strict=True)]
    for x, y in zip(*users, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)
    assert results[0].value == pytest.approx(results[1].value, rel=1e-12)


@every_covariance
def test_huge_and_tiny_numbers(kind):
    stop = Stop(gain=0, max_passes=30)
    for factor in (1e150, 1e-150):
        _, plain = fit(kind, grid_rows(), stop=stop)
        _, result = fit(kind, grid_rows() * factor, stop=stop)
        assert result.status is Status.MAX_PASSES
        np.testing.assert_allclose(result.point.params.weights, plain.point.params.weights, rtol=1e-11)
        assert fit(kind, grid_rows() * factor)[1].status.ok


@every_covariance
def test_numbers_at_the_ends_of_float64(kind):
    X, model = grid_rows(), GaussianMixture(2, kind)
    for narrow in (model, *([GaussianMixture(2, kind, missing=True)] if kind in ("full", "tied") else [])):
        with pytest.raises(ValueError, match=r"X varies by .* in column 0, too little for float64 to square: rescale it"):
            narrow.bind(as_source(X * 1e-312, missing=narrow.takes_missing))  # variances would be 0
    assert fit(kind, X * 1e-151)[1].status.ok
    w = np.ones(100)
    X[3] = np.finfo(float).max
    w[3] = 0.0
    assert fit(kind, X, w)[1].status.ok
    X[4] = -X[3]
    with pytest.raises(ValueError, match="X spans more than float64 can add up in column 0: rescale it"):
        model.bind(as_source(X))
    with pytest.raises(ValueError, match="X spans more than float64 can add up in column 0: rescale it"):
        model.bind(as_source(grid_rows() * 1e155))  # variances would be infinite


@pytest.mark.parametrize("missing", [False, True])
def test_a_column_that_varies_in_rows_of_next_to_no_weight_is_refused_for_these(missing):
    model, X = GaussianMixture(1, missing=missing), np.array([[0.0], [0.0], [1.0]])
    with pytest.raises(ValueError, match=r"X varies in column 0 in rows only that weigh next to nothing.* the weight 0"):
        model.bind(as_source(X, [1.0, 1.0, 1e-306], missing=missing))
    assert model.bind(as_source(X, [1.0, 1.0, 1e-290], missing=missing)).emission.frame.constant == ()


def test_columns_that_share_a_variance_may_be_narrow_beside_a_wide_one():
    X, stop = grid_rows() * [1.0, 1e-200], Stop(gain=0, max_passes=30)
    _, found = fit("spherical", X, stop=stop)
    _, flat = fit("spherical", X * [1.0, 0.0] + [0.0, 1e-199], stop=stop)
    np.testing.assert_allclose(found.point.params.weights, flat.point.params.weights, rtol=1e-12)
    np.testing.assert_allclose(found.point.params.covariances, flat.point.params.covariances, rtol=1e-12)
    with pytest.raises(ValueError, match=r"X varies by .* in column 0, too little for float64 to square: rescale it"):
        GaussianMixture(2, "spherical").bind(as_source(X * 1e-200))
    wide = np.random.default_rng(0).uniform(-1e153, 1e153, size=(50, 9))
    assert np.isfinite(GaussianMixture(1, "spherical").bind(as_source(wide)).emission.frame.variance).all()


@pytest.mark.filterwarnings("ignore:X is constant")
@every_covariance
@pytest.mark.parametrize("value", [1e-321, 1e-200, -1e200, 1.7e308])
def test_constant_columns_of_any_size(kind, value):
    """Their variance rests on a floor that is a number in the user's units, too."""
    model, result = fit(kind, np.full((20, 2), value))
    users = model.to_user(result.point.params)
    np.testing.assert_allclose(users.means, value, rtol=1e-12)
    variances = np.diagonal(gmm.expand(kind, users.covariances, 2, 2), axis1=1, axis2=2)
    assert np.isfinite(variances).all()
    assert (variances > 0).all()
