"""The queue before the one compute thread."""

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import jax.monitoring
import pytest
from polars.exceptions import PanicException

from segue.errors import SegueError
from segue.serving.batcher import (
    Batcher,
    ClosedError,
    FailedError,
    QueueFullError,
)
from segue.serving.model import ServedQuestion, Wanted


class Gated:
    """Answers x by x + 1, when it is let; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.may_go = threading.Event()

    def __call__(self, questions: list[int]) -> list[int]:
        self.threads.add(threading.get_ident())
        self.batches.append(questions)
        assert self.may_go.wait(10)
        return [each + 1 for each in questions]


@contextmanager
def batcher(answer, **limits) -> Iterator[Batcher[int, int]]:
    made = Batcher(lambda: answer, **{"max_waiting": 8, "max_batch": 4, **limits})
    try:
        yield made
    finally:
        answer.may_go.set()
        made.close()


async def started(gated: Gated, made: Batcher[int, int], question: int) -> asyncio.Task[list[int]]:
    task = asyncio.create_task(made.ask([question]))
    while not gated.batches:
        await asyncio.sleep(0.001)
    return task


def test_what_waits_together_is_answered_together_by_one_thread():
    gated = Gated()

    async def ask(made):
        first = await started(gated, made, 0)
        others = [asyncio.create_task(made.ask([each])) for each in range(1, 7)]
        await asyncio.sleep(0.01)
        gated.may_go.set()
        return [await task for task in (first, *others)]

    with batcher(gated) as made:
        answers = asyncio.run(ask(made))
    assert answers == [[each + 1] for each in range(7)]
    assert gated.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert len(gated.threads) == 1


def test_a_job_of_several_questions_stays_whole():
    gated = Gated()

    async def ask(made):
        first = await started(gated, made, 0)
        others = [asyncio.create_task(made.ask(each)) for each in ([1, 2, 3], [4, 5, 6])]
        await asyncio.sleep(0.01)
        gated.may_go.set()
        return [await task for task in (first, *others)]

    with batcher(gated) as made:
        assert asyncio.run(ask(made)) == [[1], [2, 3, 4], [5, 6, 7]]
    assert gated.batches == [[0], [1, 2, 3], [4, 5, 6]]


def test_questions_that_cost_more_count_as_several():
    gated = Gated()

    async def ask(made):
        first = await started(gated, made, 0)
        tasks = [asyncio.create_task(made.ask([1], [3]))]
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(made.ask([each])) for each in (2, 3)]
        await asyncio.sleep(0.01)
        assert made.waiting == 5
        gated.may_go.set()
        return [await task for task in (first, *tasks)]

    with batcher(gated, max_batch=3) as made:
        assert asyncio.run(ask(made)) == [[1], [2], [3], [4]]
    assert gated.batches == [[0], [1], [2, 3]]


def test_a_full_queue_refuses_at_once_and_later_takes_again():
    gated = Gated()

    async def ask(made):
        tasks = [await started(gated, made, 0)]
        tasks += [asyncio.create_task(made.ask([each])) for each in range(1, 4)]
        await asyncio.sleep(0.01)
        assert made.waiting == 3
        with pytest.raises(QueueFullError):
            await made.ask([9])
        gated.may_go.set()
        answers = [await task for task in tasks]
        return answers, await made.ask([9])

    with batcher(gated, max_waiting=3) as made:
        answers, again = asyncio.run(ask(made))
    assert answers == [[1], [2], [3], [4]]
    assert again == [10]


def test_what_nobody_waits_for_any_more_is_dropped():
    gated = Gated()

    async def ask(made):
        first = await started(gated, made, 0)
        given_up = asyncio.create_task(made.ask([5]))
        await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.wait([given_up])
        assert made.waiting == 0
        gated.may_go.set()
        return await first

    with batcher(gated) as made:
        assert asyncio.run(ask(made)) == [1]
    assert gated.batches == [[0]]


def test_a_large_job_is_answered_in_parts_and_others_get_in_between():
    gated = Gated()

    async def ask(made):
        first = await started(gated, made, 0)
        large = asyncio.create_task(made.ask(list(range(10, 20)), [1] * 4 + [9] + [2] * 4 + [1]))
        await asyncio.sleep(0.01)
        small = [asyncio.create_task(made.ask([each])) for each in (1, 2)]
        await asyncio.sleep(0.01)
        assert made.waiting == 2  # one that costs more than the queue is not counted
        gated.may_go.set()
        return [await task for task in (first, large, *small)]

    with batcher(gated) as made:
        assert asyncio.run(ask(made)) == [[1], list(range(11, 21)), [2], [3]]
        assert made.waiting == 0
    parts = [[10, 11, 12, 13], [1, 2], [14], [15, 16], [17, 18], [19]]
    assert gated.batches == [[0], *parts]


def test_all_parts_of_a_job_are_answered_by_one_model():
    models = iter(range(1, 10))
    begun = threading.Event()

    def begin():
        model = next(models)

        def answer(questions: list[int]) -> list[int]:
            begun.set()
            return [model] * len(questions)

        return answer

    made = Batcher(begin, max_waiting=8, max_batch=4)

    async def ask():
        return await asyncio.gather(made.ask([0] * 30), made.ask([0]), made.ask([0]))

    answers = asyncio.run(ask())
    made.close()
    assert len(answers[0]) == 30
    assert len(set(answers[0])) == 1


def test_a_large_job_ends_once_nobody_waits_for_it_and_only_then_comes_the_next():
    gated = Gated()

    async def ask(made):
        large = asyncio.create_task(made.ask(list(range(10, 20))))
        while not gated.batches:
            await asyncio.sleep(0.001)
        with pytest.raises(QueueFullError):
            await made.ask(list(range(20, 30)))
        large.cancel()
        await asyncio.wait([large])
        next_one = asyncio.create_task(made.ask(list(range(30, 40))))
        await asyncio.sleep(0.01)
        gated.may_go.set()
        return await next_one

    with batcher(gated) as made:
        assert asyncio.run(ask(made)) == list(range(31, 41))
        assert made.waiting == 0
    assert gated.batches[:2] == [[10, 11, 12, 13], [30, 31, 32, 33]]


FAULTS = [
    ArithmeticError("unlucky"),
    MemoryError(),
    SystemExit(3),
    PanicException("called `Option::unwrap()` on a `None` value"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: type(each).__name__)
def test_only_the_question_at_fault_fails_of_those_answered_together(fault, caplog):
    gated = Gated()

    def answer(questions: list[int]) -> list[int]:
        answers = gated(questions)
        if 13 in questions:
            raise fault
        return answers

    answer.may_go = gated.may_go  # type: ignore[attr-defined]

    async def ask(made):
        first = await started(gated, made, 0)
        tasks = [asyncio.create_task(made.ask([each])) for each in (1, 13, 2)]
        await asyncio.sleep(0.01)
        gated.may_go.set()
        return await asyncio.gather(first, *tasks, return_exceptions=True), await made.ask([3])

    with batcher(answer) as made:
        (first, one, failed, two), later = asyncio.run(ask(made))
        assert made.is_alive
    assert (first, one, two, later) == ([1], [2], [3], [4])
    assert isinstance(failed, FailedError)
    assert gated.batches == [[0], [1, 13, 2], [1], [13], [2], [3]]
    assert len(caplog.records) == 1
    assert type(fault).__name__ in caplog.text


def test_an_error_that_is_foreseen_is_for_all_who_were_answered_together():
    gated = Gated()

    def answer(questions: list[int]) -> list[int]:
        gated(questions)
        raise SegueError("the database is away")

    answer.may_go = gated.may_go  # type: ignore[attr-defined]

    async def ask(made):
        first = await started(gated, made, 0)
        tasks = [asyncio.create_task(made.ask([each])) for each in (1, 2)]
        await asyncio.sleep(0.01)
        gated.may_go.set()
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    with batcher(answer) as made:
        errors = asyncio.run(ask(made))
    assert [str(each) for each in errors] == ["the database is away"] * 3
    assert gated.batches == [[0], [1, 2]]


def test_a_thread_that_dies_leaves_nobody_waiting(caplog):
    gated = Gated()
    may_die = threading.Event()

    def die(size: int) -> None:
        if may_die.is_set():
            raise PanicException("no question is at fault")

    async def ask(made):
        first = await started(gated, made, 0)
        taken = asyncio.create_task(made.ask([1, 2, 3, 4]))
        waiting = asyncio.create_task(made.ask([5]))
        await asyncio.sleep(0.01)
        may_die.set()
        gated.may_go.set()
        outcomes = await asyncio.gather(first, taken, waiting, return_exceptions=True)
        with pytest.raises(ClosedError):
            await made.ask([6])
        return outcomes

    with batcher(gated, on_batch=die) as made:
        first, taken, waiting = asyncio.run(ask(made))
        made.close()
        assert not made.is_alive
    assert first == [1]
    assert isinstance(taken, ClosedError)
    assert isinstance(waiting, ClosedError)
    assert "died" in caplog.text


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_asked_and_given_up_nothing_is_left_waiting(seed):
    rng = random.Random(seed)

    def answer(questions: list[int]) -> list[int]:
        if 13 in questions:
            raise ArithmeticError
        return [each + 1 for each in questions]

    async def ask(made) -> None:
        asked: list[tuple[list[int], asyncio.Task[list[int]]]] = []
        for _ in range(60):
            questions = [rng.randrange(20) for _ in range(rng.choice([1, 1, 1, 3, 6, 12]))]
            costs = [rng.choice([1, 1, 2, 5]) for _ in questions]
            asked.append((questions, asyncio.create_task(made.ask(questions, costs))))
            if rng.random() < 0.3:
                rng.choice(asked)[1].cancel()
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        for questions, task in asked:
            try:
                assert await task == [each + 1 for each in questions]
            except FailedError:
                assert 13 in questions
            except (asyncio.CancelledError, QueueFullError):
                continue
        await asyncio.to_thread(made.wait_for_begun)
        assert made.waiting == 0
        assert await made.ask([1] * 30) == [2] * 30  # the place of large jobs is free

    made = Batcher(lambda: answer, max_waiting=8, max_batch=4)
    try:
        asyncio.run(ask(made))
        assert made.is_alive
    finally:
        made.close()


def test_closing_answers_what_waits_and_refuses_the_rest():
    gated = Gated()

    async def ask(made):
        first = await started(gated, made, 0)
        second = asyncio.create_task(made.ask([1]))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(asyncio.to_thread(made.close))
        await asyncio.sleep(0.01)
        with pytest.raises(ClosedError):
            await made.ask([2])
        gated.may_go.set()
        await closing
        return await first, await second

    with batcher(gated) as made:
        assert asyncio.run(ask(made)) == ([1], [2])


def test_no_request_compiles_anything(client: httpx.Client, compilations: list[str]):
    for length in (0, 1, 5, 16, 17, 20, 25, 300):
        for count in (1, 2, 7, 8, 9, 16, 17, 33, 64):
            one = {"history": [1 + each % 30 for each in range(length)], "k": 3}
            answer = client.post("/v1/recommendations:batch", json={"requests": [one] * count})
            assert answer.status_code == 200
    client.get("/v1/items/3/similar")
    assert compilations == []
    jax.jit(lambda x: x * 3.25 + length)(1.0)  # the listener does hear compilations
    assert compilations


def hold(client: httpx.Client) -> tuple[threading.Event, threading.Event]:
    """Has the compute thread wait before each answer: set once it does, and to be set to let it."""
    service = client.service  # type: ignore[attr-defined]
    is_held, may_go = threading.Event(), threading.Event()
    begin = service._questions._begin

    def held(questions):
        is_held.set()
        assert may_go.wait(60)
        return begin()(questions)

    service._questions._begin = lambda: held
    return is_held, may_go


def test_over_http_a_full_queue_is_503_at_once_and_a_late_answer_504(start):
    ask = {"json": {"history": [1]}}
    with start(queue_size=2, deadline_s=3) as client, ThreadPoolExecutor(3) as pool:

        def elsewhere() -> Future[int]:
            url = f"{client.base_url}/v1/recommendations"
            return pool.submit(lambda: httpx.post(url, **ask, timeout=30).status_code)

        client.service.model.answers([ServedQuestion(Wanted(), [1])])  # compiles
        is_held, may_go = hold(client)
        asked = [elsewhere()]
        assert is_held.wait(30)
        asked += [elsewhere(), elsewhere()]
        questions = client.service._questions
        with questions._changed:
            assert questions._changed.wait_for(lambda: questions.waiting == 2, 30)
        refused = client.post("/v1/recommendations", **ask)
        assert not any(each.done() for each in asked)  # it waited for none of them
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert [each.result() for each in asked] == [504, 504, 504]
        may_go.set()
        assert client.post("/v1/recommendations", **ask).status_code == 200


def test_over_http_searches_wait_in_a_queue_of_their_own(start):
    with start(queue_size=2) as client, ThreadPoolExecutor(4) as pool:
        searches = client.service._searches
        begin, is_held, may_go = searches._begin, threading.Event(), threading.Event()

        def held(asked):
            is_held.set()
            assert may_go.wait(60)
            return begin()(asked)

        searches._begin = lambda: held

        def elsewhere() -> Future[httpx.Response]:
            url = f"{client.base_url}/v1/items?query=cafe"
            return pool.submit(lambda: httpx.get(url, timeout=30))

        asked = [elsewhere()]
        assert is_held.wait(30)
        asked += [elsewhere(), elsewhere()]
        with searches._changed:
            assert searches._changed.wait_for(lambda: searches.waiting == 2, 30)
        refused = client.get("/v1/items?query=cafe")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.post("/v1/recommendations", json={"history": [1]}).status_code == 200
        assert client.get("/readyz").status_code == 200
        may_go.set()
        assert {len(each.result().json()["items"]) for each in asked} == {10}
