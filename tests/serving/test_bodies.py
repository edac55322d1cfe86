"""Bodies made to cost as much as they can."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from segue.serving import bodies, schemas
from segue.serving.limits import MAX_BODY_BYTES
from segue.serving.problems import ProblemError

REQUESTS = [
    schemas.RecommendationRequest,
    schemas.BatchRequest,
    schemas.ExplanationRequest,
    schemas.SimilarRequest,
    schemas.EventsRequest,
    schemas.Event,
]
JSON = {"Content-Type": "application/json"}


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """All that a schema is made of."""
    if isinstance(schema, dict):
        yield schema
    if isinstance(schema, dict | list | tuple):
        for each in schema.values() if isinstance(schema, dict) else schema:
            yield from parts(each)


@pytest.mark.parametrize("model", REQUESTS)
def test_every_list_that_comes_in_is_bounded_and_read_up_to_its_first_fault(model):
    lists = [each for each in parts(model.__pydantic_core_schema__) if each.get("type") == "list"]
    for each in lists:
        assert each["fail_fast"]
        assert each["max_length"] <= 10_000
    assert lists or model is schemas.Event


def filled(before: str, each: str, after: str) -> bytes:
    """A body with as many of `each` as are taken, between these."""
    room = (MAX_BODY_BYTES - len(before) - len(after)) // (len(each) + 1)
    return f"{before}{','.join([each] * room)}{after}".encode()


def many(each: str, count: int) -> str:
    return ",".join([each] * count)


CONDITION = f'{{"field":"year","op":"in","value":[{many("{}", 1000)}]}}'
WORST = [
    (schemas.RecommendationRequest, filled('{"history":[', "true", "]}")),
    (schemas.RecommendationRequest, filled('{"history":[1],"allow":[', "{}", "]}")),
    (schemas.RecommendationRequest, filled('{"history":[1],"return":[', "1", "]}")),
    (schemas.RecommendationRequest, filled('{"history":[1],"filter":{"any":[', "1", "]}}")),
    (schemas.ExplanationRequest, filled('{"item_id":1,"history":[', '{"item_id":{}}', "]}")),
    (schemas.SimilarRequest, filled('{"filter":{"all":[', CONDITION, "]}}")),
    (schemas.EventsRequest, filled('{"events":[', "1", "]}")),
    (
        schemas.BatchRequest,
        filled('{"requests":[', f'{{"history":[{many("true", 5000)}]}}', "]}"),
    ),
    (
        schemas.BatchRequest,
        filled('{"requests":[', f'{{"history":[1],"filter":{{"all":[{CONDITION}]}}}}', "]}"),
    ),
]


@pytest.mark.parametrize(("model", "body"), WORST)
def test_the_worst_bodies_have_a_few_faults(model, body):
    assert 0.9 * MAX_BODY_BYTES < len(body) <= MAX_BODY_BYTES
    with pytest.raises(ProblemError) as refused:
        bodies.read(model, body)
    assert refused.value.status == 422
    assert 1 <= len(refused.value.errors or ()) <= 10


@pytest.mark.parametrize(
    ("start", "end"), [('{"history":[1],', "}"), ('{"history":[{"item_id":1,', "}]}")]
)
def test_fields_that_do_not_exist_are_counted_not_listed(start, end):
    names = ",".join(f'"{each:x}":1' for each in range(100_000))
    with pytest.raises(ProblemError, match="faults, too many to list") as refused:
        bodies.read(schemas.RecommendationRequest, f"{start}{names}{end}".encode())
    assert refused.value.errors is None


def test_a_large_body_is_read_as_a_small_one_is(client):
    large = {"history": [1, 2, 3], "deny": [f"item-{each}" for each in range(9_000)]}
    assert len(json.dumps(large)) > bodies.MAX_INLINE_BYTES
    answers = [
        client.post("/v1/recommendations", json=asked).json()
        for asked in (large, {"history": [1, 2, 3]})
    ]
    assert answers[0]["items"] == answers[1]["items"]
    refused = client.post(
        "/v1/recommendations", content=filled('{"history":[', "true", "]}"), headers=JSON
    )
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["where"].startswith("body/history")


def test_a_large_body_is_not_read_by_the_thread_that_answers_everybody(client, monkeypatch):
    threads: list[str] = []
    read = bodies.read

    def watched(model, body):
        threads.append(threading.current_thread().name)
        return read(model, body)

    monkeypatch.setattr(bodies, "read", watched)
    for length in (1, 9_000):
        client.post("/v1/recommendations", json={"history": ["x"] * length})
    small, large = threads
    assert large.startswith("segue-bodies")
    assert small != large


def test_the_times_of_events_are_not_read_by_the_thread_that_answers_everybody(
    client, service, monkeypatch
):
    threads: list[str] = []
    stored = type(service.model.clock).stored

    def watched(clock, given):
        threads.append(threading.current_thread().name)
        return stored(clock, given)

    monkeypatch.setattr(type(service.model.clock), "stored", watched)
    events = [{"user_id": "slow", "item_id": 1, "timestamp": each} for each in range(3)]
    assert client.post("/v1/events", json={"events": events}).json()["accepted"] == 3
    assert {each.rpartition("_")[0] for each in threads} == {"segue-bodies"}
