"""`segue report`: one page about a run."""

from pathlib import Path
from typing import Annotated

import typer

from segue.cli.files import refuse_taken, write_text
from segue.cli.options import Force, RunPath
from segue.cli.output import print_json, say


def report(
    run: RunPath,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The HTML file to write.")] = Path(
        "report.html"
    ),
    as_json: Annotated[
        bool,
        typer.Option("--json", help="What the page tells, as one JSON document, and no page."),
    ] = False,
    force: Force = False,
) -> None:
    """Write a page about a run: how good it is, how sure that is, where it fails.

    One HTML file that needs no network. What the run lacks the data for is said so.
    """
    from segue.reporting.document import describe

    if as_json:
        print_json(describe(run))
        return
    refuse_taken(out, "report.html", force=force)
    from segue.reporting.page import page

    write_text(out, page(describe(run)))
    say(f"The report is in {out}.")
