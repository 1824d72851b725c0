"""The house rules that no type checker sees: who may import whom, what may be allocated, what the compiled interface is."""

import ast
import re
import struct
import sys
import textwrap
from pathlib import Path

import interface
import pytest
from cases import SMALL_PASS
from processes import words

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "emcore"

# What each layer may import of ours, beside itself. Layers that are not listed may import all but `FORBIDDEN`.
ALLOWED = {
    "data": set(),
    "result": set(),
    "_cached": set(),
    "_checks": set(),
    "_arrays": set(),
    "_vectors": {"_arrays"},
    "kernels": {"_arrays", "_checks", "_vectors", "data"},
    "models": {"_cached", "_checks", "kernels", "result"},
    "objective": {"_cached", "_checks", "kernels", "models", "data", "result"},
    "solvers": {"_vectors", "result"},
    "solve": {"_vectors", "result", "solvers"},
    "_kept": {"files", "plot", "result"},
    "starts": {"data", "kernels", "models", "objective", "result"},
    "diagnostics": {"_cached", "result", "objective"},
}
FORBIDDEN = {"cli"}

needs_source = pytest.mark.skipif(not PACKAGE.is_dir(), reason="the tests do not stand beside the source")


def of_ours(name):
    """Return the layer that an absolute name `emcore.layer...` reaches, None where it is another's or the package alone."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] or None if package == "emcore" else None


def imports(path):
    """Yield (layer, line) of the imports of ours in a Python file, but those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    exempt = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in exempt:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                base = ".".join([*here, base]).rstrip(".")
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "emcore" else [base]
        else:
            continue
        for name in names:
            layer = of_ours(name)
            if layer:
                yield layer, node.lineno


def cython_imports(path):
    """Yield (layer, line) of the imports and cimports of ours in a Cython file, where relative ones are not understood."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := re.match(r"\s*from\s+([\w.]+)\s+c?import\s+\(?\s*(\w+)", line):
            assert not found[1].startswith("."), f"{path}:{number}: say emcore in full"
            names = [f"emcore.{found[2]}" if found[1] == "emcore" else found[1]]
        elif found := re.match(r"\s*c?import\s+([\w., ]+)", line):
            names = [name.split()[0] for name in found[1].split(",") if name.strip()]
        else:
            continue
        for name in names:
            layer = of_ours(name)
            if layer:
                yield layer, number


def layer_of(path):
    return path.relative_to(PACKAGE).parts[0].partition(".")[0]


PYTHON = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
CYTHON = sorted([*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])


def violations(path, found):
    layer = layer_of(path)
    for other, line in found:
        if other == layer:
            continue
        if other in FORBIDDEN or other not in ALLOWED.get(layer, {other}):
            yield f"{path.relative_to(ROOT)}:{line}: {layer} imports {other}"


@needs_source
@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_of_python(path):
    assert not list(violations(path, imports(path)))


@needs_source
@pytest.mark.parametrize("path", CYTHON, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_of_cython(path):
    assert not list(violations(path, cython_imports(path)))


@needs_source
def test_the_package_itself_does_not_import_the_command():
    found = {layer for layer, _ in imports(PACKAGE / "__init__.py")}
    assert {"fit", "solve"} <= found
    assert "cli" not in found


@needs_source
def test_every_layer_of_the_rules_is_there():
    assert set(ALLOWED) | FORBIDDEN <= {layer_of(path) for path in PYTHON + CYTHON}


def test_the_rules_can_be_broken(tmp_path, monkeypatch):
    """Imports of all forms are found, but for those under TYPE_CHECKING; those within a layer are no violation."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "emcore")
    bad = tmp_path / "emcore" / "solvers" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text(
        textwrap.dedent("""
        from typing import TYPE_CHECKING
        from emcore import kernels
        from emcore.result import Stop
        from .. import models
        from ..data.source import Block
        import emcore.cli
        if TYPE_CHECKING:
            from emcore.objective import Objective
        def f():
            from emcore.compare import compare
        """)
    )
    found = [text.split(" imports ")[1] for text in violations(bad, imports(bad))]
    assert sorted(found) == ["cli", "compare", "data", "kernels", "models"]
    bad = tmp_path / "emcore" / "kernels" / "bad.pyx"
    bad.parent.mkdir()
    bad.write_text(
        "from emcore.models._base cimport x\ncimport emcore.solvers as s\nfrom emcore.kernels._base cimport y\n"
        "import numpy as np, emcore.fit\nfrom emcore cimport objective\nfrom libc.math cimport log\n"
    )
    found = [text.split(" imports ")[1] for text in violations(bad, cython_imports(bad))]
    assert found == ["models", "solvers", "fit", "objective"]
    bad.write_text("from ..models cimport x\n")
    with pytest.raises(AssertionError, match="say emcore in full"):
        list(cython_imports(bad))


