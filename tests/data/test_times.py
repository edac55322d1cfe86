import datetime as dt
import re
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.data import times
from segue.data.times import (
    UNKNOWN_TIME,
    TimeUnit,
    as_moment,
    as_times,
    to_seconds,
    unit_of,
    unix_seconds,
)
from segue.errors import DataError

NOON = dt.datetime(2024, 1, 5, 12)
NOON_UNIX = 1_704_456_000


def times_of(values: pl.Series) -> pl.Series:
    return as_times(values.alias("timestamp"), "log.csv")


def test_numbers_keep_their_kind() -> None:
    assert times_of(pl.Series([3, 1], dtype=pl.UInt32)).to_list() == [3, 1]
    assert times_of(pl.Series([3, 1], dtype=pl.UInt32)).dtype == pl.Int64
    assert times_of(pl.Series([1.5, 2.0])).dtype == pl.Float64
    assert times_of(pl.Series(["3", "1"])).dtype == pl.Int64
    assert times_of(pl.Series(["3", "1.5"])).to_list() == [3.0, 1.5]
    assert times_of(pl.Series([Decimal("3.00"), Decimal(1)])).dtype == pl.Int64
    assert times_of(pl.Series([Decimal("3.00"), Decimal("1.5")])).to_list() == [3.0, 1.5]


@pytest.mark.parametrize(
    "written",
    [
        "2024-01-05T12:00:00",
        "2024-01-05 12:00:00",
        "2024-01-05T12:00",
        "2024-01-05T12:00:00.000000",
        "2024-01-05T12:00:00Z",
        "2024-01-05T14:00:00+02:00",
        "2024-01-05 07:00:00-0500",
        "2024-01-05T12:00Z",
        "2024-01-05 14:00+02:00",
        "2024-01-05 12:00:00 UTC",
        "2024-01-05 12:00 GMT",
        "2024-01-05 12:00:00.000 utc",
        " 2024-01-05 12:00:00 ",
    ],
)
def test_iso_text_is_utc_without_a_zone(written: str) -> None:
    times = times_of(pl.Series([written]))
    assert times.dtype == pl.Datetime("us")
    assert times.to_list() == [NOON]


def test_iso_text_of_several_forms_is_read_together() -> None:
    written = ["2024-01-05", "2024-01-05T12:00:00.25", "2024-01-05T13:00:00+01:00"]
    assert times_of(pl.Series(written)).to_list() == [
        dt.datetime(2024, 1, 5),
        NOON + dt.timedelta(seconds=0.25),
        NOON,
    ]


def test_dates_and_datetimes_of_any_unit_and_zone_are_utc_microseconds() -> None:
    berlin = NOON.replace(tzinfo=dt.UTC).astimezone(ZoneInfo("Europe/Berlin"))
    assert times_of(pl.Series([NOON.date()])).to_list() == [dt.datetime(2024, 1, 5)]
    for unit in ("ms", "us", "ns"):
        values = pl.Series([NOON]).cast(pl.Datetime(unit))
        assert times_of(values).to_list() == [NOON]
        assert times_of(values).dtype == pl.Datetime("us")
    assert times_of(pl.Series([berlin])).to_list() == [NOON]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pl.Series([1, None]), r"timestamp is null in 1 of 2 rows, first in row 2.*--time-col"),
        (pl.Series([1.0, float("nan")]), r"NaN or infinite in 1 of 2 rows, first nan in row 2"),
        (pl.Series([float("-inf")]), r"NaN or infinite"),
        (pl.Series(["1", "nan"]), r"NaN or infinite"),
        (pl.Series(["1", "soon"]), r"is not a number in 1 of 2 rows, first 'soon' in row 2"),
        (pl.Series(["2024-01-05", "7"]), r"neither a number nor ISO 8601 .*first '7' in row 2"),
        (pl.Series(["05/01/2024"]), r"neither a number nor ISO 8601 .*first '05/01/2024'"),
        (pl.Series(["2024-13-05"]), r"neither a number nor ISO 8601"),
        (pl.Series([2**63], dtype=pl.UInt64), r"overflows 64 bits"),
        (pl.Series([True]), r"timestamp is of type Boolean; times are numbers, datetimes or"),
    ],
)
def test_what_is_no_time_is_refused_in_one_line(values: pl.Series, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        times_of(values)
    assert str(error.value).startswith("log.csv: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("moment", [7, 7.5, "7", "7.5", np.int64(7), np.float64(7.5)])
def test_a_number_is_a_moment_in_the_logs_unit(moment: object) -> None:
    assert as_moment(moment, TimeUnit.ORDER) == float(str(moment))


@pytest.mark.parametrize(
    "moment",
    [
        NOON,
        NOON.replace(tzinfo=dt.UTC),
        dt.datetime(2024, 1, 5, 14, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        np.datetime64("2024-01-05T12"),
        "2024-01-05T12:00:00",
        "2024-01-05T13:00:00+01:00",
    ],
)
@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
def test_a_date_is_turned_into_unix_time_of_the_logs_unit(moment: object, per_second: int) -> None:
    times = np.array([1_000_000_000, 1_710_000_000]) * per_second
    assert as_moment(moment, unit_of(times)) == NOON_UNIX * per_second
    assert as_moment(moment, unit_of(times.astype(float))) == NOON_UNIX * per_second


def test_a_date_is_compared_with_datetimes_as_it_is() -> None:
    times = np.array(["2020-01-01", "2024-06-01"], "datetime64[us]")
    assert as_moment(dt.date(2024, 1, 5), TimeUnit.DATETIME) == np.datetime64("2024-01-05")
    assert (times >= as_moment("2024-01-05", TimeUnit.DATETIME)).tolist() == [False, True]


def test_a_fraction_of_a_second_is_not_rounded_away() -> None:
    moment = NOON + dt.timedelta(seconds=0.5)
    times = np.array([NOON_UNIX, NOON_UNIX + 1])
    assert (times >= as_moment(moment, TimeUnit.S)).tolist() == [False, True]


@pytest.mark.parametrize(
    "moment", [None, True, float("nan"), float("inf"), "soon", "", 10**400, [7], "1e400"]
)
def test_what_is_no_moment_is_refused(moment: object) -> None:
    with pytest.raises(DataError, match="is not a moment: give a number or a date"):
        as_moment(moment, TimeUnit.ORDER)


@pytest.mark.parametrize(
    "moment",
    [
        "0000-01-01",
        "-0001-01-01",
        "+12345-01-01",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+14:00",
        dt.datetime(9999, 12, 31, 23, tzinfo=dt.timezone(dt.timedelta(hours=-14))),
        dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14))),
        np.datetime64("900000-01-01"),
        np.datetime64("NaT"),
    ],
)
def test_a_moment_that_no_datetime_can_be_is_refused(moment: object) -> None:
    for unit in (TimeUnit.S, TimeUnit.NS, TimeUnit.DATETIME, TimeUnit.ORDER):
        with pytest.raises(DataError, match="is outside the years 1 to 9999 of UTC"):
            as_moment(moment, unit)


