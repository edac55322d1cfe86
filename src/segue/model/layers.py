"""Layers on `keras.ops`: dropout, layer normalisation, positions, feed-forward."""

from typing import Any

import keras
from keras import ops

from segue.model.kernels import hashed_dropout
from segue.model.kernels.device import prefers_own_kernels
from segue.model.kernels.normalisation import layer_norm
from segue.model.kernels.tensors import Tensor


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
        return hashed_dropout.dropout_key(self.seed_generator.next())

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Args: inputs: float[rows, ...]; Returns: the same shape."""
        if not training or not self.rate:
            return inputs
        return hashed_dropout.dropout(inputs, self.rate, self.key())


class LayerNorm(keras.layers.LayerNormalization):
    """Keras' layer normalisation over the last axis, by the fastest equal path."""

    def call(self, inputs: Tensor) -> Tensor:
        """Args: inputs: float[..., width]; Returns: the same shape."""
        # Keras raises lower precisions to float32 on the way.
        if inputs.dtype == "float32" and prefers_own_kernels():
            return layer_norm(inputs, self.gamma, self.beta, self.epsilon)
        return super().call(inputs)


class PositionEmbedding(keras.layers.Layer):
    """Learned positions of a window's items: 0 is its oldest, or, from the end, its newest."""

    def __init__(
        self, max_length: int, width: int, seed: int, is_from_end: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.max_length = max_length
        self.width = width
        self.seed = seed
        self.is_from_end = is_from_end

    def build(self, input_shape: Any = None) -> None:
        self.table = self.add_weight(
            name="table",
            shape=(self.max_length, self.width),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02, seed=self.seed),
        )
        self.built = True

    def call(self, segment_ids: Tensor) -> Tensor:
        """Args: segment_ids: int32[rows, length]; Returns: float[rows, length, width]."""
        if self.is_from_end:
            positions = ops.flip(positions_in_segments(ops.flip(segment_ids, axis=1)), axis=1)
        else:
            positions = positions_in_segments(segment_ids)
        return ops.take(self.table, positions, axis=0)


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


class FeedForward(keras.layers.Layer):
    """Two dense maps with a ReLU between (SASRec, section III-B), after which it may drop out."""

    def __init__(
        self, width: int, inner_width: int, dropout: float, seed: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.inner_width = inner_width
        self.inner = dense(inner_width, seed, "inner", activation="relu")
        self.outer = dense(width, seed + 1, "outer")
        self.inner_dropout = Dropout(dropout, seed + 11)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.inner.build(input_shape)
        self.outer.build((*input_shape[:-1], self.inner_width))
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Args: inputs: float[rows, length, width]; Returns: the same shape."""
        return self.outer(self.inner_dropout(self.inner(inputs), training=training))


class SwiGLU(keras.layers.Layer):
    """Gated feed-forward: outer(swish(gate(x)) * inner(x)) (Shazeer, 2020).

    It may drop out before the outer map.
    """

    def __init__(
        self, width: int, inner_width: int, dropout: float, seed: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.inner_width = inner_width
        self.gate = dense(inner_width, seed, "gate", activation="swish")
        self.inner = dense(inner_width, seed + 1, "inner")
        self.outer = dense(width, seed + 2, "outer")
        self.inner_dropout = Dropout(dropout, seed + 11)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.gate.build(input_shape)
        self.inner.build(input_shape)
        self.outer.build((*input_shape[:-1], self.inner_width))
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Args: inputs: float[rows, length, width]; Returns: the same shape."""
        inner = self.gate(inputs) * self.inner(inputs)
        return self.outer(self.inner_dropout(inner, training=training))


def as_mask(segment_ids: Tensor, dtype: str) -> Tensor:
    """[rows, length, 1]: 1 on items, 0 on padding."""
    return ops.cast(segment_ids > 0, dtype)[:, :, None]


def at_positions(states: Tensor, positions: Tensor) -> Tensor:
    """float[rows, 1, width]: the state at one position of each row.

    Args:
        states: float[rows, length, width].
        positions: int32[rows], 0..length - 1.
    """
    return ops.take_along_axis(states, positions[:, None, None], axis=1)


def dense(units: int, seed: int, name: str, activation: str | None = None) -> keras.layers.Dense:
    """A dense map, its kernel uniform by Glorot & Bengio (2010) from the seed."""
    initializer = keras.initializers.GlorotUniform(seed=seed)
    return keras.layers.Dense(
        units, activation=activation, kernel_initializer=initializer, name=name
    )
