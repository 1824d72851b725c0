/* Elementwise exp and log. */
#include "micro.h"

void EMC_NAME(vexp)(const double *x, double *y, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store(y + i, vmath_exp(v_load(x + i)));
    if (i < n)
        v_store_part(y + i, vmath_exp(v_load_part(x + i, n - i)), n - i);
}

void EMC_NAME(vlog)(const double *x, double *y, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store(y + i, vmath_log(v_load(x + i)));
    if (i < n)
        v_store_part(y + i, vmath_log(v_load_part(x + i, n - i)), n - i);
}
