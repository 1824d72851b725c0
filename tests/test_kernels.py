"""Every pass on every CPU target against the NumPy oracle: shapes, dtypes, layouts, weights, threads, bad rows, forks."""

import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Thread

import numpy as np
import pytest
from cases import SINGLE_TARGETS, SMALL_PASS, TARGETS, in_force
from cases import one_pass as run
from gaussians import LAYOUTS, Setup, misaligned
from hypothesis import given
from hypothesis import strategies as st
from processes import fresh, needs_fork, needs_openmp, needs_proc, words

import emcore.kernels as kernels
from emcore.data import Block
from emcore.models import COVARIANCES

ROWS = (1, 2, 31, 32, 33, 511, 512, 513, 2000)
COLUMNS = (1, 2, 3, 5, 8, 17, 33)
COMPONENTS = (1, 2, 3, 7, 20)


@cache
def setup(kind, d, k):
    return Setup(kind, d, k)


def passes_like(kernel, X, w, like_X, like_w):
    """Assert that two passes agree to the last bit."""
    sums, stats = run(kernel, X, w)
    same_sums, same_stats = run(kernel, like_X, like_w)
    np.testing.assert_array_equal(stats, same_stats)
    assert sums == same_sums


# Against the oracle


@cache
def expected(kind, d, k):
    """Return rows, weights, and the oracle's statistics, their size, log-likelihood and scale for each number of rows."""
    s = setup(kind, d, k)
    X = s.rows(max(ROWS))
    w = np.random.default_rng(5).uniform(0.0, 2.0, size=len(X))
    Z, resp, row_loglik = s.oracle(X)
    answers = [(*s.statistics(Z[:n], w[:n], resp[:n]), w[:n] @ row_loglik[:n], w[:n] @ np.abs(row_loglik[:n])) for n in ROWS]
    return X, w, answers


@pytest.mark.parametrize("k", COMPONENTS)
@pytest.mark.parametrize("d", COLUMNS)
@pytest.mark.parametrize("kind", COVARIANCES)
def test_pass_is_the_oracles(target, kind, d, k):
    kernel = setup(kind, d, k).kernel()
    X, w, answers = expected(kind, d, k)
    for n, (statistics, size, loglik, scale) in zip(ROWS, answers, strict=True):
        sums, stats = run(kernel, X[:n], w[:n])
        # Not relative to single terms where a responsibility is all but 0 but to what its component sums up.
        assert np.all(np.abs(stats - statistics) <= 1e-12 * (size + 1e-3)), n
        assert sums.loglik == pytest.approx(loglik, abs=1e-13 * scale)
        assert sums.scale == pytest.approx(scale, rel=1e-13)
        assert sums.weight == pytest.approx(w[:n].sum(), rel=1e-14)
        assert sums.bad_row == -1


@pytest.mark.parametrize("kind", COVARIANCES)
def test_outputs_of_rows(target, kind):
    for d, k in [(1, 1), (3, 2), (5, 7), (8, 20), (33, 3)]:
        s = setup(kind, d, k)
        for n in ROWS:
            X = s.rows(n)
            _, resp, row_loglik = s.oracle(X)
            got_resp, got_rows = np.full((n, k), np.nan), np.full(n, np.nan)
            kernels.run(s.kernel(), Block((X,)), resp=got_resp, row_loglik=got_rows)
            np.testing.assert_allclose(got_resp, resp, rtol=0, atol=1e-12)
            np.testing.assert_allclose(got_resp.sum(axis=1), 1.0, rtol=0, atol=1e-14)
            np.testing.assert_allclose(got_rows, row_loglik, rtol=1e-13, atol=1e-13)


def test_responsibilities_leave_weights_out(target):
    s = setup("full", 3, 2)
    X, w = s.rows(100), np.linspace(0.0, 3.0, 100)
    plain, weighted = np.empty((100, 2)), np.empty((100, 2))
    kernels.run(s.kernel(), Block((X,)), resp=plain)
    kernels.run(s.kernel(), Block((X,), w), resp=weighted)
    np.testing.assert_array_equal(plain, weighted)


