"""Lange's EM gradient step beside EM's, and EM's made shorter or longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from emcore.diagnostics import rate
from emcore.experiments._base import FRESH, Experiment, Line, Outcome, Tick, panel
from emcore.experiments._problems import climb, solution, two_gaussians
from emcore.models import GaussianMixture
from emcore.plot import STYLES
from emcore.result import Stop
from emcore.solvers import Natural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from emcore.fit import Fit
    from emcore.solvers import Solver

__all__ = ["LangeStep"]

STRETCHED = (0.5, 1.5, 1.8)  # steps of EM to first order, in their own length


class LangeStep(Experiment):
    """One Newton step on q is EM in the end, and not at the start (Lange 1995)."""

    name: ClassVar[str] = "lange"

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        X, truth = two_gaussians(2.5, 500 if quick else 1000, FRESH)
        start = truth | {"means": np.array([[-1.5], [4.5]]), "covariances": np.full((2, 1, 1), 3.0)}
        best = solution(X, start)
        slowest = rate(best.evaluation.objective, best.evaluation).rate

        def walk(solver: str | Solver[Any], begin: Any, until: float) -> tuple[Fit, np.ndarray]:
            """Return where a climb ends that comes so near to the solution, and its points."""
            thetas: list[np.ndarray] = []
            end = climb(
                GaussianMixture(2), X, begin, solver, Stop(gain=0, max_passes=3000),
                callback=lambda step: thetas.append(step.evaluation.point.theta)
                or bool(np.linalg.norm(thetas[-1] - best.theta) < until),
            )  # fmt: skip
            return end, np.array(thetas)

        paths, values = {}, {}
        for name in ("em", "lange"):
            tick(name)
            end, paths[name] = walk(name, start, 1e-9)
            values[name] = end.trace.value
        errors = {name: np.linalg.norm(path - best.theta, axis=1) for name, path in paths.items()}
        first = [path[1] - path[0] for path in paths.values()]
        apart = float(np.linalg.norm(first[0] - first[1]) / np.linalg.norm(first[0]))
        lines = [Line("EM's rate, the largest fraction of missing information", np.nan, slowest)]
        for name, error in errors.items():
            lines.append(Line(f"rate of {name} in the end", slowest, _rate(error, 1e-8), "theory", 1e-3))
        # Gains go with the square of the error: where that is 1e-4 they still have digits.
        lines.append(Line("factor of em's gains in the end, the square of its rate", slowest**2,
                          _rate(np.diff(values["em"]), np.diff(values["em"])[np.argmax(errors["em"] < 1e-4)]), "theory",
                          1e-3))  # fmt: skip
        tick("longer and shorter steps")
        near = walk("em", start, 0.1)[0].params._asdict()  # from the start itself a long step may exchange the components
        for a in STRETCHED:
            # A stretched step that lowers the value, be it by rounding, is EM's: so not as near as the others.
            error = np.linalg.norm(walk(Natural(a), near, 3e-5)[1] - best.theta, axis=1)
            predicted = 1 - a * (1 - slowest)
            lines.append(Line(f"rate of P times the gradient, times {a:g}", predicted, _rate(error, 1e-4), "theory", 1e-3))
        lines.append(Line("difference of the first steps, relative to EM's", np.nan, apart))

        def draw(figure: Figure) -> None:
            left, right = figure.subplots(1, 2)
            for style, (name, error) in zip(STYLES, errors.items(), strict=False):
                left.plot(error, color=style.colour, linestyle=style.line, label=name)
                right.plot(
                    np.arange(1, len(error)), error[1:] / error[:-1], color=style.colour, linestyle=style.line, label=name
                )
            right.axhline(slowest, color="0.6", linestyle=":", label="EM's rate at the solution")
            panel(left, title="two components 2.5 sd apart", x="step", y="distance to the solution", log="y")
            panel(right, title="factor of a step", x="step", y="factor", log="x")
            right.set_ylim(0, 1.2)
            left.legend(frameon=False)
            right.legend(frameon=False)

        notes = (
            "Both maximise q, one by its formula, one by a single Newton step: near the solution q is its parabola.",
            "EM's step is P times the gradient to first order; a times that turns EM's rate lambda into 1 - a (1 - lambda). At "
            "a = 2 directions about which no information is missing would no longer be damped.",
        )
        settings = {
            "rows": len(X), "separation": 2.5, "seed": FRESH, "weights": truth["weights"].tolist(), "variances": 1.0,
            "start": {name: value.tolist() for name, value in start.items()}, "until": "1e-9 from the solution",
            "max_passes": 3000, "coordinates": "free",
            "stretched": {"by": list(STRETCHED), "start": "where EM is 0.1 from the solution", "rate": "at 1e-4 from it"},
        }  # fmt: skip
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)


def _rate(errors: np.ndarray, until: float) -> float:
    """Return the factor of an error in the twenty steps before it falls below `until`."""
    last = int(np.flatnonzero(errors > until)[-1])
    return float((errors[last] / errors[last - 20]) ** (1 / 20))
