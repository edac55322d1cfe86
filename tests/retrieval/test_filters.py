"""Filters over a catalogue, against what a reader of the table would say."""

import datetime as dt
from decimal import Decimal
from itertools import product
from typing import get_args

import polars as pl
import pytest

from segue.errors import RequestError
from segue.retrieval.filters import Condition, Filter, ItemFilters, Operator

CATALOGUE = pl.DataFrame(
    {
        "title": ["Heat", "Élan vital", None, "The Heat of a|b", "100% (x)"],
        "genres": [["Crime", "Drama"], ["Drama"], None, ["Melodrama"], ["crime"]],
        "year": pl.Series([1995, 2001, None, 1980, 2010], dtype=pl.UInt16),
        "stars": [4.5, float("nan"), None, 3.0, 5.0],
        "is_new": [False, True, None, False, True],
        "released": [dt.date(1995, 1, 2), None, None, dt.date(1980, 5, 6), dt.date(2010, 7, 8)],
        "seen_at": [dt.datetime(1995, 1, 2, 12), None, None, None, dt.datetime(2010, 7, 8)],
        "tags": [["a", "b"], ["b"], None, [], ["c"]],
        "blob": [b"x"] * 5,
    }
)
FILTERS = ItemFilters(CATALOGUE)


def allowed(field: str, op: str, value: object) -> list[int]:
    return FILTERS.allowed(Filter(all_of=[Condition(field, op, value)])).tolist()


@pytest.mark.parametrize(
    ("field", "op", "value", "expected"),
    [
        ("title", "eq", "Heat", [1]),
        ("title", "eq", "heat", []),
        ("title", "contains", "HEAT", [1, 4]),
        ("title", "contains", "éLAN", [2]),
        ("title", "contains", "% (", [5]),
        ("title", "in", ["Heat", "100% (x)", "none"], [1, 5]),
        ("title", "gt", "Heat", [2, 4]),
        ("genres", "contains", "Drama", [1, 2]),
        ("genres", "contains", "CRIME", [1, 5]),
        ("title", "contains", "a|B", [4]),
        ("year", "eq", 1995, [1]),
        ("year", "gte", 1995, [1, 2, 5]),
        ("year", "gt", 1995.5, [2, 5]),
        ("year", "lt", -1, []),
        ("year", "gt", -1, [1, 2, 4, 5]),
        ("year", "lt", 10**15, [1, 2, 4, 5]),
        ("year", "in", [1980, 2010, -4, 10**15], [4, 5]),
        ("year", "in", [1980.0, 2010.5], [4]),
        ("year", "in", [], []),
        ("stars", "lte", 4.5, [1, 4]),
        ("stars", "gt", 4, [1, 5]),
        ("is_new", "eq", True, [2, 5]),
        ("is_new", "in", [False], [1, 4]),
        ("released", "gte", "1995-01-02", [1, 5]),
        ("released", "in", ["1980-05-06"], [4]),
        ("seen_at", "lt", "1995-01-02T13:00:00+02:00", []),
        ("seen_at", "lte", "1995-01-02T13:00:00+01:00", [1]),
        ("tags", "contains", "b", [1, 2]),
    ],
)
def test_a_condition_holds_where_the_table_says_so(field, op, value, expected):
    assert allowed(field, op, value) == expected


def test_all_any_and_none_are_met_together():
    drama = Condition("genres", "contains", "drama")
    crime = Condition("genres", "contains", "crime")
    old = Condition("year", "lt", 2000)
    assert FILTERS.allowed(Filter(all_of=[drama, old])).tolist() == [1]
    assert FILTERS.allowed(Filter(any_of=[drama, crime])).tolist() == [1, 2, 5]
    assert FILTERS.allowed(Filter(any_of=[drama, crime], none_of=[old])).tolist() == [2, 5]
    # Where nothing is known, no condition holds, so that none of them is met.
    assert FILTERS.allowed(Filter(none_of=[drama, crime])).tolist() == [3, 4]
    assert FILTERS.allowed(Filter()).tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("field", "op", "value", "message"),
    [
        ("colour", "eq", "red", "names the field 'colour'; the items have 'title'"),
        ("title", "eq", 3, "which takes text"),
        ("title", "in", "Heat", "a list of values"),
        ("title", "eq", ["Heat"], "one value"),
        ("year", "eq", "1995", "takes a number"),
        ("year", "eq", True, "takes a number"),
        ("year", "lt", 2**70, "64 bits"),
        ("year", "contains", 19, "text or a list"),
        ("genres", "contains", 19, "takes text"),
        ("is_new", "eq", 1, "true or false"),
        ("is_new", "gt", False, "eq or in"),
        ("released", "gt", 1995, "a date"),
        ("released", "gt", "long ago", "a date"),
        ("tags", "contains", 4, "takes text"),
        ("tags", "eq", "a", "which takes contains"),
        ("genres", "in", ["Crime"], "which takes contains"),
        ("blob", "eq", "x", "no filter"),
        ("title", "like", "x", "no operator"),
    ],
)
def test_what_does_not_fit_the_catalogue_is_refused(field, op, value, message):
    with pytest.raises(RequestError, match=message):
        allowed(field, op, value)


def test_the_entries_of_a_list_are_told_one_by_one():
    assert FILTERS.entries("genres") == ["Crime", "Drama", "Melodrama", "crime"]


def test_the_entries_of_text_are_its_values_whatever_they_contain():
    assert "The Heat of a|b" in FILTERS.entries("title")
    assert FILTERS.entries("year") == ["1980", "1995", "2001", "2010"]


