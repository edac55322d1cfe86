"""Questions over HTTP, and their answers."""

import json
import unicodedata
from dataclasses import replace

import httpx
import numpy as np
import polars as pl
import pytest
from polars.exceptions import PanicException

from segue.recommender import Recommender

RECOMMEND = "/v1/recommendations"


def recommended(client: httpx.Client, **asked: object) -> dict[str, object]:
    answer = client.post(RECOMMEND, json=asked)
    assert answer.status_code == 200, answer.text
    document: dict[str, object] = answer.json()
    return document


def ids(document) -> list[int]:
    return [item["item_id"] for item in document["items"]]


def test_recommendations_are_those_of_the_recommender(client, served):
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, 31, size=rng.integers(1, 25)).tolist() for _ in range(1_000)]
    expected = served.recommend(histories, k=7).partition_by("user_id", as_dict=True)
    results: list[dict[str, object]] = []
    for at in range(0, len(histories), 64):
        asked = [{"history": h, "k": 7, "return": ["score"]} for h in histories[at : at + 64]]
        answer = client.post(f"{RECOMMEND}:batch", json={"requests": asked})
        results += answer.json()["results"]
    results[0] = recommended(client, history=histories[0], k=7, **{"return": ["score"]})
    for at, result in enumerate(results):
        mine = expected[at,]
        assert result["strategy"] == "model"
        got = {item["item_id"]: item["score"] for item in result["items"]}
        np.testing.assert_allclose(list(got.values()), mine["score"], atol=1e-4)
        scores = dict(mine.select("item_id", "score").iter_rows())
        for item in got.keys() ^ scores.keys():  # only where scores are as good as equal
            assert abs((got | scores)[item] - mine["score"].min()) < 1e-4


def test_a_batch_is_answered_in_order_and_by_one_model(client):
    histories = [[each] for each in range(1, 31)]
    answer = client.post(
        f"{RECOMMEND}:batch", json={"requests": [{"history": each} for each in histories]}
    ).json()
    alone = [ids(recommended(client, history=each)) for each in histories]
    assert [ids(each) for each in answer["results"]] == alone
    assert {each["model_version"] for each in answer["results"]} == {answer["model_version"]}


def test_ids_are_compared_by_text_and_unknown_ones_are_told(client):
    numbers = recommended(client, history=[3, 7, 11])
    texts = recommended(client, history=["3", "7", "11", "007", 999, "née 🎬 \"'"])
    assert ids(numbers) == ids(texts)
    assert texts["unknown_items"] == ["007", 999, "née 🎬 \"'"]
    assert all(isinstance(each, int) for each in ids(numbers))


def test_a_history_of_unknown_items_gets_the_popular_ones(client, served):
    answer = recommended(client, history=["nothing"], k=3)
    counts = served.run.item_counts
    best = sorted(range(1, 31), key=lambda item: (-counts[item], item))[:3]
    assert answer["strategy"] == "popular"
    assert ids(answer) == served.vocabulary.decode(np.array(best, np.int32)).to_list()


def test_a_user_of_the_run_is_recommended_to_by_the_runs_history(client, served):
    expected = served.recommend([served.history_of(5)], k=5)["item_id"].to_list()
    assert ids(recommended(client, user_id="5", k=5)) == expected
    assert ids(recommended(client, user_id=5, k=5)) == expected


def test_a_history_given_wins_over_a_stored_one(client):
    assert ids(recommended(client, user_id="5", history=[1])) == ids(
        recommended(client, history=[1])
    )


def test_items_of_a_history_come_in_the_order_of_their_times(client):
    timed = [{"item_id": 4, "timestamp": 9}, {"item_id": 8, "timestamp": 2}]
    assert ids(recommended(client, history=timed)) == ids(recommended(client, history=[8, 4]))


