"""What a log is like: what an engineer wants to know of it before a model learns from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.histories import Histories
from segue.data.log import InteractionLog
from segue.data.order import Ties, ties_of
from segue.data.roles import ITEM, TIME, USER, WEIGHT
from segue.data.splits import MIN_LEAVE_ONE_OUT
from segue.data.times import DAY_S, TimeUnit, unix_seconds

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
# What whole multiples of these are called, the coarsest first.
RESOLUTIONS = {DAY_S: "days", 3_600: "hours", 60: "minutes", 1: "seconds"}
# Exact but for so many.
NEARLY_ALL = 0.99
# The bulk of the times lies between these quantiles.
BULK = (0.01, 0.99)

# No person keeps a pace of a second for so many moments, is awake in so many hours of one day, or
# has that many interactions and that many times those of the middle user.
ROBOT_MOMENTS, ROBOT_PACE_S = 100, 1.0
ROBOT_HOURS = 22
ROBOT_INTERACTIONS, ROBOT_TIMES_MEDIAN = 1_000, 100
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Robots:
    """Users who are probably no persons, by one sign.

    Attributes:
        sign: Such as "a median of at most 1 s between 100 moments or more".
        users: How many they are.
        interactions: How many they have together.
        examples: Some of their ids, those with most interactions first.
    """

    sign: str
    users: int
    interactions: int
    examples: tuple[str | int, ...]


@dataclass(frozen=True)
class Description:
    """What a log is like. Shares are 0 to 1, of the interactions.

    Attributes:
        interactions, users, items: How many there are.
        first, last: The first and the last time: ISO 8601, or numbers where times are an order.
        bulk_first, bulk_last: Between these lie all but a hundredth at either end.
        unit: Of the times.
        span_days: Between them; None where times are an order.
        resolution: What nearly all times are whole multiples of; None where times are an order.
        strays: Interactions that lie further from the bulk of the times than that is long.
        history_lengths: Quantiles of the interactions of a user, by "min", "10%", ..., "max".
        short_histories: Users with fewer than 3 interactions, who are not tested by leave-one-out.
        items_seen_once: How many.
        duplicates: The share that equals an earlier one in user, item and time.
        repeats: The share with an item that the user had before, though not directly before.
        repeats_in_a_row: The share with the item that the user had directly before.
        ties: Neighbours in histories that have one time.
        tied: The share of neighbours in histories that have one time.
        weights: Their quantiles; None where there are none.
        without_weight: Interactions that have none.
        robots: Users who are probably no persons.
    """

    interactions: int
    users: int
    items: int
    first: str
    last: str
    bulk_first: str
    bulk_last: str
    unit: str
    span_days: float | None
    resolution: str | None
    strays: int
    history_lengths: Mapping[str, float]
    short_histories: int
    items_seen_once: int
    duplicates: float
    repeats: float
    repeats_in_a_row: float
    ties: Ties
    tied: float
    weights: Mapping[str, float] | None
    without_weight: int
    robots: tuple[Robots, ...]


def describe(log: InteractionLog) -> Description:
    """Look at a log as its users' histories."""
    histories = Histories.from_log(log)
    size = histories.num_interactions
    times = np.sort(log.frame[TIME.name].to_numpy())
    low, high = times[int(BULK[0] * (size - 1))], times[math.ceil(BULK[1] * (size - 1))]
    seconds = unix_seconds(histories.timestamps, log.unit)
    keys = log.frame.select(USER.name, ITEM.name, TIME.name)
    weights = log.frame[WEIGHT.name].drop_nulls() if WEIGHT.name in log.frame.columns else None
    users, items = histories.users, histories.item_ids
    in_a_row = int(np.count_nonzero((users[1:] == users[:-1]) & (items[1:] == items[:-1])))
    num_pairs = len(np.unique(users * (histories.vocabulary.num_items + 1) + items))
    assert histories.timestamps is not None  # it is of a log
    ties = ties_of(users, histories.timestamps, items)
    return Description(
        interactions=size,
        users=histories.num_users,
        items=histories.vocabulary.num_items,
        first=_told(times[0], log.unit),
        last=_told(times[-1], log.unit),
        bulk_first=_told(low, log.unit),
        bulk_last=_told(high, log.unit),
        unit=str(log.unit),
        span_days=None if seconds is None else float(seconds.max() - seconds.min()) / DAY_S,
        resolution=None if seconds is None else _resolution(seconds),
        strays=int(np.count_nonzero((times < low - (high - low)) | (times > high + (high - low)))),
        history_lengths=_quantiles(histories.lengths),
        short_histories=int(np.count_nonzero(histories.lengths < MIN_LEAVE_ONE_OUT)),
        items_seen_once=int(np.count_nonzero(histories.item_counts() == 1)),
        duplicates=1 - keys.unique().height / size,
        repeats=(size - num_pairs - in_a_row) / size,
        repeats_in_a_row=in_a_row / size,
        ties=ties,
        tied=ties.num_tied / max(ties.num_pairs, 1),
        weights=None if weights is None or weights.is_empty() else _quantiles(weights.to_numpy()),
        without_weight=size if weights is None else size - len(weights),
        robots=_robots(histories, seconds),
    )


