"""Causal attention within segments, by the fastest equal path for the device.

On a CPU attention is worked through a few rows at a time so that its score matrices stay in cache,
skips the half that causality forbids and keeps only the log-sum-exp for its backward pass (Dao et
al., "FlashAttention", 2022, algorithms 1 and 4). On an accelerator it is the backend's fused one.
"""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from segue.model.kernels.device import (
    MASKED,
    block_sizes,
    is_accelerated,
    largest_divisor,
    prefers_own_kernels,
)
from segue.model.kernels.hashed_dropout import keep_mask
from segue.model.kernels.loops import scan
from segue.model.kernels.normalisation import row_sum
from segue.model.kernels.tensors import Tensor


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
    if not rate and is_accelerated():  # the fused ones drop out no weights
        return fused_attention(query, key, value, segment_ids)
    return plain_attention(query, key, value, segment_ids, rate, row_keys)


def fused_attention(query: Tensor, key: Tensor, value: Tensor, segment_ids: Tensor) -> Tensor:
    """`plain_attention` without dropout, by the backend's fused attention."""
    length = query.shape[1]
    is_visible = _is_visible(segment_ids, 0, length)[:, None]
    as_one_head = (array[:, :, None, :] for array in (query, key, value))
    return ops.dot_product_attention(*as_one_head, mask=is_visible)[:, :, 0]


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
    sizes = block_sizes()
    of_a_row = length * min(length, sizes.attention_queries)
    size = largest_divisor(n, max(1, sizes.attention_scores // of_a_row))
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
    count = -(-length // block_sizes().attention_queries)
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
