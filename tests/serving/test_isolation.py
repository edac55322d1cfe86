"""A question that fails for a reason that nobody foresaw takes no other with it."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from polars.exceptions import ComputeError, PanicException
from pydantic_core import to_json

from segue.retrieval.filters import Condition, Filter
from segue.serving.batcher import FailedError
from segue.serving.model import ServedQuestion, SimilarQuestion, Wanted, WhyQuestion
from segue.serving.server import Server, config_of
from segue.serving.service import Service

COMEDIES = Filter([Condition("genres", "contains", "Comedy")])
GOOD = [
    ServedQuestion(Wanted(), [1, 2, 3]),
    ServedQuestion(Wanted(k=3, parts=frozenset({"score", "metadata"})), [7, 30]),
    ServedQuestion(Wanted(where=COMEDIES, parts=frozenset({"score"})), [5]),
    ServedQuestion(Wanted(), [9, 9], times=[2, 1]),
    ServedQuestion(Wanted(), user_id="5"),
    ServedQuestion(Wanted(deny=[2])),
    SimilarQuestion(Wanted(), 8),
    WhyQuestion(ServedQuestion(Wanted(), [1, 2]), 3),
]
FAULTS = [ValueError("year 0"), RecursionError(), ComputeError("bad"), PanicException("panic")]


class Broken:
    """Raises whatever the thread that computes does with it; empty for all others."""

    def __init__(self, fault: BaseException) -> None:
        self.fault = fault

    def fail(self, *_: object) -> Any:
        if threading.current_thread().name == "segue-compute":
            raise type(self.fault)(*self.fault.args)

    def _or_empty(self) -> Any:
        self.fail()
        return []

    __getitem__ = __lt__ = __gt__ = __str__ = fail
    all_of = any_of = none_of = property(_or_empty)

    def __iter__(self) -> Any:
        return iter(self._or_empty())

    def __len__(self) -> int:
        return len(self._or_empty())


@st.composite
def bad_questions(draw):
    """One that fails while its history, a time, its filter, `k` or its item is read."""
    broken: Any = Broken(draw(st.sampled_from(FAULTS)))
    plain = ServedQuestion(Wanted(), [1])
    return draw(
        st.sampled_from(
            [
                replace(plain, history=broken),
                replace(plain, history=[1, broken]),
                replace(plain, times=broken),
                replace(plain, wanted=Wanted(where=broken)),
                replace(plain, wanted=Wanted(k=broken)),
                replace(plain, wanted=Wanted(allow=[broken])),
                SimilarQuestion(Wanted(), broken),
                WhyQuestion(plain, broken),
            ]
        )
    )


async def answered(service: Service, question) -> bytes:
    """The answer as JSON."""
    if isinstance(question, WhyQuestion):
        return to_json(vars(await service.explain(question)))
    (answer,) = await service.ask([question])
    return to_json(vars(answer))


@pytest.fixture
def together(service, monkeypatch):
    """Has a service answer questions in one batch; an error takes the place of its answer."""
    begin = service._questions._begin
    may_go = threading.Event()
    may_go.set()

    def held(questions):
        assert may_go.wait(5)
        return begin()(questions)

    monkeypatch.setattr(service._questions, "_begin", lambda: held)

    def ask(questions) -> list[bytes | BaseException]:
        async def asked():
            may_go.clear()
            tasks = [asyncio.create_task(answered(service, each)) for each in (GOOD[0], *questions)]
            await asyncio.sleep(0)
            may_go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

        return asyncio.run(asked())[1:]

    return ask


@given(
    good=st.lists(st.sampled_from(range(len(GOOD))), min_size=1, max_size=6),
    bad=bad_questions(),
    place=st.integers(0, 6),
)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_others_are_answered_as_by_a_quiet_service(service, together, good, bad, place):
    quiet = [asyncio.run(answered(service, GOOD[each])) for each in good]
    place = min(place, len(good))
    asked = [GOOD[each] for each in good]
    answers = together([*asked[:place], bad, *asked[place:]])
    assert isinstance(answers.pop(place), FailedError)
    assert answers == quiet
    assert service.is_alive


def test_over_http_it_is_a_500_and_its_neighbours_are_answered(start, monkeypatch):
    with start() as client:
        stored = client.service.model.clock.stored

        def failing(given):
            if given == "0000-01-01":
                raise PanicException("no such year")
            return stored(given)

        monkeypatch.setattr(type(client.service.model.clock), "stored", lambda _, at: failing(at))
        timed = {"history": [{"item_id": 1, "timestamp": "0000-01-01"}]}
        answer = client.post("/v1/recommendations", json=timed)
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert client.post("/v1/recommendations", json={"history": [1]}).status_code == 200


def die(service: Service) -> None:
    """Has the thread that computes die."""
    service._questions._on_batch = Broken(PanicException("panic")).fail
    with pytest.raises(Exception, match=r"^$"):
        asyncio.run(service.ask([GOOD[0]]))
    service._questions._thread.join(30)


def test_a_service_whose_thread_died_is_not_ready_and_ends(start):
    with start() as client:
        assert client.get("/readyz").status_code == 200
        server = Server(config_of(client.service), client.service)
        assert not asyncio.run(server.on_tick(1))
        die(client.service)
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        assert asyncio.run(server.on_tick(2))
        assert server.has_died
