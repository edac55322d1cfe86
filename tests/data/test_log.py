import datetime as dt
from collections import Counter
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.log import InteractionLog, read_log
from segue.errors import DataError

ML_1M = Path("../shared/data/ml-1m")
needs_ml_1m = pytest.mark.skipif(not ML_1M.exists(), reason=f"MovieLens-1M is not at {ML_1M}")
ONLINE_RETAIL = Path("../shared/data/online-retail")
needs_online_retail = pytest.mark.skipif(
    not ONLINE_RETAIL.exists(), reason=f"the gift shop's log is not at {ONLINE_RETAIL}"
)

Pair = tuple[int, int]


def log_of(pairs: list[Pair]) -> InteractionLog:
    """A log of (user, item) pairs, the times counting up."""
    frame = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    return InteractionLog(frame.with_columns(timestamp=pl.int_range(len(pairs))))


def pairs_of(log: InteractionLog) -> list[tuple[object, ...]]:
    return log.frame.select("user_id", "item_id").rows()


def test_a_csv_log_is_read_with_its_types_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("userId,movieId,rating,timestamp\n7,B1,4.5,1000\n7,B2,,900\n")
    log = read_log(path)
    assert log.frame.schema == {
        "user_id": pl.Int64,
        "item_id": pl.String,
        "timestamp": pl.Int64,
        "weight": pl.Float64,
    }
    assert log.frame.rows() == [(7, "B1", 1000, 4.5), (7, "B2", 900, None)]
    assert len(log) == 2
    assert log.notes[0].startswith(f"read 2 interactions from {path}")
    assert log.notes[1:] == (
        "user_id is read from the column 'userId'",
        "item_id is read from the column 'movieId'",
        "weight is read from the column 'rating'",
    )


def test_a_log_needs_no_weight_and_ignores_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text("item_id\tcolour\tuser_id\ttimestamp\na\tred\t1\t2024-01-05\n")
    log = read_log(path)
    assert log.frame.columns == ["user_id", "item_id", "timestamp"]
    assert log.frame.rows() == [(1, "a", dt.datetime(2024, 1, 5))]


def test_movielens_dat_and_data_files_are_ratings(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n")
    (tmp_path / "u.data").write_text("1\t1193\t5\t978300760\n1\t661\t3\t978302109\n")
    for name in ("ratings.dat", "u.data"):
        log = read_log(tmp_path / name)
        assert log.frame.rows() == [(1, 1193, 978300760, 5.0), (1, 661, 978302109, 3.0)]


def test_a_recbole_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ml-100k.inter"
    path.write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n"
    )
    assert read_log(path).frame.rows() == [(196, 242, 881250949, 3.0)]


def test_the_same_log_comes_from_polars_and_pandas() -> None:
    columns = {"user_id": ["a", "b"], "item_id": [1, 2], "timestamp": [0.5, 1.5]}
    polars, lazy = pl.DataFrame(columns), pl.LazyFrame(columns)
    assert read_log(polars).frame.equals(polars)
    assert read_log(lazy).frame.equals(polars)
    assert read_log(pd.DataFrame(columns)).frame.equals(polars)


def test_pandas_datetimes_categories_and_missing_weights_are_understood() -> None:
    frame = pd.DataFrame(
        {
            "user": pd.Categorical(["a", "b"]),
            "item": [1.0, 2.0],
            "date": pd.to_datetime(["2024-01-05", "2024-01-06"]).tz_localize("UTC"),
            "rating": [4.0, float("nan")],
        }
    )
    assert read_log(frame).frame.rows() == [
        ("a", 1, dt.datetime(2024, 1, 5), 4.0),
        ("b", 2, dt.datetime(2024, 1, 6), None),
    ]


