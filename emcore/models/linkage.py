"""The linkage of Dempster, Laird and Rubin (1977), the first example of EM: four cells, one of them the sum of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, log
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore.kernels import Categorical, Tallied, all_finite
from emcore.kernels.proportions import expected_log
from emcore.models import _rows
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array
from emcore.models._charts import BELOW_ONE, Unit
from emcore.models.mixture import KnownWeights, Mixture
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import DataSource
    from emcore.kernels import Kernel

__all__ = ["Linkage", "LinkageCells"]

Array = NDArray[np.float64]

CELLS = 4
CELL_ROWS = "cells 0, 1, 2 or 3 (how many animals a cell had is its sample_weight, as in emcore.data.linkage())"
LINKED, UNLINKED = np.array([0, 3]), np.array([1, 2])  # of the second state, with probabilities theta / 2 and (1 - theta) / 2
NEGLIGIBLE = 1e-10  # a probability this near to 0 or 1 is reported as being there


class LinkageCells(Part):
    """The cell of each row: 0 in the first state; in the second 0 or 3, each ``theta / 2``, 1 or 2, each ``(1 - theta) / 2``.

    Statistics: ``[count 2 | symbol 4*2]``. With a rows of the second state in the cells 0 and 3 and b in 1 and 2, theta has the
    M-step ``a / (a + b)``, score ``a / theta - b / (1 - theta)`` and metric ``theta (1 - theta) / (a + b)``, with which the EM
    step is ``P score`` exactly.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent"})
    several = True
    k, d = 2, 1
    one_column = "the cell of each row, 0 to 3, and sample_weight how many animals it had, as in emcore.data.linkage()"
    _layout = Layout({"count": (2,), "symbol": (CELLS, 2)})
    _fields = (Field("theta", (1,), Unit((1,)), by_state=False),)

    def bind(self, source: DataSource) -> LinkageCells:
        self.check(source)
        return self

    def check(self, source: DataSource) -> None:
        _rows.refuse(source, lambda rows: _rows.not_whole(rows) | (rows >= CELLS), CELL_ROWS)

    def initial(self) -> Any:
        return self.params(np.array([0.5]))

    def kernel(self, params: Any) -> Categorical:
        return self._kernel(params)

    def fused(self, latent: Part, latent_params: Any, params: Any) -> Kernel | None:
        return Tallied(latent.kernel(latent_params), self.kernel(params)) if isinstance(latent, Mixture) else None

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> Categorical:
        return self._kernel(params, directions)

    def _kernel(self, params: Any, directions: Sequence[Any] = ()) -> Categorical:
        if not all_finite(params.theta):
            raise Breakdown(Failure(Status.NON_FINITE, "theta"))
        shares = self._shares(params)
        linked, unlinked = (log(0.5 * p) if p > 0 else -inf for p in shares.tolist())
        table = np.array([[[0.0, -inf, -inf, -inf]], [[linked, unlinked, unlinked, linked]]])
        if not directions:
            return Categorical(table)
        tangents = np.zeros((len(directions), 2, 1, CELLS))
        for cells, p, sign in ((LINKED, shares[0], 1.0), (UNLINKED, shares[1], -1.0)):
            if p > 0:
                tangents[:, 1, 0, cells] = sign * np.array([v.theta for v in directions]) / p
        return Categorical(table, tangents)

    def _counts(self, stats: PartStats) -> Array:
        """Return the expected rows of the second state that are linked and that are not, (2,)."""
        first, second, third, fourth = self.layout.view(stats.vector, "symbol")[:, 1].tolist()
        return np.array([first + fourth, second + third])  # of LINKED, of UNLINKED

    def _shares(self, params: Any) -> Array:
        return np.array([params.theta[0], 1.0 - params.theta[0]])

    def m_step(self, params: Any, stats: PartStats) -> Any:
        linked, unlinked = self._counts(stats).tolist()
        if not linked + unlinked > 0:
            return params
        return self.params(np.array([min(linked / (linked + unlinked), BELOW_ONE if unlinked > 0 else 1.0)]))

    def q(self, params: Any, stats: PartStats) -> float:
        return expected_log(self._counts(stats), 0.5 * self._shares(params))

    def score(self, params: Any, stats: PartStats) -> Any:
        linked, unlinked = self._within(stats, params)
        return self.params(np.array([linked - unlinked]))

    def _within(self, stats: PartStats, params: Any, power: int = 1) -> Array:
        """Return the counts over a power of their shares; 0 at a limit, where nothing moves."""
        counts, shares = self._counts(stats), self._shares(params)
        return np.divide(counts, shares**power, out=np.zeros(2), where=shares > 0)

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        return self.params(-self._within(stats, params, 2).sum() * v.theta)

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        total = self._counts(stats).sum()
        return self.params(params.theta * (1.0 - params.theta) * g.theta / (total if total > 0 else 1.0))

    def from_user(self, given: Mapping[str, Any]) -> Any:
        theta = given_array(given, "theta", {"": (1,), "a number": ()}).reshape(1)
        if not 0 <= theta[0] <= 1:
            raise ValueError(f"start: theta must be from 0 to 1, got {theta[0]}")
        return self.params(theta)

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> NDArray[np.int64]:
        linked = rng.random(len(of)) < params.theta[0]
        cells = np.where(linked, LINKED[:, None], UNLINKED[:, None])[rng.integers(2, size=len(of)), np.arange(len(of))]
        return np.where(of == 0, 0, cells)[:, None].astype(np.int64)

    def boundary(self, params: Any) -> tuple[str, ...]:
        near = self._shares(params) <= NEGLIGIBLE
        return tuple(f"theta is {value}" for value, low in enumerate(near) if low)


def Linkage() -> Model:  # noqa: N802
    """Return the linkage model: four cells with probabilities ``1/2 + theta/4, (1 - theta)/4, (1 - theta)/4, theta/4``.

    Returns
    -------
    Model
        Parameter ``theta`` (1,), between 0 and 1. Rows hold the cell of an animal, 0, 1, 2 or 3, in one column; weights say how
        many animals there were. The latent variable says whether an animal of the first cell belongs to its known half or not.

    Notes
    -----
    Rao (1965); Dempster, Laird and Rubin (1977), section 1. The data: `emcore.data.linkage`. Values are those of the cells one
    by one, without the multinomial coefficient.
    """
    return Model(KnownWeights(np.array([0.5, 0.5])), LinkageCells(), name="Linkage")
