"""Observed information without exact second derivatives: Oakes' formula and SEM, by differences of what passes give.

Both look at how something moves when only the statistics, or only EM's map, do. They need no Hessian products, so that they
check those of a model, and stand in where it has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from emcore._cached import cached_property
from emcore.diagnostics._common import STEP, both_sides, check_inside, evaluated, looking, number, objective_of, tangent
from emcore.diagnostics.information import Information, informed
from emcore.objective import MapObjective

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Vector = Matrix = NDArray[np.float64]

__all__ = ["SEM", "oakes", "sem"]

ASYMMETRIC = 1e-4  # of the information that SEM finds, relative: what is more is no rounding


@dataclass(frozen=True)
class SEM:
    """The derivative of EM's map at a fixed point, and what follows.

    Attributes
    ----------
    DM : ndarray (r, r)
        ``DM[i, j]`` is the derivative of the map's coordinate i with respect to coordinate j, in the basis. (Meng and Rubin
        write its transpose.)
    basis : ndarray (p, r)
        Of the directions that respect the constraints, orthonormal; the identity in free coordinates and of a map.
    complete : ndarray (r, r) or None
        The complete data's information, summed over the data; None where it is not known.
    residual : float
        Length of the EM step from the point: 0 at a fixed point.
    information : Information or None
        Of a model: what `emcore.diagnostics.information` returns, as SEM finds it.
    passes : float
        Passes over the data, or calls of the map, that this took.
    """

    DM: Matrix = field(repr=False)
    basis: Matrix = field(repr=False)
    complete: Matrix | None = field(repr=False)
    residual: float
    information: Information | None = field(repr=False)
    passes: float

    @cached_property
    def fractions(self) -> Vector:
        """The eigenvalues of DM (r,), ascending: fractions of missing information, EM's rates, at a solution."""
        return np.sort(np.linalg.eigvals(self.DM).real)

    @property
    def rate(self) -> float:
        """EM's rate of convergence: the largest of the fractions."""
        return float(self.fractions[-1])

    @property
    def observed(self) -> Matrix:
        """The observed information ``I_c (I - DM)``, (r, r), as it comes out: symmetric but for errors.

        Raises
        ------
        ValueError
            When the complete data's information is not known.
        """
        if self.complete is None:
            raise ValueError("complete: the complete data's information is not known; give it by sem(..., complete=)")
        return self.complete @ (np.eye(len(self.DM)) - self.DM)

    @property
    def asymmetry(self) -> float:
        """The largest difference of `observed` from its transpose, relative: Meng and Rubin's check on the numbers."""
        found = self.observed
        return float(np.abs(found - found.T).max() / np.abs(found).max())

    def covariance(self) -> Matrix:
        """Return the covariance of the estimates in the coordinates, (p, p): ``(I - DM)^-1 I_c^-1``.

        Raises
        ------
        ValueError
            When the complete data's information is not known, or this is no strict maximum.
        """
        found = self.observed
        try:
            L = np.linalg.cholesky(0.5 * (found + found.T))
        except np.linalg.LinAlgError:
            raise ValueError("at: no strict maximum, where alone estimates have standard errors") from None
        F = self.basis @ np.linalg.inv(L).T
        return F @ F.T

    def standard_errors(self) -> Vector:
        """Return the standard errors of the coordinates (p,); of a model's parameters: ``sem(fit).information``.

        Raises
        ------
        ValueError
            As `covariance`.
        """
        return np.sqrt(np.diag(self.covariance()))

    def lines(self) -> list[str]:
        """Return the summary, line by line."""
        out = [
            f"EM's map: rate {self.rate:.6f}, EM step of length {self.residual:.1e} ({self.passes:g} passes)",
            f"  fractions of missing information: {', '.join(map(number, self.fractions[::-1][:6]))}"
            + (f", and {len(self.DM) - 6} smaller" if len(self.DM) > 6 else ""),
        ]
        if self.rate >= 1:
            out.append("  no maximum: EM moves away from here, or does not move at all in some direction")
        if self.complete is not None and self.asymmetry > ASYMMETRIC:
            out.append(f"  the information is asymmetric by {self.asymmetry:.0e}: no fixed point, or a rough map")
        if self.information is not None:
            return out + self.information.lines()
        if self.complete is not None:
            try:
                out.append(f"  standard errors: {', '.join(map(number, self.standard_errors()))}")
            except ValueError as error:
                out.append(f"  no standard errors: {str(error).removeprefix('at: ')}")
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())


