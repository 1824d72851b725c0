"""Small hills in NumPy that know nothing of models: objectives for the tests of solvers."""

import math
from contextlib import contextmanager, nullcontext
from functools import cached_property

import numpy as np

from emcore.result import Failure, OutOfBudget, Status, rounding


class Point:
    def __init__(self, theta):
        self.theta = np.array(theta, dtype=float)
        self.has_theta = True


class Evaluation:
    def __init__(self, hill, point, value, failure=None):
        self.hill, self.point, self.value, self.failure = hill, point, value, failure
        self.scale = max(1.0, abs(value)) if failure is None else math.nan

    @cached_property
    def gradient(self):
        return self.hill.slope(self.point.theta)

    @cached_property
    def em_point(self):
        return Point(self.hill.em(self.point.theta))

    @cached_property
    def gain(self):
        return self.hill.gain(self.point.theta)

    @property
    def noise(self):
        return rounding(self.scale)

    @property
    def known(self):
        return self.__dict__


class Hill:
    """An objective of coordinates: subclasses give `height`, `slope`, and if they have an EM step `em` and `gain`."""

    capabilities = frozenset({"value", "gradient", "em"})
    weight = 1.0
    passes = hessian_passes = monitor_passes = 0.0
    most = math.inf

    def __init__(self, size):
        self.size = size

    def gain(self, theta):
        return math.nan

    def point(self, theta):
        return Point(theta)

    def evaluate(self, at, blocks=None):
        point = at if isinstance(at, Point) else Point(at)
        if self.passes + 1 > self.most:
            raise OutOfBudget(Status.MAX_PASSES)
        self.passes += 1
        with np.errstate(all="ignore"):
            value = self.height(point.theta)
        if isinstance(value, Failure) or not math.isfinite(value):
            failure = value if isinstance(value, Failure) else Failure(Status.NON_FINITE)
            return Evaluation(self, point, -math.inf, failure)
        return Evaluation(self, point, float(value))

    def climbing(self):
        return nullcontext()

    @contextmanager
    def limit(self, max_passes, max_seconds):
        self.most = self.passes + max_passes
        try:
            yield
        finally:
            self.most = math.inf

    def boundary(self, at):
        return ()


class Quadratic(Hill):
    """-x'Ax/2 about 1, eigenvalues from 1 to `condition`; its EM step divides the gradient by twice a diagonal A."""

    def __init__(self, size, condition, diagonal=False):
        super().__init__(size)
        q = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
        self.A = (q * np.geomspace(1, condition, size)) @ q.T
        if diagonal:
            self.A = np.diag(np.geomspace(1, condition, size))
        self.P = 0.5 / np.diag(self.A) if diagonal else np.full(size, 1 / condition)

    def height(self, x):
        return -0.5 * (x - 1) @ self.A @ (x - 1)

    def slope(self, x):
        return self.A @ (1 - x)

    def em(self, x):
        return x + self.P * self.slope(x)

    def gain(self, x):
        return 0.5 * float(self.slope(x) ** 2 @ self.P)


class Overlap(Hill):
    """A mixture of two normals in one dimension, 1.8 sd apart: log-odds, means, log standard deviations."""

    def __init__(self, n=400, apart=1.8):
        super().__init__(5)
        rng = np.random.default_rng(1)
        self.x = np.concatenate((rng.normal(0, 1, int(0.4 * n)), rng.normal(apart, 1, int(0.6 * n))))
        self.begin = Point([0.0, self.x.mean() - 1, self.x.mean() + 1, 0.0, 0.0])

    def _parts(self, theta):
        t, m, s = theta[0], theta[1:3], theta[3:5]
        logw = -np.logaddexp(0, [t, -t])
        z = (self.x[:, None] - m) * np.exp(-s)
        joint = logw - 0.5 * z * z - s - 0.5 * math.log(2 * math.pi)
        each = np.logaddexp(joint[:, 0], joint[:, 1])
        return z, joint, each, np.exp(joint - each[:, None])

    def height(self, theta):
        return self._parts(theta)[2].mean()

    def slope(self, theta):
        z, _, _, h = self._parts(theta)
        w1 = 1 / (1 + math.exp(-theta[0]))
        scores = h * z * np.exp(-theta[3:5]), h * (z * z - 1)
        return np.concatenate(([h[:, 1].mean() - w1], scores[0].mean(0), scores[1].mean(0)))

    def em(self, theta):
        h = self._parts(theta)[3]
        total = h.sum(0)
        m = h.T @ self.x / total
        v = (h * (self.x[:, None] - m) ** 2).sum(0) / total
        return np.concatenate(([math.log(total[1] / total[0])], m, 0.5 * np.log(v)))

    def gain(self, theta):
        h, here, there = self._parts(theta)[3], self._parts(theta)[1], self._parts(self.em(theta))[1]
        return max(0.0, float((h * (there - here)).sum()) / len(self.x))
