"""What a user meets: fit, starts, bad input, prediction, files."""

import json
import os
import pickle
import re
import warnings

import numpy as np
import pytest
from cases import CONVERGING, CRAWLING, SOLVERS
from scipy.stats import multivariate_normal

import emcore
from emcore.models import COVARIANCES, GaussianMixture, NormalInverseWishart
from emcore.starts import STARTS

GIVEN = {
    "weights": np.array([0.3, 0.7]),
    "means": np.array([[2.1, 54.3], [4.2, 80.1]]),
    "covariances": np.array([[[0.1, 0.3], [0.3, 30.1]], [[0.2, 0.9], [0.9, 33.3]]]),
}
ONE_SHAPE = {"full": GIVEN["covariances"], "tied": GIVEN["covariances"][0], "diag": np.array([[0.1, 30.0], [0.2, 33.0]]),
             "spherical": np.array([17.3, 16.1])}  # fmt: skip
TABLE = {
    "full": (-1130.26396, 0.35587, [[2.03639, 54.47852], [4.28966, 79.96812]]),
    "tied": (-1140.1868, None, None),
    "diag": (-1147.8064, None, None),
}


@pytest.fixture(scope="module")
def X():
    return emcore.data.faithful()


def given(covariance):
    return {**GIVEN, "covariances": ONE_SHAPE[covariance]}


def by_weight(params):
    return params.weights.argsort()