def sem(of: Any, at: Any = None, *, complete: ArrayLike | None = None, step: float = STEP) -> SEM:
    """Return the derivative of EM's map at a solution, and the observed information that follows from it.

    Parameters
    ----------
    of : Fit, Objective or callable
        A fit, or a result of `emcore.accelerate`, stands for its objective and its last point. A callable is an EM map as of
        `emcore.accelerate`: it takes theta (p,) and returns where EM goes from there.
    at : Point, Evaluation or array_like (p,), optional
        A fixed point of the map; by default the point of the fit. A map takes coordinates, or a result of
        `emcore.accelerate`.
    complete : array_like (p, p), optional
        The complete data's information there, of a map: minus the second derivatives of the expected complete-data
        log-likelihood, summed over the data. A model has its own.
    step : float
        Of the differences: a part of one standard deviation of the complete data, or of the size of each coordinate.

    Returns
    -------
    SEM

    Raises
    ------
    ValueError
        When the map or the log-likelihood is not finite there, a parameter sits on the boundary, `step` is not positive, or
        `complete` is no symmetric matrix or comes with a model.
    TypeError
        When `of` is none of these.

    Notes
    -----
    Supplemented EM (Meng and Rubin 1991): ``I_o = I_c (I - DM)``. They take the rows of DM along EM's path; here they are
    central differences at the solution, two passes or calls a coordinate, whose error is of the second order in the step.
    """
    step = _checked(step)
    if callable(of) and not hasattr(of, "evaluate"):
        theta = np.asarray(getattr(at, "theta", at), dtype=np.float64) if at is not None else np.empty(0)
        if theta.ndim != 1 or not theta.size or not np.isfinite(theta).all():
            raise ValueError("at must be the coordinates (p,) of a fixed point, finite, for an EM map")
        of, at = MapObjective(of, size=len(theta)), theta
    elif not (hasattr(of, "evaluate") or hasattr(of, "evaluation")):
        raise TypeError(f"of must be a fit, an objective or an EM map, got a {type(of).__name__}")
    objective, at = objective_of(of, at, maps=True)
    with looking(objective, {"em"}, "SEM"):
        spent = objective.monitor_passes
        current = evaluated(objective, at)
        check_inside(objective, current)
        E, scale = _directions(objective, current)
        known = None if hasattr(objective, "model") else _as_information(complete, len(E))
        if complete is not None and hasattr(objective, "model"):
            raise ValueError("complete: a model knows its own; give it with an EM map only")
        moved, curved = np.empty((E.shape[1],) * 2), np.empty((E.shape[1],) * 2)
        second = "gradient" in objective.capabilities
        for j, (e, s) in enumerate(zip(E.T, scale, strict=True)):
            plus, minus, h = both_sides(objective, lambda h, v=s * e: current.point.theta + h * v, step)
            moved[:, j] = E.T @ (plus.em_point.theta - minus.em_point.theta) / (2 * h * s)
            if second:
                curved[:, j] = _slope(objective, (plus.point, current.stats), (minus.point, current.stats), E) / (2 * h * s)
        residual = float(np.linalg.norm(current.em_point.theta - current.point.theta))
        info = None
        if second:
            known = -0.5 * current.stats.weight * (curved + curved.T)
            info = informed(objective, current, E, known @ (np.eye(len(known)) - moved), known)
        return SEM(moved, E, known, residual, info, objective.monitor_passes - spent)


def oakes(of: Any, at: Any = None, *, step: float = STEP) -> Information:
    """Return observed and complete information by Oakes' formula, both of its terms by differences.

    Parameters
    ----------
    of : Fit or ModelObjective
        A fit stands for its objective and its last point.
    at : Point, Evaluation or array_like (p,), optional
        By default the point of the fit.
    step : float
        Of the differences: a part of one standard deviation of the complete data.

    Returns
    -------
    Information
        As of `emcore.diagnostics.information`, which is exact; the error of this one is of the second order in the step,
        and it is there for models without Hessian products too.

    Raises
    ------
    ValueError
        When the model gives no gradient, the value is not finite there, a parameter sits on the boundary, or `step` is not
        positive.
    TypeError
        When `of` is none of these, or of an EM map, which has no gradient.

    Notes
    -----
    Oakes (1999): ``Hess l(theta) = d^2 q / d theta'^2 + d^2 q / d theta' d theta`` at ``theta' = theta``, where
    ``q(theta' | theta)`` is the expected complete-data log-likelihood. The second term moves the statistics alone and takes
    two passes a parameter, the first moves the parameters alone and takes none.
    """
    step = _checked(step)
    objective, at = objective_of(of, at)
    with looking(objective, {"gradient", "em"}, "Oakes' formula"):
        current = evaluated(objective, at)
        check_inside(objective, current)
        point, stats = current.point, current.stats
        E, scale = _directions(objective, current)
        curved, cross = np.empty((E.shape[1],) * 2), np.empty((E.shape[1],) * 2)
        for j, (e, s) in enumerate(zip(E.T, scale, strict=True)):
            plus, minus, h = both_sides(objective, lambda h, v=s * e: point.theta + h * v, step)
            curved[:, j] = _slope(objective, (plus.point, stats), (minus.point, stats), E) / (2 * h * s)
            cross[:, j] = _slope(objective, (point, plus.stats), (point, minus.stats), E) / (2 * h * s)
        return informed(objective, current, E, -stats.weight * (curved + cross), -stats.weight * curved)


def _checked(step: Any) -> float:
    if isinstance(step, bool) or not isinstance(step, (int, float, np.number)) or not 0 < step < math.inf:
        raise ValueError(f"step must be a positive number, got {step!r}")
    return float(step)


def _as_information(complete: Any, p: int) -> Matrix | None:
    """Return the complete data's information that was given, or raise."""
    if complete is None:
        return None
    found = np.array(complete, dtype=np.float64)
    if found.shape != (p, p) or not np.isfinite(found).all() or not np.allclose(found, found.T, rtol=1e-6, atol=0):
        raise ValueError(f"complete must be a finite symmetric matrix ({p}, {p}), got an array of shape {found.shape}")
    return found


def _directions(objective: Any, current: Any) -> tuple[Matrix, Vector]:
    """Return the basis (p, r) in which to move, and how far is far along each of it, (r,)."""
    E = tangent(objective, current.point)
    if "metric" in objective.capabilities:
        return E, np.sqrt(np.sum(E * current.precondition(E), axis=0))
    size = np.abs(E.T @ current.point.theta)
    return E, np.where(size > 0, size, 1.0) if not hasattr(objective, "model") else np.ones(E.shape[1])


def _slope(objective: Any, plus: tuple[Any, Any], minus: tuple[Any, Any], E: Matrix) -> Vector:
    """Return the difference of q's gradient between two pairs of a point and statistics, in the basis E."""
    return E.T @ (objective.gradient(*plus) - objective.gradient(*minus))
