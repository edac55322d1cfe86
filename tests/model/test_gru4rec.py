"""GRU4Rec's layer against a loop of the paper's equations, in packed rows and end to end."""

import keras
import numpy as np
import pytest

from segue.config import ModelConfig, load_preset
from segue.data.splits import leave_one_out
from segue.data.synthetic import markov_log
from segue.fitting import fit
from segue.model.keras_model import SASRec
from segue.model.weights import load_weights, weights_of

ITEMS, LENGTH, WIDTH = 30, 12, 5
CONFIG = ModelConfig(encoder="gru4rec", max_length=LENGTH, width=WIDTH, num_blocks=2, dropout=0.0)


@pytest.fixture
def model() -> SASRec:
    """Weights large enough for every input to matter, biases among them."""
    model = SASRec(ITEMS, CONFIG)
    random = np.random.default_rng(0)
    weights = {
        name: random.normal(size=array.shape, scale=0.5).astype(array.dtype)
        for name, array in weights_of(model).items()
    }
    weights["item_embedding/table"][0] = 0.0
    load_weights(model, weights)
    return model


def states(model, item_ids, segment_ids):
    outputs = model({"item_ids": item_ids, "segment_ids": segment_ids}, training=False)
    return keras.ops.convert_to_numpy(outputs["item_sequence_embedding"])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(weights, items):
    """Equations 2 to 5 of Hidasi et al. (2016), item after item, layer after layer."""
    vectors = weights["item_embedding/table"][items] * WIDTH**0.5
    for block in range(CONFIG.num_blocks):
        w_z, w_r, w_c = np.split(weights[f"block_{block}/input_kernel"], 3, axis=1)
        u_z, u_r, u_c = np.split(weights[f"block_{block}/recurrent_kernel"], 3, axis=1)
        b_z, b_r, b_c = np.split(weights[f"block_{block}/bias"], 3)
        state, outputs = np.zeros(WIDTH), []
        for x in vectors:
            update = sigmoid(x @ w_z + state @ u_z + b_z)
            reset = sigmoid(x @ w_r + state @ u_r + b_r)
            candidate = np.tanh(x @ w_c + (reset * state) @ u_c + b_c)
            state = (1 - update) * state + update * candidate
            outputs.append(state)
        vectors = np.array(outputs)
    return vectors


def packed_row(*histories):
    item_ids, segment_ids = np.zeros((2, 1, LENGTH), dtype="int32")
    at = 0
    for number, each in enumerate(histories, 1):
        item_ids[0, at : at + len(each)] = each
        segment_ids[0, at : at + len(each)] = number
        at += len(each)
    return item_ids, segment_ids


def test_each_window_of_a_packed_row_follows_the_papers_equations_from_a_state_of_zero(model):
    first, second = np.array([3, 9, 9, 1]), np.array([7, 3, 30, 12, 5])
    received = states(model, *packed_row(first, second))[0]
    weights = weights_of(model)
    np.testing.assert_allclose(received[:4], by_hand(weights, first), atol=1e-5)
    np.testing.assert_allclose(received[4:9], by_hand(weights, second), atol=1e-5)
    assert not received[9:].any()


def test_the_query_is_the_state_at_the_last_item(model):
    items, segments = packed_row(np.array([3, 9, 9, 1]))
    query = keras.ops.convert_to_numpy(model.encode({"item_ids": items}))
    np.testing.assert_allclose(query[0], states(model, items, segments)[0, 3], atol=1e-6)


def test_each_layers_output_is_dropped_out_in_training_alone(model):
    items, _ = packed_row(np.array([3, 9, 9, 1]))

    def run(training):
        outputs = model({"item_ids": items}, training=training)["item_sequence_embedding"]
        return keras.ops.convert_to_numpy(outputs)[0, :4]

    whole = run(training=False)
    model.encoder.blocks[-1].dropout.rate = 0.5
    np.testing.assert_array_equal(run(training=False), whole)
    dropped = run(training=True)
    is_kept = dropped != 0
    assert 0 < is_kept.mean() < 1
    np.testing.assert_allclose(dropped[is_kept], 2 * whole[is_kept], rtol=1e-5)


def test_a_recurrent_model_has_neither_positions_nor_a_last_normalisation(model):
    assert {name.partition("/")[0] for name in weights_of(model)} == {
        "item_embedding",
        "block_0",
        "block_1",
    }


def test_it_learns_a_cycle_of_items():
    split = leave_one_out(markov_log(300, 40, 12, seed=1))
    config = load_preset("gru4rec").with_settings(
        ["width=32", "max_length=16", "dropout=0", "epochs=30", "batch_size=32"]
    )
    recommender = fit(split, preset=config)
    assert recommender.run.training["epochs"][-1]["hr@10"] > 0.9
