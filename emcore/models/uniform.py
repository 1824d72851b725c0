"""A uniform component whose endpoint is unknown: the model for which Fisher's identity fails."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import positive
from emcore.kernels import Tallied
from emcore.kernels import Uniform as UniformKernel
from emcore.models import _rows
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array
from emcore.models._charts import Unit
from emcore.models.mixture import Mixture
from emcore.result import Breakdown, Failure, Status, SupportError

if TYPE_CHECKING:
    from emcore.data import DataSource
    from emcore.kernels import Kernel

__all__ = ["Uniform", "UniformMixture"]

Array = NDArray[np.float64]


class Endpoint(Unit):
    """Numbers between 0 and a known end."""

    def __init__(self, upper: float):
        super().__init__((1,))
        self.upper = upper

    def forward(self, t: Array) -> Array:
        return self.upper * super().forward(t)

    def inverse(self, x: Array) -> Array:
        return super().inverse(x / self.upper)

    def _slope(self, t: Array) -> Array:
        return self.upper * super()._slope(t)

    def curvature(self, t: Array, x: Array, g: Array, v: Array) -> Array:
        return super().curvature(t, x / self.upper, g, v)

    def contains(self, x: Array) -> bool:
        return super().contains(x / self.upper)

    @property
    def bounds(self) -> tuple[Array, Array]:
        return np.zeros(1), np.full(1, self.upper)


class Uniform(Part):
    """Two uniform components on [0, endpoint] and [0, upper]: ``endpoint`` (1,) unknown, upper known.

    Statistics: ``[count 2]``, about the endpoint at which they were collected: the rows above it have no part in the first
    count, and those below are all in. So the M-step is the largest row that is not above that endpoint; `q` is -inf below this
    row. The score is the derivative of `q` from the right, ``-N_0 / endpoint``, which is not the slope of the log-likelihood.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient"})
    moving_support = ("endpoint",)
    k, d = 2, 1
    one_column = "numbers from 0 to upper"
    _values: Array  # sorted, each value once

    def __init__(self, upper: float):
        self.upper = positive("upper", upper)
        self._fields = (Field("endpoint", (1,), Endpoint(self.upper), by_state=False),)
        self._layout = Layout({"count": (2,)})

    def bind(self, source: DataSource) -> Uniform:
        self.check(source)
        kept = [_rows.kept(source.block(i))[:, 0] for i in range(source.n_blocks)]
        return self._bound(np.unique(np.concatenate(kept).astype(np.float64)))

    def _bound(self, rows: Array) -> Uniform:
        new = copy.copy(self)
        new._values = rows
        return new

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {"rows": self._values}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> Uniform:
        return self._bound(state["rows"])

    def sized(self, given: Mapping[str, Any]) -> Uniform:
        return self._bound(np.empty(0))

    def check(self, source: DataSource) -> None:
        _rows.refuse(source, lambda rows: ~((rows >= 0) & (rows <= self.upper)), f"numbers from 0 to upper={self.upper:g}")

    def initial(self) -> Any:
        return self.params(np.array([0.5 * self.upper]))

    def kernel(self, params: Any) -> UniformKernel:
        end = float(params.endpoint[0])
        if not 0 < end <= self.upper:
            raise Breakdown(Failure(Status.OUTSIDE, "endpoint", detail=f"It is {end:g}."))
        return UniformKernel([end, self.upper])

    def fused(self, latent: Part, latent_params: Any, params: Any) -> Kernel | None:
        return Tallied(latent.kernel(latent_params), self.kernel(params)) if isinstance(latent, Mixture) else None

    def origin(self, params: Any) -> Array:
        return params.endpoint.copy()

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        if not np.array_equal(stats.origin, new):
            raise SupportError(
                "statistics about one endpoint are none about another: which rows have a density depends on endpoint, and how "
                "many lie between is not in them"
            )
        return stats

    def _last(self, stats: PartStats) -> float:
        """Return the largest row that the first component can have had, or 0."""
        below = int(np.searchsorted(self._values, stats.origin[0], side="right"))
        return float(self._values[below - 1]) if below and stats.vector[0] > 0 else 0.0

    def m_step(self, params: Any, stats: PartStats) -> Any:
        last = self._last(stats)
        return params if last <= 0 or "endpoint" in self.fixed else self.params(np.array([last]))

    def q(self, params: Any, stats: PartStats) -> float:
        n, rest = stats.vector
        if params.endpoint[0] < self._last(stats):
            return -math.inf
        return float(-n * math.log(params.endpoint[0]) - rest * math.log(self.upper))

    def score(self, params: Any, stats: PartStats) -> Any:
        return self.params(-stats.vector[:1] / params.endpoint)

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        return self.params(np.zeros(1))  # EM's step in the endpoint is no gradient's

    def permuted(self, params: Any, order: Any) -> Any:
        return params

    def places(self, params: Any) -> Array:
        return np.array([[params.endpoint[0]], [1e12 * self.upper]])  # the components never change places

    def from_user(self, given: Mapping[str, Any]) -> Any:
        endpoint = given_array(given, "endpoint", {"": (1,)})
        if not 0 < endpoint[0] < self.upper:
            raise ValueError(f"start: endpoint must lie between 0 and upper={self.upper:g}, got {endpoint[0]:g}")
        return self.params(endpoint)

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> Array:
        return rng.uniform(0.0, np.array([params.endpoint[0], self.upper])[of])[:, None]


def UniformMixture(upper: float) -> Model:  # noqa: N802
    """Return the model of rows uniform on [0, endpoint] or on [0, upper], of which upper is known.

    Parameters
    ----------
    upper : float
        Above the endpoint.

    Returns
    -------
    Model
        Parameters ``weights`` (2,), ``endpoint`` (1,).

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Its support depends on the endpoint, so that solver "em" runs on it, and "auto" as EM alone; all others raise
    `emcore.SupportError`. EM freezes in one step, at the largest row that is not above its start. To fit the endpoint, compare
    the log-likelihoods of fits with it fixed at one row after the other, ``fixed={"endpoint": True}``: those may use any
    solver that needs no gradient of it.
    Binding keeps the sorted rows.
    """
    emission = Uniform(upper)
    return Model(Mixture(2), emission, name="UniformMixture", options={"upper": emission.upper})
