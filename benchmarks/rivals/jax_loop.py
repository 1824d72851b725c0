"""What the two ways of writing EM in JAX share: one compiled loop, which goes through the rows in chunks that stay in cache.

On a CPU the chunks make it two to three times faster than whole arrays, and keep it from storing anything of size n x k.
"""

from rivals.rival import Fit, Parameters, clock, need

CHUNK = 2048


def compiled(coefficients, statistics, update):
    """Return EM as a compiled function of (X, parameters, steps).

    `coefficients(parameters)` is what an E-step needs, `statistics(columns, coefficients)` the sums over some rows, which
    come transposed, (d, rows), and `update(parameters, sums)` the M-step.
    """
    jax = need("jax")
    tree = jax.tree_util.tree_map

    def step(X, at):
        n, d = X.shape
        given = coefficients(at)
        rest = n % CHUNK
        chunks = X[rest:].reshape(-1, CHUNK, d)
        add = lambda sums, rows: (tree(jax.numpy.add, sums, statistics(rows.T, given)), None)  # noqa: E731
        sums, _ = jax.lax.scan(add, statistics(X[:rest].T, given), chunks)
        return update(at, sums)

    return jax.jit(lambda X, at, steps: jax.lax.fori_loop(0, steps, lambda _, at: step(X, at), at))


def run(loop, X, start, steps):
    jax = need("jax")
    jax.config.update("jax_enable_x64", True)
    with clock() as time:
        rows = jax.numpy.asarray(X)
        shift = rows.mean(0)  # uncentred products would cancel
        at = [jax.numpy.asarray(a, dtype=X.dtype) for a in start]
        weights, means, covariances = jax.block_until_ready(loop(rows - shift, (at[0], at[1] - shift, at[2]), steps))
        means = means + shift
    return Fit(Parameters(weights, means, covariances), time.seconds, jax.__version__)
