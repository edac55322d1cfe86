"""Times of events: from what clients send to what the run's log holds, and back."""

import datetime as dt
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.histories import Histories
from segue.data.times import DAY_S, ORIGIN_S, UNKNOWN_TIME, TimeUnit, as_moment, to_seconds
from segue.errors import DataError

Kind = Literal["integer", "float", "datetime"]
Stored = int | float
Given = int | float | str

MAX_STORED = 2**63
# How far the time of an event may be before the log begins, and ahead of now: the clocks of clients
# are wrong by less, and seconds taken for milliseconds, or the other way round, by more.
EARLIER_S = 10 * 365 * DAY_S
AHEAD_S = DAY_S
EPOCH = dt.datetime(1970, 1, 1)
KINDS: dict[str, Kind] = {"i": "integer", "f": "float", "M": "datetime"}
DTYPES: dict[Kind, pl.DataType] = {
    "integer": pl.Int64(),
    "float": pl.Float64(),
    "datetime": pl.Datetime("us"),
}


@dataclass(frozen=True, eq=False)
class Clock:
    """The unit of a log's times.

    A time is kept as an integer or a float, as in the log; a datetime as its microseconds since
    1970, in UTC.

    Attributes:
        kind: What the log's times are.
        unit: Theirs, and that of the times that clients send.
        has_moments: Whether the log's times are moments, which models may read.
        first, last: The log's own, as they are kept; of moments only.
    """

    kind: Kind
    unit: TimeUnit
    has_moments: bool
    first: Stored = 0
    last: Stored = 0

    @classmethod
    def of(cls, histories: Histories | None) -> Self:
        """The clock of a run's log; clients of a run without times send Unix seconds."""
        if histories is None or histories.timestamps is None or not histories.num_interactions:
            return cls("integer", TimeUnit.S, has_moments=False)
        times = histories.timestamps
        ends = np.array([times.min(), times.max()], times.dtype)
        first, last = (ends.astype(np.int64) if times.dtype.kind == "M" else ends).tolist()
        kind, unit = KINDS[times.dtype.kind], histories.unit
        return cls(kind, unit, has_moments=unit.is_moment, first=first, last=last)

    def stored(self, given: Given) -> Stored:
        """A time that a client sent, as it is kept.

        Raises:
            DataError: It is no time, or none in the log's unit.
        """
        moment = as_moment(given, self.unit)
        if self.kind == "datetime":
            return int(moment.astype("datetime64[us]").astype(np.int64))
        if self.kind == "float":
            return float(moment)
        if self.unit.is_moment:
            moment = math.floor(moment)  # a clock time finer than the log's unit
        if moment != math.floor(moment) or not -MAX_STORED <= moment < MAX_STORED:
            raise DataError(f"the log's times are whole numbers, not {given!r}; give one of those")
        return int(moment)

    def kept(self, given: Given) -> Stored:
        """The time of an event, as it is kept for good.

        Raises:
            DataError: It is no time, or none in the log's unit; or it is so far from the log and
                from now that it is of another unit.
        """
        stored = self.stored(given)
        if not self.has_moments:
            return stored
        per_second = self.unit.per_second
        earliest = self.first - EARLIER_S * per_second
        latest = max(self.last, (time.time() + AHEAD_S) * per_second)
        if not earliest <= stored <= latest:
            side = "before the run's log" if stored < earliest else "ahead of now"
            raise DataError(
                f"the time {given!r} is too far {side}; give times in the unit of the run's log, "
                f"such as {self.shown(self.last)}, its last"
            )
        return stored

    def stored_all(self, times: npt.NDArray[Any]) -> list[Stored]:
        """Times of the log as they are kept."""
        is_datetime = self.kind == "datetime"
        values: list[Stored] = (times.astype(np.int64) if is_datetime else times).tolist()
        return values

    def seconds(self, stored: Sequence[Stored | None] | npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Kept times as models read them, int32[n]; unknown where the log's are no moments."""
        if not self.has_moments:
            return np.full(len(stored), UNKNOWN_TIME, np.int32)
        return to_seconds(np.asarray(stored), self.unit)

    def asked_at(self, given: Given | None) -> int:
        """When a question is asked, in the seconds of models: now, where it does not say so.

        Raises:
            DataError: It is no time, or the log has no clock.
        """
        if not self.has_moments:
            if given is None:
                return UNKNOWN_TIME
            raise DataError(
                "at must be left out, because the run's log has no clock: its times are an order, "
                "or not known"
            )
        if given is None:
            return int(time.time()) - ORIGIN_S
        return int(self.seconds([self.stored(given)])[0])

    def shown(self, stored: Stored) -> int | float | str:
        """A kept time as clients see it: a number, or ISO 8601."""
        if self.kind != "datetime":
            return stored
        try:
            return (EPOCH + dt.timedelta(microseconds=stored)).isoformat()
        except OverflowError:  # a year that Python's datetimes lack
            return str(np.datetime64(int(stored), "us"))

    def column(self, stored: list[Stored]) -> pl.Series:
        """Kept times as a column of a log."""
        is_float = self.kind == "float"
        values = pl.Series(stored, dtype=pl.Float64() if is_float else pl.Int64())
        return values.cast(DTYPES[self.kind])


def moment_of(seconds: int) -> dt.datetime | None:
    """A time as models read it, as a datetime in UTC without a zone; None where it is unknown."""
    return None if seconds == UNKNOWN_TIME else EPOCH + dt.timedelta(seconds=ORIGIN_S + seconds)
