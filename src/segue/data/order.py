"""What hangs on the order of a log's rows: ties in time, and items that come several times running.

Within a user, rows of one time keep the log's order. Where that is the order of the items' ids, it
comes from a sort and not from what happened: a model learns it, and is tested on it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.roles import ITEM, TIME, USER

# By chance, 20 of 20 neighbours are in the order of their ids once in a million logs, and at least
# 18 of 20 once in 2,500.
MIN_PAIRS = 20
SUSPICIOUS_SHARE = 0.9
PLACE, DRAW = "place", "draw"


@dataclass(frozen=True)
class Ties:
    """Neighbours in users' histories that have one time.

    Attributes:
        num_pairs: Neighbours in all.
        num_tied: Those of one time.
        num_rising, num_falling: Those of one time whose item ids rise, or fall.
    """

    num_pairs: int
    num_tied: int
    num_rising: int
    num_falling: int

    @property
    def share_sorted(self) -> float:
        """The share of the commoner direction among those whose items differ; 0 where none do."""
        different = self.num_rising + self.num_falling
        return max(self.num_rising, self.num_falling) / different if different else 0.0

    @property
    def is_sorted(self) -> bool:
        """Whether the order within ties is that of the items' ids, as chance would not have it."""
        is_enough = self.num_rising + self.num_falling >= MIN_PAIRS
        return is_enough and self.share_sorted >= SUSPICIOUS_SHARE

    def warnings(self) -> tuple[str, ...]:
        """A line where the order within ties is that of the ids; nothing otherwise."""
        if not self.is_sorted:
            return ()
        direction = "rise" if self.num_rising > self.num_falling else "fall"
        return (
            f"warning: of {self.num_pairs:,} neighbours in histories {self.num_tied:,} have one "
            f"time, and within these the item ids {direction} in {self.share_sorted:.0%}: that is "
            f"the order of a file and not of what happened, and it flatters the test; --ties "
            f"shuffle (with_shuffled_ties in Python) orders them by chance",
        )


def ties_of(
    users: npt.NDArray[np.int64], times: npt.NDArray[Any], item_ids: npt.NDArray[Any]
) -> Ties:
    """Count ties in rows that are in the order of users and times.

    Args:
        users, times, item_ids: [interactions] each; the ids are in the order of the outside ids.
    """
    is_pair = users[1:] == users[:-1]
    is_tied = is_pair & (times[1:] == times[:-1])
    return Ties(
        int(np.count_nonzero(is_pair)),
        int(np.count_nonzero(is_tied)),
        int(np.count_nonzero(is_tied & (item_ids[1:] > item_ids[:-1]))),
        int(np.count_nonzero(is_tied & (item_ids[1:] < item_ids[:-1]))),
    )


def shuffled_ties(frame: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, int]:
    """A log's rows, those of one user and time in an order drawn by a seed; and how many these are.

    All other rows stay in their places.
    """
    random = pl.Series(DRAW, np.random.default_rng(seed).random(frame.height))
    keys = frame.select(USER.name, TIME.name).with_row_index(PLACE).with_columns(random)
    places = keys.sort(USER.name, TIME.name, PLACE)[PLACE].to_numpy()
    drawn = keys.sort(USER.name, TIME.name, DRAW)[PLACE].to_numpy()
    rows = np.empty(frame.height, np.int64)
    rows[places] = drawn
    num_tied = int(keys.select(USER.name, TIME.name).is_duplicated().sum())
    return frame[rows], num_tied


def is_repeat(frame: pl.DataFrame) -> pl.Series:
    """Whether a user's interaction before this one was with the same item, Boolean[rows]."""
    keys = frame.select(USER.name, TIME.name, ITEM.name).with_row_index(PLACE)
    ordered = keys.sort(USER.name, TIME.name, PLACE)
    same = [pl.col(name) == pl.col(name).shift() for name in (USER.name, ITEM.name)]
    found = ordered.select(PLACE, is_repeat=pl.all_horizontal(same).fill_null(False))
    return found.sort(PLACE)["is_repeat"]
