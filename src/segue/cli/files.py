"""Files that commands write: refused before the work, and whole or not at all."""

from pathlib import Path

from segue import files
from segue.errors import OutputError


def refuse_taken(path: Path, example: str, *, force: bool) -> None:
    """Refuse a place for `--out` where nothing can be written, or where something stands.

    Args:
        path: Of the file to be.
        example: The name of such a file.
        force: Whether a file may be replaced.

    Raises:
        OutputError: Something stands there, or its directory does not exist or takes no files.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a directory; name a file, such as {path / example}")
    if path.exists() and not force:
        raise OutputError(f"{path} exists; choose another --out, or give --force to replace it")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path}: there is no directory {path.parent}; make it first")
    try:
        files.probe(path.absolute().parent)
    except OSError as error:
        raise _unwritable(path, error) from None


def write_text(path: Path, text: str) -> None:
    """The file appears whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        files.write_text(path, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror}; choose another --out")
