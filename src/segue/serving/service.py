"""The service without HTTP: a model that can be changed, a queue before it, a memory beside it."""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from polars.exceptions import PanicException

from segue.errors import SegueError
from segue.recommender import Recommender
from segue.reporting.explanation import Explanation
from segue.retriever import ONLINE_ROWS
from segue.serving.batcher import Batcher
from segue.serving.costs import AnyQuestion, cost_of
from segue.serving.metrics import Metrics
from segue.serving.model import (
    ServedAnswer,
    ServedModel,
    ServedQuestion,
    SimilarQuestion,
    WhyQuestion,
)
from segue.serving.settings import Settings
from segue.serving.stores import (
    Append,
    Erase,
    Hide,
    HistoryStore,
    StoreError,
    UserEvents,
    Write,
    check_unit,
    open_store_of,
)

log = logging.getLogger("segue.serving")

MAX_WAITING_WRITES = 1_024
WRITES_AT_ONCE = 64
SEARCHES_AT_ONCE = 8
MAX_WAITING_CHECKS = 64
# Less than what probes usually wait for an answer.
CHECK_S = 2.0


@dataclass(frozen=True)
class Explained:
    """An explanation, and the model whose scores it is about."""

    model_version: str
    explanation: Explanation


@dataclass(frozen=True)
class Search:
    """Which titles are looked for, and how many of them are wanted."""

    query: str
    limit: int


@dataclass(frozen=True)
class Found:
    """Items ready for JSON, and the model that has them."""

    model_version: str
    items: list[dict[str, Any]]


@dataclass(frozen=True)
class Written:
    """What became of a write.

    Attributes:
        count: How many events were new, or were erased.
        clashing: The places of the events whose id is another event's.
        has_remains: Whether something that was erased is still in the database's files.
        hidden: All items that are hidden, after one was hidden or shown.
    """

    count: int
    clashing: Sequence[int] = ()
    has_remains: bool = False
    hidden: frozenset[str] = frozenset()


Outcome = ServedAnswer | Explained | SegueError


class BusyError(SegueError):
    """A reload is under way."""


class LoadError(SegueError):
    """The run cannot be loaded; the cause is a defect's where the log has it."""


class Service:
    """All that `segue serve` holds. `model` is replaced whole; take it once for each answer."""

    def __init__(self, settings: Settings) -> None:
        """Load the run, compile its shapes and open the database.

        Raises:
            RunError: See `Recommender.load`.
            ConfigError, StoreError: See `open_store_of`.
        """
        self.settings = settings
        self.model = _loaded(settings)
        self.store: HistoryStore = open_store_of(
            self.model.clock, settings.database_url, erasure_key=settings.keys.erasure
        )
        self.metrics = Metrics(lambda: self._questions.waiting, self.store.has_remains)
        self.metrics.show_model(self.model.version)
        self._questions: Batcher[AnyQuestion, Outcome] = Batcher(
            lambda: partial(_answered, self.model),
            max_waiting=settings.queue_size,
            max_batch=ONLINE_ROWS,
            on_batch=self.metrics.batch_size.observe,
        )
        self._writes: Batcher[Write, Written] = Batcher(
            lambda: partial(_written, self.store),
            max_waiting=MAX_WAITING_WRITES,
            max_batch=WRITES_AT_ONCE,
            name="segue-write",
        )
        self._searches: Batcher[Search, Found] = Batcher(
            lambda: partial(_found, self.model),
            max_waiting=settings.queue_size,
            max_batch=SEARCHES_AT_ONCE,
            name="segue-search",
        )
        # Threads of their own: a database that stands still holds up nothing but what needs it.
        self._reads: Batcher[str, UserEvents] = Batcher(
            lambda: self.store.read_many,
            max_waiting=settings.queue_size,
            max_batch=ONLINE_ROWS,
            name="segue-read",
        )
        self._checks: Batcher[None, frozenset[str]] = Batcher(
            lambda: partial(_checked, self.store),
            max_waiting=MAX_WAITING_CHECKS,
            max_batch=MAX_WAITING_CHECKS,
            name="segue-check",
        )
        self._num_hides = 0
        self.hidden: frozenset[str] = frozenset()
        self._hide(self.store.hidden())
        self._reload = threading.Lock()
        self.is_ready = True

    @property
    def is_alive(self) -> bool:
        """Whether all threads that answer and write still run."""
        return all(each.is_alive for each in self._batchers)

    @property
    def _batchers(self) -> tuple[Batcher[Any, Any], ...]:
        return self._questions, self._searches, self._reads, self._checks, self._writes

    async def ask(
        self, questions: Sequence[ServedQuestion | SimilarQuestion]
    ) -> list[ServedAnswer]:
        """The answers to questions, all by one model.

        Raises:
            SegueError: One of the questions is wrong.
            QueueFullError, ClosedError, FailedError: See `Batcher.ask`.
        """
        answers: list[ServedAnswer] = []
        for outcome in await self._outcomes(questions):
            assert isinstance(outcome, ServedAnswer)
            answers.append(outcome)
        return answers

    async def explain(self, question: WhyQuestion) -> Explained:
        """Why an item is recommended.

        Raises:
            SegueError: The question is wrong.
            QueueFullError, ClosedError, FailedError: See `Batcher.ask`.
        """
        (outcome,) = await self._outcomes([question])
        assert isinstance(outcome, Explained)
        return outcome

    async def _outcomes(self, questions: Sequence[AnyQuestion]) -> list[ServedAnswer | Explained]:
        costs = [cost_of(question, self.model) for question in questions]
        outcomes: list[ServedAnswer | Explained] = []
        for outcome in await self._questions.ask(questions, costs):
            if isinstance(outcome, SegueError):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def search(self, search: Search) -> Found:
        """Items by their titles.

        Raises:
            QueueFullError, ClosedError, FailedError: See `Batcher.ask`.
        """
        return (await self._searches.ask([search]))[0]

    async def events_of(self, user_ids: Sequence[str]) -> list[UserEvents]:
        """What the store has of each of these users.

        Raises:
            StoreError: The database cannot be read.
            QueueFullError, ClosedError, FailedError: See `Batcher.ask`.
        """
        return await self._reads.ask(user_ids) if user_ids else []

    async def hide(self, hide: Hide) -> None:
        """Hide an item, or show it again, from the next answer on and in every model to come.

        Raises:
            StoreError, QueueFullError, ClosedError, FailedError: It may not be.
        """
        written = (await self._writes.ask([hide]))[0]
        self._num_hides += 1
        self._hide(written.hidden)

    def _hide(self, item_ids: frozenset[str]) -> None:
        if item_ids != self.hidden:
            self.hidden = item_ids
            self.model.hide(item_ids)

    async def check(self) -> None:
        """Look whether the database can be read, and what other services have hidden there.

        Raises:
            StoreError: It cannot, or does not say so in time.
            QueueFullError, ClosedError, FailedError: See `Batcher.ask`.
        """
        try:
            async with asyncio.timeout(CHECK_S):
                before = self._num_hides
                (hidden,) = await self._checks.ask([None])
        except TimeoutError:
            raise StoreError(f"the database does not answer within {CHECK_S:g} s") from None
        if before == self._num_hides:  # else what was read may be older than what was written
            self._hide(hidden)

    async def append(self, events: Append) -> Written:
        """Write events; return what became of them, once those that are new are on disk.

        Raises:
            StoreError, QueueFullError, ClosedError, FailedError: They may not be.
        """
        return (await self._writes.ask([events]))[0]

    async def erase(self, user_id: str) -> Written:
        """Erase a user; return how many events that were, once no answer knows them.

        Raises:
            StoreError, QueueFullError, ClosedError, FailedError: They may not be.
        """
        return (await self._writes.ask([Erase(user_id)]))[0]

    async def reload(self) -> tuple[str, str]:
        """Read the run again; return the versions before and after.

        Raises:
            BusyError: Another reload is under way.
            LoadError, StoreError: The run cannot be used; the model stays as it was.
        """
        if not self._reload.acquire(blocking=False):
            raise BusyError("a reload is under way; wait for its end")
        try:
            model = await asyncio.to_thread(_loaded_again, self.settings)
            await asyncio.to_thread(check_unit, self.store, model.clock)
            model.hide(self.hidden)
            before, self.model = self.model.version, model
            await asyncio.to_thread(self._free)
        finally:
            self._reload.release()
        self.metrics.show_model(model.version)
        return before, model.version

    def _free(self) -> None:
        """Free a model that was replaced, once the last answers by it are given."""
        self._questions.wait_for_begun()
        self._searches.wait_for_begun()
        _collect()

    def close(self) -> None:
        """Answer and write what waits, then close the database; all of it within the grace.

        What still waits for a database that does not answer is lost, and nobody was told otherwise.
        """
        self.is_ready = False
        ends = time.monotonic() + self.settings.grace_s
        for batcher in self._batchers:
            batcher.close(max(0.0, ends - time.monotonic()))
        self.store.close()


