"""Mixtures of Gaussians for the tests of their fused pass: which shapes, how far apart, sparse and dense."""

from functools import cache

import numpy as np
import pytest
from reference import gmm

import emcore.kernels as kernels
from emcore.data import Block, as_source
from emcore.models import COVARIANCES, GaussianMixture
from emcore.objective import ModelObjective

N = 6000
SHAPES = [(5, 3), (6, 16), (8, 4), (13, 5), (16, 8), (33, 6)]  # columns, components
SPREADS = {"separated": 6.0, "close": 1.0}

EXACT = "tied, not whitened"
every_covariance = pytest.mark.parametrize("kind", COVARIANCES)
every_pass = pytest.mark.parametrize("kind", [*COVARIANCES, EXACT])
every_shape = pytest.mark.parametrize(("d", "k"), SHAPES, ids=lambda n: str(n))
every_spread = pytest.mark.parametrize("spread", SPREADS)


def rows(d, k, spread, n=N, seed=0):
    """Return rows (n, d) around k means, and the means."""
    rng = np.random.default_rng((seed, d, k))
    means = SPREADS[spread] * rng.normal(size=(k, d)) / np.sqrt(d)
    A = np.eye(d) + 0.3 * np.tril(rng.normal(size=(k, d, d)), -1) / np.sqrt(d)
    component = rng.integers(k, size=n)
    return means[component] + 0.5 * np.einsum("nij,nj->ni", A[component], rng.normal(size=(n, d))), means


@cache
def problem(kind, d, k, spread):
    """Return an objective, a point at which components are about right, and the rows."""
    X, means = rows(d, k, spread)
    objective = ModelObjective(GaussianMixture(k, kind.split(",")[0]), as_source(X), n_threads=1)
    nearest = np.argmin(((X[:, None] - means) ** 2).sum(axis=2), axis=1)
    resp = 0.98 * np.eye(k)[nearest] + 0.02 / k
    params = objective.model.start(objective.source.block(0), resp[: len(objective.source.block(0).rows[0])])
    return objective, params, X


def sparse_and_dense(kind, d, k, spread):
    objective, params, X = problem(kind, d, k, spread)
    # A small problem does not prepare shortcuts by itself.
    objective.model.emission._large = True
    kernel = objective.model.kernel(params)
    assert kernel.threshold == pytest.approx(37 + np.log(N))
    assert kernel.white == (kind.startswith("tied") and d > 3)
    if kind == EXACT:
        kernel = exact(objective, params, kernel)
    return kernel, kernel.dense(), X


def exact(objective, params, kernel):
    """Return the kernel that sorts the rows instead of whitening them once."""
    emission, (latent, own) = objective.model.emission, objective.model._parts(params)
    shortcuts = emission._shortcuts(kernels.log_weights(latent.weights), own, emission._factors(own.covariances)[0])
    return kernel.replace(white=False, **shortcuts)


def each_row(kernel, X):
    resp, row_loglik = np.zeros((len(X), kernel.k)), np.zeros(len(X))
    kernels.run(kernel, Block((X,)), resp=resp, row_loglik=row_loglik)
    return resp, row_loglik


def sizes(objective, params, kind, X, weights):
    """Return the sums of the absolute terms of the statistics."""
    frame, k, kind = objective.model.emission.frame, objective.model.k, kind.split(",")[0]
    Z = (X - frame.shift) * frame.scale
    sigmas = gmm.expand(kind, params.covariances, k, Z.shape[1])
    resp, _ = gmm.posterior(gmm.log_density(Z, params.means, sigmas), params.weights)
    _, size = gmm.statistics(Z, weights, resp, params.means, kind)
    return np.concatenate([size[:k], size])
