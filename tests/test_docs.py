"""The documents: every experiment is in the gallery, and what they link to is there."""

import re
from pathlib import Path

import pytest

from emcore import experiments

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page):
    """Return the text of a page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(text):
    """Return the anchors that GitHub gives to the headings of a text."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE))
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


def test_the_gallery_has_every_experiment():
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [section.split("\n", 1)[0] for section in sections] == list(experiments.names())
    for section, (name, title) in zip(sections, experiments.names().items(), strict=True):
        assert f"{title} [Table](experiments/{name}.txt)." in section
        assert f"![{name}](experiments/{name}.png)" in section
        assert (ROOT / "docs" / "experiments" / f"{name}.txt").read_text(encoding="utf-8").startswith(f"{title}\n")
