import numpy as np
import pytest
from keras import ops

from segue.config import ModelConfig
from segue.model.sasrec import SASRec
from segue.reporting.attention import has_attention, last_attention


@pytest.mark.parametrize("encoder", ["sasrec", "esasrec"])
@pytest.mark.parametrize("num_heads", [1, 2])
def test_the_weights_make_what_the_model_attends_to(encoder, num_heads):
    settings = ModelConfig(encoder=encoder, max_length=8, width=12, num_heads=num_heads)
    model = SASRec(20, settings, seed=3)
    for weight in model.trainable_weights:  # so that attention is not flat
        noise = np.random.default_rng(len(weight.path)).normal(0, 0.5, weight.shape)
        weight.assign(noise.astype(np.float32))
    items = np.array([3, 9, 4, 9, 17], np.int32)
    weights = last_attention(model, items)
    assert weights.shape == (5,)
    assert weights.sum() == pytest.approx(1)
    assert weights.std() > 0.01

    # Where each position's value is the number of its place, attention gives the mean place.
    attention = model.blocks[-1].attention
    seen = {}

    def with_places(inputs, segment_ids, last_positions):
        kernel = attention.projection.kernel
        seen["inputs"] = inputs
        assert kernel.shape == (12, 36)
        return original(inputs, segment_ids, last_positions)

    original = attention.last
    attention.last = with_places
    model.encode({"item_ids": items[None]})
    inputs = ops.convert_to_numpy(seen["inputs"])[0]
    kernel = ops.convert_to_numpy(attention.projection.kernel)
    bias = ops.convert_to_numpy(attention.projection.bias)
    query, key, _ = np.split(inputs @ kernel + bias, 3, axis=-1)
    width = 12 // num_heads
    expected = np.zeros(5)
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        logits = key[:, part] @ query[-1, part] / np.sqrt(width)
        expected += np.exp(logits) / np.exp(logits).sum() / num_heads
    assert weights == pytest.approx(expected, abs=1e-5)


def test_a_recurrent_network_attends_to_nothing():
    settings = ModelConfig(encoder="gru4rec", max_length=8, width=12, num_blocks=1)
    assert not has_attention(SASRec(20, settings, seed=3))
    assert has_attention(SASRec(20, ModelConfig(max_length=8, width=12), seed=3))
