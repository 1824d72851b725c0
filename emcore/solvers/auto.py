"""EM while it is fast, then QN2: which of the two is seen from EM's own steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from emcore.solvers._base import Solver, replace
from emcore.solvers.em import EM
from emcore.solvers.qn2 import QN2, QN2State

if TYPE_CHECKING:
    from emcore.objective import Objective, Point
    from emcore.solvers._base import State

__all__ = ["Auto"]

# EM is left early where its rate is known and it has a longer way to go than QN2 needs: about as many passes as these.
SETTLED = 0.1  # two rates in a row that differ by no more are the rate
FEW, A_COORDINATE = 4.0, 0.5  # passes of QN2 to a solution, and for each coordinate
THERE = 1e-12  # the gain at which a climb is taken to end; with that of a looser rule EM was left later, for no fewer passes
LITTLE = 0.1  # of what EM is sure to gain: a step of QN2 that rises less is worse than EM's

_EM, _QN2 = EM(), QN2()


@dataclass(frozen=True)
class AutoState(QN2State):
    """A point of the climb, and what is known of EM's rate.

    Attributes
    ----------
    quasi : bool
        Whether the climb has left EM for QN2.
    gain : float
        What EM was sure to gain at the point before, NaN where no EM step led here.
    rate : float
        EM's rate as the step before showed it, 0 where none did.
    slow : int
        How many EM steps in a row were slow.
    poor : int
        How many steps of QN2 in a row rose by little of what EM was sure to gain.
    falls : int
        How often QN2 was left for EM.
    """

    quasi: bool = False
    gain: float = math.nan
    rate: float = 0.0
    slow: int = 0
    poor: int = 0
    falls: int = 0


@dataclass(frozen=True)
class Auto(Solver[AutoState]):
    """EM while its steps shrink fast, then QN2, with the observed rate in the trace (after Salakhutdinov et al. 2003).

    Parameters
    ----------
    rate : float
        Above this rate a step of EM is slow. Between 0 and 1.
    patience : int
        After how many slow steps in a row to leave EM, whether or not the rate has settled.

    Raises
    ------
    ValueError
        When an option is out of its range.

    Notes
    -----
    Near a solution the gain of EM steps shrinks by the square of EM's rate, the largest fraction of missing information; the
    posterior entropy, by which Salakhutdinov, Roweis and Ghahramani chose, is only a proxy of it. The rate is observed without
    a pass. Where two steps in a row show the same rate, within 0.1, it tells how many more EM takes, and EM is left at once if
    they are more than four plus half the number of coordinates, about what QN2 takes. QN2 begins with EM's metric. Where it
    finds no way up, or twice in a row rises by less than a tenth of what the EM step was sure to gain, it is left for EM again,
    with the reason in the trace, and tried again after four times as many slow steps, each time. An objective without a
    gradient is climbed by EM alone.
    """

    name: ClassVar[str] = "auto"
    moving_support: ClassVar[bool] = True  # where it is EM alone
    needs: ClassVar[frozenset[str]] = EM.needs

    rate: float = 0.6
    patience: int = 4

    def __post_init__(self) -> None:
        self._check("rate", "a number between 0 and 1", lambda rate: 0 < rate < 1)
        self._check_whole("patience")

    def init(self, objective: Objective, at: Point) -> AutoState:
        return _as_auto(_QN2.init(objective, at))

    def step(self, objective: Objective, state: AutoState) -> AutoState:
        if not objective.capabilities >= QN2.needs:
            return _by_em(objective, state)
        event = ""
        if not state.quasi:
            rate = _observed(state)
            slow = state.slow + 1 if rate > self.rate else 0
            early = not state.falls and _far(state, rate, objective.size)
            if slow < self.patience * 4**state.falls and not early:
                return _by_em(objective, replace(state, slow=slow, rate=rate))
            state, event = replace(state, quasi=True, poor=0), f"switched at rate {rate:.2f}"
        if state.poor > 1:
            return _by_em(objective, _left(state), "fell back: little gained")
        new = _QN2.step(objective, state)
        if new.failure is not None:
            why = new.failure.status.name.lower().replace("_", " ")
            return _by_em(objective, _left(state), f"fell back: {why}")
        poor = state.poor + 1 if new.current.value - state.current.value < LITTLE * state.current.gain else 0
        return replace(new, event=event or new.event, poor=poor)


def _left(state: AutoState) -> AutoState:
    """Return the state that leaves QN2 for EM."""
    return replace(state, quasi=False, slow=0, falls=state.falls + 1)


def _observed(state: AutoState) -> float:
    """Return EM's rate as the last step showed it, 0 where none did."""
    gain = state.current.gain
    return math.sqrt(gain / state.gain) if gain > 0 and state.gain > 0 else 0.0  # neither is NaN


def _far(state: AutoState, rate: float, size: int) -> bool:
    """Tell whether EM, at a rate that has settled, has more steps to go than QN2 is likely to take."""
    if not (state.rate > 0 and 0 < rate < 1 and abs(rate - state.rate) <= SETTLED):
        return False
    return math.log(state.current.gain / THERE) / (-2 * math.log(rate)) > FEW + A_COORDINATE * size


def _by_em(objective: Objective, state: AutoState, event: str = "") -> AutoState:
    gain = state.current.gain if "gradient" in objective.capabilities else math.nan
    new = _EM.step(objective, state)
    if new.failure is not None:
        return replace(state, failure=new.failure)
    none = state.S[:0]
    return replace(
        state, point=new.point, current=new.current, event=event or new.event, info={}, gain=gain, S=none, Y=none, HY=none
    )


def _as_auto(state: State) -> AutoState:
    known = {f.name: getattr(state, f.name) for f in fields(state)}
    return AutoState(**known)
