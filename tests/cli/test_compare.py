from dataclasses import replace

import pytest

import segue
from segue.data.splits import no_split
from segue.evaluation import als
from segue.recommender import Recommender


@pytest.fixture
def other_run(recommender, tmp_path):
    """A run with the same test part whose recorded ranks are the best there are."""
    ranking = recommender.run.ranking
    perfect = replace(ranking, ranks=ranking.ranks * 0 + 1)
    path = tmp_path / "other"
    Recommender(replace(recommender.run, ranking=perfect)).save(path)
    return path


def test_json_has_every_run_and_baseline_with_intervals(command, run, other_run, recommender):
    found = command("compare", run, other_run, "--json").json
    baselines = ["popularity", "last_item", "item_knn", "als"]
    assert list(found["systems"]) == [run.name, "other", *baselines]
    report = recommender.run.report
    assert found["systems"][run.name]["metrics"] == report["metrics"]
    assert found["systems"][run.name]["intervals"] == report["intervals"]
    for name, metrics in report["baselines"].items():
        assert found["systems"][name]["metrics"] == metrics
    assert (found["users"], found["candidates"], found["reference"]) == (120, 30, run.name)


def test_the_verdicts_are_sentences_about_the_first_run(command, run, other_run):
    outcome = command("compare", other_run, run)
    assert outcome.code == 0, outcome.err
    assert f"other is better than {run.name}: NDCG@10 +" in outcome.out
    assert outcome.out.count("The difference is real.") == 5
    (row,) = (line for line in outcome.out.splitlines() if line.startswith("other  "))
    assert "1.0000 (1.0000 to 1.0000)" in row
    assert "no recent_popularity" in outcome.err


def test_without_the_extra_als_is_left_out_in_one_line(command, run, monkeypatch):
    monkeypatch.setattr(als, "find_spec", lambda name: None)
    outcome = command("compare", run)
    assert outcome.code == 0
    assert "than als" not in outcome.out
    (line,) = (each for each in outcome.err.splitlines() if "als" in each)
    assert line == "note: no als: the package implicit is missing; pip install 'segue[als]'"


def test_a_run_without_recorded_ranks_is_ranked(command, run, recommender, tmp_path):
    Recommender(replace(recommender.run, ranking=None)).save(tmp_path / "unranked")
    found = command("compare", tmp_path / "unranked", "--json").json
    assert found["systems"]["unranked"]["metrics"] == recommender.run.report["metrics"]


def test_runs_with_other_test_parts_are_refused(command, run, recommender, tmp_path, log_file):
    late = segue.global_time(segue.read_log(log_file))
    Recommender(replace(recommender.run, split=late, ranking=None)).save(tmp_path / "late")
    refusal = command("compare", run, tmp_path / "late").refusal
    assert "late was not tested on what" in refusal


def test_a_run_without_a_test_part_is_refused(command, recommender, tmp_path):
    everything = no_split(recommender.run.split.histories)
    bare = replace(recommender.run, split=everything, ranking=None, report={})
    Recommender(bare).save(tmp_path / "bare")
    assert "bare holds no test part" in command("compare", tmp_path / "bare").refusal
