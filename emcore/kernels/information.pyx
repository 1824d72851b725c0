"""Missing information: the covariance of the complete data's statistics given the rows, from which the derivatives of
expected statistics follow along any number of directions.

With log p(x, z) linear in features T of row and state, expected statistics move along a direction e of the coefficients by
``sum_n Cov(T | x_n) e`` (Louis 1982: that matrix is the missing information). Where directions are many it is cheaper to sum
the matrix, as a product of features that no direction enters, than to sum along each of them.
"""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_OK, Coupled, Emission, Kernel, Latent, emc_panel, padded, table
from emcore.kernels._scratch cimport carve, room

cdef enum:
    PRODUCTS, SQUARES, VALUES
    FEATURES = 98304         # numbers of a panel that stay in the second cache
    MOST_FEATURES = 1448     # whose matrix takes 8 MB a slot
    WORTH = 3                # features a direction from which the matrix is dearer,
    BESIDE = 16              # and features that its other costs amount to


def whole_information(kernel, m):
    """Return the kernel that sums the missing information where this is the cheaper way to m directions, else None."""
    if not isinstance(kernel, Coupled):
        return None
    emission = kernel.emission
    few = WORTH * m < emission.k + BESIDE  # were there one feature
    if few or not (hasattr(kernel.latent, "coefficients") and hasattr(emission, "features")):
        return None
    total = emission.k * emission.features()[3].shape[2]
    return MissingInformation(kernel) if total <= MOST_FEATURES and WORTH * m >= total + BESIDE else None