def test_filters_allow_and_deny_lists_are_exact(client, catalogue):
    full = recommended(client, history=[2], k=29)
    comedies = [item for item in ids(full) if "Comedy" in catalogue["genres"][item - 1]]
    where = {"all": [{"field": "genres", "op": "contains", "value": "comedy"}]}
    filtered = recommended(client, history=[2], k=500, filter=where, deny=comedies[:2])
    assert ids(filtered) == comedies[2:]
    assert "reason" in filtered
    assert ids(recommended(client, history=[2], k=3, filter=where)) == comedies[:3]
    allowed = recommended(client, history=[2], k=3, allow=[5, 1, 2, 9, "no such"])
    assert ids(allowed) == [item for item in ids(full) if item in (5, 1, 9)]
    assert allowed["unknown_items"] == ["no such"]


def test_years_are_read_from_titles(client):
    where = {"all": [{"field": "year", "op": "gte", "value": 1999}]}
    answer = recommended(client, history=[1], filter=where, k=2, **{"return": ["metadata"]})
    assert set(ids(answer)) == {29, 30}
    assert {item["metadata"]["year"] for item in answer["items"]} == {1999, 2000}


def test_a_year_in_digits_of_another_script_is_none(recommender, tmp_path, start):
    titles = ["फ़िल्म (१९९५)", "Film (১৯৯৫)", "Film (1995)"] + ["Film"] * 27
    catalogue = pl.DataFrame({"title": titles})
    Recommender(replace(recommender.run, catalogue=catalogue)).save(tmp_path / "digits")
    with start(run=tmp_path / "digits") as client:
        items = [client.get(f"/v1/items/{each}").json()["metadata"] for each in (1, 2, 3)]
    assert [each.get("year") for each in items] == [None, None, 1995]


def test_dates_that_python_lacks_are_text(recommender, tmp_path, start):
    days = pl.Series([4_000_000, None] + [18_263] * 28, dtype=pl.Int32).cast(pl.Date)
    catalogue = pl.DataFrame(
        {
            "usual": pl.Series([18_263] * 30, dtype=pl.Int32).cast(pl.Date),
            "day": days,
            "moment": days.cast(pl.Datetime("us", "UTC")),
            "days": pl.DataFrame({"day": days}).select(pl.concat_list("day"))["day"],
            "span": pl.Series([2**62] * 30).cast(pl.Duration("ms")),
        }
    )
    Recommender(replace(recommender.run, catalogue=catalogue)).save(tmp_path / "far")
    with start(run=tmp_path / "far") as client:
        assert client.get("/v1/items/1").json()["metadata"] == {
            "usual": "2020-01-02",
            "day": "+12921-08-18",
            "moment": "+12921-08-18 00:00:00.000000+00:00",
            "days": ["+12921-08-18"],
            "span": str(2**62),
        }
        assert client.get("/v1/items/3").json()["metadata"]["day"] == "2020-01-02"
        answer = recommended(client, history=[2], k=30, **{"return": ["metadata"]})
        assert len(ids(answer)) == 29
        where = {"all": [{"field": "day", "op": "gt", "value": "9999-12-31"}]}
        assert ids(recommended(client, history=[2], filter=where)) == [1]


def test_seen_items_come_back_only_when_asked(client):
    seen = list(range(1, 29))
    assert set(ids(recommended(client, history=seen))) == {29, 30}
    assert len(ids(recommended(client, history=seen, exclude_seen=False, k=30))) == 30


def test_similar_items_are_those_of_the_recommender(client, served):
    expected = served.similar(8, k=5)["item_id"].to_list()
    answer = client.get("/v1/items/8/similar", params={"k": 5, "return": "score"}).json()
    assert ids(answer) == expected
    among = client.post("/v1/items/8/similar", json={"k": 2, "allow": expected[2:]}).json()
    assert ids(among) == expected[2:4]
    assert client.get("/v1/items/nothing/similar").status_code == 404


def test_an_explanation_is_what_the_score_would_be_without_each_item(client):
    def score(history: list[object]) -> float:
        asked = {"history": history, "allow": [5], "exclude_seen": False, "return": ["score"]}
        (item,) = recommended(client, **asked)["items"]
        return item["score"]

    history = [3, "7", "no such", 11, 3]
    answer = client.post("/v1/explanations", json={"history": history, "item_id": "5"}).json()
    assert (answer["item_id"], answer["title"]) == (5, "Café Number 5 (1975)")
    assert answer["unknown_items"] == ["no such"]
    assert answer["score"] == pytest.approx(score(history), abs=1e-4)
    assert [each["place"] for each in answer["influences"]] == [1, 2, 4, 5]
    assert [each["item_id"] for each in answer["influences"]] == [3, 7, 11, 3]
    for each in answer["influences"]:
        without = score([item for place, item in enumerate(history, 1) if place != each["place"]])
        assert each["score_without"] == pytest.approx(without, abs=1e-4)
        assert each["change"] == pytest.approx(without - answer["score"], abs=1e-4)


