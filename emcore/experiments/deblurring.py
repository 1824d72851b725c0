"""Two rails seen through a blur: EM and Kullback's proximal points."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.data import as_source
from emcore.diagnostics import projection
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import climb
from emcore.models import PoissonInverse
from emcore.objective import ModelObjective
from emcore.plot import STYLES
from emcore.result import Stop
from emcore.solvers import Proximal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Deblurring"]

PIXELS, WIDTH, BACKGROUND = 48, 2.0, 0.3
RAILS = ((22, 60.0), (26, 60.0))  # pixel and intensity


class Deblurring(Experiment):
    """Deblurring two rails: proximal points with beta to 0 overtake EM (Chretien and Hero 2000)."""

    name: ClassVar[str] = "deblurring"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        pixels = np.arange(PIXELS)
        K = np.exp(-0.5 * ((pixels[:, None] - pixels) / WIDTH) ** 2)
        K /= K.sum(axis=0)
        truth = np.zeros(PIXELS)
        for pixel, intensity in RAILS:
            truth[pixel] = intensity
        y = np.random.default_rng(0).poisson(K @ truth + BACKGROUND).astype(float)
        model, start = PoissonInverse(BACKGROUND), {"intensities": np.full(PIXELS, y.mean())}
        most = 100 if quick else 1000
        tick("proximal points")
        proximal = climb(model, (K, y), start, Proximal(beta="2^-k"), Stop(gain=1e-14, max_passes=2000))
        tick("EM")
        em = climb(model, (K, y), start, "em", Stop(gain=0, max_passes=most))
        tick("L-BFGS")
        best = climb(model, (K, y), start, "lbfgs", Stop(gain=1e-16, max_passes=1000 if quick else 5000))
        highest = max(run.log_likelihood for run in (proximal, em, best))
        gaps = {
            "EM": highest - PIXELS * em.trace.value,
            "proximal points, 2^-k": highest - PIXELS * proximal.trace.value,
        }
        behind = np.flatnonzero(
            gaps["proximal points, 2^-k"][: len(gaps["EM"])] < gaps["EM"][: len(gaps["proximal points, 2^-k"])]
        )
        objective = ModelObjective(model, as_source((K, y)))
        found = projection(objective, objective.evaluate(objective.point_of(objective.model.from_user(start))))
        gap = gaps["proximal points, 2^-k"]
        lines = (
            Line("error of: EM's step is x / sum K times the gradient", 0.0, found.error, "theory", 1e-12),
            Line("step from which the proximal points are ahead", 7.0, float(behind[0]) if len(behind) else np.nan, "recalled"),
            Line("gap of the proximal points after 12 steps", np.nan, float(gap[min(12, len(gap) - 1)])),
            Line(f"gap of EM after {len(em.trace) - 1} steps", np.nan, float(gaps["EM"][-1])),
        )

        def draw(figure: Figure) -> None:
            left, right = figure.subplots(1, 2)
            for style, (name, values) in zip(STYLES, gaps.items(), strict=False):
                steps = np.arange(1, len(values))
                left.plot(steps, np.maximum(values[1:], 1e-9), color=style.colour, linestyle=style.line, label=name)
            panel(left, title="log-likelihood below the highest", x="step", y="gap (sum)", log="xy")
            left.legend(frameon=False)
            right.bar(pixels, y, color="0.85", label="counts")
            right.plot(pixels, truth, color="black", linewidth=1.2, label="truth")
            for style, (name, run) in zip(STYLES[1:], (("EM", em), ("proximal points", proximal)), strict=False):
                right.plot(pixels, run.params.intensities, color=style.colour, linestyle=style.line, label=name)
            panel(right, title="what is seen, and what was there", x="pixel", y="counts, intensity")
            right.legend(frameon=False)

        notes = (
            "A step of the proximal points is a climb of its own, of several passes and Hessian products: they are ahead by "
            "step, not by work. Where EM is overtaken depends on the data; it is shown, not held to the paper.",
        )
        settings = {"pixels": PIXELS, "width of the blur": WIDTH, "background": BACKGROUND, "rails": RAILS, "seed": 0}
        return Outcome(self.name, self.title, lines, settings, notes, draw)
