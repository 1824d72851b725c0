"""How many threads a pass has, and how many the BLAS has beside it.

Between passes NumPy and SciPy work on matrices of the size of the parameters. With threads of its own their BLAS waits for
cores that the threads of the last pass still hold, for tens of milliseconds a call, and its sums depend on their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import RLock, Thread, get_ident
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

    It needs threadpoolctl, and limits nothing without it. Where the threads of a BLAS are the process's, the first of several
    Python threads that are inside takes them away, and the last one gives them back.
    """
    return nullcontext() if size < PARALLEL or _pools() is None else _SERIAL


class _Serial:
    """Limits on the BLAS, one for each Python thread that is inside, as often as it is.

    Each gives back what it found. That is too much for those that are inside still when it is the first one, and too little
    when another one was there before. What is done about either is done in a thread of its own that ends at once: where limits
    are a thread's own it changes nothing, and threadpoolctl lets a living thread alone change what it has limited.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._inside: list[tuple[int, Any]] = []
        self._first: Any = None  # the limit that found all threads there

    def __enter__(self) -> None:
        with self._lock:
            limit = _pools().limit(limits=1).__enter__()
            self._inside.append((get_ident(), limit))
            self._first = self._first or limit

    def __exit__(self, *error: Any) -> None:
        with self._lock:
            at = max(i for i, (thread, _) in enumerate(self._inside) if thread == get_ident())
            limit = self._inside.pop(at)[1]
            limit.__exit__(*error)
            if self._inside:
                if limit is self._first:
                    _apart(lambda: _pools().limit(limits=1))
                return
            if limit is not self._first:
                _apart(self._first.restore_original_limits)
            self._first = None

    def after_fork(self) -> None:
        """Forget the threads that a child does not have. What they limited goes with the next climb in it."""
        self._lock = RLock()
        self._inside = [item for item in self._inside if item[0] == get_ident()]


def _apart(call: Callable[[], Any]) -> None:
    thread = Thread(target=call)
    thread.start()
    thread.join()


_SERIAL = _Serial()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SERIAL.after_fork)


@cache
def _pools() -> Any:
    """Return threadpoolctl's view of the libraries that are loaded, or None."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    import scipy.linalg.blas  # noqa: F401  which may bring a BLAS of its own

    return ThreadpoolController().select(user_api="blas")
