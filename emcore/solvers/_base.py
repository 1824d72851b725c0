"""What a solver is: a frozen set of options, and a state that `step` turns into the next state.

A solver sees an `Objective` and nothing else: no model, no kernel, no data. It never prints, never counts, never tests
for convergence: the objective counts passes and the one loop (`emcore.solve`) stops. When the numbers break it returns the
last accepted state with a `Failure`; it raises nothing but what the objective raises.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, get_args

import numpy as np

from emcore.result import Failure, Status, lies_below

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective, Point

__all__ = ["Solver", "State", "decreased", "fallen", "replace"]


@dataclass(frozen=True)
class State:
    """A point of the climb: all that is needed to take the next step.

    Subclasses add arrays, numbers and words only, so that `arrays` and `restored` need not know them.

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
    free_energy : float
        F per unit of weight, which is at most the value; NaN of a solver that does not climb it.
    """

    point: Point
    current: Evaluation | None
    failure: Failure | None = None
    event: str = "start"
    info: dict[str, Any] = field(default_factory=dict)
    free_energy: float = math.nan

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that the next step needs as plain arrays, to be written to a file."""
        current = self.current
        if current is None or current.stats is None:
            raise ValueError("only an evaluated state can be written down")
        numbers = {"value": current.value, "scale": current.scale, **current.stats._asdict()}
        return {
            **{f.name: np.asarray(getattr(self, f.name)) for f in fields(self) if f.name not in _POINT},
            **{f"current.{name}": np.asarray(number) for name, number in numbers.items()},
            **{f"params.{name}": array for name, array in self.point.params._asdict().items()},
            "point.theta": self.point.theta,
        }

    @classmethod
    def restored(cls, objective: Objective, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the state that `arrays` wrote down, on the same objective: no pass, and not a bit is lost."""
        params = {n.removeprefix("params."): a for n, a in arrays.items() if n.startswith("params.")}
        vector, origin, weight, value, scale = (
            arrays[f"current.{name}"] for name in ("vector", "origin", "weight", "value", "scale")
        )
        stats = vector, origin, float(weight)
        current = objective.restore(arrays["point.theta"], params, stats, float(value), float(scale))
        own = {f.name: arrays[f.name] for f in fields(cls) if f.name not in _POINT}
        return cls(current.point, current, **{n: a.item() if a.ndim == 0 else a for n, a in own.items()})


def replace(state: Any, **changes: Any) -> Any:
    """Return the state with these fields changed, their values unchecked: that of `dataclasses` takes five times the time.

    Raises
    ------
    TypeError
        For what is no field.
    """
    fields = state.__dict__
    if not changes.keys() <= fields.keys():
        raise TypeError(f"{type(state).__name__} has no field {', '.join(sorted(changes.keys() - fields.keys()))}")
    new = object.__new__(type(state))
    new.__dict__.update(fields, **changes)
    return new


_POINT = ("point", "current", "failure", "info")


def decreased(objective: Objective, old: Evaluation, new: Evaluation) -> Failure | None:
    """Return the failure of a step that must not lower the value and did so by more than rounding, or None."""
    return fallen(objective, "It", old.value - new.value) if lies_below(new, old.value) else None


def fallen(objective: Objective, what: str, by: float) -> Failure:
    """Return the failure of a solver that rests on exact EM steps, which cannot lower this."""
    inexact = getattr(objective, "inexact", "")
    exact = getattr(objective, "when_fallen", ", which an exact EM step cannot do.")
    why = f": {inexact}, and only solver 'em' goes on through falls." if inexact else exact
    return Failure(Status.DECREASED, detail=f"{what} fell by {by:.2e} per unit weight{why}")


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
    moving_support : bool
        Whether it runs where the support of the model depends on a parameter, and neither gradient nor EM's map are smooth.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    moving_support: ClassVar[bool] = False

    @abstractmethod
    def init(self, objective: Objective, at: Point) -> S:
        """Return the state at the start: evaluates it, one pass."""

    @abstractmethod
    def step(self, objective: Objective, state: S) -> S:
        """Return the state after one step, or `state` with a failure when none is possible."""

    @classmethod
    def state_type(cls) -> type[State]:
        """Return the class of the states, the argument of `Solver` in the bases."""
        for base in cls.__mro__:
            for generic in base.__dict__.get("__orig_bases__", ()):
                if isinstance(kind := get_args(generic)[0], type):
                    return kind
        raise TypeError(f"{cls.__name__} does not say which states it has: derive it from Solver[...]")

    def _check(
        self,
        option: str,
        allowed: str = "",
        holds: Callable[[float], bool] | None = None,
        *,
        words: tuple[str | bool | None, ...] = (),
        kinds: tuple[type, ...] = (int, float, np.integer, np.floating),
    ) -> None:
        """Raise a ValueError unless an option is one of the words, or a number of these kinds that is `allowed`: it `holds`."""
        value = getattr(self, option)
        if value is None or isinstance(value, (bool, str)):
            fits = value in words
        else:
            fits = holds is not None and isinstance(value, kinds) and bool(holds(value))
        if not fits:
            *more, last = [*map(repr, words), *([allowed] if allowed else [])]
            raise ValueError(f"{self.name}: {option} must be {', '.join(more) + ' or ' if more else ''}{last}, got {value!r}")

    def _check_whole(self, option: str, least: int = 1, *, words: tuple[str | bool | None, ...] = ()) -> None:
        """Raise a ValueError unless an option is one of the words or a whole number of at least `least`."""
        self._check(option, f"a whole number >= {least}", lambda n: n >= least, words=words, kinds=(int, np.integer))

    def _check_positive(self, option: str, *, or_zero: bool = False, words: tuple[str | bool | None, ...] = ()) -> None:
        """Raise a ValueError unless an option is one of the words or a finite number above 0 (or 0 itself)."""
        allowed = f"a finite number {'>=' if or_zero else '>'} 0"
        self._check(option, allowed, lambda x: 0 < x < math.inf or (or_zero and x == 0), words=words)

    def describe(self) -> str:
        """Return the name with the options that differ from their defaults."""
        given = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return self.name + (f"({', '.join(given)})" if given else "")
