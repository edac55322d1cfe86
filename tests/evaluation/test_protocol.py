import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.histories import Histories
from segue.data.splits import HeldOut
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError, RequestError
from segue.evaluation import protocol
from segue.evaluation.metrics import summarize
from segue.evaluation.protocol import Ranking, rank_full, rank_sampled, ranker, report

Scores = npt.NDArray[np.float32]
PADDING = -77.0


@dataclass(frozen=True)
class Table:
    """A scorer that knows its answers: float32[users, num_items + 1]."""

    scores: Scores

    def score(self, histories: Histories, users: slice) -> Scores:
        return self.scores[users]


def table(*rows: list[float]) -> Table:
    """Scores of the items 1..num_items, a row a user."""
    return Table(np.array([[PADDING, *row] for row in rows], np.float32))


def held_out_of(histories: list[list[int]], targets: list[int], num_items: int) -> HeldOut:
    vocabulary = Vocabulary.from_ids(pl.int_range(1, num_items + 1, eager=True))
    lists = [np.array(history, np.int32) for history in histories]
    return HeldOut("test", Histories.from_lists(vocabulary, lists), np.array(targets, np.int32))


def test_the_target_ranks_behind_everything_that_scores_more() -> None:
    held_out = held_out_of([[1], [2]], [4, 1], num_items=4)
    ranking = rank_full(table([0, 7, 8, 6], [9, 0, 5, 5]), held_out)
    assert ranking.ranks.tolist() == [3, 1]
    assert ranking.candidates.tolist() == [3, 3]
    assert ranking.targets.tolist() == [4, 1]
    assert ranking.user_ids.to_list() == [0, 1]


def test_a_target_tied_with_others_ranks_behind_all_of_them() -> None:
    ranking = rank_full(table([5, 5, 5, 9, 1]), held_out_of([[]], [2], num_items=5))
    assert ranking.ranks.tolist() == [4]


def test_items_seen_before_are_no_candidates_unless_asked_for() -> None:
    held_out, scorer = held_out_of([[1, 2, 1]], [3], num_items=4), table([9, 9, 5, 1])
    assert rank_full(scorer, held_out).ranks.tolist() == [1]
    with_seen = rank_full(scorer, replace(held_out, repeats=True))
    assert with_seen.ranks.tolist() == [3]
    assert with_seen.candidates.tolist() == [4]


@pytest.mark.parametrize("padding", [math.inf, math.nan, -math.inf])
def test_padding_is_never_a_candidate_whatever_its_score(padding: float) -> None:
    scorer = table([3, 2, 1])
    scorer.scores[:, 0] = padding
    held_out = held_out_of([[]], [1], num_items=3)
    for ranking in (rank_full(scorer, held_out), rank_sampled(scorer, held_out)):
        assert (ranking.ranks.tolist(), ranking.candidates.tolist()) == ([1], [3])


def test_a_target_never_trained_on_is_a_miss_and_its_user_counts() -> None:
    held_out, scorer = held_out_of([[1], [1]], [2, 3], num_items=3), table([0, 9, 1], [0, 1, 9])
    is_trained = np.array([False, True, True, False])
    for rank in (rank_full, rank_sampled):
        assert rank(scorer, held_out, is_trained=is_trained).ranks.tolist() == [1, 0]


def test_a_target_seen_before_is_a_miss() -> None:
    held_out, scorer = held_out_of([[1, 2]], [2], num_items=3), table([0, 9, 1])
    assert rank_full(scorer, held_out).ranks.tolist() == [0]
    assert rank_sampled(scorer, held_out).ranks.tolist() == [0]
    assert rank_full(scorer, replace(held_out, repeats=True)).ranks.tolist() == [1]


@pytest.mark.parametrize("rank", [rank_full, rank_sampled])
@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error_that_names_the_user(
    rank: Callable[..., Ranking], score: float
) -> None:
    held_out = held_out_of([[1], [1], [1]], [2, 2, 2], num_items=4)
    scorer = table([0, 1, 2, 3], [0, 1, score, score], [0, 1, 2, score])
    with pytest.raises(DataError, match=r"2 of the 3 candidates of user 1 .* dense id 3"):
        rank(scorer, held_out)


def test_a_score_that_is_not_finite_does_no_harm_where_nobody_looks() -> None:
    ranking = rank_full(table([math.nan, 5, 1]), held_out_of([[1]], [2], num_items=3))
    assert ranking.ranks.tolist() == [1]


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(1, 4\) where \(1, 5\)"):
        rank_full(table([1, 2, 3]), held_out_of([[]], [2], num_items=4))


def test_flags_of_another_shape_are_refused() -> None:
    held_out = held_out_of([[]], [2], num_items=3)
    with pytest.raises(DataError, match=r"\(3,\).*\(4,\)"):
        rank_full(table([1, 2, 3]), held_out, is_trained=np.ones(3, np.bool_))


