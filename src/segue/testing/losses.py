"""What a loss promises: see `segue.model.losses.Loss`."""

from typing import Any

import numpy as np

from segue.config import LOSSES, DrawnLossConfig, LossConfig
from segue.testing.arrays import Array, assert_close, value_and_gradients

ROWS, LENGTH, WIDTH, NUM_ITEMS = 3, 6, 5, 11
STEP = 1e-2  # of the finite differences, in float32


def check_loss(name: str, **settings: Any) -> None:
    """Holds the registered loss of that name to what every loss promises.

    Args:
        name: Its name.
        settings: Its settings.

    Raises:
        AssertionError: A promise is broken; the line says which.
    """
    config = LossConfig(loss=name, **settings)
    loss = LOSSES[name](config)
    assert type(config) is type(loss).Settings, (
        f"LossConfig(loss={name!r}) must make the loss's own settings, made {type(config).__name__}"
    )
    states, table, targets, weights, negatives = _batch(config)

    def value_of(states: Any, table: Any) -> Any:
        return loss(states, table, targets, weights, negatives=negatives, num_items=NUM_ITEMS)

    value, slopes = value_and_gradients(value_of, states, table)
    assert np.isfinite(value), f"the loss must be finite, got {value}"
    _check_slopes(value_of, (states, table), slopes)
    assert not slopes[1][0].any(), "padding, row 0 of the table, must get no gradient"
    assert not slopes[0][weights == 0].any(), "a position without a target must get no gradient"
    elsewhere = states.copy()
    elsewhere[weights == 0] += 5.0
    other, _ = value_and_gradients(value_of, elsewhere, table)
    assert_close(np.array(other), np.array(value), "a position without a target must not count")
    assert loss.bytes(NUM_ITEMS, ROWS * LENGTH, WIDTH) >= 0, "bytes must be at least 0"


def _batch(config: LossConfig) -> tuple[Array, Array, Array, Array, Array | None]:
    random = np.random.default_rng(0)
    states = random.normal(size=(ROWS, LENGTH, WIDTH)).astype(np.float32)
    table = random.normal(size=(NUM_ITEMS + 1, WIDTH)).astype(np.float32)
    targets = random.integers(1, NUM_ITEMS + 1, (ROWS, LENGTH)).astype(np.int32)
    weights = np.ones((ROWS, LENGTH), np.float32)
    weights[0, 4:] = 0.0
    targets[weights == 0] = 0
    negatives = None
    if isinstance(config, DrawnLossConfig):
        shapes = {
            "target": (ROWS, LENGTH, config.negatives),
            "row": (ROWS, 1, config.negatives),
            "batch": (config.negatives,),
        }
        shape = shapes[config.negatives_per]
        negatives = random.integers(1, NUM_ITEMS + 1, shape).astype(np.int32)
        if config.negatives_per == "target":
            negatives[weights == 0] = 0
    return states, table, targets, weights, negatives


def _check_slopes(value_of: Any, arrays: tuple[Array, Array], slopes: list[Array]) -> None:
    """The slopes in a few directions, against finite differences."""
    random = np.random.default_rng(1)
    for number, (array, slope) in enumerate(zip(arrays, slopes, strict=True)):
        for _ in range(3):
            direction = random.normal(size=array.shape).astype(np.float32)
            if number == 1:
                direction[0] = 0.0  # of padding
            ends = []
            for sign in (1, -1):
                moved = [*arrays]
                moved[number] = array + np.float32(sign * STEP) * direction
                ends.append(value_and_gradients(value_of, *moved)[0])
            expected = (ends[0] - ends[1]) / (2 * STEP)
            received = float((slope * direction).sum())
            assert abs(received - expected) < 2e-3 + 2e-2 * abs(expected), (
                f"the gradient must be the slope of the value: {received} along a direction in "
                f"which the value changes by {expected}"
            )
