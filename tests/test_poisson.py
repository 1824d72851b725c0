"""Poisson mixtures: the pass against the oracle, counts, rates of 0, and the deaths of the London Times."""

import math
import re

import numpy as np
import pytest
from cases import POISSON, count_rows, threads_start
from laws import em_step_is_p_times_the_gradient
from reference import poisson as oracle
from scipy.special import gammaln
from scipy.stats import poisson

import emcore
from emcore.data import Block, as_source, london_deaths
from emcore.kernels import Coupled, ExponentialFamily, Mixture, run
from emcore.models import PoissonMixture
from emcore.objective import ModelObjective
from emcore.result import Status, Stop, rounding
from emcore.solve import solve
from emcore.solvers import EM, LBFGS
from emcore.starts import STARTS

every_case = pytest.mark.parametrize("case", POISSON, ids=str)


# The pass and its formulas against the oracle


@every_case
def test_value_and_score_are_the_oracles(case):
    objective = case.objective()
    at, w = case.somewhere(objective), case.w
    _, rows = oracle.posterior(case.X, *at.params)
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-13)
    assert e.scale == pytest.approx(w @ np.abs(rows) / w.sum(), rel=1e-13)
    got = objective.model.score(at.params, e.stats)
    for x, y in zip(got, oracle.score(case.X, w, *at.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11 * np.abs(y).max())


@every_case
def test_m_step_start_and_q_are_the_oracles(case):
    objective = case.objective()
    at, other, w = case.somewhere(objective), case.somewhere(objective, seed=1), case.w
    resp, _ = oracle.posterior(case.X, *at.params)
    e = objective.evaluate(at)
    for x, y in zip(e.em_point.params, oracle.m_step(case.X, w, resp), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)
    for x, y in zip(case.start(objective).params, oracle.m_step(case.X, w, case.resp(objective.model.k)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)
    for point in (at, other):
        expected = oracle.q(case.X, w, resp, *point.params) / w.sum()
        assert objective.q(point, e.stats) == pytest.approx(expected, rel=1e-12)


@every_case
def test_em_is_exactly_the_gradient_times_p(case):
    objective = case.objective()
    em_step_is_p_times_the_gradient(objective, case.somewhere(objective))


@every_case
def test_densities_and_responsibilities_of_new_rows(case):
    found = emcore.fit(case.build(), case.X, sample_weight=case.weights, random_state=0, stop=Stop(gain=1e-6))
    rows = np.random.default_rng(0).integers(0, 40, size=(50, case.X.shape[1]))
    resp, logs = oracle.posterior(rows, *found.params)
    np.testing.assert_allclose(found.log_density(rows), logs, rtol=1e-12)
    np.testing.assert_allclose(found.responsibilities(rows), resp, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.predict(rows), resp.argmax(axis=1))


def test_threads_change_no_bit():
    X = count_rows(4, 3, 60_000, 2.0, False)(np.random.default_rng(0))[0]
    found = []
    for threads in (1, 2, 4):
        objective = ModelObjective(PoissonMixture(4), as_source(X), n_threads=threads)
        rates = np.random.default_rng(1).uniform(1, 10, size=(4, 3))
        at = objective.point_of(objective.model.params(np.full(4, 0.25), rates))
        assert threads_start(objective, at)
        e = objective.evaluate(at)
        found.append((e.value, e.gradient.tobytes(), e.em_point.theta.tobytes(), e.gain))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1000, 12_345, 10**6, 10**9])
def test_every_count_has_its_true_density(count):
    """About the size of the terms that cancel; the factorial alone to its last digits."""
    objective = ModelObjective(PoissonMixture(1), as_source([[count]]), n_threads=1)
    for rate in (max(float(count), 0.5), 1.1 * count + 1.0):
        at = objective.point_of(objective.model.params(np.ones(1), np.array([[rate]])))
        terms = count * abs(np.log(rate)) + rate + gammaln(count + 1.0)
        assert objective.evaluate(at).value == pytest.approx(poisson.logpmf(count, rate), rel=1e-13, abs=4e-16 * terms)
    one = objective.evaluate(objective.point_of(objective.model.params(np.ones(1), np.ones((1, 1)))))
    assert one.value == pytest.approx(-1.0 - gammaln(count + 1.0), rel=4e-15)