@st.composite
def cases(draw: st.DrawFn) -> tuple[HeldOut, Table, npt.NDArray[np.bool_]]:
    """Few items with few different scores, so that ties, repeats and misses are common."""
    num_items, num_users = draw(st.integers(1, 7)), draw(st.integers(0, 6))
    item = st.integers(1, num_items)
    histories = [draw(st.lists(item, max_size=8)) for _ in range(num_users)]
    targets = [draw(item) for _ in range(num_users)]
    score = st.sampled_from([-1.0, 0.0, 0.5, 2.0])
    rows = [
        [draw(st.sampled_from([math.inf, math.nan, 0.0])), *(draw(score) for _ in range(num_items))]
        for _ in range(num_users)
    ]
    scores = np.array(rows, np.float32).reshape(num_users, num_items + 1)
    is_trained = np.array([draw(st.booleans()) for _ in range(num_items + 1)])
    return held_out_of(histories, targets, num_items), Table(scores), is_trained


@settings(deadline=None, max_examples=200)
@given(cases(), st.booleans(), st.integers(1, 100))
def test_the_full_ranking_agrees_with_sorting_each_users_catalogue(
    case: tuple[HeldOut, Table, npt.NDArray[np.bool_]], exclude_seen: bool, block_bytes: int
) -> None:
    held_out, scorer, is_trained = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "BLOCK_BYTES", block_bytes)
        ranking = rank_full(
            scorer, replace(held_out, repeats=not exclude_seen), is_trained=is_trained
        )
    for user in range(held_out.num_users):
        target, scores = int(held_out.targets[user]), scorer.scores[user].tolist()
        seen = set(held_out.histories.items_of(user).tolist()) if exclude_seen else set()
        candidates = [item for item in range(1, len(scores)) if item not in seen]
        worst_first_on_ties = sorted(candidates, key=lambda item: (-scores[item], item == target))
        is_miss = target in seen or not is_trained[target]
        expected = 0 if is_miss else worst_first_on_ties.index(target) + 1
        assert ranking.ranks[user] == expected
        assert ranking.candidates[user] == len(candidates)


def drawn_negatives(held_out: HeldOut, negatives: int, seed: int = 0) -> list[set[int]]:
    """Each user's negatives, found out by scoring one item above the target at a time."""
    num_items = held_out.histories.vocabulary.num_items
    drawn: list[set[int]] = [set() for _ in range(held_out.num_users)]
    for item in range(1, num_items + 1):
        scores = np.zeros((held_out.num_users, num_items + 1), np.float32)
        scores[np.arange(held_out.num_users), held_out.targets] = 1
        scores[:, item] += 2
        ranking = rank_sampled(Table(scores), held_out, negatives=negatives, seed=seed)
        for user in np.flatnonzero(ranking.ranks == 2):
            drawn[user].add(item)
    return drawn


def test_negatives_are_different_unseen_items_as_many_as_asked_for() -> None:
    histories = [[1, 2, 3], [4, 4, 4, 5], [], list(range(1, 13)), [9]]
    held_out = held_out_of(histories, [13, 1, 7, 20, 8], num_items=20)
    drawn = drawn_negatives(held_out, negatives=6)
    for negatives, history, target in zip(drawn, histories, held_out.targets, strict=True):
        assert len(negatives) == 6
        assert not negatives & {*history, int(target)}
    ranking = rank_sampled(table(*[[0.0] * 20] * 5), held_out, negatives=6)
    assert ranking.candidates.tolist() == [7] * 5
    assert ranking.ranks.tolist() == [7] * 5


def test_a_user_with_few_unseen_items_is_ranked_against_all_of_them() -> None:
    held_out = held_out_of([[1, 2, 3, 3], []], [4, 1], num_items=6)
    assert drawn_negatives(held_out, negatives=4) == [{5, 6}, drawn_negatives(held_out, 4)[1]]
    ranking = rank_sampled(table([0.0] * 6, [0.0] * 6), held_out, negatives=4)
    assert ranking.candidates.tolist() == [3, 5]


def test_negatives_depend_on_the_seed_and_not_on_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held_out = held_out_of([[user % 7 + 1] for user in range(9)], [9] * 9, num_items=14)
    once = drawn_negatives(held_out, negatives=5)
    assert drawn_negatives(held_out, negatives=5) == once
    assert drawn_negatives(held_out, negatives=5, seed=1) != once
    monkeypatch.setattr(protocol, "BLOCK_BYTES", 2 * 15 * 4)
    assert drawn_negatives(held_out, negatives=5) == once


def test_every_unseen_item_is_drawn_equally_often() -> None:
    num_users = 4000
    held_out = held_out_of([[1, 2]] * num_users, [3] * num_users, num_items=11)
    drawn = drawn_negatives(held_out, negatives=2)
    counts = np.bincount([item for negatives in drawn for item in negatives], minlength=12)
    # Each of 8 unseen items is drawn with probability 1/4: 1000 times, give or take 27.
    assert counts[:4].tolist() == [0, 0, 0, 0]
    assert counts[4:] == pytest.approx(1000, abs=5 * 27)


