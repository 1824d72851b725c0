/* Register tiles of the squared distance in the metric of a triangular factor.
 *
 * x - mu is formed in registers, beside the multiply-adds: L x - L mu would lose the digits that mu and x share. */
#ifndef EMC_TRI_TILE_H
#define EMC_TRI_TILE_H

#include "micro.h"

/* A register tile has 4 outputs and ROW_VECTORS vectors of rows. */
#if V_REGISTERS >= 32
#define ROW_VECTORS 4
#else
#define ROW_VECTORS 2
#endif
#define TILE_ROWS (ROW_VECTORS * V_LANES)

/* z0.. = column j of the rows, less mu_j. */
#define LOAD_Z(j)                                                                                                      \
    do {                                                                                                               \
        const vd centre = v_pin(v_set1(mu[j]));                                                                        \
        const real *column = x + (j) * GROUP;                                                                          \
        z0 = v_sub(v_load(column), centre);                                                                            \
        z1 = v_sub(v_load(column + V_LANES), centre);                                                                  \
        if (ROW_VECTORS == 4) {                                                                                        \
            z2 = v_sub(v_load(column + 2 * V_LANES), centre);                                                          \
            z3 = v_sub(v_load(column + 3 * V_LANES), centre);                                                          \
        }                                                                                                              \
    } while (0)

/* The same of rows that are less mu already: on most machines a subtraction takes the place of a multiply-add. */
#define LOAD_CENTRED(j)                                                                                                \
    do {                                                                                                               \
        const real *column = x + (j) * GROUP;                                                                          \
        z0 = v_pin(v_load(column));                                                                                    \
        z1 = v_pin(v_load(column + V_LANES));                                                                          \
        if (ROW_VECTORS == 4) {                                                                                        \
            z2 = v_pin(v_load(column + 2 * V_LANES));                                                                  \
            z3 = v_pin(v_load(column + 3 * V_LANES));                                                                  \
        }                                                                                                              \
    } while (0)

/* y.. += l z.. for one output, whose accumulators are named y0 .. y3. */
#define ADD_OUTPUT(y, l)                                                                                               \
    do {                                                                                                               \
        const vd factor = v_pin(v_set1(l));                                                                            \
        y##0 = v_fma(factor, z0, y##0);                                                                                \
        y##1 = v_fma(factor, z1, y##1);                                                                                \
        if (ROW_VECTORS == 4) {                                                                                        \
            y##2 = v_fma(factor, z2, y##2);                                                                            \
            y##3 = v_fma(factor, z3, y##3);                                                                            \
        }                                                                                                              \
    } while (0)

