"""Mixtures of spherical Gaussians of one known variance: the models in which EM is gradient ascent.

With the variance known, `q` is quadratic in the means. Where its curvature is the same in all of them, as in the symmetric
mixture ``N(mean, v I) / 2 + N(-mean, v I) / 2``, the EM step is a gradient step of one constant length, v on the mean
log-likelihood. So that this can be said in the user's units, these models have no frame: coordinates are the means themselves.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emcore._checks import finite_array, positive, proportions, whole
from emcore.models._base import Field, Model, Part, PartStats, given_array, params_type, width
from emcore.models._charts import Real
from emcore.models._frame import Frame
from emcore.models.gaussian import EMPTY, UNKNOWN_ROWS, VarianceGaussian
from emcore.models.mixture import KnownWeights, Mixture

if TYPE_CHECKING:
    from emcore.data import Block, DataSource
    from emcore.kernels import Emission, Kernel

__all__ = ["KnownVarianceGaussian", "KnownVarianceMixture", "SymmetricGaussian", "SymmetricGaussianMixture"]

Array = NDArray[np.float64]


class KnownVarianceGaussian(Part):
    """Spherical Gaussians of one known variance: ``means`` (k, d).

    Passes and statistics are those of `VarianceGaussian`. With N counts and s sums about the means the M-step is
    ``mean + s / N``, the score ``s / v`` and the metric ``v / N``: the EM step is P times the score exactly.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent", "sparse"})
    several = True
    d: int
    _inner: VarianceGaussian  # with variances among its parameters

    def __init__(self, k: int, variance: float):
        self.k, self.variance = k, variance

    def bind(self, source: DataSource) -> KnownVarianceGaussian:
        return self._bound(source.n_columns, source.n_rows)

    def _bound(self, d: int, n_rows: int) -> KnownVarianceGaussian:
        new = copy.copy(self)
        new.d = d
        itself = Frame(np.zeros(d), np.ones(d), np.ones(d), ())
        new._inner = VarianceGaussian(self.k, "spherical", 0.0)._bound(itself, n_rows)
        new._fields, new._layout = (self._field(d),), new._inner.layout
        return new

    def _field(self, d: int) -> Field:
        return Field("means", (self.k, d), Real((self.k, d)))

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {"d": np.array(self.d)}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> KnownVarianceGaussian:
        return self._bound(int(state["d"]), UNKNOWN_ROWS)

    def initial(self) -> Any:
        return self.params(np.zeros(self.fields[0].shape))

    def _means(self, params: Any) -> Array:
        """Return the means (..., k, d), a linear function of the parameters."""
        return params.means

    def _pulled(self, means: Array) -> Array:
        """Return the transpose of `_means` of a gradient with respect to the means (..., k, d)."""
        return means

    def _counts(self, stats: PartStats) -> Array:
        """Return the counts by which sums are divided."""
        return self.layout.view(stats.vector, "count")[:, None]

    def _within(self, params: Any, variance: float) -> Any:
        """Return the parameters of the part inside: the means, and this variance for all components."""
        return params_type(("means", "covariances"))(self._means(params), np.full(self.k, variance))

    def kernel(self, params: Any) -> Emission:
        return self._inner.kernel(self._within(params, self.variance))

    def fused(self, latent: Part, latent_params: Any, params: Any) -> Kernel | None:
        return self._inner.fused(latent, latent_params, self._within(params, self.variance))

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> Emission:
        return self._inner.tangent_kernel(self._within(params, self.variance), [self._within(v, 0.0) for v in directions])

    def origin(self, params: Any) -> Array:
        return self._means(params).ravel()

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        return self._inner.recentre(stats, new)

    def m_step(self, params: Any, stats: PartStats) -> Any:
        counts = self._counts(stats)
        empty = counts <= EMPTY * stats.weight
        total = self._pulled(self.layout.view(self.recentre(stats, self.origin(params)).vector, "sum"))
        old = params[0]
        new = old + total / np.where(empty, 1.0, counts)
        return self.params(np.where(empty | self.fixed.get(self.names[0], np.False_), old, new))

    def q(self, params: Any, stats: PartStats) -> float:
        return self._inner.q(self._within(params, self.variance), stats)

    def score(self, params: Any, stats: PartStats) -> Any:
        return self.params(self._pulled(self._inner.score(self._within(params, self.variance), stats).means))

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        moved = self._inner.q_hvp(self._within(params, self.variance), stats, self._within(v, 0.0))
        return self.params(self._pulled(moved.means))

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        counts = np.maximum(self._counts(stats), max(EMPTY * stats.weight, np.finfo(float).tiny))
        return self.params(self.variance * g[0] / counts)

    def from_user(self, given: Mapping[str, Any]) -> Any:
        field = self.fields[0]
        return self.params(given_array(given, field.name, {"": field.shape}))

    def sized(self, given: Mapping[str, Any]) -> KnownVarianceGaussian:
        return self._bound(width(given, "means", self.k), UNKNOWN_ROWS)

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: Array | None = None) -> Array:
        return self._means(params)[of] + math.sqrt(self.variance) * rng.standard_normal((len(of), self.d))

    def framed(self, block: Block) -> Array:
        return np.asarray(block.rows[0], dtype=np.float64)


