"""What a fused pass leaves out cannot be seen: dense and sparse agree to rounding, and rows do so to the last bit."""

import numpy as np
import pytest
from cases import one_pass
from fused import (
    EXACT,
    each_row,
    every_covariance,
    every_pass,
    every_shape,
    every_spread,
    exact,
    problem,
    rows,
    sizes,
    sparse_and_dense,
)

import emcore.solvers
from emcore.data import as_source
from emcore.models import GaussianMixture
from emcore.objective import ModelObjective
from emcore.result import Stop
from emcore.solve import solve


@every_pass
@every_shape
@every_spread
@pytest.mark.parametrize("rows", ["float64", "float64 weighted", "float32 weighted"])
def test_dense_and_sparse_agree_to_rounding(kind, d, k, spread, rows, target):
    sparse, dense, X = sparse_and_dense(kind, d, k, spread)
    dtype, _, weighted = rows.partition(" ")
    X = X.astype(dtype)
    objective, params, _ = problem(kind, d, k, spread)
    weights = np.random.default_rng(1).choice([0.0, 0.5, 1.0, 3.0], size=len(X)) if weighted else None
    a, left = one_pass(sparse, X, weights)
    b, full = one_pass(dense, X, weights)
    assert abs(a.loglik - b.loglik) <= 1e-14 * b.scale
    assert a.scale == pytest.approx(b.scale, rel=1e-14)
    size = sizes(objective, params, kind, X, np.ones(len(X)) if weights is None else weights)
    assert np.all(np.abs(left - full) <= 1e-13 * size + 1e-300 + len(X) * np.exp(-sparse.threshold))


@every_pass
@every_spread
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_come_out_the_same_bits_whatever_is_skipped_and_wherever_they_stand(kind, spread, dtype, target):
    sparse, dense, X = sparse_and_dense(kind, 13, 5, spread)
    X = X.astype(dtype)
    unsorted = sparse.replace(guess=None, directions=None)
    resp, row_loglik = each_row(sparse, X)
    for kernel, first in ((unsorted, 0), (sparse, 17), (unsorted, 1000), (sparse, 5900)):
        again, row_again = each_row(kernel, X[first:])
        np.testing.assert_array_equal(again, resp[first:])
        np.testing.assert_array_equal(row_again, row_loglik[first:])
    complete, _ = each_row(dense, X)
    assert np.all(complete[resp == 0] < np.exp(-sparse.threshold) * (1 + 1e-9))
    if spread == "separated":
        assert (resp == 0).mean() > 0.5


@every_pass
@every_spread
def test_threads_change_no_bit(kind, spread, target):
    sparse, _, X = sparse_and_dense(kind, 16, 8, spread)
    X = np.concatenate([X] * 4)
    one, stats = one_pass(sparse, X)
    for n_threads in (2, 3):
        many, same = one_pass(sparse, X, n_threads=n_threads)
        assert many == one
        np.testing.assert_array_equal(same, stats)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_layouts_change_no_bit(kind, target):
    sparse, _, X = sparse_and_dense(kind, 13, 5, "separated")
    sums, stats = one_pass(sparse, X)
    wide = np.zeros((len(X), 20))
    wide[:, 3:16] = X
    for same in (np.asfortranarray(X), wide[:, 3:16], np.repeat(X, 2, axis=0)[::2], X[:, ::-1].copy()[:, ::-1]):
        again, stats_again = one_pass(sparse, same)
        assert again == sums
        np.testing.assert_array_equal(stats_again, stats)
    single = X.astype(np.float32)
    np.testing.assert_array_equal(one_pass(sparse, single.astype(float))[1], one_pass(sparse, np.asfortranarray(single))[1])


def test_rows_without_weight_may_hold_anything(target):
    sparse, _, X = sparse_and_dense("full", 13, 5, "separated")
    weights = np.ones(len(X))
    weights[::7] = 0.0
    sums, stats = one_pass(sparse, X, weights)
    for value in (np.inf, 1e300):
        strange = X.copy()
        strange[::7] = value
        again, same = one_pass(sparse, strange, weights)
        assert np.isfinite(same).all()
        assert again.loglik == pytest.approx(sums.loglik, rel=1e-13)
        np.testing.assert_allclose(same, stats, rtol=1e-9, atol=1e-9)


def test_a_starved_component_lives_on_what_was_dropped(target):
    """A component whose count is far below the smallest responsibility that is kept comes back as in a dense pass."""
    X, _ = rows(8, 4, "separated")
    objectives = [ModelObjective(GaussianMixture(4, sparse=s), as_source(X), n_threads=1) for s in (True, False)]
    covariances = np.tile(0.5 * np.eye(8), (4, 1, 1))
    means = np.concatenate([X[:3], np.full((1, 8), 7.0)])
    start = {"weights": np.full(4, 0.25), "means": means, "covariances": covariances}
    sparse, dense = (o.evaluate(o.point_of(o.model.from_user(start))) for o in objectives)
    assert objectives[0].passes == 1
    count = dense.stats.vector[3]
    assert 0 < count < 1e-20
    assert sparse.stats.vector[3] == pytest.approx(count, rel=1e-12)
    np.testing.assert_allclose(sparse.em_point.params.means, dense.em_point.params.means, rtol=1e-10)
    # A component that has no weight is no reason to look again.
    start["weights"] = np.array([0.5, 0.25, 0.25, 0.0])
    objective = objectives[0]
    kernel = objective.model.kernel(objective.model.from_user(start))
    assert kernel.retry(one_pass(kernel, X)[1], float(len(X))) is None


