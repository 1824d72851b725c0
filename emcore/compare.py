"""The race between solvers: every one from the same start, on the same objective, counted in passes over the data.

A pass gives the value, the gradient and the EM update at once, so passes are the currency in which an EM step and a gradient
step cost the same. Seconds stand beside: they include the overhead of Python, which small data make the larger part.
"""

from __future__ import annotations

import math
import os
import platform
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emcore import solvers as registry
from emcore._checks import listener, whole
from emcore.fit import SAME_PLACE, Fit, checked_stop, finish, generators, prepare
from emcore.models import Prior
from emcore.objective import ModelObjective
from emcore.result import Breakdown, Status, Stop, no_value, require, rounding
from emcore.solve import Step, solve
from emcore.starts import starting_point

if TYPE_CHECKING:
    from emcore.data import DataSource
    from emcore.diagnostics import Relation
    from emcore.models import Model
    from emcore.objective import Point
    from emcore.solvers import Solver

__all__ = ["TOLERANCE", "Comparison", "Row", "compare"]

SOLVERS = ("em", "gradient", "cg", "lbfgs", "auto")
ALL = "all"  # asks for every solver that the model provides for
TOLERANCE = 1e-6  # the common yardstick: this close to the best log-likelihood per unit weight counts as arrived
YARDSTICK = "1e-6"
WIDTH = 110  # of remarks and verdict, in characters
PATH_POINTS = 1024  # a recorded path is thinned beyond twice this

SHORT = {
    Status.GAIN: "converged (gain)",
    Status.GRADIENT: "converged (gradient)",
    Status.VALUE: "converged (value)",
    Status.STEP: "converged (step)",
    Status.RESIDUAL: "converged (EM step)",
    Status.AITKEN: "converged (Aitken)",
    Status.ROUNDING: "converged (rounding)",
    Status.REST: "converged (at rest)",
    Status.BOUNDARY: "converged (boundary)",
    Status.MAX_PASSES: "out of passes",
    Status.MAX_SECONDS: "out of time",
    Status.CALLBACK: "stopped by callback",
    Status.INTERRUPTED: "interrupted",
    Status.NO_ASCENT: "failed: no ascent",
    Status.DECREASED: "failed: value fell",
    Status.COLLAPSED: "failed: collapsed",
    Status.NON_FINITE: "failed: not finite",
    Status.OUTSIDE: "failed: outside",
    Status.DIVERGED: "failed: diverged",
}


class Row(NamedTuple):
    """One solver of a race; NaN or None where it was not run or did not get there.

    Attributes
    ----------
    solver : str
    log_likelihood : float
        Sum over the data.
    gap : float
        How far below the best log-likelihood of the race it ended, per unit of weight.
    passes, steps, seconds : float, int, float
    arrival : float
        Passes after which the gap stays below `TOLERANCE`, NaN where it never does.
    status : Status or None
    note : str
        The status in two words.
    """

    solver: str
    log_likelihood: float = math.nan
    gap: float = math.nan
    passes: float = math.nan
    steps: int = 0
    seconds: float = math.nan
    arrival: float = math.nan
    status: Status | None = None
    note: str = "not run"


