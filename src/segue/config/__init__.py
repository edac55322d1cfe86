"""What a run is made of: frozen settings, their limits, and the named presets."""

from segue.config.presets import (
    DEFAULT_PRESET,
    PRESETS,
    load_preset,
    preset_text,
)
from segue.config.registry import Registry
from segue.config.settings import (
    ENCODERS,
    LOSSES,
    TOWERS,
    Config,
    DrawnLossConfig,
    LossConfig,
    ModelConfig,
    TowerConfig,
    TrainingConfig,
)
from segue.config.stored import config_of_run

__all__ = [
    "DEFAULT_PRESET",
    "ENCODERS",
    "LOSSES",
    "PRESETS",
    "TOWERS",
    "Config",
    "DrawnLossConfig",
    "LossConfig",
    "ModelConfig",
    "Registry",
    "TowerConfig",
    "TrainingConfig",
    "config_of_run",
    "load_preset",
    "preset_text",
]
