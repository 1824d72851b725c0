"""Gaussian mixtures of rows with missing columns, against the oracle."""

import re

import numpy as np
import pytest
from cases import MISSING_GAUSSIAN, mixture_rows, threads_start
from reference.missing_gaussian import m_step, posterior

import emcore
from emcore.data import as_source
from emcore.models import GaussianMixture, implied_regression
from emcore.objective import ModelObjective
from emcore.result import Stop, rounding

every_case = pytest.mark.parametrize("case", MISSING_GAUSSIAN, ids=str)


@every_case
def test_pass_and_m_step_are_the_oracles(case, target):
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    w, user = case.w, model.to_user(at.params)
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ posterior(case.X, user)[1] / w.sum(), rel=1e-12)
    expected = m_step(case.X, w, user, "tied" in case.name)
    for x, y in zip(model.to_user(e.em_point.params), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-9)


@every_case
def test_new_rows_and_files(case, tmp_path):
    found = emcore.fit(case.build(), case.X, sample_weight=case.weights, random_state=0, stop=Stop(gain=1e-6))
    rows = case.X[::-1][:30].copy()
    rows[3] = np.nan
    resp, logs = posterior(rows, found.params)
    np.testing.assert_allclose(found.log_density(rows), logs, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.responsibilities(rows), resp, rtol=0, atol=1e-9)
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.log_density(rows), found.log_density(rows))


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_nothing_missing_is_the_ordinary_mixture(covariance):
    X = mixture_rows(3, 3, 150, 5.0, False)(np.random.default_rng(0))[0]
    start = emcore.fit(GaussianMixture(3, covariance), X, random_state=0, stop=Stop(gain=1e-2)).params
    a, b = (emcore.fit(GaussianMixture(3, covariance, missing=missing), X, start=start) for missing in (False, True))
    assert b.value == pytest.approx(a.value, rel=1e-12)
    np.testing.assert_allclose(b.params.covariances, a.params.covariances, rtol=1e-6)


def test_a_regression_on_missing_covariates():
    """The joint normal of covariates and response, of unknown mean and covariance."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2)) @ [[1.0, 0.7], [0.0, 0.5]] * [3.0, 1.0] + [100.0, -5.0]
    y = 2.0 + X @ [0.5, -1.0] + 0.3 * rng.normal(size=4000)
    rows = np.column_stack([X, y])
    b, rss = np.linalg.lstsq(np.column_stack([np.ones(4000), X]), y, rcond=None)[:2]
    whole = implied_regression(emcore.fit(GaussianMixture(1), rows).params, 2)
    np.testing.assert_allclose(whole[0][0], b, rtol=1e-8)
    np.testing.assert_allclose(whole[1], rss / 4000, rtol=1e-8)
    rows[rng.uniform(size=rows.shape) < 0.3] = np.nan
    found = emcore.fit(GaussianMixture(1, missing=True), rows)
    assert np.all(np.diff(found.trace.value) >= -rounding(found.evaluation.scale))
    coefficients, variances = implied_regression(found.params, 2)
    np.testing.assert_allclose(coefficients[0], [2.0, 0.5, -1.0], rtol=0.15)
    np.testing.assert_allclose(variances, 0.09, rtol=0.2)


def test_threads_and_blocks_change_nothing():
    X = mixture_rows(2, 4, 60_000, 3.0, False)(np.random.default_rng(0))[0]
    X[np.random.default_rng(1).uniform(size=X.shape) < 0.3] = np.nan
    found = []
    for n_threads, block_rows in ((1, None), (2, None), (1, 3001)):
        objective = ModelObjective(
            GaussianMixture(2, missing=True), as_source(X, missing=True, block_rows=block_rows), n_threads=n_threads
        )
        at = objective.point(0.3 * np.random.default_rng(1).normal(size=objective.size))
        assert block_rows or threads_start(objective, at)
        e = objective.evaluate(at)
        found.append((e.value, e.gradient))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_allclose(found[2][1], found[0][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1.7e308])
def test_rows_of_weight_zero_may_hold_anything(junk):
    X, _, _ = MISSING_GAUSSIAN[0]._drawn
    X, w = X.copy(), np.ones(len(X))
    w[[0, 51]] = 0.0
    found = []
    for _ in range(2):
        objective = ModelObjective(GaussianMixture(2, missing=True), as_source(X, w, missing=True), n_threads=1)
        e = objective.evaluate(0.3 * np.random.default_rng(1).normal(size=objective.size))
        found.append((e.value, e.gradient, objective.hvp(e, np.eye(objective.size))))
        X[[0, 51]] = junk
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-13)
    for x, y in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11)


def test_bad_input_is_refused():
    for n_responses in (-1, 2):
        with pytest.raises(ValueError, match="n_responses must be from 0 to 1, got"):
            emcore.kernels.MissingGaussian(
                np.zeros((1, 2)), np.eye(2)[None], np.zeros(2), np.zeros(2), np.ones(2), n_responses=n_responses
            )
    X = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(ValueError, match=re.escape("missing=True needs covariance 'full' or 'tied', got 'diag'")):
        GaussianMixture(2, "diag", missing=True)
    with pytest.raises(TypeError, match="missing must be True or False"):
        GaussianMixture(2, missing=1)
    X[:, 1] = np.nan
    with pytest.raises(ValueError, match="X: column 1 is missing in every row"):
        emcore.fit(GaussianMixture(1, missing=True), X)
    params = emcore.fit(GaussianMixture(1, "spherical"), X[:, ::2]).params
    with pytest.raises(ValueError, match="covariances must be full or tied"):
        implied_regression(params, 0)
    params = emcore.fit(GaussianMixture(1), X[:, ::2]).params
    with pytest.raises(ValueError, match="response must be one of 2 columns"):
        implied_regression(params, 2)
