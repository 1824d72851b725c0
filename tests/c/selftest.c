/* Every micro-kernel of every CPU target that runs here against loops that anyone can read.
 *
 *     selftest [THREADS [STEP]]
 *
 * All arrays are blocks of their own of exactly the size that the interface asks for, filled with NaN: what is read or
 * written beside them is for the address sanitizer to find, what is read before it is written shows in the results.
 * THREADS do the whole of it at the same time, for the thread sanitizer; STEP leaves out all but every STEP-th variant.
 */
#define _POSIX_C_SOURCE 200112L
#include "emc.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows, columns, components: about the edges of groups, subpanels and panels; of tiles and chunks; of the pool. */
static const struct {
    ptrdiff_t n, d, k;
} shapes[] = {
    {1, 1, 1},     {2, 1, 2},     {31, 2, 3},     {32, 3, 4},    {33, 4, 5},    {64, 5, 1},    {65, 6, 8},
    {127, 7, 9},   {128, 8, 2},   {129, 9, 3},    {511, 5, 3},   {512, 6, 16},  {513, 7, 7},   {700, 8, 4},
    {2049, 13, 5}, {1000, 33, 6}, {600, 65, 3},   {900, 9, 130}, {300, 161, 2}, {2500, 16, 8}, {4096, 12, 20},
    {77, 24, 513}, {512, 5, 2},   {1023, 18, 11}, {1000, 2, 5},  {65, 2, 2},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], VARIANTS = 16 };

typedef struct run {
    const emc_table *table;
    char what[160];
    uint64_t state;
    long compared, failures;
    double worst; /* error divided by what is allowed */
} run;

static double uniform(run *t) {
    t->state ^= t->state << 13;
    t->state ^= t->state >> 7;
    t->state ^= t->state << 17;
    return (double)(t->state >> 11) * 0x1p-53;
}
static ptrdiff_t below(run *t, ptrdiff_t n) { return (ptrdiff_t)(uniform(t) * (double)n); }
static double normal(run *t) {
    double sum = -6.0;
    for (int i = 0; i < 12; i++)
        sum += uniform(t);
    return sum;
}

static void expect(run *t, const char *what, ptrdiff_t i, double got, double want, double allowed) {
    const double error = got == want || (isnan(got) && isnan(want)) ? 0.0 : fabs(got - want) / allowed;
    t->compared++;
    if (error > t->worst)
        t->worst = error;
    if (!(error <= 1.0) && t->failures++ < 5)
        printf("%s, %s: %s[%td] is %.17g, not %.17g (+- %.2g)\n", t->table->name, t->what, what, i, got, want, allowed);
}

static void *bytes(size_t size) {
    void *p;
    if (posix_memalign(&p, EMC_ALIGN, size > 0 ? size : 1) != 0)
        abort();
    memset(p, 0xff, size);
    return p;
}
static double *doubles(ptrdiff_t n) { return bytes((size_t)n * sizeof(double)); }
static double *zeros(ptrdiff_t n) {
    double *p = doubles(n);
    for (ptrdiff_t i = 0; i < n; i++)
        p[i] = 0.0;
    return p;
}
static ptrdiff_t padded(ptrdiff_t n) { return (n + EMC_GROUP - 1) / EMC_GROUP * EMC_GROUP; }
/* value(row i, column j) of a packed array with m columns. */
static ptrdiff_t at(ptrdiff_t i, ptrdiff_t j, ptrdiff_t m) {
    return (i / EMC_GROUP * m + j) * EMC_GROUP + i % EMC_GROUP;
}

/* Rows as a user may give them. */

enum layout { BY_ROWS, BY_COLUMNS, APART, REVERSED, ODD_ADDRESS, ONE_ROW, N_LAYOUTS };

typedef struct raw {
    void *memory;
    char *first; /* row 0, column 0 */
    int type;
    ptrdiff_t row_stride, col_stride;
} raw;

static void put(char *to, int type, double x) {
    const float single = (float)x;
    const int64_t wide = (int64_t)x;
    const int32_t narrow = (int32_t)x;
    switch (type) {
    case EMC_FLOAT64:
        memcpy(to, &x, sizeof x);
        break;
    case EMC_FLOAT32:
        memcpy(to, &single, sizeof single);
        break;
    case EMC_INT64:
        memcpy(to, &wide, sizeof wide);
        break;
    default:
        memcpy(to, &narrow, sizeof narrow);
    }
}
static double get(const raw *r, ptrdiff_t i, ptrdiff_t j) {
    const char *from = r->first + i * r->row_stride + j * r->col_stride;
    double x;
    float single;
    int64_t wide;
    int32_t narrow;
    switch (r->type) {
    case EMC_FLOAT64:
        return memcpy(&x, from, sizeof x), x;
    case EMC_FLOAT32:
        return memcpy(&single, from, sizeof single), (double)single;
    case EMC_INT64:
        return memcpy(&wide, from, sizeof wide), (double)wide;
    default:
        return memcpy(&narrow, from, sizeof narrow), (double)narrow;
    }
}

static raw lay_out(const double *values, ptrdiff_t n, ptrdiff_t d, int type, enum layout layout) {
    const ptrdiff_t item = type == EMC_FLOAT64 || type == EMC_INT64 ? 8 : 4;
    raw r = {.type = type, .row_stride = d * item, .col_stride = item};
    ptrdiff_t first = 0;
    switch (layout) {
    case BY_COLUMNS:
        r.row_stride = item;
        r.col_stride = n * item;
        break;
    case APART:
        r.row_stride = (3 * d + 1) * item;
        r.col_stride = 3 * item;
        break;
    case REVERSED:
        r.row_stride = -r.row_stride;
        r.col_stride = -r.col_stride;
        first = (n * d - 1) * item;
        break;
    case ODD_ADDRESS:
        r.row_stride += 1;
        first = 1;
        break;
    case ONE_ROW:
        r.row_stride = 0;
        break;
    default:
        break;
    }
    const ptrdiff_t rows = layout == REVERSED ? 0 : (n - 1) * r.row_stride, columns = (d - 1) * r.col_stride;
    r.memory = bytes((size_t)(layout == REVERSED ? n * d * item : first + rows + columns + item));
    r.first = (char *)r.memory + first;
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t j = 0; j < d; j++)
            put(r.first + i * r.row_stride + j * r.col_stride, type, values[i * d + j]);
    return r;
}

