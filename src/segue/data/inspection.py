"""An examination of a log: all that is wrong with it, what it is like, and which options fit it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segue.data.checks import Fault, shown
from segue.data.description import Description, describe
from segue.data.log import LAYOUTS, kinds_of, read_log, wanted_columns
from segue.data.readers import Source, open_table
from segue.data.roles import EVENT
from segue.data.rows import examine
from segue.data.text_format import TextFormat
from segue.errors import DataError

# Kinds of events that take something back.
TAKEN_BACK = ("return", "refund", "cancel", "adjust", "remove", "dislike", "void", "chargeback")

# Shares from which on an option is advised, or something is said of it.
MANY_BAD_ROWS = 0.05
MANY_DUPLICATES = 0.001
MANY_IN_A_ROW = 0.02
MANY_REPEATS = 0.1
MANY_TIES = 0.2
MANY_SINGLE_ITEMS = 0.3
MANY_SHORT_HISTORIES = 0.3


@dataclass(frozen=True)
class FoundFault:
    """What is wrong with some rows of a column.

    Attributes:
        column: By its role, such as `user_id`.
        what: Such as "is null".
        rows: How many.
        first_row: From 1; blank lines are not counted.
        example: The value there, None where it is null.
        remedy: What to do.
    """

    column: str
    what: str
    rows: int
    first_row: int
    example: str | None
    remedy: str

    @classmethod
    def of(cls, fault: Fault) -> "FoundFault":
        """A fault as an examination lists it."""
        return cls(
            fault.column,
            fault.what,
            len(fault.rows),
            int(fault.rows[0]) + 1,
            None if fault.example is None else shown(fault.example),
            fault.remedy,
        )


@dataclass(frozen=True)
class Advice:
    """Options of `segue fit`, as words, and why a log wants them."""

    options: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Inspection:
    """What an examination of a log found.

    Attributes:
        source: The log.
        rows: Of the table, blank lines apart.
        names: Its columns.
        columns: The column of each role that has a usable one.
        problems: What makes the log unusable as it is read now.
        faults: The kinds of bad values in rows.
        notes: Of the reading, and the columns left out.
        events: How many there are of each kind.
        description: Of the usable rows; None where there are problems.
        advice: Options for `segue fit`.
        remarks: What to look at besides.
    """

    source: str
    rows: int
    names: tuple[str, ...]
    columns: Mapping[str, str]
    problems: tuple[str, ...]
    faults: tuple[FoundFault, ...]
    notes: tuple[str, ...]
    events: Mapping[str, int]
    description: Description | None
    advice: tuple[Advice, ...]
    remarks: tuple[str, ...]


def inspect_log(
    source: Source,
    *,
    text: TextFormat = TextFormat(),  # noqa: B008 - frozen
    **options: Any,
) -> Inspection:
    """Examine a log as a whole: nothing in it ends the examination.

    Args:
        source: As for `read_log`.
        text: As for `read_log`.
        options: Those of `read_log` for columns, weights and events.

    Raises:
        DataError: The table itself cannot be read.
    """
    table = open_table(source, LAYOUTS, text)
    found = examine(table, wanted_columns(**options))
    problems = [str(problem) for problem in found.problems]
    description = None
    if not problems:
        try:
            description = describe(read_log(source, text=text, drop_bad_rows=True, **options))
        except DataError as error:
            problems.append(str(error))
    kinds = kinds_of(found.values[EVENT]) if EVENT in found.values else {}
    return Inspection(
        source=table.label,
        rows=found.num_rows,
        names=table.names,
        columns={role.name: column for role, column in found.columns.items()},
        problems=tuple(problems),
        faults=tuple(FoundFault.of(fault) for fault in found.faults),
        notes=tuple(found.all_notes()),
        events=kinds,
        description=description,
        advice=tuple(_advice(found.faults, found.num_rows, kinds, description))
        if description
        else (),
        remarks=tuple(_remarks(description)) if description else (),
    )


def _advice(
    faults: Sequence[Fault], num_rows: int, kinds: Mapping[str, int], log: Description
) -> Iterator[Advice]:
    if faults:
        share = len(np.unique(np.concatenate([fault.rows for fault in faults]))) / num_rows
        why = f"{share:.1%} of the rows lack a usable user, item or time"
        yield Advice(("--drop-bad-rows",), why + "; better, mend them" * (share > MANY_BAD_ROWS))
    wanted = [kind for kind in kinds if not any(word in kind.lower() for word in TAKEN_BACK)]
    if wanted and len(wanted) < len(kinds):
        others = ", ".join(kind for kind in kinds if kind not in wanted)
        yield Advice(("--events", ",".join(wanted)), f"{others} are no choices of a user")
    if log.duplicates >= MANY_DUPLICATES:
        yield Advice(
            ("--drop-duplicates",),
            f"{log.duplicates:.1%} equal an earlier interaction in user, item and time",
        )
    if log.ties.is_sorted:
        yield Advice(
            ("--ties", "shuffle"),
            "within ties in time the order is that of the item ids, which is no behaviour",
        )
    if log.repeats_in_a_row >= MANY_IN_A_ROW:
        yield Advice(
            ("--join-repeats",),
            f"{log.repeats_in_a_row:.1%} repeat the item directly before them",
        )
    if log.repeats >= MANY_REPEATS:
        yield Advice(
            ("--repeats",),
            f"users come back: {log.repeats:.1%} are with an item that the user had before",
        )
    if log.tied >= MANY_TIES:
        yield Advice(
            ("--split", "last-basket"),
            f"{log.tied:.1%} of neighbours in histories have one time; leave-one-out would test "
            "how a file orders them",
        )


def _remarks(log: Description) -> Iterator[str]:
    if log.strays:
        yield (
            f"{log.strays:,} of the interactions lie far outside the bulk of the times, "
            f"{log.bulk_first} to {log.bulk_last}"
        )
    if log.unit == "order":
        yield "the times are an order and no moments: no model can learn from how long ago it was"
    for robots in log.robots:
        ids = ", ".join(map(str, robots.examples))
        yield (
            f"users who are probably robots, shops or shared accounts: {robots.users:,} with "
            f"{robots.sign}, such as {ids}; they have "
            f"{robots.interactions / log.interactions:.1%} of the interactions"
        )
    if log.items_seen_once >= MANY_SINGLE_ITEMS * log.items:
        yield (
            f"{log.items_seen_once / log.items:.0%} of the items were seen once: a model learns "
            "little of them; --core 5 leaves out what is rare"
        )
    if log.short_histories >= MANY_SHORT_HISTORIES * log.users:
        yield (
            f"{log.short_histories / log.users:.0%} of the users have fewer than 3 interactions: "
            "leave-one-out does not test them"
        )
