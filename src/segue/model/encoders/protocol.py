"""What an encoder promises."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from segue.config import ModelConfig
from segue.model.kernels.tensors import Tensor

Inputs = Mapping[str, Tensor]


class Encoder(Protocol):
    """A causal map from the item vectors of a history to a state at each position.

    An encoder is a `keras.layers.Layer`, made as `SomeEncoder(settings, seed)` and registered with
    `ENCODERS.register(name)`. A position sees the earlier ones of its own segment and itself, and
    nothing else: `segue.testing.encoders` tests that.

    Attributes:
        Settings: The class of its settings; `encoder` in it defaults to the registered name, and
            `wants` names the columns that it reads in addition to `item_ids`.
    """

    Settings: ClassVar[type[ModelConfig]]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates every variable; `input_shape` is that of the item vectors."""
        ...

    def states(
        self, vectors: Tensor, inputs: Inputs, segment_ids: Tensor, training: bool = False
    ) -> Tensor:
        """The state at each position, float[rows, length, width]; on padding it means nothing.

        Args:
            vectors: float[rows, length, width], of the items.
            inputs: The columns, [rows, length] each: `item_ids` and what `Settings.wants` names.
            segment_ids: int32[rows, length]; 0 = padding, a segment's positions are neighbours.
            training: Whether to drop out.
        """
        ...

    def last(
        self, vectors: Tensor, inputs: Inputs, segment_ids: Tensor, positions: Tensor
    ) -> Tensor:
        """The state at one position of each row, float[rows, width]; as in `states`, for less.

        Args:
            vectors, inputs, segment_ids: As `states` takes them.
            positions: int32[rows].
        """
        ...


@runtime_checkable
class Attentive(Protocol):
    """An encoder that can show what a position attends to."""

    def attention_at(
        self, vectors: Tensor, inputs: Inputs, segment_ids: Tensor, positions: Tensor
    ) -> Tensor:
        """What one position of each row attends to in the last block.

        Returns:
            float[rows, heads, length], adding up to 1.
        """
        ...
