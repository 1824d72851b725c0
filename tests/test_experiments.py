"""The experiments: each runs in its quick form, holds to its references, and is written whole."""

import json

import numpy as np
import pytest

from emcore import experiments
from emcore.experiments import Line, Outcome
from emcore.experiments._base import figure

NAMES = list(experiments.names())


def outcome(lines):
    return Outcome("name", "A title.", tuple(lines), {"n": 1}, ("A note.",), lambda figure: figure.subplots())


@pytest.mark.parametrize("name", NAMES)
def test_quick_forms_hold(name, tmp_path):
    said = []
    (found,) = experiments.reproduce([name], folder=tmp_path / "new", quick=True, tick=said.append)
    assert found.holds, str(found)
    assert any(np.isfinite(line.tolerance) for line in found.lines), "nothing that could fail"
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


def test_not_a_number_holds_to_nothing():
    assert not Line("lost", 1.0, np.nan, "theory", 0.1).holds


def test_names_are_checked_before_anything_is_done(tmp_path):
    with pytest.raises(ValueError, match=r"experiment must be one of 'xu-jordan'.*got 'nothing'"):
        experiments.reproduce(["xu-jordan", "nothing"], folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_figures_are_drawn_apart_from_the_users():
    made = figure(lambda figure: figure.subplots(1, 2))
    assert len(made.axes) == 2
