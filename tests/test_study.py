"""A study: several starts, several data sets; what is counted, that it is told, and that what was reached is kept."""

import json

import numpy as np
import pytest
from cases import CONVERGING

import emcore
from emcore import Status, Stop
from emcore.models import GaussianMixture, PoissonMixture
from emcore.solvers import EM, LBFGS

FAST = ("em", "lbfgs", "auto")


@pytest.fixture(scope="module")
def crowded():
    """Rows with several optima, for three components."""
    rng = np.random.default_rng(3)
    return np.concatenate([rng.normal(c, s, size=(25, 1)) for c, s in ((0, 1), (4, 0.5), (8, 1), (13, 2))])


@pytest.fixture(scope="module")
def several(crowded):
    problems = {"crowded": (GaussianMixture(3), crowded), "two": (GaussianMixture(2, "spherical"), crowded[:50])}
    return emcore.study(problems, solvers=FAST, n_starts=6, start="random-points", random_state=1)


def test_on_a_problem_with_one_optimum_all_agree():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, size=(25, 1)), rng.normal(6, 1, size=(15, 1))])
    study = emcore.study(
        {"single": (GaussianMixture(2, "tied"), X)}, solvers=CONVERGING, n_starts=5, start="random-points", random_state=0
    )
    (optimum,) = study.optima["single"]
    assert optimum.climbs == 5 * len(CONVERGING)
    np.testing.assert_array_equal(study.success(), 1.0)
    assert all(c.status.ok and abs(c.gap) <= 1e-9 * max(1, abs(c.value)) for c in study.climbs)


def test_all_are_those_that_every_model_provides_for(crowded):
    X = crowded - crowded.min()
    problems = {"normal": (GaussianMixture(2), X), "uniform": (emcore.models.UniformMixture(30.0), X)}
    study = emcore.study(problems, solvers="all", n_starts=1, random_state=0, stop=Stop(max_passes=2))
    assert study.labels == ("em", "auto")
    assert study.left_out == tuple(name for name in emcore.solvers.names() if name not in ("em", "auto"))
    assert "Left out, as they need what not every model provides: gradient" in str(study)
    assert study.to_dict()["left_out"] == list(study.left_out)
    with pytest.raises(emcore.SupportError, match="lbfgs"):
        emcore.study(problems, solvers=["em", "lbfgs"], n_starts=1, random_state=0)


def test_climbs_are_those_of_fit(several, crowded):
    for solver in FAST:
        fit = emcore.fit(
            GaussianMixture(3), crowded, solver=solver, n_starts=6, start="random-points", random_state=1, stop=Stop(gain=1e-13)
        )
        own = [c for c in several.climbs if (c.problem, c.solver) == ("crowded", solver)]
        assert [c.start for c in own] == list(range(6))
        assert [(c.value, c.passes, c.status) for c in own] == [(s.value, s.passes, s.status) for s in fit.starts]


def test_what_is_counted_is_what_the_climbs_say(several):
    for problem, optima in several.optima.items():
        values = [o.value for o in optima]
        assert values == sorted(values, reverse=True)
        climbs = [c for c in several.climbs if c.problem == problem]
        assert sum(o.climbs for o in optima) == sum(c.status.ok for c in climbs)
        assert max(c.value for c in climbs if c.status.ok) == values[0]
        for solver in FAST:
            own = [c for c in climbs if c.solver == solver]
            there = [c for c in own if c.status.ok and values[0] - c.value <= 1e-9 * max(1, abs(values[0]))]
            s = several.summary(problem, solver)
            assert [c for c in own if c.reached] == there
            assert (s.climbs, s.reached, s.rate) == (6, len(there), len(there) / 6)
            assert s.by_optimum == tuple(sum(c.optimum == i for c in own) for i in range(len(optima)))
            assert sum(s.by_optimum) + s.failed + s.unfinished == 6
            if there:
                np.testing.assert_allclose(s.passes, np.percentile([c.passes for c in there], [25, 50, 75]))
    assert len(several.optima["crowded"]) > 1  # or nothing of this was tested
    assert any(not c.reached for c in several.climbs)


