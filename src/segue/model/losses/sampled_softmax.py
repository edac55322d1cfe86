"""Sampled softmax: cross-entropy of each target among itself and drawn items."""

from typing import ClassVar, Literal

from keras import ops

from segue.config import LOSSES, DrawnLossConfig
from segue.model.kernels.device import MASKED, BlockSizes, block_sizes
from segue.model.kernels.tensors import Tensor
from segue.model.losses.drawn import (
    bytes_of_negatives,
    negative_logits,
    positive_logits,
    three_axes,
)
from segue.model.losses.protocol import shares, table_penalty


class SampledSoftmaxConfig(DrawnLossConfig):
    """The settings of `sampled_softmax`."""

    loss: Literal["sampled_softmax"] = "sampled_softmax"


@LOSSES.register("sampled_softmax")
class SampledSoftmax:
    """With the correction for what is drawn more often (Bengio & Senécal, 2008).

    A negative that is the target itself does not count.
    """

    Settings: ClassVar[type[DrawnLossConfig]] = SampledSoftmaxConfig

    def __init__(self, settings: DrawnLossConfig, sizes: BlockSizes | None = None) -> None:
        """Takes the settings, and the block sizes; None: those of the device."""
        self.settings = settings
        self._sizes = sizes
        self.is_of_few_items = not settings.l2
        self.reads_log_expected = settings.sampling != "uniform"

    @property
    def sizes(self) -> BlockSizes:
        """The block sizes; those of the device are looked up when the loss is computed."""
        return self._sizes or block_sizes()

    def bytes(self, num_items: int, positions: int, width: int) -> int:
        """As `Loss.bytes`."""
        return bytes_of_negatives(self.settings, positions, width, self.sizes)

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
        drawn = three_axes(negatives)
        positives = positive_logits(states, table, targets)
        others = negative_logits(states, table, drawn, self.sizes)
        if log_expected is not None:
            positives = positives - ops.take(log_expected, targets)[..., None]
            others = others - ops.take(log_expected, drawn)
        others = ops.where(ops.equal(drawn, targets[..., None]), MASKED, others)
        logits = ops.concatenate([positives, others], axis=-1)
        losses = ops.logsumexp(logits, axis=-1) - positives[..., 0]
        loss = ops.sum(shares(weights, states.dtype) * losses)
        return loss + table_penalty(self.settings.l2, table)
