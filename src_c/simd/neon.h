/* Vector operations of the NEON target (aarch64): 2 doubles, 32 registers.  See avx512.h for what each one does. */
#ifndef EMC_SIMD_NEON_H
#define EMC_SIMD_NEON_H

#include <arm_neon.h>
#include <stdint.h>

#define V_LANES 2
#define V_REGISTERS 32

typedef float64x2_t vd;
typedef uint64x2_t vm;

EMC_INLINE uint64x2_t v_bits(vd a) { return vreinterpretq_u64_f64(a); }
EMC_INLINE vd v_from_bits(uint64x2_t a) { return vreinterpretq_f64_u64(a); }

EMC_INLINE vd v_load(const double *p) { return vld1q_f64(p); }
EMC_INLINE void v_store(double *p, vd a) { vst1q_f64(p, a); }
EMC_INLINE vd v_load_part(const double *p, ptrdiff_t m) {
    return m > 1 ? vld1q_f64(p) : m == 1 ? vld1q_lane_f64(p, vdupq_n_f64(0.0), 0) : vdupq_n_f64(0.0);
}
EMC_INLINE void v_store_part(double *p, vd a, ptrdiff_t m) {
    if (m > 1)
        vst1q_f64(p, a);
    else if (m == 1)
        vst1q_lane_f64(p, a, 0);
}
EMC_INLINE vd v_load_float(const float *p) { return vcvt_f64_f32(vld1_f32(p)); }
EMC_INLINE vd v_load_float_part(const float *p, ptrdiff_t m) {
    float32x2_t zero = vdup_n_f32(0.0f);
    return vcvt_f64_f32(m > 1 ? vld1_f32(p) : m == 1 ? vld1_lane_f32(p, zero, 0) : zero);
}

EMC_INLINE vd v_set1(double x) { return vdupq_n_f64(x); }
EMC_INLINE vd v_zero(void) { return vdupq_n_f64(0.0); }
EMC_INLINE vd v_pin(vd a) { return a; } /* arithmetic has no memory operands here */

EMC_INLINE vd v_add(vd a, vd b) { return vaddq_f64(a, b); }
EMC_INLINE vd v_sub(vd a, vd b) { return vsubq_f64(a, b); }
EMC_INLINE vd v_mul(vd a, vd b) { return vmulq_f64(a, b); }
EMC_INLINE vd v_div(vd a, vd b) { return vdivq_f64(a, b); }
EMC_INLINE vd v_fma(vd a, vd b, vd c) { return vfmaq_f64(c, a, b); }
EMC_INLINE vd v_max(vd a, vd b) { return vmaxq_f64(a, b); }
EMC_INLINE vd v_min(vd a, vd b) { return vminq_f64(a, b); }

EMC_INLINE vd v_set1_bits(uint64_t x) { return v_from_bits(vdupq_n_u64(x)); }
EMC_INLINE vd v_and(vd a, vd b) { return v_from_bits(vandq_u64(v_bits(a), v_bits(b))); }
EMC_INLINE vd v_or(vd a, vd b) { return v_from_bits(vorrq_u64(v_bits(a), v_bits(b))); }
EMC_INLINE vd v_add_bits(vd a, vd b) { return v_from_bits(vaddq_u64(v_bits(a), v_bits(b))); }
EMC_INLINE vd v_sub_bits(vd a, vd b) { return v_from_bits(vsubq_u64(v_bits(a), v_bits(b))); }
EMC_INLINE vd v_shl52(vd a) { return v_from_bits(vshlq_n_u64(v_bits(a), 52)); }
EMC_INLINE vd v_shr52(vd a) { return v_from_bits(vshrq_n_u64(v_bits(a), 52)); }

EMC_INLINE vm v_lt(vd a, vd b) { return vcltq_f64(a, b); }
EMC_INLINE vm v_le(vd a, vd b) { return vcleq_f64(a, b); }
EMC_INLINE vm v_both(vm a, vm b) { return vandq_u64(a, b); }
EMC_INLINE vm v_either(vm a, vm b) { return vorrq_u64(a, b); }
EMC_INLINE vm v_without(vm a, vm b) { return vbicq_u64(a, b); }
EMC_INLINE int v_any(vm a) { return vmaxvq_u32(vreinterpretq_u32_u64(a)) != 0; }
EMC_INLINE vd v_select(vm m, vd a, vd b) { return vbslq_f64(m, a, b); }
EMC_INLINE vd v_keep(vm m, vd a) { return v_from_bits(vandq_u64(m, v_bits(a))); }

EMC_INLINE void v_add_sums4(double *dst, vd a, vd b, vd c, vd d) {
    vst1q_f64(dst, vaddq_f64(vld1q_f64(dst), vpaddq_f64(a, b)));
    vst1q_f64(dst + 2, vaddq_f64(vld1q_f64(dst + 2), vpaddq_f64(c, d)));
}
EMC_INLINE double v_sum(vd a) { return vaddvq_f64(a); }

EMC_INLINE void v_unzip(vd a, vd b, vd *even, vd *odd) {
    *even = vuzp1q_f64(a, b);
    *odd = vuzp2q_f64(a, b);
}

EMC_INLINE void v_transpose(vd *a) {
    vd b0 = vzip1q_f64(a[0], a[1]);
    a[1] = vzip2q_f64(a[0], a[1]);
    a[0] = b0;
}

#endif
