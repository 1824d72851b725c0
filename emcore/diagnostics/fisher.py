"""Fisher's identity, looked at: the gradient that one pass gives, against differences of the log-likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from emcore.diagnostics._common import evaluated, looking, objective_of, project, randomly, tangent

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]

__all__ = ["Fisher", "fisher"]

EPS = float(np.finfo(float).eps)
TOLERANCE = 1e-8
LIMIT, SAMPLE = 200, 50  # up to LIMIT parameters every direction is looked at, beyond it SAMPLE random ones
FIRST, LEVELS = 0.05, 20  # largest first step of the extrapolation, and how often it is halved
SHORT = 0.3  # the first step is at most this many standard deviations of the complete data
ENOUGH, GOOD = 1e-11, 1e-9  # relative errors at which halving ends: at once, and when the error grows again


@dataclass(frozen=True)
class Fisher:
    """How well the gradient of one pass agrees with differences of the value.

    Attributes
    ----------
    error : float
        ``|difference - slope| / |slope|`` over all directions together (Euclidean norms).
    absolute : float
        Its numerator.
    uncertainty : float
        The error of the differences themselves, as the extrapolation estimates it. At a solution, where the gradient
        vanishes, `absolute` is to be compared with this.
    worst : str
        The parameter that the worst direction changes most.
    slopes, differences : ndarray (m,)
        Slope of the mean log-likelihood along each unit direction: by Fisher's identity, and by differences.
    passes : float
        Passes over the data this took, counted as monitoring.
    score_error : float
        What the model says of the error of its score, where that is a difference quotient too; 0 elsewhere.
    """

    error: float
    absolute: float
    uncertainty: float
    worst: str
    slopes: Vector = field(repr=False)
    differences: Vector = field(repr=False)
    passes: float
    score_error: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the relative error is at most 1e-8, or explained by those of differences and score while these are good."""
        good = max(TOLERANCE, 1e-6 * float(np.linalg.norm(self.slopes)))
        return self.error <= TOLERANCE or self.absolute <= 10 * self.uncertainty + 3 * self.score_error <= good

    def lines(self) -> list[str]:
        """Return the summary, line by line."""
        says = "holds" if self.holds else f"FAILS, worst for {self.worst}"
        score = f", the score itself, differenced, to {self.score_error:.0e}" if self.score_error else ""
        return [
            f"Fisher's identity {says}: gradient of one pass against central differences of the log-likelihood,",
            f"  relative error {self.error:.1e} in {len(self.slopes)} directions (differences are good to "
            f"{self.uncertainty:.0e}{score}, slopes have norm {np.linalg.norm(self.slopes):.1e}; {self.passes:g} passes)",
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def fisher(
    of: Any,
    at: Any = None,
    *,
    directions: int | ArrayLike | None = None,
    step: float | None = None,
    random_state: int = 0,
) -> Fisher:
    """Return the relative error of the gradient against central differences of the value.

    Parameters
    ----------
    of : Fit or Objective
        A fit stands for its objective and its last point.
    at : Point, Evaluation or array_like (p,), optional
        By default the point of the fit.
    directions : int or array_like (m, p), optional
        How many random directions, or which; by default all coordinates up to 200 parameters, beyond that 50 random ones.
        Directions are projected on the tangent of the constraints.
    step : float, optional
        Step of sixth-order central differences. By default the step is halved (from 0.05, or 0.3
        standard deviations of the complete data) and extrapolated to 0 until the error no longer falls: about ten passes
        a direction.
    random_state : int
        Seed of the random directions.

    Returns
    -------
    Fisher

    Raises
    ------
    ValueError
        When the value is not finite at the point, the objective has no gradient, or the directions have another shape.
    TypeError
        When `of` is none of these, or of an EM map, which has no gradient.

    Notes
    -----
    Fisher's identity: ``grad l(theta) = sum_n E[grad log p(x_n, z | theta) | x_n, theta]``, the gradient of the expected
    complete-data log-likelihood at its own point (Fisher 1925; Dempster, Laird and Rubin 1977, section 3). Extrapolation:
    Ridders (1982), Advances in Engineering Software 4, 75-76.
    """
    objective, at = objective_of(of, at)
    if step is not None and not 0 < step < np.inf:
        raise ValueError(f"step must be a positive number or None, got {step!r}")
    with looking(objective, {"value", "gradient"}, "Fisher's identity"):
        passes = objective.monitor_passes
        current = evaluated(objective, at)
        gradient, theta = current.gradient, current.point.theta
        U = _directions(objective, current.point, directions, random_state)
        slopes = U.T @ gradient
        size, noise = float(np.linalg.norm(gradient)), EPS * max(1.0, current.scale)
        found, errors = np.empty(U.shape[1]), np.empty(U.shape[1])
        for j, u in enumerate(U.T):

            def value(h: float, u: Vector = u) -> float:
                return objective.evaluate(theta + h * u).value

            if step is None:
                found[j], errors[j] = _extrapolated(value, _first(objective, current, u), noise, size)
            else:
                found[j], errors[j] = _sixth_order(value, step, noise)
        passes = objective.monitor_passes - passes
        score_error = _score_error(objective, current)
    gaps = np.abs(found - slopes)
    absolute, size = float(np.linalg.norm(gaps)), float(np.linalg.norm(slopes))
    worst = int(np.argmax(np.where(np.isnan(gaps), np.inf, gaps)))
    return Fisher(
        error=absolute / size if size > 0 else (0.0 if absolute == 0 else np.inf),
        absolute=absolute,
        uncertainty=float(np.linalg.norm(errors)),
        worst=_name(objective, int(np.argmax(np.abs(U[:, worst])))),
        slopes=slopes,
        differences=found,
        passes=passes,
        score_error=score_error,
    )


def _score_error(objective: Any, current: Any) -> float:
    """Return the error of the whole gradient as the emission estimates it, 0 where that says nothing."""
    model = getattr(objective, "model", None)
    estimate = getattr(getattr(model, "emission", None), "score_error", None)
    if estimate is None:
        return 0.0
    point, stats = current.point, current.stats
    latent, emission = model._parts(point.params)
    errors = estimate(emission, model._part_stats(stats)[1])
    g = model.params(*(np.zeros_like(a) for a in latent), *errors)
    return float(np.linalg.norm(objective.coordinates.pull(point.theta, point.params, g))) / stats.weight


def _directions(objective: Any, point: Any, directions: Any, random_state: int) -> NDArray[np.float64]:
    """Return unit directions as columns (p, m)."""
    if directions is None:
        if objective.size <= LIMIT:
            return tangent(objective, point)
        directions = SAMPLE
    if np.ndim(directions) == 0:
        if directions != int(directions) or directions < 1:
            allowed = f"a whole number >= 1, an array (m, {objective.size}) or None"
            raise ValueError(f"directions must be {allowed}, got {directions!r}")
        V = randomly(objective, point, random_state, int(directions))
    else:
        V = np.atleast_2d(np.asarray(directions, dtype=np.float64)).T
        if V.shape[0] != objective.size or not np.isfinite(V).all():
            raise ValueError(f"directions must be finite and have shape (m, {objective.size}), got {V.T.shape}")
        V = project(objective, point, V)
    norms = np.linalg.norm(V, axis=0)
    if not (norms > 0).all():
        raise ValueError("directions must not be zero, nor orthogonal to the tangent of the constraints")
    return V / norms


def _first(objective: Any, current: Any, u: Vector) -> float:
    """Return the first step along u: short of where the responsibilities turn over."""
    if "metric" not in objective.capabilities:
        return FIRST
    variance = float(u @ current.precondition(u))
    return min(FIRST, SHORT * variance**0.5) if variance > 0 else FIRST


def _extrapolated(value: Callable[[float], float], h: float, noise: float, size: float) -> tuple[float, float]:
    """Return the slope at 0 and an estimate of its error: central differences, halved steps, extrapolated to step 0."""
    best, error = np.nan, np.inf
    row: list[float] = []
    for _ in range(LEVELS):
        slope = (value(h) - value(-h)) / (2 * h)
        if not np.isfinite(slope):  # outside the parameter space: nearer
            row, h = [], h / 2
            continue
        new = [slope]
        for i, old in enumerate(row):
            new.append(new[i] + (new[i] - old) / (4.0 ** (i + 1) - 1))
            estimate = max(abs(new[i + 1] - new[i]), abs(new[i + 1] - old)) + noise / h
            if estimate < error:
                best, error = new[i + 1], estimate
        grows = bool(row) and abs(new[-1] - row[-1]) + noise / h > 10 * error
        if error <= ENOUGH * size or (grows and error <= max(GOOD * size, 100 * noise / h)):
            break
        row, h = new, h / 2
    return best, error


def _sixth_order(value: Callable[[float], float], h: float, noise: float) -> tuple[float, float]:
    """Return the slope at 0 by sixth-order central differences, and its difference from the fourth-order one."""
    first, second, third = (value(i * h) - value(-i * h) for i in (1, 2, 3))
    sixth = (45 * first - 9 * second + third) / (60 * h)
    return sixth, abs(sixth - (8 * first - second) / (12 * h)) + noise / h


def _name(objective: Any, coordinate: int) -> str:
    """Return the parameter to which a coordinate belongs."""
    c = getattr(objective, "coordinates", None)
    slices = {} if c is None else c.slices
    return next((name for name, s in slices.items() if s.start <= coordinate < s.stop), f"coordinate {coordinate}")
