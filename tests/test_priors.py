"""Conjugate priors: densities against SciPy's, and EM and the gradient on the same hill."""

import re

import numpy as np
import pytest
from cases import BERNOULLI, CATEGORICAL, CONVERGING, GAUSSIAN, LOWER, MULTINOMIAL, POISSON, SMALL, matrix
from derivatives import derivative, derivatives
from laws import em_step_in_parts
from reference import gmm
from scipy import stats

import emcore
from emcore.data import as_source
from emcore.models import (
    COVARIANCES,
    BernoulliMixture,
    Beta,
    CategoricalMixture,
    Dirichlet,
    Gamma,
    GaussianMixture,
    MultinomialMixture,
    NormalInverseGamma,
    NormalInverseWishart,
    PoissonMixture,
)
from emcore.objective import ModelObjective
from emcore.result import Stop, rounding
from emcore.solve import solve
from emcore.solvers import EM

MODELS = tuple(case for case in SMALL if case in GAUSSIAN + POISSON + BERNOULLI + CATEGORICAL + MULTINOMIAL)
every_model = pytest.mark.parametrize("case", MODELS, ids=str)
MEAN, PSI = [-5.0, -8.0], [[6.0, 1.0], [1.0, 9.0]]


DISCRETE = {
    "Bernoulli": (BernoulliMixture, Beta(1.5, 2.5)),
    "Categorical": (CategoricalMixture, Dirichlet(1.5)),
    "Multinomial": (MultinomialMixture, Dirichlet(1.5)),
    "Poisson": (PoissonMixture, Gamma(3.0, 0.7)),
}


def with_prior(case):
    """Return the model of a case of two columns with priors on everything."""
    weights = Dirichlet(2.5)
    for word, (factory, prior) in DISCRETE.items():
        if word in case.name:
            return factory(3, prior=prior, weights_prior=weights)
    kind = case.name.split("-")[1]
    prior = {
        "full": NormalInverseWishart(MEAN, 0.4, 5.5, PSI),
        "tied": NormalInverseWishart(MEAN, 3.0, 2.5, PSI),
        "diag": NormalInverseGamma(MEAN, 9.0, 1.5, [4.0, 7.0]),
        "spherical": NormalInverseGamma(MEAN, 0.4, 2.5, 5.0),
    }[kind]
    return GaussianMixture(3, kind, prior=prior, weights_prior=weights)


def log_prior(model, params):
    """The density of the priors, written with SciPy's distributions."""
    prior = model.emission.prior
    total = stats.dirichlet(np.full(3, model.latent.prior.concentration)).logpdf(params.weights / params.weights.sum())
    if isinstance(prior, Gamma):
        return total + stats.gamma(prior.shape, scale=1 / prior.inverse_scale).logpdf(params.rates).sum()
    if isinstance(prior, Beta):
        return total + stats.beta(prior.ones, prior.zeros).logpdf(params.probabilities).sum()
    if isinstance(prior, Dirichlet):
        rows = params.probabilities.reshape(-1, params.probabilities.shape[-1])
        alone = stats.dirichlet(np.full(rows.shape[1], prior.concentration))
        return total + sum(alone.logpdf(p / p.sum()) for p in rows)
    kind, c = model.emission.covariance, params.covariances
    for m, S in zip(params.means, gmm.expand(kind, c, 3, 2), strict=True):
        total += stats.multivariate_normal(prior.mean, S / prior.strength).logpdf(m)
    if kind in ("full", "tied"):
        return total + sum(stats.invwishart(prior.dof, prior.scale).logpdf(S) for S in c.reshape(-1, 2, 2))
    return total + stats.invgamma(prior.shape, scale=np.array(prior.scale)).logpdf(c).sum()


def objective_of(case, **options):
    return ModelObjective(with_prior(case), case.source(), n_threads=1, **options)


@every_model
def test_value_is_that_of_the_likelihood_and_of_the_prior(case):
    objective, plain = objective_of(case), case.objective()
    for seed in range(3):
        at = case.somewhere(plain, seed)
        user = objective.model.to_user(at.params)
        expected = log_prior(objective.model, user)
        e = objective.evaluate(objective.point_of(at.params))
        assert objective.model.log_prior(at.params) == pytest.approx(expected, rel=1e-11)
        assert e.value == pytest.approx(plain.evaluate(at).value + expected / plain.weight, rel=1e-12)
        assert e.entropy == pytest.approx(plain.evaluate(at).entropy, abs=1e-11)


