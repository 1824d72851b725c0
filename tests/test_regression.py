"""Mixtures of linear regressions: formulas against the oracle, units, weights, floors, files, and the symmetric mixture."""

import re

import numpy as np
import pytest
from cases import GATED, INVERSE, MISSING, NORMAL_COVARIATES, REGRESSION, SYMMETRIC_REGRESSION, line_rows, threads_start
from laws import em_step_in_parts
from reference import regression as oracle
from scipy.special import logsumexp
from scipy.stats import norm

import emcore
from emcore.data import as_source
from emcore.kernels import run
from emcore.models import RegressionMixture, SymmetricRegressionMixture
from emcore.objective import ModelObjective
from emcore.result import Status, Stop
from emcore.solve import solve
from emcore.solvers import EM, GradientAscent
from emcore.starts import STARTS

every_case = pytest.mark.parametrize("case", REGRESSION, ids=str)
KINDS = [REGRESSION[0], *SYMMETRIC_REGRESSION]


def design(X, params):
    """Return the regressors (n, p) that belong to these parameters."""
    X = np.asarray(X, dtype=float)
    return X if params.coefficients.shape[-1] == X.shape[1] else np.column_stack([np.ones(len(X)), X])


def oracle_arguments(case, objective, params):
    """Return regressors, responses and weights of rows, and parameters in the user's units."""
    user = objective.model.to_user(params)
    return design(case.X, user), case.data[1], case.w, user


@every_case
def test_value_score_and_q_are_the_oracles(case):
    objective = case.objective()
    at, other = case.somewhere(objective), case.somewhere(objective, seed=1)
    Z, y, w, user = oracle_arguments(case, objective, at.params)
    resp, rows = oracle.posterior(Z, y, *user)
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-12)
    model = objective.model
    score = oracle.score(Z, y, w, *user)
    for v in np.eye(objective.size):  # slopes along tangents, which are the same in any units
        tangent = objective.coordinates.push(at.theta, at.params, v)
        slope = sum(np.sum(g * t) for g, t in zip(score, model.to_user_tangent(tangent), strict=True))
        assert e.gradient @ v * w.sum() == pytest.approx(slope, rel=1e-9, abs=1e-9 * w.sum())
    for point in (at, other):
        expected = oracle.q(Z, y, w, resp, *model.to_user(point.params)) / w.sum()
        assert objective.q(point, e.stats) == pytest.approx(expected, rel=1e-11)


@every_case
def test_m_step_and_start_are_the_oracles(case):
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    Z, y, w, user = oracle_arguments(case, objective, at.params)
    resp, _ = oracle.posterior(Z, y, *user)
    new = model.to_user(objective.evaluate(at).em_point.params)
    for x, expected in zip(new, oracle.m_step(Z, y, w, resp), strict=True):
        np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-10)
    begin = model.to_user(case.start(objective).params)
    for x, expected in zip(begin, oracle.m_step(Z, y, w, case.resp(model.k)), strict=True):
        np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", REGRESSION + SYMMETRIC_REGRESSION, ids=str)
def test_em_is_the_gradient_times_p_and_the_correction(case):
    objective = case.objective()
    _, correction = em_step_in_parts(objective, case.somewhere(objective))
    assert not correction.coefficients.any()
    if hasattr(correction, "variances"):
        assert (correction.variances < 0).all()


@every_case
def test_new_rows_and_files(case, tmp_path):
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights, random_state=0, stop=Stop(gain=1e-8))
    rng = np.random.default_rng(0)
    X, y = 5 + 3 * rng.normal(size=(40, case.X.shape[1])), 4 * rng.normal(size=40)
    resp, logs = oracle.posterior(design(X, found.params), y, *found.params)
    np.testing.assert_allclose(found.log_density((X, y)), logs, rtol=1e-10)
    np.testing.assert_allclose(found.responsibilities((X, y)), resp, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.predict((X, y)), resp.argmax(axis=1))
    assert found.log_likelihood == pytest.approx(found.log_density(case.data) @ case.w, rel=1e-12)
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.log_density((X, y)), found.log_density((X, y)))
    assert repr(again.model) == repr(found.model)
    with pytest.raises(ValueError, match=r"X: RegressionMixture is a model of responses: the data must be a tuple \(X, y\)"):
        found.predict(X)
    with pytest.raises(ValueError, match=r"y must have 1 column for RegressionMixture, got 2"):
        found.predict((X, np.column_stack([y, y])))


