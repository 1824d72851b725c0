"""Line searches: how far to go along a direction that climbs.

Along the line ``theta + a d`` the value is a function phi(a) of one number, with phi'(0) > 0. One pass over the data
gives phi(a) and phi'(a) together, so a search has both numbers of each trial and uses both: to interpolate (the cubic
through two values and two slopes) and to accept.

`armijo` shortens the step until the value has risen by a small part of what the slope promises,
``phi(a) >= phi(0) + c1 a phi'(0)``. `strong_wolfe` asks for a flat place besides, ``|phi'(a)| <= c2 phi'(0)``, which
conjugate gradients and quasi-Newton updates need. It holds an interval [lo, hi]: lo is the best trial so far, with a
slope that points into the interval. While there is no hi the step grows; from then on the interval shrinks. So
bracketing and zooming are one loop.

Three things are normal here and raise nothing:

* A trial outside of the feasible set has value -inf. It becomes hi, with no numbers to interpolate from.
* Near the top a rise is smaller than the rounding of the value, while slopes are still good to many digits. Where the
  rise that is asked for drowns in rounding, ``phi(a) >= phi(0) - rounding`` together with a condition on the slope
  takes the place of Armijo's rule (Hager and Zhang 2005, approximate Wolfe conditions), and interpolation uses slopes.
* No trial is acceptable. The search says so in a `Failure`, and the caller still has the point where it began.

Everything is maximised. A budget that ends in the middle of a search (`OutOfBudget`) passes through.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from emcore._vectors import moves
from emcore.result import Breakdown, Failure, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective

    Vector = NDArray[np.float64]

__all__ = ["INFEASIBLE", "LOOSE", "MAX_TRIALS", "Found", "armijo", "curved", "feasible", "first_step", "strong_wolfe"]

C1 = 1e-4  # part of the promised rise that a step must deliver
LOOSE = 0.9  # c2 of quasi-Newton directions: Nocedal and Wright (2006), section 3.1
CURVATURE = 1e-10  # least cosine of a step and the fall of the gradient along it
DELTA, SIGMA = 0.1, 0.9  # the approximate conditions of Hager and Zhang (2005)
GROW = 5.0  # a step grows at most by this factor a trial
SHRINK = 0.25  # what is left of a step that was not feasible
EDGE = 0.1  # interpolated trials keep this part of the interval away from its ends
MAX_TRIALS = 30
INFEASIBLE = (Status.NON_FINITE, Status.OUTSIDE)  # normal for a trial, unlike a failure of the model


class Found(NamedTuple):
    """What a search found.

    Attributes
    ----------
    evaluation : Evaluation or None
        The accepted trial; None after a failure.
    step : float
        Its step along the direction.
    trials : int
        Evaluations made; each is a pass, but for those outside of the parameter space.
    failure : Failure or None
        Why no trial was accepted.
    """

    evaluation: Evaluation | None
    step: float
    trials: int
    failure: Failure | None = None

    def info(self) -> dict[str, float]:
        """Return what a state tells about the search."""
        return {"step": self.step, "trials": self.trials}


class _Trial(NamedTuple):
    step: float
    value: float
    slope: float
    evaluation: Evaluation


class _Line:
    """The line through a point, with what all searches on it share: trials, acceptance, the account of failures."""

    __slots__ = ("direction", "failure", "fell", "finite", "noise", "objective", "origin", "theta", "trials")

    def __init__(self, objective: Objective, start: Evaluation, direction: Vector):
        self.objective, self.theta, self.direction = objective, start.point.theta, direction
        self.origin = _Trial(0.0, start.value, float(start.gradient.dot(direction)), start)
        self.noise = start.noise
        self.trials, self.finite, self.fell = 0, 0, False
        self.failure: Failure | None = None

    def climbs(self, step: float) -> bool:
        """Tell whether there is a line to search: a positive slope and a positive step, all finite."""
        return 0.0 < self.origin.slope < math.inf and 0.0 < step < math.inf

    def moves(self, step: float) -> bool:
        """Tell whether a step changes any coordinate in floating point."""
        return moves(self.theta, self.direction, step)

    def at(self, step: float) -> _Trial:
        """Return the trial at a step: one pass. Its value is -inf when anything about it is not finite."""
        evaluation = self.objective.evaluate(self.theta + step * self.direction)
        self.trials += 1
        failure = evaluation.failure
        if failure is None:
            try:
                value, slope = float(evaluation.value), float(evaluation.gradient.dot(self.direction))
            except Breakdown as broken:
                failure = broken.failure
            else:
                if math.isfinite(value) and math.isfinite(slope):
                    self.finite += 1
                    return _Trial(step, value, slope, evaluation)
                failure = Failure(Status.NON_FINITE)
        if self.failure is None or self.failure.status in INFEASIBLE:
            self.failure = failure
        return _Trial(step, -math.inf, math.nan, evaluation)

    def rises(self, trial: _Trial) -> bool:
        """Tell whether the value rose enough: Armijo's rule, or Hager and Zhang's where that drowns in rounding.

        Once a trial has fallen, a step so short that neither value nor slope changes proves nothing, and is refused.
        """
        rise, asked = trial.value - self.origin.value, C1 * trial.step * self.origin.slope
        if rise > self.noise:
            return rise >= asked
        if rise < -self.noise:
            self.fell = True
            return False
        most = SIGMA if self.fell else math.inf
        return asked <= self.noise and 2 * DELTA - 1 <= trial.slope / self.origin.slope <= most

    def accept(self, trial: _Trial) -> Found:
        return Found(trial.evaluation, trial.step, self.trials)

    def give_up(self) -> Found:
        """Return the failure: that of the model if a trial met one, infeasibility only if no trial was feasible."""
        failure = self.failure
        if failure is None or (failure.status in INFEASIBLE and self.finite):
            detail = f"{self.trials} trials, {self.trials - self.finite} of them not feasible."
            if not self.trials:
                detail = "The slope along it is not positive, or no step along it changes the coordinates."
            failure = Failure(Status.NO_ASCENT, detail=detail).after(failure)
        return Found(None, 0.0, self.trials, failure)

    def peak(self, a: _Trial, b: _Trial) -> float:
        """Return the step at which the cubic through two trials peaks, NaN if nowhere.

        Nocedal and Wright (2006), eq. 3.59; where the difference of values is rounding, the secant of the slopes.
        """
        width = b.step - a.step
        if abs(b.value - a.value) > self.noise:
            mean = 3 * (b.value - a.value) / width - a.slope - b.slope
            square = mean * mean - a.slope * b.slope
            if square < 0:
                return math.nan
            root = math.copysign(math.sqrt(square), width)
            top, bottom = root - b.slope - mean, a.slope - b.slope + 2 * root
        else:
            top, bottom = -b.slope, a.slope - b.slope
        return b.step - width * top / bottom if bottom != 0 else math.nan


def first_step(gradient: Vector) -> float:
    """Return a first step along the gradient: ``min(1, 1 / |g|)``, so that no first trial moves farther than 1."""
    norm = math.sqrt(float(gradient @ gradient))
    return 1.0 if norm <= 1.0 else 1.0 / norm


def curved(s: Vector, y: Vector) -> bool:
    """Tell whether the gradient fell enough along a step s, by y, for a quasi-Newton update to learn from it."""
    return float(s.dot(y)) > CURVATURE * math.sqrt(float(s.dot(s)) * float(y.dot(y)))


def feasible(objective: Objective, start: Evaluation, direction: Vector, first: float) -> Found:
    """Return the first feasible trial among the step and its halves, whether or not the value rises there."""
    line = _Line(objective, start, direction)
    step = first
    while line.climbs(step) and line.trials < MAX_TRIALS and line.moves(step):
        trial = line.at(step)
        if trial.value > -math.inf:
            return line.accept(trial)
        step *= 0.5
    return line.give_up()


def armijo(objective: Objective, start: Evaluation, direction: Vector, first: float) -> Found:
    """Return the first trial, each shorter than the one before, at which the value has risen enough.

    Parameters
    ----------
    objective : Objective
    start : Evaluation
        Where the line begins.
    direction : ndarray (p,)
        With a positive slope at the start.
    first : float
        The first step to try.

    Returns
    -------
    Found

    Notes
    -----
    Nocedal and Wright (2006), section 3.5: the next step is where the cubic through the start and the trial peaks, kept
    within [0.1, 0.5] of the step that failed.
    """
    line = _Line(objective, start, direction)
    if not line.climbs(first):
        return line.give_up()
    step = first
    while line.trials < MAX_TRIALS and line.moves(step):
        trial = line.at(step)
        if line.rises(trial):
            return line.accept(trial)
        if trial.value == -math.inf:
            step *= SHRINK
        else:
            peak = line.peak(line.origin, trial)
            step = min(max(peak, 0.1 * step), 0.5 * step) if peak == peak else 0.5 * step
    return line.give_up()


def strong_wolfe(objective: Objective, start: Evaluation, direction: Vector, first: float, *, c2: float) -> Found:
    """Return a trial that satisfies the strong Wolfe conditions, or else the best that satisfies Armijo's.

    Parameters
    ----------
    objective : Objective
    start : Evaluation
        Where the line begins.
    direction : ndarray (p,)
        With a positive slope at the start.
    first : float
        The first step to try.
    c2 : float
        What may be left of the slope.

    Returns
    -------
    Found

    Notes
    -----
    Nocedal and Wright (2006), algorithms 3.5 and 3.6 in one loop. Trials keep a tenth of the interval away from its
    ends, and an interval that two trials did not shrink by a third is halved (More and Thuente 1994).
    """
    line = _Line(objective, start, direction)
    if not line.climbs(first):
        return line.give_up()
    before, lo, hi = line.origin, line.origin, None
    flat = c2 * line.origin.slope
    width = one_ago = two_ago = math.inf
    step = first
    while line.trials < MAX_TRIALS and line.moves(step - lo.step):
        trial = line.at(step)
        if not line.rises(trial) or trial.value < lo.value - line.noise:
            hi = trial
        elif abs(trial.slope) <= flat:
            return line.accept(trial)
        else:
            ahead = 1.0 if hi is None else hi.step - lo.step
            if trial.slope * ahead < 0:
                hi = lo
            before, lo = lo, trial
        if hi is None:
            peak = line.peak(before, lo)
            step = min(max(peak, 1.1 * lo.step), GROW * lo.step) if peak > lo.step else GROW * lo.step
            continue
        span = hi.step - lo.step
        two_ago, one_ago, width = one_ago, width, abs(span)
        if hi.value == -math.inf:
            part = SHRINK
        elif width > 0.66 * two_ago:
            part = 0.5
        else:
            part = (line.peak(lo, hi) - lo.step) / span
            part = min(max(part, EDGE), 1 - EDGE) if part == part else 0.5
        step = lo.step + part * span
    return line.accept(lo) if lo.step > 0 else line.give_up()
