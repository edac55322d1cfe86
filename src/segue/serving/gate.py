"""The gate before the app: limits, keys and headers for every request, and what is logged of it."""

import asyncio
import logging
import random
import time
from http import HTTPStatus

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segue.serving.cors import RawHeaders
from segue.serving.guard import Guard
from segue.serving.limits import MAX_BODY_BYTES
from segue.serving.metrics import Metrics
from segue.serving.problems import DEFECT, ProblemError
from segue.serving.settings import Settings

GUARDED = ("/v1/", "/metrics")
OPEN = ("/healthz", "/readyz")
# A new model is compiled for as long as that takes.
UNHURRIED = ("/v1/admin/reload",)
# Where the protocol notes it, in the state of a request.
BEGAN_AT = "began_at"
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # A link to the page holds a history.
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]

log = logging.getLogger("segue.serving")


class Gate:
    """Lets requests in, each with its whole body and until its deadline, and records them."""

    def __init__(self, app: ASGIApp, *, guard: Guard, metrics: Metrics, settings: Settings) -> None:
        self._app = app
        self._guard = guard
        self._metrics = metrics
        self._deadline_s = settings.deadline_s
        self._root = settings.root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = _Exchange(below(self._root, scope), receive, send)
        exchange.extra = self._guard.origins.headers(exchange.headers)
        try:
            await self._answer(exchange)
        finally:
            self._record(exchange, time.perf_counter() - started)

    async def _answer(self, exchange: "_Exchange") -> None:
        ends_at = exchange.began_at + self._deadline_s
        try:
            _check_framing(exchange)
            shortcut = self._shortcut(exchange)
            if shortcut is not None:
                await exchange.respond(shortcut)
                return
            self._admit(exchange)
            body = await self._body(exchange, ends_at)
        except ProblemError as problem:
            await exchange.refuse(problem)
            return
        is_hurried = exchange.path not in UNHURRIED
        try:
            async with asyncio.timeout_at(ends_at if is_hurried else None) as deadline:
                exchange.deadline = deadline
                await self._app(exchange.scope, exchange.replayed(body), exchange.send)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Polars is no Exception
            if exchange.has_begun:
                raise
            await exchange.refuse(self._problem_of(exchange, error, is_late=deadline.expired()))

    def _problem_of(
        self, exchange: "_Exchange", error: BaseException, *, is_late: bool
    ) -> ProblemError:
        """What is answered instead of an answer."""
        if is_late and isinstance(error, TimeoutError):
            return ProblemError(504, f"the answer was not ready after {self._deadline_s:g} s")
        log.error("%s failed", exchange.request_id, exc_info=error)
        return ProblemError(500, DEFECT)

    def _shortcut(self, exchange: "_Exchange") -> Response | None:
        """What is answered without a key and without the app, if that is so."""
        if exchange.path == "":
            # The page's addresses are relative to its own, which needs its slash.
            return RedirectResponse(f"{self._root.rpartition('/')[2]}/")
        return self._guard.origins.preflight(exchange.method, exchange.headers)

    def _admit(self, exchange: "_Exchange") -> None:
        if exchange.path in OPEN:
            return
        self._guard.check_origin(exchange.method, exchange.headers)
        if exchange.is_private:
            client = exchange.scope.get("client")
            caller = self._guard.check_key(exchange.headers, client[0] if client else "")
            self._guard.check_rate(caller)

    async def _body(self, exchange: "_Exchange", ends_at: float) -> bytes:
        headers = exchange.headers
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return b""
        declared = headers.get("content-length", "0")
        if len(declared) > 15 or int(declared) > MAX_BODY_BYTES:
            raise _too_large()
        try:
            async with asyncio.timeout_at(ends_at):
                return await exchange.body()
        except TimeoutError:
            raise ProblemError(
                408,
                f"the body was not complete after {self._deadline_s:g} s",
                headers={"Connection": "close"},
            ) from None

    def _record(self, exchange: "_Exchange", seconds: float) -> None:
        """Count and log a request by its operation; paths and queries hold ids of users."""
        route, status = exchange.scope.get("route"), exchange.status
        operation = "unknown"
        if route is not None and status != HTTPStatus.METHOD_NOT_ALLOWED:
            operation = f"{exchange.method} {route.path}"
        self._metrics.requests.labels(operation, str(status)).inc()
        self._metrics.seconds.labels(operation).observe(seconds)
        log.info("%s %s %d %.1f ms", exchange.request_id, operation, status, seconds * 1000)


