"""The picture of a race: how near to the best log-likelihood, after how many passes and seconds; and where the means walked.
The picture of one climb: its trace.

Figures are made without pyplot, so that neither the backend nor the open figures of the user are touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emcore.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from emcore.compare import Comparison
    from emcore.result import Result
    from emcore.study import Study

__all__ = ["FORMATS", "check", "climb", "race", "save", "study"]

FORMATS = (".png", ".svg", ".pdf")
ROWS_SHOWN = 4000
REACHED, ELSEWHERE, LOST = "#0072B2", "#D55E00", "#7F7F7F"  # of a climb in the picture of a study
LOG_SPREAD = 6.0  # an axis turns logarithmic when the longest climb took more than this times the shortest
# What is marked on the trace of a climb, by the first words of the event; the first that fits.
EVENTS = {
    "switched": ("^", "#0072B2"),
    "restarted": ("D", "#009E73"),
    "fell back": ("X", "#D55E00"),
    "fell": ("v", "#CC79A7"),
}
# What the rules saw, by column of the trace: its name, its tolerance in `Stop`, its colour and line.
SEEN = {
    "gain": ("gain of one EM step", "gain", "#000000", "-"),
    "gradient": ("largest gradient entry", "gtol", "#D55E00", (0, (5, 1.5))),
    "length": ("largest change of a coordinate", "xtol", "#0072B2", (0, (4, 1.5, 1, 1.5))),
    "residual": ("length of EM step", "residual", "#009E73", (0, (1.5, 1))),
    "remaining": ("rise to come (Aitken)", "aitken", "#CC79A7", (0, (7, 2))),
}


class Style(NamedTuple):
    """How a solver is drawn, in all panels."""

    colour: str
    marker: str
    line: Any


# Okabe and Ito's palette without its yellow, which white swallows; line and marker differ too, for prints without colour.
STYLES = (
    Style("#000000", "o", "-"),
    Style("#D55E00", "s", (0, (5, 1.5))),
    Style("#0072B2", "^", (0, (4, 1.5, 1, 1.5))),
    Style("#009E73", "D", (0, (1.5, 1))),
    Style("#CC79A7", "v", (0, (7, 2))),
    Style("#56B4E9", "P", (0, (3, 1, 1, 1, 1, 1))),
    Style("#E69F00", "X", (0, (2, 1.5))),
    Style("#7F7F7F", "*", (0, (9, 2, 2, 2))),
)


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a path that no picture can be written to.

    Raises
    ------
    ValueError
        When the extension is none of `FORMATS`.
    ImportError
        When matplotlib is not installed.
    """
    extension = Path(path).suffix.lower()
    if extension not in FORMATS:
        raise ValueError(f"{path}: the extension of a picture must be one of {', '.join(FORMATS)}, got {extension or 'none'!r}")
    if find_spec("matplotlib") is None:
        raise ImportError("pictures need matplotlib: pip install emcore[cli]")


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure in the format of the extension; an existing file is replaced in one move."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lower().removeprefix("."), dpi=150, facecolor="white")


