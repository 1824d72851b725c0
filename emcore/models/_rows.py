"""What rows of whole numbers must be, looked at when a model is bound to them and when densities of new rows are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from emcore.data import Block, DataSource

__all__ = ["COUNTS", "kept", "largest", "named", "not_whole", "refuse", "totals"]

COUNTS = "counts, whole numbers >= 0"


def not_whole(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which entries are no whole numbers >= 0."""
    wrong = rows < 0
    if rows.dtype.kind == "f":
        wrong |= rows != np.floor(rows)
    return wrong


def refuse(source: DataSource, wrong: Callable[[NDArray[Any]], NDArray[np.bool_]], allowed: str) -> None:
    """Raise where an entry of a row of positive weight is wrong.

    Raises
    ------
    ValueError
        Naming the row and the column, what is there and what is allowed.
    """
    for i in range(source.n_blocks):
        for part, piece in source.block(i).pieces(source.n_columns):
            rows = piece.rows[0]
            bad = wrong(rows)
            if piece.weights is not None:
                bad[piece.weights == 0] = False
            if bad.any():
                row, column = np.argwhere(bad)[0]
                where = f"row {source.row_of(i, part.start + int(row))}, column {column}"
                raise ValueError(f"X must hold {allowed}: {where} is {rows[row, column]}")


def kept(block: Block) -> NDArray[Any]:
    """Return the rows of positive weight."""
    return block.rows[0] if block.weights is None else block.rows[0][block.weights > 0]


def largest(source: DataSource) -> NDArray[np.float64]:
    """Return the largest value of each column, or 0, of rows of positive weight, (d,)."""
    found = np.zeros(source.n_columns)
    for i in range(source.n_blocks):
        for _, piece in source.block(i).pieces(source.n_columns):
            found = np.maximum(found, kept(piece).max(axis=0, initial=0))
    return found


def totals(source: DataSource) -> NDArray[np.float64]:
    """Return the weighted sum of each column, (d,)."""
    found = np.zeros(source.n_columns)
    for i in range(source.n_blocks):
        for _, piece in source.block(i).pieces(source.n_columns):
            weights = 1.0 if piece.weights is None else piece.weights[piece.weights > 0, None]
            found += np.sum(kept(piece) * weights, axis=0)
    return found


def named(columns: NDArray[np.intp]) -> str:
    """Return "column 3" or "columns 3, 5"."""
    return f"column{'s' * (len(columns) > 1)} {', '.join(map(str, columns))}"
