"""Multinomial emissions, rows of counts with a total that says nothing of the component, and their mixture."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import proportions, whole
from emcore.kernels import ExponentialFamily, all_finite
from emcore.kernels.proportions import expected_log, over
from emcore.models import _proportions, _rows
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array, width
from emcore.models._charts import Simplex
from emcore.models._priors import Dirichlet, checked, given_priors
from emcore.models.mixture import Mixture
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import Block, DataSource

__all__ = ["Multinomial", "MultinomialMixture"]

Array = NDArray[np.float64]

EMPTY = 1e-250  # counts below this part of the total weight say nothing about probabilities
NEGLIGIBLE = 1e-10  # a probability below this is reported as being 0


class Multinomial(Part):
    """Rows of counts of each component: ``probabilities`` (k, d), given the total of the row.

    Statistics: ``[count k | base 1 | sum k*d]``, the base of a row being the logarithm of its multinomial coefficient. With
    sums s, T in all, the probabilities p have the M-step ``s / T``, score ``s / p`` and metric ``(diag(p) - p p') / T``,
    with which the EM step is ``P score`` exactly.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent", "sparse"})
    several = True
    draws_given = "the totals of the rows, (n, 1)"
    d: int
    _empty: NDArray[np.intp]  # columns without a count above 0
    _largest: float

    def __init__(self, k: int, prior: Dirichlet | None = None):
        self.k, self.prior = k, checked("prior", prior, Dirichlet)

    def bind(self, source: DataSource) -> Multinomial:
        self.check(source)
        largest = _rows.largest(source)
        return self._bound(np.flatnonzero(largest == 0), source.n_columns, float(largest.sum()))

    def _bound(self, empty: NDArray[np.intp], d: int, largest: float = 1.0) -> Multinomial:
        new = copy.copy(self)
        new._empty, new.d, new._largest = empty, d, largest
        new._fields = (Field("probabilities", (self.k, d), Simplex((self.k, d))),)
        new._layout = Layout({"count": (self.k,), "base": (1,), "sum": (self.k, d)})
        return new

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {"d": np.array(self.d), "empty": self._empty, "largest": np.array(self._largest)}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> Multinomial:
        return self._bound(state["empty"], int(state["d"]), float(state["largest"]))

    def sized(self, given: Mapping[str, Any]) -> Multinomial:
        return self._bound(np.empty(0, dtype=np.intp), width(given, "probabilities", self.k))

    def check(self, source: DataSource) -> None:
        _rows.refuse(source, _rows.not_whole, _rows.COUNTS)

    def initial(self) -> Any:
        return self.params(np.full((self.k, self.d), 1.0 / self.d))

    def _pseudo_statistics(self) -> tuple[Array, Array, float]:
        a = self.prior.concentration
        vector = np.concatenate([np.zeros(self.k + 1), np.full(self.k * self.d, a - 1.0)])
        return vector, np.empty(0), self.k * (math.lgamma(self.d * a) - self.d * math.lgamma(a))

    def _kernel(self, params: Any, tangents: Any = None) -> ExponentialFamily:
        p = params.probabilities
        if not all_finite(p):
            raise Breakdown(Failure(Status.NON_FINITE, "probabilities"))
        there = p > 0
        logs = np.log(np.where(there, p, 1.0))
        return ExponentialFamily(np.zeros(self.k), logs, "multinomial", np.where(there, np.nan, 0.0), tangents=tangents)

    def kernel(self, params: Any) -> ExponentialFamily:
        return self._kernel(params)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> ExponentialFamily:
        p, moves = params.probabilities, np.array([v.probabilities for v in directions])
        slopes = np.divide(moves, p, out=np.zeros(moves.shape), where=p > 0)
        return self._kernel(params, (np.zeros((len(moves), self.k)), slopes))

    def _sums(self, stats: PartStats) -> Array:
        return self.layout.view(stats.vector, "sum")

    def m_step(self, params: Any, stats: PartStats) -> Any:
        fixed, least = self.fixed.get("probabilities"), EMPTY * stats.weight
        return self.params(_proportions.best(params.probabilities, self._sums(stats), least=least, fixed=fixed))

    def q(self, params: Any, stats: PartStats) -> float:
        base = float(self.layout.view(stats.vector, "base")[0])
        return expected_log(self._sums(stats), params.probabilities) + base

    def score(self, params: Any, stats: PartStats) -> Any:
        return self.params(over(self._sums(stats), params.probabilities))

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        p = params.probabilities
        return self.params(-over(over(self._sums(stats), p) * v.probabilities, p))

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        fixed, least = self.fixed.get("probabilities"), EMPTY * stats.weight
        p = _proportions.metric(params.probabilities, self._sums(stats), g.probabilities, least=least, fixed=fixed)
        return self.params(p)

    def from_user(self, given: Mapping[str, Any]) -> Any:
        p = given_array(given, "probabilities", {"": (self.k, self.d)})
        return self.params(proportions("start: probabilities", p))

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> NDArray[np.int64]:
        if X.shape[1] != 1 or _rows.not_whole(X).any():
            raise ValueError(f"X must be {self.draws_given}, whole numbers >= 0")
        p = params.probabilities / params.probabilities.sum(axis=1, keepdims=True)
        return rng.multinomial(X[:, 0].astype(np.int64), p[of])

    def boundary(self, params: Any) -> tuple[str, ...]:
        low = (params.probabilities <= NEGLIGIBLE) & ~self.fixed.get("probabilities", np.False_)
        return tuple(f"the probability of column {j} in component {c} is 0" for c, j in np.argwhere(low))

    def condition(self, params: Any) -> float:
        # What cancels in a log-density near its peak: the factorial of the total against those of the counts.
        return max(1.0, self._largest * math.log(max(self._largest, 1.0)))

    def warnings(self) -> tuple[str, ...]:
        if not len(self._empty):
            return ()
        return (f"X holds no count above 0 in {_rows.named(self._empty)}: its probabilities are fitted as 0",)

    def framed(self, block: Block) -> Array:
        """Return twice the square roots of the counts, scaled to one total: they have a variance of about 1 (Bartlett 1936)."""
        rows = np.asarray(block.rows[0], dtype=np.float64)
        total = rows.sum(axis=1, keepdims=True)
        return 2.0 * np.sqrt(rows * (total.mean() / np.maximum(total, 1.0)))


def MultinomialMixture(  # noqa: N802
    n_components: int, *, prior: Dirichlet | None = None, weights_prior: Dirichlet | None = None
) -> Model:
    """Return the model of a multinomial mixture: rows of counts, whose totals say nothing of the component.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    prior : Dirichlet, optional
        Of the probabilities of each component.
    weights_prior : Dirichlet, optional
        Of the weights.

    Returns
    -------
    Model
        Parameters ``weights`` (k,), ``probabilities`` (k, d), which sum to 1 in each component. One may be 0: a component
        whose counts in a column are all 0. It sits at the boundary of the parameter space then, and the result says so.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Values are log-likelihoods given the totals, multinomial coefficients included. Data that hold anything but whole numbers
    >= 0 are refused when the model is bound to them, and so are such new rows. Draws need the totals of the rows,
    ``sample(..., X=totals)``.
    """
    k = whole("n_components", n_components)
    options = {"n_components": k} | given_priors(prior, weights_prior)
    return Model(Mixture(k, weights_prior), Multinomial(k, prior), name="MultinomialMixture", options=options)
