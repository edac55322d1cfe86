"""Connections: bounded in number, and what comes before a body in size and in time.

uvicorn and httptools leave that to the server before them (Kludex/uvicorn#157). A head without an
end filled the memory, and connections that send nothing took all descriptors.
"""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from segue.serving.gate import BEGAN_AT, HEADERS
from segue.serving.problems import ProblemError

MAX_CONNECTIONS = 1_024
# For the database, the run's files, the log.
OTHER_DESCRIPTORS = 128
MAPPED = "::ffff:"


def most_connections() -> int:
    """How many connections leave enough descriptors for all else; at least one."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, allowed - OTHER_DESCRIPTORS))


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client may send before it is answered, and how long it may take.

    Attributes:
        head_bytes: Of a request's line and headers.
        headers: How many.
        head_timeout_s: From the connection, or a head's first byte, to the head's end.
        pipelined: Requests that were sent before those ahead of them were answered.
        connections: At once, of all clients; more take the place of idle ones.
    """

    head_bytes: int = 2**14
    headers: int = 100
    head_timeout_s: float = 10.0
    pipelined: int = 128
    connections: int = MAX_CONNECTIONS


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within limits."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits(connections=most_connections())
    _numbers: ClassVar[Iterator[int]] = count()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._number = next(self._numbers)
        self._awaits_head = True
        self._head_bytes = 0  # received; not one by one, but not less than there are
        self._head_size = 0  # of the parts that are complete
        self._timer: asyncio.TimerHandle | None = None
        self._fault: ProblemError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection in place of an idle one, or of none, where there are too many."""
        super().connection_made(transport)
        if self.client is not None:  # IPv4 on a socket that takes both
            self.client = (self.client[0].removeprefix(MAPPED), self.client[1])
        if len(self.connections) > self.limits.connections and not self._end_an_idle_one():
            self._refuse(
                ProblemError(503, "too many connections; try again", headers={"Retry-After": "1"})
            )
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what was sent."""
        if self.transport.is_closing():
            return
        if self._awaits_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > self.limits.head_bytes:
            self._refuse(self._too_large())
        if not self.transport.is_closing():
            self._limit_time()

    def on_message_begin(self) -> None:
        """Begin a request, and note when."""
        super().on_message_begin()
        self.scope["state"][BEGAN_AT] = self.loop.time()
        self._head_bytes = max(1, self._head_bytes)
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._grow(len(name) + len(value))
        super().on_header(name, value)
        if len(self.headers) > self.limits.headers:
            self._fail(self._too_large())

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        if len(self.pipeline) >= self.limits.pipelined:
            self._fail(ProblemError(429, "too many requests were sent without waiting for answers"))
        self._stop_timer()
        self._awaits_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request."""
        super().on_message_complete()
        self._awaits_head = True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, or too much of one."""
        self._refuse(self._fault or ProblemError(400, "what was sent is no HTTP request"))

    def _end_an_idle_one(self) -> bool:
        """End the oldest connection on which nothing was asked yet, or else on which nothing is."""
        idle = [
            each
            for each in self.connections
            if isinstance(each, BoundedProtocol) and each is not self and each._is_idle
        ]
        if not idle:
            return False
        min(idle, key=lambda each: (each.cycle is not None, each._number)).transport.close()
        return True

    @property
    def _is_idle(self) -> bool:
        return not self._is_answering and not self.transport.is_closing()

    @property
    def _is_answering(self) -> bool:
        # There is no cycle before the first request, which uvicorn's types leave out.
        return not getattr(self.cycle, "response_complete", True)

    def _limit_time(self) -> None:
        """Leave no state without a timer, but that in which a request is answered."""
        if self._head_bytes or not (self._awaits_head or self._is_answering):
            self._start_timer()
        elif not self._is_answering:  # it was answered before all of its body was there
            self._stop_timer()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.limits.head_timeout_s, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        """End a connection on which a head does not come to its end."""
        if self._head_bytes and not self._is_answering:
            seconds = self.limits.head_timeout_s
            self._refuse(ProblemError(408, f"the head was not complete after {seconds:g} s"))
        else:
            self.shutdown()

    def _grow(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self.limits.head_bytes:
            self._fail(self._too_large())

    def _too_large(self) -> ProblemError:
        limits = self.limits
        return ProblemError(
            431,
            f"the head is larger than {limits.head_bytes:,} bytes or {limits.headers} headers",
        )

    def _fail(self, problem: ProblemError) -> None:
        """Have the parser stop, and the problem sent."""
        self._fault = problem
        raise problem

    def _refuse(self, problem: ProblemError) -> None:
        """Answer by a problem, if it would be taken for that, and end the connection."""
        self._stop_timer()
        if self._is_answering and not self._awaits_head and not self.pipeline:
            # The body is at fault: its request gets this answer and no other.
            is_free = not self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        else:
            is_free = not self._is_answering
        if is_free:
            answer = problem.response()
            status = HTTPStatus(problem.status)
            headers = [*answer.raw_headers, *HEADERS, (b"connection", b"close")]
            lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
            lines += [name + b": " + value for name, value in headers]
            self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()