@needs_source
def test_one_module_links_the_c_library():
    """Its functions are called in `_base.pyx` alone; all others call through the table."""
    called = {path.name for path in CYTHON if re.search(r"\bemc_(select|current|target)\s*\(", path.read_text())}
    assert called == {"_base.pyx"}
    linked = re.findall(r"dependencies : (.*)", (PACKAGE / "kernels" / "meson.build").read_text())
    assert linked == ["name == '_base' ? [numpy_dep, openmp_dep, emc_dep] : [numpy_dep, emc_headers],"]


def unnamed(build, folder, pattern, name="{0.name}"):
    """Return the files of a folder, some at least, that its `meson.build` or that of another folder does not name."""
    text, files = (build / "meson.build").read_text(), sorted(folder.glob(pattern))
    assert files, f"{folder} has no {pattern}"
    return {path.name for path in files if f"'{name.format(path)}'" not in text}


@needs_source
def test_every_file_is_built_or_installed():
    kernels, src_c = PACKAGE / "kernels", ROOT / "src_c"
    assert unnamed(PACKAGE, PACKAGE, "*.py") == set()
    assert unnamed(PACKAGE, PACKAGE, "*/*.py", "{0.parent.name}") == set()
    assert unnamed(kernels, kernels, "*.pyx", "{0.stem}") == set()
    assert unnamed(PACKAGE, PACKAGE, "*.pyx", "{0.stem}") == set()
    assert unnamed(kernels, kernels, "*.py") == set()
    private = {"_factorials.pxd", "_scratch.pxd"}  # inline functions of our own
    assert unnamed(kernels, kernels, "*.pxd") == private
    assert unnamed(src_c, src_c / "micro", "*.c", "micro/{0.name}") == set()


# The compiled interface

GOLDEN = interface.golden()
SIZES = [name for name in GOLDEN if name.startswith(("sizes ", "offsets "))]
WORDS = [name for name in GOLDEN if name not in SIZES]

needs_64_bits = pytest.mark.skipif(struct.calcsize("P") != 8, reason="sizes are those of a 64-bit machine")
needs_compiler = pytest.mark.skipif(interface.compiler() is None, reason="a C compiler tells how structs lie in memory")


@needs_source
@pytest.mark.parametrize("name", WORDS)
def test_what_the_sources_promise_is_the_golden_interface(name):
    """Whole sections: what is added is written down too, by `python tests/interface.py`."""
    assert GOLDEN[name]
    assert interface.in_words()[name] == GOLDEN[name]


@needs_source
@needs_64_bits
def test_sizes_of_classes_are_the_golden_ones():
    assert interface.class_sizes() == GOLDEN["sizes of classes"] != []


@needs_source
@needs_64_bits
@needs_compiler
def test_sizes_and_offsets_of_structs_are_the_golden_ones():
    assert interface.struct_layout() == {name: GOLDEN[name] for name in SIZES if name != "sizes of classes"}


@needs_source
def test_the_whole_interface_is_held_to():
    """Each section that there is has its golden one: of structs three, one with their fields, their sizes and offsets."""
    assert set(interface.in_words()) == set(WORDS)
    structs = {name.removeprefix("struct ") for name in WORDS if name.startswith("struct ")}
    assert set(SIZES) == {"sizes of structs", "sizes of classes", *(f"offsets {name}" for name in structs)}


READERS = {"emc.h": (interface.HEADER, interface.in_header), "_base.pxd": (interface.DECLARED, interface.declared)}


