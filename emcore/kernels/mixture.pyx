"""Mixture latent: the state of each row is drawn independently with the mixture weights."""

import numpy as np

cimport numpy as cnp
from emcore._arrays cimport data, zeros
from emcore.kernels._base cimport EMC_BAD_ROW, EMC_GROUP, EMC_NOT_PROVIDED, EMC_OK, Latent, emc_panel, padded, table
from libc.math cimport INFINITY, fabs, log

cnp.import_array()
cdef double TINY = 1e-290  # beside responsibilities: what is below cannot be divided by
cdef double ZERO = 0.0


def log_weights(const double[::1] weights):
    """Return the logarithms of mixture weights (k,), -inf where a weight is 0."""
    cdef cnp.ndarray logs = zeros(1, weights.shape[0])
    cdef double *out = data(logs)
    cdef Py_ssize_t c
    for c in range(weights.shape[0]):
        out[c] = -INFINITY if weights[c] == 0 else log(weights[c])
    return logs


cdef class Mixture(Latent):
    """Independent states.

    Statistics: ``[count k]``, the expected weight of each component.

    Parameters
    ----------
    log_weights : ndarray (k,)
        Logarithms of the mixture weights; -inf for a component of weight 0.
    tangents : ndarray (m, k), optional
        Derivatives of these logarithms along m directions; 0 for a component of weight 0.
    """
    cdef const double[::1] log_weights
    cdef const double[:, ::1] tangents
    cdef Py_ssize_t n_tangents

    def __init__(self, log_weights, tangents=None):
        self.log_weights = np.ascontiguousarray(log_weights, dtype=np.float64)
        self.k = self.n_stats = self.log_weights.shape[0]
        self.n_carry = 0
        self.n_sweeps = 1
        self.n_tangents = 0
        if tangents is not None:
            self.tangents = np.ascontiguousarray(tangents, dtype=np.float64)
            self.n_tangents = self.tangents.shape[0]
            if self.tangents.shape[1] != self.k:
                raise ValueError(f"tangents must have {self.k} columns, got {self.tangents.shape[1]}")

    def needs_packed(self, rows):
        return False

    def coefficients(self):
        """Return the derivatives of the log weights along the directions, (m, k)."""
        return np.asarray(self.tangents)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        return padded(n)

    cdef int posterior(self, emc_panel *panel, double *logp, double *stats, double *loglik, double *work) noexcept nogil:
        cdef Py_ssize_t i, bad, n = padded(panel.n)
        bad = table().normalize_rows(logp, panel.n, self.k, &self.log_weights[0], panel.w, work, loglik)
        if panel.row_loglik != NULL:
            for i in range(panel.n):
                panel.row_loglik[i] = work[i]
        for i in range(n):
            work[i] = fabs(work[i]) if panel.w[i] > 0 else 0.0  # a row of weight 0 may hold anything
        table().weighted_sum(work, n // EMC_GROUP, 1, &ZERO, panel.w, EMC_GROUP, loglik + 1)
        if panel.resp != NULL:
            table().unpack(panel.resp, logp, panel.n, self.k)
        if stats != NULL:
            table().column_mass(logp, n // EMC_GROUP, self.k, stats)
        if bad >= 0:
            panel.bad_row = bad
            return EMC_BAD_ROW
        return EMC_OK

    cdef int posterior_dot(self, emc_panel *panel, const double *resp, double *logp_dot, double *stats_dot,
                           double *work) noexcept nogil:
        cdef Py_ssize_t ng = padded(panel.n) // EMC_GROUP
        if panel.direction >= self.n_tangents:
            return EMC_NOT_PROVIDED
        table().normalize_rows_dot(logp_dot, ng, self.k, &self.tangents[panel.direction, 0], panel.w, resp)
        table().column_mass(logp_dot, ng, self.k, stats_dot)
        return EMC_OK


cdef class SparseMixture(Mixture):
    """Independent states whose small responsibilities stay as they are (Neal and Hinton 1998).

    A row's posterior is inferred over the states whose responsibility is at least `least`, within what the others leave of 1.

    Statistics: ``[count k]``.

    Parameters
    ----------
    log_weights : ndarray (k,)
    resp : ndarray (n, k)
        Responsibilities of the rows of the block, without their weights: replaced in place by the new ones. Those of a row of
        weight 0, and of one whose active states all have no density, stay as they are.
    entropies : ndarray (n,)
        Takes the entropy of the new responsibilities of each row, times its weight.
    least : float
        0: all states are active, and the responsibilities that come in do not matter.
    """
    cdef double[:, ::1] resp
    cdef double[::1] entropies
    cdef double least

    def __init__(self, log_weights, resp, entropies, double least):
        super().__init__(log_weights)
        self.resp, self.entropies, self.least = resp, entropies, least
        if self.resp.shape[1] != self.k or self.entropies.shape[0] != self.resp.shape[0]:
            raise ValueError(f"resp must have {self.k} columns and entropies a number a row, got {np.shape(resp)}, "
                             f"{np.shape(entropies)}")

    def check_rows(self, Py_ssize_t n):
        if self.resp.shape[0] != n:
            raise ValueError(f"resp must have {n} rows, those of the block, got {self.resp.shape[0]}")

    cdef int posterior(self, emc_panel *panel, double *logp, double *stats, double *loglik, double *work) noexcept nogil:
        cdef Py_ssize_t i, c
        cdef double active, share, entropy
        cdef double *h
        cdef double *r
        cdef int code = Mixture.posterior(self, panel, logp, NULL, loglik, work)
        if code != EMC_OK:
            return code
        for i in range(panel.n):
            h, r = logp + i // EMC_GROUP * self.k * EMC_GROUP + i % EMC_GROUP, &self.resp[panel.row0 + i, 0]
            active = share = entropy = 0.0
            for c in range(self.k):
                if self.least <= 0 or r[c] >= self.least:
                    active += h[c * EMC_GROUP]
                else:
                    share += r[c]
            share = max(0.0, 1.0 - share) / active if active > TINY else 0.0
            for c in range(self.k):
                if share > 0 and (self.least <= 0 or r[c] >= self.least):
                    r[c] = h[c * EMC_GROUP] * share
                h[c * EMC_GROUP] = panel.w[i] * r[c]
                entropy -= r[c] * log(r[c]) if r[c] > 0 else 0.0
            self.entropies[panel.row0 + i] = panel.w[i] * entropy
        if stats != NULL:
            table().column_mass(logp, padded(panel.n) // EMC_GROUP, self.k, stats)
        return EMC_OK
