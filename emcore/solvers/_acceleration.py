"""What the accelerators of the EM map share: the safeguard, the EM step behind it, combinations of earlier steps.

An accelerator looks for the fixed point of M, the EM map, in the coordinates theta, from a few values of it. It proposes a
point of its own; one pass there gives both the value, which decides whether the proposal stands, and the EM step from it, which
is all that the next proposal needs. So the safeguard costs a pass only where it refuses: then the EM step is taken, which
cannot lower the value.

Where the value is not concave (between two optima, near a saddle) the fixed point that a secant points to lies behind. A
proposal against the EM step is therefore refused before it costs a pass. And a value may fall a little on the way: the slack
of a climb is what all falls together may come to, so that they end.

Three things are normal here and raise nothing: a proposal outside of the parameter space, one whose value is not finite,
one from which there is no EM step. Each is refused.

Where an objective has no value (an EM map alone) the length of the EM step takes its place: a proposal stands when
its own EM step is not much longer than the one before. It need not become shorter at every step, not even for EM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from emcore._vectors import all_finite
from emcore.result import Breakdown, in_doubt
from emcore.solvers._base import State, replace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective, Point

    Vector = Array = NDArray[np.float64]

__all__ = [
    "ACCEPTED", "FELL_BACK", "RESTARTED", "RIDGE", "Accelerated", "Secants", "advanced", "begin", "below", "combine", "goes_on",
    "latest", "propose", "remember",
]  # fmt: skip

ACCEPTED, FELL_BACK, RESTARTED = "accepted", "fell back", "restarted"

C1 = 1e-4  # part of the rise that the EM step is sure of that a proposal must deliver, so that none creeps
LONGER = 100.0  # without a value: how much longer than the last EM step that of a proposal may be
RIDGE = 1e-14  # of the squares of unit columns: what is below it in a least-squares problem is rounding


@dataclass(frozen=True)
class Accelerated(State):
    """A point of the climb.

    Attributes
    ----------
    least : float
        The value at the start: no accepted point lies below.
    slack : float
        How far proposals may still lower the value, all together, per unit of weight.
    """

    least: float = -math.inf
    slack: float = 0.0


@dataclass(frozen=True)
class Secants(Accelerated):
    """A point of the climb, with differences of earlier points and of the EM steps from them, oldest first.

    Attributes
    ----------
    X, F : ndarray (m, p)
        Changes of theta, and the changes of the EM step ``M(theta) - theta`` that went with them.
    """

    X: Array = field(default_factory=lambda: np.empty((0, 0)))
    F: Array = field(default_factory=lambda: np.empty((0, 0)))


def begin(kind: type[Any], objective: Objective, at: Point, *, slack: float = 0.0, **more: Any) -> Any:
    """Return the state at the start, of this kind: one pass. The slack is one of the log-likelihood's sum."""
    current = objective.evaluate(at)
    return kind(at, current, least=current.value, slack=slack / objective.weight, **more)


def advanced(state: Any, new: Evaluation, event: str, **more: Any) -> Any:
    """Return the state at a new point; what the value fell by is taken off the slack."""
    fall = state.current.value - new.value
    slack = max(state.slack - fall, 0.0) if fall > 0 else state.slack
    return replace(state, point=new.point, current=new, event=event, slack=slack, **more)


def latest(at: Evaluation) -> Vector:
    """Return the EM step ``M(theta) - theta`` from where the evaluation was made, (p,)."""
    return at.em_point.theta - at.point.theta


def propose(
    objective: Objective,
    state: Accelerated,
    theta: Vector,
    over: Evaluation | None = None,
    *,
    ahead: bool = False,
    longer: float = LONGER,
) -> Evaluation | None:
    """Return the evaluation at a proposal, one pass at most, or None where it does not stand.

    Parameters
    ----------
    objective : Objective
    state : Accelerated
    theta : ndarray (p,)
    over : Evaluation, optional
        That of the point which it is to be better than; that of the state unless given.
    ahead : bool
        Whether an EM step follows in any case, so that what this is sure to add counts already.
    longer : float
        How much longer its EM step may be, where there is no value.
    """
    over = over or state.current
    if not 0 < float((theta - over.point.theta) @ latest(over)) < math.inf:  # nor where it is not finite
        return None
    trial = objective.evaluate(theta)
    if trial.failure is not None or not goes_on(trial):
        return None
    if "value" not in objective.capabilities:
        step, before = latest(trial), latest(over)
        return trial if float(step @ step) <= longer**2 * float(before @ before) else None
    asked = max(over.value + C1 * _sure(over) - state.slack, state.least)
    if trial.value >= asked:  # what else may speak for it takes time
        return trial
    more = _sure(trial) if ahead else 0.0
    return trial if trial.value + more >= asked - in_doubt(trial, over) else None


def _sure(at: Evaluation) -> float:
    """Return the rise that the EM step from here is sure of, 0 where it is not known."""
    try:
        return at.gain if math.isfinite(at.gain) else 0.0
    except Breakdown:
        return 0.0


def goes_on(at: Evaluation) -> bool:
    """Tell whether there is an EM step from here; where not, the point stands all the same, and the loop says why it ends."""
    try:
        return all_finite(latest(at))
    except Breakdown:
        return False


def remember(state: Secants, new: Evaluation, f: Vector, most: int) -> tuple[Array, Array]:
    """Return X and F with the last step added, f being the EM step before it, and no more than the `most` latest."""
    if not goes_on(new):
        return state.X, state.F
    return below(state.X, new.point.theta - state.point.theta)[-most:], below(state.F, latest(new) - f)[-most:]


def below(rows: Array, last: Vector) -> Array:
    """Return rows (m, p) with one more, in half the time of `numpy.vstack`."""
    return np.concatenate((rows, last[None]))


def combine(current: Evaluation, X: Array, F: Array, gamma: Vector) -> Vector:
    """Return ``theta + f - (X + F)' gamma``: the EM step, corrected by earlier ones; (p,)."""
    return current.em_point.theta - gamma @ (X + F)
