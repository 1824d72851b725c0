"""Exact Hessian products against differences of the gradient and against a textbook, and what a pass of them is."""

import tracemalloc

import numpy as np
import pytest
from cases import CASES, GAUSSIAN, OTHERS, POISSON, SMALL, SMALL_PASS, in_force, threads_start
from derivatives import derivative
from reference import gmm

from emcore.data import Block, as_source
from emcore.kernels import (
    Coupled,
    GaussianDiag,
    GaussianTri,
    MissingInformation,
    Mixture,
    run,
    run_dot,
    whole_information,
)  # fmt: skip
from emcore.models import COVARIANCES, GaussianMixture, Model, Poisson, Positive
from emcore.models import Mixture as MixturePart
from emcore.models import _base as models_base
from emcore.models.gaussian import MatrixGaussian
from emcore.objective import ModelObjective
from emcore.result import Breakdown, Stop
from emcore.solve import solve
from emcore.solvers import EM

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_model = pytest.mark.parametrize("case", SMALL + OTHERS, ids=str)
both_coordinates = pytest.mark.parametrize("coordinates", ["free", "original"])


def directions(objective, at, m, seed=5):
    """Return random directions (p, m) on the tangent of the constraints, as long as the complete data's standard errors."""
    e, c = objective.evaluate(at), objective.coordinates
    V = np.random.default_rng(seed).normal(size=(objective.size, m))
    if c.kind == "original":
        V = np.stack([c.pull(at.theta, at.params, c.push(at.theta, at.params, v)) for v in V.T], axis=1)
    PV = np.stack([e.precondition(v) for v in V.T], axis=1)
    return PV / np.sqrt(np.maximum(np.einsum("pm,pm->m", V, PV), 1e-30))


def differenced(objective, at, v):
    """Return the derivative of the gradient along v by differences of sixth order."""
    return derivative(lambda t: objective.evaluate(at.theta + t * v).gradient, 3e-3, order=6)


def assert_products(objective, at, V, digits=1e-7):
    e = objective.evaluate(at)
    got = objective.hvp(e, V)
    expected = np.stack([differenced(objective, at, v) for v in V.T], axis=1)
    assert np.abs(got - expected).max() <= digits * max(1e-3, np.abs(expected).max())


def optimum(case, objective):
    return solve(objective, EM(), case.start(objective), stop=Stop(gain=1e-14)).point


@every_case
@both_coordinates
def test_products_are_derivatives_of_the_gradient(case, coordinates):
    objective = case.objective(coordinates=coordinates)
    at = case.somewhere(objective)
    assert_products(objective, at, directions(objective, at, 3))


@every_model
@both_coordinates
def test_products_are_derivatives_of_the_gradient_at_an_optimum(case, coordinates):
    objective = case.objective(coordinates=coordinates)
    at = optimum(case, objective)
    assert_products(objective, at, directions(objective, at, 3))


@every_case
@both_coordinates
def test_products_are_symmetric(case, coordinates):
    objective = case.objective(coordinates=coordinates)
    e = objective.evaluate(case.somewhere(objective))
    H = objective.hvp(e, np.eye(objective.size))
    assert np.abs(H - H.T).max() <= 1e-10 * np.abs(H).max()
    complete = objective.q_hvp(e.point, e.stats, np.eye(objective.size))
    assert np.abs(complete - complete.T).max() <= 1e-10 * np.abs(complete).max()


class OneRate(Positive):
    """A chart of somebody's, whose ways take one direction at a time."""

    def push(self, t, x, v):
        assert v.shape == (self.size,)
        return super().push(t, x, v)

    def pull(self, t, x, g):
        assert g.shape == self.shape
        return super().pull(t, x, g)


class OneByOne(Poisson):
    """A family of somebody's, whose verbs take one direction at a time."""

    @property
    def fields(self):
        return tuple(f._replace(chart=OneRate(f.shape)) for f in super().fields)

    def q_hvp(self, params, stats, v):
        assert v.rates.shape == params.rates.shape
        return super().q_hvp(params, stats, v)

    def metric(self, params, stats, g):
        assert g.rates.shape == params.rates.shape
        return super().metric(params, stats, g)


