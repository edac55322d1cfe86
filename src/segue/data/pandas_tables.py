"""pandas DataFrames as tables, with or without pyarrow."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING
from uuid import UUID

import polars as pl

from segue.data.checks import shown_names
from segue.data.table import Rows, Table, reason
from segue.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

LABEL = "the pandas DataFrame"
# The kinds of NumPy's types that Polars takes without pyarrow: booleans, numbers, naive datetimes.
NUMPY_KINDS = "biufM"


def open_pandas(frame: "pd.DataFrame") -> Table:
    """The columns of a pandas DataFrame, whose index is left aside.

    Raises:
        DataError: The columns have several levels, or two have one name.
    """
    if frame.columns.nlevels > 1:
        raise DataError(
            f"{LABEL} has columns of {frame.columns.nlevels} levels; join them to names first: "
            'frame.columns = ["_".join(map(str, each)) for each in frame.columns]'
        )
    frame = frame.rename(columns=str)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()].unique()
        raise DataError(f"{LABEL} has several columns called {shown_names(twice)}; rename them")

    def read(columns: Sequence[str]) -> Rows:
        try:
            return Rows(pl.DataFrame([_series(frame[name]) for name in columns]))
        except (ImportError, ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{LABEL} cannot be read: {reason(error)}") from error

    return Table(LABEL, tuple(frame.columns), False, read)


def _series(column: "pd.Series") -> pl.Series:
    name = str(column.name)
    if _is_numpy(column) or (find_spec("pyarrow") is not None and not _holds_uuids(column)):
        return pl.from_pandas(column.to_frame()).to_series()
    written = column.map(str, na_action="ignore") if _holds_uuids(column) else column
    values = written.astype(object).where(column.notna(), None)
    return pl.Series(name, values.to_list())


def _is_numpy(column: "pd.Series") -> bool:
    return getattr(column.dtype, "kind", "O") in NUMPY_KINDS and not hasattr(
        column.dtype, "na_value"
    )


def _holds_uuids(column: "pd.Series") -> bool:
    """Whether these are UUID objects, which Polars does not take from pandas."""
    if column.dtype != object:
        return False
    return any(isinstance(value, UUID) for value in column.dropna().head(1))
