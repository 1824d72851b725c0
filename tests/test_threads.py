"""Threads of passes and of the BLAS beside them: how many there are, what limits them, that none are left limited."""

import os
import textwrap

import numpy as np
import pytest
from cases import SMALL, threads_start
from processes import needs_fork, needs_openmp, needs_proc, words
from threadpoolctl import ThreadpoolController, threadpool_limits

import emcore
from emcore.kernels import default_threads
from emcore.kernels.threads import PARALLEL
from emcore.models import GaussianMixture, UserMixture
from emcore.result import Stop

WIDE = 12  # columns: k = 1 then has 90 parameters, enough for the BLAS to be limited


def blas_threads():
    """Return the largest number of threads that a BLAS in this process may use."""
    return max((pool["num_threads"] for pool in ThreadpoolController().select(user_api="blas").info()), default=1)


@pytest.fixture
def two_blas_threads():
    """The BLAS with two threads; tests have one otherwise."""
    with threadpool_limits(2, user_api="blas"):
        if blas_threads() != 2:
            pytest.skip("no BLAS whose threads threadpoolctl can set")
        yield


def rows(n=300, d=WIDE, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


# How many a pass has


@needs_openmp
def test_what_says_how_many_threads():
    code = "from emcore.kernels import default_threads; print(default_threads())"
    unset = {"EMCORE_NUM_THREADS": "", "OMP_NUM_THREADS": ""}
    assert words(code, **unset | {"OMP_NUM_THREADS": "3,2"}) == ["3"]
    assert words(code, **unset | {"OMP_NUM_THREADS": "3", "EMCORE_NUM_THREADS": "5"}) == ["5"]
    assert words(code, **unset) == [str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())]


@needs_openmp
def test_limits_of_threadpoolctl_are_heeded(monkeypatch):
    monkeypatch.delenv("EMCORE_NUM_THREADS", raising=False)
    with threadpool_limits(3, user_api="openmp"):
        assert default_threads() == 3
        assert SMALL[0].objective(n_threads=None).n_threads == 3


def test_the_variable_of_ours_comes_first(monkeypatch):
    monkeypatch.setenv("EMCORE_NUM_THREADS", "5")
    with threadpool_limits(1, user_api="openmp"):
        assert SMALL[0].objective(n_threads=None).n_threads == 5


@pytest.mark.parametrize("text", ["none", "0", "-2", "2.5", "²"])
def test_a_bad_number_of_threads_is_refused_by_name(monkeypatch, text):
    monkeypatch.setenv("EMCORE_NUM_THREADS", text)
    with pytest.raises(ValueError, match="EMCORE_NUM_THREADS must be a whole number >= 1, got"):
        emcore.fit(GaussianMixture(2), rows(d=2))


@pytest.mark.filterwarnings("ignore::emcore.result.ConvergenceWarning")
def test_more_threads_than_there_can_be():
    X, how = rows(n=100_000, d=2), {"start": "random-points", "random_state": 0, "stop": Stop(max_passes=3)}
    many, one = (emcore.fit(GaussianMixture(2), X, n_threads=n, **how) for n in (10**12, 1))
    assert threads_start(many.evaluation.objective, many.point)
    assert many.value == one.value


# Passes at once, in several Python threads and in joblib's workers

WAITING = """
    import os, threading, time
    import numpy as np
    from emcore import kernels
    from emcore.data import Block
    def tasks():
        return len(os.listdir("/proc/self/task"))
    X = np.random.default_rng(0).normal(size=(60_000, 8))
    emission = kernels.GaussianDiag(X[:3], np.ones((3, 8)), np.zeros(3), np.zeros(8), np.ones(8))
    kernel = kernels.Coupled(kernels.Mixture(np.log([0.2, 0.3, 0.5])), emission)
    def run(n_threads):
        stats = np.zeros(kernel.n_stats)
        return kernels.run(kernel, Block((X,)), stats=stats, n_threads=n_threads), stats.tobytes()
    begun, ended = threading.Event(), threading.Event()
    def log_density(X):
        begun.set()
        ended.wait()
        return np.zeros((len(X), 1))
    called = kernels.Called(1, 8, 0, log_density, lambda X, h: np.zeros(0))
    def wait():
        kernels.run(kernels.Coupled(kernels.Mixture(np.zeros(1)), called), Block((X[:9],)))
    waiting = threading.Thread(target=wait)  # in a pass of its own
"""


@needs_openmp
@needs_proc
def test_passes_at_once_share_the_cpus():
    code = """
        waiting.start()
        begun.wait()
        cpus, before = len(os.sched_getaffinity(0)), tasks()
        many = min(cpus + 3, 60)  # no more than slots
        beside, most = run(many), min(many, max(1, cpus // 2, cpus - 1))
        print(tasks() - before == most - 1)
        ended.set()
        waiting.join()
        before -= 1
        while tasks() - before != most - 1:  # a thread that was waited for may be there for a moment still
            time.sleep(0.01)
        alone = run(many)
        print(tasks() - before == many - 1, beside == alone)
    """
    assert words(textwrap.dedent(WAITING) + textwrap.dedent(code), OMP_NUM_THREADS="1") == ["True"] * 3


