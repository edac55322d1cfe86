"""`segue report`: one page about a run."""

import os
from pathlib import Path
from typing import Annotated

import typer

from segue.cli.options import Force, RunPath
from segue.cli.output import print_json
from segue.errors import OutputError


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
    _refuse_taken(out, force)
    from segue.reporting.page import page

    _write(out, page(describe(run)))
    print(f"The report is in {out}.")


def _refuse_taken(path: Path, force: bool) -> None:
    """Refuse before the work, and never replace what is no file.

    Raises:
        OutputError: Something stands there, or its directory does not exist.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a directory; name a file, such as {path / 'report.html'}")
    if path.exists() and not force:
        raise OutputError(f"{path} exists; choose another --out, or give --force to replace it")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path}: there is no directory {path.parent}; make it first")


def _write(path: Path, text: str) -> None:
    """The page appears whole or not at all."""
    draft = path.with_name(f".{path.name}.writing-{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another --out") from None
    finally:
        draft.unlink(missing_ok=True)
