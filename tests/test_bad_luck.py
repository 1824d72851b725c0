"""Bad luck, for every solver: a climb ends in a status with the last good point, never in an exception or a NaN."""

import math

import numpy as np
import pytest
from broken import BrokenMetric, NoHessian
from cases import CRAWLING, NOISY, SMALL, SOLVERS

from emcore import solvers
from emcore.data import as_source
from emcore.fit import fit
from emcore.models import GaussianMixture, PoissonMixture, SymmetricGaussianMixture
from emcore.objective import ModelObjective
from emcore.result import Failure, Status, Stop
from emcore.solve import solve

MAY_FALL = (*NOISY, "incremental")  # between sweeps
GAUSSIAN, POISSON = SMALL[0], next(case for case in SMALL if case.name.startswith("PoissonMixture"))


def objective_of(model, X, **options):
    return ModelObjective(model, as_source(np.asarray(X)), n_threads=1, **options)


def at_a_saddle():
    """All components are the maximum for one: the gradient is 0 and the Hessian singular."""
    X = GAUSSIAN.X
    S = np.cov(X.T, bias=True)
    return objective_of(GaussianMixture(3), X), {
        "weights": [0.2, 0.3, 0.5],
        "means": [X.mean(axis=0)] * 3,
        "covariances": [S] * 3,
    }


def without_gradient():
    """Each row has its mirror image, and the centre is where both means are: not a digit of the gradient is left."""
    X = np.random.default_rng(0).normal(size=(100, 2))
    objective, start = objective_of(SymmetricGaussianMixture(0.2), np.concatenate([X, -X])), {"mean": [0.0, 0.0]}
    assert not objective.evaluate(objective.point_of(objective.model.from_user(start))).gradient.any()
    return objective, start


def collapsing():
    """A component on equal rows, which at first has part of others too; then its variance goes to 0."""
    X = np.concatenate([np.full((8, 2), 5.0), np.random.default_rng(0).normal(size=(40, 2))])
    start = {"weights": [0.2, 0.8], "means": [[4.0, 4.0], [0.0, 0.0]], "covariances": [3 * np.eye(2), np.eye(2)]}
    return objective_of(GaussianMixture(2, reg=0), X), start


def starved():
    """A component so far away that no row sees it."""
    objective = objective_of(GaussianMixture(3), GAUSSIAN.X)
    start = objective.model.to_user(GAUSSIAN.start(GAUSSIAN.objective()).params)._asdict()
    start["means"] = np.concatenate([start["means"][:2], [[1e4, 1e4]]])
    return objective, start


def without_weight():
    """A component of weight 0, and a rate of 0: the boundary of the parameter space."""
    X = POISSON.X.copy()
    X[:, 0] = 0
    return objective_of(PoissonMixture(2), X), {"weights": [1.0, 0.0], "rates": [[0.5, 3.0], [1.0, 9.0]]}


def next_to_the_boundary():
    """Original coordinates, in which a long step leaves the parameter space."""
    objective = objective_of(GaussianMixture(2), GAUSSIAN.X, coordinates="original")
    mean, S = GAUSSIAN.X.mean(axis=0), np.cov(GAUSSIAN.X.T)
    return objective, {"weights": [1e-4, 1 - 1e-4], "means": [mean + 1.0, mean], "covariances": [1e-3 * S, S]}


class Fenced(ModelObjective):
    """Nothing is finite but for a small neighbourhood of the first point that was evaluated."""

    centre = None

    def _pass(self, point, kernel, parts):
        self.centre = point.theta if self.centre is None else self.centre
        if np.abs(point.theta - self.centre).max() > 1e-3:
            return self._nowhere(point, Failure(Status.NON_FINITE))
        return super()._pass(point, kernel, parts)


class ZeroHessian(ModelObjective):
    def _second_order(self, at, stats, V, *, observed):
        return np.zeros(np.shape(V))


def bound_by(cls):
    def luck():
        objective = cls(GAUSSIAN.build(), GAUSSIAN.source(), n_threads=1)
        return objective, objective.model.to_user(GAUSSIAN.somewhere(objective).params)

    luck.__name__ = cls.__name__
    return luck


WATCHED = Stop(gain=1e-9, max_passes=30)
UNWATCHED = Stop(gain=0, xtol=1e-12, max_passes=100)  # the loop makes no M-step of its own: solvers meet it first
LUCK = (
    (at_a_saddle, UNWATCHED),
    (without_gradient, UNWATCHED),
    (collapsing, UNWATCHED),
    (collapsing, Stop(gain=1e-9, max_passes=300)),
    (starved, WATCHED),
    (without_weight, WATCHED),
    (next_to_the_boundary, WATCHED),
    *((bound_by(cls), WATCHED) for cls in (Fenced, NoHessian, BrokenMetric, ZeroHessian)),
)
STEPS = (at_a_saddle, collapsing)  # from which there is a first step


