"""What an index promises: see `segue.retrieval.index.Index`."""

from collections.abc import Callable

import numpy as np

from segue.errors import RequestError
from segue.retrieval.index import INDEXES, Index, ItemIds, Scores
from segue.testing.arrays import assert_close

NUM_ITEMS, WIDTH, QUERIES, K = 400, 12, 30, 10


def check_index(name: str, *, min_recall: float = 1.0) -> None:
    """Holds the registered index of that name to what every index promises.

    Args:
        name: Its name.
        min_recall: The share of the true best items that it must find without an allow-list.

    Raises:
        AssertionError: A promise is broken; the line says which.
    """
    random = np.random.default_rng(0)
    table = random.normal(size=(NUM_ITEMS + 1, WIDTH)).astype(np.float32)
    table[0] = 100.0  # padding, which must never be found
    queries = random.normal(size=(QUERIES, WIDTH)).astype(np.float32)
    index = INDEXES[name](table)
    everything = np.arange(1, NUM_ITEMS + 1, dtype=np.int32)
    _check_search(index, table, queries, everything, min_recall)
    _check_exclusions(index, table, queries, min_recall)
    few = np.sort(random.choice(everything, 7, replace=False))
    top = index.search(queries, K, allowed=few)
    assert (top.counts == 7).all(), "an allow-list of 7 must give 7 items"
    assert np.isin(top.item_ids[:, :7], few).all(), "what is not allowed must not be found"
    assert not top.item_ids[:, 7:].any(), "places without a candidate must hold 0"
    assert_close(index.vectors(few), table[few], "vectors(ids) must be rows of the table")
    _check_refusals(index, queries)


def _check_search(
    index: Index, table: Scores, queries: Scores, candidates: ItemIds, min_recall: float
) -> None:
    top = index.search(queries, K)
    scores = queries @ table.T
    best = candidates[np.argsort(-scores[:, candidates], axis=1, kind="stable")[:, :K]]
    found = np.mean(
        [len(set(ours) & set(true)) / K for ours, true in zip(top.item_ids, best, strict=True)]
    )
    assert found >= min_recall, f"recall must be at least {min_recall}, got {found}"
    own = np.take_along_axis(scores, top.item_ids.astype(np.int64), axis=1)
    assert_close(top.scores, own, "a score must be the dot product of query and item")
    assert (np.diff(top.scores, axis=1) <= 1e-6).all(), "the best must come first"
    assert (top.item_ids > 0).all(), "padding must never be found"


def _check_exclusions(index: Index, table: Scores, queries: Scores, min_recall: float) -> None:
    first = index.search(queries, K)
    offsets = np.arange(QUERIES + 1, dtype=np.int64) * 3
    excluded = np.ascontiguousarray(first.item_ids[:, :3]).reshape(-1)
    top = index.search(queries, K, exclusions=(offsets, excluded))
    for row in range(QUERIES):
        own = excluded[offsets[row] : offsets[row + 1]]
        assert not np.isin(top.item_ids[row], own).any(), "what is excluded must not be found"
    if min_recall == 1.0:
        assert (top.item_ids[:, : K - 3] == first.item_ids[:, 3:]).all(), (
            "without the first three the others must move up"
        )


def _check_refusals(index: Index, queries: Scores) -> None:
    bad: dict[str, Callable[[], object]] = {
        "k=0": lambda: index.search(queries, 0),
        "queries of another width": lambda: index.search(queries[:, 1:], K),
        "queries that are not finite": lambda: index.search(queries * np.nan, K),
        "an allow-list that names no item": lambda: index.search(
            queries, K, allowed=np.array([NUM_ITEMS + 1], np.int32)
        ),
    }
    for what, ask in bad.items():
        try:
            ask()
        except RequestError:
            continue
        raise AssertionError(f"{what} must be refused with a RequestError")
