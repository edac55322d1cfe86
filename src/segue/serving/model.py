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
from polars.exceptions import PanicException, PolarsError

from segue.arrays import offsets_of
from segue.artifact import Run
from segue.data.columns import ASKED_AT, TIMESTAMPS, Columns
from segue.data.roles import TITLE
from segue.data.times import UNKNOWN_TIME
from segue.errors import RequestError, SegueError
from segue.model.inference import ROW_SIZES, lengths_of
from segue.recommender import MODEL, POPULAR, Id, Recommender
from segue.reporting.explanation import Explanation, explain
from segue.retrieval.filters import Filter, ItemFilters
from segue.retriever import ONLINE_ROWS
from segue.serving.limits import MAX_HISTORY, MAX_SAFE_INTEGER
from segue.serving.search import TitleSearch
from segue.serving.stores import UserEvents
from segue.serving.times import Clock, Given, Stored, moment_of

VERSION_LENGTH = 12
YEAR = "year"
# Not \d, which is a digit of any script.
YEAR_IN_TITLE = r"\(([0-9]{4})\)\s*$"

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
class ServedQuestion:
    """What to recommend to a history, or to a user with stored events.

    Attributes:
        wanted: See there.
        history: Item ids; None: the user's.
        times: When each of them was met; None: they stand in that order.
        user_id: Whose history, where none is given.
        events: What the store has of that user.
        exclude_seen: Whether the history's items are left out; None: as the run does.
        at: When it is asked; None: now.
    """

    wanted: Wanted
    history: Sequence[Id] | None = None
    times: Sequence[Given] | None = None
    user_id: str = ""
    events: UserEvents | None = None
    exclude_seen: bool | None = None
    at: Given | None = None


@dataclass(frozen=True)
class SimilarQuestion:
    """Which items are like one."""

    wanted: Wanted
    item_id: Id


@dataclass(frozen=True)
class WhyQuestion:
    """Why an item is recommended; `of` says to whom."""

    of: ServedQuestion
    item_id: Id


@dataclass(frozen=True)
class ServedAnswer:
    """What a question is answered, by one model; `items` are ready for JSON."""

    model_version: str
    strategy: str
    unknown_items: list[Id]
    items: list[dict[str, Any]]
    reason: str | None = None


