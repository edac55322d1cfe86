"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018), and its kin."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from segue.config import LossConfig, ModelConfig
from segue.errors import RequestError
from segue.model import accumulation, losses, sparse
from segue.model.blocks import Block, GatedBlock, OriginalBlock
from segue.model.kernels import MASKED, Tensor, prefers_own_kernels
from segue.model.layers import (
    Dropout,
    ItemEmbedding,
    LayerNorm,
    PositionEmbedding,
    at_positions,
)
from segue.model.recurrent import RecurrentBlock

Inputs = Mapping[str, Tensor]

FINAL_EPSILON = 1e-8  # of the last layer normalisation, as the tutorial has it


@dataclass(frozen=True)
class Architecture:
    """What sets one encoder apart from the others.

    Attributes:
        block: makes a block from the settings and a seed.
        has_positions: the items' positions matter to it, as the settings have them.
        has_final_norm: a layer normalisation follows the blocks.
    """

    block: type[Block | RecurrentBlock]
    has_positions: bool
    has_final_norm: bool


ARCHITECTURES = {
    "sasrec": Architecture(Block, True, True),
    "sasrec-original": Architecture(OriginalBlock, True, True),
    "esasrec": Architecture(GatedBlock, True, True),
    # A recurrent network has order already, and its states are bounded.
    "gru4rec": Architecture(RecurrentBlock, False, False),
}


