"""Benchmarks of emcore, for airspeed velocity. They import, and skip what is missing, under any version."""
