"""The one loop: every way to stop, what is traced, what is returned; and every solver on every model."""

import dataclasses
import math
import re
import sys
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from broken import Struck
from cases import CASES, CONVERGING, LOWER, SMALL, SOLVERS, matrix

import emcore.solvers
from emcore.result import Failure, Result, Status, Stop, Trace, TraceRow, aitken, rounding
from emcore.solve import Step, solve
from emcore.solvers import EM, LBFGS, Solver, State

CASE = SMALL[0]
NEVER = Stop(gain=0, max_passes=40)


def climb(stop=None, callback=None, solver=None, case=CASE, record=False, **options):
    """Return the objective and the result of a climb from the start of a case."""
    objective = case.objective(**options)
    return objective, solve(objective, solver or EM(), case.start(objective), stop=stop, callback=callback, record=record)


@dataclass(frozen=True)
class Scripted(Solver[State]):
    """Walks through given parameters of the first mean; for tests of the loop."""

    name = "scripted"
    needs = frozenset({"value"})
    moves: tuple = ()

    def init(self, objective, at):
        return State(at, objective.evaluate(at), info={"left": self.moves})

    def step(self, objective, state):
        left = state.info["left"]
        if not left:
            return replace(state, failure=Failure(Status.NO_ASCENT))
        theta = state.point.theta.copy()
        theta[objective.coordinates.slices["means"].start] += left[0]
        point = objective.point(theta)
        return State(point, objective.evaluate(point), event="moved", info={"left": left[1:]})


# Every rule fires and is named


@pytest.mark.parametrize(
    ("stop", "status", "measure"),
    [
        (Stop(gain=1e-6), Status.GAIN, "gain"),
        (Stop(gain=0, gtol=1e-3), Status.GRADIENT, "gradient"),
        (Stop(gain=0, ftol=1e-6), Status.VALUE, "value"),
        (Stop(gain=0, xtol=1e-3), Status.STEP, "step"),
        (Stop(gain=0, residual=1e-3), Status.RESIDUAL, "residual"),
        (Stop(gain=0, aitken=1e-6), Status.AITKEN, "remaining"),
    ],
)
def test_each_rule_fires_and_is_named(stop, status, measure):
    _, result = climb(stop)
    assert result.status is status
    assert result.status.ok
    assert not result.status.failed
    assert result.failure is None
    tolerance = getattr(stop.tolerances, measure)
    assert 0 <= abs(getattr(result.measures, measure)) <= tolerance
    assert result.steps >= 1
    # It fired at once, not later.
    _, earlier = climb(replace(stop, max_passes=result.passes - 1))
    assert earlier.status is Status.MAX_PASSES
    assert abs(getattr(earlier.measures, measure)) > tolerance


@pytest.mark.parametrize("rule", ["gain", "aitken"])
def test_what_is_below_rounding_is_named_so(rule):
    _, result = climb(Stop(**{"gain": 0, rule: 1e-300}))
    assert result.status is Status.ROUNDING
    assert result.measures.gain <= result.evaluation.noise


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.99])
def test_aitken_is_exact_on_a_geometric_climb(rate):
    to_come = 1e-3 * rate ** np.arange(2, -1, -1)[::-1]
    before, change = -np.diff(to_come)
    assert aitken(before, change, gain=math.nan, noise=1e-17) == pytest.approx(to_come[2], rel=1e-9, abs=1e-20)


@pytest.mark.parametrize(
    ("before", "change"),
    [(math.nan, math.nan), (math.nan, 1.0), (1.0, 1.0), (1.0, 2.0), (1.0, -1e-9), (-1.0, 0.5), (0.0, 0.0), (1e-15, 1e-16)],
)
def test_aitken_says_nothing_where_no_rate_is_known(before, change):
    assert math.isnan(aitken(before, change, gain=1e-9, noise=1e-14))


def test_aitken_is_never_below_what_one_em_step_gains():
    assert aitken(1.0, 1e-6, gain=1e-3, noise=1e-14) == 1e-3


