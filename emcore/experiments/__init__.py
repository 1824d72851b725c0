"""The papers' experiments, each redone by one call: ``emcore reproduce``.

An experiment ends in a table of numbers beside their references, which says where each reference is from, and in a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emcore.experiments._base import Experiment, Line, Outcome
from emcore.experiments.accelerators import Accelerators
from emcore.experiments.balakrishnan import MissingCovariates, SymmetricMixture, SymmetricRegressions
from emcore.experiments.deblurring import Deblurring
from emcore.experiments.lange import LangeStep
from emcore.experiments.learning_rate import LearningRate
from emcore.experiments.linkage import LinkagePath
from emcore.experiments.mirror_descent import MirrorDescent
from emcore.experiments.neal_hinton import NealHinton
from emcore.experiments.overlap import Overlap
from emcore.experiments.proximal_rates import ProximalRates
from emcore.experiments.ten_steps import TenSteps
from emcore.experiments.uniform import UniformEndpoint
from emcore.experiments.xu_jordan import XuJordan

if TYPE_CHECKING:
    from emcore.experiments._base import Tick

__all__ = ["Experiment", "Line", "Outcome", "get", "names", "reproduce"]

_EXPERIMENTS: tuple[type[Experiment], ...] = (
    XuJordan, Overlap, SymmetricMixture, SymmetricRegressions, MissingCovariates, ProximalRates, NealHinton, Accelerators,
    LearningRate, TenSteps, LangeStep, MirrorDescent, LinkagePath, Deblurring,
    UniformEndpoint,
)  # fmt: skip
_BY_NAME = {experiment.name: experiment for experiment in _EXPERIMENTS}


def names() -> dict[str, str]:
    """Return what can be asked for by name: name -> what it shows, in one line."""
    return {name: experiment().title for name, experiment in _BY_NAME.items()}


def get(name: str) -> Experiment:
    """Return the experiment of this name.

    Raises
    ------
    ValueError
    """
    if name not in _BY_NAME:
        raise ValueError(f"experiment must be one of {', '.join(map(repr, _BY_NAME))}, got {name!r}")
    return _BY_NAME[name]()


def reproduce(
    wanted: Iterable[str] = (), *, folder: str | Path | None = None, quick: bool = False, tick: Tick = lambda what: None
) -> Iterator[Outcome]:
    """Yield the outcome of each experiment as it is done.

    Parameters
    ----------
    wanted : iterable of str
        Names, in this order; all of `names` by default.
    folder : path, optional
        Where picture, table and settings of each are written; made where it is missing.
    quick : bool
        Fewer trials and sizes.
    tick : callable
        Called with a few words whenever a part begins.

    Raises
    ------
    ValueError
        When a name is unknown: before anything is done.
    ImportError
        When pictures are wanted and matplotlib is not installed.
    """
    experiments = [get(name) for name in wanted or _BY_NAME]
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
    return _each(experiments, folder, quick, tick)


def _each(experiments: list[Experiment], folder: Path | None, quick: bool, tick: Tick) -> Iterator[Outcome]:
    for experiment in experiments:
        tick(experiment.name)
        outcome = experiment.run(quick=quick, tick=tick)
        if folder is not None:
            outcome.write(folder)
        yield outcome
