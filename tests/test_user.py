"""Families written in NumPy, and the check of anybody's model."""

import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.special import xlog1py, xlogy

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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", emcore.ConvergenceWarning)
                found = emcore.fit(whole(), X, solver=name, start=START, **budget)
            assert not found.status.failed
            assert found.value > found.trace.value[0] - 1e-3
        else:
            found = emcore.fit(whole(), X, solver=name, start=START)
            assert found.status.ok
            assert found.value == pytest.approx(best, abs=1e-8)


# solver -> passes it gets on the density alone, how near it comes, and why it does not end within them
DEAR = "an M-step by Newton's method after each piece of the data"
UNFINISHED = {
    "incremental": (4, 1e-2, DEAR),
    "online": (4, 1e-2, DEAR),
    "svrem": (4, 1e-2, DEAR),
    "gradient": (60, 1e-4, "it crawls where curvatures differ"),
    "first-order-em": (60, 1e-3, "it crawls at a constant step"),
    "adam": (60, 1e-2, "its noise ends no climb but by the budget"),
}


@pytest.mark.parametrize("name", emcore.solvers.names())
def test_the_density_alone_is_enough(name, X):
    best = emcore.fit(whole(), X, start=START).value
    passes, near, why = UNFINISHED.get(name, (200, 1e-9, ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if why else "error", emcore.ConvergenceWarning)
        found = emcore.fit(short(), X, solver=name, start=START, stop=emcore.Stop(max_passes=passes))
    assert not found.status.failed
    assert found.status.ok != bool(why), (found.status, why)
    assert found.value == pytest.approx(best, abs=near)
    assert found.value > found.trace.value[0]


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
    assert len(found.laws) == 13
    assert "not tried" not in str(found)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
@pytest.mark.parametrize("build", [short, whole])
def test_the_laws_hold_in_any_units(build, unit, X):
    start = {"weights": [0.5, 0.5], "mean": [0.0, 4.0 * unit], "variance": [unit**2, unit**2]}
    found = emcore.check(build(), unit * X, start=start)
    assert found.holds, str(found)


def broken_laws(X, **functions):
    return [law.name for law in emcore.check(whole(**functions), X, start=START).laws if not law.holds]


def test_a_wrong_score_is_told(X):
    found = emcore.check(whole(score=lambda *a, **p: {n: 1.1 * g for n, g in score(*a, **p).items()}), X, start=START)
    failed = [law.name for law in found.laws if not law.holds]
    assert failed == ["Fisher's identity", "the score is the slope of q"]
    assert "score" in str(found)


def test_a_wrong_expected_is_told(X):
    entropy = "value - q is the posterior's entropy"
    assert broken_laws(X, expected=lambda n, s, **p: expected(n, s, **p) + 3 * n) == [entropy]
    assert broken_laws(X, expected=lambda *a, **p: 2 * expected(*a, **p)) == [
        entropy, "the score is the slope of q", "EM rises",
    ]  # fmt: skip
    assert entropy in broken_laws(X, expected=lambda *a, **p: 2 * expected(*a, **p), m_step=None, score=None)


def test_an_m_step_that_only_rises_is_told(X):
    def half(n, s, **p):
        return {name: 0.5 * (new + p[name]) for name, new in m_step(n, s, **p).items()}

    assert broken_laws(X, m_step=half) == ["the M-step is a maximum of q", "EM step is P gradient"]


def test_a_density_that_is_none_is_told(X):
    short_of_it = UserMixture(2, lambda X, mean, variance: normal(X, mean, variance) + 0.5 * np.log(variance), NORMAL)
    found = emcore.check(short_of_it, X, start=START)
    assert "the density is one" in [law.name for law in found.laws if not law.holds]


def round_normal(X, mean, variance, *, d=None):
    return -0.5 * (((X - mean) ** 2).sum(axis=1) / variance + (d or X.shape[1]) * (LOG2PI + np.log(variance)))


def the_density(log_density, rows, start="random-points"):
    model = UserMixture(2, log_density, {"mean": ("real", ("d",)), "variance": "positive"})
    found = emcore.check(model, rows, max_passes=2, start=start)
    assert found.laws[-1].name == "the density is one"
    return found.laws[-1]


@pytest.mark.parametrize("d", [2, 3])
def test_a_density_of_several_columns_that_is_none_is_told(d):
    rows = np.random.default_rng(0).normal(size=(120, d))
    wrong = the_density(lambda X, mean, variance: round_normal(X, mean, variance, d=1), rows)
    assert not wrong.holds
    right = the_density(round_normal, 1e-4 * rows)
    assert right.holds
    assert "it adds up to" in right.found


def cauchy(X, mean, variance, *, more=0.0):
    return stats.multivariate_t.logpdf(X, mean, variance * np.eye(X.shape[1]), df=1) + more


def test_a_density_of_heavy_tails_is_one():
    rows = stats.multivariate_t.rvs(np.zeros(2), np.eye(2), df=1, size=150, random_state=0)
    start = {"weights": [0.5, 0.5], "mean": [[0.0, 0.0], [1.0, 1.0]], "variance": [1.0, 2.0]}
    right = the_density(cauchy, rows, start)
    assert right.holds
    assert "it adds up to" in right.found
    assert not the_density(lambda X, **p: cauchy(X, **p, more=0.2), rows, start).holds


def test_a_domain_of_several_columns_is_found():
    rows = np.random.default_rng(0).exponential(3.0, size=(150, 2))
    model = UserMixture(1, lambda X, rate: np.log(rate).sum() - X @ rate, {"rate": ("positive", ("d",))})
    law = emcore.check(model, rows, max_passes=2).laws[-1]
    assert law.holds
    assert "over the positive numbers" in law.found


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (np.random.default_rng(0).normal(size=(40, 6)), "more than 5 columns"),
        (np.random.default_rng(0).integers(9, size=(40, 2)).astype(float), "whole numbers"),
        (np.random.default_rng(0).normal(size=(40, 1)) * [1.0, 2.0], "fewer dimensions"),
    ],
)
def test_a_density_that_was_not_tried_is_named(rows, why):
    model = UserMixture(1, round_normal, {"mean": ("real", ("d",)), "variance": "positive"})
    (line,) = (line for line in str(emcore.check(model, rows, max_passes=2)).splitlines() if "the density is one" in line)
    assert "not tried: " in line
    assert why in line
    assert not line.startswith("holds")


