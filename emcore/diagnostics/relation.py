"""What EM and the gradient have to do with each other, at one solution, in one value and in plain words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcore.diagnostics._common import TRIES, evaluated, looking, number, objective_of, randomly
from emcore.diagnostics.condition import Condition, condition
from emcore.diagnostics.fisher import Fisher, fisher
from emcore.diagnostics.projection import Projection, projection
from emcore.diagnostics.rate import Rate, rate

if TYPE_CHECKING:
    from emcore.objective import Evaluation

__all__ = ["Relation", "relation"]

WORTH = 1.5  # conjugate gradients are advised when EM needs so many times their passes: their first steps cost more
UNSETTLED = 1e-4  # a gain of one EM step beyond which nothing is said of speed
STILL = 1e-8  # a rate this near to 1 cannot be told from it
CLOSE = 1.25  # solvers within this factor of the fewest passes are on a par


@dataclass(frozen=True)
class Relation:
    """Fisher's identity and P a little way off a solution; EM's rate and the condition of the Hessian at it.

    Attributes
    ----------
    fisher : Fisher
    projection : Projection
    rate : Rate
    condition : Condition
    where : str
        Where the first two were looked at: at a solution gradient and EM step both vanish, and nothing could be seen.
    """

    fisher: Fisher
    projection: Projection
    rate: Rate
    condition: Condition
    where: str

    @property
    def em_passes(self) -> float:
        """Passes in which EM's error falls to a tenth, near the solution; infinite or NaN when it does not."""
        return self.rate.steps_per_digit

    @property
    def accelerated_passes(self) -> float:
        """The same for conjugate gradients, with EM's P or without, at two passes a step (an upper bound in theory)."""
        known = [p.passes for p in self.condition.predictions if p.method.startswith("conjugate gradients")]
        return min(known, default=math.nan)

    @property
    def advice(self) -> str:
        """What theory advises: "em", "accelerated" (conjugate gradients, L-BFGS, accelerated EM), or "" when it cannot say."""
        if not self.rate.rate < 1 or self.rate.gain > UNSETTLED or math.isnan(self.accelerated_passes):
            return ""
        return "accelerated" if self.em_passes > WORTH * self.accelerated_passes else "em"

    def verdict(self, measured: Mapping[str, float] | None = None) -> str:
        """Return two to four sentences: how fast EM must be here, how fast the gradient can be, which solver to use.

        Parameters
        ----------
        measured : mapping of str to float, optional
            Passes that each solver took, by name: only those that converged to the best optimum. EM is called "em".
        """
        return " ".join(filter(None, [self._of_em(), self._of_gradient(), self._of_solvers(measured)]))

    def _of_em(self) -> str:
        r = self.rate
        if r.gain > UNSETTLED:
            return f"This is no solution: one EM step still gains {r.gain:.0e} per unit of weight, so rates say little here."
        if r.rate >= 1 + 10 * r.error:
            return f"EM moves away from this point (its rate there is {r.rate:.3f}): it is a saddle, not a maximum."
        if r.rate >= 1 - STILL:
            return "In some direction EM does not move at all: the maximum is not a single point, or a component is empty."
        place = "Near this solution" if r.settled or r.boundary else "Near this point, which is not quite a solution,"
        if r.rate <= 1e-3:
            return f"{place} hardly any information is missing: one EM step leaves at most 0.1% of the error."
        only = "only " if r.rate > 0.5 else ""
        missing = f"{r.rate:.{1 if r.rate > 0.99 else 0}%} of the information of the complete data is missing"
        about = ""
        if r.shares:
            name, share = max(r.shares.items(), key=lambda item: item[1])
            about = f", {'most' if share > 0.5 else 'the largest part'} of it about the {name}"
        return (
            f"{place} each EM step removes {only}{100 * (1 - r.rate):.2g}% of the remaining error "
            f"({number(r.steps_per_digit)} passes a decimal digit): at worst {missing}{about}."
        )

    def _of_gradient(self) -> str:
        c = self.condition
        if not self.rate.rate < 1 or self.rate.gain > UNSETTLED:
            return ""
        if not c.definite:
            where = c.boundary[0] if len(c.boundary) == 1 else f"{len(c.boundary)} parameters are at the edge of their space"
            return f"At the boundary ({where}): {c.note}" if c.boundary else c.note
        if c.bound:
            known = f"after EM's P its condition number is at most {number(c.after)}"
            return f"The Hessian of so many parameters is not measured; {known}."
        plain = c.prediction("gradient ascent")
        return (
            f"The Hessian has condition number {number(c.before)} ({c.coordinates} coordinates), so gradient ascent with the "
            f"best constant step needs {number(plain.passes)} passes a digit; EM's P turns that number into {number(c.after)}."
        )

    def _of_solvers(self, measured: Mapping[str, float] | None) -> str:
        counts = {name: float(n) for name, n in (measured or {}).items() if math.isfinite(n) and n > 0}
        ours, theirs = self.em_passes, self.accelerated_passes
        estimate = f"about {number(ours)} passes a digit against {number(theirs)} for conjugate gradients"
        says = {
            "em": f"Theory advises EM: {estimate}.",
            "accelerated": f"Theory advises conjugate gradients, L-BFGS or an accelerated EM: EM needs {estimate}.",
            "": "",
        }[self.advice]
        if not counts:
            return says
        winner = min(counts, key=lambda name: counts[name])
        em = min((n for name, n in counts.items() if _is_em(name)), default=math.nan)
        text = f"Measured, {winner} took the fewest passes ({number(counts[winner])})"
        if not _is_em(winner) and not math.isnan(em):
            text += f", EM {number(em)}"
        elif len(counts) > 1:
            second = min((name for name in counts if name != winner), key=lambda name: counts[name])
            tied = counts[second] == counts[winner]
            text += f", as did {second}" if tied else f", then {second} ({number(counts[second])})"
        if not says:
            return text + "."
        on_par = em <= CLOSE * counts[winner]
        agrees = (_is_em(winner) or on_par) if self.advice == "em" else not _is_em(winner)
        if math.isnan(em) and self.advice == "em":
            return f"{text}; EM was not among those that arrived. {says}"
        if agrees:
            return f"{text}, as theory expects: use {'EM' if self.advice == 'em' else winner}."
        if self.advice == "em" and ours * WORTH > theirs:
            return f"{text}; near the solution theory sees little between them ({estimate}), so the way there decided."
        return f"{text}; near the solution theory expected otherwise ({estimate}), so the way there decided."

    def lines(self) -> list[str]:
        """Return everything, line by line, the verdict last."""
        head = [f"Measured {self.where}:", *self.fisher.lines(), *self.projection.lines()]
        return [*head, "Measured at the solution:", *self.rate.lines(), *self.condition.lines(), self.verdict()]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def relation(
    of: Any,
    at: Any = None,
    *,
    start: Any = None,
    away: float = 0.1,
    directions: int | None = 5,
    limit: int = 200,
    passes: int = 100,
    random_state: int = 0,
) -> Relation:
    """Return all that relates EM and the gradient at a solution, with a verdict on which to use.

    Parameters
    ----------
    of : Fit or Objective
        A fit stands for its objective and its last point, an objective is capable of "em", "gradient" and "metric".
    at : Point, Evaluation or array_like (p,), optional
        A solution, by default the point of the fit.
    start : Point, Evaluation or array_like (p,), optional
        Where to look at Fisher's identity, P and the angle; by default in a random direction from the solution.
    away : float
        How far in that direction, in standard deviations that the parameters would have with one complete row.
    directions : int or None
        Along how many random directions to look at Fisher's identity, about ten passes each; None for all coordinates.
    limit, passes : int
        Of `condition` (two passes a parameter up to the limit, none beyond) and of `rate`.
    random_state : int

    Returns
    -------
    Relation

    Raises
    ------
    ValueError
        As `fisher`, `projection`, `rate` and `condition` do.
    TypeError
        When `of` is none of these, or of an EM map, which has no gradient.
    """
    objective, at = objective_of(of, at)
    if not 0 < away < math.inf:
        raise ValueError(f"away must be a positive number, got {away!r}")
    with looking(objective, {"em", "gradient", "metric"}, "the relation of EM and the gradient"):
        current = evaluated(objective, at)
        if start is None:
            near, where = _near(objective, current, away, random_state)
        else:
            near, where = evaluated(objective, start), "at the start"
    speed = rate(objective, current, passes=passes, random_state=random_state)
    return Relation(
        fisher=fisher(objective, near, directions=directions, random_state=random_state),
        projection=projection(objective, near),
        rate=speed,
        condition=condition(objective, current, limit=limit, known=speed),
        where=where,
    )


def _near(objective: Any, current: Evaluation, away: float, random_state: int) -> tuple[Evaluation, str]:
    """Return an evaluation a little way off the solution, and how to call that."""
    z = randomly(objective, current.point, random_state, 1)[:, 0]
    if objective.boundary(current.point):  # no scale there
        v = z / np.linalg.norm(z)
        where = "near the solution"
    else:
        v = current.precondition(z)
        v = v / math.sqrt(z @ v)
        where = f"{away:g} standard deviations (of one complete row) off the solution"
    for i in range(TRIES):
        near = objective.evaluate(current.point.theta + away * 0.1**i * v)
        if near.failure is None:
            return near, where if i == 0 else "near the solution"
    return current, "at the solution itself"


def _is_em(name: str) -> bool:
    """Tell whether a solver's name or description means plain EM."""
    return re.split(r"[^a-z]", name.strip().lower())[0] == "em"
