"""The documents say what is so: their snippets run, one after the other, and give what stands beside them."""

import re
from pathlib import Path

import numpy as np
import pytest

import emcore

ROOT = Path(__file__).parents[1]
README, COMPARING = ROOT / "README.md", ROOT / "docs" / "comparing.md"

pytestmark = pytest.mark.skipif(not README.is_file(), reason="the tests do not stand beside the documents")


def run(page):
    """Return the names that the Python of a page leaves behind."""
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.S):
        exec(block, scope)
    return scope


def test_the_readme_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    page = README.read_text()
    scope = run(page)
    likelihood = "  log-likelihood -1130.263960 (sum), -4.1553822066 (mean per unit weight)\n"
    assert likelihood in page
    assert likelihood in capsys.readouterr().out
    assert scope["result"].status.ok
    assert (tmp_path / "race.png").is_file()
    assert scope["stop"] == emcore.Stop()
    gain = scope["em"].trace.gain
    rate = scope["race"].relation.rate.rate
    assert (gain[-1] / gain[-2]) ** 0.5 == pytest.approx(rate, abs=0.005)
    assert f"without a pass: {rate:.2f}" in page
    assert scope["info"].fractions[-1] == pytest.approx(rate, abs=1e-4)
    lower, upper = scope["info"].intervals(0.95).means
    means = scope["race"].best.params.means
    assert np.all((lower < means) & (means < upper))


def test_the_page_on_comparing_runs(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    page = COMPARING.read_text()
    for long, short in (("n_starts=20", "n_starts=1"), ("max_passes=20_000", "max_passes=50")):
        assert long in page
        page = page.replace(long, short)
    study = run(page)["study"]
    assert (tmp_path / "study.png").is_file()
    table = re.search(r"^reached, %.*?\n-.*?\n(.*?)```", page, flags=re.S | re.M)[1]
    assert {line.split()[0] for line in table.splitlines()} == {climb.solver for climb in study.climbs}
