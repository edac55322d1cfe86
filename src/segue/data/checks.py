"""How the rows of a column are refused: how many, which one first, its value, and what to do."""

import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.errors import DataError

MAX_NAMES_TOLD = 40
NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Fault:
    """What is wrong with some rows of a column.

    Attributes:
        column: Its name.
        what: As the rest of a sentence: "is null".
        remedy: What to do.
        rows: int64[bad rows], from 0, ascending.
        num_rows: Of the column.
        example: The value in the first of the bad rows.
    """

    column: str
    what: str
    remedy: str
    rows: npt.NDArray[np.int64]
    num_rows: int
    example: object

    def __str__(self) -> str:
        """The fault as a sentence without a remedy; rows are counted from 1."""
        example = "" if self.example is None else f"{shown(self.example)} "
        return (
            f"{self.column} {self.what} in {len(self.rows):,} of {self.num_rows:,} rows, "
            f"first {example}in row {self.rows[0] + 1:,}"
        )


class BadRowsError(DataError):
    """Some rows of a table cannot be used."""

    def __init__(self, where: str, faults: Sequence[Fault], *remedies: str) -> None:
        """List all faults, then what to do about them, in one line."""
        advice = dict.fromkeys([*(fault.remedy for fault in faults), *remedies])
        super().__init__(f"{where}: {'; '.join([*map(str, faults), *advice])}")
        self.faults = tuple(faults)


def refuse_where(is_bad: pl.Series, values: pl.Series, where: str, fault: str, remedy: str) -> None:
    """Raise a `BadRowsError` that counts the bad rows and shows the first of them.

    `is_bad` is a Boolean series beside `values`, without nulls.
    """
    if not is_bad.any():
        return
    rows = np.flatnonzero(is_bad.to_numpy()).astype(np.int64)
    example = values[int(rows[0])]
    raise BadRowsError(where, [Fault(values.name, fault, remedy, rows, len(values), example)])


def checked(
    check: Callable[[pl.Series], pl.Series],
    values: pl.Series,
    excluded: npt.NDArray[np.int64] = NO_ROWS,
) -> tuple[pl.Series, list[Fault]]:
    """The values as `check` makes them, null in the rows that it refuses, and all its faults.

    Args:
        check: Raises `BadRowsError` for rows of the series that it is given.
        values: Any column.
        excluded: Rows that are not to be checked; their values are null.

    Raises:
        DataError: `check` refuses the column and not some of its rows.
    """
    is_checked = np.ones(len(values), np.bool_)
    is_checked[excluded] = False
    places = np.flatnonzero(is_checked).astype(np.int64)
    if not places.size:
        return pl.Series(values.name, [None] * len(values), values.dtype), []
    try:
        good = check(values.gather(places) if excluded.size else values)
    except BadRowsError as refused:
        faults = [
            replace(fault, rows=places[fault.rows], num_rows=len(values))
            for fault in refused.faults
        ]
        bad = np.concatenate([excluded, *(fault.rows for fault in faults)])
        good, others = checked(check, values, bad)
        return good, [*faults, *others]
    place_of = pl.Series(np.cumsum(is_checked) - 1).set(pl.Series(~is_checked), None)
    return (good.gather(place_of) if excluded.size else good), []


def shown(value: object) -> str:
    """A value as messages show it: on one line, its middle cut out where it is long."""
    return reprlib.repr(value)


def shown_names(names: Iterable[str]) -> str:
    """Names as messages list them: quoted, on one line, the first `MAX_NAMES_TOLD` of them."""
    quoted = [repr(name) for name in names]
    more = len(quoted) - MAX_NAMES_TOLD
    return ", ".join(quoted[:MAX_NAMES_TOLD]) + (f" and {more:,} more" if more > 0 else "")
