"""Information and standard errors against an independent log-likelihood, Oakes' formula and SEM."""

import itertools
from functools import cache

import mpmath
import numpy as np
import pytest
from cases import OTHERS, SMALL
from derivatives import derivative, derivatives

import emcore
from emcore import diagnostics
from emcore.data import as_source, faithful, london_deaths
from emcore.models import COVARIANCES, Dirichlet, GaussianMixture, NormalInverseWishart, PoissonMixture
from emcore.models.student import ExpandedStudent
from emcore.objective import ModelObjective
from emcore.result import Stop
from emcore.solve import solve
from emcore.solvers import EM, Newton

every_covariance = pytest.mark.parametrize("kind", COVARIANCES)


@cache
def old_faithful(kind, coordinates="free"):
    X = faithful()
    start = GaussianMixture(2, kind).bind(as_source(X))
    at = start.to_user(start.start(as_source(X).block(0), np.eye(2)[(X[:, 0] > 3).astype(int)]))
    return emcore.fit(GaussianMixture(2, kind), X, start=at, solver=Newton(), stop=Stop(gain=1e-16), coordinates=coordinates)


def matrices(kind, entries):
    """Return the two covariance matrices of the entries that are free."""
    if kind == "full":
        return [np.array([[a, b], [b, c]]) for a, b, c in entries.reshape(2, 3)]
    if kind == "tied":
        a, b, c = entries
        return [np.array([[a, b], [b, c]])] * 2
    if kind == "diag":
        return [np.diag(v) for v in entries.reshape(2, 2)]
    return [v * np.eye(2) for v in entries]


def flat(kind, params):
    """Return what is free of the parameters: a weight, means, lower triangles, variances."""
    covariances = params.covariances
    if kind in ("full", "tied"):
        covariances = covariances.reshape(-1, 2, 2)[:, [0, 1, 1], [0, 0, 1]]
    return np.concatenate([params.weights[:1], params.means.ravel(), covariances.ravel()])


def log_densities(kind, phi, X):
    """Return the log-densities of rows at complex parameters."""
    weights, means = (phi[0], 1 - phi[0]), phi[1:5].reshape(2, 2)
    joint = []
    for a, m, S in zip(weights, means, matrices(kind, phi[5:]), strict=True):
        det = S[0, 0] * S[1, 1] - S[0, 1] ** 2
        r = X - m
        q = (S[1, 1] * r[:, 0] ** 2 - 2 * S[0, 1] * r[:, 0] * r[:, 1] + S[0, 0] * r[:, 1] ** 2) / det
        joint.append(np.log(a) - 0.5 * (q + np.log(det)) - np.log(2 * np.pi))
    top = np.maximum(joint[0].real, joint[1].real)
    return top + np.log(np.exp(joint[0] - top) + np.exp(joint[1] - top))


def complex_steps(f, phi):
    """Return the derivatives of a function of real parameters with respect to each of them."""
    return np.array([f(phi + 1e-20j * e).imag for e in np.eye(len(phi))]) / 1e-20


def scores(kind, phi, X):
    """Return the gradients of the rows' log-densities, (p, n)."""
    return complex_steps(lambda x: log_densities(kind, x, X), phi)


def gradient(kind, phi):
    """Return the gradient of the log-likelihood of Old Faithful."""
    return scores(kind, phi, faithful()).sum(axis=1)


def hessian(slope, phi):
    """Return the Hessian by differences of complex-step gradients, sixth order."""
    moves = np.diag(np.abs(phi))  # each in its own size
    H = np.array([derivative(lambda t, v=v: slope(phi + t * v), 1e-3, order=6) for v in moves]) / np.diag(moves)[:, None]
    return 0.5 * (H + H.T)


@cache
def oracle(kind):
    """Return the Hessian and the estimates."""
    phi = flat(kind, old_faithful(kind).params)
    return hessian(lambda x: gradient(kind, x), phi), phi


