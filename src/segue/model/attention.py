"""Causal self-attention within segments, and rotary positions, on `keras.ops`."""

from typing import Any

import keras
import numpy as np
from keras import ops

from segue.model.kernels.device import MASKED
from segue.model.kernels.hashed_dropout import row_keys
from segue.model.kernels.segment_attention import attention
from segue.model.kernels.tensors import Tensor
from segue.model.layers import Dropout, at_positions, dense

# Rotary positions: the slowest pair turns once in about 6,000 items, the fastest in 6.
ROTARY_BASE = 1_000.0


class SelfAttention(keras.layers.Layer):
    """Causal multi-head attention within segments; its weights are dropped out in training.

    With rotary positions, a query and a key meet turned by angles in proportion to their places in
    the row, so that their distance counts and their position does not.
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
        self.projection = dense(3 * width, seed, "projection")
        self.output_projection = dense(width, seed + 1, "output_projection")
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
            streams = row_keys(self.dropout.key(), ops.shape(query)[0])
        output = attention(query, key, value, segments, rate, streams)
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
        return ops.softmax(ops.where(is_visible, scores, MASKED))

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
