/* Weighted moments about a centre: sums over the rows of a panel, lanes over rows, added across lanes once per call
 * and output (in weighted_gram: once per chunk of rows). */
#include "gram_tile.h"

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

/* The gram matrix, chunk by chunk; with sums of r z where `sum` is not NULL. */
EMC_INLINE void weighted_chunks(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                                ptrdiff_t stride, double *gram, double *sum) {
    const ptrdiff_t groups = d < WIDE ? CHUNK_GROUPS : CHUNK_GROUPS_WIDE;
    const double *xs[CHUNK_GROUPS], *rs[CHUNK_GROUPS];
    for (ptrdiff_t g = 0; g < ng; g += groups) {
        const rows chunk = {.x = xs, .r = rs, .mu = mu, .ng = ng - g < groups ? ng - g : groups, .d = d};
        for (ptrdiff_t i = 0; i < chunk.ng; i++) {
            xs[i] = X + (g + i) * d * EMC_GROUP;
            rs[i] = r + (g + i) * stride;
        }
        gram_chunk(&chunk, sum != NULL, gram, sum);
    }
}

void EMC_NAME(weighted_gram)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                             ptrdiff_t stride, double *gram) {
    weighted_chunks(X, ng, d, mu, r, stride, gram, NULL);
}

void EMC_NAME(weighted_moments)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *r,
                                ptrdiff_t stride, double *sum, double *gram) {
    weighted_chunks(X, ng, d, mu, r, stride, gram, sum);
}
