"""The server: a service listening, until it is stopped."""

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from threadpoolctl import threadpool_limits

from segue.errors import ConfigError, SegueError
from segue.machine import usable_cores
from segue.serving.app import create_app
from segue.serving.protocol import BoundedProtocol
from segue.serving.service import Service
from segue.serving.settings import Settings

BACKLOG = 2_048
# How long a client may take nothing of its answer. Else one that stopped reading, or whose machine
# vanished, would keep its connection for ever.
UNREAD_TIMEOUT_MS = 60_000
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {
        "segue.serving": {"handlers": ["stderr"], "level": "INFO"},
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING"},
    },
}


def serve(settings: Settings, on_listening: Callable[[str], None]) -> None:
    """Load the run, then serve it until SIGTERM or SIGINT; answer what is in flight and return.

    The address is taken before anything is loaded, and nobody is let in until all of it is.

    Args:
        settings: What to serve.
        on_listening: Told the address once requests are accepted.

    Raises:
        ConfigError: The address is taken or not this machine's.
        RunError, StoreError: See `Service`.
        DiedError: A thread of the service died, by a defect; the log has its cause.
    """
    with bound(settings.host, settings.port) as listener:
        service = Service(settings)
        server = Server(config_of(service), service)
        # What is loaded stays: to look through it for garbage took 0.3 s, in which nobody was
        # answered.
        gc.collect()
        gc.freeze()
        # Idle threads of the matrix products spin, which takes the cores from all else: on two
        # cores, a search for 32 questions took 30 ms instead of 1 while others worked.
        threadpool_limits(max(1, usable_cores() // 2), user_api="blas")
        listener.listen(BACKLOG)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        on_listening(f"http://{host}:{listener.getsockname()[1]}/")
        server.run(sockets=[listener])
    if server.has_died:
        raise DiedError("a thread of the service died; the log has the cause: start it again")


def bound(host: str, port: int) -> socket.socket:
    """A socket that has an address but does not listen yet; `::` is that of IPv4, too.

    Raises:
        ConfigError: The address is taken or not this machine's.
    """
    is_v6 = ":" in host
    taken = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
    try:
        if os.name == "posix":  # an address that was left a moment ago is free
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":  # accepted connections have what their listener has
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT_MS)
        if is_v6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; give another --host "
            f"or --port"
        ) from None
    return taken


def config_of(service: Service, log_config: dict[str, Any] | None = LOGGING) -> uvicorn.Config:
    """How uvicorn serves it."""
    return uvicorn.Config(
        create_app(service),
        http=BoundedProtocol,
        ws="none",
        access_log=False,
        log_config=log_config,
        proxy_headers=bool(service.settings.trusted_proxies),
        forwarded_allow_ips=list(service.settings.trusted_proxies),
        server_header=False,
        # Annotated as whole seconds, waited for as any number of them.
        timeout_graceful_shutdown=service.settings.grace_s,  # type: ignore[arg-type]
        timeout_keep_alive=service.settings.keep_alive_s,
    )


class DiedError(SegueError):
    """The service cannot answer any more."""


class Server(uvicorn.Server):
    """Says that it is not ready as soon as it is stopped, and ends without a signal's code.

    Attributes:
        has_died: Whether it ends because a thread of the service died.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self.has_died = False

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end; a service that cannot answer any more does."""
        if not self._service.is_alive:
            self.has_died = self.should_exit = True
            self._service.is_ready = False
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.is_ready = False
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
