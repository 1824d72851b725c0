"""Plain gradient ascent and its learning rate, beside EM, which has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.data import faithful
from emcore.diagnostics import condition
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import EXACT, arrival, climb
from emcore.fit import fit
from emcore.models import GaussianMixture
from emcore.plot import STYLES
from emcore.result import Stop
from emcore.solvers import GradientAscent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LearningRate"]

ROUNDING = 1e-14  # gaps below are not told apart
LATE = 1e-5, 1e-9  # errors between which a factor is observed: small for theory, and above rounding
NEAR = 1e-6  # this close to the optimum counts as there, per row


class LearningRate(Experiment):
    """Plain gradient ascent depends on its step size, a decade either way; EM takes its own."""

    name: ClassVar[str] = "learning-rate"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        X = faithful()
        start = {"weights": [0.5, 0.5], "means": [[2.5, 60.0], [4.0, 75.0]], "covariances": [np.cov(X.T)] * 2}
        model, budget = GaussianMixture(2), 500 if quick else 5000
        best = fit(model, X, start=start, solver="newton", stop=EXACT)
        objective = best.evaluation.objective
        hessian = objective.hvp(best.evaluation, np.eye(objective.size))
        values, vectors = np.linalg.eigh(-0.5 * (hessian + hessian.T))
        largest, smallest = float(values[-1]), float(values[0])
        sizes = np.geomspace(0.01, 10.0, 7 if quick else 25) / largest
        stop = Stop(gain=0, gtol=1e-12, max_passes=budget)
        em = climb(model, X, start, "em", stop)
        runs = {}
        for size in sizes:
            tick(f"step size {size:.3g}")
            runs[size] = climb(model, X, start, GradientAscent(step_size=float(size)), stop)
        there = {size: arrival(run.trace, best.value, NEAR) for size, run in runs.items()}
        quickest = arrival(em.trace, best.value, NEAR)
        optimal = 2 / (largest + smallest)
        predicted = (largest - smallest) / (largest + smallest)
        thetas: list[np.ndarray] = []
        climb(
            model, X, start, GradientAscent(step_size=optimal), stop,
            callback=lambda step: thetas.append(step.evaluation.point.theta),
        )  # fmt: skip
        away = np.array(thetas) - best.theta
        # The step that is best for both ends of the spectrum: neither end shrinks faster, and the steep one changes sides.
        flat, steep = (_factor(away @ vectors[:, i], np.linalg.norm(away, axis=1)) for i in (0, -1))

        def draw(figure: Figure) -> None:
            left, right = figure.subplots(1, 2)
            shown = [sizes[0], sizes[len(sizes) // 3], sizes[2 * len(sizes) // 3], sizes[-1]]
            curves = {"EM": em.trace, **{f"step size {size:.2g}": runs[size].trace for size in shown}}
            for style, (label, trace) in zip(STYLES, curves.items(), strict=False):
                gap = np.maximum(best.value - trace.value, ROUNDING)
                left.plot(trace.passes, gap, color=style.colour, linestyle=style.line, label=label)
            panel(left, title="Old Faithful, two components", x="passes over the data", y="gap per row", log="xy")
            left.set_ylim(1e-15, 1e9)  # room for the legend
            left.legend(frameon=False, loc="upper left", ncols=2, fontsize=9)
            arrived = [(s, n) for s, n in there.items() if np.isfinite(n)]
            right.plot(*zip(*arrived, strict=True), "o-", color=STYLES[1].colour, label="gradient ascent, fixed step")
            for found, marker, label in ((cut, "^", f"still climbing after {budget:,} passes"), (lost, "x", "never arrives")):
                right.plot(found, [budget] * len(found), marker, color=STYLES[1].colour, markersize=8, linestyle="none",
                           label=label)  # fmt: skip
            right.axhline(quickest, color="black", linewidth=2.0, label="EM")
            right.axvline(2 / largest, color="0.6", linestyle=":", label="2 / largest curvature at the optimum")
            panel(right, title=f"passes to a gap of {NEAR:g}", x="step size", y="passes over the data", log="xy")
            right.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 0.07))

        finite = [n for n in there.values() if np.isfinite(n)]
        # A step too long for the curvature at the optimum cannot stay there, one that is not is only too short for the budget.
        missed = [s for s, n in there.items() if not np.isfinite(n)]
        lost, cut = [s for s in missed if s > 2 / largest], [s for s in missed if s <= 2 / largest]
        cost = min(finite) / quickest
        kappa = condition(objective, best.evaluation).before
        lines = (
            Line("condition number of the Hessian, two ways", kappa, largest / smallest, "ours", 1e-3 * kappa),
            Line("factor of the best constant step along the least curved direction", predicted, flat, "theory", 1e-3),
            Line("factor of the best constant step along the most curved direction", -predicted, steep, "theory", 1e-3),
            Line(f"passes of EM to {NEAR:g}", np.nan, quickest),
            Line("passes of the best step size tried", np.nan, min(finite)),
            Line("EM's passes over those of the best step size tried", 0.5, 1 / cost, "ours", 0.0, bound="<="),
            Line("step sizes too long ever to arrive: those above 2 / largest curvature", float(np.sum(sizes > 2 / largest)),
                 float(len(lost)), "theory", 0.0),
            Line("step sizes too short to arrive within the budget", np.nan, float(len(cut))),
        )  # fmt: skip
        notes = (
            f"Of {len(sizes)} step sizes over three decades, {len(lost)} are too long and never arrive, and {len(cut)} are so "
            f"short that {budget:,} passes do not suffice; the best one takes {cost:.1f} times EM's passes, and it was not "
            "known before.",
        )
        settings = {
            "data": "Old Faithful", "components": 2, "coordinates": "free", "sizes": sizes.tolist(), "max_passes": budget,
            "gtol": stop.gtol, "gap of arrival": NEAR, "best constant step": optimal,
            "start": {"means": start["means"], "covariances": np.cov(X.T).tolist(), "weights": [0.5, 0.5]},
        }  # fmt: skip
        return Outcome(self.name, self.title, lines, settings, notes, draw)


def _factor(part: np.ndarray, errors: np.ndarray) -> float:
    """Return by what a part of the error is multiplied a step in the end, with its sign."""
    first, last = (int(np.flatnonzero(errors > end)[-1]) for end in LATE)
    size = abs(part[last] / part[first]) ** (1 / (last - first))
    return float(np.copysign(size, part[last] / part[last - 1]))
