"""Anderson acceleration: the mixture of the last few EM steps that would have been shortest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore._vectors import unit_rows
from emcore.solvers._acceleration import (
    ACCEPTED,
    FELL_BACK,
    RIDGE,
    Secants,
    advanced,
    begin,
    combine,
    latest,
    propose,
    remember,
)  # fmt: skip
from emcore.solvers._base import Solver
from emcore.solvers.em import em_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Objective, Point

    Array = Vector = NDArray[np.float64]

__all__ = ["Anderson"]


@dataclass(frozen=True)
class Anderson(Solver[Secants]):
    """Anderson acceleration of the EM map (Anderson 1965; Walker and Ni 2011), kept monotone.

    Parameters
    ----------
    memory : int
        How many earlier steps to mix, at most as many as there are coordinates.
    ridge : float
        Added to the squares of the least-squares problem, whose columns have length one.
    slack : float
        How far steps may lower the value, all together, in units of the log-likelihood's sum. Never below that of the start.

    Raises
    ------
    ValueError
        When an option is none of these.

    Notes
    -----
    Walker and Ni (2011): with f the EM step and F, X the changes of EM steps and points, the next point is
    ``theta + f - (X + F)' g``, g being the minimum of ``|f - F' g|^2``. One pass a step. A point
    that does not stand is replaced by the EM step, at another pass if it was tried (event "fell back").
    """

    name: ClassVar[str] = "anderson"
    needs: ClassVar[frozenset[str]] = frozenset({"em"})

    memory: int = 5
    ridge: float = RIDGE
    slack: float = 0.01

    def __post_init__(self) -> None:
        self._check_whole("memory")
        self._check_positive("ridge")
        self._check_positive("slack", or_zero=True)

    def init(self, objective: Objective, at: Point) -> Secants:
        none = np.empty((0, at.theta.size))
        return begin(Secants, objective, at, slack=self.slack, X=none, F=none)

    def step(self, objective: Objective, state: Secants) -> Secants:
        current, f = state.current, latest(state.current)
        new, event = None, ACCEPTED
        if len(state.X):
            theta = combine(current, state.X, state.F, self._weights(state.F, f))
            new = propose(objective, state, theta)
        if new is None:
            event = FELL_BACK if len(state.X) else ACCEPTED
            new, failure = em_step(objective, current)
            if failure is not None:
                return replace(state, failure=failure)
        X, F = remember(state, new, f, min(self.memory, f.size))
        return advanced(state, new, event, X=X, F=F)

    def _weights(self, F: Array, f: Vector) -> Vector:
        """Return the minimum g of ``|f - F' g|^2 + ridge |g|^2``, in units of columns of length one."""
        A, lengths = unit_rows(F)
        U, d, Vt = np.linalg.svd(A.T, full_matrices=False)
        return (d / (d * d + self.ridge) * (f @ U)) @ Vt / lengths
