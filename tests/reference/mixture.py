"""What all mixtures have in common, from the log-densities of the rows in each component, (n, k)."""

import numpy as np
from scipy.special import logsumexp


def posterior(logp, weights):
    """Return responsibilities (n, k) and log-densities of the rows (n,)."""
    with np.errstate(divide="ignore"):
        joint = logp + np.log(weights)
    rows = logsumexp(joint, axis=1)
    return np.exp(joint - rows[:, None]), rows


def q(logp, w, resp, weights):
    """Return the expected complete-data log-likelihood, summed over rows of weights w (n,)."""
    r = w[:, None] * resp
    with np.errstate(divide="ignore"):
        logs = np.where(r.sum(axis=0) > 0, np.log(weights), 0.0)
    return np.sum(r * (logp + logs))
