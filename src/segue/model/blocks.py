"""The Transformer blocks of the encoders: SASRec's, that of its published code, eSASRec's."""

from typing import Any

import keras

from segue.config import ModelConfig
from segue.model.attention import SelfAttention
from segue.model.kernels import Tensor
from segue.model.layers import Dropout, FeedForward, LayerNorm, SwiGLU, at_positions, dense

BLOCK_EPSILON = 1e-5  # of the blocks' layer normalisations, as the tutorial has it


class Block(keras.layers.Layer):
    """Pre-norm Transformer block: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    feedforward_class: type[FeedForward | SwiGLU] = FeedForward
    # The feed-forward's width in widths of the block, where the settings leave it open.
    feedforward_factor = 1

    def __init__(self, settings: ModelConfig, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width = settings.width
        self.attention_norm = _norm("attention_norm")
        self.attention = SelfAttention(
            width,
            settings.num_heads,
            settings.dropout_at("attention"),
            seed,
            settings.is_rotary,
            name="attention",
        )
        self.attention_dropout = Dropout(settings.dropout_at("attended"), seed + 10)
        self.feedforward_norm = _norm("feedforward_norm")
        self.feedforward = self.feedforward_class(
            width,
            settings.feedforward_width or self.feedforward_factor * width,
            settings.dropout_at("inner"),
            seed + 20,
            name="feedforward",
        )
        self.feedforward_dropout = Dropout(settings.dropout_at("output"), seed + 30)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for part in (self.attention_norm, self.attention, self.feedforward_norm, self.feedforward):
            part.build(input_shape)
        self.built = True

    def call(self, inputs: Tensor, segment_ids: Tensor, training: bool = False) -> Tensor:
        """Args: inputs: float[rows, length, width], segment_ids: int32[rows, length]."""
        normed = self.attention_norm(inputs)
        context = self._context(inputs, normed)
        attended = self.attention(normed, context, segment_ids, training=training)
        attended = self.attention_dropout(attended, training=training)
        return self._fed_forward(
            self._with_attended(self._carried(inputs, normed), attended), training
        )

    def last(self, inputs: Tensor, segment_ids: Tensor, last_positions: Tensor) -> Tensor:
        """The block's state at one position of each row: float[rows, 1, width]."""
        normed = self.attention_norm(inputs)
        context = self._context(inputs, normed)
        attended = self.attention.last(normed, context, segment_ids, last_positions)
        newest = at_positions(self._carried(inputs, normed), last_positions)
        return self._fed_forward(self._with_attended(newest, attended), False)

    def attended_from(self, inputs: Tensor, segment_ids: Tensor, positions: Tensor) -> Tensor:
        """What one position of each row attends to; see `SelfAttention.weights_at`."""
        normed = self.attention_norm(inputs)
        context = self._context(inputs, normed)
        return self.attention.weights_at(normed, context, segment_ids, positions)

    def _fed_forward(self, states: Tensor, training: bool) -> Tensor:
        normed = self.feedforward_norm(states)
        outputs = self.feedforward(normed, training=training)
        outputs = self.feedforward_dropout(outputs, training=training)
        return self._with_fed_forward(self._carried(states, normed), outputs)

    def _context(self, inputs: Tensor, normed: Tensor) -> Tensor:
        """What keys and values are made of."""
        return normed

    def _carried(self, inputs: Tensor, normed: Tensor) -> Tensor:
        """What a part's output is added to."""
        return inputs

    def _with_attended(self, inputs: Tensor, attended: Tensor) -> Tensor:
        return inputs + attended

    def _with_fed_forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        return inputs + outputs


class OriginalBlock(Block):
    """The block of the code that Kang & McAuley (2018) published, which is not quite the paper's.

    What is carried past a part is normalised too, and keys and values are made of what is not:
    with n = norm(x), y = n + attention(queries of n, keys and values of x); with m = norm(y),
    m + feed-forward(m). What the attention gives is not dropped out, what is within the
    feed-forward is. Departure: an output projection follows the attention.
    """

    def _context(self, inputs: Tensor, normed: Tensor) -> Tensor:
        return inputs

    def _carried(self, inputs: Tensor, normed: Tensor) -> Tensor:
        return normed


class GatedBlock(Block):
    """LiGR block (Borisyuk et al., 2024), as in eSASRec (Tikhonovich et al., 2025).

    Each part is let through by a gate on what it is added to: x + sigmoid(W x) * part(norm(x)). The
    feed-forward is a SwiGLU.
    """

    feedforward_class = SwiGLU
    feedforward_factor = 2

    def __init__(self, settings: ModelConfig, seed: int, **kwargs: Any) -> None:
        super().__init__(settings, seed, **kwargs)
        width = settings.width
        self.attention_gate = dense(width, seed + 40, "attention_gate", activation="sigmoid")
        self.feedforward_gate = dense(width, seed + 41, "feedforward_gate", activation="sigmoid")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.attention_gate.build(input_shape)
        self.feedforward_gate.build(input_shape)

    def _with_attended(self, inputs: Tensor, attended: Tensor) -> Tensor:
        return inputs + self.attention_gate(inputs) * attended

    def _with_fed_forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        return inputs + self.feedforward_gate(inputs) * outputs


def _norm(name: str) -> LayerNorm:
    return LayerNorm(epsilon=BLOCK_EPSILON, name=name)
