"""SASRec as in the code that Kang & McAuley (2018) published, which is not quite the paper's."""

from typing import ClassVar, Literal

from segue.config import ENCODERS
from segue.model.encoders.transformer import (
    Block,
    DropoutPlace,
    TransformerConfig,
    TransformerEncoder,
)
from segue.model.kernels.tensors import Tensor


class SASRecOriginalConfig(TransformerConfig):
    """The settings of `sasrec-original`; dropout is where the paper's code has it."""

    default_places: ClassVar[tuple[DropoutPlace, ...]] = (
        "embedding",
        "attention",
        "inner",
        "output",
    )

    encoder: Literal["sasrec-original"] = "sasrec-original"


class OriginalBlock(Block):
    """A block that carries normalised states on.

    What is carried past a part is normalised too, and keys and values are made of what is not:
    with n = norm(x), y = n + attention(queries of n, keys and values of x); with m = norm(y),
    m + feed-forward(m). What the attention gives is not dropped out, what is within the
    feed-forward is. Departure: an output projection follows the attention.
    """

    def _context(self, inputs: Tensor, normed: Tensor) -> Tensor:
        return inputs

    def _carried(self, inputs: Tensor, normed: Tensor) -> Tensor:
        return normed


@ENCODERS.register("sasrec-original")
class SASRecOriginalEncoder(TransformerEncoder):
    """The blocks of the published code."""

    Settings: ClassVar[type[TransformerConfig]] = SASRecOriginalConfig
    block_class: ClassVar[type[Block]] = OriginalBlock
