/* Weighted moments about a centre: sums over the rows of a panel, lanes over rows, added across lanes once per call
 * and output (in weighted_gram: once per chunk of rows). */
#include "micro.h"

void EMC_NAME(column_mass)(const double *r, ptrdiff_t ng, ptrdiff_t k, double *mass) {
    ptrdiff_t c = 0;
    for (; c + 4 <= k; c += 4) {
        vd s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero();
        for (ptrdiff_t g = 0; g < ng; g++) {
            const double *p = r + (g * k + c) * EMC_GROUP;
            for (int v = 0; v < EMC_GROUP; v += V_LANES) {
                s0 = v_add(s0, v_load(p + v));
                s1 = v_add(s1, v_load(p + v + EMC_GROUP));
                s2 = v_add(s2, v_load(p + v + 2 * EMC_GROUP));
                s3 = v_add(s3, v_load(p + v + 3 * EMC_GROUP));
            }
        }
        v_add_sums4(mass + c, s0, s1, s2, s3);
    }
    for (; c < k; c++) {
        vd s = v_zero();
        for (ptrdiff_t g = 0; g < ng; g++)
            for (int v = 0; v < EMC_GROUP; v += V_LANES)
                s = v_add(s, v_load(r + (g * k + c) * EMC_GROUP + v));
        mass[c] += v_sum(s);
    }
}

/* Sums of r z (power 1) or r z^2 (power 2), z = x - mu, for all columns. */
EMC_INLINE void weighted_power(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                               ptrdiff_t stride, double *sum, int power) {
    ptrdiff_t j = 0;
    for (; j + 4 <= d; j += 4) {
        vd s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero();
        const vd mu0 = v_set1(mu[j]), mu1 = v_set1(mu[j + 1]), mu2 = v_set1(mu[j + 2]), mu3 = v_set1(mu[j + 3]);
        for (ptrdiff_t g = 0; g < ng; g++) {
            const double *x = X + (g * d + j) * EMC_GROUP;
            for (int v = 0; v < EMC_GROUP; v += V_LANES) {
                const vd t = v_pin(v_load(r + g * stride + v));
                const vd z0 = v_sub(v_load(x + v), mu0), z1 = v_sub(v_load(x + v + EMC_GROUP), mu1);
                const vd z2 = v_sub(v_load(x + v + 2 * EMC_GROUP), mu2), z3 = v_sub(v_load(x + v + 3 * EMC_GROUP), mu3);
                s0 = v_fma(power == 2 ? v_mul(t, z0) : t, z0, s0);
                s1 = v_fma(power == 2 ? v_mul(t, z1) : t, z1, s1);
                s2 = v_fma(power == 2 ? v_mul(t, z2) : t, z2, s2);
                s3 = v_fma(power == 2 ? v_mul(t, z3) : t, z3, s3);
            }
        }
        v_add_sums4(sum + j, s0, s1, s2, s3);
    }
    for (; j < d; j++) {
        vd s = v_zero();
        for (ptrdiff_t g = 0; g < ng; g++) {
            for (int v = 0; v < EMC_GROUP; v += V_LANES) {
                const vd t = v_load(r + g * stride + v);
                const vd z = v_sub(v_load(X + (g * d + j) * EMC_GROUP + v), v_set1(mu[j]));
                s = v_fma(power == 2 ? v_mul(t, z) : t, z, s);
            }
        }
        sum[j] += v_sum(s);
    }
}

void EMC_NAME(weighted_sum)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                            ptrdiff_t stride, double *sum) {
    weighted_power(X, ng, d, mu, r, stride, sum, 1);
}

void EMC_NAME(weighted_squares)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                                ptrdiff_t stride, double *squares) {
    weighted_power(X, ng, d, mu, r, stride, squares, 2);
}

/* The gram matrix is made in tiles of 4 rows i and TILE_COLUMNS columns j.  The tile on the diagonal leaves r (x_i -
 * mu_i) in a strip, [vector of rows][i][lane], for the tiles to its left. */
#if V_REGISTERS >= 32
#define TILE_COLUMNS 4
#else
#define TILE_COLUMNS 2
#endif
/* Rows are taken in chunks: their strip stays in the first cache (and on the stack), their columns in the second. */
#define CHUNK_GROUPS 16
#define CHUNK_GROUPS_WIDE 8
#define WIDE 160 /* columns */

typedef struct rows {
    const double *X, *mu, *r;
    ptrdiff_t ng, d, stride;
} rows;

/* The first m columns and rows of the triangle, whose remainder of d by 4 is put there: no strip, nothing to the left.
 */
EMC_INLINE void gram_head(const rows *p, int m, double *gram) {
    vd a00 = v_zero(), a10 = v_zero(), a11 = v_zero(), a20 = v_zero(), a21 = v_zero(), a22 = v_zero();
    for (ptrdiff_t g = 0; g < p->ng; g++) {
        const double *x = p->X + g * p->d * EMC_GROUP;
        for (int v = 0; v < EMC_GROUP; v += V_LANES) {
            const vd r = v_pin(v_load(p->r + g * p->stride + v));
            const vd z0 = v_sub(v_load(x + v), v_set1(p->mu[0])), t0 = v_mul(r, z0);
            a00 = v_fma(t0, z0, a00);
            if (m > 1) {
                const vd z1 = v_sub(v_load(x + v + EMC_GROUP), v_set1(p->mu[1]));
                a10 = v_fma(t0, z1, a10);
                a11 = v_fma(v_mul(r, z1), z1, a11);
                if (m > 2) {
                    const vd z2 = v_sub(v_load(x + v + 2 * EMC_GROUP), v_set1(p->mu[2])), t2 = v_mul(r, z2);
                    a20 = v_fma(t2, z0, a20);
                    a21 = v_fma(t2, z1, a21);
                    a22 = v_fma(t2, z2, a22);
                }
            }
        }
    }
    gram[0] += v_sum(a00);
    if (m > 1) {
        gram[1] += v_sum(a10);
        gram[2] += v_sum(a11);
    }
    if (m > 2) {
        gram[3] += v_sum(a20);
        gram[4] += v_sum(a21);
        gram[5] += v_sum(a22);
    }
}

