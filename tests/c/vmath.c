/* exp and log of every CPU target against the C library's in more digits, in units in the last place (ulp).
 *
 *     vmath POINTS STEP
 *
 * POINTS random float64 arguments a function, and every STEP-th of the 2^32 float32: with STEP 1 that is a proof.
 * What each function is to be is written in simd/vmath.h and simd/vmath_single.h. */
#include "emc.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 4096 };
#define FLUSH (-690.0) /* VMATH_FLUSH of both files */
#define FLUSH_SINGLE (-85.0f)

#define DECLARE(target, real)                                                                                          \
    void probe_exp_cut_##target(const real *x, real *y, ptrdiff_t n);                                                  \
    void probe_log_cut_##target(const real *x, real *y, ptrdiff_t n);
DECLARE(baseline, double)
#ifdef EMC_HAVE_AVX2
DECLARE(avx2, double)
DECLARE(single_avx2, float)
#endif
#ifdef EMC_HAVE_AVX512
DECLARE(avx512, double)
DECLARE(single_avx512, float)
#endif
#ifdef EMC_HAVE_NEON
DECLARE(neon, double)
#endif

#define PROBES(target) probe_exp_cut_##target, probe_log_cut_##target

static const struct {
    const char *name;
    void (*exp_cut)(const double *x, double *y, ptrdiff_t n);
    void (*log_cut)(const double *x, double *y, ptrdiff_t n);
    void (*exp_cut_single)(const float *x, float *y, ptrdiff_t n);
    void (*log_cut_single)(const float *x, float *y, ptrdiff_t n);
} probes[] = {
    {"baseline", PROBES(baseline), NULL, NULL},
#ifdef EMC_HAVE_AVX2
    {"avx2", PROBES(avx2), PROBES(single_avx2)},
#endif
#ifdef EMC_HAVE_AVX512
    {"avx512", PROBES(avx512), PROBES(single_avx512)},
#endif
#ifdef EMC_HAVE_NEON
    {"neon", PROBES(neon), NULL, NULL},
#endif
};

/* The worst argument of one function so far. */
typedef struct worst {
    double ulp, x, y;
    long wrong; /* results of special arguments, which allow no error */
} worst;

static void differ(worst *w, double x, double y, int right) {
    if (!right && w->wrong++ == 0) {
        w->x = x;
        w->y = y;
    }
}

/* The error of y, with `digits` significant bits and exponents from `least` on: infinity counts as the number that
 * would come after the largest one. */
static void compare(worst *w, double x, double y, long double want, int digits, int least, long double beyond) {
    int exponent;
    frexpl(want, &exponent);
    const int last = (exponent < least ? least : exponent) - digits;
    const long double got = isinf(y) ? copysignl(beyond, y) : y;
    const double ulp =
        fabsl(want) >= beyond && isinf(y) && (y > 0) == (want > 0) ? 0.0 : (double)ldexpl(fabsl(got - want), -last);
    if (!(ulp <= w->ulp)) {
        w->ulp = ulp;
        if (w->wrong == 0) {
            w->x = x;
            w->y = y;
        }
    }
}

static void compare_double(worst *w, double x, double y, long double want) {
    compare(w, x, y, want, DBL_MANT_DIG, DBL_MIN_EXP, ldexpl(1.0L, DBL_MAX_EXP));
}

static void compare_single(worst *w, double x, double y, long double want) {
    compare(w, x, y, want, FLT_MANT_DIG, FLT_MIN_EXP, ldexpl(1.0L, FLT_MAX_EXP));
}

/* The functions. Each check says all that is asked of the result at x. */
static void check_exp_by(worst *w, double x, double y, int single) {
    if (isnan(x))
        differ(w, x, y, isnan(y));
    else if (isinf(x))
        differ(w, x, y, y == (x > 0 ? (double)INFINITY : 0.0) && !signbit(y));
    else if (x == 0.0)
        differ(w, x, y, y == 1.0);
    else if (single)
        compare_single(w, x, y, exp(x));
    else
        compare_double(w, x, y, expl(x));
}
static void check_log_by(worst *w, double x, double y, int single) {
    if (isnan(x) || x < 0.0)
        differ(w, x, y, isnan(y));
    else if (x == 0.0 || isinf(x))
        differ(w, x, y, y == (x > 0 ? (double)INFINITY : -(double)INFINITY));
    else if (x == 1.0)
        differ(w, x, y, y == 0.0);
    else if (single)
        compare_single(w, x, y, log(x));
    else
        compare_double(w, x, y, logl(x));
}
static void check_exp(worst *w, double x, double y) { check_exp_by(w, x, y, 0); }
static void check_log(worst *w, double x, double y) { check_log_by(w, x, y, 0); }
static void check_exp_single(worst *w, float x, float y) { check_exp_by(w, x, y, 1); }
static void check_log_single(worst *w, float x, float y) { check_log_by(w, x, y, 1); }
static void check_exp_cut(worst *w, double x, double y) {
    if (isnan(x))
        differ(w, x, y, isnan(y));
    else if (x < FLUSH || x == 0.0)
        differ(w, x, y, y == (x < 0.0 ? 0.0 : 1.0) && !signbit(y));
    else if (x < 0.0)
        compare_double(w, x, y, expl(x));
}
static void check_exp_cut_single(worst *w, float x, float y) {
    if (isnan(x))
        differ(w, x, y, isnan(y));
    else if (x < FLUSH_SINGLE || x == 0.0f)
        differ(w, x, y, y == (x < 0.0f ? 0.0f : 1.0f) && !signbit(y));
    else if (x < 0.0f)
        compare_single(w, x, y, exp(x));
}

