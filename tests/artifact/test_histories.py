from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_series_equal

from segue.artifact import histories as module
from segue.artifact.histories import read_histories, write_histories
from segue.data.histories import Histories
from segue.data.splits import Split
from segue.data.vocabulary import Vocabulary

ITEMS = {
    "text": pl.Series(["b", "a", "ü", "42"]),
    "numbers": pl.Series([2**63 - 1, -5, 0, 7]),
}
TIMES: dict[str, list[Any]] = {
    "int64": [-(2**63), 0, 1, 2**63 - 1],
    "float64": [-1.5, 0.0, 0.1, 1e300],
    "datetime64[us]": ["1960-01-01", "2000-01-01T00:00:00.000001", "2000-01-02", "2200-01-01"],
}


def split_of(
    lengths: list[int],
    items: list[int],
    times: npt.NDArray[Any],
    weights: npt.NDArray[np.float32] | None,
    *,
    vocabulary: Vocabulary,
    user_ids: pl.Series,
) -> Split:
    """A global-time split without validation or test, in the shape of one with."""
    histories = Histories(
        vocabulary=vocabulary,
        user_ids=user_ids,
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        item_ids=np.array(items, np.int32),
        timestamps=times,
        weights=weights,
    )
    return Split("none", histories, np.zeros(len(items), np.uint8), ("a note", "zwölf\nund"))


@st.composite
def splits(draw: st.DrawFn) -> Split:
    lengths = draw(st.lists(st.integers(0, 4), max_size=6))
    size = sum(lengths)
    kind = draw(st.sampled_from(sorted(TIMES)))
    moments = np.array(TIMES[kind], kind)
    picks = [sorted(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))) for n in lengths]
    weights = draw(
        st.none()
        | st.lists(st.floats(width=32, allow_infinity=False), min_size=size, max_size=size).map(
            lambda values: np.array(values, np.float32)
        )
    )
    users = draw(st.permutations(range(len(lengths))))
    as_text = draw(st.booleans())
    return split_of(
        lengths,
        draw(st.lists(st.integers(1, 4), min_size=size, max_size=size)),
        moments[np.array([pick for each in picks for pick in each], np.int64)],
        weights,
        vocabulary=Vocabulary(ITEMS[draw(st.sampled_from(sorted(ITEMS)))]),
        user_ids=pl.Series(users, dtype=pl.Int64).cast(pl.String if as_text else pl.Int64),
    )


def assert_same_array(found: npt.NDArray[Any] | None, expected: npt.NDArray[Any] | None) -> None:
    if found is None or expected is None:
        assert found is expected
        return
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def assert_same_split(found: Split, expected: Split) -> None:
    assert (found.kind, found.notes) == (expected.kind, expected.notes)
    assert_same_array(found.parts, expected.parts)
    assert_series_equal(found.histories.user_ids, expected.histories.user_ids, check_names=False)
    for field in ("offsets", "item_ids", "timestamps", "weights"):
        assert_same_array(getattr(found.histories, field), getattr(expected.histories, field))


@pytest.mark.parametrize("block_rows", [1, 3, 1000])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(split=splits())
def test_a_split_comes_back_as_it_was_however_blocks_cut_it(
    split: Split, block_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    path = tmp_path / "histories.parquet"
    write_histories(path, split)
    assert_same_split(read_histories(path, split.histories.vocabulary), split)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [("leave-one-out", [0, 1, 2, 0, 0]), ("global-time", [0, 1, 2, 0, 1])],
)
def test_the_parts_come_back(kind: str, parts: list[int], tmp_path: Path) -> None:
    histories = Histories(
        vocabulary=Vocabulary(ITEMS["text"]),
        user_ids=pl.Series(["x", "y"]),
        offsets=np.array([0, 3, 5]),
        item_ids=np.array([4, 4, 2, 1, 3], np.int32),
        timestamps=np.array([1, 2, 3, 1, 2]),
    )
    split = Split(kind, histories, np.array(parts, np.uint8), ())
    write_histories(tmp_path / "histories.parquet", split)
    assert_same_split(read_histories(tmp_path / "histories.parquet", histories.vocabulary), split)


def test_a_user_without_interactions_has_a_row_of_nulls(tmp_path: Path) -> None:
    split = split_of(
        [0, 1, 0],
        [2],
        np.array([5]),
        None,
        vocabulary=Vocabulary(ITEMS["text"]),
        user_ids=pl.Series(["x", "y", "z"]),
    )
    write_histories(tmp_path / "histories.parquet", split)
    assert pl.read_parquet(tmp_path / "histories.parquet").rows() == [
        ("x", None, None, None),
        ("y", "a", 5, "train"),
        ("z", None, None, None),
    ]


def test_no_more_than_a_block_of_outside_ids_is_made_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [700, 0, 300]
    split = split_of(
        lengths,
        [1] * 1000,
        np.zeros(1000),
        None,
        vocabulary=Vocabulary(ITEMS["text"]),
        user_ids=pl.Series(["x", "y", "z"]),
    )
    sizes: list[int] = []
    decode = Vocabulary.decode

    def spying(self: Vocabulary, item_ids: npt.NDArray[np.int32]) -> pl.Series:
        sizes.append(len(item_ids))
        return decode(self, item_ids)

    encode = Vocabulary.encode

    def spying_too(self: Vocabulary, ids: pl.Series) -> npt.NDArray[np.int32]:
        sizes.append(len(ids))
        return encode(self, ids)

    monkeypatch.setattr(module, "BLOCK_ROWS", 64)
    monkeypatch.setattr(Vocabulary, "decode", spying)
    monkeypatch.setattr(Vocabulary, "encode", spying_too)
    write_histories(tmp_path / "histories.parquet", split)
    assert (sum(sizes), max(sizes)) == (1000, 64)
    written = pq.ParquetFile(tmp_path / "histories.parquet").metadata
    assert max(written.row_group(i).num_rows for i in range(written.num_row_groups)) == 64
    read_histories(tmp_path / "histories.parquet", split.histories.vocabulary)
    assert (sum(sizes), max(sizes)) == (2000, 64)
