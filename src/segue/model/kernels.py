"""Fast paths for attention, dropout and layer normalisation, each equal to a plain expression.

Written once on `keras.ops`, so that they serve every backend. What makes them fast on a CPU:
attention is worked through a few rows at a time so that its score matrices stay in cache, skips
the half that causality forbids and keeps only the log-sum-exp for its backward pass (Dao et al.,
"FlashAttention", 2022, algorithms 1 and 4); dropout's bits come from an integer hash of a counter;
sums along the width are products with a vector of ones, three times as fast as XLA's reduction.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from segue.model.loops import scan

Tensor = Any  # a backend's array: jax.Array, torch.Tensor or tf.Tensor

# Rows of the causal triangle that one step of attention handles, at most; the keys beyond it are
# skipped.
QUERY_BLOCK = 64
# Score entries that stay in a core's cache while a chunk of rows is worked through.
CHUNK_ENTRIES = 600_000
# Logits that exist at once: about 8 MB in float32.
LOGIT_ENTRIES = 2_000_000
# Far below any score, yet finite: a row of nothing but this still has a soft maximum.
MASKED = -1e9


def largest_divisor(total: int, limit: int) -> int:
    """The largest divisor of `total` that is at most `limit` (at least 1)."""
    return next(each for each in range(max(1, min(total, limit)), 0, -1) if total % each == 0)


def _hash(values: Tensor) -> Tensor:
    """int32 -> int32, well mixed: the finaliser of "lowbias32" (C. Wellons, 2018)."""

    def shifted(x: Tensor, bits: int) -> Tensor:
        # int32 shifts arithmetically; the mask makes the shift logical.
        return ops.bitwise_and(ops.right_shift(x, bits), (1 << (32 - bits)) - 1)

    values = ops.bitwise_xor(values, shifted(values, 16))
    values = values * 0x7FEB352D
    values = ops.bitwise_xor(values, shifted(values, 15))
    values = values * (0x846CA68B - (1 << 32))
    return ops.bitwise_xor(values, shifted(values, 16))


def dropout_key(seed_state: Tensor) -> Tensor:
    """One int32 from a seed generator's `[seed, counter]`."""
    state = ops.cast(seed_state, "int32")
    return _hash(state[0] + _hash(state[1] + 1))


def keep_mask(keys: Tensor, count: int, rate: float) -> Tensor:
    """Which of `count` positions dropout keeps, for each key.

    Args:
        keys: int32[n], one independent stream each.
        count: positions in a stream.
        rate: the probability of a drop, in [0, 1).

    Returns:
        bool[n, count], True with probability 1 - rate.
    """
    counters = ops.arange(count, dtype="int32") * (0x9E3779B1 - (1 << 32))
    bits = _hash(ops.expand_dims(counters, 0) + ops.expand_dims(keys, 1))
    return ops.bitwise_and(bits, 0x7FFFFFFF) >= int(rate * (1 << 31))


def row_keys(key: Tensor, rows: Any) -> Tensor:
    """int32[rows] independent streams from one key."""
    return _hash(ops.arange(rows, dtype="int32") * 0x632BE59B + key)


def dropout(inputs: Tensor, rate: float, key: Tensor) -> Tensor:
    """Inverted dropout (Srivastava et al., 2014) of `inputs` [rows, ...] with hashed bits."""
    row_size = _size(inputs.shape[1:])
    is_kept = keep_mask(row_keys(key, ops.shape(inputs)[0]), row_size, rate)
    is_kept = ops.reshape(is_kept, (-1, *inputs.shape[1:]))
    return ops.where(is_kept, inputs * (1.0 / (1.0 - rate)), ops.zeros_like(inputs))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for each in shape:
        size *= each
    return size


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segment_ids: Tensor,
    rate: float = 0.0,
    row_keys: Tensor | None = None,
) -> Tensor:
    """`plain_attention`, by the fastest equal path for this backend, device and shape."""
    if query.shape[0] is not None and prefers_own_kernels():
        return chunked_attention(query, key, value, segment_ids, rate, row_keys)
    return plain_attention(query, key, value, segment_ids, rate, row_keys)


def prefers_own_kernels() -> bool:
    """Whether what is tuned for a CPU pays: on XLA's CPU; PyTorch and accelerators fuse better."""
    # TensorFlow traces with open dimensions, which chunks and products with ones cannot have.
    if keras.backend.backend() != "jax":  # Keras lists no devices for PyTorch
        return False
    return str(keras.distribution.list_devices()[0]).startswith("cpu")


