import numpy as np
import pytest
from scipy import stats

from segue.errors import DataError, RequestError
from segue.evaluation import metrics
from segue.evaluation.significance import Difference, holm, paired_bootstrap

ZEROS = np.zeros(4)


def test_the_difference_is_the_mean_of_the_users_differences():
    first, second = np.array([1.0, 0.5, 0.25, 0.0]), np.array([0.5, 0.5, 0.5, 0.5])
    assert paired_bootstrap(first, second).mean == pytest.approx(-1 / 16)


def test_interval_and_p_value_agree_with_drawing_pairs_of_users():
    rng = np.random.default_rng(0)
    first, second = rng.random(300), rng.random(300) + 0.03
    difference = paired_bootstrap(first, second, samples=20_000)
    users = np.random.default_rng(1).integers(0, 300, (20_000, 300))
    means = (first - second)[users].mean(axis=1)
    assert (difference.low, difference.high) == pytest.approx(
        np.quantile(means, [0.025, 0.975]), abs=0.002
    )
    observed = (first - second).mean()
    far = np.mean(np.abs(means - observed) >= abs(observed))
    assert difference.p_value == pytest.approx(far, abs=0.015)


def test_the_p_value_agrees_with_the_paired_t_test_on_many_users():
    rng = np.random.default_rng(2)
    first = rng.normal(size=2_000)
    second = first + rng.normal(0.005, 0.5, size=2_000)
    expected = stats.ttest_rel(first, second).pvalue
    assert 0.01 < expected < 0.5
    found = paired_bootstrap(first, second, samples=20_000).p_value
    assert found == pytest.approx(expected, abs=0.02)


def test_pairs_are_kept_together():
    # Two systems that differ by little on users who differ by much: only the pairs can tell.
    rng = np.random.default_rng(3)
    first = rng.random(500)
    difference = paired_bootstrap(first + 0.01, first)
    assert difference.low == pytest.approx(0.01)
    assert difference.p_value < 0.001


def test_equal_systems_are_equal_beyond_doubt():
    assert paired_bootstrap(ZEROS, ZEROS) == Difference(0.0, 0.0, 0.0, 1.0)


def test_a_p_value_is_never_below_one_in_the_resamples_and_the_sample():
    assert paired_bootstrap(ZEROS + 1, ZEROS, samples=99).p_value == 1 / 100


def test_swapping_the_systems_turns_the_sign_and_keeps_the_p_value():
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 2, 200) * 1.0, rng.integers(0, 2, 200) * 1.0
    there = paired_bootstrap(first, second, samples=20_000)
    back = paired_bootstrap(second, first, samples=20_000)
    assert back.mean == -there.mean
    assert (-back.high, -back.low) == pytest.approx((there.low, there.high), abs=0.01)
    assert back.p_value == pytest.approx(there.p_value, abs=0.03)


def test_chance_alone_is_called_real_as_often_as_the_level_says():
    rng = np.random.default_rng(5)
    p_values = [
        paired_bootstrap(rng.random(100), rng.random(100), samples=400).p_value for _ in range(400)
    ]
    # 20 expected, the standard deviation is 4.4.
    assert 8 <= np.count_nonzero(np.array(p_values) < 0.05) <= 36


def test_the_draws_depend_on_the_seed_and_not_on_the_blocks(monkeypatch):
    rng = np.random.default_rng(6)
    first, second = rng.random(50), rng.random(50)
    once = paired_bootstrap(first, second, seed=1)
    assert paired_bootstrap(first, second, seed=2) != once
    monkeypatch.setattr(metrics, "DRAWS_BYTES", 7 * 50 * 8)
    again = paired_bootstrap(first, second, seed=1)
    assert (again.low, again.high) == pytest.approx((once.low, once.high))


def test_holm_raises_p_values_as_worked_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, and none below one before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("setting", [{"samples": 0}, {"level": 0.0}, {"level": 1.0}])
def test_settings_that_resample_nothing_are_refused(setting):
    (name,) = setting
    with pytest.raises(RequestError, match=name):
        paired_bootstrap(ZEROS, ZEROS, **setting)


@pytest.mark.parametrize("second", [np.zeros(3), np.zeros((4, 1)), np.zeros(0)])
def test_values_of_other_users_are_refused(second):
    with pytest.raises(DataError, match="not of the same users"):
        paired_bootstrap(ZEROS if second.size else second, second)
