"""Baselines: what a model must beat to be worth its training. Each is a `Scorer`.

All learn from the training histories at once, without settings to tune but ItemKNN's neighbours.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from segue.data.histories import Histories
from segue.data.times import DAY_S, unix_seconds
from segue.errors import DataError, RequestError
from segue.evaluation.protocol import Scorer
from segue.retrieval.selection import top_k

# The comparison grows with the square: 50,000 items took 19 s on one core, 20,000 took 6 s.
MAX_KNN_ITEMS = 50_000
NUM_NEIGHBOURS = 20
SIMILARITY_BYTES = 64 * 2**20
RECENT_DAYS = 30


class Popularity:
    """Every user gets the same scores: items in the order of their training interactions."""

    def __init__(self, train: Histories) -> None:
        self._scores = _ordered(train.item_counts())

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1], as a read-only view of one row."""
        rows = len(histories.lengths[users])
        return np.broadcast_to(self._scores, (rows, len(self._scores)))


class RecentPopularity:
    """As `Popularity`, by the interactions of the last days of training; equal ones by all of it.

    Source: Ji, Sun, Zhang and Li, "A re-visit of the popularity baseline in recommender systems",
    SIGIR 2020, whose RecentPop counts the time before each recommendation. Departure: one count
    for all users, of the days before training ends, because nothing later is known to it.
    """

    def __init__(self, train: Histories, days: int = RECENT_DAYS) -> None:
        """Count the items of the last days.

        Raises:
            RequestError: `days` is not positive.
            DataError: The times are no moments, but an order such as positions.
        """
        if days <= 0:
            raise RequestError(f"days={days} counts nothing; give at least 1")
        seconds = unix_seconds(train.timestamps, train.unit)
        if seconds is None:
            raise DataError(
                "the times of these histories are an order and no moments, so there are no last "
                "days; compare with the popularity of all days"
            )
        is_recent = seconds >= seconds.max() - days * DAY_S
        recent = train.select(is_recent).item_counts()
        counts = train.item_counts()
        self._scores = _ordered(_ordered(recent).astype(np.int64) * (counts.max() + 1) + counts)

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1], as a read-only view of one row."""
        rows = len(histories.lengths[users])
        return np.broadcast_to(self._scores, (rows, len(self._scores)))


class LastItemTransition:
    """Items in the order of how often they came right after the user's last item, in training.

    A first-order Markov chain by counts. Users with an empty history get zeros, as do items that
    never followed.
    """

    def __init__(self, train: Histories) -> None:
        is_followed = train.users[1:] == train.users[:-1]
        pairs = (train.item_ids[:-1][is_followed], train.item_ids[1:][is_followed])
        columns = train.vocabulary.num_items + 1
        counts = sp.coo_array(
            (np.ones(len(pairs[0]), np.int64), pairs), shape=(columns, columns)
        ).tocsr()
        self._scores = sp.csr_array(
            (_ordered(counts.data) + 1, counts.indices, counts.indptr), shape=counts.shape
        )

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1]."""
        is_empty = histories.lengths[users] == 0
        lasts = histories.offsets[1:][users] - 1
        last_items = np.zeros(len(lasts), np.int32)
        last_items[~is_empty] = histories.item_ids[lasts[~is_empty]]
        # Nothing ever followed padding, item 0, so its row is the zeros of an empty history.
        scores: npt.NDArray[np.float32] = self._scores[last_items].toarray()
        return scores


class OwnFrequency:
    """A user's own items in the order of how often they occur in the history; then popularity."""

    def __init__(self, train: Histories) -> None:
        self._popularity = _ordered(train.item_counts())

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1]."""
        rows, item_ids, _ = _items_of(histories, users)
        columns = len(self._popularity)
        pairs, counts = np.unique(rows * columns + item_ids, return_counts=True)
        popularity = self._popularity[pairs % columns]
        keys = (popularity, counts, pairs // columns)
        return _own_first(pairs, keys, self._popularity, len(histories.lengths[users]))


class OwnRecency:
    """A user's own items, the most recent first; then popularity."""

    def __init__(self, train: Histories) -> None:
        self._popularity = _ordered(train.item_counts())

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1]."""
        rows, item_ids, places = _items_of(histories, users)
        columns = len(self._popularity)
        # The first of the reversed occurrences is the last one.
        pairs, last = np.unique((rows * columns + item_ids)[::-1], return_index=True)
        keys = (places[::-1][last], pairs // columns)
        return _own_first(pairs, keys, self._popularity, len(histories.lengths[users]))


class ItemKNN:
    """The sum, over the items of a user's history, of their similarity to the item scored.

    Two items are as similar as the cosine of their columns in the binary matrix of training users
    and items. Of each scored item only the `neighbours` most similar items count.

    Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW
    2001, section 3. Departure: there are no ratings, so the similarities are added up, as in
    Deshpande and Karypis, ACM TOIS 22(1), 2004, and not averaged.
    """

    def __init__(self, train: Histories, neighbours: int = NUM_NEIGHBOURS) -> None:
        """Compare all items, in blocks.

        Raises:
            RequestError: `neighbours` is not positive.
            DataError: There are more than `MAX_KNN_ITEMS` items.
        """
        num_items = train.vocabulary.num_items
        if neighbours <= 0:
            raise RequestError(f"neighbours={neighbours} compares nothing; give at least 1")
        if num_items > MAX_KNN_ITEMS:
            raise DataError(
                f"item-KNN compares every two items, and {num_items:,} exceed its limit of "
                f"{MAX_KNN_ITEMS:,}; compare with popularity alone"
            )
        self._similarities = _nearest(user_items(train, slice(0, train.num_users)), neighbours)

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1]; added up in float64, so that rounding makes few ties."""
        sums = user_items(histories, users) @ self._similarities
        scores: npt.NDArray[np.float32] = sums.toarray().astype(np.float32)
        return scores


