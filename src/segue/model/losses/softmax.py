"""Full softmax: cross-entropy over the whole catalogue."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from keras import ops

from segue.config import LOSSES, LossConfig
from segue.model.kernels.device import BlockSizes, block_sizes, largest_divisor
from segue.model.kernels.loops import scan
from segue.model.kernels.tensors import Tensor
from segue.model.losses.protocol import FLOAT_BYTES, block_span, shares, table_penalty

# Arrays of logits that live at once: they, their exponentials, and one in the making.
LOGIT_ARRAYS = 3


class SoftmaxConfig(LossConfig):
    """The settings of `softmax`."""

    loss: Literal["softmax"] = "softmax"


@LOSSES.register("softmax")
class Softmax:
    """`sum_i w_i (logsumexp_j s_i.e_j - s_i.e_t)`, the logits of a block of targets at a time."""

    Settings: ClassVar[type[LossConfig]] = SoftmaxConfig
    is_of_few_items = False
    reads_log_expected = False

    def __init__(self, settings: LossConfig, sizes: BlockSizes | None = None) -> None:
        """Takes the settings, and the block sizes; None: those of the device."""
        self.settings = settings
        self._sizes = sizes

    @property
    def sizes(self) -> BlockSizes:
        """The block sizes; those of the device are looked up when the loss is computed."""
        return self._sizes or block_sizes()

    def bytes(self, num_items: int, positions: int, width: int) -> int:
        """As `Loss.bytes`."""
        logits = max(self.sizes.logits, self.sizes.fewest_targets * num_items)
        return LOGIT_ARRAYS * FLOAT_BYTES * logits

    def __call__(
        self,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        weights: Tensor,
        *,
        negatives: Tensor | None = None,
        log_expected: Tensor | None = None,
        num_items: int | None = None,
    ) -> Tensor:
        """As `Loss`."""
        loss = cross_entropy(
            ops.reshape(states, (-1, states.shape[-1])),
            table,
            ops.reshape(targets, (-1,)),
            ops.reshape(shares(weights, states.dtype), (-1,)),
            largest_divisor(block_span(states), self._block_targets(table.shape[0])),
        )
        return loss + table_penalty(self.settings.l2, table)

    def _block_targets(self, num_rows: int) -> int:
        """Targets whose logits exist at once, at most."""
        return max(self.sizes.fewest_targets, self.sizes.logits // num_rows)


def cross_entropy(
    states: Tensor, table: Tensor, targets: Tensor, weights: Tensor, size: int
) -> Tensor:
    """Cross-entropy over the whole catalogue, `sum_i w_i (logsumexp_j s_i.e_j - s_i.e_t)`.

    The logits exist for one block of positions at a time, and the gradient is formed while they
    do: with p the softmax, ds_i = w_i (p E - e_t) and dE = sum_i w_i (p - onehot(t)) s_i. The
    targets' part of both is added after the blocks, whose exponentials are then used as they are.

    Args:
        states: float[n, width].
        table: float[num_items + 1, width].
        targets: int32[n].
        weights: float[n].
        size: of a block, a divisor of n.
    """
    num_rows, width = table.shape

    def value_and_gradient(states: Tensor, table: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        candidates = table[1:]
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
        target_vectors = ops.take(table, targets, axis=0)
        loss = loss - ops.sum(pull * states * target_vectors)
        state_slopes = ops.reshape(state_slopes, (-1, width)) - pull * target_vectors
        table_slope = ops.pad(table_slope, [[1, 0], [0, 0]])
        table_slope = table_slope - ops.segment_sum(pull * states, targets, num_rows)

        def gradient(*arguments: Any, upstream: Tensor | None = None) -> tuple[Tensor, Tensor]:
            slope = arguments[0] if upstream is None else upstream
            return state_slopes * slope, table_slope * slope

        return loss, gradient

    return ops.custom_gradient(value_and_gradient)(states, table)
