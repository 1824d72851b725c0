"""A study: every solver from several starts on several data sets, and how often and how fast each one arrives.

One race says which solver was fastest from one start. Which optimum a climb ends in depends on the start as much as on the
solver, so a study repeats the race from many starts, collects the optima that were found, and counts: in how many climbs a
solver reached the best one, and in how many passes. Only numbers are kept of a climb, and parameters of each distinct optimum.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emcore._checks import listener, whole
from emcore.compare import SOLVERS, WIDTH, plain, provided, runners_of, tabulated, versions, warm_up
from emcore.fit import SAME_PLACE, SAME_VALUE, checked_stop, generators, prepare
from emcore.result import Status, Stop
from emcore.solve import Step, solve
from emcore.starts import starting_point

if TYPE_CHECKING:
    from emcore.models import Model
    from emcore.objective import ModelObjective, Point
    from emcore.result import Result
    from emcore.solvers import Solver

__all__ = ["Climb", "Optimum", "Study", "Summary", "study"]

ARRIVED = 1e-9  # relative to the value: this close to the best optimum counts as having reached it
PROBLEM = ("model", "X", "sample_weight", "start", "fixed")  # what a problem may give
SHOWN = 3  # optima with a column of their own in the table


class Climb(NamedTuple):
    """One climb of a study: a solver from a start on a problem.

    Attributes
    ----------
    problem, start, solver : str, int, str
    value : float
        Mean log-likelihood per unit of weight where it ended.
    gap : float
        How far that is below the best optimum known for the problem, per unit of weight.
    optimum : int or None
        Where it converged: a position in `Study.optima`, the best first; None where it did not converge.
    reached : bool
        Whether that is the best optimum, to 1e-9 of the value and up to relabelling of the components.
    passes, hessian_passes, steps, seconds : float, float, int, float
    status : Status
    """

    problem: str
    start: int
    solver: str
    value: float
    gap: float
    optimum: int | None
    reached: bool
    passes: float
    hessian_passes: float
    steps: int
    seconds: float
    status: Status


class Optimum(NamedTuple):
    """A place where climbs converged.

    Attributes
    ----------
    value : float
        The highest that a climb reached there, per unit of weight.
    climbs : int
        How many converged there.
    params : named tuple
        In the user's units.
    boundary : tuple of str
        What of it lies at the boundary of the parameter space.
    """

    value: float
    climbs: int
    params: Any
    boundary: tuple[str, ...]


class Summary(NamedTuple):
    """A solver on a problem, over the starts; NaN where there is nothing to count.

    Attributes
    ----------
    problem, solver : str, str
    climbs, reached : int, int
        And in how many of them it reached the best optimum known.
    rate : float
        The share of these.
    by_optimum : tuple of int
        How many converged in each of `Study.optima`.
    unfinished, failed : int, int
        How many ended by their budget, and how many by a failure.
    passes, seconds : tuple of float
        Quartiles (lower, median, upper) over the climbs that reached the best optimum.
    hessian_passes : float
        Median over the same.
    gap : float
        Median over all climbs that did not fail, per unit of weight.
    """

    problem: str
    solver: str
    climbs: int
    reached: int
    rate: float
    by_optimum: tuple[int, ...]
    unfinished: int
    failed: int
    passes: tuple[float, float, float]
    seconds: tuple[float, float, float]
    hessian_passes: float
    gap: float


@dataclass(frozen=True)
class Study:
    """The outcome of `study`: prints as tables.

    Attributes
    ----------
    climbs : tuple of Climb
        In the order in which they were run.
    optima : dict of str to tuple of Optimum
        By problem, the best first. The best is the highest that any climb converged to.
    labels : tuple of str
        The solvers.
    titles : dict of str to str
        Model and data, by problem.
    starts : dict of str to tuple of str
        How each start was found, by problem.
    interrupted : bool
        Whether Ctrl-C ended it.
    left_out : tuple of str
        Of ``solvers="all"``, those that not every model provides for.
    """

    climbs: tuple[Climb, ...] = field(repr=False)
    optima: dict[str, tuple[Optimum, ...]] = field(repr=False)
    labels: tuple[str, ...]
    titles: dict[str, str]
    starts: dict[str, tuple[str, ...]] = field(repr=False)
    stop: Stop = field(default_factory=Stop)
    options: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    left_out: tuple[str, ...] = ()

    def summary(self, problem: str, solver: str) -> Summary:
        """Return one solver on one problem, over the starts."""
        climbs = [c for c in self.climbs if c.problem == problem and c.solver == solver]
        there = [c for c in climbs if c.reached]
        ended = Counter(c.optimum for c in climbs)
        return Summary(
            problem, solver, len(climbs), len(there), len(there) / len(climbs) if climbs else math.nan,
            tuple(ended[i] for i in range(len(self.optima.get(problem, ())))),
            sum(not c.status.ok and not c.status.failed for c in climbs), sum(c.status.failed for c in climbs),
            _quartiles([c.passes for c in there]), _quartiles([c.seconds for c in there]),
            _quartiles([c.hessian_passes for c in there])[1],
            _quartiles([c.gap for c in climbs if not c.status.failed and math.isfinite(c.gap)])[1],
        )  # fmt: skip

    def summaries(self) -> list[Summary]:
        """Return all of them, problem by problem."""
        return [self.summary(problem, solver) for problem in self.titles for solver in self.labels]

    def success(self) -> np.ndarray:
        """Return the share of starts from which the best optimum was reached, (problems, solvers); NaN where none was run."""
        return np.array([[self.summary(problem, solver).rate for solver in self.labels] for problem in self.titles])

    def lines(self) -> list[str]:
        """Return the tables, line by line."""
        n = max(map(len, self.starts.values()))
        out = [
            f"{_count(len(self.titles), 'problem')}, {_count(n, 'start')}{' each' * (len(self.titles) > 1)}; "
            f"at most {self.stop.max_passes:g} passes a climb.",
        ]
        for problem in self.titles:
            out += ["", *self._block(problem)]
        out += [
            "",
            "reached: climbs that converged to the best optimum known, to 1e-9 of the log-likelihood and up to relabelling.",
            "passes, seconds: median [quartiles] of these climbs.  gap: median of all that did not fail.",
        ]
        if len(self.titles) > 1:
            cells = [("reached, %", *self.titles)]
            rates = 100 * self.success()
            cells += [(label, *(_number(rate, ".0f") for rate in rates[:, j])) for j, label in enumerate(self.labels)]
            out += ["", *tabulated(cells, left=(0,))]
        if self.left_out:
            words = f"Left out, as they need what not every model provides: {', '.join(self.left_out)}."
            out += ["", *textwrap.wrap(words, WIDTH)]
        return out + (["", "Interrupted: climbs that had not ended are left out."] if self.interrupted else [])

    def _block(self, problem: str) -> list[str]:
        optima = self.optima.get(problem, ())
        shown = min(len(optima), SHOWN)
        more = len(optima) > shown
        ranks = [("best", "2nd", "3rd")[i] for i in range(shown)] + ["lower"] * more
        hessian = any(c.hessian_passes for c in self.climbs if c.problem == problem)
        head = ("solver", "reached", *ranks, "failed", "unfinished", "passes", *["Hessian"] * hessian, "seconds", "gap")
        cells = [head]
        for label in self.labels:
            s = self.summary(problem, label)
            counts = [str(n) for n in s.by_optimum[:shown]] + [str(sum(s.by_optimum[shown:]))] * more
            cells.append((
                label, f"{s.reached}/{s.climbs}", *counts, str(s.failed), str(s.unfinished), _spread(s.passes, "g"),
                *[_number(s.hessian_passes, "g")] * hessian, _spread(s.seconds, ".2g"), _number(s.gap, ".1e"),
            ))  # fmt: skip
        title = self.titles[problem] if problem in self.titles[problem] else f"{problem}: {self.titles[problem]}"
        return [*textwrap.wrap(title, WIDTH), *textwrap.wrap(self._found(problem), WIDTH), "", *tabulated(cells, left=(0,))]

    def _found(self, problem: str) -> str:
        """Return what the optima are, in a sentence."""
        optima = self.optima.get(problem, ())
        if not optima:
            return "No climb converged."
        values = ", ".join(f"{o.value:.10f}" for o in optima[:SHOWN])
        more = f", and {len(optima) - SHOWN} lower" if len(optima) > SHOWN else ""
        edge = f"; the best lies at the boundary ({'; '.join(optima[0].boundary)})" if optima[0].boundary else ""
        name = "optimum" if len(optima) == 1 else "optima"
        return f"{len(optima)} {name}, log-likelihood per unit weight {values}{more}{edge}."

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types, None in the place of NaN and infinities."""
        problems = {}
        for problem, title in self.titles.items():
            optima = [o._asdict() | {"params": o.params._asdict()} for o in self.optima.get(problem, ())]
            rows = [self.summary(problem, label)._asdict() for label in self.labels]
            problems[problem] = {"title": title, "starts": self.starts[problem], "optima": optima, "solvers": rows}
        return plain({
            "format": "emcore study 1",
            "versions": versions(),
            "options": {**self.options, "stop": {f.name: getattr(self.stop, f.name) for f in fields(Stop)}},
            "tolerance": ARRIVED,
            "problems": problems,
            "climbs": [c._asdict() | {"status": c.status.name} for c in self.climbs],
            "left_out": self.left_out,
            "interrupted": self.interrupted,
        })  # fmt: skip

    def plot(self, path: str | os.PathLike[str], *, title: str | None = None) -> None:
        """Write the picture of the study: for each problem and solver the passes of all climbs, and how many arrived.

        Parameters
        ----------
        path : path
            Its extension tells the format: .png, .svg or .pdf. An existing file is replaced in one move.
        title : str, optional

        Raises
        ------
        ValueError
            When the extension is another.
        ImportError
            When matplotlib is not installed.
        """
        from emcore import plot

        plot.check(path)
        plot.save(plot.study(self, title=title), path)


