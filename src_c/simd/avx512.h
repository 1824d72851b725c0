/* Vector operations of the AVX-512 target (F, DQ, VL, BW): 8 doubles, 32 registers. */
#ifndef EMC_SIMD_AVX512_H
#define EMC_SIMD_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define V_LANES 8
#define V_REGISTERS 32

typedef __m512d vd;  /* a vector of doubles */
typedef __mmask8 vm; /* a truth value per lane */

/* Memory: any alignment; the _part forms touch m doubles (0 <= m <= V_LANES) and load 0 into the other lanes. */
EMC_INLINE vd v_load(const double *p) { return _mm512_loadu_pd(p); }
EMC_INLINE void v_store(double *p, vd a) { _mm512_storeu_pd(p, a); }
EMC_INLINE vd v_load_part(const double *p, ptrdiff_t m) { return _mm512_maskz_loadu_pd((__mmask8)((1u << m) - 1), p); }
EMC_INLINE void v_store_part(double *p, vd a, ptrdiff_t m) { _mm512_mask_storeu_pd(p, (__mmask8)((1u << m) - 1), a); }
EMC_INLINE vd v_load_float(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
EMC_INLINE vd v_load_float_part(const float *p, ptrdiff_t m) {
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps((__mmask8)((1u << m) - 1), p));
}

EMC_INLINE vd v_set1(double x) { return _mm512_set1_pd(x); }
EMC_INLINE vd v_zero(void) { return _mm512_setzero_pd(); }
/* Keeps the compiler from folding a load that is used several times into each of its uses. */
EMC_INLINE vd v_pin(vd a) {
    __asm__("" : "+v"(a));
    return a;
}

EMC_INLINE vd v_add(vd a, vd b) { return _mm512_add_pd(a, b); }
EMC_INLINE vd v_sub(vd a, vd b) { return _mm512_sub_pd(a, b); }
EMC_INLINE vd v_mul(vd a, vd b) { return _mm512_mul_pd(a, b); }
EMC_INLINE vd v_div(vd a, vd b) { return _mm512_div_pd(a, b); }
EMC_INLINE vd v_fma(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); } /* a b + c, fused or not */
/* NaN when b is NaN; where only a is, targets differ. */
EMC_INLINE vd v_max(vd a, vd b) { return _mm512_max_pd(a, b); }
EMC_INLINE vd v_min(vd a, vd b) { return _mm512_min_pd(a, b); }

/* Lanes as 64-bit integers. */
EMC_INLINE vd v_set1_bits(uint64_t x) { return _mm512_castsi512_pd(_mm512_set1_epi64((long long)x)); }
EMC_INLINE vd v_and(vd a, vd b) { return _mm512_and_pd(a, b); }
EMC_INLINE vd v_or(vd a, vd b) { return _mm512_or_pd(a, b); }
EMC_INLINE vd v_add_bits(vd a, vd b) {
    return _mm512_castsi512_pd(_mm512_add_epi64(_mm512_castpd_si512(a), _mm512_castpd_si512(b)));
}
EMC_INLINE vd v_sub_bits(vd a, vd b) {
    return _mm512_castsi512_pd(_mm512_sub_epi64(_mm512_castpd_si512(a), _mm512_castpd_si512(b)));
}
EMC_INLINE vd v_shl52(vd a) { return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a), 52)); }
EMC_INLINE vd v_shr52(vd a) { return _mm512_castsi512_pd(_mm512_srli_epi64(_mm512_castpd_si512(a), 52)); }

EMC_INLINE vd v_shl48(vd a) { return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a), 48)); }
/* table[low four bits of each lane], and a 2^floor(n) rounded once.  This target only. */
#define V_HAS_LOOKUP16 1
EMC_INLINE vd v_lookup16(const uint64_t *table, vd index) {
    return _mm512_permutex2var_pd(_mm512_loadu_pd(table), _mm512_castpd_si512(index), _mm512_loadu_pd(table + 8));
}
EMC_INLINE vd v_scale(vd a, vd n) { return _mm512_scalef_pd(a, n); }

