"""The model whose support depends on a parameter, and who refuses it."""

import numpy as np
import pytest
from scipy import stats

import emcore
from emcore import diagnostics
from emcore.data import Block, as_source
from emcore.kernels import Coupled, Mixture, Tallied, Uniform, run
from emcore.models import UniformMixture
from emcore.objective import ModelObjective

START = {"weights": [0.5, 0.5], "endpoint": [1.0]}


@pytest.fixture(scope="module")
def rows():
    return UniformMixture(3.0).sample({"weights": [0.5, 0.5], "endpoint": [1.2]}, 200, np.random.default_rng(0))[0]


@pytest.mark.parametrize("start", [0.6, 1.0, 1.5])
def test_em_freezes_in_one_step_at_the_largest_row_not_above_the_start(start, rows):
    ends = []
    found = emcore.fit(
        UniformMixture(3.0), rows, solver="em", start=START | {"endpoint": [start]},
        callback=lambda step: ends.append(step.evaluation.point.params.endpoint[0]),
    )  # fmt: skip
    assert found.status.ok
    assert set(ends[1:]) == {rows[rows <= start].max()}
    assert np.isnan(found.measures.gradient)
    assert "frozen: the support depends on endpoint" in str(found)
    assert np.all(np.diff(found.trace.value) >= 0)


@pytest.mark.parametrize("name", [name for name in emcore.solvers.names() if name not in ("em", "auto")])
def test_all_other_solvers_refuse_it(name, rows):
    with pytest.raises(emcore.SupportError, match=r"depends on endpoint.*boundary term.*order statistics"):
        emcore.fit(UniformMixture(3.0), rows, solver=name, start=START)


def test_auto_is_em_alone(rows):
    found, em = (emcore.fit(UniformMixture(3.0), rows, solver=name, start=START) for name in ("auto", "em"))
    np.testing.assert_array_equal(found.trace.value, em.trace.value)
    assert set(found.trace.event[1:]) == {"em"}


def test_rules_and_diagnostics_refuse_it(rows):
    with pytest.raises(emcore.SupportError, match="gtol"):
        emcore.fit(UniformMixture(3.0), rows, solver="em", start=START, stop=emcore.Stop(gtol=1e-6))
    objective = ModelObjective(UniformMixture(3.0), as_source(rows))
    at = objective.point_of(objective.model.from_user(START))
    with pytest.raises(emcore.SupportError, match="endpoint"):
        diagnostics.fisher(objective, at)


def test_statistics_about_one_endpoint_are_none_about_another(rows):
    objective = ModelObjective(UniformMixture(3.0), as_source(rows))
    points = (objective.point_of(objective.model.from_user(START | {"endpoint": [end]})) for end in (1.0, 1.5))
    one, other = map(objective.evaluate, points)
    same = objective.recentre(one.stats, one.stats.origin)
    np.testing.assert_array_equal(same.vector, one.stats.vector)
    with pytest.raises(emcore.SupportError, match="statistics about one endpoint are none about another"):
        objective.recentre(one.stats, other.stats.origin)


def test_with_its_endpoint_fixed_it_is_as_others(rows):
    fits = [
        emcore.fit(UniformMixture(3.0), rows, solver=name, start=START, fixed={"endpoint": True}) for name in ("em", "lbfgs")
    ]
    assert fits[1].value == pytest.approx(fits[0].value, abs=1e-9)
    assert "frozen" not in str(fits[0])


def test_a_row_that_loses_its_density_is_said(rows):
    objective = ModelObjective(UniformMixture(3.0), as_source(rows))
    point = objective.model.params(np.array([1.0, 0.0]), np.array([2.9999]))
    inside = objective.evaluate(objective.point_of(objective.model.params(np.array([0.5, 0.5]), np.array([1.0]))))
    assert inside.failure is None
    lost = objective.evaluate(objective.point_of(point._replace(endpoint=np.array([0.5]))))
    assert "the support of the model depends on" in lost.failure.detail


def test_no_gradient_is_handed_out(rows):
    objective = ModelObjective(UniformMixture(3.0), as_source(rows))
    e = objective.evaluate(objective.point_of(objective.model.from_user(START)))
    with pytest.raises(emcore.SupportError, match=r"Evaluation.gradient does not run on UniformMixture.*endpoint"):
        e.gradient
    with pytest.raises(emcore.SupportError, match=r"Evaluation.precondition does not run on UniformMixture.*endpoint"):
        e.precondition(np.ones(2))
    assert np.isfinite(objective.gradient(e.point, e.stats)).all()  # that of q, to who asks for it
    fixed = ModelObjective(UniformMixture(3.0), as_source(rows), fixed={"endpoint": True}, start=START)
    g = fixed.evaluate(fixed.point_of(fixed.model.from_user(START))).gradient
    assert g.shape == (1,)


def test_solvers_are_compared_on_it(rows):
    fits = emcore.compare(UniformMixture(3.0), rows, solvers=["em", "auto"], start=START).fits
    assert fits["em"].value == fits["auto"].value


# Against NumPy


def oracle(rows, weights, endpoint, upper=3.0):
    """Return log-density, responsibilities and what EM makes of them, of weighted rows."""
    w = np.ones(len(rows)) if weights is None else np.asarray(weights)
    x = rows[:, 0]

    def densities(share, end):
        return np.stack([share * (x <= end) / end, np.full(len(x), (1 - share) / upper)], axis=1)

    joint = densities(*endpoint)
    resp = joint / joint.sum(axis=1, keepdims=True)
    counts = w @ resp
    return np.log(joint.sum(axis=1)), resp, (counts[0] / counts.sum(), x[(x <= endpoint[1]) & (w > 0)].max())


