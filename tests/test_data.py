"""What data may be, and what is said when they are not that."""

import re

import numpy as np
import pytest

from emcore.data import Block, DataSource, as_source
from emcore.models import GaussianMixture

X = np.random.default_rng(0).normal(size=(20, 3))


def refuses(error, message, *arguments, **options):
    with pytest.raises(error, match=re.escape(message)):
        as_source(*arguments, **options)


# Rows


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (X[:, 0], ValueError, "X must have two dimensions (rows, columns), got shape (20,) (one column: X.reshape(-1, 1))"),
        (X[None], ValueError, "X must have two dimensions (rows, columns), got shape (1, 20, 3)"),
        (3.0, ValueError, "X must have two dimensions (rows, columns), got shape ()"),
        (np.empty((0, 3)), ValueError, "X is empty: shape (0, 3)"),
        (np.empty((3, 0)), ValueError, "X is empty: shape (3, 0)"),
        ([["a", "b"]], TypeError, "X must be numeric, got dtype <U1"),
        (np.array([[1, None]]), TypeError, "X must be numeric, got dtype object"),
        (np.zeros((2, 2), dtype=complex), TypeError, "X must be numeric, got dtype complex128"),
        (np.zeros((2, 2), dtype="M8[s]"), TypeError, "X must be numeric, got dtype datetime64[s]"),
        (np.ma.masked_array(X, X > 2), TypeError, "X is a masked array; missing values are not supported: drop or impute"),
        ([[1, 2], [3]], ValueError, "X must be a table of numbers, its rows of one length: setting an array element"),
        ((X, [[1, 2], [3]] * 10), ValueError, "y must be a table of numbers, its rows of one length: setting an array element"),
    ],
)
def test_what_rows_are_not(rows, error, message):
    refuses(error, message, rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("block_rows", [None, 1, 7, 20])
def test_first_bad_value_is_named(bad, dtype, block_rows):
    rows = X.astype(dtype)
    rows[13, 2] = bad
    refuses(ValueError, f"X must be finite: row 13, column 2 is {np.array(bad)}", rows, block_rows=block_rows)
    rows[14, 0] = rows[14, 1] = bad
    refuses(ValueError, "X must be finite: row 13, column 2", rows, block_rows=block_rows)


needs_wide = pytest.mark.skipif(np.finfo("g").max <= np.finfo("f8").max, reason="longdouble is float64 here")


@needs_wide
def test_what_float64_cannot_hold_is_infinite():
    rows = X.astype("g")
    rows[13, 2] = np.longdouble("1e400")
    refuses(ValueError, "X must be finite: row 13, column 2 is inf", rows)
    refuses(ValueError, "y must be finite: row 13, column 0 is inf", (X, rows[:, 2]))
    weights = np.ones(20, dtype="g")
    weights[9] = np.longdouble("1e400")
    refuses(ValueError, "sample_weight must be finite and >= 0: that of row 9 is inf", X, weights)
    weights = np.ones(20)
    weights[13] = 0.0
    assert as_source(rows, weights).X[13, 2] == np.inf


def test_bad_values_are_counted():
    rows = X.copy()
    rows[3, 1] = rows[4, 0] = np.nan
    refuses(ValueError, "row 3, column 1 is nan (2 such values in rows 0 to 19)", rows)


def test_infinities_of_both_signs_do_not_hide():
    rows = np.zeros((4, 2))
    rows[1, 0], rows[2, 1] = np.inf, -np.inf
    refuses(ValueError, "row 1, column 0 is inf", rows)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_rows_whose_sum_overflows_are_fine(dtype):
    rows = np.full((10, 2), np.finfo(dtype).max, dtype=dtype)
    assert as_source(rows).X is not None


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4"])
def test_native_dtypes_are_not_copied(dtype):
    for rows in (X.astype(dtype), np.asfortranarray(X.astype(dtype)), X.astype(dtype)[::-2, ::2]):
        assert np.shares_memory(as_source(rows).X, rows)
        assert as_source(rows).X.dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        ("?", "i4"), ("i1", "i4"), ("u1", "i4"), ("i2", "i4"), ("u2", "i4"), ("u4", "i8"), ("u8", "f8"), ("f2", "f4"),
        (">f8", "f8"), (">f4", "f4"), (">i8", "i8"), (">i4", "i8"), ("g", "f8"),
    ],
)  # fmt: skip
def test_other_dtypes_are_converted_without_loss(dtype, becomes):
    rows = np.array([[0, 1], [1, 1], [1, 0]]).astype(dtype)
    source = as_source(rows)
    assert source.X.dtype == np.dtype(becomes)
    np.testing.assert_array_equal(source.X.astype(float), rows.astype(float))


