"""Lange's EM gradient: one step of Newton's method on q in the place of the M-step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.result import Breakdown, Failure, Status
from emcore.solvers._base import Solver, State
from emcore.solvers._search import Found, armijo
from emcore.solvers._trust import Path, reach_from
from emcore.solvers.em import em_instead

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective, Point

    Vector = NDArray[np.float64]

__all__ = ["Lange"]

EXACT = 1e-10  # of the first slope: what conjugate gradients leave, without a pass
WHOLE = 50  # coordinates up to which the matrices are built: all their columns at once take as long as one product


@dataclass(frozen=True)
class Lange(Solver[State]):
    """The EM gradient algorithm (Lange 1995): ``theta <- theta + (-Hess q)^-1 gradient``, never down.

    Notes
    -----
    Near a solution it converges as EM does. The system is solved by conjugate gradients with Hessian products of q, which take
    no pass, preconditioned by EM's P; they end early where q curves upwards, at the worst with the EM step to first order. A
    step that does not rise enough is shortened (event "shortened"). Where that does not help, where a coordinate would move by
    more than 100, or than it is away from 0, and where the curvature of q is not finite, the EM step is taken ("em").
    """

    name: ClassVar[str] = "lange"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient", "em", "metric", "tangent"})

    def init(self, objective: Objective, at: Point) -> State:
        return State(at, objective.evaluate(at))

    def step(self, objective: Objective, state: State) -> State:
        old = state.current
        try:
            found = armijo(objective, old, self._direction(objective, old), 1.0)
        except Breakdown as broken:
            found = Found(None, 0.0, 0, broken.failure)
        if found.failure is None:
            event = "accepted" if found.trials == 1 else "shortened"
            return State(found.evaluation.point, found.evaluation, event=event, info=found.info())
        new, failure = em_instead(objective, old, found.failure)
        return State(new.point, new, event="em") if failure is None else replace(state, failure=failure)

    def _direction(self, objective: Objective, old: Evaluation) -> Vector:
        """Return the whole step, or raise a Breakdown where it goes farther than any does."""
        product, precondition = partial(objective.q_hvp, old.point, old.stats), old.precondition
        if objective.size <= WHOLE:
            unit = np.eye(objective.size)
            product, precondition = product(unit).dot, precondition(unit).dot
        path = Path(
            old.gradient,
            product,
            precondition,
            math.inf,
            tol=EXACT,
            most=2 * objective.size,
            reach=reach_from(old.point.theta),
        )
        step = path.within(math.inf)
        if step.held:
            raise Breakdown(Failure(Status.NO_ASCENT, detail="A coordinate would move beyond its reach."))
        return step.move
