"""The frame: one shift and one power-of-two scale a column, fixed when a model is bound to its data.

Inside, all rows are ``z = (x - shift) * scale``: close to 0 and of the order of 1. One tolerance then means the same whatever
the units of measurement, data far from the origin lose no digits, and scaling back and forth is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emcore.kernels import Moments, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.data import DataSource

__all__ = ["Frame"]

TINY = float(np.finfo(float).tiny)
TOGETHER = 64  # rows whose minimum is taken side by side: NumPy is slow on few columns
LARGEST = 2.0**511  # width of a column: no component has a variance above its square
SMALLEST = 2.0**-505  # spread of a column: a variance of a thousandth of its square still has all its digits
LIGHT = 1e-8  # spread of a column as a part of its width, beyond what 1e16 rows of like weight can bring about


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

    def state(self) -> dict[str, NDArray[Any]]:
        """Return it as plain arrays."""
        return {name: np.asarray(value) for name, value in self._asdict().items()}

    @classmethod
    def restored(cls, state: Mapping[str, NDArray[Any]]) -> Frame:
        """Return the frame that `state` wrote down."""
        return cls(state["shift"], state["scale"], state["variance"], tuple(int(j) for j in state["constant"]))

    @property
    def log_jacobian(self) -> float:
        """What a log-density in frame units lacks of one in user units."""
        return float(np.log(self.scale).sum())

    @classmethod
    def about_zero(cls, variance: NDArray[np.float64]) -> Frame:
        """Return the frame, without data, of columns (d,) of these variances; the scale is 1 where they are no such thing."""
        good = (variance > 0) & np.isfinite(variance)
        scale = np.exp2(-np.round(0.5 * np.log2(np.where(good, variance, 1.0))))
        return cls(np.zeros(len(scale)), scale, np.ones(len(scale)), ())

    @classmethod
    def of(cls, source: DataSource, *, common: bool = False, name: str = "X") -> Frame:
        """Measure the columns of a source, in a few reads of the data.

        Parameters
        ----------
        common : bool
            One scale for all columns, where the model ties their variances.
        name : str
            What the rows are called in an error.

        Raises
        ------
        ValueError
            When the spread of a column, or the square of it, overflows or vanishes; with `common` that of all together.
        """
        first = cls._first(source)
        lowest, highest = cls._ranges(source)
        total, _ = cls._sums(source, first, np.ones(len(first)))  # about the first row: large offsets do not cancel
        width, fraction = cls._widths(lowest, highest, np.isfinite(total), name)
        constant = width == 0
        shift = np.where(constant, lowest, first + total / source.weight)
        squares = np.where(constant, 0.0, cls._sums(source, shift, fraction)[1])
        spread = np.sqrt(squares / source.weight) / fraction
        if common:  # the one that is squared; of fractions of the largest, whose squares are numbers
            largest = max(float(spread.max()), TINY)
            spread = np.full(len(spread), largest * np.sqrt(np.mean(np.square(spread / largest))))
        scale = cls._scales(spread, width, shift, name)
        variance = np.square(np.where(constant, 0.0, scale / fraction)) * squares / source.weight
        return cls(shift, scale, variance, tuple(int(j) for j in np.flatnonzero(constant)))

    @classmethod
    def observed(cls, source: DataSource) -> Frame:
        """Measure the columns of a source by those of their values that are not missing (NaN).

        Raises
        ------
        ValueError
            When a column is missing in every row, or its spread overflows or vanishes.
        """
        d = source.n_columns
        lowest, highest = np.full(d, np.inf), np.full(d, -np.inf)
        for rows, _ in cls._whole(source):
            lowest = np.minimum(lowest, np.fmin.reduce(rows, axis=0, initial=np.inf))
            highest = np.maximum(highest, np.fmax.reduce(rows, axis=0, initial=-np.inf))
        if (lowest > highest).any():
            raise ValueError(f"X: column {int(np.argmax(lowest > highest))} is missing in every row")
        width, fraction = cls._widths(lowest, highest, np.ones(d, dtype=bool), "X")
        constant = width == 0
        shift, weight = lowest, np.zeros(d)
        for power in (1, 2):
            total = np.zeros(d)
            for rows, w in cls._whole(source):
                there = ~np.isnan(rows)
                if power == 1:
                    weight += w @ there
                total += w @ np.where(there, (rows - shift) * fraction, 0.0) ** power
            total /= weight
            if power == 1:
                shift = np.where(constant, lowest, shift + total / fraction)
        spread = np.sqrt(total) / fraction
        scale = cls._scales(spread, width, shift, "X")
        return cls(
            shift, scale, np.where(constant, 0.0, (scale * spread) ** 2), tuple(int(j) for j in np.flatnonzero(constant))
        )

    @staticmethod
    def _widths(
        lowest: NDArray[np.float64], highest: NDArray[np.float64], summed: NDArray[np.bool_], name: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the widths of columns (d,), 0 of constant ones, and what to multiply by so that squares are numbers.

        Raises
        ------
        ValueError
            When one is too wide, or its sum is no number (`summed`).
        """
        with np.errstate(over="ignore"):
            width = highest - lowest
        wide = np.flatnonzero(~(width <= LARGEST) | ~summed)
        if len(wide):
            raise ValueError(f"{name} spans more than float64 can add up in column {wide[0]}: rescale it")
        return width, 1.0 / np.maximum(np.where(width > 0, width, 1.0), TINY)

    @staticmethod
    def _scales(
        spread: NDArray[np.float64], width: NDArray[np.float64], shift: NDArray[np.float64], name: str
    ) -> NDArray[np.float64]:
        """Return the scales of columns (d,) of these standard deviations and widths.

        Raises
        ------
        ValueError
            When the square of a spread is no float64 with all its digits, saying what to do about it.
        """
        narrow = np.flatnonzero(~(spread >= SMALLEST) & (width > 0))
        if len(narrow):
            j = narrow[0]
            if spread[j] < LIGHT * width[j]:
                raise ValueError(
                    f"{name} varies in column {j} in rows only that weigh next to nothing, by {spread[j]:.3g} in the mean, "
                    "too little for float64 to square: give these rows the weight 0"
                )
            raise ValueError(f"{name} varies by {spread[j]:.3g} in column {j}, too little for float64 to square: rescale it")
        # A constant column has no spread to measure by; the floor of its variance must be a float64 in the user's units.
        unit = np.where(spread > 0, spread, np.where(shift != 0, np.clip(np.abs(shift), 1 / LARGEST, LARGEST), 1.0))
        return np.exp2(np.clip(-np.round(np.log2(unit)), -1000, 1000))

    @staticmethod
    def _whole(source: DataSource) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Yield the rows of positive weight in pieces, in float64, and their weights."""
        for i in range(source.n_blocks):
            for _, piece in source.block(i).pieces(source.n_columns):
                rows = np.asarray(piece.rows[0], dtype=np.float64)
                if piece.weights is None:
                    yield rows, np.ones(len(rows))
                else:
                    kept = piece.weights > 0
                    yield rows[kept], piece.weights[kept]

    @staticmethod
    def _first(source: DataSource) -> NDArray[np.float64]:
        """Return the first row of positive weight."""
        pieces = (piece for i in range(source.n_blocks) for _, piece in source.block(i).pieces(source.n_columns))
        for piece in pieces:
            kept = (0,) if piece.weights is None else np.flatnonzero(piece.weights)
            if len(kept):
                return np.asarray(piece.rows[0][kept[0]], dtype=np.float64)
        raise ValueError("X has no row of positive weight")

    @staticmethod
    def _ranges(source: DataSource) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the least and the largest value of each column, of rows of positive weight."""
        d = source.n_columns
        lowest, highest = np.full(d, np.inf), np.full(d, -np.inf)
        for i in range(source.n_blocks):
            for _, piece in source.block(i).pieces(d):
                rows = piece.rows[0] if piece.weights is None else piece.rows[0][piece.weights > 0]
                whole = len(rows) // TOGETHER * TOGETHER
                for part in (rows[:whole].reshape(-1, TOGETHER * d), rows[whole:]):
                    if len(part):
                        lowest = np.minimum(lowest, part.min(axis=0).reshape(-1, d).min(axis=0))
                        highest = np.maximum(highest, part.max(axis=0).reshape(-1, d).max(axis=0))
        return lowest, highest

    @staticmethod
    def _sums(
        source: DataSource, shift: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the weighted sums of ``(x - shift) * scale`` and of their squares."""
        stats, kernel = np.zeros(2 * source.n_columns), Moments(shift, scale)
        for i in range(source.n_blocks):
            run(kernel, source.block(i), stats=stats)
        return stats[: source.n_columns], stats[source.n_columns :]
