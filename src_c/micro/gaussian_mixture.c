/* One panel through a mixture of Gaussians: densities, responsibilities, log-likelihood and statistics in one go.
 *
 * Which terms count.  With l_c the log-density plus log-weight of a row and m their maximum, component c is dropped
 * when l_c - m < -threshold: its responsibility is exactly 0 and it is not in the row's sum.  The rule looks at rounded
 * numbers of that row only, and it can be decided early: squares are added one after the other, rounding is monotone,
 * so a partial squared distance is a lower bound of the full one to the last bit, as is a partial maximum of m.  Rows
 * therefore come out the same whatever is skipped.
 *
 * Two ways through a panel.  Dense: subpanels of a few hundred rows in their order, every component for every row; the
 * statistics skip groups of rows without weight.  Sorted: the component of each row is guessed by a linear score, rows
 * are sorted by guess, and in each group of the sorted rows the guessed component comes first: most of the others
 * are ruled out after a few columns, and few groups have weight in a component.  A few rows of the panel decide
 * which: the choice, like everything here, is a function of the rows and the parameters.
 *
 * A third where all components share a factor and lie near the origin o of the frame.  Whitened once, y = L (x - o), a
 * row takes d multiply-adds a component; and the second-order sum about the means is that about o less what the means
 * explain,
 *
 *     sum_ic r_ic (x_i - mu_c)(x_i - mu_c)' = sum_i w_i x_i x_i' - sum_c (s_c mu_c' + mu_c s_c' - N_c mu_c mu_c'),
 *
 * s_c = sum_i r_ic x_i, all about o.  With means m standard deviations from o, y loses the factor m of its precision
 * and this m^2. */
#include "gram_tile.h"
#include "tri_tile.h"

#include <limits.h>
#include <string.h>

enum {
    SUBPANEL_GROUPS = 16,
    SUBPANEL_GROUPS_DIAGONAL = 4, /* its rows are read once a component and little is done with them: first cache */
    SUBPANEL_VALUES =
        2048, /* groups x components of a subpanel stay below this, so that it stays in the second cache */
    POOL_BLOCKS = 512,
    PROBE_GROUPS = 2,
    MOST_DIRECTIONS = 3,    /* guesses of one group by which components are bounded */
    SORTED_ROWS = 512,      /* fewer are not worth sorting */
    SORTED_COLUMNS = 5,     /* with fewer, distances cost less than the sorting */
    MOST_GUESSED = 1 << 24, /* whole numbers up to here are float32 */
    CENTRED_COLUMNS = 16,   /* with as many, means are subtracted once a component and not once a tile */
#ifdef EMC_SINGLE
    PRODUCT_VECTORS = 4 /* row sums multiplied up before one logarithm is taken: at most k^4 */
#else
    PRODUCT_VECTORS = 16 /* at most k^16 */
#endif
};
/* The panel is sorted when the few rows looked at keep less than this share of the components. */
#define SORTED_SHARE 0.2
#ifdef EMC_SINGLE
#define FARTHEST 64.0 /* in frame units, about standard deviations of the columns */
#define HEAVIEST 0x1p40
#endif
#define SORTED_SHARE_DIAGONAL 0.1 /* where distances cost little more than the guess */

/* Sums over the rows of a panel, lanes over rows. */
typedef struct totals {
    vd value, absolute; /* sum w log p, sum w |log p| */
    vd product, below;  /* products of row sums still without logarithm: all, and those of rows with log p < 0 */
    int waiting;        /* vectors in the products */
#ifdef EMC_SINGLE
    double value_so_far, absolute_so_far;
#endif
} totals;

typedef struct job {
    const emc_gaussians *model;
    const real *means, *factors, *peaks, *slopes, *offsets, *directions, *direction_offsets, *white;
    emc_panel *panel;
    const real *X, *w; /* the rows and weights of the panel, in their order */
    double *stats, *second;
    ptrdiff_t k, d, n_second;
    const real *cuts; /* -threshold of each component, but not below what exp flushes to 0 */
    double log_k;
#ifdef EMC_SINGLE
    real about; /* log-densities are less this */
#endif
    int unit_weights; /* all rows, padding apart, have weight 1 */
    totals sums;
} job;

EMC_INLINE vm all_lanes(void) { return v_le(v_zero(), v_zero()); }
EMC_INLINE int holds_everywhere(vm a) { return !v_any(v_without(all_lanes(), a)); }
EMC_INLINE vd v_abs(vd a) { return v_max(a, v_sub(v_zero(), a)); }
EMC_INLINE vm is_finite(vd a) { return v_le(v_abs(a), v_set1(REAL_MAX)); }

EMC_INLINE void clear_totals(totals *t) {
    t->value = t->absolute = v_zero();
    t->product = t->below = v_set1(1.0);
    t->waiting = 0;
#ifdef EMC_SINGLE
    t->value_so_far = t->absolute_so_far = 0.0;
#endif
}

static void take_logarithms(totals *t) {
    const vd log_all = vmath_log_cut(t->product), log_below = vmath_log_cut(t->below);
    t->value = v_add(t->value, log_all);
    t->absolute = v_add(t->absolute, v_sub(log_all, v_add(log_below, log_below)));
    t->product = t->below = v_set1(1.0);
    t->waiting = 0;
#ifdef EMC_SINGLE
    t->value_so_far += v_sum(t->value);
    t->absolute_so_far += v_sum(t->absolute);
    t->value = t->absolute = v_zero();
#endif
}

EMC_INLINE vd two_exponentials(real *l, const real *cuts) {
    vd a = v_load(l), b = v_load(l + GROUP);
    const vd sum = pair_exponentials(&a, &b, v_set1(cuts[0]), v_set1(cuts[1]));
    v_store(l, a);
    v_store(l + GROUP, b);
    return sum;
}

/* The rows of one group: l holds log-densities plus log-weights, one block of GROUP a component, and takes weighted
 * responsibilities.  `list` names the m components that may count, ascending; NULL: all of m.  `unit`: all weights
 * are 1.  `lse` takes the log-densities of the rows, or is NULL.  `two`, known when this is compiled: m is 2, without a
 * list.  Returns the first row with weight and without a finite log-density, or -1. */
