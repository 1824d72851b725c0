/* Elementwise exp and log, in both kinds of numbers. */
#include "micro.h"

void EMC_NAME(vexp)(const real *x, real *y, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store(y + i, vmath_exp(v_load(x + i)));
    if (i < n)
        v_store_part(y + i, vmath_exp(v_load_part(x + i, n - i)), n - i);
}

void EMC_NAME(vlog)(const real *x, real *y, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store(y + i, vmath_log(v_load(x + i)));
    if (i < n)
        v_store_part(y + i, vmath_log(v_load_part(x + i, n - i)), n - i);
}

#if !defined(EMC_SINGLE) && !defined(EMC_HAVE_SINGLE)

/* No lanes of float32: through those of float64, whose rounding hardly shows in the result. */
EMC_INLINE void in_double(void (*function)(const double *x, double *y, ptrdiff_t n), const float *x, float *y,
                          ptrdiff_t n) {
    enum { PIECE = 64 };
    double from[PIECE], to[PIECE];
    for (ptrdiff_t at = 0; at < n; at += PIECE) {
        const ptrdiff_t here = n - at < PIECE ? n - at : PIECE;
        for (ptrdiff_t i = 0; i < here; i++)
            from[i] = x[at + i];
        function(from, to, here);
        for (ptrdiff_t i = 0; i < here; i++)
            y[at + i] = (float)to[i];
    }
}

void EMC_SINGLE_NAME(vexp)(const float *x, float *y, ptrdiff_t n) { in_double(EMC_NAME(vexp), x, y, n); }

void EMC_SINGLE_NAME(vlog)(const float *x, float *y, ptrdiff_t n) { in_double(EMC_NAME(vlog), x, y, n); }

#endif