@dataclass(frozen=True)
class Comparison:
    """The outcome of `compare`: prints as a table and a verdict.

    Attributes
    ----------
    fits : dict of str to Fit
        By solver, in the order in which they were asked for; those that were not run are missing.
    labels : tuple of str
        All solvers asked for.
    model : Model
        Bound to the data.
    start : str
        How the common start was found, in words.
    start_params : named tuple
        The common start, in the user's units.
    interrupted : bool
        Whether Ctrl-C ended the race or the measurements after it.
    relation : Relation or None
        What EM and the gradient have to do with each other at the best fit.
    unmeasured : str
        Why `relation` could not be measured, where it was tried in vain.
    paths : dict of str to ndarray (m, k, d)
        Means of the components along each climb, thinned, in the user's units; for data of two columns only.
    left_out : tuple of str
        Of ``solvers="all"``, those that the model does not provide for.
    """

    fits: dict[str, Fit]
    labels: tuple[str, ...]
    model: Model
    source: DataSource = field(repr=False)
    start: str = ""
    start_params: Any = field(default=None, repr=False)
    stop: Stop = field(default_factory=Stop)
    options: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    relation: Relation | None = None
    unmeasured: str = ""
    paths: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    left_out: tuple[str, ...] = ()

    @property
    def best(self) -> Fit:
        """The fit of the highest log-likelihood that did not end in a failure, or of all when all did."""
        return max(self.fits.values(), key=lambda f: (not f.status.failed, f.value))

    @property
    def best_value(self) -> float:
        """The highest log-likelihood per unit of weight on any climb that did not end in a failure (of all, when all did)."""
        sound = [f for f in self.fits.values() if not f.status.failed] or list(self.fits.values())
        return max(float(f.trace.value.max()) for f in sound)

    @property
    def unit(self) -> str:
        """What log-likelihoods are divided by, in words."""
        return "row" if self.source.weight == self.source.n_rows else "unit of weight"

    @property
    def floor(self) -> float:
        """The gap that cannot be told from rounding."""
        return rounding(self.best.evaluation.scale)

    def gaps(self, label: str) -> NDArray[np.float64]:
        """Return how far below the best value each point of a climb was, per unit of weight, (steps + 1,)."""
        return self.best_value - self.fits[label].trace.value

    def rows(self) -> list[Row]:
        """Return the values of the table, in the order in which the solvers were asked for."""
        return [self._row(label) for label in self.labels]

    def arrival(self, label: str, tolerance: float = TOLERANCE) -> float:
        """Return the passes after which the gap of a climb stays at most at the tolerance, NaN where it never does."""
        fit, gaps = self.fits[label], self.gaps(label)
        away = np.flatnonzero(gaps > tolerance)
        first = away[-1] + 1 if len(away) else 0
        return float(fit.trace.passes[first]) if first < len(gaps) and not fit.status.failed else math.nan

    def _row(self, label: str) -> Row:
        fit = self.fits.get(label)
        if fit is None:
            return Row(label)
        return Row(
            label, fit.log_likelihood, float(self.gaps(label)[-1]), fit.passes, fit.steps, fit.seconds, self.arrival(label),
            fit.status, SHORT.get(fit.status, fit.status.name.lower()),
        )  # fmt: skip

    @property
    def remarks(self) -> list[str]:
        """What the table says, in sentences: who came first, who ended elsewhere, who did not converge."""
        rows = [r for r in self.rows() if r.status is not None]
        out = []
        arrived = sorted((r for r in rows if r.solver in self.arrivals), key=lambda r: r.arrival)
        if self.best.status in (Status.MAX_PASSES, Status.MAX_SECONDS):
            out.append("The best value is no optimum yet: the solver that got farthest ran out of its budget.")
        elif arrived and self.relation is None:  # else the verdict says it
            first = [r.solver for r in arrived if r.arrival == arrived[0].arrival]
            rest = [f"{r.solver} {r.arrival:g}" for r in arrived[len(first) :]]
            then = f"; then {', '.join(rest)}" if rest else ""
            out.append(f"Fewest passes to the best optimum: {_listed(first)}, {arrived[0].arrival:g}{then}.")
        lower = [r for r in rows if r.status.ok and r.arrival != r.arrival]
        same = [r for r in lower if self.beside_best(r.solver)]
        other = [r for r in lower if r not in same]
        if other:
            where = _listed([f"{r.solver} ({r.gap:.3g} lower)" for r in other])
            out.append(f"Different optima: {where} ended in another optimum than the best; its passes do not compare.")
        if same:
            where = _listed([f"{r.solver} (gap {r.gap:.1e})" for r in same])
            out.append(f"Stopped short of the best optimum by their own rule: {where}; a smaller tolerance brings them nearer.")
        unfinished = [r for r in rows if not r.status.ok and not r.status.failed]
        if unfinished:
            where = _listed([f"{r.solver} ({r.note}, gap {_gap(r.gap, self.floor)})" for r in unfinished])
            out.append(f"Did not converge: {where}.")
        out += [f"{r.solver}: {self.fits[r.solver].failure or r.status.value}" for r in rows if r.status.failed]
        if self.best.boundary:
            out.append(f"The best fit lies at the boundary of the parameter space: {'; '.join(self.best.boundary)}.")
        missing = [label for label in self.labels if label not in self.fits]
        if missing:
            out.append(f"Interrupted before {_listed(missing)} {'was' if len(missing) == 1 else 'were'} run.")
        if self.left_out:
            out.append(f"Left out, as they need what the model does not provide: {_listed(list(self.left_out))}.")
        if self.unmeasured:
            out.append(self.unmeasured)
        return out

    def beside_best(self, label: str) -> bool:
        """Tell whether a climb ended in the place of the best fit, up to relabelling."""
        return self.model.distance(self.best.point.params, self.fits[label].point.params) <= SAME_PLACE

    @property
    def arrivals(self) -> dict[str, float]:
        """Passes that each solver took to the best optimum, of those that reached it; empty when there was no race to it."""
        arrivals = {r.solver: r.arrival for r in self.rows() if r.arrival == r.arrival}
        return arrivals if self.best.status.ok and len(self.fits) > 1 else {}

    @property
    def verdict(self) -> str:
        """How fast EM and gradient ascent can be at the best fit, and which solver to use, in plain sentences; else empty."""
        if self.relation is None:
            return ""
        return self.relation.verdict(self.arrivals)

    def diagnosed(self) -> Comparison:
        """Return the comparison with `relation` measured at the best fit, which takes some passes; unchanged after Ctrl-C."""
        from emcore.diagnostics import relation

        best = self.best
        if self.relation is not None or self.interrupted or best.status.failed:
            return self
        objective = ModelObjective(
            self.model, self.source, coordinates=self.options["coordinates"], n_threads=self.options["n_threads"]
        )
        if not {"em", "gradient", "metric"} <= objective.capabilities:
            return self
        raced = sum(fit.passes for fit in self.fits.values())
        try:
            # A dense Hessian takes two passes a parameter: no more than the race itself, and at least what is never much.
            return replace(self, relation=relation(objective, best.evaluation, limit=int(min(200, max(50, raced / 2)))))
        except KeyboardInterrupt:
            return replace(self, interrupted=True)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:  # the race is not lost for that
            return replace(self, unmeasured=f"The verdict could not be measured: {error}")

    def title(self) -> str:
        """Return model and data, in one line."""
        rows, columns = self.source.n_rows, self.source.n_columns
        return f"{self.model} on {rows} row{'s' * (rows > 1)} x {columns} column{'s' * (columns > 1)}"

    def lines(self) -> list[str]:
        """Return the table and the remarks, line by line, without the verdict."""
        head = ("solver", "log-likelihood", "gap", "passes", "steps", "seconds", f"to {YARDSTICK}", "status")
        cells = [head] + [
            (
                r.solver, _number(r.log_likelihood, ".6f"), _gap(r.gap, self.floor), _number(r.passes, "g"),
                str(r.steps) if r.status else "-", _number(r.seconds, ".3g"), _number(r.arrival, "g"), r.note,
            )
            for r in self.rows()
        ]  # fmt: skip
        return [
            self.title(),
            f"All from the same start: {self.start}. At most {self.stop.max_passes:g} passes each.",
            "",
            *tabulated(cells, left=(0, len(head) - 1)),
            "",
            f"gap: to the best log-likelihood, per {self.unit}; to {YARDSTICK}: passes until the gap stays below that.",
            "One pass costs the same for every solver; seconds include the overhead of Python.",
            *(["With the prior, a gap is of log-likelihood and log prior together."] if self.model.has_prior else []),
            *(line for remark in (*self._apart(), *self.remarks) for line in textwrap.wrap(remark, WIDTH)),
        ]

    def _apart(self) -> tuple[str, ...]:
        """Return what the passes do not say: those for Hessian products, which cost several others each, and for monitoring."""
        apart = {"Hessian products": "hessian_passes", "monitoring": "monitor_passes"}
        counted = {what: {label: getattr(f, name) for label, f in self.fits.items()} for what, name in apart.items()}
        return tuple(
            f"Not among the passes, those for {what}: {', '.join(f'{label} {n:g}' for label, n in each.items() if n)}."
            for what, each in counted.items()
            if any(each.values())
        )

    def __str__(self) -> str:
        verdict = self.verdict
        return "\n".join(self.lines() + (["", *textwrap.wrap(f"Verdict: {verdict}", WIDTH)] if verdict else []))

    def plot(self, path: str | os.PathLike[str], *, names: Iterable[str] | None = None, title: str | None = None) -> None:
        """Write the picture of the race: gap against passes and seconds, and for one or two columns the data and the fit.

        Parameters
        ----------
        path : path
            Its extension tells the format: .png, .svg or .pdf. An existing file is replaced in one move.
        names : iterable of str, optional
            Names of the columns, for the axes.
        title : str, optional
            In place of model and data.

        Raises
        ------
        ValueError
            When the extension is another.
        ImportError
            When matplotlib is not installed.
        """
        from emcore import plot

        plot.check(path)
        plot.save(plot.race(self, names=names, title=title), path)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types, None in the place of NaN and infinities."""
        rows = {r.solver: r for r in self.rows()}
        solvers = {}
        for label in self.labels:
            row, fit = rows[label], self.fits.get(label)
            solvers[label] = {"note": row.note}
            if fit is None:
                continue
            failure = fit.failure and {
                "status": fit.failure.status.name, "where": fit.failure.where, "step": fit.failure.step,
                "detail": fit.failure.detail,
            }  # fmt: skip
            solvers[label] |= {
                "status": fit.status.name, "message": fit.status.value, "converged": fit.status.ok, "failure": failure,
                "boundary": fit.boundary, "log_likelihood": fit.log_likelihood, "value": fit.value, "gap": row.gap,
                "passes": fit.passes, "hessian_passes": fit.hessian_passes, "monitor_passes": fit.monitor_passes,
                "steps": fit.steps, "seconds": fit.seconds, "passes_to_tolerance": row.arrival,
                "measures": fit.measures._asdict(), "params": fit.params._asdict(), "theta": fit.theta,
                "trace": {name: getattr(fit.trace, name) for name in fit.trace.dtype.names},
            }  # fmt: skip
        return plain(
            {
                "format": "emcore comparison 1",
                "versions": versions(),
                "model": {"name": self.model.name, "options": self.model.options},
                "data": {"rows": self.source.n_rows, "columns": self.source.n_columns, "weight": self.source.weight},
                "options": {**self.options, "stop": {f.name: getattr(self.stop, f.name) for f in fields(Stop)}},
                "start": {"how": self.start, "params": self.start_params._asdict()},
                "tolerance": TOLERANCE,
                "best": next(label for label, fit in self.fits.items() if fit is self.best),
                "best_value": self.best_value,
                "solvers": solvers,
                "left_out": self.left_out,
                "remarks": self.remarks,
                "verdict": self.verdict or None,
                "relation": None if self.relation is None else self.relation.lines(),
            }
        )


def compare(
    model: Model,
    X: ArrayLike | tuple[ArrayLike, ArrayLike] | DataSource,
    *,
    solvers: str | Iterable[str | Solver[Any]] = SOLVERS,
    stop: Stop | None = None,
    start: str | Mapping[str, ArrayLike] = "auto",
    n_starts: int = 1,
    sample_weight: ArrayLike | None = None,
    random_state: int | np.random.Generator | None = None,
    n_threads: int | None = None,
    coordinates: str = "free",
    diagnose: bool = True,
    callback: Callable[[str, Step], Any] | None = None,
    fixed: Any = None,
    record: bool = False,
) -> Comparison:
    """Race solvers against each other: each climbs from the same start, and none knows of the others.

    Several starts, or several data sets, are a study: `emcore.study`, see Notes.

    Parameters
    ----------
    model : Model
        For example ``emcore.models.GaussianMixture(2, covariance="full")``.
    X : array_like (n, d), tuple (X, y) or DataSource
    solvers : "all", or iterable of str or Solver
        Names of `emcore.solvers.names`, or instances with options; "all" are all of these names that the model provides for.
    stop : Stop, optional
        Stopping rules and budgets of each solver; ``Stop(max_passes=1000)`` by default.
    start : str or mapping
        One of `emcore.starts.STARTS`, or parameters by name in the user's units.
    n_starts : int
        1: a race has one start. `emcore.study` takes more, see Notes.
    sample_weight : array_like (n,), optional
        Weights >= 0; 0 is the row dropped, a whole number the row repeated.
    random_state : int or Generator, optional
        Seed of the start: the same as the first start of `emcore.fit`.
    n_threads : int, optional
        Threads of a pass, at most: passes at once, in several Python threads, share the CPUs. The result does not depend on it,
        to the last bit.
    coordinates : {"free", "original"}
        What gradient solvers move in. EM does not care.
    diagnose : bool
        Whether to measure at the best fit how fast EM and gradient ascent must converge there, which takes some passes.
    callback : callable, optional
        Called with the label of a solver and a `Step` at its start and after each of its steps; a true return value ends
        the climb of that solver.
    fixed : mapping of name to array_like of bool, optional
        Which entries of the parameters do not move, as in `emcore.fit`; `start` gives their values.
    record : bool
        Whether the traces are to hold everything, as in `emcore.fit`: no pass more, but time that counts in the seconds.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what is wrong, and what is allowed; before the first pass where that can be known.

    Notes
    -----
    From 20 starts, with how often and how fast each solver reaches the best optimum and what values the others ended at:
    ``emcore.study({"data": (model, X)}, solvers=solvers, n_starts=20)``; each data set more is an entry more. Weights,
    parameters to start from and what is fixed go with it: ``{"data": {"model": model, "X": X, "sample_weight": w}}``.

    A solver that breaks down is a row of the table with its status, no exception. Ctrl-C ends the race and returns what was
    raced so far.
    """
    runners = runners_of(solvers)
    listener(callback)
    stop = Stop(max_passes=1000) if stop is None else checked_stop(stop)
    if whole("n_starts", n_starts) > 1:
        raise ValueError(
            f"n_starts must be 1, got {n_starts}: compare is a race from one start. From several, on one data set or more: "
            f"emcore.study({{'data': (model, X)}}, solvers=..., n_starts={n_starts})"
        )
    (rng,) = generators(random_state, 1)
    objective = prepare(
        model, X, sample_weight=sample_weight, n_threads=n_threads, coordinates=coordinates, fixed=fixed, start=start
    )
    runners, left_out = provided(solvers, runners, [objective])
    at, how = starting_point(objective, start, rng)
    given = None if isinstance(start, str) else start
    warm_up(objective, at)

    fits: dict[str, Fit] = {}
    paths: dict[str, NDArray[np.float64]] = {}
    for label, solver in runners.items():
        path = _Path(objective, at)
        try:
            result = solve(objective, solver, at, stop=stop, callback=_following(label, path, callback), record=record)
        except KeyboardInterrupt:  # before the start of this one was evaluated
            if not fits:
                raise
            break
        fits[label] = finish(objective, result, how, given)
        if path.wanted:
            paths[label] = path.means()
        if result.status is Status.INTERRUPTED:
            break
    interrupted = len(fits) < len(runners) or any(f.status is Status.INTERRUPTED for f in fits.values())
    options = {
        "solvers": list(runners), "coordinates": coordinates, "n_threads": objective.n_threads,
        "random_state": None if isinstance(random_state, np.random.Generator) else random_state,
    }  # fmt: skip
    race = Comparison(
        fits, tuple(runners), objective.model, objective.source, start=how, start_params=objective.model.to_user(at.params),
        stop=stop, options=options, interrupted=interrupted, paths=paths, left_out=left_out,
    )  # fmt: skip
    return race.diagnosed() if diagnose else race


def runners_of(solvers: Any) -> dict[str, Solver[Any]]:
    """Return the solvers by label; those that are described alike are numbered."""
    if isinstance(solvers, str) and solvers == ALL:
        solvers = registry.names()
    elif isinstance(solvers, (str, registry.Solver)):
        solvers = (solvers,)
    if not isinstance(solvers, Iterable):
        raise TypeError(f"solvers must be names or Solvers, got {solvers!r}")
    given = [registry.get(solver) for solver in solvers]
    if not given:
        raise ValueError(f"solvers is empty: name at least one of {', '.join(map(repr, registry.names()))}")
    runners: dict[str, Solver[Any]] = {}
    for solver in given:
        label, count = solver.describe(), 1
        while label in runners:
            count += 1
            label = f"{solver.describe()} #{count}"
        runners[label] = solver
    return runners


def provided(
    asked: Any, runners: Mapping[str, Solver[Any]], objectives: Sequence[ModelObjective]
) -> tuple[dict[str, Solver[Any]], tuple[str, ...]]:
    """Return the solvers that run on all objectives, and the labels of those left out: only where all were asked for.

    Raises
    ------
    ValueError
        When a model does not provide what a solver needs that was asked for by name.
    """
    able, left_out = {}, []
    for label, solver in runners.items():
        try:
            for objective in objectives:
                require(objective, solver.needs, f"solver {solver.name!r}", moving_support=solver.moving_support)
            able[label] = solver
        except ValueError:
            if not (isinstance(asked, str) and asked == ALL):
                raise
            left_out.append(label)
    return able, tuple(left_out)


def warm_up(objective: ModelObjective, at: Point) -> None:
    """Evaluate the start once, uncounted: what only a first pass pays for (threads, imports, pages) burdens no solver."""
    with objective.monitoring():
        first = objective.evaluate(at)
    if first.failure is not None:
        raise no_value(objective, "start", first.failure)
    with suppress(Breakdown):  # no M-step from here: each solver will say so in its row
        first.gain  # noqa: B018
        if not objective.moving_support:
            first.gradient  # noqa: B018


class _Path:
    """The points of a climb, every second one dropped whenever they become too many; kept for two columns only."""

    def __init__(self, objective: ModelObjective, at: Point):
        self.model = objective.model
        self.wanted = objective.source.n_columns == 2 and any(f.name == "means" for f in self.model.fields)
        self.points = [at]
        self.last = at
        self.every = 1
        self.seen = 1

    def add(self, point: Point) -> None:
        if point is self.last:
            return
        self.last = point
        if self.seen % self.every == 0:
            self.points.append(point)
        self.seen += 1
        if len(self.points) > 2 * PATH_POINTS:
            self.points = self.points[::2]
            self.every *= 2

    def means(self) -> NDArray[np.float64]:
        """Return the means along the path, (m, k, d), the last one always."""
        points = self.points if self.points[-1] is self.last else [*self.points, self.last]
        return np.stack([self.model.to_user(p.params).means for p in points])


def _following(label: str, path: _Path, callback: Callable[[str, Step], Any] | None) -> Callable[[Step], Any] | None:
    """Return a callback that notes the path and passes the step on; None where nobody listens."""
    if not path.wanted and callback is None:
        return None

    def follow(step: Step) -> Any:
        if path.wanted:
            path.add(step.evaluation.point)
        return callback(label, step) if callback is not None else None

    return follow


def tabulated(cells: list[tuple[str, ...]], *, left: tuple[int, ...]) -> list[str]:
    """Return the lines of a table whose first row is the head; columns are flush right but those named."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [str.ljust if j in left else str.rjust for j in range(len(widths))]
    rows = [cells[0], tuple("-" * w for w in widths), *cells[1:]]
    return ["  ".join(side(c, w) for side, c, w in zip(sides, row, widths, strict=True)).rstrip() for row in rows]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _number(x: float, form: str) -> str:
    return format(x, form) if math.isfinite(x) else "-"


def _gap(x: float, floor: float) -> str:
    return "-" if not math.isfinite(x) else "0" if abs(x) <= floor else f"{x:.1e}"


def versions() -> dict[str, str]:
    """Return what numbers may depend on."""
    from importlib.metadata import version

    return {"emcore": version("emcore"), "numpy": np.__version__, "python": platform.python_version()}


def plain(x: Any) -> Any:
    """Return x in plain JSON types."""
    if isinstance(x, Prior):
        return plain(x.plain())
    if isinstance(x, Mapping):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    if isinstance(x, np.ndarray):
        return plain(x.tolist())
    if isinstance(x, np.generic):
        return plain(x.item())
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    return x
