"""Mixtures of Student's t against the oracle, and what parameter expansion changes and what it does not."""

import numpy as np
import pytest
from cases import STUDENT
from derivatives import derivatives
from laws import em_step_in_parts, q_is_a_bound_with_the_score
from reference import student as oracle
from scipy.stats import kstest, t

import emcore
from emcore import diagnostics
from emcore.models import GaussianMixture, StudentMixture, build
from emcore.objective import ModelObjective
from emcore.result import Stop
from emcore.solve import solve
from emcore.solvers import EM

every_case = pytest.mark.parametrize("case", STUDENT, ids=str)
either = pytest.mark.parametrize("expanded", [False, True], ids=["plain", "expanded"])


def objective_of(case, expanded=False, **options):
    given = dict(case.build().options, expanded=expanded)
    return ModelObjective(build("StudentMixture", given), case.source(), n_threads=1, **options)


@every_case
@either
def test_pass_and_m_step_are_the_oracles(case, expanded, target):
    objective = objective_of(case, expanded)
    model, at, w = objective.model, case.somewhere(objective), case.w
    user, dof = model.to_user(at.params), model.options["dof"]
    resp, u, rows = oracle.posterior(case.X, *user, dof)
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-12)
    expected = oracle.m_step(case.X, w, resp, u, tied=user.covariances.ndim == 2, expanded=expanded)
    for x, y in zip(model.to_user(e.em_point.params), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11 * np.abs(y).max())
    scale = model.emission.frame.scale
    got = model.score(at.params, e.stats)
    means, scales = oracle.score(case.X, w, resp, u, user.means, user.covariances)
    np.testing.assert_allclose(got.means * scale, means, rtol=1e-9, atol=1e-10 * np.abs(means).max())
    np.testing.assert_allclose(got.covariances * scale[:, None] * scale, scales, rtol=1e-9, atol=1e-10 * np.abs(scales).max())


@every_case
@either
def test_q_touches_lies_below_and_has_the_score_for_a_gradient(case, expanded):
    objective = objective_of(case, expanded)
    at, other = case.somewhere(objective), case.somewhere(objective, seed=1)
    resp = oracle.posterior(case.X, *objective.model.to_user(at.params), objective.model.options["dof"])[0]
    entropy = -case.w @ np.sum(resp * np.log(np.maximum(resp, 1e-300)), axis=1) / case.total
    q_is_a_bound_with_the_score(objective, at, other, entropy, atol=1e-13)


@every_case
@either
def test_em_is_p_times_the_gradient_and_the_correction(case, expanded):
    objective = objective_of(case, expanded)
    em_step_in_parts(objective, case.somewhere(objective), atol=1e-14)


@every_case
def test_expansion_keeps_the_maximum_and_takes_fewer_steps(case):
    options = dict(case.build().options, dof=2.0)
    found = []
    for expanded in (False, True):
        objective = ModelObjective(build("StudentMixture", options | {"expanded": expanded}), case.source(), n_threads=1)
        found.append(solve(objective, EM(), case.start(objective), stop=Stop(gain=1e-15, max_passes=2000)))
        assert found[-1].status.ok
        assert np.diff(found[-1].trace.value).min() > -1e-14
    plain, short = found
    assert short.value == pytest.approx(plain.value, abs=1e-12)
    assert objective.model.distance(plain.point.params, short.point.params) < 1e-5
    assert short.passes < 0.9 * plain.passes


