"""A family of one's own: densities written in NumPy, the rest written too or worked out by differences.

A component is a function ``log_density(X, **parameters)``. What is known of the data of a component is two arrays: ``(count,
sums)`` where the family has sufficient statistics, and ``(rows, weights)`` where it has none: then the statistics are the
weighted responsibilities of the distinct rows, which add like any others. Everything else is of these two arrays: the expected
log-density, its gradient, its maximum.
"""

from __future__ import annotations

import copy
import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import whole
from emcore.kernels import Called, Coupled
from emcore.models import _rows
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array
from emcore.models._charts import Chart, Positive, Real, Simplex, Unit
from emcore.models.mixture import Mixture
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import Block, DataSource
    from emcore.kernels import Kernel

__all__ = ["UserMixture"]

Array = NDArray[np.float64]

CHARTS: dict[str, Callable[[tuple[int, ...]], Chart]] = {"real": Real, "positive": Positive, "unit": Unit, "simplex": Simplex}
MEANS = {"real": "finite", "unit": "between 0 and 1", "simplex": "shares of 1"}
TELLING = 200  # rows that are kept beside statistics
STEP = 1e-3  # of differences of fourth order, in coordinates of the order of 1
ROUNDING = 8 * float(np.finfo(float).eps)  # of the expected log-density, relative: a sum over rows of differences
STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
EMPTY = 1e-250  # a count below this part of the total weight says nothing about a component
NEWTON_STEPS = 50
PANEL_ROWS = 8192  # a panel is a few calls of Python
SOLVED = 1e-14  # a rise of the expected log-density, per unit of weight, that is not worth another Newton step


def _slope(f: Callable[[float], Any], h: float) -> Any:
    """Return the derivative of f at 0 by central differences of fourth order."""
    return sum(a * f(s * h) for s, a in STENCIL) / h


def _within(chart: Chart, x: Array) -> bool:
    """Tell whether finite parameters lie in the space of a chart or on its boundary, where an M-step may end."""
    if isinstance(chart, Real):
        return True
    if isinstance(chart, Simplex):
        return bool((x >= 0).all() and (np.abs(x.sum(axis=-1) - 1.0) < 1e-8).all())
    return bool((x >= 0).all() and not (isinstance(chart, Unit) and (x > 1).any()))


def _reals(what: str, found: Any) -> Array:
    """Return what a function of the user's gave as floats; NumPy would drop imaginary parts."""
    if np.iscomplexobj(found):
        raise TypeError(f"{what} must be real numbers, got {np.asarray(found).dtype}")
    return np.asarray(found, dtype=np.float64)


def _telling(rows: Array) -> Array:
    """Return the first and last row of each column, by which a support that moves is seen, and some of the others."""
    ends = np.concatenate([rows.argmin(axis=0), rows.argmax(axis=0)])
    some = np.linspace(0, len(rows) - 1, min(len(rows), TELLING)).astype(int)
    return np.unique(rows[np.concatenate([ends, some])] + 0.0, axis=0)