def study(
    problems: Mapping[str, Any],
    *,
    solvers: str | Iterable[str | Solver[Any]] = SOLVERS,
    n_starts: int = 20,
    stop: Stop | None = None,
    start: str = "auto",
    random_state: int | np.random.Generator | None = None,
    n_threads: int | None = None,
    coordinates: str = "free",
    callback: Callable[[str, Step], Any] | None = None,
) -> Study:
    """Let solvers climb from several starts on several data sets, and count how often and how fast they arrive.

    Parameters
    ----------
    problems : mapping of name to problem
        A problem is ``(model, X)``, or a mapping with ``model`` and ``X``, and where wanted ``sample_weight``, ``start`` (in
        place of the common one: a name, parameters, or a sequence of parameters, one a start) and ``fixed``, as in
        `emcore.fit`.
    solvers : "all", or iterable of str or Solver
        Names of `emcore.solvers.names`, or instances with options. All climb from the same starts. "all" are all of these
        names that every model provides for.
    n_starts : int
        From how many starts on each problem.
    stop : Stop, optional
        Of each climb; ``Stop(gain=1e-13)`` by default, so that slow solvers too come as near as counts.
    start : str
        One of `emcore.starts.STARTS`.
    random_state : int or Generator, optional
        Seed of the starts: those of a problem are the same as in `emcore.fit` with as many, whatever the other problems are.
    n_threads : int, optional
        Threads of a pass, at most: passes at once, in several Python threads, share the CPUs. The result does not depend on it,
        to the last bit.
    coordinates : {"free", "original"}
        What gradient solvers move in. EM does not care.
    callback : callable, optional
        Called with a label (problem, solver and start) and a `Step` at the start and after each step of a climb; a true
        return value ends that climb.

    Returns
    -------
    Study

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what is wrong, and what is allowed; before the first climb.

    Notes
    -----
    Ctrl-C ends the study and returns the climbs that had ended. Breakdowns are counted, no exceptions.
    """
    runners = runners_of(solvers)
    listener(callback)
    stop = Stop(gain=1e-13) if stop is None else checked_stop(stop)
    n_starts = whole("n_starts", n_starts)
    if not isinstance(start, str):
        raise TypeError(f"start must be the name of a start, got {type(start).__name__}; parameters belong to a problem")
    seed = random_state
    generators(seed, 1)
    if not isinstance(seed, (int, np.integer)):
        seed = int(np.random.default_rng(seed).integers(2**63))
    ready = {}
    for name, problem in _checked(problems).items():
        ready[name] = _Problem(name, problem, start, n_starts, seed, n_threads, coordinates)
    runners, left_out = provided(solvers, runners, [problem.objective for problem in ready.values()])

    climbs: list[tuple[Climb, int | None]] = []
    interrupted = False
    try:
        for problem in ready.values():
            warm_up(problem.objective, problem.points[0])
            for i, at in enumerate(problem.points):
                for label, solver in runners.items():
                    follow = _following(f"{problem.name}, start {i}: {label}", callback)
                    result = solve(problem.objective, solver, at, stop=stop, callback=follow)
                    if result.status is Status.INTERRUPTED:
                        raise KeyboardInterrupt
                    climbs.append((_climb(problem.name, i, label, result), problem.place(result)))
    except KeyboardInterrupt:
        if not climbs:
            raise
        interrupted = True
    options = {
        "solvers": list(runners), "coordinates": coordinates, "n_threads": next(iter(ready.values())).objective.n_threads,
        "random_state": seed, "n_starts": n_starts,
    }  # fmt: skip
    return Study(
        tuple(ready[climb.problem].settled(climb, place) for climb, place in climbs),
        {name: problem.optima() for name, problem in ready.items()}, tuple(runners),
        {name: problem.title for name, problem in ready.items()}, {name: problem.how for name, problem in ready.items()},
        stop=stop, options=options, interrupted=interrupted, left_out=left_out,
    )  # fmt: skip


