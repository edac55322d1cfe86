"""Times of histories and events, and the moment of a question, as the model is given them."""

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal

import httpx
import keras
import numpy as np
import polars as pl
import pytest
from keras import ops

import segue
from segue.config import ENCODERS, Config, ModelConfig, TrainingConfig
from segue.data.log import InteractionLog
from segue.data.times import UNKNOWN_TIME
from segue.serving.stores import StoreError

START = 1_700_000_000  # 2023-11-14T22:13:20 in Unix seconds: date -u -d @1700000000
DAY = 86_400
ITEMS = 8
SLOWNESS_S = 600


class ClockConfig(ModelConfig):
    """The settings of `clock`."""

    encoder: Literal["clock"] = "clock"

    @property
    def wants(self):
        return ("timestamps", "asked_at")


@ENCODERS.register("clock")
class ClockEncoder(keras.layers.Layer):
    """Writes what it was told of time into its states, whatever the items are.

    The first number of a state is the hours since the item, the second the hours since the one
    before it; -1 where either end of the span is not known.
    """

    Settings: ClassVar[type[ModelConfig]] = ClockConfig

    def __init__(self, settings: ClockConfig, seed: int) -> None:
        super().__init__(name="encoder")
        self.width = settings.width

    def states(self, vectors, inputs, segment_ids, training=False):
        then, asked_at = inputs["timestamps"], inputs["asked_at"]
        before = ops.concatenate([ops.full_like(then[:, :1], UNKNOWN_TIME), then[:, :-1]], axis=1)
        hours = ops.stack([_hours(asked_at, then), _hours(asked_at, before)], axis=-1)
        rest = ops.zeros_like(vectors[..., 2:])
        return ops.concatenate([hours, rest], axis=-1) + 0 * vectors

    def last(self, vectors, inputs, segment_ids, positions):
        states = self.states(vectors, inputs, segment_ids)
        return ops.take_along_axis(states, positions[:, None, None], axis=1)[:, 0]


def _hours(later, earlier):
    is_known = ops.logical_and(later != UNKNOWN_TIME, earlier != UNKNOWN_TIME)
    return ops.where(is_known, ops.cast(later - earlier, "float32") / 3_600, -1.0)


def unix(seconds: int) -> int:
    return seconds


def milliseconds(seconds: int) -> int:
    return seconds * 1_000


