"""Sums along the width, and layer normalisation with its gradient by hand."""

from typing import Any

from keras import ops

from segue.model.kernels.device import prefers_own_kernels
from segue.model.kernels.tensors import Tensor


def row_sum(array: Tensor) -> Tensor:
    """The sum along the last axis, which is kept: float[..., width] -> float[..., 1]."""
    if prefers_own_kernels():
        return ops.matmul(array, ops.ones((array.shape[-1], 1), dtype=array.dtype))
    return ops.sum(array, axis=-1, keepdims=True)


def layer_norm(inputs: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
    """Layer normalisation (Ba et al., 2016) over the last axis, its gradient by hand.

    With h = (x - mean) / deviation and dh = dy * scale, the gradient of each row is
    dx = (dh - mean(dh) - h mean(dh h)) / deviation.

    Args:
        inputs: float[..., width].
        scale, shift: float[width].
        epsilon: added to the variance.
    """
    width = inputs.shape[-1]

    def mean(array: Tensor) -> Tensor:
        return row_sum(array) * (1.0 / width)

    def over_rows(array: Tensor) -> Tensor:
        return ops.sum(ops.reshape(array, (-1, width)), axis=0)

    def normalise(inputs: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Any]:
        centred = inputs - mean(inputs)
        inverse = ops.rsqrt(mean(ops.square(centred)) + epsilon)
        normal = centred * inverse

        def backward(*arguments: Any, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            slope = arguments[0] if upstream is None else upstream
            scaled = slope * scale
            part = mean(scaled) + normal * mean(scaled * normal)
            return inverse * (scaled - part), over_rows(slope * normal), over_rows(slope)

        return normal * scale + shift, backward

    return ops.custom_gradient(normalise)(inputs, scale, shift)
