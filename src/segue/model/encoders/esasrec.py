"""eSASRec (Tikhonovich et al., RecSys 2025): gated residuals and SwiGLU."""

from typing import Any, ClassVar, Literal

from segue.config import ENCODERS
from segue.model.encoders.transformer import Block, TransformerConfig, TransformerEncoder
from segue.model.kernels.tensors import Tensor
from segue.model.layers import SwiGLU, dense


class ESASRecConfig(TransformerConfig):
    """The settings of `esasrec`; the feed-forward is twice as wide by default."""

    encoder: Literal["esasrec"] = "esasrec"


class GatedBlock(Block):
    """LiGR block (Borisyuk et al., 2024), as in eSASRec.

    Each part is let through by a gate on what it is added to: x + sigmoid(W x) * part(norm(x)). The
    feed-forward is a SwiGLU.
    """

    feedforward_class = SwiGLU
    feedforward_factor = 2

    def __init__(self, settings: TransformerConfig, seed: int, **kwargs: Any) -> None:
        super().__init__(settings, seed, **kwargs)
        width = settings.width
        self.attention_gate = dense(width, seed + 40, "attention_gate", activation="sigmoid")
        self.feedforward_gate = dense(width, seed + 41, "feedforward_gate", activation="sigmoid")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.attention_gate.build(input_shape)
        self.feedforward_gate.build(input_shape)

    def _with_attended(self, inputs: Tensor, attended: Tensor) -> Tensor:
        return inputs + self.attention_gate(inputs) * attended

    def _with_fed_forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        return inputs + self.feedforward_gate(inputs) * outputs


@ENCODERS.register("esasrec")
class ESASRecEncoder(TransformerEncoder):
    """LiGR blocks in SASRec's place."""

    Settings: ClassVar[type[TransformerConfig]] = ESASRecConfig
    block_class: ClassVar[type[Block]] = GatedBlock
