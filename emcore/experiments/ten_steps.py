"""Ten steps of EM on the population."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.data import as_source
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.models import SymmetricGaussianMixture
from emcore.objective import ModelObjective
from emcore.plot import STYLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TenSteps"]

MEANS = (0.5, 1.0, 1.5, 2.0)
STEPS = 10


class TenSteps(Experiment):
    """Ten steps of EM from infinity suffice for two symmetric Gaussians (Daskalakis, Tzamos and Zampetakis 2017)."""

    name: ClassVar[str] = "ten-steps"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        paths, bounds = {}, {}
        x = np.linspace(0.0, 12.0, 4001 if quick else 40001)  # the density is symmetric
        for mean in MEANS:
            tick(f"mean {mean:g}")
            density = np.exp(-0.5 * (x - mean) ** 2) + np.exp(-0.5 * (x + mean) ** 2)
            density[0] *= 0.5  # the trapezoidal rule
            objective = ModelObjective(SymmetricGaussianMixture(1.0), as_source(x[:, None], density), n_threads=1)
            at = np.array([float(density @ x / density.sum())])  # the step from infinity: the mean of |x|
            path = [at]
            for _ in range(STEPS - 1):
                path.append(objective.evaluate(path[-1]).em_point.theta)
            paths[mean] = np.abs(np.array(path)[:, 0] - mean)
            bounds[mean] = np.exp(-0.5 * np.minimum(np.array(path)[:-1, 0], mean) ** 2)
        worst = max(
            float(np.max(e[1:][e[:-1] > 1e-9] / e[:-1][e[:-1] > 1e-9] / bounds[m][e[:-1] > 1e-9])) for m, e in paths.items()
        )
        lines = [Line("relative error after ten steps, one sd apart", 0.0083, float(paths[0.5][-1] / 0.5), "reference", 5e-5)]
        lines += [
            Line(f"error after ten steps, {2 * m:g} sd apart", 0.0, float(paths[m][-1]), "reference", 1e-5) for m in MEANS[1:]
        ]
        lines.append(Line("largest factor of a step over its bound", 1.0, worst, "theory", 1e-9, bound="<="))

        def draw(figure: Figure) -> None:
            left, right = figure.subplots(1, 2)
            for style, (mean, error) in zip(STYLES, paths.items(), strict=False):
                steps = np.arange(1, STEPS + 1)
                left.plot(steps, np.maximum(error / mean, 1e-16), color=style.colour, marker=style.marker, linestyle=style.line,
                          label=f"{2 * mean:g} sd apart")  # fmt: skip
                factors = error[1:] / error[:-1]
                kept = error[1:] > 1e-12
                right.plot(steps[1:][kept], factors[kept], color=style.colour, marker=style.marker, linestyle="none",
                           label=f"{2 * mean:g} sd apart")  # fmt: skip
                right.plot(steps[1:], bounds[mean], color=style.colour, linestyle=style.line)
            left.axhline(0.01, color="0.6", linestyle=":")
            left.annotate("1 %", (6.5, 0.01), xytext=(0, -12), textcoords="offset points", fontsize=9, color="0.4")
            panel(left, title="from infinity, on the population", x="step of EM", y="relative error", log="y")
            left.legend(frameon=False)
            panel(right, title="factor of each step (points) and its bound (lines)", x="step of EM", y="factor")
            right.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, 0.93), ncols=2)

        notes = (
            "The first step goes to the mean of |x|. The bound is exp(-min(theta, mean)^2 / 2), theta being before the step.",
        )
        settings = {"means": list(MEANS), "variance": 1.0, "steps": STEPS, "grid from 0, points": len(x), "until": float(x[-1])}
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)
