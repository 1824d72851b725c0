"""Conjugate gradients, with the EM step in the place of the gradient.

The EM step is the gradient times a matrix, ``theta_em - theta = P g`` to first order (Xu and Jordan 1996), and that
matrix is what a preconditioner should be: near the top P times the negative Hessian has the eigenvalues 1 - lambda, the
lambdas being the fractions of missing information. EM alone converges like the largest of them; conjugate gradients on
top of it get rid of a few large ones in as many steps. One pass gives both the gradient and the EM step, so a step
costs what its search costs: one or two passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.solvers._base import Solver, State
from emcore.solvers._search import first_step, strong_wolfe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective, Point

    Vector = NDArray[np.float64]

__all__ = ["ConjugateGradient"]

POWELL = 0.2  # Powell (1977): what share of the last generalised gradient may be left in the next
RESTART = 50  # fewest steps between restarts by count
COSINE = 1e-10  # with the gradient: what counts as climbing
ETA = 0.01  # Hager and Zhang (2005)


@dataclass(frozen=True)
class CGState(State):
    """A point of the climb, and the step that led there.

    Attributes
    ----------
    direction, steepest, gradient : ndarray (p,)
        The last direction, and the generalised gradient and the gradient where it began; empty at the start.
    length : float
        The last step along the direction.
    since : int
        Steps since the last restart.
    """

    direction: Vector = field(default_factory=lambda: np.empty(0))
    steepest: Vector = field(default_factory=lambda: np.empty(0))
    gradient: Vector = field(default_factory=lambda: np.empty(0))
    length: float = 1.0
    since: int = 0


@dataclass(frozen=True)
class ConjugateGradient(Solver[CGState]):
    """Conjugate gradients on the EM step (Jamshidian and Jennrich 1993), or on the gradient.

    Parameters
    ----------
    beta : "hz" or "pr+"
        How much of the last direction stays: Hager and Zhang (2005), or Polak and Ribiere, not below zero.
    precondition : bool
        Take the EM step, in the coordinates of the objective, as generalised gradient; the first trial is then the EM
        step itself. Without it the model need not have an EM step.
    c2 : float
        What part of the slope a search may leave, between 0 and 1. At 0.01 searches are nearly exact, and a quadratic
        in p dimensions takes about p steps of two passes each; mixtures take a fifth fewer passes at 0.1.

    Raises
    ------
    ValueError
        When an option is none of these.

    Notes
    -----
    It restarts along the generalised gradient (event "restarted") after max(p, 50) steps, when the new direction does
    not climb, when successive generalised gradients are far from conjugate (Powell 1977) and when a search fails; then
    along the gradient, when the EM step does not climb either.
    """

    name: ClassVar[str] = "cg"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient", "em"})

    beta: str = "hz"
    precondition: bool = True
    c2: float = 0.1

    def __post_init__(self) -> None:
        self._check("beta", words=("hz", "pr+"))
        self._check("precondition", words=(True, False))
        self._check("c2", "a number between 0 and 1", lambda c2: 0 < c2 < 1)
        if not self.precondition:
            object.__setattr__(self, "needs", type(self).needs - {"em"})

    def init(self, objective: Objective, at: Point) -> CGState:
        return CGState(at, objective.evaluate(at))

    def step(self, objective: Objective, state: CGState) -> CGState:
        current = state.current
        g = current.gradient
        z = self._generalised_gradient(current)
        for direction, first, since in self._directions(state, g, z):
            found = strong_wolfe(objective, current, direction, first, c2=self.c2)
            if found.failure is None:
                new = found.evaluation
                return CGState(
                    new.point, new, event="restarted" if state.since and not since else "accepted", info=found.info(),
                    direction=direction, steepest=z, gradient=g, length=found.step, since=since + 1,
                )  # fmt: skip
        return replace(state, failure=found.failure)

    def _generalised_gradient(self, at: Evaluation) -> Vector:
        return at.em_point.theta - at.point.theta if self.precondition else at.gradient

    def _directions(self, state: CGState, g: Vector, z: Vector) -> Iterator[tuple[Vector, float, int]]:
        """Yield the directions to try in turn, with first steps and the number of steps since the last restart."""
        if 0 < state.since < max(g.size, RESTART):
            direction = self._conjugate(state, g, z)
            if direction is not None:
                yield direction, state.length, state.since
        if self.precondition and float(z @ g) > 0:
            yield z, 1.0, 0
        yield g, first_step(g), 0

    def _conjugate(self, state: CGState, g: Vector, z: Vector) -> Vector | None:
        """Return the next conjugate direction, None when it is time for a restart."""
        d, z_old, g_old = state.direction, state.steepest, state.gradient
        zg = float(z @ g)
        if not abs(float(z_old @ g)) < POWELL * zg < math.inf:
            return None
        y = g_old - g
        if self.beta == "pr+":  # Nocedal and Wright (2006), eq. 5.45
            below = float(z_old @ g_old)
            beta = max(0.0, -float(y @ z) / below) if below > 0 else math.nan
        else:
            # Hager and Zhang (2005), for ascent; P y is the fall of the generalised gradient, and
            # unlike theirs P moves, hence the max.
            below = float(d @ y)
            if not below > 0:
                return None
            beta = (2 * max(0.0, float(y @ (z_old - z))) * float(d @ g) / below - float(y @ z)) / below
            size = math.sqrt(float(d @ d) * min(ETA**2, float(z_old @ z_old)))
            beta = max(beta, -1 / size) if size > 0 else math.nan
        if not math.isfinite(beta):
            return None
        direction = z + beta * d
        lengths = math.sqrt(float(direction @ direction) * float(g @ g))
        return direction if float(direction @ g) > COSINE * lengths else None
