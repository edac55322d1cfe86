"""Named datasets: one file for each family, registered by name."""

from segue.data.sources import movielens
from segue.data.sources.protocol import SOURCES, Source, fetch, load

__all__ = ["SOURCES", "Source", "fetch", "load", "movielens"]
