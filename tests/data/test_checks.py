import polars as pl
import pytest

from segue.data.checks import refuse_where
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
