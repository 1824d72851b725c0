"""How much the data say about the parameters: information, standard errors, and what of it is missing.

The complete data's information is minus the Hessian of q, the observed one minus that of the log-likelihood, both exact; their
difference is missing, because the latent variables are not seen. EM's rate in a direction is the fraction that is missing in
it, and the inverse of the observed information is the covariance of the estimates.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from emcore._cached import cached_property
from emcore.diagnostics._common import SETTLED, check_inside, evaluated, looking, objective_of, tangent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = Matrix = NDArray[np.float64]

__all__ = ["Information", "information", "informed", "spectrum", "standard_errors"]

SHOWN = 100  # rows of the table
EXACT = 1e-12  # relative residual of a product with the inverse of the complete information


@dataclass(frozen=True)
class Information:
    """Observed and complete information at a point, summed over the data, and what follows at a maximum.

    Attributes
    ----------
    observed, complete : ndarray (r, r)
        In the basis of the directions that respect the constraints.
    basis : ndarray (p, r)
        That basis, orthonormal in the coordinates of the objective; the identity in free coordinates.
    meat : ndarray (r, r) or None
        Sum of ``w (s - m)(s - m)'`` over the rows, s being the score of a row and m their mean (0 but for a prior); None when
        not asked for.
    gain : float
        The rise of the mean log-likelihood that an EM step from there is sure of, about 0 at a maximum.
    params : named tuple
        The estimates, in the user's units.
    jacobian : ndarray (number of parameters, r)
        Derivatives of the parameters, one after the other, in the user's units, along the basis.
    bounds : named tuple of ndarray (2, ...)
        Where each parameter alone can be: above 0 a variance, between 0 and 1 a weight, anywhere a mean.

    Prints as a table of the parameters with standard errors and intervals of 95%.
    """

    observed: Matrix = field(repr=False)
    complete: Matrix = field(repr=False)
    basis: Matrix = field(repr=False)
    meat: Matrix | None = field(repr=False)
    gain: float
    params: Any = field(repr=False)
    jacobian: Matrix = field(repr=False)
    bounds: Any = field(repr=False)

    @cached_property
    def _root(self) -> Matrix:
        """An R with ``R R'`` the inverse of the observed information, in the basis."""
        try:
            L = np.linalg.cholesky(self.observed)
        except np.linalg.LinAlgError:
            raise ValueError("at: no strict maximum, where alone estimates have standard errors") from None
        if self.gain > SETTLED * (1 - self.fractions[-1]):
            raise ValueError(f"at: not at a maximum: one EM step still gains {self.gain:.0e} per unit of weight")
        return np.linalg.inv(L).T

    def _factor(self, robust: bool) -> Matrix:
        if not robust:
            return self._root
        if self.meat is None:
            raise ValueError("robust: the scores of the rows are not known; ask for them by information(..., robust=True)")
        values, vectors = np.linalg.eigh(self.meat)
        return self._root @ (self._root.T @ (vectors * np.sqrt(np.maximum(values, 0.0))))

    def covariance(self, *, robust: bool = False) -> Matrix:
        """Return the covariance of the estimates in the coordinates of the objective, (p, p).

        Parameters
        ----------
        robust : bool
            The sandwich ``I^-1 (sum w s s') I^-1`` (White 1982), right also where the model is wrong. A prior adds to I; the
            scores are those of the rows alone, about their mean.

        Raises
        ------
        ValueError
            When the observed information is not positive definite, an EM step still gains something that matters, or
            `robust` was not asked for before.
        """
        F = self.basis @ self._factor(robust)
        return F @ F.T

    def standard_errors(self, *, robust: bool = False) -> Any:
        """Return the standard errors of the parameters in the user's units, by the delta method, a named tuple of arrays.

        Parameters, errors as in `covariance`.
        """
        errors = np.sqrt(np.square(self.jacobian @ self._factor(robust)).sum(axis=1))
        parts = np.split(errors, np.cumsum([x.size for x in self.params])[:-1])
        return type(self.params)(*(e.reshape(x.shape) for e, x in zip(parts, self.params, strict=True)))

    def intervals(self, level: float = 0.95, *, robust: bool = False, transformed: bool = False) -> Any:
        """Return confidence intervals of the parameters: estimate +- quantile times standard error.

        Parameters
        ----------
        level : float
            Between 0 and 1.
        robust : bool
        transformed : bool
            Whether to take the logarithm of what is positive (variances, rates) and the log-odds of what lies between 0 and 1
            (weights, probabilities), and map the ends back: these intervals are not symmetric, and stay above 0, or between 0
            and 1. Each parameter for itself: the ends of several weights do not sum to 1, nor to what weights that are fixed
            leave. What can be anywhere, means and covariances beside the diagonal, has the same interval in both.

        Returns
        -------
        named tuple of ndarray (2, ...)
            Lower and upper ends.

        Raises
        ------
        ValueError
            When the level is not between 0 and 1, and as `covariance`.

        Notes
        -----
        Both are right to first order. Where the standard error is no small part of the parameter the transformed one is
        usually the better: for a variance s of standard error e its ends are ``s exp(+- z e / s)``, for a weight w those of
        ``log(w / (1 - w)) +- z e / (w (1 - w))``.
        """
        if not (isinstance(level, (int, float, np.number)) and 0 < level < 1):
            raise ValueError(f"level must be a number between 0 and 1, got {level!r}")
        z = NormalDist().inv_cdf(0.5 * (1 + level))
        errors = self.standard_errors(robust=robust)
        ends = _transformed if transformed else _plain
        each = zip(self.params, errors, self.bounds, strict=True)
        return type(self.params)(*(np.stack(ends(x, z * e, bounds)) for x, e, bounds in each))

    def lines(self) -> list[str]:
        """Return the table, line by line; of a symmetric matrix the lower triangle."""
        names = [
            (name, i)
            for name, (low, _) in zip(self.params._fields, self.bounds, strict=True)
            for i in np.ndindex(low.shape)
            if not (_symmetric(low) and i[-1] > i[-2])
        ]
        shown = names[:SHOWN]
        columns = [["parameter", *(f"{name}[{', '.join(map(str, i))}]" for name, i in shown)]]

        def add(head: str, *values: Any, form: str = "{:.6g}") -> None:
            columns.append([head, *(form.format(*(getattr(v, name)[i] for v in values)) for name, i in shown)])

        add("estimate", self.params)
        notes = []
        try:
            add("standard error", self.standard_errors(), form="{:.3g}")
            if self.meat is not None:
                add("robust error", self.standard_errors(robust=True), form="{:.3g}")
            robust = self.meat is not None
            ends = self.intervals(0.95, robust=robust)
            low, high = (type(ends)(*(e[side] for e in ends)) for side in (0, 1))
            add("95% interval" + ", robust" * robust, low, high, form="{:.6g} .. {:.6g}")
        except ValueError as error:
            notes.append(f"No standard errors: {str(error).removeprefix('at: ')}.")
        widths = [max(map(len, column)) for column in columns]
        rows = zip(*columns, strict=True)
        out = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        if len(names) > len(shown):
            notes.append(f"And {len(names) - len(shown)} more: `params`, `standard_errors()` and `intervals()` have all.")
        with suppress(ValueError, IndexError):  # it is not positive definite, or nothing is free
            notes.append(f"Largest fraction of missing information, EM's rate: {self.fractions[-1]:.4f}.")
        return out + notes

    def __str__(self) -> str:
        return "\n".join(self.lines())

    @cached_property
    def _missing(self) -> tuple[Vector, Matrix]:
        try:
            L = np.linalg.cholesky(self.complete)
        except np.linalg.LinAlgError:
            raise ValueError("at: the complete data's information is not positive definite there") from None
        white = np.linalg.solve(L, np.linalg.solve(L, self.complete - self.observed).T)
        values, vectors = np.linalg.eigh(0.5 * (white + white.T))
        return values, self.basis @ np.linalg.solve(L.T, vectors)

    @property
    def fractions(self) -> Vector:
        """The fractions of information that are missing, (r,), ascending: the rates of EM along `directions`."""
        return self._missing[0]

    @property
    def directions(self) -> Matrix:
        """The directions (p, r) that go with `fractions`, of length 1 in the complete data's information."""
        return self._missing[1]