def test_rows_keep_their_density_under_weights(target):
    s = setup("diag", 5, 3)
    X, w = s.rows(100), np.linspace(0.0, 3.0, 100)
    plain, weighted = np.empty(100), np.empty(100)
    kernels.run(s.kernel(), Block((X,)), row_loglik=plain)
    kernels.run(s.kernel(), Block((X,), w), row_loglik=weighted)
    np.testing.assert_array_equal(plain, weighted)


@pytest.mark.parametrize("kind", COVARIANCES)
def test_targets_agree(kind):
    s = setup(kind, 8, 7)
    X, before, found = s.rows(700), kernels.target(), {}
    try:
        for name in TARGETS:
            assert kernels.select_target(name) == name == kernels.target()
            found[name] = run(s.kernel(), X)
    finally:
        kernels.select_target(before)
    _, size = s.statistics(s.oracle(X)[0], np.ones(len(X)), s.oracle(X)[1])
    for sums, stats in found.values():
        assert np.all(np.abs(stats - found["baseline"][1]) <= 1e-13 * (size + 1e-3))
        assert sums.loglik == pytest.approx(found["baseline"][0].loglik, rel=1e-14)


def test_unknown_target_is_refused_and_changes_nothing():
    before = kernels.target()
    with pytest.raises(ValueError, match=r"CPU target 'no-such' is not available; on this machine: .*baseline"):
        kernels.select_target("no-such")
    assert kernels.target() == before


def test_best_target_is_the_first_that_runs():
    before = kernels.target()
    try:
        assert kernels.select_target() == TARGETS[0]
    finally:
        kernels.select_target(before)


@pytest.mark.parametrize("name", TARGETS)
def test_environment_names_a_target(name):
    """And passes run on it, to the bits of its own rounding."""
    code = (
        PASS
        + """
name, first = kernels.target(), run(5000, 1)
kernels.select_target(sys.argv[-1])
print(name, first == run(5000, 1))
"""
    )
    assert words(code, name, EMCORE_CPU=name) == [name, "True"]


@pytest.mark.parametrize("call", ["run(9, 1)", "kernels.target()", "kernels.table_capsule()"])
def test_environment_names_no_target_in_vain(call):
    """Until one is chosen."""
    able = " or ".join(map(repr, TARGETS))
    code = f"""
try:
    {call}
except ValueError as error:
    print(error)
kernels.select_target("baseline")
{call}
"""
    said = fresh(PASS + code, EMCORE_CPU="no-such").strip()
    assert said == f"EMCORE_CPU must name a CPU target that runs here, {able}, got 'no-such'"


# Component of weight 0, far components, statistics without and with what is there already


@pytest.mark.parametrize("kind", COVARIANCES)
def test_component_of_weight_zero_takes_nothing(target, kind):
    s = setup(kind, 3, 3)
    X, weights = s.rows(100), np.array([0.4, 0.0, 0.6])
    _, stats = run(s.kernel(weights), X)
    assert stats[1] == 0.0
    assert np.isfinite(stats).all()
    assert stats[[0, 2]].sum() == pytest.approx(100, rel=1e-14)


@pytest.mark.parametrize("kind", COVARIANCES)
def test_far_rows_underflow_to_nothing_worse(target, kind):
    s = setup(kind, 3, 2)
    X = s.rows(40)
    X[7] += 1e6 / s.scale
    resp, rows = np.empty((40, 2)), np.empty(40)
    sums = kernels.run(s.kernel(), Block((X,)), resp=resp, row_loglik=rows)
    _, expected, expected_rows = s.oracle(X)
    assert sums.bad_row == -1
    np.testing.assert_allclose(rows, expected_rows, rtol=1e-13)
    np.testing.assert_allclose(np.delete(resp, 7, axis=0), np.delete(expected, 7, axis=0), rtol=0, atol=1e-12)


