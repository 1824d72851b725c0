"""The compiled interface of kernels: plain C types only. Methods are never removed, reordered or given other arguments."""

cdef extern from "emc.h" nogil:
    enum:
        EMC_ABI
        EMC_GROUP
        EMC_ALIGN
    const char *EMC_CAPSULE
    enum:
        EMC_OK
        EMC_BAD_ROW
        EMC_NOT_PROVIDED
        EMC_ERROR
    enum:
        EMC_FLOAT64
        EMC_FLOAT32
        EMC_INT64
        EMC_INT32

    ctypedef struct emc_panel:
        size_t size
        Py_ssize_t n, d
        Py_ssize_t row0
        Py_ssize_t n_bounds
        const double *X
        const double *w
        const double *aux
        const Py_ssize_t *bounds
        const void *raw
        int raw_type
        Py_ssize_t raw_row_stride, raw_col_stride
        const double *alpha
        double *beta
        double *resp
        double *row_loglik
        Py_ssize_t bad_row
        Py_ssize_t n_directions
        Py_ssize_t direction

    ctypedef struct emc_gaussians:
        size_t size
        Py_ssize_t k, d
        int diagonal, pooled
        const double *means
        const double *factors
        Py_ssize_t factor_stride
        const double *peaks
        double threshold
        const double *slopes
        const double *offsets
        const double *directions
        const double *direction_offsets
        const double *shift
        const double *scale
        const double *white
        const double *thresholds

    ctypedef struct emc_table:
        size_t size
        int abi
        int lanes
        const char *name
        void (*pack_rows)(double *X, Py_ssize_t n, Py_ssize_t d, const void *raw, int raw_type, Py_ssize_t row_stride,
                          Py_ssize_t col_stride, const double *shift, const double *scale) noexcept nogil
        void (*pack_weights)(double *w, Py_ssize_t n, const double *raw, Py_ssize_t stride) noexcept nogil
        void (*unpack)(double *out, const double *a, Py_ssize_t n, Py_ssize_t m) noexcept nogil
        void (*sqdist_tri)(const double *X, Py_ssize_t ng, Py_ssize_t d, const double *mu, const double *L, double a,
                           double b, double *out, Py_ssize_t stride) noexcept nogil
        void (*sqdist_diag)(const double *X, Py_ssize_t ng, Py_ssize_t d, const double *mu, const double *s, double a,
                            double b, double *out, Py_ssize_t stride) noexcept nogil
        Py_ssize_t (*normalize_rows)(double *logp, Py_ssize_t n, Py_ssize_t k, const double *log_weights,
                                     const double *w, double *row_loglik, double *loglik) noexcept nogil
        void (*column_mass)(const double *r, Py_ssize_t ng, Py_ssize_t k, double *mass) noexcept nogil
        void (*weighted_sum)(const double *X, Py_ssize_t ng, Py_ssize_t d, const double *mu, const double *r,
                             Py_ssize_t stride, double *sum) noexcept nogil
        void (*weighted_gram)(const double *X, Py_ssize_t ng, Py_ssize_t d, const double *mu, const double *r,
                              Py_ssize_t stride, double *gram) noexcept nogil
        void (*weighted_squares)(const double *X, Py_ssize_t ng, Py_ssize_t d, const double *mu, const double *r,
                                 Py_ssize_t stride, double *squares) noexcept nogil
        void (*vexp)(const double *x, double *y, Py_ssize_t n) noexcept nogil
        void (*vlog)(const double *x, double *y, Py_ssize_t n) noexcept nogil
        int (*gaussian_mixture)(const emc_gaussians *model, emc_panel *panel, double *stats, double *loglik,
                                double *work) noexcept nogil
        Py_ssize_t (*gaussian_mixture_work)(const emc_gaussians *model, Py_ssize_t n) noexcept nogil
        int (*gaussian_mixture_single)(const emc_gaussians *model, emc_panel *panel, double *stats, double *loglik,
                                       double *work) noexcept nogil
        Py_ssize_t (*gaussian_mixture_work_single)(const emc_gaussians *model, Py_ssize_t n) noexcept nogil
        void (*affine)(const double *X, Py_ssize_t ng, Py_ssize_t d, const double *b, double a, double *out,
                       Py_ssize_t stride) noexcept nogil
        void (*weighted_moments)(const double *X, Py_ssize_t ng, Py_ssize_t d, const double *mu, const double *r,
                                 Py_ssize_t stride, double *sum, double *gram) noexcept nogil
        void (*whiten_tri)(const double *X, Py_ssize_t ng, Py_ssize_t d, const double *mu, const double *L, double a,
                           double b, double *Y, double *out, Py_ssize_t stride) noexcept nogil
        void (*quadratic_tri)(const double *Y, Py_ssize_t ng, Py_ssize_t d, double a, const double *slope,
                              const double *C, double *out, Py_ssize_t stride) noexcept nogil
        void (*quadratic_diag)(const double *X, Py_ssize_t ng, Py_ssize_t d, const double *mu, const double *s, double a,
                               const double *slope, const double *C, double *out, Py_ssize_t stride) noexcept nogil
        void (*normalize_rows_dot)(double *dot, Py_ssize_t ng, Py_ssize_t k, const double *log_weights_dot,
                                   const double *w, const double *resp) noexcept nogil
        void (*factor_scores)(const double *X, Py_ssize_t ng, Py_ssize_t d, Py_ssize_t q, const double *mu,
                              const double *B, const double *L, const double *precision, double a, double *F,
                              double *Y, double *out, Py_ssize_t stride) noexcept nogil
        void (*weighted_cross)(const double *X, Py_ssize_t ng, Py_ssize_t d, const double *mu, const double *W,
                               Py_ssize_t m, double *cross) noexcept nogil
        void (*poisson_rows)(const double *mean, const double *y, Py_ssize_t ng, double *out, double *ratio) noexcept nogil
        void (*vexp_single)(const float *x, float *y, Py_ssize_t n) noexcept nogil
        void (*vlog_single)(const float *x, float *y, Py_ssize_t n) noexcept nogil
        void (*row_dots)(const double *X, Py_ssize_t n, Py_ssize_t d, Py_ssize_t row_stride, const double *b, double a,
                         double *out, Py_ssize_t stride) noexcept nogil
        void (*row_sums)(const double *X, Py_ssize_t n, Py_ssize_t d, Py_ssize_t row_stride, const double *W, Py_ssize_t m,
                         double *sums) noexcept nogil

    # Whether a table has all that the extension that asks was compiled for.
    bint emc_fits(const emc_table *table) noexcept


