"""The relation between EM and the gradient: Fisher's identity, P, angles, rates, condition numbers, the verdict."""

import math
from functools import cache

import numpy as np
import pytest
from derivatives import derivatives

import emcore
from emcore import diagnostics
from emcore.data import as_source, faithful
from emcore.models import COVARIANCES, GaussianMixture
from emcore.objective import ModelObjective
from emcore.result import Stop
from emcore.solve import solve
from emcore.solvers import EM

FAITHFUL = {"full": 0.24077, "tied": 0.07780, "diag": 0.05691}
COORDINATES = ("free", "original")


def objective_of(X, k, covariance, *, weights=None, **options):
    source = as_source(X, weights)
    return ModelObjective(GaussianMixture(k, covariance).bind(source), source, n_threads=1, **options)


def climb(objective, labels, k):
    start = objective.model.start(objective.source.block(0), np.eye(k)[labels])
    result = solve(objective, EM(), objective.point_of(start), stop=Stop(gain=1e-16, max_passes=20_000))
    assert result.status.ok
    return result.point


@cache
def rows(n=300, d=4, k=3):
    rng = np.random.default_rng(7)
    labels = rng.integers(k, size=n)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 2.0 * rng.normal(size=(k, d))[labels]
    weights = rng.exponential(size=n)
    weights[::17] = 0.0
    return X, labels, weights


def problem(covariance, weighted, **options):
    X, _, weights = rows()
    return objective_of(X, 3, covariance, weights=weights if weighted else None, **options)


def far_points(objective, n=20):
    """Points of random weights, means and well-conditioned covariances: nowhere near an optimum."""
    rng = np.random.default_rng(11)
    kind = type(objective.model.coordinates("free").forward(np.zeros(objective.model.coordinates("free").size)))
    weights, means, covariances = (f.shape for f in objective.model.fields)
    for _ in range(n):
        if covariances[-2:] == (means[1], means[1]):
            A = rng.normal(size=(*covariances[:-1], 2 * means[1]))
            S = A @ np.swapaxes(A, -1, -2) / (2 * means[1]) + 0.2 * np.eye(means[1])
        else:
            S = rng.uniform(0.2, 2.0, size=covariances)
        yield objective.point_of(kind(rng.dirichlet(np.full(weights[0], 3.0)), 1.5 * rng.normal(size=means), S))


@cache
def old_faithful(covariance, coordinates="free"):
    X = faithful()
    objective = objective_of(X, 2, covariance, coordinates=coordinates)
    return objective, climb(objective, (X[:, 0] > 3).astype(int), 2)


@cache
def two_components(separation, weights=(0.5, 0.5), n=2000, coordinates="free"):
    rng = np.random.default_rng(3)
    labels = (rng.random(n) > weights[0]).astype(int)
    objective = objective_of(rng.normal(size=(n, 1)) + separation * labels[:, None], 2, "full", coordinates=coordinates)
    return objective, climb(objective, labels, 2)


def dense(objective, at, of):
    """Differenced derivative of a vector of evaluations, in the coordinates of the objective."""
    return derivatives(lambda theta: of(objective.evaluate(theta)), at.theta, 1e-5, order=2).T


def flat(params):
    return np.concatenate([np.ravel(a) for a in params])


