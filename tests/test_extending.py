"""Adding a solver touches one file, adding an emission two: shown by a toy of each."""

import ctypes
import importlib
import importlib.util
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import CASES, CONVERGING
from derivatives import derivatives
from interface import compiler
from mpmath import mp, mpf
from pages import DOCS, needs_pages, run, text
from processes import fresh, python
from processes import run as process
from reference import mixture
from toy_solver import OverRelaxed

import emcore.solvers
from emcore import kernels
from emcore.data import Block, as_source
from emcore.models import Mixture, Model
from emcore.objective import ModelObjective
from emcore.result import Stop, rounding
from emcore.solve import solve
from emcore.solvers import EM, LBFGS

# A solver, in one file


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_toy_solver_runs_on_every_model(case):
    objective = case.objective()
    at = case.start(objective)
    em = solve(objective, EM(), at)
    result = solve(objective, emcore.solvers.get(OverRelaxed()), at)
    assert result.status.ok, result
    assert result.value == pytest.approx(em.value, abs=1e-8)
    assert np.all(np.diff(result.trace.value) >= -rounding(result.evaluation.scale))
    assert result.solver == "over-relaxed"


def test_a_toy_solver_pays():
    case = next(case for case in CASES if "full-k2-d1-overlapping" in case.name)  # EM crawls there
    objective = case.objective()
    at = case.start(objective)
    passes = [solve(objective, solver, at).passes for solver in (EM(), OverRelaxed(1.8))]
    assert passes[1] < 0.8 * passes[0]
    result = solve(objective, OverRelaxed(1.8), at)
    assert result.solver == "over-relaxed(factor=1.8)"
    assert "relaxed" in result.trace.event


# An emission, in two files

