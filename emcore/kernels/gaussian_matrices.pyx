"""What an EM step and a gradient do with the d x d matrices of Gaussian components, for all components in one call.

No pass over rows is here: these turn coordinates into covariances, covariances into the factors that a pass needs, and its
statistics into an M-step, the expected log-density and its gradient. LAPACK and BLAS do what grows with d^3; the loops around
them would cost more in Python than a pass over a small sample.

Triangles are lower, packed row by row: ``t = d (d + 1) / 2`` entries. Statistics are those of `GaussianTri`, ``[count k |
mass k | sum k*d | second m*t]``, about an origin (k, d). There are m = k covariances, or m = 1 for all components.
"""

import numpy as np

cimport numpy as cnp
from emcore.kernels._arrays cimport data, finite, zeros
from libc.float cimport DBL_EPSILON
from libc.math cimport copysign, exp, fabs, fmax, fmin, log, sqrt
from libc.string cimport memcpy
from scipy.linalg.cython_blas cimport dgemm
from scipy.linalg.cython_lapack cimport dpotrf, dtrtri

cnp.import_array()

__all__ = ["chart_forward", "chart_inverse", "chart_pull", "directions", "expected", "factors", "m_step", "score", "slopes"]

# LAPACK counts columns first: our lower triangle is its upper one.
cdef char LOWER = b"U"
cdef char PLAIN = b"N"  # neither transposed nor of unit diagonal
cdef char TRANSPOSED = b"T"

cdef enum:
    # Products of so many rows and columns are not worth threads, so the BLAS uses none: they would fight with those of the
    # passes for the cores, and show in the last bit.
    TILE = 64


cdef struct Moments:
    Py_ssize_t k, d, m, t
    const double *count
    const double *total
    const double *second
    const double *origin
    const double *means


cdef Moments moments_of(const double[::1] stats, const double[::1] origin, const double[:, ::1] means) except *:
    """Return where the parts of the statistics are, and the means about which they are wanted."""
    cdef Moments s
    s.k, s.d = means.shape[0], means.shape[1]
    s.t = s.d * (s.d + 1) // 2
    cdef Py_ssize_t second = stats.shape[0] - s.k * (2 + s.d)
    if second not in (s.t, s.k * s.t) or origin.shape[0] != s.k * s.d:
        raise ValueError(f"statistics {stats.shape[0]} and origin {origin.shape[0]} do not fit means ({s.k}, {s.d})")
    s.m = second // s.t
    s.count, s.total, s.second = &stats[0], &stats[2 * s.k], &stats[s.k * (2 + s.d)]
    s.origin, s.means = &origin[0], &means[0, 0]
    return s


cdef void unpack(const double *packed, double *a, Py_ssize_t d) noexcept nogil:
    """Write a triangle into the lower half of a matrix; the other half is not touched."""
    cdef Py_ssize_t i, j, at = 0
    for i in range(d):
        for j in range(i + 1):
            a[i * d + j] = packed[at]
            at += 1


cdef void mirror(double *a, Py_ssize_t d) noexcept nogil:
    """Copy the lower half of a matrix to the upper one."""
    cdef Py_ssize_t i, j
    for i in range(d):
        for j in range(i):
            a[j * d + i] = a[i * d + j]


cdef void gemm(char *a_as, char *b_as, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t inner, double alpha, const double *a,
               const double *b, double beta, double *out, Py_ssize_t d) noexcept nogil:
    """out = alpha a b + beta out, parts of matrices of d columns, each as it is (PLAIN) or TRANSPOSED."""
    cdef int m = <int> rows, n = <int> cols, k = <int> inner, lead = <int> d
    # Columns first: the transpose of the product is the product of the transposes the other way round.
    dgemm(b_as, a_as, &n, &m, &k, &alpha, <double *> b, &lead, <double *> a, &lead, &beta, out, &lead)


cdef void product(const double *a, char *a_as, const double *b, char *b_as, double *out, Py_ssize_t d) noexcept nogil:
    """out = a b, matrices of d x d, tile by tile."""
    cdef Py_ssize_t i, j, t, rows, cols, inner
    cdef const double *left
    cdef const double *right
    for i from 0 <= i < d by TILE:
        rows = min(TILE, d - i)
        for j from 0 <= j < d by TILE:
            cols = min(TILE, d - j)
            for t from 0 <= t < d by TILE:
                inner = min(TILE, d - t)
                left = a + i * d + t if a_as == &PLAIN else a + t * d + i
                right = b + t * d + j if b_as == &PLAIN else b + j * d + t
                gemm(a_as, b_as, rows, cols, inner, 1.0, left, right, 1.0 if t > 0 else 0.0, out + i * d + j, d)