def _checked(problems: Any) -> dict[str, dict[str, Any]]:
    """Return the problems, each as a mapping."""
    if not isinstance(problems, Mapping):
        raise TypeError(f"problems must map names to (model, X), got {type(problems).__name__}")
    if not problems:
        raise ValueError("problems is empty: name at least one, as {name: (model, X)}")
    out = {}
    for name, given in problems.items():
        if not isinstance(name, str):
            raise TypeError(f"problems: names must be words, got {name!r}")
        if isinstance(given, tuple) and len(given) == 2:
            given = {"model": given[0], "X": given[1]}
        if not isinstance(given, Mapping):
            raise TypeError(f"problems: {name!r} must be (model, X) or a mapping with 'model' and 'X'")
        unknown, missing = set(given) - set(PROBLEM), {"model", "X"} - set(given)
        if unknown or missing:
            words = f"unknown: {sorted(map(str, unknown))}" if unknown else f"missing: {sorted(missing)}"
            raise ValueError(f"problems: {name!r} may have {', '.join(PROBLEM)}; {words}")
        out[name] = dict(given)
    return out


class _Place(NamedTuple):
    """A place where climbs converged, the highest of them standing for all; in frame units."""

    value: float
    params: Any
    boundary: tuple[str, ...]
    climbs: int


