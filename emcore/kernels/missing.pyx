"""Linear regression of rows some of whose covariates are missing (NaN), the covariates being independent standard normal.

With o the observed and m the missing covariates of a row, ``r = y - x_o'b_o`` and ``q = |b_m|^2 + v`` the response is
``N(x_o'b_o, q)``, and given it the missing covariates have mean ``b_m r / q`` and covariance ``I - b_m b_m' / q``.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table

cdef double LOG_2PI = 1.8378770664093453


cdef class MissingRegression(Emission):
    """A regression with missing covariates; one state.

    Statistics about the coefficients b of the pass: ``[count 1 | square 1 | cross d | gram d*(d+1)/2]``, the sums of 1, of
    E[e^2], E[e x] and E[x x'] given what is observed, ``e = y - x'b`` (lower triangles row by row).

    Parameters
    ----------
    coefficients : ndarray (d,)
    variance : float
        v, of the response given all covariates.
    identity_block : bool
        Whether ``E[x x']`` has the identity in place of its block of missing covariates, and ``E[e x]`` and ``E[e^2]`` what
        follows from that: not the conditional expectations, and no EM.
    tangents : tuple of ndarray, optional
        Of the coefficients (m, d) and of the variance (m,), along m directions.
    """
    cdef const double[::1] coefficients
    cdef double variance
    cdef bint identity_block
    cdef const double[:, ::1] slopes
    cdef const double[::1] spreads
    cdef double[::1] zeros, ones, squares, constants
    cdef Py_ssize_t n_tangents

    def __init__(self, coefficients, double variance, bint identity_block=False, tangents=None):
        self.coefficients = np.ascontiguousarray(coefficients, dtype=np.float64)
        self.variance, self.identity_block = variance, identity_block
        self.k, self.d, self.n_aux = 1, self.coefficients.shape[0], 1
        self.n_stats = 2 + self.d + self.d * (self.d + 1) // 2
        self.zeros, self.ones = np.zeros(self.d), np.ones(self.d)
        with np.errstate(over="ignore"):
            self.squares, self.constants = np.square(coefficients), np.full(self.d, -LOG_2PI)
        self.shift, self.scale = self.zeros, self.ones
        self.n_tangents = 0
        if tangents is not None:
            self.slopes, self.spreads = (np.ascontiguousarray(a, dtype=np.float64) for a in tangents)
            self.n_tangents = self.slopes.shape[0]
            if self.slopes.shape[1] != self.d or self.spreads.shape[0] != self.n_tangents:
                raise ValueError(f"tangents must have shapes (m, {self.d}) and (m,)")

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        # Covariates with expectations for those missing, where they are missing, r / q, 1 / q, weights; a triangle.
        return padded(n) * (2 * self.d + 4) + self.d * (self.d + 2)

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t g, i, j, d = self.d, ng = padded(panel.n) // EMC_GROUP
        cdef double *filled = work
        cdef double *gaps = work + ng * d * EMC_GROUP
        cdef double *ratio = gaps + ng * d * EMC_GROUP
        cdef double *inverse = ratio + ng * EMC_GROUP
        cdef double *logs = inverse + ng * EMC_GROUP
        cdef double *squares = logs + ng * EMC_GROUP
        cdef const double *x = panel.X
        cdef const double *w
        cdef double *z
        cdef double *m
        cdef double *r
        cdef double b, q
        for i in range(ng * d * EMC_GROUP):
            gaps[i] = 1.0 if x[i] != x[i] else 0.0
        for i in range(ng * d * EMC_GROUP):
            filled[i] = 0.0 if x[i] != x[i] else x[i]
        table().affine(filled, ng, d, &self.coefficients[0], 0.0, ratio, EMC_GROUP)
        table().affine(gaps, ng, d, &self.squares[0], self.variance, inverse, EMC_GROUP)
        table().affine(gaps, ng, d, &self.constants[0], LOG_2PI * (d + 1), logp, EMC_GROUP)
        table().sqdist_diag(filled, ng, d, &self.zeros[0], &self.ones[0], 0.0, 1.0, squares, EMC_GROUP)
        table().vlog(inverse, logs, ng * EMC_GROUP)
        for i in range(ng * EMC_GROUP):
            b, q = panel.aux[i] - ratio[i], inverse[i]
            logp[i] = -0.5 * (logp[i] + squares[i] + logs[i] + b * b / q)
            ratio[i], inverse[i] = b / q if panel.w[i] > 0 else 0.0, 1.0 / q  # a row of weight 0 may hold anything
        for g in range(ng):
            r, w = ratio + g * EMC_GROUP, panel.w + g * EMC_GROUP
            for j in range(d):
                z, m, b = filled + (g * d + j) * EMC_GROUP, gaps + (g * d + j) * EMC_GROUP, self.coefficients[j]
                for i in range(EMC_GROUP):
                    z[i] = z[i] + b * m[i] * r[i] if w[i] > 0 else 0.0
        return EMC_OK

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t i, j, m, d = self.d, ng = padded(panel.n) // EMC_GROUP, n_second = d * (d + 1) // 2
        cdef double *filled = work
        cdef double *gaps = work + ng * d * EMC_GROUP
        cdef double *ratio = gaps + ng * d * EMC_GROUP
        cdef double *inverse = ratio + ng * EMC_GROUP
        cdef double *first = inverse + ng * EMC_GROUP
        cdef double *second = first + ng * EMC_GROUP
        cdef double *gram = second + ng * EMC_GROUP
        cdef double *column = gram + n_second
        cdef double *cross = stats + 2
        cdef double v = self.variance, e, square
        cdef const double *b = &self.coefficients[0]
        table().column_mass(resp, ng, 1, stats)
        if self.identity_block:
            self.accumulate_block(panel, resp, stats, work)
            return EMC_OK
        for i in range(n_second + d):
            gram[i] = 0.0
        square = 0.0
        for i in range(ng * EMC_GROUP):
            e = v * ratio[i]  # the expected residual
            first[i] = resp[i] * e
            second[i] = resp[i] * inverse[i]
            square += first[i] * e + resp[i] * v - second[i] * v * v
        stats[1] += square
        table().weighted_sum(filled, ng, d, &self.zeros[0], first, EMC_GROUP, cross)
        table().weighted_gram(filled, ng, d, &self.zeros[0], resp, EMC_GROUP, cross + d)
        table().weighted_gram(gaps, ng, d, &self.zeros[0], second, EMC_GROUP, gram)
        table().weighted_sum(gaps, ng, d, &self.zeros[0], resp, EMC_GROUP, column)
        i = 0
        for j in range(d):
            for m in range(j + 1):
                cross[d + i] -= b[j] * b[m] * gram[i]
                i += 1
            cross[d + i - 1] += column[j]
            cross[j] -= v * b[j] * gram[i - 1]  # the diagonal: a mask is its own square
        return EMC_OK

    cdef void accumulate_block(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        """Second-order statistics with the identity for all pairs of missing covariates of a row."""
        cdef Py_ssize_t i, j, m, d = self.d, ng = padded(panel.n) // EMC_GROUP, n_second = d * (d + 1) // 2
        cdef double *filled = work
        cdef double *gaps = work + ng * d * EMC_GROUP
        cdef double *first = gaps + (ng * d + 2 * ng) * EMC_GROUP
        cdef double *gram = first + 2 * ng * EMC_GROUP
        cdef double *column = gram + n_second
        cdef double *total = column + d
        cdef const double *y = panel.aux
        cdef const double *b = &self.coefficients[0]
        cdef double *cross = stats + 2
        cdef double product, squares = 0.0
        for i in range(n_second + 2 * d):
            gram[i] = 0.0
        for i in range(ng * EMC_GROUP):
            first[i] = resp[i] * y[i] if resp[i] != 0 else 0.0
            squares += first[i] * y[i] if resp[i] != 0 else 0.0
        table().weighted_sum(filled, ng, d, &self.zeros[0], first, EMC_GROUP, total)
        table().weighted_sum(gaps, ng, d, &self.zeros[0], resp, EMC_GROUP, column)
        for i in range(ng * d * EMC_GROUP):
            gaps[i] *= filled[i]
        table().weighted_gram(gaps, ng, d, &self.zeros[0], resp, EMC_GROUP, gram)
        for i in range(n_second):
            gram[i] = -gram[i]
        table().weighted_gram(filled, ng, d, &self.zeros[0], resp, EMC_GROUP, gram)
        i = 0
        for j in range(d):
            cross[j] += total[j]
            squares -= 2.0 * b[j] * total[j]
            for m in range(j + 1):
                product = gram[i] + (column[j] if m == j else 0.0)
                cross[d + i] += product
                cross[j] -= product * b[m]
                squares += product * b[j] * b[m]
                if m < j:
                    cross[m] -= product * b[j]
                    squares += product * b[j] * b[m]
                i += 1
        stats[1] += squares

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t i, v = panel.direction, d = self.d, ng = padded(panel.n) // EMC_GROUP
        cdef const double *gaps = work + ng * d * EMC_GROUP
        cdef const double *ratio = gaps + ng * d * EMC_GROUP
        cdef const double *inverse = ratio + ng * EMC_GROUP
        cdef double dr, dq
        if v >= self.n_tangents:
            return EMC_NOT_PROVIDED
        for i in range(ng * EMC_GROUP):
            dr, dq = self.moved(panel, gaps, i, v)
            logp_dot[i] = -0.5 * dq * inverse[i] - ratio[i] * dr + 0.5 * ratio[i] * ratio[i] * dq
        return EMC_OK

    cdef (double, double) moved(self, emc_panel *panel, const double *gaps, Py_ssize_t i, Py_ssize_t v) noexcept nogil:
        """Derivatives of r and q of row i along direction v."""
        cdef Py_ssize_t j, at
        cdef double dr = 0.0, dq = self.spreads[v]
        for j in range(self.d):
            at = ((i // EMC_GROUP) * self.d + j) * EMC_GROUP + i % EMC_GROUP
            if gaps[at] != 0:
                dq += 2.0 * self.coefficients[j] * self.slopes[v, j]
            elif panel.w[i] > 0:
                dr -= panel.X[at] * self.slopes[v, j]
        return dr, dq

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # What a row expects of its missing covariates moves; responsibilities of one state do not.
        cdef Py_ssize_t g, i, j, m, at, v = panel.direction, d = self.d, ng = padded(panel.n) // EMC_GROUP
        cdef const double *filled = work
        cdef const double *gaps = work + ng * d * EMC_GROUP
        cdef const double *ratio = gaps + ng * d * EMC_GROUP
        cdef const double *inverse = ratio + ng * EMC_GROUP
        cdef double *move = work + ng * (2 * d + 4) * EMC_GROUP  # of the expected covariates
        cdef double *cross = stats_dot + 2
        cdef double dr, dq, df, product, both
        cdef const double *b = &self.coefficients[0]
        if self.identity_block:
            return EMC_NOT_PROVIDED
        for i in range(panel.n):
            if not resp[i] > 0:
                continue
            dr, dq = self.moved(panel, gaps, i, v)
            df = dr * inverse[i] - ratio[i] * dq * inverse[i]
            g = (i // EMC_GROUP) * d * EMC_GROUP + i % EMC_GROUP
            at = 0
            for j in range(d):
                move[j] = 0.0
                if gaps[g + j * EMC_GROUP] != 0:
                    move[j] = self.slopes[v, j] * ratio[i] + b[j] * df
                cross[j] += resp[i] * move[j] * panel.aux[i]
                stats_dot[1] -= 2.0 * resp[i] * move[j] * panel.aux[i] * b[j]
                for m in range(j + 1):
                    product = move[j] * filled[g + m * EMC_GROUP] + move[m] * filled[g + j * EMC_GROUP]
                    if gaps[g + j * EMC_GROUP] != 0 and gaps[g + m * EMC_GROUP] != 0:
                        both = self.slopes[v, j] * b[m] + self.slopes[v, m] * b[j]
                        product += (b[j] * b[m] * dq * inverse[i] - both) * inverse[i]
                    product *= resp[i]
                    cross[d + at] += product
                    cross[j] -= product * b[m]
                    stats_dot[1] += product * b[j] * b[m]
                    if m < j:
                        cross[m] -= product * b[j]
                        stats_dot[1] += product * b[j] * b[m]
                    at += 1
        return EMC_OK
