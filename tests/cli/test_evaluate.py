from dataclasses import replace

import numpy as np

from segue.data.splits import TEST, Split, global_time, no_split
from segue.evaluation.baselines import Popularity
from segue.evaluation.metrics import summarize
from segue.evaluation.protocol import rank_full
from segue.recommender import Recommender
from segue.retriever import ModelScorer


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


def test_all_later_items_are_asked_for_one_after_another(command, run, recommender, tmp_path):
    histories = recommender.run.split.histories
    late = global_time(histories)
    Recommender(replace(recommender.run, split=late, ranking=None)).save(tmp_path / "late")
    first = command("evaluate", tmp_path / "late", "--json").json
    every = command("evaluate", tmp_path / "late", "--targets", "all", "--json").json
    num_test = int(np.count_nonzero(late.parts == TEST))
    assert (first["users"], first["targets"]) == (late.test.num_users, late.test.num_users)
    assert (every["users"], every["targets"]) == (late.test.num_users, num_test)
    assert num_test > late.test.num_users
    text = command("evaluate", tmp_path / "late", "--targets", "all").out
    assert f": {num_test:,} targets of {late.test.num_users:,} users, 30 candidates" in text


def test_what_was_never_trained_on_is_told_apart(command, recommender, tmp_path):
    run = recommender.run
    late = global_time(run.split.histories)
    is_early = late.histories.users % 2 == 0
    # Every other user is first seen in the test part, and the item 1 was never trained on.
    counts = run.item_counts.copy()
    counts[1] = 0
    own = Split(
        "global-time",
        late.histories.select(is_early | (late.parts == TEST)),
        late.parts[is_early | (late.parts == TEST)],
    )
    Recommender(replace(run, split=own, item_counts=counts, ranking=None)).save(tmp_path / "cold")
    report = command("evaluate", tmp_path / "cold", "--json").json
    groups, test = report["by_training"], own.test
    is_new = test.targets == 1
    assert groups["new_items"]["targets"] == np.count_nonzero(is_new) > 0
    assert groups["new_items"]["metrics"]["hr@20"] == 0
    assert groups["new_users"]["targets"] == np.count_nonzero(~test.is_trained_user) > 0
    is_trained = test.is_trained_user & ~is_new
    assert groups["trained"]["targets"] == np.count_nonzero(is_trained)
    ranking = rank_full(ModelScorer(recommender.model, counts), test, is_trained=counts > 0)
    assert groups["trained"]["metrics"] == summarize(ranking.ranks[is_trained])
    popular = rank_full(Popularity(own.train), test, is_trained=counts > 0)
    own_popularity = groups["trained"]["baselines"]["popularity"]
    assert own_popularity == summarize(popular.ranks[is_trained])
    lines = command("evaluate", tmp_path / "cold").out.splitlines()
    (row,) = (line for line in lines if line.startswith("users and items that were trained on"))
    assert row.split()[-4:-2] == [
        str(groups["trained"]["targets"]),
        f"{groups['trained']['metrics']['hr@10']:.4f}",
    ]


def test_nothing_is_told_apart_where_everything_was_trained_on(command, run):
    outcome = command("evaluate", run)
    assert "never trained on" not in outcome.out
    groups = command("evaluate", run, "--json").json["by_training"]
    assert [groups[name] for name in ("new_users", "new_items")] == [{"targets": 0}] * 2
    assert groups["trained"]["targets"] == 120


def test_a_run_without_a_test_part_is_refused(command, recommender, tmp_path):
    assert recommender.run.split is not None
    everything = no_split(recommender.run.split.histories)
    bare = replace(recommender.run, split=everything, ranking=None, report={})
    Recommender(bare).save(tmp_path / "bare")
    assert "no test part" in command("evaluate", tmp_path / "bare").refusal
    assert "no test part" in command("evaluate", tmp_path / "bare", "--targets", "all").refusal
