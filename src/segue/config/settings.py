"""The settings of a training, frozen: model, items, loss, training.

The fields of `model`, `items` and `loss` depend on which encoder, tower and loss are chosen: each
brings settings of its own, which `ModelConfig(encoder="esasrec", ...)` finds by the name.
Every field name is unique across the sections, so `--set epochs=5` and `--set training.epochs=5`
mean the same.
"""

import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from segue.config.registry import Registry
from segue.errors import ConfigError

# What can be chosen by name; each choice has its settings as its class attribute `Settings`.
ENCODERS: Registry[Any] = Registry("encoder", "segue.model.encoders")
TOWERS: Registry[Any] = Registry("tower", "segue.model.items")
LOSSES: Registry[Any] = Registry("loss", "segue.model.losses")


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ChosenSection(Section):
    """A section whose fields are those of what one of its fields, `key`, chooses.

    The classes right below this one are made of no instances: `ModelConfig(encoder="gru4rec")` is
    one of the settings of that encoder.
    """

    key: ClassVar[str]
    choices: ClassVar[Registry[Any]]

    def __new__(cls, **values: Any) -> "ChosenSection":
        """An instance of the class that the values choose."""
        if cls._is_open():
            with suppress(ConfigError):  # validation, which follows, refuses an unknown choice
                cls = cls.chosen_by(values)
        return super().__new__(cls)

    @classmethod
    def chosen_by(cls, values: Mapping[str, Any]) -> "type[ChosenSection]":
        """The settings' class of the choice that the values name, or of the default.

        Raises:
            ConfigError: There is no choice of that name.
        """
        name = values.get(cls.key, cls.model_fields[cls.key].default)
        settings: type[ChosenSection] = cls.choices[str(name)].Settings
        return settings

    @classmethod
    def _is_open(cls) -> bool:
        """Whether the class leaves open which choice it describes."""
        return "key" in cls.__dict__

    @model_validator(mode="wrap")
    @classmethod
    def _as_chosen(
        cls, values: Any, handler: ModelWrapValidatorHandler["ChosenSection"]
    ) -> "ChosenSection":
        if isinstance(values, cls) or not cls._is_open() or not isinstance(values, Mapping):
            return handler(values)
        try:
            chosen = cls.chosen_by(values)
        except ConfigError as error:
            message = PydanticCustomError(
                "unknown_choice", "{message}", {"message": _kind_of(error)}
            )
            place = InitErrorDetails(
                type=message, loc=(cls.key,), input=values.get(cls.key), ctx={}
            )
            raise ValidationError.from_exception_data(cls.__name__, [place]) from None
        return chosen.model_validate(values)


class ModelConfig(ChosenSection):
    """The encoder's settings: those that all have, and the chosen one's own.

    Raises:
        ValidationError: A value is out of range, or the encoder does not have the setting.
    """

    key: ClassVar[str] = "encoder"
    choices: ClassVar[Registry[Any]] = ENCODERS

    encoder: str = "sasrec"
    max_length: int = Field(default=200, ge=1, le=10_000, description="items of a window")
    width: int = Field(default=128, ge=1, le=8_192, description="of the item table and the states")
    num_blocks: int = Field(default=2, ge=1, le=64)
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)

    @property
    def wants(self) -> tuple[str, ...]:
        """What the encoder reads in addition to `item_ids`: "timestamps", "asked_at"."""
        return ()

    @property
    def width_unit(self) -> int:
        """What the width must be a multiple of."""
        return 1

    def floats_per_position(self) -> int:
        """How many numbers a training holds at its peak for each position, about.

        By default 24 arrays of the width for each block and 12 more, as measured on
        Transformer blocks: projections, norms and gates of both parts, and their gradients.
        """
        return (24 * self.num_blocks + 12) * self.width


class TowerConfig(ChosenSection):
    """What makes an item's vector: the chosen tower's settings."""

    key: ClassVar[str] = "tower"
    choices: ClassVar[Registry[Any]] = TOWERS

    tower: str = "ids"

    @property
    def content_columns(self) -> tuple[str, ...]:
        """The columns of the catalogue of which the tower is given a vector for each item."""
        return ()

    @property
    def content_numbers(self) -> int:
        """How many numbers such a vector has."""
        return 0


class LossConfig(ChosenSection):
    """What is minimised, over real targets only: the chosen loss's settings."""

    key: ClassVar[str] = "loss"
    choices: ClassVar[Registry[Any]] = LOSSES

    loss: str = "softmax"
    l2: float = Field(
        default=0.0, ge=0.0, description="penalty on the item table's squared entries"
    )


class DrawnLossConfig(LossConfig):
    """The settings of a loss that compares each target with items drawn at random."""

    negatives: int = Field(default=1, ge=1, le=100_000, description="of a draw")
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

    @model_validator(mode="after")
    def _shared_negatives_know_no_user(self) -> "DrawnLossConfig":
        if self.negatives_per != "target" and self.exclude_history:
            raise ValueError(
                f"exclude_history=true cannot hold with negatives_per={self.negatives_per}, whose "
                "negatives serve several users; set negatives_per=target or exclude_history=false"
            )
        return self


