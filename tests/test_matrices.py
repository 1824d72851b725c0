"""What is compiled for the covariances of components, against plain NumPy."""

import re

import numpy as np
import pytest

from emcore.kernels import gaussian_matrices as compiled

SIZES = ((1, 1), (3, 1), (1, 4), (4, 3), (2, 17), (3, 64), (2, 65), (2, 200))


def problem(k, d, tied, seed=0):
    """Return statistics about an origin, other means, and covariances, each (k, ...) and the ones of matrices (m, d, d)."""
    rng = np.random.default_rng((seed, k, d))
    m = 1 if tied else k
    A = rng.normal(size=(m, d, d))
    covariances = A @ A.transpose(0, 2, 1) / d + 0.1 * np.eye(d)
    rows, resp = rng.normal(size=(50, d)) * 2 + 1, rng.dirichlet(np.ones(k), size=50)
    origin = rng.normal(size=(k, d))
    z = rows[:, None, :] - origin
    count, total = resp.sum(axis=0), np.einsum("nc,ncj->cj", resp, z)
    second = np.einsum("nc,nci,ncj->cij", resp, z, z)
    second = second.sum(axis=0, keepdims=True) if tied else second
    lower = np.tril_indices(d)
    stats = np.concatenate([count, count, total.ravel(), second[:, lower[0], lower[1]].ravel()])
    return stats, origin, rng.normal(size=(k, d)), covariances, (rows, resp)


def scatters(rows, resp, means, tied):
    z = rows[:, None, :] - means
    second = np.einsum("nc,nci,ncj->cij", resp, z, z)
    return second.sum(axis=0, keepdims=True) if tied else second


def unpacked(packed, d):
    L = np.zeros((len(packed), d, d))
    L[:, *np.tril_indices(d)] = packed
    return L


both = pytest.mark.parametrize("tied", [False, True], ids=["full", "tied"])
sizes = pytest.mark.parametrize(("k", "d"), SIZES)


@both
@sizes
def test_factors(k, d, tied):
    covariances = problem(k, d, tied)[3]
    inverse, log_norms, bad = compiled.factors(covariances, -0.25)
    assert bad == -1
    L = unpacked(inverse, d)
    np.testing.assert_allclose(L @ covariances @ L.transpose(0, 2, 1), np.broadcast_to(np.eye(d), L.shape), atol=1e-12)
    np.testing.assert_allclose(log_norms, -0.25 - 0.5 * np.linalg.slogdet(covariances)[1], rtol=1e-12, atol=1e-12)


def test_factors_name_the_matrix_that_has_none():
    S = np.stack([np.eye(3), np.diag([1.0, -1e-3, 1.0]), np.eye(3)])
    assert compiled.factors(S, 0.0)[2] == 1
    S[1] = np.diag([1.0, 0.0, 1.0])
    assert compiled.factors(S, 0.0)[2] == 1
    S[1] = np.ones((3, 3))
    S[1] += 1e-17 * np.eye(3)
    assert compiled.factors(S, 0.0)[2] == 1
    for bad in (np.nan, np.inf, -np.inf):
        S[2, 0, 0] = bad
        assert compiled.factors(S, 0.0)[2] == -2


@both
@sizes
def test_m_step(k, d, tied):
    stats, origin, _, covariances, (rows, resp) = problem(k, d, tied)
    means, new, above = compiled.m_step(stats, origin.ravel(), np.zeros((k, d)), covariances, 0.0, 1e-9)
    count = resp.sum(axis=0)
    expected = resp.T @ rows / count[:, None]
    np.testing.assert_allclose(means, expected, rtol=1e-12, atol=1e-12)
    weight = np.array([50.0]) if tied else count
    np.testing.assert_allclose(new, scatters(rows, resp, expected, tied) / weight[:, None, None], rtol=1e-11, atol=1e-11)
    lowest = np.linalg.eigvalsh(new)[:, 0].min()
    assert above == (lowest > 1e-9)
    for floor in (0.99 * lowest, 1.01 * lowest):
        if lowest > 1e-6:
            assert compiled.m_step(stats, origin.ravel(), means, covariances, 0.0, floor)[2] == (floor < lowest)


def test_m_step_keeps_what_an_empty_component_has():
    stats, origin, means, covariances, _ = problem(4, 3, False)
    stats[2] = 0.0
    new_means, new, _ = compiled.m_step(stats, origin.ravel(), means, covariances, 1e-12, 1e-9)
    np.testing.assert_array_equal(new_means[2], means[2])
    np.testing.assert_array_equal(new[2], covariances[2])
    stats[-1] = np.nan
    assert compiled.m_step(stats, origin.ravel(), means, covariances, 1e-12, 1e-9)[2] == -1


