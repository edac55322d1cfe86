"""The service without HTTP: a model that can be changed, a queue before it, a memory beside it."""

import asyncio
import threading
from collections.abc import Sequence

from segue.errors import SegueError
from segue.recommender import Recommender
from segue.serving.batcher import Batcher
from segue.serving.metrics import Metrics
from segue.serving.model import MAX_BATCH, Answer, Question, ServedModel, SimilarQuestion
from segue.serving.settings import Settings
from segue.serving.store import Append, Erase, Store, StoreError, UserEvents, Write

MAX_WAITING_WRITES = 1_024
WRITES_AT_ONCE = 64

AnyQuestion = Question | SimilarQuestion


class BusyError(SegueError):
    """A reload is under way."""


class Service:
    """All that `segue serve` holds. `model` is replaced whole; take it once for each answer."""

    def __init__(self, settings: Settings) -> None:
        """Load the run, compile its shapes and open the database.

        Raises:
            RunError: See `Recommender.load`.
            ConfigError, StoreError: See `Store`.
        """
        self.settings = settings
        self.model = _loaded(settings)
        self.store = Store(
            settings.database_url, self.model.clock.kind, erasure_key=settings.keys.erasure
        )
        self.metrics = Metrics(lambda: self._questions.waiting)
        self.metrics.show_model(self.model.version)
        self._questions: Batcher[AnyQuestion, Answer | SegueError] = Batcher(
            self._answer,
            max_waiting=settings.queue_size,
            max_batch=MAX_BATCH,
            on_batch=self.metrics.batch_size.observe,
        )
        self._writes: Batcher[Write, int] = Batcher(
            lambda writes: self.store.write(writes),
            max_waiting=MAX_WAITING_WRITES,
            max_batch=WRITES_AT_ONCE,
        )
        self._reload = threading.Lock()
        self.is_ready = True

    async def ask(self, questions: Sequence[AnyQuestion]) -> list[Answer]:
        """The answers to questions, all by one model.

        Raises:
            SegueError: One of the questions is wrong.
            QueueFullError, LateError, ClosedError: See `Batcher.ask`.
        """
        answers: list[Answer] = []
        for outcome in await self._questions.ask(questions, self.settings.deadline_s):
            if isinstance(outcome, SegueError):
                raise outcome
            answers.append(outcome)
        return answers

    async def events_of(self, user_id: str) -> UserEvents:
        """What the store has of a user.

        Raises:
            StoreError: The database cannot be read.
        """
        return await asyncio.to_thread(self.store.read, user_id)

    async def append(self, events: Append) -> int:
        """Write events; return how many were new, once they are on disk.

        Raises:
            StoreError, QueueFullError, LateError, ClosedError: They may not be.
        """
        return (await self._writes.ask([events], self.settings.deadline_s))[0]

    async def erase(self, user_id: str) -> int:
        """Erase a user; return how many events that were, once they are gone.

        Raises:
            StoreError, QueueFullError, LateError, ClosedError: They may not be.
        """
        return (await self._writes.ask([Erase(user_id)], self.settings.deadline_s))[0]

    async def reload(self) -> tuple[str, str]:
        """Read the run again; return the versions before and after.

        Raises:
            BusyError: Another reload is under way.
            RunError, StoreError: The run cannot be used; the model stays as it was.
        """
        if not self._reload.acquire(blocking=False):
            raise BusyError("a reload is under way; wait for its end")
        try:
            model = await asyncio.to_thread(_loaded, self.settings)
            if model.clock.kind != self.store.kind:
                raise StoreError(
                    f"the run's log has {model.clock.kind} times, but the stored events have "
                    f"{self.store.kind} ones; start a service with another --database for it"
                )
            before, self.model = self.model.version, model
        finally:
            self._reload.release()
        self.metrics.show_model(model.version)
        return before, model.version

    def close(self) -> None:
        """Answer and write what waits, then close the database."""
        self.is_ready = False
        self._questions.close()
        self._writes.close()
        self.store.close()

    def _answer(self, questions: list[AnyQuestion]) -> list[Answer | SegueError]:
        model = self.model
        answers: list[Answer | SegueError | None] = [
            _similar(model, each) if isinstance(each, SimilarQuestion) else None
            for each in questions
        ]
        rest = iter(model.answers([each for each in questions if isinstance(each, Question)]))
        return [next(rest) if each is None else each for each in answers]


def _similar(model: ServedModel, question: SimilarQuestion) -> Answer | SegueError:
    try:
        return model.similar(question)
    except SegueError as error:
        return error


def _loaded(settings: Settings) -> ServedModel:
    model = ServedModel(Recommender.load(settings.run))
    model.warm_up()
    return model
