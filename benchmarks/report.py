"""Write one page on EM against the gradient from the stored benchmark results; runs nothing.

Runs come from ``results/`` as it is now, from its earlier versions in git, and from asv's own folder where there is one. The
page shows the newest, and the course of all that the same kind of CPU made.
"""

from __future__ import annotations

import argparse
import base64
import csv
import html
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import matplotlib
from benchmarks.common import DETERMINISTIC, sizes
from benchmarks.convergence import MAX_PASSES, PROBLEMS
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from emcore.plot import STYLES

HERE = Path(__file__).parent
STEP, RATIO = "iteration.Iteration.time_iteration", "iteration.GradientOverEM.track_ratio"
PASSES, SECONDS = "convergence.Climb.track_passes", "convergence.Seconds.time_to_tolerance"
GAP, RATE, EM_RATE = "convergence.Climb.track_gap_after_20", "convergence.Climb.track_rate", "convergence.Rate.track_em_rate"
OVERHEAD = "iteration.TinyData.track_overhead"
SHOWN = (STEP, RATIO, PASSES, SECONDS, GAP, RATE, OVERHEAD)
COURSE = ("em", "gradient", "cg", "lbfgs", "auto")  # whose course over the commits is drawn
BY_GRADIENT = ("gradient", "cg", "lbfgs")
SEVERAL = 1.02  # within two in a hundred is as fast


class Run(NamedTuple):
    """The numbers of one commit: values by benchmark and parameters, and what they depend on."""

    commit: str
    when: datetime
    about: Mapping[str, Any]
    values: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def get(self, benchmark: str, **params: str) -> float:
        """Return a number, NaN where there is none."""
        return self.values.get((benchmark, frozenset(params.items())), math.nan)

    def table(self, benchmark: str, down: str, across: str, **params: str) -> dict[str, dict[str, float]]:
        """Return the numbers of a benchmark by two of its parameters, the others given."""
        out: dict[str, dict[str, float]] = {}
        for (name, key), value in self.values.items():
            found = dict(key)
            if name == benchmark and {down, across} <= set(found) and params.items() <= found.items():
                out.setdefault(found[down], {})[found[across]] = value
        return out


# Reading


