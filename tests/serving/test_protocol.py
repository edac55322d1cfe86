"""Connections, spoken to byte by byte."""

import re
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from segue.serving.protocol import BoundedProtocol, ConnectionLimits, most_connections

Connect = Callable[[], socket.socket]
HOST = b"Host: localhost\r\n"
LAST = HOST + b"Connection: close\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
BODY = b'{"history":[1]}'
POST = b"POST /v1/recommendations HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


@pytest.fixture
def connect(client) -> Connect:
    """Opens a connection to the service."""
    return lambda: socket.create_connection((client.base_url.host, client.base_url.port), 30)


@pytest.fixture
def limited(monkeypatch) -> Callable[..., None]:
    """Sets limits of the test's own."""

    def limit(**limits: float) -> None:
        monkeypatch.setattr(BoundedProtocol, "limits", replace(ConnectionLimits(), **limits))

    return limit


def received(connection: socket.socket) -> Iterator[bytes]:
    """What comes until the other side ends."""
    try:
        while data := connection.recv(65_536):
            yield data
    except ConnectionResetError:  # it ended with bytes of ours unread
        return


def statuses(connection: socket.socket) -> list[int]:
    """Of all answers until the other side ends."""
    heads = re.findall(rb"HTTP/1\.1 (\d+) ", b"".join(received(connection)))
    return [int(status) for status in heads]


