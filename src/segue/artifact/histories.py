"""The histories of a run, in Parquet, written and read a block at a time.

One row per interaction, user after user, each user's in time order: the outside ids, the timestamp
and the weight where the log has them, and the part of the split, as text. A user without
interactions has one row, null but for the user. How the log was split, and the unit of its times,
are in the file's own metadata.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.io.plugins import register_io_source
from pydantic import BaseModel, ConfigDict

from segue.artifact.tables import ID_TYPES, ColumnTypes, refuse_other_types, scan
from segue.data.histories import Histories
from segue.data.roles import ITEM, TIME, USER, WEIGHT
from segue.data.splits import PART_NAMES, Split
from segue.data.times import TimeUnit
from segue.data.vocabulary import Vocabulary

BLOCK_ROWS = 2**18
METADATA_KEY = "segue.split"
PART = "part"
TYPES: ColumnTypes = {
    USER.name: ID_TYPES,
    ITEM.name: ID_TYPES,
    PART: (pl.String(),),
}
OPTIONAL_TYPES: ColumnTypes = {
    TIME.name: (pl.Int64(), pl.Float64(), pl.Datetime("us")),
    WEIGHT.name: (pl.Float32(),),
}

Array = npt.NDArray[Any]


class Cut(BaseModel):
    """How a log was split."""

    model_config = ConfigDict(frozen=True)

    kind: str
    notes: tuple[str, ...]
    unit: TimeUnit | None = None  # version 0.1 did not write it: it is found from the times
    repeats: bool = False


def write_histories(path: Path, split: Split) -> None:
    """Write a split; what it needs of memory beyond the split's own is some blocks."""
    histories = split.histories
    cut = Cut(kind=split.kind, notes=split.notes, unit=histories.unit, repeats=split.repeats)
    schema = {
        USER.name: histories.user_ids.dtype,
        ITEM.name: histories.vocabulary.ids.dtype,
        **_time_type(histories),
        **({} if histories.weights is None else {WEIGHT.name: pl.Float32()}),
        PART: pl.String(),
    }
    # Polars asks for one block after the other; a DataFrame would hold all outside ids at once.
    table = register_io_source(lambda *_: _blocks(split), schema=schema)
    table.sink_parquet(
        path, row_group_size=BLOCK_ROWS, metadata={METADATA_KEY: cut.model_dump_json()}
    )


def read_histories(path: Path, vocabulary: Vocabulary) -> Split:
    """The split that `write_histories` was given; it needs as little memory.

    Raises:
        ValueError, DataError, PolarsError: The table is damaged, or is not of this vocabulary.
    """
    cut = Cut.model_validate_json(pl.read_parquet_metadata(path).get(METADATA_KEY, ""))
    table = scan(path)
    refuse_other_types(table, TYPES)
    names = table.collect_schema().names()
    present = {name: types for name, types in OPTIONAL_TYPES.items() if name in names}
    refuse_other_types(table, present)
    user_ids, offsets, num_rows = _read_users(table)
    columns = _read_interactions(table, num_rows, int(offsets[-1]), vocabulary)
    histories = Histories(
        vocabulary=vocabulary,
        user_ids=user_ids,
        offsets=offsets,
        item_ids=columns[ITEM.name],
        timestamps=columns.get(TIME.name),
        weights=columns.get(WEIGHT.name),
        known_unit=cut.unit,
    )
    return Split(cut.kind, histories, columns[PART], cut.notes, cut.repeats)


def _blocks(split: Split) -> Iterator[pl.DataFrame]:
    rows_of_users = np.maximum(split.histories.lengths, 1)
    row_offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(rows_of_users)])
    num_rows = int(row_offsets[-1])
    for start in range(0, num_rows, BLOCK_ROWS):
        yield _block(split, row_offsets, np.arange(start, min(start + BLOCK_ROWS, num_rows)))