class SymmetricGaussian(KnownVarianceGaussian):
    """Two spherical Gaussians of one known variance, at ``mean`` (d,) and at its negative.

    With N the total weight and s the sum about the first mean less that about the second, the M-step is ``mean + s / N`` and
    the score ``s / v`` (Balakrishnan, Wainwright and Yu 2017).
    """

    def __init__(self, variance: float):
        super().__init__(2, variance)

    def _field(self, d: int) -> Field:
        return Field("mean", (d,), Real((d,)), by_state=False)

    def _means(self, params: Any) -> Array:
        return np.stack([params.mean, -params.mean], axis=-2)

    def _pulled(self, means: Array) -> Array:
        return means[..., 0, :] - means[..., 1, :]

    def _counts(self, stats: PartStats) -> Array:
        return self.layout.view(stats.vector, "count").sum()

    def sized(self, given: Mapping[str, Any]) -> SymmetricGaussian:
        return self._bound(len(given_array(given, "mean", {"": ("d",)})), UNKNOWN_ROWS)

    def places(self, params: Any) -> Array:
        return self._means(params)

    def permuted(self, params: Any, order: Sequence[int]) -> Any:
        return self.params(params.mean if order[0] == 0 else -params.mean)


def KnownVarianceMixture(  # noqa: N802
    n_components: int, variance: float, *, weights: ArrayLike | None = None
) -> Model:
    """Return the model of a mixture of spherical Gaussians that share one known variance.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    variance : float
        Of each column of each component, in the user's units.
    weights : array_like (k,), optional
        The mixture weights, where these are known too; by default they are parameters.

    Returns
    -------
    Model
        Parameters ``weights`` (k,), unless they are known, and ``means`` (k, d).

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Coordinates are the means in the user's units, without a frame. An EM step moves each mean by ``variance / N_k`` times the
    gradient of the log-likelihood: by gradient ascent of a step of its own for each component.
    """
    k, variance = whole("n_components", n_components), positive("variance", variance)
    options: dict[str, Any] = {"n_components": k, "variance": variance}
    latent = Mixture(k)
    if weights is not None:
        known = proportions("weights", finite_array("weights", weights, {"": (k,)}))
        latent, options["weights"] = KnownWeights(known), known.tolist()
    return Model(latent, KnownVarianceGaussian(k, variance), name="KnownVarianceMixture", options=options)


def SymmetricGaussianMixture(variance: float) -> Model:  # noqa: N802
    """Return the model ``N(mean, variance I) / 2 + N(-mean, variance I) / 2`` of known variance.

    Parameters
    ----------
    variance : float
        In the user's units.

    Returns
    -------
    Model
        Parameter ``mean`` (d,); its sign is arbitrary.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    The model of which EM *is* gradient ascent: `emcore.solvers.GradientAscent` (and first-order EM) with the constant step
    `variance` on the mean log-likelihood take the steps of EM, to rounding. In the operator of Balakrishnan, Wainwright and Yu
    (2017), who leave the variance out of q, that is the step 1. Coordinates are the mean in the user's units, without a frame.
    """
    variance = positive("variance", variance)
    return Model(
        KnownWeights(np.array([0.5, 0.5])), SymmetricGaussian(variance), name="SymmetricGaussianMixture",
        options={"variance": variance},
    )  # fmt: skip
