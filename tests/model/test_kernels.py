"""Attention and dropout against plain NumPy in float64."""

import numpy as np
import pytest
from keras import ops

from segue.model.kernels import hashed_dropout, normalisation, segment_attention
from segue.testing.arrays import value_and_gradients

ROWS, LENGTH, WIDTH = 6, 150, 8  # more than two query blocks, the last one short


def arrays(seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(ROWS, LENGTH, WIDTH)).astype("float32") for _ in range(4)]


def segments() -> np.ndarray:
    """Two windows and some padding in each row, of different sizes."""
    ids = np.zeros((ROWS, LENGTH), dtype="int32")
    for row in range(ROWS):
        ids[row, : 40 + row] = 1
        ids[row, 40 + row : 140 - row] = 2
    return ids


def attention_by_hand(query, key, value, segment_ids, is_kept=None, rate=0.0):
    """Position by position, in float64; `is_kept` bool[rows, length, length]."""
    query, key, value = (each.astype("float64") for each in (query, key, value))
    output = np.zeros_like(value)
    for row in range(len(query)):
        for at in range(query.shape[1]):
            seen = [
                past for past in range(at + 1) if segment_ids[row, past] == segment_ids[row, at]
            ]
            scores = key[row, seen] @ query[row, at] / np.sqrt(query.shape[-1])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            if is_kept is not None:
                weights = weights * is_kept[row, at, seen] / (1.0 - rate)
            output[row, at] = weights @ value[row, seen]
    return output


PATHS = [
    segment_attention.plain_attention,
    segment_attention.chunked_attention,
    segment_attention.attention,
]


@pytest.mark.parametrize("attend", PATHS)
def test_attention_equals_the_formula_worked_position_by_position(attend):
    query, key, value, _ = arrays()
    expected = attention_by_hand(query, key, value, segments())
    output = attend(*map(ops.convert_to_tensor, (query, key, value, segments())))
    np.testing.assert_allclose(ops.convert_to_numpy(output), expected, atol=2e-6)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_chunked_attention_has_the_gradients_of_the_plain_one(rate):
    query, key, value, slope = arrays()
    weight = ops.convert_to_tensor(slope)
    streams = hashed_dropout.row_keys(ops.convert_to_tensor(np.int32(7)), ROWS)

    def total(attend):
        return lambda q, k, v: ops.sum(attend(q, k, v, segments(), rate, streams) * weight)

    expected = value_and_gradients(total(segment_attention.plain_attention), query, key, value)
    received = value_and_gradients(total(segment_attention.chunked_attention), query, key, value)
    assert received[0] == pytest.approx(expected[0], abs=2e-3)
    for ours, plain in zip(received[1], expected[1], strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-5)


def test_the_gradient_of_chunked_attention_equals_finite_differences():
    query, key, value, slope = arrays()
    weight = ops.convert_to_tensor(slope)
    segment_ids = segments()
    _, slopes = value_and_gradients(
        lambda q, k, v: ops.sum(segment_attention.chunked_attention(q, k, v, segment_ids) * weight),
        query,
        key,
        value,
    )
    random = np.random.default_rng(1)
    direction = random.normal(size=query.shape)
    step = 1e-5

    def along(amount):
        output = attention_by_hand(query + amount * direction, key, value, segment_ids)
        return np.sum(output * slope)

    expected = (along(step) - along(-step)) / (2 * step)
    assert np.sum(slopes[0] * direction) == pytest.approx(expected, rel=1e-3)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]))


def kept_by_block(streams, rate: float) -> list[np.ndarray]:
    """bool[rows, queries, keys] of each block of queries, the keys up to its last query."""
    return [
        ops.convert_to_numpy(segment_attention._is_weight_kept(streams, start, stop, LENGTH, rate))
        for start, stop in segment_attention._query_blocks(LENGTH)
    ]


@pytest.mark.parametrize("attend", PATHS)
def test_attention_with_dropout_equals_the_formula_with_the_kept_weights(attend):
    query, key, value, _ = arrays()
    streams = hashed_dropout.row_keys(ops.convert_to_tensor(np.int32(7)), ROWS)
    is_kept = np.zeros((ROWS, LENGTH, LENGTH), dtype=bool)
    blocks = kept_by_block(streams, 0.3)
    for (start, stop), kept in zip(segment_attention._query_blocks(LENGTH), blocks, strict=True):
        is_kept[:, start:stop, :stop] = kept
    expected = attention_by_hand(query, key, value, segments(), is_kept, 0.3)
    output = attend(*map(ops.convert_to_tensor, (query, key, value, segments())), 0.3, streams)
    np.testing.assert_allclose(ops.convert_to_numpy(output), expected, atol=5e-6)


