"""The experiments: each runs in its quick form, holds to its references, and is written whole."""

import json

import numpy as np
import pytest

from emcore import experiments
from emcore.experiments import Line, Outcome
from emcore.experiments._base import SOURCES, figure
from emcore.experiments.balakrishnan import MissingCovariates, SymmetricMixture, SymmetricRegressions

NAMES = list(experiments.names())


def outcome(lines):
    return Outcome("name", "A title.", tuple(lines), {"n": 1}, ("A note.",), lambda figure: figure.subplots())


@pytest.mark.parametrize("name", NAMES)
def test_quick_forms_hold(name, tmp_path):
    said = []
    (found,) = experiments.reproduce([name], folder=tmp_path / "new", quick=True, tick=said.append)
    assert found.holds, str(found)
    assert sum(np.isfinite(line.tolerance) for line in found.lines) > 1, "hardly anything that could fail"
    for line in found.lines:
        assert (line.source in SOURCES) if np.isfinite(line.reference) else not line.source, line
    assert len({line.quantity for line in found.lines}) == len(found.lines)
    assert said[0] == name
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [f"{name}{s}" for s in (".csv", ".json", ".png", ".txt")]
    assert json.loads((tmp_path / "new" / f"{name}.json").read_text())["settings"]
    assert (tmp_path / "new" / f"{name}.csv").read_text().count("\n") == len(found.lines) + 1


def test_every_experiment_says_in_one_line_what_it_shows():
    assert all(0 < len(title) < 128 for title in experiments.names().values())


def test_what_is_out_of_tolerance_is_said():
    near, away = Line("near", 1.0, 1.05, "theory", 0.1), Line("away", 1.0, 1.2, "paper", 0.1)
    assert near.holds
    assert not away.holds
    found = outcome([near, away, Line("free", np.nan, 3.0)])
    assert not found.holds
    rows = found.table()
    assert sum("OUT OF TOLERANCE" in row for row in rows) == 1
    assert "paper" in next(row for row in rows if "OUT" in row)
    assert outcome([near]).holds


@pytest.mark.parametrize(("bound", "far", "beyond"), [("<=", 20.0, 101.0), (">=", 1000.0, 99.0)])
def test_a_bound_is_held_to_on_one_side(bound, far, beyond):
    assert Line("far within", 100.0, far, "ours", 0.0, bound=bound).holds
    out = Line("beyond", 100.0, beyond, "ours", 0.0, bound=bound)
    assert not out.holds
    assert f"{bound} 100" in "\n".join(outcome([out]).table())
    assert not Line("lost", 100.0, np.nan, "ours", 0.0, bound=bound).holds


@pytest.mark.parametrize(
    ("line", "held"),
    [
        (Line("a", 1.0, 1.0, "theory", 0.1), "within 0.1"),
        (Line("a", 1.0, 1.0, "theory", 0.0), "equal"),
        (Line("a", 1.0, 1.0, "theory"), "shown"),
        (Line("a", np.nan, 1.0), "shown"),
        (Line("a", 1.0, 2.0, "theory", missed=True), "not reproduced"),
        (Line("a", 1.0, 1.0, "ours", 0.0, bound="<="), "bound"),
        (Line("a", 1.0, 1.0, "ours", 1e-9, bound=">="), "bound, within 1e-09"),
        (Line("a", 1.0, 2.0, "ours", bound="<=", missed=True), "not reproduced"),
    ],
)
def test_the_table_says_what_a_number_is_held_to(line, held):
    assert line.held == held
    head, row = outcome([line]).table()[2:4]
    assert row[head.index("held to") :].startswith(held)


def test_not_a_number_holds_to_nothing():
    assert not Line("lost", 1.0, np.nan, "theory", 0.1).holds


def test_a_line_without_a_reference_has_no_source(tmp_path):
    outcome([Line("free", np.nan, 3.0)]).write(tmp_path)
    assert (tmp_path / "name.csv").read_text().splitlines()[1] == "free,nan,3.0,nan,,inf,,False"


def sech_squared(x):
    return 1 / np.cosh(np.clip(x, -300, 300)) ** 2


@pytest.mark.parametrize("snr", [0.5, 0.75, 1.0, 1.8, 2.0, 2.5])
def test_what_the_population_contracts_by(snr):
    """By another quadrature, far finer, of other formulas; and as they were computed independently, to five digits."""
    x = np.linspace(-13, 13, 2601)
    density = np.exp(-0.5 * x**2)
    density /= density.sum()
    moved = density @ (sech_squared(snr * (x + snr)) * (x + snr) ** 2), density @ sech_squared(snr * (x + snr))
    mixture, regressions = SymmetricMixture(), SymmetricRegressions()
    np.testing.assert_allclose(mixture.population(snr), moved, rtol=0, atol=1e-9)
    np.testing.assert_allclose(mixture.population(snr), mixture.coefficients[snr], rtol=0, atol=5e-6)

    # The response has variance 1 + snr^2; given it, the covariate along the truth is normal about a multiple of it.
    y, u = np.linspace(-10, 10, 2001), np.linspace(-8, 8, 1601)
    scale = np.sqrt(1 + snr**2)
    Y, U = scale * y[:, None], snr * y[:, None] / scale + u / scale
    weight = np.outer(np.exp(-0.5 * y**2), np.exp(-0.5 * u**2))
    kept = weight / weight.sum() * sech_squared(snr * U * Y) * Y**2
    np.testing.assert_allclose(regressions.population(snr), ((kept * U**2).sum(), kept.sum()), rtol=0, atol=1e-8)
    np.testing.assert_allclose(regressions.population(snr), regressions.coefficients[snr], rtol=0, atol=5e-6)


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_what_is_missing_of_a_population_of_regressions(share):
    """The spectrum from all patterns of missing values is that of a large sample at the truth."""
    experiment, truth = MissingCovariates(share), np.arange(1.0, 11.0) / np.linalg.norm(np.arange(1.0, 11.0))
    data = experiment.draw(0.5, truth, 200_000, np.random.default_rng(3))
    objective = experiment.objective(2.0, data)
    hessian = objective.hvp(objective.evaluate(truth), np.eye(10))
    found = np.linalg.eigvalsh(np.eye(10) + hessian / 4)
    np.testing.assert_allclose(experiment.spectrum(2.0, truth), found, rtol=0, atol=0.02)


def test_names_are_checked_before_anything_is_done(tmp_path):
    with pytest.raises(ValueError, match=r"experiment must be one of 'xu-jordan'.*got 'nothing'"):
        experiments.reproduce(["xu-jordan", "nothing"], folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_figures_are_drawn_apart_from_the_users():
    from matplotlib import pyplot

    theirs = pyplot.figure()
    try:
        made = figure(lambda figure: figure.subplots(1, 2))
        assert len(made.axes) == 2
        assert (pyplot.get_fignums(), pyplot.gcf(), theirs.axes) == ([theirs.number], theirs, [])
    finally:
        pyplot.close(theirs)
