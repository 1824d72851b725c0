"""Results as users keep them: with what was climbed, drawn, and in files.

A file is plain arrays and a line of JSON in NumPy's npz format, no pickle.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcore.result import Failure, Measures, Result, Status, Stop, Trace

__all__ = ["Kept", "fields_of", "not_saved", "read", "state_arrays", "write"]

READERS = {"emcore fit": "emcore.load", "emcore acceleration": "emcore.Acceleration.load"}  # by format, but its version
_PLAIN = ("value", "weight", "passes", "hessian_passes", "monitor_passes", "steps", "seconds", "solver", "start")


@dataclass(frozen=True)
class Kept(Result):
    """A result that knows what was climbed and from where.

    Attributes
    ----------
    start : str
        How or where the climb began, in words.
    subject : str
        What was climbed, in words.
    """

    start: str = field(default="", kw_only=True)

    @property
    def subject(self) -> str:
        raise NotImplementedError

    def lines(self) -> list[str]:
        out = super().lines()
        out.insert(1, f"  {self.subject}, started from {self.start}" if self.start else f"  {self.subject}")
        return out

    def plot(self, path: str | os.PathLike[str], *, title: str | None = None) -> None:
        """Write the picture of the climb: the gap to where it ended, and what the rules saw, against passes; events are marked.

        Parameters
        ----------
        path : path
            Its extension tells the format: .png, .svg or .pdf. An existing file is replaced in one move.
        title : str, optional
            In place of the solver and what was climbed.

        Raises
        ------
        ValueError
            When the extension is another.
        ImportError
            When matplotlib is not installed.
        """
        from emcore import plot

        plot.check(path)
        plot.save(plot.climb(self, title=title or f"{self.solver}, {self.subject}"), path)


def state_arrays(state: Any) -> Mapping[str, NDArray[Any]]:
    """Return the state of a result as plain arrays; that of a result from a file is so already."""
    return state if isinstance(state, Mapping) else state.arrays()


def write(
    path: str | os.PathLike[str],
    kind: str,
    result: Result,
    meta: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    plain: Callable[[Any], Any] | None = None,
) -> None:
    """Write a result to one file; ``.npz`` is added when it has no suffix, an existing file is replaced in one move.

    Parameters
    ----------
    path : path
    kind : str
        The format, with its version.
    result : Result
    meta, arrays : mapping
        What this kind of result has beside.
    plain : callable, optional
        Returns what stands in the line of JSON in the place of what JSON does not know.
    """
    from pathlib import Path  # which a plain import does not load

    from emcore.files import replacing

    path = Path(path)
    if not path.suffix:
        path = path.with_suffix(".npz")
    failure = result.failure
    line = {
        "format": kind,
        **{name: None if (x := getattr(result, name)) != x else x for name in _PLAIN},  # NaN: the value of a map without one
        "status": result.status.name,
        "failure": None if failure is None else [failure.status.name, *failure[1:]],
        "boundary": list(result.boundary),
        **meta,
    }
    everything = {
        "theta": result.theta,
        "trace": result.trace.array,
        "meta": np.array(json.dumps(line, allow_nan=False, default=plain)),
        "measures": np.array(result.measures),
        "stop": np.array([getattr(result.stop, f.name) for f in fields(Stop)]),
        **arrays,
        **{f"state.{n}": a for n, a in state_arrays(result.state).items()},
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **everything)


def read(path: str | os.PathLike[str], kind: str, what: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the line of JSON of a file.

    Raises
    ------
    ValueError
        When it is no file of this kind; `what` says what was expected.
    OSError
        When it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays["meta"]))
        found = meta["format"]
        if found != kind:
            family = found.rpartition(" ")[0]
            other = f": {READERS[family]} reads it" if family in READERS and not kind.startswith(family) else ""
            raise ValueError(f"its format is {found!r}, not {kind!r}{other}")
    except OSError:
        raise
    except Exception as error:
        raise not_saved(path, what, error) from None
    return arrays, meta


def not_saved(path: Any, what: str, error: Exception) -> ValueError:
    """Return the error of a file that does not hold what was expected."""
    why = f"it has no {error}" if isinstance(error, KeyError) else error
    return ValueError(f"{path} is not {what} of this version: {why}")


def fields_of(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `Result`, but its point, from what `read` gave."""
    failure = meta["failure"] and Failure(Status[meta["failure"][0]], *meta["failure"][1:])
    return {
        "status": Status[meta["status"]],
        "failure": failure,
        "trace": Trace(arrays["trace"]),
        "measures": Measures(*arrays["measures"].tolist()),
        "stop": Stop(*arrays["stop"].tolist()),
        "boundary": tuple(meta["boundary"]),
        "state": {n.removeprefix("state."): a for n, a in arrays.items() if n.startswith("state.")},
        **{name: math.nan if meta[name] is None else meta[name] for name in _PLAIN},
    }
