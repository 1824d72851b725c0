"""Linear regressions of one response, and mixtures of them.

All formulas are for sums about the coefficients of the pass (`NormalEquations`): with N counts, G the Gram matrix of the
regressors, s the sum of residual times regressor and S that of squared residuals, the M-step is ``b + G^-1 s`` and
``(S - s'G^-1 s) / N``, so that nothing cancels but what the step itself moves.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emcore._checks import floor, positive, whole
from emcore.kernels import LinearRegression as RegressionKernel
from emcore.kernels import SymmetricRegression as SymmetricKernel
from emcore.kernels import all_finite
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array, width
from emcore.models._charts import Positive, Real
from emcore.models._frame import Frame
from emcore.models._least_squares import NormalEquations, covariates, unpacked
from emcore.models.gating import Gating
from emcore.models.gaussian import AT_FLOOR, EMPTY, EPS, LOG_2PI, TINY
from emcore.models.mixture import KnownWeights, Mixture
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import Block, DataSource

__all__ = ["LinearRegression", "RegressionMixture", "SymmetricRegression", "SymmetricRegressionMixture"]

Array = NDArray[np.float64]


class Responses:
    """The responses of a source as its rows."""

    def __init__(self, source: Any):
        self.source, self.n_columns = source, source.n_responses
        self.n_blocks, self.weight = source.n_blocks, source.weight

    def block(self, i: int) -> Block:
        """Return the i-th block."""
        block = self.source.block(i)
        return block._replace(rows=block.rows[1:])


class RegressionFrame(NamedTuple):
    """How covariates and response enter: ``(x - shift) * scale``, ``(y - response_shift) * response_scale``.

    Without an intercept nothing is shifted.
    """

    shift: Array
    scale: Array
    response_shift: float
    response_scale: float
    constant: tuple[int, ...]

    @classmethod
    def of(cls, source: Any, *, intercept: bool) -> RegressionFrame:
        """Measure covariates and response of a source."""
        x, y = Frame.of(source), Frame.of(Responses(source), name="y")
        if not intercept:
            x, y = x._replace(shift=np.zeros_like(x.shift)), y._replace(shift=np.zeros(1))
        return cls(x.shift, x.scale, float(y.shift[0]), float(y.scale[0]), x.constant)

    def framed(self, block: Block) -> Array:
        """Return covariates and response of a block side by side, (n, d + 1)."""
        X, y = block.rows
        return np.concatenate(
            [(X - self.shift) * self.scale, (np.asarray(y, dtype=np.float64) - self.response_shift) * self.response_scale],
            axis=1,
        )


class LinearRegression(Part):
    """Linear regressions, one a state: ``coefficients`` (k, p), ``variances`` (k,).

    Statistics: ``[count k | residual k | square k | sum k*d | cross k*d | gram k*d*(d+1)/2]``. The coefficients have the score
    ``s / v`` and the metric ``v G^-1``, with which the EM step is P times the score exactly; the variances ``(S / v - N) / 2v``
    and ``2 v^2 / N``, up to ``-(G^-1 s)'s / N``.

    Parameters
    ----------
    k : int
    intercept : bool
        Whether the first coefficient is an intercept: p is d + 1 or d.
    reg : float
        Floor of the variances, in frame units (about the variance of the response).
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent", "sparse"})
    several = True
    draws_given: ClassVar[str] = "covariates (n, d)"
    n_responses: ClassVar[int] = 1
    d: int
    frame: RegressionFrame

    def __init__(self, k: int, intercept: bool = True, reg: float = 1e-6):
        self.k, self.intercept, self.reg = k, intercept, reg

    def bind(self, source: DataSource) -> LinearRegression:
        return self._bound(RegressionFrame.of(source, intercept=self.intercept))

    def _bound(self, frame: RegressionFrame) -> LinearRegression:
        new = copy.copy(self)
        new.frame, new.d = frame, len(frame.shift)
        k, d, p = self.k, new.d, new.d + self.intercept
        new._fields = (Field("coefficients", (k, p), Real((k, p))), Field("variances", (k,), Positive((k,), self.reg)))
        new._layout = Layout(
            {"count": (k,), "residual": (k,), "square": (k,), "sum": (k, d), "cross": (k, d), "gram": (k, d * (d + 1) // 2)}
        )
        return new

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {name: np.asarray(value) for name, value in self.frame._asdict().items()}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> LinearRegression:
        response = float(state["response_shift"]), float(state["response_scale"])
        constant = tuple(int(j) for j in state["constant"])
        return self._bound(RegressionFrame(state["shift"], state["scale"], *response, constant))

    def freezing(self, fixed: Mapping[str, NDArray[np.bool_]]) -> LinearRegression:
        mask = fixed.get("coefficients")
        if mask is not None and self.intercept and (mask[:, 0] & ~mask.all(axis=1)).any():
            raise ValueError(
                "fixed: an intercept can be fixed only with all coefficients of its component: subtract what is known of it "
                "from y and build the model with intercept=False"
            )
        return super().freezing(fixed)

    def initial(self) -> Any:
        return self.params(np.zeros(self.fields[0].shape), np.ones(self.k))

    def _split(self, coefficients: Array) -> tuple[Array, Array]:
        """Return slopes (..., k, d) and intercepts (..., k)."""
        if self.intercept:
            return coefficients[..., 1:], coefficients[..., 0]
        return coefficients, np.zeros(coefficients.shape[:-1])

    def _log_norms(self, variances: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(self.frame.response_scale) - 0.5 * (LOG_2PI + np.log(variances))

    def _kernel(self, params: Any, tangents: Any = None) -> RegressionKernel:
        if not (all_finite(params.coefficients) and all_finite(params.variances)):
            raise Breakdown(Failure(Status.NON_FINITE, "coefficients"))
        degenerate = np.flatnonzero(~(params.variances > EPS * EPS))
        if len(degenerate):
            raise Breakdown(Failure(Status.COLLAPSED, f"component {degenerate[0]}", detail="Its residuals are 0."))
        f = self.frame
        return RegressionKernel(
            *self._split(params.coefficients), params.variances, self._log_norms(params.variances), f.shift, f.scale,
            (f.response_shift, f.response_scale), tangents,
        )  # fmt: skip

    def kernel(self, params: Any) -> RegressionKernel:
        return self._kernel(params)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> RegressionKernel:
        slopes, offsets = self._split(np.array([v.coefficients for v in directions]))
        return self._kernel(params, (slopes, offsets, np.array([v.variances for v in directions])))

    def origin(self, params: Any) -> Array:
        return params.coefficients.ravel()

    def _equations(self, stats: PartStats) -> NormalEquations:
        """Return the sums about the origin of the statistics."""
        view, vector = self.layout.view, stats.vector
        gram, cross = unpacked(view(vector, "gram"), self.d), view(vector, "cross")
        if self.intercept:
            top = np.concatenate([view(vector, "count")[:, None], view(vector, "sum")], axis=1)
            gram = np.concatenate([top[:, None, :], np.concatenate([top[:, 1:, None], gram], axis=2)], axis=1)
            cross = np.concatenate([view(vector, "residual")[:, None], cross], axis=1)
        return NormalEquations(gram, cross, view(vector, "square"))

    def _about(self, params: Any, stats: PartStats) -> tuple[Array, NormalEquations]:
        """Return counts (k,) and the sums about the coefficients of `params`."""
        found = self._equations(stats)
        delta = params.coefficients - stats.origin.reshape(params.coefficients.shape)
        return self.layout.view(stats.vector, "count"), found.moved(delta) if delta.any() else found

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        if np.array_equal(stats.origin, new):
            return stats
        vector = stats.vector.copy()
        view = self.layout.view
        delta = (new - stats.origin).reshape(self.fields[0].shape)
        moved = self._equations(stats).moved(delta)
        slopes, offsets = self._split(delta)
        view(vector, "residual")[:] -= offsets * view(vector, "count") + np.einsum("ci,ci->c", slopes, view(vector, "sum"))
        view(vector, "cross")[:] = self._split(moved.cross)[0]
        view(vector, "square")[:] = moved.square
        return PartStats(vector, new, stats.weight)

    def m_step(self, params: Any, stats: PartStats) -> Any:
        count, about = self._about(params, stats)
        empty = count <= EMPTY * stats.weight
        kept = {name: self.fixed.get(name, np.False_) for name in self.names}
        delta = np.where(empty[:, None], 0.0, about.solve(about.cross, self.fixed.get("coefficients")))
        variances = about.moved(delta).square / np.where(empty, 1.0, count)
        variances = np.where(empty | kept["variances"], params.variances, np.maximum(variances, self.reg))
        if self.reg == 0 and not (variances > EPS * EPS).all():
            component = int(np.argmin(variances))
            raise Breakdown(Failure(Status.COLLAPSED, f"component {component}", detail="Its residuals are 0."))
        coefficients = np.where(kept["coefficients"], params.coefficients, params.coefficients + delta)
        return self.params(coefficients, variances)

    def q(self, params: Any, stats: PartStats) -> float:
        count, about = self._about(params, stats)
        return float(count @ self._log_norms(params.variances) - 0.5 * np.sum(about.square / params.variances))

    def score(self, params: Any, stats: PartStats) -> Any:
        count, v = self.layout.view(stats.vector, "count"), params.variances
        # Linear in the statistics, for Hessian products.
        about = self._equations(stats)
        delta = params.coefficients - stats.origin.reshape(params.coefficients.shape)
        bent = about.times(delta)
        square = about.square - np.einsum("ci,ci->c", delta, 2.0 * about.cross - bent)
        return self.params((about.cross - bent) / v[:, None], 0.5 * (square / v - count) / v)

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        count, about = self._about(params, stats)
        s, step = params.variances, v.coefficients
        coefficients = -(about.times(step) + about.cross * (v.variances / s)[..., None]) / s[:, None]
        variances = ((0.5 * count - about.square / s) * v.variances - np.einsum("ci,...ci->...c", about.cross, step)) / (s * s)
        return self.params(coefficients, variances)

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        count = np.maximum(self.layout.view(stats.vector, "count"), max(EMPTY * stats.weight, TINY))
        solved = self._equations(stats).solve(g.coefficients, self.fixed.get("coefficients"))
        v = params.variances
        return self.params(v[:, None] * solved, 2.0 * v * v * g.variances / count)

    def correction(self, params: Any, stats: PartStats) -> Any:
        count, about = self._about(params, stats)
        empty = count <= EMPTY * stats.weight
        rise = np.einsum("ci,ci->c", about.cross, about.solve(about.cross))
        return self.params(np.zeros(self.fields[0].shape), np.where(empty, 0.0, -rise / np.where(empty, 1.0, count)))

    def to_user(self, params: Any) -> Any:
        f = self.frame
        user = self.to_user_tangent(params)
        if self.intercept:
            user.coefficients[:, 0] += f.response_shift
        return user

    def to_user_tangent(self, v: Any) -> Any:
        f = self.frame
        slopes, intercepts = self._split(v.coefficients)
        slopes, intercepts = slopes * (f.scale / f.response_scale), intercepts / f.response_scale
        if self.intercept:
            slopes = np.concatenate([(intercepts - slopes @ f.shift)[:, None], slopes], axis=1)
        return self.params(slopes, v.variances / f.response_scale**2)

    def from_user(self, given: Mapping[str, Any]) -> Any:
        f = self.frame
        what = "the intercept first" if self.intercept else ""
        coefficients = given_array(given, "coefficients", {what: self.fields[0].shape})
        variances = given_array(given, "variances", {"": (self.k,)}) * f.response_scale**2
        low = np.flatnonzero(~((variances > 0) & (variances >= self.reg * (1 - 1e-9))))
        if len(low):
            raise ValueError(
                f"start: variances must be > 0 and above the floor: that of component {low[0]} is {variances[low[0]]:.3g} in "
                f"frame units (a response of about unit variance), the floor reg={self.reg:g}"
            )
        slopes, intercepts = self._split(coefficients)
        if self.intercept:
            intercepts = (intercepts - f.response_shift + slopes @ f.shift) * f.response_scale
        slopes = slopes * (f.response_scale / f.scale)
        return self.params(np.concatenate([intercepts[:, None], slopes], axis=1) if self.intercept else slopes, variances)

    def sized(self, given: Mapping[str, Any]) -> LinearRegression:
        new, d = copy.copy(self), width(given, "coefficients", self.k) - self.intercept
        if not d:
            raise ValueError("start: coefficients must have a column beside the intercept")
        new.reg = 0.0  # a floor is relative to data
        return new._bound(RegressionFrame(np.zeros(d), np.ones(d), 0.0, 1.0, ()))

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: Array | None = None) -> Array:
        user = self.to_user(params)
        slopes, intercepts = self._split(user.coefficients)
        noise = np.sqrt(user.variances)[of] * rng.standard_normal(len(of))
        return intercepts[of] + np.einsum("ni,ni->n", covariates(X, self.d), slopes[of]) + noise

    def expected_responses(self, user: Any, X: Array) -> Array:
        slopes, intercepts = self._split(user.coefficients)
        return X @ slopes.T + intercepts

    def boundary(self, params: Any) -> tuple[str, ...]:
        if self.reg == 0:
            return ()
        low = (params.variances <= AT_FLOOR * self.reg) & ~self.fixed.get("variances", np.False_)
        return tuple(f"the variance of component {c} is at its floor" for c in np.flatnonzero(low))

    def condition(self, params: Any) -> Array:
        # What cancels in a residual, against its standard deviation.
        sizes = 1.0 + np.square(params.coefficients).sum(axis=1)
        return sizes / np.maximum(params.variances, EPS * EPS)

    def warnings(self) -> tuple[str, ...]:
        constant = self.frame.constant
        if not (constant and self.intercept):
            return ()
        names = ", ".join(map(str, constant))
        return (
            f"X is constant in column{'s' * (len(constant) > 1)} {names}: beside an intercept its coefficient is not known",
        )

    def framed(self, block: Block) -> Array:
        return self.frame.framed(block)


class SymmetricRegression(Part):
    """Two regressions of opposite coefficients, without intercept, of one known variance: ``coefficients`` (d,).

    Statistics: ``[count 2 | square 1 | cross d | gram d*(d+1)/2]``, of both states together. M-step, score and metric are those
    of one regression. Rows have no frame.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent"})
    several = True
    lacks = MappingProxyType({"sparse": "responsibilities are not held in regressions of opposite coefficients"})
    draws_given: ClassVar[str] = "covariates (n, d)"
    n_responses: ClassVar[int] = 1
    d: int

    def __init__(self, variance: float):
        self.k, self.variance = 2, variance

    def bind(self, source: DataSource) -> SymmetricRegression:
        return self._bound(source.n_columns)

    def _bound(self, d: int) -> SymmetricRegression:
        new = copy.copy(self)
        new.d = d
        new._fields = (Field("coefficients", (d,), Real((d,)), by_state=False),)
        new._layout = Layout({"count": (2,), "square": (1,), "cross": (d,), "gram": (1, d * (d + 1) // 2)})
        return new

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {"d": np.array(self.d)}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> SymmetricRegression:
        return self._bound(int(state["d"]))

    def initial(self) -> Any:
        return self.params(np.zeros(self.d))

    def _both(self, coefficients: Array) -> Array:
        return np.stack([coefficients, -coefficients], axis=-2)

    def _kernel(self, params: Any, tangents: Any = None) -> SymmetricKernel:
        if not all_finite(params.coefficients):
            raise Breakdown(Failure(Status.NON_FINITE, "coefficients"))
        norm = -0.5 * (LOG_2PI + np.log(self.variance))
        return SymmetricKernel(
            self._both(params.coefficients), np.zeros(2), np.full(2, self.variance), np.full(2, norm), np.zeros(self.d),
            np.ones(self.d), tangents=tangents,
        )  # fmt: skip

    def kernel(self, params: Any) -> SymmetricKernel:
        return self._kernel(params)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> SymmetricKernel:
        slopes = self._both(np.array([v.coefficients for v in directions]))
        return self._kernel(params, (slopes, np.zeros((len(slopes), 2)), np.zeros((len(slopes), 2))))

    def origin(self, params: Any) -> Array:
        return params.coefficients

    def _equations(self, stats: PartStats) -> NormalEquations:
        view, vector = self.layout.view, stats.vector
        return NormalEquations(unpacked(view(vector, "gram"), self.d), view(vector, "cross")[None], view(vector, "square"))

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        if np.array_equal(stats.origin, new):
            return stats
        vector = stats.vector.copy()
        moved = self._equations(stats).moved((new - stats.origin)[None])
        self.layout.view(vector, "cross")[:] = moved.cross[0]
        self.layout.view(vector, "square")[:] = moved.square
        return PartStats(vector, new, stats.weight)

    def _cross(self, params: Any, stats: PartStats) -> Array:
        """Return the sum of residuals times covariates about the coefficients of `params`, (1, d)."""
        found = self._equations(stats)
        return found.cross - found.times((params.coefficients - stats.origin)[None])

    def _kept(self) -> NDArray[np.bool_] | None:
        return self.fixed["coefficients"][None] if self.fixed else None

    def m_step(self, params: Any, stats: PartStats) -> Any:
        delta = self._equations(stats).solve(self._cross(params, stats), self._kept())
        return self.params(params.coefficients + delta[0])

    def q(self, params: Any, stats: PartStats) -> float:
        moved = self._equations(stats).moved((params.coefficients - stats.origin)[None])
        count = float(self.layout.view(stats.vector, "count").sum())
        return float(-0.5 * count * (LOG_2PI + np.log(self.variance)) - 0.5 * moved.square[0] / self.variance)

    def score(self, params: Any, stats: PartStats) -> Any:
        return self.params(self._cross(params, stats)[0] / self.variance)

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        return self.params(-self._equations(stats).times(v.coefficients[..., None, :])[..., 0, :] / self.variance)

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        solved = self._equations(stats).solve(g.coefficients[..., None, :], self._kept())
        return self.params(self.variance * solved[..., 0, :])

    def from_user(self, given: Mapping[str, Any]) -> Any:
        return self.params(given_array(given, "coefficients", {"": (self.d,)}))

    def sized(self, given: Mapping[str, Any]) -> SymmetricRegression:
        return self._bound(len(given_array(given, "coefficients", {"": ("d",)})))

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: Array | None = None) -> Array:
        fitted = covariates(X, self.d) @ params.coefficients
        return np.where(of == 0, fitted, -fitted) + np.sqrt(self.variance) * rng.standard_normal(len(of))

    def expected_responses(self, user: Any, X: Array) -> Array:
        return X @ self._both(user.coefficients).T

    def places(self, params: Any) -> Array:
        return self._both(params.coefficients)

    def permuted(self, params: Any, order: Sequence[int]) -> Any:
        return self.params(params.coefficients if order[0] == 0 else -params.coefficients)

    def framed(self, block: Block) -> Array:
        return np.concatenate([np.asarray(a, dtype=np.float64) for a in block.rows], axis=1)


def RegressionMixture(  # noqa: N802
    n_components: int, *, intercept: bool = True, gating: bool = False, reg: float = 1e-6
) -> Model:
    """Return the model of a mixture of linear regressions of one response. The data are (X, y).

    Parameters
    ----------
    n_components : int
        Number of components, k; 1 is ordinary least squares.
    intercept : bool
        Whether the first coefficient of each component is an intercept.
    gating : bool
        Whether the weights depend on the covariates: a softmax of linear functions of them (a mixture of experts).
    reg : float
        Floor of the variances, in units in which the response has about unit variance. With 0 there is none, and a
        component whose residuals vanish ends the climb with a status.

    Returns
    -------
    Model
        Parameters ``weights`` (k,), ``coefficients`` (k, p), p being d + 1 with an intercept (the first one) and d without,
        ``variances`` (k,) of the residuals. With gating ``gate`` (k - 1, d + 1) in place of the weights: intercepts and slopes
        of the log-odds of each component against the last one.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Densities are those of the response given the covariates. Coefficients that the rows of a component leave open stay as they
    are (those of collinear covariates move together by the least).

    The gate has no M-step in closed form. It takes one Newton step with a bound of the curvature in place of the curvature
    (Böhning 1992): the log-likelihood never falls and the fixed points are those of EM, but convergence may be slower.
    """
    k, reg = whole("n_components", n_components), floor(reg, "variance of the response")
    for name, value in (("intercept", intercept), ("gating", gating)):
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} must be True or False, got {value!r}")
    if gating and k == 1:
        raise ValueError("gating needs n_components >= 2, got 1")
    options = {"n_components": k, "intercept": bool(intercept), "gating": bool(gating), "reg": reg}
    latent = Gating(k, bool(intercept)) if gating else Mixture(k)
    return Model(latent, LinearRegression(k, bool(intercept), reg), name="RegressionMixture", options=options)


def SymmetricRegressionMixture(variance: float) -> Model:  # noqa: N802
    """Return the model ``y = +- x'coefficients + noise``, both signs equally likely, of known variance. The data are (X, y).

    Parameters
    ----------
    variance : float
        Of the noise, in the user's units.

    Returns
    -------
    Model
        Parameter ``coefficients`` (d,); their sign is arbitrary.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Balakrishnan, Wainwright and Yu (2017). The EM step is ``variance (X'X)^-1`` times the gradient of the
    log-likelihood; their first-order step alpha is gradient ascent with the step ``alpha * variance`` on the mean
    log-likelihood. Coordinates are the coefficients in the user's units, without a frame.
    """
    variance = positive("variance", variance)
    return Model(
        KnownWeights(np.array([0.5, 0.5])), SymmetricRegression(variance), name="SymmetricRegressionMixture",
        options={"variance": variance},
    )  # fmt: skip
