"""The exact index: every item compared, with exclusions and allow-lists.

Scores exist in blocks of rows and items only, so users x items is never in memory at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segue.errors import DataError, RequestError
from segue.retrieval.index import INDEXES, Exclusions, ItemIds, Scores
from segue.retrieval.selection import BLOCK_ROWS, TopK, best_keys, check_k, decoded

ScoreBlock = Callable[[int, int], Scores]

# Gathering an item's vector costs about ten times its product with one query.
MAX_GATHERED_SHARE = 0.1
MAX_SCORE = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class _Pool:
    """The items that may be ranked. A position in `item_ids`, which ascends, is an item.

    Attributes:
        item_ids: int32[n], dense.
        table: float32[num_items + 1, width].
        is_whole: The pool is 1..num_items, so that its vectors lie side by side in the table.
        scales: float32[num_items + 1], what each item's scores are multiplied by; None: by 1.
        penalties: float32[n], added to the scores: 0, or -inf for items that are not allowed.
    """

    item_ids: ItemIds
    table: Scores
    is_whole: bool
    scales: Scores | None = None
    penalties: Scores | None = None

    def vectors(self, first: int, stop: int) -> Scores:
        """The items' vectors at these positions, float32[stop - first, width]."""
        if self.is_whole:
            return self.table[1 + first : 1 + stop]
        return self.table[self.item_ids[first:stop]]

    def scores(self, queries: Scores, first: int, stop: int) -> Scores:
        """The scores of the items at these positions, float32[rows, stop - first]."""
        scores: Scores = queries @ self.vectors(first, stop).T
        if self.scales is not None:
            scores *= self.scales[self.item_ids[first:stop]]
        if self.penalties is not None:
            scores += self.penalties[first:stop]
        return scores

    def positions_of(self, item_ids: ItemIds) -> npt.NDArray[np.int64]:
        """Where these items are in the pool, -1 for those that are not."""
        if self.is_whole:
            return item_ids.astype(np.int64) - 1
        positions = np.searchsorted(self.item_ids, item_ids)
        is_here = np.searchsorted(self.item_ids, item_ids, side="right") > positions
        return np.where(is_here, positions, -1)