class TrainingConfig(Section):
    """How long, how fast, from which seed, on what.

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
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="what the encoder computes in; weights and loss are float32 either way",
    )
    devices: int | None = Field(
        default=None,
        ge=1,
        description="local devices that share a batch; None: as many as pay off",
    )


class Config(Section):
    """Everything that decides a run's weights, apart from the log and the catalogue."""

    name: str = "custom"
    model: SerializeAsAny[ModelConfig] = Field(default_factory=ModelConfig)
    items: SerializeAsAny[TowerConfig] = Field(default_factory=TowerConfig)
    loss: SerializeAsAny[LossConfig] = Field(default_factory=LossConfig)
    training: TrainingConfig = TrainingConfig()

    def with_settings(self, settings: Iterable[str]) -> "Config":
        """This configuration with `key=value` settings applied.

        Raises:
            ConfigError: a setting is not `key=value`, names no field or is out of range.
        """
        given = list(settings)
        parsed = [_parse_setting(setting) for setting in given]
        sections = _sections(self.model_dump(), dict(parsed))
        changes: dict[str, dict[str, Any]] = {}
        for key, value in parsed:
            section, field = _locate(key, sections)
            changes.setdefault(section, {})[field] = value
        source = f"--set {' '.join(given)}" if changes else "the configuration"
        return validated(merged(self.model_dump(), changes), source)


OPEN_SECTIONS: dict[str, type[ChosenSection]] = {
    "model": ModelConfig,
    "items": TowerConfig,
    "loss": LossConfig,
}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, one section deep.

    Where another encoder, tower or loss is chosen, what the base says that it does not have goes.
    """
    result = dict(base)
    for name, value in changes.items():
        before = result.get(name)
        if not (isinstance(value, Mapping) and isinstance(before, Mapping)):
            result[name] = value
            continue
        if name in OPEN_SECTIONS:
            before = _kept(OPEN_SECTIONS[name], before, value)
        result[name] = {**before, **value}
    return result


def _kept(
    section: type[ChosenSection], before: Mapping[str, Any], changes: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What another choice leaves of a section's settings."""
    if changes.get(section.key, before.get(section.key)) == before.get(section.key):
        return before
    try:
        fields = section.chosen_by(changes).model_fields
    except ConfigError:
        return before  # the validation that follows refuses the choice
    return {name: value for name, value in before.items() if name in fields}


def validated(document: Mapping[str, Any], source: str) -> Config:
    """The configuration that a document describes.

    Raises:
        ConfigError: It has an unknown setting or a value out of range; `source` is named.
    """
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(_names_of(_sections(document, {})))
            message = f"unknown setting {where!r}; the settings are {known}"
        elif first["type"] == "model_type":
            message = f"{where} must be a table [{where}] of settings, got {first['input']!r}"
        else:
            received = "" if first["type"] == "value_error" else f", got {first['input']!r}"
            message = f"{where}: {first['msg'].removeprefix('Value error, ')}{received}"
        raise ConfigError(f"{source}: {message}") from None


def _sections(document: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, type[Section]]:
    """The classes of a configuration's sections, as the document and then the settings choose."""
    sections: dict[str, type[Section]] = {}
    for name, section in OPEN_SECTIONS.items():
        values = document.get(name)
        values = dict(values) if isinstance(values, Mapping) else {}
        for key in (section.key, f"{name}.{section.key}"):
            if key in settings:
                values[section.key] = settings[key]
        try:
            sections[name] = section.chosen_by(values)
        except ConfigError:
            sections[name] = section
    return {**sections, "training": TrainingConfig}


def _parse_setting(setting: str) -> tuple[str, Any]:
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {setting!r} is not key=value; write for example epochs=10")
    return key.strip(), _parse_value(text.strip())


def _locate(key: str, sections: Mapping[str, type[Section]]) -> tuple[str, str]:
    """The section and field that a key, dotted or bare, names."""
    section, dot, field = key.rpartition(".")
    homes = [section] if dot else [name for name in sections if key in sections[name].model_fields]
    if len(homes) != 1 or homes[0] not in sections or field not in sections[homes[0]].model_fields:
        raise ConfigError(
            f"unknown setting {key!r}{_owners(field)}; the settings are "
            f"{', '.join(_names_of(sections))}"
        )
    return homes[0], field


def _owners(field: str) -> str:
    """Which encoders, towers or losses have the field; "" where none has."""
    owners = [
        f"{section.key}={name}"
        for section in OPEN_SECTIONS.values()
        for name in section.choices.names()
        if field in section.choices[name].Settings.model_fields
    ]
    return f", which belongs to {' and '.join(owners)}" if owners else ""


def _names_of(sections: Mapping[str, type[Section]]) -> list[str]:
    return [
        f"{name}.{field}" for name, section in sections.items() for field in section.model_fields
    ]


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


def _kind_of(error: ConfigError) -> str:
    """The registry's message without the value, which the place of the error adds."""
    return str(error).rpartition(", got ")[0]
