"""Online EM: an M-step after each piece of the data, on a running average of statistics."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.result import lies_below
from emcore.solvers._blocks import BlockSolver, BlockState, mixed, monitored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Objective, Point, Stats

    Vector = NDArray[np.float64]

__all__ = ["Online"]

FORGET = 3.0  # Shamir and Zhang (2013), eta of their polynomial-decay averaging


@dataclass(frozen=True)
class OnlineState(BlockState):
    """A point of the climb, with the running statistics.

    Attributes
    ----------
    vector, average : ndarray (size,)
        Running statistics of the whole data, and their average over the updates so far, about the origin.
    origin : ndarray
    weight, average_weight : float
        What they stand for.
    updates : int
    """

    vector: Vector = field(default_factory=lambda: np.empty(0))
    average: Vector = field(default_factory=lambda: np.empty(0))
    origin: Vector = field(default_factory=lambda: np.empty(0))
    weight: float = 0.0
    average_weight: float = 0.0
    updates: int = 0


@dataclass(frozen=True)
class Online(BlockSolver[OnlineState]):
    """Online EM (Cappe and Moulines 2009): running statistics, moved a little towards those of each piece.

    Parameters
    ----------
    n_blocks : int
        Into how many pieces to cut the data, at least.
    seed : int
        Of the order of the pieces.
    exponent : float
        The k-th update takes a share of ``(k + 2) ** -exponent`` from its piece; above 1/2, at most 1.
    share : float, optional
        Take this share always instead, above 0, at most 1: faster at first, but it hovers about the optimum. With 1 and one
        piece it is EM, pass for pass.
    averaging : bool
        Report the M-step of averaged statistics, the late ones weighing more.

    Raises
    ------
    ValueError
        When an option is none of these.

    Notes
    -----
    The update is ``s <- (1 - share) s + share n s_i``, s_i being the statistics of one of n pieces, and begins at those of
    the pass at the start. A piece is a sample of the data: the climb is noisy, may fall (event "fell"), and
    as a rule ends by its budget, the noise of the last updates above the tolerance. Averages are taken of the
    statistics, which add, and not of the parameters; to first order it is the same.
    """

    name: ClassVar[str] = "online"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "em", "blocks"})

    exponent: float = 0.7
    share: float | None = None
    averaging: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("exponent", "a number above 0.5, at most 1", lambda a: 0.5 < a <= 1)
        self._check("share", "a number above 0, at most 1", lambda a: 0 < a <= 1, words=(None,))
        self._check("averaging", words=(True, False))

    def init(self, objective: Objective, at: Point) -> OnlineState:
        current = objective.evaluate(at)
        if current.failure is not None:
            return OnlineState(at, current)
        s = current.stats
        return OnlineState(
            at, current, vector=s.vector, average=s.vector, origin=s.origin, weight=s.weight, average_weight=s.weight
        )

    def step(self, objective: Objective, state: OnlineState) -> OnlineState:
        like, point, n = state.current.stats, state.point, len(objective.pieces(self.n_blocks))
        old = like._replace(origin=state.origin)
        running = objective.recentre(mixed(old, state.vector, state.weight), like.origin)
        average = objective.recentre(mixed(old, state.average, state.average_weight), like.origin)
        updates = state.updates
        for _, piece in self.visits(objective, state.sweeps):
            point = objective.maximize(point, running)
            last = objective.evaluate(point, blocks=[piece], near=state.current.stats)
            if last.failure is not None:
                return replace(state, failure=last.failure)
            found = objective.recentre(last.stats, like.origin)
            share = (updates + 2) ** -self.exponent if self.share is None else self.share
            running = _between(running, found, share, n)
            updates += 1
            average = _between(average, running, (FORGET + 1) / (updates + FORGET), 1)
        if self.averaging:
            point = objective.maximize(point, average)
        new = monitored(objective, point, last, n)
        if new.failure is not None:
            return replace(state, failure=new.failure)
        return OnlineState(
            point, new, event="fell" if lies_below(new, state.current.value) else "swept", info={"share": share},
            sweeps=state.sweeps + 1, vector=running.vector, average=average.vector, origin=like.origin,
            weight=running.weight, average_weight=average.weight, updates=updates,
        )  # fmt: skip


def _between(a: Stats, b: Stats, share: float, n: int) -> Stats:
    """Return ``(1 - share) a + share n b``."""
    vector = (1 - share) * a.vector + share * n * b.vector
    return mixed(a, vector, (1 - share) * a.weight + share * n * b.weight)
