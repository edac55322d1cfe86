"""`segue serve` as a process: started, told to end, killed."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

KILLS = 50
# A service loads for seconds before each kill; a store alone, as in `WRITER`, starts in no time.
SERVICE_KILLS = int(os.environ.get("SEGUE_TEST_KILLS", "5"))
WRITERS = 3
WRITER = """
import sys
from segue.serving.stores import Append, StoredEvent, open_store

store = open_store(sys.argv[1], "integer", erasure_key="a key that nobody guesses")
round = sys.argv[2]
for number in range(1_000_000):
    events = [
        StoredEvent(f"{round}-{number}-{each}", f"user-{each}", f"{round}-{number}", number, None)
        for each in range(3)
    ]
    assert store.write([Append(events)]) == [3]
    print(number, flush=True)
"""


DYING = """
import sys
from pathlib import Path

from segue.serving.batcher import Batcher
from segue.serving.server import serve
from segue.serving.settings import Settings

def die(batcher, jobs):
    raise SystemExit("no question is at fault")

Batcher._settle = die
serve(Settings(Path(sys.argv[1]), port=0), lambda address: print(address, flush=True))
"""


@contextmanager
def process(run: Path, *options: str, **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A service of its own, and its address."""
    command = [sys.executable, "-m", "segue", "serve", str(run), "--port", "0", *options]
    started = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    assert started.stderr is not None
    lines: list[str] = []
    try:
        while not (found := re.search(r"at (http://\S+)/$", lines[-1] if lines else "")):
            line = started.stderr.readline()
            assert line, lines
            lines.append(line.rstrip())
        yield started, found[1]
    finally:
        started.kill()
        started.wait()
        started.stderr.close()


@pytest.fixture
def own_run(served_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(served_run, tmp_path / "run"))


@pytest.mark.slow
def test_told_to_end_it_answers_what_is_in_flight_keeps_events_and_exits_with_0(own_run):
    with process(own_run) as (service, address):
        client = httpx.Client(base_url=address)
        event = {"user_id": "ann", "item_id": 3, "timestamp": 1}
        assert client.post("/v1/events", json={"events": [event]}).json()["accepted"] == 1
        assert (own_run.parent / "run.events.sqlite").exists()
        asked = {"requests": [{"history": [1, 2, 3], "k": 30}] * 64}
        statuses: list[int] = []
        lost: list[float] = []

        def ask() -> None:
            with httpx.Client(base_url=address) as mine:
                while not lost:
                    asked_at = time.monotonic()
                    try:
                        answer = mine.post("/v1/recommendations:batch", json=asked)
                    except httpx.TransportError:
                        lost.append(asked_at)
                        return
                    statuses.append(answer.status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        told = time.monotonic()
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=12) == 0
        assert time.monotonic() - told < 10
        for thread in threads:
            thread.join()
        client.close()
    assert set(statuses) == {200}
    # A refused or reset connection is how a server that ends tells a newcomer, and a newcomer is
    # who had not been read yet.
    assert min(lost) > told - 0.1
    with process(own_run) as (_, address):
        history = httpx.get(f"{address}/v1/users/ann/history").json()
    assert history["items"] == [{"item_id": 3, "timestamp": 1}]


