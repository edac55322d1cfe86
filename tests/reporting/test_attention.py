import numpy as np
import pytest

from segue.config import ModelConfig
from segue.data.columns import Columns
from segue.errors import RequestError
from segue.model import attention
from segue.model.keras_model import SASRec
from segue.model.weights import to_array
from segue.reporting.attention import last_attention


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
    weights = last_attention(model, Columns(items[None]))
    assert weights.shape == (5,)
    assert weights.sum() == pytest.approx(1)
    assert weights.std() > 0.01

    # Where a head's values are one number at one place and 0 elsewhere, training's attention puts
    # out the weight of that place.
    seen = []
    original = attention.attention

    def with_places(query, key, value, *rest):
        for place in range(5):
            at_place = np.zeros(value.shape, np.float32)
            at_place[:, place] = 1
            seen.append(to_array(original(query, key, at_place, *rest))[:, -1, 0])
        return original(query, key, value, *rest)

    monkeypatch.setattr(attention, "attention", with_places)
    model({"item_ids": items[None]})
    assert weights == pytest.approx(np.mean(seen[-5:], axis=1), rel=1e-4, abs=1e-5)


def test_a_recurrent_network_attends_to_nothing():
    settings = ModelConfig(encoder="gru4rec", max_length=8, width=12, num_blocks=1)
    recurrent = SASRec(20, settings, seed=3)
    assert not recurrent.is_attentive
    assert SASRec(20, ModelConfig(max_length=8, width=12), seed=3).is_attentive
    with pytest.raises(RequestError, match="encoder=gru4rec does not attend"):
        recurrent.last_attention({"item_ids": np.ones((1, 3), np.int32)})
