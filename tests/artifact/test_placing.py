import dataclasses
import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import segue.artifact
from segue.artifact import (
    Run,
    check_output,
    claimed_output,
    documents,
    placing,
    read_run,
    write_run,
)
from segue.artifact import run as run_module
from segue.artifact.placing import put_in_place
from segue.errors import OutputError, RunError

MakeRun = Callable[..., Run]
NameOf = Callable[[Path], str]

PACKAGE = str(Path(segue.artifact.__file__).parent)


def names_in(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()}


@contextmanager
def raising_at_line(number: int) -> Iterator[list[int]]:
    """Raise a KeyboardInterrupt as the package reaches its n-th line; yields a count of lines."""
    count = [0]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            count[0] += 1
            if count[0] == number:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


def test_a_new_place_may_be_taken(tmp_path: Path) -> None:
    check_output(tmp_path / "run", force=False)
    check_output(tmp_path / "run", force=True)
    assert names_in(tmp_path) == set()


def test_missing_directories_above_are_made_when_the_run_is_written(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "films" / "one"
    check_output(target, force=False)
    assert names_in(tmp_path) == set()
    put_in_place(target, lambda draft: (draft / "file").touch(), force=False)
    assert names_in(target) == {"file"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_run_and_the_directories_made_for_it_are_on_the_disk(
    make_run: MakeRun, tmp_path: Path, not_on_disk: set[Path]
) -> None:
    path = tmp_path / "runs" / "films" / "one"
    for name in ("old", "new"):
        write_run(make_run(name), path, force=True)
        assert {each for each in not_on_disk if each.exists()} == set()


def test_a_file_in_place_of_the_directory_above_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(OutputError, match=f"{tmp_path}/runs is not a directory; choose another"):
        check_output(tmp_path / "runs" / "one", force=False)


def test_a_directory_that_is_not_writable_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests may run as root, to whom permissions mean nothing.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match=f"the directory {tmp_path} is not writable; mend"):
        check_output(tmp_path / "run", force=False)


def test_a_name_too_long_for_the_file_system_is_told_before_work_starts(tmp_path: Path) -> None:
    for length in (300, 250):  # with 250, only the names used while writing are too long
        with pytest.raises(OutputError, match=r"cannot write the run .*: File name too long"):
            check_output(tmp_path / ("x" * length), force=False)


@pytest.mark.parametrize("call", ["rename", "replace", "fsync", "mkdir"])
def test_what_the_file_system_refuses_is_told_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OutputError, match=r"^cannot write the run .*: Read-only file system"):
        check_output(tmp_path / "runs" / "one", force=False)
    assert names_in(tmp_path) == set()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_place_that_takes_no_files_whatever_its_permissions_is_told() -> None:
    with pytest.raises(OutputError, match=r"^cannot write the run /proc/none/run: "):
        check_output("/proc/none/run", force=False)


def test_a_run_is_replaced_only_by_force(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)
    told = f"the run {path} exists; replace it with --force"
    with pytest.raises(OutputError, match=told):
        check_output(path, force=False)
    with pytest.raises(OutputError, match=told):
        write_run(make_run("new"), path)
    assert name_of(path) == "old"
    check_output(path, force=True)
    write_run(make_run("new"), path, force=True)
    assert name_of(path) == "new"
    assert names_in(tmp_path) == {"run"}


def make_file(path: Path) -> None:
    path.write_text("mine")


def make_empty_directory(path: Path) -> None:
    path.mkdir()


