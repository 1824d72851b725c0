"""What an experiment is: a computation that ends in a table of numbers beside their references, and a picture."""

from __future__ import annotations

import csv
import json
import math
import platform
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from emcore import plot
from emcore.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FRESH", "SOURCES", "Experiment", "Line", "Outcome", "figure", "panel", "standard_error"]

WIDTH = 110  # of notes, in characters
# Seeds of samples count from here. Those below were spent while it was chosen what to hold the numbers to; this one was
# chosen before anything was drawn from it.
FRESH = 100

# Where a reference may be from.
SOURCES = {
    "theory": "a formula, evaluated here",
    "paper": "read in the publication",
    "seen": "read in a public source that is not the publication",
    "recalled": "of the publication, from memory",
    "reference": "an independent implementation of this project",
    "ours": "a limit that this project set, or its own number by another way",
}

Tick = Callable[[str], None]


class Line(NamedTuple):
    """One number of an experiment.

    Attributes
    ----------
    quantity : str
    reference : float
        NaN where there is none.
    ours : float
    source : str
        Where the reference is from, honestly: one of `SOURCES`; empty where there is none.
    tolerance : float
        How far ours may be from the reference; infinite where the number is shown and not held to it.
    bound : {"", "<=", ">="}
        Whether the reference is an upper or a lower bound, so that ours may be on its other side by any amount.
    missed : bool
        Whether ours is known not to be what the reference says, and is shown for that.
    """

    quantity: str
    reference: float
    ours: float
    source: str = ""
    tolerance: float = math.inf
    bound: str = ""
    missed: bool = False

    @property
    def difference(self) -> float:
        """Ours minus the reference."""
        return self.ours - self.reference

    @property
    def holds(self) -> bool:
        """Whether ours is as near to the reference as it should be."""
        if math.isinf(self.tolerance):
            return True
        beyond = {"": abs(self.difference), "<=": self.difference, ">=": -self.difference}[self.bound]
        return beyond <= self.tolerance

    @property
    def held(self) -> str:
        """What ours is held to, in a word or two."""
        if math.isinf(self.tolerance):
            return "not reproduced" if self.missed else "shown"
        if self.bound:
            return "bound" + (f", within {self.tolerance:.2g}" if self.tolerance else "")
        return f"within {self.tolerance:.2g}" if self.tolerance else "equal"


@dataclass(frozen=True)
class Outcome:
    """What an experiment gave.

    Attributes
    ----------
    name, title : str
    lines : tuple of Line
    settings : mapping
        All that is needed to do it again, as plain JSON types.
    notes : tuple of str
        What the numbers say, and what was not reproduced, in sentences.
    draw : callable
        Draws the picture on an empty matplotlib figure.
    """

    name: str
    title: str
    lines: tuple[Line, ...]
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    draw: Callable[[Figure], None] = field(repr=False)

    @property
    def holds(self) -> bool:
        """Whether every number is as near to its reference as it should be."""
        return all(line.holds for line in self.lines)

    def table(self) -> list[str]:
        """Return the table and the notes, line by line."""
        head = ("", "reference", "ours", "difference", "held to", "source")
        cells = [head]
        for line in self.lines:
            known = math.isfinite(line.reference)
            away = "" if line.holds else "  OUT OF TOLERANCE"
            cells.append(
                (
                    line.quantity,
                    f"{line.bound} {line.reference:.6g}".lstrip() if known else "-",
                    f"{line.ours:.6g}",
                    f"{line.difference:.1e}" if known else "-",
                    line.held,
                    line.source + away,
                )
            )
        widths = [max(len(row[j]) for row in cells) for j in range(len(head))]
        sides = (str.ljust, str.rjust, str.rjust, str.rjust, str.ljust, str.ljust)
        rows = ["  ".join(side(c, w) for side, c, w in zip(sides, row, widths, strict=True)).rstrip() for row in cells]
        return [self.title, "", *rows, "", *(line for note in self.notes for line in textwrap.wrap(note, WIDTH))]

    def __str__(self) -> str:
        return "\n".join(self.table())

    def write(self, folder: Path) -> list[Path]:
        """Write picture, table and settings into a folder; return the files. Existing ones are replaced, each in one move.

        Raises
        ------
        ImportError
            When matplotlib is not installed.
        OSError
        """
        stem = folder / self.name
        paths = [stem.with_suffix(suffix) for suffix in (".png", ".txt", ".csv", ".json")]
        plot.check(paths[0])
        plot.save(figure(self.draw), paths[0])
        with replacing(paths[1]) as temporary:
            temporary.write_text(str(self) + "\n", encoding="utf-8")
        with replacing(paths[2]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("quantity", "reference", "ours", "difference", "source", "tolerance", "bound", "missed"))
            for line in self.lines:
                writer.writerow((*line[:3], line.difference, *line[3:]))
        from importlib.metadata import version

        versions = {"emcore": version("emcore"), "numpy": np.__version__, "python": platform.python_version()}
        about = {"experiment": self.name, "settings": dict(self.settings), "versions": versions}
        with replacing(paths[3]) as temporary:
            temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        return paths


class Experiment(ABC):
    """An experiment: `run` does it.

    Attributes
    ----------
    name : str
        The word by which it is asked for.
    """

    name: ClassVar[str]

    @property
    def title(self) -> str:
        """What it shows, in one line."""
        return " ".join((self.__doc__ or "").split("\n\n")[0].split())

    @abstractmethod
    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        """Return the outcome.

        Parameters
        ----------
        quick : bool
            Fewer trials and sizes: for a look, and for tests.
        tick : callable
            Called with a few words whenever a part begins.
        """


def figure(draw: Callable[[Figure], None]) -> Figure:
    """Return a new figure, drawn; without pyplot, so that nothing of the user's is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(11.0, 4.6), layout="constrained")
    FigureCanvasAgg(made)
    made.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    draw(made)
    return made


def standard_error(values: Any) -> float:
    """Return the standard error of a mean over independent values."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def panel(axes: Any, *, title: str, x: str, y: str, log: str = "") -> None:
    """Dress a panel: title, labels, which axes ("x", "y" or "xy") are logarithmic."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")
    axes.grid(True, which="major", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
