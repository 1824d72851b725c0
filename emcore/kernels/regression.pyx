"""Linear regressions of one response: how the response of a row looks in each of k states, given the covariates.

Rows come as (X, y). Residuals are of ``y - intercept - x'coefficients``, and statistics are about the coefficients of the
pass: nothing cancels but what a step itself moves.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table


cdef inline double lanes_sum(const double *a) noexcept nogil:
    cdef double total = 0.0
    cdef Py_ssize_t i
    for i in range(EMC_GROUP):
        total += a[i]
    return total


cdef class _Regression(Emission):
    """What regressions share: residuals and densities.

    Parameters
    ----------
    coefficients : ndarray (k, d)
    intercepts : ndarray (k,)
    variances : ndarray (k,)
    log_norm : ndarray (k,)
        Log-densities at residual 0, in user units.
    shift, scale : ndarray (d,)
        The frame of the covariates.
    response : tuple of float
        Shift and scale of the frame of the response.
    tangents : tuple of ndarray, optional
        Of coefficients (m, k, d), intercepts (m, k) and variances (m, k), along m directions.
    """
    cdef const double[:, ::1] coefficients
    cdef const double[::1] intercepts, variances, log_norm
    cdef const double[:, :, ::1] slopes
    cdef const double[:, ::1] offsets, spreads
    cdef double[::1] zeros
    cdef double response_shift, response_scale
    cdef Py_ssize_t n_tangents, n_second

    def __init__(self, coefficients, intercepts, variances, log_norm, shift, scale, response=(0.0, 1.0), tangents=None):
        self.coefficients = np.ascontiguousarray(coefficients, dtype=np.float64)
        self.k, self.d = self.coefficients.shape[0], self.coefficients.shape[1]
        self.intercepts, self.variances, self.log_norm = (
            np.ascontiguousarray(a, dtype=np.float64) for a in (intercepts, variances, log_norm)
        )
        self.shift, self.scale = (np.ascontiguousarray(a, dtype=np.float64) for a in (shift, scale))
        self.response_shift, self.response_scale = response
        self.zeros = np.zeros(self.d)
        self.n_aux = 1
        self.n_second = self.d * (self.d + 1) // 2
        if not self.intercepts.shape[0] == self.variances.shape[0] == self.log_norm.shape[0] == self.k:
            raise ValueError(f"intercepts, variances and log_norm must have shape ({self.k},)")
        if self.shift.shape[0] != self.d or self.scale.shape[0] != self.d:
            raise ValueError(f"shift and scale must have shape ({self.d},)")
        self.n_tangents = 0
        if tangents is not None:
            self.slopes, self.offsets, self.spreads = (np.ascontiguousarray(a, dtype=np.float64) for a in tangents)
            m = self.slopes.shape[0]
            for array, shape in zip(tangents, ((m, self.k, self.d), (m, self.k), (m, self.k)), strict=True):
                if np.shape(array) != shape:
                    raise ValueError(f"tangents must have {m} times the shapes of the parameters, got {np.shape(array)}")
            self.n_tangents = m

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        # Residuals, one column a state, and one column besides.
        return padded(n) * (self.k + 1)

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t g, c, i, ng = padded(panel.n) // EMC_GROUP
        cdef const double *y
        cdef const double *w
        cdef double *e
        cdef double *out
        cdef double half, norm, residual
        for c in range(self.k):
            table().affine(panel.X, ng, self.d, &self.coefficients[c, 0], self.intercepts[c], work + c * EMC_GROUP,
                           self.k * EMC_GROUP)
        for g in range(ng):
            y, w = panel.aux + g * EMC_GROUP, panel.w + g * EMC_GROUP
            for c in range(self.k):
                e, out = work + (g * self.k + c) * EMC_GROUP, logp + (g * self.k + c) * EMC_GROUP
                half, norm = -0.5 / self.variances[c], self.log_norm[c]
                for i in range(EMC_GROUP):
                    residual = (y[i] - self.response_shift) * self.response_scale - e[i]
                    out[i] = norm + half * residual * residual
                    e[i] = residual if w[i] > 0 else 0.0  # a row of weight 0 may hold anything
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t g, c, i, v = panel.direction, ng = padded(panel.n) // EMC_GROUP
        cdef const double *e
        cdef double *out
        cdef double inverse, spread
        if v >= self.n_tangents:
            return EMC_NOT_PROVIDED
        for c in range(self.k):
            table().affine(panel.X, ng, self.d, &self.slopes[v, c, 0], self.offsets[v, c], logp_dot + c * EMC_GROUP,
                           self.k * EMC_GROUP)
            inverse, spread = 1.0 / self.variances[c], 0.5 * self.spreads[v, c] / self.variances[c]
            for g in range(ng):
                e, out = work + (g * self.k + c) * EMC_GROUP, logp_dot + (g * self.k + c) * EMC_GROUP
                for i in range(EMC_GROUP):
                    out[i] = inverse * e[i] * out[i] + spread * (inverse * e[i] * e[i] - 1.0)
        return EMC_OK

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # Statistics about held coefficients are linear in the responsibilities and depend on nothing else.
        return self.accumulate(panel, resp_dot, stats_dot, work)


cdef class LinearRegression(_Regression):
    """Linear regressions of one response, one a state. Parameters as in `_Regression`.

    Statistics, e being the residual of a state: ``[count k | residual k | square k | sum k*d | cross k*d |
    gram k*d*(d+1)/2]``, the sums of 1, e, e^2, x, e x and x x' (lower triangles row by row).
    """

    def __init__(self, *args, **kwargs):
        _Regression.__init__(self, *args, **kwargs)
        self.n_stats = self.k * (3 + 2 * self.d + self.n_second)

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t g, c, i, k = self.k, d = self.d, ng = padded(panel.n) // EMC_GROUP, stride = k * EMC_GROUP
        cdef const double *r
        cdef const double *e
        cdef double *t
        cdef double *weighted = work + ng * stride
        cdef double[EMC_GROUP] first
        cdef double[EMC_GROUP] second
        cdef double *sums = stats + 3 * k
        table().column_mass(resp, ng, k, stats)
        for c in range(k):
            for i in range(EMC_GROUP):
                first[i] = second[i] = 0.0
            for g in range(ng):
                r, e, t = resp + g * stride + c * EMC_GROUP, work + g * stride + c * EMC_GROUP, weighted + g * EMC_GROUP
                for i in range(EMC_GROUP):
                    t[i] = r[i] * e[i]
                    first[i] += t[i]
                    second[i] += t[i] * e[i]
            stats[k + c] += lanes_sum(first)
            stats[2 * k + c] += lanes_sum(second)
            table().weighted_sum(panel.X, ng, d, &self.zeros[0], resp + c * EMC_GROUP, stride, sums + c * d)
            table().weighted_sum(panel.X, ng, d, &self.zeros[0], weighted, EMC_GROUP, sums + (k + c) * d)
            table().weighted_gram(panel.X, ng, d, &self.zeros[0], resp + c * EMC_GROUP, stride,
                                  sums + 2 * k * d + c * self.n_second)
        return EMC_OK


cdef class SymmetricRegression(_Regression):
    """Two regressions of opposite coefficients and no intercept: ``y = +- x'coefficients + noise``.

    Parameters as in `_Regression`, k = 2, the coefficients of the second state being the negative of those of the first.
    Statistics: ``[count 2 | square 1 | cross d | gram d*(d+1)/2]``, those of both states together; in ``cross``, the sum of
    e x, the residuals of the second state count with the opposite sign.
    """

    def __init__(self, *args, **kwargs):
        _Regression.__init__(self, *args, **kwargs)
        if self.k != 2:
            raise ValueError(f"coefficients must have 2 rows, got {self.k}")
        self.n_stats = 3 + self.d + self.n_second

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t g, i, d = self.d, ng = padded(panel.n) // EMC_GROUP
        cdef const double *r
        cdef const double *e
        cdef double *t
        cdef double a, b
        cdef double *weighted = work + 2 * ng * EMC_GROUP
        cdef double[EMC_GROUP] second
        table().column_mass(resp, ng, 2, stats)
        for i in range(EMC_GROUP):
            second[i] = 0.0
        for g in range(ng):
            r, e, t = resp + 2 * g * EMC_GROUP, work + 2 * g * EMC_GROUP, weighted + g * EMC_GROUP
            for i in range(EMC_GROUP):
                a, b = r[i] * e[i], r[i + EMC_GROUP] * e[i + EMC_GROUP]
                t[i] = a - b
                second[i] += a * e[i] + b * e[i + EMC_GROUP]
        stats[2] += lanes_sum(second)
        table().weighted_sum(panel.X, ng, d, &self.zeros[0], weighted, EMC_GROUP, stats + 3)
        for g in range(ng):
            r, t = resp + 2 * g * EMC_GROUP, weighted + g * EMC_GROUP
            for i in range(EMC_GROUP):
                t[i] = r[i] + r[i + EMC_GROUP]
        table().weighted_gram(panel.X, ng, d, &self.zeros[0], weighted, EMC_GROUP, stats + 3 + d)
        return EMC_OK
