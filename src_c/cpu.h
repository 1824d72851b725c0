/* What this CPU, under this operating system, can run. */
#ifndef EMC_CPU_H
#define EMC_CPU_H

int emc_cpu_has_avx2(void);   /* AVX2 and FMA */
int emc_cpu_has_avx512(void); /* those, and AVX-512 F, DQ, VL, BW */

#endif
