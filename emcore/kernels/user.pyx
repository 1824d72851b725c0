"""Emissions written in Python: panels go to functions of NumPy arrays, under the GIL."""

import numpy as np

from emcore.kernels._base cimport (
    EMC_ERROR, EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table,
)


cdef class Called(Emission):
    """Calls functions. An exception that they raise is kept, and raised by `run`. Statistics: as the function says.

    Rows of weight 0 never reach the functions: another row stands in their place.

    Parameters
    ----------
    k, d, n_stats : int
    log_density : callable
        Returns log-densities (n, k) of rows (n, d).
    statistics : callable
        Returns statistics (n_stats,) of rows (n, d) and weighted responsibilities (n, k), linear in these.
    tangents : sequence of callable
        Each returns derivatives (n, k) of the log-densities of rows (n, d) along a direction.
    """
    cdef object log_densities, statistics
    cdef tuple tangents

    def __init__(self, Py_ssize_t k, Py_ssize_t d, Py_ssize_t n_stats, log_density, statistics, tangents=()):
        self.k, self.d, self.n_stats, self.n_aux = k, d, n_stats, 0
        self.log_densities, self.statistics, self.tangents = log_density, statistics, tuple(tangents)
        self.shift, self.scale = np.zeros(d), np.ones(d)

    cdef object rows(self, emc_panel *panel):
        """Return the rows of a panel, (n, d), or None where all have weight 0."""
        cdef Py_ssize_t i, j, stand_in = -1
        cdef double[:, ::1] rows
        array = np.empty((panel.n, self.d))
        rows = array
        table().unpack(&rows[0, 0], panel.X, panel.n, self.d)
        for i in range(panel.n):
            if panel.w[i] > 0:
                stand_in = i
                break
        if stand_in < 0:
            return None
        for i in range(panel.n):
            if panel.w[i] == 0:
                for j in range(self.d):
                    rows[i, j] = rows[stand_in, j]
        return array

    cdef int fill(self, emc_panel *panel, function, str name, double *out):
        """Write what a function returns for the rows, (n, k), as a packed panel."""
        cdef Py_ssize_t i, c, last
        cdef const double[:, ::1] found
        rows = self.rows(panel)
        array = np.zeros((panel.n, self.k)) if rows is None else np.ascontiguousarray(function(rows), dtype=np.float64)
        if array.shape != (panel.n, self.k):
            raise ValueError(f"{name} must return shape ({panel.n}, {self.k}), got {array.shape}")
        found = array
        for i in range(padded(panel.n)):
            last = min(i, panel.n - 1)
            for c in range(self.k):
                out[(i // EMC_GROUP * self.k + c) * EMC_GROUP + i % EMC_GROUP] = found[last, c]
        return EMC_OK

    cdef int add(self, emc_panel *panel, const double *resp, double *stats):
        """Add the statistics of the rows."""
        cdef Py_ssize_t i
        cdef double[:, ::1] h
        cdef const double[::1] found
        rows = self.rows(panel)
        if rows is None:
            return EMC_OK
        array = np.empty((panel.n, self.k))
        h = array
        table().unpack(&h[0, 0], resp, panel.n, self.k)
        found = np.ascontiguousarray(self.statistics(rows, array), dtype=np.float64)
        if found.shape[0] != self.n_stats:
            raise ValueError(f"statistics must have shape ({self.n_stats},), got ({found.shape[0]},)")
        for i in range(self.n_stats):
            stats[i] += found[i]
        return EMC_OK

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        with gil:
            try:
                return self.fill(panel, self.log_densities, "log_density", logp)
            except BaseException as error:
                self.error = error
                return EMC_ERROR

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        with gil:
            try:
                return self.add(panel, resp, stats)
            except BaseException as error:
                self.error = error
                return EMC_ERROR

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        with gil:
            if panel.direction >= len(self.tangents):
                return EMC_NOT_PROVIDED
            try:
                return self.fill(panel, self.tangents[panel.direction], "a tangent", logp_dot)
            except BaseException as error:
                self.error = error
                return EMC_ERROR

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        return self.accumulate(panel, resp_dot, stats_dot, work)
