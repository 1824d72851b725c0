"""Factor analysis and its mixtures against the oracle and scikit-learn, and what a gauge means for loadings."""

import numpy as np
import pytest
from cases import FACTORS, factor_rows
from derivatives import derivatives
from laws import em_step_in_parts, q_is_a_bound_with_the_score
from reference import factors as oracle
from scipy.stats import multivariate_normal

import emcore
from emcore.data import as_source
from emcore.kernels import FactorAnalyzers as FactorKernel
from emcore.models import Dirichlet, FactorAnalysis, FactorMixture, GaussianMixture, build, factor_scores, lower_loadings
from emcore.objective import ModelObjective
from emcore.result import Status, Stop
from emcore.solve import solve
from emcore.solvers import EM

every_case = pytest.mark.parametrize("case", FACTORS, ids=str)


def user_params(objective, params):
    """Return weights, means, loadings and noise in the user's units."""
    user = objective.model.to_user(params)
    return getattr(user, "weights", np.ones(1)), user.means, user.loadings, user.noise


@every_case
def test_pass_m_step_and_score_are_the_oracles(case, target):
    objective = case.objective()
    model, at, w = objective.model, case.somewhere(objective), case.w
    weights, means, loadings, noise = user_params(objective, at.params)
    resp, factors, spread, rows = oracle.posterior(case.X, weights, means, loadings, noise)
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-12)
    expected = oracle.m_step(case.X, w, resp, factors, spread, loadings, tied=noise.ndim == 1)
    for x, y in zip(user_params(objective, e.em_point.params), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10 * np.abs(y).max())
    score, scale = model.score(at.params, e.stats), model.emission.frame.scale
    slopes = score.means * scale, score.loadings * scale[:, None], score.noise * scale**2
    for x, y in zip(slopes, oracle.score(case.X, w, resp, factors, spread, means, loadings, noise), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-9 * np.abs(y).max())


@every_case
def test_expected_statistics_are_the_oracles(case):
    objective = case.objective()
    model, at, w = objective.model, case.somewhere(objective), case.w
    weights, means, loadings, noise = user_params(objective, at.params)
    resp, factors, spread, _ = oracle.posterior(case.X, weights, means, loadings, noise)
    sums, scale = model.emission._sums(model._raw_stats(objective.evaluate(at).stats)[1]), model.emission.frame.scale
    for c in range(model.k):
        gram, cross, square = oracle.expected(case.X, w, resp, factors, spread, c)
        b = np.concatenate([means[c][:, None], loadings[c]], axis=1)
        np.testing.assert_allclose(sums.gram[c], gram, rtol=1e-10, atol=1e-10 * np.abs(gram).max())
        left = (cross - b @ gram) * scale[:, None]
        np.testing.assert_allclose(sums.cross[c], left, rtol=0, atol=1e-10 * np.abs(cross * scale[:, None]).max())
        squares = (square - 2 * np.sum(b * cross, axis=1) + np.einsum("ja,ab,jb->j", b, gram, b)) * scale**2
        np.testing.assert_allclose(sums.square[c], squares, rtol=1e-8)


@every_case
def test_densities_are_those_of_gaussians_of_these_covariances(case):
    objective = case.objective()
    at, w = case.somewhere(objective), case.w
    weights, means, loadings, noise = user_params(objective, at.params)
    sigmas = oracle.covariances(loadings, noise)
    densities = sum(a * multivariate_normal(m, S).pdf(case.X) for a, m, S in zip(weights, means, sigmas, strict=True))
    assert objective.evaluate(at).value == pytest.approx(w @ np.log(densities) / w.sum(), rel=1e-12)


@every_case
def test_q_touches_lies_below_and_has_the_score_for_a_gradient(case):
    objective = case.objective()
    at, other = case.somewhere(objective), case.somewhere(objective, seed=1)
    resp = oracle.posterior(case.X, *user_params(objective, at.params))[0]
    entropy = -case.w @ np.sum(resp * np.log(np.maximum(resp, 1e-300)), axis=1) / case.total
    q_is_a_bound_with_the_score(objective, at, other, entropy)


