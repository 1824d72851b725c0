"""One column of few kinds of rows: a panel is a row of each kind and its weight, and a pass costs little more than reading."""

import numpy as np

from emcore.kernels._base cimport (
    EMC_FLOAT32, EMC_FLOAT64, EMC_INT64, EMC_OK, Coupled, Emission, Latent, emc_panel, padded, table,
)
from emcore.kernels._scratch cimport carve, room
from emcore.kernels.mixture import Mixture
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memset

cdef enum:
    LANES = 8  # tallies side by side: a row need not wait until the sum of the one before is written

ctypedef fused raw_t:
    double
    float
    int64_t
    int32_t


cdef class Tallied(Coupled):
    """A mixture over one column, whose rows differ by their kind only.

    Only where numbers of single rows are wanted, or a row of positive weight is of no kind, the panel is done row by row.
    Statistics: those of `Coupled`.

    Parameters
    ----------
    latent : Mixture
    emission : Emission
        Of one column, in the units of the rows as they came. Its ``kinds()`` are how many symbols 0, 1, ... there are, or
        ascending numbers (m,): rows from 0 to the first are of one kind, those from there to the second, which is of it, of
        another, and so on.
    """
    cdef const double[::1] ends  # the symbols, or up to where a kind goes: a row of each kind
    cdef Py_ssize_t m
    cdef bint symbols

    def __init__(self, Latent latent, Emission emission):
        if emission.d != 1:
            raise ValueError(f"emission must have one column, got {emission.d}")
        if type(latent) is not Mixture or not hasattr(emission, "kinds"):  # others know their rows
            raise ValueError("latent must be a Mixture, and emission must tell its kinds")
        super().__init__(latent, emission, 4096)
        kinds = emission.kinds()
        self.symbols = np.ndim(kinds) == 0
        self.ends = np.arange(kinds, dtype=np.float64) if self.symbols else kinds
        self.m = self.ends.shape[0]

    def needs_packed(self, rows):
        return False

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        # Kinds and their weights, the tallies or packed rows, and what follows from them.
        return 2 * room(padded(self.m)) + room(max(LANES * self.m, padded(n))) + Coupled.work_size(self, max(n, self.m))

    cdef int panel(self, emc_panel *panel, double *stats, double *loglik, double *work) noexcept nogil:
        cdef double *left = work
        cdef double *kinds = carve(&left, padded(self.m))
        cdef double *weights = carve(&left, padded(self.m))
        cdef double *rows = carve(&left, max(LANES * self.m, padded(panel.n)))
        cdef double[2] sums
        cdef emc_panel few = panel[0]
        if panel.resp == NULL and panel.row_loglik == NULL and self.tally(panel, kinds, weights, rows):
            few.n, few.X, few.w = self.m, kinds, weights
            memset(sums, 0, sizeof(sums))
            if Coupled.panel(self, &few, stats, sums, left) == EMC_OK:
                loglik[0] += sums[0]
                loglik[1] += sums[1]
                return EMC_OK
            stats = NULL  # no sums are wanted any more, but which row it is
        self.pack(panel, rows)
        return Coupled.panel(self, panel, stats, loglik, left)

    cdef int panel_dot(self, emc_panel *panel, double *stats_dot, double *work) noexcept nogil:
        cdef double *left = work
        self.pack(panel, carve(&left, padded(panel.n)))
        return Coupled.panel_dot(self, panel, stats_dot, left)

    cdef void pack(self, emc_panel *panel, double *rows) noexcept nogil:
        """Give the panel packed rows."""
        table().pack_rows(rows, panel.n, 1, panel.raw, panel.raw_type, panel.raw_row_stride, panel.raw_col_stride,
                          &self.shift[0], &self.scale[0])
        panel.X = rows

    cdef bint tally(self, emc_panel *panel, double *kinds, double *weights, double *tallies) noexcept nogil:
        """Write a row of each kind and its weight, packed; tell whether every row of positive weight is of a kind."""
        cdef Py_ssize_t s, lane
        cdef bint known
        memset(tallies, 0, 8 * LANES * self.m)
        if panel.raw_type == EMC_FLOAT64:
            known = tally_rows(<const double *> panel.raw, panel, &self.ends[0], self.m, self.symbols, tallies)
        elif panel.raw_type == EMC_FLOAT32:
            known = tally_rows(<const float *> panel.raw, panel, &self.ends[0], self.m, self.symbols, tallies)
        elif panel.raw_type == EMC_INT64:
            known = tally_rows(<const int64_t *> panel.raw, panel, &self.ends[0], self.m, self.symbols, tallies)
        else:
            known = tally_rows(<const int32_t *> panel.raw, panel, &self.ends[0], self.m, self.symbols, tallies)
        for s in range(padded(self.m)):
            kinds[s], weights[s] = self.ends[min(s, self.m - 1)], 0.0
        for s in range(self.m):
            for lane in range(LANES):
                weights[s] += tallies[s * LANES + lane]
        return known


cdef bint tally_rows(const raw_t *first, emc_panel *panel, const double *ends, Py_ssize_t m, bint symbols,
                     double *tallies) noexcept nogil:
    """Add the weights of the rows to those of their kinds, LANES each; tell as `Tallied.tally` does."""
    cdef const char *at = <const char *> first
    cdef const double *w = panel.w
    cdef Py_ssize_t i, j, kind, n = panel.n, stride = panel.raw_row_stride
    cdef double last = ends[m - 1]
    cdef raw_t x
    cdef bint known = True
    for i in range(n):
        memcpy(&x, at + i * stride, sizeof(raw_t))  # rows may have any alignment
        if symbols and 0 <= x < m:
            kind = <Py_ssize_t> x
        elif not symbols and 0 <= x <= last:
            kind = 0
            for j in range(m - 1):  # no branch: rows come in any order
                kind += x > ends[j]
        else:
            known &= not w[i] > 0
            continue
        tallies[kind * LANES + (i & (LANES - 1))] += w[i]
    return known