@pytest.mark.parametrize(
    ("log_density", "params", "rows", "domain"),
    [
        (lambda X, rate: np.log(rate) - rate * X[:, 0], {"rate": "positive"}, stats.expon.rvs(size=60, random_state=0),
         "the positive numbers"),
        (lambda X, rate: stats.poisson.logpmf(X[:, 0], rate), {"rate": "positive"},
         stats.poisson.rvs(4, size=60, random_state=0), "numbers"),
        (lambda X, a: stats.beta.logpdf(X[:, 0], a, 2.0), {"a": "positive"}, stats.beta.rvs(3, 2, size=60, random_state=0),
         "over"),
        (lambda X, a: stats.vonmises.logpdf(X[:, 0], 2.0, a), {"a": "real"},
         stats.vonmises.rvs(2, size=60, random_state=0), "-pi to pi"),
        (lambda X, a: stats.t.logpdf(X[:, 0], 1.2, a), {"a": "real"}, stats.t.rvs(1.2, size=60, random_state=0), "the line"),
    ],
)  # fmt: skip
def test_densities_on_other_domains_are_one(log_density, params, rows, domain):
    found = emcore.check(UserMixture(1, log_density, params), rows.astype(float)[:, None], max_passes=3)
    law = next(law for law in found.laws if law.name == "the density is one")
    assert law.holds, law
    assert domain in law.found


def test_a_wrong_m_step_is_told(X):
    found = emcore.check(whole(m_step=lambda *a, **p: m_step(*a, **p) | {"variance": p["variance"]}), X, start=START)
    failed = [law.name for law in found.laws if not law.holds]
    assert "gradient 0 where EM rests" in failed
    assert "the M-step is a maximum of q" in failed
    assert "Fisher's identity" not in failed


