"""What a reader hands over: a table's columns, and the rows of those that are asked for."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import polars as pl

from segue.data.checks import BadRowsError, Fault
from segue.errors import DataError

ENCODING_OPTIONS = "--encoding or --items-encoding (TextFormat.encoding in Python)"


@dataclass(frozen=True)
class Rows:
    """The rows of some columns.

    Attributes:
        frame: The columns.
        num_blank: How many lines of a text file were skipped, without a value in any column.
        encoding: Of a text file that is not UTF-8.
    """

    frame: pl.DataFrame
    num_blank: int = 0
    encoding: str | None = None

    def notes(self) -> list[str]:
        """One line each: what was particular about the reading."""
        notes = []
        if self.num_blank:
            notes.append(f"skipped {self.num_blank:,} blank lines")
        if self.encoding is not None:
            notes.append(
                f"read as {self.encoding}, as it is no UTF-8; another encoding is named with "
                f"{ENCODING_OPTIONS}"
            )
        return notes


@dataclass(frozen=True)
class Table:
    """A table that can be read.

    Attributes:
        label: Its name in messages.
        names: Its columns.
        is_untyped: True where every field is text because the format knows nothing else.
        read: Gives the rows of some columns.
        lists: The columns of text that the format says hold several labels, and what separates
            those.
        lacking: The columns that a file of several lacks, and that file. They cannot be read.
    """

    label: str
    names: tuple[str, ...]
    is_untyped: bool
    read: Callable[[Sequence[str]], Rows]
    lists: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)

    def lack_of(self, name: str) -> DataError:
        """What is to be said of a column that a file lacks."""
        return DataError(
            f"{self.lacking[name]} has no column {name!r}, which other files of {self.label} have; "
            f"name another column, or fewer files"
        )


class RaggedError(BadRowsError):
    """Some lines of a text file have another number of fields than they should.

    Attributes:
        rows: All rows nevertheless, those at fault cut or filled up.
    """

    def __init__(self, where: str, faults: Sequence[Fault], rows: Rows) -> None:
        """List all faults."""
        super().__init__(where, faults)
        self.rows = rows


def lazy_table(lazy: pl.LazyFrame, label: str) -> Table:
    """The table of a lazy frame with types."""

    def read(columns: Sequence[str]) -> Rows:
        with readable(label):
            return Rows(lazy.select(columns).collect())

    with readable(label):
        names = tuple(lazy.collect_schema().names())
    return Table(label, names, False, read)


# What Polars says, and the same in the words of a log.
REASONS = {
    "Syntax at": "a line is no JSON; mend it",
}


@contextmanager
def readable(label: object) -> Iterator[None]:
    """Say in one line what goes wrong when a file is read.

    Raises:
        DataError: It cannot be read.
    """
    try:
        yield
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{label} is empty; give a file with rows") from error
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{label} cannot be read: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Why something could not be read, on one line."""
    first_line = next(iter(str(error).splitlines()), type(error).__name__)
    return next((ours for theirs, ours in REASONS.items() if theirs in str(error)), first_line)
