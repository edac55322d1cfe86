"""Histories in, queries out: the model compiled for inference, at a few fixed shapes."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import keras
import numpy as np
import numpy.typing as npt

from segue.data.columns import Columns
from segue.model.sequence_model import SequenceModel

# Shapes are compiled once each; inputs are padded up to the next one.
ROW_SIZES = (1, 8, 16, 32, 128)
SHORTEST = 16

Arrays = Mapping[str, npt.NDArray[Any]]
Queries = npt.NDArray[np.float32]


class _Executables(dict[tuple[int, ...], Callable[..., Any]]):
    """Compiled functions by the shape of their item ids."""


# By all that compiling depends on; kept while an encoder uses them. Weights are arguments of the
# functions, so that a service that loads its next model of the same make compiles nothing.
_shared: WeakValueDictionary[Hashable, _Executables] = WeakValueDictionary()


class QueryEncoder:
    """A model's `encode`, compiled; follows the model's weights as they change.

    Attributes:
        max_length: The items of a history that the model looks at, at most.
        width: Of a query.
        wants: The columns that the model reads in addition to `item_ids`.
    """

    def __init__(self, model: SequenceModel, *, is_final: bool = False) -> None:
        """Takes the model.

        Args:
            model: Trained, or in training.
            is_final: its weights will not change any more, so that they are looked up once.
        """
        if keras.backend.backend() == "jax":
            self._encode = _shared_for_jax(model, is_final)
        else:
            self._encode = compiled(model, model.encode)
        self.max_length = model.max_length
        self.width = model.settings.width
        self.wants = model.wants

    def __call__(self, columns: Columns) -> Queries:
        """The query of each history.

        Args:
            columns: Of at most `max_length` positions.

        Returns:
            float32[rows, width]; zeros for an empty history.
        """
        inputs = columns.inputs(self.wants)
        queries = np.zeros((columns.num_rows, self.width), dtype=np.float32)
        # Histories of about one length share a block, which is as long as the longest of them.
        lengths = columns.lengths
        by_length = np.argsort(lengths, kind="stable")
        for start in range(0, columns.num_rows, ROW_SIZES[-1]):
            chosen = by_length[start : start + ROW_SIZES[-1]]
            block = {name: array[chosen] for name, array in inputs.items()}
            padded = self._padded(block, len(chosen), int(lengths[chosen].max()))
            queries[chosen] = self._encode(padded)[: len(chosen)]
        return queries

    def _padded(self, block: Arrays, num_rows: int, used: int) -> dict[str, npt.NDArray[Any]]:
        """The block's first `used` positions in the smallest of the shapes that holds them.

        What is added is padding: rows and positions without an item, whose other columns are
        never read.
        """
        rows = next(size for size in ROW_SIZES if size >= num_rows)
        length = next(size for size in lengths_of(self.max_length) if size >= used)
        padded = {}
        for name, array in block.items():
            padded[name] = np.zeros((rows, length), dtype=array.dtype)
            padded[name][:num_rows, :used] = array[:, :used]
        return padded


def lengths_of(max_length: int) -> list[int]:
    """The lengths of the shapes that are compiled, ascending."""
    lengths = []
    length = SHORTEST
    while length < max_length:
        lengths.append(length)
        length *= 2
    return [*lengths, max_length]


def compiled(model: SequenceModel, function: Callable[..., Any]) -> Callable[..., npt.NDArray[Any]]:
    """`function`, which reads the model's variables, compiled once for each shape of its arrays.

    Its arguments are NumPy arrays or dicts of them. The variables are read at every call, so
    that it follows a training.
    """
    compilers = {
        "jax": _compiled_for_jax,
        "tensorflow": _compiled_for_tensorflow,
        "torch": _without_gradient_for_torch,
    }
    return compilers[keras.backend.backend()](model, function)


def _shared_for_jax(model: SequenceModel, is_final: bool) -> Callable[[Arrays], Queries]:
    """`model.encode`, compiled once for each shape and for all models of the same make."""
    import jax

    variables = model.variables
    signature = tuple((tuple(variable.shape), variable.dtype) for variable in variables)
    kinds = (type(model.encoder), type(model.tower))
    settings = (model.settings.model_dump_json(), model.items_settings.model_dump_json())
    make = (kinds, settings, model.dtype_policy.name, signature)
    executables = _shared.setdefault(make, _Executables())
    final_values = [variable.value for variable in variables] if is_final else None

    def encode(values: list[Any], inputs: Arrays) -> Any:
        # A GPU would multiply float32 with 10 bits of mantissa by default: queries would be other
        # ones than a CPU's.
        with (
            jax.default_matmul_precision("float32"),
            keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))),
        ):
            return model.encode(inputs)

    def call(inputs: Arrays) -> Queries:
        values = final_values or [variable.value for variable in variables]
        shape = inputs["item_ids"].shape
        if shape not in executables:
            # Compiled ahead: what `jit` keeps would hold the model and its weights.
            executables[shape] = jax.jit(encode).lower(values, inputs).compile()
        return np.asarray(executables[shape](values, inputs), dtype=np.float32)

    return call


def _compiled_for_jax(
    model: SequenceModel, function: Callable[..., Any]
) -> Callable[..., npt.NDArray[Any]]:
    import jax

    @jax.jit
    def stateless(values: list[Any], *arrays: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
            return function(*arrays)

    def call(*arrays: Any) -> npt.NDArray[Any]:
        return np.asarray(stateless([variable.value for variable in model.variables], *arrays))

    return call


def _compiled_for_tensorflow(
    model: SequenceModel, function: Callable[..., Any]
) -> Callable[..., npt.NDArray[Any]]:
    import tensorflow as tf

    traced = tf.function(function)

    def call(*arrays: Any) -> npt.NDArray[Any]:
        return np.asarray(traced(*tf.nest.map_structure(tf.constant, arrays)))

    return call


def _without_gradient_for_torch(
    model: SequenceModel, function: Callable[..., Any]
) -> Callable[..., npt.NDArray[Any]]:
    import torch

    def call(*arrays: Any) -> npt.NDArray[Any]:
        with torch.no_grad():
            result = function(*keras.tree.map_structure(keras.ops.convert_to_tensor, arrays))
        return np.asarray(keras.ops.convert_to_numpy(result))

    return call
