/* Rows as they came, one number of a row beside the next: lanes run over columns.  What does little with each number is
 * faster so than it would pack them. */
#include "micro.h"

#define FEW 4          /* rows that are read together */
#define MOST_VECTORS 4 /* of columns whose sums stay in registers, two of each */

/* Scalar products of four rows with b, as the four lanes of dst. */
EMC_INLINE void dot_rows(const double *const *x, ptrdiff_t d, const double *b, double *dst) {
    vd s0 = v_zero(), s1 = s0, s2 = s0, s3 = s0, t0 = s0, t1 = s0, t2 = s0, t3 = s0;
    ptrdiff_t j = 0;
    for (; j + 2 * V_LANES <= d; j += 2 * V_LANES) {
        const vd first = v_load(b + j), second = v_load(b + j + V_LANES);
        s0 = v_fma(v_load(x[0] + j), first, s0);
        s1 = v_fma(v_load(x[1] + j), first, s1);
        s2 = v_fma(v_load(x[2] + j), first, s2);
        s3 = v_fma(v_load(x[3] + j), first, s3);
        t0 = v_fma(v_load(x[0] + j + V_LANES), second, t0);
        t1 = v_fma(v_load(x[1] + j + V_LANES), second, t1);
        t2 = v_fma(v_load(x[2] + j + V_LANES), second, t2);
        t3 = v_fma(v_load(x[3] + j + V_LANES), second, t3);
    }
    for (; j < d; j += V_LANES) {
        const ptrdiff_t m = d - j < V_LANES ? d - j : V_LANES;
        const vd slope = v_load_part(b + j, m);
        s0 = v_fma(v_load_part(x[0] + j, m), slope, s0);
        s1 = v_fma(v_load_part(x[1] + j, m), slope, s1);
        s2 = v_fma(v_load_part(x[2] + j, m), slope, s2);
        s3 = v_fma(v_load_part(x[3] + j, m), slope, s3);
    }
    v_add_sums4(dst, v_add(s0, t0), v_add(s1, t1), v_add(s2, t2), v_add(s3, t3));
}

void EMC_NAME(row_dots)(const double *X, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride, const double *b, double a,
                        double *out, ptrdiff_t stride) {
    for (ptrdiff_t first = 0; first < n; first += EMC_GROUP, out += stride) {
        for (int v = 0; v < EMC_GROUP; v += 4) {
            const double *x[4];
            for (int i = 0; i < 4; i++) {
                x[i] = X + (first + v + i < n ? first + v + i : n - 1) * row_stride;
                out[v + i] = a;
            }
            dot_rows(x, d, b, out + v);
        }
    }
}

/* One vector of columns of FEW rows, each with a weight or two. */
EMC_INLINE void add_columns(const double *const *x, ptrdiff_t j, const vd *w, const vd *u, int pair, double *sum,
                            double *other) {
    vd s = v_load(sum + j), t = pair ? v_load(other + j) : s;
    for (int i = 0; i < FEW; i++) {
        const vd z = v_load(x[i] + j);
        s = v_fma(w[i], z, s);
        if (pair)
            t = v_fma(u[i], z, t);
    }
    v_store(sum + j, s);
    if (pair)
        v_store(other + j, t);
}

/* Whether a row weighs nothing: it may hold anything then, and is not read. */
EMC_INLINE int dropped(const double *weight, int pair) {
    return weight[0] == 0.0 && (!pair || weight[EMC_GROUP] == 0.0);
}

/* The first weight of a row; the second, in a pair, stands EMC_GROUP on. */
EMC_INLINE const double *weight_of(const double *W, ptrdiff_t m, ptrdiff_t i) {
    return W + i / EMC_GROUP * m * EMC_GROUP + i % EMC_GROUP;
}

