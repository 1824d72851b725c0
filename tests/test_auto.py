"""EM where it is fast and QN2 where it is not: when the choice is made, and that it costs little."""

import math
from dataclasses import replace
from functools import cache
from itertools import chain

import numpy as np
import pytest
from cases import CASES, exception

import emcore
from emcore import Failure, Status, Stop, solvers
from emcore.solve import solve
from emcore.solvers import QN2, Auto
from emcore.solvers.auto import AutoState, _far, _observed

STOP = Stop(gain=1e-12, max_passes=5000)
SAME = 1e-8  # values that lie no farther from each other are those of one optimum
MOST = 1.3  # passes over those of the better of EM and L-BFGS, of all races but one in twenty
SEVERAL = [case for case in CASES if "-k1-" not in case.name and not exception("lbfgs", case)]


def climb(case, solver, seed):
    """Return the climb of a solver from one of the starts of a case."""
    objective = case.objective()
    return solve(objective, solvers.get(solver), case.somewhere(objective, seed), stop=STOP)


@pytest.fixture(scope="module")
def climbed():
    """`climb`, of which several tests want the same: each is made once."""
    return cache(climb)


# Of the overlapping cases, those in which EM crawls from that start, and of the separated ones those in which it is fast.
KINDS = "full-k2-d1", "tied-k2-d1", "tied-k3-d2", "diag-k2-d1", "spherical-k2-d1"
SLOW = [f"GaussianMixture-{kind}-overlapping" for kind in KINDS]
FAST = [c.name for c in SEVERAL if c.name.startswith(("GaussianMixture", "PoissonMixture")) and "k2-d2-separated" in c.name]


def named(name):
    return next(case for case in SEVERAL if case.name == name)


@pytest.mark.parametrize("name", SLOW)
def test_it_leaves_em_where_em_is_slow_and_says_why(name, climbed):
    auto, em = climbed(named(name), "auto", 0), climbed(named(name), "em", 0)
    assert em.passes > 60
    assert auto.status.ok
    (first, *_) = [e for e in auto.trace.event if e.startswith("switched at rate ")]
    assert 0.4 < float(first.rsplit(" ", 1)[1]) < 1.5
    assert auto.passes < em.passes / 2
    assert auto.value == pytest.approx(em.value, abs=1e-9)


@pytest.mark.parametrize("name", FAST)
def test_it_is_em_where_em_is_fast(name, climbed):
    auto, em = climbed(named(name), "auto", 0), climbed(named(name), "em", 0)
    assert em.passes < 8
    np.testing.assert_array_equal(auto.trace.value, em.trace.value)
    assert set(auto.trace.event[1:]) == {"em"}


MIXTURES = tuple(case for case in SEVERAL if case.name.startswith(("GaussianMixture", "PoissonMixture")))
OTHERS = tuple(case for case in SEVERAL if case not in MIXTURES)  # small: L-BFGS is done with most in ten passes, EM in twenty


@pytest.fixture(scope="module")
def races(climbed):
    """A function that returns the climbs of auto, EM and L-BFGS from some starts of a case."""
    return lambda case, seeds: [[climbed(case, name, seed) for name in ("auto", "em", "lbfgs")] for seed in seeds]


@pytest.mark.parametrize("cases", [MIXTURES, OTHERS], ids=["mixtures", "others"])
def test_it_costs_little_more_than_the_better_of_em_and_lbfgs(cases, races):
    ratios = []
    for auto, *others in chain.from_iterable(races(case, (20, 21)) for case in cases):
        best = max(r.value for r in others)
        passes = [r.passes for r in others if r.value > best - SAME]
        if abs(auto.value - best) < SAME:
            ratios.append(auto.passes / min(passes))
    median, upper = np.percentile(ratios, [50, 95])
    print(f"auto's passes over the better one's: median {median:.2f}, 95th percentile {upper:.2f}")
    assert len(ratios) >= 0.9 * 2 * len(cases)
    assert median <= 1.0
    assert upper <= MOST


@pytest.mark.parametrize(("cases", "seeds"), [(MIXTURES, range(20, 30)), (OTHERS, range(20, 22))], ids=["mixtures", "others"])
def test_it_reaches_the_best_optimum_known_no_less_often_but_for_luck(cases, seeds, races):
    """But for two standard deviations of a fair coin, thrown for each start from which one of two arrives alone."""
    arrived = []
    for case in cases:
        top = max(r.value for r in chain.from_iterable(races(case, seeds)))
        arrived += [[r.status.ok and r.value > top - SAME for r in race] for race in races(case, seeds)]
    auto, *others = np.array(arrived).T
    print(f"of {len(auto)} starts: auto {auto.sum()}, EM {others[0].sum()}, L-BFGS {others[1].sum()}")
    assert auto.mean() > 0.9
    for other in others:
        lost, won = np.sum(other & ~auto), np.sum(auto & ~other)
        assert lost - won <= 2 * math.sqrt(lost + won)


