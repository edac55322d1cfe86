"""A store in one file, under a URL scheme of its own: through the service's interface."""

import asyncio
import json
import threading
from pathlib import Path

import httpx

from segue.serving.app import create_app
from segue.serving.limits import MAX_HISTORY
from segue.serving.service import Service
from segue.serving.settings import Settings
from segue.serving.stores import STORES, Erase, StoredEvent, UserEvents
from segue.testing.stores import check_store


@STORES.register("jsonl")
class JsonLinesStore:
    """Events and erasures, one line each, in a file that is read whole."""

    def __init__(self, url: str, kind, *, erasure_key: str | None = None) -> None:
        self.kind = kind
        self._path = Path(url.removeprefix("jsonl:"))
        self._lock = threading.Lock()
        self._path.touch()

    def read_many(self, user_ids):
        events, erased = self._state()
        return [
            UserEvents(*_in_order(events, user_id), is_erased=user_id in erased)
            for user_id in user_ids
        ]

    def write(self, writes):
        with self._lock:
            return [self._written(write) for write in writes]

    def everything(self):
        yield self._state()[0]

    def has_erased(self, user_ids):
        erased = self._state()[1]
        return [user_id in erased for user_id in user_ids]

    def check(self) -> None:
        self._path.stat()

    def close(self) -> None:
        """Nothing stays open."""

    def _written(self, write) -> int:
        events, _ = self._state()
        if isinstance(write, Erase):
            self._append([{"erase": write.user_id}])
            return sum(event.user_id == write.user_id for event in events)
        new: list[StoredEvent] = []
        for event in write.events:
            is_known = any(
                (event.event_id is not None and event.event_id == other.event_id)
                or (event.user_id, event.item_id, event.timestamp)
                == (other.user_id, other.item_id, other.timestamp)
                for other in [*events, *new]
            )
            if not is_known:
                new.append(event)
        self._append([vars(event) for event in new])
        return len(new)

    def _append(self, rows) -> None:
        with self._path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def _state(self):
        events: list[StoredEvent] = []
        erased: set[str] = set()
        for line in self._path.read_text().splitlines():
            row = json.loads(line)
            if "erase" in row:
                erased.add(row["erase"])
                events = [event for event in events if event.user_id != row["erase"]]
            else:
                events.append(StoredEvent(**row))
        return events, erased


def _in_order(events, user_id):
    own = sorted(
        (event for event in events if event.user_id == user_id), key=lambda event: event.timestamp
    )[-MAX_HISTORY:]
    return [event.item_id for event in own], [event.timestamp for event in own]


def test_the_store_keeps_what_stores_promise(tmp_path):
    url = f"jsonl:{tmp_path / 'events.jsonl'}"
    check_store(lambda: STORES["jsonl"](url, "integer"))


def asked(service: Service, *requests: tuple[str, dict]) -> list[dict]:
    """The answers of the service's interface to requests, one after another."""

    async def ask() -> list[dict]:
        transport = httpx.ASGITransport(app=create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [(await client.post(path, json=body)).json() for path, body in requests]

    return asyncio.run(ask())


def test_the_next_answer_knows_an_event_and_so_does_the_next_service(run, tmp_path):
    settings = Settings(run=run, database=f"jsonl:{tmp_path / 'events.jsonl'}")
    question = "/v1/recommendations", {"user_id": "somebody new", "k": 5}
    event = {"user_id": "somebody new", "item_id": 5, "timestamp": 1}
    history = "/v1/recommendations", {"history": [5], "k": 5}

    service = Service(settings)
    before, kept, after, given = asked(
        service, question, ("/v1/events", {"events": [event]}), question, history
    )
    service.close()
    assert before["strategy"] == "popular"
    assert kept["accepted"] == 1
    assert after["strategy"] == "model"
    assert after["items"] == given["items"]

    service = Service(settings)
    (again,) = asked(service, question)
    service.close()
    assert again["items"] == after["items"]
