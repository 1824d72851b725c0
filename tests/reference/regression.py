"""Mixtures of linear regressions written down as in a textbook: an oracle that shares no line with the library.

Regressors Z (n, p), with a column of ones where there is an intercept, responses y (n,), weights of rows w (n,), mixture
weights (k,), coefficients (k, p), variances (k,).
"""

import numpy as np
from scipy.stats import norm

from . import mixture


def log_density(Z, y, coefficients, variances):
    """Return log-densities of the responses (n, k)."""
    return norm.logpdf(y[:, None], Z @ coefficients.T, np.sqrt(variances))


def posterior(Z, y, weights, coefficients, variances):
    """Return responsibilities (n, k) and log-densities of the responses (n,)."""
    return mixture.posterior(log_density(Z, y, coefficients, variances), weights)


def m_step(Z, y, w, resp):
    """Return weights, coefficients and variances, each regression by weighted least squares."""
    r = w[:, None] * resp
    coefficients, variances = [], []
    for c in range(r.shape[1]):
        root = np.sqrt(r[:, c])
        b = np.linalg.lstsq(root[:, None] * Z, root * y, rcond=None)[0]
        coefficients.append(b)
        variances.append(r[:, c] @ (y - Z @ b) ** 2 / r[:, c].sum())
    return r.sum(axis=0) / w.sum(), np.array(coefficients), np.array(variances)


def q(Z, y, w, resp, weights, coefficients, variances):
    """Return the expected complete-data log-likelihood, summed over the rows."""
    return mixture.q(log_density(Z, y, coefficients, variances), w, resp, weights)


def score(Z, y, w, weights, coefficients, variances):
    """Return the gradient of the summed log-likelihood with respect to weights (free positive numbers) and the rest."""
    r = w[:, None] * posterior(Z, y, weights, coefficients, variances)[0]
    e = y[:, None] - Z @ coefficients.T
    slopes = np.einsum("nc,nc,ni->ci", r, e, Z) / variances[:, None]
    return r.sum(axis=0) / weights, slopes, 0.5 * (np.sum(r * e**2, axis=0) / variances**2 - r.sum(axis=0) / variances)
