"""The first example of the EM algorithm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.data import linkage
from emcore.diagnostics import information, rate
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import climb
from emcore.models import Linkage
from emcore.plot import STYLES
from emcore.result import Stop

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LinkagePath"]

PATH = (0.608247, 0.624321, 0.626489, 0.626777)  # from 0.5; recalled from the paper
SOLVERS = ("em", "lange", "gradient", "squarem", "newton")
GAIN, BUDGET = 1e-28, 200


class LinkagePath(Experiment):
    """The linkage of 197 animals: EM's path, its rate, the information (Dempster, Laird and Rubin 1977)."""

    name: ClassVar[str] = "linkage"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        X, counts = linkage()
        paths, fits = {}, {}
        for name in SOLVERS:
            tick(name)
            path: list[tuple[float, float]] = []
            fits[name] = climb(
                Linkage(), X, {"theta": [0.5]}, name, Stop(gain=GAIN, max_passes=BUDGET), sample_weight=counts,
                callback=lambda step, path=path: path.append((step.row.passes, float(step.evaluation.point.params.theta[0])))
                and None,
            )  # fmt: skip
            paths[name] = np.array(path)
        best = fits["newton"]
        theta, objective = float(best.params.theta[0]), best.evaluation.objective
        # theta solves 197 theta^2 - 15 theta - 68 = 0.
        exact = (15 + math.sqrt(15**2 + 4 * 197 * 68)) / (2 * 197)
        lines = [
            Line(f"EM's step {i + 1}", known, float(ours), "recalled", 1e-6)
            for i, (known, ours) in enumerate(zip(PATH, paths["em"][1:, 1], strict=False))
        ]
        info = information(best)
        scale = float(np.square(info.jacobian).sum())  # theta moves by its square root a unit of the coordinate
        lines += [
            Line("maximum, the root of a quadratic", exact, theta, "theory", 1e-9),
            Line("EM's rate", 0.132779, rate(objective, best.evaluation).rate, "reference", 1e-6),
            Line("observed information", 377.517, float(info.observed[0, 0]) / scale, "reference", 1e-3),
            Line("complete information", 435.318, float(info.complete[0, 0]) / scale, "reference", 1e-3),
            Line("standard error", 0.05147, float(best.standard_errors().theta[0]), "reference", 1e-5),
        ]

        def draw(figure: Figure) -> None:
            axes = figure.subplots(1, 1)
            for style, (name, path) in zip(STYLES, paths.items(), strict=False):
                error = np.maximum(np.abs(path[:, 1] - exact), 1e-16)
                axes.plot(path[:, 0], error, color=style.colour, marker=style.marker, linestyle=style.line, label=name)
            panel(
                axes,
                title="197 animals in four cells, from 0.5",
                x="passes over the data",
                y="distance to the maximum",
                log="y",
            )
            axes.legend(frameon=False)

        notes = ("EM's rate is 1 - observed / complete information: an eighth of it is missing, so that EM is fast.",)
        settings = {"counts": counts.tolist(), "start": 0.5, "solvers": list(SOLVERS), "gain": GAIN, "max_passes": BUDGET}
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)
