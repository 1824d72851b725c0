"""Fit a model to data: starts, climbs, and a result that knows its model."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emcore import _kept, models, solvers
from emcore._checks import listener, whole
from emcore.data import Block, DataSource, as_source, fingerprint
from emcore.kernels import run, thread_count
from emcore.objective import ModelObjective, Point
from emcore.result import Result, Status, Stop
from emcore.solve import Step, solve, warn_unconverged
from emcore.starts import starting_point

if TYPE_CHECKING:
    from emcore.models import Model
    from emcore.solvers import Solver, State

__all__ = ["Fit", "Start", "finish", "fit", "load", "prepare"]

SAME_VALUE = 1e-7  # relative; two starts that agree to this
SAME_PLACE = 1e-2  # and, up to relabelling, to this in frame units, reached the same optimum


class Start(NamedTuple):
    """One of several starts, and where it led.

    Attributes
    ----------
    how : str
    value : float
        Mean log-likelihood per unit of weight reached.
    status : Status
    passes, seconds : float
    boundary : tuple of str
    best : bool
        Whether it reached the best optimum found, up to relabelling.
    params : named tuple
        In the user's units.
    """

    how: str
    value: float
    status: Status
    passes: float
    seconds: float
    boundary: tuple[str, ...]
    best: bool
    params: Any


@dataclass(frozen=True)
class Fit(_kept.Kept):
    """A result that knows its model: parameters in the user's units, densities of new rows, files.

    Attributes
    ----------
    model : Model
        Bound to the data.
    params : named tuple of ndarray
        In the user's units, for example ``weights`` (k,), ``means`` (k, d), ``covariances``.
    start : str
        How the climb was started.
    starts : tuple of Start
        All the starts, the value of each kept.

    log_prior : float
        Logarithm of the prior density of the parameters; 0 for a model without priors.

    And what a `Result` has: ``theta``, ``value`` (with the prior's share), ``log_likelihood`` (without), ``status``,
    ``failure``, ``passes``, ``steps``, ``seconds``, ``trace``.
    """

    model: Model = field(kw_only=True)
    params: Any = field(kw_only=True, repr=False)
    starts: tuple[Start, ...] = field(default=(), kw_only=True, repr=False)
    n_threads: int = field(default=1, kw_only=True, repr=False, compare=False)
    _data: str = field(default="", kw_only=True, repr=False, compare=False)  # fingerprint, of a fit from a file

    @property
    def log_prior(self) -> float:
        """Logarithm of the prior density of the parameters, in the user's units; 0 for a model without priors."""
        return self.model.log_prior(self.point.params)

    @property
    def log_likelihood(self) -> float:
        """Sum of the log-likelihood over the data, without the prior."""
        return super().log_likelihood - self.log_prior if self.model.has_prior else super().log_likelihood

    def log_density(self, X: ArrayLike | tuple[ArrayLike, ArrayLike]) -> NDArray[np.float64]:
        """Return the log-density of each row of X (n, d), shape (n,), in the user's units.

        A model of responses takes (X, y), here and wherever rows are asked for, and the density is that of y given X.
        """
        source = self._source(X)
        out = np.empty(source.n_rows)
        self._each_block(source, lambda block, part: {"row_loglik": out[part]})
        return out

    def responsibilities(self, X: ArrayLike | tuple[ArrayLike, ArrayLike]) -> NDArray[np.float64]:
        """Return the posterior probability of each component for each row of X (n, d), shape (n, k).

        Raises
        ------
        ValueError
            When a row is so far from all components that its density is zero in floating point.
        """
        source = self._source(X)
        out = np.empty((source.n_rows, self.model.k))
        self._each_block(source, lambda block, part: {"resp": out[part]}, positive=True)
        return out

    def predict(self, X: ArrayLike | tuple[ArrayLike, ArrayLike]) -> NDArray[np.intp]:
        """Return the most probable component of each row of X (n, d), shape (n,); never all responsibilities at once."""
        source = self._source(X)
        out = np.empty(source.n_rows, dtype=np.intp)
        resp: list[tuple[slice, NDArray[np.float64]]] = []

        def target(block: Block, part: slice) -> dict[str, Any]:
            resp[:] = [(part, np.empty((len(block.rows[0]), self.model.k)))]
            return {"resp": resp[0][1]}

        def settle() -> None:
            part, r = resp[0]
            out[part] = r.argmax(axis=1)

        self._each_block(source, target, positive=True, then=settle)
        return out

    def predict_response(self, X: ArrayLike | DataSource) -> NDArray[np.float64]:
        """Return the expected response at each row of covariates X (n, d), shape (n,), in the user's units.

        The regressions of the components by their weights before a response is seen, ``sum_k P(k | x) E[y | x, k]``; NaN is a
        missing covariate to models that take it.

        Raises
        ------
        ValueError
            When the model has no responses or does not say what it expects of them, or X is not rows of its covariates alone,
            or has missing values that the model does not take.
        TypeError
            When X is no numeric matrix.
        """
        if not self.model.emission.n_responses:
            raise ValueError(f"{self.model.name} has no responses: `predict` tells the component of a row")
        if isinstance(X, tuple):
            raise ValueError("X must be covariates alone, (n, d), not a pair (X, y)")
        source = as_source(X, missing=self.model.takes_missing)
        if getattr(source, "n_responses", 0):
            raise ValueError("X must be covariates alone, (n, d), and this source holds responses too")
        self.model.check_missing(source)
        self._check_columns(source)
        out = np.empty(source.n_rows)
        for i in range(source.n_blocks):
            for part, piece in source.block(i).pieces(max(source.n_columns, self.model.k)):
                row0, rows = source.row_of(i, part.start), np.asarray(piece.rows[0], dtype=np.float64)
                out[row0 : row0 + len(rows)] = self.model.expected_response(self.params, rows)
        return out

    def standard_errors(self, *, robust: bool = False) -> Any:
        """Return the standard errors of `params`, in the user's units, a named tuple of arrays.

        Parameters
        ----------
        robust : bool
            By the sandwich of White (1982), which does not rely on the model; takes a slow pass, row by row.

        Raises
        ------
        ValueError
            When the climb did not end at a strict maximum inside the parameter space, or the fit was loaded from a file.

        Notes
        -----
        From the exact observed information by the delta method: `emcore.diagnostics.information`, which also has confidence
        intervals and the fractions of missing information.
        """
        from emcore.diagnostics import standard_errors

        return standard_errors(self, robust=robust)

    def sample(self, n: int, random_state: Any = None, *, X: ArrayLike | None = None) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Return n rows drawn from the fitted model, in the user's units, and their components (n,).

        Parameters
        ----------
        n : int
        random_state : int or Generator, optional
        X : array_like (n, d), optional
            What the rows are conditional on, where the model does not say how that is distributed.

        Raises
        ------
        ValueError, TypeError
            As `Model.sample` does.
        """
        return self.model.sample(self.params, n, generators(random_state, 1)[0], X=X)

    def _source(self, X: ArrayLike | tuple[ArrayLike, ArrayLike]) -> DataSource:
        source = as_source(X, missing=self.model.takes_missing)
        self.model.check_form(source)
        self._check_columns(source)
        self.model.emission.check(source)
        return source

    def _check_columns(self, source: DataSource) -> None:
        if source.n_columns != self.model.emission.d:
            raise ValueError(f"X must have {self.model.emission.d} columns, as the model was fitted on, got {source.n_columns}")

    def _each_block(
        self,
        source: DataSource,
        target: Callable[[Block, slice], dict[str, Any]],
        *,
        positive: bool = False,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        kernel = self.model.kernel(self.point.params)
        for i in range(source.n_blocks):
            for part, piece in source.block(i).pieces(max(source.n_columns, self.model.k)):
                row0 = source.row_of(i, part.start)
                rows = slice(row0, row0 + part.stop - part.start)
                done = run(kernel, piece, n_threads=self.n_threads, **target(piece, rows))
                if positive and done.bad_row >= 0:
                    raise ValueError(f"X: the density of row {row0 + done.bad_row} is zero under every component")
                then()

    @property
    def subject(self) -> str:
        """The model, in words."""
        return str(self.model)

    def lines(self) -> list[str]:
        out = super().lines()
        if self.model.has_prior:
            out.append(f"  log prior {self.log_prior:.6f}, a part of the value as the log-likelihood is")
        if len(self.starts) > 1:
            best = sum(s.best for s in self.starts)
            reached = f"{best} of {len(self.starts)} starts reached this optimum (up to relabelling)"
            out.append(f"  {reached}; values per unit weight:")
            for i, s in enumerate(self.starts):
                marks = "".join([" (the best)" if s.best else "", *(f"; {where}" for where in s.boundary)])
                out.append(f"    {i}: {s.value:.10f}, {s.passes:g} passes, {s.status.name.lower()}{marks}")
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to one file: plain arrays and a line of JSON in NumPy's npz format, no pickle.

        Parameters
        ----------
        path : path
            ``.npz`` is added when it has no suffix. An existing file is replaced in one move.

        Raises
        ------
        OSError
            When the file cannot be written. What the source of the data raises, where they can be read no more.

        Notes
        -----
        The file knows the data by a digest, by which `fit` tells whether a climb from it is gone on with. The digest is taken
        here, not when the fit was made: saving reads all data once, from a source that must still be there, and of data that
        were changed in place since it is the digest of what they are now.
        """
        meta = {
            "model": self.model.name,
            "options": self.model.options,
            "coordinates": self.point.coordinates,
            "data": _data_of(self),
        }
        arrays = {f"params.{n}": a for n, a in self.params._asdict().items()}
        arrays |= {f"frame.{n}": a for n, a in self.point.params._asdict().items()}
        arrays |= {f"bound.{n}": a for n, a in self.model.bound_state().items()}
        _kept.write(path, FORMAT, self, meta, arrays, plain=models.Prior.plain)


def _data_of(fitted: Fit) -> str:
    """Return the fingerprint of the data of a fit, which remembers them or came with it from a file."""
    return fitted._data or fingerprint(fitted.state.current.objective.source)


FORMAT, SAVED = "emcore fit 6", "a saved fit"


def load(path: str | os.PathLike[str], *, model: Model | None = None) -> Fit:
    """Return a fit that `Fit.save` wrote. Of several starts only the best was kept in the file.

    Parameters
    ----------
    path : path
    model : Model, optional
        What the fit is of, built again as it was: needed where it is made of functions or parts of your own, which a file
        cannot hold, as a `UserMixture` is.

    Raises
    ------
    ValueError
        When the file is not such a file (`Acceleration.load` reads those of climbs of `accelerate`), its model is not one of
        emcore's and not given, or another than the one given, or EMCORE_NUM_THREADS is no number of threads.
    OSError
        When it cannot be read.
    TypeError
        When `model` is none.
    """
    if not (model is None or isinstance(model, models.Model)):
        raise TypeError(f"model must be a Model, built as that of the fit was, got {model!r}")
    n_threads = thread_count(None)  # whose error says nothing about the file
    arrays, meta = _kept.read(path, FORMAT, SAVED)
    try:
        kind, options, coordinates = meta["model"], meta["options"], meta["coordinates"]
    except KeyError as error:
        raise _kept.not_saved(path, SAVED, error) from None
    if model is not None:
        given = json.loads(json.dumps(model.options, default=models.Prior.plain))
        if (model.name, given) != (kind, options):
            raise ValueError(f"model: {path} holds a fit of {kind} with the options {options}, got {model.name} with {given}")
    elif kind not in models.NAMES:
        raise ValueError(
            f"{path} holds a fit of {kind!r}, which is no model of emcore's but made of functions or parts of your own: a file "
            "cannot hold these. Build the model again and give it, emcore.load(path, model=...); or fit with start=, a mapping "
            "of the arrays that np.load(path) has as 'params.<name>'"
        )
    bound = None if model is None else _bound_again(path, model, arrays, coordinates)
    try:
        if bound is None:
            bound = models.build(kind, options).rebound(_under("bound.", arrays))
        return _loaded(arrays, meta, bound, n_threads)
    except Exception as error:
        raise _kept.not_saved(path, SAVED, error) from None


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays whose names begin so, by what follows."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _bound_again(
    path: str | os.PathLike[str], model: Model, arrays: Mapping[str, NDArray[Any]], coordinates: str
) -> Model:
    """Return a model of the caller's, bound as the arrays of a file say."""
    try:
        bound = model.rebound(_under("bound.", arrays))
        mine = {f.name: f.shape for f in bound.fields}
    except Exception as error:
        raise ValueError(
            f"model: {path} says not enough, or something else, to bind {model!r} again ({error}). A part of your own says "
            "with bound_state what binding fixed, and is bound to that by rebound"
        ) from error
    params = _under("frame.", arrays)
    theirs = {n: a.shape for n, a in params.items()}
    if list(mine.items()) != list(theirs.items()):
        raise ValueError(f"model: {path} holds the parameters {theirs}, those of the model given are {mine}")
    there = bound.coordinates(coordinates).forward(arrays["theta"])
    moved = [n for n, x in there._asdict().items() if not np.allclose(x, params[n], rtol=1e-6, atol=1e-9)]
    if moved:
        raise ValueError(f"model: {path} was written with {', '.join(moved)} in another space than the model given has")
    return bound


