"""A pass of each model beside the same E-step and M-step in NumPy, vectorised as anyone would."""

import numpy as np

from .common import require, safe_import, times_in_turn

ModelObjective = safe_import("emcore.objective", "ModelObjective")
as_source = safe_import("emcore.data", "as_source")

N = 100_000


def posterior(logs):
    """Return responsibilities (n, k) of joint log-densities, and the log-likelihood."""
    top = logs.max(axis=1, keepdims=True)
    resp = np.exp(logs - top)
    total = resp.sum(axis=1, keepdims=True)
    resp /= total
    return resp, float((np.log(total) + top).sum())


class Bernoulli:
    k, d, options = 5, 20, ()
    build = safe_import("emcore.models", "BernoulliMixture")

    def __init__(self, rng):
        self.params = {"weights": np.full(self.k, 1 / self.k), "probabilities": rng.uniform(0.2, 0.8, size=(self.k, self.d))}
        self.X = (rng.random((N, self.d)) < self.params["probabilities"][rng.integers(self.k, size=N)]).astype(float)

    def numpy(self):
        w, p = self.params.values()
        resp, value = posterior(self.X @ np.log(p / (1 - p)).T + np.log1p(-p).sum(axis=1) + np.log(w))
        count = resp.sum(axis=0)
        return value, count / N, resp.T @ self.X / count[:, None]


class Poisson(Bernoulli):
    build = safe_import("emcore.models", "PoissonMixture")

    def __init__(self, rng):
        self.params = {"weights": np.full(self.k, 1 / self.k), "rates": rng.uniform(1.0, 8.0, size=(self.k, self.d))}
        self.X = rng.poisson(self.params["rates"][rng.integers(self.k, size=N)]).astype(float)
        self.base = _log_factorials(self.X).sum()  # once: it is the same in every pass

    def numpy(self):
        w, rates = self.params.values()
        resp, value = posterior(self.X @ np.log(rates).T - rates.sum(axis=1) + np.log(w))
        count = resp.sum(axis=0)
        return value - self.base, count / N, resp.T @ self.X / count[:, None]


class Multinomial(Bernoulli):
    build = safe_import("emcore.models", "MultinomialMixture")

    def __init__(self, rng):
        self.params = {
            "weights": np.full(self.k, 1 / self.k),
            "probabilities": rng.dirichlet(np.full(self.d, 5.0), size=self.k),
        }
        self.X = rng.multinomial(20, self.params["probabilities"][rng.integers(self.k, size=N)]).astype(float)
        self.base = _log_factorials(self.X).sum() - N * _log_factorials(np.array([20.0]))[0]

    def numpy(self):
        w, p = self.params.values()
        resp, value = posterior(self.X @ np.log(p).T + np.log(w))
        sums = resp.T @ self.X
        return value - self.base, resp.sum(axis=0) / N, sums / sums.sum(axis=1, keepdims=True)


class Categorical(Bernoulli):
    """The rows as indicators of the symbols, once: then two matrix products a pass, faster than lookups in NumPy."""

    m = 4
    build = safe_import("emcore.models", "CategoricalMixture")

    def __init__(self, rng):
        p = rng.dirichlet(np.full(self.m, 3.0), size=(self.k, self.d))
        self.params = {"weights": np.full(self.k, 1 / self.k), "probabilities": p}
        u, chosen = rng.random((N, self.d, 1)), p[rng.integers(self.k, size=N)]
        self.X = (u > np.cumsum(chosen, axis=2)[:, :, :-1]).sum(axis=2)
        self.indicators = (self.X[:, :, None] == np.arange(self.m)).reshape(N, -1).astype(float)

    def numpy(self):
        w, p = self.params.values()
        resp, value = posterior(self.indicators @ np.log(p).reshape(self.k, -1).T + np.log(w))
        counts = (resp.T @ self.indicators).reshape(p.shape)
        return value, resp.sum(axis=0) / N, counts / counts.sum(axis=2, keepdims=True)


