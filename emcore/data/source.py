"""Where rows come from: a source hands out blocks, a pass walks over them. Knows nothing of models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ArraySource", "Block", "DataSource", "as_source", "fingerprint"]

Vector = NDArray[np.float64]

NATIVE = tuple(np.dtype(t) for t in ("f8", "f4", "i8", "i4"))
BLOCK_BYTES = 256 << 20  # of rows in float64: few blocks, so that threads seldom wait for each other at the end of one
SMALL_WEIGHT = 1e-300  # in all: a part of it that is rounding is still a number with all its digits
PIECE_BYTES = 8 << 20  # what float64 temporaries may take


class Block(NamedTuple):
    """Some rows of the data, as they came.

    Attributes
    ----------
    rows : tuple of ndarray
        One or several arrays of n rows, ``(X,)`` or ``(X, y)``: any stride; float64, float32, int64 or int32.
    weights : ndarray (n,) or None
        One weight a row, or one a sequence where there are bounds; None: all 1.
    bounds : ndarray or None
        Ends of the pieces that are never cut (sequences); None: independent rows.
    """

    rows: tuple[NDArray[Any], ...]
    weights: Vector | None = None
    bounds: NDArray[np.intp] | None = None

    def pieces(self, columns: int) -> Iterator[tuple[slice, Block]]:
        """Yield parts of a block without bounds, each with where it lies, for which temporaries of float64 stay small.

        Parameters
        ----------
        columns : int
            How wide the temporaries are.
        """
        n = len(self.rows[0])
        step = rows_within(PIECE_BYTES, columns)
        for row in range(0, n, step):
            part = slice(row, min(row + step, n))
            yield part, self.part(part)

    def every(self, start: int, step: int) -> Block:
        """Return row `start` of a block without bounds and every `step`-th after it, a view."""
        return self.part(slice(start, None, step))

    def part(self, part: slice | NDArray[np.intp]) -> Block:
        """Return some rows of a block without bounds: of a slice a view."""
        return Block(tuple(a[part] for a in self.rows), None if self.weights is None else self.weights[part])


def rows_within(size: int, columns: int) -> int:
    """Return how many rows of float64 take about so many bytes."""
    return max(1024, size // (8 * columns) // 1024 * 1024)


@runtime_checkable
class DataSource(Protocol):
    """What a pass, a start and a binding need of data: write a class with these members for data that come in pieces.

    Blocks are asked for in every pass, and must be the same each time, of finite rows: `as_source` checks arrays only.

    Attributes
    ----------
    n_blocks, n_rows, n_columns : int
    weight : float
        Sum of the weights of all rows; their number where there are none.
    n_weighted : int
        How many rows have a positive weight.
    n_responses : int, optional
        How many columns of responses the blocks hold.
    missing : bool, optional
        Whether some rows hold missing values.
    """

    n_blocks: int
    n_rows: int
    n_columns: int
    weight: float
    n_weighted: int

    def block(self, i: int) -> Block:
        """Return the i-th block."""

    def row_of(self, i: int, row: int) -> int:
        """Return the index in the whole data of a row of block i."""

    def sample(self, m: int, rng: np.random.Generator) -> Block:
        """Return at most m rows of positive weight, drawn without replacement, in order."""


class ArraySource:
    """Rows of arrays in memory (or memory-mapped), never copied as a whole. Built by `as_source`.

    Attributes
    ----------
    X : ndarray (n, d)
    y : ndarray (n, m) or None
        The responses.
    n_responses : int
        m, 0 without responses.
    missing : bool
        Whether X holds NaN, each a missing value, in a row of positive weight.
    """

    def __init__(
        self, X: NDArray[Any], weights: Vector | None, block_rows: int, y: NDArray[Any] | None = None, missing: bool = False
    ):
        self.X, self.y, self.weights, self.block_rows, self.missing = X, y, weights, block_rows, missing
        self.n_rows, self.n_columns = X.shape
        self.n_responses = 0 if y is None else y.shape[1]
        self.n_blocks = -(-self.n_rows // block_rows)
        self._whole = Block((X,) if y is None else (X, y), weights)
        self.weight = float(self.n_rows) if weights is None else float(weights.sum())
        self.n_weighted = self.n_rows if weights is None else int(np.count_nonzero(weights))

    def block(self, i: int) -> Block:
        """Return the i-th block, a view."""
        if self.n_blocks == 1 and i == 0:
            return self._whole
        return self._whole.part(slice(i * self.block_rows, min((i + 1) * self.block_rows, self.n_rows)))

    def row_of(self, i: int, row: int) -> int:
        """Return the index in the whole data of a row of block i."""
        return i * self.block_rows + row

    def sample(self, m: int, rng: np.random.Generator) -> Block:
        """Return at most m rows of positive weight, drawn without replacement, in order of their indices."""
        if self.n_weighted <= m:
            ranks = np.arange(self.n_weighted)
        else:
            ranks = np.sort(rng.choice(self.n_weighted, m, replace=False, shuffle=False))
        return self._whole.part(ranks if self.weights is None else _of_positive_weight(self.weights, ranks))

    def __repr__(self) -> str:
        responses = "" if self.y is None else f", {self.n_responses} response{'s' * (self.n_responses > 1)} {self.y.dtype}"
        weighted = "" if self.weights is None else f", total weight {self.weight:g}"
        return f"ArraySource({self.n_rows} x {self.n_columns} {self.X.dtype}{responses}{weighted})"


def _of_positive_weight(weights: Vector, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return some of the indices of the positive weights, in order, without a list of all of them."""
    found, seen = [], 0
    for part, piece in Block((weights,)).pieces(1):
        there = np.flatnonzero(piece.rows[0])
        first, last = np.searchsorted(ranks, [seen, seen + len(there)])
        found.append(part.start + there[ranks[first:last] - seen])
        seen += len(there)
    return np.concatenate(found)


