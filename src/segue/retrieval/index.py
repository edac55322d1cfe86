"""What an index promises: the best items for queries, by dense id."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segue.config.registry import Registry
from segue.retrieval.selection import TopK

ItemIds = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]
# What each row must not get: row r excludes item_ids[offsets[r] : offsets[r + 1]].
Exclusions = tuple[npt.NDArray[np.int64], ItemIds]


class Index(Protocol):
    """Finds the items whose vectors have the greatest dot products with a query.

    An index is made as `SomeIndex(item_table)`, with item_table float32[num_items + 1, width] whose
    row 0 is padding and never found, and registered with `INDEXES.register(name)`. It may keep the
    table, which is then not copied, and only reads it. `segue.testing.indexes` tests what is
    promised here.
    """

    @property
    def recall(self) -> float:
        """The share of the true best items that it finds, about; 1.0 where it is exact."""
        ...

    def search(
        self,
        queries: Scores,
        k: int,
        *,
        exclusions: Exclusions | None = None,
        allowed: ItemIds | None = None,
    ) -> TopK:
        """The k best items for each query.

        Args:
            queries: float32[rows, width].
            k: How many; rows with fewer candidates get fewer, see `TopK.counts`.
            exclusions: What each row must not get, as (offsets int64[rows + 1], item_ids int32[n]):
                row r excludes item_ids[offsets[r] : offsets[r + 1]]. A 0 there excludes nothing.
            allowed: int32[n], ascending dense ids: what any row may get; by default every item.

        Raises:
            RequestError: k is not positive, queries have another width or are not finite, or the
                exclusions or the allow-list are malformed or name items that do not exist.
        """
        ...

    def vectors(self, item_ids: ItemIds) -> Scores:
        """The vectors of these items, float32[n, width]; reads no other."""
        ...


INDEXES: Registry[Callable[[Scores], Index]] = Registry("index", "segue.retrieval")
