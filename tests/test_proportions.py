"""What is compiled for shares of 1, against plain NumPy."""

import re

import numpy as np
import pytest

from emcore.kernels import proportions as compiled

SIZES = ((1, 1), (1, 2), (3, 1), (4, 5), (2, 300))
sizes = pytest.mark.parametrize(("n", "m"), SIZES)


def helmert(m):
    """Return the orthonormal contrasts V (m, m - 1)."""
    V = np.zeros((m, m - 1))
    for j in range(1, m):
        V[:j, j - 1], V[j, j - 1] = 1.0, -j
    return V / np.sqrt(np.sum(V * V, axis=0))


def problem(n, m):
    rng = np.random.default_rng((n, m))
    totals = rng.uniform(0.2, 1.0, size=n)
    return rng, totals, totals[:, None] * rng.dirichlet(np.full(m, 0.7), size=n)


@sizes
def test_coordinates(n, m):
    rng, totals, x = problem(n, m)
    V, t, u = helmert(m), rng.normal(size=(n, m - 1)), rng.normal(size=(n, m))
    np.testing.assert_allclose(compiled.logits(t.ravel(), n, m), t @ V.T, atol=1e-13)
    np.testing.assert_allclose(compiled.contrasts(u, n, m), (u @ V).ravel(), atol=1e-13)
    e = np.exp(t @ V.T)
    expected = totals[:, None] * e / e.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(compiled.chart_forward(t.ravel(), totals, m, 300.0), expected, rtol=1e-13)
    np.testing.assert_allclose(compiled.chart_inverse(x, n, m, 1e-300, 300.0), (np.log(x) @ V).ravel(), rtol=1e-12, atol=1e-12)


def test_coordinates_are_clamped_and_keep_what_is_no_number():
    far = compiled.chart_forward(np.array([1e5, -1e5]), np.ones(1), 3, 300.0)
    np.testing.assert_array_equal(far, compiled.chart_forward(np.array([300.0, -300.0]), np.ones(1), 3, 300.0))
    assert np.isfinite(far).all()
    assert far.sum() == pytest.approx(1)
    at_corner = compiled.chart_inverse(np.array([1.0, 0.0, 0.0]), 1, 3, 1e-300, 300.0)
    np.testing.assert_allclose(at_corner, np.array([0.0, -300.0, -300.0]) @ helmert(3), rtol=1e-14)
    for bad in (np.nan, 0.5):
        nothing = compiled.chart_forward(np.array([bad, np.nan]), np.ones(1), 3, 300.0)
        assert np.isnan(nothing).all()
    assert np.isnan(compiled.chart_inverse(np.array([np.nan, 0.5]), 1, 2, 1e-300, 300.0)).all()


@sizes
def test_derivatives(n, m):
    rng, totals, x = problem(n, m)
    u = rng.normal(size=(3, n, m))
    expected = x * (u - (x * u).sum(axis=-1, keepdims=True) / totals[:, None])
    np.testing.assert_allclose(compiled.moved(x, totals, u), expected, atol=1e-14)
    np.testing.assert_array_equal(compiled.moved(x, totals, u[1]), compiled.moved(x, totals, u)[1])
    u[0, 0, 0] = 0.0
    np.testing.assert_array_equal(compiled.over(u, x), u / x)
    np.testing.assert_array_equal(compiled.over(np.zeros(3), np.zeros(3)), np.zeros(3))
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(compiled.over(np.array([1.0, -2.0]), np.zeros(2)), [np.inf, -np.inf])


@sizes
def test_counts(n, m):
    rng, _, x = problem(n, m)
    counts = rng.gamma(1.0, size=(n, m))
    counts[0, 0] = 0.0
    assert compiled.expected_log(counts, x) == pytest.approx(float(np.sum(counts * np.log(x))), rel=1e-13, abs=1e-13)
    expected, least = x.copy(), float(counts[0].sum()) * (1 + 1e-9)  # the first has too little
    counts[1:] += least / m + 0.1
    expected[1:] = counts[1:] / counts[1:].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(compiled.best(x, counts, least), expected, rtol=1e-14)
    counts[-1, -1] = np.nan
    assert np.isnan(compiled.best(x, counts, least)[-1]).all()


def test_no_size_counts_as_more_than_its_share():
    shares = np.array([0.5, 0.5, 1e-12, 0.0])
    within = compiled.largest_within
    assert within(np.array([3.0, 7.0, 1e5, np.inf]), shares, 1e-6) == 7.0
    assert within(np.array([3.0, 7.0, 1e-7, 1.0]), shares, 1e-1) == 5.0
    assert within(np.array([4.0]), shares, 1e-6) == 4.0
    assert np.isnan(within(np.array([np.nan, 7.0]), np.array([0.5, 0.5]), 1e-6))
    assert np.isnan(within(np.array([7.0, np.nan]), np.array([0.5, 0.5]), 1e-6))


def test_shares_of_0():
    log = compiled.expected_log
    assert log(np.array([0.0, 2.0]), np.array([0.0, 1.0])) == 0.0
    assert log(np.array([1e-300, 2.0]), np.array([0.0, 1.0])) == -np.inf
    assert log(np.array([-1e-18, 2.0]), np.array([0.0, 1.0])) == 0.0  # the rounding of differences of counts
    assert log(np.array([-1.0, 2.0]), np.array([0.5, 0.5])) == pytest.approx(np.log(0.5))
    assert log(np.float64(2.0), np.float64(0.5)) == pytest.approx(2 * np.log(0.5))
    for share in (0.5, 0.0):
        assert np.isnan(log(np.array([np.nan, 2.0]), np.array([share, 1.0 - share])))


def test_arrays_that_do_not_fit_are_refused():
    for words, call in (
        ("expected 4 numbers, got 3", lambda: compiled.logits(np.zeros(3), 2, 3)),
        ("expected 6 numbers, got 5", lambda: compiled.contrasts(np.zeros(5), 2, 3)),
        ("expected 2 numbers, got 3", lambda: compiled.chart_forward(np.zeros(3), np.ones(1), 3, 300.0)),
        ("expected 3 numbers, got 2", lambda: compiled.chart_inverse(np.ones(2), 1, 3, 1e-300, 300.0)),
        ("3 shares of 2 vectors do not fit 3 numbers", lambda: compiled.moved(np.ones(3), np.ones(2), np.ones(3))),
        ("3 shares of 1 vectors do not fit 4 numbers", lambda: compiled.moved(np.ones(3), np.ones(1), np.ones(4))),
        ("expected 3 numbers, got 2", lambda: compiled.best(np.ones(3), np.ones(2), 0.0)),
        ("expected 3 numbers, got 2", lambda: compiled.expected_log(np.ones(2), np.ones(3))),
        ("expected 3 numbers, got 2", lambda: compiled.largest_within(np.ones(2), np.ones(3), 1.0)),
        ("3 shares do not fit 4 numbers", lambda: compiled.over(np.ones(4), np.ones(3))),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            call()