def _as_rows(name: str, X: ArrayLike) -> NDArray[Any]:
    try:
        rows = np.asanyarray(X)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a table of numbers, its rows of one length: {error}") from None
    if isinstance(rows, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; missing values are not supported: drop or impute them")
    rows = rows.view(np.ndarray)
    if rows.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be numeric, got dtype {rows.dtype}")
    if name == "y" and rows.ndim == 1:
        rows = rows.reshape(-1, 1)
    if rows.ndim != 2:
        hint = " (one column: X.reshape(-1, 1))" if rows.ndim == 1 else ""
        raise ValueError(f"{name} must have two dimensions (rows, columns), got shape {rows.shape}{hint}")
    if 0 in rows.shape:
        raise ValueError(f"{name} is empty: shape {rows.shape}")
    if rows.dtype in NATIVE:
        return rows
    if rows.dtype.itemsize > 8 or rows.dtype == np.dtype("u8"):  # wider than what we sum in
        return _as_float64(rows)
    small = "f4" if rows.dtype.kind == "f" and rows.dtype.itemsize <= 4 else "f8" if rows.dtype.kind == "f" else "i8"
    if rows.dtype.kind in "iub" and rows.dtype.itemsize <= 2:
        small = "i4"
    return rows.astype(small)


def _as_float64(numbers: NDArray[Any]) -> Vector:
    """Return numbers as float64: what is beyond its range becomes infinite, for the checks that follow to refuse."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float64, copy=False)


def _as_weights(sample_weight: ArrayLike) -> Vector:
    """Return what is numeric as a read-only array of float64: of an array of float64 a view.

    Raises
    ------
    TypeError
        Of anything else: text, complex numbers, lists of several lengths.
    """
    if isinstance(sample_weight, np.ma.MaskedArray):
        raise TypeError("sample_weight is a masked array: give rows that do not count the weight 0")
    wanted = "sample_weight must be numbers, one weight a row of X"
    try:
        given = np.asarray(sample_weight)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{wanted}: {error}") from None
    if given.dtype.kind not in "fiub":
        got = repr(sample_weight) if isinstance(sample_weight, str) else f"dtype {given.dtype}"
        raise TypeError(f"{wanted}, got {got}")
    weights = _as_float64(given).view()
    weights.setflags(write=False)
    return weights


def _check_finite(name: str, rows: NDArray[Any], weights: Vector | None, row0: int, missing: bool = False) -> bool:
    """Return whether some rows hold a NaN where it may mean a missing value; refuse all else that is not finite."""
    if rows.dtype.kind != "f":
        return False
    with np.errstate(over="ignore", invalid="ignore"):  # a finite sum proves all finite, without a temporary
        if math.isfinite(float(np.add.reduce(rows, axis=None))):
            return False
    bad = np.argwhere(~np.isfinite(rows))
    if weights is not None:  # a row of weight 0 is as good as dropped
        bad = bad[weights[bad[:, 0]] > 0]
    found = False
    if missing:
        nan = np.isnan(rows[bad[:, 0], bad[:, 1]])
        found, bad = bool(nan.any()), bad[~nan]
    if len(bad):
        i, j = bad[0]
        more = f" ({len(bad)} such values in rows {row0} to {row0 + len(rows) - 1})" if len(bad) > 1 else ""
        raise ValueError(f"{name} must be finite: row {row0 + i}, column {j} is {rows[i, j]}{more}")
    return found


def as_source(
    X: ArrayLike | tuple[ArrayLike, ArrayLike] | DataSource,
    sample_weight: ArrayLike | None = None,
    *,
    block_rows: int | None = None,
    missing: bool = False,
) -> DataSource:
    """Return a source of rows over an array, or over covariates and responses, checked and not copied.

    Parameters
    ----------
    X : array_like (n, d), tuple (X, y) or DataSource
        float64, float32, int64 or int32 are used as they are, in any memory layout, read-only and memory-mapped too;
        other numeric types are converted once; what float64 cannot hold counts as infinite. A tuple holds rows X (n, d) and
        their responses y, (n,) or (n, m). A source is returned unchanged.
    sample_weight : array_like (n,), optional
        Weights >= 0. A weight of 0 is the row dropped, whatever it holds; a whole number is the row repeated. float64 is used
        as it is, like X. Neither may change while the source is used.
    block_rows : int, optional
        Rows a block; by default all, or what takes 256 MB as float64.
    missing : bool
        Whether NaN in X is a missing value, for models that take them. Responses must be finite always.

    Returns
    -------
    DataSource

    Raises
    ------
    ValueError, TypeError
        When X is not a finite, non-empty, numeric matrix (the first bad row and column are named), y is not such an array of
        as many rows, or the weights are no numbers, of another length, negative, not finite or all zero, or their sum is below
        1e-300 or above 1e300.
    """
    if not isinstance(X, np.ndarray) and isinstance(X, DataSource):
        if sample_weight is not None or block_rows is not None:
            raise ValueError("sample_weight and block_rows belong to the source when X is a source already")
        return X
    y = None
    if isinstance(X, tuple):
        if len(X) != 2:
            raise ValueError(f"X: a tuple must be (X, y), rows and their responses, got {len(X)} entries")
        X, y = X[0], _as_rows("y", X[1])
    rows = _as_rows("X", X)
    n, d = rows.shape
    if y is not None and len(y) != n:
        raise ValueError(f"y must have as many rows as X, {n}, got {len(y)}")
    if block_rows is None:
        n_blocks = -(-n // rows_within(BLOCK_BYTES, d))
        block_rows = -(-n // n_blocks)  # of equal size
    elif isinstance(block_rows, bool) or not isinstance(block_rows, (int, np.integer)) or block_rows < 1:
        raise ValueError(f"block_rows must be a whole number >= 1, got {block_rows!r}")
    weights = None
    if sample_weight is not None:
        weights = _as_weights(sample_weight)
        if weights.shape != (n,):
            raise ValueError(f"sample_weight must have shape ({n},), one weight a row of X, got {weights.shape}")
        for part, piece in Block((weights,)).pieces(1):
            bad = part.start + np.flatnonzero(~(np.isfinite(piece.rows[0]) & (piece.rows[0] >= 0)))
            if len(bad):
                raise ValueError(f"sample_weight must be finite and >= 0: that of row {bad[0]} is {weights[bad[0]]}")
        if not weights.any():
            raise ValueError("sample_weight is all zero: no row is left")
        with np.errstate(over="ignore"):
            total = float(weights.sum())
        if not SMALL_WEIGHT <= total <= 1 / SMALL_WEIGHT:
            raise ValueError(f"sample_weight adds up to {total:.3g}: rescale it, to a sum from 1e-300 to 1e300")
    some = False
    for part, piece in Block((rows,) if y is None else (rows, y), weights).pieces(d):
        some |= _check_finite("X", piece.rows[0], piece.weights, part.start, missing)
        for responses in piece.rows[1:]:
            _check_finite("y", responses, piece.weights, part.start)
    return ArraySource(rows, weights, int(block_rows), y, some)


def fingerprint(source: DataSource) -> str:
    """Return a digest of all that a source of independent rows holds, and of how it is cut into blocks."""
    from hashlib import blake2b  # takes longer to load than all of this file

    digest = blake2b(digest_size=16)
    for i in range(source.n_blocks):
        block = source.block(i)
        for _, piece in block.pieces(source.n_columns):
            for array in (*piece.rows, *(() if piece.weights is None else (piece.weights,))):
                digest.update(f"{i} {array.dtype.str} {array.shape} ".encode())
                digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
