"""What an EM step and a gradient do with the variances of Gaussian components, for all components in one call.

The counterpart of `gaussian_matrices` for diagonal covariances, variances (k, d), and spherical ones, (k,). Statistics are
those of `GaussianDiag`, ``[count k | mass k | sum k*d | second k*d or k]``, about an origin (k, d): second-order parts are
squares, of spherical components summed over the columns. `excess` is by how much the count that divides them exceeds the mass.
"""

cimport numpy as cnp
from emcore._arrays cimport as_doubles, data, equal, like, zeros
from libc.float cimport DBL_EPSILON
from libc.math cimport log, sqrt
from libc.string cimport memcpy

cnp.import_array()

__all__ = ["expected", "factors", "m_step", "metric", "recentre", "score"]


cdef struct Moments:
    Py_ssize_t k, d, v         # v variances a component, each of d / v columns
    const double *mass
    const double *total
    const double *second
    const double *origin
    const double *means
    const double *variances


cdef Moments moments_of(cnp.ndarray stats, cnp.ndarray origin, cnp.ndarray means, cnp.ndarray variances) except *:
    """Return where the parts of the statistics are, and the means about which they are wanted."""
    cdef Moments s
    if cnp.PyArray_NDIM(means) != 2 or cnp.PyArray_SIZE(means) == 0:
        raise ValueError(f"means must have shape (k, d), got {(<object> means).shape}")
    s.k, s.d = means.shape[0], means.shape[1]
    s.v = variances_of(variances, s.k, s.d)
    if cnp.PyArray_SIZE(stats) != s.k * (2 + s.d + s.v) or cnp.PyArray_SIZE(origin) != s.k * s.d:
        raise ValueError(f"statistics {cnp.PyArray_SIZE(stats)} and origin {cnp.PyArray_SIZE(origin)} do not fit "
                         f"means ({s.k}, {s.d}) and variances {(<object> variances).shape}")
    s.mass, s.total, s.second = data(stats) + s.k, data(stats) + 2 * s.k, data(stats) + s.k * (2 + s.d)
    s.origin, s.means, s.variances = data(origin), data(means), data(variances)
    return s


cdef Py_ssize_t variances_of(cnp.ndarray variances, Py_ssize_t k, Py_ssize_t d) except -1:
    """Return how many variances a component has, 1 or d."""
    cdef Py_ssize_t size = cnp.PyArray_SIZE(variances)
    if k < 1 or d < 1 or (size != k and size != k * d):
        raise ValueError(f"variances must have shape ({k},) or ({k}, {d}), got {(<object> variances).shape}")
    return size // k


cdef double about(const Moments *s, Py_ssize_t c, Py_ssize_t j) noexcept nogil:
    """Return the second-order sum j of component c about its mean: ``S - 2 s delta + N delta^2``, over the columns it is of."""
    cdef Py_ssize_t i, begin = j if s.v > 1 else 0, end = j + 1 if s.v > 1 else s.d
    cdef double value = s.second[c * s.v + j], delta
    for i in range(c * s.d + begin, c * s.d + end):
        delta = s.means[i] - s.origin[i]
        value += delta * (s.mass[c] * delta - 2.0 * s.total[i])
    return value


