"""A mixture of Gaussians in one fused pass, which leaves out what cannot change a bit of the sums.

`Coupled` couples any emission to any latent through an array of log-densities a panel. Here one micro-kernel makes densities,
responsibilities, log-likelihood and statistics of a panel, so that it can stop early: a component that lies `threshold`
nats below the best one of its row is dropped. With a threshold of ``37 + log(rows)`` what is dropped is below the rounding
of every count to which a whole row's worth contributes, and of every moment but where rows are far from all components
(`docs/performance.md` says how far); `retry` tells when a component lives on less.
"""

import numpy as np

cimport numpy as cnp
from emcore._arrays cimport as_doubles, data, zeros
from emcore.kernels._base cimport EMC_FLOAT32, Kernel, emc_gaussians, emc_panel, table
from libc.float cimport DBL_EPSILON, DBL_MAX
from libc.math cimport INFINITY, exp
from libc.string cimport memset

cnp.import_array()

cdef enum:
    WHOLE_PANEL = 512          # rows, where nothing is sorted
    PANEL_VALUES = 1 << 20     # rows x columns of a panel that may be sorted
    SMALLEST_SORTED = 2048
    LARGEST_SORTED = 4096
    SINGLE_FLUSH = 85          # nats: below, lanes of float32 drop whatever the threshold
    WHITE_COLUMNS = 4          # with fewer, distances cost less than whitening
    WHITE = 32                 # standard deviations from the origin of the frame within which whitened rows keep their digits


