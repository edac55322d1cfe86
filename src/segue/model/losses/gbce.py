"""gBCE: binary cross-entropy calibrated for the share of items that is drawn."""

from typing import ClassVar, Literal

from pydantic import Field

from segue.config import LOSSES, DrawnLossConfig
from segue.model.kernels.device import BlockSizes
from segue.model.losses.bce import BinaryCrossEntropy


class GeneralisedBCEConfig(DrawnLossConfig):
    """The settings of `gbce`."""

    loss: Literal["gbce"] = "gbce"
    gbce_t: float = Field(default=0.75, ge=0.0, le=1.0, description="gBCE's calibration t")


@LOSSES.register("gbce")
class GeneralisedBCE(BinaryCrossEntropy):
    """BCE whose positive probability is raised to beta (Petrov & Macdonald, RecSys 2023)."""

    Settings: ClassVar[type[DrawnLossConfig]] = GeneralisedBCEConfig

    def __init__(self, settings: GeneralisedBCEConfig, sizes: BlockSizes | None = None) -> None:
        super().__init__(settings, sizes)
        self.calibration = settings.gbce_t

    def beta(self, num_items: int) -> float:
        """Equation 14 of the paper."""
        rate = min(1.0, self.settings.negatives / max(1, num_items - 1))
        return rate * (self.calibration * (1.0 - 1.0 / rate) + 1.0 / rate)
