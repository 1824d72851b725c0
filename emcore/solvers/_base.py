"""What a solver is: a frozen set of options, and a state that `step` turns into the next state.

A solver sees an `Objective` and nothing else: no model, no kernel, no data. It never prints, never counts, never tests
for convergence: the objective counts passes and the one loop (`emcore.solve`) stops. When the numbers break it returns the
last accepted state with a `Failure`; it raises nothing but what the objective raises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from emcore.objective import Evaluation, Objective, Point
    from emcore.result import Failure

__all__ = ["Solver", "State"]


@dataclass(frozen=True)
class State:
    """A point of the climb: all that is needed to take the next step. Subclasses add arrays and scalars only.

    Attributes
    ----------
    point : Point
        The last accepted point.
    current : Evaluation or None
        What the pass at that point gave.
    failure : Failure or None
        Set when no further step is possible.
    event : str
        What the last step did, in one or two words: "em", "accepted", "backtracked", "restarted".
    info : dict
        Numbers about the last step, for the curious.
    """

    point: Point
    current: Evaluation | None
    failure: Failure | None = None
    event: str = "start"
    info: dict[str, Any] = field(default_factory=dict)


S = TypeVar("S", bound=State)


@dataclass(frozen=True)
class Solver(ABC, Generic[S]):
    """Base of all solvers: options are the fields of the dataclass.

    Attributes
    ----------
    name : str
        The word by which it is asked for.
    needs : frozenset of str
        What the objective must be capable of: "value", "gradient", "em", ...
    """

    name: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({"value"})

    @abstractmethod
    def init(self, objective: Objective, at: Point) -> S:
        """Return the state at the start: evaluates it, one pass."""

    @abstractmethod
    def step(self, objective: Objective, state: S) -> S:
        """Return the state after one step, or `state` with a failure when none is possible."""

    def describe(self) -> str:
        """Return the name with the options that differ from their defaults."""
        given = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return self.name + (f"({', '.join(given)})" if given else "")
