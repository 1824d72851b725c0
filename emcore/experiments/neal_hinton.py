"""Free energy and log-likelihood of EM's incremental relatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import climb, solution
from emcore.models import GaussianMixture
from emcore.plot import STYLES
from emcore.result import Stop
from emcore.solvers import EM, Incremental, Online

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NealHinton"]

PASSES = (1, 2, 5, 10)


class NealHinton(Experiment):
    """Incremental EM needs about half of EM's passes at first; a decaying average hovers (Neal and Hinton 1998)."""

    name: ClassVar[str] = "neal-hinton"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        rng = np.random.default_rng(0)
        n = 1000
        second = rng.random(n) < 0.5
        X = np.where(second, rng.normal(2.0, 1.5, n), rng.normal(0.0, 1.0, n))[:, None]
        start = {"weights": [0.5, 0.5], "means": [[-1.0], [4.0]], "covariances": np.full((2, 1, 1), 2.0)}
        best = solution(X, start)
        passes = 20 if quick else 60
        solvers = {
            "EM": EM(),
            "incremental, a row a step": Incremental(n_blocks=n),
            "incremental, 20 pieces": Incremental(n_blocks=20),
            "decay, 0.99": Online(n_blocks=n, share=0.01),
        }
        gaps = {}
        for name, solver in solvers.items():
            tick(name)
            found = climb(GaussianMixture(2), X, start, solver, Stop(gain=0, max_passes=passes))
            gaps[name] = found.trace.passes, n * (best.value - found.trace.value)
        lines = [
            Line(f"gap after {p} passes, {name}", np.nan, float(gap[np.flatnonzero(x <= p + 1 + 1e-9)[-1]]))
            for name, (x, gap) in gaps.items()
            for p in PASSES
        ]
        ahead = _passes_to(gaps["EM"], 1.0) / _passes_to(gaps["incremental, a row a step"], 1.0)
        lines.append(Line("EM's passes / incremental EM's, to a gap of 1", 2.0, ahead, "recalled", 0.8))

        def draw(figure: Figure) -> None:
            axes = figure.subplots(1, 1)
            for style, (name, (x, gap)) in zip(STYLES, gaps.items(), strict=False):
                axes.plot(x, np.maximum(gap, 1e-8), color=style.colour, linestyle=style.line, label=name)
            panel(axes, title="1,000 rows of two overlapping components", x="passes over the data",
                  y="gap of the log-likelihood (sum)", log="y")  # fmt: skip
            axes.legend(frameon=False)

        notes = (
            "Gaps are of the log-likelihood summed over the rows. Incremental EM's lead shrinks as the solution comes near.",
            "Decay, a running average that forgets, hovers about the solution.",
        )
        settings = {"rows": n, "components": "0.5 N(0, 1) + 0.5 N(2, 1.5^2)", "seed": 0, "max_passes": passes}
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)


def _passes_to(curve: tuple[np.ndarray, np.ndarray], gap: float) -> float:
    """Return the passes after the start's until the gap is this small, between the points."""
    x, y = curve
    i = int(np.flatnonzero(y <= gap)[0])
    share = (np.log(y[i - 1]) - np.log(gap)) / (np.log(y[i - 1]) - np.log(y[i]))
    return float(x[i - 1] + share * (x[i] - x[i - 1]) - x[0])
