"""What is compiled for diagonal and spherical covariances, against plain NumPy."""

import re

import numpy as np
import pytest

from emcore.kernels import gaussian_variances as compiled

SIZES = ((1, 1), (3, 1), (1, 4), (4, 3), (2, 70))
both = pytest.mark.parametrize("spherical", [False, True], ids=["diag", "spherical"])
sizes = pytest.mark.parametrize(("k", "d"), SIZES)
EXCESS = 2.5


def problem(k, d, spherical):
    """Return statistics about an origin, the origin, other means, variances, and the sums that they are made of."""
    rng = np.random.default_rng((k, d))
    rows, resp = rng.normal(size=(50, d)) * 2 + 1, rng.dirichlet(np.ones(k), size=50)
    origin, means = rng.normal(size=(2, k, d))
    variances = rng.uniform(0.3, 2.0, size=k if spherical else (k, d))
    mass = resp.sum(axis=0)
    total, second = about(rows, resp, origin, spherical)
    stats = np.concatenate([mass + 1.0, mass, total.ravel(), second.ravel()])  # counts need not be masses
    return stats, origin.ravel(), means, variances, (rows, resp)


def about(rows, resp, means, spherical):
    z = rows[:, None, :] - means
    second = np.einsum("nc,ncj->cj", resp, z * z)
    return np.einsum("nc,ncj->cj", resp, z), second.sum(axis=1) if spherical else second


def columns(variances):
    return variances[:, None] if variances.ndim == 1 else variances


@both
@sizes
def test_factors(k, d, spherical):
    variances = problem(k, d, spherical)[3]
    inverse, log_norms, bad = compiled.factors(variances, k, d, -0.25)
    full = np.broadcast_to(columns(variances), (k, d))
    assert bad == -1
    np.testing.assert_allclose(inverse, full**-0.5, rtol=1e-15)
    np.testing.assert_allclose(log_norms, -0.25 - 0.5 * np.log(full).sum(axis=1), rtol=1e-12, atol=1e-13)


def test_factors_name_the_component_that_has_none():
    for wrong in (0.0, -1.0, 1e-33, np.nan):
        variances = np.ones((4, 3))
        variances[2, 1] = variances[3, 0] = wrong
        assert compiled.factors(variances, 4, 3, 0.0)[2] == 2
        assert compiled.factors(np.array([1.0, wrong]), 2, 3, 0.0)[2] == 1


@both
@sizes
def test_m_step(k, d, spherical):
    stats, origin, means, variances, (rows, resp) = problem(k, d, spherical)
    mass = resp.sum(axis=0)
    expected = resp.T @ rows / mass[:, None]
    second = about(rows, resp, expected, spherical)[1]
    per = mass * (d if spherical else 1)
    for excess in (0.0, EXCESS):
        found, new = compiled.m_step(stats, origin, means, variances, 0.0, 0.0, excess)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        divided = second / (per if spherical else per[:, None])
        scale = mass / (mass + excess)
        np.testing.assert_allclose(new, divided * (scale if spherical else scale[:, None]), rtol=1e-11, atol=1e-12)
    floor = float(np.median(new))
    clipped = compiled.m_step(stats, origin, means, variances, 0.0, floor, EXCESS)[1]
    np.testing.assert_array_equal(clipped, np.maximum(new, floor))


@both
def test_m_step_keeps_what_an_empty_component_has(spherical):
    stats, origin, means, variances, _ = problem(4, 3, spherical)
    stats[4 + 2] = 0.0
    found, new = compiled.m_step(stats, origin, means, variances, 1e-12, 1e-9, 0.0)
    np.testing.assert_array_equal(found[2], means[2])
    np.testing.assert_array_equal(new[2], variances[2])
    stats[-1] = np.nan
    assert np.isnan(compiled.m_step(stats, origin, means, variances, 1e-12, 1e-9, 0.0)[1][3]).any()


