"""The encoder as a Keras model: masks, positions, packing, prediction, the tutorial's batches."""

import keras
import numpy as np
import pytest

from segue.config import LossConfig, ModelConfig
from segue.model.keras_model import SASRec
from segue.model.layers import positions_in_segments
from segue.model.weights import load_weights, weights_of

ITEMS, LENGTH = 30, 12
SMALL = ModelConfig(max_length=LENGTH, width=8, num_blocks=2, num_heads=2, dropout=0.5)


@pytest.fixture(params=["learned", "both"])
def model(request) -> SASRec:
    """Weights large enough for every input to matter."""
    keras.utils.set_random_seed(0)
    model = SASRec(ITEMS, SMALL.model_copy(update={"positions": request.param}), seed=1)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        value = random.normal(size=tuple(variable.shape), scale=0.5).astype("float32")
        if variable.path.endswith("item_embedding/table"):
            value[0] = 0.0
        variable.assign(value)
    return model


def states(model, item_ids, **masks):
    inputs = {"item_ids": np.asarray(item_ids, dtype="int32"), **masks}
    outputs = model(inputs, training=False)
    return keras.ops.convert_to_numpy(outputs["item_sequence_embedding"])


def history(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, ITEMS + 1, length).astype("int32")


def row(*histories: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    item_ids, segment_ids = np.zeros((2, 1, LENGTH), dtype="int32")
    at = 0
    for number, each in enumerate(histories, 1):
        item_ids[0, at : at + len(each)] = each
        segment_ids[0, at : at + len(each)] = number
        at += len(each)
    return item_ids, segment_ids


def norm_by_hand(x, weights, name, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return scaled * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def dense_by_hand(x, weights, name):
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def gate_by_hand(x, weights, name):
    """sigmoid(W x + b) where the block is gated, else 1."""
    if f"{name}/kernel" not in weights:
        return 1.0
    return 1 / (1 + np.exp(-dense_by_hand(x, weights, name)))


def turned_by_hand(array):
    """Rows of complex numbers, each turned by its place (RoFormer, equations 12 to 15)."""
    half = array.shape[1] // 2
    speeds = 1_000.0 ** (-np.arange(half) / half)
    angles = np.arange(len(array))[:, None] * speeds
    return (array[:, :half] + 1j * array[:, half:]) * np.exp(1j * angles)


def states_by_hand(weights, items, heads, scale, positions="learned", is_original=False):
    """One window through the paper's formulas (section III), in float64, head by head.

    Where `is_original`, those of the code that Kang & McAuley published: its attention is called
    as `multihead_attention(queries=normalize(seq), keys=seq)` and adds its queries to its output,
    its feed-forward as `feedforward(normalize(seq))` and adds its input.
    """
    weights = {name: array.astype("float64") for name, array in weights.items()}
    width = weights["item_embedding/table"].shape[1]
    x = weights["item_embedding/table"][items] * (np.sqrt(width) if scale else 1.0)
    if positions != "rotary":
        places = np.arange(len(items))
        places = places[::-1] if positions == "from_end" else places
        x = x + weights["position_embedding/table"][places]
    for block in ("block_0", "block_1"):
        normed = norm_by_hand(x, weights, f"{block}/attention_norm", 1e-5)
        of_normed, of_context = (
            np.split(dense_by_hand(each, weights, f"{block}/attention/projection"), 3, axis=-1)
            for each in (normed, x if is_original else normed)
        )
        query, key, value = of_normed[0], of_context[1], of_context[2]
        x = normed if is_original else x
        outputs = []
        for head in range(heads):
            of = slice(head * width // heads, (head + 1) * width // heads)
            scores = query[:, of] @ key[:, of].T
            if positions in ("rotary", "both"):
                scores = (turned_by_hand(query[:, of]) @ turned_by_hand(key[:, of]).conj().T).real
            scores = scores / np.sqrt(width / heads)
            scores[np.triu_indices(len(items), 1)] = -np.inf
            chances = np.exp(scores - scores.max(1, keepdims=True))
            outputs.append(chances / chances.sum(1, keepdims=True) @ value[:, of])
        attended = np.concatenate(outputs, axis=1)
        attended = dense_by_hand(attended, weights, f"{block}/attention/output_projection")
        x = x + gate_by_hand(x, weights, f"{block}/attention_gate") * attended
        normed = norm_by_hand(x, weights, f"{block}/feedforward_norm", 1e-5)
        x = normed if is_original else x
        inner = dense_by_hand(normed, weights, f"{block}/feedforward/inner")
        if f"{block}/feedforward/gate/kernel" in weights:
            gate = dense_by_hand(normed, weights, f"{block}/feedforward/gate")
            inner = inner * gate / (1 + np.exp(-gate))
        else:
            inner = np.maximum(inner, 0)
        outer = dense_by_hand(inner, weights, f"{block}/feedforward/outer")
        x = x + gate_by_hand(x, weights, f"{block}/feedforward_gate") * outer
    return norm_by_hand(x, weights, "final_norm", 1e-8)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("encoder", ["sasrec", "sasrec-original", "esasrec"])
@pytest.mark.parametrize("positions", ["learned", "from_end", "rotary", "both"])
def test_the_states_are_those_of_the_papers_formulas_worked_by_hand(
    heads, scale, encoder, positions
):
    config = ModelConfig(
        encoder=encoder,
        positions=positions,
        max_length=LENGTH,
        width=8,
        num_heads=heads,
        feedforward_width=12,
        scale_embedding=scale,
    )
    model = SASRec(ITEMS, config)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=tuple(variable.shape), scale=0.5).astype("float32"))
    first, second = history(1, 5), history(2, 6)
    item_ids, segment_ids = row(first, second)
    output = states(model, item_ids, segment_ids=segment_ids)[0]
    weights = weights_of(model)
    assert ("block_0/attention_gate/kernel" in weights) == (encoder == "esasrec")
    assert ("position_embedding/table" in weights) == (positions != "rotary")
    for window, of in ((first, slice(0, 5)), (second, slice(5, 11))):
        is_original = encoder == "sasrec-original"
        expected = states_by_hand(weights, window, heads, scale, positions, is_original)
        np.testing.assert_allclose(output[of], expected, atol=2e-5)


def test_positions_count_from_zero_at_the_start_of_each_segment():
    segment_ids = np.array([[1, 1, 1, 2, 2, 0]], dtype="int32")
    positions = keras.ops.convert_to_numpy(positions_in_segments(segment_ids))
    np.testing.assert_array_equal(positions[0, :5], [0, 1, 2, 0, 1])


PLACES = {
    "embedding": ["embedding_dropout"],
    "attention": ["blocks.0.attention.dropout", "blocks.1.attention.dropout"],
    "inner": ["blocks.0.feedforward.inner_dropout", "blocks.1.feedforward.inner_dropout"],
    "attended": ["blocks.0.attended_dropout", "blocks.1.attended_dropout"],
    "output": ["blocks.0.output_dropout", "blocks.1.output_dropout"],
}


@pytest.mark.parametrize("encoder", ["sasrec", "sasrec-original", "esasrec"])
@pytest.mark.parametrize("place", PLACES)
def test_each_place_drops_out_in_training_where_it_is_named_alone(encoder, place):
    settings = {"encoder": encoder, "dropout": 0.5, "dropout_places": (place,)}
    model = SASRec(ITEMS, ModelConfig(**{**SMALL.model_dump(), **settings}), seed=1)
    inputs = {"item_ids": row(history(6, 9))[0]}

    def run():
        return keras.ops.convert_to_numpy(model(inputs, training=True)["item_sequence_embedding"])

    assert np.abs(run() - run()).max() > 1e-4
    for path in PLACES[place]:
        dropout = model.encoder
        for name in path.split("."):
            dropout = dropout[int(name)] if name.isdigit() else getattr(dropout, name)
        dropout.rate = 0.0
    np.testing.assert_array_equal(run(), run())


def test_rows_longer_than_the_positions_are_refused(model):
    items = np.ones((1, LENGTH + 1), dtype="int32")
    for ask in (model, model.encode):
        with pytest.raises(Exception, match=f"rows of {LENGTH + 1} items exceed max_length"):
            ask({"item_ids": items})


def test_changing_the_future_never_changes_the_past(model):
    items = history(0, LENGTH)[None]
    before = states(model, items)
    changed = items.copy()
    changed[0, 7:] = changed[0, 7:] % ITEMS + 1
    after = states(model, changed)
    np.testing.assert_allclose(after[:, :7], before[:, :7], atol=1e-6)
    assert np.abs(after[:, 7:] - before[:, 7:]).max() > 1e-3


def test_every_past_item_matters(model):
    items = history(0, LENGTH)[None]
    before = states(model, items)[0, -1]
    for at in range(LENGTH):
        changed = items.copy()
        changed[0, at] = changed[0, at] % ITEMS + 1
        assert np.abs(states(model, changed)[0, -1] - before).max() > 1e-5


def test_a_packed_window_has_the_states_it_has_alone(model):
    first, second = history(1, 5), history(2, 6)
    item_ids, segment_ids = row(first, second)
    together = states(model, item_ids, segment_ids=segment_ids)
    alone = states(model, row(first)[0]), states(model, row(second)[0])
    np.testing.assert_allclose(together[0, :5], alone[0][0, :5], atol=1e-6)
    np.testing.assert_allclose(together[0, 5:11], alone[1][0, :6], atol=1e-6)


def test_another_user_in_the_row_changes_nothing(model):
    first, second, other = history(1, 5), history(2, 6), history(3, 6)
    with_second = states(model, row(first, second)[0], segment_ids=row(first, second)[1])
    with_other = states(model, row(first, other)[0], segment_ids=row(first, other)[1])
    np.testing.assert_array_equal(with_second[0, :5], with_other[0, :5])


def test_positions_count_from_the_windows_start_wherever_the_padding_is(model):
    items = history(4, 7)
    left, right = np.zeros((2, 1, LENGTH), dtype="int32")
    left[0, -7:], right[0, :7] = items, items
    np.testing.assert_allclose(states(model, left)[0, -7:], states(model, right)[0, :7], atol=1e-6)


def test_rotary_positions_tell_the_order_and_no_place():
    config = ModelConfig(max_length=LENGTH, width=8, num_blocks=1, dropout=0.0, positions="rotary")
    model = SASRec(ITEMS, config)
    assert "position_embedding/table" not in weights_of(model)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=tuple(variable.shape), scale=0.5).astype("float32"))
    items = np.array([5, 5, 5, 9, 2], dtype="int32")
    swapped = np.array([5, 5, 5, 2, 9], dtype="int32")
    # Before anything differs, equal items have equal states wherever they stand.
    same = states(model, row(items)[0])[0]
    np.testing.assert_allclose(same[:3], same[[0, 0, 0]], atol=1e-5)
    last = [states(model, row(np.append(each, 7))[0])[0, 5] for each in (items, swapped)]
    assert np.abs(last[0] - last[1]).max() > 1e-3


