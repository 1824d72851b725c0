"""A uniform component with an unknown endpoint: where Fisher's identity fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.data import as_source
from emcore.experiments._base import FRESH, Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import climb
from emcore.models import UniformMixture
from emcore.objective import ModelObjective
from emcore.plot import STYLES
from emcore.result import Stop

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from emcore.fit import Fit

__all__ = ["UniformEndpoint"]

UPPER, TRUE, SHARE = 3.0, 1.2, 0.5
STOP = Stop(gain=1e-10, max_passes=2000)
ENDPOINTS = (0.6, 0.9, 1.1, 1.3, 1.8)
FEW, FEW_SEED, STARTS = 100, FRESH + 1, (0.6, 1.0, 1.8)  # of the sample on which EM freezes
# Where EM froze from three starts, and the optimum, on a sample of an independent implementation that is not known.
FROZEN, OPTIMUM = (-120.6, -101.1, -96.4), -90.2


def slopes(end: float) -> tuple[float, float]:
    """Return the derivatives of Q / N from the right and of the log-likelihood per row, both of the population."""
    inner, outer = SHARE / end + (1 - SHARE) / UPPER, (1 - SHARE) / UPPER
    below = SHARE * min(end, TRUE) / TRUE + (1 - SHARE) * end / UPPER  # of the rows
    density = SHARE / TRUE * (end < TRUE) + (1 - SHARE) / UPPER
    q = -(SHARE / end / inner) * below / end
    return q, q + density * np.log(inner / outer)


def _freezes() -> list[Line]:
    """Return where EM comes to rest on a small sample, beside the best endpoint."""
    model, weights = UniformMixture(UPPER), np.array([SHARE, 1 - SHARE])
    X, _ = model.sample({"weights": weights, "endpoint": [TRUE]}, FEW, np.random.default_rng(FEW_SEED))

    def climbed(start: float) -> Fit:
        return climb(model, X, {"weights": weights, "endpoint": [start]}, "em", STOP)

    # EM freezes at once, so that from each row it finds the best weights of an endpoint there.
    best = max(climbed(float(row)).log_likelihood for row in X[:, 0])
    lines = []
    for start, known in zip(STARTS, FROZEN, strict=True):
        found = climbed(start)
        end, below = float(found.params.endpoint[0]), float(np.max(X, where=start >= X, initial=0.0))
        lost = best - found.log_likelihood
        lines += [
            Line(f"EM from {start}: endpoint, the largest row below", below, end, "theory", 1e-12),
            Line(f"EM from {start}: log-likelihood where it freezes", known, found.log_likelihood, "reference"),
            Line(f"EM from {start}: log-likelihood less the optimum", -1.0, -lost, "ours", 0.0, bound="<="),
        ]  # fmt: skip
    return [*lines, Line("log-likelihood of the best endpoint", OPTIMUM, best, "reference")]


class UniformEndpoint(Experiment):
    """The gradient of Q is not that of the log-likelihood where the support depends on a parameter."""

    name: ClassVar[str] = "uniform"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        n, window = (100_000, 0.04) if quick else (400_000, 0.02)
        model, rng = UniformMixture(UPPER), np.random.default_rng(FRESH)
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
        tick("where EM freezes")
        lines += _freezes()

        def draw(figure: Figure) -> None:
            left, right = figure.subplots(1, 2)
            left.plot(grid, values, color=STYLES[0].colour)
            left.axvline(TRUE, color="0.6", linewidth=0.8)
            panel(left, title="log-likelihood", x="endpoint", y="per row")
            # The slope of the log-likelihood jumps at the true endpoint: two pieces.
            pieces = np.linspace(0.3, TRUE - 1e-9, 60), np.linspace(TRUE, 2.7, 60)
            for j, (style, label) in enumerate(zip(STYLES, ("derivative of Q", "slope of the log-likelihood"), strict=False)):
                for i, piece in enumerate(pieces):
                    right.plot(piece, [slopes(end)[j] for end in piece], color=style.colour, linestyle=style.line,
                               label=None if i else label)  # fmt: skip
                right.plot(ENDPOINTS, [f[j] for f in found], "o", color=style.colour)
            right.axvline(TRUE, color="0.6", linewidth=0.8)
            right.axhline(0.0, color="0.6", linewidth=0.8)
            panel(right, title="lines: population, points: sample", x="endpoint", y="per row")
            right.legend(frameon=False)

        notes = (
            "Below the true endpoint the log-likelihood rises and the derivative of Q is negative: each row that the endpoint "
            "passes gains density at once, a boundary term that Fisher's identity does not have. Every gradient method would "
            "shrink the endpoint, and EM freezes in one step at the largest row that is not above its start.",
            f"Where EM freezes is shown on {FEW} rows. The reference's values, {', '.join(map(str, FROZEN))} from three starts "
            f"and {OPTIMUM} at the optimum, are of a sample that is not known: what is held to is that every start ends below.",
        )
        settings = {
            "rows": n, "window": window, "seed": FRESH, "upper": UPPER, "endpoint": TRUE, "weights": weights.tolist(),
            "endpoints": list(ENDPOINTS), "EM": {"rows": FEW, "seed": FEW_SEED, "starts": list(STARTS), "weights": [0.5, 0.5]},
            "gain": STOP.gain, "max_passes": STOP.max_passes,
        }  # fmt: skip
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)
