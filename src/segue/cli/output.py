"""What commands print: notes on standard error, tables and JSON on standard output."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

Cell = str | int | float | None


def say(*lines: str) -> None:
    """Print lines on standard output; what a terminal would not show as it is becomes blanks."""
    print(_shown(lines))


def note(*lines: str) -> None:
    """Print lines on standard error; what a terminal would not show as it is becomes blanks."""
    if lines:
        print(_shown(lines), file=sys.stderr)


class NoteHandler(logging.Handler):
    """Prints what segue notes in passing as `note` does."""

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging.Handler.emit`."""
        note(record.getMessage())


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document, in ASCII, which no terminal's encoding can spoil."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print columns side by side: text to the left, numbers to the right.

    Text that a terminal would not show as it is, such as escape sequences, is shown as blanks.
    """
    is_number = [
        any(isinstance(row[column], int | float) for row in rows) for column in range(len(header))
    ]
    lines = [[shown_cell(cell) for cell in row] for row in (header, *rows)]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        padded = []
        for text, width, to_the_right in zip(line, widths, is_number, strict=True):
            blanks = " " * (width - cell_len(text))
            padded.append(blanks + text if to_the_right else text + blanks)
        say("  ".join(padded).rstrip())


def shown_cell(cell: Cell) -> str:
    """A value as a table shows it: in one line, without escape sequences."""
    if cell is None:
        return ""
    text = f"{cell:.4f}" if isinstance(cell, float) else str(cell)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _shown(lines: Sequence[str]) -> str:
    """The lines, which may hold several each, as a terminal may have them."""
    return "\n".join(shown_cell(each) for each in "\n".join(lines).split("\n"))
