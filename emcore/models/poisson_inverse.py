"""Poisson counts with means that are known combinations of unknown intensities, which EM finds as Richardson and Lucy did."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import non_negative
from emcore.kernels import Coupled, all_finite
from emcore.kernels import PoissonInverse as InverseKernel
from emcore.kernels.proportions import expected_log, over
from emcore.models import _rows
from emcore.models._base import Field, Layout, Model, Part, PartStats, given_array
from emcore.models._charts import Positive
from emcore.models._priors import Gamma, checked
from emcore.models.mixture import KnownWeights
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import DataSource
    from emcore.kernels import Kernel

__all__ = ["Inverse", "PoissonInverse"]

Array = NDArray[np.float64]

NEGLIGIBLE = 1e-10  # an intensity below this part of the largest one is reported as being 0


class Inverse(Part):
    """``y_i ~ Poisson(K_i'x + background)``: ``intensities`` (d,), the x.

    Statistics: ``[count 1 | base 1 | expected d | sensitivity d]``. With S expected events of a source and A the sum of its
    column of K its intensity has the M-step ``S / A`` (Richardson 1972, Lucy 1974; Shepp and Vardi 1982), score ``S / x - A``
    and metric ``x / A``, with which the EM step is ``P score`` exactly. ``q`` leaves out ``sum S_ij log K_ij``, which depends
    on the statistics only: the entropy that goes with it is relative to K.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent"})
    several = True
    draws_given = "the matrix K, (n, d)"
    n_responses = 1
    k = 1
    d: int
    _level: float
    _largest: float
    _unseen: NDArray[np.intp]  # sources that no row sees

    def __init__(self, background: float = 0.0, prior: Gamma | None = None):
        self.background, self.prior = background, checked("prior", prior, Gamma)

    def bind(self, source: DataSource) -> Inverse:
        self.check(source)
        seen, events, largest = np.zeros(source.n_columns), 0.0, 0.0
        for i in range(source.n_blocks):
            for _, piece in source.block(i).pieces(source.n_columns):
                K, y = (_rows.kept(piece._replace(rows=(rows,))) for rows in piece.rows)
                seen += K.sum(axis=0, dtype=np.float64)
                events, largest = events + float(y.sum()), max(largest, float(y.max(initial=0)))
        level = events / seen.sum() if events > 0 and seen.any() else 1.0
        return self._bound(source.n_columns, level, largest, np.flatnonzero(seen == 0))

    def _bound(self, d: int, level: float, largest: float, unseen: NDArray[np.intp]) -> Inverse:
        new = copy.copy(self)
        new.d, new._level, new._largest, new._unseen = d, level, largest, unseen
        new._fields = (Field("intensities", (d,), Positive((d,)), by_state=False),)
        new._layout = Layout({"count": (1,), "base": (1,), "expected": (d,), "sensitivity": (d,)})
        return new

    def bound_state(self) -> dict[str, NDArray[Any]]:
        names = {"d": self.d, "level": self._level, "largest": self._largest, "unseen": self._unseen}
        return {name: np.asarray(value) for name, value in names.items()}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> Inverse:
        return self._bound(int(state["d"]), float(state["level"]), float(state["largest"]), state["unseen"])

    def sized(self, given: Mapping[str, Any]) -> Inverse:
        d = len(given_array(given, "intensities", {"": ("d",)}))
        return self._bound(d, 1.0, 1.0, np.empty(0, dtype=np.intp))

    def check(self, source: DataSource) -> None:
        for i in range(source.n_blocks):
            block = source.block(i)
            for part, piece in block.pieces(source.n_columns):
                K, y = piece.rows[0], piece.rows[1][:, 0]
                there = np.ones(len(y), dtype=bool) if piece.weights is None else piece.weights > 0
                for bad, what, allowed in (
                    ((K < 0).any(axis=1), "K", "numbers >= 0"),
                    (_rows.not_whole(y), "y", _rows.COUNTS),
                    ((y > 0) & ~K.any(axis=1) & (self.background == 0), "y", "no counts where K and the background are 0"),
                ):
                    wrong = np.flatnonzero(bad & there)
                    if len(wrong):
                        row = int(wrong[0])
                        found = K[row].min() if what == "K" else y[row]
                        where = f"row {source.row_of(i, part.start + row)}"
                        raise ValueError(f"{what} must hold {allowed}: {where} has {found}")

    def initial(self) -> Any:
        return self.params(np.full(self.d, self._level))

    def _pseudo_statistics(self) -> tuple[Array, Array, float]:
        a, b = self.prior.shape, self.prior.inverse_scale
        vector = np.concatenate([np.zeros(2), np.full(self.d, a - 1.0), np.full(self.d, b)])
        return vector, np.empty(0), self.d * (a * math.log(b) - math.lgamma(a))

    def _kernel(self, params: Any, tangents: Any = None) -> InverseKernel:
        if not all_finite(params.intensities):
            raise Breakdown(Failure(Status.NON_FINITE, "intensities"))
        return InverseKernel(params.intensities, self.background, tangents)

    def kernel(self, params: Any) -> InverseKernel:
        return self._kernel(params)

    def fused(self, latent: Part, latent_params: Any, params: Any) -> Kernel:
        kernel = self.kernel(params)
        return Coupled(latent.kernel(latent_params), kernel, kernel.panel_rows())

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> InverseKernel:
        return self._kernel(params, np.array([v.intensities for v in directions]))

    def _moments(self, stats: PartStats) -> tuple[Array, Array]:
        """Return the expected events of the sources and the sums of their columns of K."""
        return self.layout.view(stats.vector, "expected"), self.layout.view(stats.vector, "sensitivity")

    def m_step(self, params: Any, stats: PartStats) -> Any:
        events, seen = self._moments(stats)
        kept = (seen <= 0) | self.fixed.get("intensities", np.False_)
        return self.params(np.where(kept, params.intensities, events / np.where(seen > 0, seen, 1.0)))

    def q(self, params: Any, stats: PartStats) -> float:
        events, seen = self._moments(stats)
        base = float(self.layout.view(stats.vector, "base")[0])
        return expected_log(events, params.intensities) - float(seen @ params.intensities) + base

    def score(self, params: Any, stats: PartStats) -> Any:
        events, seen = self._moments(stats)
        return self.params(over(events, params.intensities) - seen)

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        events, _ = self._moments(stats)
        return self.params(-over(over(events, params.intensities) * v.intensities, params.intensities))

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        _, seen = self._moments(stats)
        return self.params(params.intensities * g.intensities / np.where(seen > 0, seen, 1.0))

    def from_user(self, given: Mapping[str, Any]) -> Any:
        x = given_array(given, "intensities", {"": (self.d,)})
        if (x < 0).any():
            raise ValueError(f"start: intensities must be >= 0, that of source {int(np.argmin(x))} is {x.min()}")
        return self.params(x)

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> NDArray[np.int64]:
        return rng.poisson(self.expected_responses(params, X)[:, 0])

    def expected_responses(self, user: Any, X: NDArray[Any]) -> Array:
        if X.shape[1] != self.d or (X < 0).any():
            raise ValueError(f"X must be {self.draws_given}, with {self.d} columns and numbers >= 0")
        return (X @ user.intensities + self.background)[:, None]

    def boundary(self, params: Any) -> tuple[str, ...]:
        low = (params.intensities <= NEGLIGIBLE * params.intensities.max()) & ~self.fixed.get("intensities", np.False_)
        return tuple(f"the intensity of source {j} is 0" for j in np.flatnonzero(low))

    def condition(self, params: Any) -> float:
        # What cancels in a log-density near its peak: the count times the logarithm of its mean, against its factorial.
        return max(1.0, self._largest * math.log(max(self._largest, 1.0)))

    def warnings(self) -> tuple[str, ...]:
        if not len(self._unseen):
            return ()
        return (f"K is 0 in {_rows.named(self._unseen)}: the intensities stay where they start",)


def PoissonInverse(background: float = 0.0, *, prior: Gamma | None = None) -> Model:  # noqa: N802
    """Return the model of a Poisson linear inverse problem: image deblurring, emission tomography.

    Parameters
    ----------
    background : float
        Known mean of what is counted beside the sources, at least 0.
    prior : Gamma, optional
        Of each intensity.

    Returns
    -------
    Model
        Parameter ``intensities`` (d,). Data are a pair ``(K, y)``: the matrix (n, d) of what each detector sees of each
        source, at least 0, and its counts (n,). An intensity may be 0: it sits at the boundary of the parameter space
        then, and the result says so.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    EM is the algorithm of Richardson (1972) and Lucy (1974), in tomography that of Shepp and Vardi (1982). K is data: no other
    array of its size is made. Draws need it, ``sample(..., X=K)``.
    """
    background = non_negative("background", background)
    options: dict[str, Any] = {} if background == 0 else {"background": background}
    if prior is not None:
        options["prior"] = prior
    return Model(KnownWeights(np.array([1.0])), Inverse(background, prior), name="PoissonInverse", options=options)