def test_a_users_recommendations_are_explained_by_the_stored_history(client, served):
    own = client.post("/v1/explanations", json={"user_id": "5", "item_id": 1}).json()
    given = client.post("/v1/explanations", json={"history": served.history_of(5), "item_id": 1})
    assert own["influences"] == given.json()["influences"]
    assert own["score"] == given.json()["score"]


def test_what_cannot_be_explained_is_refused(client):
    for asked in ({"history": [1], "item_id": "nothing"}, {"history": ["nothing"], "item_id": 1}):
        answer = client.post("/v1/explanations", json=asked)
        assert answer.status_code == 422
        assert "nothing" in answer.json()["detail"]


@pytest.mark.parametrize("query", ["café 7", "CAFE number 7", "7 cafe", "1977 caf"])
def test_titles_are_found_whatever_case_accents_and_order(client, query):
    found = client.get("/v1/items", params={"query": unicodedata.normalize("NFD", query)}).json()
    assert [item["item_id"] for item in found["items"]] == [7]


def test_an_item_is_told_with_its_metadata(client, served):
    item = client.get("/v1/items/7").json()
    assert item == {
        "item_id": 7,
        "train_interactions": int(served.run.item_counts[7]),
        "metadata": {
            "title": "Café Number 7 (1977)",
            "genres": GENRES_OF_7,
            "stars": 3.5,
            "year": 1977,
        },
    }


GENRES_OF_7 = ["Children's", "Comedy"]


def test_the_model_tells_its_report(client, served):
    about = client.get("/v1/model").json()
    assert about["report"]["metrics"] == served.run.report["metrics"]
    assert about["fields"] == ["title", "genres", "stars", "year"]


BAD = [
    (b"{", 400),
    (b'{"history": [1], "k": NaN}', 422),
    (b'{"history": [1e999]}', 422),
    (b'{"history": [' + b"1," * 100_000 + b"1]}", 422),
    (b'{"history": [1], "colour": 1}', 422),
    (b'{"history": "1"}', 422),
    (b'{"history": [true]}', 422),
    (b'{"history": [1], "k": 501}', 422),
    (b'{"history": [1], "k": "7"}', 422),
    (b'{"history": [1], "k": 0}', 422),
    (b'{"history": [' + b"9" * 5000 + b"]}", 400),
    (b'{"history": [' + b"9" * 50 + b"]}", 422),
    (b'{"history": ["' + b"a" * 10_000 + b'"]}', 422),
    (b'{"history": ["\\ud800"]}', 400),  # half a letter: no UTF-8 has it
    (b'{"history": [""]}', 422),
    (b"{}", 422),
    (b"[]", 422),
    (b'{"history": [1], "filter": {"all": [{"field": "gone", "op": "eq", "value": 1}]}}', 422),
    (b'{"history": [1], "filter": {"all": [{"field": "title", "op": "eq", "value": 1}]}}', 422),
    (b'{"history": [1], "filter": {}}', 422),
    (b'{"history": [{"item_id": 1, "timestamp": 3}, 4]}', 422),
    (b'{"history": [{"item_id": 1, "timestamp": "tomorrow"}]}', 422),
    (b" " * (2**20 + 1), 413),
]


