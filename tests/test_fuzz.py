"""Passes over whatever data there can be: any shape, layout, type, weights and magnitude; any target, either way through.

Each property is one of the laws. `EMCORE_FUZZ=1` (`make fuzz`) tries a hundred times as many examples, other ones each time.
"""

import os
import re
import warnings

import numpy as np
import pytest
from cases import SMALL_PASS, TARGETS, in_force, one_pass
from gaussians import LAYOUTS, Setup
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

import emcore
import emcore.kernels as kernels
from emcore.data import as_source
from emcore.models import COVARIANCES, GaussianMixture
from emcore.result import ConvergenceWarning, Status

MORE = 100 if os.environ.get("EMCORE_FUZZ") else 1
few, some = settings(max_examples=25 * MORE), settings(max_examples=60 * MORE)

EDGES = (1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1023, 1025, 2047, 2049)
rows_of_a_pass = st.sampled_from(EDGES) | st.integers(1, 2100)
columns = st.sampled_from((1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 33)) | st.integers(1, 20)
components = st.sampled_from((1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33)) | st.integers(1, 20)
layouts = {
    **LAYOUTS,
    "read-only": lambda X: locked(X),
    "offset": lambda X: np.pad(X, ((1, 2), (3, 1)))[1:-2, 3:-1],
    "as it is": lambda X: X,
}


def locked(X):
    X = X.copy()
    X.setflags(write=False)
    return X


