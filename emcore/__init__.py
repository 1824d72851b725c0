"""emcore: EM and gradient ascent on one shared pass over the data.

One E-step pass gives the expected sufficient statistics; from these same numbers come both the EM update and the exact
gradient of the log-likelihood (Fisher's identity). So every algorithm between EM and Newton runs on the same kernels, at the
same cost a pass, and can be compared honestly. Read on in `fit.py`, `solve.py`, `objective.py`, `models/gaussian.py`,
`kernels/_base.pyx`.
"""

from importlib.metadata import version
from pathlib import Path

from emcore import data, kernels, models, objective, solvers
from emcore.fit import Fit, fit, load
from emcore.result import ConvergenceWarning, Failure, Result, Status, Stop
from emcore.solve import solve

__version__ = version("emcore")

__all__ = [
    "ConvergenceWarning", "Failure", "Fit", "Result", "Status", "Stop", "data", "fit", "get_include", "kernels",
    "load", "models", "objective", "solve", "solvers",
]  # fmt: skip


def get_include() -> str:
    """Return the directory of ``emc.h``, for packages that cimport the kernels."""
    installed = Path(__file__).parent / "include"
    return str(installed if installed.is_dir() else Path(__file__).parents[1] / "src_c")