@pytest.mark.parametrize("covariance", TABLE)
@pytest.mark.parametrize("solver", CONVERGING)
def test_old_faithful(X, solver, covariance):
    result = emcore.fit(GaussianMixture(2, covariance), X, solver=solver, random_state=0)
    log_likelihood, weight, means = TABLE[covariance]
    assert result.status.ok
    assert result.log_likelihood == pytest.approx(log_likelihood, rel=1e-6)
    assert result.value == pytest.approx(result.log_likelihood / 272, rel=1e-14)
    if means is not None:
        order = by_weight(result.params)
        np.testing.assert_allclose(result.params.weights[order], [weight, 1 - weight], rtol=1.5e-5)  # the table has 5 digits
        np.testing.assert_allclose(result.params.means[order], means, rtol=3e-6)
    best = emcore.fit(GaussianMixture(2, covariance), X, random_state=0, stop=emcore.Stop(gain=1e-16))
    np.testing.assert_allclose(result.log_likelihood, best.log_likelihood, rtol=1e-12)
    a, b = by_weight(result.params), by_weight(best.params)
    # A gain of 1e-12 leaves errors of the order of 1e-6 standard deviations, divided by one minus the rate.
    rtol = 1e-6 if covariance == "full" and solver not in CRAWLING else 5e-6
    np.testing.assert_allclose(result.params.weights[a], best.params.weights[b], rtol=rtol)
    np.testing.assert_allclose(result.params.means[a], best.params.means[b], rtol=1e-6)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_given_parameters_come_back_unchanged_at_zero_steps(X, covariance):
    start = given(covariance)
    with pytest.warns(emcore.ConvergenceWarning):
        result = emcore.fit(GaussianMixture(2, covariance), X, start=start, stop=emcore.Stop(max_passes=1))
    assert result.steps == 0
    assert result.passes == 1
    for name, array in start.items():
        assert np.array_equal(getattr(result.params, name), array)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_density_and_responsibilities(X, covariance):
    result = emcore.fit(GaussianMixture(2, covariance), X, random_state=0)
    weights, means, covariances = result.params
    full = {"full": lambda c: covariances[c], "tied": lambda c: covariances, "diag": lambda c: np.diag(covariances[c]),
            "spherical": lambda c: covariances[c] * np.eye(2)}[covariance]  # fmt: skip
    logp = np.stack([multivariate_normal(means[c], full(c)).logpdf(X) + np.log(weights[c]) for c in range(2)], axis=1)
    expected = np.logaddexp(*logp.T)
    np.testing.assert_allclose(result.log_density(X), expected, rtol=1e-12)
    np.testing.assert_allclose(result.log_density(X).sum(), result.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(result.responsibilities(X), np.exp(logp - expected[:, None]), atol=1e-12)
    assert np.array_equal(result.predict(X), logp.argmax(axis=1))
    assert result.predict(X[:1]).shape == (1,)


def test_prediction_in_blocks(X):
    result = emcore.fit(GaussianMixture(2), X, random_state=0)
    whole = result.responsibilities(X), result.predict(X), result.log_density(X)
    source = emcore.data.as_source(X, block_rows=100)
    for a, b in zip(whole, (result.responsibilities(source), result.predict(source), result.log_density(source)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_far_rows(X):
    result = emcore.fit(GaussianMixture(2), X, random_state=0)
    far = np.vstack([X[:5], [[1e200, 0.0]], X[:5]])
    density = result.log_density(far)
    assert density[5] == -np.inf
    np.testing.assert_array_equal(density[6:], density[:5])
    with pytest.raises(ValueError, match="row 5 is zero"):
        result.responsibilities(far)
    with pytest.raises(ValueError, match="row 5 is zero"):
        result.predict(far)
    with pytest.raises(ValueError, match="must have 2 columns"):
        result.predict(X[:, :1])


# Starts


def test_relabelling_leaves_a_common_covariance_alone(X):
    # As many components as columns: the rows of the matrix are not those of the components.
    a = emcore.fit(GaussianMixture(2, "tied"), X, start=given("tied"))
    flipped = given("tied") | {name: GIVEN[name][::-1] for name in ("weights", "means")}
    b = emcore.fit(GaussianMixture(2, "tied"), X, start=flipped)
    assert a.model.distance(a.point.params, b.point.params) < 1e-5


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_starts(start, dtype):
    rng = np.random.default_rng(0)
    X = (np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])[rng.integers(3, size=300)] + 10 * rng.normal(size=(300, 2))).astype(
        dtype
    )
    result = emcore.fit(GaussianMixture(3), X, start=start, random_state=1, n_starts=4)
    again = emcore.fit(GaussianMixture(3), X, start=start, random_state=1, n_starts=4)
    assert [s.value for s in result.starts] == [s.value for s in again.starts]
    assert result.status.ok
    np.testing.assert_allclose(np.sort(result.params.weights), 1 / 3, atol=0.1)


def test_start_does_not_depend_on_units():
    rng = np.random.default_rng(5)
    X = np.concatenate([rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + [0, 8]])
    scale = np.array([2.0**20, 2.0**-20])
    a = emcore.fit(GaussianMixture(2), X, random_state=3)
    b = emcore.fit(GaussianMixture(2), X * scale, random_state=3)
    assert a.passes == b.passes
    np.testing.assert_allclose(b.params.means / scale, a.params.means, rtol=1e-9)


def test_several_starts_are_all_kept(X):
    result = emcore.fit(GaussianMixture(4), X, n_starts=6, random_state=0)
    assert len(result.starts) == 6
    assert result.value == max(s.value for s in result.starts)
    reached = sum(s.best for s in result.starts)
    assert reached >= 1
    assert f"{reached} of 6 starts reached this optimum" in str(result)
    one = emcore.fit(GaussianMixture(4), X, n_starts=1, random_state=0)
    assert one.value == result.starts[0].value


def test_starts_that_end_at_the_floor_are_named():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(60, 1)), np.full((4, 1), 9.0)])
    result = emcore.fit(GaussianMixture(2), X, n_starts=3, random_state=0)
    assert any(s.boundary for s in result.starts)
    assert "at its floor" in str(result)
    assert result.status is emcore.Status.BOUNDARY


def test_same_optimum_up_to_relabelling(X):
    a = emcore.fit(GaussianMixture(2), X, start=GIVEN)
    flipped = {name: array[::-1] for name, array in GIVEN.items()}
    b = emcore.fit(GaussianMixture(2), X, start=flipped)
    from emcore.fit import same_optimum

    assert same_optimum(a, b)
    c = emcore.fit(GaussianMixture(2), X, start=GIVEN, solver=emcore.solvers.EM(), stop=emcore.Stop(gain=1e-1))
    assert not same_optimum(a, c)


