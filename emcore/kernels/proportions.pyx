"""What an EM step and a gradient do with shares of 1: weights of a mixture, probabilities of symbols, of cells.

No pass over rows is here. Each function is one loop over a few numbers, for which NumPy would take several calls, each longer
than all of them. Vectors of m shares lie one after the other; their coordinates are m - 1 orthonormal log-contrasts each
(Helmert's): ``V[i, j] = 1 / sqrt((j + 1) (j + 2))`` for i <= j, ``-(j + 1)`` times that for i = j + 1, and 0 below.
"""

cimport numpy as cnp
from emcore._arrays cimport as_doubles, data, like, zeros
from libc.math cimport exp, log, sqrt

cnp.import_array()

__all__ = [
    "best", "chart_forward", "chart_inverse", "contrasts", "expected_log", "largest_within", "logits", "moved",
    "moved_on", "over",
]


cdef inline double clamped(double x, double largest) noexcept nogil:
    if x > largest:  # NaN stays
        return largest
    return -largest if x < -largest else x


cdef inline double unit(Py_ssize_t j) noexcept nogil:
    """Return by what column j of V, counted from 1, is divided to be of length 1."""
    return sqrt(<double> j * (j + 1))


cdef void to_logits(const double *t, double *u, Py_ssize_t m) noexcept nogil:
    """u = V t."""
    cdef Py_ssize_t i
    cdef double later = 0.0, here
    for i in range(m - 1, 0, -1):
        here = t[i - 1] / unit(i)
        u[i] = later - i * here
        later += here
    u[0] = later


cdef void to_contrasts(const double *u, double *t, Py_ssize_t m) noexcept nogil:
    """t = V' u."""
    cdef Py_ssize_t j
    cdef double before = 0.0
    for j in range(1, m):
        before += u[j - 1]
        t[j - 1] = (before - j * u[j]) / unit(j)


def logits(t, Py_ssize_t n, Py_ssize_t m):
    """Return V t for n vectors of coordinates t (n * (m - 1) numbers), shape (n, m)."""
    cdef cnp.ndarray given = as_doubles(t)
    check(given, n * (m - 1))
    cdef cnp.ndarray out = zeros(2, n, m)
    cdef Py_ssize_t i
    for i in range(n):
        to_logits(data(given) + i * (m - 1), data(out) + i * m, m)
    return out


def contrasts(u, Py_ssize_t n, Py_ssize_t m):
    """Return V' u for n vectors u (n * m numbers), shape (n * (m - 1),)."""
    cdef cnp.ndarray given = as_doubles(u)
    check(given, n * m)
    cdef cnp.ndarray out = zeros(1, n * (m - 1))
    cdef Py_ssize_t i
    for i in range(n):
        to_contrasts(data(given) + i * m, data(out) + i * (m - 1), m)
    return out


def chart_forward(t, totals, Py_ssize_t m, double largest):
    """Return the shares at coordinates t, clamped to +- largest: ``total softmax(V t)``.

    Parameters
    ----------
    t : ndarray (n * (m - 1),)
    totals : ndarray (n,)
        What the shares of each vector sum to.
    m : int
    largest : float

    Returns
    -------
    ndarray (n, m)
    """
    cdef cnp.ndarray given = as_doubles(t), sums = as_doubles(totals)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(sums), i, j
    check(given, n * (m - 1))
    cdef cnp.ndarray out = zeros(2, n, m), work = zeros(1, m)
    cdef double *x = data(out)
    cdef double *at = data(work)
    cdef double highest, total
    for i in range(n):
        for j in range(m - 1):
            at[j] = clamped(data(given)[i * (m - 1) + j], largest)
        to_logits(at, x, m)
        highest = x[0]
        for j in range(1, m):
            if not x[j] <= highest:  # NaN spreads
                highest = x[j]
        total = 0.0
        for j in range(m):
            x[j] = exp(x[j] - highest)
            total += x[j]
        for j in range(m):
            x[j] = data(sums)[i] * (x[j] / total)
        x += m
    return out


def chart_inverse(x, Py_ssize_t n, Py_ssize_t m, double nothing, double largest):
    """Return the coordinates of n vectors of m shares, (n * (m - 1),): logarithms of x + nothing clamped to +- largest."""
    cdef cnp.ndarray given = as_doubles(x)
    check(given, n * m)
    cdef cnp.ndarray out = zeros(1, n * (m - 1)), work = zeros(1, m)
    cdef double *logs = data(work)
    cdef Py_ssize_t i, j
    for i in range(n):
        for j in range(m):
            logs[j] = clamped(log(data(given)[i * m + j] + nothing), largest)
        to_contrasts(logs, data(out) + i * (m - 1), m)
    return out


