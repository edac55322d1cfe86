"""What the losses with drawn negatives share: their logits, and what these hold of memory."""

from collections.abc import Callable
from typing import Any

from keras import ops

from segue.config import DrawnLossConfig
from segue.errors import TrainingError
from segue.model.kernels.device import BlockSizes, largest_divisor
from segue.model.kernels.loops import scan
from segue.model.kernels.normalisation import row_sum
from segue.model.kernels.tensors import Tensor
from segue.model.losses.protocol import FLOAT_BYTES, block_span

# Arrays of logits, and of the vectors that a block of targets with negatives of their own reads,
# that live at once: they, their slopes, and one in the making.
NEGATIVE_ARRAYS = 3


def bytes_of_negatives(
    settings: DrawnLossConfig, positions: int, width: int, sizes: BlockSizes
) -> int:
    """The memory that a batch's negatives take at the peak, about.

    Args:
        settings: How many there are, and what shares them.
        positions: Of a batch.
        width: Of the states.
        sizes: How many vectors exist at once.
    """
    logits = positions * settings.negatives
    vectors = sizes.negative_vectors if settings.negatives_per == "target" else 0
    return NEGATIVE_ARRAYS * FLOAT_BYTES * (logits + min(vectors, logits * width))


def three_axes(negatives: Tensor | None) -> Tensor:
    """int32[rows, length, n]; the length is 1 for a row's negatives, rows too for a batch's.

    Raises:
        TrainingError: There are none.
    """
    if negatives is None:
        raise TrainingError(
            "this loss compares targets with negatives, and the batch has no negative_sequence; "
            "give one, or choose loss=softmax"
        )
    if len(negatives.shape) == 1:
        return negatives[None, None]
    return negatives if len(negatives.shape) == 3 else negatives[..., None]


def positive_logits(states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """float[rows, length, 1]: the score of each position's target."""
    return row_sum(states * ops.take(table, targets, axis=0))


def negative_logits(states: Tensor, table: Tensor, negatives: Tensor, sizes: BlockSizes) -> Tensor:
    """float[rows, length, n]: the scores of each position's negatives.

    Args:
        states: float[rows, length, width].
        table: float[num_items + 1, width].
        negatives: int32, as `three_axes` gives them.
        sizes: How many vectors exist at once.
    """
    if negatives.shape[1] != 1:
        width, count = states.shape[-1], negatives.shape[-1]
        ids = ops.reshape(negatives, (-1, count))
        size = largest_divisor(
            block_span(states), max(1, sizes.negative_vectors // (width * count))
        )
        logits = _logits_of_own(ops.reshape(states, (-1, width)), table, ids, size)
        return ops.reshape(logits, (-1, *states.shape[1:-1], count))
    vectors = ops.take(table, negatives[:, 0], axis=0)
    if negatives.shape[0] == 1:
        return ops.matmul(states, ops.transpose(vectors[0]))
    return ops.matmul(states, ops.transpose(vectors, (0, 2, 1)))


def _logits_of_own(states: Tensor, table: Tensor, item_ids: Tensor, size: int) -> Tensor:
    """`states[i] . table[item_ids[i, j]]`, the vectors read for a block of states at a time.

    They are read again for the gradient, a block at a time too: with g the slopes of the logits,
    ds_i = sum_j g_ij e_ij and dE = sum_ij onehot(item_ids_ij) g_ij s_i.

    Args:
        states: float[n, width].
        table: float[num_items + 1, width].
        item_ids: int32[n, k].
        size: of a block, a divisor of n.
    """
    width, count = states.shape[-1], item_ids.shape[-1]
    num_rows = table.shape[0]

    def in_blocks(array: Tensor) -> Tensor:
        return ops.reshape(array, (-1, size, array.shape[-1]))

    def logits_of(states: Tensor, table: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        blocks = in_blocks(states), in_blocks(item_ids)

        def forward(carry: Any, block: Any) -> tuple[Any, tuple[Tensor]]:
            state, ids = block
            vectors = ops.take(table, ids, axis=0)
            return carry, (row_sum(state[:, None] * vectors)[..., 0],)

        _, (logits,) = scan(forward, (), blocks, num_outputs=1)

        def gradient(*arguments: Any, upstream: Tensor | None = None) -> tuple[Tensor, Tensor]:
            def step(table_slope: Any, block: Any) -> tuple[tuple[Tensor], tuple[Tensor]]:
                state, ids, slope = block
                vectors = ops.take(table, ids, axis=0)
                parts = ops.reshape(slope[..., None] * state[:, None], (-1, width))
                part = ops.segment_sum(parts, ops.reshape(ids, (-1,)), num_rows)
                return (table_slope[0] + part,), (ops.sum(slope[..., None] * vectors, axis=1),)

            slope = arguments[0] if upstream is None else upstream
            start = (ops.zeros_like(table),)
            known = (*blocks, in_blocks(slope))
            (table_slope,), (state_slopes,) = scan(step, start, known, num_outputs=1)
            return ops.reshape(state_slopes, (-1, width)), table_slope

        return ops.reshape(logits, (-1, count)), gradient

    return ops.custom_gradient(logits_of)(states, table)
