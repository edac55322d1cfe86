"""Text files as tables: CSV and its relatives, RecBole's atomic files, JSON lines.

Fields are left as text. Blanks around a field are no part of it, and a field of blanks is an empty
one; lines without any value are skipped and counted.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from segue.data.checks import Fault, shown_names
from segue.data.contents import content_of, decoded, fallback_of, first_line, is_zipped, name_of
from segue.data.labels import BLANK
from segue.data.roles import is_usual_name
from segue.data.table import RaggedError, Rows, Table, lazy_table, readable
from segue.data.text_format import UNREAD, TextFormat
from segue.errors import DataError

ATOMIC_SUFFIXES = (".inter", ".item")
TEXT_SUFFIXES = (".csv", ".tsv", ".txt", *ATOMIC_SUFFIXES)
SNIFFED_SEPARATORS = ",\t;|"
MORE, BLANK_LINE = "_more", "_blank"
# Where the first so many of the fields that are too many are empty, the others are not seen.
MOST_MORE = 16
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?|\d{9,}(\.\d*)?")
QUOTE_IT = "quote text that holds a separator, or mend these lines"


class NoHeaderError(DataError):
    """The first line of a text file looks like data."""


def open_text(path: Path, suffix: str, text: TextFormat) -> Table:
    """Find out the columns of a text file, whose separator is seen from its first line.

    Raises:
        DataError: It is no text, or its first line looks like data where it should be a header.
    """
    header, encoding = first_line(path, text.encoding)
    is_atomic = suffix in ATOMIC_SUFFIXES
    separator = "\t" if is_atomic or suffix == ".tsv" else _sniffed_separator(header)
    file = _Delimited(path, text, separator, is_atomic, encoding)
    with readable(path):
        names = text.read_of(file.names)
    if text.has_header and text.columns is None:
        _refuse_data(path, names)
    return Table(str(path), names, True, file.read, _atomic_lists(header) if is_atomic else {})


@dataclass(frozen=True)
class _Delimited:
    """A text file with one character between its fields.

    Attributes:
        is_atomic: Whether it is RecBole's: without quotes, but with types after the names.
        encoding: None: UTF-8 as far as is seen.
    """

    path: Path
    text: TextFormat
    separator: str
    is_atomic: bool
    encoding: str | None

    @property
    def names(self) -> Sequence[str]:
        """What the columns are called, by the header or by the text's format."""
        return self._named(self._scan(self._source)).collect_schema().names()

    def read(self, columns: Sequence[str]) -> Rows:
        """The rows of some columns; lines without any value are skipped.

        Raises:
            RaggedError: Some lines have more fields than the first.
            DataError: It cannot be read.
        """
        with readable(self.path):
            try:
                rows = _without_blank(self._named(self._scan(self._source)), columns)
            except pl.exceptions.ComputeError as error:
                if self.encoding is None and "utf-8" in str(error):
                    return replace(self, encoding=fallback_of(self.path)).read(columns)
                if "found more fields" not in str(error):
                    raise
                return self._read_ragged(columns)
        return replace(rows, encoding=self._found_encoding)

    @property
    def _found_encoding(self) -> str | None:
        """The name of an encoding that was found out."""
        is_found = self.encoding is not None and self.text.encoding is None
        return name_of(self.encoding or "") if is_found else None

    @property
    def _source(self) -> Path | BytesIO:
        is_plain = self.encoding is None and not is_zipped(self.path)
        return self.path if is_plain else BytesIO(self._content)

    @property
    def _content(self) -> bytes:
        content = content_of(self.path)
        return content if self.encoding is None else decoded(self.path, content, self.encoding)

    def _scan(self, source: Path | BytesIO, *, is_ragged: bool = False) -> pl.LazyFrame:
        return pl.scan_csv(
            source,
            separator=self.separator,
            quote_char=None if self.is_atomic else '"',
            has_header=self.text.has_header or is_ragged,
            infer_schema=False,
            truncate_ragged_lines=is_ragged,
            glob=False,
        )

    def _named(self, lazy: pl.LazyFrame) -> pl.LazyFrame:
        """The columns by their names, without blanks around their fields."""
        found = lazy.collect_schema().names()
        lazy = lazy.rename(dict(zip(found, self._names_of(found), strict=True)))
        stripped = pl.all().str.strip_chars()
        is_empty = (stripped.str.len_bytes() == 0) & (pl.all().str.len_bytes() > 0)
        return lazy.with_columns(pl.when(~is_empty).then(stripped))

    def _names_of(self, found: Sequence[str]) -> Sequence[str]:
        if self.text.columns is None:
            if not self.text.has_header:
                return [f"column_{place + 1}" for place in range(len(found))]
            return [(name.partition(":")[0] if self.is_atomic else name).strip() for name in found]
        if len(self.text.columns) != len(found):
            raise DataError(
                f"{self.path}: line 1 has {len(found)} fields, but --columns names "
                f"{len(self.text.columns)}; name every column, and {UNREAD} for one that is not to "
                f"be read"
            )
        return self.text.names

    def _read_ragged(self, columns: Sequence[str]) -> Rows:
        """The rows of a file in which some lines are longer than the first.

        A header with more fields takes in what follows the others. Separators at the end of a line
        are no fields.

        Raises:
            RaggedError: Some are longer indeed; the rows are cut.
        """
        header, _, rest = self._content.partition(b"\n")
        if not self.text.has_header:
            header, rest = self.separator.join(self.names).encode(), self._content
        more = [f"{MORE}{place}" for place in range(MOST_MORE)]
        longer = self.separator.join(["", *more, ""]).encode()
        content = header.rstrip(b"\r") + longer[:-1] + b"\n" + rest
        wide = self._scan(BytesIO(content), is_ragged=True)
        own = wide.collect_schema().names()[:-MOST_MORE]
        is_longer = pl.any_horizontal(pl.col(more).is_not_null()).alias(MORE)
        parts = [self._named(wide.select(own)), wide.select(is_longer.replace(False, None))]
        rows = _without_blank(pl.concat(parts, how="horizontal"), [*columns, MORE])
        found = np.flatnonzero(rows.frame[MORE].is_not_null().to_numpy()).astype(np.int64)
        cut = Rows(rows.frame.drop(MORE), rows.num_blank, self._found_encoding)
        if not found.size:
            return cut
        what = "has more fields than the first"
        fault = Fault("a line", what, QUOTE_IT, found, rows.frame.height, None)
        raise RaggedError(str(self.path), [fault], cut)


