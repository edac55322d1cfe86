"""Times of interactions, and the moments that cut a log in two.

A log's times are whole numbers, floats or datetimes, and keep that type: nothing is assumed about
the unit of a number but its order. Datetimes are UTC without a zone.
"""

import datetime as dt
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.checks import refuse_where, shown
from segue.data.columns import TIME
from segue.errors import DataError

# ISO 8601, the T of the time perhaps a space; tried in this order, those with a zone last.
ISO_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
)
# The least Unix time taken for ns, us, ms and s: March 1973 in that unit, the year 5138 in the next
# coarser one.
UNIX_UNITS = ((1e17, 10**9), (1e14, 10**6), (1e11, 10**3), (1e8, 1))

MAX_TIME = 2**63


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


def as_moment(moment: object, times: npt.NDArray[Any]) -> Any:
    """`moment` in the unit of `times`, to be compared with them.

    Args:
        moment: A number in the log's unit, a date or datetime (UTC where it has no zone), or
            either as text.
        times: int64, float64 or datetime64[us], [interactions]. A date is turned into Unix time
            for a log of numbers; whether in s, ms, us or ns is seen from the largest of them.

    Raises:
        DataError: Not a finite number or a date, or one that cannot be compared with `times`.
    """
    parsed = _parsed(moment) if isinstance(moment, str) else moment
    is_datetime_log = times.dtype.kind == "M"
    if isinstance(parsed, dt.date | np.datetime64):
        at = _utc_moment(parsed)
        return at if is_datetime_log else _unix_time(at, times)
    if not _is_number(parsed):
        raise DataError(f"{shown(moment)} is not a moment: give a number or a date (ISO 8601)")
    if is_datetime_log:
        raise DataError(
            f"the moment {shown(moment)} is a number but the log's times are datetimes: "
            f"give a date (ISO 8601), between {times.min()} and {times.max()}"
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
    with_t = text.str.replace(" ", "T", literal=True)
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


def _parsed(text: str) -> int | float | dt.datetime | None:
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    moment: dt.datetime | None = _from_iso(pl.Series([text]))[0]
    return moment


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(-MAX_TIME <= value < MAX_TIME)


def _utc_moment(moment: dt.date | np.datetime64[Any]) -> np.datetime64[dt.datetime]:
    if isinstance(moment, dt.datetime) and moment.tzinfo is not None:
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    at: np.datetime64[dt.datetime] = np.array([moment], "datetime64[us]")[0]
    return at


def _unix_time(moment: np.datetime64[dt.datetime], times: npt.NDArray[Any]) -> float:
    """Unix time of a datetime, in the unit that the size of the times shows."""
    largest = float(times.max())
    for least, per_second in UNIX_UNITS:
        if largest >= least:
            scaled = int(moment.astype(np.int64)) * per_second
            return scaled / 10**6 if scaled % 10**6 else scaled // 10**6
    raise DataError(
        f"the moment {moment} is a date but the log's times, up to {largest:g}, are not Unix "
        f"times: give a number in their unit"
    )
