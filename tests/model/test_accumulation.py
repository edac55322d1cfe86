"""Steps in parts, against the step on the whole batch."""

from typing import get_args

import keras
import numpy as np
import pytest
from segue.model.sasrec import SASRec

from segue.config import DropoutPlace, LossConfig, ModelConfig
from segue.model import accumulation
from segue.model.weights import to_numpy

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="other backends take the whole batch"
)

ROWS, LENGTH, ITEMS = 6, 8, 20
SETTINGS = ModelConfig(width=8, max_length=LENGTH, num_blocks=2, dropout=0.0)


def batch(negatives_shape):
    random = np.random.default_rng(0)
    items = random.integers(1, ITEMS + 1, (ROWS, LENGTH + 1), dtype=np.int32)
    weights = random.integers(0, 2, (ROWS, LENGTH)).astype(np.float32)
    weights[4:] = 0.0  # a part without targets
    y = {"positive_sequence": items[:, 1:]}
    if negatives_shape:
        y["negative_sequence"] = random.integers(1, ITEMS + 1, negatives_shape, dtype=np.int32)
    return {"item_ids": items[:, :-1]}, y, weights


def weights_and_loss_after_a_step(loss, data, size, monkeypatch):
    sizes = []

    def part_rows(rows, length, num_items):
        sizes.append((rows, length, num_items))
        return size

    monkeypatch.setattr(accumulation, "part_rows", part_rows)
    model = SASRec(ITEMS, SETTINGS, loss, seed=1)
    model.compile(optimizer=keras.optimizers.SGD(0.5))
    x, y, weights = data
    value = model.train_on_batch(x, y, sample_weight=weights, return_dict=True)["loss"]
    assert set(sizes) == {(ROWS, LENGTH, ITEMS)}
    return [to_numpy(each) for each in model.trainable_variables], value


@pytest.mark.parametrize(
    ("loss", "negatives_shape"),
    [
        (LossConfig(), None),
        (LossConfig(l2=0.01), None),
        (LossConfig(loss="bce", negatives=2), (ROWS, LENGTH, 2)),
        # As many negatives as rows: still the batch's, not the rows'.
        (LossConfig(loss="sampled_softmax", negatives=ROWS, negatives_per="batch"), (ROWS,)),
        (LossConfig(loss="sampled_softmax", negatives=3, negatives_per="row"), (ROWS, 1, 3)),
    ],
)
def test_parts_add_up_to_the_step_on_the_whole_batch(loss, negatives_shape, monkeypatch):
    data = batch(negatives_shape)
    whole, whole_loss = weights_and_loss_after_a_step(loss, data, ROWS, monkeypatch)
    parts, parts_loss = weights_and_loss_after_a_step(loss, data, 2, monkeypatch)
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    for ours, theirs in zip(parts, whole, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_every_part_drops_out_by_itself(training_state):
    everywhere = {"dropout": 0.3, "dropout_places": get_args(DropoutPlace)}
    model = SASRec(ITEMS, SETTINGS.model_copy(update=everywhere), LossConfig(), seed=1)
    model.compile(optimizer=keras.optimizers.SGD(0.5))
    state = training_state(model)
    _, (_, after, _, _) = accumulation.train_step(model, state, batch(None), 2)
    counters = [
        (int(old[1]), int(new[1])) for old, new in zip(state[1], after, strict=True) if new.ndim
    ]
    assert counters
    assert all(new - old == ROWS // 2 for old, new in counters)


@pytest.mark.parametrize(
    ("rows", "length", "num_items", "expected"),
    [
        (72, 200, 3_416, 9),  # nine rows of 200 are the most that 2,000 positions hold
        (36, 200, 3_416, 9),
        (68, 200, 3_416, 68),  # only 4 or 2 divide it: too few to keep the cores busy
        (72, 200, 50_000, 72),  # a table larger than the batch would be added up again and again
        (8, 200, 3_416, 8),
        (1_000, 50, 3_416, 40),
    ],
)
def test_parts_are_of_the_size_that_pays(rows, length, num_items, expected):
    assert accumulation.part_rows(rows, length, num_items) == expected


def test_a_batch_without_a_target_changes_nothing(monkeypatch):
    x, y, weights = batch(None)
    fresh = SASRec(ITEMS, SETTINGS, LossConfig(), seed=1)
    after, loss = weights_and_loss_after_a_step(
        LossConfig(), (x, y, np.zeros_like(weights)), 2, monkeypatch
    )
    assert loss == 0.0
    for variable, array in zip(fresh.trainable_variables, after, strict=True):
        np.testing.assert_array_equal(array, to_numpy(variable))
