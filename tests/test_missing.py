"""Regression with missing covariates: the exact E-step against the joint normal, and the operator that is no EM."""

import re

import numpy as np
import pytest
from cases import MISSING, missing_rows, threads_start
from laws import em_step_in_parts
from reference import missing as oracle

import emcore
from emcore.data import as_source
from emcore.models import MissingRegression
from emcore.objective import ModelObjective
from emcore.result import Status, Stop, rounding
from emcore.starts import STARTS

every_case = pytest.mark.parametrize("case", MISSING, ids=str)


def arguments(case, params):
    """Return rows, responses, weights, coefficients and variance."""
    X, y = case.data
    variance = case.build().emission.variance if not hasattr(params, "variance") else params.variance[0]
    return X, y, case.w, params.coefficients, variance


@every_case
def test_pass_is_the_oracles(case, target):
    objective = case.objective()
    at = case.somewhere(objective)
    X, y, w, b, v = arguments(case, at.params)
    e = objective.evaluate(at)
    rows = oracle.log_density(X, y, b, v)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-12)
    assert e.scale == pytest.approx(w @ np.abs(rows) / w.sum(), rel=1e-12)
    new, variance = oracle.m_step(X, y, w, b, v)
    np.testing.assert_allclose(e.em_point.params.coefficients, new, rtol=1e-11)
    score = objective.model.score(at.params, e.stats)
    expected = oracle.score(X, y, w, b, v)
    np.testing.assert_allclose(score.coefficients, expected[0], rtol=1e-10, atol=1e-10)
    if hasattr(score, "variance"):
        np.testing.assert_allclose(score.variance[0], expected[1], rtol=1e-10)
        np.testing.assert_allclose(e.em_point.params.variance[0], variance, rtol=1e-11)


@every_case
def test_em_is_the_gradient_times_p_and_the_correction(case):
    objective = case.objective()
    _, correction = em_step_in_parts(objective, case.somewhere(objective))
    assert not correction.coefficients.any()


@every_case
def test_new_rows_and_files(case, tmp_path):
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights)
    X, y = missing_rows(case.X.shape[1], 30, 0.5, False)(np.random.default_rng(9))[0]
    _, _, _, b, v = arguments(case, found.params)
    np.testing.assert_allclose(found.log_density((X, y)), oracle.log_density(X, y, b, v), rtol=1e-11)
    assert not found.predict((X, y)).any()
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.log_density((X, y)), found.log_density((X, y)))
    assert repr(again.model) == repr(found.model)


def test_nothing_missing_is_least_squares():
    X = np.random.default_rng(0).normal(size=(80, 3))
    y = X @ [1.0, 2.0, 0.0] + np.random.default_rng(1).normal(size=80)
    b, rss = np.linalg.lstsq(X, y, rcond=None)[:2]
    for variance in (None, 0.3):
        found = emcore.fit(MissingRegression(variance), (X, y))
        np.testing.assert_allclose(found.params.coefficients, b, rtol=1e-10)
        if variance is None:
            np.testing.assert_allclose(found.params.variance, rss / 80, rtol=1e-10)


def test_whole_weights_are_rows_repeated_and_others_may_hold_anything():
    X, y = (a.copy() for a in MISSING[0].data)
    w = np.random.default_rng(1).integers(0, 4, size=len(y)).astype(float)
    theta = np.array([0.4, -0.3, 0.1])
    repeated = ModelObjective(
        MissingRegression(), as_source((np.repeat(X, w.astype(int), axis=0), np.repeat(y, w.astype(int))), missing=True)
    ).evaluate(theta)
    found = []
    for junk in (0.0, np.inf, np.nan):
        X[w == 0], y[w == 0] = junk, junk
        objective = ModelObjective(MissingRegression(), as_source((X, y), w, missing=True), n_threads=1)
        e = objective.evaluate(theta)
        found.append((e.value, e.gradient.tobytes(), objective.hvp(e, np.eye(3)).tobytes()))
    assert found[0] == found[1] == found[2]
    assert found[0][0] == pytest.approx(repeated.value, rel=1e-13)
    np.testing.assert_allclose(np.frombuffer(found[0][1]), repeated.gradient, rtol=1e-10, atol=1e-13)


def test_threads_change_no_bit():
    X, y = missing_rows(5, 80_000, 0.3, False)(np.random.default_rng(0))[0]
    found = []
    for threads in (1, 2, 4):
        objective = ModelObjective(MissingRegression(), as_source((X, y), missing=True), n_threads=threads)
        at = objective.point(np.linspace(-1, 1, 6))
        assert threads_start(objective, at)
        e = objective.evaluate(at)
        found.append((e.value, e.gradient.tobytes(), e.em_point.theta.tobytes()))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("start", STARTS)
