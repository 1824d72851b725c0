"""Line searches on functions of one number."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from emcore.result import Breakdown, Failure, OutOfBudget, Status, rounding
from emcore.solvers import _search
from emcore.solvers._search import armijo, feasible, first_step, strong_wolfe

COLLAPSED = Failure(Status.COLLAPSED, "component 1")
NON_FINITE = Failure(Status.NON_FINITE)
OUTSIDE = Failure(Status.OUTSIDE)


class OnLine:
    """An objective of one coordinate that remembers where it was asked; `of` gives (value, slope) or a Failure."""

    def __init__(self, of, scale=1.0):
        self.of, self.scale, self.asked = of, scale, []
        self.start = self.evaluate(0.0)
        self.asked.clear()

    def evaluate(self, at):
        a = float(np.asarray(at).item())
        self.asked.append(a)
        answer = self.of(a)
        point = SimpleNamespace(theta=np.array([a]))
        if isinstance(answer, Failure):
            return SimpleNamespace(point=point, value=-math.inf, noise=math.nan, failure=answer)
        noise, slope = rounding(self.scale), np.array([answer[1]])
        return SimpleNamespace(point=point, value=answer[0], gradient=slope, noise=noise, failure=None)


def search(which, objective, first=1.0, **options):
    return which(objective, objective.start, np.ones(1), first, **options)


def parabola(a, top=1.0):
    return -((a - top) ** 2), -2 * (a - top)


# The functions of More and Thuente (1994), section 5, turned over.
def more_thuente_1(a, b=2.0):
    return a / (a * a + b), (b - a * a) / (a * a + b) ** 2


def more_thuente_2(a, b=0.004):
    return -((a + b) ** 5) + 2 * (a + b) ** 4, -5 * (a + b) ** 4 + 8 * (a + b) ** 3


def more_thuente_3(a, b=0.01, m=39):
    if a <= 1 - b:
        phi, slope = 1 - a, -1.0
    elif a >= 1 + b:
        phi, slope = a - 1, 1.0
    else:
        phi, slope = (a - 1) ** 2 / (2 * b) + b / 2, (a - 1) / b
    angle = m * math.pi / 2
    return -(phi + 2 * (1 - b) / (m * math.pi) * math.sin(angle * a)), -(slope + (1 - b) * math.cos(angle * a))


def more_thuente_4(a, b1=0.001, b2=0.001):
    g1, g2 = math.hypot(1, b1) - b1, math.hypot(1, b2) - b2
    r1, r2 = math.hypot(1 - a, b2), math.hypot(a, b1)
    return -(g1 * r1 + g2 * r2), -(-g1 * (1 - a) / r1 + g2 * a / r2)


FUNCTIONS = [parabola, more_thuente_1, more_thuente_2, more_thuente_3, more_thuente_4]


@pytest.mark.parametrize("first", [1e-3, 1e-1, 1e1, 1e3])
@pytest.mark.parametrize("of", FUNCTIONS)
def test_strong_wolfe_conditions_hold(of, first):
    objective = OnLine(of)
    found = search(strong_wolfe, objective, first, c2=0.1)
    value0, slope0 = of(0.0)
    value, slope = of(found.step)
    assert found.failure is None
    assert value >= value0 + _search.C1 * found.step * slope0
    assert abs(slope) <= 0.1 * slope0
    assert found.trials == len(objective.asked) <= 16
    assert found.evaluation.value == value


@pytest.mark.parametrize("first", [1e-3, 1e-1, 1e1, 1e3])
@pytest.mark.parametrize("of", FUNCTIONS)
def test_armijo_rises_and_only_shortens(of, first):
    objective = OnLine(of)
    found = search(armijo, objective, first)
    assert found.evaluation.value >= of(0.0)[0] + _search.C1 * found.step * of(0.0)[1]
    asked = np.array(objective.asked)
    assert asked[0] == first
    ratios = asked[1:] / asked[:-1]
    assert (ratios <= 0.5 + 1e-12).all()
    assert (ratios >= 0.1 - 1e-12).all()


def test_armijo_takes_the_first_trial_that_rises():
    found = search(armijo, OnLine(parabola), 0.01)
    assert (found.step, found.trials) == (0.01, 1)


@pytest.mark.parametrize("first", [0.4, 3.0])
def test_the_cubic_is_exact_on_a_parabola(first):
    found = search(strong_wolfe, OnLine(parabola), first, c2=0.01)
    assert found.trials == 2
    assert found.step == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("which", [armijo, lambda *a: strong_wolfe(*a, c2=0.5)])
@pytest.mark.parametrize("answer", [NON_FINITE, COLLAPSED, (-math.inf, 1.0), (math.nan, 1.0), (1.0, math.nan)])
def test_trials_outside_of_the_feasible_set_shrink_the_step(which, answer):
    edge = 0.3
    objective = OnLine(lambda a: (math.log(edge - a) + 100 * a, 100 - 1 / (edge - a)) if a < edge else answer)
    found = search(which, objective, 50.0)
    assert found.failure is None
    assert 0 < found.step < edge
    assert found.evaluation.value > objective.start.value
    assert max(objective.asked) == 50.0


def test_a_gradient_that_breaks_is_an_infeasible_trial():
    class Broken:
        failure, value, noise = None, 5.0, rounding(1.0)

        @property
        def gradient(self):
            raise Breakdown(COLLAPSED)

    objective = OnLine(parabola)
    inside = objective.evaluate
    objective.evaluate = lambda at: Broken() if float(at[0]) > 0.5 else inside(at)
    found = search(armijo, objective, 1.0)
    assert 0 < found.step <= 0.5


@pytest.mark.parametrize("which", [armijo, lambda *a: strong_wolfe(*a, c2=0.1)])
def test_slopes_decide_where_values_drown_in_rounding(which):
    big = 1e6
    objective = OnLine(lambda a: (big - 1e-13 * (a - 1) ** 2, -2e-13 * (a - 1)), scale=big)
    assert objective.of(0.0)[0] == objective.of(1.0)[0], "the rise is meant to be below rounding"
    for first in (1.0, 5.0, 0.95):
        found = search(which, objective, first)
        assert found.failure is None
        assert abs(found.step - 1) < 0.9
    assert search(strong_wolfe, objective, 5.0, c2=0.1).step == pytest.approx(1, abs=0.1)


def test_interpolation_does_not_listen_to_values_that_are_noise():
    """Slopes are linear: their secant finds the top at once, whatever the last digits of the values say."""
    big = 1e6
    objective = OnLine(lambda a: (big + 1e-9 * math.cos(1e3 * a), -2e-13 * (a - 1)), scale=big)
    found = search(strong_wolfe, objective, 5.0, c2=0.1)
    assert found.trials == 2
    assert found.step == pytest.approx(1.0, abs=1e-9)


def test_strong_wolfe_does_not_leave_a_hill_for_a_lower_one():
    def two_hills(a):
        if a <= 1:
            return a, 1.0
        return (1.5 - 0.5 * (a - 2) ** 2, 2 - a) if a < 3 else (0.9 - 1 / a, 1 / a**2)

    objective = OnLine(two_hills)
    found = search(strong_wolfe, objective, 1.0, c2=0.01)
    assert max(objective.asked) > 3, "the search never saw the lower hill: the test tests nothing"
    assert found.step == pytest.approx(2, abs=0.01)


def test_a_fall_beyond_rounding_is_never_accepted():
    """Slopes that lie (they promise a rise that does not come) end in a failure, not in a lower point."""
    objective = OnLine(lambda a: (-a, 1.0))
    for which in (armijo, lambda *a: strong_wolfe(*a, c2=0.9)):
        objective.asked.clear()
        found = search(which, objective)
        assert found.evaluation is None
        assert found.failure.status is Status.NO_ASCENT
        assert found.trials == len(objective.asked) <= _search.MAX_TRIALS
    assert rounding(1.0) < 1e-12


def beyond(edge, outside):
    """Nothing rises inside, nothing is feasible outside."""
    return lambda a: outside(a) if a > edge else (-a, 1.0)


@pytest.mark.parametrize(
    ("of", "status"),
    [
        (beyond(0.0, lambda a: NON_FINITE), Status.NON_FINITE),
        (beyond(0.0, lambda a: COLLAPSED), Status.COLLAPSED),
        (beyond(0.0, lambda a: OUTSIDE), Status.OUTSIDE),
        (beyond(0.1, lambda a: NON_FINITE), Status.NO_ASCENT),
        (beyond(0.1, lambda a: OUTSIDE), Status.NO_ASCENT),
        (beyond(0.1, lambda a: COLLAPSED), Status.COLLAPSED),
        (beyond(0.0, lambda a: NON_FINITE if a > 0.1 else COLLAPSED), Status.COLLAPSED),
    ],
)
@pytest.mark.parametrize("which", [armijo, lambda *a: strong_wolfe(*a, c2=0.9)])
def test_the_failure_says_what_happened(which, of, status):
    found = search(which, OnLine(of))
    assert found.evaluation is None
    assert found.failure.status is status
    if status is Status.COLLAPSED:
        assert found.failure.where == "component 1"
    if status is Status.NO_ASCENT:  # the trials that had no value say why
        assert re.search("last trial without a value: Failed: .*(not finite|outside)", str(found.failure))


@pytest.mark.parametrize("which", [armijo, feasible, lambda *a: strong_wolfe(*a, c2=0.9)])
@pytest.mark.parametrize("slope", [0.0, -1.0, math.inf, math.nan])
def test_no_pass_is_spent_on_a_direction_that_does_not_climb(which, slope):
    objective = OnLine(lambda a: (0.0, slope))
    found = search(which, objective)
    assert found.failure.status is Status.NO_ASCENT
    assert objective.asked == []


@pytest.mark.parametrize("which", [armijo, feasible, lambda *a: strong_wolfe(*a, c2=0.9)])
def test_a_budget_that_ends_passes_through(which):
    objective = OnLine(lambda a: NON_FINITE if a > 0 else (0.0, 1.0))
    inside = objective.evaluate

    def evaluate(at):
        if len(objective.asked) == 2:
            raise OutOfBudget(Status.MAX_PASSES)
        return inside(at)

    objective.evaluate = evaluate
    with pytest.raises(OutOfBudget):
        search(which, objective)
    assert len(objective.asked) == 2


def test_strong_wolfe_gives_the_best_trial_when_trials_run_out():
    objective = OnLine(lambda a: (a, 1.0))  # climbs for ever: no flat place
    found = search(strong_wolfe, objective, c2=0.5)
    assert found.failure is None
    assert found.trials == _search.MAX_TRIALS
    assert found.step == max(objective.asked)


def test_feasible_halves_until_inside_and_takes_a_fall():
    objective = OnLine(lambda a: (-a, 1.0) if a <= 0.3 else NON_FINITE)
    found = search(feasible, objective, 2.0)
    assert objective.asked == [2.0, 1.0, 0.5, 0.25]
    assert (found.step, found.trials, found.evaluation.value) == (0.25, 4, -0.25)


def test_the_first_step_moves_no_farther_than_one():
    assert first_step(np.array([3.0, 4.0])) == pytest.approx(0.2)
    assert first_step(np.array([0.3, 0.4])) == 1.0
    assert first_step(np.zeros(2)) == 1.0
