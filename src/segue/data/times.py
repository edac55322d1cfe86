"""Times of interactions, their unit, and moments given by users.

A log's times are whole numbers, floats or datetimes, and keep that type. Datetimes are UTC without
a zone. Whether numbers are Unix times, and in which unit, is found once from the whole log and kept
with it as its `TimeUnit`; everything that needs to know asks that.

Models read times as seconds since 2000 in 32 bits, which reach from 1932 to 2068.
"""

import datetime as dt
import re
from contextlib import suppress
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.checks import refuse_where, shown
from segue.data.roles import TIME
from segue.errors import DataError

# ISO 8601, the T of the time perhaps a space and the zone perhaps the word UTC or GMT; tried in
# this order, those with a zone last.
ISO_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M%#z",
)
# What Python reads as `_from_iso` does, in a thousandth of the time: a request may have thousands.
USUAL_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
UTC_WORD = r"(?i)\s*(?:UTC|GMT)$"
MAX_TIME = 2**63
# What the datetimes of Python reach, and of whatever reads ISO 8601 with four digits a year.
FIRST_YEAR, LAST_YEAR = (np.datetime64(f"{year:04}", "Y") for year in (1, 9999))
DAY_S = 86_400
# 2000-01-01 in Unix seconds: where the seconds of models begin.
ORIGIN_S = 946_684_800
# Stands for a time that is not known.
UNKNOWN_TIME = int(np.iinfo(np.int32).min)


class TimeUnit(StrEnum):
    """What a log's times are: an order, such as positions; Unix times; or datetimes."""

    ORDER = "order"
    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"
    DATETIME = "datetime"

    @property
    def is_moment(self) -> bool:
        """Whether the times are moments on a clock, and not an order alone."""
        return self is not TimeUnit.ORDER

    @property
    def per_second(self) -> int:
        """How many of the unit a second has; datetimes are counted in microseconds.

        Raises:
            DataError: The times are an order.
        """
        if self is TimeUnit.ORDER:
            raise DataError("the log's times are an order and no moments; give a log with times")
        return _PER_SECOND[self]


_PER_SECOND = {
    TimeUnit.S: 1,
    TimeUnit.MS: 10**3,
    TimeUnit.US: 10**6,
    TimeUnit.NS: 10**9,
    TimeUnit.DATETIME: 10**6,
}
# The least number taken for a Unix time of the unit: March 1973 in that unit, the year 5138 in the
# next coarser one.
_LEAST = ((1e17, TimeUnit.NS), (1e14, TimeUnit.US), (1e11, TimeUnit.MS), (1e8, TimeUnit.S))


def unit_of(times: npt.NDArray[Any]) -> TimeUnit:
    """The unit of a log's times, by their median: single strays do not decide.

    Args:
        times: int64, float64 or datetime64[us], of the whole log.
    """
    if times.dtype.kind == "M":
        return TimeUnit.DATETIME
    if not times.size:
        return TimeUnit.ORDER
    place = (len(times) - 1) // 2
    middle = float(np.partition(times, place)[place])
    return next((unit for least, unit in _LEAST if middle >= least), TimeUnit.ORDER)