NOISY = {"online", "adam"}
OF_SLOW_CHANGE = next(case for case in CASES if "full-k3-d2-overlapping" in case.name)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in NOISY])
def test_the_rise_to_come_is_about_as_estimated(name):
    case, stop = OF_SLOW_CHANGE, Stop(gain=0, aitken=1e-7, max_passes=3000)
    objective = case.objective()
    result = solve(objective, emcore.solvers.get(name), case.somewhere(objective), stop=stop)
    assert result.status in (Status.AITKEN, Status.ROUNDING), result
    top = solve(objective, EM(), result.point, stop=Stop(gain=1e-15, max_passes=6000))
    assert top.status.ok
    assert -1e-12 <= top.value - result.value <= 15 * stop.aitken  # uneven steps, as the gradient's, are told to a digit only
    if name == "em":
        assert result.measures.remaining == pytest.approx(top.value - result.value, rel=0.05)


def test_zero_switches_a_rule_off():
    stop = Stop(gain=0, gtol=0, ftol=0, xtol=0, max_passes=300)
    _, result = climb(stop)
    assert result.status is Status.MAX_PASSES
    assert result.measures.gain < 1e-12
    assert result.steps == 299


def test_the_first_rule_wins():
    _, result = climb(Stop(gain=1e3, gtol=1e3, ftol=1e3, xtol=1e3))
    assert result.status is Status.GAIN
    assert result.steps == 0


def test_rules_of_change_need_a_step():
    _, result = climb(Stop(gain=0, ftol=1e3, xtol=1e3))
    assert result.status is Status.VALUE
    assert result.steps == 1


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_patience(patience):
    _, once = climb(Stop(gain=1e-6))
    _, result = climb(Stop(gain=1e-6, patience=patience))
    assert result.status is Status.GAIN
    assert result.steps == once.steps + patience - 1


def test_what_rules_compare_with_begins_anew_where_a_climb_is_gone_on_with():
    for stop, further in ((Stop(gain=1e-6, patience=4), 3), (Stop(gain=0, aitken=1e-8), 2)):
        objective, whole = climb(stop)
        first = climb(replace(stop, max_passes=whole.passes - 1))[1]
        second = solve(objective, EM(), first.state, stop=stop)
        assert (first.status, second.status) == (Status.MAX_PASSES, whole.status)
        assert second.steps == further > whole.steps - first.steps
        np.testing.assert_array_equal(second.trace.value[:2], whole.trace.value[-2:])  # but the points are the same


def test_patience_starts_anew_when_the_rule_breaks():
    objective, top = climb(Stop(gain=1e-15))
    solver = Scripted(moves=(-1e-9, -1e-9, -0.3, -1e-9, -1e-9, -1e-9, -1e-9))  # the large one ends at the top
    theta = top.theta.copy()
    theta[objective.coordinates.slices["means"].start] += 0.3
    result = solve(objective, solver, objective.point(theta), stop=Stop(gain=0, xtol=1e-6, patience=3))
    assert result.status is Status.STEP
    assert result.steps == 6


@pytest.mark.parametrize("rule", ["ftol", "xtol"])
def test_a_small_change_below_an_earlier_point_is_no_convergence(rule):
    objective, top = climb(Stop(gain=1e-15))
    solver = Scripted(moves=(0.3, *[-1e-12] * 8))
    result = solve(objective, solver, top.point, stop=Stop(**{"gain": 0, "max_passes": 8, rule: 1e-6}))
    assert result.status is Status.MAX_PASSES
    assert result.steps == 7


def test_converged_at_the_start():
    objective, result = climb()
    again = solve(objective, EM(), result.point)
    assert again.status is result.status
    assert again.steps == 0
    assert again.passes == 1
    assert again.point is result.point


# Budgets


@pytest.mark.parametrize("max_passes", [1, 2, 7])
@pytest.mark.parametrize("name", SOLVERS)
def test_budget_of_passes_is_hard(name, max_passes):
    objective, result = climb(Stop(gain=0, max_passes=max_passes), solver=emcore.solvers.get(name))
    assert result.status is Status.MAX_PASSES
    assert not result.status.ok
    assert result.passes == objective.passes <= max_passes
    assert math.isfinite(result.value)
    if max_passes == 1:
        assert result.steps == 0


def test_budget_counts_from_where_the_objective_is():
    objective = CASE.objective()
    at = CASE.start(objective)
    for _ in range(3):
        objective.evaluate(at)
    result = solve(objective, EM(), at, stop=Stop(gain=0, max_passes=5))
    assert result.passes == 5
    assert result.steps == 4
    assert objective.passes == 8
    objective.evaluate(at)  # the limit is gone
    np.testing.assert_array_equal(result.trace.passes, [1, 2, 3, 4, 5])


