"""Logarithms of factorials, for densities of counts."""

from libc.float cimport DBL_MAX
from libc.math cimport INFINITY, log

cdef enum:
    KNOWN = 256  # factorials below this are in a table; above, Stirling's series is exact to the last digits


cdef inline double log_factorial(double x, const double *known) noexcept nogil:
    """The logarithm of x!, x a whole number >= 0 (DLMF 5.11.1); infinite for what no count can be."""
    cdef double r
    if 0 <= x < KNOWN:
        return known[<Py_ssize_t> x]
    if not 0 <= x <= DBL_MAX:
        return INFINITY
    r = 1.0 / x
    return x * (log(x) - 1.0) + 0.5 * log(x) + 0.9189385332046727 + r * (1.0 / 12 - r * r * (1.0 / 360 - r * r / 1260))
