"""How a service is set up: by options, and by keys from the environment."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from segue.errors import ConfigError

API_KEYS, ADMIN_KEY, ERASURE_KEY = "SEGUE_API_KEYS", "SEGUE_ADMIN_KEY", "SEGUE_ERASURE_KEY"
# Of letters of all kinds, and so hopeless to guess.
MIN_KEY_LENGTH = 16
USUAL_PORTS = {"http": 80, "https": 443}
ROOT_PATH = re.compile(r"(/[\w.~-]+)+", re.ASCII)


@dataclass(frozen=True)
class Keys:
    """The keys that callers must show.

    Attributes:
        api: Any of these opens the interface; empty: it is open to everyone.
        admin: Opens reload and erasure; None: they are open where the interface is, else closed.
        erasure: What erased users are hashed with; None: a key file next to the SQLite database.
    """

    api: tuple[str, ...] = ()
    admin: str | None = None
    erasure: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The keys in `SEGUE_API_KEYS` (separated by commas) and its siblings; empty is unset.

        Raises:
            ConfigError: No header can carry a key, or is short enough to be guessed.
        """
        api = tuple(key.strip() for key in environment.get(API_KEYS, "").split(",") if key.strip())
        admin = environment.get(ADMIN_KEY, "").strip() or None
        erasure = environment.get(ERASURE_KEY) or None
        named = [*((API_KEYS, key) for key in api), (ADMIN_KEY, admin), (ERASURE_KEY, erasure)]
        for name, key in named:
            if key is None:
                continue
            if name != ERASURE_KEY and (not key.isascii() or not key.isprintable() or " " in key):
                raise ConfigError(
                    f"a key in {name} holds a blank or a letter beyond ASCII, which no header "
                    f"carries; choose another"
                )
            if len(key) < MIN_KEY_LENGTH:
                raise ConfigError(
                    f"a key in {name} has {len(key)} letters, which can be guessed; give at least "
                    f"{MIN_KEY_LENGTH}, such as by `openssl rand -hex 16`"
                )
        return cls(api, admin, erasure)


@dataclass(frozen=True)
class Settings:
    """All settings of `segue serve`.

    Attributes:
        run: A run, or a link to one; read again at every reload.
        host, port: Where to listen.
        database: An SQLAlchemy URL; None: SQLite, in a file next to the run.
        queue_size: What may wait for the model, in plain requests; see `costs`.
        deadline_s: From a request's head to its answer; after it, 408 where the body is not there,
            else 504.
        grace_s: What requests in flight get at the end.
        keep_alive_s: How long an idle connection stays open: longer than a load balancer's 60 s,
            which would else send a request into a connection that just closes.
        rate_limit: Requests per second and client; None: no limit.
        is_insecure: Whether to listen beyond this machine without keys.
        allowed_origins: Other sites whose pages may ask, such as `https://shop.example`.
        root_path: Below which a proxy offers the service, such as `/segue`; "": at its root.
        trusted_proxies: Addresses or networks whose `X-Forwarded-For` is believed.
        keys: See `Keys`.
    """

    run: Path
    host: str = "127.0.0.1"
    port: int = 8000
    database: str | None = None
    queue_size: int = 256
    deadline_s: float = 5.0
    grace_s: float = 10.0
    keep_alive_s: int = 75
    rate_limit: float | None = None
    is_insecure: bool = False
    allowed_origins: tuple[str, ...] = ()
    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ()
    keys: Keys = Keys()

    def __post_init__(self) -> None:
        """Refuse what would serve nobody, or everybody.

        Raises:
            ConfigError: A number out of range, an address beyond this machine without keys, or no
                origin, path or network where there should be one.
        """
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port {self.port} does not exist; give 0 (any) to 65535")
        for name in ("queue_size", "deadline_s", "grace_s", "keep_alive_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)} leaves nothing; give more than 0")
        if self.rate_limit is not None and not 0 < self.rate_limit < float("inf"):
            raise ConfigError(f"a rate limit of {self.rate_limit} lets nobody in; give more than 0")
        if not (self.keys.api or self.is_local or self.is_insecure):
            raise ConfigError(
                f"without keys, {self.host} would serve anyone who reaches it; set {API_KEYS}, "
                f"listen on 127.0.0.1, or say --insecure"
            )

        for origin in self.allowed_origins:
            _check_origin(origin)
        if self.root_path and not ROOT_PATH.fullmatch(self.root_path):
            raise ConfigError(
                f"the root path {self.root_path!r} is none; give one such as /segue, without a "
                f"slash at its end"
            )
        for proxy in self.trusted_proxies:
            _check_network(proxy)

    @property
    def is_local(self) -> bool:
        """Whether the host is this machine only."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def database_url(self) -> str:
        """Where the events are: as given, else `RUN.events.sqlite` beside the run."""
        if self.database is not None:
            return self.database
        run = Path(os.path.abspath(self.run))
        return f"sqlite:///{run.parent / (run.name + '.events.sqlite')}"


def _check_origin(origin: str) -> None:
    """Raises: ConfigError: Browsers send no such origin."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    is_usual = port == USUAL_PORTS.get(parts.scheme, 0)
    if origin != f"{parts.scheme}://{parts.netloc}" or not parts.hostname or is_usual:
        raise ConfigError(
            f"browsers send no origin {origin!r}; give one such as https://shop.example or "
            f"http://localhost:3000, without a path, a slash at its end or the usual port"
        )


def _check_network(network: str) -> None:
    """Raises: ConfigError: It is none."""
    try:
        ipaddress.ip_network(network)
    except ValueError as error:
        raise ConfigError(
            f"{network!r} is no address of a proxy ({error}); give one such as 10.0.0.7, or a "
            f"network such as 10.0.0.0/8"
        ) from None
