"""Data sets that ship with the package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["faithful"]


def faithful() -> NDArray[np.float64]:
    """Return the Old Faithful geyser data, (272, 2): eruption time and waiting time to the next eruption, in minutes.

    Notes
    -----
    R's ``datasets::faithful``; Azzalini and Bowman (1990), "A look at some data on the Old Faithful geyser", Applied
    Statistics 39, 357-365.
    """
    from importlib.resources import files

    with files("emcore.data").joinpath("faithful.csv").open() as file:
        return np.loadtxt(file, delimiter=",", skiprows=1)