def test_min_weight_drops_and_counts_lower_and_missing_weights() -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1, 2, 3, 4],
            "item_id": [1, 2, 3, 4],
            "timestamp": [1, 2, 3, 4],
            "weight": [2.0, None, 1.9, 3.0],
        }
    )
    log = read_log(frame, min_weight=2)
    assert log.frame["user_id"].to_list() == [1, 4]
    assert log.notes[-1] == (
        "dropped 1 of 4 interactions with a weight below 2 and 1 without a weight"
    )
    assert len(read_log(frame)) == 4


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"min_weight": 2}, r"has no weight to compare with min_weight=2; .*--weight-col"),
        ({"weight": [1.0]}, {"min_weight": float("nan")}, "min_weight=nan is no threshold"),
        ({"rating": [1.0], "score": [1.0]}, {"min_weight": 2}, "'rating', 'score' could each be"),
        ({"rating": ["4,5"]}, {"min_weight": 2}, "weight is not a number in 1 of 1 rows"),
        ({"weight": [1.0]}, {"min_weight": 2}, "leaves nothing of 1 interactions: 1 have less"),
        ({"weight": [None]}, {"min_weight": 2}, "leaves nothing of 1 interactions"),
        (
            {"weight": [float("nan")]},
            {"weight_col": "weight"},
            "weight is NaN or infinite in 1 of 1 rows",
        ),
        (
            {"weight": [float("-inf")]},
            {"weight_col": "weight"},
            "weight is NaN or infinite in 1 of 1 rows",
        ),
        ({"weight": [-1e300]}, {"weight_col": "weight"}, r"beyond ±3.4e\+38 in 1 of 1 rows"),
        ({"weight": ["1e39"]}, {"min_weight": 1}, r"weight is beyond ±3.4e\+38"),
        (
            {"weight": ["high"]},
            {"weight_col": "weight"},
            "weight is not a number in 1 of 1 rows, first 'high' in row 1",
        ),
        ({"weight": ["nan"]}, {"weight_col": "weight"}, "weight is NaN or infinite"),
        (
            {"weight": [True]},
            {"weight_col": "weight"},
            "weight is of type Boolean; weights are numbers",
        ),
        ({"user_id": [None]}, {}, "user_id is null in 1 of 1 rows"),
        ({"item_id": [float("inf")]}, {}, "item_id is NaN or infinite in 1 of 1 rows"),
        ({"timestamp": [float("nan")]}, {}, "timestamp is NaN or infinite in 1 of 1 rows"),
        ({"uid": [1]}, {"user_col": "usr"}, "no column 'usr' for user_id; its columns are"),
    ],
)
def test_a_bad_log_is_refused_in_one_line(
    columns: dict[str, list[object]], options: dict[str, object], message: str
) -> None:
    frame = pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [1], **columns})
    with pytest.raises(DataError, match=message) as error:
        read_log(frame, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"rating": ["N/A", "4"]}, "weight is not a number in 1 of 2 rows, first 'N/A' in row 1"),
        ({"rating": ["4,5", "4"]}, "first '4,5' in row 1"),
        ({"rating": ["nan", "4"]}, "weight is NaN or infinite in 1 of 2 rows"),
        ({"weight": [True, False]}, "weight is of type Boolean"),
        ({"rating": [1, 2], "score": [1, 2]}, "'rating', 'score' could each be weight: name one"),
    ],
)
def test_weights_that_nobody_asked_for_are_left_out_where_they_are_not_clean(
    columns: dict[str, list[object]], fault: str
) -> None:
    log = read_log(pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "time": [1, 2], **columns}))
    assert log.frame.columns == ["user_id", "item_id", "timestamp"]
    assert set(log.columns) == {"user_id", "item_id", "timestamp"}
    assert log.notes[-1].startswith("weight is left out")
    assert fault in log.notes[-1]
    assert not any("weight is read from" in note for note in log.notes)


EVENTS = pl.DataFrame(
    {
        "user_id": [1, 1, 1, 1, 2],
        "item_id": [7, 7, 7, 8, 9],
        "timestamp": [1, 2, 3, 4, 5],
        "behavior": ["view", "view", "cart", "buy", None],
    }
)


def test_events_of_all_kinds_are_kept_and_counted_in_a_note() -> None:
    log = read_log(EVENTS)
    assert log.frame.columns == ["user_id", "item_id", "timestamp"]
    assert len(log) == 5
    (note,) = [note for note in log.notes if "kinds" in note]
    assert "behavior: view 2, " in note
    assert "none 1" in note
    assert "--events view," in note


