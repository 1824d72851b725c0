"""oneDAL's em_gmm, which the package scikit-learn-intelex brings along as daal4py."""

from importlib.metadata import version

import numpy as np

from rivals.rival import Fit, Parameters, clock, need, supports


def fit(X, start, covariance, steps, threads):
    daal = need("daal4py")
    supports(covariance, "full", "diag")
    daal.daalinit(threads)
    diag = covariance == "diag"
    algorithm = daal.em_gmm(
        len(start.weights), fptype="float" if X.dtype == np.float32 else "double", maxIterations=steps, accuracyThreshold=0.0,
        regularizationFactor=0.0, covarianceStorage="diagonal" if diag else "full",
    )  # fmt: skip
    given = [X.dtype.type(c)[None] if diag else c.astype(X.dtype) for c in start.covariances]
    with clock() as time:
        done = algorithm.compute(X, start.weights[None].astype(X.dtype), start.means.astype(X.dtype), given)
    if int(done.nIterations[0, 0]) != steps:
        raise RuntimeError(f"{int(done.nIterations[0, 0])} steps instead of {steps}")
    covariances = np.stack([c[0] if diag else c for c in done.covariances])
    return Fit(Parameters(done.weights[0], done.means, covariances), time.seconds, version("scikit-learn-intelex"))