def make_web_application(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text('{"name": "app", "icons": []}')


@pytest.mark.parametrize("make", [make_file, make_empty_directory, make_web_application])
@pytest.mark.parametrize("force", [True, False])
def test_what_is_no_run_is_never_replaced(
    make_run: MakeRun, tmp_path: Path, make: Callable[[Path], None], force: bool
) -> None:
    path = tmp_path / "thing"
    make(path)
    told = f"{path} exists and is no run, and --force replaces"
    with pytest.raises(OutputError, match=told):
        check_output(path, force=force)
    with pytest.raises(OutputError, match=told):
        write_run(make_run(), path, force=force)
    assert names_in(tmp_path) == {"thing"}


def test_a_run_that_holds_other_things_too_is_not_replaced(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"also holds 'notes.txt', which --force would delete"):
        write_run(make_run("new"), path, force=True)
    assert name_of(path) == "old"


def test_a_damaged_run_can_be_replaced(make_run: MakeRun, name_of: NameOf, tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)
    (path / "weights.safetensors").unlink()
    write_run(make_run("new"), path, force=True)
    assert name_of(path) == "new"


def test_of_a_link_the_run_behind_it_is_replaced_and_the_link_stays(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "run"
    link.symlink_to(tmp_path / "disk" / "run")
    write_run(make_run("old"), link)
    write_run(make_run("new"), link, force=True)
    assert link.is_symlink()
    assert name_of(link) == "new"
    assert names_in(tmp_path / "disk") == {"run"}


def test_a_relative_path_is_taken_from_the_working_directory(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(make_run("old"), "run")
    assert name_of(tmp_path / "run") == "old"


# An interrupt between a file's last use and its closing leaves the closing to Python.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("stands", [True, False])
def test_an_interrupt_at_any_line_leaves_the_old_run_or_the_new_one_and_nothing_beside_it(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands: bool
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # hundreds of them take a while
    write_run(make_run("old"), tmp_path / "old")
    new, path = make_run("new"), tmp_path / "here" / "run"
    path.parent.mkdir()
    found: list[str | None] = []
    for line in range(1, 10_000):
        shutil.rmtree(path, ignore_errors=True)
        if stands:
            shutil.copytree(tmp_path / "old", path)
        try:
            with raising_at_line(line):
                write_run(new, path, force=True)
        except KeyboardInterrupt:
            found.append(read_run(path).report["name"] if path.exists() else None)
            assert names_in(path.parent) <= {"run"}, line
        else:
            break
    assert set(found) == {"old" if stands else None, "new"}
    assert found == sorted(found, key=lambda name: name == "new")


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
STEPS = [
    (run_module, "write_json"),
    (run_module, "write_weights"),
    (run_module, "write_items"),
    (run_module, "write_histories"),
    (run_module, "write_ranks"),
    (run_module, "write_manifest"),
    (os, "mkdir"),
    (os, "fsync"),
    (os, "rename"),
]


@pytest.mark.parametrize(("place", "step"), STEPS, ids=[step for _, step in STEPS])
@pytest.mark.parametrize("stands", [True, False])
def test_a_disk_full_at_any_step_leaves_what_was_there_and_is_told_in_one_line(
    make_run: MakeRun,
    name_of: NameOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    step: str,
    stands: bool,
) -> None:
    path = tmp_path / "run"
    if stands:
        write_run(make_run("old"), path)
    before = names_in(tmp_path)

    def fail(*_: Any, **__: Any) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(place, step, fail)
        with pytest.raises(OutputError, match=r"cannot write the run .*run: No space left") as told:
            write_run(make_run("new"), path, force=True)
    assert "\n" not in str(told.value)
    assert names_in(tmp_path) == before
    assert not stands or name_of(path) == "old"


def test_a_rename_that_fails_halfway_brings_the_old_run_back(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)
    rename, calls = os.rename, []

    def fail_second(source: Any, target: Any) -> None:
        calls.append((Path(source).name, Path(target).name))
        if len(calls) == 2:
            raise FULL
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_second)
    with pytest.raises(OutputError, match="No space left"):
        write_run(make_run("new"), path, force=True)
    assert calls[0] == ("run", ".run.replaced")
    assert calls[2] == (".run.replaced", "run")
    assert name_of(path) == "old"
    assert names_in(tmp_path) == {"run"}


@contextmanager
def files_at_most(size_bytes: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond a size, in the way it refuses on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_whichever_file_the_system_refuses_the_old_run_stays(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)
    for file in list(path.iterdir()):
        limit = file.stat().st_size - 1
        with (
            pytest.raises(OutputError, match=r"cannot write the run .*: .*File too large"),
            files_at_most(limit),
        ):
            write_run(make_run("new"), path, force=True)
        assert name_of(path) == "old"
        assert names_in(tmp_path) == {"run"}


def test_an_old_run_that_cannot_be_deleted_is_told_with_its_place(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)

    def fail(directory: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", fail)
        told = f"{path} is whole, but .* Permission denied; delete {tmp_path}/.run.replaced by hand"
        with pytest.raises(OutputError, match=told):
            write_run(make_run("new"), path, force=True)
    assert name_of(path) == "new"
    write_run(make_run("newer"), path, force=True)
    assert name_of(path) == "newer"
    assert names_in(tmp_path) == {"run"}


def test_after_a_power_cut_between_the_renames_the_old_run_is_still_there(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)
    path.rename(tmp_path / ".run.replaced")
    assert name_of(path) == "old"
    with pytest.raises(OutputError, match="exists; replace it with --force"):
        check_output(path, force=False)
    write_run(make_run("new"), path, force=True)
    assert name_of(path) == "new"
    assert names_in(tmp_path) == {"run"}


def test_what_comes_to_stand_while_a_run_is_written_is_not_replaced_without_force(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    write_json = documents.write_json

    def race(file: Path, document: Any) -> None:
        write_json(file, document)
        if not path.exists():
            monkeypatch.undo()
            write_run(make_run("theirs"), path)

    monkeypatch.setattr(run_module, "write_json", race)
    with pytest.raises(OutputError, match=r"cannot write the run .*: Directory not empty"):
        write_run(make_run("mine"), path)
    assert name_of(path) == "theirs"
    assert names_in(tmp_path) == {"run"}


def test_a_reader_between_the_renames_sees_the_old_run_and_after_them_the_new_one(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)
    rename, seen = os.rename, [name_of(path)]

    def rename_then_read(source: Any, target: Any) -> None:
        rename(source, target)
        seen.append(name_of(path))

    monkeypatch.setattr(os, "rename", rename_then_read)
    write_run(make_run("new"), path, force=True)
    assert seen == ["old", "old", "new"]


@pytest.mark.parametrize(
    "step", ["verify_files", "read_json", "read_weights", "read_items", "read_histories", "Run"]
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_run_replaced_while_it_is_read_is_read_anew_and_never_mixed(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    verify: bool,
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)
    new = dataclasses.replace(make_run("new"), weights={"new": np.ones(1)})
    original = getattr(run_module, step)

    def replace_then_go_on(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        write_run(new, path, force=True)
        return original(*args, **options)

    monkeypatch.setattr(run_module, step, replace_then_go_on)
    back = read_run(path, verify=verify)
    assert (back.report["name"], list(back.weights)) == ("new", ["new"])


def test_where_directories_cannot_be_renamed_nor_flushed_the_run_is_saved_with_a_note(
    make_run: MakeRun,
    name_of: NameOf,
    tmp_path: Path,
    no_directory_renames: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "runs" / "run"
    with claimed_output(path, force=False):
        assert len(caplog.records) == 2
        assert f"cannot rename directories ({no_directory_renames})" in caplog.text
        assert "cannot flush directories" in caplog.text
        write_run(make_run("old"), path)
    assert name_of(path) == "old"
    for name in ("new", "newer"):
        write_run(make_run(name), path, force=True)
        assert name_of(path) == name
        assert names_in(path.parent) == {"run"}
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("no_directory_renames")
@pytest.mark.parametrize("no_directory_renames", ["EXDEV"], indirect=True)
def test_where_files_are_copied_a_run_is_found_whole_at_any_moment_and_after_a_power_cut(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cuts = tmp_path / "here" / "run", tmp_path / "cuts"
    write_run(make_run("old"), path)
    seen: list[str] = []

    def look_before(patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def looking(*arguments: Any, **options: Any) -> Any:
            with monkeypatch.context() as unpatched:
                unpatched.setattr(owner, name, call)
                seen.append(name_of(path))
                subprocess.run(["cp", "-r", path.parent, cuts / str(len(seen))], check=True)
            return call(*arguments, **options)

        patch.setattr(owner, name, looking)

    cuts.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        look_before(patch, shutil, "copyfile")
        look_before(patch, os, "unlink")
        write_run(make_run("new"), path, force=True)
    assert len(seen) > 3 * len(names_in(path))
    assert set(seen) == {"old", "new"}
    assert seen == sorted(seen, key=lambda name: name == "new")
    for number, name in enumerate(seen, start=1):
        place = cuts / str(number)
        assert name_of(place / "run") == name
        write_run(make_run("newer"), place / "run", force=True)
        assert name_of(place / "run") == "newer"
        assert names_in(place) == {"run"}


@pytest.mark.usefixtures("no_directory_renames")
@pytest.mark.parametrize("no_directory_renames", ["EXDEV"], indirect=True)
@pytest.mark.parametrize("number", range(1, 20))
def test_where_files_are_copied_and_one_cannot_be_the_old_run_stays(
    make_run: MakeRun,
    name_of: NameOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)
    copyfile, calls = shutil.copyfile, [0]

    def copying(source: Any, target: Any) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise FULL
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", copying)
    if number <= 2 * len(names_in(path)):  # once aside, once into place
        with pytest.raises(OutputError, match="No space left"):
            write_run(make_run("new"), path, force=True)
        assert name_of(path) == "old"
    else:
        write_run(make_run("new"), path, force=True)
        assert name_of(path) == "new"
    assert names_in(tmp_path) == {"run"}


def test_what_is_no_run_is_not_deleted_for_the_run_that_stood_aside(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), tmp_path / ".run.replaced")
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"is no run, and the run that stood there is in .*move"):
        write_run(make_run("new"), path, force=True)
    assert names_in(path) == {"thesis.tex"}
    assert names_in(tmp_path) == {"run", ".run.replaced"}


def test_a_run_that_another_process_writes_is_refused_and_then_tidied_up(
    make_run: MakeRun, name_of: NameOf, tmp_path: Path, other_writer: Any
) -> None:
    path = tmp_path / "run"
    write_run(make_run("old"), path)
    with other_writer(path, leaves_directory=True) as process:
        told = f"{path} is being written by process {process.pid} on"
        with pytest.raises(OutputError, match=told):
            write_run(make_run("new"), path, force=True)
        with pytest.raises(OutputError, match=told), claimed_output(path, force=True):
            pass
    assert name_of(path) == "old"
    assert len(names_in(tmp_path)) == 4
    with claimed_output(path, force=True):
        assert names_in(tmp_path) == {"run", ".run.lock"}
        write_run(make_run("new"), path, force=True)
    assert name_of(path) == "new"
    assert names_in(tmp_path) == {"run"}


def test_a_run_that_came_before_the_place_was_taken_is_refused(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    claimed = placing.claimed

    def race(target: Path) -> Any:
        monkeypatch.undo()
        write_run(make_run("theirs"), path)
        return claimed(target)

    monkeypatch.setattr(placing, "claimed", race)
    with pytest.raises(OutputError, match="exists; replace it"), claimed_output(path, force=False):
        pass
    assert names_in(tmp_path) == {"run"}


def test_a_run_that_is_replaced_again_and_again_is_given_up(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    write_run(make_run("0"), path)
    read_weights, count = documents.read_weights, [0]

    def replace_then_go_on(file: Path) -> Any:
        count[0] += 1
        write_run(make_run(str(count[0])), path, force=True)
        return read_weights(file)

    monkeypatch.setattr(run_module, "read_weights", replace_then_go_on)
    with pytest.raises(RunError, match="run was replaced 5 times while it was read; try again"):
        read_run(path)
