"""One pass over a block of rows: emissions, latents, and `run`; and the same for Gaussian mixtures on plain arrays."""

import os

from emcore.kernels._base import (
    Coupled,
    Emission,
    Kernel,
    Latent,
    Sums,
    abi,
    all_finite,
    cut,
    run,
    select_target,
    single_lanes,
    table_capsule,
    target,
    targets,
    threaded,
)  # fmt: skip
from emcore.kernels.arrays import COVARIANCES, Statistics, log_density, responsibilities, statistics
from emcore.kernels.gaussian import GaussianDiag, GaussianTri
from emcore.kernels.gaussian_mixture import GaussianMixture
from emcore.kernels.given import Given
from emcore.kernels.mixture import Mixture, log_weights
from emcore.kernels.poisson import Poisson

__all__ = [
    "COVARIANCES", "Coupled", "Emission", "GaussianDiag", "GaussianMixture", "GaussianTri", "Given", "Kernel", "Latent",
    "Mixture", "Poisson", "Statistics", "Sums",
    "abi", "all_finite", "cut", "log_density", "log_weights", "responsibilities", "run", "select_target", "single_lanes",
    "statistics", "table_capsule", "target", "targets", "threaded",
]  # fmt: skip

if os.environ.get("EMCORE_CPU"):
    select_target(os.environ["EMCORE_CPU"])
