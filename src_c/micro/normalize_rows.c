/* From log-densities to responsibilities: log-sum-exp over the columns of a row, lanes over rows. */
#include "micro.h"

/* Two vectors of rows: l[c] = log-densities of column c at logp + c * EMC_GROUP. */
#define STEP (2 * V_LANES)

/* Leaves exp(l + log weight - m) in logp and adds it to sum0, sum1.  `careful` is for rows whose maximum m is not
 * finite: there l - m is inf - inf, which the clamped m and the bound at 0 avoid. */
EMC_INLINE void exponentials(double *logp, ptrdiff_t k, const double *log_weights, vd m0, vd m1, int careful, vd *sum0,
                             vd *sum1) {
    vd s0 = v_zero(), s1 = v_zero();
    if (careful) {
        m0 = v_max(v_set1(-DBL_MAX), v_min(v_set1(DBL_MAX), m0));
        m1 = v_max(v_set1(-DBL_MAX), v_min(v_set1(DBL_MAX), m1));
    }
    for (ptrdiff_t c = 0; c < k; c++) {
        double *l = logp + c * EMC_GROUP;
        const vd log_weight = v_pin(v_set1(log_weights[c]));
        vd x0 = v_sub(v_add(v_load(l), log_weight), m0);
        vd x1 = v_sub(v_add(v_load(l + V_LANES), log_weight), m1);
        if (careful) {
            x0 = v_min(v_zero(), x0);
            x1 = v_min(v_zero(), x1);
        }
        const vd e0 = vmath_exp_cut(x0, v_set1(VMATH_FLUSH)), e1 = vmath_exp_cut(x1, v_set1(VMATH_FLUSH));
        v_store(l, e0);
        v_store(l + V_LANES, e1);
        s0 = v_add(s0, e0);
        s1 = v_add(s1, e1);
    }
    *sum0 = s0;
    *sum1 = s1;
}

/* The same for two states, of which the larger is finite. */
EMC_INLINE vd two_exponentials(double *logp, const double *log_weights) {
    const vd cut = v_set1(VMATH_FLUSH);
    vd a = v_add(v_load(logp), v_set1(log_weights[0])), b = v_add(v_load(logp + EMC_GROUP), v_set1(log_weights[1]));
    const vd sum = pair_exponentials(&a, &b, cut, cut);
    v_store(logp, a);
    v_store(logp + EMC_GROUP, b);
    return sum;
}

EMC_INLINE vm is_finite(vd a) {
    const vd largest = v_set1(DBL_MAX);
    return v_both(v_le(a, largest), v_le(v_sub(v_zero(), largest), a));
}

/* The first row of one step that has weight and no finite log-sum-exp. */
static ptrdiff_t first_bad(const double *w, const double *row_loglik) {
    for (ptrdiff_t i = 0; i < STEP; i++)
        if (w[i] > 0.0 && !(row_loglik[i] >= -DBL_MAX && row_loglik[i] <= DBL_MAX))
            return i;
    return -1;
}

/* `few`: k is 1 or 2, known when this is compiled.  For one state e^0 = 1 and log 1 = 0 need no computing, for two one
 * exponential does: every bit stays what it is. */
EMC_INLINE ptrdiff_t normalize(double *logp, ptrdiff_t n, ptrdiff_t k, const double *log_weights, const double *w,
                               double *row_loglik, double *loglik, int few) {
    const int alone = few && k == 1;
    ptrdiff_t bad_row = -1;
    vd total0 = v_zero(), total1 = v_zero();
    const ptrdiff_t padded = (n + EMC_GROUP - 1) / EMC_GROUP * EMC_GROUP;
    for (ptrdiff_t i = 0; i < padded; i += STEP) {
        double *group = logp + i / EMC_GROUP * EMC_GROUP * k + i % EMC_GROUP;
        vd lse0, lse1, sum0 = v_set1(1.0), sum1 = sum0;
        if (alone) {
            const vd log_weight = v_set1(log_weights[0]);
            lse0 = v_add(v_load(group), log_weight);
            lse1 = v_add(v_load(group + V_LANES), log_weight);
        } else {
            vd m0 = v_set1(-(double)INFINITY), m1 = m0;
            for (ptrdiff_t c = 0; c < k; c++) {
                const vd log_weight = v_pin(v_set1(log_weights[c]));
                m0 = v_max(m0, v_add(v_load(group + c * EMC_GROUP), log_weight));
                m1 = v_max(m1, v_add(v_load(group + c * EMC_GROUP + V_LANES), log_weight));
            }
            if (v_any(v_without(v_le(v_zero(), v_zero()), v_both(is_finite(m0), is_finite(m1))))) {
                exponentials(group, k, log_weights, m0, m1, 1, &sum0, &sum1);
            } else if (few) {
                sum0 = two_exponentials(group, log_weights);
                sum1 = two_exponentials(group + V_LANES, log_weights);
            } else {
                exponentials(group, k, log_weights, m0, m1, 0, &sum0, &sum1);
            }
            lse0 = v_add(m0, vmath_log(sum0));
            lse1 = v_add(m1, vmath_log(sum1));
        }
        const vd w0 = v_load(w + i), w1 = v_load(w + i + V_LANES);
        v_store(row_loglik + i, lse0);
        v_store(row_loglik + i + V_LANES, lse1);
        const vm weighted0 = v_lt(v_zero(), w0), weighted1 = v_lt(v_zero(), w1);
        const vm good0 = v_both(weighted0, is_finite(lse0)), good1 = v_both(weighted1, is_finite(lse1));
        if (bad_row < 0 && (v_any(v_without(weighted0, good0)) || v_any(v_without(weighted1, good1))))
            bad_row = i + first_bad(w + i, row_loglik + i);
        total0 = v_add(total0, v_keep(good0, v_mul(w0, lse0)));
        total1 = v_add(total1, v_keep(good1, v_mul(w1, lse1)));

        if (alone) {
            v_store(group, v_keep(good0, w0));
            v_store(group + V_LANES, v_keep(good1, w1));
            continue;
        }
        const vd scale0 = v_div(w0, sum0), scale1 = v_div(w1, sum1);
        for (ptrdiff_t c = 0; c < k; c++) {
            double *r = group + c * EMC_GROUP;
            v_store(r, v_keep(good0, v_mul(v_load(r), scale0)));
            v_store(r + V_LANES, v_keep(good1, v_mul(v_load(r + V_LANES), scale1)));
        }
    }
    *loglik += v_sum(v_add(total0, total1));
    return bad_row;
}

ptrdiff_t EMC_NAME(normalize_rows)(double *logp, ptrdiff_t n, ptrdiff_t k, const double *log_weights, const double *w,
                                   double *row_loglik, double *loglik) {
    switch (k) {
    case 1:
        return normalize(logp, n, 1, log_weights, w, row_loglik, loglik, 1);
    case 2:
        return normalize(logp, n, 2, log_weights, w, row_loglik, loglik, 1);
    default:
        return normalize(logp, n, k, log_weights, w, row_loglik, loglik, 0);
    }
}
