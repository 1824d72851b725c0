"""ZAL: the fixed point of the EM map by a quasi-Newton step through several secants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.solvers._acceleration import (
    ACCEPTED,
    FELL_BACK,
    Secants,
    advanced,
    begin,
    goes_on,
    latest,
    propose,
)  # fmt: skip
from emcore.solvers._base import Solver
from emcore.solvers.em import em_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Objective, Point

    Array = Vector = NDArray[np.float64]

__all__ = ["ZAL"]

LONGER = 2.0  # without a value: stricter than for the others, or few secants lead astray


@dataclass(frozen=True)
class ZAL(Solver[Secants]):
    """ZAL: quasi-Newton acceleration of the EM map through several secants (Zhou, Alexander and Lange 2011).

    Parameters
    ----------
    secants : int
        How many secants to keep, at most as many as there are coordinates.

    Raises
    ------
    ValueError
        When it is not a whole number >= 1.

    Notes
    -----
    From theta the EM map is followed twice, which gives a secant ``u = M(theta) - theta``, ``v = M(M(theta)) - M(theta)``.
    With the last secants as columns of U and V the next point is ``M(theta) - V (U'U - U'V)^-1 U' (theta - M(theta))``,
    two passes a step. Where it does not stand it is ``M(M(theta))``, at another pass (event "fell back"), which gives
    a secant more: theirs keeps the first alone, and takes up to twice the passes.
    """

    name: ClassVar[str] = "zal"
    needs: ClassVar[frozenset[str]] = frozenset({"em"})

    secants: int = 3

    def __post_init__(self) -> None:
        self._check_whole("secants")

    def init(self, objective: Objective, at: Point) -> Secants:
        none = np.empty((0, at.theta.size))
        return begin(Secants, objective, at, X=none, F=none)

    def step(self, objective: Objective, state: Secants) -> Secants:
        start = state.current
        middle, failure = em_step(objective, start)
        if failure is not None:
            return replace(state, failure=failure)
        u, v = latest(start), latest(middle)
        most = min(self.secants, u.size)
        U, V = np.vstack((state.X, u))[-most:], np.vstack((state.F, v))[-most:]
        new = None
        weights = secant_weights(U, V, u)
        if weights is not None:
            theta = middle.point.theta + weights @ V
            new = propose(objective, state, theta, middle, longer=LONGER)
        if new is not None:
            return advanced(state, new, ACCEPTED, X=U, F=V)
        new, failure = em_step(objective, middle)
        if failure is not None:
            return replace(state, failure=failure)
        if goes_on(new):
            U, V = np.vstack((U, v))[-most:], np.vstack((V, latest(new)))[-most:]
        return advanced(state, new, FELL_BACK, X=U, F=V)


def secant_weights(U: Array, V: Array, u: Vector) -> Vector | None:
    """Return ``(U'U - U'V)^-1 U' u`` for secants in the rows of U and V, None where there is no such thing."""
    lengths = np.sqrt(np.einsum("ij,ij->i", U, U))
    if not lengths.all():
        return None
    W = U / lengths[:, None]
    try:
        return np.linalg.solve(W @ (U - V).T / lengths, W @ u) / lengths
    except np.linalg.LinAlgError:
        return None