cdef int cholesky(double *a, double *inverse, Py_ssize_t d) noexcept nogil:
    """Factor the lower half of a symmetric matrix in place, by tiles, and invert the factor.

    `inverse` (d, d) comes with its upper half 0; its lower half may hold anything. It may be NULL where there is one tile.
    Returns not 0 where a pivot is not positive.
    """
    cdef Py_ssize_t i, j, t, size, rows, cols
    cdef int lead = <int> d, b, info
    cdef double[TILE * TILE] spare
    cdef Py_ssize_t r, c
    for j from 0 <= j < d by TILE:
        size = min(TILE, d - j)
        b = <int> size
        for t from 0 <= t < j by TILE:
            gemm(&PLAIN, &TRANSPOSED, size, size, TILE, -1.0, a + j * d + t, a + j * d + t, 1.0, a + j * d + j, d)
        dpotrf(&LOWER, &b, a + j * d + j, &lead, &info)
        if info != 0 or inverse == NULL:
            return info
        for r in range(size):
            for c in range(r + 1):
                inverse[(j + r) * d + j + c] = a[(j + r) * d + j + c]
            for c in range(r + 1, size):
                a[(j + r) * d + j + c] = 0.0
        dtrtri(&LOWER, &PLAIN, &b, inverse + j * d + j, &lead, &info)
        for i from j + TILE <= i < d by TILE:
            rows = min(TILE, d - i)
            for t from 0 <= t < j by TILE:
                gemm(&PLAIN, &TRANSPOSED, rows, size, TILE, -1.0, a + i * d + t, a + j * d + t, 1.0, a + i * d + j, d)
            divide(a + i * d + j, a + j * d + j, inverse + j * d + j, rows, size, &spare[0], d)
    for j from 0 <= j < d by TILE:  # columns of the inverse: those below its diagonal from those above them
        cols = min(TILE, d - j)
        for i from j + TILE <= i < d by TILE:
            rows = min(TILE, d - i)
            for t from j <= t < i by TILE:
                size = min(TILE, d - t)
                gemm(&PLAIN, &PLAIN, rows, cols, size, -1.0, a + i * d + t, inverse + t * d + j, 1.0 if t > j else 0.0,
                     inverse + i * d + j, d)
            for r in range(rows):
                memcpy(&spare[r * TILE], inverse + (i + r) * d + j, 8 * cols)
            # Rows of the spare tile are TILE apart, of the others d.
            spread(inverse + i * d + i, &spare[0], inverse + i * d + j, rows, cols, d)
    return 0


cdef void divide(double *x, const double *L, const double *inverse, Py_ssize_t rows, Py_ssize_t size, double *spare,
                 Py_ssize_t d) noexcept nogil:
    """x = x L'^-1 by the inverse of a tile, and once more for what rounding left."""
    cdef int m = <int> rows, n = <int> size, lead = <int> d, tile = TILE
    cdef double one = 1.0, zero = 0.0, minus = -1.0
    cdef double[TILE * TILE] left
    cdef Py_ssize_t r
    # left = x inverse', spare = x - left L', x = left + spare inverse'
    dgemm(&TRANSPOSED, &PLAIN, &n, &m, &n, &one, <double *> inverse, &lead, x, &lead, &zero, &left[0], &tile)
    for r in range(rows):
        memcpy(spare + r * TILE, x + r * d, 8 * size)
        memcpy(x + r * d, &left[r * TILE], 8 * size)
    dgemm(&TRANSPOSED, &PLAIN, &n, &m, &n, &minus, <double *> L, &lead, &left[0], &tile, &one, spare, &tile)
    dgemm(&TRANSPOSED, &PLAIN, &n, &m, &n, &one, <double *> inverse, &lead, spare, &tile, &one, x, &lead)


cdef void spread(const double *left, const double *spare, double *out, Py_ssize_t rows, Py_ssize_t cols,
                 Py_ssize_t d) noexcept nogil:
    """out = left spare, `spare` being a tile of its own."""
    cdef int m = <int> rows, n = <int> cols, lead = <int> d, tile = TILE
    cdef double one = 1.0, zero = 0.0
    dgemm(&PLAIN, &PLAIN, &n, &m, &m, &one, <double *> spare, &tile, <double *> left, &lead, &zero, out, &lead)


