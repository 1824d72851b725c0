"""Regression on normal covariates of unknown mean and covariance, some missing: against the joint normal."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from cases import NORMAL_COVARIATES, normal_missing_rows, threads_start
from laws import em_step_in_parts
from reference import missing_gaussian as oracle
from reference.normal import completed

import emcore
from emcore.data import as_source
from emcore.models import GaussianMixture, MissingRegression, implied_regression
from emcore.objective import ModelObjective
from emcore.result import Status, Stop, rounding
from emcore.starts import STARTS

every_case = pytest.mark.parametrize("case", NORMAL_COVARIATES, ids=str)
EXACT = Stop(gain=1e-16)


def normal(variance=None, **options):
    return MissingRegression(variance, covariates="normal", **options)


def joint(case, params):
    """Return the joint normal of covariates and response, as the oracle takes it."""
    b, S = params.coefficients[1:], params.covariance
    variance = params.variance[0] if hasattr(params, "variance") else case.build().emission.variance
    cross = S @ b
    return SimpleNamespace(
        weights=np.ones(1),
        means=np.append(params.mean, params.coefficients[0] + b @ params.mean)[None],
        covariances=np.block([[S, cross[:, None]], [cross, variance + b @ cross]])[None],
    )


def parted(means, covariances):
    """Return coefficients, variance, mean and covariance of a joint normal."""
    m, S = means[0], covariances[0]
    slopes = np.linalg.solve(S[:-1, :-1], S[:-1, -1])
    return np.append(m[-1] - slopes @ m[:-1], slopes), S[-1, -1] - slopes @ S[:-1, -1], m[:-1], S[:-1, :-1]


@every_case
def test_pass_and_m_step_are_the_oracles(case, target):
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    at_user, w, rows = joint(case, model.to_user(at.params)), case.w, np.column_stack(case.data)
    e = objective.evaluate(at)
    logs = oracle.posterior(rows, at_user)[1]
    assert e.value == pytest.approx(w @ logs / w.sum(), rel=1e-12)
    assert e.scale == pytest.approx(w @ np.abs(logs) / w.sum(), rel=1e-12)
    coefficients, variance, mean, covariance = parted(*oracle.m_step(rows, w, at_user, tied=False)[1:])
    new = model.to_user(e.em_point.params)
    np.testing.assert_allclose(new.coefficients, coefficients, rtol=1e-9)
    np.testing.assert_allclose(new.mean, mean, rtol=1e-11)
    np.testing.assert_allclose(new.covariance, covariance, rtol=1e-9)
    if hasattr(new, "variance"):
        np.testing.assert_allclose(new.variance[0], variance, rtol=1e-9)


@every_case
def test_em_is_the_gradient_times_p_and_the_correction(case):
    objective = case.objective()
    at = case.somewhere(objective)
    step, correction = em_step_in_parts(objective, at)
    score = objective.model.score(at.params, objective.evaluate(at).stats)
    assert not correction.coefficients.any()
    assert not correction.mean.any()
    N, S = case.w.sum(), at.params.covariance
    np.testing.assert_allclose(step.mean, S @ score.mean / N, rtol=1e-12)
    np.testing.assert_allclose(step.covariance, 2 / N * S @ score.covariance @ S, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(correction.covariance, -np.outer(step.mean, step.mean), rtol=1e-10, atol=1e-14)
    if hasattr(step, "variance"):
        np.testing.assert_allclose(step.variance, 2 / N * at.params.variance**2 * score.variance, rtol=1e-12)
        rise = step.coefficients @ score.coefficients * at.params.variance
        np.testing.assert_allclose(correction.variance, -rise / N, rtol=1e-10)


@every_case
def test_new_rows_and_files(case, tmp_path):
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights)
    X, y = normal_missing_rows(case.X.shape[1], 30, 0.5, False)(np.random.default_rng(9))[0]
    np.testing.assert_allclose(
        found.log_density((X, y)), oracle.posterior(np.column_stack([X, y]), joint(case, found.params))[1], rtol=1e-11
    )
    np.testing.assert_array_equal(found.responsibilities((X, y)), np.ones((30, 1)))
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.log_density((X, y)), found.log_density((X, y)))
    assert repr(again.model) == repr(found.model)


def test_nothing_missing_is_least_squares():
    rng = np.random.default_rng(0)
    X = 1e3 + 10.0 * rng.normal(size=(80, 3)) @ (np.eye(3) + 0.5)
    y = X @ [1.0, 2.0, 0.0] + rng.normal(size=80) - 7.0
    b, rss = np.linalg.lstsq(np.column_stack([np.ones(80), X]), y, rcond=None)[:2]
    for variance in (None, 0.3):
        found = emcore.fit(normal(variance), (X, y))
        np.testing.assert_allclose(found.params.coefficients, b, rtol=1e-9)
        np.testing.assert_allclose(found.params.mean, X.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.params.covariance, np.cov(X.T, ddof=0), rtol=1e-9)
        if variance is None:
            np.testing.assert_allclose(found.params.variance, rss / 80, rtol=1e-9)


def test_the_maximum_is_that_of_the_joint_normal():
    X, y = normal_missing_rows(3, 300, 0.3, False)(np.random.default_rng(0))[0]
    found = emcore.fit(normal(), (X, y), stop=EXACT)
    other = emcore.fit(GaussianMixture(1, missing=True), np.column_stack([X, y]), stop=EXACT)
    assert found.value == pytest.approx(other.value, rel=1e-13)
    coefficients, variances = implied_regression(other.params, 3)
    np.testing.assert_allclose(found.params.coefficients, coefficients[0], rtol=1e-6)
    np.testing.assert_allclose(found.params.variance, variances, rtol=1e-6)
    np.testing.assert_allclose(found.params.covariance, other.params.covariances[0, :3, :3], rtol=1e-6)


def test_what_is_missing_for_reasons_that_are_seen_biases_nothing():
    """Values are missing of high y: complete rows are no fair sample, and the standard model is of other covariates."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40_000, 2)) @ [[1.0, 0.7], [0.0, 0.5]] * [3.0, 1.0] + [100.0, -5.0]
    y = 2.0 + X @ [0.5, -1.0] + 0.8 * rng.normal(size=40_000)
    X[(y > np.median(y)) & (rng.uniform(size=40_000) < 0.7), 0] = np.nan
    found = emcore.fit(normal(), (X, y))
    errors = found.standard_errors()
    assert np.all(np.abs(found.params.coefficients - [2.0, 0.5, -1.0]) < 4 * errors.coefficients)
    assert np.all(np.abs(found.params.mean - [100.0, -5.0]) < 4 * errors.mean)
    assert abs(found.params.variance[0] - 0.64) < 4 * errors.variance[0]
    whole = ~np.isnan(X).any(axis=1)
    naive = np.linalg.lstsq(np.column_stack([np.ones(whole.sum()), X[whole]]), y[whole], rcond=None)[0]
    assert np.abs(naive - [2.0, 0.5, -1.0])[1] > 8 * errors.coefficients[1]


