"""The Parquet tables of a run: its items and its ranks, and what every such table goes through."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.checks import shown_names
from segue.data.roles import ITEM, USER
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError
from segue.evaluation.protocol import Ranking

ColumnTypes = Mapping[str, tuple[pl.DataType, ...]]

ID_TYPES = (pl.Int64(), pl.String())

DENSE_ID, TRAIN_INTERACTIONS = "dense_id", "train_interactions"
ITEM_TYPES: ColumnTypes = {
    DENSE_ID: (pl.Int32(),),
    ITEM.name: ID_TYPES,
    TRAIN_INTERACTIONS: (pl.Int64(),),
}

TARGET, RANK, CANDIDATES = "target", "rank", "candidates"
RANK_TYPES: ColumnTypes = {
    USER.name: ID_TYPES,
    TARGET: ID_TYPES,
    RANK: (pl.Int32(),),
    CANDIDATES: (pl.Int32(),),
}


def check_catalogue(catalogue: pl.DataFrame) -> None:
    """Refuse columns that a run cannot hold; to be called before the work on the run starts.

    Raises:
        DataError: A column is called as one of a run's own, or is of a type without a Parquet form.
    """
    taken = [name for name in catalogue.columns if name in ITEM_TYPES]
    if taken:
        raise DataError(
            f"the catalogue has {shown_names(taken)}, where a run keeps columns of its own; "
            f"rename or drop that"
        )
    for column in catalogue.clear():
        try:
            column.to_frame().write_parquet(BytesIO())
        except pl.exceptions.PolarsError:
            raise DataError(
                f"the catalogue's column {column.name!r} is {column.dtype}, which cannot be "
                f"saved; make it text or numbers, or drop it"
            ) from None


def scan(path: Path) -> pl.LazyFrame:
    """A table of a run; its path is taken as it is, asterisks and brackets too."""
    return pl.scan_parquet(path, glob=False)


def refuse_other_types(table: pl.LazyFrame, expected: ColumnTypes) -> None:
    """Refuse a table without an expected column, or with one of a type not expected.

    Raises:
        ValueError: That is so.
    """
    schema = table.collect_schema()
    for name, types in expected.items():
        if name not in schema:
            raise ValueError(f"it has no column {name!r} among {shown_names(schema)}")
        if schema[name] not in types:
            wanted = " or ".join(str(one) for one in types)
            raise ValueError(f"its column {name!r} is {schema[name]}, not {wanted}")


def write_items(
    path: Path,
    vocabulary: Vocabulary,
    catalogue: pl.DataFrame | None,
    item_counts: npt.NDArray[np.int64],
) -> None:
    """One row per dense id, in order: dense id, outside id, the catalogue's columns, the count."""
    items = pl.DataFrame(
        {
            DENSE_ID: pl.int_range(1, vocabulary.num_items + 1, dtype=pl.Int32, eager=True),
            ITEM.name: vocabulary.ids,
            **(catalogue.to_dict() if catalogue is not None else {}),
            TRAIN_INTERACTIONS: item_counts[1:],
        }
    )
    items.write_parquet(path)


def read_items(
    path: Path,
) -> tuple[Vocabulary, pl.DataFrame | None, npt.NDArray[np.int64]]:
    """What `write_items` was given; a catalogue without columns is none.

    Raises:
        ValueError, DataError, PolarsError: The table is damaged.
    """
    table = scan(path)
    refuse_other_types(table, ITEM_TYPES)
    items = table.collect()
    dense_ids = items[DENSE_ID]
    if not dense_ids.eq_missing(pl.int_range(1, len(items) + 1, dtype=pl.Int32, eager=True)).all():
        raise ValueError(f"its dense ids are not 1 to {len(items):,} in order")
    counts = items[TRAIN_INTERACTIONS]
    if counts.has_nulls() or (counts < 0).any():
        raise ValueError("an item has no count of its interactions, or one below 0")
    catalogue = items.drop(ITEM_TYPES)
    return (
        Vocabulary(items[ITEM.name]),
        catalogue if catalogue.width else None,
        np.concatenate([np.zeros(1, np.int64), counts.to_numpy()]),
    )


def write_ranks(path: Path, vocabulary: Vocabulary, ranking: Ranking) -> None:
    """One row per user of the test: outside ids of the user and the target, rank, candidates."""
    ranks = pl.DataFrame(
        {
            USER.name: ranking.user_ids,
            TARGET: vocabulary.decode(ranking.targets),
            RANK: ranking.ranks,
            CANDIDATES: ranking.candidates,
        }
    )
    ranks.write_parquet(path)


def read_ranks(path: Path, vocabulary: Vocabulary) -> Ranking:
    """What `write_ranks` was given.

    Raises:
        ValueError, DataError, PolarsError: The table is damaged, or is not of this vocabulary.
    """
    table = scan(path)
    refuse_other_types(table, RANK_TYPES)
    ranks = table.select(*RANK_TYPES).collect()
    if any(column.has_nulls() for column in ranks):
        raise ValueError("it has nulls")
    if not ranks[RANK].is_between(0, ranks[CANDIDATES]).all():
        raise ValueError("a rank is below 0 or above the number of candidates")
    targets = vocabulary.encode(ranks[TARGET])
    if not targets.all():
        raise ValueError(f"the target {ranks[TARGET][int(targets.argmin())]!r} is no item")
    return Ranking(
        ranks=ranks[RANK].to_numpy(),
        candidates=ranks[CANDIDATES].to_numpy(),
        targets=targets,
        user_ids=ranks[USER.name],
    )
