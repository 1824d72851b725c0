"""Gaussian mixtures in 50 digits: what the library should have got from exactly these float64 rows and parameters.

Everything is formed from the float64 numbers themselves, which mpmath takes exactly.
"""

import numpy as np
from mpmath import mp, mpf

DIGITS = 50


def exact(array):
    """Return an object array of the exact values of a float64 array."""
    array = np.asarray(array, dtype=float)
    return np.array([mpf(float(x)) for x in array.ravel()], dtype=object).reshape(array.shape)


def _cholesky(S):
    d = len(S)
    L = np.full((d, d), mpf(0), dtype=object)
    for i in range(d):
        for j in range(i + 1):
            rest = S[i, j] - sum(L[i, t] * L[j, t] for t in range(j))
            L[i, j] = mp.sqrt(rest) if i == j else rest / L[j, j]
    return L


def _inverse_lower(L):
    d = len(L)
    M = np.full((d, d), mpf(0), dtype=object)
    for j in range(d):
        M[j, j] = 1 / L[j, j]
        for i in range(j + 1, d):
            M[i, j] = -sum(L[i, t] * M[t, j] for t in range(j, i)) / L[i, i]
    return M


def _sum(terms):
    return mp.fsum(terms)


class Pass:
    """One pass over rows (n, d) with weights (n,) at parameters in frame units; all numbers mpf.

    Parameters
    ----------
    kind : str
    X, w : ndarray (n, d), (n,)
    shift, scale : ndarray (d,)
        The frame: rows enter as ``(x - shift) * scale``.
    weights, means, covariances : ndarray
        In frame units, shapes of the type.

    Attributes
    ----------
    loglik, loglik_abs : sum w log p, in user units, and sum w |log p|
    statistics, statistics_abs : [count | mass | sum | second], about the means, and the like of absolute terms
    gradient, gradient_abs : of the summed log-likelihood: [weights | means | covariances], all entries free
    """

    def __init__(self, kind, X, w, shift, scale, weights, means, covariances):
        with mp.workdps(DIGITS):
            self._run(kind, *map(exact, (X, w, shift, scale, weights, means, covariances)))

    def _run(self, kind, X, w, shift, scale, weights, means, covariances):
        k, d = means.shape
        n = len(X)
        Z = (X - shift) * scale
        logs = [mp.log(a) for a in weights]
        factors, norms = [], []
        for c in range(k):
            if kind in ("full", "tied"):
                S = covariances[c] if kind == "full" else covariances
            else:
                v = covariances[c] if kind == "diag" else [covariances[c]] * d
                S = np.array([[v[i] if i == j else mpf(0) for j in range(d)] for i in range(d)], dtype=object)
            M = _inverse_lower(_cholesky(S))
            factors.append(M)
            norms.append(_sum([mp.log(M[i, i]) for i in range(d)] + [mp.log(s) for s in scale]) - d * mp.log(2 * mp.pi) / 2)
        precisions = [M.T.dot(M) for M in factors]

        r = np.empty((n, k), dtype=object)
        rows = []
        for i in range(n):
            joint = []
            for c in range(k):
                white = factors[c].dot(Z[i] - means[c])
                joint.append(logs[c] + norms[c] - white.dot(white) / 2)
            top = max(joint)
            total = _sum([mp.exp(a - top) for a in joint])
            rows.append(top + mp.log(total))
            for c in range(k):
                r[i, c] = w[i] * mp.exp(joint[c] - top) / total
        self.loglik = _sum([a * b for a, b in zip(w, rows, strict=True)])
        self.loglik_abs = _sum([a * abs(b) for a, b in zip(w, rows, strict=True)])

        count = [_sum(r[:, c]) for c in range(k)]
        entries = [(i, j) for i in range(d) for j in range(i + 1)]
        total, total_abs, gram, gram_abs = [], [], [], []
        g_means, g_means_abs, G, G_abs = [], [], [], []
        for c in range(k):
            z = Z - means[c]
            u = z.dot(precisions[c])
            total += [_sum(r[:, c] * z[:, j]) for j in range(d)]
            total_abs += [_sum(r[:, c] * abs(z[:, j])) for j in range(d)]
            gram.append({e: _sum(r[:, c] * z[:, e[0]] * z[:, e[1]]) for e in entries})
            gram_abs.append({e: _sum(r[:, c] * abs(z[:, e[0]] * z[:, e[1]])) for e in entries})
            g_means += [_sum(r[:, c] * u[:, j]) for j in range(d)]
            g_means_abs += [_sum(r[:, c] * (abs(z).dot(abs(precisions[c][:, j])))) for j in range(d)]
            G.append({(i, j): (_sum(r[:, c] * u[:, i] * u[:, j]) - count[c] * precisions[c][i, j]) / 2 for i, j in entries})
            G_abs.append(
                {(i, j): (_sum(r[:, c] * abs(u[:, i] * u[:, j])) + count[c] * abs(precisions[c][i, j])) / 2 for i, j in entries}
            )
        second, second_abs = (self._pool(kind, t, entries, d) for t in (gram, gram_abs))
        self.statistics, self.statistics_abs = count + count + total + second, count + count + total_abs + second_abs
        g_weights = [n_c / a for n_c, a in zip(count, weights, strict=True)]
        full = [(i, j) for i in range(d) for j in range(d)]
        g, g_abs = (self._pool(kind, [self._both(t) for t in b], full, d) for b in (G, G_abs))
        self.gradient, self.gradient_abs = g_weights + g_means + g, g_weights + g_means_abs + g_abs

    @staticmethod
    def _both(table):
        return table | {(j, i): value for (i, j), value in table.items()}

    @staticmethod
    def _pool(kind, tables, entries, d):
        if kind == "full":
            return [t[e] for t in tables for e in entries]
        if kind == "tied":
            return [_sum([t[e] for t in tables]) for e in entries]
        if kind == "diag":
            return [t[j, j] for t in tables for j in range(d)]
        return [_sum([t[j, j] for j in range(d)]) for t in tables]


def digits(got, want, size):
    """Return to how many decimal digits of `size` the numbers agree, at worst."""
    with mp.workdps(DIGITS):
        errors = [abs(mpf(float(a)) - b) / s if s else abs(mpf(float(a)) - b) for a, b, s in zip(got, want, size, strict=True)]
        return float(-mp.log10(max([*errors, mpf(10) ** -DIGITS])))
