"""Quadratic features times coefficients in JAX. Best for small d; for large d the features are too many."""

from functools import cache

from rivals.jax_loop import compiled, run
from rivals.quadratic import Features
from rivals.rival import need, supports


@cache
def loop(d, covariance):
    jax, features = need("jax"), Features(d, covariance)
    xp = jax.numpy

    def statistics(columns, coefficients):
        F = xp.concatenate([xp.ones_like(columns[:1]), columns, columns[features.i] * columns[features.j]])
        return jax.nn.softmax(coefficients @ F, axis=0) @ F.T

    return compiled(lambda at: features.coefficients(xp, *at), statistics, lambda _, sums: tuple(features.update(xp, sums)))


def fit(X, start, covariance, steps, threads):  # the CPUs that the process may use say how many threads
    supports(covariance, "full", "diag")
    return run(loop(X.shape[1], covariance), X, start, steps)
