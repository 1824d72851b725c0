"""What solvers and the loop do with vectors of coordinates at every step, each in one call. A leaf: knows nothing of models."""

cimport numpy as cnp
from emcore._arrays cimport as_doubles, data, finite, like, zeros
from libc.math cimport NAN, fabs, sqrt

cnp.import_array()

__all__ = ["all_finite", "bfgs_update", "largest", "largest_difference", "moves", "two_loop", "unit_rows"]


cdef int check(cnp.ndarray a, cnp.ndarray b) except -1:
    if cnp.PyArray_SIZE(a) != cnp.PyArray_SIZE(b):
        raise ValueError(f"vectors of {cnp.PyArray_SIZE(a)} and {cnp.PyArray_SIZE(b)} numbers do not fit each other")
    return 0


cdef double dot(const double *a, const double *b, Py_ssize_t n) noexcept nogil:
    """Return a'b: four sums, as one would wait for each of its additions."""
    cdef double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0
    cdef Py_ssize_t i
    for i from 0 <= i < n - 3 by 4:
        s0 += a[i] * b[i]
        s1 += a[i + 1] * b[i + 1]
        s2 += a[i + 2] * b[i + 2]
        s3 += a[i + 3] * b[i + 3]
    for i in range(n - n % 4, n):
        s0 += a[i] * b[i]
    return (s0 + s1) + (s2 + s3)


cdef Py_ssize_t pairs_of(cnp.ndarray rows, Py_ssize_t p) except -1:
    """Return how many rows (m, p) an array holds."""
    cdef Py_ssize_t size = cnp.PyArray_SIZE(rows)
    if p == 0 or size % p != 0:
        raise ValueError(f"rows {(<object> rows).shape} do not fit a vector of {p} numbers")
    return size // p


def all_finite(x):
    """Tell whether an array holds finite numbers only."""
    cdef cnp.ndarray given = as_doubles(x)
    return finite(data(given), cnp.PyArray_SIZE(given))


def largest(x):
    """Return the largest absolute number, 0 of none, NaN where one is."""
    cdef cnp.ndarray given = as_doubles(x)
    cdef double found = 0.0, size
    cdef Py_ssize_t i
    for i in range(cnp.PyArray_SIZE(given)):
        size = fabs(data(given)[i])
        if size > found:
            found = size
        elif size != size:
            return NAN
    return found


def largest_difference(a, b):
    """Return the largest absolute difference of two vectors, 0 of none, NaN where one is."""
    cdef cnp.ndarray one = as_doubles(a), other = as_doubles(b)
    check(one, other)
    cdef double found = 0.0, size
    cdef Py_ssize_t i
    for i in range(cnp.PyArray_SIZE(one)):
        size = fabs(data(one)[i] - data(other)[i])
        if size > found:
            found = size
        elif size != size:
            return NAN
    return found


def moves(theta, direction, double step):
    """Tell whether a step along a direction changes any coordinate in floating point."""
    cdef cnp.ndarray at = as_doubles(theta), along = as_doubles(direction)
    check(at, along)
    cdef Py_ssize_t i
    for i in range(cnp.PyArray_SIZE(at)):
        if data(at)[i] + step * data(along)[i] != data(at)[i]:
            return True
    return False


def two_loop(S, Y, g):
    """Return the inverse of the negative Hessian that pairs imply, times the gradient, (p,).

    Nocedal and Wright (2006), algorithm 7.4, with the scaling ``s'y / y'y`` of eq. 7.20.

    Parameters
    ----------
    S, Y : ndarray (m, p)
        Steps, and the falls of the gradient along them, the latest last; ``s'y > 0``.
    g : ndarray (p,)
    """
    cdef cnp.ndarray steps = as_doubles(S), falls = as_doubles(Y), gradient = as_doubles(g)
    cdef Py_ssize_t p = cnp.PyArray_SIZE(gradient), m = pairs_of(steps, p), i, j
    check(steps, falls)
    if m == 0:
        raise ValueError("there are no pairs")
    cdef cnp.ndarray out = like(gradient), work = zeros(2, 2, m)
    cdef double *d = data(out)
    cdef double *curvature = data(work)
    cdef double *alpha = curvature + m
    cdef const double *s = data(steps)
    cdef const double *y = data(falls)
    cdef double factor
    with nogil:
        for j in range(p):
            d[j] = data(gradient)[j]
        for i in range(m - 1, -1, -1):
            curvature[i] = dot(s + i * p, y + i * p, p)
            alpha[i] = dot(s + i * p, d, p) / curvature[i]
            for j in range(p):
                d[j] -= alpha[i] * y[i * p + j]
        factor = curvature[m - 1] / dot(y + (m - 1) * p, y + (m - 1) * p, p)
        for j in range(p):
            d[j] *= factor
        for i in range(m):
            factor = alpha[i] - dot(y + i * p, d, p) / curvature[i]
            for j in range(p):
                d[j] += factor * s[i * p + j]
    return out


def bfgs_update(S, Y, HY, v):
    """Return B v (p,), B being what updates of BFGS have added to a matrix H that is known by its products only.

    Each adds ``(1 + y'Hy / y's) ss' / y's - (Hy s' + s y'H) / y's`` (Nocedal and Wright 2006, eq. 6.17).

    Parameters
    ----------
    S, Y, HY : ndarray (m, p)
        Steps s, the falls y of the gradient along them, and H y, H with what was added before.
    v : ndarray (p,)
    """
    cdef cnp.ndarray steps = as_doubles(S), falls = as_doubles(Y), products = as_doubles(HY), given = as_doubles(v)
    cdef Py_ssize_t p = cnp.PyArray_SIZE(given), m = pairs_of(steps, p), j, _
    check(steps, falls)
    check(steps, products)
    cdef cnp.ndarray out = zeros(1, p)
    cdef double *to = data(out)
    cdef const double *s = data(steps)
    cdef const double *y = data(falls)
    cdef const double *Hy = data(products)
    cdef double curvature, along, across
    with nogil:
        for _ in range(m):
            curvature = dot(y, s, p)
            along = dot(s, data(given), p) / curvature
            across = (1.0 + dot(y, Hy, p) / curvature) * along - dot(Hy, data(given), p) / curvature
            for j in range(p):
                to[j] += across * s[j] - along * Hy[j]
            s, y, Hy = s + p, y + p, Hy + p
    return out


def unit_rows(rows):
    """Return rows (m, p) divided by their lengths, and the lengths (m,); rows of zeros stay, and have the length 1."""
    cdef cnp.ndarray given = as_doubles(rows)
    if cnp.PyArray_NDIM(given) != 2:
        raise ValueError(f"rows must have 2 axes, got shape {(<object> given).shape}")
    cdef Py_ssize_t m = cnp.PyArray_DIM(given, 0), p = cnp.PyArray_DIM(given, 1), i, j
    cdef cnp.ndarray out = like(given), lengths = zeros(1, m)
    cdef double size
    for i in range(m):
        size = sqrt(dot(data(given) + i * p, data(given) + i * p, p))
        data(lengths)[i] = size = 1.0 if size == 0 else size
        for j in range(p):
            data(out)[i * p + j] = data(given)[i * p + j] / size
    return out, lengths
