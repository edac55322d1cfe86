"""Whichever call to the system fails, once or from then on: the old state or the new one is there.

What Polars and safetensors do natively is one call here, which fails when half is written.
"""

import errno
import io
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from segue.artifact import documents, read_run, write_run
from segue.artifact.placing import standing
from segue.bulk import recommend_file
from segue.config import Config
from segue.errors import OutputError
from segue.recommender import Recommender
from segue.training import checkpoint
from segue.training.checkpoint import Inputs, Progress

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")

SYSTEM = (
    "open",
    "fsync",
    "rename",
    "replace",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "chmod",
    "pwrite",
)
NATIVE = (
    (documents, "save_file", 1),
    (checkpoint, "save_file", 1),
    (pl.DataFrame, "write_parquet", 1),
    (pl.LazyFrame, "sink_parquet", 1),
)


@dataclass
class Calls:
    """Counts calls that touch a directory, and lets one of them fail, or all from it on.

    Attributes:
        number: Of the call that fails, from 1.
        lasts: Whether those after it fail too.
        count: How many there were.
        was_cleaning: Whether something was being deleted when one failed.
    """

    directory: Path
    number: int
    error: int
    lasts: bool
    count: int = 0
    was_cleaning: bool = False

    def fails(self, name: str, *places: Any) -> bool:
        if not any(self._is_here(each) for each in places):
            return False
        self.count += 1
        is_it = self.count == self.number or (self.lasts and self.count > self.number)
        if is_it and (name in ("unlink", "rmdir") or _is_deleting()):
            self.was_cleaning = True
        return is_it

    def _is_here(self, place: Any) -> bool:
        if isinstance(place, int):
            place = os.readlink(f"/proc/self/fd/{place}")
        return isinstance(place, str | Path) and Path(place).is_relative_to(self.directory)


def _is_deleting() -> bool:
    return any("rmtree" in frame.name for frame in traceback.extract_stack(limit=12))


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> Iterator[None]:
    """The calls are counted and fail while the block runs."""

    def wrap(patch: pytest.MonkeyPatch, owner: Any, name: str, place: int, is_native: bool) -> None:
        call = getattr(owner, name)

        def calling(*arguments: Any, **options: Any) -> Any:
            where = options.get("dir_fd"), options.get("src_dir_fd"), arguments[place]
            if calls.fails(name, *where):
                if is_native:
                    Path(arguments[place]).write_bytes(b"half")
                raise OSError(calls.error, os.strerror(calls.error))
            if name == "fsync":
                return None  # which takes a while
            return call(*arguments, **options)

        patch.setattr(owner, name, calling)

    with monkeypatch.context() as patch:
        for name in SYSTEM:
            wrap(patch, os, name, 0, False)
        wrap(patch, io, "open", 0, False)
        for owner, name, place in NATIVE:
            wrap(patch, owner, name, place, True)
        yield


@dataclass(frozen=True)
class Writer:
    """Something that writes a place.

    Attributes:
        place: What it writes, within a directory of its own.
        write: Writes "old" or "new" there.
        read: Which of them is found there; None where neither is.
    """

    place: Path
    write: Callable[[str], object]
    read: Callable[[], str | None]


@pytest.fixture
def run_writer(recommender: Recommender, tmp_path: Path) -> Writer:
    runs = {name: replace(recommender.run, report={"name": name}) for name in ("old", "new")}
    place = tmp_path / "here" / "run"
    return Writer(
        place,
        lambda name: write_run(runs[name], place, force=True),
        lambda: str(read_run(place).report["name"]) if standing(place) else None,
    )


class FakeStep:
    """Has a state."""

    def __init__(self, name: str) -> None:
        self.name = name

    def state(self) -> dict[str, Any]:
        return {self.name: np.arange(10)}


@pytest.fixture
def checkpoint_writer(tmp_path: Path) -> Writer:
    place = tmp_path / "here" / "run.checkpoint" / checkpoint.FILE_NAME
    inputs = Inputs(Config(), "0")

    def save(name: str) -> None:
        checkpoint.save(place.parent, FakeStep(name), Progress(), inputs)  # type: ignore[arg-type]

    def read() -> str | None:
        if not place.exists():
            return None
        (name,) = checkpoint.safe_open(place, framework="numpy").keys()
        return str(name).removeprefix(checkpoint.STATE)

    return Writer(place, save, read)


@pytest.fixture
def bulk_writer(recommender: Recommender, log_file: Path, tmp_path: Path) -> Writer:
    place = tmp_path / "here" / "answers.parquet"
    lengths = {"old": 1, "new": 2}

    def read() -> str | None:
        if not place.exists():
            return None
        length = pl.read_parquet(place)["rank"].max()
        return next(name for name in lengths if lengths[name] == length)

    return Writer(
        place,
        lambda name: recommend_file(recommender, log_file, place, lengths[name], force=True),
        read,
    )


def names_in(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()} if directory.exists() else set()


@pytest.mark.parametrize("kind", ["run", "checkpoint", "bulk"])
@pytest.mark.parametrize("stands", [True, False])
@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (errno.EIO, False),
        pytest.param(errno.ENOSPC, False, marks=pytest.mark.slow),
        pytest.param(errno.EIO, True, marks=pytest.mark.slow),
    ],
)
def test_a_call_that_fails_leaves_the_old_state_or_the_new_one_and_is_told_in_one_line(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    stands: bool,
    error: int,
    lasts: bool,
) -> None:
    writer: Writer = request.getfixturevalue(f"{kind}_writer")
    here = writer.place.parent
    failures = 0
    for number in range(1, 1_000):
        if stands:
            writer.write("old")
        elif writer.place.exists():
            delete(writer.place)
        calls = Calls(here.parent, number, error, lasts)
        told = None
        with failing(monkeypatch, calls):
            try:
                writer.write("new")
            except OutputError as refused:
                told = str(refused)
        if calls.count < number:
            break
        assert told is None or (os.strerror(error) in told and "\n" not in told), told
        state = writer.read()
        assert state in (("old", "new") if stands else (None, "new")), number
        assert told is not None or state == "new", number
        left = names_in(here) - {writer.place.name}
        assert not left or calls.was_cleaning or lasts, (number, left)
        failures += 1
        writer.write("new")
        assert names_in(here) == {writer.place.name}, number
    assert failures > 10


def delete(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
