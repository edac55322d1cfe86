from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.backend import load_keras
from segue.errors import DataError, RequestError
from segue.retrieval import exact, selection
from segue.retrieval.exact import ExactIndex
from segue.retrieval.selection import TopK, top_k

Floats = npt.NDArray[np.float32]
ItemIds = npt.NDArray[np.int32]


def ids(*item_ids: int) -> ItemIds:
    return np.array(item_ids, np.int32)


def index_of(*item_scores: float) -> ExactIndex:
    """An index of width 1, where the query 1 scores the items 1, 2, ... as given."""
    return ExactIndex(np.array([[99.0], *([score] for score in item_scores)], np.float32))


ONE = np.ones((1, 1), np.float32)


def best_of(scores: list[float], candidates: set[int], k: int) -> list[int]:
    """The k best of the candidates by sorting all of them."""
    return sorted(candidates, key=lambda item: (-scores[item], item))[:k]


@contextmanager
def blocks_of(block_bytes: int, rows: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "BLOCK_BYTES", block_bytes)
        patch.setattr(exact, "BLOCK_ROWS", rows)
        patch.setattr(selection, "BLOCK_ROWS", rows)
        yield


def test_the_best_items_come_in_descending_score_and_padding_never() -> None:
    found = index_of(2, 5, -1, 4).search(ONE, 3)
    assert found.item_ids.tolist() == [[2, 4, 1]]
    assert found.scores.tolist() == [[5, 4, 2]]
    assert found.counts.tolist() == [3]
    assert [str(array.dtype) for array in (found.item_ids, found.scores)] == ["int32", "float32"]


def test_of_equal_scores_the_lower_id_comes_first_even_at_the_last_place() -> None:
    assert index_of(1, 3, 1, 3, 1, 3).search(ONE, 4).item_ids.tolist() == [[2, 4, 6, 1]]


def test_fewer_candidates_than_k_give_fewer_items_and_say_so() -> None:
    found = index_of(1, 2, 3).search(ONE, 5, exclusions=(np.array([0, 1]), ids(3)))
    assert found.item_ids.tolist() == [[2, 1, 0, 0, 0]]
    assert found.scores.tolist() == [[2, 1, -np.inf, -np.inf, -np.inf]]
    assert found.counts.tolist() == [2]


def test_each_row_has_exclusions_of_its_own() -> None:
    queries = np.ones((3, 1), np.float32)
    exclusions = (np.array([0, 2, 2, 3]), ids(3, 3, 1))
    found = index_of(1, 2, 3).search(queries, 2, exclusions=exclusions)
    assert found.item_ids.tolist() == [[2, 1], [3, 2], [3, 2]]


def test_an_excluded_0_excludes_nothing() -> None:
    exclusions = (np.array([0, 2]), ids(0, 2))
    assert index_of(1, 2).search(ONE, 1, exclusions=exclusions).item_ids.tolist() == [[1]]


@pytest.mark.parametrize("num_items", [4, 400])
def test_only_allowed_items_are_found(num_items: int) -> None:
    found = index_of(*range(num_items)).search(ONE, 3, allowed=ids(2, 4))
    assert found.item_ids.tolist() == [[4, 2, 0]]
    assert found.counts.tolist() == [2]


def test_an_empty_allow_list_leaves_nothing() -> None:
    exclusions = (np.array([0, 1]), ids(1))
    found = index_of(1, 2).search(ONE, 2, allowed=ids(), exclusions=exclusions)
    assert found.counts.tolist() == [0]


def test_no_query_finds_nothing() -> None:
    assert index_of(1, 2).search(np.empty((0, 1), np.float32), 2).item_ids.shape == (0, 2)