@pytest.mark.parametrize("odd", [-0.0, 5e-324, 255.0, 256.0, 1e300, -1.0, np.inf, np.nan, -np.nan])
def test_one_odd_count_among_small_ones(odd):
    """Others of its group come from a table; what is no count has no density."""
    X = np.arange(64.0).reshape(32, 2)
    X[17, 1] = odd
    kernel = Coupled(Mixture(np.zeros(1)), ExponentialFamily(np.zeros(1), np.zeros((1, 2)), "poisson"), 32)
    logs = np.empty(32)
    bad = run(kernel, Block((X,)), row_loglik=logs).bad_row
    assert bad == (-1 if 0 <= odd < np.inf else 17)
    rows = np.arange(32) != bad
    np.testing.assert_allclose(logs[rows], -gammaln(np.floor(X[rows]) + 1.0).sum(axis=1), rtol=1e-14)


# What rows may be


@pytest.mark.parametrize("dtype", ["f4", "i8", "i4", "u1", "i2"])
def test_counts_of_any_dtype_are_the_same_rows(dtype):
    X = count_rows(2, 2, 80, 3.0, False)(np.random.default_rng(0))[0]
    start = {"weights": [0.5, 0.5], "rates": [[1.0, 2.0], [4.0, 3.0]]}
    plain = emcore.fit(PoissonMixture(2), X, start=start)
    other = emcore.fit(PoissonMixture(2), np.asfortranarray(X.astype(dtype)), start=start)
    assert other.value == plain.value
    np.testing.assert_array_equal(other.params.rates, plain.params.rates)


@pytest.mark.parametrize("bad", [-1.0, 2.5])
def test_what_is_no_count_is_refused_by_row_and_column(bad):
    X = np.ones((70, 3))
    X[65, 2] = bad
    message = re.escape(f"X must hold counts, whole numbers >= 0: row 65, column 2 is {bad}")
    for block_rows in (None, 8):
        with pytest.raises(ValueError, match=message):
            PoissonMixture(2).bind(as_source(X, block_rows=block_rows))
    found = emcore.fit(PoissonMixture(1), np.ones((70, 3)))
    for ask in (found.log_density, found.responsibilities, found.predict):
        with pytest.raises(ValueError, match=message):
            ask(X)
    w = np.ones(70)
    w[65] = 0.0
    assert emcore.fit(PoissonMixture(1), X, sample_weight=w).status.ok


def test_negative_integers_are_refused():
    with pytest.raises(ValueError, match="row 1, column 0 is -3"):
        PoissonMixture(1).bind(as_source(np.array([[1], [-3]])))


@pytest.mark.parametrize("junk", [np.nan, np.inf, -1e300, 1.7e308, 0.5])
def test_rows_of_weight_zero_may_hold_anything(junk):
    X, _, _ = count_rows(2, 2, 100, 3.0, False)(np.random.default_rng(0))
    w = np.ones(100)
    w[[0, 51]] = 0.0
    start = {"weights": [0.5, 0.5], "rates": [[1.0, 0.0], [4.0, 3.0]]}
    plain = emcore.fit(PoissonMixture(2), X, sample_weight=w, start=start)
    X[[0, 51]] = junk
    other = emcore.fit(PoissonMixture(2), X, sample_weight=w, start=start)
    assert other.value == plain.value
    np.testing.assert_array_equal(other.params.rates, plain.params.rates)


