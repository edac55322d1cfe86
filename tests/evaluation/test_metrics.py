import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.errors import DataError, RequestError
from segue.evaluation import metrics
from segue.evaluation.metrics import (
    bootstrap_intervals,
    hit_rate,
    metric_values,
    ndcg,
    reciprocal_rank,
    summarize,
)

Ranks = npt.NDArray[np.int32]


def ranks_of(*ranks: int) -> Ranks:
    return np.array(ranks, np.int32)


HAND_WORKED = ranks_of(1, 2, 3, 11, 0)


def test_hit_rate_is_one_up_to_the_cutoff_and_zero_beyond() -> None:
    assert hit_rate(ranks_of(1, 9, 10, 11, 0), 10).tolist() == [1, 1, 1, 0, 0]


def test_ndcg_is_one_over_the_log_of_the_rank_plus_one() -> None:
    assert ndcg(ranks_of(1, 3, 7, 15, 16, 0), 15) == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 0, 0])


def test_reciprocal_rank_has_no_cutoff() -> None:
    assert reciprocal_rank(ranks_of(1, 4, 5000, 0)) == pytest.approx([1, 1 / 4, 1 / 5000, 0])


def test_with_a_cutoff_the_reciprocal_rank_ends_there() -> None:
    assert reciprocal_rank(ranks_of(1, 4, 5, 0), 4) == pytest.approx([1, 1 / 4, 0, 0])


@pytest.mark.parametrize("name", ["hr@5", "ndcg@20", "mrr@10", "mrr"])
def test_values_by_name_average_to_the_summary(name: str) -> None:
    assert metric_values(HAND_WORKED, name).mean() == pytest.approx(summarize(HAND_WORKED)[name])


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(RequestError, match="'auc' is unknown"):
        metric_values(HAND_WORKED, "auc")


def test_the_summary_of_five_hand_worked_users() -> None:
    third, twelfth = 1 / math.log2(3), 1 / math.log2(12)
    assert summarize(HAND_WORKED) == pytest.approx(
        {
            "hr@1": 1 / 5,
            "hr@5": 3 / 5,
            "hr@10": 3 / 5,
            "hr@20": 4 / 5,
            "ndcg@1": 1 / 5,
            "ndcg@5": (1 + third + 1 / 2) / 5,
            "ndcg@10": (1 + third + 1 / 2) / 5,
            "ndcg@20": (1 + third + 1 / 2 + twelfth) / 5,
            "mrr@1": 1 / 5,
            "mrr@5": 11 / 30,
            "mrr@10": 11 / 30,
            "mrr@20": 127 / 330,
            "mrr": 127 / 330,
        }
    )


def test_misses_lower_the_mean_instead_of_leaving_it() -> None:
    assert summarize(ranks_of(1, 0, 0, 0))["mrr"] == 1 / 4


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 60))
def test_metrics_lie_between_zero_and_the_hit_rate(ranks: list[int], k: int) -> None:
    hits, gains = hit_rate(ranks_of(*ranks), k), ndcg(ranks_of(*ranks), k)
    assert ((gains >= 0) & (gains <= hits)).all()
    assert ((gains > 0) == (hits == 1)).all()


def test_intervals_agree_with_drawing_users_with_replacement() -> None:
    ranks = np.random.default_rng(5).geometric(0.1, 400).astype(np.int32)
    users = np.random.default_rng(6).integers(0, len(ranks), (4000, len(ranks)))
    for name, values in {
        "hr@10": hit_rate(ranks, 10),
        "ndcg@10": ndcg(ranks, 10),
        "mrr": reciprocal_rank(ranks),
    }.items():
        expected = np.quantile(values[users].mean(axis=1), [0.025, 0.975])
        interval = bootstrap_intervals(ranks, samples=4000)[name]
        assert interval == pytest.approx(expected, abs=0.004)


def test_an_interval_of_a_share_is_as_wide_as_the_normal_approximation() -> None:
    ranks = np.where(np.arange(2000) % 10 < 3, 1, 0).astype(np.int32)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 2000)
    interval = bootstrap_intervals(ranks, samples=4000)["hr@1"]
    assert interval == pytest.approx((0.3 - half, 0.3 + half), abs=0.1 * half)


def test_users_with_several_ranks_are_drawn_whole() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 9, 60)
    owners = np.repeat(np.arange(60), sizes)
    # A user's ranks are alike, so that 60 users know less than as many independent ranks.
    ranks = ranks_of(*np.repeat(rng.integers(1, 13, 60), sizes))
    drawn = []
    for _ in range(4000):
        users = rng.integers(0, 60, 60)
        places = np.concatenate([np.flatnonzero(owners == user) for user in users])
        drawn.append(hit_rate(ranks[places], 5).mean())
    interval = bootstrap_intervals(ranks, owners=owners, samples=4000)["hr@5"]
    assert interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.02)
    independent = bootstrap_intervals(ranks, samples=4000)["hr@5"]
    assert interval[1] - interval[0] > 1.5 * (independent[1] - independent[0])


