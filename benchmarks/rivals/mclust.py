"""mclust in R, one thread. It always works in float64."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from rivals.rival import Fit, NotAvailable, NotSupported, Parameters

SCRIPT = Path(__file__).with_suffix(".R")
MODELS = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}


def fit(X, start, covariance, steps, threads):
    rscript = shutil.which("Rscript")
    if rscript is None:
        raise NotAvailable("R is not installed")
    if X.dtype != np.float64:
        raise NotSupported("float64 only")
    n, d = X.shape
    k = len(start.weights)
    full = start.covariances
    if covariance in ("diag", "spherical"):
        full = full.reshape(k, -1, 1) * np.eye(d)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        X.T.tofile(folder / "X")
        start.weights.tofile(folder / "weights")
        start.means.tofile(folder / "means")
        np.broadcast_to(full, (k, d, d)).tofile(folder / "covariances")
        command = [rscript, SCRIPT, folder, n, d, k, MODELS[covariance], steps]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise (NotAvailable if "no package" in done.stderr else NotSupported)(done.stderr.strip()[-300:])
        weights, means, covariances, (seconds, memory) = (
            np.fromfile(folder / file) for file in ("weights", "means", "covariances", "about")
        )
    S = covariances.reshape(k, d, d)
    given = {"full": S, "tied": S[0], "diag": np.einsum("kii->ki", S), "spherical": S[:, 0, 0]}[covariance]
    return Fit(Parameters(weights, means.reshape(k, d), given), float(seconds), done.stdout, int(memory))
