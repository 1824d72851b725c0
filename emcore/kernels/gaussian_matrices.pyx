"""What an EM step and a gradient do with the d x d matrices of Gaussian components, for all components in one call.

No pass over rows is here: these turn covariances into the factors that a pass needs, and its statistics into an M-step, the
expected log-density and its gradient. LAPACK and BLAS do what grows with d^3; the loops around them would cost more in
Python than a pass over a small sample.

Triangles are lower, packed row by row: ``t = d (d + 1) / 2`` entries. Statistics are about an origin (k, d); ``delta`` is the
means less the origin, about which they are wanted.
"""

import numpy as np

from libc.float cimport DBL_EPSILON
from libc.math cimport isfinite, log
from libc.string cimport memcpy
from scipy.linalg.cython_blas cimport dsymm
from scipy.linalg.cython_lapack cimport dlauum, dpotrf, dtrtri

__all__ = ["above", "expected", "factors", "m_step", "score"]

# LAPACK counts columns first: our lower triangle is its upper one.
cdef char LOWER = b"U"
cdef char LEFT = b"L"
cdef char RIGHT = b"R"
cdef char NOT_UNIT = b"N"


cdef bint all_finite(const double *a, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        if not isfinite(a[i]):
            return False
    return True


def factors(const double[:, :, ::1] covariances):
    """Return the inverse Cholesky factors of covariance matrices.

    Parameters
    ----------
    covariances : ndarray (m, d, d)
        Symmetric; the lower triangles are read.

    Returns
    -------
    inverse : ndarray (m, t)
    half_log_det : ndarray (m,)
        Halves of the logarithms of the determinants of the inverse matrices.
    bad : int
        The first matrix that is not positive definite, or so by no more than rounding, or -1. The rest is then not set.
        Less than -1: an entry is not finite.
    """
    cdef Py_ssize_t m = covariances.shape[0], d = covariances.shape[1], c, i, j, at
    inverse, half_log_det = np.empty((m, d * (d + 1) // 2)), np.empty(m)
    cdef double[:, ::1] packed = inverse
    cdef double[::1] logs = half_log_det
    cdef double[:, ::1] a = np.empty((d, d))
    cdef int size = <int> d, info
    cdef double pivot, sum_logs
    if not all_finite(&covariances[0, 0, 0], m * d * d):
        return inverse, half_log_det, -2
    with nogil:
        for c in range(m):
            memcpy(&a[0, 0], &covariances[c, 0, 0], 8 * d * d)
            dpotrf(&LOWER, &size, &a[0, 0], &size, &info)
            if info != 0:
                break
            sum_logs = 0.0
            for i in range(d):
                pivot = a[i, i] * a[i, i]
                # A pivot that is rounding of its variance, or a spread below the resolution of the rows, is no covariance.
                if pivot <= d * DBL_EPSILON * covariances[c, i, i] or not pivot > DBL_EPSILON * DBL_EPSILON:
                    info = 1
                sum_logs -= log(a[i, i])
            if info != 0:
                break
            dtrtri(&LOWER, &NOT_UNIT, &size, &a[0, 0], &size, &info)
            if info != 0:
                break
            logs[c] = sum_logs
            at = 0
            for i in range(d):
                for j in range(i + 1):
                    packed[c, at] = a[i, j]
                    at += 1
        else:
            c = -1
    return inverse, half_log_det, c


def above(const double[:, :, ::1] covariances, double floor):
    """Tell whether all eigenvalues of all matrices (m, d, d), all finite, are above a floor."""
    cdef Py_ssize_t c, i, d = covariances.shape[1]
    cdef double[:, ::1] a = np.empty((d, d))
    cdef int size = <int> d, info = 0
    with nogil:
        for c in range(covariances.shape[0]):
            memcpy(&a[0, 0], &covariances[c, 0, 0], 8 * d * d)
            for i in range(d):
                a[i, i] -= floor
            dpotrf(&LOWER, &size, &a[0, 0], &size, &info)
            if info != 0:
                break
    return info == 0


def m_step(const double[::1] count, const double[:, ::1] total, const double[:, ::1] second, const double[:, ::1] origin,
           const double[:, ::1] means, const double[:, :, ::1] covariances, double empty):
    """Return the means and covariances that maximise the expected log-density, without a floor.

    Parameters
    ----------
    count : ndarray (k,)
    total : ndarray (k, d)
        Sums of ``x - origin``.
    second : ndarray (m, t)
        Sums of the products of ``x - origin``, m = k, or 1: one covariance for all.
    origin, means : ndarray (k, d)
    covariances : ndarray (m, d, d)
        Components whose count is at most `empty` keep what they have in `means` and `covariances`.
    empty : float

    Returns
    -------
    means : ndarray (k, d)
    covariances : ndarray (m, d, d)
    """
    cdef Py_ssize_t k = total.shape[0], d = total.shape[1], m = second.shape[0], c, i, j, at, own
    new_means, new_covariances = np.empty((k, d)), np.zeros((m, d, d))
    cdef double[:, ::1] mean = new_means
    cdef double[:, :, ::1] sigma = new_covariances
    cdef double[::1] delta = np.empty(d)
    cdef double weight = 0.0, share
    cdef bint tied = m < k
    with nogil:
        for c in range(k):
            weight += count[c]
        for c in range(k):
            if count[c] <= empty:
                memcpy(&mean[c, 0], &means[c, 0], 8 * d)
                if not tied:
                    memcpy(&sigma[c, 0, 0], &covariances[c, 0, 0], 8 * d * d)
                continue
            for j in range(d):
                delta[j] = total[c, j] / count[c]
                mean[c, j] = origin[c, j] + delta[j]
            own = 0 if tied else c
            share = count[c] / weight if tied else 1.0
            at = 0
            for i in range(d):
                for j in range(i + 1):
                    if not tied:
                        sigma[own, i, j] = second[c, at] / count[c]
                    sigma[own, i, j] -= share * delta[i] * delta[j]
                    at += 1
        for c in range(m):
            at = 0
            for i in range(d):
                for j in range(i + 1):
                    if tied:
                        sigma[c, i, j] += second[c, at] / weight
                    sigma[c, j, i] = sigma[c, i, j]
                    at += 1
    return new_means, new_covariances


cdef void unpack(const double *packed, double *a, Py_ssize_t d) noexcept nogil:
    """Write a triangle into the lower half of a matrix; the other half is not touched."""
    cdef Py_ssize_t i, j, at = 0
    for i in range(d):
        for j in range(i + 1):
            a[i * d + j] = packed[at]
            at += 1


cdef void mirror(double *a, Py_ssize_t d) noexcept nogil:
    cdef Py_ssize_t i, j
    for i in range(d):
        for j in range(i):
            a[j * d + i] = a[i * d + j]


cdef void move(double *a, const double *total, const double *delta, double count, Py_ssize_t d) noexcept nogil:
    """Move second-order sums (lower half) of one component by delta, `total` being about the old origin."""
    cdef Py_ssize_t i, j
    for i in range(d):
        for j in range(i + 1):
            a[i * d + j] += count * delta[i] * delta[j] - (total[i] * delta[j] + delta[i] * total[j])


cdef double gather(Py_ssize_t c, const double[::1] count, const double[:, ::1] total, const double[:, ::1] second,
                   const double[:, ::1] delta, double *a) noexcept nogil:
    """Fill the lower half of `a` with the second-order sums about the means that belong to matrix c; return their count."""
    cdef Py_ssize_t d = total.shape[1], begin = c, end = c + 1, i
    cdef double weight = 0.0
    if second.shape[0] < total.shape[0]:
        begin, end = 0, total.shape[0]
    unpack(&second[c, 0], a, d)
    for i in range(begin, end):
        move(a, &total[i, 0], &delta[i, 0], count[i], d)
        weight += count[i]
    return weight


cdef int invert(const double *inverse, double *precision, Py_ssize_t d) noexcept nogil:
    """Fill the lower half of `precision` with the inverse matrix, from its inverse factor."""
    cdef int size = <int> d, info
    unpack(inverse, precision, d)
    dlauum(&LOWER, &size, precision, &size, &info)
    return info


def expected(const double[::1] count, const double[:, ::1] total, const double[:, ::1] second, const double[:, ::1] delta,
             const double[:, ::1] inverse, const double[::1] log_norms):
    """Return the expected log-density, ``sum_c N_c log_norm_c - tr(inverse_c' inverse_c S_c) / 2``.

    Parameters
    ----------
    count, total, second, delta : ndarray (k,), (k, d), (m, t), (k, d)
        Statistics, and the means less their origin.
    inverse, log_norms : ndarray (m, t), (k,)
        Inverse factors, and the logarithms of the densities at the means.

    Returns
    -------
    float
    """
    cdef Py_ssize_t d = total.shape[1], c, i, j
    cdef double[:, ::1] scatter = np.empty((d, d)), precision = np.empty((d, d))
    cdef double value = 0.0, trace
    with nogil:
        for c in range(total.shape[0]):
            value += count[c] * log_norms[c]
        for c in range(second.shape[0]):
            gather(c, count, total, second, delta, &scatter[0, 0])
            invert(&inverse[c, 0], &precision[0, 0], d)
            trace = 0.0
            for i in range(d):
                for j in range(i):
                    trace += 2.0 * precision[i, j] * scatter[i, j]
                trace += precision[i, i] * scatter[i, i]
            value -= 0.5 * trace
    return value


def score(const double[::1] count, const double[:, ::1] total, const double[:, ::1] second, const double[:, ::1] delta,
          const double[:, ::1] inverse):
    """Return the gradient of the expected log-density with respect to means and covariances.

    ``P (s - N delta)`` and ``(P S P - N P) / 2``, P being the inverse of the covariance.

    Parameters
    ----------
    count, total, second, delta : ndarray (k,), (k, d), (m, t), (k, d)
        Statistics, and the means less their origin.
    inverse : ndarray (m, t)
        Inverse factors.

    Returns
    -------
    means : ndarray (k, d)
    covariances : ndarray (m, d, d)
        Symmetric, all entries taken as free.
    """
    cdef Py_ssize_t k = total.shape[0], d = total.shape[1], m = second.shape[0], c, i, j, g, begin, end
    g_means, g_covariances = np.empty((k, d)), np.empty((m, d, d))
    cdef double[:, ::1] means = g_means
    cdef double[:, :, ::1] covariances = g_covariances
    cdef double[:, ::1] scatter = np.empty((d, d)), precision = np.empty((d, d)), product = np.empty((d, d))
    cdef double weight, one = 1.0, zero = 0.0, half
    cdef int size = <int> d
    with nogil:
        for c in range(m):
            weight = gather(c, count, total, second, delta, &scatter[0, 0])
            mirror(&scatter[0, 0], d)
            invert(&inverse[c, 0], &precision[0, 0], d)
            mirror(&precision[0, 0], d)
            dsymm(&LEFT, &LOWER, &size, &size, &one, &precision[0, 0], &size, &scatter[0, 0], &size, &zero,
                  &product[0, 0], &size)
            dsymm(&RIGHT, &LOWER, &size, &size, &one, &precision[0, 0], &size, &product[0, 0], &size, &zero,
                  &scatter[0, 0], &size)
            for i in range(d):
                for j in range(i + 1):
                    half = 0.25 * (scatter[i, j] + scatter[j, i]) - 0.5 * weight * precision[i, j]
                    covariances[c, i, j] = covariances[c, j, i] = half
            begin, end = c, c + 1
            if m < k:
                begin, end = 0, k
            for g in range(begin, end):
                for i in range(d):
                    means[g, i] = 0.0
                    for j in range(d):
                        means[g, i] += precision[i, j] * (total[g, j] - count[g] * delta[g, j])
    return g_means, g_covariances
