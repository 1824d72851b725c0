"""Families written in NumPy, and the check of anybody's model."""

import re
from pathlib import Path

import numpy as np
import pytest

import emcore
from emcore.data import as_source
from emcore.models import UserMixture
from emcore.objective import ModelObjective

LOG2PI = np.log(2 * np.pi)


def normal(X, mean, variance):
    return -0.5 * (LOG2PI + np.log(variance) + (X[:, 0] - mean) ** 2 / variance)


NORMAL = {"mean": "real", "variance": "positive"}


def statistics(X):
    return np.stack([X[:, 0], X[:, 0] ** 2], axis=1)


def expected(n, s, mean, variance):
    return -0.5 * (n * (LOG2PI + np.log(variance)) + (s[1] - 2 * mean * s[0] + n * mean**2) / variance)


def m_step(n, s, mean, variance):
    return {"mean": s[0] / n, "variance": s[1] / n - (s[0] / n) ** 2}


def score(n, s, mean, variance):
    square = s[1] - 2 * mean * s[0] + n * mean**2
    return {"mean": (s[0] - n * mean) / variance, "variance": 0.5 * (square / variance**2 - n / variance)}


WHOLE = {"statistics": statistics, "expected": expected, "m_step": m_step, "score": score}
START = {"weights": [0.5, 0.5], "mean": [0.0, 4.0], "variance": [1.0, 1.0]}


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, 1, 40), rng.normal(4, 1.5, 40)])[:, None]


def short():
    return UserMixture(2, normal, NORMAL)


def whole(**other):
    return UserMixture(2, normal, NORMAL, **(WHOLE | other))


@pytest.mark.parametrize("build", [short, whole])
def test_the_optimum_is_that_of_the_compiled_mixture(build, X):
    compiled = emcore.fit(
        emcore.models.GaussianMixture(2), X, stop=emcore.Stop(gain=1e-14),
        start={"weights": [0.5, 0.5], "means": [[0.0], [4.0]], "covariances": [[[1.0]], [[1.0]]]},
    )  # fmt: skip
    found = emcore.fit(build(), X, start=START, stop=emcore.Stop(gain=1e-14))
    assert found.status.ok
    assert found.value == pytest.approx(compiled.value, abs=1e-11)
    np.testing.assert_allclose(found.params.mean, compiled.params.means[:, 0], atol=1e-5)


@pytest.mark.parametrize("name", emcore.solvers.names())
def test_every_solver_runs_on_it(name, X):
    best = emcore.fit(whole(), X, start=START).value
    noisy = name in ("adam", "online", "first-order-em", "gradient")
    budget = {"stop": emcore.Stop(max_passes=20)} if noisy else {}
    with np.errstate(all="ignore"):
        if noisy:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", emcore.ConvergenceWarning)
                found = emcore.fit(whole(), X, solver=name, start=START, **budget)
            assert not found.status.failed
            assert found.value > found.trace.value[0] - 1e-3
        else:
            found = emcore.fit(whole(), X, solver=name, start=START)
            assert found.status.ok
            assert found.value == pytest.approx(best, abs=1e-8)


@pytest.mark.parametrize("name", ["lbfgs", "newton", "squarem"])
def test_the_density_alone_is_enough(name, X):
    found = emcore.fit(short(), X, solver=name, start=START)
    assert found.status.ok
    assert found.value == pytest.approx(emcore.fit(whole(), X, start=START).value, abs=1e-9)


@pytest.mark.parametrize("build", [short, whole])
def test_weights_of_0_and_pieces(build, X):
    w = np.where(np.arange(80) % 3 == 0, 0.0, 1.5)
    spoilt = np.where(w[:, None] == 0, np.where(np.arange(80)[:, None] % 2 == 0, 1e300, -7.0), X)
    a = emcore.fit(build(), X[w > 0], start=START)
    b = emcore.fit(build(), spoilt, start=START, sample_weight=w)
    assert a.value == pytest.approx(b.value, abs=1e-12)


def test_an_exception_of_the_user_is_raised_as_it_is(X):
    def broken(X, mean, variance):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        emcore.fit(UserMixture(2, broken, NORMAL), X, start=START)


@pytest.mark.parametrize("build", [short, whole])
def test_the_laws_hold(build, X):
    found = emcore.check(build(), X, start=START)
    assert found.holds, str(found)
    assert len(found.laws) == 7


def test_a_wrong_score_is_told(X):
    found = emcore.check(whole(score=lambda *a, **p: {n: 1.1 * g for n, g in score(*a, **p).items()}), X, start=START)
    failed = [law.name for law in found.laws if not law.holds]
    assert failed == ["Fisher's identity"]
    assert "score" in str(found)


def test_a_wrong_m_step_is_told(X):
    found = emcore.check(whole(m_step=lambda *a, **p: m_step(*a, **p) | {"variance": p["variance"]}), X, start=START)
    failed = [law.name for law in found.laws if not law.holds]
    assert "gradient 0 where EM rests" in failed
    assert "Fisher's identity" not in failed


def test_a_support_that_moves_is_told(X):
    def uniform(X, end):
        return np.where(X[:, 0] <= end, -np.log(end), -np.inf)

    rows = np.abs(X)
    start = {"weights": [0.5, 0.5], "end": [rows.max(), 1.001 * rows.max()]}
    model = UserMixture(2, uniform, {"end": "positive"}, expected=lambda X, w, end: -w.sum() * np.log(end))
    found = emcore.check(
        model, rows, start={"weights": [0.5, 0.5], "end": [np.sort(rows[:, 0])[40] * (1 + 1e-5), rows.max() * 2]}
    )
    assert not found.holds
    assert "moving_support" in str(found)
    with pytest.raises(emcore.SupportError, match="end"):
        emcore.fit(UserMixture(2, uniform, {"end": "positive"}, moving_support=["end"]), rows, solver="lbfgs", start=start)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"params": {"a": "round"}}, ValueError, "params: a must be one of"),
        ({"params": {}}, TypeError, "params must map"),
        ({"statistics": statistics}, ValueError, "expected must be given"),
        ({"log_density": 3}, TypeError, "log_density must be callable"),
        ({"moving_support": ["b"]}, ValueError, "'b' is no parameter"),
    ],
)
def test_bad_arguments(options, error, match):
    with pytest.raises(error, match=match):
        UserMixture(2, **({"log_density": normal, "params": NORMAL} | options))


def test_a_wrong_shape_is_told(X):
    with pytest.raises(ValueError, match=r"log_density must return an array of shape \(80,\)"):
        emcore.fit(UserMixture(2, lambda X, mean, variance: normal(X, mean, variance)[:, None], NORMAL), X, start=START)


def test_fishers_identity_in_original_coordinates(X):
    objective = ModelObjective(short(), as_source(X), coordinates="original")
    at = objective.model.from_user(START)
    e = objective.evaluate(objective.point_of(at))
    exact = ModelObjective(whole(), as_source(X), coordinates="original")
    np.testing.assert_allclose(e.gradient, exact.evaluate(exact.point_of(exact.model.from_user(START))).gradient, atol=1e-9)


PAGE = Path(__file__).parents[1] / "docs" / "own_families.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the tests do not stand beside the documents")
def test_the_page_runs():
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S):
        exec(block, scope)
    assert scope["fit"].status.ok
    assert scope["found"].holds, str(scope["found"])
