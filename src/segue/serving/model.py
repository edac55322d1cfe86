"""A run ready to answer: outside ids in, ranked outside ids out, many questions at once."""

import base64
import datetime as dt
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.artifact import Run
from segue.data.columns import TITLE
from segue.data.histories import Histories
from segue.errors import RequestError, SegueError
from segue.model.encoder import ROW_SIZES, lengths_of
from segue.recommender import MODEL, POPULAR, Id, Recommender
from segue.retrieval.filters import Filter, ItemFilters
from segue.serving.limits import MAX_HISTORY, MAX_SAFE_INTEGER
from segue.serving.search import TitleSearch
from segue.serving.store import UserEvents
from segue.serving.times import Clock, Given, Stored

# Larger batches take longer for each question, on a CPU, and all of them wait for the last.
MAX_BATCH = 32
VERSION_LENGTH = 12
YEAR = "year"
YEAR_IN_TITLE = r"\((\d{4})\)\s*$"

DenseIds = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Wanted:
    """How many items, of which, and what to tell of them."""

    k: int = 10
    allow: Sequence[Id] | None = None
    deny: Sequence[Id] = ()
    where: Filter | None = None
    parts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Question:
    """What to recommend to a history, or to a user with stored events."""

    wanted: Wanted
    history: Sequence[tuple[Id, Given | None]] | None = None
    user_id: str = ""
    events: UserEvents | None = None
    exclude_seen: bool = True


@dataclass(frozen=True)
class SimilarQuestion:
    """Which items are like one."""

    wanted: Wanted
    item_id: Id


@dataclass(frozen=True)
class Answer:
    """What a question is answered, by one model; `items` are ready for JSON."""

    model_version: str
    strategy: str
    unknown_items: list[Id]
    items: list[dict[str, Any]]
    reason: str | None = None


@dataclass
class _Prepared:
    """A question by dense ids."""

    question: Question
    item_ids: DenseIds
    left_out: DenseIds
    allowed: DenseIds | None
    unknown: list[Id]
    answer: Answer | None = field(default=None)


class UnknownItemError(RequestError):
    """The item of which something is asked is not in the vocabulary."""


