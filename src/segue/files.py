"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path beside `path`, for the caller to write; afterwards that file stands at `path`.

    It is flushed to the disk and moved over `path` in one step. Where anything fails, `path` is
    what it was and nothing is left beside it.

    Raises:
        OSError: The file system refuses.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        _make_empty(draft)
        yield draft
        sync(draft)
        os.replace(draft, path)
        sync_directory(path.parent)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all.

    Raises:
        OSError: The file system refuses.
    """
    with replaced(path) as draft:
        draft.write_text(text, encoding="utf-8")


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


def _make_empty(path: Path) -> None:
    """An empty file: what lies there from a process that was killed goes, and no link is followed.

    Raises:
        OSError: It cannot be made.
    """
    with suppress(FileNotFoundError):
        path.unlink()
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
