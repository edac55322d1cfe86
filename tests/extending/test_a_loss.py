"""A loss in one file: from a log to recommendations."""

from typing import ClassVar, Literal

import pytest
from keras import ops

import segue
from segue.config import LOSSES, Config, DrawnLossConfig, LossConfig, ModelConfig, TrainingConfig
from segue.data.synthetic import markov_log
from segue.testing.losses import check_loss


class BPRConfig(DrawnLossConfig):
    """The settings of `bpr`."""

    loss: Literal["bpr"] = "bpr"


@LOSSES.register("bpr")
class BPR:
    """-log sigmoid(score of the target - score of a negative) (Rendle et al., UAI 2009, eq. 4)."""

    Settings: ClassVar[type[DrawnLossConfig]] = BPRConfig
    is_of_few_items = True
    reads_log_expected = False

    def __init__(self, settings: DrawnLossConfig) -> None:
        self.settings = settings

    def bytes(self, num_items, positions, width):
        return 4 * positions * self.settings.negatives * width

    def __call__(
        self, states, table, targets, weights, *, negatives=None, log_expected=None, num_items=None
    ):
        positive = ops.sum(states * ops.take(table, targets, axis=0), axis=-1, keepdims=True)
        vectors = ops.take(table, negatives, axis=0)
        negative = ops.sum(states[:, :, None] * vectors, axis=-1)
        losses = ops.mean(ops.softplus(negative - positive), axis=-1)
        return ops.sum(weights * losses) / ops.maximum(ops.sum(weights), 1e-9)


def test_the_loss_keeps_what_losses_promise():
    check_loss("bpr", negatives=3)


def test_a_training_with_it_learns_and_its_run_answers(tmp_path):
    config = Config(
        model=ModelConfig(max_length=10, width=16, dropout=0.1),
        loss=LossConfig(loss="bpr", negatives=4),
        training=TrainingConfig(epochs=20, batch_size=64, learning_rate=0.01, validate_every=10),
    )
    split = segue.leave_one_out(markov_log(200, 20, 10, certainty=1.0, seed=0))
    recommender = segue.fit(split, preset=config)
    assert recommender.run.report["metrics"]["hr@1"] > 0.8
    recommender.save(tmp_path / "run")
    again = segue.load(tmp_path / "run")
    assert again.run.config.loss == config.loss
    assert again.recommend([[1, 2]], k=5).equals(recommender.recommend([[1, 2]], k=5))


def test_an_unknown_loss_is_refused_with_the_known_ones():
    with pytest.raises(segue.SegueError, match=r"loss must be one of .*bpr.*, got 'hinge'"):
        Config().with_settings(["loss=hinge"])
