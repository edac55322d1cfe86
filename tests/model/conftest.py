"""Gradients of a function of arrays, on whichever backend the tests run."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from segue.backend import load_keras

load_keras()


def value_and_gradients(function: Callable[..., Any], *arrays: np.ndarray) -> tuple[Any, list[Any]]:
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
    return float(value), [np.asarray(keras.ops.convert_to_numpy(slope)) for slope in slopes]


def training_state(model: Any) -> Any:
    """The state of a compiled model as Keras' JAX trainer hands it to `train_step`."""
    model.optimizer.build(model.trainable_variables)
    return tuple(
        [each.value for each in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )


@pytest.fixture(name="training_state")
def _training_state() -> Callable[[Any], Any]:
    return training_state


@pytest.fixture(name="value_and_gradients")
def _value_and_gradients() -> Callable[..., Any]:
    return value_and_gradients
