"""What this installation is: versions, CPU targets, threads, the compiled interface, how it was built."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from emcore import kernels
from emcore._checks import one_of

__all__ = ["get_include", "show_config"]


def get_include() -> str:
    """Return the directory of ``emc.h``, for packages that cimport the kernels."""
    from pathlib import Path

    installed = Path(__file__).parent / "include"
    return str(installed if installed.is_dir() else Path(__file__).parents[1] / "src_c")


def show_config(mode: str = "stdout") -> dict[str, dict[str, Any]] | None:
    """Print what this installation is and what is in force, or return it.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Whether to print it or to return it, as in `numpy.show_config`.

    Returns
    -------
    dict of dict, or None
        "versions"; "cpu": the target in force, how it was chosen, and of each one built whether it runs here, where
        "target" is None and "chosen by" what is wrong with EMCORE_CPU, in words, if that is no such target; "threads",
        where "default" is what is wrong with EMCORE_NUM_THREADS, in words, if that is no number of threads;
        "interface": what compiled code of others needs; "build".

    Raises
    ------
    ValueError
        When `mode` is unknown.
    """
    one_of("mode", mode, ("stdout", "dicts"))
    found = _config()
    if mode == "dicts":
        return found
    width = max(len(name) for section in found.values() for name in section)
    for title, section in found.items():
        print(title)
        for name, value in section.items():
            print(f"  {name:<{width}}  {_text(value)}")
    return None


def _config() -> dict[str, dict[str, Any]]:
    # Not needed but here, and slow to load.
    import platform
    from importlib.metadata import version

    from emcore._build import BUILD

    target, chosen_by = _target()
    return {
        "versions": {
            "emcore": version("emcore"),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": version("scipy"),  # importing it costs more than all the rest
        },
        "cpu": {
            "target": target,
            "chosen by": chosen_by,
            "EMCORE_CPU": os.environ.get("EMCORE_CPU"),
            "runs": kernels.targets(),
            "float32 lanes": kernels.single_lanes(),
        },
        "threads": {
            "openmp": kernels.threaded(),
            "default": _default_threads(),
            "EMCORE_NUM_THREADS": os.environ.get("EMCORE_NUM_THREADS"),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "interface": {"abi": kernels.abi(), "include": get_include()},
        "build": dict(BUILD),
    }


def _default_threads() -> int | str:
    """Return how many threads a pass has unless told, or why none has any."""
    try:
        return kernels.default_threads()
    except ValueError as error:
        return str(error)


def _target() -> tuple[str | None, str]:
    """Return the CPU target in force and what put it there, or None and why no pass has any."""
    try:
        target = kernels.target()
    except ValueError as error:
        return None, str(error)
    if target == os.environ.get("EMCORE_CPU"):
        return target, "EMCORE_CPU"
    best = next(name for name, runs in kernels.targets().items() if runs)
    return target, "the best that runs here" if target == best else "select_target"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, list):
        return " ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not set" if value is None else str(value)
