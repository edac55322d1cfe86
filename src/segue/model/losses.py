"""What training minimises: BCE, gBCE, sampled softmax and full softmax, over real targets only.

Every loss takes the states at the real and unreal positions of a batch, flattened to [n, width],
the item table, the targets and a weight for each position (0 where there is no target), and
returns the weighted mean. Row 0 of the table is padding: it is no candidate and gets no gradient.
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
        negatives: int32[rows, length] or [rows, length, n], or int32[n] shared by the batch;
            unused by the full softmax.
        log_expected: float32[num_items + 1], the log of how often the sampler draws each item
            per negative; sampled softmax subtracts it (Bengio & Senécal, 2008).
        num_items: of the whole catalogue, where `item_table` holds a part of it.
    """
    width = states.shape[-1]
    # With a static shape the block of the softmax may span rows; else it divides the length.
    span = _static_size(states.shape[:-1]) or states.shape[-2]
    states = ops.reshape(states, (-1, width))
    targets = ops.reshape(targets, (-1,))
    weights = ops.cast(ops.reshape(weights, (-1,)), states.dtype)
    weights = weights / ops.maximum(ops.sum(weights), 1e-9)
    if config.loss == "softmax":
        loss = softmax_loss(states, item_table, targets, weights, span)
    else:
        if negatives is None:
            raise ValueError(f"the loss {config.loss!r} needs negatives; the batch has none")
        if len(negatives.shape) > 1:
            per_target = negatives.shape[2] if len(negatives.shape) == 3 else 1
            negatives = ops.reshape(negatives, (-1, per_target))
        positive_logits = row_sum(states * ops.take(item_table, targets, axis=0))[:, 0]
        negative_logits = _negative_logits(states, item_table, negatives)
        if config.loss == "sampled_softmax":
            if log_expected is not None:
                positive_logits = positive_logits - ops.take(log_expected, targets)
                negative_logits = negative_logits - ops.take(log_expected, negatives)
            is_target = ops.equal(negatives, targets[:, None])
            negative_logits = ops.where(is_target, MASKED, negative_logits)
            loss = _sampled_softmax(positive_logits, negative_logits, weights)
        else:
            beta = (
                gbce_beta(config, num_items or item_table.shape[0] - 1)
                if config.loss == "gbce"
                else 1.0
            )
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


def _negative_logits(states: Tensor, item_table: Tensor, negatives: Tensor) -> Tensor:
    """float[n, negatives]: a draw for each position, or one [negatives] shared by all."""
    vectors = ops.take(item_table, negatives, axis=0)
    if len(negatives.shape) == 1:
        return ops.matmul(states, ops.transpose(vectors))
    return row_sum(states[:, None, :] * vectors)[..., 0]


def _binary_cross_entropy(
    positive_logits: Tensor, negative_logits: Tensor, weights: Tensor, beta: float
) -> Tensor:
    """Averaged over positives and negatives together, as the Keras tutorial does."""
    positive = beta * ops.softplus(-positive_logits)
    negative = ops.sum(ops.softplus(negative_logits), axis=-1)
    return ops.sum(weights * (positive + negative)) / (1 + negative_logits.shape[-1])


def _sampled_softmax(positive_logits: Tensor, negative_logits: Tensor, weights: Tensor) -> Tensor:
    logits = ops.concatenate([positive_logits[:, None], negative_logits], axis=-1)
    return ops.sum(weights * (ops.logsumexp(logits, axis=-1) - positive_logits))


def _static_size(shape: tuple[int | None, ...]) -> int | None:
    size = 1
    for each in shape:
        if each is None:
            return None
        size *= each
    return size
