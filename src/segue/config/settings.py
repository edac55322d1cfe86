"""What a run is made of: frozen settings, their limits, and the named presets.

Every field name is unique across the sections, so `--set epochs=5` and `--set training.epochs=5`
mean the same. A preset file is TOML with the same sections and may name another preset as `base`.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from segue.errors import ConfigError

# The items put in, attention's weights, what attention gives, within the feed-forward, and what a
# block's last part gives.
DropoutPlace = Literal["embedding", "attention", "attended", "inner", "output"]

# Where each encoder drops out unless told: as its paper's code; esasrec as sasrec.
DROPOUT_PLACES: dict[str, tuple[DropoutPlace, ...]] = {
    "sasrec": ("embedding", "attention", "attended", "output"),
    "sasrec-original": ("embedding", "attention", "inner", "output"),
    "esasrec": ("embedding", "attention", "attended", "output"),
    "gru4rec": ("embedding", "output"),
}


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelConfig(Section):
    """The encoder: causal blocks over a tied item table.

    `sasrec` has the pre-norm Transformer blocks of Kang & McAuley (2018), `sasrec-original` those
    of the code they published, which carries normalised states on; `esasrec` has gated ones with a
    SwiGLU, `gru4rec` the recurrent layers of Hidasi et al. (2016), without heads, feed-forward or
    positions.
    """

    encoder: Literal["sasrec", "sasrec-original", "esasrec", "gru4rec"] = "sasrec"
    max_length: int = Field(default=200, ge=1, le=10_000, description="items of a window")
    width: int = Field(default=128, ge=1, le=8_192, description="of the item table and the states")
    num_blocks: int = Field(default=2, ge=1, le=64)
    num_heads: int = Field(default=1, ge=1, le=64)
    feedforward_width: int | None = Field(
        default=None, ge=1, description="None: width, twice it in esasrec"
    )
    positions: Literal["learned", "from_end", "rotary", "both"] = Field(
        default="learned",
        description="learned: added to the items; from_end: the same, counted from the newest item "
        "as SASRec's code does; rotary: how far apart items are, in attention; both: learned and "
        "rotary",
    )
    scale_embedding: bool = Field(
        default=True, description="item embeddings times sqrt(width) at the input, as SASRec's code"
    )
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    dropout_places: tuple[DropoutPlace, ...] | None = Field(
        default=None,
        strict=False,
        description="embedding, attention, attended, inner, output; None: the encoder's own",
    )

    def dropout_at(self, place: DropoutPlace) -> float:
        """The rate at that place, 0 where nothing is dropped out."""
        chosen = self.dropout_places
        places = DROPOUT_PLACES[self.encoder] if chosen is None else chosen
        return self.dropout if place in places else 0.0

    @property
    def is_rotary(self) -> bool:
        """Whether attention knows how far apart two items are."""
        return self.positions in ("rotary", "both")

    @field_validator("dropout_places")
    @classmethod
    def _each_place_once(
        cls, places: tuple[DropoutPlace, ...] | None
    ) -> tuple[DropoutPlace, ...] | None:
        """In one order, so that equal settings are equal."""
        if places is None:
            return None
        return tuple(each for each in get_args(DropoutPlace) if each in places)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "ModelConfig":
        if self.width % self.num_heads:
            raise ValueError(
                f"width={self.width} is not a multiple of num_heads={self.num_heads}; "
                "choose a width that the heads divide"
            )
        if self.is_rotary and self.width // self.num_heads % 2:
            raise ValueError(
                f"positions={self.positions} turns pairs of numbers, and width={self.width} in "
                f"num_heads={self.num_heads} leaves {self.width // self.num_heads} a head; "
                "choose an even number a head"
            )
        return self

    @model_validator(mode="after")
    def _recurrent_layers_have_no_heads(self) -> "ModelConfig":
        has_more = self.num_heads != 1 or self.feedforward_width is not None
        if self.encoder == "gru4rec" and (has_more or self.positions != "learned"):
            raise ValueError(
                f"num_heads={self.num_heads}, feedforward_width={self.feedforward_width} and "
                f"positions={self.positions} mean nothing to encoder=gru4rec, which has none of "
                "them; leave them at 1, none and learned"
            )
        places = DROPOUT_PLACES["gru4rec"]
        if self.encoder == "gru4rec" and not set(self.dropout_places or ()) <= set(places):
            raise ValueError(
                f"dropout_places={list(self.dropout_places or ())} names what encoder=gru4rec has "
                f"not; it has {' and '.join(places)}"
            )
        return self


class LossConfig(Section):
    """What is minimised, over real targets only."""

    loss: Literal["softmax", "sampled_softmax", "bce", "gbce"] = "softmax"
    negatives: int = Field(default=1, ge=1, le=100_000, description="of a draw; softmax uses none")
    sampling: Literal["uniform", "popularity", "in_batch"] = Field(
        default="uniform",
        description="in_batch: among the batch's targets; with exclude_history any item where the "
        "user knows them all",
    )
    negatives_per: Literal["target", "row", "batch"] = Field(
        default="target", description="what has a draw of its own; the targets in it share it"
    )
    exclude_history: bool = Field(
        default=False, description="never draw an item of the user's history"
    )
    gbce_t: float = Field(default=0.75, ge=0.0, le=1.0, description="gBCE's calibration t")
    l2: float = Field(
        default=0.0, ge=0.0, description="penalty on the item table's squared entries"
    )

    @property
    def is_of_few_items(self) -> bool:
        """Whether a batch's loss depends on the items in it alone, not on the whole catalogue."""
        return self.loss != "softmax" and not self.l2

    @model_validator(mode="after")
    def _shared_negatives_know_no_user(self) -> "LossConfig":
        if self.negatives_per != "target" and self.exclude_history:
            raise ValueError(
                f"exclude_history=true cannot hold with negatives_per={self.negatives_per}, whose "
                "negatives serve several users; set negatives_per=target or exclude_history=false"
            )
        return self


