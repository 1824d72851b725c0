"""Acceleration of anybody's EM map, given as a function in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from emcore._checks import finite_array
from emcore.objective import MapObjective
from emcore.result import Stop
from emcore.solve import Step, solve
from emcore.solvers import get, names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from emcore.result import Result
    from emcore.solvers import Solver

    Vector = NDArray[np.float64]

__all__ = ["accelerate"]

RESIDUAL = 1e-8  # the default rule: an EM step no longer than this


def accelerate(
    em_map: Callable[[Vector], ArrayLike],
    theta: ArrayLike,
    objective: Callable[[Vector], float] | None = None,
    method: str | Solver[Any] = "squarem",
    *,
    stop: Stop | None = None,
    inside: Callable[[Vector], bool] | None = None,
    callback: Callable[[Step], Any] | None = None,
) -> Result:
    """Return the fixed point of an EM map, found in fewer calls of it than by following it.

    Parameters
    ----------
    em_map : callable
        Takes theta, an array (p,), and returns where EM goes from there, (p,).
    theta : array_like (p,)
        Where to begin.
    objective : callable, optional
        Returns what the map raises, as a number: the log-likelihood. With it no accepted point lies below the start, and none
        below the one before by more than the method's slack. Without it a point stands when its own EM step is not much longer
        than the last.
    method : str or Solver
        "squarem", "anderson", "daarem", "zal", "qn1", or "em" itself; or one of them with options, as
        `emcore.solvers.ZAL(secants=2)`.
    stop : Stop, optional
        By default ``Stop(gain=0, residual=1e-8)``: an EM step of Euclidean length 1e-8 or less. The rules gain and gtol have
        nothing to judge here, and ftol and aitken have not without an objective.
    inside : callable, optional
        Tells whether a theta is in the domain of the map; others are never evaluated. Not needed where the map or the
        objective is not finite outside, or raises an ArithmeticError or ValueError.
    callback : callable, optional
        As for `emcore.solve`.

    Returns
    -------
    Result
        ``result.theta`` is the last accepted point, ``result.passes`` counts the calls of the map. Its `value` is that of the
        objective, NaN without one.

    Raises
    ------
    TypeError
        When a function is not callable.
    ValueError
        When theta is no vector of finite numbers, the map is not finite there or returns something of another shape, the
        method is unknown or needs a gradient, or no rule of `stop` has anything to judge.

    Examples
    --------
    >>> import emcore
    >>> result = emcore.accelerate(lambda x: 0.99 * x + 0.01, [5.0])
    >>> bool(abs(result.theta[0] - 1) < 1e-6), result.passes < 20
    (True, True)
    """
    start = finite_array("theta", theta, {"": ("p",)})
    if not (objective is None or callable(objective)):
        raise TypeError(f"objective must be callable with theta, got {objective!r}")
    climb = MapObjective(em_map, objective, size=len(start), inside=inside)
    solver = get(method)
    if not solver.needs <= climb.capabilities:
        able = [name for name in names() if get(name).needs <= climb.capabilities]
        lacks = ", ".join(sorted(solver.needs - climb.capabilities))
        raise ValueError(f"method must be one of {', '.join(map(repr, able))} here, got {solver.name!r}, which needs: {lacks}")
    stop = Stop(gain=0, residual=RESIDUAL) if stop is None else stop
    if not (stop.residual or stop.xtol or ((stop.ftol or stop.aitken) and objective is not None)):
        rules = "residual or xtol" if objective is None else "residual, xtol, ftol or aitken"
        raise ValueError(f"stop: of an EM map only {rules} can be judged; give one, such as Stop(residual=1e-8)")
    return solve(climb, solver, climb.point(start), stop=stop, callback=callback)