/* Packing */

static void test_packing(run *t, ptrdiff_t n, ptrdiff_t d) {
    double *values = doubles(n * d), *X = doubles(padded(n) * d), *w = doubles(padded(n)), *shift = doubles(d);
    double *scale = doubles(d), *flat = doubles(n * d);
    for (ptrdiff_t i = 0; i < n * d; i++)
        values[i] = floor(100.0 * normal(t));
    for (ptrdiff_t j = 0; j < d; j++) {
        shift[j] = normal(t);
        scale[j] = ldexp(1.0, (int)below(t, 7) - 3);
    }
    for (int type = EMC_FLOAT64; type <= EMC_INT32; type++) {
        for (enum layout layout = BY_ROWS; layout < N_LAYOUTS; layout++) {
            const raw r = lay_out(values, n, d, type, layout);
            t->table->pack_rows(X, n, d, r.first, type, r.row_stride, r.col_stride, shift, scale);
            for (ptrdiff_t i = 0; i < padded(n); i++)
                for (ptrdiff_t j = 0; j < d; j++)
                    expect(t, "pack_rows", layout, X[at(i, j, d)],
                           (get(&r, i < n ? i : n - 1, j) - shift[j]) * scale[j], 0.0);
            free(r.memory);
        }
    }
    t->table->unpack(flat, X, n, d);
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t j = 0; j < d; j++)
            expect(t, "unpack", i, flat[i * d + j], X[at(i, j, d)], 0.0);
    for (enum layout layout = BY_ROWS; layout < N_LAYOUTS; layout++) {
        const raw r = lay_out(values, n, 1, EMC_FLOAT64, layout);
        t->table->pack_weights(w, n, layout == BY_ROWS ? NULL : (const double *)(void *)r.first, r.row_stride);
        for (ptrdiff_t i = 0; i < padded(n); i++)
            expect(t, "pack_weights", i, w[i], i >= n ? 0.0 : layout == BY_ROWS ? 1.0 : get(&r, i, 0), 0.0);
        free(r.memory);
    }
    free(values), free(X), free(w), free(shift), free(scale), free(flat);
}

/* Counts, of which some are 0 and some of mean 0. */
static void test_counts(run *t, ptrdiff_t n) {
    const ptrdiff_t rows = padded(n), ng = rows / EMC_GROUP;
    double *mean = doubles(rows), *y = doubles(rows), *out = doubles(rows), *ratio = doubles(rows);
    for (ptrdiff_t i = 0; i < rows; i++) {
        mean[i] = i % 7 == 3 ? 0.0 : 20.0 * uniform(t);
        y[i] = i % 5 < 2 ? 0.0 : (double)below(t, 40);
        out[i] = 0.1 * (double)i;
    }
    t->table->poisson_rows(mean, y, ng, out, ratio);
    for (ptrdiff_t i = 0; i < rows; i++) {
        const double logs = y[i] > 0.0 ? y[i] * log(mean[i]) : 0.0, sure = 0.1 * (double)i;
        expect(t, "poisson_rows", i, out[i], logs - mean[i] - sure, 1e-14 * (fabs(logs) + mean[i] + sure + 1.0));
        expect(t, "poisson_rows, ratio", i, ratio[i], y[i] > 0.0 ? fmin(y[i] / mean[i], DBL_MAX) : 0.0,
               1e-15 * ratio[i]);
    }
    free(mean), free(y), free(out), free(ratio);
}

/* Rows that are not packed, some of them without weight and of any content, in an array of more columns. */
static void test_by_rows(run *t, ptrdiff_t n, ptrdiff_t d) {
    enum { M = 3 };
    const ptrdiff_t stride = d + 2, ng = padded(n) / EMC_GROUP, numbers = (n - 1) * stride + d;
    double *X = doubles(numbers), *b = doubles(d), *W = zeros(padded(n) * M), *out = doubles(padded(n));
    for (ptrdiff_t i = 0; i < numbers; i++)
        X[i] = normal(t);
    for (ptrdiff_t j = 0; j < d; j++)
        b[j] = normal(t);
    t->table->row_dots(X, n, d, stride, b, 0.75, out, EMC_GROUP);
    for (ptrdiff_t i = 0; i < padded(n); i++) {
        double want = 0.75, size = 0.75;
        for (ptrdiff_t j = 0; j < d; j++) {
            const double term = b[j] * X[(i < n ? i : n - 1) * stride + j];
            want += term, size += fabs(term);
        }
        expect(t, "row_dots", i, out[i], want, 1e-14 * size);
    }
    for (ptrdiff_t i = 0; i < n; i++)
        if (i % 5 == 3) /* no weight */
            X[i * stride] = i % 2 ? (double)NAN : (double)INFINITY;
        else
            for (ptrdiff_t l = 0; l < M; l++)
                W[at(i, l, M)] = i % 3 == l ? 0.0 : normal(t);
    for (ptrdiff_t m = 1; m <= M; m++) {
        double *some = zeros(padded(n) * m), *sums = doubles(m * d);
        for (ptrdiff_t l = 0; l < m; l++)
            for (ptrdiff_t i = 0; i < padded(n); i++)
                some[at(i, l, m)] = W[at(i, l, M)];
        for (ptrdiff_t i = 0; i < m * d; i++)
            sums[i] = 0.5;
        t->table->row_sums(X, n, d, stride, some, m, sums);
        for (ptrdiff_t l = 0; l < m; l++)
            for (ptrdiff_t j = 0; j < d; j++) {
                double want = 0.5, size = 0.5;
                for (ptrdiff_t i = 0; i < n; i++)
                    if (i % 5 != 3) {
                        const double term = some[at(i, l, m)] * X[i * stride + j];
                        want += term, size += fabs(term);
                    }
                expect(t, "row_sums", l * d + j, sums[l * d + j], want, 1e-14 * size * (double)ng);
            }
        free(some), free(sums);
    }
    free(X), free(b), free(W), free(out);
}