def key(benchmark: str, params: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return the key of a case from the words in which it is stored, such as ``solver=em; problem=faithful full``."""
    return benchmark, frozenset(tuple(part.split("=", 1)) for part in params.split("; ") if part)


def from_csv(text: str, about: Mapping[str, Any]) -> Run:
    """Return the run that `export.py` wrote."""
    lines = csv.DictReader(io.StringIO(text))
    values = {key(line["benchmark"], line["params"]): float(line["value"]) for line in lines}
    when = git("show", "-s", "--format=%cI", about["commit"]) or f"{about['date']}T00:00:00+00:00"
    return Run(about["commit"], datetime.fromisoformat(when), about, values)


def git(*words: str, at: Path = HERE) -> str:
    """Return what git prints, or nothing where it fails."""
    try:
        return subprocess.run(("git", *words), cwd=at, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def tracked(folder: Path) -> list[Run]:
    """Return the run in a folder of results, and those that were there in earlier commits."""
    table, about = folder / "results.csv", folder / "machine.json"
    runs = []
    for commit in git("log", "--format=%H", "--", table.name, at=folder).split():
        old = [git("show", f"{commit}:./{path.name}", at=folder) for path in (table, about)]
        if all(old):
            runs.append(from_csv(old[0], json.loads(old[1])))
    if table.is_file():
        runs.append(from_csv(table.read_text(), json.loads(about.read_text())))
    return runs


def local(folder: Path, machine: str | None) -> list[Run]:
    """Return the runs in asv's folder: of one machine, or of any but the one of quick runs."""
    if not (folder / "benchmarks.json").is_file():
        return []
    from asv.results import iter_results
    from export import rows

    benchmarks = json.loads((folder / "benchmarks.json").read_text())
    runs = []
    for found in iter_results(str(folder)):
        about = {"cpu": found.params.get("cpu", ""), "commit": found.commit_hash}
        if not (found.params["machine"] == machine if machine else found.params["machine"] != "quick"):
            continue
        cases = rows(found, benchmarks)
        values = {key(name, params): value for name, params, value, _ in cases if value is not None and not math.isnan(value)}
        if values:
            runs.append(Run(found.commit_hash, datetime.fromtimestamp(found.date / 1000, UTC), about, values))
    return runs


def course(runs: Iterable[Run]) -> list[Run]:
    """Return one run a commit, the oldest first, of the kind of CPU that made the newest; a later one of the list wins."""
    ordered = sorted(runs, key=lambda run: run.when)
    if not ordered:
        return []
    same = [run for run in ordered if run.about.get("cpu") == ordered[-1].about.get("cpu")]
    merged: dict[str, Run] = {}
    for run in same:
        before = merged.get(run.commit)
        if before is None:
            merged[run.commit] = run
        else:
            merged[run.commit] = run._replace(about={**run.about, **before.about}, values={**before.values, **run.values})
    return list(merged.values())


# What the numbers say, in words


def summary(run: Run, runs: list[Run]) -> list[str]:
    """Return the sentences at the top of the page, each from numbers that there are."""
    return [text for part in (on_steps, on_passes, on_seconds, on_overhead) for text in part(run)] + on_course(runs)


def on_steps(run: Run) -> list[str]:
    ratios = run.table(RATIO, "size", "covariance")
    if not ratios:
        return []
    by_size = sorted(ratios, key=rows_of)
    least, most = (median(ratios[size].values()) for size in (by_size[-1], by_size[0]))
    return [
        f"A gradient takes {least:.2f} times as long as an EM step on the largest data ({by_size[-1]}) and {most:.2f} times "
        f"on the smallest ({by_size[0]}), in the median over covariances: the pass over the data is the same, and what is made "
        "of it counts only where the data are few."
    ]


def on_passes(run: Run) -> list[str]:
    passes = run.table(PASSES, "problem", "solver")
    both = {p: row for p, row in passes.items() if "em" in row and any(s in row for s in BY_GRADIENT)}
    if not both:
        return []
    out = []
    best = {p: min((row[s], s) for s in BY_GRADIENT if s in row) for p, row in both.items()}
    em_first = [p for p in ordered(both, PROBLEMS) if both[p]["em"] <= best[p][0]]
    others = [p for p in ordered(both, PROBLEMS) if p not in em_first]
    if em_first:
        told = ", ".join(f"{p} ({both[p]['em']:g} against {best[p][0]:g} of {best[p][1]})" for p in em_first)
        out.append(f"EM needs no more passes than the best method by gradients on {told}.")
    if others:
        told = ", ".join(f"{p} ({best[p][1]} {best[p][0]:g}, EM {shown(both[p]['em'])})" for p in others)
        out.append(f"A method by gradients needs fewer passes on {told}.")
    plain = [both[p]["gradient"] / both[p]["em"] for p in both if "gradient" in both[p] and both[p]["em"] > 0]
    if plain:
        out.append(
            f"Plain gradient ascent takes {min(plain):.1f} to {max(plain):.1f} times EM's passes: it is not what EM should be "
            "compared with."
        )
    auto = {p: row["auto"] / min(row[s] for s in ("em", "lbfgs") if s in row) for p, row in both.items() if "auto" in row}
    if auto:
        worst = max(auto, key=auto.__getitem__)
        out.append(
            f"auto takes {geometric_mean(auto.values()):.2f} times the passes of the better of EM and L-BFGS in the geometric "
            f"mean, {auto[worst]:.2f} at worst ({worst})."
        )
    return out


def on_seconds(run: Run) -> list[str]:
    seconds = run.table(SECONDS, "problem", "solver")
    rows = {p: row for p, row in seconds.items() if len(row) > 1}
    if not rows:
        return []
    fastest = {p: min(row, key=row.__getitem__) for p, row in rows.items()}
    told = ", ".join(f"{fastest[p]} on {p} ({milliseconds(rows[p][fastest[p]])})" for p in ordered(rows, PROBLEMS))
    return [f"On the clock, on data as small as these: {told}."]


def on_overhead(run: Run) -> list[str]:
    overhead = {dict(k)["solver"]: v for (name, k), v in run.values.items() if name == OVERHEAD}
    if not overhead:
        return []
    told = ", ".join(f"{s} {overhead[s]:.1f}" for s in COURSE if s in overhead)
    return [f"What a step costs beside its passes, in passes over 1,000 rows: {told}."] if told else []


def on_course(runs: list[Run]) -> list[str]:
    said = []
    for size in sorted({s for run in runs for s in run.table(STEP, "size", "step", covariance="full")}, key=rows_of)[-1:]:
        known = [r for r in runs if not math.isnan(r.get(STEP, size=size, step="em", covariance="full"))]
        if len(known) > 1:
            first, last = (r.get(STEP, size=size, step="em", covariance="full") for r in (known[0], known[-1]))
            said.append(
                f"From {known[0].commit[:8]} to {known[-1].commit[:8]} an EM step on {size}, full, went from "
                f"{milliseconds(first)} to {milliseconds(last)}; these are different runs: only large changes mean something."
            )
    return said


# Pictures and tables


def picture(figure: Figure, about: str) -> str:
    """Return a figure as part of the page."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "emcore"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(about)}" src="data:image/svg+xml;base64,{data}">'


def panels(n: int, height: float = 3.6) -> tuple[Figure, list[Any]]:
    """Return a figure of n panels in a row, at least two wide."""
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots(1, max(n, 2), squeeze=False)[0]
    for unused in axes[n:]:
        unused.set_visible(False)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(True, color="0.92")
        one.set_axisbelow(True)
    return figure, list(axes[:n])


def steps_section(run: Run) -> str:
    """Return what an EM step and a gradient cost, by size and covariance."""
    tables = {s: run.table(STEP, "size", "covariance", step=s) for s in ("em", "gradient")}
    found = sorted({size for table in tables.values() for size in table}, key=rows_of)
    if not found:
        return ""
    figure, axes = panels(len(found), 3.2)
    lines = []
    for one, size in zip(axes, found, strict=True):
        names = list(tables["em"].get(size) or tables["gradient"][size])
        for j, (what, table) in enumerate(tables.items()):
            y = [1e3 * table.get(size, {}).get(c, math.nan) for c in names]
            one.bar([i + 0.4 * j for i in range(len(names))], y, width=0.38, color=STYLES[j].colour, label=what)
        one.set_xticks([i + 0.2 for i in range(len(names))], names)
        one.set_title(size, fontsize=10)
        for c in names:
            em, gradient = (table.get(size, {}).get(c, math.nan) for table in tables.values())
            lines.append([size, c, milliseconds(em), milliseconds(gradient), f"{run.get(RATIO, covariance=c, size=size):.2f}"])
    axes[0].set_ylabel("milliseconds, one thread")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return section(
        "One iteration",
        "A pass and what is made of it, on one thread. The ratio is measured in turn in one process, the times are not.",
        picture(figure, "time of an EM step and of a gradient, by size and covariance"),
        grid(["data", "covariance", "EM step", "gradient", "gradient / EM"], lines, words=2),
    )


def climbs_section(run: Run, benchmark: str, title: str, text: str, label: str, cell: Any, scale: float = 1.0) -> str:
    """Return a picture and a table of solvers by problems."""
    found = run.table(benchmark, "solver", "problem")
    if not found:
        return ""
    solvers = ordered(found, DETERMINISTIC)
    problems = ordered({p for row in found.values() for p in row}, PROBLEMS)
    figure = Figure(figsize=(11, 1.4 + 0.27 * len(solvers)), layout="constrained")
    axes = figure.subplots()
    for j, p in enumerate(problems):
        style = STYLES[j % len(STYLES)]
        at = [(scale * found[s][p], i) for i, s in enumerate(solvers) if p in found[s]]
        axes.plot(*zip(*at, strict=True), style.marker, color=style.colour, linestyle="none", label=p, markersize=6, alpha=0.85)
    axes.set_yticks(range(len(solvers)), solvers)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.grid(True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    least = {p: min(row[p] for row in found.values() if p in row) for p in problems}
    lines = [
        [s] + [cell(found[s].get(p, math.nan), best=found[s].get(p, math.inf) <= SEVERAL * least[p]) for p in problems]
        for s in solvers
    ]
    return section(title, text, picture(figure, title), grid(["solver", *problems], lines, raw=True))


def rates_section(run: Run) -> str:
    """Return the observed rates, and EM's own from the derivative of its step."""
    found = run.table(RATE, "solver", "problem")
    if not found:
        return ""
    problems = ordered({p for row in found.values() for p in row}, PROBLEMS)
    lines = [["EM by theory, squared", *(three(run.get(EM_RATE, problem=p) ** 2) for p in problems)]]
    lines += [[s, *(three(found[s].get(p, math.nan)) for p in problems)] for s in ordered(found, DETERMINISTIC)]
    text = (
        "By what factor the gap to the best log-likelihood shrinks a pass, between gaps of 1e-4 and 1e-9. The first line is "
        "the square of the largest eigenvalue of the derivative of the EM step at the solution, to which EM's tends."
    )
    return section("Rates", text, grid(["solver", *problems], lines))


def overhead_section(run: Run) -> str:
    """Return what steps cost beside their passes."""
    found = {dict(k)["solver"]: v for (name, k), v in run.values.items() if name == OVERHEAD}
    if not found:
        return ""
    lines = [[s, f"{found[s]:.1f}"] for s in ordered(found, DETERMINISTIC)]
    text = (
        "In units of a bare pass over 1,000 rows of 2 columns with 3 components. Passes for Hessian products (newton, "
        "proximal) and those that only monitor (incremental) are in it."
    )
    return section("The solver's own overhead, a step", text, grid(["solver", "passes a step"], lines))


def course_section(runs: list[Run]) -> str:
    """Return how steps, passes and seconds went over the commits."""
    if len(runs) < 2:
        return section("Across commits", "One run is stored, that of this page; its course begins with the second.")
    found = sorted({s for run in runs for s in run.table(STEP, "size", "step", covariance="full")}, key=rows_of)
    shown_sizes = [found[0], found[-1]] if len(found) > 1 else found
    figure, axes = panels(len(shown_sizes) + 2, 3.4)
    x = range(len(runs))
    for one, size in zip(axes, shown_sizes, strict=False):
        for j, what in enumerate(("em", "gradient")):
            y = [1e3 * run.get(STEP, size=size, step=what, covariance="full") for run in runs]
            one.plot(x, y, color=STYLES[j].colour, marker=STYLES[j].marker, linestyle=STYLES[j].line, label=what)
        one.set_title(f"a step: {size}, full", fontsize=9)
        one.set_ylabel("milliseconds")
    for one, benchmark, what, scale in ((axes[-2], PASSES, "passes", 1.0), (axes[-1], SECONDS, "milliseconds", 1e3)):
        for j, solver in enumerate(COURSE):
            y = [scale * mean_over(run, benchmark, solver, runs[-1]) for run in runs]
            one.plot(x, y, color=STYLES[j].colour, marker=STYLES[j].marker, linestyle=STYLES[j].line, label=solver)
        one.set_title(f"{what} to 1e-6", fontsize=9)
        one.set_ylabel(f"{what}, mean")
        one.set_yscale("log")
        one.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        one.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        one.yaxis.set_minor_formatter(NullFormatter())
    for one in axes:
        one.set_xticks(list(x), [run.commit[:7] for run in runs], rotation=90 if len(runs) > 4 else 30, fontsize=8)
        if one.get_yscale() != "log":
            one.set_ylim(0, 1.08 * one.get_ylim()[1])
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    lines = [[run.commit[:8], f"{run.when:%Y-%m-%d}", str(len(run.values))] for run in runs]
    return section(
        "Across commits",
        f"{len(runs)} runs on {runs[-1].about.get('cpu', 'one machine')}, the oldest first. Means are geometric, over the "
        "problems of the newest run, and missing where a commit lacks one of them.",
        picture(figure, "steps, passes and seconds over the commits"),
        grid(["commit", "date", "numbers"], lines, words=2),
    )


def mean_over(run: Run, benchmark: str, solver: str, newest: Run) -> float:
    """Return the geometric mean of a solver's numbers over the problems of the newest run, NaN where one is missing."""
    values = [run.get(benchmark, solver=solver, problem=p) for p in newest.table(benchmark, "problem", "solver")]
    return geometric_mean(values) if values and not any(math.isnan(v) or v <= 0 for v in values) else math.nan


# Small things


def ordered(names: Iterable[str], like: tuple[str, ...]) -> list[str]:
    """Return names in the order of a list, those that are not on it at the end."""
    return sorted(names, key=lambda name: (like.index(name) if name in like else len(like), name))


def rows_of(size: str) -> int:
    """Return the number of rows of a size such as ``n=1000 d=2 k=3``."""
    return sizes(size)[0]


def milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{1e3 * seconds:.3g} ms"


def three(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.3f}"


def shown(passes: float) -> str:
    return f"more than {MAX_PASSES}" if passes >= MAX_PASSES else f"{passes:g}"


def cell(form: Any) -> Any:
    """Return what writes a number into a table, the best ones of their column bold."""

    def write(number: float, *, best: bool) -> str:
        text = "-" if math.isnan(number) else html.escape(form(number))
        return f"<b>{text}</b>" if best and not math.isnan(number) else text

    return write


def grid(head: list[str], lines: list[list[str]], *, words: int = 1, raw: bool = False) -> str:
    """Return a table, all but its first columns to the right."""
    safe = (lambda text: text) if raw else html.escape

    def line(cells: list[str], tag: str) -> str:
        return "".join(
            f"<{tag}{'' if j < words else ' class=n'}>{html.escape(c) if tag == 'th' else safe(c)}</{tag}>"
            for j, c in enumerate(cells)
        )

    body = "\n".join(f"<tr>{line(cells, 'td')}</tr>" for cells in lines)
    return f'<div class="wide"><table>\n<tr>{line(head, "th")}</tr>\n{body}\n</table></div>'


def section(title: str, text: str, *parts: str) -> str:
    return "\n".join([f"<h2>{html.escape(title)}</h2>", f"<p>{html.escape(text)}</p>", *parts])


CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 68rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.4rem; }
.about { color: #666; margin-top: 0; } img { width: 100%; height: auto; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #e4e4e4; } th { color: #555; }
.n { text-align: right; } li { margin: .35rem 0; } a { color: #0072B2; }
"""


def page(runs: list[Run], pages: str) -> str:
    """Return the page on the newest of the runs; `pages` is the address of asv's own, or empty."""
    run = runs[-1]
    about = [f"commit {run.commit[:8]} of {run.when:%Y-%m-%d}"]
    about += [str(run.about[name]) for name in ("cpu", "os", "compiler") if run.about.get(name)]
    about += [f"{name} {run.about[name]}" for name in ("cpu_target", "emcore", "numpy") if run.about.get(name)]
    link = (
        f'All benchmarks over all commits: <a href="{html.escape(pages)}">asv\'s own pages</a>; they load scripts from the net '
        "and must be served, <code>asv preview</code>."
        if pages
        else "asv's own pages have not been made here: <code>make bench-pages</code> makes them from its runs."
    )
    to_1e6 = "to within 1e-6 of the best log-likelihood per unit of weight"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>emcore: EM against gradient</title><style>{CSS}</style></head><body>",
        "<h1>EM against gradient</h1>",
        f'<p class="about">{html.escape("; ".join(about))}</p>',
        "<ul>",
        *(f"<li>{html.escape(text)}</li>" for text in summary(run, runs)),
        "</ul>",
        f"<p>{link}</p>",
        steps_section(run),
        climbs_section(
            run, PASSES, "Passes", f"Passes over the data {to_1e6}; those for Hessian products (newton, proximal) are "
            f"not among them. {MAX_PASSES} is the budget.", "passes over the data", cell(shown_short),
        ),
        climbs_section(
            run, SECONDS, "Seconds", f"The climb {to_1e6}, on one thread, Python's overhead included: data of 10 to 1,000 "
            "rows, where that is most of it.", "milliseconds", cell(lambda s: f"{1e3 * s:.3g} ms"), 1e3,
        ),
        climbs_section(
            run, GAP, "Gap after 20 passes", "How far below the best log-likelihood, per unit of weight; 1e-12 is rounding.",
            "gap", cell(lambda gap: f"{gap:.1e}"),
        ),
        rates_section(run),
        overhead_section(run),
        course_section(runs),
        "</body></html>",
    ]  # fmt: skip
    return "\n".join(part for part in parts if part) + "\n"


def shown_short(passes: float) -> str:
    return f"> {MAX_PASSES}" if passes >= MAX_PASSES else f"{passes:g}"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of results.csv and machine.json")
    parser.add_argument("--runs", type=Path, default=HERE / ".asv" / "results", help="asv's folder of runs, if there is one")
    parser.add_argument("--pages", type=Path, default=HERE / ".asv" / "html" / "index.html", help="asv's own pages, to link")
    parser.add_argument("--machine", help="of asv's runs take those of this one, quick ones too")
    parser.add_argument("--output", type=Path, default=HERE.parent / "out" / "report.html")
    options = parser.parse_args()
    runs = course([*tracked(options.results), *local(options.runs, options.machine)])
    if not runs or not any(name in SHOWN for name, _ in runs[-1].values):
        sys.exit(f"nothing to report: no numbers in {options.results} nor in {options.runs}; `make bench` makes some")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    pages = os.path.relpath(options.pages, options.output.parent) if options.pages.is_file() else ""
    options.output.write_text(page(runs, pages), encoding="utf-8")
    print(f"{len(runs)} runs, the newest of {runs[-1].commit[:8]}: {os.path.relpath(options.output)}")


if __name__ == "__main__":
    main()
