"""The race: same start, same hill, a fair table, and a picture that shows what the table says."""

import importlib
import json
import math
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
from broken import Struck
from cases import threads_start
from matplotlib import image
from matplotlib.patches import Ellipse
from processes import words

import emcore
from emcore import diagnostics, plot, solvers
from emcore.compare import SHORT, compare
from emcore.data import faithful
from emcore.models import COVARIANCES, GaussianMixture
from emcore.result import Failure, Status, Stop, Trace, TraceRow
from emcore.solvers import EM, GradientAscent

NAMES = ("em", "gradient", "cg", "lbfgs", "auto")
module = importlib.import_module("emcore.compare")


@pytest.fixture(scope="module")
def X():
    return faithful()


@pytest.fixture(scope="module")
def race(X):
    return compare(GaussianMixture(2), X, random_state=0)


@pytest.fixture(scope="module")
def quick(X):
    """Two solvers, nothing measured afterwards."""
    return compare(GaussianMixture(2), X, solvers=["em", "cg"], random_state=0, diagnose=False)


@dataclass(frozen=True)
class Breaking(EM):
    """EM that breaks down at its third step."""

    name = "breaking"

    def step(self, objective, state):
        done = state.info.get("done", 0)
        if done == 2:
            return replace(state, failure=Failure(Status.COLLAPSED, "component 1", detail="It is a test."))
        return replace(super().step(objective, state), info={"done": done + 1})


@dataclass(frozen=True)
class Elsewhere(EM):
    """EM from another point: what `move` makes of the parameters."""

    name = "elsewhere"
    move: object = None

    def init(self, objective, at):
        return super().init(objective, objective.point_of(self.move(at.params)))


def alike(params):
    """All components the same: a stationary point that is no maximum."""
    return params._replace(
        means=np.zeros_like(params.means), covariances=np.broadcast_to(np.eye(2), params.covariances.shape).copy()
    )


def swapped(params):
    return type(params)(*(a[::-1].copy() for a in params))


def traced(fit, values, passes, **changes):
    unknown = dict.fromkeys(TraceRow._fields, math.nan)
    rows = [
        TraceRow(**unknown | {"step": i, "value": v, "passes": p, "seconds": 0.1 * p, "event": ""})
        for i, (v, p) in enumerate(zip(values, passes, strict=True))
    ]
    return replace(fit, trace=Trace(rows), value=values[-1], passes=passes[-1], **changes)


# The race


@pytest.mark.parametrize(
    ("covariance", "value", "em_rate"),
    [("full", -1130.26396, 0.2408), ("tied", -1140.1868, 0.0778), ("diag", -1147.8064, 0.0569)],
)
def test_all_solvers_reach_the_known_optimum(X, covariance, value, em_rate):
    race = compare(GaussianMixture(2, covariance), X, random_state=0)
    assert tuple(race.fits) == NAMES
    for fit in race.fits.values():
        assert fit.status.ok
        assert fit.log_likelihood == pytest.approx(value, rel=1e-6)
    assert set(race.arrivals) == set(NAMES)
    assert race.relation.rate.rate == pytest.approx(em_rate, abs=2e-4)
    assert "Different optima" not in str(race)


def test_every_solver_starts_at_the_same_point(race):
    first = {label: fit.trace[0].value for label, fit in race.fits.items()}
    assert len(set(first.values())) == 1
    assert race.start.startswith("k-means++ on 272 rows")


def test_the_order_of_solvers_does_not_matter(X, race):
    back = compare(GaussianMixture(2), X, solvers=NAMES[::-1], random_state=0, diagnose=False)
    assert back.labels == NAMES[::-1]
    for name in NAMES:
        assert np.array_equal(back.fits[name].trace.value, race.fits[name].trace.value)
        assert np.array_equal(back.fits[name].trace.passes, race.fits[name].trace.passes)
        assert np.array_equal(back.fits[name].theta, race.fits[name].theta)


def test_threads_do_not_matter(X):
    many = np.tile(X, (300, 1))
    one, three = (compare(GaussianMixture(2), many, random_state=0, n_threads=n, diagnose=False) for n in (1, 3))
    assert threads_start(three.fits["em"].evaluation.objective, three.fits["em"].point)
    for name in NAMES:
        assert np.array_equal(one.fits[name].trace.value, three.fits[name].trace.value)


