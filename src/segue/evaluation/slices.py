"""Slices: how good a ranking is for some users or some targets only."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.labels import labels_of
from segue.data.splits import HeldOut
from segue.errors import DataError
from segue.evaluation.metrics import bootstrap_intervals, summarize
from segue.evaluation.protocol import Ranking

LENGTHS = (0, 1, 5, 10, 20, 50, 100, 200)
QUARTERS = ("least", "less", "more", "most")
MAX_LABELS = 20
SHOWN = ("hr@10", "ndcg@10")


@dataclass(frozen=True)
class Slice:
    """One group of users, or of the users whose targets are of one group.

    Attributes:
        by: What the users are grouped by.
        group: Which of the groups.
        users: How many.
        metrics: hr@10 and ndcg@10, the mean over them.
        intervals: 95%, of each.
    """

    by: str
    group: str
    users: int
    metrics: dict[str, float]
    intervals: dict[str, list[float]]


def slices(
    ranking: Ranking,
    held_out: HeldOut,
    item_counts: npt.NDArray[np.int64],
    train_lengths: npt.NDArray[np.int64],
    catalogue: pl.DataFrame | None = None,
    columns: Sequence[str] = (),
) -> list[dict[str, object]]:
    """A ranking by history length, item popularity, user activity and columns of the catalogue.

    Popularity is the target's training interactions, activity those of the user; both in quarters
    of the users, as equal as ties allow, and those without any apart. A text of a column may hold
    several labels between bars, and counts for each; the 20 most frequent are shown.

    Args:
        ranking: Of the held-out targets.
        held_out: What was ranked.
        item_counts: int64[num_items + 1], training interactions of each item.
        train_lengths: int64[users], training interactions of each held-out user.
        catalogue: One row for each dense id from 1.
        columns: Which of its columns.

    Returns:
        `Slice` as dicts, ready for JSON.

    Raises:
        DataError: The catalogue lacks a column.
    """
    found = [
        *_by_length(ranking, held_out.histories.lengths),
        *_by_quarter("item popularity", "popular", ranking, item_counts[held_out.targets]),
        *_by_quarter("user activity", "active", ranking, train_lengths),
    ]
    for name in columns:
        if catalogue is None or name not in catalogue.columns:
            raise DataError(f"the run's catalogue has no column {name!r}; name one that it has")
        found.extend(_by_label(name, ranking, catalogue[name], held_out.targets))
    return [asdict(each) for each in found]


def slices_by_age(
    ranking: Ranking, ages_days: npt.NDArray[np.float64], groups: int = 6
) -> list[dict[str, object]]:
    """A ranking by how old the model was when each target happened.

    Args:
        ranking: Of the held-out targets.
        ages_days: float64[users], from the last training interaction to the target.
        groups: How many, of about as many users each; the oldest last.

    Returns:
        `Slice` as dicts, ready for JSON.
    """
    inner = np.quantile(ages_days, np.arange(1, groups) / groups, method="inverted_cdf")
    places = np.searchsorted(np.unique(inner), ages_days, side="left")
    found: list[Slice] = []
    for place in range(groups):
        is_in = places == place
        if is_in.any():
            group = f"{ages_days[is_in].min():.1f} to {ages_days[is_in].max():.1f} days"
            found.extend(_slice("age of the model", group, ranking, is_in))
    return [asdict(each) for each in found]


def _by_length(ranking: Ranking, lengths: npt.NDArray[np.int64]) -> Iterator[Slice]:
    bins = np.searchsorted(LENGTHS, lengths, side="right") - 1
    for place, start in enumerate(LENGTHS):
        last = LENGTHS[place + 1] - 1 if place + 1 < len(LENGTHS) else None
        group = f"{start} or more" if last is None else str(start)
        if last is not None and last > start:
            group = f"{start} to {last}"
        yield from _slice("history length", group, ranking, bins == place)


def _by_quarter(
    by: str, adjective: str, ranking: Ranking, counts: npt.NDArray[np.int64]
) -> Iterator[Slice]:
    is_known = counts > 0
    yield from _slice(by, "never trained on", ranking, ~is_known)
    if not is_known.any():
        return
    ends = np.quantile(counts[is_known], [0.25, 0.5, 0.75], method="inverted_cdf")
    quarters = np.searchsorted(ends, counts, side="left")
    for place, word in enumerate(QUARTERS):
        is_in = is_known & (quarters == place)
        if is_in.any():
            least, greatest = int(counts[is_in].min()), int(counts[is_in].max())
            group = f"{word} {adjective} ({least:,} to {greatest:,})"
            yield from _slice(by, group, ranking, is_in)


def _by_label(
    name: str, ranking: Ranking, labels: pl.Series, targets: npt.NDArray[np.int32]
) -> Iterator[Slice]:
    of_targets = labels_of(labels.gather(targets.astype(np.int64) - 1))
    of_users = pl.DataFrame({"user": np.arange(len(targets)), "label": of_targets})
    exploded = of_users.explode("label").with_columns(pl.col("label").fill_null("(none)"))
    groups = exploded.group_by("label").agg("user").with_columns(users=pl.col("user").list.len())
    for row in (
        groups.sort(["users", "label"], descending=[True, False]).head(MAX_LABELS).to_dicts()
    ):
        is_in = np.zeros(len(targets), np.bool_)
        is_in[row["user"]] = True
        yield from _slice(name, row["label"], ranking, is_in)


def _slice(by: str, group: str, ranking: Ranking, is_in: npt.NDArray[np.bool_]) -> Iterator[Slice]:
    """The slice of the users chosen, nothing where none is."""
    ranks = ranking.ranks[is_in]
    if ranks.size:
        metrics, intervals = summarize(ranks), bootstrap_intervals(ranks)
        yield Slice(
            by,
            group,
            int(ranks.size),
            {name: metrics[name] for name in SHOWN},
            {name: list(intervals[name]) for name in SHOWN},
        )
