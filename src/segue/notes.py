"""What is said in passing, such as that a file system cannot do all that it should."""

import logging
import os
from pathlib import Path

# Python prints warnings on standard error where nobody configured logging.
log = logging.getLogger("segue.notes")
_noted: set[tuple[Path, str]] = set()


def note_once(directory: Path, what: str) -> None:
    """Say what the file system of `directory` cannot do, once a process."""
    whole = directory.absolute()
    mount = next(each for each in (whole, *whole.parents) if os.path.ismount(each))
    if (mount, what) not in _noted:
        _noted.add((mount, what))
        log.warning("note: the file system at %s %s", mount, what)
