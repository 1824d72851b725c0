"""Tables in files: the numeric columns of a CSV, TSV, NPY or Parquet file as one matrix."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXTENSIONS", "Table", "read_table"]

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")
EXTENSIONS = (*DELIMITERS, ".npy", *PARQUET)


class Table(NamedTuple):
    """What `read_table` read.

    Attributes
    ----------
    X : ndarray (n, d)
        float32 where all columns are that, else float64; of a NPY file a read-only memory map in the type of the file.
    names : tuple of str
        Names of the d columns; "0", "1", ... where the file has none.
    left_out : tuple of str
        Names of the columns that are not numeric, and of an unnamed first column of row numbers.
    """

    X: NDArray[Any]
    names: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def read_table(path: str | os.PathLike[str], columns: Iterable[str | int] | None = None) -> Table:
    """Return the numeric columns of a file, with the names of those and of the columns left out.

    Parameters
    ----------
    path : path
        Its extension tells the format: .csv, .tsv, .npy, .parquet (or .pq).
    columns : iterable of str or int, optional
        Names or indices of the columns to read, in this order; by default all numeric ones. A text that is no column name
        but a whole number counts as an index.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        When the file cannot be read, is of an unknown format, is empty or ragged, has no numeric column, a chosen column
        does not exist or is not numeric, or a value is missing or not finite (its row and column are named).
    ImportError
        When the format needs pyarrow, which is not installed.

    Notes
    -----
    A text file has a header unless every entry of its first row is a number. Rows are counted from 0, the header aside. A
    column without a name is called by its index; where it is the first and numbers the rows, as R and pandas write it, it is
    left out.
    """
    path = Path(path)
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        raise ValueError(f"{path}: the extension must be one of {', '.join(EXTENSIONS)}, got {extension or 'none'!r}")
    wanted = None if columns is None else [columns] if isinstance(columns, (str, int)) else list(columns)
    if wanted == []:
        raise ValueError("columns is empty: name at least one, or leave it out to take all numeric ones")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise ValueError(f"{path}: the file is empty")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    if extension == ".npy":
        return _npy(path, wanted)
    return _arrow(path, wanted, extension)


def _npy(path: Path, wanted: list[str | int] | None) -> Table:
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError(f"{path}: is not a NPY file")
    try:
        X = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: is not a NPY file of numbers: {error}") from None
    if X.dtype.kind not in "fiub":
        raise ValueError(f"{path}: has no numeric column: it holds {X.dtype}")
    if X.ndim == 1:
        X = X.reshape(-1, 1)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"{path}: must hold a table (rows, columns) that is not empty, its shape is {X.shape}")
    names = tuple(str(j) for j in range(X.shape[1]))
    if wanted is None:
        return Table(X, names)
    chosen = _choose(path, wanted, names)
    return Table(_columns(X, chosen), tuple(names[j] for j in chosen))


def _columns(X: NDArray[Any], chosen: list[int]) -> NDArray[Any]:
    """Return some columns, without copying where they are evenly spaced: a memory map stays one."""
    steps = set(np.diff(chosen).tolist())
    if len(chosen) == 1 or (len(steps) == 1 and min(steps) > 0):
        return X[:, chosen[0] : chosen[-1] + 1 : steps.pop() if steps else 1]
    return X[:, chosen]


def _arrow(path: Path, wanted: list[str | int] | None, extension: str) -> Table:
    try:
        import pyarrow as pa
    except ImportError:
        raise ImportError(f"reading {extension} files needs pyarrow: pip install emcore[cli]") from None
    try:
        if extension in PARQUET:
            from pyarrow import parquet

            with parquet.ParquetFile(path) as file:
                names = _named(file.schema_arrow.names)
                chosen, left_out = _select(path, wanted, names, file.schema_arrow)
                # Columns of a Parquet file are asked for by name; where names repeat, the whole is read.
                unique = len(set(file.schema_arrow.names)) == len(names)
                table = file.read(columns=[file.schema_arrow.names[j] for j in chosen] if unique else None)
            table = table if unique else table.select(chosen)
        else:
            table = _text(path, DELIMITERS[extension])
            names = _named(table.column_names)
            if table.num_rows and wanted is None and not table.column_names[0].strip() and _numbers_rows(table.column(0)):
                table, numbers, names = table.remove_column(0), names[:1], names[1:]
            else:
                numbers = ()
            chosen, left_out = _select(path, wanted, names, table.schema, table)
            table, left_out = table.select(chosen), numbers + left_out
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    names = tuple(names[j] for j in chosen)
    narrow = all(field.type == pa.float32() for field in table.schema)
    X = np.empty((table.num_rows, len(names)), dtype=np.float32 if narrow else np.float64)
    if 0 in X.shape:
        raise ValueError(f"{path}: has no rows")
    for j, name in enumerate(names):
        X[:, j] = _values(path, table.column(j), name, pa.float32() if narrow else pa.float64())
    return Table(X, names, left_out)


def _named(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names without blanks around them, an index where there is none."""
    return tuple(name.strip() or str(j) for j, name in enumerate(names))


