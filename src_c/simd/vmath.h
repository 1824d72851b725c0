/* exp and log of one vector of doubles, written once over the vector operations.
 *
 * exp reduces to |r| <= ln 2 / 2, or, where a register pair serves as a table of 2^(i/16), to |r| <= ln 2 / 32.
 * The coefficients interpolate at Chebyshev nodes: (exp(r) - 1 - r) / r^2 on these intervals, and
 * (2 atanh(s) - 2 s) / s^3 in z = s^2 on 0 <= z <= ((sqrt 2 - 1) / (sqrt 2 + 1))^2.  The relative errors of the results
 * are 0.15, 0.26 and 0.04 units of 2^-53; rounding adds the rest: below 1.25 ulp for exp, 1 ulp for log.
 */
#ifndef EMC_SIMD_VMATH_H
#define EMC_SIMD_VMATH_H

#include <float.h>
#include <math.h>

/* Adding this puts round(x) into the low bits of the sum, in two's complement. */
#define VMATH_ROUND 0x1.8p52
#define VMATH_LOG2E 0x1.71547652b82fep+0
/* ln 2 in two parts; multiples of the first by integers of 11 bits are exact. */
#define VMATH_LN2_HI 0x1.62e42fefa3800p-1
#define VMATH_LN2_LO 0x1.ef35793c76730p-45

/* Two functions follow, each in two forms:
 * vmath_exp(x): for all x; overflows to inf, underflows gradually, keeps NaN.
 * vmath_exp_cut(x, cut): for x <= 0 and cut >= VMATH_FLUSH, 0 where x < cut: responsibilities below exp(VMATH_FLUSH)
 * change no sum, and subnormal ones would slow down all that follows.  Keeps NaN.
 * vmath_log(x): for all x; -inf at 0, NaN below, keeps inf and NaN.
 * vmath_log_cut(x): for sums of exponentials of which one is 1; -inf below DBL_MIN, 0 and negative numbers included,
 * keeps inf and NaN. */
#define VMATH_FLUSH (-690.0)

#ifdef V_HAS_LOOKUP16

#define VMATH_16_LOG2E 0x1.71547652b82fep+4
/* ln 2 / 16 in two parts; multiples of the first by integers of 15 bits are exact. */
#define VMATH_LN2_16_HI 0x1.62e42fefa0000p-5
#define VMATH_LN2_16_LO 0x1.cf79abc9e3b3ap-44

/* The bits of 2^(i/16), less i << 48: adding n << 48 gives those of 2^(n/16) for all n = 16 e + i. */
static const uint64_t vmath_exp2_16[16] = {
    UINT64_C(0x3ff0000000000000), UINT64_C(0x3fefb5586cf9890f), UINT64_C(0x3fef72b83c7d517b),
    UINT64_C(0x3fef387a6e756238), UINT64_C(0x3fef06fe0a31b715), UINT64_C(0x3feedea64c123422),
    UINT64_C(0x3feebfdad5362a27), UINT64_C(0x3feeab07dd485429), UINT64_C(0x3feea09e667f3bcd),
    UINT64_C(0x3feea11473eb0187), UINT64_C(0x3feeace5422aa0db), UINT64_C(0x3feec49182a3f090),
    UINT64_C(0x3feee89f995ad3ad), UINT64_C(0x3fef199bdd85529c), UINT64_C(0x3fef5818dcfba487),
    UINT64_C(0x3fefa4afa2a490da),
};

/* exp(x) = (1 + result) 2^(n/16), |x| < 1e6; *n is n + VMATH_ROUND. */
EMC_INLINE vd vmath_expm1_reduced(vd x, vd *n) {
    *n = v_fma(x, v_set1(VMATH_16_LOG2E), v_set1(VMATH_ROUND));
    vd m = v_sub(*n, v_set1(VMATH_ROUND));
    vd r = v_fma(m, v_set1(-VMATH_LN2_16_HI), x);
    r = v_fma(m, v_set1(-VMATH_LN2_16_LO), r);
    vd r2 = v_mul(r, r);
    vd p01 = v_fma(r, v_set1(0x1.55555554dd388p-3), v_set1(0x1.0000000000000p-1));
    vd p23 = v_fma(r, v_set1(0x1.11120b03cd855p-7), v_set1(0x1.555555551946fp-5));
    vd p = v_fma(r2, v_fma(r2, v_set1(0x1.6c17bb5ebddb4p-10), p23), p01);
    return v_fma(r2, p, r);
}

EMC_INLINE vd vmath_exp(vd x) {
    vd n, p = vmath_expm1_reduced(v_min(v_set1(710.0), v_max(v_set1(-746.0), x)), &n);
    vd i = v_and(n, v_set1_bits(15));
    vd t = v_add_bits(v_lookup16(vmath_exp2_16, i), v_shl48(i));
    return v_scale(v_fma(t, p, t), v_mul(v_sub(n, v_set1(VMATH_ROUND)), v_set1(0.0625)));
}

EMC_INLINE vd vmath_exp_cut(vd x, vd cut) {
    vd n, p = vmath_expm1_reduced(x, &n);
    vd t = v_add_bits(v_lookup16(vmath_exp2_16, n), v_shl48(n));
    return v_select(v_lt(x, cut), v_zero(), v_fma(t, p, t));
}

#else

