"""The exact index: the k best items for queries, with exclusions and allow-lists.

Scores exist in blocks of rows and items only, so users x items is never in memory at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segue.errors import DataError, RequestError
from segue.retrieval.selection import BLOCK_ROWS, Keys, best_keys, positions_of, scores_of

ItemIds = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]
Exclusions = tuple[npt.NDArray[np.int64], ItemIds]
ScoreBlock = Callable[[int, int], Scores]

# Gathering an item's vector costs about ten times its product with one query.
MAX_GATHERED_SHARE = 0.1
MAX_SCORE = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class TopK:
    """The best items of each row, in descending score; of equal scores the lower dense id first.

    Attributes:
        item_ids: int32[rows, k], dense; 0 where no candidate was left.
        scores: float32[rows, k]; -inf there.
        counts: int32[rows], how many of the k there are.
    """

    item_ids: ItemIds
    scores: Scores
    counts: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class _Pool:
    """The items that may be ranked. A position in `item_ids`, which ascends, stands for an item.

    Attributes:
        item_ids: int32[n], dense.
        table: float32[num_items + 1, width].
        is_whole: The pool is 1..num_items, so that its vectors lie side by side in the table.
        penalties: float32[n], added to the scores: 0, or -inf for items that are not allowed.
    """

    item_ids: ItemIds
    table: Scores
    is_whole: bool
    penalties: Scores | None = None

    def vectors(self, first: int, stop: int) -> Scores:
        """The items' vectors at these positions, float32[stop - first, width]."""
        if self.is_whole:
            return self.table[1 + first : 1 + stop]
        return self.table[self.item_ids[first:stop]]

    def positions_of(self, item_ids: ItemIds) -> npt.NDArray[np.int64]:
        """Where these items are in the pool, -1 for those that are not."""
        if self.is_whole:
            return item_ids.astype(np.int64) - 1
        positions = np.searchsorted(self.item_ids, item_ids)
        is_here = np.searchsorted(self.item_ids, item_ids, side="right") > positions
        return np.where(is_here, positions, -1)


class ExactIndex:
    """Finds the items whose vectors have the greatest dot products with a query, all compared.

    A score may differ in its last bits with the number of rows searched together, as matrix
    products do; for equal scores the order is always the same.
    """

    def __init__(self, item_table: Scores) -> None:
        """Take the item vectors, float32[num_items + 1, width]; row 0 is padding, never ranked.

        Raises:
            DataError: The table has another shape, no item, or values that are not finite.
        """
        if item_table.ndim != 2 or item_table.shape[0] < 2 or item_table.shape[1] < 1:
            raise DataError(
                f"an item table has a row for padding and for each item, not the shape "
                f"{item_table.shape}; give [num_items + 1, width]"
            )
        self._table = np.ascontiguousarray(item_table, np.float32)
        self._item_ids = np.arange(1, len(item_table), dtype=np.int32)
        # NaN makes both of them NaN; an array of absolute values would double the table.
        items = self._table[1:]
        self._reach = float(np.maximum(items.max(), -items.min()))
        if not np.isfinite(self._reach):
            raise DataError("the item table holds NaN or infinity; train the model again")

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
        _check_k(k)
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
        return _decoded(best, pool.item_ids)

    def _pool(self, allowed: ItemIds | None) -> _Pool:
        whole = _Pool(self._item_ids, self._table, is_whole=True)
        if allowed is None:
            return whole
        self._check_allowed(allowed)
        if len(allowed) <= MAX_GATHERED_SHARE * self.num_items:
            return _Pool(allowed, self._table, is_whole=False)
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


def top_k(scores: Scores, k: int) -> tuple[ItemIds, Scores]:
    """The k best columns of each row, int32[rows, k], and their scores, float32[rows, k].

    In descending score; of equal scores the lower column first. A column is a dense id, and -inf
    marks what is no candidate (padding, seen items): where none is left, 0 and -inf are returned.

    Raises:
        RequestError: k is not positive, or a score is NaN or +inf.
    """
    _check_k(k)
    best = np.empty((len(scores), k), np.int64)
    for start in range(0, len(scores), BLOCK_ROWS):
        rows = scores[start : start + BLOCK_ROWS]
        # NaN is not below infinity either, and the maximum of anything with NaN is NaN.
        if not rows.max(initial=-np.inf) < np.inf:
            raise RequestError("the scores hold NaN or +inf; give finite ones, or -inf for none")
        best[start : start + len(rows)] = best_keys(_slicer(rows), len(rows), rows.shape[1], k)
    found = _decoded(best, np.arange(scores.shape[1], dtype=np.int32))
    return found.item_ids, found.scores


def _scorer(
    pool: _Pool,
    queries: Scores,
    excluded_rows: npt.NDArray[np.int64],
    excluded_positions: npt.NDArray[np.int64],
) -> ScoreBlock:
    """From positions [first, stop) to these queries' scores there, -inf for what is excluded."""

    def score_block(first: int, stop: int) -> Scores:
        scores = queries @ pool.vectors(first, stop).T
        if pool.penalties is not None:
            scores += pool.penalties[first:stop]
        is_here = (excluded_positions >= first) & (excluded_positions < stop)
        scores[excluded_rows[is_here], excluded_positions[is_here] - first] = -np.inf
        return scores

    return score_block


def _slicer(scores: Scores) -> ScoreBlock:
    return lambda first, stop: scores[:, first:stop]


def _decoded(best: Keys, item_ids: ItemIds) -> TopK:
    scores = scores_of(best)
    is_found = scores > -np.inf
    found = np.zeros(best.shape, np.int32)
    found[is_found] = item_ids[positions_of(best[is_found])]
    return TopK(found, scores, np.count_nonzero(is_found, axis=1).astype(np.int32))


def _check_k(k: int) -> None:
    if k <= 0:
        raise RequestError(f"k={k} asks for nothing; give a positive k")