def test_attention_drops_weights_at_its_rate_and_anew_in_each_block_of_queries():
    streams = hashed_dropout.row_keys(ops.convert_to_tensor(np.int32(7)), 40)
    blocks = [each.reshape(40, -1) for each in kept_by_block(streams, 0.3)]
    for kept in blocks:
        assert kept.mean() == pytest.approx(0.7, abs=0.01)
    first, second = (each[:, : blocks[0].shape[1]] for each in blocks[:2])
    assert correlation(first, second) < 0.01


def normalised_by_hand(inputs, scale, shift, epsilon):
    """Layer normalisation in float64, with the variance that divides by the width."""
    mean = inputs.mean(axis=-1, keepdims=True)
    variance = inputs.var(axis=-1, keepdims=True)
    return (inputs - mean) / np.sqrt(variance + epsilon) * scale + shift


def test_layer_norm_equals_the_formula_and_its_gradients_finite_differences():
    random = np.random.default_rng(0)
    shapes = [(3, 5, 50), (50,), (50,), (3, 5, 50)]
    *arguments, slope = (random.normal(size=shape) for shape in shapes)
    arguments[0] *= 1e-2  # so that epsilon matters
    given = [each.astype("float32") for each in arguments]
    output = normalisation.layer_norm(*map(ops.convert_to_tensor, given), 1e-5)
    expected = normalised_by_hand(*arguments, 1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(output), expected, rtol=2e-4, atol=2e-5)

    weight = ops.convert_to_tensor(slope.astype("float32"))
    _, slopes = value_and_gradients(
        lambda *each: ops.sum(normalisation.layer_norm(*each, 1e-5) * weight), *given
    )
    for place, received in enumerate(slopes):
        direction = random.normal(size=shapes[place])

        def along(step, place=place, direction=direction):
            moved = [each + step * direction * (at == place) for at, each in enumerate(arguments)]
            return np.sum(normalised_by_hand(*moved, 1e-5) * slope)

        expected_slope = (along(1e-6) - along(-1e-6)) / 2e-6
        assert np.sum(received * direction) == pytest.approx(expected_slope, rel=1e-3)


def test_keep_mask_has_its_rate():
    kept = ops.convert_to_numpy(hashed_dropout.keep_mask(np.arange(50, dtype="int32"), 20_000, 0.2))
    # One million draws: the standard error of the mean is 0.0004.
    assert kept.mean() == pytest.approx(0.8, abs=0.002)
    assert np.abs(kept.mean(axis=1) - 0.8).max() < 0.015
    assert np.abs(kept.mean(axis=0) - 0.8).max() < 0.3


@pytest.mark.parametrize("lag", [1, 2, 8, 50, 200, 4096])
def test_keep_mask_is_independent_between_positions(lag):
    kept = ops.convert_to_numpy(hashed_dropout.keep_mask(np.arange(20, dtype="int32"), 20_000, 0.5))
    assert correlation(kept[:, lag:], kept[:, :-lag]) < 0.01


def test_keep_mask_is_independent_between_rows_steps_and_layers():
    def bits(seed, counter):
        key = hashed_dropout.dropout_key(
            ops.convert_to_tensor(np.array([seed, counter], dtype="int64"))
        )
        keys = hashed_dropout.row_keys(key, 8)
        return ops.convert_to_numpy(hashed_dropout.keep_mask(keys, 20_000, 0.5))

    first = bits(3, 0)
    assert correlation(first[:-1], first[1:]) < 0.01
    assert correlation(first, bits(3, 1)) < 0.01
    assert correlation(first, bits(4, 0)) < 0.01


def test_dropout_keeps_the_mean_and_zeroes_the_dropped():
    inputs = np.ones((64, 50, 32), dtype="float32")
    output = ops.convert_to_numpy(
        hashed_dropout.dropout(
            ops.convert_to_tensor(inputs), 0.25, ops.convert_to_tensor(np.int32(5))
        )
    )
    assert set(np.unique(output).round(6)) == {0.0, np.float32(1 / 0.75).round(6)}
    assert output.mean() == pytest.approx(1.0, abs=0.01)


def lowbias32(x: np.ndarray) -> np.ndarray:
    """Wellons' finaliser on unsigned integers, as published."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def test_dropouts_bits_are_the_published_hash_on_every_backend():
    keys = np.array([5, -7], dtype="int32")
    counters = np.arange(1000, dtype="uint32") * np.uint32(0x9E3779B1)
    bits = lowbias32(counters[None] + keys.view("uint32")[:, None])
    expected = (bits & np.uint32(0x7FFFFFFF)) >= 0.3 * 2**31
    kept = hashed_dropout.keep_mask(ops.convert_to_tensor(keys), 1000, 0.3)
    np.testing.assert_array_equal(ops.convert_to_numpy(kept), expected)
