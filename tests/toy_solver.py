"""A solver in one file: EM with over-relaxation, which falls back to the EM step where the longer one does not pay."""

from dataclasses import dataclass
from typing import ClassVar

from emcore.solvers import Solver, State


@dataclass(frozen=True)
class OverRelaxed(Solver[State]):
    """Over-relaxed EM (Salakhutdinov and Roweis 2003, with a fixed factor): ``theta + factor * (EM step)``."""

    name: ClassVar[str] = "over-relaxed"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "em"})

    factor: float = 1.5

    def init(self, objective, at):
        return State(at, objective.evaluate(at))

    def step(self, objective, state):
        em = state.current.em_point
        longer = objective.evaluate(state.point.theta + self.factor * (em.theta - state.point.theta))
        if longer.value >= state.current.value + state.current.gain:
            return State(longer.point, longer, event="relaxed")
        return State(em, objective.evaluate(em), event="em")
