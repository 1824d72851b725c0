"""Sparse EM: small responsibilities are held for some sweeps, and only the others are inferred."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emcore.solvers._base import Solver, State, decreased

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Objective, Point

    Array = NDArray[np.float64]

__all__ = ["Sparse"]


@dataclass(frozen=True)
class SparseState(State):
    """A point of the climb, after a sweep that inferred everything.

    Attributes
    ----------
    resp : ndarray (n, k)
        Responsibilities at the point. The free energy is that before the last sweep of the step, and never falls: at the
        point itself it is the value.
    """

    resp: Array = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True)
class Sparse(Solver[SparseState]):
    """Sparse EM (Neal and Hinton 1998): small responsibilities are held for some sweeps, the others share what these leave.

    Parameters
    ----------
    sweeps : int
        How many sweeps are sparse before one that infers all responsibilities ends the step. With 0 it is EM, pass for pass.
    threshold : float
        A responsibility below it is held, between 0 and 1.

    Raises
    ------
    ValueError
        When an option is out of its range.

    Notes
    -----
    Each sweep is an M-step and a pass. With q the responsibilities, both raise the free energy ``F = E_q log p(x, z) + H(q)``,
    which is at most the log-likelihood and equal to it where all are inferred: so the climb is monotone, and fails where F
    falls. The trace shows F before the last sweep of each step (`free_energy`), and the last `info` the share of
    responsibilities that were inferred until then (`active`).

    It keeps a number a row and component: three arrays (n, k) of float64 in the middle of a step, one of them in the state and
    in a saved fit. Densities are computed for all components of a row all the same, and a sparse sweep is counted as the whole
    pass that it costs. EM's passes over Gaussian mixtures leave out small responsibilities by themselves, and lose nothing:
    this solver is for comparison.
    """

    name: ClassVar[str] = "sparse"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "em", "sparse"})

    sweeps: int = 3
    threshold: float = 0.01

    def __post_init__(self) -> None:
        self._check_whole("sweeps", 0)
        self._check("threshold", "a number between 0 and 1", lambda least: 0 < least < 1)

    def init(self, objective: Objective, at: Point) -> SparseState:
        current, resp = objective.free_energy(at)
        return SparseState(at, current, info={"active": 1.0}, resp=resp, free_energy=current.value)

    def step(self, objective: Objective, state: SparseState) -> SparseState:
        last, resp, active = state.current, state.resp, []
        for sweep in range(self.sweeps + 1):
            least = self.threshold if sweep < self.sweeps else 0.0
            active.append(float(np.mean(resp >= least)))
            new, resp = objective.free_energy(last.em_point, resp, least)
            failure = new.failure or decreased(objective, last, new)
            if failure is not None:
                return replace(state, failure=failure)
            before, last = last, new
        info = {"active": min(active)}
        return SparseState(last.point, last, event="swept", info=info, resp=resp, free_energy=before.value)
