/* exp and log of one vector of float32: vmath.h in fewer terms. Relative errors of the polynomials: below 2^-28, of the
 * results: below 1.1 ulp for exp, 1 ulp for log (all float32 were tried). */
#ifndef EMC_SIMD_VMATH_SINGLE_H
#define EMC_SIMD_VMATH_SINGLE_H

#include <float.h>
#include <math.h>

#define VMATH_ROUND 0x1.8p23f
#define VMATH_LOG2E 0x1.715476p+0f
/* ln 2 in two parts; multiples of the first by integers of 8 bits are exact. */
#define VMATH_LN2_HI 0x1.62e4p-1f
#define VMATH_LN2_LO 0x1.7f7d1cp-20f
#define VMATH_FLUSH (-85.0f)

/* Two functions follow, each in two forms: see vmath.h for what each is to be. */

/* exp(x) = (result) * 2^n, |x| < 128, result within [0.7, 1.42]; *n is n + VMATH_ROUND. */
EMC_INLINE vd vmath_exp_reduced(vd x, vd *n) {
    *n = v_fma(x, v_set1(VMATH_LOG2E), v_set1(VMATH_ROUND));
    const vd m = v_sub(*n, v_set1(VMATH_ROUND));
    const vd r = v_fma(m, v_set1(-VMATH_LN2_LO), v_fma(m, v_set1(-VMATH_LN2_HI), x));
    const vd r2 = v_mul(r, r);
    const vd p01 = v_fma(r, v_set1(0x1.5554dep-3f), v_set1(0x1.000000p-1f));
    const vd p23 = v_fma(r, v_set1(0x1.120b62p-7f), v_set1(0x1.55551ap-5f));
    const vd p = v_fma(r2, v_fma(r2, v_set1(0x1.6d10fcp-10f), p23), p01);
    return v_add(v_set1(1.0f), v_fma(r2, p, r));
}

/* 2^n from n + VMATH_ROUND, -126 <= n <= 127. */
EMC_INLINE vd vmath_pow2(vd n) { return v_add_bits(v_set1(1.0f), v_shl23(n)); }

EMC_INLINE vd vmath_exp(vd x) {
    vd n;
    const vd y = vmath_exp_reduced(v_min(v_set1(89.0f), v_max(v_set1(-105.0f), x)), &n);
    /* 2^n in two factors, so that the one product that may round is the last. */
    const vd half = v_fma(v_sub(n, v_set1(VMATH_ROUND)), v_set1(0.5f), v_set1(VMATH_ROUND));
    const vd rest = v_add(v_sub(n, half), v_set1(VMATH_ROUND));
    return v_mul(v_mul(y, vmath_pow2(half)), vmath_pow2(rest));
}

EMC_INLINE vd vmath_exp_cut(vd x, vd cut) {
    vd n;
    const vd y = vmath_exp_reduced(x, &n);
    return v_select(v_lt(x, cut), v_zero(), v_mul(y, vmath_pow2(n)));
}

/* log(x), x normal, positive, finite, plus shift * ln 2. */
EMC_INLINE vd vmath_log_normal(vd x, vd shift) {
    const uint32_t sqrt_half = UINT32_C(0x3f3504f3), one = UINT32_C(127) << 23;
    const vd biased = v_shr23(v_add_bits(x, v_set1_bits(one - sqrt_half)));
    const vd m = v_sub_bits(x, v_sub_bits(v_shl23(biased), v_set1_bits(one)));
    const vd e = v_add(v_sub(v_or(biased, v_set1(0x1p23f)), v_set1(0x1p23f + 127.0f)), shift);
    const vd f = v_sub(m, v_set1(1.0f)), s = v_div(f, v_add(f, v_set1(2.0f)));
    const vd z = v_mul(s, s), z2 = v_mul(z, z);
    const vd p01 = v_fma(z, v_set1(0x1.9999ecp-2f), v_set1(0x1.555556p-1f));
    const vd p23 = v_fma(z, v_set1(0x1.ddced8p-3f), v_set1(0x1.245c44p-2f));
    const vd p = v_mul(z, v_fma(z2, p23, p01));
    const vd low = v_fma(e, v_set1(VMATH_LN2_LO), v_mul(s, v_sub(p, f)));
    return v_fma(e, v_set1(VMATH_LN2_HI), v_add(f, low));
}

EMC_INLINE vd vmath_log(vd x) {
    const vm subnormal = v_lt(x, v_set1(FLT_MIN)), finite = v_le(x, v_set1(FLT_MAX));
    const vd shift = v_keep(subnormal, v_set1(-24.0f));
    vd y = vmath_log_normal(v_select(subnormal, v_mul(x, v_set1(0x1p24f)), x), shift);
    y = v_select(v_lt(v_zero(), x), v_select(finite, y, x), v_select(v_lt(x, v_zero()), v_set1((float)NAN), x));
    return v_select(v_both(v_le(x, v_zero()), v_le(v_zero(), x)), v_set1(-(float)INFINITY), y);
}

EMC_INLINE vd vmath_log_cut(vd x) {
    const vm normal = v_both(v_le(v_set1(FLT_MIN), x), v_le(x, v_set1(FLT_MAX)));
    const vd other = v_select(v_lt(x, v_set1(FLT_MIN)), v_set1(-(float)INFINITY), x);
    return v_select(normal, vmath_log_normal(x, v_zero()), other);
}

#endif