class TestFisher:
    @pytest.mark.parametrize("coordinates", COORDINATES)
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("covariance", COVARIANCES)
    def test_holds_far_from_any_optimum(self, covariance, weighted, coordinates):
        objective = problem(covariance, weighted, coordinates=coordinates)
        for point in far_points(objective, 20 if weighted and coordinates == "free" else 4):
            current = objective.evaluate(point)
            assert current.gain > 1e-2
            found = diagnostics.fisher(objective, current)
            assert found.error < 1e-8
            assert found.holds
            assert len(found.slopes) == objective.model.coordinates("free").size  # the tangent, all of it
            np.testing.assert_allclose(np.linalg.norm(found.slopes), np.linalg.norm(current.gradient), rtol=1e-12)

    def test_sees_a_wrong_gradient(self):
        class Lying(ModelObjective):
            def gradient(self, at, stats):
                g = super().gradient(at, stats).copy()
                g[5] *= 1 + 1e-5
                return g

        source = as_source(rows()[0])
        objective = Lying(GaussianMixture(3, "diag").bind(source), source)
        found = diagnostics.fisher(objective, next(far_points(objective)))
        assert 1e-8 < found.error < 1e-5
        assert not found.holds
        assert found.worst == "means"
        assert "FAILS, worst for means" in str(found)

    def test_at_a_solution_both_sides_vanish(self):
        found = diagnostics.fisher(*old_faithful("full"))
        assert np.linalg.norm(found.slopes) < 1e-5
        assert found.absolute < 1e-10
        assert found.holds

    def test_near_a_collapsed_component(self):
        X = faithful().copy()
        X[X[:, 0] <= 3, 0] = 2.0  # one variance on its floor: the step must be small against its root
        objective = objective_of(X, 2, "diag")
        point = climb(objective, (X[:, 0] > 3).astype(int), 2)
        rng = np.random.default_rng(0)
        found = diagnostics.fisher(objective, point.theta + 0.01 * rng.normal(size=objective.size))
        assert found.holds
        assert found.error < 1e-8

    def test_directions_and_step(self):
        objective = problem("full", False)
        point = next(far_points(objective))
        gradient = objective.evaluate(point).gradient
        one = diagnostics.fisher(objective, point.theta, directions=[1.0] * objective.size)
        np.testing.assert_allclose(one.slopes, [gradient.sum() / math.sqrt(objective.size)], rtol=1e-12)
        some = diagnostics.fisher(objective, point, directions=4, step=2e-3)
        assert some.differences.shape == (4,)
        assert some.passes == 1 + 4 * 6
        assert some.error < 1e-8

    def test_is_counted_as_monitoring(self):
        objective = problem("tied", False)
        found = diagnostics.fisher(objective, next(far_points(objective)), directions=2)
        assert objective.passes == 0
        assert objective.monitor_passes == found.passes > 0

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"directions": 0}, "directions must be"),
            ({"directions": 1.5}, "directions must be"),
            ({"directions": [[1.0, 2.0]]}, "shape"),
            ({"directions": [0.0] * 24}, "must not be zero"),
            ({"step": 0.0}, "step"),
            ({"step": math.inf}, "step"),
        ],
    )
    def test_refuses(self, options, words):
        objective = problem("tied", False)
        assert objective.size == 24
        with pytest.raises(ValueError, match=words):
            diagnostics.fisher(objective, next(far_points(objective)), **options)


def old_mean_scatter(objective, params):
    """Covariances about the OLD means, by plain NumPy: what theta + P grad must be."""
    X, _, weights = rows()
    frame, covariance = objective.model.emission.frame, objective.model.emission.covariance
    Z = (X - frame.shift) * frame.scale
    w = weights if objective.source.weights is not None else np.ones(len(Z))
    k, d = params.means.shape
    S = {
        "full": lambda: params.covariances,
        "tied": lambda: np.broadcast_to(params.covariances, (k, d, d)),
        "diag": lambda: np.stack([np.diag(v) for v in params.covariances]),
        "spherical": lambda: np.stack([v * np.eye(d) for v in params.covariances]),
    }[covariance]()
    residual = Z[:, None, :] - params.means
    logs = np.log(params.weights) - 0.5 * np.linalg.slogdet(S)[1]
    logs = logs - 0.5 * np.einsum("nki,kij,nkj->nk", residual, np.linalg.inv(S), residual)
    h = np.exp(logs - logs.max(axis=1, keepdims=True))
    h *= (w / h.sum(axis=1))[:, None]
    scatter, count = np.einsum("nk,nki,nkj->kij", h, residual, residual), h.sum(axis=0)
    if covariance == "tied":
        return scatter.sum(axis=0) / count.sum()
    scatter /= count[:, None, None]
    if covariance == "full":
        return scatter
    diagonal = np.einsum("kii->ki", scatter)
    return diagonal if covariance == "diag" else diagonal.mean(axis=1)


