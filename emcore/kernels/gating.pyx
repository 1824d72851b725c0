"""Gating latent: the state of a row is drawn with weights that are a softmax of linear functions of its columns."""

import numpy as np

from emcore.kernels._base cimport EMC_BAD_ROW, EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Latent, emc_panel, padded, table
from libc.math cimport fabs


cdef class Gating(Latent):
    """Independent states with weights ``pi_c(x) = exp(a_c + x'b_c) / sum_l exp(a_l + x'b_l)``, ``a_k = b_k = 0``.

    Statistics about the coefficients of the pass, h being the posterior: ``[count k | value 1 | residual k-1 | cross (k-1)*d |
    weight 1 | sum d | gram d*(d+1)/2]``, the sums of h, ``sum_c h_c log pi_c``, ``h - pi``, ``(h - pi) x``, 1, x and x x'
    (lower triangle row by row). Along a direction the origin is held: the first-order part moves as that of a quadratic with
    the curvature ``(I - 11'/k) / 2`` for each row, in place of its own.

    Parameters
    ----------
    slopes : ndarray (k - 1, d)
    offsets : ndarray (k - 1,)
    tangents : tuple of ndarray, optional
        Of slopes (m, k - 1, d) and offsets (m, k - 1), along m directions.
    """
    cdef const double[:, ::1] slopes
    cdef const double[::1] offsets
    cdef const double[:, :, ::1] slope_moves
    cdef const double[:, ::1] offset_moves
    cdef double[::1] zeros
    cdef Py_ssize_t d, n_tangents

    def __init__(self, slopes, offsets, tangents=None):
        self.slopes = np.ascontiguousarray(slopes, dtype=np.float64)
        self.offsets = np.ascontiguousarray(offsets, dtype=np.float64)
        self.k, self.d = self.slopes.shape[0] + 1, self.slopes.shape[1]
        if self.offsets.shape[0] != self.k - 1:
            raise ValueError(f"offsets must have shape ({self.k - 1},), got {np.shape(offsets)}")
        self.n_stats = self.k + 1 + self.k * (self.d + 1) + self.d * (self.d + 1) // 2
        self.n_carry = 0
        self.n_sweeps = 1
        self.zeros = np.zeros(max(self.k, self.d))
        self.n_tangents = 0
        if tangents is not None:
            self.slope_moves, self.offset_moves = (np.ascontiguousarray(a, dtype=np.float64) for a in tangents)
            self.n_tangents = self.slope_moves.shape[0]
            if np.shape(tangents[0])[1:] != np.shape(slopes) or np.shape(tangents[1]) != (self.n_tangents, self.k - 1):
                raise ValueError(f"tangents must have shapes (m, {self.k - 1}, {self.d}) and (m, {self.k - 1})")

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        # Logarithms of the weights; the weights times those of the rows; derivatives; two columns.
        return padded(n) * (3 * self.k + 2)

    cdef int posterior(self, emc_panel *panel, double *logp, double *stats, double *loglik, double *work) noexcept nogil:
        cdef Py_ssize_t g, c, i, bad, k = self.k, d = self.d, ng = padded(panel.n) // EMC_GROUP, stride = k * EMC_GROUP
        cdef double *logs = work
        cdef double *prior = work + ng * stride
        cdef double *rows = work + 3 * ng * stride
        cdef double *column = rows + ng * EMC_GROUP
        cdef double *sums
        cdef double unused = 0.0, value = 0.0
        for c in range(k - 1):
            table().affine(panel.X, ng, d, &self.slopes[c, 0], self.offsets[c], logs + c * EMC_GROUP, stride)
        for g in range(ng):
            for i in range(EMC_GROUP):
                logs[g * stride + (k - 1) * EMC_GROUP + i] = 0.0
        for i in range(ng * stride):
            prior[i] = logs[i]
        bad = table().normalize_rows(prior, panel.n, k, &self.zeros[0], panel.w, rows, &unused)
        for g in range(ng):
            for c in range(k):
                for i in range(EMC_GROUP):
                    logs[g * stride + c * EMC_GROUP + i] -= rows[g * EMC_GROUP + i]
        for i in range(ng * stride):
            logp[i] += logs[i]
        if bad < 0:
            bad = table().normalize_rows(logp, panel.n, k, &self.zeros[0], panel.w, rows, loglik)
        for i in range(panel.n):
            if panel.w[i] > 0:
                loglik[1] += panel.w[i] * fabs(rows[i])
        if panel.row_loglik != NULL:
            for i in range(panel.n):
                panel.row_loglik[i] = rows[i]
        if panel.resp != NULL:
            table().unpack(panel.resp, logp, panel.n, k)
        if bad >= 0:
            panel.bad_row = bad
            return EMC_BAD_ROW
        if stats != NULL:
            table().column_mass(logp, ng, k, stats)
            for i in range(ng * stride):
                if logp[i] != 0:
                    value += logp[i] * logs[i]
            stats[k] += value
            for c in range(k - 1):
                for g in range(ng):
                    for i in range(EMC_GROUP):
                        column[g * EMC_GROUP + i] = (logp[g * stride + c * EMC_GROUP + i]
                                                     - prior[g * stride + c * EMC_GROUP + i])
                self.first_order(panel, c, column, stats)
            sums = stats + k + 1 + (k - 1) * (d + 1)
            table().column_mass(panel.w, ng, 1, sums)
            table().weighted_sum(panel.X, ng, d, &self.zeros[0], panel.w, EMC_GROUP, sums + 1)
            table().weighted_gram(panel.X, ng, d, &self.zeros[0], panel.w, EMC_GROUP, sums + 1 + d)
        return EMC_OK

    cdef void first_order(self, emc_panel *panel, Py_ssize_t c, const double *column, double *stats) noexcept nogil:
        """Add the sums of a column, and of it times the rows, to the first-order part of state c."""
        cdef Py_ssize_t ng = padded(panel.n) // EMC_GROUP
        table().column_mass(column, ng, 1, stats + self.k + 1 + c)
        table().weighted_sum(panel.X, ng, self.d, &self.zeros[0], column, EMC_GROUP,
                             stats + 2 * self.k + c * self.d)

    cdef int posterior_dot(self, emc_panel *panel, const double *resp, double *logp_dot, double *stats_dot,
                           double *work) noexcept nogil:
        # The work of `posterior` is still there. With s the derivative of log(pi_c p(x | c)), that of h_c is
        # h_c (s_c - sum_l h_l s_l).
        cdef Py_ssize_t g, c, i, at, v = panel.direction, k = self.k, ng = padded(panel.n) // EMC_GROUP, stride = k * EMC_GROUP
        cdef const double *logs = work
        cdef const double *prior = work + ng * stride
        cdef double *moves = work + 2 * ng * stride
        cdef double *mean = work + 3 * ng * stride
        cdef double *column = mean + ng * EMC_GROUP
        cdef const double *w
        cdef double value = 0.0
        if v >= self.n_tangents:
            return EMC_NOT_PROVIDED
        for c in range(k - 1):
            table().affine(panel.X, ng, self.d, &self.slope_moves[v, c, 0], self.offset_moves[v, c], moves + c * EMC_GROUP,
                           stride)
        for g in range(ng):
            w = panel.w + g * EMC_GROUP
            for i in range(EMC_GROUP):
                moves[g * stride + (k - 1) * EMC_GROUP + i] = 0.0
            # Of the logarithms of the weights.
            self.centre(prior + g * stride, moves + g * stride, w, mean)
            for c in range(k):
                for i in range(EMC_GROUP):
                    at = g * stride + c * EMC_GROUP + i
                    logp_dot[at] += moves[at] - mean[i]
            self.centre(resp + g * stride, logp_dot + g * stride, w, mean)
            for c in range(k):
                for i in range(EMC_GROUP):
                    at = g * stride + c * EMC_GROUP + i
                    logp_dot[at] = resp[at] * (logp_dot[at] - mean[i]) if resp[at] != 0 else 0.0
                    if logp_dot[at] != 0:
                        value += logp_dot[at] * logs[at]
        table().column_mass(logp_dot, ng, k, stats_dot)
        stats_dot[k] += value
        for c in range(k - 1):
            for g in range(ng):
                w = panel.w + g * EMC_GROUP
                self.centre(prior + g * stride, moves + g * stride, w, mean)
                for i in range(EMC_GROUP):
                    at = g * stride + c * EMC_GROUP + i
                    column[g * EMC_GROUP + i] = 0.0
                    if w[i] > 0:
                        column[g * EMC_GROUP + i] = (logp_dot[at] - prior[at] * (moves[at] - mean[i])
                                                     + 0.5 * w[i] * (moves[at] - self.average(moves + g * stride + i)))
            self.first_order(panel, c, column, stats_dot)
        return EMC_OK

    cdef double average(self, const double *moves) noexcept nogil:
        """The mean over the states of what moves in one row."""
        cdef double total = 0.0
        cdef Py_ssize_t c
        for c in range(self.k):
            total += moves[c * EMC_GROUP]
        return total / self.k

    cdef void centre(self, const double *r, const double *a, const double *w, double *mean) noexcept nogil:
        """mean = sum_c r_c a_c / w, for the rows of a group."""
        cdef Py_ssize_t c, i
        for i in range(EMC_GROUP):
            mean[i] = 0.0
        for c in range(self.k):
            for i in range(EMC_GROUP):
                if r[c * EMC_GROUP + i] != 0:
                    mean[i] += r[c * EMC_GROUP + i] * a[c * EMC_GROUP + i]
        for i in range(EMC_GROUP):
            mean[i] = mean[i] / w[i] if w[i] > 0 else 0.0
