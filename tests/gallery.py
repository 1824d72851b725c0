"""The gallery, `docs/experiments/`: whether its tables are what the experiments give now.

    python tests/gallery.py FOLDER

compares those that `emcore reproduce --output FOLDER` wrote, tells each line that differs, and exits with 1 if one does.
Numbers are compared, not digits: the same sums in another order, as on another CPU target, move the last ones.
"""

import math
import re
import sys
from pathlib import Path

GALLERY = Path(__file__).parents[1] / "docs" / "experiments"

DIGITS = 5e-5  # relative
ROUNDING = 1e-10  # so much of a number that is 0 but for rounding
MOST = 1e-3  # what is held to within a tolerance may differ by as much, but by no more than this
# The path of a search hangs on the last digit, and so do counts of passes once it is long. Ratios of counts do as well.
LONG, PASSES = 50, 0.1
COUNTED = re.compile("passes (of|to|over)")


def parts(table):
    """Return the rows of a table of an experiment by quantity, each as its cells, and the notes below."""
    _, rows, *notes = table.strip().split("\n\n")
    cells = [re.split(r" {2,}", row.strip()) for row in rows.splitlines()[1:]]
    return {quantity: tuple(others) for quantity, *others in cells}, notes


def near(a, b, held, counted):
    """Tell whether two numbers, or bounds, or words, say the same of what is held to this, and may be a count of passes."""
    try:
        (*one, x), (*other, y) = (cell.split() for cell in (a, b))
        x, y = float(x), float(y)
    except ValueError:
        return a == b
    if one != other:
        return False
    within = re.search(r"within (\S+)", held)
    away = max(ROUNDING, min(float(within[1]), MOST) if within else 0.0)
    loose = counted and (max(x, y) > LONG or not (x.is_integer() and y.is_integer()))
    return x == y or math.isclose(x, y, rel_tol=PASSES if loose else DIGITS, abs_tol=away)


def same(quantity, told, found):
    """Tell whether two rows say the same. Their differences are not looked at: those are of the numbers beside them."""
    if len(told) != len(found):
        return False
    (known, ours, _, *how), (reference, now, _, *rest) = told, found
    return how == rest and all(near(a, b, how[0], COUNTED.search(quantity)) for a, b in ((known, reference), (ours, now)))


def stale(page, table):
    """Return what of a page is not that of a table: quantities of rows, "notes", "order"."""
    (told, notes), (found, others) = parts(page), parts(table)
    wrong = [q for q in {**told, **found} if not (q in told and q in found and same(q, told[q], found[q]))]
    return wrong + ["notes"] * (notes != others) + ["order"] * (list(told) != list(found))


def compare(folder):
    """Return what is stale in the gallery, told in lines, going by the tables in a folder; there must be some."""
    tables = sorted(folder.glob("*.txt"))
    if not tables:
        raise SystemExit(f"{folder} has no tables: emcore reproduce --output {folder} writes them")
    lines = []
    for path in tables:
        if not (GALLERY / path.name).is_file():
            lines.append(f"{path.stem}: not in {GALLERY}")
            continue
        page, table = ((where / path.name).read_text(encoding="utf-8") for where in (GALLERY, folder))
        (told, _), (found, _) = parts(page), parts(table)
        for what in stale(page, table):
            lines.append(f"{path.stem}: {what}")
            lines += [f"    {who}  {'  '.join(rows[what])}" for who, rows in (("page", told), ("now ", found)) if what in rows]
    return lines


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    wrong = compare(folder)
    print(*(wrong or [f"The tables in {folder} are those of the gallery."]), sep="\n")
    sys.exit(bool(wrong))