@every_covariance
@pytest.mark.parametrize("coordinates", ["free", "original"])
def test_standard_errors_are_those_of_a_dense_hessian(kind, coordinates):
    H, _ = oracle(kind)
    expected = np.sqrt(np.diag(np.linalg.inv(-H)))
    errors = old_faithful(kind, coordinates).standard_errors()
    np.testing.assert_allclose(flat(kind, errors), expected, rtol=1e-6)
    assert errors.weights[0] == pytest.approx(errors.weights[1], rel=1e-12)
    if kind in ("full", "tied"):
        np.testing.assert_allclose(errors.covariances, np.swapaxes(errors.covariances, -1, -2), rtol=1e-12)


@every_covariance
def test_robust_errors_are_the_sandwich(kind):
    H, phi = oracle(kind)
    rows = scores(kind, phi, faithful())
    bread = np.linalg.inv(-H)
    expected = np.sqrt(np.diag(bread @ (rows @ rows.T) @ bread))
    fit = old_faithful(kind)
    np.testing.assert_allclose(flat(kind, fit.standard_errors(robust=True)), expected, rtol=1e-6)
    found = diagnostics.information(fit)
    with pytest.raises(ValueError, match="robust"):
        found.standard_errors(robust=True)


# Combinations: what is fixed, priors, weights

S = [-3, -2, -1]
FIXED = {"a weight": [0], "an entry of a mean": [2], "a mean": [1, 2], "a covariance": S, "several": [0, 3, *S]}


def mask_of(kind, entries):
    """Return the masks that fix these entries of `flat`."""
    phi = np.zeros(11 if kind == "full" else 8, dtype=bool)
    phi[entries] = True
    whole = phi[5:].reshape(-1, 3).all(axis=1)
    covariances = np.repeat(whole, 4).reshape((2, 2, 2) if kind == "full" else (2, 2))
    return {"weights": phi[0], "means": phi[1:5].reshape(2, 2), "covariances": covariances}


@pytest.mark.parametrize("kind", ["full", "tied"])
@pytest.mark.parametrize("what", FIXED)
@pytest.mark.parametrize("coordinates", ["free", "original"])
def test_standard_errors_of_what_is_free(kind, what, coordinates):
    X, entries = faithful(), FIXED[what]
    at = old_faithful(kind).params
    # Away from where they would be without.
    start = {"weights": [0.4, 0.6], "means": at.means + 0.05, "covariances": 1.1 * at.covariances}
    mask = mask_of(kind, entries)
    options = {"solver": Newton(), "stop": Stop(gain=1e-16), "coordinates": coordinates}
    fit = emcore.fit(GaussianMixture(2, kind), X, start=start, fixed=mask, **options)
    phi = flat(kind, fit.params)
    free = np.delete(np.arange(len(phi)), entries)
    bread = np.linalg.inv(-hessian(lambda x: gradient(kind, x), phi)[np.ix_(free, free)])
    s = scores(kind, phi, X)[free]
    meat = bread @ (s @ s.T) @ bread
    for robust, expected in ((False, bread), (True, meat)):
        errors = flat(kind, fit.standard_errors(robust=robust))
        np.testing.assert_allclose(errors[free], np.sqrt(np.diag(expected)), rtol=1e-6)
        assert not errors[entries].any()


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_spectrum_and_rate_where_an_entry_of_a_mean_is_fixed(kind):
    """The free entries of that mean and the covariance depend on each other: P is not the inverse complete information."""
    at = old_faithful(kind).params
    start = {"weights": at.weights, "means": at.means + [0.3, 0.0], "covariances": at.covariances}
    fixed = {"means": np.array([[True, False], [True, False]])}
    fit = emcore.fit(GaussianMixture(2, kind), faithful(), start=start, fixed=fixed, stop=Stop(gain=1e-17))
    dense = diagnostics.information(fit)
    values, _ = diagnostics.spectrum(fit, k=2)
    np.testing.assert_allclose(values, dense.fractions[::-1][:2], rtol=0, atol=1e-6)
    objective = fit.evaluation.objective
    assert diagnostics.rate(objective, fit.evaluation).rate == pytest.approx(dense.fractions[-1], abs=2e-5)
    assert diagnostics.condition(objective, fit.evaluation).rate == pytest.approx(dense.fractions[-1], abs=2e-5)


NIW = NormalInverseWishart([3.0, 70.0], 5.0, 12.0, [[2.0, 5.0], [5.0, 300.0]])