EMC_INLINE int normalise_group(job *p, real *l, const int *list, ptrdiff_t m, const real *w, int unit, real *lse,
                               int two) {
    int bad = -1;
    for (int v = 0; v < GROUP; v += 2 * V_LANES) {
        vd m0 = v_set1(-(real)INFINITY), m1 = m0;
        for (ptrdiff_t j = 0; j < m; j++) {
            const real *from = l + (list ? list[j] : j) * GROUP + v;
            m0 = v_max(m0, v_load(from));
            m1 = v_max(m1, v_load(from + V_LANES));
        }
        /* Where no density is finite, l - m is inf - inf: a clamped m and a bound at 0 avoid it. */
        const int careful = !holds_everywhere(v_both(is_finite(m0), is_finite(m1)));
        if (careful) {
            m0 = v_max(v_set1(-REAL_MAX), v_min(v_set1(REAL_MAX), m0));
            m1 = v_max(v_set1(-REAL_MAX), v_min(v_set1(REAL_MAX), m1));
        }
        vd s0 = v_zero(), s1 = v_zero();
        if (two && !careful) {
            s0 = two_exponentials(l + v, p->cuts);
            s1 = two_exponentials(l + v + V_LANES, p->cuts);
        } else {
            for (ptrdiff_t j = 0; j < m; j++) {
                const ptrdiff_t c = list ? list[j] : j;
                const vd cut = v_set1(p->cuts[c]);
                real *at = l + c * GROUP + v;
                vd x0 = v_sub(v_load(at), m0), x1 = v_sub(v_load(at + V_LANES), m1);
                if (careful) {
                    x0 = v_min(v_zero(), x0);
                    x1 = v_min(v_zero(), x1);
                }
                const vd e0 = vmath_exp_cut(x0, cut), e1 = vmath_exp_cut(x1, cut);
                v_store(at, e0);
                v_store(at + V_LANES, e1);
                s0 = v_add(s0, e0);
                s1 = v_add(s1, e1);
            }
        }

#ifdef EMC_SINGLE
        m0 = v_add(m0, v_set1(p->about));
        m1 = v_add(m1, v_set1(p->about));
#endif
        const vd one = v_set1(1.0), largest = v_set1(REAL_MAX), minus_log_k = v_set1(-p->log_k);
        const vd w0 = unit ? one : v_load(w + v), w1 = unit ? one : v_load(w + v + V_LANES);
        vm good0 = all_lanes(), good1 = good0;
        /* 0 <= log sum <= log k: the sign of log p is known without the logarithm but where m is just below 0. */
        const vm down0 = v_lt(m0, minus_log_k), down1 = v_lt(m1, minus_log_k);
        const vm known0 = v_both(v_either(v_le(v_zero(), m0), down0), v_le(s0, largest));
        const vm known1 = v_both(v_either(v_le(v_zero(), m1), down1), v_le(s1, largest));
        const int plain = unit && !careful && !lse && holds_everywhere(v_both(known0, known1));
        if (plain) {
            totals *t = &p->sums;
            t->value = v_add(t->value, v_add(m0, m1));
            t->absolute = v_add(t->absolute, v_add(v_abs(m0), v_abs(m1)));
            t->product = v_mul(t->product, v_mul(s0, s1));
            t->below = v_mul(t->below, v_mul(v_select(down0, s0, one), v_select(down1, s1, one)));
            if ((t->waiting += 2) >= PRODUCT_VECTORS)
                take_logarithms(t);
        } else {
            const vd lse0 = v_add(m0, vmath_log_cut(s0)), lse1 = v_add(m1, vmath_log_cut(s1));
            const vm weighted0 = v_lt(v_zero(), w0), weighted1 = v_lt(v_zero(), w1);
            good0 = v_both(weighted0, is_finite(lse0));
            good1 = v_both(weighted1, is_finite(lse1));
            if (bad < 0 && (v_any(v_without(weighted0, good0)) || v_any(v_without(weighted1, good1)))) {
                real value[2 * V_LANES];
                v_store(value, lse0);
                v_store(value + V_LANES, lse1);
                for (int i = 2 * V_LANES - 1; i >= 0; i--)
                    if (w[v + i] > 0.0 && !(value[i] >= -REAL_MAX && value[i] <= REAL_MAX))
                        bad = v + i;
            }
            if (lse) {
                v_store(lse + v, lse0);
                v_store(lse + v + V_LANES, lse1);
            }
            totals *t = &p->sums;
            const vd value0 = v_keep(good0, v_mul(w0, lse0)), value1 = v_keep(good1, v_mul(w1, lse1));
            t->value = v_add(t->value, v_add(value0, value1));
            t->absolute = v_add(t->absolute, v_add(v_abs(value0), v_abs(value1)));
#ifdef EMC_SINGLE
            if ((t->waiting += 2) >= PRODUCT_VECTORS)
                take_logarithms(t);
#endif
        }
        const vd scale0 = v_keep(good0, v_div(w0, s0)), scale1 = v_keep(good1, v_div(w1, s1));
        for (ptrdiff_t j = 0; j < m; j++) {
            real *at = l + (list ? list[j] : j) * GROUP + v;
            v_store(at, v_keep(good0, v_mul(v_load(at), scale0)));
            v_store(at + V_LANES, v_keep(good1, v_mul(v_load(at + V_LANES), scale1)));
        }
    }
    return bad;
}

/* What of the work space is whose. */
typedef struct space {
    real *blocks; /* GROUP values each: one a component for log-densities, then the pool */
    ptrdiff_t n_pool;
    double *squares;                  /* 2 d */
    real *lse;                        /* one a row */
    real *X, *w;                      /* sorted rows and weights */
    double *flat;                     /* rows one by one */
    const real **x, **r;              /* n_pool: the lists of groups, component by component */
    ptrdiff_t *start;                 /* k + 1 */
    int *pair_component, *pair_group; /* n_pool */
    int *guess, *order;               /* one a row */
    int *list;                        /* k */
    unsigned char *first;             /* k */
    real *cuts;                       /* k */
    real *y, *kept;                   /* one whitened group; for each row the sum of its weighted responsibilities */
    real *origin;                     /* d zeros */
    real *z;                          /* one group, less the mean of a component */
    double *sums;                     /* k (d + 1): of r x, and of r, over the panel */
#ifdef EMC_SINGLE
    real *rows, *weights; /* of the panel, in their order */
    double *doubles;      /* rows of one group on their way */
    real *parameters;
#endif
    ptrdiff_t total; /* doubles */
} space;

static int centres(const emc_gaussians *model) { return !model->diagonal && model->d >= CENTRED_COLUMNS; }

/* z = x - mu, one group. */
EMC_INLINE void centre_group(const real *x, const real *mu, ptrdiff_t d, real *z) {
    for (ptrdiff_t j = 0; j < d; j++, x += GROUP, z += GROUP) {
        const vd centre = v_set1(mu[j]);
        for (int v = 0; v < GROUP; v += V_LANES)
            v_store(z + v, v_sub(v_load(x + v), centre));
    }
}

/* Sums of r, r z and r z^2 over a list of groups. */
EMC_INLINE void squares_chunk(const rows *p, double *sum, double *squares) {
    ptrdiff_t j = 0;
    for (; j + 4 <= p->d; j += 4) {
        vd s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero();
        vd q0 = v_zero(), q1 = v_zero(), q2 = v_zero(), q3 = v_zero();
        const vd mu0 = v_set1(p->mu[j]), mu1 = v_set1(p->mu[j + 1]);
        const vd mu2 = v_set1(p->mu[j + 2]), mu3 = v_set1(p->mu[j + 3]);
        for (ptrdiff_t g = 0; g < p->ng; g++) {
            const real *x = p->x[g] + j * GROUP, *r = p->r[g];
            for (int v = 0; v < GROUP; v += V_LANES) {
                const vd t = v_pin(v_load(r + v));
                const vd z0 = v_sub(v_load(x + v), mu0), z1 = v_sub(v_load(x + v + GROUP), mu1);
                const vd z2 = v_sub(v_load(x + v + 2 * GROUP), mu2), z3 = v_sub(v_load(x + v + 3 * GROUP), mu3);
                const vd t0 = v_mul(t, z0), t1 = v_mul(t, z1), t2 = v_mul(t, z2), t3 = v_mul(t, z3);
                s0 = v_add(s0, t0);
                s1 = v_add(s1, t1);
                s2 = v_add(s2, t2);
                s3 = v_add(s3, t3);
                q0 = v_fma(t0, z0, q0);
                q1 = v_fma(t1, z1, q1);
                q2 = v_fma(t2, z2, q2);
                q3 = v_fma(t3, z3, q3);
            }
        }
        v_add_sums4(sum + j, s0, s1, s2, s3);
        v_add_sums4(squares + j, q0, q1, q2, q3);
    }
    for (; j < p->d; j++) {
        vd s = v_zero(), q = v_zero();
        for (ptrdiff_t g = 0; g < p->ng; g++) {
            for (int v = 0; v < GROUP; v += V_LANES) {
                const vd z = v_sub(v_load(p->x[g] + j * GROUP + v), v_set1(p->mu[j]));
                const vd t = v_mul(v_load(p->r[g] + v), z);
                s = v_add(s, t);
                q = v_fma(t, z, q);
            }
        }
        sum[j] += v_sum(s);
        squares[j] += v_sum(q);
    }
}