@every_case
def test_em_is_p_times_the_gradient_and_the_correction(case):
    objective = case.objective()
    _, correction = em_step_in_parts(objective, case.somewhere(objective))
    for field, c in zip(objective.model.fields, correction, strict=True):
        assert c.any() == (field.name == "noise")


@every_case
def test_hessian_products_are_those_of_differences(case):
    objective = case.objective()
    at = case.somewhere(objective)
    expected = derivatives(lambda theta: objective.evaluate(theta).gradient, at.theta, 1e-5, order=2)
    found = objective.hvp(objective.evaluate(at), np.eye(objective.size))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    np.testing.assert_allclose(found, found.T, rtol=0, atol=1e-11 * np.abs(found).max())


@every_case
def test_the_gauge_leaves_no_flat_direction(case):
    objective = case.objective()
    found = solve(objective, EM(), case.start(objective), stop=Stop(gain=1e-16, max_passes=5000))
    H = objective.hvp(objective.evaluate(found.point), np.eye(objective.size))
    values = np.linalg.eigvalsh(-0.5 * (H + H.T))
    assert values[0] > 1e-6 * values[-1]


@pytest.mark.parametrize("q", [1, 2, 3])
def test_the_optimum_is_scikit_learns(q):
    from sklearn.decomposition import FactorAnalysis as Theirs

    X, _, _ = factor_rows(1, 8, q, 400, 0.0, False)(np.random.default_rng(q))
    theirs = Theirs(q, tol=1e-12, max_iter=20_000, svd_method="lapack").fit(X)
    found = emcore.fit(FactorAnalysis(q), X, random_state=0, stop=Stop(gain=1e-14))
    assert found.status.ok
    assert found.value == pytest.approx(theirs.score(X), abs=1e-8)
    np.testing.assert_allclose(found.log_density(X), theirs.score_samples(X), rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.params.noise[0], theirs.noise_variance_, rtol=1e-3)
    L = lower_loadings(theirs.components_.T)
    at = {"means": [theirs.mean_], "loadings": [L], "noise": [theirs.noise_variance_]}
    again = ModelObjective(FactorAnalysis(q), as_source(X), n_threads=1)
    assert again.evaluate(again.point_of(again.model.from_user(at))).value == pytest.approx(theirs.score(X), abs=1e-10)
    signs = np.sign(np.sum(L * found.params.loadings[0], axis=0))
    np.testing.assert_allclose(found.params.loadings[0] * signs, L, rtol=0, atol=1e-3 * np.abs(L).max())


def test_starts_are_near_the_optimum():
    X, _, _ = factor_rows(1, 8, 2, 400, 0.0, False)(np.random.default_rng(0))
    objective = ModelObjective(FactorAnalysis(2), as_source(X), n_threads=1)
    at = objective.point_of(objective.model.start(objective.source.block(0), np.ones((400, 1))))
    best = solve(objective, EM(), at, stop=Stop(gain=1e-15, max_passes=5000))
    assert best.value - objective.evaluate(at).value < 0.05


def test_parameters_in_excess_are_fitted_as_scikit_learn_does():
    from sklearn.decomposition import FactorAnalysis as Theirs

    X = FACTORS[0].X[:, :4]
    with pytest.warns(UserWarning, match="11 free parameters, a covariance only 10"):
        found = emcore.fit(FactorAnalysis(2), X, random_state=0, stop=Stop(gain=1e-13, max_passes=5000))
    theirs = Theirs(2, tol=1e-6, max_iter=20_000, svd_method="lapack").fit(X).score(X)
    assert theirs - 1e-6 < found.value < emcore.fit(GaussianMixture(1, reg=0), X, random_state=0).value + 1e-9


def test_parameters_in_excess_are_warned_of_once():
    X = np.random.default_rng(0).normal(size=(50, 3))
    warned = FactorAnalysis(2).bind(as_source(X)).warnings()
    assert len(warned) == 1
    assert "8 free parameters, a covariance only 6" in warned[0]
    assert not FactorAnalysis(1).bind(as_source(X)).warnings()


