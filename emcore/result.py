"""How a climb ended: statuses, stopping rules, the trace and the result. A leaf: imports nothing of ours."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Breakdown",
    "ConvergenceWarning",
    "Failure",
    "Measures",
    "OutOfBudget",
    "Result",
    "Status",
    "Stop",
    "SupportError",
    "Trace",
    "TraceRow",
    "aitken",
    "falls",
    "in_doubt",
    "lies_below",
    "no_value",
    "require",
    "rounding",
]


class Status(Enum):
    """Why a climb ended. The value is the sentence shown to the user."""

    GAIN = "Converged: the gain that one EM step is sure of is below its tolerance."
    GRADIENT = "Converged: the gradient norm is below its tolerance."
    VALUE = "Converged: the change of the value is below its tolerance."
    STEP = "Converged: the step length is below its tolerance."
    RESIDUAL = "Converged: the length of the EM step is below its tolerance."
    AITKEN = "Converged: the rise still to come, by Aitken's estimate, is below its tolerance."
    ROUNDING = "Converged: no further rise can be told from rounding."
    REST = "Converged: EM steps rest, but their E-step is not exact, and where they rest need be no maximum."
    BOUNDARY = "Converged at the boundary of the parameter space."
    MAX_PASSES = "Stopped: the budget of passes is used up."
    MAX_SECONDS = "Stopped: the budget of seconds is used up."
    CALLBACK = "Stopped: the callback asked for it."
    INTERRUPTED = "Interrupted: what had been reached is returned."
    NO_ASCENT = "Failed: no step along the search direction raises the log-likelihood."
    DECREASED = "Failed: the log-likelihood fell."
    COLLAPSED = "Failed: a component collapsed onto too few points."
    NON_FINITE = "Failed: a number is not finite."
    OUTSIDE = "Failed: the point lies outside the parameter space."
    DIVERGED = "Failed: the coordinates grow beyond all bounds."

    @property
    def ok(self) -> bool:
        """True for the statuses that mean convergence."""
        return self.value.startswith("Converged")

    @property
    def failed(self) -> bool:
        """True for the statuses that mean a numerical failure."""
        return self.value.startswith("Failed")


class Failure(NamedTuple):
    """What went wrong in the numbers, where, at which step."""

    status: Status
    where: str = ""
    step: int = -1
    detail: str = ""

    def after(self, refused: Failure | None) -> Failure:
        """Return this failure of a search with why the last trial that was refused for its numbers was so, if one was."""
        if refused is None:
            return self
        return self._replace(detail=f"{self.detail} The last trial without a value: {refused}".strip())

    def __str__(self) -> str:
        parts = [self.status.value]
        if self.where:
            parts.append(f"Where: {self.where}.")
        if self.step >= 0:
            parts.append(f"At step {self.step}.")
        if self.detail:
            parts.append(self.detail)
        return " ".join(parts)


class Breakdown(ArithmeticError):  # noqa: N818  (an event, not an error)
    """Carries a `Failure` from where the numbers broke to the loop; never reaches the user."""

    def __init__(self, failure: Failure):
        super().__init__(str(failure))
        self.failure = failure


class ConvergenceWarning(UserWarning):
    """A climb ended by its budget or by a failure, not by a stopping rule."""


class SupportError(ValueError):
    """Refuses what needs a gradient from a model whose support depends on a parameter: Fisher's identity fails there."""


def require(objective: Any, needs: frozenset[str], what: str, *, moving_support: bool = False) -> None:
    """Refuse an objective that is not capable of what is needed.

    Parameters
    ----------
    objective : Objective
    needs : frozenset of str
        Capabilities.
    what : str
        What needs them, for the error.
    moving_support : bool
        Whether it does without Fisher's identity and smooth maps.

    Raises
    ------
    SupportError
        When the support of the model depends on a parameter and `moving_support` is false.
    ValueError
        When a capability is missing.
    """
    names = getattr(objective, "moving_support", ())
    if names and not moving_support:
        raise SupportError(
            f"{what} does not run on {objective.model!r}: where rows have a density depends on {', '.join(names)}. The "
            "log-likelihood has a boundary term there that the gradient of q, which is -inf on one side, does not see, so "
            "Fisher's identity fails and EM's map jumps. Use solver 'em', which freezes at once, or compare the "
            f"log-likelihoods of fits with {' and '.join(names)} fixed at the order statistics of the data (a profile)"
        )
    missing = needs - objective.capabilities
    if missing:
        reasons = getattr(getattr(objective, "model", None), "lacks", {})
        why = "; ".join(dict.fromkeys(reasons[name] for name in sorted(missing) if name in reasons))
        raise ValueError(f"{what} needs {sorted(missing)}, which {objective!r} does not provide{why and ': '}{why}")