@every_case
def test_standard_errors_are_those_of_a_differenced_likelihood(case):
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights, solver="newton", stop=EXACT)
    shapes = [np.shape(a) for a in found.params]
    triangle = np.tril_indices(case.X.shape[1])
    w, rows = case.w, np.column_stack(case.data)[case.w > 0]
    w = w[w > 0]

    def flat(params):
        return np.concatenate([a[triangle] if a.ndim == 2 else a for a in params])

    def value(phi):
        arrays = []
        for shape in shapes:
            if len(shape) == 2:
                S = np.zeros(shape)
                S[triangle] = S.T[triangle] = phi
                arrays.append(S)
            else:
                arrays.append(phi[: shape[0]])
                phi = phi[shape[0] :]
        return w @ oracle.posterior(rows, joint(case, type(found.params)(*arrays)))[1]

    phi, errors = flat(found.params), flat(found.standard_errors())
    steps = 0.03 * errors
    H = np.empty((len(phi), len(phi)))
    stencil = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
    for i in range(len(phi)):
        for j in range(i + 1):
            moves = [(a * b, s * np.eye(len(phi))[i] + t * np.eye(len(phi))[j]) for s, a in stencil for t, b in stencil]
            H[i, j] = H[j, i] = sum(a * value(phi + move * steps) for a, move in moves)
    H /= np.outer(steps, steps)
    np.testing.assert_allclose(errors, np.sqrt(np.diag(np.linalg.inv(-H))), rtol=1e-5)


