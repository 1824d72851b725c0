"""Armadillo's gmm_full and gmm_diag, in C++: compiled when first asked for, called through ctypes."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from rivals.rival import Fit, NotAvailable, NotSupported, Parameters, supports

SOURCE = Path(__file__).with_suffix(".cpp")


@cache
def library():
    """Return the compiled library. One run of the benchmark shares it: RIVALS_CACHE is its folder."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise NotAvailable("no C++ compiler")
    built = Path(os.environ.get("RIVALS_CACHE") or tempfile.mkdtemp()) / "armadillo.so"
    if not built.exists():
        flags = ["-O3", "-march=native", "-fopenmp", "-DARMA_NO_DEBUG", "-shared", "-fPIC"]
        done = subprocess.run([compiler, *flags, SOURCE, "-o", built, "-larmadillo"], capture_output=True, text=True)
        if done.returncode:
            raise NotAvailable(done.stderr.partition("\n")[0])
    found = ctypes.CDLL(str(built))
    found.gmm.restype = ctypes.c_double
    return found


def fit(X, start, covariance, steps, threads):  # OMP_NUM_THREADS says how many threads
    supports(covariance, "full", "diag")
    at = Parameters(*(np.array(a, dtype=np.float64) for a in start))
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (X, *at)]
    n, d = X.shape
    k = len(at.weights)
    seconds = library().gmm(pointers[0], X.dtype == np.float32, covariance == "diag", n, d, k, steps, *pointers[1:])
    if seconds < 0:
        raise NotSupported("learn() failed")
    text = ctypes.create_string_buffer(32)
    library().version(text, len(text))
    return Fit(at, seconds, text.value.decode())