def test_start_without_sklearn(X, monkeypatch):
    monkeypatch.setattr("emcore.starts.find_spec", lambda name: None)
    assert "random-points" in emcore.fit(GaussianMixture(2), X, random_state=0).start
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"emcore\[sklearn\]"):
        emcore.fit(GaussianMixture(2), X, start="k-means")


def test_fewer_distinct_rows_than_components():
    X = np.repeat([[0.0, 1.0], [5.0, 2.0]], 20, axis=0)
    for start in STARTS:
        result = emcore.fit(GaussianMixture(3), X, start=start, random_state=0)
        assert np.isfinite(result.value)
        assert all(np.isfinite(a).all() for a in result.params)


# Bad input: (what is passed, which error, what it says)

BAD = [
    ({"X": np.ones(5)}, ValueError, r"two dimensions.*reshape"),
    ({"X": np.ones((0, 2))}, ValueError, "empty"),
    ({"X": np.ones((1, 2))}, ValueError, "fewer than the 2 components"),
    ({"X": [["a", "b"]]}, TypeError, "numeric"),
    ({"X": np.array([[1.0, 2.0], [3.0, np.nan]])}, ValueError, "row 1, column 1"),
    ({"X": np.array([[1.0, -np.inf], [3.0, 4.0]])}, ValueError, "row 0, column 1"),
    ({"model": "gmm"}, TypeError, "must be a Model"),
    ({"solver": "newt"}, ValueError, "must be one of 'em', 'gradient', "),
    ({"solver": 3}, TypeError, "solver"),
    ({"start": "kmeans"}, ValueError, r"k-means\+\+"),
    ({"start": 7}, TypeError, "start"),
    ({"start": GIVEN, "n_starts": 2}, ValueError, "n_starts must be 1"),
    ({"n_starts": 0}, ValueError, "n_starts"),
    ({"n_starts": 1.5}, TypeError, "n_starts"),
    ({"n_threads": 0}, ValueError, "n_threads"),
    ({"n_threads": True}, TypeError, "n_threads"),
    ({"callback": 3}, TypeError, "callback"),
    ({"random_state": "a"}, TypeError, "random_state"),
    ({"random_state": True}, TypeError, "random_state"),
    ({"random_state": -1}, ValueError, "random_state"),
    ({"coordinates": "polar"}, ValueError, "'free' or 'original'"),
    ({"stop": 1e-3}, TypeError, "Stop"),
    ({"fixed": {"means": True}}, ValueError, "fixed"),
    ({"sample_weight": np.ones(3)}, ValueError, r"shape \(272,\)"),
    ({"sample_weight": -np.ones(272)}, ValueError, ">= 0: that of row 0"),
    ({"sample_weight": np.zeros(272)}, ValueError, "all zero"),
    ({"sample_weight": np.r_[1.0, np.zeros(271)]}, ValueError, "1 rows of positive weight"),
    ({"sample_weight": np.r_[np.nan, np.ones(271)]}, ValueError, "row 0 is nan"),
    ({"start": {"weights": [0.5, 0.5]}}, ValueError, "missing or unknown: covariances, means"),
    ({"start": GIVEN | {"extra": 1}}, ValueError, "missing or unknown: extra"),
    ({"start": GIVEN | {"weights": [0.5, 0.6]}}, ValueError, "sum to 1"),
    ({"start": GIVEN | {"weights": [-0.5, 1.5]}}, ValueError, "component 0 is -0.5"),
    ({"start": GIVEN | {"means": np.ones((2, 3))}}, ValueError, r"means must have shape \(2, 2\)"),
    ({"start": GIVEN | {"means": [[1, np.nan], [2, 3]]}}, ValueError, "means must be finite"),
    ({"start": GIVEN | {"means": "x"}}, ValueError, "not an array of numbers"),
    ({"start": GIVEN | {"covariances": -GIVEN["covariances"]}}, ValueError, "positive definite"),
    ({"start": GIVEN | {"covariances": [[[1, 2], [3, 9]], [[1, 0], [0, 1]]]}}, ValueError, "symmetric"),
    ({"start": GIVEN | {"covariances": np.ones((2, 2))}}, ValueError, "covariance='full'"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD, ids=[f"{next(iter(c))}-{i}" for i, (c, _, _) in enumerate(BAD)])
def test_bad_input(X, change, error, text):
    arguments = {"model": GaussianMixture(2), "X": X} | change
    with pytest.raises(error, match=text):
        emcore.fit(**arguments)


# Trouble


def spike(covariance):
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(100, 2)), np.full((3, 2), 5.0)])
    shape = {"full": [np.eye(2)] * 2, "diag": np.ones((2, 2)), "spherical": np.ones(2)}[covariance]
    return X, {"weights": [0.9, 0.1], "means": [[0, 0], [5, 5]], "covariances": shape}