/* exp and log of any number of numbers anywhere; how exact they are is the business of vmath.c. */
static void test_elementwise(run *t, ptrdiff_t n) {
    for (int offset = 0; offset < 2; offset++) {
        double *x = doubles(n + offset), *y = doubles(n + offset);
        for (ptrdiff_t i = offset; i < n + offset; i++)
            x[i] = 1e-3 + 20.0 * uniform(t);
        t->table->vexp(x + offset, y + offset, n);
        for (ptrdiff_t i = offset; i < n + offset; i++)
            expect(t, "vexp", i, y[i], exp(x[i]), 4.0 * DBL_EPSILON * exp(x[i]));
        t->table->vlog(x + offset, y + offset, n);
        for (ptrdiff_t i = offset; i < n + offset; i++)
            expect(t, "vlog", i, y[i], log(x[i]), 4.0 * DBL_EPSILON * fabs(log(x[i])));
        float *single = bytes((size_t)(n + offset) * sizeof *single), *out = bytes((size_t)(n + offset) * sizeof *out);
        for (ptrdiff_t i = offset; i < n + offset; i++)
            single[i] = (float)x[i];
        t->table->vexp_single(single + offset, out + offset, n);
        for (ptrdiff_t i = offset; i < n + offset; i++)
            expect(t, "vexp_single", i, out[i], exp(single[i]), 2.0 * FLT_EPSILON * exp(single[i]));
        t->table->vlog_single(single + offset, out + offset, n);
        for (ptrdiff_t i = offset; i < n + offset; i++)
            expect(t, "vlog_single", i, out[i], log(single[i]), 2.0 * FLT_EPSILON * fabs(log(single[i])));
        free(x), free(y), free(single), free(out);
    }
}

/* A mixture of Gaussians and rows of it, in frame units. */

typedef struct mixture {
    ptrdiff_t n, d, k, wide, one; /* wide: k to the next multiple of 4; one: numbers of a factor */
    int diagonal, pooled, single;
    double threshold, *means, *factors, *peaks, *slopes, *offsets, *directions, *direction_offsets, *shift, *scale,
        *white, *thresholds;
    double *X, *w;
    raw raw;
} mixture;

static const double *factor_of(const mixture *m, ptrdiff_t c) {
    return m->factors + (!m->diagonal && m->pooled ? 0 : c * m->one);
}

/* out = L z, or s z. */
static void whiten(const mixture *m, ptrdiff_t c, const double *z, double *out) {
    const double *L = factor_of(m, c);
    for (ptrdiff_t i = 0; i < m->d; i++) {
        out[i] = m->diagonal ? L[i] * z[i] : 0.0;
        for (ptrdiff_t j = 0; !m->diagonal && j <= i; j++)
            out[i] += L[i * (i + 1) / 2 + j] * z[j];
    }
}

/* Linear scores and directions: see emc.h. */
static void set_shortcuts(mixture *m) {
    const ptrdiff_t d = m->d, k = m->k;
    double *delta = doubles(d), *white = doubles(d);
    m->slopes = zeros(m->wide * d);
    m->offsets = doubles(m->wide);
    m->directions = zeros(k * m->wide * d);
    m->direction_offsets = zeros(k * m->wide);
    for (ptrdiff_t c = 0; c < m->wide; c++) {
        m->offsets[c] = m->peaks[c];
        for (ptrdiff_t j = 0; c < k && j < d; j++) {
            m->slopes[c * d + j] = m->means[c * d + j];
            m->offsets[c] -= 0.5 * m->means[c * d + j] * m->means[c * d + j];
        }
    }
    for (ptrdiff_t g = 0; g < k; g++) {
        for (ptrdiff_t c = 0; c < k; c++) {
            const double *L = factor_of(m, c);
            double *direction = m->directions + (g * m->wide + c) * d, length = 0.0;
            for (ptrdiff_t j = 0; j < d; j++)
                delta[j] = m->means[g * d + j] - m->means[c * d + j];
            whiten(m, c, delta, white);
            for (ptrdiff_t j = 0; j < d; j++)
                length += white[j] * white[j];
            for (ptrdiff_t i = 0; length > 0.0 && i < d; i++)
                for (ptrdiff_t j = m->diagonal ? i : 0; j <= i; j++)
                    direction[j] += white[i] / sqrt(length) * L[m->diagonal ? i : i * (i + 1) / 2 + j];
            for (ptrdiff_t j = 0; j < d; j++)
                m->direction_offsets[g * m->wide + c] -= direction[j] * m->means[c * d + j];
        }
    }
    free(delta), free(white);
}

static void set_white(mixture *m) {
    m->white = zeros(m->wide * m->d);
    for (ptrdiff_t c = 0; c < m->k; c++)
        whiten(m, c, m->means + c * m->d, m->white + c * m->d);
}

