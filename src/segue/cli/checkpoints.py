"""The checkpoint that an interrupted training leaves beside the run to be."""

import os
from contextlib import suppress
from pathlib import Path

from segue.errors import OutputError


def checkpoint_of(run: Path) -> Path:
    """The directory of the checkpoint, also where the run is called `.` or `..`."""
    named = run if run.name not in ("", "..") else Path(os.path.abspath(run))
    return named.parent / f"{named.name}.checkpoint"


def refuse_checkpoint(directory: Path) -> None:
    """Refuse to forget an interrupted training.

    Raises:
        OutputError: There is one.
    """
    if directory.exists():
        raise OutputError(
            f"{directory} holds an interrupted training; go on from it with --resume, or give it "
            f"up with --force"
        )


def remove_checkpoint(directory: Path) -> None:
    """Remove what training saved, if it did; what else lies in the directory stays."""
    from segue.training.checkpoint import FILE_NAME

    # A training that was killed while it saved leaves a file with a longer name.
    for file in directory.glob(f"*{FILE_NAME}*"):
        file.unlink(missing_ok=True)
    with suppress(OSError):
        directory.rmdir()