@pytest.mark.parametrize("covariance", ["full", "diag", "spherical"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_collapse_is_a_status_with_the_last_good_point(solver, covariance):
    X, start = spike(covariance)
    with pytest.warns(emcore.ConvergenceWarning, match="component 1"):
        result = emcore.fit(GaussianMixture(2, covariance, reg=0), X, solver=solver, start=start)
    assert result.status is emcore.Status.COLLAPSED
    assert result.failure.where == "component 1"
    assert result.failure.step == result.steps + 1
    assert np.isfinite(result.value)
    assert all(np.isfinite(a).all() for a in result.params)
    assert result.value >= result.trace.value[0]
    assert np.isfinite(result.log_density(X)).all()


@pytest.mark.parametrize("covariance", ["full", "diag", "spherical"])
@pytest.mark.parametrize("solver", [s for s in CONVERGING if s not in (*CRAWLING, "lange")])  # they crawl along the floor
def test_floor_is_reached_and_named(solver, covariance):
    X, start = spike(covariance)
    result = emcore.fit(GaussianMixture(2, covariance), X, solver=solver, start=start)
    assert result.status is emcore.Status.BOUNDARY
    assert result.boundary == ("the covariance of component 1 is at its floor",)
    best = emcore.fit(GaussianMixture(2, covariance), X, start=start)
    assert result.value == pytest.approx(best.value, abs=1e-9)


def test_constant_column_is_fitted_at_the_floor_with_a_warning(X):
    Z = np.c_[X[:, 0], np.full(272, 7.0), X[:, 1]]
    with pytest.warns(UserWarning, match="constant in column 1"):
        result = emcore.fit(GaussianMixture(2), Z, random_state=0)
    assert result.status is emcore.Status.BOUNDARY
    np.testing.assert_allclose(result.params.means[:, 1], 7.0)


def test_no_warning_when_all_is_well(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        emcore.fit(GaussianMixture(2), X, random_state=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_interrupt_returns_what_was_reached(X, solver):
    def interrupt(step):
        if step.row.step == 2:
            raise KeyboardInterrupt

    result = emcore.fit(GaussianMixture(3), X, solver=solver, random_state=0, callback=interrupt, n_starts=5)
    assert result.status is emcore.Status.INTERRUPTED
    assert result.steps == 2
    assert len(result.starts) == 1
    assert result.value > result.trace.value[0]


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("solver", CONVERGING)
def test_with_no_rule_a_climb_goes_on_at_the_top_unharmed(X, solver, covariance):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", emcore.ConvergenceWarning)
        stop = emcore.Stop(gain=0, max_passes=300)
        result = emcore.fit(GaussianMixture(2, covariance), X, solver=solver, stop=stop, random_state=0)
    assert result.status in (emcore.Status.MAX_PASSES, emcore.Status.ROUNDING)
    assert result.value == pytest.approx(emcore.fit(GaussianMixture(2, covariance), X, random_state=0).value, abs=1e-8)


def test_a_budget_too_short_for_anything_still_evaluates_the_start(X):
    with pytest.warns(emcore.ConvergenceWarning, match="seconds"):
        result = emcore.fit(GaussianMixture(2), X, stop=emcore.Stop(max_seconds=1e-9))
    assert result.passes == 1
    assert np.isfinite(result.value)


# Weights


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_weights_are_repetitions(X, covariance):
    rng = np.random.default_rng(2)
    w = rng.integers(0, 4, size=272)
    weighted = emcore.fit(GaussianMixture(2, covariance), X, sample_weight=w, start=given(covariance))
    # the frame is the same, so that theta can be compared
    repeated = emcore.fit(GaussianMixture(2, covariance), np.repeat(X, w, axis=0), start=given(covariance))
    assert weighted.weight == w.sum()
    assert weighted.steps == repeated.steps
    np.testing.assert_allclose(weighted.log_likelihood, repeated.log_likelihood, rtol=1e-12)
    for a, b in zip(weighted.params, repeated.params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("what", [1e6, 1e300, np.nan, np.inf])
def test_rows_of_weight_zero_change_nothing(X, start, what):
    noise = np.full((30, 2), what)
    w = np.r_[np.ones(272), np.zeros(30)]
    a = emcore.fit(GaussianMixture(2), X, start=start, random_state=0)
    b = emcore.fit(GaussianMixture(2), np.vstack([X, noise]), sample_weight=w, start=start, random_state=0)
    np.testing.assert_allclose(a.value, b.value, rtol=1e-10)


# Files


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_save_and_load(X, tmp_path, covariance):
    result = emcore.fit(GaussianMixture(2, covariance), X, random_state=0, solver="lbfgs")
    result.save(tmp_path / "fit")
    assert sorted(os.listdir(tmp_path)) == ["fit.npz"]
    back = emcore.load(tmp_path / "fit.npz")
    assert str(back) == str(result)
    assert np.array_equal(back.theta, result.theta)
    assert back.status is result.status
    assert back.log_likelihood == result.log_likelihood
    assert back.trace.array.tobytes() == result.trace.array.tobytes()
    for a, b in zip(back.params, result.params, strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(back.log_density(X), result.log_density(X))
    assert np.array_equal(back.predict(X), result.predict(X))
    with np.load(tmp_path / "fit.npz", allow_pickle=False) as file:
        assert json.loads(str(file["meta"]))["model"] == "GaussianMixture"
        assert file["params.means"].shape == (2, 2)
    again = emcore.fit(back.model, X, start=back.params)
    assert again.value == pytest.approx(result.value, abs=1e-11)


def test_save_failures_keep_their_story(tmp_path):
    X, start = spike("full")
    with pytest.warns(emcore.ConvergenceWarning):
        result = emcore.fit(GaussianMixture(2, reg=0), X, start=start)
    result.save(tmp_path / "fit.npz")
    assert emcore.load(tmp_path / "fit.npz").failure == result.failure


def test_load_refuses_other_files(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="not a saved fit"):
        emcore.load(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="not a saved fit"):
        emcore.load(tmp_path / "text.npz")
    with pytest.raises(OSError, match="No such file"):
        emcore.load(tmp_path / "none.npz")


def test_load_refuses_files_of_another_version(X, tmp_path):
    prior = NormalInverseWishart(X.mean(axis=0), 1.0, 5.0, np.eye(2))
    emcore.fit(GaussianMixture(2, prior=prior), X, random_state=0, stop=emcore.Stop(gain=1e-3)).save(tmp_path / "fit.npz")
    with np.load(tmp_path / "fit.npz") as file:
        whole = dict(file)

    def written(**changes):
        np.savez(tmp_path / "other.npz", **{name: a for name, a in (whole | changes).items() if a is not None})
        return tmp_path / "other.npz"

    emcore.load(written())
    meta = str(whole["meta"])
    for changes, why in (
        ({"meta": np.array(re.sub(r"emcore fit \d+", "emcore fit 1", meta))}, "its format is 'emcore fit 1'"),
        ({"meta": np.array(meta.replace("NormalInverseWishart", "Unheard"))}, "Unheard"),
        ({"meta": np.array(meta.replace("weight", "wait"))}, "it has no 'weight'"),
        ({"theta": None}, "it has no 'theta'"),
        ({"bound.shift": None}, "it has no 'shift'"),
        ({"params.means": None}, "means"),
        ({"stop": np.ones(40)}, "argument"),
    ):
        with pytest.raises(ValueError, match=f"is not a saved fit of this version: .*{why}"):
            emcore.load(written(**changes))
    with pytest.raises(ValueError, match="holds a fit of 'Unheard', which is no model of emcore's"):
        emcore.load(written(meta=np.array(meta.replace("GaussianMixture", "Unheard"))))
    emcore.load(written(), model=GaussianMixture(2, prior=prior))
    with pytest.raises(ValueError, match=r"model: .* a fit of GaussianMixture with the options .*, got GaussianMixture"):
        emcore.load(written(), model=GaussianMixture(3, prior=prior))


def test_load_does_not_blame_the_file_for_a_bad_number_of_threads(X, tmp_path, monkeypatch):
    emcore.fit(GaussianMixture(2), X, random_state=0, stop=emcore.Stop(gain=1e-3)).save(tmp_path / "fit.npz")
    monkeypatch.setenv("EMCORE_NUM_THREADS", "many")
    with pytest.raises(ValueError, match=r"^EMCORE_NUM_THREADS must be a whole number >= 1, got 'many'$"):
        emcore.load(tmp_path / "fit.npz")


def test_save_into_a_missing_folder_leaves_nothing(X, tmp_path):
    result = emcore.fit(GaussianMixture(2), X, random_state=0)
    with pytest.raises(ValueError, match="does not exist"):
        result.save(tmp_path / "missing" / "fit.npz")
    assert os.listdir(tmp_path) == []


# Trouble that loses nothing


class Interrupting:
    """Raises KeyboardInterrupt at one evaluation of an objective."""

    def __init__(self, monkeypatch, at):
        evaluate, self.count = emcore.objective.ModelObjective.evaluate, 0

        def counted(objective, *args, **kwargs):
            self.count += 1
            if self.count == at:
                raise KeyboardInterrupt
            return evaluate(objective, *args, **kwargs)

        monkeypatch.setattr(emcore.objective.ModelObjective, "evaluate", counted)


@pytest.mark.parametrize("at", [2, 11, 12, 21])
def test_an_interrupt_in_any_start_keeps_the_climbs_before(X, monkeypatch, at):
    whole = emcore.fit(GaussianMixture(2), X, start="k-means", random_state=0, n_starts=3)
    Interrupting(monkeypatch, at)
    result = emcore.fit(GaussianMixture(2), X, start="k-means", random_state=0, n_starts=3)
    assert result.status is emcore.Status.INTERRUPTED
    ends = np.cumsum([0, *(s.passes for s in whole.starts)])
    climbs = np.searchsorted(ends, at)  # begun; interrupted at its first pass one has reached nothing
    assert len(result.starts) == climbs - (at == ends[climbs - 1] + 1)
    assert [s.how for s in result.starts] == [s.how for s in whole.starts[: len(result.starts)]]
    assert result.value == max(s.value for s in result.starts)


def test_an_interrupt_before_anything_is_reached_passes_through(X, monkeypatch):
    Interrupting(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        emcore.fit(GaussianMixture(2), X, random_state=0)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200])
def test_the_size_of_the_weights_does_not_matter(X, scale):
    a = emcore.fit(GaussianMixture(2), X, start=GIVEN)
    b = emcore.fit(GaussianMixture(2), X, start=GIVEN, sample_weight=np.full(272, scale))
    assert b.status.ok
    assert b.value == pytest.approx(a.value, rel=1e-12)


def test_a_start_symmetric_to_rounding_is_taken(X):
    S = np.linalg.inv(np.array([[2.0, 0.3], [0.3, 0.05]]))
    S[0, 1] *= 1 + 1e-15
    covariances = np.stack([S, S])
    assert covariances[0, 0, 1] != covariances[0, 1, 0]
    assert emcore.fit(GaussianMixture(2), X, start=GIVEN | {"covariances": covariances}).status.ok


@pytest.mark.parametrize("solver", CONVERGING)
def test_original_coordinates_climb_inside_and_refuse_a_start_on_the_boundary(X, solver):
    result = emcore.fit(GaussianMixture(2), X, start=GIVEN, solver=solver, coordinates="original")
    assert result.status.ok
    assert result.log_likelihood == pytest.approx(TABLE["full"][0], rel=1e-6)
    with pytest.raises(ValueError, match="weights must lie inside"):
        emcore.fit(GaussianMixture(2), X, start=GIVEN | {"weights": [1, 0]}, solver=solver, coordinates="original")
    flat = np.c_[X, np.full(272, 7.0)]
    with pytest.warns(UserWarning, match="constant"), pytest.raises(ValueError, match="covariances must lie inside"):
        emcore.fit(GaussianMixture(2), flat, solver=solver, coordinates="original", random_state=0)


def test_infeasible_coordinates_have_no_value(X):
    objective = emcore.objective.ModelObjective(GaussianMixture(2), emcore.data.as_source(X), coordinates="original")
    at = objective.point_of(objective.model.from_user(GIVEN))
    assert np.isfinite(objective.evaluate(at.theta).value)
    heavier = at.theta.copy()
    heavier[:2] *= 2
    skewed = at.theta.copy()
    skewed[-2] += 0.1
    for theta in (heavier, skewed):
        assert objective.evaluate(theta).failure.status is emcore.Status.OUTSIDE


def test_results_can_be_pickled(X):
    result = emcore.fit(GaussianMixture(2), X, random_state=0)
    back = pickle.loads(pickle.dumps(result))
    assert np.array_equal(back.params.means, result.params.means)
    assert np.array_equal(back.log_density(X), result.log_density(X))


def test_saving_spares_what_is_no_file(X, tmp_path):
    result = emcore.fit(GaussianMixture(2), X, random_state=0)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(ValueError, match="not a regular file"):
        result.save(tmp_path / "pipe.npz")
    (tmp_path / "link.npz").symlink_to(tmp_path / "real.npz")
    result.save(tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink()
    assert emcore.load(tmp_path / "real.npz").value == result.value


def test_a_climb_that_begins_where_it_is_flat_says_so():
    """Two components alike: EM does not tell them apart, and a rule holds at once, at a saddle."""
    X, says = emcore.data.faithful(), "No step was taken: the start is stationary, a maximum or a saddle."
    alike = {"weights": [0.5, 0.5], "means": [X.mean(axis=0)] * 2, "covariances": [np.cov(X.T, bias=True)] * 2}
    saddle = emcore.fit(GaussianMixture(2), X, start=alike)
    assert saddle.status.ok
    assert says in str(saddle)
    climbed = emcore.fit(GaussianMixture(2), X, random_state=0)
    assert says not in str(climbed)
    assert says in str(emcore.fit(GaussianMixture(2), X, start=climbed))
    with pytest.warns(emcore.ConvergenceWarning):
        assert says not in str(emcore.fit(GaussianMixture(2), X, random_state=0, stop=emcore.Stop(max_passes=1)))


def test_a_rule_that_holds_at_the_start_does_not_make_it_stationary():
    fit = emcore.fit(GaussianMixture(2), emcore.data.faithful(), random_state=0, stop=emcore.Stop(gain=1e3))
    assert fit.steps == 0
    assert "No step was taken: a rule holds there." in str(fit)
    assert "stationary" not in str(fit)
