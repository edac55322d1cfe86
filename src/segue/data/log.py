"""The log: one row per interaction, checked as it is read, and the filters that shrink it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field

import polars as pl

from segue.data.checks import shown, shown_names
from segue.data.layouts import Layout
from segue.data.order import is_repeat, shuffled_ties
from segue.data.readers import Source, open_table
from segue.data.roles import EVENT, ITEM, TIME, USER, WEIGHT
from segue.data.rows import Wanted, read_rows
from segue.data.text_format import TextFormat
from segue.data.times import TimeUnit, unit_of
from segue.errors import DataError

# MovieLens' ratings.dat (1M, 10M) and u.data (100K), as their README files describe them.
RATING_FIELDS = (USER.name, ITEM.name, WEIGHT.name, TIME.name)
LAYOUTS = {".dat": Layout("::", RATING_FIELDS), ".data": Layout("\t", RATING_FIELDS)}

MAX_KINDS_LISTED = 10
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

    def without_repeats(self) -> "InteractionLog":
        """The first of the interactions that a user has with one item in a row."""
        kept = self.frame.filter(~is_repeat(self.frame))
        return self._noted(kept, "that repeat the item before them")

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
    event_col: str | None = None,
    min_weight: float | None = None,
    events: Sequence[str] | None = None,
    drop_bad_rows: bool = False,
    text: TextFormat = TextFormat(),  # noqa: B008 - frozen
) -> InteractionLog:
    """Read and check a log.

    The whole log is checked before anything is dropped. Extra columns are ignored.

    Args:
        source: CSV or TSV (the separator is seen from the header) or JSON lines (`.gz` too), or
            Parquet; a file, or a directory of one of these kinds; MovieLens' `ratings.dat` or
            `u.data`, RecBole's `.inter`, or a Polars or pandas DataFrame.
        user_col, item_col, time_col, weight_col, event_col: The columns, where they are not called
            `user_id`, `item_id`, `timestamp`, `weight` and `event` or by a usual alias such as
            `movieId` or `rating`. Weights that are not named, nor needed for `min_weight`, are left
            out, with a note, where they are not all numbers or two columns could be they.
        min_weight: Drop the interactions whose weight is below this, or null.
        events: Keep events of these kinds alone, such as "purchase"; by default all.
        drop_bad_rows: Drop rows with a value that is no id, time or weight, and count them in the
            notes, instead of refusing the log.
        text: How a text file is written, where that is not what it looks like.

    Raises:
        DataError: No such file, a format that cannot be read, no column for a role or two, no
            interactions, or rows with a value that is no id, time or weight, of which every kind is
            listed with its count; in one line.
    """
    if min_weight is not None and not math.isfinite(min_weight):
        raise DataError(f"min_weight={min_weight} is no threshold; give a finite number")
    wanted = wanted_columns(
        user_col=user_col,
        item_col=item_col,
        time_col=time_col,
        weight_col=weight_col,
        event_col=event_col,
        min_weight=min_weight,
        events=events,
    )
    table = open_table(source, LAYOUTS, text)
    frame, columns, notes = read_rows(table, wanted, drop_bad_rows=drop_bad_rows)
    for role, value in ((WEIGHT, min_weight), (EVENT, events and ", ".join(events))):
        if value is not None and role not in columns:
            asked = f"min_weight={min_weight}" if role is WEIGHT else f"events {value}"
            raise DataError(
                f"{table.label} has no {role.name} to compare with {asked}; "
                f"name its column with {role.choice}"
            )
    if EVENT in columns:
        frame, counted = _of_kinds(frame, columns[EVENT], events)
        notes += counted
    log = InteractionLog(
        frame, tuple(notes), columns={role.name: column for role, column in columns.items()}
    )
    return log if min_weight is None else _with_min_weight(log, min_weight)


def wanted_columns(
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    time_col: str | None = None,
    weight_col: str | None = None,
    event_col: str | None = None,
    min_weight: float | None = None,
    events: Sequence[str] | None = None,
) -> Wanted:
    """The columns that `read_log` looks for, given the same options."""
    needed = {WEIGHT: (weight_col, min_weight), EVENT: (event_col, events)}
    return Wanted(
        {USER: user_col, ITEM: item_col, TIME: time_col, WEIGHT: weight_col, EVENT: event_col},
        [role for role, options in needed.items() if any(each is not None for each in options)],
    )


def _of_kinds(
    frame: pl.DataFrame, column: str, events: Sequence[str] | None
) -> tuple[pl.DataFrame, list[str]]:
    """The interactions of some kinds of events, or of all, without that column; and notes."""
    kinds = frame[EVENT.name]
    counts = list(kinds_of(kinds).items())
    listed = ", ".join(f"{kind} {count:,}" for kind, count in counts[:MAX_KINDS_LISTED])
    listed += f" and {len(counts) - MAX_KINDS_LISTED:,} others" * (len(counts) > MAX_KINDS_LISTED)
    if kinds.null_count():
        listed += f", none {kinds.null_count():,}"
    if events is None:
        some = ",".join(kind for kind, _ in counts[:2])
        note = f"events of all kinds are kept ({column}: {listed}); --events {some} keeps some"
        return frame.drop(EVENT.name), [note] if len(counts) > 1 else []
    unknown = [event for event in events if event not in dict(counts)]
    if unknown or not events:
        asked = shown_names(unknown) if unknown else "asked for"
        raise DataError(f"no event is {asked}; the column {column!r} has {listed}")
    kept = frame.filter(kinds.is_in(list(events))).drop(EVENT.name)
    dropped = frame.height - kept.height
    note = f"dropped {dropped:,} of {frame.height:,} events that are not {', '.join(events)}"
    return kept, [f"{note} ({column}: {listed})"]


def kinds_of(events: pl.Series) -> dict[str, int]:
    """How many there are of each kind of events, the most frequent first."""
    counted = events.drop_nulls().value_counts()
    return dict(counted.sort("count", events.name, descending=[True, False]).rows())


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
