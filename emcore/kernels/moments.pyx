"""Sums and squares of the columns: the pass that measures a frame, before there is a model."""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_OK, Kernel, emc_panel, padded, table


cdef class Moments(Kernel):
    """Weighted sums of ``z = (x - shift) * scale``. Statistics: ``[sum d | sum of squares d]``.

    Parameters
    ----------
    shift, scale : ndarray (d,)
    """
    cdef const double[::1] origin

    def __init__(self, shift, scale):
        self.shift = np.ascontiguousarray(shift, dtype=np.float64)
        self.scale = np.ascontiguousarray(scale, dtype=np.float64)
        self.k, self.d = 1, self.shift.shape[0]
        self.n_stats = 2 * self.d
        self.n_aux = self.n_carry = 0
        self.n_sweeps = 1
        self.panel_rows = 512
        self.origin = np.zeros(self.d)

    cdef int panel(self, emc_panel *panel, double *stats, double *loglik, double *work) noexcept nogil:
        cdef Py_ssize_t groups = padded(panel.n) // EMC_GROUP
        if stats != NULL:
            table().weighted_sum(panel.X, groups, self.d, &self.origin[0], panel.w, EMC_GROUP, stats)
            table().weighted_squares(panel.X, groups, self.d, &self.origin[0], panel.w, EMC_GROUP, stats + self.d)
        return EMC_OK
