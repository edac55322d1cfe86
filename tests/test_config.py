import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from segue.config import (
    DEFAULT_PRESET,
    ENCODERS,
    LOSSES,
    PRESETS,
    TOWERS,
    Config,
    LossConfig,
    ModelConfig,
    Registry,
    TowerConfig,
    TrainingConfig,
    config_of_run,
    load_preset,
    preset_text,
)
from segue.errors import ConfigError
from segue.model.encoders.transformer import DropoutPlace

SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelConfig,
    "items": TowerConfig,
    "loss": LossConfig,
    "training": TrainingConfig,
}


def write_preset(directory: Path, text: str) -> Path:
    path = directory / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_knows_its_name(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert Config.model_validate(preset.model_dump()) == preset


def test_the_tutorial_preset_has_the_figures_of_the_reference() -> None:
    preset = load_preset("tutorial")
    model, loss, training = preset.model, preset.loss, preset.training
    assert (model.max_length, model.width, model.num_blocks, model.num_heads) == (200, 50, 2, 1)
    assert (model.dropout, model.feedforward_width) == (0.2, None)
    assert (loss.loss, loss.negatives, loss.sampling) == ("bce", 1, "uniform")
    assert (loss.exclude_history, loss.l2) == (True, 0.0)
    assert (training.epochs, training.batch_size) == (10, 128)
    assert (training.learning_rate, training.beta_2) == (0.001, 0.98)
    assert (training.warmup_steps, training.schedule) == (0, "constant")


def test_the_default_preset_trains_on_the_whole_catalogue() -> None:
    assert load_preset(DEFAULT_PRESET).loss.loss == "softmax"


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_penalises_the_item_table(name: str) -> None:
    assert load_preset(name).loss.l2 == 0.0


def test_no_two_sections_share_a_field_name() -> None:
    homes: dict[str, set[str]] = {}
    for section, registry in (("model", ENCODERS), ("items", TOWERS), ("loss", LOSSES)):
        for name in registry.names():
            for field in registry[name].Settings.model_fields:
                homes.setdefault(field, set()).add(section)
    for field in TrainingConfig.model_fields:
        homes.setdefault(field, set()).add("training")
    assert {field: where for field, where in homes.items() if len(where) > 1} == {}


def test_the_sections_are_those_of_a_configuration() -> None:
    found = {name: field.annotation for name, field in Config.model_fields.items()}
    assert {name: kind for name, kind in found.items() if name != "name"} == SECTIONS


@pytest.mark.parametrize("key", ["epochs", "training.epochs", " training.epochs "])
def test_a_setting_is_named_bare_or_with_its_section(key: str) -> None:
    assert Config().with_settings([f"{key}=5"]).training.epochs == 5


def test_settings_leave_everything_else_as_it_was() -> None:
    before = load_preset("sasrec-paper")
    after = before.with_settings(["epochs=5", "loss=gbce", "model.width=64"])
    expected = before.model_dump()
    expected["training"]["epochs"] = 5
    expected["loss"] |= {"loss": "gbce", "gbce_t": 0.75}
    expected["model"]["width"] = 64
    assert after.model_dump() == expected
    assert before == PRESETS["sasrec-paper"]


def test_of_two_values_for_one_setting_the_last_counts() -> None:
    assert Config().with_settings(["epochs=5", "training.epochs=6"]).training.epochs == 6


def test_no_settings_change_nothing() -> None:
    assert Config().with_settings([]) == Config()


@pytest.mark.parametrize(
    ("setting", "section", "field", "value"),
    [
        ("dropout=0.5", "model", "dropout", 0.5),
        ("learning_rate=1e-4", "training", "learning_rate", 1e-4),
        ("learning_rate=1", "training", "learning_rate", 1.0),
        ("packed=false", "training", "packed", False),
        ("patience=3", "training", "patience", 3),
        ("patience=none", "training", "patience", None),
        ("feedforward_width=None", "model", "feedforward_width", None),
        ("schedule=constant", "training", "schedule", "constant"),
        ('schedule="constant"', "training", "schedule", "constant"),
        ('dropout_places=["output", "inner"]', "model", "dropout_places", ("inner", "output")),
        ("dropout_places=[]", "model", "dropout_places", ()),
    ],
)
def test_values_are_read_as_toml_or_as_bare_words(
    setting: str, section: str, field: str, value: object
) -> None:
    config = Config().with_settings([setting])
    assert getattr(getattr(config, section), field) == value


@pytest.mark.parametrize(
    "key", ["epoch", "training.epoch", "model.epochs", "trainin.epochs", "a.b.c"]
)
def test_an_unknown_key_is_refused_with_those_that_exist(key: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(key))) as caught:
        Config().with_settings([f"{key}=5"])
    assert "training.epochs" in str(caught.value)