@pytest.mark.parametrize(
    ("functions", "why", "others"),
    [
        ({"m_step": lambda *a, **p: {"mean": 0.0, "variance": -1.0}}, "returned variance = -1.0 for component 0: it must be",
         {"the M-step is a maximum of q", "EM rises"}),
        ({"m_step": lambda *a, **p: {"mean": np.nan, "variance": 1.0}}, "returned mean = nan for component 0: it must be",
         {"the M-step is a maximum of q", "EM rises"}),
        ({"statistics": lambda X: statistics(X) - statistics(X).mean(axis=0)}, "m_step returned variance = -",
         {"Fisher's identity", "value - q is the posterior's entropy", "the M-step is a maximum of q", "EM rises"}),
    ],
)  # fmt: skip
def test_a_start_that_breaks_is_a_law_that_does_not_hold(functions, why, others, X):
    found = emcore.check(whole(**functions), X)
    first, *rest = (law for law in found.laws if not law.holds)
    assert first.name == "a start"
    assert why in first.found
    assert "No M-step from 'random-points'" in first.advice
    assert {law.name for law in rest} == others
    assert "holds  the score is the slope of q" in str(found)


def test_a_start_that_breaks_where_the_support_moves_is_told(X):
    found = emcore.check(UserMixture(2, uniform, {"end": "positive"}, moving_support=["end"]), np.abs(X))
    assert "give it an m_step=" in found.laws[0].found
    assert [law.name for law in found.laws if not law.holds] == ["a start", "finite densities"]


def test_wrong_arguments_are_no_laws(X):
    for start in ("nonsense", {"mean": [0.0, 4.0]}):
        with pytest.raises(ValueError, match="start"):
            emcore.check(whole(), X, start=start)
    with pytest.raises(ValueError, match="m_step must return a dict with mean, variance"):
        emcore.check(whole(m_step=lambda *a, **p: {}), X)


def test_an_operator_that_is_no_em_is_told():
    rng = np.random.default_rng(0)
    model = emcore.models.MissingRegression(0.5, operator="identity-block")
    found = emcore.check(model, (rng.normal(size=(60, 2)), rng.normal(size=60)), start={"coefficients": [0.1, 0.2]})
    assert not found.holds
    assert "no EM" in str(found)


def uniform(X, end):
    return np.where(X[:, 0] <= end, -np.log(end), -np.inf)


def inside(X, w, end):
    return -w.sum() * np.log(end) if (X[w > 0, 0] <= end).all() else -np.inf


UNIFORM = {
    "expected": inside,
    "score": lambda X, w, end: {"end": -w.sum() / end},
    "m_step": lambda X, w, end: {"end": X[w > 0, 0].max()},
}


@pytest.mark.parametrize("functions", [{}, UNIFORM], ids=["density", "whole"])
def test_check_finds_a_support_that_moves(functions, X):
    rows = np.abs(X)
    start = {"weights": [0.5, 0.5], "end": [np.median(rows), rows.max() * 1.1]}
    found = emcore.check(UserMixture(2, uniform, {"end": "positive"}, **functions), rows, start=start)
    law = next(law for law in found.laws if law.name == "smooth support")
    assert not law.holds
    assert "when end moves" in law.found
    assert "moving_support" in law.advice
    with pytest.raises(emcore.SupportError, match="end"):
        emcore.fit(UserMixture(2, uniform, {"end": "positive"}, moving_support=["end"]), rows, solver="lbfgs", start=start)


@pytest.mark.parametrize("name", ["em", "auto", "lbfgs", "squarem"])
def test_an_m_step_that_fails_where_the_support_moves_says_so(name, X):
    rows = np.abs(X)
    start = {"weights": [0.5, 0.5], "end": [np.median(rows), rows.max() * (1 + 1e-7)]}
    with pytest.warns(emcore.ConvergenceWarning, match=r"the support of the model depends on end.*moving_support=\['end'\]"):
        found = emcore.fit(UserMixture(2, uniform, {"end": "positive"}), rows, solver=name, start=start)
    assert found.status.failed
    assert found.failure.where == "M-step"


