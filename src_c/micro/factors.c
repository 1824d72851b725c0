/* Factor analysis: posterior means of the factors of a row, what they leave of it, its density; and their sums.
 *
 * The density is that of the residuals and the factors together at the factors' posterior mean, which minimises their
 * squares: nothing cancels, and an error of the factors shows in the square of itself only. */
#include "tri_tile.h"

#define LOAD_FACTOR(i)                                                                                                 \
    do {                                                                                                               \
        const double *factor = f + (i) * EMC_GROUP;                                                                    \
        z0 = v_load(factor);                                                                                           \
        z1 = v_load(factor + V_LANES);                                                                                 \
        if (ROW_VECTORS == 4) {                                                                                        \
            z2 = v_load(factor + 2 * V_LANES);                                                                         \
            z3 = v_load(factor + 3 * V_LANES);                                                                         \
        }                                                                                                              \
    } while (0)

#define ZERO_OUTPUT(t) vd t##0 = v_zero(), t##1 = t##0, t##2 = t##0, t##3 = t##0

#define TAKE_Z(t)                                                                                                      \
    do {                                                                                                               \
        t##0 = z0;                                                                                                     \
        t##1 = z1;                                                                                                     \
        t##2 = z2;                                                                                                     \
        t##3 = z3;                                                                                                     \
    } while (0)