EXAMPLE = Path(__file__).parent / "cython_example"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Compile the examples against the package as it is installed, and make them importable."""
    if compiler() is None:
        pytest.skip("no C compiler")
    directory = tmp_path_factory.mktemp("cython_example")
    done = python(EXAMPLE / "build.py", directory)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    yield directory
    sys.path.remove(str(directory))


@pytest.fixture(scope="module")
def exponential(built):
    """The class of the toy emission."""
    spec = importlib.util.spec_from_file_location("exponential_model", EXAMPLE / "exponential.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Exponential


K, D, N = 2, 3, 400


def exponential_rows():
    rng = np.random.default_rng(0)
    component = np.arange(N) % K
    return rng.exponential(np.array([[1.0, 0.2, 3.0], [6.0, 5.0, 0.5]])[component]), component


@pytest.fixture
def objective(exponential):
    """A mixture of exponentials on its rows."""
    X, _ = exponential_rows()
    w = np.random.default_rng(1).choice([0.0, 1.0, 2.5], size=N)
    return ModelObjective(Model(Mixture(K), exponential(K), name="ExponentialMixture"), as_source(X, w), n_threads=1)


def exponentials(X, weights, rates):
    """Return responsibilities (n, k) and log-densities (n,) of rows of a mixture of exponentials."""
    return mixture.posterior(np.log(rates).sum(axis=1) - X @ rates.T, weights)


def beginning(objective):
    resp = np.full((N, K), 0.2)
    resp[np.arange(N), exponential_rows()[1]] = 0.8
    return objective.point_of(objective.model.start(objective.source.block(0), resp))


def test_pass_of_a_toy_emission(target, objective):
    at = beginning(objective)
    weights, rates = at.params
    X, w = objective.source.X, objective.source.weights
    resp, rows = exponentials(X, weights, rates)
    resp *= w[:, None]
    e = objective.evaluate(at)
    assert e.value == pytest.approx(w @ rows / w.sum(), rel=1e-13)
    view = objective.model.layout.view
    np.testing.assert_allclose(view(e.stats.vector, "emission.count"), resp.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(view(e.stats.vector, "emission.sum"), resp.T @ X, rtol=1e-12)


def test_fishers_identity_of_a_toy_emission(objective):
    theta = beginning(objective).theta + 0.3 * np.random.default_rng(2).normal(size=objective.size)
    g = objective.evaluate(theta).gradient
    differences = derivatives(lambda at: objective.evaluate(at).value, theta, 1e-4)
    np.testing.assert_allclose(g, differences, rtol=0, atol=1e-8 * np.abs(g).max())


@pytest.mark.parametrize("name", CONVERGING)
def test_every_solver_fits_a_toy_emission(name, objective):
    at, solver = beginning(objective), emcore.solvers.get(name)
    if not solver.needs <= objective.capabilities:  # it gives no Hessian products
        with pytest.raises(ValueError, match="needs \\['tangent'\\]"):
            solve(objective, solver, at)
        return
    em = solve(objective, EM(), at, stop=Stop(gain=1e-15))
    result = solve(objective, solver, at)
    assert em.status.ok
    assert result.status.ok, result
    assert result.value == pytest.approx(em.value, abs=1e-9)
    for x, y in zip(result.point.params, em.point.params, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4)


def test_em_and_lbfgs_agree_to_the_end(objective):
    at = beginning(objective)
    em, lbfgs = (solve(objective, solver, at, stop=Stop(gain=0, gtol=1e-8)) for solver in (EM(), LBFGS()))
    assert em.status.ok
    assert lbfgs.status.ok
    np.testing.assert_allclose(em.theta, lbfgs.theta, rtol=0, atol=1e-6)
    assert np.all(np.diff(em.trace.value) >= -rounding(em.evaluation.scale))


def test_the_laws_hold_for_a_toy_emission(objective):
    model = Model(Mixture(K), type(objective.model.emission)(K), name="ExponentialMixture")
    start = objective.model.to_user(beginning(objective).params)
    found = emcore.check(model, objective.source.X, sample_weight=objective.source.weights, start=start)
    assert found.holds, f"\n{found}"


def test_a_toy_emission_checks_its_data_and_its_start(exponential):
    model = Model(Mixture(2), exponential(2), name="ExponentialMixture")
    with pytest.raises(ValueError, match="X must not be negative"):
        model.bind(as_source([[1.0], [-1.0], [2.0]]))
    bound = model.bind(as_source([[1.0], [2.0], [3.0]]))
    params = bound.from_user({"weights": [0.5, 0.5], "rates": [[1.0], [2.0]]})
    np.testing.assert_array_equal(params.rates, [[1.0], [2.0]])
    with pytest.raises(ValueError, match="rates must be positive"):
        bound.from_user({"weights": [0.5, 0.5], "rates": [[1.0], [0.0]]})


def test_a_fit_of_a_toy_emission_is_saved_and_drawn_from(exponential, tmp_path):
    X, _ = exponential_rows()
    start = {"weights": [0.5, 0.5], "rates": [[1.0, 5.0, 0.3], [0.2, 0.2, 2.0]]}
    found = emcore.fit(Model(Mixture(2), exponential(2)), X, start=start)
    found.save(tmp_path / "toy.npz")
    back = emcore.load(tmp_path / "toy.npz", model=Model(Mixture(2), exponential(2)))
    np.testing.assert_array_equal(back.log_density(X), found.log_density(X))
    rows, component = back.sample(4000, random_state=0)
    for c in range(2):
        np.testing.assert_allclose(rows[component == c].mean(axis=0) * found.params.rates[c], 1.0, atol=0.15)
    with pytest.raises(ValueError, match=r"model: .*holds the parameters .*'rates': \(2, 3\).*given are .*'rates': \(3, 3\)"):
        emcore.load(tmp_path / "toy.npz", model=Model(Mixture(3), exponential(3)))

    class Forgetful(exponential):
        def rebound(self, state):
            return self

    with pytest.raises(ValueError, match="A part of your own says with bound_state what binding fixed"):
        emcore.load(tmp_path / "toy.npz", model=Model(Mixture(2), Forgetful(2)))


def test_emissions_of_the_house_can_be_held_by_others(target, elementary):
    rng = np.random.default_rng(3)
    means, factors = rng.normal(size=(2, 3)), rng.uniform(0.5, 1.5, size=(2, 6))
    gaussian = kernels.GaussianTri(means, factors, np.zeros(2), np.zeros(3), np.ones(3))
    latent, X = kernels.Mixture(np.log([0.3, 0.7])), rng.normal(size=(1100, 3))
    answers = []
    for emission in (gaussian, elementary.Counted(gaussian)):
        stats = np.zeros(latent.n_stats + emission.n_stats)
        sums = kernels.run(kernels.Coupled(latent, emission), Block((X,)), stats=stats, n_threads=2)
        answers.append((sums, stats))
    assert answers[1][0] == answers[0][0]
    np.testing.assert_array_equal(answers[1][1], [*answers[0][1], 1100])


def test_include_directory_has_the_header():
    assert "emc_panel" in (Path(emcore.get_include()) / "emc.h").read_text()


# The page about the compiled interface

PAGE = DOCS / "compiled_interface.md"
USE = """
import array, json, sys
import distances, lanes
import emcore
rows = array.array("d", json.loads(sys.argv[1]))
out = array.array("d", [0.0]) * (len(rows) // 2)
distances.distances(memoryview(rows).cast("b").cast("d", (len(out), 2)), array.array("d", [1, -1]),
                    array.array("d", [0.5, 0.25, 2]), out)
print(json.dumps([list(out), lanes.lanes(), emcore.kernels.target()]))
"""


@needs_pages
@pytest.mark.parametrize("builder", ["setuptools", "meson"])
def test_the_example_of_the_documents_builds_and_runs(builder, tmp_path):
    if compiler() is None:
        pytest.skip("no C compiler")
    files = re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", text(PAGE), flags=re.S)
    assert [name for name, _ in files] == ["distances.pyx", "lanes.c", "setup.py", "meson.build"]
    for name, content in files:
        (tmp_path / name).write_text(content)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if builder == "setuptools":
        commands, where = [[sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]], tmp_path
    else:
        if shutil.which("meson", path=path) is None or shutil.which("ninja", path=path) is None:
            pytest.skip("meson is not installed")
        where = tmp_path / "build"
        commands = [["meson", "setup", "build", "--buildtype=plain"], ["meson", "compile", "-C", "build"]]
    for command in commands:
        done = process(*command, folder=tmp_path, PATH=path, CFLAGS="-O0")
        assert done.returncode == 0, done.stdout + done.stderr
    X = np.random.default_rng(0).normal(size=(1100, 2))
    got, lanes, name = json.loads(fresh(USE, json.dumps(X.ravel().tolist()), folder=where))
    L = np.array([[0.5, 0.0], [0.25, 2.0]])
    np.testing.assert_allclose(got, np.sum(((X - [1, -1]) @ L.T) ** 2, axis=1), rtol=1e-13)
    assert lanes == {"avx512": 8, "avx2": 4, "neon": 2}.get(name, lanes) >= 1


@needs_pages
def test_the_pass_of_the_documents_runs(built):
    scope = run(text(PAGE).split("## A kernel of your own")[1])
    weights, rates, X = scope["weights"], scope["rates"], scope["X"]
    resp, rows = exponentials(X, weights, rates)
    assert scope["sums"].loglik == pytest.approx(rows.sum(), rel=1e-13)
    assert scope["sums"][2:] == (len(X), -1)
    np.testing.assert_allclose(scope["stats"], [*resp.sum(axis=0), *resp.sum(axis=0), *(resp.T @ X).ravel()], rtol=1e-12)


# The table of micro-kernels as a capsule


class Head(ctypes.Structure):
    """How `emc_table` begins."""

    _fields_ = [("size", ctypes.c_size_t), ("abi", ctypes.c_int), ("lanes", ctypes.c_int), ("name", ctypes.c_char_p)]


def pointer(capsule, name):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, name)


def test_capsule_holds_the_table_in_force(target):
    name = b"emcore.emc_table.%d" % kernels.abi()
    head = Head.from_address(pointer(kernels.table_capsule(), name))
    assert head.name.decode() == target
    assert head.abi == kernels.abi()
    assert head.size > ctypes.sizeof(Head)
    assert head.size % ctypes.sizeof(ctypes.c_void_p) == 0


def test_capsule_of_another_version_is_refused():
    name = b"emcore.emc_table.%d" % (kernels.abi() + 1)
    with pytest.raises(ValueError, match="PyCapsule_GetPointer called with incorrect name"):
        pointer(kernels.table_capsule(), name)


def test_a_table_fits_who_knows_no_more_of_it(elementary):
    assert elementary.fits(0, 0)
    assert elementary.fits(0, 8)  # one that has grown since
    assert not elementary.fits(0, -8)
    assert not elementary.fits(1, 0)


# The elementwise micro-kernels, which only compiled code can call


@pytest.fixture
def elementary(built):
    """The elementwise micro-kernels."""
    return importlib.import_module("elementary")


def values(function, x):
    y = np.full(len(x), np.nan)
    function(np.ascontiguousarray(x), y)
    return y


def worst_ulp(got, exact, x):
    """Return the largest error in units of the last place."""
    worst = 0.0
    with mp.workdps(40):
        for a, b in zip(got, x, strict=True):
            want = exact(mpf(float(b)))
            ulp = mpf(math.ulp(float(want)))
            worst = max(worst, float(abs(mpf(float(a)) - want) / ulp))
    return worst


def test_exp_is_accurate(target, elementary):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-708, 709, 1500), rng.normal(size=1000), 1e-3 * rng.normal(size=200), [0.0, 1e-300]])
    assert worst_ulp(values(elementary.exp, x), mp.exp, x) < 1.2
    tiny = rng.uniform(-745, -709, 300)
    assert worst_ulp(values(elementary.exp, tiny), mp.exp, tiny) < 1.2


def test_log_is_accurate(target, elementary):
    rng = np.random.default_rng(1)
    x = np.concatenate([2.0 ** rng.uniform(-1074, 1023.9, 1500), rng.uniform(0.5, 2, 1500), 1 + 1e-8 * rng.normal(size=200)])
    x = x[x != 1]
    assert worst_ulp(values(elementary.log, x), mp.log, x) < 1.2


needs_long_double = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="no wider floating-point type here")


def worst_ulp_of_many(got, want):
    exponent = np.maximum(np.frexp(want)[1], -1021)  # subnormal numbers lie as far apart as the smallest normal ones
    return np.abs(np.ldexp(got - want, 53 - exponent)).max()


@needs_long_double
def test_two_million_values_are_accurate(target, elementary):
    rng = np.random.default_rng(2)
    for low, high in ((-745.1, 709.7), (-1.0, 1.0)):
        x = rng.uniform(low, high, size=1_000_000)
        assert worst_ulp_of_many(values(elementary.exp, x), np.exp(x.astype(np.longdouble))) < 1.25
    bits = rng.integers(1, 0x7FF0000000000000, size=1_000_000).view(float)  # any positive number there is
    for x in (bits, rng.uniform(0.5, 2.0, size=1_000_000)):
        assert worst_ulp_of_many(values(elementary.log, x), np.log(x.astype(np.longdouble))) < 1.0


def test_special_values(target, elementary):
    inf, nan = math.inf, math.nan
    least, most = math.ulp(0.0), sys.float_info.max
    np.testing.assert_array_equal(
        values(elementary.exp, [least, -least, most, -most, 709.7827128933841, -745.2]), [1, 1, inf, 0, inf, 0]
    )
    np.testing.assert_array_equal(values(elementary.log, [-least, -most, -inf]), [nan, nan, nan])
    assert not np.signbit(values(elementary.exp, [-inf, -1e5])).any()
    np.testing.assert_array_equal(values(elementary.exp, [0.0, -0.0, inf, -inf, nan, 1e5, -1e5]), [1, 1, inf, 0, nan, inf, 0])
    np.testing.assert_array_equal(values(elementary.log, [1.0, 0.0, -0.0, inf, nan, -1.0]), [0, -inf, -inf, inf, nan, nan])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 33])
def test_any_length_and_alignment(target, elementary, n):
    for offset in (0, 1, 3):
        x = np.random.default_rng(n).uniform(0.1, 5, size=n + offset)[offset:]
        y = np.full(n + offset + 5, 7.0)
        elementary.exp(x, y[offset : offset + n])
        np.testing.assert_allclose(y[offset : offset + n], np.exp(x), rtol=1e-15)
        assert np.all(y[offset + n :] == 7.0)  # nothing is written past the end
        elementary.log(x, y[offset : offset + n])
        np.testing.assert_allclose(y[offset : offset + n], np.log(x), rtol=1e-13, atol=1e-15)
        assert np.all(y[offset + n :] == 7.0)
