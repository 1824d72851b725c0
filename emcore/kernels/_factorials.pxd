"""Logarithms of factorials, for densities of counts."""

from emcore.kernels._base cimport table
from libc.float cimport DBL_MAX
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

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


cdef inline bint in_table(const double *x, Py_ssize_t n) noexcept nogil:
    """Whether the factorials of all of these numbers are in the table, by their bits; -0 is not."""
    cdef Py_ssize_t i
    cdef double end = KNOWN
    cdef uint64_t bits, limit, below = ~<uint64_t> 0  # its first bit, of those of all numbers
    memcpy(&limit, &end, sizeof(limit))
    for i in range(n):  # no branch: of numbers >= 0 bits are in the order of the numbers
        memcpy(&bits, &x[i], sizeof(bits))
        below &= (bits - limit) & ~bits
    return below >> 63


cdef inline void log_factorials(const double *x, double *out, Py_ssize_t n, const double *known) noexcept nogil:
    """The logarithms of x! of a few counts; logarithms are taken only where one is not in the table."""
    cdef Py_ssize_t i
    if in_table(x, n):
        for i in range(n):
            out[i] = known[<int> x[i]]
        return
    table().vlog(x, out, n)
    for i in range(n):
        out[i] = log_factorial(x[i], out[i], known)
