"""A running average of the weights, kept beside them by the optimizer (Polyak & Juditsky, 1992)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from segue.model.sasrec import SASRec


@keras.saving.register_keras_serializable(package="segue")
class AveragingAdam(keras.optimizers.Adam):
    """Adam whose average `ema_momentum * average + (1 - ema_momentum) * weights` stays beside.

    Keras puts the average in the weights' place at the end of every `fit`; a training that calls
    `fit` epoch by epoch would go on from there. Here only `take_averages` does.
    """

    def finalize_variable_values(self, var_list: Any) -> None:
        """Leaves the weights as they are."""

    def take_averages(self, variables: list[Any]) -> None:
        """Assigns copies of the averages: a step gives every buffer away, and each only once."""
        super().finalize_variable_values(variables)
        for variable in variables:
            variable.assign(keras.ops.copy(variable.value))


def take_averages(model: SASRec) -> None:
    """The averages become the weights, where the optimizer keeps any."""
    if isinstance(model.optimizer, AveragingAdam):
        model.optimizer.take_averages(model.trainable_variables)


@contextmanager
def averaged(model: SASRec) -> Iterator[None]:
    """The model with its weights' averages, where the optimizer keeps any; then with its own."""
    if not isinstance(model.optimizer, AveragingAdam):
        yield
        return
    own = [keras.ops.copy(each.value) for each in model.trainable_variables]
    take_averages(model)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, own, strict=True):
            variable.assign(value)
