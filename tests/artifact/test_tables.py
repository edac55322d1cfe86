import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal, assert_series_equal

from segue.artifact.tables import check_catalogue, read_items, write_items
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError


@pytest.mark.parametrize(
    "column",
    [
        pl.Series("c", ["ä", None], dtype=pl.String),
        pl.Series("c", [1.5, None]),
        pl.Series("c", [True, None]),
        pl.Series("c", ["x", "y"], dtype=pl.Categorical),
        pl.Series("c", ["x", "y"], dtype=pl.Enum(["y", "x"])),
        pl.Series("c", [["Comedy", "Drama"], []]),
        pl.Series("c", [{"a": 1}, {"a": None}]),
        pl.Series("c", [dt.date(1999, 1, 2), None]),
        pl.Series("c", [dt.datetime(1999, 1, 2), None], dtype=pl.Datetime("ms", "UTC")),
        pl.Series("c", [b"\x00", None]),
        pl.Series("c", [None, None]),
    ],
    ids=lambda column: str(column.dtype),
)
def test_a_catalogues_column_comes_back_whatever_its_type(column: Any, tmp_path: Path) -> None:
    catalogue = column.to_frame()
    check_catalogue(catalogue)
    vocabulary = Vocabulary(pl.Series([30, 20]))
    write_items(tmp_path / "items.parquet", vocabulary, catalogue, np.array([0, 1, 2]))
    found_vocabulary, found, counts = read_items(tmp_path / "items.parquet")
    assert found is not None
    assert_frame_equal(found, catalogue)
    assert_series_equal(found_vocabulary.ids, vocabulary.ids, check_names=False)
    assert counts.tolist() == [0, 1, 2]


def test_a_catalogue_without_columns_comes_back_as_none(tmp_path: Path) -> None:
    vocabulary = Vocabulary(pl.Series([30, 20]))
    write_items(tmp_path / "items.parquet", vocabulary, pl.DataFrame(), np.array([0, 1, 2]))
    assert read_items(tmp_path / "items.parquet")[1] is None


@pytest.mark.parametrize("name", ["item_id", "dense_id", "train_interactions"])
def test_a_catalogue_may_not_use_the_names_of_a_runs_own_columns(name: str) -> None:
    with pytest.raises(DataError, match=f"the catalogue has '{name}', where a run keeps columns"):
        check_catalogue(pl.DataFrame({"title": ["a"], name: [1]}))


@pytest.mark.parametrize(
    "column",
    [
        pl.Series("c", [object()], dtype=pl.Object),
        pl.Series("c", [{}], dtype=pl.Struct([])),
    ],
    ids=["objects", "structs of nothing"],
)
def test_a_catalogue_that_parquet_cannot_hold_is_refused(column: Any) -> None:
    with pytest.raises(DataError, match=r"the catalogue's column 'c' is .* cannot be saved; make"):
        check_catalogue(column.to_frame())