static mixture make_mixture(run *t, int shape, int variant) {
    const ptrdiff_t n = shapes[shape].n, d = shapes[shape].d, k = shapes[shape].k;
    mixture m = {.n = n, .d = d, .k = k, .wide = (k + 3) / 4 * 4, .diagonal = variant & 1, .pooled = variant >> 1 & 1};
    m.single = t->table->gaussian_mixture_single && variant >> 2 & 1;
    m.one = m.diagonal ? d : d * (d + 1) / 2;
    /* float32 is for components within 16 of their standard deviations from the origin. */
    const double spread = variant >> 3 & 1 ? 0.5 : m.single ? fmin(3.0, 12.0 / sqrt((double)d)) : 6.0;
    m.threshold = (shape + variant) % 5 == 0 ? (double)INFINITY : 37.0 + log((double)(n > k ? n : k));
    m.means = doubles(k * d);
    m.factors = doubles((!m.diagonal && m.pooled ? 1 : k) * m.one);
    m.peaks = doubles(m.wide);
    m.shift = doubles(d);
    m.scale = doubles(d);
    for (ptrdiff_t i = 0; i < k * d; i++)
        m.means[i] = spread * normal(t);
    for (ptrdiff_t c = 0; c < (!m.diagonal && m.pooled ? 1 : k); c++)
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = m.diagonal ? i : 0; j <= i; j++)
                m.factors[c * m.one + (m.diagonal ? i : i * (i + 1) / 2 + j)] =
                    i == j ? 0.7 + uniform(t) : 0.4 * normal(t) / sqrt((double)d);
    for (ptrdiff_t c = 0; c < m.wide; c++) /* now and then a component without weight */
        m.peaks[c] = c >= k || (c == 1 && variant % 7 == 3) ? -(double)INFINITY : -3.0 * uniform(t);
    for (ptrdiff_t j = 0; j < d; j++) {
        m.shift[j] = normal(t);
        m.scale[j] = ldexp(1.0, (int)below(t, 3) - 1);
    }
    double *values = doubles(n * d);
    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t c = below(t, k);
        for (ptrdiff_t j = 0; j < d; j++)
            values[i * d + j] = (m.means[c * d + j] + normal(t)) / m.scale[j] + m.shift[j];
    }
    const int type = m.single || variant % 3 == 1 ? EMC_FLOAT32 : EMC_FLOAT64;
    m.raw = lay_out(values, n, d, type, (enum layout)((shape + variant) % ONE_ROW));
    free(values);
    m.X = doubles(padded(n) * d);
    m.w = doubles(padded(n));
    t->table->pack_rows(m.X, n, d, m.raw.first, type, m.raw.row_stride, m.raw.col_stride, m.shift, m.scale);
    for (ptrdiff_t i = 0; i < padded(n); i++)
        m.w[i] = i >= n ? 0.0 : variant % 3 == 0 ? 1.0 : 0.5 * (double)below(t, 4);
    if ((shape + variant) % 4 > 0)
        set_shortcuts(&m);
    if (m.pooled && !m.diagonal && (shape + variant) % 3 > 0)
        set_white(&m);
    if ((shape + variant) % 5 == 1) {
        m.thresholds = doubles(k);
        for (ptrdiff_t c = 0; c < k; c++)
            m.thresholds[c] = c % 3 == 1 ? (double)INFINITY : m.threshold;
    }
    return m;
}

static void free_mixture(mixture *m) {
    free(m->means), free(m->factors), free(m->peaks), free(m->shift), free(m->scale), free(m->X), free(m->w);
    free(m->slopes), free(m->offsets), free(m->directions), free(m->direction_offsets), free(m->white);
    free(m->thresholds), free(m->raw.memory);
}

/* What a pass is to give. Sizes are the sums of the absolute terms: rounding is in proportion to them. */
typedef struct answer {
    ptrdiff_t n_stats;
    double *logp, *resp, *lse, *stats, *sizes, loglik, scale, largest; /* |l| */
} answer;

static void add(answer *a, ptrdiff_t i, double term) {
    a->stats[i] += term;
    a->sizes[i] += fabs(term);
}

static answer solve(const mixture *m) {
    const ptrdiff_t n = m->n, d = m->d, k = m->k;
    const ptrdiff_t second = m->diagonal ? (m->pooled ? k : k * d) : (m->pooled ? 1 : k) * m->one;
    answer a = {.n_stats = 3 * k + k * d + second};
    a.logp = doubles(n * k), a.resp = doubles(n * k), a.lse = doubles(n);
    a.stats = zeros(a.n_stats), a.sizes = zeros(a.n_stats);
    double *z = doubles(d), *white = doubles(d);
    for (ptrdiff_t i = 0; i < n; i++) {
        double top = -(double)INFINITY, sum = 0.0;
        for (ptrdiff_t c = 0; c < k; c++) {
            double q = 0.0;
            for (ptrdiff_t j = 0; j < d; j++)
                z[j] = m->X[at(i, j, d)] - m->means[c * d + j];
            whiten(m, c, z, white);
            for (ptrdiff_t j = 0; j < d; j++)
                q += white[j] * white[j];
            a.logp[i * k + c] = m->peaks[c] - 0.5 * q;
            top = fmax(top, a.logp[i * k + c]);
        }
        for (ptrdiff_t c = 0; c < k; c++)
            sum += exp(a.logp[i * k + c] - top);
        a.lse[i] = top + log(sum);
        a.loglik += m->w[i] * a.lse[i];
        a.scale += m->w[i] * fabs(a.lse[i]);
        a.largest = fmax(a.largest, fabs(a.lse[i]));
        for (ptrdiff_t c = 0; c < k; c++) {
            const double r = m->w[i] * exp(a.logp[i * k + c] - a.lse[i]);
            a.resp[i * k + c] = r;
            for (int part = 0; part < 3; part++)
                add(&a, part * k + c, r);
            for (ptrdiff_t j = 0; j < d; j++)
                z[j] = m->X[at(i, j, d)] - m->means[c * d + j];
            const ptrdiff_t from = 3 * k + k * d;
            for (ptrdiff_t j = 0; r > 0.0 && j < d; j++) {
                add(&a, 3 * k + c * d + j, r * z[j]);
                if (m->diagonal)
                    add(&a, from + (m->pooled ? c : c * d + j), r * z[j] * z[j]);
                for (ptrdiff_t l = 0; !m->diagonal && l <= j; l++)
                    add(&a, from + (m->pooled ? 0 : c * m->one) + j * (j + 1) / 2 + l, r * z[j] * z[l]);
            }
        }
    }
    free(z), free(white);
    return a;
}

static void free_answer(answer *a) { free(a->logp), free(a->resp), free(a->lse), free(a->stats), free(a->sizes); }

/* Two states, for which there is a way of their own, beside two and one of weight 0: to the bit, whatever the
 * densities. */