def log_prior(phi):
    """Return the logarithm of the prior density of full covariances, but for constants, at complex parameters."""
    total = 2.0 * (np.log(phi[0]) + np.log(1 - phi[0]))
    for m, S in zip(phi[1:5].reshape(2, 2), matrices("full", phi[5:]), strict=True):
        det = S[0, 0] * S[1, 1] - S[0, 1] ** 2
        P = np.array([[S[1, 1], -S[0, 1]], [-S[0, 1], S[0, 0]]]) / det
        r = m - np.array(NIW.mean)
        total = total - 0.5 * ((NIW.dof + 4) * np.log(det) + np.sum(np.array(NIW.scale) * P) + NIW.strength * r @ P @ r)
    return total


def test_standard_errors_with_priors():
    X, model = faithful(), GaussianMixture(2, prior=NIW, weights_prior=Dirichlet(3.0))
    fit = emcore.fit(model, X, start=old_faithful("full").params, solver=Newton(), stop=Stop(gain=1e-16))
    phi = flat("full", fit.params)

    def slope(x):
        return gradient("full", x) + complex_steps(log_prior, x)

    assert np.abs(slope(phi) * np.abs(phi)).max() < 1e-5
    bread = np.linalg.inv(-hessian(slope, phi))
    np.testing.assert_allclose(flat("full", fit.standard_errors()), np.sqrt(np.diag(bread)), rtol=1e-6)
    s = scores("full", phi, X)
    s = s - s.mean(axis=1, keepdims=True)  # a prior moves the mean of the scores, which is no spread
    expected = np.sqrt(np.diag(bread @ (s @ s.T) @ bread))
    np.testing.assert_allclose(flat("full", fit.standard_errors(robust=True)), expected, rtol=1e-6)


def test_sandwich_of_weighted_rows():
    """Fractional weights, and rows of weight 0 that hold nothing."""
    X, w = faithful(), np.random.default_rng(0).choice([0.0, 0.3, 1.0, 2.5], size=272)
    empty = np.where(w[:, None] > 0, X, np.nan)
    start = old_faithful("full").params
    fit = emcore.fit(GaussianMixture(2), empty, sample_weight=w, start=start, solver=Newton(), stop=Stop(gain=1e-16))
    phi = flat("full", fit.params)
    bread = np.linalg.inv(-hessian(lambda x: scores("full", x, X) @ w, phi))
    s = scores("full", phi, X)
    for robust, expected in ((False, bread), (True, bread @ (w * s @ s.T) @ bread)):
        np.testing.assert_allclose(flat("full", fit.standard_errors(robust=robust)), np.sqrt(np.diag(expected)), rtol=1e-6)


def test_standard_errors_of_the_poisson_mixture_are_those_of_fifty_digits():
    deaths, days = london_deaths()
    start = {"weights": [0.3, 0.7], "rates": [[1.0], [3.0]]}
    model = PoissonMixture(2)
    fit = emcore.fit(model, deaths, sample_weight=days, start=start, solver=Newton(), stop=Stop(gain=1e-18))

    def log_likelihood(p, a, b):
        def density(x):
            return p * mpmath.exp(-a) * a**x + (1 - p) * mpmath.exp(-b) * b**x

        return sum(n * mpmath.log(density(int(x))) for (x,), n in zip(deaths, days.tolist(), strict=True))

    with mpmath.workdps(50):
        phi = [mpmath.mpf(float(x)) for x in (fit.params.weights[0], *fit.params.rates[:, 0])]
        H = mpmath.matrix(3, 3)
        for i, j in itertools.product(range(3), repeat=2):
            order = tuple((i == m) + (j == m) for m in range(3))
            H[i, j] = -mpmath.diff(log_likelihood, phi, order)
        bread = H**-1
        expected = [float(mpmath.sqrt(bread[i, i])) for i in range(3)]
    errors = fit.standard_errors()
    np.testing.assert_allclose([errors.weights[0], *errors.rates[:, 0]], expected, rtol=1e-6)


def test_away_from_a_maximum_there_are_none():
    with pytest.warns(emcore.ConvergenceWarning):
        fit = emcore.fit(GaussianMixture(2), faithful(), start=old_faithful("tied").params._replace(
            covariances=[np.diag([0.3, 40.0])] * 2), stop=Stop(max_passes=2))  # fmt: skip
    with pytest.raises(ValueError, match="not at a maximum: one EM step still gains"):
        fit.standard_errors()