/* Comparisons are false for NaN. */
EMC_INLINE vm v_lt(vd a, vd b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
EMC_INLINE vm v_le(vd a, vd b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
EMC_INLINE vm v_both(vm a, vm b) { return (vm)(a & b); }
EMC_INLINE vm v_either(vm a, vm b) { return (vm)(a | b); }
EMC_INLINE vm v_without(vm a, vm b) { return (vm)(a & ~b); } /* a and not b */
EMC_INLINE int v_any(vm a) { return a != 0; }
EMC_INLINE vd v_select(vm m, vd a, vd b) { return _mm512_mask_blend_pd(m, b, a); } /* m ? a : b */
EMC_INLINE vd v_keep(vm m, vd a) { return _mm512_maskz_mov_pd(m, a); }             /* m ? a : 0 */

/* Adds the sums over lanes of a, b, c, d to dst[0..3]. */
EMC_INLINE void v_add_sums4(double *dst, vd a, vd b, vd c, vd d) {
    vd ab = _mm512_add_pd(_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
    vd cd = _mm512_add_pd(_mm512_unpacklo_pd(c, d), _mm512_unpackhi_pd(c, d));
    __m256d ab4 = _mm256_add_pd(_mm512_castpd512_pd256(ab), _mm512_extractf64x4_pd(ab, 1));
    __m256d cd4 = _mm256_add_pd(_mm512_castpd512_pd256(cd), _mm512_extractf64x4_pd(cd, 1));
    __m256d s = _mm256_add_pd(_mm256_permute2f128_pd(ab4, cd4, 0x20), _mm256_permute2f128_pd(ab4, cd4, 0x31));
    _mm256_storeu_pd(dst, _mm256_add_pd(_mm256_loadu_pd(dst), s));
}
EMC_INLINE double v_sum(vd a) {
    __m256d b = _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
    __m128d c = _mm_add_pd(_mm256_castpd256_pd128(b), _mm256_extractf128_pd(b, 1));
    return _mm_cvtsd_f64(_mm_add_sd(c, _mm_unpackhi_pd(c, c)));
}

/* The lanes of a, then b: the first, third ... and the second, fourth ... */
EMC_INLINE void v_unzip(vd a, vd b, vd *even, vd *odd) {
    *even = _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), b);
    *odd = _mm512_permutex2var_pd(a, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), b);
}

/* Transposes a square of V_LANES vectors. */
EMC_INLINE void v_transpose(vd *a) {
    vd b0 = _mm512_unpacklo_pd(a[0], a[1]), b1 = _mm512_unpackhi_pd(a[0], a[1]);
    vd b2 = _mm512_unpacklo_pd(a[2], a[3]), b3 = _mm512_unpackhi_pd(a[2], a[3]);
    vd b4 = _mm512_unpacklo_pd(a[4], a[5]), b5 = _mm512_unpackhi_pd(a[4], a[5]);
    vd b6 = _mm512_unpacklo_pd(a[6], a[7]), b7 = _mm512_unpackhi_pd(a[6], a[7]);
    vd c0 = _mm512_shuffle_f64x2(b0, b2, 0x88), c1 = _mm512_shuffle_f64x2(b1, b3, 0x88);
    vd c2 = _mm512_shuffle_f64x2(b0, b2, 0xdd), c3 = _mm512_shuffle_f64x2(b1, b3, 0xdd);
    vd c4 = _mm512_shuffle_f64x2(b4, b6, 0x88), c5 = _mm512_shuffle_f64x2(b5, b7, 0x88);
    vd c6 = _mm512_shuffle_f64x2(b4, b6, 0xdd), c7 = _mm512_shuffle_f64x2(b5, b7, 0xdd);
    a[0] = _mm512_shuffle_f64x2(c0, c4, 0x88);
    a[1] = _mm512_shuffle_f64x2(c1, c5, 0x88);
    a[2] = _mm512_shuffle_f64x2(c2, c6, 0x88);
    a[3] = _mm512_shuffle_f64x2(c3, c7, 0x88);
    a[4] = _mm512_shuffle_f64x2(c0, c4, 0xdd);
    a[5] = _mm512_shuffle_f64x2(c1, c5, 0xdd);
    a[6] = _mm512_shuffle_f64x2(c2, c6, 0xdd);
    a[7] = _mm512_shuffle_f64x2(c3, c7, 0xdd);
}

#endif
