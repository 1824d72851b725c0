"""Kullback's proximal points: from EM to Newton by one number.

EM maximises ``l(theta) - I(theta_k, theta)``, I being the Kullback-Leibler divergence of the posterior of the latent variables
at theta from that at theta_k. With ``l - beta I`` in its place EM is beta = 1, and the smaller beta is the less it is held
back: an error that EM multiplies by lambda a step it multiplies by ``beta lambda / (1 - lambda + beta lambda)``. As beta
goes to 0 convergence becomes superlinear, and each step dearer: it is a climb of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from emcore.solvers._base import Solver, State, decreased
from emcore.solvers._trust import Hill, advance, length
from emcore.solvers.em import em_instead

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective, Point
    from emcore.solvers._trust import Climb

    Vector = Matrix = NDArray[np.float64]

__all__ = ["Proximal", "ProximalState"]

TRUST_REGION = "trust-region"

SCHEDULES: dict[str, Callable[[int], float]] = {
    "1/(1+k)": lambda k: 1.0 / (1 + k),
    "2^-k": lambda k: 2.0**-k,
    "2^(-k^2/2)": lambda k: 2.0 ** (-min(k * k, 2000) / 2),
}


@dataclass(frozen=True)
class ProximalState(State):
    """A point of the climb.

    Attributes
    ----------
    k : int
        Steps taken, on which beta depends.
    radius : float
        Of the ball of the next inner step.
    """

    k: int = 0
    radius: float = 1.0


class _Held:
    """``l - beta I(theta_k, .) = (1 - beta) l + beta (q(. | theta_k) + H_k)``, H_k the posterior's entropy at theta_k."""

    def __init__(self, objective: Objective, origin: Evaluation, beta: float):
        self.objective, self.origin, self.beta = objective, origin, beta
        self.entropy = origin.entropy

    def value(self, at: Evaluation) -> float:
        if at is self.origin:
            return at.value
        q = self.objective.q(at.point, self.origin.stats)
        return (1 - self.beta) * at.value + self.beta * (q + self.entropy)

    def gradient(self, at: Evaluation) -> Vector:
        if at is self.origin:
            return at.gradient
        return (1 - self.beta) * at.gradient + self.beta * self.objective.gradient(at.point, self.origin.stats)

    def products(self, at: Evaluation, V: Matrix) -> Matrix:
        held = self.objective.q_hvp(at.point, self.origin.stats, V)
        return held if self.beta == 1 else (1 - self.beta) * self.objective.hvp(at, V) + self.beta * held


