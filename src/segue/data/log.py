"""The log: one row per interaction, checked as it is read, and the filters that shrink it."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np
import polars as pl

from segue.data.checks import BadRowsError, Fault, checked, refuse_where, shown
from segue.data.ids import as_ids
from segue.data.order import shuffled_ties
from segue.data.readers import Source, open_table
from segue.data.roles import (
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
from segue.data.text_files import Layout, TextFormat
from segue.data.times import TimeUnit, as_times, unit_of
from segue.errors import DataError

# MovieLens' ratings.dat (1M, 10M) and u.data (100K), as their README files describe them.
RATING_FIELDS = (USER.name, ITEM.name, WEIGHT.name, TIME.name)
LAYOUTS = {".dat": Layout("::", RATING_FIELDS), ".data": Layout("\t", RATING_FIELDS)}

DROPS_THEM = "--drop-bad-rows (drop_bad_rows=True in Python) drops such rows"
ID_TYPES = (pl.Int64, pl.String)
TIME_TYPES = (pl.Int64, pl.Float64, pl.Datetime("us"))


@dataclass(frozen=True)
class InteractionLog:
    """A checked log, never empty, in its own order.

    Attributes:
        frame: `user_id` and `item_id` (Int64 or String), `timestamp` (Int64, Float64 or
            Datetime("us")) and, where the log has one, `weight` (Float64, perhaps null).
        notes: One line each: what was read, which columns were recognised, what was dropped and
            why, with counts.
        unit: Of the times.
        known_unit: Given where the log is a part of another, whose unit this is; else it is found
            from the times.
        columns: How the columns were called where they were read from, by their names here.
    """

    frame: pl.DataFrame
    notes: tuple[str, ...] = ()
    unit: TimeUnit = field(init=False)
    known_unit: InitVar[TimeUnit | None] = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self, known_unit: TimeUnit | None) -> None:
        schema = dict(self.frame.schema)
        weight = schema.pop(WEIGHT.name, pl.Float64())
        is_as_said = (
            list(schema) == [USER.name, ITEM.name, TIME.name]
            and schema[USER.name] in ID_TYPES
            and schema[ITEM.name] in ID_TYPES
            and schema[TIME.name] in TIME_TYPES
            and weight == pl.Float64
        )
        if not is_as_said:
            raise DataError(f"{dict(self.frame.schema)} is no log's schema; make one with read_log")
        if self.frame.is_empty():
            raise DataError("a log without interactions is of no use; give one that has some")
        unit = known_unit or unit_of(self.frame[TIME.name].to_numpy())
        object.__setattr__(self, "unit", unit)

    def __len__(self) -> int:
        return self.frame.height

    def summary(self) -> str:
        """The log in a few lines: its size, its histories' lengths, its times, then the notes."""
        frame = self.frame
        lengths = frame.group_by(USER.name).len()["len"]
        times = frame[TIME.name]
        lines = [
            f"{len(self):,} interactions of {len(lengths):,} users with "
            f"{frame[ITEM.name].n_unique():,} items",
            f"history length {_span(lengths)}, median {lengths.median()!s}",
            f"timestamp {_span(times)}",
        ]
        if WEIGHT.name in frame.columns:
            weights = frame[WEIGHT.name]
            lines.append(f"weight {_span(weights)}, null in {weights.null_count():,} rows")
        return "\n".join([*lines, *self.notes])

    def without_duplicates(self) -> "InteractionLog":
        """The first of the interactions that have the same user, item and time."""
        key = [USER.name, ITEM.name, TIME.name]
        kept = self.frame.unique(subset=key, keep="first", maintain_order=True)
        return self._noted(kept, "as duplicates: the same user, item and timestamp")

    def k_core(self, k: int) -> "InteractionLog":
        """The largest part of the log in which every user and every item has `k` interactions.

        Raises:
            DataError: `k` is below 1, or nothing is left.
        """
        _refuse_below_one("k", k)
        kept, before = self.frame, len(self) + 1
        while kept.height < before:
            before = kept.height
            kept = kept.filter(
                pl.len().over(USER.name) >= k,
                pl.len().over(ITEM.name) >= k,
            )
        if kept.is_empty():
            raise DataError(
                f"a core of {k} leaves nothing of {len(self):,} interactions: no group of users "
                f"and items has {k} with each other; ask for a smaller core"
            )
        return self._noted(kept, f"of users and items with fewer than {k}, repeatedly")

    def min_history(self, n: int) -> "InteractionLog":
        """The log without the users who have fewer than `n` interactions.

        Raises:
            DataError: `n` is below 1, or every user has fewer.
        """
        _refuse_below_one("n", n)
        kept = self.frame.filter(pl.len().over(USER.name) >= n)
        if kept.is_empty():
            lengths = self.frame.group_by(USER.name).len()["len"]
            raise DataError(
                f"every user has fewer than {n} interactions; the histories' lengths are "
                f"{_span(lengths)}: ask for at most the longest"
            )
        return self._noted(kept, f"of users with fewer than {n}")

    def _noted(self, kept: pl.DataFrame, why: str) -> "InteractionLog":
        dropped = len(self) - kept.height
        return self.with_rows(kept, f"dropped {dropped:,} of {len(self):,} interactions {why}")

    def with_shuffled_ties(self, seed: int) -> "InteractionLog":
        """The log, each user's interactions of one time in an order drawn by a seed."""
        frame, num_tied = shuffled_ties(self.frame, seed)
        note = f"shuffled {num_tied:,} of {len(self):,} interactions, within ties in time"
        return self.with_rows(frame, f"{note} (seed {seed})")

    def with_rows(self, frame: pl.DataFrame, note: str) -> "InteractionLog":
        """This log with other rows, and a line that says why."""
        notes = (*self.notes, note)
        return InteractionLog(frame, notes, known_unit=self.unit, columns=self.columns)


