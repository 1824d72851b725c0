"""Acceleration of anybody's EM map, given as a function in plain Python."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from emcore import _kept
from emcore._checks import finite_array, listener
from emcore.fit import checked_stop
from emcore.objective import MapObjective, Point, unconstrained
from emcore.result import Result, Stop
from emcore.solve import Step, solve, warn_unconverged
from emcore.solvers import get, names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from emcore.solvers import Solver, State

    Vector = NDArray[np.float64]

__all__ = ["Acceleration", "accelerate"]

RESIDUAL = 1e-8  # the default rule: an EM step no longer than this
FORMAT, SAVED = "emcore acceleration 1", "a saved climb of emcore.accelerate"


@dataclass(frozen=True)
class Acceleration(_kept.Kept):
    """A result of `accelerate`: it can be drawn, written to a file, and gone on with.

    Attributes
    ----------
    start : str
        Where the climb began, in words.

    And what a `Result` has: ``theta``, ``value`` (that of the objective, NaN without one), ``status``, ``failure``, ``passes``
    (calls of the map), ``steps``, ``seconds``, ``trace``.
    """

    @property
    def subject(self) -> str:
        """The map, in words."""
        return f"an EM map of {len(self.theta)} coordinates"

    @property
    def reached(self) -> str:
        """The value of the objective, in words."""
        return super().reached if math.isnan(self.value) else f"objective {self.value:.10f}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the climb to one file: plain arrays and a line of JSON in NumPy's npz format, no pickle; not the functions.

        Parameters
        ----------
        path : path
            ``.npz`` is added when it has no suffix. An existing file is replaced in one move.

        Raises
        ------
        OSError
            When the file cannot be written.
        """
        _kept.write(path, FORMAT, self, {}, {})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Acceleration:
        """Return the climb that `save` wrote: ``accelerate(em_map, climb, ...)`` goes on with it.

        Raises
        ------
        ValueError
            When the file is no such file.
        OSError
            When it cannot be read.
        """
        arrays, meta = _kept.read(path, FORMAT, SAVED)
        try:
            point = Point(unconstrained(len(arrays["theta"])), theta=arrays["theta"])
            return cls(**_kept.fields_of(arrays, meta), point=point)
        except Exception as error:
            raise _kept.not_saved(path, SAVED, error) from None