static void test_two_states(run *t) {
    static const double densities[] = {0.0,     -0.0,  1.5,      -3.0,    2e-16,    -40.0,     700.0,
                                       -1000.0, 1e300, -DBL_MAX, DBL_MAX, INFINITY, -INFINITY, NAN},
                        weights[] = {0.0, 1.0, 2.5};
    enum { N = sizeof densities / sizeof *densities, ROWS = N * N * 3 };
    static const double log_weights[] = {-0.25, -1.5, -INFINITY};
    const ptrdiff_t rows = padded(ROWS);
    double *two = zeros(rows * 2), *three = zeros(rows * 3), *w = zeros(rows), *lse2 = doubles(rows),
           *lse3 = doubles(rows);
    for (int i = 0; i < ROWS; i++) {
        two[at(i, 0, 2)] = three[at(i, 0, 3)] = densities[i / 3 % N];
        two[at(i, 1, 2)] = three[at(i, 1, 3)] = densities[i / 3 / N];
        w[i] = weights[i % 3];
    }
    double sum2 = 0.0, sum3 = 0.0;
    const ptrdiff_t bad2 = t->table->normalize_rows(two, ROWS, 2, log_weights, w, lse2, &sum2);
    const ptrdiff_t bad3 = t->table->normalize_rows(three, ROWS, 3, log_weights, w, lse3, &sum3);
    expect(t, "two states, bad row", 0, (double)bad2, (double)bad3, 0.0);
    expect(t, "two states, sum", 0, sum2, sum3, 0.0);
    for (ptrdiff_t i = 0; i < ROWS; i++) {
        expect(t, "two states, rows", i, lse2[i], lse3[i], 0.0);
        for (ptrdiff_t c = 0; c < 2; c++)
            expect(t, "two states", i, two[at(i, c, 2)], three[at(i, c, 3)], 0.0);
    }
    free(two), free(three), free(w), free(lse2), free(lse3);
}

/* The micro-kernels of which a coupled pass is made. */
static void test_pieces(run *t, const mixture *m, const answer *a) {
    const ptrdiff_t n = m->n, d = m->d, k = m->k, ng = padded(n) / EMC_GROUP;
    const double tolerance = 1e-13 * (a->largest + 10.0);
    double *logp = doubles(padded(n) * k), *lse = doubles(padded(n)), *mass = zeros(k), loglik = 0.0;
    for (ptrdiff_t c = 0; c < k; c++) {
        double *out = logp + c * EMC_GROUP;
        const double *mu = m->means + c * d, *factor = factor_of(m, c);
        if (m->diagonal)
            t->table->sqdist_diag(m->X, ng, d, mu, factor, 0.0, -0.5, out, k * EMC_GROUP);
        else
            t->table->sqdist_tri(m->X, ng, d, mu, factor, 0.0, -0.5, out, k * EMC_GROUP);
        for (ptrdiff_t i = 0; i < padded(n); i++) {
            const double want = a->logp[(i < n ? i : n - 1) * k + c] - m->peaks[c];
            if (isfinite(want))
                expect(t, m->diagonal ? "sqdist_diag" : "sqdist_tri", i, logp[at(i, c, k)], want,
                       1e-13 * (fabs(want) + 10.0));
        }
    }
    t->table->affine(m->X, ng, d, m->means, 0.75, lse, EMC_GROUP);
    for (ptrdiff_t i = 0; i < padded(n); i++) {
        double want = 0.75, size = 0.75;
        for (ptrdiff_t j = 0; j < d; j++) {
            want += m->means[j] * m->X[at(i, j, d)];
            size += fabs(m->means[j] * m->X[at(i, j, d)]);
        }
        expect(t, "affine", i, lse[i], want, 1e-14 * size);
    }
    const ptrdiff_t bad = t->table->normalize_rows(logp, n, k, m->peaks, m->w, lse, &loglik);
    expect(t, "normalize_rows, bad row", 0, (double)bad, -1.0, 0.0);
    expect(t, "normalize_rows, sum", 0, loglik, a->loglik, 1e-13 * a->scale);
    for (ptrdiff_t i = 0; i < n; i++) {
        expect(t, "normalize_rows, rows", i, lse[i], a->lse[i], 1e-13 * (fabs(a->lse[i]) + 10.0));
        for (ptrdiff_t c = 0; c < k; c++)
            expect(t, "normalize_rows", i, logp[at(i, c, k)], a->resp[i * k + c], tolerance);
    }
    t->table->column_mass(logp, ng, k, mass);
    for (ptrdiff_t c = 0; c < k; c++)
        expect(t, "column_mass", c, mass[c], a->stats[c], tolerance * (a->sizes[c] + 1.0));
    double *sum = zeros(d), *second = zeros(m->one), *gram = zeros(m->one), *gram_size = zeros(m->one);
    const ptrdiff_t c = k - 1;
    const double *mu = m->means + c * d, *r = logp + c * EMC_GROUP;
    t->table->weighted_sum(m->X, ng, d, mu, r, k * EMC_GROUP, sum);
    if (m->diagonal)
        t->table->weighted_squares(m->X, ng, d, mu, r, k * EMC_GROUP, second);
    else
        t->table->weighted_gram(m->X, ng, d, mu, r, k * EMC_GROUP, second);
    for (ptrdiff_t j = 0; j < d; j++)
        expect(t, "weighted_sum", j, sum[j], a->stats[3 * k + c * d + j],
               tolerance * (a->sizes[3 * k + c * d + j] + 1.0));
    for (ptrdiff_t i = 0; i < n; i++) {
        for (ptrdiff_t j = 0; j < d; j++) {
            for (ptrdiff_t l = m->diagonal ? j : 0; l <= j; l++) {
                const ptrdiff_t entry = m->diagonal ? j : j * (j + 1) / 2 + l;
                const double term = logp[at(i, c, k)] * (m->X[at(i, j, d)] - mu[j]) * (m->X[at(i, l, d)] - mu[l]);
                gram[entry] += term;
                gram_size[entry] += fabs(term);
            }
        }
    }
    for (ptrdiff_t j = 0; j < m->one; j++)
        expect(t, m->diagonal ? "weighted_squares" : "weighted_gram", j, second[j], gram[j], 1e-13 * gram_size[j]);
    free(logp), free(lse), free(mass), free(sum), free(second), free(gram), free(gram_size);
}

