"""The laws that every model must keep, tried on anybody's model and data, with words for what is broken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emcore.data import as_source
from emcore.fit import generators, prepare
from emcore.kernels import run
from emcore.models import Mixture
from emcore.objective import CONDITION
from emcore.result import Breakdown, Stop, rounding
from emcore.solve import solve
from emcore.solvers import EM
from emcore.starts import starting_point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    from emcore.models import Model
    from emcore.objective import ModelObjective, Point

    Vector = NDArray[np.float64]

__all__ = ["Checks", "Law", "check"]

STEP = 1e-4
NEAR = 1e-5  # relative: what differences of fourth order and a differenced score leave
LIMIT = 200  # coordinates up to which P is looked at for a standard deviation of each
BEGUN = "Look at statistics and M-step. What follows is tried at the parameters from which the start's M-step began."
KINKED = "It takes derivatives, which a kink does not have: see smooth densities."
UNTRIED = "not tried"
DECLARED = "declared to move"
HALVINGS = 20  # by which kinks are told from bends
LAST = 6  # of these are looked at: the first may be too coarse to see that a bend is none
COLUMNS = 5  # up to which draws tell what a density adds up to
DRAWS = 32768
CENTRES = 64  # rows around which they are drawn
KERNELS = ((0.35, 0.25, 5.0), (0.35, 0.6, 5.0), (0.3, 1.5, 1.0))  # share of the draws, width, degrees of freedom
LARGEST = 0.01  # part of a total that one draw may have, or a row if it were drawn
UNSURE = 0.04  # relative standard error of a total that says something
FEW = 0.02  # by how much a total from draws may miss 1 at least
WHOLE = 0.01  # by how much the integral of a density may miss 1: quadrature across jumps


class Law(NamedTuple):
    """One law: whether it holds, by how much it is missed, and where to look if it does not."""

    name: str
    holds: bool
    found: str
    advice: str


@dataclass(frozen=True)
class Checks:
    """What `check` found; prints itself.

    Attributes
    ----------
    laws : tuple of Law
    """

    laws: tuple[Law, ...]

    @property
    def holds(self) -> bool:
        """Whether every law holds."""
        return all(law.holds for law in self.laws)

    def __str__(self) -> str:
        out = []
        for law in self.laws:
            word = "FAILS " if not law.holds else "-     " if law.found.startswith((UNTRIED, DECLARED)) else "holds "
            out.append(f"{word} {law.name}: {law.found}")
            if not law.holds:
                out.append(f"        {law.advice}")
        return "\n".join(out)


def check(
    model: Model,
    X: ArrayLike | Any,
    *,
    start: Any = "random-points",
    sample_weight: ArrayLike | None = None,
    random_state: Any = 0,
    max_passes: int = 500,
) -> Checks:
    """Return which of the laws of a model hold on data: at the start, and where EM leads from there.

    - a start, where its M-step breaks: the others are tried at the parameters from which it began then;
    - a pass: densities are finite, numbers of threads do not matter, statistics of pieces add;
    - the support: which rows have a density under which component stays as it is when parameters move a little, and as far as
      an EM step moves them. That a model declares a support that moves (``moving_support``) is told and is no failure, unless
      it moves with another parameter too; what takes a gradient is not expected to hold then, and is left out;
    - ``value - q`` is the entropy of the posterior, where nothing is latent but the state;
    - if one of those that follow fails: whether log-densities have kinks, as ``|x - m|`` has, which are no support that moves;
    - Fisher's identity: the score is the slope of the value, and the slope of `q` at held statistics;
    - the M-step is a maximum of `q`: better than where it began and than its neighbours;
    - P is positive definite, and to first order EM's step is P times the gradient: what is left of it shrinks fourfold as the
      distance to EM's resting point halves;
    - EM rises, in each step by what `q` rises at least, and the gradient is 0 where it rests;
    - the density of rows of one column has the integral (or sum) 1 over the line or another domain that the rows suggest. That
      of rows of up to five columns is estimated from draws around the rows, and fails only where it is clearly wrong. Where
      that cannot tell, as of rows of whole numbers or of responses, the report says that it was not tried.

    Parameters
    ----------
    model : Model
    X : array_like (n, d), or what `emcore.fit` takes
        A few hundred rows are enough.
    start : str or mapping
        As for `emcore.fit`.
    sample_weight, random_state
    max_passes : int
        For the climb by EM.

    Raises
    ------
    ValueError, TypeError
        As `emcore.fit` does.
    """
    objective = prepare(model, X, sample_weight=sample_weight, n_threads=1)
    laws = []
    try:
        point, _ = starting_point(objective, start, generators(random_state, 1)[0])
    except ValueError as error:
        if not isinstance(error.__context__, Breakdown):  # the argument is wrong, or a function of the user's
            raise
        advice = f"No M-step from {start!r} ends at parameters. {BEGUN}"
        laws.append(Law("a start", False, str(error.__context__.failure), advice))
        parts = objective.model.latent, objective.model.emission
        point = objective.point_of(objective.model.params(*(x for part in parts for x in part.initial())))
    laws += _pass(objective, point)
    e = objective.evaluate(point)
    if e.failure is not None:
        return Checks(tuple(laws))
    if (operator := getattr(objective.model.emission, "operator", "exact")) != "exact":
        laws.append(Law(
            "the E-step is exact", False, f"operator {operator!r}",
            "It is no conditional expectation, and its iteration is no EM: it may fall, and rests where the gradient does not.",
        ))  # fmt: skip
    units = _units(objective, e)
    laws.append(_support(objective, e, units))
    smooth = laws[-1].holds
    derived = []
    if "gradient" in objective.capabilities:
        derived += [_fisher(objective, e, units), _slope_of_q(objective, e, units)]
    if "sparse" in objective.capabilities:
        laws.append(_entropy(objective, e))
    derived.append(_m_step(objective, e, units))
    if "metric" in objective.capabilities:
        derived.append(_metric(objective, e))
    derived += _climb(objective, point, max_passes)
    if smooth and not all(law.holds for law in derived) and (kinks := _kinks(objective, e, units)):
        laws.append(kinks)
        derived = [law if law.holds else law._replace(advice=KINKED) for law in derived]
    return Checks((*laws, *derived, _whole(objective, e, units)))


def _pass(objective: ModelObjective, point: Point) -> list[Law]:
    e = objective.evaluate(point)
    if e.failure is not None:
        advice = (
            "Look at log_density: it must be finite at a start; where a parameter says which rows have a density, initial= "
            "must leave it to all of them."
        )
        return [Law("finite densities", False, str(e.failure), advice)]
    laws = [Law("finite densities", True, f"mean log-density {e.value:.6g}", "")]
    saved, objective.n_threads = objective.n_threads, 2
    try:
        again = objective.evaluate(point)
    finally:
        objective.n_threads = saved
    same = again.value == e.value and np.array_equal(again.stats.vector, e.stats.vector)
    laws.append(Law("same bits", same, "1 and 2 threads", "A pass may depend on rows and parameters alone."))
    _, parts = objective.each(point, objective.pieces(3))
    total = sum(part.stats.vector for part in parts)
    gap = float(np.max(np.abs(total - e.stats.vector) / np.maximum(1.0, np.abs(e.stats.vector)), initial=0.0))
    laws.append(Law(
        "statistics add", gap < 1e-9, f"pieces miss the whole by {gap:.1e}",
        "Look at the statistics: of each row apart, and linear in the responsibilities.",
    ))  # fmt: skip
    return laws


def _units(objective: ModelObjective, e: Any) -> Vector:
    """Return a standard deviation of the complete data of one row in each coordinate, as P says; 1 where it says nothing."""
    ones = np.ones(objective.size)
    if "metric" not in objective.capabilities or objective.size > LIMIT:
        return ones
    try:
        variances = np.diag(e.precondition(np.eye(objective.size)))
    except Breakdown:
        return ones
    return np.sqrt(np.where(np.isfinite(variances) & (variances > 0), variances, 1.0))


def _named(objective: ModelObjective, wrong: NDArray[np.bool_]) -> str:
    return ", ".join(name for name, part in objective.coordinates.slices.items() if wrong[part].any())


def _densities(objective: ModelObjective, params: Any) -> Iterator[Vector]:
    """Yield the log-densities of all rows under one component after the other; of other latents than mixtures under all."""
    model, mixed = objective.model, isinstance(objective.model.latent, Mixture) and "weights" in params._fields
    for c in range(model.k if mixed else 1):
        kernel = model.kernel(params._replace(weights=np.eye(model.k)[c]) if mixed else params)
        found = np.empty(objective.source.n_rows)
        for i in range(objective.source.n_blocks):
            block = objective.source.block(i)
            row = objective.source.row_of(i, 0)
            run(kernel, block, row_loglik=found[row : row + len(block.rows[0]) if block.bounds is None else None])
        yield found


def _support(objective: ModelObjective, e: Any, units: Vector) -> Law:
    theta, moved, where, declared = e.point.theta, np.zeros(objective.size, dtype=bool), set(), objective.moving_support
    here = [np.isfinite(f) for f in _densities(objective, e.point.params)]
    try:
        step = np.abs(e.em_point.theta - theta)
    except Breakdown:
        step = np.zeros(objective.size)
    names = [name for name, part in objective.coordinates.slices.items() for _ in range(part.stop - part.start)]
    for j in range(min(objective.size, LIMIT)):
        if names[j] == "weights" or names[j] in declared:
            continue
        for size in {STEP * units[j], 0.3 * units[j], 1.1 * step[j]}:
            for sign in (-1.0, 1.0):
                t = theta.copy()
                t[j] += sign * size
                try:
                    there = [np.isfinite(f) for f in _densities(objective, objective.point(t).params)]
                except Breakdown:
                    continue
                changed = {c for c, (a, b) in enumerate(zip(here, there, strict=True)) if not np.array_equal(a, b)}
                moved[j] |= bool(changed)
                where |= changed
    if not where and declared:
        said = f"{DECLARED} with {', '.join(declared)}: Fisher's identity is not expected; only EM runs, which freezes there"
        return Law("smooth support", True, said, "")
    if not where:
        return Law("smooth support", True, "the same rows have a density at points nearby", "")
    which, under = _named(objective, moved), ", ".join(map(str, sorted(where)))
    return Law(
        "smooth support", False, f"rows gain or lose their density under component {under} when {which} moves",
        f"Unless the logarithm underflows there, the support depends on {which}: say so with moving_support. No gradient is "
        "that of the log-likelihood then, and EM freezes.",
    )  # fmt: skip


def _kinks(objective: ModelObjective, e: Any, units: Vector) -> Law | None:
    """Return the law that does not hold where log-densities, finite on all sides, have kinks nearby; None where none was found.

    Where second differences are largest, points are taken twice as close again and again. Those of a bend are a quarter then,
    those of a kink a half, those of a jump all there.
    """
    found = {}
    names = [name for name, part in objective.coordinates.slices.items() for _ in range(part.stop - part.start)]
    for j in range(min(objective.size, LIMIT)):
        if names[j] != "weights" and (where := _kinked(objective, e, j, 0.3 * _scales(e.point.theta, units)[j])):
            found.setdefault(names[j], set()).update(where)
    if not found:
        return None
    which, under = ", ".join(found), ", ".join(map(str, sorted(set().union(*found.values()))))
    return Law(
        "smooth densities", False, f"under component {under} the log-density of some rows has a kink where {which} passes them",
        f"It is finite on both sides: the support does not depend on {which}, and the score is right but at the kinks. There "
        "derivatives do not exist: give an m_step (for |x - m| a weighted median), and expect nothing of a Hessian.",
    )  # fmt: skip


def _kinked(objective: ModelObjective, e: Any, j: int, reach: float) -> set[int]:
    """Return the components under which the log-density of a row has a kink along a coordinate, this near."""

    def densities(t: float) -> NDArray[np.float64]:
        theta = e.point.theta.copy()
        theta[j] += t
        return np.array(list(_densities(objective, objective.point(theta).params)))

    ends, found = np.linspace(-reach, reach, 9), set()
    try:
        values = np.array([densities(t) for t in ends])
    except Breakdown:
        return found
    for c in range(values.shape[1]):
        with np.errstate(invalid="ignore"):
            bends = np.nan_to_num(np.abs(np.diff(values[:, c], n=2, axis=0)), nan=0.0, posinf=0.0)
        node, row = np.unravel_index(np.argmax(bends), bends.shape)
        at, step, sizes = ends[node + 1], ends[1] - ends[0], []
        f = values[node : node + 3, c, row]
        for _ in range(HALVINGS):
            step *= 0.5
            try:
                f = np.array([f[0], densities(at - step)[c, row], f[1], densities(at + step)[c, row], f[2]])
            except Breakdown:
                f = np.full(5, np.nan)
            second = np.abs(np.diff(f, n=2))
            middle = int(np.argmax(second))
            at, f = at + (middle - 1) * step, f[middle : middle + 3]
            sizes.append(second[middle])
        if not np.isfinite(sizes).all() or sizes[-1] <= 1e3 * rounding(float(np.max(np.abs(f)))):
            continue
        if 0.2 * sizes[-1 - LAST] <= 2.0**LAST * sizes[-1] <= 5.0 * sizes[-1 - LAST]:
            found.add(c)
    return found


def _slopes(f: Callable[[Vector], float], theta: Vector, units: Vector) -> Vector:
    """Return central differences of fourth order, (p,), a unit of each coordinate being 1."""
    slopes = np.empty(len(theta))
    for j, v in enumerate(STEP * np.diag(_scales(theta, units))):
        a, b, c, d = (f(theta + s * v) for s in (-2, -1, 1, 2))
        slopes[j] = (8 * (c - b) - (d - a)) / (12 * STEP)
    return slopes


def _scales(theta: Vector, units: Vector) -> Vector:
    """Return what is of the order of 1 in each coordinate: P says nothing of it where densities have kinks."""
    return np.minimum(units, np.maximum(1.0, np.abs(theta)))


def _unlike(slopes: Vector, g: Vector) -> NDArray[np.bool_]:
    return ~(np.abs(slopes - g) <= NEAR * max(1.0, float(np.max(np.abs(g)))))


def _fisher(objective: ModelObjective, e: Any, units: Vector) -> Law:
    g = e.gradient
    if not np.isfinite(g).all():
        return Law("Fisher's identity", False, "the score is not finite", "Look at the score at the parameters of a start.")
    with np.errstate(invalid="ignore"):
        slopes = _slopes(lambda t: objective.evaluate(t).value, e.point.theta, units)
    g = g * _scales(e.point.theta, units)
    broken, wrong = ~np.isfinite(slopes), _unlike(slopes, g)
    if not wrong.any():
        return Law("Fisher's identity", True, f"largest gap {np.max(np.abs(slopes - g)):.1e}", "")
    if broken.any():
        advice = "A row lost its density next to the start: the support seems to depend on a parameter (moving_support)."
    else:
        advice = (
            "Look at the score: it must be the gradient of the expected log-density. If it is, the support may depend on a "
            "parameter (moving_support), or densities jump: then no gradient is that of the log-likelihood."
        )
    found = f"score and differences of the value disagree for {_named(objective, wrong)}"
    return Law("Fisher's identity", False, found, advice)


def _slope_of_q(objective: ModelObjective, e: Any, units: Vector) -> Law:
    name, g = "the score is the slope of q", e.gradient * _scales(e.point.theta, units)

    def q(t: Vector) -> float:
        return objective.q(objective.point(t), e.stats)

    with np.errstate(invalid="ignore"):
        slopes = _slopes(q, e.point.theta, units)
    wrong = _unlike(slopes, g)
    if not wrong.any():
        return Law(name, True, f"largest gap {np.max(np.abs(slopes - g)):.1e}", "")
    found = f"score and differences of q disagree for {_named(objective, wrong)}"
    return Law(name, False, found, "Look at expected and at the score: one must be the gradient of the other, statistics held.")


def _entropy(objective: ModelObjective, e: Any) -> Law:
    _, resp = objective.free_energy(e.point)
    source = objective.source
    weights = np.concatenate(
        [np.ones(len(b.rows[0])) if b.weights is None else b.weights for b in map(source.block, range(source.n_blocks))]
    )
    own = -float(weights @ np.sum(resp * np.log(np.where(resp > 0, resp, 1.0)), axis=1)) / e.stats.weight
    allowed = max(1e-8 * max(1.0, e.scale), e.noise)
    return Law(
        "value - q is the posterior's entropy", abs(e.entropy - own) <= allowed,
        f"{e.entropy:.6g}, and of the posterior {own:.6g}",
        "Look at expected: the sum of the log-densities that the rows have, constants included.",
    )  # fmt: skip


def _m_step(objective: ModelObjective, e: Any, units: Vector) -> Law:
    name = "the M-step is a maximum of q"
    advice = "Look at the M-step: it must maximise the expected log-density, not raise it only."
    try:
        e.gain  # noqa: B018
    except Breakdown as broken:
        return Law(name, False, str(broken.failure), advice)
    top, theta = objective.q(e.em_point, e.stats), e.em_point.theta
    noise = max(e.noise, rounding(max(abs(top), objective.condition(e.em_point) / CONDITION)))
    step = theta - e.point.theta
    reach, rng = np.maximum(np.abs(step), STEP * units), np.random.default_rng(0)
    directions = [step, -step, *(sign * reach * u for u in rng.normal(size=(10, len(theta))) for sign in (-1, 1))]
    if "gradient" in objective.capabilities:
        directions.append(units**2 * objective.gradient(e.em_point, e.stats))
    best = -np.inf
    for size in (1.0, 0.1, 0.01):
        for v in directions:
            try:
                found = objective.q(objective.point(theta + size * v), e.stats)
            except Breakdown:
                continue
            best = max(best, found if np.isfinite(found) else -np.inf)
    said = f"rises by {e.gain:.1e}" + (f", but nearby it is {best - top:.1e} higher" if best > top + noise else "")
    return Law(name, best <= top + noise, said, advice)


def _metric(objective: ModelObjective, e: Any) -> Law:
    name, advice = "P is positive definite", "Look at the metric: the inverse of minus the Hessian of the expected log-density."
    V = np.random.default_rng(0).normal(size=(8, objective.size))
    try:
        PV = e.precondition(V.T).T
    except Breakdown as broken:
        return Law(name, False, str(broken.failure), advice)
    if not np.isfinite(PV).all() and objective.boundary(e.point):
        return Law(name, True, f"{UNTRIED}: the start is on the boundary", "")
    products = V @ PV.T
    least, skew = float(np.min(np.diag(products))), float(np.max(np.abs(products - products.T)))
    holds = bool(least > 0 and skew <= 1e-6 * np.abs(products).max())
    return Law(name, holds, f"least product {least:.1e}, asymmetry {skew:.1e}", advice)


def _climb(objective: ModelObjective, point: Point, max_passes: int) -> list[Law]:
    fit = solve(objective, EM(), point, stop=Stop(gain=1e-13, max_passes=max_passes))
    values, gains, steps = fit.trace.value, fit.trace.gain[:-1], fit.steps
    failure = fit.failure
    if steps == 0 and failure is None:  # at rest where it starts, or so its M-step says: a step all the same
        e = fit.evaluation
        again = objective.evaluate(e.em_point)
        values, gains, steps, failure = np.array([e.value, again.value]), np.array([e.gain]), 1, again.failure
    changes = np.diff(values)
    short = float(max(0.0, *(gains - changes))) if failure is None else np.inf
    falls = float(max(0.0, *-changes)) if len(changes) else 0.0
    rises = failure is None and short <= max(fit.evaluation.noise, rounding(float(np.max(np.abs(values)))))
    found = str(failure) if failure else f"{steps} steps, largest fall {falls:.1e}, largest shortfall from q's rise {short:.1e}"
    advice = "Look at the M-step, which must not lower the expected log-density, and at expected: the value rises as much."
    laws = [Law("EM rises", rises, found, advice)]
    if failure is not None or "gradient" not in objective.capabilities:
        return laws
    if not fit.status.ok or fit.boundary:
        laws.append(Law("gradient 0 where EM rests", True, f"{UNTRIED}: {fit.status.value}", ""))
        return laws
    e = fit.evaluation
    g = float(np.max(np.abs(e.gradient * np.minimum(1.0, _units(objective, e))), initial=0.0))
    laws.append(Law(
        "gradient 0 where EM rests", g < 1e-4, f"largest entry {g:.1e}",
        "The M-step rests where the score does not vanish: it is no maximum of the expected log-density, or the score wrong.",
    ))  # fmt: skip
    if "metric" in objective.capabilities:
        laws.append(_first_order(objective, e))
    return laws


def _first_order(objective: ModelObjective, e: Any) -> Law:
    direction = _units(objective, e) * np.random.default_rng(0).normal(size=objective.size)
    gaps, sizes = [], []
    for h in (1e-3, 5e-4):
        near = objective.evaluate(e.point.theta + h * direction)
        step = (near.em_point.theta - near.point.theta) / h
        gaps.append(float(np.max(np.abs(step - near.precondition(near.gradient) / h))))
        sizes.append(float(np.max(np.abs(step))))
    holds = gaps[0] <= 0.1 * sizes[0] + 1e-9 and gaps[1] <= gaps[0] / 1.6 + 1e-4 * sizes[1] + 1e-9  # of a step of order 1
    return Law(
        "EM step is P gradient", holds, f"gap {gaps[0]:.1e} of a step of {sizes[0]:.1e}, {gaps[1]:.1e} at half the distance",
        "To first order the EM step is the metric times the gradient: look at the metric, the M-step and the score.",
    )  # fmt: skip


def _panels(ends: Vector, each: int = 20) -> tuple[Vector, Vector]:
    """Return nodes and weights of Gauss and Legendre between these ends."""
    x, w = np.polynomial.legendre.leggauss(each)
    middle, half = 0.5 * (ends[1:] + ends[:-1]), 0.5 * np.diff(ends)
    return (middle[:, None] + half[:, None] * x).ravel(), (half[:, None] * w).ravel()


def _domains(rows: Vector) -> Iterator[tuple[str, Vector, Vector]]:
    """Yield domains that these rows may be of, with nodes and weights of a quadrature."""
    low, high, spread = rows.min(), rows.max(), max(float(rows.std()), 1e-12)
    inside = _panels(np.unique(np.quantile(rows, np.linspace(0, 1, 33))))
    t, dt = _panels(np.linspace(0, 30, 61))
    below, above = (low - spread * np.expm1(t), spread * np.exp(t) * dt), (high + spread * np.expm1(t), spread * np.exp(t) * dt)

    def joined(name: str, *parts: tuple[Vector, Vector]) -> tuple[str, Vector, Vector]:
        return name, np.concatenate([x for x, _ in parts]), np.concatenate([w for _, w in parts])

    def until(end: float, last: float) -> tuple[Vector, Vector]:
        return end + (last - end) * np.exp(-t), abs(last - end) * np.exp(-t) * dt

    yield joined("the line", below, inside, above)
    if low > 0:
        yield joined("the positive numbers", until(0.0, low), inside, above)
    for name, a, b in (("0 to 1", 0.0, 1.0), ("0 to 2 pi", 0.0, 2 * np.pi), ("-pi to pi", -np.pi, np.pi)):
        if a < low and high < b:
            yield joined(name, until(a, low), inside, until(b, high))
    if np.all(rows == np.round(rows)):
        reach = int(min(60 * spread + 100, 1e5))
        for name, a, b in (
            ("the whole numbers", low - reach, high + reach), ("the numbers 0, 1, 2, ...", 0.0, high + reach),
            ("the whole numbers between the rows", low, high),
        ):  # fmt: skip
            if a <= low:
                numbers = np.arange(a, b + 1)
                yield name, numbers, np.ones(len(numbers))


def _whole(objective: ModelObjective, e: Any, units: Vector) -> Law:
    """Return the law that the density of rows is one: of one column by quadrature, of a few by draws."""
    name, emission = "the density is one", objective.model.emission
    why = ""
    if emission.n_responses or emission.draws_given:
        why = "it is that of a part of the data given another"
    elif emission.takes_missing:
        why = "rows may have missing values"
    elif objective.source.n_columns > COLUMNS:
        why = f"the rows have more than {COLUMNS} columns"
    if why:
        return Law(name, True, f"{UNTRIED}: {why}", "")
    blocks = [objective.source.block(i) for i in range(objective.source.n_blocks)]
    rows = np.concatenate([b.rows[0] if b.weights is None else b.rows[0][b.weights > 0] for b in blocks]).astype(np.float64)
    found = _by_quadrature(objective, e, units, rows[:, 0]) if rows.shape[1] == 1 else _by_draws(objective, e, units, rows)
    if isinstance(found, str):
        return Law(name, True, f"{UNTRIED}: {found}", "")
    return Law(
        name, found.holds, found.words,
        "Look at log_density: constants and all that depends on parameters belong to it, and it is -inf outside of its domain.",
    )  # fmt: skip


class Total(NamedTuple):
    """What a density adds up to, in words, and whether that is 1."""

    holds: bool
    words: str


def _near(objective: ModelObjective, point: Point, units: Vector) -> list[Point]:
    """Return a point and one beside it."""
    moved = 0.3 * _scales(point.theta, units) * np.random.default_rng(0).normal(size=objective.size)
    return [point, objective.point(point.theta + moved)]


def _by_quadrature(objective: ModelObjective, e: Any, units: Vector, rows: Vector) -> Total | str:
    """Return what the density of rows of one column adds up to at the start or near it, or why that cannot be said."""
    totals = [_totals(objective.model, point.params, rows) for point in _near(objective, e.point, units)]
    if not totals[0]:
        return "the model refuses all rows but its own"
    found = (min(each, key=lambda f: abs(f[0] - 1.0)) for each in totals if each)
    total, name = max(found, key=lambda f: abs(f[0] - 1.0))
    return Total(abs(total - 1.0) <= WHOLE, f"it adds up to {total:.4g} over {name}")


def _by_draws(objective: ModelObjective, e: Any, units: Vector, rows: Vector) -> Total | str:
    """Return what the density of rows of some columns adds up to, or why that cannot be said.

    By importance sampling, from kernels around some of the rows, of three widths, the widest with tails like Cauchy's. It can
    miss only what is far from all rows: so it is tried where an M-step leads, where components are among the rows, and near it.
    An estimate counts only where no draw nor row has a large part in it.
    """
    if np.any(np.all(rows == np.round(rows), axis=0)):
        return "rows of whole numbers, in several columns"
    try:
        point = e.em_point
    except Breakdown:
        point = e.point
    drawn = _kernels(rows)
    if drawn is None:
        return "the rows lie on a surface of fewer dimensions"
    nodes, log_g = drawn
    source = as_source(nodes)
    try:
        objective.model.emission.check(source)
    except ValueError:  # rows of another kind
        return "the model refuses all rows but its own"
    found = []
    for each in _near(objective, point, units):
        try:
            kernel = objective.model.kernel(each.params)
        except Breakdown:
            continue
        log_f = np.empty(len(nodes))
        run(kernel, source.block(0), row_loglik=log_f)
        with np.errstate(over="ignore", invalid="ignore"):
            ratios = np.exp(np.where(np.isnan(log_f), -np.inf, log_f) - log_g)
        totals = []
        for name, inside in _boxes(rows, nodes):
            part = np.where(inside, ratios, 0.0)
            largest, total = part.max(), float(part[:DRAWS].mean())
            error = float(part[:DRAWS].std()) / DRAWS**0.5 if largest <= LARGEST * DRAWS * max(total, 1.0) < np.inf else np.inf
            told = error <= UNSURE * total
            totals.append((abs(total - 1.0) <= max(FEW, 6 * error), total, error, name) if told else None)
        right = [t for t in totals if t is not None and t[0]]
        if right:
            found.append(min(right, key=lambda t: abs(t[1] - 1.0)))
        elif None in totals:
            found.append(None)
        else:
            found.append(min(totals, key=lambda t: abs(t[1] - 1.0)))
    wrong = [t for t in found if t is not None and not t[0]]
    if not wrong and (not found or None in found):
        return "draws around the rows cannot tell"
    _, total, error, name = max(wrong or found, key=lambda t: abs(t[1] - 1.0))
    return Total(not wrong, f"it adds up to {total:.4g} +- {error:.1g} over {name}")


def _kernels(rows: Vector) -> tuple[Vector, Vector] | None:
    """Return draws around rows, and behind them some of the rows, with the logarithms of the density of these draws at all.

    None where the rows have no covariance. It is that of rows whose outliers are cut off, which heavy tails would spoil.
    """
    rng, d = np.random.default_rng(0), rows.shape[1]
    low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    spread = np.where(high > low, high - low, rows.std(axis=0))
    if not np.all(spread > 0):
        return None
    scaled = (rows - middle) / spread
    values, vectors = np.linalg.eigh(np.cov(np.clip(scaled, -4, 4), rowvar=False))
    if len(rows) <= d or values[0] <= 1e-8 * values[-1]:
        return None
    root = vectors * np.sqrt(values)
    z = scaled @ vectors / np.sqrt(values)
    centres = z[rng.choice(len(z), min(len(z), CENTRES), replace=False)]
    draws = []
    for share, width, nu in KERNELS:
        n = round(share * DRAWS)
        t = rng.normal(size=(n, d)) / np.sqrt(rng.chisquare(nu, size=(n, 1)) / nu)
        draws.append(centres[np.arange(n) % len(centres)] + width * t)
    at = np.concatenate([*draws, z[:1000]])
    squares = sum(np.square(at[:, j, None] - centres[:, j]) for j in range(d))
    log_g = np.logaddexp.reduce([
        np.logaddexp.reduce(-0.5 * (nu + d) * np.log1p(squares / (nu * width**2)), axis=1)
        + math.lgamma(0.5 * (nu + d)) - math.lgamma(0.5 * nu) - 0.5 * d * math.log(nu * math.pi * width**2)
        + math.log(share / len(centres)) for share, width, nu in KERNELS
    ], axis=0)  # fmt: skip
    log_g -= np.sum(np.log(spread)) + 0.5 * np.sum(np.log(values))
    return middle + spread * (at @ root.T), log_g


def _boxes(rows: Vector, nodes: Vector) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield domains that these rows may be of, and which nodes are in them."""
    yield "all numbers", np.ones(len(nodes), dtype=bool)
    low, high = rows.min(axis=0), rows.max(axis=0)
    positive, unit = low > 0, (low > 0) & (high < 1)
    if positive.any():
        yield "the positive numbers", np.all((nodes > 0) | ~positive, axis=1)
    if unit.any():
        yield "0 to 1", np.all(((nodes > 0) | ~positive) & ((nodes < 1) | ~unit), axis=1)
    for name, a, b in (("0 to 2 pi", 0.0, 2 * np.pi), ("-pi to pi", -np.pi, np.pi)):
        if np.all((a < low) & (high < b)):
            yield name, np.all((nodes > a) & (nodes < b), axis=1)


def _totals(model: Model, params: Any, rows: Vector) -> list[tuple[float, str]]:
    """Return what the density adds up to over each domain whose rows the model does not refuse."""
    try:
        kernel = model.kernel(params)
    except Breakdown:
        return []
    found = []
    for name, nodes, weights in _domains(rows):
        source = as_source(nodes[:, None])
        try:
            model.emission.check(source)
        except ValueError:  # rows of another kind
            continue
        out = np.empty(len(nodes))
        run(kernel, source.block(0), row_loglik=out)
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(np.sum(np.where(np.isnan(out), 0.0, np.exp(out)) * weights))
        found.append((total if np.isfinite(total) else np.inf, name))
    return found
