"""`SASRec`, an ordinary `keras.Model`: to compile, fit and save oneself, as the tutorial does."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from segue.config import LossConfig, ModelConfig
from segue.errors import RequestError
from segue.model.encoders.protocol import Inputs
from segue.model.kernels.device import MASKED
from segue.model.kernels.tensors import Tensor
from segue.model.layers import at_positions
from segue.model.losses.protocol import table_penalty
from segue.model.sequence_model import SequenceModel, last_positions


@keras.saving.register_keras_serializable(package="segue")
class SASRec(SequenceModel):
    """A causal encoder of the items of a history, with its best items after each.

    Inputs are those of `SequenceModel`. Outputs, a dict:
        item_sequence_embedding: float32[rows, length, width], the state at each position; zero on
            padding.
        predictions: int32[rows, k], outside training: the items with the highest scores after the
            last item of each row, padding never among them; watched items may be.

    Targets for `fit`: a dict of `positive_sequence` int32[rows, length] and, but for the full
    softmax, `negative_sequence` (shapes in `Loss`); sample weights float[rows, length], 0 where
    there is no target. Compiled without a loss the model uses its own `LossConfig`; compiled with a
    Keras loss it feeds that loss the logits of the positive and the negative item,
    [rows, length, 2], against 1 and 0.

    For sampled softmax with negatives that are not uniform, who fits the model themselves
    assigns `log_expected` from `NegativeSampler.log_expected`.
    """

    _has_keras_loss = False

    def __init__(
        self,
        num_items: int,
        config: ModelConfig | Mapping[str, Any] | None = None,
        loss: LossConfig | Mapping[str, Any] | None = None,
        k: int = 10,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_items,
            ModelConfig.model_validate({} if config is None else config),
            LossConfig.model_validate({} if loss is None else loss),
            seed=seed,
            **kwargs,
        )
        self.k = k

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any) -> None:
        """As `keras.Model.compile`; without a loss the model uses its own."""
        self._has_keras_loss = loss is not None
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def call(
        self,
        inputs: Inputs,
        training: bool = False,
        arrays: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Inputs and outputs as the class describes them."""
        outputs = super().call(inputs, training, arrays)
        if not training:
            positions = last_positions(self.segment_ids(inputs))
            queries = at_positions(outputs["item_sequence_embedding"], positions)[:, 0]
            outputs["predictions"] = self._best_items(queries)
        return outputs

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The model's own loss, or the compiled Keras loss on the pairs' logits."""
        if not self._has_keras_loss:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if sample_weight is None:
            sample_weight = ops.not_equal(y["positive_sequence"], 0)
        return self._pairwise_loss(y_pred["item_sequence_embedding"], y, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_items": self.num_items,
            "config": self.settings.model_dump(),
            "loss": self.loss_settings.model_dump(),
            "k": self.k,
            "seed": self.seed,
        }

    def _best_items(self, queries: Tensor) -> Tensor:
        table = self.tower.table()
        scores = ops.matmul(ops.cast(queries, table.dtype), ops.transpose(table))
        is_padding = ops.arange(self.num_items + 1)[None] == 0
        scores = ops.where(is_padding, MASKED, scores)
        return ops.top_k(scores, min(self.k, self.num_items))[1]

    def _pairwise_loss(
        self, states: Tensor, targets: Mapping[str, Tensor], weights: Tensor
    ) -> Tensor:
        """The compiled Keras loss, averaged over real targets, and the penalty on the table."""
        positives, negatives = targets["positive_sequence"], targets.get("negative_sequence")
        if negatives is None or negatives.shape != positives.shape:
            raise RequestError(
                "a compiled Keras loss needs one negative for each target: give negative_sequence "
                "in the shape of positive_sequence, or compile without a loss"
            )
        table = self.tower.table()
        states = ops.cast(states, table.dtype)
        pairs = ops.stack([positives, negatives], axis=-1)
        logits = ops.sum(states[:, :, None] * ops.take(table, pairs, axis=0), axis=-1)
        truth = ops.stack([ops.ones_like(positives), ops.zeros_like(negatives)], axis=-1)
        # Keras averages over every position; this leaves the average over the real ones.
        weights = ops.cast(weights, states.dtype)
        weights = weights / ops.maximum(ops.mean(weights), 1e-9)
        loss = keras.Model.compute_loss(
            self, y=ops.cast(truth, logits.dtype), y_pred=logits, sample_weight=weights
        )
        return loss + table_penalty(self.loss_settings.l2, table)