cdef class MissingInformation(Kernel):
    """The covariance of the features of row and state given the rows, N = k F features, F those of a state.

    A feature of a state is 0 in the others. Features are 1, the whitened row y = L (x - mu), and what is named:

    - "products": y_i y_j, j <= i, row by row
    - "squares": y_j^2, where L is diagonal
    - "values": nothing more

    Statistics, lower triangles row by row: ``[between N*(N+1)/2 | within k*F*(F+1)/2]``, of ``- sum w b b'`` with b the
    expected features, and ``sum w h (1 - h) T T'``, which takes the place of the former's diagonal blocks: nothing cancels.

    Parameters
    ----------
    kernel : Coupled
        Of a mixture, with tangents; the emission must have `features`.
    """
    cdef Latent latent
    cdef Emission emission
    cdef const double[:, ::1] means, factors
    cdef double[::1] zeros
    cdef Py_ssize_t F, N
    cdef int kind
    cdef object coefficients

    def __init__(self, Coupled kernel):
        self.latent, self.emission = kernel.latent, kernel.emission
        self.k, self.d = kernel.k, kernel.d
        self.n_aux, self.n_carry, self.n_sweeps = kernel.n_aux, kernel.n_carry, kernel.n_sweeps
        self.shift, self.scale = kernel.shift, kernel.scale
        name, self.means, self.factors, coefficients = kernel.emission.features()
        self.kind = {"products": PRODUCTS, "squares": SQUARES, "values": VALUES}[name]
        self.coefficients = coefficients.copy()
        self.coefficients[:, :, 0] += kernel.latent.coefficients()
        self.F = coefficients.shape[2]
        self.N = self.k * self.F
        self.zeros = np.zeros(self.N)
        self.n_stats = self.N * (self.N + 1) // 2 + self.k * (self.F * (self.F + 1) // 2)
        self.panel_rows = min(512, max(1, FEATURES // (self.N * EMC_GROUP)) * EMC_GROUP)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        cdef Py_ssize_t rows = padded(n)
        return (room(rows * self.k) + room(self.emission.work_size(n)) + room(self.latent.work_size(n))
                + room(rows * self.d) + 2 * room(rows) + room(rows * self.F) + room(rows * self.N))

    cdef int panel(self, emc_panel *panel, double *stats, double *loglik, double *work) noexcept nogil:
        cdef Py_ssize_t c, g, i, j, m, f, rows = padded(panel.n), ng = rows // EMC_GROUP, F = self.F, N = self.N
        cdef double *at = work
        cdef double *resp = carve(&at, rows * self.k)
        cdef double *emission_work = carve(&at, self.emission.work_size(panel.n))
        cdef double *latent_work = carve(&at, self.latent.work_size(panel.n))
        cdef double *Y = carve(&at, rows * self.d)
        cdef double *squares = carve(&at, rows)
        cdef double *weights = carve(&at, rows)
        cdef double *T = carve(&at, rows * F)
        cdef double *b = carve(&at, rows * N)
        cdef double *within
        cdef const double *L
        cdef const double *r
        cdef double *y
        cdef double *t
        cdef double *bt
        cdef double others
        cdef int code = self.emission.log_density(panel, resp, emission_work)
        if code != EMC_OK:
            return code
        code = self.latent.posterior(panel, resp, NULL, loglik, latent_work)
        if code != EMC_OK or stats == NULL:
            return code
        within = stats + N * (N + 1) // 2
        for c in range(self.k):
            L = &self.factors[c if self.factors.shape[0] > 1 else 0, 0]
            if self.kind == PRODUCTS:
                table().whiten_tri(panel.X, ng, self.d, &self.means[c, 0], L, 0.0, 1.0, Y, squares, EMC_GROUP)
            else:
                for g in range(ng):
                    for j in range(self.d):
                        y = Y + (g * self.d + j) * EMC_GROUP
                        for i in range(EMC_GROUP):
                            y[i] = L[j] * (panel.X[(g * self.d + j) * EMC_GROUP + i] - self.means[c, j])
            for g in range(ng):
                r = resp + (g * self.k + c) * EMC_GROUP
                y, t, bt = Y + g * self.d * EMC_GROUP, T + g * F * EMC_GROUP, b + (g * N + c * F) * EMC_GROUP
                for i in range(EMC_GROUP):
                    t[i] = 1.0 if r[i] > 0 else 0.0
                    others = 0.0  # 1 - h, to all its digits
                    for m in range(self.k):
                        if m != c:
                            others += resp[(g * self.k + m) * EMC_GROUP + i]
                    weights[g * EMC_GROUP + i] = r[i] * (others / panel.w[g * EMC_GROUP + i]) if r[i] > 0 else 0.0
                for j in range(self.d):
                    for i in range(EMC_GROUP):  # what has no responsibility may hold anything
                        t[(1 + j) * EMC_GROUP + i] = y[j * EMC_GROUP + i] if r[i] > 0 else 0.0
                y, f = t + EMC_GROUP, 1 + self.d
                if self.kind != VALUES:
                    for j in range(self.d):
                        for m in range(j if self.kind == SQUARES else 0, j + 1):
                            for i in range(EMC_GROUP):
                                t[f * EMC_GROUP + i] = y[j * EMC_GROUP + i] * y[m * EMC_GROUP + i]
                            f += 1
                for f in range(F):
                    for i in range(EMC_GROUP):
                        bt[f * EMC_GROUP + i] = r[i] * t[f * EMC_GROUP + i]
            table().weighted_gram(T, ng, F, &self.zeros[0], weights, EMC_GROUP, within + c * (F * (F + 1) // 2))
        for i in range(rows):
            weights[i] = -1.0 / panel.w[i] if panel.w[i] > 0 else 0.0
        table().weighted_gram(b, ng, N, &self.zeros[0], weights, EMC_GROUP, stats)
        return EMC_OK

    def dots(self, stats):
        """Return the derivatives of the statistics of the coupled kernel along its directions, (m, their number)."""
        cdef const double[::1] sums = stats
        if sums.shape[0] != self.n_stats:
            raise ValueError(f"stats must have shape ({self.n_stats},), got ({sums.shape[0]},)")
        cdef Py_ssize_t F = self.F, N = self.N, k = self.k, c, i, j, at = 0
        matrix = np.empty((N, N))
        cdef double[:, ::1] C = matrix
        for i in range(N):
            for j in range(i + 1):
                C[i, j] = C[j, i] = sums[at]
                at += 1
        for c in range(k):
            for i in range(c * F, (c + 1) * F):
                for j in range(c * F, i + 1):
                    C[i, j] = C[j, i] = sums[at]
                    at += 1
        moved = (self.coefficients.reshape(-1, N) @ matrix).reshape(-1, k, F)
        return np.concatenate([moved[:, :, 0], self.emission.from_features(moved)], axis=1)
