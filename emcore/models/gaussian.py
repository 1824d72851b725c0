"""Gaussian emissions with full, tied, diagonal or spherical covariances, and the Gaussian mixture.

All formulas are for statistics about an origin o (the means of the pass): with ``N`` counts, ``s = sum r (x - o)``,
``S = sum r (x - o)(x - o)'`` the M-step is ``mean = o + s / N``, ``Sigma = S / N - (s / N)(s / N)'``, so that nothing cancels
but what the step itself moves. The covariances are constrained, ``Sigma >= reg I`` in frame units: clipping eigenvalues is
then the exact M-step, and EM and the gradient climb the same hill.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore import kernels
from emcore._cached import cached_property
from emcore._checks import floor, one_of, symmetric, whole
from emcore.kernels import COVARIANCES, GaussianDiag, GaussianTri, all_finite, freeze, gaussian_variances, single_lanes
from emcore.kernels import GaussianMixture as MixtureKernel
from emcore.kernels.arrays import LOG_2PI
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array, width
from emcore.models._charts import SPD, Positive, Real
from emcore.models._frame import Frame
from emcore.models._least_squares import lower
from emcore.models._priors import Dirichlet, NormalInverseGamma, NormalInverseWishart, Prior, checked, given_priors
from emcore.models.mixture import Mixture
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import Block, DataSource

__all__ = ["COVARIANCES", "Gaussian", "GaussianMixture", "MatrixGaussian", "VarianceGaussian"]

Array = NDArray[np.float64]

EPS = float(np.finfo(float).eps)
TINY = float(np.finfo(float).tiny)
DROPPED = 37.0  # nats: a term below e^-DROPPED of a count, divided by how many there are, is below its rounding
SINGLE = 16.0  # standard deviations from the centre of the data within which float32 lanes keep six digits
SINGLE_NOISE = 2.0**-26  # of the value of a pass in float32 lanes, relative
UNKNOWN_ROWS = 2**40
MOST_DIRECTIONS = 1 << 19  # numbers: 4 MB
REMEMBERED = 1 << 21  # numbers: 16 MB
LARGE = 1 << 20  # rows x components x columns from which shortcuts pay for their preparation
AT_FLOOR = 1.001  # times the floor: an eigenvalue below this sits on it
MOST_TURNS = 200  # of means and covariances in an M-step that has no closed form
EMPTY = 1e-250  # a count below this part of the total weight says nothing about a mean


def _collapsed(component: int, detail: str = "") -> Breakdown:
    return Breakdown(Failure(Status.COLLAPSED, f"component {component}", detail=detail or "Its covariance is singular."))


def _lasting(array: Array) -> bool:
    """Tell whether an array cannot change, and is small enough to be remembered."""
    base = array.base
    kept = isinstance(base, np.ndarray) and not base.flags.writeable
    return not array.flags.writeable and (base is None or kept) and array.size <= REMEMBERED


class Gaussian(Part):
    """What the covariance types share. Statistics: ``[count k | mass k | sum k*d | second-order part]``.

    Parameters
    ----------
    k : int
    covariance : str
    reg : float
        Floor of the covariances' eigenvalues, in frame units (about the columns' variances).
    sparse : bool
        Whether a mixture's pass leaves out what is below the rounding of its counts.
    single : bool
        Whether a mixture's pass may use lanes of float32 for float32 rows.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent", "sparse"})
    conjugate: ClassVar[type[Prior]]
    frame: Frame
    d: int
    threshold: float
    _large: bool
    _float32: bool
    _log_norm0: float
    _known: tuple[tuple[Any, Any], tuple[Any, Any]]
    _surplus = 0.0

    def __init__(
        self, k: int, covariance: str, reg: float, sparse: bool = True, single: bool = False, prior: Prior | None = None
    ):
        self.k, self.covariance, self.reg, self.sparse, self.single = k, covariance, reg, sparse, single
        self.prior = checked("prior", prior, self.conjugate)

    def bind(self, source: DataSource) -> Gaussian:
        float32 = source.block(0).rows[0].dtype == np.float32
        return self._bound(Frame.of(source, common=self.covariance == "spherical"), source.n_rows, float32)

    def bound_state(self) -> dict[str, Array]:
        return self.frame.state()

    def rebound(self, state: Mapping[str, Array]) -> Gaussian:
        return self._bound(Frame.restored(state), UNKNOWN_ROWS)

    def _bound(self, frame: Frame, n_rows: int, float32: bool = False) -> Gaussian:
        new = copy.copy(self)
        new.frame, new.d = frame, len(frame.shift)
        new.threshold = DROPPED + math.log(max(n_rows, self.k)) if self.sparse else math.inf
        new._large = n_rows * self.k * new.d >= LARGE
        new._float32 = float32
        new._log_norm0 = frame.log_jacobian - 0.5 * new.d * LOG_2PI
        new._known = ((None, None), (None, None))
        new._fields = (Field("means", (self.k, new.d), Real((self.k, new.d))), new._covariance_field())
        new._layout = Layout({"count": (self.k,), "mass": (self.k,), "sum": (self.k, new.d), "second": new._second_shape()})
        return new

    @abstractmethod
    def _covariance_field(self) -> Field: ...

    @abstractmethod
    def _second_shape(self) -> tuple[int, ...]: ...

    @property
    def _counts_shape(self) -> tuple[int, ...]:
        """Shape of the counts beside the covariances: one a component, but one for all where tied."""
        return (self.k,) + (1,) * (len(self.fields[1].shape) - 1)

    def origin(self, params: Any) -> Array:
        return params.means.ravel()

    def fused(self, latent: Part, latent_params: Any, params: Any) -> MixtureKernel | None:
        if not isinstance(latent, Mixture):
            return None
        if not all_finite(params.means):  # such a component has no weight, and what has none is skipped
            raise Breakdown(Failure(Status.NON_FINITE, "means"))
        return self._fused(latent.log_weights(latent_params), params)

    def _in_single(self, params: Any) -> bool:
        """Return whether rows are float32 and, whitened in float32, lose no more than the seventh digit."""
        return self.single and self._float32 and single_lanes() and self._amplification(params) <= SINGLE**2

    @abstractmethod
    def _amplification(self, params: Any) -> float:
        """Return the square of how much larger whitened rows can be before their terms cancel, rows being near a mean."""

    def coarseness(self, params: Any) -> float:
        return SINGLE_NOISE if self._in_single(params) else 0.0

    @abstractmethod
    def _fused(self, log_weights: Array, params: Any) -> MixtureKernel:
        """Return the kernel of a mixture of these."""

    def _moments(self, stats: PartStats) -> tuple[Array, Array, Array]:
        """Return the masses that sums are of (k,), sums (k, d) and second-order statistics, about the origin."""
        view, vector = self.layout.view, stats.vector
        return view(vector, "mass"), view(vector, "sum"), view(vector, "second")

    def _new_means(self, params: Any, stats: PartStats) -> tuple[Array, Array, Array]:
        """Return new means, their moves (k, d) from the origin, and counts with 1 for empty components."""
        count, total, _ = self._moments(stats)
        empty = count <= EMPTY * stats.weight
        divisor = np.where(empty, 1.0, count)
        delta = total / divisor[:, None]
        origin = stats.origin.reshape(self.k, self.d)
        return np.where(empty[:, None], params.means, origin + delta), delta, divisor

    def _pseudo_statistics(self) -> tuple[Array, Array, float]:
        prior = self.prior
        mean = np.array(prior.mean)
        if mean.shape != (self.d,):
            raise ValueError(f"prior: mean must have shape ({self.d},), as X has {self.d} columns, got {mean.shape}")
        second, self._surplus, constant = self._pseudo_second(prior)
        vector = np.zeros(self.layout.size)
        self.layout.view(vector, "count")[:] = self.layout.view(vector, "mass")[:] = prior.strength
        self.layout.view(vector, "second")[:] = second
        constant += self.k * 0.5 * self.d * (math.log(prior.strength) - LOG_2PI)
        return vector, np.tile((mean - self.frame.shift) * self.frame.scale, self.k), constant

    @abstractmethod
    def _pseudo_second(self, prior: Any) -> tuple[Array, float, float]:
        """Return what a prior means for the covariances.

        Returns
        -------
        second : ndarray
            Second-order statistics about its mean.
        surplus : float
            By how much the count in a covariance's divisor exceeds that in its means'.
        constant : float
            What the logarithm of its density has beyond the expected log-density of such statistics, but for the means.
        """

    def _fixed_m_step(self, params: Any, stats: PartStats) -> Any:
        """Return the M-step where something is fixed; `params` says at which values.

        Means given covariances and covariances given means have closed forms. Neither depends on the other unless some
        entries of a mean are fixed beside free ones under a full covariance; the two then take turns from the
        covariances about the free means, which is the maximum already where covariances are neither tied nor at the floor.
        """
        free, low = self._new_means(params, stats)[0], self.q(params, stats)
        for covariances in (self._covariances_given(params, free, stats), params.covariances):  # the second can only rise
            found = params
            for turn in range(MOST_TURNS):
                means = self._means_given(params, covariances, free)
                if turn and np.abs(means - found.means).max() <= 4 * EPS * np.abs(means).max():
                    break
                covariances = self._covariances_given(params, means, stats)
                found = self.params(means, covariances)
            if self.q(found, stats) >= low:
                break
        return found

    def _means_given(self, params: Any, covariances: Array, free: Array) -> Array:
        """Return the best means (k, d) under these covariances, `free` being those where nothing is fixed."""
        return np.where(self.fixed.get("means", np.False_), params.means, free)

    def _covariances_given(self, params: Any, means: Array, stats: PartStats) -> Array:
        """Return the best covariances about these means, those fixed as they are.

        Raises
        ------
        Breakdown
            Where one collapses.
        """
        best = self._best_covariances(params, self.recentre(stats, means.ravel()))
        covariances = np.where(self.fixed.get("covariances", np.False_), params.covariances, best)
        if self.reg == 0:
            self._check(covariances)
        return covariances

    @abstractmethod
    def _best_covariances(self, params: Any, stats: PartStats) -> Array:
        """Return the best covariances about the origin of the statistics; that of an empty component stays."""

    @abstractmethod
    def _check(self, covariances: Array) -> None:
        """Raise the breakdown of a component whose covariance is singular."""

    def _moves(self, params: Any, stats: PartStats) -> Array:
        """Return new means less those of `params`, (k, d); 0 for empty components."""
        _, delta, _ = self._new_means(params, stats)
        moves = delta + (stats.origin.reshape(self.k, self.d) - params.means)
        return np.where((self._moments(stats)[0] > EMPTY * stats.weight)[:, None], moves, 0.0)

    def to_user(self, params: Any) -> Any:
        means = params.means / self.frame.scale + self.frame.shift
        return self.params(means, self._scaled(params.covariances, 1.0 / self.frame.scale))

    def to_user_tangent(self, v: Any) -> Any:
        return self.params(v.means / self.frame.scale, self._scaled(v.covariances, 1.0 / self.frame.scale))

    @abstractmethod
    def _scaled(self, covariances: Array, scale: Array) -> Array:
        """Return the covariances of rows multiplied by scale (d,)."""

    def from_user(self, given: Mapping[str, Any]) -> Any:
        means = given_array(given, "means", {"": (self.k, self.d)})
        shape = self.fields[1].shape
        covariances = given_array(given, "covariances", {f"covariance={self.covariance!r}": shape})
        if covariances.ndim >= 2 and isinstance(self, MatrixGaussian):
            covariances = symmetric("start: covariances", covariances)
        framed = self._scaled(covariances, self.frame.scale)
        lowest = self._lowest(framed)
        allowed = max(self.reg * (1 - 1e-9), 0.0)
        if not (lowest > allowed).all() and not (self.reg > 0 and (lowest >= allowed).all()):
            c = int(np.argmin(lowest))
            which = "" if self.covariance == "tied" else f" of component {c}"
            raise ValueError(
                f"start: the covariance{which} must be positive definite with eigenvalues above the floor: its smallest is "
                f"{lowest[c]:.3g} in frame units (columns of about unit variance), the floor reg={self.reg:g}"
            )
        return self.params((means - self.frame.shift) * self.frame.scale, framed)

    @abstractmethod
    def _lowest(self, covariances: Array) -> Array:
        """Return the smallest eigenvalue of each covariance."""

    def sized(self, given: Mapping[str, Any]) -> Gaussian:
        new = copy.copy(self)
        new.reg = 0.0  # a floor is relative to data
        return new._bound(Frame.about_zero(self._spread(given, width(given, "means", self.k))), UNKNOWN_ROWS)

    def _spread(self, given: Mapping[str, Any], d: int) -> Array:
        """Return the variances of columns by which given parameters, not checked yet, are to be scaled, (d,)."""
        return np.ones(d)

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: Array | None = None) -> Array:
        rows = params.means[of] + self._coloured(params.covariances, of, self._noise(len(of), rng))
        return rows / self.frame.scale + self.frame.shift

    def _noise(self, n: int, rng: np.random.Generator) -> Array:
        """Return n rows drawn about 0 with the identity for a covariance, (n, d)."""
        return rng.standard_normal((n, self.d))

    @abstractmethod
    def _coloured(self, covariances: Array, states: NDArray[np.intp], white: Array) -> Array:
        """Return white noise (n, d) with the covariances of these states (n,)."""

    def boundary(self, params: Any) -> tuple[str, ...]:
        if self.reg == 0:
            return ()
        low = np.flatnonzero(self._lowest(self._unfixed(params.covariances)) <= AT_FLOOR * self.reg)
        if self.covariance == "tied":
            return ("the common covariance is at its floor",) if len(low) else ()
        return tuple(f"the covariance of component {c} is at its floor" for c in low)

    def _unfixed(self, covariances: Array) -> Array:
        """Return the covariances with those fixed far above the floor."""
        if "covariances" not in self.fixed:
            return covariances
        return np.where(self.fixed["covariances"], self.initial().covariances, covariances)

    def framed(self, block: Block) -> Array:
        return (block.rows[0] - self.frame.shift) * self.frame.scale

    def warnings(self) -> tuple[str, ...]:
        constant = self.frame.constant
        if not constant:
            return ()
        names = ", ".join(map(str, constant))
        if self.covariance == "spherical":
            ending = "it adds nothing to the variance that the columns share"
        elif self.reg > 0:
            ending = "its variance is fitted at the floor"
        else:
            ending = "with reg=0 its variance has no floor to rest on"
        return (f"X is constant in column{'s' * (len(constant) > 1)} {names}: {ending}",)


