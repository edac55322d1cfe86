"""One writer at a time: a lock beside each place that is written, held until it is written."""

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segue.errors import OutputError
from segue.notes import note_once

if sys.platform != "win32":
    import fcntl

# What file systems without locks answer, such as some network shares.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
MAX_SHOWN_BYTES = 200

# The lock files that this process holds, each with the thread that does.
_holders: dict[Path, int] = {}
_guard = threading.Lock()


@contextmanager
def locked(place: Path) -> Iterator[bool]:
    """Keep every other writer away from `place` while the block runs.

    The lock is an `flock` on `.NAME.lock` beside `place`, a file that names its holder and is
    deleted at the end. The system frees it when the holder dies. A thread may take it twice.

    Yields:
        Whether the lock was free, so that what lies unfinished beside `place` is of writers that
        died. False where the thread holds the lock already or the file system has no locks.

    Raises:
        OutputError: Another process or thread holds it.
        OSError: The lock's file cannot be made.
    """
    whole = Path(os.path.abspath(place))
    path = Path(os.path.realpath(whole.parent), f".{whole.name}.lock")
    thread = threading.get_ident()
    with _guard:
        holder = _holders.get(path)
        if holder is None:
            _holders[path] = thread
    if holder == thread:
        yield False
        return
    if holder is not None:
        raise _taken(place, "another thread of this process")
    try:
        descriptor = _take(path, place)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                _release(path, descriptor)
    finally:
        del _holders[path]


def _take(path: Path, place: Path) -> int | None:
    """The descriptor of the lock's file, locked; None where that cannot be done there."""
    if sys.platform == "win32":
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, MAX_SHOWN_BYTES, 0).decode(errors="replace")
            os.close(descriptor)
            raise _taken(place, holder) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in NO_LOCKS:
                raise
            with suppress(OSError):
                os.unlink(path)
            note_once(path.parent, "has no locks; let one process at a time write there")
            return None
        if _is_at(path, descriptor):
            _write_holder(descriptor)
            return descriptor
        # Its last holder deleted it between the two calls.
        os.close(descriptor)


def _write_holder(descriptor: int) -> None:
    """Say who holds the lock, where the disk is not full."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file is still the one of that name."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    """Delete the file while it is locked: a process that waits for its name makes another."""
    try:
        with suppress(OSError):
            os.unlink(path)
    finally:
        os.close(descriptor)


def _taken(place: Path, holder: str) -> OutputError:
    shown = "".join(letter if letter.isprintable() else " " for letter in holder).strip()
    return OutputError(
        f"{place} is being written by {shown or 'another process'}; wait until that has ended, or "
        f"choose another place"
    )