@either
def test_hessian_products_are_those_of_differences(expanded):
    for case in STUDENT:
        objective = objective_of(case, expanded)
        at = case.somewhere(objective)
        expected = derivatives(lambda theta, o=objective: o.evaluate(theta).gradient, at.theta, 1e-5, order=2)
        found = objective.hvp(objective.evaluate(at), np.eye(objective.size))
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-8 * np.abs(expected).max())
        stats, there = objective.evaluate(at).stats, objective.point(at.theta + 0.1)  # of other parameters
        expected = derivatives(lambda theta, o=objective, s=stats: o.gradient(o.point(theta), s), there.theta, 1e-5, order=2)
        found = objective.q_hvp(there, stats, np.eye(objective.size))
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_many_degrees_of_freedom_are_a_gaussian():
    case = STUDENT[0]
    heavy = ModelObjective(StudentMixture(3, 1e9), case.source(), n_threads=1)
    gaussian = ModelObjective(GaussianMixture(3), case.source(), n_threads=1)
    at = case.somewhere(heavy)
    e, f = heavy.evaluate(at), gaussian.evaluate(gaussian.point_of(at.params))
    assert e.value == pytest.approx(f.value, rel=1e-7)
    np.testing.assert_allclose(e.em_point.params.means, f.em_point.params.means, rtol=0, atol=1e-6)


@either
def test_rows_far_out_do_not_move_the_means(expanded):
    X = np.random.default_rng(0).normal(size=(200, 2))
    X[:4] = 1e6, -1e5
    start = {"weights": [1.0], "means": [[0.1, 0.0]], "covariances": [np.eye(2)]}
    found = emcore.fit(StudentMixture(1, 1.0, expanded=expanded, reg=0), X, start=start, stop=Stop(gain=1e-10))
    assert found.status.ok
    np.testing.assert_allclose(found.params.means[0], X[4:].mean(axis=0), atol=0.1)
    assert np.isfinite(found.log_density([[1e140, 0.0], [1e200, 0.0]])).all()


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_a_floor_holds_and_em_still_rises(covariance):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 2)) * [1.0, 1e-3]
    X[:, 1] += X[:, 0]
    for expanded in (False, True):
        model = StudentMixture(2, 2.0, covariance, expanded=expanded, reg=1e-2)
        found = emcore.fit(model, X, random_state=0, stop=Stop(gain=1e-10))
        assert found.status.ok
        assert np.diff(found.trace.value).min() > -1e-13
        assert any("floor" in words for words in found.model.boundary(found.point.params))


def test_draws_are_students():
    params = {"weights": [1.0], "means": [[3.0]], "covariances": [[[4.0]]]}
    X, _ = StudentMixture(1, 3.0).sample(params, 4000, np.random.default_rng(0))
    assert kstest((X[:, 0] - 3.0) / 2.0, t(3.0).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dof": 0.0}, ValueError, "dof"),
        ({"dof": "4"}, TypeError, "dof"),
        ({"covariance": "diag"}, ValueError, "covariance"),
        ({"expanded": 1}, TypeError, "expanded"),
        ({"reg": 0.7}, ValueError, "reg must be below"),
    ],
)
def test_bad_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        StudentMixture(2, **options)


def test_densities_of_new_rows():
    case = STUDENT[1]
    found = emcore.fit(case.build(), case.X, sample_weight=case.weights, random_state=0, stop=Stop(gain=1e-6))
    rows = np.random.default_rng(0).permuted(case.X, axis=0)
    resp, _, logs = oracle.posterior(rows, *found.params, 5.0)
    np.testing.assert_allclose(found.log_density(rows), logs, rtol=1e-10)
    np.testing.assert_allclose(found.responsibilities(rows), resp, rtol=0, atol=1e-10)


def test_the_expanded_model_has_the_same_standard_errors():
    """Those of a row's own gradient too: they are of the likelihood, not of the way up."""
    X = np.random.default_rng(0).standard_t(4, size=(80, 2))
    f = emcore.fit(StudentMixture(1, 4.0, expanded=True), X, stop=Stop(gain=1e-15))
    plain = emcore.fit(StudentMixture(1, 4.0), X, start=f, stop=Stop(gain=1e-15))
    for robust in (False, True):
        for found, expected in zip(f.standard_errors(robust=robust), plain.standard_errors(robust=robust), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    slower = diagnostics.rate(plain.evaluation.objective, plain.evaluation).rate
    assert diagnostics.rate(f.evaluation.objective, f.evaluation).rate < slower
