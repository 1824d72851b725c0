"""What models draw: rows and states whose distribution is the one that their densities say."""

import re

import numpy as np
import pytest
from cases import INVERSE, OTHERS, SMALL
from scipy import stats

import emcore
from emcore.data import as_source
from emcore.kernels import run
from emcore.models import GaussianMixture, PoissonMixture
from emcore.objective import ModelObjective
from emcore.result import Stop

every_model = pytest.mark.parametrize("case", SMALL + OTHERS, ids=str)
N = 2000


def conditional(case):
    """Tell whether y is drawn given X."""
    return "RegressionMixture" in case.name or case in INVERSE


def given(case, n):
    """Return what draws of a case are conditional on: the covariates, or the totals of rows of its data."""
    if conditional(case):
        return {"X": np.resize(case.X, (n, case.X.shape[1]))}
    if "Multinomial" not in case.name:
        return {}
    return {"X": np.resize(case.X.sum(axis=1), (n, 1))}


def source(case, drawn):
    """Return what was drawn as data."""
    return as_source((given(case, len(drawn))["X"], drawn) if conditional(case) else drawn)


def drawn(case, n=N, seed=0):
    """Return parameters in the user's units that are nothing special, and rows and states drawn from them."""
    plain = case.objective()
    params = plain.model.to_user(case.somewhere(plain).params)
    return params, *case.build().sample(params, n, np.random.default_rng(seed), **given(case, n))


@every_model
def test_scores_of_what_is_drawn_average_to_zero(case):
    """By a chi-squared test that one seed in ten thousand fails."""
    params, X, _ = drawn(case)
    objective = ModelObjective(case.build(), source(case, X), n_threads=1)
    e = objective.evaluate(objective.point_of(objective.model.from_user(params)))
    squared = N * e.gradient @ np.linalg.solve(objective.score_products(e), e.gradient)
    assert stats.chi2(objective.size).ppf(1e-4) < squared < stats.chi2(objective.size).ppf(1 - 1e-4)


@pytest.mark.parametrize("case", [case for case in SMALL + OTHERS if case.build().k > 1], ids=str)
def test_states_are_those_of_the_rows(case):
    """The responsibility of the state drawn is, in expectation, the sum of the squared responsibilities."""
    params, X, states = drawn(case)
    model = case.build().bind(source(case, X))
    resp = np.empty((N, model.k))
    run(model.kernel(model.from_user(params)), source(case, X).block(0), resp=resp)
    surplus = resp[np.arange(N), states] - np.square(resp).sum(axis=1)
    assert abs(surplus.mean()) < 4 * surplus.std() / N**0.5
    assert resp[np.arange(N), states].mean() > 1.2 / model.k


@every_model
def test_draws_depend_on_parameters_and_seed_alone(case):
    params, X, states = drawn(case, 50)
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights, random_state=0, stop=Stop(gain=1e-3))
    for model, values in ((case.build(), params._asdict()), (found.model, params)):
        again, others = model.sample(values, 50, np.random.default_rng(0), **given(case, 50))
        for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (again, X)), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(others, states)
    rows, _ = found.sample(30, random_state=1, **given(case, 30))
    last = [r[-1] if isinstance(r, tuple) else r for r in (rows, *(found.sample(30, s, **given(case, 30))[0] for s in (1, 2)))]
    assert last[0].shape == ((30, case.X.shape[1]) if case.data is case.X else (30,))
    np.testing.assert_array_equal(last[0], last[1])
    assert not np.array_equal(last[0], last[2])
    assert np.isfinite(found.log_density(source(case, rows))).all()


def test_draws_in_units_far_apart():
    units = np.array([1e-30, 1.0, 1e30])
    covariance = (0.5 * np.eye(3) + 0.5) * units * units[:, None]
    params = {"weights": [1.0], "means": [100 * units], "covariances": [covariance]}
    X, _ = GaussianMixture(1).sample(params, 10_000, np.random.default_rng(0))
    np.testing.assert_allclose(X.mean(axis=0), 100 * units, rtol=1e-3)
    np.testing.assert_allclose(np.cov((X / units).T), 0.5 * np.eye(3) + 0.5, atol=0.05)


GOOD = {"weights": [0.5, 0.5], "rates": [[1.0], [2.0]]}
BAD = {
    "n must be >= 1, got 0": lambda rng: PoissonMixture(2).sample(GOOD, 0, rng),
    "rng must be a numpy Generator, such as numpy.random.default_rng(0), got 3": lambda rng: PoissonMixture(2).sample(
        GOOD, 5, 3
    ),
    "params: rates must have shape (2, d), got (2,)": lambda rng: PoissonMixture(2).sample(GOOD | {"rates": [1, 2]}, 5, rng),
    "params: rates must be >= 0": lambda rng: PoissonMixture(2).sample(GOOD | {"rates": [[1], [-2]]}, 5, rng),
    "params: weights must sum to 1": lambda rng: PoissonMixture(2).sample(GOOD | {"weights": [0.5, 0.6]}, 5, rng),
    "params: rates is missing": lambda rng: PoissonMixture(2).sample({"weights": [0.5, 0.5]}, 5, rng),
    "params: the parameters must be weights, rates; missing or unknown: colour": lambda rng: PoissonMixture(2).sample(
        GOOD | {"colour": 1}, 5, rng
    ),
    "X must be None for draws of PoissonMixture": lambda rng: PoissonMixture(2).sample(GOOD, 5, rng, X=np.ones((5, 1))),
    "params: the covariance of component 0 must be positive definite": lambda rng: GaussianMixture(1).sample(
        {"weights": [1.0], "means": [[0.0, 0.0]], "covariances": [[[1.0, 2.0], [2.0, 1.0]]]}, 5, rng
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_drawn_is_refused(message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        BAD[message](np.random.default_rng(0))


def test_a_part_without_draws_says_so(monkeypatch):
    model = PoissonMixture(2)
    monkeypatch.delattr(type(model.emission), "sample")
    with pytest.raises(ValueError, match="PoissonMixture cannot be drawn from: Poisson has no sample"):
        model.sample(GOOD, 3, np.random.default_rng(0))
