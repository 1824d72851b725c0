"""Gradient ascent: the plain method that EM is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from emcore.result import lies_below
from emcore.solvers._base import Solver, State
from emcore.solvers._search import armijo, feasible, first_step

if TYPE_CHECKING:
    from emcore.objective import Evaluation, Objective, Point

__all__ = ["GradientAscent"]

LONGEST = 1e10  # where the curvature is all rounding; as in Raydan (1997)


@dataclass(frozen=True)
class GradientState(State):
    """A point of the climb.

    Attributes
    ----------
    trial : float
        The first step to try from here.
    long : bool
        Whether the next Barzilai-Borwein step is the long one.
    """

    trial: float = 1.0
    long: bool = True


@dataclass(frozen=True)
class GradientAscent(Solver[GradientState]):
    """Gradient ascent: ``theta <- theta + step_size * gradient``, in the coordinates of the objective.

    Parameters
    ----------
    step_size : "armijo", "bb" or float
        "armijo": backtracking until the value rises enough, from the last accepted step, or from twice that step when
        it was accepted at once.
        "bb": the same, but the first trial is a step of Barzilai and Borwein (1988).
        A number: a fixed step, in the mean log-likelihood. A step that leaves the feasible set is halved until it does
        not (event "shortened"); one that lowers the value is taken all the same (event "fell"), as a fixed step does.

    Raises
    ------
    ValueError
        When `step_size` is none of these.

    Notes
    -----
    Each trial is a pass. "bb" takes the long step ``s's / s'y`` and the short step ``s'y / y'y`` in turn, y being the
    fall of the gradient along s, and is kept monotone by Armijo's rule. The non-monotone rule of Raydan (1997) needs
    about a tenth fewer passes on overlapping mixtures, but a budget that ends while the value is down would return a
    point worse than one passed before.
    """

    name: ClassVar[str] = "gradient"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient"})

    step_size: float | str = "armijo"

    def __post_init__(self) -> None:
        self._check_positive("step_size", words=("armijo", "bb"))

    def init(self, objective: Objective, at: Point) -> GradientState:
        current = objective.evaluate(at)
        return GradientState(at, current, trial=1.0 if current.failure else first_step(current.gradient))

    def step(self, objective: Objective, state: GradientState) -> GradientState:
        return self._searched(objective, state) if isinstance(self.step_size, str) else self._fixed(objective, state)

    def _fixed(self, objective: Objective, state: GradientState) -> GradientState:
        old = state.current
        found = feasible(objective, old, old.gradient, float(self.step_size))
        if found.failure is not None:
            return replace(state, failure=found.failure)
        new = found.evaluation
        events = ["shortened"] if found.trials > 1 else []
        if lies_below(new, old.value):
            events.append("fell")
        return GradientState(new.point, new, event=", ".join(events) or "accepted", info=found.info())

    def _searched(self, objective: Objective, state: GradientState) -> GradientState:
        old = state.current
        found = armijo(objective, old, old.gradient, state.trial)
        if found.failure is not None:
            return replace(state, failure=found.failure)
        new, at_once = found.evaluation, found.trials == 1
        trial = 2 * found.step if at_once else found.step
        if self.step_size == "bb":
            trial = _barzilai_borwein(old, new, long=state.long) or trial
        event = "accepted" if at_once else "backtracked"
        return GradientState(new.point, new, event=event, info=found.info(), trial=trial, long=not state.long)


def _barzilai_borwein(old: Evaluation, new: Evaluation, *, long: bool) -> float | None:
    """Return the long or the short step of Barzilai and Borwein (1988), None where the value is convex in between."""
    s, y = new.point.theta - old.point.theta, old.gradient - new.gradient
    ss, sy, yy = float(s @ s), float(s @ y), float(y @ y)
    if not (sy > 0 and yy > 0):
        return None
    return min(ss / sy if long else sy / yy, LONGEST)