class TestProjection:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("covariance", COVARIANCES)
    def test_em_step_is_p_times_the_gradient(self, covariance, weighted):
        objective = problem(covariance, weighted)
        for point in far_points(objective):
            found = diagnostics.projection(objective, point)
            assert found.error < 1e-12
            assert found.at_floor == ()
            for step, pg, fix in zip(found.em_step, found.p_gradient, found.correction, strict=True):
                assert np.linalg.norm(step - pg - fix) < 1e-12 * np.linalg.norm(step)
            assert not np.any(found.correction.weights)
            assert not np.any(found.correction.means)
            assert found["weights"].gap < 1e-12
            assert found["means"].gap < 1e-12
            assert found["covariances"].gap > 1e-3
            expected = old_mean_scatter(objective, point.params)
            np.testing.assert_allclose(
                point.params.covariances + found.p_gradient.covariances, expected, rtol=1e-11, atol=1e-12
            )

    @pytest.mark.parametrize("covariance", COVARIANCES)
    def test_textbook_gap_is_of_second_order(self, covariance):
        objective = problem(covariance, False)
        solution = climb(objective, rows()[1], 3)
        direction = np.random.default_rng(5).normal(size=objective.size) / math.sqrt(objective.size)
        gaps, steps = [], []
        for distance in (0.04, 0.02, 0.01):
            found = diagnostics.projection(objective, solution.theta + distance * direction)
            gaps.append(np.linalg.norm(found.em_step.covariances - found.p_gradient.covariances))
            steps.append(np.linalg.norm(found.em_step.covariances))
        np.testing.assert_allclose(np.divide(gaps[:-1], gaps[1:]), 4.0, atol=0.3)
        np.testing.assert_allclose(np.divide(steps[:-1], steps[1:]), 2.0, atol=0.15)

    @pytest.mark.parametrize("covariance", COVARIANCES)
    def test_p_is_positive_definite_and_known(self, covariance):
        objective = problem(covariance, True)
        for point in far_points(objective, 3):
            found = diagnostics.projection(objective, point)
            assert found.positive_definite
            a = point.params.weights
            values = np.linalg.eigvalsh(np.diag(a) - np.outer(a, a))
            assert abs(values[0]) < 1e-15
            np.testing.assert_allclose([found["weights"].smallest, found["weights"].largest], values[1:], rtol=1e-10)
            stats = objective.evaluate(point).stats
            share = objective.model.layout.view(stats.vector, "latent.count") / stats.weight
            S = point.params.covariances
            S = np.linalg.eigvalsh(S.reshape(-1, 4, 4)) if covariance in ("full", "tied") else S.reshape(3, -1)
            means = S / share[:, None]
            np.testing.assert_allclose(
                [found["means"].smallest, found["means"].largest], [means.min(), means.max()], rtol=1e-10
            )
            low, high = S.min(axis=1), S.max(axis=1)
            many = {"tied": 1.0, "spherical": share * 4}.get(covariance, share)
            ends = [np.min(2 * low**2 / many), np.max(2 * high**2 / many)]
            np.testing.assert_allclose([found["covariances"].smallest, found["covariances"].largest], ends, rtol=1e-10)

    def test_large_blocks_are_bounded_and_say_so(self, monkeypatch):
        from emcore.diagnostics import projection as module  # the function hides the module of its name

        objective = problem("full", False)
        point = next(far_points(objective))
        exact = diagnostics.projection(objective, point)
        monkeypatch.setitem(module.__globals__, "LIMIT", 3)
        monkeypatch.setitem(module.__globals__, "LANCZOS", 6)
        found = diagnostics.projection(objective, point)
        assert [b.bounded for b in found.blocks] == [False, True, True]
        for a, b in zip(exact.blocks, found.blocks, strict=True):
            assert b.smallest >= a.smallest * (1 - 1e-10)
            assert 0.5 * a.largest < b.largest <= a.largest * (1 + 1e-10)
        assert "<=" in str(found)
        assert "<=" not in str(exact)

    @pytest.mark.parametrize("coordinates", COORDINATES)
    def test_angles_and_step_sizes(self, coordinates):
        objective = problem("tied", True, coordinates=coordinates)
        point = next(far_points(objective))
        current = objective.evaluate(point)
        found = diagnostics.projection(objective, current)
        passes = objective.passes + objective.monitor_passes
        assert passes == 1  # that of `evaluate`
        score = objective.model.score(point.params, current.stats)
        g_weights = (score.weights - score.weights.mean()) / current.stats.weight
        step = current.em_point.params.weights - point.params.weights
        assert found["weights"].step == pytest.approx(step @ g_weights / (g_weights @ g_weights), rel=1e-12)
        g_means = score.means.ravel() / current.stats.weight
        step = (current.em_point.params.means - point.params.means).ravel()
        cosine = step @ g_means / np.linalg.norm(step) / np.linalg.norm(g_means)
        assert found["means"].cosine == pytest.approx(cosine, rel=1e-12)
        a, b = flat(found.em_step), flat(found.gradient)
        assert found.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
        a, b = current.em_point.theta - point.theta, current.gradient
        assert found.own_cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
        assert (found.own_cosine == pytest.approx(found.cosine, rel=1e-9)) == (coordinates == "original")
        assert 0 < found.own_cosine < 1

    def test_says_where_the_floor_cuts(self):
        X = np.column_stack([faithful(), faithful()[:, 0]])  # a singular direction
        objective = objective_of(X, 2, "full")
        solution = climb(objective, (X[:, 0] > 3).astype(int), 2)
        found = diagnostics.projection(objective, solution)
        assert found.at_floor == ("covariances",)
        assert "the floor cuts the EM step of covariances" in str(found)
        assert found.error < 1e-10  # of the other blocks
        free, at = old_faithful("full")
        assert diagnostics.projection(free, at).at_floor == ()

    def test_a_single_component_has_no_weight_to_move(self):
        objective = objective_of(faithful(), 1, "full")
        found = diagnostics.projection(objective, np.full(objective.size, 0.1))
        assert [b.name for b in found.blocks] == ["means", "covariances"]
        assert found.error < 1e-12
        with pytest.raises(KeyError):
            found["weights"]


