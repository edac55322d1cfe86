"""Keys, other sites, and how often one may ask."""

import socket

import pytest

from segue.errors import ConfigError
from segue.serving.guard import Guard
from segue.serving.problems import ProblemError
from segue.serving.server import config_of
from segue.serving.settings import Keys, Settings

KEYS = Keys(api=("first-key", "second-key"), admin="the-admin-key")


def status(check, *arguments) -> int:
    try:
        check(*arguments)
    except ProblemError as problem:
        return problem.status
    return 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 401),
        ({"x-api-key": "first-key"}, 200),
        ({"x-api-key": "second-key"}, 200),
        ({"authorization": "Bearer second-key"}, 200),
        ({"authorization": "bearer  the-admin-key"}, 200),
        ({"authorization": "Basic first-key"}, 401),
        ({"x-api-key": "first-ke"}, 401),
        ({"x-api-key": "née"}, 401),
        ({"x-api-key": "first-key,second-key"}, 401),
        ({"x-api-key": ""}, 401),
    ],
)
def test_one_of_the_keys_opens_the_interface(tmp_path, headers, expected):
    guard = Guard(Settings(tmp_path, host="0.0.0.0", keys=KEYS))
    assert status(guard.check_key, headers, "1.2.3.4") == expected


@pytest.mark.parametrize(
    ("keys", "shown", "expected"),
    [
        (Keys(), "", 200),
        (KEYS, "first-key", 403),
        (KEYS, "the-admin-key", 200),
        (Keys(api=("first-key",)), "first-key", 403),
        (Keys(admin="the-admin-key"), "", 403),
        (Keys(admin="the-admin-key"), "the-admin-key", 200),
    ],
)
def test_reload_and_erasure_need_the_admin_key_where_there_are_keys(
    tmp_path, keys, shown, expected
):
    guard = Guard(Settings(tmp_path, keys=keys))
    assert status(guard.check_admin, {"x-api-key": shown}, "1.2.3.4") == expected


@pytest.mark.parametrize(
    ("host", "options", "is_refused"),
    [
        ("127.0.0.1", {}, False),
        ("::1", {}, False),
        ("localhost", {}, False),
        ("0.0.0.0", {}, True),
        ("192.168.1.2", {"keys": Keys(admin="the-admin-key")}, True),
        ("example.org", {}, True),
        ("0.0.0.0", {"is_insecure": True}, False),
        ("0.0.0.0", {"keys": KEYS}, False),
    ],
)
def test_without_keys_only_this_machine_is_served(tmp_path, host, options, is_refused):
    if is_refused:
        with pytest.raises(ConfigError, match="without keys"):
            Settings(tmp_path, host=host, **options)
    else:
        Settings(tmp_path, host=host, **options)


def test_keys_come_from_the_environment_and_empty_ones_are_none():
    assert Keys.from_environment({}) == Keys()
    assert Keys.from_environment({"SEGUE_API_KEYS": " , ", "SEGUE_ADMIN_KEY": ""}) == Keys()
    first, second = "a" * 16, "b" * 16
    assert Keys.from_environment({"SEGUE_API_KEYS": f"{first}, {second}"}).api == (first, second)
    for bad in ("clé-clé-clé-clé-clé", "a b c d e f g h i j"):
        for name in ("SEGUE_API_KEYS", "SEGUE_ADMIN_KEY"):
            with pytest.raises(ConfigError, match=f"{name} .* no header carries"):
                Keys.from_environment({name: bad})


@pytest.mark.parametrize("name", ["SEGUE_API_KEYS", "SEGUE_ADMIN_KEY", "SEGUE_ERASURE_KEY"])
def test_a_key_that_can_be_guessed_is_refused(name):
    for short in ("s", "x" * 15):
        with pytest.raises(ConfigError, match=rf"{name} has {len(short)} letters.* at least 16"):
            Keys.from_environment({name: short})
    assert Keys.from_environment({name: "x" * 16}) != Keys()


