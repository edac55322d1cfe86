"""Text files without a header or quotes, whose columns are known by their suffix: MovieLens'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from segue.data.checks import Fault
from segue.data.contents import as_utf8, first_line
from segue.data.table import RaggedError, Rows, Table, readable
from segue.data.text_format import TextFormat

# https://recbole.io/docs/user_guide/data/atomic_files.html
ATOMIC_TYPES = ("token", "token_seq", "float", "float_seq")
CONTROL_CHARACTERS = r"[\x00-\x08\x0b\x0c\x0e-\x1f]"


@dataclass(frozen=True)
class Layout:
    """A text file without a header or quotes: what separates the fields, and their names.

    `lists` are the columns that hold several labels, and what separates those.
    """

    separator: str
    columns: tuple[str, ...]
    lists: Mapping[str, str] = field(default_factory=dict)


def is_headerless(path: Path, layout: Layout) -> bool:
    """Whether a file whose suffix promises a layout has it, judged by its first line.

    RecBole's `.item` has a header with types where GroupLens' `u.item` has none; and many a `.dat`
    is an ordinary table.
    """
    line = first_line(path, None)[0]
    is_typed = all(field.partition(":")[2] in ATOMIC_TYPES for field in line.split("\t"))
    return not is_typed and (layout.separator in line or not line.strip())


def open_headerless(path: Path, layout: Layout, text: TextFormat) -> Table:
    """Read a file such as MovieLens' `ratings.dat` whole."""
    layout = layout if text.columns is None else replace(layout, columns=text.names)
    with readable(path):
        content, encoding = as_utf8(path, text.encoding)
        all_lines = pl.read_lines(content)["line"]
    is_blank = all_lines.str.strip_chars().str.len_bytes() == 0
    lines = all_lines.filter(~is_blank)
    fields = lines.str.split_exact(layout.separator, len(layout.columns) - 1)
    frame = fields.struct.rename_fields(layout.columns).struct.unnest()
    rows = Rows(frame, int(is_blank.sum()), encoding)
    faults = _layout_faults(lines, layout)

    def read(columns: Sequence[str]) -> Rows:
        chosen = replace(rows, frame=frame.select(columns))
        if faults:
            raise RaggedError(str(path), faults, chosen)
        return chosen

    return Table(
        str(path),
        text.read_of(layout.columns),
        True,
        read,
        {name: separator for name, separator in layout.lists.items() if name in layout.columns},
    )


def _layout_faults(lines: pl.Series, layout: Layout) -> list[Fault]:
    """The lines that are no text, and those with another number of fields."""
    num_fields = len(layout.columns)
    is_binary = lines.str.contains(CONTROL_CHARACTERS)
    is_ragged = lines.str.count_matches(layout.separator, literal=True) != num_fields - 1
    wanted = f"has not the {num_fields} fields {layout.separator.join(layout.columns)}"
    kinds = {"is not text": is_binary, wanted: is_ragged & ~is_binary}
    found = {what: np.flatnonzero(is_bad.to_numpy()) for what, is_bad in kinds.items()}
    return [
        Fault("a line", what, "mend these lines", rows, len(lines), lines[int(rows[0])])
        for what, rows in found.items()
        if rows.size
    ]