/* Some vectors of columns, of the last of them `part` columns: their sums stay in registers. */
EMC_INLINE void sum_narrow(const double *X, ptrdiff_t n, ptrdiff_t row_stride, const double *W, ptrdiff_t m, int pair,
                           int vectors, ptrdiff_t part, double *sum, double *other) {
    vd s[MOST_VECTORS], t[MOST_VECTORS];
    for (int v = 0; v < vectors; v++)
        s[v] = t[v] = v_zero();
    for (ptrdiff_t first = 0; first < n; first += EMC_GROUP, W += m * EMC_GROUP) {
        const ptrdiff_t rows = n - first < EMC_GROUP ? n - first : EMC_GROUP;
        for (ptrdiff_t i = 0; i < rows; i++, X += row_stride) {
            if (dropped(W + i, pair))
                continue;
            const vd w = v_set1(W[i]), u = pair ? v_set1(W[i + EMC_GROUP]) : w;
            for (int v = 0; v < vectors; v++) {
                const vd z = v == vectors - 1 ? v_load_part(X + v * V_LANES, part) : v_load(X + v * V_LANES);
                s[v] = v_fma(w, z, s[v]);
                if (pair)
                    t[v] = v_fma(u, z, t[v]);
            }
        }
    }
    for (int v = 0; v < vectors; v++) {
        const ptrdiff_t there = v == vectors - 1 ? part : V_LANES, j = v * V_LANES;
        v_store_part(sum + j, v_add(v_load_part(sum + j, there), s[v]), there);
        if (pair)
            v_store_part(other + j, v_add(v_load_part(other + j, there), t[v]), there);
    }
}

/* Columns by whole vectors: sums stay in the first cache, and rows stream by, FEW at a time. */
EMC_INLINE void sum_wide(const double *X, ptrdiff_t n, ptrdiff_t whole, ptrdiff_t row_stride, const double *W,
                         ptrdiff_t m, int pair, double *sum, double *other) {
    ptrdiff_t next = 0;
    while (next < n) {
        const double *x[FEW];
        vd w[FEW], u[FEW];
        int found = 0;
        for (; found < FEW && next < n; next++) {
            const double *weight = weight_of(W, m, next);
            if (dropped(weight, pair))
                continue;
            x[found] = X + next * row_stride;
            w[found] = v_set1(weight[0]);
            u[found] = pair ? v_set1(weight[EMC_GROUP]) : w[found];
            found++;
        }
        if (found == 0)
            return;
        for (; found < FEW; found++) {
            x[found] = x[0];
            w[found] = u[found] = v_zero();
        }
        for (ptrdiff_t j = 0; j < whole; j += V_LANES)
            add_columns(x, j, w, u, pair, sum, other);
    }
}

/* A case of `sum_rows`: a number of vectors that is known stays in registers. */
#define NARROW(vectors)                                                                                                \
    case vectors:                                                                                                      \
        sum_narrow(X + wide, n, row_stride, W, m, pair, vectors, part, sum + wide, other + wide);                      \
        break

EMC_INLINE void sum_rows(const double *X, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride, const double *W, ptrdiff_t m,
                         int pair, double *sum) {
    const ptrdiff_t wide = d > MOST_VECTORS * V_LANES ? d / V_LANES * V_LANES : 0, rest = d - wide;
    const ptrdiff_t vectors = (rest + V_LANES - 1) / V_LANES, part = rest - (vectors - 1) * V_LANES;
    double *other = pair ? sum + d : sum;
    if (wide > 0)
        sum_wide(X, n, wide, row_stride, W, m, pair, sum, other);
    switch (vectors) {
        NARROW(1);
        NARROW(2);
        NARROW(3);
        NARROW(4);
    default:
        break;
    }
}
#undef NARROW

void EMC_NAME(row_sums)(const double *X, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride, const double *W, ptrdiff_t m,
                        double *sums) {
    ptrdiff_t l = 0;
    for (; l + 2 <= m; l += 2)
        sum_rows(X, n, d, row_stride, W + l * EMC_GROUP, m, 1, sums + l * d);
    if (l < m)
        sum_rows(X, n, d, row_stride, W + l * EMC_GROUP, m, 0, sums + l * d);
}
