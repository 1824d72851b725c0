"""The gating latent: mixture weights that are a softmax of linear functions of the covariates (Jordan and Jacobs 1994).

The expected complete-data log-likelihood of the coefficients g, ``sum h_c log pi_c(x; g)``, has no fixed sufficient statistics
and no closed-form maximum. Its curvature is bounded, for each row by ``(I - 11'/k) / 2 (x) x x'`` whatever g is (Böhning 1992),
so that with the value and the gradient at g a quadratic is known that touches it there and lies below it everywhere. That
quadratic stands for it here: `q`, M-step, score and metric are its own. The M-step is then one Newton step with the bound in
place of the curvature, never lowers the log-likelihood, and the fixed points are the same; quadratics have statistics, and add.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore.kernels import Gating as GatingKernel
from emcore.kernels import all_finite
from emcore.models._base import Field, Layout, Part, PartStats, given_array
from emcore.models._charts import Real
from emcore.models._frame import Frame
from emcore.models._least_squares import NormalEquations, covariates, unpacked
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from emcore.data import DataSource

__all__ = ["Gating"]

Array = NDArray[np.float64]


class Gating(Part):
    """k states with weights by covariates: ``gate`` (k - 1, d + 1), the intercepts first, against the last state.

    Statistics: ``[count k | value 1 | residual k-1 | cross (k-1)*d | weight 1 | sum d | gram d*(d+1)/2]`` about the gate of
    the pass. With M the Gram matrix of (1, x) and g the sums of ``(h - pi) (1, x)`` the score is g, the curvature
    ``B = (I - 11'/k) / 2 (x) M``, the metric its inverse, with which the step is P times the score exactly.

    Parameters
    ----------
    k : int
    centred : bool
        Whether rows come shifted by their means, as those of the emission beside it.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"em", "gradient", "metric", "tangent"})
    several = True
    lacks = MappingProxyType({"sparse": "responsibilities are held only beside weights that are the same for all rows"})
    d: int
    shift: Array
    scale: Array

    def __init__(self, k: int, centred: bool):
        self.k, self.centred = k, centred

    def bind(self, source: DataSource) -> Gating:
        frame = Frame.of(source)
        return self._bound(frame.shift if self.centred else np.zeros_like(frame.shift), frame.scale)

    def _bound(self, shift: Array, scale: Array) -> Gating:
        new = copy.copy(self)
        new.shift, new.scale, new.d = shift, scale, len(shift)
        k, d, shape = self.k, new.d, (self.k - 1, new.d + 1)
        new._fields = (Field("gate", shape, Real(shape), by_state=False),)
        new._layout = Layout(
            {"count": (k,), "value": (1,), "residual": (k - 1,), "cross": (k - 1, d), "weight": (1,), "sum": (d,)}
            | {"gram": (1, d * (d + 1) // 2)}
        )
        return new

    def bound_state(self) -> dict[str, NDArray[Any]]:
        return {"gate_shift": self.shift, "gate_scale": self.scale}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> Gating:
        return self._bound(state["gate_shift"], state["gate_scale"])

    def freezing(self, fixed: Mapping[str, NDArray[np.bool_]]) -> Gating:
        mask = fixed.get("gate")
        if mask is not None and self.shift.any() and (mask[:, 0] & ~mask.all(axis=1)).any():
            raise ValueError("fixed: an intercept of the gate can be fixed only with all coefficients of its component")
        return super().freezing(fixed)

    def initial(self) -> Any:
        return self.params(np.zeros(self.fields[0].shape))

    def start(self, params: Any, counts: PartStats) -> Any:
        """Return the gate of constant weights with these expected counts, but for what is fixed."""
        share = np.maximum(counts.vector, 1e-6 * counts.weight)
        gate = np.zeros(self.fields[0].shape)
        gate[:, 0] = np.log(share[:-1] / share[-1])
        return self.params(np.where(self.fixed.get("gate", np.False_), params.gate, gate))

    def _kernel(self, params: Any, tangents: Any = None) -> GatingKernel:
        if not all_finite(params.gate):
            raise Breakdown(Failure(Status.NON_FINITE, "gate"))
        return GatingKernel(params.gate[:, 1:], params.gate[:, 0], tangents)

    def kernel(self, params: Any) -> GatingKernel:
        return self._kernel(params)

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> GatingKernel:
        moves = np.array([v.gate for v in directions])
        return self._kernel(params, (moves[:, :, 1:], moves[:, :, 0]))

    def origin(self, params: Any) -> Array:
        return params.gate.ravel()

    def _gram(self, stats: PartStats) -> Array:
        """Return M (d + 1, d + 1)."""
        view, vector = self.layout.view, stats.vector
        top = np.concatenate([view(vector, "weight"), view(vector, "sum")])
        return np.block([[top[:1, None], top[None, 1:]], [top[1:, None], unpacked(view(vector, "gram"), self.d)[0]]])

    def _bent(self, stats: PartStats, v: Array) -> Array:
        """Return B v for v (..., k - 1, d + 1)."""
        return 0.5 * (v - v.sum(axis=-2, keepdims=True) / self.k) @ self._gram(stats)

    def _solved(self, stats: PartStats, g: Array) -> Array:
        """Return ``B^-1 g`` for g (..., k - 1, d + 1), where something is fixed the inverse of the block of what is free."""
        mask = self.fixed.get("gate")
        if mask is None:
            gram = np.broadcast_to(self._gram(stats), (g.shape[-2], *(2 * (g.shape[-1],))))
            return NormalEquations(gram, g, g[..., 0]).solve(2.0 * (g + g.sum(axis=-2, keepdims=True)))
        among = 0.5 * (np.eye(g.shape[-2]) - 1.0 / self.k)
        whole = np.kron(among, self._gram(stats))[None]
        flat = g.reshape(*g.shape[:-2], 1, -1)
        return NormalEquations(whole, flat, flat[..., 0]).solve(flat, mask.reshape(1, -1)).reshape(g.shape)

    def _slope(self, params: Any, stats: PartStats) -> Array:
        """Return the gradient at `params` of the quadratic of the statistics, (k - 1, d + 1)."""
        view, vector = self.layout.view, stats.vector
        at_origin = np.concatenate([view(vector, "residual")[:, None], view(vector, "cross")], axis=1)
        delta = params.gate - stats.origin.reshape(params.gate.shape)
        return at_origin - self._bent(stats, delta) if delta.any() else at_origin

    def recentre(self, stats: PartStats, new: Array) -> PartStats:
        if np.array_equal(stats.origin, new):
            return stats
        at = self.params(new.reshape(self.fields[0].shape))
        slope, value = self._slope(at, stats), self.q(at, stats)
        vector = stats.vector.copy()
        self.layout.view(vector, "residual")[:], self.layout.view(vector, "cross")[:] = slope[:, 0], slope[:, 1:]
        self.layout.view(vector, "value")[:] = value
        return PartStats(vector, new, stats.weight)

    def m_step(self, params: Any, stats: PartStats) -> Any:
        return self.params(params.gate + self._solved(stats, self._slope(params, stats)))

    def q(self, params: Any, stats: PartStats) -> float:
        view, vector = self.layout.view, stats.vector
        at_origin = np.concatenate([view(vector, "residual")[:, None], view(vector, "cross")], axis=1)
        delta = params.gate - stats.origin.reshape(params.gate.shape)
        return float(view(vector, "value")[0] + np.sum(delta * (at_origin - 0.5 * self._bent(stats, delta))))

    def score(self, params: Any, stats: PartStats) -> Any:
        return self.params(self._slope(params, stats))

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        return self.params(-self._bent(stats, v.gate))

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        return self.params(self._solved(stats, g.gate))

    def permuted(self, params: Any, order: Sequence[int]) -> Any:
        whole = np.concatenate([params.gate, np.zeros((1, params.gate.shape[1]))])[list(order)]
        return self.params(whole[:-1] - whole[-1])

    def sized(self, given: Mapping[str, Any]) -> Gating:
        d = given_array(given, "gate", {"": (self.k - 1, "d + 1")}).shape[1] - 1
        return self._bound(np.zeros(d), np.ones(d))

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: Array | None = None) -> NDArray[np.intp]:
        logits = self._logits(params.gate, covariates(X, self.d))
        return np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)  # Gumbel's way to draw from a softmax

    def _logits(self, gate: Array, X: Array) -> Array:
        """Return what the softmax is taken of, (n, k)."""
        return np.concatenate([gate[:, 0] + X @ gate[:, 1:].T, np.zeros((len(X), 1))], axis=1)

    def prior_probabilities(self, user: Any, X: Array) -> Array:
        logits = self._logits(user.gate, X)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def to_user_tangent(self, v: Any) -> Any:
        slopes = v.gate[:, 1:] * self.scale
        return self.params(np.concatenate([(v.gate[:, 0] - slopes @ self.shift)[:, None], slopes], axis=1))

    def to_user(self, params: Any) -> Any:
        return self.to_user_tangent(params)

    def from_user(self, given: Mapping[str, Any]) -> Any:
        gate = given_array(given, "gate", {"the intercept first, one row less than components": self.fields[0].shape})
        intercepts = gate[:, 0] + gate[:, 1:] @ self.shift
        return self.params(np.concatenate([intercepts[:, None], gate[:, 1:] / self.scale], axis=1))
