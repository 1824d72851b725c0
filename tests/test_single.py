"""float32 rows in float32 lanes: six digits against float64, fewer never, and only where parameters and rows allow it."""

import numpy as np
import pytest
from cases import one_pass
from fused import (
    each_row,
    every_covariance,
    every_pass,
    every_shape,
    every_spread,
    problem,
    rows,
    sizes,
    sparse_and_dense,
)

import emcore.kernels as kernels
from emcore.data import as_source
from emcore.models import GaussianMixture
from emcore.objective import ModelObjective
from emcore.solve import solve
from emcore.solvers import EM

needs_lanes = pytest.mark.usefixtures("single_target")


def kernel_of(kind, d, k, spread, *, single=True, **options):
    kernel, _, X = sparse_and_dense(kind, d, k, spread)
    return kernel.replace(single=single, **options), X


@every_pass
@every_shape
@every_spread
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_six_digits(kind, d, k, spread, weighted, target):
    kernel, X = kernel_of(kind, d, k, spread)
    exact, _ = kernel_of(kind, d, k, spread, single=False)
    X = X.astype(np.float32)
    weights = np.random.default_rng(1).choice([0.0, 0.5, 1.0, 3.0], size=len(X)) if weighted else None
    a, coarse = one_pass(kernel, X, weights)
    b, fine = one_pass(exact, X, weights)
    objective, params, _ = problem(kind, d, k, spread)
    size = sizes(objective, params, kind, X.astype(float), np.ones(len(X)) if weights is None else weights)
    assert abs(a.loglik - b.loglik) <= 1e-7 * b.scale
    assert a.scale == pytest.approx(b.scale, rel=1e-7)
    assert a.weight == b.weight
    assert np.all(np.abs(coarse - fine) <= 1e-6 * size + 1e-30 + len(X) * np.exp(-exact.threshold))
    np.testing.assert_array_equal(fine, one_pass(exact, X.astype(float), weights)[1])
    assert np.any(coarse != fine) == kernels.single_lanes()


@needs_lanes
@every_pass
@every_spread
def test_what_lanes_skip_cannot_be_seen(kind, spread):
    """Nor that they skip: what they leave out is below the rounding of float32, whose lanes hold what is left."""
    kernel, X = kernel_of(kind, 13, 5, spread)
    dense = kernel.replace(threshold=np.inf, guess=None, directions=None)
    assert dense.single
    X = X.astype(np.float32)
    a, left = one_pass(kernel, X)
    b, full = one_pass(dense, X)
    objective, params, _ = problem(kind, 13, 5, spread)
    size = sizes(objective, params, kind, X.astype(float), np.ones(len(X)))
    assert abs(a.loglik - b.loglik) <= 1e-7 * b.scale
    assert np.all(np.abs(left - full) <= 1e-6 * size + len(X) * np.exp(-kernel.threshold))


@needs_lanes
@every_pass
def test_rows_keep_all_their_digits(kind):
    kernel, X = kernel_of(kind, 13, 5, "separated")
    exact, _ = kernel_of(kind, 13, 5, "separated", single=False)
    X = X.astype(np.float32)
    for a, b in zip(each_row(kernel, X), each_row(exact, X.astype(float)), strict=True):
        np.testing.assert_array_equal(a, b)


@needs_lanes
@every_pass
@every_spread
def test_threads_and_layouts_change_no_bit(kind, spread):
    kernel, X = kernel_of(kind, 16, 8, spread)
    X = np.concatenate([X] * 4).astype(np.float32)
    one, stats = one_pass(kernel, X)
    for same, n_threads in ((X, 2), (X, 3), (np.asfortranarray(X), 1), (np.repeat(X, 2, axis=0)[::2], 1)):
        again, stats_again = one_pass(kernel, same, n_threads=n_threads)
        assert again == one
        np.testing.assert_array_equal(stats_again, stats)


@needs_lanes
@pytest.mark.parametrize("what", ["far row", "heavy row", "light row"])
def test_panels_that_float32_cannot_hold_are_done_in_float64(what):
    kernel, X = kernel_of("full", 8, 4, "separated")
    exact, _ = kernel_of("full", 8, 4, "separated", single=False)
    X, weights = X[:2000].astype(np.float32), np.ones(2000)
    if what == "far row":
        X[77] = 1e12
    else:
        weights[77] = 1e60 if what == "heavy row" else 1e-60
    a, coarse = one_pass(kernel, X, weights)
    b, fine = one_pass(exact, X, weights)
    assert a == b
    np.testing.assert_array_equal(coarse, fine)


@needs_lanes
@every_covariance
def test_parameters_decide(kind):
    X, _ = rows(6, 3, "close")
    near = ModelObjective(GaussianMixture(3, kind, single=True), as_source(X.astype(np.float32)))
    resp = np.random.default_rng(0).dirichlet(np.ones(3), size=len(X))
    params = near.model.start(near.source.block(0), resp)
    assert near.model.kernel(params).single
    assert near.coarseness(near.point_of(params)) > 0
    assert not near.model.kernel(params._replace(means=params.means + 1e3)).single
    assert near.coarseness(near.point_of(params._replace(means=params.means + 1e3))) == 0
    for model, data in ((GaussianMixture(3, kind, single=True), X), (GaussianMixture(3, kind), X.astype(np.float32))):
        double = ModelObjective(model, as_source(data))
        assert not double.model.kernel(params).single
        assert double.coarseness(double.point_of(params)) == 0


@needs_lanes
def test_what_float32_flushes_is_done_again_in_float64():
    kernel, X = kernel_of("full", 8, 4, "separated", threshold=np.inf, guess=None, directions=None)
    _, stats = one_pass(kernel, X.astype(np.float32))
    assert kernel.retry(stats, float(len(X))) is None
    stats[1] = 1e-30
    again = kernel.retry(stats, float(len(X)))
    assert not again.single
    assert again.threshold == np.inf


@every_covariance
@every_spread
def test_em_ends_well(kind, spread, target):
    X, means = rows(6, 3, spread)
    X = X.astype(np.float32)
    nearest = np.argmin(((X[:, None] - means) ** 2).sum(axis=2), axis=1)
    resp = 0.9 * np.eye(3)[nearest] + 0.1 / 3
    values = []
    for single in (True, False):
        objective = ModelObjective(GaussianMixture(3, kind, single=single), as_source(X), n_threads=1)
        result = solve(objective, EM(), objective.point_of(objective.model.start(objective.source.block(0), resp)))
        assert result.status.ok, str(result)
        values.append(result.value)
    assert values[0] == pytest.approx(values[1], rel=1e-5)
