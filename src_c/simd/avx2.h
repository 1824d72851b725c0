/* Vector operations of the AVX2 target (with FMA): 4 doubles, 16 registers.  See avx512.h for what each one does. */
#ifndef EMC_SIMD_AVX2_H
#define EMC_SIMD_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define V_LANES 4
#define V_REGISTERS 16

typedef __m256d vd;
typedef __m256d vm;

EMC_INLINE vd v_load(const double *p) { return _mm256_loadu_pd(p); }
EMC_INLINE void v_store(double *p, vd a) { _mm256_storeu_pd(p, a); }
EMC_INLINE __m256i v_part_mask(ptrdiff_t m) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)m), _mm256_setr_epi64x(0, 1, 2, 3));
}
EMC_INLINE vd v_load_part(const double *p, ptrdiff_t m) { return _mm256_maskload_pd(p, v_part_mask(m)); }
EMC_INLINE void v_store_part(double *p, vd a, ptrdiff_t m) { _mm256_maskstore_pd(p, v_part_mask(m), a); }
EMC_INLINE vd v_load_float(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
EMC_INLINE vd v_load_float_part(const float *p, ptrdiff_t m) {
    __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32((int)m), _mm_setr_epi32(0, 1, 2, 3));
    return _mm256_cvtps_pd(_mm_maskload_ps(p, mask));
}

EMC_INLINE vd v_set1(double x) { return _mm256_set1_pd(x); }
EMC_INLINE vd v_zero(void) { return _mm256_setzero_pd(); }
EMC_INLINE vd v_pin(vd a) {
    __asm__("" : "+x"(a));
    return a;
}

EMC_INLINE vd v_add(vd a, vd b) { return _mm256_add_pd(a, b); }
EMC_INLINE vd v_sub(vd a, vd b) { return _mm256_sub_pd(a, b); }
EMC_INLINE vd v_mul(vd a, vd b) { return _mm256_mul_pd(a, b); }
EMC_INLINE vd v_div(vd a, vd b) { return _mm256_div_pd(a, b); }
EMC_INLINE vd v_fma(vd a, vd b, vd c) { return _mm256_fmadd_pd(a, b, c); }
EMC_INLINE vd v_max(vd a, vd b) { return _mm256_max_pd(a, b); }
EMC_INLINE vd v_min(vd a, vd b) { return _mm256_min_pd(a, b); }

EMC_INLINE vd v_set1_bits(uint64_t x) { return _mm256_castsi256_pd(_mm256_set1_epi64x((long long)x)); }
EMC_INLINE vd v_and(vd a, vd b) { return _mm256_and_pd(a, b); }
EMC_INLINE vd v_or(vd a, vd b) { return _mm256_or_pd(a, b); }
EMC_INLINE vd v_add_bits(vd a, vd b) {
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(a), _mm256_castpd_si256(b)));
}
EMC_INLINE vd v_sub_bits(vd a, vd b) {
    return _mm256_castsi256_pd(_mm256_sub_epi64(_mm256_castpd_si256(a), _mm256_castpd_si256(b)));
}
EMC_INLINE vd v_shl52(vd a) { return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a), 52)); }
EMC_INLINE vd v_shr52(vd a) { return _mm256_castsi256_pd(_mm256_srli_epi64(_mm256_castpd_si256(a), 52)); }

EMC_INLINE vm v_lt(vd a, vd b) { return _mm256_cmp_pd(a, b, _CMP_LT_OQ); }
EMC_INLINE vm v_le(vd a, vd b) { return _mm256_cmp_pd(a, b, _CMP_LE_OQ); }
EMC_INLINE vm v_both(vm a, vm b) { return _mm256_and_pd(a, b); }
EMC_INLINE vm v_either(vm a, vm b) { return _mm256_or_pd(a, b); }
EMC_INLINE vm v_without(vm a, vm b) { return _mm256_andnot_pd(b, a); }
EMC_INLINE int v_any(vm a) { return _mm256_movemask_pd(a) != 0; }
EMC_INLINE vd v_select(vm m, vd a, vd b) { return _mm256_blendv_pd(b, a, m); }
EMC_INLINE vd v_keep(vm m, vd a) { return _mm256_and_pd(m, a); }

EMC_INLINE void v_add_sums4(double *dst, vd a, vd b, vd c, vd d) {
    vd ab = _mm256_hadd_pd(a, b), cd = _mm256_hadd_pd(c, d);
    vd s = _mm256_add_pd(_mm256_permute2f128_pd(ab, cd, 0x20), _mm256_permute2f128_pd(ab, cd, 0x31));
    _mm256_storeu_pd(dst, _mm256_add_pd(_mm256_loadu_pd(dst), s));
}
EMC_INLINE double v_sum(vd a) {
    __m128d c = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(c, _mm_unpackhi_pd(c, c)));
}

EMC_INLINE void v_unzip(vd a, vd b, vd *even, vd *odd) {
    vd first = _mm256_permute2f128_pd(a, b, 0x20), last = _mm256_permute2f128_pd(a, b, 0x31);
    *even = _mm256_unpacklo_pd(first, last);
    *odd = _mm256_unpackhi_pd(first, last);
}

EMC_INLINE void v_transpose(vd *a) {
    vd b0 = _mm256_unpacklo_pd(a[0], a[1]), b1 = _mm256_unpackhi_pd(a[0], a[1]);
    vd b2 = _mm256_unpacklo_pd(a[2], a[3]), b3 = _mm256_unpackhi_pd(a[2], a[3]);
    a[0] = _mm256_permute2f128_pd(b0, b2, 0x20);
    a[1] = _mm256_permute2f128_pd(b1, b3, 0x20);
    a[2] = _mm256_permute2f128_pd(b0, b2, 0x31);
    a[3] = _mm256_permute2f128_pd(b1, b3, 0x31);
}

#endif
