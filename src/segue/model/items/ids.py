"""The table of ids: each item has a vector of its own, learned from the interactions with it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import keras
import polars as pl
from keras import ops

from segue.config import TOWERS, TowerConfig
from segue.model.kernels.tensors import Tensor


class IdTowerConfig(TowerConfig):
    """The settings of `ids`: none."""

    tower: Literal["ids"] = "ids"


@TOWERS.register("ids")
class IdTower(keras.layers.Layer):
    """The item table, shared by the input and the output; row 0, padding, is and stays zero."""

    Settings: ClassVar[type[TowerConfig]] = IdTowerConfig

    def __init__(
        self,
        settings: TowerConfig,
        num_items: int,
        width: int,
        catalogue: pl.DataFrame | None,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(name="item_embedding", **kwargs)
        self.num_items = num_items
        self.width = width
        self.seed = seed

    def build(self, input_shape: Any = None) -> None:
        """Creates the table."""
        normal = keras.initializers.TruncatedNormal(stddev=0.02, seed=self.seed)

        def with_zero_padding(shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
            rows = normal((shape[0] - 1, shape[1]), dtype=dtype)
            return ops.concatenate([ops.zeros((1, shape[1]), dtype=rows.dtype), rows])

        self.embeddings = self.add_weight(
            name="table", shape=(self.num_items + 1, self.width), initializer=with_zero_padding
        )
        self.built = True

    def arrays(self) -> Mapping[str, Any]:
        """As `ItemTower.arrays`: the table."""
        return {"table": self.embeddings}

    def vectors(self, item_ids: Tensor, arrays: Mapping[str, Tensor] | None = None) -> Tensor:
        """As `ItemTower.vectors`."""
        return ops.take(self.table(arrays), item_ids, axis=0)

    def table(self, arrays: Mapping[str, Tensor] | None = None) -> Tensor:
        """As `ItemTower.table`; nothing is copied."""
        return ops.convert_to_tensor(self.embeddings if arrays is None else arrays["table"])
