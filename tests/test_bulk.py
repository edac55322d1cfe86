import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from segue import bulk
from segue.bulk import BulkSummary, recommend_file
from segue.data.histories import Histories
from segue.data.log import read_log
from segue.data.synthetic import popularity_log
from segue.errors import DataError, OutputError, RequestError
from segue.recommender import Recommender


@pytest.fixture
def log(recommender: Recommender) -> pl.DataFrame:
    """1,000 interactions of up to 150 users, rows in no order, a tenth with items unknown."""
    return popularity_log(1_000, 150, recommender.vocabulary.num_items + 3, seed=3).frame


def save(log: pl.DataFrame, directory: Path) -> Path:
    path = directory / "log.parquet"
    log.write_parquet(path)
    return path


def at_once(recommender: Recommender, log: pl.DataFrame, k: int) -> pl.DataFrame:
    """The recommendations for a whole log in memory, users in order."""
    histories = Histories.from_log(read_log(log), recommender.vocabulary)
    answers = recommender.recommend_histories(histories, k)
    return answers.select("user_id", "item_id", "score", "rank", "strategy")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """About seven parts, and about nine users in an answer of three items each."""
    monkeypatch.setattr(bulk, "INTERACTIONS_AT_ONCE", 150)
    monkeypatch.setattr(bulk, "ANSWERS_AT_ONCE", 28)


