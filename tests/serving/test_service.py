"""Events that the next answer knows, and a model that changes under load."""

import asyncio
import gc
import shutil
import sqlite3
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.exceptions import PanicException

from segue.recommender import Recommender
from segue.serving import service as services
from segue.serving.model import ServedModel, ServedQuestion, Wanted
from segue.serving.service import Service
from segue.serving.settings import Keys, Settings
from segue.serving.stores import Append, StoredEvent, StoreError

RELOADING_S = 5
EVENTS, RECOMMEND = "/v1/events", "/v1/recommendations"


def met(user: str, item: object, at: object, **more: object) -> dict[str, object]:
    return {"user_id": user, "item_id": item, "timestamp": at, **more}


def send(client: httpx.Client, *events: dict[str, object]) -> dict[str, object]:
    answer = client.post(EVENTS, json={"events": list(events)})
    assert answer.status_code == 200, answer.text
    document: dict[str, object] = answer.json()
    return document


def history(client: httpx.Client, user: str) -> list[tuple[object, object]]:
    items = client.get(f"/v1/users/{user}/history").json()["items"]
    return [(item["item_id"], item["timestamp"]) for item in items]


def ids(client: httpx.Client, **asked: object) -> list[int]:
    answer = client.post(RECOMMEND, json=asked)
    return [item["item_id"] for item in answer.json()["items"]]


def test_the_next_answer_knows_an_event(client):
    assert client.post(RECOMMEND, json={"user_id": "newcomer"}).json()["strategy"] == "popular"
    send(client, met("newcomer", 3, 10), met("newcomer", "7", 20))
    assert history(client, "newcomer") == [(3, 10), (7, 20)]
    assert ids(client, user_id="newcomer") == ids(client, history=[3, 7])


def test_a_users_history_is_the_runs_and_the_events_by_time(client, served):
    before = served.history_of(9)  # at the times 0 to 11, as the log was made
    assert history(client, "9") == list(zip(before, range(12), strict=True))
    send(client, met("9", 30, 4), met("9", before[5], 5), met("9", "unheard of", 50))
    expected = list(zip(before, range(12), strict=True))
    expected.insert(5, (30, 4))  # arrived after what the run has of that time
    assert history(client, "9") == [*expected, ("unheard of", 50)]
    known = [item for item, _ in expected]
    answer = client.post(RECOMMEND, json={"user_id": "9"}).json()
    assert answer["unknown_items"] == ["unheard of"]
    assert [item["item_id"] for item in answer["items"]] == ids(client, history=known)


def test_a_repeated_event_is_harmless_and_a_bad_one_is_named(client):
    events = [
        met("repeater", 1, 1, event_id="r1"),
        met("repeater", 2, 2.5),
        met("repeater", 2, "soon"),
        {"user_id": "repeater"},
        met("repeater", 2, 3, colour="red"),
        met("repeater", 2, 3, weight="heavy"),
        "nonsense",
        met("nul\x00", 2, 3),
        met("repeater", 2, 2**80),
        met("repeater", 2, True),
    ]
    first = send(client, *events)
    assert (first["accepted"], first["duplicates"]) == (1, 0)
    assert [each["index"] for each in first["rejected"]] == list(range(1, 10))
    assert "whole numbers" in first["rejected"][0]["reason"]
    assert send(client, events[0], events[0] | {"event_id": "r2"}, met("repeater", 1, 1)) == {
        "accepted": 0,
        "duplicates": 3,
        "rejected": [],
    }
    assert history(client, "repeater") == [(1, 1)]


@pytest.mark.parametrize("moment", ["0000-01-01", "+12345-01-01", "9999-12-31T23:59:59-23:59"])
def test_an_impossible_time_rejects_its_own_event_alone(client, moment):
    answer = send(client, met(moment, 1, 1), met(moment, 2, moment), met(moment, 3, 2))
    assert (answer["accepted"], [each["index"] for each in answer["rejected"]]) == (2, [1])
    assert "years 1 to 9999" in answer["rejected"][0]["reason"]
    assert history(client, moment) == [(1, 1), (3, 2)]
    asked = {"history": [{"item_id": 1, "timestamp": moment}]}
    refused = client.post(RECOMMEND, json=asked)
    assert (refused.status_code, "years 1 to 9999" in refused.json()["detail"]) == (422, True)