def test_it_starts_as_fit_does(X):
    fit = emcore.fit(GaussianMixture(2), X, random_state=3)
    race = compare(GaussianMixture(2), X, solvers="em", random_state=3, diagnose=False)
    assert np.array_equal(race.fits["em"].theta, fit.theta)
    assert race.fits["em"].passes == fit.passes


def test_a_given_start_is_taken_as_it_is(X, race):
    given = race.best.params
    again = compare(GaussianMixture(2), X, start=given._asdict(), diagnose=False)
    assert again.start == "given parameters"
    assert all(fit.passes <= 2 for fit in again.fits.values())
    for ours, theirs in zip(again.start_params, given, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_whole_weights_are_repeated_rows(X):
    counts = np.random.default_rng(0).integers(0, 3, len(X))
    start = {"weights": [0.4, 0.6], "means": [[2.0, 55.0], [4.2, 80.0]], "covariances": [np.diag([0.1, 30.0])] * 2}
    weighted = compare(GaussianMixture(2), X, sample_weight=counts, start=start, diagnose=False)
    repeated = compare(GaussianMixture(2), np.repeat(X, counts, axis=0), start=start, diagnose=False)
    for name in NAMES:
        assert weighted.fits[name].log_likelihood == pytest.approx(repeated.fits[name].log_likelihood, rel=1e-10)
    assert (weighted.unit, repeated.unit) == ("unit of weight", "row")


def test_solvers_of_one_name_get_different_labels(X):
    given = ["em", EM(), GradientAscent(step_size=0.1), GradientAscent(step_size=0.2), "gradient"]
    race = compare(GaussianMixture(2), X, solvers=given, stop=Stop(max_passes=3), random_state=0, diagnose=False)
    assert list(race.fits) == ["em", "em #2", "gradient(step_size=0.1)", "gradient(step_size=0.2)", "gradient"]
    assert np.array_equal(race.fits["em"].trace.value, race.fits["em #2"].trace.value)


def test_all_are_those_that_the_model_provides_for(X):
    stop = Stop(max_passes=2)
    race = compare(GaussianMixture(2), X, solvers="all", stop=stop, random_state=0, diagnose=False)
    assert list(race.fits) == list(race.labels) == list(solvers.names())
    assert race.left_out == ()
    assert "Left out" not in str(race)
    uniform, X = emcore.models.UniformMixture(100.0), X[:, 1:]
    race = compare(uniform, X, solvers="all", stop=stop, random_state=0, diagnose=False)
    assert race.labels == ("em", "auto")
    assert race.left_out == tuple(name for name in solvers.names() if name not in ("em", "auto"))
    assert not race.interrupted
    assert "Left out, as they need what the model does not provide: gradient, " in str(race)
    assert race.to_dict()["left_out"] == list(race.left_out)
    with pytest.raises(emcore.SupportError, match="lbfgs"):  # asked for by name
        compare(uniform, X, solvers=["em", "lbfgs"], stop=stop, random_state=0)


def test_several_starts_are_a_study(X):
    with pytest.raises(ValueError, match=r"n_starts must be 1, got 5: .*emcore\.study\(.*n_starts=5"):
        compare(GaussianMixture(2), X, n_starts=5)
    with pytest.raises(TypeError, match="n_starts must be a whole number"):
        compare(GaussianMixture(2), X, n_starts="five")


def test_everything_is_recorded_when_asked_for(X):
    options = {"solvers": ["em", "cg"], "random_state": 0, "diagnose": False, "stop": Stop(gain=1e-6)}
    plain, full = (compare(GaussianMixture(2), X, record=record, **options) for record in (False, True))
    assert np.isnan(plain.fits["em"].trace.gradient).all()
    for label in ("em", "cg"):
        assert np.isfinite(full.fits[label].trace.gradient).all()
        assert np.isfinite(full.fits[label].trace.residual).all()
        assert full.fits[label].passes == plain.fits[label].passes


def test_the_budget_is_each_solvers_own(X):
    race = compare(GaussianMixture(2), X, stop=Stop(max_passes=4), random_state=0, diagnose=False)
    assert [fit.passes for fit in race.fits.values()] == [pytest.approx(4)] * len(NAMES)
    assert {fit.status for fit in race.fits.values()} == {Status.MAX_PASSES}
    assert "Did not converge: em" in str(race)
    assert race.arrivals == {}


def test_the_default_budget_is_a_thousand_passes(race):
    assert race.stop == Stop(max_passes=1000)


def test_a_callback_sees_every_step_of_every_solver(X):
    seen = {}

    def watch(label, step):
        seen.setdefault(label, []).append(step.row.step)
        return label == "em" and step.row.step == 2

    race = compare(GaussianMixture(2), X, solvers=["em", "cg"], random_state=0, callback=watch, diagnose=False)
    assert seen["em"] == [0, 1, 2]
    assert race.fits["em"].status is Status.CALLBACK
    assert seen["cg"] == list(range(race.fits["cg"].steps + 1))
    assert race.fits["cg"].status.ok


# What the table says


def test_rows_of_hand_made_traces(quick):
    fit = quick.fits["em"]
    slow = [-3.0, -2.0, -1.0 - 5e-7, -2.0, -1.0 - 2e-7]  # near the best once, away, and back to stay
    never = [-3.0, -1.5]
    hand = replace(
        quick,
        labels=("slow", "quick", "never"),
        fits={
            "slow": traced(fit, slow, [1, 2, 3, 5, 8]),
            "quick": traced(fit, [-3.0, -1.0], [1, 4]),
            "never": traced(fit, never, [1, 9], status=Status.MAX_PASSES),
        },
    )
    assert hand.best_value == -1.0
    rows = {r.solver: r for r in hand.rows()}
    assert rows["slow"].arrival == 8
    assert rows["quick"].arrival == 4
    assert math.isnan(rows["never"].arrival)
    assert rows["never"].gap == pytest.approx(0.5)
    assert rows["slow"].gap == pytest.approx(2e-7)
    assert rows["quick"].log_likelihood == -272.0
    assert hand.best is hand.fits["quick"]
    assert "Fewest passes to the best optimum: quick, 4; then slow 8." in hand.remarks


def test_a_failing_solver_is_a_row(X):
    race = compare(GaussianMixture(2), X, solvers=[Breaking(), "em"], random_state=0, diagnose=False)
    row = race.rows()[0]
    assert (row.status, row.note, row.steps) == (Status.COLLAPSED, "failed: collapsed", 2)
    assert math.isnan(row.arrival)
    assert race.best is race.fits["em"]
    assert race.fits["em"].status.ok
    assert "component 1" in str(race)
    assert "It is a test." in str(race)


def test_a_failed_climb_is_no_yardstick_however_high_it_got(quick):
    fit = quick.fits["em"]
    wild = traced(fit, [-5.0, 40.0], [1, 2], status=Status.COLLAPSED, failure=Failure(Status.COLLAPSED))
    hand = replace(quick, labels=("wild", "em"), fits={"wild": wild, "em": fit})
    assert hand.best is fit
    assert hand.best_value == fit.trace.value.max()
    assert list(hand.arrivals) == ["em"]
    assert math.isnan(hand.rows()[0].arrival)


def test_when_all_failed_the_highest_is_the_best(quick):
    failed = {"status": Status.NO_ASCENT, "failure": Failure(Status.NO_ASCENT)}
    fits = {
        "a": traced(quick.fits["em"], [-5.0, -4.0], [1, 2], **failed),
        "b": traced(quick.fits["em"], [-5.0, -3.0], [1, 2], **failed),
    }
    hand = replace(quick, labels=("a", "b"), fits=fits)
    assert hand.best is fits["b"]
    assert hand.arrivals == {}
    assert hand.diagnosed().relation is None
    assert str(hand).count("Failed: no step along the search direction") == 2


def test_another_optimum_is_told(X):
    race = compare(GaussianMixture(2), X, solvers=["em", Elsewhere(move=alike)], random_state=0, diagnose=False)
    label = race.labels[1]
    assert race.fits[label].status.ok
    assert race.rows()[1].gap > 0.1
    assert not race.beside_best(label)
    assert list(race.arrivals) == ["em"]
    assert "Different optima" in str(race)


def test_a_relabelled_optimum_is_the_same(X):
    race = compare(GaussianMixture(2), X, solvers=["em", Elsewhere(move=swapped)], random_state=0, diagnose=False)
    assert len(race.arrivals) == 2
    assert race.beside_best(race.labels[1])
    np.testing.assert_allclose(race.fits[race.labels[1]].params.weights, race.fits["em"].params.weights[::-1], rtol=1e-6)
    assert "Different optima" not in str(race)


def test_stopping_short_is_not_called_another_optimum(quick):
    fit = quick.fits["em"]
    short = traced(fit, [fit.value - 1.0, fit.value - 1e-4], [1, 2])
    hand = replace(quick, labels=("short", "em"), fits={"short": short, "em": fit})
    assert any(r.startswith("Stopped short of the best optimum by their own rule: short") for r in hand.remarks)
    assert not any("Different optima" in r for r in hand.remarks)


def test_the_boundary_is_told():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(40, 1)), np.full((10, 1), 8.0)])
    start = {"weights": [0.8, 0.2], "means": [[0.0], [8.0]], "covariances": [[[1.0]], [[0.1]]]}
    race = compare(GaussianMixture(2), X, solvers="em", start=start, diagnose=False)
    assert race.best.status is Status.BOUNDARY
    assert "the covariance of component 1 is at its floor" in str(race)