def test_what_takes_one_direction_at_a_time_gets_them_so():
    X, found = np.random.default_rng(0).poisson([2.0, 6.0], size=(40, 2)), []
    assert Poisson.several
    assert not any(kind.several for kind in (OneByOne, OneRate))
    for kind in (Poisson, OneByOne):
        objective = ModelObjective(Model(MixturePart(2), kind(2)), as_source(X))
        e = objective.evaluate(np.linspace(-1.0, 1.0, objective.size))
        unit = np.eye(objective.size)
        found.append((objective.hvp(e, unit), objective.q_hvp(e.point, e.stats, unit), e.precondition(unit)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14 * np.abs(ours).max())


@every_model
def test_one_pass_for_all_columns(case):
    objective = case.objective()
    e = objective.evaluate(case.somewhere(objective))
    V = np.random.default_rng(1).normal(size=(objective.size, 4))
    before = objective.passes
    H = objective.hvp(e, V)
    assert (objective.passes, objective.hessian_passes) == (before, 1)
    with objective.monitoring():
        columns = [objective.hvp(e, v) for v in V.T]
    assert (objective.passes, objective.hessian_passes, objective.monitor_passes) == (before, 1, 4)
    np.testing.assert_allclose(H, np.stack(columns, axis=1), rtol=1e-12, atol=1e-14 * np.abs(H).max())
    assert objective.q_hvp(e.point, e.stats, V).shape == V.shape
    assert objective.hessian_passes == 1
    assert objective.hvp(e, V[:, :0]).shape == (objective.size, 0)
    assert objective.hessian_passes == 1


@every_model
def test_products_do_not_depend_on_threads_or_blocks(case):
    size = len(case.X) * case.objective().model.layout.size
    rows = np.tile(np.arange(len(case.X)), max(200, SMALL_PASS // size + 1))
    w = np.random.default_rng(0).choice([0.0, 1.0, 2.5], size=len(rows))
    params, found = None, []
    for n_threads, block_rows in ((1, None), (2, None), (1, 7001)):
        source = as_source(case.rows(rows), w, block_rows=block_rows, missing=True)
        objective = ModelObjective(case.build(), source, n_threads=n_threads)
        params = case.somewhere(case.objective()).params if params is None else params
        at = objective.point_of(params)
        assert block_rows or threads_start(objective, at)
        e = objective.evaluate(at)
        found.append(objective.hvp(e, np.random.default_rng(2).normal(size=(objective.size, 3))))
    assert np.array_equal(found[0], found[1])
    np.testing.assert_allclose(found[2], found[0], rtol=1e-9, atol=1e-12 * np.abs(found[0]).max())


def test_products_on_every_target(target):
    for case in SMALL + OTHERS:
        objective = case.objective()
        at = case.somewhere(objective)
        V = directions(objective, at, 2)
        got = objective.hvp(objective.evaluate(at), V)
        with in_force("baseline"):
            expected = objective.hvp(objective.evaluate(at), V)
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@every_model
def test_the_complete_data_hessian_is_that_of_q(case):
    """Differences of the gradient of q at held statistics, at the point of the statistics and at another one."""
    objective = case.objective()
    e = objective.evaluate(case.somewhere(objective))
    v = directions(objective, e.point, 1)[:, 0]
    for at in (e.point, case.somewhere(objective, seed=1)):
        expected = derivative(lambda t, at=at: objective.gradient(objective.point(at.theta + t * v), e.stats), 1e-2, order=6)
        got = objective.q_hvp(at, e.stats, v)
        assert np.abs(got - expected).max() <= 1e-8 * np.abs(expected).max()


@every_model
def test_at_a_solution_the_metric_is_the_inverse_complete_information(case):
    objective = case.objective()
    e = objective.evaluate(optimum(case, objective))
    V = np.random.default_rng(3).normal(size=(objective.size, 3))
    PV = np.stack([e.precondition(v) for v in V.T], axis=1)
    np.testing.assert_allclose(-objective.q_hvp(e.point, e.stats, PV), V, rtol=0, atol=1e-4)


# The pass itself


def tangents_of(kind, X, params, v):
    """Return the responsibilities and their derivatives along a tangent by differences of the textbook's posterior."""

    def resp(h):
        weights, means, covariances = (x + h * u for x, u in zip(params, v, strict=True))
        sigmas = gmm.expand(kind, covariances, *means.shape)
        return gmm.posterior(gmm.log_density(X, means, sigmas), weights)[0]

    return derivative(resp, 1e-3, order=6)


@pytest.mark.parametrize("case", [case for case in SMALL if case in GAUSSIAN], ids=str)
def test_statistics_dot_are_the_oracles(case):
    objective = case.objective()
    model, kind = objective.model, objective.model.emission.covariance
    params = case.somewhere(objective).params
    rng = np.random.default_rng(4)
    tangents = []
    for _ in range(2):
        v = [0.1 * rng.normal(size=x.shape) * np.mean(np.abs(x)) for x in params]
        v[0] -= v[0].mean()
        if v[2].shape[-2:] == (2, 2):
            v[2] = v[2] + np.swapaxes(v[2], -1, -2)
        tangents.append(model.params(*v))
    w = rng.choice([0.0, 1.0, 2.5], size=len(case.X))
    dots = np.zeros((2, model.layout.size))
    done = run_dot(model.tangent_kernel(params, tangents), Block((case.X,), w, None), dots)
    assert done.weight == w.sum()
    frame = model.emission.frame
    Z = (case.X - frame.shift) * frame.scale
    for dot, v in zip(dots, tangents, strict=True):
        resp_dot = tangents_of(kind, Z, params, v)
        expected, _ = gmm.statistics(Z, w, resp_dot, params.means, kind)
        expected = np.concatenate([expected[: model.k], expected])
        np.testing.assert_allclose(dot, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("k", [3, 70])
def test_directions_in_any_number(k):
    """More than are computed at a time, some of which leave components alone."""
    rng = np.random.default_rng(7)
    X, m = rng.normal(size=(90, 2)), 60 // k + 5
    model = GaussianMixture(k).bind(as_source(X))
    params = model.params(np.full(k, 1 / k), rng.normal(size=(k, 2)), np.array([np.eye(2)] * k))
    tangents = []
    for _ in range(m):
        kept = rng.random(k) < 0.5
        V = rng.normal(size=(k, 2, 2)) * kept[:, None, None]
        tangents.append(model.params(rng.normal(size=k), rng.normal(size=(k, 2)) * kept[:, None], V + V.transpose(0, 2, 1)))
    block = Block((X,), None, None)
    together, alone = np.zeros((2, m, model.layout.size))
    run_dot(model.tangent_kernel(params, tangents), block, together)
    for v, dot in zip(tangents, alone, strict=True):
        run_dot(model.tangent_kernel(params, [v]), block, dot[None])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-13 * np.abs(alone).max())


@every_model
def test_scores_of_many_statistics_are_those_of_each(case):
    objective = case.objective()
    model, rng = objective.model, np.random.default_rng(0)
    e = objective.evaluate(case.somewhere(objective))
    vectors = e.stats.vector * rng.normal(size=(3, len(e.stats.vector)))
    together = model.linear_scores(e.point.params, e.stats, vectors)
    for i, vector in enumerate(vectors):
        alone = model.linear_score(e.point.params, e.stats._replace(vector=vector, weight=0.0))
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_allclose(all_of_them[i], one, rtol=1e-13, atol=1e-13 * np.abs(one).max(initial=0.0))


class HalfScore(MatrixGaussian):
    """A family of somebody's with a score of its own."""

    def score(self, params, stats):
        return self.params(*(0.5 * a for a in super().score(params, stats)))


class HalfWeights(MixturePart):
    """The same, a latent."""

    def score(self, params, stats):
        return self.params(0.5 * super().score(params, stats).weights)


def test_a_score_of_ones_own_is_that_of_many_statistics_too():
    objective = ModelObjective(Model(HalfWeights(2), HalfScore(2, "full", 1e-6)), as_source(GAUSSIAN[0].X))
    model, e = objective.model, objective.evaluate(np.linspace(-0.5, 0.5, objective.size))
    alone = model.linear_score(e.point.params, e.stats)
    for one, several in zip(alone, model.linear_scores(e.point.params, e.stats, e.stats.vector[None]), strict=True):
        np.testing.assert_allclose(several[0], one, rtol=1e-13)


@pytest.mark.parametrize("case", [case for case in SMALL if case in (*GAUSSIAN, *POISSON)], ids=str)
def test_many_directions_by_the_missing_information(case):
    """Summed once for all directions, or along each of them: the same derivatives."""
    objective = case.objective()
    X = np.concatenate([case.X] * 40)
    w = np.random.default_rng(0).choice([0.0, 1.0, 2.5], size=len(X))
    X = np.where(w[:, None] > 0, X, 0 if X.dtype.kind == "i" else np.inf)
    at = case.somewhere(objective)
    params = at.params._replace(weights=np.append(at.params.weights[:-2], [at.params.weights[-2:].sum(), 0.0]))
    tangents = [objective.coordinates.push(at.theta, at.params, v) for v in np.eye(objective.size)]
    kernel, block = objective.model.tangent_kernel(params, tangents), Block((X,), w, None)
    expected = np.zeros((len(tangents), objective.model.layout.size))
    run_dot(kernel, block, expected)
    summed, found = MissingInformation(kernel), []
    for n_threads in (1, 2):
        stats = np.zeros(summed.n_stats)
        assert run(summed, block, stats=stats, n_threads=n_threads).bad_row < 0
        found.append(summed.dots(stats))
        with pytest.raises(ValueError, match=f"stats must have shape .{summed.n_stats},., got .{summed.n_stats - 1},."):
            summed.dots(stats[1:])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    assert whole_information(kernel, 1) is None
    assert isinstance(whole_information(kernel, summed.n_stats), MissingInformation)


@every_model
def test_the_whole_hessian_is_its_columns(case):
    objective = case.objective()
    e = objective.evaluate(case.somewhere(objective))
    unit = np.eye(objective.size)
    columns = np.stack([objective.hvp(e, v) for v in unit], axis=1)
    np.testing.assert_allclose(objective.hvp(e, unit), columns, rtol=0, atol=1e-13 * np.abs(columns).max())


@every_model
@both_coordinates
def test_many_directions_are_dealt_with_some_at_a_time(case, coordinates, monkeypatch):
    objective = case.objective(coordinates=coordinates)
    e = objective.evaluate(case.somewhere(objective))
    unit, found = np.eye(objective.size), []
    for at_once in (models_base.AT_ONCE, 3 * sum(a.size for a in e.point.params), 1):
        monkeypatch.setattr(models_base, "AT_ONCE", at_once)
        objective.hessian_passes = 0.0
        found.append((objective.hvp(e, unit), objective.q_hvp(e.point, e.stats, unit), e.precondition(unit)))
        assert objective.hessian_passes == 1
    for more in found[1:]:
        for ours, theirs in zip(more, found[0], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13 * np.abs(theirs).max())


def test_second_derivatives_take_little_more_memory_than_they_fill():
    """Tangents of a thousand directions, each of as many numbers as there are parameters, are not held at once."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 15))
    objective = ModelObjective(GaussianMixture(12), as_source(X), n_threads=1)
    e = objective.evaluate(objective.point(0.1 * rng.normal(size=objective.size)))
    unit = np.eye(objective.size)
    for product in (objective.hvp, lambda e, V: objective.q_hvp(e.point, e.stats, V), lambda e, V: e.precondition(V)):
        tracemalloc.start()
        try:
            found = product(e, unit)
            assert tracemalloc.get_traced_memory()[1] < found.nbytes + 40_000_000
        finally:
            tracemalloc.stop()


def test_rows_without_weight_and_components_without_weight_add_nothing():
    rng = np.random.default_rng(6)
    X, w = rng.normal(size=(100, 2)), np.ones(100)
    X[7], w[7] = np.inf, 0.0
    X[8], w[8] = 1e200, 0.0
    model = GaussianMixture(2).bind(as_source(np.delete(X, [7, 8], axis=0)))
    params = model.params(np.array([1.0, 0.0]), np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([np.eye(2)] * 2))
    v = model.params(np.zeros(2), np.ones((2, 2)), np.array([np.eye(2)] * 2))
    dots = np.zeros((1, model.layout.size))
    run_dot(model.tangent_kernel(params, [v]), Block((X,), w, None), dots)
    assert np.array_equal(dots, np.zeros_like(dots))  # with one component responsibilities do not move
    objective = ModelObjective(model, as_source(np.delete(X, [7, 8], axis=0)), n_threads=1)
    e = objective.evaluate(objective.point_of(params))
    assert np.isfinite(objective.hvp(e, np.eye(objective.size))).all()


def test_what_does_not_fit_is_refused():
    case = SMALL[0]
    objective = case.objective()
    e = objective.evaluate(case.start(objective))
    p = objective.size
    for wrong in (np.zeros(p + 1), np.zeros((2, p)), np.zeros((p, 1, 1))):
        with pytest.raises(ValueError, match=r"V must have shape"):
            objective.hvp(e, wrong)
    part = objective.evaluate(e.point, blocks=objective.pieces(3)[:2])
    with pytest.raises(ValueError, match="at must be an evaluation of all the data"):
        objective.hvp(part, np.ones(p))
    with pytest.raises(ValueError, match="at must be an evaluation of all the data"):
        objective.score_products(part)
    kernel = objective.model.kernel(e.point.params)
    dots = np.zeros((1, kernel.n_stats))
    block = objective.source.block(0)
    with pytest.raises(ValueError, match="does not provide this pass"):
        run_dot(kernel, block, dots)
    with pytest.raises(ValueError, match="stats_dot must have shape"):
        run_dot(kernel, block, dots[:, 1:].copy())
    v = objective.coordinates.push(e.point.theta, e.point.params, np.ones(p))
    along = objective.model.tangent_kernel(e.point.params, [v])
    with pytest.raises(ValueError, match="does not provide this pass"):
        run_dot(along, block, np.zeros((2, kernel.n_stats)))  # built with one direction
    run(along, block, stats=np.zeros(kernel.n_stats))  # and an ordinary kernel all the same
    with pytest.raises(ValueError, match="tangents must have 2 columns"):
        Mixture(np.zeros(2), np.zeros((1, 3)))
    for kind, factors in ((GaussianTri, np.ones((2, 1))), (GaussianDiag, np.ones((2, 1)))):
        options = np.zeros((2, 1)), factors, np.zeros(2), np.zeros(1), np.ones(1)
        with pytest.raises(ValueError, match="tangents must have shapes"):
            kind(*options, tangents=(np.zeros((1, 2)), np.zeros((1, 2, 1)), np.zeros((1, 1, 1))))
    assert isinstance(along, Coupled)


def test_products_that_overflow_are_a_breakdown():
    objective = ModelObjective(GaussianMixture(2), as_source(np.linspace(-1.0, 1.0, 20)[:, None]), n_threads=1)
    params = objective.model.params(np.array([0.5, 0.5]), np.array([[-1.0], [1.0]]), np.ones((2, 1, 1)))
    e = objective.evaluate(objective.point_of(params))
    with pytest.raises(Breakdown, match="Hessian product"), np.errstate(all="ignore"):
        objective.hvp(e, np.full(objective.size, 1e308))


@pytest.mark.parametrize("kind", COVARIANCES)
def test_products_where_components_are_narrow_and_far_apart(kind):
    """Components of a thousandth of the data's spread: whitened residuals keep the digits that raw moments would lose."""
    rng = np.random.default_rng(8)
    X = np.concatenate([rng.normal(c, 1e-2, size=(60, 2)) for c in (-10.0, 10.0)] + [rng.normal(0, 10.0, size=(20, 2))])
    objective = ModelObjective(GaussianMixture(3, kind, reg=1e-9), as_source(X), n_threads=1)
    resp = np.repeat(np.eye(3), (60, 60, 20), axis=0)
    at = objective.point_of(objective.model.start(objective.source.block(0), resp))
    assert_products(objective, at, directions(objective, at, 3), digits=1e-6)