@pytest.mark.parametrize("solver", ["incremental", "online", "svrem"])
def test_a_starved_component_lives_on_in_pieces(solver):
    X, _ = rows(8, 4, "separated")
    covariances = np.tile(0.5 * np.eye(8), (4, 1, 1))
    start = {"weights": np.full(4, 0.25), "means": np.concatenate([X[:3], np.full((1, 8), 7.0)]), "covariances": covariances}
    ends = []
    for sparse in (True, False):
        objective = ModelObjective(GaussianMixture(4, sparse=sparse), as_source(X), n_threads=1)
        at = objective.point_of(objective.model.from_user(start))
        ends.append(solve(objective, emcore.solvers.get(solver), at, stop=Stop(gain=0, max_passes=30)).point.params)
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    assert ends[1].weights[3] > 1e-5  # it has found a row


def test_a_row_far_from_all_components_shows_in_the_moments_as_far_as_is_said(target):
    """A responsibility just below the threshold is nothing beside a count, but times the square of a long way it is."""
    n, far = 200, 1e5
    X = np.random.default_rng(0).normal(size=(n, 2)) + np.where(np.arange(n)[:, None] % 2, [5.0, 0.0], [-5.0, 0.0])
    threshold = 37 + np.log(n)
    X[0] = [1.02 * threshold / 10.0, far]  # 10 times the first column is the difference of the log-densities
    mixture = [0.5, 0.5], [[-5.0, 0.0], [5.0, 0.0]], np.tile(np.eye(2), (2, 1, 1))
    start = dict(zip(("weights", "means", "covariances"), mixture, strict=True))
    sums = []
    for sparse in (True, False):
        objective = ModelObjective(GaussianMixture(2, reg=0.0, sparse=sparse), as_source(X), n_threads=1)
        e = objective.evaluate(objective.point_of(objective.model.from_user(start)))
        view, scale = objective.model.layout.view, objective.model.emission.frame.scale
        sums.append((view(e.stats.vector, "emission.count")[0], view(e.stats.vector, "emission.second")[0, 2] / scale[1] ** 2))
    (count, moment), (all_count, all_moments) = sums
    assert count == pytest.approx(all_count, rel=1e-15)
    assert 1e3 * np.finfo(float).eps < (all_moments - moment) / all_moments < np.exp(-threshold) * far**2 / count


@every_pass
def test_a_starved_component_alone_is_kept_whole(kind, target):
    objective, params, X = problem(kind, 13, 5, "separated")
    means = params.means.copy()
    means[3] += 2.5
    params = params._replace(means=means)
    kernel = objective.model.kernel(params)
    if kind == EXACT:
        kernel = exact(objective, params, kernel)
    _, first = one_pass(kernel, X)
    again = kernel.retry(first, float(len(X)))
    assert again.whole == (3,)
    assert again.retry(np.maximum(first, 1.0), float(len(X))) is None
    _, stats = one_pass(again, X)
    _, full = one_pass(kernel.dense(), X)
    assert 0 < full[3] < 1e-12
    assert first[3] < 0.5 * full[3]
    np.testing.assert_allclose(stats[[3, 8, 13]], full[[3, 8, 13]], rtol=1e-12)
    np.testing.assert_allclose(stats[15 + 3 * 13 : 15 + 4 * 13], full[15 + 3 * 13 : 15 + 4 * 13], rtol=1e-11)
    size = sizes(objective, params, kind, X, np.ones(len(X)))
    assert np.all(np.abs(stats - full) <= 1e-13 * size + len(X) * np.exp(-kernel.threshold))
    resp, _ = each_row(again, X)
    assert (resp[:, 3] > 0).mean() > 0.9
    assert (np.delete(resp, 3, axis=1) == 0).mean() > 0.5


@every_covariance
def test_the_switch_turns_it_off(kind, target):
    objective, params, X = problem(kind, 8, 4, "separated")
    full = ModelObjective(GaussianMixture(4, kind, sparse=False), as_source(X), n_threads=1)
    kernel = full.model.kernel(params)
    assert kernel.threshold == np.inf
    assert kernel.retry(np.zeros(kernel.n_stats), 1.0) is None
    resp, _ = each_row(kernel, X)
    assert (resp > 0).mean() > (each_row(objective.model.kernel(params), X)[0] > 0).mean()
    assert "sparse=False" in repr(full.model)