@needs_openmp
@needs_proc
def test_several_threads_fit_at_once_each_with_a_team_of_its_own():
    code = """
        import os, threading
        import numpy as np, emcore
        from emcore.models import GaussianMixture
        from emcore.result import Stop
        X = np.random.default_rng(0).normal(size=(60_000, 8))
        def fit(seed, n_threads=2):
            stop = Stop(max_passes=4)
            done = emcore.fit(GaussianMixture(3), X, start="random-points", random_state=seed, n_threads=n_threads, stop=stop)
            return done.theta.tobytes()
        alone = [fit(seed, n_threads=1) for seed in range(4)]
        before = len(os.listdir("/proc/self/task"))
        ready, done, left = threading.Barrier(4), threading.Barrier(5), threading.Barrier(5)
        found = [None] * 4
        def work(i):
            ready.wait()
            found[i] = fit(i)
            done.wait()
            left.wait()  # a team ends with the thread whose it is
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        done.wait(100)
        print(len(os.listdir("/proc/self/task")) - before, found == alone)
        left.wait()
    """
    ignore = "import warnings; warnings.simplefilter('ignore')\n"  # that four steps were not enough
    assert words(ignore + textwrap.dedent(code), OMP_NUM_THREADS="8") == ["8", "True"]


JOBLIB = """
    import warnings
    warnings.simplefilter("ignore")
    import numpy as np, emcore
    from emcore.kernels import default_threads
    from emcore.models import GaussianMixture
    from emcore.result import Stop
    from joblib import Parallel, cpu_count, delayed
    X = np.random.default_rng(0).normal(size=(60_000, 8))
    def fit(X, seed):
        done = emcore.fit(GaussianMixture(3), X, start="random-points", random_state=seed, stop=Stop(max_passes=4))
        return done.theta.tobytes(), (done.n_threads, default_threads())
    alone = [fit(X, seed)[0] for seed in range(4)]
    found = Parallel(n_jobs=2, backend=backend)(delayed(fit)(X, seed) for seed in range(4))
    print([bits for bits, _ in found] == alone, max(max(n) for _, n in found) <= max(1, cpu_count() // 2))
"""


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_of_joblib_find_the_same_bits(backend):
    pytest.importorskip("joblib", reason="joblib is not installed")
    unset = dict.fromkeys(["EMCORE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"])
    same, few = words(f"backend = {backend!r}\n" + textwrap.dedent(JOBLIB), **unset)
    assert same == "True"
    if backend == "loky":  # whose processes have their share of the CPUs each; threads share them pass by pass
        assert few == "True"


# What the BLAS has meanwhile


def watched(model, X, **options):
    """Fit, and return how many threads the BLAS had between the passes."""
    seen = []
    emcore.fit(model, X, random_state=0, stop=Stop(max_passes=4), callback=lambda step: seen.append(blas_threads()), **options)
    return set(seen)


