"""Request time as an input: how long after each item the next one is asked for."""

import math
from typing import Any

import keras
from keras import ops

from segue.data.columns import ASKED_AT, TIMESTAMPS
from segue.data.times import UNKNOWN_TIME
from segue.model.encoders.protocol import Inputs
from segue.model.kernels import hashed_dropout
from segue.model.kernels.tensors import Tensor

GAP_COLUMNS = (TIMESTAMPS, ASKED_AT)
# A bucket holds gaps within a factor of exp(0.301) = 1.35 (HSTU, Zhai et al., 2024).
LOG_BUCKET_WIDTH = 0.301
LONGEST = 2**31 - 1  # seconds, of int32
# Bucket 0: not known. Bucket 1: no time at all. The others begin at one second.
NUM_BUCKETS = 3 + int(math.log(LONGEST) / LOG_BUCKET_WIDTH)


class GapEmbedding(keras.layers.Layer):
    """A vector for how long after each item the next one is asked for.

    The vector of a bucket is the sum of the steps up to it, so that neighbours begin alike, and a
    gap longer than any in training is taken for the longest there.

    In training the gap of an item ends at the time of its target; where a history ends, it ends at
    the moment of the request. Some gaps are hidden in training, single ones and those of whole
    windows, so that the model also answers where a moment, or every moment, is unknown.
    """

    def __init__(self, width: int, hidden_share: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.hidden_share = hidden_share
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Any = None) -> None:
        self.unknown = self.add_weight(name="unknown", shape=(1, self.width), initializer="zeros")
        self.steps = self.add_weight(
            name="steps", shape=(NUM_BUCKETS - 1, self.width), initializer="zeros"
        )
        self.built = True

    def call(self, inputs: Inputs, segment_ids: Tensor, training: bool = False) -> Tensor:
        """The vector of each position's gap.

        Args:
            inputs: `timestamps` and `asked_at`, int32[rows, length], seconds.
            segment_ids: int32[rows, length].
            training: Whether to hide some gaps.

        Returns:
            float[rows, length, width].
        """
        buckets = gap_buckets(inputs[TIMESTAMPS], inputs[ASKED_AT])
        if training and self.hidden_share:
            buckets = ops.where(self._is_shown(segment_ids), buckets, 0)
        table = ops.concatenate([self.unknown, ops.cumsum(self.steps, axis=0)], axis=0)
        return ops.take(table, buckets, axis=0)

    def _is_shown(self, segment_ids: Tensor) -> Tensor:
        """bool[rows, length]: False on a share of the windows, and on a share of the positions."""
        rows, length = ops.shape(segment_ids)[0], segment_ids.shape[1]
        key = hashed_dropout.dropout_key(self.seed_generator.next())
        streams = hashed_dropout.row_keys(key, rows)
        # The first `length` + 1 bits of a stream are for segments, by their numbers.
        bits = hashed_dropout.keep_mask(streams, 2 * length + 1, self.hidden_share)
        is_segment_shown = ops.take_along_axis(bits[:, : length + 1], segment_ids, axis=1)
        return ops.logical_and(is_segment_shown, bits[:, length + 1 :])


def gap_buckets(timestamps: Tensor, asked_at: Tensor) -> Tensor:
    """The bucket of each gap: 0 unknown, 1 none, then one for each factor of 1.35 from a second on.

    Args:
        timestamps, asked_at: int32[...], seconds; `UNKNOWN_TIME` where not known. A request before
            the item counts as one at the same time.

    Returns:
        int32[...], 0..NUM_BUCKETS - 1.
    """
    is_known = ops.logical_and(timestamps != UNKNOWN_TIME, asked_at != UNKNOWN_TIME)
    is_after = asked_at > timestamps
    gap = asked_at - timestamps
    gap = ops.where(ops.logical_and(is_after, gap < 0), LONGEST, gap)  # 68 years and more overflow
    steps = ops.floor(ops.log(ops.cast(ops.maximum(gap, 1), "float32")) / LOG_BUCKET_WIDTH)
    bucket = ops.where(is_after, 2 + ops.cast(steps, "int32"), 1)
    return ops.where(is_known, bucket, 0)
