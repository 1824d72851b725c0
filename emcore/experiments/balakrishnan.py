"""EM and first-order EM on three models.

Balakrishnan, Wainwright and Yu (2017), "Statistical guarantees for the EM algorithm", Annals of Statistics 45.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emcore.data import as_source
from emcore.experiments._base import Experiment, Line, Outcome, Tick, panel
from emcore.models import MissingRegression, Model, SymmetricGaussianMixture, SymmetricRegressionMixture
from emcore.objective import ModelObjective
from emcore.plot import STYLES
from emcore.result import Stop
from emcore.solve import solve
from emcore.solvers import EM, FirstOrderEM, Solver

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MissingCovariates", "SymmetricMixture", "SymmetricRegressions"]

Array = NDArray[np.float64]

D, N, TRIALS = 10, 1000, 10
SNRS = (0.75, 1.0, 1.8, 2.0, 2.5)
NODES = 80  # of a quadrature


class Trial(NamedTuple):
    """A climb: distances to where it ends and to the truth, by iteration."""

    optimisation: Array
    statistical: Array

    @property
    def rate(self) -> float:
        """The factor by which the distance to the end shrinks an iteration, in the end."""
        error = self.optimisation
        first, last = int(np.flatnonzero(error < 1e-3)[0]), int(np.flatnonzero(error > 1e-8)[-1])
        first = min(first, last - 1)
        return float((error[last] / error[first]) ** (1 / (last - first)))


def climbed(objective: ModelObjective, start: Array, truth: Array, solver: Solver[Any], steps: int = 2000) -> Trial:
    """Follow a solver to where it ends."""
    thetas: list[Array] = []

    def note(step: Any) -> bool:
        thetas.append(step.evaluation.point.theta)
        return len(thetas) > 1 and bool(np.linalg.norm(thetas[-1] - thetas[-2]) < 1e-13)

    solve(objective, solver, objective.point(start), stop=Stop(gain=0, max_passes=steps), callback=note)
    path = np.array(thetas)
    return Trial(np.linalg.norm(path - path[-1], axis=1), np.linalg.norm(path - truth, axis=1))


class Balakrishnan(Experiment):
    """Base: data of a signal-to-noise ratio, ``|theta*| / sigma``, with ``|theta*| = 1``; starts a quarter of that away."""

    @abstractmethod
    def draw(self, sigma: float, truth: Array, n: int, rng: np.random.Generator) -> Any:
        """Return data of n rows."""

    @abstractmethod
    def model(self, sigma: float) -> Model:
        """Return the model, of noise of this standard deviation."""

    def problem(self, snr: float, trial: int, n: int = N) -> tuple[ModelObjective, Array, Array]:
        """Return the objective of a trial, its start and the truth."""
        rng = np.random.default_rng([trial, round(100 * snr)])
        truth, away = (v / np.linalg.norm(v) for v in rng.normal(size=(2, D)))
        data = self.draw(1 / snr, truth, n, rng)
        objective = ModelObjective(self.model(1 / snr), as_source(data, missing=True), n_threads=1)
        return objective, truth + 0.25 * away, truth

    def trials(self, snr: float, n: int, alpha: float = 1.0) -> list[Trial]:
        """Return climbs by EM, or by first-order EM of a step below 1."""
        solver = EM() if alpha == 1 else FirstOrderEM(step_size=alpha / snr**2)
        return [climbed(*self.problem(snr, trial), solver) for trial in range(n)]


def curves(axes: Any, groups: dict[str, list[Trial]], what: str, most: int) -> None:
    """Draw an error of each trial of some groups against the iteration."""
    for style, (label, trials) in zip(STYLES, groups.items(), strict=False):
        for i, trial in enumerate(trials):
            error = np.maximum(getattr(trial, what)[: most + 1], 1e-15)
            axes.plot(error, color=style.colour, linewidth=0.9, alpha=0.7, label=label if i == 0 else None)
    panel(axes, title=f"{what} error", x="iteration", y="distance", log="y")
    axes.legend(frameon=False, fontsize=9)


def within(values: Array, trials: int) -> float:
    """Return three standard errors of the difference of two means over so many trials."""
    return 3 * math.sqrt(2 / trials) * float(np.std(values, ddof=1))


class Symmetric(Balakrishnan):
    """Base of the two models with two components, whose rates the population knows in closed form."""

    # SNR: rate of EM and its statistical floor, from ten trials of an independent implementation
    known: ClassVar[dict[float, tuple[float, float]]]

    @abstractmethod
    def population(self, snr: float) -> tuple[float, float]:
        """Return the eigenvalues of the population's EM map at the truth, along it and across."""

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        n, snrs = TRIALS, (1.0, 2.0) if quick else SNRS
        lines, rates, floors = [], {}, {}
        for snr in snrs:
            tick(f"SNR {snr:g}")
            trials = self.trials(snr, n)
            along, across = self.population(snr)
            rates[snr] = np.array([t.rate for t in trials])
            floors[snr] = np.array([t.statistical[-1] for t in trials])
            predicted = math.sqrt((1 / (1 - along) + (D - 1) / (1 - across)) / N) / snr
            if snr in self.known:
                rate, floor = self.known[snr]
                lines += [
                    Line(f"rate of EM, SNR {snr:g}", rate, float(rates[snr].mean()), "reference", within(rates[snr], n)),
                    Line(f"floor, SNR {snr:g}", floor, float(floors[snr].mean()), "reference", within(floors[snr], n)),
                ]
            lines += [
                Line(f"rate of EM, SNR {snr:g}, against the population's", across, float(rates[snr].mean())),
                Line(f"floor, SNR {snr:g}, against its prediction", predicted, float(floors[snr].mean())),
            ]
        tick("first-order EM")
        slow = self.trials(2.0, n, alpha=0.5)
        em = self.trials(2.0, n)
        _, across = self.population(2.0)
        own = np.array([t.rate for t in em])
        observed = np.array([t.rate for t in slow])
        lines.append(
            Line("rate of first-order EM, step 1/2, SNR 2: 1 - (1 - EM's) / 2", float(1 - (1 - own).mean() / 2),
                 float(observed.mean()), "theory", self.slack)
        )  # fmt: skip
        tick("the same iterates")
        lines.append(Line("largest difference of EM and first-order EM of step 1", 0.0, self._apart(), "theory", self.same))
        tick("sample splitting")
        split = [self._split(2.0, trial, 10) for trial in range(n)]
        lines.append(Line("floor with a tenth of the rows for each of 10 iterations, SNR 2", np.nan, float(np.mean(split))))

        def draw(figure: Figure) -> None:
            figure.set_size_inches(15.0, 4.8)
            left, middle, right = figure.subplots(1, 3)
            groups = {"EM": em, "first-order EM, step 1/2": slow}
            curves(left, groups, "optimisation", 30)
            curves(middle, groups, "statistical", 30)
            left.set_title("distance to the estimate, SNR 2", fontsize=11)
            middle.set_title("distance to the truth, SNR 2", fontsize=11)
            grid = np.linspace(snrs[0], snrs[-1], 40)
            right.plot(grid, [self.population(s)[1] for s in grid], color="black", label="population, exact")
            spread = [np.std(rates[s], ddof=1) for s in snrs]
            right.errorbar(snrs, [rates[s].mean() for s in snrs], yerr=spread, color=STYLES[1].colour, fmt="s", capsize=3,
                           label=f"{n} trials of {N:,} rows, mean and sd")  # fmt: skip
            panel(right, title="rate of EM", x="signal-to-noise ratio", y="factor an iteration")
            right.legend(frameon=False)

        notes = (
            "The population's rate is that across the truth, the slower one; samples of 1,000 rows in 10 columns are slower.",
            "Errors fall geometrically to the estimate, which stays the floor away from the truth.",
        )
        settings = {"d": D, "rows": N, "trials": n, "snr": list(snrs), "start": "a quarter of |theta*| away, at random"}
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)

    same: ClassVar[float] = 1e-12  # how far EM's iterates and those of first-order EM may be apart, at step 1
    slack: ClassVar[float] = 0.01  # of the rate that theory gives first-order EM, where X'X is n times the identity

    def _apart(self) -> float:
        """Return the largest difference of the iterates of EM and of first-order EM whose step is 1."""
        objective, start, _ = self.problem(2.0, 0)
        paths = []
        for solver in (EM(), FirstOrderEM(step_size=0.25)):
            thetas: list[Array] = []
            solve(objective, solver, objective.point(start), stop=Stop(gain=0, max_passes=8),
                  callback=lambda step, thetas=thetas: thetas.append(step.evaluation.point.theta))  # fmt: skip
            paths.append(np.array(thetas))
        return float(np.abs(paths[0] - paths[1]).max())

    def _split(self, snr: float, trial: int, batches: int) -> float:
        """Return the distance to the truth after one EM step on each of some batches of the rows."""
        rng = np.random.default_rng([trial, 7])
        truth, away = (v / np.linalg.norm(v) for v in rng.normal(size=(2, D)))
        theta = truth + 0.25 * away
        for _ in range(batches):
            data = self.draw(1 / snr, truth, N // batches, rng)
            objective = ModelObjective(self.model(1 / snr), as_source(data), n_threads=1)
            theta = objective.evaluate(theta).em_point.theta
        return float(np.linalg.norm(theta - truth))


def _normal(nodes: int = NODES) -> tuple[Array, Array]:
    """Return nodes and weights for expectations over a standard normal variable."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    return x, w / w.sum()


def _sech(x: Array) -> Array:
    fall = np.exp(-np.abs(x))
    return 2 * fall / (1 + fall * fall)


class SymmetricMixture(Symmetric):
    """Two symmetric Gaussians: at step 1 first-order EM is EM, and both contract as theory says (Balakrishnan et al.)."""

    name: ClassVar[str] = "symmetric-mixture"
    known: ClassVar[dict[float, tuple[float, float]]] = {
        0.75: (0.702, 0.240), 1.0: (0.538, 0.150), 1.8: (0.135, 0.053), 2.0: (0.090, 0.044), 2.5: (0.033, 0.039),
    }  # fmt: skip

    def draw(self, sigma: float, truth: Array, n: int, rng: np.random.Generator) -> Array:
        return rng.choice([-1.0, 1.0], size=(n, 1)) * truth + sigma * rng.normal(size=(n, D))

    def model(self, sigma: float) -> Model:
        return SymmetricGaussianMixture(sigma**2)

    def population(self, snr: float) -> tuple[float, float]:
        z, w = _normal()
        shrink = math.exp(-0.5 * snr**2)
        return shrink * float(w @ (z * z * _sech(snr * z))), shrink * float(w @ _sech(snr * z))


class SymmetricRegressions(Symmetric):
    """Two symmetric regressions: EM and first-order EM contract to the estimate (Balakrishnan et al.)."""

    name: ClassVar[str] = "symmetric-regressions"
    same: ClassVar[float] = math.inf  # EM inverts X'X here, which is n times the identity only on average
    slack: ClassVar[float] = 0.03
    known: ClassVar[dict[float, tuple[float, float]]] = {
        1.0: (0.615, 0.125), 1.8: (0.394, 0.066), 2.0: (0.400, 0.055), 2.5: (0.303, 0.047),
    }  # fmt: skip

    def draw(self, sigma: float, truth: Array, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        X = rng.normal(size=(n, D))
        return X, rng.choice([-1.0, 1.0], size=n) * (X @ truth) + sigma * rng.normal(size=n)

    def model(self, sigma: float) -> Model:
        return SymmetricRegressionMixture(sigma**2)

    def population(self, snr: float) -> tuple[float, float]:
        z, w = _normal()
        U, e = np.meshgrid(z, z, indexing="ij")
        weight = np.outer(w, w)
        Y = snr * U + e
        moved = weight * _sech(snr * U * Y) ** 2 * Y**2
        return float((moved * U**2).sum()), float(moved.sum())


class MissingCovariates(Balakrishnan):
    """Regression with missing covariates: the more is missing the slower is EM; a published E-step is not EM."""

    name: ClassVar[str] = "missing-covariates"
    shares = (0.05, 0.2, 0.4)
    rates = (0.16, 0.48, 0.74)
    floors = (0.054, 0.063, 0.083)
    share = 0.2

    def draw(self, sigma: float, truth: Array, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        X = rng.normal(size=(n, D))
        y = X @ truth + sigma * rng.normal(size=n)
        return np.where(rng.random((n, D)) < self.share, np.nan, X), y

    def model(self, sigma: float, operator: str = "exact") -> Model:
        return MissingRegression(sigma**2, operator=operator)

    def run(self, *, quick: bool = False, tick: Tick = lambda what: None) -> Outcome:
        n, lines, found = 5 if quick else TRIALS, [], {}
        for share, rate, floor in zip(self.shares, self.rates, self.floors, strict=True):
            tick(f"a share of {share:g} missing")
            at = type(self)()
            at.share = share
            found[share] = trials = at.trials(2.0, n)
            rates, floors = np.array([t.rate for t in trials]), np.array([t.statistical[-1] for t in trials])
            lines += [
                Line(f"rate of EM, {share:g} missing, SNR 2", rate, float(rates.mean()), "reference", within(rates, n) + 0.005),
                Line(f"floor, {share:g} missing, SNR 2", floor, float(floors.mean()), "reference", within(floors, n)),
            ]
        tick("the identity block")
        blocks = [self._identity_block(trial) for trial in range(n)]
        falls, slopes = np.array([b[0] for b in blocks]), np.array([b[1] for b in blocks])
        lines += [
            Line("share of the identity block's steps that lower the log-likelihood", np.nan, float(falls.mean())),
            Line("length of the gradient where the identity block comes to rest", np.nan, float(slopes.mean())),
        ]
        slow = self.trials(2.0, n, alpha=0.5)

        def draw(figure: Figure) -> None:
            figure.set_size_inches(15.0, 4.8)
            left, middle, right = figure.subplots(1, 3)
            groups = {"EM": found[0.2], "first-order EM, step 1/2": slow}
            curves(left, groups, "optimisation", 60)
            left.set_title("distance to the estimate, 0.2 missing, SNR 2", fontsize=11)
            curves(middle, {f"{share:g} missing": found[share] for share in self.shares}, "statistical", 60)
            middle.set_title("EM's distance to the truth, SNR 2", fontsize=11)
            for i, (_, _, gains) in enumerate(blocks):
                steps = np.arange(1, len(gains) + 1)
                down = gains < 0
                colours = STYLES[2].colour, STYLES[1].colour
                for mask, colour, label in ((~down, colours[0], "up"), (down, colours[1], "down")):
                    right.plot(
                        steps[mask], np.abs(gains[mask]), "o", markersize=4, color=colour, label=label if i == 0 else None
                    )
            panel(
                right, title="what steps of the identity block gain", x="iteration", y="|change of the log-likelihood|", log="y"
            )
            right.legend(frameon=False)

        notes = (
            "The identity block replaces the second moments of the missing covariates of a row by their average over the "
            "population. It is no conditional expectation: steps may go down, and it rests where the gradient does not vanish.",
        )
        settings = {"d": D, "rows": N, "trials": n, "snr": 2.0, "missing": list(self.shares)}
        return Outcome(self.name, self.title, tuple(lines), settings, notes, draw)

    def _identity_block(self, trial: int, steps: int = 40) -> tuple[float, float, Array]:
        """Return the share of its steps that fall, the length of the gradient at its end, and the changes of the value."""
        exact, start, _ = self.problem(2.0, trial)
        other = ModelObjective(self.model(0.5, "identity-block"), exact.source, n_threads=1)
        values, theta = [], start
        for _ in range(steps):
            at = exact.evaluate(theta)
            values.append(at.value)
            theta = other.evaluate(theta).em_point.theta
        at = exact.evaluate(theta)
        gains = np.diff([*values, at.value])
        gains = gains[np.abs(gains) > 1e-12]
        return float(np.mean(gains < 0)), float(np.linalg.norm(at.gradient)), gains
