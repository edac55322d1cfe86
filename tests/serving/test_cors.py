"""Pages of other sites that may ask."""

import pytest

from segue.errors import ConfigError
from segue.serving.settings import Keys, Settings

SHOP, OTHER = "https://shop.example", "https://other.example"
KEYS = Keys(api=("first-key",), admin="the-admin-key")
RECOMMEND = "/v1/recommendations"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
PAGE = {"Origin": SHOP, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}


@pytest.fixture(params=[KEYS, Keys()], ids=["with keys", "without"])
def shop(request, start):
    """A client of a service whose answers the shop's pages may read."""
    with start(keys=request.param, allowed_origins=(SHOP,)) as client:
        yield client


def test_a_browser_is_told_what_a_page_may_ask_before_it_shows_a_key(shop):
    answer = shop.options(RECOMMEND, headers={"Origin": SHOP, **ASKED})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "X-API-Key" in answer.headers["access-control-allow-headers"]
    assert "Content-Type" in answer.headers["access-control-allow-headers"]
    assert answer.headers["vary"] == "Origin"


def test_a_page_of_the_shop_reads_answers_and_refusals(shop):
    key = {"X-API-Key": "first-key"}
    for given in ({"history": [1]}, {}):
        answer = shop.post(RECOMMEND, json=given, headers={**PAGE, **key})
        assert answer.status_code == (200 if given else 422)
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    model = shop.get("/v1/model", headers={**PAGE, **key})
    assert (model.status_code, model.headers["access-control-allow-origin"]) == (200, SHOP)


def test_a_key_is_still_wanted(start):
    with start(keys=KEYS, allowed_origins=(SHOP,)) as client:
        refused = client.post(RECOMMEND, json={"history": [1]}, headers=PAGE)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == SHOP


@pytest.mark.parametrize(
    "origin", [OTHER, "null", f"{SHOP}:8443", "http://shop.example", f"{SHOP}/"]
)
def test_other_origins_may_not_ask(shop, origin):
    for answer in (
        shop.options(RECOMMEND, headers={"Origin": origin, **ASKED}),
        shop.get("/healthz", headers={"Origin": origin}),
        shop.post(RECOMMEND, json={"history": [1]}, headers={"Origin": origin}),
    ):
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"
    assert shop.options(RECOMMEND, headers={"Origin": origin, **ASKED}).status_code == 403


def test_where_no_origin_is_allowed_nothing_is_said_of_any(client):
    answer = client.get("/healthz", headers={"Origin": SHOP})
    assert not {"vary", "access-control-allow-origin"} & answer.headers.keys()
    assert client.options(RECOMMEND, headers={"Origin": SHOP, **ASKED}).status_code == 403
    assert client.options(RECOMMEND).status_code == 405


@pytest.mark.parametrize("origin", [SHOP, "http://localhost:3000", "http://[::1]:3000", "app://x"])
def test_an_origin_is_taken_as_browsers_send_it(tmp_path, origin):
    assert Settings(tmp_path, allowed_origins=(origin,)).allowed_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    ["*", "", "null", "shop.example", f"{SHOP}/", f"{SHOP}/page", f"{SHOP}?x", f"{SHOP}:443",
     "http://shop.example:80", "https://", "https://[::1", "https://shop.example:x"],
)  # fmt: skip
def test_what_no_browser_sends_is_refused(tmp_path, origin):
    with pytest.raises(ConfigError, match="give one such as"):
        Settings(tmp_path, allowed_origins=(origin,))
