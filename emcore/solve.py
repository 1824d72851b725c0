"""The one loop: every solver on every objective is run, counted, traced and stopped here."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emcore._vectors import largest, largest_difference
from emcore.result import (
    Breakdown,
    ConvergenceWarning,
    Measures,
    OutOfBudget,
    Result,
    Status,
    Stop,
    Trace,
    TraceRow,
    aitken,
    lies_below,
    no_value,
    require,
)
from emcore.solvers import State

if TYPE_CHECKING:
    from emcore.objective import Evaluation, Objective, Point
    from emcore.solvers import Solver

__all__ = ["Step", "solve", "warn_unconverged"]


class Step(NamedTuple):
    """What a callback gets after each accepted step, and once at the start."""

    row: TraceRow
    evaluation: Evaluation


def _measures(
    stop: Stop,
    before: float,
    previous: Evaluation | None,
    current: Evaluation,
    *,
    everything: bool = False,
    smooth: bool = True,
    exact: bool = True,
    maps: bool = True,
) -> Measures:
    """Measure what the rules that are on need, or everything; also what happens to be known.

    `before` is the change of the value in the step before the last one. Of what is not `smooth`, or has no `exact` E-step, no
    gradient is taken. In the latter the value need not rise, and no rise is to come. What has no EM step `maps` nowhere.
    """
    gain = gradient = value = step = residual = remaining = math.nan
    known = current.known
    if everything or stop.gain > 0 or stop.aitken > 0 or "gain" in known:
        gain = current.gain
    if (everything and smooth and exact) or stop.gtol > 0 or "gradient" in known:
        gradient = largest(current.gradient)
    if previous is not None:
        value = current.value - previous.value
        if everything or stop.xtol > 0 or (previous.point.has_theta and current.point.has_theta):
            step = largest_difference(current.point.theta, previous.point.theta)
    if stop.residual > 0 or (everything and maps):
        residual = float(np.linalg.norm(current.em_point.theta - current.point.theta))
    if exact and (everything or stop.aitken > 0):
        remaining = aitken(before, value, gain=gain, noise=current.noise)
    return Measures(gain, gradient, value, step, residual, remaining)


def solve(
    objective: Objective,
    solver: Solver[Any],
    at: Point | State,
    *,
    stop: Stop | None = None,
    callback: Callable[[Step], Any] | None = None,
    record: bool = False,
) -> Result:
    """Climb from a point until a rule, the budget, the callback, a failure or the user stops it.

    Parameters
    ----------
    objective : Objective
    solver : Solver
    at : Point or State
        Where to start; the `Result.state` of a climb of the same solver on the same objective goes on as if there had
        been no break, in the same points bit for bit. What the rules of `stop` compare with begins anew: the count of
        `patience`, the last changes (ftol, xtol and Aitken's estimate need one or two new steps) and the highest value so
        far; so does the budget. A rule may therefore hold at another step than in an unbroken climb.
    stop : Stop, optional
    callback : callable, optional
        Called with a `Step` at the start and after every step; a true return value, or StopIteration, stops the climb.
    record : bool
        Whether the trace is to hold everything: also the gradient and the lengths that neither the solver nor a rule needs.
        That takes no pass, but some time a step, which counts in its seconds.

    Returns
    -------
    Result
        The last accepted point, also after a failure or Ctrl-C.

    Raises
    ------
    SupportError
        When the support of the model depends on a parameter and the solver, or a rule, needs a gradient or a smooth map.
    ValueError
        When the objective is not capable of what the solver needs, the value at the start is not finite, or `at` is a state of
        another kind of solver.
    TypeError
        When `at` is a state, and the class of the solver does not say which states it has.
    """
    if callback is not None:
        callback = _heard(callback, np.geterr())
    # What is not finite ends in a status, not in a warning of NumPy's.
    with objective.climbing(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _climb(objective, solver, at, stop or Stop(), callback, record)


def _heard(callback: Callable[[Step], Any], how: Any) -> Callable[[Step], Any]:
    """Return the user's function as it is to be called within a climb: NumPy's warnings in it are his."""

    def called(step: Step) -> Any:
        with np.errstate(**how):
            return callback(step)

    return called


def _climb(
    objective: Objective,
    solver: Solver[Any],
    at: Point | State,
    stop: Stop,
    callback: Callable[[Step], Any] | None,
    record: bool,
) -> Result:
    """Return what `solve` does, within the context in which the objective wants to be climbed."""
    require(objective, solver.needs, f"solver {solver.name!r}", moving_support=solver.moving_support)
    moving, exact = getattr(objective, "moving_support", ()), not getattr(objective, "inexact", "")
    kind = {"smooth": not moving, "exact": exact, "maps": "em" in objective.capabilities}
    if stop.gtol > 0:
        require(objective, frozenset(() if exact else {"gradient"}), "Stop: gtol, a rule on the gradient,")
    if isinstance(at, State) and type(at) is not solver.state_type():
        raise ValueError(
            f"at: solver {solver.name!r} goes on from a state of its own, a {solver.state_type().__name__}, and this is a "
            f"{type(at).__name__} of another: give its point, `at.point`"
        )

    begin, passes0 = time.perf_counter(), objective.passes
    hessian0, monitor0 = objective.hessian_passes, objective.monitor_passes
    trace, held, steps = Trace(), 0, 0
    previous: Evaluation | None = None
    before, last, best = math.nan, -math.inf, -math.inf
    status, failure, state = None, None, None
    with objective.limit(stop.max_passes, stop.max_seconds):
        try:
            state = at if isinstance(at, State) else solver.init(objective, at)
            if state.current.failure is not None:
                raise no_value(objective, "start", state.current.failure)
            while status is None:
                current = state.current
                broken = None
                try:
                    measures = _measures(stop, before, previous, current, everything=record, **kind)
                except Breakdown as error:  # there is no M-step from here: a point all the same, and the last one
                    measures, broken = Measures(), error
                row = TraceRow(
                    steps, current.value, *measures, state.free_energy, objective.passes - passes0,
                    objective.hessian_passes - hessian0, objective.monitor_passes - monitor0, time.perf_counter() - begin,
                    state.event,
                )  # fmt: skip
                trace.append(row)
                if broken is not None:
                    raise broken
                # Where steps of an inexact EM rest may lie below where they led through.
                below = exact and lies_below(current, best)
                rule = stop.rule(measures, current, fell=lies_below(current, last), below=below)
                last, best = current.value, max(best, current.value)
                held = held + 1 if rule else 0
                if callback is not None and callback(Step(row, current)):
                    status = Status.CALLBACK
                elif held >= stop.patience:
                    status = rule
                if status is None:
                    new = solver.step(objective, state)
                    failure = new.failure or new.current.failure
                    if failure is None:
                        before, previous, state, steps = measures.value, current, new, steps + 1
                    elif failure.status is Status.NO_ASCENT and current.gain <= current.noise:
                        status, failure = Status.ROUNDING, None  # there was nothing left to climb
                    else:
                        status = failure.status
        except OutOfBudget as spent:
            status = spent.status
        except Breakdown as broken:
            status, failure = broken.failure.status, broken.failure
        except StopIteration:
            status = Status.CALLBACK
        except KeyboardInterrupt:
            if state is None:
                raise
            status = Status.INTERRUPTED
    seconds = time.perf_counter() - begin

    boundary = objective.boundary(state.point)
    if status is not None and status.ok and boundary:
        status = Status.BOUNDARY
    elif not exact and status in (Status.GAIN, Status.ROUNDING):
        status = Status.REST
    if failure is not None and failure.step < 0:
        failure = failure._replace(step=steps + 1)
    measures = Measures()
    try:
        measures = _measures(stop, before, previous, state.current, everything=True, **kind)
    except Breakdown:
        pass
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    return Result(
        point=state.point, value=state.current.value, weight=objective.weight, status=status, failure=failure,
        passes=objective.passes - passes0, steps=steps, seconds=seconds, trace=trace, measures=measures, stop=stop,
        solver=solver.describe(), boundary=boundary, moving_support=moving, state=state,
        hessian_passes=objective.hessian_passes - hessian0, monitor_passes=objective.monitor_passes - monitor0,
    )  # fmt: skip


def warn_unconverged(result: Result) -> None:
    """Warn the caller's caller when a climb ended by its budget or by a failure; the user, or a callback, knows that he did."""
    if result.status.failed or result.status in (Status.MAX_PASSES, Status.MAX_SECONDS):
        warnings.warn(str(result.failure or result.status.value), ConvergenceWarning, stacklevel=3)
