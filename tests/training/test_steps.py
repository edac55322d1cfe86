"""Training steps: in parts, on touched rows, on several devices; each against a plain one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import polars as pl
import pytest

import segue
from segue.config import Config, LossConfig
from segue.data.histories import Histories
from segue.data.vocabulary import Vocabulary
from segue.model.encoders.transformer import DropoutPlace
from segue.model.sequence_model import build_model
from segue.model.weights import weights_of
from segue.training import placement
from segue.training.batches import Batch
from segue.training.plan import Plan
from segue.training.steps import make_step

IS_JAX = keras.backend.backend() == "jax"
on_jax = pytest.mark.skipif(not IS_JAX, reason="other backends step as Keras does")

ROWS, LENGTH, ITEMS, WIDTH = 8, 6, 40, 8
TABLE = "item_embedding/table"
SETTINGS = [
    f"max_length={LENGTH}",
    f"width={WIDTH}",
    "num_blocks=1",
    "dropout=0",
    "warmup_steps=0",
    "schedule=constant",
    "learning_rate=0.01",
    f"batch_size={ROWS}",
    "packed=false",
    "seed=3",
]
LOSSES = {
    "softmax": ["loss=softmax"],
    "penalised": ["loss=softmax", "l2=0.01"],
    "bce": ["loss=bce", "negatives=2"],
    "gbce": ["loss=gbce", "negatives=3"],
    "sampled": ["loss=sampled_softmax", "negatives=3", "sampling=popularity"],
    # As many negatives as rows: still the batch's, not the rows'.
    "batch's": ["loss=sampled_softmax", f"negatives={ROWS}", "negatives_per=batch"],
    "row's": ["loss=sampled_softmax", "negatives=3", "negatives_per=row"],
}
OF_FEW = [name for name in LOSSES if name not in ("softmax", "penalised")]


def configured(*settings: str) -> Config:
    return Config().with_settings([*SETTINGS, *settings])


def planned(config: Config, num_items: int = ITEMS) -> Plan:
    random = np.random.default_rng(0)
    vocabulary = Vocabulary.from_ids(pl.Series(range(1, num_items + 1)))
    lists = [random.integers(1, num_items + 1, LENGTH + 1, dtype=np.int32) for _ in range(ROWS)]
    return Plan.of(Histories.from_lists(vocabulary, lists), config)


def stepping(config: Config, num_items: int = ITEMS):
    """A fresh model and its step."""
    model = build_model(num_items, config)
    if model.log_expected is not None:
        shares = np.arange(1, num_items + 1) / (num_items * (num_items + 1) / 2)
        model.log_expected.assign(np.log(np.concatenate([[1.0], shares])))
    return model, make_step(model, config, planned(config, num_items))


def make_batch(loss: LossConfig, seed: int, highest: int = ITEMS) -> Batch:
    random = np.random.default_rng(seed)
    items = random.integers(1, highest + 1, (ROWS, LENGTH + 1), dtype=np.int32)
    items[0, 4:] = 0
    inputs, targets = items[:, :-1], items[:, 1:]
    weights = ((inputs > 0) & (targets > 0)).astype(np.float32)
    weights[4:6] = 0.0  # a part without targets
    answers = {"positive_sequence": targets}
    if hasattr(loss, "negatives"):
        count = loss.negatives
        shapes = {"target": (ROWS, LENGTH, count), "row": (ROWS, 1, count), "batch": (count,)}
        shape = shapes[loss.negatives_per]
        answers["negative_sequence"] = random.integers(1, highest + 1, shape, dtype=np.int32)
    return Batch({"item_ids": inputs}, answers, weights)


def trained(config: Config, steps: int = 3) -> tuple[dict[str, np.ndarray], list[float]]:
    """The weights after a few steps, and their losses."""
    model, step = stepping(config)
    losses = [float(step.run(make_batch(config.loss, seed))) for seed in range(steps)]
    step.to_model(averaged=False)
    return weights_of(model), losses


def assert_close(ours, theirs, atol=1e-4):
    # Where a slope is all but 0 Adam divides it by its own size: the rate is 0.01.
    (our_weights, our_losses), (their_weights, their_losses) = ours, theirs
    assert our_losses == pytest.approx(their_losses, rel=1e-5)
    assert our_weights.keys() == their_weights.keys()
    for name, array in our_weights.items():
        np.testing.assert_allclose(array, their_weights[name], atol=atol, err_msg=name)


def slopes_by_steps_of_one(config: Config, batch: Batch) -> dict[str, np.ndarray]:
    """The gradient of a batch, by gradient descent with a rate of 1 through Keras alone."""
    model, _ = stepping(config)
    before = weights_of(model)
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    model.train_on_batch(batch.inputs, batch.targets, sample_weight=batch.weights)
    after = weights_of(model)
    return {name: before[name] - after[name] for name in before}


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="there the probe by Keras' SGD disagrees"
)
@pytest.mark.parametrize("name", LOSSES)
def test_the_first_step_is_adam_on_the_gradient_that_keras_finds(name):
    config = configured(*LOSSES[name])
    batch = make_batch(config.loss, seed=0)
    model, step = stepping(config)
    before = weights_of(model)
    step.run(batch)
    step.to_model(averaged=False)
    slopes = slopes_by_steps_of_one(config, batch)
    for array_name, array in weights_of(model).items():
        # In Adam's first step mean and root of squares are the slope and its size.
        slope = slopes[array_name].astype(np.float64)
        expected = before[array_name] - 0.01 * slope / (np.abs(slope) + 1e-7 / np.sqrt(0.02))
        is_clear = (np.abs(slope) > 1e-4) | (slope == 0)
        assert is_clear.mean() > 0.3
        np.testing.assert_allclose(array[is_clear], expected[is_clear], atol=1e-4)


@on_jax
@pytest.mark.parametrize("name", LOSSES)
def test_parts_add_up_to_the_step_on_the_whole_batch(name, monkeypatch):
    config = configured(*LOSSES[name])
    whole = trained(config)
    monkeypatch.setattr("segue.training.placement.part_rows", lambda *_: 2)
    assert_close(trained(config), whole)


@on_jax
def test_every_part_drops_out_by_itself(monkeypatch):
    places = ", ".join(f'"{place}"' for place in get_args(DropoutPlace))
    config = configured("dropout=0.3", f"dropout_places=[{places}]")
    monkeypatch.setattr("segue.training.placement.part_rows", lambda *_: 2)
    _, step = stepping(config)
    before = step.state()
    seeds = [name for name, array in before.items() if array.dtype == np.uint32]
    before = {name: np.array(before[name]) for name in seeds}
    step.run(make_batch(config.loss, seed=0))
    after = step.state()
    assert len(seeds) == len(get_args(DropoutPlace))
    for name in seeds:
        np.testing.assert_array_equal(after[name] - before[name], [0, ROWS // 2])


@on_jax
@pytest.mark.parametrize("part", [ROWS, 2])
def test_a_batch_without_a_target_changes_nothing(part, monkeypatch):
    monkeypatch.setattr("segue.training.placement.part_rows", lambda *_: part)
    config = configured()
    model, step = stepping(config)
    before = weights_of(model)
    batch = make_batch(config.loss, seed=0)
    assert float(step.run(replace(batch, weights=np.zeros_like(batch.weights)))) == 0.0
    step.to_model(averaged=False)
    for name, array in weights_of(model).items():
        np.testing.assert_array_equal(array, before[name])


@on_jax
@pytest.mark.parametrize("name", OF_FEW)
def test_the_first_step_on_touched_rows_is_that_on_the_whole_table(name, monkeypatch):
    config = configured(*LOSSES[name])
    dense = trained(config, steps=1)
    monkeypatch.setattr(placement, "LAZY_ITEMS", 1)
    assert_close(trained(config, steps=1), dense)


@on_jax
@pytest.mark.parametrize("name", ["softmax", "penalised"])
def test_a_loss_of_the_whole_table_updates_all_of_it(name, monkeypatch):
    # A softmax over the batch's items alone, or a penalty on them alone, would be another loss.
    config = configured(*LOSSES[name])
    dense = trained(config)
    monkeypatch.setattr(placement, "LAZY_ITEMS", 1)
    assert_close(trained(config), dense)


@on_jax
def test_moments_follow_the_recurrence_of_the_paper_on_the_steps_that_touch_a_row(monkeypatch):
    # Algorithm 1 of Kingma & Ba by hand; the slopes come from Keras, on the weights of that step.
    monkeypatch.setattr(placement, "LAZY_ITEMS", 1)
    config = configured(*LOSSES["bce"])
    rate, beta_1, beta_2 = 0.01, 0.9, config.training.beta_2
    model, step = stepping(config)
    probe, _ = stepping(config)
    probe.compile(optimizer=keras.optimizers.SGD(1.0))
    means, squares = np.zeros((2, ITEMS + 1, WIDTH))
    for number, highest in enumerate((40, 9, 40, 15), start=1):
        batch = make_batch(config.loss, seed=number, highest=highest)
        step.to_model(averaged=False)
        probe.set_weights(model.get_weights())
        before = weights_of(probe)[TABLE]
        probe.train_on_batch(batch.inputs, batch.targets, sample_weight=batch.weights)
        slopes = before - weights_of(probe)[TABLE]
        named = [batch.inputs["item_ids"], *batch.targets.values()]
        ids = np.unique(np.concatenate([array.reshape(-1) for array in named]))
        means[ids] += (1 - beta_1) * (slopes[ids] - means[ids])
        squares[ids] += (1 - beta_2) * (slopes[ids] ** 2 - squares[ids])
        scaled = rate * np.sqrt(1 - beta_2**number) / (1 - beta_1**number)
        expected = before.copy()
        expected[ids] -= scaled * means[ids] / (np.sqrt(squares[ids]) + 1e-7)
        step.run(batch)
        step.to_model(averaged=False)
        received = weights_of(model)[TABLE]
        # A slope near 0 is divided by its own size: the tolerance is a part of the rate.
        np.testing.assert_allclose(received, expected, atol=0.05 * rate)
        untouched = np.setdiff1d(np.arange(ITEMS + 1), ids)
        np.testing.assert_array_equal(received[untouched], before[untouched])


@on_jax
def test_rows_outside_the_batch_and_their_moments_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(placement, "LAZY_ITEMS", 1)
    config = configured(*LOSSES["bce"])
    _, step = stepping(config)
    step.run(make_batch(config.loss, seed=0))

    def tables():
        state = step.state()
        return {
            name: np.array(array)
            for name, array in state.items()
            if array.shape == (ITEMS + 1, WIDTH)
        }

    before = tables()
    step.run(make_batch(config.loss, seed=1, highest=9))
    after = tables()
    assert len(after) == 3  # the table and two moments
    for name, new in after.items():
        np.testing.assert_array_equal(new[10:], before[name][10:])
        assert np.all(np.any(new[1:10] != before[name][1:10], axis=1))


@on_jax
def test_a_step_reads_no_array_of_the_tables_size_but_to_put_rows_into_it(monkeypatch):
    import jax

    monkeypatch.setattr(placement, "LAZY_ITEMS", 1)
    config = configured(*LOSSES["batch's"])
    programs = []
    original = jax.jit

    def kept(function, **options):
        compiled = original(function, **options)
        if options.get("donate_argnums") != 0:
            return compiled

        def run(*arguments):
            programs.append(jax.make_jaxpr(function)(*arguments))
            return compiled(*arguments)

        return run

    monkeypatch.setattr(jax, "jit", kept)
    _, step = stepping(config, num_items=5_000)
    step.run(make_batch(config.loss, seed=0))
    (program,) = programs
    large = {
        equation.primitive.name
        for equation in program.jaxpr.eqns
        if any(getattr(out.aval, "shape", ())[:1] == (5_001,) for out in equation.outvars)
    }
    assert large <= {"scatter"}


@pytest.mark.parametrize("settings", [["averaging=0.8"], []])
def test_a_step_goes_on_from_the_state_of_another_to_the_bit(settings):
    config = configured("dropout=0.3", *LOSSES["bce"], *settings)
    model, step = stepping(config)
    for seed in range(2):
        step.run(make_batch(config.loss, seed))
    state = {name: np.array(array) for name, array in step.state().items()}
    other_model, other = stepping(config)
    # Whatever Keras called the second model.
    assert {name: array.shape for name, array in state.items()} == dict(other.shapes())
    other.restore(lambda name: state[name])
    for each in (step, other):
        each.run(make_batch(config.loss, seed=2))
        each.to_model(averaged=True)
    tolerance = 0.0 if IS_JAX else 1e-6  # elsewhere threads may add in another order
    for name, array in weights_of(model).items():
        np.testing.assert_allclose(weights_of(other_model)[name], array, atol=tolerance, rtol=0)


def test_the_model_gets_averages_where_they_are_asked_for_and_training_goes_on_without():
    config = configured("averaging=0.8")
    plain_model, plain = stepping(configured())
    model, step = stepping(config)
    average = None
    for seed in range(4):
        for each in (plain, step):
            each.run(make_batch(config.loss, seed))
        plain.to_model(averaged=True)
        weights = weights_of(plain_model)
        average = average or weights
        average = {name: 0.8 * average[name] + 0.2 * weights[name] for name in weights}
        step.to_model(averaged=True)
        for name, array in weights_of(model).items():
            np.testing.assert_allclose(array, average[name], atol=1e-5)
    step.to_model(averaged=False)
    for name, array in weights_of(model).items():
        np.testing.assert_allclose(array, weights_of(plain_model)[name], atol=1e-5)


ON_DEVICES = """
import sys, json, numpy as np
import jax
jax.config.update("jax_num_cpu_devices", 2)
sys.path.insert(0, sys.argv[1])
import test_steps as tests
found = {}
for name, settings in tests.LOSSES.items():
    for devices in (1, 2):
        config = tests.configured(f"devices={devices}", *settings)
        weights, losses = tests.trained(config)
        found[f"{name} {devices}"] = [losses, {k: v.tolist() for k, v in weights.items()}]
