"""Poisson linear inverse problems: the pass against the oracle, EM against Richardson and Lucy's iteration, limits."""

import math
import re

import numpy as np
import pytest
from cases import INVERSE, SMALL_PASS
from scipy.special import gammaln
from scipy.stats import gamma, poisson

import emcore
from emcore.data import Block, as_source
from emcore.kernels import Coupled, Mixture, run, run_dot
from emcore.kernels import PoissonInverse as InverseKernel
from emcore.models import Gamma, PoissonInverse
from emcore.objective import ModelObjective
from emcore.result import Status, Stop, rounding
from emcore.solve import solve
from emcore.solvers import EM

every_case = pytest.mark.parametrize("case", INVERSE, ids=str)


def parts(case):
    """Return K, y, weights and background."""
    K, y = case.data
    return K, y, case.w, case.build().emission.background


@every_case
def test_value_score_m_step_and_products_are_the_textbooks(case):
    objective = case.objective()
    K, y, w, b = parts(case)
    at, other = case.somewhere(objective), case.somewhere(objective, seed=1)
    x = at.params.intensities
    mean = K @ x + b
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ poisson.logpmf(y, mean) / w.sum(), rel=1e-13)
    seen, ratio = w @ K, (w * y / mean) @ K
    score = objective.model.score(at.params, e.stats).intensities
    np.testing.assert_allclose(score, ratio - seen, rtol=1e-11, atol=1e-11)
    lucy = x * ratio / seen
    np.testing.assert_allclose(e.em_point.params.intensities, lucy, rtol=1e-12)
    step = objective.model.metric(at.params, e.stats, objective.model.params(score)).intensities
    np.testing.assert_allclose(x + step, lucy, rtol=1e-12)
    H = -(K.T * (w * y / mean**2)) @ K / w.sum()
    original = case.objective(coordinates="original")
    found = original.hvp(original.evaluate(original.point_of(at.params)), np.eye(len(x)))
    np.testing.assert_allclose(found, H, rtol=1e-10, atol=1e-12 * np.abs(H).max())
    change = [objective.q(p, e.stats) * w.sum() for p in (other, at)]
    z = other.params.intensities
    assert change[0] - change[1] == pytest.approx(lucy * seen @ np.log(z / x) - seen @ (z - x), rel=1e-11)


LAYOUTS = {
    "fortran": np.asfortranarray,
    "more columns": lambda K: np.pad(K, ((0, 0), (1, 2)))[:, 1:-2],
    "rows strided": lambda K: np.repeat(K, 3, axis=0)[::3],
    "columns strided": lambda K: np.repeat(K, 2, axis=1)[:, ::2],
    "rows backwards": lambda K: K[::-1].copy()[::-1],
    "backwards": lambda K: K[::-1, ::-1].copy()[::-1, ::-1],
    "float32": lambda K: K.astype("f4"),
    "int32": lambda K: K.astype("i4"),
    "mapped": lambda K: np.frombuffer(b"x" + K.tobytes(), dtype="u1")[1:].view(K.dtype).reshape(K.shape),  # not aligned
}


@pytest.mark.parametrize("d", [1, 3, 8, 17, 70])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_give_the_same_however_they_lie(layout, d, target):
    """Rows of neighbours are read where they are, others are packed; what has no weight may be anything."""
    rng = np.random.default_rng(d)
    K = rng.integers(1, 9, size=(1001, d)).astype(float)
    x, moves = rng.uniform(0.5, 2.0, size=d), rng.normal(size=(2, d))
    y, w = rng.poisson(K @ x + 1.0).astype(float)[:, None], rng.uniform(size=1001) * rng.integers(3, size=1001)
    emission = InverseKernel(x, 1.0, moves)
    kernel = Coupled(Mixture(np.zeros(1), np.zeros((2, 1))), emission, emission.panel_rows())
    found = []
    for rows in (K, LAYOUTS[layout](K)):
        stats, dots, row_loglik = np.zeros(kernel.n_stats), np.zeros((2, kernel.n_stats)), np.zeros(len(K))
        sums = run(kernel, Block((rows, y), w), stats=stats, row_loglik=row_loglik)
        run_dot(kernel, Block((rows, y), w), dots)
        found.append([stats, dots, row_loglik, sums])
    neighbours = ("more columns", "rows strided", "rows backwards")
    in_place = layout in neighbours or (d == 1 and layout in ("fortran", "columns strided", "backwards"))
    assert kernel.needs_packed(rows) == (not in_place)
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=0 if in_place else 1e-13 * np.abs(a).max())
    expected = poisson.logpmf(y[:, 0], K @ x + 1.0)
    np.testing.assert_allclose(row_loglik, expected, rtol=1e-12)
    np.testing.assert_allclose(stats[3:], [*(x * ((w * y[:, 0] / (K @ x + 1.0)) @ K)), *(w @ K)], rtol=1e-13)
    if np.issubdtype(rows.dtype, np.floating):
        wrong = K.copy()
        wrong[w == 0] = np.nan
        again, dots_again, wrong = np.zeros_like(stats), np.zeros_like(dots), LAYOUTS[layout](wrong)
        assert wrong.strides == rows.strides
        assert run(kernel, Block((wrong, y), w), stats=again) == sums
        run_dot(kernel, Block((wrong, y), w), dots_again)
        np.testing.assert_array_equal(again, stats)
        np.testing.assert_array_equal(dots_again, dots)


