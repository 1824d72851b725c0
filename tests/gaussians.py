"""Gaussian mixtures for passes of kernels alone, the oracle's answers, and ways in which rows may lie in memory."""

import numpy as np
from reference import gmm

import emcore.kernels as kernels
from emcore.models import COVARIANCES

LOG_2PI = np.log(2 * np.pi)


class Setup:
    """A Gaussian mixture in frame units, its kernel, and the oracle's answer for the same rows."""

    def __init__(self, kind, d, k, *, seed=0, spread=1.5):
        rng = np.random.default_rng((seed, d, k, COVARIANCES.index(kind)))
        self.kind, self.d, self.k = kind, d, k
        self.shift, self.scale = rng.normal(size=d), np.exp2(rng.integers(-2, 3, size=d))
        self.means = spread * rng.normal(size=(k, d))
        self.weights = rng.dirichlet(np.full(k, 3.0))
        self.covariances = gmm.draw_covariances(kind, k, d, rng)
        self.sigmas = gmm.expand(kind, self.covariances, k, d)

    @property
    def diagonal(self):
        return self.kind in ("diag", "spherical")

    @property
    def whitening(self):
        """The inverse Cholesky factors (k, d, d), of tied covariances (1, d, d)."""
        return np.linalg.inv(np.linalg.cholesky(self.sigmas[:1] if self.kind == "tied" else self.sigmas))

    @property
    def arguments(self):
        """What kernels of Gaussians begin with: means, packed factors, logarithms of the norms, shift and scale."""
        rows, cols = np.diag_indices(self.d) if self.diagonal else np.tril_indices(self.d)
        norms = np.log(self.scale).sum() - 0.5 * (np.linalg.slogdet(self.sigmas)[1] + self.d * LOG_2PI)
        return self.means, self.whitening[:, rows, cols], norms, self.shift, self.scale

    @property
    def pooled(self):
        return self.kind in ("tied", "spherical")

    def kernel(self, weights=None):
        emission = (kernels.GaussianDiag if self.diagonal else kernels.GaussianTri)(*self.arguments, self.pooled)
        with np.errstate(divide="ignore"):
            return kernels.Coupled(kernels.Mixture(np.log(self.weights if weights is None else weights)), emission)

    def rows(self, n, seed=1):
        """Return n rows in the user's units, around the components."""
        rng = np.random.default_rng(seed)
        return (self.means[rng.integers(self.k, size=n)] + rng.normal(size=(n, self.d))) / self.scale + self.shift

    def oracle(self, X):
        """Return frame rows, responsibilities and log-densities of the rows."""
        Z = (X - self.shift) * self.scale
        logp = gmm.log_density(Z, self.means, self.sigmas) + np.log(self.scale).sum()
        return Z, *gmm.posterior(logp, self.weights)

    def statistics(self, Z, w, resp):
        """Return statistics about the means, [count of the latent | those of the emission], and of absolute terms."""
        values, sizes = gmm.statistics(Z, w, resp, self.means, self.kind)
        return np.concatenate([values[: self.k], values]), np.concatenate([sizes[: self.k], sizes])


def misaligned(X):
    """Return an equal array whose rows lie at odd addresses."""
    fields = np.zeros(len(X), dtype=np.dtype([("odd", "i1"), ("X", X.dtype, X.shape[1:])]))
    fields["X"] = X
    assert not fields["X"].flags.aligned
    return fields["X"]


LAYOUTS = {
    "fortran": np.asfortranarray,
    "rows strided": lambda X: np.repeat(X, 3, axis=0)[::3],
    "columns strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "rows reversed": lambda X: X[::-1].copy()[::-1],
    "columns reversed": lambda X: X[:, ::-1].copy()[:, ::-1],
    "both reversed": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "transposed and reversed": lambda X: X.T[::-1, ::-1].copy()[::-1, ::-1].T,
    "misaligned": misaligned,
}
