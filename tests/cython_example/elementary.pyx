"""The elementwise micro-kernels of the CPU target in force, for tests of their accuracy; and the check of a table."""

from emcore.kernels._base cimport emc_fits, emc_table, table


def fits(int abi, Py_ssize_t size):
    """Return whether a table would fit whose ABI and size differ by so much from those of ours."""
    cdef emc_table other = table()[0]
    other.abi += abi
    other.size += size
    return emc_fits(&other)


def exp(const double[::1] x, double[::1] y):
    """Put exp(x) into y."""
    if x.shape[0]:
        table().vexp(&x[0], &y[0], x.shape[0])


def log(const double[::1] x, double[::1] y):
    """Put log(x) into y."""
    if x.shape[0]:
        table().vlog(&x[0], &y[0], x.shape[0])