@both
@sizes
def test_expected_and_score(k, d, tied):
    stats, origin, means, covariances, (rows, resp) = problem(k, d, tied)
    inverse, norms, _ = compiled.factors(covariances, 0.0)
    log_norms = np.broadcast_to(norms, k).copy()
    P, S, count = np.linalg.inv(covariances), scatters(rows, resp, means, tied), resp.sum(axis=0)
    value = count @ log_norms - 0.5 * np.einsum("cij,cji->", P, S)
    assert compiled.expected(stats, origin.ravel(), means, inverse, log_norms) == pytest.approx(value, rel=1e-11)
    g_means, g = compiled.score(stats, origin.ravel(), means, inverse)
    sums = np.einsum("nc,ncj->cj", resp, rows[:, None, :] - means)
    scale = np.abs(P).max() * np.abs(sums).max()
    np.testing.assert_allclose(
        g_means, (np.broadcast_to(P, (k, d, d)) @ sums[:, :, None])[:, :, 0], rtol=1e-9, atol=1e-11 * scale
    )
    weight = np.array([50.0]) if tied else count
    expected = 0.5 * (P @ S @ P - weight[:, None, None] * P)
    np.testing.assert_allclose(g, expected, rtol=1e-8, atol=1e-11 * np.abs(P).max() ** 2 * np.abs(S).max())
    np.testing.assert_array_equal(g, g.transpose(0, 2, 1))


def test_arrays_that_do_not_fit_are_refused():
    stats, origin, means, covariances, _ = problem(4, 3, False)
    inverse, log_norms, _ = compiled.factors(covariances, 0.0)
    at, short = origin.ravel(), inverse[:, :1].copy()
    for words, call in (
        ("covariances must be square, got (2, 3, 4)", lambda: compiled.factors(np.ones((2, 3, 4)), 0.0)),
        ("do not fit means (4, 3)", lambda: compiled.m_step(stats[:-1], at, means, covariances, 0.0, 0.0)),
        ("do not fit means (4, 3)", lambda: compiled.m_step(stats, at[:-1], means, covariances, 0.0, 0.0)),
        ("covariances must have shape (4, 3, 3)", lambda: compiled.m_step(stats, at, means, covariances[:2], 0.0, 0.0)),
        ("inverse must have shape (4, 6), got (1, 6)", lambda: compiled.expected(stats, at, means, inverse[:1], log_norms)),
        ("log_norms must have shape (4,), got (1,)", lambda: compiled.expected(stats, at, means, inverse, log_norms[:1])),
        ("inverse must have shape (4, 6), got (4, 1)", lambda: compiled.score(stats, at, means, short)),
        ("7 coordinates do not fit matrices", lambda: compiled.chart_pull(np.zeros(7), np.zeros((1, 3, 3)), 300.0)),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            call()


@both
@sizes
def test_slopes_and_directions(k, d, tied):
    _, _, means, covariances, _ = problem(k, d, tied)
    inverse = compiled.factors(covariances, 0.0)[0]
    slopes = compiled.slopes(means, inverse[:1])
    np.testing.assert_allclose(slopes, np.linalg.solve(covariances[0], means.T).T, rtol=1e-9, atol=1e-9 * np.abs(slopes).max())
    directions = compiled.directions(means, inverse)
    for c in range(k):
        P = np.linalg.inv(covariances[0 if tied else c])
        for g in range(k):
            delta, v = means[g] - means[c], directions[g, c]
            if g == c:
                assert not v.any()
                continue
            squared = delta @ P @ delta
            assert (v @ delta) ** 2 == pytest.approx(squared, rel=1e-8)  # that far, and
            other = np.random.default_rng(0).normal(size=d)
            assert (v @ other) ** 2 <= other @ P @ other * (1 + 1e-9)  # a lower bound elsewhere


def test_guesses_that_do_not_fit_are_refused():
    _, _, means, covariances, _ = problem(4, 3, False)
    inverse = compiled.factors(covariances, 0.0)[0]
    for call in (lambda: compiled.slopes(means, inverse), lambda: compiled.directions(means, inverse[:2])):
        with pytest.raises(ValueError, match="inverse must have shape"):
            call()
