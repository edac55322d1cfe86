"""Protocols: the place of each user's target among the candidates, and the report of an evaluation.

In both protocols padding is never a candidate, and items seen before are none unless the held-out
part says that users come back to items. Ties count against the scorer: a target tied with m others
ranks behind them. A target that was never trained on, or that is itself excluded, is a miss (rank
0); its user is counted like any other.

Users are scored in blocks, so that users x items never exists at once.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.histories import Histories
from segue.data.splits import HeldOut
from segue.errors import DataError, RequestError
from segue.evaluation.metrics import bootstrap_intervals, summarize
from segue.evaluation.trained import Groups, by_training

BLOCK_BYTES = 64 * 2**20
NUM_NEGATIVES = 100
FULL, SAMPLED = "full", "sampled"
REQUEST_TIME_NOTE = (
    "the model knew when each target was asked for; compare it only with figures of models that "
    "knew it too"
)

Mask = npt.NDArray[np.bool_]


class Scorer(Protocol):
    """Whatever can score the whole catalogue for users, given their histories."""

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """Scores of these users (by index), float32[rows, num_items + 1]; column 0 is ignored.

        The caller only reads the result, which may be a view.
        """
        ...


@dataclass(frozen=True, eq=False)
class Ranking:
    """Where each user's target came.

    Attributes:
        ranks: int32[users], 1 = best, 0 = a miss.
        candidates: int32[users], how many items were ranked, the target among them.
        targets: int32[users], dense ids.
        user_ids: Outside user ids, [users].
    """

    ranks: npt.NDArray[np.int32]
    candidates: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    user_ids: pl.Series


def rank_full(
    scorer: Scorer,
    held_out: HeldOut,
    *,
    is_trained: Mask | None = None,
) -> Ranking:
    """Rank each target among the whole catalogue.

    Args:
        scorer: What is evaluated.
        held_out: Users, their histories and targets.
        is_trained: bool[num_items + 1], True where the scorer knows the item, from training or by
            its content; other targets are misses. By default all.

    Raises:
        DataError: A score of a candidate is not finite, or an array has the wrong shape.
    """

    def candidates_of(users: slice) -> Mask:
        return candidate_mask(held_out, users)

    return _rank(scorer, held_out, candidates_of, is_trained)


def rank_sampled(
    scorer: Scorer,
    held_out: HeldOut,
    *,
    negatives: int = NUM_NEGATIVES,
    seed: int = 0,
    is_trained: Mask | None = None,
) -> Ranking:
    """Rank each target among negatives drawn uniformly from the items its user has not seen.

    They are drawn without replacement, and depend on the seed and the users alone: neither on the
    scorer nor on the size of the blocks. A user with fewer unseen items is given all of them.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, section IV,
    with 100 negatives. Such metrics are inconsistent with those of the whole catalogue, and may
    order models the other way round: Krichene and Rendle, "On sampled metrics for item
    recommendation", KDD 2020.

    Args:
        scorer: What is evaluated.
        held_out: Users, their histories and targets.
        negatives: How many for each user.
        seed: Of the draws.
        is_trained: bool[num_items + 1], True where the item was trained on; by default all.

    Raises:
        RequestError: `negatives` is not positive.
        DataError: A score of a candidate is not finite, or an array has the wrong shape.
    """
    if negatives <= 0:
        raise RequestError(f"negatives={negatives} leaves nothing to rank against; give at least 1")
    rng = np.random.default_rng(seed)

    def candidates_of(users: slice) -> Mask:
        is_candidate = candidate_mask(held_out, users)
        return _sampled(is_candidate, held_out.targets[users], negatives, rng)

    return _rank(scorer, held_out, candidates_of, is_trained)


def report(
    ranking: Ranking,
    held_out: HeldOut,
    *,
    protocol: str = FULL,
    baselines: Mapping[str, Ranking] | None = None,
    is_trained: Mask | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of a ranking, ready for JSON.

    Returns:
        `protocol`, `part`, `users`, `targets` (as many, or more where users have several),
        `candidates` (the catalogue's items, or 101), `metrics` and `intervals` (95%) by metric,
        `baselines` (name -> metrics), `by_training` (see `evaluation.trained`), and `notes`, one
        line each, of what makes the figures lower or less comparable than they look.

    Raises:
        DataError: There is nobody to rank.
    """
    num_items = held_out.histories.vocabulary.num_items
    owners = held_out.owners
    intervals = bootstrap_intervals(ranking.ranks, owners=owners, seed=seed)
    others = {name: each.ranks for name, each in (baselines or {}).items()}
    return {
        "protocol": protocol,
        "part": held_out.part,
        "users": held_out.num_users if owners is None else int(owners.max()) + 1,
        "targets": held_out.num_users,
        "candidates": num_items if protocol == FULL else int(ranking.candidates.max()),
        "metrics": summarize(ranking.ranks),
        "intervals": {name: list(ends) for name, ends in intervals.items()},
        "baselines": {name: summarize(ranks) for name, ranks in others.items()},
        "by_training": by_training(
            ranking.ranks,
            others,
            Groups.of(held_out, _trained_items(held_out, is_trained)),
            seed=seed,
        ),
        "notes": _notes(held_out, ranking, is_trained, protocol),
    }


