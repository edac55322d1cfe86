"""Retrieval: the best items for a query, exactly, with exclusions and allow-lists."""