@pytest.fixture
def stuck(monkeypatch):
    """QN2 finds no way up; the list is of the points from which it tried."""
    tried = []

    def step(self, objective, state):
        tried.append(state)
        return replace(state, failure=Failure(Status.NO_ASCENT))

    monkeypatch.setattr(QN2, "step", step)
    return tried


def test_where_qn2_finds_no_way_up_em_goes_on_and_says_why(stuck, climbed):
    case = named(SLOW[0])
    auto, em = climb(case, "auto", 0), climbed(case, "em", 0)
    assert auto.status.ok
    np.testing.assert_array_equal(auto.trace.value, em.trace.value)
    fell = np.flatnonzero(auto.trace.event == "fell back: no ascent")
    assert len(fell) == len(stuck) > 2
    assert set(auto.trace.event[1:]) == {"em", "fell back: no ascent"}
    # Each vain search costs passes, so that they become rarer; a fall and then so many slow steps.
    np.testing.assert_array_equal(np.diff(fell), Auto().patience * 4 ** np.arange(1, len(fell)))


def test_where_qn2_creeps_em_goes_on_and_says_why():
    """A covariance falls to its floor: QN2 creeps for a thousand passes where one EM step gains a tenth of a nat a row."""
    X = np.concatenate([np.random.default_rng(29).normal(size=(25, 2)), np.full((4, 2), 5.0)])
    result = emcore.fit(emcore.models.GaussianMixture(3), X, start="random-points", random_state=29, n_threads=1)
    (left,) = np.flatnonzero(result.trace.event == "fell back: little gained")
    rises = np.diff(result.trace.value)
    assert (rises[left - 3 : left - 1] < 0.1 * result.trace.gain[left - 3 : left - 1]).all()
    assert rises[left - 1] > 0.1
    assert result.status.ok
    assert result.passes < 100


def test_without_a_gradient_it_is_em(climbed):
    case = named(SLOW[0])

    def blind():
        objective = case.objective()
        objective.capabilities -= {"gradient"}
        return objective

    objective = blind()
    auto = solve(objective, Auto(), case.somewhere(objective), stop=STOP)
    em = climbed(case, "em", 0)
    assert auto.status is em.status
    np.testing.assert_array_equal(auto.trace.value, em.trace.value)
    with pytest.raises(ValueError, match="solver 'qn2' needs"):
        solve(blind(), QN2(), case.somewhere(objective), stop=STOP)


def test_an_em_map_alone_is_climbed_by_em():
    start = [3.0, -1.0]
    auto, em = (emcore.accelerate(lambda x: 0.7 * x + 0.3, start, method=method) for method in ("auto", "em"))
    np.testing.assert_array_equal(auto.theta, em.theta)
    assert auto.passes == em.passes


@pytest.mark.parametrize(("now", "before", "rate"), [(0.25, 1.0, 0.5), (math.nan, 1.0, 0), (1.0, math.nan, 0), (0.0, 0.0, 0)])
def test_the_observed_rate(now, before, rate):
    class Current:
        gain = now

    assert _observed(AutoState(point=None, current=Current(), gain=before)) == rate


@pytest.mark.parametrize(
    ("gain", "before", "rate", "far"),
    [
        (1e-2, 0.5, 0.5, True),  # 16.6 steps to go, and QN2 takes 4 and 3
        (1e-2, 0.3, 0.5, False),  # the rate has not settled
        (1e-8, 0.5, 0.5, False),  # 6.6 steps
        (1e-2, 0.1, 0.1, False),  # 5 steps
        (1e-2, 1.01, 1.01, False),  # it does not shrink: no rate
        (1e-2, 0.0, 0.0, False),
        (1e3, 0.0, 0.1, False),  # one rate alone
    ],
)
def test_em_is_left_early_only_where_it_is_known_to_have_far_to_go(gain, before, rate, far):
    class Current:
        pass

    Current.gain = gain
    assert _far(AutoState(point=None, current=Current(), rate=before), rate, size=6) is far


def test_on_a_small_problem_it_does_not_wait_for_em(climbed):
    case = named("SymmetricGaussianMixture-d3-weighted")
    for seed in (20, 21):
        auto, em = climbed(case, "auto", seed), climbed(case, "em", seed)
        assert "switched" in " ".join(auto.trace.event)
        assert auto.passes < em.passes
