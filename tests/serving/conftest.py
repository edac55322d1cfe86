"""A service over the small run, listening on a free port of this machine."""

import os
import pwd
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jax
import polars as pl
import pytest
import uvicorn

from segue.recommender import Recommender
from segue.serving.model import ServedModel
from segue.serving.server import bound, config_of
from segue.serving.service import Service
from segue.serving.settings import Settings

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
GENRES = [["Drama"], ["Comedy"], ["Comedy", "Drama"], ["Children's", "Comedy"]]
NUM_ITEMS = 30


@pytest.fixture(scope="session")
def catalogue() -> pl.DataFrame:
    """Films 1..30: called Café N (1970 + N), of four kinds of genres in turn, some unrated."""
    ids = range(1, NUM_ITEMS + 1)
    return pl.DataFrame(
        {
            "title": [f"Café Number {each} ({1970 + each})" for each in ids],
            "genres": [GENRES[each % 4] for each in ids],
            "stars": [None if each % 5 == 0 else each / 2 for each in ids],
        }
    )


@pytest.fixture(scope="session")
def served(recommender: Recommender, catalogue: pl.DataFrame) -> Recommender:
    """The small run with that catalogue."""
    return Recommender(replace(recommender.run, catalogue=catalogue))


@pytest.fixture(scope="session")
def served_run(served: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It on disk, to be read only."""
    path = tmp_path_factory.mktemp("served") / "run"
    served.save(path)
    return path


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """The address of a service while it listens."""
    listener = bound(service.settings.host, 0)
    server = uvicorn.Server(config_of(service, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


Start = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def start(served_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a service with settings of the test's own and gives a client of it.

    It compiles what it needs when it needs it, which is less than all shapes.
    """
    monkeypatch.setattr(ServedModel, "warm_up", lambda model: None)

    @contextmanager
    def started(**options: object) -> Iterator[httpx.Client]:
        given = {"run": served_run, "database": f"sqlite:///{tmp_path / 'events.sqlite'}"}
        service = Service(Settings(**{**given, **options}))  # type: ignore[arg-type]
        with listening(service) as address, httpx.Client(base_url=address) as client:
            client.service = service  # type: ignore[attr-defined]
            yield client

    return started


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """What JAX compiles from here on."""
    compiled: list[str] = []

    def listen(event: str, seconds: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield compiled
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session")
def service(served_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A service for tests that leave nothing behind but events."""
    database = tmp_path_factory.mktemp("database") / "events.sqlite"
    return Service(Settings(served_run, database=f"sqlite:///{database}"))


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[httpx.Client]:
    """A client of it."""
    with listening(service) as address, httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own, on a free port of this machine."""
    if not POSTGRES:
        pytest.skip("no PostgreSQL server is installed (Debian: postgresql)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Not in pytest's own directory, which is root's alone where root tests.
    with tempfile.TemporaryDirectory(prefix="segue-postgres-") as directory:
        place = Path(directory)
        owner: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(place, nobody.pw_uid, nobody.pw_gid)
            owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

        def call(program: str, *arguments: str) -> None:
            command = [POSTGRES[0] / program, "-D", str(place / "data"), *arguments]
            with open(place / "output", "ab") as output:
                subprocess.run(
                    command,
                    check=True,
                    cwd=place,
                    stdout=output,
                    stderr=output,
                    timeout=60,
                    **owner,
                )

        call("initdb", "-U", "segue", "-A", "trust", "-E", "UTF8", "--no-sync")
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={place}"
        call("pg_ctl", "-o", settings, "-l", str(place / "log"), "-w", "start")
        try:
            yield f"postgresql://segue@127.0.0.1:{port}"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")
