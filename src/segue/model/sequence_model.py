"""The model that segue trains: an item tower, an encoder and a loss, as one `keras.Model`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import polars as pl
from keras import ops

from segue.config import (
    ENCODERS,
    LOSSES,
    TOWERS,
    Config,
    LossConfig,
    ModelConfig,
    TowerConfig,
)
from segue.errors import RequestError
from segue.model.encoders import Attentive, Encoder
from segue.model.encoders.protocol import Inputs
from segue.model.items import ItemTower
from segue.model.kernels.tensors import Tensor
from segue.model.layers import as_mask
from segue.model.losses import Loss

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def build_model(
    num_items: int, config: Config, catalogue: pl.DataFrame | None = None
) -> "SequenceModel":
    """The configured model with fresh weights, which depend on the seed alone.

    Args:
        num_items: Of the vocabulary.
        config: Encoder, tower, loss, precision and seed.
        catalogue: A row for each dense id 1..num_items, for towers that read one.

    Raises:
        ConfigError: No encoder, tower or loss of that name is registered.
    """
    with _dtype_policy(POLICIES[config.training.precision]):
        return SequenceModel(
            num_items,
            config.model,
            config.loss,
            items=config.items,
            catalogue=catalogue,
            seed=config.training.seed,
        )


class SequenceModel(keras.Model):
    """Item ids in, a state at each position out; and the loss of the items that follow.

    Inputs, a dict:
        item_ids: int32[rows, length], dense ids, 0 = padding, length <= max_length.
        segment_ids: int32[rows, length], optional: 0 = padding, and each window of a packed row
            has a number of its own. A window sees only itself.
        padding_mask: bool[rows, length], optional, True on real items; for rows of one window.
        With neither, the items that are not 0 are one window.
        And each column that the encoder wants, [rows, length].

    Outputs, a dict:
        item_sequence_embedding: float[rows, length, width], the state at each position; zero on
            padding.

    Ids beyond `num_items` are not checked here, as nothing in a compiled graph is: a `Vocabulary`
    never gives one.

    Attributes:
        num_items: Of the vocabulary.
        settings, items_settings, loss_settings: Of encoder, tower and loss.
        tower, encoder, objective: The parts; `objective` is the loss.
        log_expected: float32[num_items + 1], a variable to be assigned from
            `NegativeSampler.log_expected`; None where the loss does not read it.
    """

    tower: ItemTower
    encoder: Encoder
    objective: Loss

    def __init__(
        self,
        num_items: int,
        config: ModelConfig,
        loss: LossConfig,
        *,
        items: TowerConfig | None = None,
        catalogue: pl.DataFrame | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        items = items or TowerConfig()
        self.num_items = num_items
        self.settings = config
        self.items_settings = items
        self.loss_settings = loss
        self.seed = seed
        self.tower = TOWERS[items.tower](items, num_items, config.width, catalogue, seed)
        self.encoder = ENCODERS[config.encoder](config, seed)
        self.objective = LOSSES[loss.loss](loss)
        self.log_expected: Any = None
        self.build()

    @property
    def wants(self) -> tuple[str, ...]:
        """The columns that the encoder reads in addition to `item_ids`."""
        return self.settings.wants

    @property
    def max_length(self) -> int:
        """The positions of a row, at most."""
        return self.settings.max_length

    def build(self, input_shape: Any = None) -> None:
        """Creates every variable; shapes depend on the settings alone."""
        self.tower.build()
        self.encoder.build((None, None, self.settings.width))
        if self.objective.reads_log_expected:
            self.log_expected = self.add_weight(
                name="log_expected",
                shape=(self.num_items + 1,),
                initializer="zeros",
                trainable=False,
            )
        self.built = True

    def call(
        self,
        inputs: Inputs,
        training: bool = False,
        arrays: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Inputs and outputs as the class describes them; `arrays` as `ItemTower` takes them."""
        segment_ids = self.segment_ids(inputs)
        vectors = self._vectors(inputs, arrays)
        states = self.encoder.states(vectors, inputs, segment_ids, training)
        return {"item_sequence_embedding": states * as_mask(segment_ids, states.dtype)}

    def encode(self, inputs: Inputs) -> Tensor:
        """The query of each row: its state at the last item.

        Returns:
            float[rows, width]; zeros for a row without items.
        """
        segment_ids = self.segment_ids(inputs)
        vectors = self._vectors(inputs)
        states = self.encoder.last(vectors, inputs, segment_ids, last_positions(segment_ids))
        is_item = ops.any(segment_ids > 0, axis=1, keepdims=True)
        return states * ops.cast(is_item, states.dtype)

    @property
    def is_attentive(self) -> bool:
        """Whether `last_attention` has an answer."""
        return isinstance(self.encoder, Attentive)

    def last_attention(self, inputs: Inputs) -> Tensor:
        """What the last item of each row attends to in the last block.

        Returns:
            float[rows, heads, length], adding up to 1.

        Raises:
            RequestError: The encoder does not attend.
        """
        if not isinstance(self.encoder, Attentive):
            raise RequestError(
                f"encoder={self.settings.encoder} does not attend, so there is nothing to show"
            )
        segment_ids = self.segment_ids(inputs)
        vectors = self._vectors(inputs)
        return self.encoder.attention_at(vectors, inputs, segment_ids, last_positions(segment_ids))

    def loss_of(
        self,
        inputs: Inputs,
        targets: Mapping[str, Tensor],
        weights: Tensor,
        *,
        training: bool = True,
        arrays: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The loss of a batch, a scalar: a function of the variables and the arguments alone.

        Args:
            inputs: As the class describes them.
            targets: `positive_sequence` int32[rows, length]; where the loss draws,
                `negative_sequence`; where given, `log_expected` in place of the model's own.
            weights: float32[rows, length], 0 where there is no target.
            training: Whether to drop out.
            arrays: Rows of the tower's arrays, which all ids then count; see `ItemTower`.
        """
        states = self(inputs, training=training, arrays=arrays)["item_sequence_embedding"]
        return self.loss_at(states, targets, weights, arrays)

    def loss_at(
        self,
        states: Tensor,
        targets: Mapping[str, Tensor],
        weights: Tensor,
        arrays: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The loss of these states, float[rows, length, width]; else as `loss_of`."""
        table = self.tower.table(arrays)
        expected = targets.get("log_expected", self.log_expected)
        # In mixed precision the blocks compute in less than the weights have, the loss does not.
        return self.objective(
            ops.cast(states, table.dtype),
            table,
            targets["positive_sequence"],
            weights,
            negatives=targets.get("negative_sequence"),
            log_expected=None if expected is None else ops.convert_to_tensor(expected),
            num_items=self.num_items,
        )

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The model's own loss, for Keras' `fit`; every target that is not 0 counts by default."""
        if sample_weight is None:
            sample_weight = ops.not_equal(y["positive_sequence"], 0)
        return self.loss_at(y_pred["item_sequence_embedding"], y, sample_weight)

    def _vectors(self, inputs: Inputs, arrays: Mapping[str, Tensor] | None = None) -> Tensor:
        """The item vectors, float[rows, length, width], in what the encoder computes in."""
        return ops.cast(self.tower.vectors(inputs["item_ids"], arrays), self.compute_dtype)

    def segment_ids(self, inputs: Inputs) -> Tensor:
        """int32[rows, length], 0 on padding.

        Raises:
            RequestError: the rows are longer than the positions that the model has.
        """
        length, limit = inputs["item_ids"].shape[1], self.settings.max_length
        if length is not None and length > limit:
            raise RequestError(
                f"rows of {length} items exceed max_length={limit}; give the newest {limit}"
            )
        if "segment_ids" in inputs:
            return ops.cast(inputs["segment_ids"], "int32")
        if "padding_mask" in inputs:
            return ops.cast(inputs["padding_mask"], "int32")
        return ops.cast(ops.not_equal(inputs["item_ids"], 0), "int32")


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Layers made meanwhile compute by that policy."""
    before = keras.config.dtype_policy()
    if before.name == name or name == "float32":  # what the caller set for Keras stays
        yield
        return
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def last_positions(segment_ids: Tensor) -> Tensor:
    """int32[rows]: the position of the last item of each row; 0 where there is none."""
    positions = ops.arange(segment_ids.shape[1], dtype="int32")[None]
    return ops.max(ops.where(segment_ids > 0, positions, 0), axis=1)
