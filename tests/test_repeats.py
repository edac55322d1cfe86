"""Items that users come back to: from the split to every answer."""

import polars as pl
import pytest

import segue
from segue.bulk import recommend_file
from segue.data.log import InteractionLog
from segue.errors import RequestError
from segue.reporting.runs import compare_runs
from segue.serving.model import ServedModel, ServedQuestion, Wanted

CONFIG = segue.Config(
    model=segue.ModelConfig(max_length=20, width=16, dropout=0.1),
    training=segue.TrainingConfig(epochs=8, batch_size=16, learning_rate=0.01, validate_every=4),
)
DAY = 86_400
START = 6_558 * 3 * DAY  # whole baskets of three days


def groceries() -> InteractionLog:
    """80 users who take three items again and again, one a day: 1, 11, 21, or 2, 12, 22, ..."""
    rows = []
    for user in range(80):
        rows += [(user, user % 10 + 10 * (day % 3) + 1, START + day * DAY) for day in range(15)]
    columns = ["user_id", "item_id", "timestamp"]
    return InteractionLog(pl.DataFrame(rows, schema=columns, orient="row"))


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> segue.Recommender:
    """Trained where items repeat, saved and loaded."""
    path = tmp_path_factory.mktemp("repeats") / "run"
    segue.fit(segue.leave_one_out(groceries(), repeats=True), preset=CONFIG).save(path)
    return segue.load(path)


@pytest.fixture(scope="module")
def excluding() -> segue.Recommender:
    """The same log and settings, items of a history left out."""
    return segue.fit(segue.leave_one_out(groceries()), preset=CONFIG)


def own_items(recommender: segue.Recommender, user: int) -> set[int]:
    return set(recommender.history_of(user))


def test_only_where_items_repeat_can_a_seen_target_be_found(repeating, excluding):
    assert repeating.run.report["metrics"]["hr@5"] > 0.9
    assert excluding.run.report["metrics"]["hr@20"] == 0.0
    (note,) = (note for note in excluding.run.report["notes"] if "seen before" in note)
    assert note.startswith("80 of 80 users")
    assert note.endswith("(--repeats makes it a candidate)")


def test_the_best_weights_are_chosen_by_a_ranking_with_seen_items(repeating, excluding):
    assert max(epoch.get("hr@10", 0) for epoch in repeating.run.training["epochs"]) > 0.9
    assert max(epoch.get("hr@10", 0) for epoch in excluding.run.training["epochs"]) == 0.0


def test_what_a_user_always_takes_is_among_the_baselines(repeating, excluding):
    baselines = repeating.run.report["baselines"]
    # The next item is the one of three that was longest ago.
    assert baselines["own_recency"]["hr@5"] == 1.0
    assert baselines["own_recency"]["mrr"] == pytest.approx(1 / 3)
    assert baselines["own_frequency"]["hr@5"] == 1.0
    assert "own_recency" not in excluding.run.report["baselines"]


def test_python_and_files_are_answered_with_seen_items_by_default(repeating, tmp_path):
    own = own_items(repeating, 5)
    assert set(repeating.answer_user(5, 3).items["item_id"]) == own
    assert not set(repeating.recommend([list(own)], 5, exclude_seen=True)["item_id"]) & own
    groceries().frame.filter(pl.col("user_id") == 5).write_parquet(tmp_path / "log.parquet")
    recommend_file(repeating, tmp_path / "log.parquet", tmp_path / "out.parquet", 3)
    assert set(pl.read_parquet(tmp_path / "out.parquet")["item_id"]) == own


def test_the_service_answers_with_seen_items_unless_asked_otherwise(repeating):
    own = own_items(repeating, 5)
    model = ServedModel(repeating)

    def asked(exclude_seen: bool | None = None) -> set[int]:
        question = ServedQuestion(Wanted(k=3), list(own), exclude_seen=exclude_seen)
        (answer,) = model.answers([question])
        return {item["item_id"] for item in answer.items}

    assert asked() == own
    assert not asked(exclude_seen=True) & own


def test_runs_that_rank_differently_are_not_compared(repeating, excluding):
    with pytest.raises(RequestError, match="only one of them ranks the items of a history again"):
        compare_runs({"one": repeating.run, "other": excluding.run})


def test_whole_baskets_are_held_out_and_told(tmp_path):
    log = groceries().frame.with_columns(pl.col("timestamp") // (3 * DAY) * (3 * DAY))
    split = segue.last_basket(InteractionLog(log), repeats=True)
    recommender = segue.fit(split, preset=CONFIG)
    recommender.save(tmp_path / "run")
    report = segue.load(tmp_path / "run").evaluate()
    assert report["split"] == "last-basket"
    assert (report["users"], report["targets"]) == (80, len(split.test.targets))
    assert report["targets"] == 240
    assert report["metrics"]["hr@5"] > 0.9
