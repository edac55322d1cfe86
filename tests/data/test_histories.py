from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.histories import Histories
from segue.data.items import read_items
from segue.data.log import InteractionLog, read_log
from segue.data.times import UNKNOWN_TIME, TimeUnit
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError

ML_1M = Path("../shared/data/ml-1m")

Row = tuple[int, int, int]
rows_strategy = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(0, 4)), min_size=1, max_size=40
)


def log_of(rows: list[Row]) -> InteractionLog:
    """A log of (user, item, time) rows."""
    schema = ["user_id", "item_id", "timestamp"]
    return InteractionLog(pl.DataFrame(rows, schema=schema, orient="row"))


def histories_of(*lists: list[int]) -> Histories:
    """Histories of dense ids, out of items 1 to 9."""
    vocabulary = Vocabulary(pl.Series(range(1, 10)))
    return Histories.from_lists(vocabulary, [np.array(items, np.int32) for items in lists])


def lists_of(histories: Histories) -> list[list[int]]:
    return [histories.items_of(user).tolist() for user in range(histories.num_users)]


def test_histories_are_in_time_order_and_users_sorted() -> None:
    log = log_of([(8, 30, 5), (2, 10, 9), (8, 10, 3), (2, 20, 1)])
    histories = Histories.from_log(log)
    assert histories.user_ids.to_list() == [2, 8]
    assert histories.vocabulary.ids.to_list() == [10, 20, 30]
    assert histories.offsets.tolist() == [0, 2, 4]
    assert histories.item_ids.dtype == np.int32
    assert lists_of(histories) == [[2, 1], [1, 3]]
    assert histories.timestamps.tolist() == [1, 9, 3, 5]
    assert histories.weights is None
    assert (histories.num_users, histories.num_interactions) == (2, 4)
    assert histories.lengths.tolist() == [2, 2]
    assert histories.users.tolist() == [0, 0, 1, 1]


def test_ties_in_time_keep_the_logs_order() -> None:
    items = [5, 3, 9, 1, 7, 2, 8, 4, 6]
    log = log_of([(user, item, 0) for item in items for user in (2, 1)])
    assert lists_of(Histories.from_log(log)) == [items, items]


@settings(deadline=None)
@given(rows_strategy)
def test_every_history_is_a_stable_sort_of_the_users_rows(rows: list[Row]) -> None:
    histories = Histories.from_log(log_of(rows))
    users = sorted({user for user, _, _ in rows})
    assert histories.user_ids.to_list() == users
    for index, user in enumerate(users):
        own = sorted((row for row in rows if row[0] == user), key=lambda row: row[2])
        outside = histories.vocabulary.decode(histories.items_of(index))
        assert outside.to_list() == [item for _, item, _ in own]


def test_times_as_far_apart_as_they_can_be_are_in_order() -> None:
    far = 2**63 - 1
    rows = [(2, 1, far), (1, 2, 0), (2, 3, -far), (1, 4, -far), (1, 5, far), (2, 6, 0)]
    assert lists_of(Histories.from_log(log_of(rows))) == [[4, 2, 5], [3, 6, 1]]


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        (pl.Series([2, 1]), "int64"),
        (pl.Series([2.5, 1.0]), "float64"),
        (pl.Series(["2024-01-06", "2024-01-05"]).str.to_datetime(), "datetime64[us]"),
    ],
)
def test_times_keep_their_type_and_null_weights_become_nan(times: pl.Series, kind: str) -> None:
    columns = {"user_id": ["a", "a"], "item_id": [1, 2], "timestamp": times, "weight": [None, 4.5]}
    frame = pl.DataFrame(columns, schema_overrides={"weight": pl.Float64})
    histories = Histories.from_log(InteractionLog(frame))
    assert histories.timestamps.dtype == kind
    assert histories.timestamps.tolist() == times.sort().to_list()
    assert histories.weights is not None
    assert histories.weights.dtype == np.float32
    np.testing.assert_array_equal(histories.weights, [4.5, np.nan])


