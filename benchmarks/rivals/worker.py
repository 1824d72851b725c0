"""One measurement in a process of its own: ``python -m rivals.worker`` reads a job from stdin and prints what it found.

So the peak of the memory is that of one fit, and no library disturbs another by its threads or its allocator.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from rivals.rival import Fit, NotAvailable, NotSupported, Parameters, clock, mean_log_likelihood, reset_peak, resident

PAUSE = 0.3  # seconds before each timing: workers of OpenBLAS and OpenMP spin for a while after they were used
TINY = 400  # rows of the fit that loads and compiles things


class Rival:
    """One library on one workload."""

    def __init__(self, job: dict[str, Any]):
        self.module = importlib.import_module(f"rivals.{job['module']}")
        self.covariance, self.threads = job["covariance"], job["threads"]
        folder = Path(job["folder"])
        start = Parameters(**np.load(folder / "start.npz"))
        tiny = np.random.default_rng(0).standard_normal((TINY, 2)).astype(job["dtype"])
        shape = {"full": (2, 2, 2), "tied": (2, 2), "diag": (2, 2), "spherical": (2,)}[self.covariance]
        eye = np.broadcast_to(np.eye(2) if len(shape) > 1 and self.covariance != "diag" else 1.0, shape).copy()
        self._fit(tiny, Parameters(np.full(2, 0.5), tiny[:2].astype(float), eye), 1)
        self.X, self.start = np.load(folder / "X.npy"), start

    def _fit(self, X: np.ndarray, start: Parameters, steps: int) -> Fit:
        return self.module.fit(X, start, self.covariance, steps, self.threads)

    def fit(self, steps: int) -> Fit:
        time.sleep(PAUSE)
        return self._fit(self.X, self.start, steps)


def check(job: dict[str, Any]) -> dict[str, Any]:
    """Return the log-likelihood after some steps, the peak memory above the data, and roughly the time of a step."""
    rival = Rival(job)
    before = resident("VmRSS")
    reset_peak()
    done = rival.fit(job["steps"])
    memory = done.memory if done.memory is not None else resident("VmHWM") - before
    value = mean_log_likelihood(rival.X, done.parameters, rival.covariance)
    return {"value": value, "memory": memory, "seconds": done.seconds / job["steps"], "version": done.version}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of an iteration, or of a whole fit where `few` is 0: medians of as many as the budget allows."""
    rival, few, many = Rival(job), job["few"], job["many"]
    rival.fit(few or many)  # what is compiled for this size, and pages that are touched first
    found: list[float] = []
    begin = time.perf_counter()
    for _ in range(25):
        if found and time.perf_counter() - begin >= job["budget"]:
            break
        short = rival.fit(few).seconds if few else 0.0
        seconds = (rival.fit(many).seconds - short) / (many - few if few else 1)
        if seconds > 0:  # else something held up the shorter fit
            found.append(seconds)
    if not found:
        raise RuntimeError("the longer fits never took longer than the shorter ones")
    return {"seconds": median(found)}


def machine(job: dict[str, Any]) -> dict[str, Any]:
    """Return the rate of NumPy's matrix product in operations per second, the best of three."""
    m = job["size"]
    A, B = (np.random.default_rng(i).standard_normal((m, m)).astype(job["dtype"]) for i in range(2))
    C = A @ B
    times = []
    for _ in range(3):
        time.sleep(PAUSE)
        with clock() as product:
            np.matmul(A, B, out=C)
        times.append(product.seconds)
    return {"rate": 2.0 * m**3 / min(times)}


def main() -> None:
    job = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[: job["threads"]])  # JAX asks for no number of threads but looks at this
    try:
        found = {"check": check, "measure": measure, "machine": machine}[job["task"]](job)
    except (NotAvailable, NotSupported) as no:
        found = {"no": "not installed" if isinstance(no, NotAvailable) else "not supported", "why": str(no)}
    print(json.dumps(found), file=answer, flush=True)


if __name__ == "__main__":
    main()
