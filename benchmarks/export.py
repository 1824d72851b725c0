"""Write the newest benchmark run of this machine as tables for people: what is tracked in ``results/``.

``results.csv`` has one line a number (benchmark, params, value, unit); ``machine.json`` says which machine, tools and commit
made them. Raw runs of asv stay out of the repository: they name paths and hosts.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

import emcore

if TYPE_CHECKING:
    from asv.results import Results

HERE = Path(__file__).parent
RESULTS = HERE / "results"
UNITS = {"time": "s", "timeraw": "s", "memory": "bytes", "peakmemory": "bytes"}


def newest(folder: Path, machine: str | None = None) -> Results:
    """Return the newest run in asv's folder of results, of one machine or of any but the one of quick runs."""
    from asv.results import iter_results

    runs = list(iter_results(str(folder)))
    runs = [run for run in runs if (run.params["machine"] == machine if machine else run.params["machine"] != "quick")]
    if not runs:
        sys.exit(f"no benchmark run in {folder}: run `make bench` first")
    return max(runs, key=lambda run: max(run.started_at.values(), default=0))


def rows(run: Results, benchmarks: dict[str, Any]) -> Iterator[tuple[str, str, float | None, str]]:
    """Yield (benchmark, params, value, unit) of each case; the value is None where it failed, NaN where it was skipped.

    A benchmark that is no more, in a run of an older commit, is left out.
    """
    for name in sorted(set(run.get_all_result_keys()) & set(benchmarks)):
        about = benchmarks[name]
        params = run.get_result_params(name)
        combinations = list(itertools.product(*params))
        values = run.get_result_value(name, params) or [None] * len(combinations)
        unit = UNITS.get(about["type"], about["unit"])
        for value, combination in zip(values, combinations, strict=True):
            # asv keeps the text of each parameter: 'full' with its quotes.
            words = [f"{n}={text.strip(chr(39))}" for n, text in zip(about["param_names"], combination, strict=True)]
            yield name, "; ".join(words), value, unit


def first_line(*command: str) -> str:
    """Return the first line that a command prints, or nothing where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.partition("\n")[0].strip()


def compiler(build: str | None) -> str:
    """Return the C compiler: that of the build directory, else what `cc` is now."""
    try:
        about = json.loads((Path(build or "") / "meson-info" / "intro-compilers.json").read_text())
        found = about["host"]["c"]
        return found.get("full_version") or f"{found['id']} {found['version']}"
    except (OSError, KeyError, ValueError):
        return first_line(os.environ.get("CC", "cc"), "--version")


def system() -> str:
    """Return the name of the operating system and its kernel."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = f"{platform.system()} {platform.mac_ver()[0]}".strip()
    return f"{name}, {platform.system()} {platform.release().partition('-')[0]}"


def cpu_flags() -> str:
    """Return which of the vector extensions that matter here the CPU has."""
    wanted = ("sse2", "avx2", "fma", "avx512f", "avx512dq", "avx512vl", "avx512bw", "asimd", "sve")
    try:
        text = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return ""
    return " ".join(flag for flag in wanted if flag in text)


def machine(run: Results, build: str | None) -> dict[str, Any]:
    """Return what the numbers depend on."""
    about = run.params
    # What this writes is no change of what was measured.
    status = "git", "status", "--porcelain", "--untracked-files=no"
    dirty = bool(first_line(*status, "--", ":/", ":(exclude,top)benchmarks/results"))
    return {
        "commit": run.commit_hash,
        "changed_since_commit": dirty,
        "date": datetime.fromtimestamp(max(run.started_at.values()) / 1000, UTC).date().isoformat(),
        "emcore": emcore.__version__,
        "cpu": about["cpu"],
        "cpu_flags": cpu_flags(),
        "cpu_target": emcore.kernels.target(),
        "cores": int(about["num_cpu"]),
        "ram_gb": round(int(about["ram"]) / 1e9, 1),
        "threads": emcore.kernels.default_threads(),
        "os": system(),
        "compiler": compiler(build),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def main() -> None:
    """Write both files, or count what a run gave."""
    from asv.config import Config

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", help="build directory of meson, to name the compiler")
    parser.add_argument("--count", metavar="MACHINE", help="write nothing; fail unless the run filed there gave numbers")
    options = parser.parse_args()
    folder = HERE / Config.load(str(HERE / "asv.conf.json")).results_dir
    run = newest(folder, options.count)
    cases = list(rows(run, json.loads((folder / "benchmarks.json").read_text())))
    failed = [f"{name} ({params})" for name, params, value, _ in cases if value is None]
    measured = [case for case in cases if case[2] is not None and not math.isnan(case[2])]
    names = {name for name, *_ in measured}
    skipped = len(cases) - len(measured) - len(failed)
    print(f"{len(names)} benchmarks ran and gave {len(measured)} numbers; {skipped} cases skipped, {len(failed)} failed")
    if failed or not measured:
        sys.exit("failed: " + ", ".join(failed) if failed else "no benchmark gave a number")
    if options.count:
        return
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / "results.csv", "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("benchmark", "params", "value", "unit"))
        out.writerows((name, params, f"{value:.6g}", unit) for name, params, value, unit in measured)
    (RESULTS / "machine.json").write_text(json.dumps(machine(run, options.build), indent=2) + "\n")
    print(f"those of commit {run.commit_hash[:8]} are in {os.path.relpath(RESULTS)}")


if __name__ == "__main__":
    main()
