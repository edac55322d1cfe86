"""Metrics: from the rank of each user's one target to numbers, with intervals.

Ranks are `int32[users]`: 1 is the best place, 0 a miss (the target was no candidate), which counts
as 0 in every metric. With one target a user, HR@k and Recall@k are the same number.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from segue.errors import DataError, RequestError

Values = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int32]

CUTOFFS = (1, 5, 10, 20)
DRAWS_BYTES = 64 * 2**20


def hit_rate(ranks: Ranks, k: int) -> Values:
    """HR@k of each user, float64[users]: 1 if 0 < rank <= k, else 0.

    Source: Deshpande and Karypis, "Item-based top-N recommendation algorithms", ACM TOIS 22(1),
    2004, where the mean over the users is called the hit-rate.

    Raises:
        RequestError: k is not positive.
        DataError: `ranks` is empty, not a list of integers, or holds a negative number.
    """
    _check_cutoff(k)
    _check_ranks(ranks)
    return ((ranks > 0) & (ranks <= k)).astype(np.float64)


def ndcg(ranks: Ranks, k: int) -> Values:
    """NDCG@k of each user, float64[users]: 1 / log2(rank + 1) if 0 < rank <= k, else 0.

    The ideal ranking has the one target first, a gain of 1, so that nothing is left to divide by.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS
    20(4), 2002. Departure: the discount log2(rank + 1), which leaves only the first place whole,
    is that of Burges et al., "Learning to rank using gradient descent", ICML 2005.

    Raises:
        RequestError: k is not positive.
        DataError: `ranks` is empty, not a list of integers, or holds a negative number.
    """
    return hit_rate(ranks, k) / np.log2(np.maximum(ranks, 1) + 1.0)


def reciprocal_rank(ranks: Ranks, k: int | None = None) -> Values:
    """1 / rank of each user, float64[users], 0 for a miss; the mean over the users is the MRR.

    Source: Voorhees, "The TREC-8 question answering track report", TREC 1999. Without k every
    place counts, with one only the first k: MRR@k. With one target a user the average precision
    has one term, 1 / rank, so that MAP@k is the same number (Manning, Raghavan and Schütze,
    "Introduction to information retrieval", 2008, section 8.4).

    Raises:
        RequestError: k is not positive.
        DataError: `ranks` is empty, not a list of integers, or holds a negative number.
    """
    _check_ranks(ranks)
    is_counted = ranks > 0 if k is None else hit_rate(ranks, k)
    return is_counted / np.maximum(ranks, 1)


def _metrics() -> dict[str, Callable[[Ranks], Values]]:
    hits = {f"hr@{k}": partial(hit_rate, k=k) for k in CUTOFFS}
    gains = {f"ndcg@{k}": partial(ndcg, k=k) for k in CUTOFFS}
    places = {f"mrr@{k}": partial(reciprocal_rank, k=k) for k in CUTOFFS}
    return {**hits, **gains, **places, "mrr": reciprocal_rank}


def metric_values(ranks: Ranks, name: str) -> Values:
    """A metric of each user, float64[users], by its name in `summarize`.

    Raises:
        RequestError: The name is unknown.
        DataError: `ranks` is empty, not a list of integers, or holds a negative number.
    """
    metrics = _metrics()
    if name not in metrics:
        raise RequestError(f"metric {name!r} is unknown; the metrics are {', '.join(metrics)}")
    return metrics[name](ranks)


def summarize(ranks: Ranks) -> dict[str, float]:
    """The mean over the users of every metric: hr, ndcg and mrr at the cutoffs, and "mrr".

    Raises:
        DataError: `ranks` is empty, not a list of integers, or holds a negative number.
    """
    return {name: float(metric(ranks).mean()) for name, metric in _metrics().items()}


def bootstrap_intervals(
    ranks: Ranks,
    *,
    owners: npt.NDArray[np.int64] | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals, over the users, of the means that `summarize` returns.

    A user's metrics depend on the rank alone, so drawing users with replacement is drawing, for
    each distinct rank, how many of the drawn users have it: one multinomial draw a resample,
    instead of as many draws as there are users. The draws exist in blocks of at most 64 MiB.

    Where users have several ranks, which are then no independent draws, a user is drawn with all of
    them, and a resample's mean is over its ranks: the cluster bootstrap.

    Sources: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13; Field and
    Welsh, "Bootstrapping clustered data", Journal of the Royal Statistical Society B 69(3), 2007.

    Args:
        ranks: int32[users], 0 a miss.
        owners: int64[users], whose each rank is, from 0; None where everybody has one.
        samples: How many resamples.
        level: The share of them between the two ends, in (0, 1).
        seed: Of the draws; the same seed gives the same intervals.

    Raises:
        RequestError: `samples` is not positive, or `level` is out of its range.
        DataError: `ranks` is empty, not a list of integers, or holds a negative number.
    """
    if samples <= 0:
        raise RequestError(f"samples={samples} resamples nothing; give a positive number")
    if not 0 < level < 1:
        raise RequestError(f"level={level} is no share; give one between 0 and 1, such as 0.95")
    _check_ranks(ranks)
    metrics = _metrics()
    rng = np.random.default_rng(seed)
    if owners is None:
        distinct, counts = np.unique(ranks, return_counts=True)
        values = np.stack([metric(distinct) for metric in metrics.values()], axis=1)
        means = resampled_means(values, counts, samples, rng)
    else:
        sums = np.stack([np.bincount(owners, metric(ranks)) for metric in metrics.values()], axis=1)
        owned = np.bincount(owners)
        users = np.hstack([sums, owned[:, None]])[owned > 0]
        drawn = resampled_means(users, np.ones(len(users), np.int64), samples, rng)
        means = drawn[:, :-1] / drawn[:, -1:]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(metrics)}


def resampled_means(
    values: Values, counts: npt.NDArray[np.int64], samples: int, rng: np.random.Generator
) -> Values:
    """Means float64[samples, metrics] of values float64[distinct, metrics], drawn by counts.

    Args:
        values: What a user may have.
        counts: int64[distinct], how many users have it.
        samples: How many resamples, each of as many users as there are.
        rng: Of the draws.
    """
    users = int(counts.sum())
    block = max(1, DRAWS_BYTES // (counts.size * np.dtype(np.int64).itemsize))
    means = np.empty((samples, values.shape[1]))
    for start in range(0, samples, block):
        rows = means[start : start + block]
        drawn = rng.multinomial(users, counts / users, size=len(rows))
        rows[:] = drawn @ values / users
    return means


def _check_cutoff(k: int) -> None:
    if k <= 0:
        raise RequestError(f"k={k} leaves no place to rank on; give a positive k")


def _check_ranks(ranks: Ranks) -> None:
    if ranks.ndim != 1 or not np.issubdtype(ranks.dtype, np.integer):
        raise DataError(f"ranks are a list of integers, not {ranks.dtype}{list(ranks.shape)}")
    if ranks.size == 0:
        raise DataError("no ranks to measure; hold out at least one user")
    if ranks.min() < 0:
        raise DataError(f"{ranks.min()} is no rank; 1 is the best place and 0 a miss")