def _loaded(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], model: Model, n_threads: int) -> Fit:
    """Return the fit that the arrays and the line of JSON of a file describe, of a bound model."""
    params = model.params(**_under("params.", arrays))
    return Fit(
        **_kept.fields_of(arrays, meta),
        point=Point(
            model.coordinates(meta["coordinates"]), theta=arrays["theta"], params=model.params(**_under("frame.", arrays))
        ),
        moving_support=model.moving_support, model=model, params=params, n_threads=n_threads,
        _data=meta["data"],
    )  # fmt: skip


def prepare(
    model: Model,
    X: ArrayLike | tuple[ArrayLike, ArrayLike] | DataSource,
    *,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
    coordinates: str = "free",
    fixed: Any = None,
    start: Any = None,
) -> ModelObjective:
    """Return the objective of a model on data, everything checked; warns once about what the data are like.

    What is fixed has its values from the start.

    Raises
    ------
    ValueError, TypeError
    """
    if not isinstance(model, models.Model):
        raise TypeError(f"model must be a Model, such as emcore.models.GaussianMixture(2), got {model!r}")
    source = as_source(X, sample_weight, missing=model.takes_missing)
    objective = ModelObjective(
        model.bind(source, fixed=fixed, start=start), source, coordinates=coordinates, n_threads=n_threads
    )
    for text in objective.model.warnings():
        warnings.warn(text, UserWarning, stacklevel=3)
    return objective