#define STORE_OUTPUT(y, e)                                                                                             \
    do {                                                                                                               \
        v_store((y), e##0);                                                                                            \
        v_store((y) + V_LANES, e##1);                                                                                  \
        if (ROW_VECTORS == 4) {                                                                                        \
            v_store((y) + 2 * V_LANES, e##2);                                                                          \
            v_store((y) + 3 * V_LANES, e##3);                                                                          \
        }                                                                                                              \
    } while (0)

/* Outputs i .. i + outputs - 1 (at most 4): y takes them, or, where it is NULL, q += their squares. */
EMC_INLINE void tri_tile(const real *x, const real *mu, int centred, const real *L, ptrdiff_t i, int outputs, real *q,
                         real *y) {
#define TAKE_Z(j)                                                                                                      \
    do {                                                                                                               \
        if (centred)                                                                                                   \
            LOAD_CENTRED(j);                                                                                           \
        else                                                                                                           \
            LOAD_Z(j);                                                                                                 \
    } while (0)
    const real *La = L + i * (i + 1) / 2;
    const real *Lb = outputs > 1 ? La + i + 1 : La;
    const real *Lc = outputs > 2 ? Lb + i + 2 : Lb;
    const real *Ld = outputs > 3 ? Lc + i + 3 : Lc;
    vd a0 = v_zero(), a1 = v_zero(), a2 = v_zero(), a3 = v_zero();
    vd b0 = v_zero(), b1 = v_zero(), b2 = v_zero(), b3 = v_zero();
    vd c0 = v_zero(), c1 = v_zero(), c2 = v_zero(), c3 = v_zero();
    vd d0 = v_zero(), d1 = v_zero(), d2 = v_zero(), d3 = v_zero();
    vd z0, z1, z2 = v_zero(), z3 = v_zero();
    for (ptrdiff_t j = 0; j < i; j++) {
        TAKE_Z(j);
        ADD_OUTPUT(a, La[j]);
        if (outputs > 1)
            ADD_OUTPUT(b, Lb[j]);
        if (outputs > 2)
            ADD_OUTPUT(c, Lc[j]);
        if (outputs > 3)
            ADD_OUTPUT(d, Ld[j]);
    }
    TAKE_Z(i);
    ADD_OUTPUT(a, La[i]);
    if (outputs > 1) {
        ADD_OUTPUT(b, Lb[i]);
        if (outputs > 2)
            ADD_OUTPUT(c, Lc[i]);
        if (outputs > 3)
            ADD_OUTPUT(d, Ld[i]);
        TAKE_Z(i + 1);
        ADD_OUTPUT(b, Lb[i + 1]);
    }
    if (outputs > 2) {
        ADD_OUTPUT(c, Lc[i + 1]);
        if (outputs > 3)
            ADD_OUTPUT(d, Ld[i + 1]);
        TAKE_Z(i + 2);
        ADD_OUTPUT(c, Lc[i + 2]);
    }
    if (outputs > 3) {
        ADD_OUTPUT(d, Ld[i + 2]);
        TAKE_Z(i + 3);
        ADD_OUTPUT(d, Ld[i + 3]);
    }
#undef TAKE_Z
    if (y) {
        STORE_OUTPUT(y, a);
        if (outputs > 1)
            STORE_OUTPUT(y + GROUP, b);
        if (outputs > 2)
            STORE_OUTPUT(y + 2 * GROUP, c);
        if (outputs > 3)
            STORE_OUTPUT(y + 3 * GROUP, d);
        return;
    }
    v_store(q, v_add(v_load(q), v_add(v_fma(a0, a0, v_mul(b0, b0)), v_fma(c0, c0, v_mul(d0, d0)))));
    q += V_LANES;
    v_store(q, v_add(v_load(q), v_add(v_fma(a1, a1, v_mul(b1, b1)), v_fma(c1, c1, v_mul(d1, d1)))));
    if (ROW_VECTORS == 4) {
        q += V_LANES;
        v_store(q, v_add(v_load(q), v_add(v_fma(a2, a2, v_mul(b2, b2)), v_fma(c2, c2, v_mul(d2, d2)))));
        q += V_LANES;
        v_store(q, v_add(v_load(q), v_add(v_fma(a3, a3, v_mul(b3, b3)), v_fma(c3, c3, v_mul(d3, d3)))));
    }
}

/* Compilers spill accumulators of a 4 x 4 tile when it is inlined beside other live values. */
#if ROW_VECTORS == 4
#define TILE_FUNCTION EMC_NOINLINE
#else
#define TILE_FUNCTION EMC_INLINE
#endif
TILE_FUNCTION void whole_tile(const real *x, const real *mu, const real *L, ptrdiff_t i, real *q) {
    tri_tile(x, mu, 0, L, i, 4, q, NULL);
}
TILE_FUNCTION void centred_tile(const real *z, const real *L, ptrdiff_t i, real *q) {
    tri_tile(z, NULL, 1, L, i, 4, q, NULL);
}

/* q += the squares of the first d % 4 outputs: first, where the rows of L are short, so that all other tiles are whole.
 */
EMC_INLINE void tri_head(const real *x, const real *mu, const real *L, ptrdiff_t d, real *q) {
    if (d % 4 == 1)
        tri_tile(x, mu, 0, L, 0, 1, q, NULL);
    else if (d % 4 == 2)
        tri_tile(x, mu, 0, L, 0, 2, q, NULL);
    else if (d % 4 == 3)
        tri_tile(x, mu, 0, L, 0, 3, q, NULL);
}

TILE_FUNCTION void white_outputs(const real *x, const real *mu, const real *L, ptrdiff_t i, real *y) {
    tri_tile(x, mu, 0, L, i, 4, NULL, y);
}

/* y = L (x - mu) for one tile of rows, y packed like x. */
EMC_INLINE void whiten_rows(const real *x, const real *mu, const real *L, ptrdiff_t d, real *y) {
    if (d % 4 == 1)
        tri_tile(x, mu, 0, L, 0, 1, NULL, y);
    else if (d % 4 == 2)
        tri_tile(x, mu, 0, L, 0, 2, NULL, y);
    else if (d % 4 == 3)
        tri_tile(x, mu, 0, L, 0, 3, NULL, y);
    for (ptrdiff_t i = d % 4; i < d; i += 4)
        white_outputs(x, mu, L, i, y + i * GROUP);
}

#endif
