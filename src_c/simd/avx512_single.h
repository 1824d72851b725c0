/* Vector operations of the AVX-512 target in lanes of float32: 16. See avx512.h for what each one does. */
#ifndef EMC_SIMD_AVX512_SINGLE_H
#define EMC_SIMD_AVX512_SINGLE_H

#include <immintrin.h>
#include <stdint.h>

#define V_LANES 16
#define V_REGISTERS 32

typedef __m512 vd;
typedef __mmask16 vm;

EMC_INLINE vd v_load(const float *p) { return _mm512_loadu_ps(p); }
EMC_INLINE void v_store(float *p, vd a) { _mm512_storeu_ps(p, a); }
EMC_INLINE vd v_load_part(const float *p, ptrdiff_t m) { return _mm512_maskz_loadu_ps((__mmask16)((1u << m) - 1), p); }
EMC_INLINE void v_store_part(float *p, vd a, ptrdiff_t m) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << m) - 1), a); }

EMC_INLINE vd v_set1(float x) { return _mm512_set1_ps(x); }
EMC_INLINE vd v_zero(void) { return _mm512_setzero_ps(); }
EMC_INLINE vd v_pin(vd a) {
    __asm__("" : "+v"(a));
    return a;
}

EMC_INLINE vd v_add(vd a, vd b) { return _mm512_add_ps(a, b); }
EMC_INLINE vd v_sub(vd a, vd b) { return _mm512_sub_ps(a, b); }
EMC_INLINE vd v_mul(vd a, vd b) { return _mm512_mul_ps(a, b); }
EMC_INLINE vd v_div(vd a, vd b) { return _mm512_div_ps(a, b); }
EMC_INLINE vd v_fma(vd a, vd b, vd c) { return _mm512_fmadd_ps(a, b, c); }
EMC_INLINE vd v_max(vd a, vd b) { return _mm512_max_ps(a, b); }
EMC_INLINE vd v_min(vd a, vd b) { return _mm512_min_ps(a, b); }

EMC_INLINE vd v_set1_bits(uint32_t x) { return _mm512_castsi512_ps(_mm512_set1_epi32((int)x)); }
EMC_INLINE vd v_or(vd a, vd b) { return _mm512_or_ps(a, b); }
EMC_INLINE vd v_add_bits(vd a, vd b) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
EMC_INLINE vd v_sub_bits(vd a, vd b) {
    return _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
EMC_INLINE vd v_shl23(vd a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23)); }
EMC_INLINE vd v_shr23(vd a) { return _mm512_castsi512_ps(_mm512_srli_epi32(_mm512_castps_si512(a), 23)); }

EMC_INLINE vm v_lt(vd a, vd b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
EMC_INLINE vm v_le(vd a, vd b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
EMC_INLINE vm v_both(vm a, vm b) { return (vm)(a & b); }
EMC_INLINE vm v_either(vm a, vm b) { return (vm)(a | b); }
EMC_INLINE vm v_without(vm a, vm b) { return (vm)(a & ~b); }
EMC_INLINE int v_any(vm a) { return a != 0; }
EMC_INLINE vd v_select(vm m, vd a, vd b) { return _mm512_mask_blend_ps(m, b, a); }
EMC_INLINE vd v_keep(vm m, vd a) { return _mm512_maskz_mov_ps(m, a); }

/* Sums over lanes: pairs of lanes once in float32, then in float64. */
EMC_INLINE __m256d v_halves(vd a) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    return _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(half)),
                         _mm256_cvtps_pd(_mm256_extractf128_ps(half, 1)));
}
EMC_INLINE void v_add_sums4(double *dst, vd a, vd b, vd c, vd d) {
    const __m256d ab = _mm256_hadd_pd(v_halves(a), v_halves(b)), cd = _mm256_hadd_pd(v_halves(c), v_halves(d));
    const __m256d s = _mm256_add_pd(_mm256_permute2f128_pd(ab, cd, 0x20), _mm256_permute2f128_pd(ab, cd, 0x31));
    _mm256_storeu_pd(dst, _mm256_add_pd(_mm256_loadu_pd(dst), s));
}
EMC_INLINE double v_sum(vd a) {
    const __m256d b = v_halves(a);
    const __m128d c = _mm_add_pd(_mm256_castpd256_pd128(b), _mm256_extractf128_pd(b, 1));
    return _mm_cvtsd_f64(_mm_add_sd(c, _mm_unpackhi_pd(c, c)));
}

#endif
