"""EM in vectorised NumPy, written as one would without a library: what our passes are held against.

Each step takes the data and parameters in the user's units and returns the next parameters and the log-likelihood.
"""

import numpy as np
from scipy.special import gammaln, logsumexp

D, K = 10, 4
WIDE, SYMBOLS, TRIALS, FACTORS = 20, 4, 20, 4  # columns, symbols of one, counts of a row, factors
WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])  # where they are known
BACKGROUND, UPPER = 1.0, 1.0


def guess(objective):
    """Return a block of the data and responsibilities from which to start."""
    block, k = objective.source.block(0), objective.model.k
    resp = np.random.default_rng(0).dirichlet(np.full(k, 0.3), size=len(block.rows[0]))
    return block, resp


def arguments(step, data, params):
    """Return what a step is called with: data, parameters, and what of the data is the same in every pass."""
    arrays = data if isinstance(data, tuple) else (data,)
    return (*arrays, *params, *(ONCE[step](*arrays) if step in ONCE else ()))


def check(ours, loglik, theirs):
    """Refuse to time two things that differ."""
    for a, b in zip(ours, theirs[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(loglik, theirs[1], rtol=1e-8)


def known_variance(X, weights, means, variance=1.0):
    logp = -0.5 * (np.sum(X**2, axis=1)[:, None] - 2.0 * X @ means.T + np.sum(means**2, axis=1)) / variance
    logp += np.log(weights) - 0.5 * X.shape[1] * np.log(2.0 * np.pi * variance)
    rows = logsumexp(logp, axis=1)
    resp = np.exp(logp - rows[:, None])
    count = resp.sum(axis=0)
    return (count / len(X), resp.T @ X / count[:, None]), rows.sum()


def student(X, weights, means, covariances, dof=4.0):
    n, d = X.shape
    distances = np.empty((n, len(means)))
    log_norms = gammaln(0.5 * (dof + d)) - gammaln(0.5 * dof) - 0.5 * d * np.log(np.pi * dof) + np.log(weights)
    for c, (m, S) in enumerate(zip(means, covariances, strict=True)):
        L = np.linalg.cholesky(S)
        distances[:, c] = np.sum(np.square((X - m) @ np.linalg.inv(L).T), axis=1)
        log_norms[c] -= np.log(np.diag(L)).sum()
    logp = log_norms - 0.5 * (dof + d) * np.log1p(distances / dof)
    rows = logsumexp(logp, axis=1)
    resp = np.exp(logp - rows[:, None])
    heavy, count = resp * ((dof + d) / (dof + distances)), resp.sum(axis=0)
    new = heavy.T @ X / heavy.sum(axis=0)[:, None]
    scales = np.empty_like(covariances)
    for c, m in enumerate(new):
        r = X - m
        scales[c] = (r * heavy[:, c : c + 1]).T @ r / count[c]
    return (count / n, new, scales), rows.sum()


def symmetric_gaussian(X, mean, variance=1.0):
    t = X @ mean / variance
    square = np.einsum("ni,ni->n", X, X) + mean @ mean
    rows = np.logaddexp(t, -t) - np.log(2.0) - 0.5 * square / variance - 0.5 * X.shape[1] * np.log(2.0 * np.pi * variance)
    return (np.tanh(t) @ X / len(X),), rows.sum()


def discrete(X, log_probabilities, base, log_weights):
    """Return what a mixture of products has in common: responsibilities and log-likelihood from one matrix product."""
    logp = X @ log_probabilities.T + base + log_weights
    rows = logsumexp(logp, axis=1)
    return np.exp(logp - rows[:, None]), rows.sum()


def bernoulli(X, weights, p):
    resp, loglik = discrete(X, np.log(p / (1 - p)), np.log1p(-p).sum(axis=1), np.log(weights))
    count = resp.sum(axis=0)
    return (count / len(X), resp.T @ X / count[:, None]), loglik


def poisson(X, weights, rates, log_factorials):
    resp, loglik = discrete(X, np.log(rates), -rates.sum(axis=1), np.log(weights))
    count = resp.sum(axis=0)
    return (count / len(X), resp.T @ X / count[:, None]), loglik - log_factorials


def multinomial(X, weights, p, log_coefficients):
    resp, loglik = discrete(X, np.log(p), 0.0, np.log(weights))
    sums = resp.T @ X
    return (resp.mean(axis=0), sums / sums.sum(axis=1, keepdims=True)), loglik + log_coefficients


def categorical(X, weights, p, indicators):
    """The rows as indicators of the symbols: two matrix products a pass, faster than lookups."""
    resp, loglik = discrete(indicators, np.log(p).reshape(len(p), -1), 0.0, np.log(weights))
    counts = (resp.T @ indicators).reshape(p.shape)
    return (resp.mean(axis=0), counts / counts.sum(axis=2, keepdims=True)), loglik


def factors(X, weights, means, loadings, noise):
    """Factors and residuals of each row, so that no covariance (d, d) is made: faster than that, too."""
    n, d = X.shape
    k, q = len(means), loadings.shape[2]
    logp, scores, spreads = np.empty((n, k)), [], []
    for c in range(k):
        weighed = loadings[c].T / noise[c]
        M = np.eye(q) + weighed @ loadings[c]
        V = np.linalg.inv(M)
        R = X - means[c]
        F = R @ (V @ weighed).T
        R -= F @ loadings[c].T
        logp[:, c] = np.log(weights[c]) - 0.5 * (
            np.einsum("nj,nj,j->n", R, R, 1 / noise[c]) + np.einsum("na,na->n", F, F)
            + d * np.log(2 * np.pi) + np.log(noise[c]).sum() + np.linalg.slogdet(M)[1]
        )  # fmt: skip
        scores.append(F)
        spreads.append(V)
    rows = logsumexp(logp, axis=1)
    resp = np.exp(logp - rows[:, None])
    count = resp.sum(axis=0)
    new = np.empty_like(means), np.zeros_like(loadings), np.empty_like(noise)
    for c in range(k):
        r, z = resp[:, c], np.column_stack([np.ones(n), scores[c]])
        weighted = z * r[:, None]
        gram = weighted.T @ z
        gram[1:, 1:] += count[c] * spreads[c]
        cross, square = weighted.T @ X, r @ np.square(X)
        for j in range(d):
            free = slice(0, 1 + min(j + 1, q))
            b = np.linalg.solve(gram[free, free], cross[free, j])
            new[0][c, j], new[1][c, j, : len(b) - 1] = b[0], b[1:]
            new[2][c, j] = (square[j] - b @ cross[free, j]) / count[c]
    return (count / n, *new), rows.sum()


def posterior(Z, y, log_weights, coefficients, variances):
    logp = -0.5 * (y[:, None] - Z @ coefficients.T) ** 2 / variances - 0.5 * np.log(2.0 * np.pi * variances) + log_weights
    rows = logsumexp(logp, axis=1)
    return np.exp(logp - rows[:, None]), rows.sum()


def least_squares(Z, y, resp):
    k = resp.shape[1]
    new, spread = np.empty((k, Z.shape[1])), np.empty(k)
    for c in range(k):
        ZR = Z * resp[:, c : c + 1]
        new[c] = np.linalg.solve(ZR.T @ Z, ZR.T @ y)
        spread[c] = resp[:, c] @ (y - Z @ new[c]) ** 2 / resp[:, c].sum()
    return new, spread


def regression(X, y, weights, coefficients, variances):
    Z = np.column_stack([np.ones(len(X)), X])
    resp, loglik = posterior(Z, y, np.log(weights), coefficients, variances)
    return (resp.mean(axis=0), *least_squares(Z, y, resp)), loglik


def gated(X, y, gate, coefficients, variances):
    Z = np.column_stack([np.ones(len(X)), X])
    logits = np.column_stack([Z @ gate.T, np.zeros(len(X))])
    log_prior = logits - logsumexp(logits, axis=1)[:, None]
    resp, loglik = posterior(Z, y, log_prior, coefficients, variances)
    g = (resp - np.exp(log_prior))[:, :-1].T @ Z
    step = 2.0 * np.linalg.solve(Z.T @ Z, (g + g.sum(axis=0)).T).T  # with the bound of the curvature
    return (gate + step, *least_squares(Z, y, resp)), loglik


def symmetric_regression(X, y, coefficients, variance=1.0):
    fitted = X @ coefficients
    t = y * fitted / variance
    rows = np.logaddexp(t, -t) - np.log(2.0) - 0.5 * (y**2 + fitted**2) / variance - 0.5 * np.log(2.0 * np.pi * variance)
    return (np.linalg.solve(X.T @ X, X.T @ (np.tanh(t) * y)),), rows.sum()


def missing(X, y, coefficients, variance):
    b, v, gone = coefficients, variance[0], np.isnan(X)
    seen = np.where(gone, 0.0, X)
    q = gone @ b**2 + v
    r = y - seen @ b
    means = np.where(gone, b * (r / q)[:, None], seen)
    G = means.T @ means + np.diag(gone.sum(axis=0)) - np.outer(b, b) * ((gone / q[:, None]).T @ gone)
    c = means.T @ y
    new = np.linalg.solve(G, c)
    rows = -0.5 * (r**2 / q + np.log(q) + np.sum(seen**2, axis=1) + (1 + (~gone).sum(axis=1)) * np.log(2.0 * np.pi))
    return (new, np.array([(y @ y - 2.0 * c @ new + new @ G @ new) / len(y)])), rows.sum()


def missing_gaussian(X, weights, means, covariances):
    mean, S, gone = means[0], covariances[0], np.isnan(X)
    patterns, which = np.unique(gone, axis=0, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(which.ravel()))
    total, second, loglik = np.zeros(len(mean)), np.zeros_like(S), 0.0
    for pattern, rows in zip(patterns, np.split(order, ends[:-1]), strict=True):
        o, m = np.flatnonzero(~pattern), np.flatnonzero(pattern)
        z, S_oo = X[np.ix_(rows, o)] - mean[o], S[np.ix_(o, o)]
        gain = np.linalg.solve(S_oo, np.column_stack([S[np.ix_(o, m)], z.T]))
        loglik -= 0.5 * (
            np.sum(z.T * gain[:, len(m) :]) + len(rows) * (np.linalg.slogdet(S_oo)[1] + len(o) * np.log(2 * np.pi))
        )
        filled = np.zeros((len(rows), len(mean)))
        filled[:, o], filled[:, m] = z, z @ gain[:, : len(m)]
        total += filled.sum(axis=0)
        second += filled.T @ filled
        second[np.ix_(m, m)] += len(rows) * (S[np.ix_(m, m)] - S[np.ix_(m, o)] @ gain[:, : len(m)])
    step = total / len(X)
    return (weights, means + step, (second / len(X) - np.outer(step, step))[None]), loglik


def missing_normal(X, y, coefficients, variance, mean, covariance, rows):
    b, cross, d = coefficients[1:], covariance @ coefficients[1:], len(mean)
    joint = np.block([[covariance, cross[:, None]], [cross, variance + b @ cross]])
    (_, means, covariances), loglik = missing_gaussian(
        rows, None, np.append(mean, coefficients[0] + b @ mean)[None], joint[None]
    )
    new, S = means[0], covariances[0]
    slopes = np.linalg.solve(S[:d, :d], S[:d, d])
    coefficients = np.append(new[d] - slopes @ new[:d], slopes)
    return (coefficients, S[d, d] - slopes @ S[:d, d:], new[:d], S[:d, :d]), loglik


def known_weights(X, means):
    (_, new), loglik = known_variance(X, WEIGHTS, means)
    return (new,), loglik


def poisson_inverse(K, y, intensities, seen, log_factorials):
    mean = K @ intensities + BACKGROUND
    return (intensities * (y / mean @ K) / seen,), y @ np.log(mean) - mean.sum() - log_factorials


def linkage(X, theta):
    counts = np.bincount(X[:, 0], minlength=4)
    p = np.concatenate([0.5 + theta / 4, (1 - theta) / 4, (1 - theta) / 4, theta / 4])
    linked, unlinked = counts[3] + counts[0] * theta / 4 / p[0], counts[1] + counts[2]
    return (linked / (linked + unlinked),), counts @ np.log(p)


def uniform(X, weights, endpoint):
    x = X[:, 0]
    inside = x <= endpoint
    first = inside * (weights[0] / endpoint)
    total = first + weights[1] / UPPER
    share = np.mean(first / total)
    return (np.array([share, 1 - share]), np.max(x, initial=0.0, where=inside)), np.log(total).sum()


def user(X, weights, mean, variance):
    logp = np.log(weights) + np.stack([normal(X, m, v) for m, v in zip(mean, variance, strict=True)], axis=1)
    rows = logsumexp(logp, axis=1)
    resp = np.exp(logp - rows[:, None])
    count, sums = resp.sum(axis=0), resp.T @ normal_statistics(X)
    new = normal_m_step(count, sums.T)
    return (count / len(X), new["mean"], new["variance"]), rows.sum()


# A family of the user's: what he writes for us and what he would write without us


def normal(X, mean, variance):
    return -0.5 * (np.log(2.0 * np.pi * variance) + (X[:, 0] - mean) ** 2 / variance)


def normal_statistics(X):
    return np.stack([X[:, 0], X[:, 0] ** 2], axis=1)


def normal_expected(n, s, mean, variance):
    return -0.5 * (n * np.log(2.0 * np.pi * variance) + (s[1] - 2.0 * mean * s[0] + n * mean**2) / variance)


def normal_m_step(n, s, **at):
    return {"mean": s[0] / n, "variance": s[1] / n - (s[0] / n) ** 2}


def user_mixture(models):
    family = {"statistics": normal_statistics, "expected": normal_expected, "m_step": normal_m_step}
    return models.UserMixture(K, normal, {"mean": "real", "variance": "positive"}, **family)


def once_poisson_inverse(K, y):
    return K.sum(axis=0), gammaln(y + 1.0).sum()


def once_missing_normal(X, y):
    return (np.column_stack([X, y]),)


def once_poisson(X):
    return (gammaln(X + 1.0).sum(),)


def once_multinomial(X):
    return (gammaln(X.sum(axis=1) + 1.0).sum() - gammaln(X + 1.0).sum(),)


def once_categorical(X):
    return ((X[:, :, None] == np.arange(SYMBOLS)).reshape(len(X), -1).astype(float),)


ONCE = {
    missing_normal: once_missing_normal,
    poisson_inverse: once_poisson_inverse,
    poisson: once_poisson,
    multinomial: once_multinomial,
    categorical: once_categorical,
}


def mixed(table, rng, n):
    """Return a row of the table for each of n draws."""
    return table[rng.integers(len(table), size=n)]


def bits(rng, n):
    return (rng.random((n, WIDE)) < mixed(rng.uniform(0.2, 0.8, size=(K, WIDE)), rng, n)).astype(float)


def counts(rng, n):
    return rng.poisson(mixed(rng.uniform(1.0, 8.0, size=(K, WIDE)), rng, n)).astype(float)


def shares(rng, n):
    return rng.multinomial(TRIALS, mixed(rng.dirichlet(np.full(WIDE, 5.0), size=K), rng, n)).astype(float)


def symbols(rng, n):
    p = mixed(rng.dirichlet(np.full(SYMBOLS, 3.0), size=(K, WIDE)), rng, n)
    return (rng.random((n, WIDE, 1)) > np.cumsum(p, axis=2)[:, :, :-1]).sum(axis=2)


def common_factors(rng, n):
    c = rng.integers(K, size=n)
    means, loadings = 1.5 * rng.normal(size=(K, WIDE)), rng.normal(size=(K, WIDE, FACTORS))
    noise = np.sqrt(rng.uniform(0.3, 1.0, size=(K, WIDE)))
    X = means[c] + noise[c] * rng.normal(size=(n, WIDE))
    for j in range(K):
        X[c == j] += rng.normal(size=(np.sum(c == j), FACTORS)) @ loadings[j].T
    return X


def events(d):
    def draw(rng, n):
        K = rng.random((n, d))
        return K, rng.poisson(K @ rng.uniform(0.5, 2.0, size=d) + BACKGROUND).astype(float)

    return draw


def cells(rng, n):
    return rng.choice(4, size=(n, 1), p=[0.65, 0.1, 0.1, 0.15])


def lengths(rng, n):
    return np.where(rng.random(n) < 0.5, 0.6, UPPER)[:, None] * rng.random((n, 1))


def line(rng, n):
    return clouds(rng, n)[:, :1].copy()


def clouds(rng, n):
    return 1.5 * rng.normal(size=(K, D))[rng.integers(K, size=n)] + rng.normal(size=(n, D))


def two_clouds(rng, n):
    return np.where(rng.integers(2, size=(n, 1)) == 0, 0.4, -0.4) + rng.normal(size=(n, D))


def lines(rng, n):
    X = rng.normal(size=(n, D))
    slopes = rng.normal(size=(K, D))[rng.integers(K, size=n)]
    return X, np.einsum("ni,ni->n", X, slopes) + rng.normal(size=n)


def two_lines(rng, n):
    X = rng.normal(size=(n, D))
    return X, np.where(rng.integers(2, size=n) == 0, 1.0, -1.0) * X.sum(axis=1) / D**0.5 + rng.normal(size=n)


def holes(rng, n):
    X = rng.normal(size=(n, D))
    y = X.sum(axis=1) / D**0.5 + 0.5 * rng.normal(size=n)
    X[rng.uniform(size=X.shape) < 0.2] = np.nan
    return X, y


def holed_lines(rng, n):
    X = 3.0 + rng.normal(size=(n, D)) @ (np.eye(D) + 0.3)
    y = 1.0 + X.sum(axis=1) / D**0.5 + 0.5 * rng.normal(size=n)
    X[rng.uniform(size=X.shape) < 0.2] = np.nan
    return X, y


def holed_cloud(rng, n):
    X = rng.normal(size=(n, D)) @ (np.eye(D) + 0.3)
    X[rng.uniform(size=X.shape) < 0.2] = np.nan
    return X


# name -> model of `emcore.models`, data, step
MODELS = {
    "BernoulliMixture": (lambda m: m.BernoulliMixture(K), bits, bernoulli),
    "CategoricalMixture": (lambda m: m.CategoricalMixture(K), symbols, categorical),
    "FactorMixture": (lambda m: m.FactorMixture(K, FACTORS), common_factors, factors),
    "MultinomialMixture": (lambda m: m.MultinomialMixture(K), shares, multinomial),
    "PoissonMixture": (lambda m: m.PoissonMixture(K), counts, poisson),
    "KnownVarianceMixture": (lambda m: m.KnownVarianceMixture(K, 1.0), clouds, known_variance),
    "KnownVarianceMixture weights": (lambda m: m.KnownVarianceMixture(K, 1.0, weights=WEIGHTS), clouds, known_weights),
    "StudentMixture": (lambda m: m.StudentMixture(K), clouds, student),
    "SymmetricGaussianMixture": (lambda m: m.SymmetricGaussianMixture(1.0), two_clouds, symmetric_gaussian),
    "RegressionMixture": (lambda m: m.RegressionMixture(K), lines, regression),
    "RegressionMixture gating": (lambda m: m.RegressionMixture(K, gating=True), lines, gated),
    "SymmetricRegressionMixture": (lambda m: m.SymmetricRegressionMixture(1.0), two_lines, symmetric_regression),
    "GaussianMixture missing": (lambda m: m.GaussianMixture(1, missing=True), holed_cloud, missing_gaussian),
    "MissingRegression": (lambda m: m.MissingRegression(), holes, missing),
    "MissingRegression normal": (lambda m: m.MissingRegression(covariates="normal"), holed_lines, missing_normal),
    "PoissonInverse": (lambda m: m.PoissonInverse(BACKGROUND), events(D), poisson_inverse),
    "PoissonInverse d=48": (lambda m: m.PoissonInverse(BACKGROUND), events(48), poisson_inverse),
    "Linkage": (lambda m: m.Linkage(), cells, linkage),
    "UniformMixture": (lambda m: m.UniformMixture(UPPER), lengths, uniform),
    "UserMixture": (user_mixture, line, user),
}
