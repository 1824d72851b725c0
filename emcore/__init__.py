"""emcore: EM and gradient ascent on one shared pass over the data.

One E-step pass gives the expected sufficient statistics; from these same numbers come both the EM update and the exact
gradient of the log-likelihood (Fisher's identity). So every algorithm between EM and Newton runs on the same kernels, at the
same cost a pass, and can be compared honestly. Read on in `fit.py`, `solve.py`, `objective.py`, `models/gaussian.py`,
`kernels/_base.pyx`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emcore import data, kernels, models, objective, solvers
from emcore.accelerate import Acceleration, accelerate
from emcore.compare import Comparison, compare
from emcore.config import get_include, show_config
from emcore.fit import Fit, fit, load
from emcore.result import ConvergenceWarning, Failure, Result, Status, Stop, SupportError
from emcore.solve import solve
from emcore.study import Study, study

if TYPE_CHECKING:
    from emcore import diagnostics, experiments
    from emcore.laws import check

__all__ = [
    "Acceleration",
    "Comparison",
    "ConvergenceWarning",
    "Failure",
    "Fit",
    "Result",
    "Status",
    "Stop",
    "Study",
    "SupportError",
    "accelerate",
    "check",
    "compare",
    "data",
    "diagnostics",
    "experiments",
    "fit",
    "get_include",
    "kernels",
    "load",
    "models",
    "objective",
    "show_config",
    "solve",
    "solvers",
    "study",
]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: what no fit needs. Reading metadata alone costs more than the rest of the import.
    if name in ("diagnostics", "experiments"):
        return import_module(f"emcore.{name}")
    if name == "check":
        globals()["check"] = function = import_module("emcore.laws").check
        return function
    if name == "__version__":
        from importlib.metadata import version

        return version("emcore")
    raise AttributeError(f"module 'emcore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
