"""Poisson emissions, counts in columns that are independent given the component, and the Poisson mixture."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import whole
from emcore.kernels import ExponentialFamily, all_finite
from emcore.models import _rows
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array, width
from emcore.models._charts import Positive
from emcore.models._priors import Dirichlet, Gamma, checked, given_priors
from emcore.models.mixture import Mixture
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import Block, DataSource

__all__ = ["Poisson", "PoissonMixture"]

Array = NDArray[np.float64]

TINY = float(np.finfo(float).tiny)
EMPTY = 1e-250  # a count below this part of the total weight says nothing about a rate
NEGLIGIBLE = 1e-10  # a rate below this part of the largest one of its column is reported as being 0


class Poisson(Part):
    """Independent Poisson columns of each component: ``rates`` (k, d).

    Statistics: ``[count k | base 1 | sum k*d]``, the base of a row being minus the sum of its ``log x!``. With N counts and s
    sums the rates have the M-step ``s / N``, score ``s / rate - N`` and metric ``rate / N``, with which the EM step is
    ``P score`` exactly: the rates are the mean parameters.
    Rows have no frame: a count is neither shifted nor scaled.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent", "sparse"})
    several = True
    d: int
    _totals: Array  # weighted sums of the columns: by them data are known again

    def __init__(self, k: int, prior: Gamma | None = None):
        self.k, self.prior = k, checked("prior", prior, Gamma)

    def bind(self, source: DataSource) -> Poisson:
        self.check(source)
        return self._bound(_rows.totals(source))

    def _bound(self, totals: Array) -> Poisson:
        new = copy.copy(self)
        new._totals, new.d = totals, len(totals)
        new._fields = (Field("rates", (self.k, new.d), Positive((self.k, new.d))),)
        new._layout = Layout({"count": (self.k,), "base": (1,), "sum": (self.k, new.d)})
        return new

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {"totals": self._totals}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> Poisson:
        return self._bound(state["totals"])

    def check(self, source: DataSource) -> None:
        _rows.refuse(source, _rows.not_whole, _rows.COUNTS)

    def initial(self) -> Any:
        return self.params(np.ones((self.k, self.d)))

    def _pseudo_statistics(self) -> tuple[Array, Array, float]:
        a, b = self.prior.shape, self.prior.inverse_scale
        vector = np.concatenate([np.full(self.k, b), [0.0], np.full(self.k * self.d, a - 1.0)])
        return vector, np.empty(0), self.k * self.d * (a * math.log(b) - math.lgamma(a))

    def _kernel(self, params: Any, tangents: Any = None) -> ExponentialFamily:
        rates = params.rates
        if not all_finite(rates):
            raise Breakdown(Failure(Status.NON_FINITE, "rates"))
        there = rates > 0
        logs = np.log(np.where(there, rates, 1.0))
        return ExponentialFamily(-rates.sum(axis=1), logs, "poisson", np.where(there, np.nan, 0.0), tangents=tangents)

    def kernel(self, params: Any) -> ExponentialFamily:
        return self._kernel(params)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> ExponentialFamily:
        moves = np.array([v.rates for v in directions])
        slopes = np.divide(moves, params.rates, out=np.zeros(moves.shape), where=params.rates > 0)
        return self._kernel(params, (-moves.sum(axis=2), slopes))

    def _moments(self, stats: PartStats) -> tuple[Array, Array]:
        """Return counts (k, 1) and sums (k, d)."""
        return self.layout.view(stats.vector, "count")[:, None], self.layout.view(stats.vector, "sum")

    def m_step(self, params: Any, stats: PartStats) -> Any:
        count, total = self._moments(stats)
        empty = count <= EMPTY * stats.weight
        kept = empty | self.fixed.get("rates", np.False_)
        return self.params(np.where(kept, params.rates, total / np.where(empty, 1.0, count)))

    def q(self, params: Any, stats: PartStats) -> float:
        count, total = self._moments(stats)
        there = total > 0  # 0 times the logarithm of 0 is 0
        with np.errstate(divide="ignore"):
            logs = np.log(params.rates[there])
        base = self.layout.view(stats.vector, "base")[0]
        return float(total[there] @ logs - np.sum(count * params.rates) + base)

    def score(self, params: Any, stats: PartStats) -> Any:
        count, total = self._moments(stats)  # linear in them, for Hessian products
        return self.params(np.divide(total, params.rates, out=np.zeros_like(total), where=total != 0) - count)

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        _, total = self._moments(stats)
        squares = params.rates * params.rates
        return self.params(np.divide(-total * v.rates, squares, out=np.zeros(v.rates.shape), where=total != 0))

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        count = np.maximum(self._moments(stats)[0], max(EMPTY * stats.weight, TINY))
        return self.params(params.rates * g.rates / count)

    def from_user(self, given: Mapping[str, Any]) -> Any:
        rates = given_array(given, "rates", {"": (self.k, self.d)})
        if (rates < 0).any():
            c, j = np.argwhere(rates < 0)[0]
            raise ValueError(f"start: rates must be >= 0, that of component {c} in column {j} is {rates[c, j]}")
        return self.params(rates)

    def sized(self, given: Mapping[str, Any]) -> Poisson:
        return self._bound(np.full(width(given, "rates", self.k), np.nan))

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> NDArray[np.int64]:
        return rng.poisson(params.rates[of])

    def boundary(self, params: Any) -> tuple[str, ...]:
        low = (params.rates <= NEGLIGIBLE * params.rates.max(axis=0)) & ~self.fixed.get("rates", np.False_)
        return tuple(f"the rate of component {c} in column {j} is 0" for c, j in np.argwhere(low))

    def condition(self, params: Any) -> Array:
        # What cancels in a log-density near its peak: the count times the logarithm of the rate, against that of its factorial.
        rates = params.rates
        logs = np.log(rates, out=np.zeros_like(rates), where=rates > 0)
        return np.sum(rates * np.abs(logs), axis=1)

    def warnings(self) -> tuple[str, ...]:
        empty = np.flatnonzero(self._totals == 0)
        if not len(empty):
            return ()
        return (f"X holds no count above 0 in {_rows.named(empty)}: its rates are fitted as 0",)

    def framed(self, block: Block) -> Array:
        """Return twice the square roots of the rows: counts of any rate then have a variance of about 1 (Bartlett 1936)."""
        return 2.0 * np.sqrt(np.asarray(block.rows[0], dtype=np.float64))


def PoissonMixture(  # noqa: N802
    n_components: int, *, prior: Gamma | None = None, weights_prior: Dirichlet | None = None
) -> Model:
    """Return the model of a Poisson mixture: columns of counts, independent given the component.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    prior : Gamma, optional
        Of each rate.
    weights_prior : Dirichlet, optional
        Of the weights.

    Returns
    -------
    Model
        Parameters ``weights`` (k,), ``rates`` (k, d). A rate may be 0: a component whose counts in a column are all 0. It
        sits at the boundary of the parameter space then, and the result says so.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Data that hold anything but whole numbers >= 0 are refused when the model is bound to them, and so are such new rows.
    A log-density is the small difference of numbers as large as the count times its logarithm: of counts of 1e9 the value is
    known to five decimals, of 1e12 to two.
    """
    k = whole("n_components", n_components)
    options = {"n_components": k} | given_priors(prior, weights_prior)
    return Model(Mixture(k, weights_prior), Poisson(k, prior), name="PoissonMixture", options=options)
