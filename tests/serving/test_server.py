"""The server's address, and how it ends."""

import socket
import sys

import pytest

from segue.errors import ConfigError
from segue.serving import server
from segue.serving.server import bound, config_of
from segue.serving.settings import Settings


def can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_an_address_is_taken_before_anybody_is_let_in():
    with bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert not can_connect("127.0.0.1", port)
        taken.listen()
        assert can_connect("127.0.0.1", port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize(("host", "has_ipv4"), [("::", True), ("::1", False)])
def test_the_address_of_all_of_ipv6_is_that_of_ipv4_too(host, has_ipv4):
    with bound(host, 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert can_connect("::1", port)
        assert can_connect("127.0.0.1", port) is has_ipv4


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such option")
def test_a_client_that_reads_nothing_of_its_answer_is_left(monkeypatch):
    monkeypatch.setattr(server, "UNREAD_TIMEOUT_MS", 200)
    with bound("127.0.0.1", 0) as listener, socket.socket() as client:
        listener.listen()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted, pytest.raises(OSError, match="timed out"):
            accepted.sendall(b" " * 2**27)


def test_an_address_that_cannot_be_had_is_refused_with_the_reason():
    with bound("127.0.0.1", 0) as other:
        other.listen()
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1, port .*--port"):
            bound("127.0.0.1", other.getsockname()[1])
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        bound("192.0.2.1", 0)
    with pytest.raises(ConfigError, match=r"cannot listen on nowhere\.invalid"):
        bound("nowhere.invalid", 0)


def test_a_part_of_a_second_is_given_to_what_is_in_flight(service, monkeypatch):
    monkeypatch.setattr(service, "settings", Settings(service.settings.run, grace_s=0.9))
    assert config_of(service, log_config=None).timeout_graceful_shutdown == 0.9
