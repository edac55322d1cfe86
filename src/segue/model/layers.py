"""The parts of the encoder, on `keras.ops`: embedding, attention, feed-forward, block, dropout."""

from typing import Any

import keras
import numpy as np
from keras import ops

from segue.config import ModelConfig
from segue.model import kernels
from segue.model.kernels import Tensor

BLOCK_EPSILON = 1e-5  # of the blocks' layer normalisations, as the tutorial has it
FINAL_EPSILON = 1e-8  # of the last one, as the tutorial has it
# Rotary positions: the slowest pair turns once in about 6,000 items, the fastest in 6.
ROTARY_BASE = 1_000.0


class Dropout(keras.layers.Layer):
    """Inverted dropout whose bits are a hash of (seed, step, position): the same on every backend.

    The step is the state of a Keras seed generator, so that a checkpoint of the model's variables
    holds it.
    """

    def __init__(self, rate: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(seed)
        # There is nothing to build. Where a part is not built, `predict` calls the whole model
        # outside its compiled function first, every time.
        self.built = True

    def key(self) -> Tensor:
        """int32 scalar, a fresh one at each call."""
        return kernels.dropout_key(self.seed_generator.next())

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Args: inputs: float[rows, ...]; Returns: the same shape."""
        if not training or not self.rate:
            return inputs
        return kernels.dropout(inputs, self.rate, self.key())


class LayerNorm(keras.layers.LayerNormalization):
    """Keras' layer normalisation over the last axis, by the fastest equal path."""

    def call(self, inputs: Tensor) -> Tensor:
        """Args: inputs: float[..., width]; Returns: the same shape."""
        # Keras raises lower precisions to float32 on the way.
        if inputs.dtype == "float32" and kernels.prefers_own_kernels():
            return kernels.layer_norm(inputs, self.gamma, self.beta, self.epsilon)
        return super().call(inputs)


class ItemEmbedding(keras.layers.Layer):
    """The item table, shared by the input and the output; row 0, padding, is and stays zero."""

    def __init__(self, num_items: int, width: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_items = num_items
        self.width = width
        self.seed = seed

    def build(self, input_shape: Any = None) -> None:
        normal = keras.initializers.TruncatedNormal(stddev=0.02, seed=self.seed)

        def with_zero_padding(shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
            rows = normal((shape[0] - 1, shape[1]), dtype=dtype)
            return ops.concatenate([ops.zeros((1, shape[1]), dtype=rows.dtype), rows])

        self.table = self.add_weight(
            name="table", shape=(self.num_items + 1, self.width), initializer=with_zero_padding
        )
        self.built = True

    def call(self, item_ids: Tensor) -> Tensor:
        """Args: item_ids: int32[rows, length]; Returns: float[rows, length, width]."""
        return ops.take(self.table, item_ids, axis=0)


class PositionEmbedding(keras.layers.Layer):
    """Learned positions counted from a window's start: 0 is its oldest item."""

    def __init__(self, max_length: int, width: int, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_length = max_length
        self.width = width
        self.seed = seed

    def build(self, input_shape: Any = None) -> None:
        self.table = self.add_weight(
            name="table",
            shape=(self.max_length, self.width),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02, seed=self.seed),
        )
        self.built = True

    def call(self, segment_ids: Tensor) -> Tensor:
        """Args: segment_ids: int32[rows, length]; Returns: float[rows, length, width]."""
        return ops.take(self.table, positions_in_segments(segment_ids), axis=0)


def positions_in_segments(segment_ids: Tensor) -> Tensor:
    """How many earlier positions belong to the same segment.

    Args:
        segment_ids: int32[rows, length]; a segment's positions are neighbours.

    Returns:
        int32[rows, length].
    """
    length = segment_ids.shape[1]
    places = ops.arange(length, dtype="int32")[None]
    before = ops.concatenate([ops.full_like(segment_ids[:, :1], -1), segment_ids[:, :-1]], axis=1)
    starts = ops.where(ops.not_equal(segment_ids, before), places, 0)
    # The last start up to each place, by doubling: Keras 3.15's associative_scan loses the shape on
    # TensorFlow.
    reach = 1
    while reach < length:
        none = ops.zeros_like(starts[:, :reach])
        starts = ops.maximum(starts, ops.concatenate([none, starts[:, :-reach]], axis=1))
        reach *= 2
    return places - starts


class SelfAttention(keras.layers.Layer):
    """Causal multi-head attention within segments; its weights are dropped out in training.

    With rotary positions, a query and a key meet turned by angles in proportion to their places in
    the row, so that how far apart they are counts and where they stand does not.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        dropout: float,
        seed: int,
        is_rotary: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.num_heads = num_heads
        self.is_rotary = is_rotary
        self.projection = _dense(3 * width, seed, "projection")
        self.output_projection = _dense(width, seed + 1, "output_projection")
        self.dropout = Dropout(dropout, seed + 2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.projection.build(input_shape)
        self.output_projection.build(input_shape)
        self.built = True

    def call(
        self, inputs: Tensor, context: Tensor, segment_ids: Tensor, training: bool = False
    ) -> Tensor:
        """The output at each position.

        Args:
            inputs: float[rows, length, width], of which queries are made.
            context: of the same shape, of which keys and values are: mostly `inputs` itself.
            segment_ids: int32[rows, length].
            training: drops out.

        Returns:
            float[rows, length, width].
        """
        length = inputs.shape[1]
        if context is inputs:
            projected = ops.split(self.projection(inputs), 3, axis=-1)
            query, key, value = (self._split_heads(each) for each in projected)
        else:
            query, key, value = (
                self._projected(each, part) for part, each in enumerate((inputs, context, context))
            )
        if self.is_rotary:
            turns = rotations(length, self.width // self.num_heads)
            query, key = rotated(query, *turns), rotated(key, *turns)
        segments = ops.repeat(segment_ids, self.num_heads, axis=0)
        rate, streams = 0.0, None
        if training and self.dropout.rate:
            rate = self.dropout.rate
            streams = kernels.row_keys(self.dropout.key(), ops.shape(query)[0])
        output = kernels.attention(query, key, value, segments, rate, streams)
        return self.output_projection(self._merge_heads(output, length))

    def last(
        self, inputs: Tensor, context: Tensor, segment_ids: Tensor, last_positions: Tensor
    ) -> Tensor:
        """The output at one position of each row: float[rows, 1, width].

        Args:
            inputs, context: float[rows, length, width], as `call` takes them.
            segment_ids: int32[rows, length].
            last_positions: int32[rows].
        """
        value = self._projected(context, 2)
        weights = self.weights_at(inputs, context, segment_ids, last_positions)
        return self.output_projection(self._merge_heads(ops.matmul(weights, value), 1))

    def weights_at(
        self, inputs: Tensor, context: Tensor, segment_ids: Tensor, positions: Tensor
    ) -> Tensor:
        """What one position of each row attends to: float[rows * heads, 1, length], adding up to 1.

        Args:
            inputs, context: float[rows, length, width], as `call` takes them.
            segment_ids: int32[rows, length].
            positions: int32[rows].
        """
        length = inputs.shape[1]
        query = self._projected(at_positions(inputs, positions), 0)
        key = self._projected(context, 1)
        if self.is_rotary:
            turns = rotations(length, self.width // self.num_heads)
            places = ops.repeat(positions, self.num_heads)
            query = rotated(query, *(ops.take(each, places, axis=0)[:, None] for each in turns))
            key = rotated(key, *turns)
        is_past = ops.arange(length)[None] <= positions[:, None]
        segment = ops.take_along_axis(segment_ids, positions[:, None], axis=1)
        is_visible = ops.logical_and(is_past, segment_ids == segment)
        is_visible = ops.repeat(is_visible, self.num_heads, axis=0)[:, None, :]
        scores = ops.matmul(query * query.shape[-1] ** -0.5, ops.transpose(key, (0, 2, 1)))
        return ops.softmax(ops.where(is_visible, scores, kernels.MASKED))

    def _projected(self, inputs: Tensor, part: int) -> Tensor:
        """Queries (part 0), keys (1) or values (2): float[rows * heads, length, width / heads]."""
        columns = slice(part * self.width, (part + 1) * self.width)
        outputs = ops.matmul(inputs, self.projection.kernel[:, columns])
        return self._split_heads(outputs + self.projection.bias[columns])

    def _split_heads(self, array: Tensor) -> Tensor:
        """float[rows, length, width] -> float[rows * heads, length, width / heads]."""
        if self.num_heads == 1:
            return array
        length, head_width = array.shape[1], self.width // self.num_heads
        array = ops.reshape(array, (-1, length, self.num_heads, head_width))
        return ops.reshape(ops.transpose(array, (0, 2, 1, 3)), (-1, length, head_width))

    def _merge_heads(self, array: Tensor, length: int) -> Tensor:
        if self.num_heads == 1:
            return array
        array = ops.reshape(array, (-1, self.num_heads, length, self.width // self.num_heads))
        return ops.reshape(ops.transpose(array, (0, 2, 1, 3)), (-1, length, self.width))


class FeedForward(keras.layers.Layer):
    """Two dense maps with a ReLU between (SASRec, section III-B), after which it may drop out."""

    def __init__(
        self, width: int, inner_width: int, dropout: float, seed: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.inner_width = inner_width
        self.inner = _dense(inner_width, seed, "inner", activation="relu")
        self.outer = _dense(width, seed + 1, "outer")
        self.dropout = Dropout(dropout, seed + 11)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.inner.build(input_shape)
        self.outer.build((*input_shape[:-1], self.inner_width))
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Args: inputs: float[rows, length, width]; Returns: the same shape."""
        return self.outer(self.dropout(self.inner(inputs), training=training))


class SwiGLU(keras.layers.Layer):
    """Gated feed-forward: outer(swish(gate(x)) * inner(x)) (Shazeer, 2020).

    It may drop out before the outer map.
    """

    def __init__(
        self, width: int, inner_width: int, dropout: float, seed: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.inner_width = inner_width
        self.gate = _dense(inner_width, seed, "gate", activation="swish")
        self.inner = _dense(inner_width, seed + 1, "inner")
        self.outer = _dense(width, seed + 2, "outer")
        self.dropout = Dropout(dropout, seed + 11)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.gate.build(input_shape)
        self.inner.build(input_shape)
        self.outer.build((*input_shape[:-1], self.inner_width))
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Args: inputs: float[rows, length, width]; Returns: the same shape."""
        inner = self.gate(inputs) * self.inner(inputs)
        return self.outer(self.dropout(inner, training=training))


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
        self.attention_dropout = Dropout(settings.dropout_at("output"), seed + 10)
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
    m + feed-forward(m). Departure: an output projection follows the attention.
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
        self.attention_gate = _dense(width, seed + 40, "attention_gate", activation="sigmoid")
        self.feedforward_gate = _dense(width, seed + 41, "feedforward_gate", activation="sigmoid")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.attention_gate.build(input_shape)
        self.feedforward_gate.build(input_shape)

    def _with_attended(self, inputs: Tensor, attended: Tensor) -> Tensor:
        return inputs + self.attention_gate(inputs) * attended

    def _with_fed_forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        return inputs + self.feedforward_gate(inputs) * outputs


def at_positions(states: Tensor, positions: Tensor) -> Tensor:
    """float[rows, 1, width]: the state at one position of each row.

    Args:
        states: float[rows, length, width].
        positions: int32[rows], 0..length - 1.
    """
    return ops.take_along_axis(states, positions[:, None, None], axis=1)


def rotations(length: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles at each place, float32[length, width / 2] both.

    Pair i of a head turns by place / ROTARY_BASE ** (2 i / width) (Su et al., "RoFormer", 2021,
    section 3.2.2; there with a base of 10,000).
    """
    speeds = ROTARY_BASE ** (-np.arange(width // 2) / (width // 2))
    angles = np.arange(length)[:, None] * speeds
    return ops.cast(np.cos(angles), "float32"), ops.cast(np.sin(angles), "float32")


def rotated(array: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Queries or keys with each pair turned by its angle; a pair's numbers are half a width apart.

    Args:
        array: float[n, length, width], width even.
        cosines, sines: float32[length, width / 2] or [n, length, width / 2].
    """
    first, second = ops.split(array, 2, axis=-1)
    cosines, sines = ops.cast(cosines, array.dtype), ops.cast(sines, array.dtype)
    return ops.concatenate(
        [first * cosines - second * sines, first * sines + second * cosines], axis=-1
    )


def _norm(name: str) -> LayerNorm:
    return LayerNorm(epsilon=BLOCK_EPSILON, name=name)


def _dense(units: int, seed: int, name: str, activation: str | None = None) -> keras.layers.Dense:
    initializer = keras.initializers.GlorotUniform(seed=seed)
    return keras.layers.Dense(
        units, activation=activation, kernel_initializer=initializer, name=name
    )
