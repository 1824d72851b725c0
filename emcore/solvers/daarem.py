"""DAAREM: Anderson acceleration that begins damped, and restarts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore._vectors import largest, unit_rows
from emcore.solvers._acceleration import (
    ACCEPTED,
    FELL_BACK,
    RESTARTED,
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

__all__ = ["DAAREM"]

DAMPING, KAPPA = 1.2, 25.0  # Henderson and Varadhan (2019): how damping fades, and after how many accepted steps
MOST = 10  # their largest order


@dataclass(frozen=True)
class DaaremState(Secants):
    """A point of the climb.

    Attributes
    ----------
    trust : float
        Accepted steps, less what was taken back: the more, the less damping.
    cycle : float
        The value where this cycle began.
    """

    trust: float = 0.0
    cycle: float = -math.inf


@dataclass(frozen=True)
class DAAREM(Solver[DaaremState]):
    """DAAREM: damped Anderson acceleration with restarts, kept monotone up to a little (Henderson and Varadhan 2019).

    Parameters
    ----------
    order : int or None
        How many earlier steps to mix before the memory is emptied; None: half the number of coordinates, at most 10.
    slack : float
        How far steps may lower the value, all together, in units of the log-likelihood's sum (theirs: each step). Never below
        that of the start.

    Raises
    ------
    ValueError
        When an option is none of these.

    Notes
    -----
    The weights g of Anderson acceleration are shortened by a ridge, such that ``|g|^2`` is the fraction
    ``1 / (1 + 1.2^(25 - s))`` of what it is without; s grows by one with every accepted step, and falls by the order when a
    cycle ended lower than it began. A point that does not stand is replaced by the EM step, at another pass if it was tried
    (event "fell back").
    """

    name: ClassVar[str] = "daarem"
    needs: ClassVar[frozenset[str]] = frozenset({"em"})

    order: int | None = None
    slack: float = 0.01

    def __post_init__(self) -> None:
        self._check_whole("order", words=(None,))
        self._check_positive("slack", or_zero=True)

    def init(self, objective: Objective, at: Point) -> DaaremState:
        none = np.empty((0, at.theta.size))
        state = begin(DaaremState, objective, at, slack=self.slack, X=none, F=none)
        return replace(state, cycle=state.least)

    def step(self, objective: Objective, state: DaaremState) -> DaaremState:
        current, f, trust = state.current, latest(state.current), state.trust
        order = min(MOST, (f.size + 1) // 2) if self.order is None else min(self.order, f.size)
        new, event = None, ACCEPTED
        if len(state.X):
            gamma = damped(state.F, f, 1 / (1 + DAMPING ** (KAPPA - trust)))
            theta = combine(current, state.X, state.F, gamma)
            new = propose(objective, state, theta)
            event, trust = (FELL_BACK, trust) if new is None else (ACCEPTED, trust + 1)
        if new is None:
            new, failure = em_step(objective, current)
            if failure is not None:
                return replace(state, failure=failure)
        X, F = remember(state, new, f, order + 1)
        cycle = state.cycle
        if len(X) > order:
            if new.value < cycle:
                trust = max(trust - order, -2 * KAPPA)
            X, F, cycle = X[:0], F[:0], new.value
            event = RESTARTED if event == ACCEPTED else event
        return advanced(state, new, event, X=X, F=F, trust=trust, cycle=cycle)


def damped(F: Array, f: Vector, fraction: float) -> Vector:
    """Return the g that minimises ``|f - F' g|^2 + ridge |g|^2``, such that ``|g|^2`` is a fraction of its largest.

    Both in units of columns of length one. Newton's method on ``1 / |g|``, as a function of the ridge nearly a straight line
    (More and Sorensen 1983): from zero it climbs towards the root without passing it.
    """
    A, lengths = unit_rows(F)
    U, d, Vt = np.linalg.svd(A.T, full_matrices=False)
    b = d * (f @ U)
    size = largest(b) or 1.0  # squares of the smallest numbers would vanish
    b, squares = (b / size).tolist(), (d * d + RIDGE).tolist()  # a few numbers each, which NumPy only slows down
    ridge, g = 0.0, [x / square for x, square in zip(b, squares, strict=True)]
    norm = math.hypot(*g)
    wanted = math.sqrt(fraction) * norm
    for _ in range(50):
        if not norm > wanted * (1 + 1e-6) or wanted == 0:
            break
        bend = sum(x * x / (square + ridge) for x, square in zip(g, squares, strict=True))
        ridge += norm * norm / bend * (norm / wanted - 1)
        g = [x / (square + ridge) for x, square in zip(b, squares, strict=True)]
        norm = math.hypot(*g)
    return size * np.array(g) @ Vt / lengths
