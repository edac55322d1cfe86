"""What training minimises: BCE, gBCE, sampled softmax and full softmax, over real targets only.

Every loss takes the states at the real and unreal positions of a batch, the item table, the targets
and a weight for each position (0 where there is no target), and returns the weighted mean. Row 0 of
the table is padding: it is no candidate and gets no gradient.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from segue.config import LossConfig
from segue.model.kernels import LOGIT_ENTRIES, MASKED, Tensor, largest_divisor, row_sum
from segue.model.loops import scan

# Targets whose logits exist at once, however large the catalogue: fewer would read the table too
# often.
FEWEST_TARGETS = 32
# Entries of the vectors of negatives that exist at once where each target has its own: 16 MB.
VECTOR_ENTRIES = 4_000_000


def compute_loss(
    config: LossConfig,
    states: Tensor,
    item_table: Tensor,
    targets: Tensor,
    weights: Tensor,
    negatives: Tensor | None = None,
    log_expected: Tensor | None = None,
    num_items: int | None = None,
) -> Tensor:
    """The configured loss, a scalar.

    Args:
        config: which loss, and its settings.
        states: float[rows, length, width].
        item_table: float[num_items + 1, width]; row 0 is padding.
        targets: int32[rows, length], 1..num_items where the weight is not 0.
        weights: float[rows, length], 0 where there is no target.
        negatives: of each target int32[rows, length] or [rows, length, n], of each row
            int32[rows, 1, n], of the batch int32[n]; the full softmax uses none.
        log_expected: float32[num_items + 1], the log of how often the sampler draws each item
            per negative; sampled softmax subtracts it (Bengio & Senécal, 2008).
        num_items: of the whole catalogue, where `item_table` holds a part of it.
    """
    weights = ops.cast(weights, states.dtype)
    weights = weights / ops.maximum(ops.sum(weights), 1e-9)
    # With a static shape a block may span rows; else it divides the length.
    span = _static_size(states.shape[:-1]) or states.shape[-2]
    if config.loss == "softmax":
        flat = (ops.reshape(states, (-1, states.shape[-1])), item_table)
        loss = softmax_loss(*flat, ops.reshape(targets, (-1,)), ops.reshape(weights, (-1,)), span)
        return loss + table_penalty(config, item_table)
    if negatives is None:
        raise ValueError(f"the loss {config.loss!r} needs negatives; the batch has none")
    negatives = _beside_targets(negatives)
    positive_logits = row_sum(states * ops.take(item_table, targets, axis=0))
    negative_logits = _negative_logits(states, item_table, negatives, span)
    if config.loss == "sampled_softmax":
        if log_expected is not None:
            positive_logits = positive_logits - ops.take(log_expected, targets)[..., None]
            negative_logits = negative_logits - ops.take(log_expected, negatives)
        is_target = ops.equal(negatives, targets[..., None])
        negative_logits = ops.where(is_target, MASKED, negative_logits)
        loss = _sampled_softmax(positive_logits, negative_logits, weights)
    else:
        num_items = num_items or item_table.shape[0] - 1
        beta = gbce_beta(config, num_items) if config.loss == "gbce" else 1.0
        loss = _binary_cross_entropy(positive_logits, negative_logits, weights, beta)
    return loss + table_penalty(config, item_table)


def softmax_loss(
    states: Tensor, item_table: Tensor, targets: Tensor, weights: Tensor, span: int
) -> Tensor:
    """Cross-entropy over the whole catalogue, `sum_i w_i (logsumexp_j s_i.e_j - s_i.e_t)`.

    The logits exist for one block of positions at a time, and the gradient is formed while they
    do: with p the softmax, ds_i = w_i (p E - e_t) and dE = sum_i w_i (p - onehot(t)) s_i. The
    targets' part of both is added after the blocks, whose exponentials are then used as they are.

    Args:
        states: float[n, width].
        item_table: float[num_items + 1, width].
        targets: int32[n].
        weights: float[n].
        span: a divisor of n that the block's size must divide.
    """
    num_rows, width = item_table.shape
    size = largest_divisor(span, max(FEWEST_TARGETS, LOGIT_ENTRIES // num_rows))

    def cross_entropy(states: Tensor, item_table: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        candidates = item_table[1:]
        transposed = ops.transpose(candidates)

        def block(carry: Any, slices: Any) -> tuple[tuple[Tensor, Tensor], tuple[Tensor]]:
            loss, table_slope = carry
            state, weight = slices
            logits = ops.matmul(state, transposed)
            peak = ops.max(logits, axis=-1, keepdims=True)
            exponentials = ops.exp(logits - peak)
            total = ops.sum(exponentials, axis=-1, keepdims=True)
            loss = loss + ops.sum(weight * (peak + ops.log(total)))
            share = weight / total
            table_slope = table_slope + ops.matmul(ops.transpose(exponentials), state * share)
            return (loss, table_slope), (ops.matmul(exponentials, candidates) * share,)

        blocks = (ops.reshape(states, (-1, size, width)), ops.reshape(weights, (-1, size, 1)))
        start = (ops.zeros((), dtype=states.dtype), ops.zeros_like(candidates))
        (loss, table_slope), (state_slopes,) = scan(block, start, blocks, num_outputs=1)

        pull = weights[:, None]
        target_vectors = ops.take(item_table, targets, axis=0)
        loss = loss - ops.sum(pull * states * target_vectors)
        state_slopes = ops.reshape(state_slopes, (-1, width)) - pull * target_vectors
        table_slope = ops.pad(table_slope, [[1, 0], [0, 0]])
        table_slope = table_slope - ops.segment_sum(pull * states, targets, num_rows)

        def gradient(*arguments: Any, upstream: Tensor | None = None) -> tuple[Tensor, Tensor]:
            slope = arguments[0] if upstream is None else upstream
            return state_slopes * slope, table_slope * slope

        return loss, gradient

    return ops.custom_gradient(cross_entropy)(states, item_table)


def table_penalty(config: LossConfig, item_table: Tensor) -> Tensor:
    """`l2` times the sum of the item table's squares."""
    return config.l2 * ops.sum(ops.square(item_table[1:])) if config.l2 else 0.0


