/* Register tiles of the weighted gram matrix, sum r z z' with z = x - mu, over the rows of a list of groups.
 *
 * The matrix is made in tiles of 4 rows i and TILE_COLUMNS columns j. The tile on the diagonal leaves r z_i in a strip,
 * [vector of rows][i][lane], for the tiles to its left. */
#ifndef EMC_GRAM_TILE_H
#define EMC_GRAM_TILE_H

#include "micro.h"

#if V_REGISTERS >= 32
#define TILE_COLUMNS 4
#else
#define TILE_COLUMNS 2
#endif
/* Rows are taken in chunks: their strip stays in the first cache (and on the stack), their columns in the second. */
#define CHUNK_GROUPS 16
#define CHUNK_GROUPS_WIDE 8
#define WIDE 160 /* columns */

/* Groups x[0 .. ng - 1] of d packed columns, with the weights of their rows. */
typedef struct rows {
    const real *const *x, *const *r;
    const real *mu;
    ptrdiff_t ng, d;
} rows;

/* The first m columns and rows of the triangle, whose remainder of d by 4 is put there: no strip, nothing to the left.
 * `moments`: sum[j] += sum r z_j for these columns, too. */
EMC_INLINE void gram_head(const rows *p, int m, int moments, double *gram, double *sum) {
    vd a00 = v_zero(), a10 = v_zero(), a11 = v_zero(), a20 = v_zero(), a21 = v_zero(), a22 = v_zero();
    vd s0 = v_zero(), s1 = v_zero(), s2 = v_zero();
    const vd mu0 = v_set1(p->mu[0]), mu1 = m > 1 ? v_set1(p->mu[1]) : v_zero();
    const vd mu2 = m > 2 ? v_set1(p->mu[2]) : v_zero();
    for (ptrdiff_t g = 0; g < p->ng; g++) {
        const real *x = p->x[g], *weights = p->r[g];
        for (int v = 0; v < GROUP; v += V_LANES) {
            const vd r = v_pin(v_load(weights + v));
            const vd z0 = v_sub(v_load(x + v), mu0), t0 = v_mul(r, z0);
            a00 = v_fma(t0, z0, a00);
            if (moments)
                s0 = v_add(s0, t0);
            if (m > 1) {
                const vd z1 = v_sub(v_load(x + v + GROUP), mu1), t1 = v_mul(r, z1);
                a10 = v_fma(t0, z1, a10);
                a11 = v_fma(t1, z1, a11);
                if (moments)
                    s1 = v_add(s1, t1);
                if (m > 2) {
                    const vd z2 = v_sub(v_load(x + v + 2 * GROUP), mu2), t2 = v_mul(r, z2);
                    a20 = v_fma(t2, z0, a20);
                    a21 = v_fma(t2, z1, a21);
                    a22 = v_fma(t2, z2, a22);
                    if (moments)
                        s2 = v_add(s2, t2);
                }
            }
        }
    }
    double sums[12] = {0.0};
    v_add_sums4(sums, a00, a10, a11, a20);
    if (m > 2)
        v_add_sums4(sums + 4, a21, a22, a22, a22);
    if (moments)
        v_add_sums4(sums + 8, s0, s1, s2, s2);
    for (int i = 0; i < m * (m + 1) / 2; i++)
        gram[i] += sums[i];
    for (int i = 0; moments && i < m; i++)
        sum[i] += sums[8 + i];
}