def _answered(model: ServedModel, questions: list[AnyQuestion]) -> list[Outcome]:
    asked = [question for question in questions if isinstance(question, ServedQuestion)]
    answers = iter(model.answers(asked))
    return [
        next(answers) if isinstance(question, ServedQuestion) else _alone(model, question)
        for question in questions
    ]


def _alone(model: ServedModel, question: SimilarQuestion | WhyQuestion) -> Outcome:
    """The answer to a question that nothing is gained for by answering others with it."""
    try:
        if isinstance(question, SimilarQuestion):
            return model.similar(question)
        return Explained(model.version, model.explanation(question))
    except SegueError as error:
        return error


def _written(store: HistoryStore, writes: list[Write]) -> list[Written]:
    counts = store.write(writes)
    return [_outcome(store, *each) for each in zip(writes, counts, strict=True)]


def _outcome(store: HistoryStore, write: Write, count: int) -> Written:
    if isinstance(write, Erase):
        return Written(count, has_remains=store.has_remains())
    if isinstance(write, Hide):
        return Written(count, hidden=store.hidden())
    is_all_new = count == len(write.events)
    return Written(count, () if is_all_new else store.clashing(write.events))


def _checked(store: HistoryStore, asked: list[None]) -> list[frozenset[str]]:
    store.check()
    return [store.hidden()] * len(asked)


def _found(model: ServedModel, searches: list[Search]) -> list[Found]:
    return [Found(model.version, model.found(search.query, search.limit)) for search in searches]


def _collect() -> None:
    """Free a model that is gone, where the server has what it loads kept from the collector."""
    if gc.get_freeze_count():
        gc.unfreeze()
        gc.collect()
        gc.freeze()


def _loaded(settings: Settings) -> ServedModel:
    model = ServedModel(Recommender.load(settings.run))
    model.warm_up()
    return model


def _loaded_again(settings: Settings) -> ServedModel:
    """Raises: LoadError: Whatever went wrong; the model before it can go on."""
    try:
        return _loaded(settings)
    except SegueError as error:
        raise LoadError(str(error)) from error
    except (Exception, PanicException) as error:
        log.exception("the run %s cannot be loaded", settings.run)
        raise LoadError(
            f"it cannot be loaded, which is a defect of segue ({type(error).__name__}); the "
            f"server's log has the cause"
        ) from error
