"""Charts: how unconstrained coordinates become parameters, and how derivatives travel along.

Each chart maps a block of theta to one array x of parameters. With J = dx/dtheta (its image is the tangent of the
constraints), ``push`` is J, ``pull`` its transpose, ``push_inverse`` and ``pull_inverse`` their inverses on that tangent.
Derivatives with respect to a symmetric matrix treat all entries as free: dl = sum(G * dSigma), G symmetric. What is said of
one direction holds for several, arrays (..., size) or (..., *shape): leading axes go through.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore import kernels
from emcore._cached import cached_property
from emcore.kernels import proportions
from emcore.result import Breakdown, Failure, Status

__all__ = ["SPD", "Chart", "Directed", "Frozen", "Itself", "Positive", "Real", "Simplex", "Stacked", "Unit"]

Array = NDArray[np.float64]

EPS = float(np.finfo(float).eps)
BELOW_ONE = 1.0 - 0.5 * EPS  # the last number before 1
NEXT_TO_NOTHING = 1e-300  # is lost in any number whose logarithm is not clamped
LOG_RANGE = 300.0  # logarithms are clamped to +- this, so that trial points of a line search overflow to nothing worse


def _clamped(t: Array) -> Array:
    return np.minimum(np.maximum(t, -LOG_RANGE), LOG_RANGE)  # np.clip takes twice as long on few numbers


def _clamped_exp(t: Array) -> Array:
    return np.exp(_clamped(t))


def _clamped_log(x: Array) -> Array:
    return _clamped(np.log(x + NEXT_TO_NOTHING))  # of 0 without a warning, which takes longer to silence


class Directed:
    """What is linear in directions, one at a time or several at once.

    Attributes
    ----------
    several : bool
        Whether what is linear takes several directions at once, as arrays with one more axis in front; without it they come one
        at a time. Who overrides some of that says it again.
    """

    several: bool = False
    _linear: ClassVar[frozenset[str]]

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        own = vars(cls)
        if "several" not in own and not own.keys().isdisjoint(cls._linear):
            cls.several = False


class Chart(Directed, ABC):
    """Coordinates of one array of parameters of a given shape."""

    _linear = frozenset({"pull", "push", "push_inverse", "pull_inverse", "curvature", "project"})
    shape: tuple[int, ...]
    size: int

    def _flat(self, a: Array) -> Array:
        """Return arrays of the chart's shape as vectors."""
        return a.reshape((*a.shape[: a.ndim - len(self.shape)], -1))

    def _shaped(self, v: Array) -> Array:
        """Return vectors as arrays of the chart's shape."""
        return v.reshape((*v.shape[:-1], *self.shape))

    @abstractmethod
    def forward(self, t: Array) -> Array:
        """Return the parameters x, of shape `shape`, at coordinates t (size,)."""

    @abstractmethod
    def inverse(self, x: Array) -> Array:
        """Return the coordinates of x; x on the boundary is moved inside by the clamp."""

    @abstractmethod
    def pull(self, t: Array, x: Array, g: Array) -> Array:
        """Return J' g (..., size) for a gradient g (..., *shape) with respect to x."""

    @abstractmethod
    def push(self, t: Array, x: Array, v: Array) -> Array:
        """Return J v, a tangent at x (..., *shape), for v (..., size)."""

    @abstractmethod
    def push_inverse(self, t: Array, x: Array, u: Array) -> Array:
        """Return the v (..., size) with J v = u for a tangent u (..., *shape) at x."""

    @abstractmethod
    def pull_inverse(self, t: Array, x: Array, v: Array) -> Array:
        """Return a gradient g (..., *shape) with respect to x with J' g = v, for v (..., size)."""

    def curvature(self, t: Array, x: Array, g: Array, v: Array) -> Array:
        """Return the derivative of J(t)' g along v at fixed g (*shape), of the shape of v: what a Hessian in coordinates adds.

        Raises
        ------
        ValueError
            When the chart does not provide it.
        """
        raise ValueError(f"{type(self).__name__} does not provide its curvature")

    @abstractmethod
    def contains(self, x: Array) -> bool:
        """Tell whether x is a finite point of the open set that the chart covers."""

    def project(self, g: Array) -> Array:
        """Return the orthogonal projection of g on the tangent of the constraints."""
        return g

    def itself(self, name: str) -> Chart:
        """Return the chart whose coordinates are the parameters of this name themselves."""
        return Itself(self, name)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Where each entry of the parameters alone can be in any units: above -inf or 0, and below inf or 1."""
        return np.full(self.shape, -np.inf), np.full(self.shape, np.inf)

    @abstractmethod
    def restricted(self, free: NDArray[np.bool_], x: Array) -> Chart:
        """Return the chart of the entries x[free], one after the other or as arrays, where the others stay as in x.

        Raises
        ------
        ValueError
            Saying what cannot be fixed alone.
        """


class Real(Chart):
    """Unconstrained parameters: the identity."""

    several = True

    def __init__(self, shape: tuple[int, ...]):
        self.shape, self.size = shape, math.prod(shape)

    def forward(self, t: Array) -> Array:
        return t.reshape(self.shape).copy()

    def inverse(self, x: Array) -> Array:
        return x.ravel().copy()

    def pull(self, t: Array, x: Array, g: Array) -> Array:
        return self._flat(g)

    def push(self, t: Array, x: Array, v: Array) -> Array:
        return self._shaped(v)

    def push_inverse(self, t: Array, x: Array, u: Array) -> Array:
        return self._flat(u)

    def pull_inverse(self, t: Array, x: Array, v: Array) -> Array:
        return self._shaped(v)

    def curvature(self, t: Array, x: Array, g: Array, v: Array) -> Array:
        return np.zeros(v.shape)

    def contains(self, x: Array) -> bool:
        return bool(np.isfinite(x).all())

    def restricted(self, free: NDArray[np.bool_], x: Array) -> Chart:
        return Real((int(free.sum()),))


class Positive(Chart):
    """Numbers above a floor: ``x = floor + exp(t)``."""

    several = True

    def __init__(self, shape: tuple[int, ...], floor: float = 0.0):
        self.shape, self.size, self.floor = shape, math.prod(shape), floor

    def forward(self, t: Array) -> Array:
        return self.floor + _clamped_exp(t).reshape(self.shape)

    def inverse(self, x: Array) -> Array:
        return _clamped_log(np.maximum(x - self.floor, 0.0)).ravel()

    def pull(self, t: Array, x: Array, g: Array) -> Array:
        return self._flat(g) * _clamped_exp(t)

    def push(self, t: Array, x: Array, v: Array) -> Array:
        return self._shaped(v * _clamped_exp(t))

    def push_inverse(self, t: Array, x: Array, u: Array) -> Array:
        return self._flat(u) / _clamped_exp(t)

    def pull_inverse(self, t: Array, x: Array, v: Array) -> Array:
        return self._shaped(v / _clamped_exp(t))

    def curvature(self, t: Array, x: Array, g: Array, v: Array) -> Array:
        return self.pull(t, x, g) * v

    def contains(self, x: Array) -> bool:
        return bool(np.isfinite(x).all() and (x > self.floor).all())

    @property
    def bounds(self) -> tuple[Array, Array]:
        return np.zeros(self.shape), np.full(self.shape, np.inf)

    def restricted(self, free: NDArray[np.bool_], x: Array) -> Chart:
        return Positive((int(free.sum()),), self.floor)


class Unit(Chart):
    """Probabilities, each by itself: ``x = 1 / (1 + exp(-t))``, t being the logarithm of the odds."""

    several = True

    def __init__(self, shape: tuple[int, ...]):
        self.shape, self.size = shape, math.prod(shape)

    def forward(self, t: Array) -> Array:
        e = _clamped_exp(-np.abs(t))
        return np.minimum(np.where(t >= 0, 1.0, e) / (1.0 + e), BELOW_ONE).reshape(self.shape)

    def inverse(self, x: Array) -> Array:
        return np.clip(_clamped_log(x) - _clamped_log(1.0 - x), -LOG_RANGE, LOG_RANGE).ravel()

    def _slope(self, t: Array) -> Array:
        e = _clamped_exp(-np.abs(t))  # of the coordinates: 1 - x loses them where x is next to 1
        return e / np.square(1.0 + e)

    def pull(self, t: Array, x: Array, g: Array) -> Array:
        return self._flat(g) * self._slope(t)

    def push(self, t: Array, x: Array, v: Array) -> Array:
        return self._shaped(v * self._slope(t))

    def push_inverse(self, t: Array, x: Array, u: Array) -> Array:
        return self._flat(u) / self._slope(t)

    def pull_inverse(self, t: Array, x: Array, v: Array) -> Array:
        return self._shaped(v / self._slope(t))

    def curvature(self, t: Array, x: Array, g: Array, v: Array) -> Array:
        return self.pull(t, x, g) * (1.0 - 2.0 * x.ravel()) * v

    def contains(self, x: Array) -> bool:
        return bool(np.isfinite(x).all() and (x > 0).all() and (x < 1).all())

    @property
    def bounds(self) -> tuple[Array, Array]:
        return np.zeros(self.shape), np.ones(self.shape)

    def restricted(self, free: NDArray[np.bool_], x: Array) -> Chart:
        return Unit((int(free.sum()),))


class Simplex(Chart):
    """Probabilities: m - 1 orthonormal log-contrasts, ``x = total softmax(V t)`` with V' V = I and V' 1 = 0.

    Parameters
    ----------
    shape : int or tuple of int
        m, or (..., m) for several such vectors.
    total : float or ndarray
        1, or what fixed probabilities leave: of each vector, (number of vectors, 1).
    """

    several = True

    def __init__(self, shape: int | tuple[int, ...], total: float | Array = 1.0):
        self.shape = (shape,) if isinstance(shape, int) else shape
        self.total, self._rows = total, (math.prod(self.shape[:-1]), self.shape[-1])
        self.size = self._rows[0] * (self._rows[1] - 1)
        self._totals = np.broadcast_to(total, (self._rows[0], 1)).copy()

    def _vectors(self, a: Array) -> Array:
        """Return arrays of the chart's shape as (..., number of vectors, m)."""
        return a.reshape((*a.shape[: a.ndim - len(self.shape)], *self._rows))

    def _logits(self, v: Array) -> Array:
        lead, (n, m) = v.shape[:-1], self._rows
        return proportions.logits(v, math.prod(lead) * n, m).reshape((*lead, n, m))

    def _contrasts(self, u: Array) -> Array:
        lead, (n, m) = u.shape[:-2], self._rows
        t = proportions.contrasts(u, math.prod(lead) * n, m)
        return t.reshape((*lead, self.size)) if lead else t

    def _arrays(self, u: Array) -> Array:
        """Return vectors (..., number of vectors, m) as arrays of the chart's shape."""
        return u.reshape((*u.shape[:-2], *self.shape))

    def _moved(self, x: Array, u: Array) -> Array:
        """Return the derivative of shares x along logits u, and by symmetry the gradient in logits of one in x."""
        return proportions.moved(x, self._totals, u)

    def forward(self, t: Array) -> Array:
        return proportions.chart_forward(t, self._totals, self._rows[1], LOG_RANGE).reshape(self.shape)

    def inverse(self, x: Array) -> Array:
        return proportions.chart_inverse(x, *self._rows, NEXT_TO_NOTHING, LOG_RANGE)

    def pull(self, t: Array, x: Array, g: Array) -> Array:
        return self._contrasts(self._moved(x, self._vectors(g)))

    def push(self, t: Array, x: Array, v: Array) -> Array:
        return self._arrays(self._moved(x, self._logits(v)))

    def push_inverse(self, t: Array, x: Array, u: Array) -> Array:
        return self._contrasts(self._vectors(u / x))

    def pull_inverse(self, t: Array, x: Array, v: Array) -> Array:
        return self._arrays(self._logits(v)) / x

    def curvature(self, t: Array, x: Array, g: Array, v: Array) -> Array:
        dx = self._moved(x, self._logits(v))
        return self._contrasts(proportions.moved_on(x, self._totals, g, dx))

    def contains(self, x: Array) -> bool:
        if not (np.isfinite(x).all() and (x > 0).all()):
            return False
        return bool(np.all(np.abs(x.reshape(self._rows).sum(axis=1, keepdims=True) - self.total) < 1e-8))

    def project(self, g: Array) -> Array:
        return g - g.mean(axis=-1, keepdims=True)

    @property
    def bounds(self) -> tuple[Array, Array]:
        return np.zeros(self.shape), np.ones(self.shape)

    def restricted(self, free: NDArray[np.bool_], x: Array) -> Chart:
        free, x = free.reshape(self._rows), x.reshape(self._rows)
        some = free.any(axis=1)
        total = np.broadcast_to(self.total - np.where(free, 0.0, x).sum(axis=1, keepdims=True), (len(free), 1))[some]
        if not (total > 0).all():
            raise ValueError("those fixed sum to 1 and leave nothing for the others: fix all of them, or less")
        if len(self.shape) == 1:
            return Simplex(int(free.sum()), float(total[0, 0]))
        free = free[some]
        number, place = free.sum(axis=1), np.cumsum(free).reshape(free.shape) - 1
        parts = [(number == m, int(m)) for m in np.unique(number)]
        return Stacked(
            (int(free.sum()),),
            [(place[of][free[of]].reshape(-1, m), Simplex((int(of.sum()), m), total[of])) for of, m in parts],
        )


