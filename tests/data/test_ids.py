from decimal import Decimal
from uuid import UUID

import numpy as np
import polars as pl
import pytest

from segue.data.ids import IdLookup, as_ids, compared_as, id_text
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError


def ids_of(values: pl.Series, *, is_untyped: bool = False) -> pl.Series:
    return as_ids(values.alias("user_id"), "log.csv", is_untyped=is_untyped)


@pytest.mark.parametrize("dtype", [pl.UInt8, pl.Int16, pl.UInt32, pl.UInt64, pl.Int64])
def test_integers_of_any_width_become_int64(dtype: pl.DataType) -> None:
    ids = ids_of(pl.Series([3, 1], dtype=dtype))
    assert ids.dtype == pl.Int64
    assert ids.to_list() == [3, 1]


def test_floats_that_are_all_whole_become_int64() -> None:
    ids = ids_of(pl.Series([3.0, -1.0]))
    assert ids.dtype == pl.Int64
    assert ids.to_list() == [3, -1]


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["a", "7"]), pl.String])
def test_text_and_categories_stay_text_even_where_they_look_like_numbers(
    dtype: pl.DataType,
) -> None:
    ids = ids_of(pl.Series(["7", "a"], dtype=pl.String).cast(dtype))
    assert ids.dtype == pl.String
    assert ids.to_list() == ["7", "a"]
    assert ids_of(pl.Series(["7"]).cast(pl.Categorical)).dtype == pl.String


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["7", "-12", "0"], [7, -12, 0]),
        (["7.0", "8"], [7, 8]),
        (["007", "7"], ["007", "7"]),
        (["+7", "8"], ["+7", "8"]),
        ([" 7", "8"], [" 7", "8"]),
        (["1.5", "2"], ["1.5", "2"]),
        (["1e3", "2"], ["1e3", "2"]),
        (["7", "B00X"], ["7", "B00X"]),
        (["nan", "bob"], ["nan", "bob"]),
        (["007", "99999999999999999999"], ["007", "99999999999999999999"]),
    ],
)
def test_fields_of_text_files_are_integers_only_if_all_are_written_as_such(
    written: list[str], expected: list[int] | list[str]
) -> None:
    ids = ids_of(pl.Series(written), is_untyped=True)
    assert ids.dtype == (pl.Int64 if isinstance(expected[0], int) else pl.String)
    assert ids.to_list() == expected


