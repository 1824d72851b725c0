"""What only compiled code can reach, for tests: elementwise micro-kernels, the check of a table, methods of kernels."""

from emcore.kernels._base cimport Emission, emc_fits, emc_panel, emc_table, table


cdef class Counted(Emission):
    """Any emission, with the rows counted that were sent through it: a statistic more, at the end."""
    cdef Emission inner

    def __init__(self, Emission inner):
        self.inner = inner
        self.k, self.d, self.n_aux, self.n_stats = inner.k, inner.d, inner.n_aux, inner.n_stats + 1
        self.shift, self.scale = inner.shift, inner.scale

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return self.inner.work_size(n)

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        return self.inner.log_density(panel, logp, work)

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        stats[self.n_stats - 1] += panel.n
        return self.inner.accumulate(panel, resp, stats, work)


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
