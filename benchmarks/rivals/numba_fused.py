"""A fused loop in Numba: panels of rows that stay in cache, lanes over rows, accumulators of each thread's own.

Written by hand as a skilled user would: one sweep over the data an iteration, nothing of size n x k.
"""

import numpy as np

from rivals.rival import Fit, NotAvailable, Parameters, clock, supports

try:
    import numba
    from numba import njit, prange
except ImportError as error:
    raise NotAvailable(str(error)) from error

PANEL = 128
FEW = 100_000  # numbers in the data below which the threads of a sweep cost more than they save


@njit(fastmath=True, error_model="numpy", inline="always")
def softmax(logs, k):
    """Turn the log-densities (k, PANEL) into responsibilities, in place."""
    top, total = np.empty_like(logs[0]), np.empty_like(logs[0])
    top[:] = logs[0]
    total[:] = 0
    for c in range(1, k):
        for p in range(PANEL):
            top[p] = max(top[p], logs[c, p])
    for c in range(k):
        for p in range(PANEL):
            logs[c, p] = np.exp(logs[c, p] - top[p])
            total[p] += logs[c, p]
    for p in range(PANEL):
        total[p] = 1 / total[p]
    for c in range(k):
        for p in range(PANEL):
            logs[c, p] *= total[p]


@njit(fastmath=True, error_model="numpy", inline="always")
def load(X, begin, rows):
    """Copy rows of a panel to its columns; rows beyond the end repeat the first and get no responsibility."""
    d = X.shape[1]
    for p in range(PANEL):
        row = begin + p if p < len(X) - begin else begin
        for j in range(d):
            rows[j, p] = X[row, j]


@njit(fastmath=True, error_model="numpy", parallel=True, cache=True)
def sweep_full(X, means, factors, norms, threads):
    """Return counts, sums and lower scatters about the means: factors are the inverse Cholesky factors (k, d, d)."""
    n, d = X.shape
    k = len(means)
    counts, sums, scatters = np.zeros((threads, k)), np.zeros((threads, k, d)), np.zeros((threads, k, d, d))
    panels = (n + PANEL - 1) // PANEL
    for t in prange(threads):
        rows, logs = np.empty((d, PANEL), X.dtype), np.empty((k, PANEL), X.dtype)
        z, rz, y = np.empty((d, PANEL), X.dtype), np.empty(PANEL, X.dtype), np.empty(PANEL, X.dtype)
        for panel in range(panels * t // threads, panels * (t + 1) // threads):
            load(X, panel * PANEL, rows)
            for c in range(k):
                logs[c] = norms[c]
                for i in range(d):
                    y[:] = 0
                    for p in range(PANEL):
                        z[i, p] = rows[i, p] - means[c, i]
                    for j in range(i + 1):
                        f = factors[c, i, j]
                        for p in range(PANEL):
                            y[p] += f * z[j, p]
                    for p in range(PANEL):
                        logs[c, p] -= y[p] * y[p] / 2
            softmax(logs, k)
            logs[:, min(PANEL, n - panel * PANEL) :] = 0
            for c in range(k):
                r = logs[c]
                counts[t, c] += r.sum()
                for i in range(d):
                    total = X.dtype.type(0)
                    for p in range(PANEL):
                        z[i, p] = rows[i, p] - means[c, i]
                        rz[p] = r[p] * z[i, p]
                        total += rz[p]
                    sums[t, c, i] += total
                    for j in range(i + 1):
                        s = X.dtype.type(0)
                        for p in range(PANEL):
                            s += rz[p] * z[j, p]
                        scatters[t, c, i, j] += s
    return counts.sum(0), sums.sum(0), scatters.sum(0)


@njit(fastmath=True, error_model="numpy", parallel=True, cache=True)
def sweep_diag(X, means, scales, norms, threads):
    """Return counts, sums and sums of squares about the means: scales are the inverse standard deviations (k, d)."""
    n, d = X.shape
    k = len(means)
    counts, sums, squares = np.zeros((threads, k)), np.zeros((threads, k, d)), np.zeros((threads, k, d))
    panels = (n + PANEL - 1) // PANEL
    for t in prange(threads):
        rows, logs = np.empty((d, PANEL), X.dtype), np.empty((k, PANEL), X.dtype)
        for panel in range(panels * t // threads, panels * (t + 1) // threads):
            load(X, panel * PANEL, rows)
            for c in range(k):
                logs[c] = norms[c]
                for j in range(d):
                    mean, scale = means[c, j], scales[c, j]
                    for p in range(PANEL):
                        y = (rows[j, p] - mean) * scale
                        logs[c, p] -= y * y / 2
            softmax(logs, k)
            logs[:, min(PANEL, n - panel * PANEL) :] = 0
            for c in range(k):
                r = logs[c]
                counts[t, c] += r.sum()
                for j in range(d):
                    mean = means[c, j]
                    total, square = X.dtype.type(0), X.dtype.type(0)
                    for p in range(PANEL):
                        z = rows[j, p] - mean
                        total += r[p] * z
                        square += r[p] * z * z
                    sums[t, c, j] += total
                    squares[t, c, j] += square
    return counts.sum(0), sums.sum(0), squares.sum(0)


def step(X, weights, means, covariances, threads):
    """Return the parameters after one EM step."""
    d, real = X.shape[1], X.dtype.type
    full = covariances.ndim == 3
    if full:
        factors = np.linalg.inv(np.linalg.cholesky(covariances))
        half_log_det = np.log(np.einsum("kii->ki", factors)).sum(1)
    else:
        factors = 1 / np.sqrt(covariances)
        half_log_det = np.log(factors).sum(1)
    norms = np.log(weights) + half_log_det - d / 2 * np.log(2 * np.pi)
    sweep = sweep_full if full else sweep_diag
    origin = means.astype(real)
    count, total, second = sweep(X, origin, factors.astype(real), norms.astype(real), threads)
    moves = total / count[:, None]
    if full:
        second += np.tril(second, -1).transpose(0, 2, 1)
        covariances = second / count[:, None, None] - moves[:, :, None] * moves[:, None, :]
    else:
        covariances = second / count[:, None] - moves * moves
    return count / len(X), origin + moves, covariances


def fit(X, start, covariance, steps, threads):
    supports(covariance, "full", "diag")
    threads = 1 if X.size < FEW else threads
    numba.set_num_threads(threads)
    at = tuple(start)
    with clock() as time:
        for _ in range(steps):
            at = step(X, *at, threads)
    return Fit(Parameters(*at), time.seconds, numba.__version__)
