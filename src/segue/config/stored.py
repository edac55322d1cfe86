"""Configurations in runs: read as any version of segue wrote them."""

from collections.abc import Mapping
from typing import Any

from segue.config.settings import OPEN_SECTIONS, Config

# Version 0.1 wrote these for every encoder and loss, also where they meant nothing.
_ONCE_COMMON = {
    "model": ("num_heads", "feedforward_width", "positions", "scale_embedding", "dropout_places"),
    "loss": ("negatives", "sampling", "negatives_per", "exclude_history", "gbce_t"),
}


def config_of_run(document: Mapping[str, Any]) -> Config:
    """The configuration that a run's document describes.

    Raises:
        ValidationError: It is none.
        ConfigError: It names an encoder, tower or loss that is not registered.
    """
    if "items" in document:
        return Config.model_validate(document)
    return Config.model_validate({**document, **_without_idle_settings(document)})


def _without_idle_settings(document: Mapping[str, Any]) -> dict[str, Any]:
    """The sections without what version 0.1 wrote and the chosen encoder or loss does not have."""
    sections: dict[str, Any] = {}
    for name, once_common in _ONCE_COMMON.items():
        values = document.get(name)
        if not isinstance(values, Mapping):
            continue
        fields = OPEN_SECTIONS[name].chosen_by(values).model_fields
        sections[name] = {
            field: value
            for field, value in values.items()
            if field in fields or field not in once_common
        }
    return sections
