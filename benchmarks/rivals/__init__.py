"""EM for Gaussian mixtures in other libraries, measured beside emcore in one interleaved run: ``python benchmarks/rivals``.

Each file of a library has one function, ``fit(X, start, covariance, steps, threads)``: it runs that many EM steps from these
parameters, without regularisation, and returns the parameters reached and the wall time (`rival.Fit`), or raises
`rival.NotAvailable` or `rival.NotSupported`. No rival is a dependency; ``requirements.txt`` says what can be installed.
"""
