"""The workloads: mixtures drawn from a fixed seed, and where EM starts on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rivals.rival import Parameters


@dataclass(frozen=True)
class Workload:
    """n rows of d columns, k components. `whole` counts the steps where a whole fit is timed instead of one iteration."""

    name: str
    n: int
    d: int
    k: int
    covariance: str = "full"
    whole: int = 0

    @property
    def flops(self) -> float | None:
        """Operations of one iteration on full covariances, E-step and M-step: what the fraction of DGEMM counts."""
        return 2.0 * self.n * self.k * self.d * (self.d + 1) if self.covariance == "full" and not self.whole else None

    def scaled(self, factor: float) -> Workload:
        """Return it with fewer or more rows, but not so few that covariances may be singular."""
        enough = max(1_000, 8 * self.k * self.d)
        return replace(self, n=max(int(self.n * factor), min(self.n, enough)))


_B = Workload("B", 1_000_000, 16, 16)
WORKLOADS = {
    w.name: w
    for w in (
        Workload("A", 1_000_000, 8, 8),
        _B,
        Workload("C", 200_000, 64, 16),
        Workload("D", 50_000, 256, 8),
        Workload("E", 1_000_000, 16, 64, "diag"),
        Workload("F", 1_000_000, 2, 5),
        Workload("G", 1_000, 2, 3, whole=100),
        replace(_B, name="B-tied", covariance="tied"),
        replace(_B, name="B-diag", covariance="diag"),
        replace(_B, name="B-spherical", covariance="spherical"),
    )
}
USUAL = "ABCDEFG"


def draw(workload: Workload, dtype: str, overlap: bool) -> tuple[np.ndarray, Parameters]:
    """Return the rows (n, d) and the start. The components are well separated, but with `overlap` ten times nearer."""
    w = workload
    rng = np.random.default_rng(1234 + ord(w.name[0]))
    means = 3.0 * rng.standard_normal((w.k, w.d)) / (10.0 if overlap else 1.0)
    labels = rng.choice(w.k, size=w.n, p=rng.dirichlet(np.full(w.k, 10.0)))
    factors = []
    for _ in range(w.k):
        A = rng.standard_normal((w.d, w.d)) / np.sqrt(w.d)
        factors.append(np.linalg.cholesky(A @ A.T + 0.5 * np.eye(w.d)))
    X = rng.standard_normal((w.n, w.d))
    for c in range(w.k):
        rows = labels == c
        X[rows] = X[rows] @ factors[c].T + means[c]
    first = np.sort(rng.choice(w.n, size=w.k, replace=False))
    X = X.astype(dtype)
    variance = float(X.var(axis=0, dtype=np.float64).mean())
    covariances = {
        "full": np.tile(variance * np.eye(w.d), (w.k, 1, 1)),
        "tied": variance * np.eye(w.d),
        "diag": np.full((w.k, w.d), variance),
        "spherical": np.full(w.k, variance),
    }[w.covariance]
    return X, Parameters(np.full(w.k, 1.0 / w.k), X[first].astype(np.float64), covariances)
