"""One writer at a time, in one process and in several."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import segue
from segue import notes
from segue.errors import OutputError
from segue.files import claimed, replaced, write_text
from segue.locks import locked

OtherWriter = Callable[..., AbstractContextManager[subprocess.Popen[str]]]


def test_a_second_process_is_refused_and_told_who_writes(
    tmp_path: Path, other_writer: OtherWriter
) -> None:
    path = tmp_path / "log.csv"
    with other_writer(path) as process:
        told = rf"log\.csv is being written by process {process.pid} on .*; wait until"
        with pytest.raises(OutputError, match=told):
            write_text(path, "mine")
        assert not path.exists()
        write_text(tmp_path / "log.csv2", "another place is free")
    assert len(list(tmp_path.iterdir())) == 3  # the other place, and what the killed one left


def test_what_a_killed_writer_left_is_deleted_by_the_next(
    tmp_path: Path, other_writer: OtherWriter
) -> None:
    path = tmp_path / "log.csv"
    # Drafts of other places, whose names begin alike, stay.
    others = {".log.csv.writing-mine", ".log.csv.writing-x.writing-01234567", ".log.csvx.lock"}
    for name in others:
        (tmp_path / name).touch()
    with other_writer(path, leaves_directory=True):
        pass
    assert len(list(tmp_path.iterdir())) == len(others) + 3  # a lock, a directory and a file
    write_text(path, "mine")
    assert {each.name for each in tmp_path.iterdir()} == {"log.csv"} | others
    assert path.read_text() == "mine"


def test_a_thread_may_take_its_own_lock_again_and_keeps_its_drafts(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with replaced(path) as outer:
        with replaced(path) as inner:
            inner.write_text("inner")
        outer.write_text("outer")
    assert path.read_text() == "outer"
    assert os.listdir(tmp_path) == ["log.csv"]


def test_another_thread_is_refused(tmp_path: Path) -> None:
    told = []

    def write() -> None:
        with pytest.raises(OutputError, match="another thread of this process") as refused:
            write_text(tmp_path / "log.csv", "mine")
        told.append(refused.value)

    with locked(tmp_path / "log.csv"):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(told) == 1
    assert os.listdir(tmp_path) == []


def test_a_place_is_the_same_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for path in (Path("run"), Path("../link/run"), tmp_path / "here" / "." / "run"):
        with locked(path):
            assert os.listdir(tmp_path / "here") == [".run.lock"]
    with locked(Path()):
        assert set(os.listdir(tmp_path)) == {"here", "link", ".here.lock"}


def test_a_lock_deleted_between_opening_and_locking_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, []

    def delete_then_lock(descriptor: int, how: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / ".log.csv.lock").unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", delete_then_lock)
    with locked(tmp_path / "log.csv"):
        descriptor = os.open(tmp_path / ".log.csv.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
    assert len(calls) == 2


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".log.csv.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        write_text(tmp_path / "log.csv", "mine")
    assert victim.read_text() == "precious"


def test_where_there_are_no_locks_drafts_of_others_stay_and_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(notes, "_noted", set())
    draft = tmp_path / ".log.csv.writing-01234567"
    draft.touch()
    write_text(tmp_path / "log.csv", "mine")
    write_text(tmp_path / "log.csv", "mine")
    assert {each.name for each in tmp_path.iterdir()} == {draft.name, "log.csv"}
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.startswith("note: the file system at /")
    assert told.endswith(" has no locks; let one process at a time write there")


def test_directories_made_for_nothing_are_deleted_again(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with claimed(tmp_path / "kept" / "runs" / "films" / "one"):
        assert (tmp_path / "kept" / "runs" / "films").is_dir()
    assert os.listdir(tmp_path / "kept") == []
    with claimed(tmp_path / "kept" / "runs" / "one"):
        (tmp_path / "kept" / "runs" / "one").touch()
    assert os.listdir(tmp_path / "kept" / "runs") == ["one"]


WRITER = """
import sys
from pathlib import Path
from segue.artifact.placing import put_in_place
from segue.errors import OutputError
from segue.files import replaced

place, name = Path(sys.argv[1]), sys.argv[2]

def fill(directory):
    for number in range(3):
        (directory / f"{number}").write_text(name)

for _ in range(100):
    try:
        put_in_place(place / "run", fill, force=True)
        with replaced(place / "file") as draft:
            draft.write_text(name)
        print("done")
    except OutputError as error:
        assert "is being written by process" in str(error), error
"""


def test_of_several_writers_each_writes_all_or_is_told_of_another(tmp_path: Path) -> None:
    source = str(Path(segue.__file__).parents[1])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(number)],
            env={**os.environ, "PYTHONPATH": source},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    done = [writer.communicate()[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert any(done)
    assert set(os.listdir(tmp_path)) == {"run", "file"}
    assert len({each.read_text() for each in (tmp_path / "run").iterdir()}) == 1
