"""The losses against NumPy in float64, and what must carry no gradient."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from segue.config import LOSSES, LossConfig
from segue.errors import TrainingError
from segue.model.kernels.device import CPU_SIZES
from segue.testing.arrays import value_and_gradients

ROWS, LENGTH, WIDTH, ITEMS = 3, 8, 5, 11


def batch(seed: int = 0):
    random = np.random.default_rng(seed)
    states = random.normal(size=(ROWS, LENGTH, WIDTH)).astype("float32")
    table = random.normal(size=(ITEMS + 1, WIDTH)).astype("float32")
    targets = random.integers(1, ITEMS + 1, (ROWS, LENGTH)).astype("int32")
    weights = np.ones((ROWS, LENGTH), dtype="float32")
    weights[0, 5:] = 0.0
    weights[2, :2] = 0.0
    targets[weights == 0] = 0
    return states, table, targets, weights


def compute_loss(
    config, states, table, targets, weights, negatives=None, log_expected=None, **sizes
):
    loss = LOSSES[config.loss](config, replace(CPU_SIZES, **sizes))
    return loss(states, table, targets, weights, negatives=negatives, log_expected=log_expected)


def average(values: np.ndarray, weights: np.ndarray) -> float:
    return float((values * weights).sum() / weights.sum())


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-x))


def test_softmax_is_the_cross_entropy_over_real_items():
    states, table, targets, weights = batch()
    logits = states.astype("float64") @ table[1:].astype("float64").T
    surprise = (
        np.log(np.exp(logits).sum(-1))
        - np.take_along_axis(logits, np.maximum(targets, 1)[..., None] - 1, axis=-1)[..., 0]
    )
    value, _ = value_and_gradients(
        lambda s, t: compute_loss(LossConfig(), s, t, targets, weights), states, table
    )
    assert value == pytest.approx(average(surprise, weights), rel=1e-5)


@pytest.mark.parametrize("logit_entries", [1, 30, 10_000])
def test_softmaxs_gradient_is_p_minus_onehot_whatever_the_block(logit_entries):
    sizes = {"logits": logit_entries, "fewest_targets": 1}
    states, table, targets, weights = batch()
    exact = states.astype("float64").reshape(-1, WIDTH)
    logits = exact @ table[1:].astype("float64").T
    slope = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    flat, share = targets.ravel(), (weights / weights.sum()).ravel()
    slope[np.arange(len(flat)), np.maximum(flat, 1) - 1] -= 1.0
    slope *= share[:, None]
    _, (state_slope, table_slope) = value_and_gradients(
        lambda s, t: compute_loss(LossConfig(), s, t, targets, weights, **sizes), states, table
    )
    np.testing.assert_allclose(state_slope.reshape(-1, WIDTH), slope @ table[1:], atol=1e-6)
    np.testing.assert_allclose(table_slope[1:], slope.T @ exact, atol=1e-6)
    assert not table_slope[0].any()


def test_bce_averages_positives_and_negatives_of_real_targets_together():
    states, table, targets, weights = batch()
    negatives = np.random.default_rng(1).integers(1, ITEMS + 1, (ROWS, LENGTH)).astype("int32")
    positive = (states * table[targets]).sum(-1).astype("float64")
    negative = (states * table[negatives]).sum(-1).astype("float64")
    expected = -(log_sigmoid(positive) + log_sigmoid(-negative)) / 2
    config = LossConfig(loss="bce")
    value, _ = value_and_gradients(
        lambda s, t: compute_loss(config, s, t, targets, weights, negatives), states, table
    )
    assert value == pytest.approx(average(expected, weights), rel=1e-5)


def test_gbces_beta_follows_the_paper():
    # Petrov & Macdonald (2023), eq. 14 with alpha = 256 / 3415 and t = 0.75:
    # 0.07496 * (0.75 * (1 - 1 / 0.07496) + 1 / 0.07496) = 0.30622.
    config = LossConfig(loss="gbce", negatives=256, gbce_t=0.75)
    assert LOSSES["gbce"](config).beta(3416) == pytest.approx(0.30622, abs=1e-5)
    uncalibrated = LossConfig(loss="gbce", gbce_t=0.0)
    assert LOSSES["gbce"](uncalibrated).beta(3416) == pytest.approx(1.0)


def test_gbce_raises_only_the_positives_probability_to_beta():
    states, table, targets, weights = batch()
    negatives = np.random.default_rng(1).integers(1, ITEMS + 1, (ROWS, LENGTH, 3)).astype("int32")
    config = LossConfig(loss="gbce", negatives=3, gbce_t=0.75)
    alpha = 3 / (ITEMS - 1)
    beta = alpha * (0.75 * (1 - 1 / alpha) + 1 / alpha)
    positive = (states * table[targets]).sum(-1).astype("float64")
    negative = np.einsum("rlw,rlnw->rln", states, table[negatives]).astype("float64")
    expected = -(beta * log_sigmoid(positive) + log_sigmoid(-negative).sum(-1)) / 4
    value, _ = value_and_gradients(
        lambda s, t: compute_loss(config, s, t, targets, weights, negatives), states, table
    )
    assert value == pytest.approx(average(expected, weights), rel=1e-5)


SHAPES = {"target": (ROWS, LENGTH, 4), "row": (ROWS, 1, 4), "batch": (4,)}


@pytest.mark.parametrize("per", SHAPES)
def test_sampled_softmax_corrects_for_the_sampler_and_skips_accidental_hits(per):
    states, table, targets, weights = batch()
    random = np.random.default_rng(2)
    negatives = random.integers(1, ITEMS + 1, SHAPES[per]).astype("int32")
    log_expected = random.normal(size=ITEMS + 1).astype("float32")
    everywhere = np.broadcast_to(negatives, (ROWS, LENGTH, 4))
    positive = (states * table[targets]).sum(-1) - log_expected[targets]
    negative = np.einsum("rlw,rlnw->rln", states, table[everywhere]) - log_expected[everywhere]
    negative[everywhere == targets[..., None]] = -np.inf
    total = np.exp(positive) + np.exp(negative).sum(-1)
    config = LossConfig(loss="sampled_softmax", negatives=4)
    value, _ = value_and_gradients(
        lambda s, t: compute_loss(config, s, t, targets, weights, negatives, log_expected),
        states,
        table,
    )
    assert value == pytest.approx(average(np.log(total) - positive, weights), rel=1e-5)


@pytest.mark.parametrize("entries", [1, 70, 10_000])
def test_bces_gradient_is_that_of_the_formula_whatever_the_block(entries):
    states, table, targets, weights = batch()
    negatives = np.random.default_rng(1).integers(1, ITEMS + 1, (ROWS, LENGTH, 3)).astype("int32")
    share = (weights / weights.sum()).astype("float64")[..., None] / 4
    ids = np.concatenate([targets[..., None], negatives], axis=-1)
    logits = np.einsum("rlw,rlnw->rln", states, table[ids]).astype("float64")
    slope = share * (1 / (1 + np.exp(-logits)) - (np.arange(4) == 0))
    expected_table = np.zeros(table.shape)
    np.add.at(expected_table, ids, slope[..., None] * states[:, :, None])
    _, (state_slope, table_slope) = value_and_gradients(
        lambda s, t: compute_loss(
            LossConfig(loss="bce", negatives=3),
            s,
            t,
            targets,
            weights,
            negatives,
            negative_vectors=entries,
        ),
        states,
        table,
    )
    expected_state = np.einsum("rln,rlnw->rlw", slope, table[ids])
    np.testing.assert_allclose(state_slope, expected_state, atol=1e-6)
    np.testing.assert_allclose(table_slope, expected_table, atol=1e-6)


def test_a_position_without_a_target_changes_nothing():
    states, table, targets, weights = batch()
    other = states.copy()
    other[weights == 0] += 5.0

    def loss_and_slopes(of):
        return value_and_gradients(
            lambda s, t: compute_loss(LossConfig(), s, t, targets, weights), of, table
        )

    (value, slopes), (other_value, other_slopes) = loss_and_slopes(states), loss_and_slopes(other)
    assert value == pytest.approx(other_value)
    assert not slopes[0][weights == 0].any()
    np.testing.assert_allclose(slopes[1], other_slopes[1], atol=1e-7)


@pytest.mark.parametrize("name", ["sampled_softmax", "bce", "gbce"])
def test_a_batch_without_the_negatives_that_a_loss_needs_is_refused(name):
    states, table, targets, weights = batch()
    with pytest.raises(TrainingError, match="the batch has no negative_sequence; give one, or"):
        compute_loss(LossConfig(loss=name), states, table, targets, weights)


def test_l2_reaches_the_loss():
    states, table, targets, weights = batch()

    def loss(l2):
        config = LossConfig(l2=l2)
        return value_and_gradients(
            lambda s, t: compute_loss(config, s, t, targets, weights), states, table
        )

    (plain, plain_slopes), (penalised, slopes) = loss(0.0), loss(0.01)
    assert penalised - plain == pytest.approx(0.01 * (table[1:] ** 2).sum(), rel=1e-4)
    np.testing.assert_allclose(slopes[1][1:] - plain_slopes[1][1:], 0.02 * table[1:], atol=1e-6)


def test_the_logits_of_a_whole_batch_never_exist_at_once():
    jax = pytest.importorskip("jax")
    if keras.backend.backend() != "jax":
        pytest.skip("reads JAX's own account of the program")
    rows, length, items = 8, 50, 99_999
    states = jax.ShapeDtypeStruct((rows, length, 4), "float32")
    table = jax.ShapeDtypeStruct((items + 1, 4), "float32")
    targets = np.ones((rows, length), dtype="int32")
    weights = np.ones((rows, length), dtype="float32")
    program = jax.make_jaxpr(
        jax.grad(lambda s, t: compute_loss(LossConfig(), s, t, targets, weights), (0, 1))
    )(states, table)
    largest = max(
        int(np.prod(variable.aval.shape))
        for equation in _equations(program.jaxpr)
        for variable in equation.outvars
    )
    assert largest < rows * length * items / 10


def _equations(program):
    for equation in program.eqns:
        yield equation
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)
