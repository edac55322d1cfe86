"""Histories as rows: what a model is given of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.data.columns import Columns
from segue.data.times import UNKNOWN_TIME
from segue.errors import DataError

NO = UNKNOWN_TIME


def ints(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int32)


def test_a_model_is_given_the_items_alone_unless_it_wants_more() -> None:
    columns = Columns(ints([7, 3]), ints([10, 40]), np.array([95], np.int32))
    assert list(columns.inputs()) == ["item_ids"]


def test_at_each_position_stands_when_the_item_after_it_was_asked_for() -> None:
    columns = Columns(
        ints([7, 3, 9], [5, 0, 0], [0, 0, 0]),
        ints([10, 40, 90], [60, NO, NO], [NO, NO, NO]),
        np.array([95, 61, 62], np.int32),
    )
    inputs = columns.inputs(["timestamps", "asked_at"])
    assert inputs["timestamps"].tolist() == [[10, 40, 90], [60, NO, NO], [NO, NO, NO]]
    assert inputs["asked_at"].tolist() == [[40, 90, 95], [61, NO, NO], [NO, NO, NO]]


def test_what_is_not_known_is_unknown_and_never_made_up() -> None:
    inputs = Columns(ints([7, 3])).inputs(["timestamps", "asked_at", "weights"])
    assert inputs["timestamps"].tolist() == inputs["asked_at"].tolist() == [[NO, NO]]
    assert np.isnan(inputs["weights"]).all()


def test_rows_are_taken_with_all_that_belongs_to_them() -> None:
    columns = Columns(
        ints([1], [2], [3]),
        ints([10], [20], [30]),
        np.array([11, 21, 31], np.int32),
        {"weights": np.array([[0.1], [0.2], [0.3]], np.float32)},
    )
    taken = columns.take(np.array([2, 0]))
    assert taken.item_ids.tolist() == [[3], [1]]
    assert taken.timestamps is not None
    assert taken.timestamps.tolist() == [[30], [10]]
    assert taken.asked_at is not None
    assert taken.asked_at.tolist() == [31, 11]
    assert taken.others["weights"].tolist() == np.float32([[0.3], [0.1]]).tolist()


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=5), st.integers(1, 4))
def test_lists_become_rows_of_their_newest_items(lists: list[list[int]], length: int) -> None:
    histories = [np.array(items, np.int32) for items in lists]
    seconds = [100 * items for items in histories]
    columns = Columns.from_lists(histories, length, seconds=seconds)
    assert columns.timestamps is not None
    for row, items in enumerate(lists):
        newest = items[-length:]
        padding = length - len(newest)
        assert columns.item_ids[row].tolist() == newest + [0] * padding
        assert columns.timestamps[row].tolist() == [100 * i for i in newest] + [NO] * padding


def test_columns_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"timestamps must have the shape \(1, 2\) of item_ids"):
        Columns(ints([1, 2]), ints([1]))
    with pytest.raises(DataError, match=r"asked_at must have the shape \(1,\), got \(2,\)"):
        Columns(ints([1, 2]), None, np.zeros(2, np.int32))
