"""Retrieval: the best items for queries, by indexes that are registered by name; filters."""

from segue.retrieval import exact

__all__ = ["exact"]