def accelerate(
    em_map: Callable[[Vector], ArrayLike],
    theta: ArrayLike | Acceleration,
    objective: Callable[[Vector], float] | None = None,
    method: str | Solver[Any] = "squarem",
    *,
    stop: Stop | None = None,
    inside: Callable[[Vector], bool] | None = None,
    callback: Callable[[Step], Any] | None = None,
    record: bool = False,
) -> Acceleration:
    """Return the fixed point of an EM map, found in fewer calls of it than by following it.

    Parameters
    ----------
    em_map : callable
        Takes theta, an array (p,), and returns where EM goes from there, (p,).
    theta : array_like (p,) or Acceleration
        Where to begin. An earlier result, also one that `Acceleration.load` read, of the same method and the same functions
        is gone on with, to the bit in the same points, with no call repeated but those of a step that its budget cut; rules,
        passes and seconds begin anew. Of another method, or with an objective where it had none, its theta is where to start.
        Functions cannot be told apart: give ``earlier.theta`` where they are others.
    objective : callable, optional
        Returns what the map raises, as a number: the log-likelihood, not its negative. With it no accepted point lies below
        the start, and none below the one before by more than the method's slack. Without it a point stands when its own EM
        step is not much longer than the last.
    method : str or Solver
        "squarem", "anderson", "daarem", "zal", "qn1", or "em" itself; or one of them with options, as
        `emcore.solvers.ZAL(secants=2)`. "auto" is "em" here, as there is no gradient to leave EM for.
    stop : Stop, optional
        By default ``Stop(gain=0, residual=1e-8)``: an EM step of Euclidean length 1e-8 or less. A `Stop` that gives no rule,
        such as ``Stop(max_passes=50)``, has this one too; with ``gain=0`` it has none but its budgets. The rules gain and gtol
        have nothing to judge here, and ftol and aitken have not without an objective.
    inside : callable, optional
        Tells whether a theta is in the domain of the map; others are never evaluated. Not needed where the map or the
        objective is not finite outside, or raises an ArithmeticError or ValueError.
    callback : callable, optional
        As for `emcore.solve`.
    record : bool
        Whether the trace is to hold also the lengths of steps that neither the method nor a rule needs: no call more.

    Returns
    -------
    Acceleration
        A `Result` with ``plot`` and ``save``. ``result.theta`` is the last accepted point, ``result.passes`` counts the calls
        of the map. Its `value` is that of the objective, NaN without one.

    Raises
    ------
    TypeError
        When a function is not callable, or theta is a result of something else.
    ValueError
        When theta is no vector of finite numbers, the map is not finite there or returns something of another shape, the
        method is unknown or needs a gradient, or a rule of `stop` has nothing to judge.

    Warns
    -----
    ConvergenceWarning
        When the climb ended by its budget or by a failure.

    Notes
    -----
    Bad numbers are a status with the last good point, not an exception: an objective that falls along the map's own step is
    ``Status.DECREASED``, a map that runs away ``Status.DIVERGED``.

    Examples
    --------
    >>> import emcore
    >>> result = emcore.accelerate(lambda x: 0.99 * x + 0.01, [5.0])
    >>> bool(abs(result.theta[0] - 1) < 1e-6), result.passes < 20
    (True, True)
    """
    if isinstance(theta, Result) and not isinstance(theta, Acceleration):
        raise TypeError(f"theta must be numbers (p,) or a result of emcore.accelerate, got a {type(theta).__name__}")
    earlier = theta if isinstance(theta, Acceleration) else None
    begin = finite_array("theta", theta if earlier is None else earlier.theta, {"": ("p",)})
    if not (objective is None or callable(objective)):
        raise TypeError(f"objective must be callable with theta, got {objective!r}")
    listener(callback)
    climb = MapObjective(em_map, objective, size=len(begin), inside=inside)
    solver = _usable(method, climb)
    stop = _judged(stop, bare=objective is None)
    state = None if earlier is None else _resumed(climb, solver, earlier)
    at, start = (climb.point(begin), "given coordinates") if state is None else (state, "where that climb ended")
    result = solve(climb, solver, at, stop=stop, callback=callback, record=record)
    warn_unconverged(result)
    return Acceleration(**{f.name: getattr(result, f.name) for f in fields(Result)}, start=start)


def _usable(method: Any, climb: MapObjective) -> Solver[Any]:
    """Return the solver of a method, or raise an error that names those which an EM map is enough for."""
    try:
        solver = get(method)
    except TypeError:
        raise TypeError(f"method must be a name or a Solver, such as 'squarem' or SQUAREM(), got {method!r}") from None
    except ValueError:
        why = f"got {method!r}"
    else:
        if solver.needs <= climb.capabilities:
            return solver
        why = f"got {solver.name!r}, which needs: {', '.join(sorted(solver.needs - climb.capabilities))}"
    able = [name for name in names() if get(name).needs <= climb.capabilities]
    if isinstance(method, str) and (word := method.strip().lower()) in able:
        why += f"; write {word!r}"
    raise ValueError(f"method must be one of {', '.join(map(repr, able))} here, or one of them with options; {why}")


def _judged(stop: Any, *, bare: bool) -> Stop:
    """Return the rules of a climb: a `Stop` that gives none has that of the default, and what cannot be judged is refused."""
    stop = checked_stop(stop)
    given = stop.gain != Stop.gain  # of which the default stands for none
    blind = [name for name in ("ftol", "aitken") if bare and getattr(stop, name)]
    blind += [name for name, on in (("gain", given and stop.gain), ("gtol", stop.gtol)) if on]
    if blind:
        rules = "residual or xtol" if bare else "residual, xtol, ftol or aitken"
        raise ValueError(f"stop: of an EM map only {rules} can be judged, not {' and '.join(blind)}")
    ruled = given or stop.residual or stop.xtol or stop.ftol or stop.aitken
    return replace(stop, gain=0, residual=stop.residual if ruled else RESIDUAL)


def _resumed(climb: MapObjective, solver: Solver[Any], earlier: Acceleration) -> State | None:
    """Return the state in which an earlier climb ended, or None where it was another climb than this one would be."""
    if earlier.solver != solver.describe() or math.isnan(earlier.value) != ("value" not in climb.capabilities):
        return None
    return solver.state_type().restored(climb, _kept.state_arrays(earlier.state))