/* Rows and columns i .. i + 3; fills the strip where asked to. */
EMC_INLINE void gram_diagonal(const rows *p, ptrdiff_t i, int moments, int fill, real *strip, double *gram,
                              double *sum) {
    vd a00 = v_zero(), a10 = v_zero(), a11 = v_zero(), a20 = v_zero(), a21 = v_zero();
    vd a22 = v_zero(), a30 = v_zero(), a31 = v_zero(), a32 = v_zero(), a33 = v_zero();
    vd s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero();
    const real *mu = p->mu + i;
    for (ptrdiff_t g = 0; g < p->ng; g++) {
        const real *x = p->x[g] + i * GROUP, *weights = p->r[g];
        for (int v = 0; v < GROUP; v += V_LANES, strip += 4 * V_LANES) {
            const vd r = v_pin(v_load(weights + v));
            const vd z0 = v_sub(v_load(x + v), v_set1(mu[0])), t0 = v_mul(r, z0);
            if (fill)
                v_store(strip, t0);
            a00 = v_fma(t0, z0, a00);
            const vd z1 = v_sub(v_load(x + v + GROUP), v_set1(mu[1])), t1 = v_mul(r, z1);
            if (fill)
                v_store(strip + V_LANES, t1);
            a10 = v_fma(t1, z0, a10);
            a11 = v_fma(t1, z1, a11);
            const vd z2 = v_sub(v_load(x + v + 2 * GROUP), v_set1(mu[2])), t2 = v_mul(r, z2);
            if (fill)
                v_store(strip + 2 * V_LANES, t2);
            a20 = v_fma(t2, z0, a20);
            a21 = v_fma(t2, z1, a21);
            a22 = v_fma(t2, z2, a22);
            const vd z3 = v_sub(v_load(x + v + 3 * GROUP), v_set1(mu[3])), t3 = v_mul(r, z3);
            if (fill)
                v_store(strip + 3 * V_LANES, t3);
            a30 = v_fma(t3, z0, a30);
            a31 = v_fma(t3, z1, a31);
            a32 = v_fma(t3, z2, a32);
            a33 = v_fma(t3, z3, a33);
            if (moments && V_REGISTERS >= 32) {
                s0 = v_add(s0, t0);
                s1 = v_add(s1, t1);
                s2 = v_add(s2, t2);
                s3 = v_add(s3, t3);
            }
        }
    }
    if (moments && V_REGISTERS < 32) { /* 10 accumulators are all that fit beside the operands */
        for (const real *t = strip - p->ng * GROUP * 4; t < strip; t += 4 * V_LANES) {
            s0 = v_add(s0, v_load(t));
            s1 = v_add(s1, v_load(t + V_LANES));
            s2 = v_add(s2, v_load(t + 2 * V_LANES));
            s3 = v_add(s3, v_load(t + 3 * V_LANES));
        }
    }
    double sums[12] = {0.0};
    v_add_sums4(sums, a00, a10, a11, a20);
    v_add_sums4(sums + 4, a21, a22, a30, a31);
    v_add_sums4(sums + 8, a32, a33, a33, a33);
    double *row0 = gram + i * (i + 1) / 2 + i, *row1 = row0 + i + 1, *row2 = row1 + i + 2, *row3 = row2 + i + 3;
    row0[0] += sums[0];
    row1[0] += sums[1];
    row1[1] += sums[2];
    row2[0] += sums[3];
    row2[1] += sums[4];
    row2[2] += sums[5];
    row3[0] += sums[6];
    row3[1] += sums[7];
    row3[2] += sums[8];
    row3[3] += sums[9];
    if (moments)
        v_add_sums4(sum + i, s0, s1, s2, s3);
}

/* a.. += t z.. for one row of the tile, whose accumulators are named a0 .. a3. */
#define ADD_ROW(a, p)                                                                                                  \
    do {                                                                                                               \
        const vd t = v_pin(v_load(p));                                                                                 \
        a##0 = v_fma(t, z0, a##0);                                                                                     \
        if (columns > 1)                                                                                               \
            a##1 = v_fma(t, z1, a##1);                                                                                 \
        if (columns > 2)                                                                                               \
            a##2 = v_fma(t, z2, a##2);                                                                                 \
        if (columns > 3)                                                                                               \
            a##3 = v_fma(t, z3, a##3);                                                                                 \
    } while (0)

