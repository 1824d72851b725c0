"""Nine digits against a 50-digit reference, where naive formulas have none left.

The reference starts from the float64 rows and the float64 parameters (in frame units) that the library holds, taken exactly.
Sums that cancel are measured against the sum of their absolute terms.
"""

from functools import cache

import numpy as np
import pytest
from reference import precise

from emcore.data import as_source
from emcore.models import COVARIANCES, GaussianMixture
from emcore.objective import ModelObjective
from emcore.result import rounding

DIGITS = 9


def rows(k, d, n, apart, shift, seed=0):
    """Return rows of k correlated components of about unit variance, `apart` from each other, and their components."""
    rng = np.random.default_rng(seed)
    component = np.arange(n) % k
    centres = apart * np.linspace(-1, 1, k)[:, None] * rng.choice([-1.0, 1.0], size=(k, d)) if k > 1 else np.zeros((1, d))
    A = np.eye(d) + 0.4 * np.tril(rng.normal(size=(k, d, d)), -1)
    X = centres[component] + np.einsum("nij,nj->ni", A[component], rng.normal(size=(n, d)))
    return X + shift * rng.choice([-1.0, 1.0], size=d), component


# k, d, distance between components, shift of all rows, floor: in standard deviations of a component
HARD = {
    "near": (2, 3, 2.0, 0.0, 1e-6),
    "far from the origin": (2, 3, 2.0, 1e8, 1e-6),
    "one component far from the origin": (1, 2, 0.0, 1e8, 1e-6),
    "as far apart as rows are whitened": (3, 5, 18.0, 0.0, 1e-6),
    "farther apart": (3, 5, 80.0, 0.0, 1e-6),
    "components far apart": (3, 3, 1e6, 0.0, 1e-18),
    "far from the origin and apart": (2, 2, 1e6, 1e8, 1e-18),
}


@cache
def both(kind, name, weighted):
    """Return the library's evaluation and score, and the reference's pass, at the same parameters."""
    k, d, apart, shift, reg = HARD[name]
    X, component = rows(k, d, 120, apart, shift)
    rng = np.random.default_rng(1)
    w = rng.choice([0.0, 0.25, 1.0, 3.7], size=len(X)) if weighted else None
    objective = ModelObjective(GaussianMixture(k, kind, reg=reg), as_source(X, w), coordinates="original", n_threads=1)
    resp = np.full((len(X), k), 0.05)
    resp[np.arange(len(X)), component] = 1.0
    if apart > 100:
        resp = np.eye(k)[component]
    params = objective.model.start(objective.source.block(0), resp / resp.sum(axis=1, keepdims=True))
    # A little off the fixed point, within the components' own spread.
    spread = np.sqrt(np.abs(params.covariances)).min()
    params = params._replace(means=params.means + 0.1 * spread * rng.normal(size=params.means.shape))
    evaluation = objective.evaluate(objective.point_of(params))
    assert evaluation.failure is None
    frame = objective.model.emission.frame
    weights = np.ones(len(X)) if w is None else w
    reference = precise.Pass(kind, X, weights, frame.shift, frame.scale, *params)
    return objective, evaluation, reference


every_hard_case = pytest.mark.parametrize("name", HARD)
every_covariance = pytest.mark.parametrize("kind", COVARIANCES)
with_and_without_weights = pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])


@every_hard_case
@every_covariance
@with_and_without_weights
def test_log_likelihood(kind, name, weighted):
    objective, e, reference = both(kind, name, weighted)
    assert precise.digits([e.value * objective.weight], [reference.loglik], [reference.loglik_abs]) >= 12
    assert e.scale * objective.weight == pytest.approx(float(reference.loglik_abs), rel=1e-12)


@every_hard_case
@every_covariance
@with_and_without_weights
def test_statistics(kind, name, weighted):
    objective, e, reference = both(kind, name, weighted)
    emission = e.stats.vector[objective.model.latent.layout.size :]
    assert precise.digits(emission, reference.statistics, reference.statistics_abs) >= DIGITS


@every_hard_case
@every_covariance
@with_and_without_weights
def test_gradient(kind, name, weighted):
    objective, e, reference = both(kind, name, weighted)
    score = objective.model.score(e.point.params, e.stats)
    assert precise.digits(np.concatenate([g.ravel() for g in score]), reference.gradient, reference.gradient_abs) >= DIGITS
    k = objective.model.k
    tangent = np.array([float(g) for g in reference.gradient]) / objective.weight
    tangent[:k] -= tangent[:k].mean()
    size = np.array([float(g) for g in reference.gradient_abs]) / objective.weight
    size[:k] = size[:k].max()
    assert np.all(np.abs(e.gradient - tangent) <= 10.0**-DIGITS * size)


@every_hard_case
@every_covariance
def test_em_still_climbs(kind, name):
    objective, e, _ = both(kind, name, True)
    for _ in range(5):
        new = objective.evaluate(e.em_point)
        assert new.value >= e.value - rounding(e.scale)
        e = new


@every_hard_case
def test_rows_are_whitened_where_it_costs_no_digit(name):
    objective, e, _ = both("tied", name, False)
    assert objective.model.kernel(e.point.params).white == (name == "as far apart as rows are whitened")


def test_the_reference_is_precise_enough_to_tell():
    """A pass of raw moments, as one would write it without thought, is found out."""
    X, _ = rows(2, 3, 120, 2.0, 1e8)
    mean = X.mean(axis=0)
    naive = np.diagonal(X.T @ X) - len(X) * mean**2
    exact = precise.exact(X)
    with precise.mp.workdps(precise.DIGITS):
        centre = precise.exact(mean)
        want = [precise.mp.fsum([(row[j] - centre[j]) ** 2 for row in exact]) for j in range(3)]
    assert precise.digits(naive, want, want) < 1
    assert precise.digits(((X - mean) ** 2).sum(axis=0), want, want) > DIGITS
