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
 * which: the choice, like everything here, is a function of the rows and the parameters. */
#include "gram_tile.h"
#include "tri_tile.h"

#include <string.h>

enum {
    SUBPANEL_GROUPS = 16,
    SUBPANEL_VALUES =
        2048, /* groups x components of a subpanel stay below this, so that it stays in the second cache */
    POOL_BLOCKS = 512,
    PROBE_GROUPS = 2,
    SORTED_ROWS = 512,   /* fewer are not worth sorting */
    SORTED_COLUMNS = 5,  /* with fewer, distances cost less than the sorting */
    PRODUCT_VECTORS = 16 /* row sums multiplied up before one logarithm is taken: at most k^16 */
};
/* The panel is sorted when the few rows looked at keep less than this share of the components. */
#define SORTED_SHARE 0.4

/* Sums over the rows of a panel, lanes over rows. */
typedef struct totals {
    vd value, absolute; /* sum w log p, sum w |log p| */
    vd product, below;  /* products of row sums still without logarithm: all, and those of rows with log p < 0 */
    int waiting;        /* vectors in the products */
} totals;

typedef struct job {
    const emc_gaussians *model;
    emc_panel *panel;
    double *stats, *second;
    ptrdiff_t k, d, n_second;
    vd cut; /* -threshold, but not below what exp flushes to 0 */
    double log_k;
    totals sums;
} job;

EMC_INLINE vm all_lanes(void) { return v_le(v_zero(), v_zero()); }
EMC_INLINE int holds_everywhere(vm a) { return !v_any(v_without(all_lanes(), a)); }
EMC_INLINE vd v_abs(vd a) { return v_max(a, v_sub(v_zero(), a)); }
EMC_INLINE vm is_finite(vd a) { return v_le(v_abs(a), v_set1(DBL_MAX)); }

EMC_INLINE void clear_totals(totals *t) {
    t->value = t->absolute = v_zero();
    t->product = t->below = v_set1(1.0);
    t->waiting = 0;
}

static void take_logarithms(totals *t) {
    const vd log_all = vmath_log(t->product), log_below = vmath_log(t->below);
    t->value = v_add(t->value, log_all);
    t->absolute = v_add(t->absolute, v_sub(log_all, v_add(log_below, log_below)));
    t->product = t->below = v_set1(1.0);
    t->waiting = 0;
}

/* The rows of one group: l holds log-densities plus log-weights, one block of EMC_GROUP a component, and takes weighted
 * responsibilities.  `list` names the m components that may count, ascending; NULL: all of m.  `lse` takes the
 * log-densities of the rows, or is NULL.  Returns the first row with weight and without a finite log-density, or -1. */
