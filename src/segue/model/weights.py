"""A model's weights as named NumPy arrays, the same names on every backend."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from segue.errors import RunError

Weights = dict[str, npt.NDArray[Any]]


def weights_of(model: keras.Model) -> Weights:
    """Every array that scoring needs, by its path below the model: `block_0/attention/...`."""
    return {name: to_numpy(variable) for name, variable in named_variables(model).items()}


class WeightViews(Mapping[str, npt.NDArray[Any]]):
    """The arrays of `weights_of`, read from the model when they are asked for: no second copy."""

    def __init__(self, model: keras.Model) -> None:
        self._variables = named_variables(model)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return as_numpy(self._variables[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


def load_weights(model: keras.Model, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Puts the arrays into the model.

    Raises:
        RunError: an array is missing, unknown or of another shape.
    """
    variables = named_variables(model)
    missing, unknown = variables.keys() - weights.keys(), weights.keys() - variables.keys()
    if missing or unknown:
        raise RunError(
            f"the weights do not fit the model: missing {sorted(missing)}, unknown "
            f"{sorted(unknown)}; the run's configuration and weights do not belong together"
        )
    for name, variable in variables.items():
        if tuple(variable.shape) != weights[name].shape:
            raise RunError(
                f"the weights do not fit the model: {name} has shape {weights[name].shape}, the "
                f"model expects {tuple(variable.shape)}"
            )
        variable.assign(weights[name])


def to_numpy(variable: Any) -> npt.NDArray[Any]:
    """The value of a Keras variable, copied."""
    return np.array(as_numpy(variable))


def as_numpy(variable: Any) -> npt.NDArray[Any]:
    """The value of a Keras variable, not copied where the backend allows: to be read at once."""
    return to_array(variable.value)


def to_array(tensor: Any) -> npt.NDArray[Any]:
    """The value of a backend's array, not copied where the backend allows: to be read only."""
    if keras.backend.backend() == "jax":  # of which Keras makes a copy
        return np.asarray(tensor)
    value: npt.NDArray[Any] = keras.ops.convert_to_numpy(tensor)
    return value


def named_variables(model: keras.Model) -> dict[str, Any]:
    """The variables but for the seeds', by their path below the model.

    Those of the encoder are named without it: `block_0/attention/projection/kernel`.
    """
    below = {variable.path.partition(f"{model.name}/")[2]: variable for variable in model.weights}
    return {path.removeprefix("encoder/"): variable for path, variable in below.items()}
