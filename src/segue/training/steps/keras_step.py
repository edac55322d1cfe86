"""The step by Keras' own means, for PyTorch and TensorFlow.

Keras compiles the whole batch at once, updates every row of the item table, and waits for each
step's loss: on these backends a training of a small model takes several times as long as on JAX,
and the cost of a step grows with the catalogue.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from segue.config import Config
from segue.model.sequence_model import SequenceModel
from segue.model.weights import as_numpy
from segue.training.batches import Batch
from segue.training.plan import Plan
from segue.training.steps.protocol import Array
from segue.training.steps.schedule import learning_rate


class KerasStep:
    """`Step` by `train_on_batch` and Keras' Adam."""

    def __init__(self, model: SequenceModel, config: Config, plan: Plan) -> None:
        """Compiles the model.

        Args:
            model: To be trained; its variables are the parameters.
            config: The optimizer's settings.
            plan: How many steps there are.
        """
        training = config.training
        self._model = model
        self._is_averaging = training.averaging > 0
        rate = learning_rate(training, plan.num_steps)
        averaging = {"use_ema": True, "ema_momentum": training.averaging}
        optimizer = keras.optimizers.Adam(
            learning_rate=rate,
            beta_2=training.beta_2,
            **(averaging if self._is_averaging else {}),
        )
        model.compile(optimizer=optimizer)
        model.optimizer.build(model.trainable_variables)
        # The weights themselves while the model holds their averages.
        self._own: list[Any] | None = None

    def run(self, batch: Batch) -> float:
        """As `Step.run`; waits for the loss."""
        self._take_back_own()
        self._model.reset_metrics()
        measured = self._model.train_on_batch(
            batch.inputs, batch.targets, batch.weights, return_dict=True
        )
        return float(measured["loss"])

    def to_model(self, *, averaged: bool) -> None:
        """As `Step.to_model`."""
        self._take_back_own()
        if not (averaged and self._is_averaging):
            return
        variables = self._model.trainable_variables
        self._own = [keras.ops.copy(variable.value) for variable in variables]
        self._model.optimizer.finalize_variable_values(variables)

    def state(self) -> Mapping[str, Array]:
        """As `Step.state`."""
        self._take_back_own()
        return {name: as_numpy(variable) for name, variable in self._variables().items()}

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """As `Step.shapes`."""
        return {name: tuple(variable.shape) for name, variable in self._variables().items()}

    def restore(self, read: Callable[[str], Array]) -> None:
        """As `Step.restore`."""
        for name, variable in self._variables().items():
            variable.assign(read(name))

    def _take_back_own(self) -> None:
        if self._own is None:
            return
        for variable, value in zip(self._model.trainable_variables, self._own, strict=True):
            variable.assign(value)
        self._own = None

    def _variables(self) -> dict[str, Any]:
        variables = [*self._model.variables, *self._model.optimizer.variables]
        return {f"{number:04d}": variable for number, variable in enumerate(variables)}
