"""Tables as they come: CSV and TSV, Parquet, MovieLens and RecBole files, DataFrames.

A reader only says which columns there are and hands over those that are asked for; what the
values mean is for its callers. Fields of text files are left as text.
"""

import gzip
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

import polars as pl

from segue.data.checks import shown
from segue.data.labels import BLANK
from segue.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Source: TypeAlias = "str | os.PathLike[str] | pl.DataFrame | pl.LazyFrame | pd.DataFrame"

PARQUET_SUFFIXES = (".parquet", ".pq")
ATOMIC_SUFFIXES = (".inter", ".item")
TEXT_SUFFIXES = (".csv", ".tsv", ".txt", *ATOMIC_SUFFIXES)
SNIFFED_SEPARATORS = ",\t;|"
# https://recbole.io/docs/user_guide/data/atomic_files.html
ATOMIC_TYPES = ("token", "token_seq", "float", "float_seq")
HEADER_LIMIT_BYTES = 1 << 20
_IS_BLANK = pl.all_horizontal(pl.all().is_null())
CONTROL_CHARACTERS = r"[\x00-\x08\x0b\x0c\x0e-\x1f]"


@dataclass(frozen=True)
class Layout:
    """A text file without a header or quotes: what stands between the fields, and their names.

    `lists` are the columns that hold several labels, and what stands between those.
    """

    separator: str
    columns: tuple[str, ...]
    lists: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table that can be read: its name in messages, its columns, and how to get some of them.

    `is_untyped` is True where every field is text because the format knows nothing else. `lists`
    are the columns of text that the format says hold several labels, and what stands between those.
    """

    label: str
    names: tuple[str, ...]
    is_untyped: bool
    read: Callable[[Sequence[str]], "Rows"]
    lists: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """The rows of some columns, and how many lines of a text file were skipped as they are blank.

    Blank is a line without a value in any column of the file.
    """

    frame: pl.DataFrame
    num_blank: int = 0


def open_table(source: Source, layouts: Mapping[str, Layout]) -> Table:
    """Find out the format and the columns of `source`, a path or a DataFrame.

    Args:
        source: A file, a directory of Parquet files (all of them, in the order of their paths; the
            folders' names add no columns), or a Polars or pandas DataFrame. `.gz` after the
            suffix of a text file means that it is compressed.
        layouts: The headerless files that the caller understands, by lower-case suffix.

    Raises:
        DataError: No such file, an unknown or damaged format, or text that is not text.
    """
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return _lazy_table(source.lazy(), f"the Polars {type(source).__name__}")
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source), layouts)
    # A pandas DataFrame can only exist where pandas has been imported already.
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return _pandas_table(source.rename(columns=str))
    raise DataError(
        f"{type(source).__name__} is not a table: give a path, or a Polars or pandas DataFrame"
    )


def _open_path(path: Path, layouts: Mapping[str, Layout]) -> Table:
    if path.is_dir():
        return _open_directory(path)
    if not path.is_file():
        raise DataError(f"no such file or directory: {path}")
    suffix = _suffix(path)
    if suffix in PARQUET_SUFFIXES:
        with _readable(path):
            return _lazy_table(pl.scan_parquet(path, glob=False), str(path))
    if suffix in layouts and not _is_atomic(path):
        return _open_headerless(path, layouts[suffix])
    if suffix in TEXT_SUFFIXES:
        return _open_text(path, suffix)
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
    with _readable(path):
        return _lazy_table(pl.scan_parquet(files, glob=False, hive_partitioning=False), str(path))


def _open_text(path: Path, suffix: str) -> Table:
    header = _header(path)
    is_atomic = suffix in ATOMIC_SUFFIXES
    separator = "\t" if is_atomic or suffix == ".tsv" else _sniffed_separator(header)
    with _readable(path):
        lazy = pl.scan_csv(
            path,
            separator=separator,
            quote_char=None if is_atomic else '"',
            infer_schema=False,
            glob=False,
        )
        # Blanks around a field are no part of it, and a field of blanks is an empty one.
        if is_atomic:
            lazy = lazy.rename(lambda name: name.partition(":")[0])
        lazy = lazy.rename(str.strip)
        stripped = pl.all().str.strip_chars()
        is_empty = (stripped.str.len_bytes() == 0) & (pl.all().str.len_bytes() > 0)
        lazy = lazy.with_columns(pl.when(~is_empty).then(stripped))
        table = _lazy_table(lazy, str(path), is_untyped=True)
        return replace(table, lists=_atomic_lists(header)) if is_atomic else table


def _atomic_lists(header: str) -> dict[str, str]:
    """RecBole's columns of several words, which blanks separate."""
    typed = [field.partition(":") for field in header.split("\t")]
    return {name.strip(): BLANK for name, _, kind in typed if kind == "token_seq"}


def _open_headerless(path: Path, layout: Layout) -> Table:
    """Read a file such as MovieLens' `ratings.dat` whole, as UTF-8 or else Latin-1."""
    with _readable(path):
        lines = pl.read_lines(_utf8(_bytes(path)))["line"]
    is_blank = lines.str.strip_chars().str.len_bytes() == 0
    num_separators = lines.str.count_matches(layout.separator, literal=True)
    is_ragged = num_separators != len(layout.columns) - 1
    is_binary = lines.str.contains(CONTROL_CHARACTERS)
    is_bad = ~is_blank & (is_ragged | is_binary)
    if is_bad.any():
        number = is_bad.arg_max() or 0
        fault = (
            "is not text"
            if is_binary[number]
            else f"has {num_separators[number] + 1} fields instead of {len(layout.columns)} "
            f"({layout.separator.join(layout.columns)})"
        )
        raise DataError(f"{path}: line {number + 1:,} {fault}: {shown(lines[number])}")
    fields = lines.filter(~is_blank).str.split_exact(layout.separator, len(layout.columns) - 1)
    frame = fields.struct.rename_fields(layout.columns).struct.unnest()
    num_blank = int(is_blank.sum())
    return Table(
        str(path),
        layout.columns,
        True,
        lambda names: Rows(frame.select(names), num_blank),
        layout.lists,
    )


def _lazy_table(lazy: pl.LazyFrame, label: str, *, is_untyped: bool = False) -> Table:
    def read(columns: Sequence[str]) -> Rows:
        with _readable(label):
            frame = lazy.select(columns).collect()
            if not is_untyped or not frame.select(_IS_BLANK).to_series().any():
                return Rows(frame)
            # A line without these fields may still have others: then it is not blank.
            kept = lazy.filter(~_IS_BLANK).select(columns).collect()
            return Rows(kept, frame.height - kept.height)

    with _readable(label):
        names = tuple(lazy.collect_schema().names())
    return Table(label, names, is_untyped, read)


def _pandas_table(frame: "pd.DataFrame") -> Table:
    label = "the pandas DataFrame"

    def read(columns: Sequence[str]) -> Rows:
        try:
            return Rows(pl.from_pandas(_with_uuids_as_text(frame[list(columns)])))
        except (ImportError, ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{label} cannot be read: {_reason(error)}") from error

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
    return (path.with_suffix("") if _is_compressed(path) else path).suffix.lower()


def _is_compressed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _is_atomic(path: Path) -> bool:
    """Whether the header has RecBole's types: GroupLens' `u.item` has the suffix but no header."""
    fields = _header(path).split("\t")
    return all(field.partition(":")[2] in ATOMIC_TYPES for field in fields)


def _header(path: Path) -> str:
    with _readable(path), gzip.open(path) if _is_compressed(path) else path.open("rb") as file:
        line = file.readline(HEADER_LIMIT_BYTES)
    if b"\0" in line:
        raise DataError(f"{path}: line 1 is not text; is the file of another format?")
    return line.decode("utf-8-sig", errors="replace").rstrip("\r\n")


def _sniffed_separator(header: str) -> str:
    """What separates the header's fields: the most frequent candidate, the comma on a tie."""
    return max(SNIFFED_SEPARATORS, key=header.count)


def _bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if _is_compressed(path) else content


def _utf8(content: bytes) -> bytes:
    # ML-1M is Latin-1, ML-10M is UTF-8: accented Latin-1 text is practically never valid UTF-8.
    try:
        content.decode()
        return content
    except UnicodeDecodeError:
        return content.decode("latin-1").encode()


# What Polars says, told in the words of a log.
REASONS = {
    "found more fields": "a row has more fields than the header; quote its text, or mend it",
    "extra_columns": "its files have different columns; name one of them",
}


def _reason(error: BaseException) -> str:
    known = (told for said, told in REASONS.items() if said in str(error))
    return next(known, _first_line(error))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def _readable(label: object) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{label} is empty; give a file with a header and rows") from error
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{label} cannot be read: {_reason(error)}") from error