@pytest.mark.parametrize(
    ("file", "more", "section", "line"),
    [
        ("emc.h", "double emc_more(int x);", "functions emc.h", "double emc_more(int x)"),
        ("emc.h", "#define EMC_MORE(x) (x + 1)", "defines", "EMC_MORE(x) (x + 1)"),
        ("emc.h", "enum emc_more { A, B };", "enum emc_more", "B"),
        ("emc.h", "typedef struct emc_more {\n    int a, *b;\n} emc_more;", "struct emc_more", "int *b"),
        ("_base.pxd", "cdef int more(int x)", "functions _base.pxd", "int more(int x)"),
        ("_base.pxd", "cdef class More(Kernel):\n    cdef int x", "class More(Kernel)", "cdef int x"),
    ],
)
@needs_source
def test_what_is_added_to_the_interface_is_seen(file, more, section, line):
    written, read = READERS[file]
    assert line in read(f"{written.read_text()}\n{more}\n")[section]


@pytest.mark.parametrize(
    ("file", "more"),
    [
        ("emc.h", "typedef struct {\n    int a;\n} emc_more;"),
        ("emc.h", "struct emc_more {\n    int a;\n};"),
        ("emc.h", "#  define MORE 1"),
        ("emc.h", "#define EMC_MORE(x) \\\n    (x + 1)"),
        ("emc.h", "int (*emc_more)(int x);"),
        ("_base.pxd", "cpdef int more(int x)"),
        ("_base.pxd", "cdef class More(Kernel, Latent):\n    cdef int x"),
    ],
)
@needs_source
def test_what_is_added_in_a_form_that_is_not_understood_is_refused(file, more):
    written, read = READERS[file]
    read(written.read_text())
    for text in (f"{written.read_text()}\n{more}\n", ""):
        with pytest.raises(ValueError, match="are understood"):
            read(text)


def test_what_was_promised_cannot_be_written_anew():
    """A section that is gone, shorter, changed or in another order is a broken promise; at their end all but classes grow."""
    then = GOLDEN
    assert interface.broken(then, then) == []
    for name, lines in then.items():
        assert interface.broken(then, {n: s for n, s in then.items() if n != name}) == [name]
        assert interface.broken(then, then | {name: lines[:-1]}) == [name]
        fewer = [re.sub(r"\d+$", "1", lines[0]), *lines[1:]] if name == "sizes of structs" else lines[::-1]
        if len(lines) > 1:
            assert interface.broken(then, then | {name: fewer}) == [name]
        fixed = name.startswith("class ") or name == "sizes of classes"
        assert interface.broken(then, then | {name: [*lines, "int more 8"]}) == ([name] if fixed else [])
    larger = [re.sub(r"\d+$", lambda size: str(int(size[0]) + 8), line) for line in then["sizes of structs"]]
    assert interface.broken(then, then | {"sizes of structs": larger}) == []


@needs_source
def test_cython_is_told_of_the_structs_that_the_header_has():
    header = interface.in_header()
    structs = {name.removeprefix("struct "): header[name] for name in header if name.startswith("struct ")}
    assert interface.structs_of_pxd() == structs


# What a fresh process does


def test_importing_loads_no_extra():
    extras = ["sklearn", "matplotlib", "click", "rich", "pyarrow", "pandas", "dask", "scipy", "pytest", "hypothesis"]
    loaded = words("import sys, emcore; print(*{name.split('.')[0] for name in sys.modules})")
    assert "emcore" in loaded
    assert "numpy" in loaded
    assert not set(extras) & set(loaded)


def test_importing_loads_no_more_than_a_fit_needs():
    """An import above NumPy's costs tens of milliseconds, and each of these several more."""
    later = {"cli", "data.readers", "diagnostics", "files", "plot"}
    costly = {"importlib.metadata", "pathlib", "subprocess", "tempfile", "urllib.parse"}
    code = f"""
    import sys, numpy, numpy.typing
    for name in {costly}:  # an editable install has loaded some
        sys.modules.pop(name, None)
    before = set(sys.modules)
    import emcore
    print(*set(sys.modules) - before)
    """
    loaded = set(words(code))
    assert {"emcore.fit", "emcore.kernels._base"} <= loaded
    assert not loaded & (costly | {f"emcore.{name}" for name in later})


