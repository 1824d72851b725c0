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
    many = compiled.score(np.stack([0 * stats, stats]), origin.ravel(), means, inverse)
    for one, two in zip((g_means, g), many, strict=True):
        np.testing.assert_array_equal(two[1], one)
        assert not two[0].any()


@both
@sizes
def test_metric_and_hvp(k, d, tied):
    stats, origin, means, covariances, (rows, resp) = problem(k, d, tied)
    rng = np.random.default_rng((1, k, d))
    m, count = len(covariances), resp.sum(axis=0)
    V = rng.normal(size=(2, m, d, d))
    v_means, v = rng.normal(size=(2, k, d)), V + V.swapaxes(-1, -2)
    divisors = (np.array([50.0]) if tied else count) + 0.5
    full = np.broadcast_to(covariances, (k, d, d))
    found = compiled.metric(covariances, count, divisors, v_means, v, 1e-300)
    np.testing.assert_allclose(found[0], np.einsum("cij,ncj->nci", full, v_means) / count[:, None], rtol=1e-10, atol=1e-12)
    expected = 2 * covariances @ v @ covariances / divisors[:, None, None]
    np.testing.assert_allclose(found[1], expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())
    few = compiled.metric(covariances, 0 * count, 0 * divisors, v_means[0], v[0], 2.0)
    np.testing.assert_allclose(few[1], covariances @ v[0] @ covariances, rtol=1e-9, atol=1e-11 * np.abs(expected).max() * 50)

    inverse = compiled.factors(covariances, 0.0)[0]
    P, S = np.linalg.inv(covariances), scatters(rows, resp, means, tied)
    sums = np.einsum("nc,ncj->cj", resp, rows[:, None, :] - means)
    g_means, g = compiled.hvp(stats, origin.ravel(), means, inverse, divisors, v_means, v)
    PVP = P @ v @ P
    expected = -np.einsum("ncij,cj->nci", np.broadcast_to(PVP, (2, k, d, d)), sums)
    expected -= np.einsum("cij,ncj->nci", np.broadcast_to(P, (k, d, d)), count[:, None] * v_means)
    np.testing.assert_allclose(g_means, expected, rtol=1e-7, atol=1e-10 * np.abs(expected).max())
    turned = sums[:, :, None] * v_means[..., None, :]
    turned = turned + turned.swapaxes(-1, -2)
    turned = turned.sum(axis=1, keepdims=True) if tied else turned
    PSPVP = P @ S @ PVP
    expected = 0.5 * (divisors[:, None, None] * PVP - P @ turned @ P - PSPVP - PSPVP.swapaxes(-1, -2))
    np.testing.assert_allclose(g, expected, rtol=1e-7, atol=1e-10 * np.abs(expected).max())
    one = compiled.hvp(stats, origin.ravel(), means, inverse, divisors, v_means[1], v[1])
    np.testing.assert_array_equal(one[0], g_means[1])
    np.testing.assert_array_equal(one[1], g[1])


