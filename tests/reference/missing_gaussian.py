"""Gaussian mixtures of rows with missing columns, row by row. Rows X (n, d) with NaN where missing, weights w (n,)."""

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal


def components(params):
    k, d = params.means.shape
    return np.broadcast_to(params.covariances, (k, d, d))


def posterior(X, params):
    """Return responsibilities (n, k) and log-densities of what is observed of the rows (n,)."""
    joint = np.tile(np.log(params.weights), (len(X), 1))
    for c, S in enumerate(components(params)):
        for i, row in enumerate(X):
            seen = ~np.isnan(row)
            if seen.any():
                joint[i, c] += multivariate_normal.logpdf(row[seen], params.means[c, seen], S[np.ix_(seen, seen)])
    rows = logsumexp(joint, axis=1)
    return np.exp(joint - rows[:, None]), rows


def m_step(X, w, params, tied):
    """Return the next parameters of EM."""
    resp, _ = posterior(X, params)
    k, d = params.means.shape
    r = w[:, None] * resp
    means, scatters = np.zeros((k, d)), np.zeros((k, d, d))
    for c, S in enumerate(components(params)):
        filled, extra = np.zeros(X.shape), np.zeros((len(X), d, d))
        for i, row in enumerate(X):
            seen = ~np.isnan(row)
            gain = np.linalg.solve(S[np.ix_(seen, seen)], S[seen])
            filled[i] = params.means[c] + (row[seen] - params.means[c, seen]) @ gain
            extra[i] = S - S[:, seen] @ gain
        means[c] = r[:, c] @ filled / r[:, c].sum()
        z = filled - means[c]
        scatters[c] = np.einsum("n,ni,nj->ij", r[:, c], z, z) + np.einsum("n,nij->ij", r[:, c], extra)
    covariances = scatters.sum(axis=0) / w.sum() if tied else scatters / r.sum(axis=0)[:, None, None]
    return r.sum(axis=0) / w.sum(), means, covariances
