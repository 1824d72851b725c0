"""Mixtures of Student's t as in a textbook: densities by SciPy, an oracle that shares no line with the library."""

import numpy as np
from scipy.stats import multivariate_t

from . import gmm, mixture


def matrices(covariances, k):
    """Return the scale matrices (k, d, d) of full or tied ones."""
    return gmm.expand("full" if covariances.ndim == 3 else "tied", covariances, k, covariances.shape[-1])


def posterior(X, weights, means, covariances, dof):
    """Return responsibilities (n, k), expected precisions u (n, k) and log-densities of the rows (n,)."""
    k, d = means.shape
    logp, u = np.empty((len(X), k)), np.empty((len(X), k))
    for c, S in enumerate(matrices(covariances, k)):
        logp[:, c] = multivariate_t(means[c], S, dof).logpdf(X)
        r = X - means[c]
        u[:, c] = (dof + d) / (dof + np.sum(r * np.linalg.solve(S, r.T).T, axis=1))
    resp, rows = mixture.posterior(logp, weights)
    return resp, u, rows


def m_step(X, w, resp, u, *, tied, expanded):
    """Return weights, means and scale matrices; the expanded step divides scatters by the sums of h u."""
    h = w[:, None] * resp
    heavy, count = h * u, h.sum(axis=0)
    means = heavy.T @ X / heavy.sum(axis=0)[:, None]
    scatters = np.array([(X - m).T @ ((X - m) * heavy[:, [c]]) for c, m in enumerate(means)])
    divisor = heavy.sum(axis=0) if expanded else count
    scales = scatters.sum(axis=0) / divisor.sum() if tied else scatters / divisor[:, None, None]
    return count / count.sum(), means, scales


def score(X, w, resp, u, means, covariances):
    """Return the gradient of the summed log-likelihood with respect to means and scale matrices, all entries free."""
    h = w[:, None] * resp
    g_means, G = [], []
    for c, S in enumerate(matrices(covariances, len(means))):
        P = np.linalg.inv(S)
        z = (X - means[c]) @ P
        g_means.append((h * u)[:, c] @ z)
        G.append(0.5 * (z.T @ (z * (h * u)[:, [c]]) - h[:, c].sum() * P))
    return np.array(g_means), np.sum(G, axis=0) if covariances.ndim == 2 else np.array(G)