@st.composite
def weights_of(draw, n):
    """None, or weights with zeros among them, of one order of magnitude or of many."""
    kind = draw(st.sampled_from(["none", "some zero", "whole", "tiny", "huge", "any size"]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    if kind == "none":
        return None
    if kind == "whole":
        return rng.integers(0, 4, size=n).astype(float)
    w = rng.uniform(0.1, 2.0, size=n) * (rng.uniform(size=n) < 0.8)
    factor = {"some zero": 1.0, "tiny": 1e-200, "huge": 1e200, "any size": 10.0 ** rng.uniform(-60, 60, size=n)}[kind]
    return w * factor


@st.composite
def passes(draw):
    """A mixture, rows in some layout and weights."""
    kind, d, k, n = draw(st.sampled_from(COVARIANCES)), draw(columns), draw(components), draw(rows_of_a_pass)
    setup = Setup(kind, d, k, seed=draw(st.integers(0, 9)), spread=draw(st.sampled_from([0.0, 0.5, 2.0, 10.0, 1e3])))
    dtype = draw(st.sampled_from(["f8", "f4", "i8", "i4"]))
    X = np.round(4 * setup.rows(n, seed=draw(st.integers(0, 9)))).astype(dtype)
    return setup, layouts[draw(st.sampled_from(sorted(layouts)))](X), draw(weights_of(n))


def fused_kernel(setup, threshold, shortcuts, single):
    """Return the kernel that a mixture of Gaussians has of its own, at the parameters of `setup`."""
    options = {}
    if shortcuts:
        L = np.broadcast_to(setup.whitening, (setup.k, setup.d, setup.d))
        slopes = setup.means
        options["guess"] = (slopes, -0.5 * np.einsum("cj,cj->c", slopes, slopes))
        white = np.einsum("cij,gcj->gci", L, setup.means[:, None] - setup.means)
        length = np.linalg.norm(white, axis=2, keepdims=True)
        unit = np.divide(white, length, out=np.zeros_like(white), where=length > 0)
        options["directions"] = np.einsum("gci,cij->gcj", unit, L)
    return kernels.GaussianMixture(
        np.log(setup.weights), *setup.arguments, diagonal=setup.diagonal, pooled=setup.pooled, threshold=threshold,
        single=single, **options,
    )  # fmt: skip


@some
@given(case=passes(), name=st.sampled_from(TARGETS), shortcuts=st.booleans())
def test_both_passes_are_the_oracles(case, name, shortcuts):
    setup, X, w = case
    weights = np.ones(len(X)) if w is None else w
    Z, resp, row_loglik = setup.oracle(X.astype(float))
    statistics, size = setup.statistics(Z, weights, resp)
    scale = weights @ np.abs(row_loglik)
    # A responsibility is as exact as the log-densities that it comes from.
    digits = 1e-13 * (10 + np.abs(row_loglik).max() + setup.d * np.abs(setup.means).max() ** 2)
    threshold = 37.0 + np.log(max(len(X), setup.k))
    with in_force(name):
        coupled = setup.kernel()
        dense = fused_kernel(setup, np.inf, False, False)
        sparse = fused_kernel(setup, threshold, shortcuts, False)
        for kernel in (coupled, dense, sparse):
            sums, stats = one_pass(kernel, X, w)
            assert np.isfinite(stats).all()
            assert np.all(np.abs(stats - statistics) <= digits * (size + weights.sum() * np.square(Z).max(initial=1.0)))
            assert sums.loglik == pytest.approx(weights @ row_loglik, abs=digits * scale)
            assert sums.weight == pytest.approx(weights.sum(), rel=1e-12)
            assert sums.bad_row == -1
        left, full = one_pass(sparse, X, w)[1], one_pass(dense, X, w)[1]
        beyond = np.square(Z[:, None] - setup.means).max(initial=1.0)
        assert np.all(np.abs(left - full) <= 1e-12 * size + weights.sum() * np.exp(-threshold) * beyond * len(X))


@few
@given(case=passes(), name=st.sampled_from(TARGETS), threads=st.integers(2, 4), single=st.booleans())
def test_layouts_and_threads_change_no_bit(case, name, threads, single):
    setup, X, w = case
    many = SMALL_PASS // (len(X) * setup.kernel().n_stats) + 1  # enough for threads to start
    with in_force(name):
        for kernel in (setup.kernel(), fused_kernel(setup, 60.0, True, single)):
            sums, stats = one_pass(kernel, X, w)
            again, same = one_pass(kernel, np.ascontiguousarray(X), None if w is None else w.copy())
            np.testing.assert_array_equal(same, stats)
            assert again == sums
            if setup.k * setup.d < 40:
                rows, weights = np.tile(X, (many, 1)), None if w is None else np.tile(w, many)
                sums, stats = one_pass(kernel, rows, weights)
                again, same = one_pass(kernel, rows, weights, n_threads=threads)
                np.testing.assert_array_equal(same, stats)
                assert again == sums


@few
@given(
    case=passes(),
    name=st.sampled_from(TARGETS),
    value=st.sampled_from([np.nan, np.inf, -np.inf, 1e200, -1.7e308]),
    data=st.data(),
)
def test_a_bad_row_is_named_unless_it_has_no_weight(case, name, value, data):
    setup, X, w = case
    X = X.astype(float)
    at, column = data.draw(st.integers(0, len(X) - 1)), data.draw(st.integers(0, setup.d - 1))
    X[at, column] = value
    weights = np.ones(len(X)) if w is None else w
    with in_force(name):
        for kernel in (setup.kernel(), fused_kernel(setup, np.inf, False, False), fused_kernel(setup, 50.0, True, True)):
            sums, stats = one_pass(kernel, X, w)
            assert sums.bad_row == (at if weights[at] > 0 else -1)
            assert weights[at] > 0 or np.isfinite(stats).all()


# Whole fits: finite or a named failure

# What may be said of such data before the first pass.
REFUSED = "|".join(
    (
        "X spans more than float64 can add up in column",
        "X varies by .* in column .*, too little for float64 to square",
        "X varies in column .* in rows only that weigh next to nothing",
        "X has .* rows of positive weight, fewer than",
        "sample_weight is all zero",
        "start: .* finds no valid parameters here. Failed: ",
    )
)


@st.composite
def matrices(draw):
    """Rows of any magnitude: each column has its own size and offset; constant, denormal and discrete columns among them."""
    n, d = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    columns = []
    for _ in range(d):
        exponent = draw(st.sampled_from([-320, -310, -300, -160, -20, 0, 20, 150, 160, 300, 307]))
        offset = draw(st.sampled_from([0.0, 1.0, -1e8]))
        shape = draw(st.sampled_from(["normal", "constant", "two values", "one far", "cauchy"]))
        z = {
            "normal": lambda: rng.normal(size=n),
            "constant": lambda: np.ones(n),
            "two values": lambda: rng.integers(0, 2, size=n).astype(float),
            "one far": lambda: np.append(rng.normal(size=n - 1), 1e9),
            "cauchy": lambda: rng.standard_cauchy(size=n),
        }[shape]()
        with np.errstate(over="ignore", under="ignore"):
            column = (z + offset) * 10.0**exponent if exponent >= -300 else (z + offset) * 1e-300 * 10.0 ** (exponent + 300)
        columns.append(np.clip(column, -1.7e308, 1.7e308))
    return np.column_stack(columns)


@some
@given(
    X=matrices(),
    kind=st.sampled_from(COVARIANCES),
    k=st.integers(1, 5),
    solver=st.sampled_from(["em", "lbfgs", "cg", "gradient"]),
    data=st.data(),
)
def test_a_fit_is_finite_or_says_why_not(X, kind, k, solver, data):
    w = data.draw(weights_of(len(X)))
    sparse, reg = data.draw(st.booleans()), data.draw(st.sampled_from([0.0, 1e-6]))
    if data.draw(st.booleans()):
        with np.errstate(over="ignore"):
            X = X.astype(np.float32)
    assume(np.isfinite(X).all())
    model = GaussianMixture(k, kind, sparse=sparse, reg=reg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        try:
            fit = emcore.fit(model, X, solver=solver, sample_weight=w, random_state=0, stop=emcore.Stop(max_passes=15))
        except ValueError as refused:
            event(why := str(refused))
            if re.match(REFUSED, why):
                return
            raise
    assert isinstance(fit.status, Status)
    assert np.isfinite(fit.value) or fit.failure is not None
    if np.isfinite(fit.value):
        for values in fit.params:
            assert not np.isnan(values).any()
        assert fit.params.weights.sum() == pytest.approx(1.0)


@few
@given(
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    dtype=st.sampled_from(["f8", "f4", "f2"]),
    n=st.integers(1, 70),
    d=st.integers(1, 5),
    data=st.data(),
)
def test_what_is_not_finite_is_refused_by_name(value, dtype, n, d, data):
    X = np.random.default_rng(0).normal(size=(n, d)).astype(dtype)
    row, column = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, d - 1))
    X[row, column] = value
    with pytest.raises(ValueError, match=rf"X must be finite: row {row}, column {column} is -?(nan|inf)"):
        as_source(X, block_rows=data.draw(st.sampled_from([1, 7, 64])))
    w = np.ones(n)
    w[row] = value
    with pytest.raises(ValueError, match=rf"sample_weight must be finite and >= 0: that of row {row} is"):
        as_source(np.zeros((n, d)), w)