class User(Part):
    """Components whose log-densities are functions of the user's; see `UserMixture`.

    Statistics: ``[count k | sum k*s]`` of the user's, or ``[weight k*m]``, of each component over the m distinct rows.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent", "sparse"})
    calls_user = True
    d: int
    _values: Array  # distinct rows; where there are statistics, some of them
    _charts: dict[str, Chart]  # of one component

    def __init__(
        self,
        k: int,
        log_density: Callable[..., Any],
        params: Mapping[str, Any],
        functions: Mapping[str, Callable[..., Any] | None],
        initial: Mapping[str, Any],
        moving_support: tuple[str, ...],
    ):
        self.k, self.log_density, self.spec, self.functions = k, log_density, params, functions
        self.given_initial, self.moving_support = initial, moving_support

    def bind(self, source: DataSource) -> User:
        kept = np.concatenate([_rows.kept(source.block(i)) for i in range(source.n_blocks)]).astype(np.float64)
        mean, spread = kept.mean(axis=0), kept.std(axis=0)
        values = _telling(kept) if self.functions["statistics"] else np.unique(kept + 0.0, axis=0)
        return self._bound(values, mean, np.where(spread > 0, spread, 1.0))

    def _bound(self, values: Array, mean: Array, spread: Array) -> User:
        new = self._formed(values.shape[1])
        new._values, new._mean, new._spread = values, mean, spread
        new._index = {row.tobytes(): i for i, row in enumerate(values)}
        if self.functions["statistics"]:
            size = new._features(values).shape[1]
            new._layout = Layout({"count": (self.k,), "sum": (self.k, size)})
        else:
            new._layout = Layout({"weight": (self.k, len(values))})
        return new

    def _formed(self, d: int) -> User:
        """Return this part with its fields, for rows of d columns."""
        new = copy.copy(self)
        new.d, new._charts, fields = d, {}, []
        for name, spec in self.spec.items():
            word, shape = (spec, ()) if isinstance(spec, str) else spec
            shape = tuple(new.d if size == "d" else size for size in shape)
            new._charts[name] = CHARTS[word](shape)
            fields.append(Field(name, (self.k, *shape), CHARTS[word]((self.k, *shape))))
        new._fields = tuple(fields)
        return new

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {"rows": self._values, "mean": self._mean, "spread": self._spread}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> User:
        return self._bound(state["rows"], state["mean"], state["spread"])

    def freezing(self, fixed: Mapping[str, NDArray[np.bool_]]) -> User:
        for name, mask in fixed.items():
            by_component = mask.reshape(self.k, -1)
            if name in self.names and (by_component.any(axis=1) != by_component.all(axis=1)).any():
                raise ValueError(f"fixed: {name} of a component can be fixed as a whole only, in a family of the user's")
        return super().freezing(fixed)

    def initial(self) -> Any:
        found = []
        for name, chart in self._charts.items():
            x = chart.forward(np.zeros(chart.size))
            if isinstance(chart, Real) and chart.shape in ((), (1,), (self.d,)):
                x = np.mean(self._mean) if chart.shape in ((), (1,)) else self._mean
            x = np.asarray(self.given_initial.get(name, x), dtype=np.float64)
            found.append(np.array(np.broadcast_to(x, (self.k, *chart.shape))))
        return self.params(*found)

    def framed(self, block: Block) -> Array:
        return (np.asarray(block.rows[0], dtype=np.float64) - self._mean) / self._spread

    # Coordinates of one component, of the order of 1

    def _unit(self, name: str) -> float:
        return float(np.max(self._spread)) if isinstance(self._charts[name], Real) else 1.0

    def _free(self, c: int) -> list[str]:
        return [name for name in self._charts if name not in self.fixed or not self.fixed[name][c].all()]

    def _inverse(self, p: Mapping[str, Array], names: Sequence[str]) -> Array:
        return np.concatenate([np.empty(0), *(self._charts[n].inverse(np.asarray(p[n])) / self._unit(n) for n in names)])

    def _forward(self, t: Array, p: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        new, at = dict(p), 0
        for n in names:
            size = self._charts[n].size
            new[n] = self._charts[n].forward(t[at : at + size] * self._unit(n))
            at += size
        return new

    def _through(self, way: str, p: Mapping[str, Array], blocks: Mapping[str, Array]) -> dict[str, Array]:
        """Return blocks sent through the charts in one of their ways, at the parameters of a component."""
        out = {}
        for n, chart in self._charts.items():
            x, unit = np.asarray(p[n]), self._unit(n)
            factor = 1.0 / unit if way in ("push_inverse", "pull_inverse") else unit
            out[n] = getattr(chart, way)(chart.inverse(x), x, np.asarray(blocks[n])) * factor
        return out

    def _join(self, blocks: Mapping[str, Array], names: Sequence[str]) -> Array:
        return np.concatenate([np.empty(0), *(np.ravel(blocks[n]) for n in names)])

    def _split(self, t: Array) -> dict[str, Array]:
        ends = np.cumsum([chart.size for chart in self._charts.values()])
        return dict(zip(self._charts, np.split(t, ends[:-1]), strict=True))

    # The pass

    def _component(self, params: Any, c: int) -> dict[str, Any]:
        return {name: array[c] for name, array in zip(self.names, params, strict=True)}

    def _log_density(self, X: Array, p: Mapping[str, Any]) -> Array:
        with np.errstate(all="ignore"):
            found = _reals("log_density", self.log_density(X, **p))
        if found.shape != (len(X),):
            raise ValueError(f"log_density must return an array of shape ({len(X)},), one number a row, got {found.shape}")
        return found

    def _features(self, X: Array) -> Array:
        found = _reals("statistics", self.functions["statistics"](X))
        if found.ndim != 2 or len(found) != len(X):
            raise ValueError(f"statistics must return an array of shape ({len(X)}, s), got {found.shape}")
        return found

    def _collect(self, X: Array, resp: Array) -> Array:
        if self.functions["statistics"]:
            return np.concatenate([resp.sum(axis=0), (resp.T @ self._features(X)).ravel()])
        out = np.zeros((len(self._values), self.k))
        rows = np.ascontiguousarray(X + 0.0)
        np.add.at(out, [self._index[row.tobytes()] for row in rows], resp)
        return np.ascontiguousarray(out.T).ravel()

    def _called(self, params: Any, tangents: Sequence[Callable[[Array], Array]] = ()) -> Called:
        if not all(np.isfinite(a).all() for a in params):
            raise Breakdown(Failure(Status.NON_FINITE, "parameters"))
        parts = [self._component(params, c) for c in range(self.k)]

        def log_density(X: Array) -> Array:
            return np.stack([self._log_density(X, p) for p in parts], axis=1)

        return Called(self.k, self.d, self.layout.size, log_density, self._collect, tangents)

    def kernel(self, params: Any) -> Called:
        return self._called(params)

    def fused(self, latent: Part, latent_params: Any, params: Any) -> Kernel:
        return Coupled(latent.kernel(latent_params), self.kernel(params), PANEL_ROWS)

    def _curve(self, params: Any, v: Any, c: int) -> tuple[Callable[[float], dict[str, Any]], float]:
        """Return a curve of parameters of a component whose tangent at 0 is v, and a step along it for differences."""
        p = self._component(params, c)
        names = list(self._charts)
        t, w = self._inverse(p, names), self._join(self._through("push_inverse", p, self._component(v, c)), names)
        return lambda s: self._forward(t + s * w, p, names), STEP / max(float(np.max(np.abs(w))), 1e-300)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> Called:
        def along(v: Any) -> Callable[[Array], Array]:
            curves = [self._curve(params, v, c) for c in range(self.k)]

            def dot(X: Array) -> Array:
                with np.errstate(all="ignore"):
                    columns = [_slope(lambda s, at=at: self._log_density(X, at(s)), h) for at, h in curves]
                found = np.stack(columns, axis=1)
                return np.where(np.isfinite(found), found, 0.0)  # no density, and so no responsibility

            return dot

        return self._called(params, [along(v) for v in directions])

    # What statistics give

    def _data(self, stats: PartStats, c: int) -> tuple[Any, Array]:
        if self.functions["statistics"]:
            return self.layout.view(stats.vector, "count")[c], self.layout.view(stats.vector, "sum")[c]
        return self._values, self.layout.view(stats.vector, "weight")[c]

    def _count(self, stats: PartStats, c: int) -> float:
        a, b = self._data(stats, c)
        return float(a) if self.functions["statistics"] else float(b.sum())

    def _expected(self, data: tuple[Any, Array], p: Mapping[str, Any]) -> float:
        with np.errstate(all="ignore"):
            if self.functions["expected"]:
                return float(self.functions["expected"](*data, **p))
            X, w = data
            there = w != 0
            return float(w[there] @ self._log_density(X[there], p))

    def _score(self, data: tuple[Any, Array], p: Mapping[str, Any], names: Sequence[str]) -> Array:
        """Return the gradient of the expected log-density in the coordinates of a component."""
        if self.functions["score"]:
            with np.errstate(all="ignore"):
                given = self._named("score", self.functions["score"](*data, **p))
            return self._join(self._through("pull", p, given), names)
        return self._differenced(data, p, names, STEP)

    def _differenced(self, data: tuple[Any, Array], p: Mapping[str, Any], names: Sequence[str], step: float) -> Array:
        t = self._inverse(p, names)
        return np.array([_slope(lambda s, e=e: self._expected(data, self._forward(t + s * e, p, names)), step)
                         for e in np.eye(len(t))])  # fmt: skip

    def _named(self, name: str, given: Any) -> dict[str, Array]:
        if not isinstance(given, Mapping) or set(given) != set(self._charts):
            raise ValueError(f"{name} must return a dict with {', '.join(self._charts)}")
        arrays = {n: _reals(f"{name}: {n}", given[n]) for n in self._charts}
        for n, a in arrays.items():
            if a.shape != self._charts[n].shape:
                raise ValueError(f"{name}: {n} must have shape {self._charts[n].shape}, got {a.shape}")
        return arrays

    def _minus_hessian(self, data: tuple[Any, Array], p: Mapping[str, Any], names: Sequence[str]) -> Array:
        """Return minus the Hessian of the expected log-density in coordinates, its eigenvalues made positive."""
        t = self._inverse(p, names)
        H = np.array([_slope(lambda s, e=e: self._score(data, self._forward(t + s * e, p, names), names), STEP)
                      for e in np.eye(len(t))])  # fmt: skip
        if not np.isfinite(H).all():
            raise Breakdown(self._broken(data, p, names))
        values, vectors = np.linalg.eigh(-0.5 * (H + H.T))
        values = np.abs(values)
        count = float(data[0] if self.functions["statistics"] else data[1].sum())  # each row tells something, or P is boundless
        return (vectors * np.maximum(values, 1e-10 * max(values.max(initial=0.0), count, 1e-290))) @ vectors.T

    def _broken(self, data: tuple[Any, Array], p: Mapping[str, Any], names: Sequence[str]) -> Failure:
        """Return why derivatives of the expected log-density are not finite: most often rows lose their density next to p."""
        detail, value = "The derivatives of the expected log-density are not finite.", self._expected(data, p)
        moving = bool(self.moving_support) and value == -np.inf
        if np.isfinite(value):
            t, near = self._inverse(p, names), []
            owner = [n for n in names for _ in range(self._charts[n].size)]
            for n, e in zip(owner, np.eye(len(t)), strict=True):
                beside = [self._expected(data, self._forward(t + s * e, p, names)) for s in (-4 * STEP, 4 * STEP)]
                near += [n] * (n not in near and not np.isfinite(beside).all())
            unsaid = [n for n in near if n not in self.moving_support]
            moving = bool(near) and not unsaid
            if unsaid:
                detail = (
                    f"Rows have a density at these parameters and lose it next to them, where {' or '.join(unsaid)} changes by "
                    f"{4 * STEP:g}: unless the logarithm underflows there, the support of the model depends on "
                    f"{' and '.join(unsaid)}. Say so with moving_support={[*self.moving_support, *unsaid]}."
                )
        if moving:
            advice = "its m_step is not used where a parameter is fixed" if self.functions["m_step"] else "give it an m_step="
            detail = (
                f"The support of the model moves with {' and '.join(self.moving_support)}, as declared, and Newton's method "
                f"cannot maximise the expected log-density across its jumps: {advice}."
            )
        return Failure(Status.NON_FINITE, "M-step", detail=detail)

    def _best(self, data: tuple[Any, Array], count: float, p: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
        """Return the maximum of the expected log-density by Newton's method, each step one that raises it."""
        value = self._expected(data, p)
        for _ in range(NEWTON_STEPS if names else 0):
            g = self._score(data, p, names)
            if not np.isfinite(g).all():
                raise Breakdown(self._broken(data, p, names))
            step = np.linalg.solve(self._minus_hessian(data, p, names), g)
            step *= min(1.0, 3.0 / max(float(np.max(np.abs(step))), 1e-300))
            rise, size, t, before = float(g @ step), 1.0, self._inverse(p, names), value
            while size > 1e-6:
                new = self._forward(t + size * step, p, names)
                found = self._expected(data, new)
                if found >= value + 1e-4 * size * rise:
                    p, value = new, found
                    break
                size *= 0.5
            if value <= before or rise <= SOLVED * count:
                break
        return p

    def m_step(self, params: Any, stats: PartStats) -> Any:
        found: list[Mapping[str, Any]] = []
        for c in range(self.k):
            p, count, data = self._component(params, c), self._count(stats, c), self._data(stats, c)
            names = self._free(c)
            if count <= EMPTY * stats.weight:
                found.append(p)
            elif self.functions["m_step"] and len(names) == len(self._charts):
                with np.errstate(all="ignore"):
                    found.append(self._named("m_step", self.functions["m_step"](*data, **p)))
                self._check_step(found[-1], c)
            else:
                found.append(self._best(data, count, p, names))
        return self.params(*(np.stack([np.asarray(p[n]) for p in found]) for n in self.names))

    def _check_step(self, p: Mapping[str, Array], c: int) -> None:
        """Raise a Breakdown unless the parameters of a component are in their space or on its boundary."""
        for name, x in p.items():
            status = None if np.isfinite(x).all() else Status.NON_FINITE
            if status is None and not _within(self._charts[name], x):
                status = Status.OUTSIDE
            if status is not None:
                spec = self.spec[name]
                word = spec if isinstance(spec, str) else spec[0]
                detail = f"m_step returned {name} = {x} for component {c}: it must be {MEANS.get(word, word)}."
                raise Breakdown(Failure(status, "M-step", detail=detail))

    def q(self, params: Any, stats: PartStats) -> float:
        return sum(self._expected(self._data(stats, c), self._component(params, c)) for c in range(self.k))

    def _each(self, blocks: list[dict[str, Array]]) -> Any:
        return self.params(*(np.stack([np.asarray(b[n]) for b in blocks]) for n in self.names))

    def _gradient(self, data: tuple[Any, Array], p: Mapping[str, Any]) -> dict[str, Array]:
        """Return the gradient of the expected log-density with respect to the parameters of a component."""
        if self.functions["score"]:
            with np.errstate(all="ignore"):
                return self._named("score", self.functions["score"](*data, **p))
        return self._through("pull_inverse", p, self._split(self._score(data, p, list(self._charts))))

    def score(self, params: Any, stats: PartStats) -> Any:
        return self._each([self._gradient(self._data(stats, c), self._component(params, c)) for c in range(self.k)])

    def score_error(self, params: Any, stats: PartStats) -> Any:
        """Return by how much the entries of the score may be wrong: 0 where it is the user's, else an estimate.

        Of differences of fourth order the error grows 16 times with twice the step; beside it stands rounding.
        """
        if self.functions["score"]:
            return self.params(*(np.zeros(f.shape) for f in self.fields))
        found, names = [], list(self._charts)
        for c in range(self.k):
            p, data = self._component(params, c), self._data(stats, c)
            wide, narrow = (self._differenced(data, p, names, h) for h in (2 * STEP, STEP))
            error = np.abs(wide - narrow) / 15 + ROUNDING / STEP * (abs(self._expected(data, p)) + self._count(stats, c))
            found.append(self._through("pull_inverse", p, self._split(error)))
        return self._each(found)

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        found = []
        for c in range(self.k):
            (at, h), data = self._curve(params, v, c), self._data(stats, c)
            names = list(self._charts)
            g = [(a, self._gradient(data, at(s * h))) for s, a in STENCIL]
            found.append({n: sum(a * b[n] for a, b in g) / h for n in names})
        return self._each(found)

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        found, names = [], list(self._charts)
        for c in range(self.k):
            p = self._component(params, c)
            if self._count(stats, c) <= EMPTY * stats.weight:
                found.append({n: np.zeros(chart.shape) for n, chart in self._charts.items()})
                continue
            pulled = self._join(self._through("pull", p, self._component(g, c)), names)
            step = np.linalg.solve(self._minus_hessian(self._data(stats, c), p, names), pulled)
            found.append(self._through("push", p, self._split(step)))
        return self._each(found)

    def correction(self, params: Any, stats: PartStats) -> Any:
        """Return NaN: no closed form is known, and a difference would make the identity hold by construction.

        What there is to test is its order, which `emcore.check` does.
        """
        return self.params(*(np.full(f.shape, np.nan) for f in self.fields))

    def boundary(self, params: Any) -> tuple[str, ...]:
        """Return the parameters next to which rows lose their density: an M-step that freezes at a row ends there, content."""
        out = []
        for c in range(self.k):
            p, names = self._component(params, c), [n for n in self._free(c) if n not in self.moving_support]
            t, there = self._inverse(p, names), np.isfinite(self._log_density(self._values, p))
            for n, e in zip((name for name in names for _ in range(self._charts[name].size)), np.eye(len(t)), strict=True):
                beside = [self._log_density(self._values, self._forward(t + s * e, p, names)) for s in (-4 * STEP, 4 * STEP)]
                text = (
                    f"rows lose their density under component {c} next to its {n}: unless the logarithm underflows there, the "
                    "support of the model depends on it (moving_support)"
                )
                if text not in out and not all(np.isfinite(b[there]).all() for b in beside):
                    out.append(text)
        return tuple(out)

    # What the user gives and gets

    def from_user(self, given: Mapping[str, Any]) -> Any:
        arrays = []
        for field in self.fields:
            x = given_array(given, field.name, {"": field.shape})
            if not field.chart.contains(x):
                spec = self.spec[field.name]
                raise ValueError(f"start: {field.name} must be {spec if isinstance(spec, str) else spec[0]}, got {x}")
            arrays.append(x)
        return self.params(*arrays)

    def sized(self, given: Mapping[str, Any]) -> User:
        d = 1
        for name, spec in self.spec.items():
            if not isinstance(spec, str) and "d" in spec[1]:
                d = np.shape(given[name])[1 + list(spec[1]).index("d")]
        new = self._formed(d)  # nothing is asked of functions that may know of more columns than parameters tell
        new._layout = Layout({"weight": (self.k, 0)})
        return new

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> NDArray[Any]:
        draw = self.functions["sample"]
        if draw is None:
            raise ValueError("UserMixture cannot be drawn from: give it sample=")
        drawn = {}
        for c in np.unique(of):
            count = int(np.sum(of == c))
            drawn[c] = np.reshape(draw(rng, count, **self._component(params, c)), (count, -1))
        widths = sorted({rows.shape[1] for rows in drawn.values()})
        if len(widths) > 1:
            raise ValueError(f"sample must return rows of as many columns for each component, got {widths[0]} and {widths[-1]}")
        out = np.empty((len(of), widths[0]))
        for c, rows in drawn.items():
            out[of == c] = rows
        return out


