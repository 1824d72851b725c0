"""What EM's P does to the shape of the hill: the condition number of the Hessian before and after it.

Gradient ascent crawls where the Hessian H of the log-likelihood is badly conditioned. EM climbs the same hill in other
coordinates, in which the Hessian is ``P^1/2 H P^1/2``; at a solution the eigenvalues of ``-P H`` are the fractions of
information that is not missing, all in (0, 1], and ``1 - rate`` is the smallest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emcore.diagnostics._common import (
    SETTLED,
    both_sides,
    evaluated,
    looking,
    number,
    objective_of,
    separable,
    steps_per_digit,
    tangent,
)
from emcore.diagnostics.rate import Rate, rate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

__all__ = ["Condition", "Prediction", "condition"]

FLAT = 1e-8  # an eigenvalue of -PH below this cannot be told from 0 by differences


class Prediction(NamedTuple):
    """What theory says of a method near the solution.

    method : what is run
    rate : factor of the error a step (for conjugate gradients a bound)
    steps : steps in which the error falls to a tenth
    passes : the same in passes over the data
    """

    method: str
    rate: float
    steps: float
    passes: float


@dataclass(frozen=True)
class Condition:
    """Condition number of the Hessian at a solution, before and after EM's P.

    Attributes
    ----------
    before : float
        Of ``-H`` in the coordinates of the objective, in frame units (it depends on both; with columns of very different
        units it would be far larger); NaN when not known.
    after : float
        Of ``P^1/2 (-H) P^1/2`` (the same in all coordinates); NaN when not known.
    bound : bool
        True when there are too many parameters for a dense Hessian: `after` is then the upper bound ``1 / (1 - rate)``.
    definite : bool
        Whether the Hessian is negative definite, so that this is a strict maximum; without it condition numbers mean
        nothing and are NaN.
    note : str
        What to know about the point: not a maximum, not a solution, on a boundary. Empty when all is well.
    eigenvalues, eigenvalues_after : ndarray (r,)
        Of ``-H`` on the tangent of the constraints, and of ``-P H``, ascending; empty when not computed.
    rate : float
        EM's rate of convergence, ``1 - min(eigenvalues_after)`` (where parts of a mean are fixed, `rate` of it).
    coordinates : str
    boundary : tuple of str
        The parameters that sit on the boundary of the parameter space, in words.
    passes : float
        Passes over the data this took, counted as monitoring.
    """

    before: float
    after: float
    bound: bool
    definite: bool
    note: str
    eigenvalues: Vector = field(repr=False)
    eigenvalues_after: Vector = field(repr=False)
    rate: float
    coordinates: str
    boundary: tuple[str, ...]
    passes: float

    @property
    def predictions(self) -> tuple[Prediction, ...]:
        """What theory says of EM, gradient ascent at its best constant step, and conjugate gradients, with and without P.

        A step of conjugate gradients is counted as two passes (its line search), all others as one.
        """
        if not self.definite:
            return ()
        ways = [("EM", self.rate, 1)]
        for kappa, suffix in ((self.before, ""), (self.after, " with EM's P")):
            root = math.sqrt(kappa)
            ways.append((f"gradient ascent{suffix}", (kappa - 1) / (kappa + 1), 1))
            ways.append((f"conjugate gradients{suffix}", (root - 1) / (root + 1), 2))
        return tuple(Prediction(name, r, s := steps_per_digit(r), cost * s) for name, r, cost in ways if not math.isnan(r))

    def prediction(self, method: str) -> Prediction | None:
        """Return the prediction for a method, None when there is none."""
        return next((p for p in self.predictions if p.method == method), None)

    def lines(self) -> list[str]:
        """Return the summary, line by line."""
        out = []
        if self.definite:
            if self.bound:
                text = f"not measured (too many parameters), at most {number(self.after)} after EM's P"
            else:
                text = f"{number(self.before)} in {self.coordinates} coordinates, {number(self.after)} after EM's P"
            out.append(f"Condition number of the Hessian {text} ({self.passes:g} passes)")
            out.append(f"  {'near the solution':<36}{'rate':>10}{'steps a digit':>15}{'passes a digit':>16}")
            out += [f"  {p.method:<36}{p.rate:>10.4f}{number(p.steps):>15}{number(p.passes):>16}" for p in self.predictions]
        else:
            out.append(f"The Hessian has no condition number here ({self.passes:g} passes)")
        if self.note:
            out.append(f"  {self.note}")
        out += [f"  at the boundary: {where}" for where in self.boundary]
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())


def condition(of: Any, at: Any = None, *, limit: int = 200, known: Rate | None = None) -> Condition:
    """Return the condition number of the Hessian before and after EM's P at a solution, and what follows for solvers.

    Parameters
    ----------
    of : Fit or Objective
        A fit stands for its objective and its last point, an objective is capable of "em", "gradient" and "metric".
    at : Point, Evaluation or array_like (p,), optional
        A solution, by default the point of the fit. With ``coordinates="original"`` the Hessian is restricted to the tangent
        of the constraints.
    limit : int
        Up to so many parameters the Hessian is built, dense, by central differences of the gradient: two passes each.
        Beyond it only the bound ``after <= 1 / (1 - rate)`` is given, from EM's rate.
    known : Rate, optional
        EM's rate at this point if known already; used beyond `limit` only.

    Returns
    -------
    Condition

    Raises
    ------
    ValueError
        When the value is not finite there, the objective lacks one of these, or `limit` is negative. Inside the parameter space
        and up to `limit` parameters, where P is built, also when it is not positive definite.
    TypeError
        When `of` is none of these, or of an EM map, which has no gradient.

    Notes
    -----
    Xu and Jordan (1996): near a solution EM is gradient ascent with unit step on the log-likelihood with Hessian
    ``P^1/2 H P^1/2`` (``E' H E`` in the place of H for the constraint on the weights). P is built column by column from
    ``Evaluation.precondition``, without a pass. Steepest ascent with the best constant step has rate ``(k - 1)/(k + 1)``,
    conjugate gradients at most ``(sqrt k - 1)/(sqrt k + 1)``: Nocedal and Wright (2006), chapters 3 and 5.
    """
    objective, at = objective_of(of, at)
    if not limit >= 0:
        raise ValueError(f"limit must be a whole number >= 0, got {limit!r}")
    with looking(objective, {"em", "gradient", "metric"}, "the condition number"):
        spent = objective.monitor_passes
        current = evaluated(objective, at)
        point = current.point
        boundary, kind = objective.boundary(point), objective.coordinates.kind
        if boundary:
            note = "EM steps exactly onto the boundary, where the gradient need not vanish; free coordinates only approach it."
            return _nothing(note, kind, boundary, objective.monitor_passes - spent)
        if objective.size <= limit:
            E = tangent(objective, point)
            P = E.T @ current.precondition(E)
            P = 0.5 * (P + P.T)
            root = _root(P)
            scale = np.sqrt(np.diag(P))  # one standard deviation of the complete data along each direction
            H = np.empty_like(P)
            for j, e in enumerate(E.T):
                plus, minus, h = both_sides(objective, lambda h, v=scale[j] * e: point.theta + h * v)
                H[:, j] = E.T @ (plus.gradient - minus.gradient) / (2 * h * scale[j])
    if objective.size > limit:
        return _bounded(objective, current, known, spent)

    H = 0.5 * (H + H.T)
    before = np.linalg.eigvalsh(-H)
    after = np.linalg.eigvalsh(root.T @ -H @ root)
    definite = bool(after[0] > FLAT and before[0] > 0)
    em_rate = float(np.abs(1 - after).max()) if separable(objective) else rate(objective, current).rate
    note = ""
    if after[0] < -FLAT:
        uphill = int((after < -FLAT).sum())
        note = f"Not a maximum: the log-likelihood curves upwards in {uphill} of {len(after)} directions."
    elif not definite:
        note = "The log-likelihood is flat in some direction: its maximum is not a single point."
    elif current.gain > SETTLED * after[0]:
        note = f"Not at a solution: one EM step still gains {current.gain:.0e} per unit of weight."
    return Condition(
        before=float(before[-1] / before[0]) if definite else math.nan,
        after=float(after[-1] / after[0]) if definite else math.nan,
        bound=False,
        definite=definite,
        note=note,
        eigenvalues=before,
        eigenvalues_after=after,
        rate=em_rate,
        coordinates=kind,
        boundary=boundary,
        passes=objective.monitor_passes - spent,
    )


def _root(P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Cholesky factor of P."""
    try:
        if np.isfinite(P).all():
            return np.linalg.cholesky(P)
    except np.linalg.LinAlgError:
        pass
    raise ValueError("at: P, the metric of the EM step, is not positive definite there: the condition number is not defined")


def _nothing(note: str, kind: str, boundary: tuple[str, ...], passes: float, em_rate: float = math.nan) -> Condition:
    """Return what is left to say where the Hessian tells nothing."""
    empty = np.empty(0)
    return Condition(math.nan, math.nan, False, False, note, empty, empty, em_rate, kind, boundary, passes)


def _bounded(objective: Any, current: Any, known: Rate | None, spent: float) -> Condition:
    """Return the bound that EM's rate gives: the eigenvalues of -PH lie between 1 - rate and 1."""
    known = rate(objective, current) if known is None else known
    kind, passes = objective.coordinates.kind, objective.monitor_passes - spent
    if not known.rate < 1:
        return _nothing("Not a maximum: EM moves away from here.", kind, known.boundary, passes, known.rate)
    notes = []
    if not known.converged:
        notes.append("EM's rate is not resolved: the bound may be too small.")
    if not known.settled:
        notes.append(f"Not at a solution: one EM step still gains {known.gain:.0e} per unit of weight.")
    empty = np.empty(0)
    return Condition(
        before=math.nan, after=1 / (1 - max(known.rate, 0.0)), bound=True, definite=True, note=" ".join(notes),
        eigenvalues=empty, eigenvalues_after=empty, rate=max(known.rate, 0.0), coordinates=kind,
        boundary=known.boundary, passes=passes,
    )  # fmt: skip
