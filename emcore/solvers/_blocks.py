"""What the solvers share that move after each piece of the data.

One step is one sweep: each piece is visited once, in an order drawn afresh, so that a row of the trace, a budget and a stopping
rule mean what they mean for other solvers. A visit costs the piece's part of a pass. The log-likelihood at the end of a
sweep is known to nobody, because each piece was seen at another point; it takes a pass that is counted as monitoring.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from emcore.solvers._base import Solver, State

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective, Point, Stats

    Vector = NDArray[np.float64]

__all__ = ["BlockSolver", "BlockState", "mixed", "monitored"]


@dataclass(frozen=True)
class BlockState(State):
    """A point of the climb, between two sweeps.

    Attributes
    ----------
    sweeps : int
        Sweeps made so far: with the seed they give the order of the next.
    """

    sweeps: int = 0


S = TypeVar("S", bound=BlockState)


@dataclass(frozen=True)
class BlockSolver(Solver[S]):
    """Base of the solvers that move after each piece of the data.

    Parameters
    ----------
    n_blocks : int
        Into how many pieces to cut the data, at least; no more than rows. A source of more blocks than that is taken as it is.
    seed : int
        Of the order of the pieces.

    Raises
    ------
    ValueError
        When one of them is not a whole number, or too small.
    """

    n_blocks: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_whole("n_blocks")
        self._check_whole("seed", 0)

    def visits(self, objective: Objective, sweep: int) -> Iterator[tuple[int, Any]]:
        """Yield the pieces with their indices, in the order of a sweep."""
        pieces = objective.pieces(self.n_blocks)
        for i in np.random.default_rng([self.seed, sweep]).permutation(len(pieces)).tolist():
            yield i, pieces[i]


def mixed(like: Stats, vector: Vector, weight: float) -> Stats:
    """Return statistics of this vector and weight about the origin of others."""
    return type(like)(vector, like.origin, weight)  # in half the time of `_replace`


def monitored(objective: Objective, point: Point, last: Evaluation, n: int) -> Evaluation:
    """Return what a pass at a point gives, counted as monitoring; no pass where the last visit was to the only piece."""
    if n == 1 and last.point is point:
        return last
    with objective.monitoring():
        return objective.evaluate(point)
