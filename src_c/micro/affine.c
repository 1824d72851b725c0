/* Linear functions of rows. */
#include "micro.h"

void EMC_NAME(affine)(const double *X, ptrdiff_t ng, ptrdiff_t d, const double *b, double a, double *out,
                      ptrdiff_t stride) {
    for (ptrdiff_t g = 0; g < ng; g++) {
        for (int v = 0; v < EMC_GROUP; v += 4 * V_LANES) {
            const double *x = X + g * d * EMC_GROUP + v;
            vd s0 = v_set1(a), s1 = s0, s2 = s0, s3 = s0;
            for (ptrdiff_t j = 0; j < d; j++, x += EMC_GROUP) {
                const vd slope = v_pin(v_set1(b[j]));
                s0 = v_fma(v_load(x), slope, s0);
                s1 = v_fma(v_load(x + V_LANES), slope, s1);
                s2 = v_fma(v_load(x + 2 * V_LANES), slope, s2);
                s3 = v_fma(v_load(x + 3 * V_LANES), slope, s3);
            }
            double *o = out + g * stride + v;
            v_store(o, s0);
            v_store(o + V_LANES, s1);
            v_store(o + 2 * V_LANES, s2);
            v_store(o + 3 * V_LANES, s3);
        }
    }
}
