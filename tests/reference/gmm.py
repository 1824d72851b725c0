"""Gaussian mixtures written down as in a textbook: an oracle that shares no line with the library.

Densities take whole matrices (k, d, d); `expand` makes them of what the four covariance types keep. Rows
(n, d), weights of rows (n,), responsibilities (n, k) without weights.
"""

import numpy as np

from . import mixture
from .mixture import posterior


def expand(kind, covariances, k, d):
    """Return the covariance matrices (k, d, d)."""
    c = np.asarray(covariances, dtype=float)
    if kind == "full":
        return c.reshape(k, d, d)
    if kind == "tied":
        return np.array([c.reshape(d, d)] * k)
    if kind == "diag":
        return np.array([np.diag(row) for row in c.reshape(k, d)])
    return np.array([v * np.eye(d) for v in c.reshape(k)])


def draw_covariances(kind, k, d, rng):
    """Return covariances of the type's shape of correlated columns, or of columns of different variances."""
    A = rng.normal(size=(k, d, d)) / np.sqrt(d)
    full = A @ A.transpose(0, 2, 1) + 0.5 * np.eye(d)
    variances = rng.uniform(0.3, 2.0, size=(k, d))
    return {"full": full, "tied": full[0], "diag": variances, "spherical": variances[:, 0]}[kind]


def log_density(X, means, sigmas):
    """Return the log-densities (n, k)."""
    d = X.shape[1]
    out = np.empty((len(X), len(means)))
    for c, (m, S) in enumerate(zip(means, sigmas, strict=True)):
        r = X - m
        quadratic = np.sum(r * np.linalg.solve(S, r.T).T, axis=1)
        out[:, c] = -0.5 * (quadratic + np.linalg.slogdet(S)[1] + d * np.log(2 * np.pi))
    return out


def log_density_diag(X, mean, variances):
    """Return the log-densities (n,) of one component whose columns are independent."""
    return -0.5 * (np.square(X - mean) / variances + np.log(2 * np.pi * variances)).sum(axis=1)


def statistics(X, w, resp, origins, kind):
    """Return count (k,), sum (k, d) and second-order statistics about the origins, and the like of absolute terms."""
    k, d = origins.shape
    r = w[:, None] * resp
    rows, cols = np.tril_indices(d)

    def second(a, z):
        if kind in ("full", "tied"):
            return ((z * a[:, None]).T @ z)[rows, cols]
        squares = a @ np.square(z)
        return squares if kind == "diag" else squares.sum()

    count, total, gram, total_abs, gram_abs = r.sum(axis=0), [], [], [], []
    for c in range(k):
        z = X - origins[c]
        total.append(r[:, c] @ z)
        total_abs.append(r[:, c] @ np.abs(z))
        gram.append(second(r[:, c], z))
        gram_abs.append(second(r[:, c], np.abs(z)))
    if kind == "tied":
        gram, gram_abs = np.sum(gram, axis=0), np.sum(gram_abs, axis=0)
    values = [count, count, np.ravel(total), np.ravel(gram)]
    sizes = [count, count, np.ravel(total_abs), np.ravel(gram_abs)]
    return np.concatenate(values), np.concatenate(sizes)


def m_step(X, w, resp, kind, floor=0.0):
    """Return weights, means and covariances (of the type's shape), eigenvalues clipped at the floor."""
    r = w[:, None] * resp
    count = r.sum(axis=0)
    means = (r.T @ X) / count[:, None]
    k, d = means.shape
    S = np.empty((k, d, d))
    for c in range(k):
        z = X - means[c]
        S[c] = (z * r[:, c, None]).T @ z
    if kind == "full":
        return count / count.sum(), means, np.array([clip(s / n, floor) for s, n in zip(S, count, strict=True)])
    if kind == "tied":
        return count / count.sum(), means, clip(S.sum(axis=0) / count.sum(), floor)
    variances = np.diagonal(S, axis1=1, axis2=2) / count[:, None]
    if kind == "spherical":
        variances = variances.mean(axis=1)
    return count / count.sum(), means, np.maximum(variances, floor)


def clip(S, floor):
    """Return the matrix with its eigenvalues clipped from below."""
    values, vectors = np.linalg.eigh(S)
    return vectors @ np.diag(np.maximum(values, floor)) @ vectors.T


def q(X, w, resp, weights, means, sigmas):
    """Return the expected complete-data log-likelihood, summed over the rows."""
    return mixture.q(log_density(X, means, sigmas), w, resp, weights)


def score(X, w, weights, means, covariances, kind):
    """Return the gradient of the summed log-likelihood with respect to weights, means and covariances.

    Weights are taken as free positive numbers, symmetric matrices as having all entries free.
    """
    k, d = means.shape
    sigmas = expand(kind, covariances, k, d)
    resp, _ = posterior(log_density(X, means, sigmas), weights)
    r = w[:, None] * resp
    g_means, G = np.empty((k, d)), np.empty((k, d, d))
    for c in range(k):
        P = np.linalg.inv(sigmas[c])
        u = (X - means[c]) @ P
        g_means[c] = r[:, c] @ u
        G[c] = 0.5 * ((u * r[:, c, None]).T @ u - r[:, c].sum() * P)
    g = {
        "full": lambda: G,
        "tied": lambda: G.sum(axis=0),
        "diag": lambda: np.diagonal(G, axis1=1, axis2=2).copy(),
        "spherical": lambda: np.trace(G, axis1=1, axis2=2),
    }[kind]()
    return r.sum(axis=0) / weights, g_means, g
