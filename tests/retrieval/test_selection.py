import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segue.retrieval import selection
from segue.retrieval.selection import best_keys, keys_of, positions_of, scores_of

Scores = npt.NDArray[np.float32]

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1.0, 3.0e38])


@given(st.lists(st.tuples(finite, st.integers(0, 2**32 - 2)), min_size=1))
def test_keys_give_back_their_score_and_position(pairs: list[tuple[float, int]]) -> None:
    scores = np.array([score for score, _ in pairs], np.float32)
    positions = np.array([position for _, position in pairs], np.int64)
    keys = keys_of(scores, positions)
    assert np.array_equal(scores_of(keys), scores)
    assert np.array_equal(positions_of(keys), positions)


@given(finite, finite, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_keys_order_by_score_and_then_by_the_lower_position(
    one: float, other: float, here: int, there: int
) -> None:
    first, second = keys_of(np.array([one, other], np.float32), np.array([here, there]))
    assert (first > second) == ((one, -here) > (other, -there))


@settings(deadline=None, max_examples=300)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(0, 12)), elements=few),
    st.integers(1, 15),
    st.integers(1, 200),
)
def test_the_best_are_those_of_sorting_whatever_the_blocks(
    scores: Scores, k: int, block_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "BLOCK_BYTES", block_bytes)
        num_rows, num_columns = scores.shape
        keys = best_keys(lambda first, stop: scores[:, first:stop], num_rows, num_columns, k)
    for row, best in zip(scores.tolist(), keys, strict=True):
        candidates = [(-score, column) for column, score in enumerate(row) if score > -np.inf]
        expected = sorted(candidates)[:k]
        assert positions_of(best)[: len(expected)].tolist() == [column for _, column in expected]
        assert scores_of(best)[: len(expected)].tolist() == [-score for score, _ in expected]
        assert np.isneginf(scores_of(best)[len(expected) :]).all()
