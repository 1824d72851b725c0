"""Mixtures of factor analysers in NumPy, from dense covariances and row by row: the oracle of emcore's.

Independent of emcore; whatever units the rows are in are those of the parameters.
"""

import numpy as np

from . import mixture
from .gmm import log_density


def covariances(loadings, noise):
    """Return ``L L' + Psi`` of each component, (k, d, d); noise (k, d), or (d,) where tied."""
    noise = np.broadcast_to(noise, loadings.shape[:2])
    return np.array([L @ L.T + np.diag(v) for L, v in zip(loadings, noise, strict=True)])


def posterior(X, weights, means, loadings, noise):
    """Return responsibilities (n, k), means (n, k, q) and covariances (k, q, q) of the factors, and log-densities (n,)."""
    sigmas, q = covariances(loadings, noise), loadings.shape[2]
    resp, rows = mixture.posterior(log_density(X, means, sigmas), weights)
    slopes = [np.linalg.solve(S, L).T for S, L in zip(sigmas, loadings, strict=True)]
    factors = np.stack([(X - m) @ B.T for m, B in zip(means, slopes, strict=True)], axis=1)
    spread = np.array([np.eye(q) - B @ L for B, L in zip(slopes, loadings, strict=True)])
    return resp, factors, spread, rows


def expected(X, w, resp, factors, spread, c):
    """Return the expected sums of z z' (p, p), x z' (d, p) and x^2 (d,) of a component, z = (1, f)."""
    r, p = w * resp[:, c], factors.shape[2] + 1
    gram, cross = np.zeros((p, p)), np.zeros((X.shape[1], p))
    for weight, x, f in zip(r, X, factors[:, c], strict=True):
        z = np.concatenate([[1.0], f])
        second = np.outer(z, z)
        second[1:, 1:] += spread[c]
        gram += weight * second
        cross += weight * np.outer(x, z)
    return gram, cross, r @ np.square(X)


def regressors(loadings):
    """Return which of z a column is regressed on, (d, p): the constant, and the factors up to its own index."""
    d, q = loadings.shape[1:]
    return np.array([[True] + [i <= j for i in range(q)] for j in range(d)])


def m_step(X, w, resp, factors, spread, loadings, *, tied=False):
    """Return new weights, means, loadings and noise."""
    k, d, q = loadings.shape
    count, free = w @ resp, regressors(loadings)
    means, new, left = np.zeros((k, d)), np.zeros((k, d, q)), np.zeros((k, d))
    for c in range(k):
        gram, cross, square = expected(X, w, resp, factors, spread, c)
        for j in range(d):
            b = np.zeros(q + 1)
            b[free[j]] = np.linalg.solve(gram[np.ix_(free[j], free[j])], cross[j, free[j]])
            means[c, j], new[c, j] = b[0], b[1:]
            left[c, j] = square[j] - 2 * b @ cross[j] + b @ gram @ b
    noise = left.sum(axis=0) / count.sum() if tied else left / count[:, None]
    return count / w.sum(), means, new, noise


def score(X, w, resp, factors, spread, means, loadings, noise):
    """Return the gradient of the log-likelihood with respect to means, loadings and noise: sums over the rows."""
    k, d, _ = loadings.shape
    wide, count = np.broadcast_to(noise, (k, d)), w @ resp
    slope, bend, change = np.zeros_like(means), np.zeros_like(loadings), np.zeros((k, d))
    for c in range(k):
        gram, cross, square = expected(X, w, resp, factors, spread, c)
        b = np.concatenate([means[c][:, None], loadings[c]], axis=1)
        g = (cross - b @ gram) / wide[c][:, None]
        slope[c], bend[c] = g[:, 0], np.where(regressors(loadings)[:, 1:], g[:, 1:], 0.0)
        squares = square - 2 * np.sum(b * cross, axis=1) + np.einsum("ja,ab,jb->j", b, gram, b)
        change[c] = 0.5 * (squares / wide[c] - count[c]) / wide[c]
    return slope, bend, change.sum(axis=0) if noise.ndim == 1 else change
