"""The recommender end to end: ids in, ids out; the same after saving, and on every backend."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import segue
from segue.config import Config
from segue.data.columns import Columns
from segue.data.histories import Histories
from segue.data.items import Catalogue
from segue.data.log import InteractionLog
from segue.data.splits import HeldOut
from segue.data.synthetic import markov_log
from segue.data.vocabulary import Vocabulary
from segue.errors import RequestError
from segue.fitting import fit
from segue.recommender import MAX_K, Recommender

SMALL = Config().with_settings(
    [
        "max_length=12",
        "width=16",
        "num_blocks=1",
        "num_heads=2",
        "epochs=3",
        "batch_size=64",
        "learning_rate=0.01",
    ]
)
ITEMS = 40


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    return markov_log(200, ITEMS, 15, certainty=0.9, seed=0)


@pytest.fixture(scope="module")
def recommender(log) -> Recommender:
    ids = log.frame["item_id"].unique().sort()
    items = Catalogue(pl.DataFrame({"item_id": ids, "title": [f"Film {each}" for each in ids]}))
    return fit(segue.leave_one_out(log), items=items, preset=SMALL).with_report()


def ids_of(recommender: Recommender, count: int) -> list[int]:
    return recommender.vocabulary.ids.head(count).to_list()


def test_recommendations_are_the_best_unseen_items_by_query_times_item(recommender):
    history = ids_of(recommender, 5)
    frame = recommender.recommend([history], k=7)
    dense = recommender.vocabulary.encode_text(history)
    window = np.zeros((1, 12), dtype=np.int32)
    window[0, :5] = dense
    table = recommender.run.weights["item_embedding/table"]
    scores = (recommender.retriever.queries(Columns(window)) @ table.T)[0]
    scores[[0, *dense]] = -np.inf
    expected = np.argsort(-scores)[:7]
    assert frame["item_id"].to_list() == recommender.vocabulary.decode(expected).to_list()
    np.testing.assert_allclose(frame["score"], scores[expected], rtol=1e-5)
    assert frame["rank"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    assert frame["title"].to_list() == [f"Film {each}" for each in frame["item_id"]]
    assert frame.columns == ["user_id", "item_id", "score", "rank", "strategy", "title"]


def test_only_the_newest_window_counts(recommender):
    ids = recommender.vocabulary.ids.to_list()
    newest = ids[:12]
    long = recommender.recommend([ids[12:30] + newest], k=5, exclude_seen=False)
    short = recommender.recommend([newest], k=5, exclude_seen=False)
    assert long["item_id"].to_list() == short["item_id"].to_list()


def test_seen_items_come_back_only_when_asked(recommender):
    history = recommender.vocabulary.ids.to_list()[: ITEMS - 3]
    unseen = recommender.recommend([history], k=10)
    assert len(unseen) == ITEMS - len(history)
    assert not set(unseen["item_id"]) & set(history)
    assert len(recommender.recommend([history], k=10, exclude_seen=False)) == 10


def test_unknown_items_are_skipped_and_told(recommender):
    history = ids_of(recommender, 3)
    answer = recommender.answer([*history, "no such film", 10**9], k=4)
    assert answer.strategy == "model"
    assert answer.unknown_items == ["no such film", 10**9]
    assert answer.items["item_id"].to_list() == (
        recommender.recommend([history], k=4)["item_id"].to_list()
    )


@pytest.mark.parametrize("history", [[], ["no such film"]])
def test_a_history_without_known_items_gets_popular_ones_marked_so(recommender, history):
    answer = recommender.answer(history, k=5)
    counts = recommender.run.item_counts
    best = sorted(range(1, ITEMS + 1), key=lambda item: (-counts[item], item))[:5]
    assert answer.strategy == "popular"
    assert answer.items["item_id"].to_list() == (
        recommender.vocabulary.decode(np.array(best, dtype=np.int32)).to_list()
    )


def test_many_histories_are_answered_in_their_order(recommender):
    ids = recommender.vocabulary.ids.to_list()
    histories = [[ids[at % ITEMS]] if at % 3 else [] for at in range(50)]
    together = recommender.recommend(histories, k=3)
    assert together["user_id"].unique(maintain_order=True).to_list() == list(range(50))
    for at in (0, 1, 2, 49):
        alone = recommender.recommend([histories[at]], k=3)
        mine = together.filter(pl.col("user_id") == at)
        assert mine["item_id"].to_list() == alone["item_id"].to_list()
        assert mine["strategy"].to_list() == alone["strategy"].to_list()


@pytest.mark.parametrize("histories", [["SKU-1", "SKU-2"], [5]])
def test_ids_in_the_place_of_histories_are_refused(recommender, histories):
    with pytest.raises(RequestError, match=r"is no history; a history is a list of ids"):
        recommender.recommend(histories)


@pytest.mark.parametrize(
    ("k", "message"),
    [(0, "at least 1, got 0"), (-3, "at least 1, got -3"), (5000, f"at most {MAX_K}, got 5000")],
)
def test_an_absurd_k_is_refused(recommender, k, message):
    for ask in (
        lambda: recommender.recommend([[1]], k=k),
        lambda: recommender.similar(ids_of(recommender, 1)[0], k=k),
    ):
        with pytest.raises(RequestError, match=message):
            ask()


def test_similar_items_have_the_highest_cosine(recommender):
    item = ids_of(recommender, 8)[7]
    table = recommender.run.weights["item_embedding/table"].astype("float64")
    cosines = table @ table[8] / (np.linalg.norm(table, axis=1) + 1e-30) / np.linalg.norm(table[8])
    cosines[[0, 8]] = -np.inf
    expected = np.argsort(-cosines)[:5].astype(np.int32)
    frame = recommender.similar(item, k=5)
    assert frame["item_id"].to_list() == recommender.vocabulary.decode(expected).to_list()
    np.testing.assert_allclose(frame["score"], cosines[expected], atol=1e-6)
    with pytest.raises(RequestError, match="'nothing' is not among"):
        recommender.similar("nothing")


def test_the_metrics_are_what_recommending_to_every_test_user_gives(recommender):
    test = recommender.run.split.test
    report = recommender.evaluate(test)
    frame = recommender.recommend_histories(test.histories, k=10)
    truth = pl.DataFrame(
        {
            "user_id": test.histories.user_ids,
            "item_id": recommender.vocabulary.decode(test.targets),
        }
    )
    hits = frame.join(truth, on=["user_id", "item_id"])
    assert report["users"] == 200
    assert report["metrics"]["hr@10"] == pytest.approx(len(hits) / 200)
    gain = (1 / (hits["rank"].cast(pl.Float64) + 1).log(2)).sum() / 200
    assert report["metrics"]["ndcg@10"] == pytest.approx(gain)
    assert {"popularity", "last_item", "item_knn"} == report["baselines"].keys()


def test_an_empty_history_is_evaluated_as_it_is_served(recommender):
    best = int(np.argmax(recommender.run.item_counts))
    empty = Histories.from_lists(recommender.vocabulary, [np.zeros(0, dtype=np.int32)])
    held_out = HeldOut("test", empty, np.array([best], dtype=np.int32))
    assert recommender.evaluate(held_out)["metrics"]["hr@1"] == 1.0


def test_histories_over_another_vocabulary_are_refused(recommender):
    vocabulary = Vocabulary.from_ids(pl.Series(range(1000, 1000 + ITEMS)))
    foreign = Histories.from_lists(vocabulary, [np.array([1, 2], dtype=np.int32)])
    held_out = HeldOut("test", foreign, np.array([3], dtype=np.int32))
    for ask in (
        lambda: recommender.recommend_histories(foreign),
        lambda: recommender.evaluate(held_out),
    ):
        with pytest.raises(RequestError, match="by another vocabulary"):
            ask()


def test_evaluating_never_changes_the_run(recommender, tmp_path):
    recommender.save(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    segue.load(tmp_path / "run").evaluate(protocol="sampled")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_a_saved_run_recommends_and_evaluates_as_before(recommender, tmp_path):
    recommender.save(tmp_path / "run")
    again = segue.load(tmp_path / "run")
    history = ids_of(recommender, 6)
    assert again.recommend([history, []]).equals(recommender.recommend([history, []]))
    assert again.evaluate() == recommender.evaluate() == recommender.run.report | {}
    assert again.history_of(3) == recommender.history_of(3)
    assert again.run.config == SMALL


def test_a_user_of_the_run_has_a_history_and_others_are_refused(recommender, log):
    expected = log.frame.filter(pl.col("user_id") == 3)["item_id"].to_list()
    assert recommender.history_of("3") == expected
    with pytest.raises(RequestError, match="user 'nobody' is not among the run's 200 users"):
        recommender.history_of("nobody")


@pytest.mark.slow
def test_on_permuted_last_items_the_model_falls_to_chance(log):
    # Whoever still scored well here would be reading the answer somewhere.
    split = segue.leave_one_out(log)
    histories = split.histories
    items = histories.item_ids.copy()
    last = histories.offsets[1:] - 1
    items[last] = np.random.default_rng(0).permutation(items[last])
    permuted = Histories(
        histories.vocabulary,
        histories.user_ids,
        histories.offsets,
        items,
        histories.timestamps,
        None,
    )
    config = SMALL.with_settings(["epochs=40"])
    honest = fit(segue.leave_one_out(log), preset=config).evaluate()["metrics"]["hr@1"]
    fooled = fit(segue.leave_one_out(permuted), preset=config).evaluate()["metrics"]["hr@1"]
    assert honest > 0.5
    assert fooled < 0.1


TRAINED_ON_JAX = """
import sys
sys.path[:0] = sys.argv[2:]
import segue
from segue.config import Config
from segue.data.synthetic import markov_log
from segue.data.vocabulary import Vocabulary
log = markov_log(1000, 40, 15, certainty=0.9, seed=0)
config = Config().with_settings(
    ["max_length=12", "width=16", "num_heads=2", "epochs=2", "batch_size=128"])
recommender = segue.fit(segue.leave_one_out(log), preset=config)
recommender.save(sys.argv[1] + "/run")
histories = recommender.run.split.test.histories
recommender.recommend_histories(histories, k=10).write_parquet(sys.argv[1] + "/jax.parquet")
"""


@pytest.mark.slow
def test_a_run_trained_on_jax_gives_the_same_top_10_on_this_backend(tmp_path):
    source = str(Path(segue.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", TRAINED_ON_JAX, str(tmp_path), source],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        check=True,
    )
    here = segue.load(tmp_path / "run")
    ours = here.recommend_histories(here.run.split.test.histories, k=10)
    theirs = pl.read_parquet(tmp_path / "jax.parquet")
    assert ours["user_id"].equals(theirs["user_id"])
    np.testing.assert_allclose(ours["score"], theirs["score"], atol=1e-4)
    differs = ours["item_id"] != theirs["item_id"]
    # Where the item differs, two scores lay closer than 1e-4.
    gaps = (ours["score"] - theirs["score"]).abs().filter(differs)
    assert differs.mean() < 0.01
    assert gaps.max() is None or gaps.max() < 1e-4