@pytest.mark.parametrize("weighted", [False, True])
def test_em_is_that_of_numpy(weighted, rows):
    w = np.random.default_rng(1).choice([0.0, 0.5, 1.0, 2.0], size=len(rows)) if weighted else None
    objective = ModelObjective(UniformMixture(3.0), as_source(rows, w))
    at, e = (0.3, 1.4), None
    for _ in range(4):
        params = objective.model.params(np.array([at[0], 1 - at[0]]), np.array([at[1]]))
        e = objective.evaluate(objective.point_of(params))
        logp, resp, at = oracle(rows, w, at)
        weights = np.ones(len(rows)) if w is None else w
        assert e.value == pytest.approx(weights @ logp / weights.sum(), rel=1e-13)
        np.testing.assert_allclose(e.stats.vector[-2:], weights @ resp, rtol=1e-12)
        np.testing.assert_allclose(e.em_point.params.weights, [at[0], 1 - at[0]], rtol=1e-12)
        assert e.em_point.params.endpoint[0] == at[1]
        assert e.entropy == pytest.approx(
            -(weights @ np.sum(resp * np.log(np.where(resp > 0, resp, 1)), axis=1)) / weights.sum(), rel=1e-9
        )


def test_rows_are_tallied_by_endpoint():
    """More rows than a panel has, of which only is known which endpoints they are below; rows outside are found."""
    rng, n = np.random.default_rng(3), 9_001
    latent, emission = Mixture(np.log([0.2, 0.3, 0.5])), Uniform([2.0, 0.5, 1.0])
    X, w = rng.choice([0.0, 0.3, 0.5, 0.7, 1.0, np.nextafter(1.0, 2), 2.0], size=(n, 1)), rng.choice([0.0, 0.5, 3.0], size=n)
    X[w == 0] = 7.0
    found = []
    for kernel in (Tallied(latent, emission), Coupled(latent, emission)):
        stats = np.zeros(kernel.n_stats)
        sums = run(kernel, Block((X,), w), stats=stats)
        found.append([stats, sums.loglik, sums.scale, sums.weight])
        for wrong in (-0.1, np.nextafter(2.0, 3)):
            rows, weights = X.copy(), w.copy()
            rows[5000], weights[5000] = wrong, 1.0
            assert run(kernel, Block((rows,), weights), stats=np.zeros_like(stats)).bad_row == 5000
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_whole_weights_are_repeated_rows(rows):
    w = np.random.default_rng(2).integers(0, 4, size=len(rows))
    a = emcore.fit(UniformMixture(3.0), rows, start=START, sample_weight=w)
    b = emcore.fit(UniformMixture(3.0), np.repeat(rows, w, axis=0), start=START)
    assert a.value == pytest.approx(b.value, abs=1e-13)
    assert a.params.endpoint[0] == b.params.endpoint[0]
    np.testing.assert_allclose(a.params.weights, b.params.weights, rtol=1e-9)


def test_new_rows(rows):
    found = emcore.fit(UniformMixture(3.0), rows, start=START)
    end, share = found.params.endpoint[0], found.params.weights[0]
    new = np.array([[0.0], [0.2], [end], [np.nextafter(end, 3)], [2.9], [3.0]])
    logp, resp, _ = oracle(new, None, (share, end))
    np.testing.assert_allclose(found.log_density(new), logp, rtol=1e-13)
    np.testing.assert_allclose(found.responsibilities(new), resp, rtol=1e-12)
    np.testing.assert_array_equal(found.predict(new), resp.argmax(axis=1))
    with pytest.raises(ValueError, match="0 to upper"):
        found.log_density([[3.1]])
    with pytest.raises(emcore.SupportError):
        found.standard_errors()


def test_draws_have_the_law_of_the_model():
    X, of = UniformMixture(3.0).sample({"weights": [0.3, 0.7], "endpoint": [1.2]}, 20_000, np.random.default_rng(0))
    assert X.shape == (20_000, 1)
    assert np.mean(of == 0) == pytest.approx(0.3, abs=0.015)
    for c, end in enumerate((1.2, 3.0)):
        assert stats.kstest(X[of == c, 0], stats.uniform(0, end).cdf).pvalue > 1e-3
        assert X[of == c].max() <= end


def test_pieces_add_to_the_whole(rows):
    objective = ModelObjective(UniformMixture(3.0), as_source(rows, block_rows=37))
    at = objective.point_of(objective.model.from_user(START))
    whole, parts = objective.each(at, objective.pieces(5))
    together = objective.evaluate(at)
    assert whole.value == pytest.approx(together.value, rel=1e-13)
    np.testing.assert_allclose(sum(p.stats.vector for p in parts), together.stats.vector, rtol=1e-12)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        ([[1.0, 2.0]] * 3, "X must have one column, numbers from 0 to upper, got 2"), ([[1.0], [4.0]], "0 to upper"),
        ([[-1.0]] * 2, "0 to"),
    ],
)  # fmt: skip
def test_rows_outside_are_refused(X, match):
    with pytest.raises(ValueError, match=match):
        emcore.fit(UniformMixture(3.0), X, start=START)


def test_round_trip(rows, tmp_path):
    found = emcore.fit(UniformMixture(3.0), rows, solver="em", start=START)
    found.save(tmp_path / "a.npz")
    again = emcore.load(tmp_path / "a.npz")
    assert again.moving_support == ("endpoint",)
    np.testing.assert_array_equal(again.params.endpoint, found.params.endpoint)
