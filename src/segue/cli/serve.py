"""`segue serve` and `segue events`: a run over HTTP, and its events."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segue.cli.options import Force, RunPath, number, spelled_out, whole_number
from segue.cli.output import note, say
from segue.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from segue.serving.settings import Settings

Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        show_default=False,
        help="Where the events are: an SQLAlchemy URL of SQLite or PostgreSQL. By default SQLite, "
        "in RUN.events.sqlite next to the run.",
    ),
]


@dataclass(frozen=True)
class Limits:
    """How much the service takes, and how long it takes for it."""

    queue: Annotated[
        int,
        typer.Option(
            metavar="N", parser=whole_number, help="Requests that may wait; more are refused."
        ),
    ] = 256
    deadline: Annotated[
        float,
        typer.Option(metavar="SECONDS", parser=number, help="After which a request is given up."),
    ] = 5.0
    grace: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            parser=number,
            help="Seconds to finish requests in flight before exit.",
        ),
    ] = 10.0
    keep_alive: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            parser=whole_number,
            help="Seconds that an idle connection stays open; more than the load balancer's.",
        ),
    ] = 75
    rate_limit: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            parser=number,
            show_default=False,
            help="Requests per second that a client may send; by default any number.",
        ),
    ] = None


@dataclass(frozen=True)
class Surroundings:
    """What is between the service and its clients: other sites, and proxies."""

    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            show_default=False,
            help="Another site whose pages may ask, such as https://shop.example; repeatable.",
        ),
    ] = None
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            show_default=False,
            help="Below which a proxy offers the service, such as /segue; by default at its root.",
        ),
    ] = ""
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="A proxy, or a network of them, whose X-Forwarded-For is believed; repeatable.",
        ),
    ] = None


def serve(
    run: RunPath,
    limits: Limits,
    surroundings: Surroundings,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(parser=whole_number, help="The port to listen on; 0 takes a free one.")
    ] = 8000,
    database: Database = None,
    no_events: Annotated[
        bool,
        typer.Option("--no-events", help="Serve without a memory: no events, no erasure, no file."),
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines without keys.")
    ] = False,
) -> None:
    """Serve a run over HTTP, with a page to look at.

    Keys, of at least 16 letters, come from the environment: SEGUE_API_KEYS (separated by commas),
    SEGUE_ADMIN_KEY for reload and erasure, SEGUE_ERASURE_KEY for the hashes of erased users.
    """
    signal.signal(signal.SIGTERM, _end)
    if no_events and database is not None:
        raise ConfigError("a service without a memory has no database: leave out one of the two")
    settings = _settings(
        run,
        host=host,
        port=port,
        database="none:" if no_events else database,
        queue_size=limits.queue,
        deadline_s=limits.deadline,
        grace_s=limits.grace,
        keep_alive_s=limits.keep_alive,
        rate_limit=limits.rate_limit,
        is_insecure=insecure,
        allowed_origins=tuple(surroundings.allow_origin or ()),
        root_path=surroundings.root_path,
        trusted_proxies=tuple(surroundings.trusted_proxy or ()),
    )
    try:
        from segue.serving.server import serve as serve_until_told
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    note("loading the run and compiling the model for all sizes of requests")
    serve_until_told(settings, lambda address: note(f"serving {run} at {address}"))


def _end(*_: object) -> None:
    """End at once: until the service listens, which handles SIGTERM itself, nothing is lost.

    Python's own handler would have the process end with 143, and process 1 of a container go on.
    """
    os._exit(0)


events = typer.Typer(help="Events that a service has taken.", rich_markup_mode=None)


@events.callback()
def _events() -> None:
    """Events that a service has taken."""


def export(
    run: RunPath,
    target: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="The Parquet log to write.")
    ],
    database: Database = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="Begin with the run's own log, without the users that were erased."
        ),
    ] = False,
    force: Force = False,
) -> None:
    """Write the events as the log that segue fit reads."""
    from polars.exceptions import PolarsError

    from segue.artifact import read_run
    from segue.files import replaced

    settings = _settings(run, database=database)
    try:
        from segue.serving.export import exported
        from segue.serving.stores import open_store_of
        from segue.serving.times import Clock
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    if target.exists() and not force:
        raise OutputError(f"{target} exists; replace it with --force, or choose another place")
    loaded = read_run(run)
    clock = Clock.of(loaded.split.histories if loaded.split else None)
    store = open_store_of(clock, settings.database_url, erasure_key=settings.keys.erasure)
    try:
        log = exported(loaded, store, is_whole=whole)
    finally:
        store.close()
    try:
        with replaced(target) as draft:
            log.write_parquet(draft)
    except (OSError, PolarsError) as error:
        raise OutputError(f"cannot write {target}: {error}; choose another place") from error
    say(f"{log.height:,} interactions are in {target}.")


events.command()(spelled_out(export))


def _settings(run: Path, **options: object) -> "Settings":
    from segue.serving.settings import Keys, Settings

    return Settings(run, keys=Keys.from_environment(), **options)  # type: ignore[arg-type]


def _missing(error: ModuleNotFoundError) -> ConfigError:
    return ConfigError(f"serving needs the module {error.name!r}; install segue[serve]")
