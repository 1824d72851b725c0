"""Regression with missing standard normal covariates, from the joint normal of covariates and response.

Rows X (n, d) with NaN where missing, responses y (n,), weights w (n,), coefficients b (d,), variance v.
"""

import numpy as np

from . import normal


def joint(b, v):
    """Return the covariance of (x, y), (d + 1, d + 1)."""
    return np.block([[np.eye(len(b)), b[:, None]], [b[None], np.array([[b @ b + v]])]])


def log_density(X, y, b, v):
    """Return the log-density of what is observed of each row, (n,)."""
    return normal.log_density(np.column_stack([X, y]), np.zeros(len(b) + 1), joint(b, v))


def moments(X, y, b, v):
    """Return the means (n, d) and second moments (n, d, d) of the covariates given what is observed."""
    d = len(b)
    means, covariances = normal.completed(np.column_stack([X, y]), np.zeros(d + 1), joint(b, v))
    means = means[:, :d]
    return means, covariances[:, :d, :d] + means[:, :, None] * means[:, None, :]


def block(X, means):
    """Return second moments (n, d, d) with the identity for the pairs of missing covariates."""
    gone = np.isnan(X)
    second = means[:, :, None] * means[:, None, :]
    return np.where(gone[:, :, None] & gone[:, None, :], np.eye(X.shape[1]), second)


def m_step(X, y, w, b, v, *, identity=False):
    """Return the next coefficients and variance of EM, or of the operator with the identity block."""
    means, seconds = moments(X, y, b, v)
    seconds = block(X, means) if identity else seconds
    G, c = np.einsum("n,nij->ij", w, seconds), (w * y) @ means
    new = np.linalg.solve(G, c)
    return new, (w @ y**2 - 2 * c @ new + new @ G @ new) / w.sum()


def score(X, y, w, b, v):
    """Return the gradient of the summed log-likelihood with respect to b and v."""
    means, seconds = moments(X, y, b, v)
    G, c = np.einsum("n,nij->ij", w, seconds), (w * y) @ means
    return (c - G @ b) / v, 0.5 * ((w @ y**2 - 2 * c @ b + b @ G @ b) / v - w.sum()) / v