/* Adds the groups x[0 .. n - 1], with weights r, to the statistics of component c.  `squares`: d doubles of work. */
static void accumulate(const job *p, ptrdiff_t c, const real *const *x, const real *const *r, ptrdiff_t n,
                       double *squares) {
    const emc_gaussians *model = p->model;
    const ptrdiff_t k = p->k, d = p->d;
    vd s = v_zero();
    for (ptrdiff_t g = 0; g < n; g++) {
        vd s0 = v_zero(), s1 = s0; /* sums of each group: no long chain of additions that wait */
        for (int v = 0; v < GROUP; v += 2 * V_LANES) {
            s0 = v_add(s0, v_load(r[g] + v));
            s1 = v_add(s1, v_load(r[g] + v + V_LANES));
        }
        s = v_add(s, v_add(s0, s1));
    }
    const double count = v_sum(s);
    p->stats[c] += count;
    p->stats[k + c] += count;
    p->stats[2 * k + c] += count;
    double *sum = p->stats + 3 * k + c * d;
    rows list = {.x = x, .r = r, .mu = p->means + c * d, .ng = n, .d = d};
    if (model->diagonal && model->pooled) {
        memset(squares, 0, (size_t)d * sizeof *squares);
        squares_chunk(&list, sum, squares);
        for (ptrdiff_t j = 0; j < d; j++)
            p->second[c] += squares[j];
    } else if (model->diagonal) {
        squares_chunk(&list, sum, p->second + c * d);
    } else {
        const ptrdiff_t groups = d < WIDE ? CHUNK_GROUPS : CHUNK_GROUPS_WIDE;
        double *gram = p->second + (model->pooled ? 0 : c * p->n_second);
        for (ptrdiff_t g = 0; g < n; g += groups) {
            list.x = x + g;
            list.r = r + g;
            list.ng = n - g < groups ? n - g : groups;
            gram_chunk(&list, 1, gram, sum);
        }
    }
}

/* Adds the squared distances of one group, in the metric of a triangular factor, to q. */
static void add_centred(const space *s, const real *x, const real *mu, const real *factor, ptrdiff_t d, real *q) {
    centre_group(x, mu, d, s->z);
    for (int v = 0; v < GROUP; v += TILE_ROWS) {
        tri_head(x + v, mu, factor, d, q + v);
        for (ptrdiff_t i = d % 4; i < d; i += 4)
            centred_tile(s->z + v, factor, i, q + v);
    }
}

/* Log-densities plus log-weights of component c. */
EMC_INLINE void densities(const job *p, const space *s, ptrdiff_t c, const real *X, ptrdiff_t ng, real *out,
                          ptrdiff_t stride) {
    const emc_gaussians *model = p->model;
    const real *mu = p->means + c * p->d, *factor = p->factors + c * model->factor_stride;
    if (model->diagonal) {
        EMC_NAME(sqdist_diag)(X, ng, p->d, mu, factor, p->peaks[c], -0.5, out, stride);
    } else if (!centres(model)) {
        EMC_NAME(sqdist_tri)(X, ng, p->d, mu, factor, p->peaks[c], -0.5, out, stride);
    } else {
        const vd half = v_set1(-0.5), peak = v_set1(p->peaks[c]);
        for (ptrdiff_t g = 0; g < ng; g++, out += stride) {
            for (int v = 0; v < GROUP; v += V_LANES)
                v_store(out + v, v_zero());
            add_centred(s, X + g * p->d * GROUP, mu, factor, p->d, out);
            for (int v = 0; v < GROUP; v += V_LANES)
                v_store(out + v, v_fma(half, v_load(out + v), peak));
        }
    }
}

/* Whether any row of a group has a responsibility; mostly it is seen at the first vector. */
EMC_INLINE int has_weight(const real *r) {
    for (int v = 0; v < GROUP; v += V_LANES)
        if (v_any(v_lt(v_zero(), v_load(r + v))))
            return 1;
    return 0;
}

static ptrdiff_t subpanel_groups(const emc_gaussians *model) {
    const ptrdiff_t groups = SUBPANEL_VALUES / model->k;
    const ptrdiff_t most = model->diagonal ? SUBPANEL_GROUPS_DIAGONAL : SUBPANEL_GROUPS;
    return groups < 4 ? 4 : groups > most ? most : groups;
}

/* Callers compiled for an older header know nothing of fields that came later: each is looked for by itself, as what is
 * the newest one now will not always be. */
#define HAS(model, field) ((model)->size >= offsetof(emc_gaussians, field) + sizeof((model)->field))
static const double *white_means(const emc_gaussians *model) { return HAS(model, white) ? model->white : NULL; }

/* Sorting numbers rows by int and guesses components by real: of more of them none are sorted. */
static int may_sort(const emc_gaussians *model, ptrdiff_t n) {
    return !white_means(model) && model->slopes && model->threshold < (real)INFINITY && n >= SORTED_ROWS &&
           n <= INT_MAX - GROUP && model->d >= SORTED_COLUMNS && model->k > 1 && model->k <= MOST_GUESSED;
}

#ifdef EMC_SINGLE
static ptrdiff_t wide(const emc_gaussians *model) { return (model->k + 3) / 4 * 4; }
static ptrdiff_t n_factors(const emc_gaussians *model) {
    const ptrdiff_t one = model->diagonal ? model->d : model->d * (model->d + 1) / 2;
    return model->factor_stride ? model->k * one : one;
}

/* How many numbers the parameters are. */
static ptrdiff_t n_parameters(const emc_gaussians *model) {
    const ptrdiff_t K = wide(model), k = model->k, d = model->d;
    return k * d + n_factors(model) + K + (model->slopes ? K * (d + 1) : 0) +
           (model->directions ? k * K * (d + 1) : 0) + (white_means(model) ? K * d : 0);
}
#endif

static void *carve(ptrdiff_t *used, double *work, ptrdiff_t items, size_t size) {
    const ptrdiff_t at = *used, bytes = items * (ptrdiff_t)size, room = emc_room(bytes);
    *used += room / (ptrdiff_t)sizeof(double);
    if (!work)
        return NULL;
    emc_fence(work + at, bytes, room);
    return work + at;
}

static space lay_out(const emc_gaussians *model, ptrdiff_t n, double *work) {
    const ptrdiff_t k = model->k, d = model->d, padded = (n + GROUP - 1) / GROUP * GROUP;
    const ptrdiff_t dense = subpanel_groups(model) * k;
    const ptrdiff_t wide = (k + 3) / 4 * 4; /* tiles take four components at a time */
    space s = {.n_pool = dense < POOL_BLOCKS ? POOL_BLOCKS : dense};
    const int sorted = may_sort(model, n);
    ptrdiff_t used = 0;
#define CARVE(type, items) carve(&used, work, items, sizeof(type))
    s.blocks = CARVE(real, (sorted ? wide + s.n_pool : dense + wide - k) * GROUP);
    s.squares = CARVE(double, 2 * d);
    s.cuts = CARVE(real, k);
    s.lse = CARVE(real, padded);
#ifdef EMC_SINGLE
    s.rows = CARVE(real, padded * d);
    s.weights = CARVE(real, padded);
    s.doubles = CARVE(double, GROUP *d);
    s.parameters = CARVE(real, n_parameters(model));
#endif
    if (centres(model))
        s.z = CARVE(real, GROUP * d);
    if (white_means(model)) {
        s.y = CARVE(real, GROUP * d);
        s.kept = CARVE(real, padded);
        s.origin = CARVE(real, d);
        s.sums = CARVE(double, k *(d + 1));
    }
    if (sorted) {
        s.X = CARVE(real, padded * d);
        s.w = CARVE(real, padded);
        s.flat = CARVE(double, n *d);
        s.x = CARVE(const real *, s.n_pool);
        s.r = CARVE(const real *, s.n_pool);
        s.start = CARVE(ptrdiff_t, k + 1);
        s.pair_component = CARVE(int, s.n_pool);
        s.pair_group = CARVE(int, s.n_pool);
        s.guess = CARVE(int, padded);
        s.order = CARVE(int, padded);
        s.list = CARVE(int, k);
        s.first = CARVE(unsigned char, k);
    }
#undef CARVE
    s.total = used;
    return s;
}

