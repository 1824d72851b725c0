"""What is made of benchmark runs: a record of the machine, and a page of the stored numbers, and of no others."""

import importlib.util
import json
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import python
from processes import run as process

import emcore

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "report.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the tests do not stand beside the benchmarks")

NUMBERS = {
    ("convergence.Climb.track_passes", "solver=em; problem=faithful full"): 6,
    ("convergence.Climb.track_passes", "solver=gradient; problem=faithful full"): 41,
    ("convergence.Climb.track_passes", "solver=lbfgs; problem=faithful full"): 19,
    ("convergence.Climb.track_passes", "solver=em; problem=times poisson"): 1000,
    ("convergence.Climb.track_passes", "solver=lbfgs; problem=times poisson"): 14,
    ("convergence.Climb.track_passes", "solver=auto; problem=times poisson"): 21,
    ("convergence.Climb.track_rate", "solver=em; problem=faithful full"): 0.0579,
    ("convergence.Rate.track_em_rate", "problem=faithful full"): 0.24,
    ("convergence.Seconds.time_to_tolerance", "solver=em; problem=faithful full"): 0.00123,
    ("convergence.Seconds.time_to_tolerance", "solver=lbfgs; problem=faithful full"): 0.00456,
    ("iteration.Iteration.time_iteration", "step=em; covariance=full; size=n=1000 d=2 k=3"): 0.000258,
    ("iteration.Iteration.time_iteration", "step=gradient; covariance=full; size=n=1000 d=2 k=3"): 0.000551,
    ("iteration.GradientOverEM.track_ratio", "covariance=full; size=n=1000 d=2 k=3"): 1.69,
    ("iteration.TinyData.track_overhead", "solver=em"): 4.7,
    ("startup.Import.track_modules", ""): 141,
}


def stored(folder, numbers, commit="0123456789abcdef", cpu="a CPU", date="2026-01-02"):
    """Write results as `export.py` does."""
    folder.mkdir(exist_ok=True)
    lines = ["benchmark,params,value,unit", *(f"{name},{params},{value},unit" for (name, params), value in numbers.items())]
    (folder / "results.csv").write_text("\n".join(lines) + "\n")
    (folder / "machine.json").write_text(json.dumps({"commit": commit, "cpu": cpu, "date": date, "numpy": "9.9"}))


class Reader(HTMLParser):
    """Keeps cells and text, and checks that what is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.rows, self.text, self.pictures = [], [], "", 0

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures += dict(attrs)["src"].startswith("data:image/svg+xml;base64,")
        elif tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "td" in self.open:
            self.rows[-1].append(data + "*" * ("b" in self.open))


def run(folder, *options):
    out, none = folder / "report.html", folder / "none"
    given = "--results", folder, "--runs", none, "--pages", none, "--output", out
    done = python(SCRIPT, *given, *options, folder=folder)
    if done.returncode:
        return done, None
    page = Reader()
    page.feed(out.read_text())
    assert not page.open
    return done, page


def test_the_page_holds_the_numbers(tmp_path):
    stored(tmp_path, NUMBERS)
    (tmp_path / "asv.html").touch()
    done, page = run(tmp_path, "--pages", tmp_path / "asv.html")
    assert "1 runs, the newest of 01234567" in done.stdout, done.stderr
    for row in (
        ["n=1000 d=2 k=3", "full", "0.258 ms", "0.551 ms", "1.69"],
        ["em", "6*", "> 1000"],
        ["lbfgs", "19", "14*"],
        ["em", "1.23 ms*"],
        ["EM by theory, squared", "0.058"],
        ["em", "4.7"],
    ):
        assert row in page.rows
    assert page.pictures == 3
    text = " ".join(page.text.split())
    assert "EM needs no more passes than the best method by gradients on faithful full (6 against 19 of lbfgs)." in text
    assert "A method by gradients needs fewer passes on times poisson (lbfgs 14, EM more than 1000)." in text
    assert "auto takes 1.50 times the passes of the better of EM and L-BFGS" in text
    assert "em on faithful full (1.23 ms)" in text
    assert "One run is stored" in text
    assert 'href="asv.html"' in (tmp_path / "report.html").read_text()


def test_the_course_is_that_of_the_commits(tmp_path):
    def git(*words):
        done = process("git", "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false", *words, folder=tmp_path)
        assert done.returncode == 0, done.stderr

    git("init", "-q")
    versions = [("aaaaaaaa1", "a CPU", 0.001, 1), ("bbbbbbbb2", "another", 0.002, 2), ("cccccccc3", "a CPU", 0.003, 3)]
    step = ("iteration.Iteration.time_iteration", "step=em; covariance=full; size=n=1000 d=2 k=3")
    for commit, cpu, time, day in versions:
        stored(tmp_path, {**NUMBERS, step: time}, commit, cpu, f"2026-01-0{day}")
        git("add", "results.csv", "machine.json")
        git("commit", "-qm", commit)
    stored(tmp_path, {**NUMBERS, step: 0.004}, "dddddddd4", date="2026-01-04")
    done, page = run(tmp_path)
    assert "3 runs, the newest of dddddddd" in done.stdout, done.stderr
    assert [row[:2] for row in page.rows if row and row[0].startswith(("aaaa", "bbbb", "cccc", "dddd"))] == [
        ["aaaaaaaa", "2026-01-01"], ["cccccccc", "2026-01-03"], ["dddddddd", "2026-01-04"],
    ]  # fmt: skip
    assert "an EM step on n=1000 d=2 k=3, full, went from 1 ms to 4 ms" in " ".join(page.text.split())


@pytest.mark.parametrize("numbers", [None, {}])
def test_there_is_no_page_without_numbers(tmp_path, numbers):
    if numbers is not None:
        stored(tmp_path, numbers)
    done, page = run(tmp_path)
    assert done.returncode == 1
    assert "nothing to report" in done.stderr
    assert page is None
    assert not (tmp_path / "report.html").exists()


def test_numbers_of_other_benchmarks_alone_are_no_report(tmp_path):
    stored(tmp_path, {("startup.Import.track_modules", ""): 141})
    done, _ = run(tmp_path)
    assert done.returncode == 1
    assert "nothing to report" in done.stderr


def test_what_is_stored_of_the_machine():
    spec = importlib.util.spec_from_file_location("export", SCRIPT.with_name("export.py"))
    export = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(export)
    run = SimpleNamespace(
        params={"machine": "m", "cpu": "a CPU", "num_cpu": "2", "ram": "16800000000"}, commit_hash="0123456789abcdef",
        started_at={"first": 1767225600000, "second": 1767312000000},
    )  # fmt: skip
    found = json.loads(json.dumps(export.machine(run, None)))
    assert found["commit"] == run.commit_hash
    assert found["date"] == "2026-01-02"
    assert (found["cpu"], found["cores"], found["ram_gb"]) == ("a CPU", 2, 16.8)
    assert found["threads"] == emcore.kernels.default_threads()
    assert found["cpu_target"] == emcore.kernels.target()
    stored = json.loads((SCRIPT.parent / "results" / "machine.json").read_text())
    assert set(found) == set(stored)
