"""Newton's method: the exact Hessian of the log-likelihood, within a ball of EM's metric."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from emcore.solvers._base import Solver, State
from emcore.solvers._trust import Hill, advance
from emcore.solvers.em import em_instead

if TYPE_CHECKING:
    from emcore.objective import Objective, Point

__all__ = ["Newton", "NewtonState"]


@dataclass(frozen=True)
class NewtonState(State):
    """A point of the climb.

    Attributes
    ----------
    radius : float
        Of the ball within which the next step stays.
    """

    radius: float = 1.0


@dataclass(frozen=True)
class Newton(Solver[NewtonState]):
    """Newton's method with exact Hessian products, in a trust region of EM's metric.

    Parameters
    ----------
    whole : int
        Up to so many parameters the Hessian is built whole, its p columns in one pass, and the step is exact. Beyond it
        conjugate gradients, preconditioned by EM's P, take one pass a product (Steihaug 1983).
    radius : float
        Of the first ball. 1: the parameters move by about a standard deviation of a row of complete data.

    Raises
    ------
    ValueError
        When an option is out of its range.

    Notes
    -----
    Passes for Hessian products are counted in ``objective.hessian_passes``. Converges quadratically to a strict maximum, never
    to a lower value, and leaves a saddle along the direction in which the hill curves upwards. With P = EM's metric the first
    direction of conjugate gradients is that of EM. No coordinate moves by more than 100 in a step, or than it is away from 0:
    the logarithm of a parameter that goes to 0 would run away (event "reach" where that cuts conjugate gradients short). Where
    no step within a ball rises, or Hessian or metric are not finite, the EM step is taken (event "em").
    """

    name: ClassVar[str] = "newton"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient", "metric", "tangent"})

    whole: int = 50
    radius: float = 1.0

    def __post_init__(self) -> None:
        self._check_whole("whole", 0)
        self._check_positive("radius")

    def init(self, objective: Objective, at: Point) -> NewtonState:
        return NewtonState(at, objective.evaluate(at), radius=self.radius)

    def step(self, objective: Objective, state: NewtonState) -> NewtonState:
        before = objective.hessian_passes
        found = advance(objective, Hill(objective), state.current, state.radius, whole=objective.size <= self.whole)
        info = {"radius": found.radius, "trials": found.trials, "hessian_passes": objective.hessian_passes - before}
        if found.evaluation is None:
            new, failure = em_instead(objective, state.current, found.failure)
            if failure is not None:
                return replace(state, failure=failure, info=info)
            return NewtonState(new.point, new, event="em", info=info | {"radius": self.radius}, radius=self.radius)
        return NewtonState(found.evaluation.point, found.evaluation, event=found.event, info=info, radius=found.radius)