def test_an_id_of_another_event_is_rejected_with_the_reason(client):
    first = met("clash ann", 1, 1, event_id="c1", weight=2.5)
    again = [
        "nonsense",
        first,
        first | {"user_id": "clash bob"},
        first | {"item_id": 2},
        first | {"timestamp": 2},
        first | {"weight": 1},
        met("clash bob", 3, 3, event_id="c2"),
        met("clash bob", 4, 4, event_id="c2"),
        met("clash bob", 5, 5),
    ]
    assert send(client, first)["accepted"] == 1
    answer = send(client, *again)
    assert (answer["accepted"], answer["duplicates"]) == (2, 1)
    assert [each["index"] for each in answer["rejected"]] == [0, 2, 3, 4, 5, 7]
    assert all("id of another event" in each["reason"] for each in answer["rejected"][1:])
    assert history(client, "clash bob") == [(3, 3), (5, 5)]


def erased(user: str, events: int) -> dict[str, object]:
    return {"user_id": user, "events": events, "is_pending": False}


CONTROLS = [chr(code) for code in (*range(32), *range(127, 160))]


@pytest.mark.parametrize("field", ["user_id", "item_id", "event_id"])
def test_events_take_no_id_with_a_control_character(client, field):
    events = [met("plain", 1, 1) | {field: f"a{each}b"} for each in CONTROLS]
    answer = send(client, *events, *(met("plain", 1, 1) | {field: each} for each in CONTROLS))
    assert len(answer["rejected"]) == 2 * len(CONTROLS)


def test_what_events_take_erasure_erases(start):
    odd = st.sampled_from([".", "..", "a/history", "%2e", "ä b?#", "\u2028"])

    with start() as client:

        @settings(max_examples=60, deadline=None)
        @given(st.text(min_size=1, max_size=20) | odd)
        def check(user: str) -> None:
            path = f"/v1/users/{quote(user, safe='').replace('.', '%2E')}/history"
            taken = send(client, met(user, 1, 1))["accepted"]
            assert taken == (not any(each in user for each in CONTROLS))
            if taken:
                assert client.get(path).json()["user_id"] == user
                assert client.delete(path).json() == erased(user, 1)
                assert client.get(path).status_code == 404

        check()


def test_ids_of_before_with_a_line_break_are_shown_and_erased(start):
    with start() as client:
        event = StoredEvent(None, "a\nb\n", "x\ny", 1, None)
        client.service.store.write([Append([event])])
        path = "/v1/users/a%0Ab%0A/history"
        assert client.get(path).json()["items"][0]["item_id"] == "x\ny"
        assert client.delete(path).json() == erased("a\nb\n", 1)
        assert client.get(path).status_code == 404


