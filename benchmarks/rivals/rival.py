"""What every rival gets and gives back, and the log-likelihood by which they are compared."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

CHUNK = 20_000  # rows of one step of the reference log-likelihood


class NotAvailable(Exception):
    """The library, or the compiler it needs, is not installed."""


class NotSupported(Exception):
    """The library cannot do this: a covariance type, a dtype, a size."""


class Parameters(NamedTuple):
    """Weights (k,), means (k, d) and covariances: full (k, d, d), tied (d, d), diag (k, d), spherical (k,)."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


class Fit(NamedTuple):
    """What `steps` EM steps gave.

    `seconds` is wall time of the steps and of the library's own set-up, without imports, compilation, and copies that only
    our way of calling it makes. `memory` is the peak above the data in bytes where the library runs in a process of its own.
    """

    parameters: Parameters
    seconds: float
    version: str
    memory: int | None = None


def need(name: str) -> Any:
    """Return a module, or raise `NotAvailable`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotAvailable(str(error)) from error


def supports(covariance: str, *kinds: str) -> None:
    if covariance not in kinds:
        raise NotSupported(f"{covariance} covariances")


class Clock:
    seconds = 0.0


@contextmanager
def clock() -> Iterator[Clock]:
    """Measure the wall time of the body."""
    measured, begin = Clock(), time.perf_counter()
    yield measured
    measured.seconds = time.perf_counter() - begin


def resident(field: str) -> int:
    """Return the resident memory of this process in bytes, now ("VmRSS") or at its peak ("VmHWM")."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def reset_peak() -> None:
    """Let the peak of the resident memory begin anew."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def mean_log_likelihood(X: np.ndarray, at: Parameters, covariance: str) -> float:
    """Return the mean log-density of the rows, in float64 and by the textbook: the same judge for all rivals."""
    k, d = at.means.shape
    means = np.asarray(at.means, dtype=np.float64)
    C = np.asarray(at.covariances, dtype=np.float64)
    if covariance in ("diag", "spherical"):
        C = C.reshape(k, -1, 1) * np.eye(d)
    whitening = np.linalg.inv(np.linalg.cholesky(np.broadcast_to(C, (k, d, d))))
    norms = np.log(np.einsum("kii->ki", whitening)).sum(axis=1) - 0.5 * d * np.log(2 * np.pi)
    with np.errstate(divide="ignore"):
        norms += np.log(np.asarray(at.weights, dtype=np.float64))
    total = 0.0
    for i in range(0, len(X), CHUNK):
        rows = X[i : i + CHUNK].astype(np.float64)
        logs = np.stack([norms[c] - 0.5 * np.square((rows - means[c]) @ whitening[c].T).sum(axis=1) for c in range(k)])
        top = logs.max(axis=0)
        total += np.sum(top + np.log(np.exp(logs - top).sum(axis=0)))
    return total / len(X)