ptrdiff_t EMC_NAME(gaussian_mixture_work)(const emc_gaussians *model, ptrdiff_t n) {
    const ptrdiff_t total = lay_out(model, n, NULL).total;
#ifdef EMC_SINGLE
    const ptrdiff_t in_double = EMC_DOUBLE_NAME(gaussian_mixture_work)(model, n);
    return total < in_double ? in_double : total;
#else
    return total;
#endif
}

EMC_INLINE void normalise_groups(job *p, const space *s, ptrdiff_t g0, ptrdiff_t here, ptrdiff_t k, int two) {
    emc_panel *panel = p->panel;
    for (ptrdiff_t g = 0; g < here; g++) {
        const ptrdiff_t row = (g0 + g) * GROUP;
        const int unit = p->unit_weights && row + GROUP <= panel->n;
        real *lse = panel->row_loglik ? s->lse + row : NULL;
        const int bad = normalise_group(p, s->blocks + g * k * GROUP, NULL, k, p->w + row, unit, lse, two);
        if (bad >= 0 && panel->bad_row < 0)
            panel->bad_row = row + bad;
    }
}

/* Apart, so that each keeps its own constants in registers. */
EMC_NOINLINE void normalise_two(job *p, const space *s, ptrdiff_t g0, ptrdiff_t here) {
    normalise_groups(p, s, g0, here, 2, 1);
}

EMC_NOINLINE void normalise_any(job *p, const space *s, ptrdiff_t g0, ptrdiff_t here) {
    normalise_groups(p, s, g0, here, p->k, 0);
}

/* Log-densities of the groups from g0 on become responsibilities. */
static void normalise_subpanel(job *p, const space *s, ptrdiff_t g0, ptrdiff_t here) {
    if (p->k == 2)
        normalise_two(p, s, g0, here);
    else
        normalise_any(p, s, g0, here);
#ifndef EMC_SINGLE
    const emc_panel *panel = p->panel;
    if (panel->resp) {
        const ptrdiff_t k = p->k, row = g0 * GROUP, rest = panel->n - row;
        EMC_NAME(unpack)(panel->resp + row * k, s->blocks, rest < here * GROUP ? rest : here * GROUP, k);
    }
#endif
}

static void give_row_logliks(const job *p, const space *s) {
    if (p->panel->row_loglik)
        for (ptrdiff_t i = 0; i < p->panel->n; i++)
            p->panel->row_loglik[i] = s->lse[i];
}

/* Rows in their order, every component for every row. */
static void dense(job *p, const space *s) {
    emc_panel *panel = p->panel;
    const ptrdiff_t k = p->k, d = p->d, ng = (panel->n + GROUP - 1) / GROUP;
    const ptrdiff_t groups = subpanel_groups(p->model), stride = k * GROUP;
    for (ptrdiff_t g0 = 0; g0 < ng; g0 += groups) {
        const ptrdiff_t here = ng - g0 < groups ? ng - g0 : groups;
        const real *X = p->X + g0 * d * GROUP;
        for (ptrdiff_t c = 0; c < k; c++)
            densities(p, s, c, X, here, s->blocks + c * GROUP, stride);
        normalise_subpanel(p, s, g0, here);
        if (!p->stats)
            continue;
        for (ptrdiff_t c = 0; c < k; c++) {
            const real *x[SUBPANEL_GROUPS], *r[SUBPANEL_GROUPS];
            ptrdiff_t m = 0;
            for (ptrdiff_t g = 0; g < here; g++) {
                r[m] = s->blocks + g * stride + c * GROUP;
                x[m] = X + g * d * GROUP;
                m += has_weight(r[m]);
            }
            if (m > 0)
                accumulate(p, c, x, r, m, s->squares);
        }
    }
    give_row_logliks(p, s);
}

