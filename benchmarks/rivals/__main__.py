"""Race emcore against other libraries and print the table of ratios: ``python benchmarks/rivals``.

First every rival takes the same steps from the same start, and the log-likelihoods it reaches are compared: one that differs
did other work and is not timed. Then comes one interleaved run: rounds in which every rival runs once, in changing order, each
in a process of its own, and with them the matrix product that says what the machine can do. Figures are medians of the
rounds, and ratios are between figures of one run only.

Libraries that allocate much in every iteration have two rows: with malloc as it is, and, named "kept", with malloc told to keep
what is freed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # not this folder, whose files are named after libraries

import numpy as np  # noqa: E402

from rivals import report  # noqa: E402
from rivals.workloads import USUAL, WORKLOADS, Workload, draw  # noqa: E402

RESULTS = HERE.parent / "results"
CHECKED = 5  # steps after which log-likelihoods are compared
LONG, SHORT = (5, 15), (1, 4)  # steps of the two fits whose difference is timed; SHORT for those slower than
SLOW = 0.1  # seconds a step
HOPELESS = 5.0  # seconds a step beyond which nothing is timed any more
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}  # relative difference of the log-likelihoods; libraries sum float32 carelessly

# First touch of memory is slow on virtual machines. "kept" lets libraries that allocate an (n, k) array in every iteration
# have it again from their own process instead.
KEPT = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}
KEPT_NAME = ", kept"  # added to the name of such a row; all others run with malloc as it is


@dataclass
class Rival:
    """One row of the table."""

    name: str
    module: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> Rival:
        return Rival(self.name + KEPT_NAME, self.module, KEPT)


EMCORE = Rival("emcore", "emcore_em")
RIVALS = (
    Rival("oneDAL", "onedal"),
    Rival("Numba", "numba_fused"),
    Rival("JAX quadratic", "jax_quadratic"),
    Rival("JAX Cholesky", "jax_cholesky"),
    Rival("PyTorch", "pytorch"),
    Rival("scikit-learn", "scikit_learn"),
    Rival("Armadillo", "armadillo"),
    Rival("mclust", "mclust"),
)
ALLOCATE = ("pytorch", "scikit_learn", "mclust")  # an (n, k) array or more in every iteration


class Failed(Exception):
    """A process that gave no answer: how it went, and why."""


def ask(job: dict[str, Any], environment: dict[str, str], timeout: float) -> dict[str, Any]:
    """Return the answer of a process that does the job."""
    threads = str(job["threads"])
    limits = dict.fromkeys(("OMP", "OPENBLAS", "MKL", "NUMBA", "EMCORE"), threads)
    set_ = {f"{name}_NUM_THREADS": value for name, value in limits.items()}
    command = [sys.executable, "-m", "rivals.worker"]
    try:
        done = subprocess.run(
            command, input=json.dumps(job), env={**os.environ, **set_, **environment}, cwd=HERE.parent,
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed("too slow", f"gave no answer in {timeout:g} s") from None
    if done.returncode or not done.stdout:
        raise Failed("failed", (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1])
    return json.loads(done.stdout)


def say(*words: Any) -> None:
    print(*words, file=sys.stderr, flush=True)


class Race:
    """All rivals on one workload."""

    def __init__(self, workload: Workload, rivals: list[Rival], options: argparse.Namespace, folder: str):
        self.workload, self.rivals, self.options = workload, rivals, options
        X, start = draw(workload, options.dtype, options.overlap)
        np.save(Path(folder, "X.npy"), X)
        np.savez(Path(folder, "start.npz"), **start._asdict())
        self.common = {
            "folder": folder, "covariance": workload.covariance, "dtype": options.dtype, "threads": options.threads,
            "budget": options.seconds,
        }  # fmt: skip
        self.rows: dict[str, dict[str, Any]] = {}

    def ask(self, rival: Rival, **job: Any) -> dict[str, Any]:
        job = {**self.common, "module": rival.module, **job}
        return ask(job, rival.environment, self.options.timeout)

    def check(self) -> None:
        """Let every rival take the same steps, and fill in all but the times."""
        w = self.workload
        steps = w.whole or CHECKED
        say(f"{w.name}: {w.n:,} x {w.d}, k = {w.k}, {w.covariance}, {self.options.dtype}; log-likelihoods after {steps} steps")
        value, out = None, {}
        for rival in self.rivals:
            row = {
                "workload": w.name, "n": w.n, "d": w.d, "k": w.k, "covariance": w.covariance, "dtype": self.options.dtype,
                "overlap": int(self.options.overlap), "threads": self.options.threads, "steps": w.whole or 1,
                "rival": rival.name, "status": "ok",
            }  # fmt: skip
            self.rows[rival.name] = row
            try:
                # What cannot do it with one setting of malloc cannot with the other.
                found = out.get(rival.name.removesuffix(KEPT_NAME)) or self.ask(rival, task="check", steps=steps)
            except Failed as failed:
                found = dict(zip(("no", "why"), failed.args, strict=True))
            if "no" in found:
                row["status"], out[rival.name] = found["no"], found
                say(f"  {rival.name:24} {found['no']} {found['why']}")
            else:
                value = found["value"] if value is None else value
                difference = abs(found["value"] - value) / abs(value)
                row |= {
                    "version": found["version"], "log_likelihood": found["value"], "difference": difference,
                    "memory": found["memory"], "rough": found["seconds"],
                }  # fmt: skip
                if not difference <= TOLERANCE[self.options.dtype]:
                    row["status"] = "other result"
                elif found["seconds"] > HOPELESS:
                    row["status"] = f"> {HOPELESS:g} s a step"
                say(f"  {rival.name:24} {found['value']:.12f}  difference {difference:.1e}  {row['status']}")
            if rival is EMCORE and row["status"] != "ok":
                sys.exit(f"emcore: {row['status']}")

    def run(self) -> None:
        """Time all whose result was right, in rounds."""
        options, whole = self.options, self.workload.whole
        racing = [r for r in self.rivals if self.rows[r.name]["status"] == "ok"]
        times: dict[str, list[float]] = {r.name: [] for r in racing}
        rates: dict[int, list[float]] = {1: [], options.threads: []}
        order = random.Random(0)
        for i in range(options.rounds):
            say(f"{self.workload.name}: round {i + 1} of {options.rounds}")
            runners: list[Rival | int] = [*racing, *rates]
            order.shuffle(runners)
            for runner in runners:
                try:
                    if isinstance(runner, int):
                        job = {"task": "machine", "size": options.size, "dtype": options.dtype, "threads": runner}
                        rates[runner].append(ask(job, {}, options.timeout)["rate"])
                        continue
                    few, many = (0, whole) if whole else SHORT if self.rows[runner.name]["rough"] > SLOW else LONG
                    found = self.ask(runner, task="measure", few=few, many=many)
                    times[runner.name].append(found["seconds"])
                except Failed as failed:
                    say(f"  {runner if isinstance(runner, int) else runner.name}:", *failed.args)
        emcore = median(times[EMCORE.name]) if times.get(EMCORE.name) else None
        rate = {threads: median(found) for threads, found in rates.items() if found}
        for name, found in times.items():
            row = self.rows[name]
            if not found or emcore is None:
                row["status"] = "failed"
                continue
            seconds = median(found)
            row |= {"seconds": seconds, "lowest": min(found), "highest": max(found), "ratio": seconds / emcore}
            row |= {"rounds": len(found), "dgemm_one": rate.get(1), "dgemm": rate.get(options.threads)}
            if self.workload.flops and options.threads in rate:
                row["fraction"] = self.workload.flops / seconds / rate[options.threads]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rivals", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=list(WORKLOADS), default=list(USUAL), metavar="W", help=f"of {', '.join(WORKLOADS)}")
    add("--rivals", nargs="+", choices=[r.module for r in RIVALS], default=[r.module for r in RIVALS], metavar="FILE",
        help="rivals by the names of their files; emcore always runs")  # fmt: skip
    add("--target", nargs="+", default=[], help="emcore once more on these CPU targets, such as avx2")
    add("--overlap", action="store_true", help="components that overlap: the spread of their means divided by ten")
    add("--dtype", choices=list(TOLERANCE), default="float64")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--scale", type=float, default=1.0, help="a factor of the number of rows, for a quick try")
    add("--rounds", type=int, default=5, help="0 compares log-likelihoods and memory only")
    add("--seconds", type=float, default=2.0, help="least time that each process measures for")
    add("--timeout", type=float, default=300.0, help="seconds after which a process is given up")
    add("--markdown", action="store_true", help="print the tables in Markdown")
    add("--save", action="store_true", help="write benchmarks/results/rivals.csv and rivals.json")
    add("--show", action="store_true", help="print the tables of the saved results and run nothing")
    options = parser.parse_args(arguments)
    options.kept = KEPT
    options.size = 4096 if options.scale >= 1 else 1024
    return options


def main() -> None:
    options = parse()
    if options.show:
        print(report.tables(report.load(RESULTS / "rivals.csv"), markdown=options.markdown))
        return
    rivals = [EMCORE, *(Rival(f"emcore, {t}", EMCORE.module, {"EMCORE_CPU": t}) for t in options.target)]
    for rival in RIVALS:
        if rival.module in options.rivals:
            rivals += [rival, rival.kept] if rival.module in ALLOCATE else [rival]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        # What is compiled is shared by the processes of this run, and by no other.
        os.environ |= {"RIVALS_CACHE": folder, "NUMBA_CACHE_DIR": folder, "XDG_CACHE_HOME": folder}
        for name in options.only:
            race = Race(WORKLOADS[name].scaled(options.scale), rivals, options, folder)
            race.check()
            if options.rounds:
                race.run()
            rows += race.rows.values()
            if options.save:  # after each: the run is long
                report.save(RESULTS, rows, options)
    print(report.tables(rows, markdown=options.markdown))


if __name__ == "__main__":
    main()