/* Rows i .. i + 3, columns j .. j + columns - 1 <= i. */
EMC_INLINE void gram_tile(const rows *p, ptrdiff_t i, ptrdiff_t j, int columns, const real *strip, double *gram) {
    vd a0 = v_zero(), a1 = v_zero(), a2 = v_zero(), a3 = v_zero();
    vd b0 = v_zero(), b1 = v_zero(), b2 = v_zero(), b3 = v_zero();
    vd c0 = v_zero(), c1 = v_zero(), c2 = v_zero(), c3 = v_zero();
    vd d0 = v_zero(), d1 = v_zero(), d2 = v_zero(), d3 = v_zero();
    vd z0, z1 = v_zero(), z2 = v_zero(), z3 = v_zero();
    const vd mu0 = v_set1(p->mu[j]), mu1 = columns > 1 ? v_set1(p->mu[j + 1]) : v_zero();
    const vd mu2 = columns > 2 ? v_set1(p->mu[j + 2]) : v_zero(), mu3 = columns > 3 ? v_set1(p->mu[j + 3]) : v_zero();
    for (ptrdiff_t g = 0; g < p->ng; g++) {
        const real *x = p->x[g] + j * GROUP;
        for (int v = 0; v < GROUP; v += V_LANES, strip += 4 * V_LANES) {
            z0 = v_sub(v_load(x + v), mu0);
            if (columns > 1)
                z1 = v_sub(v_load(x + v + GROUP), mu1);
            if (columns > 2)
                z2 = v_sub(v_load(x + v + 2 * GROUP), mu2);
            if (columns > 3)
                z3 = v_sub(v_load(x + v + 3 * GROUP), mu3);
            ADD_ROW(a, strip);
            ADD_ROW(b, strip + V_LANES);
            ADD_ROW(c, strip + 2 * V_LANES);
            ADD_ROW(d, strip + 3 * V_LANES);
        }
    }
    double *row0 = gram + i * (i + 1) / 2 + j, *row1 = row0 + i + 1, *row2 = row1 + i + 2, *row3 = row2 + i + 3;
    if (columns == 4) {
        v_add_sums4(row0, a0, a1, a2, a3);
        v_add_sums4(row1, b0, b1, b2, b3);
        v_add_sums4(row2, c0, c1, c2, c3);
        v_add_sums4(row3, d0, d1, d2, d3);
        return;
    }
    double sums[4] = {0.0, 0.0, 0.0, 0.0};
    v_add_sums4(sums, a0, b0, c0, d0);
    row0[0] += sums[0];
    row1[0] += sums[1];
    row2[0] += sums[2];
    row3[0] += sums[3];
    if (columns > 1) {
        double sums1[4] = {0.0, 0.0, 0.0, 0.0};
        v_add_sums4(sums1, a1, b1, c1, d1);
        row0[1] += sums1[0];
        row1[1] += sums1[1];
        row2[1] += sums1[2];
        row3[1] += sums1[3];
    }
    if (columns > 2) {
        double sums2[4] = {0.0, 0.0, 0.0, 0.0};
        v_add_sums4(sums2, a2, b2, c2, d2);
        row0[2] += sums2[0];
        row1[2] += sums2[1];
        row2[2] += sums2[2];
        row3[2] += sums2[3];
    }
}

/* gram += the gram matrix of at most CHUNK_GROUPS groups; `moments`: sum += sum r z, too. */
EMC_INLINE void gram_chunk(const rows *p, int moments, double *gram, double *sum) {
    _Alignas(EMC_ALIGN) real strip[CHUNK_GROUPS * GROUP * 4];
    const ptrdiff_t head = p->d % 4;
    if (head == 1)
        gram_head(p, 1, moments, gram, sum);
    else if (head == 2)
        gram_head(p, 2, moments, gram, sum);
    else if (head == 3)
        gram_head(p, 3, moments, gram, sum);
    for (ptrdiff_t i = head; i < p->d; i += 4) {
        if (i > 0 || (moments && V_REGISTERS < 32))
            gram_diagonal(p, i, moments, 1, strip, gram, sum);
        else
            gram_diagonal(p, i, moments, 0, strip, gram, sum);
        if (head == 1) {
            gram_tile(p, i, 0, 1, strip, gram);
        } else if (head == 2) {
            gram_tile(p, i, 0, 2, strip, gram);
        } else if (head == 3 && TILE_COLUMNS == 4) {
            gram_tile(p, i, 0, 3, strip, gram);
        } else if (head == 3) {
            gram_tile(p, i, 0, 2, strip, gram);
            gram_tile(p, i, 2, 1, strip, gram);
        }
        for (ptrdiff_t j = head; j < i; j += TILE_COLUMNS)
            gram_tile(p, i, j, TILE_COLUMNS, strip, gram);
    }
}

#endif
