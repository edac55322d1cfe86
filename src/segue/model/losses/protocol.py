"""What a loss promises, and what every loss shares."""

from typing import ClassVar, Protocol

from keras import ops

from segue.config import LossConfig
from segue.model.kernels.tensors import Tensor

FLOAT_BYTES = 4


class Loss(Protocol):
    """What training minimises, averaged over real targets.

    A loss is made as `SomeLoss(settings)` and registered with `LOSSES.register(name)`. A loss whose
    settings are a `DrawnLossConfig` is given negatives. `segue.testing.losses` tests what is
    promised here.

    Attributes:
        Settings: The class of its settings; `loss` in it defaults to the registered name.
        is_of_few_items: Whether it reads the vectors of the batch's targets and negatives alone,
            and not the whole table.
        reads_log_expected: Whether it is to be given `log_expected`.
    """

    Settings: ClassVar[type[LossConfig]]
    is_of_few_items: bool
    reads_log_expected: bool

    def bytes(self, num_items: int, positions: int, width: int) -> int:
        """The memory that it holds at its peak, without its arguments, about.

        Args:
            num_items: Of the catalogue.
            positions: Of a batch, padding too.
            width: Of the states.
        """
        ...

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
        """The weighted mean of the targets' losses, a scalar.

        Args:
            states: float32[rows, length, width].
            table: float32[num_items + 1, width]; row 0 is padding: no candidate, no gradient.
            targets: int32[rows, length], 1..num_items where the weight is not 0.
            weights: float32[rows, length], 0 where there is no target.
            negatives: Of each target int32[rows, length] or [rows, length, n], of each row
                int32[rows, 1, n], of the batch int32[n].
            log_expected: float32[num_items + 1], the log of how often the sampler draws each item
                per negative.
            num_items: Of the whole catalogue, where `table` holds a part of it.
        """
        ...


def shares(weights: Tensor, dtype: str) -> Tensor:
    """The weights over their sum, float[rows, length]; zeros where all are 0."""
    weights = ops.cast(weights, dtype)
    return weights / ops.maximum(ops.sum(weights), 1e-9)


def table_penalty(l2: float, table: Tensor) -> Tensor | float:
    """`l2` times the sum of the item table's squares."""
    return l2 * ops.sum(ops.square(table[1:])) if l2 else 0.0


def block_span(states: Tensor) -> int:
    """What the size of a block of positions must divide: with a static shape a block may span rows.

    Args:
        states: float[rows, length, width]; the length is known, the rows perhaps not.
    """
    rows, length = states.shape[:-1]
    return int(length) if rows is None else int(rows * length)
