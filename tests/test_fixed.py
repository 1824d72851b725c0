"""Fixed parameters: theta holds the free entries only, and every law holds for them."""

import re

import numpy as np
import pytest
from cases import CASES, CONVERGING, SMALL, SOLVERS, em_step_is_preconditioned_gradient, matrix, refused
from derivatives import derivatives

import emcore
from emcore.data import as_source
from emcore.models import SPD, GaussianMixture, PoissonMixture, Real, Simplex
from emcore.objective import ModelObjective
from emcore.result import Status, Stop, rounding
from emcore.solve import solve
from emcore.solvers import EM

every_model = pytest.mark.parametrize("case", SMALL, ids=str)
WAYS = ("a weight", "a location", "an entry of a location", "a spread", "a bit of everything", "all weights")
every_way = pytest.mark.parametrize("way", WAYS)


def masks_for(model, way):
    """Return masks for a bound model: of weights, of the means or rates, of the covariances."""
    location = model.names[1]
    masks = {f.name: np.zeros(f.shape, dtype=bool) for f in model.fields}
    if way in ("a weight", "a bit of everything"):
        masks["weights"][1] = True
    if way == "all weights":
        masks["weights"][:] = True
    if way == "a location":
        masks[location][0] = True
    if way in ("an entry of a location", "a bit of everything"):
        masks[location][(2, 1, 0)[: masks[location].ndim]] = True
    if way in ("a spread", "a bit of everything") and "covariances" in masks:
        shape = masks["covariances"].shape
        whole = isinstance(model.fields[2].chart, SPD)
        masks["covariances"][... if whole and len(shape) == 2 else 1 if whole or len(shape) == 1 else (1, 0)] = True
    return {name: mask for name, mask in masks.items() if mask.any()}


def frozen(case, way, *, near=False, **options):
    """Return the objective with some parameters fixed at what lies somewhere (or near a maximum), the start and the masks."""
    plain = case.objective()
    params = plain.model.to_user((case.start(plain) if near else case.somewhere(plain, seed=3)).params)
    masks = masks_for(plain.model, way) or masks_for(plain.model, "a location")
    objective = ModelObjective(case.build(), case.source(), n_threads=1, fixed=masks, start=params, **options)
    return objective, objective.point_of(objective.model.from_user(params)), masks


def moved(objective, at, seed):
    """Return a point whose free parameters are others."""
    free = ModelObjective(objective.model, objective.source, n_threads=1)
    theta = free.point_of(at.params).theta
    return objective.point_of(free.point(theta + 0.1 * np.random.default_rng(seed).normal(size=theta.size)).params)


def same_where_fixed(params, start, masks):
    for name, mask in masks.items():
        np.testing.assert_array_equal(getattr(params, name)[mask], getattr(start, name)[mask])


@every_model
@every_way
@pytest.mark.parametrize("coordinates", ["free", "original"])
def test_theta_holds_what_is_free(case, way, coordinates):
    objective, at, masks = frozen(case, way, coordinates=coordinates)
    free = {
        f.name: np.prod(f.shape) - masks[f.name].sum() if f.name in masks else np.prod(f.shape) for f in objective.model.fields
    }
    if coordinates == "original":
        assert objective.size == sum(free.values())
    else:
        assert objective.size < case.objective().size
    here = objective.point(at.theta).params
    same_where_fixed(here, at.params, masks)
    for x, y in zip(here, at.params, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)
    there = objective.point(at.theta + 0.01).params if coordinates == "free" else here
    same_where_fixed(there, at.params, masks)
    assert there.weights.sum() == pytest.approx(1.0, rel=1e-14)


@every_model
@every_way
def test_gradient_is_the_derivative_of_the_value(case, way):
    objective, at, _ = frozen(case, way)
    g = objective.evaluate(at).gradient
    differences = derivatives(lambda theta: objective.evaluate(theta).value, at.theta, 2e-4)
    np.testing.assert_allclose(g, differences, rtol=0, atol=1e-8 * max(1.0, np.abs(g).max()))


@every_model
@every_way
def test_m_step_is_the_maximum_of_q_over_what_is_free(case, way):
    objective, at, masks = frozen(case, way)
    e = objective.evaluate(at)
    best = e.em_point
    same_where_fixed(best.params, at.params, masks)
    slope = objective.gradient(best, e.stats)
    assert np.abs(slope).max() <= 1e-9
    top, rng = objective.q(best, e.stats), np.random.default_rng(0)
    for _ in range(20):
        near = objective.point(best.theta + 1e-3 * rng.normal(size=objective.size))
        assert objective.q(near, e.stats) < top