class ServedModel:
    """A recommender with what serving adds: filters, search, merged histories, a version.

    `answers`, `similar` and all that ranks belong to one thread at a time.
    """

    def __init__(self, recommender: Recommender) -> None:
        """Prepare a recommender; nothing is compiled yet, see `warm_up`."""
        run = recommender.run
        self.recommender = recommender
        self.vocabulary = recommender.vocabulary
        self.version = _version_of(run)
        self.loaded_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self.histories = run.split.histories if run.split else None
        self.clock = Clock.of(self.histories)
        self.catalogue = _with_years(run.catalogue, self.vocabulary.num_items)
        self.filters = ItemFilters(self.catalogue)
        self._outside = [shown_id(each) for each in self.vocabulary.ids.to_list()]

    @cached_property
    def search(self) -> TitleSearch:
        """Titles, or ids where the catalogue has none."""
        titles = self.recommender.titles(self.vocabulary.ids.to_list())
        return TitleSearch(titles, self._counts())

    def warm_up(self) -> None:
        """Have every shape compiled that a question can need.

        Raises:
            RequestError: The model gives queries that are not finite.
        """
        for rows in ROW_SIZES:
            for length in lengths_of(self.recommender.run.config.model.max_length):
                window = np.ones(length, np.int32)
                histories = Histories.from_lists(self.vocabulary, [window] * rows)
                self.recommender.top(MODEL, histories, 1)
        self.recommender.similar_to(1, 1)
        self.search.find("", 1)

    def answers(self, questions: Sequence[Question]) -> list[Answer | SegueError]:
        """What each question is answered, in their order; an error instead where one is wrong."""
        if not questions:
            return []
        outcomes: list[Answer | SegueError | None] = []
        histories: list[Sequence[Id]] = []
        for question in questions:
            try:
                histories.append(self._history(question))
                outcomes.append(None)
            except SegueError as error:
                histories.append([])
                outcomes.append(error)
        # Looking up all ids at once costs hardly more than looking up those of one history.
        dense = self.vocabulary.encode_text([each for history in histories for each in history])
        ends = np.cumsum([len(history) for history in histories])[:-1]
        prepared: list[_Prepared] = []
        for at, item_ids in enumerate(np.split(dense, ends)):
            if outcomes[at] is None:
                try:
                    prepared.append(self._prepared(questions[at], histories[at], item_ids))
                except SegueError as error:
                    outcomes[at] = error
        for group in _groups(prepared):
            self._rank(group)
        ready = iter(prepared)
        return [next(ready).answer if each is None else each for each in outcomes]  # type: ignore[misc]

    def similar(self, question: SimilarQuestion) -> Answer:
        """The items like one.

        Raises:
            UnknownItemError: The vocabulary lacks it.
            RequestError: The filter does not fit the catalogue.
        """
        dense = self.dense_id(question.item_id)
        unknown: list[Id] = []
        denied = self._known(question.wanted.deny, unknown)
        allowed = self._allowed(question.wanted, unknown)
        k = question.wanted.k
        top = self.recommender.similar_to(dense, k, denied=denied, allowed=allowed)
        items = self.described(top.item_ids[0], top.scores[0], question.wanted.parts)
        return Answer(self.version, "similar", unknown, items, _reason(k, len(items)))

    def dense_id(self, item_id: Id) -> int:
        """The dense id of an outside id.

        Raises:
            UnknownItemError: The vocabulary lacks it.
        """
        (dense,) = self.vocabulary.encode_text([item_id])
        if not dense:
            raise UnknownItemError(
                f"the model's {self.vocabulary.num_items:,} items do not include {item_id!r}"
            )
        return int(dense)

    def described(
        self, item_ids: DenseIds, scores: npt.NDArray[np.float32], parts: Iterable[str]
    ) -> list[dict[str, Any]]:
        """Ranked items, ready for JSON; ends where the candidates do."""
        dense = item_ids[item_ids > 0].tolist()
        items: list[dict[str, Any]] = [
            {"item_id": self._outside[each - 1], "rank": rank}
            for rank, each in enumerate(dense, start=1)
        ]
        if "score" in parts:
            for item, score in zip(items, scores.tolist(), strict=False):
                item["score"] = score
        if "metadata" in parts:
            for item, metadata in zip(items, self.metadata(dense), strict=True):
                item["metadata"] = metadata
        return items

    def metadata(self, dense_ids: Sequence[int]) -> list[dict[str, Any]]:
        """What the catalogue says of items, ready for JSON; nulls are left out."""
        if not self.catalogue.width:
            return [{} for _ in dense_ids]
        rows = self.catalogue[[each - 1 for each in dense_ids]].to_dicts()
        return [
            {name: as_json(value) for name, value in row.items() if value is not None}
            for row in rows
        ]

    def items(self, dense_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Items by themselves, ready for JSON."""
        counts = self._counts()
        return [
            {
                "item_id": self._outside[dense - 1],
                "train_interactions": int(counts[dense]),
                "metadata": metadata,
            }
            for dense, metadata in zip(dense_ids, self.metadata(dense_ids), strict=True)
        ]

    def history(self, user_id: str, events: UserEvents) -> list[tuple[Id, Stored]] | None:
        """A user's items and times, the run's and the stored ones merged; None if unknown.

        In the order of the events' times, then of their arrival; what the run has and the store
        repeats counts once.
        """
        items, times = self._run_history(user_id, events)
        if not len(items) and not events.items:
            return None
        outside = [self._outside[dense - 1] for dense in items.tolist()]
        merged = list(zip(outside, self.clock.stored_all(times), strict=True))
        known = {(str(item), at) for item, at in merged}
        merged += [
            (self._own_type(item), at)
            for item, at in zip(events.items, events.times, strict=True)
            if (item, at) not in known
        ]
        merged.sort(key=lambda pair: pair[1])
        return merged[-MAX_HISTORY:]

    def _own_type(self, item: str) -> Id:
        """A stored id, which is text, as the log's type writes it."""
        (dense,) = self.vocabulary.encode_text([item])
        return self._outside[dense - 1] if dense else item

    def _prepared(self, question: Question, history: Sequence[Id], item_ids: DenseIds) -> _Prepared:
        """A question whose history was looked up, 0 where it is unknown."""
        unknown: list[Id] = []
        item_ids = _kept(history, item_ids, unknown)
        denied = self._known(question.wanted.deny, unknown)
        allowed = self._allowed(question.wanted, unknown)
        left_out = np.concatenate([item_ids, denied]) if question.exclude_seen else denied
        return _Prepared(question, item_ids, left_out, allowed, list(dict.fromkeys(unknown)))

    def _history(self, question: Question) -> Sequence[Id]:
        if question.history is not None:
            return self._in_order(question.history)
        if question.events is None or not question.events.items:
            items, _ = self._run_history(question.user_id, question.events or UserEvents())
            return self.vocabulary.decode(items).to_list()
        return [item for item, _ in self.history(question.user_id, question.events) or []]

    def _in_order(self, history: Sequence[tuple[Id, Given | None]]) -> Sequence[Id]:
        """Oldest first: as given, or by time where there are times."""
        if not history or history[0][1] is None:
            return [item for item, _ in history]
        times = [self.clock.stored(at) for _, at in history if at is not None]
        order = sorted(range(len(times)), key=times.__getitem__)
        return [history[each][0] for each in order]

    def _run_history(self, user_id: str, events: UserEvents) -> tuple[DenseIds, npt.NDArray[Any]]:
        user = None
        if self.histories is not None and not events.is_erased:
            user = self.histories.index_of(user_id)
        if self.histories is None or user is None:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        owned = slice(self.histories.offsets[user], self.histories.offsets[user + 1])
        return self.histories.item_ids[owned], self.histories.timestamps[owned]

    def _known(self, ids: Sequence[Id], unknown: list[Id]) -> DenseIds:
        """Dense ids of those that are known; the others join `unknown`."""
        if not ids:
            return np.zeros(0, np.int32)
        return _kept(ids, self.vocabulary.encode_text(ids), unknown)

    def _allowed(self, wanted: Wanted, unknown: list[Id]) -> DenseIds | None:
        """Dense ids, ascending, that may be ranked; None: all."""
        allowed = None
        if wanted.allow is not None:
            allowed = np.unique(self._known(wanted.allow, unknown))
        if wanted.where is not None:
            fitting = self.filters.allowed(wanted.where)
            allowed = fitting if allowed is None else np.intersect1d(allowed, fitting)
        return allowed

    def _rank(self, group: Sequence[_Prepared]) -> None:
        """Answer questions of one strategy that may be answered from the same candidates."""
        first = group[0]
        strategy = MODEL if len(first.item_ids) else POPULAR
        histories = Histories.from_lists(self.vocabulary, [each.item_ids for each in group])
        lengths = np.array([len(each.left_out) for each in group])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        exclusions = offsets, np.concatenate([each.left_out for each in group])
        k = max(each.question.wanted.k for each in group)
        top = self.recommender.top(
            strategy, histories, k, exclusions=exclusions, allowed=first.allowed
        )
        for each, item_ids, scores in zip(group, top.item_ids, top.scores, strict=True):
            wanted = each.question.wanted
            items = self.described(item_ids[: wanted.k], scores[: wanted.k], wanted.parts)
            reason = _reason(wanted.k, len(items))
            each.answer = Answer(self.version, strategy, each.unknown, items, reason)

    def _counts(self) -> npt.NDArray[np.int64]:
        return self.recommender.run.item_counts


def _kept(ids: Sequence[Id], dense: DenseIds, unknown: list[Id]) -> DenseIds:
    """The dense ids but 0; the ids for which 0 stands join `unknown`."""
    is_known = dense > 0
    if is_known.all():
        return dense
    unknown += [shown_id(ids[each]) for each in np.flatnonzero(~is_known).tolist()]
    return dense[is_known]


def _groups(prepared: Sequence[_Prepared]) -> list[list[_Prepared]]:
    """Questions that one search can answer: of one strategy, without a list of what is allowed.

    A question with such a list stands alone.
    """
    groups: dict[int, list[_Prepared]] = {}
    for each in prepared:
        key = len(each.item_ids) > 0 if each.allowed is None else id(each)
        groups.setdefault(key, []).append(each)
    return list(groups.values())


def _reason(k: int, found: int) -> str | None:
    if found == k:
        return None
    return (
        f"{found} of {k}: no other candidate is left by what was seen, denied, allowed and filtered"
    )


def shown_id(item_id: Id) -> Id:
    """An id as it stands in JSON: integers that not every reader holds are text."""
    is_safe = isinstance(item_id, str) or abs(item_id) <= MAX_SAFE_INTEGER
    return item_id if is_safe else str(item_id)


def as_json(value: Any) -> Any:
    """A value of a catalogue, ready for JSON."""
    match value:
        case bool() | str() | None:
            return value
        case int():
            return shown_id(value)
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {str(name): as_json(each) for name, each in value.items()}
        case list():
            return [as_json(each) for each in value]
        case dt.date() | dt.time():
            return value.isoformat()
        case _:
            return str(value)


def _with_years(catalogue: pl.DataFrame | None, num_items: int) -> pl.DataFrame:
    """The catalogue with `year`, read from titles such as `Heat (1995)` where there is none."""
    if catalogue is None:
        return pl.DataFrame(height=num_items)
    if YEAR in catalogue.columns or TITLE.name not in catalogue.columns:
        return catalogue
    years = catalogue[TITLE.name].str.extract(YEAR_IN_TITLE).cast(pl.Int32)
    return catalogue if years.is_null().all() else catalogue.with_columns(years.alias(YEAR))


def _version_of(run: Run) -> str:
    """The beginning of a hash of all that answers depend on but the histories."""
    digest = hashlib.sha256(json.dumps(run.config.model_dump(mode="json")).encode())
    for name, weight in sorted(run.weights.items()):
        digest.update(f"{name} {weight.dtype} {weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).view(np.uint8).data)
    digest.update(run.vocabulary.ids.cast(pl.String).str.join("\n")[0].encode())
    digest.update(run.item_counts.data)
    return digest.hexdigest()[:VERSION_LENGTH]
