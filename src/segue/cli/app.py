"""`segue`: its commands, and how they end."""

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from segue import __version__, notes
from segue.cli import data, items, run
from segue.cli.compare import compare
from segue.cli.demo import demo
from segue.cli.evaluate import evaluate
from segue.cli.explain import explain
from segue.cli.fit import fit
from segue.cli.memory import HUGE_PAGES, ONE_ARENA, restart_with
from segue.cli.options import TakesNegativeIds, spelled_out, whole_number
from segue.cli.output import NoteHandler, note, say
from segue.cli.recommend import recommend, similar
from segue.cli.report_page import report
from segue.cli.serve import events, serve
from segue.cli.tune import tune
from segue.errors import Interrupted, SegueError
from segue.machine import limit_threads, usable_cores

DEBUG = "--debug"
FAILED = 1
# What shells add to the number of the signal that ended a command.
SIGNALLED = 128
INTERRUPTED = SIGNALLED + 2
ALLOCATORS = {"demo": HUGE_PAGES, "fit": HUGE_PAGES, "tune": HUGE_PAGES, "serve": ONE_ARENA}

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
for command in (demo, fit, tune, evaluate, compare, recommend, similar, explain, report, serve):
    app.command(cls=TakesNegativeIds)(spelled_out(command))
app.add_typer(data.app, name="data")
app.add_typer(items.app, name="items")
app.add_typer(run.app, name="run")
app.add_typer(events, name="events")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit.

    The exit code is 0: done; 1: bad data, run, preset or value; 2: an unknown command or option;
    130: Ctrl-C; 143: SIGTERM, after a training was saved. What went wrong is told in one line on
    standard error, by a traceback with `--debug`, which may stand anywhere.

    Args:
        arguments: Without the program's name; by default those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        for command in ALLOCATORS.keys() & set(given):
            restart_with(ALLOCATORS[command])
    is_debug = DEBUG in given
    notes.log.handlers = [NoteHandler()]
    if isinstance(sys.stdout, TextIOWrapper):
        # A title may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            code = _run([each for each in given if each != DEBUG] or ["--help"])
        finally:
            _flush_output()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - nothing else would catch it
        line, code = _told(error)
        if is_debug:
            note("".join(traceback.format_exception(error)).rstrip("\n"))
        elif line:
            note(f"segue: {' '.join(line.splitlines())}")
    sys.exit(code)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        say(f"segue {__version__}")
        raise typer.Exit


@app.callback()
def segue(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole_number,
            help="Threads for computing; by default as many as the process may use cores.",
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Tell of an error by its traceback, not in one line.")
    ] = False,
) -> None:
    """Learn what people choose next: from a log of interactions to recommendations."""
    # Before a command loads what computes.
    if threads is not None:
        limit_threads(threads, replace=True)
    elif usable_cores() < (os.cpu_count() or 1):
        limit_threads(usable_cores())


def _run(arguments: list[str]) -> int:
    """The exit code of a command. Errors come out as they are, unlike from Typer's own `main`."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("segue", arguments) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    return 0


def _flush_output() -> None:
    """Have the reader take what was printed, now that an error can still be told."""
    try:
        sys.stdout.flush()
    except OSError:
        # Python would try again at exit, and tell of its failure in its own way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _told(error: BaseException) -> tuple[str, int]:
    """What is said of an error, and the exit code."""
    match error:
        case Interrupted():
            return str(error), SIGNALLED + error.signal
        case KeyboardInterrupt():
            return "stopped", INTERRUPTED
        case typer.TyperException():
            # A value that is bad or missing; the others are about the commands and options.
            is_value = isinstance(error, typer.BadParameter)
            return _usage(error), FAILED if is_value else error.exit_code
        case SegueError():
            return str(error), FAILED
        case BrokenPipeError():
            return "", FAILED
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            return f"{place}{error.strerror or error}", FAILED
        case _:
            what = f"{type(error).__name__}: {error}"
            return f"a defect of segue, please report it: {what}; {DEBUG} shows where", FAILED


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context else ""
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    return f"{message}{hint}"