class Factors(Bernoulli):
    """Factors of each row and residuals, so that no covariance (d, d) is made of the rows: faster than that in NumPy, too."""

    q = 4
    options = (q,)
    build = safe_import("emcore.models", "FactorMixture")

    def __init__(self, rng):
        k, d, q = self.k, self.d, self.q
        loadings = np.where(np.arange(q) <= np.arange(d)[:, None], rng.normal(size=(k, d, q)), 0.0)
        self.params = {
            "weights": np.full(k, 1 / k),
            "means": 1.5 * rng.normal(size=(k, d)),
            "loadings": loadings,
            "noise": rng.uniform(0.3, 1.0, size=(k, d)),
        }
        c = rng.integers(k, size=N)
        self.X = self.params["means"][c] + np.sqrt(self.params["noise"])[c] * rng.normal(size=(N, d))
        self.X += np.einsum("njq,nq->nj", loadings[c], rng.normal(size=(N, q)))

    def numpy(self):
        w, means, loadings, noise = self.params.values()
        k, q = self.k, self.q
        logs, factors, posteriors = np.empty((N, k)), [], []
        for c in range(k):
            weighed = loadings[c].T / noise[c]
            M = np.eye(q) + weighed @ loadings[c]
            V = np.linalg.inv(M)
            R = self.X - means[c]
            F = R @ (V @ weighed).T
            R -= F @ loadings[c].T
            logs[:, c] = np.log(w[c]) - 0.5 * (
                np.einsum("nj,nj,j->n", R, R, 1 / noise[c]) + np.einsum("na,na->n", F, F)
                + self.d * np.log(2 * np.pi) + np.log(noise[c]).sum() + np.linalg.slogdet(M)[1]
            )  # fmt: skip
            factors.append(F)
            posteriors.append(V)
        resp, value = posterior(logs)
        count = resp.sum(axis=0)
        new = np.empty_like(means), np.zeros_like(loadings), np.empty_like(noise)
        for c in range(k):
            r, z = resp[:, c], np.column_stack([np.ones(N), factors[c]])
            weighted = z * r[:, None]
            gram = weighted.T @ z
            gram[1:, 1:] += count[c] * posteriors[c]
            cross, square = weighted.T @ self.X, r @ np.square(self.X)
            for j in range(self.d):
                free = slice(0, 1 + min(j + 1, q))
                b = np.linalg.solve(gram[free, free], cross[free, j])
                new[0][c, j], new[1][c, j, : len(b) - 1] = b[0], b[1:]
                new[2][c, j] = (square[j] - b @ cross[free, j]) / count[c]
        return value, count / N, *new


def _log_factorials(X):
    from scipy.special import gammaln

    return gammaln(X + 1.0)


MODELS = {
    "BernoulliMixture": Bernoulli,
    "CategoricalMixture": Categorical,
    "FactorMixture": Factors,
    "MultinomialMixture": Multinomial,
    "PoissonMixture": Poisson,
}


class BesideNumPy:
    """Less than 1 is faster than NumPy; 0.2 is the aim. One thread of each."""

    param_names = ("model",)
    params = (tuple(MODELS),)

    def setup(self, model):
        require(ModelObjective, as_source, MODELS[model].build)
        self.rival = MODELS[model](np.random.default_rng(0))
        built = type(self.rival).build(self.rival.k, *self.rival.options)
        self.objective = ModelObjective(built, as_source(self.rival.X), n_threads=1)
        self.at = self.objective.point_of(self.objective.model.from_user(self.rival.params))
        e = self.objective.evaluate(self.at)
        value, *params = self.rival.numpy()
        assert abs(e.value * N - value) <= 1e-9 * abs(value)
        ours = self.objective.model.to_user(e.em_point.params)
        assert all(np.allclose(x, y, rtol=1e-9, atol=1e-12) for x, y in zip(ours, params, strict=True))

    def em(self):
        return self.objective.evaluate(self.at).em_point

    def time_em(self, model):
        self.em()

    def track_ratio(self, model):
        ours, theirs = times_in_turn(self.em, self.rival.numpy, rounds=11).T
        return float(np.median(ours / theirs))

    track_ratio.unit = "emcore / NumPy"
