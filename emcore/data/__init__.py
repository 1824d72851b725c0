"""Where rows come from."""

from emcore.data.datasets import faithful, linkage, london_deaths
from emcore.data.source import ArraySource, Block, DataSource, as_source, fingerprint

__all__ = ["ArraySource", "Block", "DataSource", "as_source", "faithful", "fingerprint", "linkage", "london_deaths"]