/* squares += scale * t^2 */
#define ADD_SQUARES(t, scale)                                                                                          \
    do {                                                                                                               \
        const vd by = v_set1(scale);                                                                                   \
        v_store(squares, v_fma(v_mul(by, t##0), t##0, v_load(squares)));                                               \
        v_store(squares + V_LANES, v_fma(v_mul(by, t##1), t##1, v_load(squares + V_LANES)));                           \
        if (ROW_VECTORS == 4) {                                                                                        \
            v_store(squares + 2 * V_LANES, v_fma(v_mul(by, t##2), t##2, v_load(squares + 2 * V_LANES)));               \
            v_store(squares + 3 * V_LANES, v_fma(v_mul(by, t##3), t##3, v_load(squares + 3 * V_LANES)));               \
        }                                                                                                              \
    } while (0)

#define FINISH(t, to, scale)                                                                                           \
    do {                                                                                                               \
        ADD_SQUARES(t, scale);                                                                                         \
        if (to)                                                                                                        \
            STORE_OUTPUT(to, t);                                                                                       \
    } while (0)

/* Factors i .. i + outputs - 1 (at most 4), B (x - mu), for a tile of rows. */
EMC_INLINE void factor_tile(const double *x, const double *mu, const double *B, ptrdiff_t d, ptrdiff_t i, int outputs,
                            double *f, double *squares) {
    const double *Ba = B + i * d, *Bb = outputs > 1 ? Ba + d : Ba, *Bc = outputs > 2 ? Bb + d : Bb;
    const double *Bd = outputs > 3 ? Bc + d : Bc;
    ZERO_OUTPUT(a);
    ZERO_OUTPUT(b);
    ZERO_OUTPUT(c);
    ZERO_OUTPUT(e);
    vd z0, z1, z2 = v_zero(), z3 = v_zero();
    for (ptrdiff_t j = 0; j < d; j++) {
        LOAD_Z(j);
        ADD_OUTPUT(a, Ba[j]);
        if (outputs > 1)
            ADD_OUTPUT(b, Bb[j]);
        if (outputs > 2)
            ADD_OUTPUT(c, Bc[j]);
        if (outputs > 3)
            ADD_OUTPUT(e, Bd[j]);
    }
    f += i * EMC_GROUP;
    FINISH(a, f, 1.0);
    if (outputs > 1)
        FINISH(b, f + EMC_GROUP, 1.0);
    if (outputs > 2)
        FINISH(c, f + 2 * EMC_GROUP, 1.0);
    if (outputs > 3)
        FINISH(e, f + 3 * EMC_GROUP, 1.0);
}

/* What the factors leave of columns j .. j + outputs - 1 (at most 4), x - mu - L f; kept where y is not NULL. */
EMC_INLINE void residual_tile(const double *x, const double *mu, const double *f, const double *L,
                              const double *precision, ptrdiff_t q, ptrdiff_t j, int outputs, double *y,
                              double *squares) {
    const double *La = L + j * q, *Lb = outputs > 1 ? La + q : La, *Lc = outputs > 2 ? Lb + q : Lb;
    const double *Ld = outputs > 3 ? Lc + q : Lc;
    ZERO_OUTPUT(a);
    ZERO_OUTPUT(b);
    ZERO_OUTPUT(c);
    ZERO_OUTPUT(e);
    vd z0, z1, z2 = v_zero(), z3 = v_zero();
    LOAD_Z(j);
    TAKE_Z(a);
    if (outputs > 1) {
        LOAD_Z(j + 1);
        TAKE_Z(b);
    }
    if (outputs > 2) {
        LOAD_Z(j + 2);
        TAKE_Z(c);
    }
    if (outputs > 3) {
        LOAD_Z(j + 3);
        TAKE_Z(e);
    }
    for (ptrdiff_t i = 0; i < q; i++) {
        LOAD_FACTOR(i);
        ADD_OUTPUT(a, -La[i]);
        if (outputs > 1)
            ADD_OUTPUT(b, -Lb[i]);
        if (outputs > 2)
            ADD_OUTPUT(c, -Lc[i]);
        if (outputs > 3)
            ADD_OUTPUT(e, -Ld[i]);
    }
    double *const at = y ? y + j * EMC_GROUP : NULL;
    FINISH(a, at, precision[j]);
    if (outputs > 1)
        FINISH(b, at ? at + EMC_GROUP : NULL, precision[j + 1]);
    if (outputs > 2)
        FINISH(c, at ? at + 2 * EMC_GROUP : NULL, precision[j + 2]);
    if (outputs > 3)
        FINISH(e, at ? at + 3 * EMC_GROUP : NULL, precision[j + 3]);
}

TILE_FUNCTION void four_factors(const double *x, const double *mu, const double *B, ptrdiff_t d, ptrdiff_t i, double *f,
                                double *squares) {
    factor_tile(x, mu, B, d, i, 4, f, squares);
}

TILE_FUNCTION void four_residuals(const double *x, const double *mu, const double *f, const double *L,
                                  const double *precision, ptrdiff_t q, ptrdiff_t j, double *y, double *squares) {
    residual_tile(x, mu, f, L, precision, q, j, 4, y, squares);
}

void EMC_NAME(factor_scores)(const double *X, ptrdiff_t ng, ptrdiff_t d, ptrdiff_t q, const double *mu, const double *B,
                             const double *L, const double *precision, double a, double *F, double *Y, double *out,
                             ptrdiff_t stride) {
    for (ptrdiff_t g = 0; g < ng; g++) {
        for (int v = 0; v < EMC_GROUP; v += TILE_ROWS) {
            const double *x = X + g * d * EMC_GROUP + v;
            double *f = F + g * q * EMC_GROUP + v, *y = Y ? Y + g * d * EMC_GROUP + v : NULL;
            double *squares = out + g * stride + v;
            for (int i = 0; i < TILE_ROWS; i += V_LANES)
                v_store(squares + i, v_zero());
            ptrdiff_t i = 0, j = 0;
            for (; i + 4 <= q; i += 4)
                four_factors(x, mu, B, d, i, f, squares);
            if (q - i == 1)
                factor_tile(x, mu, B, d, i, 1, f, squares);
            else if (q - i == 2)
                factor_tile(x, mu, B, d, i, 2, f, squares);
            else if (q - i == 3)
                factor_tile(x, mu, B, d, i, 3, f, squares);
            for (; j + 4 <= d; j += 4)
                four_residuals(x, mu, f, L, precision, q, j, y, squares);
            if (d - j == 1)
                residual_tile(x, mu, f, L, precision, q, j, 1, y, squares);
            else if (d - j == 2)
                residual_tile(x, mu, f, L, precision, q, j, 2, y, squares);
            else if (d - j == 3)
                residual_tile(x, mu, f, L, precision, q, j, 3, y, squares);
            for (i = 0; i < TILE_ROWS; i += V_LANES)
                v_store(squares + i, v_fma(v_set1(-0.5), v_load(squares + i), v_set1(a)));
        }
    }
}

/* Sums of weight times column: weights are many, so that a column is loaded once for several of them. */
#if V_REGISTERS >= 32
#define TILE_WEIGHTS 4
#else
#define TILE_WEIGHTS 2
#endif

#define ADD_WEIGHT(t, i)                                                                                               \
    do {                                                                                                               \
        const vd weight = v_pin(v_load(w + (i) * EMC_GROUP));                                                          \
        t##0 = v_fma(weight, z0, t##0);                                                                                \
        if (columns > 1) {                                                                                             \
            t##1 = v_fma(weight, z1, t##1);                                                                            \
            t##2 = v_fma(weight, z2, t##2);                                                                            \
            t##3 = v_fma(weight, z3, t##3);                                                                            \
        }                                                                                                              \
    } while (0)

#define ADD_CROSS(t, i)                                                                                                \
    do {                                                                                                               \
        if (columns > 1)                                                                                               \
            v_add_sums4(cross + (i) * d, t##0, t##1, t##2, t##3);                                                      \
        else                                                                                                           \
            cross[(i) * d] += v_sum(t##0);                                                                             \
    } while (0)

/* Columns j .. j + columns - 1 (4 or 1) and weights i .. i + weights - 1 (at most TILE_WEIGHTS). */
EMC_INLINE void cross_tile(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *W, ptrdiff_t m,
                           ptrdiff_t j, int columns, ptrdiff_t i, int weights, double *cross) {
    ZERO_OUTPUT(a);
    ZERO_OUTPUT(b);
    ZERO_OUTPUT(c);
    ZERO_OUTPUT(e);
    vd z0, z1 = v_zero(), z2 = v_zero(), z3 = v_zero();
    const vd mu0 = v_set1(mu[j]), mu1 = columns > 1 ? v_set1(mu[j + 1]) : v_zero();
    const vd mu2 = columns > 1 ? v_set1(mu[j + 2]) : v_zero(), mu3 = columns > 1 ? v_set1(mu[j + 3]) : v_zero();
    for (ptrdiff_t g = 0; g < ng; g++) {
        for (int v = 0; v < EMC_GROUP; v += V_LANES) {
            const double *x = X + (g * d + j) * EMC_GROUP + v, *w = W + (g * m + i) * EMC_GROUP + v;
            z0 = v_sub(v_load(x), mu0);
            if (columns > 1) {
                z1 = v_sub(v_load(x + EMC_GROUP), mu1);
                z2 = v_sub(v_load(x + 2 * EMC_GROUP), mu2);
                z3 = v_sub(v_load(x + 3 * EMC_GROUP), mu3);
            }
            ADD_WEIGHT(a, 0);
            if (weights > 1)
                ADD_WEIGHT(b, 1);
            if (weights > 2)
                ADD_WEIGHT(c, 2);
            if (weights > 3)
                ADD_WEIGHT(e, 3);
        }
    }
    cross += i * d + j;
    ADD_CROSS(a, 0);
    if (weights > 1)
        ADD_CROSS(b, 1);
    if (weights > 2)
        ADD_CROSS(c, 2);
    if (weights > 3)
        ADD_CROSS(e, 3);
}

EMC_INLINE void cross_columns(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *W,
                              ptrdiff_t m, ptrdiff_t j, int columns, double *cross) {
    ptrdiff_t i = 0;
    for (; i + TILE_WEIGHTS <= m; i += TILE_WEIGHTS)
        cross_tile(X, ng, d, mu, W, m, j, columns, i, TILE_WEIGHTS, cross);
    if (m - i == 1)
        cross_tile(X, ng, d, mu, W, m, j, columns, i, 1, cross);
    else if (m - i == 2)
        cross_tile(X, ng, d, mu, W, m, j, columns, i, 2, cross);
    else if (m - i == 3)
        cross_tile(X, ng, d, mu, W, m, j, columns, i, 3, cross);
}

void EMC_NAME(weighted_cross)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *W,
                              ptrdiff_t m, double *cross) {
    ptrdiff_t j = 0;
    for (; j + 4 <= d; j += 4)
        cross_columns(X, ng, d, mu, W, m, j, 4, cross);
    for (; j < d; j++)
        cross_columns(X, ng, d, mu, W, m, j, 1, cross);
}
