"""First-order EM: a gradient step on the expected complete-data log-likelihood instead of its maximum."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.result import Breakdown, Failure, Status, falls, lies_below
from emcore.solvers._base import Solver, State
from emcore.solvers._search import MAX_TRIALS, feasible, first_step

if TYPE_CHECKING:
    from emcore.objective import Evaluation, Objective, Point

__all__ = ["FirstOrderEM"]

POWERS = 30  # of the Hessian of q; the length of the step is off by what is left, a few per cent
APART = 1e-6  # of the points whose gradients are compared, in units of theta


@dataclass(frozen=True)
class FirstOrderState(State):
    """A point of the climb.

    Attributes
    ----------
    length : float
        The constant step; NaN until it is measured.
    """

    length: float = math.nan


@dataclass(frozen=True)
class FirstOrderEM(Solver[FirstOrderState]):
    """First-order EM: ``theta <- theta + step_size * gradient of q``, a constant step.

    Parameters
    ----------
    step_size : "auto" or float
        "auto": one over the largest curvature of q at the start. Where the value would fall, it is measured again, and at
        least halved (event "shortened"): the climb is monotone.
        A number: that step, in the mean log-likelihood and the coordinates of the objective. A step that leaves the
        feasible set is halved until it does not (event "shortened"); one that lowers the value is taken (event "fell").

    Raises
    ------
    ValueError
        When `step_size` is none of these.

    Notes
    -----
    Balakrishnan, Wainwright and Yu (2017), gradient EM. The gradient of q at the point of its statistics is that of the
    log-likelihood (Fisher's identity), so this is gradient ascent; what EM's view adds is the step. Theirs is
    ``2 / (mu + lambda)``, q being mu-smooth and lambda-strongly concave. The log-likelihood bends no more than q does,
    so that ``1 / mu`` climbs. mu is found by power iteration on differences of gradients of q at one set of statistics,
    which need no pass.
    """

    name: ClassVar[str] = "first-order-em"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient"})

    step_size: float | str = "auto"

    def __post_init__(self) -> None:
        self._check_positive("step_size", words=("auto",))

    def init(self, objective: Objective, at: Point) -> FirstOrderState:
        return FirstOrderState(at, objective.evaluate(at))

    def step(self, objective: Objective, state: FirstOrderState) -> FirstOrderState:
        old, auto = state.current, isinstance(self.step_size, str)
        length, trials = state.length, 0
        if math.isnan(length):
            length = _safe_step(objective, old) if auto else float(self.step_size)
        while True:
            found = feasible(objective, old, old.gradient, length)
            trials += found.trials
            if found.failure is not None:
                return replace(state, failure=found.failure)
            new = found.evaluation
            if not (auto and falls(new, old)):
                break
            if trials > MAX_TRIALS:
                failure = Failure(Status.NO_ASCENT, detail=f"{trials} steps, each shorter, lowered the value.")
                return replace(state, failure=failure)
            length = min(_safe_step(objective, old), 0.5 * found.step)
        events = ["shortened"] if trials > 1 else []
        if lies_below(new, old.value):
            events.append("fell")
        info = {"step": found.step, "trials": trials}
        kept = found.step if auto else length
        return FirstOrderState(new.point, new, event=", ".join(events) or "accepted", info=info, length=kept)


def _safe_step(objective: Objective, at: Evaluation) -> float:
    """Return one over the largest curvature of q at a point: no pass."""
    theta, g = at.point.theta, at.gradient
    norm = math.sqrt(float(g @ g))
    if not 0 < norm < math.inf:
        return 1.0
    apart = APART * max(1.0, float(np.abs(theta).max()))
    v, curvature = g / norm, 0.0
    try:
        for _ in range(POWERS):
            bent = (g - objective.gradient(objective.point(theta + apart * v), at.stats)) / apart
            curvature = math.sqrt(float(bent @ bent))
            if not 0 < curvature < math.inf:
                return first_step(g)
            v = bent / curvature
    except Breakdown:  # so close to the edge of the parameter space
        return first_step(g)
    return 1 / curvature
