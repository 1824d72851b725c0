"""Emissions whose log-density is linear in the row: counts and zeros and ones, rows that are their own sufficient statistics.

``log p(x | c) = offset_c + slope_c'x + base(x)``, a natural exponential family: Poisson columns have offset ``-sum_j rate_j``,
slopes ``log rate_j`` and base ``-sum_j log x_j!``; Bernoulli columns the logarithms of the odds and no base; the multinomial
offset 0, slopes ``log p_j`` and base ``log n! - sum_j log x_j!``. No base is left out of a sum, so that values are true
log-likelihoods.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table
from emcore.kernels._factorials cimport KNOWN, log_factorials
from libc.math cimport INFINITY, isnan

cdef enum:
    CACHED = 96  # columns of groups that stay in the first cache, 24 KB

cdef enum:
    NO_BASE = 0
    POISSON = 1
    MULTINOMIAL = 2

LOG_FACTORIALS = np.cumsum(np.log(np.maximum(np.arange(KNOWN, dtype=np.longdouble), 1))).astype(float)
cdef const double[::1] _log_factorials = LOG_FACTORIALS
BASES = {"none": NO_BASE, "poisson": POISSON, "multinomial": MULTINOMIAL}


cdef class ExponentialFamily(Emission):
    """Log-densities linear in the row. Statistics: ``[count k | base 1 | sum k*d]``.

    ``base`` is the sum of the bases of the rows, which belongs to no component; ``sum`` is about the origin. Rows are taken as
    they came: a count has no shift and no scale.

    Parameters
    ----------
    offsets : ndarray (k,)
    slopes : ndarray (k, d)
        Finite.
    base : {"none", "poisson", "multinomial"}
    only : ndarray (k, d), optional
        The one value that a component lets a column have, with slope 0, or NaN where it may have any: the limits of the family,
        a rate of 0 for example.
    origin : ndarray (k, d), optional
        By default 0.
    tangents : tuple of ndarray, optional
        Derivatives of offsets (m, k) and slopes (m, k, d) along m directions.
    """
    cdef const double[::1] offsets
    cdef const double[:, ::1] slopes, only, origin
    cdef unsigned char[::1] limited
    cdef int base
    cdef Py_ssize_t n_tangents
    cdef const double[:, ::1] offsets_dot
    cdef const double[:, :, ::1] slopes_dot

    def __init__(self, offsets, slopes, str base, only=None, origin=None, tangents=None):
        self.slopes = np.ascontiguousarray(slopes, dtype=np.float64)
        self.k, self.d = self.slopes.shape[0], self.slopes.shape[1]
        shape = (self.k, self.d)
        self.offsets = np.ascontiguousarray(offsets, dtype=np.float64)
        self.only = np.full(shape, np.nan) if only is None else np.ascontiguousarray(only, dtype=np.float64)
        self.origin = np.zeros(shape) if origin is None else np.ascontiguousarray(origin, dtype=np.float64)
        arrays = {"offsets": (self.offsets, (self.k,)), "only": (self.only, shape), "origin": (self.origin, shape)}
        for name, (array, wanted) in arrays.items():
            if np.shape(array) != wanted:
                raise ValueError(f"{name} must have shape {wanted}, got {np.shape(array)}")
        self.limited = np.any(~np.isnan(self.only), axis=1).astype(np.uint8)
        self.base = BASES[base]
        self.n_stats = self.k * (1 + self.d) + 1
        self.n_aux = 0
        self.shift, self.scale = np.zeros(self.d), np.ones(self.d)
        self.n_tangents = 0
        if tangents is not None:
            self.offsets_dot, self.slopes_dot = (np.ascontiguousarray(a, dtype=np.float64) for a in tangents)
            m = self.n_tangents = self.offsets_dot.shape[0]
            if np.shape(self.offsets_dot) != (m, self.k) or np.shape(self.slopes_dot) != (m, *shape):
                raise ValueError(f"tangents must have shapes (m, {self.k}) and (m, {self.k}, {self.d}), got "
                                 f"{np.shape(self.offsets_dot)} and {np.shape(self.slopes_dot)}")

    def features(self):
        """Return what log-densities are linear in along the directions, and their coefficients: see `information`."""
        slopes = np.asarray(self.slopes_dot)
        at_origin = self.offsets_dot + np.einsum("mcj,cj->mc", slopes, self.origin)
        return "values", np.asarray(self.origin), np.ones((1, self.d)), np.concatenate([at_origin[:, :, None], slopes], axis=2)

    def from_features(self, moved):
        """Return statistics (m, n_stats) of sums of features (m, k, F); bases stay."""
        m = len(moved)
        return np.concatenate([moved[:, :, 0], np.zeros((m, 1)), moved[:, :, 1:].reshape(m, -1)], axis=1)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return padded(n)

    cdef void bases(self, const double *x, double *row) noexcept nogil:
        """The bases of the rows of a group."""
        cdef Py_ssize_t i, j
        cdef const double *known = &_log_factorials[0]
        cdef double[EMC_GROUP] total, logs
        for i in range(EMC_GROUP):
            row[i] = total[i] = 0.0
        for j in range(self.d):
            log_factorials(x + j * EMC_GROUP, logs, EMC_GROUP, known)
            for i in range(EMC_GROUP):
                row[i] -= logs[i]
        if self.base == MULTINOMIAL:
            for j in range(self.d):
                for i in range(EMC_GROUP):
                    total[i] += x[j * EMC_GROUP + i]
            log_factorials(total, logs, EMC_GROUP, known)
            for i in range(EMC_GROUP):
                row[i] += logs[i]

    cdef void bar(self, const double *x, Py_ssize_t c, double *out) noexcept nogil:
        """Give no density to the rows of a group that have another value in a column than the only one there is."""
        cdef Py_ssize_t i, j
        cdef double value
        for j in range(self.d):
            value = self.only[c, j]
            if isnan(value):
                continue
            for i in range(EMC_GROUP):
                if x[j * EMC_GROUP + i] != value:
                    out[i] = -INFINITY

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t g, c, i, ng = padded(panel.n) // EMC_GROUP
        cdef const double *x
        cdef double *out
        cdef double *row
        for g in range(ng):  # all components of a group, whose rows stay in the cache
            x, row = panel.X + g * self.d * EMC_GROUP, work + g * EMC_GROUP
            if self.base != NO_BASE:
                self.bases(x, row)
            for c in range(self.k):
                out = logp + (g * self.k + c) * EMC_GROUP
                table().affine(x, 1, self.d, &self.slopes[c, 0], self.offsets[c], out, EMC_GROUP)
                if self.base != NO_BASE:
                    for i in range(EMC_GROUP):
                        out[i] += row[i]
                if self.limited[c]:
                    self.bar(x, c, out)
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t c, v = panel.direction
        if v >= self.n_tangents:
            return EMC_NOT_PROVIDED
        for c in range(self.k):
            table().affine(panel.X, padded(panel.n) // EMC_GROUP, self.d, &self.slopes_dot[v, c, 0], self.offsets_dot[v, c],
                           logp_dot + c * EMC_GROUP, self.k * EMC_GROUP)
        return EMC_OK

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # Statistics are linear in the responsibilities. Those of a row move by 0 in all: its base stays.
        self.counts_and_sums(panel, resp_dot, stats_dot)
        return EMC_OK

    cdef void counts_and_sums(self, emc_panel *panel, const double *resp, double *stats) noexcept nogil:
        cdef Py_ssize_t c, g = 0, ng = padded(panel.n) // EMC_GROUP, groups = max(1, CACHED // self.d)
        table().column_mass(resp, ng, self.k, stats)
        while g < ng:
            for c in range(self.k):
                table().weighted_sum(panel.X + g * self.d * EMC_GROUP, min(groups, ng - g), self.d, &self.origin[c, 0],
                                     resp + (g * self.k + c) * EMC_GROUP, self.k * EMC_GROUP, stats + self.k + 1 + c * self.d)
            g += groups

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t c, i
        cdef double total = 0.0, mass
        self.counts_and_sums(panel, resp, stats)
        if self.base == NO_BASE:
            return EMC_OK
        for i in range(panel.n):
            mass = 0.0
            for c in range(self.k):
                mass += resp[(i // EMC_GROUP * self.k + c) * EMC_GROUP + i % EMC_GROUP]
            if mass != 0:  # a row of weight 0 may hold anything
                total += mass * work[i]
        stats[self.k] += total
        return EMC_OK
