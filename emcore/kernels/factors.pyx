"""Factor analysis: rows that are linear in a few standard normal factors, with independent noise in each column.

With ``V = (I + L' Psi^-1 L)^-1`` and ``B = V L' Psi^-1`` the factors of a row have posterior mean ``f = B (x - mu)`` and
covariance V. All of it costs d q multiply-adds a row, never d^2.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table
from libc.string cimport memset


cdef class FactorAnalyzers(Emission):
    """k factor analysers.

    Statistics, expectations given the rows, with z = (1, f) and residuals ``e = x - mean - L f`` about the means and loadings
    of the pass: ``[count k | spread k | factor k*q | gram k*q*(q+1)/2 | sum k*d | cross k*q*d | square k*d]``, the sums of 1,
    ``(q + log det V) / 2``, f, f f' (lower triangles row by row), e, f e', e^2.

    Parameters
    ----------
    means : ndarray (k, d), in frame units
    loadings : ndarray (k, d, q)
    noise : ndarray (k, d)
        Variances.
    projections : ndarray (k, q, d)
        B.
    posteriors : ndarray (k, q, q)
        V.
    log_norm : ndarray (k,)
        Log-densities at the means, in user units.
    shift, scale : ndarray (d,)
        The frame.
    tangents : dict of ndarray, optional
        Of m directions. Derivatives of log-densities: ``offsets`` (m, k) plus ``slopes`` (m, k, d) times e plus ``curves`` (m,
        k, d) times e^2 plus f ``bends`` (m, k, q, d) e. Of f: ``residual`` (m, k, q, d) times e plus ``factor`` (m, k, q, q)
        times f plus ``constant`` (m, k, q). Of V: ``posteriors`` (m, k, q, q), and of log det V: ``log_dets`` (m, k).
    """
    cdef const double[:, ::1] means, precisions
    cdef const double[:, :, ::1] loadings, projections, posteriors
    cdef const double[::1] log_norm, spreads
    cdef Py_ssize_t q, n_gram, n_tangents
    cdef const double[:, ::1] offsets, log_dets
    cdef const double[:, :, ::1] slopes, curves, constants
    cdef const double[:, :, :, ::1] bends, residual_moves, factor_moves, posterior_moves
    cdef const unsigned char[:, ::1] moves  # whether a component depends on a direction
    cdef const unsigned char[:, :, ::1] bent
    cdef double[::1] zeros, ones

    def __init__(self, means, loadings, noise, projections, posteriors, log_norm, shift, scale, tangents=None):
        self.means, self.loadings, self.projections, self.posteriors, self.log_norm, self.shift, self.scale = (
            np.ascontiguousarray(a, dtype=np.float64)
            for a in (means, loadings, projections, posteriors, log_norm, shift, scale)
        )
        self.precisions = 1.0 / np.ascontiguousarray(noise, dtype=np.float64)
        self.k, self.d, self.q, self.n_aux = self.means.shape[0], self.means.shape[1], self.loadings.shape[2], 0
        self.n_gram = self.q * (self.q + 1) // 2
        shapes = {
            "loadings": (self.loadings, (self.k, self.d, self.q)), "noise": (self.precisions, (self.k, self.d)),
            "projections": (self.projections, (self.k, self.q, self.d)),
            "posteriors": (self.posteriors, (self.k, self.q, self.q)), "log_norm": (self.log_norm, (self.k,)),
            "shift": (self.shift, (self.d,)), "scale": (self.scale, (self.d,)),
        }
        for name, (array, shape) in shapes.items():
            if np.shape(array) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {np.shape(array)}")
        self.spreads = 0.5 * (self.q + np.linalg.slogdet(posteriors)[1])
        self.zeros, self.ones = np.zeros(self.d), np.ones(self.d)
        self.n_stats = self.k * (2 + self.q + self.n_gram + (2 + self.q) * self.d)
        self.n_tangents = 0
        if tangents is not None:
            self._along(**{name: np.ascontiguousarray(a, dtype=np.float64) for name, a in tangents.items()})

    def _along(self, offsets, slopes, curves, bends, residual, factor, constant, posteriors, log_dets):
        m, k, d, q = len(offsets), self.k, self.d, self.q
        shapes = (
            (offsets, (m, k)), (slopes, (m, k, d)), (curves, (m, k, d)), (bends, (m, k, q, d)), (residual, (m, k, q, d)),
            (factor, (m, k, q, q)), (constant, (m, k, q)), (posteriors, (m, k, q, q)), (log_dets, (m, k)),
        )
        for array, shape in shapes:
            if array.shape != shape:
                raise ValueError(f"tangents must have {m} times the shapes of what moves, got {array.shape} for {shape}")
        self.offsets, self.slopes, self.curves, self.bends, self.log_dets = offsets, slopes, curves, bends, log_dets
        self.residual_moves, self.factor_moves, self.constants, self.posterior_moves = residual, factor, constant, posteriors
        self.bent = np.any(bends, axis=3).astype(np.uint8)
        self.moves = (np.any(slopes, axis=2) | np.any(curves, axis=2) | np.any(bends, axis=(2, 3))).astype(np.uint8)
        self.n_tangents = m

    # Work: [factors, a packed array a component | weights, 1 + q columns | sums of a component | with tangents: how factors
    # move, one column | residuals, a packed array a component]

    cdef Py_ssize_t n_sums(self) noexcept nogil:
        return (self.q + self.n_gram + (2 + self.q) * self.d + self.q * self.q + EMC_GROUP - 1) // EMC_GROUP * EMC_GROUP

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        cdef Py_ssize_t size = padded(n) * (self.k * self.q + self.q + 1) + self.n_sums()
        return size + padded(n) * (1 + self.k * self.d) if self.n_tangents else size

    cdef double *factors_of(self, Py_ssize_t n, Py_ssize_t c, double *work) noexcept nogil:
        return work + padded(n) * c * self.q

    cdef double *weights_of(self, Py_ssize_t n, double *work) noexcept nogil:
        return work + padded(n) * self.k * self.q

    cdef double *sums_of(self, Py_ssize_t n, double *work) noexcept nogil:
        return self.weights_of(n, work) + padded(n) * (1 + self.q)

    cdef double *moved_of(self, Py_ssize_t n, double *work) noexcept nogil:
        return self.sums_of(n, work) + self.n_sums()

    cdef double *residuals_of(self, Py_ssize_t n, Py_ssize_t c, double *work) noexcept nogil:
        return self.moved_of(n, work) + padded(n) * (1 + c * self.d)

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t c, g, i, j, ng = padded(panel.n) // EMC_GROUP
        cdef double *F
        cdef double *Y = NULL
        for c in range(self.k):
            F = self.factors_of(panel.n, c, work)
            if self.n_tangents:
                Y = self.residuals_of(panel.n, c, work)
            table().factor_scores(panel.X, ng, self.d, self.q, &self.means[c, 0], &self.projections[c, 0, 0],
                                  &self.loadings[c, 0, 0], &self.precisions[c, 0], self.log_norm[c], F, Y,
                                  logp + c * EMC_GROUP, self.k * EMC_GROUP)
        for g in range(ng):  # a row of weight 0 may hold anything
            for i in range(EMC_GROUP):
                if panel.w[g * EMC_GROUP + i] > 0:
                    continue
                for c in range(self.k):
                    F = self.factors_of(panel.n, c, work)
                    for j in range(self.q):
                        F[(g * self.q + j) * EMC_GROUP + i] = 0.0
                    if self.n_tangents:
                        Y = self.residuals_of(panel.n, c, work)
                        for j in range(self.d):
                            Y[(g * self.d + j) * EMC_GROUP + i] = 0.0
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t c, g, i, a, v = panel.direction, ng = padded(panel.n) // EMC_GROUP
        cdef double *moved = self.moved_of(panel.n, work)
        cdef const double *F
        cdef const double *Y
        cdef double *out
        if v >= self.n_tangents:
            return EMC_NOT_PROVIDED
        for c in range(self.k):
            out = logp_dot + c * EMC_GROUP
            if not self.moves[v, c]:
                for g in range(ng):
                    for i in range(EMC_GROUP):
                        out[g * self.k * EMC_GROUP + i] = self.offsets[v, c]
                continue
            F, Y = self.factors_of(panel.n, c, work), self.residuals_of(panel.n, c, work)
            table().quadratic_diag(Y, ng, self.d, &self.zeros[0], &self.ones[0], self.offsets[v, c], &self.slopes[v, c, 0],
                                   &self.curves[v, c, 0], out, self.k * EMC_GROUP)
            for a in range(self.q):
                if not self.bent[v, c, a]:
                    continue
                table().affine(Y, ng, self.d, &self.bends[v, c, a, 0], 0.0, moved, EMC_GROUP)
                for g in range(ng):
                    for i in range(EMC_GROUP):
                        out[g * self.k * EMC_GROUP + i] += moved[g * EMC_GROUP + i] * F[(g * self.q + a) * EMC_GROUP + i]
        return EMC_OK

    # Where the blocks of the statistics of a component begin.

    cdef double *factor_at(self, double *stats, Py_ssize_t c) noexcept nogil:
        return stats + 2 * self.k + c * self.q

    cdef double *gram_at(self, double *stats, Py_ssize_t c) noexcept nogil:
        return stats + self.k * (2 + self.q) + c * self.n_gram

    cdef double *sum_at(self, double *stats, Py_ssize_t c) noexcept nogil:
        return stats + self.k * (2 + self.q + self.n_gram) + c * self.d

    cdef double *cross_at(self, double *stats, Py_ssize_t c) noexcept nogil:
        return stats + self.k * (2 + self.q + self.n_gram + self.d) + c * self.q * self.d

    cdef double *square_at(self, double *stats, Py_ssize_t c) noexcept nogil:
        return stats + self.k * (2 + self.q + self.n_gram + (1 + self.q) * self.d) + c * self.d

    cdef double mass(self, const double *r, Py_ssize_t ng) noexcept nogil:
        """Return the sum of one component's responsibilities."""
        cdef double total = 0.0
        cdef Py_ssize_t g
        for g in range(ng):
            table().column_mass(r + g * self.k * EMC_GROUP, 1, 1, &total)
        return total

    cdef void weigh(self, const double *r, const double *columns, Py_ssize_t m, Py_ssize_t ng, double *out) noexcept nogil:
        """Put the responsibilities r, and r times each of m packed columns, into out, packed."""
        cdef Py_ssize_t g, i, a
        cdef const double *p
        cdef const double *x
        cdef double *y
        for g in range(ng):
            p, x, y = r + g * self.k * EMC_GROUP, columns + g * m * EMC_GROUP, out + g * (1 + m) * EMC_GROUP
            for i in range(EMC_GROUP):
                y[i] = p[i]
            for a in range(m):
                for i in range(EMC_GROUP):
                    y[(1 + a) * EMC_GROUP + i] = p[i] * x[a * EMC_GROUP + i]

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        # About the means alone: what the factors explain is subtracted from the sums.
        cdef Py_ssize_t c, a, b, d = self.d, q = self.q, ng = padded(panel.n) // EMC_GROUP, stride = self.k * EMC_GROUP
        cdef double *weights = self.weights_of(panel.n, work)
        cdef double *factor = self.sums_of(panel.n, work)
        cdef double *gram = factor + q
        cdef double *total = gram + self.n_gram
        cdef double *cross = total + d
        cdef double *square = cross + q * d
        cdef const double *r
        cdef const double *F
        cdef double *out
        cdef double n
        table().column_mass(resp, ng, self.k, stats)
        for c in range(self.k):
            r, F = resp + c * EMC_GROUP, self.factors_of(panel.n, c, work)
            memset(factor, 0, self.n_sums() * sizeof(double))
            n = self.mass(r, ng)
            stats[self.k + c] += n * self.spreads[c]
            self.weigh(r, F, q, ng, weights)
            table().weighted_moments(F, ng, q, &self.zeros[0], r, stride, factor, gram)
            table().weighted_cross(panel.X, ng, d, &self.means[c, 0], weights, 1 + q, total)  # and cross, which is next to it
            table().weighted_squares(panel.X, ng, d, &self.means[c, 0], r, stride, square)
            out = self.factor_at(stats, c)
            for a in range(q):
                out[a] += factor[a]
                for b in range(a + 1):
                    gram[a * (a + 1) // 2 + b] += n * self.posteriors[c, a, b]
            out = self.gram_at(stats, c)
            for a in range(self.n_gram):
                out[a] += gram[a]
            self.residual_sums(c, factor, gram, total, cross, square)
            self.add(c, total, cross, square, stats)
        return EMC_OK

    cdef void residual_sums(self, Py_ssize_t c, const double *factor, const double *gram, double *total, double *cross,
                            double *square) noexcept nogil:
        """Turn sums of rows about the mean into those of residuals: ``x - L f`` for x."""
        cdef Py_ssize_t a, b, j, low, d = self.d, q = self.q
        cdef double load, explained
        for j in range(d):
            for a in range(q):
                load = self.loadings[c, j, a]
                if load == 0:
                    continue
                total[j] -= load * factor[a]
                explained = 0.0
                for b in range(q):
                    low = a * (a + 1) // 2 + b if b <= a else b * (b + 1) // 2 + a
                    explained += self.loadings[c, j, b] * gram[low]
                square[j] += load * (explained - 2.0 * cross[a * d + j])
        for a in range(q):
            for b in range(q):
                low = a * (a + 1) // 2 + b if b <= a else b * (b + 1) // 2 + a
                for j in range(d):
                    cross[a * d + j] -= self.loadings[c, j, b] * gram[low]

    cdef void add(self, Py_ssize_t c, const double *total, const double *cross, const double *square,
                  double *stats) noexcept nogil:
        cdef Py_ssize_t j
        cdef double *out = self.sum_at(stats, c)
        for j in range(self.d):
            out[j] += total[j]
        out = self.cross_at(stats, c)
        for j in range(self.q * self.d):
            out[j] += cross[j]
        out = self.square_at(stats, c)
        for j in range(self.d):
            out[j] += square[j]

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # Responsibilities move, and factors by t with it, residuals about held loadings by -L t.
        cdef Py_ssize_t c, g, i, a, b, j, v = panel.direction, d = self.d, q = self.q, ng = padded(panel.n) // EMC_GROUP
        cdef double *moved = self.moved_of(panel.n, work)
        cdef double *weights = self.weights_of(panel.n, work)
        cdef double *factor = self.sums_of(panel.n, work)
        cdef double *gram = factor + q
        cdef double *total = gram + self.n_gram
        cdef double *cross = total + d
        cdef double *square = cross + q * d
        cdef double *with_factors = square + d  # sums of t f', (q, q)
        cdef const double *r
        cdef const double *F
        cdef const double *Y
        cdef double *out
        cdef double n, load, slope
        self.accumulate(panel, resp_dot, stats_dot, work)
        for c in range(self.k):
            if not self.moves[v, c]:
                continue
            r = resp + c * EMC_GROUP
            F, Y = self.factors_of(panel.n, c, work), self.residuals_of(panel.n, c, work)
            memset(factor, 0, self.n_sums() * sizeof(double))
            n = self.mass(r, ng)
            stats_dot[self.k + c] += 0.5 * n * self.log_dets[v, c]
            for a in range(q):
                table().affine(Y, ng, d, &self.residual_moves[v, c, a, 0], self.constants[v, c, a], moved, EMC_GROUP)
                for b in range(q):
                    slope = self.factor_moves[v, c, a, b]
                    if slope == 0:
                        continue
                    for g in range(ng):
                        for i in range(EMC_GROUP):
                            moved[g * EMC_GROUP + i] += slope * F[(g * q + b) * EMC_GROUP + i]
                for g in range(ng):
                    for i in range(EMC_GROUP):
                        weights[(g * q + a) * EMC_GROUP + i] = moved[g * EMC_GROUP + i] * r[g * self.k * EMC_GROUP + i]
            table().column_mass(weights, ng, q, factor)
            table().weighted_cross(F, ng, q, &self.zeros[0], weights, q, with_factors)
            table().weighted_cross(Y, ng, d, &self.zeros[0], weights, q, cross)
            out = self.factor_at(stats_dot, c)
            for a in range(q):
                out[a] += factor[a]
            out = self.gram_at(stats_dot, c)
            for a in range(q):
                for b in range(a + 1):
                    out[a * (a + 1) // 2 + b] += (
                        with_factors[a * q + b] + with_factors[b * q + a] + n * self.posterior_moves[v, c, a, b]
                    )
            # cross holds sums of t e': twice them are the squares', less L times the others is what it is to be.
            for j in range(d):
                for a in range(q):
                    load = self.loadings[c, j, a]
                    if load == 0:
                        continue
                    total[j] -= load * factor[a]
                    square[j] -= 2.0 * load * cross[a * d + j]
                    for b in range(q):
                        square[j] += n * load * self.loadings[c, j, b] * self.posterior_moves[v, c, a, b]
            for a in range(q):
                for b in range(q):
                    slope = with_factors[b * q + a] + n * self.posterior_moves[v, c, a, b]
                    for j in range(d):
                        cross[a * d + j] -= self.loadings[c, j, b] * slope
            self.add(c, total, cross, square, stats_dot)
        return EMC_OK
