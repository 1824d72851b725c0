"""EM as a projected gradient: Xu and Jordan's P, block by block, at any point.

For weights and means the EM step is P times the gradient, exactly. A textbook covariance update is not quite: it centres
its scatter at the new means, P grad at the old ones, and the two differ by a term of second order in the step
(``- dm dm'`` for a Gaussian), which each model knows in closed form (``model.correction``). So three numbers are compared
that are computed apart: the M-step, P times the score, and the correction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emcore.diagnostics._common import evaluated, looking, objective_of, orthonormal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

__all__ = ["BlockProjection", "Projection", "projection"]

EPS = float(np.finfo(float).eps)
LIMIT = 400  # coordinates of a block up to which its P is built whole
LANCZOS = 40  # steps beyond that


class BlockProjection(NamedTuple):
    """What holds for one block of parameters (in frame units, the gradient being that of the mean log-likelihood).

    name : which parameters
    error : ``|theta_EM - correction - (theta + P g)|``, relative to the larger of the step and the parameters
    gap : ``|theta_EM - (theta + P g)| / |theta_EM - theta|``, the second-order part of the textbook update
    smallest, largest : eigenvalues of P on the tangent of the constraints
    bounded : True where these come from a few Lanczos steps: `smallest` is then too large, `largest` too small, if anything
    cosine : of the angle between EM step and gradient
    step : the step size that EM effectively takes along the gradient, ``<theta_EM - theta, g> / <g, g>``
    at_floor : whether the floor of the parameters cuts the EM step, so that the identity cannot hold
    """

    name: str
    error: float
    gap: float
    smallest: float
    largest: float
    bounded: bool
    cosine: float
    step: float
    at_floor: bool


@dataclass(frozen=True)
class Projection:
    """The EM step and the gradient at one point, and P between them.

    Attributes
    ----------
    blocks : tuple of BlockProjection
        Those that can move (the weight of a single component cannot).
    cosine : float
        Of the angle between the whole EM step and the gradient, in the parameters themselves (frame units).
    own_cosine : float
        The same in the coordinates of the objective.
    coordinates : str
        Which those are.
    em_step, p_gradient, correction, gradient : named tuples of ndarray
        ``theta_EM - theta``, ``P g``, the closed-form difference of the two, and g projected on the tangent.
    """

    blocks: tuple[BlockProjection, ...]
    cosine: float
    own_cosine: float
    coordinates: str
    em_step: Any = field(repr=False)
    p_gradient: Any = field(repr=False)
    correction: Any = field(repr=False)
    gradient: Any = field(repr=False)

    def __getitem__(self, name: str) -> BlockProjection:
        """Return the block of this name."""
        for block in self.blocks:
            if block.name == name:
                return block
        raise KeyError(name)

    @property
    def error(self) -> float:
        """The largest error of the exact identity among the blocks that no floor cuts; NaN when all are cut."""
        return max((b.error for b in self.blocks if not b.at_floor), default=math.nan)

    @property
    def positive_definite(self) -> bool:
        """Whether P is positive definite on the tangent of every block."""
        return all(b.smallest > 0 for b in self.blocks)

    @property
    def at_floor(self) -> tuple[str, ...]:
        """The blocks whose EM step is cut by a floor."""
        return tuple(b.name for b in self.blocks if b.at_floor)

    def lines(self) -> list[str]:
        """Return the summary, line by line."""
        out = [
            "The EM step is P times the gradient (Xu and Jordan 1996); parameters in frame units, gradient per unit of weight",
            f"  {'block':<14}{'identity':>10}{'2nd order':>11}{'eigenvalues of P':>24}{'cosine':>9}{'step size':>11}",
        ]
        for b in self.blocks:
            smallest = f"{'<= ' if b.bounded else ''}{b.smallest:.3g}"
            values = f"{smallest} .. {'>= ' if b.bounded else ''}{b.largest:.3g}"
            error = "at floor" if b.at_floor else f"{b.error:.1e}"
            out.append(f"  {b.name:<14}{error:>10}{b.gap:>11.1e}{values:>24}{b.cosine:>9.4f}{b.step:>11.3g}")
        out.append(f"  {'all':<14}{'':>45}{self.cosine:>9.4f}")
        if self.coordinates != "original":
            out.append(f"  {f'all, in {self.coordinates} coordinates':<59}{self.own_cosine:>9.4f}")
        if self.at_floor:
            out.append(f"  the floor cuts the EM step of {', '.join(self.at_floor)}: the identity does not hold there")
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())


def projection(of: Any, at: Any = None) -> Projection:
    """Return how EM step and gradient are related at a point: P, its definiteness, angles, effective step sizes.

    Parameters
    ----------
    of : Fit or ModelObjective
        A fit stands for its objective and its last point; the model provides "em", "gradient" and "metric".
    at : Point, Evaluation or array_like (p,), optional
        By default the point of the fit, where gradient and EM step are about 0.

    Returns
    -------
    Projection

    Raises
    ------
    ValueError
        When the model does not provide these, or the value is not finite there.
    TypeError
        When `of` is none of these, or of an EM map, which has no gradient.

    Notes
    -----
    Xu and Jordan (1996), "On convergence properties of the EM algorithm for Gaussian mixtures", Neural Computation 8:
    ``theta_EM - theta = P grad l`` with, for Gaussian mixtures, ``P = (diag(a) - a a') / N`` for the weights,
    ``Sigma_k / N_k`` for a mean and ``(2 / N_k) Sigma_k (x) Sigma_k`` for a covariance about its old mean. The P given here is
    N times theirs, as the gradient is that of the mean log-likelihood. One pass, none if `at` is an Evaluation.
    """
    objective, at = objective_of(of, at)
    with looking(objective, {"em", "gradient", "metric"}, "the relation of EM step and gradient"):
        current = evaluated(objective, at)
        model, point, stats = objective.model, current.point, current.stats
        params, new = point.params, current.em_point.params
        score = model.score(params, stats)
        p_gradient = model.metric(params, stats, score)
        correction = model.correction(params, stats)
        own_cosine = _cosine(current.em_point.theta - point.theta, current.gradient)
    kind = type(params)
    charts = [f.chart for f in model.fields]
    em_step = kind(*(b - a for a, b in zip(params, new, strict=True)))
    gradient = kind(*(chart.project(g) / stats.weight for chart, g in zip(charts, score, strict=True)))

    def metric(i: int, v: Vector) -> Vector:
        """Return P v for a direction of block i alone."""
        g = kind(*(v.reshape(x.shape) if j == i else np.zeros_like(x) for j, x in enumerate(params)))
        return stats.weight * model.metric(params, stats, g)[i].ravel()

    blocks = []
    for i, (name, chart) in enumerate(zip(kind._fields, charts, strict=True)):
        x, step, pg, fix, g = (values[i] for values in (params, em_step, p_gradient, correction, gradient))
        unconstrained = x + pg + fix
        spectrum = _spectrum(lambda v, i=i: metric(i, v), chart, x)
        if spectrum is None:
            continue
        smallest, largest, bounded = spectrum
        size = float(np.linalg.norm(step))
        blocks.append(
            BlockProjection(
                name=name,
                error=float(np.linalg.norm(new[i] - unconstrained)) / max(size, float(np.linalg.norm(x))),
                gap=float(np.linalg.norm(step - pg)) / size if size > 0 else 0.0,
                smallest=smallest,
                largest=largest,
                bounded=bounded,
                cosine=_cosine(step, g),
                step=float(np.vdot(step, g) / np.vdot(g, g)) if g.any() else math.nan,
                at_floor=getattr(chart, "floor", 0.0) > 0 and not chart.contains(unconstrained),
            )
        )
    return Projection(
        blocks=tuple(blocks),
        cosine=_cosine(np.concatenate([a.ravel() for a in em_step]), np.concatenate([a.ravel() for a in gradient])),
        own_cosine=own_cosine,
        coordinates=objective.coordinates.kind,
        em_step=em_step,
        p_gradient=p_gradient,
        correction=correction,
        gradient=gradient,
    )


def _cosine(a: Vector, b: Vector) -> float:
    """Return the cosine of the angle between two arrays; NaN when one of them is zero."""
    size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.vdot(a, b)) / size if size > 0 else math.nan


def _spectrum(apply: Any, chart: Any, x: Vector) -> tuple[float, float, bool] | None:
    """Return the smallest and largest eigenvalue of P on the tangent of a block, and whether bounds; None if it cannot move."""
    if not chart.size:
        return None

    def onto(v: Vector) -> Vector:
        return chart.project(v.reshape(x.shape)).ravel()

    if x.size <= LIMIT:
        E = orthonormal(np.stack([onto(v) for v in np.eye(x.size)], axis=1))
        if not E.shape[1]:
            return None
        P = E.T @ np.stack([apply(v) for v in E.T], axis=1)
        values = np.linalg.eigvalsh(P)
        if abs(values[0]) <= EPS * len(P) * values[-1]:  # lost in the rounding of the largest: bounded from below
            units = np.sqrt(np.diag(P))
            values[0] = np.linalg.eigvalsh(P / units / units[:, None])[0] * units.min() ** 2
        return float(values[0]), float(values[-1]), False
    v = onto(np.random.default_rng(0).normal(size=x.size))
    V, T = [v / np.linalg.norm(v)], np.zeros((LANCZOS + 1, LANCZOS))
    for j in range(LANCZOS):
        w = onto(apply(V[j]))
        for _ in range(2):
            c = np.array(V) @ w
            T[: j + 1, j] += c
            w = w - c @ np.array(V)
        size = float(np.linalg.norm(w))
        if size <= 1e-12 * np.abs(T).max():
            break
        V.append(w / size)
    values = np.linalg.eigvalsh(T[: j + 1, : j + 1], UPLO="U")
    return float(values[0]), float(values[-1]), True
