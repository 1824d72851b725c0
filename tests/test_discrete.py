"""Mixtures of zeros and ones, of symbols and of counts in cells, against the oracle and at their limits; the linkage model."""

import math
import re

import numpy as np
import pytest
from cases import BERNOULLI, CATEGORICAL, MULTINOMIAL, SMALL_PASS, in_force, threads_start
from laws import em_step_is_p_times_the_gradient
from reference import discrete as oracle
from scipy import stats

import emcore
from emcore import diagnostics
from emcore.data import Block, as_source, linkage
from emcore.kernels import Categorical, Coupled, ExponentialFamily, Given, Mixture, Tallied, run
from emcore.models import BernoulliMixture, CategoricalMixture, Linkage, MultinomialMixture
from emcore.objective import ModelObjective
from emcore.result import Status, Stop
from emcore.solve import solve
from emcore.solvers import EM

every_case = pytest.mark.parametrize("case", BERNOULLI + CATEGORICAL + MULTINOMIAL, ids=str)


def kind_of(case):
    return case.name.split("-")[0]


# The pass and its formulas against the oracle


@every_case
def test_pass_m_step_and_q_are_the_oracles(case):
    objective, kind, w = case.objective(), kind_of(case), case.w
    at, other = case.somewhere(objective), case.somewhere(objective, seed=1)
    resp, rows = oracle.posterior(kind, case.X, *at.params)
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-13)
    assert e.scale == pytest.approx(w @ np.abs(rows) / w.sum(), rel=1e-13)
    got = objective.model.score(at.params, e.stats)
    for x, y in zip(got, oracle.score(kind, case.X, w, *at.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11 * np.abs(y).max())
    for x, y in zip(e.em_point.params, oracle.m_step(kind, case.X, w, resp, at.params[1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)
    expected = oracle.m_step(kind, case.X, w, case.resp(objective.model.k), at.params[1])
    for x, y in zip(case.start(objective).params, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)
    for point in (at, other):
        expected = oracle.q(kind, case.X, w, resp, *point.params) / w.sum()
        assert objective.q(point, e.stats) == pytest.approx(expected, rel=1e-12)


@every_case
def test_em_is_exactly_the_gradient_times_p(case):
    objective = case.objective()
    em_step_is_p_times_the_gradient(objective, case.somewhere(objective), atol=1e-14)


@every_case
def test_densities_and_responsibilities_of_new_rows(case):
    found = emcore.fit(case.build(), case.X, sample_weight=case.weights, random_state=0, stop=Stop(gain=1e-6))
    rows = np.random.default_rng(0).permuted(case.X, axis=0)
    resp, logs = oracle.posterior(kind_of(case), rows, *found.params)
    np.testing.assert_allclose(found.log_density(rows), logs, rtol=1e-11)
    np.testing.assert_allclose(found.responsibilities(rows), resp, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(found.predict(rows), resp.argmax(axis=1))


@every_case
def test_passes_are_the_same_on_every_target_and_dtype(case, target):
    objective = case.objective()
    at = case.somewhere(objective)
    got = objective.evaluate(at)
    with in_force("baseline"):
        expected = objective.evaluate(at)
    np.testing.assert_allclose(got.stats.vector, expected.stats.vector, rtol=1e-12, atol=1e-13)
    for dtype in ("f4", "i8", "u1"):
        rows = np.asfortranarray(case.X.astype(dtype))
        other = ModelObjective(case.build(), as_source(rows, case.weights), n_threads=1)
        np.testing.assert_array_equal(other.evaluate(other.point_of(at.params)).stats.vector, got.stats.vector)


@every_case
def test_threads_change_no_bit(case):
    params = case.somewhere(case.objective()).params
    size = len(case.X) * case.objective().model.layout.size
    X = np.concatenate([case.X] * (SMALL_PASS // size + 1))
    found = []
    for threads in (1, 2, 3):
        objective = ModelObjective(case.build(), as_source(X), n_threads=threads)
        at = objective.point_of(params)
        assert threads_start(objective, at)
        e = objective.evaluate(at)
        found.append((e.value, e.stats.vector.tobytes()))
    assert found[0] == found[1] == found[2]


@every_case
@pytest.mark.parametrize("start", ["k-means++", "random-responsibilities"])
def test_starts_and_files(case, start, tmp_path):
    found = emcore.fit(case.build(), case.X, sample_weight=case.weights, start=start, random_state=0, stop=Stop(gain=1e-6))
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.log_density(case.X), found.log_density(case.X))
    np.testing.assert_array_equal(again.params.probabilities, found.params.probabilities)
    assert repr(again.model) == repr(found.model)
    assert again.model.warnings() == found.model.warnings()


# What rows may be

FACTORIES = {
    "BernoulliMixture": (BernoulliMixture, 2, "X must hold 0 or 1"),
    "CategoricalMixture": (CategoricalMixture, 1.5, "X must hold symbols, whole numbers from 0"),
    "MultinomialMixture": (MultinomialMixture, 0.5, "X must hold counts, whole numbers >= 0"),
}
every_kind = pytest.mark.parametrize("kind", FACTORIES)


@every_kind
@pytest.mark.parametrize("negative", [False, True])
def test_other_rows_are_refused_by_row_and_column(kind, negative):
    build, bad, allowed = FACTORIES[kind]
    bad = -1.0 if negative else bad
    good = np.random.default_rng(0).integers(2, size=(70, 3)).astype(float)
    X = good.copy()
    X[65, 2] = bad
    message = re.escape(allowed) + ".*" + re.escape(f": row 65, column 2 is {bad}")
    for block_rows in (None, 8):
        with pytest.raises(ValueError, match=message):
            build(2).bind(as_source(X, block_rows=block_rows))
    found = emcore.fit(build(1), good)
    for ask in (found.log_density, found.responsibilities, found.predict):
        with pytest.raises(ValueError, match=message):
            ask(X)
    w = np.ones(70)
    w[65] = 0.0
    assert emcore.fit(build(1), X, sample_weight=w).status.ok


@every_kind
@pytest.mark.parametrize("junk", [np.nan, np.inf, -1e300, 1.7e308, 0.5])
def test_rows_of_weight_zero_may_hold_anything(kind, junk):
    build = FACTORIES[kind][0]
    X = np.random.default_rng(0).integers(2, size=(100, 3)).astype(float)
    w = np.ones(100)
    w[[0, 51]] = 0.0
    found = []
    for rows in (X, np.where(w[:, None] == 0, junk, X)):
        objective = ModelObjective(build(2), as_source(rows, w), n_threads=1)
        start = np.random.default_rng(1).dirichlet(np.ones(2), size=100)
        e = objective.evaluate(objective.point_of(objective.model.start(as_source(X, w).block(0), start)))
        hvp = objective.hvp(e, np.ones(objective.size))
        found.append((e.value, e.stats.vector.tobytes(), hvp.tobytes()))
    assert found[0] == found[1]


def test_symbols_beyond_those_known_are_refused():
    X = np.array([[0, 2], [1, 0], [1, 1], [0, 2]])
    found = emcore.fit(CategoricalMixture(1), X)
    assert found.params.probabilities.shape == (1, 2, 3)
    assert found.params.probabilities[0, 0, 2] == 0
    with pytest.raises(ValueError, match=re.escape("of which each column has 2, 3: row 0, column 0 is 2")):
        found.log_density([[2, 0]])
    with pytest.raises(ValueError, match=re.escape("of which each column has 2, 2: row 0, column 1 is 2")):
        emcore.fit(CategoricalMixture(1, levels=2), X)
    with pytest.raises(ValueError, match="levels has 3 numbers, one a column, and X 2 columns"):
        emcore.fit(CategoricalMixture(1, levels=[2, 3, 4]), X)
    with pytest.raises(ValueError, match="at most 65536 a column: column 1 has 1000000000"):
        emcore.fit(CategoricalMixture(1), np.array([[0, 10**9]]))
    with pytest.raises(ValueError, match="at most 65536 a column: column 0 has 1" + 30 * "[0-9]"):
        emcore.fit(CategoricalMixture(1), np.array([[0.0], [1e30]]))
    with pytest.raises(TypeError, match="levels must be a whole number"):
        CategoricalMixture(1, levels=[2, 2.5])
    with pytest.warns(UserWarning, match="X does not hold symbol 3 in column 1: its probabilities are fitted as 0"):
        wide = emcore.fit(CategoricalMixture(1, levels=[2, 4]), X)
    assert wide.boundary == ("the probability of symbol 3 of column 1 in component 0 is 0",)


@pytest.mark.parametrize("m", [2, 4, 7])
def test_symbols_that_are_tallied_are_rows(target, m):
    """One column: its symbols with their weights are the rows, but where single rows are wanted or wrong."""
    rng, n = np.random.default_rng(m), 10_001
    rows = rng.integers(m, size=(n, 1)).astype(float)
    weights = rng.integers(3, size=n) * rng.uniform(size=n)
    rows[weights == 0] = np.nan
    weights[:3] = 0
    logs = np.log(rng.dirichlet(np.ones(m), size=(3, 1)))
    logs[1, 0, 0] = logs[2, 0, 0] = -np.inf
    emission, latent = Categorical(logs), Mixture(np.log([0.5, 0.2, 0.3]))
    block, found = Block((rows,), weights=weights), []
    for kernel in (Tallied(latent, emission), Coupled(latent, emission)):
        stats, row_loglik = np.zeros(kernel.n_stats), np.zeros(n)
        done = run(kernel, block, stats=stats, n_threads=1)
        run(kernel, block, row_loglik=row_loglik)
        found.append([stats, row_loglik, done.loglik, done.scale, done.weight])
        wrong, heavy = rows.copy(), weights.copy()
        wrong[9000], heavy[9000] = m, 1.0
        assert run(kernel, Block((wrong,), weights=heavy), stats=np.zeros_like(stats)).bad_row == 9000
        nowhere = type(kernel)(latent, Categorical(np.where(np.arange(m) == 1, -np.inf, logs)))
        first = np.flatnonzero((rows[:, 0] == 1) & (weights > 0))[0]
        assert run(nowhere, block, stats=np.zeros_like(stats)).bad_row == first
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    with pytest.raises(ValueError, match="emission must have one column, got 2"):
        Tallied(latent, Categorical(np.zeros((3, 2, 4))))
    with pytest.raises(ValueError, match="latent must be a Mixture"):
        Tallied(Given(np.ones((5, 3)) / 3), Categorical(np.zeros((3, 1, 4))))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8"])
@pytest.mark.parametrize("step", [1, 3, -2, 0])
def test_symbols_are_tallied_where_they_are(dtype, step):
    rng, n = np.random.default_rng(0), 9_001
    kernel = Tallied(Mixture(np.log([0.5, 0.5])), Categorical(np.log(rng.dirichlet(np.ones(5), size=(2, 1)))))
    rows, w = rng.integers(5, size=(n, 1)), rng.uniform(size=n)
    found = []
    there = np.zeros(n, dtype=[("a", "i1"), ("x", dtype)])["x"][:, None] if step == 0 else None  # not aligned
    there = np.zeros((abs(step) * n, 1), dtype=dtype)[::step] if there is None else there
    there[:] = rows
    assert there.strides[0] == (step * there.itemsize or there.itemsize + 1)
    for X in (rows, there):
        stats = np.zeros(kernel.n_stats)
        found.append([run(kernel, Block((X,), w), stats=stats), stats])
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("levels", [2, 16, 17])
def test_one_column_of_many_rows_is_the_oracles(levels):
    """More rows than a panel has, which are summed by symbol where these are few."""
    rng, n, kind = np.random.default_rng(levels), 200_001, "CategoricalMixture"
    X, w = rng.integers(levels, size=(n, 1)), rng.choice([0.0, 0.5, 1.0, 3.25], size=n)
    params = np.array([0.3, 0.7]), rng.dirichlet(np.ones(levels), size=(2, 1))
    found = []
    for threads in (1, 3):
        objective = ModelObjective(CategoricalMixture(2), as_source(X, w), n_threads=threads)
        at = objective.point_of(objective.model.params(*params))
        assert isinstance(objective.model.kernel(at.params), Tallied) == (levels <= 16)
        assert threads_start(objective, at)
        e = objective.evaluate(at)
        found.append((e.value, e.scale, e.stats.vector.tobytes()))
    assert found[0] == found[1]
    resp, rows = oracle.posterior(kind, X, *params)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-12)
    assert e.scale == pytest.approx(w @ np.abs(rows) / w.sum(), rel=1e-12)
    for x, y in zip(e.em_point.params, oracle.m_step(kind, X, w, resp, params[1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)
    for x, y in zip(objective.model.score(at.params, e.stats), oracle.score(kind, X, w, *params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11)
    assert objective.evaluate(e.em_point).value > e.value


def test_kernels_touch_nothing_outside_whatever_rows_hold():
    """Beyond what models let pass: a symbol that is none has no density, and adds nothing."""
    kernel = Categorical(np.log(np.full((5, 2, 3), 1 / 3)))
    rows = np.array([[0.0, 1.0], [1.0, 3.0], [-1.0, 0.0], [np.nan, 2.0], [2.0, 1e300], [2.0, 2.0]])
    logs = np.empty(6)
    run(Coupled(Mixture(np.log(np.full(5, 0.2))), kernel), Block((rows,)), row_loglik=logs)
    np.testing.assert_allclose(logs[[0, 5]], -2 * math.log(3))
    assert np.array_equal(logs[1:5], np.full(4, -np.inf))
    total = np.zeros(5 + kernel.n_stats)
    run(Coupled(Given(np.full((6, 5), 0.2)), kernel), Block((rows,)), stats=total)
    assert total[10:].sum() == pytest.approx(2 * 2)


def test_arrays_that_do_not_fit_are_refused():
    for message, call in {
        "offsets must have shape (2,)": lambda: ExponentialFamily(np.zeros(3), np.zeros((2, 2)), "none"),
        "only must have shape (2, 2)": lambda: ExponentialFamily(np.zeros(2), np.zeros((2, 2)), "none", np.zeros((1, 2))),
        "tangents must have shapes (m, 2)": lambda: ExponentialFamily(
            np.zeros(2), np.zeros((2, 2)), "none", tangents=(np.zeros((1, 2)), np.zeros((2, 2, 2)))
        ),
        "at most 2147483647 symbols in all columns, got 65536 x 32768": lambda: Categorical(
            np.broadcast_to(0.0, (1, 1 << 16, 1 << 15))
        ),
        "tangents must have shape (v, 2, 2, 2)": lambda: Categorical(np.zeros((2, 2, 2)), np.zeros((1, 2, 2, 3))),
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


# Limits


@pytest.mark.parametrize("solver", ["em", "lbfgs"])
def test_columns_of_zeros_and_of_ones_in_a_component_are_boundaries(solver):
    rng = np.random.default_rng(3)
    half = np.repeat([0, 1], 60)
    X = np.column_stack([half, 1 - half, *(rng.random(120) < 0.3 + 0.4 * half for _ in range(4))]).astype(int)
    start = {"weights": [0.5, 0.5], "probabilities": np.clip([[0, 1] + [0.3] * 4, [1, 0] + [0.7] * 4], 0.05, 0.95)}
    found = emcore.fit(BernoulliMixture(2), X, start=start, solver=solver)
    assert found.status is Status.BOUNDARY
    assert {"the probability of component 0 in column 1 is 1", "the probability of component 1 in column 1 is 0"} <= set(
        found.boundary
    )
    logs = oracle.posterior("BernoulliMixture", X, *found.params)[1]
    assert found.log_likelihood == pytest.approx(logs.sum(), rel=1e-12)
    np.testing.assert_allclose(found.responsibilities(X)[:, 1], half, rtol=0, atol=1e-9)


def test_at_a_limit_other_values_have_no_density():
    p = np.array([[0.0, 1.0, 0.3], [1.0, 0.0, 0.7]])
    X = np.array([[0, 1, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    objective = ModelObjective(BernoulliMixture(2), as_source(X[:3]), n_threads=1)
    at = objective.point_of(objective.model.params(np.array([0.5, 0.5]), p))
    e = objective.evaluate(at)
    assert e.value == pytest.approx(oracle.posterior("BernoulliMixture", X[:3], at.params.weights, p)[1].mean(), rel=1e-14)
    assert np.isfinite(e.gradient).all()
    np.testing.assert_array_equal(e.em_point.params.probabilities, [[0, 1, 0.5], [1, 0, 0]])
    e = ModelObjective(BernoulliMixture(2), as_source(X), n_threads=1).evaluate(at)
    assert (e.value, e.failure.where) == (-math.inf, "row 3")


def test_a_zero_among_a_million_million_ones_is_counted():
    """Sums are about the nearer of 0 and 1."""
    X, w = np.array([[1], [0]]), np.array([1e15, 1.0])
    found = emcore.fit(BernoulliMixture(1), X, sample_weight=w, start={"weights": [1.0], "probabilities": [[0.9]]})
    e = found.evaluation
    model = e.objective.model
    assert model.emission._moments(model._raw_stats(e.stats)[1])[2][0, 0] == 1.0
    assert 1.0 - found.params.probabilities[0, 0] == pytest.approx(1e-15, rel=0.12)  # to the last bit of 1


@every_kind
def test_what_does_not_occur_has_probability_zero(kind):
    X = np.column_stack([np.random.default_rng(0).integers(2, size=(60, 3)), np.zeros(60, dtype=int)])
    if kind == "CategoricalMixture":
        X[:, 3] = 2 * X[:, 0]  # symbol 1 is missing
    with pytest.warns(UserWarning, match="fitted as 0"):
        found = emcore.fit(FACTORIES[kind][0](2), X, solver="em", random_state=0, stop=Stop(gain=1e-4))
    missing = found.params.probabilities[:, 3, 1] if kind == "CategoricalMixture" else found.params.probabilities[:, 3]
    assert not missing.any()
    assert found.status is Status.BOUNDARY
    assert np.isfinite(found.log_density(X)).all()


def test_totals_of_multinomial_rows_say_nothing():
    rng = np.random.default_rng(0)
    X = rng.multinomial(rng.integers(0, 300, size=80), [0.2, 0.3, 0.5])
    found = emcore.fit(MultinomialMixture(1), X)
    expected = stats.multinomial(X.sum(axis=1), X.sum(axis=0) / X.sum()).logpmf(X)
    np.testing.assert_allclose(found.log_density(X), expected, rtol=1e-11, atol=1e-11)
    assert found.log_density([[0, 0, 0]])[0] == 0.0


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([[0.5, -0.5, 1.0]] * 2, "start: probabilities must be >= 0, that of component 0 at [1] is -0.5"),
        ([[0.5, 0.5, 0.0], [0.5, 0.5, 0.1]], "start: probabilities must sum to 1, those of component 1 sum to 1.1"),
        ([[0.5, 0.5]] * 2, "start: probabilities must have shape (2, 3), got (2, 2)"),
    ],
)
def test_bad_probabilities_are_refused(probabilities, message):
    X = np.random.default_rng(0).integers(5, size=(20, 3))
    with pytest.raises(ValueError, match=re.escape(message)):
        emcore.fit(MultinomialMixture(2), X, start={"weights": [0.5, 0.5], "probabilities": probabilities})


def test_bad_probabilities_of_symbols_and_of_ones_are_refused():
    X = np.array([[0, 2], [1, 0], [1, 1], [0, 2]])
    p = np.array([[[0.5, 0.4, 0.1], [0.2, 0.3, 0.5]]])
    with pytest.raises(ValueError, match="where a column has no such symbol: that of component 0, column 0, symbol 2"):
        emcore.fit(CategoricalMixture(1), X, start={"weights": [1.0], "probabilities": p})
    with pytest.raises(ValueError, match=r"from 0 to 1, that of component 0 in column 1 is 1\.5"):
        emcore.fit(BernoulliMixture(1), X % 2, start={"weights": [1.0], "probabilities": [[0.5, 1.5]]})


# The linkage of Dempster, Laird and Rubin (1977)


def linked(**options):
    cells, animals = linkage()
    return ModelObjective(Linkage(), as_source(cells, animals), n_threads=1, **options)


def test_linkage_is_the_textbooks():
    objective = linked()
    e = objective.evaluate(objective.point_of(objective.model.params(np.array([0.5]))))
    path = []
    for _ in range(4):
        e = objective.evaluate(e.em_point)
        path.append(e.point.params.theta[0])
    np.testing.assert_allclose(path, [0.608247, 0.624321, 0.626489, 0.626777], rtol=0, atol=6e-7)
    result = solve(objective, EM(), e.point, stop=Stop(gain=0, gtol=1e-13))
    theta = result.point.params.theta[0]
    assert theta == pytest.approx(0.6268214980, abs=1e-9)
    p = np.array([0.5 + theta / 4, (1 - theta) / 4, (1 - theta) / 4, theta / 4])
    assert result.value * 197 == pytest.approx(linkage()[1] @ np.log(p), rel=1e-13)


def test_linkage_information_and_rate():
    cells, animals = linkage()
    found = emcore.fit(
        Linkage(), cells, sample_weight=animals, start={"theta": 0.5}, coordinates="original", stop=Stop(gain=0, gtol=1e-13)
    )
    information = diagnostics.information(found)
    assert information.observed[0, 0] == pytest.approx(377.517, abs=1e-3)
    assert information.complete[0, 0] == pytest.approx(435.318, abs=1e-3)
    assert information.fractions[0] == pytest.approx(0.132779, abs=1e-6)
    assert found.standard_errors().theta[0] == pytest.approx(0.05147, abs=1e-5)
    assert diagnostics.rate(found.evaluation.objective, found.point).rate == pytest.approx(0.132779, abs=1e-5)


def test_linkage_refuses_other_rows_and_other_values():
    for X, message in (
        ([[4], [0]], r"X must hold cells 0, 1, 2 or 3 \(.*\): row 0, column 0 is 4"),
        ([[125], [18], [20], [34]], r"is its sample_weight, as in emcore\.data\.linkage\(\)\): row 0, column 0 is 125"),
        ([[0, 1]] * 3, "X must have one column, the cell of each row"),
        (
            [[125, 18, 20, 34]],
            r"one column, the cell of each row, 0 to 3, and sample_weight .* as in emcore\.data\.linkage\(\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            emcore.fit(Linkage(), X)
    cells, animals = linkage()
    with pytest.raises(ValueError, match=r"start: theta must be from 0 to 1, got 1\.5"):
        emcore.fit(Linkage(), cells, sample_weight=animals, start={"theta": 1.5})
    only = emcore.fit(Linkage(), [[0], [3]], random_state=0)
    assert only.boundary == ("theta is 1",)
