"""Trust regions: maximise a quadratic model of the hill within a ball, and trust it as far as it told the truth.

The ball is one of EM's own metric, ``|s|^2 = s' P^-1 s``: in it a step of length 1 moves the parameters by one standard
deviation of a row of complete data, whatever the units and the coordinates. EM's step itself is the gradient in that
metric, so a small ball gives a short step of EM and a large one Newton's. Or it is one of the divergence of posteriors, in
which directions are the shorter the more information the data have about them (`Whole`, of `missing`).

Two ways to solve ``max g's + s'Hs/2`` within the ball, one interface: `within(radius)` gives the step, for any radius
and at no further cost.

* `Whole` has H whole, from one pass of p columns, and solves the problem exactly in the eigenvectors of P^1/2 H P^1/2.
  A direction in which the hill curves upwards is followed to the edge, also where the gradient does not see it.
* `Path` has products with H, a pass each: the path of conjugate gradients from 0 to Newton's step, preconditioned by P,
  cut where it leaves the ball or where the hill curves upwards (Steihaug 1983; Toint 1981). Along it steps only become
  longer, so that a smaller ball cuts the same path earlier.

The logarithm of a parameter that goes to 0 has a metric without bound: there the whole ball is endless, and rounding is
blown up to moves of any length. So no coordinate moves farther than its reach, see `reach_from`: `Whole` shortens axes of its
ball that go beyond it, `Path` ends there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from emcore._vectors import moves
from emcore.result import Breakdown, Failure, Status, in_doubt
from emcore.solvers._search import INFEASIBLE, MAX_TRIALS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcore.objective import Evaluation, Objective

    Vector = Matrix = NDArray[np.float64]

__all__ = ["Climb", "Height", "Hill", "Path", "Step", "Whole", "advance", "length", "reach_from"]

DEGENERATE = 1e-14  # an eigenvalue of the correlations of P below this part of the largest is a direction that cannot move
COMPLETE = 0.1  # what part of EM's metric bounds directions about which no information is missing
FLAT = 1e-13  # of the largest: a curvature that cannot be told from none
ENOUGH = 1e-4  # part of the promised rise that a step must deliver
GOOD, BAD = 0.75, 0.25  # of the promised rise: where the ball grows, where it shrinks
GROW, SHRINK = 2.5, 0.25
WIDEST = 1e6  # radius beyond which a ball no longer grows: the reach bounds nearly every step by then
FAR = 100.0  # how far a coordinate next to 0 moves at most in one step; of a logarithm it is farther than any parameter needs
SECULAR = 1e-10  # to how many digits a step ends on the edge of the ball


class Step(NamedTuple):
    """What a quadratic model proposes.

    move, length : the step and its length in the metric of the ball
    rise : what it promises
    upwards : whether it follows upward curvature
    held : whether it ends where a coordinate comes to the end of its reach, and not at the edge of the ball
    multiplier : that of the ball; NaN where it is not known
    """

    move: Vector
    length: float
    rise: float
    upwards: bool
    held: bool = False
    multiplier: float = math.nan


class Whole:
    """The quadratic model with its Hessian at hand.

    Parameters
    ----------
    g : ndarray (p,)
    H, P : ndarray (p, p)
        Hessian and metric; directions in which P vanishes (normal to constraints) are left out.
    missing : ndarray (p, p), optional
        Missing information I_m. The ball is then ``s'(I_m + P^-1 / 10)s <= radius^2`` in the place of ``s'P^-1 s``.
    reach : float or ndarray (p,)
        How far each coordinate may move. P is scaled from both sides along axes on which the ball would go farther.
    radius : float
        The largest that will be asked for; the reach holds for no larger one.

    Notes
    -----
    Axes of which something is not finite are left out.

    More and Sorensen (1983): the step is ``(mu - H)^-1 g`` with the least mu >= 0 that makes ``mu - H`` positive semidefinite
    and the step no longer than the radius; where the gradient has no part along the uppermost curvature (the hard
    case) that direction is added up to the edge.
    """

    def __init__(
        self,
        g: Vector,
        H: Matrix,
        P: Matrix,
        missing: Matrix | None = None,
        *,
        reach: float | Vector = math.inf,
        radius: float = 1.0,
    ):
        known, size = _finite_axes(g, H, P, missing), len(g)
        if not known.all():
            inside = np.ix_(known, known)
            g, H, P, missing = g[known], H[inside], P[inside], None if missing is None else missing[inside]
            reach = np.broadcast_to(reach, size)[known]
        units = np.sqrt(np.maximum(np.diag(P), np.finfo(float).tiny))
        values, vectors = np.linalg.eigh(P / units / units[:, None])
        keep = values > DEGENERATE * values.max(initial=0.0)
        # No step of length 1 moves a coordinate by more than its unit; about what is not missing the ball is COMPLETE alone.
        farthest = reach if missing is None else math.sqrt(COMPLETE) * reach
        units = np.minimum(units, farthest / max(radius, 1.0))
        root = units[:, None] * vectors[:, keep] * np.sqrt(values[keep])
        if missing is not None:
            values, vectors = np.linalg.eigh(0.5 * root.T @ (missing + missing.T) @ root)
            root = root @ vectors / np.sqrt(np.maximum(values, 0.0) + COMPLETE)
        self.falls, axes = np.linalg.eigh(-0.5 * (root.T @ (H + H.T) @ root))  # ascending: of P^1/2 (-H) P^1/2
        self.axes = root @ axes
        self.slopes = self.axes.T @ g
        if not known.all():
            inner, self.axes = self.axes, np.zeros((size, len(self.falls)))
            self.axes[known] = inner

    def within(self, radius: float) -> Step:
        """Return the step that rises most within the radius."""
        falls, slopes = self.falls, self.slopes
        if not len(falls):
            return Step(np.zeros(len(self.axes)), 0.0, 0.0, False)
        upwards = falls[0] < -FLAT * np.abs(falls).max()
        if falls[0] > 0:
            y = slopes / falls
            if norm(y) <= radius:
                return self._step(y, False, 0.0)
        least = max(0.0, -falls[0])
        low, high = least, least + norm(slopes) / radius
        tiny = np.finfo(float).eps * max(float(np.abs(falls).max()), high)
        mu = max(low + tiny, 0.5 * (low + high) if upwards else low)
        for _ in range(100):
            y = slopes / np.maximum(falls + mu, tiny)
            size = norm(y)
            if abs(size - radius) <= SECULAR * radius:
                break
            low, high = (mu, high) if size > radius else (low, mu)
            if high - low <= tiny:
                break
            # Newton's method on 1 / radius - 1 / size, which is nearly linear in mu.
            bend = float(y @ (y / np.maximum(falls + mu, tiny)))
            mu = mu + (size - radius) / radius * size * size / bend if bend > 0 else high
            if not low < mu < high:
                mu = 0.5 * (low + high)
        size = norm(y)
        if size < (1 - 1e-6) * radius and upwards:
            y[0] += math.copysign(math.sqrt(y[0] ** 2 + radius**2 - size**2) - abs(y[0]), slopes[0])
        elif size > radius:
            y *= radius / size
        return self._step(y, bool(upwards), mu)

    def _step(self, y: Vector, upwards: bool, multiplier: float) -> Step:
        rise = float(self.slopes @ y - 0.5 * (self.falls * y) @ y)
        return Step(self.axes @ y, norm(y), rise, upwards, multiplier=multiplier)


def _finite_axes(g: Vector, *matrices: Matrix | None) -> NDArray[np.bool_]:
    """Return a mask of the axes (p,) of which, among each other, all entries are finite."""
    given = [A for A in matrices if A is not None]
    if np.isfinite(g).all() and all(np.isfinite(A).all() for A in given):
        return np.ones(len(g), dtype=bool)
    known = np.isfinite(g) & np.all([np.isfinite(np.diag(A)) for A in given], axis=0)
    finite = np.all([np.isfinite(A) & np.isfinite(A.T) for A in given], axis=0)
    return known & finite[:, known].all(axis=1)


class _Piece(NamedTuple):
    """A straight piece of a path: where it begins, where it goes, and what that does in the metric of the ball."""

    at: Vector
    along: Vector
    rise: float  # at its beginning
    slope: float  # of the rise along it
    fall: float  # minus the curvature along it
    far: float  # squared length of `at`
    turn: float  # product of `at` and `along`
    ahead: float  # squared length of `along`

    def to_edge(self, radius: float) -> float:
        """Return how far along it the edge of the ball is."""
        if math.isinf(radius):
            return math.inf
        left = max(radius * radius - self.far, 0.0)
        root = math.sqrt(self.turn * self.turn + self.ahead * left)
        return left / (root + self.turn) if self.turn > 0 else (root - self.turn) / self.ahead

    def to_reach(self, reach: float | Vector) -> float:
        """Return how far along it a coordinate first comes to the end of its reach."""
        moves = self.along != 0
        left = (np.copysign(reach, self.along) - self.at)[moves] / self.along[moves]
        return max(float(left.min(initial=math.inf)), 0.0)


class Path:
    """The path of preconditioned conjugate gradients, as far as a radius.

    Parameters
    ----------
    g : ndarray (p,)
    product, precondition : callable
        ``H v`` and ``P v`` for a direction (p,).
    radius : float
    tol : float
        Ends where the slope that is left, in the metric of the ball, is this part of the first.
    most : int
        Most products.
    reach : float or ndarray (p,)
        How far each coordinate may move; the path ends there.

    Notes
    -----
    Conn, Gould and Toint (2000), algorithm 7.5.1: lengths in the metric of P^-1 by recurrences, P is never inverted.
    """

    def __init__(
        self,
        g: Vector,
        product: Callable[[Vector], Vector],
        precondition: Callable[[Vector], Vector],
        radius: float,
        *,
        tol: float,
        most: int,
        reach: float | Vector = math.inf,
    ):
        self.pieces: list[_Piece] = []
        self.size, self.reach = len(g), reach
        s, left, rise, far, turn = np.zeros_like(g), g, 0.0, 0.0, 0.0
        z = precondition(left)
        slope = float(left @ z)
        if not 0 < slope < math.inf:  # no metric here: the plain one
            precondition, z, slope = (lambda v: v), left, float(left @ left)
        along, ahead, enough = z, slope, tol * tol * slope
        while len(self.pieces) < most and slope > enough:
            Hp = product(along)
            fall = -float(along @ Hp)
            self.pieces.append(_Piece(s, along, rise, slope, fall, far, turn, ahead))
            if fall <= 0:
                return
            a = slope / fall
            s, left, rise = s + a * along, left + a * Hp, rise + 0.5 * a * slope
            far, turn = far + a * (2 * turn + a * ahead), turn + a * ahead
            if far >= radius * radius or (np.abs(s) >= reach).any():
                return
            z = precondition(left)
            before, slope = slope, float(left @ z)
            if not slope > 0:
                return
            beta = slope / before
            along, turn, ahead = z + beta * along, beta * turn, slope + beta * beta * ahead

    def within(self, radius: float) -> Step:
        """Return where the path leaves the ball of a radius, no larger than that of the path, or ends."""
        if not self.pieces:
            return Step(np.zeros(self.size), 0.0, 0.0, False)
        held = False
        for piece in self.pieces:
            upwards = piece.fall <= 0
            a = math.inf if upwards else piece.slope / piece.fall
            edge, end = piece.to_edge(radius), piece.to_reach(self.reach)
            if upwards and math.isinf(edge):  # no ball, and the path ends where the hill curves upwards
                edge = 0.0 if piece.far > 0 else 1.0
            held, edge = end < edge, min(edge, end)
            if a >= edge:
                a = edge
                break
        far = piece.far + a * (2 * piece.turn + a * piece.ahead)
        rise = piece.rise + a * piece.slope - 0.5 * a * a * piece.fall
        return Step(piece.at + a * piece.along, math.sqrt(far), rise, upwards, held and a == edge)


def norm(y: Vector) -> float:
    return math.sqrt(float(y @ y))


def length(at: Evaluation, g: Vector) -> float:
    """Return the length of a gradient in EM's metric, ``(g' P g)^1/2``; NaN where there is no P, or no positive one."""
    try:
        square = float(g @ at.precondition(g))
    except Breakdown:
        return math.nan
    return math.sqrt(square) if square >= 0 else math.nan


def reach_from(theta: Vector) -> Vector:
    """Return how far each coordinate may move in one step, (p,): `FAR`, or as far as it is from 0, whatever its units."""
    return np.maximum(FAR, np.abs(theta))


class Height(Protocol):
    """What is climbed, where it is not the value itself."""

    def value(self, at: Evaluation) -> float: ...
    def gradient(self, at: Evaluation) -> Vector: ...
    def products(self, at: Evaluation, V: Matrix) -> Matrix: ...


class Hill:
    """The value of an objective."""

    def __init__(self, objective: Objective):
        self.objective = objective

    def value(self, at: Evaluation) -> float:
        """Return how high it is there."""
        return at.value

    def gradient(self, at: Evaluation) -> Vector:
        """Return the gradient there, (p,)."""
        return at.gradient

    def products(self, at: Evaluation, V: Matrix) -> Matrix:
        """Return the Hessian there times V, (p,) or (p, m)."""
        return self.objective.hvp(at, V)


class Climb(NamedTuple):
    """Where one step of a trust region led.

    evaluation : the accepted trial; None after a failure
    radius : that of the next step
    trials : evaluations made
    event : what the step did: "newton", or "edge" of the ball, "reach" of a coordinate, "upwards"; and ", shortened"
    failure : why no trial was accepted
    multiplier : that of the ball, for the step that was taken
    """

    evaluation: Evaluation | None
    radius: float
    trials: int
    event: str
    failure: Failure | None = None
    multiplier: float = math.nan


def advance(
    objective: Objective, height: Height, start: Evaluation, radius: float, *, whole: bool, divergence: bool = False
) -> Climb:
    """Return a point that is higher than `start`, by a step of a trust region.

    Parameters
    ----------
    objective : Objective
    height : Height
    start : Evaluation
    radius : float
        Of the ball.
    whole : bool
        Whether to solve with the whole Hessian (one pass of p columns) or by conjugate gradients (a pass a product).
    divergence : bool
        Whether the ball is one of the divergence of posteriors, to second order, and not of EM's metric; with `whole` only.

    Raises
    ------
    OutOfBudget
        By the objective, where it has no pass left. A `Breakdown` at the start or at a trial is the failure of the climb.

    Notes
    -----
    Nocedal and Wright (2006), algorithm 4.1. Where the promised rise drowns in the rounding of the value, a step is taken
    that makes the gradient shorter. The path of conjugate gradients ends where its slope is a tenth of the first, or the
    first times the first: Newton's convergence stays quadratic.
    """
    theta = start.point.theta
    try:
        g, before = height.gradient(start), height.value(start)
        model = _model(objective, height, start, g, radius, whole=whole, divergence=divergence)
    except Breakdown as broken:
        return Climb(None, radius, 0, "", broken.failure)
    failure, refused, trials, shortened = None, None, 0, False
    while trials < MAX_TRIALS:
        step = model.within(radius)
        if not step.rise > 0 or not moves(theta, step.move, 1.0):
            break
        new = objective.evaluate(theta + step.move)
        trials += 1
        failure = new.failure
        if failure is None:
            try:
                rise, noise, g_new = height.value(new) - before, in_doubt(new, start), height.gradient(new)
            except Breakdown as broken:
                failure = broken.failure
        if failure is None:
            drowned = step.rise <= noise
            taken = rise > ENOUGH * step.rise and rise > 0
            if not taken and drowned:
                taken = rise >= -noise and length(new, g_new) < length(start, g)
            ratio = 1.0 if drowned else rise / step.rise
            if taken:
                at_edge = step.length > 0.99 * radius
                event = "upwards" if step.upwards else "reach" if step.held else "edge" if at_edge else "newton"
                if ratio > GOOD and at_edge and not shortened and radius < WIDEST:
                    radius *= GROW
                elif ratio < BAD:
                    radius = SHRINK * step.length
                event = f"{event}, shortened" if shortened else event
                return Climb(new, radius, trials, event, multiplier=step.multiplier)
        elif failure.status not in INFEASIBLE:
            break
        else:
            refused = failure
        radius, shortened = SHRINK * step.length, True
    if failure is None or failure.status in INFEASIBLE:
        detail = f"{trials} trials of a trust region, of radius {radius:.1e} in the end."
        failure = Failure(Status.NO_ASCENT, detail=detail).after(refused)
    return Climb(None, radius, trials, "", failure)


def _model(
    objective: Objective, height: Height, start: Evaluation, g: Vector, radius: float, *, whole: bool, divergence: bool
) -> Whole | Path:
    """Return the quadratic model of the hill, or raise a Breakdown where it has no finite one."""
    reach = reach_from(start.point.theta)
    if not whole:
        first = length(start, g)
        tol = min(0.1, first) if first == first else 0.1
        precondition, most = start.precondition, 2 * len(g)
        return Path(g, lambda v: height.products(start, v), precondition, radius, tol=tol, most=most, reach=reach)
    unit = np.eye(len(g))
    P = start.precondition(unit)
    P = 0.5 * (P + P.T)
    if not _finite_axes(g, P).any():
        raise Breakdown(Failure(Status.NON_FINITE, "metric"))
    H = height.products(start, unit)
    # What is missing is the complete data's information less the observed one (Louis 1982).
    missing = H - objective.q_hvp(start.point, start.stats, unit) if divergence else None
    return Whole(g, H, P, missing, reach=reach, radius=radius)