def test_all_that_is_public_is_there_and_listed():
    code = """
    import emcore
    print(*sorted(set(emcore.__all__) - set(dir(emcore))), end=";")
    from emcore import *
    print(diagnostics.__name__, emcore.diagnostics is diagnostics, emcore.__version__ != "", hasattr(emcore, "nothing"))
    """
    assert words(code) == [";emcore.diagnostics", "True", "True", "False"]


@pytest.mark.skipif(not sys.platform.startswith(("linux", "darwin")), reason="peak memory is read from getrusage")
@pytest.mark.parametrize(("covariance", "dtype"), [("full", "float64"), ("diag", "float32")])
def test_nothing_of_size_n_by_k_is_allocated(covariance, dtype):
    """Peak memory above the rows: n x k would be 256 MB, a copy of the rows 128 MB, one number a row 16 MB."""
    code = f"""
    import resource, sys
    import numpy as np
    import emcore
    from emcore.data import as_source
    from emcore.models import GaussianMixture
    from emcore.objective import ModelObjective
    def peak():
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    n, d, k = 2_000_000, 8, 16
    X = np.empty((n, d), dtype={dtype!r})
    np.random.default_rng(0).standard_normal(out=X, dtype=X.dtype)
    before = peak()
    source = as_source(X)
    objective = ModelObjective(GaussianMixture(k, {covariance!r}), source, n_threads=2)
    block = source.sample(1000, np.random.default_rng(1))
    resp = np.eye(k)[np.arange(1000) % k]
    e = objective.evaluate(objective.point_of(objective.model.start(block, resp)))
    for _ in range(2):
        e.gradient
        e = objective.evaluate(e.em_point)
    assert e.failure is None and objective.passes == 3
    print(before, peak())
    """
    before, after = map(float, words(code))
    size = 2_000_000 * 8 * (8 if dtype == "float64" else 4) / 2**20
    assert before > size
    assert after - before < 64


LAYOUTS = {
    "C": "X = np.empty((n, d))",
    "Fortran": "X = np.empty((d, n)).T",
    "strided": "X = np.empty((n, 2 * d))[:, ::2]",
    "float32": "X = np.empty((n, d), dtype=np.float32)",
    "mapped": "X = np.lib.format.open_memmap(path, 'w+', shape=(n, d))",
}


@pytest.mark.skipif(not sys.platform.startswith(("linux", "darwin")), reason="peak memory is read from getrusage")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_fit_takes_little_memory_above_the_data(layout, tmp_path):
    """A weighted fit, binding and start included: n x k would be 820 MB, a copy of the rows 100 or 200 MB, one number a row,
    such as a copy of the weights, 13 MB, where what is taken whatever n is comes to 27 MB.
    """
    code = f"""
    import resource, sys, warnings
    import numpy as np
    import emcore
    from emcore.models import GaussianMixture
    from emcore.result import Stop
    warnings.simplefilter("ignore")  # that few steps were not enough
    def peak():
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    def fit(k, X, weights):
        options = dict(start="random-points", random_state=0, n_threads=2, stop=Stop(max_passes=2))
        return emcore.fit(GaussianMixture(k), X, sample_weight=weights, **options)
    n, d, k, path = 1_600_000, 16, 64, {str(tmp_path / "X.npy")!r}
    rng = np.random.default_rng(0)
    weights = rng.uniform(size=n)
    {LAYOUTS[layout]}
    means = 20 * rng.normal(size=(k, d))
    for i in range(0, n, 10_000):
        X[i : i + 10_000] = rng.normal(size=(10_000, d)) + means[rng.integers(k, size=10_000)]
    fit(2, X[:1000], weights[:1000])  # SciPy is loaded
    before = peak()
    done = fit(k, X, weights)
    assert done.passes == 2
    print(before, peak(), X.nbytes / 2**20)
    """
    before, after, size = map(float, words(code))
    assert before > size
    assert after - before < 32


@needs_source
def test_tests_know_from_which_size_on_threads_start():
    found = re.findall(r"\bSMALL_PASS = (\d+)", (PACKAGE / "kernels" / "_base.pyx").read_text())
    assert found == [str(SMALL_PASS)]


@needs_source
def test_no_property_holds_a_lock():
    """Up to Python 3.11 that of functools does, for all instances: a child forked inside it would wait for ever."""
    found = [path.name for path in PACKAGE.rglob("*.py") if re.search(r"functools.*\bcached_property", path.read_text())]
    assert found == []
