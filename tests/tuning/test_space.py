import pytest

from segue.config import PRESETS, Config, ModelConfig
from segue.tuning.space import Choice, Range, space_of, values_of, with_values


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_own_values_are_among_those_searched(name: str) -> None:
    preset = PRESETS[name]
    space = space_of(preset)
    own = values_of(preset, space)
    for field, of in space.items():
        if isinstance(of, Range):
            assert of.low <= own[field] <= of.high
        else:
            assert own[field] in of.values
    assert with_values(preset, own) == preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_width_can_be_divided_by_every_number_of_heads(name: str) -> None:
    space = space_of(PRESETS[name])
    assert ("num_heads" in space) == (name != "gru4rec")
    for width in space["width"].values:  # type: ignore[union-attr]
        for heads in space["num_heads"].values if "num_heads" in space else ():  # type: ignore[union-attr]
            changed = with_values(PRESETS[name], {"width": width, "num_heads": heads})
            assert (changed.model.width, changed.model.model_dump()["num_heads"]) == (width, heads)


def test_the_space_lies_around_the_preset() -> None:
    space = space_of(Config(model=ModelConfig(width=50, num_heads=5, num_blocks=1, dropout=0.7)))
    assert space["width"] == Choice((25, 50, 100))
    assert space["num_heads"] == Choice((1, 5))
    assert space["num_blocks"] == Choice((1, 2))
    assert space["dropout"] == Range(0.0, 0.7)
    assert space["learning_rate"] == Range(2e-3 / 5, 1e-2, is_log=True)
    assert space["batch_size"] == Choice((64, 128, 256))


def test_values_read_back_exactly() -> None:
    values = {"learning_rate": 1.2345678901234567e-05, "dropout": 0.1 + 0.2, "batch_size": 3}
    changed = with_values(Config(), values)
    assert changed.training.learning_rate == values["learning_rate"]
    assert changed.model.dropout == values["dropout"]
    assert changed.training.batch_size == 3


def test_rotary_positions_keep_an_even_number_a_head() -> None:
    model = ModelConfig(width=36, num_heads=2, positions="rotary")
    space = space_of(Config(model=model))
    assert space["width"] == Choice((36, 72))
    assert space["num_heads"] == Choice((1, 2))
