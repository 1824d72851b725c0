"""The documents: links lead somewhere, snippets run and give what stands beside them, the gallery is whole."""

import re
from pathlib import Path

import gallery
import numpy as np
import pytest
from pages import DOCS, ROOT, blocks, needs_pages, run, text

import emcore
from emcore import experiments

README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

pytestmark = needs_pages


# Links


def prose(page):
    """Return the text of a page without its code blocks."""
    return FENCE.sub("", text(page))


def anchors(prose):
    """Return the anchors that GitHub gives to the headings of a text."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ +(.*?) *$", prose, re.MULTILINE))
    return {words.replace(" ", "-") for words in kept}


def broken(page):
    """Return the relative links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(prose(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(prose(target))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# A title, of `two` words\n\n```\n# no title\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#a-title-of-two-words) [c](https://x.org/y#z) [d](#own)\n\n## Own\n"
        "[e](gone.md) ![f](gone.png) [g](there.md#no-title) [h](#other)\n\n```\n[i](code.md)\n```\n"
    )
    assert broken(page) == ["gone.md", "gone.png", "there.md#no-title", "#other"]


# What pages run and show


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A directory of its own for what a page writes: pictures, for which Matplotlib must be there."""
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed: the page draws")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_runs(elsewhere, capsys):
    page = text(README)
    scope = run(page)
    likelihood = "  log-likelihood -1130.263960 (sum), -4.1553822066 (mean per unit weight)\n"
    assert likelihood in page
    assert likelihood in capsys.readouterr().out
    assert scope["result"].status.ok
    assert (elsewhere / "race.png").is_file()
    assert scope["stop"] == emcore.Stop()
    gain = scope["em"].trace.gain
    rate = scope["race"].relation.rate.rate
    assert (gain[-1] / gain[-2]) ** 0.5 == pytest.approx(rate, abs=0.005)
    assert f"without a pass: {rate:.2f}" in page
    assert scope["info"].fractions[-1] == pytest.approx(rate, abs=1e-4)
    lower, upper = scope["info"].intervals(0.95).means
    means = scope["race"].best.params.means
    assert np.all((lower < means) & (means < upper))


def test_the_page_on_comparing_runs(elsewhere):
    page = text(DOCS / "comparing.md")
    for long, short in (("n_starts=20", "n_starts=1"), ("max_passes=20_000", "max_passes=50")):
        assert long in page
        page = page.replace(long, short)
    study = run(page)["study"]
    assert (elsewhere / "study.png").is_file()
    table = re.search(r"^reached, %.*?\n-.*?\n(.*?)```", page, flags=re.S | re.M)[1]
    assert {line.split()[0] for line in table.splitlines()} == {climb.solver for climb in study.climbs}


def test_the_page_on_families_of_ones_own_runs():
    scope = run(text(DOCS / "own_families.md"))
    assert scope["fit"].status.ok
    assert scope["found"].holds, str(scope["found"])


@pytest.mark.parametrize(("fence", "name"), [("cython", "exponential.pyx"), ("py", "exponential.py")])
def test_the_compiled_form_on_the_page_is_that_of_the_example(fence, name):
    """The example is compiled and run by other tests; the page leaves out some of its lines and has none of its own."""
    (block,) = blocks(text(DOCS / "own_families.md"), fence)
    example = iter((Path(__file__).parent / "cython_example" / name).read_text().splitlines())  # in this order
    lines = [line for line in block.splitlines() if line.strip()]
    assert lines
    assert [line for line in lines if line not in example] == []


# The gallery of experiments


def test_the_gallery_has_every_experiment():
    sections = re.split(r"^## ", text(DOCS / "experiments.md"), flags=re.MULTILINE)[1:]
    assert [section.split("\n", 1)[0] for section in sections] == list(experiments.names())
    for section, (name, title) in zip(sections, experiments.names().items(), strict=True):
        assert f"{title} [Table](experiments/{name}.txt)." in section
        assert f"![{name}](experiments/{name}.png)" in section
        assert text(DOCS / "experiments" / f"{name}.txt").startswith(f"{title}\n")


# Those that take less than 5 seconds: `make gallery-check` redoes all.
QUICKLY = ("lange", "linkage", "mirror-descent", "ten-steps", "uniform")


@pytest.mark.parametrize("name", QUICKLY)
def test_the_gallery_shows_what_the_code_gives(name):
    page, table = text(DOCS / "experiments" / f"{name}.txt"), str(experiments.get(name).run())
    assert gallery.stale(page, table) == []


HEAD = ("Title.", "", "   reference  ours  difference  held to  source")
ROWS = (
    "a  0.5  0.5  0.0e+00  within 1e-08  theory", "b  -  3  -  shown", "passes of c  -  200  -  shown",
    "passes of d  30  20  -1e+01  shown  seen", "e  <= 0.5  0.3  -2.0e-01  bound  ours",
    "f  0  4e-16  4.0e-16  within 1e-14  theory", "g  0  0.123  1.2e-01  within 0.5  ours",
    "h after 2 passes  -  70.5  -  shown",
)  # fmt: skip
PAGE = "\n".join((*HEAD, *ROWS, "", "Words."))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.0e+00", "1.0e-17"), ("0.5  0.5", "0.5  0.500001"), ("200", "210"), ("<= 0.5", "<= 0.500001"), ("4e-16", "9e-16"),
        ("0.123", "0.1239"), ("a ", "a     "),
    ],
)  # fmt: skip
def test_rounding_makes_no_page_stale(old, new):
    assert gallery.stale(PAGE, PAGE.replace(old, new)) == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("0.5  0.5", "0.5  0.5001", ["a"]), ("0.5  0.5", "0.5001  0.5", ["a"]), ("0.5  0.5", "0.5  nan", ["a"]),
        ("within 1e-08", "within 1e-07", ["a"]), ("3  -  shown", "4  -  shown", ["b"]), ("3  -  shown", "3  -  equal", ["b"]),
        ("b  -", "b  3", ["b"]), ("200", "230", ["passes of c"]), ("30  20", "30  21", ["passes of d"]),
        ("30  20", "31  20", ["passes of d"]), ("seen", "paper", ["passes of d"]), ("<= 0.5", ">= 0.5", ["e"]),
        ("<= 0.5", "<= 0.6", ["e"]), ("0.123", "0.125", ["g"]), ("70.5", "71", ["h after 2 passes"]),
        ("\nb ", "\nz ", ["b", "z", "order"]), (f"{ROWS[1]}\n", "", ["b", "order"]), ("Words", "Others", ["notes"]),
        ("\n".join(ROWS[:2]), "\n".join(ROWS[1::-1]), ["order"]),
    ],
)  # fmt: skip
def test_a_page_that_is_stale_is_found(old, new, what):
    assert gallery.stale(PAGE, PAGE.replace(old, new)) == what


def test_what_is_stale_is_told_line_by_line(tmp_path):
    with pytest.raises(SystemExit, match="has no tables"):
        gallery.compare(tmp_path)
    page = text(DOCS / "experiments" / "linkage.txt")
    (tmp_path / "linkage.txt").write_text(page, encoding="utf-8")
    (tmp_path / "new.txt").write_text(page, encoding="utf-8")
    assert [line.split(":")[0] for line in gallery.compare(tmp_path)] == ["new"]
    (tmp_path / "new.txt").unlink()
    assert gallery.compare(tmp_path) == []
    (tmp_path / "linkage.txt").write_text(page.replace("0.608247", "0.608347"), encoding="utf-8")
    what, told, found = gallery.compare(tmp_path)
    assert what == "linkage: EM's step 1"
    assert told.startswith("    page  0.608247  0.608247  ")
    assert found.startswith("    now   0.608347  0.608347  ")