def usual_baselines(
    train: Histories, *, repeats: bool = False
) -> tuple[dict[str, Scorer], list[str]]:
    """The baselines that these training histories allow, and a line for each that they do not.

    Args:
        train: What they learn from.
        repeats: Whether items of a history may be recommended again: with a user's own items.
    """
    baselines: dict[str, Scorer] = {"popularity": Popularity(train)}
    notes = []
    if unix_seconds(train.timestamps, train.unit) is None:
        notes.append("no recent_popularity: the log's times are an order and no moments")
    else:
        baselines["recent_popularity"] = RecentPopularity(train)
        notes.append(f"recent_popularity counts the last {RECENT_DAYS} days of training")
    baselines["last_item"] = LastItemTransition(train)
    if train.vocabulary.num_items > MAX_KNN_ITEMS:
        notes.append(f"no item_knn: more than {MAX_KNN_ITEMS:,} items")
    else:
        baselines["item_knn"] = ItemKNN(train)
    if repeats:
        baselines |= {"own_frequency": OwnFrequency(train), "own_recency": OwnRecency(train)}
    return baselines, notes


def _ordered(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Scores in the order of the counts: the place of each among the distinct counts, from 0.

    float32 holds the integers only up to 2^24, and larger counts would tie that differ.
    """
    return np.unique(counts, return_inverse=True)[1].astype(np.float32)


def _items_of(
    histories: Histories, users: slice
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row, item and place of each interaction of these users, int64[interactions] each."""
    lengths = histories.lengths[users]
    first = histories.offsets[users.start]
    places = np.arange(first, first + lengths.sum())
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return rows, histories.item_ids[places].astype(np.int64), places


def _own_first(
    pairs: npt.NDArray[np.int64],
    keys: tuple[npt.NDArray[Any], ...],
    popularity: npt.NDArray[np.float32],
    num_rows: int,
) -> npt.NDArray[np.float32]:
    """float32[num_rows, num_items + 1]: popularity, and above it each row's own items.

    Args:
        pairs: int64[n], row * (num_items + 1) + item of each of the rows' own items, distinct.
        keys: [n] each, what orders a row's own items ascending, the least important first; the
            last is the row.
        popularity: float32[num_items + 1], whole numbers up to num_items.
        num_rows: How many rows.
    """
    columns = len(popularity)
    scores = np.tile(popularity, (num_rows, 1))
    order = np.lexsort(keys)
    rows = pairs[order] // columns
    places = np.arange(len(rows)) - np.searchsorted(rows, rows)
    scores[rows, pairs[order] % columns] = columns + places
    return scores


def user_items(histories: Histories, users: slice) -> sp.csr_array:
    """The binary matrix float64[rows, num_items + 1]: 1 where the user has the item."""
    offsets = histories.offsets[users.start : users.stop + 1]
    item_ids = histories.item_ids[offsets[0] : offsets[-1]]
    shape = (len(offsets) - 1, histories.vocabulary.num_items + 1)
    # A copy, because joining a user's repeated items sorts the indices in place.
    matrix = sp.csr_array(
        (np.ones(len(item_ids)), item_ids, offsets - offsets[0]), shape=shape, copy=True
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _nearest(user_items: sp.csr_array, neighbours: int) -> sp.csr_array:
    """Cosines, float64[num_items + 1, num_items + 1]: column i holds the nearest of item i."""
    columns = user_items.shape[1]
    item_users = user_items.T.tocsr()
    norms = np.sqrt(np.diff(item_users.indptr))
    block = max(1, SIMILARITY_BYTES // (columns * np.dtype(np.float32).itemsize))
    cosines, items, nearest = [], [], []
    for start in range(0, columns, block):
        together = (item_users[start : start + block] @ user_items).tocoo()
        rows, others = together.coords
        similarities = np.full(together.shape, -np.inf, np.float32)
        similarities[rows, others] = together.data / (norms[start + rows] * norms[others])
        np.fill_diagonal(similarities[:, start:], -np.inf)
        best, best_similarities = top_k(similarities, min(neighbours, columns))
        is_similar = best_similarities > -np.inf
        cosines.append(best_similarities[is_similar].astype(np.float64))
        items.append(start + np.nonzero(is_similar)[0])
        nearest.append(best[is_similar])
    places = (np.concatenate(nearest), np.concatenate(items))
    return sp.coo_array((np.concatenate(cosines), places), shape=(columns, columns)).tocsr()