NOON = dt.datetime(2020, 1, 2, 12)
DATETIMES = [pl.Datetime(unit) for unit in ("ms", "us", "ns")]
ZONED = [pl.Datetime(unit.time_unit, zone) for unit in DATETIMES for zone in ("UTC", "Asia/Tokyo")]
NUMBERS = [
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64),
]


def odd_columns() -> dict[str, pl.Series]:
    """A column of each type, [something, null, something else], and lists of these."""
    columns = [pl.Series([1, None, 3], dtype=dtype) for dtype in NUMBERS]
    columns += [pl.Series([NOON, None, NOON.replace(year=2021)], dtype=each) for each in DATETIMES]
    columns += [
        each.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        for each in columns[-len(DATETIMES) :]
        for zone in ("UTC", "Asia/Tokyo")
    ]
    text = pl.Series(["a", None, "B"])
    columns += [text, text.cast(pl.Categorical), text.cast(pl.Enum(["B", "a"]))]
    columns += [
        pl.Series([Decimal("1.5"), None, Decimal(3)], dtype=pl.Decimal(10, 2)),
        pl.Series([True, None, False]),
        pl.Series([NOON.date(), None, NOON.date()]),
        # Years that Python's datetimes lack.
        pl.Series([2_000_000_000, None, -2_000_000_000], dtype=pl.Int32).cast(pl.Date),
        pl.Series([2**62, None, -(2**62)]).cast(pl.Datetime("us")),
        pl.Series([2**62, None, -(2**62)]).cast(pl.Datetime("ms")),
        pl.Series([NOON.time(), None, NOON.time()]),
        pl.Series([dt.timedelta(1), None, dt.timedelta(2)]),
        pl.Series([b"x", None, b"y"]),
        pl.Series([{"a": 1}, None, {"a": 2}]),
        pl.Series([None, None, None]),
        pl.Series([[[1]], None, [[2]]]),
        pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Int64, 2)),
    ]
    lists = [
        pl.concat([one.head(1).implode(), one.slice(0, 0).implode().extend_constant(None, 1)])
        for one in columns
    ]
    return {f"{number} {each.dtype}": each for number, each in enumerate(columns + lists)}


ODD_COLUMNS = odd_columns()
ODD = ItemFilters(pl.DataFrame(ODD_COLUMNS))
MOMENTS = [
    "2020-01-02",
    "2020-01-02T12:00:00Z",
    "0001-01-01",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "0000-01-01",
    "1600-01-01T00:00",
    "12:00",
]
VALUES = [
    *(0, 1, -1, 1.5, 0.1, 2**31, 2**40, 2**63 - 1, -(2**63), 2**63, 1e300, -1e300, 10**400),
    *(True, False, "", "a", "z", "\0", float("nan"), float("inf")),
    *MOMENTS,
]


@pytest.mark.parametrize("op", get_args(Operator))
def test_no_type_and_no_value_is_met_by_a_defect(op):
    lists = [[], VALUES, [1, 1.5], MOMENTS[:2], [[1]]]
    values = [1, *lists, *([value] for value in VALUES)] if op == "in" else [*VALUES, *lists]
    answered = 0
    for field, value in product(ODD_COLUMNS, values):
        try:
            ODD.allowed(Filter(all_of=[Condition(field, op, value)]))
        except RequestError:
            continue
        answered += 1
    assert answered


@pytest.mark.parametrize("dtype", DATETIMES + ZONED)
def test_datetimes_of_any_unit_and_zone_are_compared_as_moments(dtype):
    moments = pl.Series([NOON, None, NOON.replace(hour=13)]).dt.cast_time_unit(dtype.time_unit)
    if dtype.time_zone:
        moments = moments.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
    catalogue = pl.DataFrame({"at": moments}).with_columns(ats=pl.concat_list("at"))
    filters = ItemFilters(catalogue)

    def found(op: str, value: object, field: str = "at") -> list[int]:
        return filters.allowed(Filter(all_of=[Condition(field, op, value)])).tolist()

    for noon in ("2020-01-02T12:00:00", "2020-01-02T12:00:00Z", "2020-01-02T21:00:00+09:00"):
        assert found("eq", noon) == found("lte", noon) == found("in", [noon]) == [1]
        assert found("contains", noon, "ats") == [1]
        assert (found("gt", noon), found("gte", noon), found("lt", noon)) == ([3], [1, 3], [])
    assert found("gt", "0001-01-01") == found("lt", "9999-12-31") == [1, 3]


@pytest.mark.parametrize("inner", [*NUMBERS, pl.Decimal(10, 2)])
def test_a_number_is_found_in_a_list_whatever_the_types_of_both(inner):
    lists = pl.Series([[1, 2], None, [], [None, 3]], dtype=pl.List(pl.Int64))
    filters = ItemFilters(pl.DataFrame({"list": lists.cast(pl.List(inner))}))

    def found(value: object) -> list[int]:
        return filters.allowed(Filter(all_of=[Condition("list", "contains", value)])).tolist()

    assert found(1) == found(1.0) == found(2) == [1]
    assert found(3) == [4]
    assert found(1.5) == found(0) == found(2**40) == []


def test_kinds_of_a_fixed_list_have_their_order_and_no_other_value():
    sizes = pl.Series(["small", None, "large"], dtype=pl.Enum(["small", "middle", "large"]))
    filters = ItemFilters(pl.DataFrame({"size": sizes}))

    def found(op: str, value: object) -> list[int]:
        return filters.allowed(Filter(all_of=[Condition("size", op, value)])).tolist()

    assert found("lt", "middle") == [1]
    assert found("gte", "middle") == [3]
    assert found("eq", "huge") == found("in", ["huge"]) == []
    with pytest.raises(RequestError, match="which takes one of 'small', 'middle', 'large'"):
        found("lt", "huge")
