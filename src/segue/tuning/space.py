"""What a search varies: a few fields of a preset, around the values that it has."""

from collections.abc import Mapping
from dataclasses import dataclass

from segue.config import Config

Value = int | float

RATE_FACTOR = 5.0
MAX_RATE = 10.0  # that of the configuration
MAX_DROPOUT = 0.6
HEADS_FIELD, HEADS = "num_heads", (1, 2, 4)


@dataclass(frozen=True)
class Range:
    """Every number between two, both among them; evenly in the logarithm where `is_log`."""

    low: float
    high: float
    is_log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of these numbers."""

    values: tuple[int, ...]


Space = Mapping[str, Range | Choice]


def space_of(config: Config) -> Space:
    """The fields searched, by name; the preset's own values are always among them.

    The rate reaches from a fifth to five times its own value, dropout from 0 to 0.6; width and
    batch size may halve or double; there may be a block less or more. Heads are 1, 2 or 4 where
    every width can be divided by them, and stay as they are in an encoder that has none.
    """
    model, training = config.model, config.training
    widths = _around(model.width, model.width_unit)
    space: dict[str, Range | Choice] = {
        "learning_rate": Range(
            training.learning_rate / RATE_FACTOR,
            min(MAX_RATE, training.learning_rate * RATE_FACTOR),
            is_log=True,
        ),
        "dropout": Range(0.0, max(MAX_DROPOUT, model.dropout)),
        "width": Choice(widths),
        "num_blocks": Choice(tuple(range(max(1, model.num_blocks - 1), model.num_blocks + 2))),
        "batch_size": Choice(_around(training.batch_size)),
    }
    values = model.model_dump()
    if HEADS_FIELD in values:
        unit = model.width_unit // values[HEADS_FIELD]  # of one head
        heads = {count for count in HEADS if not any(width % (count * unit) for width in widths)}
        space[HEADS_FIELD] = Choice(tuple(sorted(heads | {values[HEADS_FIELD]})))
    return space


def values_of(config: Config, space: Space) -> dict[str, Value]:
    """The values that a configuration has of the fields searched."""
    every = {**config.model.model_dump(), **config.training.model_dump()}
    return {name: every[name] for name in space}


def with_values(config: Config, values: Mapping[str, Value]) -> Config:
    """The configuration with these values of fields."""
    return config.with_settings(f"{name}={value!r}" for name, value in values.items())


def _around(value: int, divisor: int = 1) -> tuple[int, ...]:
    """Half, whole and double, all of them divisible and at least 1."""
    half = value // 2
    return tuple(each for each in (half, value, 2 * value) if each and not each % divisor)
