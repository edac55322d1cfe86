"""How the rows of a column are refused: how many, which one first, its value, and what to do."""

import reprlib
from collections.abc import Iterable

import polars as pl

from segue.errors import DataError

MAX_NAMES_TOLD = 40


def refuse_where(is_bad: pl.Series, values: pl.Series, where: str, fault: str, remedy: str) -> None:
    """Raise a `DataError` that counts the bad rows and shows the first of them.

    `is_bad` is a Boolean series beside `values`, without nulls; rows are counted from 1.
    """
    if not is_bad.any():
        return
    first = is_bad.arg_max() or 0
    value = values[first]
    example = "" if value is None else f"{shown(value)} "
    raise DataError(
        f"{where}: {values.name} {fault} in {is_bad.sum():,} of {len(values):,} rows, "
        f"first {example}in row {first + 1:,}; {remedy}"
    )


def shown(value: object) -> str:
    """A value as messages show it: on one line, its middle cut out where it is long."""
    return reprlib.repr(value)


def shown_names(names: Iterable[str]) -> str:
    """Names as messages list them: quoted, on one line, the first `MAX_NAMES_TOLD` of them."""
    quoted = [repr(name) for name in names]
    more = len(quoted) - MAX_NAMES_TOLD
    return ", ".join(quoted[:MAX_NAMES_TOLD]) + (f" and {more:,} more" if more > 0 else "")
