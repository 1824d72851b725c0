/* Squared distances of rows to a centre, in the metric of a triangular factor or of a diagonal. */
#include "tri_tile.h"

/* Few columns: everything stays in registers. */
EMC_INLINE void tri_small(const real *X, ptrdiff_t ng, int d, const real *mu, const real *L, real a, real b, real *out,
                          ptrdiff_t stride) {
    for (ptrdiff_t g = 0; g < ng; g++) {
        for (int v = 0; v < GROUP; v += V_LANES) {
            const real *x = X + g * d * GROUP + v;
            const vd z0 = v_sub(v_load(x), v_set1(mu[0]));
            const vd y0 = v_mul(v_set1(L[0]), z0);
            vd q = v_mul(y0, y0);
            if (d > 1) {
                const vd z1 = v_sub(v_load(x + GROUP), v_set1(mu[1]));
                const vd y1 = v_fma(v_set1(L[2]), z1, v_mul(v_set1(L[1]), z0));
                q = v_fma(y1, y1, q);
                if (d > 2) {
                    const vd z2 = v_sub(v_load(x + 2 * GROUP), v_set1(mu[2]));
                    const vd y2 = v_fma(v_set1(L[5]), z2, v_fma(v_set1(L[4]), z1, v_mul(v_set1(L[3]), z0)));
                    q = v_fma(y2, y2, q);
                }
            }
            v_store(out + g * stride + v, v_fma(v_set1(b), q, v_set1(a)));
        }
    }
}

void EMC_NAME(sqdist_tri)(const real *X, ptrdiff_t ng, ptrdiff_t d, const real *mu, const real *L, real a, real b,
                          real *out, ptrdiff_t stride) {
    if (d == 1)
        tri_small(X, ng, 1, mu, L, a, b, out, stride);
    else if (d == 2)
        tri_small(X, ng, 2, mu, L, a, b, out, stride);
    else if (d == 3)
        tri_small(X, ng, 3, mu, L, a, b, out, stride);
    if (d <= 3)
        return;
    for (ptrdiff_t g = 0; g < ng; g++) {
        for (int v = 0; v < GROUP; v += TILE_ROWS) {
            const real *x = X + g * d * GROUP + v;
            real *q = out + g * stride + v;
            for (int i = 0; i < TILE_ROWS; i += V_LANES)
                v_store(q + i, v_zero());
            tri_head(x, mu, L, d, q);
            for (ptrdiff_t i = d % 4; i < d; i += 4)
                whole_tile(x, mu, L, i, q);
        }
    }
    for (ptrdiff_t g = 0; g < ng; g++)
        for (real *q = out + g * stride; q < out + g * stride + GROUP; q += V_LANES)
            v_store(q, v_fma(v_set1(b), v_load(q), v_set1(a)));
}

void EMC_NAME(sqdist_diag)(const real *X, ptrdiff_t ng, ptrdiff_t d, const real *mu, const real *s, real a, real b,
                           real *out, ptrdiff_t stride) {
    for (ptrdiff_t g = 0; g < ng; g++) {
        for (int v = 0; v < GROUP; v += 4 * V_LANES) {
            const real *x = X + g * d * GROUP + v;
            vd q0 = v_zero(), q1 = v_zero(), q2 = v_zero(), q3 = v_zero();
            for (ptrdiff_t j = 0; j < d; j++, x += GROUP) {
                const vd centre = v_pin(v_set1(mu[j])), scale = v_pin(v_set1(s[j]));
                const vd z0 = v_mul(v_sub(v_load(x), centre), scale);
                const vd z1 = v_mul(v_sub(v_load(x + V_LANES), centre), scale);
                const vd z2 = v_mul(v_sub(v_load(x + 2 * V_LANES), centre), scale);
                const vd z3 = v_mul(v_sub(v_load(x + 3 * V_LANES), centre), scale);
                q0 = v_fma(z0, z0, q0);
                q1 = v_fma(z1, z1, q1);
                q2 = v_fma(z2, z2, q2);
                q3 = v_fma(z3, z3, q3);
            }
            real *o = out + g * stride + v;
            v_store(o, v_fma(v_set1(b), q0, v_set1(a)));
            v_store(o + V_LANES, v_fma(v_set1(b), q1, v_set1(a)));
            v_store(o + 2 * V_LANES, v_fma(v_set1(b), q2, v_set1(a)));
            v_store(o + 3 * V_LANES, v_fma(v_set1(b), q3, v_set1(a)));
        }
    }
}
