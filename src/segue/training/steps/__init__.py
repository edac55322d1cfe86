"""One step of a training: a pure function on JAX, Keras' own step on the other backends."""

import keras

from segue.config import Config
from segue.model.sequence_model import SequenceModel
from segue.training.plan import Plan
from segue.training.steps.protocol import Step

__all__ = ["Step", "make_step"]


def make_step(model: SequenceModel, config: Config, plan: Plan) -> Step:
    """The step for the backend that Keras runs on."""
    if keras.backend.backend() == "jax":
        from segue.training.steps.jax_step import JaxStep

        return JaxStep(model, config, plan)
    from segue.training.steps.keras_step import KerasStep

    return KerasStep(model, config, plan)
