"""Ranks from tables: what any system recommended, joined with what followed."""

import numpy as np
import polars as pl

from segue.data.roles import ITEM, USER
from segue.errors import DataError
from segue.evaluation.metrics import Ranks

RANK, PLACE = "rank", "place"


def ranks_of_tables(recommended: pl.DataFrame, targets: pl.DataFrame) -> Ranks:
    """The rank of each user's target in what was recommended, int32[users]; 0 where it is missing.

    Args:
        recommended: `user_id`, `item_id`, `rank` (from 1), each user's items all different.
        targets: `user_id`, `item_id`, one row for each user; the ranks come in its order.

    Raises:
        DataError: A column is missing, ids are of other types, a user has two targets, or an item
            is recommended twice to a user who has it as the target.
    """
    _refuse_missing(recommended, (USER.name, ITEM.name, RANK), "recommendations")
    _refuse_missing(targets, (USER.name, ITEM.name), "targets")
    if targets[USER.name].n_unique() < len(targets):
        raise DataError("a user has two targets; give each user one row")
    pairs = [USER.name, ITEM.name]
    for name in pairs:
        if recommended.schema[name] != targets.schema[name]:
            raise DataError(
                f"{name} is {recommended.schema[name]} in the recommendations and "
                f"{targets.schema[name]} in the targets; make them of one type"
            )
    asked = targets.lazy().select(*pairs).with_row_index(PLACE)
    hits = asked.join(recommended.lazy().select(*pairs, RANK), on=pairs).collect()
    if hits[PLACE].n_unique() < len(hits):
        raise DataError("an item is recommended twice to one user; give each item one rank")
    ranks = np.zeros(len(targets), np.int32)
    ranks[hits[PLACE]] = hits[RANK]
    return ranks


def _refuse_missing(frame: pl.DataFrame, names: tuple[str, ...], what: str) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise DataError(f"the {what} have no column {', '.join(missing)}; rename or add it")
