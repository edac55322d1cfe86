"""New items in a trained run: placed by their content, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.artifact import Run
from segue.data.checks import refuse_where, shown_names
from segue.data.items import Catalogue
from segue.data.roles import ITEM
from segue.data.splits import Split
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError, RequestError
from segue.model.sequence_model import SequenceModel
from segue.model.weights import named_variables

Array = npt.NDArray[Any]


@runtime_checkable
class PlacesByContent(Protocol):
    """An item tower that knows items by vectors of their content."""

    def rows_of(self, content: npt.NDArray[np.float32]) -> Mapping[str, Array]:
        """The rows of those of `ItemTower.arrays` that content decides, [items, ...] by name.

        The others' rows are zeros for an item that was never trained on.

        Args:
            content: float32[items, size].
        """
        ...


def with_items(run: Run, model: SequenceModel, items: Catalogue) -> Run:
    """The run with these items: new ones appended, known ones with their content as it is now.

    Nothing is trained. A new item has no interactions, and its vector is that of its content.

    Args:
        run: A run whose tower reads content.
        model: The run's model.
        items: What is known of the items, with the columns that the tower reads.

    Raises:
        RequestError: The run knows items by their interactions alone.
        DataError: A column is missing or of another type than in the run, or nothing is known of a
            new item.
    """
    if run.content is None or run.catalogue is None or not isinstance(model.tower, PlacesByContent):
        raise RequestError(
            "the run knows items by their interactions alone, so a new one has no place; train "
            "with --item-features"
        )
    ids = items.frame[ITEM.name]
    vocabulary = run.vocabulary.extend(ids)
    dense_ids = vocabulary.encode(ids)
    rows = _as_in(run.catalogue, items.frame, run.content.columns)
    content = run.content.vectors(rows)
    is_unknown = (dense_ids > run.vocabulary.num_items) & ~content.any(axis=1)
    refuse_where(
        pl.Series(is_unknown),
        ids,
        "the new items",
        f"has nothing in {', '.join(run.content.columns)} that the run knows",
        "describe it in these columns",
    )
    num_new = vocabulary.num_items - run.vocabulary.num_items
    return replace(
        run,
        weights=_weights(run, model, num_new, dense_ids, model.tower.rows_of(content)),
        vocabulary=vocabulary,
        catalogue=_catalogue(run.catalogue, rows, dense_ids, num_new),
        item_counts=_grown(run.item_counts, num_new),
        split=None if run.split is None else _over(run.split, vocabulary),
    )


def _weights(
    run: Run,
    model: SequenceModel,
    num_new: int,
    dense_ids: npt.NDArray[np.int32],
    rows: Mapping[str, Array],
) -> dict[str, Array]:
    """The run's weights with `num_new` items more, and these rows for these dense ids."""
    names = {id(variable): name for name, variable in named_variables(model).items()}
    weights = dict(run.weights)
    for key, variable in model.tower.arrays().items():
        array = _grown(run.weights[names[id(variable)]], num_new)
        if key in rows:
            array[dense_ids] = rows[key]
        weights[names[id(variable)]] = array
    if model.log_expected is not None:
        name = names[id(model.log_expected)]
        weights[name] = _grown(run.weights[name], num_new)
    return weights


def _grown(array: Array, num_new: int) -> Array:
    """A copy with `num_new` rows of zeros at the end."""
    return np.concatenate([array, np.zeros((num_new, *array.shape[1:]), array.dtype)])


def _as_in(catalogue: pl.DataFrame, rows: pl.DataFrame, needed: Sequence[str]) -> pl.DataFrame:
    """The rows with the catalogue's columns, of its types; null where they have no such column.

    Raises:
        DataError: A needed column is missing, or a column is of another type.
    """
    missing = [name for name in needed if name not in rows.columns]
    if missing:
        raise DataError(
            f"the new items have no column {shown_names(missing)}, which the run reads; their "
            f"columns are {shown_names(rows.columns)}"
        )
    columns = []
    for name, dtype in catalogue.schema.items():
        column = pl.col(name) if name in rows.columns else pl.lit(None).alias(name)
        columns.append(column.cast(dtype))
    try:
        return rows.select(columns)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"the new items' columns are not of the catalogue's types: {str(error).splitlines()[0]}"
        ) from error


def _catalogue(
    catalogue: pl.DataFrame, rows: pl.DataFrame, dense_ids: npt.NDArray[np.int32], num_new: int
) -> pl.DataFrame:
    """The catalogue with these rows at the places of their dense ids."""
    both = pl.concat([catalogue, rows])
    places = np.concatenate([np.arange(len(catalogue)), np.zeros(num_new, np.int64)])
    places[dense_ids - 1] = len(catalogue) + np.arange(len(rows))
    return both[places]


def _over(split: Split, vocabulary: Vocabulary) -> Split:
    """The split over a longer vocabulary, in which its dense ids mean the same."""
    histories = replace(split.histories, vocabulary=vocabulary, known_unit=split.histories.unit)
    return replace(split, histories=histories)