@dataclass
class _Prepared:
    """A question by dense ids."""

    question: ServedQuestion
    item_ids: DenseIds
    seconds: DenseIds
    asked_at: int
    left_out: DenseIds
    allowed: DenseIds | None
    unknown: list[Id]
    answer: ServedAnswer | None = field(default=None)


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
        self.retriever = recommender.retriever
        self.vocabulary = recommender.vocabulary
        self.version = _version_of(run)
        self.loaded_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self.histories = run.split.histories if run.split else None
        self.clock = Clock.of(self.histories)
        self.catalogue = _with_years(run.catalogue, self.vocabulary.num_items)
        self.filters = ItemFilters(self.catalogue)
        self._hidden = np.zeros(0, np.int32)
        self._metadata = self.catalogue.select(map(_readable, self.catalogue.iter_columns()))
        ids = self.vocabulary.ids.to_list()
        self._outside = [shown_id(each) for each in ids]
        # For the few ids of a request a dict is a hundred times as fast as a table.
        self._dense = {str(each): dense for dense, each in enumerate(ids, start=1)}

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
            for length in lengths_of(self.retriever.max_length) if rows <= ONLINE_ROWS else ():
                self.retriever.top(Columns(np.ones((rows, length), np.int32)), 1)
        self.retriever.similar(1, 1)
        self.search.find("", 1)

    def hide(self, item_ids: Iterable[str]) -> None:
        """Have no answer recommend, find or show these items, and all others again."""
        known = (self._dense.get(each) for each in item_ids)
        self._hidden = np.array(sorted(each for each in known if each), np.int32)

    def answers(self, questions: Sequence[ServedQuestion]) -> list[ServedAnswer | SegueError]:
        """What each question is answered, in their order; an error instead where one is wrong."""
        outcomes: list[_Prepared | SegueError] = []
        for question in questions:
            try:
                outcomes.append(self._prepared(question))
            except SegueError as error:
                outcomes.append(error)
        for group in _groups([each for each in outcomes if isinstance(each, _Prepared)]):
            self._rank(group)
        return [each.answer if isinstance(each, _Prepared) else each for each in outcomes]  # type: ignore[misc]

    def similar(self, question: SimilarQuestion) -> ServedAnswer:
        """The items like one.

        Raises:
            UnknownItemError: The vocabulary lacks it.
            RequestError: The filter does not fit the catalogue.
        """
        dense = self.dense_id(question.item_id)
        unknown: list[Id] = []
        denied = np.concatenate([self._known(question.wanted.deny, unknown), self._hidden])
        allowed = self._allowed(question.wanted, unknown)
        k = question.wanted.k
        top = self.retriever.similar(dense, k, denied=denied, allowed=allowed)
        items = self.described(top.item_ids[0], top.scores[0], question.wanted.parts)
        return ServedAnswer(self.version, "similar", unknown, items, _reason(k, len(items)))

    def explanation(self, question: WhyQuestion) -> Explanation:
        """What the score of an item would be without each item of a history.

        Raises:
            DataError: `at` is no moment, or the run's log has no clock.
            UnknownItemError: The item is hidden.
            RequestError: The vocabulary lacks the item, or all of the history.
        """
        if str(question.item_id) in self._dense:
            self.dense_id(question.item_id)
        history, stored = self._outside_history(question.of)
        at = moment_of(self.clock.asked_at(question.of.at))
        times = None
        if stored is not None and self._reads_times and self.clock.has_moments:
            times = [moment_of(seconds) for seconds in self.clock.seconds(stored).tolist()]
        return explain(self.recommender, history, question.item_id, times=times, at=at)

    def dense_id(self, item_id: Id) -> int:
        """The dense id of an outside id.

        Raises:
            UnknownItemError: The vocabulary lacks it, or it is hidden.
        """
        dense = self._dense.get(str(item_id))
        if dense is None:
            raise UnknownItemError(
                f"the model's {self.vocabulary.num_items:,} items do not include {item_id!r}"
            )
        if dense in self._hidden:
            raise UnknownItemError(f"the item {item_id!r} is hidden")
        return dense

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
        if not self._metadata.width:
            return [{} for _ in dense_ids]
        rows = self._metadata[[each - 1 for each in dense_ids]].to_dicts()
        return [
            {name: as_json(value) for name, value in row.items() if value is not None}
            for row in rows
        ]

    def found(self, query: str, limit: int) -> list[dict[str, Any]]:
        """Items by their titles, ready for JSON."""
        return self.items(self.search.find(query, limit, self._hidden).tolist())

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

    def history(self, user_id: str, events: UserEvents) -> list[tuple[Id, Stored | None]] | None:
        """A user's items and times, the run's and the stored ones merged; None if unknown.

        In the order of the events' times, then of their arrival; what the run has and the store
        repeats counts once. Where the run has no times, its items come first, with None.
        """
        items, times = self._run_history(user_id, events)
        if not len(items) and not events.items:
            return None
        outside = [self._outside[dense - 1] for dense in items.tolist()]
        kept = [None] * len(items) if times is None else self.clock.stored_all(times)
        merged: list[tuple[Id, Stored | None]] = list(zip(outside, kept, strict=True))
        known = {(str(item), at) for item, at in merged}
        merged += [
            (self._own_type(item), at)
            for item, at in zip(events.items, events.times, strict=True)
            if (item, at) not in known
        ]
        merged.sort(key=lambda pair: -math.inf if pair[1] is None else pair[1])
        return merged[-MAX_HISTORY:]

    def _own_type(self, item: str) -> Id:
        """A stored id, which is text, as the log's type writes it."""
        dense = self._dense.get(item)
        return item if dense is None else self._outside[dense - 1]

    def _prepared(self, question: ServedQuestion) -> _Prepared:
        unknown: list[Id] = []
        item_ids, seconds = self._history(question, unknown)
        denied = self._known(question.wanted.deny, unknown)
        allowed = self._allowed(question.wanted, unknown)
        excludes = question.exclude_seen
        if excludes is None:
            excludes = not self.recommender.run.repeats
        denied = np.concatenate([denied, self._hidden])
        left_out = np.concatenate([item_ids, denied]) if excludes else denied
        asked_at = self.clock.asked_at(question.at)
        unknown = list(dict.fromkeys(unknown))
        return _Prepared(question, item_ids, seconds, asked_at, left_out, allowed, unknown)

    def _history(self, question: ServedQuestion, unknown: list[Id]) -> tuple[DenseIds, DenseIds]:
        """Dense ids, oldest first, and their times as models read them.

        Ids that the vocabulary lacks join `unknown`.
        """
        events = question.events or UserEvents()
        if question.history is None and not events.items:
            items, times = self._run_history(question.user_id, events)
            return items, self._seconds([None] * len(items) if times is None else times)
        outside, stored = self._outside_history(question)
        if not self._reads_times or stored is None:
            dense = self._known(outside, unknown)
            return dense, np.full(len(dense), UNKNOWN_TIME, np.int32)
        is_known = [str(item) in self._dense for item in outside]
        return self._known(outside, unknown), self._seconds(stored)[is_known]

    @property
    def _reads_times(self) -> bool:
        """Whether the model wants the times of a history's items."""
        return bool({TIMESTAMPS, ASKED_AT} & set(self.retriever.encoder.wants))

    def _seconds(self, times: Sequence[Stored | None] | npt.NDArray[Any]) -> DenseIds:
        """Times as models read them, where the model wants them."""
        if not self._reads_times:
            return np.full(len(times), UNKNOWN_TIME, np.int32)
        return self.clock.seconds(times)

    def _outside_history(
        self, question: ServedQuestion
    ) -> tuple[Sequence[Id], Sequence[Stored | None] | None]:
        """Oldest first, with their times where these are known; unknown ids are among them."""
        if question.history is not None:
            return self._in_order(question.history, question.times)
        history = self.history(question.user_id, question.events or UserEvents()) or []
        return [item for item, _ in history], [at for _, at in history]

    def _in_order(
        self, history: Sequence[Id], times: Sequence[Given] | None
    ) -> tuple[Sequence[Id], Sequence[Stored] | None]:
        """Oldest first: as given, or by time where there are times."""
        if times is None:
            return history, None
        stored = [self.clock.stored(moment) for moment in times]
        order = sorted(range(len(stored)), key=stored.__getitem__)
        return [history[place] for place in order], [stored[place] for place in order]

    def _run_history(
        self, user_id: str, events: UserEvents
    ) -> tuple[DenseIds, npt.NDArray[Any] | None]:
        """What the run has of a user who was not erased; the times are None where it has none."""
        user = None
        if self.histories is not None and not events.is_erased:
            user = self.histories.index_of(user_id)
        if self.histories is None or user is None:
            return np.zeros(0, np.int32), None
        owned = slice(self.histories.offsets[user], self.histories.offsets[user + 1])
        times = self.histories.timestamps
        return self.histories.item_ids[owned], None if times is None else times[owned]

    def _known(self, ids: Sequence[Id], unknown: list[Id]) -> DenseIds:
        """Dense ids of those that are known; the others join `unknown`."""
        dense = [self._dense.get(str(each), 0) for each in ids]
        if 0 in dense:
            unknown += [shown_id(each) for each, known in zip(ids, dense, strict=True) if not known]
            dense = [each for each in dense if each]
        return np.array(dense, np.int32)

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
        """Answer questions that may be answered from the same candidates."""
        columns = Columns.from_lists(
            [prepared.item_ids for prepared in group],
            self.retriever.max_length,
            seconds=[prepared.seconds for prepared in group] if self._reads_times else None,
            asked_at=np.array([prepared.asked_at for prepared in group], np.int32),
        )
        left_out = [prepared.left_out for prepared in group]
        lengths = np.array([len(items) for items in left_out])
        k = max(prepared.question.wanted.k for prepared in group)
        retrieved = self.retriever.top(
            columns,
            k,
            exclusions=(offsets_of(lengths), np.concatenate(left_out)),
            allowed=group[0].allowed,
        )
        top = retrieved.top
        for row, prepared in enumerate(group):
            wanted = prepared.question.wanted
            items = self.described(
                top.item_ids[row, : wanted.k], top.scores[row, : wanted.k], wanted.parts
            )
            strategy = POPULAR if retrieved.is_popular[row] else MODEL
            reason = _reason(wanted.k, len(items))
            prepared.answer = ServedAnswer(self.version, strategy, prepared.unknown, items, reason)

    def _counts(self) -> npt.NDArray[np.int64]:
        return self.recommender.run.item_counts


