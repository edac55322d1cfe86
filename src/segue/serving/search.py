"""Finds items by their titles, forgiving case, accents, punctuation and the order of words."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

# Letters of scripts that are written without blanks between words, after NFKD (Unicode 16, blocks):
# Chinese with its iteration marks, Japanese without its dots between words, Thai, Lao, Burmese,
# Khmer. Thai to Khmer with the vowels around their letters.
WITHOUT_BLANKS = (
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e81-\u0ece\u0ed0-\u0edf"
    "\u1000-\u1049\u1050-\u109f\u1780-\u17d3\u17d7\u17dc-\u17e9"
)
WORD = re.compile(rf"[{WITHOUT_BLANKS}]+|[^\W{WITHOUT_BLANKS}]+")
BEGINS_WITHOUT_BLANKS = re.compile(rf"[{WITHOUT_BLANKS}]")
# Of Japanese, by which ド is another letter than ト, as no accent makes it.
VOICED = "\u3099\u309a"
MAX_WORDS = 16


class TitleSearch:
    """Titles, folded once; a search looks for every word of the query in each of them."""

    def __init__(self, titles: Sequence[str], item_counts: npt.NDArray[np.int64]) -> None:
        """Take a title for each dense id 1..num_items, and counts, int64[num_items + 1]."""
        self._titles = pl.Series([f" {' '.join(words(title))} " for title in titles])
        self._counts = item_counts[1:]

    def find(
        self, query: str, limit: int, hidden: Sequence[int] | npt.NDArray[np.int32] = ()
    ) -> npt.NDArray[np.int32]:
        """Dense ids of the titles in which each word of the query begins a word.

        Where the script has no blanks between words, a word may be anywhere. A title that is the
        query comes first, then by popularity. An empty query finds the most popular items.
        The dense ids in `hidden` are not found.
        """
        wanted = words(query)[:MAX_WORDS]
        if query.strip() and not wanted:
            return np.zeros(0, np.int32)
        is_found = np.ones(len(self._titles), np.bool_)
        is_found[np.asarray(hidden, np.int32) - 1] = False
        for word in wanted:
            piece = word if BEGINS_WITHOUT_BLANKS.match(word) else f" {word}"
            is_found &= self._titles.str.contains(piece, literal=True).to_numpy()
        found = np.flatnonzero(is_found)
        is_whole = (self._titles.gather(found) == f" {' '.join(wanted)} ").to_numpy()
        order = np.lexsort((found, -self._counts[found], ~is_whole))
        return (found[order[:limit]] + 1).astype(np.int32)


def words(text: str) -> list[str]:
    """The words of a text without case and accents: `Amélie (2001)` gives `amelie`, `2001`.

    What is written without blanks is one word up to the next script: `映画Matrix` gives `映画`,
    `matrix`.
    """
    letters = unicodedata.normalize("NFKD", text)
    plain = "".join(
        letter for letter in letters if letter in VOICED or not unicodedata.combining(letter)
    )
    return WORD.findall(plain.casefold())