/* Where log is a number it is the same number; below the normal ones it is -inf. */
static void check_log_cut(worst *w, double x, double y) {
    if (x < DBL_MIN)
        differ(w, x, y, y == -(double)INFINITY);
    else
        check_log(w, x, y);
}
static void check_log_cut_single(worst *w, float x, float y) {
    if (x < FLT_MIN)
        differ(w, x, y, y == -(float)INFINITY);
    else
        check_log_single(w, x, y);
}

static uint64_t state;
static uint64_t random_bits(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}
static double uniform(double low, double high) {
    return low + (high - low) * ((double)(random_bits() >> 11) * 0x1p-53);
}
static double from_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static const double specials[] = {
    0.0,
    -0.0,
    1.0,
    -1.0,
    0x1p-1074,
    -0x1p-1074,
    0x1p-1022,
    0x1.fffffffffffffp-1023,
    DBL_MAX,
    -DBL_MAX,
    709.7827128933840,
    709.7827128933841,
    -708.396418532264,
    -744.0,
    -745.1332191019411,
    -745.1332191019412,
    -745.2,
    -746.0,
    -1e6,
    710.0,
    FLUSH,
    FLUSH * (1 + DBL_EPSILON),
    0x1.6a09e667f3bccp-1,
    0x1.6a09e667f3bcdp-1,
    0x1.fffffffffffffp-1,
    0x1.0000000000001p0,
    (double)INFINITY,
    -(double)INFINITY,
    (double)NAN,
};
enum { N_SPECIALS = sizeof specials / sizeof specials[0] };

/* Where exp is neither 0 nor infinite and some way beyond; all exponents; around 1; any bits. */
static double argument(long i) {
    switch (i % 4) {
    case 0:
        return uniform(-760.0, 720.0);
    case 1:
        return ldexp(uniform(-1.0, 1.0), -(int)(random_bits() % 60));
    case 2:
        return uniform(0.5, 2.0);
    default:
        return from_bits(random_bits());
    }
}

static worst try_double(void (*function)(const double *x, double *y, ptrdiff_t n),
                        void (*check)(worst *w, double x, double y), long points) {
    worst w = {0};
    static double x[CHUNK], y[CHUNK];
    state = UINT64_C(88172645463325252);
    for (long done = -CHUNK; done < points; done += CHUNK) {
        for (int i = 0; i < CHUNK; i++)
            x[i] = done < 0 ? specials[i % N_SPECIALS] : argument(i);
        function(x, y, CHUNK);
        for (int i = 0; i < CHUNK; i++)
            check(&w, x[i], y[i]);
    }
    return w;
}

static worst try_single(void (*function)(const float *x, float *y, ptrdiff_t n),
                        void (*check)(worst *w, float x, float y), uint64_t step) {
    worst w = {0};
    static float x[CHUNK], y[CHUNK];
    for (uint64_t first = 0; first < UINT64_C(1) << 32; first += CHUNK * step) {
        for (int i = 0; i < CHUNK; i++) {
            const uint32_t bits = (uint32_t)(first + (uint64_t)i * step);
            memcpy(x + i, &bits, sizeof bits);
        }
        function(x, y, CHUNK);
        for (int i = 0; i < CHUNK; i++)
            check(&w, x[i], y[i]);
    }
    return w;
}

static int failures;
static void report(const char *target, const char *function, worst w, double allowed) {
    const int fails = w.wrong > 0 || !(w.ulp <= allowed);
    printf("%-9s %-15s %.3f ulp, at %a = %a", target, function, w.ulp, w.x, w.y);
    if (w.wrong > 0)
        printf(", %ld special results wrong", w.wrong);
    printf("%s\n", fails ? "  FAILS" : "");
    failures += fails;
    fflush(stdout);
}

int main(int argc, char **argv) {
    const long points = argc > 1 ? atol(argv[1]) : 2000000;
    const long step = argc > 2 ? atol(argv[2]) : 251;
    int runs = 0;
    if (points < 1 || step < 1)
        return 2;
    for (int t = 0; emc_target(t, &runs); t++) {
        const emc_table *table = emc_target(t, NULL);
        if (!runs)
            continue;
        report(table->name, "exp", try_double(table->vexp, check_exp, points), 1.25);
        report(table->name, "log", try_double(table->vlog, check_log, points), 1.0);
        report(table->name, "exp, single", try_single(table->vexp_single, check_exp_single, (uint64_t)step), 1.1);
        report(table->name, "log, single", try_single(table->vlog_single, check_log_single, (uint64_t)step), 1.0);
        for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++) {
            if (strcmp(probes[i].name, table->name) != 0)
                continue;
            report(table->name, "exp_cut", try_double(probes[i].exp_cut, check_exp_cut, points), 1.25);
            report(table->name, "log_cut", try_double(probes[i].log_cut, check_log_cut, points), 1.0);
            if (!probes[i].exp_cut_single)
                continue;
            report(table->name, "exp_cut, single",
                   try_single(probes[i].exp_cut_single, check_exp_cut_single, (uint64_t)step), 1.1);
            report(table->name, "log_cut, single",
                   try_single(probes[i].log_cut_single, check_log_cut_single, (uint64_t)step), 1.0);
        }
    }
    return failures > 0;
}
