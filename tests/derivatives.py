"""Derivatives by central differences: the oracle of gradients and Hessian products."""

import numpy as np

# Order -> weights of the differences over h, 2h, ..., and what divides their sum
STENCILS = {2: ((1,), 2), 4: ((8, -1), 12), 6: ((45, -9, 1), 60)}


def derivative(f, h, order=4):
    """Return the derivative at 0 of a function of one number, to this order in the step h."""
    weights, divisor = STENCILS[order]
    return sum(w * (f(i * h) - f(-i * h)) for i, w in enumerate(weights, 1)) / (divisor * h)


def derivatives(f, x, h, order=4):
    """Return the derivatives of a function of x (p,) with respect to each coordinate, (p, ...)."""
    return np.array([derivative(lambda t, v=v: f(x + t * v), h, order) for v in np.eye(len(x))])
