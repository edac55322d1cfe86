from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segue.data.inspection import inspect_log
from segue.errors import DataError

DATA = Path("../shared/data")
MONDAY = 1_700_438_400


def plain(num_users: int = 30, length: int = 8) -> pl.DataFrame:
    """A log with nothing to advise: other items at other times for everybody."""
    rows = [
        (user, (7 * user + 3 * step) % 24, MONDAY + 977 * user + 40_009 * step)
        for user in range(num_users)
        for step in range(length)
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def advised(frame: pl.DataFrame, **options: Any) -> list[tuple[str, ...]]:
    return [each.options for each in inspect_log(frame, **options).advice]


def test_a_plain_log_wants_no_option_and_needs_no_remark() -> None:
    found = inspect_log(plain())
    assert found.description is not None
    assert found.description.interactions == found.rows == 240
    assert (found.problems, found.faults, found.advice, found.remarks) == ((), (), (), ())
    assert found.columns == {each: each for each in ("user_id", "item_id", "timestamp")}


def test_all_faults_are_listed_with_counts_and_examples_and_the_rest_is_described(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "user,sku,time,rating\nu,1,10,4\n,2,20,x\nv,,x,3\n\nu,3,y,y\nv,4,40,1\nu,5,50,\n"
    )
    found = inspect_log(path)
    assert (found.rows, found.problems) == (6, ())
    listed = {
        (each.column, each.what, each.rows, each.first_row, each.example) for each in found.faults
    }
    assert listed == {
        ("user_id", "is null", 1, 2, None),
        ("item_id", "is null", 1, 3, None),
        ("timestamp", "is not a number", 2, 3, "'x'"),
    }
    assert found.advice[0].options == ("--drop-bad-rows",)
    assert found.advice[0].why.startswith(
        "50.0% of the rows lack a usable user, item or time; better"
    )
    assert found.description is not None
    assert found.description.interactions == 3
    assert "skipped 1 blank lines" in found.notes
    assert any(note.startswith("weight is left out") for note in found.notes)
    assert "item_id is read from the column 'sku'" in found.notes


def test_lines_that_are_too_long_end_no_examination(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\nu,1,10\nu,2,20,x\n,3,30\n")
    found = inspect_log(path)
    assert [(each.column, each.rows, each.first_row) for each in found.faults] == [
        ("a line", 1, 2),
        ("user_id", 1, 3),
    ]
    assert found.description is not None
    assert found.description.interactions == 1


def test_every_problem_with_the_columns_is_listed_with_the_faults_of_the_others() -> None:
    frame = pl.DataFrame({"user": [1, None], "uid": [1, 2], "item_id": ["a", None], "when": [1, 2]})
    found = inspect_log(frame)
    users, times = found.problems
    assert "'user', 'uid' could each be user_id" in users
    assert "no column for timestamp" in times
    assert [(each.column, each.rows) for each in found.faults] == [("item_id", 1)]
    assert (found.description, found.advice, found.rows) == (None, (), 2)
    assert found.columns == {"item_id": "item_id"}
    usable = inspect_log(frame, user_col="uid", time_col="when")
    assert usable.problems == ()
    assert usable.description is not None
    assert usable.description.interactions == 1


@pytest.mark.parametrize(
    ("columns", "options", "problem"),
    [
        ({"user_id": [[1]]}, {}, "user_id is of type List"),
        ({"timestamp": [None]}, {}, "no row is left without them"),
        ({}, {"user_col": "who"}, "no column 'who' for user_id"),
        ({}, {"user_col": "item_id"}, "no column for item_id"),
        ({}, {"min_weight": 3}, "has no weight to compare with min_weight=3"),
        ({"weight": [1]}, {"min_weight": 3}, "min_weight=3 leaves nothing"),
        ({"event": ["view"]}, {"events": ["buy"]}, "no event is 'buy'"),
    ],
)
def test_what_makes_a_log_unusable_is_listed(
    columns: dict[str, list[Any]], options: dict[str, Any], problem: str
) -> None:
    frame = pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": [3], **columns})
    found = inspect_log(frame, **options)
    assert any(problem in each for each in found.problems)
    assert found.description is None


def test_an_empty_log_is_a_problem() -> None:
    (problem,) = inspect_log(plain().clear()).problems
    assert "holds no interactions" in problem


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        inspect_log(tmp_path / "log.csv")


WORDS = st.sampled_from(
    ["1", "-3", "4.5", "x", "é", "", '"a,b"', '"', "nan", "2024-01-05", "1511544070", "9" * 20]
)
NAMES = st.sampled_from(["user", "user_id", "item", "time", "rating", "score", "event", "x", "1"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NAMES, min_size=1, max_size=5), st.lists(st.lists(WORDS, max_size=6), max_size=6))
def test_no_text_ends_an_examination_but_in_one_line(
    tmp_path: Path, header: list[str], rows: list[list[str]]
) -> None:
    path = tmp_path / "log.csv"
    path.write_text("\n".join(",".join(row) for row in [header, *rows]))
    try:
        listed = inspect_log(path).problems
    except DataError as error:
        listed = (str(error),)
    assert not any("\n" in each for each in listed)


def doubled(frame: pl.DataFrame) -> pl.DataFrame:
    """Every interaction again, a second later."""
    return pl.concat([frame, frame.with_columns(pl.col("timestamp") + 1)])


@pytest.mark.parametrize(
    ("frame", "options"),
    [
        (
            plain().with_columns(user_id=pl.when(pl.int_range(240) > 3).then("user_id")),
            "--drop-bad-rows",
        ),
        (pl.concat([plain(), plain().head(1)]), "--drop-duplicates"),
        (doubled(plain()), "--join-repeats"),
        (plain().with_columns(item_id=pl.col("item_id") % 5), "--repeats"),
        (
            plain().with_columns(timestamp=pl.col("timestamp") // 100_000 * 100_000),
            "--split last-basket",
        ),
        (
            plain()
            .with_columns(timestamp=pl.col("timestamp") // 100_000 * 100_000)
            .sort("item_id"),
            "--ties shuffle",
        ),
        (
            plain().with_columns(event=pl.Series(["buy", "view", "Returned", "refund"] * 60)),
            "--events buy,view",
        ),
    ],
)
def test_an_option_is_advised_where_the_log_wants_it(frame: pl.DataFrame, options: str) -> None:
    assert tuple(options.split()) in advised(frame)


def test_kinds_of_events_are_counted_and_those_asked_for_described() -> None:
    frame = plain().with_columns(action=pl.Series(["view", "view", "buy"] * 80))
    found = inspect_log(frame)
    assert dict(found.events) == {"view": 160, "buy": 80}
    assert advised(frame) == []
    chosen = inspect_log(frame, events=["buy"])
    assert chosen.description is not None
    assert chosen.description.interactions == 80


@pytest.mark.parametrize(
    ("frame", "remark"),
    [
        (
            plain().with_columns(timestamp=pl.col("timestamp") - MONDAY),
            "are an order and no moments",
        ),
        (plain().with_columns(item_id=pl.int_range(240)), "100% of the items were seen once"),
        (plain(num_users=30, length=2), "100% of the users have fewer than 3"),
        (
            plain().with_columns(
                timestamp=pl.when(pl.int_range(240) == 7).then(0).otherwise("timestamp")
            ),
            "1 of the interactions lie far outside the bulk",
        ),
    ],
)
def test_what_is_to_be_looked_at_is_remarked(frame: pl.DataFrame, remark: str) -> None:
    assert any(remark in each for each in inspect_log(frame).remarks)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (
            "online-retail",
            ["--drop-bad-rows", "--events", "--drop-duplicates", "--repeats", "--split"],
        ),
        ("complete-journey", ["--ties", "--repeats", "--split"]),
        ("taobao-sample", ["--repeats"]),
        ("amazon-beauty", ["--split"]),
    ],
)
def test_real_logs_want_what_they_want(name: str, options: list[str]) -> None:
    path = DATA / name / "interactions.parquet"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    found = inspect_log(path)
    assert [each.options[0] for each in found.advice] == options
    assert found.problems == ()
