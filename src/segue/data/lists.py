"""Histories in whatever holds them: lists, arrays, columns of Polars or pandas."""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import polars as pl

if TYPE_CHECKING:
    import pandas as pd


def lists_of(column: Any) -> list[Any]:
    """A list with an entry for each row; rows that are arrays or columns become lists too."""
    rows = column.to_list() if isinstance(column, pl.Series) or is_pandas(column) else column
    return [_plain(row) for row in rows]


def is_pandas(column: object) -> "TypeGuard[pd.Series[Any]]":
    """Whether it is a column of pandas, which can only exist where pandas has been imported."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(column, pandas.Series)


def to_pandas(frame: pl.DataFrame) -> "pd.DataFrame":
    """The same table in pandas, for which pyarrow is not needed."""
    import pandas as pd

    columns: dict[str, Any] = {
        name: column.to_numpy() if column.dtype.is_numeric() else column.to_list()
        for name, column in zip(frame.columns, frame, strict=True)
    }
    return pd.DataFrame(columns)


def _plain(row: Any) -> Any:
    if isinstance(row, pl.Series) or is_pandas(row):
        return row.to_list()
    return row.tolist() if isinstance(row, np.ndarray) else row
