"""Benchmarks of emcore, for airspeed velocity. They import, and skip what is missing, under any version."""

import os

# The threads that are counted are emcore's: NumPy's product is what one core can do. Read when NumPy is first imported.
for library in ("OPENBLAS", "MKL", "BLIS", "VECLIB_MAXIMUM"):
    os.environ[f"{library}_NUM_THREADS"] = "1"
