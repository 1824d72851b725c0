"""Densities, responsibilities and statistics of Gaussian mixtures on plain arrays: one pass, without model, fit or frame.

Everything is in the units of the rows, which enter as they are: the kernels subtract a mean before they do anything else, so
that rows far from the origin lose no digits. Nothing is left out but responsibilities below e^-690, which are 0. float32 rows
are worked on in lanes of float64: those of float32 are for fits only, where they are asked for.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emcore._checks import finite_array, one_of, proportions, symmetric
from emcore.data import DataSource, as_source
from emcore.kernels._base import Sums, run
from emcore.kernels.gaussian_mixture import GaussianMixture
from emcore.kernels.mixture import log_weights
from emcore.kernels.threads import thread_count

__all__ = ["COVARIANCES", "Statistics", "log_density", "responsibilities", "statistics"]

Array = NDArray[np.float64]

COVARIANCES = ("full", "tied", "diag", "spherical")
LOG_2PI = math.log(2 * math.pi)


class Statistics(NamedTuple):
    """Expected sufficient statistics of rows x with weights w and responsibilities r, about the means of the pass.

    Statistics at the same parameters add over rows: so do the vectors ``[loglik 1 | count k | sum k*d | second]`` behind them.

    Attributes
    ----------
    loglik : float
        ``sum_i w_i log p(x_i)``, in nats.
    count : ndarray (k,)
        ``N_c = sum_i w_i r_ic``; they add up to the total weight.
    sum : ndarray (k, d)
        ``s_c = sum_i w_i r_ic (x_i - mean_c)``, in units of X.
    second : ndarray
        ``S_c = sum_i w_i r_ic (x_i - mean_c)(x_i - mean_c)'``, in units of X squared: "full" (k, d, d); "tied" (d, d), summed
        over the components; "diag" (k, d), the diagonals; "spherical" (k,), the traces.
    """

    loglik: float
    count: Array
    sum: Array
    second: Array


def log_density(
    X: ArrayLike,
    weights: ArrayLike,
    means: ArrayLike,
    covariances: ArrayLike,
    *,
    covariance: str = "full",
    out: Array | None = None,
    n_threads: int = 1,
) -> Array:
    """Return the log-density of each row under a mixture of Gaussians, (n,).

    Parameters
    ----------
    X : array_like (n, d)
        Rows: a table, of tuples too; ``(X, y)`` is no pair of rows and responses here. float64, float32, int64 and int32 are
        read as they are, in any memory layout, read-only too; other numeric types are converted once. All arithmetic is in
        float64, of float32 rows too, a panel at a time: results are those of ``X.astype(float)`` to the last bit.
    weights : array_like (k,)
        Weights of the components, >= 0 and of sum 1. One Gaussian is ``weights=[1]``.
    means : array_like (k, d)
        In units of X.
    covariances : array_like
        In units of X squared: symmetric positive definite matrices, or positive variances, in the shape that `covariance` says.
    covariance : {"full", "tied", "diag", "spherical"}
        One matrix a component, (k, d, d); one for all, (d, d); variances, (k, d); one variance a component, (k,).
    out : ndarray (n,), optional
        Where to put the result: float64, C-contiguous, sharing no memory with X.
    n_threads : int
        Threads of the pass; the result does not depend on it, to the last bit.

    Returns
    -------
    ndarray (n,)
        `out` where it was given. Nats, of a density in units of X; -inf where that is below what float64 holds.

    Raises
    ------
    ValueError, TypeError
        When an argument is not as described; it is named. X must be finite.

    See Also
    --------
    emcore.Fit.log_density : the same with the parameters of a fit.

    Notes
    -----
    ``log sum_c weight_c N(x; mean_c, covariance_c)`` [1]_, by log-sum-exp; squared distances are of ``L (x - mean)`` with L the
    inverse Cholesky factor.

    float32 rows save memory here, not arithmetic. Lanes of float32, of six digits and nearly twice as fast, are in passes for
    statistics only, of fits of ``emcore.models.GaussianMixture(k, single=True)``, where rows and parameters allow it and the
    CPU target has them (`single_lanes`). Log-densities and responsibilities are never computed in them.

    References
    ----------
    .. [1] G. McLachlan and D. Peel, Finite Mixture Models, Wiley, 2000, chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> from emcore.kernels import log_density
    >>> X = np.array([[0.0, 0.0], [3.0, 1.0]])
    >>> log_density(X, [0.5, 0.5], [[0, 0], [3, 1]], [1.0, 4.0], covariance="spherical").round(4)
    array([-2.4618, -3.8907])
    """
    n_threads = thread_count(n_threads)
    source = _rows(X)
    kernel = _kernel(source, weights, means, covariances, covariance)
    out = _output(out, (source.n_rows,), source)
    bad_row, row0 = -1, 0
    for i in range(source.n_blocks):
        rows = len(source.block(i).rows[0])
        sums = run(kernel, source.block(i), row_loglik=out[row0 : row0 + rows], n_threads=n_threads)
        bad_row, row0 = max(bad_row, sums.bad_row), row0 + rows
    if bad_row >= 0:  # the difference from a mean overflowed, and infinities of both signs met
        out[np.isnan(out)] = -np.inf
    return out


def responsibilities(
    X: ArrayLike,
    weights: ArrayLike,
    means: ArrayLike,
    covariances: ArrayLike,
    *,
    covariance: str = "full",
    out: Array | None = None,
    n_threads: int = 1,
) -> Array:
    """Return the posterior probability of each component for each row, (n, k).

    Parameters
    ----------
    X, weights, means, covariances, covariance, n_threads
        As in `log_density`: of float32 rows too all arithmetic is in float64.
    out : ndarray (n, k), optional
        Where to put the result: float64, C-contiguous, sharing no memory with X.

    Returns
    -------
    ndarray (n, k)
        `out` where it was given. Rows sum to 1.

    Raises
    ------
    ValueError, TypeError
        When an argument is not as described, or a row is so far from all components that its density is zero in floating
        point; it is named.

    See Also
    --------
    emcore.Fit.responsibilities : the same with the parameters of a fit.

    Notes
    -----
    ``r_c = weight_c N(x; mean_c, covariance_c) / sum_j weight_j N(x; mean_j, covariance_j)``: the E-step [1]_.

    References
    ----------
    .. [1] A. Dempster, N. Laird and D. Rubin, Maximum likelihood from incomplete data via the EM algorithm, J. R. Stat. Soc. B
       39 (1977), 1-38, section 4.3.
    """
    n_threads = thread_count(n_threads)
    source = _rows(X)
    kernel = _kernel(source, weights, means, covariances, covariance)
    out = _output(out, (source.n_rows, kernel.k), source)
    row0 = 0
    for i in range(source.n_blocks):
        rows = len(source.block(i).rows[0])
        _positive(source, i, run(kernel, source.block(i), resp=out[row0 : row0 + rows], n_threads=n_threads))
        row0 += rows
    return out


def statistics(
    X: ArrayLike,
    weights: ArrayLike,
    means: ArrayLike,
    covariances: ArrayLike,
    *,
    covariance: str = "full",
    sample_weight: ArrayLike | None = None,
    out: Array | None = None,
    n_threads: int = 1,
) -> Statistics:
    """Return the log-likelihood and the expected sufficient statistics of the rows, about `means`: one E-step.

    Nothing of size n x k is allocated.

    Parameters
    ----------
    X, weights, means, covariances, covariance, n_threads
        As in `log_density`: of float32 rows too all arithmetic is in float64. A fit of
        ``emcore.models.GaussianMixture(k, single=True)`` has faster lanes for them, of six digits.
    sample_weight : array_like (n,), optional
        Weights of the rows, >= 0. A weight of 0 is the row dropped, whatever it holds; a whole number is the row repeated.
    out : ndarray (1 + k + k*d + size of second,), optional
        Where to put ``[loglik 1 | count k | sum k*d | second]``: float64, C-contiguous, sharing no memory with X. It is
        overwritten, and the arrays returned are views of it. Such vectors add over parts of the rows.

    Returns
    -------
    Statistics
        Named tuple ``loglik``, ``count`` (k,), ``sum`` (k, d), ``second``.

    Raises
    ------
    ValueError, TypeError
        When an argument is not as described, a row of positive weight has a density of zero in floating point, or a sum
        overflows.

    Notes
    -----
    With N, s, S the statistics of a component, the EM update is ``weight = N / sum(N)``, ``mean + s / N`` and
    ``S / N - (s / N)(s / N)'`` [1]_, here about the old mean: nothing cancels but what the step itself moves.

    References
    ----------
    .. [1] G. McLachlan and D. Peel, Finite Mixture Models, Wiley, 2000, chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> from emcore.kernels import statistics
    >>> X, means = np.array([[0.0], [2.0], [4.0]]), np.array([[1.0]])
    >>> s = statistics(X, [1.0], means, [[1.0]], covariance="diag")
    >>> s.count, means + s.sum / s.count[:, None]
    (array([3.]), array([[2.]]))
    """
    n_threads = thread_count(n_threads)
    source = _rows(X, sample_weight)
    kernel = _kernel(source, weights, means, covariances, covariance)
    k, d = kernel.k, kernel.d
    shape = _shape(covariance, k, d)
    out = _output(out, (1 + k + k * d + math.prod(shape),), source)
    vector, loglik = np.zeros(kernel.n_stats), 0.0
    for i in range(source.n_blocks):
        sums = run(kernel, source.block(i), stats=vector, n_threads=n_threads)
        _positive(source, i, sums)
        loglik += sums.loglik
    if not (math.isfinite(loglik) and np.isfinite(vector).all()):
        raise ValueError("X: a sum over its rows is more than float64 holds; rescale it")
    _, count, _, total, second = np.split(vector, np.cumsum([k, k, k, k * d]))
    out[0], out[1 : 1 + k], out[1 + k : 1 + k + k * d] = loglik, count, total
    result = Statistics(loglik, out[1 : 1 + k], out[1 + k : 1 + k + k * d].reshape(k, d), out[1 + k + k * d :].reshape(shape))
    if covariance in ("full", "tied"):
        rows, cols = np.tril_indices(d)
        lower = second.reshape(*shape[:-2], -1)
        result.second[..., rows, cols] = lower
        result.second[..., cols, rows] = lower
    else:
        result.second[...] = second.reshape(shape)
    return result


# Arguments


def _rows(X: Any, sample_weight: ArrayLike | None = None) -> DataSource:
    """Return the source of the rows. A tuple is a table, as NumPy has it, not the rows and responses that a fit takes."""
    source = as_source(list(X) if isinstance(X, tuple) else X, sample_weight)
    if getattr(source, "n_responses", 0) or getattr(source, "missing", False):
        what = "responses" if getattr(source, "n_responses", 0) else "missing values"
        raise ValueError(f"X must be rows alone, got a source with {what}")
    return source


def _shape(covariance: str, k: Any, d: int) -> tuple[Any, ...]:
    """Return the shape of the covariances, and of the second-order statistics."""
    return {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[covariance]


def _kernel(
    source: DataSource, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike, covariance: str
) -> GaussianMixture:
    """Return the pass at these parameters, after their checks."""
    one_of("covariance", covariance, COVARIANCES)
    d = source.n_columns
    means = finite_array("means", means, {"a row a component, the columns of X": ("k", d)})
    k = len(means)
    weights = proportions("weights", finite_array("weights", weights, {"one a row of means": (k,)}))
    covariances = finite_array("covariances", covariances, {f"covariance={covariance!r}": _shape(covariance, k, d)})
    diagonal = covariance in ("diag", "spherical")
    factors, half_log_dets = _inverse_deviations(covariances, d) if diagonal else _inverse_factors(covariances)
    log_norms = np.broadcast_to(half_log_dets - 0.5 * d * LOG_2PI, (k,))
    pooled = covariance in ("tied", "spherical")
    # Without a frame of the rows no origin is near enough to them to whiten about.
    return GaussianMixture(
        log_weights(weights), means, factors, log_norms, np.zeros(d), np.ones(d), diagonal=diagonal, pooled=pooled, white=False
    )  # fmt: skip


def _inverse_deviations(variances: Array, d: int) -> tuple[Array, Array]:
    """Return inverse standard deviations (k, d), and half the logarithms of the determinants of the inverses (k,)."""
    low = np.flatnonzero(~(variances.reshape(len(variances), -1) > 0).all(axis=1))
    if len(low):
        raise ValueError(f"covariances must be positive: component {low[0]} has a variance of {variances[low[0]].min():.3g}")
    columns = np.broadcast_to(variances.reshape(len(variances), -1), (len(variances), d))
    return 1.0 / np.sqrt(columns), -0.5 * np.log(columns).sum(axis=1)


def _inverse_factors(covariances: Array) -> tuple[Array, Array]:
    """Return inverse Cholesky factors (m, d (d + 1) / 2), packed row by row, and the logarithms of their determinants (m,)."""
    from emcore.kernels import gaussian_matrices  # loads SciPy, which a plain import does not need

    d = covariances.shape[-1]
    batch = symmetric("covariances", covariances).reshape(-1, d, d)
    # In units in which variances are about 1, as the factors want them; powers of two, so that nothing is rounded.
    variances = np.diagonal(batch, axis1=1, axis2=2)
    scale = np.exp2(-np.round(0.5 * np.log2(variances, out=np.zeros_like(variances), where=variances > 0)))
    with np.errstate(over="ignore"):  # of a covariance that is larger than its variances allow
        inverse, half_log_dets, bad = gaussian_matrices.factors(batch * scale[:, :, None] * scale[:, None, :], 0.0)
    if bad != -1:
        lowest = np.linalg.eigvalsh(batch)[:, 0]
        c = bad if bad >= 0 else int(np.argmin(lowest))
        which = "the one of all components" if covariances.ndim == 2 else f"that of component {c}"
        raise ValueError(f"covariances must be positive definite: {which} has the eigenvalue {lowest[c]:.3g}")
    return inverse * scale[:, np.tril_indices(d)[1]], half_log_dets + np.log(scale).sum(axis=1)


def _output(out: Any, shape: tuple[int, ...], source: DataSource) -> Array:
    """Return the array to write to, after its checks."""
    if out is None:
        return np.empty(shape)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray) or out.dtype != np.float64:
        got = f"a {type(out).__name__}" if not isinstance(out, np.ndarray) or out.dtype == np.float64 else out.dtype
        raise TypeError(f"out must be a float64 ndarray, got {got}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise ValueError("out must be C-contiguous, aligned and writeable")
    if any(np.may_share_memory(out, source.block(i).rows[0]) for i in range(source.n_blocks)):
        raise ValueError("out must not share memory with X")
    return out


def _positive(source: DataSource, i: int, sums: Sums) -> None:
    """Raise where a row of block i has no density."""
    if sums.bad_row >= 0:
        row = source.row_of(i, sums.bad_row)
        raise ValueError(f"X: row {row} is so far from all components that its density is zero in floating point")