def test_a_page_of_another_site_reaches_nothing_on_a_machine_without_keys(client):
    port = client.base_url.port
    for headers in ({"Host": "evil.example"}, {"Host": f"evil.example:{port}"}):
        assert client.get("/v1/model", headers=headers).status_code == 403
    assert client.get("/v1/model", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    for name in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", "[::1]", f"[::1]:{port}"):
        assert client.get("/v1/model", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    ("host", "name", "expected"),
    [
        ("127.0.0.1", "LOCALHOST:8000", 200),
        ("127.0.0.1", "localhost.", 200),
        ("127.0.0.2", "127.0.0.2:8000", 200),
        ("127.0.0.1", "127.0.0.2:8000", 403),
        ("::1", "[::1]:8000", 200),
        ("localhost", "localhost.evil.example", 403),
        ("127.0.0.1", "", 403),
        ("127.0.0.1", "[evil", 403),
        ("127.0.0.1", ":8000", 403),
    ],
)
def test_this_machine_is_known_by_its_names_and_the_address_listened_on(
    tmp_path, host, name, expected
):
    guard = Guard(Settings(tmp_path, host=host))
    assert status(guard.check_origin, "GET", {"host": name}) == expected


OWN, EVIL = "http://localhost:8000", "http://evil.example"


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("POST", {}, 200),
        ("POST", {"origin": OWN}, 200),
        ("POST", {"origin": OWN.upper()}, 200),
        ("POST", {"origin": EVIL}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"origin": ""}, 403),
        ("POST", {"origin": "http://localhost:8001"}, 403),
        ("DELETE", {"origin": EVIL}, 403),
        ("PUT", {"origin": EVIL}, 403),
        ("GET", {"origin": EVIL}, 200),
        ("HEAD", {"origin": EVIL}, 200),
        ("POST", {"sec-fetch-site": "same-site"}, 403),
        ("POST", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", {"sec-fetch-site": "same-origin", "origin": OWN}, 200),
        ("POST", {"sec-fetch-site": "none"}, 200),
        ("GET", {"sec-fetch-site": "same-site"}, 200),
        ("GET", {"sec-fetch-site": "cross-site"}, 403),
    ],
)
@pytest.mark.parametrize("options", [{}, {"host": "0.0.0.0", "is_insecure": True}])
def test_without_keys_pages_of_other_sites_change_nothing(
    tmp_path, method, headers, expected, options
):
    guard = Guard(Settings(tmp_path, **options))
    assert status(guard.check_origin, method, {"host": "localhost:8000", **headers}) == expected


def test_with_keys_whoever_shows_one_may_ask_from_anywhere(tmp_path):
    guard = Guard(Settings(tmp_path, keys=KEYS))
    headers = {"host": "anything", "origin": EVIL, "sec-fetch-site": "cross-site"}
    assert status(guard.check_origin, "POST", headers) == 200


