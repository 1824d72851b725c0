"""Normal equations: what regressions learn from their statistics, in batches of m coefficient vectors."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["NormalEquations", "covariates", "lower", "unpacked"]

Array = NDArray[np.float64]

RANK = 1e-13  # an eigenvalue of a Gram matrix of unit diagonal below this part of its order is rounding


@cache
def lower(d: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of the entries of a lower triangle: NumPy takes as long for them as for a product."""
    return np.tril_indices(d)


def unpacked(triangles: Array, d: int) -> Array:
    """Return symmetric matrices (m, d, d) from their lower triangles (m, d (d + 1) / 2), row by row."""
    rows, cols = lower(d)
    full = np.empty((len(triangles), d, d))
    full[:, rows, cols] = full[:, cols, rows] = triangles
    return full


def covariates(X: Array | None, d: int) -> Array:
    """Return the covariates (n, d) that draws are conditional on, or raise."""
    if X is None or X.shape[1] != d:
        raise ValueError(f"X must have {d} columns, as the coefficients say, got {None if X is None else X.shape[1]}")
    return X


class NormalEquations(NamedTuple):
    """Weighted sums about some coefficients b, with ``e = y - z'b`` and z the regressors.

    Attributes
    ----------
    gram : ndarray (m, p, p)
        Of z z'.
    cross : ndarray (m, p)
        Of e z.
    square : ndarray (m,)
        Of e^2.
    """

    gram: Array
    cross: Array
    square: Array

    def times(self, delta: Array) -> Array:
        """Return ``gram delta``, (..., m, p)."""
        return np.ascontiguousarray(np.einsum("cij,...cj->...ci", self.gram, delta))

    def moved(self, delta: Array) -> NormalEquations:
        """Return the sums about coefficients that are larger by delta (m, p)."""
        bent = self.times(delta)
        square = self.square - np.einsum("ci,ci->c", delta, 2.0 * self.cross - bent)
        return NormalEquations(self.gram, self.cross - bent, np.maximum(square, 0.0))

    def solve(self, right: Array, fixed: NDArray[np.bool_] | None = None) -> Array:
        """Return ``gram^-1 right``, (..., m, p): of least length where the rows leave it open, and 0 where fixed."""
        gram = self.gram
        if fixed is not None:
            free = ~fixed
            gram, right = gram * (free[:, :, None] & free[:, None, :]), right * free
        size = np.sqrt(np.einsum("cii->ci", gram))
        unit = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
        values, vectors = np.linalg.eigh(gram * unit[:, :, None] * unit[:, None, :])
        known = values > RANK * values.shape[1]
        inverse = np.divide(1.0, values, out=np.zeros_like(values), where=known)
        along = np.einsum("cji,...cj->...ci", vectors, unit * right) * inverse
        return np.ascontiguousarray(
            unit * np.einsum("cij,...cj->...ci", vectors, along)
        )  # products depend on the order, in the last bit