class _Exchange:
    """A request and its answer.

    Attributes:
        scope: The request, as the server gives it.
        method, path: What is asked for, without the path below which a proxy offers the service.
        headers: By their names in lower case.
        request_id: A name for it, no secret.
        began_at: When its first byte came, by the event loop's clock.
        extra: More headers of the answer.
        is_private: Whether a key is needed, where there are keys.
        has_begun: Whether a part of the answer is sent.
        status: Of the answer; 500 until there is one.
        deadline: Until when the answer must begin; it may then take its time.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.method: str = scope["method"]
        self.path: str = scope["path"].removeprefix(scope["root_path"])
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.request_id = f"{random.getrandbits(64):016x}"
        state = scope.setdefault("state", {})
        state["request_id"] = self.request_id
        self.began_at: float = state.get(BEGAN_AT) or asyncio.get_running_loop().time()
        self.is_private = self.path.startswith(GUARDED)
        self.extra: RawHeaders = []
        self.has_begun = False
        self.status = 500
        self.deadline: asyncio.Timeout | None = None

    async def send(self, message: Message) -> None:
        """Send a part of the answer, the first with the headers that all answers have."""
        if message["type"] == "http.response.start":
            if self.deadline is not None:
                self.deadline.reschedule(None)
            self.has_begun, self.status = True, message["status"]
            message["headers"] = [
                *message["headers"],
                *HEADERS,
                *self.extra,
                (b"x-request-id", self.request_id.encode()),
                *([(b"cache-control", b"no-store")] if self.is_private else []),
            ]
        await self._send(message)

    def all(self, name: str) -> str:
        """All headers of a name, as one."""
        raw = name.encode()
        return ",".join(
            value.decode("latin-1") for each, value in self.scope["headers"] if each == raw
        )

    async def refuse(self, problem: ProblemError) -> None:
        """Answer by a problem, whatever the deadline."""
        self.deadline = None
        await self.respond(problem.response())

    async def respond(self, response: Response) -> None:
        """Answer without the app."""
        await response(self.scope, self._receive, self.send)

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            ProblemError: 413 where it is too large, 400 where the client left.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ProblemError(400, "the client left before its body was complete")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY_BYTES:
                raise _too_large()
            if not message.get("more_body"):
                return b"".join(parts)

    def replayed(self, body: bytes) -> Receive:
        """Gives the body once, then whatever comes after it."""
        is_given = False

        async def replay() -> Message:
            nonlocal is_given
            if is_given:
                return await self._receive()
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay


def below(root: str, scope: Scope) -> Scope:
    """A request as ASGI has it, whose path begins with `root_path`, for a service below that path.

    Some proxies take the path away before they pass a request on, others leave it.
    """
    path: str = scope["path"]
    if path != root and not path.startswith(f"{root}/"):
        path = root + path
    return {**scope, "root_path": root, "path": path}


def _check_framing(exchange: _Exchange) -> None:
    """Refuse what would be taken for something else than was meant, by us or by a proxy.

    Raises:
        ProblemError: 400 without one `Host`, 501 for a body coded for the transfer otherwise than
            in chunks, 415 for one that is compressed.
    """
    hosts = exchange.all("host")
    if "," in hosts or (not hosts and exchange.scope["http_version"] == "1.1"):
        raise ProblemError(400, f"a request has one Host, got {hosts or 'none'}")
    if exchange.all("transfer-encoding").lower() not in ("", "chunked"):
        raise ProblemError(
            501,
            "a body may be sent in chunks, and not in another transfer encoding",
            headers={"Connection": "close"},
        )
    if exchange.all("content-encoding").lower() not in ("", "identity"):
        raise ProblemError(415, "the body is compressed; send it as it is")


def _too_large() -> ProblemError:
    return ProblemError(
        413,
        f"the body is larger than {MAX_BODY_BYTES:,} bytes; send less at once",
        headers={"Connection": "close"},
    )
