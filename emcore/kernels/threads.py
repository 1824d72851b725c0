"""How many threads a pass has, and how many the BLAS has beside it.

Between passes NumPy and SciPy work on matrices of the size of the parameters. With threads of its own their BLAS waits for
cores that the threads of the last pass still hold, for tens of milliseconds a call, and its sums depend on their number.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from emcore._checks import whole
from emcore.kernels._base import openmp_threads

__all__ = ["default_threads", "serial_blas", "thread_count"]

MOST = 1 << 16  # threads: more than any machine has cores
PARALLEL = 64  # columns of a square matrix below which the BLAS uses one thread anyhow


def default_threads() -> int:
    """Return the number of threads a pass uses unless told.

    That is EMCORE_NUM_THREADS, or else what OpenMP would use in the calling thread: OMP_NUM_THREADS, what threadpoolctl has
    set, or the CPUs that the process may use.

    Raises
    ------
    ValueError
        When EMCORE_NUM_THREADS is not a whole number of at least 1.
    """
    text = os.environ.get("EMCORE_NUM_THREADS", "").strip()
    if not text:
        return openmp_threads()
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"EMCORE_NUM_THREADS must be a whole number >= 1, got {text!r}")
    return min(int(text), MOST)


def thread_count(n_threads: int | None) -> int:
    """Return a number of threads that was asked for, None standing for the default, or raise."""
    return default_threads() if n_threads is None else min(whole("n_threads", n_threads), MOST)


def serial_blas(size: int) -> AbstractContextManager[Any]:
    """Return a context in which the BLAS has one thread, where work on `size` columns would get more.

    It needs threadpoolctl, and limits nothing without it; of several Python threads at once it heeds the first.
    """
    pools = _pools() if size >= PARALLEL else None
    return nullcontext() if pools is None else pools.limit(limits=1)


@cache
def _pools() -> Any:
    """Return threadpoolctl's view of the libraries that are loaded, or None."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    import scipy.linalg.blas  # noqa: F401  which may bring a BLAS of its own

    return ThreadpoolController().select(user_api="blas")
