"""Kullback's proximal points: how fast for which beta."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.diagnostics import rate
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import climb, solution, two_gaussians
from emcore.models import GaussianMixture
from emcore.plot import STYLES
from emcore.result import Stop
from emcore.solvers import Proximal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ProximalRates"]

BETAS = (1.0, 0.5, 0.2, 0.05, 0.01)
SCHEDULES = ("1/(1+k)", "2^-k", "2^(-k^2/2)")
FIXED = {"covariances": True}


class ProximalRates(Experiment):
    """Kullback's proximal points are EM at beta = 1, and superlinear as beta goes to 0 (Chretien and Hero 2000)."""

    name: ClassVar[str] = "proximal"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        X, truth = two_gaussians(1.6, 500 if quick else 1000, 1)
        start = truth | {"weights": np.array([0.4, 0.6]), "means": np.array([[-0.6], [2.0]])}
        best = solution(X, start, fixed=FIXED)
        slowest = rate(best.evaluation.objective, best.evaluation).rate
        lines, errors = [Line("EM's rate, the largest fraction of missing information", np.nan, slowest)], {}
        for beta in (*BETAS, *SCHEDULES):
            tick(f"beta {beta}")
            thetas: list[np.ndarray] = []
            climb(
                GaussianMixture(2), X, start, Proximal(beta=beta, tol=1e-10), Stop(gain=0, max_passes=20_000),
                fixed=FIXED, callback=lambda step, thetas=thetas: _noted(thetas, step.evaluation.point.theta, best.theta),
            )  # fmt: skip
            errors[beta] = np.array([np.linalg.norm(t - best.theta) for t in thetas])
            if beta in BETAS:
                predicted = beta * slowest / (1 - slowest + beta * slowest)
                lines.append(Line(f"rate at beta = {beta:g}", predicted, _rate(errors[beta]), "theory", 1e-3))
        steps = {beta: int(np.argmax(errors[beta] < 1e-6)) for beta in SCHEDULES if (errors[beta] < 1e-6).any()}
        lines += [Line(f"steps to an error of 1e-6 with beta = {beta}", np.nan, float(n)) for beta, n in steps.items()]

        def draw(figure: Figure) -> None:
            left, right = figure.subplots(1, 2, sharey=True)
            for axes, betas, title in ((left, BETAS, "constant beta: linear"), (right, SCHEDULES, "beta to 0: superlinear")):
                for style, beta in zip(STYLES, betas, strict=False):
                    shown = errors[beta][:101]
                    axes.plot(np.maximum(shown, 1e-15), color=style.colour, linestyle=style.line, label=f"beta = {beta}")
                panel(axes, title=title, x="step", y="distance to the solution", log="y")
                axes.legend(frameon=False)
            right.set_ylabel("")

        notes = (
            "A step maximises l - beta I, I being the divergence of the posterior from that before the step. An error that EM "
            "multiplies by lambda a step is multiplied by beta lambda / (1 - lambda + beta lambda).",
        )
        settings = {
            "rows": len(X), "separation": 1.6, "seed": 1, "weights": truth["weights"].tolist(), "variances": 1.0,
            "fixed": "covariances", "start": {name: value.tolist() for name, value in start.items()},
            "betas": [*BETAS, *SCHEDULES], "tol of inner climbs": 1e-10, "until": "1e-12 from the solution",
            "max_passes": 20_000, "coordinates": "free",
        }  # fmt: skip
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)


def _noted(thetas: list[np.ndarray], theta: np.ndarray, best: np.ndarray) -> bool:
    """Note a point, and tell whether it is the solution, but for rounding."""
    thetas.append(theta)
    return bool(np.linalg.norm(theta - best) < 1e-12)


def _rate(errors: np.ndarray) -> float:
    """Return the factor of an error in the last steps before rounding."""
    last = int(np.flatnonzero(errors > 1e-8)[-1])
    first = max(last - 20, int(np.flatnonzero(errors < 1e-3)[0]))
    return float((errors[last] / errors[first]) ** (1 / (last - first)))
