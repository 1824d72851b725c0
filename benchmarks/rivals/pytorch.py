"""Quadratic features in PyTorch, all rows at once."""

import numpy as np

from rivals import quadratic
from rivals.rival import Fit, NotSupported, Parameters, clock, need, supports

MOST = 4e9  # bytes of features; beyond this nobody would do it this way


def fit(X, start, covariance, steps, threads):
    torch = need("torch")
    supports(covariance, "full", "diag")
    n, d = X.shape
    features = quadratic.Features(d, covariance)
    if n * features.size * X.itemsize > MOST:
        raise NotSupported("features too large")
    torch.set_num_threads(threads)
    with torch.no_grad(), clock() as time:
        rows = torch.from_numpy(X)
        shift = rows.mean(0)  # uncentred products would cancel
        rows = rows - shift
        F = torch.cat([rows.new_ones((n, 1)), rows, rows[:, features.i] * rows[:, features.j]], 1)
        at = tuple(torch.from_numpy(a).to(rows) for a in start)
        at = (at[0], at[1] - shift, at[2])
        for _ in range(steps):
            resp = torch.softmax(F @ features.coefficients(torch, *at).T, 1)
            at = features.update(torch, resp.T @ F)
        weights, means, covariances = at[0], at[1] + shift, at[2]
    return Fit(Parameters(*(np.asarray(a) for a in (weights, means, covariances))), time.seconds, torch.__version__)