def no_value(objective: Any, name: str, failure: Failure) -> ValueError:
    """Return the error of an argument of this name, a point at which an evaluation has failed, in words for the objective."""
    return ValueError(f"{name}: {getattr(objective, 'broken', 'the log-likelihood is not finite there')}. {failure}")


class OutOfBudget(Exception):  # noqa: N818  (an event, not an error)
    """Raised by an objective whose budget does not allow one more pass; caught by the loop only."""

    def __init__(self, status: Status):
        super().__init__(status.value)
        self.status = status


def rounding(scale: float) -> float:
    """Return the change of a mean log-likelihood that cannot be told from rounding, where nothing is ill-conditioned.

    Parameters
    ----------
    scale : float
        Mean absolute log-density of a row, ``sum(w |log p|) / W``.
    """
    return 64 * sys.float_info.epsilon * max(1.0, scale)


def lies_below(at: Any, value: float) -> bool:
    """Tell whether an evaluation lies below a value by more than its noise.

    That costs eigenvalues of covariances, and is never less than rounding, which is known: most falls are no more than that.
    """
    fall = value - at.value
    return fall > 0 and fall > rounding(at.scale) and fall > at.noise


def in_doubt(trial: Any, start: Any) -> float:
    """Return the rise or fall from one evaluation to another that cannot be told from rounding, where a trial may be refused.

    That is the smaller noise of the two: a trial may lie where parameters are so ill-conditioned that its own hides any fall.
    """
    return min(trial.noise, start.noise)


def falls(trial: Any, start: Any) -> bool:
    """Tell whether a trial that may be refused lies below the evaluation it starts from by more than can be `in_doubt`."""
    fall = start.value - trial.value
    return fall > 0 and fall > rounding(min(trial.scale, start.scale)) and fall > in_doubt(trial, start)


def aitken(before: float, change: float, *, gain: float, noise: float) -> float:
    """Return the rise of the value still to come, by Aitken's estimate from its last two changes; NaN where they say nothing.

    Parameters
    ----------
    before, change : float
        Change of the value in the step before and in the last one.
    gain : float
        The rise that one EM step is sure of, NaN where not known: no less is still to come, whatever the changes say.
    noise : float
        The change that cannot be told from rounding: a smaller one counts as that much.

    Notes
    -----
    Changes that shrink by the factor ``r = change / before`` have ``change r / (1 - r)`` ahead of them (Aitken 1926). Nothing
    is said after a fall, nor where r is not below 1.
    """
    if not 0 <= change < before:
        return math.nan
    rate = max(change, noise) / before
    if not rate < 1:
        return math.nan
    remaining = change * rate / (1 - rate)
    return gain if gain > remaining else remaining


TOLERANCES = ("gain", "gtol", "ftol", "xtol", "residual", "aitken")  # of `Stop`, in the order of `Measures`
MODEST = 1e-5  # no gain above this is rounding
STATIONARY = 1e-9  # an EM step that gains no more begins where the gradient vanishes, for all that one can see


class Measures(NamedTuple):
    """The numbers that the stopping rules look at, NaN where not known.

    gain : rise of the value per unit weight that one EM step is sure of, ``(q(em) - q(theta)) / W``
    gradient : largest absolute entry of the gradient, per unit weight, in the coordinates of the climb
    value : change of the value in the last step
    step : largest absolute change of a coordinate in the last step
    residual : Euclidean length of the EM step ``M(theta) - theta`` in the coordinates of the climb
    remaining : rise of the value still to come, by `aitken`
    """

    gain: float = math.nan
    gradient: float = math.nan
    value: float = math.nan
    step: float = math.nan
    residual: float = math.nan
    remaining: float = math.nan


