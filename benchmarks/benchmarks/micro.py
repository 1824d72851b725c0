"""The micro-kernels of each CPU target beside what the machine can do: its matrix product, timed in turn in the same process.

Of fractions and rates more is better, of times less.
"""

import ctypes
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from .common import require, safe_import, sizes, times_in_turn
from .iteration import Pass

select_target = safe_import("emcore.kernels", "select_target")
target = safe_import("emcore.kernels", "target")
exported = safe_import("emcore.kernels._base", "__pyx_capi__")

TARGETS = ("baseline", "avx2", "avx512", "neon")
ABI, GROUP, ALIGN = 2, 32, 64  # EMC_ABI, EMC_GROUP, EMC_ALIGN
VALUES = 1 << 15  # of a panel: 256 kB, which the second cache holds
MATRIX = 768  # order of the product, large enough for its full rate but for a few percent
ROUNDS = 7

_address, _length = ctypes.c_void_p, ctypes.c_ssize_t


class Table(ctypes.Structure):
    """The head of `emc_table`, which grows at its end only."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("abi", ctypes.c_int),
        ("lanes", ctypes.c_int),
        ("name", ctypes.c_char_p),
        *((name, _address) for name in (
            "pack_rows", "pack_weights", "unpack", "sqdist_tri", "sqdist_diag", "normalize_rows", "column_mass",
            "weighted_sum", "weighted_gram", "weighted_squares", "vexp", "vlog", "gaussian_mixture", "gaussian_mixture_work",
            "gaussian_mixture_single", "gaussian_mixture_work_single", "affine", "weighted_moments", "whiten_tri",
            "quadratic_tri", "quadratic_diag", "normalize_rows_dot", "factor_scores", "weighted_cross", "poisson_rows",
            "vexp_single", "vlog_single", "row_dots", "row_sums",
        )),
    )  # fmt: skip


_rows, _distance = (_address, _length, _length), (_address, _address, ctypes.c_double, ctypes.c_double)
ARGUMENTS = {
    "pack_rows": (*_rows, _address, ctypes.c_int, _length, _length, _address, _address),
    "sqdist_tri": (*_rows, *_distance, _address, _length),
    "sqdist_diag": (*_rows, *_distance, _address, _length),
    "whiten_tri": (*_rows, *_distance, _address, _address, _length),
    "normalize_rows": (*_rows, _address, _address, _address, _address),
    "weighted_gram": (*_rows, _address, _address, _length, _address),
    "weighted_squares": (*_rows, _address, _address, _length, _address),
    "vexp": (_address, _address, _length),
    "vlog": (_address, _address, _length),
    "vexp_single": (_address, _address, _length),
    "vlog_single": (_address, _address, _length),
}


def micro_kernel(name):
    """Return a micro-kernel of the target in force, as compiled code reaches it: through the table that `_base` exports."""
    capsule = exported["table"]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, (ctypes.py_object,)
    api.PyCapsule_GetPointer.restype, api.PyCapsule_GetPointer.argtypes = _address, (ctypes.py_object, ctypes.c_char_p)
    pointer = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    table = ctypes.CFUNCTYPE(ctypes.POINTER(Table))(pointer)().contents
    if table.abi != ABI or table.size <= getattr(Table, name).offset:  # an older version's table is shorter
        raise NotImplementedError
    return ctypes.CFUNCTYPE(None, *ARGUMENTS[name])(getattr(table, name))


def aligned(*shape):
    """Return an array of ones that begins where the kernels want it."""
    memory = np.ones(math.prod(shape) + ALIGN // 8)
    begin = -memory.ctypes.data % ALIGN // 8
    return memory[begin : begin + math.prod(shape)].reshape(shape)


class OnTarget:
    """Forces a CPU target while a benchmark runs."""

    before = None

    def force(self, name):
        require(select_target, target, exported)
        self.before = target()
        try:
            select_target(name)
        except ValueError as error:  # not built, or this CPU does not run it
            raise NotImplementedError from error

    def teardown(self, *_):
        if self.before is not None:
            select_target(self.before)


def fraction_of_matrix_product(call, flops, idle=lambda: None, n_threads=1):
    """Return the rate of a call, `idle` taken off its time, divided by that of the matrix product: the median of rounds.

    With several threads it is that of as many products at a time: here NumPy's BLAS has one thread.
    """
    A, B = np.random.default_rng(0).normal(size=(2, MATRIX, MATRIX))
    C = np.empty((n_threads, MATRIX, MATRIX))
    with ThreadPoolExecutor(n_threads) as pool:

        def products():
            if n_threads == 1:
                np.matmul(A, B, out=C[0])
            else:
                list(pool.map(lambda out: np.matmul(A, B, out=out), C))

        product, busy, idle = times_in_turn(products, call, idle, rounds=ROUNDS).T
    return float(np.median((flops / (busy - idle)) / (2.0 * n_threads * MATRIX**3 / product)))


class MicroKernels(OnTarget):
    """A triangle's multiply-adds are counted, d (d + 1) operations a row, and the time of a call with no rows is taken off."""

    param_names = ("kernel", "target", "d")
    params = (("sqdist_tri", "whiten_tri", "weighted_gram"), TARGETS, (8, 64))

    def setup(self, kernel, target, d):
        self.force(target)
        groups = VALUES // (d * GROUP)
        self.X, self.r, self.out = aligned(groups, d, GROUP), aligned(groups, GROUP), aligned(groups, GROUP)
        self.X[:] = np.random.default_rng(0).normal(size=self.X.shape)
        self.Y, self.mean, self.triangle = aligned(groups, d, GROUP), np.zeros(d), np.full(d * (d + 1) // 2, 1e-3)
        arrays = self.X, self.Y, self.r, self.out, self.mean, self.triangle
        X, Y, r, out, mean, triangle = (a.ctypes.data for a in arrays)
        call = micro_kernel(kernel)
        rest = {
            "sqdist_tri": (d, mean, triangle, 0.0, -0.5, out, GROUP),
            "whiten_tri": (d, mean, triangle, 0.0, -0.5, Y, out, GROUP),
            "weighted_gram": (d, mean, r, GROUP, triangle),
        }[kernel]
        self.busy, self.idle = partial(call, X, groups, *rest), partial(call, X, 0, *rest)
        self.flops = groups * GROUP * d * (d + 1)

    def track_fraction(self, kernel, target, d):
        return fraction_of_matrix_product(self.busy, self.flops, self.idle)

    track_fraction.unit = "fraction of DGEMM"


class RowKernels(OnTarget):
    """Those that do a few operations a number, for which a fraction of the matrix product says nothing."""

    param_names = ("kernel", "target", "d")
    params = (("pack_rows", "sqdist_diag", "normalize_rows", "weighted_squares"), TARGETS, (8, 64))

    def setup(self, kernel, target, d):
        self.force(target)
        groups, rng = VALUES // (d * GROUP), np.random.default_rng(0)
        n = groups * GROUP
        self.rows, self.X, self.r, self.out = rng.normal(size=(n, d)), aligned(groups, d, GROUP), aligned(n), aligned(n)
        self.X[:] = rng.normal(size=self.X.shape)
        self.zeros, self.ones, self.sums = np.zeros(d), np.ones(d), np.zeros(max(d, 2))
        arrays = self.rows, self.X, self.r, self.out, self.zeros, self.ones, self.sums
        rows, X, r, out, zeros, ones, sums = (a.ctypes.data for a in arrays)
        call = micro_kernel(kernel)
        self.numbers, self.call = n * d, {
            "pack_rows": partial(call, X, n, d, rows, 0, 8 * d, 8, zeros, ones),
            "sqdist_diag": partial(call, X, groups, d, zeros, ones, 0.0, -0.5, out, GROUP),
            # What it leaves are log-densities for the next call.
            "normalize_rows": partial(call, X, n, d, zeros, r, out, sums),
            "weighted_squares": partial(call, X, groups, d, zeros, r, GROUP, sums),
        }[kernel]  # fmt: skip

    def track_time(self, kernel, target, d):
        return float(1e9 * np.median(times_in_turn(self.call, rounds=ROUNDS)) / self.numbers)

    track_time.unit = "ns / number"


class Elementary(OnTarget):
    param_names = ("function", "target")
    params = (("exp", "log", "exp float32", "log float32"), TARGETS)

    def setup(self, function, target):
        self.force(target)
        name, _, single = function.partition(" ")
        x = np.random.default_rng(0).normal(size=VALUES // 4).astype(single or "float64")
        self.x = x if name == "exp" else np.exp(x)
        self.y = np.empty_like(x)
        arguments = self.x.ctypes.data, self.y.ctypes.data
        call = micro_kernel(f"v{name}_single" if single else f"v{name}")
        self.busy, self.idle = partial(call, *arguments, len(x)), partial(call, *arguments, 0)

    def track_rate(self, function, target):
        busy, idle = times_in_turn(self.busy, self.idle, rounds=ROUNDS).T
        return float(len(self.x) / np.median(busy - idle))

    track_rate.unit = "elements / s"


class FusedPass(OnTarget, Pass):
    """The whole dense pass of a mixture with full covariances: of its operations those of both triangles are counted.

    The product is always of float64, and on as many threads as the pass.
    """

    param_names = ("target", "size", "rows", "threads")
    params = (TARGETS, ("n=50000 d=8 k=8", "n=20000 d=16 k=16", "n=5000 d=64 k=16"), ("float64", "float32 lanes"), (1, 2))

    def setup(self, target, size, rows, threads):
        self.force(target)
        if threads > (os.cpu_count() or 1):
            raise NotImplementedError
        self.prepare("full", size, threads, rows, sparse=False)

    def track_fraction(self, target, size, rows, threads):
        n, d, k = sizes(size)
        return fraction_of_matrix_product(self.evaluate, 2.0 * n * k * d * (d + 1), n_threads=threads)

    track_fraction.unit = "fraction of DGEMM"
