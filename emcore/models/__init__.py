"""Models: statistics in, update and gradient out."""

from collections.abc import Mapping
from typing import Any

from emcore.models._base import Coordinates, Field, Layout, Model, Part, PartStats
from emcore.models._charts import SPD, Chart, Frozen, Positive, Real, Simplex
from emcore.models._frame import Frame
from emcore.models._priors import Dirichlet, Gamma, NormalInverseGamma, NormalInverseWishart, Prior, fraley_raftery, from_plain
from emcore.models.gaussian import COVARIANCES, GaussianMixture
from emcore.models.mixture import Mixture
from emcore.models.poisson import Poisson, PoissonMixture

__all__ = [
    "COVARIANCES", "SPD", "Chart", "Coordinates", "Dirichlet", "Field", "Frame", "Frozen", "Gamma", "GaussianMixture", "Layout",
    "Mixture", "Model",
    "NormalInverseGamma", "NormalInverseWishart",
    "Part", "PartStats", "Poisson", "PoissonMixture", "Positive", "Prior", "Real", "Simplex", "build", "fraley_raftery",
]  # fmt: skip

_FACTORIES = {factory.__name__: factory for factory in (GaussianMixture, PoissonMixture)}


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
