import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.histories import Histories
from segue.data.log import read_log
from segue.data.splits import Split, leave_one_out
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError, RequestError
from segue.evaluation import baselines
from segue.evaluation.baselines import (
    ItemKNN,
    LastItemTransition,
    OwnFrequency,
    OwnRecency,
    Popularity,
    RecentPopularity,
    usual_baselines,
)
from segue.evaluation.metrics import summarize
from segue.evaluation.protocol import Scorer, rank_full

ML_1M = Path(__file__).parents[3] / "shared/data/ml-1m/interactions.parquet"

Lists = list[list[int]]
logs = st.lists(st.lists(st.integers(1, 6), max_size=7), min_size=1, max_size=6)


def histories_of(lists: Lists, num_items: int = 6) -> Histories:
    vocabulary = Vocabulary.from_ids(pl.int_range(1, num_items + 1, eager=True))
    return Histories.from_lists(vocabulary, [np.array(each, np.int32) for each in lists])


def scores_of(scorer: Scorer, lists: Lists, num_items: int = 6) -> npt.NDArray[np.float32]:
    """All scores, asked for one user at a time."""
    histories = histories_of(lists, num_items)
    rows = [scorer.score(histories, slice(user, user + 1)) for user in range(len(lists))]
    scores = np.concatenate(rows)
    assert scores.dtype == np.float32
    assert np.array_equal(scores, scorer.score(histories, slice(0, len(lists))))
    return scores


def same_order(scores: npt.NDArray[np.float32], counts: list[int]) -> bool:
    """Whether two rows order and tie all pairs alike."""
    difference = np.subtract.outer
    order = np.sign(difference(scores.astype(np.float64), scores.astype(np.float64)))
    return bool(np.array_equal(order, np.sign(difference(np.array(counts), np.array(counts)))))


@given(logs, logs)
def test_popularity_orders_items_by_their_training_interactions(train: Lists, asked: Lists) -> None:
    flat = [item for history in train for item in history]
    counts = [flat.count(item) for item in range(7)]
    for row in scores_of(Popularity(histories_of(train)), asked):
        assert same_order(row, counts)


def test_popularity_tells_large_counts_apart_that_float32_cannot() -> None:
    class Busy(Histories):
        def item_counts(self) -> npt.NDArray[np.int64]:
            return np.array([0, 2**24, 2**24 + 1, 2**24 + 2], np.int64)

    train = Busy.from_lists(Vocabulary.from_ids(pl.Series([1, 2, 3])), [])
    scores = Popularity(train).score(histories_of([[]], num_items=3), slice(0, 1))[0]
    assert scores[1] < scores[2] < scores[3]


@given(logs, logs)
def test_transitions_order_items_by_how_often_they_followed_the_last_item(
    train: Lists, asked: Lists
) -> None:
    pairs = [pair for history in train for pair in pairwise(history)]
    scores = scores_of(LastItemTransition(histories_of(train)), asked)
    for row, history in zip(scores, asked, strict=True):
        counts = [pairs.count((history[-1], item)) if history else 0 for item in range(7)]
        assert same_order(row, counts)
        assert (row >= 0).all()


def test_no_transition_leads_from_one_user_to_the_next() -> None:
    scores = scores_of(LastItemTransition(histories_of([[1, 2], [3, 4]])), [[2], [1]])
    assert np.flatnonzero(scores[0]).tolist() == []
    assert np.flatnonzero(scores[1]).tolist() == [2]


def dense_item_knn(train: Lists, asked: Lists, neighbours: int) -> list[list[float]]:
    """Item-KNN in plain Python, all pairs of items."""
    users = {item: {u for u, history in enumerate(train) if item in history} for item in range(7)}

    def cosine(one: int, other: int) -> float:
        norms = math.sqrt(len(users[one]) * len(users[other]))
        return len(users[one] & users[other]) / norms if norms and one != other else 0.0

    similarity = {one: {other: cosine(one, other) for other in range(7)} for one in range(7)}

    def nearest(one: int) -> list[int]:
        return sorted(range(7), key=lambda other: (-round(similarity[one][other], 9), other))

    return [
        [
            sum(similarity[item][seen] for seen in set(history) & set(nearest(item)[:neighbours]))
            for item in range(7)
        ]
        for history in asked
    ]


@settings(deadline=None)
@given(logs, logs, st.integers(1, 8), st.integers(1, 300))
def test_item_knn_agrees_with_comparing_all_pairs_of_items(
    train: Lists, asked: Lists, neighbours: int, block_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "SIMILARITY_BYTES", block_bytes)
        scorer = ItemKNN(histories_of(train), neighbours)
    expected = dense_item_knn(train, asked, neighbours)
    assert scores_of(scorer, asked) == pytest.approx(np.array(expected), abs=1e-6)