def test_budget_of_seconds():
    begin = time.perf_counter()
    _, result = climb(Stop(gain=0, max_seconds=0.05, max_passes=math.inf))
    assert result.status is Status.MAX_SECONDS
    assert 0.05 <= result.seconds < time.perf_counter() - begin + 1
    assert result.steps >= 1


def test_a_budget_of_seconds_that_is_over_before_the_start_still_evaluates_it():
    _, result = climb(Stop(gain=0, max_seconds=1e-9))
    assert result.status is Status.MAX_SECONDS
    assert math.isfinite(result.value)
    assert result.steps == 0


# The callback


def test_callback_sees_every_step():
    seen = []
    _, result = climb(Stop(gain=1e-6), callback=lambda step: seen.append(step))
    assert all(isinstance(step, Step) for step in seen)
    assert [step.row for step in seen] == list(result.trace)
    assert [step.evaluation.value for step in seen] == list(result.trace.value)
    assert [step.row.step for step in seen] == list(range(result.steps + 1))
    assert seen[0].row.event == "start"
    assert seen[-1].evaluation is result.evaluation


def test_numpys_warnings_in_a_callback_are_the_users():
    """A climb silences those of its own trials."""
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        climb(NEVER, callback=lambda step: np.float64(1e300) * np.float64(1e300))


@pytest.mark.parametrize("at", [0, 3])
def test_callback_stops_by_a_true_value(at):
    _, result = climb(NEVER, callback=lambda step: step.row.step == at)
    assert result.status is Status.CALLBACK
    assert not result.status.ok
    assert not result.status.failed
    assert result.steps == at == len(result.trace) - 1


def stops(at, error):
    """Return a callback that raises at a step."""

    def callback(step):
        if step.row.step == at:
            raise error

    return callback


@pytest.mark.parametrize("at", [0, 3])
def test_callback_stops_by_stop_iteration(at):
    _, result = climb(NEVER, callback=stops(at, StopIteration))
    assert result.status is Status.CALLBACK
    assert result.steps == at


def test_callback_wins_over_a_rule():
    _, result = climb(Stop(gain=1e3), callback=lambda step: True)
    assert result.status is Status.CALLBACK


def test_errors_of_the_callback_pass_through():
    class Own(Exception):
        pass

    objective = CASE.objective()
    with pytest.raises(Own, match="mine"):
        solve(objective, EM(), CASE.start(objective), callback=stops(2, Own("mine")))
    objective.evaluate(CASE.start(objective))
    assert objective._max_passes == math.inf  # limits do not outlive the climb


@pytest.mark.parametrize("at", [0, 4])
def test_an_interrupt_returns_what_was_reached(at):
    _, result = climb(NEVER, callback=stops(at, KeyboardInterrupt))
    assert result.status is Status.INTERRUPTED
    assert result.steps == at
    assert result.value == result.trace.value[-1] == result.trace.value.max()
    assert "Interrupted" in str(result)


def test_an_interrupt_during_a_step_returns_the_point_before():
    @dataclass(frozen=True)
    class Interrupted(EM):
        def step(self, objective, state):
            if objective.passes == 5:
                raise KeyboardInterrupt
            return super().step(objective, state)

    _, result = climb(NEVER, solver=Interrupted())
    assert result.status is Status.INTERRUPTED
    assert result.steps == 4
    assert result.value == result.trace.value[-1]


def test_an_interrupt_before_the_start_is_the_users():
    objective = CASE.objective()
    with pytest.raises(KeyboardInterrupt):
        solve(objective, Struck(), CASE.start(objective))


# Falls and failures


def test_nothing_converges_at_a_fall():
    objective, top = climb(Stop(gain=1e-15))
    rules = ({"ftol": 1e3}, {"xtol": 1e3}, *({name: 1e3, "patience": 2} for name in ("gtol", "gain", "aitken")))
    for stop in (Stop(**{"gain": 0} | rule) for rule in rules):
        solver = Scripted(moves=(0.1, 0.1, 0.1))
        result = solve(objective, solver, top.point, stop=stop)
        assert np.all(np.diff(result.trace.value) < 0)
        assert result.status is Status.NO_ASCENT, stop
        assert result.steps == 3


