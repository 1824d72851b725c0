"""Passes of many columns and many components, up to a thousand, against the NumPy oracle."""

from functools import cache

import numpy as np
import pytest
from cases import threads_start
from reference import gmm

from emcore.data import as_source
from emcore.models import GaussianMixture
from emcore.objective import ModelObjective

CASES = [
    *((kind, d, k) for d, k in ((1000, 2), (256, 8), (2, 1000)) for kind in ("full", "tied", "diag", "spherical")),
    ("diag", 1000, 100),
]
every_case = pytest.mark.parametrize(("kind", "d", "k"), CASES, ids=lambda part: str(part))


@cache
def mixture(kind, d, k):
    """Return weights, means and covariances of a mixture, and float32 rows of it."""
    rng, n = np.random.default_rng((d, k)), max(600, k + 200)  # rows enough to be sorted, few enough for the oracle
    means = 4.0 * rng.normal(size=(k, d)) / np.sqrt(d) + 2.0
    weights, component = rng.dirichlet(np.full(k, 5.0)), np.arange(n) % k
    E = rng.normal(size=(n, d))
    if kind in ("full", "tied"):
        m = k if kind == "full" else 1
        A = np.eye(d) + 0.3 * np.tril(rng.normal(size=(m, d, d)), -1) / np.sqrt(d)
        covariances = A @ A.transpose(0, 2, 1)
        E = np.stack([A[c % m] @ e for c, e in zip(component, E, strict=True)])
        return weights, means, covariances[0] if kind == "tied" else covariances, (means[component] + E).astype(np.float32)
    variances = rng.uniform(0.5, 2.0, size=(k, d if kind == "diag" else 1))
    E *= np.sqrt(variances[component])
    return weights, means, variances if kind == "diag" else variances[:, 0], (means[component] + E).astype(np.float32)


def problem(kind, d, k, dtype, times=1, **options):
    """Return an objective on so many times the rows, and a point near the parameters that they are from."""
    weights, means, covariances, X = mixture(kind, d, k)
    X = np.tile(X, (times, 1))
    model = GaussianMixture(k, kind, **options)
    objective = ModelObjective(model, as_source(X.astype(dtype)), n_threads=1)
    start = {"weights": weights, "means": means, "covariances": covariances}
    return objective, objective.point_of(objective.model.from_user(start))


@cache
def answer(kind, d, k):
    """Return the mean log-density, the statistics of the pass and the sums of their absolute terms."""
    objective, at = problem(kind, d, k, np.float64)
    frame, (weights, means, covariances) = objective.model.emission.frame, at.params
    Z = (mixture(kind, d, k)[3].astype(float) - frame.shift) * frame.scale
    if kind in ("full", "tied"):
        logp = gmm.log_density(Z, means, gmm.expand(kind, covariances, k, d))
    else:  # without matrices: a hundred of a thousand columns are too many
        variances = np.broadcast_to(covariances.reshape(k, -1), (k, d))
        logp = np.stack([gmm.log_density_diag(Z, m, v) for m, v in zip(means, variances, strict=True)], axis=1)
    resp, rows = gmm.posterior(logp + np.log(frame.scale).sum(), weights)
    values, sizes = gmm.statistics(Z, np.ones(len(Z)), resp, means, kind)
    return rows.mean(), np.concatenate([values[:k], values]), np.concatenate([sizes[:k], sizes])


@every_case
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_pass_is_the_oracles(kind, d, k, dtype, target):
    objective, at = problem(kind, d, k, dtype)
    e = objective.evaluate(at)
    value, statistics, size = answer(kind, d, k)
    assert e.value == pytest.approx(value, rel=1e-13)
    assert np.all(np.abs(e.stats.vector - statistics) <= 1e-11 * (size + 1e-3))


# A thousand components side by side in two columns: their means are too far from the origin for six digits, in their units.
@pytest.mark.parametrize(("kind", "d", "k"), [case for case in CASES if case[1] > 2], ids=lambda part: str(part))
def test_a_pass_in_lanes_of_float32_is_the_oracles_to_six_digits(kind, d, k, single_target):
    objective, at = problem(kind, d, k, "float32", single=True)
    e = objective.evaluate(at)
    value, statistics, size = answer(kind, d, k)
    digits = 1e-6 if d < 200 else 5e-6  # log-densities are as large as there are columns
    assert e.value == pytest.approx(value, rel=1e-7)
    assert np.all(np.abs(e.stats.vector - statistics) <= digits * (size + 1e-3))
    assert objective.model.kernel(at.params).single
    assert np.any(e.stats.vector != problem(kind, d, k, "float32")[0].evaluate(at).stats.vector)  # in float64


@every_case
def test_threads_change_no_bit(kind, d, k):
    objective, at = problem(kind, d, k, np.float64, times=9)
    assert threads_start(objective, at)
    one = objective.evaluate(at)
    objective.n_threads = 2
    two = objective.evaluate(at)
    assert two.value == one.value
    np.testing.assert_array_equal(two.stats.vector, one.stats.vector)