def read_log(
    source: Source,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    time_col: str | None = None,
    weight_col: str | None = None,
    min_weight: float | None = None,
    drop_bad_rows: bool = False,
    text: TextFormat = TextFormat(),  # noqa: B008 - frozen
) -> InteractionLog:
    """Read and check a log.

    The whole log is checked before anything is dropped. Extra columns are ignored.

    Args:
        source: CSV or TSV (the separator is seen from the header) or JSON lines (`.gz` too), or
            Parquet; a file, or a directory of one of these kinds; MovieLens' `ratings.dat` or
            `u.data`, RecBole's `.inter`, or a Polars or pandas DataFrame.
        user_col, item_col, time_col, weight_col: The columns, where they are not called `user_id`,
            `item_id`, `timestamp` and `weight` or by a usual alias such as `movieId` or `rating`.
            Weights that are not named, nor needed for `min_weight`, are left out, with a note,
            where they are not all numbers or two columns could be they.
        min_weight: Drop the interactions whose weight is below this, or null.
        drop_bad_rows: Drop rows with a value that is no id, time or weight, and count them in the
            notes, instead of refusing the log.
        text: How a text file is written, where that is not what it looks like.

    Raises:
        DataError: No such file, a format that cannot be read, no column for a role or two, no
            interactions, or rows with a value that is no id, time or weight, of which every kind is
            told with its count; in one line.
    """
    if min_weight is not None and not math.isfinite(min_weight):
        raise DataError(f"min_weight={min_weight} is no threshold; give a finite number")
    table = open_table(source, LAYOUTS, text)
    chosen = {USER: user_col, ITEM: item_col, TIME: time_col, WEIGHT: weight_col}
    needed = [] if min_weight is None and weight_col is None else [WEIGHT]
    columns = find_columns(table.names, chosen, table.label, needed=needed)
    if min_weight is not None and WEIGHT not in columns:
        raise DataError(
            f"{table.label} has no weight to compare with min_weight={min_weight}; "
            f"name its column with {WEIGHT.choice}"
        )
    log = _checked(table, columns, needed, drop_bad_rows=drop_bad_rows)
    return log if min_weight is None else _with_min_weight(log, min_weight)