def race(comparison: Comparison, *, names: Iterable[str] | None = None, title: str | None = None) -> Figure:
    """Return the picture of a race.

    Two panels show the gap to the best log-likelihood against passes and against seconds. For data of two columns a third one
    shows the data with the paths of the means and the ellipses of the best fit (1 and 2 standard deviations), for one column
    the histogram with the fitted density.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    styles = styles_of(comparison.labels)
    third = _third(comparison)
    columns = [f"column {j}" for j in range(comparison.source.n_columns)] if names is None else [str(name) for name in names]
    panels, width = (3, 15.0) if third else (2, 10.5)
    handles, labels = _legend(comparison, styles)
    inches = 1.0 + 0.085 * max(map(len, labels))  # of an entry of the legend
    legend_columns = max(1, min(len(labels), int(width / inches)))
    height = 4.9 + 0.25 * -(-len(labels) // legend_columns)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, width_ratios=[1, 1, 1.15][:panels])
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.06)

    _gaps(axes[0], comparison, styles, "passes", "passes over the data")
    _gaps(axes[1], comparison, styles, "seconds", "seconds, Python's overhead included")
    axes[0].set_ylabel(f"gap to the best log-likelihood, per {comparison.unit}")
    axes[1].sharey(axes[0])
    if third:
        third(axes[2], comparison, styles, columns)
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns, frameon=False, fontsize=10, handlelength=4)
    figure.suptitle(title or comparison.title(), fontsize=12)
    return figure


def study(outcome: Study, *, title: str | None = None) -> Figure:
    """Return the picture of a study: a panel a problem, a row a solver, a mark a climb at the passes it took.

    Filled marks reached the best optimum, with a bar at their median; hollow ones converged to another; crosses did not
    converge.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    problems, labels = list(outcome.titles), outcome.labels
    across = min(3, len(problems))
    down = -(-len(problems) // across)
    longest = 0.075 * max(map(len, labels))
    size = (max(7.0, 4.1 * across + longest + 0.6), (1.0 + 0.27 * len(labels)) * down + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for panel in axes.flat[len(problems) :]:
        panel.set_visible(False)
    for panel, problem in zip(axes.flat, problems, strict=False):
        _strips(panel, outcome, problem)
    mark = {"linestyle": "none", "markersize": 6}
    handles = [
        Line2D([], [], color=REACHED, marker="o", **mark),
        Line2D([], [], color=REACHED, marker="|", **mark | {"markersize": 13}),
        Line2D([], [], color=ELSEWHERE, marker="o", markerfacecolor="none", **mark),
        Line2D([], [], color=LOST, marker="x", **mark),
    ]  # fmt: skip
    words = ["reached the best optimum", "their median", "converged to another", "did not converge"]
    figure.legend(handles, words, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def _strips(axes: Axes, outcome: Study, problem: str) -> None:
    """Draw the climbs on one problem."""
    climbs = [c for c in outcome.climbs if c.problem == problem]
    for row, label in enumerate(outcome.labels):
        own = [c for c in climbs if c.solver == label]
        # Climbs of a row lie a little apart, in the order of the starts, so that equal counts can be told.
        offsets = np.linspace(-0.24, 0.24, len(own)) if len(own) > 1 else np.zeros(len(own))
        kinds = [0 if c.reached else 1 if c.optimum is not None else 2 for c in own]
        for kind, style in enumerate((
            {"marker": "o", "color": REACHED, "alpha": 0.55, "linewidths": 0},
            {"marker": "o", "facecolors": "none", "edgecolors": ELSEWHERE, "linewidths": 1.0},
            {"marker": "x", "color": LOST, "linewidths": 1.2},
        )):  # fmt: skip
            chosen = [i for i, k in enumerate(kinds) if k == kind]
            axes.scatter([own[i].passes for i in chosen], row + offsets[chosen], s=20, zorder=3, **style)
        s = outcome.summary(problem, label)
        axes.plot(s.passes[1], row, marker="|", markersize=15, markeredgewidth=2.2, color=REACHED, zorder=4)
        axes.annotate(
            f"{s.reached}/{s.climbs}", (1, row), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            ha="left", va="center", fontsize=8, color="0.25", annotation_clip=False,
        )  # fmt: skip
    _log_ticks(axes)
    axes.set_yticks(range(len(outcome.labels)), outcome.labels)
    axes.set_ylim(len(outcome.labels) - 0.4, -0.6)
    axes.set_xlabel("passes over the data (log scale)")
    axes.set_title(problem, fontsize=10)
    axes.grid(True, axis="x", which="major", color="0.92", linewidth=0.8)
    axes.hlines(np.arange(len(outcome.labels)) + 0.5, 0, 1, transform=axes.get_yaxis_transform(), color="0.94", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def climb(result: Result, *, title: str | None = None) -> Figure:
    """Return the picture of a climb from its trace, against passes, with the events that `EVENTS` names marked.

    The left panel shows how far the value, and the free energy of solvers that climb it, was below the highest value of the
    climb, the right one what the rules saw; a number that was not measured is missing (``fit(..., record=True)`` measures all).
    Tolerances are dotted lines of the same colour.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharex=True)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.06)
    trace, passes = result.trace, result.trace.passes
    highest = np.nanmax(trace.value, initial=-np.inf)
    gap, free = _positive(highest - trace.value), _positive(highest - trace.free_energy)
    dot = {"marker": "o", "markersize": 3} if len(trace) <= 60 else {}
    left.plot(passes, gap, color="black", linewidth=1.6, label="gap to the highest value", **dot)
    if np.isfinite(free).any():
        left.plot(passes, free, color="#E69F00", linestyle=(0, (5, 1.5)), linewidth=1.6, label="gap of the free energy", **dot)
    words = np.array([next((word for word in EVENTS if event.startswith(word)), "") for event in trace.event])
    for word, (marker, colour) in EVENTS.items():
        at = np.flatnonzero((words == word) & np.isfinite(gap))
        if len(at):
            name = trace.event[at[0]] if len(at) == 1 else f"{word} ({len(at)} times)"
            left.plot(passes[at], gap[at], marker, color=colour, markersize=7, linestyle="none", label=name, zorder=4)
    for column, (name, rule, colour, line) in SEEN.items():
        y, tolerance = _positive(getattr(trace, column)), getattr(result.stop, rule)
        if np.isfinite(y).any():
            right.plot(passes, y, color=colour, linestyle=line, linewidth=1.6, label=name, **dot)
            if tolerance > 0:
                right.axhline(tolerance, color=colour, linewidth=0.9, linestyle=":")
    for axes, what in ((left, "below the highest value, per unit of weight"), (right, "what the stopping rules saw")):
        axes.set_xlabel("passes over the data")
        axes.set_ylabel(what)
        if axes.get_legend_handles_labels()[0] and any(np.isfinite(line.get_ydata()).any() for line in axes.get_lines()):
            axes.set_yscale("log")
            axes.legend(fontsize=9, handlelength=4, framealpha=0.9, edgecolor="none")
        axes.grid(True, which="major", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title or result.solver, fontsize=12)
    return figure


def _positive(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return y with NaN for what a logarithmic axis cannot show."""
    return np.where(y > 0, y, np.nan)


def styles_of(labels: Iterable[str]) -> dict[str, Style]:
    """Return a style for each label; beyond the palette, colours come again with other markers."""
    n = len(STYLES)
    pairs = [(i % n, (i + i // n) % n) for i in range(n * n)]
    return {
        label: Style(STYLES[pairs[i % len(pairs)][0]].colour, *STYLES[pairs[i % len(pairs)][1]][1:])
        for i, label in enumerate(labels)
    }


def _legend(comparison: Comparison, styles: dict[str, Style]) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    handles, labels = [], []
    for row in comparison.rows():
        s = styles[row.solver]
        handles.append(Line2D([], [], color=s.colour, linestyle=s.line, marker=s.marker, markersize=5, linewidth=1.8))
        ended = "" if row.status is not None and row.status.ok else f" ({row.note})"
        labels.append(row.solver + ended)
    return handles, labels


def _log_ticks(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    decades = np.log10(axes.get_xlim()[1] / axes.get_xlim()[0])
    ticks = (1.0, 2.0, 5.0) if decades < 2 else (1.0, 3.0) if decades < 3 else (1.0,)  # whose labels do not touch
    axes.xaxis.set_major_locator(LogLocator(subs=ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _gaps(axes: Axes, comparison: Comparison, styles: dict[str, Style], what: str, label: str) -> None:
    """Draw the gap of each solver against passes or seconds."""
    floor = comparison.floor
    ends, starts, highest = [], [], floor
    for i, (name, fit) in enumerate(comparison.fits.items()):
        s = styles[name]
        x, gap = getattr(fit.trace, what), comparison.gaps(name)
        # A failing climb may have passed the best sound value on its way to a singularity: the line breaks there.
        y = np.where(gap < -floor, np.nan, np.maximum(gap, floor))
        starts.append(x[0])
        ends.append(x[-1])
        highest = max(highest, float(gap[0]))
        axes.plot(
            x, y, color=s.colour, linestyle=s.line, marker=s.marker, markersize=4.5, linewidth=1.8,
            markevery=(0.1 * i / len(comparison.fits), 0.1) if len(x) > 2 else None, zorder=3,
        )  # fmt: skip
        there = np.flatnonzero(np.isfinite(y))
        if fit.status.failed and len(there):
            axes.plot(x[there[-1]], y[there[-1]], marker="x", markersize=10, markeredgewidth=2.2, color=s.colour, zorder=5)
    axes.set_yscale("log")
    axes.axhline(floor, color="0.6", linewidth=0.9, linestyle=":", zorder=1)
    axes.annotate(
        "rounding", (0, floor), xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points",
        ha="left", va="bottom", fontsize=8, color="0.45",
    )  # fmt: skip
    # What diverges leaves the frame at the top, instead of squeezing the others.
    axes.set_ylim(floor / 4, max(10 * highest, 1e4 * floor))
    if max(ends) > LOG_SPREAD * min(ends):
        axes.set_xlim(max(min(starts), max(ends) * 1e-6) / 1.2, max(ends) * 1.2)
        _log_ticks(axes)
        axes.set_xlabel(f"{label} (log scale)")
    else:
        axes.set_xlim(0, max(ends) * 1.05)
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(label)
    axes.grid(True, which="major", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _third(comparison: Comparison) -> Any:
    """Return what draws the third panel, or None."""
    if not hasattr(comparison.best.params, "means") or not hasattr(comparison.model.emission, "covariance"):
        return None
    return {1: _density, 2: _paths}.get(comparison.source.n_columns)


def _rows(comparison: Comparison, m: int = ROWS_SHOWN) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    block = comparison.source.sample(m, np.random.default_rng(0))
    return np.asarray(block.rows[0], dtype=np.float64), block.weights


def _density(axes: Axes, comparison: Comparison, styles: dict[str, Style], names: list[str]) -> None:
    """Draw the histogram of one column with the density of the best fit."""
    rows, weights = _rows(comparison, 100_000)
    low, high = float(rows.min()), float(rows.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    axes.hist(rows[:, 0], bins=60 if len(rows) > 1000 else 30, weights=weights, density=True, color="0.82", label="data")
    margin = 0.05 * (high - low)
    grid = np.linspace(low - margin, high + margin, 800)
    axes.plot(grid, np.exp(comparison.best.log_density(grid[:, None])), color="black", linewidth=1.8, label="best fit")
    axes.set_xlabel(names[0])
    axes.set_ylabel(f"density, per unit of {names[0]}")
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _paths(axes: Axes, comparison: Comparison, styles: dict[str, Style], names: list[str]) -> None:
    """Draw the data, the paths of the means, and the ellipses of the best fit."""
    from matplotlib.patches import Ellipse

    rows, _ = _rows(comparison)
    axes.scatter(rows[:, 0], rows[:, 1], s=14 if len(rows) < 1000 else 5, color="0.80", linewidths=0, zorder=1, rasterized=True)
    best = comparison.best
    low, high = rows.min(axis=0), rows.max(axis=0)
    for mean, covariance in zip(best.params.means, _matrices(comparison), strict=True):
        values, vectors = np.linalg.eigh(covariance)
        angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
        minor, major = np.sqrt(np.maximum(values, 0.0))
        reach = np.sqrt(np.diagonal(covariance))
        low, high = np.minimum(low, mean - 2 * reach), np.maximum(high, mean + 2 * reach)
        for sd, shade in ((1, "0.25"), (2, "0.5")):
            outline = Ellipse(tuple(mean), 2 * sd * major, 2 * sd * minor, angle=angle, fill=False, edgecolor=shade, zorder=2)
            outline.set_linewidth(1.3)
            axes.add_patch(outline)
    margin = 0.05 * np.where(high > low, high - low, 1.0)
    low, high = low - margin, high + margin
    for i, (label, path) in enumerate(comparison.paths.items()):
        gaps = comparison.gaps(label)
        if gaps[-1] > gaps[0]:  # a climb that ended below its start wandered about: nothing to be seen in that
            continue
        s = styles[label]
        for c in range(path.shape[1]):
            outside = np.flatnonzero(((path[:, c] < low) | (path[:, c] > high)).any(axis=1))
            shown = path[: outside[0] + 1, c] if len(outside) else path[:, c]  # what leaves the frame does not come back
            axes.plot(
                shown[:, 0], shown[:, 1], color=s.colour, linestyle=s.line, linewidth=1.5, marker=s.marker, markersize=4,
                markevery=(0.02 + 0.1 * i / len(comparison.paths), 0.1), zorder=3 + 0.01 * i,
            )  # fmt: skip
            if not len(outside) and not comparison.beside_best(label):
                axes.plot(*path[-1, c], color=s.colour, marker=s.marker, markersize=8, markerfacecolor="white", zorder=4)
    start = np.asarray(comparison.start_params.means)
    dots = {"linestyle": "none", "markeredgecolor": "black", "zorder": 5}
    axes.plot(start[:, 0], start[:, 1], marker="o", markersize=6, color="white", label="start", **dots)
    axes.plot(*best.params.means.T, marker="+", markersize=11, markeredgewidth=2.0, label="best fit", **dots)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.set_title("data, paths of the means, best fit (1 and 2 sd)", fontsize=10)
    axes.legend(loc="best", fontsize=9, framealpha=0.9)
    axes.spines[["top", "right"]].set_visible(False)


def _matrices(comparison: Comparison) -> NDArray[np.float64]:
    """Return the covariances of the best fit as matrices, (k, 2, 2)."""
    covariances, kind, k = comparison.best.params.covariances, comparison.model.emission.covariance, comparison.model.k
    if kind == "full":
        return covariances
    if kind == "tied":
        return np.broadcast_to(covariances, (k, 2, 2))
    variances = covariances.reshape(k, -1)
    return np.eye(2) * (variances if variances.shape[1] == 2 else np.repeat(variances, 2, axis=1))[:, None, :]