def test_padding_carries_nothing(model):
    item_ids, segment_ids = row(history(5, 4))
    output = states(model, item_ids, segment_ids=segment_ids)
    assert not output[0, 4:].any()
    disguised = item_ids.copy()
    disguised[0, 4:] = 9  # items where the mask says padding
    is_item = segment_ids > 0
    np.testing.assert_array_equal(states(model, disguised, padding_mask=is_item), output)


def test_row_0_of_the_item_table_starts_at_zero_and_is_never_trained(model):
    fresh = SASRec(ITEMS, SMALL)
    assert not weights_of(fresh)["item_embedding/table"][0].any()
    item_ids, _ = row(history(5, 4))
    y = {"positive_sequence": np.roll(item_ids, -1, axis=1)}
    fresh.compile(optimizer=keras.optimizers.Adam(0.1))
    fresh.fit(
        {"item_ids": np.repeat(item_ids, 4, 0)},
        {"positive_sequence": np.repeat(y["positive_sequence"], 4, 0)},
        epochs=3,
        verbose=0,
    )
    table = weights_of(fresh)["item_embedding/table"]
    assert not table[0].any()
    assert np.abs(table[1:]).max() > 0.1


@pytest.mark.parametrize("encoder", ["sasrec-original", "esasrec"])
@pytest.mark.parametrize("positions", ["learned", "from_end", "rotary", "both"])
def test_the_other_encoders_read_the_last_item_as_their_call_does(encoder, positions):
    config = ModelConfig(
        encoder=encoder, positions=positions, max_length=LENGTH, width=8, num_heads=2
    )
    model = SASRec(ITEMS, config)
    items = np.stack([row(history(6, length))[0][0] for length in (1, 9, LENGTH)])
    queries = keras.ops.convert_to_numpy(model.encode({"item_ids": items}))
    everything = states(model, items)
    for at, length in enumerate((1, 9, LENGTH)):
        np.testing.assert_allclose(queries[at], everything[at, length - 1], atol=1e-5)