def ranker(
    protocol: str, is_trained: Mask | None, seed: int
) -> Callable[[Scorer, HeldOut], Ranking]:
    """What ranks by a protocol's name, "full" or "sampled"; see `rank_full` and `rank_sampled`.

    Raises:
        RequestError: The protocol is unknown.
    """
    if protocol == FULL:
        return partial(rank_full, is_trained=is_trained)
    if protocol == SAMPLED:
        return partial(rank_sampled, is_trained=is_trained, seed=seed)
    raise RequestError(f"protocol {protocol!r} is unknown; it is {FULL!r} or {SAMPLED!r}")


def _notes(
    held_out: HeldOut, ranking: Ranking, is_trained: Mask | None, protocol: str
) -> list[str]:
    histories, targets = held_out.histories, held_out.targets
    is_known, is_miss = _trained_items(held_out, is_trained)[targets], ranking.ranks == 0
    is_repeat = histories.item_ids == np.repeat(targets, histories.lengths)
    repeats = np.unique(histories.users[is_repeat]).size
    repeated = "a candidate" if held_out.repeats else "a miss (--repeats makes it a candidate)"
    counts = {
        "a target that was never trained on: a miss": np.count_nonzero(~is_known & is_miss),
        "a target that was never trained on: ranked by its content": np.count_nonzero(
            ~is_known & ~is_miss
        ),
        f"a target that they had seen before: {repeated}": repeats,
        "an empty history": np.count_nonzero(histories.lengths == 0),
    }
    whose = "users" if held_out.owners is None else "histories, one for each target,"
    users = f"of {held_out.num_users:,} {whose} have"
    notes = [f"{count:,} {users} {what}" for what, count in counts.items() if count]
    if protocol == SAMPLED:
        fewer = np.count_nonzero(ranking.candidates <= NUM_NEGATIVES)
        if fewer:
            notes.append(f"{fewer:,} {users} fewer than {NUM_NEGATIVES} unseen items: all of them")
        notes.append(
            f"ranked against {NUM_NEGATIVES} sampled items: inconsistent with the whole "
            f"catalogue, and may order models differently (Krichene and Rendle, 2020)"
        )
    return notes


