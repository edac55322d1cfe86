import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from scipy.stats import binomtest

from segue.data.histories import Histories
from segue.data.splits import HeldOut
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError, RequestError
from segue.evaluation import protocol
from segue.evaluation.calibration import reliability, top_probabilities, wilson


class Table:
    """A scorer that knows its answers."""

    def __init__(self, *rows: list[float]) -> None:
        self.scores = np.array([[7e7, *row] for row in rows], np.float32)

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        return self.scores[users]


def held_out_of(histories: list[list[int]], targets: list[int], num_items: int) -> HeldOut:
    vocabulary = Vocabulary.from_ids(pl.int_range(1, num_items + 1, eager=True))
    lists = [np.array(history, np.int32) for history in histories]
    return HeldOut("test", Histories.from_lists(vocabulary, lists), np.array(targets, np.int32))


def test_the_error_of_hand_worked_predictions() -> None:
    probabilities = np.array([0.9, 0.1, 0.2, 0.6, 0.1, 0.8])
    outcomes = np.array([True, False, True, False, False, True])
    found = reliability(probabilities, outcomes, bins=3)
    # By size: (0.1, 0.1) none of 2, (0.2, 0.6) one of 2, (0.8, 0.9) both.
    assert [each.predictions for each in found.bins] == [2, 2, 2]
    assert [each.predicted for each in found.bins] == pytest.approx([0.1, 0.4, 0.85])
    assert [each.observed for each in found.bins] == [0.0, 0.5, 1.0]
    assert found.error == pytest.approx((0.1 + 0.1 + 0.15) / 3)
    assert (found.predicted, found.observed) == pytest.approx((0.45, 0.5))


def test_true_probabilities_have_almost_no_error_and_doubled_ones_do() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.beta(1, 12, 200_000)
    outcomes = rng.random(200_000) < probabilities
    calibrated = reliability(probabilities, outcomes)
    # A bin of 20,000 strays by about 0.002 around its share of at most 0.3.
    assert calibrated.error < 0.003
    is_within = [each.low <= each.predicted <= each.high for each in calibrated.bins]
    assert sum(is_within) >= 8  # of 10, each with a chance of 95%
    doubled = reliability(np.minimum(2 * probabilities, 1), outcomes)
    assert doubled.error == pytest.approx(probabilities.mean(), abs=0.005)


def test_bins_are_as_equal_as_can_be_and_no_more_than_predictions() -> None:
    found = reliability(np.linspace(0, 1, 11), np.ones(11, np.bool_), bins=4)
    assert [each.predictions for each in found.bins] == [3, 3, 3, 2]
    assert len(reliability(np.array([0.5]), np.array([True])).bins) == 1


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (3, 40), (700, 9000)])
def test_the_intervals_are_wilsons(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_probabilities_are_the_softmax_over_what_is_not_in_the_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held_out = held_out_of([[2], [], [1, 2, 3]], [3, 1, 4], num_items=4)
    scorer = Table([1.0, 9.0, 3.0, 2.0], [500.0, 0.0, 499.0, 0.0], [0.0, 0.0, 0.0, -90.0])
    expected = [
        np.exp([3.0, 2.0]) / np.exp([1.0, 3.0, 2.0]).sum(),
        np.array([1.0, np.exp(-1)]) / (1 + np.exp(-1)),
        [1.0, 0.0],
    ]
    for block in (protocol.BLOCK_BYTES, 1):
        monkeypatch.setattr(protocol, "BLOCK_BYTES", block)
        probabilities, is_target = top_probabilities(scorer, held_out, k=2)
        assert probabilities == pytest.approx(np.array(expected))
        assert is_target.tolist() == [[True, False], [True, False], [True, False]]


def test_a_user_without_a_candidate_has_no_probabilities() -> None:
    probabilities, is_target = top_probabilities(Table([1.0, 2.0]), held_out_of([[1, 2]], [1], 2))
    assert probabilities.tolist() == [[0.0, 0.0]]
    assert not is_target.any()


def test_what_tells_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="0 predictions"):
        reliability(np.zeros(0), np.zeros(0, np.bool_))
    with pytest.raises(DataError, match="2 predictions with 1 outcomes"):
        reliability(np.zeros(2), np.zeros(1, np.bool_))
    with pytest.raises(DataError, match=r"1\.5 is no probability"):
        reliability(np.array([0.5, 1.5]), np.zeros(2, np.bool_))
    with pytest.raises(RequestError, match="bins=0"):
        reliability(np.zeros(2), np.zeros(2, np.bool_), bins=0)
    with pytest.raises(RequestError, match="k=0"):
        top_probabilities(Table([1.0]), held_out_of([[]], [1], 1), k=0)
