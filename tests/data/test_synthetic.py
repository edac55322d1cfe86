from itertools import pairwise

import numpy as np
import pytest

from segue.data.histories import Histories
from segue.data.synthetic import markov_log, popularity_log
from segue.errors import DataError


def test_a_certain_walk_gives_every_item_one_successor_in_one_cycle() -> None:
    log = markov_log(50, 12, 30, seed=3)
    assert len(log) == 50 * 30
    histories = Histories.from_log(log)
    successor: dict[int, int] = {}
    for user in range(50):
        items = histories.items_of(user).tolist()
        assert len(items) == 30
        for item, following in pairwise(items):
            assert successor.setdefault(item, following) == following
    item, visited = 1, set()
    while item not in visited:
        visited.add(item)
        item = successor[item]
    assert visited == set(range(1, 13))


def test_an_uncertain_walk_follows_the_cycle_as_often_as_it_says() -> None:
    certain = markov_log(1, 100, 101, seed=5).frame["item_id"].to_list()
    successor = dict(pairwise(certain))
    frame = markov_log(400, 100, 50, certainty=0.7, seed=5).frame
    items = frame["item_id"].to_numpy().reshape(400, 50)
    expected = np.vectorize(successor.get)(items[:, :-1])
    # A uniform jump lands on the successor once in a hundred: 0.7 + 0.3 / 100.
    assert np.mean(items[:, 1:] == expected) == pytest.approx(0.703, abs=0.015)


def test_few_items_are_drawn_often_and_users_differ_in_activity() -> None:
    log = popularity_log(100_000, 1_000, 500, seed=1)
    assert len(log) == 100_000
    counts = np.sort(np.bincount(log.frame["item_id"].to_numpy(), minlength=501))[::-1]
    # Zipf's law over 500 items: the first has 1 / H(500) = 0.147 of all, twice the second.
    assert counts[0] / 100_000 == pytest.approx(0.147, abs=0.005)
    assert counts[0] / counts[1] == pytest.approx(2, abs=0.1)
    assert log.frame["item_id"].min() == 1
    assert log.frame["item_id"].max() == 500
    lengths = np.bincount(log.frame["user_id"].to_numpy(), minlength=1_001)[1:]
    assert lengths.max() > 5 * np.median(lengths)
    assert not log.frame["timestamp"].is_sorted()


def test_the_same_seed_gives_the_same_log_and_another_seed_another() -> None:
    assert markov_log(5, 9, 7, certainty=0.5, seed=1).frame.equals(
        markov_log(5, 9, 7, certainty=0.5, seed=1).frame
    )
    assert popularity_log(50, 9, 7, seed=1).frame.equals(popularity_log(50, 9, 7, seed=1).frame)
    assert not popularity_log(50, 9, 7, seed=1).frame.equals(popularity_log(50, 9, 7, seed=2).frame)
    assert not markov_log(5, 9, 7, seed=1).frame.equals(markov_log(5, 9, 7, seed=2).frame)


def test_sizes_and_certainties_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="num_items=0 makes no log; give at least 1"):
        markov_log(5, 0, 7)
    with pytest.raises(DataError, match="num_interactions=-1 makes no log"):
        popularity_log(-1, 5, 5)
    with pytest.raises(DataError, match=r"certainty=1\.5 is no probability"):
        markov_log(5, 5, 7, certainty=1.5)
