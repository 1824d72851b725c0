"""What all tests share: hypothesis writes nothing, every test leaves the CPU target as it found it."""

import os
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: oracles on tiny arrays wait for threads otherwise

import pytest
from cases import TARGETS
from hypothesis import HealthCheck, settings

import emcore.kernels

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "emcore-hypothesis"))
settings.register_profile(
    "emcore", database=None, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("emcore")


@pytest.fixture(params=TARGETS)
def target(request):
    """Each CPU target that was built and runs here, in force for the test."""
    before = emcore.kernels.target()
    emcore.kernels.select_target(request.param)
    yield request.param
    emcore.kernels.select_target(before)