/* The micro-kernels of directional derivatives, and both moments in one go. */
static void test_tangents(run *t, const mixture *m, const answer *a) {
    const ptrdiff_t n = m->n, d = m->d, k = m->k, all = padded(n), ng = all / EMC_GROUP, c = k - 1;
    const double *mu = m->means + c * d, *factor = factor_of(m, c);
    double *Y = doubles(all * d), *out = doubles(all * k), *squares = doubles(all), *resp = zeros(all * k);
    double *slope = doubles(d), *C = doubles(m->one), *white = doubles(d), *z = doubles(d), *moved = doubles(k);
    for (ptrdiff_t j = 0; j < d; j++)
        slope[j] = normal(t);
    for (ptrdiff_t j = 0; j < m->one; j++)
        C[j] = normal(t);
    if (m->diagonal) {
        t->table->quadratic_diag(m->X, ng, d, mu, factor, 0.5, slope, C, out + c * EMC_GROUP, k * EMC_GROUP);
    } else {
        t->table->whiten_tri(m->X, ng, d, mu, factor, 2.0, -0.5, Y, squares, EMC_GROUP);
        t->table->quadratic_tri(Y, ng, d, 0.5, slope, C, out + c * EMC_GROUP, k * EMC_GROUP);
    }
    for (ptrdiff_t i = 0; i < all; i++) {
        double want = 0.5, size = 0.5, square = 0.0;
        for (ptrdiff_t j = 0; j < d; j++)
            z[j] = m->X[at(i, j, d)] - mu[j];
        whiten(m, c, z, white);
        for (ptrdiff_t j = 0; j < d; j++) {
            square += white[j] * white[j];
            want += slope[j] * white[j];
            size += fabs(slope[j] * white[j]);
            for (ptrdiff_t l = m->diagonal ? j : 0; l <= j; l++) {
                const double term = C[m->diagonal ? j : j * (j + 1) / 2 + l] * white[j] * white[l];
                want += term;
                size += fabs(term);
            }
        }
        expect(t, m->diagonal ? "quadratic_diag" : "quadratic_tri", i, out[at(i, c, k)], want, 1e-13 * (size + square));
        if (m->diagonal)
            continue;
        expect(t, "whiten_tri, squares", i, squares[i], 2.0 - 0.5 * square, 1e-13 * (square + 10.0));
        for (ptrdiff_t j = 0; j < d; j++)
            expect(t, "whiten_tri", i, Y[at(i, j, d)], white[j], 1e-13 * (sqrt(square) + 10.0));
    }
    for (ptrdiff_t l = 0; l < k; l++)
        moved[l] = normal(t);
    for (ptrdiff_t i = 0; i < all; i++) {
        for (ptrdiff_t l = 0; l < k; l++) { /* a derivative that is no number where there is no responsibility */
            resp[at(i, l, k)] = i < n ? a->resp[i * k + l] : 0.0;
            out[at(i, l, k)] = resp[at(i, l, k)] > 0.0 ? normal(t) : (double)NAN;
        }
    }
    double *dot = doubles(all * k);
    memcpy(dot, out, (size_t)(all * k) * sizeof(double));
    t->table->normalize_rows_dot(dot, ng, k, moved, m->w, resp);
    for (ptrdiff_t i = 0; i < all; i++) {
        double mean = 0.0;
        for (ptrdiff_t l = 0; l < k; l++)
            if (resp[at(i, l, k)] > 0.0)
                mean += resp[at(i, l, k)] / m->w[i] * (out[at(i, l, k)] + moved[l]);
        for (ptrdiff_t l = 0; l < k; l++) {
            const double r = resp[at(i, l, k)];
            expect(t, "normalize_rows_dot", i, dot[at(i, l, k)],
                   r > 0.0 ? r * (out[at(i, l, k)] + moved[l] - mean) : 0.0,
                   1e-13 * r * (fabs(out[at(i, l, k)]) + 10.0));
        }
    }
    if (!m->diagonal) { /* of both signs */
        double *sum = zeros(d), *gram = zeros(m->one), *sum1 = zeros(d), *gram1 = zeros(m->one), size = 0.0;
        t->table->weighted_moments(m->X, ng, d, mu, dot + c * EMC_GROUP, k * EMC_GROUP, sum, gram);
        t->table->weighted_sum(m->X, ng, d, mu, dot + c * EMC_GROUP, k * EMC_GROUP, sum1);
        t->table->weighted_gram(m->X, ng, d, mu, dot + c * EMC_GROUP, k * EMC_GROUP, gram1);
        for (ptrdiff_t i = 0; i < n; i++)
            for (ptrdiff_t j = 0; j < d; j++)
                size += fabs(dot[at(i, c, k)]) * (1.0 + pow(m->X[at(i, j, d)] - mu[j], 2.0));
        for (ptrdiff_t j = 0; j < d; j++)
            expect(t, "weighted_moments, sums", j, sum[j], sum1[j], 1e-13 * size);
        for (ptrdiff_t j = 0; j < m->one; j++)
            expect(t, "weighted_moments", j, gram[j], gram1[j], 1e-13 * size);
        free(sum), free(gram), free(sum1), free(gram1);
    }
    free(Y), free(out), free(squares), free(resp), free(slope), free(C), free(white), free(z), free(moved), free(dot);
}

