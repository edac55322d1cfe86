"""Who may ask: keys, the machine's own address, and how often."""

import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Mapping

from segue.serving.cors import AllowedOrigins
from segue.serving.problems import ProblemError
from segue.serving.settings import ADMIN_KEY, Settings

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
# What only reads; a page cannot see what another site answers.
SAFE_METHODS = ("GET", "HEAD")
OWN_SITES = ("same-origin", "none")
MAX_CLIENTS = 10_000
# Long enough for bursts of a page that asks at every change.
BURST_S = 2.0
# Nobody mistypes a key more often than that.
WRONG_KEYS_PER_S = 5.0
# Whoever has one IPv6 address has all of its network.
IPV6_NETWORK_BITS = 64


class Guard:
    """Lets requests in, or not.

    Attributes:
        origins: The other sites whose pages may ask.
    """

    def __init__(self, settings: Settings) -> None:
        """Take the keys and the rate from the settings."""
        self._api = [key.encode() for key in settings.keys.api]
        self._admin = [settings.keys.admin.encode()] if settings.keys.admin else []
        # Without keys, a page of another site that calls itself by a name of this machine's
        # address (DNS rebinding) must not read or write anything.
        is_named_local = settings.is_local and not self._api
        self._names = {*LOCAL_NAMES, settings.host.lower()} if is_named_local else None
        self.origins = AllowedOrigins(settings.allowed_origins)
        rate = settings.rate_limit
        self._requests = None if rate is None else RateLimit(rate, "requests")
        self._wrong_keys = RateLimit(WRONG_KEYS_PER_S, "wrong keys")

    def check_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """Refuse pages of other sites where there are no keys; a link from there may be followed.

        A page shows a key on purpose, while without keys a browser may be led to ask by any page.

        Raises:
            ProblemError: 403, for a foreign name of this machine, or a foreign page.
        """
        if self._api:
            return
        if self._names is not None and _name_in(headers.get("host", "")) not in self._names:
            raise ProblemError(
                403, "without keys, the service answers to this machine's own names only"
            )
        if self.origins.has(headers) or _is_link(method, headers):
            return
        if _is_foreign(method, headers):
            raise ProblemError(
                403,
                "without keys, the service answers its own pages and programs only, and those of "
                "segue serve --allow-origin",
            )

    def check_key(self, headers: Mapping[str, str], address: str) -> str:
        """Refuse callers without one of the keys, if there are keys.

        Returns:
            Who asks: which key it is, or the address where there are none.

        Raises:
            ProblemError: 401; 429 for an address that tries many keys.
        """
        if not self._api:
            return network_of(address)
        place = _place_of(_shown_key(headers), [*self._api, *self._admin])
        if place is None:
            self._wrong_keys.check(network_of(address))
            raise ProblemError(
                401,
                "send a key of this service as X-API-Key, or as Authorization: Bearer",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return f"key {place}"

    def check_admin(self, headers: Mapping[str, str], address: str) -> None:
        """Refuse callers without the admin key; where there is no key at all, nobody.

        Raises:
            ProblemError: 403; 429 for an address that tries many keys.
        """
        if self._admin and _place_of(_shown_key(headers), self._admin) is None:
            self._wrong_keys.check(network_of(address))
            raise ProblemError(403, "this needs the admin key")
        if self._api and not self._admin:
            raise ProblemError(403, f"this needs an admin key; the server has no {ADMIN_KEY}")

    def check_rate(self, client: str) -> None:
        """Refuse a client that asks more often than it may; see `check_key` for its name.

        Raises:
            ProblemError: 429.
        """
        if self._requests is not None:
            self._requests.check(client)


class RateLimit:
    """How often each client may do something; the clients that did it last are remembered."""

    def __init__(self, rate: float, what: str) -> None:
        """Allow `rate` a second, and two seconds' worth at once; `what` is for the message."""
        self._rate = rate
        self._what = what
        self._most = max(1.0, rate * BURST_S)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Count that a client does it once more.

        Raises:
            ProblemError: 429, if that is more often than it may.
        """
        now = time.monotonic()
        tokens, at = self._buckets.pop(client, (self._most, now))
        tokens = min(self._most, tokens + (now - at) * self._rate)
        self._buckets[client] = (max(0.0, tokens - 1.0), now) if tokens >= 1.0 else (tokens, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1.0:
            wait_s = max(1, round((1.0 - tokens) / self._rate))
            raise ProblemError(
                429,
                f"more than {self._rate:g} {self._what} per second; ask less often",
                headers={"Retry-After": str(wait_s)},
            )


def network_of(address: str) -> str:
    """What one client has for itself: an IPv4 address, or a network of IPv6; "" if it is none."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, IPV6_NETWORK_BITS), strict=False))


def _name_in(host: str) -> str:
    """The name or address in a Host header, without the port."""
    name = host[: host.rindex(":")] if ":" in host.rpartition("]")[2] else host
    return name.lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _is_foreign(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a page of another site asks.

    Browsers say by `Sec-Fetch-Site` where the page is from, but on encrypted connections and this
    machine only; else `Origin` says it, of all that may change something.
    """
    site = headers.get("sec-fetch-site")
    if site is not None and site not in OWN_SITES:
        return site == "cross-site" or method not in SAFE_METHODS
    origin = headers.get("origin")
    if site is not None or origin is None or method in SAFE_METHODS:
        return False
    return origin.partition("://")[2].lower() != headers.get("host", "").lower()


def _is_link(method: str, headers: Mapping[str, str]) -> bool:
    """Whether the answer is shown as a page of its own, which the site it came from cannot read."""
    return (
        method in SAFE_METHODS
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _shown_key(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")


def _place_of(shown: str, keys: list[bytes]) -> int | None:
    """The place of a key among these; the time taken says nothing about them."""
    given = shown.encode()
    matches = [hmac.compare_digest(given, key) for key in keys]
    return matches.index(True) if any(matches) else None