def test_richardson_lucy_deblurs_what_was_blurred():
    """Two rails, blurred and counted on a background: the likelihood rises, and the rails come out."""
    position = np.arange(40)
    K = np.exp(-0.5 * np.square((position[:, None] - position) / 2.0))
    K /= K.sum(axis=0)
    rails = np.where((position == 14) | (position == 24), 400.0, 1.0)
    y, _ = PoissonInverse(0.3).sample({"intensities": rails}, 40, np.random.default_rng(0), X=K)
    with pytest.warns(emcore.ConvergenceWarning):
        found = emcore.fit(PoissonInverse(0.3), (K, y), stop=Stop(gain=0, max_passes=200))
    assert np.all(np.diff(found.trace.value) >= -rounding(found.evaluation.scale))
    assert {*np.argsort(found.params.intensities)[-2:]} == {14, 24}
    assert found.params.intensities @ K.sum(axis=0) + 40 * 0.3 == pytest.approx(y.sum(), rel=0.05)


def test_densities_files_and_responsibilities(tmp_path):
    case = INVERSE[0]
    K, y, _, b = parts(case)
    found = emcore.fit(case.build(), (K, y), random_state=0, stop=Stop(gain=1e-10))
    expected = poisson.logpmf(y, K @ found.params.intensities + b)
    np.testing.assert_allclose(found.log_density((K, y)), expected, rtol=1e-12)
    assert found.log_likelihood == pytest.approx(expected.sum(), rel=1e-13)
    assert np.array_equal(found.responsibilities((K, y)), np.ones((len(y), 1)))
    found.save(tmp_path / "fit")
    again = emcore.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.log_density((K, y)), found.log_density((K, y)))
    assert repr(again.model) == repr(found.model)
    counts, _ = found.sample(len(K), random_state=0, X=K)
    assert counts.shape == y.shape
    errors = found.standard_errors().intensities
    H = (K.T * (y / (K @ found.params.intensities + b) ** 2)) @ K
    np.testing.assert_allclose(errors, np.sqrt(np.diag(np.linalg.inv(H))), rtol=1e-5)


def test_a_source_that_is_not_there_is_a_boundary():
    K = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.5, 0.0]])
    found = emcore.fit(PoissonInverse(), (K, [7, 0, 7]), stop=Stop(gain=1e-13))
    assert found.status is Status.BOUNDARY
    assert "the intensity of source 1 is 0" in found.boundary
    e = ModelObjective(PoissonInverse(), as_source((K, [7, 0, 7])), n_threads=1)
    at = e.point_of(e.model.params(np.array([7.0, 0.0, 0.0])))
    assert e.evaluate(at).value == pytest.approx((2 * poisson.logpmf(7, 7)) / 3, rel=1e-13)
    nowhere = e.evaluate(e.point_of(e.model.params(np.zeros(3))))
    assert nowhere.value == -math.inf
    assert nowhere.failure.where == "row 0"


def test_a_source_that_no_row_sees_stays():
    K = np.array([[1.0, 0.0], [2.0, 0.0], [1.5, 0.0]])
    with pytest.warns(UserWarning, match="K is 0 in column 1: the intensities stay where they start"):
        found = emcore.fit(PoissonInverse(), (K, [3, 8, 5]), start={"intensities": [1.0, 2.5]})
    np.testing.assert_allclose(found.params.intensities, [16 / 4.5, 2.5])


def test_a_prior_is_rows_seen_before():
    case, prior = INVERSE[0], Gamma(3.0, 2.0)
    K, y, _, b = parts(case)
    objective = ModelObjective(PoissonInverse(b, prior=prior), case.source(), n_threads=1)
    at = case.somewhere(case.objective())
    e = objective.evaluate(objective.point_of(at.params))
    density = gamma(3.0, scale=0.5).logpdf(at.params.intensities).sum()
    assert e.value * len(y) == pytest.approx(poisson.logpmf(y, K @ at.params.intensities + b).sum() + density, rel=1e-12)
    climb = solve(objective, EM(), e.point, stop=Stop(gain=0, gtol=1e-9))
    assert climb.status.ok
    np.testing.assert_allclose(climb.evaluation.gradient, 0.0, atol=1e-9)