@every_model
def test_gradient_is_the_derivative_of_the_value(case):
    objective = objective_of(case)
    at = objective.point_of(case.somewhere(case.objective()).params)
    g = objective.evaluate(at).gradient
    differences = derivatives(lambda theta: objective.evaluate(theta).value, at.theta, 2e-4)
    np.testing.assert_allclose(g, differences, rtol=0, atol=1e-8 * max(1.0, np.abs(g).max()))


@every_model
def test_m_step_is_the_maximum_and_em_never_goes_down(case):
    objective = objective_of(case)
    e = objective.evaluate(objective.point_of(case.somewhere(case.objective(), seed=2).params))
    assert np.abs(objective.gradient(e.em_point, e.stats)).max() <= 1e-9
    for _ in range(30):
        new = objective.evaluate(e.em_point)
        assert new.value >= e.value + e.gain - rounding(e.scale)
        e = new


@every_model
def test_em_is_the_gradient_times_p_and_a_correction(case):
    objective = objective_of(case)
    em_step_in_parts(objective, objective.point_of(case.somewhere(case.objective()).params))


@matrix("name, case", CONVERGING, MODELS, "priors")
def test_every_solver_reaches_the_same_maximum(name, case):
    objective = objective_of(case)
    at = objective.point_of(case.start(case.objective()).params)
    best = solve(objective, EM(), at, stop=Stop(gain=1e-15, max_passes=20_000))
    result = solve(objective, emcore.solvers.get(name), at, stop=Stop(gain=1e-12, max_passes=5000))
    assert best.status.ok
    assert result.status.ok
    assert result.value == pytest.approx(best.value, abs=1e-8), LOWER
    for x, y in zip(result.point.params, best.point.params, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-3)


