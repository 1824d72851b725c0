"""The laws that every model must keep, tried on anybody's model and data, with words for what is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emcore.fit import generators, prepare
from emcore.result import Stop
from emcore.solve import solve
from emcore.solvers import EM
from emcore.starts import starting_point

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from emcore.models import Model
    from emcore.objective import ModelObjective, Point

__all__ = ["Checks", "Law", "check"]

STEP = 1e-4
NEAR = 1e-5  # relative: what differences of fourth order and a differenced score leave


class Law(NamedTuple):
    """One law: whether it holds, by how much it is missed, and where to look if it does not."""

    name: str
    holds: bool
    found: str
    advice: str


@dataclass(frozen=True)
class Checks:
    """What `check` found; prints itself.

    Attributes
    ----------
    laws : tuple of Law
    """

    laws: tuple[Law, ...]

    @property
    def holds(self) -> bool:
        """Whether every law holds."""
        return all(law.holds for law in self.laws)

    def __str__(self) -> str:
        out = []
        for law in self.laws:
            out.append(f"{'holds ' if law.holds else 'FAILS '} {law.name}: {law.found}")
            if not law.holds:
                out.append(f"        {law.advice}")
        return "\n".join(out)


def check(
    model: Model,
    X: ArrayLike | Any,
    *,
    start: Any = "random-points",
    sample_weight: ArrayLike | None = None,
    random_state: Any = 0,
    max_passes: int = 500,
) -> Checks:
    """Return which of the laws of a model hold on data: Fisher's identity, EM's rise and others.

    Parameters
    ----------
    model : Model
    X : array_like (n, d), or what `emcore.fit` takes
        A few hundred rows are enough.
    start : str or mapping
        As for `emcore.fit`.
    sample_weight, random_state
    max_passes : int
        For the climb by EM.

    Raises
    ------
    ValueError, TypeError
        As `emcore.fit` does.
    """
    objective = prepare(model, X, sample_weight=sample_weight, n_threads=1)
    point, _ = starting_point(objective, start, generators(random_state, 1)[0])
    laws = [*_pass(objective, point)]
    if objective.moving_support:
        names = ", ".join(objective.moving_support)
        laws.append(Law("smooth support", False, f"it depends on {names}", "As declared: only EM runs, and it freezes."))
        return Checks(tuple(laws))
    e = objective.evaluate(point)
    if e.failure is not None:
        return Checks(tuple(laws))
    if "gradient" in objective.capabilities:
        laws.append(_fisher(objective, e))
    laws += _climb(objective, point, max_passes)
    return Checks(tuple(laws))


def _pass(objective: ModelObjective, point: Point) -> list[Law]:
    e = objective.evaluate(point)
    if e.failure is not None:
        return [Law("finite densities", False, str(e.failure), "Look at log_density: it must be finite at a start.")]
    laws = [Law("finite densities", True, f"mean log-density {e.value:.6g}", "")]
    saved, objective.n_threads = objective.n_threads, 2
    try:
        again = objective.evaluate(point)
    finally:
        objective.n_threads = saved
    same = again.value == e.value and np.array_equal(again.stats.vector, e.stats.vector)
    laws.append(Law("same bits", same, "1 and 2 threads", "A pass may depend on rows and parameters alone."))
    _, parts = objective.each(point, objective.pieces(3))
    total = sum(part.stats.vector for part in parts)
    gap = float(np.max(np.abs(total - e.stats.vector) / np.maximum(1.0, np.abs(e.stats.vector)), initial=0.0))
    laws.append(Law(
        "statistics add", gap < 1e-9, f"pieces miss the whole by {gap:.1e}",
        "Look at the statistics: of each row apart, and linear in the responsibilities.",
    ))  # fmt: skip
    return laws


def _fisher(objective: ModelObjective, e: Any) -> Law:
    theta, g = e.point.theta, e.gradient
    if not np.isfinite(g).all():
        return Law("Fisher's identity", False, "the score is not finite", "Look at the score at the parameters of a start.")

    def value(t: Any) -> float:
        return objective.evaluate(t).value

    slopes = np.empty(len(theta))
    for j, direction in enumerate(np.eye(len(theta))):
        v = STEP * max(1.0, abs(theta[j])) * direction
        f = [value(theta + s * v) for s in (-2, -1, 1, 2)]
        slopes[j] = (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * v[j])
    broken = ~np.isfinite(slopes)
    wrong = broken | (np.abs(slopes - g) > NEAR * max(1.0, float(np.max(np.abs(g)))))
    if not wrong.any():
        return Law("Fisher's identity", True, f"largest gap {np.max(np.abs(slopes - g)):.1e}", "")
    names = [name for name, part in objective.coordinates.slices.items() if wrong[part].any()]
    if broken.any():
        advice = "A row lost its density next to the start: the support seems to depend on a parameter (moving_support)."
    else:
        advice = (
            "Look at the score: it must be the gradient of the expected log-density. If it is, the support may depend on a "
            "parameter (moving_support): then no gradient is that of the log-likelihood."
        )
    return Law("Fisher's identity", False, f"score and differences of the value disagree for {', '.join(names)}", advice)


def _climb(objective: ModelObjective, point: Point, max_passes: int) -> list[Law]:
    fit = solve(objective, EM(), point, stop=Stop(gain=1e-13, max_passes=max_passes))
    falls = float(-min(0.0, *np.diff(fit.trace.value))) if len(fit.trace) > 1 else 0.0
    rises = not fit.status.failed and falls <= fit.evaluation.noise
    found = str(fit.failure) if fit.failure else f"{fit.steps} steps, largest fall {falls:.1e}"
    laws = [Law("EM rises", rises, found, "Look at the M-step: it must not lower the expected log-density.")]
    if not rises or "gradient" not in objective.capabilities:
        return laws
    if not fit.status.ok or fit.boundary:
        laws.append(Law("gradient 0 where EM rests", True, f"not tried: {fit.status.value}", ""))
        return laws
    e = fit.evaluation
    g = float(np.max(np.abs(e.gradient), initial=0.0))
    laws.append(Law(
        "gradient 0 where EM rests", g < 1e-4, f"largest entry {g:.1e}",
        "The M-step rests where the score does not vanish: it is no maximum of the expected log-density, or the score wrong.",
    ))  # fmt: skip
    if "metric" in objective.capabilities:
        near = objective.evaluate(e.point.theta + 1e-4 * np.random.default_rng(0).normal(size=objective.size))
        step = near.em_point.theta - near.point.theta
        gap = float(np.max(np.abs(step - near.precondition(near.gradient))))
        size = float(np.max(np.abs(step)))
        laws.append(Law(
            "EM step is P gradient", gap <= 0.05 * size + 1e-9, f"gap {gap:.1e} of a step of {size:.1e}",
            "To first order the EM step is the metric times the gradient: look at the metric, the M-step and the score.",
        ))  # fmt: skip
    return laws
