"""The objective: what is counted, what is lazy, what is refused."""

import math
import time

import numpy as np
import pytest
from cases import CASES, GAUSSIAN, SMALL, em_step_is_preconditioned_gradient, threads_start

from emcore.data import as_source
from emcore.diagnostics._common import tangent
from emcore.models import GaussianMixture
from emcore.objective import ModelObjective, Point
from emcore.result import Breakdown, OutOfBudget, Status

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_model = pytest.mark.parametrize("case", SMALL, ids=str)
every_gaussian_model = pytest.mark.parametrize("case", [case for case in SMALL if case in GAUSSIAN], ids=str)


class Counted:
    """A source that counts how often its blocks are read."""

    def __init__(self, source):
        self.source, self.reads = source, 0

    def __getattr__(self, name):
        return getattr(self.source, name)

    def block(self, i):
        self.reads += 1
        return self.source.block(i)


def counted(case, block_rows=None, **options):
    """Return an objective whose source counts reads; none so far."""
    source = Counted(case.source(block_rows=block_rows))
    objective = ModelObjective(case.build(), source, n_threads=1, **options)
    source.reads = 0
    return objective, source


# Law 1: one pass, every answer


@every_case
@pytest.mark.parametrize("coordinates", ["free", "original"])
def test_one_pass_gives_everything(case, coordinates):
    objective, source = counted(case, coordinates=coordinates)
    at = case.somewhere(objective)
    source.reads = 0
    e = objective.evaluate(at)
    assert (objective.passes, source.reads) == (1, source.n_blocks)
    em = e.em_point
    results = [e.value, e.scale, e.gradient, *em.params, em.theta, e.gain, e.entropy, e.precondition(e.gradient)]
    results += [objective.q(em, e.stats), objective.gradient(em, e.stats)]
    assert all(np.isfinite(x).all() for x in results)
    assert objective.boundary(em) == ()
    assert (objective.passes, source.reads) == (1, source.n_blocks)
    assert objective.monitor_passes == objective.hessian_passes == 0


@every_case
def test_evaluations_are_lazy_and_keep_what_they_know(case):
    objective = case.objective()
    e = objective.evaluate(case.somewhere(objective))
    assert not any(name in e.known for name in ("gradient", "em_point", "gain"))
    gradient = e.gradient
    assert "gradient" in e.known
    assert "em_point" not in e.known
    assert e.gradient is gradient
    point = e.em_point
    _ = e.gain
    assert "gain" in e.known
    assert e.em_point is point


@every_case
@pytest.mark.parametrize("block_rows", [1, 7, 32, 33])
def test_blocks_change_nothing(case, block_rows):
    whole, parts = case.objective(), case.objective(block_rows=block_rows)
    assert parts.source.n_blocks > 1
    at = case.somewhere(whole)
    a, b = whole.evaluate(at), parts.evaluate(at)
    assert parts.passes == 1
    assert b.value == pytest.approx(a.value, rel=1e-13)
    assert b.scale == pytest.approx(a.scale, rel=1e-13)
    np.testing.assert_allclose(b.stats.vector, a.stats.vector, rtol=0, atol=1e-12 * np.abs(a.stats.vector).max())
    np.testing.assert_allclose(b.gradient, a.gradient, rtol=0, atol=1e-12 * max(1, np.abs(a.gradient).max()))


def test_threads_change_no_bit():
    X = np.random.default_rng(0).normal(size=(50_000, 4))
    found = []
    for threads in (1, 2, 4):
        objective = ModelObjective(GaussianMixture(5), as_source(X), n_threads=threads)
        resp = np.random.default_rng(1).dirichlet(np.ones(5), size=len(X))
        at = objective.point_of(objective.model.start(as_source(X, block_rows=len(X)).block(0), resp))
        assert threads_start(objective, at)
        e = objective.evaluate(at)
        found.append((e.value, e.gradient.tobytes(), e.em_point.theta.tobytes(), e.gain))
    assert found[0] == found[1] == found[2]


# Counting