def _quantiles(values: npt.NDArray[Any]) -> dict[str, float]:
    ends = {0.0: "min", 1.0: "max"}
    found = np.quantile(values, QUANTILES)
    return {
        ends.get(each, f"{each:.0%}"): float(value)
        for each, value in zip(QUANTILES, found, strict=True)
    }


def _told(time: Any, unit: TimeUnit) -> str:
    """A time of a log as ISO 8601 in UTC, or as the number that it is where times are an order."""
    seconds = unix_seconds(np.array([time]), unit)
    return str(time) if seconds is None else str(seconds.astype("datetime64[s]")[0])


def _resolution(seconds: npt.NDArray[np.float64]) -> str:
    """Days, hours, ...: what the times are whole multiples of, up to the same rest for all."""
    for length, name in RESOLUTIONS.items():
        rests = seconds % length
        if (rests == np.median(rests)).mean() >= NEARLY_ALL:
            return name
    return "parts of a second"


def _robots(histories: Histories, seconds: npt.NDArray[np.float64] | None) -> tuple[Robots, ...]:
    lengths = histories.lengths
    most = max(ROBOT_INTERACTIONS, ROBOT_TIMES_MEDIAN * float(np.median(lengths)))
    signs = {f"{most:,.0f} interactions or more": np.flatnonzero(lengths >= most)}
    if seconds is not None:
        pace = f"a median of at most {ROBOT_PACE_S:g} s between {ROBOT_MOMENTS} moments or more"
        signs[pace] = _hasty(histories.users, seconds)
        signs[f"{ROBOT_HOURS} hours of one day or more"] = _sleepless(histories.users, seconds)
    return tuple(_of_sign(histories, sign, users) for sign, users in signs.items() if users.size)


def _of_sign(histories: Histories, sign: str, users: npt.NDArray[np.int64]) -> Robots:
    lengths = histories.lengths[users]
    busiest = users[np.argsort(-lengths, kind="stable")[:NUM_EXAMPLES]]
    examples = tuple(histories.user_ids.gather(busiest).to_list())
    return Robots(sign, len(users), int(lengths.sum()), examples)


def _hasty(users: npt.NDArray[np.int64], seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The users whose moments follow each other faster than a person's; users and times ascend."""
    gaps = pl.DataFrame({"user": users[1:], "gap": np.diff(seconds)})
    is_next = pl.Series(users[1:] == users[:-1])
    of_users = (
        gaps.filter(is_next & (gaps["gap"] > 0))
        .group_by("user")
        .agg(pl.len(), pl.col("gap").median())
    )
    is_hasty = (pl.col("len") >= ROBOT_MOMENTS - 1) & (pl.col("gap") <= ROBOT_PACE_S)
    return of_users.filter(is_hasty)["user"].sort().to_numpy()


def _sleepless(
    users: npt.NDArray[np.int64], seconds: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """The users who did something in nearly every hour of a day."""
    hours = pl.DataFrame({"user": users, "hour": np.floor(seconds / 3_600)}).unique()
    days = hours.group_by("user", day=(pl.col("hour") / 24).floor()).len()
    return days.filter(pl.col("len") >= ROBOT_HOURS)["user"].unique().sort().to_numpy()
