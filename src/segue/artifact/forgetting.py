"""A run without one of its users: what its files say of them, not what its weights learned."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.artifact.run import Run
from segue.data.ids import compared_as, id_text
from segue.data.splits import Split
from segue.errors import RequestError
from segue.evaluation.protocol import Ranking

Mask = npt.NDArray[np.bool_]


def without_user(run: Run, user_id: str | int) -> Run:
    """The run without a user's history and ranks, from which everything that names users is made.

    The weights, the counts of the items and the figures of the report are as they were: sums over
    all users, this one among them. Where nobody else is left, it carries no histories.

    Args:
        run: It keeps what it holds.
        user_id: Compared by text.

    Raises:
        RequestError: The run has no such user.
    """
    split, ranking = run.split, run.ranking
    in_split = _is_user(None if split is None else split.histories.user_ids, user_id)
    in_ranking = _is_user(None if ranking is None else ranking.user_ids, user_id)
    if not (in_split.any() or in_ranking.any()):
        num_users = 0 if split is None else split.histories.num_users
        raise RequestError(
            f"user {user_id!r} is not among the run's {num_users:,} users; check the id"
        )
    return replace(
        run,
        split=split and _split_of(split, ~in_split),
        ranking=ranking and _ranks_of(ranking, ~in_ranking),
    )


def _is_user(user_ids: pl.Series | None, user_id: str | int) -> Mask:
    """bool[users], True for the user; empty where there are no ids."""
    if user_ids is None:
        return np.zeros(0, np.bool_)
    wanted = compared_as(pl.Series([id_text(user_id)]), user_ids.dtype).drop_nulls()
    is_user: Mask = user_ids.is_in(wanted.implode()).to_numpy()
    return is_user


def _split_of(split: Split, is_kept: Mask) -> Split | None:
    if not is_kept.any():
        return None
    histories = split.histories
    parts = split.parts[is_kept[histories.users]]
    return replace(split, histories=histories.take(np.flatnonzero(is_kept)), parts=parts)


def _ranks_of(ranking: Ranking, is_kept: Mask) -> Ranking | None:
    if not is_kept.any():
        return None
    return Ranking(
        ranks=ranking.ranks[is_kept],
        candidates=ranking.candidates[is_kept],
        targets=ranking.targets[is_kept],
        user_ids=ranking.user_ids.filter(pl.Series(is_kept)),
    )
