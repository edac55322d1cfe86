"""Histories in, queries out: the model compiled for inference, at a few fixed shapes."""

from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakValueDictionary

import keras
import numpy as np
import numpy.typing as npt

from segue.model.sasrec import SASRec

# Shapes are compiled once each; inputs are padded up to the next one.
ROW_SIZES = (1, 8, 16, 32, 128)
SHORTEST = 16

Ids = npt.NDArray[np.int32]


class _Executables(dict[tuple[int, ...], Callable[..., Any]]):
    """Compiled functions by the shape of their item ids."""


# By all that compiling depends on; kept while an encoder uses them. Weights are arguments of the
# functions, so that a service that loads its next model of the same make compiles nothing.
_shared: WeakValueDictionary[Hashable, _Executables] = WeakValueDictionary()


class Encoder:
    """A model's `encode`, compiled; follows the model's weights as they change."""

    def __init__(self, model: SASRec, *, is_final: bool = False) -> None:
        """Takes the model.

        Args:
            model: Trained, or in training.
            is_final: its weights will not change any more, so that they are looked up once.
        """
        if keras.backend.backend() == "jax":
            self._encode = _shared_for_jax(model, is_final)
        else:
            self._encode = compiled(model, lambda item_ids: model.encode({"item_ids": item_ids}))
        self.max_length = model.settings.max_length
        self.width = model.settings.width

    def __call__(self, windows: Ids) -> npt.NDArray[np.float32]:
        """The query of each window.

        Args:
            windows: int32[rows, length], left-aligned, 0 after the end; length <= max_length.

        Returns:
            float32[rows, width]; zeros for an empty window.
        """
        queries = np.zeros((len(windows), self.width), dtype=np.float32)
        # Windows of about one length share a block, which is as long as the longest of them.
        by_length = np.argsort(np.count_nonzero(windows, axis=1), kind="stable")
        for start in range(0, len(windows), ROW_SIZES[-1]):
            chosen = by_length[start : start + ROW_SIZES[-1]]
            queries[chosen] = self._encode(self._padded(windows[chosen]))[: len(chosen)]
        return queries

    def _padded(self, block: Ids) -> Ids:
        """The block in the smallest of the shapes that holds it."""
        is_used = np.flatnonzero(block.any(axis=0))
        used = int(is_used[-1]) + 1 if len(is_used) else 1
        rows = next(size for size in ROW_SIZES if size >= len(block))
        length = next(size for size in lengths_of(self.max_length) if size >= used)
        padded = np.zeros((rows, length), dtype=np.int32)
        padded[: len(block), :used] = block[:, :used]
        return padded


def lengths_of(max_length: int) -> list[int]:
    """The lengths of the shapes that are compiled, ascending."""
    lengths = []
    length = SHORTEST
    while length < max_length:
        lengths.append(length)
        length *= 2
    return [*lengths, max_length]


def compiled(model: SASRec, function: Callable[..., Any]) -> Callable[..., npt.NDArray[Any]]:
    """`function`, which reads the model's variables, compiled once for each shape of its arrays.

    Its arguments are NumPy arrays or dicts of them. The variables are read anew at every call, so
    that it follows a training.
    """
    compilers = {
        "jax": _compiled_for_jax,
        "tensorflow": _compiled_for_tensorflow,
        "torch": _without_gradient_for_torch,
    }
    return compilers[keras.backend.backend()](model, function)


def _shared_for_jax(model: SASRec, is_final: bool) -> Callable[[Ids], npt.NDArray[np.float32]]:
    """`model.encode`, compiled once for each shape and for all models of the same make."""
    import jax

    variables = model.variables
    signature = tuple((tuple(each.shape), each.dtype) for each in variables)
    make = (model.settings.model_dump_json(), model.dtype_policy.name, signature)
    executables = _shared.setdefault(make, _Executables())
    final_values = [each.value for each in variables] if is_final else None

    def encode(values: list[Any], item_ids: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return model.encode({"item_ids": item_ids})

    def call(item_ids: Ids) -> npt.NDArray[np.float32]:
        values = final_values or [each.value for each in variables]
        if item_ids.shape not in executables:
            # Compiled ahead: what `jit` keeps would hold the model and its weights.
            lowered = jax.jit(encode).lower(values, item_ids)
            executables[item_ids.shape] = lowered.compile()
        return np.asarray(executables[item_ids.shape](values, item_ids))

    return call


def _compiled_for_jax(
    model: SASRec, function: Callable[..., Any]
) -> Callable[..., npt.NDArray[Any]]:
    import jax

    @jax.jit
    def stateless(values: list[Any], *arrays: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
            return function(*arrays)

    def call(*arrays: Any) -> npt.NDArray[Any]:
        return np.asarray(stateless([each.value for each in model.variables], *arrays))

    return call


def _compiled_for_tensorflow(
    model: SASRec, function: Callable[..., Any]
) -> Callable[..., npt.NDArray[Any]]:
    import tensorflow as tf

    traced = tf.function(function)

    def call(*arrays: Any) -> npt.NDArray[Any]:
        return np.asarray(traced(*tf.nest.map_structure(tf.constant, arrays)))

    return call


def _without_gradient_for_torch(
    model: SASRec, function: Callable[..., Any]
) -> Callable[..., npt.NDArray[Any]]:
    import torch

    def call(*arrays: Any) -> npt.NDArray[Any]:
        with torch.no_grad():
            result = function(*keras.tree.map_structure(keras.ops.convert_to_tensor, arrays))
        return np.asarray(keras.ops.convert_to_numpy(result))

    return call