def test_every_start_works(start):
    assert emcore.fit(MissingRegression(), MISSING[0].data, start=start, random_state=0).status.ok


def test_bad_input_is_refused():
    X, y = MISSING[0].data
    bad = y.copy()
    bad[3] = np.nan
    for data, message in (
        ((X, bad), "y must be finite: row 3"),
        ((np.where(np.isnan(X), np.inf, X), y), "X must be finite: row 0, column 0 is inf"),
        (X, "the data must be a tuple (X, y)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            emcore.fit(MissingRegression(), data)
    with pytest.raises(ValueError, match="operator must be one of 'exact', 'identity-block', got 'exakt'"):
        MissingRegression(operator="exakt")
    with pytest.raises(ValueError, match="variance must be a finite number > 0"):
        MissingRegression(0)
    with pytest.raises(ValueError, match="start: variance must be > 0, got 0"):
        emcore.fit(MissingRegression(), (X, y), start={"coefficients": [0.0, 0.0], "variance": [0.0]})


# The identity block


def experiment(seed, gone=0.2, n=200, d=10, ratio=2.0):
    """Return an instance of the experiment of Balakrishnan et al. (2017) and its start, |theta| = 1."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=d)
    truth /= np.linalg.norm(truth)
    X = rng.normal(size=(n, d))
    y = X @ truth + rng.normal(size=n) / ratio
    X[rng.uniform(size=X.shape) < gone] = np.nan
    away = rng.normal(size=d)
    return X, y, truth + 0.25 * away / np.linalg.norm(away), 1 / ratio**2


def climb(operator, seed, steps=40):
    """Return the evaluations along the steps of an operator, and the data."""
    X, y, theta, variance = experiment(seed)
    objective = ModelObjective(MissingRegression(variance, operator=operator), as_source((X, y), missing=True), n_threads=1)
    path = [objective.evaluate(theta)]
    for _ in range(steps):
        path.append(objective.evaluate(path[-1].em_point))
    return path, (X, y, variance)


@pytest.mark.parametrize("identity", [False, True])
def test_the_operators_are_the_formulas(identity):
    path, (X, y, variance) = climb("identity-block" if identity else "exact", 0, steps=5)
    theta = path[0].point.theta
    for e in path:
        np.testing.assert_allclose(e.point.theta, theta, rtol=0, atol=1e-12)
        theta = oracle.m_step(X, y, np.ones(len(y)), theta, variance, identity=identity)[0]


def test_the_exact_operator_climbs_to_a_stationary_point_and_the_identity_block_does_not():
    falls, gaps, steps = 0, [], 0
    for seed in range(12):
        exact, data = climb("exact", seed, steps=80)
        values = np.array([e.value for e in exact])
        assert np.all(np.diff(values) >= -rounding(exact[-1].scale))
        assert np.abs(exact[-1].gradient).max() < 1e-8
        other = climb("identity-block", seed)[0]
        change = np.diff([e.value for e in other])
        falls, steps = falls + int(np.sum(change < -1e-10)), steps + len(change)
        X, y, variance = data
        score = oracle.score(X, y, np.ones(len(y)), other[-1].point.theta, variance)[0]
        gaps.append(np.linalg.norm(score) / len(y))
    assert falls > 0  # steps that lower the log-likelihood,
    assert min(gaps) > 1e-3  # and no stationary point at the end


def test_the_identity_block_claims_nothing():
    X, y, theta, variance = experiment(0)
    model = MissingRegression(variance, operator="identity-block")
    assert "em" in model.provides
    assert model.provides.isdisjoint({"gradient", "metric", "tangent"})
    with pytest.raises(
        ValueError, match=r"solver 'gradient' needs \['gradient'\], .* does not provide: operator='identity-block' is"
    ):
        emcore.fit(model, (X, y), solver="gradient")
    objective = ModelObjective(model, as_source((X, y), missing=True))
    e = objective.evaluate(theta)
    with pytest.raises(ValueError, match="does not provide Hessian products"):
        objective.hvp(e, np.eye(10))
    with pytest.raises(ValueError, match=r"gtol, a rule on the gradient, needs \['gradient'\]"):
        emcore.fit(model, (X, y), stop=Stop(gtol=1e-3))
    found = emcore.fit(model, (X, y), start={"coefficients": theta}, record=True)
    assert np.isnan(found.trace.gradient).all()  # that of q, which vanishes where the operator rests
    assert np.isnan(found.trace.remaining).all()


def fitted(seed, **options):
    X, y, theta, variance = experiment(seed)
    model = MissingRegression(variance, operator="identity-block")
    return emcore.fit(model, (X, y), start={"coefficients": theta}, **options)


@pytest.mark.parametrize("solver", ["em", "auto"])
@pytest.mark.parametrize("seed", [0, 1, 3])  # of 1 the value rises all the way, of the others it falls from some step on
def test_a_fit_follows_the_identity_block_to_where_it_rests(solver, seed):
    found = fitted(seed, solver=solver)
    path = climb("identity-block", seed, steps=found.steps)[0]
    np.testing.assert_array_equal(found.trace.value, [e.value for e in path])
    assert found.status is Status.REST
    assert found.status.ok
    assert "need be no maximum" in str(found)
    falls = np.diff(found.trace.value) < -found.evaluation.noise
    assert falls.any() == (seed != 1)
    assert list(found.trace.event[1:]) == ["fell" if fell else "em" for fell in falls]
    rest = climb("identity-block", seed, steps=200)[0][-1].point.theta
    np.testing.assert_allclose(found.theta, rest, rtol=0, atol=1e-5 if seed == 1 else 1e-10)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("rule", "status"), [("xtol", Status.STEP), ("ftol", Status.VALUE), ("residual", Status.RESIDUAL), ("aitken", Status.REST)]
)
def test_every_rule_can_end_the_identity_block_and_none_does_after_a_fall(rule, status, seed):
    found = fitted(seed, stop=Stop(gain=0, **{rule: 1e-6}))
    assert found.status is status
    assert found.trace.change[-1] >= -found.evaluation.noise
    assert found.measures.step < 1e-3
    if seed == 0:
        assert found.value < found.trace.value.max() - 1e-4  # and a higher point on the way does not forbid it


@pytest.mark.parametrize("solver", ["squarem", "anderson", "daarem", "zal", "qn1", "incremental", "svrem"])
def test_solvers_that_rest_on_monotone_steps_name_the_operator(solver):
    with pytest.warns(emcore.ConvergenceWarning, match="operator='identity-block' is the E-step of no likelihood"):
        found = fitted(0, solver=solver)
    assert found.status is Status.DECREASED
    assert "exact" not in str(found.failure)


# What is not standard

FAR = {
    "a mean": (lambda X, y: (X + [2.0, 0.0], y), "column 0 of X, with missing values, has mean 1\\.97"),
    "a variance": (lambda X, y: (X * [1.0, 3.0], y), "column 1 of X, with missing values, has mean -0.* and variance 8\\.91"),
    "two columns": (lambda X, y: (10.0 * X, y), "column 0 of X, .*, 1 more are as far from 0 and 1"),
    "a level": (lambda X, y: (X, y - 5.0), "^y has mean -5.* and standard deviation 1"),
}


def standard_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2))
    y = X @ [1.0, -0.5] + 0.5 * rng.normal(size=2000)
    X[rng.uniform(size=X.shape) < 0.2] = np.nan
    return X, y


@pytest.mark.parametrize("what", FAR)
def test_data_that_are_not_standard_are_told_of(what):
    change, message = FAR[what]
    source = as_source(change(*standard_rows()), missing=True)
    for operator in ("exact", "identity-block"):
        (said,) = MissingRegression(0.25, operator=operator).bind(source).warnings()
        assert re.search(message, said)
        assert "covariates='normal' estimates mean, covariance and an intercept" in said
    with pytest.warns(UserWarning, match=message):
        emcore.fit(MissingRegression(), source, stop=Stop(gain=1e-2))


def test_data_that_may_be_standard_are_not_told_of():
    X, y = standard_rows()
    emcore.fit(MissingRegression(), (X, y))
    few = np.array([[0.9, -0.9], [0.3, np.nan], [1.4, -0.3], [0.9, -0.8]])  # by chance, for all that is known
    emcore.fit(MissingRegression(0.25), (few, few[:, 0]))
    # Of covariates that are never missing nothing is assumed, and one of them may be an intercept.
    constant = np.column_stack([X, np.ones(2000), 7.0 + np.nan_to_num(X[:, 0])])
    emcore.fit(MissingRegression(), (constant, y - 5.0))


def test_a_column_that_is_never_seen_is_refused():
    X, y = standard_rows()
    X[:, 1] = np.nan
    with pytest.raises(ValueError, match="X: column 1 is missing in every row"):
        emcore.fit(MissingRegression(), (X, y))
    weights = np.where(np.isnan(standard_rows()[0][:, 1]), 1.0, 0.0)  # no row that counts has it
    with pytest.raises(ValueError, match="X: column 1 is missing in every row"):
        emcore.fit(MissingRegression(), standard_rows(), sample_weight=weights)