def test_params_of_the_best_optimum_are_there(several, crowded):
    best = several.optima["crowded"][0]
    fit = emcore.fit(GaussianMixture(3), crowded, start=best.params._asdict(), stop=Stop(gain=1e-13))
    assert fit.value == pytest.approx(best.value, abs=1e-10)


def test_it_is_the_same_each_time_and_for_each_problem_alone(several, crowded):
    problem = GaussianMixture(2, "spherical"), crowded[:50]
    again = emcore.study({"two": problem}, solvers=FAST, n_starts=6, start="random-points", random_state=1)
    first = [c._replace(seconds=0) for c in several.climbs if c.problem == "two"]
    assert [c._replace(seconds=0) for c in again.climbs] == first


def test_relabelled_optima_are_one():
    X = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 5.2])[:, None]
    starts = [{"weights": [0.5, 0.5], "means": [[a], [b]], "covariances": [[[1.0]], [[1.0]]]} for a, b in ((0, 5), (5, 0))]
    study = emcore.study({"x": {"model": GaussianMixture(2), "X": X, "start": starts}}, solvers=["em"], n_starts=7)
    assert [o.climbs for o in study.optima["x"]] == [2]
    assert study.summary("x", "em").reached == 2


def test_what_is_fixed_stays():
    X = np.array([0.0, 0.1, 0.2, 0.7, 5.0, 5.1, 5.2])[:, None]
    start = {"weights": [0.5, 0.5], "means": [[0.25], [5.0]], "covariances": [[[1.0]], [[1.0]]]}
    problem = {"model": GaussianMixture(2), "X": X, "start": start, "fixed": {"means": True}}
    study = emcore.study({"x": problem}, solvers=["em", "lbfgs"])
    assert study.success().tolist() == [[1.0, 1.0]]
    np.testing.assert_allclose(study.optima["x"][0].params.means, start["means"], rtol=1e-15)
    moved = start | {"means": [[0.3], [5.0]]}
    with pytest.raises(ValueError, match="starts of 'x' must agree in what is fixed of the means"):
        emcore.study({"x": problem | {"start": [start, moved]}}, solvers=["em"])


def test_budgets_and_failures_are_counted_apart():
    X = np.array([0.0, 0, 0, 10, 11, 12])[:, None]
    study = emcore.study({"x": (GaussianMixture(2, reg=0), X)}, solvers=["em"], n_starts=3, random_state=0)
    s = study.summary("x", "em")
    assert (s.failed, s.reached, s.unfinished) == (3, 0, 0)
    assert np.isnan(s.passes).all()
    assert "No climb converged." in str(study)
    rng = np.random.default_rng(0)
    problem = GaussianMixture(3), rng.normal(size=(50, 2))
    spent = emcore.study({"x": problem}, solvers=["em"], n_starts=2, stop=Stop(max_passes=3))
    assert spent.summary("x", "em").unfinished == 2
    json.dumps(spent.to_dict(), allow_nan=False)


def test_the_tables_say_it(several):
    text = str(several)
    assert text.startswith("2 problems, 6 starts each; at most 10000 passes a climb.")
    assert "crowded: GaussianMixture(n_components=3, covariance='full', reg=1e-06) on 100 rows x 1 column" in text
    lines = text.splitlines()
    (matrix,) = [i for i, line in enumerate(lines) if line.startswith("reached, %")]
    for j, solver in enumerate(FAST):
        assert lines[matrix + 2 + j].split() == [solver, *(f"{100 * r:.0f}" for r in several.success()[:, j])]
        assert f"{several.summary('crowded', solver).reached}/6" in text


def test_to_dict_is_plain_json(several):
    out = json.loads(json.dumps(several.to_dict(), allow_nan=False))
    assert out["options"]["n_starts"] == 6
    assert len(out["climbs"]) == 2 * 3 * 6
    assert out["problems"]["crowded"]["optima"][0]["climbs"] == several.optima["crowded"][0].climbs