cdef class GaussianMixture(Kernel):
    """A mixture of Gaussians.

    Statistics: those of `Coupled(Mixture, GaussianTri | GaussianDiag)`, ``[count k | count k | mass k | sum k*d |
    second-order]`` about the means.

    Parameters
    ----------
    log_weights : ndarray (k,)
    means, factors, log_norm, shift, scale, pooled : as in `GaussianTri` and `GaussianDiag`
    diagonal : bool
        Whether factors are inverse standard deviations (k, d) instead of triangles.
    threshold : float
        How many nats below the best component of a row another one is dropped; inf: never.
    whole : sequence of int
        Components that are never dropped.
    guess : tuple of ndarray ((k, d), (k,)), optional
        Slopes and offsets of linear scores, the largest of which guesses the component of a row (in frame units). They
        decide how fast the pass is and, beside rounding, nothing else; without them no rows are sorted.
    directions : ndarray (k, k, d), optional
        ``directions[g, c]``: a direction in which components g and c are far apart, of length 1 in the metric of c (or 0):
        ``(v (x - mean_c))^2`` is at most the squared distance. They rule out components at once, and decide nothing else.
    white : bool
        Whether rows may be whitened once for all components, where these share a factor and lie near the origin of the
        frame; they are then not sorted.
    single : bool
        Whether float32 rows may be computed with in float32, sums of panels apart; responsibilities and log-densities of
        single rows never are.
    """
    cdef emc_gaussians model
    cdef readonly double threshold
    cdef readonly bint single
    cdef const double[:, ::1] slopes, whitened
    cdef readonly tuple whole
    cdef cnp.ndarray means, factors, peaks  # a view of memory takes longer than all that is done here with the numbers
    cdef const double[::1] offsets, thresholds
    cdef const double[:, :, ::1] directions
    cdef const double[:, ::1] direction_offsets

    def __init__(self, log_weights, means, factors, log_norm, shift, scale, *, bint diagonal, bint pooled=False,
                 double threshold=np.inf, whole=(), guess=None, directions=None, bint white=True, bint single=False):
        cdef cnp.ndarray weights = as_doubles(log_weights), norms = as_doubles(log_norm)
        cdef cnp.ndarray means_ = as_doubles(means), factors_ = as_doubles(factors)
        cdef double *peaks
        cdef Py_ssize_t c
        if cnp.PyArray_NDIM(means_) != 2 or cnp.PyArray_NDIM(factors_) != 2:
            raise ValueError(f"means and factors must have 2 axes, got shapes {np.shape(means)} and {np.shape(factors)}")
        self.means, self.factors = means_, factors_
        self.shift, self.scale = as_doubles(shift), as_doubles(scale)
        self.k, self.d = means_.shape[0], means_.shape[1]
        cdef Py_ssize_t second = self.d if diagonal else self.d * (self.d + 1) // 2
        if factors_.shape[1] != second or (factors_.shape[0] != 1 and factors_.shape[0] != self.k):
            raise ValueError(f"factors must have shape ({self.k} or 1, {second}), got {np.shape(factors)}")
        if cnp.PyArray_SIZE(weights) != self.k or cnp.PyArray_SIZE(norms) != self.k:
            raise ValueError(f"log_weights and log_norm must have shape ({self.k},)")
        cdef Py_ssize_t wide = (self.k + 3) // 4 * 4  # whole tiles
        self.peaks = zeros(1, wide)
        peaks = data(self.peaks)
        for c in range(wide):
            peaks[c] = data(norms)[c] + data(weights)[c] if c < self.k else -INFINITY
        if not threshold > 0:
            raise ValueError(f"threshold must be positive, got {threshold}")
        if diagonal and pooled:
            self.n_stats = self.k * (4 + self.d)
        else:
            self.n_stats = self.k * (3 + self.d) + (1 if pooled else self.k) * second
        self.n_aux = self.n_carry = 0
        self.n_sweeps = 1
        self.threshold, self.single = threshold, single
        self.panel_rows = WHOLE_PANEL
        memset(&self.model, 0, sizeof(emc_gaussians))
        self.model.size = sizeof(emc_gaussians)
        self.model.k, self.model.d = self.k, self.d
        self.model.diagonal, self.model.pooled = diagonal, pooled
        self.model.means, self.model.factors = data(means_), data(factors_)
        self.model.factor_stride = second if factors_.shape[0] > 1 else 0
        self.model.peaks = peaks
        self.model.threshold = threshold
        self.model.shift, self.model.scale = &self.shift[0], &self.scale[0]
        self.whole = tuple(whole)
        if self.whole and threshold < np.inf:
            thresholds = np.full(self.k, threshold)
            thresholds[list(self.whole)] = np.inf
            self.thresholds = thresholds
            self.model.thresholds = &self.thresholds[0]
        if white and pooled and not diagonal and self.k > 1 and self.d >= WHITE_COLUMNS:
            self._whiten(wide)
        if guess is not None and threshold < np.inf and self.model.white == NULL:
            self._guess_by(*guess, directions, wide)

    def _whiten(self, Py_ssize_t wide):
        cdef const double[:, ::1] means = self.means
        cdef const double[::1] largest = np.abs(self.means).max(axis=0)
        cdef double[:, ::1] white = np.zeros((wide, self.d))
        cdef Py_ssize_t c, i, j, at = 0
        cdef double size
        cdef const double *factor = data(self.factors)
        for i in range(self.d):
            size = 0.0
            for j in range(i + 1):
                size += (factor[at + j] * largest[j]) ** 2
            if not size <= WHITE * WHITE:
                return
            for c in range(self.k):
                for j in range(i + 1):
                    white[c, i] += factor[at + j] * means[c, j]
            at += i + 1
        self.whitened = white
        self.model.white = &self.whitened[0, 0]

    @property
    def white(self):
        """Whether rows are whitened once for all components."""
        return self.model.white != NULL

    def _guess_by(self, slopes, offsets, directions, Py_ssize_t wide):
        padded, at = np.zeros((wide, self.d)), np.full(wide, -np.inf)
        padded[: self.k], at[: self.k] = slopes, offsets
        self.slopes, self.offsets = padded, at
        self.model.slopes, self.model.offsets = &self.slopes[0, 0], &self.offsets[0]
        if directions is not None:
            padded, at = np.zeros((self.k, wide, self.d)), np.zeros((self.k, wide))
            padded[:, : self.k] = directions
            np.einsum("gcj,cj->gc", directions, self.means, out=at[:, : self.k])
            np.negative(at, out=at)
            self.directions, self.direction_offsets = padded, at
            self.model.directions, self.model.direction_offsets = &self.directions[0, 0, 0], &self.direction_offsets[0, 0]
        self.panel_rows = max(SMALLEST_SORTED, min(LARGEST_SORTED, PANEL_VALUES // self.d // 512 * 512))

    cdef bint in_single(self, emc_panel *panel, double *stats) noexcept nogil:
        # What is given back row by row keeps all its digits.
        return (self.single and panel.raw_type == EMC_FLOAT32 and stats != NULL and panel.resp == NULL
                and panel.row_loglik == NULL and table().gaussian_mixture_single != NULL)

    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil:
        cdef Py_ssize_t size = table().gaussian_mixture_work(&self.model, n)
        if self.single and table().gaussian_mixture_work_single != NULL:
            size = table().gaussian_mixture_work_single(&self.model, n)  # the larger of both
        return size

    cdef int panel(self, emc_panel *panel, double *stats, double *loglik, double *work) noexcept nogil:
        if self.in_single(panel, stats):
            return table().gaussian_mixture_single(&self.model, panel, stats, loglik, work)
        return table().gaussian_mixture(&self.model, panel, stats, loglik, work)

    def retry(self, double[::1] stats, double weight):
        """Return the kernel that drops nothing of the components in whose counts it may be seen what was dropped, or None."""
        cdef Py_ssize_t c
        cdef double dropped = weight * exp(-min(self.threshold, SINGLE_FLUSH if self.single else INFINITY))
        starved = [c for c in range(self.k) if dropped > DBL_EPSILON * stats[c] and self.model.peaks[c] > -DBL_MAX]
        return self.replace(whole=starved, single=False) if starved else None

    def dense(self):
        """Return the kernel that drops nothing."""
        return self.replace(threshold=INFINITY, guess=None, directions=None, single=False)

    def replace(self, **options):
        """Return this kernel with other `threshold`, `whole`, `guess`, `directions`, `white` or `single`."""
        same = {"threshold": self.threshold, "whole": self.whole, "white": self.white, "single": self.single,
                "guess": None, "directions": None}
        if self.model.slopes != NULL:
            same["guess"] = self.slopes[: self.k], self.offsets[: self.k]
        if self.model.directions != NULL:
            same["directions"] = self.directions[:, : self.k]
        return GaussianMixture(np.zeros(self.k), self.means, self.factors, self.peaks[: self.k], self.shift, self.scale,
                               diagonal=self.model.diagonal, pooled=self.model.pooled, **{**same, **options})