def test_the_table_is_aligned(race):
    lines = str(race).splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("---"))
    ends = np.cumsum([len(dashes) + 2 for dashes in lines[rule].split()])[:-1] - 2
    table = [lines[rule - 1], *lines[rule + 1 : rule + 1 + len(NAMES)]]
    assert [line.split()[0] for line in table] == ["solver", *NAMES]
    for line in table:
        for end in ends:
            assert line[end : end + 2] == "  "
    for line, fit in zip(table[1:], race.fits.values(), strict=True):
        assert f"{fit.log_likelihood:.6f}" in line
        assert line.endswith("converged (gain)")
    assert all(len(line) <= 128 for line in lines)
    assert "seconds include the overhead of Python" in str(race)


def test_the_verdict_speaks_of_em_the_gradient_and_the_winner(race):
    text = " ".join(str(race).split())
    assert race.verdict in text
    assert "each EM step removes 76%" in race.verdict
    assert "gradient ascent" in race.verdict
    winner = min(race.arrivals, key=race.arrivals.get)
    assert f"{winner} took the fewest passes ({race.arrivals[winner]:g})" in race.verdict


def test_the_verdict_is_measured_later_or_not_at_all(quick):
    assert quick.verdict == ""
    assert "Verdict" not in str(quick)
    later = quick.diagnosed()
    assert "EM step" in later.verdict
    assert later.diagnosed() is later


