/* Which table of micro-kernels is used.  EMC_HAVE_<TARGET> tell what was built. */
#include "cpu.h"
#include "emc.h"

#include <string.h>

extern const emc_table emc_table_baseline;
#ifdef EMC_HAVE_AVX2
extern const emc_table emc_table_avx2;
#endif
#ifdef EMC_HAVE_AVX512
extern const emc_table emc_table_avx512;
#endif
#ifdef EMC_HAVE_NEON
extern const emc_table emc_table_neon;
#endif

static int always(void) { return 1; }

/* Best first. */
static const struct {
    const emc_table *table;
    int (*runs)(void);
} targets[] = {
#ifdef EMC_HAVE_AVX512
    {&emc_table_avx512, emc_cpu_has_avx512},
#endif
#ifdef EMC_HAVE_AVX2
    {&emc_table_avx2, emc_cpu_has_avx2},
#endif
#ifdef EMC_HAVE_NEON
    {&emc_table_neon, always},
#endif
    {&emc_table_baseline, always},
};

enum { N_TARGETS = sizeof targets / sizeof targets[0] };

/* Threads may ask for the table at the same time; a pointer that is stored and loaded whole is all they need. */
#if defined(__STDC_NO_ATOMICS__) || (defined(_MSC_VER) && !defined(__clang__))
static const emc_table *volatile current;
#else
static const emc_table *_Atomic current;
#endif

const emc_table *emc_target(int i, int *runs) {
    if (i < 0 || i >= N_TARGETS)
        return NULL;
    if (runs)
        *runs = targets[i].runs();
    return targets[i].table;
}

const emc_table *emc_select(const char *name) {
    for (int i = 0; i < N_TARGETS; i++) {
        if (name && strcmp(name, targets[i].table->name) != 0)
            continue;
        if (!targets[i].runs())
            continue;
        current = targets[i].table;
        return targets[i].table;
    }
    return NULL;
}

const emc_table *emc_current(void) {
    const emc_table *table = current;
    return table ? table : emc_select(NULL);
}