@pytest.mark.parametrize(
    ("values", "is_untyped", "message"),
    [
        (pl.Series([1, None, None]), False, r"user_id is null in 2 of 3 rows, first in row 2"),
        (pl.Series([None, None]), False, r"user_id is null in 2 of 2 rows"),
        (pl.Series(["a", ""]), False, r"user_id is empty in 1 of 2 rows, first '' in row 2"),
        (pl.Series([1.0, float("nan")]), False, r"NaN or infinite in 1 of 2 rows, first nan"),
        (pl.Series([float("inf"), 1.0]), False, r"NaN or infinite in 1 of 2 rows, first inf"),
        (pl.Series(["1", "nan"]), True, r"NaN or infinite in 1 of 2 rows, first nan in row 2"),
        (pl.Series(["-inf", "2"]), True, r"NaN or infinite"),
        (pl.Series([1.0, 2.5]), False, r"not whole in 1 of 2 rows, first 2\.5 in row 2"),
        (pl.Series([2.0**53]), False, r"too large for a float to be exact"),
        (pl.Series([Decimal("1.5")]), False, r"not whole in 1 of 1 rows, first Decimal\('1\.5'\)"),
        (
            pl.Series([b"\xff\xfe"]),
            False,
            r"neither UTF-8 text nor a UUID of 16 bytes in 1 of 1 rows",
        ),
        (pl.Series([True]), False, r"user_id is of type Boolean; ids are integers or text"),
        (pl.Series([[1]]), False, r"user_id is of type List"),
    ],
)
def test_what_is_no_id_is_refused_in_one_line(
    values: pl.Series, is_untyped: bool, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        ids_of(values, is_untyped=is_untyped)
    assert str(error.value).startswith("log.csv: ")
    assert "\n" not in str(error.value)


def test_the_largest_int64_is_still_an_id() -> None:
    assert ids_of(pl.Series([str(2**63 - 1)]), is_untyped=True).to_list() == [2**63 - 1]


def test_ids_of_different_types_are_compared_by_text() -> None:
    text = pl.Series(["7", "007", "+7", " 7", "7.0", "x", None, str(2**63)])
    assert compared_as(text, pl.Int64()).to_list() == [7, *[None] * 7]
    assert compared_as(pl.Series([7, None]), pl.String()).to_list() == ["7", None]


def test_floats_are_not_compared() -> None:
    with pytest.raises(DataError, match="Float64 cannot be compared; give integers or text"):
        compared_as(pl.Series([7.0]), pl.Int64())


@pytest.mark.parametrize(
    ("ids", "asked", "expected"),
    [
        (pl.Series([30, 10, 20]), pl.Series([10, 30, 11, 99, None]), [1, 0, -1, -1, -1]),
        (pl.Series([30, 10, 20]), pl.Series(["20", "020", "x"]), [2, -1, -1]),
        (pl.Series(["b", "a", "10"]), pl.Series(["a", "b", "c", ""]), [1, 0, -1, -1]),
        (pl.Series(["b", "a", "10"]), pl.Series([10, 9]), [2, -1]),
        (pl.Series([], dtype=pl.Int64), pl.Series([1]), [-1]),
        (pl.Series([1]), pl.Series([]), []),
    ],
)
def test_a_lookup_finds_places_and_marks_what_is_not_there(
    ids: pl.Series, asked: pl.Series, expected: list[int]
) -> None:
    assert IdLookup(ids).find(asked).tolist() == expected


UUIDS = [UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), UUID(int=2**127)]


@pytest.mark.parametrize(
    ("values", "is_untyped", "expected"),
    [
        # Warehouses export whole numbers as decimals.
        (pl.Series([Decimal(7), Decimal(12)], dtype=pl.Decimal(38, 0)), False, [7, 12]),
        (pl.Series([Decimal("7.00")], dtype=pl.Decimal(10, 2)), False, [7]),
        (pl.Series([Decimal("7"), Decimal(10**30)]), False, ["7", str(10**30)]),
        # Unsigned 64-bit hashes.
        (
            pl.Series([1, 12297829382473034410], dtype=pl.UInt64),
            False,
            ["1", "12297829382473034410"],
        ),
        (pl.Series(["1", str(2**63)]), True, ["1", str(2**63)]),
        (pl.Series([uuid.bytes for uuid in UUIDS]), False, [str(uuid) for uuid in UUIDS]),
        (pl.Series(UUIDS, dtype=pl.Object), False, [str(uuid) for uuid in UUIDS]),
        (pl.Series([b"a7", "é".encode()]), False, ["a7", "é"]),
    ],
)
def test_ids_as_warehouses_and_hashes_have_them(
    values: pl.Series, is_untyped: bool, expected: list[object]
) -> None:
    assert ids_of(values, is_untyped=is_untyped).to_list() == expected


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (3.0, "3"),
        (np.float32(3), "3"),
        (np.int64(3), "3"),
        (Decimal("3.00"), "3"),
        (UUIDS[0], "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        (12297829382473034410, "12297829382473034410"),
        (3.5, "3.5"),
        (Decimal(10**30), str(10**30)),
        (Decimal("Infinity"), "Infinity"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("3.0", "3.0"),
        (-7, "-7"),
    ],
)
def test_a_single_id_is_compared_by_the_text_of_the_id_it_is(one: object, text: str) -> None:
    assert id_text(one) == text


def test_a_history_of_floats_is_that_of_its_integers() -> None:
    vocabulary = Vocabulary.from_ids(pl.Series([3, 7, 9]))
    assert vocabulary.encode_text([3.0, np.float64(7), "9", 3.5]).tolist() == [1, 2, 3, 0]
