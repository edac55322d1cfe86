"""Tables as they come: CSV and TSV, Parquet, JSON lines, MovieLens and RecBole files, DataFrames.

A reader only says which columns there are and hands over those that are asked for; what the
values mean is for its callers. Fields of text files are left as text.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from segue.data.archives import COMPRESSED_SUFFIXES, refuse_bomb
from segue.data.contents import suffix_of
from segue.data.directories import open_directory
from segue.data.layouts import Layout, is_headerless, open_headerless
from segue.data.pandas_tables import open_pandas
from segue.data.table import Table, lazy_table, readable
from segue.data.text_files import TEXT_SUFFIXES, is_json_lines, open_json_lines, open_text
from segue.data.text_format import TextFormat
from segue.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Source: TypeAlias = "str | os.PathLike[str] | pl.DataFrame | pl.LazyFrame | pd.DataFrame"

PARQUET_SUFFIXES = (".parquet", ".pq")
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
# The files that make a directory a table, by suffix, and what they are called together.
DIRECTORY_KINDS = {
    **dict.fromkeys(PARQUET_SUFFIXES, ".parquet"),
    **dict.fromkeys((".csv", ".tsv"), ".csv"),
    **dict.fromkeys(JSON_LINES_SUFFIXES, ".jsonl"),
}
UNPACK = "unpack it, or compress the file itself as .gz"
SAVE_AS_PARQUET = "save the table as Parquet or CSV"
REMEDIES = {
    ".json": "write one object a line (.jsonl), or CSV or Parquet",
    **dict.fromkeys((".zip", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z", ".rar"), UNPACK),
    **dict.fromkeys((".xls", ".xlsx", ".ods"), "save the sheet as CSV"),
    **dict.fromkeys((".feather", ".arrow", ".ipc", ".avro", ".orc"), SAVE_AS_PARQUET),
    **dict.fromkeys((".pkl", ".pickle", ".npy", ".npz", ".h5", ".hdf5"), SAVE_AS_PARQUET),
    **dict.fromkeys((".db", ".sqlite", ".sql"), "export the table as Parquet or CSV"),
}


def open_table(
    source: Source,
    layouts: Mapping[str, Layout],
    text: TextFormat = TextFormat(),  # noqa: B008 - frozen
) -> Table:
    """Find out the format and the columns of `source`, a path or a DataFrame.

    Args:
        source: A file, a directory of files of one kind (Parquet, CSV or JSON lines; all of them,
            in the order of their paths; the folders' names add no columns), or a Polars or pandas
            DataFrame. A text file may be compressed (`.gz`), or alone in a zip archive.
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
        return open_pandas(source)
    raise DataError(
        f"{type(source).__name__} is not a table: give a path, or a Polars or pandas DataFrame"
    )


def _open_path(path: Path, layouts: Mapping[str, Layout], text: TextFormat) -> Table:
    if path.is_dir():
        return open_directory(path, DIRECTORY_KINDS, lambda file: _open_path(file, layouts, text))
    if not path.is_file():
        raise DataError(f"no such file or directory: {path}")
    if path.suffix.lower() in COMPRESSED_SUFFIXES:
        with readable(path):
            refuse_bomb(path)
    suffix = suffix_of(path)
    if suffix in PARQUET_SUFFIXES and path.suffix.lower() != suffix:
        raise DataError(f"{path}: Parquet is not read out of other files; unpack it")
    if suffix in PARQUET_SUFFIXES:
        with readable(path):
            return lazy_table(pl.scan_parquet(path, glob=False), str(path))
    if suffix in layouts and is_headerless(path, layouts[suffix]):
        return open_headerless(path, layouts[suffix], text)
    if suffix in TEXT_SUFFIXES or suffix in layouts:
        return open_text(path, suffix, text)
    if suffix in JSON_LINES_SUFFIXES or (suffix == ".json" and is_json_lines(path)):
        return open_json_lines(path)
    known = sorted({*TEXT_SUFFIXES, *PARQUET_SUFFIXES, *JSON_LINES_SUFFIXES, *layouts})
    remedy = REMEDIES.get(suffix, f"give one of {' '.join(known)}")
    raise DataError(f"{path}: files of type {suffix!r} are not read; {remedy}")
