"""Products with the inverse Cholesky factors in JAX: what wins there for large d."""

from functools import cache

from rivals.jax_loop import compiled, run
from rivals.rival import need, supports


@cache
def loop():
    jax = need("jax")
    xp = jax.numpy

    def coefficients(at):
        weights, means, covariances = at
        eye = xp.broadcast_to(xp.eye(means.shape[1], dtype=means.dtype), covariances.shape)
        inverse = jax.scipy.linalg.solve_triangular(xp.linalg.cholesky(covariances), eye, lower=True)
        return xp.log(weights) + xp.log(xp.einsum("kii->ki", inverse)).sum(1), means, inverse

    def statistics(columns, given):
        constant, means, inverse = given
        z = columns - means[:, :, None]
        resp = jax.nn.softmax(constant[:, None] - 0.5 * xp.square(inverse @ z).sum(1), axis=0)
        rz = resp[:, None, :] * z
        return resp.sum(1), rz.sum(2), rz @ z.transpose(0, 2, 1)

    def update(at, sums):
        count, total, second = sums
        moves = total / count[:, None]
        covariances = second / count[:, None, None] - moves[:, :, None] * moves[:, None, :]
        return count / count.sum(), at[1] + moves, covariances

    return compiled(coefficients, statistics, update)


def fit(X, start, covariance, steps, threads):
    supports(covariance, "full")
    return run(loop(), X, start, steps)
