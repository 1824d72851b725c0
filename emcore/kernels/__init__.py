"""One pass over a block of rows: emissions, latents, and `run`."""

import os

from emcore.kernels._base import (
    Coupled,
    Emission,
    Kernel,
    Latent,
    Sums,
    all_finite,
    cut,
    run,
    select_target,
    single_lanes,
    target,
    targets,
    threaded,
)  # fmt: skip
from emcore.kernels.gaussian import GaussianDiag, GaussianTri
from emcore.kernels.gaussian_mixture import GaussianMixture
from emcore.kernels.given import Given
from emcore.kernels.mixture import Mixture, log_weights

__all__ = [
    "Coupled", "Emission", "GaussianDiag", "GaussianMixture", "GaussianTri", "Given", "Kernel", "Latent", "Mixture",
    "Sums",
    "all_finite", "cut", "log_weights", "run", "select_target", "single_lanes", "target", "targets", "threaded",
]  # fmt: skip

if os.environ.get("EMCORE_CPU"):
    select_target(os.environ["EMCORE_CPU"])
