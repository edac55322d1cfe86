"""One compute thread, and a bounded queue before it: what waits together is answered together."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from segue.errors import SegueError

Q = TypeVar("Q")
A = TypeVar("A")

log = logging.getLogger("segue.serving")


class QueueFullError(Exception):
    """As many questions wait as may."""


class LateError(Exception):
    """The answer was not there by the deadline."""


class ClosedError(Exception):
    """The service is ending."""


class FailedError(Exception):
    """A question failed for a reason that nobody foresaw; the log has its cause."""


@dataclass(eq=False)
class _Job(Generic[Q, A]):
    questions: Sequence[Q]
    size: int
    loop: asyncio.AbstractEventLoop
    answers: "asyncio.Future[list[A]]"


Outcome = tuple[_Job[Q, A], list[A] | Exception]


class Batcher(Generic[Q, A]):
    """Gathers questions for a function that answers many at once.

    The thread takes what waits as soon as it is free, and so waits for nobody: under load batches
    grow by themselves, and a question alone is answered at once.

    A batch that fails is answered job by job: only the job with the question at fault fails.
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
            answer: From questions to their answers, in order; called by one thread only. A
                `SegueError` is for everybody in the batch.
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

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs; it ends when the batcher is closed, or by a defect."""
        return self._thread.is_alive()

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
            ClosedError: The batcher is closed, or its thread died.
            FailedError: One of the questions failed for a reason that nobody foresaw.
            SegueError: What `answer` raised.
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
        jobs: list[_Job[Q, A]] = []
        try:
            while jobs := self._taken():
                self._settle(jobs)
        except BaseException:  # a panic of Polars is no Exception
            log.critical("the thread %s died", self._thread.name, exc_info=True)
            self._refuse_all(jobs)

    def _refuse_all(self, taken: list[_Job[Q, A]]) -> None:
        """Take no more jobs, and let nobody wait for an answer that cannot come."""
        with self._changed:
            self._is_closed = True
            refused = [*taken, *self._jobs]
            self._jobs.clear()
            self._waiting = 0
        self._deliver([(job, ClosedError()) for job in refused])

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
        self._on_batch(sum(len(job.questions) for job in jobs))
        self._deliver(self._outcomes(jobs))

    def _outcomes(self, jobs: list[_Job[Q, A]]) -> list[Outcome[Q, A]]:
        """What each job gets: its answers, or why it has none."""
        try:
            answers = iter(self._answer([question for job in jobs for question in job.questions]))
            return [(job, [next(answers) for _ in job.questions]) for job in jobs]
        except SegueError as error:
            return [(job, error) for job in jobs]
        except BaseException:  # a panic of Polars is no Exception
            if len(jobs) > 1:
                return [outcome for job in jobs for outcome in self._outcomes([job])]
            log.exception("a job of %d questions failed", len(jobs[0].questions))
            return [(jobs[0], FailedError())]

    def _deliver(self, outcomes: Sequence[Outcome[Q, A]]) -> None:
        """Hand over a batch by one call into the event loop; waking it costs more than the rest."""
        try:
            outcomes[0][0].loop.call_soon_threadsafe(_settle_futures, outcomes)
        except RuntimeError:  # the loop has ended, and with it whoever asked
            log.warning("%d answers came after the end of the service", len(outcomes))


def _settle_futures(outcomes: Sequence[Outcome[Q, A]]) -> None:
    for job, outcome in outcomes:
        if job.answers.done():
            continue
        if isinstance(outcome, Exception):
            job.answers.set_exception(outcome)
        else:
            job.answers.set_result(outcome)
