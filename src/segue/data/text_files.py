"""Text files as tables: CSV and its relatives, RecBole's atomic files, MovieLens' headerless ones.

Fields are left as text. Blanks around a field are no part of it, and a field of blanks is an empty
one; lines without any value are skipped and counted.
"""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import polars as pl

from segue.data.checks import shown, shown_names
from segue.data.labels import BLANK
from segue.data.roles import is_usual_name
from segue.data.table import ENCODING_OPTIONS, Rows, Table, lazy_table, readable
from segue.errors import DataError

ATOMIC_SUFFIXES = (".inter", ".item")
TEXT_SUFFIXES = (".csv", ".tsv", ".txt", *ATOMIC_SUFFIXES)
SNIFFED_SEPARATORS = ",\t;|"
# https://recbole.io/docs/user_guide/data/atomic_files.html
ATOMIC_TYPES = ("token", "token_seq", "float", "float_seq")
HEADER_LIMIT_BYTES = 1 << 20
CONTROL_CHARACTERS = r"[\x00-\x08\x0b\x0c\x0e-\x1f]"
IS_BLANK = pl.all_horizontal(pl.all().is_null())
UNREAD = "_"
# What spreadsheets of western Windows write. It contains all of Latin-1 that occurs in text:
# MovieLens-1M is Latin-1, and accented text of either is practically never valid UTF-8.
FALLBACK, FALLBACK_NAME = "cp1252", "Windows-1252"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?|\d{9,}(\.\d*)?")


class NoHeaderError(DataError):
    """The first line of a text file looks like data."""


@dataclass(frozen=True)
class TextFormat:
    """How a text file is written, where that is not what it looks like.

    Attributes:
        has_header: Whether its first line has the columns' names.
        columns: The columns' names, instead of those in the header; `_` is a column not read.
        encoding: Such as "cp1252"; by default UTF-8, UTF-16 by its mark, or else Windows-1252.
    """

    has_header: bool = True
    columns: tuple[str, ...] | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        named = [name for name in self.columns or () if name != UNREAD]
        twice = [name for name in named if named.count(name) > 1]
        if twice:
            raise DataError(f"--columns names {twice[0]!r} twice; give every column its own name")


@dataclass(frozen=True)
class Layout:
    """A text file without a header or quotes: what stands between the fields, and their names.

    `lists` are the columns that hold several labels, and what stands between those.
    """

    separator: str
    columns: tuple[str, ...]
    lists: Mapping[str, str] = field(default_factory=dict)


def open_text(path: Path, suffix: str, text: TextFormat) -> Table:
    """Find out the columns of a text file, whose separator is seen from its first line.

    Raises:
        DataError: It is no text, or its first line looks like data where it should be a header.
    """
    header, encoding = _first_line(path, text.encoding)
    is_atomic = suffix in ATOMIC_SUFFIXES
    separator = "\t" if is_atomic or suffix == ".tsv" else _sniffed_separator(header)

    def scan(encoding: str | None) -> pl.LazyFrame:
        return _scan(path, encoding, separator, has_quotes=not is_atomic, text=text)

    def read(columns: Sequence[str]) -> Rows:
        with readable(path):
            try:
                return _without_blank(scan(encoding), columns, _told(encoding, text))
            except pl.exceptions.ComputeError as error:
                if encoding is not None or "utf-8" not in str(error):
                    raise
                return _without_blank(scan(FALLBACK), columns, FALLBACK_NAME)

    with readable(path):
        found = scan(encoding).collect_schema().names()
    names = tuple(name for name in found if name not in _unread(text))
    if text.has_header and text.columns is None:
        _refuse_data(path, names)
    return Table(str(path), names, True, read, _atomic_lists(header) if is_atomic else {})


def open_headerless(path: Path, layout: Layout, text: TextFormat) -> Table:
    """Read a file such as MovieLens' `ratings.dat` whole.

    Raises:
        DataError: A line has another number of fields, or is no text.
    """
    layout = layout if text.columns is None else replace(layout, columns=_distinct(text.columns))
    with readable(path):
        content, encoding = _as_utf8(path, text.encoding)
        lines = pl.read_lines(content)["line"]
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
    rows = Rows(frame, int(is_blank.sum()), encoding)
    return Table(
        str(path),
        tuple(name for name in layout.columns if name not in _unread(text)),
        True,
        lambda names: replace(rows, frame=frame.select(names)),
        {name: separator for name, separator in layout.lists.items() if name in layout.columns},
    )


def is_headerless(path: Path, layout: Layout) -> bool:
    """Whether a file whose suffix promises a layout has it, as far as its first line tells.

    RecBole's `.item` has a header with types where GroupLens' `u.item` has none; and many a `.dat`
    is an ordinary table.
    """
    line = _first_line(path, None)[0]
    is_typed = all(field.partition(":")[2] in ATOMIC_TYPES for field in line.split("\t"))
    return not is_typed and (layout.separator in line or not line.strip())


def is_compressed(path: Path) -> bool:
    """Whether the file is gzipped, by its name."""
    return path.suffix.lower() == ".gz"


def suffix_of(path: Path) -> str:
    """The lower-case suffix, that of the file inside where `path` is compressed."""
    return (path.with_suffix("") if is_compressed(path) else path).suffix.lower()


