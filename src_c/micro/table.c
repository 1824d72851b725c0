/* The table of this target: the only thing that the dispatch sees of it. */
#include "micro.h"

#ifdef EMC_HAVE_SINGLE
EMC_HIDDEN int EMC_NAME(gaussian_mixture_single)(const emc_gaussians *model, emc_panel *panel, double *stats,
                                                 double *loglik, double *work);
EMC_HIDDEN ptrdiff_t EMC_NAME(gaussian_mixture_work_single)(const emc_gaussians *model, ptrdiff_t n);
#define SINGLE(function) EMC_NAME(function)
#else
#define SINGLE(function) NULL
#endif

EMC_HIDDEN extern const emc_table EMC_NAME(emc_table);

const emc_table EMC_NAME(emc_table) = {
    .size = sizeof(emc_table),
    .abi = EMC_ABI,
    .lanes = V_LANES,
    .name = EMC_STRING(EMC_TARGET),
    .pack_rows = EMC_NAME(pack_rows),
    .pack_weights = EMC_NAME(pack_weights),
    .unpack = EMC_NAME(unpack),
    .sqdist_tri = EMC_NAME(sqdist_tri),
    .sqdist_diag = EMC_NAME(sqdist_diag),
    .normalize_rows = EMC_NAME(normalize_rows),
    .column_mass = EMC_NAME(column_mass),
    .weighted_sum = EMC_NAME(weighted_sum),
    .weighted_gram = EMC_NAME(weighted_gram),
    .weighted_squares = EMC_NAME(weighted_squares),
    .vexp = EMC_NAME(vexp),
    .vlog = EMC_NAME(vlog),
    .gaussian_mixture = EMC_NAME(gaussian_mixture),
    .gaussian_mixture_work = EMC_NAME(gaussian_mixture_work),
    .gaussian_mixture_single = SINGLE(gaussian_mixture_single),
    .gaussian_mixture_work_single = SINGLE(gaussian_mixture_work_single),
    .affine = EMC_NAME(affine),
    .weighted_moments = EMC_NAME(weighted_moments),
    .whiten_tri = EMC_NAME(whiten_tri),
    .quadratic_tri = EMC_NAME(quadratic_tri),
    .quadratic_diag = EMC_NAME(quadratic_diag),
    .normalize_rows_dot = EMC_NAME(normalize_rows_dot),
    .factor_scores = EMC_NAME(factor_scores),
    .weighted_cross = EMC_NAME(weighted_cross),
    .poisson_rows = EMC_NAME(poisson_rows),
    .vexp_single = EMC_SINGLE_NAME(vexp),
    .vlog_single = EMC_SINGLE_NAME(vlog),
    .row_dots = EMC_NAME(row_dots),
    .row_sums = EMC_NAME(row_sums),
};