class TestRate:
    @pytest.mark.parametrize("coordinates", COORDINATES)
    @pytest.mark.parametrize("covariance", FAITHFUL)
    def test_old_faithful(self, covariance, coordinates):
        found = diagnostics.rate(*old_faithful(covariance, coordinates))
        assert found.rate == pytest.approx(FAITHFUL[covariance], abs=2e-5)
        assert found.converged
        assert found.settled
        assert found.error < 2e-5
        assert found.passes <= 12
        assert sum(found.shares.values()) == pytest.approx(1.0)
        assert found.steps_per_digit == pytest.approx(-math.log(10) / math.log(FAITHFUL[covariance]), rel=1e-3)

    @pytest.mark.parametrize(("separation", "low", "high"), [(2.0, 0.98, 0.9999), (3.0, 0.8, 0.95), (6.0, 0.0, 0.25)])
    def test_is_the_contraction_that_em_shows(self, separation, low, high):
        objective, solution = two_components(separation)
        found = diagnostics.rate(objective, solution)
        assert low < found.rate < high
        thetas = [solution.theta + 1e-4 * found.direction / np.linalg.norm(found.direction)]
        for _ in range(3):  # what EM does with an error in that direction
            thetas.append(objective.evaluate(thetas[-1]).em_point.theta)
        steps = np.linalg.norm(np.diff(thetas, axis=0), axis=1)
        ratio = steps[-1] / steps[-2]
        assert 1 - ratio == pytest.approx(1 - found.rate, rel=0.02)
        assert ratio == pytest.approx(found.rate, rel=1e-3 if found.rate > 0.5 else 2e-2)
        assert abs(found.rate - np.linalg.eigvals(dense(objective, solution, lambda e: e.em_point.theta)).real.max()) < 1e-5

    def test_many_parameters_few_passes(self):
        X, labels, weights = rows(2000, 6, 4)
        objective = objective_of(X, 4, "full", weights=weights)
        solution = climb(objective, labels, 4)
        found = diagnostics.rate(objective, solution)
        exact = np.linalg.eigvals(dense(objective, solution, lambda e: e.em_point.theta)).real.max()
        assert objective.size == 111
        assert abs(found.rate - exact) < max(3 * found.error, 1e-7)
        assert found.error <= 1e-5
        assert found.passes <= 60

    def test_says_when_the_passes_do_not_suffice(self):
        objective, solution = two_components(2.0)
        found = diagnostics.rate(objective, solution, passes=3)
        assert not found.converged
        assert found.error > 1e-3
        assert "not resolved" in str(found)
        assert found.rate - 1e-9 <= diagnostics.rate(objective, solution).rate

    @pytest.mark.parametrize("covariance", ["full", "tied"])
    def test_on_the_floor_it_is_that_of_the_others(self, covariance):
        X = np.column_stack([faithful(), faithful()[:, 0]])  # a column twice: a floor, and the same mixture
        objective = objective_of(X, 2, covariance)
        found = diagnostics.rate(objective, climb(objective, (X[:, 0] > 3).astype(int), 2))
        assert found.boundary
        assert found.rate == pytest.approx(FAITHFUL[covariance], abs=5e-5)
        assert "at the boundary" in str(found)

    def test_away_from_a_fixed_point_it_says_so(self):
        objective = problem("full", False)
        found = diagnostics.rate(objective, next(far_points(objective)))
        assert not found.settled
        assert found.gain > 1e-2
        assert found.shares == {}
        assert "not at a fixed point" in str(found) or "above 1" in str(found)

    def test_without_missing_information(self):
        objective = objective_of(faithful(), 1, "full")
        found = diagnostics.rate(objective, climb(objective, np.zeros(272, int), 1))
        assert found.rate == 0
        assert found.steps_per_digit == 0

    def test_is_counted_as_monitoring(self):
        objective, solution = old_faithful("diag")
        before = objective.passes, objective.monitor_passes
        found = diagnostics.rate(objective, solution)
        assert (objective.passes, objective.monitor_passes) == (before[0], before[1] + found.passes)

    @pytest.mark.parametrize("options", [{"passes": 2}, {"tol": 0.0}])
    def test_refuses(self, options):
        with pytest.raises(ValueError, match=next(iter(options))):
            diagnostics.rate(*old_faithful("diag"), **options)


