/* Rows as they came, one number of a row beside the next: lanes run over columns.  What does little with each number is
 * faster so than it would pack them. */
#include "micro.h"

#define MOST_VECTORS 4 /* that a sweep over the rows sums, each with two weights */

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

/* Some vectors of columns, of the last of them `part` columns, with one weight a row or two. */
EMC_INLINE void sum_tile(const double *X, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride, const double *W, ptrdiff_t m,
                         int pair, int vectors, ptrdiff_t part, double *sums) {
    vd s[MOST_VECTORS], t[MOST_VECTORS];
    for (int v = 0; v < vectors; v++)
        s[v] = t[v] = v_zero();
    for (ptrdiff_t first = 0; first < n; first += EMC_GROUP, W += m * EMC_GROUP) {
        const ptrdiff_t rows = n - first < EMC_GROUP ? n - first : EMC_GROUP;
        for (ptrdiff_t i = 0; i < rows; i++, X += row_stride) {
            if (W[i] == 0.0 && (!pair || W[i + EMC_GROUP] == 0.0))
                continue; /* such rows may hold anything */
            const vd w = v_set1(W[i]), u = pair ? v_set1(W[i + EMC_GROUP]) : w;
            for (int v = 0; v < vectors; v++) {
                const vd x = v == vectors - 1 ? v_load_part(X + v * V_LANES, part) : v_load(X + v * V_LANES);
                s[v] = v_fma(w, x, s[v]);
                if (pair)
                    t[v] = v_fma(u, x, t[v]);
            }
        }
    }
    for (int v = 0; v < vectors; v++) {
        const ptrdiff_t there = v == vectors - 1 ? part : V_LANES;
        double *to = sums + v * V_LANES;
        v_store_part(to, v_add(v_load_part(to, there), s[v]), there);
        if (pair)
            v_store_part(to + d, v_add(v_load_part(to + d, there), t[v]), there);
    }
}

EMC_INLINE void sum_rows(const double *X, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride, const double *W, ptrdiff_t m,
                         int pair, double *sums) {
    for (ptrdiff_t j = 0; j < d; j += MOST_VECTORS * V_LANES) {
        const ptrdiff_t vectors = (d - j + V_LANES - 1) / V_LANES, part = d - j - (vectors - 1) * V_LANES;
        switch (vectors) {
        case 1:
            sum_tile(X + j, n, d, row_stride, W, m, pair, 1, part, sums + j);
            break;
        case 2:
            sum_tile(X + j, n, d, row_stride, W, m, pair, 2, part, sums + j);
            break;
        case 3:
            sum_tile(X + j, n, d, row_stride, W, m, pair, 3, part, sums + j);
            break;
        case 4:
            sum_tile(X + j, n, d, row_stride, W, m, pair, 4, part, sums + j);
            break;
        default:
            sum_tile(X + j, n, d, row_stride, W, m, pair, MOST_VECTORS, V_LANES, sums + j);
        }
    }
}

void EMC_NAME(row_sums)(const double *X, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride, const double *W, ptrdiff_t m,
                        double *sums) {
    ptrdiff_t l = 0;
    for (; l + 2 <= m; l += 2)
        sum_rows(X, n, d, row_stride, W + l * EMC_GROUP, m, 1, sums + l * d);
    if (l < m)
        sum_rows(X, n, d, row_stride, W + l * EMC_GROUP, m, 0, sums + l * d);
}