@st.composite
def searches(draw: st.DrawFn) -> tuple[Floats, Floats, list[list[int]], list[int] | None]:
    """Small whole numbers, so that products are exact and ties common."""
    num_items, num_rows, width = draw(st.integers(1, 25)), draw(st.integers(1, 5)), 2
    value = st.integers(-2, 2)
    table = draw(st.lists(st.lists(value, min_size=width, max_size=width), min_size=num_items))
    queries = draw(
        st.lists(
            st.lists(value, min_size=width, max_size=width), min_size=num_rows, max_size=num_rows
        )
    )
    item = st.integers(1, len(table))
    excluded = [draw(st.lists(item, max_size=8)) for _ in range(num_rows)]
    allowed = draw(st.none() | st.sets(item).map(sorted))
    return (
        np.array([[9] * width, *table], np.float32),
        np.array(queries, np.float32),
        excluded,
        allowed,
    )


@settings(deadline=None, max_examples=300)
@given(searches(), st.integers(1, 30), st.integers(1, 200), st.integers(1, 6))
def test_the_search_agrees_with_sorting_each_rows_candidates_whatever_the_blocks(
    case: tuple[Floats, Floats, list[list[int]], list[int] | None],
    k: int,
    block_bytes: int,
    block_rows: int,
) -> None:
    table, queries, excluded, allowed = case
    offsets = np.cumsum([0, *map(len, excluded)])
    flat = ids(*(item for row in excluded for item in row))
    with blocks_of(block_bytes, block_rows):
        found = ExactIndex(table).search(
            queries,
            k,
            exclusions=(offsets, flat),
            allowed=None if allowed is None else ids(*allowed),
        )
    pool = set(range(1, len(table))) if allowed is None else set(allowed)
    for row, query in enumerate(queries):
        scores = (table @ query).tolist()
        best = best_of(scores, pool - set(excluded[row]), k)
        missing = k - len(best)
        assert found.counts[row] == len(best)
        assert found.item_ids[row].tolist() == best + [0] * missing
        assert found.scores[row].tolist() == [scores[i] for i in best] + [-np.inf] * missing


def test_a_large_search_agrees_with_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((5001, 16), np.float32)
    queries = rng.standard_normal((300, 16), np.float32)
    with blocks_of(2**18, 128):
        found = ExactIndex(table).search(queries, 50)
    scores = queries @ table.T
    scores[:, 0] = -np.inf
    expected = np.sort(scores, axis=1)[:, :-51:-1]
    assert found.scores == pytest.approx(expected, abs=1e-5)
    assert np.take_along_axis(scores, found.item_ids, axis=1) == pytest.approx(expected, abs=1e-5)


def test_scores_exist_in_blocks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    merged = selection._merged

    def spy(best: selection.Keys, scores: Floats, first: int) -> selection.Keys:
        shapes.append(scores.shape)
        return merged(best, scores, first)

    monkeypatch.setattr(selection, "_merged", spy)
    table, queries = np.ones((50_001, 2), np.float32), np.ones((600, 2), np.float32)
    ExactIndex(table).search(queries, 3)
    assert sum(rows * columns for rows, columns in shapes) == 600 * 50_000
    assert max(rows * columns for rows, columns in shapes) * 4 <= selection.BLOCK_BYTES


@pytest.mark.parametrize("k", [0, -1])
def test_a_k_below_one_is_refused(k: int) -> None:
    with pytest.raises(RequestError, match=f"k must be at least 1, got {k}"):
        index_of(1).search(ONE, k)
    with pytest.raises(RequestError, match=f"k must be at least 1, got {k}"):
        top_k(ONE, k)