def test_an_interrupt_keeps_what_had_ended(crowded):
    seen = []

    def struck(label, step):
        seen.append(label)
        if len(set(seen)) == 4:
            raise KeyboardInterrupt

    study = emcore.study(
        {"a": (GaussianMixture(2), crowded), "b": (GaussianMixture(2), crowded)}, solvers=["em", "lbfgs"], n_starts=3,
        random_state=0, callback=struck,
    )  # fmt: skip
    assert study.interrupted
    assert [(c.start, c.solver) for c in study.climbs] == [(0, "em"), (0, "lbfgs"), (1, "em")]
    assert seen[0] == "a, start 0: em"
    assert study.summary("b", "em").climbs == 0
    assert "Interrupted" in str(study)
    json.dumps(study.to_dict(), allow_nan=False)


def test_an_interrupt_before_anything_was_reached(crowded):
    def struck(label, step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emcore.study({"a": (GaussianMixture(2), crowded)}, callback=struck)


@pytest.mark.parametrize("extension", [".png", ".svg"])
def test_the_picture_is_written(several, tmp_path, extension):
    several.plot(tmp_path / f"s{extension}", title="a title")
    assert (tmp_path / f"s{extension}").stat().st_size > 5000


def test_the_picture_has_a_mark_for_each_climb(several):
    from emcore import plot

    figure = plot.study(several)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == list(several.titles)
    for axes, problem in zip(panels, several.titles, strict=True):
        offsets = [c.get_offsets() for c in axes.collections]
        marks = np.concatenate([o for o in offsets if len(o) and o[0, 0] > 0])
        assert sorted(marks[:, 0]) == sorted(c.passes for c in several.climbs if c.problem == problem)


ROWS = np.arange(12.0).reshape(6, 2)
MODEL = GaussianMixture(2)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"problems": [MODEL]}, TypeError, "problems must map names"),
        ({"problems": {}}, ValueError, "problems is empty"),
        ({"problems": {1: (MODEL, ROWS)}}, TypeError, "names must be words"),
        ({"problems": {"a": MODEL}}, TypeError, r"'a' must be \(model, X\)"),
        ({"problems": {"a": {"model": MODEL}}}, ValueError, r"missing: \['X'\]"),
        ({"problems": {"a": {"model": MODEL, "X": ROWS, "k": 2}}}, ValueError, r"unknown: \['k'\]"),
        ({"problems": {"a": {"model": MODEL, "X": ROWS, "start": []}}}, ValueError, "empty sequence of starts"),
        ({"problems": {"a": ("em", ROWS)}}, TypeError, "model must be a Model"),
        ({"solvers": []}, ValueError, "solvers is empty"),
        ({"solvers": ["foo"]}, ValueError, "solver must be one of"),
        ({"n_starts": 0}, ValueError, "n_starts must be >= 1"),
        ({"n_starts": 2.5}, TypeError, "n_starts must be a whole number"),
        ({"start": {}}, TypeError, "start must be the name of a start"),
        ({"start": "foo"}, ValueError, "start must be one of"),
        ({"random_state": -1}, ValueError, "random_state must be >= 0"),
        ({"stop": 3}, TypeError, "stop must be a Stop"),
    ],
)
def test_bad_arguments_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        emcore.study(**({"problems": {"a": (MODEL, ROWS)}} | changes))


def test_instances_and_counts_work():
    deaths, days = emcore.data.london_deaths()
    problem = {"model": PoissonMixture(2), "X": deaths, "sample_weight": days}
    study = emcore.study(
        {"deaths": problem}, solvers=[LBFGS(memory=3), EM()], n_starts=1, random_state=0, stop=Stop(max_passes=50)
    )
    assert study.labels == ("lbfgs(memory=3)", "em")
    assert study.climbs[1].status is Status.MAX_PASSES
