"""`emcore.check` finds nothing wrong with the models of the house, on the data of every case."""

import pytest
from cases import CASES

import emcore


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_laws_hold_for_the_models_of_the_house(case):
    objective = case.objective()
    start = objective.model.to_user(case.start(objective).params)
    found = emcore.check(case.build(), case.data, sample_weight=case.weights, start=start)
    assert found.holds, f"\n{found}"
    tried = {law.name for law in found.laws}
    assert {"Fisher's identity", "the score is the slope of q", "the M-step is a maximum of q", "EM rises"} <= tried
