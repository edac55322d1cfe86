"""Arrays and gradients on whichever backend runs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.backend import load_keras

Array = npt.NDArray[Any]

load_keras()


def as_array(tensor: Any) -> Array:
    """A backend's array as NumPy's."""
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))


def value_and_gradients(function: Callable[..., Any], *arrays: Array) -> tuple[float, list[Array]]:
    """The scalar that `function` returns, and its slope with respect to each array."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        value, slopes = jax.value_and_grad(function, argnums=tuple(range(len(arrays))))(*arrays)
    elif backend == "torch":
        import torch

        leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
        value = function(*leaves)
        value.backward()
        value, slopes = value.detach(), [leaf.grad for leaf in leaves]
    else:
        import tensorflow as tf

        leaves = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(leaves)
            value = function(*leaves)
        slopes = tape.gradient(value, leaves)
    return float(value), [as_array(slope) for slope in slopes]


def assert_close(received: Array, expected: Array, what: str, atol: float = 1e-5) -> None:
    """Raises `AssertionError` where two arrays differ by more than `atol`."""
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=atol, err_msg=what)