def test_without_keys_it_does_not_serve_the_world(own_run, capfd):
    command = [sys.executable, "-m", "segue", "serve", str(own_run), "--host", "0.0.0.0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "SEGUE_API_KEYS" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_told_to_end_while_it_loads_it_ends_with_0_and_never_serves(own_run):
    command = [sys.executable, "-m", "segue", "serve", str(own_run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as loading:
        assert loading.stderr is not None
        assert "loading" in loading.stderr.readline()
        loading.send_signal(signal.SIGTERM)
        assert loading.stderr.read() == ""
        assert loading.wait(60) == 0


@pytest.mark.slow
def test_a_process_whose_computing_thread_dies_ends_with_1(own_run):
    command = [sys.executable, "-c", DYING, str(own_run)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        address = serving.stdout.readline().strip()
        answer = httpx.post(f"{address}v1/recommendations", json={"history": [1]}, timeout=30)
        assert answer.status_code == 503
        _, errors = serving.communicate(timeout=60)
    assert serving.returncode == 1
    assert "the thread segue-compute died" in errors
    assert errors.rstrip().splitlines()[-1].endswith("start it again")


def test_an_address_that_is_taken_is_refused_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        command = [sys.executable, "-m", "segue", "serve", str(tmp_path / "no-run"), "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1, port {port}" in ended.stderr
    assert "--port" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_killed_at_any_moment_no_acknowledged_event_is_lost_and_none_is_there_twice(
    kind, tmp_path, request
):
    url = f"sqlite:///{tmp_path / 'events.sqlite'}"
    if kind == "postgresql":
        url = f"{request.getfixturevalue('postgres')}/postgres"
    from segue.serving.stores import open_store

    random.seed(4)
    acknowledged: set[str] = set()
    for kill in range(KILLS):
        command = [sys.executable, "-c", WRITER, url, str(kill)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]  # it writes now
        time.sleep(random.uniform(0, 0.03))
        writer.kill()
        lines += writer.stdout.readlines()
        writer.wait()
        writer.stdout.close()
        whole = [line.strip() for line in lines if line.endswith("\n")]
        assert whole, "the writer failed before its first event"
        acknowledged |= {f"{kill}-{number}-{each}" for number in whole for each in range(3)}
    store = open_store(url, "integer", erasure_key="a key that nobody guesses")
    with store.snapshot() as moment:
        kept = [event.event_id for rows in moment.everything() for event in rows]
    store.close()
    assert acknowledged <= set(kept)
    assert len(kept) == len(set(kept))
    assert len(kept) % 3 == 0  # a write is there whole or not at all


def write_until_killed(address: str, round_and_writer: str, acknowledged: list[str]) -> None:
    """Send events, three at a time, until the service is gone; note those it acknowledged."""
    with httpx.Client(base_url=address) as client, suppress(httpx.TransportError):
        for number in range(1_000_000):
            names = [f"{round_and_writer}-{number}-{each}" for each in range(3)]
            events = [
                {"event_id": name, "user_id": f"user-{each}", "item_id": name, "timestamp": number}
                for each, name in enumerate(names)
            ]
            answer = client.post("/v1/events", json={"events": events})
            assert answer.json() == {"accepted": 3, "duplicates": 0, "rejected": []}
            acknowledged += names


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_killed_service_has_kept_every_event_it_acknowledged(kind, own_run, tmp_path, request):
    url = f"sqlite:///{tmp_path / 'events.sqlite'}"
    if kind == "postgresql":
        url = f"{request.getfixturevalue('postgres')}/postgres"
    settings = {
        "SEGUE_ERASURE_KEY": "a key that nobody guesses",
        # Only the first service compiles.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    from segue.serving.stores import open_store

    random.seed(5)
    acknowledged: list[str] = []
    for kill in range(SERVICE_KILLS):
        with process(own_run, "--database", url, **settings) as (service, address):
            before = len(acknowledged)
            writers = [
                threading.Thread(
                    target=write_until_killed, args=(address, f"killed-{kill}-{each}", acknowledged)
                )
                for each in range(WRITERS)
            ]
            for writer in writers:
                writer.start()
            while len(acknowledged) == before:
                assert any(writer.is_alive() for writer in writers)
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.1))
            service.kill()
            for writer in writers:
                writer.join()
    store = open_store(url, "integer", erasure_key=settings["SEGUE_ERASURE_KEY"])
    with store.snapshot() as moment:
        found = [event.event_id or "" for rows in moment.everything() for event in rows]
    store.close()
    kept = [name for name in found if name.startswith("killed-")]  # others' are there, too
    assert set(acknowledged) <= set(kept)
    assert len(kept) == len(set(kept))
    assert len(kept) % 3 == 0  # a request's events are there together or not at all
