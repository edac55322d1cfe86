import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.data.histories import Histories
from segue.data.splits import HeldOut
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError, RequestError
from segue.evaluation import protocol
from segue.evaluation.lists import (
    average_popularity,
    coverage,
    intra_list_diversity,
    label_features,
    long_tail_share,
    novelty,
    top_lists,
    users_of_items,
)
from segue.evaluation.metrics import summarize

# Three users, lists of two, one of them short; items 1 to 5.
LISTS = np.array([[1, 2], [1, 3], [2, 0]], np.int32)
COUNTS = np.array([0, 8, 4, 2, 1, 1], np.int64)


def test_coverage_is_the_share_of_the_items_that_anybody_gets():
    assert coverage(LISTS, 5) == 3 / 5


def test_novelty_is_the_mean_of_the_bits_of_each_place():
    # Of 8 users, 8, 4, 2 had the items 1, 2, 3: 0, 1 and 2 bits.
    assert novelty(LISTS, COUNTS, 8) == pytest.approx((0 + 1 + 0 + 2 + 1) / 5)


def test_an_item_that_nobody_had_is_as_novel_as_one_that_one_user_had():
    assert novelty(np.array([[4]]), COUNTS * 0, 8) == 3


def test_average_popularity_is_averaged_in_each_list_first():
    assert average_popularity(LISTS, COUNTS) == pytest.approx((6 + 5 + 4) / 3)


def test_the_long_tail_is_what_the_items_with_80_percent_leave():
    # 8 + 4 of 16 are 75%, so that item 3 completes the 80%: the tail is 4 and 5.
    assert long_tail_share(np.array([[1, 4], [4, 5], [3, 0]]), COUNTS) == pytest.approx(0.5)
    # 8 of 10 are the 80% exactly.
    assert long_tail_share(np.array([[1, 2]]), np.array([0, 8, 2])) == 0.5


def test_diversity_of_genres_by_hand():
    features = label_features(pl.Series([["Comedy", "Drama"], ["Drama"], ["War"], None, []]))
    assert features.tolist() == [[0] * 3, [1, 1, 0], [0, 1, 0], [0, 0, 1], [0] * 3, [0] * 3]
    # The first two: cosine 1 / sqrt 2. Without genres: distance 1. One item: no pair.
    lists = np.array([[1, 2, 0], [3, 4, 0], [1, 2, 3], [5, 0, 0]])
    close = 1 - 1 / math.sqrt(2)
    assert intra_list_diversity(lists, features) == pytest.approx((close + 1 + (close + 2) / 3) / 3)


def test_the_measures_agree_with_what_rectools_gave():
    # RecTools 0.19.0 on the same tables: HitRate, NDCG(divide_by_achievable=True), MRR and MAP at
    # 10, MeanInvUserFreq, CatalogCoverage(normalize=True), AvgRecPopularity; it needs an older
    # NumPy than segue, so that its answers are kept here.
    num_users, num_items, k = 200, 50, 10
    users, places = np.arange(num_users)[:, None], np.arange(k)
    lists = ((users * users + places * (3 + users % 5 * 2)) % num_items + 1).astype(np.int32)
    targets = np.arange(num_users) * 11 % num_items + 1
    train = {
        (user, user * place % 45 + 1)
        for user in range(num_users)
        for place in range(1, 2 + user % 8)
    }
    item_users = np.bincount([item for _, item in train], minlength=num_items + 1)
    is_hit = lists == targets[:, None]
    ranks = np.where(is_hit.any(axis=1), is_hit.argmax(axis=1) + 1, 0).astype(np.int32)
    found = summarize(ranks)
    assert found["hr@10"] == pytest.approx(0.32)
    assert found["ndcg@10"] == pytest.approx(0.16836395756521516)
    assert found["mrr@10"] == pytest.approx(0.12393650793650793)
    assert novelty(lists, item_users, num_users) == pytest.approx(3.90014353712986)
    assert coverage(lists, num_items) == 1.0
    assert average_popularity(lists, item_users) == pytest.approx(17.212)


@given(st.integers(0, 1000), st.integers(2, 5))
def test_diversity_agrees_with_all_pairs(seed, k):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(9, 3))
    features[rng.integers(1, 9)] = 0
    lists = np.stack([rng.permutation(8)[:k] + 1 for _ in range(4)])
    lists[0, -1] = 0

    def distance(one, other):
        norms = np.linalg.norm(features[one]) * np.linalg.norm(features[other])
        return 1 - (features[one] @ features[other] / norms if norms else 0)

    pairs = [list(combinations(row[row > 0], 2)) for row in lists]
    expected = [np.mean([distance(*pair) for pair in each]) for each in pairs if each]
    assert intra_list_diversity(lists, features) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("measure", [average_popularity, long_tail_share])
def test_lists_that_recommend_nothing_are_refused(measure):
    nothing = np.zeros((2, 3), np.int32)
    with pytest.raises(DataError, match="recommend nothing"):
        measure(nothing, COUNTS)
    with pytest.raises(DataError, match="recommend nothing"):
        coverage(nothing, 5)
    with pytest.raises(DataError, match="no list has two items"):
        intra_list_diversity(LISTS[2:], np.ones((6, 2)))


def histories_of(lists):
    vocabulary = Vocabulary(pl.int_range(1, 6, eager=True))
    return Histories.from_lists(vocabulary, [np.array(each, np.int32) for each in lists])


def test_a_users_repetitions_count_once_for_an_item():
    assert users_of_items(histories_of([[1, 1, 2], [2], []])).tolist() == [0, 1, 2, 0, 0, 0]


class Scores:
    def __init__(self, scores):
        self.scores = np.asarray(scores, np.float32)

    def score(self, histories, users):
        return self.scores[users]


@given(st.integers(0, 1000), st.integers(1, 7), st.integers(1, 100))
def test_top_lists_agree_with_sorting_what_is_unseen(seed, k, block_bytes):
    rng = np.random.default_rng(seed)
    seen = [rng.integers(1, 6, size=rng.integers(0, 8)).tolist() for _ in range(4)]
    scores = rng.permuted(np.tile(np.arange(6.0), (4, 1)), axis=1)
    is_trained = rng.random(6) < 0.8
    held_out = HeldOut("test", histories_of(seen), np.ones(4, np.int32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "BLOCK_BYTES", block_bytes)
        lists = top_lists(Scores(scores), held_out, k, is_trained=is_trained)
    for history, row, found in zip(seen, scores, lists, strict=True):
        items = [item for item in range(1, 6) if item not in history and is_trained[item]]
        best = sorted(items, key=lambda item: -row[item])[:k]
        assert found.tolist() == best + [0] * (min(k, 5) - len(best))


def test_a_list_of_nothing_is_refused():
    held_out = HeldOut("test", histories_of([[1]]), np.ones(1, np.int32))
    with pytest.raises(RequestError, match="k=0"):
        top_lists(Scores([[0.0] * 6]), held_out, 0)
