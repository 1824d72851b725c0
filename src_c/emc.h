/* The C side of emcore: the panel that every kernel sees, and one table of micro-kernels per CPU target.
 *
 * Nothing here allocates, starts a thread, keeps state between calls (but for the chosen table) or knows Python.
 *
 * Layout.  Rows travel in panels.  A panel is packed into groups of EMC_GROUP rows, so that SIMD lanes run over
 * rows; a quantity with m columns stands as [group][column][EMC_GROUP], that is
 *
 *     value(row i, column j) = a[((i / EMC_GROUP) * m + j) * EMC_GROUP + i % EMC_GROUP]
 *
 * The last group is padded: its padding rows repeat the last row and have weight 0.  Packed arrays are aligned to
 * EMC_ALIGN bytes.
 *
 * Limits.  No argument is checked.  Sizes are ptrdiff_t and bounded by memory alone: a call takes more than 2^31 rows.
 * Counts of rows, columns, components, factors and symbols (n, d, k, q, m) are at least 1, but n of vexp and vlog and
 * ng, which may be 0.  Strides of columns count doubles and are at least EMC_GROUP.  Packed rows are finite, those of
 * weight 0 too: 0 times infinity would spoil sums that they must not touch; statistics are worth nothing where a bad
 * row is named.  Weights are finite and >= 0; r of the
 * weighted sums has any sign.  Parameters are finite where no comment says otherwise, scales are not 0.  Outputs
 * overlap no inputs, but what is said to be left in the array of an input.
 */
#ifndef EMC_H
#define EMC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EMC_ABI 2
#define EMC_CAPSULE "emcore.emc_table.2" /* name of the PyCapsule of a table; ends with EMC_ABI */
#define EMC_GROUP 32
#define EMC_ALIGN 64

/* What a kernel returns. */
enum emc_code {
    EMC_OK = 0,
    EMC_BAD_ROW = 1,      /* a row has no finite log-density; emc_panel.bad_row names it */
    EMC_NOT_PROVIDED = 2, /* the kernel has no such operation */
    EMC_ERROR = 3         /* a Python exception is pending, kept by the kernel */
};

/* Types of the rows as the user gave them; of another one nothing is packed.  Whole numbers beyond 2^53 are rounded. */
enum emc_type { EMC_FLOAT64 = 0, EMC_FLOAT32 = 1, EMC_INT64 = 2, EMC_INT32 = 3 };

/* One panel of rows on its way through a kernel.  `size` comes first and the struct grows at its end only. */
typedef struct emc_panel {
    size_t size;
    ptrdiff_t n, d;     /* rows and columns, padding not counted */
    ptrdiff_t row0;     /* index of the first row in the block */
    ptrdiff_t n_bounds; /* pieces that are never cut (sequences); 0: independent rows */
    const double *X;    /* packed rows in frame units, d columns; NULL where the kernel reads raw ones */
    const double *w;    /* packed weights, one column, 0 on padding; never NULL */
    const double *aux;  /* packed columns of the other row arrays (responses), or NULL */
    const ptrdiff_t *bounds;
    const void *raw;                          /* the same rows as they came, which some kernels read instead of X */
    int raw_type;                             /* enum emc_type */
    ptrdiff_t raw_row_stride, raw_col_stride; /* in bytes */
    const double *alpha;                      /* carries of a chain across panels */
    double *beta;
    double *resp;           /* out: responsibilities (n, k), row by row, or NULL */
    double *row_loglik;     /* out: log-density of each row (n,), or NULL */
    ptrdiff_t bad_row;      /* out: the first row (of the panel) without a finite log-density, or -1 */
    ptrdiff_t n_directions; /* how many directional derivatives are wanted, */
    ptrdiff_t direction;    /* and which of them an emission or latent is asked for */
} emc_panel;

/* A mixture of Gaussians at some parameters, for a pass that fuses densities, responsibilities and statistics. */
typedef struct emc_gaussians {
    size_t size;
    ptrdiff_t k, d;
    int diagonal;            /* 0: factors are triangles, packed row by row; 1: inverse standard deviations */
    int pooled;              /* all components (triangles) or all columns (diagonal) share one second-order sum */
    const double *means;     /* (k, d), in frame units */
    const double *factors;   /* row c begins at factors + c * factor_stride */
    ptrdiff_t factor_stride; /* 0: all components share one */
    const double *peaks;     /* (K,) log-density at the mean plus log weight; -inf for weight 0 and beyond k */
    double threshold;        /* > 0; components so far below the best of a row, in nats, are dropped; INFINITY: none */
    /* How to be fast; beside rounding the result does not depend on it.  K is k to the next multiple of 4. */
    const double *slopes;  /* (K, d): linear scores, the largest of which guesses a row's component, and their */
    const double *offsets; /* (K,) offsets, -inf beyond k; NULL (both): nothing is guessed and no rows are sorted */
    const double
        *directions; /* (k, K, d): of length 1 in the metric of the second component, towards the mean of the */
    const double *direction_offsets; /* first, and what to add, (k, K), to get 0 at the second's mean; or NULL (both) */
    const double *shift, *scale;     /* (d,) the frame of the rows */
    /* (K, d) the means times the factor that all components share, 0 beyond k, where rows may be whitened about the
     * origin of the frame: means must lie so near it that no digit is lost.  NULL: they may not. */
    const double *white;
    /* (k,) in place of the one threshold, where components differ in what may be dropped of them; or NULL */
    const double *thresholds;
} emc_gaussians;