def open_json_lines(path: Path) -> Table:
    """A file of one JSON object a line."""
    with readable(path):
        lazy = pl.scan_ndjson(_bytes(path), infer_schema_length=None)
        return lazy_table(lazy, str(path))


def is_json_lines(path: Path) -> bool:
    """Whether the first line of a file is a whole JSON object, as in many files called `.json`."""
    try:
        return isinstance(json.loads(_first_line(path, None)[0]), dict)
    except ValueError:
        return False


def _scan(
    path: Path, encoding: str | None, separator: str, *, has_quotes: bool, text: TextFormat
) -> pl.LazyFrame:
    source = path if encoding is None else BytesIO(_decoded(path, _bytes(path), encoding))
    lazy = pl.scan_csv(
        source,
        separator=separator,
        quote_char='"' if has_quotes else None,
        has_header=text.has_header,
        infer_schema=False,
        glob=False,
    )
    found = lazy.collect_schema().names()
    lazy = lazy.rename(dict(zip(found, _names(path, found, text, has_quotes), strict=True)))
    stripped = pl.all().str.strip_chars()
    is_empty = (stripped.str.len_bytes() == 0) & (pl.all().str.len_bytes() > 0)
    return lazy.with_columns(pl.when(~is_empty).then(stripped))


def _names(path: Path, found: Sequence[str], text: TextFormat, has_quotes: bool) -> Sequence[str]:
    """What the columns are called, by the header or by `text`; RecBole's types are cut off."""
    if text.columns is None:
        if not text.has_header:
            return [f"column_{place + 1}" for place in range(len(found))]
        return [(name if has_quotes else name.partition(":")[0]).strip() for name in found]
    if len(text.columns) != len(found):
        raise DataError(
            f"{path}: line 1 has {len(found)} fields, but --columns names {len(text.columns)}; "
            f"name every column, and {UNREAD} for one that is not to be read"
        )
    return _distinct(text.columns)


def _distinct(columns: Sequence[str]) -> tuple[str, ...]:
    """The names, those of unread columns made different."""
    return tuple(
        f"{UNREAD}{place}" if name == UNREAD else name for place, name in enumerate(columns)
    )


def _unread(text: TextFormat) -> set[str]:
    """What `_distinct` calls the columns that are not read."""
    return set(_distinct(text.columns or ())) - set(text.columns or ())


def _without_blank(lazy: pl.LazyFrame, columns: Sequence[str], encoding: str | None) -> Rows:
    frame = lazy.select(columns).collect()
    if not frame.select(IS_BLANK).to_series().any():
        return Rows(frame, 0, encoding)
    # A line without these fields may still have others: then it is not blank.
    kept = lazy.filter(~IS_BLANK).select(columns).collect()
    return Rows(kept, frame.height - kept.height, encoding)


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


def _first_line(path: Path, encoding: str | None) -> tuple[str, str | None]:
    """The first line, and the encoding where that is seen not to be UTF-8 already."""
    with readable(path), gzip.open(path) if is_compressed(path) else path.open("rb") as file:
        line = file.readline(HEADER_LIMIT_BYTES)
        if encoding is None and line.startswith(UTF_16_MARKS):
            encoding = "utf-16"
        if encoding is not None:
            # The end of a line of UTF-16 is not that of its bytes.
            content = line + file.read(HEADER_LIMIT_BYTES)
            return _decoded_start(path, content, encoding).split("\n")[0].rstrip("\r"), encoding
    if b"\0" in line:
        raise DataError(f"{path}: line 1 is not text; is the file of another format?")
    try:
        return line.decode("utf-8-sig").rstrip("\r\n"), None
    except UnicodeDecodeError:
        return line.decode(FALLBACK, errors="replace").rstrip("\r\n"), FALLBACK


def _told(encoding: str | None, text: TextFormat) -> str | None:
    """The name of an encoding that was found out."""
    if encoding is None or text.encoding is not None:
        return None
    return FALLBACK_NAME if encoding == FALLBACK else encoding.upper()


def _sniffed_separator(header: str) -> str:
    """What separates the header's fields: the most frequent candidate, the comma on a tie."""
    return max(SNIFFED_SEPARATORS, key=header.count)


def _bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if is_compressed(path) else content


def _as_utf8(path: Path, encoding: str | None) -> tuple[bytes, str | None]:
    """The file's text as UTF-8, and the encoding that was found out where it was another."""
    content = _bytes(path)
    if encoding is not None:
        return _decoded(path, content, encoding), None
    try:
        content.decode()
        return content, None
    except UnicodeDecodeError:
        return _decoded(path, content, FALLBACK), FALLBACK_NAME


def _decoded(path: Path, content: bytes, encoding: str) -> bytes:
    """Text in an encoding as UTF-8.

    Raises:
        DataError: No such encoding, or the text is in another.
    """
    try:
        return content.decode(encoding).removeprefix("\ufeff").encode()
    except LookupError:
        raise _unknown(path, encoding) from None
    except UnicodeError as error:
        raise DataError(
            f"{path} is no text in {encoding} ({error}); name its encoding with {ENCODING_OPTIONS}"
        ) from None


def _decoded_start(path: Path, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding, errors="replace").removeprefix("\ufeff")
    except LookupError:
        raise _unknown(path, encoding) from None


def _unknown(path: Path, encoding: str) -> DataError:
    return DataError(f"{path}: there is no encoding {encoding!r}; give one such as cp1252 or utf-8")