def _block(
    split: Split, row_offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> pl.DataFrame:
    """Consecutive rows of the table; `row_offsets` says which of all are each user's."""
    histories = split.histories
    users = np.searchsorted(row_offsets, rows, side="right") - 1
    is_interaction = histories.lengths[users] > 0
    places = histories.offsets[users] + rows - row_offsets[users]
    first = int(places[0])
    block = slice(first, first + int(np.count_nonzero(is_interaction)))
    columns = {ITEM.name: histories.vocabulary.decode(histories.item_ids[block])}
    if histories.timestamps is not None:
        columns[TIME.name] = pl.Series(histories.timestamps[block])
    if histories.weights is not None:
        columns[WEIGHT.name] = pl.Series(histories.weights[block]).fill_nan(None)
    columns[PART] = pl.Series(PART_NAMES).gather(split.parts[block])
    interactions = pl.Series(places - first).set(pl.Series(~is_interaction), None)
    table = pl.DataFrame(columns).select(pl.all().gather(interactions))
    return table.insert_column(0, histories.user_ids.gather(users).alias(USER.name))


def _time_type(histories: Histories) -> dict[str, pl.DataType]:
    """The type of the table's times; nothing where the histories have none."""
    if histories.timestamps is None:
        return {}
    return {TIME.name: pl.Series(histories.timestamps[:0]).dtype}


def _read_users(table: pl.LazyFrame) -> tuple[pl.Series, npt.NDArray[np.int64], int]:
    """The users in their order, the offsets of their interactions, and the rows of the table."""
    users = (
        table.select(USER.name, ITEM.name)
        .with_row_index("row")
        .group_by(USER.name)
        .agg(
            first=pl.col("row").min().cast(pl.Int64),
            rows=pl.len().cast(pl.Int64),
            interactions=pl.col(ITEM.name).count().cast(pl.Int64),
        )
        .sort("first")
        .collect(engine="streaming")
    )
    is_empty = (users["interactions"] == 0) & (users["rows"] == 1)
    if (
        users[USER.name].has_nulls()
        or not (
            (users["first"] == users["rows"].cum_sum() - users["rows"])
            & ((users["interactions"] == users["rows"]) | is_empty)
        ).all()
    ):
        raise ValueError("the rows of a user do not stand together, or lack the user or the item")
    offsets = np.concatenate([np.zeros(1, np.int64), users["interactions"].cum_sum().to_numpy()])
    return users[USER.name], offsets, int(users["rows"].sum())


def _read_interactions(
    table: pl.LazyFrame, num_rows: int, size: int, vocabulary: Vocabulary
) -> dict[str, Array]:
    """The columns but for the users, each [size]; users without interactions are left out."""
    schema = table.collect_schema()
    readers: dict[str, Callable[[pl.Series], Array]] = {
        ITEM.name: partial(_dense_ids, vocabulary),
        PART: _parts,
        **({TIME.name: _times} if TIME.name in schema else {}),
        **({WEIGHT.name: pl.Series.to_numpy} if WEIGHT.name in schema else {}),
    }
    columns = {
        name: np.empty(size, read(pl.Series(name, dtype=schema[name])).dtype)
        for name, read in readers.items()
    }
    filled = 0
    for start in range(0, num_rows, BLOCK_ROWS):
        rows = table.slice(start, BLOCK_ROWS).select(*readers).collect()
        block = rows.filter(pl.col(ITEM.name).is_not_null())
        for name, read in readers.items():
            columns[name][filled : filled + len(block)] = read(block[name])
        filled += len(block)
    return columns


def _dense_ids(vocabulary: Vocabulary, item_ids: pl.Series) -> npt.NDArray[np.int32]:
    dense_ids = vocabulary.encode(item_ids)
    if not dense_ids.all():
        raise ValueError(f"the item {item_ids[int(dense_ids.argmin())]!r} is none of the run's")
    return dense_ids


def _times(times: pl.Series) -> Array:
    if times.has_nulls() or (times.dtype.is_float() and not times.is_finite().all()):
        raise ValueError("an interaction has no time, or one that is not finite")
    return times.to_numpy()


def _parts(parts: pl.Series) -> npt.NDArray[np.uint8]:
    numbers = parts.cast(pl.Enum(PART_NAMES), strict=False).to_physical()
    if numbers.has_nulls():
        raise ValueError(
            f"an interaction is of the part {parts[numbers.is_null().arg_max() or 0]!r}, which "
            f"is none of {', '.join(PART_NAMES)}"
        )
    return numbers.to_numpy()