def test_a_verdict_that_cannot_be_measured_loses_no_race(quick, monkeypatch):
    def broken(*_, **__):
        raise np.linalg.LinAlgError("singular")

    monkeypatch.setattr(diagnostics, "relation", broken)
    later = quick.diagnosed()
    assert later.fits == quick.fits
    assert "The verdict could not be measured: singular" in str(later)


def test_every_status_has_a_short_name():
    assert set(SHORT) == set(Status)
    assert len(set(SHORT.values())) == len(SHORT)


# Ctrl-C


def test_an_interrupt_returns_what_was_raced(X):
    def strike(label, step):
        if label == "gradient" and step.row.step == 2:
            raise KeyboardInterrupt

    race = compare(GaussianMixture(2), X, random_state=0, callback=strike)
    assert list(race.fits) == ["em", "gradient"]
    assert race.fits["em"].status.ok
    assert race.fits["gradient"].status is Status.INTERRUPTED
    assert [r.note for r in race.rows()][2:] == ["not run"] * 3
    assert race.interrupted
    assert race.relation is None
    assert "Interrupted before cg, lbfgs and auto were run." in str(race)
    json.dumps(race.to_dict(), allow_nan=False)


def test_an_interrupt_before_a_climb_keeps_those_before(X):
    race = compare(GaussianMixture(2), X, solvers=["em", Struck(), "cg"], random_state=0)
    assert list(race.fits) == ["em"]
    assert race.interrupted
    with pytest.raises(KeyboardInterrupt):
        compare(GaussianMixture(2), X, solvers=[Struck()], random_state=0)