def test_an_erasure_says_that_it_is_pending_while_somebody_reads(start, tmp_path):
    with start() as client:
        send(client, met("ann", 1, 1), met("bob", 1, 1))
        with closing(sqlite3.connect(tmp_path / "events.sqlite")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM segue_events").fetchall()
            assert client.delete("/v1/users/ann/history").json()["is_pending"]
            assert "segue_erasure_pending 1.0" in client.get("/metrics").text
            assert client.get("/v1/users/ann/history").status_code == 404
        while "segue_erasure_pending 1.0" in client.get("/metrics").text:
            time.sleep(0.01)
        assert not client.delete("/v1/users/bob/history").json()["is_pending"]


def test_events_are_counted(client):
    def count() -> float:
        (line,) = [
            line
            for line in client.get("/metrics").text.splitlines()
            if line.startswith('segue_events_total{outcome="accepted"}')
        ]
        return float(line.split()[-1])

    send(client, met("counted", 1, 1))
    before = count()
    send(client, met("counted", 1, 2), met("counted", 1, 3), met("counted", 1, 2))
    assert count() == before + 2


def test_erasure_makes_a_user_of_the_run_a_stranger(start):
    with start() as client:
        assert client.get("/v1/users/11/history").status_code == 200
        send(client, met("11", 3, 99))
        assert client.delete("/v1/users/11/history").json() == erased("11", 1)
        assert client.get("/v1/users/11/history").status_code == 404
        assert client.post(RECOMMEND, json={"user_id": "11"}).json()["strategy"] == "popular"
        send(client, met("11", 5, 100))
        assert history(client, "11") == [(5, 100)]
        assert client.get("/v1/users/12/history").status_code == 200


def test_a_broken_database_is_503_and_the_service_lives_on(start, tmp_path):
    with start() as client:
        send(client, met("ann", 1, 1))
        store = client.service.store
        with store._engine.connect() as connection:
            connection.exec_driver_sql("ALTER TABLE segue_events RENAME TO hidden")
        answer = client.post(EVENTS, json={"events": [met("ann", 2, 2)]})
        assert answer.status_code == 503
        assert "ann" not in answer.text
        assert client.post(RECOMMEND, json={"history": [1]}).status_code == 200
        with store._engine.connect() as connection:
            connection.exec_driver_sql("ALTER TABLE hidden RENAME TO segue_events")
        send(client, met("ann", 2, 2))
        assert history(client, "ann") == [(1, 1), (2, 2)]


@pytest.fixture
def other(served: Recommender) -> Recommender:
    """A model that ranks the other way round."""
    weights = dict(served.run.weights)
    weights["item_embedding/table"] = -weights["item_embedding/table"]
    return Recommender(replace(served.run, weights=weights))


@pytest.fixture
def link(served_run: Path, tmp_path: Path) -> Path:
    """A link to a copy of the run."""
    shutil.copytree(served_run, tmp_path / "first")
    (tmp_path / "current").symlink_to(tmp_path / "first")
    return tmp_path / "current"


def point(link: Path, run: Path) -> None:
    draft = link.with_name("draft")
    draft.symlink_to(run)
    draft.replace(link)


def test_a_reload_of_a_run_of_the_same_make_compiles_nothing(link, other, tmp_path, compilations):
    other.save(tmp_path / "second")
    service = Service(Settings(link, database=f"sqlite:///{tmp_path / 'events.sqlite'}"))
    compilations.clear()
    point(link, tmp_path / "second")
    before, now = asyncio.run(service.reload())
    assert before != now
    assert compilations == []
    asyncio.run(service.ask([ServedQuestion(Wanted(), [1, 2, 3])]))
    assert compilations == []
    service.close()


def test_a_model_that_was_replaced_is_freed(link, other, tmp_path, monkeypatch):
    monkeypatch.setattr(ServedModel, "warm_up", lambda model: None)
    other.save(tmp_path / "second")
    service = Service(Settings(link, database=f"sqlite:///{tmp_path / 'events.sqlite'}"))
    gc.collect()
    gc.freeze()  # as the server does
    first = weakref.ref(service.model)
    is_held, may_go = threading.Event(), threading.Event()
    answers, collect = ServedModel.answers, services._collect
    under_way: list[object] = []
    when_collected: list[int] = []

    def held(model, questions):
        under_way.append(questions)
        is_held.set()
        assert may_go.wait(60)
        under_way.pop()
        return answers(model, questions)

    def watched():
        when_collected.append(len(under_way))
        collect()

    async def reload_while_it_answers():
        asked = asyncio.create_task(service.ask([ServedQuestion(Wanted(), [1])] * 300))
        given_up = asyncio.create_task(service.ask([ServedQuestion(Wanted(), [1])] * 100))
        await asyncio.to_thread(is_held.wait, 60)
        reload = asyncio.create_task(service.reload())
        while service.model is first():
            await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.sleep(0.1)  # time to collect too early
        may_go.set()
        await asyncio.gather(asked, reload)

    try:
        point(link, tmp_path / "second")
        monkeypatch.setattr(ServedModel, "answers", held)
        monkeypatch.setattr(services, "_collect", watched)
        asyncio.run(reload_while_it_answers())
        assert when_collected == [0]
        assert first() is None
    finally:
        gc.unfreeze()
        service.close()


@pytest.mark.slow
def test_reloads_under_load_fail_no_request_and_no_answer_mixes_two(start, link, other, tmp_path):
    other.save(tmp_path / "second")
    asked = {"requests": [{"history": [each], "return": ["score"]} for each in range(1, 9)]}
    answers: list[httpx.Response] = []
    versions: list[str] = []
    with start(run=link) as client:
        is_over = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=client.base_url, timeout=30) as mine:
                while not is_over.is_set():
                    answers.append(mine.post(f"{RECOMMEND}:batch", json=asked))

        with ThreadPoolExecutor() as pool:
            asking = [pool.submit(ask) for _ in range(3)]
            ends = time.monotonic() + RELOADING_S
            while time.monotonic() < ends or len(versions) < 4:
                point(link, tmp_path / ("first" if len(versions) % 2 else "second"))
                reloaded = client.post("/v1/admin/reload", timeout=60).json()
                assert versions[-1:] in ([], [reloaded["previous_version"]])
                versions.append(reloaded["model_version"])
                done = len(answers)
                while len(answers) < done + 9:  # one that was under way for each, and more
                    time.sleep(0.01)
            is_over.set()
            for each in asking:
                each.result()
    first, second = versions[1], versions[0]
    assert set(versions) == {first, second}
    assert first != second
    assert {answer.status_code for answer in answers} == {200}
    scores: dict[str, list[list[float]]] = {first: [], second: []}
    for answer in answers:
        document = answer.json()
        assert {each["model_version"] for each in document["results"]} == {
            document["model_version"]
        }
        best = [each["items"][0]["score"] for each in document["results"]]
        scores[document["model_version"]].append(best)
    for each in scores.values():
        np.testing.assert_allclose(each, [each[0]] * len(each), atol=1e-4)
    assert not np.allclose(scores[first][0], scores[second][0], atol=1e-2)


