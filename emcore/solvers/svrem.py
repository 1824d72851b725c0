"""Variance-reduced stochastic EM: online EM whose noise vanishes at the optimum."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.result import Breakdown, falls
from emcore.solvers._base import decreased
from emcore.solvers._blocks import BlockSolver, BlockState, mixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Objective, Point

    Array = NDArray[np.float64]

__all__ = ["SVREM"]


@dataclass(frozen=True)
class SVREMState(BlockState):
    """A point of the climb: the anchor of the next sweep.

    Attributes
    ----------
    vectors : ndarray (n, size)
        Statistics of the pieces at the anchor.
    """

    vectors: Array = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True)
class SVREM(BlockSolver[SVREMState]):
    """Stochastic EM with variance reduction (Chen, Zhu, Teh and Zhang 2018), anchored to a full pass a sweep.

    Parameters
    ----------
    n_blocks : int
        Into how many pieces to cut the data, at least. The statistics of each at the anchor are kept.
    seed : int
        Of the order of the pieces.
    share : float
        What part of each update is new, above 0, at most 1.

    Raises
    ------
    ValueError
        When an option is none of these.

    Notes
    -----
    ``s <- (1 - share) s + share (n (s_i(theta) - s_i(anchor)) + s(anchor))``: the bracket is unbiased, and its noise goes
    to zero with the distance from the anchor. A step is two passes, the sweep and the pass at its end, which is the next
    anchor and measures the value: nothing is monitored. Differences of statistics need not be statistics of anything:
    where the M-step breaks down or ends on the edge of the parameter space, or the sweep lowered the value, the EM step
    from the anchor is taken instead (event "em"), at the price of one more pass. So the climb is monotone.
    """

    name: ClassVar[str] = "svrem"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "em", "blocks"})

    share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("share", "a number above 0, at most 1", lambda a: 0 < a <= 1)

    def init(self, objective: Objective, at: Point) -> SVREMState:
        return self._anchor(objective, SVREMState(at, None), at, "start", 0)

    def step(self, objective: Objective, state: SVREMState) -> SVREMState:
        sweeps = state.sweeps + 1
        point = self._sweep(objective, state)
        if point is not None:
            new = self._anchor(objective, state, point, "swept", sweeps)
            if new.failure is None and new.current.failure is None and not falls(new.current, state.current):
                return new
        new = self._anchor(objective, state, state.current.em_point, "em", sweeps)
        failure = None if new.current.failure else decreased(objective, state.current, new.current)
        return new if failure is None else replace(state, failure=failure)

    def _anchor(self, objective: Objective, state: SVREMState, point: Point, event: str, sweeps: int) -> SVREMState:
        """Return the state at a new anchor: one pass."""
        current, parts = objective.each(point, objective.pieces(self.n_blocks))
        if current.failure is not None:
            return replace(state, current=current)
        return SVREMState(point, current, event=event, sweeps=sweeps, vectors=np.array([part.stats.vector for part in parts]))

    def _sweep(self, objective: Objective, state: SVREMState) -> Point | None:
        """Return where a sweep leads, None where it leads nowhere."""
        anchor, point, edge = state.current.stats, state.point, set(objective.boundary(state.point))
        n, running = len(state.vectors), state.current.stats
        try:
            for i, piece in self.visits(objective, state.sweeps):
                point = objective.maximize(point, running)
                if not edge.issuperset(objective.boundary(point)):
                    return None
                last = objective.evaluate(point, blocks=[piece], near=state.current.stats)
                if last.failure is not None:
                    return None
                moved = objective.recentre(last.stats, anchor.origin).vector - state.vectors[i]
                target = anchor.vector + n * moved
                running = mixed(anchor, running.vector + self.share * (target - running.vector), anchor.weight)
            # By way of its coordinates: where a count is negative the M-step leads out of the parameter space.
            point = objective.point(objective.maximize(point, running).theta)
        except Breakdown:
            return None
        return point if edge.issuperset(objective.boundary(point)) else None