def test_items_outside_a_given_vocabulary_are_left_out_but_their_users_stay() -> None:
    log = log_of([(1, 10, 0), (1, 99, 1), (1, 20, 2), (2, 99, 0), (3, 20, 0)])
    histories = Histories.from_log(log, Vocabulary(pl.Series([20, 10])))
    assert histories.user_ids.to_list() == [1, 2, 3]
    assert lists_of(histories) == [[2, 1], [], [1]]


def test_lists_become_histories_whose_times_are_not_known() -> None:
    histories = histories_of([3, 1], [], [2])
    assert lists_of(histories) == [[3, 1], [], [2]]
    assert histories.user_ids.to_list() == [0, 1, 2]
    assert histories.timestamps is None
    assert histories.seconds is None
    assert histories.columns(2).timestamps is None
    assert histories_of().num_users == 0


def test_a_user_is_found_by_an_outside_id_compared_by_text() -> None:
    histories = Histories.from_log(log_of([(30, 1, 0), (7, 1, 0)]))
    assert histories.index_of(30) == histories.index_of("30") == 1
    assert histories.index_of(7) == 0
    assert histories.index_of("007") is None
    assert histories.index_of(8) is None
    assert histories.indices_of(pl.Series([30, 8])).tolist() == [1, -1]


def test_taking_users_keeps_the_order_asked_for() -> None:
    taken = histories_of([1, 2], [3], [], [4, 5, 6]).take(np.array([3, 0, 2]))
    assert taken.user_ids.to_list() == [3, 0, 2]
    assert lists_of(taken) == [[4, 5, 6], [1, 2], []]
    assert taken.timestamps is None


def test_histories_can_be_taken_up_to_an_interaction() -> None:
    taken = histories_of([1, 2], [3], [4, 5, 6]).take_until(np.array([0, 2]), np.array([0, 5]))
    assert lists_of(taken) == [[], [4, 5]]


def test_selecting_interactions_keeps_users_with_nothing_left() -> None:
    histories = histories_of([1, 2], [3], [4, 5, 6])
    kept = histories.select(np.array([False, True, False, True, False, True]))
    assert kept.user_ids.to_list() == [0, 1, 2]
    assert lists_of(kept) == [[2], [], [4, 6]]


def test_columns_hold_the_newest_items_from_the_left() -> None:
    histories = histories_of([1, 2, 3, 4], [5], [], [6, 7, 8])
    columns = histories.columns(3)
    assert columns.item_ids.dtype == np.int32
    assert columns.item_ids.tolist() == [[2, 3, 4], [5, 0, 0], [0, 0, 0], [6, 7, 8]]
    assert columns.lengths.tolist() == [3, 1, 0, 3]
    assert histories.columns(2, slice(1, 3)).item_ids.tolist() == [[5, 0], [0, 0]]
    assert histories.columns(2, np.array([3, 0])).item_ids.tolist() == [[7, 8], [3, 4]]


def test_columns_hold_the_times_as_seconds_since_2000_and_when_each_is_asked_about() -> None:
    # 2000-01-01 is 946,684,800 in Unix time.
    log = log_of([(1, 10, 946_684_900), (1, 20, 946_684_990), (2, 10, 946_685_000)])
    histories = Histories.from_log(log).asked(np.array([400, 500], np.int32))
    columns = histories.columns(2)
    assert columns.timestamps is not None
    assert columns.timestamps.tolist() == [[100, 190], [200, UNKNOWN_TIME]]
    assert columns.asked_at is not None
    assert columns.asked_at.tolist() == [400, 500]
    second = histories.take(np.array([1])).columns(2).asked_at
    assert second is not None
    assert second.tolist() == [500]


def test_times_that_are_an_order_are_no_column() -> None:
    assert Histories.from_log(log_of([(1, 10, 3), (1, 20, 4)])).columns(2).timestamps is None


def test_a_part_of_a_log_keeps_the_logs_unit() -> None:
    # Alone, the first user's times could be positions.
    log = log_of([(1, 10, 5), *((2, item, 10**9 + item) for item in range(5))])
    histories = Histories.from_log(log)
    assert histories.unit is TimeUnit.S
    assert histories.take(np.array([0])).unit is TimeUnit.S
    assert histories.select(np.arange(6) == 0).unit is TimeUnit.S