/* Log-densities of components c .. c + 3 for the rows of one tile, whitened. */
TILE_FUNCTION void white_tile(const real *y, ptrdiff_t d, const real *white, const real *peaks, ptrdiff_t c,
                              real *out) {
    const real *ba = white + c * d, *bb = ba + d, *bc = bb + d, *bd = bc + d;
    vd a0 = v_zero(), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    vd c0 = a0, c1 = a0, c2 = a0, c3 = a0, d0 = a0, d1 = a0, d2 = a0, d3 = a0;
    vd y0, y1, y2 = v_zero(), y3 = v_zero(), t;
#define ADD_SQUARE(e, i)                                                                                               \
    do {                                                                                                               \
        t = v_sub(y##i, centre);                                                                                       \
        e##i = v_fma(t, t, e##i);                                                                                      \
    } while (0)
#define ADD_SQUARES(e, b)                                                                                              \
    do {                                                                                                               \
        const vd centre = v_pin(v_set1(b));                                                                            \
        ADD_SQUARE(e, 0);                                                                                              \
        ADD_SQUARE(e, 1);                                                                                              \
        if (ROW_VECTORS == 4) {                                                                                        \
            ADD_SQUARE(e, 2);                                                                                          \
            ADD_SQUARE(e, 3);                                                                                          \
        }                                                                                                              \
    } while (0)
    for (ptrdiff_t j = 0; j < d; j++, y += GROUP) {
        y0 = v_pin(v_load(y));
        y1 = v_pin(v_load(y + V_LANES));
        if (ROW_VECTORS == 4) {
            y2 = v_pin(v_load(y + 2 * V_LANES));
            y3 = v_pin(v_load(y + 3 * V_LANES));
        }
        ADD_SQUARES(a, ba[j]);
        ADD_SQUARES(b, bb[j]);
        ADD_SQUARES(c, bc[j]);
        ADD_SQUARES(d, bd[j]);
    }
#undef ADD_SQUARES
#undef ADD_SQUARE
    const vd half = v_set1(-0.5);
#define STORE_DENSITIES(e, at)                                                                                         \
    do {                                                                                                               \
        const vd peak = v_set1(peaks[c + (at)]);                                                                       \
        real *to = out + (c + (at)) * GROUP;                                                                           \
        e##0 = v_fma(half, e##0, peak);                                                                                \
        e##1 = v_fma(half, e##1, peak);                                                                                \
        e##2 = v_fma(half, e##2, peak);                                                                                \
        e##3 = v_fma(half, e##3, peak);                                                                                \
        STORE_OUTPUT(to, e);                                                                                           \
    } while (0)
    STORE_DENSITIES(a, 0);
    STORE_DENSITIES(b, 1);
    STORE_DENSITIES(c, 2);
    STORE_DENSITIES(d, 3);
#undef STORE_DENSITIES
}

/* out[4 e + i] = sum r x over the groups, for the four components r[e] and TILE_COLUMNS columns at offsets column[i].
 */
TILE_FUNCTION void sums_tile(const real *X, ptrdiff_t ng, ptrdiff_t x_stride, const ptrdiff_t *column,
                             const real *const *r, ptrdiff_t r_stride, double *out) {
    vd a0 = v_zero(), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    vd c0 = a0, c1 = a0, c2 = a0, c3 = a0, d0 = a0, d1 = a0, d2 = a0, d3 = a0;
    const real *ra = r[0], *rb = r[1], *rc = r[2], *rd = r[3];
    const real *x0 = X + column[0], *x1 = X + column[1], *x2 = X + column[2], *x3 = X + column[3];
#define ADD_TO(e)                                                                                                      \
    do {                                                                                                               \
        const vd weight = v_pin(v_load(r##e + v));                                                                     \
        e##0 = v_fma(weight, z0, e##0);                                                                                \
        e##1 = v_fma(weight, z1, e##1);                                                                                \
        if (TILE_COLUMNS == 4) {                                                                                       \
            e##2 = v_fma(weight, z2, e##2);                                                                            \
            e##3 = v_fma(weight, z3, e##3);                                                                            \
        }                                                                                                              \
    } while (0)
    for (ptrdiff_t g = 0; g < ng; g++) {
        for (int v = 0; v < GROUP; v += V_LANES) {
            const vd z0 = v_pin(v_load(x0 + v)), z1 = v_pin(v_load(x1 + v));
            const vd z2 = TILE_COLUMNS == 4 ? v_pin(v_load(x2 + v)) : v_zero();
            const vd z3 = TILE_COLUMNS == 4 ? v_pin(v_load(x3 + v)) : v_zero();
            ADD_TO(a);
            ADD_TO(b);
            ADD_TO(c);
            ADD_TO(d);
        }
        x0 += x_stride, x1 += x_stride, x2 += x_stride, x3 += x_stride;
        ra += r_stride, rb += r_stride, rc += r_stride, rd += r_stride;
    }
#undef ADD_TO
    memset(out, 0, 16 * sizeof *out);
    v_add_sums4(out, a0, a1, a2, a3);
    v_add_sums4(out + 4, b0, b1, b2, b3);
    v_add_sums4(out + 8, c0, c1, c2, c3);
    v_add_sums4(out + 12, d0, d1, d2, d3);
}

/* Sums of r x and r over some groups, all components; the last tile takes what it has not twice. */
static void add_sums(const job *p, const space *s, const real *X, ptrdiff_t ng) {
    const ptrdiff_t k = p->k, d = p->d, stride = k * GROUP;
    double tile[16];
    for (ptrdiff_t c = 0; c < k; c += 4) {
        const real *r[4];
        for (ptrdiff_t e = 0; e < 4; e++)
            r[e] = s->blocks + (c + e < k ? c + e : k - 1) * GROUP;
        for (ptrdiff_t j = 0; j < d; j += TILE_COLUMNS) {
            ptrdiff_t column[4] = {0};
            for (ptrdiff_t i = 0; i < TILE_COLUMNS; i++)
                column[i] = (j + i < d ? j + i : d - 1) * GROUP;
            sums_tile(X, ng, d * GROUP, column, r, stride, tile);
            for (ptrdiff_t e = 0; e < 4 && c + e < k; e++)
                for (ptrdiff_t i = 0; i < TILE_COLUMNS && j + i < d; i++)
                    s->sums[(c + e) * d + j + i] += tile[4 * e + i];
        }
    }
    double *count = s->sums + k * d;
    for (ptrdiff_t c = 0; c < k; c++) {
        vd sum = v_zero();
        for (ptrdiff_t g = 0; g < ng; g++)
            for (int v = 0; v < GROUP; v += V_LANES)
                sum = v_add(sum, v_load(s->blocks + g * stride + c * GROUP + v));
        count[c] += v_sum(sum);
    }
}

/* Adds what the rows of a panel gave about the origin to the statistics about the means. */
static void accumulate_about_means(const job *p, const space *s, ptrdiff_t ng) {
    const ptrdiff_t k = p->k, d = p->d;
    for (ptrdiff_t g = 0; g < ng;) {
        const real *x[CHUNK_GROUPS], *r[CHUNK_GROUPS];
        const ptrdiff_t most = d < WIDE ? CHUNK_GROUPS : CHUNK_GROUPS_WIDE;
        ptrdiff_t n = 0;
        for (; n < most && g < ng; n++, g++) {
            x[n] = p->X + g * d * GROUP;
            r[n] = s->kept + g * GROUP;
        }
        const rows list = {.x = x, .r = r, .mu = s->origin, .ng = n, .d = d};
        gram_chunk(&list, 0, p->second, NULL);
    }
    for (ptrdiff_t c = 0; c < k; c++) {
        const double *mu = p->model->means + c * d, count = s->sums[k * d + c];
        double *from = s->sums + c * d, *to = p->stats + 3 * k + c * d, *second = p->second;
        p->stats[c] += count;
        p->stats[k + c] += count;
        p->stats[2 * k + c] += count;
        for (ptrdiff_t j = 0; j < d; j++) {
            to[j] += from[j] - count * mu[j];
            from[j] -= 0.5 * count * mu[j];
        }
        for (ptrdiff_t i = 0; i < d; i++) {
            const double a = from[i], b = mu[i];
            for (ptrdiff_t j = 0; j <= i; j++)
                *second++ -= a * mu[j] + b * from[j];
        }
    }
}

/* Rows in their order, whitened once for all components. */
static void whitened(job *p, const space *s) {
    const ptrdiff_t k = p->k, d = p->d, ng = (p->panel->n + GROUP - 1) / GROUP;
    const ptrdiff_t groups = subpanel_groups(p->model), stride = k * GROUP;
    for (ptrdiff_t j = 0; j < d; j++)
        s->origin[j] = 0;
    memset(s->sums, 0, (size_t)(k * (d + 1)) * sizeof *s->sums);
    for (ptrdiff_t g0 = 0; g0 < ng; g0 += groups) {
        const ptrdiff_t here = ng - g0 < groups ? ng - g0 : groups;
        const real *X = p->X + g0 * d * GROUP;
        for (ptrdiff_t g = 0; g < here; g++) {
            for (int v = 0; v < GROUP; v += TILE_ROWS)
                whiten_rows(X + g * d * GROUP + v, s->origin, p->factors, d, s->y + v);
            for (ptrdiff_t c = 0; c < k; c += 4) /* the last tile may run into the next group, which comes after it */
                for (int v = 0; v < GROUP; v += TILE_ROWS)
                    white_tile(s->y + v, d, p->white, p->peaks, c, s->blocks + g * stride + v);
        }
        normalise_subpanel(p, s, g0, here);
        if (!p->stats)
            continue;
        for (ptrdiff_t g = 0; g < here; g++) {
            for (int v = 0; v < GROUP; v += V_LANES) {
                vd sum = v_zero();
                for (ptrdiff_t c = 0; c < k; c++)
                    sum = v_add(sum, v_load(s->blocks + g * stride + c * GROUP + v));
                v_store(s->kept + (g0 + g) * GROUP + v, sum);
            }
        }
        add_sums(p, s, X, here);
    }
    if (p->stats)
        accumulate_about_means(p, s, ng);
    give_row_logliks(p, s);
}

/* Declares a0 .. d3 = offset + slope x for components c .. c + 3 and the rows of one tile. */
#define LINEAR_TILE(x, columns, slopes, offsets, c)                                                                    \
    const real *La = (slopes) + (c) * (columns), *Lb = La + (columns), *Lc = Lb + (columns), *Ld = Lc + (columns);     \
    vd a0 = v_set1((offsets)[c]), a1 = a0, a2 = a0, a3 = a0;                                                           \
    vd b0 = v_set1((offsets)[(c) + 1]), b1 = b0, b2 = b0, b3 = b0;                                                     \
    vd c0 = v_set1((offsets)[(c) + 2]), c1 = c0, c2 = c0, c3 = c0;                                                     \
    vd d0 = v_set1((offsets)[(c) + 3]), d1 = d0, d2 = d0, d3 = d0;                                                     \
    vd z0, z1, z2 = v_zero(), z3 = v_zero();                                                                           \
    for (ptrdiff_t j = 0; j < (columns); j++) {                                                                        \
        z0 = v_load((x) + j * GROUP);                                                                                  \
        z1 = v_load((x) + j * GROUP + V_LANES);                                                                        \
        if (ROW_VECTORS == 4) {                                                                                        \
            z2 = v_load((x) + j * GROUP + 2 * V_LANES);                                                                \
            z3 = v_load((x) + j * GROUP + 3 * V_LANES);                                                                \
        }                                                                                                              \
        ADD_OUTPUT(a, La[j]);                                                                                          \
        ADD_OUTPUT(b, Lb[j]);                                                                                          \
        ADD_OUTPUT(c, Lc[j]);                                                                                          \
        ADD_OUTPUT(d, Ld[j]);                                                                                          \
    }

/* Raises best and index to the better of what they are and the scores of components c .. c + 3. */
EMC_INLINE void guess_tile(const real *x, ptrdiff_t d, const real *slopes, const real *offsets, ptrdiff_t c, real *best,
                           real *index) {
    LINEAR_TILE(x, d, slopes, offsets, c)
#define RAISE(at, i)                                                                                                   \
    do {                                                                                                               \
        const vd ab = v_max(a##i, b##i), cd = v_max(c##i, d##i), top = v_max(ab, cd);                                  \
        const vd old = v_load(best + (at));                                                                            \
        const vd first = v_select(v_lt(a##i, b##i), v_set1((real)(c + 1)), v_set1((real)c));                           \
        const vd second = v_select(v_lt(c##i, d##i), v_set1((real)(c + 3)), v_set1((real)(c + 2)));                    \
        const vd here = v_select(v_lt(ab, cd), second, first);                                                         \
        v_store(index + (at), v_select(v_lt(old, top), here, v_load(index + (at))));                                   \
        v_store(best + (at), v_max(old, top));                                                                         \
    } while (0)
    RAISE(0, 0);
    RAISE(V_LANES, 1);
    if (ROW_VECTORS == 4) {
        RAISE(2 * V_LANES, 2);
        RAISE(3 * V_LANES, 3);
    }
#undef RAISE
}

/* Upper bounds of the log-densities of components c .. c + 3, one block each, from one direction a component: by Cauchy
 * and Schwarz the squared distance is at least the square of its component along any unit vector of the metric.
 * `again`: the lesser of these and what is there. */
EMC_INLINE void bound_tile(const real *x, ptrdiff_t d, const real *slopes, const real *offsets, const real *peaks,
                           ptrdiff_t c, int again, real *bound) {
    LINEAR_TILE(x, d, slopes, offsets, c)
    /* A little less than a half: the squared distance that this bounds has rounding of its own. */
    const vd half = v_set1(-0.5 * (1.0 - (sizeof(real) < sizeof(double) ? 0x1p-8 : 0x1p-20)));
#define BOUND(e, at)                                                                                                   \
    do {                                                                                                               \
        const vd peak = v_set1(peaks[c + (at)]);                                                                       \
        real *to = bound + (c + (at)) * GROUP;                                                                         \
        BOUND_VECTOR(e##0, 0);                                                                                         \
        BOUND_VECTOR(e##1, 1);                                                                                         \
        if (ROW_VECTORS == 4) {                                                                                        \
            BOUND_VECTOR(e##2, 2);                                                                                     \
            BOUND_VECTOR(e##3, 3);                                                                                     \
        }                                                                                                              \
    } while (0)
#define BOUND_VECTOR(t, i)                                                                                             \
    do {                                                                                                               \
        vd value = v_fma(half, v_mul(t, t), peak);                                                                     \
        if (again)                                                                                                     \
            value = v_min(value, v_load(to + (i) * V_LANES));                                                          \
        v_store(to + (i) * V_LANES, value);                                                                            \
    } while (0)
    BOUND(a, 0);
    BOUND(b, 1);
    BOUND(c, 2);
    BOUND(d, 3);
#undef BOUND
#undef BOUND_VECTOR
}

static void guess_components(const job *p, const real *X, ptrdiff_t ng, int *guess) {
    const ptrdiff_t d = p->d;
    real best[TILE_ROWS], index[TILE_ROWS];
    for (ptrdiff_t i = 0; i < ng * GROUP; i += TILE_ROWS) {
        for (int v = 0; v < TILE_ROWS; v += V_LANES) {
            v_store(best + v, v_set1(-(real)INFINITY));
            v_store(index + v, v_zero());
        }
        const real *x = X + i / GROUP * GROUP * d + i % GROUP;
        for (ptrdiff_t c = 0; c < p->k; c += 4)
            guess_tile(x, d, p->slopes, p->offsets, c, best, index);
        for (int v = 0; v < TILE_ROWS; v++)
            guess[i + v] = (int)index[v];
    }
}

/* order[i] = the i-th row when rows are sorted by guess, those of one guess in their order. */
static void sort_rows(const int *guess, ptrdiff_t n, ptrdiff_t k, ptrdiff_t *start, int *order) {
    memset(start, 0, (size_t)(k + 1) * sizeof *start);
    for (ptrdiff_t i = 0; i < n; i++)
        start[guess[i] + 1]++;
    for (ptrdiff_t c = 0; c < k; c++)
        start[c + 1] += start[c];
    for (ptrdiff_t i = 0; i < n; i++)
        order[start[guess[i]]++] = (int)i;
}

/* q += the squares of columns i .. i + columns - 1 (at most 4), one group, scaled. */
EMC_INLINE void diagonal_tile(const real *x, const real *mu, const real *s, ptrdiff_t i, int columns, real *q) {
    x += i * GROUP;
    mu += i;
    s += i;
    for (int v = 0; v < GROUP; v += V_LANES) {
        vd sum = v_load(q + v);
        for (int j = 0; j < columns; j++) {
            const vd z = v_mul(v_sub(v_load(x + v + j * GROUP), v_set1(mu[j])), v_set1(s[j]));
            sum = v_fma(z, z, sum);
        }
        v_store(q + v, sum);
    }
}

/* Adds the first d % 4 columns, or outputs, to the squared distance of one group, or the four that begin at i. */
EMC_INLINE void add_head(const emc_gaussians *model, const real *x, const real *mu, const real *factor, real *q) {
    const ptrdiff_t d = model->d;
    if (model->diagonal) {
        if (d % 4 == 1)
            diagonal_tile(x, mu, factor, 0, 1, q);
        else if (d % 4 == 2)
            diagonal_tile(x, mu, factor, 0, 2, q);
        else if (d % 4 == 3)
            diagonal_tile(x, mu, factor, 0, 3, q);
    } else if (d % 4 != 0) {
        for (int v = 0; v < GROUP; v += TILE_ROWS)
            tri_head(x + v, mu, factor, d, q + v);
    }
}
EMC_INLINE void add_four(const emc_gaussians *model, const real *x, const real *mu, const real *factor, ptrdiff_t i,
                         real *q) {
    if (model->diagonal)
        diagonal_tile(x, mu, factor, i, 4, q);
    else
        for (int v = 0; v < GROUP; v += TILE_ROWS)
            whole_tile(x + v, mu, factor, i, q + v);
}

/* Log-densities of component c in one group, given up when they are ruled out beside `best`, the largest so far:
 * tells whether they are complete, and then raises `best`. */
EMC_INLINE int density_of_group(const job *p, const space *s, ptrdiff_t c, const real *x, int give_up, real *best,
                                real *l) {
    const emc_gaussians *model = p->model;
    const real *mu = p->means + c * p->d, *factor = p->factors + c * model->factor_stride;
    const vd half = v_set1(-0.5), peak = v_set1(p->peaks[c]), cut = v_set1(p->cuts[c]);
    _Alignas(EMC_ALIGN) real q[GROUP];
    for (int v = 0; v < GROUP; v += V_LANES)
        v_store(q + v, v_zero());
    const int centred = !give_up && centres(model);
    if (centred)
        add_centred(s, x, mu, factor, p->d, q);
    else
        add_head(model, x, mu, factor, q);
    for (ptrdiff_t i = p->d % 4; i < p->d && !centred; i += 4) {
        add_four(model, x, mu, factor, i, q);
        if (give_up) {
            vm out = all_lanes();
            for (int v = 0; v < GROUP; v += V_LANES)
                out = v_both(out, v_lt(v_sub(v_fma(half, v_load(q + v), peak), v_load(best + v)), cut));
            if (holds_everywhere(out))
                return 0;
        }
    }
    for (int v = 0; v < GROUP; v += V_LANES) {
        const vd value = v_fma(half, v_load(q + v), peak);
        v_store(l + v, value);
        v_store(best + v, v_max(v_load(best + v), value));
    }
    return 1;
}

/* Whether log-densities of component c of at most `bound` are dropped in all rows of the group. */
EMC_INLINE int ruled_out(const job *p, ptrdiff_t c, const real *bound, const real *best) {
    const vd cut = v_set1(p->cuts[c]);
    vm out = all_lanes();
    for (int v = 0; v < GROUP; v += V_LANES)
        out = v_both(out, v_lt(v_sub(v_load(bound + v), v_load(best + v)), cut));
    return holds_everywhere(out);
}

EMC_INLINE void bound_group(const real *x, ptrdiff_t d, const real *slopes, const real *offsets, const real *peaks,
                            ptrdiff_t wide, int again, real *bound) {
    for (ptrdiff_t c = 0; c < wide; c += 4)
        for (int v = 0; v < GROUP; v += TILE_ROWS)
            if (again)
                bound_tile(x + v, d, slopes, offsets, peaks, c, 1, bound + v);
            else
                bound_tile(x + v, d, slopes, offsets, peaks, c, 0, bound + v);
}

/* Adds the first `n` pairs of (component, group) of the pool to the statistics. */
static void accumulate_pairs(const job *p, const space *s, ptrdiff_t n) {
    const real *pool = s->blocks + (p->k + 3) / 4 * 4 * GROUP;
    ptrdiff_t *start = s->start;
    memset(start, 0, (size_t)(p->k + 1) * sizeof *start);
    for (ptrdiff_t i = 0; i < n; i++)
        start[s->pair_component[i] + 1]++;
    for (ptrdiff_t c = 0; c < p->k; c++)
        start[c + 1] += start[c];
    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t at = start[s->pair_component[i]]++;
        s->x[at] = s->X + s->pair_group[i] * p->d * GROUP;
        s->r[at] = pool + i * GROUP;
    }
    for (ptrdiff_t c = 0, at = 0; c < p->k; at = start[c++])
        if (start[c] > at)
            accumulate(p, c, s->x + at, s->r + at, start[c] - at, s->squares);
}

/* One group of the sorted rows; adds the pairs with weight to the pool, from n_pairs on, and returns their new number.
 */
static ptrdiff_t sorted_group(job *p, const space *s, ptrdiff_t g, ptrdiff_t n_pairs) {
    emc_panel *panel = p->panel;
    const ptrdiff_t k = p->k, row = g * GROUP;
    const ptrdiff_t n = panel->n - row < GROUP ? panel->n - row : GROUP;
    const real *x = s->X + row * p->d;
    real *l = s->blocks;
    _Alignas(EMC_ALIGN) real best[GROUP];
    for (int v = 0; v < GROUP; v += V_LANES)
        v_store(best + v, v_set1(-(real)INFINITY));
    /* The distinct guesses, ascending like those of the rows. */
    int *guesses = s->list, n_guesses = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const int c = s->guess[s->order[row + i]];
        if (n_guesses == 0 || guesses[n_guesses - 1] != c)
            guesses[n_guesses++] = c;
    }
    const ptrdiff_t wide = (k + 3) / 4 * 4;
    for (int i = 0; p->directions && i < n_guesses && i < MOST_DIRECTIONS; i++)
        bound_group(x, p->d, p->directions + guesses[i] * wide * p->d, p->direction_offsets + guesses[i] * wide,
                    p->peaks, wide, i > 0, l);
    for (int i = 0; i < n_guesses; i++) {
        density_of_group(p, s, guesses[i], x, 0, best, l + guesses[i] * GROUP);
        s->first[guesses[i]] = 1;
    }
    const int from = guesses[0], to = guesses[n_guesses - 1];
    int m = 0;
    for (int c = 0; c < k; c++) {
        if (!s->first[c]) {
            if (p->directions && ruled_out(p, c, l + c * GROUP, best))
                continue;
            if (!density_of_group(p, s, c, x, 1, best, l + c * GROUP))
                continue;
        }
        s->list[m++] = c;
    }
    memset(s->first + from, 0, (size_t)(to - from + 1));

    const int bad = normalise_group(p, l, s->list, m, s->w + row, p->unit_weights && n == GROUP,
                                    panel->row_loglik ? s->lse + row : NULL, 0);
    if (bad >= 0 && (panel->bad_row < 0 || s->order[row + bad] < panel->bad_row))
        panel->bad_row = s->order[row + bad];
    if (panel->row_loglik)
        for (ptrdiff_t i = 0; i < n; i++)
            panel->row_loglik[s->order[row + i]] = s->lse[row + i];
    real *block = s->blocks + (wide + n_pairs) * GROUP;
    for (int j = 0; j < m; j++) {
        const real *r = l + s->list[j] * GROUP;
        if (panel->resp)
            for (ptrdiff_t i = 0; i < n; i++)
                panel->resp[s->order[row + i] * k + s->list[j]] = r[i];
        vm some = v_lt(v_zero(), v_zero());
        for (int v = 0; v < GROUP; v += V_LANES) {
            const vd value = v_load(r + v);
            v_store(block + v, value);
            some = v_either(some, v_lt(v_zero(), value));
        }
        if (p->stats && v_any(some)) {
            s->pair_component[n_pairs] = s->list[j];
            s->pair_group[n_pairs++] = (int)g;
            block += GROUP;
        }
    }
    return n_pairs;
}

/* Packs n rows in the order `order` as float64, from the rows as they came or, where those are strided, from s->flat.
 */
static int pack_some(const job *p, const space *s, int came, const int *order, ptrdiff_t n, double *X) {
    const emc_panel *panel = p->panel;
    const emc_gaussians *model = p->model;
    const ptrdiff_t d = p->d, item = sizeof(double);
    if (came)
        return EMC_DOUBLE_NAME(pack_chosen)(X, order, n, d, panel->raw, panel->raw_type, panel->raw_row_stride,
                                            panel->raw_col_stride, model->shift, model->scale);
    return EMC_DOUBLE_NAME(pack_chosen)(X, order, n, d, s->flat, EMC_FLOAT64, d * item, item, s->squares,
                                        s->squares + d);
}

#ifdef EMC_SINGLE
/* One group of rows in lanes of float32, from packed float64: n of them, the others repeat the last. */
static void to_single(real *X, const double *from, ptrdiff_t n, ptrdiff_t d) {
    for (ptrdiff_t i0 = 0; i0 < GROUP; i0 += EMC_GROUP)
        for (ptrdiff_t j = 0; j < d; j++)
            for (ptrdiff_t i = 0; i < EMC_GROUP; i++)
                X[j * GROUP + i0 + i] = i0 < n ? (real)from[(i0 * d) + j * EMC_GROUP + i] : X[j * GROUP + i0 - 1];
}
#endif

/* Packs the panel's rows in the order s->order. */
static void pack_sorted(const job *p, const space *s) {
    const emc_panel *panel = p->panel;
    const ptrdiff_t n = panel->n, d = p->d, padded = (n + GROUP - 1) / GROUP * GROUP;
    const int came = pack_some(p, s, 1, s->order, 0, s->flat);
    if (!came) {
        EMC_DOUBLE_NAME(unpack)(s->flat, panel->X, n, d);
        for (ptrdiff_t j = 0; j < d; j++) {
            s->squares[j] = 0.0;
            s->squares[d + j] = 1.0;
        }
    }
#ifdef EMC_SINGLE
    for (ptrdiff_t i = 0; i < n; i += GROUP) {
        const ptrdiff_t here = n - i < GROUP ? n - i : GROUP;
        pack_some(p, s, came, s->order + i, here, s->doubles);
        to_single(s->X + i * d, s->doubles, here, d);
    }
#else
    pack_some(p, s, came, s->order, n, s->X);
#endif
    /* Rows of weight 0 may hold anything, but 0 times infinity is not 0: take them from where they are finite. */
    for (ptrdiff_t i = 0; i < padded; i++) {
        s->w[i] = i < n ? p->w[s->order[i]] : 0;
        if (s->w[i] > 0)
            continue;
        const ptrdiff_t from = s->order[i < n ? i : n - 1];
        for (ptrdiff_t j = 0; j < d; j++)
            s->X[(i / GROUP * d + j) * GROUP + i % GROUP] = p->X[(from / GROUP * d + j) * GROUP + from % GROUP];
    }
}

static void sorted(job *p, const space *s) {
    emc_panel *panel = p->panel;
    const ptrdiff_t ng = (panel->n + GROUP - 1) / GROUP;
    guess_components(p, p->X, ng, s->guess);
    sort_rows(s->guess, panel->n, p->k, s->start, s->order);
    pack_sorted(p, s);
    if (panel->resp)
        memset(panel->resp, 0, (size_t)(panel->n * p->k) * sizeof(double));
    memset(s->first, 0, (size_t)p->k);
    ptrdiff_t n_pairs = 0;
    for (ptrdiff_t g = 0; g < ng; g++) {
        if (n_pairs + p->k > s->n_pool) {
            accumulate_pairs(p, s, n_pairs);
            n_pairs = 0;
        }
        n_pairs = sorted_group(p, s, g, n_pairs);
    }
    if (p->stats)
        accumulate_pairs(p, s, n_pairs);
}

/* Looks at a few rows: tells whether so few components count that sorting pays. */
static int worth_sorting(job *p, const space *s) {
    const emc_panel *panel = p->panel;
    const ptrdiff_t k = p->k, whole = panel->n / GROUP;
    ptrdiff_t kept = 0;
    for (int i = 0; i < PROBE_GROUPS; i++) {
        const ptrdiff_t g = whole * (2 * i + 1) / (2 * PROBE_GROUPS);
        for (ptrdiff_t c = 0; c < k; c++)
            densities(p, s, c, p->X + g * p->d * GROUP, 1, s->blocks + c * GROUP, k * GROUP);
        real m[GROUP];
        for (int v = 0; v < GROUP; v++)
            m[v] = -(real)INFINITY;
        for (ptrdiff_t c = 0; c < k; c++)
            for (int v = 0; v < GROUP; v++)
                m[v] = s->blocks[c * GROUP + v] > m[v] ? s->blocks[c * GROUP + v] : m[v];
        for (ptrdiff_t c = 0; c < k; c++)
            for (int v = 0; v < GROUP; v++)
                kept += s->blocks[c * GROUP + v] - m[v] >= -p->model->threshold;
    }
    const double share = p->model->diagonal ? SORTED_SHARE_DIAGONAL : SORTED_SHARE;
    return (double)kept < share * (double)(PROBE_GROUPS * GROUP * k);
}

#ifdef EMC_SINGLE
static const real *convert(real **to, const double *from, ptrdiff_t n) {
    real *at = *to;
    if (!from)
        return NULL;
    for (ptrdiff_t i = 0; i < n; i++)
        at[i] = (real)from[i];
    *to += n;
    return at;
}

/* Converts the inputs; tells whether float32 will do: rows far out have squared distances whose rounding exceeds the
 * differences between components, and weights may overflow. */
static int take_inputs(job *p, const space *s) {
    const emc_gaussians *model = p->model;
    const emc_panel *panel = p->panel;
    const ptrdiff_t padded = (panel->n + EMC_GROUP - 1) / EMC_GROUP * EMC_GROUP;
    int small = 1;
    for (ptrdiff_t i = 0; i < padded * p->d; i++)
        small &= panel->X[i] <= FARTHEST && panel->X[i] >= -FARTHEST;
    for (ptrdiff_t i = 0; i < padded; i++)
        small &= panel->w[i] == 0.0 || (panel->w[i] >= 1.0 / HEAVIEST && panel->w[i] <= HEAVIEST);
    if (!small)
        return 0;
    const ptrdiff_t k = p->k, d = p->d, K = wide(model);
    real *to = s->parameters;
    p->means = convert(&to, model->means, k * d);
    p->factors = convert(&to, model->factors, n_factors(model));
    /* Peaks about a whole number: what float32 rounds off of them is the same error in all rows. */
    double top = -(double)INFINITY;
    for (ptrdiff_t c = 0; c < k; c++)
        top = model->peaks[c] > top ? model->peaks[c] : top;
    const double about = top > -DBL_MAX && top < DBL_MAX ? nearbyint(top) : 0.0;
    for (ptrdiff_t c = 0; c < K; c++)
        to[c] = (real)(model->peaks[c] - about);
    p->peaks = to;
    p->about = (real)about;
    to += K;
    p->slopes = convert(&to, model->slopes, K * d);
    p->offsets = convert(&to, model->offsets, K);
    p->directions = convert(&to, model->directions, k * K * d);
    p->direction_offsets = convert(&to, model->direction_offsets, k * K);
    p->white = convert(&to, white_means(model), K * d);
    for (ptrdiff_t i = 0; i < panel->n; i += GROUP) {
        to_single(s->rows + i * d, panel->X + i * d, panel->n - i, d);
        for (ptrdiff_t v = i; v < i + GROUP; v++)
            s->weights[v] = v < panel->n ? (real)panel->w[v] : 0;
    }
    p->X = s->rows;
    p->w = s->weights;
    return 1;
}
#else
static int take_inputs(job *p, const space *s) {
    const emc_gaussians *model = p->model;
    (void)s;
    p->means = model->means;
    p->factors = model->factors;
    p->peaks = model->peaks;
    p->slopes = model->slopes;
    p->offsets = model->offsets;
    p->directions = model->directions;
    p->direction_offsets = model->direction_offsets;
    p->white = white_means(model);
    p->X = p->panel->X;
    p->w = p->panel->w;
    return 1;
}
#endif

int EMC_NAME(gaussian_mixture)(const emc_gaussians *model, emc_panel *panel, double *stats, double *loglik,
                               double *work) {
    const space s = lay_out(model, panel->n, work);
    const ptrdiff_t k = model->k, d = model->d;
    const double *thresholds = HAS(model, thresholds) ? model->thresholds : NULL;
    for (ptrdiff_t c = 0; c < k; c++) {
        const double threshold = thresholds ? thresholds[c] : model->threshold;
        s.cuts[c] = (real)(threshold < -VMATH_FLUSH ? -threshold : VMATH_FLUSH);
    }
    job p = {.model = model,
             .panel = panel,
             .stats = stats,
             .second = stats ? stats + 3 * k + k * d : NULL,
             .k = k,
             .d = d,
             .n_second = d * (d + 1) / 2,
             .cuts = s.cuts,
             .log_k = log((double)k)};
    if (!take_inputs(&p, &s))
        return EMC_DOUBLE_NAME(gaussian_mixture)(model, panel, stats, loglik, work);
    clear_totals(&p.sums);
    p.unit_weights = 1;
    for (ptrdiff_t i = 0; i < panel->n; i++)
        p.unit_weights &= panel->w[i] == 1.0;
    if (p.white)
        whitened(&p, &s);
    else if (may_sort(model, panel->n) && worth_sorting(&p, &s))
        sorted(&p, &s);
    else
        dense(&p, &s);
    take_logarithms(&p.sums);
#ifdef EMC_SINGLE
    loglik[0] += p.sums.value_so_far;
    loglik[1] += p.sums.absolute_so_far;
#else
    loglik[0] += v_sum(p.sums.value);
    loglik[1] += v_sum(p.sums.absolute);
#endif
    return panel->bad_row >= 0 ? EMC_BAD_ROW : EMC_OK;
}