@both
@sizes
def test_directions_in_whitened_rows_and_back(k, d, tied):
    covariances = problem(k, d, tied)[3]
    rng = np.random.default_rng((3, k, d))
    m, (rows, cols) = len(covariances), np.tril_indices(d)
    V = rng.normal(size=(2, m, d, d))
    v_means, v = rng.normal(size=(2, k, d)), V + V.swapaxes(-1, -2)
    inverse = compiled.factors(covariances, 0.0)[0]
    L = unpacked(inverse, d)
    offsets, slopes, curves = compiled.tangents(inverse, v_means, v)
    white = L @ v @ L.transpose(0, 2, 1)
    traces = np.broadcast_to(np.trace(white, axis1=2, axis2=3), (2, k))
    np.testing.assert_allclose(offsets, -0.5 * traces, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(slopes, (L @ v_means[..., None])[..., 0], rtol=1e-10, atol=1e-11)
    expected = np.where(rows == cols, 0.5, 1.0) * white[..., rows, cols]
    np.testing.assert_allclose(curves, expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())

    z, resp = rng.normal(size=(30, k, d)), rng.normal(size=(2, 30, k))  # rows less the means
    y = (L @ z[..., None])[..., 0]
    features = np.concatenate([np.ones((30, k, 1)), y, (y[..., :, None] * y[..., None, :])[..., rows, cols]], axis=2)
    found = compiled.from_whitened(inverse, np.einsum("qnc,ncf->qcf", resp, features), tied)
    count, total = resp.sum(axis=1), np.einsum("qnc,ncj->qcj", resp, z)
    second = np.einsum("qnc,ncj,nci->qcji", resp, z, z)[..., rows, cols]
    second = second.sum(axis=1) if tied else second
    expected = np.concatenate([part.reshape(2, -1) for part in (count, count, total, second)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


@sizes
def test_chart(k, d):
    rng = np.random.default_rng((2, k, d))
    floor, rows, cols = 0.1, *np.tril_indices(d)
    t = np.where(rows == cols, rng.uniform(-0.5, 0.5, size=(k, len(rows))), rng.normal(size=(k, len(rows))) / d)
    L, v = unpacked(np.where(rows == cols, np.exp(t), t), d), rng.normal(size=(2, k, len(rows)))
    dL = np.zeros((2, k, d, d))
    dL[:, :, rows, cols] = np.where(rows == cols, v * np.exp(t), v)
    x = compiled.chart_forward(t.ravel(), d, floor, 300.0)
    close = {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(x, floor * np.eye(d) + L @ L.transpose(0, 2, 1), **close)
    back, inside = compiled.chart_inverse(x, floor, 300.0)
    assert inside
    np.testing.assert_allclose(back, t.ravel(), **close)
    assert not compiled.chart_inverse(floor * np.ones((1, d, d)), floor, 300.0)[1]
    half = dL @ L.transpose(0, 2, 1)
    dx = compiled.chart_push(t.ravel(), v, d, 300.0).reshape(2, k, d, d)
    np.testing.assert_allclose(dx, half + half.swapaxes(-1, -2), **close)
    np.testing.assert_allclose(compiled.chart_push_inverse(t.ravel(), dx, 300.0), v.ravel(), rtol=1e-8, atol=1e-9)
    g = compiled.chart_pull_inverse(t.ravel(), v, d, 300.0).reshape(2, k, d, d)
    np.testing.assert_array_equal(g, g.swapaxes(-1, -2))
    np.testing.assert_allclose(compiled.chart_pull(t.ravel(), g, 300.0), v.ravel(), rtol=1e-8, atol=1e-9)
    by_hand = 2 * g @ L
    by_hand = np.where(rows == cols, by_hand[..., rows, cols] * np.exp(t), by_hand[..., rows, cols])
    np.testing.assert_allclose(compiled.chart_pull(t.ravel(), g, 300.0), by_hand.ravel(), **close)
    ahead, behind = (compiled.chart_pull((t + h * v[0]).ravel(), g[0], 300.0) for h in (1e-6, -1e-6))
    found = compiled.chart_curvature(t.ravel(), g[0], v, 300.0).reshape(2, -1)
    np.testing.assert_allclose(found[0], (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-7 * np.abs(found).max())


@pytest.mark.parametrize("d", [1, 8, 9, 65])
def test_what_is_no_number_stays_so(d):
    for at in (0, d // 2, d - 1):
        x = 2.0 * np.eye(d)
        x[at, at] = np.nan
        t, inside = compiled.chart_inverse(x[None], 0.1, 300.0)
        assert not inside or np.isnan(t).any()
    counts, moves, turns = np.array([1.0]), np.ones((1, d)), np.ones((1, d, d))
    assert np.isnan(compiled.metric(np.eye(d), np.nan * counts, counts, moves, turns, 1e-3)[0]).all()
    assert np.isnan(compiled.metric(np.eye(d), counts, np.nan * counts, moves, turns, 1e-3)[1]).all()


@both
@sizes
def test_conditions(k, d, tied):
    covariances = problem(k, d, tied)[3]
    values = np.linalg.eigvalsh(covariances)
    expected = np.linalg.norm(values[:, -1:] / values, axis=1)
    np.testing.assert_allclose(compiled.conditions(covariances), expected, rtol=1e-9)


def test_conditions_of_what_is_singular_or_no_number():
    assert compiled.conditions(np.diag([1.0, 0.0])) == pytest.approx(np.finfo(float).eps ** -2)
    assert np.isnan(compiled.conditions(np.full((2, 3, 3), np.nan))).all()


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
        (
            "do not fit 4 means and 4 matrices",
            lambda: compiled.metric(covariances, log_norms, log_norms[:1], means, covariances, 0.0),
        ),
        (
            "do not fit 4 means and 2 matrices",
            lambda: compiled.metric(covariances[:2], log_norms, log_norms[:2], means, covariances[:2], 0.0),
        ),
        ("must have rows, got d = 0", lambda: compiled.chart_forward(np.zeros(6), 0, 0.0, 300.0)),
        ("must have rows, got d = 0", lambda: compiled.chart_push(np.zeros(6), np.zeros(6), 0, 300.0)),
        ("gradients must be square, got (1, 0, 0)", lambda: compiled.chart_pull(np.zeros(6), np.zeros((1, 0, 0)), 300.0)),
        ("4 coordinates do not fit matrices (2, 2)", lambda: compiled.chart_forward(np.zeros(4), 2, 0.0, 300.0)),
        ("5 coordinates and directions of 5 numbers", lambda: compiled.chart_push(np.zeros(5), np.zeros(5), 3, 300.0)),
        ("do not fit means (4, 3)", lambda: compiled.hvp(stats, at, means, inverse, log_norms, means[:3], covariances)),
        ("at least 2 axes, got shape (3,)", lambda: compiled.conditions(np.ones(3))),
        ("directions of 5 numbers do not fit matrices (3, 3)", lambda: compiled.chart_push(np.zeros(6), np.zeros(5), 3, 300.0)),
        (
            "5 coordinates do not fit matrices",
            lambda: compiled.chart_curvature(np.zeros(5), np.zeros((1, 3, 3)), np.zeros(6), 1.0),
        ),
        (
            "7 coordinates and directions of 9 numbers do not fit matrices (3, 3)",
            lambda: compiled.chart_pull(np.zeros(7), np.zeros((1, 3, 3)), 300.0),
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            call()


@both
@sizes
def test_recentre(k, d, tied):
    stats, origin, means, _, (rows, resp) = problem(k, d, tied)
    longer = np.append(stats, [1.0, 2.0])
    longer[:k] += 1.0  # counts, of which the sums are not
    moved = compiled.recentre(longer, origin.ravel(), means.ravel(), k, d, tied)
    np.testing.assert_array_equal(moved[: 2 * k], longer[: 2 * k])
    np.testing.assert_array_equal(moved[-2:], [1.0, 2.0])
    z = np.einsum("nc,ncj->cj", resp, rows[:, None, :] - means)
    np.testing.assert_allclose(moved[2 * k : k * (2 + d)].reshape(k, d), z, rtol=1e-10, atol=1e-11)
    lower = np.tril_indices(d)
    expected = scatters(rows, resp, means, tied)[:, lower[0], lower[1]].ravel()
    np.testing.assert_allclose(moved[k * (2 + d) : -2], expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max())
    assert compiled.recentre(longer, origin.ravel(), origin.ravel().copy(), k, d, tied) is longer


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
