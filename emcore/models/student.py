"""Mixtures of multivariate Student's t with known degrees of freedom.

A row is Gaussian given its component and a gamma variable u of mean 1 that multiplies its precision, so that rows far out count
less: with ``delta = (x - mu)' Sigma^-1 (x - mu)``, ``E u = (dof + d) / (dof + delta)``. The M-step is that of a Gaussian with
``h E u`` in the place of the responsibility h, but for the divisor of the scatter: ``N = sum h``, not ``W = sum h E u``.

What `q` is of: the joint density of row, component and u, plus the entropy of u given the former two. It touches the
log-likelihood's bound for rows whose components are known, so that value less q is the entropy of the responsibilities alone.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emcore._checks import floor, one_of, positive, whole
from emcore.kernels import StudentTri
from emcore.kernels.arrays import LOG_2PI
from emcore.models._base import Layout, Model, PartStats
from emcore.models._frame import Frame
from emcore.models._least_squares import lower, unpacked
from emcore.models._priors import Dirichlet, given_priors
from emcore.models.gaussian import EMPTY, TINY, MatrixGaussian
from emcore.models.mixture import Mixture

__all__ = ["ExpandedStudent", "Student", "StudentMixture"]

Array = NDArray[np.float64]

ABOVE = 1.0 + 1e-9  # times the floor: an eigenvalue above this was not clipped


class Student(MatrixGaussian):
    """Student's t in the frame. Statistics: ``[count k | mass k | sum k*d | scatter | spread k]``, as `StudentTri` has them.

    Parameters
    ----------
    k : int
    covariance : {"full", "tied"}
    reg : float
        Floor of the eigenvalues of the scale matrices, in frame units.
    dof : float
        Degrees of freedom.
    """

    def __init__(self, k: int, covariance: str, reg: float, dof: float):
        super().__init__(k, covariance, reg)
        self.dof = dof

    def _bound(self, frame: Frame, n_rows: int, float32: bool = False) -> Student:
        new = super()._bound(frame, n_rows, float32)
        d, half = new.d, 0.5 * self.dof
        new._log_norm0 += 0.5 * d * (LOG_2PI - math.log(math.pi * self.dof)) + math.lgamma(half + 0.5 * d) - math.lgamma(half)
        new._gaussian_size = new._layout.size
        new._layout = Layout({**new._layout.blocks, "spread": (self.k,)})
        return new

    def fused(self, latent: Any, latent_params: Any, params: Any) -> None:
        return None

    def _tri(self, params: Any, tangents: tuple[Array, Array, Array] | None) -> StudentTri:
        return StudentTri(*self._kernel_arrays(params), self.tied, tangents, dof=self.dof)

    def _noise(self, n: int, rng: np.random.Generator) -> Array:
        return super()._noise(n, rng) / np.sqrt(rng.chisquare(self.dof, size=(n, 1)) / self.dof)

    @property
    def _uneven(self) -> bool:
        return True

    def _counted(self, stats: PartStats) -> Array:
        """Return the counts, without u, that belong to each scale matrix, (m,)."""
        count = self.layout.view(stats.vector, "count")
        return count.sum(keepdims=True) if self.tied else count

    def _excess(self, stats: PartStats) -> Array:
        return self._counted(stats) - self._pooled_counts(stats)

    def _divisors(self, stats: PartStats) -> Array:
        return self._counted(stats)

    def _heavy(self, vector: Array) -> Array:
        heavy = vector[: self._gaussian_size].copy()
        heavy[: self.k] = heavy[self.k : 2 * self.k]
        return heavy

    def q(self, params: Any, stats: PartStats) -> float:
        count, spread = self._counted(stats).sum(), self.layout.view(stats.vector, "spread").sum()
        rest = (self.dof + self.d) * (count - spread) - self.dof * self._pooled_counts(stats).sum()
        return super().q(params, stats) + 0.5 * float(rest)


class ExpandedStudent(Student):
    """The same, u having any mean: one free parameter a for each scale matrix more, ``q`` maximised over it.

    Data do not tell scale matrix and a apart, and only their quotient is kept: a step ends at ``S / W``. `q` with the best a
    lies between that of `Student` and the log-likelihood and touches both where they touch: gradients are the same.

    Where a scale matrix would fall below its floor, and where something is fixed, the step is that of `Student`: `q` rises, but
    not to its maximum.
    """

    provides: ClassVar[frozenset[str]] = Student.provides - {"sparse"}
    lacks = MappingProxyType({"sparse": "its q is maximised over a parameter more, and is not of responsibilities alone"})

    def _trace(self, params: Any, stats: PartStats) -> Array:
        """Return ``tr(Sigma^-1 S)`` for each scale matrix, S about the means, (m,)."""
        second = self._moments(self.recentre(stats, params.means.ravel()))[2]
        inverse = self._inverse_factors(params.covariances)
        rows, cols = lower(self.d)
        P = (inverse.transpose(0, 2, 1) @ inverse)[:, rows, cols]
        return np.sum(np.where(rows == cols, 1.0, 2.0) * P * second, axis=1)

    def _mean_u(self, params: Any, stats: PartStats) -> Array:
        """Return the best a of each scale matrix, (m,): 1 at the parameters that the statistics are of."""
        twice = (self.dof + self.d) * np.maximum(self._counted(stats), TINY)
        ratio = (self._trace(params, stats) + self.dof * self._pooled_counts(stats)) / twice
        return np.where(self._full(stats), ratio, 1.0)

    def _full(self, stats: PartStats) -> NDArray[np.bool_]:
        """Return which scale matrices have rows, (m,)."""
        return self._pooled_counts(stats) > EMPTY * stats.weight

    def _counts_ratio(self, stats: PartStats) -> Array:
        """Return N / W of each scale matrix, (m,); 1 without rows."""
        full = self._full(stats)
        return np.where(full, self._counted(stats) / np.where(full, self._pooled_counts(stats), 1.0), 1.0)

    def m_step(self, params: Any, stats: PartStats) -> Any:
        plain = super().m_step(params, stats)
        if self.fixed:
            return plain
        batch, ratio = self._batch(plain.covariances), self._counts_ratio(stats)
        if self.reg > 0:
            lowest = self._lowest(plain.covariances)
            ratio = np.where(np.minimum(lowest, lowest * ratio) > ABOVE * self.reg, ratio, 1.0)
        return plain._replace(covariances=(batch * ratio[:, None, None]).reshape(plain.covariances.shape))

    def q(self, params: Any, stats: PartStats) -> float:
        a = self._mean_u(params, stats)
        gained = 0.5 * (self.dof + self.d) * self._counted(stats) * (a - 1.0 - np.log(a))
        return super().q(params, stats) + float(gained.sum())

    def _weighed(self, vector: Array, by: Array) -> Array:
        """Return the statistics that have u in them times one number for each scale matrix, beside the others."""
        new = vector.copy()
        for name in ("mass", "sum", "second"):
            block = self.layout.view(new, name)
            block *= by.reshape(-1, *(1,) * (block.ndim - 1))  # one for all where tied
        return new

    def score(self, params: Any, stats: PartStats) -> Any:
        a = self._mean_u(params, stats)
        return super().score(params, stats._replace(vector=self._weighed(stats.vector, 1 / a)))

    def linear_score(self, params: Any, stats: PartStats) -> Any:
        return super().score(params, stats)

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        # That of Student at u / a, and what the change of a along v makes of u / a: a' = tr(P S)' / ((dof + d) W).
        a = self._mean_u(params, stats)
        _, total, second = self._moments(self.recentre(stats, params.means.ravel()))
        inverse = self._inverse_factors(params.covariances)
        P = inverse.transpose(0, 2, 1) @ inverse
        moved = np.einsum("cij,cjk,cki->c", P @ self._batch(v.covariances), P, unpacked(second, self.d))
        along = 2.0 * np.einsum("ci,cij,cj->c", total, np.broadcast_to(P, (self.k, self.d, self.d)), v.means)
        moved += along.sum(keepdims=True) if self.tied else along
        change = -moved / ((self.dof + self.d) * np.maximum(self._counted(stats), TINY))
        rest = self._weighed(stats.vector, np.where(self._full(stats), -change / a**2, 0.0))
        for name in ("count", "spread"):
            self.layout.view(rest, name)[:] = 0.0
        held = super().q_hvp(params, stats._replace(vector=self._weighed(stats.vector, 1 / a)), v)
        return self.params(*map(np.add, held, super().score(params, stats._replace(vector=rest, weight=0.0))))

    def linear_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        return super().q_hvp(params, stats, v)

    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        p, batch = super().metric(params, stats, g), self._batch(params.covariances)
        counted = np.maximum(self._divisors(stats), max(EMPTY * stats.weight, TINY))
        traces = np.einsum("cij,cij->c", batch, self._batch(g.covariances)) * 2.0 / (self.dof * counted)
        return p._replace(covariances=p.covariances + (traces[:, None, None] * batch).reshape(p.covariances.shape))

    def correction(self, params: Any, stats: PartStats) -> Any:
        ratio, counted = self._counts_ratio(stats), np.maximum(self._counted(stats), TINY)
        moves, masses = self._moves(params, stats), self._moments(stats)[0]
        outer = masses[:, None, None] * moves[:, :, None] * moves[:, None, :]
        outer = (outer.sum(axis=0, keepdims=True) if self.tied else outer) * (ratio / counted)[:, None, None]
        second = self._moments(self.recentre(stats, params.means.ravel()))[2]
        B = np.zeros_like(outer)
        rows, cols = lower(self.d)
        B[:, rows, cols] = B[:, cols, rows] = second / counted[:, None]
        shrink = (self._trace(params, stats) / counted - self.d) / self.dof
        change = (ratio - 1.0)[:, None, None] * B - shrink[:, None, None] * self._batch(params.covariances) - outer
        return self.params(np.zeros_like(moves), change.reshape(params.covariances.shape))


def StudentMixture(  # noqa: N802
    n_components: int,
    dof: float = 4.0,
    covariance: str = "full",
    *,
    expanded: bool = False,
    reg: float = 1e-6,
    weights_prior: Dirichlet | None = None,
) -> Model:
    """Return the model of a mixture of multivariate Student's t, for data with rows far out.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    dof : float
        Degrees of freedom, positive and known, the same for all components.
    covariance : {"full", "tied"}
        One scale matrix a component, ``covariances`` (k, d, d), or one for all, (d, d). Covariances are these times
        ``dof / (dof - 2)`` for dof above 2.
    expanded : bool
        Whether EM is the parameter-expanded one (PX-EM), which divides the scatter by the sum of the expected weights of rows
        and not by their number: the same maximum in fewer steps, the more so the smaller `dof` is. P is then that of the
        expanded model.
    reg : float
        Floor of the scale matrices, as in `GaussianMixture`. Rows far out widen its unit, the variances of the columns: lower
        it for them.
    weights_prior : Dirichlet, optional
        Of the weights.

    Returns
    -------
    Model
        Parameters ``weights`` (k,), ``means`` (k, d), ``covariances``.

    Raises
    ------
    ValueError, TypeError

    Notes
    -----
    Peel and McLachlan (2000), Statistics and Computing 10, and, for the expanded form, Liu, Rubin and Wu (1998), Biometrika 85.
    """
    k = whole("n_components", n_components)
    dof = positive("dof", dof)
    one_of("covariance", covariance, ("full", "tied"))
    reg = floor(reg)
    if not isinstance(expanded, (bool, np.bool_)):
        raise TypeError(f"expanded must be True or False, got {expanded!r}")
    kind = ExpandedStudent if expanded else Student
    options = {"n_components": k, "dof": dof, "covariance": covariance, "reg": reg} | given_priors(None, weights_prior)
    if expanded:
        options["expanded"] = True
    return Model(Mixture(k, weights_prior), kind(k, covariance, reg, dof), name="StudentMixture", options=options)