class TestCondition:
    @pytest.mark.parametrize("covariance", COVARIANCES)
    def test_dm_is_i_plus_ph(self, covariance):
        objective, solution = old_faithful(covariance)
        found = diagnostics.condition(objective, solution)
        fractions = np.sort(np.linalg.eigvals(dense(objective, solution, lambda e: e.em_point.theta)).real)[::-1]
        np.testing.assert_allclose(1 - found.eigenvalues_after, fractions, atol=1e-5)
        assert found.eigenvalues_after[-1] <= 1 + 1e-6
        assert found.rate == pytest.approx(diagnostics.rate(objective, solution).rate, abs=1e-5)
        hessian = dense(objective, solution, lambda e: e.gradient)
        np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(-0.5 * (hessian + hessian.T)), rtol=1e-5)
        assert found.definite
        assert found.note == ""
        assert found.before == pytest.approx(found.eigenvalues[-1] / found.eigenvalues[0])

    @pytest.mark.parametrize("covariance", COVARIANCES)
    def test_after_p_coordinates_do_not_matter(self, covariance):
        free = diagnostics.condition(*old_faithful(covariance))
        original = diagnostics.condition(*old_faithful(covariance, "original"))
        np.testing.assert_allclose(free.eigenvalues_after, original.eigenvalues_after, atol=1e-5)
        assert free.after == pytest.approx(original.after, rel=1e-4)
        assert free.before != pytest.approx(original.before, rel=1e-2)
        assert (free.coordinates, original.coordinates) == COORDINATES

    @pytest.mark.parametrize(("separation", "times"), [(4.0, 2.5), (2.0, 1.1)])
    def test_p_improves_the_condition(self, separation, times):
        objective, solution = two_components(separation, (0.3, 0.7), 500, "original")
        found = diagnostics.condition(objective, solution)
        assert found.definite
        assert found.before > times * found.after
        ends = found.eigenvalues_after[[0, -1]]
        np.testing.assert_allclose(ends, [1 - diagnostics.rate(objective, solution).rate, 1.0], atol=1e-5)

    def test_predictions(self):
        found = diagnostics.condition(*old_faithful("full"))
        root = math.sqrt(found.after)
        assert found.prediction("EM").rate == pytest.approx(FAITHFUL["full"], abs=2e-5)
        plain = found.prediction("gradient ascent")
        assert plain.rate == pytest.approx((found.before - 1) / (found.before + 1))
        assert plain.rate**plain.steps == pytest.approx(0.1)
        cg = found.prediction("conjugate gradients with EM's P")
        assert cg.rate == pytest.approx((root - 1) / (root + 1))
        assert cg.passes == pytest.approx(2 * cg.steps)
        assert found.prediction("Newton") is None

    def test_best_constant_step_converges_as_predicted(self):
        objective, solution = old_faithful("full")
        found = diagnostics.condition(objective, solution)
        step = 2 / (found.eigenvalues[0] + found.eigenvalues[-1])
        theta = solution.theta + 1e-3 * np.random.default_rng(0).normal(size=objective.size)
        errors = []
        for _ in range(40):
            theta = theta + step * objective.evaluate(theta).gradient
            errors.append(np.linalg.norm(theta - solution.theta))
        assert (errors[-1] / errors[-21]) ** (1 / 20) == pytest.approx(found.prediction("gradient ascent").rate, abs=0.01)

    def test_beyond_the_limit_a_labelled_bound(self):
        objective, solution = two_components(3.0)
        dense_one = diagnostics.condition(objective, solution)
        assert not dense_one.bound
        found = diagnostics.condition(objective, solution, limit=4)
        assert objective.size == 5
        assert found.bound
        assert math.isnan(found.before)
        assert len(found.eigenvalues) == 0
        assert found.after == pytest.approx(1 / (1 - diagnostics.rate(objective, solution).rate), rel=1e-6)
        assert dense_one.after <= found.after * (1 + 1e-6)
        assert "at most" in str(found)
        assert found.prediction("gradient ascent") is None
        assert found.prediction("EM").rate == pytest.approx(dense_one.rate, abs=1e-6)
        known = diagnostics.rate(objective, solution)
        assert diagnostics.condition(objective, objective.evaluate(solution), limit=4, known=known).passes == 0

    def test_a_saddle_is_no_maximum(self):
        X = faithful()
        objective = objective_of(X, 2, "full")
        both = {"weights": [0.5, 0.5], "means": [X.mean(axis=0)] * 2, "covariances": [np.cov(X.T, bias=True)] * 2}
        saddle = objective.point_of(objective.model.from_user(both))
        found = diagnostics.condition(objective, saddle)
        assert not found.definite
        assert math.isnan(found.after)
        assert (found.eigenvalues_after < -1e-6).sum() == 2
        assert "curves upwards in 2 of 11 directions" in found.note
        assert found.predictions == ()
        speed = diagnostics.rate(objective, saddle)
        assert speed.rate == pytest.approx(1 - found.eigenvalues_after[0], abs=1e-5)
        assert speed.rate > 1
        assert not diagnostics.condition(objective, saddle, limit=3).definite
        verdict = diagnostics.relation(objective, saddle).verdict()
        assert "saddle" in verdict
        assert "advises" not in verdict

    def test_on_the_boundary_it_names_it(self):
        X = faithful().copy()
        X[X[:, 0] <= 3, 0] = 2.0
        objective = objective_of(X, 2, "diag")
        found = diagnostics.condition(objective, climb(objective, (X[:, 0] > 3).astype(int), 2))
        assert found.boundary == ("the covariance of component 0 is at its floor",)
        assert not found.definite
        assert math.isnan(found.before)
        assert "component 0 is at its floor" in str(found)

    def test_not_at_a_solution(self):
        objective, solution = old_faithful("diag")
        found = diagnostics.condition(objective, solution.theta + 0.01)
        assert "Not at a solution" in found.note

    def test_refuses(self):
        with pytest.raises(ValueError, match="limit"):
            diagnostics.condition(*old_faithful("diag"), limit=-1)

    @pytest.mark.parametrize("factor", [-1.0, 0.0, math.nan])
    def test_refuses_a_metric_that_is_none(self, factor, monkeypatch):
        objective, solution = old_faithful("diag")
        metric = objective.precondition
        unsound = np.where(np.arange(objective.size) == 3, factor, 1.0)  # in one direction only
        monkeypatch.setattr(objective, "precondition", lambda at, stats, v: unsound * metric(at, stats, v))
        with pytest.raises(ValueError, match="not positive definite"):
            diagnostics.condition(objective, solution)


