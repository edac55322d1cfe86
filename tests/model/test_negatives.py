"""Negatives: real items only, afresh for each batch, never the user's own where asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.config import LossConfig
from segue.data.histories import Histories
from segue.data.vocabulary import Vocabulary
from segue.errors import TrainingError
from segue.model.negatives import NegativeSampler, generator

pl = pytest.importorskip("polars")


def histories(*lists: list[int], num_items: int = 9) -> Histories:
    vocabulary = Vocabulary.from_ids(pl.Series(range(100, 100 + num_items)))
    return Histories.from_lists(vocabulary, [np.array(each, dtype=np.int32) for each in lists])


def test_uniform_draws_cover_every_item_equally_and_never_padding():
    sampler = NegativeSampler.of(LossConfig(loss="bce"), histories([1, 2, 3]))
    drawn = sampler.draw(generator(0), (90_000,))
    counts = np.bincount(drawn, minlength=10)
    assert counts[0] == 0
    assert len(counts) == 10
    # 10,000 expected of each; five standard deviations are 471.
    assert np.abs(counts[1:] - 10_000).max() < 500


def test_popular_items_are_drawn_in_proportion_to_their_count():
    config = LossConfig(loss="bce", sampling="popularity")
    sampler = NegativeSampler.of(config, histories([1, 1, 1, 2]))
    counts = np.bincount(sampler.draw(generator(0), (40_000,)), minlength=10)
    assert counts[1] == pytest.approx(30_000, abs=500)
    assert counts[2] == pytest.approx(10_000, abs=500)
    assert counts[3:].sum() == 0


def test_log_expected_is_the_log_of_each_items_probability():
    config = LossConfig(loss="bce", sampling="popularity")
    logs = NegativeSampler.of(config, histories([1, 1, 1, 2])).log_expected
    np.testing.assert_allclose(logs[1:3], np.log([0.75, 0.25]), rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(1, 9), min_size=1, max_size=8, unique=True), min_size=1, max_size=6
    ),
    st.integers(0, 10),
    st.sampled_from(["uniform", "popularity"]),
)
def test_with_exclusion_no_draw_is_in_the_users_history(lists, seed, sampling):
    lists = [*lists, list(range(1, 10))[:8], [9]]
    config = LossConfig(loss="bce", exclude_history=True, sampling=sampling)
    sampler = NegativeSampler.of(config, histories(*lists))
    users = np.repeat(np.arange(len(lists)), 20).reshape(len(lists), 20)
    drawn = sampler.draw(generator(seed), (len(lists), 20, 2), users)
    assert drawn.min() >= 1
    assert drawn.max() <= 9
    for user, known in enumerate(lists):
        assert not set(drawn[user].ravel()) & set(known)


def test_users_without_any_history_exclude_nothing():
    config = LossConfig(loss="bce", exclude_history=True)
    sampler = NegativeSampler.of(config, histories([], []))
    drawn = sampler.draw(generator(0), (2, 50), np.zeros((2, 50), dtype=np.int64))
    assert set(drawn.ravel()) == set(range(1, 10))


def test_without_exclusion_the_users_items_are_drawn_too():
    sampler = NegativeSampler.of(LossConfig(loss="bce"), histories([1, 2, 3, 4, 5, 6, 7, 8]))
    drawn = sampler.draw(generator(0), (1, 100), np.zeros((1, 100), dtype=np.int64))
    assert set(drawn.ravel()) & {1, 2, 3, 4, 5, 6, 7, 8}


def test_a_user_who_knows_everything_has_no_negative():
    config = LossConfig(loss="bce", exclude_history=True)
    sampler = NegativeSampler.of(config, histories(list(range(1, 10))))
    with pytest.raises(TrainingError, match=r"at index 0 .* every item that can be drawn"):
        sampler.draw(generator(0), (1, 1), np.zeros((1, 1), dtype=np.int64))


def test_a_draw_depends_on_its_counters_alone():
    sampler = NegativeSampler.of(LossConfig(loss="bce"), histories([1, 2, 3]))
    first = sampler.draw(generator(7, 2, 5), (50,))
    np.testing.assert_array_equal(first, sampler.draw(generator(7, 2, 5), (50,)))
    assert (first != sampler.draw(generator(7, 2, 6), (50,))).any()
    assert (first != sampler.draw(generator(7, 3, 5), (50,))).any()
    assert (first != sampler.draw(generator(8, 2, 5), (50,))).any()