def information(of: Any, at: Any = None, *, robust: bool = False) -> Information:
    """Return the observed and the complete information at a point, exactly: one pass of p columns.

    Parameters
    ----------
    of : Fit or ModelObjective
        A fit stands for its objective and its last point.
    at : Point, Evaluation or array_like (p,), optional
        By default the point of the fit.
    robust : bool
        Whether to sum the products of the rows' scores too: one more pass, row by row, far slower than others.

    Returns
    -------
    Information

    Raises
    ------
    ValueError
        When the model gives no Hessian products, the value is not finite there, a parameter sits on the boundary, or the fit
        was loaded and knows no data.
    TypeError
        When `of` is none of these, or of an EM map, which has no gradient.

    Notes
    -----
    Louis (1982); computed as Oakes (1999) has it, ``Hess l = Hess q + d score / d stats * d stats / d theta``.
    """
    objective, at = objective_of(of, at)
    with looking(objective, {"gradient", "metric", "tangent"}, "the exact information, unlike `diagnostics.oakes`,"):
        current = evaluated(objective, at)
        check_inside(objective, current)
        point, stats = current.point, current.stats
        E = tangent(objective, point)

        def summed(H: Matrix) -> Matrix:
            identity = objective.coordinates.kind == "free"  # with which products take a fifth of the time, for nothing
            return -stats.weight * H if identity else -stats.weight * E.T @ H

        observed = summed(objective.hvp(current, E))
        complete = summed(objective.q_hvp(point, stats, E))
        meat = stats.weight * E.T @ objective.score_products(current) @ E if robust else None
    return informed(objective, current, E, observed, complete, meat)


