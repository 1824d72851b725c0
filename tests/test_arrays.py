"""Densities, responsibilities and statistics on plain arrays against the NumPy oracle; what they refuse; where they write."""

import tracemalloc

import numpy as np
import pytest
from cases import GAUSSIAN, SMALL
from hypothesis import given
from hypothesis import strategies as st
from reference import gmm
from scipy.stats import multivariate_normal

import emcore
from emcore.data import as_source
from emcore.data import source as data_source
from emcore.kernels import COVARIANCES, Statistics, log_density, responsibilities, statistics

every_case = pytest.mark.parametrize("case", GAUSSIAN, ids=str)
every_covariance = pytest.mark.parametrize("kind", COVARIANCES)
FUNCTIONS = {function.__name__: function for function in (log_density, responsibilities, statistics)}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


class Mix:
    """Parameters of a Gaussian mixture in the units of rows, and rows around them."""

    def __init__(self, kind, k=3, d=4, seed=0):
        rng = np.random.default_rng((seed, k, d))
        self.kind, self.k, self.d = kind, k, d
        self.weights = rng.dirichlet(np.full(k, 3.0))
        self.means = 2.0 * rng.normal(size=(k, d)) + 5.0
        self.covariances = gmm.draw_covariances(kind, k, d, rng)

    @property
    def params(self):
        return self.weights, self.means, self.covariances

    def rows(self, n, seed=1):
        rng = np.random.default_rng(seed)
        return self.means[rng.integers(self.k, size=n)] + rng.normal(size=(n, self.d))

    def call(self, name, X, **options):
        """Return the answer of a function as a list of arrays."""
        got = FUNCTIONS[name](X, *self.params, covariance=self.kind, **options)
        return [np.asarray(part) for part in got] if isinstance(got, Statistics) else [got]


def oracle(kind, X, w, weights, means, covariances):
    """Return responsibilities, log-densities of the rows, the vector of statistics and that of absolute terms."""
    k, d = means.shape
    resp, rows = gmm.posterior(gmm.log_density(X, means, gmm.expand(kind, covariances, k, d)), weights)
    values, sizes = gmm.statistics(X, w, resp, means, kind)
    vectors = [np.concatenate([[w @ f(rows)], v[k:]]) for f, v in ((lambda a: a, values), (np.abs, sizes))]
    return resp, rows, *vectors


def flat(kind, result):
    """Return statistics as one vector, lower triangles packed."""
    second = result.second
    if kind in ("full", "tied"):
        rows, cols = np.tril_indices(second.shape[-1])
        np.testing.assert_array_equal(second, np.swapaxes(second, -1, -2))
        second = second[..., rows, cols]
    return np.concatenate([[result.loglik], result.count, result.sum.ravel(), second.ravel()])


# Against the oracle