def test_item_knn_leaves_the_histories_as_they_were() -> None:
    train = histories_of([[5, 2, 5, 1], [3, 1, 2]])
    before = train.item_ids.copy()
    ItemKNN(train).score(train, slice(0, 2))
    assert np.array_equal(train.item_ids, before)


def test_item_knn_refuses_a_catalogue_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_KNN_ITEMS", 5)
    with pytest.raises(DataError, match="6 exceed its limit of 5"):
        ItemKNN(histories_of([[1, 2]]))


@pytest.mark.parametrize("neighbours", [0, -1])
def test_item_knn_refuses_to_compare_nothing(neighbours: int) -> None:
    with pytest.raises(RequestError, match=f"neighbours={neighbours}"):
        ItemKNN(histories_of([[1, 2]]), neighbours)


@pytest.fixture(scope="module")
def movielens() -> Split:
    if not ML_1M.exists():
        pytest.skip(f"MovieLens-1M is absent: {ML_1M}")
    return leave_one_out(read_log(ML_1M, time_col="position"))


@pytest.mark.slow
def test_on_movielens_every_personal_baseline_beats_popularity(movielens: Split) -> None:
    assert movielens.test is not None
    hits = {
        baseline: summarize(rank_full(baseline(movielens.train), movielens.test).ranks)["hr@10"]
        for baseline in (Popularity, ItemKNN, LastItemTransition)
    }
    assert 0.02 < hits[Popularity] < 0.05
    assert hits[ItemKNN] > 2 * hits[Popularity]
    assert hits[LastItemTransition] > hits[ItemKNN]


DAY_S = 86_400


def timed(train: list[list[tuple[int, float]]]) -> Histories:
    """Histories of (item, day), the days counted from a moment in 2001."""
    lists = histories_of([[item for item, _ in history] for history in train])
    days = np.array([day for history in train for _, day in history])
    return replace(lists, timestamps=(10**9 + days * DAY_S).astype(np.int64))


def test_recent_popularity_orders_by_the_last_days_and_then_by_all() -> None:
    train = timed([[(1, 0), (1, 1), (2, 2), (3, 100)], [(2, 1), (1, 3), (4, 98)], [(4, 99.5)]])
    # Of the last 2 days: item 4 twice, item 3 once; before, item 1 three times, item 2 twice.
    scores = RecentPopularity(train, days=2).score(train, slice(0, 2))
    assert scores.shape == (2, 7)
    assert same_order(scores[0], [0, 3, 2, 11, 22, 0, 0])


def test_recent_popularity_needs_moments_and_days() -> None:
    with pytest.raises(DataError, match="an order and no moments"):
        RecentPopularity(histories_of([[1, 2]]))
    with pytest.raises(RequestError, match="days=0"):
        RecentPopularity(timed([[(1, 0)]]), days=0)


def test_the_usual_baselines_are_those_that_the_log_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["popularity", "recent_popularity", "last_item", "item_knn"]
    assert list(usual_baselines(timed([[(1, 0)]]))[0]) == names
    monkeypatch.setattr(baselines, "MAX_KNN_ITEMS", 5)
    found, notes = usual_baselines(histories_of([[1, 2]]))
    assert list(found) == ["popularity", "last_item"]
    assert [note.split(":")[0] for note in notes] == ["no recent_popularity", "no item_knn"]


@given(logs, logs)
def test_own_items_come_first_by_count_or_by_recency(train: Lists, asked: Lists) -> None:
    flat = [item for history in train for item in history]
    popularity = [flat.count(item) for item in range(7)]
    frequency = scores_of(OwnFrequency(histories_of(train)), asked)
    recency = scores_of(OwnRecency(histories_of(train)), asked)
    for row, history in enumerate(asked):
        own = sorted(set(history))
        others = [item for item in range(1, 7) if item not in own]
        for scores in (frequency[row], recency[row]):
            assert same_order(scores[others], [popularity[item] for item in others])
            if own and others:
                assert scores[own].min() > scores[others].max()
        by_count = sorted(own, key=lambda item: (history.count(item), popularity[item], item))
        assert (np.diff(frequency[row][by_count]) > 0).all()
        by_last = sorted(own, key=lambda item: len(history) - history[::-1].index(item))
        assert (np.diff(recency[row][by_last]) > 0).all()