def test_whole_weights_are_rows_repeated():
    X, _, _ = count_rows(2, 3, 90, 2.0, False)(np.random.default_rng(0))
    w = np.random.default_rng(1).integers(0, 4, size=90)
    start = {"weights": [0.5, 0.5], "rates": [[1.0, 2.0, 3.0], [4.0, 3.0, 1.0]]}
    stop = Stop(gain=0, max_passes=30)
    with pytest.warns(emcore.ConvergenceWarning):
        a = emcore.fit(PoissonMixture(2), X, sample_weight=w, start=start, stop=stop)
    with pytest.warns(emcore.ConvergenceWarning):
        b = emcore.fit(PoissonMixture(2), np.repeat(X, w, axis=0), start=start, stop=stop)
    assert a.log_likelihood == pytest.approx(b.log_likelihood, rel=1e-13)
    np.testing.assert_allclose(a.params.rates, b.params.rates, rtol=1e-11)


# Rates of 0


def with_zeros():
    """Counts of which component 0 has none in column 1, and parameters that know it."""
    rng = np.random.default_rng(3)
    X = np.column_stack([rng.poisson(np.repeat([20.0, 2.0], 50)), np.repeat([0, 1], 50) * (1 + rng.poisson(5.0, size=100))])
    return X, {"weights": [0.5, 0.5], "rates": [[18.0, 0.0], [3.0, 4.0]]}


@pytest.mark.parametrize("solver", ["em", LBFGS()], ids=["em", "lbfgs"])
def test_a_rate_of_zero_is_a_boundary(solver):
    X, start = with_zeros()
    found = emcore.fit(PoissonMixture(2), X, start=start, solver=solver)
    assert found.status is Status.BOUNDARY
    assert found.boundary == ("the rate of component 0 in column 1 is 0",)
    rows = oracle.posterior(X, *found.params)[1]
    assert found.log_likelihood == pytest.approx(rows.sum(), rel=1e-13)
    np.testing.assert_allclose(found.params.rates[0, 1], 0.0, atol=1e-100)
    if solver == "em":
        assert found.params.rates[0, 1] == 0.0


def test_a_zero_rate_gives_other_counts_no_density():
    X, start = with_zeros()
    objective = ModelObjective(PoissonMixture(2), as_source(X), n_threads=1)
    e = objective.evaluate(objective.point_of(objective.model.from_user(start)))
    expected = oracle.posterior(X, *map(np.array, start.values()))[1]
    assert e.value == pytest.approx(expected.mean(), rel=1e-13)
    assert np.isfinite(e.gradient).all()
    assert math.isfinite(e.gain)
    for count in (1, 2, 10**9):
        alone = ModelObjective(PoissonMixture(1), as_source([[count, 0], [0, 0]]), n_threads=1)
        e = alone.evaluate(alone.point_of(alone.model.params(np.ones(1), np.array([[0.0, 1.0]]))))
        assert e.value == -math.inf
        assert e.failure.status is Status.NON_FINITE
        assert e.failure.where == "row 0"


def test_a_column_without_counts_is_reported_and_fitted():
    X = np.column_stack([with_zeros()[0], np.zeros(100, dtype=int)])
    with pytest.warns(UserWarning, match="X holds no count above 0 in column 2: its rates are fitted as 0"):
        found = emcore.fit(PoissonMixture(2), X, random_state=0)
    np.testing.assert_array_equal(found.params.rates[:, 2], 0.0)
    assert found.status is Status.BOUNDARY


def test_rates_that_overflow_are_a_failure():
    objective = POISSON[3].objective()
    params = POISSON[3].start(objective).params
    e = objective.evaluate(objective.point_of(params._replace(rates=np.full_like(params.rates, np.inf))))
    assert (e.value, e.failure.status, objective.passes) == (-math.inf, Status.NON_FINITE, 0)


