/* What all micro-kernels share.  Each file here is compiled once per CPU target, with EMC_TARGET its name and
 * EMC_TARGET_<NAME> defined.  Functions seen outside their file are named <function>_<target>, so that the linker can
 * never hand code of one target to another; helpers are static and inlined. */
#ifndef EMC_MICRO_H
#define EMC_MICRO_H

#include "../emc.h"
#include "../fence.h"

#if defined(__GNUC__)
#define EMC_INLINE static inline __attribute__((always_inline))
#define EMC_NOINLINE static __attribute__((noinline, unused))
#define EMC_HIDDEN __attribute__((visibility("hidden")))
#elif defined(_MSC_VER)
#define EMC_INLINE static __forceinline
#define EMC_NOINLINE static __declspec(noinline)
#define EMC_HIDDEN
#else
#define EMC_INLINE static inline
#define EMC_NOINLINE static
#define EMC_HIDDEN
#endif

/* Some files are compiled a second time with EMC_SINGLE: the same code in lanes of float32, sums in float64. */
#if defined(EMC_TARGET_AVX512) || defined(EMC_TARGET_AVX2)
#define EMC_HAVE_SINGLE
#endif
#if defined(EMC_SINGLE) && defined(EMC_TARGET_AVX512)
#include "../simd/avx512_single.h"
#elif defined(EMC_SINGLE) && defined(EMC_TARGET_AVX2)
#include "../simd/avx2_single.h"
#elif defined(EMC_SINGLE)
#error "this target has no float32 lanes"
#elif defined(EMC_TARGET_AVX512)
#include "../simd/avx512.h"
#elif defined(EMC_TARGET_AVX2)
#include "../simd/avx2.h"
#elif defined(EMC_TARGET_NEON)
#include "../simd/neon.h"
#elif defined(EMC_TARGET_BASELINE)
#include "../simd/baseline.h"
#else
#error "define EMC_TARGET and one of EMC_TARGET_BASELINE, _AVX2, _AVX512, _NEON"
#endif

#ifdef EMC_SINGLE
#include "../simd/vmath_single.h"
typedef float real; /* what a lane holds */
#define REAL_MAX FLT_MAX
/* Rows of a group: at least one tile. */
#define GROUP (4 * V_LANES < EMC_GROUP ? EMC_GROUP : 4 * V_LANES)
#else
#include "../simd/vmath.h"
typedef double real;
#define REAL_MAX DBL_MAX
#define GROUP EMC_GROUP
#endif

/* Replaces a and b by exp(a - m) and exp(b - m), m the larger of them, which is finite, and returns their sum: that of
 * the larger is e^0 = 1, to the bit.  The other is 0 below its cut. */
EMC_INLINE vd pair_exponentials(vd *a, vd *b, vd cut_a, vd cut_b) {
    const vm a_less = v_lt(*a, *b);
    const vd one = v_set1(1.0), below = v_sub(v_select(a_less, *a, *b), v_select(a_less, *b, *a));
    const vd e = vmath_exp_cut(below, v_select(a_less, cut_a, cut_b));
    *a = v_select(a_less, e, one);
    *b = v_select(a_less, one, e);
    return v_add(one, e);
}

_Static_assert(GROUP % (4 * V_LANES) == 0, "a group is a whole number of tiles of 4 vectors");

#define EMC_PASTE_(a, b) a##_##b
#define EMC_PASTE(a, b) EMC_PASTE_(a, b)
#define EMC_DOUBLE_NAME(function) EMC_PASTE(function, EMC_TARGET)
#define EMC_SINGLE_NAME(function) EMC_PASTE(function##_single, EMC_TARGET)
#ifdef EMC_SINGLE
#define EMC_NAME(function) EMC_SINGLE_NAME(function)
#else
#define EMC_NAME(function) EMC_DOUBLE_NAME(function)
#endif
#define EMC_STRING_(a) #a
#define EMC_STRING(a) EMC_STRING_(a)

EMC_HIDDEN void EMC_NAME(sqdist_tri)(const real *X, ptrdiff_t ng, ptrdiff_t d, const real *mu, const real *L, real a,
                                     real b, real *out, ptrdiff_t stride);
EMC_HIDDEN void EMC_NAME(sqdist_diag)(const real *X, ptrdiff_t ng, ptrdiff_t d, const real *mu, const real *s, real a,
                                      real b, real *out, ptrdiff_t stride);
#ifdef EMC_SINGLE
EMC_HIDDEN int EMC_DOUBLE_NAME(gaussian_mixture)(const emc_gaussians *model, emc_panel *panel, double *stats,
                                                 double *loglik, double *work);
EMC_HIDDEN ptrdiff_t EMC_DOUBLE_NAME(gaussian_mixture_work)(const emc_gaussians *model, ptrdiff_t n);
#endif
EMC_HIDDEN int EMC_NAME(gaussian_mixture)(const emc_gaussians *model, emc_panel *panel, double *stats, double *loglik,
                                          double *work);
