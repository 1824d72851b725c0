"""Kullback's proximal points: how fast for which beta."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.diagnostics import rate
from emcore.experiments._base import FRESH, Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import climb, solution, two_gaussians
from emcore.models import GaussianMixture
from emcore.plot import STYLES
from emcore.result import Stop
from emcore.solvers import EM, Proximal
from emcore.solvers.proximal import SCHEDULES as BETA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ProximalRates"]

BETAS = (1.0, 0.5, 0.2, 0.05, 0.01)
# How beta goes to 0, and what is left at most of the first step's factor in the last step before rounding: by theory's
# factors about a half, as beta falls by no more than the number of steps, a fiftieth, and nothing.
SCHEDULES = {"1/(1+k)": 0.6, "2^-k": 0.1, "2^(-k^2/2)": 0.1}
MISSED = ("1/(1+k)",)  # what was not so: the first step, from far away, shrinks the error by more than theory's small ones
NEAR = 1e-6  # an error
# Steps beyond those that theory's factors take from the first error to that: they are those of small errors, and where they
# are wrong by ten at first, the slowest schedule takes two to three steps more for it.
MORE = 3
STEPS = 50  # compared with EM's
FIXED = {"covariances": True}


class ProximalRates(Experiment):
    """Kullback's proximal points are EM at beta = 1, and superlinear as beta goes to 0 (Chretien and Hero 2000)."""

    name: ClassVar[str] = "proximal"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        X, truth = two_gaussians(1.6, 500 if quick else 1000, FRESH)
        start = truth | {"weights": np.array([0.4, 0.6]), "means": np.array([[-0.6], [2.0]])}
        best = solution(X, start, fixed=FIXED)
        slowest = rate(best.evaluation.objective, best.evaluation).rate
        lines, errors, paths = [Line("EM's rate, the largest fraction of missing information", np.nan, slowest)], {}, {}
        for beta in ("EM", *BETAS, *SCHEDULES):
            tick(f"beta {beta}")
            thetas: list[np.ndarray] = []
            climb(
                GaussianMixture(2), X, start, EM() if beta == "EM" else Proximal(beta=beta, tol=1e-10),
                Stop(gain=0, max_passes=20_000), fixed=FIXED,
                callback=lambda step, thetas=thetas: _noted(thetas, step.evaluation.point.theta, best.theta),
            )  # fmt: skip
            paths[beta] = np.array(thetas)
            errors[beta] = np.linalg.norm(paths[beta] - best.theta, axis=1)
        # An inner climb ends 1e-10 of its way off, and EM forgets the part 1 - rate of that a step.
        lines.append(Line(f"beta = 1: largest difference from EM, {STEPS} steps", 0.0,
                          float(np.abs(paths[1.0][: STEPS + 1] - paths["EM"][: STEPS + 1]).max()), "theory", 1e-8))  # fmt: skip
        lines += [Line(f"rate at beta = {b:g}", _factor(b, slowest), _rate(errors[b]), "theory", 1e-3) for b in BETAS]
        for beta, left in SCHEDULES.items():
            arrived = errors[beta] < NEAR
            lines.append(Line(f"steps to an error of {NEAR:g} with beta = {beta}", _predicted(beta, slowest, errors[beta][0]),
                              float(np.argmax(arrived)) if arrived.any() else np.inf, "theory", MORE, bound="<="))  # fmt: skip
            speeding = _speeding(errors[beta])
            held, missed = (np.inf, speeding > left) if beta in MISSED else (0.0, False)
            lines.append(Line(f"last step's factor over the first's with beta = {beta}", left, speeding, "ours", held,
                              bound="<=", missed=missed))  # fmt: skip

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
            "multiplies by lambda a step is multiplied by beta lambda / (1 - lambda + beta lambda). The reference of a number "
            f"of steps is what these factors take, with {MORE} more allowed for the first ones, whose errors are not small.",
            "The factor of the last step over that of the first was to be at most 0.6 with beta = 1/(1+k), from theory's "
            "factors; but the first step, from far away, shrinks the error by more than these: shown, and not held to.",
        )
        settings = {
            "rows": len(X), "separation": 1.6, "seed": FRESH, "weights": truth["weights"].tolist(), "variances": 1.0,
            "fixed": "covariances", "start": {name: value.tolist() for name, value in start.items()},
            "betas": [*BETAS, *SCHEDULES], "tol of inner climbs": 1e-10, "until": "1e-12 from the solution",
            "max_passes": 20_000, "coordinates": "free",
        }  # fmt: skip
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)


def _noted(thetas: list[np.ndarray], theta: np.ndarray, best: np.ndarray) -> bool:
    """Note a point, and tell whether it is the solution, but for rounding."""
    thetas.append(theta)
    return bool(np.linalg.norm(theta - best) < 1e-12)


def _factor(beta: float, slowest: float) -> float:
    """Return the factor of an error in a step, where EM's is `slowest`."""
    return beta * slowest / (1 - slowest + beta * slowest)


def _predicted(schedule: str, slowest: float, error: float) -> float:
    """Return the steps that an error takes until it is small, by the factors of small errors."""
    k = 0
    while error >= NEAR:
        error *= _factor(BETA[schedule](k), slowest)
        k += 1
    return float(k)


def _speeding(errors: np.ndarray) -> float:
    """Return the factor of the last step before rounding over that of the first."""
    last = int(np.flatnonzero(errors > 1e-10)[-1])
    return float(errors[last] / errors[last - 1] * errors[0] / errors[1])


def _rate(errors: np.ndarray) -> float:
    """Return the factor of an error in the last steps before rounding."""
    last = int(np.flatnonzero(errors > 1e-8)[-1])
    first = max(last - 20, int(np.flatnonzero(errors < 1e-3)[0]))
    return float((errors[last] / errors[first]) ** (1 / (last - first)))