def iso(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()


def position(seconds: int) -> int:
    return (seconds - START) // DAY + 50


def run_of(as_sent: Callable[[int], Any]) -> segue.Recommender:
    """A run whose log has such times, and whose scores of items 1 and 2 are the two hours."""
    rows = [
        (user, 1 + (user + day) % ITEMS, as_sent(START - day * DAY))
        for user in range(12)
        for day in range(5, 0, -1)
    ]
    columns = zip(*rows, strict=True)
    names = ("user_id", "item_id", "timestamp")
    frame = pl.DataFrame(dict(zip(names, map(list, columns), strict=True)))
    if as_sent is iso:
        moments = pl.col("timestamp").str.to_datetime(time_zone="UTC")
        frame = frame.with_columns(moments.dt.replace_time_zone(None))
    config = Config(
        model=ModelConfig(encoder="clock", max_length=4, width=4, dropout=0.0),
        training=TrainingConfig(epochs=1, batch_size=8),
    )
    fitted = segue.fit(segue.leave_one_out(InteractionLog(frame)), preset=config)
    table = np.zeros_like(fitted.run.weights["item_embedding/table"])
    table[1, 0] = table[2, 1] = 1
    return segue.Recommender(replace(fitted.run, weights={"item_embedding/table": table}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs on disk, by how times are sent to them."""
    place = tmp_path_factory.mktemp("runs")
    for as_sent in (unix, milliseconds, iso, position):
        run_of(as_sent).save(place / as_sent.__name__)
    return place


def hours(client: httpx.Client, **asked: object) -> list[float]:
    """How long ago the last item was, and the one before it, as the model was told."""
    wanted = {"allow": [1, 2], "exclude_seen": False, "return": ["score"]}
    answer = client.post("/v1/recommendations", json={**asked, **wanted})
    assert answer.status_code == 200, answer.text
    scores = {item["item_id"]: item["score"] for item in answer.json()["items"]}
    return [scores[1], scores[2]]


def explained_hours(client: httpx.Client, **asked: object) -> list[float]:
    """The same, by the explanation of each of the two scores."""
    answers = [client.post("/v1/explanations", json={**asked, "item_id": item}) for item in (1, 2)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    return [answer.json()["score"] for answer in answers]


@pytest.mark.parametrize("told", [hours, explained_hours])
@pytest.mark.parametrize("as_sent", [unix, milliseconds, iso])
def test_times_and_the_moment_reach_the_model_in_every_unit(runs, start, as_sent, told):
    with start(run=runs / as_sent.__name__) as client:
        times = [START + 3_600, START + 4 * 3_600]
        at = as_sent(START + 10 * 3_600)
        sent = [
            {"item_id": item, "timestamp": as_sent(moment)}
            for item, moment in zip((5, 6), times, strict=True)
        ]
        assert told(client, history=sent, at=at) == pytest.approx([6, 9])
        assert told(client, history=sent, at="2023-11-15T08:13:20Z") == pytest.approx([6, 9])
        assert told(client, history=[5, 6], at=at) == [-1, -1]  # nothing is known of the items
        events = [{"user_id": "new", **met} for met in sent]
        assert client.post("/v1/events", json={"events": events}).json()["accepted"] == 2
        assert told(client, user_id="new", at=at) == pytest.approx([6, 9])
        # The run's own user met items a day apart, the last one a day before START.
        assert told(client, user_id="3", at=at) == pytest.approx([34, 58])
        events = [{"user_id": "3", **sent[1]}, {"user_id": "3", "item_id": "x", "timestamp": at}]
        assert client.post("/v1/events", json={"events": events}).json()["accepted"] == 2
        assert told(client, user_id="3", at=at) == pytest.approx([6, 34])  # x is no known item


@pytest.mark.parametrize("told", [hours, explained_hours])
def test_by_default_it_is_now(runs, start, told):
    with start(run=runs / "iso") as client:
        hour_ago = iso(int(time.time()) - 3_600)
        sent = [{"item_id": 5, "timestamp": hour_ago}, {"item_id": 6, "timestamp": hour_ago}]
        tolerance = SLOWNESS_S / 3_600
        assert told(client, history=sent) == pytest.approx([1, 1], abs=tolerance)


def test_requests_of_a_batch_have_moments_of_their_own(runs, start):
    with start(run=runs / "unix") as client:
        history = [{"item_id": 5, "timestamp": START}]
        asked = [
            {"history": history, "at": START + 3_600 * hour, "return": ["score"], "allow": [1]}
            for hour in (1, 2, 30)
        ]
        # Without a list of what is allowed, requests are ranked together.
        together = [{**each, "allow": None, "k": ITEMS} for each in asked]
        for requests in (asked, together):
            answer = client.post("/v1/recommendations:batch", json={"requests": requests}).json()
            scores = [
                item["score"]
                for result in answer["results"]
                for item in result["items"]
                if item["item_id"] == 1
            ]
            assert scores == pytest.approx([1, 2, 30])


@pytest.mark.parametrize("path", ["/v1/recommendations", "/v1/explanations"])
def test_a_moment_is_refused_where_the_log_has_none_or_it_is_none(runs, start, path, tmp_path):
    asked: dict[str, object] = {"history": [5], "at": 60}
    if path == "/v1/explanations":
        asked["item_id"] = 1
    with start(run=runs / "position") as client:
        answer = client.post(path, json=asked)
        assert answer.status_code == 422
        assert answer.json()["detail"] == (
            "at must be left out, because the run's log has no clock: its times are an order, "
            "or not known"
        )
        assert client.post(path, json={**asked, "at": None}).status_code == 200
    database = f"sqlite:///{tmp_path / 'others.sqlite'}"
    with start(run=runs / "unix", database=database) as client:
        for moment in ("tomorrow", True, [START], 2**70):
            assert client.post(path, json={**asked, "at": moment}).status_code == 422, moment


@pytest.mark.parametrize("told", [hours, explained_hours])
def test_of_a_log_in_order_the_model_is_told_no_times(runs, start, told):
    with start(run=runs / "position") as client:
        sent = [{"item_id": 5, "timestamp": 9}, {"item_id": 6, "timestamp": 10}]
        assert told(client, history=sent) == [-1, -1]
        assert told(client, user_id="3") == [-1, -1]


@pytest.mark.parametrize("is_split_known", [True, False])
def test_what_a_run_does_not_know_of_its_times_is_not_made_up(
    runs, start, tmp_path, is_split_known
):
    run = segue.load(runs / "unix").run
    timeless = replace(run.split, histories=replace(run.split.histories, timestamps=None))
    bare = replace(run, split=timeless if is_split_known else None)
    segue.Recommender(bare).save(tmp_path / "bare")
    with start(run=tmp_path / "bare") as client:
        assert hours(client, history=[5, 6]) == [-1, -1]
        assert explained_hours(client, history=[5, 6]) == [-1, -1]
        if is_split_known:
            assert hours(client, user_id="3") == [-1, -1]
        event = {"user_id": "3", "item_id": 6, "timestamp": START}
        assert client.post("/v1/events", json={"events": [event]}).json()["accepted"] == 1
        assert hours(client, user_id="3") == [-1, -1]
        assert explained_hours(client, user_id="3") == [-1, -1]
        items = client.get("/v1/users/3/history").json()["items"]
        times = [item["timestamp"] for item in items]
        assert times == [*([None] * 5 if is_split_known else []), START]


def test_the_openapi_document_tells_of_the_moment(runs, start):
    with start(run=runs / "unix") as client:
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        for name in ("RecommendationRequest", "ExplanationRequest"):
            assert "now by default" in schemas[name]["properties"]["at"]["description"]
            assert "at" not in schemas[name].get("required", [])


def rejections(client: httpx.Client, *times: object) -> list[tuple[int, str]]:
    events = [
        {"user_id": "new", "item_id": place, "timestamp": moment}
        for place, moment in enumerate(times)
    ]
    answer = client.post("/v1/events", json={"events": events}).json()
    assert answer["accepted"] + len(answer["rejected"]) == len(times)
    return [(each["index"], each["reason"]) for each in answer["rejected"]]


@pytest.mark.parametrize("as_sent", [unix, milliseconds, iso])
def test_an_event_far_from_the_log_and_from_now_is_rejected_with_the_reason(runs, start, as_sent):
    now = int(time.time())
    fine = [START, START - 300 * DAY, now, now + DAY // 2]
    ahead, before = [now + 3 * DAY, now + 10**8], [START - 12 * 365 * DAY, 0]
    others = {
        unix: [milliseconds(START), "20231114"],
        milliseconds: [unix(START), "20231114"],
        iso: ["9999-12-31", "0001-01-01"],
    }
    with start(run=runs / as_sent.__name__) as client:
        sent = [*map(as_sent, fine + ahead + before), *others[as_sent]]
        rejected = dict(rejections(client, *sent))
        assert list(rejected) == [4, 5, 6, 7, 8, 9]
        assert all("too far ahead of now" in rejected[place] for place in (4, 5))
        assert all("too far before the run's log" in rejected[place] for place in (6, 7))
        assert all("give times in the unit of the run's log" in why for why in rejected.values())


def test_a_clock_finer_than_the_log_is_cut_down(runs, start):
    with start(run=runs / "unix") as client:
        assert rejections(client, START + 0.75, str(START + 1.25)) == []
        items = client.get("/v1/users/new/history").json()["items"]
        assert [item["timestamp"] for item in items] == [START, START + 1]
        assert hours(client, history=[{"item_id": 5, "timestamp": START}], at=START + 3600.5) == [
            1,
            -1,
        ]


def test_an_order_has_no_bounds_and_no_fractions(runs, start):
    with start(run=runs / "position") as client:
        rejected = rejections(client, -(10**9), 10**12, 2.5, "12.5")
        assert [place for place, _ in rejected] == [2, 3]
        assert all("whole numbers" in why for _, why in rejected)


def test_a_run_in_another_unit_is_refused_at_the_start_and_at_a_reload(runs, start, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(runs / "unix")
    with start(run=link) as client:
        link.unlink()
        link.symlink_to(runs / "milliseconds")
        answer = client.post("/v1/admin/reload")
        assert answer.status_code == 422
        assert "in the unit s, but the run's log has integer in ms" in answer.json()["detail"]
    with pytest.raises(StoreError, match="the unit s, but"), start(run=link):
        pass
