"""Gaussian emissions. Squared distances are of ``L (x - mu)`` and statistics about ``mu``: nothing cancels, however far the
components lie from the origin or from each other.
"""

import numpy as np

from emcore.kernels._base cimport EMC_ALIGN, EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table
from libc.string cimport memcpy


cdef inline void lanes_fill(double *y, double a) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(EMC_GROUP):
        y[i] = a


cdef enum:
    BATCH = 64               # derivatives of a row, components x directions, that are computed at a time
    CHUNK = 2048             # numbers of whitened rows that are whitened at a time: half of the first cache

cdef double LARGEST = 1e300

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
    cdef const unsigned char[:, ::1] moves  # whether a component's density depends on a direction

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
            self.moves = (np.any(self.slopes, axis=2) | np.any(self.curves, axis=2)).astype(np.uint8)

    cdef const double *curve(self, Py_ssize_t direction, Py_ssize_t c) noexcept nogil:
        return &self.curves[direction, c if self.factors.shape[0] > 1 else 0, 0]

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # Statistics about a held origin are linear in the responsibilities and depend on nothing else.
        return self.accumulate(panel, resp_dot, stats_dot, work)

    def features(self):
        """Return what log-densities are linear in along the directions, and their coefficients: see `information`.

        Returns
        -------
        name : str
        means : ndarray (k, d)
        factors : ndarray (k or 1, ...)
        coefficients : ndarray (m, k, F)
        """
        curves = np.broadcast_to(self.curves, (self.n_tangents, self.k, self.curves.shape[2]))
        coefficients = np.concatenate([np.asarray(self.offsets)[:, :, None], self.slopes, curves], axis=2)
        return self.kind_of_features, self.means, self.factors, coefficients

    cdef const double *factor(self, Py_ssize_t c) noexcept nogil:
        return &self.factors[c, 0] if self.factors.shape[0] > 1 else &self.factors[0, 0]

    cdef void counts(self, emc_panel *panel, const double *resp, double *stats) noexcept nogil:
        cdef Py_ssize_t ng = padded(panel.n) // EMC_GROUP
        table().column_mass(resp, ng, self.k, stats)
        table().column_mass(resp, ng, self.k, stats + self.k)


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

    # Work, with tangents: [which batch | whitened rows of a chunk | their squares | derivatives, a packed array a direction].

    kind_of_features = "products"

    def from_features(self, moved):
        """Return statistics (m, n_stats) of sums of features (m, k, F)."""
        from emcore.kernels import gaussian_matrices

        return gaussian_matrices.from_whitened(self.factors, moved, self.pooled)

    cdef Py_ssize_t batch(self) noexcept nogil:
        return max(1, min(self.n_tangents, BATCH // self.k))

    cdef Py_ssize_t chunk(self) noexcept nogil:
        """Groups that are whitened at a time."""
        return max(1, CHUNK // (self.d * EMC_GROUP))

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        if self.n_tangents == 0:
            return 0
        return EMC_ALIGN // 8 + self.chunk() * (self.d + 1) * EMC_GROUP + self.batch() * padded(n) * self.k

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        if panel.n_directions > 0 and self.n_tangents > 0:
            self.batch_dot(panel, 0, logp, work)
            return EMC_OK
        for c in range(self.k):
            table().sqdist_tri(panel.X, ng, self.d, &self.means[c, 0], self.factor(c), self.log_norm[c], -0.5,
                               logp + c * EMC_GROUP, self.k * EMC_GROUP)
        return EMC_OK

    cdef void batch_dot(self, emc_panel *panel, Py_ssize_t batch, double *logp, double *work) noexcept nogil:
        """Put the derivatives of a batch of directions into work, and log-densities into logp where that is not NULL.

        A row is whitened once for all of them.
        """
        cdef Py_ssize_t ng = padded(panel.n) // EMC_GROUP, chunk = self.chunk(), stride = self.k * EMC_GROUP
        cdef Py_ssize_t c, g, i, v, groups, there, first = batch * self.batch()
        cdef Py_ssize_t last = min(first + self.batch(), self.n_tangents)
        cdef double *Y = work + EMC_ALIGN // 8
        cdef double *squares = Y + chunk * self.d * EMC_GROUP
        cdef double *dots = squares + chunk * EMC_GROUP
        cdef const double *X
        work[0] = <double> batch
        for i in range((ng + chunk - 1) // chunk):
            g = i * chunk
            groups, X = min(chunk, ng - g), panel.X + g * self.d * EMC_GROUP
            for c in range(self.k):
                there = (g * self.k + c) * EMC_GROUP
                table().whiten_tri(X, groups, self.d, &self.means[c, 0], self.factor(c), self.log_norm[c], -0.5, Y,
                                   squares if logp == NULL else logp + there, EMC_GROUP if logp == NULL else stride)
                for v in range(first, last):
                    if self.moves[v, c]:
                        table().quadratic_tri(Y, groups, self.d, self.offsets[v, c], &self.slopes[v, c, 0],
                                              self.curve(v, c), dots + (v - first) * ng * stride + there, stride)

    cdef const double *derivatives(self, emc_panel *panel, double *work) noexcept nogil:
        """Return the derivatives along the panel's direction, packed; where a component does not move they are not set."""
        cdef Py_ssize_t v = panel.direction
        if work[0] != <double> (v // self.batch()):
            self.batch_dot(panel, v // self.batch(), NULL, work)
        return (work + EMC_ALIGN // 8 + self.chunk() * (self.d + 1) * EMC_GROUP
                + v % self.batch() * padded(panel.n) * self.k)

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t c, g, ng = padded(panel.n) // EMC_GROUP, v = panel.direction
        cdef const double *dots
        if v >= self.n_tangents:
            return EMC_NOT_PROVIDED
        dots = self.derivatives(panel, work)
        for c in range(self.k):
            for g in range(ng):
                if self.moves[v, c]:
                    memcpy(logp_dot + (g * self.k + c) * EMC_GROUP, dots + (g * self.k + c) * EMC_GROUP, 8 * EMC_GROUP)
                else:
                    lanes_fill(logp_dot + (g * self.k + c) * EMC_GROUP, self.offsets[v, c])
        return EMC_OK

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        cdef double *sums = stats + 2 * self.k
        cdef double *scatter = sums + self.k * self.d
        self.counts(panel, resp, stats)
        for c in range(self.k):
            table().weighted_moments(panel.X, ng, self.d, &self.means[c, 0], resp + c * EMC_GROUP, self.k * EMC_GROUP,
                                     sums + c * self.d, scatter if self.pooled else scatter + c * self.n_second)
        return EMC_OK


cdef class StudentTri(GaussianTri):
    """Student's t with full or tied scale matrices: Gaussians whose precision is multiplied by a gamma variable u of mean 1.

    With delta the squared length of the whitened residual, E u = (dof + d) / (dof + delta). Statistics about the means:
    ``[count k | mass k | sum k*d | scatter m*d*(d+1)/2 | spread k]``: count and spread, of log(1 + delta / dof), are sums of
    responsibilities h, all others of h E u.

    Parameters
    ----------
    means, factors, log_norm, shift, scale, pooled, tangents : as in `GaussianTri`
    dof : float
        Degrees of freedom.
    """
    cdef double dof

    def __init__(self, means, factors, log_norm, shift, scale, bint pooled=False, tangents=None, *, double dof):
        GaussianTri.__init__(self, means, factors, log_norm, shift, scale, pooled, tangents)
        self.dof = dof
        self.n_stats += self.k

    @property
    def features(self):
        raise AttributeError("the log-density of Student's t is linear in no features")

    # Work: [that of `GaussianTri` | 1 + delta / dof | its logarithm | weights of the statistics], each of the three packed.

    cdef Py_ssize_t inherited(self, Py_ssize_t n) noexcept nogil:
        return (GaussianTri.work_size(self, n) + EMC_ALIGN // 8 - 1) // (EMC_ALIGN // 8) * (EMC_ALIGN // 8)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return self.inherited(n) + 3 * padded(n) * self.k

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t c, g, i, at, ng = padded(panel.n) // EMC_GROUP, size = ng * EMC_GROUP * self.k
        cdef double half = 0.5 * (self.dof + self.d)
        cdef double *ratio = work + self.inherited(panel.n)
        cdef double *logs = ratio + size
        for c in range(self.k):
            table().sqdist_tri(panel.X, ng, self.d, &self.means[c, 0], self.factor(c), 1.0, 1.0 / self.dof,
                               ratio + c * EMC_GROUP, self.k * EMC_GROUP)
        for i in range(size):
            if ratio[i] > LARGEST:  # as infinity would make 0 x infinity
                ratio[i] = LARGEST
        table().vlog(ratio, logs, size)
        for g in range(ng):
            for c in range(self.k):
                at = (g * self.k + c) * EMC_GROUP
                for i in range(EMC_GROUP):
                    logp[at + i] = self.log_norm[c] - half * logs[at + i]
        if panel.n_directions > 0 and self.n_tangents > 0:
            work[0] = -1.0
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        """Put the derivatives there: of the Gaussian's, -tr C + slope'y + y'Cy, the part that comes from delta takes E u."""
        cdef Py_ssize_t c, g, i, at, ng = padded(panel.n) // EMC_GROUP
        cdef double most = (self.dof + self.d) / self.dof, offset
        cdef const double *ratio = work + self.inherited(panel.n)
        cdef int code = GaussianTri.log_density_dot(self, panel, logp_dot, work)
        if code != EMC_OK:
            return code
        for c in range(self.k):
            offset = self.offsets[panel.direction, c]
            for g in range(ng):
                at = (g * self.k + c) * EMC_GROUP
                for i in range(EMC_GROUP):
                    logp_dot[at + i] = offset + most / ratio[at + i] * (logp_dot[at + i] - offset)
        return EMC_OK

    cdef void sums(self, emc_panel *panel, const double *count, const double *mass, double *stats) noexcept nogil:
        """Add all statistics but the spread."""
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        cdef double *total = stats + 2 * self.k
        cdef double *scatter = total + self.k * self.d
        table().column_mass(count, ng, self.k, stats)
        table().column_mass(mass, ng, self.k, stats + self.k)
        for c in range(self.k):
            table().weighted_moments(panel.X, ng, self.d, &self.means[c, 0], mass + c * EMC_GROUP, self.k * EMC_GROUP,
                                     total + c * self.d, scatter if self.pooled else scatter + c * self.n_second)

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t i, ng = padded(panel.n) // EMC_GROUP, size = ng * EMC_GROUP * self.k
        cdef double most = (self.dof + self.d) / self.dof
        cdef const double *ratio = work + self.inherited(panel.n)
        cdef const double *logs = ratio + size
        cdef double *weighted = work + self.inherited(panel.n) + 2 * size
        for i in range(size):
            weighted[i] = resp[i] * (most / ratio[i])
        self.sums(panel, resp, weighted, stats)
        for i in range(size):
            weighted[i] = resp[i] * logs[i]
        table().column_mass(weighted, ng, self.k, stats + self.n_stats - self.k)
        return EMC_OK

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # delta' / (dof + delta) is -2 / (dof + d) times the part of the log-density's derivative that comes from delta.
        cdef Py_ssize_t c, g, i, at, v = panel.direction, ng = padded(panel.n) // EMC_GROUP, size = ng * EMC_GROUP * self.k
        cdef double most = (self.dof + self.d) / self.dof, offset, moved
        cdef double *ratio = work + self.inherited(panel.n)
        cdef double *logs = ratio + size
        cdef double *weighted = logs + size
        cdef const double *dots = self.derivatives(panel, work)
        for c in range(self.k):
            offset = self.offsets[v, c]
            for g in range(ng):
                at = (g * self.k + c) * EMC_GROUP
                for i in range(EMC_GROUP):
                    moved = 2.0 * (dots[at + i] - offset) / (self.dof * ratio[at + i]) if self.moves[v, c] else 0.0
                    weighted[at + i] = most / ratio[at + i] * (resp_dot[at + i] + resp[at + i] * moved)
        self.sums(panel, resp_dot, weighted, stats_dot)
        for c in range(self.k):
            offset = self.offsets[v, c]
            for g in range(ng):
                at = (g * self.k + c) * EMC_GROUP
                for i in range(EMC_GROUP):
                    moved = 2.0 * (dots[at + i] - offset) / (self.dof * ratio[at + i]) if self.moves[v, c] else 0.0
                    weighted[at + i] = resp_dot[at + i] * logs[at + i] - resp[at + i] * moved
        table().column_mass(weighted, ng, self.k, stats_dot + self.n_stats - self.k)
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

    kind_of_features = "squares"

    def from_features(self, moved):
        """Return statistics (m, n_stats) of sums of features (m, k, F)."""
        d, spreads = self.d, 1.0 / np.asarray(self.factors)
        second = moved[:, :, 1 + d:] * spreads * spreads
        if self.pooled:
            second = second.sum(axis=2)
        parts = moved[:, :, 0], moved[:, :, 0], moved[:, :, 1:1 + d] * spreads, second
        return np.concatenate([part.reshape(len(moved), -1) for part in parts], axis=1)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return self.d

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t c, ng = padded(panel.n) // EMC_GROUP
        for c in range(self.k):
            table().sqdist_diag(panel.X, ng, self.d, &self.means[c, 0], self.factor(c), self.log_norm[c], -0.5,
                                logp + c * EMC_GROUP, self.k * EMC_GROUP)
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t c, g, ng = padded(panel.n) // EMC_GROUP, v = panel.direction
        if v >= self.n_tangents:
            return EMC_NOT_PROVIDED
        for c in range(self.k):
            if self.moves[v, c]:
                table().quadratic_diag(panel.X, ng, self.d, &self.means[c, 0], self.factor(c), self.offsets[v, c],
                                       &self.slopes[v, c, 0], self.curve(v, c), logp_dot + c * EMC_GROUP,
                                       self.k * EMC_GROUP)
            else:
                for g in range(ng):
                    lanes_fill(logp_dot + (g * self.k + c) * EMC_GROUP, self.offsets[v, c])
        return EMC_OK

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t c, j, ng = padded(panel.n) // EMC_GROUP, stride = self.k * EMC_GROUP
        cdef double *squares = stats + self.k * (2 + self.d)
        self.counts(panel, resp, stats)
        for c in range(self.k):
            table().weighted_sum(panel.X, ng, self.d, &self.means[c, 0], resp + c * EMC_GROUP, stride,
                                 stats + 2 * self.k + c * self.d)
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
