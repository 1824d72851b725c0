"""Models: statistics in, update and gradient out."""

from collections.abc import Mapping
from typing import Any

from emcore.models._base import Coordinates, Field, Layout, Model, Part, PartStats
from emcore.models._charts import SPD, Chart, Frozen, Positive, Real, Simplex
from emcore.models._frame import Frame
from emcore.models._priors import Dirichlet, Gamma, NormalInverseGamma, NormalInverseWishart, Prior, from_plain
from emcore.models.gating import Gating
from emcore.models.gaussian import COVARIANCES, GaussianMixture
from emcore.models.known_variance import KnownVarianceMixture, SymmetricGaussianMixture
from emcore.models.missing import MissingRegression
from emcore.models.mixture import KnownWeights, Mixture
from emcore.models.poisson import Poisson, PoissonMixture
from emcore.models.regression import RegressionMixture, SymmetricRegressionMixture

__all__ = [
    "COVARIANCES", "SPD", "Chart", "Coordinates", "Dirichlet", "Field", "Frame", "Frozen", "Gamma", "Gating", "GaussianMixture",
    "KnownVarianceMixture", "KnownWeights", "Layout", "MissingRegression", "Mixture", "Model",
    "NormalInverseGamma", "NormalInverseWishart",
    "Part", "PartStats", "Poisson", "PoissonMixture", "Positive", "Prior", "Real",
    "RegressionMixture", "Simplex", "SymmetricGaussianMixture", "SymmetricRegressionMixture", "build",
]  # fmt: skip

_FACTORIES = {factory.__name__: factory for factory in (
    GaussianMixture, KnownVarianceMixture, MissingRegression, PoissonMixture, RegressionMixture, SymmetricGaussianMixture,
    SymmetricRegressionMixture,
)}  # fmt: skip


def build(name: str, options: Mapping[str, Any]) -> Model:
    """Return the model of this name with these options, as a saved fit names it.

    Raises
    ------
    ValueError
        When no model has this name.
    """
    if name not in _FACTORIES:
        raise ValueError(f"model {name!r} is unknown; known: {', '.join(_FACTORIES)}")
    return _FACTORIES[name](**{name: from_plain(value) for name, value in options.items()})