def factors(variances, Py_ssize_t k, Py_ssize_t d, double log_norm0):
    """Return the inverse standard deviations (k, d), the log-densities at the means (k,), and the first degenerate component.

    The last is -1 where there is none: where all variances are above the resolution of the rows.

    Parameters
    ----------
    variances : ndarray (k, d) or (k,)
    k, d : int
    log_norm0 : float
        Log-density at the mean where all variances are 1.
    """
    cdef cnp.ndarray given = as_doubles(variances)
    cdef Py_ssize_t v = variances_of(given, k, d), c, j, bad = -1
    cdef cnp.ndarray inverse = zeros(2, k, d), log_norms = zeros(1, k)
    cdef double log_det, x
    for c in range(k):
        log_det = 0.0
        for j in range(v):
            x = data(given)[c * v + j]
            if bad < 0 and not x > DBL_EPSILON * DBL_EPSILON:  # nor is NaN
                bad = c
            log_det += log(x)
        for j in range(d):
            data(inverse)[c * d + j] = 1.0 / sqrt(data(given)[c * v + (j if v > 1 else 0)])
        data(log_norms)[c] = log_norm0 - 0.5 * (d // v) * log_det
    return inverse, log_norms, bad


def m_step(stats, origin, means, variances, double empty, double floor, double excess):
    """Return the means and variances that maximise the expected log-density, none below the floor.

    Parameters
    ----------
    stats, origin : ndarray (k (2 + d) + k v,), (k d,)
    means, variances : ndarray (k, d), (k, d) or (k,)
        What components keep whose mass is at most `empty`.
    empty, floor, excess : float

    Returns
    -------
    means, variances : ndarray
        Of their shapes.
    """
    cdef cnp.ndarray vector = as_doubles(stats), at = as_doubles(origin), old = as_doubles(means), given = as_doubles(variances)
    cdef Moments s = moments_of(vector, at, old, given)
    cdef cnp.ndarray new_means = like(old), new_variances = like(given)
    cdef Py_ssize_t c, j, i, v = s.v
    cdef double mass, delta, x
    cdef double *out
    for c in range(s.k):
        out = data(new_variances) + c * v
        mass = s.mass[c]
        if mass <= empty:
            memcpy(data(new_means) + c * s.d, s.means + c * s.d, 8 * s.d)
            for j in range(v):
                out[j] = s.variances[c * v + j]
        else:
            for j in range(v):
                out[j] = s.second[c * v + j] / mass
            for j in range(s.d):
                i = c * s.d + j
                delta = s.total[i] / mass
                data(new_means)[i] = s.origin[i] + delta
                out[j if v > 1 else 0] -= delta * delta
            for j in range(v):
                out[j] = out[j] / (s.d // v) * (mass / (mass + excess))
        for j in range(v):
            x = out[j]
            if x < floor:  # NaN stays
                out[j] = floor
    return new_means, new_variances


def expected(stats, origin, means, variances, double log_norm0, double excess):
    """Return the expected log-density, ``sum_c N_c log_norm_c - sum_j S_cj / (2 v_cj)``."""
    cdef cnp.ndarray vector = as_doubles(stats), at = as_doubles(origin), centres = as_doubles(means)
    cdef cnp.ndarray given = as_doubles(variances)
    cdef Moments s = moments_of(vector, at, centres, given)
    cdef Py_ssize_t c, j
    cdef double value = 0.0, log_det, squares, x
    for c in range(s.k):
        log_det = squares = 0.0
        for j in range(s.v):
            x = s.variances[c * s.v + j]
            log_det += log(x)
            squares += about(&s, c, j) / x
        value += (s.mass[c] + excess) * (log_norm0 - 0.5 * (s.d // s.v) * log_det) - 0.5 * squares
    return value


def score(stats, origin, means, variances, double excess):
    """Return the gradient of `expected` with respect to means and variances: ``s / v`` and ``(S / v - N) / (2 v)``."""
    cdef cnp.ndarray vector = as_doubles(stats), at = as_doubles(origin), centres = as_doubles(means)
    cdef cnp.ndarray given = as_doubles(variances)
    cdef Moments s = moments_of(vector, at, centres, given)
    cdef cnp.ndarray g_means = like(centres), g_variances = like(given)
    cdef Py_ssize_t c, j, i
    cdef double x
    for c in range(s.k):
        for j in range(s.d):
            i = c * s.d + j
            x = s.variances[c * s.v + (j if s.v > 1 else 0)]
            data(g_means)[i] = (s.total[i] - s.mass[c] * (s.means[i] - s.origin[i])) / x
        for j in range(s.v):
            x = s.variances[c * s.v + j]
            data(g_variances)[c * s.v + j] = 0.5 * (about(&s, c, j) / x - (s.mass[c] + excess) * (s.d // s.v)) / x
    return g_means, g_variances


def recentre(stats, origin, new, Py_ssize_t k, Py_ssize_t d, Py_ssize_t v):
    """Return statistics of v variances a component about another origin: themselves where it is the same."""
    cdef cnp.ndarray given = as_doubles(stats), old = as_doubles(origin), to = as_doubles(new)
    if ((v != 1 and v != d) or cnp.PyArray_SIZE(given) != k * (2 + d + v) or cnp.PyArray_SIZE(old) != k * d
            or cnp.PyArray_SIZE(to) != k * d):
        raise ValueError(f"statistics {(<object> given).shape} and origins {(<object> old).shape} and {(<object> to).shape} "
                         f"do not fit means ({k}, {d}) with {v} variances each")
    cdef Py_ssize_t c, j, i
    if equal(data(to), data(old), k * d):
        return stats
    cdef cnp.ndarray moved = like(given)
    memcpy(data(moved), data(given), 8 * cnp.PyArray_SIZE(given))
    cdef const double *mass = data(moved) + k
    cdef double *total = data(moved) + 2 * k
    cdef double *second = data(moved) + k * (2 + d)
    cdef double delta
    for c in range(k):
        for j in range(d):
            i = c * d + j
            delta = data(to)[i] - data(old)[i]
            second[c * v + (j if v > 1 else 0)] += delta * (mass[c] * delta - 2.0 * total[i])
            total[i] -= mass[c] * delta
    return moved


def metric(variances, masses, double excess, g_means, g_variances, double least):
    """Return P g: ``v g / N`` for means and ``2 v^2 g / (N d / v)`` for variances (Xu and Jordan 1996, eq. 3.3 to 3.5).

    Parameters
    ----------
    variances, masses : ndarray (k, d) or (k,), (k,)
    excess : float
    g_means, g_variances : ndarray (..., k, d), (..., k, d) or (..., k)
        Gradients.
    least : float
        What masses are at least taken to be.

    Returns
    -------
    means, variances : ndarray
        Of the shapes of the gradients.
    """
    cdef cnp.ndarray given = as_doubles(variances), mass = as_doubles(masses)
    cdef cnp.ndarray slopes = as_doubles(g_means), curves = as_doubles(g_variances)
    cdef Py_ssize_t k = cnp.PyArray_SIZE(mass), n = cnp.PyArray_NDIM(slopes)
    cdef Py_ssize_t d = cnp.PyArray_DIM(slopes, n - 1) if n > 1 else 0, v = variances_of(given, k, d), i, c, j
    n = cnp.PyArray_SIZE(slopes) // (k * d)
    if cnp.PyArray_SIZE(slopes) != n * k * d or cnp.PyArray_SIZE(curves) != n * k * v:
        raise ValueError(f"gradients {(<object> slopes).shape} and {(<object> curves).shape} do not fit {k} components")
    cdef cnp.ndarray out_means = like(slopes), out_curves = like(curves)
    cdef double count, x
    for i in range(n * k):
        c = i % k
        count = data(mass)[c]
        if count < least:  # NaN stays
            count = least
        for j in range(d):
            x = data(given)[c * v + (j if v > 1 else 0)]
            data(out_means)[i * d + j] = x * data(slopes)[i * d + j] / count
        for j in range(v):
            x = data(given)[c * v + j]
            data(out_curves)[i * v + j] = 2.0 * x * x * data(curves)[i * v + j] / ((d // v) * (count + excess))
    return out_means, out_curves
