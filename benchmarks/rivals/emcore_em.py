"""emcore's own EM."""

import warnings

from rivals.rival import Fit, Parameters, clock, need


def fit(X, start, covariance, steps, threads):
    emcore = need("emcore")
    model = emcore.models.GaussianMixture(len(start.weights), covariance=covariance, reg=1e-10)  # as good as none
    stop = emcore.Stop(gain=0, max_passes=steps + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", emcore.ConvergenceWarning)  # the budget ends it: meant so
        with clock() as time:
            done = emcore.fit(model, X, solver="em", start=start._asdict(), stop=stop, n_threads=threads)
    if done.steps != steps:
        raise RuntimeError(f"{done.steps} steps instead of {steps}: {done.status.value}")
    return Fit(Parameters(*done.params), time.seconds, emcore.__version__)