def test_extremes_of_integers():
    rows = np.array([[2**32 - 1, 0]], dtype="u4")
    assert as_source(rows).X[0, 0] == 2**32 - 1
    rows = np.array([[2**64 - 1, 0]], dtype="u8")
    assert as_source(rows).X[0, 0] == 2.0**64


def test_lists_subclasses_and_maps(tmp_path):
    assert as_source([[1, 2], [3, 4]]).X.dtype.kind == "i"
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    source = as_source(mapped)
    assert np.shares_memory(source.X, mapped)
    assert type(source.X) is np.ndarray
    locked = X.copy()
    locked.setflags(write=False)
    assert as_source(locked).X is not None


def test_rows_are_not_changed():
    rows = X.copy()
    as_source(rows, np.ones(20)).block(0)
    np.testing.assert_array_equal(rows, X)
    assert rows.flags.writeable


# Weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(19), "sample_weight must have shape (20,), one weight a row of X, got (19,)"),
        (np.ones((20, 1)), "sample_weight must have shape (20,), one weight a row of X, got (20, 1)"),
        (2.0, "sample_weight must have shape (20,), one weight a row of X, got ()"),
        (np.where(np.arange(20) == 7, -1.0, 1.0), "sample_weight must be finite and >= 0: that of row 7 is -1.0"),
        (np.where(np.arange(20) == 9, np.nan, 1.0), "sample_weight must be finite and >= 0: that of row 9 is nan"),
        (np.where(np.arange(20) == 9, np.inf, 1.0), "sample_weight must be finite and >= 0: that of row 9 is inf"),
        (np.zeros(20), "sample_weight is all zero: no row is left"),
        (np.full(20, 1e-310), "sample_weight adds up to 2e-309: rescale it"),
        (np.full(20, 1e308), "sample_weight adds up to inf: rescale it"),
    ],
)
def test_what_weights_are_not(weights, message):
    refuses(ValueError, message, X, weights)


def test_weights_are_numbers():
    refuses(TypeError, "sample_weight must be numbers, one weight a row of X, got 'balanced'", X, "balanced")
    refuses(TypeError, "sample_weight must be numbers, one weight a row of X, got dtype object", X, [None, {}] * 10)
    refuses(TypeError, "sample_weight must be numbers, one weight a row of X: ", X, [[1, 2], [3]])
    refuses(TypeError, "sample_weight must be numbers, one weight a row of X, got dtype <U2", X, [str(i) for i in range(20)])
    refuses(TypeError, "sample_weight must be numbers, one weight a row of X, got dtype complex128", X, np.ones(20) + 0j)
    refuses(TypeError, "sample_weight is a masked array", X, np.ma.ones(20))


def test_weights_are_converted_locked_and_summed():
    weights = np.arange(20)
    source = as_source(X, weights)
    assert source.weight == 190.0
    assert source.n_weighted == 19
    weights[:] = 0
    assert source.weights.sum() == 190.0
    assert not source.weights.flags.writeable
    assert source.weights.dtype == np.float64


@pytest.mark.parametrize("layout", ["contiguous", "strided", "reversed", "broadcast", "mapped"])
def test_weights_of_float64_are_not_copied(layout, tmp_path):
    weights = np.random.default_rng(4).uniform(size=20)
    if layout == "mapped":
        np.save(tmp_path / "w.npy", weights)
        weights = np.load(tmp_path / "w.npy", mmap_mode="r+")
    given = {
        "strided": np.repeat(weights, 3)[::3], "reversed": weights[::-1].copy()[::-1], "broadcast": np.broadcast_to(2.5, 20),
    }.get(layout, weights)  # fmt: skip
    source = as_source(X, given)
    assert np.shares_memory(source.weights, given)
    assert type(source.weights) is np.ndarray
    assert not source.weights.flags.writeable
    assert given.flags.writeable == (layout != "broadcast")
    assert source.weight == np.ascontiguousarray(given).sum()


