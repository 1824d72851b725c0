"""Gaussian emissions of rows some of whose columns are missing (NaN), with full or tied covariances.

With o the observed and m the missing columns of a row, z the row less the mean and ``u = S_oo^-1 z_o``: its density is that of
z_o, and given it the missing columns have mean ``S_mo u`` and covariance ``S_mm - S_mo S_oo^-1 S_om``. Rows of a panel that
miss the same columns are taken together: a factorisation is one a pattern, component and panel.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Emission, emc_panel, padded, table
from libc.math cimport NAN, log, sqrt
from libc.stdint cimport uint64_t
from libc.stdlib cimport qsort

cdef double LOG_2PI = 1.8378770664093453

cdef struct Row:
    uint64_t key  # rows of one pattern have one key
    Py_ssize_t row


cdef int by_key(const void *a, const void *b) noexcept nogil:
    cdef const Row *p = <const Row *> a
    cdef const Row *q = <const Row *> b
    if p.key != q.key:
        return -1 if p.key < q.key else 1
    return -1 if p.row < q.row else 1


cdef inline Py_ssize_t place(Py_ssize_t i, Py_ssize_t j, Py_ssize_t d) noexcept nogil:
    """Where column j of row i stands in a packed array of d columns."""
    return (i // EMC_GROUP * d + j) * EMC_GROUP + i % EMC_GROUP


cdef inline double value(const emc_panel *panel, const double *response, Py_ssize_t i, Py_ssize_t j,
                         Py_ssize_t d) noexcept nogil:
    """Column j of d of row i, in frame units: those beyond the columns of X are responses, which come as they are."""
    cdef Py_ssize_t m = d - panel.d
    if j < panel.d:
        return panel.X[place(i, j, panel.d)]
    j -= panel.d
    return (panel.aux[place(i, j, m)] - response[j]) * response[m + j]


cdef class MissingGaussian(Emission):
    """Gaussians with full or tied covariances, of what is observed of each row.

    Statistics about the means: ``[count k | mass k | sum k*d | scatter m*d*(d+1)/2]``, expectations given what is observed;
    lower triangles row by row, m = k, or 1 where pooled (tied). They are those of `GaussianTri` where nothing is missing.

    Parameters
    ----------
    means : ndarray (k, d), in frame units
    covariances : ndarray (k or 1, d, d)
    log_scale : ndarray (d,)
        What a log-density in user units has more for each observed column.
    shift, scale : ndarray (d,)
        The frame.
    tangents : tuple of ndarray, optional
        Of means (v, k, d) and covariances (v, k or 1, d, d), along v directions.
    n_responses : int
        How many of the columns, the last ones, are the responses of a block and not columns of its rows.
    """
    cdef const double[:, ::1] means
    cdef const double[:, :, ::1] covariances
    cdef const double[::1] log_scale
    cdef const double[:, :, ::1] mean_moves
    cdef const double[:, :, :, ::1] moves
    cdef double[::1] zeros
    cdef const double[::1] response  # shifts and scales of the responses
    cdef Py_ssize_t n_columns, n_second, n_tangents
    cdef bint pooled

    def __init__(self, means, covariances, log_scale, shift, scale, bint pooled=False, tangents=None,
                 Py_ssize_t n_responses=0):
        self.means = np.ascontiguousarray(means, dtype=np.float64)
        self.covariances = np.ascontiguousarray(covariances, dtype=np.float64)
        self.log_scale, shift, scale = (np.ascontiguousarray(a, dtype=np.float64) for a in (log_scale, shift, scale))
        self.k, self.n_columns, self.n_aux, self.pooled = self.means.shape[0], self.means.shape[1], n_responses, pooled
        cdef Py_ssize_t columns = self.n_columns
        self.n_second = columns * (columns + 1) // 2
        self.n_stats = self.k * (2 + columns) + (1 if pooled else self.k) * self.n_second
        self.zeros = np.zeros(columns)
        if np.shape(covariances) != (1 if pooled else self.k, columns, columns):
            raise ValueError(f"covariances must have shape ({1 if pooled else self.k}, {columns}, {columns})")
        if not len(self.log_scale) == len(shift) == len(scale) == columns:
            raise ValueError(f"log_scale, shift and scale must have shape ({columns},)")
        if not 0 <= n_responses < columns:
            raise ValueError(f"n_responses must be from 0 to {columns - 1}, got {n_responses}")
        self.d = columns - n_responses
        self.shift, self.scale = shift[:self.d], scale[:self.d]
        self.response = np.concatenate([shift[self.d:], scale[self.d:], [0.0]])  # never empty
        self.n_tangents = 0
        if tangents is not None:
            self.mean_moves, self.moves = (np.ascontiguousarray(a, dtype=np.float64) for a in tangents)
            self.n_tangents = self.mean_moves.shape[0]
            if (np.shape(tangents[0])[1:] != np.shape(means) or np.shape(tangents[1])[1:] != np.shape(covariances)
                    or self.moves.shape[0] != self.n_tangents):
                raise ValueError("tangents must have the shapes of means and covariances, one a direction")

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        # Rows less the means with expectations for what is missing, and u for what is observed; which row comes when;
        # one pattern and its matrices.
        cdef Py_ssize_t d = self.n_columns
        return 2 * padded(n) * d * self.k + 2 * padded(n) + d + 4 * d * d + 4 * d

    cdef double *filled(self, emc_panel *panel, Py_ssize_t c, double *work) noexcept nogil:
        return work + c * padded(panel.n) * self.n_columns

    cdef double *weighed(self, emc_panel *panel, Py_ssize_t c, double *work) noexcept nogil:
        return work + (self.k + c) * padded(panel.n) * self.n_columns

    cdef Row *order(self, emc_panel *panel, double *work) noexcept nogil:
        return <Row *> (work + 2 * padded(panel.n) * self.n_columns * self.k)

    cdef double *scratch(self, emc_panel *panel, double *work) noexcept nogil:
        return <double *> (self.order(panel, work) + padded(panel.n))

    cdef const double *covariance(self, Py_ssize_t c) noexcept nogil:
        return &self.covariances[0 if self.pooled else c, 0, 0]

    cdef void sort_rows(self, emc_panel *panel, Row *order) noexcept nogil:
        """Put rows that miss the same columns next to each other."""
        cdef Py_ssize_t i, j, d = self.n_columns
        cdef const double *response = &self.response[0]
        cdef uint64_t key
        cdef double x
        for i in range(panel.n):
            key = 1469598103934665603ULL  # FNV-1a, by columns
            for j in range(d):
                x = value(panel, response, i, j, d)
                key = (key ^ <uint64_t> (1 + (x != x))) * 1099511628211ULL
            order[i].key, order[i].row = key, i
        qsort(order, panel.n, sizeof(Row), by_key)

    cdef Py_ssize_t pattern(self, emc_panel *panel, const Row *order, Py_ssize_t first, int *list,
                            Py_ssize_t *observed) noexcept nogil:
        """List the observed columns and then the missing ones of the rows from `first` on; return where other rows begin."""
        cdef Py_ssize_t j, n = 0, last, d = self.n_columns
        cdef const double *response = &self.response[0]
        cdef double x, y
        for j in range(d):
            x = value(panel, response, order[first].row, j, d)
            if x == x:
                list[n] = j
                n += 1
        observed[0] = n
        for j in range(d):
            x = value(panel, response, order[first].row, j, d)
            if x != x:
                list[n] = j
                n += 1
        last = first + 1
        while last < panel.n and order[last].key == order[first].key:
            for j in range(d):
                x, y = value(panel, response, order[first].row, j, d), value(panel, response, order[last].row, j, d)
                if (x != x) != (y != y):
                    return last
            last += 1
        return last

    cdef double factor(self, const double *S, const int *list, Py_ssize_t n, double *L) noexcept nogil:
        """Cholesky factor L (d, d) of the observed block; return its log-determinant, NaN where there is none."""
        cdef Py_ssize_t i, j, m, d = self.n_columns
        cdef double a, log_det = 0.0
        for i in range(n):
            for j in range(i + 1):
                a = S[list[i] * d + list[j]]
                for m in range(j):
                    a -= L[i * d + m] * L[j * d + m]
                if i == j:
                    if not a > 0:
                        return NAN
                    L[i * d + i] = sqrt(a)
                    log_det += log(a)
                else:
                    L[i * d + j] = a / L[j * d + j]
        return log_det

    cdef void solve(self, const double *L, Py_ssize_t n, double *y, bint forward, bint backward) noexcept nogil:
        """Solve L y' = y, L' y' = y or both, in place."""
        cdef Py_ssize_t i, j, d = self.n_columns
        if forward:
            for i in range(n):
                for j in range(i):
                    y[i] -= L[i * d + j] * y[j]
                y[i] /= L[i * d + i]
        if backward:
            for i in range(n - 1, -1, -1):
                for j in range(i + 1, n):
                    y[i] -= L[j * d + i] * y[j]
                y[i] /= L[i * d + i]

    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil:
        cdef Py_ssize_t c, i, j, m, at, row, n, first, last, d = self.n_columns, k = self.k
        cdef Row *order = self.order(panel, work)
        cdef double *L = self.scratch(panel, work)
        cdef double *y = L + 4 * d * d
        cdef int *list = <int *> (y + 4 * d)
        cdef double *z
        cdef double *u
        cdef const double *S
        cdef const double *response = &self.response[0]
        cdef double constant, log_det, square
        self.sort_rows(panel, order)
        for i in range(padded(panel.n)):
            for c in range(k):
                logp[place(i, c, k)] = 0.0
        for i in range(2 * k * padded(panel.n) * d):
            work[i] = 0.0
        first = 0
        while first < panel.n:
            last = self.pattern(panel, order, first, list, &n)
            constant = -0.5 * LOG_2PI * n
            for i in range(n):
                constant += self.log_scale[list[i]]
            for c in range(k):
                S, z, u = self.covariance(c), self.filled(panel, c, work), self.weighed(panel, c, work)
                log_det = self.factor(S, list, n, L)
                for at in range(first, last):
                    row = order[at].row
                    square = 0.0
                    for i in range(n):
                        y[i] = value(panel, response, row, list[i], d) - self.means[c, list[i]]
                        if panel.w[row] > 0:  # a row of weight 0 may hold anything
                            z[place(row, list[i], d)] = y[i]
                    self.solve(L, n, y, True, False)
                    for i in range(n):
                        square += y[i] * y[i]
                    logp[place(row, c, k)] = constant - 0.5 * (log_det + square)
                    if panel.w[row] > 0 and (n < d or self.n_tangents > 0):
                        self.solve(L, n, y, False, True)
                        for i in range(n):
                            u[place(row, list[i], d)] = y[i]
                        for j in range(n, d):
                            for m in range(n):
                                z[place(row, list[j], d)] += S[list[j] * d + list[m]] * y[m]
            first = last
        return EMC_OK

    cdef void conditional(self, const double *S, const double *L, const int *list, Py_ssize_t n, double *K) noexcept nogil:
        """K (d, d): rows of missing columns j hold ``S_oo^-1 S_oj``."""
        cdef Py_ssize_t i, j, d = self.n_columns
        for j in range(n, d):
            for i in range(n):
                K[j * d + i] = S[list[i] * d + list[j]]
            self.solve(L, n, K + j * d, True, True)

    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil:
        cdef Py_ssize_t c, i, j, m, at, n, first, last, d = self.n_columns, k = self.k, ng = padded(panel.n) // EMC_GROUP
        cdef Row *order = self.order(panel, work)
        cdef double *L = self.scratch(panel, work)
        cdef double *K = L + d * d
        cdef int *list = <int *> (L + 4 * d * d + 4 * d)
        cdef double *scatter = stats + k * (2 + d)
        cdef double *into
        cdef const double *S
        cdef double total, entry
        table().column_mass(resp, ng, k, stats)
        table().column_mass(resp, ng, k, stats + k)
        for c in range(k):
            into = scatter if self.pooled else scatter + c * self.n_second
            table().weighted_sum(self.filled(panel, c, work), ng, d, &self.zeros[0], resp + c * EMC_GROUP, k * EMC_GROUP,
                                 stats + 2 * k + c * d)
            table().weighted_gram(self.filled(panel, c, work), ng, d, &self.zeros[0], resp + c * EMC_GROUP, k * EMC_GROUP, into)
        first = 0
        while first < panel.n:
            last = self.pattern(panel, order, first, list, &n)
            for c in range(k):
                total = 0.0
                for at in range(first, last):
                    total += resp[place(order[at].row, c, k)]
                if n == d or total == 0:
                    continue
                S, into = self.covariance(c), scatter if self.pooled else scatter + c * self.n_second
                self.factor(S, list, n, L)
                self.conditional(S, L, list, n, K)
                for i in range(n, d):
                    for j in range(n, i + 1):  # the missing columns ascend
                        entry = S[list[i] * d + list[j]]
                        for m in range(n):
                            entry -= K[i * d + m] * S[list[m] * d + list[j]]
                        into[list[i] * (list[i] + 1) // 2 + list[j]] += total * entry
            first = last
        return EMC_OK

    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil:
        cdef Py_ssize_t c, i, j, at, row, n, first, last, v = panel.direction, d = self.n_columns, k = self.k
        cdef Row *order = self.order(panel, work)
        cdef double *L = self.scratch(panel, work)
        cdef double *y = L + 4 * d * d
        cdef int *list = <int *> (y + 4 * d)
        cdef const double *V
        cdef const double *u
        cdef double trace, change
        if v >= self.n_tangents:
            return EMC_NOT_PROVIDED
        for i in range(padded(panel.n)):
            for c in range(k):
                logp_dot[place(i, c, k)] = 0.0
        first = 0
        while first < panel.n:
            last = self.pattern(panel, order, first, list, &n)
            for c in range(k):
                V, u = &self.moves[v, 0 if self.pooled else c, 0, 0], self.weighed(panel, c, work)
                self.factor(self.covariance(c), list, n, L)
                trace = 0.0
                for j in range(n):
                    for i in range(n):
                        y[i] = V[list[i] * d + list[j]]
                    self.solve(L, n, y, True, True)
                    trace += y[j]
                for at in range(first, last):
                    row = order[at].row
                    change = -0.5 * trace
                    for i in range(n):
                        y[i] = u[place(row, list[i], d)]
                    for i in range(n):
                        change += y[i] * self.mean_moves[v, c, list[i]]
                        for j in range(n):
                            change += 0.5 * y[i] * y[j] * V[list[i] * d + list[j]]
                    logp_dot[place(row, c, k)] = change
            first = last
        return EMC_OK

    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil:
        # Responsibilities move, and so does what a row expects of its missing columns.
        cdef Py_ssize_t c, i, j, m, at, row, n, first, last, v = panel.direction, d = self.n_columns, k = self.k
        cdef Row *order = self.order(panel, work)
        cdef double *L = self.scratch(panel, work)
        cdef double *K = L + d * d
        cdef double *B = K + d * d
        cdef double *y = L + 4 * d * d
        cdef double *move = y + d
        cdef int *list = <int *> (y + 4 * d)
        cdef double *scatter = stats_dot + k * (2 + d)
        cdef double *into
        cdef const double *S
        cdef const double *V
        cdef const double *z
        cdef const double *u
        cdef double total, r, entry
        cdef int code = self.accumulate(panel, resp_dot, stats_dot, work)
        first = 0
        while code == EMC_OK and first < panel.n:
            last = self.pattern(panel, order, first, list, &n)
            for c in range(k):
                if n == d:
                    continue
                S, V = self.covariance(c), &self.moves[v, 0 if self.pooled else c, 0, 0]
                z, u = self.filled(panel, c, work), self.weighed(panel, c, work)
                into = scatter if self.pooled else scatter + c * self.n_second
                self.factor(S, list, n, L)
                self.conditional(S, L, list, n, K)
                total = 0.0
                for at in range(first, last):
                    row = order[at].row
                    r = resp[place(row, c, k)]
                    if r == 0:
                        continue
                    total += r
                    for i in range(n):  # of u: S_oo^-1 (-mean_o' - V_oo u)
                        y[i] = -self.mean_moves[v, c, list[i]]
                        for j in range(n):
                            y[i] -= V[list[i] * d + list[j]] * u[place(row, list[j], d)]
                    self.solve(L, n, y, True, True)
                    for j in range(d):
                        move[j] = 0.0
                    for j in range(n, d):
                        move[list[j]] = self.mean_moves[v, c, list[j]]
                        for i in range(n):
                            move[list[j]] += (V[list[j] * d + list[i]] * u[place(row, list[i], d)]
                                              + S[list[j] * d + list[i]] * y[i])
                    m = 0
                    for i in range(d):
                        stats_dot[2 * k + c * d + i] += r * move[i]
                        for j in range(i + 1):
                            into[m] += r * (move[i] * z[place(row, j, d)] + move[j] * z[place(row, i, d)])
                            m += 1
                # Of the conditional covariance: (I, -K) V (I, -K)'.
                for i in range(n, d):
                    for m in range(d):
                        B[i * d + m] = V[list[i] * d + list[m]]
                        for j in range(n):
                            B[i * d + m] -= K[i * d + j] * V[list[j] * d + list[m]]
                for i in range(n, d):
                    for j in range(n, i + 1):
                        entry = B[i * d + j]
                        for m in range(n):
                            entry -= B[i * d + m] * K[j * d + m]
                        into[list[i] * (list[i] + 1) // 2 + list[j]] += total * entry
            first = last
        return code