def factors(const double[:, :, ::1] covariances, double log_norm0):
    """Return the inverse Cholesky factors of covariance matrices.

    Parameters
    ----------
    covariances : ndarray (m, d, d)
        Symmetric; the lower triangles are read.
    log_norm0 : float
        Log-density at the mean where the covariance is the identity.

    Returns
    -------
    inverse : ndarray (m, t)
    log_norms : ndarray (m,)
        Log-densities at the mean: `log_norm0` and half the logarithm of the determinant of the inverse matrix.
    bad : int
        The first matrix that is not positive definite, or so by no more than rounding; -1: none; less: an entry is not
        finite. Where it is not -1 the rest is not set.
    """
    cdef Py_ssize_t m = covariances.shape[0], d = covariances.shape[1], c, i, j, at = 0
    cdef cnp.ndarray inverse = zeros(2, m, d * (d + 1) // 2), log_norms = zeros(1, m), work = zeros(3, 2, d, d)
    cdef double *packed = data(inverse)
    cdef double *logs = data(log_norms)
    cdef double *a = data(work)
    cdef double *inverted = a + d * d
    cdef int info
    cdef double pivot, sum_logs
    if covariances.shape[2] != d:
        raise ValueError(f"covariances must be square, got ({m}, {d}, {covariances.shape[2]})")
    if not finite(&covariances[0, 0, 0], m * d * d):
        return inverse, log_norms, -2
    with nogil:
        for c in range(m):
            memcpy(a, &covariances[c, 0, 0], 8 * d * d)
            info = cholesky(a, inverted, d)
            if info != 0:
                break
            sum_logs = log_norm0
            for i in range(d):
                pivot = a[i * d + i] * a[i * d + i]
                # A pivot that is rounding of its variance, or a spread below the resolution of the rows, is no covariance.
                if pivot <= d * DBL_EPSILON * covariances[c, i, i] or not pivot > DBL_EPSILON * DBL_EPSILON:
                    info = 1
                sum_logs -= log(a[i * d + i])
            if info != 0:
                break
            logs[c] = sum_logs
            for i in range(d):
                for j in range(i + 1):
                    packed[at] = inverted[i * d + j]
                    at += 1
        else:
            c = -1
    return inverse, log_norms, c


def m_step(const double[::1] stats, const double[::1] origin, const double[:, ::1] means, const double[:, :, ::1] covariances,
           double empty, double floor):
    """Return the means and covariances that maximise the expected log-density where no eigenvalue is to be at the floor.

    Parameters
    ----------
    stats, origin : ndarray (k (2 + d) + m t,), (k d,)
    means, covariances : ndarray (k, d), (m, d, d)
        What components keep whose count is at most `empty`.
    empty, floor : float

    Returns
    -------
    means : ndarray (k, d)
    covariances : ndarray (m, d, d)
    above : int
        1: all eigenvalues are above the floor; 0: some are not; -1: an entry is not finite.
    """
    cdef Moments s = moments_of(stats, origin, means)
    cdef Py_ssize_t d = s.d, c, i, j, at
    if covariances.shape[0] != s.m or covariances.shape[1] != d or covariances.shape[2] != d:
        raise ValueError(f"covariances must have shape ({s.m}, {d}, {d})")
    cdef cnp.ndarray new_means = zeros(2, s.k, d), new_covariances = zeros(3, s.m, d, d), work = zeros(1, (1 + 2 * d) * d)
    cdef double *mean = data(new_means)
    cdef double *first = data(new_covariances)
    cdef double *sigma = first
    cdef double *delta = data(work)
    cdef double *a = delta + d
    cdef double *inverted = NULL if d <= TILE else a + d * d
    cdef double weight = 0.0, share
    cdef bint tied = s.m < s.k
    cdef int above = 1
    with nogil:
        for c in range(s.k):
            weight += s.count[c]
        for c in range(s.k):
            if not tied:
                sigma = first + c * d * d
            if s.count[c] <= empty:
                memcpy(mean + c * d, &means[c, 0], 8 * d)
                if not tied:
                    memcpy(sigma, &covariances[c, 0, 0], 8 * d * d)
                continue
            for j in range(d):
                delta[j] = s.total[c * d + j] / s.count[c]
                mean[c * d + j] = s.origin[c * d + j] + delta[j]
            share = s.count[c] / weight if tied else 1.0
            at = c * s.t
            for i in range(d):
                for j in range(i + 1):
                    if not tied:
                        sigma[i * d + j] = s.second[at] / s.count[c]
                        at += 1
                    sigma[i * d + j] -= share * delta[i] * delta[j]
        if tied:
            at = 0
            for i in range(d):
                for j in range(i + 1):
                    first[i * d + j] += s.second[at] / weight
                    at += 1
        for c in range(s.m):
            mirror(first + c * d * d, d)
        if not finite(first, s.m * d * d):
            above = -1
        for c in range(s.m):
            if above != 1:
                break
            memcpy(a, first + c * d * d, 8 * d * d)
            for i in range(d):
                a[i * d + i] -= floor
            if cholesky(a, inverted, d) != 0:
                above = 0
    return new_means, new_covariances, above


cdef double gather(const Moments *s, Py_ssize_t c, double *a) noexcept nogil:
    """Fill the lower half of `a` with the second-order sums about the means that belong to matrix c; return their count.

    About an origin moved by delta they are ``S - s delta' - delta s' + N delta delta'``.
    """
    cdef Py_ssize_t d = s.d, begin = c, end = c + 1, i, j, g
    cdef double weight = 0.0, left, right
    cdef const double *total
    cdef const double *origin
    cdef const double *mean
    if s.m < s.k:
        begin, end = 0, s.k
    unpack(s.second + c * s.t, a, d)
    for g in range(begin, end):
        total, origin, mean = s.total + g * d, s.origin + g * d, s.means + g * d
        for i in range(d):
            left = mean[i] - origin[i]
            for j in range(i + 1):
                right = mean[j] - origin[j]
                a[i * d + j] += s.count[g] * left * right - (total[i] * right + left * total[j])
        weight += s.count[g]
    return weight


cdef void invert(const double *inverse, double *work, double *precision, Py_ssize_t d) noexcept nogil:
    """Fill `precision` with the inverse matrix, from its inverse factor. The upper half of `work` must be 0."""
    unpack(inverse, work, d)
    product(work, &TRANSPOSED, work, &PLAIN, precision, d)


cdef int check_factors(const Moments *s, const double[:, ::1] inverse) except -1:
    if inverse.shape[0] != s.m or inverse.shape[1] != s.t:
        raise ValueError(f"inverse must have shape ({s.m}, {s.t}), got ({inverse.shape[0]}, {inverse.shape[1]})")
    return 0


def expected(const double[::1] stats, const double[::1] origin, const double[:, ::1] means, const double[:, ::1] inverse,
             const double[::1] log_norms):
    """Return the expected log-density, ``sum_c N_c log_norm_c - tr(P_c S_c) / 2``.

    Parameters
    ----------
    stats, origin, means : ndarray (k (2 + d) + m t,), (k d,), (k, d)
    inverse : ndarray (m, t)
        Inverse factors; P is the inverse matrix.
    log_norms : ndarray (k,)
        Logarithms of the densities at the means.

    Returns
    -------
    float
    """
    cdef Moments s = moments_of(stats, origin, means)
    cdef Py_ssize_t d = s.d, c, i, j
    check_factors(&s, inverse)
    if log_norms.shape[0] != s.k:
        raise ValueError(f"log_norms must have shape ({s.k},), got ({log_norms.shape[0]},)")
    cdef cnp.ndarray work = zeros(3, 3, d, d)
    cdef double *scatter = data(work)
    cdef double *precision = scatter + d * d
    cdef double *factor = precision + d * d
    cdef double value = 0.0, trace
    with nogil:
        for c in range(s.k):
            value += s.count[c] * log_norms[c]
        for c in range(s.m):
            gather(&s, c, scatter)
            invert(&inverse[c, 0], factor, precision, d)
            trace = 0.0
            for i in range(d):
                for j in range(i):
                    trace += 2.0 * precision[i * d + j] * scatter[i * d + j]
                trace += precision[i * d + i] * scatter[i * d + i]
            value -= 0.5 * trace
    return value


def score(const double[::1] stats, const double[::1] origin, const double[:, ::1] means, const double[:, ::1] inverse):
    """Return the gradient of the expected log-density with respect to means and covariances.

    ``P s`` and ``(P S P - N P) / 2``, N, s and S being about the means and P the inverse of the covariance.

    Parameters
    ----------
    stats, origin, means : ndarray (k (2 + d) + m t,), (k d,), (k, d)
    inverse : ndarray (m, t)
        Inverse factors.

    Returns
    -------
    means : ndarray (k, d)
    covariances : ndarray (m, d, d)
        Symmetric, all entries taken as free.
    """
    cdef Moments s = moments_of(stats, origin, means)
    cdef Py_ssize_t d = s.d, c, i, j, g, begin, end, at
    check_factors(&s, inverse)
    cdef cnp.ndarray g_means = zeros(2, s.k, d), g_covariances = zeros(3, s.m, d, d), work = zeros(3, 4, d, d)
    cdef double *slope = data(g_means)
    cdef double *curve = data(g_covariances)
    cdef double *scatter = data(work)
    cdef double *half = scatter + d * d
    cdef double *precision = half + d * d
    cdef double *factor = precision + d * d
    cdef double weight, total
    with nogil:
        for c in range(s.m):
            weight = gather(&s, c, scatter)
            mirror(scatter, d)
            invert(&inverse[c, 0], factor, precision, d)
            product(precision, &PLAIN, scatter, &PLAIN, half, d)
            product(half, &PLAIN, precision, &PLAIN, scatter, d)
            for i in range(d):
                for j in range(i + 1):
                    curve[i * d + j] = 0.25 * (scatter[i * d + j] + scatter[j * d + i]) - 0.5 * weight * precision[i * d + j]
            mirror(curve, d)
            curve += d * d
            begin, end = c, c + 1
            if s.m < s.k:
                begin, end = 0, s.k
            for g in range(begin, end):
                for j in range(d):
                    at = g * d + j
                    total = s.total[at] - s.count[g] * (s.means[at] - s.origin[at])
                    for i in range(d):
                        slope[g * d + i] += precision[j * d + i] * total
    return g_means, g_covariances


# The chart of covariances: x = floor I + L L', L lower triangular with the logarithms of its diagonal in t


cdef void factor_of(const double *t, double *L, Py_ssize_t d, double largest) noexcept nogil:
    """Fill the lower half of L from its coordinates, logarithms clamped to +- largest."""
    cdef Py_ssize_t i
    unpack(t, L, d)
    for i in range(d):
        if fabs(L[i * d + i]) > largest:  # NaN stays
            L[i * d + i] = copysign(largest, L[i * d + i])
        L[i * d + i] = exp(L[i * d + i])


def chart_forward(const double[::1] t, Py_ssize_t d, double floor, double largest):
    """Return the matrices (m, d, d) at coordinates t (m * d (d + 1) / 2,)."""
    cdef Py_ssize_t size = d * (d + 1) // 2, m = t.shape[0] // size, c, i
    matrices = np.empty((m, d, d))
    cdef double[:, :, ::1] x = matrices
    cdef double[:, ::1] L = np.zeros((d, d))
    with nogil:
        for c in range(m):
            factor_of(&t[c * size], &L[0, 0], d, largest)
            product(&L[0, 0], &PLAIN, &L[0, 0], &TRANSPOSED, &x[c, 0, 0], d)
            for i in range(d):
                x[c, i, i] += floor
            mirror(&x[c, 0, 0], d)
    return matrices


def chart_inverse(const double[:, :, ::1] x, double floor, double largest):
    """Return the coordinates (m * d (d + 1) / 2,) of matrices x (m, d, d), logarithms clamped to +- largest.

    And whether all are inside the floor by more than rounding: else the coordinates are not set.
    """
    cdef Py_ssize_t m = x.shape[0], d = x.shape[1], c, i, j, at = 0
    if x.shape[2] != d:
        raise ValueError(f"matrices must be square, got ({m}, {d}, {x.shape[2]})")
    cdef cnp.ndarray coordinates = zeros(1, m * (d * (d + 1) // 2)), work = zeros(3, 2, d, d)
    cdef double *t = data(coordinates)
    cdef double *a = data(work)
    cdef double *inverted = NULL if d <= TILE else a + d * d
    cdef int info = 0
    with nogil:
        for c in range(m):
            memcpy(a, &x[c, 0, 0], 8 * d * d)
            for i in range(d):
                a[i * d + i] -= floor
            info = cholesky(a, inverted, d)
            if info != 0:
                break
            for i in range(d):
                a[i * d + i] = fmin(fmax(log(a[i * d + i]), -largest), largest)
                for j in range(i + 1):
                    t[at] = a[i * d + j]
                    at += 1
    return coordinates, info == 0


def chart_pull(const double[::1] t, const double[:, :, ::1] g, double largest):
    """Return the gradient with respect to t of a gradient g (m, d, d), symmetric, with respect to the matrices."""
    cdef Py_ssize_t d = g.shape[1], size = d * (d + 1) // 2, c, i, j, at
    if g.shape[2] != d or t.shape[0] != g.shape[0] * size:
        raise ValueError(f"{t.shape[0]} coordinates do not fit matrices ({g.shape[0]}, {d}, {g.shape[2]})")
    pulled = np.empty(t.shape[0])
    cdef double[::1] out = pulled
    cdef double[:, ::1] L = np.zeros((d, d)), G = np.empty((d, d))
    with nogil:
        for c in range(g.shape[0]):
            factor_of(&t[c * size], &L[0, 0], d, largest)
            product(&g[c, 0, 0], &PLAIN, &L[0, 0], &PLAIN, &G[0, 0], d)
            at = c * size
            for i in range(d):
                for j in range(i + 1):
                    out[at] = 2.0 * G[i, j] * (L[i, i] if i == j else 1.0)
                    at += 1
    return pulled


# How a pass may guess the component of a row, and rule out others: see `GaussianMixture`


cdef void lower_times(const double *L, const double *x, double *y, Py_ssize_t d) noexcept nogil:
    """y = L x, L packed."""
    cdef Py_ssize_t i, j, at = 0
    cdef double total
    for i in range(d):
        total = 0.0
        for j in range(i + 1):
            total += L[at] * x[j]
            at += 1
        y[i] = total


cdef void transposed_times(const double *L, const double *y, double *x, Py_ssize_t d) noexcept nogil:
    """x = L' y, L packed."""
    cdef Py_ssize_t i, j, at = 0
    for i in range(d):
        x[i] = 0.0
        for j in range(i + 1):
            x[j] += L[at] * y[i]
            at += 1


def slopes(const double[:, ::1] means, const double[:, ::1] inverse):
    """Return ``P mean`` of each mean, (k, d), P being the inverse matrix of one inverse factor (1, t)."""
    cdef Py_ssize_t k = means.shape[0], d = means.shape[1], c
    if inverse.shape[0] != 1 or inverse.shape[1] != d * (d + 1) // 2:
        raise ValueError(f"inverse must have shape (1, {d * (d + 1) // 2}), got ({inverse.shape[0]}, {inverse.shape[1]})")
    found = np.empty((k, d))
    cdef double[:, ::1] out = found
    cdef double[::1] white = np.empty(d)
    with nogil:
        for c in range(k):
            lower_times(&inverse[0, 0], &means[c, 0], &white[0], d)
            transposed_times(&inverse[0, 0], &white[0], &out[c, 0], d)
    return found


def directions(const double[:, ::1] means, const double[:, ::1] inverse):
    """Return for components g and c the direction in which g is farthest from c in the metric of c, (k, k, d).

    ``L_c' w / |w|`` with ``w = L_c (mean_g - mean_c)``; 0 where the means are the same. `inverse` (m, t) are inverse factors.
    """
    cdef Py_ssize_t k = means.shape[0], d = means.shape[1], m = inverse.shape[0], g, c, j
    if (m != 1 and m != k) or inverse.shape[1] != d * (d + 1) // 2:
        raise ValueError(f"inverse must have shape ({k} or 1, {d * (d + 1) // 2}), got ({m}, {inverse.shape[1]})")
    found = np.zeros((k, k, d))
    cdef double[:, :, ::1] out = found
    cdef double[::1] white = np.empty(d), delta = np.empty(d)
    cdef const double *L
    cdef double length
    with nogil:
        for c in range(k):
            L = &inverse[c if m > 1 else 0, 0]
            for g in range(k):
                for j in range(d):
                    delta[j] = means[g, j] - means[c, j]
                lower_times(L, &delta[0], &white[0], d)
                length = 0.0
                for j in range(d):
                    length += white[j] * white[j]
                if length > 0:
                    length = sqrt(length)
                    for j in range(d):
                        white[j] /= length
                    transposed_times(L, &white[0], &out[g, c, 0], d)
    return found