@every_model
@every_way
def test_em_never_goes_down(case, way):
    objective, at, masks = frozen(case, way)
    e = objective.evaluate(at)
    for _ in range(30):
        new = objective.evaluate(e.em_point)
        assert new.value >= e.value + e.gain - rounding(e.scale)
        same_where_fixed(new.point.params, at.params, masks)
        e = new


@matrix("way, case", WAYS, SMALL, "P with some parameters fixed")
def test_preconditioned_gradient_is_the_em_step_near_a_maximum(case, way):
    objective, at, _ = frozen(case, way, near=True)
    em_step_is_preconditioned_gradient(objective, at)


@every_model
@every_way
def test_preconditioning_is_symmetric_and_positive(case, way):
    for coordinates in ("free", "original"):
        objective, at, _ = frozen(case, way, coordinates=coordinates)
        e = objective.evaluate(at)
        u, v = e.gradient, objective.evaluate(moved(objective, at, 1)).gradient
        pu, pv = e.precondition(u), e.precondition(v)
        assert abs(u @ pv - v @ pu) <= 1e-10 * (abs(u @ pu) + abs(v @ pv))
        assert u @ pu > 0


@every_model
@every_way
@pytest.mark.parametrize("name", CONVERGING)
def test_every_solver_reaches_the_optimum(name, case, way):
    objective, at, masks = frozen(case, way, near=True)
    best = solve(objective, EM(), at, stop=Stop(gain=1e-15, max_passes=20_000))
    assert best.status.ok
    result = solve(objective, emcore.solvers.get(name), at, stop=Stop(gain=1e-9, max_passes=5000))
    assert result.status.ok, result
    assert result.value >= best.value - 1e-5
    same_where_fixed(result.point.params, at.params, masks)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", SOLVERS)