def test_events_of_one_kind_have_no_note() -> None:
    for kind in ("view", None):
        log = read_log(EVENTS.with_columns(behavior=pl.lit(kind, pl.String)))
        assert not any("kinds" in note for note in log.notes)


@pytest.mark.parametrize(
    ("frame", "options"),
    [
        (EVENTS, {}),
        (EVENTS.rename({"behavior": "what"}), {"event_col": "what"}),
        (EVENTS.with_columns(pl.col("behavior").cast(pl.Categorical)), {}),
    ],
)
def test_events_of_some_kinds_are_kept_and_the_others_counted(
    frame: pl.DataFrame, options: dict[str, str]
) -> None:
    log = read_log(frame, events=["buy", "cart"], **options)  # type: ignore[arg-type]
    assert log.frame["item_id"].to_list() == [7, 8]
    (note,) = [note for note in log.notes if "events" in note]
    assert note.startswith("dropped 3 of 5 events that are not buy, cart")


@pytest.mark.parametrize(
    ("frame", "events", "message"),
    [
        (EVENTS, ["purchase", "buy"], "no event is 'purchase'; the column 'behavior' has view 2"),
        (EVENTS, [], "no event is asked for; the column 'behavior' has view 2"),
        (
            EVENTS.drop("behavior"),
            ["buy"],
            "has no event to compare with events buy; .*--event-col",
        ),
        (
            EVENTS.with_columns(action=pl.lit("x")),
            ["buy"],
            "'behavior', 'action' could each be event: name one with --event-col",
        ),
        (EVENTS.with_columns(behavior=[["x"]] * 5), ["buy"], "event is of type List"),
        (EVENTS.with_columns(behavior=dt.timedelta(1)), ["buy"], "event is of type Duration"),
    ],
)
def test_kinds_of_events_that_are_not_there_are_refused(
    frame: pl.DataFrame, events: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_log(frame, events=events)


def test_a_column_that_is_no_kind_of_event_costs_nothing() -> None:
    assert len(read_log(EVENTS.with_columns(behavior=[["x"]] * 5))) == 5
    assert len(read_log(EVENTS.with_columns(action=pl.lit("x")))) == 5


@pytest.mark.parametrize(
    "ids",
    [
        pl.Series([12297829382473034410, 7], dtype=pl.UInt64),
        pl.Series(["12297829382473034410", "7"]),
        pl.Series(["12297829382473034410", "7"]).cast(pl.Decimal(38, 0)),
    ],
)
def test_integers_beyond_64_bits_are_text_with_a_note(ids: pl.Series) -> None:
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": ids, "timestamp": [1, 2]})
    log = read_log(frame)
    assert log.frame["item_id"].to_list() == ["12297829382473034410", "7"]
    noted = [note for note in log.notes if "beyond 64 bits" in note]
    assert noted == ["item_id is text, as some of its integers are beyond 64 bits with a sign"]


@pytest.mark.parametrize("ids", [["7", "8"], ["12297829382473034410", "a"], ["a", "b"], [7, 8]])
def test_other_ids_have_no_note(ids: list[object]) -> None:
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": ids, "timestamp": [1, 2]})
    assert not any("64 bits" in note for note in read_log(frame).notes)


BROKEN = """user_id,item_id,timestamp,weight
u,1,10,4
,2,20,x
v,,x,3
u,3,y,y
v,4,40,inf
u,5,50,
"""


def test_every_kind_of_bad_row_is_listed_at_once_with_the_flag_that_drops_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(BROKEN)
    with pytest.raises(DataError) as error:
        read_log(path, weight_col="weight")
    message = str(error.value)
    assert "\n" not in message
    for fault in (
        "user_id is null in 1 of 6 rows, first in row 2",
        "item_id is null in 1 of 6 rows, first in row 3",
        "timestamp is not a number in 2 of 6 rows, first 'x' in row 3",
        "weight is not a number in 2 of 6 rows, first 'x' in row 2",
        "weight is NaN or infinite in 1 of 6 rows, first 'inf' in row 5",
        "--drop-bad-rows (drop_bad_rows=True in Python)",
    ):
        assert message.count(fault) == 1


def test_bad_rows_are_dropped_and_counted_by_kind_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(BROKEN)
    log = read_log(path, weight_col="weight", drop_bad_rows=True)
    assert log.frame.rows() == [("u", 1, 10, 4.0), ("u", 5, 50, None)]
    (note,) = [note for note in log.notes if note.startswith("dropped")]
    assert note.startswith("dropped 4 of 6 rows: user_id is null in 1 of 6 rows")
    assert "weight is not a number in 2 of 6 rows" in note
    assert note in log.summary().splitlines()
    # The weights that nobody asked for cost no row.
    assert len(read_log(path, drop_bad_rows=True)) == 3


@pytest.mark.parametrize(
    ("times", "fault", "kept"),
    [
        (["n/a", "10", "20"], "is not a number in 1 of 3 rows, first 'n/a' in row 1", [10, 20]),
        (
            ["0", "2024-01-05", "2024-01-06", "?"],
            "is a number among other times in 1 of 4 rows, first '0' in row 1",
            [dt.datetime(2024, 1, 5), dt.datetime(2024, 1, 6)],
        ),
    ],
)
def test_most_of_the_times_decide_what_they_are_and_not_the_first(
    times: list[str], fault: str, kept: list[object]
) -> None:
    columns = {"user_id": [1] * len(times), "item_id": [1] * len(times), "timestamp": times}
    with pytest.raises(DataError, match=fault):
        read_log(pl.DataFrame(columns))
    log = read_log(pl.DataFrame(columns), drop_bad_rows=True)
    assert log.frame["timestamp"].to_list() == kept


def test_times_that_are_neither_numbers_nor_dates_are_refused_as_such() -> None:
    frame = pl.DataFrame({"user_id": [1] * 3, "item_id": [1] * 3, "timestamp": ["soon", "?", "5"]})
    with pytest.raises(DataError, match=r"is a number among other times in 1 of 3 .* is neither"):
        read_log(frame)


def test_dropping_all_rows_is_refused() -> None:
    frame = pl.DataFrame({"user_id": [None, 1], "item_id": [1, None], "timestamp": [1, 2]})
    with pytest.raises(DataError, match=r"user_id is null in 1 of 2 .* no row is left"):
        read_log(frame, drop_bad_rows=True)


@pytest.mark.parametrize("name", ["log.csv", "log.dat", "log.parquet"])
def test_an_empty_log_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    empty = pl.DataFrame(schema={"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64})
    if name == "log.csv":
        empty.write_csv(path)
    elif name == "log.parquet":
        empty.write_parquet(path)
    else:
        path.touch()
    with pytest.raises(DataError, match=r"holds no interactions; give a log that has some"):
        read_log(path)


def test_a_log_made_by_hand_is_checked_too() -> None:
    frame = pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [1]})
    assert len(InteractionLog(frame)) == 1
    with pytest.raises(DataError, match="make one with read_log"):
        InteractionLog(frame.cast(pl.Int32))
    with pytest.raises(DataError, match="make one with read_log"):
        InteractionLog(frame.select("item_id", "user_id", "timestamp"))
    with pytest.raises(DataError, match="without interactions"):
        InteractionLog(frame.clear())


def test_of_duplicates_the_first_stays_and_the_order_is_kept() -> None:
    frame = pl.DataFrame(
        {
            "user_id": [2, 1, 2, 2, 2],
            "item_id": [5, 5, 5, 6, 5],
            "timestamp": [9, 9, 9, 9, 8],
            "weight": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )
    log = InteractionLog(frame, ("read",)).without_duplicates()
    assert log.frame["weight"].to_list() == [1.0, 2.0, 4.0, 5.0]
    assert log.notes == (
        "read",
        "dropped 1 of 5 interactions as duplicates: the same user, item and timestamp",
    )


def test_a_k_core_is_iterated_until_everybody_has_k() -> None:
    # Item 9 goes first; then user 3 has one interaction, then item 8 has one, then user 4 none.
    core = [(1, 1), (1, 2), (2, 1), (2, 2)]
    chain = [(3, 9), (3, 8), (4, 8), (4, 1)]
    log = log_of(core[:2] + chain + core[2:]).k_core(2)
    assert pairs_of(log) == core
    assert log.notes[-1] == (
        "dropped 4 of 8 interactions of users and items with fewer than 2, repeatedly"
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1), st.integers(1, 4))
def test_a_k_core_is_what_removing_rows_one_by_one_leaves(pairs: list[Pair], k: int) -> None:
    left = list(pairs)
    while True:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        lonely = next((p for p in left if users[p[0]] < k or items[p[1]] < k), None)
        if lonely is None:
            break
        left.remove(lonely)
    if left:
        assert Counter(pairs_of(log_of(pairs).k_core(k))) == Counter(left)
    else:
        with pytest.raises(
            DataError, match=f"a core of {k} leaves nothing of {len(pairs)} interactions"
        ):
            log_of(pairs).k_core(k)


def test_users_with_short_histories_leave() -> None:
    log = log_of([(1, 1), (2, 1), (1, 2), (3, 3), (3, 4), (3, 5)]).min_history(2)
    assert pairs_of(log) == [(1, 1), (1, 2), (3, 3), (3, 4), (3, 5)]
    assert log.notes[-1] == "dropped 1 of 6 interactions of users with fewer than 2"


def test_if_every_user_is_too_short_the_longest_history_is_told() -> None:
    with pytest.raises(DataError, match=r"every user has fewer than 5 .* 1 to 2: ask for at most"):
        log_of([(1, 1), (1, 2), (2, 1)]).min_history(5)


@pytest.mark.parametrize("number", [0, -1])
def test_thresholds_below_one_are_refused(number: int) -> None:
    log = log_of([(1, 1)])
    with pytest.raises(DataError, match=f"k={number} asks for nothing; give at least 1"):
        log.k_core(number)
    with pytest.raises(DataError, match=f"n={number} asks for nothing; give at least 1"):
        log.min_history(number)


def test_the_summary_says_what_the_log_is_and_what_was_done_to_it() -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 2],
            "item_id": ["a", "b", "a", "a"],
            "timestamp": [5, 3, 4, 9],
            "weight": [1.0, None, 4.5, 2.0],
        }
    )
    assert InteractionLog(frame, ("a note",)).summary().splitlines() == [
        "4 interactions of 2 users with 2 items",
        "history length 1 to 3, median 2.0",
        "timestamp 3 to 9",
        "weight 1.0 to 4.5, null in 1 rows",
        "a note",
    ]