def _numbers_rows(column: Any) -> bool:
    """Tell whether a column just counts the rows, from 0 or 1."""
    from pyarrow import types

    if not types.is_integer(column.type) or column.null_count:
        return False
    values = column.to_numpy()
    return bool(values[0] in (0, 1) and np.array_equal(values, np.arange(len(values)) + values[0]))


def _text(path: Path, delimiter: str) -> Any:
    """Return the pyarrow table of a text file."""
    from pyarrow import csv as arrow_csv

    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = next((row for row in csv.reader(file, delimiter=delimiter) if row), None)
    if first is None:
        raise ValueError(f"{path}: has no rows")
    return arrow_csv.read_csv(
        path,
        read_options=arrow_csv.ReadOptions(column_names=[str(j) for j in range(len(first))] if _all_numbers(first) else None),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter),
    )


def _all_numbers(entries: Sequence[str]) -> bool:
    """Tell whether every entry that is not empty is a number, and some are."""
    there = [entry for entry in entries if entry.strip()]
    try:
        for entry in there:
            float(entry)
    except ValueError:
        return False
    return bool(there)


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)


def _select(
    path: Path, wanted: list[str | int] | None, names: tuple[str, ...], schema: Any, table: Any = None
) -> tuple[list[int], tuple[str, ...]]:
    """Return the indices of the columns to read and the names of those left out because they are not numeric."""
    if table is not None and table.num_rows == 0:
        raise ValueError(f"{path}: has no rows")
    kinds = [schema.field(j).type for j in range(len(names))]
    if wanted is None:
        numeric = [j for j, kind in enumerate(kinds) if _is_number(kind)]
        if not numeric:
            found = ", ".join(f"{name!r} ({kind})" for name, kind in zip(names, kinds, strict=True)) or "none"
            raise ValueError(f"{path}: has no numeric column; its columns: {found}")
        return numeric, tuple(name for j, name in enumerate(names) if j not in set(numeric))
    chosen = _choose(path, wanted, names)
    for j in chosen:
        if not _is_number(kinds[j]):
            culprit = _first_text(table.column(j)) if table is not None else ""
            raise ValueError(f"{path}: column {names[j]!r} is not numeric, it holds {kinds[j]}{culprit}")
    return chosen, ()


def _first_text(column: Any) -> str:
    """Return where the first entry that is no number stands, in words."""
    for row, value in enumerate(column.to_pylist()):
        if value is not None:
            try:
                float(value)
            except (TypeError, ValueError):
                return f": row {row} is {value!r}"
    return ""


def _choose(path: Path, wanted: list[str | int], names: tuple[str, ...]) -> list[int]:
    """Return the indices of the columns asked for by name or index."""
    chosen = []
    for column in wanted:
        text = column.strip() if isinstance(column, str) else column
        if isinstance(text, str) and names.count(text) > 1:
            raise ValueError(f"{path}: {names.count(text)} columns are named {text!r}: choose one by its index")
        if isinstance(text, str) and text in names:
            j = names.index(text)
        else:
            try:
                j = int(text)
            except (TypeError, ValueError):
                j = -1
            if isinstance(text, bool) or not 0 <= j < len(names):
                raise ValueError(f"{path}: has no column {column!r}; its columns: {', '.join(names)}")
        if j in chosen:
            raise ValueError(f"{path}: column {names[j]!r} is chosen twice")
        chosen.append(j)
    return chosen


def _values(path: Path, column: Any, name: str, kind: Any) -> NDArray[Any]:
    """Return the values of one column, or say where one is missing or not finite."""
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        more = f"; {column.null_count - 1} more in this column" if column.null_count > 1 else ""
        raise ValueError(
            f"{path}: row {row}, column {name!r} is missing{more} (rows counted from 0, the header aside); "
            "drop or impute such rows first"
        )
    values = column.cast(kind, safe=False).to_numpy()
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(
            f"{path}: row {row}, column {name!r} is {values[row]}, not finite (rows counted from 0, the header aside)"
        )
    return values
