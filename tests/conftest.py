"""What all tests share: hypothesis writes nothing, known exceptions are marked, tests leave the CPU target as they found it."""

import os
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: oracles on tiny arrays wait for threads otherwise

import pytest
from cases import KNOWN_EXCEPTIONS, SINGLE_TARGETS, TARGETS, in_force, must_fail
from hypothesis import HealthCheck, settings

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "emcore-hypothesis"))
settings.register_profile(
    "emcore", database=None, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("fuzz", settings.get_profile("emcore"), derandomize=False, print_blob=True)
settings.load_profile("fuzz" if os.environ.get("EMCORE_FUZZ") else "emcore")


@pytest.fixture(params=TARGETS)
def target(request):
    """Each CPU target that was built and runs here, in force for the test."""
    with in_force(request.param):
        yield request.param


@pytest.fixture(params=SINGLE_TARGETS)
def single_target(request):
    """Each of them that has lanes of float32."""
    with in_force(request.param):
        yield request.param


def pytest_collection_modifyitems(items):
    """Mark the known exceptions of tests that run over cases."""
    for item in items:
        for (what, word), known in KNOWN_EXCEPTIONS.get(getattr(item, "originalname", ""), {}).items():
            if word in str(item.callspec.params.get("case")) and what in item.callspec.id:
                item.add_marker(must_fail(known))