@pytest.mark.parametrize("name", ["em", "auto"])
def test_a_declared_support_that_moves_needs_an_m_step(name, X):
    rows = np.abs(X)
    declared = {"params": {"end": "positive"}, "moving_support": ["end"]}
    start = {"weights": [0.5, 0.5], "end": [np.median(rows), rows.max() * (1 + 1e-7)]}
    with pytest.warns(emcore.ConvergenceWarning, match="with end, as declared, .* across its jumps: give it an m_step="):
        found = emcore.fit(UserMixture(2, uniform, **declared), rows, solver=name, start=start)
    assert "Say so" not in found.failure.detail
    with pytest.raises(ValueError, match="give it an m_step="):
        emcore.fit(UserMixture(2, uniform, **declared), rows, solver=name, random_state=0)
    found = emcore.fit(UserMixture(2, uniform, **declared, m_step=UNIFORM["m_step"]), rows, solver=name, start=start)
    assert found.status.name == "GAIN"
    np.testing.assert_array_equal(found.params.end, [rows[rows <= np.median(rows)].max(), rows.max()])


def test_of_two_supports_that_move_the_one_that_was_not_declared_is_named(X):
    def between(X, low, end):
        return np.where((X[:, 0] >= low) & (X[:, 0] <= end), -np.log(np.abs(end - low)), -np.inf)

    model = UserMixture(1, between, {"low": "real", "end": "positive"}, moving_support=["end"])
    start = {"weights": [1.0], "low": [X.min()], "end": [X.max()]}
    with pytest.warns(emcore.ConvergenceWarning, match=r"depends on low\. Say so with moving_support=\['end', 'low'\]"):
        emcore.fit(model, X, solver="em", start=start)