def test_statistics_are_added_to_what_is_there(target):
    s = setup("full", 3, 2)
    kernel, X = s.kernel(), s.rows(300)
    _, once = run(kernel, X)
    stats = np.ones(kernel.n_stats)
    kernels.run(kernel, Block((X,)), stats=stats)
    np.testing.assert_array_equal(stats, 1.0 + once)


def test_densities_alone(target):
    s = setup("tied", 5, 3)
    X = s.rows(600)
    assert kernels.run(s.kernel(), Block((X,))) == run(s.kernel(), X)[0]


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("cut", [1, 32, 500, 512, 1999])
def test_statistics_are_a_monoid(target, kind, cut):
    s = setup(kind, 5, 3)
    kernel, X, w = s.kernel(), s.rows(2000), np.random.default_rng(3).uniform(0, 2, size=2000)
    whole_sums, whole = run(kernel, X, w)
    first_sums, first = run(kernel, X[:cut], w[:cut])
    second_sums, second = run(kernel, X[cut:], w[cut:])
    Z, resp, _ = s.oracle(X)
    assert np.all(np.abs(whole - (first + second)) <= 1e-13 * (s.statistics(Z, w, resp)[1] + 1e-3))
    for i in range(3):
        assert whole_sums[i] == pytest.approx(first_sums[i] + second_sums[i], abs=1e-13 * whole_sums.scale)


# Dtypes and layouts: the same numbers must give the same bits


def integers(s, n):
    """Rows that every dtype holds exactly."""
    return np.round(4 * s.rows(n))


@pytest.mark.parametrize("dtype", ["f4", "i8", "i4"])
@pytest.mark.parametrize("d", COLUMNS)
def test_dtypes(target, dtype, d):
    s = setup("full", d, 2)
    for n in (1, 33, 513):
        X = integers(s, n)
        passes_like(s.kernel(), X.astype(dtype), None, X, None)


def test_float32_rows_are_widened_not_rounded_again(target):
    s = setup("diag", 5, 2)
    X = s.rows(200).astype(np.float32)
    passes_like(s.kernel(), X, None, X.astype(np.float64), None)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(target, layout, dtype):
    for d in (1, 3, 8, 17):
        s = setup("full", d, 2)
        for n in (1, 33, 513):
            X = np.ascontiguousarray(integers(s, n).astype(dtype))
            laid = LAYOUTS[layout](X)
            np.testing.assert_array_equal(laid, X)
            passes_like(s.kernel(), laid, None, X, None)


def test_read_only_rows(target):
    s = setup("full", 3, 2)
    X = s.rows(100)
    locked = X.copy()
    locked.setflags(write=False)
    passes_like(s.kernel(), locked, None, X, None)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_memory_mapped_rows(target, dtype, tmp_path):
    s = setup("full", 3, 2)
    X = s.rows(1000).astype(dtype)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    passes_like(s.kernel(), mapped, None, X, None)
    passes_like(s.kernel(), mapped[5:900:7, ::-1], None, X[5:900:7, ::-1].copy(), None)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8"])
def test_broadcast_rows(target, dtype):
    s = setup("full", 5, 2)
    row = integers(s, 1).astype(dtype)
    one_row = np.broadcast_to(row, (513, 5))
    one_value = np.broadcast_to(row[:, :1], (513, 5))
    assert one_row.strides[0] == 0
    assert one_value.strides == (0, 0)
    passes_like(s.kernel(), one_row, None, one_row.copy(), None)
    passes_like(s.kernel(), one_value, None, one_value.copy(), None)


