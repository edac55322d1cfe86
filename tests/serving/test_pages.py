"""The pages, as the server writes them; a browser's view of them is in test_browser.py."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from segue.recommender import Recommender
from segue.serving import pages
from segue.serving.settings import Keys


def test_the_page_tells_the_model_its_quality_and_the_filters(client, served):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    text = page.text
    report = served.run.report
    for value in (report["metrics"]["hr@10"], report["baselines"]["item_knn"]["ndcg@10"]):
        assert f"<td>{value:.4f}</td>" in text
    assert re.findall(r"<option>(.*?)</option>", text) == ["Children&#39;s", "Comedy", "Drama"]
    assert 'min="1971" max="2000"' in text
    assert client.get("/v1/model").json()["model_version"] in text


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere_and_no_inline_script(client, path):
    text = client.get(path).text
    loaded = re.findall(r'<(?:script|link|img)[^>]*?(?:src|href)="([^"]+)"', text)
    assert loaded
    for each in loaded:
        assert each.startswith("static/")  # relative, for wherever a proxy offers the page
        assert client.get(f"/{each}").status_code == 200
    assert not re.search(r"<script(?![^>]*src=)|<style| style=| on\w+=", text)


def test_the_docs_tell_every_operation(client):
    text = client.get("/docs").text
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            assert f'<span class="method">{method.upper()}</span> <code>{path}</code>' in text


def test_the_page_is_written_once_for_each_model(start, monkeypatch):
    written: list[str] = []
    shown = pages._shown

    def watched(model):
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()  # not by the thread that answers everybody
        written.append(model.version)
        return shown(model)

    monkeypatch.setattr(pages, "_shown", watched)
    with start() as client, ThreadPoolExecutor() as pool:
        server = client.get("/healthz")
        texts = set(pool.map(lambda _: httpx.get(server.url.join("/")).text, range(16)))
        assert (len(texts), len(written)) == (1, 1)
        assert client.post("/v1/admin/reload", timeout=60).status_code == 200
        assert client.get("/").status_code == client.get("/").status_code == 200
        assert len(written) == 2


def test_an_address_with_a_slash_too_many_leads_to_the_page_wherever_the_service_is(client):
    redirect = client.get("/docs/", headers={"Host": "localhost"})
    assert (redirect.status_code, redirect.headers["location"]) == (307, "../docs")
    assert client.get("/v1/model/").status_code == 404


def test_without_a_catalogue_and_a_report_the_page_works_on_ids(recommender, tmp_path, start):
    run = replace(recommender.run, catalogue=None, report={}, ranking=None)
    Recommender(run).save(tmp_path / "bare")
    with start(run=tmp_path / "bare", keys=Keys(api=("key",))) as client:
        text = client.get("/").text
    assert "Search ids" in text
    assert 'id="genre"' not in text
    assert 'id="key"' in text
    assert "was not evaluated" in text
