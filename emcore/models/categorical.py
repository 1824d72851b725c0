"""Categorical emissions, symbols in columns that are independent given the component, and the latent class model."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import proportions, whole
from emcore.kernels import Categorical as CategoricalKernel
from emcore.kernels import Tallied, all_finite
from emcore.kernels.proportions import expected_log, over
from emcore.models import _proportions, _rows
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array
from emcore.models._charts import Chart, Simplex, Stacked
from emcore.models._priors import Dirichlet, checked, given_priors
from emcore.models.mixture import Mixture
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import Block, DataSource
    from emcore.kernels import Kernel

__all__ = ["Categorical", "CategoricalMixture"]

Array = NDArray[np.float64]

EMPTY = 1e-250  # counts below this part of the total weight say nothing about probabilities
NEGLIGIBLE = 1e-10  # a probability below this is reported as being 0
FEW_LEVELS = 16  # of one column: to count so many is faster than to look each row up
MOST_LEVELS = 1 << 16  # beyond this a column holds numbers and no symbols


class Categorical(Part):
    """Independent columns of symbols 0, 1, ... of each component: ``probabilities`` (k, d, m), m being the most in a column.

    A column of fewer symbols has probability 0 for what it lacks: no parameter, but a place in the array.

    Statistics: ``[count k | symbol d*m*k]``. With counts s of the symbols of a column, N in all, its probabilities p have the
    M-step ``s / N``, score ``s / p`` and metric ``(diag(p) - p p') / N``, with which the EM step is ``P score`` exactly.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent", "sparse"})
    several = True
    d: int
    _levels: NDArray[np.intp]  # symbols of each column,
    _there: NDArray[np.bool_]  # which of the (d, m) that makes
    _absent: NDArray[np.intp]  # columns and symbols of theirs that do not occur, (n, 2)

    def __init__(self, k: int, levels: tuple[int, ...] | int | None = None, prior: Dirichlet | None = None):
        self.k, self.levels, self.prior = k, levels, checked("prior", prior, Dirichlet)

    def bind(self, source: DataSource) -> Categorical:
        d = source.n_columns
        if self.levels is None:
            _rows.refuse(source, _rows.not_whole, _SYMBOLS)
            last = _rows.largest(source)
            if last.max() >= MOST_LEVELS:
                j = int(last.argmax())
                raise ValueError(f"X must hold {_SYMBOLS}, at most {MOST_LEVELS} a column: column {j} has {last[j]:.0f}")
            levels = last.astype(np.intp) + 1
        else:
            levels = np.array(np.broadcast_to(self.levels, d) if np.ndim(self.levels) == 0 else self.levels, dtype=np.intp)
            if len(levels) != d:
                raise ValueError(f"levels has {len(levels)} numbers, one a column, and X {d} columns")
        new = self._bound(levels, np.empty((0, 2), dtype=np.intp))
        if self.levels is not None:
            new.check(source)
        seen = np.zeros(new._there.shape, dtype=bool)
        for i in range(source.n_blocks):
            for _, piece in source.block(i).pieces(d):
                for found, column in zip(seen, _rows.kept(piece).T, strict=True):
                    found |= np.bincount(column.astype(np.intp), minlength=len(found)) > 0
        new._absent = np.argwhere(~seen & new._there)
        return new

    def _bound(self, levels: NDArray[np.intp], absent: NDArray[np.intp]) -> Categorical:
        new = copy.copy(self)
        new._levels, new._absent, new.d = levels, absent, len(levels)
        m = int(levels.max())
        new._there = np.arange(m) < levels[:, None]
        new._fields = (Field("probabilities", (self.k, new.d, m), new._chart((self.k, new.d, m))),)
        new._layout = Layout({"count": (self.k,), "symbol": (new.d, m, self.k)})
        return new

    def _chart(self, shape: tuple[int, ...]) -> Chart:
        if self._there.all():
            return Simplex(shape)
        place = np.arange(math.prod(shape)).reshape(shape)
        columns = [(self._levels == m, int(m)) for m in np.unique(self._levels)]
        parts = [(place[:, of, :m].reshape(-1, m), m) for of, m in columns]
        return Stacked(shape, [(at, Simplex(at.shape)) for at, _ in parts])

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {"levels": self._levels, "absent": self._absent}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> Categorical:
        return self._bound(state["levels"], state["absent"])

    def sized(self, given: Mapping[str, Any]) -> Categorical:
        p = given_array(given, "probabilities", {"": (self.k, "d", "m")})
        last = np.where((p > 0).any(axis=0), np.arange(1, p.shape[2] + 1), 1).max(axis=1)
        if last.max() < p.shape[2]:
            last[0] = p.shape[2]
        return self._bound(last, np.empty((0, 2), dtype=np.intp))

    def check(self, source: DataSource) -> None:
        allowed = f"{_SYMBOLS}, of which each column has {', '.join(map(str, self._levels[:8]))}"
        _rows.refuse(source, lambda rows: _rows.not_whole(rows) | (rows >= self._levels), allowed + ", ..." * (self.d > 8))

    def initial(self) -> Any:
        return self.params(np.broadcast_to(self._there / self._levels[:, None], self.fields[0].shape).copy())

    def _pseudo_statistics(self) -> tuple[Array, Array, float]:
        a = self.prior.concentration
        symbols = np.broadcast_to((a - 1.0) * self._there[:, :, None], self.layout.blocks["symbol"])
        constant = sum(math.lgamma(int(m) * a) - int(m) * math.lgamma(a) for m in self._levels)
        return np.concatenate([np.zeros(self.k), symbols.ravel()]), np.empty(0), self.k * constant

    def kernel(self, params: Any) -> CategoricalKernel:
        return CategoricalKernel(_logs(params.probabilities))

    def fused(self, latent: Part, latent_params: Any, params: Any) -> Kernel | None:
        if self.d > 1 or self._levels[0] > FEW_LEVELS or not isinstance(latent, Mixture):
            return None
        return Tallied(latent.kernel(latent_params), self.kernel(params))

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> CategoricalKernel:
        p, moves = params.probabilities, np.array([v.probabilities for v in directions])
        return CategoricalKernel(_logs(p), np.divide(moves, p, out=np.zeros(moves.shape), where=p > 0))

    def _counts(self, stats: PartStats) -> Array:
        """Return the expected counts of the symbols, (k, d, m)."""
        return np.ascontiguousarray(self.layout.view(stats.vector, "symbol").transpose(2, 0, 1))

    def m_step(self, params: Any, stats: PartStats) -> Any:
        counts, least = self._counts(stats), EMPTY * stats.weight
        best = _proportions.best(params.probabilities, counts, least=least, fixed=self.fixed.get("probabilities"))
        return self.params(best)

    def q(self, params: Any, stats: PartStats) -> float:
        return expected_log(self._counts(stats), params.probabilities)

    def score(self, params: Any, stats: PartStats) -> Any:
        return self.params(over(self._counts(stats), params.probabilities))

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        p = params.probabilities
        return self.params(-over(over(self._counts(stats), p) * v.probabilities, p))

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        counts, least = self._counts(stats), EMPTY * stats.weight
        p = _proportions.metric(
            params.probabilities, counts, g.probabilities, least=least, fixed=self.fixed.get("probabilities")
        )
        return self.params(p)

    def from_user(self, given: Mapping[str, Any]) -> Any:
        p = given_array(given, "probabilities", {"": self.fields[0].shape})
        absent = p[:, ~self._there]
        if absent.any():
            c, n = np.argwhere(absent)[0]
            j, symbol = np.argwhere(~self._there)[n]
            raise ValueError(
                f"start: probabilities must be 0 where a column has no such symbol: that of component {c}, column {j}, "
                f"symbol {symbol} is {absent[c, n]}"
            )
        return self.params(proportions("start: probabilities", p))

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> NDArray[np.int64]:
        rows = np.empty((len(of), self.d), dtype=np.int64)
        for c, tables in enumerate(params.probabilities):
            chosen = np.flatnonzero(of == c)
            for j, p in enumerate(tables):
                rows[chosen, j] = rng.choice(len(p), size=len(chosen), p=p / p.sum())
        return rows

    def boundary(self, params: Any) -> tuple[str, ...]:
        low = (params.probabilities <= NEGLIGIBLE) & self._there & ~self.fixed.get("probabilities", np.False_)
        return tuple(f"the probability of symbol {v} of column {j} in component {c} is 0" for c, j, v in np.argwhere(low))

    def warnings(self) -> tuple[str, ...]:
        return tuple(f"X does not hold symbol {v} in column {j}: its probabilities are fitted as 0" for j, v in self._absent)

    def framed(self, block: Block) -> Array:
        """Return indicators of the symbols, of half the square length of a difference: it counts the columns that differ."""
        rows = np.asarray(block.rows[0]).astype(np.intp)
        return math.sqrt(0.5) * np.concatenate([rows[:, [j]] == np.arange(m) for j, m in enumerate(self._levels)], axis=1)


_SYMBOLS = "symbols, whole numbers from 0"


def _logs(probabilities: Array) -> Array:
    """Return the logarithms of probabilities.

    Raises
    ------
    Breakdown
        Where they are not finite.
    """
    if not all_finite(probabilities):
        raise Breakdown(Failure(Status.NON_FINITE, "probabilities"))
    with np.errstate(divide="ignore", invalid="ignore"):  # outside of their space: no row has a density
        return np.log(probabilities)


def CategoricalMixture(  # noqa: N802
    n_components: int,
    levels: int | Sequence[int] | None = None,
    *,
    prior: Dirichlet | None = None,
    weights_prior: Dirichlet | None = None,
) -> Model:
    """Return the latent class model: columns of symbols, independent given the component.

    Parameters
    ----------
    n_components : int
        Number of components (classes), k.
    levels : int or sequence of int, optional
        How many symbols each column has, coded 0, 1, ...; by default up to the largest in the data.
    prior : Dirichlet, optional
        Of the probabilities of the symbols of each column.
    weights_prior : Dirichlet, optional
        Of the weights.

    Returns
    -------
    Model
        Parameters ``weights`` (k,), ``probabilities`` (k, d, m) of symbol v of column j in component c at ``[c, j, v]``, m
        being the most symbols that a column has; 0 where a column has fewer. A symbol that a component does not show has
        probability 0: it sits at the boundary of the parameter space then, and the result says so.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Data that hold anything but such symbols are refused when the model is bound to them, and so are such new rows.
    """
    k = whole("n_components", n_components)
    options: dict[str, Any] = {"n_components": k}
    if levels is not None:
        several = np.ndim(levels) > 0
        numbers = [whole("levels", n) for n in (levels if several else [levels])]
        options["levels"] = numbers if several else numbers[0]
    options |= given_priors(prior, weights_prior)
    emission = Categorical(k, options.get("levels"), prior)
    return Model(Mixture(k, weights_prior), emission, name="CategoricalMixture", options=options)