@given(data=st.data())
def test_any_view_of_rows_and_weights(data):
    kind = data.draw(st.sampled_from(COVARIANCES))
    d, k = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    s = setup(kind, d, k)
    dtype = data.draw(st.sampled_from(["f8", "f4", "i8", "i4"]))
    steps = st.sampled_from([1, 2, 3, -1, -2])
    row_step, col_step = data.draw(steps), data.draw(steps)
    n = data.draw(st.integers(1, 600))
    base = np.random.default_rng(0).integers(-9, 9, size=(n * abs(row_step), d * abs(col_step))).astype(dtype)
    if data.draw(st.booleans()):
        base = np.asfortranarray(base)
    X = base[::row_step, ::col_step]
    weights = np.repeat(np.random.default_rng(1).integers(0, 4, size=n).astype(float), 2)[::2][
        :: data.draw(st.sampled_from([1, -1]))
    ]
    assert X.shape == (n, d)
    with in_force(data.draw(st.sampled_from(TARGETS))):
        passes_like(s.kernel(), X, weights, X.astype(float, order="C"), weights.copy())


# Weights


@pytest.mark.parametrize("kind", COVARIANCES)
def test_weight_zero_is_the_row_dropped(target, kind):
    s = setup(kind, 5, 3)
    X, w = s.rows(1100), np.random.default_rng(2).integers(0, 2, size=1100).astype(float)
    sums, stats = run(s.kernel(), X, w)
    kept_sums, kept = run(s.kernel(), X[w > 0])
    Z, resp, _ = s.oracle(X)
    assert np.all(np.abs(stats - kept) <= 1e-13 * (s.statistics(Z, w, resp)[1] + 1e-3))
    assert sums.loglik == pytest.approx(kept_sums.loglik, abs=1e-13 * sums.scale)
    assert sums.scale == pytest.approx(kept_sums.scale, rel=1e-13)
    assert sums.weight == kept_sums.weight


@pytest.mark.parametrize("kind", COVARIANCES)
def test_whole_weight_is_the_row_repeated(target, kind):
    s = setup(kind, 5, 3)
    X, w = s.rows(700), np.random.default_rng(2).integers(0, 5, size=700)
    sums, stats = run(s.kernel(), X, w.astype(float))
    repeated_sums, repeated = run(s.kernel(), np.repeat(X, w, axis=0))
    Z, resp, _ = s.oracle(X)
    assert np.all(np.abs(stats - repeated) <= 1e-13 * (s.statistics(Z, w, resp)[1] + 1e-3))
    assert sums.loglik == pytest.approx(repeated_sums.loglik, abs=1e-13 * sums.scale)
    assert sums.weight == repeated_sums.weight


@pytest.mark.parametrize("view", [lambda w: np.repeat(w, 3)[::3], lambda w: w[::-1].copy()[::-1], lambda w: misaligned(w)])
def test_weights_in_any_layout(target, view):
    s = setup("full", 3, 2)
    X, w = s.rows(600), np.random.default_rng(2).uniform(size=600)
    passes_like(s.kernel(), X, view(w), X, w)


def test_broadcast_weights(target):
    s = setup("full", 3, 2)
    X = s.rows(600)
    passes_like(s.kernel(), X, np.broadcast_to(2.5, 600), X, np.full(600, 2.5))


# Bad rows


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("bad", [1e200, np.inf, np.nan])
@pytest.mark.parametrize("at", [0, 31, 32, 511, 512, 1999])
def test_first_bad_row_is_named(target, kind, bad, at):
    s = setup(kind, 3, 2)
    X = s.rows(2000)
    X[at, 1] = bad
    X[at + 1 :: 97, 0] = bad
    assert run(s.kernel(), X)[0].bad_row == at


def test_bad_row_in_a_late_slot(target):
    s = setup("full", 3, 2)
    X = s.rows(50_000)
    X[40_003] = np.nan
    for threads in (1, 4):
        assert run(s.kernel(), X, n_threads=threads)[0].bad_row == 40_003