def test_a_step_back_up_may_converge():
    objective, top = climb(Stop(gain=1e-15))
    result = solve(objective, Scripted(moves=(0.1, -0.1)), top.point, stop=Stop(gain=0, ftol=1e3))
    assert result.status is Status.VALUE
    assert result.steps == 2


def test_em_that_falls_is_a_failure():
    """An M-step that is none: EM notices, and the last good point is returned."""
    objective = CASE.objective()
    maximize = objective.maximize

    def wrong(at, stats):
        point = maximize(at, stats)
        if objective.passes < 4:
            return point
        return objective.point_of(point.params._replace(means=point.params.means + 1.0))

    objective.maximize = wrong
    result = solve(objective, EM(), CASE.start(objective), stop=Stop(gain=0, gtol=1e-9))
    assert result.status is Status.DECREASED
    assert result.status.failed
    assert result.steps == 3
    assert result.failure.step == 4
    assert "It fell by" in result.failure.detail
    assert "which an exact EM step cannot do" in result.failure.detail
    assert result.value == result.trace.value[-1] == result.trace.value.max()
    assert "It fell by" in str(result)


def test_a_solver_without_a_further_step():
    _, result = climb(NEVER, solver=Scripted(moves=(1e-4,)))
    assert result.status is Status.NO_ASCENT
    assert result.failure.step == 2
    assert result.steps == 1
    assert len(result.trace) == 2


def test_trial_points_that_break_fail_the_climb_and_keep_the_point():
    _, result = climb(NEVER, solver=Scripted(moves=(1e-4, np.inf)))
    assert result.status.failed
    assert result.steps == 1
    assert math.isfinite(result.value)
    assert np.isfinite(result.theta).all()


@pytest.mark.parametrize(("given", "to"), [("newton", "em"), ("em", "newton"), ("incremental", "lbfgs"), ("qn2", "auto")])
def test_a_state_of_another_solver_is_refused(given, to):
    objective, result = climb(stop=Stop(max_passes=5), solver=emcore.solvers.get(given))
    passes, kinds = objective.passes, [emcore.solvers.get(name).state_type().__name__ for name in (to, given)]
    with pytest.raises(ValueError, match="at: solver '{}' goes on from .* {}, and this is a {} of another".format(to, *kinds)):
        solve(objective, emcore.solvers.get(to), result.state)
    assert objective.passes == passes
    assert solve(objective, emcore.solvers.get(to), result.state.point, stop=Stop(max_passes=9)).steps


def test_a_start_of_no_value_is_refused():
    objective = CASE.objective()
    params = CASE.start(objective).params
    at = objective.point_of(params._replace(covariances=0 * params.covariances))
    with pytest.raises(ValueError, match=r"start: the log-likelihood is not finite there\. .*component 0"):
        solve(objective, EM(), at)


@pytest.mark.parametrize("name", SOLVERS)
def test_needs_are_checked_before_any_pass(name):
    objective = CASE.objective()
    objective.capabilities = frozenset()
    solver = emcore.solvers.get(name)
    assert solver.needs
    needs = re.escape(str(sorted(solver.needs)))
    with pytest.raises(ValueError, match=rf"solver {name!r} needs {needs}, which ModelObjective\(.* does not provide"):
        solve(objective, solver, CASE.start(objective))
    assert objective.passes == 0


# What comes back


def test_result_says_it_all():
    objective, result = climb(Stop(gain=1e-8, gtol=1e-12))
    assert isinstance(result, Result)
    assert result.log_likelihood == pytest.approx(result.value * CASE.total)
    assert result.weight == CASE.total
    np.testing.assert_array_equal(result.theta, result.point.theta)
    assert all(map(math.isfinite, result.measures))
    assert result.passes == objective.passes
    assert result.evaluation.point is result.point
    text = str(result)
    assert text.startswith("em: Converged: the gain that one EM step is sure of is below its tolerance.")
    assert f"log-likelihood {result.log_likelihood:.6f} (sum)" in text
    assert f"{result.steps} steps, {result.passes:g} passes" in text
    assert "(tolerance 1.0e-08)" in text
    assert "(tolerance 1.0e-12)" in text
    assert text.count("(rule off)") == 4
    assert text == "\n".join(result.lines())


def test_result_at_the_start_says_what_is_not_known():
    _, result = climb(Stop(max_passes=1))
    assert result.steps == 0
    assert str(result).count("not known") == 3
    assert math.isnan(result.measures.value)
    assert math.isnan(result.measures.step)


