"""The hill that solvers climb: one pass over the data gives value, gradient and EM update.

``evaluate`` is the only thing that touches the data, and the only thing that is counted. What it returns, an `Evaluation`, is
lazy: gradient, EM point and gain are computed from the sufficient statistics of that one pass when they are first asked
for, and never by another pass (Fisher's identity: the gradient of the log-likelihood is the gradient of the expected
complete-data log-likelihood at the same point).

Everything is maximised; ``value`` and ``gradient`` are means per unit of weight.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from emcore.data import DataSource
from emcore.kernels import all_finite, run
from emcore.result import Breakdown, Failure, OutOfBudget, Status, rounding

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from emcore.models import Coordinates, Model

    Vector = NDArray[np.float64]

CONDITION = 64.0  # so much of a condition number is seen in the value, in units of its ordinary rounding: eps times it
WHOLE = 1e-9  # thirty thirtieths of a pass are one pass

__all__ = ["Evaluation", "ModelObjective", "Objective", "Piece", "Point", "Stats", "default_threads"]


def default_threads() -> int:
    """Return the number of threads a pass uses unless told: EMCORE_NUM_THREADS, OMP_NUM_THREADS, or the CPUs we may use."""
    for name in ("EMCORE_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if text.isdigit() and int(text) > 0:
            return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
            theta.setflags(write=False)
        for array in params or ():
            array.setflags(write=False)

    @property
    def coordinates(self) -> str:
        """The kind of coordinates: "free" or "original"."""
        return self._coordinates.kind

    @property
    def theta(self) -> Vector:
        """Coordinates, (p,)."""
        if self._theta is None:
            self._theta = self._coordinates.inverse(self._params)
            self._theta.setflags(write=False)
        return self._theta

    @property
    def params(self) -> Any:
        """Parameters in frame units, a named tuple of arrays."""
        if self._params is None:
            self._params = self._coordinates.forward(self._theta)
            for array in self._params:
                array.setflags(write=False)
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

    @cached_property
    def gradient(self) -> Vector:
        """Gradient of `value` in the coordinates of the objective, (p,) (Fisher's identity)."""
        return self._objective.gradient(self.point, self._need_stats())

    @cached_property
    def em_point(self) -> Point:
        """Where the EM algorithm goes from here: the M-step of the statistics."""
        return self._objective.maximize(self.point, self._need_stats())

    @cached_property
    def gain(self) -> float:
        """The rise of `value` that the EM step is sure of, ``(q(em) - q(theta)) / W >= 0``."""
        stats = self._need_stats()
        return max(0.0, self._objective.q(self.em_point, stats) - self._objective.q(self.point, stats))

    @cached_property
    def noise(self) -> float:
        """The change of `value` that cannot be told from rounding: that of the sum, or of ill-conditioned parameters."""
        exact = rounding(max(self.scale, self._objective.condition(self.point) / CONDITION))
        return max(exact, self._objective.coarseness(self.point) * max(1.0, self.scale))

    @cached_property
    def entropy(self) -> float:
        """Mean posterior entropy of the latent variables per unit of weight: ``value - q(theta)``."""
        return self.value - self._objective.q(self.point, self._need_stats())

    @property
    def known(self) -> Container[str]:
        """Which of `gradient`, `em_point`, `gain` and their like have been computed already."""
        return self.__dict__

    def precondition(self, v: Vector) -> Vector:
        """Return P v, P being the metric of the EM step (Xu and Jordan 1996), in the coordinates of the objective.

        For ``v = gradient`` this is the EM step to first order (exactly so for weights and means).
        """
        return self._objective.precondition(self.point, self._need_stats(), v)


class Objective(Protocol):
    """What a solver sees of the world."""

    capabilities: frozenset[str]
    size: int
    weight: float
    passes: float
    hessian_passes: float
    monitor_passes: float

    def limit(self, max_passes: float, max_seconds: float) -> AbstractContextManager[None]: ...
    def monitoring(self) -> AbstractContextManager[None]: ...
    def point(self, theta: ArrayLike) -> Point: ...
    def evaluate(self, at: Point | ArrayLike, blocks: Any = None) -> Evaluation: ...
    def pieces(self, n: int) -> tuple[Any, ...]: ...
    def each(self, at: Point, pieces: Sequence[Any]) -> tuple[Evaluation, tuple[Evaluation, ...]]: ...
    def recentre(self, stats: Stats, origin: Vector) -> Stats: ...
    def maximize(self, at: Point, stats: Stats) -> Point: ...
    def q(self, at: Point, stats: Stats) -> float: ...
    def gradient(self, at: Point, stats: Stats) -> Vector: ...
    def precondition(self, at: Point, stats: Stats, v: Vector) -> Vector: ...
    def hvp(self, at: Evaluation, V: NDArray[np.float64]) -> NDArray[np.float64]: ...
    def restore(self, point: Point, stats: Stats, value: float, scale: float) -> Evaluation: ...
    def boundary(self, at: Point) -> tuple[str, ...]: ...
    def condition(self, at: Point) -> float: ...


class ModelObjective:
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
        Threads of a pass; the result does not depend on it, to the last bit.

    Raises
    ------
    ValueError
        For unknown coordinates, a number of threads below 1, or data that the model refuses.
    """

    def __init__(self, model: Model, source: DataSource, *, coordinates: str = "free", n_threads: int | None = None):
        if not isinstance(source, DataSource):
            raise TypeError(f"source must be a DataSource, as emcore.data.as_source(X) returns it, got {type(source).__name__}")
        whole = isinstance(n_threads, (int, np.integer)) and not isinstance(n_threads, bool)
        if n_threads is not None and not (whole and n_threads >= 1):
            raise ValueError(f"n_threads must be a whole number >= 1 or None, got {n_threads!r}")
        self.model = model if model.bound else model.bind(source)
        self.source = source
        self.coordinates = self.model.coordinates(coordinates)
        self.n_threads = default_threads() if n_threads is None else int(n_threads)
        self.capabilities = frozenset({"value", "blocks"}) | self.model.provides
        self.size = self.coordinates.size
        self.weight = source.weight
        self.passes = self.hessian_passes = self.monitor_passes = 0.0
        self._pieces: dict[int, tuple[Piece, ...]] = {}
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
        theta = np.array(theta, dtype=np.float64)
        if theta.shape != (self.size,):
            raise ValueError(f"theta must have shape ({self.size},), got {theta.shape}")
        return Point(self.coordinates, theta=theta)

    def point_of(self, params: Any) -> Point:
        """Return the point with these parameters in frame units."""
        return Point(self.coordinates, params=params)

    def _count(self, fraction: float) -> None:
        if self._monitoring:
            self.monitor_passes += fraction
            return
        if self.passes + fraction > self._max_passes * (1 + 1e-12):
            raise OutOfBudget(Status.MAX_PASSES)
        if time.perf_counter() > self._deadline and self.passes > self._first_pass:
            raise OutOfBudget(Status.MAX_SECONDS)
        total = self.passes + fraction
        whole = float(round(total))
        self.passes = whole if abs(total - whole) < WHOLE else total

    def evaluate(self, at: Point | ArrayLike, blocks: Any = None) -> Evaluation:
        """Return all that one pass over the data (or over some of its blocks) gives at a point.

        Numbers that break are no exception: the evaluation then has value -inf and says why in `failure`.

        Parameters
        ----------
        at : Point or array_like (p,)
        blocks : sequence, optional
            Indices of blocks of the source, or some of `pieces`; all blocks by default. The pass is counted in part.
        """
        point = at if isinstance(at, Point) else self.point(at)
        all_blocks = [Piece(i, 0, 1, self.source.n_blocks) for i in range(self.source.n_blocks)]
        parts = all_blocks if blocks is None else [b if isinstance(b, Piece) else all_blocks[b] for b in blocks]
        kernel, failure = self._kernel(point)
        if failure is not None:
            return self._nowhere(point, failure)
        self._count(1.0 if blocks is None else sum(1 / part.of for part in parts))
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
        parts: list[Evaluation] = []
        for piece in pieces:
            part = self._pass(at, kernel, [piece])
            parts.append(part)
            if part.stats is None:
                return part, tuple(parts)
        stats = [part.stats for part in parts]
        weights = np.array([s.weight for s in stats])
        weight = float(weights.sum())
        whole = Stats(np.sum([s.vector for s in stats], axis=0), stats[0].origin, weight)
        value, scale = (float(weights @ [getattr(part, name) for part in parts]) / weight for name in ("value", "scale"))
        return self.restore(at, whole, value, scale), tuple(parts)

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
                    point, Failure(Status.NON_FINITE, f"row {row}", detail="Its density is zero or not a number.")
                )
            loglik += done.loglik
            scale += done.scale
            weight += done.weight
        if not weight > 0:
            raise ValueError("blocks: those given hold no row of positive weight")
        if not (math.isfinite(loglik) and all_finite(vector)):
            return self._nowhere(point, Failure(Status.NON_FINITE, detail="A sum over the data overflowed."))
        return Evaluation(self, point, loglik / weight, scale / weight, Stats(vector, self.model.origin(point.params), weight))

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
        """Return P v in the coordinates of the objective, (p,)."""
        c = self.coordinates
        g = c.pull_inverse(at.theta, at.params, v)
        return c.push_inverse(at.theta, at.params, self.model.metric(at.params, stats, g)) * stats.weight

    def hvp(self, at: Evaluation, V: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the Hessian of the value times the columns of V: one pass.

        Raises
        ------
        ValueError
            When the model does not provide "tangent".
        """
        raise ValueError(f"{self.model} does not provide Hessian products ('tangent')")

    def restore(self, point: Point, stats: Stats, value: float, scale: float) -> Evaluation:
        """Return the evaluation that an earlier pass gave, without a pass."""
        return Evaluation(self, point, value, scale, stats)

    def boundary(self, at: Point) -> tuple[str, ...]:
        """Return the parameters that sit on the boundary of the parameter space, in words."""
        return self.model.boundary(at.params)

    def condition(self, at: Point) -> float:
        """Return by how much the parameters amplify rounding errors: the largest condition number among them, at least 1."""
        return self.model.condition(at.params)

    def coarseness(self, at: Point) -> float:
        """Return the relative error of values in float32 lanes, or 0 where passes run in float64."""
        return self.model.coarseness(at.params)

    def __repr__(self) -> str:
        return f"ModelObjective({self.model!r}, {self.source!r}, {self.size} coordinates, {self.passes:g} passes)"
