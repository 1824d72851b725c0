"""The picture of one climb: what the trace holds, no more and no less."""

import numpy as np
import pytest
from matplotlib import image

import emcore
from emcore import Stop, plot
from emcore.models import PoissonMixture


@pytest.fixture(scope="module")
def fit():
    """The London Times deaths: EM is slow there, and auto leaves it."""
    deaths, days = emcore.data.london_deaths()
    start = {"weights": [0.3, 0.7], "rates": [[1.0], [2.5]]}
    return emcore.fit(PoissonMixture(2), deaths, solver="auto", sample_weight=days, start=start, record=True)


def drawn(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_the_lines_are_the_trace(fit):
    left, right = plot.climb(fit).axes
    for axes in (left, right):
        assert axes.get_yscale() == "log"
        assert axes.get_xlabel() == "passes over the data"
    line = drawn(left)["gap to the highest value"]
    np.testing.assert_array_equal(line.get_xdata(), fit.trace.passes)
    gap = fit.trace.value.max() - fit.trace.value
    np.testing.assert_array_equal(line.get_ydata()[gap > 0], gap[gap > 0])
    lines = drawn(right)
    assert set(lines) == {name for name, *_ in plot.SEEN.values()}
    for column, (name, *_) in plot.SEEN.items():
        y = getattr(fit.trace, column)
        np.testing.assert_array_equal(lines[name].get_ydata()[y > 0], y[y > 0])


def test_events_are_marked_where_they_were(fit):
    (left, _) = plot.climb(fit).axes
    (switch,) = np.flatnonzero(np.char.startswith(fit.trace.event, "switched"))
    mark = drawn(left)[fit.trace.event[switch]]
    assert mark.get_xdata().tolist() == [fit.trace.passes[switch]]


def test_what_was_not_measured_is_not_drawn_and_tolerances_are():
    fit = emcore.fit(emcore.models.GaussianMixture(2), emcore.data.faithful(), stop=Stop(gain=1e-8), random_state=0)
    _, right = plot.climb(fit).axes
    assert set(drawn(right)) == {"gain of one EM step"}
    assert [line.get_ydata()[0] for line in right.get_lines() if line.get_linestyle() == ":"] == [1e-8]


@pytest.mark.parametrize("solver", ["incremental", "sparse", "em"])
def test_the_free_energy_is_drawn_of_solvers_that_climb_it(solver):
    fit = emcore.fit(emcore.models.GaussianMixture(2), emcore.data.faithful(), solver=solver, random_state=0)
    lines = drawn(plot.climb(fit).axes[0])
    assert ("gap of the free energy" in lines) == (solver != "em")
    if solver != "em":
        y, gap = lines["gap of the free energy"].get_ydata(), fit.trace.value.max() - fit.trace.free_energy
        assert (gap > 0).sum() > 2
        np.testing.assert_array_equal(y[gap > 0], gap[gap > 0])


@pytest.mark.parametrize("record", [True, False])
def test_a_climb_of_one_point_and_a_map_without_value_are_drawn(record):
    with pytest.warns(emcore.ConvergenceWarning):
        start = emcore.fit(
            emcore.models.GaussianMixture(2), emcore.data.faithful(), stop=Stop(max_passes=1), random_state=0, record=record
        )
    assert len(plot.climb(start).axes) == 2
    bare = emcore.accelerate(lambda x: 0.5 * x, [1.0])
    left, right = plot.climb(bare).axes
    assert left.get_yscale() == "linear"
    assert set(drawn(right)) == {"length of EM step", "largest change of a coordinate"}


def test_the_picture_is_written(fit, tmp_path):
    fit.plot(tmp_path / "climb.png")
    assert image.imread(tmp_path / "climb.png").std() > 0.01
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        fit.plot(tmp_path / "climb.bmp")