config = tests.configured("devices=2", "dropout=0.5")
_, step = tests.stepping(config)
# Both devices hold the same rows: what differs is what is dropped out.
batch = tests.make_batch(config.loss, 0)
half = len(batch.weights) // 2
for array in (*batch.inputs.values(), *batch.targets.values(), batch.weights):
    array[half:] = array[:half]
together = float(step.run(batch))
_, alone = tests.stepping(tests.configured("devices=1", "dropout=0.5"))
from segue.training.batches import Batch
first = Batch({k: v[:half] for k, v in batch.inputs.items()},
              {k: v[:half] for k, v in batch.targets.items()}, batch.weights[:half])
found["dropout"] = [together, float(alone.run(first))]
seeds = [v.tolist() for v in step.state().values() if v.dtype == np.uint32]
found["seeds"] = [seeds, [v.tolist() for v in alone.state().values() if v.dtype == np.uint32]]
print(json.dumps(found))
"""


@pytest.mark.slow
@on_jax
def test_two_devices_train_as_one_does_with_dropout_of_their_own():
    source = Path(segue.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", ON_DEVICES, str(Path(__file__).parent)],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in LOSSES:
        (one_losses, one), (two_losses, two) = found[f"{name} 1"], found[f"{name} 2"]
        assert two_losses == pytest.approx(one_losses, rel=1e-5)
        for array_name, array in one.items():
            np.testing.assert_allclose(two[array_name], array, atol=1e-4, err_msg=array_name)
    together, alone = found["dropout"]
    assert together != pytest.approx(alone, rel=1e-4)
    of_two, of_one = found["seeds"]
    assert of_two == of_one