def test_no_weights():
    source = as_source(X)
    assert source.weights is None
    assert source.weight == 20.0
    assert source.n_weighted == 20


# Blocks


@pytest.mark.parametrize("block_rows", [1, 3, 7, 19, 20, 21, 1000])
def test_blocks_are_views_that_cover_the_rows(block_rows):
    weights = np.arange(20.0)
    source = as_source(X, weights, block_rows=block_rows)
    assert source.n_blocks == -(-20 // block_rows)
    blocks = [source.block(i) for i in range(source.n_blocks)]
    np.testing.assert_array_equal(np.concatenate([b.rows[0] for b in blocks]), X)
    np.testing.assert_array_equal(np.concatenate([b.weights for b in blocks]), weights)
    assert all(np.shares_memory(b.rows[0], X) for b in blocks)
    assert all(b.bounds is None and len(b.rows) == 1 for b in blocks)
    for i, block in enumerate(blocks):
        for row in range(len(block.rows[0])):
            np.testing.assert_array_equal(X[source.row_of(i, row)], block.rows[0][row])


def test_blocks_and_their_pieces_stay_small():
    wide = np.broadcast_to(0.0, (10**7, 64))
    source = as_source(np.broadcast_to(np.float32(0), (10**7, 4)))
    sizes = [len(source.block(i).rows[0]) for i in range(source.n_blocks)]
    assert sum(sizes) == 10**7
    assert max(sizes) * 4 * 8 <= 256 << 20
    assert max(sizes) - min(sizes) < source.n_blocks
    for block, columns in ((source.block(1), 4), (Block((wide,)), 64), (Block((wide[:7], wide[:7]), np.ones(7)), 1000)):
        parts = list(block.pieces(columns))
        assert [part.start for part, _ in parts[1:]] == [part.stop for part, _ in parts[:-1]]
        assert (parts[0][0].start, parts[-1][0].stop) == (0, len(block.rows[0]))
        for part, piece in parts:
            assert len(piece.rows) == len(block.rows)
            assert all(len(a) == part.stop - part.start for a in piece.rows)
            assert piece.weights is None or len(piece.weights) == part.stop - part.start
            assert len(piece.rows[0]) * columns * 8 <= 8 << 20


@pytest.mark.parametrize("block_rows", [0, -1, 2.5, True, "3"])
def test_what_block_rows_are_not(block_rows):
    refuses(ValueError, f"block_rows must be a whole number >= 1, got {block_rows!r}", X, block_rows=block_rows)


# Samples


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("m", [1, 5, 18, 20, 100])
def test_samples(m, weighted):
    weights = np.where(np.arange(20) % 3 == 0, 0.0, np.arange(20.0)) if weighted else None
    source = as_source(X, weights)
    block = source.sample(m, np.random.default_rng(3))
    rows = block.rows[0]
    assert len(rows) == min(m, source.n_weighted)
    where = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in rows]
    assert where == sorted(set(where))
    if weighted:
        np.testing.assert_array_equal(block.weights, weights[where])
        assert (block.weights > 0).all()
    else:
        assert block.weights is None
    again = source.sample(m, np.random.default_rng(3))
    np.testing.assert_array_equal(again.rows[0], rows)
    rows[:] = 0
    assert X.any()


def test_a_sample_of_weighted_rows_is_that_of_a_list_of_them():
    n = 2_500_000  # some pieces
    weights = np.random.default_rng(0).integers(0, 2, n).astype(float)
    weights[1_048_576 : 2 * 1_048_576] = 0.0  # one of them empty
    source = as_source(np.arange(n)[:, None], weights)
    for m in (1, 1000, n):
        rows = source.sample(m, np.random.default_rng(1)).rows[0][:, 0]
        kept = np.flatnonzero(weights)
        chosen = np.random.default_rng(1).choice(kept, m, replace=False, shuffle=False) if m < n else kept
        np.testing.assert_array_equal(rows, np.sort(chosen))


def test_samples_differ_with_the_generator():
    source = as_source(X)
    a, b = (source.sample(5, np.random.default_rng(seed)).rows[0] for seed in (0, 1))
    assert not np.array_equal(a, b)


# Sources


