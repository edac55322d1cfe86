"""A store in one file, under a URL scheme of its own: through the service's interface."""

import asyncio
import json
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from segue.files import write_text
from segue.serving.app import create_app
from segue.serving.limits import MAX_HISTORY
from segue.serving.service import Service
from segue.serving.settings import Settings
from segue.serving.stores import STORES, Erase, Hide, StoredEvent, UserEvents
from segue.testing.stores import check_store


@dataclass
class Snapshot:
    """What the file held when it was read."""

    events: list[StoredEvent]
    erased: frozenset[str]

    def everything(self):
        yield self.events

    def has_erased(self, user_ids):
        return [user_id in self.erased for user_id in user_ids]


@STORES.register("jsonl")
class JsonLinesStore:
    """One line of JSON for all that is written together, in a file that is read whole.

    A line that a crash left without its end counts as not written.
    """

    def __init__(self, url: str, kind, *, erasure_key: str | None = None) -> None:
        self.kind = kind
        self._path = Path(url.removeprefix("jsonl:"))
        self._lock = threading.Lock()
        with self._lock, self._path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)

    def read_many(self, user_ids):
        events, erased, _ = self._state()
        return [
            UserEvents(*_in_order(events, user_id), is_erased=user_id in erased)
            for user_id in user_ids
        ]

    def write(self, writes):
        with self._lock:
            state = self._state()
            counts, changes = [], []
            for write in writes:
                events, _, hidden = state
                if isinstance(write, Erase):
                    change = {"erase": write.user_id}
                    counts.append(sum(event.user_id == write.user_id for event in events))
                elif isinstance(write, Hide):
                    change = {"hide": write.item_id, "is_hidden": write.is_hidden}
                    counts.append(int((write.item_id in hidden) != write.is_hidden))
                else:
                    change = {"append": [vars(event) for event in _new(write.events, events)]}
                    counts.append(len(change["append"]))
                state = _changed(*state, change)
                changes.append(change)
            with self._path.open("a") as file:
                file.write(json.dumps(changes) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return counts

    def has_remains(self):
        return False

    def hidden(self):
        return self._state()[2]

    def clashing(self, events):
        known = {event.event_id: event for event in self._state()[0]}
        return [
            place
            for place, event in enumerate(events)
            if event.event_id and known.get(event.event_id, event) != event
        ]

    @contextmanager
    def snapshot(self):
        yield Snapshot(*self._state()[:2])

    def noted(self, name, value):
        path = self._path.with_name(f"{self._path.name}.{name}")
        if not path.exists():
            write_text(path, value)
        return path.read_text()

    def check(self) -> None:
        self._path.stat()

    def close(self) -> None:
        """Nothing stays open."""

    def _state(self):
        state = [], frozenset(), frozenset()
        for line in self._path.read_text().splitlines(keepends=True):
            for change in json.loads(line) if line.endswith("\n") else []:
                state = _changed(*state, change)
        return state


def _changed(events, erased, hidden, change):
    if "append" in change:
        added = [StoredEvent(**event) for event in change["append"]]
        return [*events, *added], erased, hidden
    if "hide" in change:
        item = {change["hide"]}
        return events, erased, hidden | item if change["is_hidden"] else hidden - item
    user_id = change["erase"]
    left = [event for event in events if event.user_id != user_id]
    return left, erased | {user_id}, hidden


def _new(appended, events):
    """Those that are no duplicates, of what is there or of one another."""
    known_ids = {event.event_id for event in events} - {None}
    known_meetings = {(event.user_id, event.item_id, event.timestamp) for event in events}
    new = []
    for event in appended:
        meeting = event.user_id, event.item_id, event.timestamp
        if event.event_id not in known_ids and meeting not in known_meetings:
            new.append(event)
            known_ids |= {event.event_id} - {None}
            known_meetings.add(meeting)
    return new


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


def test_the_next_answer_knows_an_event_and_so_do_the_next_model_and_service(run, tmp_path):
    settings = Settings(run=run, database=f"jsonl:{tmp_path / 'events.jsonl'}")
    question = "/v1/recommendations", {"user_id": "somebody new", "k": 5}
    event = {"user_id": "somebody new", "item_id": 5, "timestamp": 1}
    history = "/v1/recommendations", {"history": [5], "k": 5}

    service = Service(settings)
    before, kept, after, given, reloaded, again = asked(
        service,
        question,
        ("/v1/events", {"events": [event]}),
        question,
        history,
        ("/v1/admin/reload", {}),
        question,
    )
    service.close()
    assert before["strategy"] == "popular"
    assert kept["accepted"] == 1
    assert after["strategy"] == "model"
    assert after["items"] == given["items"]
    assert reloaded["model_version"] == after["model_version"]
    assert again["items"] == after["items"]

    service = Service(settings)
    (restarted,) = asked(service, question)
    service.close()
    assert restarted["items"] == after["items"]