def test_an_interrupt_of_the_measurements_keeps_the_race(quick, monkeypatch):
    def struck(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(diagnostics, "relation", struck)
    later = quick.diagnosed()
    assert later.interrupted
    assert later.fits == quick.fits


# Bad input


@dataclass(frozen=True)
class Demanding(EM):
    name = "demanding"
    needs = frozenset({"value", "tea"})


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"solvers": []}, ValueError, "solvers is empty"),
        ({"solvers": ["em", "foo"]}, ValueError, "one of 'em', 'gradient'"),
        ({"solvers": ["em", 3]}, TypeError, "a name or a Solver"),
        ({"solvers": ["em", Demanding()]}, ValueError, "demanding.*tea"),
        ({"stop": 3}, TypeError, "stop must be a Stop"),
        ({"start": "somewhere"}, ValueError, "start must be one of 'auto'"),
        ({"start": {"weights": [1, 0]}}, ValueError, "missing or unknown: covariances, means"),
        ({"random_state": -1}, ValueError, "random_state must be >= 0"),
        ({"coordinates": "polar"}, ValueError, "'free' or 'original'"),
        ({"n_threads": 0}, ValueError, "n_threads"),
        ({"sample_weight": np.zeros(272)}, ValueError, "all zero"),
    ],
)
def test_bad_arguments_are_refused_before_the_race(X, changes, error, words):
    steps = []
    with pytest.raises(error, match=words):
        compare(GaussianMixture(2), X, **{"callback": lambda *step: steps.append(step), **changes})
    assert not steps


def test_bad_data_are_refused(X):
    with pytest.raises(ValueError, match="row 3, column 1 is nan"):
        compare(GaussianMixture(2), np.where(np.arange(544).reshape(272, 2) == 7, np.nan, X))
    with pytest.raises(TypeError, match="model must be a Model"):
        compare("GaussianMixture", X)


def test_a_constant_column_is_warned_of_once(X):
    with pytest.warns(UserWarning, match="constant in column 1") as caught:
        compare(GaussianMixture(2), np.column_stack([X[:, 0], np.ones(272)]), stop=Stop(max_passes=5), diagnose=False)
    assert len([w for w in caught if "constant" in str(w.message)]) == 1


# to_dict


def test_to_dict_is_plain_json(race):
    text = json.dumps(race.to_dict(), allow_nan=False)
    back = json.loads(text)
    assert back["versions"]["emcore"] == emcore.__version__
    assert back["model"] == {"name": "GaussianMixture", "options": {"n_components": 2, "covariance": "full", "reg": 1e-6}}
    assert back["data"] == {"rows": 272, "columns": 2, "weight": 272.0}
    assert back["options"]["random_state"] == 0
    assert back["options"]["stop"]["max_passes"] == 1000
    assert back["options"]["stop"]["max_seconds"] is None
    assert list(back["solvers"]) == list(NAMES)
    for name, fit in race.fits.items():
        entry = back["solvers"][name]
        assert entry["trace"]["value"] == fit.trace.value.tolist()
        assert {len(column) for column in entry["trace"].values()} == {fit.steps + 1}
        assert entry["trace"]["change"][0] is None
        assert np.array_equal(entry["params"]["means"], fit.params.means)
        assert entry["passes_to_tolerance"] == race.arrivals[name]
    assert back["solvers"][back["best"]]["value"] == race.best.value
    assert back["verdict"] == race.verdict
    assert np.array_equal(back["start"]["params"]["weights"], race.start_params.weights)


def test_to_dict_tells_failures_and_what_was_not_run(X):
    def strike(label, step):
        if label == "em" and step.row.step == 1:
            raise KeyboardInterrupt

    race = compare(GaussianMixture(2), X, solvers=[Breaking(), "em", "cg"], random_state=0, callback=strike)
    back = race.to_dict()["solvers"]
    assert back["breaking"]["failure"] == {"status": "COLLAPSED", "where": "component 1", "step": 3, "detail": "It is a test."}
    assert back["breaking"]["converged"] is False
    assert back["em"]["status"] == "INTERRUPTED"
    assert back["cg"] == {"note": "not run"}


# Paths


def test_paths_lead_from_the_start_to_the_fit(race):
    assert set(race.paths) == set(NAMES)
    for name, path in race.paths.items():
        assert path.shape == (race.fits[name].steps + 1, 2, 2)
        np.testing.assert_allclose(path[0], race.start_params.means, rtol=1e-12)
        assert np.array_equal(path[-1], race.fits[name].params.means)


