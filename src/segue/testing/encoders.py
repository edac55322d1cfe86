"""What an encoder promises: see `segue.model.encoders.Encoder`."""

from typing import Any

import numpy as np

from segue.config import LossConfig, ModelConfig
from segue.data.times import UNKNOWN_TIME
from segue.model.sequence_model import SequenceModel
from segue.testing.arrays import Array, as_array, assert_close

NUM_ITEMS, LENGTH = 30, 12


def check_encoder(name: str, **settings: Any) -> None:
    """Holds the registered encoder of that name to what every encoder promises.

    Args:
        name: Its name.
        settings: Its settings; `max_length` at least 12.

    Raises:
        AssertionError: A promise is broken; the line says which.
    """
    model = _model(name, settings)
    assert type(model.settings) is type(model.encoder).Settings, (
        f"ModelConfig(encoder={name!r}) must make the encoder's own settings, made "
        f"{type(model.settings).__name__}"
    )
    _check_causality(model)
    _check_packing(model)
    _check_padding(model)
    _check_last(model)


def _check_causality(model: SequenceModel) -> None:
    inputs = _row((1, LENGTH))
    before = _states(model, inputs)
    for place in (3, 8):
        changed = {name: array.copy() for name, array in inputs.items()}
        changed["item_ids"][0, place:] = changed["item_ids"][0, place:] % NUM_ITEMS + 1
        for column in ("timestamps", "asked_at"):
            changed[column][0, place:] += 1_000
        after = _states(model, changed)
        # When the next item is asked for is known at the place before it, and no earlier.
        assert_close(
            after[:, :place], before[:, :place], "a state must not change with what comes later"
        )
        assert np.abs(after[:, place:] - before[:, place:]).max() > 1e-4, (
            "a state must change with its own item"
        )


def _check_packing(model: SequenceModel) -> None:
    first, second = (1, 5), (2, 6)
    together = _states(model, _row(first, second))
    alone = _states(model, _row(first))[0, :5], _states(model, _row(second))[0, :6]
    assert_close(together[0, :5], alone[0], "the first window of a row must be as it is alone")
    assert_close(together[0, 5:11], alone[1], "the second window of a row must be as it is alone")


def _check_padding(model: SequenceModel) -> None:
    inputs = _row((3, 4))
    before = _states(model, inputs)
    disguised = {name: array.copy() for name, array in inputs.items()}
    disguised["item_ids"][0, 4:] = 9  # items where the segments say padding
    assert_close(_states(model, disguised), before, "what stands on padding must change nothing")


def _check_last(model: SequenceModel) -> None:
    for length in (1, 3, LENGTH):
        inputs = _row((4, length))
        query = as_array(model.encode(_wanted(model, inputs)))[0]
        assert_close(
            query,
            _states(model, inputs)[0, length - 1],
            "`last` must be the state at the last item",
        )


def _model(name: str, settings: dict[str, Any]) -> SequenceModel:
    """A model with weights large enough for every input to matter."""
    model = SequenceModel(NUM_ITEMS, ModelConfig(encoder=name, **settings), LossConfig(), seed=1)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        value = random.normal(size=tuple(variable.shape), scale=0.5)
        variable.assign(value.astype(np.float32))
    return model


def _row(*windows: tuple[int, int]) -> dict[str, Array]:
    """One row of windows, each drawn with a seed and so long, and its columns."""
    names = ("item_ids", "segment_ids")
    row = {name: np.zeros((1, LENGTH), np.int32) for name in names}
    row |= {name: np.full((1, LENGTH), UNKNOWN_TIME, np.int32) for name in _TIMES}
    start = 0
    for number, (seed, length) in enumerate(windows, 1):
        random = np.random.default_rng(seed)
        times = np.cumsum(random.integers(1, 10**6, length + 1))
        here = (0, slice(start, start + length))
        row["item_ids"][here] = random.integers(1, NUM_ITEMS + 1, length)
        row["segment_ids"][here] = number
        row["timestamps"][here] = times[:-1]
        row["asked_at"][here] = times[1:]
        start += length
    return row


_TIMES = ("timestamps", "asked_at")


def _wanted(model: SequenceModel, inputs: dict[str, Array]) -> dict[str, Array]:
    return {name: inputs[name] for name in ("item_ids", "segment_ids", *model.wants)}


def _states(model: SequenceModel, inputs: dict[str, Array]) -> Array:
    outputs = model.call(_wanted(model, inputs))
    return as_array(outputs["item_sequence_embedding"])