EMC_INLINE int normalise_group(job *p, double *l, const int *list, ptrdiff_t m, const double *w, double *lse) {
    int bad = -1;
    for (int v = 0; v < EMC_GROUP; v += 2 * V_LANES) {
        vd m0 = v_set1(-(double)INFINITY), m1 = m0;
        for (ptrdiff_t j = 0; j < m; j++) {
            const double *from = l + (list ? list[j] : j) * EMC_GROUP + v;
            m0 = v_max(m0, v_load(from));
            m1 = v_max(m1, v_load(from + V_LANES));
        }
        /* Where no density is finite, l - m is inf - inf: a clamped m and a bound at 0 avoid it. */
        const int careful = !holds_everywhere(v_both(is_finite(m0), is_finite(m1)));
        if (careful) {
            m0 = v_max(v_set1(-DBL_MAX), v_min(v_set1(DBL_MAX), m0));
            m1 = v_max(v_set1(-DBL_MAX), v_min(v_set1(DBL_MAX), m1));
        }
        vd s0 = v_zero(), s1 = v_zero();
        for (ptrdiff_t j = 0; j < m; j++) {
            double *at = l + (list ? list[j] : j) * EMC_GROUP + v;
            vd x0 = v_sub(v_load(at), m0), x1 = v_sub(v_load(at + V_LANES), m1);
            if (careful) {
                x0 = v_min(v_zero(), x0);
                x1 = v_min(v_zero(), x1);
            }
            const vd e0 = vmath_exp_cut(x0, p->cut), e1 = vmath_exp_cut(x1, p->cut);
            v_store(at, e0);
            v_store(at + V_LANES, e1);
            s0 = v_add(s0, e0);
            s1 = v_add(s1, e1);
        }

        const vd w0 = v_load(w + v), w1 = v_load(w + v + V_LANES);
        const vd one = v_set1(1.0), minus_log_k = v_set1(-p->log_k);
        vm good0 = all_lanes(), good1 = good0;
        /* 0 <= log sum <= log k: the sign of log p is known without the logarithm but where m is just below 0. */
        const vm up0 = v_le(v_zero(), m0), up1 = v_le(v_zero(), m1);
        const vm down0 = v_lt(m0, minus_log_k), down1 = v_lt(m1, minus_log_k);
        const vm plain0 = v_both(v_le(w0, one), v_le(one, w0)), plain1 = v_both(v_le(w1, one), v_le(one, w1));
        const int plain = !careful && !lse && holds_everywhere(v_both(plain0, plain1)) &&
                          !v_any(v_without(v_without(all_lanes(), up0), down0)) &&
                          !v_any(v_without(v_without(all_lanes(), up1), down1)) &&
                          holds_everywhere(v_both(is_finite(s0), is_finite(s1)));
        if (plain) {
            totals *t = &p->sums;
            t->value = v_add(t->value, v_add(m0, m1));
            t->absolute = v_add(t->absolute, v_add(v_abs(m0), v_abs(m1)));
            t->product = v_mul(t->product, v_mul(s0, s1));
            t->below = v_mul(t->below, v_mul(v_select(down0, s0, one), v_select(down1, s1, one)));
            if ((t->waiting += 2) >= PRODUCT_VECTORS)
                take_logarithms(t);
        } else {
            const vd lse0 = v_add(m0, vmath_log(s0)), lse1 = v_add(m1, vmath_log(s1));
            const vm weighted0 = v_lt(v_zero(), w0), weighted1 = v_lt(v_zero(), w1);
            good0 = v_both(weighted0, is_finite(lse0));
            good1 = v_both(weighted1, is_finite(lse1));
            if (bad < 0 && (v_any(v_without(weighted0, good0)) || v_any(v_without(weighted1, good1)))) {
                double value[2 * V_LANES];
                v_store(value, lse0);
                v_store(value + V_LANES, lse1);
                for (int i = 2 * V_LANES - 1; i >= 0; i--)
                    if (w[v + i] > 0.0 && !(value[i] >= -DBL_MAX && value[i] <= DBL_MAX))
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
        }
        const vd scale0 = v_keep(good0, v_div(w0, s0)), scale1 = v_keep(good1, v_div(w1, s1));
        for (ptrdiff_t j = 0; j < m; j++) {
            double *at = l + (list ? list[j] : j) * EMC_GROUP + v;
            v_store(at, v_keep(good0, v_mul(v_load(at), scale0)));
            v_store(at + V_LANES, v_keep(good1, v_mul(v_load(at + V_LANES), scale1)));
        }
    }
    return bad;
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
            const double *x = p->x[g] + j * EMC_GROUP, *r = p->r[g];
            for (int v = 0; v < EMC_GROUP; v += V_LANES) {
                const vd t = v_pin(v_load(r + v));
                const vd z0 = v_sub(v_load(x + v), mu0), z1 = v_sub(v_load(x + v + EMC_GROUP), mu1);
                const vd z2 = v_sub(v_load(x + v + 2 * EMC_GROUP), mu2), z3 = v_sub(v_load(x + v + 3 * EMC_GROUP), mu3);
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
            for (int v = 0; v < EMC_GROUP; v += V_LANES) {
                const vd z = v_sub(v_load(p->x[g] + j * EMC_GROUP + v), v_set1(p->mu[j]));
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
static void accumulate(const job *p, ptrdiff_t c, const double *const *x, const double *const *r, ptrdiff_t n,
                       double *squares) {
    const emc_gaussians *model = p->model;
    const ptrdiff_t k = p->k, d = p->d;
    vd s = v_zero();
    for (ptrdiff_t g = 0; g < n; g++)
        for (int v = 0; v < EMC_GROUP; v += V_LANES)
            s = v_add(s, v_load(r[g] + v));
    const double count = v_sum(s);
    p->stats[c] += count;
    p->stats[k + c] += count;
    p->stats[2 * k + c] += count;
    double *sum = p->stats + 3 * k + c * d;
    rows list = {.x = x, .r = r, .mu = model->means + c * d, .ng = n, .d = d};
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

/* Log-densities plus log-weights of component c. */
EMC_INLINE void densities(const job *p, ptrdiff_t c, const double *X, ptrdiff_t ng, double *out, ptrdiff_t stride) {
    const emc_gaussians *model = p->model;
    const double *mu = model->means + c * p->d, *factor = model->factors + c * model->factor_stride;
    if (model->diagonal)
        EMC_NAME(sqdist_diag)(X, ng, p->d, mu, factor, model->peaks[c], -0.5, out, stride);
    else
        EMC_NAME(sqdist_tri)(X, ng, p->d, mu, factor, model->peaks[c], -0.5, out, stride);
}

static ptrdiff_t subpanel_groups(const emc_gaussians *model) {
    const ptrdiff_t groups = SUBPANEL_VALUES / model->k;
    return groups < 4 ? 4 : groups > SUBPANEL_GROUPS ? SUBPANEL_GROUPS : groups;
}

/* What of the work space is whose. */
typedef struct space {
    double *blocks; /* EMC_GROUP doubles each: one a component for log-densities, then the pool */
    ptrdiff_t n_pool;
    double *squares;                  /* d */
    double *lse;                      /* one a row */
    double *X, *flat, *w;             /* sorted rows, rows one by one, sorted weights */
    const double **x, **r;            /* n_pool: the lists of groups, component by component */
    ptrdiff_t *start;                 /* k + 1 */
    int *pair_component, *pair_group; /* n_pool */
    int *guess, *order;               /* one a row */
    int *list;                        /* k */
    unsigned char *first;             /* k */
    ptrdiff_t total;                  /* doubles */
} space;

static int may_sort(const emc_gaussians *model, ptrdiff_t n) {
    return model->slopes && model->threshold < (double)INFINITY && n >= SORTED_ROWS && model->d >= SORTED_COLUMNS &&
           model->k > 1;
}

static double *carve(ptrdiff_t *used, double *work, ptrdiff_t doubles) {
    const ptrdiff_t at = *used, unit = EMC_ALIGN / (ptrdiff_t)sizeof(double);
    *used += (doubles + unit - 1) / unit * unit;
    return work ? work + at : NULL;
}

static space lay_out(const emc_gaussians *model, ptrdiff_t n, double *work) {
    const ptrdiff_t k = model->k, d = model->d, padded = (n + EMC_GROUP - 1) / EMC_GROUP * EMC_GROUP;
    const ptrdiff_t groups = subpanel_groups(model), dense = groups * k;
    const ptrdiff_t per_pointer = sizeof(double) / sizeof(void *), per_int = sizeof(double) / sizeof(int);
    space s = {.n_pool = dense < POOL_BLOCKS ? POOL_BLOCKS : dense};
    const int sorted = may_sort(model, n);
    ptrdiff_t used = 0;
    s.blocks = carve(&used, work, (sorted ? k + s.n_pool : dense) * EMC_GROUP);
    s.squares = carve(&used, work, d);
    s.lse = carve(&used, work, padded);
    if (sorted) {
        const ptrdiff_t pointers = (s.n_pool + per_pointer - 1) / per_pointer;
        const ptrdiff_t ints = (s.n_pool + per_int - 1) / per_int;
        s.X = carve(&used, work, padded * d);
        s.flat = carve(&used, work, n * d);
        s.w = carve(&used, work, padded);
        s.x = (const double **)(void *)carve(&used, work, pointers);
        s.r = (const double **)(void *)carve(&used, work, pointers);
        s.start = (ptrdiff_t *)(void *)carve(&used, work, k + 1);
        s.pair_component = (int *)(void *)carve(&used, work, ints);
        s.pair_group = (int *)(void *)carve(&used, work, ints);
        s.guess = (int *)(void *)carve(&used, work, padded);
        s.order = (int *)(void *)carve(&used, work, padded);
        s.list = (int *)(void *)carve(&used, work, k);
        s.first = (unsigned char *)(void *)carve(&used, work, k);
    }
    s.total = used;
    return s;
}

ptrdiff_t EMC_NAME(gaussian_mixture_work)(const emc_gaussians *model, ptrdiff_t n) {
    return lay_out(model, n, NULL).total;
}

/* Rows in their order, every component for every row. */
static void dense(job *p, const space *s) {
    emc_panel *panel = p->panel;
    const ptrdiff_t k = p->k, d = p->d, ng = (panel->n + EMC_GROUP - 1) / EMC_GROUP;
    const ptrdiff_t groups = subpanel_groups(p->model), stride = k * EMC_GROUP;
    for (ptrdiff_t g0 = 0; g0 < ng; g0 += groups) {
        const ptrdiff_t here = ng - g0 < groups ? ng - g0 : groups;
        const double *X = panel->X + g0 * d * EMC_GROUP;
        for (ptrdiff_t c = 0; c < k; c++)
            densities(p, c, X, here, s->blocks + c * EMC_GROUP, stride);
        for (ptrdiff_t g = 0; g < here; g++) {
            const ptrdiff_t row = (g0 + g) * EMC_GROUP;
            const int bad = normalise_group(p, s->blocks + g * stride, NULL, k, panel->w + row,
                                            panel->row_loglik ? s->lse + row : NULL);
            if (bad >= 0 && panel->bad_row < 0)
                panel->bad_row = row + bad;
        }
        const ptrdiff_t row = g0 * EMC_GROUP, n = panel->n - row < here * EMC_GROUP ? panel->n - row : here * EMC_GROUP;
        if (panel->resp)
            EMC_NAME(unpack)(panel->resp + row * k, s->blocks, n, k);
        if (!p->stats)
            continue;
        for (ptrdiff_t c = 0; c < k; c++) {
            const double *x[SUBPANEL_GROUPS], *r[SUBPANEL_GROUPS];
            ptrdiff_t m = 0;
            for (ptrdiff_t g = 0; g < here; g++) {
                r[m] = s->blocks + g * stride + c * EMC_GROUP;
                x[m] = X + g * d * EMC_GROUP;
                vd sum = v_zero();
                for (int v = 0; v < EMC_GROUP; v += V_LANES)
                    sum = v_add(sum, v_load(r[m] + v));
                m += v_any(v_lt(v_zero(), sum));
            }
            if (m > 0)
                accumulate(p, c, x, r, m, s->squares);
        }
    }
    if (panel->row_loglik)
        memcpy(panel->row_loglik, s->lse, (size_t)panel->n * sizeof(double));
}

int EMC_NAME(gaussian_mixture)(const emc_gaussians *model, emc_panel *panel, double *stats, double *loglik,
                               double *work) {
    const space s = lay_out(model, panel->n, work);
    const ptrdiff_t k = model->k, d = model->d;
    const double threshold = model->threshold < -VMATH_FLUSH ? model->threshold : -VMATH_FLUSH;
    job p = {.model = model,
             .panel = panel,
             .stats = stats,
             .second = stats ? stats + 3 * k + k * d : NULL,
             .k = k,
             .d = d,
             .n_second = d * (d + 1) / 2,
             .cut = v_set1(-threshold),
             .log_k = log((double)k)};
    clear_totals(&p.sums);
    dense(&p, &s);
    take_logarithms(&p.sums);
    loglik[0] += v_sum(p.sums.value);
    loglik[1] += v_sum(p.sums.absolute);
    return panel->bad_row >= 0 ? EMC_BAD_ROW : EMC_OK;
}