@every_model
def test_passes_are_counted_by_blocks(case):
    objective, source = counted(case, block_rows=-(-len(case.X) // 4))
    at = case.somewhere(objective)
    source.reads = 0
    assert source.n_blocks == 4
    parts = [objective.evaluate(at, blocks=blocks) for blocks in ([0], [1, 3], [2])]
    assert objective.passes == pytest.approx(1.0)
    assert source.reads == 4
    whole = objective.evaluate(at)
    total = parts[0].stats + parts[1].stats + parts[2].stats
    np.testing.assert_allclose(total.vector, whole.stats.vector, rtol=0, atol=1e-12 * np.abs(whole.stats.vector).max())
    assert total.weight == whole.stats.weight
    assert sum(p.value * p.stats.weight for p in parts) / total.weight == pytest.approx(whole.value, rel=1e-13)


@every_gaussian_model
def test_no_pass_without_parameters(case):
    objective, source = counted(case)
    params = case.start(objective).params
    source.reads = 0
    e = objective.evaluate(objective.point_of(params._replace(covariances=0 * params.covariances)))
    assert e.failure.status is Status.COLLAPSED
    assert (objective.passes, source.reads) == (0, 0)


@every_model
def test_budget_of_passes_is_hard(case):
    objective = case.objective()
    at = case.somewhere(objective)
    objective.evaluate(at)
    with objective.limit(2, math.inf):
        objective.evaluate(at)
        objective.evaluate(at)
        with pytest.raises(OutOfBudget) as caught:
            objective.evaluate(at)
        assert caught.value.status is Status.MAX_PASSES
        assert objective.passes == 3
    objective.evaluate(at)
    assert objective.passes == 4


@every_model
def test_budget_of_seconds(case):
    objective = case.objective()
    at = case.somewhere(objective)
    with objective.limit(math.inf, 1e-6):
        time.sleep(1e-3)
        objective.evaluate(at)  # the first pass is always allowed
        with pytest.raises(OutOfBudget) as caught:
            objective.evaluate(at)
    assert caught.value.status is Status.MAX_SECONDS
    assert objective.passes == 1
    objective.evaluate(at)


@every_model
def test_a_budget_of_parts_of_passes(case):
    objective = case.objective(block_rows=len(case.X) // 10)
    assert objective.source.n_blocks == 10
    at = case.somewhere(objective)
    with objective.limit(1, math.inf):
        for i in range(10):
            objective.evaluate(at, blocks=[i])
        with pytest.raises(OutOfBudget):
            objective.evaluate(at, blocks=[0])


@every_model
def test_monitoring_is_counted_apart_and_needs_no_budget(case):
    objective = case.objective()
    at = case.somewhere(objective)
    with objective.limit(1, math.inf):
        objective.evaluate(at)
        with objective.monitoring():
            e = objective.evaluate(at)
        with pytest.raises(OutOfBudget):
            objective.evaluate(at)
    assert math.isfinite(e.value)
    assert (objective.passes, objective.monitor_passes) == (1, 1)


@every_model
def test_restore_is_an_evaluation_without_a_pass(case):
    objective, source = counted(case)
    e = objective.evaluate(case.somewhere(objective))
    source.reads, passes = 0, objective.passes
    again = objective.restore(e.point.theta, e.point.params._asdict(), tuple(e.stats), e.value, e.scale)
    assert (again.value, again.scale, again.failure) == (e.value, e.scale, None)
    np.testing.assert_array_equal(again.gradient, e.gradient)
    np.testing.assert_array_equal(again.em_point.theta, e.em_point.theta)
    assert again.gain == e.gain
    assert (objective.passes, source.reads) == (passes, 0)


# Points


@every_case
@pytest.mark.parametrize("coordinates", ["free", "original"])
def test_points_are_lazy_and_read_only(case, coordinates):
    objective = case.objective(coordinates=coordinates)
    params = case.start(objective).params
    at = objective.point_of(params)
    assert at.params is params
    theta = at.theta
    assert at.theta is theta
    other = objective.point(theta)
    assert other.params is other.params
    for point in (at, other):
        for array in (point.theta, *point.params):
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
    np.testing.assert_array_equal(other.theta, theta)
    assert "Point(" in repr(at)


def test_em_goes_through_no_chart():
    class NoChart:
        def __getattr__(self, name):
            raise AssertionError(f"{name} of a chart was used")

    for case in SMALL:
        objective = case.objective()
        objective.coordinates = NoChart()
        e = objective.evaluate(Point(NoChart(), params=case.start(case.objective()).params))
        for _ in range(3):
            e = objective.evaluate(e.em_point)
            assert e.gain >= 0


def test_a_point_is_a_copy_of_theta():
    objective = SMALL[0].objective()
    theta = SMALL[0].start(objective).theta.copy()
    at = objective.point(theta)
    theta[:] = 0
    assert at.theta.any()
    assert theta.flags.writeable


def test_theta_of_the_wrong_shape_is_refused():
    objective = SMALL[0].objective()
    for theta in (np.zeros(objective.size + 1), np.zeros((objective.size, 1)), 0.0):
        with pytest.raises(ValueError, match=rf"theta must have shape \({objective.size},\), got"):
            objective.point(theta)


# The gain


def with_another_q(change):
    """Return an evaluation for which q at the EM point is another by `change`."""
    objective = SMALL[0].objective()
    exact = objective.q

    def q(at, stats):
        return exact(at, stats) + (change if at is not start.point else 0.0)

    start = objective.evaluate(SMALL[0].somewhere(objective))
    objective.q = q
    return start


def test_a_fall_of_q_within_rounding_is_a_gain_of_0():
    rise = with_another_q(0.0).gain
    assert rise > 0
    e = with_another_q(-rise - 1e-15)
    assert e.gain == 0
    assert e.objective.passes == 1


@pytest.mark.parametrize(
    ("change", "status"), [(-10.0, Status.DECREASED), (math.nan, Status.NON_FINITE), (math.inf, Status.NON_FINITE)]
)
def test_a_gain_that_is_none_breaks_down(change, status):
    e = with_another_q(change)
    for _ in range(2):
        with pytest.raises(Breakdown) as caught:
            e.gain
        assert (caught.value.failure.status, caught.value.failure.where) == (status, "M-step")


# P


@every_case
def test_preconditioned_gradient_is_the_em_step_but_for_covariances(case):
    objective = case.objective(coordinates="original")
    at = case.somewhere(objective)
    e = objective.evaluate(at)
    step, em = e.precondition(e.gradient), e.em_point.theta - at.theta
    slices = objective.coordinates.slices
    for name in set(slices) - {"covariances", "covariance", "variances", "variance", "noise"}:
        np.testing.assert_allclose(step[slices[name]], em[slices[name]], rtol=0, atol=1e-12)
    assert step @ e.gradient > 0


@every_case
def test_preconditioning_is_linear_symmetric_and_positive(case):
    for coordinates in ("free", "original"):
        objective = case.objective(coordinates=coordinates)
        at, rng = case.somewhere(objective), np.random.default_rng(0)
        e = objective.evaluate(at)
        if coordinates == "free":
            u, v = rng.normal(size=(2, objective.size))
        else:  # gradients are on the tangent there
            u, v = (e.gradient, objective.evaluate(case.somewhere(objective, seed=1)).gradient)
        pu, pv = e.precondition(u), e.precondition(v)
        np.testing.assert_allclose(e.precondition(2 * u - 3 * v), 2 * pu - 3 * pv, rtol=0, atol=1e-9 * np.abs([pu, pv]).max())
        size = abs(u @ pu) + abs(v @ pv) + 1e-300
        assert abs(u @ pv - v @ pu) <= 1e-10 * size
        assert min(u @ pu, v @ pv) > 0
        both = e.precondition(np.stack([u, v], axis=1)).T
        np.testing.assert_allclose(both, [pu, pv], rtol=1e-12, atol=1e-13 * np.abs([pu, pv]).max())


@every_case
@pytest.mark.parametrize("coordinates", ["free", "original"])
def test_p_is_positive_definite_on_the_tangent(case, coordinates):
    objective = case.objective(coordinates=coordinates)
    at = case.somewhere(objective)
    e = objective.evaluate(at)
    basis = tangent(objective, at)
    P = basis.T @ np.stack([e.precondition(v) for v in basis.T], axis=1)
    assert len(P) > 0
    np.testing.assert_allclose(P, P.T, rtol=0, atol=1e-10 * np.abs(P).max())
    directions = np.random.default_rng(0).normal(size=(12, len(P)))
    products = np.einsum("mi,ij,mj->m", directions, P, directions)
    units = np.sqrt(np.diag(P))  # of parameters of different scales
    assert products.min() > 0
    assert np.linalg.eigvalsh(P / units / units[:, None])[0] > 1e-9


@every_case
def test_preconditioned_gradient_is_the_em_step_near_a_maximum(case):
    objective = case.objective()
    em_step_is_preconditioned_gradient(objective, case.start(objective))


# Failures


@every_gaussian_model
def test_a_bad_row_is_named_by_its_index_in_the_whole_data(case):
    X = case.X.copy()
    X[97] = 1e200
    w = np.ones(len(X))
    w[97] = 0
    bound = case.build().bind(as_source(case.X))
    at = bound.start(as_source(case.X, block_rows=len(X)).block(0), case.resp(bound.k))
    for block_rows in (None, 10, 98):
        objective = ModelObjective(bound, as_source(X, block_rows=block_rows), n_threads=1)
        e = objective.evaluate(objective.point_of(at))
        assert e.value == -math.inf
        assert e.failure.status is Status.NON_FINITE
        assert e.failure.where == "row 97"
        assert e.stats is None
        with pytest.raises(Breakdown):
            _ = e.gradient
        dropped = ModelObjective(bound, as_source(X, w, block_rows=block_rows), n_threads=1)
        assert math.isfinite(dropped.evaluate(dropped.point_of(at)).value)


def test_points_outside_are_values_not_errors():
    objective = SMALL[0].objective(coordinates="original")
    theta = SMALL[0].start(objective).theta.copy()
    theta[objective.coordinates.slices["weights"]] = [-0.1, 0.6, 0.5]
    e = objective.evaluate(theta)
    assert e.value == -math.inf
    assert e.failure.status is Status.OUTSIDE
    assert e.failure.where == "weights"
    assert objective.passes == 0


# Arguments


@pytest.mark.parametrize("n_threads", [0, -1])
def test_n_threads_must_be_positive(n_threads):
    with pytest.raises(ValueError, match=f"n_threads must be >= 1, got {n_threads}"):
        SMALL[0].objective(n_threads=n_threads)


@pytest.mark.parametrize("n_threads", [1.5, "2", True])
def test_n_threads_must_be_a_whole_number(n_threads):
    with pytest.raises(TypeError, match="n_threads must be a whole number >= 1, got"):
        SMALL[0].objective(n_threads=n_threads)


def test_binding_is_done_once():
    case = SMALL[0]
    bound = case.build().bind(case.source())
    objective = ModelObjective(bound, case.source())
    assert objective.model is bound
    assert not case.build().bound


def test_hessian_products_are_refused_where_they_are_not_provided():
    objective = SMALL[0].objective()
    e = objective.evaluate(SMALL[0].start(objective))
    assert "tangent" in objective.capabilities
    objective.capabilities -= {"tangent"}
    with pytest.raises(ValueError, match="does not provide Hessian products"):
        objective.hvp(e, np.eye(objective.size))
    with pytest.raises(ValueError, match="does not provide Hessian products"):
        objective.q_hvp(e.point, e.stats, np.eye(objective.size))


def test_repr_says_what_it_is():
    text = repr(SMALL[0].objective())
    assert text.startswith("ModelObjective(GaussianMixture(")
    assert "0 passes" in text


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_what_has_no_share_brings_no_noise(covariance):
    """An all but singular covariance counts in the noise of the value by no more than the share of its component."""
    X = np.random.default_rng(0).normal(size=(200, 2))
    objective = ModelObjective(GaussianMixture(2, covariance, reg=0.0), as_source(X))
    narrow, start = np.diag([1.0, 1e-10]), {"means": np.zeros((2, 2))}
    start["covariances"] = np.stack([np.eye(2), narrow]) if covariance == "full" else narrow
    noises = {}
    for share in (0.5, 1e-9, 1e-14):
        params = objective.model.from_user(start | {"weights": [1.0 - share, share]})
        noises[share] = objective.evaluate(objective.point_of(params)).noise
    if covariance == "tied":  # all share it
        assert noises[1e-14] == noises[0.5] > 1e-7
    else:
        assert noises[0.5] > 1e-7
        assert noises[1e-9] == pytest.approx(1e-9, rel=1e-6)
        assert noises[1e-14] < 1e-12