def test_a_column_that_histories_lack_is_refused() -> None:
    with pytest.raises(DataError, match="no column 'price'; they have item_ids, timestamps, weigh"):
        histories_of([1]).flat("price")


def test_a_window_of_no_items_is_refused() -> None:
    with pytest.raises(DataError, match="max_length must be at least 1, got 0"):
        histories_of([1]).columns(0)


def test_item_counts_have_a_place_for_every_item_and_none_for_padding() -> None:
    assert histories_of([1, 9], [9]).item_counts().tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 2]


@settings(deadline=None)
@given(rows_strategy, st.data())
def test_weights_and_times_move_with_their_items(rows: list[Row], data: st.DataObject) -> None:
    log = log_of(rows)
    weighted = InteractionLog(
        log.frame.with_columns(weight=pl.int_range(len(log)).cast(pl.Float64))
    )
    histories = Histories.from_log(weighted)
    is_kept = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    users = data.draw(st.permutations(range(histories.num_users)))
    for part in (histories.select(np.array(is_kept)), histories.take(np.array(users))):
        assert part.weights is not None
        for place, weight in enumerate(part.weights):
            user, item, time = rows[int(weight)]
            assert part.user_ids[int(part.users[place])] == user
            assert part.vocabulary.ids[int(part.item_ids[place]) - 1] == item
            assert part.timestamps[place] == time


def arrays(**changes: Any) -> dict[str, npt.NDArray[Any] | pl.Series | Vocabulary]:
    return {
        "vocabulary": Vocabulary(pl.Series([10, 20])),
        "user_ids": pl.Series(["a", "b"]),
        "offsets": np.array([0, 2, 3]),
        "item_ids": np.array([1, 2, 1], np.int32),
        "timestamps": np.array([5, 6, 1]),
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.array([0, 3])}, "do not fit"),
        ({"offsets": np.array([0, 2, 4])}, "do not fit"),
        ({"offsets": np.array([1, 2, 3])}, "do not fit"),
        ({"offsets": np.array([0, 4, 3])}, "do not fit"),
        ({"timestamps": np.array([5, 6])}, "do not fit"),
        ({"weights": np.array([5, 6], np.float32)}, "do not fit"),
        ({"item_ids": np.array([1, 0, 1], np.int32)}, "dense ids 0 to 1, but the vocabulary has"),
        ({"item_ids": np.array([1, 3, 1], np.int32)}, "dense ids 1 to 3, but the vocabulary has"),
        ({"timestamps": np.array([6, 5, 1])}, "history of user 'a' is not in time order"),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    Histories(**arrays())  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        Histories(**arrays(**changes))  # type: ignore[arg-type]


def test_empty_histories_at_both_ends_hide_no_disorder() -> None:
    ends = arrays(user_ids=pl.Series([0, 1, 2, 3]), offsets=np.array([0, 0, 2, 3, 3]))
    assert Histories(**ends).lengths.tolist() == [0, 2, 1, 0]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="user 1 is not in time order"):
        Histories(**{**ends, "timestamps": np.array([6, 5, 1])})  # type: ignore[arg-type]


@pytest.mark.skipif(not ML_1M.exists(), reason=f"MovieLens-1M is not at {ML_1M}")
def test_the_first_movielens_user_saw_what_the_reference_prints() -> None:
    histories = Histories.from_log(read_log(ML_1M / "interactions.parquet", time_col="position"))
    assert histories.num_users == 6_040
    assert histories.vocabulary.num_items == 3_416
    assert histories.num_interactions == 999_611
    titles = read_items(ML_1M / "items.parquet").aligned(histories.vocabulary)["title"]
    first = histories.index_of(1)
    assert first is not None
    seen = titles.gather(histories.items_of(first) - 1).to_list()
    assert len(seen) == 53
    assert seen[:4] == [
        "Girl, Interrupted (1999)",
        "Back to the Future (1985)",
        "Titanic (1997)",
        "Cinderella (1950)",
    ]
    assert seen[-2:] == ["Mulan (1998)", "Pocahontas (1995)"]
