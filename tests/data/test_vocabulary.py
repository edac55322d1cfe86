import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.vocabulary import Vocabulary
from segue.errors import DataError


def test_integers_are_sorted_by_number_and_text_by_character() -> None:
    assert Vocabulary.from_ids(pl.Series([10, 9, 100, 9])).ids.to_list() == [9, 10, 100]
    text = Vocabulary.from_ids(pl.Series(["10", "9", "100", "b", "B"]))
    assert text.ids.to_list() == ["10", "100", "9", "B", "b"]


def test_the_order_of_a_logs_rows_does_not_matter() -> None:
    one, other = (
        Vocabulary.from_ids(pl.Series([3, 1, 2])),
        Vocabulary.from_ids(pl.Series([2, 3, 1])),
    )
    assert one.ids.equals(other.ids)


def test_dense_ids_begin_at_one_and_unknown_ids_are_zero() -> None:
    vocabulary = Vocabulary.from_ids(pl.Series([50, 7]))
    encoded = vocabulary.encode(pl.Series([7, 50, 8, None]))
    assert vocabulary.num_items == 2
    assert encoded.dtype == np.int32
    assert encoded.tolist() == [1, 2, 0, 0]


def test_typed_ids_are_compared_by_text() -> None:
    numbers = Vocabulary.from_ids(pl.Series([7, 1907, 2355]))
    assert numbers.encode_text(["2355", 1907, "junk", "", "007", "7.0", 7]).tolist() == [
        *(3, 2, 0, 0, 0, 0, 1)
    ]
    text = Vocabulary.from_ids(pl.Series(["007", "8"]))
    assert text.encode_text([7, "7", "007", 8, "8"]).tolist() == [0, 0, 1, 2, 2]
    assert numbers.encode_text([]).tolist() == []


def test_decoding_gives_outside_ids_back() -> None:
    vocabulary = Vocabulary.from_ids(pl.Series(["x", "a"]))
    assert vocabulary.decode(np.array([2, 1, 2], np.int32)).to_list() == ["x", "a", "x"]
    assert vocabulary.decode(np.array([], np.int32)).to_list() == []


@pytest.mark.parametrize("dense_id", [0, 3, -1])
def test_padding_and_ids_beyond_the_vocabulary_have_no_outside_id(dense_id: int) -> None:
    vocabulary = Vocabulary.from_ids(pl.Series([5, 6]))
    with pytest.raises(DataError, match=f"{dense_id} is no dense id; give ids from 1 to 2"):
        vocabulary.decode(np.array([1, dense_id], np.int32))


def test_extending_only_appends() -> None:
    vocabulary = Vocabulary.from_ids(pl.Series([5, 9]))
    extended = vocabulary.extend(pl.Series([7, 9, 1, 7]))
    assert extended.ids.to_list() == [5, 9, 1, 7]
    assert vocabulary.ids.to_list() == [5, 9]
    assert extended.encode(pl.Series([1, 5, 7, 9])).tolist() == [3, 1, 4, 2]
    assert vocabulary.extend(pl.Series(["5", "8"])).ids.to_list() == [5, 9, 8]


def test_text_cannot_join_a_vocabulary_of_integers() -> None:
    with pytest.raises(DataError, match=r"is no integer .* first 'x' in row 2"):
        Vocabulary.from_ids(pl.Series([5])).extend(pl.Series(["6", "x"]))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pl.Series([1, 2, 1]), "is a repetition in 1 of 3 rows, first 1 in row 3"),
        (pl.Series(["a", None]), "is null in 1 of 2 rows"),
        (pl.Series([1.5]), "a vocabulary of Float64 is none"),
        (pl.Series([], dtype=pl.Int64), "1 to 2,147,483,647 items, not 0"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(ids: pl.Series, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary(ids)


@settings(deadline=None)
@given(
    st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
        st.lists(st.text(min_size=1), min_size=1),
    )
)
def test_encoding_and_decoding_are_inverse(ids: list[int] | list[str]) -> None:
    outside = pl.Series(ids)
    vocabulary = Vocabulary.from_ids(outside)
    encoded = vocabulary.encode(outside)
    assert encoded.min() >= 1
    assert vocabulary.decode(encoded).to_list() == ids
    assert vocabulary.encode_text(ids).tolist() == encoded.tolist()