@pytest.mark.parametrize("negatives", [0, -3])
def test_a_number_of_negatives_below_one_is_refused(negatives: int) -> None:
    with pytest.raises(RequestError, match=f"negatives={negatives}"):
        rank_sampled(table([1.0]), held_out_of([[]], [1], num_items=1), negatives=negatives)


def evaluate(scorer, held_out, *, protocol: str = "full", seed: int = 0) -> dict[str, Any]:
    """The report of a ranking by that protocol."""
    ranking = ranker(protocol, None, seed)(scorer, held_out)
    return report(ranking, held_out, protocol=protocol, seed=seed)


def test_the_report_holds_the_figures_of_the_scorer_and_the_baselines() -> None:
    held_out = held_out_of([[1], [2]], [3, 3], num_items=5)
    scorer, baseline = table([0, 9, 8, 0, 0], [9, 0, 8, 0, 0]), table([0, 0, 1, 0, 0], [0] * 5)
    baselines = {"popularity": rank_full(baseline, held_out)}
    result = report(rank_full(scorer, held_out), held_out, baselines=baselines)
    assert list(result) == [
        *("protocol", "part", "users", "targets", "candidates", "metrics", "intervals"),
        *("baselines", "by_training", "notes"),
    ]
    assert (result["protocol"], result["part"]) == ("full", "test")
    assert (result["users"], result["targets"], result["candidates"]) == (2, 2, 5)
    assert result["metrics"] == summarize(np.array([2, 2], np.int32))
    assert result["intervals"]["mrr"] == [0.5, 0.5]
    assert result["baselines"] == {"popularity": summarize(np.array([1, 4], np.int32))}
    assert result["notes"] == []
    assert json.loads(json.dumps(result)) == result


def test_the_report_notes_what_lowers_the_figures() -> None:
    held_out = held_out_of([[], [1, 1, 2], [3], []], [1, 1, 2, 4], num_items=4)
    is_trained = np.array([False, True, False, True, True])
    ranking = rank_full(table(*[[0.0] * 4] * 4), held_out, is_trained=is_trained)
    notes = report(ranking, held_out, is_trained=is_trained)["notes"]
    assert notes == [
        "1 of 4 users have a target that was never trained on: a miss",
        "1 of 4 users have a target that they had seen before: a miss "
        "(--repeats makes it a candidate)",
        "2 of 4 users have an empty history",
    ]


def test_targets_of_the_same_user_are_counted_apart_from_the_users() -> None:
    held_out = held_out_of([[1], [1, 2], [3]], [2, 3, 3], num_items=4)
    twice = replace(held_out.histories, user_ids=pl.Series(["b", "b", "a"]))
    held_out = replace(held_out, histories=twice)
    result = evaluate(table([0, 9, 1, 1], [0, 0, 9, 1], [9, 9, 1, 9]), held_out)
    assert (result["users"], result["targets"]) == (2, 3)
    assert result["metrics"]["hr@1"] == pytest.approx(2 / 3)
    # Whole users are drawn: a twice, a and b, or b twice.
    assert result["intervals"]["hr@1"] == [0.0, 1.0]
    assert result["notes"] == [
        "1 of 3 histories, one for each target, have a target that they had seen before: a miss "
        "(--repeats makes it a candidate)"
    ]


def test_the_sampled_report_says_how_many_candidates_and_that_it_is_inconsistent() -> None:
    num_items = 300
    held_out = held_out_of([[1]] * 50, [2] * 50, num_items)
    scores = np.tile(-np.abs(np.arange(num_items + 1, dtype=np.float32) - 31), (50, 1))
    result = evaluate(Table(scores), held_out, protocol="sampled")
    assert result["candidates"] == 101
    assert "inconsistent" in result["notes"][-1]
    # The target, 59th of 299, meets a third of the 58 before it: about the 20th place of 101.
    assert result["metrics"]["mrr"] == pytest.approx(1 / 20, abs=0.01)


def test_the_reports_seed_draws_the_intervals_and_the_negatives() -> None:
    held_out = held_out_of([[]] * 40, list(range(1, 41)), num_items=400)
    scorer = Table(np.random.default_rng(2).normal(size=(40, 401)).astype(np.float32))
    for name in ("full", "sampled"):
        first, second, other = (
            evaluate(scorer, held_out, protocol=name, seed=seed) for seed in (1, 1, 2)
        )
        assert first == second
        assert first["intervals"] != other["intervals"]
        assert (first["metrics"] == other["metrics"]) == (name == "full")


def test_an_unknown_protocol_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RequestError, match="'fast' is unknown; it is 'full' or 'sampled'"):
        evaluate(table([1.0]), held_out_of([[]], [1], num_items=1), protocol="fast")


def test_an_evaluation_of_nobody_is_refused() -> None:
    with pytest.raises(DataError, match="at least one user"):
        evaluate(Table(np.empty((0, 3), np.float32)), held_out_of([], [], num_items=2))
