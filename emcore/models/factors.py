"""Factor analysis and mixtures of factor analysers (Rubin and Thayer 1982; Ghahramani and Hinton 1996).

A row is ``x = mean + L f + noise``, f of q independent standard normals, the noise of each column independent with variance
psi: its density is that of ``N(mean, L L' + Psi)``. Given the factors, each column is a regression on them, so that the M-step
is d regressions on ``z = (1, f)`` that share their expected Gram matrix: mean and loadings of a column are its coefficients.

**Gauge.** L and L R have the same density for any rotation R. Loadings are therefore lower trapezoidal, entry (j, i) of column
j and factor i being 0 for i > j; every L L' has such a root. Without it the information would be singular along rotations,
and there would be no Newton step, no standard error and no rate of EM. The M-step keeps to it by leaving out the factors that
a column does not load on. Rotating the result of the full regressions instead would be no maximum of `q`.

What `q` is of: the joint density of row, component and factors, plus the entropy of the factors given the former two. It
touches the log-likelihood's bound for rows whose components are known, so that value less q is the entropy of the
responsibilities alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import finite_array, floor, whole
from emcore.kernels import Coupled, GaussianTri, Given, all_finite, run
from emcore.kernels import FactorAnalyzers as FactorKernel
from emcore.kernels.arrays import LOG_2PI
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array
from emcore.models._charts import Positive, Real, Stacked
from emcore.models._frame import Frame
from emcore.models._least_squares import lower, unpacked
from emcore.models._priors import Dirichlet, given_priors
from emcore.models.gaussian import AT_FLOOR, EMPTY, EPS, TINY, _collapsed
from emcore.models.mixture import KnownWeights, Mixture
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import Block, DataSource

__all__ = ["FactorAnalysis", "FactorAnalyzers", "FactorMixture", "factor_scores", "lower_loadings"]

Array = NDArray[np.float64]

LEAST_NOISE = 0.05  # of the variance of a column, at a start
ABOVE = 1e-12  # relative to the largest: a loading above the diagonal that small was meant to be 0


class Regressions:
    """Expected sums of d regressions of each component on z = (1, f), about some coefficients.

    Attributes
    ----------
    gram : ndarray (k, p, p)
        Of z z', p = 1 + q; its first entry is the count.
    cross : ndarray (k, d, p)
        Of residual times z.
    square : ndarray (k, d)
        Of squared residuals.
    """

    def __init__(self, gram: Array, cross: Array, square: Array):
        self.gram, self.cross, self.square = gram, cross, square

    def moved(self, delta: Array) -> Regressions:
        """Return the sums about coefficients that are larger by delta (k, d, p)."""
        bent = delta @ self.gram
        square = self.square - np.sum(delta * (2.0 * self.cross - bent), axis=2)
        return Regressions(self.gram, self.cross - bent, square)


class FactorAnalyzers(Part):
    """k factor analysers in the frame. Statistics: as `emcore.kernels.FactorAnalyzers` has them.

    With ``G = sum z z'``, ``c = sum e z`` and ``s = sum e^2`` of a column, e being its residual, the M-step is ``G^-1 c`` for
    its mean and loadings together and ``(s - c'G^-1 c) / N`` for its noise; the score is ``c / psi`` and ``(s / psi - N) / (2
    psi)``, the metric P is ``psi G^-1`` (exact) and ``2 psi^2 / N`` (up to ``-delta'G delta / N``, delta the step of the mean
    and loadings). Loadings that are 0 by the gauge, and what is fixed, are left out of the regressors of their column.

    Parameters
    ----------
    k, q : int
        Components and factors.
    tied : bool
        Whether all components share their noise variances.
    reg : float
        Floor of the noise variances, in frame units.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent", "sparse"})
    several = True
    frame: Frame
    d: int

    def __init__(self, k: int, q: int, tied: bool, reg: float):
        self.k, self.n_factors, self.tied, self.reg = k, q, tied, reg

    def bind(self, source: DataSource) -> FactorAnalyzers:
        return self._bound(Frame.of(source))

    def bound_state(self) -> dict[str, Array]:
        return self.frame.state()

    def rebound(self, state: Mapping[str, Array]) -> FactorAnalyzers:
        return self._bound(Frame.restored(state))

    def sized(self, given: Mapping[str, Any]) -> FactorAnalyzers:
        loadings = given_array(given, "loadings", {"": (self.k, "d", self.n_factors)})
        noise = given_array(given, "noise", {"": loadings.shape[1:2] if self.tied else loadings.shape[:2]})
        if self.n_factors >= loadings.shape[1]:
            raise ValueError(f"start: loadings must have fewer factors than columns of the data, got shape {loadings.shape}")
        new = copy.copy(self)
        new.reg = 0.0  # a floor is relative to data
        return new._bound(Frame.about_zero((np.square(loadings).sum(axis=2) + noise).max(axis=0)))

    def _bound(self, frame: Frame) -> FactorAnalyzers:
        k, q, d = self.k, self.n_factors, len(frame.shift)
        if q >= d:
            raise ValueError(f"n_factors must be below the number of columns, {d}, got {q}")
        new = copy.copy(self)
        new.frame, new.d = frame, d
        new._low = np.arange(q) <= np.arange(d)[:, None]
        entries = np.flatnonzero(np.broadcast_to(new._low, (k, d, q)))
        shape = (d,) if self.tied else (k, d)
        new._fields = (
            Field("means", (k, d), Real((k, d))),
            Field("loadings", (k, d, q), Stacked((k, d, q), [(entries, Real((len(entries),)))])),
            Field("noise", shape, Positive(shape, self.reg), by_state=not self.tied),
        )
        blocks = {"count": (k,), "spread": (k,), "factor": (k, q), "gram": (k, q * (q + 1) // 2)}
        new._layout = Layout(blocks | {"sum": (k, d), "cross": (k, q, d), "square": (k, d)})
        new._groups = new._grouped()
        return new

    def freezing(self, fixed: Mapping[str, NDArray[np.bool_]]) -> FactorAnalyzers:
        new = super().freezing(fixed)
        new._groups = new._grouped()
        return new

    def _grouped(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]]:
        """Return which regressions share their regressors: of components, which columns, which of z."""
        low = np.concatenate([np.ones((self.d, 1), dtype=bool), self._low], axis=1)
        free = np.broadcast_to(low, (self.k, *low.shape)).copy()
        free[:, :, 0] &= ~self.fixed.get("means", np.zeros((self.k, self.d), dtype=bool))
        free[:, :, 1:] &= ~self.fixed.get("loadings", np.zeros((self.k, self.d, self.n_factors), dtype=bool))
        groups: dict[tuple[bytes, bytes], list[int]] = {}
        for c in range(self.k):
            patterns, which = np.unique(free[c], axis=0, return_inverse=True)
            for i, pattern in enumerate(patterns):
                groups.setdefault((pattern.tobytes(), (which.ravel() == i).tobytes()), []).append(c)
        found = []
        for (pattern, columns), components in groups.items():
            regressors = np.flatnonzero(np.frombuffer(pattern, dtype=bool))
            if len(regressors):
                found.append((np.array(components), np.flatnonzero(np.frombuffer(columns, dtype=bool)), regressors))
        return found

    def initial(self) -> Any:
        # Loadings of 0 are a saddle: no factor is seen, and EM stays.
        loadings = np.where(self._low, 0.5 / np.sqrt(self.n_factors), 0.0)
        _, shape, noise = (field.shape for field in self.fields)
        return self.params(np.zeros((self.k, self.d)), np.broadcast_to(loadings, shape).copy(), np.ones(noise))

    def first(self, block: Block, resp: NDArray[np.float64]) -> Any:
        """Return the principal factors of each component, from the covariances that the responsibilities give."""
        k, d, initial = self.k, self.d, self.initial()
        rows, cols = lower(d)
        factors, frame = np.broadcast_to(np.eye(d)[rows, cols], (k, len(rows))), self.frame
        kernel = GaussianTri(initial.means, factors, np.zeros(k), frame.shift, frame.scale)
        vector = np.zeros(k + kernel.n_stats)
        run(Coupled(Given(resp), kernel), block, stats=vector)
        count, sums = vector[k : 2 * k], vector[3 * k : 3 * k + k * d].reshape(k, d)
        full = count > EMPTY * max(count.sum(), TINY)
        divisor = np.where(full, count, 1.0)
        means = sums / divisor[:, None]
        S = unpacked(vector[3 * k + k * d :].reshape(k, -1), d) / divisor[:, None, None]
        S -= means[:, :, None] * means[:, None, :]
        values, vectors = np.linalg.eigh(S)
        rest = values[:, : d - self.n_factors].mean(axis=1)
        top = np.sqrt(np.maximum(values[:, d - self.n_factors :] - rest[:, None], 0.0))
        loadings = lower_loadings(vectors[:, :, d - self.n_factors :] * top[:, None, :])
        variances = np.diagonal(S, axis1=1, axis2=2)
        noise = np.maximum(variances - np.square(loadings).sum(axis=2), LEAST_NOISE * variances)
        loadings = np.where(full[:, None, None], loadings, initial.loadings)
        noise = np.maximum(np.where(full[:, None], noise, 1.0), max(self.reg, EPS))
        if self.tied:
            noise = count @ noise / max(count.sum(), TINY) if full.any() else noise[0]
        return self.params(means, loadings, noise)

    def _columns(self, noise: Array) -> Array:
        """Return noise variances as (..., k, d)."""
        return np.repeat(noise[..., None, :], self.k, axis=-2) if self.tied else noise

    def _pooled(self, values: Array) -> Array:
        """Return (..., k, d) summed over the components that share a variance, in the shape of the noise variances."""
        return values.sum(axis=-2) if self.tied else values

    def _posterior(self, params: Any) -> tuple[Array, Array, Array, Array]:
        """Return B (k, q, d), V (k, q, q), log-norms (k,) and ``L' Psi^-1`` (k, q, d), or break down.

        Raises
        ------
        Breakdown
        """
        if not all(map(all_finite, params)):
            raise Breakdown(Failure(Status.NON_FINITE, "loadings"))
        noise = self._columns(params.noise)
        if not (noise > EPS * EPS).all():
            c, j = np.argwhere(~(noise > EPS * EPS))[0]
            raise _collapsed(int(c), f"The noise variance of column {j} is 0.")
        try:
            with np.errstate(all="ignore"):
                weighed = (params.loadings / noise[:, :, None]).transpose(0, 2, 1)
                M = weighed @ params.loadings + np.eye(self.n_factors)
                root = np.linalg.cholesky(0.5 * (M + M.transpose(0, 2, 1)))
                inverse = np.linalg.inv(root)
                V = inverse.transpose(0, 2, 1) @ inverse
                B = V @ weighed
        except np.linalg.LinAlgError:  # larger than its 1 on the diagonal by more than the digits there are
            raise Breakdown(Failure(Status.NON_FINITE, "loadings")) from None
        if not (all_finite(B) and all_finite(V)):
            raise Breakdown(Failure(Status.NON_FINITE, "loadings"))
        log_det = np.log(noise).sum(axis=1) + 2.0 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        return B, V, self.frame.log_jacobian - 0.5 * (self.d * LOG_2PI + log_det), weighed

    def _kernel(self, params: Any, tangents: Any = None) -> FactorKernel:
        B, V, log_norm, _ = self._posterior(params)
        noise, frame = self._columns(params.noise), self.frame
        return FactorKernel(params.means, params.loadings, noise, B, V, log_norm, frame.shift, frame.scale, tangents)

    def kernel(self, params: Any) -> FactorKernel:
        return self._kernel(params)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> FactorKernel:
        # Log-densities by Fisher's identity given the component. Factors by V^-1 f = L' Psi^-1 (x - mean).
        B, V, _, weighed = self._posterior(params)
        L, noise = params.loadings, self._columns(params.noise)
        a = np.array([v.means for v in directions])
        D = np.array([v.loadings for v in directions])
        w = np.array([self._columns(v.noise) for v in directions])
        LV = L @ V
        bends = (D / noise[:, :, None]).swapaxes(2, 3)
        curves = 0.5 * w / np.square(noise)
        left = np.sum(LV * L, axis=2)  # of the variance of a residual: that of the factors, loaded
        offsets = np.sum(curves * (left - noise), axis=2) - np.einsum("cja,mcaj->mc", LV, bends)
        residual = V @ (bends - weighed * (w / noise)[:, :, None, :])
        across = weighed @ D
        dM = across + across.swapaxes(2, 3) - (weighed * w[:, :, None, :]) @ weighed.swapaxes(1, 2)
        tangents = {
            "offsets": offsets,
            "slopes": a / noise,
            "curves": curves,
            "bends": bends,
            "residual": residual,
            "factor": -V @ across,
            "constant": -(B @ a[..., None])[..., 0],
            "posteriors": -V @ dM @ V,
            "log_dets": -np.einsum("cab,mcab->mc", V, dM),
        }
        return self._kernel(params, tangents)

    def origin(self, params: Any) -> Array:
        return np.concatenate([params.means.ravel(), params.loadings.ravel()])

    def _coefficients(self, means: Array, loadings: Array) -> Array:
        """Return means and loadings as coefficients of z, (..., k, d, 1 + q)."""
        return np.concatenate([means[..., None], loadings], axis=-1)

    def _held(self, origin: Array) -> Array:
        """Return the coefficients that an origin stands for."""
        n = self.k * self.d
        return self._coefficients(origin[:n].reshape(self.k, self.d), origin[n:].reshape(self.k, self.d, self.n_factors))

    def _sums(self, stats: PartStats) -> Regressions:
        """Return the sums about their own origin."""
        view, vector = self.layout.view, stats.vector
        gram = np.empty((self.k, 1 + self.n_factors, 1 + self.n_factors))
        gram[:, 0, 0] = view(vector, "count")
        gram[:, 0, 1:] = gram[:, 1:, 0] = view(vector, "factor")
        gram[:, 1:, 1:] = unpacked(view(vector, "gram"), self.n_factors)
        cross = np.concatenate([view(vector, "sum")[:, :, None], view(vector, "cross").transpose(0, 2, 1)], axis=2)
        return Regressions(gram, cross, view(vector, "square"))

    def _about(self, params: Any, stats: PartStats) -> Regressions:
        """Return the sums about the coefficients of `params`."""
        delta = self._coefficients(params.means, params.loadings) - self._held(stats.origin)
        sums = self._sums(stats)
        return sums.moved(delta) if delta.any() else sums

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        if np.array_equal(stats.origin, new):
            return stats
        vector, view = stats.vector.copy(), self.layout.view
        sums = self._sums(stats).moved(self._held(new) - self._held(stats.origin))
        view(vector, "sum")[:] = sums.cross[:, :, 0]
        view(vector, "cross")[:] = sums.cross[:, :, 1:].transpose(0, 2, 1)
        view(vector, "square")[:] = sums.square
        return PartStats(vector, new, stats.weight)

    def _solve(self, gram: Array, right: Array, weight: float) -> Array:
        """Return ``G^-1 right`` (..., k, d, 1 + q) over the regressors of each column, 0 for others and for empty components.

        Raises
        ------
        Breakdown
            Where a Gram matrix is singular.
        """
        out = np.zeros_like(right)
        full = gram[:, 0, 0] > EMPTY * weight
        for components, columns, regressors in self._groups:
            there = components[full[components]]
            at = (..., *np.ix_(there, columns, regressors))
            try:
                found = np.linalg.solve(gram[np.ix_(there, regressors, regressors)], right[at].swapaxes(-1, -2))
            except np.linalg.LinAlgError:
                raise Breakdown(Failure(Status.NON_FINITE, "loadings", detail="Factors are collinear.")) from None
            out[at] = found.swapaxes(-1, -2)
        return out

    def _counts(self, stats: PartStats) -> Array:
        """Return the counts that belong to each noise variance, (k, 1), or one where tied."""
        count = self.layout.view(stats.vector, "count")
        return count.sum() if self.tied else count[:, None]

    def m_step(self, params: Any, stats: PartStats) -> Any:
        if not all_finite(stats.vector):
            raise Breakdown(Failure(Status.NON_FINITE, "loadings"))
        sums = self._about(params, stats)
        delta = self._solve(sums.gram, sums.cross, stats.weight)
        means, loadings = params.means + delta[:, :, 0], params.loadings + delta[:, :, 1:]
        count, square = self._counts(stats), self._pooled(sums.moved(delta).square)
        empty = count <= EMPTY * stats.weight
        noise = np.where(empty, params.noise, square / np.where(empty, 1.0, count))
        if self.reg > 0:
            noise = np.maximum(noise, self.reg)
        noise = np.where(self.fixed.get("noise", np.False_), params.noise, noise)
        if not (noise > EPS * EPS).all():
            c, j = np.argwhere(~(self._columns(noise) > EPS * EPS))[0]
            raise _collapsed(int(c), f"The noise variance of column {j} is 0.")
        return self.params(means, loadings, noise)

    def q(self, params: Any, stats: PartStats) -> float:
        # Of factors: their density, -tr(sum f f') / 2, and their entropy; what both have of 2 pi cancels.
        sums, noise, view = self._about(params, stats), params.noise, self.layout.view
        count = view(stats.vector, "count")
        columns = np.log(self._columns(noise)).sum(axis=1)
        rows = count @ (self.frame.log_jacobian - 0.5 * (self.d * LOG_2PI + columns))
        factors = view(stats.vector, "spread").sum() - 0.5 * np.einsum("caa->", sums.gram[:, 1:, 1:])
        return float(rows + factors - 0.5 * np.sum(self._pooled(sums.square) / noise))

    def score(self, params: Any, stats: PartStats) -> Any:
        sums, noise = self._about(params, stats), params.noise
        slope = sums.cross / self._columns(noise)[:, :, None]
        change = 0.5 * (self._pooled(sums.square) / noise - self._counts(stats)) / noise
        return self.params(slope[:, :, 0].copy(), np.where(self._low, slope[:, :, 1:], 0.0), change)

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        sums, noise = self._about(params, stats), params.noise
        step, columns = self._coefficients(v.means, v.loadings), self._columns(noise)[:, :, None]
        along = self._columns(v.noise)[..., None] / columns
        slope = -(step @ sums.gram + sums.cross * along) / columns
        moved = self._pooled(np.sum(sums.cross * step, axis=-1))
        change = ((0.5 * self._counts(stats) - self._pooled(sums.square) / noise) * v.noise - moved) / (noise * noise)
        return self.params(slope[..., 0].copy(), np.where(self._low, slope[..., 1:], 0.0), change)

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        gram, noise = self._sums(stats).gram, params.noise
        step = self._solve(gram, self._coefficients(g.means, g.loadings), stats.weight) * self._columns(noise)[:, :, None]
        counts = np.maximum(self._counts(stats), max(EMPTY * stats.weight, TINY))
        return self.params(step[..., 0].copy(), step[..., 1:].copy(), 2.0 * noise * noise * g.noise / counts)

    def correction(self, params: Any, stats: PartStats) -> Any:
        sums = self._about(params, stats)
        delta = self._solve(sums.gram, sums.cross, stats.weight)
        counts = np.maximum(self._counts(stats), max(EMPTY * stats.weight, TINY))
        noise = -self._pooled(np.sum(delta * sums.cross, axis=2)) / counts
        return self.params(np.zeros((self.k, self.d)), np.zeros((self.k, self.d, self.n_factors)), noise)

    def places(self, params: Any) -> Array:
        return super().places(params._replace(loadings=np.abs(params.loadings)))

    def nearest(self, params: Any, to: Any) -> Any:
        opposed = np.sum(params.loadings * to.loadings, axis=1) < 0
        return params._replace(loadings=np.where(opposed[:, None, :], -params.loadings, params.loadings))

    def to_user(self, params: Any) -> Any:
        frame = self.frame
        means = params.means / frame.scale + frame.shift
        return self.params(means, params.loadings / frame.scale[:, None], params.noise / np.square(frame.scale))

    def to_user_tangent(self, v: Any) -> Any:
        scale = self.frame.scale
        return self.params(v.means / scale, v.loadings / scale[:, None], v.noise / np.square(scale))

    def from_user(self, given: Mapping[str, Any]) -> Any:
        means = given_array(given, "means", {"": (self.k, self.d)})
        loadings = given_array(given, "loadings", {"": (self.k, self.d, self.n_factors)})
        noise = given_array(given, "noise", {"": self.fields[2].shape})
        if np.abs(np.where(self._low, 0.0, loadings)).max() > ABOVE * np.abs(loadings).max():
            raise ValueError(
                "start: loadings must be lower trapezoidal, 0 for factors of a higher index than the column: rotate them "
                "with emcore.models.lower_loadings, which changes no density"
            )
        frame = self.frame
        framed = noise * np.square(frame.scale)
        allowed = self.reg * (1 - 1e-9)
        if not (framed > allowed).all() and not (self.reg > 0 and (framed >= allowed).all()):
            at = np.unravel_index(int(np.argmin(framed)), framed.shape)
            which = "" if self.tied else f" of component {at[0]}"
            raise ValueError(
                f"start: noise must be above the floor: that of column {at[-1]}{which} is {framed[at]:.3g} in frame units "
                f"(columns of about unit variance), the floor reg={self.reg:g}"
            )
        framed_loadings = np.where(self._low, loadings, 0.0) * frame.scale[:, None]
        return self.params((means - frame.shift) * frame.scale, framed_loadings, framed)

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: Array | None = None) -> Array:
        factors = rng.standard_normal((len(of), self.n_factors))
        rows = np.sqrt(self._columns(params.noise))[of] * rng.standard_normal((len(of), self.d))
        rows += params.means[of]
        for c, L in enumerate(params.loadings):
            rows[of == c] += factors[of == c] @ L.T
        return rows / self.frame.scale + self.frame.shift

    def boundary(self, params: Any) -> tuple[str, ...]:
        if self.reg == 0:
            return ()
        low = (params.noise <= AT_FLOOR * self.reg) & ~self.fixed.get("noise", np.False_)
        words = ("the noise variance of column {0} is at its floor",) if self.tied else (
            "the noise variance of column {1} of component {0} is at its floor",
        )  # fmt: skip
        return tuple(words[0].format(*at) for at in np.argwhere(low))

    def condition(self, params: Any) -> Array:
        L, noise = params.loadings, self._columns(params.noise)
        with np.errstate(all="ignore"):
            explained = np.linalg.norm(L / np.sqrt(noise)[:, :, None], axis=(1, 2))  # at least the largest singular value
        return 1.0 + explained**2

    def framed(self, block: Block) -> Array:
        return (block.rows[0] - self.frame.shift) * self.frame.scale

    def warnings(self) -> tuple[str, ...]:
        found, d, q = [], self.d, self.n_factors
        if self.frame.constant:
            names = ", ".join(map(str, self.frame.constant))
            ending = "is fitted at the floor" if self.reg > 0 else "has no floor to rest on"
            many = "s" * (len(self.frame.constant) > 1)
            found.append(f"X is constant in column{many} {names}: its noise variance {ending}")
        if not self.fixed and int(self._low.sum()) + d > d * (d + 1) // 2:
            found.append(
                f"{q} factors and the noise of {d} columns have {int(self._low.sum()) + d} free parameters, a covariance only "
                f"{d * (d + 1) // 2}: loadings and noise are not determined, their covariance is"
            )
        return tuple(found)