@pytest.mark.parametrize("bad", [1e200, 1.7e308, -1.7e308, np.inf, np.nan])
@pytest.mark.parametrize("kind", COVARIANCES)
def test_bad_row_of_weight_zero_is_not_bad(target, kind, bad):
    s = setup(kind, 3, 2)
    for n in (600, 33):
        X, w = s.rows(n), np.ones(n)
        w[[3, n - 1]] = 0.0
        clean_sums, clean = run(s.kernel(), X, w)
        X[[3, n - 1]] = bad
        sums, stats = run(s.kernel(), X, w)
        assert sums == clean_sums
        assert sums.bad_row == -1
        np.testing.assert_array_equal(stats, clean)


# Threads, blocks


def big(kind):
    """A pass of several slots that is large enough for threads, and not a multiple of the panel."""
    s = setup(kind, 8, 7)
    return s, s.kernel(), s.rows(60_007), np.random.default_rng(4).uniform(0, 2, size=60_007)


@pytest.mark.parametrize("kind", COVARIANCES)
def test_threads_change_no_bit(target, kind):
    _, kernel, X, w = big(kind)
    assert kernels.cut(len(X), kernel.panel_rows, kernel.n_stats)[2] > 4
    assert len(X) * kernel.n_stats >= SMALL_PASS
    one = run(kernel, X, w, n_threads=1)
    for threads in (2, 3, 4):
        sums, stats = run(kernel, X, w, n_threads=threads)
        np.testing.assert_array_equal(stats, one[1])
        assert sums == one[0]


def test_threads_change_no_bit_of_a_row(target):
    s, kernel, X, _ = big("full")
    outputs = []
    for threads in (1, 4):
        resp, rows = np.empty((len(X), s.k)), np.empty(len(X))
        kernels.run(kernel, Block((X,)), resp=resp, row_loglik=rows, n_threads=threads)
        outputs.append((resp, rows))
    np.testing.assert_array_equal(outputs[0][0], outputs[1][0])
    np.testing.assert_array_equal(outputs[0][1], outputs[1][1])


@pytest.mark.parametrize("n_stats", [1, 1000, 10**6, 10**9])
@pytest.mark.parametrize("most_rows", [32, 512, 4096])
def test_a_block_is_cut_evenly(most_rows, n_stats):
    for n_rows in (1, 31, 32, 33, 511, 512, 513, 5_000, 50_000, 1_000_003):
        panel_rows, n_panels, n_slots = kernels.cut(n_rows, most_rows, n_stats)
        assert 0 < panel_rows <= most_rows
        assert panel_rows % 32 == 0
        assert (n_panels - 1) * panel_rows < n_rows <= n_panels * panel_rows
        assert 1 <= n_slots <= min(64, n_panels)
        assert n_panels <= n_slots or n_slots * n_stats * 8 <= 16 << 20 or n_slots <= 4
        assert n_slots == 1 or n_slots * n_stats * 8 <= 256 << 20


@pytest.mark.parametrize("most_rows", [0, -32, 1, 100])
def test_panels_are_whole_groups(most_rows):
    with pytest.raises(ValueError, match="multiple of 32"):
        kernels.cut(100, most_rows, 5)


@pytest.mark.parametrize("n_threads", [0, -1])
def test_a_pass_needs_a_thread(n_threads):
    s = setup("full", 2, 3)
    with pytest.raises(ValueError, match="n_threads must be at least 1"):
        run(s.kernel(), s.rows(100), n_threads=n_threads)


def test_slots_are_many_where_memory_allows():
    assert kernels.cut(10**6, 512, 10)[2] == kernels.cut(10**7, 512, 10)[2] == 64
    assert kernels.cut(10**6, 512, 250_000)[2] == 8
    assert kernels.cut(10**6, 512, 4_000_000)[2] == 4  # d = 1000, k = 8
    assert kernels.cut(10**6, 512, 10**9)[2] == 1


