"""The mixture latent: independent states, drawn with the mixture weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import proportions, whole
from emcore.kernels import Mixture as MixtureKernel
from emcore.kernels import SparseMixture, log_weights
from emcore.kernels.proportions import expected_log, moved, over
from emcore.models import _proportions
from emcore.models._base import Field, Layout, Part, PartStats, given_array
from emcore.models._charts import Simplex
from emcore.models._priors import Dirichlet, checked

if TYPE_CHECKING:
    from emcore.data import DataSource

__all__ = ["KnownWeights", "Mixture"]

ALL = np.ones(1)  # what weights sum to
NEGLIGIBLE = 1e-10  # a weight below this is reported as being 0


class Mixture(Part):
    """k components with weights on the simplex.

    Statistics: ``[count k]``. The weights have the multinomial's M-step ``N_k / N``, score ``N_k / weight_k`` and metric
    ``(diag(weights) - weights weights') / N`` (Xu and Jordan 1996, P_A).
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent", "sparse"})
    several = True

    def __init__(self, k: int, prior: Dirichlet | None = None):
        self.k = whole("n_components", k)
        self.prior = checked("weights_prior", prior, Dirichlet)
        self._layout = Layout({"count": (self.k,)})
        self._fields = (Field("weights", (self.k,), Simplex(self.k)),)

    def bind(self, source: DataSource) -> Mixture:
        return self

    def initial(self) -> Any:
        return self.params(np.full(self.k, 1.0 / self.k))

    def _pseudo_statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        a = self.prior.concentration
        constant = math.lgamma(self.k * a) - self.k * math.lgamma(a)
        return np.full(self.k, a - 1.0), np.empty(0), constant

    def with_prior(self, stats: PartStats) -> PartStats:
        both = super().with_prior(stats)
        if both is stats:
            return stats
        return both._replace(weight=stats.weight + self._share(stats) * float(self._pseudo.vector.sum()))

    def log_weights(self, params: Any) -> NDArray[np.float64]:
        """Return the logarithms of the weights, (k,)."""
        return log_weights(params.weights)

    def shares(self, params: Any) -> NDArray[np.float64]:
        return params.weights

    def kernel(self, params: Any) -> MixtureKernel:
        return MixtureKernel(self.log_weights(params))

    def sparse_kernel(
        self, params: Any, resp: NDArray[np.float64], entropies: NDArray[np.float64], least: float
    ) -> SparseMixture:
        return SparseMixture(self.log_weights(params), resp, entropies, least)

    def m_step(self, params: Any, stats: PartStats) -> Any:
        return self.params(_proportions.best(params.weights, stats.vector, fixed=self.fixed.get("weights")))

    def q(self, params: Any, stats: PartStats) -> float:
        return expected_log(stats.vector, params.weights)

    def score(self, params: Any, stats: PartStats) -> Any:
        return self.params(over(stats.vector, params.weights))

    def linear_scores(self, params: Any, stats: PartStats, vectors: NDArray[np.float64]) -> Any:
        return self.params(over(vectors, params.weights))

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> MixtureKernel:
        a, moves = params.weights, np.array([v.weights for v in directions])
        return MixtureKernel(log_weights(a), np.divide(moves, a, out=np.zeros(moves.shape), where=a > 0))

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        return self.params(-over(over(stats.vector, params.weights) * v.weights, params.weights))

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        a = params.weights
        if self.fixed:
            return self.params(_proportions.metric(a, stats.vector, g.weights, fixed=self.fixed["weights"]))
        return self.params(moved(a, ALL, g.weights) / stats.weight)

    def from_user(self, given: Mapping[str, Any]) -> Any:
        return self.params(proportions("start: weights", given_array(given, "weights", {"": (self.k,)})))

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> NDArray[np.intp]:
        return rng.choice(self.k, size=of, p=params.weights / params.weights.sum())

    def prior_probabilities(self, user: Any, X: NDArray[Any]) -> NDArray[np.float64]:
        return np.broadcast_to(user.weights, (len(X), self.k))

    def boundary(self, params: Any) -> tuple[str, ...]:
        low = params.weights < NEGLIGIBLE
        if not low.any():
            return ()
        low &= ~self.fixed.get("weights", np.False_)
        return tuple(f"the weight of component {c} is 0" for c in np.flatnonzero(low))


class KnownWeights(Mixture):
    """k components whose weights are known: no parameters.

    Parameters
    ----------
    weights : ndarray (k,)
        Of sum 1.
    """

    several = True

    def __init__(self, weights: NDArray[np.float64]):
        super().__init__(len(weights))
        self.weights, self._fields = weights, ()

    def initial(self) -> Any:
        return self.params()

    def log_weights(self, params: Any) -> NDArray[np.float64]:
        return log_weights(self.weights)

    def shares(self, params: Any) -> NDArray[np.float64]:
        return self.weights

    def prior_probabilities(self, user: Any, X: NDArray[Any]) -> NDArray[np.float64]:
        return np.broadcast_to(self.weights, (len(X), self.k))

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> MixtureKernel:
        return MixtureKernel(log_weights(self.weights), np.zeros((len(directions), self.k)))

    def m_step(self, params: Any, stats: PartStats) -> Any:
        return params

    def q(self, params: Any, stats: PartStats) -> float:
        return expected_log(stats.vector, self.weights)

    def score(self, params: Any, stats: PartStats) -> Any:
        return params

    def linear_scores(self, params: Any, stats: PartStats, vectors: NDArray[np.float64]) -> Any:
        return params

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        return params

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        return params

    def from_user(self, given: Mapping[str, Any]) -> Any:
        return self.params()

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> NDArray[np.intp]:
        return rng.choice(self.k, size=of, p=self.weights)

    def boundary(self, params: Any) -> tuple[str, ...]:
        return ()

    def places(self, params: Any) -> NDArray[np.float64]:
        # States of different weights never change places: so far apart is no difference of other parameters.
        return 1e12 * self.weights[:, None]