# Parameters of the user, starts, files


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ([[1.0, -2.0], [1.0, 1.0]], "start: rates must be >= 0, that of component 0 in column 1 is -2.0"),
        ([[1.0, 1.0]], "start: rates must have shape (2, 2), got (1, 2)"),
        ([[1.0, np.nan], [1.0, 1.0]], "start: rates must be finite"),
    ],
)
def test_bad_rates_are_refused(rates, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        emcore.fit(PoissonMixture(2), with_zeros()[0], start={"weights": [0.5, 0.5], "rates": rates})


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="n_components must be >= 1, got 0"):
        PoissonMixture(0)
    with pytest.raises(TypeError, match="n_components must be a whole number"):
        PoissonMixture(1.5)


@pytest.mark.parametrize("start", STARTS)
def test_every_start_works(start):
    case = POISSON[3]
    found = emcore.fit(case.build(), case.X, start=start, sample_weight=case.weights, random_state=0)
    assert found.status.ok
    np.testing.assert_array_equal(found.model.to_user(found.point.params).rates, found.params.rates)  # no frame


@every_case
def test_a_saved_fit_is_the_same_fit(case, tmp_path):
    found = emcore.fit(case.build(), case.X, sample_weight=case.weights, random_state=0, stop=Stop(gain=1e-6))
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    rows = case.X[:20]
    np.testing.assert_array_equal(again.log_density(rows), found.log_density(rows))
    np.testing.assert_array_equal(again.params.rates, found.params.rates)
    assert repr(again.model) == repr(found.model)
    with pytest.raises(ValueError, match="X must hold counts"):
        again.log_density(rows + 0.5)


# The deaths of the London Times (Hasselblad 1969)

BEST = {"weights": (0.3598853, 0.6401146), "rates": (1.2560951, 2.6634044)}
LOGLIK = -1989.945860
BEGIN = {"near": ((0.3, 0.7), (1.0, 2.5), 2586), "far": ((0.5, 0.5), (1.0, 4.0), 2782)}


def deaths():
    X, days = london_deaths()
    return X, days, ModelObjective(PoissonMixture(2), as_source(X, days), n_threads=1)


def test_the_data_are_three_years():
    X, days, objective = deaths()
    np.testing.assert_array_equal(X[:, 0], np.arange(10))
    assert days.sum() == 366 + 2 * 365 == objective.weight
    assert X.dtype == np.int64


@pytest.mark.parametrize("where", BEGIN)
@pytest.mark.parametrize("name", ["em", "lbfgs"])
def test_deaths_optimum(name, where):
    X, days, _ = deaths()
    weights, rates, _ = BEGIN[where]
    start = {"weights": weights, "rates": np.array(rates)[:, None]}
    found = emcore.fit(PoissonMixture(2), X, sample_weight=days, start=start, solver=name, stop=Stop(gain=0, gtol=1e-10))
    assert found.status.ok
    assert found.log_likelihood == pytest.approx(LOGLIK, abs=1e-6)
    np.testing.assert_allclose(found.params.weights, BEST["weights"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.params.rates[:, 0], BEST["rates"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("where", BEGIN)
def test_deaths_need_so_many_passes_of_em(where):
    """To a step of EM below 1e-8 in (weight, rate, rate), Euclidean."""
    _, _, objective = deaths()
    weights, rates, expected = BEGIN[where]
    at = objective.point_of(objective.model.params(np.array(weights), np.array(rates)[:, None]))
    last = []

    def near(step):
        here = np.concatenate([x.ravel() for x in step.evaluation.point.params])[1:]
        last.append(here)
        return len(last) > 1 and np.linalg.norm(last[-1] - last[-2]) < 1e-8

    result = solve(objective, EM(), at, stop=Stop(gain=0, max_passes=5000), callback=near)
    assert result.status is Status.CALLBACK
    assert abs(result.passes - expected) <= 3
    assert np.all(np.diff(result.trace.value) >= -rounding(result.evaluation.scale))
    ratio = np.linalg.norm(last[-1] - last[-2]) / np.linalg.norm(last[-2] - last[-3])
    assert ratio == pytest.approx(0.995666, abs=2e-4)
