"""Solvers: one algorithm a file, each seeing an `Objective` and nothing else."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emcore.solvers._base import Solver, State

if TYPE_CHECKING:
    from emcore.solvers.adam import Adam
    from emcore.solvers.anderson import Anderson
    from emcore.solvers.auto import Auto
    from emcore.solvers.cg import ConjugateGradient
    from emcore.solvers.daarem import DAAREM
    from emcore.solvers.em import EM
    from emcore.solvers.first_order_em import FirstOrderEM
    from emcore.solvers.gradient import GradientAscent
    from emcore.solvers.incremental import Incremental
    from emcore.solvers.lange import Lange
    from emcore.solvers.lbfgs import LBFGS
    from emcore.solvers.natural import Natural
    from emcore.solvers.newton import Newton
    from emcore.solvers.online import Online
    from emcore.solvers.proximal import Proximal
    from emcore.solvers.qn1 import QN1
    from emcore.solvers.qn2 import QN2
    from emcore.solvers.sparse import Sparse
    from emcore.solvers.squarem import SQUAREM
    from emcore.solvers.svrem import SVREM
    from emcore.solvers.zal import ZAL

__all__ = [
    "DAAREM", "EM", "LBFGS", "QN1", "QN2", "SQUAREM", "SVREM", "ZAL", "Adam", "Anderson", "Auto", "ConjugateGradient",
    "FirstOrderEM", "GradientAscent", "Incremental", "Lange", "Natural", "Newton", "Online", "Proximal", "Solver", "Sparse",
    "State", "get", "names",
]  # fmt: skip

# File -> solver in it, loaded when first asked for: a fit needs one of them, and all take longer than the rest of emcore. The
# public name is that of the file with "-" for "_". A solver stands in `__all__` too, and above for type checkers.
_SOLVERS = {
    "em": "EM",
    "gradient": "GradientAscent",
    "first_order_em": "FirstOrderEM",
    "lange": "Lange",
    "natural": "Natural",
    "cg": "ConjugateGradient",
    "lbfgs": "LBFGS",
    "squarem": "SQUAREM",
    "anderson": "Anderson",
    "daarem": "DAAREM",
    "zal": "ZAL",
    "qn1": "QN1",
    "qn2": "QN2",
    "newton": "Newton",
    "proximal": "Proximal",
    "incremental": "Incremental",
    "sparse": "Sparse",
    "online": "Online",
    "svrem": "SVREM",
    "adam": "Adam",
    "auto": "Auto",
}
_BY_NAME = {file.replace("_", "-"): solver for file, solver in _SOLVERS.items()}
_FILES = {solver: file for file, solver in _SOLVERS.items()}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def names() -> dict[str, str]:
    """Return what can be asked for by name: name -> what it is, in one line."""
    solvers = {name: __getattr__(solver) for name, solver in _BY_NAME.items()}
    return {name: " ".join((solver.__doc__ or "").split("\n\n")[0].split()) for name, solver in solvers.items()}


def get(solver: str | Solver[Any]) -> Solver[Any]:
    """Return the solver of that name with its default options, or the solver given.

    Raises
    ------
    ValueError
        When no solver has that name.
    TypeError
        When it is neither a name nor a solver.
    """
    if isinstance(solver, Solver):
        return solver
    if not isinstance(solver, str):
        raise TypeError(f"solver must be a name or a Solver, such as 'em' or EM(), got {solver!r}")
    if solver not in _BY_NAME:
        raise ValueError(f"solver must be one of {', '.join(map(repr, _BY_NAME))}, got {solver!r}")
    return __getattr__(_BY_NAME[solver])()