@every_case
def test_predicted_responses_are_the_conditional_means(case):
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights)
    rows, d = normal_missing_rows(case.X.shape[1], 60, 0.4, False)(np.random.default_rng(3))[0][0], case.X.shape[1]
    at = joint(case, found.params)
    m, S = at.means[0], at.covariances[0]
    expected = completed(np.column_stack([rows, np.full(len(rows), np.nan)]), m, S)[0][:, d]
    got = found.predict_response(rows)
    np.testing.assert_allclose(got, expected, rtol=1e-11)
    assert got[0] == pytest.approx(m[d], rel=1e-14)  # nothing is seen of it
    np.testing.assert_allclose([found.predict_response(row[None])[0] for row in rows], got, rtol=1e-12, atol=1e-13)
    before = rows.copy()
    found.predict_response(rows)
    np.testing.assert_array_equal(rows, before)


@every_case
def test_draws_are_of_the_joint_normal(case):
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights)
    (X, y), states = found.sample(40_000, random_state=0)
    at = joint(case, found.params)
    rows, unit = np.column_stack([X, y]), np.sqrt(np.diag(at.covariances[0]))
    assert not np.isnan(X).any()
    assert not states.any()
    np.testing.assert_allclose((rows.mean(axis=0) - at.means[0]) / unit, 0.0, atol=0.025)
    np.testing.assert_allclose((np.cov(rows.T) - at.covariances[0]) / np.outer(unit, unit), 0.0, atol=0.035)


def test_units_change_nothing():
    X, y = normal_missing_rows(2, 90, 0.2, False)(np.random.default_rng(0))[0]
    plain = emcore.fit(normal(), (X, y), stop=EXACT)
    scale, shift = np.array([2.0**40, 2.0**-30]), np.array([2.0**50, -(2.0**-20)])
    other = emcore.fit(normal(), (X * scale + shift, 2.0**20 * y), stop=EXACT)
    slopes = 2.0**20 * plain.params.coefficients[1:] / scale
    np.testing.assert_allclose(other.params.coefficients[1:], slopes, rtol=1e-6)
    level = 2.0**20 * plain.params.coefficients[0] - slopes @ shift
    assert other.params.coefficients[0] == pytest.approx(level, rel=1e-6)
    np.testing.assert_allclose(other.params.covariance, plain.params.covariance * scale * scale[:, None], rtol=1e-5)
    errors = 2.0**20 * plain.standard_errors().coefficients[1:] / scale
    np.testing.assert_allclose(other.standard_errors().coefficients[1:], errors, rtol=1e-5)


# Fixed parameters

FIXED = {
    "a slope": {"coefficients": [False, True, False]},
    "all coefficients": {"coefficients": True},
    "the variance": {"variance": True},
    "an entry of the mean": {"mean": [False, True]},
    "mean and covariance": {"mean": True, "covariance": True},
    "all but the slopes": {"coefficients": [False, False, True], "variance": True, "mean": True, "covariance": True},
}


@pytest.mark.parametrize("what", FIXED)
def test_m_step_is_the_maximum_of_q_over_what_is_free(what):
    case = NORMAL_COVARIATES[0]
    plain = case.objective()
    start = plain.model.to_user(case.somewhere(plain, seed=3).params)
    objective = ModelObjective(case.build(), case.source(), n_threads=1, fixed=FIXED[what], start=start)
    at = objective.point_of(objective.model.from_user(start))
    e = objective.evaluate(at)
    best = e.em_point
    for name, mask in FIXED[what].items():
        np.testing.assert_array_equal(getattr(best.params, name)[np.array(mask)], getattr(at.params, name)[np.array(mask)])
    assert np.abs(objective.gradient(best, e.stats)).max() <= 1e-9
    top, rng = objective.q(best, e.stats), np.random.default_rng(0)
    for _ in range(20):
        assert objective.q(objective.point(best.theta + 1e-3 * rng.normal(size=objective.size)), e.stats) < top
    for _ in range(10):
        new = objective.evaluate(e.em_point)
        assert new.value >= e.value + e.gain - rounding(e.scale)
        e = new


