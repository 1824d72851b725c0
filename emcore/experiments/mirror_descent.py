"""EM as mirror descent: what each step gains at least."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from emcore.data import faithful
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import climb
from emcore.models import GaussianMixture
from emcore.plot import STYLES
from emcore.result import Stop

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MirrorDescent"]


class MirrorDescent(Experiment):
    """Each EM step gains at least the divergence of the complete data it moves by (Kunstner, Kumar and Schmidt 2021)."""

    name: ClassVar[str] = "mirror-descent"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        X = faithful()
        starts = range(3 if quick else 10)
        slack, ends, least, inside, shown = [], [], [], [], None
        for seed in starts:
            tick(f"start {seed}")
            points: list[Any] = []
            fit = climb(
                GaussianMixture(3), X, "random-points", "em", Stop(gain=1e-13, max_passes=2000), random_state=seed,
                callback=lambda step, points=points: points.append(step.evaluation.point.params),
            )  # fmt: skip
            gains = np.diff(fit.trace.value)
            moved = np.array([_divergence(new, old) for old, new in pairwise(points)])
            slack.append(float(np.min(gains - moved)))
            least.append(float(np.min(gains)))
            inside.append(min(float(min(p.weights.min(), np.linalg.eigvalsh(p.covariances).min())) for p in points))
            smallest = np.minimum.accumulate(moved)
            bound = (fit.trace.value[-1] - fit.trace.value[0]) / np.arange(1, len(moved) + 1)
            ends.append(float(np.max(smallest / bound)))
            shown = shown or (gains, moved, smallest, bound)

        def draw(figure: Figure) -> None:
            left, right = figure.subplots(1, 2)
            gains, moved, smallest, bound = shown
            steps = np.arange(1, len(gains) + 1)
            for axes, pairs, title in (
                (left, (("gain of the step", gains), ("divergence it moved by", moved)), "every step"),
                (right, (("bound: all that can be gained / steps", bound), ("smallest divergence so far", smallest)), "so far"),
            ):
                for style, (label, values) in zip(STYLES, pairs, strict=False):
                    axes.plot(steps, np.maximum(values, 1e-16), color=style.colour, linestyle=style.line, label=label)
                panel(axes, title=title, x="step of EM", y="per row", log="xy")
                axes.legend(frameon=False)

        lines = (
            Line(f"least of gain minus divergence, {len(starts)} climbs", 0.0, min(slack), "theory", 1e-13, bound=">="),
            Line("largest ratio of smallest divergence to its bound", 1.0, max(ends), "theory", 1e-9, bound="<="),
            Line("least gain of a step", 0.0, min(least), "theory", 1e-13, bound=">="),
            Line("least weight, or eigenvalue of a covariance, on the way", 0.0, min(inside), "theory", 0.0, bound=">="),
        )
        notes = (
            "EM is mirror descent with unit step: a step gains at least KL(p(x, z | new) || p(x, z | old)), whatever the "
            "coordinates, and so the smallest divergence among T steps is at most 1 / T of all that can be gained.",
        )
        settings = {
            "data": "Old Faithful", "components": 3, "start": "random-points", "seeds": list(starts), "gain": 1e-13,
            "max_passes": 2000,
        }  # fmt: skip
        return Outcome(self.name, self.title, lines, settings, notes, draw)


def _divergence(p: Any, q: Any) -> float:
    """Return KL(p || q) of the complete data of two Gaussian mixtures, per row."""
    total = float(p.weights @ np.log(p.weights / q.weights))
    for c, share in enumerate(p.weights):
        inverse = np.linalg.inv(q.covariances[c])
        away = q.means[c] - p.means[c]
        ratio = inverse @ p.covariances[c]
        total += 0.5 * share * (np.trace(ratio) - len(away) + away @ inverse @ away - np.linalg.slogdet(ratio)[1])
    return float(total)