class Own:
    """A source of somebody else's."""

    n_blocks, n_rows, n_columns, weight, n_weighted = 1, 20, 3, 20.0, 20

    def block(self, i):
        return Block((X,))

    def row_of(self, i, row):
        return row

    def sample(self, m, rng):
        return Block((X[:m],))


def test_a_source_passes_through():
    source = Own()
    assert isinstance(source, DataSource)
    assert as_source(source) is source
    refuses(ValueError, "sample_weight and block_rows belong to the source", source, np.ones(20))
    refuses(ValueError, "sample_weight and block_rows belong to the source", source, block_rows=3)
    assert isinstance(as_source(X), DataSource)


def test_repr_says_what_is_inside():
    assert repr(as_source(X)) == "ArraySource(20 x 3 float64)"
    assert repr(as_source(X.astype("f4"), np.full(20, 0.5))) == "ArraySource(20 x 3 float32, total weight 10)"


# Rows and their responses


Y = np.random.default_rng(1).normal(size=20)


@pytest.mark.parametrize(
    "y", [Y, Y.reshape(-1, 1), Y.tolist(), Y.astype("f4"), (10 * Y).astype("i4")], ids=lambda y: type(y).__name__
)
def test_rows_and_responses(y):
    source = as_source((X, y), np.arange(20.0), block_rows=8)
    assert (source.n_rows, source.n_columns, source.n_responses, source.n_blocks, source.missing) == (20, 3, 1, 3, False)
    assert isinstance(source, DataSource)
    seen = [source.block(i) for i in range(3)]
    np.testing.assert_array_equal(np.concatenate([b.rows[0] for b in seen]), X)
    np.testing.assert_array_equal(np.concatenate([b.rows[1] for b in seen])[:, 0], np.asarray(y, dtype=float).ravel())
    sample = source.sample(5, np.random.default_rng(0))
    at = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in sample.rows[0]]
    np.testing.assert_array_equal(sample.rows[1][:, 0], np.asarray(y, dtype=float).ravel()[at])
    every = source.block(0).every(1, 3)
    np.testing.assert_array_equal(every.rows[1], seen[0].rows[1][1::3])
    assert repr(source).startswith("ArraySource(20 x 3 float64, 1 response ")


def test_responses_of_several_columns_are_not_copied():
    y = np.random.default_rng(2).normal(size=(20, 2))
    source = as_source((X, y))
    assert source.n_responses == 2
    assert np.shares_memory(source.block(0).rows[1], y)


def test_bad_responses_are_refused():
    refuses(ValueError, "X: a tuple must be (X, y), rows and their responses, got 3 entries", (X, Y, Y))
    refuses(ValueError, "y must have as many rows as X, 20, got 19", (X, Y[:-1]))
    refuses(ValueError, "X must have two dimensions", (Y, Y))
    refuses(ValueError, "y must have two dimensions (rows, columns), got shape ()", (X, 1.0))
    refuses(TypeError, "y must be numeric", (X, ["a"] * 20))
    bad = Y.copy()
    bad[7] = np.nan
    refuses(ValueError, "y must be finite: row 7, column 0 is nan", (X, bad))
    refuses(ValueError, "y must be finite: row 7, column 0 is nan", (X, bad), missing=True)
    weights = np.ones(20)
    weights[7] = 0.0
    assert as_source((X, bad), weights).n_weighted == 19


def test_missing_values_are_taken_where_they_are_meant():
    rows = X.copy()
    rows[3, 1] = rows[9, 0] = np.nan
    assert as_source(rows, missing=True).missing
    assert not as_source(X, missing=True).missing
    weights = np.ones(20)
    weights[[3, 9]] = 0.0
    assert not as_source(rows, weights, missing=True).missing
    rows[4, 2] = np.inf
    refuses(ValueError, "X must be finite: row 4, column 2 is inf", rows, missing=True)


def test_a_model_takes_the_form_of_data_that_it_is_for():
    rows = X.copy()
    rows[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"X: GaussianMixture takes rows alone, not \(X, y\)"):
        GaussianMixture(1).bind(as_source((X, Y)))
    with pytest.raises(ValueError, match=r"X has missing values \(NaN\), which GaussianMixture does not take"):
        GaussianMixture(1).bind(as_source(rows, missing=True))
