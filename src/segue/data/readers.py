"""Tables as they come: CSV and TSV, Parquet, MovieLens and RecBole files, DataFrames.

A reader only says which columns there are and hands over those that are asked for; what the
values mean is for its callers. Fields of text files are left as text.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

import polars as pl

from segue.data.table import Rows, Table, lazy_table, readable, reason
from segue.data.text_files import (
    TEXT_SUFFIXES,
    Layout,
    TextFormat,
    is_atomic_file,
    is_compressed,
    open_headerless,
    open_text,
)
from segue.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Source: TypeAlias = "str | os.PathLike[str] | pl.DataFrame | pl.LazyFrame | pd.DataFrame"

PARQUET_SUFFIXES = (".parquet", ".pq")


def open_table(
    source: Source,
    layouts: Mapping[str, Layout],
    text: TextFormat = TextFormat(),  # noqa: B008 - frozen
) -> Table:
    """Find out the format and the columns of `source`, a path or a DataFrame.

    Args:
        source: A file, a directory of Parquet files (all of them, in the order of their paths; the
            folders' names add no columns), or a Polars or pandas DataFrame. `.gz` after the
            suffix of a text file means that it is compressed.
        layouts: The headerless files that the caller understands, by lower-case suffix.
        text: How a text file is written.

    Raises:
        DataError: No such file, an unknown or damaged format, text that is not text, or `text` for
            what is no text file.
    """
    table = _open(source, layouts, text)
    if text != TextFormat() and not table.is_untyped:
        raise DataError(
            f"{table.label} is no text file, and a header, columns and an encoding are named for "
            "text files alone; leave --no-header, --columns and --encoding out (text= in Python)"
        )
    return table


def _open(source: Source, layouts: Mapping[str, Layout], text: TextFormat) -> Table:
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return lazy_table(source.lazy(), f"the Polars {type(source).__name__}")
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source), layouts, text)
    # A pandas DataFrame can only exist where pandas has been imported already.
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return _pandas_table(source.rename(columns=str))
    raise DataError(
        f"{type(source).__name__} is not a table: give a path, or a Polars or pandas DataFrame"
    )


def _open_path(path: Path, layouts: Mapping[str, Layout], text: TextFormat) -> Table:
    if path.is_dir():
        return _open_directory(path)
    if not path.is_file():
        raise DataError(f"no such file or directory: {path}")
    suffix = _suffix(path)
    if suffix in PARQUET_SUFFIXES:
        with readable(path):
            return lazy_table(pl.scan_parquet(path, glob=False), str(path))
    if suffix in layouts and not is_atomic_file(path):
        return open_headerless(path, layouts[suffix], text)
    if suffix in TEXT_SUFFIXES:
        return open_text(path, suffix, text)
    known = sorted({*TEXT_SUFFIXES, *PARQUET_SUFFIXES, *layouts})
    raise DataError(f"{path}: files of type {suffix!r} are not read; give one of {' '.join(known)}")


def _open_directory(path: Path) -> Table:
    if (path / "manifest.json").exists():
        raise DataError(f"{path} is a run, not a log; give the log that it was made from")
    files = [
        file for file in sorted(path.rglob("*.parquet")) if not _is_hidden(file.relative_to(path))
    ]
    if not files:
        raise DataError(
            f"{path}: the directory holds no .parquet file whose name and folders begin neither "
            "with '.' nor with '_'; give one that does, or a file"
        )
    with readable(path):
        return lazy_table(pl.scan_parquet(files, glob=False, hive_partitioning=False), str(path))


def _pandas_table(frame: "pd.DataFrame") -> Table:
    label = "the pandas DataFrame"

    def read(columns: Sequence[str]) -> Rows:
        try:
            return Rows(pl.from_pandas(_with_uuids_as_text(frame[list(columns)])))
        except (ImportError, ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{label} cannot be read: {reason(error)}") from error

    return Table(label, tuple(frame.columns), False, read)


def _with_uuids_as_text(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Polars takes no UUID objects from pandas."""
    written = {
        str(name): column.map(lambda value: str(value) if isinstance(value, UUID) else value)
        for name, column in frame.items()
        if column.dtype == object
        and any(isinstance(value, UUID) for value in column.dropna().head(1))
    }
    return frame.assign(**written)


def _is_hidden(path: Path) -> bool:
    """Whether a name on the way is one that data files do not have: `.part`, `_temporary`."""
    return any(name.startswith((".", "_")) for name in path.parts)


def _suffix(path: Path) -> str:
    """The lower-case suffix, that of the file inside where `path` is compressed."""
    return (path.with_suffix("") if is_compressed(path) else path).suffix.lower()
