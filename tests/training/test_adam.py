"""Adam on JAX against Keras' own, and against the paper's recurrence by hand."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("the other backends train with Keras' own Adam", allow_module_level=True)

import jax.numpy as jnp

from segue.training.adam import Adam, TouchedRows

SHAPES = {"table": (6, 3), "bias": (3,)}
BETA_2 = 0.98


def constant(rate):
    return lambda step: jnp.float32(rate)


def falling(step):
    return 0.1 / (1.0 + jnp.asarray(step, jnp.float32))


def arrays(seed):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def steps_of(adam, weights, all_slopes):
    """The weights after each step, and the last state."""
    weights = {name: jnp.asarray(array) for name, array in weights.items()}
    state, seen = adam.start(weights), []
    for slopes in all_slopes:
        weights, state = adam.updated(weights, slopes, state)
        seen.append({name: np.asarray(array) for name, array in weights.items()})
    return seen, state


class _Falling(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return falling(step)

    def get_config(self):
        return {}


@pytest.mark.parametrize(("ours", "theirs"), [(constant(0.05), 0.05), (falling, _Falling())])
def test_every_step_is_that_of_keras(ours, theirs):
    start, all_slopes = arrays(0), [arrays(seed) for seed in range(1, 7)]
    variables = {name: keras.Variable(array) for name, array in start.items()}
    optimizer = keras.optimizers.Adam(theirs, beta_2=BETA_2)
    optimizer.build(list(variables.values()))
    seen, _ = steps_of(Adam(ours, BETA_2), start, all_slopes)
    for weights, slopes in zip(seen, all_slopes, strict=True):
        optimizer.apply([jnp.asarray(slopes[name]) for name in variables])
        for name, variable in variables.items():
            np.testing.assert_allclose(
                weights[name], keras.ops.convert_to_numpy(variable.value), rtol=1e-5, atol=1e-6
            )


def test_the_averages_are_those_of_keras_and_the_first_step_sets_them():
    start, all_slopes = arrays(0), [arrays(seed) for seed in range(1, 5)]
    seen, state = steps_of(Adam(constant(0.1), BETA_2, averaging=0.8), start, all_slopes)
    expected = seen[0]["table"].astype(np.float64)
    for weights in seen[1:]:
        expected = 0.8 * expected + 0.2 * weights["table"]
    np.testing.assert_allclose(state.averages["table"], expected, atol=1e-6)
    variable = keras.Variable(start["table"])
    optimizer = keras.optimizers.Adam(0.1, beta_2=BETA_2, use_ema=True, ema_momentum=0.8)
    optimizer.build([variable])
    for slopes in all_slopes:
        optimizer.apply([jnp.asarray(slopes["table"])])
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(
        state.averages["table"], keras.ops.convert_to_numpy(variable.value), atol=1e-6
    )


def test_without_averaging_no_average_is_kept():
    _, state = steps_of(Adam(constant(0.1), BETA_2), arrays(0), [arrays(1)])
    assert state.averages == {}
    assert int(state.step) == 1


def test_touched_rows_follow_the_recurrence_of_the_paper_on_the_steps_that_touch_them():
    # Algorithm 1 of Kingma & Ba by hand; the id 6 and beyond stand for no row.
    rate, all_ids = 0.1, [[0, 2, 5, 6], [2, 3, 6, 7], [0, 1, 2, 3], [3, 6, 7, 8]]
    random = np.random.default_rng(3)
    table = random.normal(size=(6, 3)).astype(np.float32)
    slopes = random.normal(size=(4, 4, 3)).astype(np.float32)
    rows = [
        {"table": TouchedRows(jnp.array(ids), jnp.asarray(slope))}
        for ids, slope in zip(all_ids, slopes, strict=True)
    ]
    seen, state = steps_of(Adam(constant(rate), BETA_2), {"table": table}, rows)

    expected = table.astype(np.float64)
    means, squares = np.zeros((2, 6, 3))
    for number, (ids, slope) in enumerate(zip(all_ids, slopes, strict=True), start=1):
        for row, gradient in zip(ids, slope, strict=True):
            if row > 5:
                continue
            means[row] = 0.9 * means[row] + 0.1 * gradient
            squares[row] = BETA_2 * squares[row] + (1 - BETA_2) * gradient**2
            corrected = means[row] / (1 - 0.9**number)
            spread = np.sqrt(squares[row] / (1 - BETA_2**number))
            expected[row] -= rate * corrected / (spread + 1e-7)
        np.testing.assert_allclose(seen[number - 1]["table"], expected, atol=1e-5)
    # Row 4 was never touched: it and its moments are to the bit what they were.
    np.testing.assert_array_equal(seen[-1]["table"][4], table[4])
    np.testing.assert_array_equal(state.means["table"][4], 0.0)
    np.testing.assert_array_equal(state.squares["table"][4], 0.0)
