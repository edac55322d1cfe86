"""HEAD, wherever GET is answered: load balancers and monitors ask so."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """Answers HEAD as GET, without the body (RFC 9110, section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            is_body = message["type"] == "http.response.body"
            await send({**message, "body": b""} if is_body else message)

        # A copy: the server must still see HEAD, or it would wait for the body.
        as_get = {**scope, "method": "GET"}
        await self._app(as_get, receive, send_without_body)
        if "route" in as_get:  # by which the request is counted
            scope["route"] = as_get["route"]
