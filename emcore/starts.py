"""Where a climb starts: parameters given by the user, or responsibilities guessed on a sample of the rows.

All guesses end in responsibilities, which the model turns into parameters by accumulating statistics and one M-step: so every
start works for every model. They look at a sample of the rows in frame units, so that they are cheap for large data and do not
depend on the units of measurement.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emcore.result import Breakdown

if TYPE_CHECKING:
    from emcore.objective import ModelObjective, Point

__all__ = ["STARTS", "starting_point"]

STARTS = ("auto", "k-means++", "k-means", "random-points", "random-responsibilities")


def starting_point(objective: ModelObjective, start: Any, rng: np.random.Generator) -> tuple[Point, str]:
    """Return where to start, and in words how it was found.

    Parameters
    ----------
    objective : ModelObjective
    start : str or mapping
        One of `STARTS`, or arrays by parameter name in the user's units. "auto" is "k-means++" where scikit-learn is
        installed and "random-points" elsewhere.
    rng : Generator

    Raises
    ------
    ValueError
        When the name is unknown, or parameters are missing, unknown or invalid, or those that were guessed are degenerate.
    TypeError
        When start is neither a name nor a mapping.
    ImportError
        When the start needs scikit-learn and it is not installed.
    """
    with objective.climbing():
        return _starting_point(objective, start, rng)


def _starting_point(objective: ModelObjective, start: Any, rng: np.random.Generator) -> tuple[Point, str]:
    """Return what `starting_point` does, within the context in which the objective wants to be climbed."""
    if isinstance(start, Mapping) or hasattr(start, "_asdict"):
        return _inside(objective, objective.model.from_user(start)), "given parameters"
    if not isinstance(start, str):
        raise TypeError(f"start must be one of {', '.join(STARTS)}, or a mapping of parameters, got {type(start).__name__}")
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(map(repr, STARTS))}, or a mapping of parameters, got {start!r}")
    if start == "auto":
        start = "k-means++" if find_spec("sklearn") else "random-points"
    model = objective.model
    block = objective.source.sample(max(10_000, 50 * model.k), rng)
    n = len(block.rows[0])
    if start == "random-responsibilities":
        resp = rng.dirichlet(np.ones(model.k), size=n)
    else:
        rows = model.framed(block)
        labels = _CLUSTERINGS[start](rows, model.k, block.weights, rng)
        # As if each component had seen d + 1 more rows, drawn from all the data: a cluster of few rows has a covariance.
        resp = np.full((n, model.k), (rows.shape[1] + 1) / n)
        resp[np.arange(n), labels] += 1.0
        resp /= resp.sum(axis=1, keepdims=True)
    try:
        params = model.start(block, resp)
    except Breakdown as broken:
        raise ValueError(f"start: {start!r} finds no valid parameters here. {broken.failure}") from None
    return _inside(objective, params), f"{start} on {n} rows"


def _inside(objective: ModelObjective, params: Any) -> Point:
    """Return the point of these parameters, which must lie where the coordinates of the objective reach."""
    c = objective.coordinates
    if c.kind == "original":
        for name, chart, x in zip(params._fields, c.charts, params, strict=True):
            if not chart.contains(x):
                raise ValueError(
                    f"start: with coordinates='original' the {name} must lie inside their space, and they are on its boundary "
                    "(a weight of 0, or a covariance at its floor): use coordinates='free'"
                )
    return objective.point_of(params)


def _nearest(rows: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.intp]:
    squares = np.stack([np.square(rows - c).sum(axis=1) for c in centres])
    return np.argmin(squares, axis=0)


def _random_points(rows: Any, k: int, weights: Any, rng: np.random.Generator) -> NDArray[np.intp]:
    distinct = np.unique(rows, axis=0)
    return _nearest(rows, distinct[rng.choice(len(distinct), k, replace=len(distinct) < k)])


def _sklearn_cluster() -> Any:
    try:
        from sklearn import cluster
    except ImportError:
        raise ImportError("start: 'k-means' and 'k-means++' need scikit-learn: pip install emcore[sklearn]") from None
    return cluster


def _kmeans_plusplus(rows: Any, k: int, weights: Any, rng: np.random.Generator) -> NDArray[np.intp]:
    seed = int(rng.integers(2**31))
    centres, _ = _sklearn_cluster().kmeans_plusplus(rows, k, sample_weight=weights, random_state=seed)
    return _nearest(rows, centres)


def _kmeans(rows: Any, k: int, weights: Any, rng: np.random.Generator) -> NDArray[np.intp]:
    kmeans = _sklearn_cluster().KMeans(k, n_init=1, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than components: the start is then shared out
        return kmeans.fit(rows, sample_weight=weights).labels_


_CLUSTERINGS = {"k-means++": _kmeans_plusplus, "k-means": _kmeans, "random-points": _random_points}
