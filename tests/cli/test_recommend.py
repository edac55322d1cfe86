from dataclasses import replace

import polars as pl
import pytest

from segue.data.vocabulary import Vocabulary
from segue.recommender import Recommender


def test_json_holds_what_the_recommender_answers(command, run, recommender):
    outcome = command("recommend", run, "--history", "3,17,5", "-k", "4", "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    answer = outcome.json
    assert (answer["strategy"], answer["unknown_items"]) == ("model", [])
    expected = recommender.recommend([[3, 17, 5]], k=4)
    assert [item["item_id"] for item in answer["items"]] == expected["item_id"].to_list()
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4]
    assert [item["title"] for item in answer["items"]] == [
        f"Café {item['item_id']}" for item in answer["items"]
    ]
    assert [item["score"] for item in answer["items"]] == pytest.approx(
        expected["score"].to_list(), abs=1e-5
    )


def test_the_table_has_ten_rows_of_rank_id_title_and_score(command, run):
    lines = command("recommend", run, "--history", "3,17,5").out.splitlines()
    assert lines[0].split() == ["rank", "item_id", "title", "score"]
    assert len(lines) == 11
    rank, item_id, *title, score = lines[1].split()
    assert rank == "1"
    assert title == ["Café", item_id]
    assert float(score)


def test_a_user_is_answered_from_the_whole_history_in_the_run(command, run, items_of):
    history = ",".join(map(str, items_of(7)))
    by_user = command("recommend", run, "--user", "7", "--json").json
    by_history = command("recommend", run, "--history", history, "--json").json
    assert by_user == by_history


def test_unknown_items_are_skipped_and_told_in_the_logs_own_type(command, run):
    outcome = command("recommend", run, "--history", "3,999,x7,17,007", "--json")
    assert outcome.json["unknown_items"] == [999, "x7", "007"]
    assert outcome.json["strategy"] == "model"
    assert "skipped 3 of 5 items" in outcome.err
    assert "'999', 'x7', '007'" in outcome.err
    known = command("recommend", run, "--history", "3,17", "--json").json
    assert outcome.json["items"] == known["items"]


def test_ids_of_text_stay_text(command, recommender, tmp_path):
    text = Vocabulary(recommender.vocabulary.ids.cast(pl.String))
    bare = replace(recommender.run, vocabulary=text, split=None, ranking=None, report={})
    Recommender(bare).save(tmp_path / "text")
    answer = command("recommend", tmp_path / "text", "--history", "3,999", "--json").json
    assert answer["unknown_items"] == ["999"]
    assert all(isinstance(item["item_id"], str) for item in answer["items"])


@pytest.mark.parametrize("history", ["", "999", " , "])
def test_a_history_without_a_known_item_gets_the_most_popular(history, command, run, recommender):
    outcome = command("recommend", run, "--history", history, "-k", "3", "--json")
    assert outcome.json["strategy"] == "popular"
    counts = recommender.run.item_counts
    expected = sorted(range(1, 31), key=lambda item: (-counts[item], item))[:3]
    assert [item["item_id"] for item in outcome.json["items"]] == expected
    assert "the most popular" in outcome.err


def test_fewer_candidates_than_asked_for_are_remarked_on(command, run):
    outcome = command("recommend", run, "--history", "1,2,3", "-k", "28", "--json")
    assert len(outcome.json["items"]) == 27
    assert "only 27 of the 28" in outcome.err


def test_exactly_one_question_is_asked(command, run):
    assert "exactly one" in command("recommend", run).refusal
    both = command("recommend", run, "--history", "1", "--user", "1")
    assert "--history and --user" in both.refusal
    assert "--output" in command("recommend", run, "--input", "log.parquet").refusal


def test_an_unknown_user_is_refused(command, run):
    assert "'nobody'" in command("recommend", run, "--user", "nobody").refusal


def test_a_file_of_users_is_answered_in_a_file(command, run, tmp_path):
    log = tmp_path / "some.parquet"
    pl.DataFrame(
        {"who": ["b", "a", "b"], "item_id": [3, 999, 17], "position": [2, 1, 1]}
    ).write_parquet(log)
    files = ["--input", log, "--output", tmp_path / "answers.parquet"]
    columns = ["--user-col", "who", "--time-col", "position"]
    outcome = command("recommend", run, *files, *columns, "-k", "2", "--json")
    assert outcome.err == "4 recommendations written\n"
    assert outcome.json == {"users": 2, "rows": 4, "unknown_items": 1, "popular_users": 1}
    answers = pl.read_parquet(tmp_path / "answers.parquet")
    assert answers["user_id"].to_list() == ["a", "a", "b", "b"]
    alone = command("recommend", run, "--history", "17,3", "-k", "2", "--json").json
    assert answers["item_id"].to_list()[2:] == [item["item_id"] for item in alone["items"]]
    again = command("recommend", run, *files, *columns)
    assert "--force" in again.refusal
    outcome = command("recommend", run, *files, *columns, "-k", "1", "--force")
    assert outcome.out.startswith("2 recommendations for 2 users")
    assert "unknown" in outcome.err


def test_the_nearest_items_come_first_and_the_item_itself_never(command, run, recommender):
    outcome = command("similar", run, "5", "-k", "3", "--json")
    assert outcome.json["item_id"] == 5
    table = recommender.retriever.item_table[1:]
    table = table / (table**2).sum(axis=1, keepdims=True) ** 0.5
    cosines = table @ table[4]
    nearest = [int(item) for item in (-cosines).argsort() + 1 if item != 5][:3]
    assert [item["item_id"] for item in outcome.json["items"]] == nearest
    assert [item["score"] for item in outcome.json["items"]] == pytest.approx(
        [cosines[item - 1] for item in nearest], abs=1e-5
    )


def test_the_table_shows_titles(command, run):
    lines = command("similar", run, "5", "-k", "2").out.splitlines()
    assert len(lines) == 3
    assert "Café" in lines[1]


def test_an_unknown_item_is_refused(command, run):
    assert "999" in command("similar", run, "999").refusal


@pytest.mark.parametrize("words", [["-7"], ["-7", "--json"], ["-k", "3", "-75"]])
def test_a_negative_id_is_an_id_and_no_option(command, run, words):
    outcome = command("similar", run, *words)
    assert outcome.code == 1
    assert "-7" in outcome.err


def test_an_unknown_option_is_still_refused_as_one(command, run):
    outcome = command("similar", run, "5", "--jsn")
    assert outcome.code == 2
    assert "No such option: --jsn" in outcome.err


def test_hashes_beyond_64_bits_are_ids_in_every_option(command, recommender, tmp_path):
    first = 12297829382473034410
    ids = pl.Series([str(first + place) for place in range(recommender.run.vocabulary.num_items)])
    split = recommender.run.split
    histories = replace(split.histories, vocabulary=Vocabulary(ids))
    run = replace(
        recommender.run,
        vocabulary=Vocabulary(ids),
        split=replace(split, histories=histories),
        ranking=None,
        report={},
    )
    Recommender(run).save(tmp_path / "hashed")
    by_history = command("recommend", tmp_path / "hashed", "--history", f"{first}, {first + 4}")
    assert (by_history.code, by_history.err) == (0, "")
    assert command("similar", tmp_path / "hashed", f"{first}").out.count("1229782938247303") == 10
    unknown = command("recommend", tmp_path / "hashed", "--history", f"{first},{2**64}", "--json")
    assert unknown.json["unknown_items"] == [str(2**64)]
