"""EM on quadratic features, for the array libraries.

A log-density is linear in the features 1, x and the products of two columns. So the E-step is one product of features and
coefficients, and the M-step one of responsibilities and features.
"""

import math

import numpy as np


class Features:
    """Which products there are. `xp` is below the array library: the names that NumPy, JAX and PyTorch share."""

    def __init__(self, d: int, covariance: str):
        self.d, self.full = d, covariance == "full"
        self.i, self.j = np.tril_indices(d) if self.full else (np.arange(d), np.arange(d))
        self.twice = [1.0 if i == j else 2.0 for i, j in zip(self.i, self.j, strict=True)]  # (i, j) stands for (j, i) too
        self.size = 1 + d + len(self.i)
        self.place = np.zeros((d, d), dtype=int)  # of each pair among the products
        self.place[self.i, self.j] = self.place[self.j, self.i] = np.arange(len(self.i))

    def coefficients(self, xp, weights, means, covariances):
        """Return the coefficients of log(weight x density), (k, size)."""
        if self.full:
            precision = xp.linalg.inv(covariances)
            linear, quadratic = xp.einsum("kij,kj->ki", precision, means), precision[:, self.i, self.j]
            log_det = xp.linalg.slogdet(covariances)[1]
        else:
            linear, quadratic, log_det = means / covariances, 1.0 / covariances, xp.log(covariances).sum(1)
        quadratic = quadratic * xp.asarray(self.twice, dtype=means.dtype)
        constant = xp.log(weights) - 0.5 * (self.d * math.log(2 * math.pi) + log_det + (linear * means).sum(1))
        return xp.concatenate([constant[:, None], linear, -0.5 * quadratic], 1)

    def update(self, xp, stats):
        """Return weights, means and covariances of the responsibilities' product with the features, (k, size)."""
        count, total, second = stats[:, 0], stats[:, 1 : 1 + self.d], stats[:, 1 + self.d :]
        means, second = total / count[:, None], second / count[:, None]
        if self.full:
            return count / count.sum(), means, second[:, self.place] - means[:, :, None] * means[:, None, :]
        return count / count.sum(), means, second - means * means