def test_a_start_that_is_no_root_in_the_gauge_is_refused_and_rotated():
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(2, 6, 3))
    params = {"weights": [0.5, 0.5], "means": np.zeros((2, 6)), "loadings": loadings, "noise": np.ones((2, 6))}
    with pytest.raises(ValueError, match="params: loadings must be lower trapezoidal"):
        FactorMixture(2, 3).sample(params, 5, rng)
    with pytest.raises(ValueError, match=r"start: loadings .*lower_loadings"):
        emcore.fit(FactorMixture(2, 3), rng.normal(size=(50, 6)), start=params)
    lower = lower_loadings(loadings)
    assert not lower[:, *np.triu_indices(6, 1, 3)].any()
    assert (np.diagonal(lower, axis1=1, axis2=2) >= 0).all()
    np.testing.assert_allclose(lower @ lower.transpose(0, 2, 1), loadings @ loadings.transpose(0, 2, 1), atol=1e-13)
    np.testing.assert_array_equal(lower_loadings(loadings[0]), lower[0])
    X, states = FactorMixture(2, 3).sample(params | {"loadings": lower}, 20_000, rng)
    for c in range(2):
        np.testing.assert_allclose(np.cov(X[states == c].T), loadings[c] @ loadings[c].T + np.eye(6), atol=0.5)


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.zeros(3), [[np.nan]], "loadings"])
def test_loadings_that_cannot_be_rotated_are_refused(bad):
    with pytest.raises(ValueError, match="loadings"):
        lower_loadings(bad)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: FactorAnalysis(0), ValueError, "n_factors"),
        (lambda: FactorAnalysis(1.0), TypeError, "n_factors"),
        (lambda: FactorMixture(0, 1), ValueError, "n_components"),
        (lambda: FactorMixture(2, 1, tied=1), TypeError, "tied"),
        (lambda: FactorMixture(2, 1, reg=0.7), ValueError, "reg must be below"),
        (lambda: FactorMixture(2, 1, reg="0"), TypeError, "reg"),
        (lambda: FactorMixture(2, 1, weights_prior=3), TypeError, "weights_prior"),
    ],
)
def test_bad_options_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("q", [3, 4])
def test_as_many_factors_as_columns_are_refused(q):
    X = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(ValueError, match=f"n_factors must be below the number of columns, 3, got {q}"):
        emcore.fit(FactorAnalysis(q), X)


def test_bad_starts_are_refused():
    X = np.random.default_rng(0).normal(size=(50, 4))
    good = {"means": np.zeros((1, 4)), "loadings": np.ones((1, 4, 1)), "noise": np.ones((1, 4))}
    for change, words in (
        ({"noise": np.zeros((1, 4))}, "noise must be above the floor"),
        ({"noise": np.ones((1, 3))}, "noise must have shape"),
        ({"loadings": np.ones((1, 4, 2))}, "loadings must have shape"),
        ({"means": np.full((1, 4), np.nan)}, "means must be finite"),
    ):
        with pytest.raises(ValueError, match=words):
            emcore.fit(FactorAnalysis(1), X, start=good | change)


@pytest.mark.parametrize("tied", [False, True])
def test_a_heywood_case_rests_at_the_floor_and_says_so(tied):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1)) + [0.0, 0.6, 1.0, 1.2] * rng.normal(size=(300, 4))
    found = emcore.fit(FactorMixture(1, 1, tied=tied, reg=0.1), X, random_state=0, solver="em", stop=Stop(gain=1e-12))
    assert found.status.ok
    assert found.boundary == (f"the noise variance of column 0{' of component 0' * (not tied)} is at its floor",)
    assert np.diff(found.trace.value).min() > -1e-12


def test_without_a_floor_a_collapse_has_a_status():
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[:, 2] = 1.0
    start = {"means": np.zeros((1, 3)), "loadings": np.array([[[1.0], [1.0], [0.0]]]), "noise": np.ones((1, 3))}
    fixed = {"loadings": start["loadings"] == 0}
    with (
        pytest.warns(UserWarning, match="constant in column 2: its noise variance has no floor"),
        pytest.warns(emcore.ConvergenceWarning, match="collapsed"),
    ):
        found = emcore.fit(FactorAnalysis(1, reg=0), X, start=start, fixed=fixed, solver="em")
    assert found.status is Status.COLLAPSED
    assert "noise variance of column 2" in str(found.failure)
    np.testing.assert_allclose(found.params.noise, 1.0)
    with pytest.warns(UserWarning, match="is fitted at the floor"):
        found = emcore.fit(FactorAnalysis(1), X, start=start, fixed=fixed, solver="em")
    assert found.boundary == ("the noise variance of column 2 of component 0 is at its floor",)