/* exp(x) = (result) * 2^n, |x| < 1e6, result within [0.7, 1.42]; *n is n + VMATH_ROUND. */
EMC_INLINE vd vmath_exp_reduced(vd x, vd *n) {
    *n = v_fma(x, v_set1(VMATH_LOG2E), v_set1(VMATH_ROUND));
    vd m = v_sub(*n, v_set1(VMATH_ROUND));
    vd r = v_fma(m, v_set1(-VMATH_LN2_HI), x);
    r = v_fma(m, v_set1(-VMATH_LN2_LO), r);
    vd r2 = v_mul(r, r), r4 = v_mul(r2, r2);
    vd p01 = v_fma(r, v_set1(0x1.5555555555556p-3), v_set1(0x1.0000000000001p-1));
    vd p23 = v_fma(r, v_set1(0x1.11111111109b4p-7), v_set1(0x1.5555555553d64p-5));
    vd p45 = v_fma(r, v_set1(0x1.a01a01a7c3d59p-13), v_set1(0x1.6c16c1788b646p-10));
    vd p67 = v_fma(r, v_set1(0x1.71de0daf7a6ccp-19), v_set1(0x1.a019b90eefe8ep-16));
    vd p89 = v_fma(r, v_set1(0x1.af38a71a18cb9p-26), v_set1(0x1.2891834686c7ep-22));
    vd high = v_fma(r4, p89, v_fma(r2, p67, p45));
    vd p = v_fma(r4, high, v_fma(r2, p23, p01));
    return v_add(v_set1(1.0), v_fma(r2, p, r));
}

/* 2^n from n + VMATH_ROUND, -1022 <= n <= 1023.  A factor and not an addition to the exponent bits of the other factor,
 * so that a NaN there stays one. */
EMC_INLINE vd vmath_pow2(vd n) { return v_add_bits(v_set1(1.0), v_shl52(n)); }

EMC_INLINE vd vmath_exp(vd x) {
    vd n;
    vd y = vmath_exp_reduced(v_min(v_set1(710.0), v_max(v_set1(-746.0), x)), &n);
    /* 2^n in two factors, so that the one product that may round is the last. */
    vd half = v_fma(v_sub(n, v_set1(VMATH_ROUND)), v_set1(0.5), v_set1(VMATH_ROUND));
    vd rest = v_add(v_sub(n, half), v_set1(VMATH_ROUND));
    return v_mul(v_mul(y, vmath_pow2(half)), vmath_pow2(rest));
}

EMC_INLINE vd vmath_exp_cut(vd x, vd cut) {
    vd n;
    vd y = vmath_exp_reduced(x, &n);
    return v_select(v_lt(x, cut), v_zero(), v_mul(y, vmath_pow2(n)));
}

#endif

/* log(x), x normal, positive, finite, plus shift * ln 2. */
EMC_INLINE vd vmath_log_normal(vd x, vd shift) {
    /* x = m 2^e with m in [sqrt(1/2), sqrt 2): e + 1023 are the leading bits of x 2 / sqrt 2 as integers. */
    const uint64_t sqrt_half = UINT64_C(0x3fe6a09e667f3bcd), one = UINT64_C(1023) << 52;
    vd biased = v_shr52(v_add_bits(x, v_set1_bits(one - sqrt_half)));
    vd m = v_sub_bits(x, v_sub_bits(v_shl52(biased), v_set1_bits(one)));
    vd e = v_sub(v_or(biased, v_set1(0x1p52)), v_set1(0x1p52 + 1023.0));
    e = v_add(e, shift);
    vd f = v_sub(m, v_set1(1.0));
    vd s = v_div(f, v_add(f, v_set1(2.0)));
    vd z = v_mul(s, s), z2 = v_mul(z, z);
    vd p01 = v_fma(z, v_set1(0x1.99999999952d7p-2), v_set1(0x1.5555555555558p-1));
    vd p23 = v_fma(z, v_set1(0x1.c71c62e3f11e6p-3), v_set1(0x1.2492492df281ap-2));
    vd p45 = v_fma(z, v_set1(0x1.39fe51a7c18f9p-3), v_set1(0x1.7462b51cb66b1p-3));
    vd p = v_fma(z2, v_fma(z2, v_set1(0x1.2b5900de53b32p-3), p45), p23);
    p = v_mul(z, v_fma(z2, p, p01));
    /* 2 atanh(s) = f - s (f - p), where the rounding of s hardly counts; the large term comes last. */
    vd low = v_fma(e, v_set1(VMATH_LN2_LO), v_mul(s, v_sub(p, f)));
    return v_fma(e, v_set1(VMATH_LN2_HI), v_add(f, low));
}

EMC_INLINE vd vmath_log(vd x) {
    vm subnormal = v_lt(x, v_set1(DBL_MIN)), finite = v_le(x, v_set1(DBL_MAX));
    vd shift = v_keep(subnormal, v_set1(-54.0));
    vd y = vmath_log_normal(v_select(subnormal, v_mul(x, v_set1(0x1p54)), x), shift);
    y = v_select(v_lt(v_zero(), x), v_select(finite, y, x), v_select(v_lt(x, v_zero()), v_set1((double)NAN), x));
    return v_select(v_both(v_le(x, v_zero()), v_le(v_zero(), x)), v_set1(-(double)INFINITY), y);
}

EMC_INLINE vd vmath_log_cut(vd x) {
    const vm normal = v_both(v_le(v_set1(DBL_MIN), x), v_le(x, v_set1(DBL_MAX)));
    const vd other = v_select(v_lt(x, v_set1(DBL_MIN)), v_set1(-(double)INFINITY), x);
    return v_select(normal, vmath_log_normal(x, v_zero()), other);
}

#endif
