"""Logarithms of factorials, for densities of counts."""

from emcore.kernels._base cimport table
from libc.float cimport DBL_MAX
from libc.math cimport INFINITY

cdef enum:
    KNOWN = 256  # factorials below this are in a table; above, Stirling's series is exact to the last digits


cdef inline double log_factorial(double x, double log_x, const double *known) noexcept nogil:
    """The logarithm of x!, x a whole number >= 0 (DLMF 5.11.1); infinite for what no count can be."""
    cdef double r
    if 0 <= x < KNOWN:
        return known[<Py_ssize_t> x]
    if not 0 <= x <= DBL_MAX:
        return INFINITY
    r = 1.0 / x
    return x * (log_x - 1.0) + 0.5 * log_x + 0.9189385332046727 + r * (1.0 / 12 - r * r * (1.0 / 360 - r * r / 1260))


cdef inline void log_factorials(const double *x, double *out, Py_ssize_t n, const double *known) noexcept nogil:
    """The logarithms of x! of a few counts; logarithms are taken only where one is not in the table."""
    cdef Py_ssize_t i
    cdef bint all_known = True
    for i in range(n):
        if 0 <= x[i] < KNOWN:
            out[i] = known[<Py_ssize_t> x[i]]
        else:
            all_known = False
    if all_known:
        return
    table().vlog(x, out, n)
    for i in range(n):
        out[i] = log_factorial(x[i], out[i], known)