@pytest.mark.parametrize("d", [20, 120])
@pytest.mark.parametrize("kind", ["full", "tied"])
def test_rounding_at_the_floor_is_no_broken_m_step(kind, d):
    """Fewer rows than columns: q is known to few digits there, and EM is at rest within them."""
    for seed in range(20 if d == 20 else 2):
        rng = np.random.default_rng(seed)
        objective = objective_of(GaussianMixture(2, kind), rng.normal(size=(d // 2, d)))
        resp = rng.dirichlet(np.ones(2), size=d // 2)
        result = solve(objective, solvers.EM(), objective.point_of(objective.model.start(objective.source.block(0), resp)))
        assert result.status is Status.BOUNDARY, result


@pytest.fixture
def steps(monkeypatch):
    """A function that notes in a list how often the steps of a solver are asked for."""

    def watch(solver):
        asked, step = [], type(solver).step
        monkeypatch.setattr(type(solver), "step", lambda self, *given: asked.append(self) or step(self, *given))
        return asked

    return watch


@pytest.mark.parametrize(
    ("luck", "stop"), [pytest.param(*pair, id=f"{pair[0].__name__}{'-unwatched' * (pair[1] is UNWATCHED)}") for pair in LUCK]
)
@pytest.mark.parametrize("name", SOLVERS)
def test_a_climb_ends_in_a_status_with_the_last_good_point(name, luck, stop, steps):
    objective, start = luck()
    at = objective.point_of(objective.model.from_user(start))
    solver = solvers.get(name)
    asked = steps(solver)
    result = solve(objective, solver, at, stop=stop)
    assert asked, result
    assert isinstance(result.status, Status)
    if luck in STEPS:
        assert result.steps > 0, result
    if luck is collapsing and stop.gain > 0:
        assert result.status is Status.COLLAPSED
        assert "component 0" in str(result)
    assert math.isfinite(result.value)
    assert np.isfinite(result.trace.value).all()
    assert np.isfinite(result.theta).all()
    objective.model.from_user(objective.model.to_user(result.point.params))  # refuses what is no parameter
    assert result.value == pytest.approx(
        ModelObjective(objective.model, objective.source).evaluate(result.point).value, rel=1e-9
    )
    if name not in MAY_FALL:
        assert result.value >= result.trace.value[0] - 1e-12


def counts_of_few_rows(seed):
    """Counts over four orders of magnitude: rates of 0, and trials at which no digit of the value is left."""
    rng = np.random.default_rng(seed)
    return PoissonMixture(3), rng.poisson(np.exp(1.5 * rng.normal(size=(30, 2)))).astype(float)


def four_equal_rows(seed):
    """A component falls to the floor, another may lose all weight; covariances are ill-conditioned on the way."""
    return GaussianMixture(3), np.concatenate([np.random.default_rng(seed).normal(size=(25, 2)), np.full((4, 2), 5.0)])


@pytest.mark.parametrize(
    ("of", "seed"),
    [
        *((counts_of_few_rows, seed) for seed in (19, 42, 71, 81, 136)),
        *((four_equal_rows, seed) for seed in (5, 8, 19, 29, 31, 49)),
    ],
)
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.filterwarnings("ignore::emcore.ConvergenceWarning")
def test_the_noise_of_a_bad_point_hides_no_fall(name, of, seed):
    """From random points on small data; each of these seeds has led a solver down, out of the space, or to a failure."""
    model, X = of(seed)
    result = fit(model, X, solver=name, start="random-points", random_state=seed, n_threads=1, stop=Stop(max_passes=600))
    assert not result.status.failed, result
    result.model.from_user(result.params)
    if name not in MAY_FALL:
        assert result.trace.value[-1] >= result.trace.value[0] - 1e-9
    if name not in (*NOISY, *CRAWLING, "lbfgs"):  # of which EM is done with all
        assert result.status.ok, result


@pytest.mark.parametrize("solver", [solvers.Newton(), solvers.Proximal(), solvers.Proximal(0.1)], ids=lambda s: s.describe())
@pytest.mark.parametrize("luck", [starved, without_weight, bound_by(NoHessian)], ids=lambda f: f.__name__)
def test_second_order_ends_where_em_ends(luck, solver):
    """Metric or Hessian are not finite there, or go beyond all bounds."""
    objective, start = luck()
    at = objective.point_of(objective.model.from_user(start))
    em, ours = (solve(objective, s, at, stop=Stop(gain=1e-9, max_passes=300)) for s in (solvers.EM(), solver))
    # A weight on its way to 0 may be there, or still on its way, when the gain is below its tolerance.
    assert ours.status is em.status or (ours.status.ok and em.status.ok), ours
    assert ours.value == pytest.approx(em.value, abs=1e-6)
    assert np.abs(ours.theta).max() < 2e3