@INDEXES.register("exact")
class ExactIndex:
    """An `Index` that compares every item with the query.

    A score may differ in its last bits with the number of rows searched together, as matrix
    products do; for equal scores the order is always the same.
    """

    recall = 1.0

    def __init__(self, item_table: Scores, scales: Scores | None = None) -> None:
        """Take the item vectors, without a copy where they are contiguous float32.

        Args:
            item_table: float32[num_items + 1, width]; row 0 is padding, never ranked.
            scales: float32[num_items + 1], finite, what each item's scores are multiplied by: with
                1 / norm a search is by cosine. None: by 1.

        Raises:
            DataError: The table has another shape, no item, or values that are not finite.
        """
        if item_table.ndim != 2 or item_table.shape[0] < 2 or item_table.shape[1] < 1:
            raise DataError(
                f"an item table has a row for padding and for each item, not the shape "
                f"{item_table.shape}; give [num_items + 1, width]"
            )
        self._table = np.ascontiguousarray(item_table, np.float32)
        self._scales = scales
        self._item_ids = np.arange(1, len(item_table), dtype=np.int32)
        # NaN makes both of them NaN; an array of absolute values would double the table.
        items = self._table[1:]
        self._reach = float(np.maximum(items.max(), -items.min()))
        if not np.isfinite(self._reach):
            raise DataError("the item table holds NaN or infinity; train the model again")
        if scales is not None:
            self._reach *= float(np.abs(scales[1:]).max())

    @property
    def num_items(self) -> int:
        return len(self._item_ids)

    @property
    def width(self) -> int:
        return int(self._table.shape[1])

    def search(
        self,
        queries: Scores,
        k: int,
        *,
        exclusions: Exclusions | None = None,
        allowed: ItemIds | None = None,
    ) -> TopK:
        """As `Index.search`."""
        check_k(k)
        self._check_queries(queries)
        offsets, excluded = self._checked_exclusions(exclusions, len(queries))
        pool = self._pool(allowed)
        positions = pool.positions_of(excluded)
        best = np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(queries))
            score_block = _scorer(
                pool,
                queries[start:stop],
                np.repeat(np.arange(stop - start), np.diff(offsets[start : stop + 1])),
                positions[offsets[start] : offsets[stop]],
            )
            best[start:stop] = best_keys(score_block, stop - start, len(pool.item_ids), k)
        return decoded(best, pool.item_ids)

    def vectors(self, item_ids: ItemIds) -> Scores:
        """As `Index.vectors`."""
        vectors: Scores = self._table[item_ids]
        return vectors

    def _pool(self, allowed: ItemIds | None) -> _Pool:
        whole = _Pool(self._item_ids, self._table, is_whole=True, scales=self._scales)
        if allowed is None:
            return whole
        self._check_allowed(allowed)
        if len(allowed) <= MAX_GATHERED_SHARE * self.num_items:
            return replace(whole, item_ids=allowed, is_whole=False)
        penalties = np.full(self.num_items, -np.inf, np.float32)
        penalties[allowed - 1] = 0
        return replace(whole, penalties=penalties)

    def _check_queries(self, queries: Scores) -> None:
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise RequestError(
                f"queries have the shape {queries.shape}; the index needs [rows, {self.width}]"
            )
        # No partial sum of a dot product can then overflow, so every score is finite.
        bounds = np.abs(queries).max(axis=1).astype(np.float64) * self._reach * self.width
        is_bad = ~(bounds < MAX_SCORE)
        if is_bad.any():
            raise RequestError(
                f"{np.count_nonzero(is_bad):,} of {len(queries):,} queries, the first in row "
                f"{is_bad.argmax()}, hold NaN, infinity or values so large that scores overflow; "
                f"give finite queries"
            )

    def _check_allowed(self, allowed: ItemIds) -> None:
        if allowed.ndim != 1 or not (np.diff(allowed) > 0).all():
            raise RequestError("the allow-list is not ascending; give sorted ids, each once")
        self._check_ids(allowed, 1, "the allow-list")

    def _checked_exclusions(self, exclusions: Exclusions | None, rows: int) -> Exclusions:
        if exclusions is None:
            return np.zeros(rows + 1, np.int64), np.empty(0, np.int32)
        offsets, item_ids = exclusions
        is_fitting = (
            offsets.shape == (rows + 1,)
            and offsets[0] == 0
            and offsets[-1] == len(item_ids)
            and bool((np.diff(offsets) >= 0).all())
        )
        if not is_fitting:
            raise RequestError(
                f"exclusions of {len(item_ids):,} ids with {len(offsets):,} offsets do not fit "
                f"{rows:,} rows; give rows + 1 offsets that ascend from 0 to the number of ids"
            )
        self._check_ids(item_ids, 0, "the exclusions")
        return exclusions

    def _check_ids(self, item_ids: ItemIds, lowest: int, where: str) -> None:
        is_bad = (item_ids < lowest) | (item_ids > self.num_items)
        if is_bad.any():
            raise RequestError(
                f"{where} hold {item_ids[is_bad.argmax()]}, which is no dense id; "
                f"give ids from {lowest} to {self.num_items}"
            )


def _scorer(
    pool: _Pool,
    queries: Scores,
    excluded_rows: npt.NDArray[np.int64],
    excluded_positions: npt.NDArray[np.int64],
) -> ScoreBlock:
    """From positions [first, stop) to these queries' scores there, -inf for what is excluded."""

    def score_block(first: int, stop: int) -> Scores:
        scores = pool.scores(queries, first, stop)
        is_here = (excluded_positions >= first) & (excluded_positions < stop)
        scores[excluded_rows[is_here], excluded_positions[is_here] - first] = -np.inf
        return scores

    return score_block
