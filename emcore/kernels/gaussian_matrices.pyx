"""What an EM step and a gradient do with the d x d matrices of Gaussian components, for all components in one call.

No pass over rows is here: these turn coordinates into covariances, covariances into the factors that a pass needs, and its
statistics into an M-step, the expected log-density and its gradient. LAPACK and BLAS do what grows with d^3; the loops around
them would cost more in Python than a pass over a small sample.

Triangles are lower, packed row by row: ``t = d (d + 1) / 2`` entries. Statistics are those of `GaussianTri`, ``[count k |
mass k | sum k*d | second m*t]``, about an origin (k, d). There are m = k covariances, or m = 1 for all components.
"""

import numpy as np

cimport numpy as cnp
from emcore._arrays cimport as_doubles, data, equal, finite, like, zeros
from libc.float cimport DBL_EPSILON
from libc.math cimport NAN, copysign, exp, fabs, fmax, log, sqrt
from libc.string cimport memcpy, memset
from scipy.linalg.cython_blas cimport dgemm
from scipy.linalg.cython_lapack cimport dpotrf, dsyevd, dtrtri

cnp.import_array()

__all__ = [
    "chart_curvature", "chart_forward", "chart_inverse", "chart_pull", "chart_pull_inverse", "chart_push", "chart_push_inverse",
    "conditions", "directions", "expected", "factors", "from_whitened", "hvp", "m_step", "metric", "recentre", "score",
    "slopes", "tangents",
]

# LAPACK counts columns first: our lower triangle is its upper one.
cdef char LOWER = b"U"
cdef char PLAIN = b"N"  # neither transposed nor of unit diagonal
cdef char TRANSPOSED = b"T"
cdef char VALUES = b"N"  # of eigenvalues, without vectors

cdef enum:
    # Products of so many rows and columns are not worth threads, so the BLAS uses none: they would fight with those of the
    # passes for the cores, and show in the last bit.
    TILE = 64
    SMALL = 8  # a call of the BLAS takes longer than the loops over so many rows and columns


cdef struct Moments:
    Py_ssize_t k, d, m, t
    const double *count
    const double *total
    const double *second
    const double *origin
    const double *means


cdef Moments moments_of(cnp.ndarray stats, Py_ssize_t n, cnp.ndarray origin, cnp.ndarray means) except *:
    """Return where the parts of the first n statistics are, and the means about which they are wanted."""
    cdef Moments s
    s.k, s.d = sizes(means, 2)[0], sizes(means, 2)[1]
    s.t = s.d * (s.d + 1) // 2
    cdef Py_ssize_t second = n - s.k * (2 + s.d)
    if (second != s.t and second != s.k * s.t) or cnp.PyArray_SIZE(origin) != s.k * s.d:
        raise ValueError(f"statistics {n} and origin {cnp.PyArray_SIZE(origin)} do not fit means ({s.k}, {s.d})")
    s.m = second // s.t
    s.origin, s.means = data(origin), data(means)
    move_to(&s, data(stats))
    return s


cdef void move_to(Moments *s, const double *stats) noexcept nogil:
    """Have the moments read these statistics."""
    s.count, s.total, s.second = stats, stats + 2 * s.k, stats + s.k * (2 + s.d)


cdef cnp.npy_intp *sizes(cnp.ndarray array, int ndim) except NULL:
    """Return the lengths of the last axes of an array that has at least so many."""
    if cnp.PyArray_NDIM(array) < ndim:
        raise ValueError(f"expected an array of at least {ndim} axes, got shape {(<object> array).shape}")
    return cnp.PyArray_DIMS(array) + (cnp.PyArray_NDIM(array) - ndim)


cdef int square(cnp.ndarray matrices, str name, Py_ssize_t *m, Py_ssize_t *d) except -1:
    """Set how many matrices an array holds, and of how many rows and columns."""
    cdef cnp.npy_intp *shape = sizes(matrices, 2)
    if shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"{name} must be square, got {(<object> matrices).shape}")
    d[0] = shape[0]
    m[0] = cnp.PyArray_SIZE(matrices) // (d[0] * d[0])
    return 0


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
    cdef double total
    if d <= SMALL:
        for i in range(d):
            for j in range(d):
                total = 0.0
                for t in range(d):
                    total += ((a[i * d + t] if a_as == &PLAIN else a[t * d + i])
                              * (b[t * d + j] if b_as == &PLAIN else b[j * d + t]))
                out[i * d + j] = total
        return
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
    """Factor the lower half of a symmetric matrix in place, by tiles, and invert the tiles on the diagonal of the factor.

    `inverse` (d, d) comes with its upper half 0; its lower half may hold anything. It may be NULL where there is one tile.
    `below_tiles` makes it the inverse factor. Returns not 0 where a pivot is not positive.
    """
    cdef Py_ssize_t i, j, t, size, rows
    cdef int lead = <int> d, b, info
    cdef double[TILE * TILE] spare
    cdef Py_ssize_t r, c
    if d <= SMALL:
        return small_cholesky(a, inverse, d)
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
    return 0


