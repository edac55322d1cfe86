"""Histories: every user's items in time order, in flat arrays."""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.arrays import offsets_of, ranges
from segue.data.columns import ITEM_IDS, TIMESTAMPS, Columns
from segue.data.ids import IdLookup, id_text
from segue.data.log import InteractionLog
from segue.data.roles import ITEM, TIME, USER, WEIGHT
from segue.data.times import TimeUnit, to_seconds, unit_of
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError


@dataclass(frozen=True, eq=False)
class Histories:
    """Flat arrays over all interactions, user after user.

    Attributes:
        vocabulary: What the dense ids mean.
        user_ids: Outside user ids, [users]; sorted when made from a log.
        offsets: int64[users + 1]; user u owns the interactions offsets[u] up to offsets[u + 1].
        item_ids: int32[interactions], 1..num_items, in time order; ties keep the log's order.
        timestamps: int64 | float64 | datetime64[us], [interactions], never falling within a user;
            None where they are not known.
        weights: float32[interactions], NaN where null; None where the log has none.
        asked_at: int32[users], when what follows each history is asked for, in seconds since 2000;
            None where that is not known.
        unit: Of the times.
        known_unit: Given where these are a part of a log, whose unit this is; else it is found
            from the times.

    Raises:
        DataError: The arrays contradict each other.
    """

    vocabulary: Vocabulary
    user_ids: pl.Series
    offsets: npt.NDArray[np.int64]
    item_ids: npt.NDArray[np.int32]
    timestamps: npt.NDArray[Any] | None = None
    weights: npt.NDArray[np.float32] | None = None
    asked_at: npt.NDArray[np.int32] | None = None
    unit: TimeUnit = field(init=False)
    known_unit: InitVar[TimeUnit | None] = None

    def __post_init__(self, known_unit: TimeUnit | None) -> None:
        size = len(self.item_ids)
        is_consistent = (
            len(self.offsets) == len(self.user_ids) + 1
            and self.offsets[0] == 0
            and self.offsets[-1] == size
            and bool((self.lengths >= 0).all())
            and (self.timestamps is None or len(self.timestamps) == size)
            and (self.weights is None or len(self.weights) == size)
            and (self.asked_at is None or len(self.asked_at) == len(self.user_ids))
        )
        if not is_consistent:
            raise DataError(
                f"histories of {len(self.user_ids):,} users and {size:,} interactions do not fit "
                f"their {len(self.offsets):,} offsets, timestamps, weights or moments; make them "
                f"again from the log"
            )
        unit = known_unit or (
            TimeUnit.ORDER if self.timestamps is None else unit_of(self.timestamps)
        )
        object.__setattr__(self, "unit", unit)
        self._refuse_unknown_items()
        self._refuse_disorder()

    @classmethod
    def from_log(cls, log: InteractionLog, vocabulary: Vocabulary | None = None) -> Self:
        """Order a log by user and time; the sort is stable, so ties keep the log's order.

        Args:
            log: Any log.
            vocabulary: By default that of the log's items. Interactions with items outside a given
                one are left out; their users stay, perhaps with empty histories.
        """
        frame = log.frame
        vocabulary = vocabulary or Vocabulary.from_ids(frame[ITEM.name])
        user_ids = frame[USER.name].unique().sort()
        users = IdLookup(user_ids).find(frame[USER.name])
        item_ids = vocabulary.encode(frame[ITEM.name])
        timestamps = frame[TIME.name].to_numpy()
        order = _by_user_and_time(users, timestamps)
        order = order[item_ids[order] > 0]
        counts = np.bincount(users[order], minlength=len(user_ids))
        weights = (
            frame[WEIGHT.name].cast(pl.Float32).to_numpy() if WEIGHT.name in frame.columns else None
        )
        return cls(
            vocabulary,
            user_ids,
            offsets_of(counts),
            item_ids[order],
            timestamps[order],
            None if weights is None else weights[order],
            known_unit=log.unit,
        )

    @classmethod
    def from_lists(
        cls,
        vocabulary: Vocabulary,
        histories: Sequence[npt.NDArray[np.int32]],
        timestamps: Sequence[npt.NDArray[Any]] | None = None,
        *,
        known_unit: TimeUnit | None = None,
    ) -> Self:
        """Histories of dense ids, oldest first; the users are 0, 1, ...

        Args:
            vocabulary: What the dense ids mean.
            histories: int32[n] each.
            timestamps: The items' times, [n] each; None: not known.
            known_unit: Of the times.
        """
        lengths = np.fromiter((len(history) for history in histories), np.int64, len(histories))
        empty = np.zeros(0, np.int32)
        return cls(
            vocabulary,
            pl.int_range(len(histories), dtype=pl.Int64, eager=True),
            offsets_of(lengths),
            np.concatenate([empty, *histories]).astype(np.int32),
            np.concatenate(timestamps) if timestamps else None,
            known_unit=known_unit,
        )

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_interactions(self) -> int:
        return len(self.item_ids)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Interactions of each user, int64[users]."""
        return np.diff(self.offsets)

    @property
    def users(self) -> npt.NDArray[np.int64]:
        """The user of each interaction by index, int64[interactions]."""
        return np.repeat(np.arange(self.num_users), self.lengths)

    def users_of(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The users, by index, of interactions at these places of the flat arrays."""
        return np.searchsorted(self.offsets, places, side="right") - 1

    def items_of(self, user: int) -> npt.NDArray[np.int32]:
        """The dense ids of the user with this index, oldest first."""
        return self.item_ids[self.offsets[user] : self.offsets[user + 1]]

    def index_of(self, user_id: str | int) -> int | None:
        """The index of an outside user id, compared by text; None where there is no such user."""
        (index,) = self.indices_of(pl.Series([id_text(user_id)]))
        return None if index < 0 else int(index)

    def indices_of(self, user_ids: pl.Series) -> npt.NDArray[np.int64]:
        """The indices of outside user ids, compared by text, int64[len(user_ids)]; -1: none."""
        return self._lookup.find(user_ids)

    def take(self, users: npt.NDArray[np.intp]) -> Self:
        """The histories of these users (by index), in the order given."""
        return self.take_until(users, self.offsets[1:][users])

    def take_until(self, users: npt.NDArray[np.intp], ends: npt.NDArray[np.int64]) -> Self:
        """The histories of these users (by index), each up to but without an interaction.

        Args:
            users: [rows], by index.
            ends: int64[rows], places in the flat arrays, each within its user's history or at
                its end.
        """
        starts = self.offsets[users]
        lengths = ends - starts
        asked_at = None if self.asked_at is None else self.asked_at[users]
        return self._gathered(
            self.user_ids.gather(users), lengths, ranges(starts, lengths), asked_at
        )

    def select(self, is_kept: npt.NDArray[np.bool_]) -> Self:
        """The interactions kept, bool[interactions]; users stay, perhaps with empty histories."""
        lengths = np.diff(offsets_of(is_kept)[self.offsets])
        return self._gathered(self.user_ids, lengths, np.flatnonzero(is_kept), self.asked_at)

    def columns(
        self,
        max_length: int,
        users: slice | npt.NDArray[np.intp] = slice(None),
    ) -> Columns:
        """The newest `max_length` interactions of each user, as a model is given them.

        Args:
            max_length: Positions of a row, at least 1.
            users: Which users, by index.
        """
        flat: dict[str, npt.NDArray[Any]] = {ITEM_IDS: self.item_ids}
        if self.seconds is not None:
            flat[TIMESTAMPS] = self.seconds
        if self.weights is not None:
            flat["weights"] = self.weights
        asked_at = None if self.asked_at is None else self.asked_at[users]
        return Columns.from_flat(flat, self.offsets, max_length, rows=users, asked_at=asked_at)

    def asked(self, at: npt.NDArray[np.int32] | None) -> Self:
        """The same histories, asked about at these moments: int32[users], seconds since 2000."""
        return replace(self, asked_at=at, known_unit=self.unit)

    @cached_property
    def seconds(self) -> npt.NDArray[np.int32] | None:
        """The times as models read them, int32[interactions]; None where they are no moments."""
        if self.timestamps is None or not self.unit.is_moment:
            return None
        return to_seconds(self.timestamps, self.unit)

    def flat(self, name: str) -> npt.NDArray[Any] | None:
        """A column by the name that models use, [interactions]; None where it is not known.

        Raises:
            DataError: Histories have no such column.
        """
        columns = {ITEM_IDS: self.item_ids, TIMESTAMPS: self.seconds, "weights": self.weights}
        if name not in columns:
            raise DataError(f"histories have no column {name!r}; they have {', '.join(columns)}")
        return columns[name]

    def item_counts(self) -> npt.NDArray[np.int64]:
        """Interactions with each item, int64[num_items + 1]; padding has none."""
        return np.bincount(self.item_ids, minlength=self.vocabulary.num_items + 1)

    @cached_property
    def _lookup(self) -> IdLookup:
        return IdLookup(self.user_ids)

    def _gathered(
        self,
        user_ids: pl.Series,
        lengths: npt.NDArray[np.int64],
        places: npt.NDArray[np.intp],
        asked_at: npt.NDArray[np.int32] | None,
    ) -> Self:
        return type(self)(
            self.vocabulary,
            user_ids,
            offsets_of(lengths),
            self.item_ids[places],
            None if self.timestamps is None else self.timestamps[places],
            None if self.weights is None else self.weights[places],
            asked_at,
            known_unit=self.unit,
        )

    def _refuse_unknown_items(self) -> None:
        if not self.item_ids.size:
            return
        least, greatest = int(self.item_ids.min()), int(self.item_ids.max())
        if least < 1 or greatest > self.vocabulary.num_items:
            raise DataError(
                f"histories hold the dense ids {least} to {greatest}, but the vocabulary has "
                f"1 to {self.vocabulary.num_items}; encode the items with this vocabulary"
            )

    def _refuse_disorder(self) -> None:
        if self.timestamps is None:
            return
        is_fall = self.timestamps[1:] < self.timestamps[:-1]
        starts = self.offsets[1:-1]
        is_fall[starts[(starts > 0) & (starts < self.num_interactions)] - 1] = False
        if is_fall.any():
            user = self.users[int(is_fall.argmax())]
            raise DataError(
                f"the history of user {self.user_ids[int(user)]!r} is not in time order; "
                f"make the histories again from the log"
            )


def _by_user_and_time(
    users: npt.NDArray[np.int64], timestamps: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """The stable order by user, then time.

    One key for both, where they fit into 63 bits, is sorted in half the time.

    Args:
        users: int64[interactions], 0 and up.
        timestamps: int64, float64 or datetime64[interactions].
    """
    times = timestamps.view(np.int64) if timestamps.dtype.kind == "M" else timestamps
    if len(users) and times.dtype.kind == "i":
        first = int(times.min())
        span = int(times.max()) - first + 1
        if (int(users.max()) + 1) * span < 2**63:
            return np.argsort(users * span + (times - first), kind="stable")
    return np.lexsort((times, users))
