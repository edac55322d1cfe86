"""Logs made from a seed: with a structure to learn, or of any size."""

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.log import InteractionLog
from segue.data.roles import ITEM, TIME, USER
from segue.errors import DataError

ZIPF_EXPONENT = 1.0
ACTIVITY_SIGMA = 1.0
FIRST_SECOND = 1_000_000_000
HOUR, DAY = 3_600, 86_400  # in seconds
NUM_SECONDS = 3 * 365 * 24 * 3600


def markov_log(
    num_users: int,
    num_items: int,
    interactions_per_user: int,
    *,
    certainty: float = 1.0,
    seed: int = 0,
) -> InteractionLog:
    """Users who walk along one cycle through all items.

    Every item has one successor. The next item is that successor with probability `certainty`,
    else one drawn uniformly from all; so is the first. The timestamp is the position, from 0.

    Raises:
        DataError: A size below 1, or a certainty outside 0..1.
    """
    _refuse_empty(
        num_users=num_users, num_items=num_items, interactions_per_user=interactions_per_user
    )
    if not 0 <= certainty <= 1:
        raise DataError(f"certainty={certainty} is no probability; give 0 to 1")
    rng = np.random.default_rng(seed)
    cycle = rng.permutation(num_items) + 1
    shape = (num_users, interactions_per_user)
    steps = np.arange(interactions_per_user)
    is_jump = rng.random(shape) >= certainty
    # The first step counts as a jump without being drawn: 0 is where nothing came before.
    last_jump = np.maximum.accumulate(np.where(is_jump, steps, 0), axis=1)
    landings = np.take_along_axis(rng.integers(num_items, size=shape), last_jump, axis=1)
    items = cycle[(landings + steps - last_jump) % num_items]
    return _log(
        np.repeat(np.arange(1, num_users + 1), interactions_per_user),
        items.ravel(),
        np.tile(steps, num_users),
        f"made: {num_users:,} users who walk {interactions_per_user:,} steps along a cycle of "
        f"{num_items:,} items, certainty {certainty:g}, seed {seed}",
    )


def paced_log(
    num_users: int, num_items: int, interactions_per_user: int, *, seed: int = 0
) -> InteractionLog:
    """Users whose next item depends on how long they wait for it.

    After up to an hour it is the item one further, after two to eight days the one five further;
    half of the waits are of either kind. Timestamps are Unix seconds.

    Raises:
        DataError: A size below 1.
    """
    _refuse_empty(
        num_users=num_users, num_items=num_items, interactions_per_user=interactions_per_user
    )
    rng = np.random.default_rng(seed)
    shape = (num_users, interactions_per_user)
    is_soon = rng.random(shape) < 0.5
    waits = np.where(is_soon, rng.integers(60, HOUR, shape), rng.integers(2, 9, shape) * DAY)
    steps = np.where(is_soon, 1, 5)
    waits[:, 0], steps[:, 0] = 0, rng.integers(num_items, size=num_users)
    return _log(
        np.repeat(np.arange(1, num_users + 1), interactions_per_user),
        (np.cumsum(steps, axis=1) % num_items + 1).ravel(),
        (FIRST_SECOND + np.cumsum(waits, axis=1)).ravel(),
        f"made: {num_users:,} users whose next item depends on how long they wait, seed {seed}",
    )


def popularity_log(
    num_interactions: int, num_users: int, num_items: int, *, seed: int = 0
) -> InteractionLog:
    """Independent draws: popular items, busy users, times in no order.

    Items follow Zipf's law (the r-th most popular is drawn in proportion to 1 / r), users' activity
    is log-normal, timestamps are uniform Unix seconds over three years. Some users and items may
    not occur, and a user may meet an item twice.

    Raises:
        DataError: A size below 1.
    """
    _refuse_empty(num_interactions=num_interactions, num_users=num_users, num_items=num_items)
    rng = np.random.default_rng(seed)
    popularity = rng.permutation(np.arange(1, num_items + 1) ** -ZIPF_EXPONENT)
    activity = rng.lognormal(sigma=ACTIVITY_SIGMA, size=num_users)
    return _log(
        _drawn(rng, activity, num_interactions) + 1,
        _drawn(rng, popularity, num_interactions) + 1,
        FIRST_SECOND + rng.integers(NUM_SECONDS, size=num_interactions),
        f"made: {num_interactions:,} interactions of up to {num_users:,} users with up to "
        f"{num_items:,} items by popularity, seed {seed}",
    )


def _drawn(
    rng: np.random.Generator, weights: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.int64]:
    """Indices of `weights`, drawn in proportion to them, int64[size]."""
    cumulated = np.cumsum(weights)
    drawn: npt.NDArray[np.int64]
    drawn = np.searchsorted(cumulated, rng.random(size) * cumulated[-1], side="right")
    return drawn


def _log(
    user_ids: npt.NDArray[np.int64],
    item_ids: npt.NDArray[np.int64],
    timestamps: npt.NDArray[np.int64],
    note: str,
) -> InteractionLog:
    columns = {USER.name: user_ids, ITEM.name: item_ids, TIME.name: timestamps}
    return InteractionLog(pl.DataFrame(columns), (note,))


def _refuse_empty(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise DataError(f"{name}={size} makes no log; give at least 1")