@dataclass(frozen=True)
class Proximal(Solver[ProximalState]):
    """Kullback proximal points (Chretien and Hero 2000): each step maximises ``l - beta_k I(theta_k, .)``; EM at beta = 1.

    Parameters
    ----------
    beta : float or {"1/(1+k)", "2^-k", "2^(-k^2/2)", "trust-region"}
        How much holds a step back: a constant > 0, or a schedule in the number of steps k = 0, 1, ...; or the multiplier of a
        trust region, which takes one inner step a step and no inner climb.
    tol : float
        An inner climb ends where its gradient, in EM's metric, is this part of the first.
    inner : int
        Most inner steps of one step; a step that is cut there (event "cut") still rises.
    whole, radius
        Of the inner trust regions, as in `Newton`. With "trust-region" the Hessian is always built whole, and the radius bounds
        ``(s' I_m s)^1/2``: half its square is the divergence, in nats a row.

    Raises
    ------
    ValueError
        When an option is out of its range.

    Notes
    -----
    Chretien and Hero (2000), "Kullback proximal algorithms for maximum-likelihood estimation", IEEE Transactions on
    Information Theory 46. An inner step takes a pass a trial, and Hessian products, which are counted apart. The value
    never falls, I being >= 0 and 0 at theta_k. Where not even the first inner step rises, or Hessian or metric are not finite,
    the EM step is taken (event "em", beta 1), also with "trust-region".

    "trust-region" maximises the quadratic model of l at theta_k within a bound on I, to second order ``s' I_m s / 2``, I_m
    being the missing information (Louis 1982). The multiplier of the bound plays beta (`info`): the step solves
    ``(I_o + beta I_m) s = gradient`` with the observed information I_o, and so is Lange's EM gradient at beta = 1 and Newton's
    step at 0, where it ends. The radius follows how much of the promised rise was found. A tenth of EM's metric is added
    to I_m, for directions about which nothing is missing.
    """

    name: ClassVar[str] = "proximal"
    needs: ClassVar[frozenset[str]] = frozenset({"value", "gradient", "em", "metric", "tangent"})

    beta: float | str = "2^-k"
    tol: float = 1e-4
    inner: int = 30
    whole: int = 50
    radius: float = 1.0

    def __post_init__(self) -> None:
        self._check_positive("beta", words=(*SCHEDULES, TRUST_REGION))
        self._check("tol", "a number between 0 and 1", lambda tol: 0 < tol < 1)
        self._check_whole("inner")
        self._check_whole("whole", 0)
        self._check_positive("radius")

    def init(self, objective: Objective, at: Point) -> ProximalState:
        return ProximalState(at, objective.evaluate(at), radius=self.radius)

    def step(self, objective: Objective, state: ProximalState) -> ProximalState:
        return self._bounded(objective, state) if self.beta == TRUST_REGION else self._held(objective, state)

    def _bounded(self, objective: Objective, state: ProximalState) -> ProximalState:
        """Return the state after one step of the trust region."""
        before = objective.hessian_passes
        found = advance(objective, Hill(objective), state.current, state.radius, whole=True, divergence=True)
        hessian = objective.hessian_passes - before
        info = {"beta": found.multiplier, "trials": found.trials, "hessian_passes": hessian, "radius": found.radius}
        if found.evaluation is None:
            return self._by_em(objective, state, found, info)
        new = found.evaluation
        return ProximalState(new.point, new, event=found.event, info=info, k=state.k + 1, radius=found.radius)

    def _by_em(self, objective: Objective, state: ProximalState, found: Climb, info: dict[str, Any]) -> ProximalState:
        """Return the state after the EM step, where no inner step was to be had; it is the step of beta = 1."""
        new, failure = em_instead(objective, state.current, found.failure)
        if failure is not None:
            return replace(state, failure=failure, info=info)
        info |= {"beta": 1.0, "radius": self.radius}
        return ProximalState(new.point, new, event="em", info=info, k=state.k + 1, radius=self.radius)

    def _held(self, objective: Objective, state: ProximalState) -> ProximalState:
        """Return the state after one inner climb."""
        beta = SCHEDULES[self.beta](state.k) if isinstance(self.beta, str) else float(self.beta)
        old, radius = state.current, state.radius
        height, before = _Held(objective, old, beta), objective.hessian_passes
        current, trials, steps, event, first = old, 0, 0, "proximal", math.nan
        while True:
            found = advance(objective, height, current, radius, whole=objective.size <= self.whole)
            trials, radius = trials + found.trials, found.radius
            if found.evaluation is None:
                break  # nothing is left to climb within rounding; or there is no going on, and what rose is kept
            if current is old:
                first = length(old, old.gradient)
            current, steps = found.evaluation, steps + 1
            left = length(current, height.gradient(current))
            if not left > self.tol * first:
                break
            if steps == self.inner:
                event = "cut"
                break
        hessian = objective.hessian_passes - before
        info = {"beta": beta, "inner": steps, "trials": trials, "hessian_passes": hessian, "radius": radius}
        if current is old:
            return self._by_em(objective, state, found, info)
        if failure := decreased(objective, old, current):
            return replace(state, failure=failure, info=info)
        # A ball that shrank at the end of an inner climb says nothing about the next one.
        info["radius"] = max(radius, self.radius)
        return ProximalState(current.point, current, event=event, info=info, k=state.k + 1, radius=info["radius"])
