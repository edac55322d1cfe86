"""Behind a proxy: below a path of its own, and with the addresses of those who ask."""

import re
import socket
from urllib.parse import urljoin

import httpx
import pytest

from segue.errors import ConfigError
from segue.serving.settings import Keys, Settings

KEYS = Keys(api=("first-key",), admin="the-admin-key")
KEY = {"X-API-Key": "first-key"}


@pytest.mark.parametrize("left_by_proxy", ["/shop/segue", ""])
def test_below_a_path_all_is_found_whether_the_proxy_takes_the_path_away_or_not(
    start, left_by_proxy
):
    with start(root_path="/shop/segue", keys=KEYS) as client:

        def get(path: str, **options: object) -> httpx.Response:
            return client.get(left_by_proxy + path, **options)

        for path in ("/", "/docs"):
            text = get(path).text
            seen = urljoin("https://example.org/shop/segue/", path.removeprefix("/"))
            for each in re.findall(r'(?:src|href)="([^"#]+)"', text):
                there = urljoin(seen, each)
                assert there.startswith("https://example.org/shop/segue/"), each
                assert get(there.removeprefix("https://example.org/shop/segue")).status_code == 200
        assert get("/v1/model").status_code == get("/metrics").status_code == 401
        assert get("/v1/model", headers=KEY).status_code == 200
        assert get("/v1/items/7", headers=KEY).json()["item_id"] == 7
        assert get("/nowhere").status_code == 404
        asked = {"json": {"history": [1]}, "headers": KEY}
        assert client.post(f"{left_by_proxy}/v1/recommendations", **asked).status_code == 200
        servers = get("/openapi.json").json()["servers"]
        assert servers == [{"url": "/shop/segue"}]
        counted = get("/metrics", headers=KEY).text
        assert 'operation="POST /v1/recommendations"' in counted


def test_the_path_itself_leads_to_the_page(start):
    with start(root_path="/shop/segue") as client:
        redirect = client.get("/shop/segue")
        assert redirect.status_code == 307
        assert urljoin("https://example.org/shop/segue", redirect.headers["location"]) == (
            "https://example.org/shop/segue/"
        )
        assert client.get("/shop/segue2").status_code == 404


def test_the_page_asks_below_its_own_path(client):
    script = client.get("/static/page.js").text
    assert "v1/recommendations" in script
    assert not re.search(r"[\"'`]/(v1|docs|static)", script)


@pytest.mark.parametrize("path", ["segue", "/segue/", "/", "//", "/a b", "/a?b", "/a//b", "/é"])
def test_a_path_that_is_none_is_refused(tmp_path, path):
    with pytest.raises(ConfigError, match="give one such as /segue"):
        Settings(tmp_path, root_path=path)


def asked_from(client: httpx.Client, forwarded: str | None) -> int:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    return client.get("/v1/items/1", headers=headers).status_code


def test_a_client_is_who_the_trusted_proxy_says(start):
    with start(rate_limit=0.001, trusted_proxies=("127.0.0.0/8",)) as client:
        assert [asked_from(client, "1.2.3.4") for _ in range(2)] == [200, 429]
        assert [asked_from(client, "5.6.7.8, 127.0.0.9") for _ in range(2)] == [200, 429]
        # The proxy adds its word at the end, after what the client claims.
        assert asked_from(client, "9.9.9.9, 1.2.3.4") == 429
        assert [asked_from(client, "nonsense") for _ in range(2)] == [200, 429]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_an_ipv4_address_is_itself_on_a_socket_of_both_families(start):
    options = {"host": "::", "is_insecure": True, "trusted_proxies": ("127.0.0.1",)}
    with start(rate_limit=0.001, **options) as client:
        assert [asked_from(client, f"1.2.3.{each}") for each in range(3)] == [200] * 3


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8", "192.0.2.7")])
def test_nobody_else_is_believed(start, trusted, monkeypatch):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    with start(rate_limit=0.001, trusted_proxies=trusted) as client:
        assert [asked_from(client, f"1.2.3.{each}") for each in range(3)] == [200, 429, 429]


@pytest.mark.parametrize("proxy", ["*", "", "proxy.example", "10.0.0.1/8", "300.1.1.1"])
def test_a_proxy_that_is_no_address_is_refused(tmp_path, proxy):
    with pytest.raises(ConfigError, match=r"give one such as 10\.0\.0\.7, or a network"):
        Settings(tmp_path, trusted_proxies=(proxy,))
