"""A climb that is broken off and gone on with takes the same steps, to the last bit, through a file too."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from cases import CASES, OTHERS, SMALL, SOLVERS, USER, refused

import emcore
from emcore import ConvergenceWarning, Stop, solvers
from emcore.data import as_source
from emcore.models import GaussianMixture, PoissonMixture
from emcore.solve import solve
from emcore.solvers import State
from emcore.solvers._base import replace as changed

X = emcore.data.faithful()
START = {"weights": [0.5, 0.5], "means": [[2.0, 60.0], [4.0, 70.0]], "covariances": [np.diag([1.0, 100.0])] * 2}


def same_bits(a, b):
    assert a.value == b.value
    np.testing.assert_array_equal(a.theta, b.theta)
    for x, y in zip(a.point.params, b.point.params, strict=True):
        np.testing.assert_array_equal(x, y)


def steps(n):
    """A callback that ends a climb after n steps."""
    return lambda step: step.row.step >= n


@pytest.mark.parametrize("case", SMALL + OTHERS, ids=str)
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_goes_on_bit_for_bit(solver, case):
    if refused(solver, case):
        return
    method = solvers.get(solver)
    objective = case.objective()
    at, stop = case.somewhere(objective), Stop(gain=0)
    whole = solve(objective, method, at, stop=stop, callback=steps(7))
    first = solve(objective, method, at, stop=stop, callback=steps(3))
    passes = objective.passes
    state = method.state_type().restored(objective, first.state.arrays())
    assert objective.passes == passes
    second = solve(objective, method, state, stop=stop, callback=steps(7 - first.steps))  # or it ends of itself, as the whole
    same_bits(whole, second)
    assert second.passes == pytest.approx(whole.passes - first.passes)
    np.testing.assert_array_equal(second.trace.value, whole.trace.value[first.steps :])


def test_a_state_is_plain_arrays():
    objective = SMALL[0].objective()
    at = SMALL[0].somewhere(objective)
    for solver in SOLVERS:
        state = solve(objective, solvers.get(solver), at, callback=steps(3)).state
        arrays = state.arrays()
        assert all(isinstance(a, np.ndarray) and a.dtype != object for a in arrays.values()), solver
        with pytest.raises(ValueError, match="does not fit"):
            objective.restore(arrays["point.theta"][:-1], {}, (arrays["current.vector"], np.empty(0), 1.0), 0.0, 1.0)


def fit(start, n, **options):
    return emcore.fit(GaussianMixture(2), X, start=start, stop=Stop(gain=0), callback=steps(n), **options)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_fit_goes_on_where_it_was_saved(solver, tmp_path):
    whole, first = fit(START, 6, solver=solver), fit(START, 2, solver=solver)
    first.save(tmp_path / "fit.npz")
    for earlier in (first, emcore.load(tmp_path / "fit.npz")):
        second = fit(earlier, whole.steps - first.steps, solver=solver)
        same_bits(whole, second)
        assert second.start == "where that climb ended"
        assert second.passes == pytest.approx(whole.passes - first.passes)
        second.save(tmp_path / "again.npz")
        same_bits(emcore.load(tmp_path / "again.npz"), whole)


def test_another_climb_starts_from_the_parameters():
    earlier = fit(START, 3)
    for options in ({"solver": "lbfgs"}, {"coordinates": "original"}, {"sample_weight": np.full(len(X), 2.0)}):
        with pytest.warns(ConvergenceWarning):
            again = emcore.fit(GaussianMixture(2), X, start=earlier, stop=Stop(gain=0, max_passes=1), **options)
        assert again.start == "given parameters"
        assert again.steps == 0
        for a, b in zip(again.params, earlier.params, strict=True):
            np.testing.assert_array_equal(a, b)


FIXED = (None, {"means": [[True, False], [False, False]]}, {"means": [[False, True], [False, False]]}, {"weights": True})


@pytest.mark.parametrize("before", range(len(FIXED)))
@pytest.mark.parametrize("after", range(len(FIXED)))
def test_a_climb_goes_on_where_the_same_entries_are_fixed_and_starts_anew_where_not(before, after):
    first = fit(START, 3, solver="lbfgs", fixed=FIXED[before])
    second = fit(first, 3, solver="lbfgs", fixed=FIXED[after])
    assert second.start == ("where that climb ended" if before == after else "given parameters")
    if before == after:
        same_bits(fit(START, 6, solver="lbfgs", fixed=FIXED[before]), second)
    for name, mask in (FIXED[after] or {}).items():
        np.testing.assert_array_equal(getattr(second.params, name)[mask], getattr(first.params, name)[mask])


def test_other_counts_make_another_climb():
    rng = np.random.default_rng(0)
    rows = [rng.poisson(rate, size=(60, 1)) for rate in (3.0, 5.0)]
    earlier = emcore.fit(PoissonMixture(2), rows[0], random_state=0, stop=Stop(gain=1e-4))
    again = emcore.fit(PoissonMixture(2), rows[1], start=earlier, stop=Stop(gain=1e-4))
    assert again.start == "given parameters"
    assert again.log_likelihood == pytest.approx(again.log_density(rows[1]).sum(), rel=1e-12)


@pytest.mark.filterwarnings("ignore::emcore.result.ConvergenceWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_other_data_of_the_same_form_make_another_climb(case, tmp_path):
    stop, n = Stop(max_passes=4), len(case.X)
    build = partial(emcore.fit, case.build(), stop=stop, solver="em", random_state=0)
    earlier = build(case.data, sample_weight=case.weights)
    earlier.save(tmp_path / "fit.npz")
    load = partial(emcore.load, tmp_path / "fit.npz", model=case.build() if case in USER else None)
    order = np.random.default_rng(0).permutation(n)
    X, y = case.data if isinstance(case.data, tuple) else (case.data, None)
    changed = {
        "order": ((X[order], None if y is None else y[order]), case.weights),
        "weights": ((X, y), np.arange(1.0, n + 1)),
        "blocks": (as_source(case.data, case.weights, block_rows=n - 1, missing=case.build().takes_missing), None),
    }
    if y is not None:
        changed["responses"] = (X, y[order]), case.weights
    for what, (data, weights) in changed.items():
        data = (data if y is not None else data[0]) if isinstance(data, tuple) else data
        for start in (earlier, load()):
            again = emcore.fit(case.build(), data, sample_weight=weights, start=start, stop=stop, solver="em")
            assert again.start == "given parameters", what
    again = build(case.data, sample_weight=case.weights, start=load())
    assert again.start == "where that climb ended"


def test_a_finished_fit_goes_on_to_a_smaller_tolerance():
    rough = emcore.fit(GaussianMixture(2), X, start=START, stop=Stop(gain=1e-4))
    fine = emcore.fit(GaussianMixture(2), X, start=rough, stop=Stop(gain=1e-12))
    at_once = emcore.fit(GaussianMixture(2), X, start=START, stop=Stop(gain=1e-12))
    same_bits(fine, at_once)
    assert 0 < fine.steps == at_once.steps - rough.steps
    with pytest.raises(ValueError, match="n_starts must be 1"):
        emcore.fit(GaussianMixture(2), X, start=rough, n_starts=2)


def test_a_state_that_was_not_evaluated_cannot_be_written_down():
    state = fit(START, 1).state
    with pytest.raises(ValueError, match="only an evaluated state"):
        replace(state, current=None).arrays()


def test_a_state_changes_in_its_fields_alone():
    state = replace(State(None, None, event="em"), event="fell")
    assert changed(state, event="em") == replace(state, event="em")
    with pytest.raises(TypeError, match="State has no field evnt"):
        changed(state, evnt="em")
