"""Figures with and without what was never trained on: cold users, cold items."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.splits import HeldOut
from segue.evaluation.metrics import Ranks, bootstrap_intervals, summarize

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Groups:
    """Of which users and items the held-out targets are.

    Attributes:
        is_trained_user: bool[users], True where the user has training interactions.
        is_trained_target: bool[users], True where the target was trained on.
        owners: int64[users], whose each target is; None where everybody has one.
    """

    is_trained_user: Mask
    is_trained_target: Mask
    owners: npt.NDArray[np.int64] | None

    @classmethod
    def of(cls, held_out: HeldOut, is_trained: Mask) -> "Groups":
        """Those of held-out targets; where it is not known of whom, the users count as trained.

        Args:
            held_out: The targets.
            is_trained: bool[num_items + 1], True where an item was trained on.
        """
        users = held_out.is_trained_user
        if users is None:
            users = np.ones(held_out.num_users, np.bool_)
        return cls(users, is_trained[held_out.targets], held_out.owners)


def by_training(
    ranks: Ranks, baselines: Mapping[str, Ranks], groups: Groups, *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """A ranking's metrics apart: for what was trained on, and for what never was.

    Args:
        ranks: int32[users], 0 a miss.
        baselines: The same of each baseline.
        groups: Of which users and items the targets are.
        seed: Of the intervals.

    Returns:
        `trained` (user and target), `new_users` and `new_items` (which may overlap): `targets`, how
        many, and where there are any `metrics`, `intervals` and `baselines`.
    """
    members = {
        "trained": groups.is_trained_user & groups.is_trained_target,
        "new_users": ~groups.is_trained_user,
        "new_items": ~groups.is_trained_target,
    }
    found: dict[str, dict[str, Any]] = {}
    for name, is_in in members.items():
        found[name] = {"targets": int(np.count_nonzero(is_in))}
        if is_in.any():
            owners = None if groups.owners is None else groups.owners[is_in]
            intervals = bootstrap_intervals(ranks[is_in], owners=owners, seed=seed)
            found[name] |= {
                "metrics": summarize(ranks[is_in]),
                "intervals": {metric: list(ends) for metric, ends in intervals.items()},
                "baselines": {each: summarize(own[is_in]) for each, own in baselines.items()},
            }
    return found