@pytest.mark.parametrize("name", emcore.solvers.names())
def test_a_climb_that_ends_where_the_support_moves_says_so(name, X):
    """With its own M-step, which freezes at a row, nothing fails."""
    rows = np.abs(X)
    start = {"weights": [0.5, 0.5], "end": [np.median(rows), rows.max() * 1.1]}
    model = UserMixture(2, uniform, {"end": "positive"}, **UNIFORM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", emcore.ConvergenceWarning)
        found = emcore.fit(model, rows, solver=name, start=start, stop=emcore.Stop(max_passes=60))
    if found.status.ok:
        assert found.status.name == "BOUNDARY"
        assert "next to its end: unless the logarithm underflows there, the support of the model depends on it" in str(found)
    else:
        assert name not in ("em", "auto", "squarem", "qn2")
    declared = UserMixture(2, uniform, {"end": "positive"}, moving_support=["end"], **UNIFORM)
    found = emcore.fit(declared, rows, solver="em", start=start)
    assert found.status.name == "GAIN"
    assert not found.boundary


def test_a_support_that_moves_is_seen_beside_statistics(X):
    """Of the rows only the ends of the columns are kept, and some more."""
    rows = np.abs(X)
    stays = {
        "statistics": lambda X: X,
        "expected": lambda count, total, end: -count * np.log(end),
        "m_step": lambda count, total, end: {"end": end},
    }
    model = UserMixture(2, uniform, {"end": "positive"}, **stays)
    start = {"weights": [0.5, 0.5], "end": [3.0 * rows.max(), 1.001 * rows.max()]}
    found = emcore.fit(model, rows, solver="em", start=start)
    assert found.status.name == "BOUNDARY"
    assert "lose their density under component 1 next to its end" in found.boundary[-1]


def test_no_support_is_said_to_move_that_does_not(X):
    assert emcore.fit(short(), X, start=START).boundary == ()
    assert emcore.fit(whole(), X, start=START).boundary == ()


# An M-step that is none: never "converged"

BROKEN = {
    "DECREASED": lambda *a, mean, variance: {"mean": mean + 1.0, "variance": 1.5 * variance},
    "NON_FINITE": lambda *a, mean, variance: {"mean": np.nan, "variance": 1.0},
    "OUTSIDE": lambda *a, mean, variance: {"mean": 0.0, "variance": -1.0},
}
SAYS = {
    "DECREASED": "lowers the expected",
    "NON_FINITE": "mean = nan",
    "OUTSIDE": "variance = -1.0 for component 0: it must be positive",
}


@pytest.mark.parametrize("status", BROKEN)
@pytest.mark.parametrize("name", emcore.solvers.names())
def test_a_broken_m_step_is_a_failure(name, status, X):
    with pytest.warns(emcore.ConvergenceWarning, match="M-step"):
        found = emcore.fit(whole(m_step=BROKEN[status]), X, solver=name, start=START)
    assert found.status.name == status
    assert found.failure.where == "M-step"
    assert SAYS[status] in found.failure.detail
    assert found.steps == 0
    np.testing.assert_array_equal(found.params.mean, START["mean"])


@pytest.mark.parametrize("status", BROKEN)
@pytest.mark.parametrize("name", ["em", "auto", "squarem", "qn2", "daarem"])
def test_nor_does_it_converge_without_the_rule_on_gains(name, status, X):
    with pytest.warns(emcore.ConvergenceWarning):
        found = emcore.fit(
            whole(m_step=BROKEN[status]), X, solver=name, start=START, stop=emcore.Stop(gain=0, xtol=1e-9, max_passes=30)
        )
    assert not found.status.ok


def test_an_m_step_may_end_on_the_boundary():
    """A share of 0 is a parameter, one of -0.1 is none."""

    def log_density(X, share):
        with np.errstate(all="ignore"):
            return np.where(X[:, 0] == 1, np.log(share), np.log1p(-share))

    def best(n, s, share):
        return {"share": s[0] / n}

    def expected(n, s, share):
        return xlogy(s[0], share) + xlog1py(n - s[0], -share)

    options = {"statistics": lambda X: X, "expected": expected, "m_step": best}
    model = UserMixture(1, log_density, {"share": "unit"}, **options)
    found = emcore.fit(model, np.zeros((20, 1)), start={"weights": [1.0], "share": [0.3]})
    assert not found.status.failed
    assert found.params.share[0] == 0


def test_a_differenced_score_says_how_good_it_is(X):
    fits = [emcore.fit(build(), X, start=START) for build in (short, whole)]
    differenced, exact = (emcore.diagnostics.fisher(f.evaluation.objective, f.point) for f in fits)
    assert differenced.holds
    assert exact.holds
    assert exact.score_error == 0
    assert differenced.absolute <= 10 * differenced.uncertainty + 3 * differenced.score_error < 1e-8
    assert "the score itself, differenced" in str(differenced)
    wrong = emcore.fit(whole(score=lambda *a, **p: {n: 1.001 * g for n, g in score(*a, **p).items()}), X, start=START)
    away = wrong.evaluation.objective.point(wrong.theta + 0.1)
    assert not emcore.diagnostics.fisher(wrong.evaluation.objective, away).holds


def test_no_correction_in_closed_form_is_claimed(X):
    found = emcore.fit(short(), X, start=START)
    blocks = emcore.diagnostics.projection(found.evaluation.objective, found.point)
    assert blocks["weights"].error < 1e-12
    assert np.isnan(blocks["mean"].error)
    assert blocks.positive_definite


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"params": {"a": "round"}}, ValueError, "params: a must be one of"),
        ({"params": {}}, TypeError, "params must map"),
        ({"statistics": statistics}, ValueError, "expected must be given"),
        ({"log_density": 3}, TypeError, "log_density must be callable"),
        ({"params": {"a b": "real"}}, ValueError, "params: names must be names of Python, .* got 'a b'"),
        ({"params": {"lambda": "real"}}, ValueError, "params: names must be names of Python, .* got 'lambda'"),
        ({"params": {"weights": "real"}}, ValueError, "params: 'weights' cannot be the name of a parameter"),
        ({"params": {"_a": "real"}}, ValueError, "params: '_a' cannot be the name of a parameter"),
        ({"moving_support": ["b"]}, ValueError, "'b' is no parameter"),
        ({"moving_support": "mean"}, TypeError, r"moving_support must be a sequence of names, such as \['mean'\]"),
    ],
)
def test_bad_arguments(options, error, match):
    with pytest.raises(error, match=match):
        UserMixture(2, **({"log_density": normal, "params": NORMAL} | options))


def test_a_wrong_shape_is_told(X):
    with pytest.raises(ValueError, match=r"log_density must return an array of shape \(80,\)"):
        emcore.fit(UserMixture(2, lambda X, mean, variance: normal(X, mean, variance)[:, None], NORMAL), X, start=START)
    with pytest.raises(TypeError, match="log_density must be real numbers, got complex128"):
        emcore.fit(UserMixture(2, lambda X, mean, variance: normal(X, mean, variance) + 0j, NORMAL), X, start=START)


