"""Losses: what training minimises, over real targets only; one file each, registered by name."""

from segue.model.losses import bce, gbce, sampled_softmax, softmax
from segue.model.losses.protocol import Loss

__all__ = ["Loss", "bce", "gbce", "sampled_softmax", "softmax"]
