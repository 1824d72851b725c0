"""Where EM is the better climber and where a gradient method is: passes against the overlap of two components."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.compare import compare
from emcore.diagnostics import rate
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import two_gaussians
from emcore.models import GaussianMixture
from emcore.plot import styles_of
from emcore.result import Stop
from emcore.solvers import ConjugateGradient

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["Overlap", "crossover"]

SEPARATIONS = (1.2, 1.6, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0)
# Plain conjugate gradients, as Salakhutdinov and others had them, and those whose directions come from EM's steps.
SOLVERS = ("em", ConjugateGradient(precondition=False), "lbfgs", "cg", "auto")
GAP = 1e-9  # below the optimum, per row: arrived
FOLLOWS = 1.3  # times the passes of the better of EM and plain conjugate gradients, at most


class Overlap(Experiment):
    """EM beside conjugate gradients as components come to overlap: where they cross (Salakhutdinov and others 2003)."""

    name: ClassVar[str] = "overlap"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        separations = (2.5, 4.0, 7.0) if quick else SEPARATIONS
        n, seeds = (500, (1,)) if quick else (2000, (1, 2, 3))
        rates, passes = np.empty(len(separations)), {}
        for i, separation in enumerate(separations):
            tick(f"{separation:g} standard deviations")
            found = [_raced(separation, n, seed) for seed in seeds]
            rates[i] = np.median([slowest for slowest, _ in found])
            for label in found[0][1]:
                passes.setdefault(label, np.empty(len(separations)))[i] = np.median([arrivals[label] for _, arrivals in found])
        plain = next(label for label in passes if label.startswith("cg("))
        at = np.array(separations)
        crossings = {label: crossover(at, rates, passes["em"], passes[label]) for label in (plain, "cg", "lbfgs")}

        lines = []
        for i, separation in enumerate(separations):
            lines.append(Line(f"{separation:g} sd: EM's rate", math.nan, rates[i]))
            lines += [Line(f"{separation:g} sd: passes of {label}", math.nan, counts[i]) for label, counts in passes.items()]
        for label, (where, slowest) in crossings.items():
            lines.append(Line(f"em and {label} cross at, sd", math.nan, where))
            lines.append(Line(f"em and {label} cross at a rate of", math.nan, slowest))
        better = np.fmin(passes["em"], passes[plain])
        lines.append(Line("auto over the better of em and plain cg, at worst", 1.0, float(np.max(passes["auto"] / better)),
                          "theory", FOLLOWS - 1.0))  # fmt: skip

        def draw(figure: Figure) -> None:
            left, right = figure.subplots(1, 2, sharey=True)
            for axes, x in ((left, at), (right, 1 / (1 - rates))):
                for label, style in styles_of(passes).items():
                    axes.plot(x, passes[label], color=style.colour, linestyle=style.line, marker=style.marker, label=label)
            apart = "distance of the means, in standard deviations"
            panel(left, title="by overlap", x=apart, y="passes to the optimum", log="y")
            panel(right, title="by EM's rate", x="1 / (1 - rate of EM)", y="", log="xy")
            for axes, place in ((left, lambda c: c[0]), (right, lambda c: 1 / (1 - c[1]))):
                where = place(crossings[plain])
                if math.isfinite(where):
                    axes.axvline(where, color="0.6", linewidth=0.9, linestyle=":", zorder=1)
            left.legend(frameon=False)

        where, slowest = crossings[plain]
        met = "do not cross"
        if math.isfinite(where):
            met = f"cross at {where:.1f} standard deviations, where EM's rate is {slowest:.2f}"
        notes = (
            f"Median passes to within {GAP:g} of the optimum, {n} rows, {len(seeds)} data sets; weights, means and variances "
            f"free. EM and plain conjugate gradients {met}; auto follows the better one on both sides.",
            "One start: weights 0.4 and 0.6, means a quarter too far out, variances 1.5. '-' or nan: not within 20,000 passes.",
        )
        settings = {"rows": n, "seeds": list(seeds), "separations": list(separations), "gap": GAP}
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)


def _raced(separation: float, n: int, seed: int) -> tuple[float, dict[str, float]]:
    """Return EM's rate at the optimum, and the passes to it by solver; infinite where one does not get there."""
    X, _ = two_gaussians(separation, n, seed)
    half = 0.625 * separation
    means = np.array([[separation / 2 - half], [separation / 2 + half]])
    start = {"weights": [0.4, 0.6], "means": means, "covariances": np.full((2, 1, 1), 1.5)}
    stop = Stop(gain=1e-15, max_passes=20_000)  # to rounding
    race = compare(GaussianMixture(2), X, solvers=SOLVERS, stop=stop, start=start, n_threads=1, diagnose=False)
    arrivals = {label: race.arrival(label, GAP) for label in race.fits}
    return rate(race.best.evaluation.objective, race.best.evaluation).rate, {
        label: math.inf if math.isnan(passes) else passes for label, passes in arrivals.items()
    }


def crossover(separations: Array, rates: Array, em: Array, other: Array) -> tuple[float, float]:
    """Return the separation from which on EM takes no more passes than another solver, and EM's rate there; NaN where none is.

    Interpolated between the separations, in the logarithm of the ratio of passes.
    """
    ratio = np.log(em / other)
    for i in range(len(ratio) - 1, 0, -1):
        if ratio[i - 1] > 0 >= ratio[i]:
            part = ratio[i] / (ratio[i] - ratio[i - 1]) if np.isfinite(ratio[i - 1]) else 0.0
            where, slowest = (float(x[i] + part * (x[i - 1] - x[i])) for x in (separations, rates))
            return where, slowest
    return math.nan, math.nan
