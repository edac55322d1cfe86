from dataclasses import replace

from segue.data.splits import no_split
from segue.recommender import Recommender


def test_json_is_the_report_of_the_run_and_the_run_stays_as_it_is(
    command, run, recommender, digests
):
    before = digests(run)
    outcome = command("evaluate", run, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json == recommender.run.report
    assert digests(run) == before


def test_json_has_the_promised_keys(command, run):
    report = command("evaluate", run, "--json").json
    assert (report["protocol"], report["split"]) == ("full", "leave-one-out")
    assert (report["users"], report["candidates"]) == (120, 30)
    names = {f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in (1, 5, 10, 20)} | {"mrr"}
    assert set(report["metrics"]) == set(report["intervals"]) == names
    low, high = report["intervals"]["ndcg@10"]
    assert low <= report["metrics"]["ndcg@10"] <= high
    assert {"popularity", "item_knn"} <= set(report["baselines"])
    assert all(set(metrics) == names for metrics in report["baselines"].values())


def test_the_sampled_protocol_is_one_option_away(command, run, recommender):
    report = command("evaluate", run, "--json", "--protocol", "sampled").json
    histories = recommender.run.split.test.histories
    seen = [len(set(histories.items_of(user))) for user in range(histories.num_users)]
    # The catalogue has fewer than 100 items: everything unseen is ranked, and the report says so.
    assert report["protocol"] == "sampled"
    assert report["candidates"] == recommender.vocabulary.num_items - min(seen)
    assert any("fewer than 100 unseen items" in note for note in report["notes"])


def test_without_json_there_is_a_row_for_each_metric(command, run, recommender):
    outcome = command("evaluate", run)
    (row,) = (line.split() for line in outcome.out.splitlines() if line.startswith("HR@10"))
    report = recommender.run.report
    low, high = report["intervals"]["hr@10"]
    values = [report["metrics"]["hr@10"], low, high]
    values += [each["hr@10"] for each in report["baselines"].values()]
    row.remove("to")
    assert row[1:] == [f"{value:.4f}" for value in values]


def test_a_run_without_a_test_part_is_refused(command, recommender, tmp_path):
    assert recommender.run.split is not None
    everything = no_split(recommender.run.split.histories)
    bare = replace(recommender.run, split=everything, ranking=None, report={})
    Recommender(bare).save(tmp_path / "bare")
    assert "no test part" in command("evaluate", tmp_path / "bare").refusal
