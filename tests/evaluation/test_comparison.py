from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from segue.data.histories import Histories
from segue.data.splits import HeldOut
from segue.data.vocabulary import Vocabulary
from segue.errors import RequestError
from segue.evaluation.comparison import System, compare, refuse_other_held_out
from segue.evaluation.metrics import summarize
from segue.evaluation.protocol import Ranking

NUM_USERS = 400


def system(name, ranks, is_baseline=False):
    ranks = np.asarray(ranks, np.int32)
    users = pl.int_range(len(ranks), eager=True)
    return System(name, Ranking(ranks, ranks, ranks, users), is_baseline)


def random_ranks(seed, highest):
    return np.random.default_rng(seed).integers(1, highest, NUM_USERS)


def test_a_large_difference_is_real_and_the_better_one_is_named():
    found = compare([system("good", random_ranks(0, 5)), system("bad", random_ranks(1, 50), True)])
    (difference,) = found["differences"]
    assert difference["is_real"]
    assert difference["verdict"].startswith("good is better than bad: NDCG@10 +0.")
    assert difference["verdict"].endswith("The difference is real.")
    assert found["systems"]["bad"]["is_baseline"]


def test_the_worse_reference_is_told_so():
    found = compare([system("bad", random_ranks(1, 50)), system("good", random_ranks(0, 5))])
    assert found["differences"][0]["verdict"].startswith("bad is worse than good: NDCG@10 -0.")


def test_a_difference_of_chance_is_not_called_real():
    found = compare([system("one", random_ranks(0, 20)), system("other", random_ranks(1, 20))])
    (difference,) = found["differences"]
    assert not difference["is_real"]
    assert "do not differ beyond chance" in difference["verdict"]


def test_every_system_has_the_metrics_of_its_ranks_with_intervals():
    ranks = random_ranks(0, 30)
    found = compare([system("one", ranks), system("other", random_ranks(1, 30))])["systems"]["one"]
    assert found["metrics"] == summarize(ranks)
    low, high = found["intervals"]["hr@10"]
    assert low < found["metrics"]["hr@10"] < high


def test_p_values_grow_with_the_number_of_comparisons():
    reference, other = system("one", random_ranks(0, 20)), system("other", random_ranks(2, 22))
    alone = compare([reference, other])["differences"][0]["metrics"]["mrr"]
    among = compare([reference, other, replace(other, name="twin")])
    assert alone["adjusted_p_value"] == alone["p_value"]
    for difference in among["differences"]:
        both = difference["metrics"]["mrr"]
        assert both["p_value"] == alone["p_value"]
        assert both["adjusted_p_value"] == pytest.approx(min(1.0, 2 * alone["p_value"]))


def test_a_single_system_and_two_of_one_name_are_refused():
    one = system("one", [1, 2])
    with pytest.raises(RequestError, match="1 systems"):
        compare([one])
    with pytest.raises(RequestError, match="two systems of one name"):
        compare([one, one])


def held_out(item_ids=(5, 6, 7), users=("a", "b"), histories=((5, 6), (6,)), targets=(7, 5)):
    """Two users over outside item ids, counted in the order of `item_ids`."""
    vocabulary = Vocabulary(pl.Series(item_ids))
    encoded = [vocabulary.encode(pl.Series(history)) for history in histories]
    lists = Histories.from_lists(vocabulary, encoded)
    named = replace(lists, user_ids=pl.Series(users))
    return HeldOut("test", named, vocabulary.encode(pl.Series(targets)))


def test_the_same_part_passes_however_the_items_are_counted():
    refuse_other_held_out("one", held_out(), "other", held_out())
    refuse_other_held_out("one", held_out(), "other", held_out(item_ids=(7, 5, 6)))


@pytest.mark.parametrize("item_ids", [(5, 6, 7), (7, 6, 5)])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"users": ("a", "c")}, "test users are not the same"),
        ({"targets": (7, 7)}, "its targets differ"),
        ({"histories": ((6, 5), (6,))}, "histories before its targets differ"),
        ({"histories": ((5,), (6, 6))}, "histories before its targets differ"),
    ],
)
def test_another_part_is_refused(item_ids, change, told):
    with pytest.raises(RequestError, match=f"other was not tested on what one was: .*{told}"):
        refuse_other_held_out("one", held_out(), "other", held_out(item_ids=item_ids, **change))


def test_another_catalogue_is_refused():
    with pytest.raises(RequestError, match="catalogue of 4 items is not the same 3"):
        refuse_other_held_out("one", held_out(), "other", held_out(item_ids=(5, 6, 7, 8)))
