"""Gaussian emissions of rows with missing columns (NaN), and the regressions that a joint normal implies.

The statistics are those of complete rows, expected given what is observed, so that M-step, `q`, score and metric are those of
`MatrixGaussian`; only the pass is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import whole
from emcore.kernels import MissingGaussian as MissingKernel
from emcore.kernels import all_finite
from emcore.models._base import Part
from emcore.models._frame import Frame
from emcore.models.gaussian import MatrixGaussian
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import Block, DataSource

__all__ = ["MissingGaussian", "implied_regression"]

Array = NDArray[np.float64]


class MissingGaussian(MatrixGaussian):
    """Full or tied covariances of rows in which NaN is a missing value.

    Where it has responses, they are the last columns, behind those of X.
    """

    provides: ClassVar[frozenset[str]] = MatrixGaussian.provides - {"sparse"}  # missing values are latent beside the state
    takes_missing: ClassVar[bool] = True

    def bind(self, source: DataSource) -> MissingGaussian:
        return self._bound(Frame.observed(source), source.n_rows)

    def fused(self, latent: Part, latent_params: Any, params: Any) -> None:
        return None

    def _missing_kernel(self, params: Any, tangents: Any = None) -> MissingKernel:
        if not all_finite(params.means):
            raise Breakdown(Failure(Status.NON_FINITE, "means"))
        self._factors(params.covariances)  # or break down
        f = self.frame
        return MissingKernel(
            params.means, self._batch(params.covariances), np.log(f.scale), f.shift, f.scale, self.tied, tangents,
            self.n_responses,
        )  # fmt: skip

    def kernel(self, params: Any) -> MissingKernel:
        return self._missing_kernel(params)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> MissingKernel:
        moves = np.array([self._batch(v.covariances) for v in directions])
        return self._missing_kernel(params, (np.array([v.means for v in directions]), moves))

    def framed(self, block: Block) -> Array:
        """Return the rows in frame units, with 0, the mean of a column, for what is missing."""
        rows = super().framed(block)
        return np.where(np.isnan(rows), 0.0, rows)


def implied_regression(params: Any, response: int) -> tuple[Array, Array]:
    """Return the linear regressions of one column on the others that Gaussian components imply.

    Parameters
    ----------
    params : named tuple
        Of a Gaussian mixture with ``means`` (k, d) and full or tied ``covariances``.
    response : int
        Index of the column.

    Returns
    -------
    coefficients : ndarray (k, d)
        The intercept first.
    variances : ndarray (k,)
        Of the residuals.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    With ``GaussianMixture(1, missing=True)`` fitted to covariates and response side by side these are the maximum likelihood
    estimates of a regression on normal covariates of unknown mean and covariance, any of which may be missing.
    """
    means, covariances = np.asarray(params.means), np.asarray(params.covariances)
    k, d = means.shape
    if covariances.shape not in ((k, d, d), (d, d)):
        raise ValueError(f"params: covariances must be full or tied, got shape {covariances.shape}")
    j = whole("response", response, 0)
    if j >= d or d < 2:
        raise ValueError(f"response must be one of {d} columns, and not the only one, got {j}")
    others = np.delete(np.arange(d), j)
    S = np.broadcast_to(covariances, (k, d, d))
    slopes = np.linalg.solve(S[:, others[:, None], others], S[:, others, j][:, :, None])[:, :, 0]
    intercepts = means[:, j] - np.einsum("ci,ci->c", means[:, others], slopes)
    variances = S[:, j, j] - np.einsum("ci,ci->c", S[:, j, others], slopes)
    return np.concatenate([intercepts[:, None], slopes], axis=1), variances
