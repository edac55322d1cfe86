"""Batches against a brute-force reading of the histories."""

from itertools import chain

import numpy as np
import polars as pl
import pytest

from segue.config import Config, DrawnLossConfig
from segue.data.histories import Histories
from segue.data.times import UNKNOWN_TIME
from segue.data.vocabulary import Vocabulary
from segue.errors import TrainingError
from segue.model.negatives import NegativeSampler
from segue.training.batches import Batch, Batches
from segue.training.plan import Plan

LENGTH = 8


def histories(lists) -> Histories:
    vocabulary = Vocabulary.from_ids(pl.Series(range(1, 51)))
    return Histories.from_lists(vocabulary, [np.array(each, dtype=np.int32) for each in lists])


@pytest.fixture
def lists() -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.permutation(50)[: random.integers(1, 20)].tolist() for _ in range(40)]


@pytest.fixture(autouse=True)
def _items_start_at_1(lists):
    for each in lists:
        each[:] = [item + 1 for item in each]


class Numbered:
    """The batches of an epoch by number, as (inputs, targets, weights)."""

    def __init__(self, train: Histories, config: Config, wants: tuple[str, ...] = ()) -> None:
        self.plan = Plan.of(train, config)
        sampler = None
        if isinstance(config.loss, DrawnLossConfig):
            sampler = NegativeSampler.of(config.loss, train)
        self.batches = Batches(train, config, self.plan, sampler, wants)
        self.rows_per_batch = self.plan.rows_per_batch
        self.start_at(0, 0)

    def start_at(self, epoch: int, first: int) -> None:
        self.found = [parts_of(batch) for batch in self.batches.of_epoch(epoch, first)]
        self.num_batches = len(self.found)

    def __getitem__(self, index: int):
        return self.found[index]


def parts_of(batch: Batch):
    return batch.inputs, batch.targets, batch.weights


def batches_of(lists, *settings: str) -> Numbered:
    config = Config().with_settings([f"max_length={LENGTH}", "batch_size=10", *settings])
    return Numbered(histories(lists), config)