@dataclass(frozen=True)
class Stop:
    """Stopping rules, the same for every solver. A tolerance of 0 switches its rule off.

    Parameters
    ----------
    gain : float
        Stop when the rise that one EM step is sure of, per unit of weight, is at most this. It needs no further pass and
        depends neither on the solver nor on units or coordinates.
    gtol : float
        Stop when the largest absolute entry of the gradient is at most this.
    ftol : float
        Stop when a step changed the value (mean log-likelihood) by at most this.
    xtol : float
        Stop when a step changed no coordinate by more than this.
    residual : float
        Stop when the EM step from here is at most this long, ``|M(theta) - theta|``. It needs no further pass.
    aitken : float
        Stop when the rise of the value still to come is at most this, by Aitken's estimate from the last two changes: how far
        the value is from where the climb leads, not how slowly it gets there. Says nothing where the changes do not shrink.
        `gain` is on unless it is 0, and may stop a slow climb before. A climb that is gone on with has no changes yet.
    patience : int
        For how many steps in a row a rule must hold; counted anew where a climb is gone on with.
    max_passes : float
        Budget of passes over the data. The first pass evaluates the start: with a budget of 1 no step is taken.
    max_seconds : float
        Budget of wall-clock seconds, looked at between passes.

    Raises
    ------
    ValueError, TypeError
        When a tolerance is negative or NaN, or a budget is not positive.
    """

    gain: float = 1e-12
    gtol: float = 0.0
    ftol: float = 0.0
    xtol: float = 0.0
    residual: float = 0.0
    aitken: float = 0.0
    patience: int = 1
    max_passes: float = 10_000
    max_seconds: float = math.inf

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
                raise TypeError(f"Stop: {f.name} must be a number, got {value!r}")
            if f.name in TOLERANCES and not 0 <= value < math.inf:
                raise ValueError(f"Stop: {f.name} must be a finite number >= 0 (0 switches the rule off), got {value!r}")
        if not (1 <= self.patience < math.inf and self.patience == int(self.patience)):
            raise ValueError(f"Stop: patience must be a whole number >= 1, got {self.patience!r}")
        if not self.max_passes >= 1:
            raise ValueError(f"Stop: max_passes must be at least 1 (the pass at the start), got {self.max_passes!r}")
        if not self.max_seconds > 0:
            raise ValueError(f"Stop: max_seconds must be positive, got {self.max_seconds!r}")

    @property
    def tolerances(self) -> Measures:
        """The tolerances, in the order of `Measures`."""
        return Measures(*(getattr(self, name) for name in TOLERANCES))

    def rule(self, measures: Measures, current: Any, *, fell: bool, below: bool = False) -> Status | None:
        """Return the status of the first rule that holds, or None.

        Parameters
        ----------
        measures : Measures
        current : Evaluation
            Asked for its `noise`, how small a rise can be told from rounding, only when the gain is small.
        fell : bool
            Whether the last step lowered the value by more than rounding: then no rule holds.
        below : bool
            Whether a point before was higher by more than rounding: a small change is then no sign of convergence.
        """
        if fell:
            return None
        if self.gain > 0 and measures.gain <= self.gain:
            return Status.GAIN
        if (self.gain > 0 or self.aitken > 0) and measures.gain <= MODEST and measures.gain <= current.noise:
            return Status.ROUNDING
        if self.gtol > 0 and measures.gradient <= self.gtol:
            return Status.GRADIENT
        if self.residual > 0 and measures.residual <= self.residual:
            return Status.RESIDUAL
        if below:
            return None
        if self.ftol > 0 and abs(measures.value) <= self.ftol:
            return Status.VALUE
        if self.xtol > 0 and measures.step <= self.xtol:
            return Status.STEP
        if self.aitken > 0 and measures.remaining <= self.aitken:
            return Status.AITKEN
        return None


class TraceRow(NamedTuple):
    """One accepted point of a climb; NaN where neither the solver nor a rule needed the number, and nobody asked for it.

    step : how many steps led here
    value : mean log-likelihood per unit of weight
    gain, gradient, change, length, residual, remaining : `Measures`, `change` that of the value, `length` that of the step
    free_energy : F per unit of weight, of the solvers that climb it (Neal and Hinton 1998)
    passes, hessian_passes, monitor_passes, seconds : since the start
    event : what the step did
    """

    step: int
    value: float
    gain: float
    gradient: float
    change: float
    length: float
    residual: float
    remaining: float
    free_energy: float
    passes: float
    hessian_passes: float
    monitor_passes: float
    seconds: float
    event: str


