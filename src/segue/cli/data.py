"""`segue data`: datasets by name, and a look into a log."""

import shlex
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from segue.cli.inputs import inspect_source
from segue.cli.inspection import print_inspection
from segue.cli.options import AsJson, LogColumns, LogSource, command_line, spelled_out
from segue.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from segue.data.inspection import Inspection

app = typer.Typer(help="Datasets by name, and a look into a log.")

DatasetName = Annotated[
    str, typer.Argument(metavar="NAME", show_default=False, help="One of segue data list.")
]


@app.command("list")
def list_datasets() -> None:
    """List the datasets that go by a name."""
    from segue.data.sources import SOURCES

    sources = [SOURCES[name] for name in SOURCES.names()]
    rows = [[source.name, f"{source.size_mb:.0f} MB", source.description] for source in sources]
    print_table(["name", "archive", "what it is"], rows)


@app.command()
def fetch(name: DatasetName) -> None:
    """Have a dataset on disk, downloaded where need be, and print where."""
    from segue.data.sources import fetch

    say(str(fetch(name, progress=True)))


@app.command()
@spelled_out
def inspect(source: LogSource, columns: LogColumns, as_json: AsJson = False) -> None:
    """Examine a log: all that is wrong with it, what it is like, and which options it wants.

    Nothing in the log ends the examination. Times are UTC.
    """
    found = inspect_source(source, columns)
    command = _fit_command(source, columns, found)
    if as_json:
        print_json({**asdict(found), "command": command})
    else:
        print_inspection(found, command)


def _fit_command(source: str, columns: LogColumns, found: "Inspection") -> str | None:
    """The training with what is advised; None where the log cannot be used."""
    if found.description is None:
        return None
    given = command_line("fit", source, columns)
    advised = [each.options for each in found.advice if each.options[0] not in shlex.split(given)]
    return shlex.join([*shlex.split(given), *chain.from_iterable(advised), "--out", "RUN"])
