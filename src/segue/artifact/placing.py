"""Where a run goes: refused before work starts, written beside its place, then moved into it.

While one run replaces another, the old one stands aside under a name of its own for the moment
between two moves. Readers look there too, so that they find the old run or the new one, always.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from segue.artifact.failures import writing
from segue.artifact.manifest import MANIFEST, OPTIONAL, REQUIRED, names_in
from segue.data.checks import shown_names
from segue.errors import OutputError
from segue.files import claimed, draft_of, move_directory, probe, sync, sync_directory


def check_output(path: str | Path, *, force: bool) -> None:
    """Refuse a place where a run cannot be written, before the work on it starts.

    As `refuse_output`, and writing there is tried.

    Raises:
        OutputError: As `refuse_output`, or the file system refuses what writing a run needs.
    """
    refuse_output(path, force=force)
    with writing(path):
        probe(_first_existing(resolved(path)))


@contextmanager
def claimed_output(path: str | Path, *, force: bool) -> Iterator[None]:
    """Refuse a place where a run cannot be written, and keep it for this process until the end.

    As `check_output`; nobody else can write there while the block runs.

    Raises:
        OutputError: As `check_output`, or another process or thread writes there.
    """
    check_output(path, force=force)
    with ExitStack() as stack:
        with writing(path):
            stack.enter_context(claimed(resolved(path)))
        # Again: another writer may have ended meanwhile.
        refuse_output(path, force=force)
        yield


def refuse_output(path: str | Path, *, force: bool) -> None:
    """Refuse a place where no run may be written, by what can be seen of it.

    Args:
        path: Where the run is to be; links are followed.
        force: Whether a run that stands there may be replaced. Nothing but a run ever is.

    Raises:
        OutputError: Something stands there, or a directory above cannot be made or written.
    """
    with writing(path):
        target = resolved(path)
        parent = _first_existing(target)
        if not parent.is_dir():
            raise OutputError(
                f"cannot write the run {path}: {parent} is not a directory; choose another place"
            )
        if not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"cannot write the run {path}: the directory {parent} is not writable; mend its "
                f"permissions, or choose another place"
            )
        with suppress(FileNotFoundError):
            os.lstat(draft_of(target))  # fails where the name is too long
        place = standing(target)
        if place is not None:
            _refuse_replacing(path, place, force)
            if target == Path.cwd():
                raise OutputError(
                    f"the run {path} is the working directory, which would be deleted under this "
                    f"command; change to another directory, or choose another place"
                )


def _first_existing(target: Path) -> Path:
    """The nearest directory above that exists; nothing is above the root but the root."""
    return next((each for each in target.parents if os.path.lexists(each)), target)


def resolved(path: str | Path) -> Path:
    """The absolute path without links: what they point at is read and replaced, not they."""
    return Path(os.path.realpath(path))


def standing(target: Path) -> Path | None:
    """What stands at `target`, or stands aside while it is being replaced; None if nothing does.

    A run comes first: where directories cannot be renamed, the other may be half of one.
    """
    places = [each for each in (target, _aside(target)) if os.path.lexists(each)]
    return next((each for each in places if _is_whole(each)), next(iter(places), None))


def put_in_place(target: Path, fill: Callable[[Path], None], *, force: bool) -> None:
    """Make a directory with `fill` and put it at `target`.

    `fill` is given the path of an empty directory. Whatever happens, afterwards the new run stands
    at `target` or else what stood there before, and nothing beside it.

    Args:
        target: A path without links.
        fill: Writes the files.
        force: Whether what stands at `target` by then gives way.

    Raises:
        OSError: From the file system; also where something has come to stand at `target`.
        OutputError: Another process or thread writes there; or the new run is in place, but the
            old one cannot be deleted.
    """
    with claimed(target):
        draft = draft_of(target)
        try:
            try:
                _recover(target)
                draft.mkdir()
                fill(draft)
                _sync_all(draft)
                _swap(draft, target, force)
            finally:
                _tidy(draft, target)
        finally:
            # Again, for an interrupt may have hit the first time.
            _tidy(draft, target)


def _swap(draft: Path, target: Path, force: bool) -> None:
    if force and os.path.lexists(target):
        move_directory(target, _aside(target), last=MANIFEST)
    move_directory(draft, target, last=MANIFEST)


def _tidy(draft: Path, target: Path) -> None:
    """Bring the old run back if no new one is in place, and delete what is left over."""
    _recover(target)
    shutil.rmtree(draft, ignore_errors=True)


def _recover(target: Path) -> None:
    """End a replacement that was cut off: the old run goes back, or goes if a new one is there."""
    aside = _aside(target)
    if not os.path.lexists(aside):
        return
    if _is_half(target) and _is_whole(aside):
        shutil.rmtree(target)
    if not os.path.lexists(target):
        move_directory(aside, target, last=MANIFEST)
        return
    if not _is_whole(target) and _is_whole(aside):
        raise OutputError(
            f"{target} is no run, and the run that stood there is in {aside}; move one of them away"
        )
    try:
        shutil.rmtree(aside)
    except OSError as error:
        raise OutputError(
            f"the run {target} is whole, but an older one that stood there cannot be deleted: "
            f"{error.strerror}; delete {aside} by hand"
        ) from error


def _is_whole(place: Path) -> bool:
    """Whether a run's last file is there."""
    return os.path.lexists(place / MANIFEST)


def _is_half(place: Path) -> bool:
    """Whether some of a run's files are there, but not the last, and nothing else."""
    if place.is_symlink() or not place.is_dir():
        return False
    return {each.name for each in place.iterdir()} <= REQUIRED | OPTIONAL


def _refuse_replacing(path: str | Path, place: Path, force: bool) -> None:
    names = names_in(place)
    if names is None:
        raise OutputError(
            f"{path} exists and is no run, and --force replaces nothing else; choose another place"
        )
    if not force:
        raise OutputError(
            f"the run {path} exists; replace it with --force (force=True in Python), or choose "
            f"another place"
        )
    others = {each.name for each in place.iterdir()} - names
    if others:
        raise OutputError(
            f"the run {path} also holds {shown_names(sorted(others))}, which --force would "
            f"delete; move that away, or choose another place"
        )


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.replaced"


def _sync_all(directory: Path) -> None:
    for path in directory.iterdir():
        sync(path)
    sync_directory(directory)