@keras.saving.register_keras_serializable(package="segue")
class SASRec(keras.Model):
    """A causal encoder of the items of a history, an ordinary `keras.Model`.

    A Transformer, or a recurrent network where the settings say `encoder="gru4rec"`.

    Inputs, a dict:
        item_ids: int32[rows, length], dense ids, 0 = padding, length <= max_length.
        segment_ids: int32[rows, length], optional: 0 = padding, and each window of a packed row
            has a number of its own. A window sees only itself.
        padding_mask: bool[rows, length], optional, True on real items; for rows of one window.
        With neither, the items that are not 0 are one window.
        item_table: float32[n, width], optional: what the ids count in place of the model's own
            item table; row 0 is padding.

    Outputs, a dict:
        item_sequence_embedding: float32[rows, length, width], the state at each position; zero on
            padding.
        predictions: int32[rows, k], outside training: the items with the highest scores after the
            last item of each row, padding never among them; watched items may be.

    Targets for `fit`: a dict of `positive_sequence` int32[rows, length] and, but for the full
    softmax, `negative_sequence` (shapes in `losses.compute_loss`); sample weights
    float[rows, length], 0 where there is no target. Compiled without a loss the model uses its
    own `LossConfig`; compiled with a Keras loss it feeds that loss the logits of the positive and
    the negative item, [rows, length, 2], against 1 and 0.

    Ids beyond `num_items` are not checked here, as nothing in a compiled graph is: a `Vocabulary`
    never gives one. For sampled softmax with negatives that are not uniform, whoever fits the model
    themselves assigns `log_expected` from `NegativeSampler.log_expected`.

    Departures from the paper: a last layer normalisation follows the blocks, as in its code and in
    the reference tutorial; positions count from the window's start, so that the state after n items
    is trained at the position where a history of n items is asked, unless `positions="from_end"`;
    rotary positions (Su et al., 2021) may stand in their place or beside them. GRU4Rec shares its
    item table between input and output, as the other encoders do.
    """

    def __init__(
        self,
        num_items: int,
        config: ModelConfig | Mapping[str, Any] = ModelConfig(),  # noqa: B008 - frozen
        loss: LossConfig | Mapping[str, Any] = LossConfig(),  # noqa: B008 - frozen
        k: int = 10,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_items = num_items
        self.settings = ModelConfig.model_validate(config)
        self.loss_settings = LossConfig.model_validate(loss)
        self.k = k
        self.seed = seed
        width, length = self.settings.width, self.settings.max_length
        self.item_embedding = ItemEmbedding(num_items, width, seed, name="item_embedding")
        architecture = ARCHITECTURES[self.settings.encoder]
        self.position_embedding = (
            PositionEmbedding(
                length,
                width,
                seed + 1,
                is_from_end=self.settings.positions == "from_end",
                name="position_embedding",
            )
            if architecture.has_positions and self.settings.positions != "rotary"
            else None
        )
        self.embedding_dropout = Dropout(
            self.settings.dropout_at("embedding"), seed + 2, name="embedding_dropout"
        )
        self.blocks = [
            architecture.block(self.settings, seed + 100 * (each + 1), name=f"block_{each}")
            for each in range(self.settings.num_blocks)
        ]
        self.final_norm = (
            LayerNorm(epsilon=FINAL_EPSILON, name="final_norm")
            if architecture.has_final_norm
            else keras.layers.Identity(name="final_norm")
        )
        self.log_expected: Any = None
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Creates every variable; shapes depend on the settings alone."""
        states_shape = (None, None, self.settings.width)
        self.item_embedding.build()
        if self.position_embedding:
            self.position_embedding.build()
        for block in self.blocks:
            block.build(states_shape)
        self.final_norm.build(states_shape)
        loss = self.loss_settings
        if loss.loss == "sampled_softmax" and loss.sampling != "uniform":
            self.log_expected = self.add_weight(
                name="log_expected",
                shape=(self.num_items + 1,),
                initializer="zeros",
                trainable=False,
            )
        self.built = True

    def call(self, inputs: Inputs, training: bool = False) -> dict[str, Tensor]:
        """Inputs and outputs as the class describes them."""
        segment_ids = self._segment_ids(inputs)
        states = self.embed(inputs, segment_ids, training)
        for block in self.blocks:
            states = block(states, segment_ids, training=training)
        states = self.final_norm(states) * _as_mask(segment_ids, states.dtype)
        outputs = {"item_sequence_embedding": states}
        if not training:
            queries = at_positions(states, _last_positions(segment_ids))[:, 0]
            outputs["predictions"] = self._best_items(queries)
        return outputs

    def encode(self, inputs: Inputs) -> Tensor:
        """The query of each row: its state at the last item; the last block computes no other.

        Returns:
            float32[rows, width]; zeros for a row without items.
        """
        segment_ids = self._segment_ids(inputs)
        states = self._before_last_block(inputs, segment_ids)
        states = self.blocks[-1].last(states, segment_ids, _last_positions(segment_ids))
        is_item = ops.any(segment_ids > 0, axis=1, keepdims=True)
        return self.final_norm(states)[:, 0] * ops.cast(is_item, states.dtype)

    def last_attention(self, inputs: Inputs) -> Tensor:
        """What the last item of each row attends to in the last block, of a model that attends.

        Returns:
            float32[rows * heads, 1, length], adding up to 1.
        """
        segment_ids = self._segment_ids(inputs)
        states = self._before_last_block(inputs, segment_ids)
        return self.blocks[-1].attended_from(states, segment_ids, _last_positions(segment_ids))

    def _before_last_block(self, inputs: Inputs, segment_ids: Tensor) -> Tensor:
        states = self.embed(inputs, segment_ids, False)
        for block in self.blocks[:-1]:
            states = block(states, segment_ids)
        return states

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The model's own loss, or the compiled Keras loss on the pairs' logits."""
        table = ops.convert_to_tensor((x or {}).get("item_table", self.item_embedding.table))
        # In mixed precision the blocks compute in less than the weights have, the loss does not.
        states = ops.cast(y_pred["item_sequence_embedding"], table.dtype)
        targets = y["positive_sequence"]
        if sample_weight is None:
            sample_weight = ops.not_equal(targets, 0)
        weights = ops.cast(sample_weight, states.dtype)
        if self._compile_loss is not None:
            return self._pairwise_loss(states, table, y, weights)
        expected = y.get("log_expected", self.log_expected)
        return losses.compute_loss(
            self.loss_settings,
            states,
            table,
            targets,
            weights,
            y.get("negative_sequence"),
            None if expected is None else ops.convert_to_tensor(expected),
            self.num_items,
        )

    def train_step(self, *arguments: Any) -> Any:
        """One step; on JAX it may touch few rows of the item table, or take few of the batch's.

        Compiled with `LazyAdam` it touches only the item rows of its batch, where the loss depends
        on these alone: not for the full softmax nor for a penalty on the table. TensorFlow and
        PyTorch update the whole table, so that there the cost of a step grows with the catalogue.
        On a CPU the batch is worked through in parts that stay in cache.
        """
        if keras.backend.backend() != "jax":
            return super().train_step(*arguments)
        state, data = arguments
        if isinstance(self.optimizer, sparse.LazyAdam) and self.loss_settings.is_of_few_items:
            return sparse.train_step(self, state, data)
        rows, size = self._rows_and_part(data)
        if size < rows:
            return accumulation.train_step(self, state, data, size)
        return super().train_step(state, data)

    def _rows_and_part(self, data: Any) -> tuple[int, int]:
        """The rows of a batch, and how many of them a step takes at a time."""
        x, _, weights = keras.utils.unpack_x_y_sample_weight(data)
        rows, length = x["item_ids"].shape
        is_own_loss = self._compile_loss is None and self._compile_metrics is None
        if weights is None or not is_own_loss or not prefers_own_kernels():
            return rows, rows
        return rows, accumulation.part_rows(rows, length, self.num_items)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_items": self.num_items,
            "config": self.settings.model_dump(),
            "loss": self.loss_settings.model_dump(),
            "k": self.k,
            "seed": self.seed,
        }

    def _segment_ids(self, inputs: Inputs) -> Tensor:
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

    def embed(self, inputs: Inputs, segment_ids: Tensor, training: bool = False) -> Tensor:
        """What the first block takes: items and their positions, float[rows, length, width]."""
        if "item_table" in inputs:
            states = ops.take(inputs["item_table"], inputs["item_ids"], axis=0)
        else:
            states = self.item_embedding(inputs["item_ids"])
        if self.settings.scale_embedding:
            states = states * self.settings.width**0.5
        if self.position_embedding:
            states = states + self.position_embedding(segment_ids)
        states = self.embedding_dropout(states, training=training)
        return states * _as_mask(segment_ids, states.dtype)

    def _best_items(self, queries: Tensor) -> Tensor:
        scores = ops.matmul(queries, ops.transpose(self.item_embedding.table))
        is_padding = ops.arange(self.num_items + 1)[None] == 0
        scores = ops.where(is_padding, MASKED, scores)
        return ops.top_k(scores, min(self.k, self.num_items))[1]

    def _pairwise_loss(
        self, states: Tensor, table: Tensor, y: Mapping[str, Tensor], weights: Tensor
    ) -> Tensor:
        """The compiled Keras loss, averaged over real targets, and the penalty on the table."""
        targets, negatives = y["positive_sequence"], y.get("negative_sequence")
        if negatives is None or negatives.shape != targets.shape:
            raise RequestError(
                "a compiled Keras loss needs one negative for each target: give negative_sequence "
                "in the shape of positive_sequence, or compile without a loss"
            )
        pairs = ops.stack([targets, negatives], axis=-1)
        logits = ops.sum(states[:, :, None] * ops.take(table, pairs, axis=0), axis=-1)
        truth = ops.stack([ops.ones_like(targets), ops.zeros_like(negatives)], axis=-1)
        # Keras averages over every position; this leaves the average over the real ones.
        weights = weights / ops.maximum(ops.mean(weights), 1e-9)
        loss = super().compute_loss(
            y=ops.cast(truth, logits.dtype), y_pred=logits, sample_weight=weights
        )
        return loss + losses.table_penalty(self.loss_settings, table)


def _as_mask(segment_ids: Tensor, dtype: str) -> Tensor:
    """[rows, length, 1]: 1 on items, 0 on padding."""
    return ops.cast(segment_ids > 0, dtype)[:, :, None]


def _last_positions(segment_ids: Tensor) -> Tensor:
    """int32[rows]: where the last item of each row stands; 0 where there is none."""
    positions = ops.arange(segment_ids.shape[1], dtype="int32")[None]
    return ops.max(ops.where(segment_ids > 0, positions, 0), axis=1)
