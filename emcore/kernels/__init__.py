"""One pass over a block of rows: emissions, latents, and `run`; and the same for Gaussian mixtures on plain arrays."""

from importlib import import_module
from typing import Any

from emcore._vectors import all_finite
from emcore.kernels._base import (
    Coupled,
    Emission,
    Kernel,
    Latent,
    Sums,
    abi,
    cut,
    freeze,
    run,
    run_dot,
    select_target,
    single_lanes,
    table_capsule,
    target,
    targets,
    threaded,
)  # fmt: skip
from emcore.kernels.arrays import COVARIANCES, Statistics, log_density, responsibilities, statistics
from emcore.kernels.categorical import Categorical
from emcore.kernels.exponential_family import ExponentialFamily
from emcore.kernels.factors import FactorAnalyzers
from emcore.kernels.gating import Gating
from emcore.kernels.gaussian import GaussianDiag, GaussianTri, StudentTri
from emcore.kernels.gaussian_mixture import GaussianMixture
from emcore.kernels.given import Given
from emcore.kernels.information import MissingInformation, whole_information
from emcore.kernels.missing import MissingRegression
from emcore.kernels.missing_gaussian import MissingGaussian
from emcore.kernels.mixture import Mixture, SparseMixture, log_weights
from emcore.kernels.moments import Moments
from emcore.kernels.poisson_inverse import PoissonInverse
from emcore.kernels.regression import LinearRegression, SymmetricRegression
from emcore.kernels.tallied import Tallied
from emcore.kernels.threads import default_threads, serial_blas, thread_count
from emcore.kernels.uniform import Uniform
from emcore.kernels.user import Called

__all__ = [
    "COVARIANCES", "Called", "Categorical", "Coupled", "Emission", "ExponentialFamily",
    "FactorAnalyzers", "Gating",
    "GaussianDiag",
    "GaussianMixture", "GaussianTri", "Given", "Kernel", "Latent", "LinearRegression", "MissingGaussian",
    "MissingInformation", "MissingRegression", "Mixture", "Moments", "PoissonInverse", "SparseMixture",
    "Statistics", "StudentTri", "Sums", "SymmetricRegression", "Tallied", "Uniform",
    "abi", "all_finite", "cut", "default_threads", "freeze", "log_density",
    "log_weights", "responsibilities", "run", "run_dot", "select_target", "serial_blas", "single_lanes", "statistics",
    "table_capsule", "target", "targets", "thread_count", "threaded", "whole_information",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "gaussian_matrices":  # it loads SciPy, which a plain import does not need
        return import_module("emcore.kernels.gaussian_matrices")
    raise AttributeError(f"module 'emcore.kernels' has no attribute {name!r}")
