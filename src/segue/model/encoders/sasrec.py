"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018)."""

from typing import ClassVar, Literal

from segue.config import ENCODERS
from segue.model.encoders.transformer import TransformerConfig, TransformerEncoder


class SASRecConfig(TransformerConfig):
    """The settings of `sasrec`."""

    encoder: Literal["sasrec"] = "sasrec"


@ENCODERS.register("sasrec")
class SASRecEncoder(TransformerEncoder):
    """The paper's pre-norm Transformer blocks (section III).

    Departure: a last layer normalisation follows the blocks, as in the paper's code and in the
    reference tutorial.
    """

    Settings: ClassVar[type[TransformerConfig]] = SASRecConfig