cdef int small_cholesky(double *a, double *inverse, Py_ssize_t d) noexcept nogil:
    cdef Py_ssize_t i, j, t
    cdef double total
    for j in range(d):
        for i in range(j, d):
            total = a[i * d + j]
            for t in range(j):
                total -= a[i * d + t] * a[j * d + t]
            if i > j:
                a[i * d + j] = total / a[j * d + j]
            elif total > 0:
                a[j * d + j] = sqrt(total)
            else:
                return 1
    if inverse != NULL:
        invert_small(a, inverse, d)
    return 0


cdef void invert_small(const double *L, double *inverse, Py_ssize_t d) noexcept nogil:
    """Fill the lower half of the inverse of a triangle."""
    cdef Py_ssize_t i, j, t
    cdef double total
    for j in range(d):
        inverse[j * d + j] = 1.0 / L[j * d + j]
        for i in range(j + 1, d):
            total = 0.0
            for t in range(j, i):
                total += L[i * d + t] * inverse[t * d + j]
            inverse[i * d + j] = -total / L[i * d + i]


cdef void invert_lower(const double *L, double *inverse, Py_ssize_t d) noexcept nogil:
    """Fill the lower half of the inverse of a triangle, whose diagonal is not 0; the upper half comes with 0."""
    cdef Py_ssize_t j, r
    cdef int lead = <int> d, size, info
    if d <= SMALL:
        invert_small(L, inverse, d)
        return
    for j from 0 <= j < d by TILE:
        size = <int> min(TILE, d - j)
        for r in range(j, j + size):
            memcpy(inverse + r * d + j, L + r * d + j, 8 * (r - j + 1))
        dtrtri(&LOWER, &PLAIN, &size, inverse + j * d + j, &lead, &info)
    below_tiles(L, inverse, d)


cdef void below_tiles(const double *a, double *inverse, Py_ssize_t d) noexcept nogil:
    """Fill the tiles of an inverse triangle below those on its diagonal."""
    cdef Py_ssize_t i, j, t, r, size, rows, cols
    cdef double[TILE * TILE] spare
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