def _rank(
    scorer: Scorer,
    held_out: HeldOut,
    candidates_of: Callable[[slice], Mask],
    is_trained: Mask | None,
) -> Ranking:
    is_known = _trained_items(held_out, is_trained)[held_out.targets]
    ranks = np.zeros(held_out.num_users, np.int32)
    candidates = np.zeros(held_out.num_users, np.int32)
    for users in blocks_of(held_out):
        scores = scorer.score(held_out.histories, users)
        is_candidate = candidates_of(users)
        _check_scores(scores, is_candidate, held_out.histories.user_ids[users])
        targets = held_out.targets[users, None]
        is_ahead = scores >= np.take_along_axis(scores, targets, axis=1)
        is_ranked = np.take_along_axis(is_candidate, targets, axis=1)[:, 0] & is_known[users]
        # The target is not behind itself, so the count includes it and is the rank.
        ranks[users] = np.where(is_ranked, np.count_nonzero(is_ahead & is_candidate, axis=1), 0)
        candidates[users] = np.count_nonzero(is_candidate, axis=1)
    return Ranking(ranks, candidates, held_out.targets, held_out.histories.user_ids)


def blocks_of(held_out: HeldOut) -> Iterator[slice]:
    """Slices of users whose float32 scores fill at most `BLOCK_BYTES`, one user at least."""
    row_bytes = (held_out.histories.vocabulary.num_items + 1) * np.dtype(np.float32).itemsize
    rows = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, held_out.num_users, rows):
        yield slice(start, min(start + rows, held_out.num_users))


def candidate_mask(held_out: HeldOut, users: slice) -> Mask:
    """is_candidate, bool[rows, num_items + 1]: all but padding and, unless repeats, the history."""
    histories = held_out.histories
    lengths = histories.lengths[users]
    is_candidate = np.ones((len(lengths), histories.vocabulary.num_items + 1), np.bool_)
    is_candidate[:, 0] = False
    if not held_out.repeats:
        rows = np.repeat(np.arange(len(lengths)), lengths)
        seen = histories.item_ids[histories.offsets[users.start] : histories.offsets[users.stop]]
        is_candidate[rows, seen] = False
    return is_candidate


def _sampled(
    is_candidate: Mask, targets: npt.NDArray[np.int32], negatives: int, rng: np.random.Generator
) -> Mask:
    """Of each row's candidates only `negatives` and the target, where it is one itself."""
    rows = np.arange(len(targets))
    # A number for every item, wanted or not, so that a row's draw has its own place in the
    # generator's stream wherever the blocks begin. The smallest numbers win; float64 has no ties.
    lots = rng.random(is_candidate.shape)
    lots[~is_candidate] = np.inf
    lots[rows, targets] = np.inf
    last = min(negatives, lots.shape[1]) - 1
    is_sampled = (lots <= np.partition(lots, last, axis=1)[:, last, None]) & np.isfinite(lots)
    is_sampled[rows, targets] = is_candidate[rows, targets]
    return is_sampled


def _trained_items(held_out: HeldOut, is_trained: Mask | None) -> Mask:
    columns = held_out.histories.vocabulary.num_items + 1
    if is_trained is None:
        return np.ones(columns, np.bool_)
    if is_trained.shape != (columns,):
        raise DataError(
            f"is_trained has the shape {is_trained.shape}; give one flag an item and one for "
            f"padding, ({columns},)"
        )
    return is_trained


def _check_scores(scores: npt.NDArray[np.float32], is_candidate: Mask, user_ids: pl.Series) -> None:
    if scores.shape != is_candidate.shape:
        raise DataError(
            f"the scorer returned the shape {scores.shape} where {is_candidate.shape} was asked "
            f"for; score every item and padding for every user"
        )
    is_bad = is_candidate & ~np.isfinite(scores)
    if is_bad.any():
        row, column = (int(place[0]) for place in np.nonzero(is_bad))
        raise DataError(
            f"{np.count_nonzero(is_bad[row]):,} of the {np.count_nonzero(is_candidate[row]):,} "
            f"candidates of user {user_ids[row]!r} have no finite score: {scores[row, column]} for "
            f"dense id {column}, the first; train again, at a lower learning rate if it diverged"
        )
