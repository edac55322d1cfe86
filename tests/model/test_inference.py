"""Histories encoded at a few compiled shapes: as the model encodes them, compiled once each."""

from typing import Literal

import keras
import numpy as np
import pytest

from segue.config import TOWERS, Config, ModelConfig, TowerConfig
from segue.data.columns import Columns
from segue.model.inference import ROW_SIZES, QueryEncoder, compiled
from segue.model.items.ids import IdTower
from segue.model.keras_model import SASRec
from segue.model.sequence_model import build_model

ITEMS, LENGTH = 30, 12
SMALL = ModelConfig(max_length=LENGTH, width=8, num_blocks=2, num_heads=2, dropout=0.5)


@pytest.fixture(params=["learned", "both"])
def model(request) -> SASRec:
    """Weights large enough for every input to matter."""
    keras.utils.set_random_seed(0)
    model = SASRec(ITEMS, SMALL.model_copy(update={"positions": request.param}), seed=1)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=tuple(variable.shape), scale=0.5).astype("float32"))
    return model


def window_of(seed: int, length: int) -> np.ndarray:
    """One history, padded on the right to LENGTH."""
    item_ids = np.zeros((1, LENGTH), dtype="int32")
    item_ids[0, :length] = np.random.default_rng(seed).integers(1, ITEMS + 1, length)
    return item_ids


def test_the_encoder_pads_to_fixed_shapes_and_encodes_as_the_model_does(model):
    encoder = QueryEncoder(model)
    windows = np.stack([window_of(at, at % LENGTH + 1)[0] for at in range(150)])
    windows[7] = 0
    expected = keras.ops.convert_to_numpy(model.encode({"item_ids": windows}))
    received = encoder(Columns(windows))
    np.testing.assert_allclose(received, expected, atol=1e-5)
    assert not received[7].any()


def test_the_encoder_compiles_each_shape_once():
    if keras.backend.backend() != "jax":
        pytest.skip("counts JAX's traces")
    model = SASRec(ITEMS, ModelConfig(max_length=40, width=8, num_blocks=1))
    traced = []

    def count(inputs):
        traced.append(inputs["item_ids"].shape)
        return model.encode(inputs)

    encoder = QueryEncoder(model)
    encoder._encode = compiled(model, count)
    for rows in (1, 2, 5, 8, 30, 128, 300):
        for length in (1, 16, 17, 33, 40):
            encoder(Columns(np.ones((rows, length), dtype="int32")))
    assert sorted(set(traced)) == sorted(traced)
    assert set(traced) <= {(rows, length) for rows in ROW_SIZES for length in (16, 32, 40)}


def test_short_windows_among_long_ones_are_encoded_apart_from_them():
    model = SASRec(ITEMS, ModelConfig(max_length=40, width=8, num_blocks=1), seed=3)
    windows = np.random.default_rng(0).integers(1, ITEMS + 1, (256, 40)).astype("int32")
    windows[::2, 9:] = 0
    encoder = QueryEncoder(model)
    alone = np.concatenate([encoder(Columns(window[None])) for window in windows])
    encode, shapes = encoder._encode, []
    encoder._encode = lambda inputs: shapes.append(inputs["item_ids"].shape) or encode(inputs)
    np.testing.assert_allclose(encoder(Columns(windows)), alone, atol=1e-5)
    assert shapes == [(128, 16), (128, 40)]


def test_models_of_one_make_share_what_was_compiled_but_not_their_weights():
    if keras.backend.backend() != "jax":
        pytest.skip("counts JAX's compilations")
    import jax

    compiled_for: list[str] = []

    def listen(event: str, seconds: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled_for.append(event)

    window = window_of(6, 9)
    first, second = (SASRec(ITEMS, SMALL, seed=seed) for seed in (1, 2))
    encoders = [QueryEncoder(first), QueryEncoder(second, is_final=True)]
    encoders[0](Columns(window))
    # What Keras computes one by one is compiled here, before anything is counted.
    expected = [keras.ops.convert_to_numpy(m.encode({"item_ids": window})) for m in (first, second)]
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        received = [encoder(Columns(window)) for encoder in encoders]
        assert compiled_for == []
        QueryEncoder(SASRec(ITEMS + 1, SMALL))(Columns(window))  # of another make
        assert compiled_for
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    np.testing.assert_allclose(received[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(received[1], expected[1], atol=1e-5)
    assert not np.allclose(received[0], received[1], atol=1e-2)


class ScaledConfig(TowerConfig):
    tower: Literal["scaled"] = "scaled"
    scale: float = 1.0


@TOWERS.register("scaled")
class ScaledTower(IdTower):
    """The vectors of `ids`, times a number that is no variable."""

    Settings = ScaledConfig

    def __init__(self, settings, num_items, width, catalogue, seed) -> None:
        super().__init__(settings, num_items, width, catalogue, seed)
        self.scale = settings.scale

    def vectors(self, item_ids, arrays=None):
        return self.scale * super().vectors(item_ids, arrays)


def test_towers_of_other_settings_share_nothing_that_was_compiled():
    config = Config(model=SMALL)
    models = [
        build_model(ITEMS, config.model_copy(update={"items": ScaledConfig(scale=scale)}))
        for scale in (1.0, 100.0)
    ]
    window = window_of(6, 9)
    encoders = [QueryEncoder(model) for model in models]
    for model, encoder in zip(models, encoders, strict=True):
        expected = keras.ops.convert_to_numpy(model.encode({"item_ids": window}))
        np.testing.assert_allclose(encoder(Columns(window)), expected, atol=1e-5)


def test_an_encoder_of_a_model_in_training_follows_its_weights(model):
    window = window_of(6, 9)
    encoder = QueryEncoder(model)
    before = encoder(Columns(window))
    table = model.tower.arrays()["table"]
    table.assign(-table.value)
    after = encoder(Columns(window))
    expected = keras.ops.convert_to_numpy(model.encode({"item_ids": window}))
    np.testing.assert_allclose(after, expected, atol=1e-5)
    assert not np.allclose(before, after, atol=1e-3)
