"""Laws of an objective at a point that the tests of several models hold it to, each in coordinates and numbers of its own."""

import numpy as np
import pytest
from derivatives import derivatives


def em_step_in_parts(objective, at, atol=1e-12):
    """Assert that the EM step is P times the gradient and the correction, which are returned."""
    model, e = objective.model, objective.evaluate(at)
    step, correction = model.metric(at.params, e.stats, model.score(at.params, e.stats)), model.correction(at.params, e.stats)
    for p, extra, new, old in zip(step, correction, e.em_point.params, at.params, strict=True):
        np.testing.assert_allclose(p + extra, new - old, rtol=0, atol=atol * max(1.0, np.abs(old).max()))
    return step, correction


def em_step_is_p_times_the_gradient(objective, at, atol=1e-12):
    """Assert that it is so without any correction."""
    _, correction = em_step_in_parts(objective, at, atol)
    assert not any(x.any() for x in correction)


def q_is_a_bound_with_the_score(objective, at, other, entropy, atol=1e-12):
    """Assert that q and the entropy at a point touch the value there and lie below it at another one, where the gradient is
    that of q; that the M-step is the maximum of q; and Fisher's identity.
    """
    e = objective.evaluate(at)
    assert e.value - objective.q(at, e.stats) == pytest.approx(entropy, abs=1e-12)
    assert objective.q(other, e.stats) + entropy < objective.evaluate(other).value
    found = objective.gradient(other, e.stats)
    slopes = derivatives(lambda theta: objective.q(objective.point(theta), e.stats), other.theta, 1e-5, order=2)
    np.testing.assert_allclose(found, slopes, rtol=0, atol=1e-8 * (1 + np.abs(found).max()))
    assert np.abs(objective.gradient(e.em_point, e.stats)).max() < atol
    slopes = derivatives(lambda theta: objective.evaluate(theta).value, at.theta, 1e-5, order=2)
    np.testing.assert_allclose(e.gradient, slopes, atol=1e-8)
