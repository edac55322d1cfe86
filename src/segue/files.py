"""Files that appear whole or not at all, written by one writer at a time."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segue.errors import OutputError
from segue.locks import locked
from segue.notes import note_once

# What file systems answer that cannot do a thing at all, unlike those where it fails this time.
UNABLE = frozenset(
    {
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.EBADF,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
    }
)
# Of directories: overlayfs for those of an image's lower layers (moby/moby#25409), and gcsfuse for
# those with more files than its limit, which is none by default (GoogleCloudPlatform/gcsfuse#644).
UNABLE_TO_RENAME = UNABLE | {errno.EXDEV, errno.EMFILE}


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


@contextmanager
def scratch_in(directory: Path, name: str) -> Iterator[Path]:
    """A directory `.NAME-...` of this writer's own in `directory`, gone at the end.

    Those of writers that died are deleted; several may be at work at one time.

    Raises:
        OSError: The file system refuses.
    """
    _delete_scratches(directory, name)
    own = directory / f".{name}-{secrets.token_hex(4)}"
    with locked(own):
        try:
            own.mkdir()
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


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


def move_directory(source: Path, target: Path, *, last: str) -> None:
    """Move a directory of plain files to a place where nothing is, on the disk.

    That is one step, except where the file system cannot rename directories. There its files are
    copied, and `last` is the name of the one that is copied last and deleted first: a directory
    that has it is whole.

    Raises:
        OSError: The file system refuses, or something is at `target`; `source` is whole still.
    """
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in UNABLE_TO_RENAME:
            raise
        note_once(
            source.parent,
            f"cannot rename directories ({os.strerror(error.errno or 0)}); files are copied one by "
            f"one instead",
        )
        _copy_directory(source, target, last)
        with suppress(OSError):
            (source / last).unlink(missing_ok=True)
        shutil.rmtree(source, ignore_errors=True)
    sync_directory(target.parent)


def _copy_directory(source: Path, target: Path, last: str) -> None:
    """Copy the files of a directory, `last` at the end; all of them or none."""
    target.mkdir()
    try:
        sync_directory(target.parent)
        for file in sorted(source.iterdir(), key=lambda each: each.name == last):
            copy = target / file.name
            shutil.copyfile(file, copy)
            shutil.copymode(file, copy)
            sync(copy)
            sync_directory(target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def probe(directory: Path) -> None:
    """Tries in `directory` what writing there will need, which permissions alone do not show.

    A file is written, flushed to the disk and renamed within a directory of its own, that directory
    is renamed, and all of it is deleted.

    Raises:
        OSError: The file system refuses.
    """
    with scratch_in(directory, "probe") as own:
        draft = own / "draft"
        draft.mkdir()
        write_text(draft / "file", "probe")
        move_directory(draft, own / "renamed", last="file")


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
    """`sync` of a directory, so that a power cut cannot undo what was made or renamed in it.

    Where the file system has no such thing, as network shares and Windows, that is noted once.

    Raises:
        OSError: The disk refuses.
    """
    try:
        sync(path)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
        note_once(
            path, "cannot flush directories to the disk; a power cut may undo what was written"
        )


def _delete_drafts(place: Path) -> None:
    """Delete what writers of `place` that died left unfinished, as far as that can be done."""
    with suppress(OSError):
        for draft in _numbered(place.parent, f".{place.name}.writing-"):
            if draft.is_dir() and not draft.is_symlink():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)


def _delete_scratches(directory: Path, name: str) -> None:
    """Delete those of writers that died, as far as that can be done."""
    with suppress(OSError):
        for left in _numbered(directory, f".{name}-"):
            with suppress(OutputError), locked(left) as was_free:
                if was_free:
                    shutil.rmtree(left, ignore_errors=True)


def _numbered(directory: Path, prefix: str) -> list[Path]:
    """What is called by `prefix` and eight digits."""
    name = re.compile(re.escape(prefix) + "[0-9a-f]{8}")
    return [each for each in directory.iterdir() if name.fullmatch(each.name)]
