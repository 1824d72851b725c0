"""The rows of a run as tables and files."""

from __future__ import annotations

import csv
import datetime
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import argparse

Row = dict[str, Any]

COLUMNS = (
    "workload", "n", "d", "k", "covariance", "dtype", "overlap", "threads", "rival", "version", "status", "steps",
    "log_likelihood", "difference", "seconds", "lowest", "highest", "rounds", "ratio", "memory", "fraction",
    "dgemm_one", "dgemm",
)  # fmt: skip
EXACT = {"log_likelihood": 15}  # digits; 4 of other numbers
WORDS = ("workload", "covariance", "dtype", "rival", "version", "status")


def cell(row: Row | None, key: str, form: Callable[[float], str]) -> str:
    """Return a number of a row, or why there is none."""
    if row is None:
        return ""
    return form(row[key]) if row.get(key) is not None else row["status"] if row["status"] != "ok" else "-"


def digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:,.0f}"


def table(head: list[str], body: list[list[str]], *, markdown: bool) -> str:
    if markdown:
        lines = [head, ["---", *["--:"] * (len(head) - 1)], *body]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in [head, *body]
    )


def fastest(rows: list[Row]) -> Row | None:
    """Return the fastest row that is not emcore's."""
    timed = [row for row in rows if row.get("seconds") and not row["rival"].startswith("emcore")]
    return min(timed, key=lambda row: row["seconds"], default=None)


def tables(rows: list[Row], *, markdown: bool = False) -> str:
    """Return times, ratios, fractions of DGEMM, memory and differences, a column each workload."""
    workloads = {row["workload"]: row for row in rows}
    rivals = list(dict.fromkeys(row["rival"] for row in rows))
    at = {(row["rival"], row["workload"]): row for row in rows}
    first = rows[0]
    kinds = [
        ("milliseconds an EM iteration (G: a whole fit of 100)", "seconds", lambda v: digits(1e3 * v)),
        ("times as long as emcore", "ratio", digits),
        ("fraction of the matrix product's rate, 2 n k d (d + 1) operations", "fraction", "{:.2f}".format),
        ("peak memory above the data, MB", "memory", lambda v: digits(v / 1e6)),
        ("relative difference of the log-likelihood from emcore's", "difference", "{:.0e}".format),
    ]
    data = f"{first['dtype']}, {first['threads']} threads, {'overlapping' if first['overlap'] else 'separated'} components"
    about = ["", "n", "d", "k", "covariance", "GFLOP/s, one thread", f"{first['threads']} threads"]
    sizes = []
    for name in workloads:
        row = at["emcore", name]
        rates = [cell(row, c, lambda v: digits(v / 1e9)) for c in ("dgemm_one", "dgemm")]
        sizes.append([name, *(f"{row[c]:,}" for c in ("n", "d", "k")), row["covariance"], *rates])
    parts = [(data, table(about, sizes, markdown=markdown))]
    for title, key, form in kinds:
        if not any(key in row for row in rows):
            continue
        body = [[rival, *(cell(at.get((rival, w)), key, form) for w in workloads)] for rival in rivals]
        if key == "ratio":
            best = [fastest([row for row in rows if row["workload"] == w]) for w in workloads]
            body.append(["fastest rival", *(f"{digits(row['ratio'])} ({row['rival']})" if row else "" for row in best)])
        parts.append((title, table(["", *workloads], body, markdown=markdown)))
    return "\n\n".join(f"{'**' if markdown else ''}{title}{'**' if markdown else ''}\n\n{text}" for title, text in parts)


def rounded(key: str, value: Any) -> Any:
    return f"{value:.{EXACT.get(key, 4)}g}" if isinstance(value, float) else value


def save(folder: Path, rows: list[Row], options: argparse.Namespace) -> None:
    """Write the rows and what they were measured on."""
    folder.mkdir(exist_ok=True)
    with open(folder / "rivals.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: rounded(key, value) for key, value in row.items()} for row in rows)
    (folder / "rivals.json").write_text(json.dumps(about(rows, options), indent=2) + "\n")


def load(path: Path) -> list[Row]:
    """Return saved rows."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    whole = ("n", "d", "k", "overlap", "threads", "steps", "rounds")
    read = {**dict.fromkeys(COLUMNS, float), **dict.fromkeys(WORDS, str), **dict.fromkeys(whole, int)}
    return [{key: read[key](value) for key, value in row.items() if value != ""} for row in rows]


def about(rows: list[Row], options: argparse.Namespace) -> dict[str, Any]:
    """Return machine, versions and settings of a run."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": {"cpu": cpu(), "cpus": len(os.sched_getaffinity(0)), "memory_gb": round(memory() / 1e9, 1),
                    "system": platform.system(), "architecture": platform.machine()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "blas": f"{blas['name']} {blas['version']}",
                     **{row["rival"].partition(",")[0]: row["version"] for row in rows if "version" in row}},
        "settings": {name: getattr(options, name)
                     for name in ("dtype", "threads", "overlap", "scale", "rounds", "seconds", "kept")},
    }  # fmt: skip


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpu() -> str:
    with open("/proc/cpuinfo") as file:
        return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), platform.processor())


def memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
