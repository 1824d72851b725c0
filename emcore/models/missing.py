"""Linear regression with missing covariates, independent standard normal: the third example of Balakrishnan et al. (2017).

NaN marks a missing value; which ones are missing may depend on anything observed. What is missing is the latent variable, and a
row has one state.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import floor, one_of, positive
from emcore.kernels import MissingRegression as MissingKernel
from emcore.kernels import all_finite
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array
from emcore.models._charts import Positive, Real
from emcore.models._least_squares import NormalEquations, unpacked
from emcore.models.gaussian import LOG_2PI
from emcore.models.mixture import KnownWeights
from emcore.models.normal_covariates import NormalCovariates
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import Block, DataSource

__all__ = ["COVARIATES", "OPERATORS", "MissingCovariates", "MissingRegression"]

Array = NDArray[np.float64]

COVARIATES = ("standard", "normal")
OPERATORS = ("exact", "identity-block")

DEFAULT_REG = 1e-6
FAR = 0.5  # standard deviations: a mean farther from what it should be is told of
UNEQUAL = 2.0  # so is a variance that differs by more than this factor
STANDARD_ERRORS = 5.0  # and in both cases by more than so many of these


class MissingCovariates(Part):
    """Regression on standard normal covariates some of which are missing.

    Parameters ``coefficients`` (d,) and, unless it is known, ``variance`` (1,).

    Statistics: ``[count 1 | square 1 | cross d | gram d*(d+1)/2]``, expectations given what is observed. With G the Gram matrix
    and s the sum of residual times covariate the M-step is ``b + G^-1 s``, the score ``s / v``, the metric ``v G^-1``, so that
    the EM step is P times the score exactly; those of the variance are as in a regression.

    Parameters
    ----------
    variance : float or None
        Of the response given all covariates, where it is known.
    operator : str
        One of `OPERATORS`.
    """

    n_responses: ClassVar[int] = 1
    takes_missing: ClassVar[bool] = True
    d: int
    _unlike: tuple[str, ...] = ()  # what the data have that the model does not expect

    def __init__(self, variance: float | None, operator: str):
        self.k, self.variance, self.operator = 1, variance, operator
        exact = operator == "exact"
        self.provides = frozenset({"em", "gradient", "metric", "tangent"} if exact else {"em"})
        if not exact:
            self.inexact = f"operator={operator!r} is the E-step of no likelihood"
            self.lacks = dict.fromkeys(("gradient", "metric", "tangent", "sparse"), self.inexact)

    def bind(self, source: DataSource) -> MissingCovariates:
        new = self._bound(source.n_columns)
        new._unlike = not_standard(source)
        return new

    def _bound(self, d: int) -> MissingCovariates:
        new = copy.copy(self)
        new.d = d
        new._fields = (Field("coefficients", (d,), Real((d,)), by_state=False),)
        if self.variance is None:
            new._fields += (Field("variance", (1,), Positive((1,)), by_state=False),)
        new._layout = Layout({"count": (1,), "square": (1,), "cross": (d,), "gram": (1, d * (d + 1) // 2)})
        return new

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {"d": np.array(self.d)}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> MissingCovariates:
        return self._bound(int(state["d"]))

    def initial(self) -> Any:
        return self._made(np.zeros(self.d), 1.0)

    def _made(self, coefficients: Array, variance: float) -> Any:
        """Return parameters of these coefficients and, where it is one of them, this variance."""
        return self.params(coefficients) if self.variance is not None else self.params(coefficients, np.array([variance]))

    def _variance(self, params: Any) -> float:
        return float(params.variance[0]) if self.variance is None else self.variance

    def _kernel(self, params: Any, tangents: Any = None) -> MissingKernel:
        v = self._variance(params)
        if not (all_finite(params.coefficients) and v < np.inf):
            raise Breakdown(Failure(Status.NON_FINITE, "coefficients"))
        if not v > 0:
            raise Breakdown(Failure(Status.COLLAPSED, "variance", detail="The residuals are 0."))
        return MissingKernel(params.coefficients, v, self.operator != "exact", tangents)

    def kernel(self, params: Any) -> MissingKernel:
        return self._kernel(params)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> MissingKernel:
        spreads = [v.variance[0] if self.variance is None else 0.0 for v in directions]
        return self._kernel(params, (np.array([v.coefficients for v in directions]), np.array(spreads)))

    def origin(self, params: Any) -> Array:
        return params.coefficients

    def _equations(self, stats: PartStats) -> NormalEquations:
        view, vector = self.layout.view, stats.vector
        return NormalEquations(unpacked(view(vector, "gram"), self.d), view(vector, "cross")[None], view(vector, "square"))

    def _sums(self, params: Any, stats: PartStats) -> tuple[float, Array, float]:
        """Return count, ``s`` (d,) and ``S`` about the coefficients of `params`, linear in the statistics."""
        found, delta = self._equations(stats), (params.coefficients - stats.origin)[None]
        bent = found.times(delta)
        square = found.square[0] - float(delta[0] @ (2.0 * found.cross - bent)[0])
        return float(self.layout.view(stats.vector, "count")[0]), (found.cross - bent)[0], square

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        if np.array_equal(stats.origin, new):
            return stats
        vector = stats.vector.copy()
        moved = self._equations(stats).moved((new - stats.origin)[None])
        self.layout.view(vector, "cross")[:] = moved.cross[0]
        self.layout.view(vector, "square")[:] = moved.square
        return PartStats(vector, new, stats.weight)

    def _solve(self, stats: PartStats, right: Array) -> Array:
        kept = self.fixed.get("coefficients")
        return self._equations(stats).solve(right[None], None if kept is None else kept[None])[0]

    def m_step(self, params: Any, stats: PartStats) -> Any:
        count, cross, square = self._sums(params, stats)
        delta = self._solve(stats, cross)
        if "variance" in self.fixed:
            return self._made(params.coefficients + delta, params.variance[0])
        left = square - float(delta @ (2.0 * cross - self._equations(stats).times(delta[None])[0]))
        return self._made(params.coefficients + delta, left / count)

    def q(self, params: Any, stats: PartStats) -> float:
        count, _, square = self._sums(params, stats)
        v = self._variance(params)
        covariates = float(np.trace(self._equations(stats).gram[0])) + count * self.d * LOG_2PI
        return -0.5 * (count * (LOG_2PI + np.log(v)) + square / v + covariates)

    def score(self, params: Any, stats: PartStats) -> Any:
        count, cross, square = self._sums(params, stats)
        v = self._variance(params)
        return self._made(cross / v, 0.5 * (square / v - count) / v)

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        count, cross, square = self._sums(params, stats)
        s, step = self._variance(params), v.coefficients
        spread = v.variance[0] if self.variance is None else 0.0
        bent = self._equations(stats).times(step[None])[0]
        return self._made(
            -(bent + cross * (spread / s)) / s, ((0.5 * count - square / s) * spread - float(cross @ step)) / (s * s)
        )

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        v = self._variance(params)
        count = float(self.layout.view(stats.vector, "count")[0])
        spread = g.variance[0] if self.variance is None else 0.0
        return self._made(v * self._solve(stats, g.coefficients), 2.0 * v * v * spread / count)

    def correction(self, params: Any, stats: PartStats) -> Any:
        count, cross, _ = self._sums(params, stats)
        return self._made(np.zeros(self.d), -float(cross @ self._solve(stats, cross)) / count)

    def from_user(self, given: Mapping[str, Any]) -> Any:
        coefficients = given_array(given, "coefficients", {"": (self.d,)})
        if self.variance is not None:
            return self.params(coefficients)
        variance = given_array(given, "variance", {"": (1,)})
        if not variance[0] > 0:
            raise ValueError(f"start: variance must be > 0, got {variance[0]}")
        return self.params(coefficients, variance)

    def sized(self, given: Mapping[str, Any]) -> MissingCovariates:
        return self._bound(len(given_array(given, "coefficients", {"": ("d",)})))

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: Array | None = None) -> Any:
        """Return complete covariates and their responses, (X, y): why values are missing is not part of the model."""
        X = rng.standard_normal((len(of), self.d))
        return X, X @ params.coefficients + np.sqrt(self._variance(params)) * rng.standard_normal(len(of))

    def expected_responses(self, user: Any, X: Array) -> Array:
        return (np.where(np.isnan(X), 0.0, X) @ user.coefficients)[:, None]  # the mean of what is missing is 0

    def warnings(self) -> tuple[str, ...]:
        if not self._unlike:
            return ()
        return (
            f"{', '.join(self._unlike)}: covariates='standard' takes what is missing as standard normal, the regression as one "
            "through 0, and coefficients are biased where that is wrong; covariates='normal' estimates mean, covariance and an "
            "intercept",
        )

    def framed(self, block: Block) -> Array:
        """Return the rows with 0, the mean of a covariate, for what is missing, and their responses."""
        X, y = (np.asarray(a, dtype=np.float64) for a in block.rows)
        return np.concatenate([np.where(np.isnan(X), 0.0, X), y], axis=1)


def not_standard(source: DataSource) -> tuple[str, ...]:
    """Return in words which columns with missing values are far from mean 0 and variance 1, and y if it is far from mean 0.

    Of columns without missing values nothing is assumed; where one is not about 0 (an intercept), y need not be either.

    Raises
    ------
    ValueError
        When a column is missing in every row.
    """
    seen, mean, variance = _moments(source)
    if not seen.all():
        raise ValueError(f"X: column {int(np.argmin(seen))} is missing in every row")
    gaps, spread = seen[:-1] < seen[-1], np.sqrt(variance)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        off = np.maximum(FAR, STANDARD_ERRORS / np.sqrt(seen))
        away = np.abs(mean[:-1]) > np.maximum(FAR, STANDARD_ERRORS * (spread / np.sqrt(seen))[:-1])
        unequal = np.abs(np.log(variance)) > np.maximum(np.log(UNEQUAL), STANDARD_ERRORS * np.sqrt(2.0 / seen))
    far = np.flatnonzero(gaps & (away | (unequal[:-1] & (seen[:-1] > 1))))  # one value has no variance
    found = [f"column {j} of X, with missing values, has mean {mean[j]:.3g} and variance {variance[j]:.3g}" for j in far[:1]]
    if len(far) > 1:
        found.append(f"{len(far) - 1} more are as far from 0 and 1")
    if abs(mean[-1]) > spread[-1] * off[-1] and not (away & ~gaps).any():
        found.append(f"y has mean {mean[-1]:.3g} and standard deviation {spread[-1]:.3g}")
    return tuple(found)


def _moments(source: DataSource) -> tuple[Array, Array, Array]:
    """Return how often the columns of X and y are seen in rows of positive weight, and their means and variances, (d + 1,)."""
    seen = total = mean = np.zeros(source.n_columns + 1)
    for power in (1, 2):
        seen, weight, total = (np.zeros(len(mean)) for _ in range(3))
        for i in range(source.n_blocks):
            for _, piece in source.block(i).pieces(source.n_columns + 1):
                rows = np.concatenate([np.asarray(a, dtype=np.float64) for a in piece.rows], axis=1)
                w = np.ones(len(rows)) if piece.weights is None else piece.weights
                there = ~np.isnan(rows) & (w > 0)[:, None]
                with np.errstate(over="ignore", invalid="ignore"):
                    total += w @ np.where(there, rows - mean, 0.0) ** power
                weight += w @ there
                seen += there.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean, total = (total / weight, total) if power == 1 else (mean, total / weight)
    return seen, mean, total


def MissingRegression(  # noqa: N802
    variance: float | None = None, *, covariates: str = "standard", operator: str = "exact", reg: float | None = None
) -> Model:
    """Return the model of a regression with noise, of rows (X, y) some of whose covariates are missing.

    Parameters
    ----------
    variance : float, optional
        Of the noise, where it is known; by default it is a parameter.
    covariates : {"standard", "normal"}
        What is known of them. "standard": they are independent, of mean 0 and variance 1, and the response has no intercept.
        "normal": nothing, mean and covariance are parameters, and so is an intercept.
    operator : {"exact", "identity-block"}
        The E-step. "exact" is EM. "identity-block" is not: it is here for comparison with published code, of standard
        covariates only; see the warning.
    reg : float, optional
        With normal covariates, the floor of the variance and of the eigenvalues of the covariance, in units in which each
        column has about unit variance; 1e-6 by default. With 0 there is none, and a collapse ends the climb with a status.
        Standard covariates have no such units and no floor.

    Returns
    -------
    Model
        Parameters ``coefficients`` (d,) and, unless it is known, ``variance`` (1,). With normal covariates ``coefficients`` are
        (d + 1,), the intercept first, and ``mean`` (d,) and ``covariance`` (d, d) of the covariates follow. NaN in X is a
        missing value, which may be missing for reasons that depend on what is observed, not on the value itself. A row may lack
        all its covariates.

    Raises
    ------
    ValueError, TypeError

    Warnings
    --------
    ``operator="identity-block"`` replaces the second moments of all pairs of missing covariates of a row by those of the
    identity. This is what they are on average over the population at the true coefficients, not what they are given the row,
    and code that claims to be EM can be found that does so. Its steps may lower the log-likelihood, and where it comes to
    rest the gradient does not vanish. The model then provides nothing that rests on Fisher's identity: solvers that need a
    gradient refuse it. Solver "em" (and "auto", which is EM alone) goes on through steps that fall, to where the operator
    rests; solvers that rest on monotone EM steps fail where these fall. As always no rule of `Stop` holds just after a fall by
    more than rounding, so that a climb that falls to the end goes on until falls are rounding.

    Notes
    -----
    Densities are those of the response and the observed covariates. With normal covariates they are those of the joint normal,
    of `GaussianMixture` with one component and ``missing=True`` on X and y side by side, of which the coefficients are the
    `implied_regression`; but for the floor both have the same maximum. Here coefficients have standard errors, and can be
    fixed (the intercept only with all others).

    Coordinates of standard covariates are the coefficients in the user's units, without a frame: covariates are to be
    standardised. A fit warns where those with missing values, or the response, are far from it.
    """
    known = None if variance is None else positive("variance", variance)
    one_of("covariates", covariates, COVARIATES)
    one_of("operator", operator, OPERATORS)
    options: dict[str, Any] = {"variance": known, "operator": operator}
    emission: Part
    if covariates == "standard":
        if reg is not None:
            raise ValueError("reg needs covariates='normal': standard covariates have no floor")
        emission = MissingCovariates(known, operator)
    else:
        if operator != "exact":
            raise ValueError(f"covariates='normal' needs operator 'exact', got {operator!r}")
        least = floor(DEFAULT_REG if reg is None else reg)
        emission, options = NormalCovariates(known, least), {"variance": known, "covariates": covariates, "reg": least}
    return Model(KnownWeights(np.ones(1)), emission, name="MissingRegression", options=options)