def test_nothing_fixed_changes_no_bit(name, case):
    if refused(name, case):
        return
    user = case.objective().model.to_user(case.start(case.objective()).params)
    stop, results = Stop(gain=1e-8, max_passes=16 if name == "auto" else 6), []  # it leaves EM late
    masks = {f.name: np.zeros(f.shape, dtype=bool) for f in case.objective().model.fields}
    for fixed in (None, {}, masks):
        objective = ModelObjective(case.build(), case.source(), n_threads=1, fixed=fixed, start=user)
        results.append(
            solve(objective, emcore.solvers.get(name), objective.point_of(objective.model.from_user(user)), stop=stop)
        )
    for other in results[1:]:
        np.testing.assert_array_equal(other.trace.value, results[0].trace.value)
        np.testing.assert_array_equal(other.trace.event, results[0].trace.event)
        np.testing.assert_array_equal(other.theta, results[0].theta)
    if name == "auto" and "k3-d2-overlapping" in str(case):
        assert any(event.startswith("switched") for event in results[0].trace.event)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_an_entry_of_a_mean_at_the_floor(kind):
    """Means and covariances depend on each other there: the M-step has no closed form and is the maximum all the same."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)) + 4.0 * (np.arange(60) % 2)[:, None]
    X[:, 2] = X[:, 0] - X[:, 1]
    masks = {"means": np.zeros((2, 3), dtype=bool)}
    masks["means"][0, 0] = True
    eye = 3 * np.eye(3)
    start = {
        "weights": [0.5, 0.5],
        "means": [[0.5, 0.0, 0.0], [4.0, 4.0, 0.0]],
        "covariances": eye if kind == "tied" else [eye] * 2,
    }
    found = emcore.fit(GaussianMixture(2, kind, reg=1e-3), X, start=start, fixed=masks)
    assert found.status is Status.BOUNDARY
    assert found.params.means[0, 0] == 0.5
    assert np.all(np.diff(found.trace.value) >= -rounding(found.evaluation.scale))
    e = found.evaluation
    objective = ModelObjective(found.model, as_source(X), n_threads=1)
    rng, top = np.random.default_rng(1), objective.q(e.em_point, e.stats)
    for _ in range(30):
        near = objective.point(e.em_point.theta + 1e-3 * rng.normal(size=objective.size))
        assert objective.q(near, e.stats) <= top + 1e-13


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_a_fixed_covariance_cannot_collapse(kind):
    X = np.concatenate([np.full((10, 2), 5.0), np.random.default_rng(0).normal(size=(50, 2))])
    one = {"full": np.eye(2), "diag": np.ones(2), "spherical": 1.0}[kind]
    start = {"weights": [0.2, 0.8], "means": [[5.0, 5.0], [0.0, 0.0]], "covariances": [one, one]}
    mask = np.zeros(np.shape(start["covariances"]), dtype=bool)
    mask[0] = True
    found = emcore.fit(GaussianMixture(2, kind, reg=0), X, start=start, fixed={"covariances": mask})
    assert found.status.ok
    np.testing.assert_array_equal(found.params.covariances[0], one)


def test_what_is_fixed_at_the_boundary_is_no_boundary():
    X = np.random.default_rng(0).poisson(3.0, size=(60, 2))
    start = {"weights": [0.5, 0.5, 0.0], "rates": [[2.0, 3.0], [4.0, 3.0], [1.0, 1.0]]}
    found = emcore.fit(
        PoissonMixture(3), X, start=start, fixed={"weights": [False, False, True]}, stop=Stop(max_passes=5, gain=1.0)
    )
    assert found.boundary == ()
    assert found.params.weights[2] == 0


@pytest.mark.parametrize("solver", ["em", "lbfgs"])
def test_fit_gives_back_what_was_fixed_to_the_last_bit(solver, tmp_path):
    X = np.random.default_rng(0).normal(size=(80, 2)) * [1.0, 1e5] + 0.1
    start = {"weights": [0.3, 0.7], "means": [[0.1, 0.7], [1 / 3, 1e5 / 7]], "covariances": np.array([[1.0, 1e10]] * 2) / 3}
    found = emcore.fit(GaussianMixture(2, "diag"), X, start=start, fixed={"means": True}, solver=solver)
    np.testing.assert_array_equal(found.params.means, start["means"])
    assert found.steps > 0
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.log_density(X), found.log_density(X))
    np.testing.assert_array_equal(again.theta, found.theta)
    for x, y in zip(again.model.coordinates().forward(again.theta), found.point.params, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-13)
    np.testing.assert_array_equal(again.params.means, start["means"])


@every_model
@every_way
@pytest.mark.parametrize("coordinates", ["free", "original"])
def test_diagnostics_see_what_is_free(case, way, coordinates):
    objective, at, masks = frozen(case, way, near=True, coordinates=coordinates)
    assert emcore.diagnostics.fisher(objective, at).error < 1e-7
    projection = emcore.diagnostics.projection(objective, at)
    for name, mask in masks.items():
        assert not getattr(projection.em_step, name)[mask].any()
        assert not getattr(projection.p_gradient, name)[mask].any()
    assert all(block.error < 1e-10 for block in projection.blocks)


@every_model
def test_a_model_with_fixed_parameters_can_be_started_from_responsibilities(case):
    objective, at, masks = frozen(case, "a bit of everything")
    params = case.start(objective).params
    same_where_fixed(params, at.params, masks)
    assert params.weights.sum() == pytest.approx(1.0, rel=1e-14)


GIVEN = {"weights": [0.5, 0.5], "means": [[0.0, 0.0], [1.0, 1.0]], "covariances": [np.eye(2)] * 2}
BAD = {
    "a name": ({"colour": True}, ValueError, "fixed: 'colour' is no parameter; they are weights, means, covariances"),
    "a shape": ({"means": [True]}, ValueError, "fixed: means must be True or have shape (2, 2), got (1,)"),
    "a type": ({"means": [[0.0, 1.0]] * 2}, TypeError, "fixed: means must be an array of bool"),
    "no mapping": ([True], TypeError, "fixed must map names of parameters to arrays of bool, got list"),
    "all": ({"weights": True, "means": True, "covariances": True}, ValueError, "fixed: nothing is left free"),
    "an entry of a matrix": (
        {"covariances": [[[True, False], [False, False]], np.zeros((2, 2), bool)]},
        ValueError,
        "fixed: covariances: a matrix can be fixed as a whole only",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_fixed_is_refused(name):
    fixed, error, message = BAD[name]
    with pytest.raises(error, match=re.escape(message)):
        emcore.fit(GaussianMixture(2), np.random.default_rng(0).normal(size=(20, 2)), start=GIVEN, fixed=fixed)


def test_fixed_needs_values():
    X = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(ValueError, match="fixed: start must give the parameters"):
        emcore.fit(GaussianMixture(2), X, fixed={"means": True})
    with pytest.raises(ValueError, match="weights: those fixed sum to 1 and leave nothing"):
        emcore.fit(
            GaussianMixture(3, "spherical"), X, fixed={"weights": [True, True, False]},
            start={"weights": [0.5, 0.5, 0.0], "means": np.eye(3, 2), "covariances": np.ones(3)},
        )  # fmt: skip
    bound = GaussianMixture(1).bind(as_source(X))
    with pytest.raises(ValueError, match="fixed: the model is bound already"):
        ModelObjective(bound, as_source(X), fixed={"means": True})


@pytest.mark.parametrize("chart", [Real((4,)), Simplex(4)])
def test_a_chart_can_be_restricted_once(chart):
    from emcore.models import Frozen

    once = Frozen(chart, np.array([True, False, False, False]), np.full(4, 0.25))
    with pytest.raises(ValueError, match="some of them are fixed already"):
        Frozen(once, np.ones(4, dtype=bool) & [False, True, False, False], np.full(4, 0.25))