class Trace:
    """The climb, one row an accepted point, the start first.

    ``trace.value``, ``trace.passes``, ... are arrays; ``trace[i]`` is a `TraceRow`; ``trace.array`` is structured;
    ``trace.to_pandas()`` is a table. Columns: the fields of `TraceRow`.
    """

    dtype = np.dtype([(n, "U24" if n == "event" else "i8" if n == "step" else "f8") for n in TraceRow._fields])

    def __init__(self, rows: Any = ()) -> None:
        self._rows: list[TraceRow] = [TraceRow(*(v.item() if isinstance(v, np.generic) else v for v in r)) for r in rows]

    def append(self, row: TraceRow) -> None:
        """Add a row at the end."""
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> TraceRow:
        return self._rows[i]

    @property
    def array(self) -> np.ndarray:
        """The whole trace as a structured array of shape (steps + 1,)."""
        return np.array([tuple(r) for r in self._rows], dtype=self.dtype)

    def to_pandas(self) -> Any:
        """Return the whole trace as a pandas DataFrame, a row an accepted point.

        Raises
        ------
        ImportError
            When pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ImportError("Trace.to_pandas needs pandas: pip install pandas") from None
        return pd.DataFrame({name: getattr(self, name) for name in TraceRow._fields})

    def __getattr__(self, name: str) -> np.ndarray:
        if name in TraceRow._fields:
            kind = str if name == "event" else int if name == "step" else float
            return np.array([getattr(r, name) for r in self._rows], dtype=kind)
        raise AttributeError(name)

    def __repr__(self) -> str:
        if not self._rows:
            return "Trace of 0 points"
        return f"Trace of {len(self)} points, value {self._rows[0].value:.6f} -> {self._rows[-1].value:.6f}"


@dataclass(frozen=True)
class Result:
    """Where a climb ended and how it went.

    Attributes
    ----------
    theta : ndarray (p,)
        Coordinates of the last accepted point.
    value : float
        Mean log-likelihood per unit of weight there; NaN for an EM map that came without it.
    log_likelihood : float
        Its sum over the data: ``value * weight``.
    status, failure : Status, Failure or None
    passes, steps, seconds : float, int, float
    trace : Trace
    measures : Measures
        What the stopping rules saw at the end, all of them.
    boundary : tuple of str
        The parameters that sit on the boundary of the parameter space, in words.
    moving_support : tuple of str
        The parameters on which the support of the model depends.
    hessian_passes, monitor_passes : float
        Passes for Hessian products, and those that only told the value at the end of a sweep; neither are among `passes`.
    state : State
        Of the solver, from which `solve` goes on; in a fit that was read from a file, a mapping of plain arrays.
    """

    point: Any
    value: float
    weight: float
    status: Status
    failure: Failure | None
    passes: float
    steps: int
    seconds: float
    trace: Trace
    measures: Measures
    stop: Stop
    solver: str
    boundary: tuple[str, ...] = ()
    moving_support: tuple[str, ...] = ()
    hessian_passes: float = 0.0
    monitor_passes: float = 0.0
    state: Any = field(default=None, repr=False, compare=False)

    @property
    def evaluation(self) -> Any:
        """What the last pass gave, at `point`; None in a fit that was read from a file."""
        return getattr(self.state, "current", None)

    @property
    def theta(self) -> np.ndarray:
        """Coordinates of the last accepted point, (p,)."""
        return self.point.theta

    @property
    def log_likelihood(self) -> float:
        """Sum of the log-likelihood over the data."""
        return self.value * self.weight

    @property
    def reached(self) -> str:
        """The log-likelihood, in words."""
        if math.isnan(self.value):
            return "log-likelihood not known: the EM map came without it"
        return f"log-likelihood {self.log_likelihood:.6f} (sum), {self.value:.10f} (mean per unit weight)"

    def lines(self) -> list[str]:
        """Return the summary, line by line."""
        out = [f"{self.solver}: {self.status.value}"]
        if self.failure is not None and (self.failure.where or self.failure.detail):
            out.append(f"  {self.failure}")
        if self.steps == 0 and self.status.ok:
            flat = self.status in (Status.GAIN, Status.ROUNDING) and self.measures.gain <= STATIONARY
            smooth = flat and not self.moving_support
            what = "the start is stationary, a maximum or a saddle" if smooth else "a rule holds there"
            out.append(f"  No step was taken: {what}.")
        out += [f"  at the boundary: {where}" for where in self.boundary]
        out += [
            f"  frozen: the support depends on {name}, which EM moves once, to a row, and never again: a maximum of q "
            "alone. Compare fits with it fixed at other order statistics of the data"
            for name in self.moving_support
        ]
        out.append(f"  {self.reached}")
        apart = f" and {self.hessian_passes:g} for Hessian products" if self.hessian_passes else ""
        apart += f" and {self.monitor_passes:g} for monitoring" if self.monitor_passes else ""
        out.append(f"  {self.steps} steps, {self.passes:g} passes over the data{apart}, {self.seconds:.3g} seconds")
        names = (
            "gain of one EM step",
            "largest gradient entry",
            "change of value",
            "change of coordinates",
            "length of EM step",
            "rise to come (Aitken)",
        )
        for name, measure, tolerance in zip(names, self.measures, self.stop.tolerances, strict=True):
            rule = f"tolerance {tolerance:.1e}" if tolerance > 0 else "rule off"
            shown = "not known" if math.isnan(measure) else f"{measure:.1e}"
            out.append(f"  {name + ':':<24}{shown:>10}  ({rule})")
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())
