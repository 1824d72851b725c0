"""Gaussian mixtures of rows with missing columns. Rows X (n, d) with NaN where missing, weights w (n,)."""

import numpy as np

from . import mixture, normal


def components(params):
    """Return the mean and the covariance of each component."""
    k, d = params.means.shape
    return zip(params.means, np.broadcast_to(params.covariances, (k, d, d)), strict=True)


def posterior(X, params):
    """Return responsibilities (n, k) and log-densities of what is observed of the rows (n,)."""
    return mixture.posterior(np.stack([normal.log_density(X, *c) for c in components(params)], axis=1), params.weights)


def m_step(X, w, params, tied):
    """Return the next parameters of EM."""
    resp, _ = posterior(X, params)
    k, d = params.means.shape
    r = w[:, None] * resp
    means, scatters = np.zeros((k, d)), np.zeros((k, d, d))
    for c, component in enumerate(components(params)):
        filled, extra = normal.completed(X, *component)
        means[c] = r[:, c] @ filled / r[:, c].sum()
        z = filled - means[c]
        scatters[c] = np.einsum("n,ni,nj->ij", r[:, c], z, z) + np.einsum("n,nij->ij", r[:, c], extra)
    covariances = scatters.sum(axis=0) / w.sum() if tied else scatters / r.sum(axis=0)[:, None, None]
    return r.sum(axis=0) / w.sum(), means, covariances
