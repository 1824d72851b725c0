/* Counts of known means. */
#include "micro.h"

void EMC_NAME(poisson_rows)(const double *mean, const double *y, ptrdiff_t ng, double *out, double *ratio) {
    for (ptrdiff_t i = 0; i < ng * EMC_GROUP; i += V_LANES) {
        const vd m = v_load(mean + i), count = v_load(y + i);
        const vm some = v_lt(v_zero(), count);
        const vd largest = v_set1(DBL_MAX), r = v_div(count, m);
        /* 0 times the logarithm of 0 is 0; a ratio that is no number is as large as numbers are, and 0 times it is 0.
         */
        const vd logs = v_select(some, v_mul(count, vmath_log(m)), v_zero());
        v_store(out + i, v_sub(v_sub(logs, m), v_load(out + i)));
        v_store(ratio + i, v_keep(some, v_select(v_lt(r, largest), r, largest)));
    }
}
