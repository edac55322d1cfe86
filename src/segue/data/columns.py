"""Histories as rows of equal length: the items, their times, and the moment each is asked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from segue.arrays import offsets_of, ranges
from segue.data.times import UNKNOWN_TIME
from segue.errors import DataError

Array = npt.NDArray[Any]
Seconds = npt.NDArray[np.int32]

ITEM_IDS, TIMESTAMPS, ASKED_AT = "item_ids", "timestamps", "asked_at"


@dataclass(frozen=True, eq=False)
class Columns:
    """One row a history, oldest first from the left; padding after the end.

    Two histories, asked about at 95 and at an unknown moment:

        item_ids    [[7, 3, 9],     timestamps [[10, 40, 90],    asked_at [95,
                     [5, 0, 0]]                 [60,  ?,  ?]]               ?]

    Attributes:
        item_ids: int32[rows, length], dense; 0 = padding.
        timestamps: int32[rows, length], seconds since 2000 (see `data.times`), `UNKNOWN_TIME` on
            padding and where it is not known; None: nothing is known of the times.
        asked_at: int32[rows], when what follows is asked for, in the same seconds; None: not known.
        others: Further columns by name, [rows, length].

    Raises:
        DataError: The columns differ in their shapes.
    """

    item_ids: npt.NDArray[np.int32]
    timestamps: Seconds | None = None
    asked_at: Seconds | None = None
    others: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.item_ids.shape
        named = {TIMESTAMPS: self.timestamps, **self.others}
        for name, column in named.items():
            if column is not None and column.shape != shape:
                raise DataError(
                    f"{name} must have the shape {shape} of item_ids, got {column.shape}"
                )
        if self.asked_at is not None and self.asked_at.shape != shape[:1]:
            raise DataError(f"asked_at must have the shape {shape[:1]}, got {self.asked_at.shape}")

    @classmethod
    def from_lists(
        cls,
        histories: Sequence[npt.NDArray[np.int32]],
        max_length: int,
        *,
        seconds: Sequence[Seconds] | None = None,
        asked_at: Seconds | None = None,
    ) -> Self:
        """The newest `max_length` items of each history.

        Args:
            histories: int32[n] each, dense ids, oldest first.
            max_length: Positions of a row, at least 1.
            seconds: int32[n] each, the items' times; None: not known.
            asked_at: int32[histories]; None: not known.
        """
        lengths = np.fromiter((len(history) for history in histories), np.int64, len(histories))
        empty = np.zeros(0, np.int32)
        flat = {ITEM_IDS: np.concatenate([empty, *histories]).astype(np.int32)}
        if seconds is not None:
            flat[TIMESTAMPS] = np.concatenate([empty, *seconds]).astype(np.int32)
        return cls.from_flat(flat, offsets_of(lengths), max_length, asked_at=asked_at)

    @classmethod
    def from_flat(
        cls,
        flat: Mapping[str, Array],
        offsets: npt.NDArray[np.int64],
        max_length: int,
        *,
        rows: slice | npt.NDArray[np.intp] = slice(None),
        asked_at: Seconds | None = None,
    ) -> Self:
        """The newest `max_length` interactions of some of the histories in flat arrays.

        Args:
            flat: Columns by name, [interactions], `item_ids` among them.
            offsets: int64[histories + 1], where each history begins.
            max_length: Positions of a row.
            rows: Which histories.
            asked_at: int32[rows]; None: not known.

        Raises:
            DataError: `max_length` is below 1.
        """
        if max_length < 1:
            raise DataError(f"max_length must be at least 1, got {max_length}")
        ends = offsets[1:][rows]
        starts = np.maximum(offsets[:-1][rows], ends - max_length)
        lengths = ends - starts
        places = ranges(starts, lengths)
        is_item = np.arange(max_length) < lengths[:, None]
        padded: dict[str, Array] = {}
        for name, values in flat.items():
            padded[name] = np.full(is_item.shape, unknown_of(name), values.dtype)
            padded[name][is_item] = values[places]
        item_ids = padded.pop(ITEM_IDS)
        return cls(item_ids, padded.pop(TIMESTAMPS, None), asked_at, padded)

    @property
    def num_rows(self) -> int:
        return len(self.item_ids)

    @property
    def length(self) -> int:
        """Positions of a row."""
        return int(self.item_ids.shape[1])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Items of each row, int64[rows]."""
        lengths: npt.NDArray[np.int64] = np.count_nonzero(self.item_ids, axis=1)
        return lengths

    def take(self, rows: slice | npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Self:
        """These rows, in the order given."""
        return type(self)(
            self.item_ids[rows],
            None if self.timestamps is None else self.timestamps[rows],
            None if self.asked_at is None else self.asked_at[rows],
            {name: column[rows] for name, column in self.others.items()},
        )

    def inputs(self, wants: Sequence[str] = ()) -> dict[str, Array]:
        """What a model is given: `item_ids` and every wanted column, [rows, length] each.

        `asked_at` is, at each position, when the item after it was asked for: the time of the next
        item in the row, and the row's own `asked_at` at its last item. What is not known is filled
        with what `unknown_of` says.
        """
        columns: dict[str, Array] = {ITEM_IDS: self.item_ids}
        for name in wants:
            if name == ASKED_AT:
                columns[name] = self._asked_after_each()
            elif name == TIMESTAMPS:
                columns[name] = self._known_or(self.timestamps, name, np.int32)
            elif name != ITEM_IDS:
                columns[name] = self._known_or(self.others.get(name), name, np.float32)
        return columns

    def _known_or(self, column: Array | None, name: str, dtype: Any) -> Array:
        return np.full(self.item_ids.shape, unknown_of(name), dtype) if column is None else column

    def _asked_after_each(self) -> Seconds:
        asked = np.full(self.item_ids.shape, UNKNOWN_TIME, np.int32)
        if self.timestamps is not None:
            asked[:, :-1] = self.timestamps[:, 1:]
        if self.asked_at is not None:
            has_items = np.flatnonzero(self.lengths)
            asked[has_items, self.lengths[has_items] - 1] = self.asked_at[has_items]
        return asked


def unknown_of(name: str) -> int | float:
    """What stands in a column where nothing is known, and on padding."""
    if name == ITEM_IDS:
        return 0
    return UNKNOWN_TIME if name in (TIMESTAMPS, ASKED_AT) else float("nan")