def test_long_paths_are_thinned(X, monkeypatch):
    monkeypatch.setattr(module, "PATH_POINTS", 4)
    race = compare(GaussianMixture(2), X, solvers="gradient", random_state=0, diagnose=False)
    path, fit = race.paths["gradient"], race.fits["gradient"]
    assert fit.steps > 16
    assert 4 < len(path) <= 9
    np.testing.assert_allclose(path[0], race.start_params.means, rtol=1e-12)
    assert np.array_equal(path[-1], fit.params.means)


def test_paths_are_kept_for_two_columns_only(X):
    race = compare(GaussianMixture(2), np.column_stack([X, X[:, 0] ** 2]), solvers="em", random_state=0, diagnose=False)
    assert race.paths == {}


# Pictures


def test_a_png_is_a_picture(race, tmp_path):
    path = tmp_path / "race.png"
    race.plot(path)
    pixels = image.imread(path)
    assert pixels.shape[0] > 500
    assert pixels.shape[1] > 1500
    inked = (pixels[..., :3] < 0.9).any(axis=2)
    for third in np.array_split(inked, 3, axis=1):
        assert 0.01 < third.mean() < 0.5
    colours = {tuple(c) for c in (pixels[::2, ::2, :3].reshape(-1, 3) * 255).round().astype(int).tolist()}
    for name, style in plot.styles_of(race.labels).items():
        assert tuple(int(style.colour[i : i + 2], 16) for i in (1, 3, 5)) in colours, name
    assert os.listdir(tmp_path) == ["race.png"]


@pytest.mark.parametrize(("extension", "head"), [(".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")])
def test_the_extension_tells_the_format(quick, tmp_path, extension, head):
    quick.plot(tmp_path / f"race{extension}")
    assert (tmp_path / f"race{extension}").read_bytes().startswith(head)


@pytest.mark.parametrize("name", ["race.bmp", "race", "race.txt"])
def test_an_unknown_extension_is_refused_before_any_work(quick, tmp_path, name, monkeypatch):
    monkeypatch.setattr(plot, "race", lambda *_, **__: pytest.fail("drew before it looked"))
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        quick.plot(tmp_path / name)
    assert not os.listdir(tmp_path)


