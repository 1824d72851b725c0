"""QN1: Broyden's method on the EM step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.solvers._acceleration import (
    ACCEPTED,
    FELL_BACK,
    RESTARTED,
    Accelerated,
    advanced,
    begin,
    below,
    goes_on,
    latest,
    propose,
)  # fmt: skip
from emcore.solvers._base import Solver
from emcore.solvers.em import em_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective, Point

    Array = Vector = NDArray[np.float64]

__all__ = ["QN1"]

SINGULAR = 1e-8  # least cosine that an update may divide by


@dataclass(frozen=True)
class QN1State(Accelerated):
    """A point of the climb, with the inverse Jacobian of the EM step as ``-I + left' right``.

    Attributes
    ----------
    left, right : ndarray (m, p)
    """

    left: Array = field(default_factory=lambda: np.empty((0, 0)))
    right: Array = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True)
class QN1(Solver[QN1State]):
    """QN1: Broyden's method for the zero of the EM step (Jamshidian and Jennrich 1997).

    Parameters
    ----------
    memory : int
        After how many updates to begin again (event "restarted").
    slack : float
        How far steps may lower the value, all together, in units of the log-likelihood's sum. Never below that of the start.

    Raises
    ------
    ValueError
        When an option is none of these.

    Notes
    -----
    A stands for the inverse Jacobian of ``g(theta) = M(theta) - theta``, at first -I, with which the step ``-A g`` is the EM
    step; after a step s that changed g by y it becomes ``A + (s - A y) s'A / s'A y``. One pass a step. A point that does not
    stand is replaced by the EM step, at another pass if it was tried, and A is -I again (event "fell back").
    """

    name: ClassVar[str] = "qn1"
    needs: ClassVar[frozenset[str]] = frozenset({"em"})

    memory: int = 50
    slack: float = 0.01

    def __post_init__(self) -> None:
        self._check_whole("memory")
        self._check_positive("slack", or_zero=True)

    def init(self, objective: Objective, at: Point) -> QN1State:
        none = np.empty((0, at.theta.size))
        return begin(QN1State, objective, at, slack=self.slack, left=none, right=none)

    def step(self, objective: Objective, state: QN1State) -> QN1State:
        current, g = state.current, latest(state.current)
        new, event = None, ACCEPTED
        if len(state.left) >= self.memory:
            state, event = _forgotten(state), RESTARTED
        if len(state.left):
            new = propose(objective, state, current.em_point.theta - (state.right @ g) @ state.left)
            if new is None:
                state, event = _forgotten(state), FELL_BACK
        if new is None:
            new, failure = em_step(objective, current)
            if failure is not None:
                return replace(state, failure=failure)
        left, right = _updated(state, new, g)
        return advanced(state, new, event, left=left, right=right)


def _forgotten(state: QN1State) -> QN1State:
    return replace(state, left=state.left[:0], right=state.right[:0])


def _updated(state: QN1State, new: Evaluation, g: Vector) -> tuple[Array, Array]:
    """Return the factors of A after a step, g being the EM step before it: Broyden's update where it divides by enough."""
    left, right = state.left, state.right
    if not goes_on(new):
        return left, right
    y = latest(new) - g
    s = new.point.theta - state.point.theta
    Ay = (right @ y) @ left - y
    bend = float(s @ Ay)
    if not abs(bend) > SINGULAR * math.sqrt(float(s @ s) * float(Ay @ Ay)):
        return left, right
    sA = (left @ s) @ right - s
    return below(left, (s - Ay) / bend), below(right, sA)
