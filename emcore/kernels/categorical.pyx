"""Categorical emission: symbols in columns that are independent given the component.

The log-density of a row is a sum of entries of a table, one a column, and its statistics are added to the same places: no
product is formed with the indicators of symbols, which would be nearly all 0. All components of a symbol stand side by side, so
that a lookup is one address for all of them.
"""

import numpy as np

from emcore.kernels._base cimport (
    EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table,
)
from libc.math cimport INFINITY
from libc.stdint cimport INT32_MAX, int32_t

cdef enum:
    SIDE = 4  # components that a lookup takes at once


cdef class Categorical(Emission):
    """Independent columns of symbols 0, 1, ... Statistics: ``[count k | symbol d*m*k]``, m symbols a column.

    ``symbol`` holds for each symbol of each column, one after the other, the expected weight in each component.

    Parameters
    ----------
    log_table : ndarray (k, d, m)
        Logarithms of the probabilities of the symbols; -inf for a symbol that does not occur.
    tangents : ndarray (v, k, d, m), optional
        Derivatives of these logarithms along v directions; 0 where the probability is.
    """
    cdef const double[:, :, ::1] tables  # one for the densities, then one a direction: symbols x components, padded
    cdef Py_ssize_t m, padded_k

    def __init__(self, log_table, tangents=None):
        logs = np.asarray(log_table, dtype=np.float64)
        self.k, self.d, self.m = logs.shape
        if self.d * self.m > INT32_MAX:
            raise ValueError(f"log_table must have at most {INT32_MAX} symbols in all columns, got {self.d} x {self.m}")
        self.n_stats = self.k * (1 + self.d * self.m)
        self.n_aux = 0
        self.shift, self.scale = np.zeros(self.d), np.ones(self.d)
        self.padded_k = (self.k + SIDE - 1) // SIDE * SIDE
        moves = None if tangents is None else np.asarray(tangents, dtype=np.float64)
        if moves is not None and moves.shape[1:] != logs.shape:
            raise ValueError(f"tangents must have shape (v, {self.k}, {self.d}, {self.m}), got {moves.shape}")
        tables = np.zeros((1 if moves is None else 1 + len(moves), self.d * self.m, self.padded_k))
        tables[0, :, :self.k] = logs.reshape(self.k, -1).T
        if moves is not None:
            tables[1:, :, :self.k] = moves.reshape(len(moves), self.k, self.d * self.m).transpose(0, 2, 1)
        self.tables = tables

    def kinds(self):
        """Return how many symbols there are."""
        return self.m

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return padded(n) * self.d // 2 + 1  # one place in the table a row and column

    cdef void find(self, emc_panel *panel, int32_t *places) noexcept nogil:
        """Write where in the table the symbol of each row and column is, row by row; -1 first in a row that has others."""
        cdef Py_ssize_t g, j, i
        cdef const double *x
        cdef int32_t *out
        for g in range(padded(panel.n) // EMC_GROUP):
            for j in range(self.d):
                x, out = panel.X + (g * self.d + j) * EMC_GROUP, places + g * EMC_GROUP * self.d
                for i in range(EMC_GROUP):
                    if 0 <= x[i] < self.m:
                        out[i * self.d + j] = <int32_t> (j * self.m + <Py_ssize_t> x[i])
                    else:
                        out[i * self.d] = -1

    cdef void look_up(self, Py_ssize_t which, Py_ssize_t n, const int32_t *places, double *logp) noexcept nogil:
        """Write the sums over the columns of the entries of a table, packed with k columns."""
        cdef Py_ssize_t i, c, j
        cdef const int32_t *place
        cdef const double *entry
        cdef const double *entries = &self.tables[which, 0, 0]
        cdef double *out
        cdef double s0, s1, s2, s3, start
        cdef Py_ssize_t columns
        for i in range(padded(n)):
            place = places + i * self.d
            start, columns = 0.0, self.d
            if place[0] < 0:
                start, columns = -INFINITY, 0
            out = logp + i // EMC_GROUP * self.k * EMC_GROUP + i % EMC_GROUP
            c = 0
            while c + SIDE <= self.k:
                s0, s1, s2, s3 = start, start, start, start
                for j in range(columns):
                    entry = entries + place[j] * self.padded_k + c
                    s0, s1, s2, s3 = s0 + entry[0], s1 + entry[1], s2 + entry[2], s3 + entry[3]
                out[0], out[EMC_GROUP], out[2 * EMC_GROUP], out[3 * EMC_GROUP] = s0, s1, s2, s3
                out, c = out + SIDE * EMC_GROUP, c + SIDE
            while c < self.k:
                s0 = start
                for j in range(columns):
                    s0 += entries[place[j] * self.padded_k + c]
                out[0] = s0
                out, c = out + EMC_GROUP, c + 1

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        self.find(panel, <int32_t *> work)
        self.look_up(0, panel.n, <int32_t *> work, logp)
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        if 1 + panel.direction >= self.tables.shape[0]:
            return EMC_NOT_PROVIDED
        self.look_up(1 + panel.direction, panel.n, <int32_t *> work, logp_dot)
        return EMC_OK

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        return self.accumulate(panel, resp_dot, stats_dot, work)  # linear in the responsibilities

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t i, c, j, k = self.k
        cdef const int32_t *place
        cdef const double *r
        cdef double *entry
        cdef double *symbols = stats + k
        cdef double r0, r1, r2, r3
        table().column_mass(resp, padded(panel.n) // EMC_GROUP, k, stats)
        for i in range(panel.n):
            place = <int32_t *> work + i * self.d
            if place[0] < 0 or panel.w[i] == 0:  # a row of weight 0 may hold anything
                continue
            r = resp + i // EMC_GROUP * k * EMC_GROUP + i % EMC_GROUP
            c = 0
            while c + SIDE <= k:
                r0, r1, r2, r3 = r[0], r[EMC_GROUP], r[2 * EMC_GROUP], r[3 * EMC_GROUP]
                for j in range(self.d):
                    entry = symbols + place[j] * k + c
                    entry[0], entry[1], entry[2], entry[3] = entry[0] + r0, entry[1] + r1, entry[2] + r2, entry[3] + r3
                r, c = r + SIDE * EMC_GROUP, c + SIDE
            while c < k:
                for j in range(self.d):
                    symbols[place[j] * k + c] += r[0]
                r, c = r + EMC_GROUP, c + 1
        return EMC_OK
