"""Options that several commands share, and groups of them that stand as one argument."""

import inspect
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    import polars as pl

    from segue.data.inspection import Inspection
    from segue.data.log import InteractionLog

NEGATIVE = re.compile(r"-\d+")


class TakesNegativeIds(TyperCommand):
    """A command whose arguments may be negative ids: `segue similar RUN -7`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As its base does, but that a negative number is no option."""
        ctx.ignore_unknown_options = any(NEGATIVE.fullmatch(word) for word in args)
        return super().parse_args(ctx, args)


def whole_number(text: str) -> int:
    """The number that was typed; Typer's own message does not show what it received."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number") from None


def number(text: str) -> float:
    """The number that was typed."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None


LogSource = Annotated[
    str,
    typer.Argument(
        metavar="LOG",
        show_default=False,
        help="A file, a directory of files, or a dataset's name (segue data list).",
    ),
]
RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", show_default=False, help="A run, as segue fit wrote it.")
]
K = Annotated[
    int,
    typer.Option(
        "-k", metavar="K", parser=whole_number, help="How many items to ask for, 1 to 500."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier command left there.")]


@dataclass(frozen=True)
class IdColumns:
    """The columns of users, items and times, where they are not called as usual."""

    user_col: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of user ids.")
    ] = None
    item_col: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of item ids.")
    ] = None
    time_col: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of times.")] = (
        None
    )


@dataclass(frozen=True)
class LogColumns(IdColumns):
    """All columns of a log, how it is written, and which rows are wanted."""

    weight_col: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of weights, such as ratings.")
    ] = None
    min_weight: Annotated[
        float | None,
        typer.Option(
            metavar="WEIGHT", parser=number, help="Drop interactions that weigh less, or nothing."
        ),
    ] = None

    event_col: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column of kinds of events, such as view or cart."),
    ] = None
    events: Annotated[
        str | None,
        typer.Option(metavar="KIND,KIND,...", help="Keep events of these kinds alone."),
    ] = None
    drop_bad_rows: Annotated[
        bool,
        typer.Option(
            "--drop-bad-rows",
            help="Drop and count rows without a usable user, item or time, instead of refusing.",
        ),
    ] = False

    no_header: Annotated[
        bool,
        typer.Option("--no-header", help="The first line of the log, a text file, is data."),
    ] = False
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Names for the columns of the log, a text file; _ for one that is not read.",
        ),
    ] = None
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="ENCODING",
            help="Of the log, where it is text and not UTF-8, such as windows-1251.",
        ),
    ] = None

    def read(self, source: "Path | pl.DataFrame") -> "InteractionLog":
        """The log, read with these columns.

        Raises:
            DataError: It cannot be used.
        """
        from segue.data.log import read_log

        return read_log(source, drop_bad_rows=self.drop_bad_rows, **self._named())

    def inspected(self, source: "Path | pl.DataFrame") -> "Inspection":
        """The log, examined with these columns.

        Raises:
            DataError: The table itself cannot be read.
        """
        from segue.data.inspection import inspect_log

        return inspect_log(source, **self._named())

    def _named(self) -> dict[str, Any]:
        """The options of `read_log` that say what the log is."""
        from segue.data.text_format import TextFormat

        return {
            "user_col": self.user_col,
            "item_col": self.item_col,
            "time_col": self.time_col,
            "weight_col": self.weight_col,
            "event_col": self.event_col,
            "min_weight": self.min_weight,
            "events": _parts(self.events),
            "text": TextFormat(not self.no_header, _parts(self.columns), self.encoding),
        }


def command_line(name: str, source: str, *groups: Any, **others: str | bool) -> str:
    """The command with every option of the groups that is not as it is by default."""
    given = {
        field.name: value
        for group in groups
        for field in fields(group)
        if (value := getattr(group, field.name)) != field.default
    }
    words = ["segue", name, source]
    for key, value in {**given, **others}.items():
        flag = "--set" if key == "settings" else f"--{key.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            words += [flag] if value is True else [flag, str(each)]
    return shlex.join(words)


def _parts(text: str | None) -> tuple[str, ...] | None:
    """The parts between commas."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def spelled_out(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every dataclass among its parameters replaced by the dataclass's fields.

    So that options which belong together stand together, in one place for all commands.
    """
    parameters = inspect.signature(command).parameters.values()
    groups: dict[str, Any] = {
        each.name: each.annotation for each in parameters if is_dataclass(each.annotation)
    }
    flat = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in parameters
        for each in (
            inspect.signature(groups[parameter.name]).parameters.values()
            if parameter.name in groups
            else (parameter,)
        )
    ]

    @wraps(command)
    def with_groups(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **made)

    with_groups.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    return with_groups
