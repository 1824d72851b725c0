/* Counts of known means, and the weights of rows by their symbol. */
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

EMC_INLINE vm between(double low, double high, vd x) { return v_both(v_le(v_set1(low), x), v_lt(x, v_set1(high))); }

/* Symbols c .. c + symbols - 1, 4 or 1. */
EMC_INLINE void tally_symbols(const double *x, const double *w, ptrdiff_t ng, ptrdiff_t c, int symbols, double *mass) {
    const double first = (double)c;
    vd s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero();
    for (ptrdiff_t i = 0; i < ng * EMC_GROUP; i += V_LANES) {
        const vd z = v_load(x + i), weight = v_load(w + i);
        s0 = v_add(s0, v_keep(between(first, first + 1.0, z), weight));
        if (symbols > 1) {
            s1 = v_add(s1, v_keep(between(first + 1.0, first + 2.0, z), weight));
            s2 = v_add(s2, v_keep(between(first + 2.0, first + 3.0, z), weight));
            s3 = v_add(s3, v_keep(between(first + 3.0, first + 4.0, z), weight));
        }
    }
    if (symbols > 1)
        v_add_sums4(mass + c, s0, s1, s2, s3);
    else
        mass[c] += v_sum(s0);
}

int EMC_NAME(tally)(const double *x, const double *w, ptrdiff_t ng, ptrdiff_t m, double *mass) {
    vm others = v_lt(v_zero(), v_zero());
    for (ptrdiff_t i = 0; i < ng * EMC_GROUP; i += V_LANES) {
        const vm inside = between(0.0, (double)m, v_load(x + i));
        others = v_either(others, v_without(v_lt(v_zero(), v_load(w + i)), inside));
    }
    ptrdiff_t c = 0;
    for (; c + 4 <= m; c += 4)
        tally_symbols(x, w, ng, c, 4, mass);
    for (; c < m; c++)
        tally_symbols(x, w, ng, c, 1, mass);
    return !v_any(others);
}
