"""Models: statistics in, update and gradient out."""

from collections.abc import Mapping
from typing import Any

from emcore.models._base import Coordinates, Field, Layout, Model, Part, PartStats, given_array
from emcore.models._charts import SPD, Chart, Frozen, Positive, Real, Simplex, Stacked, Unit
from emcore.models._frame import Frame
from emcore.models._priors import (
    Beta,
    Dirichlet,
    Gamma,
    NormalInverseGamma,
    NormalInverseWishart,
    Prior,
    fraley_raftery,
    from_plain,
)
from emcore.models.bernoulli import BernoulliMixture
from emcore.models.categorical import CategoricalMixture
from emcore.models.factors import FactorAnalysis, FactorMixture, factor_scores, lower_loadings
from emcore.models.gating import Gating
from emcore.models.gaussian import COVARIANCES, GaussianMixture
from emcore.models.known_variance import KnownVarianceMixture, SymmetricGaussianMixture
from emcore.models.linkage import Linkage
from emcore.models.missing import MissingRegression
from emcore.models.missing_gaussian import implied_regression
from emcore.models.mixture import KnownWeights, Mixture
from emcore.models.multinomial import MultinomialMixture
from emcore.models.poisson import Poisson, PoissonMixture
from emcore.models.poisson_inverse import PoissonInverse
from emcore.models.regression import RegressionMixture, SymmetricRegressionMixture
from emcore.models.student import StudentMixture
from emcore.models.uniform import UniformMixture
from emcore.models.user import UserMixture

__all__ = [
    "COVARIANCES", "SPD", "BernoulliMixture", "Beta", "CategoricalMixture", "Chart", "Coordinates", "Dirichlet",
    "FactorAnalysis", "FactorMixture", "Field", "Frame", "Frozen", "Gamma", "Gating", "GaussianMixture",
    "KnownVarianceMixture", "KnownWeights", "Layout", "Linkage", "MissingRegression", "Mixture", "Model", "MultinomialMixture",
    "NormalInverseGamma", "NormalInverseWishart",
    "Part", "PartStats", "Poisson", "PoissonInverse", "PoissonMixture", "Positive", "Prior", "Real",
    "RegressionMixture", "Simplex", "Stacked", "StudentMixture", "SymmetricGaussianMixture", "SymmetricRegressionMixture",
    "UniformMixture", "Unit", "UserMixture", "build", "factor_scores", "fraley_raftery", "given_array",
    "implied_regression", "lower_loadings",
]  # fmt: skip

_FACTORIES = {factory.__name__: factory for factory in (
    BernoulliMixture, CategoricalMixture, FactorAnalysis, FactorMixture, GaussianMixture, KnownVarianceMixture, Linkage,
    MissingRegression, MultinomialMixture, PoissonInverse, PoissonMixture, RegressionMixture, StudentMixture,
    SymmetricGaussianMixture, SymmetricRegressionMixture, UniformMixture,
)}  # fmt: skip
NAMES = frozenset(_FACTORIES)  # that `build` knows


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