class TrainingConfig(Section):
    """How long, how fast, from which seed.

    `batch_size` counts windows. Where they are packed, its rows are rounded up to a multiple of
    four: 16 windows of MovieLens-1M become 12 rows, which hold about 22.
    """

    epochs: int = Field(default=30, ge=1, le=100_000)
    batch_size: int = Field(default=128, ge=1, le=1_000_000)
    learning_rate: float = Field(default=2e-3, gt=0.0, le=10.0)
    beta_2: float = Field(default=0.98, ge=0.0, lt=1.0)
    warmup_steps: int = Field(
        default=100, ge=0, description="over which the rate rises; a tenth of all steps at most"
    )
    schedule: Literal["constant", "cosine"] = "cosine"
    averaging: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="a step's share of the weights' running average that is kept; 0: no average",
    )
    packed: bool = Field(default=True, description="several windows in a row")
    windows: Literal["newest", "all"] = Field(
        default="newest", description="a user's newest items, or all of them, window after window"
    )
    validate_every: int = Field(default=2, ge=1, description="epochs between validations")
    patience: int | None = Field(
        default=None, ge=1, description="validations without a better NDCG@10"
    )
    seed: int = Field(default=0, ge=0, lt=2**31)


class Config(Section):
    """Everything that decides a run's weights, apart from the log."""

    name: str = "custom"
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()

    def with_settings(self, settings: Iterable[str]) -> "Config":
        """This configuration with `key=value` settings applied.

        Raises:
            ConfigError: a setting is not `key=value`, names no field or is out of range.
        """
        given = list(settings)
        changes: dict[str, dict[str, Any]] = {}
        for setting in given:
            section, field, value = _parse_setting(setting)
            changes.setdefault(section, {})[field] = value
        merged = _merge(self.model_dump(), changes)
        return _validated(merged, f"--set {' '.join(given)}" if changes else "the configuration")


_SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig,
    "loss": LossConfig,
    "training": TrainingConfig,
}

