"""The examination of a log, as text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from segue.cli.output import say

if TYPE_CHECKING:
    from segue.data.description import Description
    from segue.data.inspection import FoundFault, Inspection

MAX_KINDS = 10
UNITS = {
    "order": "an order and no moments",
    "s": "Unix time in seconds",
    "ms": "Unix time in milliseconds",
    "us": "Unix time in microseconds",
    "ns": "Unix time in nanoseconds",
    "datetime": "datetimes",
}


def print_inspection(found: "Inspection", command: str | None) -> None:
    """All that was found, then what to do next; without a command where the log is unusable."""
    from segue.data.checks import shown_names

    say(f"{found.source}: {found.rows:,} rows; the columns are {shown_names(found.names)}")
    _print_lines("What makes it unusable", found.problems)
    _print_lines(
        "Rows that cannot be used", [_fault_line(each, found.rows) for each in found.faults]
    )
    if found.description is not None:
        _print_description(found.description, found.events)
    _print_lines("To look at", found.remarks)
    _print_lines("How it is read", found.notes)
    _print_pairs("Advised for segue fit", [(" ".join(x.options), x.why) for x in found.advice])
    if command is not None:
        say("", "Next:", f"  {command}")


def _print_lines(title: str, lines: Sequence[str]) -> None:
    if lines:
        say("", title, *(f"  {line}" for line in lines))


def _print_pairs(title: str, pairs: Sequence[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in pairs), default=0)
    _print_lines(title, [f"{name:{width}}  {text}" for name, text in pairs])


def _fault_line(fault: "FoundFault", num_rows: int) -> str:
    example = "" if fault.example is None else f" {fault.example}"
    return (
        f"{fault.column} {fault.what} in {_share(fault.rows, num_rows)} of the rows, "
        f"first{example} in row {fault.first_row:,}; {fault.remedy}"
    )


def _print_description(log: "Description", events: Mapping[str, int]) -> None:
    moments = f"{log.first} to {log.last}"
    if log.span_days is not None:
        moments += f" ({log.span_days:,.0f} days), in whole {log.resolution}"
    rows = [
        ("interactions", f"{log.interactions:,}"),
        ("users", f"{log.users:,}; {_share(log.short_histories, log.users)} have fewer than 3"),
        ("items", f"{log.items:,}; {_share(log.items_seen_once, log.items)} were seen once"),
        ("times", f"{moments}; {UNITS[log.unit]}"),
        ("bulk of the times", f"{log.bulk_first} to {log.bulk_last}; far outside: {log.strays:,}"),
        ("history length", _spread(log.history_lengths)),
        ("weight", _weight(log)),
        ("duplicates", f"{log.duplicates:.1%} equal an earlier one in user, item and time"),
        ("repeats", f"{log.repeats:.1%} with an item that the user had before"),
        ("repeats in a row", f"{log.repeats_in_a_row:.1%} with the item directly before"),
        ("ties in time", f"{log.tied:.1%} of neighbours in histories; {_order(log)}"),
    ]
    kinds = [f"{kind} {_share(count, sum(events.values()))}" for kind, count in events.items()]
    if kinds:
        rows.append(("events", ", ".join(kinds[:MAX_KINDS])))
    _print_pairs("What it is like", rows)


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})"


def _spread(quantiles: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.6g}" for name, value in quantiles.items())


def _weight(log: "Description") -> str:
    if log.weights is None:
        return "none"
    return f"{_spread(log.weights)}; missing in {_share(log.without_weight, log.interactions)}"


def _order(log: "Description") -> str:
    """What is to be seen of the order within ties."""
    if not log.ties.num_rising + log.ties.num_falling:
        return "none between different items"
    direction = "rise" if log.ties.num_rising >= log.ties.num_falling else "fall"
    judged = "sorted by a file" if log.ties.is_sorted else "not suspicious"
    return f"within them the item ids {direction} in {log.ties.share_sorted:.1%}: {judged}"