def test_a_bad_run_is_refused_and_the_old_model_stays(start, link, tmp_path):
    with start(run=link) as client:
        version = client.get("/v1/model").json()["model_version"]
        bad = shutil.copytree(tmp_path / "first", tmp_path / "bad")
        weights = bad / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
        for target in (bad, tmp_path / "absent"):
            point(link, target)
            answer = client.post("/v1/admin/reload")
            assert answer.status_code == 422
            assert "refused" in answer.json()["detail"]
        shutil.rmtree(tmp_path / "first")
        answer = client.post(RECOMMEND, json={"user_id": "3"}).json()
        assert (answer["model_version"], answer["strategy"]) == (version, "model")


def test_a_second_reload_at_once_is_refused(start, link):
    with start(run=link) as client:
        client.service._reload.acquire()
        assert client.post("/v1/admin/reload").status_code == 409
        client.service._reload.release()
        assert client.post("/v1/admin/reload", timeout=60).status_code == 200


@pytest.mark.parametrize("error", [ValueError("odd"), MemoryError(), PanicException("deep")])
def test_a_reload_that_fails_in_any_way_is_refused_and_the_old_model_stays(
    start, link, monkeypatch, caplog, error
):
    with start(run=link) as client:
        version = client.get("/v1/model").json()["model_version"]

        def fail(*_: object) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(ServedModel, "warm_up", fail)
            answer = client.post("/v1/admin/reload")
        assert answer.status_code == 422
        detail = answer.json()["detail"]
        assert "refused" in detail
        assert type(error).__name__ in detail
        assert "cannot be loaded" in caplog.text
        assert client.get("/v1/model").json()["model_version"] == version
        assert client.post("/v1/admin/reload").status_code == 200


@pytest.fixture
def stalled(start, tmp_path):
    """A client of a service whose database stands still, and what sets it going again."""
    goes_on = threading.Event()
    with start(grace_s=0.2, deadline_s=0.5) as client:
        store = client.service.store
        for name in ("read_many", "write", "check"):
            going = getattr(store, name)
            setattr(store, name, partial(_after, goes_on, going))
        yield client, goes_on
        if not goes_on.is_set():
            client.service.close()  # though the database never answers
        goes_on.set()


def _after(goes_on: threading.Event, call, *arguments):
    goes_on.wait()
    return call(*arguments)


def test_a_database_that_stands_still_holds_up_nothing_but_what_needs_it(stalled, monkeypatch):
    monkeypatch.setattr("segue.serving.service.CHECK_S", 0.05)
    client, goes_on = stalled
    event = {"events": [met("ann", 1, 1)]}
    for _ in range(12):  # more than the threads of a pool
        assert client.get("/readyz").status_code == 503
    assert client.post(RECOMMEND, json={"user_id": "ann"}).status_code == 504
    assert client.get("/v1/users/ann/history").status_code == 504
    assert client.post("/v1/events", json=event).status_code == 504
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/items", params={"query": "7"}).status_code == 200
    assert client.post(RECOMMEND, json={"history": [1]}).status_code == 200
    goes_on.set()
    while client.get("/readyz").status_code != 200:
        time.sleep(0.01)
    assert client.post("/v1/events", json=event).status_code == 200
    assert client.post(RECOMMEND, json={"user_id": "ann"}).status_code == 200


def test_a_service_ends_though_its_database_stands_still(stalled):
    client, _ = stalled
    assert client.post(RECOMMEND, json={"user_id": "ann"}).status_code == 504


