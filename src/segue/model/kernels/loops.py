"""A loop over the first axis that each backend runs one step at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from segue.model.kernels.tensors import Tensor


def scan(
    step: Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]],
    carry: Sequence[Tensor],
    arrays: Sequence[Tensor],
    num_outputs: int,
) -> tuple[list[Tensor], list[Tensor]]:
    """Calls `step(carry, slices)` for each slice of the arrays' first axis, in order.

    `keras.ops.scan` does not serve: on TensorFlow its outputs must have the shape of the carry.
    On PyTorch and TensorFlow the loop is not differentiated through; it belongs inside a custom
    gradient.

    Args:
        step: returns the next carry and `num_outputs` outputs of the floats' dtype.
        carry: handed from step to step, of constant shapes.
        arrays: [n, ...] each; the first is of the dtype of the outputs.
        num_outputs: how many outputs a step has.

    Returns:
        The last carry, and the outputs stacked along a new first axis.
    """
    loops = {"jax": _scan_jax, "torch": _scan_torch, "tensorflow": _scan_tensorflow}
    loop = loops[keras.backend.backend()]
    last, outputs = loop(step, tuple(carry), tuple(arrays), num_outputs)
    return list(last), list(outputs)


def _scan_jax(step: Any, carry: Any, arrays: Any, num_outputs: int) -> Any:
    import jax

    def body(carry: Any, slices: Any) -> Any:
        carry, outputs = step(carry, slices)
        return tuple(carry), tuple(outputs)

    return jax.lax.scan(body, carry, arrays)


def _scan_torch(step: Any, carry: Any, arrays: Any, num_outputs: int) -> Any:
    import torch

    collected: list[list[Any]] = [[] for _ in range(num_outputs)]
    for slices in zip(*arrays, strict=True):
        carry, outputs = step(carry, slices)
        for each, output in zip(collected, outputs, strict=True):
            each.append(output)
    return carry, [torch.stack(each) for each in collected]


def _scan_tensorflow(step: Any, carry: Any, arrays: Any, num_outputs: int) -> Any:
    import tensorflow as tf

    arrays = tuple(map(tf.convert_to_tensor, arrays))
    length = tf.shape(arrays[0])[0]
    collected = tuple(tf.TensorArray(arrays[0].dtype, size=length) for _ in range(num_outputs))

    def body(index: Any, carry: Any, collected: Any) -> Any:
        carry, outputs = step(carry, tuple(array[index] for array in arrays))
        written = tuple(
            each.write(index, output) for each, output in zip(collected, outputs, strict=True)
        )
        return index + 1, tuple(carry), written

    _, carry, collected = tf.while_loop(
        lambda index, *_: index < length,
        body,
        (tf.constant(0), carry, collected),
        parallel_iterations=1,
    )
    return carry, [each.stack() for each in collected]