def test_fishers_identity_in_original_coordinates(X):
    objective = ModelObjective(short(), as_source(X), coordinates="original")
    at = objective.model.from_user(START)
    e = objective.evaluate(objective.point_of(at))
    exact = ModelObjective(whole(), as_source(X), coordinates="original")
    np.testing.assert_allclose(e.gradient, exact.evaluate(exact.point_of(exact.model.from_user(START))).gradient, atol=1e-9)


def square(X, corner, side):
    return -0.5 * np.sum(((X - corner) / side) ** 2, axis=1) - np.log(side).sum() - LOG2PI


def two_columns(X):
    return np.column_stack([X[:, 0], X[:, 1], X**2])


@pytest.mark.parametrize("options", [{}, {"statistics": two_columns, "expected": lambda n, s, corner, side: 0.0}])
def test_draws_of_several_columns(options):
    """Shapes that do not say "d" leave it to the draws how many columns there are."""
    model = UserMixture(
        2, square, {"corner": ("real", (2,)), "side": ("positive", (2,))}, **options,
        sample=lambda rng, n, corner, side: corner + side * rng.normal(size=(n, 2)),
    )  # fmt: skip
    params = {"weights": [0.3, 0.7], "corner": [[0.0, 100.0], [50.0, -50.0]], "side": [[1.0, 2.0], [3.0, 4.0]]}
    rows, states = model.sample(params, 4000, np.random.default_rng(0))
    assert rows.shape == (4000, 2)
    for c in range(2):
        np.testing.assert_allclose(rows[states == c].mean(axis=0), params["corner"][c], atol=0.4)
        np.testing.assert_allclose(rows[states == c].std(axis=0), params["side"][c], rtol=0.1)
    only = model.sample(params | {"weights": [0.0, 1.0]}, 5, np.random.default_rng(0))  # of a component that draws nothing
    assert only[0].shape == (5, 2)
    if not options:
        found = emcore.fit(model, rows[:200], start=params, stop=emcore.Stop(max_passes=2, gain=1.0))
        assert found.sample(7, random_state=0)[0].shape == (7, 2)


def test_draws_of_uneven_columns_are_refused():
    model = UserMixture(2, normal, NORMAL, sample=lambda rng, n, mean, variance: np.zeros((n, 1 if mean < 1 else 3)))
    with pytest.raises(ValueError, match="sample must return rows of as many columns for each component, got 1 and 3"):
        model.sample(START, 50, np.random.default_rng(0))


@pytest.mark.parametrize("build", [short, whole])
def test_a_saved_fit_takes_its_functions_again(build, X, tmp_path):
    path = tmp_path / "fit.npz"
    saved = emcore.fit(build(), X, start=START)
    saved.save(path)
    with pytest.raises(ValueError, match=r"of 'UserMixture', .* functions .* Build the model again .*model=") as e:
        emcore.load(path)
    assert "unknown" not in str(e.value)
    back = emcore.load(path, model=build())
    np.testing.assert_array_equal(back.log_density(X), saved.log_density(X))
    again = emcore.fit(build(), X, start=back)
    assert again.value == pytest.approx(saved.value, abs=1e-11)
    with np.load(path) as file:
        params = {name.removeprefix("params."): file[name] for name in file.files if name.startswith("params.")}
    assert emcore.fit(build(), X, start=params).value == pytest.approx(saved.value, abs=1e-11)
    with pytest.raises(ValueError, match=r"model: .* holds a fit of UserMixture"):
        emcore.load(path, model=UserMixture(3, normal, NORMAL))
    others = r"model: .* holds the parameters \{'weights': \(2,\), 'mean': \(2,\).*those of the model given are .*'mu': \(2,\)"
    with pytest.raises(ValueError, match=others):
        emcore.load(path, model=UserMixture(2, normal, {"mu": "real"}))
    if build is short:
        with pytest.raises(ValueError, match=r"model: .* holds the parameters"):
            emcore.load(path, model=UserMixture(2, normal, dict(reversed(NORMAL.items()))))
        with pytest.raises(ValueError, match="written with variance in another space"):
            emcore.load(path, model=UserMixture(2, normal, dict.fromkeys(NORMAL, "real")))
    with pytest.raises(TypeError, match="model must be a Model"):
        emcore.load(path, model="UserMixture")