def UserMixture(  # noqa: N802
    n_components: int,
    log_density: Callable[..., Any],
    params: Mapping[str, Any],
    *,
    statistics: Callable[..., Any] | None = None,
    expected: Callable[..., Any] | None = None,
    m_step: Callable[..., Any] | None = None,
    score: Callable[..., Any] | None = None,
    sample: Callable[..., Any] | None = None,
    initial: Mapping[str, Any] | None = None,
    moving_support: Sequence[str] = (),
    name: str = "UserMixture",
) -> Model:
    """Return the model of a mixture of a family written in NumPy; the log-density alone is enough.

    Parameters
    ----------
    n_components : int
    log_density : callable
        ``log_density(X, **parameters)`` returns the log-densities (n,) of rows X (n, d) under one component.
    params : mapping
        Of the parameters of a component: name to what it is, "real", "positive", "unit" (between 0 and 1) or "simplex"
        (shares of 1); or to a pair of this and its shape, in which "d" stands for the number of columns.
    statistics : callable, optional
        ``statistics(X)`` returns sufficient statistics (n, s) of each row. The two arrays that the functions below get are
        then ``count`` and ``sums`` (s,), sums of responsibilities and of statistics times these. Without it they are all
        distinct rows X (m, d) and their weights (m,), and a pass keeps rows x components.
    expected : callable, optional
        ``expected(a, b, **parameters)`` returns the sum of the log-densities as these two arrays have it, constants included.
        Needed with `statistics`; by default ``b @ log_density(a, **parameters)``.
    m_step : callable, optional
        ``m_step(a, b, **parameters)`` returns the parameters that maximise this, a dict. By default Newton's method from those
        given.
    score : callable, optional
        ``score(a, b, **parameters)`` returns its gradient, a dict. By default central differences.
    sample : callable, optional
        ``sample(rng, n, **parameters)`` returns n rows.
    initial : mapping, optional
        Parameters from which Newton's method begins in a start; by default the mean of the rows for a "real" one, 1 for a
        positive one.
    moving_support : sequence of str
        The parameters that say where rows have a density at all: see `emcore.SupportError`. They need an `m_step`: Newton's
        method cannot maximise across the jumps of their likelihood.
    name : str

    Returns
    -------
    Model
        Parameters ``weights`` (k,) and those of `params`, each with a first axis of k. All solvers run on it.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Costs: functions run under the GIL on panels of 8,192 rows. With p parameters a component, a differenced score takes 4 p
    calls of `expected`, a Hessian 4 p scores, and Newton's method one of each a step: calls on all distinct rows where there
    are no `statistics`, and on a few numbers where there are. "real" parameters are differenced in units of the spread of X.
    A fit can be saved, and `emcore.load` takes the model again with it: functions are not written to files.
    """
    k = whole("n_components", n_components)
    functions = {"statistics": statistics, "expected": expected, "m_step": m_step, "score": score, "sample": sample}
    for what, function in {"log_density": log_density, **functions}.items():
        if not (callable(function) or (function is None and what != "log_density")):
            raise TypeError(f"{what} must be callable, got {function!r}")
    if (statistics is None) != (expected is None) and expected is None:
        raise ValueError("expected must be given with statistics: nothing else says what they are worth")
    if not isinstance(params, Mapping) or not params:
        raise TypeError(f"params must map names to {', '.join(map(repr, CHARTS))}, got {params!r}")
    for parameter, spec in params.items():
        if not (isinstance(parameter, str) and parameter.isidentifier()) or keyword.iskeyword(parameter):
            raise ValueError(f"params: names must be names of Python, as functions have them for arguments, got {parameter!r}")
        if parameter.startswith("_") or parameter == "weights":
            raise ValueError(f"params: {parameter!r} cannot be the name of a parameter: choose another")
        word = spec if isinstance(spec, str) else spec[0] if isinstance(spec, tuple) and len(spec) == 2 else None
        if word not in CHARTS or (word == "simplex" and isinstance(spec, str)):
            raise ValueError(
                f"params: {parameter} must be one of {', '.join(map(repr, CHARTS))}, or (word, shape), got {spec!r}"
            )
    if isinstance(moving_support, str):
        raise TypeError(f"moving_support must be a sequence of names, such as [{moving_support!r}], got {moving_support!r}")
    for parameter in (*(initial or {}), *moving_support):
        if parameter not in params:
            raise ValueError(f"{parameter!r} is no parameter; they are {', '.join(params)}")
    part = User(k, log_density, dict(params), functions, dict(initial or {}), tuple(moving_support))
    return Model(Mixture(k), part, name=name, options={"n_components": k})
