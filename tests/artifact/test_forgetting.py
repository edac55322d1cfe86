"""A user's rows leave a run; what others have stays."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from segue.artifact import Run, read_run, without_user, write_run
from segue.data.splits import TRAIN
from segue.errors import RequestError

MakeRun = Callable[..., Run]


@pytest.fixture
def named_run(make_run: MakeRun) -> Run:
    """The users "zoe-the-user" and "bob", with one target each."""
    run = make_run()
    assert run.split is not None
    assert run.ranking is not None
    user_ids = pl.Series(["zoe-the-user", "bob"])
    split = replace(run.split, histories=replace(run.split.histories, user_ids=user_ids))
    ranking = replace(
        run.ranking,
        ranks=np.array([2, 1], np.int32),
        candidates=np.array([3, 3], np.int32),
        targets=np.array([2, 4], np.int32),
        user_ids=user_ids,
    )
    return replace(run, split=split, ranking=ranking)


def files_with(directory: Path, text: bytes) -> set[str]:
    return {each.name for each in directory.iterdir() if text in each.read_bytes()}


def test_no_file_of_the_run_names_the_user_and_the_others_stay(
    named_run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    write_run(named_run, path)
    names = {"histories.parquet", "ranks.parquet"}
    assert files_with(path, b"zoe-the-user") == names
    write_run(
        without_user(read_run(tmp_path / "run"), "zoe-the-user"), tmp_path / "run", force=True
    )
    assert files_with(path, b"zoe-the-user") == set()
    assert files_with(path, b"bob") == names
    back = read_run(path)
    assert back.split is not None
    assert back.ranking is not None
    assert back.split.histories.user_ids.to_list() == ["bob"]
    assert back.split.histories.item_ids.tolist() == [1, 3]
    assert back.split.parts.tolist() == [TRAIN, TRAIN]
    assert back.split.notes == ("two users", "ties — kept")
    assert back.ranking.user_ids.to_list() == ["bob"]
    assert back.ranking.ranks.tolist() == [1]
    assert back.ranking.targets.tolist() == [4]
    assert back.report == named_run.report
    assert back.item_counts.tolist() == named_run.item_counts.tolist()


def test_ids_are_compared_by_text(make_run: MakeRun) -> None:
    for user_id in (9, "9"):
        split = without_user(make_run(), user_id).split
        assert split is not None
        assert split.histories.user_ids.to_list() == [7]


@pytest.mark.parametrize("user_id", [8, "8", "9x", " 9", "", "09"])
def test_a_user_that_the_run_does_not_have_is_refused(make_run: MakeRun, user_id: object) -> None:
    with pytest.raises(RequestError, match=f"user {user_id!r} is not among the run's 2 users"):
        without_user(make_run(), user_id)  # type: ignore[arg-type]


def test_a_user_may_be_in_the_histories_alone_or_in_the_ranks_alone(make_run: MakeRun) -> None:
    run = make_run()
    assert without_user(run, 9).ranking is not None  # 7 alone was tested
    assert without_user(replace(run, split=None), 7).ranking is None
    assert without_user(replace(run, ranking=None), 7).split is not None
    with pytest.raises(RequestError, match="not among the run's 0 users"):
        without_user(replace(run, split=None), 9)


def test_the_last_user_leaves_a_run_without_histories(make_run: MakeRun, tmp_path: Path) -> None:
    write_run(without_user(without_user(make_run(), 7), 9), tmp_path / "run")
    back = read_run(tmp_path / "run")
    assert (back.split, back.ranking) == (None, None)
