"""The type of a backend's array: jax.Array, torch.Tensor or tf.Tensor."""

from typing import Any

Tensor = Any
