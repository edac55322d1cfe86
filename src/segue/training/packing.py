"""Windows of histories, and their packing into rows of fixed length, as full as they get."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from segue.arrays import offsets_of, ranges
from segue.data.histories import Histories

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """The training windows: pieces of the flat histories, each with at least one target.

    A window of n + 1 items has n inputs, its first n items, and n targets, its last n.

    Attributes:
        starts: int64[windows], where each begins in the flat `item_ids`.
        lengths: int64[windows], inputs of each, 1..max_length.
        users: int64[windows], the index of the user whose items they are.
    """

    starts: Ints
    lengths: Ints
    users: Ints

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def num_targets(self) -> int:
        return int(self.lengths.sum())


def newest_windows(histories: Histories, max_length: int) -> Windows:
    """One window a user, of the newest items; users with fewer than two items have none."""
    lengths = np.minimum(histories.lengths - 1, max_length)
    users = np.flatnonzero(lengths > 0)
    lengths = lengths[users]
    starts = histories.offsets[1:][users] - lengths - 1
    return Windows(starts, lengths, users)


def consecutive_windows(histories: Histories, max_length: int) -> Windows:
    """Every user's whole history, cut from its newest item back, so that each target occurs once.

    The oldest window of a user is the one that may be short. Neighbours share an item, the last
    target of one and the first input of the next.
    """
    targets = np.maximum(histories.lengths - 1, 0)
    counts = -(-targets // max_length)
    users = np.repeat(np.arange(histories.num_users), counts)
    firsts = np.repeat(offsets_of(counts)[:-1], counts)
    windows_after = np.repeat(counts, counts) - 1 - (np.arange(len(users)) - firsts)
    ends = histories.offsets[1:][users] - 1 - windows_after * max_length
    starts = np.maximum(ends - max_length, histories.offsets[:-1][users])
    return Windows(starts, ends - starts, users)


@dataclass(frozen=True, eq=False)
class Packing:
    """Which window lies where: row r holds `order[row_offsets[r]:row_offsets[r + 1]]`.

    Attributes:
        order: int64[windows], indexes of windows, row after row.
        row_offsets: int64[rows + 1].
    """

    order: Ints
    row_offsets: Ints

    @property
    def num_rows(self) -> int:
        return len(self.row_offsets) - 1


@dataclass(frozen=True, eq=False)
class Layout:
    """Where every input of an epoch goes: an entry for each, row after row.

    Rows of 6 positions; the first holds windows of 3 and 2 inputs, the second one of 4:

        row 0    a0 a1 a2 b0 b1  .       row      0  0  0  0  0  1  1  1  1
        row 1    c0 c1 c2 c3  .  .       column   0  1  2  3  4  0  1  2  3
                                         segment  1  1  1  2  2  1  1  1  1
                                         source   the places of a0, a1, ... in the histories

    The target of an input comes right after it in the histories, at source + 1.

    Attributes:
        source: int64[inputs], places in the flat arrays of the histories.
        row, column: int32[inputs], ascending by row, then by column.
        segment: int32[inputs], the number of the window in its row, from 1.
        num_rows: how many rows there are.
    """

    source: Ints
    row: npt.NDArray[np.int32]
    column: npt.NDArray[np.int32]
    segment: npt.NDArray[np.int32]
    num_rows: int

    @classmethod
    def of(cls, windows: Windows, packing: Packing) -> "Layout":
        """The layout of the inputs of `windows`, packed as `packing` says."""
        starts, lengths = windows.starts[packing.order], windows.lengths[packing.order]
        row = np.repeat(np.arange(packing.num_rows), np.diff(packing.row_offsets))
        first_of_row = packing.row_offsets[row]
        segment = np.arange(len(row)) - first_of_row + 1
        ends = offsets_of(lengths)
        column = ends[:-1] - ends[first_of_row]

        def of_each_input(values: Ints) -> npt.NDArray[np.int32]:
            return np.repeat(values.astype(np.int32), lengths)

        return cls(
            ranges(starts, lengths),
            of_each_input(row),
            ranges(column, lengths).astype(np.int32),
            of_each_input(segment),
            packing.num_rows,
        )

    def of_rows(self, first: int, stop: int) -> slice:
        """The entries of the rows from `first` up to but without `stop`."""
        return slice(int(self._row_offsets[first]), int(self._row_offsets[stop]))

    @cached_property
    def _row_offsets(self) -> Ints:
        return offsets_of(np.bincount(self.row, minlength=self.num_rows))


def pack(lengths: Ints, row_length: int, random: np.random.Generator) -> Packing:
    """Packs windows by best fit, longest first (Johnson, 1974), and shuffles.

    Windows of one length are interchangeable, so that whole groups are placed at once: the work
    grows with the square of `row_length`, not with the number of windows. Which windows share a
    row, and the order of the rows, come from `random`; the number of rows does not.

    Args:
        lengths: int64[windows], each 1..row_length.
        row_length: positions of a row.
        random: shuffles the windows and the rows.
    """
    order = random.permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    sizes, counts = np.unique(lengths, return_counts=True)
    rows_with_room: list[list[Ints]] = [[] for _ in range(row_length + 1)]
    row_of = np.empty(len(lengths), dtype=np.int64)
    num_rows, placed = 0, 0
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            rows, room = _tightest_rows(rows_with_room, size, count)
            if not len(rows):
                room = row_length
                fitting = -(-count // (row_length // size))
                rows = np.arange(num_rows, num_rows + fitting)
                num_rows += fitting
            each = min(room // size, -(-count // len(rows)))
            taken = np.tile(rows, each)[:count]
            row_of[placed : placed + len(taken)] = taken
            _put_back(rows_with_room, rows, room, size, len(taken))
            placed += len(taken)
            count -= len(taken)
    return _in_shuffled_rows(order, row_of, num_rows, random)


def unpacked(num_windows: int, random: np.random.Generator) -> Packing:
    """One window a row, shuffled: the plain padded batch."""
    return Packing(random.permutation(num_windows), np.arange(num_windows + 1))


def _tightest_rows(rows_with_room: list[list[Ints]], size: int, count: int) -> tuple[Ints, int]:
    """Takes at most `count` rows out of the fullest group that still holds `size`."""
    for room in range(size, len(rows_with_room)):
        if rows_with_room[room]:
            rows = rows_with_room[room].pop()
            if len(rows) > count:
                rows_with_room[room].append(rows[count:])
                rows = rows[:count]
            return rows, room
    return np.empty(0, dtype=np.int64), 0


def _put_back(
    rows_with_room: list[list[Ints]], rows: Ints, room: int, size: int, taken: int
) -> None:
    """Files the rows under the room they have left after `taken` windows went round them."""
    full_rounds, rest = divmod(taken, len(rows))
    for group, rounds in ((rows[:rest], full_rounds + 1), (rows[rest:], full_rounds)):
        left = room - rounds * size
        if len(group) and left:
            rows_with_room[left].append(group)


def _in_shuffled_rows(
    order: Ints, row_of: Ints, num_rows: int, random: np.random.Generator
) -> Packing:
    new_row = random.permutation(num_rows)
    row_of = new_row[row_of]
    by_row = np.argsort(row_of, kind="stable")
    sizes = np.bincount(row_of, minlength=num_rows)
    return Packing(order[by_row], offsets_of(sizes))
