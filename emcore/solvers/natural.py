"""The natural gradient in EM's own metric: EM to first order, and over-relaxed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.result import Breakdown, falls
from emcore.solvers._base import Solver, State
from emcore.solvers._trust import reach_from
from emcore.solvers.em import EM

if TYPE_CHECKING:
    from emcore.objective import Evaluation, Objective, Point

__all__ = ["Natural"]

GROWTH = 1.1  # Salakhutdinov and Roweis (2003)


@dataclass(frozen=True)
class NaturalState(State):
    """A point of the climb.

    Attributes
    ----------
    length : float
        The step to try next, in steps of EM.
    """

    length: float = 1.0


@dataclass(frozen=True)
class Natural(Solver[NaturalState]):
    """Natural gradient ascent: ``theta <- theta + a P gradient``, P being the metric of the EM step.

    Parameters
    ----------
    step_size : "adaptive" or float
        "adaptive": a grows by a tenth with each step that is accepted, from 1, to which it returns when one is not.
        A number a between 0 and 2: that step always. 1 is the EM step to first order, more is over-relaxed.

    Raises
    ------
    ValueError
        When `step_size` is none of these.

    Notes
    -----
    Where the longer step lowers the value by more than rounding or leaves the feasible set, the EM step is taken instead (event
    "em"), at the price of one more pass: the climb is monotone, to rounding. So it is, at no price, where a coordinate would
    move by more than 100, or than it is away from 0. P is the matrix of Xu and Jordan (1996), in the
    coordinates of the objective. Near an optimum a step contracts where a is below ``2 / (1 - rate)`` for the smallest of the
    rates of EM, hence the bound of 2; the adaptive rule is that of Salakhutdinov and Roweis (2003), with P times the gradient
    in place of the EM step.
    """

    name: ClassVar[str] = "natural"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient", "em", "metric"})

    step_size: float | str = "adaptive"

    def __post_init__(self) -> None:
        self._check("step_size", "a number between 0 and 2", lambda a: 0 < a < 2, words=("adaptive",))

    def init(self, objective: Objective, at: Point) -> NaturalState:
        first = 1.0 if isinstance(self.step_size, str) else float(self.step_size)
        return NaturalState(at, objective.evaluate(at), length=first)

    def step(self, objective: Objective, state: NaturalState) -> NaturalState:
        current, adaptive = state.current, isinstance(self.step_size, str)
        new = self._trial(objective, current, state.length)
        if new is not None:
            length = GROWTH * state.length if adaptive else state.length
            return NaturalState(new.point, new, event="accepted", info={"step": state.length}, length=length)
        em = EM().step(objective, State(state.point, current))
        length = 1.0 if adaptive else state.length
        return NaturalState(em.point, em.current, em.failure, em.event, {"step": math.nan}, length=length)

    def _trial(self, objective: Objective, current: Evaluation, length: float) -> Evaluation | None:
        """Return the evaluation after a natural step, None where it fell by more than rounding or cannot be gone on from."""
        try:
            move = length * current.precondition(current.gradient)
            if not (np.abs(move) <= reach_from(current.point.theta)).all():  # nor where it is not finite
                return None
            new = objective.evaluate(current.point.theta + move)
            if new.failure is not None or falls(new, current):
                return None
            goes_on = math.isfinite(new.gain)  # the next step begins with its M-step or its gradient
        except Breakdown:  # of the metric here, or of the M-step there
            return None
        return new if goes_on else None
