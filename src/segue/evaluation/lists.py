"""What the recommended lists are like as a whole, whatever the targets were.

Lists are `int32[users, k]`, dense ids, the best first, without repetition; 0 fills the end of a
shorter one.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.histories import Histories
from segue.data.labels import labels_of
from segue.data.splits import HeldOut
from segue.errors import DataError, RequestError
from segue.evaluation.protocol import Scorer, blocks_of, candidate_mask
from segue.retrieval.selection import top_k

Lists = npt.NDArray[np.int32]
Features = npt.NDArray[np.floating[Any]]

SHORT_HEAD = 0.8  # of all interactions


def top_lists(
    scorer: Scorer,
    held_out: HeldOut,
    k: int = 10,
    *,
    is_trained: npt.NDArray[np.bool_] | None = None,
) -> Lists:
    """The best k candidates for each user, scored in blocks.

    Args:
        scorer: What recommends.
        held_out: Users and their histories; the targets are not looked at.
        k: At least 1; cut to the number of items.
        is_trained: bool[num_items + 1], True where an item may be recommended; by default all.
    """
    if k <= 0:
        raise RequestError(f"k={k} asks for nothing; ask for at least 1")
    k = min(k, held_out.histories.vocabulary.num_items)
    lists = np.zeros((held_out.num_users, k), np.int32)
    for users in blocks_of(held_out):
        is_candidate = candidate_mask(held_out, users)
        if is_trained is not None:
            is_candidate &= is_trained
        scores = np.where(is_candidate, scorer.score(held_out.histories, users), -np.inf)
        items, best = top_k(scores.astype(np.float32, copy=False), k)
        lists[users] = np.where(best > -np.inf, items, 0)
    return lists


def coverage(lists: Lists, num_items: int) -> float:
    """The share of the catalogue that is recommended to anybody.

    Source: Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy: evaluating recommender systems by
    coverage and serendipity", RecSys 2010, section 3.1.2.
    """
    items = _items(lists)
    return np.unique(items).size / num_items


def novelty(lists: Lists, item_users: npt.NDArray[np.int64], num_users: int) -> float:
    """Bits: the mean over all places of -log2(users of the item / users).

    An item that nobody had counts as if one user had.

    Source: Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems",
    PNAS 107(10), 2010, the mean self-information.

    Args:
        lists: The recommendations.
        item_users: int64[num_items + 1], the training users who had each item.
        num_users: The training users.
    """
    share = np.maximum(item_users, 1) / num_users
    return float(-np.log2(share)[_items(lists)].mean())


def average_popularity(lists: Lists, item_counts: npt.NDArray[np.int64]) -> float:
    """The mean over the users of the mean training interactions of what they were recommended.

    Source: Yin, Cui, Li, Yao and Chen, "Challenging the long tail recommendation", VLDB 2012; the
    name, ARP, is that of Abdollahpouri, Burke and Mobasher, "Managing popularity bias in
    recommender systems with personalized re-ranking", FLAIRS 2019.
    """
    return _mean_over_users(lists, item_counts.astype(np.float64))


def long_tail_share(lists: Lists, item_counts: npt.NDArray[np.int64]) -> float:
    """The mean over the users of the share of the list that is not of the short head.

    The short head is the fewest items that have 80% of the training interactions.

    Source: APLT of Abdollahpouri, Burke and Mobasher, FLAIRS 2019.
    """
    return _mean_over_users(lists, (~_short_head(item_counts)).astype(np.float64))


def intra_list_diversity(lists: Lists, features: Features) -> float:
    """The mean over the users of the mean cosine distance, 1 - cosine, of two items of the list.

    Lists of fewer than two items have no pair and are left out. Items without features, all zeros,
    are at the distance 1 of every other.

    Source: Ziegler, McNee, Konstan and Lausen, "Improving recommendation lists through topic
    diversification", WWW 2005, as a mean over the pairs and with 1 - cosine (Vargas and Castells,
    "Rank and relevance in novelty and diversity metrics", RecSys 2011).

    Args:
        lists: The recommendations.
        features: float[num_items + 1, n]: what the items are compared by, such as 0 or 1 for each
            genre, or their embeddings; row 0 is ignored.

    Raises:
        DataError: No list has two items.
    """
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    directions = np.divide(features, norms, out=np.zeros(features.shape), where=norms > 0)
    directions[0] = 0
    is_item = lists > 0
    lengths = is_item.sum(axis=1)
    if not (lengths > 1).any():
        raise DataError("no list has two items, so there is no diversity within; ask for more")
    is_directed = norms[:, 0] > 0
    # The squared length of a sum of unit vectors: their number, and twice the pairs' cosines.
    sums = np.zeros((len(lists), directions.shape[1]))
    for column in lists.T:
        sums += directions[column]
    cosines = ((sums**2).sum(axis=1) - (is_item & is_directed[lists]).sum(axis=1)) / 2
    pairs = lengths * (lengths - 1) / 2
    has_pair = pairs > 0
    return float((1 - cosines[has_pair] / pairs[has_pair]).mean())


def users_of_items(train: Histories) -> npt.NDArray[np.int64]:
    """How many users had each item, int64[num_items + 1]."""
    columns = train.vocabulary.num_items + 1
    pairs = np.unique(train.users * columns + train.item_ids)
    return np.bincount(pairs % columns, minlength=columns)


def label_features(labels: pl.Series) -> npt.NDArray[np.float64]:
    """0 or 1 for each label, float64[num_items + 1, labels].

    Args:
        labels: Of each item 1..num_items in order: text, a list of it, or null.
    """
    items = np.arange(1, len(labels) + 1)
    pairs = pl.DataFrame({"item": items, "label": labels_of(labels)}).explode("label")
    pairs = pairs.filter(pl.col("label").fill_null("") != "")
    places = pairs["label"].rank("dense").to_numpy().astype(np.int64) - 1
    features = np.zeros((len(labels) + 1, int(places.max(initial=-1)) + 1))
    features[pairs["item"].to_numpy(), places] = 1
    return features


def _items(lists: Lists) -> npt.NDArray[np.int32]:
    items = lists[lists > 0]
    if not items.size:
        raise DataError("the lists recommend nothing; give at least one item to one user")
    return items


def _mean_over_users(lists: Lists, values: npt.NDArray[np.float64]) -> float:
    """The mean over the users who have a list of its mean value; values float64[num_items + 1]."""
    _items(lists)
    is_item = lists > 0
    lengths = is_item.sum(axis=1)
    sums = np.where(is_item, values[lists], 0.0).sum(axis=1)
    return float((sums[lengths > 0] / lengths[lengths > 0]).mean())


def _short_head(item_counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool[num_items + 1]: the most popular items, up to the one that completes the 80%."""
    order = np.argsort(-item_counts, kind="stable")
    before = np.cumsum(item_counts[order]) - item_counts[order]
    is_head = np.zeros(len(item_counts), np.bool_)
    is_head[order] = before < SHORT_HEAD * item_counts.sum()
    return is_head & (item_counts > 0)