def finish(objective: ModelObjective, result: Result, start: str, given: Any = None) -> Fit:
    """Return the result of a climb as one that knows its model.

    Parameters
    ----------
    given : mapping, optional
        The start in the user's units: returned as it came when no step was taken.
    """
    model = objective.model
    params = model.to_user(result.point.params)
    if hasattr(given, "_asdict"):
        given = given._asdict()
    if given is not None and result.steps == 0:
        params = model.params(**{name: np.array(given[name], dtype=np.float64) for name in params._fields})
    elif given is not None and model.fixed:  # to the last bit, which scaling to the frame and back may change
        exact = {name: np.where(mask, given[name], getattr(params, name)) for name, (mask, _) in model.fixed.items()}
        params = params._replace(**exact)
    known = {f.name: getattr(result, f.name) for f in fields(Result)}
    return Fit(**known, model=model, params=params, start=start, n_threads=objective.n_threads)


def fit(
    model: Model,
    X: ArrayLike | tuple[ArrayLike, ArrayLike] | DataSource,
    *,
    solver: str | Solver[Any] = "auto",
    stop: Stop | None = None,
    start: str | Mapping[str, ArrayLike] | Fit = "auto",
    n_starts: int = 1,
    sample_weight: ArrayLike | None = None,
    random_state: int | np.random.Generator | None = None,
    n_threads: int | None = None,
    coordinates: str = "free",
    callback: Callable[[Step], Any] | None = None,
    fixed: Any = None,
    record: bool = False,
) -> Fit:
    """Return the fit of a model to data by maximum likelihood.

    Parameters
    ----------
    model : Model
        For example ``emcore.models.GaussianMixture(3, covariance="full")``.
    X : array_like (n, d), tuple (X, y) or DataSource
        Rows; with their responses y, (n,) or (n, m), for a model of those.
    solver : str or Solver
        A name of `emcore.solvers.names`, or an instance with options. "auto" is EM while that is fast, then QN2; of a model
        without a gradient, EM alone.
    stop : Stop, optional
        Stopping rules and budgets.
    start : str, mapping or Fit
        One of `emcore.starts.STARTS`, or parameters by name in the user's units; these are returned unchanged when no
        step is taken (``stop=Stop(max_passes=1)``). An earlier fit, also one that `load` read: of the same model, data,
        coordinates and solver it is gone on with, to the bit in the same points and with no pass repeated (rules begin anew);
        otherwise its parameters are where to start. Passes and seconds are counted anew. An earlier fit in memory has not
        copied its data: do not change them in place before it is gone on with.
    n_starts : int
        How many starts to climb from; all values are kept, and the best fit is returned.
    sample_weight : array_like (n,), optional
        Weights >= 0; 0 is the row dropped, a whole number the row repeated. float64 is not copied.
    random_state : int or Generator, optional
        Seed of the starts.
    n_threads : int, optional
        Threads of a pass, at most: passes at once, in several Python threads, share the CPUs. The result does not depend on it,
        to the last bit.
    coordinates : {"free", "original"}
        What gradient solvers move in. EM does not care.
    callback : callable, optional
        Called with a `Step` at each start and after each step; a true return value ends that climb.
    fixed : mapping of name to array_like of bool, optional
        Which entries of the parameters do not move: for each name an array of the parameter's shape, or True for all of it.
        They keep the values that `start` gives them, which must be parameters then. The weights that are not fixed share
        what those fixed leave of 1; a covariance matrix can be fixed as a whole only.
    record : bool
        Whether the trace is to hold also the gradient and the lengths of steps that neither the solver nor a rule needs: no
        pass more, but some time a step.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what is wrong, and what is allowed.

    Warns
    -----
    ConvergenceWarning
        When the best climb ended by its budget or by a failure.
    UserWarning
        What a model has to say about the data, such as that a column of X is constant.

    Notes
    -----
    Ctrl-C ends the climb and returns what was reached. Bad numbers are a status with the last good point, not an exception.
    """
    solver, stop = solvers.get(solver), checked_stop(stop)
    whole("n_starts", n_starts)
    listener(callback)
    if n_starts > 1 and not isinstance(start, str):
        raise ValueError("n_starts must be 1 when start gives the parameters: every climb would be the same")
    rngs = generators(random_state, n_starts)
    given, earlier = (start.params, start) if isinstance(start, Fit) else (start, None)
    objective = prepare(
        model, X, sample_weight=sample_weight, n_threads=n_threads, coordinates=coordinates, fixed=fixed, start=given
    )
    state = None if earlier is None else _resumed(objective, solver, earlier)
    climbs: list[Fit] = []
    interrupted = False
    try:
        for rng in rngs:
            at, how = starting_point(objective, given, rng) if state is None else (state, "where that climb ended")
            result = solve(objective, solver, at, stop=stop, callback=callback, record=record)
            climbs.append(finish(objective, result, how, None if isinstance(given, str) else given))
            interrupted = result.status is Status.INTERRUPTED
            if interrupted:
                break
    except KeyboardInterrupt:
        if not climbs:  # nothing has been reached yet
            raise
        interrupted = True
    best = max(climbs, key=lambda c: (not c.status.failed, c.value))
    records = tuple(
        Start(c.start, c.value, c.status, c.passes, c.seconds, c.boundary, c is best or same_optimum(best, c), c.params)
        for c in climbs
    )
    warn_unconverged(best)
    return replace(best, starts=records, status=Status.INTERRUPTED if interrupted else best.status)


