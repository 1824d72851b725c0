"""A uniform component with an unknown endpoint: where Fisher's identity fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.data import as_source
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.models import UniformMixture
from emcore.objective import ModelObjective
from emcore.plot import STYLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["UniformEndpoint"]

UPPER, TRUE, SHARE = 3.0, 1.2, 0.5
ENDPOINTS = (0.6, 0.9, 1.1, 1.3, 1.8)


def slopes(end: float) -> tuple[float, float]:
    """Return the derivatives of Q / N from the right and of the log-likelihood per row, both of the population."""
    inner, outer = SHARE / end + (1 - SHARE) / UPPER, (1 - SHARE) / UPPER
    below = SHARE * min(end, TRUE) / TRUE + (1 - SHARE) * end / UPPER  # of the rows
    density = SHARE / TRUE * (end < TRUE) + (1 - SHARE) / UPPER
    q = -(SHARE / end / inner) * below / end
    return q, q + density * np.log(inner / outer)


class UniformEndpoint(Experiment):
    """The gradient of Q is not that of the log-likelihood where the support depends on a parameter."""

    name: ClassVar[str] = "uniform"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        n, window = (100_000, 0.04) if quick else (400_000, 0.02)
        model, rng = UniformMixture(UPPER), np.random.default_rng(0)
        weights = np.array([SHARE, 1 - SHARE])
        X, _ = model.sample({"weights": weights, "endpoint": [TRUE]}, n, rng)
        objective = ModelObjective(model, as_source(X))

        def at(end: float) -> object:
            return objective.evaluate(objective.point_of(objective.model.params(weights, np.array([end]))))

        lines, found = [], []
        for end in ENDPOINTS:
            tick(f"endpoint {end}")
            here = at(end)
            q = float(objective.model.score(here.point.params, here.stats).endpoint[0]) / n
            rise = (at(end + window).value - at(end - window).value) / (2 * window)
            found.append((q, rise))
            expected = slopes(end)
            lines.append(Line(f"derivative of Q / N at {end}", expected[0], q, "theory", 4 / np.sqrt(n) / end))
            # The difference counts rows in the window: its standard error is that of the count.
            error = np.log(1 + UPPER / end) * np.sqrt(0.6 * 2 * window / n) / (2 * window)
            lines.append(Line(f"slope of the log-likelihood at {end}", expected[1], rise, "theory", 3 * error + 2 * window))
        grid = np.linspace(0.3, 2.7, 121)
        values = np.array([at(end).value for end in grid])

        def draw(figure: Figure) -> None:
            left, right = figure.subplots(1, 2)
            left.plot(grid, values, color=STYLES[0].colour)
            left.axvline(TRUE, color="0.6", linewidth=0.8)
            panel(left, title="log-likelihood", x="endpoint", y="per row")
            theory = np.array([slopes(end) for end in grid])
            for j, (style, label) in enumerate(zip(STYLES, ("derivative of Q", "slope of the log-likelihood"), strict=False)):
                right.plot(grid, theory[:, j], color=style.colour, linestyle=style.line, label=label)
                right.plot(ENDPOINTS, [f[j] for f in found], "o", color=style.colour)
            right.axvline(TRUE, color="0.6", linewidth=0.8)
            right.axhline(0.0, color="0.6", linewidth=0.8)
            panel(right, title="lines: population, points: sample", x="endpoint", y="per row")
            right.legend(frameon=False)

        notes = (
            "Below the true endpoint the log-likelihood rises and the derivative of Q is negative: each row that the endpoint "
            "passes gains density at once, a boundary term that Fisher's identity does not have. Every gradient method would "
            "shrink the endpoint, and EM freezes at the largest row that is not above its start.",
        )
        settings = {"rows": n, "window": window, "seed": 0, "upper": UPPER, "endpoint": TRUE, "weights": weights.tolist()}
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)
