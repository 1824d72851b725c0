"""Counts whose means are known non-negative combinations of unknown intensities: blurred images, emission tomography.

A row is what one detector sees of each source, ``K_i`` (d,), and beside it (``aux``) its count y. The latent variables are the
sources that the single events came from; their expectations are summed over the rows as they are formed, so that nothing but K,
which is data, has a number for each detector and source.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table
from emcore.kernels._factorials cimport log_factorials
from emcore.kernels.exponential_family import LOG_FACTORIALS
from libc.string cimport memset

cdef enum:
    CACHED = 96  # columns of groups that stay in the first cache, 24 KB
    NEAR = 1024  # and in the second one, 256 KB
    MOST_ROWS = 512

cdef const double[::1] _log_factorials = LOG_FACTORIALS


cdef class PoissonInverse(Emission):
    """``y ~ Poisson(K_i'x + background)``, one state. Statistics: ``[count 1 | base 1 | expected d | sensitivity d]``.

    ``base`` is the sum of ``-log y! - background``, ``expected`` that of the events that came from each source, ``sensitivity``
    that of the rows of K.

    Parameters
    ----------
    intensities : ndarray (d,)
        x, at least 0.
    background : float
        At least 0.
    tangents : ndarray (m, d), optional
        Directions of the intensities, along which a pass can differentiate.
    """
    cdef const double[::1] intensities
    cdef const double[:, ::1] tangents
    cdef double[::1] zeros
    cdef double background

    def __init__(self, intensities, double background=0.0, tangents=None):
        self.intensities = np.ascontiguousarray(intensities, dtype=np.float64)
        self.background = background
        self.k, self.d, self.n_aux = 1, self.intensities.shape[0], 1
        self.n_stats = 2 + 2 * self.d
        self.zeros = np.zeros(self.d)
        self.shift, self.scale = self.zeros, np.ones(self.d)
        moves = np.empty((0, self.d)) if tangents is None else np.ascontiguousarray(tangents, dtype=np.float64)
        if moves.ndim != 2 or moves.shape[1] != self.d:
            raise ValueError(f"tangents must have shape (m, {self.d}), got {moves.shape}")
        self.tangents = moves

    def panel_rows(self):
        """Return how many rows a panel should have: K is read twice, from the first cache where some groups have room there."""
        groups = CACHED // self.d
        return min(MOST_ROWS, EMC_GROUP * (groups if groups > 1 else max(1, NEAR // self.d)))

    def needs_packed(self, rows):
        # What is no float64, or has no neighbours in memory, is packed at less cost than it would be put side by side.
        beside = rows.strides[1] == 8 or self.d == 1
        return not (rows.dtype == np.float64 and beside and rows.strides[0] % 8 == 0 and rows.flags.aligned)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        # Means, counts over means and bases of the rows, three columns of weights, and the sums that these give.
        return 6 * padded(n) + 3 * self.d

    cdef void combine(self, emc_panel *panel, const double *x, double a, double *out, Py_ssize_t stride) noexcept nogil:
        """Write a + K_i'x of the rows, one column."""
        if panel.X != NULL:
            table().affine(panel.X, padded(panel.n) // EMC_GROUP, self.d, x, a, out, stride)
        else:
            table().row_dots(<const double *> panel.raw, panel.n, self.d, panel.raw_row_stride // 8, x, a, out, stride)

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t g, i, n = padded(panel.n), ng = n // EMC_GROUP
        cdef double *base = work + 2 * n
        cdef double background = self.background
        self.combine(panel, &self.intensities[0], background, work, EMC_GROUP)
        for g in range(ng):
            log_factorials(panel.aux + g * EMC_GROUP, logp + g * EMC_GROUP, EMC_GROUP, &_log_factorials[0])
        for i in range(n):
            base[i] = -logp[i] - background
        table().poisson_rows(work, panel.aux, ng, logp, work + n)
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t i, n = padded(panel.n)
        if panel.direction >= self.tangents.shape[0]:
            return EMC_NOT_PROVIDED
        self.combine(panel, &self.tangents[panel.direction, 0], 0.0, logp_dot, EMC_GROUP)
        for i in range(n):
            logp_dot[i] *= work[n + i] - 1.0
        return EMC_OK

    cdef void count(self, emc_panel *panel, const double *resp, const double *r, double *stats, double *work) noexcept nogil:
        """Add sums of r and of r times the bases; rows without resp may hold anything."""
        cdef Py_ssize_t i, n = padded(panel.n)
        cdef double *base = work + 2 * n
        for i in range(n):
            base[i] = base[i] if resp[i] != 0 else 0.0
        table().column_mass(r, n // EMC_GROUP, 1, stats)
        table().weighted_sum(base, n // EMC_GROUP, 1, &self.zeros[0], r, EMC_GROUP, stats + 1)

    cdef double *sums(self, emc_panel *panel, Py_ssize_t m, double *work) noexcept nogil:
        """Return the sums of the rows of K times each of m weights, (m, d): K is read once for all of them."""
        cdef Py_ssize_t n = padded(panel.n)
        cdef double *weights = work + 3 * n
        cdef double *found = work + 6 * n
        memset(found, 0, 8 * m * self.d)
        if panel.X != NULL:
            table().weighted_cross(panel.X, n // EMC_GROUP, self.d, &self.zeros[0], weights, m, found)
        else:
            table().row_sums(<const double *> panel.raw, panel.n, self.d, panel.raw_row_stride // 8, weights, m, found)
        return found

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t g, i, j, n = padded(panel.n), d = self.d
        cdef const double *ratio = work + n
        cdef double *row
        cdef double *sums
        self.count(panel, resp, resp, stats, work)
        for g in range(n // EMC_GROUP):
            for i in range(g * EMC_GROUP, (g + 1) * EMC_GROUP):
                row = work + 3 * n + g * EMC_GROUP + i
                row[0], row[EMC_GROUP] = resp[i] * ratio[i], resp[i]
        sums = self.sums(panel, 2, work)
        for j in range(d):
            stats[2 + j] += self.intensities[j] * sums[j]
            stats[2 + d + j] += sums[d + j]
        return EMC_OK

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # Events come from source j with probability K_ij x_j / mean_i: both x_j and the means move.
        cdef Py_ssize_t g, i, j, n = padded(panel.n), d = self.d
        cdef const double *ratio = work + n
        cdef double *row
        cdef double *sums
        cdef double moved
        self.count(panel, resp, resp_dot, stats_dot, work)
        self.combine(panel, &self.tangents[panel.direction, 0], 0.0, work + 3 * n + EMC_GROUP, 3 * EMC_GROUP)
        for g in range(n // EMC_GROUP):
            for i in range(g * EMC_GROUP, (g + 1) * EMC_GROUP):
                row = work + 3 * n + 2 * g * EMC_GROUP + i
                row[0], row[2 * EMC_GROUP] = resp[i] * ratio[i], resp_dot[i]
                moved = resp_dot[i] * ratio[i] - row[0] * row[EMC_GROUP] / work[i]
                row[EMC_GROUP] = moved if row[0] != 0 else 0.0
        sums = self.sums(panel, 3, work)
        for j in range(d):
            stats_dot[2 + j] += self.tangents[panel.direction, j] * sums[j] + self.intensities[j] * sums[d + j]
            stats_dot[2 + d + j] += sums[2 * d + j]
        return EMC_OK