def lower_loadings(loadings: Any) -> Array:
    """Return loadings rotated to lower trapezoidal form, without a change of ``L L'``.

    Parameters
    ----------
    loadings : array_like (d, q) or (k, d, q)
        Of at least as many columns of the data as factors: those of other software are to be transposed first where it has
        factors in rows.

    Returns
    -------
    ndarray, of the shape of loadings
        0 above the diagonal; the diagonal is not negative.

    Raises
    ------
    ValueError
    """
    L = finite_array("loadings", loadings, {"one analyser": ("d", "q"), "several": ("k", "d", "q")})
    q = L.shape[-1]
    if q > L.shape[-2]:
        raise ValueError(f"loadings must have no more factors than columns of the data, got shape {L.shape}")
    Q = np.linalg.qr(L[..., :q, :].swapaxes(-1, -2))[0]
    rotated = L @ Q
    signs = np.where(np.diagonal(rotated, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return np.where(np.arange(q) <= np.arange(L.shape[-2])[:, None], rotated * signs[..., None, :], 0.0)


def factor_scores(params: Any, X: Any) -> Array:
    """Return the posterior means of the factors of rows, given the most likely component of each.

    Parameters
    ----------
    params : named tuple or mapping
        Of a fitted `FactorAnalysis` or `FactorMixture`, in the user's units: ``means`` (k, d), ``loadings`` (k, d, q),
        ``noise`` (k, d) or (d,) and, but for one component, ``weights`` (k,). Loadings may have any form.
    X : array_like (n, d)

    Returns
    -------
    ndarray (n, q)
        ``V L' Psi^-1 (x - mean)`` (Thomson's regression scores). Factors of different components have nothing to do with each
        other: with more than one, read them beside `Fit.predict`.

    Raises
    ------
    ValueError
    """
    given = params._asdict() if hasattr(params, "_asdict") else dict(params)
    L = given_array(given, "loadings", {"": ("k", "d", "q")})
    k, d, q = L.shape
    means = given_array(given, "means", {"": (k, d)})
    noise = np.broadcast_to(given_array(given, "noise", {"": (k, d), "tied": (d,)}), (k, d))
    weights = given_array(given, "weights", {"": (k,)}) if k > 1 else np.ones(1)
    if not (noise > 0).all():
        raise ValueError("params: noise must be > 0")
    X = finite_array("X", X, {"": ("n", d)})
    best, scores = np.full(len(X), -np.inf), np.zeros((len(X), q))
    for c in range(k):
        weighed = L[c].T / noise[c]
        M = np.eye(q) + weighed @ L[c]
        rows = X - means[c]
        f = np.linalg.solve(M, weighed @ rows.T).T
        rows -= f @ L[c].T
        distance = np.sum(rows * rows / noise[c], axis=1) + np.sum(f * f, axis=1)
        with np.errstate(divide="ignore"):
            logs = np.log(weights[c]) - 0.5 * (distance + np.log(noise[c]).sum() + np.linalg.slogdet(M)[1])
        taken = logs > best
        best[taken], scores[taken] = logs[taken], f[taken]
    return scores


def FactorAnalysis(n_factors: int, *, reg: float = 1e-6) -> Model:  # noqa: N802
    """Return the model of factor analysis, ``x ~ N(mean, L L' + Psi)``: a `FactorMixture` of one component.

    Parameters
    ----------
    n_factors : int
        Number of factors, q, below the number of columns d.
    reg : float
        Floor of the noise variances, as in `FactorMixture`.

    Returns
    -------
    Model
        Parameters ``means`` (1, d), ``loadings`` (1, d, q), ``noise`` (1, d), the diagonal of Psi.

    Raises
    ------
    ValueError, TypeError
        And, when it is bound to data, ValueError for as many factors as columns or more.

    Notes
    -----
    See `FactorMixture` for the form of the loadings. A noise variance that rests at the floor (a Heywood case) is named in the
    result. With more parameters than a covariance has, ``d q - q (q - 1) / 2 + d > d (d + 1) / 2``, the model is fitted with a
    warning: its covariance is determined, loadings and noise are not. `emcore.models.factor_scores` gives the factors of rows.

    Rubin and Thayer (1982), "EM algorithms for ML factor analysis", Psychometrika 47.
    """
    q, least = whole("n_factors", n_factors), floor(reg)
    return Model(
        KnownWeights(np.ones(1)), FactorAnalyzers(1, q, False, least), name="FactorAnalysis",
        options={"n_factors": q, "reg": least},
    )  # fmt: skip


def FactorMixture(  # noqa: N802
    n_components: int, n_factors: int, *, tied: bool = False, reg: float = 1e-6, weights_prior: Dirichlet | None = None
) -> Model:
    """Return the model of a mixture of factor analysers: Gaussians with covariances ``L L' + Psi``, Psi diagonal.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    n_factors : int
        Number of factors of each, q, below the number of columns d.
    tied : bool
        Whether all components share their noise variances, as Ghahramani and Hinton have it.
    reg : float
        Floor of the noise variances, in units in which each column of the data has about unit variance. With 0 there is none,
        and a noise variance that vanishes ends the climb with a status.
    weights_prior : Dirichlet, optional
        Of the weights. Means, loadings and noise take no prior.

    Returns
    -------
    Model
        Parameters ``weights`` (k,), ``means`` (k, d), ``loadings`` (k, d, q) and ``noise`` (k, d), or (d,) where tied.

    Raises
    ------
    ValueError, TypeError
        And, when it is bound to data, ValueError for as many factors as columns or more.

    Notes
    -----
    A row of component c is ``x = mean_c + L_c f + e``, f standard normal, e of variances psi_c. Given the row, f has covariance
    ``V = (I + L' Psi^-1 L)^-1`` and mean ``V L' Psi^-1 (x - mean)``. With z = (1, f), sums over rows weighted by their
    responsibilities h, and N the sum of h, the M-step is for each column j ::

        (mean_j, L_j) = (sum h E[z z'])^-1 sum h x_j E[z],    psi_j = sum h E[(x_j - (mean_j, L_j) z)^2] / N,

    mean and loadings together as in Ghahramani and Hinton. A pass takes some ``3 d q`` multiply-adds for each row and
    component, and keeps no matrix (d, d); but a start from responsibilities makes one for each component.

    A rotation of the factors changes no density. Loadings are therefore 0 above the diagonal: column j of the data loads on
    the factors 0 to j only, and z of these columns is shorter. That is a choice of axes, not of the fit: read loadings after
    a rotation of your own (varimax, ...). The order of the columns decides which are 0; should the first columns load on no
    factor, put others first. Signs of factors stay open. A start must have this form, to which `lower_loadings` brings any.

    `fixed` takes any entries of means, loadings and noise. Loadings that are known to be 0 make the analysis confirmatory.

    Rubin and Thayer (1982), "EM algorithms for ML factor analysis", Psychometrika 47. Ghahramani and Hinton (1996), "The EM
    algorithm for mixtures of factor analyzers", Technical Report CRG-TR-96-1, University of Toronto.
    """
    k = whole("n_components", n_components)
    q, least = whole("n_factors", n_factors), floor(reg)
    if not isinstance(tied, (bool, np.bool_)):
        raise TypeError(f"tied must be True or False, got {tied!r}")
    options = {"n_components": k, "n_factors": q, "reg": least} | given_priors(None, weights_prior)
    if tied:
        options["tied"] = True
    return Model(Mixture(k, weights_prior), FactorAnalyzers(k, q, bool(tied), least), name="FactorMixture", options=options)