@pytest.mark.parametrize("written", ["0001-01-01", "9999-12-31T23:59:59.999999"])
def test_the_first_and_the_last_moment_are_taken(written: str) -> None:
    assert as_moment(written, TimeUnit.DATETIME) == np.datetime64(written)


DIGITS_AND_SIGNS = st.text("0123456789٣+-:T .Zz_e\ud800\x00", max_size=40)
ODD_DATES = st.from_regex(
    r"[+-]?[0-9]{4,6}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?)?",
    fullmatch=True,
)


@given(st.text(max_size=40) | DIGITS_AND_SIGNS | ODD_DATES, st.sampled_from(TimeUnit))
def test_text_is_a_moment_or_refused_whatever_it_is(text: str, unit: TimeUnit) -> None:
    try:
        moment = as_moment(text, unit)
    except DataError:
        return
    assert isinstance(moment, np.datetime64 if unit is TimeUnit.DATETIME else int | float)


def test_a_date_for_a_log_of_positions_is_refused() -> None:
    with pytest.raises(DataError, match="are an order, not Unix times: give a number in their"):
        as_moment(NOON, unit_of(np.array([0, 340])))


def test_a_number_for_a_log_of_datetimes_is_refused() -> None:
    with pytest.raises(DataError, match=r"7 is a number but the log's times are datetimes"):
        as_moment(7, TimeUnit.DATETIME)


MOMENT = dt.datetime(2001, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
SINCE_2000 = int((MOMENT - dt.datetime(2000, 1, 1, tzinfo=dt.UTC)).total_seconds())


@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
def test_unix_times_in_any_unit_are_seconds(per_second: int) -> None:
    times = np.array([int(MOMENT.timestamp()) * per_second], np.int64)
    assert unix_seconds(times, unit_of(times)) == pytest.approx([MOMENT.timestamp()])
    assert to_seconds(times, unit_of(times)).tolist() == [SINCE_2000]


def test_datetimes_are_seconds_and_models_read_them_rounded_down() -> None:
    times = np.array(["2001-02-03T04:05:06.5", "1999-12-31T23:59:59.5"], "datetime64[us]")
    unix = unix_seconds(times, unit_of(times))
    assert unix == pytest.approx([MOMENT.timestamp() + 0.5, 946_684_799.5])
    assert to_seconds(times, TimeUnit.DATETIME).tolist() == [SINCE_2000, -1]


@pytest.mark.parametrize("times", [[0, 1, 2], [0, 10**9], [2.5], []])
def test_times_that_are_only_an_order_are_no_moments(times: list[float]) -> None:
    unit = unit_of(np.array(times))
    assert unit is TimeUnit.ORDER
    assert unix_seconds(np.array(times), unit) is None
    with pytest.raises(DataError, match="are an order and no moments"):
        to_seconds(np.array(times), unit)


def test_strays_do_not_decide_the_unit() -> None:
    assert unit_of(np.array([0, 10**9, 10**9 + 5, 10**9 + 7, 10**18])) is TimeUnit.S


def test_seconds_beyond_32_bits_are_the_nearest_and_never_mean_unknown() -> None:
    for far in (10**15, 2**63 - 1):
        seconds = to_seconds(np.array([-far - 1, far]), TimeUnit.S)
        assert seconds.tolist() == [UNKNOWN_TIME + 1, 2**31 - 1]


@given(
    st.from_regex(
        r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
        r"(Z|[+-][0-9]{2}:[0-9]{2})?)?\Z"
    )
)
def test_one_moment_is_read_as_a_column_of_them_is(text: str) -> None:
    try:
        alone = as_moment(text, TimeUnit.DATETIME)
    except DataError:
        alone = None
    try:
        (column,) = as_times(pl.Series("timestamp", [text]), "log").to_physical()
    except DataError:
        column = None
    if alone is not None and column is not None:  # each has years that the other lacks
        assert int(alone.astype("datetime64[us]").astype(np.int64)) == column
    if re.match(r"(19|20)", text):
        assert (alone is None) == (column is None)


def test_a_moment_in_usual_text_is_read_without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "_from_iso", lambda text: pytest.fail(f"a table was made of {text}"))
    for text in ("2023-11-14", "2023-11-14 22:13", "2023-11-14T22:13:20.5+02:00"):
        as_moment(text, TimeUnit.S)
