import polars as pl
import pytest

from segue.data.checks import checked, refuse_where
from segue.errors import DataError


def test_refused_rows_are_counted_and_the_first_is_shown() -> None:
    values = pl.Series("weight", [4.0, -1.0, 5.0, -2.0])
    with pytest.raises(DataError) as error:
        refuse_where(values < 0, values, "log.csv", "is negative", "mend it")
    assert str(error.value) == (
        "log.csv: weight is negative in 2 of 4 rows, first -1.0 in row 2; mend it"
    )


def test_nothing_is_raised_where_nothing_is_bad() -> None:
    values = pl.Series("weight", [4.0])
    refuse_where(values < 0, values, "log.csv", "is negative", "mend it")


def test_a_huge_value_of_many_lines_is_shown_short_and_on_one_line() -> None:
    values = pl.Series("item_id", ["x\n" * 100_000])
    with pytest.raises(DataError) as error:
        refuse_where(pl.Series([True]), values, "log.csv", "is odd", "mend it")
    assert len(str(error.value)) < 120
    assert "\n" not in str(error.value)


def halves(values: pl.Series) -> pl.Series:
    """Half of each number; text, what is negative and what is odd is refused, in this order."""
    refuse_where(values.is_null(), values, "log.csv", "is null", "mend it")
    numbers = values.cast(pl.Int64, strict=False)
    refuse_where(numbers.is_null(), values, "log.csv", "is text", "mend it")
    refuse_where(numbers < 0, numbers, "log.csv", "is negative", "mend it")
    refuse_where(numbers % 2 == 1, numbers, "log.csv", "is odd", "mend it")
    return numbers // 2


def test_all_faults_of_a_column_are_found_in_rows_of_the_whole() -> None:
    values = pl.Series("weight", ["8", None, "x", "-2", "7", "4", "y"])
    good, faults = checked(halves, values)
    assert good.to_list() == [4, None, None, None, None, 2, None]
    assert [str(fault) for fault in faults] == [
        "weight is null in 1 of 7 rows, first in row 2",
        "weight is text in 2 of 7 rows, first 'x' in row 3",
        "weight is negative in 1 of 7 rows, first -2 in row 4",
        "weight is odd in 1 of 7 rows, first 7 in row 5",
    ]


def test_a_column_without_a_good_row_is_null() -> None:
    good, faults = checked(halves, pl.Series("weight", ["x", "3"]))
    assert (good.name, good.to_list()) == ("weight", [None, None])
    assert len(faults) == 2
