"""Expectation-maximisation: the M-step of the statistics that the last pass gave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from emcore.result import Failure, Status
from emcore.solvers._base import Solver, State

if TYPE_CHECKING:
    from emcore.objective import Objective, Point

__all__ = ["EM"]


@dataclass(frozen=True)
class EM(Solver[State]):
    """The EM algorithm (Dempster, Laird and Rubin 1977): ``theta <- argmax q(. | statistics at theta)``.

    One pass a step. Goes from parameters to parameters, through no chart.
    """

    name: ClassVar[str] = "em"
    needs: ClassVar[frozenset[str]] = frozenset({"em"})

    def init(self, objective: Objective, at: Point) -> State:
        return State(at, objective.evaluate(at))

    def step(self, objective: Objective, state: State) -> State:
        new = objective.evaluate(state.current.em_point)
        if new.failure is not None:
            return replace(state, failure=new.failure)
        fall = state.current.value - new.value
        if fall > 0 and fall > new.noise:
            return replace(state, failure=Failure(Status.DECREASED, detail=f"It fell by {fall:.2e} per unit weight."))
        return State(new.point, new, event="em")
