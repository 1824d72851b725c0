"""Bernoulli emissions, zeros and ones in columns that are independent given the component, and their mixture."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import whole
from emcore.kernels import ExponentialFamily, all_finite
from emcore.kernels.proportions import expected_log
from emcore.models import _rows
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array, width
from emcore.models._charts import BELOW_ONE, Unit
from emcore.models._priors import Beta, Dirichlet, checked, given_priors
from emcore.models.mixture import Mixture
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import DataSource

__all__ = ["Bernoulli", "BernoulliMixture"]

Array = NDArray[np.float64]

TINY = float(np.finfo(float).tiny)
EMPTY = 1e-250  # a count below this part of the total weight says nothing about a probability
NEGLIGIBLE = 1e-10  # a probability this near to 0 or 1 is reported as being there


class Bernoulli(Part):
    """Independent columns of zeros and ones of each component: ``probabilities`` (k, d) of a one.

    Statistics: ``[count k | base 1 | sum k*d]``, the sums about 0 where the probability of a one is below 1/2 and about 1
    elsewhere, so that a column of ones only has no zero to rounding either. With N counts and s ones the probabilities p have
    the M-step ``s / N``, score ``(s - N p) / (p (1 - p))`` and metric ``p (1 - p) / N``, with which the EM step is ``P score``
    exactly: they are the mean parameters. The base is 0.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent", "sparse"})
    several = True
    d: int
    _constant: tuple[NDArray[np.intp], NDArray[np.intp]]  # columns of zeros only, and of ones only

    def __init__(self, k: int, prior: Beta | None = None):
        self.k, self.prior = k, checked("prior", prior, Beta)

    def bind(self, source: DataSource) -> Bernoulli:
        self.check(source)
        ones, zeros = np.zeros(source.n_columns, dtype=bool), np.zeros(source.n_columns, dtype=bool)
        for i in range(source.n_blocks):
            for _, piece in source.block(i).pieces(source.n_columns):
                found = _rows.kept(piece) == 1
                ones |= found.any(axis=0)
                zeros |= ~found.all(axis=0)
        return self._bound((np.flatnonzero(~ones), np.flatnonzero(~zeros)), source.n_columns)

    def _bound(self, constant: tuple[NDArray[np.intp], NDArray[np.intp]], d: int) -> Bernoulli:
        new = copy.copy(self)
        new._constant, new.d = constant, d
        new._fields = (Field("probabilities", (self.k, d), Unit((self.k, d))),)
        new._layout = Layout({"count": (self.k,), "base": (1,), "sum": (self.k, d)})
        return new

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {"d": np.array(self.d), "only_zeros": self._constant[0], "only_ones": self._constant[1]}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> Bernoulli:
        return self._bound((state["only_zeros"], state["only_ones"]), int(state["d"]))

    def sized(self, given: Mapping[str, Any]) -> Bernoulli:
        none = np.empty(0, dtype=np.intp)
        return self._bound((none, none), width(given, "probabilities", self.k))

    def check(self, source: DataSource) -> None:
        _rows.refuse(source, lambda rows: (rows != 0) & (rows != 1), "0 or 1")

    def initial(self) -> Any:
        return self.params(np.full((self.k, self.d), 0.5))

    def _pseudo_statistics(self) -> tuple[Array, Array, float]:
        a, b = self.prior.ones, self.prior.zeros
        vector = np.concatenate([np.full(self.k, a + b - 2.0), [0.0], np.full(self.k * self.d, a - 1.0)])
        constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        return vector, np.zeros(self.k * self.d), self.k * self.d * constant

    def _kernel(self, params: Any, tangents: Any = None) -> ExponentialFamily:
        p = params.probabilities
        if not all_finite(p):
            raise Breakdown(Failure(Status.NON_FINITE, "probabilities"))
        inner = (p > 0) & (p < 1)
        some = np.where(inner, p, 0.5)
        offsets = np.where(inner, np.log1p(-some), 0.0).sum(axis=1)
        slopes = np.where(inner, np.log(some) - np.log1p(-some), 0.0)
        only = np.where(inner, np.nan, p)
        return ExponentialFamily(offsets, slopes, "none", only, self.origin(params).reshape(p.shape), tangents)

    def kernel(self, params: Any) -> ExponentialFamily:
        return self._kernel(params)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> ExponentialFamily:
        p, moves = params.probabilities, np.array([v.probabilities for v in directions])
        inner = np.broadcast_to((p > 0) & (p < 1), moves.shape)
        zero = -np.divide(moves, 1.0 - p, out=np.zeros(moves.shape), where=inner)
        one = np.divide(moves, p, out=np.zeros(moves.shape), where=inner)
        return self._kernel(params, (zero.sum(axis=2), one - zero))

    def origin(self, params: Any) -> Array:
        return np.where(params.probabilities < 0.5, 0.0, 1.0).ravel()

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        if np.array_equal(stats.origin, new):
            return stats
        vector = stats.vector.copy()
        count = self.layout.view(vector, "count")[:, None]
        self.layout.view(vector, "sum")[...] -= count * (new - stats.origin).reshape(self.k, self.d)
        return PartStats(vector, new, stats.weight)

    def _moments(self, stats: PartStats) -> tuple[Array, Array, Array]:
        """Return counts (k, 1), and of them ones and zeros (k, d): those on the origin's side as what the others leave."""
        count, total = self.layout.view(stats.vector, "count")[:, None], self.layout.view(stats.vector, "sum")
        origin = stats.origin.reshape(self.k, self.d)
        return count, origin * count + total, (1.0 - origin) * count - total

    def m_step(self, params: Any, stats: PartStats) -> Any:
        count, ones, zeros = self._moments(stats)
        empty = count <= EMPTY * stats.weight
        kept = empty | self.fixed.get("probabilities", np.False_)
        most = np.where(zeros > 0, BELOW_ONE, 1.0)  # of a zero, however unlikely, 1 would have no density
        best = np.clip(ones / np.where(empty, 1.0, count), 0.0, most)
        return self.params(np.where(kept, params.probabilities, best))

    def q(self, params: Any, stats: PartStats) -> float:
        _, ones, zeros = self._moments(stats)
        return expected_log(ones, params.probabilities) + expected_log(zeros, 1.0 - params.probabilities)

    def score(self, params: Any, stats: PartStats) -> Any:
        _, ones, zeros = self._moments(stats)  # linear in them, for Hessian products
        p = params.probabilities
        return self.params(_within(ones, p) - _within(zeros, 1.0 - p))

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        _, ones, zeros = self._moments(stats)
        p = params.probabilities
        curve = _within(_within(ones, p), p) + _within(_within(zeros, 1.0 - p), 1.0 - p)
        return self.params(-curve * v.probabilities)

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        count = np.maximum(self._moments(stats)[0], max(EMPTY * stats.weight, TINY))
        return self.params(params.probabilities * (1.0 - params.probabilities) * g.probabilities / count)

    def from_user(self, given: Mapping[str, Any]) -> Any:
        p = given_array(given, "probabilities", {"": (self.k, self.d)})
        wrong = (p < 0) | (p > 1)
        if wrong.any():
            c, j = np.argwhere(wrong)[0]
            raise ValueError(f"start: probabilities must be from 0 to 1, that of component {c} in column {j} is {p[c, j]}")
        return self.params(p)

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> NDArray[np.int64]:
        return (rng.random((len(of), self.d)) < params.probabilities[of]).astype(np.int64)

    def boundary(self, params: Any) -> tuple[str, ...]:
        p, free = params.probabilities, ~self.fixed.get("probabilities", np.zeros((self.k, self.d), dtype=bool))
        sides = ((0, p <= NEGLIGIBLE), (1, 1.0 - p <= NEGLIGIBLE))
        return tuple(
            f"the probability of component {c} in column {j} is {side}"
            for side, low in sides
            for c, j in np.argwhere(low & free)
        )

    def condition(self, params: Any) -> Array:
        # What cancels where ones are likely: the logarithm of the odds against that of the probability of a zero.
        p = np.clip(params.probabilities, TINY, 1.0 - np.finfo(float).eps)
        return np.sum(np.maximum(np.log(p) - np.log1p(-p), 0.0), axis=1)

    def warnings(self) -> tuple[str, ...]:
        return tuple(
            f"X holds {value} only in {_rows.named(columns)}: its probabilities are fitted as {value}"
            for value, columns in enumerate(self._constant)
            if len(columns)
        )


def _within(a: Array, b: Array) -> Array:
    """Return a / b; 0 where b is 0, at a limit where nothing moves."""
    return np.divide(a, b, out=np.zeros(a.shape), where=b != 0)


def BernoulliMixture(  # noqa: N802
    n_components: int, *, prior: Beta | None = None, weights_prior: Dirichlet | None = None
) -> Model:
    """Return the model of a Bernoulli mixture: columns of zeros and ones, independent given the component.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    prior : Beta, optional
        Of each probability.
    weights_prior : Dirichlet, optional
        Of the weights.

    Returns
    -------
    Model
        Parameters ``weights`` (k,), ``probabilities`` (k, d) of a one. They may be 0 or 1: a column in which a component has
        zeros only, or ones only. They sit at the boundary of the parameter space then, and the result says so.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Data that hold anything but 0 and 1 are refused when the model is bound to them, and so are such new rows.
    """
    k = whole("n_components", n_components)
    options = {"n_components": k} | given_priors(prior, weights_prior)
    return Model(Mixture(k, weights_prior), Bernoulli(k, prior), name="BernoulliMixture", options=options)