def test_loadings_that_are_fixed_make_it_confirmatory():
    """Columns 0 to 2 show the first factor alone, 3 to 5 the second alone: two analyses of one factor each."""
    rng = np.random.default_rng(3)
    f = rng.normal(size=(400, 2))
    X = np.repeat(f, 3, axis=1) * [1.0, 0.8, 1.2, 0.9, 1.1, 1.0] + 0.6 * rng.normal(size=(400, 6))
    loadings = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]])[None]
    start = {"means": X.mean(axis=0)[None], "loadings": loadings, "noise": np.ones((1, 6))}
    mask = loadings == 0
    found = emcore.fit(FactorAnalysis(2), X, start=start, fixed={"loadings": mask}, stop=Stop(gain=1e-14))
    assert found.status.ok
    assert not found.params.loadings[mask].any()
    parts = [emcore.fit(FactorAnalysis(1), X[:, s], random_state=0, stop=Stop(gain=1e-14)) for s in (slice(3), slice(3, 6))]
    assert found.value == pytest.approx(sum(p.value for p in parts), abs=1e-9)
    np.testing.assert_allclose(found.params.noise[0], np.concatenate([p.params.noise[0] for p in parts]), rtol=1e-4)
    assert np.isfinite(found.standard_errors().loadings[~mask]).all()


@pytest.mark.parametrize("name", ["means", "loadings", "noise"])
def test_whatever_is_fixed_stays_and_em_rises(name):
    case = FACTORS[1]
    plain = case.objective()
    start = plain.model.to_user(case.somewhere(plain).params)
    rng = np.random.default_rng(0)
    mask = rng.random(getattr(start, name).shape) < 0.5
    for fixed in ({name: mask}, {name: True}):
        found = emcore.fit(case.build(), case.X, start=start, fixed=fixed, solver="em", stop=Stop(gain=1e-6, max_passes=9000))
        assert found.status.ok
        kept = mask if fixed[name] is mask else np.ones_like(mask)
        np.testing.assert_allclose(getattr(found.params, name)[kept], getattr(start, name)[kept], rtol=1e-14)
        assert np.diff(found.trace.value).min() > -1e-13


def test_factor_scores_are_posterior_means():
    for case in FACTORS:
        objective = case.objective()
        params = objective.model.to_user(case.somewhere(objective).params)
        resp, factors, _, _ = oracle.posterior(case.X, *user_params(objective, case.somewhere(objective).params))
        best = resp.argmax(axis=1)
        found = factor_scores(params, case.X)
        np.testing.assert_allclose(found, factors[np.arange(len(best)), best], rtol=1e-9, atol=1e-10)
    with pytest.raises(ValueError, match="X must have shape"):
        factor_scores(params, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="noise must be > 0"):
        factor_scores(params._replace(noise=-params.noise), case.X)


def test_factor_scores_are_scikit_learns():
    from sklearn.decomposition import FactorAnalysis as Theirs

    X, _, _ = factor_rows(1, 6, 1, 200, 0.0, False)(np.random.default_rng(0))
    theirs = Theirs(1).fit(X)
    params = {"means": [theirs.mean_], "loadings": [theirs.components_.T], "noise": [theirs.noise_variance_]}
    np.testing.assert_allclose(factor_scores(params, X), theirs.transform(X), atol=1e-12)


def test_signs_of_factors_make_no_other_optimum():
    for case in FACTORS:
        objective = case.objective()
        model, params = objective.model, case.somewhere(objective).params
        loadings = params.loadings.copy()
        loadings[-1, :, 0] *= -1.0
        turned = params._replace(loadings=loadings)
        order = list(range(model.k))[::-1]
        assert objective.evaluate(objective.point_of(turned)).value == pytest.approx(
            objective.evaluate(objective.point_of(params)).value, rel=1e-13
        )
        assert model.distance(params, model.permuted(turned, order)) < 1e-15
        loadings = loadings.copy()
        loadings[0, -1, 0] += 0.25
        assert model.distance(params, params._replace(loadings=loadings)) == pytest.approx(0.25, abs=1e-12)