def test_solver_is_described_with_its_options():
    _, result = climb(NEVER, solver=Scripted(moves=(0.1,)))
    assert result.solver == "scripted(moves=(0.1,))"


def test_trace():
    _, result = climb(Stop(gain=1e-6))
    trace = result.trace
    assert len(trace) == result.steps + 1
    assert isinstance(trace[0], TraceRow)
    assert trace[-1].value == result.value
    np.testing.assert_array_equal(trace.step, np.arange(len(trace)))
    np.testing.assert_array_equal(trace.passes, 1.0 + np.arange(len(trace)))
    np.testing.assert_allclose(trace.change[1:], np.diff(trace.value))
    assert math.isnan(trace.change[0])
    assert np.all(trace.gain[:-1] > 1e-6)
    for column in ("gradient", "length", "residual", "remaining"):
        assert np.all(np.isnan(getattr(trace, column)))  # EM does not need them
    assert np.all(np.diff(trace.seconds) >= 0)
    assert list(trace.event) == ["start"] + ["em"] * result.steps
    array = trace.array
    assert array.dtype.names == TraceRow._fields
    np.testing.assert_array_equal(array["value"], trace.value)
    assert [tuple(row) for row in array[["step", "value"]]] == [(r.step, r.value) for r in trace]
    again = Trace(array)
    np.testing.assert_array_equal(again.array[["step", "value", "event"]], array[["step", "value", "event"]])
    assert repr(trace).startswith(f"Trace of {len(trace)} points, value ")
    assert repr(Trace()) == "Trace of 0 points"
    with pytest.raises(AttributeError):
        _ = trace.colour


def test_a_trace_holds_what_was_known():
    _, result = climb(Stop(gain=1e-6), solver=emcore.solvers.get("lbfgs"))
    assert np.isfinite(result.trace.gradient[1:]).all()
    assert np.isfinite(result.trace.length[1:]).all()  # the solver moves in coordinates
    _, result = climb(Stop(gain=0, xtol=1e-3))
    assert result.trace.length[-1] <= 1e-3 < result.trace.length[1:-1].min()


def test_a_trace_records_everything_when_asked():
    seen = []
    objective, result = climb(Stop(gain=1e-6), callback=lambda step: seen.append(step.evaluation))
    again, full = climb(Stop(gain=1e-6), callback=lambda step: seen.append(step.evaluation), solver=EM(), record=True)
    plain, seen = seen[: result.steps + 1], seen[result.steps + 1 :]
    assert again.passes == objective.passes
    np.testing.assert_array_equal(full.trace.value, result.trace.value)
    np.testing.assert_array_equal(full.trace.gradient, [np.abs(e.gradient).max() for e in plain])
    theta = np.array([e.point.theta for e in plain])
    assert math.isnan(full.trace.length[0])
    np.testing.assert_array_equal(full.trace.length[1:], np.abs(np.diff(theta, axis=0)).max(axis=1))
    np.testing.assert_allclose(full.trace.residual[:-1], np.linalg.norm(np.diff(theta, axis=0), axis=1))  # EM's own steps
    assert np.isfinite(full.trace.remaining[-1])
    assert tuple(full.measures) == tuple(full.trace[-1])[2:8]


@pytest.mark.parametrize(("name", "column"), [("newton", "hessian_passes"), ("incremental", "monitor_passes")])
def test_a_trace_counts_apart(name, column):
    objective, result = climb(Stop(gain=1e-9), solver=emcore.solvers.get(name))
    counted = getattr(result.trace, column)
    assert counted[-1] == getattr(result, column) == getattr(objective, column) > 0
    assert np.all(np.diff(counted) >= 0)
    assert f" and {counted[-1]:g} for " in str(result)


def test_trace_to_pandas(monkeypatch):
    _, result = climb(Stop(gain=1e-6))
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    table = result.trace.to_pandas()
    assert tuple(table) == TraceRow._fields
    np.testing.assert_array_equal(table["value"], result.trace.value)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"Trace\.to_pandas needs pandas: pip install pandas"):
        result.trace.to_pandas()


