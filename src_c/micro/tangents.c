/* What a directional derivative of a pass needs beside the micro-kernels of the pass: quadratics of whitened rows, and
 * how responsibilities move when log-densities do. */
#include "tri_tile.h"

#define LOAD_COLUMN(j)                                                                                                 \
    do {                                                                                                               \
        const double *column = y + (j) * EMC_GROUP;                                                                    \
        z0 = v_pin(v_load(column));                                                                                    \
        z1 = v_pin(v_load(column + V_LANES));                                                                          \
        if (ROW_VECTORS == 4) {                                                                                        \
            z2 = v_pin(v_load(column + 2 * V_LANES));                                                                  \
            z3 = v_pin(v_load(column + 3 * V_LANES));                                                                  \
        }                                                                                                              \
    } while (0)

/* The column that is loaded is of the output named t: t z is added to the quadratic. */
#define MULTIPLY_OUTPUT(t)                                                                                             \
    do {                                                                                                               \
        q0 = v_fma(t##0, z0, q0);                                                                                      \
        q1 = v_fma(t##1, z1, q1);                                                                                      \
        if (ROW_VECTORS == 4) {                                                                                        \
            q2 = v_fma(t##2, z2, q2);                                                                                  \
            q3 = v_fma(t##3, z3, q3);                                                                                  \
        }                                                                                                              \
    } while (0)

#define STORE_WHITE(t, to)                                                                                             \
    do {                                                                                                               \
        v_store(to, t##0);                                                                                             \
        v_store((to) + V_LANES, t##1);                                                                                 \
        if (ROW_VECTORS == 4) {                                                                                        \
            v_store((to) + 2 * V_LANES, t##2);                                                                         \
            v_store((to) + 3 * V_LANES, t##3);                                                                         \
        }                                                                                                              \
    } while (0)

#define START_OUTPUT(t, a) vd t##0 = v_set1(a), t##1 = t##0, t##2 = t##0, t##3 = t##0

#define ADD_SQUARE(t)                                                                                                  \
    do {                                                                                                               \
        q0 = v_fma(t##0, t##0, q0);                                                                                    \
        q1 = v_fma(t##1, t##1, q1);                                                                                    \
        if (ROW_VECTORS == 4) {                                                                                        \
            q2 = v_fma(t##2, t##2, q2);                                                                                \
            q3 = v_fma(t##3, t##3, q3);                                                                                \
        }                                                                                                              \
    } while (0)

#define LOAD_OUTPUT(t, from)                                                                                           \
    vd t##0 = v_load(from), t##1 = v_load((from) + V_LANES), t##2 = v_zero(), t##3 = v_zero();                         \
    do {                                                                                                               \
        if (ROW_VECTORS == 4) {                                                                                        \
            t##2 = v_load((from) + 2 * V_LANES);                                                                       \
            t##3 = v_load((from) + 3 * V_LANES);                                                                       \
        }                                                                                                              \
    } while (0)

/* Outputs i .. i + outputs - 1 (at most 4) of L (x - mu), for a tile of rows; q += their squares. */
EMC_INLINE void white_tile(const double *x, const double *mu, const double *L, ptrdiff_t i, int outputs, double *y,
                           double *q) {
    const double *La = L + i * (i + 1) / 2;
    const double *Lb = outputs > 1 ? La + i + 1 : La;
    const double *Lc = outputs > 2 ? Lb + i + 2 : Lb;
    const double *Ld = outputs > 3 ? Lc + i + 3 : Lc;
    START_OUTPUT(a, 0.0);
    START_OUTPUT(b, 0.0);
    START_OUTPUT(c, 0.0);
    START_OUTPUT(d, 0.0);
    vd z0, z1, z2 = v_zero(), z3 = v_zero();
    for (ptrdiff_t j = 0; j < i; j++) {
        LOAD_Z(j);
        ADD_OUTPUT(a, La[j]);
        if (outputs > 1)
            ADD_OUTPUT(b, Lb[j]);
        if (outputs > 2)
            ADD_OUTPUT(c, Lc[j]);
        if (outputs > 3)
            ADD_OUTPUT(d, Ld[j]);
    }
    y += i * EMC_GROUP;
    LOAD_OUTPUT(q, q);
    LOAD_Z(i);
    ADD_OUTPUT(a, La[i]);
    STORE_WHITE(a, y);
    ADD_SQUARE(a);
    if (outputs > 1) {
        ADD_OUTPUT(b, Lb[i]);
        if (outputs > 2)
            ADD_OUTPUT(c, Lc[i]);
        if (outputs > 3)
            ADD_OUTPUT(d, Ld[i]);
        LOAD_Z(i + 1);
        ADD_OUTPUT(b, Lb[i + 1]);
        STORE_WHITE(b, y + EMC_GROUP);
        ADD_SQUARE(b);
    }
    if (outputs > 2) {
        ADD_OUTPUT(c, Lc[i + 1]);
        if (outputs > 3)
            ADD_OUTPUT(d, Ld[i + 1]);
        LOAD_Z(i + 2);
        ADD_OUTPUT(c, Lc[i + 2]);
        STORE_WHITE(c, y + 2 * EMC_GROUP);
        ADD_SQUARE(c);
    }
    if (outputs > 3) {
        ADD_OUTPUT(d, Ld[i + 2]);
        LOAD_Z(i + 3);
        ADD_OUTPUT(d, Ld[i + 3]);
        STORE_WHITE(d, y + 3 * EMC_GROUP);
        ADD_SQUARE(d);
    }
    STORE_WHITE(q, q);
}

/* q += sum_i y_i (slope_i + sum_{j <= i} C_ij y_j) over rows i .. i + outputs - 1 (at most 4) of the triangle. */
EMC_INLINE void quadratic_tile(const double *y, const double *slope, const double *C, ptrdiff_t i, int outputs,
                               double *q) {
    const double *Ca = C + i * (i + 1) / 2;
    const double *Cb = outputs > 1 ? Ca + i + 1 : Ca;
    const double *Cc = outputs > 2 ? Cb + i + 2 : Cb;
    const double *Cd = outputs > 3 ? Cc + i + 3 : Cc;
    START_OUTPUT(a, slope[i]);
    START_OUTPUT(b, outputs > 1 ? slope[i + 1] : 0.0);
    START_OUTPUT(c, outputs > 2 ? slope[i + 2] : 0.0);
    START_OUTPUT(d, outputs > 3 ? slope[i + 3] : 0.0);
    vd z0, z1, z2 = v_zero(), z3 = v_zero();
    for (ptrdiff_t j = 0; j < i; j++) {
        LOAD_COLUMN(j);
        ADD_OUTPUT(a, Ca[j]);
        if (outputs > 1)
            ADD_OUTPUT(b, Cb[j]);
        if (outputs > 2)
            ADD_OUTPUT(c, Cc[j]);
        if (outputs > 3)
            ADD_OUTPUT(d, Cd[j]);
    }
    LOAD_OUTPUT(q, q);
    LOAD_COLUMN(i);
    ADD_OUTPUT(a, Ca[i]);
    MULTIPLY_OUTPUT(a);
    if (outputs > 1) {
        ADD_OUTPUT(b, Cb[i]);
        if (outputs > 2)
            ADD_OUTPUT(c, Cc[i]);
        if (outputs > 3)
            ADD_OUTPUT(d, Cd[i]);
        LOAD_COLUMN(i + 1);
        ADD_OUTPUT(b, Cb[i + 1]);
        MULTIPLY_OUTPUT(b);
    }
    if (outputs > 2) {
        ADD_OUTPUT(c, Cc[i + 1]);
        if (outputs > 3)
            ADD_OUTPUT(d, Cd[i + 1]);
        LOAD_COLUMN(i + 2);
        ADD_OUTPUT(c, Cc[i + 2]);
        MULTIPLY_OUTPUT(c);
    }
    if (outputs > 3) {
        ADD_OUTPUT(d, Cd[i + 2]);
        LOAD_COLUMN(i + 3);
        ADD_OUTPUT(d, Cd[i + 3]);
        MULTIPLY_OUTPUT(d);
    }
    STORE_WHITE(q, q);
}

/* As in tri_tile.h: accumulators of whole tiles stay in registers only apart from other code. */
#if ROW_VECTORS == 4
EMC_NOINLINE
#else
EMC_INLINE
#endif
void whole_white_tile(const double *x, const double *mu, const double *L, ptrdiff_t i, double *y, double *q) {
    white_tile(x, mu, L, i, 4, y, q);
}

#if ROW_VECTORS == 4
EMC_NOINLINE
#else
EMC_INLINE
#endif
void whole_quadratic_tile(const double *y, const double *slope, const double *C, ptrdiff_t i, double *q) {
    quadratic_tile(y, slope, C, i, 4, q);
}

void EMC_NAME(whiten_tri)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *L, double a,
                          double b, double *Y, double *out, ptrdiff_t stride) {
    for (ptrdiff_t g = 0; g < ng; g++) {
        for (int v = 0; v < EMC_GROUP; v += TILE_ROWS) {
            const double *x = X + g * d * EMC_GROUP + v;
            double *y = Y + g * d * EMC_GROUP + v, *q = out + g * stride + v;
            for (int i = 0; i < TILE_ROWS; i += V_LANES)
                v_store(q + i, v_zero());
            if (d % 4 == 1)
                white_tile(x, mu, L, 0, 1, y, q);
            else if (d % 4 == 2)
                white_tile(x, mu, L, 0, 2, y, q);
            else if (d % 4 == 3)
                white_tile(x, mu, L, 0, 3, y, q);
            for (ptrdiff_t i = d % 4; i < d; i += 4)
                whole_white_tile(x, mu, L, i, y, q);
            for (int i = 0; i < TILE_ROWS; i += V_LANES)
                v_store(q + i, v_fma(v_set1(b), v_load(q + i), v_set1(a)));
        }
    }
}

void EMC_NAME(quadratic_tri)(const double *Y, ptrdiff_t ng, ptrdiff_t d, double a, const double *slope, const double *C,
                             double *out, ptrdiff_t stride) {
    const vd start = v_set1(a);
    for (ptrdiff_t g = 0; g < ng; g++) {
        for (int v = 0; v < EMC_GROUP; v += TILE_ROWS) {
            const double *y = Y + g * d * EMC_GROUP + v;
            double *q = out + g * stride + v;
            for (int i = 0; i < TILE_ROWS; i += V_LANES)
                v_store(q + i, start);
            if (d % 4 == 1)
                quadratic_tile(y, slope, C, 0, 1, q);
            else if (d % 4 == 2)
                quadratic_tile(y, slope, C, 0, 2, q);
            else if (d % 4 == 3)
                quadratic_tile(y, slope, C, 0, 3, q);
            for (ptrdiff_t i = d % 4; i < d; i += 4)
                whole_quadratic_tile(y, slope, C, i, q);
        }
    }
}

void EMC_NAME(quadratic_diag)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu, const double *s, double a,
                              const double *slope, const double *C, double *out, ptrdiff_t stride) {
    for (ptrdiff_t g = 0; g < ng; g++) {
        for (int v = 0; v < EMC_GROUP; v += 4 * V_LANES) {
            const double *x = X + g * d * EMC_GROUP + v;
            vd q0 = v_set1(a), q1 = q0, q2 = q0, q3 = q0;
            for (ptrdiff_t j = 0; j < d; j++, x += EMC_GROUP) {
                const vd centre = v_pin(v_set1(mu[j])), scale = v_pin(v_set1(s[j]));
                const vd linear = v_pin(v_set1(slope[j])), square = v_pin(v_set1(C[j]));
                const vd y0 = v_mul(v_sub(v_load(x), centre), scale);
                const vd y1 = v_mul(v_sub(v_load(x + V_LANES), centre), scale);
                const vd y2 = v_mul(v_sub(v_load(x + 2 * V_LANES), centre), scale);
                const vd y3 = v_mul(v_sub(v_load(x + 3 * V_LANES), centre), scale);
                q0 = v_fma(v_fma(square, y0, linear), y0, q0);
                q1 = v_fma(v_fma(square, y1, linear), y1, q1);
                q2 = v_fma(v_fma(square, y2, linear), y2, q2);
                q3 = v_fma(v_fma(square, y3, linear), y3, q3);
            }
            double *o = out + g * stride + v;
            v_store(o, q0);
            v_store(o + V_LANES, q1);
            v_store(o + 2 * V_LANES, q2);
            v_store(o + 3 * V_LANES, q3);
        }
    }
}

void EMC_NAME(normalize_rows_dot)(double *dot, ptrdiff_t ng, ptrdiff_t k, const double *log_weights_dot,
                                  const double *w, const double *resp) {
    for (ptrdiff_t i = 0; i < ng * EMC_GROUP; i += 2 * V_LANES) {
        const ptrdiff_t at = i / EMC_GROUP * EMC_GROUP * k + i % EMC_GROUP;
        const double *r = resp + at;
        double *t = dot + at;
        vd sum0 = v_zero(), sum1 = v_zero();
        /* What has no responsibility may have any derivative, not a number among them. */
        for (ptrdiff_t c = 0; c < k * EMC_GROUP; c += EMC_GROUP) {
            const vd moved = v_pin(v_set1(log_weights_dot[c / EMC_GROUP]));
            const vd r0 = v_load(r + c), r1 = v_load(r + c + V_LANES);
            const vd t0 = v_keep(v_lt(v_zero(), r0), v_add(v_load(t + c), moved));
            const vd t1 = v_keep(v_lt(v_zero(), r1), v_add(v_load(t + c + V_LANES), moved));
            v_store(t + c, t0);
            v_store(t + c + V_LANES, t1);
            sum0 = v_fma(r0, t0, sum0);
            sum1 = v_fma(r1, t1, sum1);
        }
        const vd w0 = v_load(w + i), w1 = v_load(w + i + V_LANES);
        const vd mean0 = v_keep(v_lt(v_zero(), w0), v_div(sum0, w0));
        const vd mean1 = v_keep(v_lt(v_zero(), w1), v_div(sum1, w1));
        for (ptrdiff_t c = 0; c < k * EMC_GROUP; c += EMC_GROUP) {
            v_store(t + c, v_mul(v_load(r + c), v_sub(v_load(t + c), mean0)));
            v_store(t + c + V_LANES, v_mul(v_load(r + c + V_LANES), v_sub(v_load(t + c + V_LANES), mean1)));
        }
    }
}
