"""Finds items by their titles, forgiving case, accents, punctuation and the order of words."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

WORD = re.compile(r"\w+")
MAX_WORDS = 16


class TitleSearch:
    """Titles, folded once; a search looks for every word of the query in each of them."""

    def __init__(self, titles: Sequence[str], item_counts: npt.NDArray[np.int64]) -> None:
        """Take a title for each dense id 1..num_items, and counts, int64[num_items + 1]."""
        self._titles = pl.Series([f" {' '.join(words(title))} " for title in titles])
        self._counts = item_counts[1:]

    def find(self, query: str, limit: int) -> npt.NDArray[np.int32]:
        """Dense ids of the titles in which each word of the query begins a word.

        A title that is the query comes first, then by popularity. An empty query finds the most
        popular items.
        """
        wanted = words(query)[:MAX_WORDS]
        if query.strip() and not wanted:
            return np.zeros(0, np.int32)
        is_found = np.ones(len(self._titles), np.bool_)
        for word in wanted:
            is_found &= self._titles.str.contains(f" {word}", literal=True).to_numpy()
        found = np.flatnonzero(is_found)
        is_whole = (self._titles.gather(found) == f" {' '.join(wanted)} ").to_numpy()
        order = np.lexsort((found, -self._counts[found], ~is_whole))
        return (found[order[:limit]] + 1).astype(np.int32)


def words(text: str) -> list[str]:
    """The words of a text without case and accents: `Amélie (2001)` gives `amelie`, `2001`."""
    letters = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return WORD.findall(plain.casefold())
