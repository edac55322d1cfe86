"""An item tower that reads a column of the catalogue, in one file: from log to answers."""

from typing import ClassVar, Literal

import keras
import numpy as np
import polars as pl
from keras import ops

import segue
from segue.config import TOWERS, Config, ModelConfig, TowerConfig, TrainingConfig
from segue.data.items import Catalogue
from segue.data.synthetic import markov_log
from segue.testing.towers import check_tower

ITEMS = 20


class LabelledConfig(TowerConfig):
    """The settings of `labelled`."""

    tower: Literal["labelled"] = "labelled"
    label_column: str = "genre"


@TOWERS.register("labelled")
class LabelledTower(keras.layers.Layer):
    """A vector for each item, and one for its label."""

    Settings: ClassVar[type[TowerConfig]] = LabelledConfig

    def __init__(self, settings: LabelledConfig, num_items, width, catalogue, seed) -> None:
        super().__init__(name="labelled_items")
        labels = catalogue[settings.label_column]
        self.codes = np.concatenate([[0], labels.rank("dense").to_numpy()]).astype(np.int32)
        self.shape = (num_items + 1, width)

    def build(self, input_shape=None) -> None:
        small = keras.initializers.RandomNormal(stddev=0.02)
        self.own = self.add_weight(name="own", shape=self.shape, initializer=small)
        self.label_of = self.add_weight(
            name="label_of", shape=self.codes.shape, dtype="int32", trainable=False,
            initializer="zeros",
        )  # fmt: skip
        self.label_of.assign(self.codes)
        labels = (int(self.codes.max()) + 1, self.shape[1])
        self.of_label = self.add_weight(name="of_label", shape=labels, initializer=small)
        self.built = True

    def arrays(self):
        return {"own": self.own, "label_of": self.label_of}

    def vectors(self, item_ids, arrays=None):
        arrays = arrays or self.arrays()
        labels = ops.take(ops.convert_to_tensor(arrays["label_of"]), item_ids)
        own = ops.take(ops.convert_to_tensor(arrays["own"]), item_ids, axis=0)
        return own + ops.take(ops.convert_to_tensor(self.of_label), labels, axis=0)

    def table(self, arrays=None):
        arrays = arrays or self.arrays()
        labels = ops.convert_to_tensor(arrays["label_of"])
        own = ops.convert_to_tensor(arrays["own"])
        return own + ops.take(ops.convert_to_tensor(self.of_label), labels, axis=0)


def catalogue() -> Catalogue:
    """Items of four genres."""
    ids = list(range(1, ITEMS + 1))
    genres = [("drama", "noir", "comedy", "war")[item % 4] for item in ids]
    return Catalogue(pl.DataFrame({"item_id": ids, "genre": genres}))


def test_the_tower_keeps_what_towers_promise():
    log = markov_log(5, ITEMS, 4, seed=0)
    vocabulary = segue.Histories.from_log(log).vocabulary
    aligned = catalogue().aligned(vocabulary)
    check_tower("labelled", num_items=vocabulary.num_items, width=8, catalogue=aligned)


def test_a_training_with_it_learns_labels_and_its_run_answers(tmp_path):
    config = Config(
        model=ModelConfig(max_length=10, width=16, dropout=0.1),
        items=TowerConfig(tower="labelled"),
        training=TrainingConfig(epochs=15, batch_size=64, learning_rate=0.01, validate_every=5),
    )
    split = segue.leave_one_out(markov_log(200, ITEMS, 10, certainty=1.0, seed=0))
    recommender = segue.fit(split, items=catalogue(), preset=config)
    assert recommender.run.report["metrics"]["hr@1"] > 0.8
    assert np.abs(recommender.run.weights["labelled_items/of_label"]).max() > 0.1
    recommender.save(tmp_path / "run")
    again = segue.load(tmp_path / "run")
    histories = [[1, 2], [5], []]
    assert again.recommend(histories, k=5).equals(recommender.recommend(histories, k=5))
    assert again.similar(1, 3).equals(recommender.similar(1, 3))
