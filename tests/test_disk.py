"""Whichever call to the system fails, and whenever the power is cut: the old state or the new one
is there.

What Polars and safetensors do natively is one call here, which fails when half is written.
"""

import errno
import io
import itertools
import os
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping
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
        name: What it writes, in a directory of its own.
        write: Writes "old" or "new" to a place of that name.
        read: Which of them is found at a place; None where neither is.
    """

    name: str
    write: Callable[[Path, str], object]
    read: Callable[[Path], str | None]


@pytest.fixture
def run_writer(recommender: Recommender) -> Writer:
    runs = {name: replace(recommender.run, report={"name": name}) for name in ("old", "new")}
    return Writer(
        "run",
        lambda place, name: write_run(runs[name], place, force=True),
        lambda place: str(read_run(place).report["name"]) if standing(place) else None,
    )


class FakeStep:
    """Has a state."""

    def __init__(self, name: str) -> None:
        self.name = name

    def state(self) -> dict[str, Any]:
        return {self.name: np.arange(10)}


@pytest.fixture
def checkpoint_writer() -> Writer:
    inputs = Inputs(Config(), "0")

    def save(place: Path, name: str) -> None:
        checkpoint.save(place.parent, FakeStep(name), Progress(), inputs)  # type: ignore[arg-type]

    def read(place: Path) -> str | None:
        if not place.exists():
            return None
        (name,) = checkpoint.safe_open(place, framework="numpy").keys()
        return str(name).removeprefix(checkpoint.STATE)

    return Writer(checkpoint.FILE_NAME, save, read)


@pytest.fixture
def bulk_writer(recommender: Recommender, log_file: Path) -> Writer:
    lengths = {"old": 1, "new": 2}

    def read(place: Path) -> str | None:
        if not place.exists():
            return None
        length = pl.read_parquet(place)["rank"].max()
        return next(name for name in lengths if lengths[name] == length)

    return Writer(
        "answers.parquet",
        lambda place, name: recommend_file(recommender, log_file, place, lengths[name], force=True),
        read,
    )


@pytest.fixture(params=["run", "checkpoint", "bulk"])
def writer(request: pytest.FixtureRequest) -> Writer:
    """Each that writes something worth keeping."""
    made: Writer = request.getfixturevalue(f"{request.param}_writer")
    return made


def names_in(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()} if directory.exists() else set()


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
    writer: Writer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stands: bool,
    error: int,
    lasts: bool,
) -> None:
    place = tmp_path / "here" / writer.name
    failures = 0
    for number in range(1, 1_000):
        if stands:
            writer.write(place, "old")
        elif place.exists():
            delete(place)
        calls = Calls(tmp_path, number, error, lasts)
        told = None
        with failing(monkeypatch, calls):
            try:
                writer.write(place, "new")
            except OutputError as refused:
                told = str(refused)
        if calls.count < number:
            break
        assert told is None or (os.strerror(error) in told and "\n" not in told), told
        state = writer.read(place)
        assert state in (("old", "new") if stands else (None, "new")), number
        assert told is not None or state == "new", number
        left = names_in(place.parent) - {writer.name}
        assert not left or calls.was_cleaning or lasts, (number, left)
        failures += 1
        writer.write(place, "new")
        assert names_in(place.parent) == {writer.name}, number
    assert failures > 10


def delete(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()


Image = frozenset[tuple[str, bytes | None]]


class Disk:
    """What a power cut leaves of a directory: what was flushed, and perhaps some of the rest.

    A directory has the entries that it had when it was flushed last, or those that it has now; a
    file has the bytes that were flushed last, or none.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bytes: dict[int, bytes] = {}
        self._entries: dict[int, dict[str, int]] = {}
        self._directories: set[int] = set()
        self._kept: list[int] = []  # open, so that no inode is used again
        for path in (root, *root.rglob("*")):
            self.flush(path)

    def flush(self, path: Path) -> None:
        """What a directory or a file holds is safe from now on."""
        inode = self._inode_of(path)
        if path.is_dir():
            self._entries[inode] = self._entries_of(path)
        else:
            self._bytes[inode] = path.read_bytes()

    def images(self) -> set[Image]:
        """What may be there after a power cut now: paths with bytes, None for directories."""
        paths = [each for each in (self._root, *self._root.rglob("*")) if each.is_dir()]
        now = {self._inode_of(path): self._entries_of(path) for path in paths}
        self._directories |= now.keys()
        changed = [inode for inode in now if now[inode] != self._entries.get(inode, {})]
        images = set()
        for number in range(len(changed) + 1):
            for chosen in itertools.combinations(changed, number):
                entries = self._entries | {inode: now[inode] for inode in chosen}
                images.add(frozenset(self._walk("", self._inode_of(self._root), entries)))
        return images

    def close(self) -> None:
        for each in self._kept:
            os.close(each)

    def _walk(
        self, path: str, inode: int, entries: Mapping[int, Mapping[str, int]]
    ) -> Iterator[tuple[str, bytes | None]]:
        if inode not in self._directories:
            yield path, self._bytes.get(inode, b"")
            return
        yield path, None
        for name, child in entries.get(inode, {}).items():
            yield from self._walk(f"{path}/{name}", child, entries)

    def _entries_of(self, directory: Path) -> dict[str, int]:
        return {each.name: self._inode_of(each) for each in directory.iterdir()}

    def _inode_of(self, path: Path) -> int:
        self._kept.append(os.open(path, os.O_RDONLY))
        return os.fstat(self._kept[-1]).st_ino


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, disk: Disk, seen: set[Image]) -> Iterator[None]:
    """Collects what a power cut may leave, before each call to the system and after each flush."""
    busy = [False]

    def look() -> None:
        if not busy[0]:
            busy[0] = True
            seen.update(disk.images())
            busy[0] = False

    def wrap(patch: pytest.MonkeyPatch, name: str) -> None:
        call = getattr(os, name)

        def calling(*arguments: Any, **options: Any) -> Any:
            look()
            return call(*arguments, **options)

        patch.setattr(os, name, calling)

    def flush(descriptor: int) -> None:
        disk.flush(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        look()

    with monkeypatch.context() as patch:
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "chmod"):
            wrap(patch, name)
        patch.setattr(os, "fsync", flush)
        yield


def made(image: Image, root: Path) -> Path:
    """The image as files."""
    for path, content in sorted(image, key=lambda each: each[0]):
        if content is None:
            (root / path[1:]).mkdir()
        else:
            (root / path[1:]).write_bytes(content)
    return root


@pytest.mark.parametrize("stands", [True, False])
def test_a_power_cut_at_any_moment_leaves_the_old_state_or_the_new_one_and_what_was_told_is_kept(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands: bool
) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    place = root / "here" / writer.name
    if stands:
        writer.write(place, "old")
    disk, seen = Disk(root), set[Image]()
    with watched(monkeypatch, disk, seen):
        writer.write(place, "new")
        told = disk.images()
    disk.close()
    assert len(seen | told) > 3
    found = set()
    for number, image in enumerate(seen | told):
        left = made(image, tmp_path / str(number)) / "here" / writer.name
        state = writer.read(left)
        found.add(state)
        assert state == "new" or image not in told
        writer.write(left, "new")
        assert writer.read(left) == "new"
        assert names_in(left.parent) == {writer.name}
    assert found == {"old" if stands else None, "new"}
