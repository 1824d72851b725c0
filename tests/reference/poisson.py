"""Poisson mixtures written down as in a textbook: an oracle that shares no line with the library.

Rows (n, d), weights of rows (n,), mixture weights (k,), rates (k, d).
"""

import numpy as np
from scipy.stats import poisson

from . import mixture


def log_density(X, rates):
    """Return log-densities (n, k)."""
    return poisson.logpmf(X[:, None, :], rates).sum(axis=2)


def posterior(X, weights, rates):
    """Return responsibilities (n, k) and log-densities of the rows (n,)."""
    return mixture.posterior(log_density(X, rates), weights)


def m_step(X, w, resp):
    """Return weights and rates."""
    r = w[:, None] * resp
    return r.sum(axis=0) / w.sum(), (r.T @ X) / r.sum(axis=0)[:, None]


def q(X, w, resp, weights, rates):
    """Return the expected complete-data log-likelihood, summed over the rows."""
    return mixture.q(log_density(X, rates), w, resp, weights)


def score(X, w, weights, rates):
    """Return the gradient of the summed log-likelihood with respect to weights (free positive numbers) and rates."""
    r = w[:, None] * posterior(X, weights, rates)[0]
    return r.sum(axis=0) / weights, np.sum(r[:, :, None] * (X[:, None, :] / rates - 1.0), axis=0)
