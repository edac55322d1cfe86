"""Directories of files as one table: all files in the order of their paths, read by column name."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from segue.data.checks import Fault
from segue.data.contents import is_hidden, suffix_of
from segue.data.table import RaggedError, Rows, Table
from segue.errors import DataError

# What marks a directory as a table of a system of its own, and what reads that.
TABLE_MARKS = {
    "_delta_log": ("Delta Lake", "polars.read_delta (package deltalake)"),
    ".hoodie": ("Hudi", "Spark, or the package hudi"),
    "metadata/*.metadata.json": ("Iceberg", "polars.scan_iceberg (package pyiceberg)"),
}


def open_directory(
    path: Path, kinds: Mapping[str, str], open_file: Callable[[Path], Table]
) -> Table:
    """All files of one kind in a directory, as one table.

    A column may be missing from some files, and wider in some: integers and floats are widened, and
    integers together with text become text.

    Args:
        path: The directory.
        kinds: The kind of each file that can be read here, by its suffix.
        open_file: Opens one of them.

    Raises:
        DataError: It holds none or several kinds, or is a run or a table of another system.
    """
    _refuse_others(path)
    files = data_files(path, kinds)
    found = sorted({kinds[suffix_of(file)] for file in files})
    if not found:
        raise DataError(
            f"{path}: the directory holds no {' or '.join(sorted(set(kinds.values())))} file whose "
            "name and folders begin neither with '.' nor with '_'; give one that does, or a file"
        )
    if len(found) > 1:
        raise DataError(
            f"{path} holds files of several kinds, {' and '.join(found)}; name a file, or a "
            f"directory with one kind"
        )
    return _joined(str(path), {file: open_file(file) for file in files})


def data_files(path: Path, suffixes: Container[str]) -> list[Path]:
    """The files below a directory that have one of these suffixes, in the order of their paths."""
    return [
        file
        for file in sorted(path.rglob("*"))
        if suffix_of(file) in suffixes and file.is_file() and not is_hidden(file.relative_to(path))
    ]


def _joined(label: str, tables: Mapping[Path, Table]) -> Table:
    names = tuple(dict.fromkeys(name for table in tables.values() for name in table.names))
    lacking = {
        name: str(next(file for file, table in tables.items() if name not in table.names))
        for name in names
        if any(name not in table.names for table in tables.values())
    }

    def read(columns: Sequence[str]) -> Rows:
        rows: dict[Path, Rows] = {}
        faults: list[Fault] = []
        for file, table in tables.items():
            try:
                rows[file] = table.read(columns)
            except RaggedError as ragged:
                num_before = sum(each.frame.height for each in rows.values())
                faults += [replace(each, rows=each.rows + num_before) for each in ragged.faults]
                rows[file] = ragged.rows
        frames = {file: each.frame for file, each in rows.items()}
        alike = [pl.col(name).cast(_common_type(name, frames)) for name in columns]
        joined = Rows(
            pl.concat(frame.select(alike) for frame in frames.values()),
            sum(each.num_blank for each in rows.values()),
            next((each.encoding for each in rows.values() if each.encoding), None),
        )
        if faults:
            whole = [replace(each, num_rows=joined.frame.height) for each in faults]
            raise RaggedError(label, whole, joined)
        return joined

    is_untyped = all(table.is_untyped for table in tables.values())
    return Table(label, names, is_untyped, read, lacking=lacking)


def _common_type(name: str, frames: Mapping[Path, pl.DataFrame]) -> pl.DataType:
    """The type that holds a column of all frames.

    Raises:
        DataError: There is none.
    """
    file_of = {frame.schema[name]: file for file, frame in reversed(list(frames.items()))}
    types = [dtype for dtype in file_of if dtype != pl.Null]
    common = _widest(types)
    if common is not None:
        return common
    types_of_files = " but ".join(f"{dtype} in {file_of[dtype]}" for dtype in reversed(types))
    raise DataError(f"the column {name!r} is {types_of_files}; write both files alike")


def _widest(types: Sequence[pl.DataType]) -> pl.DataType | None:
    """The type that holds all values of these types; None where there is none."""
    if len(types) <= 1:
        return types[0] if types else pl.Null()
    if all(each.is_integer() for each in types):
        return pl.Int128() if pl.UInt64 in types else pl.Int64()
    if all(each.is_integer() or each.is_float() for each in types):
        return pl.Float64()
    if all(each.is_integer() or _is_text(each) for each in types):
        return pl.String()
    zones = {each.time_zone is not None for each in types if isinstance(each, pl.Datetime)}
    if len(zones) == 1 and all(isinstance(each, pl.Date | pl.Datetime) for each in types):
        return pl.Datetime("us", "UTC" if zones.pop() else None)
    return None


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _refuse_others(path: Path) -> None:
    """Refuse a run, and the tables of other systems, whose files hold deleted rows as well."""
    if (path / "manifest.json").exists():
        raise DataError(f"{path} is a run, not a log; give the log that it was made from")
    for mark, (system, reader) in TABLE_MARKS.items():
        if _any(path.glob(mark)):
            raise DataError(
                f"{path} is a table of {system}, whose files may hold deleted rows: read it with "
                f"{reader}, and give the DataFrame in Python or a Parquet file"
            )


def _any(paths: Iterable[Path]) -> bool:
    return next(iter(paths), None) is not None