@pytest.mark.parametrize("setting", ["epochs", "=5", ""])
def test_a_setting_without_key_or_value_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="is not key=value; write for example epochs=10"):
        Config().with_settings([setting])


@pytest.mark.parametrize(
    ("setting", "where", "received"),
    [
        ("epochs=0", "training.epochs", "0"),
        ("epochs=1.5", "training.epochs", "1.5"),
        ("epochs=many", "training.epochs", "'many'"),
        ("dropout=1.0", "model.dropout", "1.0"),
        ("dropout=nan", "model.dropout", "nan"),
        ('dropout_places=["input"]', "model.dropout_places.0", "'input'"),
        ("learning_rate=inf", "training.learning_rate", "inf"),
        ("learning_rate=-1", "training.learning_rate", "-1"),
        ("seed=2147483648", "training.seed", "2147483648"),
        ("encoder=gru", "model.encoder", "'gru'"),
        ("loss=hinge", "loss.loss", "'hinge'"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_and_value(
    setting: str, where: str, received: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Config().with_settings([setting])
    message = str(caught.value)
    assert message.startswith(f"--set {setting}: {where}: ")
    assert message.endswith(f"got {received}")
    assert "\n" not in message


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="width=128 is not a multiple of num_heads=3; choose"):
        Config().with_settings(["num_heads=3"])


def test_negatives_shared_by_a_batch_cannot_spare_one_users_history() -> None:
    with pytest.raises(ConfigError, match="exclude_history=true cannot hold with"):
        Config().with_settings(["loss=bce", "negatives_per=batch", "exclude_history=true"])


def test_a_setting_of_another_loss_is_refused_with_the_losses_that_have_it():
    with pytest.raises(ConfigError, match="unknown setting 'gbce_t', which belongs to loss=gbce;"):
        Config().with_settings(["gbce_t=0.5"])
    with pytest.raises(ConfigError, match=r"--set .*: loss.gbce_t: .*got 1\.5"):
        Config().with_settings(["loss=gbce", "gbce_t=1.5"])


def test_another_encoder_takes_over_what_it_has_of_the_settings_and_leaves_the_rest():
    after = load_preset("sasrec").with_settings(["encoder=gru4rec", "width=32"])
    assert (after.model.encoder, after.model.width, after.model.dropout) == ("gru4rec", 32, 0.3)
    assert "positions" not in after.model.model_dump()


def test_a_registry_refuses_an_unknown_name_with_the_known_ones():
    registry: Registry[str] = Registry("colour", "json")
    registry.register("red")("#f00")
    assert registry["red"] == "#f00"
    with pytest.raises(ConfigError, match=r"^colour must be one of red, got 'blue'$"):
        registry["blue"]


def test_a_registry_refuses_a_second_choice_of_one_name():
    with pytest.raises(ConfigError, match=r"^the loss 'softmax' exists already \(segue\.model\."):

        @LOSSES.register("softmax")
        class Mine: ...

    assert LOSSES["softmax"].__module__ == "segue.model.losses.softmax"


def test_a_class_that_is_defined_again_takes_its_own_place():
    registry: Registry[type] = Registry("colour", "json")

    def define() -> type:
        @registry.register("red")
        class Red: ...

        return Red

    define()
    again = define()
    assert registry["red"] is again


# What version 0.1 wrote into config.json, for every encoder and loss alike.
STORED_BY_0_1 = {
    "name": "gru4rec",
    "model": {
        "encoder": "gru4rec",
        "max_length": 200,
        "width": 128,
        "num_blocks": 1,
        "num_heads": 1,
        "feedforward_width": None,
        "positions": "learned",
        "scale_embedding": True,
        "dropout": 0.2,
        "dropout_places": None,
    },
    "loss": {
        "loss": "softmax",
        "negatives": 1,
        "sampling": "uniform",
        "negatives_per": "target",
        "exclude_history": False,
        "gbce_t": 0.75,
        "l2": 0.0,
    },
    "training": {"epochs": 20},
}


def test_a_configuration_that_version_0_1_stored_is_read():
    assert config_of_run(STORED_BY_0_1) == load_preset("gru4rec")


def test_a_stored_configuration_with_an_unknown_setting_is_refused():
    model = {**STORED_BY_0_1["model"], "heads": 2}
    with pytest.raises(ValueError, match="heads"):
        config_of_run({**STORED_BY_0_1, "model": model})


def test_a_message_names_the_settings_however_they_are_given() -> None:
    with pytest.raises(ConfigError, match="--set epochs=0: "):
        Config().with_settings(setting for setting in ["epochs=0"])


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().training.epochs = 5


def test_a_preset_file_builds_on_the_default_preset(tmp_path: Path) -> None:
    config = load_preset(write_preset(tmp_path, "[training]\nepochs = 3\n"))
    expected = PRESETS[DEFAULT_PRESET].model_dump()
    expected["name"] = "mine"
    expected["training"]["epochs"] = 3
    assert config.model_dump() == expected


def test_a_preset_file_may_name_another_base_and_itself(tmp_path: Path) -> None:
    path = write_preset(tmp_path, 'base = "tutorial"\nname = "small"\n[model]\nwidth = 16\n')
    config = load_preset(path)
    expected = PRESETS["tutorial"].model_dump()
    expected["name"] = "small"
    expected["model"]["width"] = 16
    assert config.model_dump() == expected


def test_an_unknown_preset_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'sasrek'; the presets are sasrec, "):
        load_preset("sasrek")


def test_a_missing_preset_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no preset file at .*none\.toml; check the path"):
        load_preset(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[training]\nepoch = 3", "unknown setting 'training.epoch'; the settings are "),
        ("[trainin]\nepochs = 3", "unknown setting 'trainin'; the settings are "),
        ("[training]\nepochs = 0", "training.epochs: .*got 0"),
        ("training = 3", r"training must be a table \[training\] of settings, got 3"),
        ("name = 3", "name: .*got 3"),
        ("[model]\nnum_heads = 3", "model: width=128 is not a multiple of num_heads=3"),
        ("epochs 3", "cannot read the preset file .*line 1"),
        ('base = "sasrek"', "base = 'sasrek'; the presets are sasrec, "),
        ("base = [1]", r"base = \[1\]; the presets are sasrec, "),
    ],
)
def test_a_preset_file_that_is_wrong_is_refused_in_one_line(
    tmp_path: Path, text: str, told: str
) -> None:
    path = write_preset(tmp_path, text)
    with pytest.raises(ConfigError, match=told) as caught:
        load_preset(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_preset_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"cannot read the preset file .*mine\.toml"):
        load_preset(path)


@pytest.mark.parametrize(
    "setting", ["num_heads=2", "feedforward_width=64", "positions=both", "positions=from_end"]
)
def test_a_recurrent_encoder_refuses_what_it_has_not(setting):
    field = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=f"unknown setting '{field}', which belongs to encoder="):
        load_preset("gru4rec").with_settings([setting])


@pytest.mark.parametrize("place", ["attention", "attended", "inner"])
def test_a_recurrent_encoder_refuses_dropout_where_it_has_nothing(place):
    with pytest.raises(ConfigError, match=f"should be 'embedding' or 'output', got '{place}'"):
        load_preset("gru4rec").with_settings([f'dropout_places=["{place}"]'])


def test_dropout_is_where_the_encoder_has_it_unless_places_are_named():
    def places(**settings):
        config = ModelConfig(dropout=0.4, **settings)
        rates = {place: config.dropout_at(place) for place in get_args(DropoutPlace)}
        assert set(rates.values()) <= {0.0, 0.4}
        return [place for place, rate in rates.items() if rate]

    assert places() == places(encoder="esasrec") == ["embedding", "attention", "attended", "output"]
    # As the code of Kang & McAuley: modules.py drops out the weights and the feed-forward's two
    # maps, not what the attention gives.
    assert places(encoder="sasrec-original") == ["embedding", "attention", "inner", "output"]
    assert places(encoder="gru4rec") == ["embedding", "output"]
    assert places(dropout_places=("inner",)) == ["inner"]
    assert places(dropout_places=()) == []


def test_rotary_positions_need_an_even_number_a_head():
    with pytest.raises(ConfigError, match=r"width=30 in num_heads=2 leaves 15 a head; choose an e"):
        Config().with_settings(["positions=rotary", "width=30", "num_heads=2"])


@pytest.mark.parametrize("name", PRESETS)
def test_the_text_of_a_preset_reads_back_as_the_configuration(name, tmp_path):
    path = tmp_path / f"{PRESETS[name].name}.toml"
    path.write_text(preset_text(PRESETS[name]))
    assert load_preset(path) == PRESETS[name]


def test_the_text_of_a_preset_holds_lists(tmp_path):
    config = Config(name="mine").with_settings(['dropout_places=["embedding", "output"]'])
    path = write_preset(tmp_path, preset_text(config))
    assert load_preset(path) == config