@every_case
def test_they_are_the_oracles(target, case):
    objective = case.objective()
    model = objective.model
    params = model.to_user(case.somewhere(objective).params)
    kind, w = model.emission.covariance, case.w
    resp, rows, vector, size = oracle(kind, case.X, w, *params)
    np.testing.assert_allclose(log_density(case.X, *params, covariance=kind), rows, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(responsibilities(case.X, *params, covariance=kind), resp, rtol=1e-9, atol=1e-12)
    got = statistics(case.X, *params, covariance=kind, sample_weight=case.weights)
    assert np.all(np.abs(flat(kind, got) - vector) <= 1e-11 * (size + 1e-3))
    assert type(got.loglik) is float
    assert got.loglik == pytest.approx(case.total * objective.evaluate(case.somewhere(objective)).value, rel=1e-12)


@pytest.mark.parametrize("case", [case for case in SMALL if case in GAUSSIAN], ids=str)
def test_an_em_step_is_made_of_the_statistics(case):
    objective = case.objective()
    at = case.somewhere(objective)
    params = objective.model.to_user(at.params)
    kind = objective.model.emission.covariance
    count, total, second = statistics(case.X, *params, covariance=kind, sample_weight=case.weights)[1:]
    delta = total / count[:, None]
    outer = delta[:, :, None] * delta[:, None, :]
    covariances = {
        "full": lambda: second / count[:, None, None] - outer,
        "tied": lambda: (second - np.einsum("c,cij->ij", count, outer)) / count.sum(),
        "diag": lambda: second / count[:, None] - delta**2,
        "spherical": lambda: (second / count - np.sum(delta**2, axis=1)) / case.X.shape[1],
    }[kind]()
    em = objective.model.to_user(objective.evaluate(at).em_point.params)
    for got, want in zip((count / count.sum(), params.means + delta, covariances), em, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def test_one_gaussian_is_scipys():
    mix = Mix("full", k=1, d=5)
    X = mix.rows(200)
    want = multivariate_normal(mix.means[0], mix.covariances[0]).logpdf(X)
    np.testing.assert_allclose(log_density(X, [1], mix.means, mix.covariances), want, rtol=1e-12)


@every_covariance
def test_they_are_those_of_a_fit(kind):
    X = Mix(kind).rows(300)
    fit = emcore.fit(emcore.models.GaussianMixture(2, kind), X, start="random-points", random_state=0)
    np.testing.assert_allclose(log_density(X, *fit.params, covariance=kind), fit.log_density(X), rtol=1e-12)
    np.testing.assert_allclose(responsibilities(X, *fit.params, covariance=kind), fit.responsibilities(X), atol=1e-12)
    assert statistics(X, *fit.params, covariance=kind).loglik == pytest.approx(fit.log_likelihood, rel=1e-12)


def test_nothing_is_left_out():
    """Small responsibilities keep all their digits."""
    X, means = np.array([[0.0], [1.0]]), np.array([[0.0], [30.0]])
    params = [0.5, 0.5], means, [1.0, 1.0]
    small = responsibilities(X, *params, covariance="spherical")[:, 1]
    np.testing.assert_allclose(small, np.exp([-450.0, 0.5 - 420.5]), rtol=1e-12)
    assert statistics(X, *params, covariance="spherical").count[1] == pytest.approx(small.sum(), rel=1e-12)


def test_a_component_of_weight_zero_takes_nothing():
    mix = Mix("full", k=2)
    X = mix.rows(50)
    alone = log_density(X, [1.0], mix.means[:1], mix.covariances[:1])
    np.testing.assert_array_equal(log_density(X, [1.0, 0.0], mix.means, mix.covariances), alone)
    got = statistics(X, [1.0, 0.0], mix.means, mix.covariances)
    assert got.count[1] == 0.0
    assert not got.second[1].any()


# Units


@every_covariance
def test_an_offset_changes_no_bit(kind):
    mix = Mix(kind)
    X, far = np.round(8 * mix.rows(100)) / 8, 2.0**40
    mix.means = np.round(8 * mix.means) / 8
    near = mix.call("log_density", X) + mix.call("responsibilities", X) + mix.call("statistics", X)
    mix.means = mix.means + far
    there = mix.call("log_density", X + far) + mix.call("responsibilities", X + far) + mix.call("statistics", X + far)
    for a, b in zip(near, there, strict=True):
        np.testing.assert_array_equal(a, b)


@every_covariance
@pytest.mark.parametrize("power", [-300, -30, 30, 300])
def test_units_of_measurement(kind, power):
    mix, unit = Mix(kind), 2.0**power
    X = mix.rows(100)
    rows, (loglik, count, total, second) = mix.call("log_density", X)[0], mix.call("statistics", X)
    mix.means, mix.covariances = mix.means * unit, mix.covariances * unit**2
    shift = mix.d * np.log(unit)
    np.testing.assert_allclose(mix.call("log_density", X * unit)[0], rows - shift, rtol=1e-14, atol=1e-12)
    scaled = mix.call("statistics", X * unit)
    assert scaled[0] == pytest.approx(loglik - 100 * shift, rel=1e-13)
    for got, want in zip(scaled[1:], (count, total * unit, second * unit**2), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=0)


# Rows and their weights


LAYOUTS = {
    "fortran": np.asfortranarray,
    "strided": lambda X: np.repeat(np.repeat(X, 3, axis=0), 2, axis=1)[::3, ::2],
    "reversed": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "float32": lambda X: X.astype("f4"),
    "float16": lambda X: X.astype("f2"),
    "int64": lambda X: X.astype("i8"),
    "int32": lambda X: X.astype("i4"),
    "int8": lambda X: X.astype("i1"),
    "big endian": lambda X: X.astype(">f8"),
    "list": lambda X: X.tolist(),
    "tuple": lambda X: tuple(map(tuple, X.tolist())),
}


@every_function
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_dtypes_change_no_bit(name, layout):
    mix = Mix("full")
    X = np.round(mix.rows(600))
    for got, want in zip(mix.call(name, LAYOUTS[layout](X)), mix.call(name, X), strict=True):
        np.testing.assert_array_equal(got, want)


@every_function
@every_covariance
def test_float32_rows_are_worked_on_in_float64(name, kind, target):
    mix = Mix(kind, k=5, d=7)
    X = mix.rows(3000).astype(np.float32)
    for got, want in zip(mix.call(name, X), mix.call(name, X.astype(float)), strict=True):
        np.testing.assert_array_equal(got, want)


@every_function
def test_a_tuple_is_a_table_of_rows(name):
    """Two of them are not taken for rows and their responses."""
    mix = Mix("full")
    X = mix.rows(2)
    for got, want in zip(mix.call(name, tuple(X)), mix.call(name, X), strict=True):
        np.testing.assert_array_equal(got, want)


@every_function
def test_read_only_rows_and_parameters(name):
    mix = Mix("full")
    X = mix.rows(100)
    want = mix.call(name, X)
    for array in (X, *mix.params):
        array.setflags(write=False)
    for got, other in zip(mix.call(name, X), want, strict=True):
        np.testing.assert_array_equal(got, other)


@every_function
def test_parameters_in_any_layout_stay_as_they_are(name):
    mix = Mix("tied")
    X = mix.rows(100)
    want, before = mix.call(name, X), [np.copy(p) for p in mix.params]
    mix.weights, mix.means = mix.weights.tolist(), np.asfortranarray(mix.means)
    mix.covariances = np.repeat(mix.covariances, 2, axis=0)[::2]
    for got, other in zip(mix.call(name, X), want, strict=True):
        np.testing.assert_array_equal(got, other)
    for now, then in zip(mix.params, before, strict=True):
        np.testing.assert_array_equal(now, then)


@every_covariance
def test_sample_weights_are_rows_repeated_and_dropped(kind):
    mix = Mix(kind)
    X, w = mix.rows(300), np.random.default_rng(2).integers(0, 4, size=300)
    repeated = mix.call("statistics", np.repeat(X, w, axis=0))
    X[w == 0] = np.nan
    for got, want in zip(mix.call("statistics", X, sample_weight=w), repeated, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-10)


@given(n=st.integers(1, 700), cut=st.floats(0, 1), kind=st.sampled_from(COVARIANCES), k=st.integers(1, 5), d=st.integers(1, 6))
def test_statistics_add_over_rows(n, cut, kind, k, d):
    mix = Mix(kind, k, d)
    X, m = mix.rows(n), int(cut * n)
    whole = statistics(X, *mix.params, covariance=kind)
    parts = [statistics(part, *mix.params, covariance=kind) for part in (X[:m], X[m:]) if len(part)]
    for i, total in enumerate(whole):
        np.testing.assert_allclose(sum(part[i] for part in parts), total, rtol=1e-11, atol=1e-10)


@every_function
@every_covariance
def test_blocks_and_threads(name, kind, monkeypatch):
    mix = Mix(kind, k=8, d=6)
    X = mix.rows(40_000)
    whole = mix.call(name, X)
    for got, want in zip(mix.call(name, X, n_threads=2), whole, strict=True):
        np.testing.assert_array_equal(got, want)
    monkeypatch.setattr(data_source, "BLOCK_BYTES", 0)  # the smallest blocks
    for got, want in zip(mix.call(name, X), whole, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-8 if name == "statistics" else 0)


def test_statistics_allocate_nothing_of_the_rows():
    mix = Mix("full", k=8)
    X = mix.rows(50_000)
    statistics(X, *mix.params)
    tracemalloc.start()
    try:
        statistics(X, *mix.params)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# Where they write


@every_function
@every_covariance
def test_out_is_overwritten_and_returned(name, kind):
    mix = Mix(kind)
    X = mix.rows(100)
    want = mix.call(name, X)
    shape = {"log_density": (100,), "responsibilities": (100, 3), "statistics": (1 + 3 + 12 + want[-1].size,)}[name]
    out = np.full(shape, np.nan)
    got = FUNCTIONS[name](X, *mix.params, covariance=kind, out=out)
    if name == "statistics":
        assert got.loglik == out[0]
        assert all(np.shares_memory(part, out) for part in got[1:])
        np.testing.assert_array_equal(out, np.concatenate([np.ravel(part) for part in want]))
    else:
        assert got is out
        np.testing.assert_array_equal(out, want[0])


def locked(shape):
    out = np.empty(shape)
    out.setflags(write=False)
    return out


BAD_OUTS = {
    "list": (lambda s: [0.0], TypeError, "out must be a float64 ndarray, got a list"),
    "float32": (lambda s: np.empty(s, "f4"), TypeError, "out must be a float64 ndarray, got float32"),
    "masked": (lambda s: np.ma.zeros(s), TypeError, "out must be a float64 ndarray, got a MaskedArray"),
    "byte order": (lambda s: np.empty(s, ">f8"), TypeError, "out must be a float64 ndarray, got >f8"),
    "shape": (lambda s: np.empty((s[0] + 1, *s[1:])), ValueError, "out must have shape"),
    "strided": (lambda s: np.empty((2 * s[0], *s[1:]))[::2], ValueError, "out must be C-contiguous, aligned and writeable"),
    "read-only": (locked, ValueError, "out must be C-contiguous, aligned and writeable"),
}


@every_function
@pytest.mark.parametrize("bad", BAD_OUTS)
def test_bad_outs_are_refused(name, bad):
    mix = Mix("diag")
    make, error, message = BAD_OUTS[bad]
    shape = {"log_density": (50,), "responsibilities": (50, 3), "statistics": (28,)}[name]
    with pytest.raises(error, match=message):
        mix.call(name, mix.rows(50), out=make(shape))


@every_function
def test_out_over_the_rows_is_refused(name):
    mix = Mix("diag", k=4)
    X = mix.rows(50)
    flat_rows = X.reshape(-1)
    out = {"log_density": flat_rows[:50], "responsibilities": X, "statistics": flat_rows[: 1 + 4 + 16 + 16]}[name]
    with pytest.raises(ValueError, match="out must not share memory with X"):
        mix.call(name, X, out=out)


# What they refuse

GOOD = {"X": [[0.0, 1.0], [2.0, 0.5]], "weights": [0.4, 0.6], "means": [[0, 0], [1, 1]], "covariances": [np.eye(2)] * 2}
BAD = {
    "X one-dimensional": ({"X": [1.0, 2.0]}, ValueError, "X must have two dimensions"),
    "X text": ({"X": [["a", "b"]]}, TypeError, "X must be numeric"),
    "X complex": ({"X": [[1j, 2]]}, TypeError, "X must be numeric"),
    "X a pair": ({"X": (np.zeros((5, 2)), np.zeros((5, 2)))}, ValueError, r"X must have two dimensions .*shape \(2, 5, 2\)"),
    "X and y": ({"X": (np.zeros((5, 2)), np.zeros(5))}, ValueError, "X must be a table of numbers, its rows of one length"),
    "X a source with responses": ({"X": as_source((np.zeros((5, 2)), np.zeros(5)))}, ValueError, "got a source with responses"),
    "X a source with missing values": (
        {"X": as_source([[0.0, np.nan]], missing=True)}, ValueError, "X must be rows alone, got a source with missing values",
    ),
    "X ragged": ({"X": [[1, 2], [3]]}, ValueError, "X must be a table of numbers, its rows of one length"),
    "X empty": ({"X": np.empty((0, 2))}, ValueError, "X is empty"),
    "X not finite": ({"X": [[0.0, np.nan]]}, ValueError, "X must be finite: row 0, column 1 is nan"),
    "X masked": ({"X": np.ma.array([[0.0, 1.0]], mask=[[0, 1]])}, TypeError, "X is a masked array"),
    "weights shape": ({"weights": [1.0]}, ValueError, r"weights must have shape \(2,\) \(one a row of means\), got \(1,\)"),
    "weights negative": ({"weights": [-0.5, 1.5]}, ValueError, "weights must be >= 0, that of component 0 is -0.5"),
    "weights sum": ({"weights": [0.4, 0.5]}, ValueError, "weights must sum to 1, they sum to 0.9"),
    "weights nan": ({"weights": [np.nan, 0.5]}, ValueError, "weights must be finite"),
    "weights complex": ({"weights": [0.5j, 0.5]}, ValueError, "weights is not an array of numbers"),
    "means columns": ({"means": np.zeros((2, 3))}, ValueError, r"means must have shape \(k, 2\) .*, got \(2, 3\)"),
    "means flat": ({"means": [0, 0]}, ValueError, r"means must have shape \(k, 2\)"),
    "means none": ({"means": np.empty((0, 2))}, ValueError, r"means must have shape \(k, 2\)"),
    "means text": ({"means": [["a", "b"]]}, ValueError, "means is not an array of numbers"),
    "means too large": ({"means": np.full((2, 2), np.longdouble("1e400"))}, ValueError, "means must be finite"),
    "means masked": ({"means": np.ma.zeros((2, 2))}, ValueError, "means is not an array of numbers"),
    "covariances shape": (
        {"covariances": np.eye(2)}, ValueError, r"covariances must have shape \(2, 2, 2\) \(covariance='full'\), got \(2, 2\)",
    ),
    "covariances asymmetric": ({"covariances": [np.eye(2), [[1, 0.1], [0.2, 1]]]}, ValueError, "covariances must be symmetric"),
    "covariances indefinite": (
        {"covariances": [np.eye(2), [[1, 2], [2, 1]]]}, ValueError,
        "covariances must be positive definite: that of component 1 has the eigenvalue -1",
    ),
    "covariances that overflow": (
        {"covariances": [np.eye(2), [[1e-200, 1e200], [1e200, 1e-200]]]}, ValueError, "component 1 has the eigenvalue -1e",
    ),
    "covariances singular": (
        {"covariances": [np.eye(2), np.ones((2, 2))]}, ValueError, "positive definite: that of component 1 has the eigenvalue",
    ),
    "covariances inf": ({"covariances": [np.eye(2), np.inf * np.ones((2, 2))]}, ValueError, "covariances must be finite"),
    "tied": ({"covariances": -np.eye(2), "covariance": "tied"}, ValueError, "the one of all components has the eigenvalue -1"),
    "variances": (
        {"covariances": [[1, 1], [1, 0]], "covariance": "diag"}, ValueError,
        "covariances must be positive: component 1 has a variance of 0",
    ),
    "covariance": ({"covariance": "round"}, ValueError, "covariance must be one of 'full', .*, got 'round'"),
    "no threads": ({"n_threads": 0}, ValueError, "n_threads must be >= 1, got 0"),
    "threads": ({"n_threads": 2.0}, TypeError, r"n_threads must be a whole number >= 1, got 2\.0"),
}  # fmt: skip


@every_function
@pytest.mark.parametrize("bad", BAD)
def test_bad_arguments_are_refused(name, bad):
    FUNCTIONS[name](**GOOD)
    change, error, message = BAD[bad]
    with pytest.raises(error, match=message):
        FUNCTIONS[name](**GOOD | change)


@pytest.mark.parametrize("bad", [[1.0], [-1.0, 1.0], [0.0, 0.0], [np.inf, 1.0]])
def test_bad_sample_weights_are_refused(bad):
    with pytest.raises(ValueError, match="sample_weight"):
        statistics(**GOOD, sample_weight=bad)


@every_covariance
def test_rows_without_density(target, kind):
    mix = Mix(kind)
    X = mix.rows(50)
    clean = mix.call("log_density", X)[0]
    X[[20, 33]] = 1e200
    X[41] = 1.7e308
    mix.means[1] -= 1e308  # a difference that overflows
    rows = mix.call("log_density", X)[0]
    assert np.all(rows[[20, 33, 41]] == -np.inf)
    assert np.isfinite(np.delete(rows, [20, 33, 41])).all()
    assert np.isfinite(clean).all()
    for name in ("responsibilities", "statistics"):
        with pytest.raises(ValueError, match="X: row 20 is so far from all components that its density is zero"):
            mix.call(name, X)
    w = np.ones(50)
    w[[20, 33, 41]] = 0
    assert np.isfinite(mix.call("statistics", X, sample_weight=w)[0])


def test_a_sum_that_overflows_is_refused():
    X = np.full((20, 1), 1e154)
    with pytest.raises(ValueError, match="a sum over its rows is more than float64 holds"):
        statistics(X, [1.0], [[0.0]], [1e308], covariance="spherical", sample_weight=np.full(20, 1e10))