class MatrixGaussian(Gaussian):
    """Full covariances, one a component, or one tied covariance for all. Second-order part: lower triangles row by row."""

    several = True
    conjugate = NormalInverseWishart

    def _pseudo_second(self, prior: NormalInverseWishart) -> tuple[Array, float, float]:
        d, means = self.d, self.k if self.tied else 1  # so many means share a covariance
        scale = np.array(prior.scale)
        count = prior.dof + d + 1.0 + means
        log_gamma = 0.25 * d * (d - 1) * math.log(math.pi) + sum(math.lgamma(0.5 * (prior.dof - i)) for i in range(d))
        constant = 0.5 * prior.dof * (float(np.linalg.slogdet(scale)[1]) - d * math.log(2.0)) - log_gamma
        constant += 0.5 * count * d * LOG_2PI
        second = self._scaled(scale, self.frame.scale)[lower(d)]
        return second, count - means * prior.strength, (1 if self.tied else self.k) * constant

    @cached_property
    def tied(self) -> bool:
        """Whether all components share one covariance."""
        return self.covariance == "tied"

    def _covariance_field(self) -> Field:
        shape = (self.d, self.d) if self.tied else (self.k, self.d, self.d)
        return Field("covariances", shape, SPD(shape, self.reg), by_state=not self.tied)

    def _second_shape(self) -> tuple[int, ...]:
        return (1 if self.tied else self.k, self.d * (self.d + 1) // 2)

    def _batch(self, covariances: Array) -> Array:
        return covariances[..., None, :, :] if self.tied else covariances

    def initial(self) -> Any:
        shape = self.fields[1].shape
        return self.params(np.zeros((self.k, self.d)), np.broadcast_to(np.eye(self.d), shape).copy())

    def _factors(self, covariances: Array) -> tuple[Array, Array]:
        """Return inverse Cholesky factors (m, t), packed, and log-norms (k,), or break down at a component that has none."""
        lasting = _lasting(covariances)
        for known, found in self._known:
            if known is covariances and lasting:
                return found
        inverse, log_norms, bad = kernels.gaussian_matrices.factors(covariances, self._log_norm0)
        if bad < -1:
            raise Breakdown(Failure(Status.NON_FINITE, "covariances"))
        if bad >= 0:
            raise _collapsed(bad)
        found = inverse, np.repeat(log_norms, self.k) if self.tied else log_norms
        if lasting:  # asked for again: by the pass, by q before and after a step
            self._known = ((covariances, found), self._known[0])
        return found

    def _kernel_arrays(self, params: Any) -> tuple[Array, Array, Array, Array, Array]:
        return params.means, *self._factors(params.covariances), self.frame.shift, self.frame.scale

    def kernel(self, params: Any) -> GaussianTri:
        return self._tri(params, None)

    def _tri(self, params: Any, tangents: tuple[Array, Array, Array] | None) -> GaussianTri:
        return GaussianTri(*self._kernel_arrays(params), self.tied, tangents)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> GaussianTri:
        inverse = self._factors(params.covariances)[0]
        means, covariances = (np.array(moves) for moves in zip(*directions, strict=True))
        return self._tri(params, kernels.gaussian_matrices.tangents(inverse, means, covariances))

    def _inverse_factors(self, covariances: Array) -> Array:
        """Return the inverse Cholesky factors as matrices (m, d, d)."""
        packed = self._factors(covariances)[0]
        inverse = np.zeros((len(packed), self.d, self.d))
        inverse[:, *lower(self.d)] = packed
        return inverse

    def _fused(self, log_weights: Array, params: Any) -> MixtureKernel:
        arrays = self._kernel_arrays(params)
        kernel = MixtureKernel(
            log_weights, *arrays, diagonal=False, pooled=self.tied, threshold=self.threshold, single=self._in_single(params)
        )
        return kernel if not self._large or kernel.white else kernel.replace(**self._shortcuts(log_weights, params, arrays[1]))

    def _amplification(self, params: Any) -> float:
        spread = np.diagonal(self._batch(params.covariances), axis1=1, axis2=2)
        size = np.square(params.means) + 9.0 * spread
        cols = lower(self.d)[1]
        terms = np.square(self._factors(params.covariances)[0]) * size[:, cols]
        return float(np.add.reduceat(terms, np.flatnonzero(cols == 0), axis=1).max())

    def _shortcuts(self, log_weights: Array, params: Any, packed: Array) -> dict[str, Any]:
        covariances, means = self._batch(params.covariances), params.means
        common = packed
        if not self.tied:
            common, _, bad = kernels.gaussian_matrices.factors(
                np.einsum("c,cij->ij", np.exp(log_weights), covariances)[None], 0.0
            )
            if bad != -1:
                return {}
        slopes = kernels.gaussian_matrices.slopes(means, common)
        found = {"guess": (slopes, log_weights - 0.5 * np.einsum("cj,cj->c", slopes, means))}
        if self.k * self.k * self.d <= MOST_DIRECTIONS:
            found["directions"] = kernels.gaussian_matrices.directions(means, packed)
        return found

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        vector = kernels.gaussian_matrices.recentre(stats.vector, stats.origin, new, self.k, self.d, self.tied)
        return stats if vector is stats.vector else PartStats(vector, new, stats.weight)

    def m_step(self, params: Any, stats: PartStats) -> Any:
        if self.fixed:
            return self._fixed_m_step(params, stats)
        vector, origin, weight = stats
        means, covariances, above = kernels.gaussian_matrices.m_step(
            self._heavy(vector), origin, params.means, params.covariances, EMPTY * weight, self.reg
        )
        if above < 0:
            raise Breakdown(Failure(Status.NON_FINITE, "covariances"))
        if self._uneven:
            counts, divisors = self._pooled_counts(stats), self._divisors(stats)
            full = counts > EMPTY * weight  # others stay
            covariances = covariances * np.where(full, counts / np.where(full, divisors, 1.0), 1.0)[:, None, None]
            above = False
        if not above and self.reg > 0:
            covariances = self._floored(covariances)
        freeze((covariances,))
        if self.tied:
            covariances = covariances[0]
        if self.reg == 0:
            self._factors(covariances)
        return self.params(means, covariances)

    def _means_given(self, params: Any, covariances: Array, free: Array) -> Array:
        means = super()._means_given(params, covariances, free)
        for c, fixed, S in self._partly_fixed(covariances):
            away = params.means[c, fixed] - free[c, fixed]
            means[c, ~fixed] += S[np.ix_(~fixed, fixed)] @ np.linalg.solve(S[np.ix_(fixed, fixed)], away)
        return means

    def _partly_fixed(self, covariances: Array) -> Iterator[tuple[int, NDArray[np.bool_], Array]]:
        """Yield the components of whose mean some entries are fixed beside free ones, which entries, and the covariance."""
        batch = self._batch(covariances)
        for c, fixed in enumerate(self.fixed.get("means", ())):
            if fixed.any() and not fixed.all():
                yield c, fixed, batch[min(c, len(batch) - 1)]

    @property
    def separable(self) -> bool:
        fixed = self._batch(self.fixed.get("covariances", np.zeros(self.fields[1].shape, dtype=bool)))
        partly = self._partly_fixed(self.initial().covariances)
        return all(fixed[min(c, len(fixed) - 1)].all() for c, _, _ in partly)

    def _check(self, covariances: Array) -> None:
        self._factors(covariances)

    def _pooled_counts(self, stats: PartStats) -> Array:
        """Return the counts that belong to each covariance, (m,)."""
        count = self.layout.view(stats.vector, "mass")
        return count.sum(keepdims=True) if self.tied else count

    @property
    def _uneven(self) -> bool:
        """Whether second-order statistics are divided by other numbers than sums."""
        return self._surplus != 0.0

    def _excess(self, stats: PartStats) -> Array:
        """Return by how much that by which second-order statistics are divided exceeds that of the sums, (m,)."""
        return np.full(1 if self.tied else self.k, self._surplus * self._share(stats))

    def _divisors(self, stats: PartStats) -> Array:
        """Return by what the second-order statistics of each covariance are divided, (m,)."""
        counts = self._pooled_counts(stats)
        return counts + self._excess(stats) if self._uneven else counts

    def _heavy(self, vector: Array) -> Array:
        """Return statistics as `gaussian_matrices` takes them, with masses in the place of counts."""
        return vector

    def _best_covariances(self, params: Any, stats: PartStats) -> Array:
        counts, second = self._divisors(stats), self._moments(stats)[2]
        empty = counts <= EMPTY * stats.weight
        batch = np.zeros((len(counts), self.d, self.d))
        rows, cols = lower(self.d)
        batch[:, rows, cols] = batch[:, cols, rows] = second / np.where(empty, 1.0, counts)[:, None]
        batch = np.where(empty[:, None, None], self._batch(params.covariances), batch)
        if self.reg > 0:
            batch = self._floored(batch)
        return batch.reshape(params.covariances.shape)

    def _floored(self, batch: Array) -> Array:
        """Return covariances (m, d, d) with eigenvalues clipped at the floor: the constrained maximum of q."""
        low = self._below(batch, self.reg)
        values, vectors = np.linalg.eigh(batch[low])
        clipped = (vectors * np.maximum(values, self.reg)[:, None, :]) @ vectors.transpose(0, 2, 1)
        clipped = 0.5 * (clipped + clipped.transpose(0, 2, 1))
        out = batch.copy()
        out[low] = np.where(values[:, :1, None] < self.reg, clipped, batch[low])
        return out

    def _below(self, batch: Array, bound: float) -> list[int]:
        """Return which of covariances (m, d, d) have eigenvalues below a bound, or next to it."""
        above, factors = batch - bound * np.eye(self.d), kernels.gaussian_matrices.factors
        # Eigenvalues take tens of times as long as a factor, and few matrices are at the floor.
        if factors(above, 0.0)[2] == -1:
            return []
        return [c for c in range(len(batch)) if factors(above[c : c + 1], 0.0)[2] != -1]

    def boundary(self, params: Any) -> tuple[str, ...]:
        at_floor = self.reg > 0 and self._below(self._batch(params.covariances), AT_FLOOR * self.reg)
        return super().boundary(params) if at_floor else ()

    def q(self, params: Any, stats: PartStats) -> float:
        inverse, log_norms = self._factors(params.covariances)
        q = kernels.gaussian_matrices.expected(self._heavy(stats.vector), stats.origin, params.means, inverse, log_norms)
        if self._uneven:
            q += float(self._excess(stats) @ log_norms[: len(inverse)])
        return q

    def score(self, params: Any, stats: PartStats) -> Any:
        inverse = self._factors(params.covariances)[0]
        means, covariances = kernels.gaussian_matrices.score(self._heavy(stats.vector), stats.origin, params.means, inverse)
        if self._uneven:
            excess = 0.5 * self._excess(stats)[:, None, None]
            covariances = covariances - excess * np.linalg.inv(self._batch(params.covariances))
        return self.params(means, covariances.reshape(params.covariances.shape))

    def linear_scores(self, params: Any, stats: PartStats, vectors: Array) -> Any:
        if self._uneven:
            return super().linear_scores(params, stats, vectors)
        inverse = self._factors(params.covariances)[0]
        means, covariances = kernels.gaussian_matrices.score(vectors, stats.origin, params.means, inverse)
        return self.params(means, covariances.reshape((len(vectors), *params.covariances.shape)))

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        inverse = self._factors(params.covariances)[0]
        return self.params(
            *kernels.gaussian_matrices.hvp(
                self._heavy(stats.vector), stats.origin, params.means, inverse, self._divisors(stats), v.means, v.covariances
            )
        )

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        count, least = self.layout.view(stats.vector, "mass"), max(EMPTY * stats.weight, TINY)
        means, covariances = kernels.gaussian_matrices.metric(
            params.covariances, count, self._divisors(stats), g.means, g.covariances, least
        )
        for c, fixed, S in self._partly_fixed(params.covariances):  # of the free entries given those fixed
            known = np.linalg.solve(S[np.ix_(fixed, fixed)], S[np.ix_(fixed, ~fixed)]).T @ S[np.ix_(fixed, ~fixed)]
            means[..., c, ~fixed] -= g.means[..., c, ~fixed] @ known / max(count[c], least)
        return self.params(means, covariances)

    def correction(self, params: Any, stats: PartStats) -> Any:
        moves, count = self._moves(params, stats), self._moments(stats)[0]
        outer = moves[:, :, None] * moves[:, None, :]
        if self.tied:
            return self.params(np.zeros_like(moves), -np.einsum("c,cij->ij", count / self._divisors(stats), outer))
        if self._uneven:
            outer *= (count / np.maximum(self._divisors(stats), TINY))[:, None, None]
        return self.params(np.zeros_like(moves), -outer)

    def condition(self, params: Any) -> Array:
        # Each axis amplifies errors of its own, and a log-density adds them up: at a floor there may be many.
        return kernels.gaussian_matrices.conditions(params.covariances)

    def _scaled(self, covariances: Array, scale: Array) -> Array:
        return covariances * scale[:, None] * scale

    def _lowest(self, covariances: Array) -> Array:
        return np.linalg.eigvalsh(self._batch(covariances))[:, 0]

    def _spread(self, given: Mapping[str, Any], d: int) -> Array:
        # The eigenvalues of covariances of columns in units far apart are not known to their own digits.
        covariances = given_array(given, "covariances", {"": (d, d) if self.tied else (self.k, d, d)})
        return np.diagonal(self._batch(covariances), axis1=1, axis2=2).max(axis=0)

    def _coloured(self, covariances: Array, states: NDArray[np.intp], white: Array) -> Array:
        try:
            factors = np.linalg.cholesky(self._batch(covariances))
        except np.linalg.LinAlgError:
            raise ValueError("params: covariances are positive definite to less than rounding") from None
        if self.tied:
            return white @ factors[0].T
        out = np.empty_like(white)
        for c, L in enumerate(factors):
            out[states == c] = white[states == c] @ L.T
        return out


class VarianceGaussian(Gaussian):
    """Diagonal covariances, (k, d) variances, or spherical ones, (k,). Second-order part: squares, (k, d) or (k,)."""

    several = True
    conjugate = NormalInverseGamma

    def _pseudo_second(self, prior: NormalInverseGamma) -> tuple[Array, float, float]:
        scale = np.array(prior.scale)
        if self.spherical and scale.ndim:
            raise ValueError("prior: scale must be one number, as a spherical component has one variance")
        if scale.shape not in ((), (self.d,)):
            raise ValueError(f"prior: scale must be one number or have shape ({self.d},), got {scale.shape}")
        count = 2.0 * (prior.shape + 1.0) / self._shared + 1.0
        shares = np.broadcast_to(scale, (1 if self.spherical else self.d,))
        constant = float(np.sum(prior.shape * np.log(shares))) - len(shares) * math.lgamma(prior.shape)
        constant += 0.5 * count * self.d * LOG_2PI
        second = 2.0 * scale * self.frame.scale[: len(shares)] ** 2
        return second, count - prior.strength, self.k * constant

    @cached_property
    def spherical(self) -> bool:
        """Whether the columns of a component share one variance."""
        return self.covariance == "spherical"

    def _covariance_field(self) -> Field:
        shape = self._second_shape()
        return Field("covariances", shape, Positive(shape, self.reg))

    def _second_shape(self) -> tuple[int, ...]:
        return (self.k,) if self.spherical else (self.k, self.d)

    def _columns(self, values: Array) -> Array:
        """Return variances or their like as (..., k, 1) or (..., k, d)."""
        return values[..., None] if self.spherical else values

    def _pooled(self, values: Array) -> Array:
        """Return (..., k, d) summed over the columns that share a variance, in the shape of the variances."""
        return values.sum(axis=-1) if self.spherical else values

    @property
    def _shared(self) -> int:
        """How many columns share a variance."""
        return self.d if self.spherical else 1

    def initial(self) -> Any:
        return self.params(np.zeros((self.k, self.d)), np.ones(self._second_shape()))

    def _check(self, covariances: Array) -> None:
        self._factors(covariances)

    def _factors(self, covariances: Array) -> tuple[Array, Array]:
        """Return inverse standard deviations (k, d) and log-norms (k,), or break down at a component that has none."""
        inverse, log_norms, bad = gaussian_variances.factors(covariances, self.k, self.d, self._log_norm0)
        if bad >= 0:
            raise _collapsed(bad)
        return inverse, log_norms

    def _kernel_arrays(self, params: Any) -> tuple[Array, Array, Array, Array, Array]:
        return params.means, *self._factors(params.covariances), self.frame.shift, self.frame.scale

    def kernel(self, params: Any) -> GaussianDiag:
        return GaussianDiag(*self._kernel_arrays(params), self.spherical)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> GaussianDiag:
        arrays = self._kernel_arrays(params)
        inverse = arrays[1]
        V = np.array([np.broadcast_to(self._columns(v.covariances), (self.k, self.d)) for v in directions])
        curves = 0.5 * V * inverse * inverse
        slopes = np.array([v.means for v in directions]) * inverse
        return GaussianDiag(*arrays, self.spherical, (-curves.sum(axis=2), slopes, curves))

    def _fused(self, log_weights: Array, params: Any) -> MixtureKernel:
        return MixtureKernel(
            log_weights, *self._kernel_arrays(params), diagonal=True, pooled=self.spherical, threshold=self.threshold,
            single=self._in_single(params), **self._shortcuts(log_weights, params),
        )  # fmt: skip

    def _amplification(self, params: Any) -> float:
        return float((np.square(params.means) / self._columns(params.covariances)).max()) + 9.0

    def _shortcuts(self, log_weights: Array, params: Any) -> dict[str, Any]:
        if not self._large:
            return {}
        slopes = params.means / (np.exp(log_weights) @ self._columns(params.covariances))
        return {"guess": (slopes, log_weights - 0.5 * np.einsum("cj,cj->c", slopes, params.means))}

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        vector = gaussian_variances.recentre(stats.vector, stats.origin, new, self.k, self.d, self.d // self._shared)
        return stats if vector is stats.vector else PartStats(vector, new, stats.weight)

    def _excess(self, stats: PartStats) -> float:
        """Return by how much that by which second-order statistics are divided exceeds the mass of a component."""
        return self._surplus * self._share(stats) if self._surplus else 0.0

    def m_step(self, params: Any, stats: PartStats) -> Any:
        if self.fixed:
            return self._fixed_m_step(params, stats)
        means, covariances = gaussian_variances.m_step(
            stats.vector, stats.origin, params.means, params.covariances, EMPTY * stats.weight, self.reg, self._excess(stats)
        )
        if self.reg == 0:
            self._check(covariances)
        return self.params(means, covariances)

    def _best_covariances(self, params: Any, stats: PartStats) -> Array:
        count, _, second = self._moments(stats)
        count = count + self._excess(stats)
        empty = (count <= EMPTY * stats.weight).reshape(self._counts_shape)
        covariances = second / (np.where(empty, 1.0, count.reshape(self._counts_shape)) * self._shared)
        return np.maximum(np.where(empty, params.covariances, covariances), self.reg)

    def q(self, params: Any, stats: PartStats) -> float:
        return gaussian_variances.expected(
            stats.vector, stats.origin, params.means, params.covariances, self._log_norm0, self._excess(stats)
        )

    def score(self, params: Any, stats: PartStats) -> Any:
        return self.params(
            *gaussian_variances.score(stats.vector, stats.origin, params.means, params.covariances, self._excess(stats))
        )

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        count, total, second = self._moments(self.recentre(stats, params.means.ravel()))
        s, columns = params.covariances, self._columns(params.covariances)
        counts = (count + self._excess(stats)).reshape(self._counts_shape) * self._shared
        g_means = -(total * self._columns(v.covariances) / columns + count[:, None] * v.means) / columns
        moved = self._pooled(total * v.means)
        return self.params(g_means, ((0.5 * counts - second / s) * v.covariances - moved) / (s * s))

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        return self.params(
            *gaussian_variances.metric(
                params.covariances, self.layout.view(stats.vector, "mass"), self._excess(stats), g.means, g.covariances,
                max(EMPTY * stats.weight, TINY),
            )
        )  # fmt: skip

    def correction(self, params: Any, stats: PartStats) -> Any:
        moves = self._moves(params, stats)
        covariances = -self._pooled(moves * moves) / self._shared
        if self._surplus:
            count = self._moments(stats)[0].reshape(self._counts_shape)
            covariances *= count / (count + self._excess(stats))
        return self.params(np.zeros_like(moves), covariances)

    def _scaled(self, covariances: Array, scale: Array) -> Array:
        return covariances * (scale[0] ** 2 if self.spherical else scale**2)

    def _lowest(self, covariances: Array) -> Array:
        return self._columns(covariances).min(axis=1)

    def _coloured(self, covariances: Array, states: NDArray[np.intp], white: Array) -> Array:
        return np.sqrt(self._columns(covariances))[states] * white


def GaussianMixture(  # noqa: N802
    n_components: int,
    covariance: str = "full",
    *,
    reg: float = 1e-6,
    sparse: bool = True,
    single: bool = False,
    missing: bool = False,
    prior: NormalInverseWishart | NormalInverseGamma | None = None,
    weights_prior: Dirichlet | None = None,
) -> Model:
    """Return the model of a Gaussian mixture.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    covariance : {"full", "tied", "diag", "spherical"}
        One matrix a component, ``covariances`` (k, d, d); one for all, (d, d); variances, (k, d); one variance a
        component, (k,).
    reg : float
        Floor of the covariances: their eigenvalues are constrained to be at least `reg`, in units in which each column of
        the data (spherical: the columns together) has about unit variance (the power of two next to it). Components
        that are a thousand times narrower than the data lie at the default: lower it for them. A component that sits on
        the floor is named in the result. With 0 there is no floor, and a component that collapses ends the climb with a
        status.
    sparse : bool
        Whether a pass leaves out responsibilities so small that they change no count by more than its rounding. The result
        is the same to rounding, but where a row is thousands of standard deviations from all components; separated mixtures
        take a fraction of the time.
    single : bool
        Whether a pass over float32 rows may compute in float32 (sums over many rows apart), nearly twice as fast, where
        parameters and rows leave it six digits. For EM; a line search may not tell a rise from the noise that it brings.
    missing : bool
        Whether NaN in the rows is a missing value, which may be missing for reasons that depend on what is observed of its
        row. Full and tied covariances only. Densities are those of what is observed.
    prior : NormalInverseWishart or NormalInverseGamma, optional
        Of the means and covariances of each component: the former for full and tied ones, the latter for diagonal and
        spherical ones. The fit is then the maximum a posteriori, and values are ``(log-likelihood + log prior) / weight``.
    weights_prior : Dirichlet, optional
        Of the weights.

    Returns
    -------
    Model
        Parameters ``weights`` (k,), ``means`` (k, d), ``covariances``.

    Raises
    ------
    ValueError, TypeError
    """
    k = whole("n_components", n_components)
    one_of("covariance", covariance, COVARIANCES)
    reg = floor(reg)
    if not isinstance(missing, (bool, np.bool_)):
        raise TypeError(f"missing must be True or False, got {missing!r}")
    if missing and covariance not in ("full", "tied"):
        raise ValueError(f"missing=True needs covariance 'full' or 'tied', got {covariance!r}")
    kind: type[Gaussian] = MatrixGaussian if covariance in ("full", "tied") else VarianceGaussian
    options = {"n_components": k, "covariance": covariance, "reg": reg}
    if not sparse:
        options["sparse"] = False
    if single:
        options["single"] = True
    if missing:
        from emcore.models.missing_gaussian import MissingGaussian

        kind, options["missing"] = MissingGaussian, True
    options |= given_priors(prior, weights_prior)
    emission = kind(k, covariance, reg, sparse, single, prior)
    return Model(Mixture(k, weights_prior), emission, name="GaussianMixture", options=options)
