#include "cpu.h"

#if defined(__x86_64__) && defined(__GNUC__)

/* __builtin_cpu_supports also asks (by XGETBV) whether the operating system saves the wide registers. */
int emc_cpu_has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

int emc_cpu_has_avx512(void) {
    return emc_cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}

#else

int emc_cpu_has_avx2(void) { return 0; }
int emc_cpu_has_avx512(void) { return 0; }

#endif
