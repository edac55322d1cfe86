"""Files that appear whole or not at all, written by one writer at a time."""

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segue.locks import locked


@contextmanager
def claimed(place: Path) -> Iterator[None]:
    """Keep `place` for this writer while the block runs; what is beside it stays its own.

    The directories above are made, and those that are empty at the end are deleted again. What
    writers that died left unfinished beside `place` is deleted.

    Raises:
        OutputError: Another process or thread writes it.
        OSError: The file system refuses.
    """
    made = make_directories(place.parent)
    try:
        with locked(place) as was_free:
            if was_free:
                _delete_drafts(place)
            yield
    finally:
        with suppress(OSError):
            for directory in reversed(made):
                directory.rmdir()


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path beside `path`, for the caller to write; afterwards that file stands at `path`.

    It is flushed to the disk and moved over `path` in one step. Where anything fails, `path` is
    what it was and nothing is left beside it.

    Raises:
        OutputError: Another process or thread writes it.
        OSError: The file system refuses.
    """
    with locked(path) as was_free:
        if was_free:
            _delete_drafts(path)
        draft = draft_of(path)
        try:
            # No link is followed.
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            yield draft
            sync(draft)
            os.replace(draft, path)
            sync_directory(path.parent)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


@contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """A directory beside `place`, which is claimed, for what will become it; gone at the end.

    Raises:
        OutputError: Another process or thread writes `place`.
        OSError: The file system refuses.
    """
    with claimed(place):
        draft = draft_of(place)
        try:
            draft.mkdir()
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def draft_of(place: Path) -> Path:
    """Where what will stand at `place` is written; the next writer deletes it if this one dies."""
    return place.with_name(f".{place.name}.writing-{secrets.token_hex(4)}")


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all.

    Raises:
        OutputError: Another process or thread writes it.
        OSError: The file system refuses.
    """
    with replaced(path) as draft:
        draft.write_text(text, encoding="utf-8")


def make_directories(directory: Path) -> list[Path]:
    """Make a directory and those above it, on the disk; those made, the topmost first.

    Raises:
        OSError: The file system refuses.
    """
    missing = [directory, *directory.parents]
    missing = [each for each in missing if not os.path.lexists(each)]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_directory(each.parent)
    return missing[::-1]


def probe(directory: Path) -> None:
    """Tries in `directory` what writing there will need, which permissions alone do not show.

    A file is written, flushed to the disk and renamed within a directory of its own, that directory
    is renamed, and all of it is deleted.

    Raises:
        OSError: The file system refuses.
    """
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=directory) as name:
        draft = Path(name) / "draft"
        draft.mkdir()
        write_text(draft / "file", "probe")
        os.rename(draft, Path(name) / "renamed")


def sync(path: Path) -> None:
    """Has the disk hold what was written, so that a power cut cannot undo it.

    Raises:
        OSError: The disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """`sync` of a directory; network shares and Windows, which cannot, are left to themselves."""
    with suppress(OSError):
        sync(path)


def _delete_drafts(place: Path) -> None:
    """Delete what writers of `place` that died left unfinished, as far as that can be done."""
    name = re.compile(rf"\.{re.escape(place.name)}\.writing-[0-9a-f]{{8}}")
    with suppress(OSError):
        for draft in [each for each in place.parent.iterdir() if name.fullmatch(each.name)]:
            if draft.is_dir() and not draft.is_symlink():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)
