import numpy as np
import pytest

from segue.config import ModelConfig
from segue.data.times import UNKNOWN_TIME
from segue.model.encoders.gaps import NUM_BUCKETS, GapEmbedding, gap_buckets
from segue.testing.arrays import as_array
from segue.testing.encoders import check_encoder

DAY = 86_400


def buckets_of(*gaps: int) -> list[int]:
    """The buckets of gaps that begin at second 1,000."""
    then = np.full(len(gaps), 1_000, np.int32)
    return as_array(gap_buckets(then, then + np.array(gaps, np.int32))).tolist()


def test_a_bucket_holds_gaps_within_a_factor_of_1_35():
    # exp(0.301 * n) for n = 0, 1, ...: 1, 1.35, 1.83, 2.47, 3.33, 4.5, 6.09, ...
    assert buckets_of(0, 1, 2, 3, 4, 5, 6, 7) == [1, 2, 4, 5, 6, 7, 7, 8]
    # ln(86,400) / 0.301 = 37.8
    assert buckets_of(DAY) == [39]


def test_a_request_before_the_item_counts_as_one_at_the_same_time():
    assert buckets_of(-1, -DAY) == [1, 1]


def test_what_is_not_known_has_a_bucket_of_its_own():
    then = np.array([UNKNOWN_TIME, 5, UNKNOWN_TIME], np.int32)
    asked_at = np.array([5, UNKNOWN_TIME, UNKNOWN_TIME], np.int32)
    assert as_array(gap_buckets(then, asked_at)).tolist() == [0, 0, 0]


def test_the_longest_gap_that_times_can_have_is_in_the_last_bucket():
    bounds = np.iinfo(np.int32)
    then, asked_at = np.array([bounds.min + 1], np.int32), np.array([bounds.max], np.int32)
    assert as_array(gap_buckets(then, asked_at)).tolist() == [NUM_BUCKETS - 1]


@pytest.fixture
def embedding() -> GapEmbedding:
    embedding = GapEmbedding(4, hidden_share=0.2, seed=0)
    embedding.build()
    return embedding


def inputs_of(gaps: np.ndarray) -> dict[str, np.ndarray]:
    then = np.zeros(gaps.shape, np.int32)
    return {"timestamps": then, "asked_at": then + gaps.astype(np.int32)}


def test_a_gap_longer_than_any_trained_is_taken_for_the_longest_trained(embedding):
    trained = as_array(gap_buckets(np.array([0]), np.array([DAY])))[0]
    steps = np.zeros((NUM_BUCKETS - 1, 4), np.float32)
    steps[:trained] = np.random.default_rng(0).normal(size=(trained, 4))
    embedding.steps.assign(steps)
    inputs = inputs_of(np.array([[DAY, 10 * DAY, 1_000 * DAY, 60]]))
    vectors = as_array(embedding(inputs, np.ones((1, 4), np.int32)))[0]
    np.testing.assert_array_equal(vectors[1], vectors[0])
    np.testing.assert_array_equal(vectors[2], vectors[0])
    assert np.abs(vectors[3] - vectors[0]).max() > 0.1


def test_training_hides_single_gaps_and_those_of_whole_windows(embedding):
    embedding.unknown.assign(np.full((1, 4), 7.0, np.float32))
    segment_ids = np.repeat([[1, 2]], 50, axis=1).repeat(500, axis=0).astype(np.int32)
    segment_ids = np.sort(segment_ids, axis=1)  # two windows of 50 in each row
    inputs = inputs_of(np.full((500, 100), DAY))
    is_hidden = as_array(embedding(inputs, segment_ids, training=True))[:, :, 0] == 7.0
    of_windows = is_hidden.reshape(1_000, 50).mean(axis=1)
    # A fifth of the windows as a whole, and a fifth of the positions of the others.
    assert (of_windows == 1.0).mean() == pytest.approx(0.2, abs=0.05)
    assert of_windows[of_windows < 1.0].mean() == pytest.approx(0.2, abs=0.01)
    again = as_array(embedding(inputs, segment_ids, training=True))[:, :, 0] == 7.0
    assert (again != is_hidden).any()  # others at the next step


def test_nothing_is_hidden_outside_of_training(embedding):
    embedding.unknown.assign(np.full((1, 4), 7.0, np.float32))
    vectors = as_array(embedding(inputs_of(np.full((50, 4), DAY)), np.ones((50, 4), np.int32)))
    assert (vectors != 7.0).all()


@pytest.mark.parametrize("encoder", ["sasrec", "esasrec", "sasrec-original"])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_encoders_that_read_gaps_keep_what_encoders_promise(encoder, positions):
    check_encoder(
        encoder, request_time="gap", positions=positions, num_heads=2, max_length=12, width=8
    )


def test_a_model_without_request_time_asks_for_no_times():
    assert ModelConfig().request_time == "unused"