def pairs_of(x, y, weights) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The (inputs, targets) of each segment, as tuples."""
    found = []
    for row in range(len(x["item_ids"])):
        segments = x["segment_ids"][row]
        for segment in range(1, segments.max() + 1):
            here = segments == segment
            assert np.ptp(np.flatnonzero(here)) == here.sum() - 1
            assert (weights[row][here] == 1).all()
            found.append(
                (tuple(x["item_ids"][row][here]), tuple(y["positive_sequence"][row][here]))
            )
        assert (weights[row][segments == 0] == 0).all()
        assert (x["item_ids"][row][segments == 0] == 0).all()
    return found


@pytest.mark.parametrize("packed", ["packed=true", "packed=false"])
def test_an_epoch_holds_every_users_newest_window_once(lists, packed):
    batches = batches_of(lists, packed)
    found = [pair for index in range(batches.num_batches) for pair in pairs_of(*batches[index])]
    expected = [
        (tuple(each[-LENGTH - 1 : -1]), tuple(each[-LENGTH:][-len(each[-LENGTH - 1 : -1]) :]))
        for each in lists
        if len(each) > 1
    ]
    assert sorted(found) == sorted(expected)


def test_users_with_long_histories_have_as_many_targets_as_fit(lists):
    lists[0] = list(range(1, 51))
    batches = batches_of(lists, "packed=false")
    total = sum(batches[index][2].sum() for index in range(batches.num_batches))
    assert total == sum(min(LENGTH, len(each) - 1) for each in lists if len(each) > 1)


def test_all_windows_hold_every_item_of_every_history_but_the_first_as_a_target(lists):
    batches = batches_of(lists, "windows=all")
    received = sorted(
        int(target)
        for number in range(batches.num_batches)
        for target in batches[number][1]["positive_sequence"].reshape(-1)
        if target
    )
    assert received == sorted(chain.from_iterable(each[1:] for each in lists))


def test_users_are_shuffled_anew_every_epoch(lists):
    batches = batches_of(lists)
    first = [pairs_of(*batches[index]) for index in range(batches.num_batches)]
    batches.start_at(1, 0)
    second = [pairs_of(*batches[index]) for index in range(batches.num_batches)]
    assert first != second
    assert sorted(chain(*first)) == sorted(chain(*second))
    batches.start_at(0, 0)
    assert first == [pairs_of(*batches[index]) for index in range(batches.num_batches)]


def test_starting_in_the_middle_gives_the_batches_that_are_left(lists):
    batches = batches_of(lists)
    whole = [batches[index] for index in range(batches.num_batches)]
    batches.start_at(0, 2)
    assert batches.num_batches == len(whole) - 2
    np.testing.assert_array_equal(batches[0][0]["item_ids"], whole[2][0]["item_ids"])


def test_every_batch_has_one_shape(lists):
    batches = batches_of(lists, "loss=bce", "negatives=3")
    shapes = {
        (x["item_ids"].shape, y["negative_sequence"].shape, weights.shape)
        for x, y, weights in (batches[index] for index in range(batches.num_batches))
    }
    rows = batches.rows_per_batch
    assert shapes == {((rows, LENGTH), (rows, LENGTH, 3), (rows, LENGTH))}


def test_batch_size_counts_windows_not_rows(lists):
    batches = batches_of(lists)
    windows = [len(pairs_of(*batches[index])) for index in range(batches.num_batches)]
    # Rows come in fours, and a row holds one to several windows.
    assert np.mean(windows[:-1]) == pytest.approx(10, abs=5)
    unpacked = batches_of(lists, "packed=false")
    windows = [len(pairs_of(*unpacked[index])) for index in range(unpacked.num_batches)]
    assert set(windows[:-1]) == {10}


def test_negatives_are_drawn_anew_for_every_batch_and_epoch_and_avoid_the_user(lists):
    # The reference drew them once for all epochs.
    batches = batches_of(lists, "loss=bce", "exclude_history=true", "packed=false")
    x, y, weights = batches[0]
    first = y["negative_sequence"]
    np.testing.assert_array_equal(first, batches[0][1]["negative_sequence"])
    batches.start_at(1, 0)
    assert (first != batches[0][1]["negative_sequence"]).mean() > 0.5
    batches.start_at(0, 0)
    history_of = {tuple(each[-LENGTH - 1 : -1]): set(each) for each in lists}
    for row in range(len(first)):
        is_target = weights[row] > 0
        if is_target.any():
            known = history_of[tuple(x["item_ids"][row][is_target])]
            assert not set(first[row][is_target].ravel()) & known
    assert first[weights > 0].min() >= 1
    assert first.max() <= 50


def test_shared_negatives_are_one_draw_for_the_batch_and_another_for_every_other(lists):
    batches = batches_of(lists, "loss=sampled_softmax", "negatives=7", "negatives_per=batch")
    draw = batches[0][1]["negative_sequence"]
    assert draw.shape == (7,)
    assert (draw != batches[1][1]["negative_sequence"]).any()
    batches.start_at(1, 0)
    assert (draw != batches[0][1]["negative_sequence"]).any()


def test_a_rows_negatives_are_one_draw_for_its_windows(lists):
    batches = batches_of(lists, "loss=sampled_softmax", "negatives=7", "negatives_per=row")
    negatives = batches[0][1]["negative_sequence"]
    assert negatives.shape == (batches.rows_per_batch, 1, 7)
    assert negatives.min() >= 1
    assert len(np.unique(negatives, axis=0)) == batches.rows_per_batch


@pytest.mark.parametrize("per", ["target", "row", "batch"])
def test_in_batch_negatives_are_targets_of_the_batch_as_often_as_they_are_there(lists, per):
    batches = batches_of(
        lists,
        "loss=sampled_softmax",
        "negatives=4000" if per == "batch" else "negatives=50",
        "sampling=in_batch",
        f"negatives_per={per}",
        "batch_size=5",
    )
    _, y, weights = batches[0]
    targets = y["positive_sequence"][weights > 0]
    negatives = y["negative_sequence"]
    negatives = (negatives[weights > 0] if per == "target" else negatives).ravel()
    assert set(negatives) <= set(targets)
    share = np.bincount(targets, minlength=100) / len(targets)
    drawn = np.bincount(negatives, minlength=100) / len(negatives)
    assert np.abs(drawn - share).max() < 5 * np.sqrt(share.max() / len(negatives))


def test_a_wanted_time_stands_beside_its_item_and_that_of_the_target_says_when_it_was_asked_for():
    # 2000-01-01 is 946,684,800 in Unix time; two users, one row.
    times = [946_684_800 + second for second in (10, 25, 70, 5, 6)]
    train = Histories(
        Vocabulary.from_ids(pl.Series(range(1, 51))),
        pl.Series([1, 2]),
        np.array([0, 3, 5]),
        np.array([4, 9, 2, 7, 3], np.int32),
        np.array(times),
    )
    config = Config().with_settings([f"max_length={LENGTH}", "batch_size=10"])
    inputs, targets, _ = Numbered(train, config, ("timestamps", "asked_at"))[0]
    item_ids = inputs["item_ids"]
    (row,) = np.flatnonzero((item_ids == 4).any(axis=1))
    known = {4: (10, 25, 9), 9: (25, 70, 2), 7: (5, 6, 3)}
    for column, item in enumerate(item_ids[row]):
        found = tuple(array[row, column] for array in (inputs["timestamps"], inputs["asked_at"]))
        if item:
            assert (*found, targets["positive_sequence"][row, column]) == known[int(item)]
        else:
            assert found == (UNKNOWN_TIME, UNKNOWN_TIME)


def test_wanted_times_that_are_not_known_are_unknown_and_not_made_up(lists):
    config = Config().with_settings([f"max_length={LENGTH}"])
    inputs, _, _ = Numbered(histories(lists), config, ("timestamps", "asked_at"))[0]
    assert (inputs["timestamps"] == UNKNOWN_TIME).all()
    assert (inputs["asked_at"] == UNKNOWN_TIME).all()


def test_histories_of_single_items_leave_nothing_to_learn():
    with pytest.raises(TrainingError, match="none of the 2 users has two training items"):
        batches_of([[1], [2]])