# The table in force. Only emcore.kernels._base links the C library: others call through this pointer.
cdef const emc_table *table() noexcept nogil


cdef inline Py_ssize_t padded(Py_ssize_t n) noexcept nogil:
    """Rows of a panel with its padding."""
    return (n + EMC_GROUP - 1) // EMC_GROUP * EMC_GROUP


cdef class Kernel:
    """All that `run` knows: one panel in, statistics and log-likelihood added.

    ``work_size`` is in doubles and for a panel of n rows; work is aligned, private to the thread, and not cleared.
    ``stats`` may be NULL (densities only); ``loglik[0]`` takes sum w log p, ``loglik[1]`` sum w |log p|.

    ``panel_dot`` adds the derivatives of the statistics, origin held, along each of ``panel.n_directions`` directions that
    the kernel was built with: ``stats_dot`` has n_stats numbers a direction.
    """
    cdef readonly Py_ssize_t k, d, n_stats, n_aux, n_carry, n_sweeps, panel_rows
    cdef readonly object error
    cdef const double[::1] shift, scale
    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil
    cdef int forward(self, emc_panel *panel, double *carry, double *work) noexcept nogil
    cdef int panel(self, emc_panel *panel, double *stats, double *loglik, double *work) noexcept nogil
    cdef int panel_dot(self, emc_panel *panel, double *stats_dot, double *work) noexcept nogil


cdef class Emission:
    """How one row looks in each of k states. ``logp`` and ``resp`` are packed with k columns.

    ``work`` survives from ``log_density`` to ``accumulate``; ``accumulate`` is linear in ``resp``, which already holds the
    weights and may be negative. The ``_dot`` methods give derivatives along direction ``panel.direction``.
    """
    cdef readonly Py_ssize_t k, d, n_stats, n_aux
    cdef readonly object error
    cdef const double[::1] shift, scale
    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil
    cdef int log_density(self, emc_panel *panel, double *logp, double *work) noexcept nogil
    cdef int accumulate(self, emc_panel *panel, const double *resp, double *stats, double *work) noexcept nogil
    cdef int log_density_dot(self, emc_panel *panel, double *logp_dot, double *work) noexcept nogil
    cdef int accumulate_dot(self, emc_panel *panel, const double *resp, const double *resp_dot, double *stats_dot,
                            double *work) noexcept nogil


cdef class Latent:
    """How the states of the rows are coupled. ``posterior`` turns log-densities into w * responsibilities, in place.

    ``posterior_dot`` turns the derivatives of the log-densities along direction ``panel.direction`` into those of
    w * responsibilities, in place.
    """
    cdef readonly Py_ssize_t k, n_stats, n_carry, n_sweeps
    cdef Py_ssize_t work_size(self, Py_ssize_t n) noexcept nogil
    cdef int forward(self, emc_panel *panel, double *logp, double *carry, double *work) noexcept nogil
    cdef int posterior(self, emc_panel *panel, double *logp, double *stats, double *loglik, double *work) noexcept nogil
    cdef int posterior_dot(self, emc_panel *panel, const double *resp, double *logp_dot, double *stats_dot,
                           double *work) noexcept nogil


cdef class Coupled(Kernel):
    """Emission x Latent, the default kernel. Statistics: [those of the latent | those of the emission]."""
    cdef readonly Latent latent
    cdef readonly Emission emission
