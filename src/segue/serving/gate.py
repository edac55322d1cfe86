"""The gate before the app: limits, keys and headers for every request, and what is logged of it."""

import asyncio
import logging
import random
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segue.serving.guard import Guard
from segue.serving.limits import MAX_BODY_BYTES
from segue.serving.metrics import Metrics
from segue.serving.problems import ProblemError

GUARDED = ("/v1/", "/metrics")
OPEN = ("/healthz", "/readyz")
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
    """Reads a body whole before the app sees the request; refuses what is too large or too slow."""

    def __init__(
        self, app: ASGIApp, *, guard: Guard, metrics: Metrics, body_timeout_s: float
    ) -> None:
        self._app = app
        self._guard = guard
        self._metrics = metrics
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = f"{random.getrandbits(64):016x}"  # a name, no secret
        scope.setdefault("state", {})["request_id"] = request_id
        is_private = scope["path"].startswith(GUARDED)
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    *HEADERS,
                    (b"x-request-id", request_id.encode()),
                    *([(b"cache-control", b"no-store")] if is_private else []),
                ]
            await send(message)

        try:
            try:
                headers = {
                    name.decode("latin-1"): value.decode("latin-1")
                    for name, value in scope["headers"]
                }
                self._admit(scope, headers, is_private)
                body = await self._body(headers, receive)
            except ProblemError as problem:
                await problem.response()(scope, receive, answer)
            else:
                await self._app(scope, _replayed(body, receive), answer)
        finally:
            self._record(scope, status, time.perf_counter() - started, request_id)

    def _admit(self, scope: Scope, headers: Mapping[str, str], is_private: bool) -> None:
        if scope["path"] in OPEN:
            return
        self._guard.check_origin(scope["method"], headers)
        if is_private:
            address = scope["client"][0] if scope.get("client") else ""
            self._guard.check_rate(headers, address)
            self._guard.check_key(headers)

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return b""
        declared = headers.get("content-length", "0")
        if len(declared) > 15 or int(declared) > MAX_BODY_BYTES:
            raise _too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ProblemError(400, "the client left before its body was complete")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > MAX_BODY_BYTES:
                        raise _too_large()
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise ProblemError(
                408,
                f"the body was not complete after {self._body_timeout_s:g} s",
                headers={"Connection": "close"},
            ) from None

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        """Count and log a request by its operation; paths and queries hold ids of users."""
        route = scope.get("route")
        operation = f"{scope['method']} {route.path}" if route else "unknown"
        self._metrics.requests.labels(operation, str(status)).inc()
        self._metrics.seconds.labels(operation).observe(seconds)
        log.info("%s %s %d %.1f ms", request_id, operation, status, seconds * 1000)


def _too_large() -> ProblemError:
    return ProblemError(
        413,
        f"the body is larger than {MAX_BODY_BYTES:,} bytes; send less at once",
        headers={"Connection": "close"},
    )


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body once, then whatever comes after it."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
