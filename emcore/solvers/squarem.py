"""SQUAREM: two EM steps tell how far to extrapolate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from emcore.solvers._acceleration import (
    ACCEPTED,
    FELL_BACK,
    Accelerated,
    advanced,
    begin,
    latest,
    propose,
)  # fmt: skip
from emcore.solvers._base import Solver, replace
from emcore.solvers.em import em_step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emcore.objective import Objective, Point

    Vector = NDArray[np.float64]

__all__ = ["SQUAREM"]

NEARLY_EM = 0.01  # a step length this close to 1 is two EM steps
GROW = 4.0  # what the bound on the step length grows and shrinks by


@dataclass(frozen=True)
class SquaremState(Accelerated):
    """A point of the climb.

    Attributes
    ----------
    longest : float
        The bound on the step length.
    """

    longest: float = 1.0


@dataclass(frozen=True)
class SQUAREM(Solver[SquaremState]):
    """SQUAREM: squared extrapolation of the EM map (Varadhan and Roland 2008).

    Parameters
    ----------
    scheme : "S1", "S2" or "S3"
        Which step length. The third minimises neither residual nor error but their ratio, and is never negative.
    slack : float
        How far steps may lower the value, all together, in units of the log-likelihood's sum (theirs: by 1 in each
        step). Never below that of the start. What the EM step that ends a step is sure to add counts already.

    Raises
    ------
    ValueError
        When an option is none of these.

    Notes
    -----
    With ``r = M(theta) - theta`` and ``v = M(M(theta)) - M(theta) - r`` the point ``theta + 2 a r + a^2 v`` is tried, and
    where it stands an EM step from it ends the step: three passes. ``a`` is ``-r'v / v'v`` (S1), ``-r'r / r'v`` (S2) or
    ``|r| / |v|`` (S3), between 1, which is two EM steps in two passes, and a bound that is multiplied by four when it was
    met and divided by four when the point was refused (event "fell back": two EM steps, at two or three passes).
    """

    name: ClassVar[str] = "squarem"
    needs: ClassVar[frozenset[str]] = frozenset({"em"})

    scheme: str = "S3"
    slack: float = 0.1

    def __post_init__(self) -> None:
        self._check("scheme", words=("S1", "S2", "S3"))
        self._check_positive("slack", or_zero=True)

    def init(self, objective: Objective, at: Point) -> SquaremState:
        return begin(SquaremState, objective, at, slack=self.slack)

    def step(self, objective: Objective, state: SquaremState) -> SquaremState:
        start, longest = state.current, state.longest
        middle, failure = em_step(objective, start)
        if failure is not None:
            return replace(state, failure=failure)
        r = latest(start)
        v = latest(middle) - r
        wanted = self._length(r, v)
        length = min(max(wanted, 1.0), longest)
        event, before = ACCEPTED, middle
        if length > 1 + NEARLY_EM:
            theta = start.point.theta + 2 * length * r + length**2 * v
            trial = propose(objective, state, theta, ahead=True)
            if trial is None:
                event, longest = FELL_BACK, max(longest / GROW, 1.0)
            else:
                before = trial
        if event == ACCEPTED and length == longest:
            longest *= GROW
        new, failure = em_step(objective, before)
        if failure is not None and before is not middle:  # what was tried led nowhere
            event, longest = FELL_BACK, max(longest / GROW, 1.0)
            new, failure = em_step(objective, middle)
        if failure is not None:
            return replace(state, failure=failure)
        return advanced(state, new, event, info={"length": length}, longest=longest)

    def _length(self, r: Vector, v: Vector) -> float:
        """Return the step length of the scheme, 1 where rounding leaves none."""
        rr, rv, vv = float(r @ r), float(r @ v), float(v @ v)
        top, bottom = {"S1": (-rv, vv), "S2": (rr, -rv), "S3": (math.sqrt(rr), math.sqrt(vv))}[self.scheme]
        return top / bottom if bottom > 0 and math.isfinite(top / bottom) else 1.0
