"""What all parameters that are shares of 1 have in common: weights of a mixture, probabilities of symbols and of cells.

Arrays (..., m) hold such vectors along their last axis, with expected counts beside them. A share of 0 whose count is 0 has no
part in anything. What needs no fixed shares is compiled, in `emcore.kernels.proportions`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emcore.kernels import proportions

__all__ = ["best", "metric"]

Array = NDArray[np.float64]


def _free(shares: Array, counts: Array, fixed: NDArray[np.bool_] | None) -> tuple[NDArray[np.bool_], Array, Array]:
    """Return which shares are free, what those fixed leave, and the sums of the counts of those free."""
    free = np.ones(shares.shape, dtype=bool) if fixed is None else ~fixed
    left = np.maximum(0.0, 1.0 - np.where(free, 0.0, shares).sum(axis=-1, keepdims=True))
    return free, left, np.where(free, counts, 0.0).sum(axis=-1, keepdims=True)


def best(shares: Array, counts: Array, *, least: float = 0.0, fixed: NDArray[np.bool_] | None = None) -> Array:
    """Return the shares of greatest ``sum counts log(shares)``; those fixed, and all where counts sum to <= `least`, stay."""
    if fixed is None:
        return proportions.best(shares, counts, least)
    free, left, total = _free(shares, counts, fixed)
    moves = free & (total > least)
    return np.where(moves, left * counts / np.where(total > least, total, 1.0), shares)


def metric(shares: Array, counts: Array, g: Array, *, least: float = 0.0, fixed: NDArray[np.bool_] | None = None) -> Array:
    """Return ``(diag(shares) - shares shares') g / N``, N being the sum of the counts, or the same of the free shares."""
    free, left, total = _free(shares, counts, fixed)
    a = np.where(free & (total > least) & (left > 0), shares, 0.0)
    some = np.where(left > 0, left, 1.0)
    centred = g - np.sum(a * g, axis=-1, keepdims=True) / some
    return a * centred * some / np.where(total > least, total, 1.0)
