"""Conjugate priors. They enter as pseudo-statistics, as if some data had been seen before, so that EM and the gradient climb
the same hill: the log-likelihood plus the logarithm of the prior density, constants included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcore._checks import finite_array, symmetric

__all__ = ["Beta", "Dirichlet", "Gamma", "NormalInverseGamma", "NormalInverseWishart", "Prior", "fraley_raftery", "from_plain"]

Array = NDArray[np.float64]


def _number(name: str, value: Any, least: float, *, strictly: bool = True) -> float:
    """Return a finite number above (or, not strictly, at) `least`, or raise."""
    number = float(finite_array(name, value, {"": ()}))
    if number < least or (strictly and number == least):
        raise ValueError(f"{name} must be {'>' if strictly else '>='} {least:g}, got {number:g}")
    return number


@dataclass(frozen=True)
class Prior:
    """Base of all priors: plain numbers and lists of them, so that they can be saved."""

    def plain(self) -> dict[str, Any]:
        """Return the prior as what JSON holds."""
        return {"prior": type(self).__name__, **asdict(self)}

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Beta(Prior):
    """Beta prior of each probability of a one, ``p^(ones - 1) (1 - p)^(zeros - 1)``.

    Parameters
    ----------
    ones, zeros : float
        At least 1; ``ones - 1`` ones and ``zeros - 1`` zeros seen before in each column of each component.
    """

    ones: float
    zeros: float

    def __post_init__(self) -> None:
        self._set("ones", _number("Beta: ones", self.ones, 1.0, strictly=False))
        self._set("zeros", _number("Beta: zeros", self.zeros, 1.0, strictly=False))


@dataclass(frozen=True)
class Dirichlet(Prior):
    """Dirichlet prior of probabilities that sum to 1 (the mixture weights, those of symbols), ``prod p^(concentration - 1)``.

    Parameters
    ----------
    concentration : float
        At least 1, which is no prior; ``concentration - 1`` seen before of each kind.
    """

    concentration: float

    def __post_init__(self) -> None:
        self._set("concentration", _number("Dirichlet: concentration", self.concentration, 1.0, strictly=False))


@dataclass(frozen=True)
class Gamma(Prior):
    """Gamma prior of each rate, ``rate^(shape - 1) exp(-inverse_scale rate)``.

    Parameters
    ----------
    shape : float
        At least 1; ``shape - 1`` events seen before.
    inverse_scale : float
        Above 0; the rows in which they were seen.
    """

    shape: float
    inverse_scale: float

    def __post_init__(self) -> None:
        self._set("shape", _number("Gamma: shape", self.shape, 1.0, strictly=False))
        self._set("inverse_scale", _number("Gamma: inverse_scale", self.inverse_scale, 0.0))


@dataclass(frozen=True)
class NormalInverseWishart(Prior):
    """Prior of means and full or tied covariances: ``Sigma ~ IW(dof, scale)``, each ``mean ~ N(mean, Sigma / strength)``.

    Parameters
    ----------
    mean : array_like (d,)
    strength : float
        Above 0; as many rows seen before at `mean`.
    dof : float
        Above d - 1.
    scale : array_like (d, d)
        Positive definite. All in the user's units.

    Notes
    -----
    The mode of a covariance alone is ``scale / (dof + d + 1)``; of mean and covariance together ``scale / (dof + d + 2)``.
    """

    mean: Any
    strength: float
    dof: float
    scale: Any

    def __post_init__(self) -> None:
        mean = finite_array("NormalInverseWishart: mean", self.mean, {"": ("d",)})
        d = len(mean)
        scale = symmetric("NormalInverseWishart: scale", finite_array("NormalInverseWishart: scale", self.scale, {"": (d, d)}))
        if not np.linalg.eigvalsh(scale)[0] > 0:
            raise ValueError("NormalInverseWishart: scale must be positive definite")
        self._set("mean", mean.tolist())
        self._set("scale", scale.tolist())
        self._set("strength", _number("NormalInverseWishart: strength", self.strength, 0.0))
        self._set("dof", _number("NormalInverseWishart: dof", self.dof, d - 1.0))


@dataclass(frozen=True)
class NormalInverseGamma(Prior):
    """Prior of means and variances, diagonal or spherical: ``v ~ IG(shape, scale)``, ``mean_j ~ N(mean_j, v / strength)``.

    Parameters
    ----------
    mean : array_like (d,)
    strength : float
        Above 0.
    shape : float
        Above 0.
    scale : array_like (d,) or float
        Above 0; of each column, or of all (a spherical component has one variance and takes one number). In the user's units.
    """

    mean: Any
    strength: float
    shape: float
    scale: Any

    def __post_init__(self) -> None:
        mean = finite_array("NormalInverseGamma: mean", self.mean, {"": ("d",)})
        scale = finite_array("NormalInverseGamma: scale", self.scale, {"": (), "one a column": (len(mean),)})
        if not (scale > 0).all():
            raise ValueError(f"NormalInverseGamma: scale must be > 0, got {scale.min():g}")
        self._set("mean", mean.tolist())
        self._set("scale", scale.tolist())
        self._set("strength", _number("NormalInverseGamma: strength", self.strength, 0.0))
        self._set("shape", _number("NormalInverseGamma: shape", self.shape, 0.0))


def fraley_raftery(rows: Array, k: int, covariance: str, strength: float = 0.01) -> NormalInverseWishart | NormalInverseGamma:
    """Return the prior of Fraley and Raftery (2007) for the Gaussian components of a mixture, made of the data.

    Parameters
    ----------
    rows : array_like (n, d)
        The data, or a sample of them.
    k : int
        Number of components.
    covariance : {"full", "tied", "diag", "spherical"}
    strength : float
        How many rows the prior of a mean is worth.

    Raises
    ------
    ValueError
        When the covariance of the rows is singular.

    Notes
    -----
    The mean is that of the rows, and a covariance follows an inverse Wishart distribution of d + 2 degrees of freedom whose
    scale is the covariance of the rows over ``k^(2/d)``: each component fills its share of the volume. For variances the same,
    of the diagonal (spherical: of its mean).
    """
    rows = np.asarray(rows, dtype=np.float64)
    d = rows.shape[1]
    mean, spread = rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False)) / k ** (2 / d)
    if covariance in ("full", "tied"):
        return NormalInverseWishart(mean=mean, strength=strength, dof=d + 2.0, scale=spread)
    scale = np.diagonal(spread) if covariance == "diag" else np.diagonal(spread).mean()
    return NormalInverseGamma(mean=mean, strength=strength, shape=0.5 * (d + 2.0), scale=0.5 * scale)


_KINDS = {kind.__name__: kind for kind in (Beta, Dirichlet, Gamma, NormalInverseGamma, NormalInverseWishart)}


def from_plain(value: Any) -> Any:
    """Return the prior that `Prior.plain` described, or the value itself."""
    if isinstance(value, Mapping) and "prior" in value:
        return _KINDS[value["prior"]](**{name: number for name, number in value.items() if name != "prior"})
    return value


def checked(name: str, prior: Any, *kinds: type[Prior]) -> Any:
    """Return a prior of one of the kinds, or None, or raise."""
    if prior is not None and not isinstance(prior, kinds):
        allowed = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be a {allowed} here, or None, got {prior!r}")
    return prior


def given_priors(prior: Prior | None, weights_prior: Prior | None) -> dict[str, Prior]:
    """Return the options that name the priors of a model, those that were given."""
    return {name: p for name, p in (("prior", prior), ("weights_prior", weights_prior)) if p is not None}
