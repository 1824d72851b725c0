"""Checks of arguments, each with one clear error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["finite_array", "floor", "non_negative", "one_of", "positive", "proportions", "symmetric", "whole"]

ASYMMETRY = 1e-10  # of the product of two standard deviations, beyond which a covariance was meant to be something else
UNSUMMED = 1e-8  # by how much weights may miss 1


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number of at least `least`, or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number >= {least}, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {value}")
    return int(value)


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return one of the allowed words, or raise."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def non_negative(name: str, value: Any) -> float:
    """Return a finite number >= 0, or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number >= 0, got {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
    return float(value)


def floor(value: Any, of: str = "variances of the columns") -> float:
    """Return the floor `reg` of variances, relative to those of the data, or raise."""
    reg = non_negative("reg", value)
    if reg >= 0.5:
        raise ValueError(f"reg must be below 0.5 (it is relative to the {of}), got {reg}")
    return reg


def positive(name: str, value: Any) -> float:
    """Return a finite number > 0, or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number > 0, got {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}")
    return float(value)


def finite_array(name: str, value: Any, shapes: Mapping[str, tuple[Any, ...]]) -> NDArray[np.float64]:
    """Return a fresh finite float64 array of one of the shapes, each with what it is for; a word in a shape is any length >= 1.

    Raises
    ------
    ValueError
    """
    try:
        given = np.asanyarray(value)
        if given.dtype.kind == "c" or isinstance(given, np.ma.MaskedArray):
            raise TypeError("complex numbers and masked arrays are not")
        with np.errstate(over="ignore"):  # what float64 cannot hold is not finite
            array = np.array(given, dtype=np.float64, order="C", subok=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not an array of numbers: {error}") from None
    if not any(_fits(array.shape, shape) for shape in shapes.values()):
        texts = ((f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})", what) for what, shape in shapes.items())
        allowed = " or ".join(f"{shape} ({what})" if what else shape for shape, what in texts)
        raise ValueError(f"{name} must have shape {allowed}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[Any, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        n == want or (isinstance(want, str) and n > 0) for n, want in zip(shape, wanted, strict=True)
    )


def proportions(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return shares (..., m), the first axis of which runs over components, that are not negative and sum to 1, or raise."""
    if (values < 0).any():
        c, *at = np.unravel_index(np.argmin(values), values.shape)
        raise ValueError(f"{name} must be >= 0, that of component {c}{_at(at)} is {values.min()}")
    sums = values.sum(axis=-1)
    wrong = np.argwhere(np.abs(sums - 1.0) > UNSUMMED)
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        whose = f"those of component {at[0]}{_at(at[1:])}" if at else "they"
        raise ValueError(f"{name} must sum to 1, {whose} sum to {sums[at]:.17g}")
    return values


def _at(index: Iterable[Any]) -> str:
    """Return where in the array of a component something is."""
    places = ", ".join(str(int(i)) for i in index)
    return f" at [{places}]" if places else ""


def symmetric(name: str, matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return covariance matrices (..., d, d) made symmetric to the last bit, or raise where it is not rounding."""
    transposed = np.swapaxes(matrices, -1, -2)
    sizes = np.sqrt(np.abs(np.diagonal(matrices, axis1=-2, axis2=-1)))
    if (np.abs(matrices - transposed) > ASYMMETRY * sizes[..., :, None] * sizes[..., None, :]).any():
        raise ValueError(f"{name} must be symmetric")
    return 0.5 * matrices + 0.5 * transposed


def listener(callback: Any) -> None:
    """Raise unless a callback can be called, or is None."""
    if not (callback is None or callable(callback)):
        raise TypeError(f"callback must be callable or None, got {callback!r}")