def test_the_query_is_the_state_at_the_last_item(model):
    # The reference read a 53-item history of 200 positions at position 146: the count of padding.
    items = np.stack([row(history(6, length))[0][0] for length in (1, 3, 9, LENGTH)])
    everything = states(model, items)
    queries = keras.ops.convert_to_numpy(model.encode({"item_ids": items}))
    for at, length in enumerate((1, 3, 9, LENGTH)):
        np.testing.assert_allclose(queries[at], everything[at, length - 1], atol=1e-5)


def test_predictions_are_the_best_real_items_after_the_last_item(model):
    items = np.stack([row(history(6, length))[0][0] for length in (1, 3, 9, LENGTH)])
    queries = keras.ops.convert_to_numpy(model.encode({"item_ids": items}))
    scores = queries @ weights_of(model)["item_embedding/table"][1:].T
    expected = np.argsort(-scores, axis=1)[:, :10] + 1
    predictions = model.predict({"item_ids": items}, verbose=0)["predictions"]
    np.testing.assert_array_equal(predictions, expected)


@pytest.mark.parametrize("encoder", ["sasrec", "sasrec-original", "esasrec", "gru4rec"])
def test_a_second_prediction_calls_the_model_no_more(encoder):
    # Keras calls a model that has an unbuilt part anew at every `predict`, uncompiled.
    calls = []

    class Counted(SASRec):
        def call(self, inputs, training=False):
            calls.append(training)
            return super().call(inputs, training)

    model = Counted(ITEMS, ModelConfig(encoder=encoder, max_length=LENGTH, width=8))
    assert all(layer.built for layer in model._flatten_layers())
    if keras.backend.backend() == "torch":
        return  # which compiles nothing
    items = row(history(6, 4))[0]
    model.predict({"item_ids": items}, verbose=0)
    before = len(calls)
    model.predict({"item_ids": items}, verbose=0)
    assert len(calls) == before


