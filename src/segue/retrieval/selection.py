"""Selection: the k best of many scores, block after block, in an order that has no ties.

A candidate is one int64 key. The upper half is its score, in bits that order as the float does; the
lower half is the complement of its position, so that of equal scores the lower position is greater.
Keys differ from each other, so the k greatest are the same however the candidates were cut up.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segue.errors import RequestError

ItemIds = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]
Places = npt.NDArray[np.int64]

# Small enough for a core's cache, and for memory that the allocator keeps instead of asking the
# system for it each time: from 4 MiB on, 256 queries against 3,417 items took longer.
BLOCK_BYTES = 2 * 2**20
BLOCK_ROWS = 256

LOW_HALF = 0xFFFF_FFFF


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


def top_k(scores: Scores, k: int) -> tuple[ItemIds, Scores]:
    """The k best columns of each row, int32[rows, k], and their scores, float32[rows, k].

    In descending score; of equal scores the lower column first. A column is a dense id, and -inf
    marks what is no candidate (padding, seen items): where none is left, 0 and -inf are returned.

    Raises:
        RequestError: k is not positive, or a score is NaN or +inf.
    """
    check_k(k)
    best = np.empty((len(scores), k), np.int64)
    for start in range(0, len(scores), BLOCK_ROWS):
        rows = scores[start : start + BLOCK_ROWS]
        # NaN is not below infinity either, and the maximum of anything with NaN is NaN.
        if not rows.max(initial=-np.inf) < np.inf:
            raise RequestError("the scores hold NaN or +inf; give finite ones, or -inf for none")
        best[start : start + len(rows)] = best_keys(_slicer(rows), len(rows), rows.shape[1], k)
    found = decoded(best, np.arange(scores.shape[1], dtype=np.int32))
    return found.item_ids, found.scores


def best_keys(
    score_block: Callable[[int, int], Scores], num_rows: int, num_columns: int, k: int
) -> Keys:
    """The k greatest keys of each row, int64[num_rows, k], greatest first.

    Args:
        score_block: From the first column and the one after the last to the scores between them,
            float32[num_rows, columns], without NaN; -inf where there is no candidate. A block is
            read before the next is asked for.
        num_rows: At most about `BLOCK_ROWS`, lest a block be narrow.
        num_columns: How many positions there are; positions count from 0.
        k: How many; places that no candidate fills hold a score of -inf.
    """
    best = np.full((num_rows, k), NO_CANDIDATE)
    block = max(1, BLOCK_BYTES // np.dtype(np.float32).itemsize // num_rows)
    for first in range(0, num_columns, block):
        scores = score_block(first, min(first + block, num_columns))
        best = _merged(best, scores, first)
    return best[:, ::-1]


def keys_of(scores: Scores, positions: Places) -> Keys:
    """Keys of scores float32 (-0.0 counts as 0.0) and positions 0..2^32 - 1 of the same shape."""
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)
    return (_flipped(bits) << 32) | (LOW_HALF - positions)


def scores_of(keys: Keys) -> Scores:
    """The scores in keys: the inverse of `keys_of`."""
    return _flipped(keys >> 32).astype(np.int32).view(np.float32)


def positions_of(keys: Keys) -> Places:
    """The positions in keys: the inverse of `keys_of`."""
    return LOW_HALF - (keys & LOW_HALF)


def decoded(best: Keys, item_ids: ItemIds) -> TopK:
    """The items that keys encode: `item_ids` int32[positions], by position."""
    scores = scores_of(best)
    is_found = scores > -np.inf
    found = np.zeros(best.shape, np.int32)
    found[is_found] = item_ids[positions_of(best[is_found])]
    return TopK(found, scores, np.count_nonzero(is_found, axis=1).astype(np.int32))


def check_k(k: int) -> None:
    """Refuses a k that asks for nothing.

    Raises:
        RequestError: k is not positive.
    """
    if k <= 0:
        raise RequestError(f"k must be at least 1, got {k}")


def _slicer(scores: Scores) -> Callable[[int, int], Scores]:
    return lambda first, stop: scores[:, first:stop]


def _merged(best: Keys, scores: Scores, first: int) -> Keys:
    """`best` (least first) once the block of scores that begins at position `first` has been seen.

    Few of a block can enter: those above the k-th best so far, which wins its ties because its
    position is lower. While a row has no k candidates yet, those not below the block's own k-th.
    """
    num_rows, k = best.shape
    kth_score = scores_of(best[:, :1])
    is_entering = scores > kth_score
    if scores.shape[1] > k and np.isneginf(kth_score).any():
        is_entering &= scores >= np.partition(scores, -k, axis=1)[:, -k, None]
    rows, columns = np.divmod(np.flatnonzero(is_entering), scores.shape[1])
    if not rows.size:
        return best
    counts = np.bincount(rows, minlength=num_rows)
    slots = np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)
    merged = np.full((num_rows, k + counts.max()), NO_CANDIDATE)
    merged[:, :k] = best
    merged[rows, k + slots] = keys_of(scores[rows, columns], first + columns)
    merged.sort(axis=1)
    return merged[:, -k:]


def _flipped(bits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A float's 32 bits as a signed integer, to an integer that orders as the float; and back.

    IEEE 754 floats are sign and magnitude, integers are not: the magnitude of negatives turns over.
    """
    return bits ^ ((bits >> 63) & 0x7FFF_FFFF)


NO_CANDIDATE = keys_of(np.array([-np.inf], np.float32), np.array([LOW_HALF]))[0]