def test_one_component_is_least_squares():
    X, y = REGRESSION[0].data
    found = emcore.fit(RegressionMixture(1), (X, y))
    Z = np.column_stack([np.ones(len(X)), X])
    b, rss = np.linalg.lstsq(Z, y, rcond=None)[:2]
    np.testing.assert_allclose(found.params.coefficients[0], b, rtol=1e-10)
    np.testing.assert_allclose(found.params.variances, rss / len(y), rtol=1e-10)
    assert found.steps <= 2


def test_units_and_offsets_change_nothing():
    """Covariates a million standard deviations from the origin, in any units."""
    X, y = REGRESSION[0].data
    X, y = np.round(64 * X) / 64, np.round(64 * y) / 64
    plain = emcore.fit(RegressionMixture(3), (X, y), random_state=0)
    far = emcore.fit(RegressionMixture(3), (2.0**-10 * (X + 2.0**22), 2.0**7 * (y - 2.0**20)), random_state=0)
    np.testing.assert_allclose(far.log_likelihood, plain.log_likelihood - len(y) * 7 * np.log(2.0), rtol=1e-11)
    np.testing.assert_allclose(far.params.coefficients[:, 1:], 2.0**17 * plain.params.coefficients[:, 1:], rtol=1e-7)
    np.testing.assert_allclose(far.params.variances, 2.0**14 * plain.params.variances, rtol=1e-7)


