"""Data sets that ship with the package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["faithful", "linkage", "london_deaths"]


def faithful() -> NDArray[np.float64]:
    """Return the Old Faithful geyser data, (272, 2): eruption time and waiting time to the next eruption, in minutes.

    Notes
    -----
    R's ``datasets::faithful``; Azzalini and Bowman (1990), "A look at some data on the Old Faithful geyser", Applied
    Statistics 39, 357-365.
    """
    return _table("faithful")


def linkage() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the cells of 197 animals, whose genetic linkage they are to tell.

    Returns
    -------
    cells : ndarray (4, 1)
        0 to 3.
    animals : ndarray (4,)
        How many were in each, 125, 18, 20 and 34: the weights of the rows.

    Notes
    -----
    Rao (1965), "Linear statistical inference and its applications"; Dempster, Laird and Rubin (1977), "Maximum likelihood from
    incomplete data via the EM algorithm", Journal of the Royal Statistical Society B 39, 1-38.
    """
    return np.arange(4)[:, None], np.array([125.0, 18.0, 20.0, 34.0])


def london_deaths() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the deaths of women aged 80 and over as The Times of London published them, a day, in 1910 to 1912.

    Returns
    -------
    deaths : ndarray (10, 1)
        0 to 9.
    days : ndarray (10,)
        On how many days there were so many, 1096 in all: the weights of the rows.

    Notes
    -----
    Hasselblad (1969), "Estimation of finite mixtures of distributions from the exponential family", Journal of the American
    Statistical Association 64, 1459-1471.
    """
    table = _table("london_deaths")
    return table[:, :1].astype(np.int64), table[:, 1].copy()


def _table(name: str) -> NDArray[np.float64]:
    from importlib.resources import files

    with files("emcore.data").joinpath(f"{name}.csv").open() as file:
        return np.loadtxt(file, delimiter=",", skiprows=1)