def test_without_matplotlib_the_message_says_what_to_install(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install emcore\[cli\]"):
        quick.plot(tmp_path / "race.png")


def test_a_failing_disk_leaves_the_old_picture(quick, tmp_path, monkeypatch):
    path = tmp_path / "race.png"
    path.write_bytes(b"old")

    def full(self, target, **_):
        with open(target, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OSError, match="No space"):
        quick.plot(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["race.png"]


def test_the_gaps_drawn_are_those_of_the_race(race):
    figure = plot.race(race)
    passes, seconds, _ = figure.axes
    assert passes.get_xlabel().startswith("passes over the data")
    assert seconds.get_xlabel().startswith("seconds")
    assert passes.get_ylabel() == "gap to the best log-likelihood, per row"
    for axes, what in ((passes, "passes"), (seconds, "seconds")):
        assert axes.get_yscale() == "log"
        assert len(axes.get_lines()) >= len(race.fits)
        for line, (name, fit) in zip(axes.get_lines(), race.fits.items(), strict=False):
            assert np.array_equal(line.get_xdata(), getattr(fit.trace, what)), name
            np.testing.assert_allclose(line.get_ydata(), np.maximum(race.gaps(name), race.floor))
            low, high = axes.get_xlim()
            assert low <= line.get_xdata()[0]
            assert line.get_xdata()[-1] <= high
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(NAMES)


def test_solvers_are_told_apart_without_colour(X):
    styles = plot.styles_of([str(i) for i in range(20)])
    assert len(set(styles.values())) == 20
    eight = list(plot.styles_of("abcdefgh").values())
    assert len({s.marker for s in eight}) == len({s.colour for s in eight}) == len({str(s.line) for s in eight}) == 8


def test_a_failing_climb_is_marked_where_it_ended(X):
    race = compare(GaussianMixture(2), X, solvers=["em", Breaking()], random_state=0, diagnose=False)
    figure = plot.race(race)
    crosses = [line for line in figure.axes[0].get_lines() if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [race.fits["breaking"].passes]
    assert "breaking (failed: collapsed)" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_diverging_climb_does_not_squeeze_the_others(X):
    race = compare(
        GaussianMixture(2),
        X,
        solvers=["em", GradientAscent(step_size=50.0)],
        stop=Stop(max_passes=40),
        random_state=0,
        diagnose=False,
    )
    wild = race.gaps(race.labels[1])
    assert wild.max() > 100
    assert plot.race(race).axes[0].get_ylim()[1] < 20
    assert len(plot.race(race).axes) == 3


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_ellipses_are_those_of_the_covariances(X, covariance):
    race = compare(GaussianMixture(2, covariance), X, solvers="em", random_state=0, diagnose=False)
    axes = plot.race(race, names=["eruption", "waiting"]).axes[2]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("eruption", "waiting")
    ellipses = [patch for patch in axes.patches if isinstance(patch, Ellipse)]
    assert len(ellipses) == 4
    given = race.best.params.covariances
    expected = {
        "full": lambda c: given[c],
        "tied": lambda c: given,
        "diag": lambda c: np.diag(given[c]),
        "spherical": lambda c: given[c] * np.eye(2),
    }[covariance]
    for i, ellipse in enumerate(ellipses):
        sd = 1 + i % 2
        angle = np.radians(ellipse.angle)
        axis = np.array([np.cos(angle), np.sin(angle)])
        other = np.array([-axis[1], axis[0]])
        drawn = (np.outer(axis, axis) * ellipse.width**2 + np.outer(other, other) * ellipse.height**2) / (4 * sd * sd)
        np.testing.assert_allclose(drawn, expected(i // 2), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(ellipse.center, race.best.params.means[i // 2])


def test_one_column_is_drawn_as_a_density(X):
    race = compare(GaussianMixture(2), X[:, :1], random_state=0, solvers=["em"], diagnose=False)
    axes = plot.race(race, names=["eruption"]).axes[2]
    (line,) = axes.get_lines()
    assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(1.0, abs=0.02)
    assert sum(p.get_height() * p.get_width() for p in axes.patches) == pytest.approx(1.0)


def test_three_columns_have_two_panels(X):
    race = compare(GaussianMixture(2), np.column_stack([X, X[:, 0] ** 2]), solvers="em", random_state=0, diagnose=False)
    assert len(plot.race(race, title="my title").axes) == 2
    assert plot.race(race, title="my title").get_suptitle() == "my title"


def test_nothing_of_the_extras_is_loaded_and_pyplot_never(tmp_path):
    code = """
    import sys, emcore
    race = emcore.compare(emcore.models.GaussianMixture(2), emcore.data.faithful(), solvers="em", start="random-points")
    print("emcore.compare" in sys.modules, *{"matplotlib", "rich", "click", "pyarrow", "sklearn"} & set(sys.modules))
    race.plot("race.png")
    print("matplotlib.pyplot" in sys.modules, sys.modules["matplotlib"].rcParams._get("backend"))
    """
    assert words(code, folder=tmp_path, MPLBACKEND="svg") == ["True", "False", "svg"]
    assert (tmp_path / "race.png").stat().st_size > 10_000


def test_the_defaults_are_the_solvers_that_exist():
    assert set(NAMES) <= set(solvers.names())
    assert compare.__kwdefaults__["solvers"] == NAMES


def test_a_climb_of_one_point_is_seen(X):
    race = compare(GaussianMixture(2), X, solvers="em", stop=Stop(max_passes=1), random_state=0, diagnose=False)
    line = plot.race(race).axes[0].get_lines()[0]
    assert (line.get_marker(), line.get_markevery()) == ("o", None)
    assert line.get_xdata().tolist() == [1.0]


def test_passes_for_hessian_products_are_said_apart():
    race = emcore.compare(GaussianMixture(2), emcore.data.faithful(), solvers=["em", "newton"], random_state=0)
    passes = race.fits["newton"].hessian_passes
    assert passes > 0
    assert f"Not among the passes, those for Hessian products: newton {passes:g}." in race.lines()
    assert not any("Hessian products" in line for line in replace(race, fits={"em": race.fits["em"]}).lines())


def test_passes_for_monitoring_are_said_apart(X):
    race = compare(GaussianMixture(2), X, solvers=["em", "incremental"], random_state=0, diagnose=False)
    passes = race.fits["incremental"].monitor_passes
    assert passes > 0
    assert f"Not among the passes, those for monitoring: incremental {passes:g}." in race.lines()
    assert race.to_dict()["solvers"]["incremental"]["monitor_passes"] == passes
    assert not any("monitoring" in line for line in replace(race, fits={"em": race.fits["em"]}).lines())
