"""Exponential emission, compiled against the installed package: the C half of a new emission."""

import array

from emcore.kernels._base cimport EMC_GROUP, EMC_OK, Emission, emc_panel, padded, table
from libc.math cimport log


cdef class ExponentialKernel(Emission):
    """Independent exponential columns. Statistics: ``[count k | sum k*d]``.

    Parameters
    ----------
    rates : contiguous buffer of doubles (k, d)
    """
    cdef const double[:, ::1] rates
    cdef const double[::1] zeros

    def __init__(self, const double[:, ::1] rates):
        self.rates = rates
        self.k, self.d = rates.shape[0], rates.shape[1]
        self.n_stats = self.k * (1 + self.d)
        self.n_aux = 0
        self.zeros = array.array("d", [0.0] * self.d)
        self.shift, self.scale = self.zeros, array.array("d", [1.0] * self.d)

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t g, c, j, i
        cdef const double *x
        cdef double *out
        for g in range(padded(panel.n) // EMC_GROUP):
            for c in range(self.k):
                out = logp + (g * self.k + c) * EMC_GROUP
                for i in range(EMC_GROUP):
                    out[i] = 0.0
                for j in range(self.d):
                    x = panel.X + (g * self.d + j) * EMC_GROUP
                    for i in range(EMC_GROUP):
                        out[i] += log(self.rates[c, j]) - self.rates[c, j] * x[i]
        return EMC_OK

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        table().column_mass(resp, ng, self.k, stats)
        for c in range(self.k):
            table().weighted_sum(panel.X, ng, self.d, &self.zeros[0], resp + c * EMC_GROUP, self.k * EMC_GROUP,
                                 stats + self.k + c * self.d)
        return EMC_OK
