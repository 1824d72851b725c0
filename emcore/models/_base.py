"""What a model is: a latent part and an emission part, each turning statistics into an update and a gradient.

A part knows its parameters, their charts and its formulas; it knows no solver and sees the data at binding only. From the
statistics of one pass it gives the M-step (`m_step`), the expected complete-data log-likelihood (`q`) and its gradient
(`score`), which by Fisher's identity is that of the log-likelihood. A `Model` is the two parts side by side.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import call
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emcore._cached import cached_property
from emcore._checks import finite_array, whole
from emcore.kernels import Coupled, Given, run
from emcore.kernels.proportions import largest_within
from emcore.models._charts import EPS, Chart, Directed, Frozen

if TYPE_CHECKING:
    from emcore.data import Block, DataSource
    from emcore.kernels import Emission, Kernel, Latent
    from emcore.models._priors import Prior
    from emcore.objective import Stats

__all__ = ["Coordinates", "Field", "Layout", "Model", "Part", "PartStats", "given_array"]

Vector = NDArray[np.float64]

Fixed = Mapping[str, Any]
_FIXED = ("fixed", "frozen")  # what bound states call the masks and the values

AT_ONCE = 2**19  # numbers in the tangents along directions that are dealt with together: several such arrays are held, of 4 MB

FORGOTTEN = None, (None, None)  # in the place of parameters and their parts

FROM_COORDINATES = ("push", "pull_inverse", "curvature")  # ways through charts that take directions (p,)
FROM_PARAMETERS = ("pull", "push_inverse")  # and those that take arrays like the parameters

NOWHERE = np.empty(0)  # the origin of statistics that have none
NOWHERE.setflags(write=False)


class Field(NamedTuple):
    """One array of parameters: name, shape, chart of its free coordinates, and whether its first axis runs over states."""

    name: str
    shape: tuple[int, ...]
    chart: Chart
    by_state: bool = True


class Layout:
    """Named views of a flat vector of statistics.

    Parameters
    ----------
    blocks : mapping of name to shape, in order
    """

    def __init__(self, blocks: Mapping[str, tuple[int, ...]]):
        self.blocks = dict(blocks)
        self._slices: dict[str, slice] = {}
        offset = 0
        for name, shape in self.blocks.items():
            size = math.prod(shape)
            self._slices[name] = slice(offset, offset + size)
            offset += size
        self.size = offset

    def view(self, vector: Vector, name: str) -> NDArray[np.float64]:
        """Return the block of this name, a view in its shape."""
        return vector[self._slices[name]].reshape(self.blocks[name])

    def __repr__(self) -> str:
        return "[" + " | ".join(f"{n} {'*'.join(map(str, s))}" for n, s in self.blocks.items()) + "]"


class PartStats(NamedTuple):
    """The share of one part in the statistics of a pass."""

    vector: Vector
    origin: Vector
    weight: float


@cache
def params_type(names: tuple[str, ...]) -> Any:
    """Return the named-tuple type of parameters with these names."""
    kind = namedtuple("Params", names)
    kind.__reduce__ = lambda self: (_make_params, (names, tuple(self)))  # its class has no importable name
    return kind


def _make_params(names: tuple[str, ...], arrays: tuple[NDArray[np.float64], ...]) -> Any:
    return params_type(names)(*arrays)


def _no_tangent(part: Part) -> ValueError:
    return ValueError(f"{type(part).__name__} does not provide Hessian products ('tangent')")


class Part(Directed, ABC):
    """A latent or an emission of k states.

    Attributes
    ----------
    several : bool
        Whether `q_hvp` and `metric` take several directions at once: arrays with one more axis in front, as those they return
        have. Without it they get one at a time. A class that overrides one of them says it again.
    k : int
    fields : tuple of Field
        Complete once bound.
    provides : frozenset of str
        "em" (an exact M-step and q), "gradient" (the score), "metric" (P), "tangent" (Hessian products), "sparse" (of
        a latent: posteriors of which a part is held; of an emission: nothing is latent in it but the state, or `q` has the
        entropy of what is).
    lacks : mapping of str to str
        Why it does not provide some of these, in words that end a sentence, for errors.
    draws_given : str
        What draws of an emission are conditional on, in words with its shape; "" where that is nothing.
    one_column : str
        Of an emission whose rows have one column and no more: what this holds, in words.
    n_responses : int
        How many columns of responses y its data (X, y) have; 0: it takes rows X alone.
    takes_missing : bool
        Whether NaN in X is a missing value to it.
    calls_user : bool
        Whether its passes call functions of the user's.
    moving_support : tuple of str
        The parameters that say where rows have a density at all: Fisher's identity fails for them.
    inexact : str
        Why its E-step is not that of the likelihood, in words that begin a sentence; "" where it is. Its steps may lower the
        value then, and solver "em" goes on through falls.
    layout : Layout
        Of its statistics, once bound.
    fixed : mapping of name to ndarray of bool
        Which entries of its parameters are fixed, where any are: `m_step` leaves them as in its `params`, and so does every
        chart of the model.
    """

    _linear = frozenset({"q_hvp", "linear_hvp", "metric"})
    provides: ClassVar[frozenset[str]]
    lacks: Mapping[str, str] = MappingProxyType({})
    draws_given: ClassVar[str] = ""
    one_column: ClassVar[str] = ""
    n_responses: ClassVar[int] = 0
    takes_missing: ClassVar[bool] = False
    calls_user: ClassVar[bool] = False
    moving_support: tuple[str, ...] = ()
    inexact: str = ""
    k: int
    fixed: Mapping[str, NDArray[np.bool_]] = MappingProxyType({})
    prior: Prior | None = None
    _pseudo: PartStats | None = None
    _prior_constant = 0.0

    _fields: tuple[Field, ...]
    _layout: Layout

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        own = vars(cls)
        if "linear_scores" not in own and not own.keys().isdisjoint({"score", "linear_score"}):
            cls.linear_scores = Part.linear_scores  # that of its base is not of its own score

    @property
    def fields(self) -> tuple[Field, ...]:
        """Its parameters, complete once bound."""
        return self._fields

    @property
    def layout(self) -> Layout:
        """That of its statistics, once bound."""
        return self._layout

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the fields, once bound."""
        return tuple(f.name for f in self.fields)

    def params(self, *arrays: NDArray[np.float64]) -> Any:
        """Return the named tuple of these arrays."""
        return params_type(self.names)(*arrays)

    @abstractmethod
    def bind(self, source: DataSource) -> Part:
        """Return this part fixed to data: dimension, frame, floor."""

    def freezing(self, fixed: Mapping[str, NDArray[np.bool_]]) -> Part:
        """Return this part, bound, with these entries fixed; names that are not of its fields do not matter to it."""
        new = copy.copy(self)
        new.fixed = {name: mask for name, mask in fixed.items() if name in self.names}
        return new

    def weighing(self, total: float) -> Part:
        """Return this part, bound, with its prior turned into pseudo-statistics beside data of this total weight."""
        if self.prior is None:
            return self
        new = copy.copy(self)
        vector, origin, new._prior_constant = new._pseudo_statistics()
        new._pseudo = PartStats(vector, origin, total)
        return new

    def _pseudo_statistics(self) -> tuple[Vector, Vector, float]:
        """Return the prior as statistics, their origin, and what the logarithm of its density is beyond their `q`."""
        raise NotImplementedError

    def _share(self, stats: PartStats) -> float:
        """Return the share of the prior that goes with statistics of part of the data, 0 without a prior."""
        return 0.0 if self._pseudo is None else stats.weight / self._pseudo.weight

    def with_prior(self, stats: PartStats) -> PartStats:
        """Return statistics with those of the prior added, in proportion to their weight in that of all data."""
        if self._pseudo is None:
            return stats
        pseudo = self.recentre(self._pseudo, stats.origin)
        return stats._replace(vector=stats.vector + self._share(stats) * pseudo.vector)

    def log_prior(self, params: Any) -> float:
        """Return the logarithm of the prior density in the user's units, 0 without a prior."""
        return 0.0 if self._pseudo is None else self.q(params, self._pseudo) + self._prior_constant

    @abstractmethod
    def initial(self) -> Any:
        """Return some valid parameters, about which the statistics of a start are accumulated."""

    def first(self, block: Block, resp: NDArray[np.float64]) -> Any:
        """Return the parameters of an emission from which the M-steps of a start go, for responsibilities (n, k) of a block.

        Those of `initial`, unless M-steps from there end far from what the responsibilities say.
        """
        return self.initial()

    @abstractmethod
    def kernel(self, params: Any) -> Emission | Latent:
        """Return the compiled part of a pass at these parameters.

        Raises
        ------
        Breakdown
            When the parameters are numerically degenerate.
        """

    def fused(self, latent: Part, latent_params: Any, params: Any) -> Kernel | None:
        """Return one kernel for this emission under that latent, or None: the two are coupled.

        Its statistics are those of the coupled kernel, up to rounding.

        Raises
        ------
        Breakdown
            When the parameters are numerically degenerate.
        """
        return None

    @abstractmethod
    def m_step(self, params: Any, stats: PartStats) -> Any:
        """Return the parameters that maximise `q`; what the statistics do not determine stays as in `params`."""

    def start(self, params: Any, counts: PartStats) -> Any:
        """Return the parameters of a latent that fit expected counts of the states, [count k]."""
        return self.m_step(params, counts)

    @abstractmethod
    def q(self, params: Any, stats: PartStats) -> float:
        """Return the expected complete-data log-likelihood, constants included."""

    @abstractmethod
    def score(self, params: Any, stats: PartStats) -> Any:
        """Return the gradient of `q` with respect to the parameters."""

    @abstractmethod
    def metric(self, params: Any, stats: PartStats, g: Any) -> Any:
        """Return P g, Xu and Jordan's matrix applied to a gradient with respect to the parameters."""

    @property
    def separable(self) -> bool:
        """Whether blocks of parameters have M-steps of their own: at a solution P is the inverse complete information then."""
        return True

    def correction(self, params: Any, stats: PartStats) -> Any:
        """Return what the M-step adds to ``params + P score``, in closed form; zero where that identity is exact."""
        return self.params(*(np.zeros(f.shape) for f in self.fields))

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> Emission | Latent:
        """Return the compiled part of a pass that gives derivatives along these tangents of the parameters.

        Raises
        ------
        ValueError
            When the part does not provide "tangent".
        Breakdown
            When the parameters are numerically degenerate.
        """
        raise _no_tangent(self)

    def sparse_kernel(self, params: Any, resp: NDArray[np.float64], entropies: NDArray[np.float64], least: float) -> Latent:
        """Return the compiled latent of a pass that infers the responsibilities of at least `least` and holds the others.

        Parameters
        ----------
        params : named tuple
        resp : ndarray (n, k)
            Of the rows of a block; the pass puts the new ones in their place.
        entropies : ndarray (n,)
            Takes the entropy of each row's responsibilities, times its weight.
        least : float

        Raises
        ------
        ValueError
            When the part does not provide "sparse".
        """
        raise ValueError(f"{type(self).__name__} does not provide posteriors that are held in part ('sparse')")

    def q_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        """Return the Hessian of `q` times v, statistics held: no pass.

        Raises
        ------
        ValueError
            When the part does not provide "tangent".
        """
        raise _no_tangent(self)

    def linear_score(self, params: Any, stats: PartStats) -> Any:
        """Return the gradient of the log-likelihood as a linear function of the statistics: `score`, unless that is not linear.

        Of the statistics of one row it is the gradient of that row's log-density.
        """
        return self.score(params, stats)

    def linear_scores(self, params: Any, stats: PartStats, vectors: Vector) -> Any:
        """Return `linear_score` of vectors of statistics (m, n_stats), arrays with one more axis in front.

        The vectors stand in the place of that of `stats`, whose origin they share, and are of weight 0.
        """
        found = [self.linear_score(params, PartStats(vector, stats.origin, 0.0)) for vector in vectors]
        return self.params(*map(np.stack, zip(*found, strict=True)))

    def linear_hvp(self, params: Any, stats: PartStats, v: Any) -> Any:
        """Return the derivative of `linear_score` along v, statistics held: `q_hvp`, unless the former is not `score`.

        With `linear_score` of the derivatives of the statistics, which a pass of the tangent kernel gives, it adds up to the
        Hessian product of the log-likelihood (Oakes 1999).
        """
        return self.q_hvp(params, stats, v)

    def origin(self, params: Any) -> Vector:
        """Return the point about which the statistics of a pass at these parameters are centred, flat."""
        return np.empty(0)

    def recentre(self, stats: PartStats, new: Vector) -> PartStats:
        """Return the same statistics about another origin."""
        return stats

    def permuted(self, params: Any, order: Sequence[int]) -> Any:
        """Return the parameters with their states in another order."""
        return self.params(*(a[list(order)] if f.by_state else a for f, a in zip(self.fields, params, strict=True)))

    def places(self, params: Any) -> NDArray[np.float64]:
        """Return what tells the states apart, (k, m): states of nearby rows are the same ones."""
        arrays = [a.reshape(self.k, -1) for f, a in zip(self.fields, params, strict=True) if f.by_state]
        return np.concatenate([*arrays, np.empty((self.k, 0))], axis=1)

    def nearest(self, params: Any, to: Any) -> Any:
        """Return, of the parameters that have the density of `params` state by state, those nearest to others."""
        return params

    def to_user(self, params: Any) -> Any:
        """Return parameters in the user's units."""
        return params

    def to_user_tangent(self, v: Any) -> Any:
        """Return a tangent of the parameters in the user's units."""
        return v

    @abstractmethod
    def from_user(self, given: Mapping[str, Any]) -> Any:
        """Return checked parameters in frame units from arrays in the user's units.

        Raises
        ------
        ValueError
            Naming the parameter, what is wrong with it and what is allowed.
        """

    def boundary(self, params: Any) -> tuple[str, ...]:
        """Return which parameters sit on the boundary of their space, in words."""
        return ()

    def condition(self, params: Any) -> float | Vector:
        """Return by how much the parameters amplify rounding errors, as a condition number does.

        One number, or one a state of an emission.
        """
        return 1.0

    def shares(self, params: Any) -> Vector | None:
        """Return the shares of the states (k,) of a latent whose parameters give each the same in all rows, else None."""
        return None

    def coarseness(self, params: Any) -> float:
        """Return the relative error of the value of a pass that is computed in fewer digits than it could be, or 0."""
        return 0.0

    def warnings(self) -> tuple[str, ...]:
        """Return what the user should know about the data that the part was bound to."""
        return ()

    def bound_state(self) -> dict[str, NDArray[Any]]:
        """Return what binding fixed, as plain arrays."""
        return {}

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> Part:
        """Return this part bound as `bound_state` says, without data."""
        return self

    def check(self, source: DataSource) -> None:
        """Refuse rows of positive weight that have no density whatever the parameters.

        Raises
        ------
        ValueError
            Naming the row and the column, what is there and what is allowed.
        """
        return

    def framed(self, block: Block) -> NDArray[np.float64]:
        """Return the rows of a block as the part sees them, (n, d) float64: for starts, on a sample."""
        return np.asarray(block.rows[0], dtype=np.float64)

    def sized(self, given: Mapping[str, Any]) -> Part:
        """Return this part as if bound, to no data: with the dimensions of these parameters, whose units are its frame.

        Raises
        ------
        ValueError
            When no dimensions can be read off them.
        """
        return self

    def sample(self, params: Any, of: Any, rng: np.random.Generator, X: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return what the part draws at these parameters; it is bound, or `sized`, in the user's units.

        Parameters
        ----------
        params : named tuple
        of : int or ndarray (n,)
            For a latent the number of rows, whose states (n,) it draws; for an emission these states, of which it draws the
            rows.
        rng : Generator
        X : ndarray (n, d), optional
            What `draws_given` says.

        Raises
        ------
        NotImplementedError
            Of a part that has no draws.
        """
        raise NotImplementedError

    def prior_probabilities(self, user: Any, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return a latent's probabilities of the states before y is seen, (n, k), from parameters in the user's units.

        Raises
        ------
        NotImplementedError
            Of a part that does not know them.
        """
        raise NotImplementedError

    def expected_responses(self, user: Any, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return the expected response in each state at covariates X (n, d), (n, k), from parameters in the user's units.

        Raises
        ------
        NotImplementedError
            Of a part that does not know it.
        """
        raise NotImplementedError


def width(given: Mapping[str, Any], name: str, k: int) -> int:
    """Return the number of columns of one of the user's parameters, (k, d).

    Raises
    ------
    ValueError
    """
    return given_array(given, name, {"": (k, "d")}).shape[1]


def given_array(given: Mapping[str, Any], name: str, shapes: Mapping[str, tuple[int, ...]]) -> NDArray[np.float64]:
    """Return one start parameter as a fresh finite float64 array of one of the allowed shapes: for `Part.from_user`.

    Parameters
    ----------
    given : mapping
        What the user gave, by names.
    name : str
    shapes : mapping
        Words that say when -> shape, of numbers and, for any length, of letters.

    Raises
    ------
    ValueError
        When it is missing, not finite, or of another shape.
    """
    if name not in given:
        raise ValueError(f"start: {name} is missing")
    return finite_array(f"start: {name}", given[name], shapes)


def _along(part: Part, verb: str, params: Any, stats: PartStats, v: Any) -> Any:
    """Return what a verb of a part makes of one tangent or gradient v, or of several: one by one where it must be."""
    if part.several or all(a.ndim == len(f.shape) for f, a in zip(part.fields, v, strict=True)):
        return getattr(part, verb)(params, stats, v)
    found = [getattr(part, verb)(params, stats, part.params(*one)) for one in zip(*v, strict=True)]
    return part.params(*map(np.stack, zip(*found, strict=True)))


class Coordinates:
    """theta: the coordinates of all fields of a model, one after the other.

    ``pull`` and its kin act on gradients and tangents given as named tuples like the parameters: on one, or on several whose
    arrays have one more axis in front, in the order of the rows of directions (m, p).
    """

    def __init__(self, kind: str, fields: Sequence[Field]):
        self.kind = kind
        self.names = tuple(f.name for f in fields)
        self.charts = tuple(f.chart if kind == "free" else f.chart.itself(f.name) for f in fields)
        ends = np.cumsum([0, *(c.size for c in self.charts)])
        self.slices = {f.name: slice(int(a), int(b)) for f, a, b in zip(fields, ends[:-1], ends[1:], strict=True)}
        self.size = int(ends[-1])
        self._numbers = sum(math.prod(f.shape) for f in fields)
        self._cuts = tuple(self.slices.values())
        self._several = all(chart.several for chart in self.charts)
        self._ways = {way: [getattr(chart, way) for chart in self.charts] for way in FROM_COORDINATES + FROM_PARAMETERS}

    def in_batches(self, linear: Callable[[Vector], Vector], rows: Vector) -> Vector:
        """Return what a function that is linear in directions, (m, p) to (m, p), makes of many, some at a time.

        Tangents of parameters may be larger than directions, and functions hold several of them: memory is bounded so.
        """
        some = max(1, AT_ONCE // max(1, self._numbers))
        if rows.ndim == 1 or len(rows) <= some:
            return linear(rows)
        out = np.empty(rows.shape)
        for first in range(0, len(rows), some):
            out[first : first + some] = linear(rows[first : first + some])
        return out

    def _blocks(self, theta: Vector) -> list[Vector]:
        if theta.ndim == 1:
            return [theta[s] for s in self._cuts]
        return [theta[..., s] for s in self._cuts]

    def forward(self, theta: Vector) -> Any:
        """Return the parameters at theta (p,)."""
        return params_type(self.names)(*[c.forward(theta[s]) for c, s in zip(self.charts, self._cuts, strict=True)])

    def inverse(self, params: Any) -> Vector:
        """Return theta (p,) of the parameters."""
        return np.concatenate([c.inverse(x) for c, x in zip(self.charts, params, strict=True)])

    def _through(self, way: str, theta: Vector, params: Any, *blocks: Sequence[Vector]) -> list[Vector]:
        """Return what the charts make, in one of their ways, of blocks: the last of these one direction or several."""
        verbs, found = self._ways[way], []
        if self._several:
            return list(map(call, verbs, self._blocks(theta), params, *blocks))
        for chart, verb, t, x, *held, v in zip(self.charts, verbs, self._blocks(theta), params, *blocks, strict=True):
            if chart.several or v.ndim == (1 if way in FROM_COORDINATES else len(chart.shape)):
                found.append(verb(t, x, *held, v))
            else:
                found.append(np.stack([verb(t, x, *held, u) for u in v]))
        return found

    def pull(self, theta: Vector, params: Any, g: Any) -> Vector:
        """Return the gradient with respect to theta (..., p) of a gradient with respect to the parameters."""
        return np.concatenate(self._through("pull", theta, params, g), axis=-1)

    def push(self, theta: Vector, params: Any, v: Vector) -> Any:
        """Return the tangent of the parameters along v (..., p)."""
        return params_type(self.names)(*self._through("push", theta, params, self._blocks(v)))

    def curvature(self, theta: Vector, params: Any, g: Any, v: Vector) -> Vector:
        """Return the derivative along v (..., p) of `pull` at a fixed gradient g with respect to the parameters, (..., p)."""
        return np.concatenate(self._through("curvature", theta, params, g, self._blocks(v)), axis=-1)

    def push_inverse(self, theta: Vector, params: Any, u: Any) -> Vector:
        """Return the direction (..., p) that `push` maps to the tangent u."""
        return np.concatenate(self._through("push_inverse", theta, params, u), axis=-1)

    def pull_inverse(self, theta: Vector, params: Any, v: Vector) -> Any:
        """Return a gradient with respect to the parameters that `pull` maps to v (..., p)."""
        return params_type(self.names)(*self._through("pull_inverse", theta, params, self._blocks(v)))


class Model:
    """A latent and an emission: the same verbs, by concatenation. Not to be subclassed.

    Parameters
    ----------
    latent, emission : Part
        Of the same number of states.
    name : str
        For people and for files.
    options : mapping
        The arguments that build it again under this name.
    """

    def __init__(self, latent: Part, emission: Part, *, name: str = "Model", options: Mapping[str, Any] | None = None):
        if latent.k != emission.k:
            raise ValueError(f"latent has {latent.k} states, emission {emission.k}: they must agree")
        self.latent, self.emission, self.name, self.options = latent, emission, name, dict(options or {})
        self.k = latent.k
        self.provides = latent.provides & emission.provides
        self.bound = False

    # Binding and description

    def bind(self, source: DataSource, *, fixed: Fixed | None = None, start: Any = None) -> Model:
        """Return the model fixed to data: dimension, frame and floor are known from here on.

        Parameters
        ----------
        source : DataSource
        fixed : mapping of name to array_like of bool, optional
            Which entries of the parameters of that name do not move: an array of the parameter's shape, or True for all.
        start : mapping or named tuple, optional
            All parameters in the user's units; those fixed have their values from here.

        Raises
        ------
        ValueError, TypeError
            When the data have fewer rows (of positive weight) than the model has components, or what is to be fixed is
            unknown, has no value, cannot be fixed alone, or leaves nothing free.
        """
        self.check_form(source)
        if source.n_weighted < self.k:
            raise ValueError(f"X has {source.n_weighted} rows of positive weight, fewer than the {self.k} components")
        bound = self._with(self.latent.bind(source), self.emission.bind(source), source.weight)
        masks = bound._masks(fixed)
        if not masks:
            return bound
        if not (isinstance(start, Mapping) or hasattr(start, "_asdict")):
            raise ValueError("fixed: start must give the parameters, as what is fixed has its values from there")
        values = bound.from_user(start)._asdict()
        return bound._freezing(masks, {name: values[name] for name in masks})

    @property
    def takes_missing(self) -> bool:
        """Whether NaN in X is a missing value to the model."""
        return self.emission.takes_missing

    @property
    def moving_support(self) -> tuple[str, ...]:
        """The parameters on which the support of the model depends, but those that are fixed altogether."""
        fixed = {name for name, (mask, _) in self.fixed.items() if mask.all()} if self.bound else set()
        return tuple(n for n in self.latent.moving_support + self.emission.moving_support if n not in fixed)

    @property
    def lacks(self) -> dict[str, str]:
        """Why a part does not provide what it does not, in words, where it says so."""
        return {**self.emission.lacks, **self.latent.lacks}

    @property
    def inexact(self) -> str:
        """Why the E-step is not that of the likelihood, in words; "" where it is."""
        return self.latent.inexact or self.emission.inexact

    def check_form(self, source: DataSource) -> None:
        """Refuse data without the responses that the model is of, with others or columns that it knows not, or missing values.

        Raises
        ------
        ValueError
        """
        wanted, found = self.emission.n_responses, getattr(source, "n_responses", 0)
        if wanted != found:
            if not wanted:
                raise ValueError(f"X: {self.name} takes rows alone, not (X, y)")
            if not found:
                raise ValueError(f"X: {self.name} is a model of responses: the data must be a tuple (X, y)")
            raise ValueError(f"y must have {wanted} column{'s' * (wanted > 1)} for {self.name}, got {found}")
        if self.emission.one_column and source.n_columns != 1:
            raise ValueError(f"X must have one column, {self.emission.one_column}, got {source.n_columns}")
        self.check_missing(source)

    def check_missing(self, source: DataSource) -> None:
        """Refuse rows with missing values where the model does not take them.

        Raises
        ------
        ValueError
        """
        if getattr(source, "missing", False) and not self.takes_missing:
            raise ValueError(f"X has missing values (NaN), which {self.name} does not take: drop or impute them")

    def _masks(self, fixed: Any) -> dict[str, NDArray[np.bool_]]:
        """Return checked masks, of those parameters only of which something is fixed."""
        if fixed is None:
            return {}
        if not isinstance(fixed, Mapping):
            raise TypeError(f"fixed must map names of parameters to arrays of bool, got {type(fixed).__name__}")
        masks = {}
        shapes = {f.name: f.shape for f in self.fields}
        for name, given in fixed.items():
            if name not in shapes:
                raise ValueError(f"fixed: {name!r} is no parameter; they are {', '.join(shapes)}")
            mask = np.asarray(given)
            if mask.dtype != np.bool_:
                raise TypeError(f"fixed: {name} must be an array of bool (True where it does not move), got dtype {mask.dtype}")
            if mask.shape not in ((), shapes[name]):
                raise ValueError(f"fixed: {name} must be True or have shape {shapes[name]}, got {mask.shape}")
            if mask.any():
                masks[name] = np.array(np.broadcast_to(mask, shapes[name]))
        if masks and all(f.name in masks and masks[f.name].all() for f in self.fields):
            raise ValueError("fixed: nothing is left free")
        return masks

    def _freezing(self, masks: Mapping[str, NDArray[np.bool_]], values: Mapping[str, NDArray[np.float64]]) -> Model:
        """Return the bound model with these entries fixed at these values, in frame units."""
        new = self._with(self.latent.freezing(masks), self.emission.freezing(masks), self.weight)
        fields = {f.name: f for f in self.fields}
        values = {name: np.where(mask, values[name], 0.0) for name, mask in masks.items()}  # and none of what is free
        for name, mask in masks.items():
            try:
                fields[name] = fields[name]._replace(chart=Frozen(fields[name].chart, mask, values[name]))
            except ValueError as error:
                raise ValueError(f"fixed: {name}: {error}") from None
        new.fields, new.fixed = tuple(fields.values()), {name: (mask, values[name]) for name, mask in masks.items()}
        return new

    def frozen(self, params: Any) -> Any:
        """Return the parameters with what is fixed at its values."""
        if not self.fixed:
            return params
        return params._replace(
            **{name: np.where(mask, values, getattr(params, name)) for name, (mask, values) in self.fixed.items()}
        )

    def _moving(self, tangent: Any) -> Any:
        """Return a tangent or gradient with 0 at what is fixed."""
        if not self.fixed:
            return tangent
        return tangent._replace(**{name: np.where(mask, 0.0, getattr(tangent, name)) for name, (mask, _) in self.fixed.items()})

    def _with(self, latent: Part, emission: Part, weight: float) -> Model:
        latent, emission = latent.weighing(weight), emission.weighing(weight)
        new = Model(latent, emission, name=self.name, options=self.options)
        new.bound, new.fixed, new.weight = True, {}, weight
        new.has_prior = latent.prior is not None or emission.prior is not None
        new.fields = (*latent.fields, *emission.fields)
        new._split, new._split_origin = len(latent.fields), latent.origin(latent.initial()).size
        new._known = FORGOTTEN, FORGOTTEN
        new._small = sum(math.prod(f.shape) for f in new.fields) <= AT_ONCE
        new.names = tuple(f.name for f in new.fields)
        new._split_stats = latent.layout.size
        new.layout = Layout(
            {f"latent.{n}": s for n, s in latent.layout.blocks.items()}
            | {f"emission.{n}": s for n, s in emission.layout.blocks.items()}
        )
        return new

    def coordinates(self, kind: str = "free") -> Coordinates:
        """Return the coordinates of this kind.

        Raises
        ------
        ValueError
            When the kind is unknown.
        """
        if kind not in ("free", "original"):
            raise ValueError(f"coordinates must be 'free' or 'original', got {kind!r}")
        return Coordinates(kind, self.fields)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"

    def bound_state(self) -> dict[str, NDArray[Any]]:
        """Return what binding fixed, as plain arrays."""
        fixed = {f"{word}.{name}": array for name, pair in self.fixed.items() for word, array in zip(_FIXED, pair, strict=True)}
        return self.latent.bound_state() | self.emission.bound_state() | fixed | {"weight": np.array(self.weight)}

    def bound_like(self, other: Model) -> bool:
        """Tell whether another bound model has the same frame, floor and weight, and the same entries fixed as they are."""
        mine, theirs = self.bound_state(), other.bound_state()
        masks = {f"{_FIXED[1]}.{name}": mask for name, (mask, _) in self.fixed.items()}
        if {n: a.shape for n, a in mine.items()} != {n: a.shape for n, a in theirs.items()}:
            return False
        return all(np.array_equal(a[masks.get(n, ...)], theirs[n][masks.get(n, ...)]) for n, a in mine.items())

    def rebound(self, state: Mapping[str, NDArray[Any]]) -> Model:
        """Return the model bound as `bound_state` says, without data."""
        bound = self._with(self.latent.rebound(state), self.emission.rebound(state), float(state["weight"]))
        masks, values = (
            {n.removeprefix(f"{word}."): a for n, a in state.items() if n.startswith(f"{word}.")} for word in _FIXED
        )
        return bound._freezing(masks, values) if masks else bound

    # Parameters

    def params(self, *arrays: NDArray[np.float64], **named: NDArray[np.float64]) -> Any:
        """Return the named tuple of these arrays."""
        return params_type(self.names)(*arrays, **named)

    def distance(self, a: Any, b: Any) -> float:
        """Return the largest difference between two sets of parameters in frame units, up to what no density depends on.

        That is the labels of the states, and what parts have besides: signs of factors.
        """
        from scipy.optimize import linear_sum_assignment

        at, other = (
            np.concatenate([self.latent.places(x), self.emission.places(y)], axis=1) for x, y in map(self._parts, (a, b))
        )
        cost = np.stack([np.abs(place - other).sum(axis=1) for place in at])
        order = linear_sum_assignment(cost)[1]
        pairs = zip((self.latent, self.emission), self._parts(self.permuted(b, order)), self._parts(a), strict=True)
        near = [x for part, theirs, ours in pairs for x in part.nearest(theirs, ours)]
        return max(float(np.abs(x - y).max()) for x, y in zip(a, near, strict=True))

    def _parts(self, params: Any) -> tuple[Any, Any]:
        for known, parts in self._known:
            if known is params:
                return parts
        parts = self.latent.params(*params[: self._split]), self.emission.params(*params[self._split :])
        return self._remember(params, parts)

    def _remember(self, params: Any, parts: tuple[Any, Any]) -> tuple[Any, Any]:
        """Keep the parts of these parameters: a step asks for them several times, and for those of the step before if small."""
        self._known = (params, parts), self._known[0] if self._small else FORGOTTEN
        return parts

    def _part_stats(self, stats: Stats) -> tuple[PartStats, PartStats]:
        """Return the statistics of each part, those of its prior added."""
        latent, emission = self._raw_stats(stats)
        if not self.has_prior:
            return latent, emission
        return self.latent.with_prior(latent), self.emission.with_prior(emission)

    def _raw_stats(self, stats: Stats) -> tuple[PartStats, PartStats]:
        n, m = self._split_stats, self._split_origin
        vector, origin, weight = stats
        origins = (origin[:m], origin[m:]) if m else (NOWHERE, origin)
        return PartStats(vector[:n], origins[0], weight), PartStats(vector[n:], origins[1], weight)

    def to_user(self, params: Any) -> Any:
        """Return parameters in the user's units, a named tuple of arrays."""
        latent, emission = self._parts(params)
        return self.params(*self.latent.to_user(latent), *self.emission.to_user(emission))

    def to_user_tangent(self, v: Any) -> Any:
        """Return a tangent of the parameters in the user's units, a named tuple of arrays."""
        latent, emission = self._parts(v)
        return self.params(*self.latent.to_user_tangent(latent), *self.emission.to_user_tangent(emission))

    def from_user(self, given: Mapping[str, Any]) -> Any:
        """Return checked parameters in frame units from a mapping (or named tuple) in the user's units.

        Raises
        ------
        ValueError
            When a parameter is missing, unknown or invalid.
        """
        given = given._asdict() if hasattr(given, "_asdict") else dict(given)
        names = [f.name for f in self.fields]
        if set(given) != set(names):
            wrong = ", ".join(sorted(set(given) ^ set(names)))
            raise ValueError(f"start: the parameters must be {', '.join(names)}; missing or unknown: {wrong}")
        return self.params(*self.latent.from_user(given), *self.emission.from_user(given))

    def permuted(self, params: Any, order: Sequence[int]) -> Any:
        """Return the parameters with their states in another order."""
        latent, emission = self._parts(params)
        return self.params(*self.latent.permuted(latent, order), *self.emission.permuted(emission, order))

    # A pass, and what its statistics give

    def kernel(self, params: Any) -> Kernel:
        """Return the compiled pass at these parameters."""
        latent, emission = self._parts(params)
        fused = self.emission.fused(self.latent, latent, emission)
        return fused or Coupled(self.latent.kernel(latent), self.emission.kernel(emission))

    def origin(self, params: Any) -> Vector:
        """Return the point about which the statistics of a pass at these parameters are centred."""
        latent, emission = self._parts(params)
        if not self._split_origin:
            return self.emission.origin(emission)
        return np.concatenate([self.latent.origin(latent), self.emission.origin(emission)])

    def recentre(self, stats: Stats, new: Vector) -> Stats:
        """Return the same statistics about another origin, so that they add to those."""
        latent, emission = self._raw_stats(stats)
        m = self._split_origin
        moved = self.latent.recentre(latent, new[:m]), self.emission.recentre(emission, new[m:])
        if moved[0] is latent and moved[1] is emission:
            return stats
        return type(stats)(np.concatenate([part.vector for part in moved]), new, stats.weight)

    def start(self, block: Block, resp: NDArray[np.float64]) -> Any:
        """Return the parameters that fit these responsibilities (n, k) of the rows of a block.

        Raises
        ------
        ValueError
            When they are not one number a row and component.
        """
        n_rows = len(block.rows[0])
        if np.shape(resp) != (n_rows, self.k):
            raise ValueError(f"resp must have shape ({n_rows}, {self.k}), got {np.shape(resp)}")
        latent = Given(resp)
        params = self.frozen(self.params(*self.latent.initial(), *self.emission.first(block, resp)))
        first = self._parts(params)[0]
        for _ in range(2):  # the second time about the means of the first, where nothing cancels
            emission = self._parts(params)[1]
            vector = np.zeros(latent.n_stats + self.emission.layout.size)
            done = run(Coupled(latent, self.emission.kernel(emission)), block, stats=vector)
            n = latent.n_stats
            stats = PartStats(vector[n:], self.emission.origin(emission), done.weight)
            counts = PartStats(vector[:n], NOWHERE, done.weight)
            params = self.params(
                *self.latent.start(first, self.latent.with_prior(counts)),
                *self.emission.m_step(emission, self.emission.with_prior(stats)),
            )
        return params

    def m_step(self, params: Any, stats: Stats) -> Any:
        """Return the parameters that maximise `q` given the statistics (the M-step)."""
        latent, emission = self._parts(params)
        first, second = self._part_stats(stats)
        parts = self.latent.m_step(latent, first), self.emission.m_step(emission, second)
        new = self.params(*parts[0], *parts[1])
        self._remember(new, parts)
        return new

    def q(self, params: Any, stats: Stats) -> float:
        """Return the expected complete-data log-likelihood, constants included (so that loglik - q is the entropy)."""
        latent, emission = self._parts(params)
        first, second = self._part_stats(stats)
        q = self.latent.q(latent, first) + self.emission.q(emission, second)
        if self.has_prior:
            q += (self.latent._prior_constant + self.emission._prior_constant) * (stats.weight / self.weight)
        return q

    def log_prior(self, params: Any) -> float:
        """Return the logarithm of the prior density in the user's units, 0 without a prior."""
        latent, emission = self._parts(params)
        return self.latent.log_prior(latent) + self.emission.log_prior(emission)

    def score(self, params: Any, stats: Stats) -> Any:
        """Return the gradient of `q` with respect to the parameters."""
        latent, emission = self._parts(params)
        first, second = self._part_stats(stats)
        return self.params(*self.latent.score(latent, first), *self.emission.score(emission, second))

    def linear_score(self, params: Any, stats: Stats) -> Any:
        """Return the gradient of the log-likelihood as a linear function of the statistics, without that of priors."""
        latent, emission = self._parts(params)
        first, second = self._raw_stats(stats)
        return self.params(*self.latent.linear_score(latent, first), *self.emission.linear_score(emission, second))

    def linear_scores(self, params: Any, stats: Stats, vectors: Vector) -> Any:
        """Return `linear_score` of vectors of statistics (m, n_stats) about the origin of `stats`, each of weight 0."""
        latent, emission = self._parts(params)
        (first, second), n = self._raw_stats(stats), self._split_stats
        return self.params(
            *self.latent.linear_scores(latent, first, vectors[:, :n]),
            *self.emission.linear_scores(emission, second, vectors[:, n:]),
        )

    def tangent_kernel(self, params: Any, directions: Sequence[Any]) -> Kernel:
        """Return the compiled pass that gives derivatives of the statistics along these tangents of the parameters.

        Raises
        ------
        ValueError
            When a part does not provide "tangent".
        """
        latent, emission = self._parts(params)
        n = self._split
        along = [self.latent.params(*v[:n]) for v in directions], [self.emission.params(*v[n:]) for v in directions]
        return Coupled(self.latent.tangent_kernel(latent, along[0]), self.emission.tangent_kernel(emission, along[1]))

    def sparse_kernel(self, params: Any, resp: NDArray[np.float64], entropies: NDArray[np.float64], least: float) -> Kernel:
        """Return the compiled pass at these parameters that holds small responsibilities, as `Part.sparse_kernel` says."""
        latent, emission = self._parts(params)
        return Coupled(self.latent.sparse_kernel(latent, resp, entropies, least), self.emission.kernel(emission))

    def q_hvp(self, params: Any, stats: Stats, v: Any) -> Any:
        """Return the Hessian of `q` times a tangent v of the parameters, or several (m, ...), statistics held: no pass."""
        return self._by_part("q_hvp", params, stats, v)

    def linear_hvp(self, params: Any, stats: Stats, v: Any) -> Any:
        """Return the derivative of `linear_score`, and of the gradient of priors, along v, or several, statistics held."""
        return self._by_part("linear_hvp", params, stats, v)

    def metric(self, params: Any, stats: Stats, g: Any) -> Any:
        """Return P g for a gradient g with respect to the parameters, or several (m, ...) (Xu and Jordan 1996)."""
        return self._moving(self._by_part("metric", params, stats, self._moving(g)))

    def _by_part(self, verb: str, params: Any, stats: Stats, v: Any) -> Any:
        """Return what a verb of the parts makes of one tangent or gradient, or several."""
        along = self.latent.params(*v[: self._split]), self.emission.params(*v[self._split :])
        parts = zip((self.latent, self.emission), self._parts(params), self._part_stats(stats), along, strict=True)
        return self.params(*(array for part, *given in parts for array in _along(part, verb, *given)))

    def correction(self, params: Any, stats: Stats) -> Any:
        """Return what the M-step adds to ``params + P score``, zero where that is exact; in closed form if nothing is fixed."""
        if self.fixed:
            step = self.metric(params, stats, self.score(params, stats))
            return self.params(*(new - old - s for new, old, s in zip(self.m_step(params, stats), params, step, strict=True)))
        latent, emission = self._parts(params)
        first, second = self._part_stats(stats)
        return self.params(*self.latent.correction(latent, first), *self.emission.correction(emission, second))

    @property
    def separable(self) -> bool:
        """Whether P is the inverse complete information at a solution, block by block."""
        return self.latent.separable and self.emission.separable

    def boundary(self, params: Any) -> tuple[str, ...]:
        """Return which parameters sit on the boundary of their space, in words."""
        latent, emission = self._parts(params)
        return self.latent.boundary(latent) + self.emission.boundary(emission)

    def framed(self, block: Block) -> NDArray[np.float64]:
        """Return the rows of a block in frame units, (n, d) float64: for starts, on a sample."""
        return self.emission.framed(block)

    def condition(self, params: Any) -> float:
        """Return by how much the parameters amplify rounding errors, at least 1: the most that a part does.

        What a state of share s brings into the value is no more than s, whatever its parameters.
        """
        latent, emission = self._parts(params)
        found, shares = self.emission.condition(emission), self.latent.shares(latent)
        if isinstance(found, np.ndarray):
            found = float(found.max()) if shares is None else largest_within(found, shares, EPS)
        return max(1.0, found, self.latent.condition(latent))

    def coarseness(self, params: Any) -> float:
        """Return the relative error of the value of a pass that is computed in fewer digits than it could be, or 0."""
        latent, emission = self._parts(params)
        return max(self.latent.coarseness(latent), self.emission.coarseness(emission))

    def warnings(self) -> tuple[str, ...]:
        """Return what the user should know about the data that the model was bound to."""
        return self.latent.warnings() + self.emission.warnings()

    # Draws

    def expected_response(self, user: Any, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return the expected response at each row of covariates X (n, d), shape (n,), from parameters in the user's units.

        Raises
        ------
        ValueError
            When a part of the model does not say what it expects.
        """
        for part, verb in ((self.latent, "prior_probabilities"), (self.emission, "expected_responses")):
            if getattr(type(part), verb) is getattr(Part, verb):
                raise ValueError(f"{self.name} cannot predict a response: {type(part).__name__} has no {verb}")
        latent, emission = self._parts(user)
        shares, responses = self.latent.prior_probabilities(latent, X), self.emission.expected_responses(emission, X)
        return np.einsum("nk,nk->n", shares, responses)

    def sample(self, params: Any, n: int, rng: np.random.Generator, *, X: Any = None) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Return rows drawn from the model, and the states that they were drawn from.

        Parameters
        ----------
        params : mapping or named tuple
            All parameters in the user's units. The model need not be bound, and what it was bound to does not matter.
        n : int
            How many rows.
        rng : Generator
        X : array_like (n, d), optional
            What the rows are conditional on, where the model does not say how that is distributed.

        Returns
        -------
        rows : ndarray (n, d)
            Or what else the model describes. Whole numbers as int64, others as float64.
        states : ndarray (n,)

        Raises
        ------
        ValueError, TypeError
            Naming the argument; also when a part of the model cannot be drawn from.
        """
        n = whole("n", n)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy Generator, such as numpy.random.default_rng(0), got {rng!r}")
        wanted = self.emission.draws_given
        if (X is not None) != bool(wanted):
            raise ValueError(f"X must be {wanted or 'None'} for draws of {self.name}")
        if X is not None:
            X = finite_array("X", X, {"": (n, "d")})
        for part in (self.latent, self.emission):
            if type(part).sample is Part.sample:
                raise ValueError(f"{self.name} cannot be drawn from: {type(part).__name__} has no sample")
        given = params._asdict() if hasattr(params, "_asdict") else dict(params)
        try:
            sized = self._with(self.latent.sized(given), self.emission.sized(given), 1.0)
            latent, emission = sized._parts(sized.from_user(given))
        except ValueError as error:  # what is checked is the same
            raise ValueError("params" + str(error).removeprefix("start")) from None
        states = sized.latent.sample(latent, n, rng, X)
        return sized.emission.sample(emission, states, rng, X), states