class TestRelation:
    def test_says_em_where_it_is_fast(self):
        objective, solution = old_faithful("full")
        before = objective.passes
        found = diagnostics.relation(objective, solution)
        assert objective.passes == before
        assert found.advice == "em"
        assert found.fisher.holds
        assert found.projection.error < 1e-12
        assert found.projection["covariances"].step > 0
        text = found.verdict()
        assert "24% of the information" in text
        assert "Theory advises EM" in text
        assert str(found).endswith(text)

    def test_says_otherwise_where_it_is_slow(self):
        objective, solution = two_components(2.0)
        found = diagnostics.relation(objective, solution, start=solution.theta + 0.3)
        assert found.advice == "accelerated"
        assert found.where == "at the start"
        assert found.em_passes > 5 * found.accelerated_passes
        assert "Theory advises conjugate gradients" in found.verdict()

    def test_the_race_has_the_last_word(self):
        fast = diagnostics.relation(*old_faithful("tied"))
        slow = diagnostics.relation(*two_components(2.0))
        assert "Measured, em took the fewest passes (8), then lbfgs (15), as theory expects" in fast.verdict(
            {"em": 8, "lbfgs": 15}
        )
        assert "as theory expects" in fast.verdict({"em": 8, "squarem": 7})  # on a par
        assert "so the way there decided" in fast.verdict({"em": 80, "cg": 20})
        assert "Measured, lbfgs took the fewest passes (40), EM 900, as theory expects" in slow.verdict(
            {"em": 900, "lbfgs": 40}
        )
        assert "theory expected otherwise" in slow.verdict({"em": 9, "lbfgs": 40})
        assert "EM was not among those that arrived" in fast.verdict({"lbfgs": 40, "em": math.inf})
        assert "Measured" not in fast.verdict({"em": math.nan})
        assert "Measured, emulate took the fewest passes (3), EM 30" in fast.verdict({"emulate": 3, "em": 30})  # a name, not EM

    def test_advice_changes_once_with_separation(self):
        advice = [diagnostics.relation(*two_components(s)).advice for s in (2.0, 3.0, 6.0)]
        assert advice == ["accelerated", "accelerated", "em"]

    def test_no_solution_no_advice(self):
        objective = problem("full", False)
        found = diagnostics.relation(objective, next(far_points(objective)))
        assert found.advice == ""
        assert found.verdict().startswith("This is no solution")

    def test_beyond_the_limit(self):
        found = diagnostics.relation(*old_faithful("full"), limit=5)
        assert found.condition.bound
        assert found.advice == "em"
        assert "at most 1.32" in found.verdict()

    @pytest.mark.parametrize("away", [0.0, math.nan, -1.0])
    def test_refuses(self, away):
        with pytest.raises(ValueError, match="away"):
            diagnostics.relation(*old_faithful("full"), away=away)