def test_where_the_database_is_and_what_it_says_is_for_the_log_only(start, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise StoreError("the database postgresql://me@secret-host/name failed: no such table")

    with start() as client:
        for name in ("check", "read_many", "write"):
            monkeypatch.setattr(client.service.store, name, fail)
        answers = [
            client.get("/readyz"),
            client.get("/v1/users/ann/history"),
            client.post("/v1/events", json={"events": [met("ann", 1, 1)]}),
        ]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["detail"] == "the database failed; ask again"
    assert caplog.text.count("secret-host") == 3


def test_without_a_memory_the_run_alone_is_served_and_no_file_made(start, tmp_path):
    before = sorted(tmp_path.iterdir())
    with start(database="none:") as client:
        assert client.get("/readyz").status_code == 200
        assert client.get("/v1/users/9/history").status_code == 200
        assert client.post(RECOMMEND, json={"user_id": "9"}).json()["strategy"] == "model"
        assert client.post(RECOMMEND, json={"user_id": "new"}).json()["strategy"] == "popular"
        event = {"events": [met("ann", 1, 1)]}
        refused = [client.post("/v1/events", json=event), client.delete("/v1/users/9/history")]
        assert client.post("/v1/admin/reload").status_code == 200
    assert [each.status_code for each in refused] == [409, 409]
    assert all("--no-events" in each.json()["detail"] for each in refused)
    assert sorted(tmp_path.iterdir()) == before


def shown(client: httpx.Client, **asked: object) -> set[object]:
    """All items that the service's operations recommend or find."""
    everything = {"k": 30, "exclude_seen": False}
    similar = {"k": 30, "allow": asked.get("allow")}
    answers = [
        client.post(RECOMMEND, json={"history": [4], **everything, **asked}),
        client.post(RECOMMEND, json={"history": [], **everything, **asked}),
        client.post(RECOMMEND, json={"user_id": "9", **everything, **asked}),
        client.post("/v1/items/4/similar", json=similar),
        client.get("/v1/items/4/similar", params={"k": 30}),
        client.get("/v1/items", params={"limit": 100}),
        client.get("/v1/items", params={"query": "number 7"}),
    ]
    assert {each.status_code for each in answers} == {200}
    return {item["item_id"] for each in answers for item in each.json()["items"]}


def test_what_is_hidden_is_in_no_answer_until_it_is_shown_again(start, link, other, tmp_path):
    other.save(tmp_path / "second")
    with start(run=link) as client:
        whole = shown(client)
        assert 7 in whole
        answer = client.put("/v1/hidden/7")
        assert (answer.status_code, answer.json()) == (200, {"item_id": "7", "is_hidden": True})
        client.put("/v1/hidden/of%20the%20next%2Frun")
        assert client.get("/v1/hidden").json() == {"item_ids": ["7", "of the next/run"]}
        assert shown(client) == whole - {7}
        assert 7 not in shown(client, allow=[7, 8])
        why = {"history": [1], "item_id": 7}
        for refused in (
            client.get("/v1/items/7"),
            client.get("/v1/items/7/similar"),
            client.post("/v1/explanations", json=why),
        ):
            assert (refused.status_code, "hidden" in refused.json()["detail"]) == (404, True)
        assert client.post(RECOMMEND, json={"history": [7]}).json()["strategy"] == "model"
        point(link, tmp_path / "second")
        assert client.post("/v1/admin/reload").status_code == 200
        assert 7 not in shown(client)
    with start(run=link) as client:
        assert 7 not in shown(client)
        assert client.delete("/v1/hidden/7").json() == {"item_id": "7", "is_hidden": False}
        assert shown(client) == whole
        assert client.get("/v1/items/7").status_code == 200


def test_what_another_service_hides_is_known_from_the_next_probe_on(start):
    with start() as client, start() as other:
        other.put("/v1/hidden/7")
        assert client.get("/readyz").status_code == 200
        assert 7 not in shown(client)
        client.delete("/v1/hidden/7")
        assert 7 in shown(client)


def test_hiding_needs_the_admin_key_and_an_id_without_control_characters(start):
    api, admin = "an api key of 20 xx".replace(" ", "-"), "an-admin-key-of-24-xxxxx"
    with start(keys=Keys((api,), admin)) as client:
        for key, expected in ((api, 403), (admin, 200)):
            headers = {"X-API-Key": key}
            answers = [
                client.put("/v1/hidden/7", headers=headers),
                client.get("/v1/hidden", headers=headers),
                client.delete("/v1/hidden/7", headers=headers),
            ]
            assert [each.status_code for each in answers] == [expected] * 3
        assert client.put("/v1/hidden/a%0Ab", headers=headers).status_code == 422
