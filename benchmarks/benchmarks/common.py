"""What the benchmarks share: workloads, starts, and imports that may fail under other versions."""

from __future__ import annotations

import time
from importlib import import_module
from statistics import median

import numpy as np

COVARIANCES = ("full", "tied", "diag", "spherical")

# The solvers without noise. Not every version has all of them.
DETERMINISTIC = (
    "em", "auto", "natural", "first-order-em", "lange", "gradient", "cg", "lbfgs", "newton", "proximal", "squarem", "anderson",
    "daarem", "zal", "qn1", "qn2", "incremental", "sparse",
)  # fmt: skip

TINY, SMALL, LARGE, HUGE = "n=1000 d=2 k=3", "n=20000 d=4 k=4", "n=200000 d=8 k=8", "n=500000 d=16 k=64"
WIDE, DEEP = "n=50000 d=16 k=16", "n=10000 d=64 k=16"
FLAT, BROAD, MANY = "n=200000 d=2 k=5", "n=4000 d=256 k=8", "n=50000 d=16 k=64"


def safe_import(module, name=None):
    """Return a module, or an attribute of it, or None where this version does not have it."""
    try:
        found = import_module(module)
        return found if name is None else getattr(found, name)
    except (ImportError, AttributeError):
        return None


def require(*found):
    """Skip the benchmark, from its setup, when something it needs is missing."""
    if any(thing is None for thing in found):
        raise NotImplementedError


def sizes(text):
    """Return (n, d, k) of a text such as "n=1000 d=2 k=3"."""
    return tuple(int(part.partition("=")[2]) for part in text.split())


def seconds(call, calls):
    """Return the mean time of a call."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def times_in_turn(*actions, rounds, least=0.005):
    """Return the times of some actions, an array (rounds, actions).

    They take turns in changing order, so that their ratios mean something on a noisy machine too; each is repeated for
    `least` seconds a turn.
    """
    calls = []
    for action in actions:
        action()  # first touch
        calls.append(max(1, round(least / max(median(seconds(action, 1) for _ in range(3)), 1e-9))))
    found = np.empty((rounds, len(actions)))
    order = np.arange(len(actions))
    for i in range(rounds):
        for j in order if i % 2 else order[::-1]:
            found[i, j] = seconds(actions[j], calls[j])
    return found


def mixture_rows(n, d, k, *, spread=3.0, seed=1234):
    """Return rows (n, d) of a random mixture of k Gaussians, and their components (n,).

    The means are `spread` times standard normal. Rows are drawn in place, in pieces: the peak of memory stays theirs.
    """
    rng = np.random.default_rng(seed)
    means = spread * rng.normal(size=(k, d))
    shapes = rng.normal(size=(k, d, d)) / d**0.5
    factors = np.linalg.cholesky(shapes @ shapes.transpose(0, 2, 1) + 0.5 * np.eye(d))
    component = rng.choice(k, size=n, p=rng.dirichlet(np.full(k, 10.0)))
    X = np.empty((n, d))
    for row0 in range(0, n, 10_000):
        part = slice(row0, min(row0 + 10_000, n))
        c = component[part]
        X[part] = np.einsum("nij,nj->ni", factors[c], rng.normal(size=X[part].shape)) + means[c]
    return X, component


def start_at(X, rows, covariance):
    """Return the start with equal weights, means at these rows of X, and the variances of the columns."""
    k = len(rows)
    variances = X.var(axis=0)
    covariances = {
        "full": np.tile(np.diag(variances), (k, 1, 1)),
        "tied": np.diag(variances),
        "diag": np.tile(variances, (k, 1)),
        "spherical": np.full(k, variances.mean()),
    }[covariance]
    return {"weights": np.full(k, 1 / k), "means": X[rows], "covariances": covariances}


def anew(params):
    """Return equal parameters that nothing is remembered of: a climb meets each but once."""
    return params._make(array.copy() for array in params)


def random_start(X, k, covariance, seed):
    """Return a start with means at k rows drawn without replacement: the same under every version."""
    rows = np.random.default_rng(seed).choice(len(X), size=k, replace=False)
    return start_at(X, np.sort(rows), covariance)