def fitted(case):
    objective = case.objective()
    point = solve(objective, Newton(), case.start(objective), stop=Stop(gain=1e-16)).point
    return objective, objective.evaluate(point)


@pytest.mark.parametrize("case", SMALL + OTHERS, ids=str)
def test_oakes_and_sem_agree(case):
    """Oakes: the Hessian of q and the cross derivative of its gradient; SEM: complete information and the EM map's slope."""
    objective, e = fitted(case)
    found = diagnostics.information(objective, e)
    W, p = e.stats.weight, objective.size

    def both(theta):
        there = objective.evaluate(theta)
        return np.concatenate([objective.gradient(e.point, there.stats) * W, there.em_point.theta])

    slopes = derivatives(both, e.point.theta, 1e-4)
    cross, DM = slopes[:, :p], slopes[:, p:]
    oakes = -W * objective.q_hvp(e.point, e.stats, np.eye(p)) - cross.T
    size = np.abs(found.observed).max()
    assert np.abs(found.observed - oakes).max() <= 1e-6 * size
    sem = found.complete @ (np.eye(p) - DM.T)
    assert np.abs(found.observed - sem).max() <= 1e-5 * size
    np.testing.assert_allclose(found.covariance(), np.linalg.inv(oakes), rtol=0, atol=1e-5 * np.abs(found.covariance()).max())
    np.testing.assert_allclose(found.fractions, np.sort(np.linalg.eigvals(DM.T).real), rtol=0, atol=1e-5)

    differenced, before = diagnostics.oakes(objective, e), objective.passes
    assert np.abs(differenced.observed - found.observed).max() <= 1e-6 * size
    assert np.abs(differenced.complete - found.complete).max() <= 1e-6 * np.abs(found.complete).max()
    supplemented = diagnostics.sem(objective, e)
    assert np.abs(supplemented.DM - DM.T).max() <= 1e-5 * max(1.0, np.abs(DM).max())
    assert np.abs(supplemented.information.observed - found.observed).max() <= 1e-5 * size
    assert supplemented.asymmetry <= 1e-4
    assert supplemented.passes == 2 * p
    assert objective.passes == before  # monitoring
    np.testing.assert_allclose(
        supplemented.covariance(), found.covariance(), rtol=0, atol=1e-4 * np.abs(found.covariance()).max()
    )
    for other in (differenced, supplemented.information):
        for x, y in zip(other.standard_errors(), found.standard_errors(), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_differences_along_constraints(kind):
    fit = old_faithful(kind, "original")
    expected = fit.standard_errors()
    for found in (diagnostics.oakes(fit), diagnostics.sem(fit).information):
        for x, y in zip(found.standard_errors(), expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5)


def test_oakes_where_a_model_has_no_hessian_products(monkeypatch):
    monkeypatch.setattr(ExpandedStudent, "provides", frozenset({"em", "gradient", "metric"}))
    rng = np.random.default_rng(5)
    X = np.concatenate([rng.standard_t(4, size=(80, 1)), 7 + rng.standard_t(4, size=(60, 1))])
    start = {"weights": [0.5, 0.5], "means": [[0.0], [7.0]], "covariances": [[[1.0]], [[1.0]]]}
    fits = [
        emcore.fit(emcore.models.StudentMixture(2, dof=4.0, expanded=expanded), X, start=start, stop=Stop(gain=1e-15))
        for expanded in (False, True)
    ]
    with pytest.raises(ValueError, match=r"the exact information, unlike `diagnostics\.oakes`, needs .'tangent'."):
        diagnostics.information(fits[1])
    exact, found = diagnostics.information(fits[0]), diagnostics.oakes(fits[1])
    for x, y in zip(found.standard_errors(), exact.standard_errors(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


# EM on -(x - c)'(I - A)(x - c)/2, whose complete information is the identity
A = np.array([[0.7, 0.2, 0.0], [0.2, 0.5, 0.1], [0.0, 0.1, 0.3]])
CENTRE = np.array([1.0, -2.0, 1e-4])


def linear(x):
    return CENTRE + A @ (x - CENTRE)


def test_sem_of_an_em_map_in_plain_python():
    found = diagnostics.sem(linear, CENTRE, complete=np.eye(3))
    assert "standard errors: " in str(found)
    np.testing.assert_allclose(found.DM, A, rtol=0, atol=1e-7)  # a step of 3e-9 beside -2
    assert (found.residual, found.passes, found.information) == (0.0, 7, None)
    np.testing.assert_allclose(found.fractions, np.linalg.eigvalsh(A), rtol=0, atol=1e-7)
    assert found.rate == found.fractions[-1]
    np.testing.assert_allclose(found.covariance(), np.linalg.inv(np.eye(3) - A), rtol=1e-6)
    np.testing.assert_allclose(found.standard_errors(), np.sqrt(np.diag(np.linalg.inv(np.eye(3) - A))), rtol=1e-6)
    assert f"rate {found.rate:.6f}" in str(found)
    climb = emcore.accelerate(linear, np.zeros(3))
    for again in (diagnostics.sem(climb), diagnostics.sem(linear, climb)):
        np.testing.assert_allclose(again.DM, A, rtol=0, atol=1e-7)
    assert diagnostics.rate(climb).rate == pytest.approx(found.rate, abs=1e-6)
    assert "gains" not in str(diagnostics.rate(climb))


def test_sem_tells_rows_from_columns():
    B = np.array([[0.5, 0.3], [0.0, 0.2]])
    found = diagnostics.sem(lambda x: B @ x, [0.0, 0.0], complete=np.diag([1.0, 2.0]))
    np.testing.assert_allclose(found.DM, B, rtol=0, atol=1e-12)
    assert found.asymmetry == pytest.approx(0.3 / 1.6)
    assert "asymmetric" in str(found)


@pytest.mark.parametrize(
    ("of", "at", "more", "error", "message"),
    [
        (linear, None, {}, ValueError, r"at must be the coordinates \(p,\)"),
        (linear, [np.nan], {}, ValueError, r"at must be the coordinates \(p,\)"),
        (linear, CENTRE, {"complete": np.eye(2)}, ValueError, r"complete must be a finite symmetric matrix \(3, 3\)"),
        (linear, CENTRE, {"complete": np.triu(np.ones((3, 3)))}, ValueError, "complete must be a finite symmetric matrix"),
        (linear, CENTRE, {"step": 0.0}, ValueError, "step must be a positive number, got 0.0"),
        (lambda x: np.log(x), [-1.0], {}, ValueError, "at: the EM map has no finite value there"),
        (3, CENTRE, {}, TypeError, "of must be a fit, an objective or an EM map, got a int"),
    ],
)
def test_what_sem_does_not_take(of, at, more, error, message):
    with pytest.raises(error, match=message):
        diagnostics.sem(of, at, **more)


def test_what_needs_a_gradient_refuses_a_map(tmp_path):
    climb = emcore.accelerate(linear, np.zeros(3))
    climb.save(tmp_path / "climb.npz")
    loaded = emcore.Acceleration.load(tmp_path / "climb.npz")
    refused = set(diagnostics.__all__) - {"rate", "sem"}
    for name in (name for name in refused if name.islower()):
        for of in (climb, climb.evaluation.objective, loaded):
            with pytest.raises(TypeError, match=r"of must be a fit of a model or a ModelObjective, .*diagnostics\.sem"):
                getattr(diagnostics, name)(of, np.zeros(3))


def test_what_sem_does_not_know():
    found = diagnostics.sem(linear, CENTRE)
    with pytest.raises(ValueError, match="complete: the complete data's information is not known"):
        found.covariance()
    with pytest.raises(ValueError, match="complete: a model knows its own"):
        diagnostics.sem(old_faithful("full"), complete=np.eye(11))
    away = diagnostics.sem(lambda x: 1.5 * x, [0.0], complete=[[1.0]])
    assert "no maximum" in str(away)
    with pytest.raises(ValueError, match="no strict maximum"):
        away.covariance()


def test_errors_are_of_the_model_not_of_the_coordinates():
    for case in SMALL + OTHERS:
        objective, e = fitted(case)
        original = case.objective(coordinates="original")
        at = original.point_of(e.point.params)
        a = diagnostics.standard_errors(objective, e)
        b = diagnostics.standard_errors(original, at)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5)


def test_fractions_and_rate_are_those_of_em():
    fit = old_faithful("full")
    found = diagnostics.information(fit)
    assert found.fractions[-1] == pytest.approx(0.24077, abs=1e-5)
    assert found.fractions[0] > -1e-6
    I_c = found.complete
    np.testing.assert_allclose(found.directions.T @ I_c @ found.directions, np.eye(len(I_c)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", SMALL + OTHERS, ids=str)
def test_lanczos_finds_the_spectrum(case):
    objective, e = fitted(case)
    dense = diagnostics.information(objective, e)
    before = objective.passes, objective.hessian_passes
    values, directions = diagnostics.spectrum(objective, e, k=3)
    assert (objective.passes, objective.hessian_passes) == before  # monitoring
    np.testing.assert_allclose(values, dense.fractions[::-1][:3], rtol=0, atol=1e-7)
    for value, v in zip(values, directions.T, strict=True):
        moved = v + e.precondition(objective.hvp(e, v))
        assert np.abs(moved - value * v).max() <= 1e-4 * np.abs(v).max()
    whole, _ = diagnostics.spectrum(objective, e, k=objective.size)
    np.testing.assert_allclose(whole, dense.fractions[::-1], rtol=0, atol=1e-12)


def test_intervals():
    found = diagnostics.information(old_faithful("full"))
    low, high = found.intervals(0.95).means
    errors = found.standard_errors().means
    np.testing.assert_allclose(high - low, 2 * 1.959963984540054 * errors, rtol=1e-12)
    np.testing.assert_allclose(0.5 * (high + low), found.params.means, rtol=1e-12)
    with pytest.raises(ValueError, match="level must be"):
        found.intervals(1.0)


def test_transformed_intervals_are_those_of_the_coordinates():
    """Logarithms of variances, and of two weights sqrt(2) times their contrast, are coordinates of the charts."""
    z = 1.959963984540054
    fit = old_faithful("diag")
    found = diagnostics.information(fit)
    ends = found.intervals(transformed=True)
    errors = np.sqrt(np.diag(found.covariance()))
    slices = fit.evaluation.objective.coordinates.slices
    variances = found.params.covariances
    width = np.exp(z * errors[slices["covariances"]]).reshape(2, 2)
    np.testing.assert_allclose(
        ends.covariances, np.stack((variances / width, variances * width)), rtol=1e-5
    )  # but for the floor
    w = found.params.weights
    odds, width = w / (1 - w), np.exp(z * np.sqrt(2) * errors[slices["weights"]])
    np.testing.assert_allclose(ends.weights[0], odds / width / (1 + odds / width), rtol=1e-10)
    np.testing.assert_allclose(ends.weights[1], odds * width / (1 + odds * width), rtol=1e-10)
    np.testing.assert_array_equal(ends.means, found.intervals().means)


def test_transformed_intervals_stay_where_the_parameters_live():
    level = 1 - 1e-12  # seven standard errors
    outside = 0
    for case in SMALL + OTHERS:
        objective, e = fitted(case)
        found = diagnostics.information(objective, e)
        plain, ends = found.intervals(level), found.intervals(level, transformed=True)
        for name, x, errors, bounds in zip(
            found.params._fields, found.params, found.standard_errors(), found.bounds, strict=True
        ):
            (low, high), straight = getattr(ends, name), getattr(plain, name)
            moving = errors > 0
            assert (low[moving] < x[moving]).all()
            assert (high[moving] > x[moving]).all()
            assert (low >= bounds[0]).all(), (case, name)
            assert (high <= bounds[1]).all(), (case, name)
            free = np.isinf(bounds[0])
            np.testing.assert_array_equal(np.stack((low, high))[:, free], straight[:, free])
            outside += int((straight[0] < bounds[0]).sum())
    assert outside > 0


def test_what_is_fixed_has_no_width():
    start = old_faithful("full").params._asdict()
    fit = emcore.fit(GaussianMixture(2), faithful(), start=start, fixed={"weights": True}, stop=Stop(gain=1e-15))
    ends = diagnostics.information(fit).intervals(transformed=True)
    np.testing.assert_array_equal(ends.weights, [fit.params.weights] * 2)
    assert (ends.covariances[1] > ends.covariances[0]).all()


def test_the_table():
    fit = old_faithful("full")
    found = diagnostics.information(fit, robust=True)
    head, *rows, last = str(found).splitlines()
    assert " ".join(head.split()) == "parameter estimate standard error robust error 95% interval, robust"
    assert len(rows) == 2 + 4 + 6  # lower triangles
    names = [row.split("]")[0] + "]" for row in rows]
    assert names[0] == "weights[0]"
    assert names[-3:] == ["covariances[1, 0, 0]", "covariances[1, 1, 0]", "covariances[1, 1, 1]"]
    cells = rows[3].split("]")[1].split()
    errors, ends = found.standard_errors(), found.intervals(robust=True)
    robust = found.standard_errors(robust=True)
    expected = [fit.params.means[0, 1], errors.means[0, 1], robust.means[0, 1], ends.means[0, 0, 1], ends.means[1, 0, 1]]
    assert [float(cell) for cell in cells if cell != ".."] == pytest.approx(expected, rel=5e-3)
    assert last == f"Largest fraction of missing information, EM's rate: {found.fractions[-1]:.4f}."


def test_a_table_without_errors_says_why():
    objective = old_faithful("full").evaluation.objective
    one = objective.model.params(np.array([0.5, 0.5]), np.zeros((2, 2)) + [[0.01], [-0.01]], np.array([np.eye(2)] * 2))
    text = str(diagnostics.information(objective, objective.point_of(one)))
    assert "No standard errors: no strict maximum" in text
    assert text.splitlines()[1].split() == ["weights[0]", "0.5"]
    assert "interval" not in text


def test_a_long_table_is_cut():
    rng = np.random.default_rng(0)
    fit = emcore.fit(PoissonMixture(1), rng.poisson(3.0, size=(50, 130)))
    text = str(diagnostics.information(fit))
    assert "rates[0, 98]" in text
    assert "rates[0, 99]" not in text
    assert "And 31 more" in text


def test_weights_count_as_repeated_rows():
    rng = np.random.default_rng(3)
    X = np.concatenate([rng.normal(size=(60, 1)), rng.normal(3, 1, size=(60, 1))])
    w = rng.integers(0, 3, size=120).astype(float)
    found = []
    for rows, weights in ((X, w), (np.repeat(X, w.astype(int), axis=0), None)):
        objective = ModelObjective(GaussianMixture(2), as_source(rows, weights), n_threads=1)
        params = objective.model.from_user({"weights": [0.5, 0.5], "means": [[0.0], [3.0]], "covariances": [[[1.0]], [[1.0]]]})
        at = solve(objective, EM(), objective.point_of(params), stop=Stop(gain=1e-15)).point
        found.append(diagnostics.information(objective, at, robust=True))
    for robust in (False, True):
        for a, b in zip(*(f.standard_errors(robust=robust) for f in found), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_what_has_no_standard_errors_is_refused(tmp_path):
    fit = old_faithful("full")
    fit.save(tmp_path / "fit.npz")
    with pytest.raises(ValueError, match="knows no data"):
        emcore.load(tmp_path / "fit.npz").standard_errors()
    objective = fit.evaluation.objective
    with pytest.raises(ValueError, match="at must be given"):
        diagnostics.information(objective)
    with pytest.raises(ValueError, match="k must be"):
        diagnostics.spectrum(fit, k=0)
    with pytest.raises(ValueError, match="coordinates must be 'free'"):
        diagnostics.spectrum(old_faithful("full", "original"))
    one = objective.model.params(np.array([0.5, 0.5]), np.zeros((2, 2)) + [[0.01], [-0.01]], np.array([np.eye(2)] * 2))
    with pytest.raises(ValueError, match="no strict maximum"):
        diagnostics.standard_errors(objective, objective.point_of(one))
    on_boundary = GaussianMixture(1, reg=0.4)
    flat_rows = np.column_stack([np.linspace(-1, 1, 30), np.tile([0.0, 1e-3], 15)])
    with pytest.raises(ValueError, match="boundary"):
        emcore.fit(on_boundary, np.column_stack([flat_rows, flat_rows[:, 0]])).standard_errors()
