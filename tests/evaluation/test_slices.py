import numpy as np
import polars as pl
import pytest

from segue.data.histories import Histories
from segue.data.splits import HeldOut
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError
from segue.evaluation.metrics import summarize
from segue.evaluation.protocol import Ranking
from segue.evaluation.slices import slices, slices_by_age

NUM_ITEMS = 10


def sliced(ranks, targets, histories=None, activity=None, **columns):
    vocabulary = Vocabulary(pl.int_range(1, NUM_ITEMS + 1, eager=True))
    lists = [np.array(each, np.int32) for each in histories or [[1]] * len(ranks)]
    held_out = HeldOut("test", Histories.from_lists(vocabulary, lists), np.array(targets, np.int32))
    ranking = Ranking(
        np.array(ranks, np.int32), held_out.targets, held_out.targets, held_out.histories.user_ids
    )
    found = slices(
        ranking,
        held_out,
        item_counts=np.arange(NUM_ITEMS + 1) * 10,
        train_lengths=np.array(activity or [1] * len(ranks)),
        catalogue=pl.DataFrame(columns) if columns else None,
        columns=list(columns),
    )
    return {(each["by"], each["group"]): each for each in found}


def test_history_lengths_are_grouped_by_fixed_ends():
    lengths = [0, 1, 4, 5, 9, 250]
    found = sliced([1, 1, 0, 0, 0, 1], [1] * 6, histories=[[1] * length for length in lengths])
    hits = {
        group: (each["users"], each["metrics"]["hr@10"])
        for (by, group), each in found.items()
        if by == "history length"
    }
    assert hits == {"0": (1, 1.0), "1 to 4": (2, 0.5), "5 to 9": (2, 0.0), "200 or more": (1, 1.0)}


def test_targets_are_grouped_by_their_training_interactions():
    found = sliced([1, 2, 3, 20], targets=[1, 2, 3, 4])
    groups = [group for by, group in found if by == "item popularity"]
    assert groups == [
        "least popular (10 to 10)",
        "less popular (20 to 20)",
        "more popular (30 to 30)",
        "most popular (40 to 40)",
    ]
    assert found["item popularity", groups[3]]["metrics"]["hr@10"] == 0


def test_users_are_grouped_by_their_training_interactions_and_new_ones_stand_apart():
    found = sliced([1, 1, 0], targets=[1, 1, 1], activity=[0, 7, 7])
    groups = {group: each["users"] for (by, group), each in found.items() if by == "user activity"}
    assert groups == {"never trained on": 1, "least active (7 to 7)": 2}


def test_a_column_groups_users_by_each_label_of_their_target():
    genres = [["War", "Drama"], ["Drama"], *[None] * 8]
    found = sliced([1, 0, 1], targets=[1, 2, 3], genres=genres)
    hits = {
        group: (each["users"], each["metrics"]["hr@10"])
        for (by, group), each in found.items()
        if by == "genres"
    }
    assert hits == {"Drama": (2, 0.5), "(none)": (1, 1.0), "War": (1, 1.0)}
    assert next(group for by, group in found if by == "genres") == "Drama"


def test_a_slice_has_the_metrics_and_intervals_of_its_users_alone():
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 30, 200)
    targets = rng.integers(1, 3, 200)
    found = sliced(ranks, targets, kind=["a", "b", *[None] * 8])["kind", "a"]
    expected = summarize(ranks[targets == 1].astype(np.int32))
    assert found["metrics"] == {name: expected[name] for name in ("hr@10", "ndcg@10")}
    low, high = found["intervals"]["ndcg@10"]
    assert low < expected["ndcg@10"] < high


def test_the_groups_of_a_partition_hold_every_user_once():
    rng = np.random.default_rng(1)
    activity = rng.integers(0, 50, 300).tolist()
    found = sliced([1] * 300, rng.integers(1, 11, 300), activity=activity)
    for by in ("history length", "item popularity", "user activity"):
        assert sum(each["users"] for (of, _), each in found.items() if of == by) == 300


def test_a_column_that_the_catalogue_lacks_is_refused():
    with pytest.raises(DataError, match="no column 'genre'"):
        slices(
            Ranking(np.ones(1, np.int32), np.ones(1), np.ones(1), pl.Series([1])),
            HeldOut(
                "test",
                Histories.from_lists(Vocabulary(pl.Series([1])), [np.ones(1, np.int32)]),
                np.ones(1, np.int32),
            ),
            np.array([0, 1]),
            np.ones(1, np.int64),
            columns=["genre"],
        )


def test_ages_are_grouped_into_parts_of_as_many_users():
    ranks = np.array([1, 1, 1, 50, 50, 50], np.int32)
    users = pl.int_range(6, eager=True)
    found = slices_by_age(
        Ranking(ranks, ranks, ranks, users), np.array([0.5, 1, 2, 3, 3.25, 9]), groups=2
    )
    assert [(each["group"], each["users"], each["metrics"]["hr@10"]) for each in found] == [
        ("0.5 to 2.0 days", 3, 1.0),
        ("3.0 to 9.0 days", 3, 0.0),
    ]
