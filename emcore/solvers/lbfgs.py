"""Limited-memory BFGS: curvature learnt from the gradients that the passes gave anyway."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore._vectors import two_loop
from emcore.solvers._acceleration import below
from emcore.solvers._base import Solver, State
from emcore.solvers._search import LOOSE, curved, first_step, strong_wolfe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Objective, Point

    Vector = Array = NDArray[np.float64]

__all__ = ["LBFGS"]


@dataclass(frozen=True)
class LBFGSState(State):
    """A point of the climb, with the pairs of the memory, oldest first.

    Attributes
    ----------
    S, Y : ndarray (m, p)
        Changes of theta, and the falls of the gradient that went with them.
    """

    S: Array = field(default_factory=lambda: np.empty((0, 0)))
    Y: Array = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True)
class LBFGS(Solver[LBFGSState]):
    """L-BFGS: quasi-Newton ascent from the last few changes of the gradient (Liu and Nocedal 1989).

    Parameters
    ----------
    memory : int
        How many changes to remember.

    Raises
    ------
    ValueError
        When `memory` is not a whole number >= 1.

    Notes
    -----
    Pairs without curvature, ``s'y`` not well above zero, are not kept. When a search fails the memory is cleared and
    the gradient is tried (event "restarted"). Needs strong Wolfe steps, one or two passes each.
    """

    name: ClassVar[str] = "lbfgs"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient"})

    memory: int = 10

    def __post_init__(self) -> None:
        self._check_whole("memory")

    def init(self, objective: Objective, at: Point) -> LBFGSState:
        none = np.empty((0, at.theta.size))
        return LBFGSState(at, objective.evaluate(at), S=none, Y=none)

    def step(self, objective: Objective, state: LBFGSState) -> LBFGSState:
        start, g = state.current, state.current.gradient
        S, Y, event = state.S, state.Y, "accepted"
        if len(S):
            found = strong_wolfe(objective, start, two_loop(S, Y, g), 1.0, c2=LOOSE)
            if found.failure is not None:
                S, Y, event = S[:0], Y[:0], "restarted"
        if not len(S):
            found = strong_wolfe(objective, start, g, first_step(g), c2=LOOSE)
        if found.failure is not None:
            return replace(state, failure=found.failure)
        new = found.evaluation
        s, y = new.point.theta - start.point.theta, g - new.gradient
        if curved(s, y):
            S, Y = (below(old, last)[-self.memory :] for old, last in ((S, s), (Y, y)))
        return LBFGSState(new.point, new, event=event, info=found.info(), S=S, Y=Y)
