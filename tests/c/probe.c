/* The forms of exp and log that a pass takes, of one CPU target: compiled like a micro-kernel, once per target and kind
 * of lane. */
#include "micro/micro.h"

EMC_HIDDEN void EMC_NAME(probe_exp_cut)(const real *x, real *y, ptrdiff_t n);
EMC_HIDDEN void EMC_NAME(probe_log_cut)(const real *x, real *y, ptrdiff_t n);

/* n is a multiple of all numbers of lanes. */
void EMC_NAME(probe_exp_cut)(const real *x, real *y, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += V_LANES)
        v_store(y + i, vmath_exp_cut(v_load(x + i), v_set1((real)VMATH_FLUSH)));
}

void EMC_NAME(probe_log_cut)(const real *x, real *y, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += V_LANES)
        v_store(y + i, vmath_log_cut(v_load(x + i)));
}