def _groups(prepared: Sequence[_Prepared]) -> list[list[_Prepared]]:
    """Questions that one search can answer: those without a list of what is allowed.

    A question with such a list stands alone. No group is larger than what `warm_up` compiles.
    """
    together = [question for question in prepared if question.allowed is None]
    groups = [
        together[start : start + ONLINE_ROWS] for start in range(0, len(together), ONLINE_ROWS)
    ]
    return groups + [[question] for question in prepared if question.allowed is not None]


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


def _readable(column: pl.Series) -> pl.Series:
    """A column as Python can read it.

    Where it has years that Python's datetimes lack, it is text; where Polars cannot write these
    either, the numbers that it is made of.
    """
    as_text = _without_dates(column.dtype)
    if as_text == column.dtype or _can_be_read(column):
        return column
    try:
        return column.cast(as_text)
    except (PanicException, PolarsError):
        return column.to_physical()


def _can_be_read(column: pl.Series) -> bool:
    try:
        column.to_list()
    except (ValueError, OverflowError, PanicException):
        return False
    return True


def _without_dates(dtype: Any) -> pl.DataType:
    """The type with text in the place of dates, at whatever depth."""
    match dtype:
        case pl.Date() | pl.Datetime() | pl.Duration():
            return pl.String()
        case pl.List():
            return pl.List(_without_dates(dtype.inner))
        case pl.Array():
            return pl.Array(_without_dates(dtype.inner), dtype.size)
        case pl.Struct():
            return pl.Struct({each.name: _without_dates(each.dtype) for each in dtype.fields})
    whole: pl.DataType = dtype
    return whole


def _version_of(run: Run) -> str:
    """The beginning of a hash of all that answers depend on but the histories."""
    digest = hashlib.sha256(json.dumps(run.config.model_dump(mode="json")).encode())
    for name, weight in sorted(run.weights.items()):
        digest.update(f"{name} {weight.dtype} {weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).view(np.uint8).data)
    digest.update(run.vocabulary.ids.cast(pl.String).str.join("\n")[0].encode())
    digest.update(run.item_counts.data)
    return digest.hexdigest()[:VERSION_LENGTH]
