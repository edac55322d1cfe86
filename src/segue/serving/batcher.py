"""One compute thread, and a bounded queue before it: what waits together is answered together."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

log = logging.getLogger("segue.serving")


class QueueFullError(Exception):
    """As many questions wait as may."""


class LateError(Exception):
    """The answer was not there by the deadline."""


class ClosedError(Exception):
    """The service is ending."""


@dataclass(eq=False)
class _Job(Generic[Q, A]):
    questions: Sequence[Q]
    size: int
    loop: asyncio.AbstractEventLoop
    answers: "asyncio.Future[list[A]]"


class Batcher(Generic[Q, A]):
    """Gathers questions for a function that answers many at once.

    The thread takes what waits as soon as it is free, and so waits for nobody: under load batches
    grow by themselves, and a question alone is answered at once.
    """

    def __init__(
        self,
        answer: Callable[[list[Q]], list[A]],
        *,
        max_waiting: int,
        max_batch: int,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Start the thread.

        Args:
            answer: From questions to their answers, in order; called by one thread only.
            max_waiting: Questions that may wait; a job with more of them is let in when none do.
            max_batch: Questions answered at once, except that a job stays whole.
            on_batch: Told the size of each batch.
        """
        self._answer = answer
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._jobs: deque[_Job[Q, A]] = deque()
        self._waiting = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="segue-compute", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Questions that wait now."""
        return self._waiting

    async def ask(
        self, questions: Sequence[Q], deadline_s: float, *, each_counts: int = 1
    ) -> list[A]:
        """The answers to questions, all from one batch.

        Args:
            questions: What is asked.
            deadline_s: How long an answer may take.
            each_counts: As how many questions each of them counts, because it takes as long.

        Raises:
            QueueFullError: At once, if too many questions wait.
            LateError: The deadline passed; the questions are dropped if they still wait.
            ClosedError: The batcher is closed.
        """
        loop = asyncio.get_running_loop()
        size = each_counts * len(questions)
        job = _Job[Q, A](questions, size, loop, loop.create_future())
        with self._changed:
            if self._is_closed:
                raise ClosedError
            if self._waiting and self._waiting + size > self._max_waiting:
                raise QueueFullError
            self._jobs.append(job)
            self._waiting += size
            self._changed.notify()
        try:
            async with asyncio.timeout(deadline_s):
                return await job.answers
        except TimeoutError:
            raise LateError from None
        finally:
            self._drop(job)

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._taken():
            self._settle(jobs)

    def _drop(self, job: _Job[Q, A]) -> None:
        """Take a job that still waits out of the queue; nobody does any more."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= job.size

    def _taken(self) -> list[_Job[Q, A]]:
        """The next jobs, once there are some; none when the batcher is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_closed)
            taken: list[_Job[Q, A]] = []
            size = 0
            while self._jobs and (not taken or size + self._jobs[0].size <= self._max_batch):
                taken.append(self._jobs.popleft())
                size += taken[-1].size
            self._waiting -= size
            return taken

    def _settle(self, jobs: list[_Job[Q, A]]) -> None:
        questions = [question for job in jobs for question in job.questions]
        self._on_batch(len(questions))
        try:
            answers = self._answer(questions)
        except Exception as error:
            log.exception("a batch of %d failed", len(questions))
            self._deliver([(job, error) for job in jobs])
            return
        at = 0
        outcomes: list[tuple[_Job[Q, A], list[A] | Exception]] = []
        for job in jobs:
            outcomes.append((job, answers[at : at + len(job.questions)]))
            at += len(job.questions)
        self._deliver(outcomes)

    def _deliver(self, outcomes: Sequence[tuple[_Job[Q, A], list[A] | Exception]]) -> None:
        """Hand over a batch by one call into the event loop; waking it costs more than the rest."""
        try:
            outcomes[0][0].loop.call_soon_threadsafe(_settle_futures, outcomes)
        except RuntimeError:  # the loop has ended, and with it whoever asked
            log.warning("%d answers came after the end of the service", len(outcomes))


def _settle_futures(outcomes: Sequence[tuple[_Job[Q, A], list[A] | Exception]]) -> None:
    for job, outcome in outcomes:
        if job.answers.done():
            continue
        if isinstance(outcome, Exception):
            job.answers.set_exception(outcome)
        else:
            job.answers.set_result(outcome)
