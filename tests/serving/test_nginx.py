"""The page and the API behind nginx, below a path, over TLS, in a browser."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
PREFIX = "/shop/recs"
CONFIGURATION = """
daemon off;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {place}/certificate.pem;
        ssl_certificate_key {place}/key.pem;
        location {prefix}/ {{
            proxy_pass {upstream};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


@contextmanager
def nginx(place: Path, upstream: str) -> Iterator[str]:
    """The address, with the prefix, of an nginx before a service.

    Args:
        place: A directory for its files.
        upstream: As `proxy_pass` takes it: with a path it takes the prefix away, else it leaves it.
    """
    if NGINX is None:
        pytest.skip("no nginx is installed (Debian: nginx-light)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    files = ("-keyout", place / "key.pem", "-out", place / "certificate.pem")
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"],
            *files,
            "-subj",
            "/CN=localhost",
        ],
        check=True,
        capture_output=True,
    )
    configuration = place / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(place=place, port=port, prefix=PREFIX, upstream=upstream)
    )
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    process = subprocess.Popen([NGINX, "-p", place, "-c", configuration, *user])
    address = f"https://localhost:{port}{PREFIX}"
    try:
        while True:
            assert process.poll() is None, (place / "error.log").read_text()
            try:
                httpx.get(f"{address}/healthz", verify=False)
            except httpx.TransportError:
                time.sleep(0.02)
            else:
                break
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("takes_prefix_away", [True, False])
def test_the_page_works_below_a_path_over_tls(
    start, browser: Browser, tmp_path: Path, takes_prefix_away: bool
) -> None:
    options = {"root_path": PREFIX, "trusted_proxies": ("127.0.0.1",)}
    with start(**options) as client:
        upstream = str(client.base_url).rstrip("/") + ("/" if takes_prefix_away else "")
        with nginx(tmp_path, upstream) as address:
            context = browser.new_context(ignore_https_errors=True)
            page = context.new_page()
            complaints: list[str] = []
            asked: list[str] = []
            page.on(
                "console", lambda each: complaints.append(each.text) if each.type == "error" else 0
            )
            page.on("pageerror", lambda each: complaints.append(str(each)))
            page.on("request", lambda each: asked.append(each.url))
            page.goto(f"{address}/")
            results = page.locator("#results > li")
            expect(results).to_have_count(10)
            page.get_by_label("Search titles").fill("cafe 3")
            with page.expect_response("**/v1/recommendations"):
                page.locator("#found").get_by_role("button", name="Café Number 3 (1973)").click()
            with page.expect_response("**/v1/explanations"):
                results.first.get_by_role("button", name="Why").click()
            link = page.get_by_label("Link to this history").input_value()
            assert link.startswith(f"{address}/")
            command = page.get_by_label("The same answer on the command line").input_value()
            assert f"{address}/v1/recommendations" in command
            page.goto(f"{address}/docs")
            expect(page.get_by_role("heading", name="The HTTP interface")).to_be_visible()
            expect(page.get_by_text("/v1/recommendations").first).to_be_visible()
            assert [each for each in asked if not each.startswith(f"{address}/")] == []
            assert complaints == []
            context.close()
