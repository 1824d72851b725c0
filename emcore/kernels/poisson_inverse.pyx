"""Counts whose means are known non-negative combinations of unknown intensities: blurred images, emission tomography.

A row is what one detector sees of each source, ``K_i`` (d,), and beside it (``aux``) its count y. The latent variables are the
sources that the single events came from; their expectations are summed over the rows as they are formed, so that nothing but K,
which is data, has a number for each detector and source.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table
from emcore.kernels._factorials cimport log_factorial
from emcore.kernels.exponential_family import LOG_FACTORIALS

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

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return 4 * padded(n) + self.d  # means and what is lost of a value; two vectors of rows and one of columns

    cdef void means(self, emc_panel *panel, const double *x, double start, double *out) noexcept nogil:
        """Write start + K x, packed with one column."""
        table().affine(panel.X, padded(panel.n) // EMC_GROUP, self.d, x, start, out, EMC_GROUP)

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t i, n = padded(panel.n)
        cdef const double *known = &_log_factorials[0]
        cdef double *mean = work
        cdef double *base = work + n
        self.means(panel, &self.intensities[0], self.background, mean)
        table().vlog(mean, logp, n)
        for i in range(n):
            base[i] = -log_factorial(panel.aux[i], known) - self.background
            if panel.aux[i] > 0:
                logp[i] = panel.aux[i] * logp[i] - mean[i] + (base[i] + self.background)
            else:
                logp[i] = -mean[i]  # 0 times the logarithm of 0 is 0
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t i
        if panel.direction >= self.tangents.shape[0]:
            return EMC_NOT_PROVIDED
        self.means(panel, &self.tangents[panel.direction, 0], 0.0, logp_dot)
        for i in range(padded(panel.n)):
            logp_dot[i] *= events(panel.aux[i], work[i]) - 1.0
        return EMC_OK

    cdef void add_rows(self, emc_panel *panel, const double *r, double *out) noexcept nogil:
        """out += sum of r_i K_i."""
        table().weighted_sum(panel.X, padded(panel.n) // EMC_GROUP, self.d, &self.zeros[0], r, EMC_GROUP, out)

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t i, j, n = padded(panel.n)
        cdef double *ratio = work + 2 * n
        cdef double *came = work + 4 * n
        table().column_mass(resp, n // EMC_GROUP, 1, stats)
        for i in range(n):
            if resp[i] != 0:  # a row of weight 0 may hold anything
                stats[1] += resp[i] * work[n + i]
            ratio[i] = resp[i] * events(panel.aux[i], work[i]) if resp[i] != 0 else 0.0
        for j in range(self.d):
            came[j] = 0.0
        self.add_rows(panel, ratio, came)
        for j in range(self.d):
            stats[2 + j] += self.intensities[j] * came[j]
        self.add_rows(panel, resp, stats + 2 + self.d)
        return EMC_OK

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # Events come from source j with probability K_ij x_j / mean_i: both x_j and the means move.
        cdef Py_ssize_t i, j, n = padded(panel.n), v = panel.direction
        cdef double *ratio = work + 2 * n
        cdef double *moved = work + 3 * n
        cdef double *came = work + 4 * n
        cdef double ratio_i
        self.means(panel, &self.tangents[v, 0], 0.0, moved)
        table().column_mass(resp_dot, n // EMC_GROUP, 1, stats_dot)
        for i in range(n):
            if resp_dot[i] != 0:
                stats_dot[1] += resp_dot[i] * work[n + i]
            ratio_i = events(panel.aux[i], work[i])
            ratio[i] = resp[i] * ratio_i if resp[i] != 0 else 0.0
            moved[i] = resp_dot[i] * ratio_i - ratio[i] * moved[i] / work[i] if ratio[i] != 0 else 0.0
        for j in range(self.d):
            came[j] = 0.0
        self.add_rows(panel, ratio, came)
        for j in range(self.d):
            stats_dot[2 + j] += self.tangents[v, j] * came[j]
            came[j] = 0.0
        self.add_rows(panel, moved, came)
        for j in range(self.d):
            stats_dot[2 + j] += self.intensities[j] * came[j]
        self.add_rows(panel, resp_dot, stats_dot + 2 + self.d)
        return EMC_OK


cdef inline double events(double y, double mean) noexcept nogil:
    """y / mean, 0 where y is 0."""
    return y / mean if y > 0 else 0.0