@needs_ml_1m
def test_movielens_is_read_by_position_and_refused_by_its_missing_times() -> None:
    path = ML_1M / "interactions.parquet"
    log = read_log(path, time_col="position")
    assert len(log) == 999_611
    assert log.frame["user_id"].n_unique() == 6_040
    assert log.frame["item_id"].n_unique() == 3_416
    assert log.frame["weight"].null_count() == 336_868
    with pytest.raises(DataError, match=r"timestamp is null in 336,868 of 999,611 .*--time-col"):
        read_log(path)


@needs_ml_1m
def test_movielens_with_min_weight_loses_the_rows_without_a_rating() -> None:
    log = read_log(ML_1M / "interactions.parquet", time_col="position", min_weight=1)
    assert len(log) == 999_611 - 336_868
    assert "336,868 without a weight" in log.notes[-1]


@needs_online_retail
def test_the_gift_shops_rows_without_a_user_are_dropped_and_counted() -> None:
    path = ONLINE_RETAIL / "interactions.parquet"
    with pytest.raises(DataError, match=r"user_id is null in 135,080 of 541,909 .*--drop-bad-rows"):
        read_log(path)
    log = read_log(path, drop_bad_rows=True)
    assert len(log) == 541_909 - 135_080
    assert any("dropped 135,080 of 541,909 rows" in note for note in log.notes)
