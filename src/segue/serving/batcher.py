"""One compute thread, and a bounded queue before it: what waits together is answered together."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from segue.errors import SegueError

Q = TypeVar("Q")
A = TypeVar("A")

log = logging.getLogger("segue.serving")


class QueueFullError(Exception):
    """As many questions wait as may."""


class ClosedError(Exception):
    """The service is ending."""


class FailedError(Exception):
    """A question failed for a reason that nobody foresaw; the log has its cause."""


Answer = Callable[[list[Q]], list[A]]


@dataclass(eq=False)
class _Job(Generic[Q, A]):
    """Questions that are asked together.

    Attributes:
        questions: Those that are not answered yet.
        costs: What each of them costs.
        loop, answers: Where the answers are waited for.
        done: The answers so far.
        answer: What answers all of it, once it has begun.
        is_wanted: Whether somebody waits for the answers.
    """

    questions: deque[Q]
    costs: deque[int]
    loop: asyncio.AbstractEventLoop
    answers: "asyncio.Future[list[A]]"
    done: list[A] = field(default_factory=list)
    answer: Answer[Q, A] | None = None
    is_wanted: bool = True

    @property
    def cost(self) -> int:
        """Of the questions that are not answered yet."""
        return sum(self.costs)

    def part(self, most: int) -> list[Q]:
        """Take the next questions, of this cost at most; at least one."""
        size = self.costs.popleft()
        part = [self.questions.popleft()]
        while self.costs and size + self.costs[0] <= most:
            size += self.costs.popleft()
            part.append(self.questions.popleft())
        return part


Outcome = tuple[_Job[Q, A], list[A] | Exception]


class Batcher(Generic[Q, A]):
    """Gathers questions for a function that answers many at once.

    The thread takes what waits as soon as it is free, and so waits for nobody: under load batches
    grow by themselves, and a question alone is answered at once. A job that costs more than a batch
    is answered part by part, in turn with the others, and given up once nobody waits for it.

    A batch that fails is answered job by job: only the job with the question at fault fails.
    """

    def __init__(
        self,
        begin: Callable[[], Answer[Q, A]],
        *,
        max_waiting: int,
        max_batch: int,
        name: str = "segue-compute",
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Start the thread.

        Args:
            begin: Gives the function that answers a batch, or all parts of one job: from questions
                to their answers, in order. It is called by one thread only. A `SegueError` that it
                raises is for everybody in the batch.
            max_waiting: What the waiting questions may cost in all. A job that costs more is let in
                where there is no other such job, and does not count.
            max_batch: What questions answered at once may cost in all.
            name: The thread's.
            on_batch: Called with the number of questions of each batch.
        """
        self._begin = begin
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._jobs: deque[_Job[Q, A]] = deque()
        self._waiting = 0
        self._in_hand: list[_Job[Q, A]] = []
        self._oversize: _Job[Q, A] | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """What the questions cost that wait now."""
        return self._waiting

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs; it ends when the batcher is closed, or by a defect."""
        return self._thread.is_alive()

    async def ask(self, questions: Sequence[Q], costs: Sequence[int] | None = None) -> list[A]:
        """The answers to questions; cancelled, it drops those that are not answered yet.

        Args:
            questions: What is asked, at least one.
            costs: What each costs, at least 1; by default 1.

        Raises:
            QueueFullError: At once, if too much waits.
            ClosedError: The batcher is closed, or its thread died.
            FailedError: One of the questions failed for a reason that nobody foresaw.
            SegueError: What the function raised.
        """
        loop = asyncio.get_running_loop()
        each_costs = deque(costs or [1] * len(questions))
        job = _Job[Q, A](deque(questions), each_costs, loop, loop.create_future())
        self._admit(job)
        try:
            return await job.answers
        finally:
            self._drop(job)

    def wait_for_begun(self) -> None:
        """Return once nothing is answered any more by a function that `begin` gave before now."""
        with self._changed:
            begun = {*self._in_hand, *(job for job in self._jobs if job.answer is not None)}
            self._changed.wait_for(lambda: begun.isdisjoint([*self._in_hand, *self._jobs]))

    def close(self, timeout_s: float | None = None) -> None:
        """Answer what waits, then end the thread; leave it to itself after that time."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _admit(self, job: _Job[Q, A]) -> None:
        is_oversize = job.cost > self._max_waiting
        with self._changed:
            if self._is_closed:
                raise ClosedError
            if is_oversize and self._oversize is not None:
                raise QueueFullError
            if not is_oversize and self._waiting + job.cost > self._max_waiting:
                raise QueueFullError
            if is_oversize:
                self._oversize = job
            self._enqueue(job)

    def _enqueue(self, job: _Job[Q, A]) -> None:
        self._jobs.append(job)
        self._waiting += self._counted(job)
        self._changed.notify_all()

    def _counted(self, job: _Job[Q, A]) -> int:
        """What a job costs of the queue."""
        return 0 if job is self._oversize else job.cost

    def _drop(self, job: _Job[Q, A]) -> None:
        """Take a job out of the queue if it is there; nobody waits for it any more."""
        with self._changed:
            job.is_wanted = False
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= self._counted(job)
                self._changed.notify_all()
            if job is self._oversize:
                self._oversize = None

    def _work(self) -> None:
        try:
            while self._take():
                self._settle(self._in_hand)
        except BaseException:  # a panic of Polars is no Exception
            log.critical("the thread %s died", self._thread.name, exc_info=True)
            self._refuse_all()

    def _refuse_all(self) -> None:
        """Take no more jobs, and let nobody wait for an answer that cannot come."""
        with self._changed:
            self._is_closed = True
            refused = [*self._in_hand, *self._jobs]
            self._jobs.clear()
            self._waiting = 0
            self._in_hand = []
            self._changed.notify_all()
        if refused:
            self._deliver([(job, ClosedError()) for job in refused])

    def _take(self) -> bool:
        """Take the next jobs in hand, once there are some; False where none will come.

        Several of them are new and no more than one batch.
        """
        with self._changed:
            self._in_hand = []
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._jobs or self._is_closed)
            taken = self._in_hand
            cost = 0
            while self._jobs:
                job = self._jobs[0]
                is_alone = job.answer is not None or cost + job.cost > self._max_batch
                if taken and is_alone:
                    break
                taken.append(self._jobs.popleft())
                self._waiting -= self._counted(job)
                cost += job.cost
                if is_alone:
                    break
            return bool(taken)

    def _settle(self, jobs: list[_Job[Q, A]]) -> None:
        outcomes = self._together(jobs) if len(jobs) > 1 else self._alone(jobs[0])
        if outcomes:
            self._deliver(outcomes)

    def _together(self, jobs: list[_Job[Q, A]]) -> list[Outcome[Q, A]]:
        """What each job gets: its answers, or why it has none."""
        questions = [question for job in jobs for question in job.questions]
        self._on_batch(len(questions))
        try:
            answers = iter(self._begin()(questions))
        except SegueError as error:
            return [(job, error) for job in jobs]
        except BaseException:  # noqa: BLE001 - each is tried again, and the one at fault is logged
            return [outcome for job in jobs if job.is_wanted for outcome in self._alone(job)]
        return [(job, [next(answers) for _ in job.questions]) for job in jobs]

    def _alone(self, job: _Job[Q, A]) -> list[Outcome[Q, A]]:
        """What a job gets; nothing yet while parts of it are left."""
        job.answer = job.answer or self._begin()
        part = job.part(self._max_batch)
        self._on_batch(len(part))
        try:
            job.done += job.answer(part)
        except SegueError as error:
            return [(job, error)]
        except BaseException:  # a panic of Polars is no Exception
            log.exception("a question failed")
            return [(job, FailedError())]
        if job.questions:
            self._put_back(job)
            return []
        return [(job, job.done)]

    def _put_back(self, job: _Job[Q, A]) -> None:
        """Have the rest of a job wait for its turn, if somebody waits for it."""
        with self._changed:
            if job.is_wanted:
                self._enqueue(job)

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