def test_weights_take_a_prior():
    case = FACTORS[1]
    model = FactorMixture(3, 1, weights_prior=Dirichlet(5.0))
    found = emcore.fit(model, case.X, random_state=0, stop=Stop(gain=1e-8))
    assert found.status.ok
    count = found.responsibilities(case.X).sum(axis=0)
    np.testing.assert_allclose(found.params.weights, (count + 4.0) / (count + 4.0).sum(), atol=1e-3)
    assert build("FactorMixture", model.options).options == model.options


def test_draws_of_as_many_factors_as_columns_are_refused():
    params = {"means": np.zeros((1, 2)), "loadings": np.ones((1, 2, 2)), "noise": np.ones((1, 2))}
    with pytest.raises(ValueError, match="params: loadings must have fewer factors than columns"):
        FactorAnalysis(2).sample(params, 3, np.random.default_rng(0))


def test_units_do_not_matter():
    case = FACTORS[1]
    scale, shift = np.array([1e6, 1e-4, 3.0, 0.1]), np.array([1e8, 0.0, -5.0, 2.0])
    plain = case.objective()
    start = plain.model.to_user(case.start(plain).params)
    moved = start._replace(
        means=start.means * scale + shift, loadings=start.loadings * scale[:, None], noise=start.noise * scale**2
    )
    a, b = (
        emcore.fit(case.build(), X, start=at, stop=Stop(gain=1e-13))
        for X, at in ((case.X, start), (case.X * scale + shift, moved))
    )
    np.testing.assert_allclose(b.params.noise, a.params.noise * scale**2, rtol=1e-4)
    np.testing.assert_allclose(b.params.loadings, a.params.loadings * scale[:, None], rtol=1e-3)
    assert b.value + np.log(scale).sum() == pytest.approx(a.value, abs=1e-9)


def test_many_columns_cost_no_square_of_them():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 120)) + rng.normal(size=(300, 1))
    objective = ModelObjective(FactorMixture(2, 2), as_source(X), n_threads=1)
    assert objective.model.layout.size < 2 * 120 * 6
    assert solve(objective, EM(), case_start(objective), stop=Stop(gain=1e-3)).status.ok


def case_start(objective):
    block = objective.source.block(0)
    resp = np.random.default_rng(0).dirichlet([1.0, 1.0], size=len(block.rows[0]))
    return objective.point_of(objective.model.start(block, resp))


def test_a_kernel_refuses_arrays_that_do_not_fit():
    k, d, q = 2, 3, 1
    arrays = [np.zeros((k, d)), np.zeros((k, d, q)), np.ones((k, d)), np.zeros((k, q, d)), np.ones((k, q, q)), np.zeros(k)]
    arrays += [np.zeros(d), np.ones(d)]
    assert FactorKernel(*arrays).n_stats == k * (2 + q + q * (q + 1) // 2 + (2 + q) * d)
    for i in range(1, len(arrays)):
        wrong = [a[..., :-1] if j == i else a for j, a in enumerate(arrays)]
        with pytest.raises(ValueError, match="must have shape"):
            FactorKernel(*wrong)
    names = ("offsets", "slopes", "curves", "bends", "residual", "factor", "constant", "posteriors", "log_dets")
    wrong = {name: np.zeros((1, k, 9)) for name in names}
    with pytest.raises(ValueError, match="tangents"):
        FactorKernel(*arrays, wrong)


def test_fits_are_saved_and_loaded(tmp_path):
    for case in FACTORS[:2]:
        found = emcore.fit(case.build(), case.X, sample_weight=case.weights, random_state=0, stop=Stop(gain=1e-6))
        found.save(tmp_path / "fit.npz")
        again = emcore.load(tmp_path / "fit.npz")
        for x, y in zip(again.params, found.params, strict=True):
            np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(again.log_density(case.X), found.log_density(case.X))