def to_seconds(times: npt.NDArray[Any], unit: TimeUnit) -> npt.NDArray[np.int32]:
    """The times as models read them: int32 seconds since 2000, rounded down.

    What lies before 1932 or after 2068 becomes the nearest second that 32 bits hold.

    Args:
        times: int64, float64 or datetime64[us].
        unit: Theirs.

    Raises:
        DataError: The times are an order.
    """
    per_second = unit.per_second
    if times.dtype.kind == "M":
        times = times.astype("datetime64[us]").astype(np.int64)
    bounds = np.iinfo(np.int32)
    # Floats too are rounded down; and the bounds come first, as 64 bits would overflow.
    whole = np.clip(times // per_second, bounds.min + 1 + ORIGIN_S, bounds.max + ORIGIN_S)
    seconds: npt.NDArray[np.int32] = (whole - ORIGIN_S).astype(np.int32)
    return seconds


def unix_seconds(times: npt.NDArray[Any] | None, unit: TimeUnit) -> npt.NDArray[np.float64] | None:
    """Unix times in seconds, float64[n]; None where the times are not known or only an order."""
    if times is None or not unit.is_moment:
        return None
    if times.dtype.kind == "M":
        times = times.astype("datetime64[us]").astype(np.int64)
    seconds: npt.NDArray[np.float64] = times / unit.per_second
    return seconds


def as_times(values: pl.Series, where: str) -> pl.Series:
    """The times as Int64, Float64 or Datetime("us").

    Text is numbers if its first value is one, else ISO 8601; without a zone it is UTC.
    `values.name` and `where` are for messages.

    Raises:
        DataError: Null, NaN, infinite or overflowing times, other text, or another type.
    """
    another = f"drop these rows, or name a column without, with {TIME.choice}"
    refuse_where(values.is_null(), values, where, "is null", another)
    if values.dtype == pl.String:
        values = _from_text(values, where)
    elif values.dtype.is_decimal():
        values = _from_text(values.cast(pl.String).str.replace(r"\.0*$", ""), where)
    if isinstance(values.dtype, pl.Date | pl.Datetime):
        return _utc(values)
    if values.dtype.is_float():
        refuse_where(~values.is_finite(), values, where, "is NaN or infinite", another)
        return values.cast(pl.Float64)
    if values.dtype.is_integer():
        times = values.cast(pl.Int64, strict=False)
        refuse_where(times.is_null(), values, where, "overflows 64 bits", another)
        return times
    raise DataError(
        f"{where}: {values.name} is of type {values.dtype}; times are numbers, datetimes or "
        f"ISO 8601 text: name another column with {TIME.choice}"
    )


def as_moment(moment: object, unit: TimeUnit) -> Any:
    """`moment` in the unit of a log's times, to be compared with them.

    Args:
        moment: A number in the log's unit, a date or datetime (UTC where it has no zone), or
            either as text.
        unit: Of the log's times. A date is turned into Unix time for a log of numbers.

    Raises:
        DataError: Not a finite number or a date, one that cannot be compared with the log's, or a
            date before the year 1 or after 9999 in UTC.
    """
    parsed = _parsed(moment) if isinstance(moment, str) else moment
    if isinstance(parsed, dt.date | np.datetime64):
        at = _utc_moment(parsed)
        return at if unit is TimeUnit.DATETIME else _unix_time(at, unit)
    if not _is_number(parsed):
        raise DataError(f"{shown(moment)} is not a moment: give a number or a date (ISO 8601)")
    if unit is TimeUnit.DATETIME:
        raise DataError(
            f"the moment {shown(moment)} is a number but the log's times are datetimes: "
            "give a date (ISO 8601)"
        )
    return parsed


def _from_text(text: pl.Series, where: str) -> pl.Series:
    remedy = f"mend these rows, or name another column with {TIME.choice}"
    integers = text.cast(pl.Int64, strict=False)
    if not integers.has_nulls():
        return integers
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.head(1).is_not_null().any():
        refuse_where(numbers.is_null(), text, where, "is not a number", remedy)
        return numbers
    times = _from_iso(text)
    refuse_where(times.is_null(), text, where, "is neither a number nor ISO 8601", remedy)
    return times


def _from_iso(text: pl.Series) -> pl.Series:
    """Datetimes from ISO 8601 text; null where it is none."""
    with_t = text.str.strip_chars().str.replace(UTC_WORD, "Z").str.replace(" ", "T", literal=True)
    times = pl.repeat(None, len(text), dtype=pl.Datetime("us"), eager=True)
    for iso_format in ISO_FORMATS:
        if not times.has_nulls():
            break
        parsed = _utc(with_t.str.to_datetime(iso_format, time_unit="us", strict=False))
        times = times.zip_with(times.is_not_null(), parsed)
    return times.alias(text.name)


def _utc(times: pl.Series) -> pl.Series:
    """Dates or datetimes as datetimes in microseconds, in UTC, without a zone."""
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone is not None:
        times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return times.cast(pl.Datetime("us"))


def _parsed(text: str) -> int | float | np.datetime64[dt.datetime] | None:
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    if USUAL_ISO.fullmatch(text):
        with suppress(ValueError, OverflowError):
            return _utc_moment(dt.datetime.fromisoformat(text))
    try:
        microseconds: int | None = _from_iso(pl.Series([text])).to_physical()[0]
    except UnicodeEncodeError:  # half of a pair of surrogates
        return None
    return None if microseconds is None else np.datetime64(microseconds, "us")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(-MAX_TIME <= value < MAX_TIME)


def _utc_moment(moment: dt.date | np.datetime64[Any]) -> np.datetime64[dt.datetime]:
    """Raises: DataError: Before the year 1 or after 9999 in UTC."""
    if isinstance(moment, dt.datetime) and moment.tzinfo is not None:
        try:
            moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
        except OverflowError:
            raise _outside_years(moment) from None
    if not FIRST_YEAR <= np.array([moment], "datetime64[Y]")[0] <= LAST_YEAR:  # NaT is neither
        raise _outside_years(moment)
    at: np.datetime64[dt.datetime] = np.array([moment], "datetime64[us]")[0]
    return at


def _outside_years(moment: object) -> DataError:
    return DataError(
        f"the moment {moment} is outside the years 1 to 9999 of UTC: give one within them"
    )


def _unix_time(moment: np.datetime64[dt.datetime], unit: TimeUnit) -> float:
    """Unix time of a datetime, in the unit; a float where it falls between two of it."""
    if not unit.is_moment:
        raise DataError(
            f"the moment {moment} is a date but the log's times are an order, not Unix times: "
            "give a number in their unit"
        )
    scaled = int(moment.astype(np.int64)) * unit.per_second
    return scaled / 10**6 if scaled % 10**6 else scaled // 10**6
