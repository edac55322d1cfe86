"""Filters over a catalogue, against what a reader of the table would say."""

import datetime as dt

import polars as pl
import pytest

from segue.errors import RequestError
from segue.retrieval.filters import Condition, Filter, ItemFilters

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


def test_the_entries_of_text_are_its_values_whatever_stands_in_them():
    assert "The Heat of a|b" in FILTERS.entries("title")
    assert FILTERS.entries("year") == ["1980", "1995", "2001", "2010"]
