"""Binary cross-entropy of targets against drawn items, as SASRec has it."""

from typing import ClassVar, Literal

from keras import ops

from segue.config import LOSSES, DrawnLossConfig
from segue.model.kernels.device import BlockSizes, block_sizes
from segue.model.kernels.tensors import Tensor
from segue.model.losses.drawn import (
    bytes_of_negatives,
    negative_logits,
    positive_logits,
    three_axes,
)
from segue.model.losses.protocol import shares, table_penalty


class BinaryCrossEntropyConfig(DrawnLossConfig):
    """The settings of `bce`."""

    loss: Literal["bce"] = "bce"


@LOSSES.register("bce")
class BinaryCrossEntropy:
    """Averaged over positives and negatives together, as the Keras tutorial does."""

    Settings: ClassVar[type[DrawnLossConfig]] = BinaryCrossEntropyConfig
    reads_log_expected = False

    def __init__(self, settings: DrawnLossConfig, sizes: BlockSizes | None = None) -> None:
        """Takes the settings, and the block sizes; None: those of the device."""
        self.settings = settings
        self._sizes = sizes
        self.is_of_few_items = not settings.l2

    @property
    def sizes(self) -> BlockSizes:
        """The block sizes; those of the device are looked up when the loss is computed."""
        return self._sizes or block_sizes()

    def bytes(self, num_items: int, positions: int, width: int) -> int:
        """As `Loss.bytes`."""
        return bytes_of_negatives(self.settings, positions, width, self.sizes)

    def beta(self, num_items: int) -> float:
        """The exponent of the positive's probability."""
        return 1.0

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
        beta = self.beta(num_items or table.shape[0] - 1)
        positives = beta * ops.softplus(-positive_logits(states, table, targets)[..., 0])
        others = ops.sum(ops.softplus(negative_logits(states, table, drawn, self.sizes)), axis=-1)
        losses = (positives + others) / (1 + drawn.shape[-1])
        loss = ops.sum(shares(weights, states.dtype) * losses)
        return loss + table_penalty(self.settings.l2, table)