def informed(
    objective: Any, current: Any, E: Matrix, observed: Matrix, complete: Matrix, meat: Matrix | None = None
) -> Information:
    """Return the value of matrices in the basis E (p, r), however they were found."""
    model, c, point = objective.model, objective.coordinates, current.point
    params = model.to_user(point.params)
    jacobian = np.empty((sum(x.size for x in params), E.shape[1]))
    for j, e in enumerate(E.T):
        move = model.to_user_tangent(c.push(point.theta, point.params, e))
        jacobian[:, j] = np.concatenate([a.ravel() for a in move])
    return Information(
        observed=0.5 * (observed + observed.T),
        complete=0.5 * (complete + complete.T),
        basis=E,
        meat=meat,
        gain=current.gain,
        params=params,
        jacobian=jacobian,
        bounds=type(params)(*(np.stack(f.chart.bounds) for f in model.fields)),
    )


def _plain(x: Vector, half: Vector, bounds: Vector) -> tuple[Vector, Vector]:
    return x - half, x + half


def _transformed(x: Vector, half: Vector, bounds: Vector) -> tuple[Vector, Vector]:
    """Return the ends of an interval, of half the width `half` to first order, computed where the parameter is unbounded."""
    low, high = _plain(x, half, bounds)
    moving = (half > 0) & (bounds[0] == 0)
    for which, slope, there in (
        (moving & (bounds[1] == np.inf), lambda x: x, lambda x, t: x * np.exp(t)),
        (moving & (bounds[1] == 1), lambda x: x * (1 - x), lambda x, t: x / (x + (1 - x) * np.exp(-t))),
    ):
        at, t = x[which], half[which] / slope(x[which])
        with np.errstate(over="ignore"):  # of an error that says nothing: the ends are those of the space
            low[which], high[which] = there(at, -t), there(at, t)
    return low, high


def _symmetric(low: Vector) -> bool:
    """Tell by where they can be whether these are symmetric matrices: positive on the diagonal only."""
    d = low.shape[-1]
    return low.ndim > 1 and low.shape[-2] == d > 1 and bool((low == np.where(np.eye(d, dtype=bool), 0.0, -np.inf)).all())


def standard_errors(of: Any, at: Any = None, *, robust: bool = False) -> Any:
    """Return the standard errors of the parameters in the user's units; see `information`."""
    return information(of, at, robust=robust).standard_errors(robust=robust)


def spectrum(of: Any, at: Any = None, *, k: int = 6, tol: float = 1e-8) -> tuple[Vector, Matrix]:
    """Return the largest eigenvalues of EM's map at a solution, and their directions, by Lanczos' method.

    Parameters
    ----------
    of, at
        As for `information`.
    k : int
        How many; all of them where there are no more than k + 1 parameters.
    tol : float
        Relative accuracy of the eigenvalues.

    Returns
    -------
    values : ndarray (k,)
        Fractions of missing information, descending; the first is EM's rate.
    directions : ndarray (p, k)

    Raises
    ------
    ValueError
        As `information`; also when k is below 1, or the coordinates are not free.
    TypeError
        When `of` is none of these, or of an EM map, which has no gradient.

    Notes
    -----
    ``DM = I_c^-1 (I_c - I_o)`` (Dempster, Laird and Rubin 1977), symmetric in the inner product of I_c: one pass a step, for
    ``I_o v``; ``I_c v`` takes none, nor does its inverse, by conjugate gradients of which EM's metric leaves a step or two.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k must be a whole number >= 1, got {k!r}")
    objective, at = objective_of(of, at)
    if objective.coordinates.kind != "free":
        raise ValueError("coordinates must be 'free' for the spectrum of EM's map")
    p = objective.size
    if p <= k + 1:
        known = information(objective, at)
        return known.fractions[::-1][:k], known.directions[:, ::-1][:, :k]
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, cg, eigsh

    with looking(objective, {"gradient", "metric", "tangent"}, "the spectrum of EM's map"):
        current = evaluated(objective, at)
        check_inside(objective, current)

        def complete(v: Vector) -> Vector:
            return -objective.q_hvp(current.point, current.stats, v.ravel())

        def operator(apply: Any) -> LinearOperator:
            return LinearOperator((p, p), matvec=apply, dtype=np.float64)

        whole, metric = operator(complete), operator(lambda v: current.precondition(v.ravel()))

        def inverse(v: Vector) -> Vector:
            # EM's metric is it, but for how far the solution still is, and where parts of a mean are fixed.
            return cg(whole, v.ravel(), M=metric, rtol=EXACT, maxiter=p)[0]

        try:
            values, directions = eigsh(
                operator(lambda v: complete(v) + objective.hvp(current, v.ravel())),
                k=k, M=whole, Minv=operator(inverse), which="LA", tol=tol, v0=np.random.default_rng(0).normal(size=p),
            )  # fmt: skip
        except ArpackNoConvergence as short:
            raise ValueError(f"k: only {len(short.eigenvalues)} of {k} eigenvalues were found") from None
    order = np.argsort(values)[::-1]
    return values[order], directions[:, order]
