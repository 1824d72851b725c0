"""How fast EM converges: the largest eigenvalue of the derivative of its map, from a few passes.

Near a fixed point EM is a linear map, ``theta_{t+1} - theta* = DM (theta_t - theta*)``, and DM is the fraction of missing
information: the complete data's information inverted, times the missing. Its action on a direction costs two passes (central
differences of the EM step), and it is symmetric in the inner product of ``P^-1``, the complete information; so
Lanczos' method finds its largest eigenvalue in a few such products. Each basis vector v is kept with its dual ``P^-1 v``,
which the same two passes move along (``P^-1 DM v = P^-1 v + H v``, H v by differences of the gradient): P is never inverted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from emcore.diagnostics._common import (
    SETTLED,
    both_sides,
    evaluated,
    looking,
    number,
    objective_of,
    randomly,
    separable,
    steps_per_digit,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

__all__ = ["Rate", "rate"]

NEAR = 1e-4  # gain of an EM step beyond which P H + I is too far from the derivative of the map
ROUNDING = 1e-9  # error of a product with DM by differences, at least


@dataclass(frozen=True)
class Rate:
    """EM's rate of convergence.

    Attributes
    ----------
    rate : float
        Factor by which EM's error shrinks each step in the end, the largest fraction of missing information. Above 1 at
        a point from which EM moves away (a saddle).
    error : float
        Estimate of its error.
    converged : bool
        Whether the error fell below the tolerance within the passes allowed.
    second : float
        The next eigenvalue, as far as known; NaN if not.
    gain : float
        The rise of the mean log-likelihood that one EM step from here is sure of. It should be about 0: away from a fixed
        point the rate is that of the map there, no more. NaN of an EM map in plain Python.
    shares : mapping of str to float
        How the missing information of the slowest direction is distributed over the blocks of parameters; they sum to 1.
        Empty where the metric is not known, on a boundary and away from a fixed point.
    direction : ndarray
        The slowest direction: in the coordinates of the objective (p,), on a boundary or away from a fixed point in the
        parameters themselves.
    boundary : tuple of str
        Parameters on the boundary, in words: the rate is that of the others.
    passes : float
        Passes over the data this took, counted as monitoring.
    """

    rate: float
    error: float
    converged: bool
    second: float
    gain: float
    shares: Mapping[str, float]
    direction: Vector = field(repr=False)
    boundary: tuple[str, ...]
    passes: float

    @property
    def steps_per_digit(self) -> float:
        """Steps of EM in which its error falls to a tenth; infinite when the rate cannot be told from 1."""
        return steps_per_digit(self.rate) if self.rate < 1 - self.error else math.inf

    @property
    def settled(self) -> bool:
        """Whether the point is near enough to a fixed point for the rate to mean what it says."""
        return self.rate < 1 and self.gain <= SETTLED * (1 - self.rate)

    def lines(self) -> list[str]:
        """Return the summary, line by line."""
        digits = min(8, max(4, 2 - math.floor(math.log10(max(1 - self.rate, 1e-8))))) if self.rate < 1 else 4
        says = f"{self.rate:.{digits}f} +- {self.error:.0e} ({self.passes:g} passes)"
        out = [f"EM's rate of convergence {says}: {number(self.steps_per_digit)} steps a digit"]
        if self.shares and self.rate > 1e-3:
            parts = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
            out.append(f"  its slowest direction, by information: {parts}")
        if not self.converged:
            out.append("  not resolved to the tolerance: the rate is probably larger; allow more passes")
        if self.rate >= 1 + 10 * self.error:
            out.append("  above 1: EM moves away from here, this is a saddle or no solution")
        elif not self.settled and not math.isnan(self.gain):
            out.append(f"  not at a fixed point (one EM step still gains {self.gain:.0e}): the rate of the map here")
        out += [f"  at the boundary: {where}: the rate is that of the other parameters" for where in self.boundary]
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())


def rate(of: Any, at: Any = None, *, passes: int = 100, tol: float = 1e-5, random_state: int = 0) -> Rate:
    """Return EM's rate of convergence at (near) a fixed point: the largest eigenvalue of the derivative of the EM map.

    Parameters
    ----------
    of : Fit or Objective
        A fit stands for its objective and its last point, an objective is capable of "em".
    at : Point, Evaluation or array_like (p,), optional
        By default the point of the fit.
    passes : int
        Budget. About 10 are used on easy problems, 30 to 60 on hard ones with hundreds of parameters.
    tol : float
        Stop when the error of the rate is estimated below this, and below a thousandth of ``1 - rate``.
    random_state : int
        Seed of the first direction.

    Returns
    -------
    Rate

    Raises
    ------
    ValueError
        When the value is not finite there, the objective has no EM map, or the budget is below 3 passes.

    Notes
    -----
    ``DM = I - I_c^-1 I_o``, whose eigenvalues are fractions of missing information: Dempster, Laird and Rubin (1977),
    theorem 4. Where the metric P is not known or not the inverse of I_c (parts of a mean are fixed under a full covariance),
    and on a boundary, where it is degenerate, the same iteration runs with the Euclidean inner product (Arnoldi's method),
    in the parameters themselves. The error of an eigenvalue is estimated as its residual, or as the square of that over the
    gap to the next eigenvalue where the inner product makes DM symmetric.
    """
    objective, at = objective_of(of, at, maps=True)
    if not passes >= 3:
        raise ValueError(f"passes must be at least 3, got {passes!r}")
    if not tol > 0:
        raise ValueError(f"tol must be positive, got {tol!r}")
    with looking(objective, {"em"}, "EM's rate of convergence"):
        spent = objective.monitor_passes
        current = evaluated(objective, at)
        gain, point = current.gain, current.point
        boundary = objective.boundary(point)
        dual = {"gradient", "metric"} <= objective.capabilities and separable(objective) and not boundary and gain <= NEAR
        moves = _Coordinates(objective, point) if dual or not hasattr(objective, "model") else _Parameters(objective, point)
        steps = max(1, min(objective.size, (passes - 1) // 2))

        z = randomly(objective, point, random_state, 1)[:, 0]
        v = current.precondition(z) if dual else moves.direction(z)
        z = z if dual else v
        size = math.sqrt(z @ v)
        V, Z = [v / size], [z / size]
        T = np.zeros((steps + 1, steps))
        found, second, error, converged = 0.0, math.nan, math.inf, False
        mix = np.ones(1)
        for j in range(steps):
            plus, minus, h = both_sides(objective, lambda h, v=V[j]: moves.to(h * v))
            w = (moves.of(plus.em_point) - moves.of(minus.em_point)) / (2 * h)
            q = Z[j] + (plus.gradient - minus.gradient) / (2 * h) if dual else w
            for _ in range(2):
                c, c_dual = np.array(Z) @ w, np.array(V) @ q
                T[: j + 1, j] += c
                w, q = w - c @ np.array(V), q - c_dual @ np.array(Z)
            beta = math.sqrt(max(float(q @ w), 0.0))
            found, second, mix = _top(T[: j + 1, : j + 1])
            residual = beta * abs(mix[-1])
            gap = found - second if dual and j > 0 else 0.0
            error = (min(residual, residual**2 / gap) if gap > 0 else residual) + ROUNDING
            converged = error <= max(min(tol, 1e-3 * abs(1 - found)), 2 * ROUNDING)
            if beta <= 10 * ROUNDING and np.linalg.norm(w) > 1e3 * ROUNDING * np.linalg.norm(V[j]):
                break  # P and the map disagree: this is no fixed point
            if converged or beta <= 10 * ROUNDING or j + 1 == objective.size:
                converged = True
                break
            T[j + 1, j] = beta
            V.append(w / beta)
            Z.append(q / beta)
        spent = objective.monitor_passes - spent
    direction = mix @ np.array(V[: len(mix)])
    found = 0.0 if abs(found) <= 10 * ROUNDING else float(found)
    fixed = gain <= SETTLED * abs(1 - found)
    return Rate(
        rate=found,
        error=float(error),
        converged=bool(converged),
        second=float(second),
        gain=gain,
        shares=_shares(objective, direction, mix @ np.array(Z[: len(mix)])) if dual and fixed else {},
        direction=direction,
        boundary=boundary,
        passes=spent,
    )


class _Coordinates:
    """Moves from a point in the coordinates of the objective."""

    def __init__(self, objective: Any, at: Any):
        self.objective, self.at = objective, at

    def direction(self, v: Vector) -> Vector:
        """Return a direction of coordinates as one to move in."""
        return v

    def to(self, v: Vector) -> Any:
        """Return the point that is v away."""
        return self.objective.point(self.at.theta + v)

    def of(self, point: Any) -> Vector:
        """Return where a point is."""
        return point.theta


class _Parameters(_Coordinates):
    """Moves from a point in the parameters themselves: M-steps land exactly on a boundary, which no chart reaches."""

    def direction(self, v: Vector) -> Vector:
        return self._flat(self.objective.coordinates.push(self.at.theta, self.at.params, v))

    def to(self, v: Vector) -> Any:
        params, parts = self.at.params, np.split(v, np.cumsum([x.size for x in self.at.params])[:-1])
        return self.objective.point_of(type(params)(*(x + p.reshape(x.shape) for x, p in zip(params, parts, strict=True))))

    def of(self, point: Any) -> Vector:
        return self._flat(point.params)

    @staticmethod
    def _flat(params: Any) -> Vector:
        return np.concatenate([x.ravel() for x in params])


def _top(T: NDArray[np.float64]) -> tuple[float, float, Vector]:
    """Return the two largest eigenvalues of T and the unit eigenvector of the first."""
    values, vectors = np.linalg.eig(T)
    order = np.argsort(values.real)[::-1]
    mix = vectors[:, order[0]].real
    return float(values[order[0]].real), float(values[order[1]].real) if len(order) > 1 else math.nan, mix / np.linalg.norm(mix)


def _shares(objective: Any, direction: Vector, dual: Vector) -> dict[str, float]:
    """Return the share of each block in ``direction' P^-1 direction``."""
    total = float(direction @ dual)
    return {name: float(direction[s] @ dual[s]) / total for name, s in objective.coordinates.slices.items() if s.stop > s.start}