def _resumed(objective: ModelObjective, solver: Solver[Any], earlier: Fit) -> State | None:
    """Return the state in which an earlier climb ended, or None when it was another climb than this one would be."""
    state = _kept.state_arrays(earlier.state)
    same = (
        earlier.solver == solver.describe()
        and repr(earlier.model) == repr(objective.model)
        and earlier.point.coordinates == objective.coordinates.kind
        and float(state["current.weight"]) == objective.weight
        and objective.model.bound_like(earlier.model)
        and _same_data(earlier, objective.source)
    )
    return solver.state_type().restored(objective, state) if same else None


def _same_data(earlier: Fit, source: DataSource) -> bool:
    """Tell whether a fit is of the data of a source: by their digests, but where it is the same source in memory."""
    mine = None if earlier._data else earlier.state.current.objective.source
    return mine is source or _data_of(earlier) == fingerprint(source)


def checked_stop(stop: Any) -> Stop:
    if stop is None:
        return Stop()
    if not isinstance(stop, Stop):
        raise TypeError(f"stop must be a Stop, such as emcore.Stop(max_passes=100), got {stop!r}")
    return stop


def generators(random_state: Any, n: int) -> list[np.random.Generator]:
    if random_state is not None and not isinstance(random_state, (int, np.integer, np.random.Generator)):
        raise TypeError(f"random_state must be a whole number, a numpy Generator or None, got {random_state!r}")
    if isinstance(random_state, bool):
        raise TypeError(f"random_state must be a whole number, a numpy Generator or None, got {random_state!r}")
    if isinstance(random_state, (int, np.integer)) and random_state < 0:
        raise ValueError(f"random_state must be >= 0, got {random_state}")
    return np.random.default_rng(random_state).spawn(n)


def same_optimum(a: Fit, b: Fit) -> bool:
    """Tell whether two fits of one model reached the same optimum, up to relabelling of the components."""
    if abs(a.value - b.value) > SAME_VALUE * max(1.0, abs(a.value)):
        return False
    return a.model.distance(a.point.params, b.point.params) <= SAME_PLACE
