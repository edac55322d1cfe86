"""An encoder that knows when it is asked, in one file: from a log to recommendations."""

from typing import ClassVar, Literal

import keras
import pytest
from keras import ops

import segue
from segue.config import ENCODERS, Config, ModelConfig, TrainingConfig
from segue.data.synthetic import paced_log
from segue.data.times import UNKNOWN_TIME
from segue.testing.encoders import check_encoder

DAY = 86_400
START = 1_700_000_000  # November 2023 in Unix seconds


class GapConfig(ModelConfig):
    """The settings of `gap`."""

    encoder: Literal["gap"] = "gap"
    buckets: int = 24

    @property
    def wants(self):
        return ("timestamps", "asked_at")


@ENCODERS.register("gap")
class GapEncoder(keras.layers.Layer):
    """The state after an item: the item, and how long ago it was when the next is asked for."""

    Settings: ClassVar[type[ModelConfig]] = GapConfig

    def __init__(self, settings: GapConfig, seed: int) -> None:
        super().__init__(name="encoder")
        self.gaps = keras.layers.Embedding(settings.buckets, settings.width, name="gaps")
        self.mix = keras.layers.Dense(4 * settings.width, activation="relu", name="mix")
        self.out = keras.layers.Dense(settings.width, name="out")
        self.buckets = settings.buckets
        self.width = settings.width

    def build(self, input_shape) -> None:
        self.gaps.build(input_shape[:-1])
        self.mix.build(input_shape)
        self.out.build((*input_shape[:-1], 4 * self.width))
        self.built = True

    def states(self, vectors, inputs, segment_ids, training=False):
        then, asked_at = inputs["timestamps"], inputs["asked_at"]
        is_known = ops.logical_and(then != UNKNOWN_TIME, asked_at != UNKNOWN_TIME)
        gap = ops.where(is_known, asked_at - then, 0)
        seconds = ops.cast(ops.maximum(gap, 1), "float32")
        bucket = 1 + ops.cast(ops.log(seconds), "int32")
        bucket = ops.where(is_known, ops.minimum(bucket, self.buckets - 1), 0)  # 0: not known
        return self.out(self.mix(vectors * self.width**0.5 + self.gaps(bucket)))

    def last(self, vectors, inputs, segment_ids, positions):
        states = self.states(vectors, inputs, segment_ids)
        return ops.take_along_axis(states, positions[:, None, None], axis=1)[:, 0]


@pytest.fixture(scope="module")
def recommender() -> segue.Recommender:
    config = Config(
        model=ModelConfig(encoder="gap", max_length=10, width=16, dropout=0.0),
        training=TrainingConfig(epochs=20, batch_size=16, learning_rate=0.01, validate_every=10),
    )
    return segue.fit(segue.leave_one_out(paced_log(300, 60, 10)), preset=config)


def next_item(recommender: segue.Recommender, gap: int) -> int:
    """What comes after item 3, so many seconds later."""
    frame = recommender.recommend([[7, 3]], k=1, times=[[START - DAY, START]], at=START + gap)
    return int(frame["item_id"][0])


def test_the_encoder_keeps_what_encoders_promise():
    check_encoder("gap", max_length=12, width=8)


def test_it_learns_what_comes_soon_and_what_comes_after_days(recommender, tmp_path):
    recommender.save(tmp_path / "run")
    for answering in (recommender, segue.load(tmp_path / "run")):
        assert next_item(answering, 10 * 60) == 4
        assert next_item(answering, 4 * DAY) == 8
    # Half of all targets come soon: a model without times cannot tell which.
    assert recommender.run.report["metrics"]["hr@1"] > 0.75


def test_an_unknown_moment_is_answered_too(recommender):
    assert len(recommender.recommend([[7, 3]], k=3)) == 3


def test_a_date_and_a_number_are_the_same_moment(recommender):
    known = {"times": [["2023-11-13T22:13:20", "2023-11-14T22:13:20"]], "at": "2023-11-14T22:20:00"}
    frame = recommender.recommend([[7, 3]], k=5, **known)
    assert frame.equals(
        recommender.recommend([[7, 3]], k=5, times=[[START - DAY, START]], at=START + 400)
    )
