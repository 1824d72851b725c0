"""Poisson emission: counts in columns that are independent given the component.

``log p = sum_j (x_j log rate_j - rate_j - log x_j!)``: beside a constant of the row a product of the counts with the logarithms
of the rates. The factorials are left out of no sum, so that values are true log-likelihoods.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table
from libc.float cimport DBL_MAX
from libc.math cimport INFINITY, log

cdef enum:
    KNOWN = 256  # factorials below this are in a table; above, Stirling's series is exact to the last digits

cdef double[::1] _log_factorials = np.cumsum(np.log(np.maximum(np.arange(KNOWN, dtype=np.longdouble), 1))).astype(float)
cdef double HALF_LOG_2PI = 0.9189385332046727


cdef inline double log_factorial(double x, const double *known) noexcept nogil:
    """The logarithm of x!, x a whole number >= 0 (DLMF 5.11.1); infinite for what no count can be."""
    cdef double r
    if x < KNOWN:
        return known[<Py_ssize_t> x] if x >= 0 else INFINITY
    if not x <= DBL_MAX:
        return INFINITY
    r = 1.0 / x
    return x * (log(x) - 1.0) + 0.5 * log(x) + HALF_LOG_2PI + r * (1.0 / 12 - r * r * (1.0 / 360 - r * r / 1260))


cdef class Poisson(Emission):
    """Independent Poisson columns. Statistics: ``[count k | log_factorial 1 | sum k*d]``.

    ``log_factorial`` is the sum of ``log x!`` over rows and columns, which belongs to no component. Rows are taken as they
    came: a count has no shift and no scale.

    Parameters
    ----------
    rates : ndarray (k, d)
        At least 0. A rate of 0 gives the count 0 density 1 and all others density 0.
    tangents : ndarray (m, k, d), optional
        Directions of the rates, along which a pass can differentiate.
    """
    cdef const double[:, ::1] rates
    cdef double[:, ::1] log_rates
    cdef double[::1] total  # of the rates of a component
    cdef double[::1] zeros
    cdef unsigned char[::1] has_zero
    cdef const double[:, ::1] offsets       # of the derivative along a direction, offset + slope'x
    cdef const double[:, :, ::1] slopes

    def __init__(self, rates, tangents=None):
        self.rates = np.ascontiguousarray(rates, dtype=np.float64)
        self.k, self.d = self.rates.shape[0], self.rates.shape[1]
        self.n_stats = self.k * (1 + self.d) + 1
        self.n_aux = 0
        there = np.asarray(self.rates) > 0
        # Of -infinity the count 0 would make NaN: no sum of finite terms is as low as this one times a count.
        self.log_rates = np.where(there, np.log(np.where(there, self.rates, 1.0)), -DBL_MAX)
        self.has_zero = (~there.all(axis=1)).astype(np.uint8)
        self.total = np.sum(self.rates, axis=1)
        self.zeros = np.zeros(self.d)
        self.shift, self.scale = self.zeros, np.ones(self.d)
        moves = np.empty((0, self.k, self.d)) if tangents is None else np.asarray(tangents, dtype=np.float64)
        if moves.shape[1:] != there.shape:
            raise ValueError(f"tangents must have shape (m, {self.k}, {self.d}), got {moves.shape}")
        self.offsets = -moves.sum(axis=2)
        self.slopes = np.divide(moves, rates, out=np.zeros(moves.shape), where=there)

    def features(self):
        """Return what log-densities are linear in along the directions, and their coefficients: see `information`."""
        coefficients = np.concatenate([np.asarray(self.offsets)[:, :, None], self.slopes], axis=2)
        return "values", np.zeros((self.k, self.d)), np.ones((1, self.d)), coefficients

    def from_features(self, moved):
        """Return statistics (m, n_stats) of sums of features (m, k, F); factorials stay."""
        m = len(moved)
        return np.concatenate([moved[:, :, 0], np.zeros((m, 1)), moved[:, :, 1:].reshape(m, -1)], axis=1)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return padded(n)

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t g, c, j, i
        cdef const double *x
        cdef const double *known = &_log_factorials[0]
        cdef const double *logs
        cdef double *out
        cdef double *row
        cdef double slope, total
        for g in range(padded(panel.n) // EMC_GROUP):
            row = work + g * EMC_GROUP
            for i in range(EMC_GROUP):
                row[i] = 0.0
            for j in range(self.d):
                x = panel.X + (g * self.d + j) * EMC_GROUP
                for i in range(EMC_GROUP):
                    row[i] += log_factorial(x[i], known)
            for c in range(self.k):
                out = logp + (g * self.k + c) * EMC_GROUP
                logs, total = &self.log_rates[c, 0], self.total[c]
                for i in range(EMC_GROUP):
                    out[i] = -total - row[i]
                for j in range(self.d):
                    x, slope = panel.X + (g * self.d + j) * EMC_GROUP, logs[j]
                    for i in range(EMC_GROUP):
                        out[i] += slope * x[i]
                if self.has_zero[c]:
                    for i in range(EMC_GROUP):
                        if not out[i] > -0.5 * DBL_MAX:
                            out[i] = -INFINITY
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t c, v = panel.direction
        if v >= self.offsets.shape[0]:
            return EMC_NOT_PROVIDED
        for c in range(self.k):
            table().affine(panel.X, padded(panel.n) // EMC_GROUP, self.d, &self.slopes[v, c, 0], self.offsets[v, c],
                           logp_dot + c * EMC_GROUP, self.k * EMC_GROUP)
        return EMC_OK

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # Statistics are linear in the responsibilities. Those of a row move by 0 in all: its factorials stay.
        self.counts_and_sums(panel, resp_dot, stats_dot)
        return EMC_OK

    cdef void counts_and_sums(self, emc_panel *panel, const double *resp, double *stats) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        table().column_mass(resp, ng, self.k, stats)
        for c in range(self.k):
            table().weighted_sum(panel.X, ng, self.d, &self.zeros[0], resp + c * EMC_GROUP, self.k * EMC_GROUP,
                                 stats + self.k + 1 + c * self.d)

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t c, i
        cdef double total = 0.0, mass
        self.counts_and_sums(panel, resp, stats)
        for i in range(panel.n):
            mass = 0.0
            for c in range(self.k):
                mass += resp[(i // EMC_GROUP * self.k + c) * EMC_GROUP + i % EMC_GROUP]
            if mass != 0:  # a row of weight 0 may hold anything
                total += mass * work[i]
        stats[self.k] += total
        return EMC_OK