EMC_HIDDEN ptrdiff_t EMC_NAME(gaussian_mixture_work)(const emc_gaussians *model, ptrdiff_t n);

EMC_HIDDEN void EMC_DOUBLE_NAME(pack_rows)(double *X, ptrdiff_t n, ptrdiff_t d, const void *raw, int raw_type,
                                           ptrdiff_t row_stride, ptrdiff_t col_stride, const double *shift,
                                           const double *scale);
EMC_HIDDEN void EMC_DOUBLE_NAME(pack_weights)(double *w, ptrdiff_t n, const double *raw, ptrdiff_t stride);
EMC_HIDDEN void EMC_DOUBLE_NAME(unpack)(double *out, const double *a, ptrdiff_t n, ptrdiff_t m);
EMC_HIDDEN ptrdiff_t EMC_DOUBLE_NAME(normalize_rows)(double *logp, ptrdiff_t n, ptrdiff_t k, const double *log_weights,
                                                     const double *w, double *row_loglik, double *loglik);
EMC_HIDDEN void EMC_DOUBLE_NAME(column_mass)(const double *r, ptrdiff_t ng, ptrdiff_t k, double *mass);
EMC_HIDDEN void EMC_DOUBLE_NAME(weighted_sum)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu,
                                              const double *r, ptrdiff_t stride, double *sum);
EMC_HIDDEN void EMC_DOUBLE_NAME(weighted_gram)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu,
                                               const double *r, ptrdiff_t stride, double *gram);
EMC_HIDDEN void EMC_DOUBLE_NAME(weighted_squares)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu,
                                                  const double *r, ptrdiff_t stride, double *squares);
EMC_HIDDEN void EMC_DOUBLE_NAME(affine)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *b, double a,
                                        double *out, ptrdiff_t stride);
EMC_HIDDEN void EMC_DOUBLE_NAME(weighted_moments)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu,
                                                  const double *r, ptrdiff_t stride, double *sum, double *gram);
EMC_HIDDEN void EMC_DOUBLE_NAME(whiten_tri)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu,
                                            const double *L, double a, double b, double *Y, double *out,
                                            ptrdiff_t stride);
EMC_HIDDEN void EMC_DOUBLE_NAME(quadratic_tri)(const double *Y, ptrdiff_t ng, ptrdiff_t d, double a,
                                               const double *slope, const double *C, double *out, ptrdiff_t stride);
EMC_HIDDEN void EMC_DOUBLE_NAME(quadratic_diag)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu,
                                                const double *s, double a, const double *slope, const double *C,
                                                double *out, ptrdiff_t stride);
EMC_HIDDEN void EMC_DOUBLE_NAME(normalize_rows_dot)(double *dot, ptrdiff_t ng, ptrdiff_t k,
                                                    const double *log_weights_dot, const double *w, const double *resp);
EMC_HIDDEN void EMC_DOUBLE_NAME(factor_scores)(const double *X, ptrdiff_t ng, ptrdiff_t d, ptrdiff_t q,
                                               const double *mu, const double *B, const double *L,
                                               const double *precision, double a, double *F, double *Y, double *out,
                                               ptrdiff_t stride);
EMC_HIDDEN void EMC_DOUBLE_NAME(weighted_cross)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *mu,
                                                const double *W, ptrdiff_t m, double *cross);
EMC_HIDDEN void EMC_DOUBLE_NAME(poisson_rows)(const double *mean, const double *y, ptrdiff_t ng, double *out,
                                              double *ratio);
EMC_HIDDEN void EMC_DOUBLE_NAME(row_dots)(const double *X, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride,
                                          const double *b, double a, double *out, ptrdiff_t stride);
EMC_HIDDEN void EMC_DOUBLE_NAME(row_sums)(const double *X, ptrdiff_t n, ptrdiff_t d, ptrdiff_t row_stride,
                                          const double *W, ptrdiff_t m, double *sums);
EMC_HIDDEN int EMC_DOUBLE_NAME(pack_chosen)(double *X, const int *chosen, ptrdiff_t n, ptrdiff_t d, const void *raw,
                                            int raw_type, ptrdiff_t row_stride, ptrdiff_t col_stride,
                                            const double *shift, const double *scale);
EMC_HIDDEN void EMC_DOUBLE_NAME(vexp)(const double *x, double *y, ptrdiff_t n);
EMC_HIDDEN void EMC_DOUBLE_NAME(vlog)(const double *x, double *y, ptrdiff_t n);
EMC_HIDDEN void EMC_SINGLE_NAME(vexp)(const float *x, float *y, ptrdiff_t n);
EMC_HIDDEN void EMC_SINGLE_NAME(vlog)(const float *x, float *y, ptrdiff_t n);

#endif
