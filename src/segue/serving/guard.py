"""Who may ask: keys, the machine's own address, and how often."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Mapping

from segue.serving.problems import ProblemError
from segue.serving.settings import ADMIN_KEY, Settings

LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]"}
MAX_CLIENTS = 10_000
# Long enough for bursts of a page that asks at every change.
BURST_S = 2.0


class Guard:
    """Lets requests in, or not."""

    def __init__(self, settings: Settings) -> None:
        """Take the keys and the rate from the settings."""
        self._api = [key.encode() for key in settings.keys.api]
        self._admin = [settings.keys.admin.encode()] if settings.keys.admin else []
        # Without keys, a page of another site that calls itself by a name of this machine's
        # address (DNS rebinding) must not read or write anything.
        self._is_named_local = settings.is_local and not self._api
        self._rate = settings.rate_limit
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """Refuse other sites where there are no keys; a link from there may be followed.

        Raises:
            ProblemError: 403, for a foreign name of this machine, or a foreign page.
        """
        if not self._is_named_local:
            return
        host = headers.get("host", "")
        name = host[: host.rindex(":")] if ":" in host.rpartition("]")[2] else host
        is_foreign = headers.get("sec-fetch-site") == "cross-site"
        # What a browser shows as a page of its own, the site that linked to it cannot read.
        is_link = (
            method in ("GET", "HEAD")
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        )
        if name not in LOCAL_NAMES or (is_foreign and not is_link):
            raise ProblemError(
                403, "without keys, the service answers this machine's own pages and programs only"
            )

    def check_key(self, headers: Mapping[str, str]) -> None:
        """Refuse callers without one of the keys, if there are keys.

        Raises:
            ProblemError: 401.
        """
        if self._api and not _is_one_of(_shown_key(headers), [*self._api, *self._admin]):
            raise ProblemError(
                401,
                "send a key of this service as X-API-Key, or as Authorization: Bearer",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def check_admin(self, headers: Mapping[str, str]) -> None:
        """Refuse callers without the admin key; where there is no key at all, nobody.

        Raises:
            ProblemError: 403.
        """
        if self._admin and not _is_one_of(_shown_key(headers), self._admin):
            raise ProblemError(403, "this needs the admin key")
        if self._api and not self._admin:
            raise ProblemError(403, f"this needs an admin key; the server has no {ADMIN_KEY}")

    def check_rate(self, headers: Mapping[str, str], address: str) -> None:
        """Refuse a client that asks more often than it may.

        Raises:
            ProblemError: 429.
        """
        if self._rate is None:
            return
        client = _shown_key(headers) if self._api else address
        now = time.monotonic()
        most = max(1.0, self._rate * BURST_S)
        tokens, at = self._buckets.pop(client, (most, now))
        tokens = min(most, tokens + (now - at) * self._rate)
        self._buckets[client] = (max(0.0, tokens - 1.0), now) if tokens >= 1.0 else (tokens, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1.0:
            wait_s = max(1, round((1.0 - tokens) / self._rate))
            raise ProblemError(
                429,
                f"more than {self._rate:g} requests per second; ask less often",
                headers={"Retry-After": str(wait_s)},
            )


def _shown_key(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")


def _is_one_of(shown: str, keys: list[bytes]) -> bool:
    """Whether a key is among these; the time taken says nothing about them."""
    given = shown.encode()
    matches = [hmac.compare_digest(given, key) for key in keys]
    return any(matches)