@pytest.mark.usefixtures("small_parts")
def test_parts_give_what_the_whole_log_gives_at_once(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    expected = at_once(recommender, log, 3)
    summary = recommend_file(recommender, save(log, tmp_path), tmp_path / "out.parquet", 3)
    answers = pl.read_parquet(tmp_path / "out.parquet")
    assert answers.schema == expected.schema
    in_order = answers.sort("user_id", "rank")
    assert_frame_equal(in_order, expected, abs_tol=1e-5)
    is_unknown = log["item_id"] > recommender.vocabulary.num_items
    assert summary == BulkSummary(
        users=log["user_id"].n_unique(),
        rows=len(expected),
        unknown_items=is_unknown.sum(),
        popular_users=expected.filter(strategy="popular")["user_id"].n_unique(),
    )


@pytest.mark.usefixtures("small_parts")
def test_the_rows_of_a_user_stand_together_with_the_best_first(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    recommend_file(recommender, save(log, tmp_path), tmp_path / "out.parquet", 3)
    answers = pl.read_parquet(tmp_path / "out.parquet")
    assert answers["user_id"].rle_id().max() == log["user_id"].n_unique() - 1
    assert answers["rank"].to_list() == [1, 2, 3] * log["user_id"].n_unique()


@pytest.mark.usefixtures("small_parts")
def test_ties_in_time_keep_the_logs_order_in_every_part(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    tied = log.with_columns(timestamp=pl.lit(5))
    recommend_file(recommender, save(tied, tmp_path), tmp_path / "out.parquet", 3)
    answers = pl.read_parquet(tmp_path / "out.parquet").sort("user_id", "rank")
    assert_frame_equal(answers, at_once(recommender, tied, 3), abs_tol=1e-5)


@pytest.mark.usefixtures("small_parts")
def test_the_log_is_never_held_whole(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def watched(rows: Any) -> Any:
        held.append(len(rows))
        return read_log(rows)

    monkeypatch.setattr(bulk, "read_log", watched)
    recommend_file(recommender, save(log, tmp_path), tmp_path / "out.parquet", 3)
    assert sum(held) == len(log)
    assert len(held) >= 6
    assert max(held) < 300


@pytest.mark.usefixtures("small_parts")
def test_progress_is_told_by_rows(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    told: list[int] = []
    source, target = save(log, tmp_path), tmp_path / "out.parquet"
    summary = recommend_file(recommender, source, target, 3, on_progress=told.append)
    assert told == sorted(told)
    assert told[0] <= 28
    assert told[-1] == summary.rows


def test_a_directory_of_parquet_is_one_log_with_the_usual_aliases(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "log" / "deep").mkdir(parents=True)
    renamed = log.rename({"user_id": "userId", "item_id": "movieId"})
    renamed[:400].write_parquet(tmp_path / "log" / "a.parquet")
    late = renamed[400:].with_columns(pl.col("movieId").cast(pl.Int16), channel=pl.lit("app"))
    late.write_parquet(tmp_path / "log" / "deep" / "b.parquet")
    (tmp_path / "log" / "._b.parquet").write_bytes(b"Mac OS X")
    recommend_file(recommender, tmp_path / "log", tmp_path / "out.parquet", 3)
    answers = pl.read_parquet(tmp_path / "out.parquet")
    assert_frame_equal(answers, at_once(recommender, log, 3), abs_tol=1e-5)


def test_users_whose_items_are_all_unknown_get_the_popular_ones(
    recommender: Recommender, tmp_path: Path
) -> None:
    log = pl.DataFrame({"user_id": ["a", "b"], "item_id": [999, 1], "timestamp": [1, 1]})
    summary = recommend_file(recommender, save(log, tmp_path), tmp_path / "out.parquet", 2)
    answers = pl.read_parquet(tmp_path / "out.parquet")
    assert answers["strategy"].to_list() == ["popular", "popular", "model", "model"]
    counts = recommender.run.item_counts
    best = sorted(range(1, len(counts)), key=lambda item: (-counts[item], item))[:2]
    assert answers["item_id"].to_list()[:2] == best
    assert (summary.unknown_items, summary.popular_users) == (1, 1)


def test_users_who_have_seen_everything_get_no_rows(
    recommender: Recommender, tmp_path: Path
) -> None:
    items = np.arange(1, recommender.vocabulary.num_items + 1)
    log = pl.DataFrame({"user_id": 1, "item_id": items, "timestamp": items})
    summary = recommend_file(recommender, save(log, tmp_path), tmp_path / "out.parquet", 2)
    assert summary == BulkSummary(users=1, rows=0, unknown_items=0, popular_users=0)
    answers = pl.read_parquet(tmp_path / "out.parquet")
    assert answers.is_empty()
    assert answers.columns == ["user_id", "item_id", "score", "rank", "strategy"]


def test_an_output_that_exists_is_kept_unless_forced(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    source, target = save(log, tmp_path), tmp_path / "out.parquet"
    target.write_text("old")
    with pytest.raises(OutputError, match="--force"):
        recommend_file(recommender, source, target)
    assert target.read_text() == "old"
    recommend_file(recommender, source, target, 1, force=True)
    assert len(pl.read_parquet(target)) == log["user_id"].n_unique()


def test_a_directory_is_never_replaced(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="is a directory"):
        recommend_file(recommender, save(log, tmp_path), tmp_path, force=True)


def test_two_processes_do_not_write_one_file_and_what_a_killed_one_left_is_deleted(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path, other_writer: Any
) -> None:
    source, target = save(log, tmp_path), tmp_path / "answers" / "out.parquet"
    target.parent.mkdir()
    with other_writer(target, leaves_directory=True) as process:
        with pytest.raises(OutputError, match=f"is being written by process {process.pid} on"):
            recommend_file(recommender, source, target)
        assert not target.exists()
    recommend_file(recommender, source, target)
    assert os.listdir(target.parent) == ["out.parquet"]


def test_missing_directories_are_made(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    recommend_file(recommender, save(log, tmp_path), tmp_path / "a" / "b" / "out.parquet", 1)
    assert (tmp_path / "a" / "b" / "out.parquet").is_file()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_the_file_and_the_directories_made_for_it_are_on_the_disk(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path, not_on_disk: set[Path]
) -> None:
    recommend_file(recommender, save(log, tmp_path), tmp_path / "new" / "dir" / "out.parquet")
    # What the scratch directory was made in holds the file too, whose renaming is synced.
    assert not_on_disk == set()


def test_a_place_under_a_file_is_refused(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    source = save(log, tmp_path)
    with pytest.raises(OutputError, match="cannot write"):
        recommend_file(recommender, source, source / "out.parquet")


@pytest.mark.parametrize("k", [0, -1, 501])
def test_a_bad_k_is_refused(k: int, recommender: Recommender, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"k must be at .*, got {k}"):
        recommend_file(recommender, tmp_path / "missing.parquet", tmp_path / "out.parquet", k)


def test_a_log_that_is_missing_is_refused(recommender: Recommender, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        recommend_file(recommender, tmp_path / "missing.parquet", tmp_path / "out.parquet")


def test_a_log_that_is_no_parquet_is_refused(recommender: Recommender, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n1,1,1\n")
    with pytest.raises(DataError, match="is no Parquet"):
        recommend_file(recommender, tmp_path / "log.csv", tmp_path / "out.parquet")


def test_a_log_without_rows_is_refused(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no interactions"):
        recommend_file(recommender, save(log.clear(), tmp_path), tmp_path / "out.parquet")


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("column", ["user_id", "timestamp"])
def test_a_null_anywhere_is_refused_and_nothing_is_left_behind(
    column: str, recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    is_last = pl.int_range(pl.len()) == pl.len() - 1
    spoilt = log.with_columns(pl.when(~is_last).then(column).alias(column))
    source = save(spoilt, tmp_path)
    with pytest.raises(DataError, match=rf"users' part \d of 7: .*{column} is null in 1 "):
        recommend_file(recommender, source, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == [source]


def test_a_damaged_log_is_refused(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    source = save(log, tmp_path)
    content = bytearray(source.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    source.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        recommend_file(recommender, source, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("owner", "failing"),
    [(pl.DataFrame, "write_parquet"), (pl.LazyFrame, "sink_parquet"), (os, "replace")],
)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    owner: Any,
    failing: str,
    recommender: Recommender,
    log: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Polars tells of a full disk in words alone.
    error: Exception = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if owner is not os:
        error = pl.exceptions.ComputeError(f"parquet: {os.strerror(errno.ENOSPC)}")

    def full(*arguments: Any, **options: Any) -> None:
        raise error

    source, target = save(log, tmp_path), tmp_path / "out.parquet"
    target.write_text("old")
    monkeypatch.setattr(owner, failing, full)
    with pytest.raises(OutputError, match="No space left on device"):
        recommend_file(recommender, source, target, force=True)
    assert target.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [source, target]


def test_ctrl_c_leaves_nothing_behind(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    source = save(log, tmp_path)
    monkeypatch.setattr(Recommender, "recommend_histories", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recommend_file(recommender, source, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == [source]


def test_the_log_is_never_replaced_by_its_recommendations(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    path = save(log, tmp_path)
    before = path.read_bytes()
    for source, target in ((path, path), (tmp_path, tmp_path / "out.parquet")):
        with pytest.raises(OutputError, match="is in the place of the log"):
            recommend_file(recommender, source, target, 3, force=True)
    assert path.read_bytes() == before


def test_another_ending_than_parquets_is_refused(
    recommender: Recommender, log: pl.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"out\.csv: recommendations are written as Parquet"):
        recommend_file(recommender, save(log, tmp_path), tmp_path / "out.csv", 3)


def test_rows_without_a_user_are_refused_without_an_option_that_is_not_there(
    recommender: Recommender, tmp_path: Path
) -> None:
    log = pl.DataFrame({"user_id": ["a", None], "item_id": [1, 1], "timestamp": [1, 1]})
    with pytest.raises(DataError, match="user_id is null in 1 of 2 rows") as error:
        recommend_file(recommender, save(log, tmp_path), tmp_path / "out.parquet", 2)
    assert "--drop-bad-rows" not in str(error.value)