@every_model
def test_blocks_share_the_prior(case):
    objective = ModelObjective(with_prior(case), case.source(block_rows=len(case.X) // 4), n_threads=1)
    at = objective.point_of(case.somewhere(case.objective()).params)
    whole, parts = objective.evaluate(at), [objective.evaluate(at, blocks=[i]) for i in range(objective.source.n_blocks)]
    weight = sum(p.stats.weight for p in parts)
    assert sum(p.value * p.stats.weight for p in parts) / weight == pytest.approx(whole.value, rel=1e-13)
    gradient = sum(objective.gradient(at, p.stats) * p.stats.weight for p in parts) / weight
    np.testing.assert_allclose(gradient, whole.gradient, rtol=0, atol=1e-12)


@every_model
def test_a_saved_fit_knows_its_prior(case, tmp_path):
    found = emcore.fit(with_prior(case), case.X, random_state=0, stop=Stop(gain=1e-8))
    assert found.log_likelihood == pytest.approx(found.log_density(case.X).sum(), rel=1e-12)
    assert found.value * len(case.X) == pytest.approx(found.log_likelihood + log_prior(found.model, found.params), rel=1e-12)
    assert "log prior" in str(found)
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    assert again.log_prior == found.log_prior
    assert repr(again.model) == repr(found.model)
    assert again.model.emission.prior == found.model.emission.prior


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_a_prior_keeps_a_component_from_collapsing(kind):
    X = np.concatenate([np.full((10, 2), 5.0), np.random.default_rng(0).normal(size=(50, 2))])
    one = {"full": np.eye(2), "diag": np.ones(2), "spherical": 1.0}[kind]
    start = {"weights": [0.2, 0.8], "means": [[5.0, 5.0], [0.0, 0.0]], "covariances": [one, one]}
    prior = NormalInverseWishart([0, 0], 0.1, 4, np.eye(2)) if kind == "full" else NormalInverseGamma([0, 0], 0.1, 2, 0.5)
    found = emcore.fit(GaussianMixture(2, kind, reg=0, prior=prior), X, start=start)
    assert found.status.ok


@every_model
def test_priors_and_fixed_parameters_together(case):
    model, plain = with_prior(case), case.objective()
    user = plain.model.to_user(case.somewhere(plain).params)
    mask = {
        "weights": np.array([True, False, False]),
        plain.model.names[1]: np.zeros(plain.model.fields[1].shape, dtype=bool),
    }
    mask[plain.model.names[1]][(0,) * mask[plain.model.names[1]].ndim] = True
    objective = ModelObjective(model, case.source(), n_threads=1, fixed=mask, start=user)
    e = objective.evaluate(objective.point_of(objective.model.from_user(user)))
    assert np.abs(objective.gradient(e.em_point, e.stats)).max() <= 1e-9
    assert objective.evaluate(e.em_point).value >= e.value + e.gain - rounding(e.scale)


@every_model
@pytest.mark.parametrize("solver", ["em", "newton"])
def test_a_saved_fit_with_both_goes_on(case, solver, tmp_path):
    plain = case.objective()
    start = plain.model.to_user(case.start(plain).params)
    mask = np.zeros(plain.model.fields[1].shape, dtype=bool)
    mask[[0, 1], [0, 1]] = True
    fixed = {"weights": [True, False, False], plain.model.names[1]: mask}
    options = {"fixed": fixed, "solver": solver, "random_state": 0}
    found = emcore.fit(with_prior(case), case.X, start=start, stop=Stop(gain=1e-3), **options)
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    assert again.log_prior == found.log_prior
    assert again.log_likelihood == found.log_likelihood
    np.testing.assert_array_equal(again.log_density(case.X), found.log_density(case.X))
    further = [emcore.fit(with_prior(case), case.X, start=earlier, stop=Stop(gain=1e-10), **options) for earlier in
               (found, again)]  # fmt: skip
    for fit in further:
        assert fit.start == "where that climb ended"
        np.testing.assert_array_equal(fit.theta, further[0].theta)
        for name, mask in fixed.items():
            np.testing.assert_array_equal(getattr(fit.params, name)[mask], getattr(start, name)[mask])


BAD = {
    "Beta: ones must be >= 1, got 0.5": lambda: Beta(0.5, 1),
    "Dirichlet: concentration must be >= 1, got 0.5": lambda: Dirichlet(0.5),
    "Gamma: shape must be >= 1, got 0.5": lambda: Gamma(0.5, 1),
    "Gamma: inverse_scale must be > 0, got 0": lambda: Gamma(2, 0),
    "NormalInverseWishart: dof must be > 1, got 1": lambda: NormalInverseWishart([0, 0], 1, 1, np.eye(2)),
    "NormalInverseWishart: scale must be positive definite": lambda: NormalInverseWishart([0, 0], 1, 4, -np.eye(2)),
    "NormalInverseWishart: scale must have shape (2, 2)": lambda: NormalInverseWishart([0, 0], 1, 4, np.eye(3)),
    "NormalInverseGamma: strength must be > 0, got -1": lambda: NormalInverseGamma([0, 0], -1, 4, 1),
    "NormalInverseGamma: scale must be > 0, got 0": lambda: NormalInverseGamma([0, 0], 1, 4, [1, 0]),
    "prior: mean must have shape (1,)": lambda: GaussianMixture(1, "diag", prior=NormalInverseGamma([0, 0], 1, 4, 1)).bind(
        as_source([[1.0], [2.0]])
    ),
    "prior: scale must be one number": lambda: GaussianMixture(
        1, "spherical", prior=NormalInverseGamma([0, 0], 1, 4, [1, 2])
    ).bind(as_source(np.eye(2))),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_priors_are_refused(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BAD[message]()


@pytest.mark.parametrize("kind", COVARIANCES)
def test_priors_of_another_kind_are_refused(kind):
    wrong = NormalInverseGamma([0], 1, 1, 1) if kind in ("full", "tied") else NormalInverseWishart([0], 1, 1, [[1]])
    with pytest.raises(TypeError, match=r"prior must be a Normal\w+ here, or None"):
        GaussianMixture(2, kind, prior=wrong)
    with pytest.raises(TypeError, match="weights_prior must be a Dirichlet here"):
        GaussianMixture(2, kind, weights_prior=2.0)


@every_model
def test_hessian_products_are_those_of_the_hill_with_its_priors(case):
    objective = objective_of(case)
    at = case.somewhere(objective)
    e = objective.evaluate(at)
    for seed in range(3):
        v = np.random.default_rng(seed).normal(size=objective.size)
        expected = derivative(lambda t, v=v: objective.evaluate(at.theta + t * v).gradient, 1e-4, order=2)
        np.testing.assert_allclose(objective.hvp(e, v), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
