"""Exponential emission: the Python half of a new emission. The compiled half stands beside it."""

import copy

import numpy as np
from exponential_kernel import ExponentialKernel

from emcore.models import Field, Layout, Part, Positive, given_array


class Exponential(Part):
    """Independent exponential columns of each component: ``rates`` (k, d)."""

    provides = frozenset({"em", "gradient", "metric", "sparse"})

    def __init__(self, k):
        self.k = k

    @property
    def fields(self):
        return (Field("rates", (self.k, self.d), Positive((self.k, self.d))),)

    @property
    def layout(self):
        return Layout({"count": (self.k,), "sum": (self.k, self.d)})

    def bind(self, source):
        if any((source.block(i).rows[0] < 0).any() for i in range(source.n_blocks)):
            raise ValueError("X must not be negative for exponential emissions")
        return self._of(source.n_columns)

    def _of(self, d):
        new = copy.copy(self)
        new.d = d
        return new

    def bound_state(self):
        return {"d": np.array(self.d)}

    def rebound(self, state):
        return self._of(int(state["d"]))

    def sized(self, given):
        return self._of(np.shape(given["rates"])[1])

    def sample(self, params, of, rng, X=None):
        return rng.exponential(1.0 / params.rates[of])

    def initial(self):
        return self.params(np.ones((self.k, self.d)))

    def kernel(self, params):
        return ExponentialKernel(np.ascontiguousarray(params.rates))

    def _moments(self, stats):
        return self.layout.view(stats.vector, "count")[:, None], self.layout.view(stats.vector, "sum")

    def m_step(self, params, stats):
        count, total = self._moments(stats)
        return self.params(count / total)

    def q(self, params, stats):
        count, total = self._moments(stats)
        return float(np.sum(count * np.log(params.rates) - params.rates * total))

    def score(self, params, stats):
        count, total = self._moments(stats)
        return self.params(count / params.rates - total)

    def metric(self, params, stats, g):
        count, _ = self._moments(stats)
        return self.params(params.rates**2 * g.rates / count)

    def from_user(self, given):
        rates = given_array(given, "rates", {"": (self.k, self.d)})
        if (rates <= 0).any():
            raise ValueError("start: rates must be positive")
        return self.params(rates)
