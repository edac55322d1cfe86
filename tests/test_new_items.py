"""Items known by their content: from the catalogue to answers with items that nobody has taken."""

import numpy as np
import polars as pl
import pytest

import segue
from segue.data.content import CONTENT
from segue.data.items import Catalogue
from segue.data.log import InteractionLog
from segue.errors import DataError, RequestError
from segue.testing.towers import check_tower

KINDS = ("wine", "shoes", "bread", "books")
NUM_ITEMS = 40
COLD = 40  # of the kind books; in the catalogue, but nobody has taken it
CONFIG = segue.Config(
    model=segue.ModelConfig(max_length=10, width=16, dropout=0.1),
    training=segue.TrainingConfig(epochs=12, batch_size=16, learning_rate=0.01, validate_every=4),
).with_settings(["tower=content", 'features=["title", "kind"]', "content_size=8"])


def kind_of(item: int) -> str:
    return KINDS[item * len(KINDS) // (NUM_ITEMS + 1)]


def catalogue(*items: int) -> Catalogue:
    kinds = [kind_of(item) if item <= NUM_ITEMS else KINDS[item % len(KINDS)] for item in items]
    titles = [f"{kind} number {item}" for kind, item in zip(kinds, items, strict=True)]
    return Catalogue(pl.DataFrame({"item_id": list(items), "title": titles, "kind": kinds}))


def log_of_kinds() -> InteractionLog:
    """150 users who take ten different items of one kind, in any order."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(150):
        of_kind = [item for item in range(1, NUM_ITEMS + 1) if kind_of(item) == KINDS[user % 4]]
        chosen = random.permutation([item for item in of_kind if item != COLD])[:8]
        # Two users take the cold item last, which holds it out.
        last = [COLD] if user in (3, 7) else []
        rows += [(user, int(item), time) for time, item in enumerate([*chosen, *last])]
    columns = ["user_id", "item_id", "timestamp"]
    return InteractionLog(pl.DataFrame(rows, schema=columns, orient="row"))


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> segue.Recommender:
    path = tmp_path_factory.mktemp("content") / "run"
    items = catalogue(*range(1, NUM_ITEMS + 1))
    segue.fit(segue.leave_one_out(log_of_kinds()), items=items, preset=CONFIG).save(path)
    return segue.load(path)


def test_a_tower_without_room_for_own_vectors_keeps_what_towers_promise():
    frame = pl.DataFrame({CONTENT: np.eye(8, 3, dtype=np.float32)})
    settings = {"features": ("title",), "content_size": 3, "id_limit": 0.0}
    check_tower("content", num_items=8, width=4, catalogue=frame, **settings)


def test_an_item_that_nobody_took_in_training_is_ranked_by_its_content(recommender):
    dense = recommender.vocabulary.encode(pl.Series([COLD]))[0]
    assert recommender.run.item_counts[dense] == 0
    cold = recommender.run.report["by_training"]["new_items"]
    assert cold["targets"] == 2
    assert cold["metrics"]["hr@10"] == 1.0
    assert any("ranked by its content" in note for note in recommender.run.report["notes"])


def test_a_new_item_is_recommended_to_those_who_like_its_kind(recommender, tmp_path):
    grown = recommender.with_items(catalogue(101, 102))  # shoes and bread
    assert grown.vocabulary.num_items == recommender.vocabulary.num_items + 2
    grown.save(tmp_path / "grown")
    for answering in (grown, segue.load(tmp_path / "grown")):
        history = [11, 12, 13, 14]
        assert {kind_of(item) for item in history} == {"shoes"}
        ranked = answering.recommend([history], k=42)["item_id"].to_list()
        assert ranked.index(101) < 8
        assert ranked.index(101) < ranked.index(102)
        assert answering.titles([101]) == ["shoes number 101"]
        assert answering.similar(101, 3)["item_id"].to_list()[0] in range(11, 21)
    assert 101 not in recommender.recommend([[11, 12]], k=42)["item_id"].to_list()


def test_known_items_answer_as_before(recommender):
    grown = recommender.with_items(catalogue(101))
    histories = [[1, 2, 3], [25, 26]]
    before = recommender.recommend(histories, k=40)
    after = grown.recommend(histories, k=41).filter(pl.col("item_id") != 101)
    assert after["item_id"].to_list() == before["item_id"].to_list()
    np.testing.assert_allclose(after["score"], before["score"], rtol=1e-5)
    assert grown.history_of(0) == recommender.history_of(0)


def test_what_is_said_of_a_known_item_now_replaces_what_was(recommender):
    as_wine = {"item_id": [COLD], "title": ["wine number 40"], "kind": ["wine"]}
    moved = recommender.with_items(Catalogue(pl.DataFrame(as_wine)))
    assert moved.vocabulary.equals(recommender.vocabulary)
    assert moved.titles([COLD]) == ["wine number 40"]

    def score(answering: segue.Recommender, history: list[int]) -> float:
        frame = answering.recommend([history], k=40).filter(pl.col("item_id") == COLD)
        return float(frame["score"][0])

    wine, books = [1, 2, 3, 4], [31, 32, 33]
    assert score(moved, wine) > score(recommender, wine)
    assert score(moved, books) < score(recommender, books)


def test_items_that_say_nothing_are_refused_by_name(recommender):
    unknown = pl.DataFrame({"item_id": [101, 102], "title": [None, "Wine"], "kind": [None, None]})
    with pytest.raises(DataError, match="has nothing in title, kind that the run knows"):
        recommender.with_items(Catalogue(unknown))
    with pytest.raises(DataError, match="no column 'kind', which the run reads"):
        recommender.with_items(Catalogue(unknown.drop("kind")))


def test_a_run_of_ids_alone_has_no_place_for_new_items(recommender):
    config = CONFIG.with_settings(["tower=ids", "epochs=1"])
    plain = segue.fit(segue.no_split(log_of_kinds()), items=catalogue(1), preset=config)
    with pytest.raises(RequestError, match="train with --item-features"):
        plain.with_items(catalogue(101))


def test_features_need_a_catalogue():
    with pytest.raises(DataError, match="title, kind are columns of the catalogue"):
        segue.fit(segue.leave_one_out(log_of_kinds()), preset=CONFIG)
