"""`emcore.check` finds nothing wrong with the models of the house, on the data of every case."""

import numpy as np
import pytest
from cases import CASES

import emcore
from emcore.models import UserMixture


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_laws_hold_for_the_models_of_the_house(case):
    objective = case.objective()
    start = objective.model.to_user(case.start(objective).params)
    found = emcore.check(case.build(), case.data, sample_weight=case.weights, start=start)
    assert found.holds, f"\n{found}"
    tried = {law.name for law in found.laws}
    slopes = set() if objective.moving_support else {"Fisher's identity", "the score is the slope of q"}
    assert slopes | {"the M-step is a maximum of q", "EM rises"} <= tried


# Families of a user's own: a log-density alone

ROWS = np.concatenate([np.random.default_rng(0).laplace(m, 1.0, 12) for m in (0.0, 6.0)])[:, None]
LOCATED = {"m": "real", "b": "positive"}
START = {"weights": [0.5, 0.5], "m": [0.1, 5.0], "b": [1.0, 2.0]}


def laplace(X, m, b):
    return -np.abs(X[:, 0] - m) / b - np.log(2 * b)


def pinball(X, m, b):
    z = (X[:, 0] - m) / b
    return -np.maximum(0.8 * z, -0.2 * z) + np.log(0.16 / b)


def normal(X, m, b):
    return -0.5 * (((X[:, 0] - m) / b) ** 2 + np.log(2 * np.pi)) - np.log(b)


def tail(X, m, b):
    return np.where(X[:, 0] >= m, -(X[:, 0] - m) / b - np.log(b), -np.inf)


def law_of(found, name):
    return next((law for law in found.laws if law.name == name), None)


@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e5])
@pytest.mark.parametrize("density", [laplace, pinball])
def test_a_kink_is_told_from_a_support_that_moves(density, unit):
    near = ROWS[np.argmin(np.abs(ROWS[:, 0] - 5.0)), 0] * (1 + 3e-5)  # to a row, so that differences see its kink
    start = START | {"m": unit * np.array([0.1, near]), "b": unit * np.array(START["b"])}
    found = emcore.check(UserMixture(2, density, LOCATED), unit * ROWS, start=start, max_passes=2)
    assert law_of(found, "smooth support").holds
    assert not law_of(found, "Fisher's identity").holds
    kinks = law_of(found, "smooth densities")
    assert not kinks.holds
    assert "has a kink where m passes them" in kinks.found
    assert "finite on both sides" in kinks.advice
    assert "moving_support" not in str(found)


def test_a_support_that_moves_is_told_from_a_kink():
    """Its density has an end, finite on one side and none on the other."""
    start = START | {"m": [float(ROWS.min()), float(ROWS.min()) - 3.0], "b": [4.0, 4.0]}
    found = emcore.check(UserMixture(2, tail, LOCATED), ROWS, start=start, max_passes=2)
    assert not law_of(found, "smooth support").holds
    assert "moving_support" in str(found)
    assert "kink" not in str(found)


def test_a_declared_support_that_moves_is_told_and_is_no_failure():
    rows = emcore.models.UniformMixture(3.0).sample({"weights": [0.5, 0.5], "endpoint": [1.2]}, 80, np.random.default_rng(0))[0]
    found = emcore.check(emcore.models.UniformMixture(3.0), rows)
    assert found.holds, f"\n{found}"
    assert "-      smooth support: declared to move with endpoint: Fisher's identity is not expected" in str(found)
    assert {"the M-step is a maximum of q", "EM rises"} < {law.name for law in found.laws}
    assert law_of(found, "Fisher's identity") is None


def between(X, low, high):
    return np.where((X[:, 0] >= low) & (X[:, 0] <= high), -np.log(np.abs(high - low)), -np.inf)


def ends(X, w, low, high):
    return {"low": X[w > 0, 0].min(), "high": X[w > 0, 0].max()}


@pytest.mark.parametrize(("declared", "left"), [((), "low, high"), (["low"], "high"), (["low", "high"], "")])
def test_of_supports_that_move_those_not_declared_fail(declared, left):
    model = UserMixture(1, between, dict.fromkeys(("low", "high"), "real"), m_step=ends, moving_support=declared)
    start = {"weights": [1.0], "low": [float(ROWS.min()) - 0.1], "high": [float(ROWS.max())]}
    law = law_of(emcore.check(model, ROWS, start=start, max_passes=5), "smooth support")
    assert law.holds == (not left)
    assert not left or f"when {left} moves" in law.found


def test_a_wrong_m_step_fails_where_a_declared_support_moves():
    def beyond(X, w, low, high):
        return {"low": X[w > 0, 0].min() - 1.0, "high": X[w > 0, 0].max() + 1.0}

    names = ["low", "high"]
    model = UserMixture(1, between, dict.fromkeys(names, "real"), m_step=beyond, moving_support=names)
    start = {"weights": [1.0], "low": [float(ROWS.min())], "high": [float(ROWS.max())]}
    found = emcore.check(model, ROWS, start=start, max_passes=5)
    assert not law_of(found, "the M-step is a maximum of q").holds
    assert law_of(found, "smooth support").holds


@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e5])
@pytest.mark.parametrize("density", [normal, lambda X, m, b: normal(X, m, b) - 1e3 * np.log(np.cosh((X[:, 0] - m) / b))])
def test_a_wrong_score_is_no_kink(density, unit):
    """Nor is a bend a kink."""
    model = UserMixture(2, density, LOCATED, score=lambda X, w, m, b: {"m": w.sum() / unit, "b": w.sum() / unit})
    start = START | {name: unit * np.array(START[name]) for name in LOCATED}
    found = emcore.check(model, unit * ROWS, start=start, max_passes=2)
    assert not law_of(found, "Fisher's identity").holds
    assert not law_of(found, "the score is the slope of q").holds
    assert law_of(found, "smooth densities") is None