@both
@sizes
def test_expected_score_and_recentre(k, d, spherical):
    stats, origin, means, variances, (rows, resp) = problem(k, d, spherical)
    mass, full = resp.sum(axis=0), np.broadcast_to(columns(variances), (k, d))
    total, second = about(rows, resp, means, spherical)
    value = (mass + EXCESS) @ (-0.25 - 0.5 * np.log(full).sum(axis=1)) - 0.5 * np.sum(second / variances)
    assert compiled.expected(stats, origin, means, variances, -0.25, EXCESS) == pytest.approx(value, rel=1e-11)
    g_means, g = compiled.score(stats, origin, means, variances, EXCESS)
    np.testing.assert_allclose(g_means, total / full, rtol=1e-10, atol=1e-10)
    counts = (mass + EXCESS) * (d if spherical else 1)
    np.testing.assert_allclose(
        g, 0.5 * (second / variances - (counts if spherical else counts[:, None])) / variances, rtol=1e-9, atol=1e-9
    )
    v = 1 if spherical else d
    moved = compiled.recentre(stats, origin, means.ravel(), k, d, v)
    expected = np.concatenate([stats[: 2 * k], total.ravel(), second.ravel()])
    np.testing.assert_allclose(moved, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    assert compiled.recentre(stats, origin, origin.copy(), k, d, v) is stats


@both
@sizes
def test_metric(k, d, spherical):
    _, _, _, variances, (_, resp) = problem(k, d, spherical)
    rng, mass = np.random.default_rng(1), resp.sum(axis=0)
    slopes, curves = rng.normal(size=(2, k, d)), rng.normal(size=(2, *variances.shape))
    found = compiled.metric(variances, mass, EXCESS, slopes, curves, 1e-300)
    np.testing.assert_allclose(found[0], columns(variances) * slopes / mass[:, None], rtol=1e-13)
    counts = (mass + EXCESS) * (d if spherical else 1)
    expected = 2 * variances**2 * curves / (counts if spherical else counts[:, None])
    np.testing.assert_allclose(found[1], expected, rtol=1e-13)
    one = compiled.metric(variances, mass, EXCESS, slopes[1], curves[1], 1e-300)
    np.testing.assert_array_equal(one[0], found[0][1])
    np.testing.assert_array_equal(one[1], found[1][1])
    few = compiled.metric(variances, 0 * mass, 0.0, slopes, curves, 2.0)
    np.testing.assert_allclose(few[0], columns(variances) * slopes / 2.0, rtol=1e-13)
    assert np.isnan(compiled.metric(variances, np.nan * mass, 0.0, slopes, curves, 2.0)[0]).all()


def test_arrays_that_do_not_fit_are_refused():
    stats, at, means, variances, _ = problem(4, 3, False)
    for words, call in (
        ("variances must have shape (4,) or (4, 3), got (3, 3)", lambda: compiled.factors(variances[:3], 4, 3, 0.0)),
        ("variances must have shape (0,) or (0, 3), got (0,)", lambda: compiled.factors(np.ones(0), 0, 3, 0.0)),
        ("means must have shape (k, d), got (12,)", lambda: compiled.score(stats, at, at, variances, 0.0)),
        ("statistics 31 and origin 12 do not fit", lambda: compiled.m_step(stats[1:], at, means, variances, 0.0, 0.0, 0.0)),
        ("statistics 32 and origin 11 do not fit", lambda: compiled.expected(stats, at[1:], means, variances, 0.0, 0.0)),
        ("statistics 32 and origin 12 do not fit", lambda: compiled.score(stats, at, means, variances[:, 0], 0.0)),
        ("do not fit means (4, 3) with 1 variances each", lambda: compiled.recentre(stats, at, at, 4, 3, 1)),
        ("do not fit means (4, 3) with 2 variances each", lambda: compiled.recentre(stats, at, at, 4, 3, 2)),
        ("do not fit 4 components", lambda: compiled.metric(variances, np.ones(4), 0.0, means, variances[:3], 1.0)),
        ("variances must have shape", lambda: compiled.metric(variances, np.ones(4), 0.0, at, variances, 1.0)),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            call()
