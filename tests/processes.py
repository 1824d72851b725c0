"""Processes of their own, for what one process cannot show: imports, the environment, forks, how many threads there are."""

import os
import subprocess
import sys
import textwrap

import pytest

from emcore import kernels

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
needs_openmp = pytest.mark.skipif(not kernels.threaded(), reason="built without OpenMP")
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")


def run(*command, folder=None, **environment):
    """Run a command in a folder and return how it ended and what it printed. Variables that are None are not there."""
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


def python(*arguments, **how):
    """Run Python with these arguments, as `run` does."""
    return run(sys.executable, *arguments, **how)


def fresh(code, *arguments, warn="error", **how):
    """Return what some code prints in a process of its own, which must end well; ``warn`` is what becomes of warnings."""
    done = python("-W", warn, "-c", textwrap.dedent(code), *arguments, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


def words(code, *arguments, **how):
    """Return the words that some code prints, as `fresh` does."""
    return fresh(code, *arguments, **how).split()