def _checked(
    table: Table,
    columns: Mapping[Role, str],
    needed: Collection[Role],
    *,
    drop_bad_rows: bool,
) -> InteractionLog:
    """Read these columns; refuse or drop the rows with a value that is not what its role needs.

    A column that is not clean is left out where its role is neither required nor needed.
    """
    left_out = unsettled_notes(table.names, [WEIGHT], columns)
    for role, column in columns.items():
        if column in table.lacking and not (role.is_required or role in needed):
            left_out.append(f"{role.name} is left out: {table.lacking[column]} has no {column!r}")
            columns = {other: each for other, each in columns.items() if other is not role}
    rows = table.read(list(columns.values()))
    if rows.frame.is_empty():
        raise DataError(f"{table.label} holds no interactions; give a log that has some")
    good, faults = [], []
    for role, column in columns.items():
        try:
            values, found = checked(_check_of(role, table), rows.frame[column].alias(role.name))
            if found and not (role.is_required or role in needed):
                raise BadRowsError(table.label, found)
        except DataError as error:
            if role.is_required or role in needed:
                raise
            left_out.append(f"{role.name} is left out, as no option asks for it ({error})")
            continue
        good.append(values)
        faults += found
    frame = pl.DataFrame(good)
    types = ", ".join(f"{name} {dtype}" for name, dtype in frame.schema.items())
    notes = [f"read {frame.height:,} interactions from {table.label} ({types})", *rows.notes()]
    if faults:
        frame, note = _without(frame, faults, table.label, drop_bad_rows=drop_bad_rows)
        notes.append(note)
    read = {role: column for role, column in columns.items() if role.name in frame.columns}
    return InteractionLog(
        frame,
        (*notes, *column_notes(read), *left_out),
        columns={role.name: column for role, column in read.items()},
    )


def _check_of(role: Role, table: Table) -> Callable[[pl.Series], pl.Series]:
    """What makes a column what its role needs, and refuses what cannot be that."""
    if role is TIME:
        return lambda values: as_times(values, table.label)
    if role is WEIGHT:
        return lambda values: _as_weights(values, table.label)
    return lambda values: as_ids(values, table.label, is_untyped=table.is_untyped)


def _without(
    frame: pl.DataFrame, faults: Sequence[Fault], where: str, *, drop_bad_rows: bool
) -> tuple[pl.DataFrame, str]:
    """The frame without the rows at fault, and a line that counts them.

    Raises:
        BadRowsError: They are not to be dropped, or are all that there is.
    """
    if not drop_bad_rows:
        raise BadRowsError(where, faults, DROPS_THEM)
    is_bad = np.zeros(frame.height, np.bool_)
    for fault in faults:
        is_bad[fault.rows] = True
    if is_bad.all():
        raise BadRowsError(where, faults, "no row is left without them")
    told = "; ".join(map(str, faults))
    note = f"dropped {np.count_nonzero(is_bad):,} of {frame.height:,} rows: {told}"
    return frame.filter(~is_bad), note


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


def _with_min_weight(log: InteractionLog, min_weight: float) -> InteractionLog:
    weights = log.frame[WEIGHT.name]
    num_null = weights.null_count()
    num_below = int((weights < min_weight).sum())
    if num_null + num_below == len(log):
        raise DataError(
            f"min_weight={min_weight:g} leaves nothing of {len(log):,} interactions: "
            f"{num_below:,} have less and {num_null:,} have none; the weights are {_span(weights)}"
        )
    note = (
        f"dropped {num_below:,} of {len(log):,} interactions with a weight below {min_weight:g} "
        f"and {num_null:,} without a weight"
    )
    return log.with_rows(log.frame.filter(weights >= min_weight), note)


def _span(values: pl.Series) -> str:
    return " to ".join(str(value) for value in (values.min(), values.max()))


def _refuse_below_one(name: str, value: int) -> None:
    if value < 1:
        raise DataError(f"{name}={shown(value)} asks for nothing; give at least 1")