def test_collinear_covariates_are_fitted_and_a_constant_one_is_reported():
    X, y = REGRESSION[0].data
    plain = emcore.fit(RegressionMixture(2), (X, y), random_state=0)
    start = {**plain.params._asdict(), "coefficients": np.column_stack([plain.params.coefficients, np.zeros(2)])}
    twice = emcore.fit(RegressionMixture(2), (np.column_stack([X, X[:, 0] - 2 * X[:, 1]]), y), start=start)
    assert twice.value == pytest.approx(plain.value, abs=1e-10)
    with pytest.warns(UserWarning, match="X is constant in column 2: beside an intercept its coefficient is not known"):
        constant = emcore.fit(RegressionMixture(2), (np.column_stack([X, np.full(len(X), 3.0)]), y), start=start)
    assert constant.value == pytest.approx(plain.value, abs=1e-10)
    ones = np.column_stack([X, np.ones(len(X))])  # without an intercept a column of ones is one
    same = emcore.fit(RegressionMixture(2, intercept=False), (ones, y), start={
        **plain.params._asdict(), "coefficients": np.roll(plain.params.coefficients, -1, axis=1)
    })  # fmt: skip
    assert same.value == pytest.approx(plain.value, abs=1e-10)


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_whole_weights_are_rows_repeated(case):
    X, y = case.data
    w = np.random.default_rng(1).integers(0, 4, size=len(y))
    objectives = [
        ModelObjective(case.build(), source, n_threads=1)
        for source in (as_source((X, y), w), as_source((np.repeat(X, w, axis=0), np.repeat(y, w))))
    ]
    user = case.objective().model.to_user(case.somewhere(case.objective()).params)
    a, b = (o.evaluate(o.point_of(o.model.from_user(user))) for o in objectives)
    assert a.value == pytest.approx(b.value, rel=1e-12)
    for x, y in zip(*(o.model.to_user(e.em_point.params) for o, e in zip(objectives, (a, b), strict=True)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9)


@pytest.mark.parametrize("case", KINDS, ids=str)
@pytest.mark.parametrize("junk", [np.nan, np.inf, 1.7e308])
def test_rows_of_weight_zero_may_hold_anything(case, junk):
    X, y = (a.copy() for a in case.data)
    w = np.ones(len(y))
    w[[0, 51]] = 0.0
    found = []
    for _ in range(2):
        objective = ModelObjective(case.build(), as_source((X, y), w), n_threads=1)
        e = objective.evaluate(case.somewhere(case.objective()).theta)
        H = objective.hvp(e, np.eye(objective.size))
        found.append((e.value, e.gradient.tobytes(), H.tobytes()))
        X[[0, 51]], y[[0, 51]] = junk, junk
    assert found[0] == found[1]


def test_threads_change_no_bit():
    data = line_rows(3, 4, 30_000, 2.0, False)(np.random.default_rng(0))[0]
    found = []
    for threads in (1, 2, 4):
        objective = ModelObjective(RegressionMixture(3), as_source(data), n_threads=threads)
        at = objective.point(np.random.default_rng(1).normal(size=objective.size))
        assert threads_start(objective, at)
        e = objective.evaluate(at)
        found.append((e.value, e.gradient.tobytes(), e.em_point.theta.tobytes(), e.gain))
    assert found[0] == found[1] == found[2]


def test_passes_on_every_target(target):
    for case in KINDS:
        objective = case.objective()
        at = case.somewhere(objective)
        e = objective.evaluate(at)
        Z, y, w, user = oracle_arguments(case, objective, at.params)
        if not hasattr(user, "weights"):
            user = (np.array([0.5, 0.5]), np.stack([user.coefficients, -user.coefficients]), np.ones(2))
        assert e.value == pytest.approx(w @ oracle.posterior(Z, y, *user)[1] / w.sum(), rel=1e-12)


def test_a_component_on_a_line_sits_at_its_floor():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = np.where(np.arange(60) % 2, 2 * x, -x + rng.normal(size=60))
    start = {"weights": [0.5, 0.5], "coefficients": [[0.0, 2.0], [0.0, -1.0]], "variances": [0.01, 1.0]}
    found = emcore.fit(RegressionMixture(2), (x[:, None], y), start=start)
    assert found.status is Status.BOUNDARY
    assert found.boundary == ("the variance of component 0 is at its floor",)
    with pytest.warns(emcore.ConvergenceWarning):
        broken = emcore.fit(RegressionMixture(2, reg=0), (x[:, None], y), start=start)
    assert broken.status is Status.COLLAPSED


def test_what_is_fixed():
    X, y = REGRESSION[0].data
    start = emcore.fit(RegressionMixture(3), (X, y), random_state=0).params
    mask = np.zeros((3, 3), dtype=bool)
    mask[0, 0] = True
    with pytest.raises(ValueError, match="fixed: an intercept can be fixed only with all coefficients of its component"):
        emcore.fit(RegressionMixture(3), (X, y), start=start, fixed={"coefficients": mask})
    mask[0] = mask[1, 1] = True
    moved = start._replace(coefficients=start.coefficients + 0.25)
    found = emcore.fit(RegressionMixture(3), (X, y), start=moved, fixed={"coefficients": mask})
    np.testing.assert_array_equal(found.params.coefficients[mask], moved.coefficients[mask])
    assert found.status.ok


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("case", KINDS, ids=str)
def test_every_start_works(start, case):
    assert emcore.fit(case.build(), case.data, start=start, sample_weight=case.weights, random_state=0).status.ok


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variances": [1.0, 0.0, 1.0]}, "start: variances must be > 0 and above the floor: that of component 1"),
        ({"coefficients": np.ones((3, 2))}, "start: coefficients must have shape (3, 3) (the intercept first), got (3, 2)"),
    ],
)
def test_bad_parameters_are_refused(given, message):
    start = {"weights": np.ones(3) / 3, "coefficients": np.ones((3, 3)), "variances": np.ones(3)} | given
    with pytest.raises(ValueError, match=re.escape(message)):
        emcore.fit(RegressionMixture(3), REGRESSION[0].data, start=start)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: RegressionMixture(0), ValueError, "n_components must be >= 1"),
        (lambda: RegressionMixture(2, intercept=1), TypeError, "intercept must be True or False, got 1"),
        (lambda: RegressionMixture(2, reg=0.5), ValueError, "reg must be below 0.5"),
        (lambda: SymmetricRegressionMixture(-1.0), ValueError, "variance must be a finite number > 0"),
    ],
)
def test_bad_options_are_refused(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()


# The symmetric mixture


@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_operators_of_the_symmetric_mixture(variance):
    """Balakrishnan, Wainwright and Yu (2017): the EM operator, and the gradient operator of step alpha."""
    X, y = SYMMETRIC_REGRESSION[0].data
    theta, alpha = np.array([0.5, -0.2, 0.9]), 0.5
    objective = ModelObjective(SymmetricRegressionMixture(variance), as_source((X, y)), n_threads=1)
    e = objective.evaluate(theta)
    v = np.tanh(y * (X @ theta) / variance)
    np.testing.assert_allclose(e.em_point.theta, np.linalg.solve(X.T @ X, X.T @ (v * y)), rtol=1e-11)
    first = theta + alpha * np.mean((v * y)[:, None] * X - X * (X @ theta)[:, None], axis=0)
    np.testing.assert_allclose(theta + alpha * variance * e.gradient, first, rtol=1e-12)
    solver, stop = GradientAscent(step_size=alpha * variance), Stop(gain=0, max_passes=2)
    stepped = solve(objective, solver, objective.point(theta), stop=stop)
    np.testing.assert_allclose(stepped.theta, first, rtol=1e-12)
    rows = oracle.posterior(X, y, np.full(2, 0.5), np.stack([theta, -theta]), np.full(2, variance))[1]
    assert e.value == pytest.approx(rows.mean(), rel=1e-12)


def test_opposite_coefficients_are_the_same_fit():
    case = SYMMETRIC_REGRESSION[0]
    found = emcore.fit(
        case.build(), case.data, sample_weight=case.weights, start="random-responsibilities", n_starts=6, random_state=0
    )
    assert {bool(s.params.coefficients[0] > 0) for s in found.starts} == {True, False}
    assert all(s.best for s in found.starts)


def test_em_finds_the_signs():
    data = line_rows(2, 3, 400, 3.0, False, signed=True)(np.random.default_rng(5))[0]
    objective = ModelObjective(SymmetricRegressionMixture(1.0), as_source(data), n_threads=1)
    truth = 1.5 * np.array([-1.0, 1.0, -1.0]) / 3**0.5
    found = solve(objective, EM(), objective.point(0.8 * truth))
    assert found.status.ok
    assert np.linalg.norm(found.theta - truth) < 0.25


# Gates


def log_gate(X, gate):
    """Return the logarithms of the mixture weights of rows (n, k)."""
    logits = np.column_stack([np.column_stack([np.ones(len(X)), X]) @ gate.T, np.zeros(len(X))])
    return logits - logsumexp(logits, axis=1)[:, None]


@pytest.mark.parametrize("case", GATED, ids=str)
def test_gated_pass_and_step_are_the_oracles(case, target):
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    Z, y, w, user = oracle_arguments(case, objective, at.params)
    logs = log_gate(case.X, user.gate)
    joint = norm.logpdf(y[:, None], Z @ user.coefficients.T, np.sqrt(user.variances)) + logs
    rows = logsumexp(joint, axis=1)
    resp = np.exp(joint - rows[:, None])
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-12)
    expected_q = np.sum(w[:, None] * resp * joint) / w.sum()
    assert objective.q(at, e.stats) == pytest.approx(expected_q, rel=1e-11)  # at the point itself the quadratic is q
    new = model.to_user(e.em_point.params)
    _, coefficients, variances = oracle.m_step(Z, y, w, resp)
    np.testing.assert_allclose(new.coefficients, coefficients, rtol=1e-9)
    np.testing.assert_allclose(new.variances, variances, rtol=1e-9)
    # Newton's step for the gate, with Böhning's bound in place of the Hessian.
    G = np.column_stack([np.ones(len(case.X)), case.X])
    slope = ((w[:, None] * (resp - np.exp(logs)))[:, :-1].T @ G).ravel()
    k = model.k
    bound = np.kron(0.5 * (np.eye(k - 1) - 1.0 / k), (w[:, None] * G).T @ G)
    np.testing.assert_allclose((new.gate - user.gate).ravel(), np.linalg.solve(bound, slope), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("case", GATED, ids=str)
def test_the_quadratic_of_the_gate_lies_below_q(case):
    objective = case.objective()
    model, at = objective.model, case.somewhere(objective)
    e = objective.evaluate(at)
    resp = np.empty((len(case.X), model.k))
    run(model.kernel(at.params), case.source().block(0), resp=resp)
    w = case.w
    rng = np.random.default_rng(0)
    for size in (0.01, 0.1, 1.0, 10.0):
        other = at.params._replace(gate=at.params.gate + size * rng.normal(size=at.params.gate.shape))
        q = np.sum(w[:, None] * resp * log_gate(case.X, model.to_user(other).gate))
        here = np.sum(w[:, None] * resp * log_gate(case.X, model.to_user(at.params).gate))
        change = objective.q(objective.point_of(other), e.stats) - objective.q(at, e.stats)
        assert change * w.sum() <= q - here + 1e-9 * w.sum()


def test_a_gate_in_the_users_units_and_a_file(tmp_path):
    case = GATED[0]
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights, random_state=0, stop=Stop(gain=1e-9))
    X, y = case.data
    joint = norm.logpdf(y[:, None], design(X, found.params) @ found.params.coefficients.T, np.sqrt(found.params.variances))
    joint += log_gate(X, found.params.gate)
    resp = np.exp(joint - logsumexp(joint, axis=1)[:, None])
    np.testing.assert_allclose(found.log_density((X, y)), logsumexp(joint, axis=1), rtol=1e-9)
    np.testing.assert_allclose(found.responsibilities((X, y)), resp, rtol=0, atol=1e-9)
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.log_density((X, y)), found.log_density((X, y)))

    def moved(linear):  # the same functions of 4 x - 4096
        return np.column_stack([linear[:, 0] + 1024.0 * linear[:, 1:].sum(axis=1), linear[:, 1:] / 4.0])

    start = found.params._replace(gate=moved(found.params.gate), coefficients=moved(found.params.coefficients))
    far = emcore.fit(case.build(), (4.0 * X - 4096.0, y), sample_weight=case.weights, start=start, stop=Stop(gain=1e-9))
    assert far.trace.value[0] == pytest.approx(found.value, rel=1e-9)


