"""Accelerators of EM on the deaths of the London Times, and on two overlapping components."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from emcore.data import as_source
from emcore.diagnostics import rate
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import london, two_gaussians
from emcore.models import GaussianMixture
from emcore.objective import ModelObjective, Point
from emcore.plot import STYLES
from emcore.result import Stop
from emcore.solve import Step, solve
from emcore.solvers import DAAREM, EM, LBFGS, QN1, QN2, SQUAREM, ZAL, Anderson, Auto, Newton

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Accelerators"]

NEAR = 1e-8  # length of the EM step in the parameters, the last weight left out
BUDGET = 4000  # passes
STARTS = {"near": ((0.3, 0.7), (1.0, 2.5)), "far": ((0.5, 0.5), (1.0, 4.0))}
# Two components 1.6 standard deviations apart, their variances known; the seed and the share of those tried whose rate of EM
# is that of the reference's sample, .973.
MIXTURE = {"separation": 1.6, "n": 1000, "seed": 3, "share": 0.3}
START = {"weights": np.array([0.4, 0.6]), "means": np.array([[-0.6], [2.0]])}


class Solved(NamedTuple):
    """A solver, the most E-steps that it may take on the deaths, and those of an independent implementation, by problem.

    Counts of others depend on details of the safeguards.
    """

    solver: Any
    most: float = math.nan
    known: tuple[float, float, float] = (math.nan, math.nan, math.nan)


SOLVERS = {
    "EM": Solved(EM(), known=(2586, 2782, 559)),
    "SQUAREM S1": Solved(SQUAREM("S1"), 100, (90, 48, 42)),
    "SQUAREM S2": Solved(SQUAREM("S2"), 100, (75, 89, 39)),
    "SQUAREM S3": Solved(SQUAREM("S3"), 100, (72, 69, 36)),
    "ZAL, 1 secant": Solved(ZAL(1), 170, (152, 142, 143)),
    "ZAL, 2 secants": Solved(ZAL(2), 60, (44, 48, math.nan)),
    "ZAL, 3 secants": Solved(ZAL(3), 35, (20, 30, 23)),
    "QN1": Solved(QN1(), 170, (math.nan, math.nan, 31)),
    "QN2": Solved(QN2(), 60),
    "Anderson": Solved(Anderson(), 100),
    "DAAREM, order 2": Solved(DAAREM(order=2), 100, (math.nan, math.nan, 26)),
    "DAAREM, order 3": Solved(DAAREM(order=3), 100, (math.nan, math.nan, 23)),
    "L-BFGS": Solved(LBFGS(), 60),
    "Newton": Solved(Newton(), 20),
    "auto": Solved(Auto(), 60),
}


BEYOND = ("SQUAREM S2",)  # took more than the limit, when it was set


class Problem(NamedTuple):
    """Something to climb."""

    title: str
    start: Callable[[], tuple[ModelObjective, Point]]
    field: str  # of the parameters that are free, beside the weights
    tolerance: float = math.inf  # of EM's count


def _overlapping() -> tuple[ModelObjective, Point]:
    X, truth = two_gaussians(**MIXTURE)
    source, start = as_source(X), truth | START
    model = GaussianMixture(2).bind(source, fixed={"covariances": True}, start=start)
    objective = ModelObjective(model, source, n_threads=1)
    return objective, objective.point_of(objective.model.from_user(start))


PROBLEMS = {
    "near": Problem("the deaths, near start", lambda: london(*STARTS["near"]), "rates", 3.0),
    "far": Problem("the deaths, far start", lambda: london(*STARTS["far"]), "rates", 3.0),
    "mixture": Problem("1.6 sd apart", _overlapping, "means"),
}


class Accelerators(Experiment):
    """EM takes 2,600 passes on the deaths of the London Times, its accelerators some tens (Hasselblad 1969)."""

    name: ClassVar[str] = "accelerators"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        counts, curves, bests = [], {}, {}
        for i, (key, problem) in enumerate(PROBLEMS.items()):
            for name, (solver, most, known) in SOLVERS.items():
                tick(f"{name}, {problem.title}")
                found, curves[key, name] = _timed(problem, solver)
                if key not in bests or found.value > bests[key].value:
                    bests[key] = found
                steps, what = float(curves[key, name][-1, 0]), f"E-steps, {problem.title}, {name}"
                if math.isfinite(known[i]):
                    held = problem.tolerance if name == "EM" else math.inf
                    counts.append(Line(what, known[i], steps, "reference", held, missed=not steps <= known[i]))
                if math.isfinite(most):
                    held, missed = (math.inf, not steps <= most) if name in BEYOND else (0.0, False)
                    counts.append(Line(f"{what}, at most", most, steps, "ours", held, bound="<=", missed=missed))
        best, other = bests["near"], bests["mixture"]
        params = best.point.params
        order = np.argsort(params.rates[:, 0])
        optimum = (*params.weights[order], *params.rates[order, 0])
        published = {"first weight": 0.3598854, "second weight": 0.6401146, "first rate": 1.2560951, "second rate": 2.6634044}
        lines = [
            *(
                Line(f"optimum of the deaths, {name}", known, float(x), "seen", 1e-6)
                for (name, known), x in zip(published.items(), optimum, strict=True)
            ),
            Line("log-likelihood of the deaths", -1989.945860, best.log_likelihood, "reference", 1e-6),
            Line("EM's rate on the deaths", 0.995666, rate(best.evaluation.objective, best.evaluation).rate, "reference", 1e-5),
            Line("EM's rate, 1.6 sd apart", 0.973, rate(other.evaluation.objective, other.evaluation).rate, "reference"),
            *counts,
        ]  # fmt: skip

        def draw(figure: Figure) -> None:
            figure.set_size_inches(15.0, 4.8)
            panels = figure.subplots(1, 3, sharey=True)
            shown = ("EM", "SQUAREM S3", "ZAL, 2 secants", "DAAREM, order 2", "L-BFGS", "Newton", "auto")
            for axes, (key, problem) in zip(panels, PROBLEMS.items(), strict=True):
                for style, name in zip(STYLES, shown, strict=False):
                    passes, length = curves[key, name].T
                    axes.plot(passes, np.maximum(length, 1e-12), color=style.colour, linestyle=style.line, label=name)
                axes.axhline(NEAR, color="0.6", linestyle=":", linewidth=0.9)
                panel(axes, title=problem.title, x="E-steps", y="length of the EM step" if key == "near" else "", log="xy")
            panels[-1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))

        notes = (
            "Newton's passes for Hessian products are not among its E-steps.",
            "The optimum of the deaths is that in the tests of R's SQUAREM package, where it was read; not in a publication.",
            "Counts of the reference depend on details of its safeguards, which are not ours, and, 1.6 sd apart, on a sample "
            "and a start that are not known: only EM's on the deaths are held to it, and what takes more than it is marked as "
            "not reproduced. Our sample 1.6 sd apart was chosen for its rate: rate and count of EM agree by choice, and are "
            "shown. Its QN1 to QN3 are ZAL with 1 to 3 secants. Limits are ours, for the deaths, and taken over to the other "
            "problem. SQUAREM's holds for S1 and S3, the default; for S2 it is not reproduced.",
        )
        settings = {
            "data": {"near, far": "deaths of the London Times", "mixture": MIXTURE | {"variances, fixed": 1.0}},
            "starts": STARTS | {"mixture": {name: value.tolist() for name, value in START.items()}},
            "until": f"EM step shorter than {NEAR:g} in the first weight and the rates, or means", "max_passes": BUDGET,
            "solvers": {name: solved.solver.describe() for name, solved in SOLVERS.items()},
        }  # fmt: skip
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)


def _timed(problem: Problem, solver: Any) -> tuple[Any, np.ndarray]:
    """Return a climb, and the lengths of the EM step on its way by passes."""
    objective, at = problem.start()
    lengths: list[tuple[float, float]] = []

    def near(step: Step) -> bool:
        here, there = step.evaluation.point.params, step.evaluation.em_point.params
        moved = (getattr(there, problem.field) - getattr(here, problem.field)).ravel()
        lengths.append((step.row.passes, float(np.linalg.norm([there.weights[0] - here.weights[0], *moved]))))
        return lengths[-1][1] < NEAR

    return solve(objective, solver, at, stop=Stop(gain=0, max_passes=BUDGET), callback=near), np.array(lengths)
