/* The table of this target: the only thing that the dispatch sees of it. */
#include "micro.h"

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
};