def test_relabelled_gates_are_the_same_fit():
    objective = GATED[1].objective()
    model, at = objective.model, GATED[1].somewhere(objective)
    for order in ([1, 2, 0], [2, 1, 0]):
        other = model.permuted(at.params, order)
        assert objective.evaluate(objective.point_of(other)).value == pytest.approx(objective.evaluate(at).value, rel=1e-12)
        back = model.permuted(other, np.argsort(order))
        for x, y in zip(back, at.params, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)


def test_what_is_fixed_of_a_gate():
    case = GATED[1]
    start = case.objective().model.to_user(case.start(case.objective()).params)
    mask = np.zeros((2, 3), dtype=bool)
    mask[0, 1] = True
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights, start=start, fixed={"gate": mask})
    assert found.status.ok
    assert found.params.gate[0, 1] == start.gate[0, 1]
    e = found.evaluation
    assert np.abs(found.evaluation.gradient).max() < 1e-5
    best = e.objective.q(e.em_point, e.stats)
    for seed in range(5):
        near = e.objective.point(e.em_point.theta + 1e-3 * np.random.default_rng(seed).normal(size=e.objective.size))
        assert e.objective.q(near, e.stats) < best
    case = GATED[0]
    start, mask = case.objective().model.to_user(case.start(case.objective()).params), np.array([[True, False]])
    with pytest.raises(ValueError, match="fixed: an intercept of the gate can be fixed only with all coefficients"):
        emcore.fit(case.build(), case.data, start=start, fixed={"gate": mask})