def send_until_refused(connection: socket.socket, piece: bytes, most: int) -> bool:
    """Send a piece again and again; whether the other side ended before it had it all."""
    try:
        for _ in range(most // len(piece)):
            connection.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


ENDLESS = [
    (b"GET /healthz HTTP/1.1\r\n", b"a: b\r\n" * 10_000),
    (b"GET /healthz HTTP/1.1\r\n" + HOST + b"x: ", b"y" * 60_000),
    (b"GET /healthz HTTP/1.1\r\n" + HOST, b"y" * 60_000),
    (b"GET /", b"y" * 60_000),
    (b"POST /v1/recommendations HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
     b"1\r\n \r\n" * 10_000),
    (b"POST /v1/recommendations HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
     b"a: b\r\n" * 10_000),
    (b"", b"\r\n" * 30_000),
    (b"", HEALTH),
]  # fmt: skip


@pytest.mark.parametrize(("start", "more"), ENDLESS)
def test_what_has_no_end_is_not_read_to_its_end(connect, start, more):
    with closing(connect()) as connection:
        connection.sendall(start)
        assert send_until_refused(connection, more, 2**27)


HEADS = [
    (b"GET /healthz HTTP/1.1\r\n" + LAST + b"x: y\r\n" * 98 + b"\r\n", 200),
    (b"GET /healthz HTTP/1.1\r\n" + HOST + b"x: y\r\n" * 100 + b"\r\n", 431),
    (b"GET /healthz HTTP/1.1\r\n" + LAST + b"x: " + b"y" * 15_000 + b"\r\n\r\n", 200),
    (b"GET /healthz HTTP/1.1\r\n" + HOST + b"x: " + b"y" * 17_000 + b"\r\n\r\n", 431),
    (b"GET /healthz?" + b"y" * 15_000 + b" HTTP/1.1\r\n" + LAST + b"\r\n", 200),
    (b"GET /healthz?" + b"y" * 17_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
    (b"nonsense\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: +15\r\n\r\n", 400),
    (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (POST + b"Content-Length: 15\r\nContent-Length: 16\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\n" + HOST + b" folded\r\n\r\n", 400),
    (POST + b"Content-Length: 15\r\nConnection: close\r\n\r\n" + BODY, 200),
    (b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    (b"GET /healthz HTTP/1.1\r\n" + LAST + HOST + b"\r\n", 400),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    (POST + b"Transfer-Encoding: Chunked\r\nConnection: close\r\n\r\n0\r\n\r\n", 400),
    (POST + b"Content-Encoding: gzip\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 415),
    (
        POST
        + b"Content-Encoding: identity\r\nContent-Length: 15\r\nConnection: close\r\n\r\n"
        + BODY,
        200,
    ),
]


JSON = POST + b"Connection: close\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"
HEALTH_LAST = b"GET /healthz HTTP/1.1\r\n" + LAST
HEADS += [
    (b"GET http://localhost/healthz HTTP/1.1\r\n" + LAST + b"\r\n", 200),
    (b"CONNECT localhost:80 HTTP/1.1\r\n" + LAST + b"\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (b"OPTIONS * HTTP/1.1\r\n" + LAST + b"\r\n", 404),
    (b"get /healthz HTTP/1.1\r\n" + LAST + b"\r\n", 400),
    (b"GET /healthz HTTP/9.9\r\n" + LAST + b"\r\n", 400),
    (b"GET /healthz HTTP/1.1 x\r\n" + LAST + b"\r\n", 400),
    (b"GET /healthz HTTP/1.1\nHost: localhost\n\n", 400),
    (b"GET /healthz HTTP/1.1\rHost: localhost\r\r", 400),
    (HEALTH_LAST + b"x: a\0b\r\n\r\n", 400),
    (HEALTH_LAST + b": x\r\n\r\n", 400),
    (HEALTH_LAST + b"x\r\n\r\n", 400),
    (HEALTH_LAST + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 200),
    (b"GET /\xff\xfe HTTP/1.1\r\n" + LAST + b"\r\n", 400),
    (b"GET /v1/../healthz HTTP/1.1\r\n" + LAST + b"\r\n", 404),
    (b"GET //v1/model HTTP/1.1\r\n" + LAST + b"\r\n", 404),
    (b"GET /static/%2e%2e/%2e%2e/app.py HTTP/1.1\r\n" + LAST + b"\r\n", 404),
    (b"GET /v1/model HTTP/1.1\r\nHost: localhost@evil\r\nConnection: close\r\n\r\n", 403),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # a TLS client
    (JSON + b"Content-Length: 0x0f\r\n\r\n" + BODY, 400),
    (JSON + b"Content-Length: 15, 15\r\n\r\n" + BODY, 400),
    (JSON + b"Content-Length : 15\r\n\r\n" + BODY, 400),
    (JSON + b"Content-Length: -1\r\n\r\n" + BODY, 400),
    (JSON + b"Content-Length: 99999999999999999999\r\n\r\n" + BODY, 400),
    (JSON + b"Content-Length: 2000000\r\n\r\n" + BODY, 413),
    (JSON + b"Transfer-Encoding: identity\r\n\r\n" + BODY, 400),
    (JSON + b"Transfer-Encoding: xchunked\r\n\r\nf\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    (JSON + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    (CHUNKED + b"f;x=y\r\n" + BODY + b"\r\n0\r\n\r\n", 200),
    (CHUNKED + b"F\r\n" + BODY + b"\r\n0\r\nx: y\r\n\r\n", 200),
    (CHUNKED + b"fffffffffffffffff\r\n" + BODY, 400),
    (CHUNKED + b"-1\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    (CHUNKED + b"f\r\n" + BODY + b"x\r\n0\r\n\r\n", 400),
]


@pytest.mark.parametrize("cut", [0, 1, 40, 130])
@pytest.mark.parametrize(("sent", "status"), HEADS)
def test_a_head_is_answered_or_refused_however_it_is_cut(connect, sent, status, cut):
    with closing(connect()) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in (sent[:cut], sent[cut:]):
                connection.sendall(piece)
        except OSError:
            assert status != 200
        answers = statuses(connection)
        # What a refused client still sends may cost it the answer.
        assert answers == [status] or (cut and status != 200 and not answers)


def test_a_refusal_says_why_and_ends_the_connection(connect):
    with closing(connect()) as connection:
        connection.sendall(b"GET /" + b"y" * 17_000 + b" HTTP/1.1\r\n\r\n")
        head, _, body = b"".join(received(connection)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\ncontent-type: application/problem+json" in head
    assert b"\r\nx-content-type-options: nosniff" in head
    assert f"content-length: {len(body)}".encode() in head
    assert b'"status": 431' in body


UNFINISHED = {
    "nothing": (b"", []),
    "blank lines": (b"\r\n", [408]),
    "half a head": (b"GET /healthz HTT", [408]),
    "half of the next head": (HEALTH + b"GET /", [200]),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_connection_that_sends_no_request_is_ended(connect, limited, name):
    sent, expected = UNFINISHED[name]
    limited(head_timeout_s=0.2)
    with closing(connect()) as connection:
        connection.sendall(sent)
        assert statuses(connection)[: len(expected)] == expected


def test_a_body_that_is_refused_and_does_not_end_ends_the_connection(connect, limited):
    limited(head_timeout_s=0.2)
    with closing(connect()) as connection:
        evil = b"POST /nowhere HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 9\r\n\r\n"
        connection.sendall(evil)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 403 ")
        connection.sendall(b"{")
        assert statuses(connection) == []


def test_a_body_that_is_refused_is_taken_and_the_connection_goes_on(connect):
    with closing(connect()) as connection:
        evil = b"POST /nowhere HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 9\r\n\r\n"
        connection.sendall(evil)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 403 ")
        connection.sendall(b"123456789")
        connection.sendall(b"GET /healthz HTTP/1.1\r\n" + LAST + b"\r\n")
        assert statuses(connection) == [200]


def test_a_head_that_trickles_is_given_up(connect, limited):
    limited(head_timeout_s=0.2)
    with closing(connect()) as connection:
        connection.settimeout(0.01)
        answer = b""
        for letter in HEALTH * 1_000:
            connection.send(bytes([letter]))
            try:
                answer = connection.recv(1_000)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_the_deadline_runs_from_the_first_byte(start):
    with start(deadline_s=0.3) as client:
        address = (client.base_url.host, client.base_url.port)
        with closing(socket.create_connection(address, 30)) as connection:
            connection.sendall(POST[:20])
            connection.settimeout(0.4)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(30)
            # All the rest at once, and too late.
            connection.sendall(POST[20:] + b"Content-Length: 15\r\n\r\n" + BODY)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 504 ")
        assert client.get("/healthz").status_code == 200


def test_requests_sent_without_waiting_are_answered_in_order(connect):
    with closing(connect()) as connection:
        last = b"GET /nowhere HTTP/1.1\r\n" + LAST + b"\r\n"
        connection.sendall(HEALTH * 5 + last)
        assert statuses(connection) == [200] * 5 + [404]


def test_a_connection_takes_the_place_of_an_idle_one(connect, limited):
    limited(connections=5)
    held = [connect() for _ in range(12)]  # that send nothing
    try:
        with closing(connect()) as newcomer:
            newcomer.sendall(HEALTH)
            assert newcomer.recv(65_536).startswith(b"HTTP/1.1 200 ")
            for each in held:  # and those that came after it
                each.close()
            held = [connect() for _ in range(12)]
            for each in held[-2:]:
                each.sendall(HEALTH)
                assert each.recv(65_536).startswith(b"HTTP/1.1 200 ")
            for each in held[:7]:  # the oldest
                assert statuses(each) == []
    finally:
        for each in held:
            each.close()


def test_where_all_connections_are_busy_one_more_is_refused(connect, limited):
    limited(connections=3)
    busy: list[socket.socket] = []
    try:
        for _ in range(3):
            busy.append(each := connect())
            each.sendall(POST + b"Content-Length: 15\r\nExpect: 100-continue\r\n\r\n")
            assert each.recv(65_536).startswith(b"HTTP/1.1 100 ")  # it waits for the body
        with closing(connect()) as newcomer:
            answer = b"".join(received(newcomer))
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in answer
        for each in busy:
            each.sendall(BODY)
            assert each.recv(65_536).startswith(b"HTTP/1.1 200 ")
    finally:
        for each in busy:
            each.close()


@pytest.mark.parametrize(
    ("allowed", "most"), [(10**6, 1_024), (512, 384), (64, 1), (resource.RLIM_INFINITY, 1_024)]
)
def test_connections_leave_descriptors_for_all_else(monkeypatch, allowed, most):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (allowed, allowed))
    assert most_connections() == most
