"""The Keras tutorial's worker: its model, rebuilt from KerasHub and KerasRS layers.

    keras_tutorial.py speed HISTORIES bce WIDTH SECONDS

As the tutorial has it: rows of 200 padded on the right, one negative a position drawn once for all
epochs, users in one order, the item table tied to the output, BCE over real positions. Otherwise
than there, everybody's data is the same: the same items of the same users.
"""

import sys
import time
from pathlib import Path
from typing import Any

import keras
import keras_hub
import keras_rs
import numpy as np
import tensorflow as tf
from keras import ops
from worker import (
    BATCH_SIZE,
    BLOCKS,
    DROPOUT,
    HEADS,
    LEARNING_RATE,
    LENGTH,
    read_histories,
    report_speed,
)

WARM_UP_BATCHES = 3


class TutorialSASRec(keras.Model):
    """Two pre-norm decoder blocks over a reversible embedding, and brute-force retrieval."""

    def __init__(self, num_items: int, width: int) -> None:
        super().__init__()
        self.items = keras_hub.layers.ReversibleEmbedding(
            num_items + 1, width, tie_weights=True, embeddings_initializer="glorot_uniform"
        )
        self.positions = keras_hub.layers.PositionEmbedding(LENGTH)
        self.dropout = keras.layers.Dropout(DROPOUT)
        self.decoders = [
            keras_hub.layers.TransformerDecoder(
                intermediate_dim=width,
                num_heads=HEADS,
                dropout=DROPOUT,
                layer_norm_epsilon=1e-5,
                normalize_first=True,
            )
            for _ in range(BLOCKS)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-8)
        self.retrieval = keras_rs.layers.BruteForceRetrieval(k=10, return_scores=False)

    def build(self, input_shape: Any) -> None:
        self.items.build(None)
        states = (None, LENGTH, self.items.output_dim)
        for layer in (self.positions, *self.decoders, self.norm):
            layer.build(states)
        self.retrieval.candidate_embeddings = self.items.embeddings
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Args: inputs: item_ids int32[rows, LENGTH] and padding_mask, True on items."""
        is_item = inputs["padding_mask"]
        states = self.items(inputs["item_ids"])
        states = self.dropout(states + self.positions(states), training=training)
        for decoder in self.decoders:
            states = decoder(states, decoder_padding_mask=is_item, training=training)
        states = self.norm(states)
        outputs = {"item_sequence_embedding": states}
        if not training:
            last = ops.sum(ops.cast(is_item, "int32"), axis=1) - 1
            queries = ops.take_along_axis(states, last[:, None, None], axis=1)[:, 0]
            outputs["predictions"] = self.retrieval(queries)
        return outputs

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The compiled loss on each position's logits of its positive and its negative."""
        states = y_pred["item_sequence_embedding"]
        logits = ops.concatenate(
            [ops.sum(states * self.items(y[name]), axis=-1) for name in ("positive", "negative")]
        )
        half = logits.shape[0] // 2
        truth = ops.concatenate([ops.ones((half, LENGTH)), ops.zeros((half, LENGTH))])
        weights = ops.concatenate([sample_weight, sample_weight])
        return super().compute_loss(
            y=truth[..., None], y_pred=logits[..., None], sample_weight=weights
        )


def batches_of(path: Path) -> tuple[tf.data.Dataset, int, int]:
    """The batches, the real targets of an epoch, and num_items."""
    item_ids, offsets, num_items = read_histories(path)
    lengths = np.minimum(np.diff(offsets) - 1, LENGTH)[:, None]
    is_item = np.arange(LENGTH) < lengths
    places = np.where(is_item, offsets[1:, None] - 1 - lengths + np.arange(LENGTH), 0)
    known = np.zeros((len(offsets) - 1, num_items + 1), dtype=bool)
    known[np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), item_ids] = True

    def padded(ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.where(is_item, ids, 0).astype(np.int32)

    arrays = (
        {"item_ids": padded(item_ids[places]), "padding_mask": is_item},
        {"positive": padded(item_ids[places + 1]), "negative": padded(unknown_items(known))},
        is_item.astype(np.float32),
    )
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH_SIZE)
    return dataset.prefetch(tf.data.AUTOTUNE), int(is_item.sum()), num_items


def unknown_items(known: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """int64[users, LENGTH]: uniform items that the user never rated; known bool[users, items]."""
    random = np.random.default_rng(0)
    users = np.arange(len(known))[:, None]
    drawn = random.integers(1, known.shape[1], (len(known), LENGTH))
    while (is_known := known[users, drawn]).any():
        drawn[is_known] = random.integers(1, known.shape[1], int(is_known.sum()))
    return drawn


def speed(path: Path, width: int, seconds: float) -> None:
    """Times whole epochs, once the two shapes of batches are compiled."""
    batches, targets, num_items = batches_of(path)
    model = TutorialSASRec(num_items, width)
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE, beta_2=0.98),
        loss=keras.losses.BinaryCrossentropy(from_logits=True, reduction="mean_with_sample_weight"),
    )
    last = batches.skip(int(batches.cardinality()) - 1)
    model.fit(batches.take(WARM_UP_BATCHES).concatenate(last), verbose=0)
    start, duration, epochs = time.perf_counter(), 0.0, 0
    while duration < seconds:
        model.fit(batches, verbose=0)
        epochs += 1
        duration = time.perf_counter() - start
    report_speed(duration, targets * epochs, ["keras", "keras-hub", "keras-rs", "jax"])


if __name__ == "__main__":
    _, histories, objective, width, seconds = sys.argv[1:]
    if objective != "bce":
        raise SystemExit(f"the tutorial has no objective {objective}; ask for bce")
    speed(Path(histories), int(width), float(seconds))
