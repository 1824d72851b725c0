"""scikit-learn's GaussianMixture."""

import warnings

import numpy as np

from rivals.rival import Fit, Parameters, clock, need


def fit(X, start, covariance, steps, threads):
    sklearn, mixture = need("sklearn"), need("sklearn.mixture")
    need_inverse = covariance in ("full", "tied")
    model = mixture.GaussianMixture(
        len(start.weights), covariance_type=covariance, tol=0, reg_covar=0, max_iter=steps,
        weights_init=start.weights, means_init=start.means,
        precisions_init=np.linalg.inv(start.covariances) if need_inverse else 1 / start.covariances,
        init_params="random_from_data",  # thrown away for the three arrays above, so the cheapest
        random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: meant so
        with clock() as time:
            model.fit(X)
    if model.n_iter_ != steps:
        raise RuntimeError(f"{model.n_iter_} steps instead of {steps}")
    return Fit(Parameters(model.weights_, model.means_, model.covariances_), time.seconds, sklearn.__version__)
