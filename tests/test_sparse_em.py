"""Sparse EM: the free energy and its partial E-steps against NumPy, monotone on every model."""

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES, GAUSSIAN, POISSON, SMALL, SMALL_PASS, exception, threads_start
from reference import gmm, poisson

from emcore import Status, Stop
from emcore.data import as_source
from emcore.kernels import SparseMixture, log_weights
from emcore.models import GaussianMixture
from emcore.objective import MapObjective, ModelObjective
from emcore.solve import solve
from emcore.solvers import EM, Sparse

referenced = pytest.mark.parametrize("case", GAUSSIAN + POISSON, ids=str)
every_case = pytest.mark.parametrize("case", [case for case in CASES if not exception("sparse", case)], ids=str)
every_model = pytest.mark.parametrize("case", SMALL, ids=str)


def joint(case, objective, point):
    """Return log(weight_k p(x | k)) of each row, (n, k), in the user's units."""
    weights, location, *rest = objective.model.to_user(point.params)
    if not rest:
        return poisson.log_density(case.X, location) + np.log(weights)
    sigmas = gmm.expand(objective.model.options["covariance"], rest[0], *location.shape)
    return gmm.log_density(case.X, location, sigmas) + np.log(weights)


def partial(logs, resp, least):
    """Return responsibilities of which those below `least` stay, the others sharing what is left of 1."""
    active = resp >= least
    new = np.where(active, np.exp(logs - logs.max(axis=1, keepdims=True)), 0.0)
    new *= (1 - np.where(active, 0, resp).sum(axis=1, keepdims=True)) / new.sum(axis=1, keepdims=True)
    return np.where(active, new, resp)