class Stacked(Chart):
    """Charts of separate entries of one array, whose other entries are 0.

    Parameters
    ----------
    shape : tuple of int
    parts : sequence of tuple
        Where the entries of each chart stand in the flat array, an array of the chart's shape; and the chart.
    """

    def __init__(self, shape: tuple[int, ...], parts: Sequence[tuple[NDArray[np.intp], Chart]]):
        self.shape, self.parts = shape, tuple(parts)
        self.several = all(chart.several for _, chart in self.parts)
        ends = np.cumsum([0, *(chart.size for _, chart in self.parts)])
        self.size = int(ends[-1])
        self._each = [(at, chart, slice(a, b)) for (at, chart), a, b in zip(self.parts, ends[:-1], ends[1:], strict=True)]

    def _spread(self, values: Iterable[Array], lead: tuple[int, ...] = ()) -> Array:
        x = np.zeros((*lead, math.prod(self.shape)))
        for (at, _), value in zip(self.parts, values, strict=True):
            x[..., at] = value
        return self._shaped(x)

    def _joined(self, blocks: Iterable[Array], lead: tuple[int, ...] = ()) -> Array:
        return np.concatenate([np.empty((*lead, 0)), *blocks], axis=-1)

    def forward(self, t: Array) -> Array:
        return self._spread(chart.forward(t[s]) for _, chart, s in self._each)

    def inverse(self, x: Array) -> Array:
        return self._joined(chart.inverse(x.ravel()[at]) for at, chart, _ in self._each)

    def pull(self, t: Array, x: Array, g: Array) -> Array:
        x, g = x.ravel(), self._flat(g)
        return self._joined((chart.pull(t[s], x[at], g[..., at]) for at, chart, s in self._each), g.shape[:-1])

    def push(self, t: Array, x: Array, v: Array) -> Array:
        x = x.ravel()
        return self._spread((chart.push(t[s], x[at], v[..., s]) for at, chart, s in self._each), v.shape[:-1])

    def push_inverse(self, t: Array, x: Array, u: Array) -> Array:
        x, u = x.ravel(), self._flat(u)
        return self._joined((chart.push_inverse(t[s], x[at], u[..., at]) for at, chart, s in self._each), u.shape[:-1])

    def pull_inverse(self, t: Array, x: Array, v: Array) -> Array:
        x = x.ravel()
        return self._spread((chart.pull_inverse(t[s], x[at], v[..., s]) for at, chart, s in self._each), v.shape[:-1])

    def curvature(self, t: Array, x: Array, g: Array, v: Array) -> Array:
        x, g = x.ravel(), g.ravel()
        return self._joined((chart.curvature(t[s], x[at], g[at], v[..., s]) for at, chart, s in self._each), v.shape[:-1])

    @property
    def bounds(self) -> tuple[Array, Array]:
        low, high = zip(*(chart.bounds for _, chart in self.parts), strict=True)
        return self._spread(low), self._spread(high)

    def contains(self, x: Array) -> bool:
        others = np.ones(x.size, dtype=bool)
        for at, _ in self.parts:
            others[at] = False
        return not x.ravel()[others].any() and all(chart.contains(x.ravel()[at]) for at, chart in self.parts)

    def project(self, g: Array) -> Array:
        g = self._flat(g)
        return self._spread((chart.project(g[..., at]) for at, chart in self.parts), g.shape[:-1])

    def restricted(self, free: NDArray[np.bool_], x: Array) -> Chart:
        free, x, place = free.ravel(), x.ravel(), np.cumsum(free) - 1
        parts = []
        for at, chart in self.parts:
            if free[at].any():
                part = chart.restricted(free[at], x[at])
                parts.append((place[at[free[at]]].reshape(part.shape), part))
        return Stacked((int(free.sum()),), parts)