@pytest.mark.parametrize("shape", [(1,), (1, 2), (1, 1, 1)])
def test_queries_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=r"needs \[rows, 1\]"):
        index_of(1).search(np.ones(shape, np.float32), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_queries_whose_scores_would_not_be_finite_are_refused(value: float) -> None:
    queries = np.array([[1], [value], [1]], np.float32)
    with pytest.raises(RequestError, match="1 of 3 queries, the first in row 1"):
        index_of(1, 2).search(queries, 1)


def test_queries_whose_products_overflow_only_when_added_up_are_refused() -> None:
    large = np.full((2, 4), 1e19, np.float32)
    with pytest.raises(RequestError, match="scores overflow"):
        ExactIndex(large).search(large, 1)


@pytest.mark.parametrize(
    ("offsets", "item_ids", "told"),
    [
        ([0], [], "1 offsets do not fit 1 rows"),
        ([0, 2], [1], "do not fit"),
        ([1, 1], [1], "do not fit"),
        ([0, 1], [3], "exclusions hold 3.*from 0 to 2"),
        ([0, 1], [-1], "exclusions hold -1"),
    ],
)
def test_exclusions_that_do_not_fit_are_refused(
    offsets: list[int], item_ids: list[int], told: str
) -> None:
    with pytest.raises(RequestError, match=told):
        index_of(1, 2).search(ONE, 1, exclusions=(np.array(offsets), ids(*item_ids)))


def test_offsets_that_fall_are_refused() -> None:
    with pytest.raises(RequestError, match="do not fit"):
        index_of(1, 2).search(
            np.ones((2, 1), np.float32), 1, exclusions=(np.array([0, 2, 1]), ids(1))
        )


@pytest.mark.parametrize(
    ("allowed", "told"),
    [
        ([2, 1], "not ascending"),
        ([1, 1], "not ascending"),
        ([0, 1], "allow-list hold 0.*from 1 to 2"),
        ([1, 3], "allow-list hold 3"),
    ],
)
def test_allow_lists_that_are_malformed_are_refused(allowed: list[int], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        index_of(1, 2).search(ONE, 1, allowed=ids(*allowed))


@pytest.mark.parametrize("shape", [(3,), (1, 4), (3, 0)])
def test_a_table_of_no_items_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="num_items \\+ 1, width"):
        ExactIndex(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_table_that_is_not_finite_is_refused_but_for_its_padding(value: float) -> None:
    table = np.ones((3, 2), np.float32)
    table[0] = value
    assert ExactIndex(table).search(np.ones((1, 2), np.float32), 2).counts.tolist() == [2]
    table[2, 1] = value
    with pytest.raises(DataError, match="NaN or infinity"):
        ExactIndex(table)


def test_the_top_columns_of_given_scores_and_fewer_where_minus_infinity_bars_them() -> None:
    scores = np.array([[-np.inf, 1, 3, 3], [-np.inf, -np.inf, -5, -np.inf]], np.float32)
    item_ids, best = top_k(scores, 3)
    assert item_ids.tolist() == [[2, 3, 1], [2, 0, 0]]
    assert best.tolist() == [[3, 3, 1], [-5, -np.inf, -np.inf]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 299])
def test_given_scores_that_order_nothing_are_refused(value: float, row: int) -> None:
    scores = np.zeros((300, 4), np.float32)
    scores[row, 2] = value
    with pytest.raises(RequestError, match=r"NaN or \+inf"):
        top_k(scores, 2)


def test_the_items_are_those_of_keras_rs_but_for_nearly_equal_scores() -> None:
    load_keras()
    keras_rs = pytest.importorskip(
        "keras_rs", reason="keras-rs, a development dependency, is not installed"
    )
    rng = np.random.default_rng(3)
    table = rng.standard_normal((2001, 32), np.float32)
    queries = rng.standard_normal((200, 32), np.float32)
    layer = keras_rs.layers.BruteForceRetrieval(table[1:], k=20)
    their_scores, their_columns = (np.asarray(each) for each in layer(queries))
    found = ExactIndex(table).search(queries, 20)
    assert found.scores == pytest.approx(their_scores, abs=1e-4)
    assert differ_only_where_scores_are_close(found, their_columns + 1)


def differ_only_where_scores_are_close(found: TopK, item_ids: ItemIds) -> bool:
    """Whether two top lists name the same items, but within runs of scores closer than 1e-4."""
    for ours, theirs, scores in zip(found.item_ids, item_ids, found.scores.tolist(), strict=True):
        cuts = [place for place, (a, b) in enumerate(pairwise(scores), 1) if a - b > 1e-4]
        ends = [0, *cuts]
        for start, stop in pairwise(ends):
            if set(ours[start:stop].tolist()) != set(theirs[start:stop].tolist()):
                return False
    return True