def test_trace_to_real_pandas():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: the extra test has it")
    _, result = climb(Stop(gain=1e-6))
    table = result.trace.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert table.shape == (result.steps + 1, len(TraceRow._fields))
    assert table["event"].tolist() == list(result.trace.event)
    assert table["step"].tolist() == list(range(result.steps + 1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gain": -1.0}, ValueError, "Stop: gain must be a finite number >= 0"),
        ({"gtol": math.nan}, ValueError, "Stop: gtol must be a finite number >= 0"),
        ({"ftol": math.inf}, ValueError, "Stop: ftol must be a finite number >= 0"),
        ({"residual": -1.0}, ValueError, "Stop: residual must be a finite number >= 0"),
        ({"aitken": -1.0}, ValueError, "Stop: aitken must be a finite number >= 0"),
        ({"xtol": "1e-3"}, TypeError, "Stop: xtol must be a number, got '1e-3'"),
        ({"gain": None}, TypeError, "Stop: gain must be a number, got None"),
        ({"gain": True}, TypeError, "Stop: gain must be a number, got True"),
        ({"patience": 0}, ValueError, "Stop: patience must be a whole number >= 1, got 0"),
        ({"patience": 1.5}, ValueError, "Stop: patience must be a whole number >= 1, got 1.5"),
        ({"patience": math.nan}, ValueError, "Stop: patience must be a whole number >= 1, got nan"),
        ({"patience": math.inf}, ValueError, "Stop: patience must be a whole number >= 1, got inf"),
        ({"max_passes": 0}, ValueError, "Stop: max_passes must be at least 1"),
        ({"max_passes": math.nan}, ValueError, "Stop: max_passes must be at least 1"),
        ({"max_seconds": 0}, ValueError, "Stop: max_seconds must be positive, got 0"),
        ({"max_seconds": math.nan}, ValueError, "Stop: max_seconds must be positive, got nan"),
    ],
)
def test_bad_stops_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Stop(**options)


def test_stops_are_values():
    assert Stop() == Stop()
    assert Stop(gain=np.float64(1e-3), patience=np.int64(2)).gain == 1e-3
    with pytest.raises(dataclasses.FrozenInstanceError):
        Stop().gain = 1.0


def test_statuses_are_sentences():
    for status in Status:
        assert status.value.endswith(".")
        assert not (status.ok and status.failed)
    assert str(Failure(Status.COLLAPSED, "component 3", 7, "Detail.")) == (
        "Failed: a component collapsed onto too few points. Where: component 3. At step 7. Detail."
    )


# Every solver on every model


@matrix("name, case", CONVERGING, CASES)
def test_every_solver_reaches_the_optimum_of_every_model(name, case):
    objective = case.objective()
    at = case.start(objective)
    best = solve(objective, EM(), at, stop=Stop(gain=1e-15, max_passes=20_000))
    assert best.status.ok
    result = solve(objective, emcore.solvers.get(name), at, stop=Stop(gain=1e-9, max_passes=5000))
    assert result.status.ok, str(result)
    assert result.value >= best.value - 1e-5, LOWER  # there may be better ones, and another solver may find them
    assert result.value >= result.trace.value[0] - rounding(result.evaluation.scale)
    assert result.solver == name
    assert result.passes == result.trace.passes[-1]
    assert result.evaluation.failure is None


@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("name", SOLVERS)
def test_climbs_repeat_to_the_last_bit(name, case):
    stop = Stop(gain=1e-8, max_passes=100)
    first, second = (climb(stop, solver=emcore.solvers.get(name), case=case)[1] for _ in range(2))
    np.testing.assert_array_equal(first.trace.value, second.trace.value)
    np.testing.assert_array_equal(first.theta, second.theta)


def test_solvers_by_name():
    for name, line in emcore.solvers.names().items():
        solver = emcore.solvers.get(name)
        assert solver.name == name
        assert emcore.solvers.get(solver) is solver
        assert line.endswith(".")
        assert "\n" not in line
    given = LBFGS(memory=3)
    assert emcore.solvers.get(given) is given
    assert given.describe() == "lbfgs(memory=3)"
    assert LBFGS().describe() == "lbfgs"
    with pytest.raises(ValueError, match=r"solver must be one of 'em', 'gradient', .*'cg', 'lbfgs'.*, got 'nothing'"):
        emcore.solvers.get("nothing")
    for wrong in (EM, 3, None):
        with pytest.raises(TypeError, match="solver must be a name or a Solver"):
            emcore.solvers.get(wrong)