class _Problem:
    """A problem with its starts and the places where climbs on it converged."""

    def __init__(self, name: str, given: dict[str, Any], start: str, n: int, seed: int, n_threads: Any, coordinates: str):
        starts: Any = given.get("start", start)
        several = isinstance(starts, Sequence) and not isinstance(starts, str) and not hasattr(starts, "_asdict")
        if several and not len(starts):
            raise ValueError(f"problems: {name!r} has an empty sequence of starts")
        each = list(starts) if several else [starts] * (n if isinstance(starts, str) else 1)
        fixed = given.get("fixed")
        self.name = name
        self.objective: ModelObjective = prepare(
            given["model"], given["X"], sample_weight=given.get("sample_weight"), n_threads=n_threads, coordinates=coordinates,
            fixed=fixed, start=each[0],
        )  # fmt: skip
        for other in each[1:] if fixed else ():
            self._same_fixed(each[0], other)
        found = [starting_point(self.objective, s, rng) for s, rng in zip(each, generators(seed, len(each)), strict=True)]
        self.points: list[Point] = [point for point, _ in found]
        self.how = tuple(how for _, how in found)
        self.places: list[_Place] = []

    def _same_fixed(self, first: Any, other: Any) -> None:
        for name, (mask, _) in self.model.fixed.items():
            a, b = (np.asarray((s._asdict() if hasattr(s, "_asdict") else s)[name])[mask] for s in (first, other))
            if not np.array_equal(a, b):
                raise ValueError(f"problems: the starts of {self.name!r} must agree in what is fixed of the {name}")

    @property
    def model(self) -> Model:
        return self.objective.model

    @property
    def title(self) -> str:
        source = self.objective.source
        return f"{self.model} on {_count(source.n_rows, 'row')} x {_count(source.n_columns, 'column')}"

    def place(self, result: Result) -> int | None:
        """Return the number of the place where a climb converged, a new one where none is known; None where it did not."""
        if not result.status.ok:
            return None
        value, params = result.value, result.point.params
        for i, known in enumerate(self.places):
            near = abs(known.value - value) <= SAME_VALUE * max(1.0, abs(known.value))
            if near and self.model.distance(known.params, params) <= SAME_PLACE:
                best = known if known.value >= value else _Place(value, params, result.boundary, 0)
                self.places[i] = best._replace(climbs=known.climbs + 1)
                return i
        self.places.append(_Place(value, params, result.boundary, 1))
        return len(self.places) - 1

    @property
    def order(self) -> list[int]:
        """The numbers of the places, the highest first."""
        return sorted(range(len(self.places)), key=lambda i: -self.places[i].value)

    def settled(self, climb: Climb, place: int | None) -> Climb:
        """Return the climb with what is known when all have ended."""
        if not self.places:
            return climb
        best = self.places[self.order[0]].value
        optimum = None if place is None else self.order.index(place)
        gap = best - climb.value
        return climb._replace(gap=gap, optimum=optimum, reached=optimum == 0 and gap <= ARRIVED * max(1.0, abs(best)))

    def optima(self) -> tuple[Optimum, ...]:
        places = [self.places[i] for i in self.order]
        return tuple(Optimum(p.value, p.climbs, self.model.to_user(p.params), p.boundary) for p in places)


def _climb(problem: str, start: int, solver: str, r: Result) -> Climb:
    return Climb(
        problem, start, solver, r.value, math.nan, None, False, r.passes, r.hessian_passes, r.steps, r.seconds, r.status
    )


def _following(label: str, callback: Callable[[str, Step], Any] | None) -> Callable[[Step], Any] | None:
    return None if callback is None else lambda step: callback(label, step)


def _quartiles(numbers: list[float]) -> tuple[float, float, float]:
    return tuple(np.percentile(numbers, [25, 50, 75]).tolist()) if numbers else (math.nan,) * 3


def _number(x: float, form: str) -> str:
    return format(x, form) if math.isfinite(x) else "-"


def _spread(quartiles: tuple[float, float, float], form: str) -> str:
    low, median, high = (_number(x, form) for x in quartiles)
    return median if median == "-" or low == high else f"{median} [{low}, {high}]"


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"