def open_json_lines(path: Path) -> Table:
    """A file of one JSON object a line."""
    with readable(path):
        lazy = pl.scan_ndjson(content_of(path), infer_schema_length=None)
        return lazy_table(lazy, str(path))


def is_json_lines(path: Path) -> bool:
    """Whether the first line of a file is a whole JSON object, as in many files called `.json`."""
    try:
        return isinstance(json.loads(first_line(path, None)[0]), dict)
    except ValueError:
        return False


def _without_blank(lazy: pl.LazyFrame, columns: Sequence[str]) -> Rows:
    # All columns are read: a line may lack only what is asked for, and Polars looks at a line's
    # length nowhere else.
    is_blank = pl.all_horizontal(pl.all().is_null()).alias(BLANK_LINE)
    frame = lazy.select(*columns, is_blank).collect()
    kept = frame.filter(~pl.col(BLANK_LINE)).drop(BLANK_LINE)
    return Rows(kept, frame.height - kept.height)


def _refuse_data(path: Path, names: Sequence[str]) -> None:
    """Refuse a header that nobody would write: numbers or dates, and none of the usual names."""
    is_data = any(NUMBER.fullmatch(name) or MOMENT.fullmatch(name) for name in names)
    if is_data and not any(is_usual_name(name) for name in names):
        raise NoHeaderError(
            f"{path}: line 1 looks like data and not like a header ({shown_names(names)}); give "
            f"--no-header --columns {','.join(_guessed(names))} (text=TextFormat(...) in Python), "
            f"where {UNREAD} is not read; if it is a header, --columns alone gives it other names"
        )


def _guessed(fields: Sequence[str]) -> list[str]:
    """Names for a line of data: the first two fields, the last moment, the first word."""
    places = range(len(fields))
    moments = [place for place in places if MOMENT.fullmatch(fields[place])][-1:]
    others = [place for place in places if place not in moments]
    words = [place for place in others[2:] if fields[place].isalpha()][:1]
    chosen = (("user", others[:1]), ("item", others[1:2]), ("event", words), ("time", moments))
    name_of = {place: name for name, found in chosen for place in found}
    return [name_of.get(place, UNREAD) for place in places]


def _atomic_lists(header: str) -> dict[str, str]:
    """RecBole's columns of several words, which blanks separate."""
    typed = [field.partition(":") for field in header.split("\t")]
    return {name.strip(): BLANK for name, _, kind in typed if kind == "token_seq"}


def _sniffed_separator(header: str) -> str:
    """What separates the header's fields: the most frequent candidate, the comma on a tie."""
    return max(SNIFFED_SEPARATORS, key=header.count)
