"""Lange's EM gradient: one step of Newton's method on q in the place of the M-step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from emcore.solvers._base import Solver, State
from emcore.solvers._search import armijo
from emcore.solvers._trust import Path

if TYPE_CHECKING:
    from emcore.objective import Objective, Point

__all__ = ["Lange"]

EXACT = 1e-10  # of the first slope: what conjugate gradients leave, without a pass


@dataclass(frozen=True)
class Lange(Solver[State]):
    """The EM gradient algorithm (Lange 1995): ``theta <- theta + (-Hess q)^-1 gradient``, never down.

    Notes
    -----
    Near a solution it converges as EM does. The system is solved by conjugate gradients with Hessian products of q, which take
    no pass, preconditioned by EM's P; they end early where q curves upwards, at the worst with the EM step to first order.
    A step that does not rise enough is shortened (event "shortened"); where that does not help the EM step is taken ("em").
    """

    name: ClassVar[str] = "lange"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient", "em", "metric", "tangent"})

    def init(self, objective: Objective, at: Point) -> State:
        return State(at, objective.evaluate(at))

    def step(self, objective: Objective, state: State) -> State:
        old = state.current
        path = Path(
            old.gradient,
            lambda v: objective.q_hvp(old.point, old.stats, v),
            old.precondition,
            math.inf,
            tol=EXACT,
            most=2 * objective.size,
        )
        found = armijo(objective, old, path.within(math.inf).move, 1.0)
        event = "accepted" if found.trials == 1 else "shortened"
        if found.failure is not None:
            found, event = armijo(objective, old, old.em_point.theta - old.point.theta, 1.0), "em"
        if found.failure is not None:
            return replace(state, failure=found.failure)
        new = found.evaluation
        return State(new.point, new, event=event, info=found.info())