/* Factors, residuals and densities of factor analysis, for as many factors as there are components. */
static void test_factors(run *t, const mixture *m) {
    const ptrdiff_t n = m->n, d = m->d, q = m->k < 12 ? m->k : 12, all = padded(n), ng = all / EMC_GROUP;
    double *B = doubles(q * d), *L = doubles(d * q), *precision = doubles(d), *f = doubles(q);
    double *F = doubles(all * q), *Y = doubles(all * d), *out = doubles(all), *bare = doubles(all);
    for (ptrdiff_t i = 0; i < q * d; i++) {
        B[i] = normal(t);
        L[i] = normal(t);
    }
    for (ptrdiff_t j = 0; j < d; j++)
        precision[j] = 0.1 + uniform(t);
    t->table->factor_scores(m->X, ng, d, q, m->means, B, L, precision, 0.75, F, Y, out, EMC_GROUP);
    t->table->factor_scores(m->X, ng, d, q, m->means, B, L, precision, 0.75, F, NULL, bare, EMC_GROUP);
    for (ptrdiff_t i = 0; i < all; i++) {
        double want = 0.75, size = 0.75;
        for (ptrdiff_t l = 0; l < q; l++) {
            double terms = f[l] = 0.0;
            for (ptrdiff_t j = 0; j < d; j++) {
                const double term = B[l * d + j] * (m->X[at(i, j, d)] - m->means[j]);
                f[l] += term;
                terms += fabs(term);
            }
            expect(t, "factor_scores, factors", i, F[at(i, l, q)], f[l], 1e-14 * terms);
            want -= 0.5 * f[l] * f[l];
            size += terms * terms;
        }
        for (ptrdiff_t j = 0; j < d; j++) {
            double y = m->X[at(i, j, d)] - m->means[j], terms = fabs(y);
            for (ptrdiff_t l = 0; l < q; l++) {
                double all_of_it = 0.0;
                for (ptrdiff_t o = 0; o < d; o++)
                    all_of_it += fabs(B[l * d + o] * (m->X[at(i, o, d)] - m->means[o]));
                y -= L[j * q + l] * f[l];
                terms += fabs(L[j * q + l]) * all_of_it;
            }
            expect(t, "factor_scores, residuals", i, Y[at(i, j, d)], y, 2e-14 * terms);
            want -= 0.5 * precision[j] * y * y;
            size += precision[j] * terms * terms;
        }
        expect(t, "factor_scores", i, out[i], want, 2e-14 * size);
        expect(t, "factor_scores without residuals", i, bare[i], out[i], 0.0);
    }
    double *cross = zeros(q * d);
    for (int twice = 0; twice < 2; twice++)
        t->table->weighted_cross(m->X, ng, d, m->means, F, q, cross);
    for (ptrdiff_t l = 0; l < q; l++) {
        for (ptrdiff_t j = 0; j < d; j++) {
            double want = 0.0, size = 0.0;
            for (ptrdiff_t i = 0; i < all; i++) {
                const double term = 2.0 * F[at(i, l, q)] * (m->X[at(i, j, d)] - m->means[j]);
                want += term;
                size += fabs(term);
            }
            expect(t, "weighted_cross", l * d + j, cross[l * d + j], want, 1e-13 * size);
        }
    }
    free(B), free(L), free(precision), free(f), free(F), free(Y), free(out), free(bare), free(cross);
}

static emc_gaussians model_of(const mixture *m) {
    return (emc_gaussians){
        .size = sizeof(emc_gaussians),
        .k = m->k,
        .d = m->d,
        .diagonal = m->diagonal,
        .pooled = m->pooled,
        .means = m->means,
        .factors = m->factors,
        .factor_stride = !m->diagonal && m->pooled ? 0 : m->one,
        .peaks = m->peaks,
        .threshold = m->threshold,
        .slopes = m->slopes,
        .offsets = m->offsets,
        .directions = m->directions,
        .direction_offsets = m->direction_offsets,
        .shift = m->shift,
        .scale = m->scale,
        .white = m->white,
        .thresholds = m->thresholds,
    };
}

static emc_panel panel_of(const mixture *m) {
    return (emc_panel){
        .size = sizeof(emc_panel),
        .n = m->n,
        .d = m->d,
        .X = m->X,
        .w = m->w,
        .raw = m->raw.first,
        .raw_type = m->raw.type,
        .raw_row_stride = m->raw.row_stride,
        .raw_col_stride = m->raw.col_stride,
        .bad_row = -1,
    };
}

/* The fused pass, in float64 or in lanes of float32. */
static void test_fused(run *t, const mixture *m, const answer *a, int rows_too) {
    const ptrdiff_t n = m->n, d = m->d, k = m->k;
    const emc_gaussians model = model_of(m);
    emc_panel panel = panel_of(m);
    panel.resp = rows_too ? doubles(n * k) : NULL;
    panel.row_loglik = rows_too ? doubles(n) : NULL;
    const int single = m->single && !rows_too;
    const ptrdiff_t work_size =
        (single ? t->table->gaussian_mixture_work_single : t->table->gaussian_mixture_work)(&model, n);
    double *stats = zeros(a->n_stats), *work = doubles(work_size), loglik[2] = {0.0, 0.0};
    const int code =
        (single ? t->table->gaussian_mixture_single : t->table->gaussian_mixture)(&model, &panel, stats, loglik, work);
    expect(t, "gaussian_mixture, code", 0, code, EMC_OK, 0.0);
    /* Responsibilities feel the rounding of the log-densities. */
    const double tolerance = (single ? 3e-7 : 1e-13) * (a->largest + 10.0), least = single ? 0.1 : 1.0;
    const double dropped = (double)n * exp(-fmin(m->threshold, single ? 85.0 : 690.0));
    expect(t, "gaussian_mixture, sum", 0, loglik[0], a->loglik, (single ? 1e-6 : 1e-13) * (a->scale + 1.0));
    expect(t, "gaussian_mixture, scale", 0, loglik[1], a->scale, (single ? 1e-6 : 1e-13) * (a->scale + 1.0));
    for (ptrdiff_t i = 0; i < a->n_stats; i++)
        expect(t, single ? "gaussian_mixture_single" : "gaussian_mixture", i, stats[i], a->stats[i],
               tolerance * (a->sizes[i] + least) + dropped);
    for (ptrdiff_t i = 0; rows_too && i < n; i++) {
        expect(t, "gaussian_mixture, rows", i, panel.row_loglik[i], a->lse[i], 1e-13 * (fabs(a->lse[i]) + 10.0));
        for (ptrdiff_t c = 0; c < k; c++)
            expect(t, "gaussian_mixture, responsibilities", i, panel.resp[i * k + c], a->resp[i * k + c], tolerance);
    }

    /* A row without density is named, one without weight may be as large as it likes. */
    const ptrdiff_t bad = n / 2;
    for (int weighted = 0; weighted < 2; weighted++) {
        const double w = m->w[bad], x = m->X[at(bad, d - 1, d)];
        loglik[0] = loglik[1] = 0.0;
        m->w[bad] = weighted;
        m->X[at(bad, d - 1, d)] = weighted ? (double)NAN : DBL_MAX;
        panel.bad_row = -1;
        const int found = (single ? t->table->gaussian_mixture_single
                                  : t->table->gaussian_mixture)(&model, &panel, stats, loglik, work);
        expect(t, "gaussian_mixture, code", weighted, found, weighted ? EMC_BAD_ROW : EMC_OK, 0.0);
        expect(t, "gaussian_mixture, bad row", weighted, (double)panel.bad_row, weighted ? (double)bad : -1.0, 0.0);
        for (ptrdiff_t i = 0; !weighted && i < a->n_stats; i++)
            expect(t, "gaussian_mixture beside a far row is finite", i, isfinite(stats[i]), 1.0, 0.0);
        m->w[bad] = w;
        m->X[at(bad, d - 1, d)] = x;
    }
    free(panel.resp), free(panel.row_loglik), free(stats), free(work);
}