@pytest.mark.filterwarnings("ignore::emcore.result.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["em", "cg", "lbfgs"])
def test_a_climb_leaves_the_blas_one_thread_and_gives_them_back(two_blas_threads, solver):
    assert watched(GaussianMixture(1), rows(), solver=solver) == {1}
    assert blas_threads() == 2


@pytest.mark.filterwarnings("ignore::emcore.result.ConvergenceWarning")
def test_where_nothing_is_large_nothing_is_limited(two_blas_threads):
    assert watched(GaussianMixture(1), rows(d=2), solver="em") == {2}


@pytest.mark.filterwarnings("ignore::emcore.result.ConvergenceWarning")
def test_functions_of_the_users_keep_the_threads(two_blas_threads):
    k = d = 8

    def log_density(X, mean):
        return -0.5 * ((X - mean) ** 2).sum(axis=1)

    X = rows(n=70, d=d)
    model = UserMixture(k, log_density, {"mean": ("real", ("d",))}, initial={"mean": X[:k]})
    assert k * d >= PARALLEL
    assert watched(model, X, solver="em") == {2}


def test_an_exception_gives_the_threads_back(two_blas_threads):
    def fail(step):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        emcore.fit(GaussianMixture(1), rows(), random_state=0, callback=fail)
    assert blas_threads() == 2


THREADS = """
    import os, threading, warnings
    import scipy.linalg.blas
    from concurrent.futures import ThreadPoolExecutor
    from threadpoolctl import ThreadpoolController
    from emcore.kernels import serial_blas
    from emcore.kernels.threads import PARALLEL
    def threads():
        return max((pool["num_threads"] for pool in ThreadpoolController().select(user_api="blas").info()), default=1)
    first, second = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    inside = {first: [], second: []}
    def enter(thread):
        inside[thread].append(serial_blas(PARALLEL))
        thread.submit(inside[thread][-1].__enter__).result()
        return threads()
    def leave(thread):
        thread.submit(inside[thread].pop().__exit__, None, None, None).result()
        return threads()
    print(threads())
"""


def with_two_blas_threads(code):
    """Return what a fresh process prints in which the BLAS has two threads that nothing has limited."""
    before, *found = words(textwrap.dedent(THREADS) + textwrap.dedent(code), OPENBLAS_NUM_THREADS="2")
    if before != "2":
        pytest.skip("no BLAS whose threads the environment sets")
    return list(map(int, found))


def test_climbs_that_overlap_leave_no_limit():
    code = """
        print(enter(first), enter(second), leave(first), enter(first), leave(second), leave(first))
        print(enter(first), enter(second), enter(second), leave(first), leave(second), leave(second))
        print(enter(first), enter(first), leave(first), leave(first))
        print(enter(first), enter(second), leave(second), leave(first))
    """
    assert with_two_blas_threads(code) == [1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2]


def test_fits_that_overlap_leave_no_limit():
    """One begins during the other and goes on when that has ended."""
    code = """
        import numpy as np, emcore
        from emcore.models import GaussianMixture
        from emcore.result import Stop
        warnings.simplefilter("ignore")  # that few steps were not enough
        begun, during, ended, seen = threading.Event(), threading.Event(), threading.Event(), []
        def one(step):
            begun.set()
            assert during.wait(60)
        def other(step):
            during.set()
            assert ended.wait(60)
            seen.append(threads())
        def fit(callback):
            X = np.random.default_rng(0).normal(size=(300, 12))
            options = {"start": "random-points", "random_state": 0, "stop": Stop(max_passes=4)}
            emcore.fit(GaussianMixture(1), X, callback=callback, **options)
        one = first.submit(fit, one)
        assert begun.wait(60)
        other = second.submit(fit, other)
        one.result()
        ended.set()
        other.result()
        print(*set(seen), threads())
    """
    assert with_two_blas_threads(code) == [1, 2]


@needs_fork
def test_a_child_is_not_left_with_the_limit_of_a_thread_that_it_does_not_have():
    code = """
        print(enter(first))
        warnings.simplefilter("ignore")  # that a process with threads forks
        pid = os.fork()
        if pid == 0:
            with serial_blas(PARALLEL):
                pass
            os._exit(threads())
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), threads(), leave(first))
    """
    assert with_two_blas_threads(code) == [1, 2, 1, 2]


def test_the_blas_has_no_say_in_the_bits():
    code = """
        import numpy as np, emcore
        from emcore.models import GaussianMixture
        from emcore.result import Stop
        rng = np.random.default_rng(0)
        X = np.einsum("ij,jk->ik", rng.normal(size=(900, 80)), rng.normal(size=(80, 80)))  # nor in the rows
        for solver in ("em", "cg", "lbfgs", "natural"):
            fit = emcore.fit(GaussianMixture(1), X, solver=solver, start=start(X), stop=Stop(max_passes=12))
            print(fit.value.hex(), fit.params.covariances.sum().hex())
    """
    start = """
        import warnings
        warnings.simplefilter("ignore")
        def start(X):
            return {"weights": [1.0], "means": X[:1], "covariances": 9.0 * np.eye(80)[None]}
    """
    one, two = (words(start + code, OPENBLAS_NUM_THREADS=n, EMCORE_NUM_THREADS="1") for n in ("1", "2"))
    assert one == two


def test_without_threadpoolctl_all_goes_on():
    code = """
        import sys
        sys.modules["threadpoolctl"] = None
        import numpy as np, emcore
        from emcore.models import GaussianMixture
        X = np.random.default_rng(0).normal(size=(300, 12))
        print(emcore.fit(GaussianMixture(1), X, random_state=0, start="random-points").status.ok)
    """
    assert words(code) == ["True"]


@needs_fork
def test_a_child_forked_while_another_thread_fits_can_fit():
    code = """
        import os, signal, threading, warnings
        import numpy as np, emcore
        from emcore.models import GaussianMixture
        warnings.simplefilter("ignore")  # that a process with threads forks, and budgets
        X = np.random.default_rng(0).normal(size=(300, 6))
        def fit():
            return emcore.fit(GaussianMixture(2), X, start="random-points", random_state=0, n_threads=1).value
        known, ended = fit(), threading.Event()
        def loop():
            while not ended.is_set():
                fit()
        thread = threading.Thread(target=loop)
        thread.start()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)  # a child that hangs
                os._exit(0 if fit() == known else 1)
            print(os.waitpid(pid, 0)[1])
        ended.set()
        thread.join()
    """
    assert words(code) == ["0"] * 20