@pytest.mark.parametrize("solver", ["em", "lbfgs", "newton"])
@pytest.mark.parametrize("what", FIXED)
def test_solvers_hold_what_is_fixed(what, solver):
    case = NORMAL_COVARIATES[0]
    start = case.build().bind(case.source()).to_user(case.start(case.objective()).params)
    found = emcore.fit(
        case.build(), case.data, sample_weight=case.weights, start=start, fixed=FIXED[what], solver=solver,
        stop=Stop(gain=1e-14),
    )  # fmt: skip
    assert np.abs(found.evaluation.gradient).max() < 1e-5
    errors = found.standard_errors()
    for name, values in start._asdict().items():
        mask = np.broadcast_to(np.array(FIXED[what].get(name, False)), values.shape)
        np.testing.assert_array_equal(getattr(found.params, name)[mask], values[mask])
        assert not getattr(errors, name)[mask].any() or (name, what) == ("coefficients", "a slope")
        if name != "coefficients":  # an intercept is of the slopes too, in other units
            assert getattr(errors, name)[~mask].all()


def test_what_cannot_be_fixed_is_refused():
    case = NORMAL_COVARIATES[0]
    start = case.build().bind(case.source()).to_user(case.start(case.objective()).params)
    for fixed, message in (
        ({"coefficients": [True, False, False]}, "fixed: the intercept can be fixed only with all coefficients"),
        ({"covariance": [[True, False], [False, False]]}, "fixed: covariance: a matrix can be fixed as a whole only"),
        ({"means": True}, "fixed: 'means' is no parameter; they are coefficients, variance, mean, covariance"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            emcore.fit(case.build(), case.data, sample_weight=case.weights, start=start, fixed=fixed)


# The floor


def test_residuals_that_vanish_end_at_the_floor():
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = X @ [1.0, 2.0] + 3.0
    found = emcore.fit(normal(), (X, y))
    assert found.status is Status.BOUNDARY
    assert found.boundary == ("the variance is at its floor",)
    np.testing.assert_allclose(found.params.coefficients, [3.0, 1.0, 2.0], atol=1e-6)
    with pytest.raises(ValueError, match="Its residuals are 0"):
        emcore.fit(normal(reg=0), (X, y))
    for options in ({}, {"reg": 0}):  # a known variance has no floor, and does not collapse
        known = emcore.fit(normal(1e-9, **options), (X, y))
        assert known.status.ok
        assert known.boundary == ()
        assert emcore.fit(normal(1e-9, **options), (X, y), start=known.params).value == pytest.approx(known.value, rel=1e-9)
        np.testing.assert_allclose(known.params.coefficients, [3.0, 1.0, 2.0], atol=1e-6)


def test_collinear_covariates_end_at_the_floor():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(60, 1)), 2, axis=1)
    y = X[:, 0] + rng.normal(size=60)
    found = emcore.fit(normal(), (X, y))
    assert found.boundary == ("the covariance is at its floor",)
    assert found.params.coefficients[1:].sum() == pytest.approx(np.cov(X[:, 0], y)[0, 1] / X[:, 0].var(ddof=1), rel=1e-6)


def test_a_constant_covariate_is_told_of():
    X, y = normal_missing_rows(2, 90, 0.2, False)(np.random.default_rng(0))[0]
    X[:, 0] = 4.0
    with pytest.warns(UserWarning, match="X is constant in column 0") as caught:
        emcore.fit(normal(), (X, y), stop=Stop(max_passes=200))
    assert "beside an intercept its coefficient is not known" in str([w.message for w in caught])


# The rest