PRESETS: dict[str, Config] = {
    # The Keras tutorial's figures: BCE with one negative, width 50, Adam 1e-3, ten epochs.
    "tutorial": Config(
        name="tutorial",
        model=ModelConfig(width=50, dropout=0.2),
        loss=LossConfig(loss="bce", negatives=1, exclude_history=True),
        training=TrainingConfig(epochs=10, learning_rate=1e-3, warmup_steps=0, schedule="constant"),
    ),
    # Kang & McAuley (2018), section IV-C, for MovieLens-1M; blocks and positions are their code's.
    # Histories are whole: where the paper trains on the newest 200 items alone, HR@10 among 100
    # drawn items falls short of its own (docs/log.md).
    "sasrec-paper": Config(
        name="sasrec-paper",
        model=ModelConfig(encoder="sasrec-original", positions="from_end", width=50, dropout=0.2),
        loss=LossConfig(loss="bce", negatives=1, exclude_history=True),
        training=TrainingConfig(
            epochs=150,
            learning_rate=1e-3,
            warmup_steps=0,
            schedule="constant",
            windows="all",
            validate_every=5,
        ),
    ),
    # Full softmax over the catalogue, rotary positions, small batches: the default.
    "sasrec": Config(
        name="sasrec",
        model=ModelConfig(positions="rotary"),
        training=TrainingConfig(epochs=16, batch_size=16),
    ),
    # eSASRec's blocks (Tikhonovich et al., 2025): gated residuals and SwiGLU.
    "esasrec": Config(
        name="esasrec",
        model=ModelConfig(encoder="esasrec", positions="both"),
        training=TrainingConfig(epochs=12, batch_size=16),
    ),
    # eSASRec at twice the width, over whole histories: the best ranking within an hour on 2 cores.
    "best": Config(
        name="best",
        model=ModelConfig(encoder="esasrec", width=256, num_heads=4, positions="both", dropout=0.4),
        training=TrainingConfig(epochs=12, batch_size=16, windows="all", validate_every=3),
    ),
    # GRU4Rec's recurrent layer (Hidasi et al., 2016) under the default's loss and schedule.
    "gru4rec": Config(
        name="gru4rec",
        model=ModelConfig(encoder="gru4rec", num_blocks=1, dropout=0.2),
        training=TrainingConfig(epochs=20),
    ),
    # The default, smaller: a first look in minutes on a laptop.
    "quick": Config(
        name="quick",
        model=ModelConfig(width=64, positions="rotary", dropout=0.2),
        training=TrainingConfig(epochs=8, batch_size=16),
    ),
}

DEFAULT_PRESET = "sasrec"


def load_preset(name_or_path: str | Path) -> Config:
    """The preset of that name, or the one that a TOML file describes.

    Raises:
        ConfigError: no such preset or file, not TOML, an unknown key or a value out of range.
    """
    if str(name_or_path) in PRESETS:
        return PRESETS[str(name_or_path)]
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise ConfigError(
            f"unknown preset {str(name_or_path)!r}; the presets are {', '.join(PRESETS)}, "
            "or give a .toml file"
        )
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no preset file at {path}; check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the preset file {path}: {error}") from None
    base_name = document.pop("base", DEFAULT_PRESET)
    if not isinstance(base_name, str) or base_name not in PRESETS:
        raise ConfigError(
            f"{path} builds on base = {base_name!r}; the presets are {', '.join(PRESETS)}"
        )
    base = PRESETS[base_name].model_dump()
    return _validated(_merge(base, {"name": path.stem, **document}), str(path))


def preset_text(config: Config) -> str:
    """The configuration as a preset file; what is None is left to the default, None too."""
    lines = []
    for section, values in config.model_dump(mode="json").items():
        if isinstance(values, dict):
            lines.append(f"\n[{section}]")
            lines += [
                f"{key} = {_toml(value)}" for key, value in values.items() if value is not None
            ]
    return "\n".join(lines).strip() + "\n"


def _toml(value: str | float | bool | list[str]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _parse_setting(setting: str) -> tuple[str, str, Any]:
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {setting!r} is not key=value; write for example epochs=10")
    section, field = _locate(key.strip())
    return section, field, _parse_value(text.strip())


def _locate(key: str) -> tuple[str, str]:
    """The section and field that a key, dotted or bare, names."""
    section, dot, field = key.rpartition(".")
    homes = [section] if dot else [name for name in _SECTIONS if key in _fields(name)]
    if len(homes) != 1 or field not in _fields(homes[0]):
        raise ConfigError(f"unknown setting {key!r}; the settings are {_known()}")
    return homes[0], field


def _known() -> str:
    return ", ".join(f"{name}.{each}" for name in _SECTIONS for each in _fields(name))


def _fields(section: str) -> list[str]:
    return list(_SECTIONS[section].model_fields) if section in _SECTIONS else []


def _parse_value(text: str) -> Any:
    """A TOML value where the text is one, else the text itself."""
    if text.lower() == "none":
        return None
    if "\n" in text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, one section deep."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if both else value
    return merged


def _validated(document: Mapping[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"{source}: unknown setting {where!r}; the settings are {_known()}"
            ) from None
        if first["type"] == "model_type":
            raise ConfigError(
                f"{source}: {where} must be a table [{where}] of settings, got {first['input']!r}"
            ) from None
        received = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{source}: {where}: {message}{received}") from None
