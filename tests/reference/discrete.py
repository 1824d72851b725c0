"""Mixtures of zeros and ones, of symbols and of counts in cells, as in a textbook: an oracle that shares no line with emcore.

Rows (n, d), weights of rows (n,), mixture weights (k,). Probabilities are (k, d) of a one (Bernoulli) or of a cell
(multinomial), or (k, d, m) of a symbol (categorical).
"""

import numpy as np
from scipy import stats

from . import mixture

KINDS = ("BernoulliMixture", "CategoricalMixture", "MultinomialMixture")


def one_hot(X, m):
    """Return indicators (n, d, m) of symbols."""
    return (X[:, :, None] == np.arange(m)).astype(float)


def log_density(kind, X, p):
    """Return log-densities (n, k)."""
    X = np.asarray(X).astype(int)
    with np.errstate(divide="ignore"):
        if kind == "BernoulliMixture":
            return stats.bernoulli.logpmf(X[:, None, :], p).sum(axis=2)
        if kind == "MultinomialMixture":
            return np.stack([stats.multinomial(X.sum(axis=1), q).logpmf(X) for q in p], axis=1)
        return np.log(p)[:, np.arange(X.shape[1]), X].sum(axis=2).T


def posterior(kind, X, weights, p):
    """Return responsibilities (n, k) and log-densities of the rows (n,)."""
    return mixture.posterior(log_density(kind, X, p), weights)


def seen(kind, X, w, resp, p):
    """Return the expected counts of whatever has a probability, and of all of its kind, both of the shape of p."""
    r = w[:, None] * resp
    if kind == "BernoulliMixture":
        return r.T @ X, np.broadcast_to(r.sum(axis=0)[:, None], p.shape)
    if kind == "MultinomialMixture":
        counts = r.T @ X
    else:
        counts = np.einsum("nc,njv->cjv", r, one_hot(X, p.shape[2]))
    return counts, np.broadcast_to(counts.sum(axis=-1, keepdims=True), p.shape)


def m_step(kind, X, w, resp, p):
    """Return weights and probabilities; p gives their shape."""
    counts, total = seen(kind, X, w, resp, p)
    return (w[:, None] * resp).sum(axis=0) / w.sum(), counts / total


def q(kind, X, w, resp, weights, p):
    """Return the expected complete-data log-likelihood, summed over the rows."""
    return mixture.q(log_density(kind, X, p), w, resp, weights)


def score(kind, X, w, weights, p):
    """Return the gradient of the summed log-likelihood; weights and probabilities that sum to 1 are free positive numbers."""
    resp, _ = posterior(kind, X, weights, p)
    counts, total = seen(kind, X, w, resp, p)
    g = (counts - total * p) / (p * (1 - p)) if kind == "BernoulliMixture" else counts / np.where(p > 0, p, 1.0)
    return (w[:, None] * resp).sum(axis=0) / weights, g