def test_over_http_a_foreign_page_cannot_reload(client):
    for foreign in ({"Origin": EVIL}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
        assert client.post("/v1/admin/reload", headers=foreign).status_code == 403


def test_a_link_from_another_site_may_be_followed_and_nothing_else(client):
    link = {
        "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"
    }  # fmt: skip
    assert client.get("/", headers=link).status_code == 200
    assert client.post("/v1/recommendations", headers=link, json={}).status_code == 403
    for name, value in (("Sec-Fetch-Dest", "iframe"), ("Sec-Fetch-Mode", "no-cors")):
        assert client.get("/", headers={**link, name: value}).status_code == 403
    assert client.get("/", headers={**link, "Host": "evil.example"}).status_code == 403


def test_an_idle_connection_outlives_a_load_balancers(service):
    assert config_of(service).timeout_keep_alive > 60


def test_no_rate_is_limited_unless_told(tmp_path):
    guard = Guard(Settings(tmp_path))
    assert {status(guard.check_rate, "1.2.3.4") for _ in range(1000)} == {200}


def test_a_rate_is_limited_for_each_client(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("segue.serving.guard.time.monotonic", lambda: now)
    guard = Guard(Settings(tmp_path, rate_limit=5))
    got = [status(guard.check_rate, "1.2.3.4") for _ in range(11)]
    assert got == [200] * 10 + [429]  # two seconds' worth at once
    assert status(guard.check_rate, "5.6.7.8") == 200
    now = 0.2  # one more has been earned
    assert [status(guard.check_rate, "1.2.3.4") for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("addresses", "is_one"),
    [
        (("1.2.3.4", "1.2.3.5"), False),
        (("1.2.3.4", "::ffff:1.2.3.4"), True),
        (("2001:db8::1", "2001:db8::ffff:1"), True),
        (("2001:db8::1", "2001:db8:0:1::1"), False),
        (("unknown", "x" * 10_000), True),
    ],
)
def test_clients_without_a_key_are_told_apart_by_their_networks(tmp_path, addresses, is_one):
    guard = Guard(Settings(tmp_path))
    first, second = (guard.check_key({}, each) for each in addresses)
    assert (first == second) is is_one
    assert len(second) < 50


def test_a_key_is_a_client_wherever_it_comes_from_and_is_not_kept(tmp_path):
    guard = Guard(Settings(tmp_path, keys=KEYS))
    callers = [
        guard.check_key({"x-api-key": key}, address)
        for key in ("first-key", "second-key", "the-admin-key")
        for address in ("1.2.3.4", "5.6.7.8")
    ]
    assert len(set(callers)) == 3
    assert not any("first-key" in each for each in callers)


@pytest.mark.parametrize("check", ["check_key", "check_admin"])
def test_wrong_keys_are_limited_by_address_and_never_remembered(tmp_path, monkeypatch, check):
    now = 0.0
    monkeypatch.setattr("segue.serving.guard.time.monotonic", lambda: now)
    guard = Guard(Settings(tmp_path, keys=KEYS))
    tried = [
        status(getattr(guard, check), {"x-api-key": f"{'x' * 1_000}{each}"}, "1.2.3.4")
        for each in range(100)
    ]
    refused = 401 if check == "check_key" else 403
    assert tried == [refused] * 10 + [429] * 90
    assert list(guard._wrong_keys._buckets) == ["1.2.3.4"]
    admin = {"x-api-key": "the-admin-key"}
    assert status(getattr(guard, check), admin, "1.2.3.4") == 200  # the right one is let in
    assert status(getattr(guard, check), {}, "5.6.7.8") == refused


def test_over_http_keys_guard_the_interface_and_metrics_but_not_the_probes(start):
    with start(keys=KEYS) as client:
        for path in ("/v1/model", "/metrics", "/v1/items/1"):
            refused = client.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert client.get(path, headers={"X-API-Key": "first-key"}).status_code == 200
        for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        user = {"X-API-Key": "first-key"}
        admin = {"Authorization": "Bearer the-admin-key"}
        assert client.delete("/v1/users/5/history", headers=user).status_code == 403
        assert client.delete("/v1/users/5/history", headers=admin).status_code == 200
        assert client.post("/v1/admin/reload", headers=user).status_code == 403


def test_neither_keys_nor_histories_are_logged(start, caplog):
    caplog.set_level("DEBUG", logger="segue.serving")
    with start(keys=KEYS) as client:
        headers = {"X-API-Key": "first-key"}
        body = {
            "history": ["secret-item"],
            "filter": {"all": [{"field": "x", "op": "eq", "value": 1}]},
        }
        client.post("/v1/recommendations", json=body, headers=headers)
        client.get("/v1/users/secret-user/history", headers=headers)
        client.get("/v1/items", params={"query": "secret"}, headers=headers)
        client.get("/v1/model", headers={"X-API-Key": "secret-wrong"})
    lines = [record.getMessage() for record in caplog.records if record.name == "segue.serving"]
    assert len(lines) == 4
    assert "POST /v1/recommendations 422" in lines[0]
    assert not any(word in line for line in lines for word in ("secret", "first-key"))


def test_a_body_that_does_not_come_is_given_up(start):
    with start(deadline_s=0.1) as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address, timeout=10) as slow:
            head = "POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
            slow.sendall(f"{head}\r\n{{".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert client.get("/healthz").status_code == 200


def test_a_body_of_chunks_is_cut_at_the_limit(client):
    answer = client.post("/v1/recommendations", content=(b" " * 2**16 for _ in range(20)))
    assert answer.status_code == 413