@pytest.mark.parametrize("name", ["fisher", "projection", "rate", "condition", "relation"])
class TestAll:
    def test_refuse_a_point_without_a_value(self, name):
        objective = problem("diag", False)
        theta = next(far_points(objective)).theta.copy()
        theta[objective.coordinates.slices["means"]] = 1e200
        with pytest.raises(ValueError, match=r"at: .*not finite"):
            getattr(diagnostics, name)(objective, theta)

    def test_refuse_an_objective_that_lacks_what_they_need(self, name):
        objective = problem("diag", False)
        objective.capabilities = frozenset({"value"})
        with pytest.raises(ValueError, match="does not provide"):
            getattr(diagnostics, name)(objective, np.zeros(objective.size))

    def test_take_point_coordinates_and_evaluation(self, name):
        objective, solution = old_faithful("full")
        point = objective.point(solution.theta + 0.1) if name in ("fisher", "projection") else solution
        number = {
            "fisher": lambda found: found.slopes,
            "projection": lambda found: [found.own_cosine, *(block.gap for block in found.blocks)],
            "rate": lambda found: found.rate,
            "condition": lambda found: found.eigenvalues,
            "relation": lambda found: [found.rate.rate, found.condition.after],
        }[name]
        one, *others = (
            number(getattr(diagnostics, name)(objective, at)) for at in (point, point.theta, objective.evaluate(point))
        )
        for other in others:
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("name", ["fisher", "projection", "rate", "condition", "relation"])
def test_a_fit_knows_its_objective_and_its_point(name, tmp_path):
    measure = getattr(diagnostics, name)
    fit = emcore.fit(GaussianMixture(2, "tied"), faithful(), random_state=0)
    other = fit.point.theta + 0.01
    for found, expected in (
        (measure(fit), measure(fit.evaluation.objective, fit.evaluation)),
        (measure(fit, other), measure(fit.evaluation.objective, other)),
    ):
        assert str(found) == str(expected)
    with pytest.raises(ValueError, match="at must be given with an objective"):
        measure(fit.evaluation.objective)
    fit.save(tmp_path / "fit.npz")
    with pytest.raises(ValueError, match="knows no data"):
        measure(emcore.load(tmp_path / "fit.npz"))
    with pytest.raises(TypeError, match="of must be a fit or an objective, got a Model"):
        measure(GaussianMixture(2))