/* One set of micro-kernels.  `ng` is always a number of groups; X is packed with d columns.
 * `out` and `r` address one column of a packed array: the column's rows of group g begin at out[g * stride]. */
typedef struct emc_table {
    size_t size; /* of this struct, for callers compiled against an older or newer header */
    int abi;
    int lanes; /* doubles in a vector register */
    const char *name;

    /* X[.., j, ..] = (raw[i, j] - shift[j]) * scale[j], padding repeats row n-1. */
    void (*pack_rows)(double *X, ptrdiff_t n, ptrdiff_t d, const void *raw, int raw_type, ptrdiff_t row_stride,
                      ptrdiff_t col_stride, const double *shift, const double *scale);
    /* w = raw weights (float64, stride in bytes), or 1 where raw is NULL; padding 0. */
    void (*pack_weights)(double *w, ptrdiff_t n, const double *raw, ptrdiff_t stride);
    /* out[i, j] = a[i, j], from packed (m columns) to row by row (n, m). */
    void (*unpack)(double *out, const double *a, ptrdiff_t n, ptrdiff_t m);

    /* out = a + b * || L (x - mu) ||^2, L lower triangular, packed row by row, d (d + 1) / 2 entries. */
    void (*sqdist_tri)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *L, double a,
                       double b, double *out, ptrdiff_t stride);
    /* out = a + b * sum_j s_j^2 (x_j - mu_j)^2, s the inverse scales (the square is of the product s_j (x_j - mu_j)).
     */
    void (*sqdist_diag)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *s, double a,
                        double b, double *out, ptrdiff_t stride);

    /* On entry logp holds log-densities (packed, k columns).  Adds log_weights[c] to column c, forms the row's
     * log-sum-exp and leaves w * responsibility in logp.  row_loglik (packed, one column) takes the log-sum-exp;
     * *loglik is increased by sum w * row_loglik over rows with w > 0 (rows of weight 0 get responsibility 0 and add
     * nothing, whatever their density).  Returns the first of the n rows with w > 0 whose log-sum-exp is not finite
     * (its responsibilities are set to 0 and it adds nothing), or -1. */
    ptrdiff_t (*normalize_rows)(double *logp, ptrdiff_t n, ptrdiff_t k, const double *log_weights, const double *w,
                                double *row_loglik, double *loglik);
    /* mass[c] += sum_i r[i, c], r packed with k columns. */
    void (*column_mass)(const double *r, ptrdiff_t ng, ptrdiff_t k, double *mass);

    /* sum[j] += sum_i r_i (x_ij - mu_j). */
    void (*weighted_sum)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                         ptrdiff_t stride, double *sum);
    /* gram[i, j] += sum r (x_i - mu_i)(x_j - mu_j) for j <= i, packed row by row. */
    void (*weighted_gram)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                          ptrdiff_t stride, double *gram);
    /* squares[j] += sum r (x_j - mu_j)^2. */
    void (*weighted_squares)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                             ptrdiff_t stride, double *squares);

    /* Elementwise, any length, any alignment. */
    void (*vexp)(const double *x, double *y, ptrdiff_t n);
    void (*vlog)(const double *x, double *y, ptrdiff_t n);

    /* One panel through a mixture of Gaussians.  stats: [latent count k | count k | mass k | sum k*d | second-order],
     * about the means, or NULL; loglik[0] += sum w log p, loglik[1] += sum w |log p|.  Returns an emc_code. */
    int (*gaussian_mixture)(const emc_gaussians *model, emc_panel *panel, double *stats, double *loglik, double *work);
    /* Doubles of work (aligned) that it needs for n rows. */
    ptrdiff_t (*gaussian_mixture_work)(const emc_gaussians *model, ptrdiff_t n);
    /* The same in lanes of float32, with sums in float64: for float32 rows, where the caller finds that it keeps the
     * digits he wants.  Gives no responsibilities and no log-densities of rows; NULL on some targets. */
    int (*gaussian_mixture_single)(const emc_gaussians *model, emc_panel *panel, double *stats, double *loglik,
                                   double *work);
    ptrdiff_t (*gaussian_mixture_work_single)(const emc_gaussians *model, ptrdiff_t n);

    /* out = a + sum_j b_j x_j. */
    void (*affine)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *b, double a, double *out,
                   ptrdiff_t stride);

    /* weighted_sum and weighted_gram in one go. */
    void (*weighted_moments)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                             ptrdiff_t stride, double *sum, double *gram);

    /* Directional derivatives.  Those of Gaussian log-densities are quadratics of whitened rows.
     * Y = L (x - mu), packed with d columns, and out = a + b * || y ||^2. */
    void (*whiten_tri)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *L, double a,
                       double b, double *Y, double *out, ptrdiff_t stride);
    /* out = a + slope'y + sum_{j <= i} C[i, j] y_i y_j, C packed row by row. */
    void (*quadratic_tri)(const double *Y, ptrdiff_t ng, ptrdiff_t d, double a, const double *slope, const double *C,
                          double *out, ptrdiff_t stride);
    /* out = a + sum_j (slope_j + C_j y_j) y_j, y_j = s_j (x_j - mu_j). */
    void (*quadratic_diag)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *s, double a,
                           const double *slope, const double *C, double *out, ptrdiff_t stride);
    /* On entry dot holds derivatives of log-densities, resp what normalize_rows left (both packed, k columns).  Leaves
     * those of w * responsibility, h_c (s_c - sum_l h_l s_l) with s_c = dot_c + log_weights_dot[c], in dot.  What has
     * no responsibility gets 0, whatever its derivative. */
    void (*normalize_rows_dot)(double *dot, ptrdiff_t ng, ptrdiff_t k, const double *log_weights_dot, const double *w,
                               const double *resp);

    /* Factor analysis with q factors.  F = B (x - mu), packed with q columns, B (q, d); residuals y = x - mu - L F, L
     * (d, q), packed with d columns, kept where Y is not NULL; out = a - (sum_j precision_j y_j^2 + || F ||^2) / 2. */
    void (*factor_scores)(const double *X, ptrdiff_t ng, ptrdiff_t d, ptrdiff_t q, const double *mu, const double *B,
                          const double *L, const double *precision, double a, double *F, double *Y, double *out,
                          ptrdiff_t stride);
    /* cross[i, j] += sum W_i (x_j - mu_j), W packed with m columns; cross (m, d). */
    void (*weighted_cross)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *W, ptrdiff_t m,
                           double *cross);

    /* Poisson counts y of known means (packed, one column each): out = y log mean - mean - out, so that log y! on entry
     * becomes the log-density; ratio = y / mean, at most DBL_MAX, so that 0 times it is 0.  0 log 0 and 0 / 0 are 0. */
    void (*poisson_rows)(const double *mean, const double *y, ptrdiff_t ng, double *out, double *ratio);

    /* vexp and vlog of float32, n of any size. */
    void (*vexp_single)(const float *x, float *y, ptrdiff_t n);
    void (*vlog_single)(const float *x, float *y, ptrdiff_t n);

    /* n rows that are not packed, row i at X + i * row_stride (in doubles), its d numbers side by side.
     * out = a + sum_j b_j x_j, one column; padding repeats the last row. */
    void (*row_dots)(const double *X, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride, const double *b, double a,
                     double *out, ptrdiff_t stride);
    /* sums[l, j] += sum_i W_il x_ij, W packed with m columns; sums (m, d).  Rows whose weights are all 0 may hold
     * anything. */
    void (*row_sums)(const double *X, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride, const double *W, ptrdiff_t m,
                     double *sums);
} emc_table;

/* Whether a table has all that the caller was compiled for: the same ABI, and no fewer entries. */
static inline int emc_fits(const emc_table *table) {
    return table && table->abi == EMC_ABI && table->size >= sizeof(emc_table);
}

/* Chooses a target by name ("baseline", "avx2", "avx512", "neon"), or the best one that this CPU runs when name is
 * NULL, makes it current and returns it; NULL (and no change) when the name is unknown, not built or not runnable here.
 */
const emc_table *emc_select(const char *name);
/* The current table; chooses the best one at the first call. */
const emc_table *emc_current(void);
/* The i-th target that was built, best first, or NULL past the end; *runs tells whether this CPU can run it. */
const emc_table *emc_target(int i, int *runs);

#ifdef __cplusplus
}
#endif

#endif
