/* Vector operations of the baseline target: SSE2 (2 doubles, 16 registers) where every CPU has it, plain C elsewhere.
 * See avx512.h for what each one does. */
#ifndef EMC_SIMD_BASELINE_H
#define EMC_SIMD_BASELINE_H

#include <stdint.h>

#define V_REGISTERS 16

#if defined(__SSE2__) || defined(_M_X64)

#include <emmintrin.h>

#define V_LANES 2

typedef __m128d vd;
typedef __m128d vm;

EMC_INLINE vd v_load(const double *p) { return _mm_loadu_pd(p); }
EMC_INLINE void v_store(double *p, vd a) { _mm_storeu_pd(p, a); }
EMC_INLINE vd v_load_part(const double *p, ptrdiff_t m) {
    return m > 1 ? _mm_loadu_pd(p) : m == 1 ? _mm_load_sd(p) : _mm_setzero_pd();
}
EMC_INLINE void v_store_part(double *p, vd a, ptrdiff_t m) {
    if (m > 1)
        _mm_storeu_pd(p, a);
    else if (m == 1)
        _mm_store_sd(p, a);
}
EMC_INLINE vd v_load_float(const float *p) { return _mm_setr_pd(p[0], p[1]); }
EMC_INLINE vd v_load_float_part(const float *p, ptrdiff_t m) {
    return _mm_setr_pd(m > 0 ? p[0] : 0.0, m > 1 ? p[1] : 0.0);
}

EMC_INLINE vd v_set1(double x) { return _mm_set1_pd(x); }
EMC_INLINE vd v_zero(void) { return _mm_setzero_pd(); }
EMC_INLINE vd v_pin(vd a) {
#if defined(__GNUC__)
    __asm__("" : "+x"(a));
#endif
    return a;
}

EMC_INLINE vd v_add(vd a, vd b) { return _mm_add_pd(a, b); }
EMC_INLINE vd v_sub(vd a, vd b) { return _mm_sub_pd(a, b); }
EMC_INLINE vd v_mul(vd a, vd b) { return _mm_mul_pd(a, b); }
EMC_INLINE vd v_div(vd a, vd b) { return _mm_div_pd(a, b); }
EMC_INLINE vd v_fma(vd a, vd b, vd c) { return _mm_add_pd(_mm_mul_pd(a, b), c); }
EMC_INLINE vd v_max(vd a, vd b) { return _mm_max_pd(a, b); }
EMC_INLINE vd v_min(vd a, vd b) { return _mm_min_pd(a, b); }

EMC_INLINE vd v_set1_bits(uint64_t x) { return _mm_castsi128_pd(_mm_set1_epi64x((long long)x)); }
EMC_INLINE vd v_and(vd a, vd b) { return _mm_and_pd(a, b); }
EMC_INLINE vd v_or(vd a, vd b) { return _mm_or_pd(a, b); }
EMC_INLINE vd v_add_bits(vd a, vd b) {
    return _mm_castsi128_pd(_mm_add_epi64(_mm_castpd_si128(a), _mm_castpd_si128(b)));
}
EMC_INLINE vd v_sub_bits(vd a, vd b) {
    return _mm_castsi128_pd(_mm_sub_epi64(_mm_castpd_si128(a), _mm_castpd_si128(b)));
}
EMC_INLINE vd v_shl52(vd a) { return _mm_castsi128_pd(_mm_slli_epi64(_mm_castpd_si128(a), 52)); }
EMC_INLINE vd v_shr52(vd a) { return _mm_castsi128_pd(_mm_srli_epi64(_mm_castpd_si128(a), 52)); }

EMC_INLINE vm v_lt(vd a, vd b) { return _mm_cmplt_pd(a, b); }
EMC_INLINE vm v_le(vd a, vd b) { return _mm_cmple_pd(a, b); }
EMC_INLINE vm v_both(vm a, vm b) { return _mm_and_pd(a, b); }
EMC_INLINE vm v_either(vm a, vm b) { return _mm_or_pd(a, b); }
EMC_INLINE vm v_without(vm a, vm b) { return _mm_andnot_pd(b, a); }
EMC_INLINE int v_any(vm a) { return _mm_movemask_pd(a) != 0; }
EMC_INLINE vd v_select(vm m, vd a, vd b) { return _mm_or_pd(_mm_and_pd(m, a), _mm_andnot_pd(m, b)); }
EMC_INLINE vd v_keep(vm m, vd a) { return _mm_and_pd(m, a); }