def test_memory_of_an_earlier_pass_shows_nowhere(target):
    small, large = setup("full", 2, 3), setup("full", 6, 5)
    X, spoilt = small.rows(700), np.full((3_000, 6), np.nan)
    fresh = run(small.kernel(), X)
    assert run(large.kernel(), spoilt)[0].bad_row == 0  # leaves NaN wherever it wrote
    again = run(small.kernel(), X)
    assert again[0] == fresh[0]
    np.testing.assert_array_equal(again[1], fresh[1])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_long_pass_can_be_interrupted(threads):
    s = setup("full", 64, 16)
    kernel = s.kernel()
    X = np.broadcast_to(s.rows(1), (1_000_000, 64))  # some seconds
    stats = np.zeros(kernel.n_stats)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            kernels.run(kernel, Block((X,)), stats=stats, n_threads=threads)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not stats.any()  # those of a whole pass would be there


@pytest.mark.parametrize("threads", [1, 2])
def test_python_goes_on_during_a_pass(threads):
    """It does its own work, and passes of another kernel."""
    s, other = setup("full", 64, 16), setup("diag", 3, 2)
    X, few = np.broadcast_to(s.rows(1), (200_000, 64)), other.rows(2000)  # about a second
    kernel, small = s.kernel(), other.kernel()
    (want_sums, want), ticks, span = run(small, few), [], []

    def long_pass():
        span.append(time.perf_counter())
        run(kernel, X, n_threads=threads)
        span.append(time.perf_counter())

    thread = Thread(target=long_pass)
    thread.start()
    while thread.is_alive():
        sums, stats = run(small, few, n_threads=threads)
        assert sums == want_sums
        np.testing.assert_array_equal(stats, want)
        ticks.append(time.perf_counter())
    thread.join()
    begin, end = span
    pauses = np.diff([begin, *(tick for tick in ticks if begin < tick < end), end])
    assert pauses.max() < 0.5 * (end - begin)


def test_the_target_stays_while_a_pass_runs():
    before, refused = kernels.target(), []

    def log_density(X):
        with ThreadPoolExecutor(1) as pool:
            refused.append(pool.submit(kernels.select_target, TARGETS[-1]).exception())
        kernels.select_target(TARGETS[-1])

    kernel = kernels.Coupled(kernels.Mixture(np.zeros(1)), kernels.Called(1, 3, 0, log_density, None))
    with pytest.raises(RuntimeError, match="the CPU target cannot change while a pass runs"):
        kernels.run(kernel, Block((np.zeros((9, 3)),)))
    assert isinstance(refused[0], RuntimeError)
    assert kernels.target() == before
    for name in TARGETS:  # no pass runs any more
        with in_force(name):
            assert kernels.target() == name


PASS = """
import os, signal, sys, time
import numpy as np
import emcore.kernels as kernels
from emcore.data import Block
rng = np.random.default_rng(0)
k, d = 4, 6
emission = kernels.GaussianDiag(rng.normal(size=(k, d)), np.ones((k, d)), np.zeros(k), np.zeros(d), np.ones(d))
kernel = kernels.Coupled(kernels.Mixture(np.log(np.full(k, 1 / k))), emission)
def run(n, threads):
    stats = np.zeros(kernel.n_stats)
    sums = kernels.run(kernel, Block((np.random.default_rng(1).normal(size=(n, d)),)), stats=stats, n_threads=threads)
    return sums, stats.tobytes()
"""


@needs_proc
@needs_openmp
def test_threads_run_for_large_passes_only():
    code = (
        PASS
        + """
tasks = lambda: len(os.listdir("/proc/self/task"))
before = tasks()
run(1000, 4)
small = tasks() - before
run(60_000, 4)
print(small, tasks() - before)
"""
    )
    small, large = map(int, words(code))
    assert small == 0
    assert large == 3


FOREIGN = """
import ctypes, ctypes.util
name = ctypes.util.find_library("gomp")
if name is not None:  # as another library that was linked with it would
    task = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda data: None)
    ctypes.CDLL(name).GOMP_parallel(task, None, 2, 0)
want = run(60_000, 1)
"""


