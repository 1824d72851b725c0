"""Objectives and solvers that break at what their names say."""

from dataclasses import dataclass

from emcore.objective import ModelObjective
from emcore.result import Breakdown, Failure, Status
from emcore.solvers import EM


class NoHessian(ModelObjective):
    def hvp(self, at, V):
        raise Breakdown(Failure(Status.NON_FINITE, "Hessian product"))


class BrokenMetric(ModelObjective):
    def precondition(self, at, stats, v):
        raise Breakdown(Failure(Status.NON_FINITE, "metric"))


@dataclass(frozen=True)
class Struck(EM):
    """EM that is interrupted before it begins."""

    name = "struck"

    def init(self, objective, at):
        raise KeyboardInterrupt
