"""`segue data`: datasets by name, and a look into a log."""

from typing import Annotated

import typer

from segue.cli.inputs import read_source
from segue.cli.options import LogColumns, LogSource, spelled_out
from segue.cli.output import print_table

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

    print(fetch(name, progress=True))


@app.command()
@spelled_out
def inspect(source: LogSource, columns: LogColumns) -> None:
    """Print what a log holds and how it is understood."""
    log, _ = read_source(source, columns)
    print(log.summary())
