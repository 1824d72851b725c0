"""Where rows come from."""

from emcore.data.datasets import faithful, linkage, london_deaths
from emcore.data.source import ArraySource, Block, DataSource, as_source

__all__ = ["ArraySource", "Block", "DataSource", "as_source", "faithful", "linkage", "london_deaths"]
