import json
import subprocess
import sys

import pandas as pd
import polars as pl
import pytest

from segue.data.log import read_log
from segue.errors import DataError

# Without pyarrow, in a process of its own: Polars looks for it once.
PROGRAM = """
import json, sys
sys.modules["pyarrow"] = None
import pandas as pd
import segue
frame = pd.DataFrame({
    "user": pd.array(["a", "b"], dtype="string"),
    "item": pd.Categorical(["x", "y"]),
    "date": pd.to_datetime(["2024-01-05T12:00", "2024-01-06T12:00"]).tz_localize("Europe/Berlin"),
    "rating": pd.array([1, None], dtype="Int64"),
})
print(json.dumps(segue.read_log(frame).frame.rows(), default=str))
"""


def test_text_categories_zones_and_nullable_numbers_need_no_pyarrow() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        ["a", "x", "2024-01-05 11:00:00", 1.0],
        ["b", "y", "2024-01-06 11:00:00", None],
    ]


def test_columns_of_several_levels_are_refused_in_one_line() -> None:
    columns = pd.MultiIndex.from_tuples([("user", "id"), ("item", "id"), ("time", "")])
    frame = pd.DataFrame([[1, 2, 3]], columns=columns)
    with pytest.raises(DataError, match="has columns of 2 levels; join them to names") as error:
        read_log(frame)
    assert "\n" not in str(error.value)
    frame.columns = ["_".join(map(str, each)) for each in frame.columns]
    assert read_log(frame, time_col="time_").frame.rows() == [(1, 2, 3)]


def test_columns_of_one_name_are_refused() -> None:
    frame = pd.DataFrame([[1, 2, 3, 4]], columns=["user", "item", "item", "time"])
    with pytest.raises(DataError, match="several columns called 'item'; rename them"):
        read_log(frame)


def test_nullable_columns_keep_their_values_and_nulls() -> None:
    frame = pd.DataFrame({"user": [1], "item": pd.array([7], dtype="UInt8"), "time": [2]})
    assert read_log(frame).frame["item_id"].to_list() == [7]
    assert read_log(frame).frame["item_id"].dtype == pl.Int64
