"""Whether `auto` has earned to be the default: it beside EM and L-BFGS on random mixtures, from random starts.

    python benchmarks/auto_study.py [--problems 120] [--starts 2] [--seed 1] [--solvers em,lbfgs,auto] [--worse]

Gaussian mixtures of all covariances (1 to 8 columns, 2 to 6 components, from separated to heavily overlapping) and, one
in five, Poisson mixtures; a seed fixes every number. Printed are, over all climbs, in how many each solver reached the best
optimum known for its problem, and in how many it ended lower or higher than the better of EM and L-BFGS from the same start;
and over the starts from which it ended where that better one did, the ratio of its passes to that one's (the fewer, where
both did).
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

import emcore
from emcore.models import COVARIANCES, GaussianMixture, PoissonMixture

SAME = 1e-8  # values per unit weight that agree to this are of one optimum
RIVALS = ("em", "lbfgs")


def problem(seed: int, number: int):
    """Return a name, an unbound model and rows (n, d)."""
    rng = np.random.default_rng((seed, number))
    d, k = int(rng.integers(1, 9)), int(rng.integers(2, 7))
    n = int(rng.integers(60, 300)) * k
    apart = float(rng.uniform(1.0, 6.0))
    component = rng.choice(k, size=n, p=rng.dirichlet(np.full(k, 5.0)))
    centres = rng.normal(size=(k, d)) * apart / np.sqrt(2 * d)
    if number % 5 == 4:
        roots = 3.0 + 0.5 * centres  # a count's square root has a standard deviation of one half
        X = rng.poisson(np.square(roots)[component]).astype(float)
        return f"{number} Poisson k{k} d{d} {apart:.1f}", PoissonMixture(k), X
    covariance = COVARIANCES[number % 5]
    factors = np.tile(np.eye(d), (k, 1, 1))
    if covariance in ("full", "tied"):
        bend = 0.5 * rng.normal(size=(k, d, d)) / np.sqrt(d)
        factors += bend if covariance == "full" else bend[0]
    X = centres[component] + np.einsum("nij,nj->ni", factors[component], rng.normal(size=(n, d)))
    return f"{number} {covariance} k{k} d{d} {apart:.1f}", GaussianMixture(k, covariance), X


def run(seed: int, n_problems: int, n_starts: int, solvers, first: int = 0) -> emcore.Study:
    """Return the study."""
    problems = {}
    for number in range(first, first + n_problems):
        name, model, X = problem(seed, number)
        problems[name] = (model, X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return emcore.study(problems, solvers=solvers, n_starts=n_starts, start="random-points", random_state=seed, n_threads=1)


def table(study: emcore.Study) -> list[str]:
    """Return the table, line by line."""
    starts: dict[tuple[str, int], dict[str, object]] = {}
    for climb in study.climbs:
        starts.setdefault((climb.problem, climb.start), {})[climb.solver] = climb
    out = [f"{'solver':<10} reached best  lower  higher  no optimum    same  ratio of passes: median   p95   max"]
    for label in study.labels:
        counts = np.zeros(5, dtype=int)
        ratios = []
        for climbs in starts.values():
            own = climbs[label]
            rivals = [climbs[r] for r in RIVALS if climbs[r].status.ok]
            counts[0] += own.reached
            counts[3] += own.optimum is None
            if not rivals or own.optimum is None:
                continue
            top = max(r.value for r in rivals)
            counts[1] += own.value < top - SAME
            counts[2] += own.value > top + SAME
            if abs(own.value - top) <= SAME:
                counts[4] += 1
                ratios.append(own.passes / min(r.passes for r in rivals if r.value >= top - SAME))
        shown = (np.median(ratios), np.percentile(ratios, 95), max(ratios)) if ratios else (np.nan,) * 3
        reached, lower, higher, nowhere, same = counts
        out.append(
            f"{label:<10} {reached:>5} of {len(starts):<4}  {lower:>5}  {higher:>6}  {nowhere:>10}  {same:>6}"
            f"  {shown[0]:>23.2f} {shown[1]:>5.2f} {shown[2]:>5.2f}"
        )
    return out


def worse(study: emcore.Study, label: str = "auto") -> list[str]:
    """Return the starts from which a solver ended lower than the better of EM and L-BFGS, or took long."""
    out = []
    for climb in study.climbs:
        if climb.solver != label:
            continue
        same = [c for c in study.climbs if (c.problem, c.start) == (climb.problem, climb.start)]
        ended = {c.solver: (round(c.value, 9), c.passes, c.status.name) for c in same}
        rivals = [c for c in same if c.solver in RIVALS and c.status.ok]
        if rivals and (climb.optimum is None or climb.value < max(r.value for r in rivals) - SAME):
            out.append(f"{climb.problem}, start {climb.start}: {ended}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=120)
    parser.add_argument("--first", type=int, default=0, help="number of the first problem")
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--solvers", default="em,lbfgs,auto")
    parser.add_argument("--worse", action="store_true", help="name the starts from which auto ended lower")
    given = parser.parse_args()
    study = run(given.seed, given.problems, given.starts, given.solvers.split(","), given.first)
    print(f"{given.problems} problems, {given.starts} starts each, seed {given.seed}")
    print("\n".join(table(study)))
    if given.worse:
        print("\n".join(worse(study)))


if __name__ == "__main__":
    main()