# What a child finds is what its parent has found; it is given a minute.
FORK = """
pid = os.fork()
if pid == 0:
    os._exit(0 if find() == want else 1)
for _ in range(600):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        print("exit", os.waitstatus_to_exitcode(status))
        break
    time.sleep(0.1)
else:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print("hangs")
"""


@needs_fork
@needs_openmp
@pytest.mark.parametrize("before", ["want = find()", FOREIGN], ids=["own-threads", "threads-of-another-library"])
def test_a_forked_child_can_run_a_pass(before):
    code = PASS + "find = lambda: run(60_000, 4)\n" + before + FORK + 'print("parent", find() == want)'
    assert words(code, warn="ignore") == ["exit", "0", "parent", "True"]


@needs_fork
@needs_openmp
def test_forked_children_can_fit():
    """Of a parent that has used threads of its own and of the BLAS."""
    code = """
import multiprocessing, os, signal, time
import numpy as np, emcore
from emcore.models import GaussianMixture
from emcore.result import Stop
X = np.random.default_rng(0).normal(size=(10_000, 64))
def find(_=None):
    options = {"start": "random-points", "random_state": 0, "stop": Stop(max_passes=3), "n_threads": 2}
    X.T @ X
    return emcore.fit(GaussianMixture(2), X, **options).theta.tobytes()
want = find()
"""
    after = """
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map_async(find, range(4)).get(timeout=30) == [want] * 4)
print(find() == want)
"""
    assert words(code + FORK + after, warn="ignore", OPENBLAS_NUM_THREADS="2") == ["exit", "0", "True", "True"]


# What does not fit together is refused


def test_wrong_arrays_are_refused():
    s = setup("full", 3, 2)
    kernel, X = s.kernel(), s.rows(10)
    with pytest.raises(ValueError, match=r"rows must have shape \(n, 3\), got \(10, 2\)"):
        run(kernel, X[:, :2])
    with pytest.raises(TypeError, match="rows must be float64, float32, int64 or int32, got float16"):
        run(kernel, X.astype(np.float16))
    with pytest.raises(TypeError, match="native byte order"):
        run(kernel, X.astype(X.dtype.newbyteorder()))
    for w in (np.ones(9), np.ones((10, 1)), np.ones(10, dtype=np.float32)):
        with pytest.raises(ValueError, match=r"weights must be float64 of shape \(10,\)"):
            run(kernel, X, w)
    with pytest.raises(ValueError, match=rf"stats must have shape \({kernel.n_stats},\), got \(5,\)"):
        kernels.run(kernel, Block((X,)), stats=np.zeros(5))
    with pytest.raises(ValueError, match=r"resp must have shape \(10, 2\)"):
        kernels.run(kernel, Block((X,)), resp=np.zeros((10, 3)))
    with pytest.raises(ValueError, match=r"row_loglik must have shape \(10,\)"):
        kernels.run(kernel, Block((X,)), row_loglik=np.zeros(9))
    with pytest.raises(ValueError, match="independent rows only"):
        kernels.run(kernel, Block((X,), None, np.array([10], dtype=np.intp)))
    with pytest.raises(ValueError, match="latent has 3 states, emission 2"):
        kernels.Coupled(kernels.Mixture(np.zeros(3)), kernel.emission)


@pytest.mark.parametrize("n", [99, 101, 5_000])
@pytest.mark.parametrize("latent", ["given", "sparse"])
def test_a_block_of_other_rows_than_the_responsibilities_is_refused(latent, n):
    s = setup("full", 3, 2)
    resp = np.full((100, 2), 0.5)
    if latent == "given":
        part = kernels.Given(resp)
    else:
        part = kernels.SparseMixture(np.log(s.weights), resp, np.zeros(100), 0.1)
    kernel = kernels.Coupled(part, s.kernel().emission)
    with pytest.raises(ValueError, match=f"resp must have {n} rows, those of the block, got 100"):
        run(kernel, s.rows(n))
    assert run(kernel, s.rows(100))[0].bad_row == -1


