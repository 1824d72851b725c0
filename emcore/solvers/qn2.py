"""QN2: BFGS that begins with the metric of the EM step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore._vectors import bfgs_update
from emcore.solvers._acceleration import ACCEPTED, RESTARTED, below, goes_on, latest
from emcore.solvers._base import Solver, State, replace
from emcore.solvers._search import LOOSE, curved, first_step, strong_wolfe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective, Point

    Array = Vector = NDArray[np.float64]

__all__ = ["QN2"]


@dataclass(frozen=True)
class QN2State(State):
    """A point of the climb, with the updates since the last restart, oldest first.

    Attributes
    ----------
    S, Y : ndarray (m, p)
        Steps, and the falls of the gradient along them.
    HY : ndarray (m, p)
        What the inverse Hessian before the update made of the rows of Y.
    """

    S: Array = field(default_factory=lambda: np.empty((0, 0)))
    Y: Array = field(default_factory=lambda: np.empty((0, 0)))
    HY: Array = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True)
class QN2(Solver[QN2State]):
    """QN2: BFGS on the log-likelihood, preconditioned by the EM step (Jamshidian and Jennrich 1997).

    Parameters
    ----------
    memory : int
        After how many updates to begin again (event "restarted").

    Raises
    ------
    ValueError
        When it is not a whole number >= 1.

    Notes
    -----
    The EM step is the gradient times a metric P, to first order. The direction is the EM step plus B times the
    gradient, B being what the updates of BFGS have added to P: for a step s along which the gradient fell by y and the EM step
    by z, ``H y = z + B y`` stands for ``(P + B) y``, and B grows by ``(1 + y'Hy / y's) ss' / y's - (Hy s' + s y'H) / y's``.
    The first trial is the whole direction; searches are as for L-BFGS. It begins again where the direction does not climb or
    its search fails, and takes the gradient where the EM step does not climb either.
    """

    name: ClassVar[str] = "qn2"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient", "em"})

    memory: int = 50

    def __post_init__(self) -> None:
        self._check_whole("memory")

    def init(self, objective: Objective, at: Point) -> QN2State:
        none = np.empty((0, at.theta.size))
        return QN2State(at, objective.evaluate(at), S=none, Y=none, HY=none)

    def step(self, objective: Objective, state: QN2State) -> QN2State:
        start, event = state.current, ACCEPTED
        g, em = start.gradient, latest(start)
        found = None
        if len(state.S) >= self.memory:
            state, event = _forgotten(state), RESTARTED
        if len(state.S):
            found = strong_wolfe(objective, start, em + _added(state, g), 1.0, c2=LOOSE)
            if found.failure is not None:
                state, event = _forgotten(state), RESTARTED
        if found is None or found.failure is not None:
            found = strong_wolfe(objective, start, em, 1.0, c2=LOOSE)
        if found.failure is not None:
            found = strong_wolfe(objective, start, g, first_step(g), c2=LOOSE)
        if found.failure is not None:
            return replace(state, failure=found.failure)
        new = found.evaluation
        more = _updated(state, new, g, em)
        return replace(state, point=new.point, current=new, event=event, info=found.info(), **more)


def _forgotten(state: QN2State) -> QN2State:
    return replace(state, S=state.S[:0], Y=state.Y[:0], HY=state.HY[:0])


def _added(state: QN2State, v: Vector) -> Vector:
    """Return what the updates of a state have added to P, times v."""
    return bfgs_update(state.S, state.Y, state.HY, v)


def _updated(state: QN2State, new: Evaluation, g: Vector, em: Vector) -> dict[str, Array]:
    """Return what one more update changes in the state, g and em being the gradient and the EM step before the step."""
    s, y = new.point.theta - state.point.theta, g - new.gradient
    if not (curved(s, y) and goes_on(new)):
        return {}
    Hy = em - latest(new) + _added(state, y)
    return {"S": below(state.S, s), "Y": below(state.Y, y), "HY": below(state.HY, Hy)}