/* Rows and columns i .. i + 3; fills the strip. */
EMC_INLINE void gram_diagonal(const rows *p, ptrdiff_t i, double *strip, double *gram) {
    vd a00 = v_zero(), a10 = v_zero(), a11 = v_zero(), a20 = v_zero(), a21 = v_zero();
    vd a22 = v_zero(), a30 = v_zero(), a31 = v_zero(), a32 = v_zero(), a33 = v_zero();
    const double *mu = p->mu + i;
    for (ptrdiff_t g = 0; g < p->ng; g++) {
        const double *x = p->X + (g * p->d + i) * EMC_GROUP, *weights = p->r + g * p->stride;
        for (int v = 0; v < EMC_GROUP; v += V_LANES, strip += 4 * V_LANES) {
            const vd r = v_pin(v_load(weights + v));
            const vd z0 = v_sub(v_load(x + v), v_set1(mu[0])), t0 = v_mul(r, z0);
            v_store(strip, t0);
            a00 = v_fma(t0, z0, a00);
            const vd z1 = v_sub(v_load(x + v + EMC_GROUP), v_set1(mu[1])), t1 = v_mul(r, z1);
            v_store(strip + V_LANES, t1);
            a10 = v_fma(t1, z0, a10);
            a11 = v_fma(t1, z1, a11);
            const vd z2 = v_sub(v_load(x + v + 2 * EMC_GROUP), v_set1(mu[2])), t2 = v_mul(r, z2);
            v_store(strip + 2 * V_LANES, t2);
            a20 = v_fma(t2, z0, a20);
            a21 = v_fma(t2, z1, a21);
            a22 = v_fma(t2, z2, a22);
            const vd z3 = v_sub(v_load(x + v + 3 * EMC_GROUP), v_set1(mu[3])), t3 = v_mul(r, z3);
            v_store(strip + 3 * V_LANES, t3);
            a30 = v_fma(t3, z0, a30);
            a31 = v_fma(t3, z1, a31);
            a32 = v_fma(t3, z2, a32);
            a33 = v_fma(t3, z3, a33);
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
EMC_INLINE void gram_tile(const rows *p, ptrdiff_t i, ptrdiff_t j, int columns, const double *strip, double *gram) {
    vd a0 = v_zero(), a1 = v_zero(), a2 = v_zero(), a3 = v_zero();
    vd b0 = v_zero(), b1 = v_zero(), b2 = v_zero(), b3 = v_zero();
    vd c0 = v_zero(), c1 = v_zero(), c2 = v_zero(), c3 = v_zero();
    vd d0 = v_zero(), d1 = v_zero(), d2 = v_zero(), d3 = v_zero();
    vd z0, z1 = v_zero(), z2 = v_zero(), z3 = v_zero();
    const vd mu0 = v_set1(p->mu[j]), mu1 = columns > 1 ? v_set1(p->mu[j + 1]) : v_zero();
    const vd mu2 = columns > 2 ? v_set1(p->mu[j + 2]) : v_zero(), mu3 = columns > 3 ? v_set1(p->mu[j + 3]) : v_zero();
    for (ptrdiff_t g = 0; g < p->ng; g++) {
        const double *x = p->X + (g * p->d + j) * EMC_GROUP;
        for (int v = 0; v < EMC_GROUP; v += V_LANES, strip += 4 * V_LANES) {
            z0 = v_sub(v_load(x + v), mu0);
            if (columns > 1)
                z1 = v_sub(v_load(x + v + EMC_GROUP), mu1);
            if (columns > 2)
                z2 = v_sub(v_load(x + v + 2 * EMC_GROUP), mu2);
            if (columns > 3)
                z3 = v_sub(v_load(x + v + 3 * EMC_GROUP), mu3);
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

static void gram_chunk(const rows *p, double *gram) {
    _Alignas(EMC_ALIGN) double strip[CHUNK_GROUPS * EMC_GROUP * 4];
    const ptrdiff_t head = p->d % 4;
    if (head == 1)
        gram_head(p, 1, gram);
    else if (head == 2)
        gram_head(p, 2, gram);
    else if (head == 3)
        gram_head(p, 3, gram);
    for (ptrdiff_t i = head; i < p->d; i += 4) {
        gram_diagonal(p, i, strip, gram);
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

void EMC_NAME(weighted_gram)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                             ptrdiff_t stride, double *gram) {
    const ptrdiff_t groups = d < WIDE ? CHUNK_GROUPS : CHUNK_GROUPS_WIDE;
    for (ptrdiff_t g = 0; g < ng; g += groups) {
        const rows chunk = {.X = X + g * d * EMC_GROUP,
                            .mu = mu,
                            .r = r + g * stride,
                            .ng = ng - g < groups ? ng - g : groups,
                            .d = d,
                            .stride = stride};
        gram_chunk(&chunk, gram);
    }
}
