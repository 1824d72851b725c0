"""Accelerators of EM on the deaths of the London Times."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.diagnostics import rate
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import london
from emcore.plot import STYLES
from emcore.result import Stop
from emcore.solve import Step, solve
from emcore.solvers import DAAREM, EM, LBFGS, QN1, QN2, SQUAREM, ZAL, Anderson, Auto, Newton

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Accelerators"]

NEAR = 1e-8  # length of the EM step in (weight, rate, rate)
STARTS = {"near": ((0.3, 0.7), (1.0, 2.5)), "far": ((0.5, 0.5), (1.0, 4.0))}
# E-steps of an independent implementation from both starts; their number depends on details of the safeguards.
SOLVERS = {
    "EM": (EM(), 2586, 2782),
    "SQUAREM S1": (SQUAREM("S1"), 90, 48),
    "SQUAREM S2": (SQUAREM("S2"), 75, 89),
    "SQUAREM S3": (SQUAREM("S3"), 72, 69),
    "ZAL, 1 secant": (ZAL(1), 152, 142),
    "ZAL, 2 secants": (ZAL(2), 44, 48),
    "ZAL, 3 secants": (ZAL(3), 20, 30),
    "QN1": (QN1(), np.nan, np.nan),
    "QN2": (QN2(), np.nan, np.nan),
    "Anderson": (Anderson(), np.nan, np.nan),
    "DAAREM": (DAAREM(), np.nan, np.nan),
    "L-BFGS": (LBFGS(), np.nan, np.nan),
    "Newton": (Newton(), np.nan, np.nan),
    "auto": (Auto(), np.nan, np.nan),
}


class Accelerators(Experiment):
    """EM takes 2,600 passes on the deaths of the London Times, its accelerators some tens (Hasselblad 1969)."""

    name: ClassVar[str] = "accelerators"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        lines, curves = [], {}
        best = None
        for where, start in STARTS.items():
            for name, (solver, *known) in SOLVERS.items():
                tick(f"{name}, {where} start")
                objective, at = london(*start)
                lengths: list[tuple[float, float]] = []

                def near(step: Step, lengths: list[tuple[float, float]] = lengths) -> bool:
                    here, there = step.evaluation.point.params, step.evaluation.em_point.params
                    step_ = [there.weights[0] - here.weights[0], *(there.rates - here.rates).ravel()]
                    lengths.append((step.row.passes, float(np.linalg.norm(step_))))
                    return lengths[-1][1] < NEAR

                found = solve(objective, solver, at, stop=Stop(gain=0, max_passes=4000), callback=near)
                best = found if best is None or found.value > best.value else best
                curves[where, name] = np.array(lengths)
                reference = known[list(STARTS).index(where)]
                exact = 3.0 if name == "EM" else np.inf
                lines.append(Line(f"E-steps, {where} start, {name}", reference, lengths[-1][0], "reference", exact))
        objective = best.evaluation.objective
        params = best.point.params
        order = np.argsort(params.rates[:, 0])
        optimum = (*params.weights[order], *params.rates[order, 0])
        published = {"first weight": 0.3598854, "second weight": 0.6401146, "first rate": 1.2560951, "second rate": 2.6634044}
        lines = [
            *(
                Line(f"optimum, {name}", known, float(x), "paper", 1e-6)
                for (name, known), x in zip(published.items(), optimum, strict=True)
            ),
            Line("log-likelihood", -1989.945860, best.log_likelihood, "reference", 1e-6),
            Line("EM's rate", 0.995666, rate(objective, best.evaluation).rate, "reference", 1e-5),
            *lines,
        ]

        def draw(figure: Figure) -> None:
            left, right = figure.subplots(1, 2, sharey=True)
            shown = ("EM", "SQUAREM S3", "ZAL, 2 secants", "DAAREM", "L-BFGS", "Newton", "auto")
            for axes, where in ((left, "near"), (right, "far")):
                for style, name in zip(STYLES, shown, strict=False):
                    passes, length = curves[where, name].T
                    axes.plot(passes, np.maximum(length, 1e-12), color=style.colour, linestyle=style.line, label=name)
                axes.axhline(NEAR, color="0.6", linestyle=":", linewidth=0.9)
                panel(axes, title=f"from the {where} start", x="E-steps", y="length of the EM step", log="xy")
            right.set_ylabel("")
            right.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))

        notes = (
            "Newton's passes for Hessian products are not among its E-steps.",
            "The published optimum is that in the tests of R's SQUAREM package.",
        )
        settings = {"data": "deaths of the London Times", "starts": STARTS, "until": f"EM step shorter than {NEAR:g}"}
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)
