"""The rows of a log, by role: found, read, checked, and without those that cannot be used."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from segue.data.checks import BadRowsError, Fault, checked, refuse_where
from segue.data.ids import are_long_integers, as_ids
from segue.data.roles import (
    EVENT,
    ITEM,
    TIME,
    USER,
    WEIGHT,
    Role,
    column_notes,
    find_columns,
    unsettled_notes,
)
from segue.data.table import Table
from segue.data.times import as_times
from segue.errors import DataError

DROPS_THEM = "--drop-bad-rows (drop_bad_rows=True in Python) drops such rows"


@dataclass(frozen=True)
class Wanted:
    """Which columns of a log are wanted.

    Attributes:
        chosen: The roles, each with the column that was chosen for it, or None.
        needed: The optional roles that must be there and clean.
    """

    chosen: Mapping[Role, str | None]
    needed: Collection[Role] = ()

    def is_needed(self, role: Role) -> bool:
        """Whether a log is refused that has no clean column for a role."""
        return role.is_required or role in self.needed


@dataclass(frozen=True)
class Examined:
    """What the columns of a log hold.

    Attributes:
        columns: The column of each role that has a usable one.
        values: The values of each of these, null in the rows at fault.
        faults: What is wrong with some rows of a column that is needed.
        left_out: One line for each column that is not needed and not usable.
        notes: Of the reading.
        num_rows: Of the table.
    """

    columns: Mapping[Role, str]
    values: Mapping[Role, pl.Series]
    faults: Sequence[Fault]
    left_out: Sequence[str]
    notes: Sequence[str]
    num_rows: int

    def good_rows(self) -> pl.DataFrame:
        """The rows that are not at fault, a column for each role."""
        is_good = np.ones(self.num_rows, np.bool_)
        for fault in self.faults:
            is_good[fault.rows] = False
        frame = pl.DataFrame(list(self.values.values()))
        return frame if is_good.all() else frame.filter(is_good)


def examine(table: Table, wanted: Wanted) -> Examined:
    """Find and read the columns of a log, and what is wrong with their values.

    Raises:
        DataError: A role that is needed has no column, two, or one of a type that it cannot use; or
            there are no rows.
    """
    columns = find_columns(table.names, wanted.chosen, table.label, needed=wanted.needed)
    left_out = unsettled_notes(table.names, wanted.chosen, columns)
    for role, column in columns.items():
        if column in table.lacking and not wanted.is_needed(role):
            left_out.append(f"{role.name} is left out: {table.lacking[column]} has no {column!r}")
            columns = {other: each for other, each in columns.items() if other is not role}
    rows = table.read(list(columns.values()))
    if rows.frame.is_empty():
        raise DataError(f"{table.label} holds no interactions; give a log that has some")
    values: dict[Role, pl.Series] = {}
    faults: list[Fault] = []
    for role, column in columns.items():
        try:
            good, found = checked(_check_of(role, table), rows.frame[column].alias(role.name))
            if found and not wanted.is_needed(role):
                raise BadRowsError(table.label, found)
        except DataError as error:
            if wanted.is_needed(role):
                raise
            left_out.append(f"{role.name} is left out, as no option asks for it ({error})")
            continue
        values[role] = good
        faults += found
    used = {role: column for role, column in columns.items() if role in values}
    return Examined(used, values, faults, left_out, rows.notes(), rows.frame.height)


def read_rows(
    table: Table, wanted: Wanted, *, drop_bad_rows: bool
) -> tuple[pl.DataFrame, Mapping[Role, str], list[str]]:
    """The usable rows of a log: a column for each role, the columns' own names, and notes.

    Raises:
        DataError: As `examine`, and rows at fault, of which every kind is told; unless they are to
            be dropped and others are left.
    """
    found = examine(table, wanted)
    frame = found.good_rows()
    if found.faults and not drop_bad_rows:
        raise BadRowsError(table.label, found.faults, DROPS_THEM)
    if frame.is_empty():
        raise BadRowsError(table.label, found.faults, "no row is left without them")
    types = ", ".join(
        f"{name} {dtype}" for name, dtype in frame.schema.items() if name != EVENT.name
    )
    notes = [f"read {found.num_rows:,} interactions from {table.label} ({types})", *found.notes]
    if found.faults:
        told = "; ".join(map(str, found.faults))
        num_bad = found.num_rows - frame.height
        notes.append(f"dropped {num_bad:,} of {found.num_rows:,} rows: {told}")
    notes += column_notes(found.columns)
    notes += [
        f"{role.name} is text, as some of its integers are beyond 64 bits with a sign"
        for role in (USER, ITEM)
        if are_long_integers(frame[role.name])
    ]
    return frame, found.columns, [*notes, *found.left_out]


def _check_of(role: Role, table: Table) -> Callable[[pl.Series], pl.Series]:
    """What makes a column what its role needs, and refuses what cannot be that."""
    if role is TIME:
        return lambda values: as_times(values, table.label)
    if role is WEIGHT:
        return lambda values: _as_weights(values, table.label)
    if role is EVENT:
        return lambda values: _as_events(values, table.label)
    return lambda values: as_ids(values, table.label, is_untyped=table.is_untyped)


def _as_weights(values: pl.Series, where: str) -> pl.Series:
    """The weights as Float64, null where they are null; NaN, infinity and words are refused."""
    if not (values.dtype.is_numeric() or values.dtype in (pl.String, pl.Null)):
        raise DataError(
            f"{where}: weight is of type {values.dtype}; weights are numbers: "
            f"name another column with {WEIGHT.choice}"
        )
    remedy = f"mend these rows, or name another column with {WEIGHT.choice}"
    weights = values.cast(pl.Float64, strict=False)
    is_word = weights.is_null() & values.is_not_null()
    refuse_where(is_word, values, where, "is not a number", remedy)
    is_bad = ~weights.is_finite().fill_null(True)
    refuse_where(is_bad, values, where, "is NaN or infinite", remedy)
    return weights


def _as_events(values: pl.Series, where: str) -> pl.Series:
    """The kinds of events as text, null where they are null."""
    if values.dtype.is_nested() or values.dtype in (pl.Binary, pl.Object):
        raise DataError(
            f"{where}: event is of type {values.dtype}; kinds of events are text or numbers: "
            f"name another column with {EVENT.choice}"
        )
    return values.cast(pl.String)