@pytest.mark.parametrize(("body", "status"), BAD)
def test_bad_requests_are_refused_with_problem_details(client, body, status):
    answer = client.post(RECOMMEND, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert len(problem["detail"]) < 500
    assert client.get("/healthz").status_code == 200


def test_unknown_paths_and_methods_are_problems_too(client):
    for answer in (client.get("/v2"), client.put(RECOMMEND), client.get("/v1/items/nothing")):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code >= 404


def test_every_answer_carries_the_security_headers_and_its_id(client):
    for path in ("/", "/v1/model", "/nothing", "/healthz"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-request-id"]
        assert "server" not in headers


@pytest.mark.parametrize("fault", [ArithmeticError("unlucky"), PanicException("panic")])
def test_a_defect_is_answered_with_the_name_under_which_the_log_has_it(
    client, service, monkeypatch, caplog, fault
):
    def failing(*_: object) -> None:
        raise fault

    monkeypatch.setattr(type(service.model), "items", failing)
    answer = client.get("/v1/items/7")
    assert answer.status_code == 500
    assert answer.json()["detail"].startswith("a defect of segue")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    name = answer.headers["x-request-id"]
    causes = [each.exc_info for each in caplog.records if name in each.getMessage()]
    assert [str(each[1]) for each in causes if each] == [str(fault)]
    assert client.get("/v1/model").status_code == 200


def test_methods_that_nothing_has_are_counted_as_one(client):
    def lines() -> int:
        return len(client.get("/metrics").text.splitlines())

    client.request("PROPFIND", "/nowhere")
    client.request("PUT", "/v1/model")
    lines()
    before = lines()
    for method in ("PROPFIND", "LOCK", "PUT", "TRACE", "M-SEARCH"):
        for path in ("/", "/v1/model", "/v1/recommendations", "/docs", "/static/page.js"):
            assert client.request(method, path).status_code in (404, 405)
    assert lines() == before


def test_metrics_count_requests_batches_and_the_model(client):
    version = recommended(client, history=[1])["model_version"]
    text = client.get("/metrics").text
    assert f'segue_model_info{{version="{version}"}} 1.0' in text
    assert 'segue_requests_total{operation="POST /v1/recommendations",status="200"}' in text
    assert "segue_batch_size_count" in text
    assert "segue_queue_length 0.0" in text
    assert client.get("/readyz").json()["model_version"] == version


def test_ids_of_text_and_large_integers_are_told_as_the_log_has_them():
    from segue.serving.model import shown_id

    assert [shown_id(each) for each in ("a", 2**53 - 1, 2**53, -(2**53))] == [
        "a",
        2**53 - 1,
        str(2**53),
        str(-(2**53)),
    ]


def test_the_openapi_document_has_examples_and_problems(client):
    document = client.get("/openapi.json").json()
    schema = document["components"]["schemas"]["RecommendationRequest"]
    for example in schema["examples"]:
        assert (
            client.post(
                RECOMMEND, content=json.dumps(example), headers={"Content-Type": "application/json"}
            ).status_code
            == 200
        )
    responses = document["paths"][RECOMMEND]["post"]["responses"]
    assert {"200", "400", "401", "413", "422", "503", "504"} <= responses.keys()


def test_filters_on_a_run_without_a_catalogue_are_refused(recommender, tmp_path, start):
    Recommender(replace(recommender.run, catalogue=None)).save(tmp_path / "bare")
    with start(run=tmp_path / "bare") as client:
        where = {"all": [{"field": "title", "op": "eq", "value": "x"}]}
        answer = client.post(RECOMMEND, json={"history": [1], "filter": where})
        assert answer.status_code == 422
        found = client.get("/v1/items", params={"query": "7"}).json()["items"]
        assert [item["item_id"] for item in found] == [7]
        assert pl.Series(ids(recommended(client, history=[1]))).n_unique() == 10


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/healthz", "/readyz", "/metrics", "/v1/model", "/openapi.json"]
)
def test_head_is_answered_as_get_without_the_body(client, path):
    get, head = (client.request(method, path) for method in ("GET", "HEAD"))
    assert (get.status_code, head.status_code) == (200, 200)
    assert (bool(get.content), head.content) == (True, b"")
    assert head.headers.keys() == get.headers.keys()
    assert head.headers["content-type"] == get.headers["content-type"]


def test_head_is_refused_where_get_is(client):
    assert client.head("/v1/recommendations").status_code == 405
    assert client.head("/nowhere").status_code == 404


def test_head_is_counted_by_its_operation(client):
    client.head("/v1/model")
    assert 'operation="HEAD /v1/model"' in client.get("/metrics").text
