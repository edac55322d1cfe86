"""What failing to read or to write a run is told as: one line that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from pydantic import ValidationError
from safetensors import SafetensorError

from segue.errors import OutputError, RunError, SegueError

REMEDY = "restore the run from a copy or make it again"

# What the libraries raise for files that are not what they should be. Polars panics on some.
_READ_ERRORS = (
    OSError,
    ValueError,
    RecursionError,
    SegueError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    SafetensorError,
)
_WRITE_ERRORS = (OSError, ValueError, pl.exceptions.PolarsError, SafetensorError)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into a `RunError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; {REMEDY}") from error
    except _READ_ERRORS as error:
        raise RunError(f"cannot read {path}: {_reason(error)}; {REMEDY}") from error


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn whatever stops the writing of a run into an `OutputError`."""
    try:
        yield
    except _WRITE_ERRORS as error:
        raise OutputError(
            f"cannot write the run {path}: {_reason(error)}; what stood there is untouched: mend "
            f"that, or choose another place"
        ) from error


def _reason(error: BaseException) -> str:
    """What is wrong, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}" if where else first["msg"]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).splitlines()[0]
