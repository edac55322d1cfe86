"""What questions cost before they are let in, and how long they may take."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest

from segue.retrieval.filters import Condition, Filter
from segue.serving import service as services
from segue.serving.costs import cost_of
from segue.serving.limits import MAX_CONDITIONS
from segue.serving.model import ServedQuestion, SimilarQuestion, Wanted, WhyQuestion
from segue.serving.stores import UserEvents

RECOMMEND = "/v1/recommendations"
COMEDY = {"field": "genres", "op": "contains", "value": "comedy"}
MODEL = SimpleNamespace(
    vocabulary=SimpleNamespace(num_items=300_000), retriever=SimpleNamespace(max_length=200)
)
PLAIN = ServedQuestion(Wanted(), [1, 2, 3])


def where(count: int, op: str = "contains") -> Filter:
    condition = Condition("title", op, "heat")
    return Filter([condition] * (count - 1), none_of=[condition])


def test_a_plain_question_costs_one():
    assert cost_of(PLAIN, MODEL) == cost_of(ServedQuestion(Wanted(), list(range(200))), MODEL) == 1
    assert cost_of(SimilarQuestion(Wanted(), 1), MODEL) == 1


# (what, the same but more of it); each took the thread that computes seconds.
COSTLY = [
    (replace(PLAIN, wanted=Wanted(where=where(2))), replace(PLAIN, wanted=Wanted(where=where(4)))),
    (
        replace(PLAIN, wanted=Wanted(where=where(4, "eq"))),
        replace(PLAIN, wanted=Wanted(where=where(4, "contains"))),
    ),
    (
        SimilarQuestion(Wanted(where=where(2)), 1),
        SimilarQuestion(Wanted(where=where(4)), 1),
    ),
    (replace(PLAIN, wanted=Wanted(allow=[1])), replace(PLAIN, wanted=Wanted(allow=[1] * 9_000))),
    (
        ServedQuestion(Wanted(), [1] * 100, times=["2020-01-01"] * 100),
        ServedQuestion(Wanted(), [1] * 200, times=["2020-01-01"] * 200),
    ),
    (
        ServedQuestion(Wanted(), [1] * 9_000, times=[1] * 9_000),
        ServedQuestion(Wanted(), [1] * 9_000, times=["2020-01-01"] * 9_000),
    ),
    (
        ServedQuestion(Wanted(), user_id="a", events=UserEvents(["1"] * 900, [1] * 900)),
        ServedQuestion(Wanted(), user_id="a", events=UserEvents(["1"] * 9_000, [1] * 9_000)),
    ),
    (WhyQuestion(PLAIN, 1), WhyQuestion(replace(PLAIN, history=[1] * 100), 1)),
    (WhyQuestion(PLAIN, 1), WhyQuestion(ServedQuestion(Wanted(), user_id="a"), 1)),
]


@pytest.mark.parametrize(("some", "more"), COSTLY)
def test_what_takes_longer_costs_more(some, more):
    assert 1 < cost_of(some, MODEL) < cost_of(more, MODEL)


def test_conditions_cost_by_the_items_they_look_at():
    small = SimpleNamespace(vocabulary=SimpleNamespace(num_items=300), retriever=None)
    question = replace(PLAIN, wanted=Wanted(where=where(MAX_CONDITIONS)))
    assert cost_of(question, small) == 1
    assert cost_of(question, MODEL) > 256


def test_over_http_costs_fill_the_queue(client, service, monkeypatch):
    asked: list[list[int]] = []
    ask = service._questions.ask

    async def watched(questions, costs):
        asked.append(list(costs))
        return await ask(questions, costs)

    monkeypatch.setattr(service._questions, "ask", watched)
    client.post("/v1/recommendations:batch", json={"requests": [{"history": [1]}] * 3})
    client.post("/v1/explanations", json={"history": [1, 2], "item_id": 3})
    assert asked == [[1, 1, 1], [3]]


@pytest.mark.parametrize("lists", [("all",), ("all", "any"), ("all", "any", "not")])
def test_a_filter_has_a_bounded_number_of_conditions_in_all(client, lists):
    def status(count: int) -> int:
        parts: dict[str, list[object]] = {name: [] for name in lists}
        for place in range(count):
            parts[lists[place % len(lists)]].append(COMEDY)
        return client.post(RECOMMEND, json={"history": [1], "filter": parts}).status_code

    assert (status(MAX_CONDITIONS), status(MAX_CONDITIONS + 1)) == (200, 422)


def test_a_user_who_is_asked_for_often_is_read_once(client, service, monkeypatch):
    read: list[list[str]] = []
    read_many = service.store.read_many

    def watched(user_ids):
        read.append(list(user_ids))
        return read_many(user_ids)

    monkeypatch.setattr(service.store, "read_many", watched)
    asked = [{"user_id": each} for each in (5, "6", "5", 5)] + [{"history": [1]}]
    answer = client.post(f"{RECOMMEND}:batch", json={"requests": asked}).json()
    assert read == [["5", "6"]]
    items = [each["items"] for each in answer["results"]]
    assert items[0] == items[2] == items[3] != items[1]


def test_the_deadline_is_for_all_of_a_request_but_not_for_a_reload(start, monkeypatch):
    may_go, is_late = threading.Event(), threading.Event()

    def late_read(_):
        assert may_go.wait(30)
        return [UserEvents()]

    loaded = services._loaded

    def late_load(settings):
        assert is_late.wait(30)  # another request's deadline passed meanwhile
        return loaded(settings)

    with start(deadline_s=0.2) as client, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(client.service.store, "read_many", late_read)
        monkeypatch.setattr(services, "_loaded", late_load)
        url = f"{client.base_url}/v1/admin/reload"
        reload = pool.submit(lambda: httpx.post(url, timeout=60).status_code)
        answer = client.post(RECOMMEND, json={"user_id": "5"})
        assert answer.status_code == 504
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"]
        may_go.set()
        is_late.set()
        assert reload.result() == 200