class SPD(Chart):
    """Symmetric matrices above a floor: ``x = floor I + L L'``, L lower triangular with its diagonal stored as logarithms.

    `shape` is (d, d) or (k, d, d); coordinates are the lower triangles, row by row.
    """

    several = True

    def __init__(self, shape: tuple[int, ...], floor: float = 0.0):
        self.shape, self.floor, self.d = shape, floor, shape[-1]
        self._batch = math.prod(shape[:-2])
        self.size = self._batch * (self.d * (self.d + 1) // 2)

    @cached_property
    def _bottom(self) -> Array:
        """``floor I``."""
        return self.floor * np.eye(self.d)

    def forward(self, t: Array) -> Array:
        x = kernels.gaussian_matrices.chart_forward(t, self.d, self.floor, LOG_RANGE)
        kernels.freeze((x,))  # or what is a view of it would not be known to last
        return self._arrays(x, ())

    def _arrays(self, A: Array, lead: tuple[int, ...]) -> Array:
        """Return matrices, one after the other, as arrays of the chart's shape."""
        shape = (*lead, *self.shape)
        return A if A.shape == shape else A.reshape(shape)

    def _coordinates(self, t: Array, lead: tuple[int, ...]) -> Array:
        return t.reshape((*lead, self.size)) if lead else t

    def _lead(self, a: Array) -> tuple[int, ...]:
        """Return the shape of the directions in arrays."""
        return a.shape[: a.ndim - len(self.shape)]

    def inverse(self, x: Array) -> Array:
        t, inside = kernels.gaussian_matrices.chart_inverse(x, self.floor, LOG_RANGE)
        return t if inside else self._next_to_floor(x.reshape(self._batch, self.d, self.d) - self._bottom)

    def _next_to_floor(self, A: Array) -> Array:
        """Return coordinates of matrices on the floor: inside it by less than rounding can tell, through a QR of the root."""
        values, vectors = np.linalg.eigh(A)
        largest = np.abs(values).max(axis=1, keepdims=True) + self.floor
        values = np.maximum(np.where(values > self.d * EPS * largest, values, 0.0), 1e-20 * largest)
        R = np.linalg.qr(np.sqrt(values)[:, :, None] * vectors.transpose(0, 2, 1), mode="r")
        signs = np.where(np.diagonal(R, axis1=1, axis2=2) < 0, -1.0, 1.0)
        L = (R * signs[:, :, None]).transpose(0, 2, 1)
        rows, cols = np.tril_indices(self.d)
        entries = L[:, rows, cols]
        entries[:, rows == cols] = _clamped_log(entries[:, rows == cols])
        return entries.ravel()

    def pull(self, t: Array, x: Array, g: Array) -> Array:
        return self._coordinates(kernels.gaussian_matrices.chart_pull(t, g, LOG_RANGE), self._lead(g))

    def push(self, t: Array, x: Array, v: Array) -> Array:
        return self._arrays(kernels.gaussian_matrices.chart_push(t, v, self.d, LOG_RANGE), v.shape[:-1])

    def push_inverse(self, t: Array, x: Array, u: Array) -> Array:
        return self._coordinates(kernels.gaussian_matrices.chart_push_inverse(t, u, LOG_RANGE), self._lead(u))

    def pull_inverse(self, t: Array, x: Array, v: Array) -> Array:
        return self._arrays(kernels.gaussian_matrices.chart_pull_inverse(t, v, self.d, LOG_RANGE), v.shape[:-1])

    def curvature(self, t: Array, x: Array, g: Array, v: Array) -> Array:
        return self._coordinates(kernels.gaussian_matrices.chart_curvature(t, g, v, LOG_RANGE), v.shape[:-1])

    def contains(self, x: Array) -> bool:
        if not np.isfinite(x).all() or np.abs(x - np.swapaxes(x, -1, -2)).max() > 1e-8 * np.abs(x).max():
            return False
        try:
            np.linalg.cholesky(x.reshape(self._batch, self.d, self.d) - self._bottom)
        except np.linalg.LinAlgError:
            return False
        return True

    def project(self, g: Array) -> Array:
        return 0.5 * (g + np.swapaxes(g, -1, -2))

    @property
    def bounds(self) -> tuple[Array, Array]:
        variances = np.eye(self.d, dtype=bool)
        return np.broadcast_to(np.where(variances, 0.0, -np.inf), self.shape).copy(), np.full(self.shape, np.inf)

    def restricted(self, free: NDArray[np.bool_], x: Array) -> Chart:
        whole = free.reshape(self._batch, -1)
        if (whole.any(axis=1) != whole.all(axis=1)).any():
            raise ValueError("a matrix can be fixed as a whole only, not single entries of it")
        return SPD((int(whole.all(axis=1).sum()), self.d, self.d), self.floor)


class Itself(Real):
    """The parameters as their own coordinates; gradients are projected on the tangent, and outside is refused.

    Parameters
    ----------
    chart : Chart
        Says which set the parameters live in.
    name : str
        Of the parameter, for the failure.
    """

    def __init__(self, chart: Chart, name: str):
        super().__init__(chart.shape)
        self.chart, self.name, self.several = chart, name, chart.several

    def forward(self, t: Array) -> Array:
        x = super().forward(t)
        if not self.chart.contains(x):
            raise Breakdown(Failure(Status.OUTSIDE, self.name))
        return x

    def pull(self, t: Array, x: Array, g: Array) -> Array:
        return self._flat(self.chart.project(g))

    def push(self, t: Array, x: Array, v: Array) -> Array:
        return self.chart.project(super().push(t, x, v))

    def pull_inverse(self, t: Array, x: Array, v: Array) -> Array:
        return self.chart.project(super().pull_inverse(t, x, v))

    def contains(self, x: Array) -> bool:
        return self.chart.contains(x)

    @property
    def bounds(self) -> tuple[Array, Array]:
        return self.chart.bounds


class Frozen(Chart):
    """A chart some entries of which are fixed: coordinates are those of the others alone.

    Parameters
    ----------
    chart : Chart
        Of all entries.
    fixed : ndarray of bool
        Which entries are fixed, in the chart's shape.
    values : ndarray
        Parameters in the chart's shape, of which the fixed entries count.

    Raises
    ------
    ValueError
        Saying what cannot be fixed alone.
    """

    def __init__(self, chart: Chart, fixed: NDArray[np.bool_], values: Array):
        self.shape, self.fixed, self.values = chart.shape, fixed, np.where(fixed, values, 0.0)
        self._bounds = chart.bounds
        self._free = ~fixed
        self.part = chart.restricted(self._free, values) if self._free.any() else Real((0,))
        self.size, self.several = self.part.size, self.part.several

    def _of(self, x: Array) -> Array:
        """Return the free entries, in the shape of their chart."""
        lead = x.shape[: x.ndim - len(self.shape)]
        return x[..., self._free].reshape((*lead, *self.part.shape))

    def _among(self, part: Array, others: Array | float = 0.0) -> Array:
        """Return an array whose free entries are these."""
        part = self.part._flat(part)
        x = np.empty((*part.shape[:-1], *self.shape))
        x[...] = others
        x[..., self._free] = part
        return x

    def forward(self, t: Array) -> Array:
        return self._among(self.part.forward(t), self.values)

    def inverse(self, x: Array) -> Array:
        return self.part.inverse(self._of(x))

    def pull(self, t: Array, x: Array, g: Array) -> Array:
        return self.part.pull(t, self._of(x), self._of(g))

    def push(self, t: Array, x: Array, v: Array) -> Array:
        return self._among(self.part.push(t, self._of(x), v))

    def push_inverse(self, t: Array, x: Array, u: Array) -> Array:
        return self.part.push_inverse(t, self._of(x), self._of(u))

    def pull_inverse(self, t: Array, x: Array, v: Array) -> Array:
        return self._among(self.part.pull_inverse(t, self._of(x), v))

    def curvature(self, t: Array, x: Array, g: Array, v: Array) -> Array:
        return self.part.curvature(t, self._of(x), self._of(g), v)

    def contains(self, x: Array) -> bool:
        return self.part.contains(self._of(x))

    def project(self, g: Array) -> Array:
        return self._among(self.part.project(self._of(g)))

    def itself(self, name: str) -> Chart:
        new = copy.copy(self)
        new.part = self.part.itself(name)
        new.size = new.part.size
        return new

    @property
    def bounds(self) -> tuple[Array, Array]:
        return self._bounds

    def restricted(self, free: NDArray[np.bool_], x: Array) -> Chart:
        raise ValueError("some of them are fixed already")
