import numpy as np
import pytest
from segue.model.sasrec import SASRec

from segue.config import ModelConfig
from segue.model import kernels
from segue.model.weights import to_array
from segue.reporting.attention import has_attention, last_attention


@pytest.mark.parametrize("encoder", ["sasrec", "sasrec-original", "esasrec"])
@pytest.mark.parametrize("positions", ["learned", "from_end", "rotary", "both"])
@pytest.mark.parametrize("num_heads", [1, 2])
def test_the_weights_are_those_that_make_what_the_model_attends_to(
    encoder, positions, num_heads, monkeypatch
):
    settings = ModelConfig(
        encoder=encoder, positions=positions, max_length=8, width=12, num_heads=num_heads
    )
    model = SASRec(20, settings, seed=3)
    for weight in model.trainable_weights:  # so that attention is not flat
        noise = np.random.default_rng(len(weight.path)).normal(0, 1.0, weight.shape)
        weight.assign(noise.astype(np.float32))
    items = np.array([3, 9, 4, 9, 17], np.int32)
    weights = last_attention(model, items)
    assert weights.shape == (5,)
    assert weights.sum() == pytest.approx(1)
    assert weights.std() > 0.01

    # Where a head's values are one number at one place and 0 elsewhere, training's attention puts
    # out the weight of that place.
    seen = []
    original = kernels.attention

    def with_places(query, key, value, *rest):
        for place in range(5):
            at_place = np.zeros(value.shape, np.float32)
            at_place[:, place] = 1
            seen.append(to_array(original(query, key, at_place, *rest))[:, -1, 0])
        return original(query, key, value, *rest)

    monkeypatch.setattr(kernels, "attention", with_places)
    model({"item_ids": items[None]})
    assert weights == pytest.approx(np.mean(seen[-5:], axis=1), abs=1e-5)


def test_a_recurrent_network_attends_to_nothing():
    settings = ModelConfig(encoder="gru4rec", max_length=8, width=12, num_blocks=1)
    assert not has_attention(SASRec(20, settings, seed=3))
    assert has_attention(SASRec(20, ModelConfig(max_length=8, width=12), seed=3))
