"""Adam: stochastic gradients of pieces of the data, what is done today where EM is not thought of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore._vectors import all_finite
from emcore.result import Failure, Status, lies_below
from emcore.solvers._blocks import BlockSolver, BlockState, monitored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Objective, Point

    Vector = NDArray[np.float64]

__all__ = ["Adam"]

EPSILON = 1e-8  # Kingma and Ba (2015), algorithm 1
MOST_HALVINGS = 30


@dataclass(frozen=True)
class AdamState(BlockState):
    """A point of the climb, with the moments of the gradient.

    Attributes
    ----------
    first, second : ndarray (p,)
        Running means of the gradient and of its squares.
    updates : int
    shrink : float
        What part of the learning rate is left, after sweeps that left the feasible set.
    """

    first: Vector = field(default_factory=lambda: np.empty(0))
    second: Vector = field(default_factory=lambda: np.empty(0))
    updates: int = 0
    shrink: float = 1.0


@dataclass(frozen=True)
class Adam(BlockSolver[AdamState]):
    """Adam (Kingma and Ba 2015): stochastic gradient ascent, each coordinate at its own pace.

    Parameters
    ----------
    n_blocks : int
        Into how many pieces to cut the data, at least; each gives a gradient.
    seed : int
        Of the order of the pieces.
    lr : float
        Learning rate: about how far a coordinate moves in an update.
    beta1, beta2 : float
        What part of the moments of the gradient stays, from 0 to below 1.
    schedule : "sqrt" or "constant"
        Whether the learning rate falls, as one over the square root of the number of the sweep.

    Raises
    ------
    ValueError
        When an option is none of these.

    Notes
    -----
    The gradient of a piece is that of its part of the log-likelihood (Fisher's identity), in the coordinates of the objective.
    The climb is noisy, may fall (event "fell"), and as a rule ends by its budget. A sweep that leaves the feasible set is
    taken back, and the learning rate halved (event "shortened"). In original coordinates that is the rule: coordinates
    that go at their own pace leave the constraints that bind them together, and the climb fails. Use free ones.
    """

    name: ClassVar[str] = "adam"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient", "blocks"})

    lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    schedule: str = "sqrt"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("lr")
        for option in ("beta1", "beta2"):
            self._check(option, "a number from 0 to below 1", lambda beta: 0 <= beta < 1)
        self._check("schedule", words=("sqrt", "constant"))

    def init(self, objective: Objective, at: Point) -> AdamState:
        none = np.zeros(at.theta.size)
        return AdamState(at, objective.evaluate(at), first=none, second=none)

    def step(self, objective: Objective, state: AdamState) -> AdamState:
        shrink = state.shrink
        for _ in range(MOST_HALVINGS):
            new, found = self._sweep(objective, state, shrink)
            if found is None:
                return new
            shrink *= 0.5
        detail = f"Sweeps leave the feasible set however short their steps. {found.detail}"
        return replace(state, failure=found._replace(detail=detail))

    def _sweep(self, objective: Objective, state: AdamState, shrink: float) -> tuple[AdamState, Failure | None]:
        """Return the state after a sweep at a part of the learning rate, or the same state and why there is none."""
        rate = self.lr * shrink / (math.sqrt(1 + state.sweeps) if self.schedule == "sqrt" else 1.0)
        theta, first, second, updates = state.point.theta, state.first, state.second, state.updates
        n, last = len(objective.pieces(self.n_blocks)), state.current
        for _, piece in self.visits(objective, state.sweeps):
            last = objective.evaluate(theta, blocks=[piece], near=state.current.stats)
            if last.failure is not None:
                return state, last.failure
            g = last.gradient * (n * last.stats.weight / objective.weight)
            updates += 1
            first = self.beta1 * first + (1 - self.beta1) * g
            second = self.beta2 * second + (1 - self.beta2) * g * g
            mean, square = first / (1 - self.beta1**updates), second / (1 - self.beta2**updates)
            theta = theta + rate * mean / (np.sqrt(square) + EPSILON)
            if not all_finite(theta):
                return state, Failure(Status.NON_FINITE, "theta")
        new = monitored(objective, objective.point(theta), last, n)
        if new.failure is not None:
            return state, new.failure
        event = "shortened" if shrink < state.shrink else "fell" if lies_below(new, state.current.value) else "swept"
        return AdamState(
            new.point, new, event=event, info={"lr": rate}, sweeps=state.sweeps + 1,
            first=first, second=second, updates=updates, shrink=shrink,
        ), None  # fmt: skip