@pytest.mark.parametrize("d", [1, 3, 10, 48, 50, 150])  # panels of 512 rows, of fewer in the middle
@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("float32", "int32"), ("int64", "int64")], ids=str)
def test_a_pass_of_many_panels_is_numpys(target, d, dtypes):
    """Counts in and beyond the table of factorials, rows of weight 0 that hold anything, rows of any type."""
    rng, n, b = np.random.default_rng(d), SMALL_PASS // (3 + 2 * d) + 1001, 0.75  # enough for threads
    K = rng.integers(5, size=(n, d)).astype(dtypes[0])
    x = np.where(np.arange(d) % 4 == 3, 0.0, rng.uniform(0.5, 3.0, size=d))
    mean = K.astype(float) @ x + b
    y = rng.poisson(mean)
    y[::50] = rng.poisson(400.0, size=len(y[::50]))
    w = rng.integers(3, size=n) * rng.uniform(size=n)
    used = np.flatnonzero(w > 0)
    y = y.astype(dtypes[1])[:, None]
    if dtypes[0].startswith("float"):
        K[np.flatnonzero(w == 0)[::2]] = np.nan
        K[np.flatnonzero(w == 0)[1::2]] = -np.inf
    v = rng.normal(size=(2, d))
    latent = Mixture(np.zeros(1), np.zeros((2, 1)))
    emission, block = InverseKernel(x, b, v), Block((K, y), weights=w)
    kernel = Coupled(latent, emission, emission.panel_rows())
    stats, dots = np.zeros(kernel.n_stats), np.zeros((2, kernel.n_stats))
    done = run(kernel, block, stats=stats, n_threads=1)
    assert run_dot(kernel, block, dots, n_threads=1).bad_row == -1
    again = np.zeros_like(stats)
    assert n * kernel.n_stats >= SMALL_PASS
    run(kernel, block, stats=again, n_threads=3)
    K, y, w, mean = K[used].astype(float), y[used, 0].astype(float), w[used], mean[used]
    logs = poisson.logpmf(y, mean)
    seen, moved = w @ K, K @ v.T
    expected = [w.sum(), w.sum(), -w @ (gammaln(y + 1) + b), *(x * ((w * y / mean) @ K)), *seen]
    np.testing.assert_array_equal(again, stats)
    np.testing.assert_allclose(stats, expected, rtol=1e-12, atol=1e-9)
    assert done.loglik == pytest.approx(w @ logs, rel=1e-12)
    assert done.scale == pytest.approx(w @ np.abs(logs), rel=1e-12)
    for dot, u, m in zip(dots, v, moved.T, strict=True):
        wanted = u * ((w * y / mean) @ K) - x * ((w * y / mean**2 * m) @ K)
        np.testing.assert_allclose(dot, [0, 0, 0, *wanted, *np.zeros(d)], rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


BAD = {
    "X: PoissonInverse is a model of responses: the data must be a tuple (X, y)": lambda: emcore.fit(
        PoissonInverse(), np.ones((3, 2))
    ),
    "K must hold numbers >= 0: row 1 has -1.0": lambda: emcore.fit(PoissonInverse(), (np.array([[1.0], [-1.0]]), [1, 2])),
    "y must hold counts, whole numbers >= 0: row 1 has 2.5": lambda: emcore.fit(PoissonInverse(), (np.ones((2, 1)), [1, 2.5])),
    "y must hold no counts where K and the background are 0: row 0 has 1": lambda: emcore.fit(
        PoissonInverse(), (np.array([[0.0], [1.0]]), [1, 2])
    ),
    "start: intensities must be >= 0, that of source 0 is -1.0": lambda: emcore.fit(
        PoissonInverse(), (np.ones((2, 1)), [1, 2]), start={"intensities": [-1.0]}
    ),
    "background must be a finite number >= 0": lambda: PoissonInverse(-1.0),
    "X must be the matrix K, (n, d) for draws of PoissonInverse": lambda: PoissonInverse().sample(
        {"intensities": [1.0]}, 3, np.random.default_rng(0)
    ),
    "X must be the matrix K, (n, d), with 1 columns": lambda: PoissonInverse().sample(
        {"intensities": [1.0]}, 3, np.random.default_rng(0), X=np.ones((3, 2))
    ),
    "tangents must have shape (m, 2)": lambda: InverseKernel(np.ones(2), 0.0, np.ones((1, 3))),
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BAD[message]()
