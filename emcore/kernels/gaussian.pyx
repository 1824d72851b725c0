"""Gaussian emissions. Squared distances are of ``L (x - mu)`` and statistics about ``mu``: nothing cancels, however far the
components lie from the origin or from each other.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table


cdef inline void lanes_fill(double *y, double a) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(EMC_GROUP):
        y[i] = a


cdef inline void lanes_add(double *y, double a, const double *x, double centre) noexcept nogil:
    """y += a (x - centre), for the rows of a group."""
    cdef Py_ssize_t i
    for i in range(EMC_GROUP):
        y[i] += a * (x[i] - centre)


cdef inline void lanes_add_product(double *y, const double *a, const double *b) noexcept nogil:
    """y += a b, for the rows of a group."""
    cdef Py_ssize_t i
    for i in range(EMC_GROUP):
        y[i] += a[i] * b[i]


cdef class _Gaussian(Emission):
    """What the four covariance types share: parameters and the part ``[count k | mass k | sum k*d]`` of the statistics.

    Derivatives of log-densities along a direction are quadratics in the whitened residual y = L (x - mu), offset +
    slope'y + y'Cy: with tangents a of the mean and V of the covariance, slope = L a, C = L V L' / 2, offset = -tr C.
    """
    cdef const double[:, ::1] means
    cdef const double[:, ::1] factors      # one row a component, or one for all
    cdef const double[::1] log_norm        # log-density at the mean, in user units
    cdef bint pooled
    cdef Py_ssize_t n_second         # second-order statistics of one component
    cdef Py_ssize_t n_tangents
    cdef const double[:, ::1] offsets
    cdef const double[:, :, ::1] slopes, curves

    def __init__(self, means, factors, log_norm, shift, scale, bint pooled, tangents):
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
        self.n_tangents = 0
        if tangents is not None:
            self.offsets, self.slopes, self.curves = (np.ascontiguousarray(a, dtype=np.float64) for a in tangents)
            m = self.offsets.shape[0]
            shapes = (m, self.k), (m, self.k, self.d), (m, self.factors.shape[0], self.factors.shape[1])
            for array, shape in zip((self.offsets, self.slopes, self.curves), shapes, strict=True):
                if np.shape(array) != shape:
                    raise ValueError(f"tangents must have shapes {shapes}, got {np.shape(array)}")
            self.n_tangents = m

    cdef const double *curve(self, Py_ssize_t direction, Py_ssize_t c) noexcept nogil:
        return &self.curves[direction, c if self.factors.shape[0] > 1 else 0, 0]

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # Statistics about a held origin are linear in the responsibilities and depend on nothing else.
        return self.accumulate(panel, resp_dot, stats_dot, work)

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
    tangents : tuple of ndarray, optional
        Offsets (m, k), slopes (m, k, d) and curves (m, k or 1, d (d + 1) / 2) of m directions; curves hold the coefficients
        of ``y_i y_j``, j <= i, row by row.
    """

    def __init__(self, means, factors, log_norm, shift, scale, bint pooled=False, tangents=None):
        _Gaussian.__init__(self, means, factors, log_norm, shift, scale, pooled, tangents)
        self.n_second = self.d * (self.d + 1) // 2
        if self.factors.shape[1] != self.n_second:
            raise ValueError(f"factors must have {self.n_second} columns, got {self.factors.shape[1]}")
        self.n_stats = self.k * (2 + self.d) + (1 if pooled else self.k) * self.n_second

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return (self.d + 1) * EMC_GROUP if self.n_tangents else 0

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        for c in range(self.k):
            table().sqdist_tri(panel.X, ng, self.d, &self.means[c, 0], self.factor(c), self.log_norm[c], -0.5,
                               logp + c * EMC_GROUP, self.k * EMC_GROUP)
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t g, c, i, j, v = panel.direction
        cdef const double *x
        cdef const double *row
        cdef const double *curve
        cdef double *out
        cdef double *y = work
        cdef double *slope = work + self.d * EMC_GROUP
        if v >= self.n_tangents:
            return EMC_NOT_PROVIDED
        for g in range(padded(panel.n) // EMC_GROUP):
            x = panel.X + g * self.d * EMC_GROUP
            for c in range(self.k):
                out = logp_dot + (g * self.k + c) * EMC_GROUP
                row, curve = self.factor(c), self.curve(v, c)
                lanes_fill(out, self.offsets[v, c])
                for i in range(self.d):
                    lanes_fill(y + i * EMC_GROUP, 0.0)
                    lanes_fill(slope, self.slopes[v, c, i])
                    for j in range(i + 1):
                        lanes_add(y + i * EMC_GROUP, row[j], x + j * EMC_GROUP, self.means[c, j])
                    for j in range(i + 1):
                        lanes_add(slope, curve[j], y + j * EMC_GROUP, 0.0)
                    lanes_add_product(out, slope, y + i * EMC_GROUP)
                    row, curve = row + i + 1, curve + i + 1
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
    tangents : tuple of ndarray, optional
        Offsets (m, k), slopes (m, k, d) and curves (m, k, d), the coefficients of ``y_j^2``, of m directions.
    """

    def __init__(self, means, factors, log_norm, shift, scale, bint pooled=False, tangents=None):
        _Gaussian.__init__(self, means, factors, log_norm, shift, scale, pooled, tangents)
        self.n_second = 1 if pooled else self.d
        if self.factors.shape[1] != self.d:
            raise ValueError(f"factors must have {self.d} columns, got {self.factors.shape[1]}")
        self.n_stats = self.k * (2 + self.d + self.n_second)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return max(self.d, 2 * EMC_GROUP)

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        for c in range(self.k):
            table().sqdist_diag(panel.X, ng, self.d, &self.means[c, 0], self.factor(c), self.log_norm[c], -0.5,
                                logp + c * EMC_GROUP, self.k * EMC_GROUP)
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t g, c, j, v = panel.direction
        cdef const double *x
        cdef double *out
        cdef double *y = work
        cdef double *slope = work + EMC_GROUP
        if v >= self.n_tangents:
            return EMC_NOT_PROVIDED
        for g in range(padded(panel.n) // EMC_GROUP):
            x = panel.X + g * self.d * EMC_GROUP
            for c in range(self.k):
                out = logp_dot + (g * self.k + c) * EMC_GROUP
                lanes_fill(out, self.offsets[v, c])
                for j in range(self.d):
                    lanes_fill(y, 0.0)
                    lanes_add(y, self.factor(c)[j], x + j * EMC_GROUP, self.means[c, j])
                    lanes_fill(slope, self.slopes[v, c, j])
                    lanes_add(slope, self.curve(v, c)[j], y, 0.0)
                    lanes_add_product(out, slope, y)
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
