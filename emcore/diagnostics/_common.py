"""What the diagnostics share: an evaluation outside the climb's count, directions that stay inside, steps per digit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from emcore.objective import MapObjective
from emcore.result import Breakdown, no_value, require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective, Point

    Vector = NDArray[np.float64]
    Matrix = NDArray[np.float64]

STEP = 3e-5  # of differences, where directions have the length of one standard deviation of the complete data
TRIES = 6  # how often a step that leaves the parameter space is shortened, each time to a tenth
SETTLED = 1e-7  # a remaining rise of the mean log-likelihood below this is near enough to a solution


@contextmanager
def looking(objective: Any, needs: set[str], what: str) -> Iterator[None]:
    """Count the passes inside as monitoring, refuse what the objective cannot do, turn broken numbers into `ValueError`."""
    require(objective, frozenset(needs), what)
    try:
        with objective.monitoring():
            yield
    except Breakdown as broken:
        raise ValueError(f"at: {what} is not defined there. {broken.failure}") from broken


def objective_of(of: Any, at: Any, *, maps: bool = False) -> tuple[Any, Any]:
    """Return the objective and the point that are meant: a result stands for its objective and its last point.

    `maps` says whether an EM map, which has no gradient, will do.

    Raises
    ------
    ValueError
        When an objective comes without a point, or the result was loaded from a file.
    TypeError
        When it is neither, or of a map where that will not do.
    """
    if hasattr(of, "evaluate"):
        objective, current = of, None
    elif hasattr(of, "evaluation"):
        current = of.evaluation
        objective = None if current is None else current.objective
    else:
        raise TypeError(f"of must be a fit or an objective, got a {type(of).__name__}")
    loaded = objective is None
    if not maps and (isinstance(objective, MapObjective) or (loaded and not hasattr(of, "model"))):
        raise TypeError(
            f"of must be a fit of a model or a ModelObjective, got {type(of).__name__}: this needs a gradient, and an EM map "
            "has none. Of a map `emcore.diagnostics.rate` tells EM's rate, and `emcore.diagnostics.sem` standard errors from "
            "the complete data's information"
        )
    if loaded:
        what = "a ModelObjective on the data" if hasattr(of, "model") else "the map or a MapObjective of it"
        raise ValueError(f"what was loaded knows no data and no functions: give {what}, and a point")
    if at is None and current is None:
        raise ValueError("at must be given with an objective: a point, an evaluation or coordinates")
    return objective, current if at is None else at


def evaluated(objective: Objective, at: Any) -> Evaluation:
    """Return the evaluation at a point, coordinates (p,), or one that exists already (no pass).

    Raises
    ------
    ValueError
        When the log-likelihood, or a map, is not finite there.
    """
    current = at if hasattr(at, "stats") else objective.evaluate(at)
    if current.failure is not None:
        raise no_value(objective, "at", current.failure)
    return current


def check_inside(objective: Any, current: Any) -> None:
    """Raise a ValueError where a parameter sits on the boundary."""
    boundary = objective.boundary(current.point)
    if boundary:
        raise ValueError(f"at: on the boundary of the parameter space, where estimates are not normal: {'; '.join(boundary)}")


def separable(objective: Any) -> bool:
    """Tell whether P, where there is one, is the inverse complete information at a solution."""
    model = getattr(objective, "model", None)
    return model is None or model.separable


def randomly(objective: Any, at: Point, random_state: int, m: int) -> Matrix:
    """Return m random directions as columns (p, m) that respect the constraints."""
    return project(objective, at, np.random.default_rng(random_state).normal(size=(objective.size, m)))


def project(objective: Any, at: Point, V: Matrix) -> Matrix:
    """Return the columns of V (p, m) projected on the tangent of the constraints; the same V in free coordinates."""
    c = getattr(objective, "coordinates", None)
    if c is None or c.kind == "free":
        return V
    return c.in_batches(lambda rows: c.pull(at.theta, at.params, c.push(at.theta, at.params, rows)), V.T).T


def orthonormal(projector: Matrix) -> Matrix:
    """Return an orthonormal basis (p, r) of the image of an orthogonal projector (p, p)."""
    values, vectors = np.linalg.eigh(0.5 * (projector + projector.T))
    return vectors[:, values > 0.5]


def tangent(objective: Any, at: Point) -> Matrix:
    """Return an orthonormal basis (p, r) of the directions that respect the constraints."""
    unit = np.eye(objective.size)
    projected = project(objective, at, unit)
    return unit if projected is unit else orthonormal(projected)


def both_sides(objective: Objective, at: Callable[[float], Any], step: float = STEP) -> tuple[Evaluation, Evaluation, float]:
    """Return the evaluations at ``at(h)`` and ``at(-h)`` and h, which is shortened where that leads outside.

    Raises
    ------
    ValueError
        When the smallest step still leads outside.
    """
    for _ in range(TRIES):
        plus, minus = objective.evaluate(at(step)), objective.evaluate(at(-step))
        if plus.failure is None and minus.failure is None:
            return plus, minus, step
        step *= 0.1
    raise ValueError(f"at: too close to the boundary of the parameter space for differences. {plus.failure or minus.failure}")


def steps_per_digit(rate: float) -> float:
    """Return the steps in which an error falls to a tenth, if each step multiplies it by `rate`."""
    if not rate < 1:
        return math.inf if rate >= 1 else math.nan
    return math.log(10) / -math.log(rate) if rate > 0 else 0.0


def number(x: float) -> str:
    """Return a number for people: three or four digits, no exponent unless it needs one."""
    if not math.isfinite(x):
        return {math.inf: "infinite", -math.inf: "-infinite"}.get(x, "not known")
    return f"{x:.3g}" if abs(x) < 1000 or abs(x) >= 1e6 else f"{x:.0f}"
