"""Incremental EM: an M-step after each piece of the data, on statistics that are kept a piece."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.result import lies_below
from emcore.solvers._base import fallen
from emcore.solvers._blocks import BlockSolver, BlockState, mixed, monitored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Objective, Point

    Vector = Array = NDArray[np.float64]

__all__ = ["Incremental"]


@dataclass(frozen=True)
class IncrementalState(BlockState):
    """A point of the climb, with what each piece gave when it was last visited.

    Attributes
    ----------
    vectors : ndarray (n, size)
        Statistics of the pieces, about the origin.
    origin : ndarray
    weights, entropies : ndarray (n,)
        Weights of the pieces; entropies of their latent variables, summed over the rows.
    """

    vectors: Array = field(default_factory=lambda: np.empty((0, 0)))
    origin: Vector = field(default_factory=lambda: np.empty(0))
    weights: Vector = field(default_factory=lambda: np.empty(0))
    entropies: Vector = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Incremental(BlockSolver[IncrementalState]):
    """Incremental EM (Neal and Hinton 1998): an M-step after each piece of the data.

    Parameters
    ----------
    n_blocks : int
        Into how many pieces to cut the data, at least. The statistics of each are kept.
    seed : int
        Of the order of the pieces.

    Raises
    ------
    ValueError
        When one of them is not a whole number, or too small.

    Notes
    -----
    The M-step is made on the sum of what the pieces gave when each was last visited. What rises is not the log-likelihood
    but the free energy ``F = l - KL`` (the state's `free_energy`), which is below it and has the same maxima; the climb
    fails when F falls. The log-likelihood itself may fall for a sweep (event "fell"). The M-step after the last visit is
    the first of the next sweep, so that with one piece it is EM, pass for pass.
    """

    name: ClassVar[str] = "incremental"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "em", "blocks"})

    def init(self, objective: Objective, at: Point) -> IncrementalState:
        current, parts = objective.each(at, objective.pieces(self.n_blocks))
        if current.failure is not None:
            return IncrementalState(at, current)
        weights = np.array([part.stats.weight for part in parts])
        return IncrementalState(
            at, current, vectors=np.array([part.stats.vector for part in parts]),
            origin=current.stats.origin, weights=weights, entropies=weights * [part.entropy for part in parts],
            free_energy=current.value,
        )  # fmt: skip

    def step(self, objective: Objective, state: IncrementalState) -> IncrementalState:
        like, point = state.current.stats, state.point
        old = like._replace(origin=state.origin)
        # About the means of now, so that nothing cancels.
        vectors = np.array([
            objective.recentre(mixed(old, vector, weight), like.origin).vector
            for vector, weight in zip(state.vectors, state.weights.tolist(), strict=True)
        ])  # fmt: skip
        entropies, weight = state.entropies.copy(), float(state.weights.sum())
        for i, piece in self.visits(objective, state.sweeps):
            # A fresh sum, not one that is updated: the share of a dying component would be what cancellation leaves.
            point = objective.maximize(point, mixed(like, vectors.sum(axis=0), weight))
            last = objective.evaluate(point, blocks=[piece], near=state.current.stats)
            if last.failure is not None:
                return replace(state, failure=last.failure)
            vectors[i] = objective.recentre(last.stats, like.origin).vector
            entropies[i] = last.entropy * last.stats.weight
        new = monitored(objective, point, last, len(vectors))
        if new.failure is not None:
            return replace(state, failure=new.failure)
        free = objective.q(point, mixed(like, vectors.sum(axis=0), weight)) + float(entropies.sum()) / weight
        if free < state.free_energy - new.noise:
            return replace(state, failure=fallen(objective, "The free energy", state.free_energy - free))
        return IncrementalState(
            point, new, event="fell" if lies_below(new, state.current.value) else "swept",
            sweeps=state.sweeps + 1, vectors=vectors, origin=like.origin, weights=state.weights, entropies=entropies,
            free_energy=free,
        )  # fmt: skip