def factors(covariances, double log_norm0):
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
    cdef cnp.ndarray given = as_doubles(covariances)
    cdef Py_ssize_t m = 0, d = 0, c, i, j, at = 0
    square(given, "covariances", &m, &d)
    cdef cnp.ndarray inverse = zeros(2, m, d * (d + 1) // 2), log_norms = zeros(1, m), work = zeros(3, 2, d, d)
    cdef const double *sigma = data(given)
    cdef double *packed = data(inverse)
    cdef double *logs = data(log_norms)
    cdef double *a = data(work)
    cdef double *inverted = a + d * d
    cdef int info
    cdef double pivot, sum_logs
    if not finite(sigma, m * d * d):
        return inverse, log_norms, -2
    with nogil:
        for c in range(m):
            memcpy(a, sigma + c * d * d, 8 * d * d)
            info = cholesky(a, inverted, d)
            if info != 0:
                break
            below_tiles(a, inverted, d)
            sum_logs = log_norm0
            for i in range(d):
                pivot = a[i * d + i] * a[i * d + i]
                # A pivot that is rounding of its variance, or a spread below the resolution of the rows, is no covariance.
                if pivot <= d * DBL_EPSILON * sigma[(c * d + i) * d + i] or not pivot > DBL_EPSILON * DBL_EPSILON:
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


def m_step(stats, origin, means, covariances, double empty, double floor):
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
    cdef cnp.ndarray vector = as_doubles(stats), about = as_doubles(origin), old = as_doubles(means)
    cdef cnp.ndarray given = as_doubles(covariances)
    cdef Moments s = moments_of(vector, cnp.PyArray_SIZE(vector), about, old)
    cdef Py_ssize_t d = s.d, c, i, j, at
    if cnp.PyArray_SIZE(given) != s.m * d * d or sizes(given, 2)[0] != d or sizes(given, 2)[1] != d:
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
                memcpy(mean + c * d, s.means + c * d, 8 * d)
                if not tied:
                    memcpy(sigma, data(given) + c * d * d, 8 * d * d)
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


cdef int check_factors(const Moments *s, cnp.ndarray inverse) except -1:
    if cnp.PyArray_NDIM(inverse) != 2 or inverse.shape[0] != s.m or inverse.shape[1] != s.t:
        raise ValueError(f"inverse must have shape ({s.m}, {s.t}), got {(<object> inverse).shape}")
    return 0


def recentre(stats, origin, new, Py_ssize_t k, Py_ssize_t d, bint tied):
    """Return statistics about another origin: themselves where it is the same.

    Parameters
    ----------
    stats : ndarray (k (2 + d) + m t + others,)
    origin, new : ndarray (k d,)
    k, d : int
    tied : bool
        Whether m is 1, and not k.

    Returns
    -------
    ndarray, of the shape of `stats`
    """
    cdef cnp.ndarray given = as_doubles(stats), old = as_doubles(origin), about = as_doubles(new)
    cdef Py_ssize_t t = d * (d + 1) // 2, c, i, j, at
    if (cnp.PyArray_SIZE(given) < k * (2 + d) + (1 if tied else k) * t or cnp.PyArray_SIZE(old) != k * d
            or cnp.PyArray_SIZE(about) != k * d):
        raise ValueError(f"statistics {(<object> given).shape} and origins {(<object> old).shape} and {(<object> about).shape} "
                         f"do not fit means ({k}, {d})")
    if equal(data(about), data(old), k * d):
        return stats
    cdef cnp.ndarray moved = like(given), work = zeros(2, 2, d)
    cdef const double *mass = data(moved) + k
    cdef double *total
    cdef double *second
    cdef double *delta = data(work)
    cdef double *half = delta + d
    with nogil:
        memcpy(data(moved), data(given), 8 * cnp.PyArray_SIZE(given))
        for c in range(k):
            total = data(moved) + 2 * k + c * d
            second = data(moved) + k * (2 + d) + (0 if tied else c) * t
            for j in range(d):
                delta[j] = data(about)[c * d + j] - data(old)[c * d + j]
                half[j] = total[j] - 0.5 * mass[c] * delta[j]
            at = 0
            for i in range(d):
                for j in range(i + 1):
                    second[at] -= half[i] * delta[j] + delta[i] * half[j]
                    at += 1
            for j in range(d):
                total[j] -= mass[c] * delta[j]
    return moved


def expected(stats, origin, means, inverse, log_norms):
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
    cdef cnp.ndarray vector = as_doubles(stats), about = as_doubles(origin), at = as_doubles(means)
    cdef cnp.ndarray factors = as_doubles(inverse), norms = as_doubles(log_norms)
    cdef Moments s = moments_of(vector, cnp.PyArray_SIZE(vector), about, at)
    cdef Py_ssize_t d = s.d, c, i, j
    check_factors(&s, factors)
    if cnp.PyArray_SIZE(norms) != s.k:
        raise ValueError(f"log_norms must have shape ({s.k},), got {(<object> norms).shape}")
    cdef cnp.ndarray work = zeros(3, 3, d, d)
    cdef double *scatter = data(work)
    cdef double *precision = scatter + d * d
    cdef double *factor = precision + d * d
    cdef double value = 0.0, trace
    with nogil:
        for c in range(s.k):
            value += s.count[c] * data(norms)[c]
        for c in range(s.m):
            gather(&s, c, scatter)
            invert(data(factors) + c * s.t, factor, precision, d)
            trace = 0.0
            for i in range(d):
                for j in range(i):
                    trace += 2.0 * precision[i * d + j] * scatter[i * d + j]
                trace += precision[i * d + i] * scatter[i * d + i]
            value -= 0.5 * trace
    return value


def score(stats, origin, means, inverse):
    """Return the gradient of the expected log-density with respect to means and covariances.

    ``P s`` and ``(P S P - N P) / 2``, N, s and S being about the means and P the inverse of the covariance.

    Parameters
    ----------
    stats : ndarray (..., k (2 + d) + m t)
        Any number of them: the score is linear in the statistics.
    origin, means : ndarray (k d,), (k, d)
    inverse : ndarray (m, t)
        Inverse factors.

    Returns
    -------
    means : ndarray (..., k, d)
    covariances : ndarray (..., m, d, d)
        Symmetric, all entries taken as free.
    """
    cdef cnp.ndarray vectors = as_doubles(stats), about = as_doubles(origin), centres = as_doubles(means)
    cdef cnp.ndarray factors = as_doubles(inverse)
    cdef Py_ssize_t size = sizes(vectors, 1)[0], n = cnp.PyArray_SIZE(vectors) // max(1, size), i
    cdef Moments s = moments_of(vectors, size, about, centres)
    cdef Py_ssize_t d = s.d, c, g, begin, end
    check_factors(&s, factors)
    cdef cnp.ndarray g_means = zeros(3, n, s.k, d), g_covariances = zeros(3, n * s.m, d, d), work = zeros(3, 4, d, d)
    cdef double *scatter = data(work)
    cdef double *half = scatter + d * d
    cdef double *precision = half + d * d
    cdef double *factor = precision + d * d
    with nogil:
        for c in range(s.m):
            invert(data(factors) + c * s.t, factor, precision, d)
            begin, end = c, c + 1
            if s.m < s.k:
                begin, end = 0, s.k
            for i in range(n):
                move_to(&s, data(vectors) + i * size)
                curve(&s, c, precision, scatter, half, data(g_covariances) + (i * s.m + c) * d * d)
                for g in range(begin, end):
                    slope(&s, g, precision, data(g_means) + (i * s.k + g) * d)
    lead = (<object> vectors).shape[:-1]
    if len(lead) == 1:
        return g_means, (<object> g_covariances).reshape((n, s.m, d, d))
    return (<object> g_means).reshape((*lead, s.k, d)), (<object> g_covariances).reshape((*lead, s.m, d, d))


cdef void curve(const Moments *s, Py_ssize_t c, const double *precision, double *scatter, double *half,
                double *out) noexcept nogil:
    """out = (P S P - N P) / 2 of matrix c."""
    cdef Py_ssize_t d = s.d, i, j
    cdef double weight = gather(s, c, scatter)
    mirror(scatter, d)
    product(precision, &PLAIN, scatter, &PLAIN, half, d)
    product(half, &PLAIN, precision, &PLAIN, scatter, d)
    for i in range(d):
        for j in range(i + 1):
            out[i * d + j] = 0.25 * (scatter[i * d + j] + scatter[j * d + i]) - 0.5 * weight * precision[i * d + j]
    mirror(out, d)


cdef void slope(const Moments *s, Py_ssize_t g, const double *precision, double *out) noexcept nogil:
    """out += P s of mean g."""
    cdef Py_ssize_t d = s.d, i, j, at
    cdef double total
    for j in range(d):
        at = g * d + j
        total = s.total[at] - s.count[g] * (s.means[at] - s.origin[at])
        for i in range(d):
            out[i] += precision[j * d + i] * total


def conditions(covariances):
    """Return the norms (m,), for each of the matrices (m, d, d), of the largest eigenvalue over each.

    An eigenvalue that is rounding counts as eps squared. NaN where LAPACK finds none, as of what is not finite.
    """
    cdef cnp.ndarray given = as_doubles(covariances)
    cdef Py_ssize_t m = 0, d = 0, c, i
    square(given, "covariances", &m, &d)
    cdef int n = <int> d, info = 0, size = -1, size_i = 1, whole
    cdef double best
    dsyevd(&VALUES, &LOWER, &n, NULL, &n, NULL, &best, &size, &whole, &size_i, &info)
    size = max(1 + 6 * n, <int> best)
    cdef cnp.ndarray found = zeros(1, m), work = zeros(1, d * d + d + size)
    cdef double *a = data(work)
    cdef double *values = a + d * d
    cdef double total
    with nogil:
        for c in range(m):
            memcpy(a, data(given) + c * d * d, 8 * d * d)
            dsyevd(&VALUES, &LOWER, &n, a, &n, values, values + d, &size, &whole, &size_i, &info)
            total = 0.0 if info == 0 else NAN
            for i in range(d):
                total += (values[d - 1] / fmax(values[i], DBL_EPSILON * DBL_EPSILON)) ** 2
            data(found)[c] = sqrt(total)
    return found


# What is linear in directions takes any number of them: arrays with one more axis in front, one direction after the other


cdef inline double at_least(double x, double least) noexcept nogil:
    """Return the larger number; NaN stays."""
    return least if x < least else x


def metric(covariances, counts, divisors, g_means, g_covariances, double least):
    """Return P g: ``Sigma g / N`` for means and ``2 Sigma G Sigma / N`` for covariances (Xu and Jordan 1996, eq. 3.3 to 3.5).

    Parameters
    ----------
    covariances : ndarray (m, d, d)
    counts, divisors : ndarray (k,), (m,)
        N of the means and of the covariances; `least` where they are less.
    g_means, g_covariances : ndarray (..., k, d), (..., m, d, d)
        Gradients.
    least : float

    Returns
    -------
    means, covariances : ndarray
        Of the shapes of the gradients.
    """
    cdef cnp.ndarray given = as_doubles(covariances), number = as_doubles(counts), divided = as_doubles(divisors)
    cdef cnp.ndarray slopes = as_doubles(g_means), curves = as_doubles(g_covariances)
    cdef Py_ssize_t m = 0, d = 0, k = cnp.PyArray_SIZE(number), n, i, j, t, c
    square(given, "covariances", &m, &d)
    n = cnp.PyArray_SIZE(curves) // max(1, m * d * d)
    if ((m != k and m != 1) or cnp.PyArray_SIZE(divided) != m or cnp.PyArray_SIZE(slopes) != n * k * d
            or cnp.PyArray_SIZE(curves) != n * m * d * d):
        raise ValueError(
            f"gradients {(<object> slopes).shape} and {(<object> curves).shape} do not fit {k} means and {m} matrices")
    cdef cnp.ndarray out_means = like(slopes), out_curves = like(curves), work = zeros(2, d, d)
    cdef double *half = data(work)
    cdef const double *sigma
    cdef const double *g
    cdef double *out
    cdef double total
    with nogil:
        for i in range(n * k):
            c = i % k
            sigma = data(given) + (c if m > 1 else 0) * d * d
            g = data(slopes) + i * d
            for t in range(d):
                total = 0.0
                for j in range(d):
                    total += sigma[t * d + j] * g[j]
                data(out_means)[i * d + t] = total / at_least(data(number)[c], least)
        for i in range(n * m):
            sigma = data(given) + i % m * d * d
            out = data(out_curves) + i * d * d
            product(sigma, &PLAIN, data(curves) + i * d * d, &PLAIN, half, d)
            product(half, &PLAIN, sigma, &PLAIN, out, d)
            total = 2.0 / at_least(data(divided)[i % m], least)
            for j in range(d * d):
                out[j] *= total
    return out_means, out_curves


def tangents(inverse, v_means, v_covariances):
    """Return what log-densities are along directions, in terms of whitened rows y = L (x - mean).

    Their derivative along a direction (v, V) is ``- tr(L V L') / 2 + (L v)'y + y' L V L' y / 2``.

    Parameters
    ----------
    inverse : ndarray (m, t)
        Inverse factors L.
    v_means, v_covariances : ndarray (n, k, d), (n, m, d, d)

    Returns
    -------
    offsets, slopes, curves : ndarray (n, k), (n, k, d), (n, m, t)
        Curves hold the coefficients of ``y_i y_j``, j <= i, row by row.
    """
    cdef cnp.ndarray factors = as_doubles(inverse), moves = as_doubles(v_means), turns = as_doubles(v_covariances)
    cdef Py_ssize_t m = sizes(factors, 2)[0], t = sizes(factors, 2)[1], k = sizes(moves, 2)[0], d = sizes(moves, 2)[1]
    cdef Py_ssize_t n = cnp.PyArray_SIZE(moves) // max(1, k * d), i, j, c, g
    if t != d * (d + 1) // 2 or (m != k and m != 1) or cnp.PyArray_SIZE(turns) != n * m * d * d:
        raise ValueError(f"directions {(<object> moves).shape} and {(<object> turns).shape} do not fit factors ({m}, {t})")
    cdef cnp.ndarray offsets = zeros(2, n, k), slopes = like(moves), curves = zeros(3, n, m, t), work = zeros(3, 3, d, d)
    cdef double *L = data(work)
    cdef double *half = L + d * d
    cdef double *white = half + d * d
    cdef double trace
    with nogil:
        for c in range(m):
            unpack(data(factors) + c * t, L, d)
            for i in range(n):
                product(L, &PLAIN, data(turns) + (i * m + c) * d * d, &PLAIN, half, d)
                product(half, &PLAIN, L, &TRANSPOSED, white, d)
                trace = 0.0
                for j in range(d):
                    trace += white[j * d + j]
                    white[j * d + j] *= 0.5
                pack(white, data(curves) + (i * m + c) * t, d)
                for g in range(0 if m == 1 else c, k if m == 1 else c + 1):
                    data(offsets)[i * k + g] = -0.5 * trace
                    lower_times(data(factors) + c * t, data(moves) + (i * k + g) * d, data(slopes) + (i * k + g) * d, d)
    return offsets, slopes, curves


def from_whitened(inverse, moved, bint tied):
    """Return statistics about the means, (n, k (2 + d) + m t), of sums of 1, whitened rows and their products.

    Parameters
    ----------
    inverse : ndarray (m, t)
        Inverse factors.
    moved : ndarray (n, k, 1 + d + t)
        The sums of 1, y_i and y_i y_j, j <= i, for each component.
    tied : bool
        Whether components share one scatter.
    """
    cdef cnp.ndarray factors = as_doubles(inverse), sums = as_doubles(moved)
    cdef Py_ssize_t m = sizes(factors, 2)[0], t = sizes(factors, 2)[1], k = sizes(sums, 2)[0], F = sizes(sums, 2)[1]
    cdef Py_ssize_t d = F - 1 - t, n = cnp.PyArray_SIZE(sums) // max(1, k * F), i, j, c, row
    if t != d * (d + 1) // 2 or (m != k and m != 1):
        raise ValueError(f"sums {(<object> sums).shape} do not fit factors ({m}, {t})")
    cdef Py_ssize_t size = k * (2 + d) + (1 if tied else k) * t
    cdef cnp.ndarray out = zeros(2, n, size), work = zeros(3, 4, d, d)
    cdef double *L = data(work)
    cdef double *back = L + d * d
    cdef double *S = back + d * d
    cdef double *half = S + d * d
    cdef const double *given
    cdef double *to
    cdef double total
    with nogil:
        for c in range(k):
            if m > 1 or c == 0:
                unpack(data(factors) + c * t, L, d)
                invert_lower(L, back, d)
            for i in range(n):
                given, to = data(sums) + (i * k + c) * F, data(out) + i * size
                to[c] = to[k + c] = given[0]
                for row in range(d):
                    total = 0.0
                    for j in range(row + 1):
                        total += back[row * d + j] * given[1 + j]
                    to[2 * k + c * d + row] = total
                unpack(given + 1 + d, S, d)
                mirror(S, d)
                product(back, &PLAIN, S, &PLAIN, half, d)
                product(half, &PLAIN, back, &TRANSPOSED, S, d)
                to += k * (2 + d) + (0 if tied else c) * t
                for row in range(d):
                    for j in range(row + 1):
                        to[row * (row + 1) // 2 + j] += S[row * d + j]
    return out


def hvp(stats, origin, means, inverse, divisors, v_means, v_covariances):
    """Return the derivative of `score` along directions, statistics held.

    With P the inverse of a covariance, s and S the sums about the means, N their count and D that of the covariance:
    ``P' = -P V P``, ``s' = -N v``, ``S' = -sum (s v' + v s')``.

    Parameters
    ----------
    stats, origin, means, inverse : ndarray
        As for `score`.
    divisors : ndarray (m,)
        D.
    v_means, v_covariances : ndarray (..., k, d), (..., m, d, d)

    Returns
    -------
    means, covariances : ndarray
        Of the shapes of the directions.
    """
    cdef cnp.ndarray vector = as_doubles(stats), about = as_doubles(origin), centres = as_doubles(means)
    cdef cnp.ndarray factors = as_doubles(inverse), divided = as_doubles(divisors)
    cdef cnp.ndarray slopes = as_doubles(v_means), curves = as_doubles(v_covariances)
    cdef Moments s = moments_of(vector, cnp.PyArray_SIZE(vector), about, centres)
    cdef Py_ssize_t d = s.d, n, c, i, j, g, begin, end, row, at
    check_factors(&s, factors)
    n = cnp.PyArray_SIZE(slopes) // max(1, s.k * d)
    if (cnp.PyArray_SIZE(divided) != s.m or cnp.PyArray_SIZE(slopes) != n * s.k * d
            or cnp.PyArray_SIZE(curves) != n * s.m * d * d):
        raise ValueError(f"directions {(<object> slopes).shape} and {(<object> curves).shape} do not fit means ({s.k}, {d})")
    cdef cnp.ndarray out_means = like(slopes), out_curves = like(curves), work = zeros(3, 6, d, d)
    cdef double *scatter = data(work)
    cdef double *precision = scatter + d * d
    cdef double *moved = precision + d * d  # P V P
    cdef double *half = moved + d * d
    cdef double *turned = half + d * d
    cdef double *factor = turned + d * d
    cdef const double *V
    cdef const double *v
    cdef double *out
    cdef double total, left
    with nogil:
        for c in range(s.m):
            gather(&s, c, scatter)
            mirror(scatter, d)
            invert(data(factors) + c * s.t, factor, precision, d)
            begin, end = c, c + 1
            if s.m < s.k:
                begin, end = 0, s.k
            for i in range(n):
                V = data(curves) + (i * s.m + c) * d * d
                out = data(out_curves) + (i * s.m + c) * d * d
                product(precision, &PLAIN, V, &PLAIN, half, d)
                product(half, &PLAIN, precision, &PLAIN, moved, d)
                memset(out, 0, 8 * d * d)  # the sum of s v', for a while
                for g in range(begin, end):
                    v = data(slopes) + (i * s.k + g) * d
                    at = g * d
                    for row in range(d):
                        data(out_means)[(i * s.k + g) * d + row] = 0.0
                    for j in range(d):
                        total = s.total[at + j] - s.count[g] * (s.means[at + j] - s.origin[at + j])
                        left = s.count[g] * v[j]
                        for row in range(d):
                            data(out_means)[(i * s.k + g) * d + row] -= (
                                moved[j * d + row] * total + precision[j * d + row] * left)
                            out[j * d + row] += total * v[row]
                # P S P changes by -P (S P V P + sum s v' P), and its transpose.
                product(scatter, &PLAIN, moved, &PLAIN, turned, d)
                product(out, &PLAIN, precision, &PLAIN, half, d)
                for j in range(d * d):
                    turned[j] += half[j]
                product(precision, &PLAIN, turned, &PLAIN, half, d)
                for row in range(d):
                    for j in range(d):
                        out[row * d + j] = 0.5 * (data(divided)[c] * moved[row * d + j] - half[row * d + j] - half[j * d + row])
    return out_means, out_curves


# The chart of covariances: x = floor I + L L', L lower triangular with the logarithms of its diagonal in t


cdef void factor_of(const double *t, double *L, Py_ssize_t d, double largest) noexcept nogil:
    """Fill the lower half of L from its coordinates, logarithms clamped to +- largest."""
    cdef Py_ssize_t i
    unpack(t, L, d)
    for i in range(d):
        L[i * d + i] = exp(at_most(L[i * d + i], largest))


cdef inline double at_most(double x, double largest) noexcept nogil:
    """Return x clamped to +- largest; NaN stays."""
    return copysign(largest, x) if fabs(x) > largest else x


cdef void scale_diagonal(double *a, const double *L, Py_ssize_t d, bint divide) noexcept nogil:
    """Multiply the diagonal of a by that of L, or divide it."""
    cdef Py_ssize_t i
    for i in range(d):
        a[i * d + i] = a[i * d + i] / L[i * d + i] if divide else a[i * d + i] * L[i * d + i]


cdef void pack(const double *a, double *packed, Py_ssize_t d) noexcept nogil:
    """Write the lower half of a matrix as a triangle."""
    cdef Py_ssize_t i, j, at = 0
    for i in range(d):
        for j in range(i + 1):
            packed[at] = a[i * d + j]
            at += 1


cdef void half_triangle(double *a, Py_ssize_t d) noexcept nogil:
    """Halve the diagonal of a matrix, and clear what is above it: with its transpose it adds up to the symmetric matrix."""
    cdef Py_ssize_t i, j
    for i in range(d):
        a[i * d + i] *= 0.5
        for j in range(i + 1, d):
            a[i * d + j] = 0.0


cdef void symmetrize(const double *a, double *out, Py_ssize_t d, double factor) noexcept nogil:
    """out = factor (a + a')."""
    cdef Py_ssize_t i, j
    for i in range(d):
        for j in range(d):
            out[i * d + j] = factor * (a[i * d + j] + a[j * d + i])


cdef Py_ssize_t triangle(Py_ssize_t d) except -1:
    """Return how many coordinates a matrix has."""
    if d < 1:
        raise ValueError(f"matrices must have rows, got d = {d}")
    return d * (d + 1) // 2


cdef Py_ssize_t directions_of(Py_ssize_t given, Py_ssize_t one, Py_ssize_t coordinates, Py_ssize_t t, Py_ssize_t d) except -1:
    """Return how many directions of `one` number each there are, for coordinates of t numbers a matrix."""
    if coordinates % t != 0 or (given != 0 if one == 0 else given % one != 0):
        raise ValueError(f"{coordinates} coordinates and directions of {given} numbers do not fit matrices ({d}, {d})")
    return given // max(1, one)


def chart_forward(t, Py_ssize_t d, double floor, double largest):
    """Return the matrices (m, d, d) at coordinates t (m * d (d + 1) / 2,)."""
    cdef cnp.ndarray given = as_doubles(t)
    cdef Py_ssize_t size = triangle(d), m = cnp.PyArray_SIZE(given) // size, c, i
    if cnp.PyArray_SIZE(given) != m * size:
        raise ValueError(f"{cnp.PyArray_SIZE(given)} coordinates do not fit matrices ({d}, {d})")
    cdef cnp.ndarray matrices = zeros(3, m, d, d), work = zeros(2, d, d)
    cdef double *x = data(matrices)
    cdef double *L = data(work)
    with nogil:
        for c in range(m):
            factor_of(data(given) + c * size, L, d, largest)
            product(L, &PLAIN, L, &TRANSPOSED, x, d)
            for i in range(d):
                x[i * d + i] += floor
            mirror(x, d)
            x += d * d
    return matrices


def chart_inverse(x, double floor, double largest):
    """Return the coordinates (m * d (d + 1) / 2,) of matrices x (m, d, d), logarithms clamped to +- largest.

    And whether all are inside the floor by more than rounding: else the coordinates are not set.
    """
    cdef cnp.ndarray given = as_doubles(x)
    cdef Py_ssize_t m = 0, d = 0, c, i
    square(given, "matrices", &m, &d)
    cdef Py_ssize_t size = d * (d + 1) // 2
    cdef cnp.ndarray coordinates = zeros(1, m * size), work = zeros(3, 2, d, d)
    cdef double *a = data(work)
    cdef double *inverted = NULL if d <= TILE else a + d * d
    cdef int info = 0
    with nogil:
        for c in range(m):
            memcpy(a, data(given) + c * d * d, 8 * d * d)
            for i in range(d):
                a[i * d + i] -= floor
            info = cholesky(a, inverted, d)
            if info != 0:
                break
            for i in range(d):
                a[i * d + i] = at_most(log(a[i * d + i]), largest)
            pack(a, data(coordinates) + c * size, d)
    return coordinates, info == 0


def chart_pull(t, g, double largest):
    """Return the gradients with respect to t (..., size) of gradients g (..., m, d, d), symmetric, in the matrices.

    ``2 g L``, the lower half of it.
    """
    cdef cnp.ndarray given = as_doubles(t), gradients = as_doubles(g)
    cdef Py_ssize_t m = 0, d = 0, c, i, n
    square(gradients, "gradients", &m, &d)
    cdef Py_ssize_t size = d * (d + 1) // 2
    m = cnp.PyArray_SIZE(given) // size
    n = directions_of(cnp.PyArray_SIZE(gradients), m * d * d, cnp.PyArray_SIZE(given), size, d)
    cdef cnp.ndarray out = zeros(1, n * m * size), work = zeros(3, 2, d, d)
    cdef double *L = data(work)
    cdef double *G = L + d * d
    with nogil:
        for c in range(m):
            factor_of(data(given) + c * size, L, d, largest)
            for i in range(n):
                product(data(gradients) + (i * m + c) * d * d, &PLAIN, L, &PLAIN, G, d)
                scale_diagonal(G, L, d, False)
                pack(G, data(out) + (i * m + c) * size, d)
        for i in range(n * m * size):
            data(out)[i] *= 2.0
    return out


def chart_push(t, v, Py_ssize_t d, double largest):
    """Return the derivatives of the matrices along v (..., size), one after the other: ``dL L' + L dL'``, (n, m, d, d)."""
    cdef cnp.ndarray given = as_doubles(t), moves = as_doubles(v)
    cdef Py_ssize_t size = triangle(d), m = cnp.PyArray_SIZE(given) // size, c, i
    cdef Py_ssize_t n = directions_of(cnp.PyArray_SIZE(moves), m * size, cnp.PyArray_SIZE(given), size, d)
    cdef cnp.ndarray out = zeros(3, n * m, d, d), work = zeros(3, 3, d, d)
    cdef double *L = data(work)
    cdef double *dL = L + d * d
    cdef double *dx = dL + d * d
    with nogil:
        for c in range(m):
            factor_of(data(given) + c * size, L, d, largest)
            for i in range(n):
                unpack(data(moves) + (i * m + c) * size, dL, d)
                scale_diagonal(dL, L, d, False)
                product(dL, &PLAIN, L, &TRANSPOSED, dx, d)
                symmetrize(dx, data(out) + (i * m + c) * d * d, d, 1.0)
    return out


def chart_push_inverse(t, u, double largest):
    """Return what `chart_push` maps to symmetric u (..., m, d, d): ``dL = L half(L^-1 u L^-T)``, flat."""
    cdef cnp.ndarray given = as_doubles(t), tangents = as_doubles(u)
    cdef Py_ssize_t m = 0, d = 0, c, i, n
    square(tangents, "tangents", &m, &d)
    cdef Py_ssize_t size = d * (d + 1) // 2
    m = cnp.PyArray_SIZE(given) // size
    n = directions_of(cnp.PyArray_SIZE(tangents), m * d * d, cnp.PyArray_SIZE(given), size, d)
    cdef cnp.ndarray out = zeros(1, n * m * size), work = zeros(3, 4, d, d)
    cdef double *L = data(work)
    cdef double *inverse = L + d * d
    cdef double *a = inverse + d * d
    cdef double *b = a + d * d
    with nogil:
        for c in range(m):
            factor_of(data(given) + c * size, L, d, largest)
            invert_lower(L, inverse, d)
            for i in range(n):
                product(inverse, &PLAIN, data(tangents) + (i * m + c) * d * d, &PLAIN, a, d)
                product(a, &PLAIN, inverse, &TRANSPOSED, b, d)
                half_triangle(b, d)
                product(L, &PLAIN, b, &PLAIN, a, d)
                scale_diagonal(a, L, d, True)
                pack(a, data(out) + (i * m + c) * size, d)
    return out


def chart_pull_inverse(t, v, Py_ssize_t d, double largest):
    """Return symmetric gradients that `chart_pull` maps to v (..., size), one after the other, (n, m, d, d).

    ``g = L^-T S L^-1``, S being the symmetric matrix whose lower half is that of ``L' E / 2``, E the triangle of v.
    """
    cdef cnp.ndarray given = as_doubles(t), moves = as_doubles(v)
    cdef Py_ssize_t size = triangle(d), m = cnp.PyArray_SIZE(given) // size, c, i
    cdef Py_ssize_t n = directions_of(cnp.PyArray_SIZE(moves), m * size, cnp.PyArray_SIZE(given), size, d)
    cdef cnp.ndarray out = zeros(3, n * m, d, d), work = zeros(3, 5, d, d)
    cdef double *L = data(work)
    cdef double *inverse = L + d * d
    cdef double *E = inverse + d * d
    cdef double *a = E + d * d
    cdef double *b = a + d * d
    with nogil:
        for c in range(m):
            factor_of(data(given) + c * size, L, d, largest)
            invert_lower(L, inverse, d)
            for i in range(n):
                unpack(data(moves) + (i * m + c) * size, E, d)
                scale_diagonal(E, L, d, True)
                product(L, &TRANSPOSED, E, &PLAIN, a, d)
                half_triangle(a, d)
                symmetrize(a, b, d, 0.5)
                product(inverse, &TRANSPOSED, b, &PLAIN, a, d)
                product(a, &PLAIN, inverse, &PLAIN, b, d)
                symmetrize(b, data(out) + (i * m + c) * d * d, d, 0.5)
    return out


def chart_curvature(t, g, v, double largest):
    """Return the derivatives of `chart_pull` of one gradient g (m, d, d) along v (..., size), flat.

    ``2 g dL``, the lower half of it; of the logarithms on the diagonal also what multiplies them.
    """
    cdef cnp.ndarray given = as_doubles(t), gradient = as_doubles(g), moves = as_doubles(v)
    cdef Py_ssize_t m = 0, d = 0, c, i, j, n
    square(gradient, "gradient", &m, &d)
    cdef Py_ssize_t size = d * (d + 1) // 2
    if cnp.PyArray_SIZE(given) != m * size:
        raise ValueError(f"{cnp.PyArray_SIZE(given)} coordinates do not fit matrices ({m}, {d}, {d})")
    n = directions_of(cnp.PyArray_SIZE(moves), m * size, cnp.PyArray_SIZE(given), size, d)
    cdef cnp.ndarray out = zeros(1, n * m * size), work = zeros(3, 4, d, d)
    cdef double *L = data(work)
    cdef double *still = L + d * d
    cdef double *dL = still + d * d
    cdef double *a = dL + d * d
    cdef double log_move
    with nogil:
        for c in range(m):
            factor_of(data(given) + c * size, L, d, largest)
            product(data(gradient) + c * d * d, &PLAIN, L, &PLAIN, still, d)
            for i in range(n):
                unpack(data(moves) + (i * m + c) * size, dL, d)
                scale_diagonal(dL, L, d, False)
                product(data(gradient) + c * d * d, &PLAIN, dL, &PLAIN, a, d)
                for j in range(d):
                    log_move = data(moves)[(i * m + c) * size + j * (j + 3) // 2]
                    a[j * d + j] = (a[j * d + j] + still[j * d + j] * log_move) * L[j * d + j]
                pack(a, data(out) + (i * m + c) * size, d)
        for i in range(n * m * size):
            data(out)[i] *= 2.0
    return out


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
