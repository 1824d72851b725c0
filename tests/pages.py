"""The pages of the documents, for the tests of what stands in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

needs_pages = pytest.mark.skipif(not DOCS.is_dir(), reason="the tests do not stand beside the documents")


def text(path):
    """Return what stands on a page."""
    return path.read_text(encoding="utf-8")


def blocks(page, language):
    """Return the code blocks of a language in the text of a page; it must have some."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.S | re.M)
    assert found, f"no block of {language}"
    return found


def run(page):
    """Run the Python in the text of a page, block after block, and return the names that it leaves behind."""
    scope = {}
    for block in blocks(page, "python"):
        exec(block, scope)
    return scope
