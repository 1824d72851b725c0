"""Linear regression on normal covariates of unknown mean and covariance, any of which may be missing (NaN) in any row.

The joint density of covariates and response is normal, and the map from coefficients, variance, mean and covariance to its
mean and covariance is one to one. So the pass is that of a Gaussian with missing columns, and its sums, complete but for
expectations, split: those of the covariates are what `MatrixGaussian` learns from, and those of the response given the
covariates are what `LinearRegression` does. All that follows from statistics is theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import symmetric
from emcore.models._base import Field, Part, PartStats, given_array
from emcore.models._charts import SPD, Positive, Real
from emcore.models._frame import Frame
from emcore.models._least_squares import lower, unpacked
from emcore.models.gaussian import UNKNOWN_ROWS, MatrixGaussian
from emcore.models.missing_gaussian import MissingGaussian
from emcore.models.regression import LinearRegression, RegressionFrame, Responses

if TYPE_CHECKING:
    from emcore.data import Block, DataSource
    from emcore.kernels import MissingGaussian as MissingKernel

__all__ = ["NormalCovariates"]

Array = NDArray[np.float64]


class Joint(MissingGaussian):
    """One Gaussian of covariates and response, side by side."""

    n_responses: ClassVar[int] = 1


class NormalCovariates(Part):
    """Regression on normal covariates some of which are missing.

    Parameters ``coefficients`` (d + 1,), the intercept first, ``variance`` (1,) unless it is known, ``mean`` (d,) and
    ``covariance`` (d, d) of the covariates.

    Statistics: those of a Gaussian of d + 1 columns, the response last. With G the Gram matrix of (1, x), s the sum of
    residual times (1, x), S and D the covariance and the move of the mean, coefficients have the metric ``v G^-1`` and
    variance, mean and covariance have ``2 v^2 / N``, ``S / N`` and ``(2 / N) S (x) S``. The EM step is P times the score up to
    ``-s'G^-1 s / N`` of the variance and ``-D D'`` of the covariance.

    Parameters
    ----------
    variance : float or None
        Of the response given all covariates, in the user's units, where it is known.
    reg : float
        Floor of the variance, and of the eigenvalues of the covariance: of the two factors of the joint density and not of
        its covariance, so that clipping is the exact constrained M-step of each. In frame units.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent"})
    n_responses: ClassVar[int] = 1
    takes_missing: ClassVar[bool] = True
    d: int
    _inner: Joint  # whose pass and statistics these are
    _margin: MatrixGaussian  # of the covariates
    _regression: LinearRegression  # of the response given them
    _known: Array | None  # the variance, in frame units

    def __init__(self, variance: float | None, reg: float):
        self.k, self.variance, self.reg = 1, variance, reg

    def bind(self, source: DataSource) -> NormalCovariates:
        x, y = Frame.observed(source), Frame.of(Responses(source), name="y")
        return self._bound(Frame(*map(np.append, x[:3], y[:3]), x.constant))

    def _bound(self, frame: Frame) -> NormalCovariates:
        new = copy.copy(self)
        d = new.d = len(frame.shift) - 1
        shift, scale, variance = (a[:d] for a in frame[:3])
        # No pass of theirs is fused, so that they need not know how many rows there are.
        new._inner = Joint(1, "tied", 0.0)._bound(frame, UNKNOWN_ROWS)
        new._margin = MatrixGaussian(1, "tied", self.reg)._bound(Frame(shift, scale, variance, frame.constant), UNKNOWN_ROWS)
        new._regression = LinearRegression(1, True, self.reg if self.variance is None else 0.0)._bound(
            RegressionFrame(shift, scale, float(frame.shift[d]), float(frame.scale[d]), frame.constant)
        )
        new._known = None if self.variance is None else np.array([self.variance * frame.scale[d] ** 2])
        new._fields = (Field("coefficients", (d + 1,), Real((d + 1,)), by_state=False),)
        if self.variance is None:
            new._fields += (Field("variance", (1,), Positive((1,), self.reg), by_state=False),)
        new._fields += (
            Field("mean", (d,), Real((d,)), by_state=False), Field("covariance", (d, d), SPD((d, d), self.reg), by_state=False),
        )  # fmt: skip
        new._layout = new._inner.layout
        return new.freezing({})

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return self._inner.bound_state()

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> NormalCovariates:
        return self._bound(Frame.restored(state))

    def freezing(self, fixed: Mapping[str, NDArray[np.bool_]]) -> NormalCovariates:
        new = super().freezing(fixed)
        masks = dict(new.fixed)
        slopes = masks.get("coefficients", np.zeros(self.d + 1, dtype=bool))
        if slopes[0] and not slopes.all():
            raise ValueError("fixed: the intercept can be fixed only with all coefficients")
        if self.variance is not None:
            masks["variance"] = np.ones(1, dtype=bool)
        within = {"coefficients": "coefficients", "variance": "variances", "mean": "means", "covariance": "covariances"}
        masks = {within[name]: mask[None] if name in ("coefficients", "mean") else mask for name, mask in masks.items()}
        new._margin, new._regression = new._margin.freezing(masks), new._regression.freezing(masks)
        return new

    def initial(self) -> Any:
        return self._joined(self._regression.initial(), self._margin.initial())

    # Parameters are those of the two parts, and those of the joint density

    def _joined(self, response: Any, covariates: Any) -> Any:
        """Return the parameters, or their like, of which these are the two parts' shares."""
        variance = () if self.variance is not None else (response.variances,)
        return self.params(response.coefficients[0], *variance, covariates.means[0], covariates.covariances)

    def _parted(self, params: Any, known: Array | None) -> tuple[Any, Any]:
        """Return the shares of the two parts in parameters or their like, `known` being that of a known variance."""
        variance = params.variance if self.variance is None else known
        return (
            self._regression.params(params.coefficients[None], variance),
            self._margin.params(params.mean[None], params.covariance),
        )

    def _both(self, params: Any) -> tuple[Any, Any]:
        return self._parted(params, self._known)

    def _tangents(self, v: Any) -> tuple[Any, Any]:
        return self._parted(v, np.zeros(1))

    def _mean(self, params: Any) -> Array:
        """Return the mean of covariates and response, (1, d + 1)."""
        return np.append(params.mean, params.coefficients[0] + params.coefficients[1:] @ params.mean)[None]

    def _joint(self, params: Any) -> Any:
        """Return the parameters of the Gaussian of covariates and response."""
        variance = self._both(params)[0].variances[0]
        S, b = params.covariance, params.coefficients[1:]
        with np.errstate(over="ignore", invalid="ignore"):  # at trial points
            cross = S @ b
            return self._inner.params(self._mean(params), np.block([[S, cross[:, None]], [cross, variance + b @ cross]]))

    def _joint_tangent(self, params: Any, v: Any) -> Any:
        S, b = params.covariance, params.coefficients[1:]
        dS, db, variance = v.covariance, v.coefficients[1:], self._tangents(v)[0].variances[0]
        cross = dS @ b + S @ db
        mean = np.append(v.mean, v.coefficients[0] + db @ params.mean + b @ v.mean)
        return self._inner.params(mean[None], np.block([[dS, cross[:, None]], [cross, variance + b @ cross + db @ (S @ b)]]))

    def kernel(self, params: Any) -> MissingKernel:
        return self._inner.kernel(self._joint(params))

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> MissingKernel:
        return self._inner.tangent_kernel(self._joint(params), [self._joint_tangent(params, v) for v in directions])

    def origin(self, params: Any) -> Array:
        return self._mean(params)[0]

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        return self._inner.recentre(stats, new)

    # Statistics are those of the two parts, and linear maps of those of the joint density

    def _shares(self, params: Any, stats: PartStats) -> tuple[PartStats, PartStats]:
        """Return the statistics of the response, about the coefficients of `params`, and of the covariates."""
        view, vector, d = self.layout.view, stats.vector, self.d
        count, mass, total, second = (view(vector, name) for name in ("count", "mass", "sum", "second"))
        S, s, o = unpacked(second, d + 1)[0], total[0], stats.origin
        slopes = params.coefficients[1:]
        residual = np.append(-slopes, 1.0)  # of a row less the origin, less `beyond`
        beyond = params.coefficients[0] + slopes @ o[:d] - o[d]
        bent, left = S @ residual, s @ residual
        errors = left - beyond * count[0]
        cross = bent[:d] - beyond * s[:d] + o[:d] * errors
        square = residual @ bent - beyond * (2.0 * left - beyond * count[0])
        moved = np.outer(s[:d], o[:d])
        gram = S[:d, :d] + moved + moved.T + count[0] * np.outer(o[:d], o[:d])
        response = np.concatenate([count, [errors, square], s[:d] + count[0] * o[:d], cross, gram[lower(d)]])
        covariates = np.concatenate([count, mass, s[:d], second[0, : d * (d + 1) // 2]])
        return PartStats(response, params.coefficients, stats.weight), PartStats(covariates, o[:d], stats.weight)

    def m_step(self, params: Any, stats: PartStats) -> Any:
        (response, covariates), (a, b) = self._shares(params, stats), self._both(params)
        return self._joined(self._regression.m_step(a, response), self._margin.m_step(b, covariates))

    def q(self, params: Any, stats: PartStats) -> float:
        (response, covariates), (a, b) = self._shares(params, stats), self._both(params)
        return self._regression.q(a, response) + self._margin.q(b, covariates)

    def score(self, params: Any, stats: PartStats) -> Any:
        (response, covariates), (a, b) = self._shares(params, stats), self._both(params)
        return self._joined(self._regression.score(a, response), self._margin.score(b, covariates))

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        (response, covariates), (a, b), (da, db) = self._shares(params, stats), self._both(params), self._tangents(v)
        return self._joined(self._regression.q_hvp(a, response, da), self._margin.q_hvp(b, covariates, db))

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        (response, covariates), (a, b), (ga, gb) = self._shares(params, stats), self._both(params), self._tangents(g)
        return self._joined(self._regression.metric(a, response, ga), self._margin.metric(b, covariates, gb))

    def correction(self, params: Any, stats: PartStats) -> Any:
        (response, covariates), (a, b) = self._shares(params, stats), self._both(params)
        return self._joined(self._regression.correction(a, response), self._margin.correction(b, covariates))

    @property
    def separable(self) -> bool:
        return self._margin.separable

    # What the user gives and gets

    def to_user(self, params: Any) -> Any:
        a, b = self._both(params)
        return self._joined(self._regression.to_user(a), self._margin.to_user(b))

    def to_user_tangent(self, v: Any) -> Any:
        a, b = self._tangents(v)
        return self._joined(self._regression.to_user_tangent(a), self._margin.to_user_tangent(b))

    def from_user(self, given: Mapping[str, Any]) -> Any:
        coefficients = given_array(given, "coefficients", {"the intercept first": (self.d + 1,)})
        variance = np.array([self.variance], dtype=np.float64)  # known, or NaN
        if self.variance is None:
            variance = given_array(given, "variance", {"": (1,)})
            framed = variance[0] * self._regression.frame.response_scale**2
            if not (framed > 0 and framed >= self.reg * (1 - 1e-9)):
                raise ValueError(
                    f"start: variance must be > 0 and above the floor: it is {framed:.3g} in frame units (a response of about "
                    f"unit variance), the floor reg={self.reg:g}"
                )
        mean = given_array(given, "mean", {"": (self.d,)})
        covariance = symmetric("start: covariance", given_array(given, "covariance", {"": (self.d, self.d)}))
        response = {"coefficients": coefficients[None], "variances": variance}
        return self._joined(
            self._regression.from_user(response), self._margin.from_user({"means": mean[None], "covariances": covariance})
        )

    def sized(self, given: Mapping[str, Any]) -> NormalCovariates:
        new = copy.copy(self)
        new.reg = 0.0  # a floor is relative to data
        spread = np.diagonal(given_array(given, "covariance", {"": ("d", "d")}))
        return new._bound(Frame.about_zero(np.append(spread, 1.0)))

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: Array | None = None) -> Any:
        """Return complete covariates and their responses, (X, y): why values are missing is not part of the model."""
        a, b = self._both(params)
        X = self._margin.sample(b, of, rng)
        return X, self._regression.sample(a, of, rng, X)

    def expected_responses(self, user: Any, X: Array) -> Array:
        unit = np.sqrt(np.diagonal(user.covariance))
        Z, S = (X - user.mean) / unit, user.covariance / unit / unit[:, None]
        missing = np.isnan(Z)
        # Short words are sorted several times as fast as rows; they are of adjacent bytes.
        packed = np.ascontiguousarray(np.packbits(missing, axis=1))
        _, first, which = np.unique(packed.view(f"S{packed.shape[1]}")[:, 0], return_index=True, return_inverse=True)
        order, ends = np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))
        for gone, rows in zip(missing[first], np.split(order, ends[:-1]), strict=True):
            if gone.any():
                gain = np.linalg.solve(S[np.ix_(~gone, ~gone)], S[np.ix_(~gone, gone)])
                Z[np.ix_(rows, gone)] = Z[np.ix_(rows, ~gone)] @ gain
        return ((user.mean + unit * Z) @ user.coefficients[1:] + user.coefficients[0])[:, None]

    def framed(self, block: Block) -> Array:
        """Return covariates, with 0, their mean, for what is missing, and response in frame units, side by side."""
        rows = self._regression.framed(block)
        return np.where(np.isnan(rows), 0.0, rows)

    def boundary(self, params: Any) -> tuple[str, ...]:
        a, b = self._both(params)
        found = ("the variance is at its floor",) if self._regression.boundary(a) else ()
        return (*found, "the covariance is at its floor") if self._margin.boundary(b) else found

    def condition(self, params: Any) -> Array:
        return self._inner.condition(self._joint(params))

    def warnings(self) -> tuple[str, ...]:
        return self._margin.warnings() + self._regression.warnings()
