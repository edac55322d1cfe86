"""Steps that touch only the rows of their batch, against Adam on the whole table and by hand."""

import keras
import numpy as np
import pytest
from segue.model.sasrec import SASRec

from segue.config import LossConfig, ModelConfig
from segue.model.sparse import LazyAdam
from segue.model.weights import to_numpy

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="other backends update the whole table"
)

NUM_ITEMS = 40
MODEL = ModelConfig(width=8, max_length=6, num_blocks=1, dropout=0.0)
LOSSES = {
    "bce": LossConfig(loss="bce", negatives=1),
    "gbce": LossConfig(loss="gbce", negatives=3),
    "sampled_softmax": LossConfig(loss="sampled_softmax", negatives=3, sampling="popularity"),
    "shared": LossConfig(loss="sampled_softmax", negatives=5, negatives_per="batch"),
}


def make_batch(loss, seed, highest=NUM_ITEMS):
    random = np.random.default_rng(seed)
    items = random.integers(1, highest + 1, (3, 7), dtype=np.int32)
    items[0, 4:] = 0
    shape = (loss.negatives,) if loss.negatives_per == "batch" else (3, 6, loss.negatives)
    negatives = random.integers(1, highest + 1, shape, dtype=np.int32)
    x, targets = items[:, :-1], items[:, 1:]
    return x, targets, negatives, ((x > 0) & (targets > 0)).astype(np.float32)


def make_model(loss, optimizer):
    model = SASRec(NUM_ITEMS, MODEL, loss, seed=3)
    if model.log_expected is not None:
        shares = np.arange(1, NUM_ITEMS + 1) / (NUM_ITEMS * (NUM_ITEMS + 1) / 2)
        model.log_expected.assign(np.log(np.concatenate([[1.0], shares])))
    model.compile(optimizer=optimizer)
    model.optimizer.build(model.trainable_variables)
    return model


def step(model, batch):
    x, targets, negatives, weights = batch
    return model.train_on_batch(
        {"item_ids": x},
        {"positive_sequence": targets, "negative_sequence": negatives},
        sample_weight=weights,
        return_dict=True,
    )["loss"]


def table_of(model):
    return to_numpy(model.item_embedding.table)


@pytest.mark.parametrize("name", LOSSES)
def test_the_first_step_is_adams(name):
    loss = LOSSES[name]
    dense = make_model(loss, keras.optimizers.Adam(1e-2))
    lazy = make_model(loss, LazyAdam(1e-2))
    batch = make_batch(loss, seed=0, highest=20)
    assert step(lazy, batch) == pytest.approx(step(dense, batch), rel=1e-6)
    for ours, theirs in zip(lazy.trainable_variables, dense.trainable_variables, strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [LossConfig(), LossConfig(loss="bce", l2=0.1)])
def test_a_loss_of_the_whole_table_updates_all_of_it(loss):
    # A softmax over the batch's items alone, or a penalty on them alone, would be another loss.
    dense = make_model(loss, keras.optimizers.Adam(1e-2))
    lazy = make_model(loss, LazyAdam(1e-2))
    batch = make_batch(loss, seed=0, highest=20)
    assert step(lazy, batch) == pytest.approx(step(dense, batch), rel=1e-6)
    np.testing.assert_allclose(table_of(lazy), table_of(dense), rtol=1e-4, atol=1e-6)


def test_rows_outside_the_batch_and_their_moments_stay_as_they_are():
    loss = LOSSES["bce"]
    model = make_model(loss, LazyAdam(1e-2))
    step(model, make_batch(loss, seed=0))
    at = model.optimizer._get_variable_index(model.item_embedding.table)
    kept = [
        model.item_embedding.table,
        *(moments[at] for moments in (model.optimizer._momentums, model.optimizer._velocities)),
    ]
    before = [to_numpy(each) for each in kept]
    step(model, make_batch(loss, seed=1, highest=9))
    for old, variable in zip(before, kept, strict=True):
        new = to_numpy(variable)
        np.testing.assert_array_equal(new[10:], old[10:])
        np.testing.assert_array_equal(new[0], 0.0)
        assert np.all(np.any(new[1:10] != old[1:10], axis=1))


def test_moments_follow_the_recurrence_of_the_paper_on_the_steps_that_touch_a_row():
    # Algorithm 1 of Kingma & Ba by hand; the slopes come from plain gradients of the same model.
    loss, rate, beta_1, beta_2 = LOSSES["bce"], 1e-2, 0.9, 0.98
    model = make_model(loss, LazyAdam(rate, beta_2=beta_2, epsilon=1e-7))
    probe = make_model(loss, keras.optimizers.SGD(1.0))
    means, squares = np.zeros((2, NUM_ITEMS + 1, MODEL.width))
    for number, highest in enumerate((40, 9, 40, 15), start=1):
        batch = make_batch(loss, seed=number, highest=highest)
        probe.set_weights(model.get_weights())
        before = table_of(model)
        step(probe, batch)
        slopes = before - table_of(probe)
        ids = np.unique(np.concatenate([each.reshape(-1) for each in batch[:3]]))
        means[ids] += (1 - beta_1) * (slopes[ids] - means[ids])
        squares[ids] += (1 - beta_2) * (slopes[ids] ** 2 - squares[ids])
        scaled = rate * np.sqrt(1 - beta_2**number) / (1 - beta_1**number)
        expected = before.copy()
        expected[ids] -= scaled * means[ids] / (np.sqrt(squares[ids]) + 1e-7)
        step(model, batch)
        # A slope near 0 is divided by its own size: the tolerance is a part of the rate.
        np.testing.assert_allclose(table_of(model), expected, atol=0.05 * rate)


def test_a_step_reads_no_array_of_the_tables_size_but_to_put_rows_into_it(training_state):
    import jax

    loss = LOSSES["shared"]
    model = SASRec(5_000, MODEL, loss, seed=3)
    model.compile(optimizer=LazyAdam(1e-2))
    model.optimizer.build(model.trainable_variables)
    x, targets, negatives, weights = make_batch(loss, seed=0)
    y = {"positive_sequence": targets, "negative_sequence": negatives}
    state = training_state(model)
    program = jax.make_jaxpr(model.train_step)(state, ({"item_ids": x}, y, weights))
    large = {
        equation.primitive.name
        for equation in program.jaxpr.eqns
        if any(getattr(out.aval, "shape", ())[:1] == (5_001,) for out in equation.outvars)
    }
    assert large <= {"scatter"}
