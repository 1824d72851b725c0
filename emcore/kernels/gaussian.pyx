"""Gaussian emissions. Squared distances are of ``L (x - mu)`` and statistics about ``mu``: nothing cancels, however far the
components lie from the origin or from each other.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_OK, Emission, emc_panel, padded, table


cdef class _Gaussian(Emission):
    """What the four covariance types share: parameters and the part ``[count k | mass k | sum k*d]`` of the statistics."""
    cdef const double[:, ::1] means
    cdef const double[:, ::1] factors      # one row a component, or one for all
    cdef const double[::1] log_norm        # log-density at the mean, in user units
    cdef bint pooled
    cdef Py_ssize_t n_second         # second-order statistics of one component

    def __init__(self, means, factors, log_norm, shift, scale, bint pooled):
        self.means = np.ascontiguousarray(means, dtype=np.float64)
        self.factors = np.ascontiguousarray(factors, dtype=np.float64)
        self.log_norm = np.ascontiguousarray(log_norm, dtype=np.float64)
        self.shift = np.ascontiguousarray(shift, dtype=np.float64)
        self.scale = np.ascontiguousarray(scale, dtype=np.float64)
        self.pooled = pooled
        self.k, self.d = self.means.shape[0], self.means.shape[1]
        self.n_aux = 0
        if self.log_norm.shape[0] != self.k or self.shift.shape[0] != self.d or self.scale.shape[0] != self.d:
            raise ValueError(f"log_norm must have shape ({self.k},), shift and scale ({self.d},)")
        if self.factors.shape[0] not in (1, self.k):
            raise ValueError(f"factors must have 1 or {self.k} rows, got {self.factors.shape[0]}")

    cdef const double *factor(self, Py_ssize_t c) noexcept nogil:
        return &self.factors[c, 0] if self.factors.shape[0] > 1 else &self.factors[0, 0]

    cdef void first_order(self, emc_panel *panel, const double *resp, double *stats) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP, stride = self.k * EMC_GROUP
        table().column_mass(resp, ng, self.k, stats)
        table().column_mass(resp, ng, self.k, stats + self.k)
        for c in range(self.k):
            table().weighted_sum(panel.X, ng, self.d, &self.means[c, 0], resp + c * EMC_GROUP, stride,
                                 stats + 2 * self.k + c * self.d)


cdef class GaussianTri(_Gaussian):
    """Full and tied covariances.

    Statistics about the means: ``[count k | mass k | sum k*d | scatter m*d*(d+1)/2]``, lower triangles row by row, m = k, or
    1 where pooled (tied). ``mass`` is ``count`` here; a heavier-tailed emission keeps another weight there.

    Parameters
    ----------
    means : ndarray (k, d), in frame units
    factors : ndarray (k or 1, d (d + 1) / 2)
        Inverse Cholesky factors of the covariances, lower triangles row by row.
    log_norm : ndarray (k,)
        Log-densities at the means, in user units.
    shift, scale : ndarray (d,)
        The frame.
    pooled : bool
        Whether all components share one scatter.
    """

    def __init__(self, means, factors, log_norm, shift, scale, bint pooled=False):
        _Gaussian.__init__(self, means, factors, log_norm, shift, scale, pooled)
        self.n_second = self.d * (self.d + 1) // 2
        if self.factors.shape[1] != self.n_second:
            raise ValueError(f"factors must have {self.n_second} columns, got {self.factors.shape[1]}")
        self.n_stats = self.k * (2 + self.d) + (1 if pooled else self.k) * self.n_second

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return 0

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        for c in range(self.k):
            table().sqdist_tri(panel.X, ng, self.d, &self.means[c, 0], self.factor(c), self.log_norm[c], -0.5,
                               logp + c * EMC_GROUP, self.k * EMC_GROUP)
        return EMC_OK

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        cdef double *scatter = stats + self.k * (2 + self.d)
        self.first_order(panel, resp, stats)
        for c in range(self.k):
            table().weighted_gram(panel.X, ng, self.d, &self.means[c, 0], resp + c * EMC_GROUP, self.k * EMC_GROUP,
                                  scatter if self.pooled else scatter + c * self.n_second)
        return EMC_OK


cdef class GaussianDiag(_Gaussian):
    """Diagonal and spherical covariances.

    Statistics about the means: ``[count k | mass k | sum k*d | squares k*d]``, or ``squares k`` (summed over the columns)
    where pooled (spherical).

    Parameters
    ----------
    means : ndarray (k, d), in frame units
    factors : ndarray (k, d)
        Inverse standard deviations.
    log_norm, shift, scale : as in `GaussianTri`
    pooled : bool
        Whether the columns of a component share one variance.
    """

    def __init__(self, means, factors, log_norm, shift, scale, bint pooled=False):
        _Gaussian.__init__(self, means, factors, log_norm, shift, scale, pooled)
        self.n_second = 1 if pooled else self.d
        if self.factors.shape[1] != self.d:
            raise ValueError(f"factors must have {self.d} columns, got {self.factors.shape[1]}")
        self.n_stats = self.k * (2 + self.d + self.n_second)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return self.d

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        for c in range(self.k):
            table().sqdist_diag(panel.X, ng, self.d, &self.means[c, 0], self.factor(c), self.log_norm[c], -0.5,
                                logp + c * EMC_GROUP, self.k * EMC_GROUP)
        return EMC_OK

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t c, j, ng = padded(panel.n) // EMC_GROUP, stride = self.k * EMC_GROUP
        cdef double *squares = stats + self.k * (2 + self.d)
        self.first_order(panel, resp, stats)
        for c in range(self.k):
            if self.pooled:
                for j in range(self.d):
                    work[j] = 0.0
                table().weighted_squares(panel.X, ng, self.d, &self.means[c, 0], resp + c * EMC_GROUP, stride, work)
                for j in range(self.d):
                    squares[c] += work[j]
            else:
                table().weighted_squares(panel.X, ng, self.d, &self.means[c, 0], resp + c * EMC_GROUP, stride,
                                         squares + c * self.d)
        return EMC_OK
