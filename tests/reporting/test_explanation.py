import numpy as np
import polars as pl
import pytest

import segue
from segue.config import Config, ModelConfig, TrainingConfig
from segue.errors import RequestError
from segue.reporting.explanation import explain

CAUSES, ANSWERS = (1, 2), (81, 82)


@pytest.fixture(scope="module")
def planted():
    """Each history holds one of two causes among fillers, and ends with the answer to it.

    Their lengths differ: were they all alike, the place would tell where the answer comes.
    """
    rng = np.random.default_rng(0)
    rows = []
    for user in range(600):
        kind = user % 2
        history = rng.permutation(20)[: rng.integers(3, 9)] + 10
        history[rng.integers(0, len(history))] = CAUSES[kind]
        items = [*history.tolist(), ANSWERS[kind]]
        rows += [(user, item, place) for place, item in enumerate(items)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    config = Config(
        model=ModelConfig(max_length=10, width=32, dropout=0.1),
        training=TrainingConfig(epochs=25, batch_size=64, learning_rate=5e-3),
    )
    return segue.fit(segue.read_log(log), preset=config)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("place", [0, 2, 5])
def test_the_planted_cause_is_found_wherever_it_stands(planted, kind, place):
    history = [11, 17, 13, 24, 29]
    history.insert(place, CAUSES[kind])
    found = explain(planted, history, ANSWERS[kind])
    strongest = min(found.influences, key=lambda each: each.change)
    assert (strongest.item_id, strongest.place) == (CAUSES[kind], place + 1)
    others = [abs(each.change) for each in found.influences if each is not strongest]
    assert strongest.change < -2 * max(others)
    # It says nothing like that of the other answer; a softmax leaves open a term common to all.
    other = explain(planted, history, ANSWERS[1 - kind])
    assert other.influences[place].change > strongest.change / 4


def test_scores_are_those_that_the_recommender_gives(recommender):
    history = [3, 7, 3, 12]
    found = explain(recommender, history, 9)

    def score(items):
        top = recommender.recommend([items], k=30, exclude_seen=False)
        return top.filter(item_id=9)["score"].item()

    assert found.score == pytest.approx(score(history), abs=1e-5)
    assert [each.item_id for each in found.influences] == history
    for place, each in enumerate(found.influences):
        rest = history[:place] + history[place + 1 :]
        assert each.score_without == pytest.approx(score(rest), abs=1e-5)
        assert each.change == pytest.approx(each.score_without - found.score)


def test_items_before_the_window_change_nothing_and_move_up_into_it(recommender):
    history = [1 + place % 30 for place in range(25)]
    found = explain(recommender, history, 9)
    assert len(found.influences) == 25
    assert [each.change for each in found.influences[:5]] == [0.0] * 5
    shorter = recommender.recommend([[*history[:10], *history[11:]]], k=30, exclude_seen=False)
    expected = shorter.filter(item_id=9)["score"].item()
    assert found.influences[10].score_without == pytest.approx(expected, abs=1e-5)


def test_places_count_unknown_items_too(recommender):
    found = explain(recommender, ["nothing", "3", 7], "9")
    assert found.unknown_items == ["nothing"]
    assert [(each.place, each.title) for each in found.influences] == [(2, "Café 3"), (3, "Café 7")]
    assert (found.item_id, found.title) == (9, "Café 9")
    assert "do not add up" in found.note


def test_an_unknown_item_and_a_history_without_a_known_one_are_refused(recommender):
    with pytest.raises(RequestError, match="item 99 is not among the run's 30 items"):
        explain(recommender, [1], 99)
    with pytest.raises(RequestError, match="nothing to explain"):
        explain(recommender, ["x"], 9)
