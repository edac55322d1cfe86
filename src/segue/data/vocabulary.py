"""The vocabulary: outside item ids and the dense ids that models count with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.checks import refuse_where
from segue.data.ids import IdLookup, as_ids, compared_as, id_text
from segue.errors import DataError

MAX_ITEMS = int(np.iinfo(np.int32).max)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Outside ids and dense ids 1..num_items; 0 is padding, and the answer for unknown ids.

    Attributes:
        ids: Outside ids, Int64 or String, all different: row i holds the dense id i + 1.
    """

    ids: pl.Series

    def __post_init__(self) -> None:
        if self.ids.dtype not in (pl.Int64, pl.String):
            raise DataError(f"a vocabulary of {self.ids.dtype} is none; give Int64 or String ids")
        if self.ids.is_empty() or len(self.ids) > MAX_ITEMS:
            raise DataError(f"a vocabulary has 1 to {MAX_ITEMS:,} items, not {len(self.ids):,}")
        is_null = self.ids.is_null()
        refuse_where(is_null, self.ids, "the vocabulary", "is null", "leave it out")
        is_repeated = ~self.ids.is_first_distinct()
        refuse_where(is_repeated, self.ids, "the vocabulary", "is a repetition", "leave it out")

    @classmethod
    def from_ids(cls, ids: pl.Series) -> Self:
        """The different ids, integers by number and text by character: row order is no matter."""
        return cls(as_ids(ids, "the vocabulary").unique().sort())

    @property
    def num_items(self) -> int:
        return len(self.ids)

    def encode(self, ids: pl.Series) -> npt.NDArray[np.int32]:
        """Dense ids, int32[len(ids)]; 0 where unknown. Ids of another type compare by text."""
        return (self._lookup.find(ids) + 1).astype(np.int32)

    def encode_text(self, ids: Sequence[object]) -> npt.NDArray[np.int32]:
        """Dense ids of ids as `id_text` writes them, int32[len(ids)]; 0 where unknown."""
        return self.encode(pl.Series([id_text(one) for one in ids], dtype=pl.String))

    def decode(self, item_ids: npt.NDArray[np.int32]) -> pl.Series:
        """Outside ids of dense ids, 1-d, each 1..num_items.

        Raises:
            DataError: A dense id out of that range (0 is padding and has no outside id).
        """
        is_item = (item_ids >= 1) & (item_ids <= self.num_items)
        if not is_item.all():
            raise DataError(
                f"{item_ids[~is_item][0]} is no dense id; give ids from 1 to {self.num_items:,}"
            )
        return self.ids.gather(item_ids - 1)

    def extend(self, ids: pl.Series) -> Self:
        """This vocabulary with the unknown ones of `ids` appended, sorted among themselves.

        Raises:
            DataError: `ids` has text that is no integer, and the vocabulary is of integers.
        """
        wanted = compared_as(as_ids(ids, "the new ids"), self.ids.dtype)
        is_foreign = wanted.is_null()
        remedy = "make a new vocabulary for such ids"
        refuse_where(is_foreign, ids, "the new ids", "is no integer as the others are", remedy)
        is_new = self._lookup.find(wanted) < 0
        new = wanted.filter(pl.Series(is_new)).unique().sort()
        return type(self)(pl.concat([self.ids, new]))

    def equals(self, other: "Vocabulary") -> bool:
        """Whether every dense id means the same item in both."""
        return self is other or self.ids.equals(other.ids, check_dtypes=True)

    @cached_property
    def _lookup(self) -> IdLookup:
        return IdLookup(self.ids)
