"""The one table of cases: every model with tiny data, every solver by name, and what is known not to work.

A new model adds rows to `CASES`; a new solver is found by its name. Tests run over `CASES` (or `SMALL`, a handful that covers
every kind of mixture with weights once, and `OTHERS`) and `SOLVERS`, and skip nothing. What `KNOWN_EXCEPTIONS` lists is run all
the same and must fail as it says (`matrix`), so that an exception that is cured, or another failure, is noticed.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pytest

import emcore.kernels
import emcore.solvers
from emcore.data import Block, as_source
from emcore.models import (
    COVARIANCES,
    BernoulliMixture,
    CategoricalMixture,
    FactorAnalysis,
    FactorMixture,
    GaussianMixture,
    KnownVarianceMixture,
    Linkage,
    MissingRegression,
    Model,
    MultinomialMixture,
    PoissonInverse,
    PoissonMixture,
    RegressionMixture,
    StudentMixture,
    SymmetricGaussianMixture,
    SymmetricRegressionMixture,
    UniformMixture,
    UserMixture,
)
from emcore.objective import ModelObjective
from emcore.result import Status, SupportError
from emcore.solve import solve


@dataclass(frozen=True)
class Case:
    """A model with data to fit it to.

    Attributes
    ----------
    name : str
        For the test's id.
    build : callable
        Returns the unbound model.
    draw : callable
        Returns rows (n, d), or (X, y), the components they were drawn from (n,) and weights (n,) or None, for a generator.
    """

    name: str
    build: Callable[[], Model]
    draw: Callable

    def __str__(self) -> str:
        return self.name

    @property
    def rng(self) -> np.random.Generator:
        """A generator that is always the same for this case, afresh at each call."""
        return np.random.default_rng(zlib.crc32(self.name.encode()))

    @cached_property
    def _drawn(self):
        return self.draw(self.rng)

    @property
    def data(self):
        """What the model is fitted to: rows (n, d), or (X, y)."""
        return self._drawn[0]

    @property
    def X(self) -> np.ndarray:
        """The rows (n, d)."""
        return self.data[0] if isinstance(self.data, tuple) else self.data

    def rows(self, chosen):
        """Return some of the rows, as `data` are."""
        return tuple(a[chosen] for a in self.data) if isinstance(self.data, tuple) else self.data[chosen]

    @property
    def weights(self) -> np.ndarray | None:
        """The weights of the rows (n,), or None."""
        return self._drawn[2]

    @property
    def w(self) -> np.ndarray:
        """The weights of the rows (n,), ones where there are none."""
        return np.ones(len(self.X)) if self.weights is None else self.weights

    @property
    def total(self) -> float:
        """The sum of the weights."""
        return float(self.w.sum())

    def source(self, **options):
        """Return the data as a source."""
        return as_source(self.data, self.weights, missing=self.build().takes_missing, **options)

    def objective(self, *, block_rows: int | None = None, **options) -> ModelObjective:
        """Return the objective of the model on the data."""
        options.setdefault("n_threads", 1)
        return ModelObjective(self.build(), self.source(block_rows=block_rows), **options)

    def resp(self, k: int) -> np.ndarray:
        """Return responsibilities (n, k) that know the components but for some doubt."""
        resp = np.full((len(self.X), k), 0.1)
        resp[np.arange(len(self.X)), self._drawn[1] % k] += 1.0
        return resp / resp.sum(axis=1, keepdims=True)

    def start(self, objective: ModelObjective):
        """Return the point from which this case is fitted: not far from a maximum."""
        model = objective.model
        return objective.point_of(model.start(self.source(block_rows=len(self.X)).block(0), self.resp(model.k)))

    def somewhere(self, objective: ModelObjective, seed: int = 0):
        """Return a point that is nothing special."""
        rng = np.random.default_rng(seed)
        free = ModelObjective(objective.model, objective.source)
        theta = self.start(free).theta
        return objective.point_of(free.point(theta + 0.2 * rng.normal(size=theta.shape)).params)


def mixture_rows(k: int, d: int, n: int, apart: float, weighted: bool):
    """Return a function that draws rows around k centres `apart` standard deviations from each other."""

    def draw(rng):
        component = np.arange(n) % k
        centres = apart * rng.permuted(np.arange(k * d).reshape(k, d), axis=0) / d**0.5
        stretch = rng.uniform(0.5, 2.0, size=(k, d))
        X = centres[component] + stretch[component] * rng.normal(size=(n, d))
        if d > 1:
            X[:, 1] += 0.6 * X[:, 0]
        weights = rng.choice([0.0, 0.5, 1.0, 2.0, 3.25], size=n) if weighted else None
        return 3.0 * X - 7.0, component, weights

    return draw


# k, d, n, standard deviations apart, weighted
_SIZES = (
    (1, 1, 40, 0.0, False),
    (1, 3, 50, 0.0, True),
    (2, 1, 60, 1.5, False),
    (2, 2, 80, 6.0, True),
    (3, 2, 120, 2.0, False),
    (4, 5, 200, 5.0, True),
)


def _name(start: str, k: int, apart: float, weighted: bool) -> str:
    words = [start]
    if k > 1:
        words.append("overlapping" if apart < 4 else "separated")
    if weighted:
        words.append("weighted")
    return "-".join(words)


def _gaussian(covariance: str, k: int, d: int, n: int, apart: float, weighted: bool) -> Case:
    name = _name(f"GaussianMixture-{covariance}-k{k}-d{d}", k, apart, weighted)
    return Case(name, lambda: GaussianMixture(k, covariance), mixture_rows(k, d, n, apart, weighted))


def count_rows(k: int, d: int, n: int, apart: float, weighted: bool):
    """Return a function that draws counts of k components whose rates lie about `apart` standard deviations from each other."""

    def draw(rng):
        component = np.arange(n) % k
        # The square root of a count has a standard deviation of one half.
        roots = 1.5 + 0.5 * apart * rng.permuted(np.arange(k * d).reshape(k, d) // d, axis=0)
        X = rng.poisson(np.square(roots)[component])
        weights = rng.choice([0.0, 0.5, 1.0, 2.0, 3.25], size=n) if weighted else None
        return X if weighted else X.astype(float), component, weights

    return draw


def _poisson(k: int, d: int, n: int, apart: float, weighted: bool) -> Case:
    return Case(
        _name(f"PoissonMixture-k{k}-d{d}", k, apart, weighted), lambda: PoissonMixture(k), count_rows(k, d, n, apart, weighted)
    )


def _weights(rng, n: int, weighted: bool):
    return rng.choice([0.0, 0.5, 1.0, 2.0, 3.25], size=n) if weighted else None


def tables(rng, k: int, d: int, levels, sure: float):
    """Return probabilities (k, d, m) of symbols that tell components apart the better the larger `sure` is."""
    m = max(levels)
    p = np.zeros((k, d, m))
    for j, size in enumerate(levels):
        for c in range(k):
            p[c, j, :size] = rng.uniform(0.5, 1.0, size=size)
            p[c, j, (c + j) % size if size >= k else c >> j % 2 & 1] += sure
    return p / p.sum(axis=2, keepdims=True)


def symbol_rows(k: int, levels, n: int, sure: float, weighted: bool):
    """Return a function that draws symbols, as many in each column as `levels` says."""

    def draw(rng):
        component, p = np.arange(n) % k, tables(rng, k, len(levels), levels, sure)
        X = (rng.random((n, len(levels), 1)) > np.cumsum(p, axis=2)[component]).sum(axis=2)
        return X if weighted else X.astype(float), component, _weights(rng, n, weighted)

    return draw


def round_rows(k: int, d: int, n: int, apart: float, weighted: bool):
    """Return a function that draws rows of unit variance around k centres on a line through 0, `apart` from each other."""

    def draw(rng):
        component = np.arange(n) % k
        place = apart * (component - 0.5 * (k - 1)) / d**0.5
        return place[:, None] + rng.normal(size=(n, d)), component, _weights(rng, n, weighted)

    return draw


def cell_rows(k: int, d: int, n: int, sure: float, weighted: bool):
    """Return a function that draws rows of 8 to 20 counts in d cells."""

    def draw(rng):
        component, p = np.arange(n) % k, tables(rng, k, 1, (d,), sure)[:, 0]
        X = rng.multinomial(rng.integers(8, 21, size=n), p[component])
        return X if weighted else X.astype(float), component, _weights(rng, n, weighted)

    return draw


def line_rows(k: int, d: int, n: int, apart: float, weighted: bool, *, signed: bool = False):
    """Return a function that draws (X, y) from k lines whose slopes differ by `apart` standard deviations of the noise."""

    def draw(rng):
        component = np.arange(n) % k
        X = rng.normal(size=(n, d)) @ (np.eye(d) + 0.3) if signed else 3.0 * rng.normal(size=(n, d)) @ (np.eye(d) + 0.3) + 5.0
        slopes = apart * (np.arange(k) - 0.5 * (k - 1))[:, None] * np.where(np.arange(d) % 2, -1.0, 1.0) / d**0.5
        level = 0.0 if signed else 1.0 + component - 5.0 * slopes.sum(axis=1)[component]
        noise = (1.0 if signed else 0.7 + 0.3 * component) * rng.normal(size=n)
        return (X, level + np.einsum("ni,ni->n", X, slopes[component]) + noise), component, _weights(rng, n, weighted)

    return draw


def linkage_rows(n: int):
    """Return a function that draws cells of the linkage model."""

    def draw(rng):
        return *Linkage().sample({"theta": [0.6]}, n, rng), _weights(rng, n, weighted=True)

    return draw


def gated_rows(k: int, d: int, n: int, weighted: bool):
    """Return a function that draws (X, y) from k lines, which one depending on the first covariate but for some doubt."""

    def draw(rng):
        X = rng.normal(size=(n, d))
        order = np.argsort(np.argsort(X[:, 0] + 2.0 * rng.normal(size=n)))
        component = order * k // n
        y = X @ np.linspace(1.0, 0.5, d) * (2.0 * component - k + 1.0) + 0.5 * rng.normal(size=n)
        return (X, y), component, _weights(rng, n, weighted)

    return draw


def inverse_rows(n: int, d: int, background: float, weighted: bool):
    """Return a function that draws (K, y): overlapping bumps, and counts of what they show of d sources."""

    def draw(rng):
        K = np.exp(-0.5 * np.square((np.arange(n)[:, None] * d / n - np.arange(d) - 0.5) / 0.6)) + 0.05 * rng.random((n, d))
        y = rng.poisson(K @ rng.uniform(20.0, 60.0, size=d) + background)
        return (K, y), np.zeros(n, dtype=int), _weights(rng, n, weighted)

    return draw


def holed_rows(k: int, d: int, n: int, apart: float, weighted: bool):
    """Return a function that draws rows of `mixture_rows` of which a fifth of the values is missing, and one row whole."""

    def draw(rng):
        X, component, weights = mixture_rows(k, d, n, apart, weighted)(rng)
        X[rng.uniform(size=X.shape) < 0.2] = np.nan
        X[4] = np.nan
        return X, component, weights

    return draw


def missing_rows(d: int, n: int, gone: float, weighted: bool):
    """Return a function that draws (X, y) with standard normal covariates of which a part is missing."""

    def draw(rng):
        X = rng.normal(size=(n, d))
        y = X @ np.linspace(1.0, -0.5, d) + 0.7 * rng.normal(size=n)
        X[rng.uniform(size=(n, d)) < gone] = np.nan
        X[0] = np.nan
        return (X, y), np.zeros(n, dtype=int), _weights(rng, n, weighted)

    return draw


def normal_missing_rows(d: int, n: int, gone: float, weighted: bool):
    """Return a function that draws (X, y) with correlated covariates far from 0 of which a part is missing, more of high y."""

    def draw(rng):
        X = 3.0 * rng.normal(size=(n, d)) @ (np.eye(d) + 0.4) + 20.0 * np.arange(1, d + 1)
        y = 5.0 + X @ np.linspace(1.0, -0.5, d) + 1.5 * rng.normal(size=n)
        X[rng.uniform(size=(n, d)) < gone] = np.nan
        X[y > np.quantile(y, 0.8), -1] = np.nan
        X[0] = np.nan
        return (X, y), np.zeros(n, dtype=int), _weights(rng, n, weighted)

    return draw


def factor_rows(k: int, d: int, q: int, n: int, apart: float, weighted: bool):
    """Return a function that draws rows of k factor analysers in units of their own for each column."""

    def draw(rng):
        component, units = np.arange(n) % k, np.exp(rng.normal(size=d))
        signs = np.where(np.arange(d)[:, None] >> np.arange(q) & 1, -1.0, 1.0)  # EM is slow where factors are alike
        loadings = rng.uniform(0.6, 1.4, size=(k, d, q)) * signs
        centres = apart * rng.permuted(np.arange(k * d).reshape(k, d) // d, axis=0) * q**0.5
        X = centres[component] + np.einsum("njq,nq->nj", loadings[component], rng.normal(size=(n, q)))
        X += rng.uniform(0.5, 0.9, size=d) * rng.normal(size=(n, d))
        return units * X + 3.0, component, _weights(rng, n, weighted)

    return draw


def end_rows(end: float, upper: float, n: int, weighted: bool):
    """Return a function that draws rows uniform up to an end, and as many uniform up to another one."""

    def draw(rng):
        component = np.arange(n) % 2
        X = rng.uniform(0.0, np.array([end, upper])[component])[:, None]
        return X, component, _weights(rng, n, weighted)

    return draw


SHAPE = 4.0  # of gamma densities, known


def gamma_rows(scales, n: int, weighted: bool):
    """Return a function that draws rows of gamma densities."""

    def draw(rng):
        component = np.arange(n) % len(scales)
        X = rng.gamma(SHAPE, np.asarray(scales)[component])[:, None]
        return X, component, _weights(rng, n, weighted)

    return draw


def gamma(X, scale):
    """Return the logarithms of gamma densities, as a user writes them."""
    x = X[:, 0]
    return (SHAPE - 1) * np.log(x) - x / scale - SHAPE * np.log(scale) - math.lgamma(SHAPE)


GAMMA = {
    "statistics": lambda X: np.stack([X[:, 0], np.log(X[:, 0])], axis=1),
    "expected": lambda n, s, scale: (SHAPE - 1) * s[1] - s[0] / scale - n * (SHAPE * np.log(scale) + math.lgamma(SHAPE)),
    "m_step": lambda n, s, scale: {"scale": s[0] / (n * SHAPE)},
    "score": lambda n, s, scale: {"scale": s[0] / scale**2 - n * SHAPE / scale},
    "sample": lambda rng, n, scale: rng.gamma(SHAPE, scale, size=n),
}  # all that a family can have beside its density

BERNOULLI = tuple(
    Case(_name(f"BernoulliMixture-k{k}-d{d}", k, 3 * sure, weighted), lambda k=k: BernoulliMixture(k),
         symbol_rows(k, (2,) * d, n, sure, weighted))
    for k, d, n, sure, weighted in ((1, 2, 40, 0.0, True), (2, 5, 90, 3.0, True), (3, 6, 150, 3.0, False))
)  # fmt: skip
CATEGORICAL = tuple(
    Case(_name(f"CategoricalMixture-k{k}-d{len(levels)}", k, sure, weighted), lambda k=k: CategoricalMixture(k),
         symbol_rows(k, levels, n, sure, weighted))
    for k, levels, n, sure, weighted in ((2, (2, 4, 3, 2), 100, 4.0, True), (3, (3,) * 3, 240, 4.0, False))
)  # fmt: skip
MULTINOMIAL = tuple(
    Case(_name(f"MultinomialMixture-k{k}-d{d}", k, 2 * sure, weighted), lambda k=k: MultinomialMixture(k),
         cell_rows(k, d, n, sure, weighted))
    for k, d, n, sure, weighted in ((2, 3, 60, 2.0, True), (3, 4, 120, 1.0, False))
)  # fmt: skip
LINKAGE = (Case("Linkage-weighted", Linkage, linkage_rows(80)),)
INVERSE = tuple(
    Case(f"PoissonInverse-d{d}{'-weighted' * weighted}", lambda b=b: PoissonInverse(b), inverse_rows(n, d, b, weighted))
    for n, d, b, weighted in ((40, 3, 2.5, False), (50, 2, 0.0, True))
)
GAUSSIAN = tuple(_gaussian(covariance, *sizes) for covariance in COVARIANCES for sizes in _SIZES)
POISSON = tuple(_poisson(*sizes) for sizes in _SIZES)
STUDENT = (
    Case("StudentMixture-full-k3-d2-overlapping", lambda: StudentMixture(3, 3.0), mixture_rows(3, 2, 120, 3.5, False)),
    Case("StudentMixture-tied-k2-d3-weighted", lambda: StudentMixture(2, 5.0, "tied"), mixture_rows(2, 3, 80, 5.0, True)),
    Case(
        "StudentMixture-expanded-k2-d2-weighted", lambda: StudentMixture(2, 3.0, expanded=True),
        mixture_rows(2, 2, 60, 5.0, True),
    ),
)  # fmt: skip
UNIFORM = (Case("UniformMixture-weighted", lambda: UniformMixture(3.0), end_rows(1.2, 3.0, 60, True)),)
USER = (
    Case("UserMixture-density-k2-weighted", lambda: UserMixture(2, gamma, {"scale": "positive"}), gamma_rows((1, 5), 36, True)),
    Case("UserMixture-whole-k2", lambda: UserMixture(2, gamma, {"scale": "positive"}, **GAMMA), gamma_rows((1, 5), 36, False)),
)
# Of each model, the first cases are for all tests, the others for its own.
KNOWN_VARIANCE = (
    Case("KnownVarianceMixture-k3-d2-separated", lambda: KnownVarianceMixture(3, 1.0), round_rows(3, 2, 120, 4.0, False)),
    Case("SymmetricGaussianMixture-d3-weighted", lambda: SymmetricGaussianMixture(1.0), round_rows(2, 3, 70, 3.0, True)),
    Case(
        "KnownVarianceMixture-known-weights-k2-d3-weighted", lambda: KnownVarianceMixture(2, 12.0, weights=[0.4, 0.6]),
        mixture_rows(2, 3, 60, 3.0, True),
    ),
    Case("SymmetricGaussianMixture-d2-overlapping", lambda: SymmetricGaussianMixture(1.0), round_rows(2, 2, 80, 2.5, False)),
)  # fmt: skip
REGRESSION = (
    Case("RegressionMixture-k3-d2-separated", lambda: RegressionMixture(3), line_rows(3, 2, 120, 2.0, False)),
    Case("RegressionMixture-k1-d3-weighted", lambda: RegressionMixture(1), line_rows(1, 3, 50, 1.0, True)),
    Case(
        "RegressionMixture-k2-d1-no-intercept", lambda: RegressionMixture(2, intercept=False),
        line_rows(2, 1, 60, 3.0, False, signed=True),
    ),
)  # fmt: skip
GATED = (
    Case("RegressionMixture-gated-d1-weighted", lambda: RegressionMixture(2, gating=True), gated_rows(2, 1, 60, True)),
    Case(
        "RegressionMixture-gated-no-intercept-d2", lambda: RegressionMixture(3, intercept=False, gating=True),
        gated_rows(3, 2, 120, False),
    ),
)  # fmt: skip
SYMMETRIC_REGRESSION = (
    Case(
        "SymmetricRegressionMixture-d3-weighted", lambda: SymmetricRegressionMixture(1.0),
        line_rows(2, 3, 70, 3.0, True, signed=True),
    ),
)  # fmt: skip
MISSING = (
    Case("MissingRegression-d2", lambda: MissingRegression(), missing_rows(2, 60, 0.2, False)),
    Case("MissingRegression-known-variance-d3-weighted", lambda: MissingRegression(0.5), missing_rows(3, 60, 0.3, True)),
)
NORMAL_COVARIATES = (
    Case(
        "MissingRegression-normal-d2-weighted", lambda: MissingRegression(covariates="normal"),
        normal_missing_rows(2, 90, 0.2, True),
    ),
    Case(
        "MissingRegression-normal-known-variance-d1", lambda: MissingRegression(2.0, covariates="normal"),
        normal_missing_rows(1, 60, 0.1, False),
    ),
)  # fmt: skip
MISSING_GAUSSIAN = (
    Case(
        "GaussianMixture-missing-full-k2-d3-weighted",
        lambda: GaussianMixture(2, missing=True),
        holed_rows(2, 3, 100, 5.0, True),
    ),
    Case(
        "GaussianMixture-missing-tied-k2-d2", lambda: GaussianMixture(2, "tied", missing=True), holed_rows(2, 2, 60, 6.0, False)
    ),
)
FACTORS = (
    Case("FactorAnalysis-d6-q2-weighted", lambda: FactorAnalysis(2), factor_rows(1, 6, 2, 300, 0.0, True)),
    Case("FactorMixture-k3-d4-q1", lambda: FactorMixture(3, 1), factor_rows(3, 4, 1, 240, 4.0, False)),
    Case("FactorMixture-tied-k2-d5-q2-weighted", lambda: FactorMixture(2, 2, tied=True), factor_rows(2, 5, 2, 240, 4.0, True)),
)
DISCRETE = BERNOULLI + CATEGORICAL + MULTINOMIAL + LINKAGE
CASES = (
    GAUSSIAN
    + POISSON
    + DISCRETE
    + INVERSE
    + KNOWN_VARIANCE[:3]
    + REGRESSION[:2]
    + GATED[:1]
    + SYMMETRIC_REGRESSION
    + MISSING
    + NORMAL_COVARIATES
    + MISSING_GAUSSIAN
    + STUDENT
    + FACTORS
    + UNIFORM
    + USER
)
SMALL = tuple(case for case in CASES if "-k3-" in case.name)
# One of each model with a gradient of which `SMALL`, mixtures of three components with weights, has none.
OTHERS = (
    *LINKAGE,
    INVERSE[0],
    KNOWN_VARIANCE[1],
    GATED[0],
    *SYMMETRIC_REGRESSION,
    MISSING[0],
    NORMAL_COVARIATES[0],
    FACTORS[0],
    USER[1],
)
SOLVERS = tuple(emcore.solvers.names())
NOISY = ("adam", "online")  # hover about an optimum, and end by their budget or by chance; how near: test_solvers_blocks.py
CRAWLING = ("gradient", "first-order-em")  # take more passes than most tests allow where curvatures differ much
CONVERGING = tuple(name for name in SOLVERS if name not in NOISY)
TARGETS = tuple(name for name, runs in emcore.kernels.targets().items() if runs)


@contextmanager
def in_force(target: str):
    """Passes run on this CPU target."""
    before = emcore.kernels.target()
    emcore.kernels.select_target(target)
    try:
        yield
    finally:
        emcore.kernels.select_target(before)


def one_pass(kernel, X, w=None, **options):
    """Return the sums and the statistics of a pass."""
    stats = np.zeros(kernel.n_stats)
    return emcore.kernels.run(kernel, Block((X,), w), stats=stats, **options), stats


SMALL_PASS = 10**6  # of `kernels/_base.pyx`: rows x statistics below which a pass starts no threads


def threads_start(objective: ModelObjective, at) -> bool:
    """Tell whether each pass over a block there has work enough for threads: else a test of them tests nothing."""
    kernel, source = objective.model.kernel(at.params), objective.source
    least = source.n_rows // source.n_blocks
    slots = emcore.kernels.cut(least, kernel.panel_rows, kernel.n_stats)[2]
    return slots > 1 and least * kernel.n_stats >= SMALL_PASS


def _has_lanes(target: str) -> bool:
    with in_force(target):
        return emcore.kernels.single_lanes()


SINGLE_TARGETS = tuple(name for name in TARGETS if _has_lanes(name))

NOT_P = "the EM step is not P times the gradient"
LOWER = "reaches another value than EM"


class Known(NamedTuple):
    """A known exception: why it cannot work, and the error, with what is in its message, that must come of it."""

    why: str
    error: type[Exception]
    match: str


def _unfit(why: str) -> Known:
    return Known(why, ValueError, r"^solver 'sparse' needs \['sparse'\]")


_NO_RESPONSIBILITY = _unfit("what is latent in the emission is no responsibility")
_NO_GRADIENT = Known(
    "its support depends on its endpoint, and its likelihood has no gradient", SupportError, "depends on endpoint"
)
_NO_PRODUCTS = Known("it has no Hessian products", ValueError, r"does not provide.*Hessian products|needs \['tangent'\]")
_SPENT = re.escape(Status.MAX_PASSES.value)
_RIDGE = Known("at a constant step it crawls along a ridge, past any budget", AssertionError, _SPENT)

_OF_GRADIENTS = (
    "test_a_toy_solver_runs_on_every_model",
    "test_blocks_change_nothing",
    "test_evaluations_are_lazy_and_keep_what_they_know",
    "test_fixed_point_of_em_is_stationary",
    "test_gradient_in_original_coordinates",
    "test_gradient_in_original_coordinates_is_tangent",
    "test_gradient_is_the_derivative_of_the_value",
    "test_natural_with_one_is_em_to_first_order",
    "test_no_climb_ends_below_its_start_and_falls_end",
    "test_one_pass_gives_everything",
    "test_p_is_positive_definite_on_the_tangent",
    "test_pieces_make_the_whole",
    "test_preconditioned_gradient_is_the_em_step_near_a_maximum",
    "test_preconditioning_is_linear_symmetric_and_positive",
    "test_recentring_changes_neither_q_nor_the_m_step",
    "test_scaled_steps_never_fall",
    "test_with_one_piece_it_is_em_pass_for_pass",
)

# Test -> (solver or what else is tested, a word that the name of the case contains) -> why it cannot work, and what it ends in.
# Some are of several tests together, marked by `matrix`; the others have the name of one that runs over cases, where what is
# tested is a part of the test's id (conftest.py marks them).
KNOWN_EXCEPTIONS: dict[str, dict[tuple[str, str], Known]] = {
    "solvers": {
        ("sparse", "gated"): _unfit("its latent has no posterior of which a part is held"),
        ("sparse", "Linkage"): _NO_RESPONSIBILITY,
        ("sparse", "MissingRegression"): _NO_RESPONSIBILITY,
        ("sparse", "GaussianMixture-missing"): _NO_RESPONSIBILITY,
        ("sparse", "PoissonInverse"): _NO_RESPONSIBILITY,
        ("sparse", "SymmetricRegression"): _NO_RESPONSIBILITY,
        ("sparse", "expanded"): _unfit("its q is maximised over a parameter more, and is not of responsibilities alone"),
        ("newton", "full-k2-d1-overlapping"): Known(
            "leaves the saddle next to the start for another, lower strict maximum", AssertionError, LOWER
        ),
        ("first-order-em", "full-k2-d1-overlapping"): _RIDGE,
        ("first-order-em", "diag-k4-d5-separated"): _RIDGE,
        **dict.fromkeys(((name, "UniformMixture") for name in SOLVERS if name not in ("em", "auto")), _NO_GRADIENT),
    },
    "priors": {
        ("lange", "GaussianMixture-full"): Known("reaches another maximum, 0.045 per unit weight lower", AssertionError, LOWER),
    },
    **{test: {("", "UniformMixture"): _NO_GRADIENT} for test in _OF_GRADIENTS},
    "test_products_are_derivatives_of_the_gradient": {("", "UniformMixture"): _NO_GRADIENT},
    "test_products_are_symmetric": {("", "UniformMixture"): _NO_PRODUCTS},
    "test_preconditioned_gradient_is_the_em_step_but_for_covariances": {
        ("", "UniformMixture"): _NO_GRADIENT,
        ("", "UserMixture"): Known("P is the inverse of its Hessian: to first order alone", AssertionError, "Not equal to"),
    },
    "test_layout_is_what_its_kernel_fills": {
        ("", "UserMixture-density"): Known("it has weights of distinct rows, no counts", KeyError, "emission.count"),
        ("", "UserMixture-whole"): Known("its counts are summed in another order", AssertionError, "Arrays are not equal"),
    },
    "P with some parameters fixed": dict.fromkeys(
        (("an entry of a location", "-full-"), ("an entry of a location", "-tied-"), ("a bit of everything", "-full-")),
        Known(
            "a mean's free entries and its covariance depend on each other in the M-step; P is of each alone",
            AssertionError, NOT_P,
        ),
    ),
}  # fmt: skip


def exception(what: str, case: Case, test: str = "solvers") -> Known | None:
    """Return why this solver, or what else the test is of, cannot work on this case, or None."""
    return next((known for (name, word), known in KNOWN_EXCEPTIONS[test].items() if name == what and word in case.name), None)


def must_fail(known: Known):
    """Return the mark of a known exception: the test must fail, and as it says."""
    return pytest.mark.xfail(strict=True, raises=pytest.RaisesExc(known.error, match=known.match), reason=known.why)


def matrix(names: str, whats, cases, test: str = "solvers"):
    """Return the mark that runs a test over `whats` and cases, under two names; known exceptions must fail, and as they do."""
    rows = []
    for case in cases:
        for what in whats:
            known = exception(what, case, test)
            marks = [must_fail(known)] if known else []
            rows.append(pytest.param(what, case, id=f"{what}-{case}", marks=marks))
    return pytest.mark.parametrize(names, rows)


def refused(solver: str, case: Case) -> bool:
    """Tell whether the model of the case lacks what the solver needs, and assert that they are refused then."""
    objective, method = case.objective(), emcore.solvers.get(solver)
    if method.needs <= objective.capabilities and method.moving_support >= bool(objective.moving_support):
        return False
    known = exception(solver, case)
    assert known, "refused, and not in the table"
    with pytest.raises(known.error, match=known.match):
        solve(objective, method, case.start(objective))
    return True


def em_step_is_preconditioned_gradient(objective: ModelObjective, at):
    """Climb to the maximum from here and assert that near it the EM step is P times the gradient to first order."""
    e = objective.evaluate(at)
    for _ in range(3000):
        if e.gain < 1e-20:
            break
        e = objective.evaluate(e.em_point)
    direction = np.random.default_rng(0).normal(size=objective.size)
    gaps, steps = [], []
    for h in (1e-4, 5e-5):
        near = objective.evaluate(e.point.theta + h * direction)
        steps.append(near.em_point.theta - near.point.theta)
        gaps.append(np.abs(steps[-1] - near.precondition(near.gradient)).max())
    assert gaps[0] <= 0.1 * np.abs(steps[0]).max(), NOT_P
    assert gaps[1] <= gaps[0] / 3 + 1e-10, NOT_P  # halved distance, a quarter of the gap
