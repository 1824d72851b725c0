"""What solvers and the loop do with vectors of coordinates at every step, each in one call. A leaf: knows nothing of models."""

cimport numpy as cnp
from emcore._arrays cimport as_doubles, data, like, zeros
from libc.math cimport NAN, fabs

cnp.import_array()

__all__ = ["largest", "largest_difference", "moves", "two_loop"]


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
    cdef Py_ssize_t p = cnp.PyArray_SIZE(gradient), m = cnp.PyArray_SIZE(steps) // max(1, p), i, j
    check(steps, falls)
    if m == 0 or cnp.PyArray_SIZE(steps) != m * p:
        raise ValueError(f"pairs {(<object> steps).shape} do not fit a gradient of {p} numbers")
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