@referenced
def test_the_free_energy_is_that_of_its_definition(case):
    objective = case.objective()
    at, moved = case.somewhere(objective), case.somewhere(objective, seed=1)
    whole, resp = objective.free_energy(at)
    plain = objective.evaluate(at)
    assert whole.value == pytest.approx(plain.value, rel=1e-13)
    np.testing.assert_allclose(whole.stats.vector, plain.stats.vector, rtol=0, atol=1e-11 * np.abs(plain.stats.vector).max())
    w = case.w
    counts = w > 0
    logs = joint(case, objective, at)
    np.testing.assert_allclose(resp[counts], partial(logs, np.ones_like(logs), 0.0)[counts], rtol=1e-9, atol=1e-12)
    for least in (0.01, 0.2):
        part, new = objective.free_energy(moved, resp, least)
        logs = joint(case, objective, moved)
        expected = resp.copy()
        expected[counts] = partial(logs[counts], resp[counts], least)
        np.testing.assert_allclose(new, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(new[resp < least], resp[resp < least])
        entropy = -expected * np.log(np.where(expected > 0, expected, 1.0))
        free = w @ (expected * logs + entropy).sum(axis=1) / w.sum()
        assert part.value == pytest.approx(free, rel=1e-11)
        assert part.value <= objective.evaluate(moved).value + part.noise


@every_case
def test_the_free_energy_never_falls_and_the_optimum_is_that_of_em(case):
    objective = case.objective()
    at = case.start(objective)
    energies = []

    class Watched(ModelObjective):
        def free_energy(self, *args, **options):
            found = super().free_energy(*args, **options)
            energies.append(found[0].value)
            return found

    watched = Watched(objective.model, objective.source, n_threads=1)
    result = solve(watched, Sparse(threshold=0.05), at, stop=Stop(gain=1e-10, max_passes=2000))
    assert result.status.ok, result
    assert result.passes == len(energies) == 1 + 4 * result.steps
    assert np.diff(energies).min(initial=0.0) >= -result.evaluation.noise
    np.testing.assert_array_equal(result.trace.value, energies[::4])
    if result.steps:
        assert result.trace.free_energy[-1] == energies[-2] <= energies[-1] + result.evaluation.noise
        assert 1 / objective.model.k <= result.state.info["active"] <= 1.0
    best = solve(objective, EM(), at, stop=Stop(gain=1e-10, max_passes=2000))
    assert result.value == pytest.approx(best.value, abs=1e-6)


@every_model
def test_without_sparse_sweeps_it_is_em(case):
    objective = case.objective()
    stop = Stop(gain=0, max_passes=12)
    em, all_active = (solve(objective, solver, case.start(objective), stop=stop) for solver in (EM(), Sparse(sweeps=0)))
    np.testing.assert_allclose(all_active.trace.value, em.trace.value, rtol=1e-12)
    np.testing.assert_array_equal(all_active.trace.passes, em.trace.passes)


@every_model
def test_threads_change_no_bit_and_blocks_no_more_than_rounding(case):
    stop, results = Stop(gain=0, max_passes=21), []
    plain = case.objective()
    params = plain.model.to_user(case.start(plain).params)
    rows = np.tile(np.arange(len(case.X)), SMALL_PASS // (len(case.X) * plain.model.layout.size) + 1)
    for n_threads, block_rows in ((1, None), (3, None), (1, len(rows) // 5)):
        source = as_source(case.rows(rows), case.w[rows], block_rows=block_rows)
        objective = ModelObjective(case.build(), source, n_threads=n_threads)
        at = objective.point_of(objective.model.from_user(params))
        assert block_rows or threads_start(objective, at)
        results.append(solve(objective, Sparse(), at, stop=stop))
    one, three, blocks = results
    np.testing.assert_array_equal(one.state.resp, three.state.resp)
    np.testing.assert_array_equal(one.trace.value, three.trace.value)
    np.testing.assert_allclose(blocks.trace.value, one.trace.value, rtol=1e-11)
    np.testing.assert_allclose(blocks.state.resp, one.state.resp, rtol=0, atol=1e-7)


def test_rows_whose_active_components_have_no_density_stay_as_they_are():
    X = np.array([[0.0], [1.0], [100.0], [101.0]])
    objective = ModelObjective(GaussianMixture(2), as_source(X), n_threads=1)
    point = objective.point_of(objective.model.from_user(
        {"weights": [0.5, 0.5], "means": [[0.5], [100.5]], "covariances": [[[0.25]], [[0.25]]]}
    ))  # fmt: skip
    held = np.array([[0.99, 0.01], [0.99, 0.01], [0.999, 0.001], [0.01, 0.99]])
    e, resp = objective.free_energy(point, held, 0.1)
    np.testing.assert_array_equal(resp[2], held[2])
    np.testing.assert_allclose(resp[[0, 1, 3]], held[[0, 1, 3]], rtol=1e-14)
    assert np.isfinite(e.value)


def test_what_cannot_hold_responsibilities_is_refused():
    mapping = MapObjective(lambda x: 0.5 * x, lambda x: -float(x @ x), size=1)
    with pytest.raises(ValueError, match=r"solver 'sparse' needs \['sparse'\]"):
        solve(mapping, Sparse(), mapping.point([1.0]))
    case = SMALL[0]
    objective = case.objective()
    bare = type("Bare", (type(objective.model.latent),), {"provides": objective.model.latent.provides - {"sparse"}})
    objective.model.latent.__class__ = bare
    again = type(objective.model)(objective.model.latent, objective.model.emission)
    assert "sparse" not in again.provides
    with pytest.raises(ValueError, match="resp must have shape"):
        objective.free_energy(case.start(objective), np.ones((3, 3)), 0.1)
    with pytest.raises(ValueError, match="resp must have 2 columns"):
        SparseMixture(log_weights(np.ones(2) / 2), np.ones((5, 3)), np.ones(5), 0.1)


def test_a_step_that_breaks_down_keeps_the_last_point():
    case = SMALL[0]
    objective = case.objective()
    state = Sparse().init(objective, case.start(objective))
    lower = replace(state, current=replace_value(state.current, 10.0))
    failed = Sparse().step(objective, lower)
    assert failed.failure.status is Status.DECREASED
    assert failed.point is state.point


def replace_value(evaluation, by):
    """Return the evaluation with a value that is higher than it can be."""
    return type(evaluation)(
        evaluation.objective, evaluation.point, evaluation.value + by, evaluation.scale, evaluation.stats
    )  # fmt: skip
