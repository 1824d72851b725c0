"""Expectation-maximisation: the M-step of the statistics that the last pass gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from emcore.solvers._base import Solver, State, decreased, replace

if TYPE_CHECKING:
    from emcore.objective import Evaluation, Objective, Point
    from emcore.result import Failure

__all__ = ["EM", "em_instead", "em_step"]


@dataclass(frozen=True)
class EM(Solver[State]):
    """The EM algorithm (Dempster, Laird and Rubin 1977): ``theta <- argmax q(. | statistics at theta)``.

    One pass a step. Goes from parameters to parameters, through no chart. Where the E-step is not exact (`Part.inexact`) it
    goes on through steps that lower the value (event "fell"), to where they rest.
    """

    name: ClassVar[str] = "em"
    needs: ClassVar[frozenset[str]] = frozenset({"em"})
    moving_support: ClassVar[bool] = True

    def init(self, objective: Objective, at: Point) -> State:
        return State(at, objective.evaluate(at))

    def step(self, objective: Objective, state: State) -> State:
        new, failure = em_step(objective, state.current)
        if failure is not None and (failure is new.failure or not getattr(objective, "inexact", "")):
            return replace(state, failure=failure)
        return replace(state, point=new.point, current=new, event="em" if failure is None else "fell")


def em_step(objective: Objective, current: Evaluation) -> tuple[Evaluation, Failure | None]:
    """Return the evaluation at the EM point, one pass, and why it is not to be had, if so."""
    new = objective.evaluate(current.em_point)
    return new, new.failure or decreased(objective, current, new)


def em_instead(objective: Objective, current: Evaluation, failure: Failure) -> tuple[Evaluation, Failure | None]:
    """Return the EM step in the place of a step that failed, or that failure where EM gains no more than rounding."""
    if "em" in objective.capabilities and current.gain > current.noise:
        return em_step(objective, current)
    return current, failure
