"""What an item tower promises: see `segue.model.items.ItemTower`."""

from typing import Any

import keras
import numpy as np
import polars as pl

from segue.config import TOWERS, TowerConfig
from segue.testing.arrays import as_array, assert_close


def check_tower(
    name: str,
    *,
    num_items: int,
    width: int,
    catalogue: pl.DataFrame | None = None,
    **settings: Any,
) -> None:
    """Holds the registered tower of that name to what every tower promises.

    Args:
        name: Its name.
        num_items: Of the vocabulary, at least 5.
        width: Of the vectors.
        catalogue: A row for each item, where the tower reads one.
        settings: Its settings.

    Raises:
        AssertionError: A promise is broken; the line says which.
    """
    config = TowerConfig(tower=name, **settings)
    towers = [TOWERS[name](config, num_items, width, catalogue, seed) for seed in (1, 2)]
    for tower in towers:
        tower.build()
    tower, other = towers
    _shake(tower)
    table = as_array(tower.table())
    assert table.shape == (num_items + 1, width), (
        f"table() must have the shape {(num_items + 1, width)}, got {table.shape}"
    )
    ids = np.array([[1, 3], [num_items, 3]], np.int32)
    assert_close(as_array(tower.vectors(ids)), table[ids], "vectors(ids) must be rows of table()")
    arrays = {key: as_array(variable) for key, variable in tower.arrays().items()}
    for key, array in arrays.items():
        assert len(array) == num_items + 1, (
            f"arrays()[{key!r}] must have a row for each of {num_items} items and for padding, "
            f"got {len(array)}"
        )
    chosen = np.array([0, 2, 4, num_items])
    rows = {key: array[chosen] for key, array in arrays.items()}
    assert_close(
        as_array(tower.table(rows)), table[chosen], "table(arrays) must be of the rows given"
    )
    assert_close(
        as_array(tower.vectors(np.array([3, 1], np.int32), rows)),
        table[chosen[[3, 1]]],
        "vectors(ids, arrays) must count the rows given",
    )
    for ours, theirs in zip(tower.weights, other.weights, strict=True):
        theirs.assign(ours.value)
    assert_close(as_array(other.table()), table, "the weights must hold all that makes the table")


def _shake(tower: keras.layers.Layer) -> None:
    """Weights that differ from those that a tower begins with."""
    random = np.random.default_rng(0)
    for variable in tower.trainable_variables:
        value = random.normal(size=tuple(variable.shape))
        variable.assign(value.astype(np.float32))
