"""Mixtures of known variance: against the oracle, and the model of which EM is gradient ascent."""

import math
import re

import numpy as np
import pytest
from cases import KNOWN_VARIANCE
from laws import em_step_is_p_times_the_gradient
from reference import gmm

import emcore
from emcore.data import as_source
from emcore.models import KnownVarianceMixture, SymmetricGaussianMixture
from emcore.objective import ModelObjective
from emcore.result import Stop
from emcore.solve import solve
from emcore.solvers import EM, FirstOrderEM, GradientAscent

every_case = pytest.mark.parametrize("case", KNOWN_VARIANCE, ids=str)


def posterior(case, X, params):
    """Return the oracle's responsibilities and log-densities of rows."""
    emission = case.build().emission
    if hasattr(params, "mean"):
        means, weights = np.stack([params.mean, -params.mean]), np.array([0.5, 0.5])
    else:
        means = params.means
        weights = getattr(params, "weights", None)
        weights = case.build().latent.weights if weights is None else weights
    covariances = np.array([emission.variance * np.eye(means.shape[1])] * len(means))
    return gmm.posterior(gmm.log_density(X, means, covariances), weights)


@every_case
def test_pass_and_m_step_are_the_oracles(case):
    objective = case.objective()
    at, w = case.somewhere(objective), case.w
    resp, rows = posterior(case, case.X, at.params)
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-13)
    r = w[:, None] * resp
    new = e.em_point.params
    if hasattr(new, "mean"):
        np.testing.assert_allclose(new.mean, (r[:, 0] - r[:, 1]) @ case.X / w.sum(), rtol=1e-12)
    else:
        np.testing.assert_allclose(new.means, r.T @ case.X / r.sum(axis=0)[:, None], rtol=1e-12)


@every_case
def test_em_is_exactly_the_gradient_times_p(case):
    objective = case.objective(coordinates="original")
    em_step_is_p_times_the_gradient(objective, case.somewhere(objective))


@every_case
def test_new_rows_and_files(case, tmp_path):
    found = emcore.fit(case.build(), case.X, sample_weight=case.weights, random_state=0, stop=Stop(gain=1e-8))
    rows = 3.0 * np.random.default_rng(0).normal(size=(40, case.X.shape[1]))
    resp, logs = posterior(case, rows, found.params)
    np.testing.assert_allclose(found.log_density(rows), logs, rtol=1e-12)
    np.testing.assert_allclose(found.responsibilities(rows), resp, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.predict(rows), resp.argmax(axis=1))
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.log_density(rows), found.log_density(rows))
    assert repr(again.model) == repr(found.model)


@pytest.mark.parametrize("variance", [1.0, 0.3, 2500.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_em_is_gradient_ascent_with_the_variance_as_step(variance, weighted):
    """EM, first-order EM and plain gradient ascent of the step v walk through the same points, whatever the units."""
    rng, s = np.random.default_rng(0), math.sqrt(variance)
    X = s * (np.where(np.arange(200)[:, None] % 2, 1.0, -1.0) * [0.8, -0.5, 0.3] + rng.normal(size=(200, 3)))
    w = rng.uniform(0.0, 2.0, size=200) if weighted else np.ones(200)
    theta = s * np.array([0.1, 0.4, -0.2])
    climbs = {}
    for solver in (EM(), GradientAscent(step_size=variance), FirstOrderEM(step_size=variance)):
        objective = ModelObjective(SymmetricGaussianMixture(variance), as_source(X, w), n_threads=1)
        points = climbs[solver.name] = []
        stop = Stop(gain=0, max_passes=41)
        solve(
            objective,
            solver,
            objective.point(theta),
            stop=stop,
            callback=lambda step, p=points: p.append(step.evaluation.point.theta),
        )
    for _ in range(40):  # Balakrishnan, Wainwright and Yu (2017): the sample operator
        climbs.setdefault("formula", [theta]).append(theta := (w * np.tanh(X @ theta / variance)) @ X / w.sum())
    assert {len(points) for points in climbs.values()} == {41}
    for points in climbs.values():
        np.testing.assert_allclose(points, climbs["em"], rtol=0, atol=2e-14 * s)


def test_em_is_gradient_ascent_of_one_step_a_component():
    case = KNOWN_VARIANCE[0]
    objective = case.objective(coordinates="original")
    at = case.somewhere(objective)
    e = objective.evaluate(at)
    counts = objective.model.layout.view(e.stats.vector, "latent.count") / e.stats.weight
    means = e.gradient[objective.coordinates.slices["means"]].reshape(3, 2)
    steps = objective.model.emission.variance / counts
    np.testing.assert_allclose(at.params.means + steps[:, None] * means, e.em_point.params.means, rtol=1e-13)


def test_a_mean_and_its_negative_are_the_same_fit():
    X = KNOWN_VARIANCE[-1].X
    found = emcore.fit(SymmetricGaussianMixture(1.0), X, start="random-responsibilities", n_starts=6, random_state=1)
    signs = {bool(s.params.mean[0] > 0) for s in found.starts}
    assert signs == {True, False}
    assert all(s.best for s in found.starts)


def test_known_weights_are_no_parameters_and_do_not_move():
    X = KNOWN_VARIANCE[2].X
    found = emcore.fit(KnownVarianceMixture(2, 9.0, weights=[0.9, 0.1]), X, random_state=0)
    assert found.params._fields == ("means",)
    same = emcore.fit(
        KnownVarianceMixture(2, 9.0), X, start={"weights": [0.9, 0.1], "means": found.params.means}, fixed={"weights": True}
    )
    assert same.value == pytest.approx(found.value, rel=1e-13)
    order = found.model.distance(found.params, found.model.permuted(found.params, [1, 0]))
    assert order > 0.1  # components of other weights are no relabelling of each other


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: KnownVarianceMixture(2, 0.0), ValueError, "variance must be a finite number > 0, got 0.0"),
        (lambda: SymmetricGaussianMixture("1"), TypeError, "variance must be a number > 0, got '1'"),
        (lambda: KnownVarianceMixture(2, 1.0, weights=[0.5, 0.6]), ValueError, "weights must sum to 1"),
        (lambda: KnownVarianceMixture(2, 1.0, weights=[1.0]), ValueError, "weights must have shape (2,), got (1,)"),
    ],
)
def test_bad_options_are_refused(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()
