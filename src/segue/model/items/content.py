"""The tower of content: what an item is places it, and its own vector moves it from there."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import numpy.typing as npt
import polars as pl
from keras import ops
from pydantic import Field, field_validator

from segue.config import TOWERS, TowerConfig
from segue.data.content import CONTENT
from segue.model.kernels.tensors import Tensor


class ContentTowerConfig(TowerConfig):
    """The settings of `content`."""

    tower: Literal["content"] = "content"
    features: tuple[str, ...] = Field(
        default=(),
        validate_default=True,
        strict=False,
        description="columns of the catalogue that say what an item is",
    )
    content_size: int = Field(
        default=64, ge=1, le=4_096, description="numbers that the features of an item become"
    )
    id_limit: float = Field(
        default=0.5,
        ge=0.0,
        le=1_000.0,
        description="how far an item's own vector may move it from where its content is",
    )

    @property
    def content_columns(self) -> tuple[str, ...]:
        """As `TowerConfig.content_columns`."""
        return self.features

    @property
    def content_numbers(self) -> int:
        """As `TowerConfig.content_numbers`."""
        return self.content_size

    @field_validator("features")
    @classmethod
    def _at_least_one(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        if not features:
            raise ValueError("name at least one column of the catalogue (--item-features)")
        return features


@TOWERS.register("content")
class ContentTower(keras.layers.Layer):
    """content @ projection + own, the length of `own` bounded.

    An item without interactions is where its content is, as its own vector is zero.

    Source: "Let it go? Not quite: addressing item cold start in sequential recommendations with
    content-based initialization", RecSys 2025, with a bounded trainable delta. Departure: the
    content is projected by a trained map, where the paper's has the width of the model.
    """

    Settings: ClassVar[type[TowerConfig]] = ContentTowerConfig

    def __init__(
        self,
        settings: ContentTowerConfig,
        num_items: int,
        width: int,
        catalogue: pl.DataFrame | None,
        seed: int,
        **kwargs: Any,
    ) -> None:
        """Takes the vectors from the column `CONTENT` of the catalogue, where it has one.

        Without it they are zeros, until a run's weights are loaded.
        """
        super().__init__(name="content_tower", **kwargs)
        self.num_items = num_items
        self.width = width
        self.size = settings.content_size
        self.id_limit = settings.id_limit
        self.seed = seed
        self._given = None
        if catalogue is not None and CONTENT in catalogue.columns:
            self._given = catalogue[CONTENT].to_numpy()

    def build(self, input_shape: Any = None) -> None:
        """Creates the vectors of content, their projection, and the items' own vectors."""
        rows = self.num_items + 1
        self.content = self.add_weight(
            name="content", shape=(rows, self.size), initializer="zeros", trainable=False
        )
        if self._given is not None:
            padding = np.zeros((1, self.size), np.float32)
            self.content.assign(np.concatenate([padding, self._given]))
        small = keras.initializers.TruncatedNormal(stddev=0.05, seed=self.seed)
        self.projection = self.add_weight(
            name="projection", shape=(self.size, self.width), initializer=small
        )
        self.own = self.add_weight(name="own", shape=(rows, self.width), initializer="zeros")
        self.built = True

    def arrays(self) -> Mapping[str, Any]:
        """As `ItemTower.arrays`: content and own vectors."""
        return {"content": self.content, "own": self.own}

    def vectors(self, item_ids: Tensor, arrays: Mapping[str, Tensor] | None = None) -> Tensor:
        """As `ItemTower.vectors`."""
        content, own = self._arrays(arrays)
        return self._placed(ops.take(content, item_ids, axis=0), ops.take(own, item_ids, axis=0))

    def table(self, arrays: Mapping[str, Tensor] | None = None) -> Tensor:
        """As `ItemTower.table`."""
        return self._placed(*self._arrays(arrays))

    def rows_of(self, content: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.float32]]:
        """As `segue.new_items.PlacesByContent.rows_of`."""
        return {"content": content}

    def _arrays(self, arrays: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        arrays = arrays or self.arrays()
        return ops.convert_to_tensor(arrays["content"]), ops.convert_to_tensor(arrays["own"])

    def _placed(self, content: Tensor, own: Tensor) -> Tensor:
        """float[..., width] of content float[..., size] and own float[..., width]."""
        projected = ops.matmul(content, ops.convert_to_tensor(self.projection))
        squared = ops.sum(ops.square(own), axis=-1, keepdims=True)
        # own * min(1, limit / length), with a slope that is finite at 0.
        limit = self.id_limit**2
        return projected + own * ops.sqrt(limit / ops.maximum(squared, max(limit, 1e-12)))