def row_sum(array: Tensor) -> Tensor:
    """The sum along the last axis, which is kept: float[..., width] -> float[..., 1]."""
    if prefers_own_kernels():
        return ops.matmul(array, ops.ones((array.shape[-1], 1), dtype=array.dtype))
    return ops.sum(array, axis=-1, keepdims=True)


def layer_norm(inputs: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
    """Layer normalisation (Ba et al., 2016) over the last axis, its gradient by hand.

    With h = (x - mean) / deviation and dh = dy * scale, the gradient of each row is
    dx = (dh - mean(dh) - h mean(dh h)) / deviation.

    Args:
        inputs: float[..., width].
        scale, shift: float[width].
        epsilon: added to the variance.
    """
    width = inputs.shape[-1]

    def mean(array: Tensor) -> Tensor:
        return row_sum(array) * (1.0 / width)

    def over_rows(array: Tensor) -> Tensor:
        return ops.sum(ops.reshape(array, (-1, width)), axis=0)

    def normalise(inputs: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Any]:
        centred = inputs - mean(inputs)
        inverse = ops.rsqrt(mean(ops.square(centred)) + epsilon)
        normal = centred * inverse

        def backward(*arguments: Any, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            slope = arguments[0] if upstream is None else upstream
            scaled = slope * scale
            part = mean(scaled) + normal * mean(scaled * normal)
            return inverse * (scaled - part), over_rows(slope * normal), over_rows(slope)

        return normal * scale + shift, backward

    return ops.custom_gradient(normalise)(inputs, scale, shift)


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segment_ids: Tensor,
    rate: float = 0.0,
    row_keys: Tensor | None = None,
) -> Tensor:
    """Causal attention within segments, as the formula reads (Vaswani et al., 2017, eq. 1).

    Args:
        query, key, value: float[n, length, head_width].
        segment_ids: int32[n, length]; a position sees the earlier ones of its own segment.
        rate: dropout of the attention weights.
        row_keys: int32[n], dropout's stream for each of the n; needed where rate > 0.

    Returns:
        float[n, length, head_width].
    """
    length = query.shape[1]
    query = query * query.shape[-1] ** -0.5
    outputs = []
    for start, stop in _query_blocks(length):
        scores = ops.matmul(query[:, start:stop], _transposed(key[:, :stop]))
        weights = ops.softmax(ops.where(_is_visible(segment_ids, start, stop), scores, MASKED))
        if rate:
            is_kept = _is_weight_kept(row_keys, start, stop, length, rate)
            weights = ops.where(is_kept, weights * (1.0 / (1.0 - rate)), 0.0)
        outputs.append(ops.matmul(weights, value[:, :stop]))
    return ops.concatenate(outputs, axis=1)


def chunked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segment_ids: Tensor,
    rate: float = 0.0,
    row_keys: Tensor | None = None,
) -> Tensor:
    """`plain_attention` for a CPU: a few of the n at a time, nothing of [length, length] kept."""
    n, length, width = query.shape
    size = largest_divisor(n, max(1, CHUNK_ENTRIES // (length * min(length, QUERY_BLOCK))))
    scale = width**-0.5
    streams = ops.zeros((n,), dtype="int32") if row_keys is None else row_keys

    def chunks(*arrays: Tensor) -> tuple[Tensor, ...]:
        return tuple(ops.reshape(each, (n // size, size, *each.shape[1:])) for each in arrays)

    def whole(array: Tensor) -> Tensor:
        return ops.reshape(array, (n, *array.shape[2:]))

    def attend(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        def forward(carry: Any, chunk: Any) -> tuple[Any, tuple[Tensor, Tensor]]:
            return carry, _attention_chunk(chunk, rate)

        arrays = chunks(query * scale, key, value, segment_ids, streams)
        _, (output, log_sums) = scan(forward, (), arrays, num_outputs=2)

        def backward(*arguments: Any, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            slope = arguments[0] if upstream is None else upstream

            def step(carry: Any, chunk: Any) -> tuple[Any, tuple[Tensor, ...]]:
                return carry, _attention_chunk_gradient(chunk, rate)

            known = (*arrays, output, log_sums, *chunks(slope))
            _, slopes = scan(step, (), known, num_outputs=3)
            return whole(slopes[0]) * scale, whole(slopes[1]), whole(slopes[2])

        return whole(output), backward

    return ops.custom_gradient(attend)(query, key, value)


def _attention_chunk(chunk: Sequence[Tensor], rate: float) -> tuple[Tensor, Tensor]:
    """Output float[c, length, width] and log-sum-exp float[c, length, 1].

    Args:
        chunk: query (scaled), key, value, segment_ids and row_keys of c rows.
        rate: dropout of the attention weights.
    """
    query, key, value, segment_ids, row_keys = chunk
    length = query.shape[1]
    across_key = _transposed(key)
    outputs, log_sums = [], []
    for start, stop in _query_blocks(length):
        scores = ops.matmul(query[:, start:stop], across_key[:, :, :stop])
        scores = ops.where(_is_visible(segment_ids, start, stop), scores, MASKED)
        peak = ops.max(scores, axis=-1, keepdims=True)
        weights = ops.exp(scores - peak)
        total = ops.sum(weights, axis=-1, keepdims=True)
        if rate:
            is_kept = _is_weight_kept(row_keys, start, stop, length, rate)
            weights = ops.where(is_kept, weights, 0.0)
        normaliser = total * (1.0 - rate)
        outputs.append(ops.matmul(weights, value[:, :stop]) / normaliser)
        log_sums.append(peak + ops.log(total))
    return ops.concatenate(outputs, axis=1), ops.concatenate(log_sums, axis=1)


def _attention_chunk_gradient(
    chunk: Sequence[Tensor], rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of `_attention_chunk`'s output with respect to query, key and value.

    Args:
        chunk: what `_attention_chunk` took and gave, and the slope of its output.
        rate: dropout of the attention weights.
    """
    query, key, value, segment_ids, row_keys, output, log_sums, slope = chunk
    # The row term of softmax's gradient: sum_j P_ij dP_ij = dO_i . O_i (FlashAttention, eq. 4).
    row_term = row_sum(output * slope)
    length = query.shape[1]
    # XLA multiplies fastest where neither factor is read across its rows: transposed once here.
    across_query, across_key, across_value, across_slope = (
        _transposed(each) for each in (query, key, value, slope)
    )
    query_slopes = []
    key_slope, value_slope = ops.zeros_like(across_key), ops.zeros_like(across_value)
    for start, stop in _query_blocks(length):
        scores = ops.matmul(query[:, start:stop], across_key[:, :, :stop])
        weights = ops.where(
            _is_visible(segment_ids, start, stop), ops.exp(scores - log_sums[:, start:stop]), 0.0
        )
        weights_slope = ops.matmul(slope[:, start:stop], across_value[:, :, :stop])
        dropped = weights
        if rate:
            is_kept = _is_weight_kept(row_keys, start, stop, length, rate)
            weights_slope = ops.where(is_kept, weights_slope * (1.0 / (1.0 - rate)), 0.0)
            dropped = ops.where(is_kept, weights * (1.0 / (1.0 - rate)), 0.0)
        scores_slope = weights * (weights_slope - row_term[:, start:stop])
        query_slopes.append(ops.matmul(scores_slope, key[:, :stop]))
        key_slope = _added(key_slope, ops.matmul(across_query[:, :, start:stop], scores_slope))
        value_slope = _added(value_slope, ops.matmul(across_slope[:, :, start:stop], dropped))
    return ops.concatenate(query_slopes, axis=1), _transposed(key_slope), _transposed(value_slope)


def _added(total: Tensor, part: Tensor) -> Tensor:
    """`total` with `part` added to its first positions: both float[n, width, positions]."""
    stop = part.shape[2]
    if stop == total.shape[2]:
        return total + part
    return ops.concatenate([total[:, :, :stop] + part, total[:, :, stop:]], axis=2)


def _query_blocks(length: int) -> list[tuple[int, int]]:
    """Blocks of about one size: a short one at the end would cost nearly as much as a whole one."""
    count = -(-length // QUERY_BLOCK)
    size = -(-length // count)
    return [(at, min(at + size, length)) for at in range(0, length, size)]


def _transposed(array: Tensor) -> Tensor:
    return ops.transpose(array, (0, 2, 1))


def _is_visible(segment_ids: Tensor, start: int, stop: int) -> Tensor:
    """bool[n, stop - start, stop]: which keys each query of the block may see."""
    is_past = ops.arange(start, stop)[:, None] >= ops.arange(stop)[None, :]
    same = segment_ids[:, start:stop, None] == segment_ids[:, None, :stop]
    return ops.logical_and(same, is_past[None])


def _is_weight_kept(row_keys: Tensor, start: int, stop: int, length: int, rate: float) -> Tensor:
    """bool[n, stop - start, stop]: dropout of the weights, its streams apart for each block."""
    count = (stop - start) * stop
    kept = keep_mask(row_keys + start * length, count, rate)
    return ops.reshape(kept, (-1, stop - start, stop))
