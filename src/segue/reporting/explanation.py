"""Why an item is recommended: what its score would be without each item of the history."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segue.data.columns import Columns
from segue.errors import RequestError
from segue.recommender import Id, Recommender

NOT_A_SUM = (
    "Each change is that of the score when this one item is left out. The changes do not add up "
    "to the score: items act together."
)


@dataclass(frozen=True)
class Influence:
    """What one place of a history does to the score of an item.

    Attributes:
        place: In the history as it was given, from 1, the oldest.
        item_id: The item at that place.
        title: Its title, or its id where the catalogue has none.
        score_without: The item's score after the history without this place.
        change: score_without minus the score; below 0, this place speaks for the item.
    """

    place: int
    item_id: Id
    title: str
    score_without: float
    change: float


@dataclass(frozen=True)
class Explanation:
    """One item's score after a history, and what each place of it changes.

    Attributes:
        item_id: What is explained.
        title: Its title, or its id where the catalogue has none.
        score: After the whole history.
        influences: One for each place whose item the run knows, oldest first.
        unknown_items: Ids of the history that the run does not know.
        note: What the changes are not.
    """

    item_id: Id
    title: str
    score: float
    influences: list[Influence]
    unknown_items: list[Id]
    note: str = NOT_A_SUM


def explain(
    recommender: Recommender,
    history: Sequence[Id],
    item_id: Id,
    *,
    times: Sequence[object] | None = None,
    at: object = None,
) -> Explanation:
    """Leave out each item of a history in turn, and see how the score of an item changes.

    All the histories are encoded together. Only the newest `max_length` items are looked at, so
    that older ones change nothing; where one of the newest is left out, an older one moves up. A
    history of one item leaves nothing behind, after which every score is 0.

    Source: the leave-one-out, or occlusion, of Li, Monroe and Jurafsky, "Understanding neural
    networks through representation erasure", 2016.

    Args:
        recommender: Whose scores are explained.
        history: Outside item ids, oldest first; unknown ones are skipped.
        item_id: An item of the run, in the history or not.
        times: When each item of the history was taken; see `Recommender.recommend`.
        at: The moment at which it is asked; see there.

    Raises:
        RequestError: The item is unknown, the history holds no known item, or a moment is none
            that the run's log has a clock for.
    """
    vocabulary = recommender.vocabulary
    (dense_id,) = vocabulary.encode_text([item_id])
    if not dense_id:
        raise RequestError(
            f"item {item_id!r} is not among the run's {vocabulary.num_items:,} items; check the id"
        )
    dense = vocabulary.encode_text(history)
    known = dense[dense > 0]
    if not known.size:
        raise RequestError(
            "the history holds no item that the run knows, so the most popular items are "
            "recommended whatever it holds; there is nothing to explain"
        )
    seconds = None
    if times is not None:
        seconds = recommender.asked_at(list(times), len(history))[dense > 0]
    whole, *without = _scores(recommender, known, seconds, int(dense_id), at)
    places = np.flatnonzero(dense > 0)
    titles = recommender.titles(list(vocabulary.decode(known)))
    influences = [
        Influence(int(place) + 1, each, title, score, score - whole)
        for place, each, title, score in zip(
            places, vocabulary.decode(known), titles, without, strict=True
        )
    ]
    (own_id,) = vocabulary.decode(np.array([dense_id], np.int32))
    unknown = [item for item, found in zip(history, dense, strict=True) if not found]
    (title,) = recommender.titles([own_id])
    return Explanation(own_id, title, whole, influences, unknown)


def _scores(
    recommender: Recommender,
    known: npt.NDArray[np.int32],
    seconds: npt.NDArray[np.int32] | None,
    dense_id: int,
    at: object,
) -> list[float]:
    """The score after the whole history, then after it without each of its places."""
    retriever = recommender.retriever
    num_older = max(0, len(known) - retriever.max_length)
    newest = range(num_older, len(known))

    def with_and_without(values: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int32]]:
        return [values, *(np.delete(values, place) for place in newest)]

    columns = Columns.from_lists(
        with_and_without(known),
        retriever.max_length,
        seconds=None if seconds is None else with_and_without(seconds),
        asked_at=None if at is None else recommender.asked_at(at, 1 + len(newest)),
    )
    whole, *without = (float(score) for score in retriever.scores_of(columns, dense_id))
    return [whole, *[whole] * num_older, *without]
