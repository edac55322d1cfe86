import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from segue.artifact import read_run, write_run
from segue.data.splits import no_split
from segue.evaluation.metrics import summarize
from segue.reporting.document import describe
from segue.reporting.tested import label_column

DAY_S = 86_400


@pytest.fixture(scope="module")
def document(by_user):
    return describe(by_user)


@pytest.fixture(scope="module")
def in_time_document(in_time):
    return describe(in_time)


def test_the_document_is_json(document, in_time_document):
    for each in (document, in_time_document):
        assert json.loads(json.dumps(each, allow_nan=False)) == each


def test_the_headline_is_the_runs_own_report_beside_its_baselines(document, by_user):
    systems = document["headline"]["systems"]
    report = read_run(by_user).report
    assert systems["by-user"]["metrics"] == report["metrics"]
    assert systems["item_knn"]["metrics"] == report["baselines"]["item_knn"]
    assert len(document["headline"]["differences"]) == len(systems) - 1


def test_every_user_has_a_place(document, by_user):
    ranks = read_run(by_user).ranking.ranks
    users = {each["places"]: each["users"] for each in document["ranks"]["groups"]}
    assert sum(users.values()) == 120
    assert users["1"] == np.count_nonzero(ranks == 1)
    assert users["6 to 10"] == np.count_nonzero((ranks >= 6) & (ranks <= 10))
    assert users["a miss"] == np.count_nonzero(ranks == 0)


def test_the_slices_reach_the_catalogue(document, by_user, genre_of):
    run = read_run(by_user)
    genres = [genre_of(item) for item in run.vocabulary.decode(run.ranking.targets)]
    is_war = np.array(["War" in each for each in genres])
    (war,) = (
        each
        for each in document["slices"]["slices"]
        if (each["by"], each["group"]) == ("genres", "War")
    )
    assert war["users"] == is_war.sum()
    expected = summarize(run.ranking.ranks[is_war])["ndcg@10"]
    assert war["metrics"]["ndcg@10"] == pytest.approx(expected)


def test_without_moments_the_age_is_missing_and_says_why(document):
    assert "leave-one-out" in document["age"]["missing"]
    assert document["data"]["first interaction"] == "unknown: an order"


def test_ages_count_days_from_the_end_of_training(in_time_document, in_time):
    split = read_run(in_time).split
    times, parts = split.histories.timestamps, split.parts
    trained_until = times[parts == 0].max()
    firsts = {}
    for user, time, part in zip(split.histories.users, times, parts, strict=True):
        if part == 2:
            firsts.setdefault(user, (time - trained_until) / DAY_S)
    slices = in_time_document["age"]["slices"]
    assert sum(each["users"] for each in slices) == len(firsts)
    assert slices[0]["group"].startswith(f"{min(firsts.values()):.1f} to ")
    assert slices[-1]["group"].endswith(f" to {max(firsts.values()):.1f} days")
    assert "recent_popularity" in in_time_document["headline"]["systems"]


def test_examples_are_good_and_bad_users_with_their_own_truth(document, by_user):
    run = read_run(by_user)
    users = document["examples"]["users"]
    assert [each["kind"] for each in users] == ["good"] * 5 + ["bad"] * 5
    for each in users:
        place = run.ranking.user_ids.to_list().index(each["user_id"])
        target = run.vocabulary.decode(run.ranking.targets[[place]])[0]
        assert each["truth"] == f"<b>Café & {target}</b>"
        assert each["rank"] == run.ranking.ranks[place]
        assert each["history"]
        assert len(each["recommended"]) == 5
        if 1 <= each["rank"] <= 5:
            assert each["recommended"][each["rank"] - 1] == each["truth"]
    places = [each["rank"] or math.inf for each in users]
    assert max(places[:5]) <= 3 < min(places[5:])


def test_attention_adds_up_to_one(document):
    assert document["attention"]["histories"]
    for each in document["attention"]["histories"]:
        weights = [item["weight"] for item in each["items"]]
        assert sum(weights) + each["older_weight"] == pytest.approx(1, abs=1e-5)


def test_the_map_shows_every_item_of_a_small_catalogue_with_its_genre(document):
    points = document["map"]["points"]
    assert len(points) == 30
    assert {point["label"] for point in points} == {"Drama", "Comedy", "War"}
    assert 0 < document["map"]["explained_variance"] <= 1


def test_beyond_accuracy_the_model_stands_beside_popularity(document):
    systems = document["beyond"]["systems"]
    own = systems[document["run"]]
    assert systems["popularity"]["average popularity"] >= own["average popularity"]
    assert 0 < own["diversity (genres)"] < 1


def test_the_probabilities_of_the_top_10_are_judged(document, by_user):
    calibration = document["calibration"]
    assert (calibration["k"], calibration["users"]) == (10, 120)
    assert sum(each["predictions"] for each in calibration["bins"]) == 1200
    # Each user has one target, so that of ten items in the list at most one can come true.
    hits = summarize(read_run(by_user).ranking.ranks)["hr@10"]
    assert calibration["observed"] == pytest.approx(hits / 10)
    predicted = [each["predicted"] for each in calibration["bins"]]
    assert predicted == sorted(predicted)
    assert 0 < predicted[0] < predicted[-1] < 1


def test_scores_of_another_loss_are_no_probabilities(by_user, tmp_path):
    run = read_run(by_user)
    loss = run.config.loss.model_copy(update={"loss": "bce"})
    config = run.config.model_copy(update={"loss": loss})
    write_run(replace(run, config=config), tmp_path / "bce")
    assert "The loss bce makes" in describe(tmp_path / "bce")["calibration"]["missing"]


def test_hashes_are_those_of_the_files(document, by_user):
    assert document["protocol"]["sha256"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in by_user.iterdir()
        if path.name != "manifest.json"
    }


def test_a_run_without_a_test_part_says_so_in_each_section(by_user, tmp_path):
    run = read_run(by_user)
    bare = replace(run, split=no_split(run.split.histories), ranking=None, report={}, training={})
    write_run(bare, tmp_path / "bare")
    document = describe(tmp_path / "bare")
    for name in (
        *("headline", "beyond", "slices", "ranks", "calibration"),
        *("age", "attention", "examples"),
    ):
        assert "no test part" in document[name]["missing"]
    assert "no training curves" in document["curves"]["missing"]
    assert document["data"]["interactions"] == run.split.histories.num_interactions


def test_the_column_that_groups_is_genres_or_the_first_of_few_labels():
    text = pl.DataFrame({"title": ["a", "b"], "url": ["x", "x"], "kind": ["p", "q"]})
    assert label_column(text) == "kind"
    assert label_column(text.with_columns(genres=pl.Series([["War", "Drama"], None]))) == "genres"
    assert label_column(text.with_columns(genres=pl.Series(["War|Drama", None]))) == "kind"
    assert label_column(text.select("title")) is None
    assert label_column(None) is None