# Prediction of responses


@pytest.mark.filterwarnings("ignore::emcore.result.ConvergenceWarning")
@pytest.mark.parametrize("case", [*REGRESSION, *GATED, *SYMMETRIC_REGRESSION, *MISSING, *NORMAL_COVARIATES], ids=str)
def test_a_predicted_response_is_the_mean_of_its_density(case, tmp_path):
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights, random_state=0, stop=Stop(max_passes=20))
    X = case.X[:7]
    y = np.mean(case.data[1]) + max(1.0, np.std(case.data[1])) * np.linspace(-60, 60, 24_001)
    expected = []
    for row in X:  # by the trapezoidal rule, which is exact to rounding for densities like these once it is fine enough
        density = np.exp(found.log_density((np.repeat(row[None], len(y), axis=0), y)))
        expected.append(density @ y / density.sum())
        assert expected[-1] == pytest.approx(density[::2] @ y[::2] / density[::2].sum(), rel=1e-9, abs=1e-9)
    got = found.predict_response(X)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    found.save(tmp_path / "fit")
    np.testing.assert_array_equal(emcore.load(tmp_path / "fit.npz").predict_response(as_source(X, missing=True)), got)


@pytest.mark.parametrize("case", INVERSE, ids=str)
def test_a_predicted_count_is_the_mean_of_its_probabilities(case, tmp_path):
    found = emcore.fit(case.build(), case.data, sample_weight=case.weights)
    K, counts = case.X[:7], np.arange(1000)
    probabilities = [np.exp(found.log_density((np.repeat(row[None], 1000, axis=0), counts))) for row in K]
    np.testing.assert_allclose(np.sum(probabilities, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(found.predict_response(K), probabilities @ counts, rtol=1e-11)
    with pytest.raises(ValueError, match=r"X must be the matrix K, \(n, d\), with . columns and numbers >= 0"):
        found.predict_response(-K)
    found.save(tmp_path / "fit")
    np.testing.assert_array_equal(emcore.load(tmp_path / "fit.npz").predict_response(K), found.predict_response(K))


def test_a_part_without_expected_responses_says_so(monkeypatch):
    found = emcore.fit(INVERSE[0].build(), INVERSE[0].data)
    monkeypatch.delattr(type(found.model.emission), "expected_responses")
    with pytest.raises(ValueError, match="PoissonInverse cannot predict a response: Inverse has no expected_responses"):
        found.predict_response(INVERSE[0].X)


def test_what_cannot_be_predicted_is_refused():
    found = emcore.fit(RegressionMixture(1), REGRESSION[0].data)
    with pytest.raises(ValueError, match=r"X must be covariates alone, \(n, d\), not a pair"):
        found.predict_response(REGRESSION[0].data)
    with pytest.raises(ValueError, match="X must have 2 columns, as the model was fitted on, got 1"):
        found.predict_response(REGRESSION[0].X[:, :1])
    with pytest.raises(ValueError, match=r"X must be covariates alone, \(n, d\), and this source holds responses too"):
        found.predict_response(REGRESSION[0].source())
    holed = np.where(np.arange(8).reshape(4, 2) == 5, np.nan, REGRESSION[0].X[:4])
    with pytest.raises(ValueError, match=r"X has missing values \(NaN\), which RegressionMixture does not take"):
        found.predict_response(as_source(holed, missing=True))
    plain = emcore.fit(emcore.models.GaussianMixture(1), REGRESSION[0].X)
    with pytest.raises(ValueError, match="GaussianMixture has no responses"):
        plain.predict_response(REGRESSION[0].X)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (RegressionMixture(2, gating=True), "weights that are the same for all rows$"),
        (SymmetricRegressionMixture(0.25), "regressions of opposite coefficients$"),
    ],
    ids=["gated", "symmetric"],
)
def test_models_without_held_responsibilities_say_why(model, why):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"solver 'sparse' needs \['sparse'\], .* does not provide: .*" + why):
        emcore.fit(model, (rng.normal(size=(40, 2)), rng.normal(size=40)), solver="sparse")