def gbce_beta(config: LossConfig, num_items: int) -> float:
    """The exponent of the positive's probability (Petrov & Macdonald, RecSys 2023, eq. 14)."""
    rate = min(1.0, config.negatives / max(1, num_items - 1))
    return rate * (config.gbce_t * (1.0 - 1.0 / rate) + 1.0 / rate)


def _beside_targets(negatives: Tensor) -> Tensor:
    """int32[rows, length, n]; the length is 1 for a row's negatives, rows too for a batch's."""
    if len(negatives.shape) == 1:
        return negatives[None, None]
    return negatives if len(negatives.shape) == 3 else negatives[..., None]


def _negative_logits(states: Tensor, item_table: Tensor, negatives: Tensor, span: int) -> Tensor:
    """float[rows, length, n], from what `_beside_targets` gives."""
    if negatives.shape[1] != 1:
        width, count = states.shape[-1], negatives.shape[-1]
        ids = ops.reshape(negatives, (-1, count))
        logits = _own_logits(ops.reshape(states, (-1, width)), item_table, ids, span)
        return ops.reshape(logits, (-1, *states.shape[1:-1], count))
    vectors = ops.take(item_table, negatives[:, 0], axis=0)
    if negatives.shape[0] == 1:
        return ops.matmul(states, ops.transpose(vectors[0]))
    return ops.matmul(states, ops.transpose(vectors, (0, 2, 1)))


def _own_logits(states: Tensor, item_table: Tensor, item_ids: Tensor, span: int) -> Tensor:
    """`states[i] . item_table[item_ids[i, j]]`, the vectors read for a block of states at a time.

    They are read again for the gradient, a block at a time too: with g the slopes of the logits,
    ds_i = sum_j g_ij e_ij and dE = sum_ij onehot(item_ids_ij) g_ij s_i.

    Args:
        states: float[n, width].
        item_table: float[num_items + 1, width].
        item_ids: int32[n, k].
        span: a divisor of n that the block's size must divide.
    """
    width, count = states.shape[-1], item_ids.shape[-1]
    num_rows = item_table.shape[0]
    size = largest_divisor(span, max(1, VECTOR_ENTRIES // (width * count)))

    def in_blocks(array: Tensor) -> Tensor:
        return ops.reshape(array, (-1, size, array.shape[-1]))

    def logits_of(states: Tensor, item_table: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        blocks = in_blocks(states), in_blocks(item_ids)

        def forward(carry: Any, block: Any) -> tuple[Any, tuple[Tensor]]:
            state, ids = block
            vectors = ops.take(item_table, ids, axis=0)
            return carry, (row_sum(state[:, None] * vectors)[..., 0],)

        _, (logits,) = scan(forward, (), blocks, num_outputs=1)

        def gradient(*arguments: Any, upstream: Tensor | None = None) -> tuple[Tensor, Tensor]:
            def step(table_slope: Any, block: Any) -> tuple[tuple[Tensor], tuple[Tensor]]:
                state, ids, slope = block
                vectors = ops.take(item_table, ids, axis=0)
                parts = ops.reshape(slope[..., None] * state[:, None], (-1, width))
                part = ops.segment_sum(parts, ops.reshape(ids, (-1,)), num_rows)
                return (table_slope[0] + part,), (ops.sum(slope[..., None] * vectors, axis=1),)

            slope = arguments[0] if upstream is None else upstream
            start = (ops.zeros_like(item_table),)
            known = (*blocks, in_blocks(slope))
            (table_slope,), (state_slopes,) = scan(step, start, known, num_outputs=1)
            return ops.reshape(state_slopes, (-1, width)), table_slope

        return ops.reshape(logits, (-1, count)), gradient

    return ops.custom_gradient(logits_of)(states, item_table)


def _binary_cross_entropy(
    positive_logits: Tensor, negative_logits: Tensor, weights: Tensor, beta: float
) -> Tensor:
    """Averaged over positives and negatives together, as the Keras tutorial does.

    Args:
        positive_logits: float[rows, length, 1].
        negative_logits: float[rows, length, n].
        weights: float[rows, length], whose sum is 1.
        beta: gBCE's exponent.
    """
    positive = beta * ops.softplus(-positive_logits[..., 0])
    negative = ops.sum(ops.softplus(negative_logits), axis=-1)
    return ops.sum(weights * (positive + negative)) / (1 + negative_logits.shape[-1])


def _sampled_softmax(positive_logits: Tensor, negative_logits: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the positive among itself and the negatives; shapes as above."""
    logits = ops.concatenate([positive_logits, negative_logits], axis=-1)
    return ops.sum(weights * (ops.logsumexp(logits, axis=-1) - positive_logits[..., 0]))


def _static_size(shape: tuple[int | None, ...]) -> int | None:
    size = 1
    for each in shape:
        if each is None:
            return None
        size *= each
    return size