def moved(x, totals, u):
    """Return ``x (u - x'u / total)`` for each vector: the derivative of shares x along logits u, and by symmetry the gradient
    in logits of a gradient u in x.

    Parameters
    ----------
    x : ndarray (n * m numbers)
    totals : ndarray (n,)
    u : ndarray (..., n, m)
        Of any number of directions.

    Returns
    -------
    ndarray, of the shape of u
    """
    cdef cnp.ndarray shares = as_doubles(x), sums = as_doubles(totals), given = as_doubles(u)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(sums), m = vectors(shares, sums, given), i, j, at
    cdef cnp.ndarray out = like(given)
    cdef double *v = data(given)
    cdef double *to = data(out)
    cdef const double *a
    cdef double mean
    for i in range(cnp.PyArray_SIZE(given) // m):
        at = i % n
        a = data(shares) + at * m
        mean = 0.0
        for j in range(m):
            mean += a[j] * v[j]
        mean /= data(sums)[at]
        for j in range(m):
            to[j] = a[j] * (v[j] - mean)
        v += m
        to += m
    return out


def moved_on(x, totals, g, dx):
    """Return the derivative of ``moved(x, totals, g)`` for held g along moves dx of the shares.

    ``dx (g - x'g / total) - x (dx'g / total)``.

    Parameters
    ----------
    x, g : ndarray (n * m numbers)
    totals : ndarray (n,)
    dx : ndarray (..., n, m)

    Returns
    -------
    ndarray, of the shape of dx
    """
    cdef cnp.ndarray shares = as_doubles(x), sums = as_doubles(totals), held = as_doubles(g), given = as_doubles(dx)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(sums), m = vectors(shares, sums, given), i, j, at
    check(held, n * m)
    cdef cnp.ndarray out = like(given)
    cdef double *v = data(given)
    cdef double *to = data(out)
    cdef const double *a
    cdef const double *b
    cdef double mean, change
    for i in range(cnp.PyArray_SIZE(given) // m):
        at = i % n
        a, b = data(shares) + at * m, data(held) + at * m
        mean = change = 0.0
        for j in range(m):
            mean += a[j] * b[j]
            change += v[j] * b[j]
        mean /= data(sums)[at]
        change /= data(sums)[at]
        for j in range(m):
            to[j] = v[j] * (b[j] - mean) - a[j] * change
        v += m
        to += m
    return out


def best(shares, counts, double least):
    """Return the shares of greatest ``sum counts log(shares)``, vector by vector: those whose counts sum to <= least stay.

    Parameters
    ----------
    shares, counts : ndarray (..., m)
    least : float

    Returns
    -------
    ndarray (..., m)
    """
    cdef cnp.ndarray old = as_doubles(shares), number = as_doubles(counts)
    cdef Py_ssize_t size = cnp.PyArray_SIZE(old), m, i, first
    check(number, size)
    cdef cnp.ndarray out = like(old)
    if size == 0:
        return out
    m = cnp.PyArray_DIM(old, cnp.PyArray_NDIM(old) - 1) if cnp.PyArray_NDIM(old) > 0 else 1
    cdef double total
    for first in range(0, size, m):
        total = 0.0
        for i in range(first, first + m):
            total += data(number)[i]
        for i in range(first, first + m):  # NaN goes on
            data(out)[i] = data(old)[i] if total <= least else data(number)[i] / total
    return out


def expected_log(counts, shares):
    """Return the sum of ``counts log(shares)``, arrays of one size.

    Terms without a count are 0; so are those without a share whose count is rounding below 0.
    """
    cdef cnp.ndarray number = as_doubles(counts), share = as_doubles(shares)
    cdef Py_ssize_t size = cnp.PyArray_SIZE(share), m, i, first
    check(number, size)
    if size == 0:
        return 0.0
    m = cnp.PyArray_DIM(share, cnp.PyArray_NDIM(share) - 1) if cnp.PyArray_NDIM(share) > 0 else 1
    cdef double total = 0.0, part
    for first in range(0, size, m):  # vector by vector: so many terms are not added to one sum
        part = 0.0
        for i in range(first, first + m):
            if not (data(number)[i] == 0 or (data(number)[i] < 0 and data(share)[i] == 0)):
                part += data(number)[i] * log(data(share)[i])
        total += part
    return total


def largest_within(sizes, shares, double unit):
    """Return the largest of the sizes (k,), or of one for all, none of which counts as more than its share over the unit."""
    cdef cnp.ndarray given = as_doubles(sizes), share = as_doubles(shares)
    cdef Py_ssize_t k = cnp.PyArray_SIZE(share), n = cnp.PyArray_SIZE(given), c
    if n != 1:
        check(given, k)
    cdef double found = 0.0, size
    for c in range(k):
        size = data(given)[c if n > 1 else 0]
        if size * unit > data(share)[c]:
            size = data(share)[c] / unit
        if size > found:
            found = size
        elif size != size:
            return size
    return found


def over(a, shares):
    """Return ``a / shares``, 0 where a is 0, for an array of the shape of `shares` or several, (..., *shape)."""
    cdef cnp.ndarray given = as_doubles(a), share = as_doubles(shares)
    cdef Py_ssize_t size = cnp.PyArray_SIZE(share), first, i
    if size == 0 or cnp.PyArray_SIZE(given) % size != 0:
        raise ValueError(f"{size} shares do not fit {cnp.PyArray_SIZE(given)} numbers")
    cdef cnp.ndarray out = like(given)
    for first in range(0, cnp.PyArray_SIZE(given), size):
        for i in range(size):
            data(out)[first + i] = data(given)[first + i] / data(share)[i] if data(given)[first + i] != 0 else 0.0
    return out


cdef Py_ssize_t vectors(cnp.ndarray shares, cnp.ndarray totals, cnp.ndarray directions) except -1:
    """Return m, where there are vectors of shares and directions fit them."""
    cdef Py_ssize_t size = cnp.PyArray_SIZE(shares), n = cnp.PyArray_SIZE(totals), given = cnp.PyArray_SIZE(directions)
    if n == 0 or size == 0 or size % n != 0 or given % size != 0:
        raise ValueError(f"{size} shares of {n} vectors do not fit {given} numbers")
    return size // n


cdef int check(cnp.ndarray given, Py_ssize_t size) except -1:
    if cnp.PyArray_SIZE(given) != size:
        raise ValueError(f"expected {size} numbers, got {cnp.PyArray_SIZE(given)}")
    return 0
