"""The normal distribution of rows X (n, d) of which columns are missing, NaN: from the columns that are seen of each."""

import numpy as np
from scipy.stats import multivariate_normal


def patterns(X):
    """Yield which columns are seen (d,), and the rows of which these are."""
    found, which = np.unique(~np.isnan(X), axis=0, return_inverse=True)
    for i, seen in enumerate(found):
        yield seen, np.flatnonzero(which.ravel() == i)


def log_density(X, mean, S):
    """Return the log-density of what is seen of each row, (n,): 0 where that is nothing."""
    out = np.zeros(len(X))
    for seen, rows in patterns(X):
        if seen.any():
            out[rows] = multivariate_normal(mean[seen], S[np.ix_(seen, seen)]).logpdf(X[np.ix_(rows, seen)])
    return out


def completed(X, mean, S):
    """Return means (n, d) and covariances (n, d, d) of the rows given what is seen of them."""
    means, covariances = np.empty(X.shape), np.empty((*X.shape, X.shape[1]))
    for seen, rows in patterns(X):
        gain = np.linalg.solve(S[np.ix_(seen, seen)], S[seen])
        means[rows] = mean + (X[np.ix_(rows, seen)] - mean[seen]) @ gain
        covariances[rows] = S - S[:, seen] @ gain
    return means, covariances
