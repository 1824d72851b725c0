"""EM where it is fast and QN2 where it is not: when the choice is made, and that it costs little."""

import numpy as np
import pytest
from cases import CASES

from emcore import Status, Stop, solvers
from emcore.solve import solve

STOP = Stop(gain=1e-12, max_passes=5000)
SEVERAL = [case for case in CASES if "-k1-" not in case.name]


def climb(case, solver, seed):
    objective = case.objective()
    return solve(objective, solvers.get(solver), case.somewhere(objective, seed), stop=STOP)


@pytest.mark.parametrize("case", [c for c in SEVERAL if "overlapping" in c.name], ids=str)
def test_it_leaves_em_where_em_is_slow_and_says_why(case):
    result = climb(case, "auto", 0)
    switches = [e for e in result.trace.event if e.startswith("switched at rate ")]
    em = climb(case, "em", 0)
    assert result.status.ok
    if em.passes > 60:
        assert switches
        assert 0.6 < float(switches[0].rsplit(" ", 1)[1]) < 1.5
        assert result.passes < em.passes


@pytest.mark.parametrize("case", [c for c in SEVERAL if "separated" in c.name], ids=str)
def test_it_is_em_where_em_is_fast(case):
    auto, em = climb(case, "auto", 0), climb(case, "em", 0)
    if em.passes < 6:
        np.testing.assert_array_equal(auto.trace.value, em.trace.value)
        assert set(auto.trace.event[1:]) <= {"em"}


def test_it_costs_little_more_than_the_better_of_em_and_lbfgs():
    ratios = []
    for case in SEVERAL:
        for seed in (20, 21):
            auto, *others = (climb(case, name, seed) for name in ("auto", "em", "lbfgs"))
            best = max(r.value for r in others)
            passes = [r.passes for r in others if r.value > best - 1e-8]
            if abs(auto.value - best) < 1e-8:
                ratios.append(auto.passes / min(passes))
    assert len(ratios) >= 0.9 * 2 * len(SEVERAL)
    assert np.median(ratios) <= 1.0
    assert np.percentile(ratios, 95) <= 1.3


def test_where_qn2_finds_no_way_up_em_goes_on(monkeypatch):
    from dataclasses import replace

    from emcore.result import Failure
    from emcore.solvers import QN2

    monkeypatch.setattr(QN2, "step", lambda self, objective, state: replace(state, failure=Failure(Status.NO_ASCENT)))
    case = next(c for c in SEVERAL if "full-k3-d2-overlapping" in c.name)
    auto, em = climb(case, "auto", 0), climb(case, "em", 0)
    assert auto.status.ok
    assert "fell back" in auto.trace.event
    np.testing.assert_array_equal(auto.trace.value, em.trace.value)
