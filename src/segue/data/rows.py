"""The rows of a log, by role: found, read, checked, and without those that cannot be used."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from segue.data.checks import NO_ROWS, BadRowsError, Fault, checked, refuse_where
from segue.data.ids import TEXT_TYPES, are_long_integers, as_ids
from segue.data.roles import (
    EVENT,
    ITEM,
    MAX_WEIGHT,
    TIME,
    USER,
    WEIGHT,
    Role,
    column_notes,
    find_columns,
    unsettled_notes,
)
from segue.data.table import RaggedError, Table
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
        problems: Why a role that is needed has no usable column.
        faults: What is wrong with some rows of a column that is needed.
        left_out: One line for each column that is not needed and not usable.
        notes: Of the reading.
        num_rows: Of the table.
    """

    columns: Mapping[Role, str]
    values: Mapping[Role, pl.Series]
    problems: Sequence[DataError]
    faults: Sequence[Fault]
    left_out: Sequence[str]
    notes: Sequence[str]
    num_rows: int

    def all_notes(self) -> list[str]:
        """One line each: what is to be said of the reading and of the columns."""
        long = [
            f"{role.name} is text, as some of its integers are beyond 64 bits with a sign"
            for role in (USER, ITEM)
            if role in self.values and are_long_integers(self.values[role])
        ]
        return [*self.notes, *column_notes(self.columns), *long, *self.left_out]

    def good_rows(self) -> pl.DataFrame:
        """The rows that are not at fault, a column for each role."""
        is_good = np.ones(self.num_rows, np.bool_)
        for fault in self.faults:
            is_good[fault.rows] = False
        frame = pl.DataFrame(list(self.values.values()))
        return frame if is_good.all() else frame.filter(is_good)


def examine(table: Table, wanted: Wanted) -> Examined:
    """Find and read the columns of a log, and everything that is wrong with them.

    Raises:
        DataError: The table cannot be read.
    """
    columns, problems = _found(table, wanted)
    spare = [role for role in wanted.chosen if not wanted.is_needed(role)]
    left_out = unsettled_notes(table.names, spare, columns)
    for role in [role for role, column in columns.items() if column in table.lacking]:
        lack = table.lack_of(columns.pop(role))
        if wanted.is_needed(role):
            problems.append(lack)
        else:
            left_out.append(f"{role.name} is left out: {lack}")
    faults: list[Fault] = []
    try:
        rows = table.read(list(columns.values()) or table.names[:1])
    except RaggedError as error:
        rows, faults = error.rows, list(error.faults)
    ragged = np.concatenate([NO_ROWS, *(fault.rows for fault in faults)])
    if rows.frame.is_empty():
        problems.append(DataError(f"{table.label} holds no interactions; give a log that has some"))
    values: dict[Role, pl.Series] = {}
    for role, column in columns.items():
        try:
            raw = rows.frame[column].alias(role.name)
            good, found = checked(_check_of(role, table), raw, ragged)
            if found and not wanted.is_needed(role):
                raise BadRowsError(table.label, found)
        except DataError as error:
            if wanted.is_needed(role):
                problems.append(error)
            else:
                left_out.append(f"{role.name} is left out, as no option asks for it ({error})")
            continue
        values[role] = good
        faults += found
    used = {role: column for role, column in columns.items() if role in values}
    return Examined(used, values, problems, faults, left_out, rows.notes(), rows.frame.height)


def read_rows(
    table: Table, wanted: Wanted, *, drop_bad_rows: bool
) -> tuple[pl.DataFrame, Mapping[Role, str], list[str]]:
    """The usable rows of a log: a column for each role, the columns' own names, and notes.

    Raises:
        DataError: A role that is needed has no column, two, or one of a type that it cannot use;
            there are no rows; or there are rows at fault, of which every kind is listed, unless
            they are to be dropped and others are left.
    """
    found = examine(table, wanted)
    if found.problems:
        raise found.problems[0]
    if found.faults and not drop_bad_rows:
        raise BadRowsError(table.label, found.faults, DROPS_THEM)
    frame = found.good_rows()
    if frame.is_empty():
        raise BadRowsError(table.label, found.faults, "no row is left without them")
    types = ", ".join(
        f"{name} {dtype}" for name, dtype in frame.schema.items() if name != EVENT.name
    )
    notes = [f"read {found.num_rows:,} interactions from {table.label} ({types})"]
    if found.faults:
        faults = "; ".join(map(str, found.faults))
        num_bad = found.num_rows - frame.height
        notes.append(f"dropped {num_bad:,} of {found.num_rows:,} rows: {faults}")
    return frame, found.columns, [*notes, *found.all_notes()]


def _found(table: Table, wanted: Wanted) -> tuple[dict[Role, str], list[DataError]]:
    """The column of each role that has one, and why others have none."""
    try:
        return find_columns(table.names, wanted.chosen, table.label, needed=wanted.needed), []
    except DataError:
        pass
    columns: dict[Role, str] = {}
    problems: dict[str, DataError] = {}
    for role in wanted.chosen:
        # What is chosen for another role is not free for this one.
        asked = {each: name for each, name in wanted.chosen.items() if name or each is role}
        try:
            found = find_columns(table.names, asked, table.label, needed=wanted.needed)
            columns |= {each: name for each, name in found.items() if each is role}
        except DataError as error:
            problems[str(error)] = error
    return columns, list(problems.values())


def _check_of(role: Role, table: Table) -> Callable[[pl.Series], pl.Series]:
    """What makes a column what its role needs, and refuses what cannot be that."""
    if role is TIME:
        return lambda values: _as_times(values, table.label)
    if role is WEIGHT:
        return lambda values: _as_weights(values, table.label)
    if role is EVENT:
        return lambda values: _as_events(values, table.label)
    return lambda values: as_ids(values, table.label, is_untyped=table.is_untyped)


def _as_times(values: pl.Series, where: str) -> pl.Series:
    """As `as_times`, but that most of a text decide whether it is numbers, and not its first."""
    try:
        return as_times(values, where)
    except BadRowsError as refused:
        num_bad = sum(len(fault.rows) for fault in refused.faults)
        if values.dtype != pl.String or values.has_nulls() or 2 * num_bad <= len(values):
            raise
        is_number = values.cast(pl.Float64, strict=False).is_not_null()
        are_numbers = 2 * int(is_number.sum()) > len(values)
        is_other = ~is_number if are_numbers else is_number
        fault = "is not a number" if are_numbers else "is a number among other times"
        remedy = f"mend these rows, or name another column with {TIME.choice}"
        refuse_where(is_other, values, where, fault, remedy)
        raise


def _as_weights(values: pl.Series, where: str) -> pl.Series:
    """The weights as Float64, null where they are null; words and what a run cannot hold go."""
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
    is_beyond = (weights.abs() > MAX_WEIGHT).fill_null(False)
    refuse_where(is_beyond, values, where, f"is beyond ±{MAX_WEIGHT:.2g}", remedy)
    return weights


def _as_events(values: pl.Series, where: str) -> pl.Series:
    """The kinds of events as text, null where they are null."""
    dtype = values.dtype
    if not (dtype.is_numeric() or isinstance(dtype, (*TEXT_TYPES, pl.Boolean))):
        raise DataError(
            f"{where}: event is of type {dtype}; kinds of events are text or numbers: "
            f"name another column with {EVENT.choice}"
        )
    return values.cast(pl.String)
