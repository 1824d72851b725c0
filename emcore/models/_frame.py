"""The frame: one shift and one power-of-two scale a column, fixed when a model is bound to its data.

Inside, all rows are ``z = (x - shift) * scale``: close to 0 and of the order of 1. One tolerance then means the same whatever
the units of measurement, data far from the origin lose no digits, and scaling back and forth is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.data import DataSource

__all__ = ["Frame"]

LARGEST = 2.0**511  # width of a column: no component has a variance above its square


class Frame(NamedTuple):
    """How rows enter: ``z = (x - shift) * scale``.

    Attributes
    ----------
    shift : ndarray (d,)
        Column means.
    scale : ndarray (d,)
        Powers of two next to one over the columns' standard deviations.
    variance : ndarray (d,)
        Variances of the columns in frame units, between 1/2 and 2 but for constant columns and a common scale.
    constant : tuple of int
        Columns that hold one value only.
    """

    shift: NDArray[np.float64]
    scale: NDArray[np.float64]
    variance: NDArray[np.float64]
    constant: tuple[int, ...]

    @property
    def log_jacobian(self) -> float:
        """What a log-density in frame units lacks of one in user units."""
        return float(np.log(self.scale).sum())

    @classmethod
    def of(cls, source: DataSource, *, common: bool = False) -> Frame:
        """Measure the columns of a source, two reads of the data.

        Parameters
        ----------
        common : bool
            One scale for all columns, where the model ties their variances.

        Raises
        ------
        ValueError
            When the spread of a column, or the square of it, overflows.
        """
        d = source.n_columns
        first = cls._first(source)
        lowest, highest, total = np.full(d, np.inf), np.full(d, -np.inf), np.zeros(d)
        with np.errstate(over="ignore", invalid="ignore"):
            for z, weights in cls._rows(source, first):  # about the first row: large offsets do not cancel
                lowest, highest = np.minimum(lowest, z.min(axis=0)), np.maximum(highest, z.max(axis=0))
                total += np.einsum("i,ij->j", weights, z)  # no BLAS: its threads would show in the last bit
            wide = np.flatnonzero(~(highest - lowest <= LARGEST) | ~np.isfinite(total))
        if len(wide):
            raise ValueError(f"X spans more than float64 can add up in column {wide[0]}: rescale it")
        constant = lowest == highest
        width = np.where(constant, 1.0, highest - lowest)
        shift = first + np.where(constant, lowest, total / source.weight)
        squares = np.zeros(d)
        for z, weights in cls._rows(source, shift):
            # A fraction of the width: squares neither overflow nor vanish.
            squares += np.einsum("i,ij->j", weights, np.square(z / width))
        spread = np.where(constant, 0.0, width * np.sqrt(squares / source.weight))
        if common:
            spread = np.full(d, np.sqrt(np.mean(spread**2)))
        # A constant column has no spread to measure by; the floor of its variance must be a float64 in the user's units.
        unit = np.where(spread > 0, spread, np.where(shift != 0, np.clip(np.abs(shift), 1 / LARGEST, LARGEST), 1.0))
        scale = np.exp2(np.clip(-np.round(np.log2(unit)), -1000, 1000))
        variance = np.square(np.where(constant, 0.0, width * scale)) * squares / source.weight
        return cls(shift, scale, variance, tuple(int(j) for j in np.flatnonzero(constant)))

    @staticmethod
    def _first(source: DataSource) -> NDArray[np.float64]:
        """Return the first row of positive weight."""
        i, at = 0, None
        while at is None:
            block = source.block(i)
            kept = np.array([0]) if block.weights is None else np.flatnonzero(block.weights)
            at, i = (kept[0] if len(kept) else None), i + 1
        return np.asarray(block.rows[0][at], dtype=np.float64)

    @staticmethod
    def _rows(source: DataSource, about: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Yield the rows of positive weight less `about`, and their weights, piece by piece."""
        for i in range(source.n_blocks):
            for _, piece in source.block(i).pieces(source.n_columns):
                if piece.weights is None:
                    yield piece.rows[0] - about, np.ones(len(piece.rows[0]))
                elif piece.weights.any():
                    kept = piece.weights > 0
                    yield piece.rows[0][kept] - about, piece.weights[kept]
