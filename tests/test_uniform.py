"""The model whose support depends on a parameter, and who refuses it."""

import warnings

import numpy as np
import pytest

import emcore
from emcore import diagnostics
from emcore.data import as_source
from emcore.models import UniformMixture
from emcore.objective import ModelObjective

START = {"weights": [0.5, 0.5], "endpoint": [1.0]}


@pytest.fixture(scope="module")
def rows():
    return UniformMixture(3.0).sample({"weights": [0.5, 0.5], "endpoint": [1.2]}, 200, np.random.default_rng(0))[0]


@pytest.mark.parametrize("start", [0.6, 1.0, 1.5])
def test_em_freezes_in_one_step_at_the_largest_row_not_above_the_start(start, rows):
    ends = []
    found = emcore.fit(
        UniformMixture(3.0), rows, solver="em", start=START | {"endpoint": [start]},
        callback=lambda step: ends.append(step.evaluation.point.params.endpoint[0]),
    )  # fmt: skip
    assert found.status.ok
    assert set(ends[1:]) == {rows[rows <= start].max()}
    assert np.isnan(found.measures.gradient)
    assert "frozen: the support depends on endpoint" in str(found)
    assert np.all(np.diff(found.trace.value) >= 0)


@pytest.mark.parametrize("name", [name for name in emcore.solvers.names() if name not in ("em", "auto")])
def test_all_other_solvers_refuse_it(name, rows):
    with pytest.raises(emcore.SupportError, match=r"depends on endpoint.*boundary term.*order statistics"):
        emcore.fit(UniformMixture(3.0), rows, solver=name, start=START)


def test_auto_is_em_alone(rows):
    found, em = (emcore.fit(UniformMixture(3.0), rows, solver=name, start=START) for name in ("auto", "em"))
    np.testing.assert_array_equal(found.trace.value, em.trace.value)
    assert set(found.trace.event[1:]) == {"em"}


def test_rules_and_diagnostics_refuse_it(rows):
    with pytest.raises(emcore.SupportError, match="gtol"):
        emcore.fit(UniformMixture(3.0), rows, solver="em", start=START, stop=emcore.Stop(gtol=1e-6))
    objective = ModelObjective(UniformMixture(3.0), as_source(rows))
    at = objective.point_of(objective.model.from_user(START))
    with pytest.raises(emcore.SupportError, match="endpoint"):
        diagnostics.fisher(objective, at)


def test_with_its_endpoint_fixed_it_is_as_others(rows):
    fits = [
        emcore.fit(UniformMixture(3.0), rows, solver=name, start=START, fixed={"endpoint": True}) for name in ("em", "lbfgs")
    ]
    assert fits[1].value == pytest.approx(fits[0].value, abs=1e-9)
    assert "frozen" not in str(fits[0])


def test_a_row_that_loses_its_density_is_said(rows):
    objective = ModelObjective(UniformMixture(3.0), as_source(rows))
    point = objective.model.params(np.array([1.0, 0.0]), np.array([2.9999]))
    inside = objective.evaluate(objective.point_of(objective.model.params(np.array([0.5, 0.5]), np.array([1.0]))))
    assert inside.failure is None
    lost = objective.evaluate(objective.point_of(point._replace(endpoint=np.array([0.5]))))
    assert "the support of the model depends on" in lost.failure.detail


@pytest.mark.parametrize(
    ("X", "match"), [([[1.0, 2.0]] * 3, "one column"), ([[1.0], [4.0]], "0 to upper"), ([[-1.0]] * 2, "0 to")]
)
def test_rows_outside_are_refused(X, match):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=match):
        emcore.fit(UniformMixture(3.0), X, start=START)


def test_round_trip(rows, tmp_path):
    found = emcore.fit(UniformMixture(3.0), rows, solver="em", start=START)
    found.save(tmp_path / "a.npz")
    again = emcore.load(tmp_path / "a.npz")
    assert again.moving_support == ("endpoint",)
    np.testing.assert_array_equal(again.params.endpoint, found.params.endpoint)