def test_threads_and_blocks_change_nothing():
    X, y = normal_missing_rows(3, 120_000, 0.3, False)(np.random.default_rng(0))[0]
    found = []
    for n_threads, block_rows in ((1, None), (2, None), (1, 3001)):
        objective = ModelObjective(normal(), as_source((X, y), missing=True, block_rows=block_rows), n_threads=n_threads)
        at = objective.point(0.3 * np.random.default_rng(1).normal(size=objective.size))
        assert block_rows or threads_start(objective, at)
        e = objective.evaluate(at)
        found.append((e.value, e.gradient))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_allclose(found[2][1], found[0][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_responses_of_other_types_and_layouts(dtype, order):
    X, y = normal_missing_rows(2, 700, 0.2, False)(np.random.default_rng(0))[0]
    y = np.round(y)
    theta = 0.3 * np.random.default_rng(1).normal(size=9)
    values = []
    for rows, responses in ((X, y), (np.asarray(X, order=order), np.stack([y, -y], axis=1).astype(dtype)[:, 0])):
        values.append(ModelObjective(normal(), as_source((rows, responses), missing=True)).evaluate(theta).value)
    assert values[0] == pytest.approx(values[1], rel=1e-12)


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1.7e308])
def test_rows_of_weight_zero_may_hold_anything(junk):
    X, y = (a.copy() for a in NORMAL_COVARIATES[0].data)
    w = np.ones(len(y))
    w[[0, 51]] = 0.0
    found = []
    for _ in range(2):
        objective = ModelObjective(normal(), as_source((X, y), w, missing=True), n_threads=1)
        e = objective.evaluate(0.3 * np.random.default_rng(1).normal(size=objective.size))
        found.append((e.value, e.gradient, objective.hvp(e, np.eye(objective.size))))
        X[[0, 51]], y[[0, 51]] = junk, junk
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-13)
    for x, z in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_allclose(x, z, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("start", STARTS)
def test_every_start_works(start):
    assert emcore.fit(normal(), NORMAL_COVARIATES[0].data, start=start, random_state=0).status.ok


def test_bad_input_is_refused():
    X, y = NORMAL_COVARIATES[0].data
    good = {"coefficients": np.zeros(3), "variance": [1.0], "mean": np.zeros(2), "covariance": np.eye(2)}
    for changed, message in (
        ({"variance": [0.0]}, "start: variance must be > 0 and above the floor: it is 0 in frame units"),
        ({"variance": [1e-9]}, "the floor reg=1e-06"),
        ({"coefficients": np.zeros(2)}, "start: coefficients must have shape (3,) (the intercept first), got (2,)"),
        ({"covariance": [[1.0, 0.5], [0.0, 1.0]]}, "start: covariance must be symmetric"),
        ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "start: the covariance must be positive definite"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            emcore.fit(normal(), (X, y), start=good | changed)
    with pytest.raises(ValueError, match="covariates must be one of 'standard', 'normal', got 'uniform'"):
        MissingRegression(covariates="uniform")
    with pytest.raises(ValueError, match="covariates='normal' needs operator 'exact', got 'identity-block'"):
        normal(operator="identity-block")
    with pytest.raises(ValueError, match="reg needs covariates='normal'"):
        MissingRegression(reg=1e-6)
    with pytest.raises(ValueError, match=r"reg must be below 0\.5"):
        normal(reg=1.0)
    with pytest.raises(ValueError, match=re.escape("the data must be a tuple (X, y)")):
        emcore.fit(normal(), X)
    with pytest.raises(ValueError, match="y must be finite: row 3"):
        emcore.fit(normal(), (X, np.where(np.arange(len(y)) == 3, np.nan, y)))
    X = X.copy()
    X[:, 1] = np.nan
    with pytest.raises(ValueError, match="X: column 1 is missing in every row"):
        emcore.fit(normal(), (X, y))


def test_expected_responses_do_not_depend_on_how_rows_lie_in_memory():
    """Nine covariates: their gaps take two bytes a row."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(300, 9))
    y = X.sum(axis=1) + rng.normal(size=300)
    X[rng.random(X.shape) < 0.3] = np.nan
    found = emcore.fit(MissingRegression(covariates="normal"), (X, y), solver="em", stop=Stop(gain=1e-6))
    expected = found.predict_response(X)
    np.testing.assert_allclose(found.predict_response(np.asfortranarray(X)), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.predict_response(np.repeat(X, 2, axis=0)[::2]), expected, rtol=0, atol=1e-12)
