"""Pages of other sites that may ask (the Fetch standard, "CORS protocol")."""

from collections.abc import Mapping, Sequence

from fastapi import Response

from segue.serving.problems import ProblemError

METHODS = "GET, HEAD, POST, DELETE"
HEADERS = "Authorization, Content-Type, X-API-Key"
SHOWN = "X-Request-ID, Retry-After"
MAX_AGE_S = 600

RawHeaders = list[tuple[bytes, bytes]]


class AllowedOrigins:
    """The sites whose pages may ask."""

    def __init__(self, origins: Sequence[str]) -> None:
        """Take the origins, such as `https://shop.example`."""
        self._origins = {origin.lower() for origin in origins}

    def has(self, headers: Mapping[str, str]) -> bool:
        """Whether a request is from a page of one of them."""
        return headers.get("origin", "").lower() in self._origins

    def headers(self, headers: Mapping[str, str]) -> RawHeaders:
        """What an answer needs so that such a page may read it."""
        if not self._origins:
            return []
        vary = [(b"vary", b"Origin")]
        if not self.has(headers):
            return vary
        return [
            *vary,
            (b"access-control-allow-origin", headers["origin"].encode("latin-1")),
            (b"access-control-expose-headers", SHOWN.encode()),
        ]

    def preflight(self, method: str, headers: Mapping[str, str]) -> Response | None:
        """The answer to a browser that asks what a page may ask; None where it does not.

        It asks so before it sends a key, so that no key may be wanted.

        Raises:
            ProblemError: 403, for a page of any other site.
        """
        is_asked = {"origin", "access-control-request-method"} <= headers.keys()
        if method != "OPTIONS" or not is_asked:
            return None
        if not self.has(headers):
            raise ProblemError(
                403, "pages of this origin may not ask; name it with segue serve --allow-origin"
            )
        return Response(
            status_code=204,
            headers={
                "Access-Control-Allow-Methods": METHODS,
                "Access-Control-Allow-Headers": HEADERS,
                "Access-Control-Max-Age": str(MAX_AGE_S),
            },
        )
