"""Uniform densities between 0 and an endpoint of each component."""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_OK, Emission, emc_panel, padded, table
from libc.math cimport INFINITY, log


cdef class Uniform(Emission):
    """One column, uniform on [0, endpoint]. Statistics: ``[count k]``.

    Parameters
    ----------
    endpoints : ndarray (k,)
        Positive.
    """
    cdef const double[::1] endpoints

    def __init__(self, endpoints):
        self.endpoints = np.ascontiguousarray(endpoints, dtype=np.float64)
        self.k = self.n_stats = self.endpoints.shape[0]
        self.d = 1
        self.n_aux = 0
        self.shift, self.scale = np.zeros(1), np.ones(1)

    def kinds(self):
        """Return the endpoints in order: densities change nowhere else."""
        return np.unique(self.endpoints)

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t g, c, i
        cdef double inside, end, x
        cdef double *out
        for c in range(self.k):
            end = self.endpoints[c]
            inside = -log(end)
            for g in range(padded(panel.n) // EMC_GROUP):
                out = logp + (g * self.k + c) * EMC_GROUP
                for i in range(EMC_GROUP):
                    x = panel.X[g * EMC_GROUP + i]
                    out[i] = inside if 0.0 <= x <= end else -INFINITY
        return EMC_OK

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        table().column_mass(resp, padded(panel.n) // EMC_GROUP, self.k, stats)
        return EMC_OK