def test_padding_is_never_predicted_even_when_every_item_scores_below_it(model):
    # Row 0 scores 0; make every item score less.
    query = keras.ops.convert_to_numpy(model.encode({"item_ids": row(history(6, 4))[0]}))[0]
    table = weights_of(model)["item_embedding/table"]
    table[1:] = -query * np.linspace(1, 2, ITEMS)[:, None]
    assert table[1:].dot(query).max() < 0
    load_weights(model, {**weights_of(model), "item_embedding/table": table})
    scores = keras.ops.convert_to_numpy(model._best_items(query[None]))
    assert scores.min() >= 1


def test_training_returns_the_states_alone(model):
    outputs = model({"item_ids": row(history(6, 4))[0]}, training=True)
    assert set(outputs) == {"item_sequence_embedding"}


def test_dropout_differs_from_step_to_step_and_is_off_outside_training(model):
    inputs = {"item_ids": row(history(6, 9))[0]}

    def run(training):
        return keras.ops.convert_to_numpy(
            model(inputs, training=training)["item_sequence_embedding"]
        )

    assert np.abs(run(True) - run(True)).max() > 1e-3
    np.testing.assert_array_equal(run(False), run(False))


class Batches(keras.utils.PyDataset):
    """(x, y, sample_weight) in slices of 16 rows, as a dataset gives them."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return keras.tree.map_structure(lambda a: a[16 * index : 16 * (index + 1)], self.arrays)


def tutorial_batches(users: int = 64):
    """Padded on the right, ready-made negatives, weights 0 on padding; the successor is certain."""
    random = np.random.default_rng(0)
    length = random.integers(4, LENGTH + 1, users)
    first = random.integers(0, ITEMS, users)
    sequence = (first[:, None] + np.arange(LENGTH + 1)) % ITEMS + 1
    is_item = np.arange(LENGTH) < length[:, None]
    item_ids = np.where(is_item, sequence[:, :-1], 0).astype("int32")
    x = {"item_ids": item_ids, "padding_mask": is_item}
    negatives = (sequence[:, 1:] + random.integers(1, ITEMS, (users, LENGTH)) - 1) % ITEMS + 1
    y = {
        "positive_sequence": np.where(is_item, sequence[:, 1:], 0).astype("int32"),
        "negative_sequence": np.where(is_item, negatives, 0).astype("int32"),
    }
    return x, y, is_item.astype("float32")


@pytest.mark.parametrize("keras_loss", [False, True])
def test_the_tutorials_batches_train_and_predict_with_kerass_own_means(keras_loss):
    config = ModelConfig(max_length=LENGTH, width=16, num_blocks=1, dropout=0.0)
    model = SASRec(ITEMS, config, LossConfig(loss="bce"), k=3)
    loss = keras.losses.BinaryCrossentropy(from_logits=True) if keras_loss else None
    model.compile(optimizer=keras.optimizers.Adam(0.02, beta_2=0.98), loss=loss)
    x, y, weights = tutorial_batches()
    losses = model.fit(Batches(x, y, weights), epochs=80, verbose=0).history
    assert losses["loss"][-1] < 0.5 * losses["loss"][0]
    outputs = model.predict(x, verbose=0)
    assert outputs["item_sequence_embedding"].shape == (64, LENGTH, 16)
    last = np.maximum(weights.sum(axis=1).astype(int) - 1, 0)
    truth = y["positive_sequence"][np.arange(64), last]
    assert np.mean((outputs["predictions"] == truth[:, None]).any(axis=1)) > 0.8


def test_a_compiled_keras_loss_averages_over_real_targets_and_takes_the_penalty():
    x, y, weights = tutorial_batches()
    config = ModelConfig(max_length=LENGTH, width=8, num_blocks=1, dropout=0.0)

    def loss(keras_loss, l2=0.0):
        model = SASRec(ITEMS, config, LossConfig(loss="bce", l2=l2))
        model.compile(loss=keras_loss)
        return model.evaluate(Batches(x, y, weights), verbose=0)

    keras_bce = keras.losses.BinaryCrossentropy(from_logits=True)
    assert loss(keras_bce) == pytest.approx(loss(None), rel=1e-5)
    assert loss(keras_bce, l2=0.5) == pytest.approx(loss(None, l2=0.5), rel=1e-5)
    assert loss(None, l2=0.5) > loss(None) + 1e-3


def test_a_compiled_keras_loss_without_negatives_is_refused():
    x, y, weights = tutorial_batches()
    model = SASRec(ITEMS, ModelConfig(max_length=LENGTH, width=8))
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(Exception, match="needs one negative for each target"):
        model.evaluate(
            Batches(x, {"positive_sequence": y["positive_sequence"]}, weights), verbose=0
        )


def test_kerass_file_format_restores_the_model(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    items = row(history(6, 9))[0]
    np.testing.assert_allclose(states(again, items), states(model, items), atol=1e-6)
    assert again.settings == model.settings
    assert again.loss_settings == model.loss_settings


def test_weights_have_stable_names_and_go_back_where_they_were(model):
    other = SASRec(ITEMS, model.settings, seed=9)
    assert weights_of(other).keys() == weights_of(model).keys()
    assert "block_0/attention/projection/kernel" in weights_of(model)
    assert "block_1/feedforward_norm/gamma" in weights_of(model)
    load_weights(other, weights_of(model))
    items = row(history(6, 9))[0]
    np.testing.assert_array_equal(states(other, items), states(model, items))