EMC_INLINE void v_add_sums4(double *dst, vd a, vd b, vd c, vd d) {
    vd ab = _mm_add_pd(_mm_unpacklo_pd(a, b), _mm_unpackhi_pd(a, b));
    vd cd = _mm_add_pd(_mm_unpacklo_pd(c, d), _mm_unpackhi_pd(c, d));
    _mm_storeu_pd(dst, _mm_add_pd(_mm_loadu_pd(dst), ab));
    _mm_storeu_pd(dst + 2, _mm_add_pd(_mm_loadu_pd(dst + 2), cd));
}
EMC_INLINE double v_sum(vd a) { return _mm_cvtsd_f64(_mm_add_sd(a, _mm_unpackhi_pd(a, a))); }

EMC_INLINE void v_unzip(vd a, vd b, vd *even, vd *odd) {
    *even = _mm_unpacklo_pd(a, b);
    *odd = _mm_unpackhi_pd(a, b);
}

EMC_INLINE void v_transpose(vd *a) {
    vd b0 = _mm_unpacklo_pd(a[0], a[1]);
    a[1] = _mm_unpackhi_pd(a[0], a[1]);
    a[0] = b0;
}

#else

#include <string.h>

#define V_LANES 1

typedef double vd;
typedef int vm;

EMC_INLINE uint64_t v_bits(double a) {
    uint64_t b;
    memcpy(&b, &a, sizeof b);
    return b;
}
EMC_INLINE double v_from_bits(uint64_t b) {
    double a;
    memcpy(&a, &b, sizeof a);
    return a;
}

EMC_INLINE vd v_load(const double *p) { return *p; }
EMC_INLINE void v_store(double *p, vd a) { *p = a; }
EMC_INLINE vd v_load_part(const double *p, ptrdiff_t m) { return m > 0 ? *p : 0.0; }
EMC_INLINE void v_store_part(double *p, vd a, ptrdiff_t m) {
    if (m > 0)
        *p = a;
}
EMC_INLINE vd v_load_float(const float *p) { return *p; }
EMC_INLINE vd v_load_float_part(const float *p, ptrdiff_t m) { return m > 0 ? *p : 0.0; }

EMC_INLINE vd v_set1(double x) { return x; }
EMC_INLINE vd v_zero(void) { return 0.0; }
EMC_INLINE vd v_pin(vd a) { return a; }

EMC_INLINE vd v_add(vd a, vd b) { return a + b; }
EMC_INLINE vd v_sub(vd a, vd b) { return a - b; }
EMC_INLINE vd v_mul(vd a, vd b) { return a * b; }
EMC_INLINE vd v_div(vd a, vd b) { return a / b; }
EMC_INLINE vd v_fma(vd a, vd b, vd c) { return a * b + c; }
EMC_INLINE vd v_max(vd a, vd b) { return a > b ? a : b; }
EMC_INLINE vd v_min(vd a, vd b) { return a < b ? a : b; }

EMC_INLINE vd v_set1_bits(uint64_t x) { return v_from_bits(x); }
EMC_INLINE vd v_and(vd a, vd b) { return v_from_bits(v_bits(a) & v_bits(b)); }
EMC_INLINE vd v_or(vd a, vd b) { return v_from_bits(v_bits(a) | v_bits(b)); }
EMC_INLINE vd v_add_bits(vd a, vd b) { return v_from_bits(v_bits(a) + v_bits(b)); }
EMC_INLINE vd v_sub_bits(vd a, vd b) { return v_from_bits(v_bits(a) - v_bits(b)); }
EMC_INLINE vd v_shl52(vd a) { return v_from_bits(v_bits(a) << 52); }
EMC_INLINE vd v_shr52(vd a) { return v_from_bits(v_bits(a) >> 52); }

EMC_INLINE vm v_lt(vd a, vd b) { return a < b; }
EMC_INLINE vm v_le(vd a, vd b) { return a <= b; }
EMC_INLINE vm v_both(vm a, vm b) { return a & b; }
EMC_INLINE vm v_either(vm a, vm b) { return a | b; }
EMC_INLINE vm v_without(vm a, vm b) { return a & !b; }
EMC_INLINE int v_any(vm a) { return a; }
EMC_INLINE vd v_select(vm m, vd a, vd b) { return m ? a : b; }
EMC_INLINE vd v_keep(vm m, vd a) { return m ? a : 0.0; }

EMC_INLINE void v_add_sums4(double *dst, vd a, vd b, vd c, vd d) {
    dst[0] += a;
    dst[1] += b;
    dst[2] += c;
    dst[3] += d;
}
EMC_INLINE double v_sum(vd a) { return a; }

EMC_INLINE void v_unzip(vd a, vd b, vd *even, vd *odd) {
    *even = a;
    *odd = b;
}

EMC_INLINE void v_transpose(vd *a) { (void)a; }

#endif
#endif