@pytest.mark.parametrize("shape", [(99, 2), (101, 2), (100, 1), (100, 3), (2, 100), (100,)])
def test_a_function_that_returns_another_shape_is_refused(shape):
    def wrong(X):
        return np.zeros(shape)

    def right(X):
        return np.zeros((len(X), 2))

    latent, X = kernels.Mixture(np.log([0.5, 0.5]), tangents=np.zeros((1, 2))), np.zeros((100, 3))
    with pytest.raises(ValueError, match=rf"must return shape \(100, 2\), got {re.escape(str(shape))}"):
        run(kernels.Coupled(latent, kernels.Called(2, 3, 1, wrong, lambda X, h: np.zeros(1))), X)
    kernel = kernels.Coupled(latent, kernels.Called(2, 3, 1, right, lambda X, h: np.zeros(1), [wrong]))
    with pytest.raises(ValueError, match=rf"must return shape \(100, 2\), got {re.escape(str(shape))}"):
        kernels.run_dot(kernel, Block((X,)), np.zeros((1, kernel.n_stats)))


def test_no_rows_add_nothing(target):
    s = setup("full", 3, 2)
    sums, stats = run(s.kernel(), np.empty((0, 3)))
    assert sums == (0.0, 0.0, 0.0, -1)
    assert not stats.any()


# Responsibilities that are given


@pytest.mark.parametrize("kind", COVARIANCES)
def test_given_responsibilities(target, kind):
    s = setup(kind, 5, 3)
    rng = np.random.default_rng(6)
    for n in (1, 33, 1030):
        X, w, resp = s.rows(n), rng.uniform(0, 2, size=n), rng.dirichlet(np.ones(3), size=n)
        kernel = kernels.Coupled(kernels.Given(resp), s.kernel().emission)
        sums, stats = run(kernel, X, w)
        expected, size = s.statistics((X - s.shift) * s.scale, w, resp)
        assert np.all(np.abs(stats - expected) <= 1e-13 * (size + 1e-3))
        assert sums.weight == pytest.approx(w.sum(), rel=1e-14)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("diagonal", [False, True])
def test_two_components_give_the_bits_of_any_number(single, diagonal, target):
    """There is a way of its own for two: beside it a third of weight 0, which adds nothing.

    Not all weights are 1, or the logarithms of three would be taken of other products of rows.
    """
    rng, d = np.random.default_rng(0), 3
    X = np.concatenate([rng.normal(scale=s, size=(700, d)) for s in (0.5, 2.0, 30.0)]).astype("f4" if single else "f8")
    if not single:
        X[:9] = 1e200  # of no density; without weight
    w = rng.uniform(0.1, 2.0, size=len(X)) * (np.arange(len(X)) >= 9)
    means = rng.normal(size=(3, d))
    means[2] = 0.0
    factors = rng.uniform(0.5, 2.0, size=(3, d if diagonal else d * (d + 1) // 2))
    found, plain = [], []
    for k in (2, 3):
        logs, norms = np.array([-0.3, -1.4, -np.inf])[:k], np.array([-1.0, -2.0, 0.0])[:k]
        arrays = logs, means[:k], factors[:k], norms, np.zeros(d), np.ones(d)
        kernel = kernels.GaussianMixture(*arrays, diagonal=diagonal, single=single)
        sums, stats = run(kernel, X, w)
        parts = np.split(stats, np.cumsum([k, k, k, k * d]))
        found.append([*(part.reshape(k, -1)[:2] for part in parts), sums.loglik, sums.scale])
        plain.append(run(kernel.replace(single=False), X, w)[0].loglik)
    if single and target in SINGLE_TARGETS:
        assert plain[0] != found[0][-2]  # these were lanes of float32
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