def test_owners_of_one_rank_each_change_nothing_but_the_draws() -> None:
    ranks = ranks_of(*range(1, 41))
    apart = bootstrap_intervals(ranks, owners=np.arange(40)[::-1] + 7, samples=4000)["mrr"]
    assert apart == pytest.approx(bootstrap_intervals(ranks, samples=4000)["mrr"], abs=0.01)


def test_a_lower_level_gives_a_narrower_interval() -> None:
    low, high = bootstrap_intervals(HAND_WORKED, level=0.95)["mrr"]
    inner_low, inner_high = bootstrap_intervals(HAND_WORKED, level=0.5)["mrr"]
    assert low < inner_low < inner_high < high


def test_users_who_all_fare_the_same_leave_no_doubt() -> None:
    assert set(bootstrap_intervals(ranks_of(1, 1, 1)).values()) == {(1.0, 1.0)}


def test_intervals_depend_on_the_seed_and_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = np.random.default_rng(1).integers(0, 40, 500).astype(np.int32)
    once = bootstrap_intervals(ranks, seed=3)
    assert bootstrap_intervals(ranks[::-1], seed=3) == once
    assert bootstrap_intervals(ranks, seed=4) != once
    monkeypatch.setattr(metrics, "DRAWS_BYTES", 7 * 40 * 8)
    blocks = bootstrap_intervals(ranks, seed=3)
    assert {name: pytest.approx(ends) for name, ends in once.items()} == blocks


@pytest.mark.parametrize("metric", [hit_rate, ndcg, reciprocal_rank])
@pytest.mark.parametrize("k", [0, -1])
def test_a_cutoff_below_one_is_refused(metric: Callable[[Ranks, int], object], k: int) -> None:
    with pytest.raises(RequestError, match=f"k={k}"):
        metric(HAND_WORKED, k)


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        (np.empty(0, np.int32), "at least one user"),
        (ranks_of(3, -2), "-2 is no rank"),
        (np.array([1.5]), "float64"),
        (np.ones((2, 2), np.int32), "2, 2"),
    ],
)
@pytest.mark.parametrize("metric", [summarize, bootstrap_intervals, reciprocal_rank])
def test_what_is_no_list_of_ranks_is_refused(
    metric: Callable[[Ranks], object], ranks: Ranks, told: str
) -> None:
    with pytest.raises(DataError, match=told):
        metric(ranks)


@pytest.mark.parametrize("setting", [{"samples": 0}, {"level": 0.0}, {"level": 1.0}])
def test_settings_that_resample_nothing_are_refused(setting: dict[str, float]) -> None:
    (name,) = setting
    with pytest.raises(RequestError, match=name):
        bootstrap_intervals(HAND_WORKED, **setting)  # type: ignore[arg-type]


def test_the_metrics_agree_with_ranx_on_rankings_without_ties(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Compiling ranx takes half a minute, interpreting it for a few users a second.
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    ranx = pytest.importorskip("ranx", reason="ranx, a development dependency, is not installed")
    num_users, num_items = 60, 30
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(num_items, dtype=np.float64), (num_users, 1)), axis=1)
    targets = rng.integers(0, num_items, num_users)
    target_scores = scores[np.arange(num_users), targets]
    ranks = 1 + (scores > target_scores[:, None]).sum(axis=1, dtype=np.int32)

    qrels = ranx.Qrels({f"u{user}": {f"i{item}": 1} for user, item in enumerate(targets)})
    run = ranx.Run(
        {
            f"u{user}": {f"i{item}": score for item, score in enumerate(row)}
            for user, row in enumerate(scores)
        }
    )
    pairs = (("hr", "hit_rate"), ("ndcg", "ndcg"), ("mrr", "mrr"))
    names = {f"{ours}@{k}": f"{its}@{k}" for k in (1, 5, 10, 20) for ours, its in pairs}
    average_precisions = [f"map@{k}" for k in (1, 5, 10, 20)]
    theirs = ranx.evaluate(qrels, run, [*names.values(), "mrr", *average_precisions])
    assert summarize(ranks) == pytest.approx(
        {**{ours: theirs[its] for ours, its in names.items()}, "mrr": theirs["mrr"]}
    )
    for name in average_precisions:
        assert theirs[name] == pytest.approx(theirs[name.replace("map", "mrr")])
