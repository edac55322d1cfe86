from functools import partial

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.log import InteractionLog, read_log
from segue.data.order import Ties, ties_of
from segue.data.splits import global_time, leave_one_out, no_split

SPLITS = [leave_one_out, partial(global_time, validation_from=1, test_from=2), no_split]
Row = tuple[int, int, int]
ROWS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)), min_size=1)


def log_of(rows: list[Row]) -> InteractionLog:
    return read_log(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"))


def whole_days(order: int) -> InteractionLog:
    """Ten users with three days of four items, in a file sorted by the items' ids."""
    rows = [(user, item, item // 4) for user in range(10) for item in range(12)]
    return log_of(sorted(rows, key=lambda row: order * row[1]))


def test_ties_are_counted_by_hand() -> None:
    users = np.array([0, 0, 0, 0, 0, 1, 1])
    times = np.array([5, 5, 5, 5, 6, 6, 6])
    items = np.array([1, 3, 2, 2, 4, 4, 9])
    assert ties_of(users, times, items) == Ties(5, 4, 2, 1)


@pytest.mark.parametrize(("order", "direction"), [(1, "rise"), (-1, "fall")])
@pytest.mark.parametrize("split", SPLITS)
def test_a_file_sorted_by_item_is_warned_of(order, direction, split) -> None:
    (warning,) = [note for note in split(whole_days(order)).notes if note.startswith("warning")]
    assert "of 110 neighbours in histories 90 have one time" in warning
    assert f"within these the item ids {direction} in 100%" in warning
    assert "--ties shuffle" in warning


@pytest.mark.parametrize("split", SPLITS)
def test_ties_in_another_order_are_not_warned_of(split) -> None:
    log = whole_days(1).with_shuffled_ties(0)
    assert not any("warning" in note for note in split(log).notes)


def test_a_few_ties_prove_nothing() -> None:
    assert not Ties(100, 19, 19, 0).is_sorted
    assert Ties(100, 20, 18, 2).is_sorted
    assert Ties(100, 20, 2, 18).is_sorted
    assert not Ties(100, 20, 17, 3).is_sorted
    assert not Ties(100, 50, 0, 0).is_sorted


@settings(deadline=None)
@given(ROWS, st.integers(0, 5))
def test_shuffling_moves_rows_within_their_ties_alone(rows: list[Row], seed: int) -> None:
    log = log_of(rows)
    shuffled = log.with_shuffled_ties(seed).frame
    keys = ["user_id", "timestamp"]
    assert shuffled.select(keys).equals(log.frame.select(keys))
    assert sorted(shuffled.rows()) == sorted(log.frame.rows())
    assert shuffled.equals(log.with_shuffled_ties(seed).frame)


def test_shuffling_is_noted_with_its_seed() -> None:
    log = log_of([(1, 1, 1), (1, 2, 1), (1, 3, 2), (2, 1, 1)]).with_shuffled_ties(7)
    assert log.notes[-1] == "shuffled 2 of 4 interactions, within ties in time (seed 7)"


def test_another_seed_gives_another_order() -> None:
    orders = {tuple(whole_days(1).with_shuffled_ties(seed).frame["item_id"]) for seed in range(3)}
    assert len(orders) == 3


@settings(deadline=None)
@given(ROWS)
def test_repeats_in_a_row_are_joined_into_the_first(rows: list[Row]) -> None:
    kept: set[int] = set()
    for user in {row[0] for row in rows}:
        history = sorted((row[2], place) for place, row in enumerate(rows) if row[0] == user)
        items = [rows[place][1] for _, place in history]
        kept |= {
            place
            for (_, place), item, before in zip(history, items, [None, *items], strict=False)
            if item != before
        }
    log = log_of(rows).without_repeats()
    assert log.frame.rows() == [row for place, row in enumerate(rows) if place in kept]
    assert log.notes[-1] == (
        f"dropped {len(rows) - len(kept)} of {len(rows)} interactions that repeat the item before "
        "them"
    )
