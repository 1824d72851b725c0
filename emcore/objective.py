"""The hill that solvers climb: one pass over the data gives value, gradient and EM update.

``evaluate`` is the only thing that touches the data, and the only thing that is counted. What it returns, an `Evaluation`, is
lazy: gradient, EM point and gain are computed from the sufficient statistics of that one pass when they are first asked
for, and never by another pass (Fisher's identity: the gradient of the log-likelihood is the gradient of the expected
complete-data log-likelihood at the same point).

Everything is maximised; ``value`` and ``gradient`` are means per unit of weight.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from emcore._cached import cached_property
from emcore._checks import whole
from emcore.data import ArraySource, DataSource
from emcore.kernels import all_finite, freeze, run, run_dot, serial_blas, thread_count, whole_information
from emcore.models import Coordinates, Field, Real
from emcore.result import MODEST, Breakdown, Failure, OutOfBudget, Status, require, rounding

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from emcore.models import Model

    Vector = NDArray[np.float64]

CONDITION = 64.0  # so much of `condition` is seen in the value, in units of its ordinary rounding: eps times it
TRACES = 32.0  # q adds up traces over columns: what is rounding of it is that of the value times so much and their number
SMOOTH = frozenset({"gradient", "metric", "tangent"})  # what Fisher's identity gives
NO_DENSITY = "Its density is zero or not a number."
MOVED = (
    " It had one at a point before: unless parameters ran to a limit, the support of the model depends on one of them, and "
    "gradients are then not those of the log-likelihood (Part.moving_support)."
)
WHOLE = 1e-9  # relative: thirty thirtieths of a pass are one pass, and of the data all of them

LARGEST = 1e150  # of a coordinate of somebody's map: beyond, squares overflow

__all__ = ["Evaluation", "MapObjective", "ModelObjective", "Objective", "Piece", "Point", "Stats", "unconstrained"]


class Stats(NamedTuple):
    """Expected sufficient statistics: one flat vector, the point they are centred about, the weight they stand for.

    Statistics of one origin add; `Model.recentre` brings others to it.
    """

    vector: Vector
    origin: Vector
    weight: float

    def __add__(self, other: Stats) -> Stats:  # type: ignore[override]
        if not np.array_equal(self.origin, other.origin):
            raise ValueError("statistics of different origins do not add: recentre them first")
        return Stats(self.vector + other.vector, self.origin, self.weight + other.weight)


class Piece(NamedTuple):
    """Some rows of the data: row `start` of a block of the source and every `step`-th after it; `of` pieces are the data."""

    block: int
    start: int
    step: int
    of: int


class Point:
    """A point of parameter space; coordinates and parameters are each computed from the other when first asked.

    EM goes from parameters to parameters and so never pays for a chart, nor loses a bit to it.
    """

    __slots__ = ("_coordinates", "_params", "_theta")

    def __init__(self, coordinates: Coordinates, *, theta: Vector | None = None, params: Any = None):
        self._coordinates, self._theta, self._params = coordinates, theta, params
        if theta is not None:
            freeze((theta,))
        if params is not None:
            freeze(params)

    @property
    def coordinates(self) -> str:
        """The kind of coordinates: "free" or "original"."""
        return self._coordinates.kind

    @property
    def theta(self) -> Vector:
        """Coordinates, (p,)."""
        if self._theta is None:
            self._theta = self._coordinates.inverse(self._params)
            freeze((self._theta,))
        return self._theta

    @property
    def has_theta(self) -> bool:
        """Whether the coordinates have been computed, or given, already."""
        return self._theta is not None

    @property
    def params(self) -> Any:
        """Parameters in frame units, a named tuple of arrays."""
        if self._params is None:
            self._params = self._coordinates.forward(self._theta)
            freeze(self._params)
        return self._params

    def __repr__(self) -> str:
        return f"Point({self.theta!r})"


class Evaluation:
    """All that one pass gives, each number computed when first asked for and never by another pass.

    Attributes
    ----------
    point : Point
    value : float
        Mean log-likelihood per unit of weight; -inf where it is not finite.
    scale : float
        Mean absolute log-density of a row: the size of the rounding of `value`.
    stats : Stats
    failure : Failure or None
        Why the value is not finite.
    """

    def __init__(
        self,
        objective: ModelObjective,
        point: Point,
        value: float,
        scale: float,
        stats: Stats | None,
        failure: Failure | None = None,
    ):
        self._objective, self.point = objective, point
        self.value, self.scale, self.stats, self.failure = value, scale, stats, failure

    def _need_stats(self) -> Stats:
        if self.stats is None:
            raise Breakdown(self.failure or Failure(Status.NON_FINITE))
        return self.stats

    def _need_support(self, what: str) -> None:
        if self._objective.moving_support:
            require(self._objective, frozenset(), what)

    @cached_property
    def gradient(self) -> Vector:
        """Gradient of `value` in the coordinates of the objective, (p,) (Fisher's identity).

        Raises
        ------
        SupportError
            When the support of the model depends on a parameter: that of q, `ModelObjective.gradient`, is not it then.
        """
        self._need_support("Evaluation.gradient")
        return self._objective.gradient(self.point, self._need_stats())

    @cached_property
    def em_point(self) -> Point:
        """Where the EM algorithm goes from here: the M-step of the statistics."""
        return self._objective.maximize(self.point, self._need_stats())

    @cached_property
    def gain(self) -> float:
        """The rise of `value` that the EM step is sure of, ``(q(em) - q(theta)) / W >= 0``; that of q alone if inexact.

        Raises
        ------
        Breakdown
            When the M-step lowers q by more than rounding, or q is not finite at one of its ends.
        """
        stats = self._need_stats()
        before = self._objective.q(self.point, stats)
        rise = self._objective.q(self.em_point, stats) - before
        return rise if 0.0 <= rise < math.inf else self._no_rise(rise, before)

    def _no_rise(self, rise: float, before: float) -> float:
        """Return 0 for a fall of q that is rounding; `noise` is costly, and so asked for by falls only."""
        if not math.isfinite(rise):
            raise Breakdown(Failure(Status.NON_FINITE, "M-step", detail="q is no finite number where it begins or leads."))
        beyond = max(abs(before), self._objective.condition(self.em_point) / CONDITION)
        if -rise > (TRACES + self._objective.source.n_columns) * max(self.noise, rounding(beyond)):
            detail = f"It lowers the expected complete-data log-likelihood by {-rise:.2e} per unit weight: it is no M-step."
            raise Breakdown(Failure(Status.DECREASED, "M-step", detail=detail))
        return 0.0

    @cached_property
    def noise(self) -> float:
        """The change of `value` that cannot be told from rounding: that of the sum, or of ill-conditioned parameters.

        The latter is no more than `MODEST`, or any fall would pass for rounding where a covariance is all but singular.
        """
        amplified = min(rounding(self._objective.condition(self.point) / CONDITION), MODEST)
        return max(rounding(self.scale), amplified, self._objective.coarseness(self.point) * max(1.0, self.scale))

    @cached_property
    def entropy(self) -> float:
        """Mean posterior entropy of the latent variables per unit of weight: ``value - q(theta)``."""
        return self.value - self._objective.q(self.point, self._need_stats())

    @property
    def objective(self) -> ModelObjective:
        """The objective whose evaluation this is."""
        return self._objective

    @property
    def known(self) -> Container[str]:
        """Which of `gradient`, `em_point`, `gain` and their like have been computed already."""
        return self.__dict__

    def precondition(self, v: Vector) -> Vector:
        """Return P v, v (p,) or (p, m), P being the metric of the EM step (Xu and Jordan 1996), in the objective's coordinates.

        For ``v = gradient`` this is the EM step to first order (exactly so for weights and means).

        Raises
        ------
        SupportError
            When the support of the model depends on a parameter: there is none then.
        """
        self._need_support("Evaluation.precondition")
        return self._objective.precondition(self.point, self._need_stats(), v)


class Objective(Protocol):
    """What a solver sees of the world."""

    capabilities: frozenset[str]
    size: int
    weight: float
    passes: float
    hessian_passes: float
    monitor_passes: float

    @property
    def inexact(self) -> str: ...  # what does not have it has an exact E-step
    def limit(self, max_passes: float, max_seconds: float) -> AbstractContextManager[None]: ...
    def climbing(self) -> AbstractContextManager[Any]: ...
    def monitoring(self) -> AbstractContextManager[None]: ...
    def point(self, theta: ArrayLike) -> Point: ...
    def evaluate(self, at: Point | ArrayLike, blocks: Any = None, near: Stats | None = None) -> Evaluation: ...
    def pieces(self, n: int) -> tuple[Any, ...]: ...
    def each(self, at: Point, pieces: Sequence[Any]) -> tuple[Evaluation, tuple[Evaluation, ...]]: ...
    def free_energy(self, at: Point, resp: Any = None, least: float = 0.0) -> tuple[Evaluation, NDArray[np.float64]]: ...
    def recentre(self, stats: Stats, origin: Vector) -> Stats: ...
    def maximize(self, at: Point, stats: Stats) -> Point: ...
    def q(self, at: Point, stats: Stats) -> float: ...
    def gradient(self, at: Point, stats: Stats) -> Vector: ...
    def precondition(self, at: Point, stats: Stats, v: Vector) -> Vector: ...
    def hvp(self, at: Evaluation, V: ArrayLike) -> NDArray[np.float64]: ...
    def q_hvp(self, at: Point, stats: Stats, V: ArrayLike) -> NDArray[np.float64]: ...
    def restore(
        self, theta: Vector, params: Mapping[str, Vector], stats: tuple[Vector, Vector, float], value: float, scale: float
    ) -> Evaluation: ...
    def boundary(self, at: Point) -> tuple[str, ...]: ...
    def condition(self, at: Point) -> float: ...


class _Counted:
    """What counts passes and keeps budgets, over coordinates of a given number."""

    coordinates: Coordinates
    size: int

    @property
    def inexact(self) -> str:
        """Why EM steps may lower the value, in words; "" where they cannot."""
        return ""

    def __init__(self) -> None:
        self.passes = self.hessian_passes = self.monitor_passes = 0.0
        self._max_passes, self._deadline, self._first_pass, self._monitoring = math.inf, math.inf, 0.0, False

    @contextmanager
    def limit(self, max_passes: float, max_seconds: float) -> Iterator[None]:
        """Allow so many passes and seconds from here on; one more raises `OutOfBudget`. The first pass is always allowed."""
        saved = self._max_passes, self._deadline, self._first_pass
        self._max_passes, self._deadline = self.passes + max_passes, time.perf_counter() + max_seconds
        self._first_pass = self.passes
        try:
            yield
        finally:
            self._max_passes, self._deadline, self._first_pass = saved

    def climbing(self) -> AbstractContextManager[Any]:
        """Return the context in which a climb is to run."""
        return nullcontext()

    @contextmanager
    def monitoring(self) -> Iterator[None]:
        """Count the passes inside as monitoring, apart from those of the solver."""
        saved, self._monitoring = self._monitoring, True
        try:
            yield
        finally:
            self._monitoring = saved

    def point(self, theta: ArrayLike) -> Point:
        """Return the point with these coordinates, (p,)."""
        try:
            theta = np.array(theta, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"theta must be coordinates, numbers of shape ({self.size},), got {theta!r}") from None
        if theta.shape != (self.size,):
            raise ValueError(f"theta must have shape ({self.size},), got {theta.shape}")
        return Point(self.coordinates, theta=theta)

    def _count(self, fraction: float, *, hessian: bool = False) -> None:
        if self._monitoring:
            self.monitor_passes += fraction
            return
        if not hessian and self.passes + fraction > self._max_passes * (1 + 1e-12):
            raise OutOfBudget(Status.MAX_PASSES)
        if time.perf_counter() > self._deadline and self.passes > self._first_pass:
            raise OutOfBudget(Status.MAX_SECONDS)
        if hessian:
            self.hessian_passes += fraction
            return
        total = self.passes + fraction
        nearest = float(round(total))
        self.passes = nearest if abs(total - nearest) < WHOLE else total


class ModelObjective(_Counted):
    """The mean log-likelihood of a model on data.

    Parameters
    ----------
    model : Model
        Bound to `source` here unless it is bound already.
    source : DataSource
        From `emcore.data.as_source`.
    coordinates : {"free", "original"}
        What theta is: unconstrained coordinates, or the parameters themselves (in frame units), whose gradient is
        projected on the tangent of their constraints.
    n_threads : int, optional
        Threads of a pass, at most: passes at once, in several Python threads, share the CPUs. The result does not depend on it,
        to the last bit.
    fixed, start : mapping, optional
        Which entries of the parameters do not move, and the parameters from which those have their values: as for
        `Model.bind`.

    Raises
    ------
    ValueError
        For unknown coordinates, a number of threads below 1, data that the model refuses, or what cannot be fixed.
    """

    def __init__(
        self,
        model: Model,
        source: DataSource,
        *,
        coordinates: str = "free",
        n_threads: int | None = None,
        fixed: Any = None,
        start: Any = None,
    ):
        if not isinstance(source, (ArraySource, DataSource)):  # of a protocol it takes 12 microseconds to tell
            raise TypeError(f"source must be a DataSource, as emcore.data.as_source(X) returns it, got {type(source).__name__}")
        if model.bound and fixed is not None:
            raise ValueError("fixed: the model is bound already; give it to its bind")
        super().__init__()
        self.model = model if model.bound else model.bind(source, fixed=fixed, start=start)
        self.source = source
        self.coordinates = self.model.coordinates(coordinates)
        self.n_threads = thread_count(n_threads)
        self.moving_support = self.model.moving_support
        self.capabilities = frozenset({"value", "blocks"}) | self.model.provides
        if self.moving_support:
            self.capabilities -= SMOOTH
        self._had_density = False  # every row, at a point before
        self._blocks = tuple(Piece(i, 0, 1, source.n_blocks) for i in range(source.n_blocks))
        self._pieces: dict[int, tuple[Piece, ...]] = {}
        self.size = self.coordinates.size
        self.weight = source.weight

    @property
    def inexact(self) -> str:
        """Why EM steps may lower the value, in words: the E-step is not that of the likelihood; "" where it is."""
        return self.model.inexact

    def climbing(self) -> AbstractContextManager[Any]:
        """Return a context in which the BLAS does not share work out, but where passes call functions of the user's."""
        users = self.model.latent.calls_user or self.model.emission.calls_user
        return nullcontext() if users else serial_blas(self.size)

    def point_of(self, params: Any) -> Point:
        """Return the point with these parameters in frame units, a named tuple of arrays."""
        if not all(a.flags.c_contiguous for a in params):
            params = type(params)(*map(np.ascontiguousarray, params))
        return Point(self.coordinates, params=params)

    def evaluate(self, at: Point | ArrayLike, blocks: Any = None, near: Stats | None = None) -> Evaluation:
        """Return all that one pass over the data (or over some of its blocks) gives at a point.

        Numbers that break are no exception: the evaluation then has value -inf and says why in `failure`.

        Parameters
        ----------
        at : Point or array_like (p,)
        blocks : sequence, optional
            Indices of blocks of the source, or some of `pieces`; all blocks by default. The pass is counted in part.
        near : Stats, optional
            With `blocks`: statistics of all of the data at a point nearby. A pass leaves out what such sums do not see; of
            a component that lives on less, which a piece of the data does not tell, all is kept.
        """
        point = at if isinstance(at, Point) else self.point(at)
        parts = self._blocks if blocks is None else [b if isinstance(b, Piece) else self._blocks[b] for b in blocks]
        kernel, failure = self._kernel(point)
        if failure is not None:
            return self._nowhere(point, failure)
        self._count(1.0 if blocks is None else sum(1 / part.of for part in parts))
        if blocks is not None and near is not None:
            kernel = kernel.retry(near.vector, near.weight) or kernel
        found = self._pass(point, kernel, parts)
        if blocks is None and found.stats is not None:
            # A component that lives on what was left out needs all of it: still the same E-step, counted once.
            kernel = kernel.retry(found.stats.vector, found.stats.weight)
            found = found if kernel is None else self._pass(point, kernel, parts)
        return found

    def pieces(self, n: int) -> tuple[Piece, ...]:
        """Return the data cut into about `n` pieces of positive weight, for `evaluate` and `each`.

        They are the blocks of the source where these are at least `n`; else parts of them, each with rows from all over
        its block, so that pieces look alike in whatever order the rows are. The weights of each block are read once.
        """
        if n not in self._pieces:
            found = []
            for i in range(self.source.n_blocks):
                block = self.source.block(i)
                most = len(block.rows[0]) if block.bounds is None else 1
                step = min(-(-n // self.source.n_blocks), most)
                weighted = (block.weights is None or block.weights[start::step].any() for start in range(step))
                found += [(i, start, step) for start, kept in enumerate(weighted) if kept]
            self._pieces[n] = tuple(Piece(*piece, of=len(found)) for piece in found)
        return self._pieces[n]

    def each(self, at: Point, pieces: Sequence[Piece]) -> tuple[Evaluation, tuple[Evaluation, ...]]:
        """Return what one pass over all of the `pieces` gives, together and apart.

        Where numbers break the first of the two has a `failure`, and the second may be incomplete.
        """
        kernel, failure = self._kernel(at)
        if failure is not None:
            return self._nowhere(at, failure), ()
        self._count(1.0)
        parts = self._apart(at, kernel, pieces)
        whole = self._together(at, parts)
        if whole.stats is not None:
            kernel = kernel.retry(whole.stats.vector, whole.stats.weight)
            if kernel is not None:
                parts = self._apart(at, kernel, pieces)
                whole = self._together(at, parts)
        return whole, tuple(parts)

    def free_energy(
        self, at: Point, resp: NDArray[np.float64] | None = None, least: float = 0.0
    ) -> tuple[Evaluation, NDArray[np.float64]]:
        """Return what one pass gives that infers the large responsibilities and holds the small ones, and the new ones.

        Parameters
        ----------
        at : Point
        resp : ndarray (n, k), optional
            The responsibilities so far, not needed where all are inferred.
        least : float
            Those of at least this size are inferred, within what the others leave of 1. 0: all of them.

        Returns
        -------
        Evaluation
            Its statistics are those of the new responsibilities, its value is the free energy of Neal and Hinton (1998): the
            log-likelihood less the divergence of the responsibilities from the posterior. With least = 0 it is `evaluate`'s.
        resp : ndarray (n, k)
            A new array; rows of weight 0 are as they were (all components alike at first).

        Raises
        ------
        ValueError
            When the model does not provide "sparse", or `resp` has another shape.

        Notes
        -----
        The one method that keeps something a row. Kernels compute densities for all components of a row together, so that
        such a pass costs what a pass of `Coupled` costs, however many responsibilities are held.
        """
        shape = self.source.n_rows, self.model.k
        resp = np.full(shape, 1 / shape[1]) if resp is None else np.array(resp, dtype=np.float64, order="C")
        if resp.shape != shape:
            raise ValueError(f"resp must have shape {shape}, got {resp.shape}")
        entropies, parts = np.zeros(len(resp)), []
        self._count(1.0)
        ends = [*(self.source.row_of(i, 0) for i in range(self.source.n_blocks)), self.source.n_rows]
        for piece, *rows in zip(self._blocks, ends, ends[1:], strict=False):
            try:
                kernel = self.model.sparse_kernel(at.params, resp[slice(*rows)], entropies[slice(*rows)], least)
            except Breakdown as broken:
                return self._nowhere(at, broken.failure), resp
            parts.append(self._pass(at, kernel, [piece]))
        whole = self._together(at, parts)
        if whole.stats is not None and least > 0:
            whole.value = self.q(at, whole.stats) + float(entropies.sum()) / whole.stats.weight
        return whole, resp

    def _apart(self, at: Point, kernel: Any, pieces: Sequence[Piece]) -> list[Evaluation]:
        """Return what the pieces give, up to the first that fails, uncounted."""
        parts = []
        for piece in pieces:
            parts.append(self._pass(at, kernel, [piece]))
            if parts[-1].stats is None:
                break
        return parts

    def _together(self, at: Point, parts: Sequence[Evaluation]) -> Evaluation:
        """Return the evaluation of all pieces together, or the first of them that failed."""
        for part in parts:
            if part.stats is None:
                return part
        stats = [part.stats for part in parts]
        weights = np.array([s.weight for s in stats])
        weight = float(weights.sum())
        whole = Stats(np.sum([s.vector for s in stats], axis=0), stats[0].origin, weight)
        value, scale = (float(weights @ [getattr(part, name) for part in parts]) / weight for name in ("value", "scale"))
        return Evaluation(self, at, value, scale, whole)

    def _kernel(self, point: Point) -> tuple[Any, Failure | None]:
        try:
            return self.model.kernel(point.params), None
        except Breakdown as broken:
            return None, broken.failure

    def _nowhere(self, point: Point, failure: Failure) -> Evaluation:
        return Evaluation(self, point, -math.inf, math.nan, None, failure)

    def _pass(self, point: Point, kernel: Any, parts: Sequence[Piece]) -> Evaluation:
        """Return what these parts of the data give, uncounted."""
        vector = np.zeros(self.model.layout.size)
        loglik, scale, weight = 0.0, 0.0, 0.0
        for part in parts:
            block = self.source.block(part.block)
            if part.step > 1:
                block = block.every(part.start, part.step)
            done = run(kernel, block, stats=vector, n_threads=self.n_threads)
            if done.bad_row >= 0:
                row = self.source.row_of(part.block, part.start + done.bad_row * part.step)
                return self._nowhere(
                    point, Failure(Status.NON_FINITE, f"row {row}", detail=NO_DENSITY + MOVED * self._had_density)
                )
            loglik += done.loglik
            scale += done.scale
            weight += done.weight
        if not weight > 0:
            raise ValueError("blocks: those given hold no row of positive weight")
        if not (math.isfinite(loglik) and all_finite(vector)):
            return self._nowhere(point, Failure(Status.NON_FINITE, detail="A sum over the data overflowed."))
        value = loglik / weight
        if self.model.has_prior:
            prior = self.model.log_prior(point.params) / self.weight
            if not math.isfinite(prior):
                failure = Failure(Status.NON_FINITE, detail="The density of the prior is zero or not a number.")
                return self._nowhere(point, failure)
            value, scale = value + prior, scale + weight * abs(prior)
        self._had_density = True
        return Evaluation(self, point, value, scale / weight, Stats(vector, self.model.origin(point.params), weight))

    def recentre(self, stats: Stats, origin: Vector) -> Stats:
        """Return the same statistics about another origin, that of other statistics, so that they add: no pass."""
        return self.model.recentre(stats, origin)

    def maximize(self, at: Point, stats: Stats) -> Point:
        """Return the M-step of the statistics: no pass."""
        return Point(self.coordinates, params=self.model.m_step(at.params, stats))

    def q(self, at: Point, stats: Stats) -> float:
        """Return the expected complete-data log-likelihood per unit of weight at a point: no pass."""
        return self.model.q(at.params, stats) / stats.weight

    def gradient(self, at: Point, stats: Stats) -> Vector:
        """Return the gradient of `q` at a point, (p,); the gradient of the value where the statistics come from there."""
        return self.coordinates.pull(at.theta, at.params, self.model.score(at.params, stats)) / stats.weight

    def precondition(self, at: Point, stats: Stats, v: Vector) -> Vector:
        """Return P v for v (p,) or (p, m) in the coordinates of the objective; not finite where these end (a weight of 0)."""
        c, theta, params = self.coordinates, at.theta, at.params

        def preconditioned(rows: Vector) -> Vector:
            g = c.pull_inverse(theta, params, rows)
            return c.push_inverse(theta, params, self.model.metric(params, stats, g)) * stats.weight

        try:
            with np.errstate(all="ignore"):
                return c.in_batches(preconditioned, v.T).T
        except np.linalg.LinAlgError:
            return np.full(v.shape, math.nan)

    def hvp(self, at: Evaluation, V: ArrayLike) -> NDArray[np.float64]:
        """Return the Hessian of the value times the columns of V, exactly: one pass, counted in `hessian_passes`.

        Parameters
        ----------
        at : Evaluation
            Of all the data.
        V : array_like (p,) or (p, m)
            Directions in the coordinates of the objective. In original coordinates they are projected on the tangent of the
            constraints, as the product is: the Hessian is that of the value on the constraints.

        Returns
        -------
        ndarray, of the shape of V

        Raises
        ------
        ValueError
            When the model does not provide "tangent", V has another shape, or the evaluation is of part of the data.
        Breakdown
            When a product is not finite.

        Notes
        -----
        The gradient is the score of the statistics, so its derivative is that of the score at held statistics (`linear_hvp`, no
        pass) plus the score of the statistics' own derivative, which one more pass gives (Oakes 1999): along v
        responsibilities change by ``h_k (s_k'v - sum_l h_l s_l'v)``, s being the scores of ``log p(x, k)``.
        """
        return self._second_order(at.point, self._stats_of_all(at), V, observed=True)

    def _stats_of_all(self, at: Evaluation) -> Stats:
        """Return the statistics of an evaluation that is of all the data."""
        stats = at._need_stats()
        if abs(stats.weight - self.weight) > WHOLE * self.weight:
            raise ValueError(f"at must be an evaluation of all the data, of weight {self.weight:g}, got {stats.weight:g}")
        return stats

    def q_hvp(self, at: Point, stats: Stats, V: ArrayLike) -> NDArray[np.float64]:
        """Return the Hessian of `q` at a point times the columns of V, statistics held: no pass.

        V, errors and shapes as in `hvp`. Where the statistics come from the point, its negative is the complete data's
        information; at a solution EM's metric is the inverse of that.
        """
        return self._second_order(at, stats, V, observed=False)

    def _second_order(self, at: Point, stats: Stats, V: ArrayLike, *, observed: bool) -> NDArray[np.float64]:
        if "tangent" not in self.capabilities:
            raise ValueError(f"{self.model} does not provide Hessian products ('tangent')")
        V = np.asarray(V, dtype=np.float64)
        if V.ndim not in (1, 2) or V.shape[0] != self.size:
            raise ValueError(f"V must have shape ({self.size},) or ({self.size}, m), got {V.shape}")
        if not V.size:
            return V.copy()
        c, model, theta, params = self.coordinates, self.model, at.theta, at.params
        score = model.score(params, stats)
        stats_dot = self._stats_dot(params, V.size // self.size) if observed else None

        def products(rows: Vector) -> Vector:
            directions = c.push(theta, params, rows)
            if stats_dot is None:
                g = model.q_hvp(params, stats, directions)
            else:
                dots = stats_dot([model.params(*v) for v in zip(*directions, strict=True)])
                g = model.linear_hvp(params, stats, directions)
                g = model.params(*map(np.add, g, model.linear_scores(params, stats, dots)))
            return c.pull(theta, params, g) + c.curvature(theta, params, score, rows)

        out = c.in_batches(products, V.reshape(self.size, -1).T)
        out /= stats.weight
        if not all_finite(out):
            raise Breakdown(Failure(Status.NON_FINITE, "Hessian product"))
        return out.T.reshape(V.shape)

    def _stats_dot(self, params: Any, m: int) -> Callable[[Sequence[Any]], NDArray[np.float64]]:
        """Return what gives the derivatives of the statistics of all data, origin held, along tangents, (some, n_stats).

        One pass, from which m directions in all are asked for. Each time reads the data again, but where the matrix of missing
        information is summed, which serves them all.
        """
        self._count(1.0, hessian=True)
        missing: list[NDArray[np.float64]] = []

        def summed(sums: NDArray[np.float64], add: Callable[[Any, NDArray[np.float64]], Any]) -> NDArray[np.float64]:
            for i in range(self.source.n_blocks):
                if add(self.source.block(i), sums).bad_row >= 0:
                    raise Breakdown(Failure(Status.NON_FINITE, "Hessian product"))
            return sums

        def along(directions: Sequence[Any]) -> NDArray[np.float64]:
            kernel, n_threads = self.model.tangent_kernel(params, directions), self.n_threads
            whole = whole_information(kernel, m)
            if whole is None:
                dots = np.zeros((len(directions), self.model.layout.size))
                return summed(dots, lambda block, sums: run_dot(kernel, block, sums, n_threads=n_threads))
            if not missing:
                sums = np.zeros(whole.n_stats)
                missing.append(summed(sums, lambda block, sums: run(whole, block, stats=sums, n_threads=n_threads)))
            return whole.dots(missing[0])

        return along

    def score_products(self, at: Evaluation) -> NDArray[np.float64]:
        """Return the covariance over the rows of s, the gradient of a row's log-density, (p, p): one pass, row by row.

        Its mean vanishes at a maximum of the log-likelihood, but not where a prior has moved the maximum. A row of weight w
        counts as w rows. Takes some ten microseconds a row, whatever the number of threads.
        """
        c, theta, params = self.coordinates, at.point.theta, at.point.params
        kernel, out, mean = self.model.kernel(params), np.zeros((self.size, self.size)), np.zeros(self.size)
        stats = self._stats_of_all(at)
        self._count(1.0)
        for i in range(self.source.n_blocks):
            block = self.source.block(i)
            weights = np.ones(len(block.rows[0])) if block.weights is None else block.weights
            for row in np.flatnonzero(weights):
                vector = np.zeros(self.model.layout.size)
                run(kernel, block._replace(rows=tuple(a[row : row + 1] for a in block.rows), weights=None), stats=vector)
                s = c.pull(theta, params, self.model.linear_score(params, stats._replace(vector=vector, weight=0.0)))
                out += weights[row] * np.outer(s, s)
                mean += weights[row] * s
        mean /= stats.weight
        return out / stats.weight - np.outer(mean, mean)

    def restore(
        self, theta: Vector, params: Mapping[str, Vector], stats: tuple[Vector, Vector, float], value: float, scale: float
    ) -> Evaluation:
        """Return the evaluation that an earlier pass gave, without a pass.

        Parameters
        ----------
        theta : ndarray (p,)
        params : mapping of ndarray
            By name, in frame units: neither is computed from the other, so that no bit is lost.
        stats : tuple
            What a `Stats` consists of.
        value, scale : float

        Raises
        ------
        ValueError
            When they do not fit the model.
        """
        if set(params) != set(self.model.names) or theta.shape != (self.size,) or len(stats[0]) != self.model.layout.size:
            raise ValueError(f"what was saved does not fit {self.model!r}: {sorted(params)}, {len(theta)} coordinates")
        point = Point(
            self.coordinates, theta=theta.copy(), params=self.model.params(**{n: a.copy() for n, a in params.items()})
        )
        return Evaluation(self, point, value, scale, Stats(*stats))

    def boundary(self, at: Point) -> tuple[str, ...]:
        """Return the parameters that sit on the boundary of the parameter space, in words."""
        return self.model.boundary(at.params)

    def condition(self, at: Point) -> float:
        """Return by how much the parameters amplify rounding errors, as a condition number does: at least 1."""
        return self.model.condition(at.params)

    def coarseness(self, at: Point) -> float:
        """Return the relative error of values in float32 lanes, or 0 where passes run in float64."""
        return self.model.coarseness(at.params)

    def __repr__(self) -> str:
        return f"ModelObjective({self.model!r}, {self.source!r}, {self.size} coordinates, {self.passes:g} passes)"


class _MapEvaluation(Evaluation):
    """All that one call of an EM map gives; its `stats` are where the map leads. Gain and gradient are not known: NaN."""

    gain = math.nan
    gradient = np.array([math.nan])


class MapObjective(_Counted):
    """Anybody's EM map, and the value that it raises if that can be computed, in plain Python.

    Parameters
    ----------
    em_map : callable
        Returns where EM goes from theta (p,), as an array (p,).
    value : callable, optional
        Returns what the map raises, as a number: the log-likelihood (a sum or a mean). Without it nothing but the
        length of the EM step says whether a point is a good one.
    size : int
        p, the number of coordinates.
    inside : callable, optional
        Tells whether theta is in the domain of the map; others are never evaluated. Not needed where the map or the value
        is not finite outside.

    Raises
    ------
    TypeError
        When one of the functions is not callable.
    ValueError
        When `size` is not a whole number >= 1; at an evaluation, when a function returns something of a wrong shape.

    Notes
    -----
    An evaluation calls each function once and is one pass. A number that is not finite, and an ArithmeticError or ValueError
    raised inside a function (``math.log(-1)``), mean that the point is outside, as does a coordinate beyond 1e150;
    floating-point warnings are silent.
    """

    weight = 1.0
    when_fallen = (
        " along the map's own step. The objective must be what em_map raises, at each of its steps: a log-likelihood to be "
        "maximised, not its negative."
    )

    def __init__(
        self,
        em_map: Callable[[Vector], ArrayLike],
        value: Callable[[Vector], float] | None = None,
        *,
        size: int,
        inside: Callable[[Vector], bool] | None = None,
    ):
        super().__init__()
        for name, function in (("em_map", em_map), ("value", value), ("inside", inside)):
            if not (callable(function) or (function is None and name != "em_map")):
                raise TypeError(f"{name} must be callable with theta, got {function!r}")
        self.size = whole("size", size)
        self.coordinates = unconstrained(self.size)
        self.capabilities = frozenset({"em"} if value is None else {"em", "value"})
        self.broken = f"the EM map{'' if value is None else ' or its objective'} has no finite value there"
        self._map, self._value, self._inside = em_map, value, inside

    def evaluate(self, at: Point | ArrayLike, blocks: Any = None, near: Any = None) -> Evaluation:
        """Return what one call of the functions gives at a point: value (NaN where there is none) and EM point."""
        point = at if isinstance(at, Point) else self.point(at)
        value, failure = math.nan, _runaway(point.theta)
        try:
            if failure is None and self._inside is not None and not self._inside(point.theta.copy()):
                failure = Failure(Status.OUTSIDE, detail="It is not inside the domain of the EM map.")
        except (ArithmeticError, ValueError) as error:
            failure = Failure(Status.OUTSIDE, detail=f"inside raised {type(error).__name__}: {error}")
        if failure is None:
            self._count(1.0)
            value, image, failure = self._called(point.theta)
        if failure is not None:
            return _MapEvaluation(self, point, -math.inf, math.nan, None, failure)
        return _MapEvaluation(self, point, value, abs(value), Stats(image, np.empty(0), 1.0))

    def _called(self, theta: Vector) -> tuple[float, Vector, Failure | None]:
        """Return the value, the image and why there are none."""
        value, given, which = math.nan, None, "objective"
        try:
            with np.errstate(all="ignore"):
                if self._value is not None:
                    value = self._value(theta.copy())
                which = "em_map"
                given = self._map(theta.copy())
        except (ArithmeticError, ValueError) as error:
            return math.nan, theta, Failure(Status.NON_FINITE, detail=f"{which} raised {type(error).__name__}: {error}")
        image = np.array(given, dtype=np.float64)
        if image.shape != (self.size,):
            raise ValueError(f"em_map must return an array of shape ({self.size},), got {image.shape}")
        if np.ndim(value) != 0:
            raise ValueError(f"objective must return a number, got an array of shape {np.shape(value)}")
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"objective must return a number, got {value!r}") from None
        if self._value is not None and not math.isfinite(value):
            return value, image, Failure(Status.NON_FINITE, detail=f"The objective is {value}.")
        if not np.isfinite(image).all():
            return value, image, Failure(Status.NON_FINITE, detail="The EM map is not finite there.")
        return value, image, _runaway(image)

    def maximize(self, at: Point, stats: Stats) -> Point:
        """Return where the EM map led."""
        return self.point(stats.vector)

    def restore(
        self, theta: Vector, params: Mapping[str, Vector], stats: tuple[Vector, Vector, float], value: float, scale: float
    ) -> Evaluation:
        """Return the evaluation that an earlier call gave, without another."""
        return _MapEvaluation(self, self.point(theta), value, scale, Stats(*stats))

    def boundary(self, at: Point) -> tuple[str, ...]:
        """Return nothing: the domain is not known."""
        return ()

    def condition(self, at: Point) -> float:
        """Return 1: how rounding is amplified is not known."""
        return 1.0

    def coarseness(self, at: Point) -> float:
        """Return 0: the functions are taken to compute in float64."""
        return 0.0

    def __repr__(self) -> str:
        return f"MapObjective({getattr(self._map, '__name__', self._map)}, {self.size} coordinates, {self.passes:g} passes)"


def unconstrained(size: int) -> Coordinates:
    """Return the coordinates of so many numbers, which are their own."""
    return Coordinates("free", (Field("theta", (size,), Real((size,)), by_state=False),))


def _runaway(theta: Vector) -> Failure | None:
    """Return the failure of coordinates too large to go on from."""
    size = float(np.max(np.abs(theta)))
    return Failure(Status.DIVERGED, detail=f"One is as large as {size:.0e}.") if size > LARGEST else None