/* A pass by callers whose header knew the first `size` bytes of a model, which is all that they hand over. */
static ptrdiff_t pass_of_size(run *t, const mixture *m, const emc_gaussians *whole, size_t size, double *stats,
                              ptrdiff_t n_stats) {
    emc_gaussians *model = bytes(size);
    emc_panel panel = panel_of(m);
    memcpy(model, whole, size < sizeof *whole ? size : sizeof *whole);
    model->size = size;
    const ptrdiff_t work_size = t->table->gaussian_mixture_work(model, m->n);
    double *work = doubles(work_size), loglik[2] = {0.0, 0.0};
    for (ptrdiff_t i = 0; i < n_stats; i++)
        stats[i] = 0.0;
    t->table->gaussian_mixture(model, &panel, stats, loglik, work);
    free(model), free(work);
    return work_size;
}

/* Fields beyond the caller's `size` count as NULL, those within it as they are, and nothing is read of what a later
 * header may have added. */
static void test_sizes(run *t, const mixture *m, const answer *a) {
    static const struct {
        size_t size;
        int white, thresholds;
    } callers[] = {
        {offsetof(emc_gaussians, white), 0, 0},
        {offsetof(emc_gaussians, thresholds), 1, 0},
        {offsetof(emc_gaussians, thresholds) + sizeof(double *), 1, 1},
        {sizeof(emc_gaussians) + sizeof(double *), 1, 1},
    };
    double *stats = doubles(a->n_stats), *want = doubles(a->n_stats);
    for (size_t i = 0; i < sizeof callers / sizeof callers[0]; i++) {
        const emc_gaussians whole = model_of(m);
        emc_gaussians known = whole;
        known.white = callers[i].white ? whole.white : NULL;
        known.thresholds = callers[i].thresholds ? whole.thresholds : NULL;
        const ptrdiff_t work_size = pass_of_size(t, m, &whole, callers[i].size, stats, a->n_stats);
        const ptrdiff_t want_size = pass_of_size(t, m, &known, sizeof known, want, a->n_stats);
        expect(t, "gaussian_mixture_work of another header", (ptrdiff_t)i, (double)work_size, (double)want_size, 0.0);
        for (ptrdiff_t j = 0; j < a->n_stats; j++)
            expect(t, "gaussian_mixture of another header", (ptrdiff_t)i, stats[j], want[j], 0.0);
    }
    free(stats), free(want);
}

typedef struct task {
    int step;
    long failures;
} task;

static void *test_all(void *argument) {
    task *own = argument;
    int runs = 0;
    for (int target = 0; emc_target(target, &runs); target++) {
        run t = {.table = emc_target(target, NULL), .state = UINT64_C(88172645463325252)};
        if (!runs)
            continue;
        for (ptrdiff_t n = 0; n < 40; n++)
            test_elementwise(&t, n);
        test_two_states(&t);
        for (int shape = 0; shape < N_SHAPES; shape++) {
            snprintf(t.what, sizeof t.what, "n %td, d %td", shapes[shape].n, shapes[shape].d);
            test_packing(&t, shapes[shape].n, shapes[shape].d);
            test_counts(&t, shapes[shape].n);
            test_by_rows(&t, shapes[shape].n, shapes[shape].d);
            /* Large shapes take their share of the variants only. */
            const ptrdiff_t work = shapes[shape].n * shapes[shape].k * shapes[shape].d;
            for (int variant = 0; variant < VARIANTS; variant += own->step * (work > 100000 ? 3 : 1)) {
                snprintf(t.what, sizeof t.what, "n %td, d %td, k %td, variant %d", shapes[shape].n, shapes[shape].d,
                         shapes[shape].k, variant);
                mixture m = make_mixture(&t, shape, variant);
                answer a = solve(&m);
                test_pieces(&t, &m, &a);
                test_tangents(&t, &m, &a);
                if (variant == 0)
                    test_factors(&t, &m);
                test_fused(&t, &m, &a, 0);
                test_fused(&t, &m, &a, 1);
                if (m.white || m.thresholds)
                    test_sizes(&t, &m, &a);
                free_answer(&a);
                free_mixture(&m);
            }
        }
        printf("%-9s %ld numbers compared, the worst at %.2g of what is allowed%s\n", t.table->name, t.compared,
               t.worst, t.failures ? "  FAILS" : "");
        own->failures += t.failures;
    }
    return NULL;
}

int main(int argc, char **argv) {
    enum { MOST = 16 };
    const int threads = argc > 1 ? atoi(argv[1]) : 1, step = argc > 2 ? atoi(argv[2]) : 1;
    pthread_t ids[MOST];
    task tasks[MOST];
    long failures = 0;
    if (threads < 1 || threads > MOST || step < 1)
        return 2;
    for (int i = 0; i < threads; i++) {
        tasks[i] = (task){.step = step};
        if (pthread_create(&ids[i], NULL, test_all, &tasks[i]) != 0)
            return 2;
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        failures += tasks[i].failures;
    }
    return failures > 0;
}
