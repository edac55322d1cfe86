"""Packing: every window once, no row overfull, rows nearly full, another order each epoch."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.histories import Histories
from segue.data.vocabulary import Vocabulary
from segue.training.packing import (
    Layout,
    Packing,
    Windows,
    consecutive_windows,
    newest_windows,
    pack,
    unpacked,
)

ROW = 12


def filled(lengths: np.ndarray, packing) -> np.ndarray:
    """Positions used in each row."""
    starts = np.repeat(np.arange(packing.num_rows), np.diff(packing.row_offsets))
    return np.bincount(starts, weights=lengths[packing.order], minlength=packing.num_rows)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, ROW), min_size=1, max_size=80), st.integers(0, 5))
def test_every_window_lies_in_one_row_and_no_row_is_overfull(lengths, seed):
    lengths = np.array(lengths)
    packing = pack(lengths, ROW, np.random.default_rng(seed))
    assert sorted(packing.order) == list(range(len(lengths)))
    used = filled(lengths, packing)
    assert used.max() <= ROW
    assert used.min() >= 1
    # Best fit decreasing needs at most 11/9 of the optimum and 4 rows more (Johnson, 1974).
    assert (
        packing.num_rows <= 11 / 9 * np.ceil(lengths.sum() / ROW) + 4
        or (2 * lengths > ROW).sum() * 11 / 9 + 4 >= packing.num_rows
    )


def test_real_history_lengths_fill_their_rows():
    random = np.random.default_rng(0)
    lengths = np.minimum(random.lognormal(4.5, 0.9, 6040).astype(int) + 18, 200)
    packing = pack(lengths, 200, random)
    assert lengths.sum() / (200 * packing.num_rows) > 0.99


def test_the_number_of_rows_is_a_matter_of_the_lengths_alone():
    lengths = np.random.default_rng(0).integers(1, ROW + 1, 500)
    shuffled = np.random.default_rng(1).permutation(lengths)
    rows = {
        pack(each, ROW, np.random.default_rng(seed)).num_rows
        for seed, each in enumerate((lengths, lengths, shuffled))
    }
    assert len(rows) == 1


def test_another_seed_puts_other_windows_together_in_another_order():
    lengths = np.random.default_rng(0).integers(1, ROW + 1, 500)
    first, second = (pack(lengths, ROW, np.random.default_rng(seed)) for seed in (1, 2))
    again = pack(lengths, ROW, np.random.default_rng(1))
    np.testing.assert_array_equal(first.order, again.order)
    assert (first.order != second.order).mean() > 0.9

    def neighbours(packing):
        pairs = set()
        for at in range(packing.num_rows):
            row = packing.order[packing.row_offsets[at] : packing.row_offsets[at + 1]]
            pairs |= {(a, b) for a in row for b in row if a < b}
        return pairs

    assert len(neighbours(first) & neighbours(second)) < 0.2 * len(neighbours(first))


def test_unpacked_is_one_window_a_row():
    packing = unpacked(5, np.random.default_rng(0))
    assert sorted(packing.order) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(packing.row_offsets, range(6))


def histories(*lengths: int) -> Histories:
    vocabulary = Vocabulary.from_ids(pl.Series(range(1, 400)))
    return Histories.from_lists(
        vocabulary, [np.arange(1, length + 1, dtype=np.int32) for length in lengths]
    )


def test_a_window_is_the_newest_items_and_one_target_more():
    # Keeping the first 200 items of a longer history is the reference's second defect.
    log = histories(5, 300, 1, 0, 2)
    windows = newest_windows(log, max_length=200)
    np.testing.assert_array_equal(windows.users, [0, 1, 4])
    np.testing.assert_array_equal(windows.lengths, [4, 200, 1])
    newest = log.item_ids[windows.starts[1] : windows.starts[1] + 201]
    np.testing.assert_array_equal(newest, range(100, 301))
    assert windows.num_targets == 205


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3 * ROW + 2), min_size=1, max_size=12))
def test_consecutive_windows_hold_every_target_once_cut_from_the_newest_back(sizes):
    users = [np.arange(1, size + 1, dtype=np.int32) for size in sizes]
    vocabulary = Vocabulary.from_ids(pl.int_range(1, 3 * ROW + 3, dtype=pl.Int64, eager=True))
    histories = Histories.from_lists(vocabulary, users)
    windows = consecutive_windows(histories, ROW)
    received = [
        (int(user), histories.item_ids[start : start + length + 1].tolist())
        for start, length, user in zip(windows.starts, windows.lengths, windows.users, strict=True)
    ]
    expected = []
    for user, items in enumerate(users):
        pieces, end = [], len(items)
        while end > 1:
            start = max(0, end - 1 - ROW)
            pieces.append((user, items[start:end].tolist()))
            end = start + 1
        expected += pieces[::-1]
    assert received == expected


def test_a_layout_is_the_picture_of_its_docstring():
    # Two windows of 3 and 2 inputs in the first row, one of 4 in the second.
    windows = Windows(np.array([20, 0, 9]), np.array([4, 3, 2]), np.array([2, 0, 1]))
    layout = Layout.of(windows, Packing(np.array([1, 2, 0]), np.array([0, 2, 3])))
    np.testing.assert_array_equal(layout.source, [0, 1, 2, 9, 10, 20, 21, 22, 23])
    np.testing.assert_array_equal(layout.row, [0, 0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(layout.column, [0, 1, 2, 3, 4, 0, 1, 2, 3])
    np.testing.assert_array_equal(layout.segment, [1, 1, 1, 2, 2, 1, 1, 1, 1])
    assert layout.num_rows == 2
    assert layout.of_rows(0, 1) == slice(0, 5)
    assert layout.of_rows(1, 2) == slice(5, 9)


def laid_out_one_by_one(windows, packing):
    """(source, row, column, segment) of every input, by loops."""
    entries = []
    for row in range(packing.num_rows):
        column = 0
        in_row = packing.order[packing.row_offsets[row] : packing.row_offsets[row + 1]]
        for segment, window in enumerate(in_row, start=1):
            for place in range(windows.lengths[window]):
                entries.append((windows.starts[window] + place, row, column, segment))
                column += 1
    return np.array(entries).T


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 3 * ROW), min_size=1, max_size=40).filter(lambda each: max(each) > 1),
    st.integers(0, 5),
    st.sampled_from([newest_windows, consecutive_windows]),
    st.booleans(),
)
def test_a_layout_is_that_of_one_input_after_the_other(lengths, seed, cut, is_packed):
    windows = cut(histories(*lengths), ROW)
    random = np.random.default_rng(seed)
    packing = pack(windows.lengths, ROW, random) if is_packed else unpacked(len(windows), random)
    layout = Layout.of(windows, packing)
    expected = laid_out_one_by_one(windows, packing)
    np.testing.assert_array_equal(
        [layout.source, layout.row, layout.column, layout.segment], expected
    )
    for row in range(layout.num_rows):
        entries = layout.of_rows(row, row + 1)
        np.testing.assert_array_equal(layout.row[entries], row)
    assert layout.of_rows(0, layout.num_rows) == slice(0, windows.num_targets)
