"""Responsibilities that are given instead of inferred: how a start becomes statistics."""

import numpy as np

from emcore.kernels._base cimport EMC_GROUP, EMC_OK, Latent, emc_panel, padded, table


cdef class Given(Latent):
    """A latent whose posterior is what the caller says.

    Statistics: ``[count k]``.

    Parameters
    ----------
    resp : ndarray (n, k)
        Responsibilities of the rows of the block.
    """
    cdef const double[:, ::1] resp

    def __init__(self, resp):
        self.resp = np.ascontiguousarray(resp, dtype=np.float64)
        self.k = self.n_stats = self.resp.shape[1]
        self.n_carry = 0
        self.n_sweeps = 1

    def needs_packed(self, rows):
        return False

    def check_rows(self, Py_ssize_t n):
        if self.resp.shape[0] != n:
            raise ValueError(f"resp must have {n} rows, those of the block, got {self.resp.shape[0]}")

    cdef int posterior(self, emc_panel *panel, double *logp, double *stats, double *loglik, double *work) noexcept nogil:
        cdef Py_ssize_t i, c, n = padded(panel.n)
        for i in range(n):
            for c in range(self.k):
                logp[(i // EMC_GROUP * self.k + c) * EMC_GROUP + i % EMC_GROUP] = (
                    panel.w[i] * self.resp[panel.row0 + i, c] if i < panel.n else 0.0)
        if stats != NULL:
            table().column_mass(logp, n // EMC_GROUP, self.k, stats)
        return EMC_OK
