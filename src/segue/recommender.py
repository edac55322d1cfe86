"""`Recommender`: outside ids in, ranked outside ids out, from a trained run."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.artifact import Run, read_run, write_run
from segue.data.columns import ASKED_AT
from segue.data.histories import Histories
from segue.data.items import Catalogue
from segue.data.lists import is_pandas, lists_of, to_pandas
from segue.data.splits import HeldOut
from segue.data.times import TimeUnit, as_moment, to_seconds
from segue.errors import DataError, RequestError
from segue.evaluation import protocol as protocols
from segue.evaluation.baselines import usual_baselines
from segue.evaluation.protocol import Ranking, Scorer
from segue.model.sequence_model import SequenceModel, build_model
from segue.model.weights import WeightViews, load_weights
from segue.new_items import with_items
from segue.notebook import Report, recommender_html
from segue.retrieval.selection import TopK
from segue.retriever import ModelScorer, Retriever

if TYPE_CHECKING:
    import pandas as pd

MAX_K = 500
# Users encoded and ranked together when many are asked for.
BLOCK_USERS = 2_048

Id = str | int
T = TypeVar("T")
# A list for each history; an array with one in each row; a column of lists.
Lists = Sequence[Sequence[T]] | npt.NDArray[Any] | pl.Series
MODEL, POPULAR = "model", "popular"


@dataclass(frozen=True, eq=False)
class Answer:
    """The recommendations for one history.

    Attributes:
        strategy: "model", or "popular" where the history holds no known item.
        unknown_items: the history's ids that the vocabulary lacks; they were skipped.
        items: item_id, rank (from 1), score, and title where the catalogue has titles; fewer than
            k rows where fewer candidates are left.
    """

    strategy: str
    unknown_items: list[Id]
    items: pl.DataFrame


class Recommender:
    """A trained model with its vocabulary, catalogue, counts and histories.

    Histories are cut to their newest `max_length` items; seen items are excluded unless asked for;
    a history without a known item gets the most popular ones, marked so.
    """

    def __init__(
        self, run: Run, model: SequenceModel | None = None, *, index: str = "exact"
    ) -> None:
        """Builds the model of a run.

        Args:
            run: Its weights are read into the model, and from then on from there: once the
                caller drops the run, one copy is in memory.
            model: The run's model where it exists already; it is trained no more.
            index: A registered index, by which items are found.

        Raises:
            RunError: the weights do not fit the configuration.
            ConfigError: no index, encoder, tower or loss of that name is registered.
        """
        if model is None:
            model = build_model(run.vocabulary.num_items, run.config, run.catalogue)
            load_weights(model, run.weights)
        self.run = replace(run, weights=WeightViews(model))
        self.vocabulary = run.vocabulary
        self.model = model
        self.retriever = Retriever(model, run.item_counts, index=index)

    def __copy__(self) -> "Recommender":
        """Another recommender with the same run and model."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recommender":
        """Another recommender of the same run, with a model of its own."""
        return Recommender(self.run)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Recommender is not pickled; save it with .save(PATH) and have each process load it "
            "with segue.load(PATH)"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: what it knows, and how good it is."""
        return recommender_html(self.run)

    @classmethod
    def load(cls, path: str | Path, *, index: str = "exact") -> "Recommender":
        """The recommender of a run on disk, verified.

        Args:
            path: the run's directory.
            index: a registered index, by which items are found.

        Raises:
            RunError: not a run, damaged, incomplete or of a newer format.
            ConfigError: no index of that name is registered.
        """
        return cls(read_run(path), index=index)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Writes the run; the target is complete or untouched.

        Raises:
            OutputError: it exists (and `force` is not set) or cannot be written.
        """
        write_run(self.run, path, force=force)

    def with_items(self, items: Catalogue) -> "Recommender":
        """A recommender that knows these items too, or what is said of them now.

        Nothing is trained: a new item is placed by its content, from the next request on.

        Args:
            items: As `segue.read_items` gives them, with the columns that the run reads
                (`item_features`).

        Raises:
            RequestError: The run knows items by their interactions alone.
            DataError: As `segue.new_items.with_items`.
        """
        return Recommender(with_items(self.run, self.model, items))

    def evaluate(
        self,
        test: HeldOut | None = None,
        *,
        protocol: str = protocols.FULL,
        seed: int = 0,
        request_time: bool = True,
    ) -> Report:
        """How well the model ranks the held-out targets, next to popularity and item-KNN.

        Args:
            test: histories and targets; by default the run's own test part.
            protocol: "full" (the whole catalogue) or "sampled" (100 negatives).
            seed: of the intervals and of the sampled negatives.
            request_time: whether the model may know when each target was asked for, where it reads
                that.

        Returns:
            The report of `evaluation.protocol.report`, a dict, with `split`, and with
            `request_time`, True where the model knew when each target was asked for.

        Raises:
            RequestError: the run holds no test part, the protocol is unknown, or the histories are
                over another vocabulary.
        """
        return Report(self._evaluated(test, protocol, seed, request_time)[0])

    def with_report(self, test: HeldOut | None = None) -> "Recommender":
        """The same recommender whose run carries the full report and every user's rank."""
        report, ranking = self._evaluated(test, protocols.FULL, 0, request_time=True)
        reported = copy(self)
        reported.run = replace(self.run, report=report, ranking=ranking)
        return reported

    @overload
    def recommend(
        self,
        histories: "pd.Series[Any]",
        k: int = ...,
        *,
        exclude_seen: bool | None = ...,
        times: Lists[object] | None = ...,
        at: object = ...,
    ) -> "pd.DataFrame": ...

    @overload
    def recommend(
        self,
        histories: Lists[Id],
        k: int = ...,
        *,
        exclude_seen: bool | None = ...,
        times: Lists[object] | None = ...,
        at: object = ...,
    ) -> pl.DataFrame: ...

    def recommend(
        self,
        histories: Any,
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
        times: Any = None,
        at: object = None,
    ) -> Any:
        """The best k items for each history.

        Args:
            histories: outside item ids, oldest first; unknown ones are skipped. Lists of ids, an
                array with a history in each row, or a column of lists, of Polars or pandas.
            k: 1..500.
            exclude_seen: leave out the items of the history; None: unless users of the run's log
                come back to items.
            times: when each item of each history was taken, in the same lists: numbers in the unit
                of the run's log, dates or datetimes, or either as text. None: not known.
            at: the moment at which it is asked, in any form of `times`; a list gives one for each
                history. None: not known.

        Returns:
            A Polars DataFrame: user_id (the history's place in the list), item_id, score, rank,
            strategy, and title where the catalogue has titles. For a column of pandas it is a
            pandas DataFrame, whose user_id is the column's index.

        Raises:
            RequestError: k is out of range, a history is no list of ids, or moments are given that
                the run's log has no clock for or that are none.
            DataError: The times of a history are not in order.
        """
        encoded = self._encoded(_listed(histories), None if times is None else lists_of(times))
        frame = self.recommend_histories(encoded, k, exclude_seen=exclude_seen, at=at)
        if not is_pandas(histories):
            return frame
        table = to_pandas(frame)
        table["user_id"] = histories.index.to_numpy()[table["user_id"].to_numpy()]
        return table

    def recommend_histories(
        self,
        histories: Histories,
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
        at: object = None,
    ) -> pl.DataFrame:
        """`recommend` for histories over this run's vocabulary, by their own user ids.

        Without `at` each is asked about at the moment that the histories themselves say.
        """
        check_k(k)
        self._check_vocabulary(histories)
        if exclude_seen is None:
            exclude_seen = not self.run.repeats
        if at is not None:
            histories = histories.asked(self.asked_at(at, histories.num_users))
        blocks = [
            self._block(histories, slice(start, start + BLOCK_USERS), k, exclude_seen)
            for start in range(0, histories.num_users, BLOCK_USERS)
        ]
        return pl.concat(blocks) if blocks else self._block(histories, slice(0, 0), k, exclude_seen)

    def answer(
        self,
        history: Sequence[Id],
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
        times: Sequence[object] | None = None,
        at: object = None,
    ) -> Answer:
        """`recommend` for one history, with what was unknown in it."""
        is_known = self.vocabulary.encode_text(history) > 0
        unknown = [item for item, known in zip(history, is_known, strict=True) if not known]
        rows = self.recommend(
            [history],
            k,
            exclude_seen=exclude_seen,
            times=None if times is None else [times],
            at=at,
        )
        strategy = MODEL if is_known.any() else POPULAR
        return Answer(strategy, unknown, rows.drop("user_id", "strategy"))

    def answer_user(
        self, user_id: Id, k: int = 10, *, exclude_seen: bool | None = None, at: object = None
    ) -> Answer:
        """`answer` for one of the run's users, whose history and its times the run knows.

        Raises:
            RequestError: the run has no such user, or as `recommend`.
        """
        history = self._histories.take(np.array([self._user(user_id)]))
        rows = self.recommend_histories(history, k, exclude_seen=exclude_seen, at=at)
        strategy = MODEL if history.num_interactions else POPULAR
        return Answer(strategy, [], rows.drop("user_id", "strategy"))

    def asked_at(self, at: object, num_histories: int) -> npt.NDArray[np.int32]:
        """Moments as models read them: int32[histories], seconds since 2000.

        Args:
            at: One moment, or a list of one for each history; as `recommend` takes it.
            num_histories: How many.

        Raises:
            RequestError: The run's log has no clock, there is another number of moments, or one of
                them is none.
        """
        is_list = isinstance(at, Sequence | np.ndarray | pl.Series) and not isinstance(at, str)
        moments = list(at) if is_list else [at] * num_histories  # type: ignore[call-overload]
        if len(moments) != num_histories:
            raise RequestError(
                f"at must be one moment or one for each of {num_histories:,} histories, got "
                f"{len(moments):,}"
            )
        return to_seconds(self._moments(moments), self.run.unit)

    def history_of(self, user_id: Id) -> list[Id]:
        """The items of one of the run's users, oldest first.

        Raises:
            RequestError: the run has no such user, or no histories.
        """
        items = self._histories.items_of(self._user(user_id))
        return list(self.vocabulary.decode(items))

    def similar(self, item_id: Id, k: int = 10) -> pl.DataFrame:
        """The items whose embeddings have the highest cosine with this item's.

        Returns:
            item_id, score (the cosine), rank, and title where the catalogue has titles.

        Raises:
            RequestError: the item is unknown or k is out of range.
        """
        check_k(k)
        (dense,) = self.vocabulary.encode_text([item_id])
        if not dense:
            raise RequestError(
                f"item {item_id!r} is not among the run's {self.vocabulary.num_items:,} items; "
                "check the id"
            )
        top = self.retriever.similar(int(dense), k)
        return self._named(top, pl.Series("user_id", [item_id])).drop("user_id")

    def titles(self, item_ids: Sequence[Id]) -> list[str]:
        """The title of each known item, its id where the catalogue has none."""
        dense = self.vocabulary.encode_text(item_ids)
        frame = self._items(dense)
        column = "title" if "title" in frame.columns else "item_id"
        return [
            str(title if title is not None else item)
            for title, item in zip(frame[column], frame["item_id"], strict=True)
        ]

    @property
    def _histories(self) -> Histories:
        if self.run.split is None:
            raise RequestError("the run holds no histories, so its users are unknown")
        return self.run.split.histories

    def _user(self, user_id: Id) -> int:
        """The index of one of the run's users."""
        user = self._histories.index_of(user_id)
        if user is None:
            raise RequestError(
                f"user {user_id!r} is not among the run's {self._histories.num_users:,} users; "
                "give a history instead"
            )
        return user

    def _encoded(
        self,
        histories: Sequence[Sequence[Id]],
        times: Sequence[Sequence[object]] | None = None,
    ) -> Histories:
        """The known items of histories, with their times where these are given."""
        dense = [self._dense(history) for history in histories]
        known = [history[history > 0] for history in dense]
        if times is None:
            return Histories.from_lists(self.vocabulary, known)
        lengths = [len(history) for history in histories]
        if [len(moments) for moments in times] != lengths:
            raise RequestError(
                f"times must be as many as the items of each history: {lengths}, got "
                f"{[len(moments) for moments in times]}"
            )
        in_unit = [
            self._moments(moments)[history > 0]
            for moments, history in zip(times, dense, strict=True)
        ]
        return Histories.from_lists(self.vocabulary, known, in_unit, known_unit=self.run.unit)

    def _moments(self, moments: Sequence[object]) -> npt.NDArray[Any]:
        """Moments in the unit of the run's log, int64, float64 or datetime64[us]."""
        if not self.run.unit.is_moment:
            raise RequestError(
                "the times of the run's log are an order and no moments, so nothing can be asked "
                "at a moment; leave it out, or train on a log with times"
            )
        try:
            parsed = [as_moment(moment, self.run.unit) for moment in moments]
        except DataError as error:
            raise RequestError(str(error)) from None
        is_datetime = self.run.unit is TimeUnit.DATETIME
        return np.array(parsed, "datetime64[us]" if is_datetime else None)

    def _check_vocabulary(self, histories: Histories) -> None:
        if not histories.vocabulary.equals(self.vocabulary):
            raise RequestError(
                "these histories count their items by another vocabulary; build them with "
                "Histories.from_log(log, recommender.vocabulary)"
            )

    def _dense(self, history: Sequence[Id]) -> npt.NDArray[np.int32]:
        """The dense ids of a history, 0 where the vocabulary lacks one."""
        if isinstance(history, str) or not isinstance(history, Sequence | np.ndarray | pl.Series):
            raise RequestError(
                f"{history!r} is no history; a history is a list of ids, and recommend takes a "
                "list of histories: [[1270, 593]]"
            )
        return self.vocabulary.encode_text(history)

    def _block(
        self, histories: Histories, users: slice, k: int, exclude_seen: bool
    ) -> pl.DataFrame:
        """The recommendations of a slice of the users, in their order."""
        block = histories.take(np.arange(*users.indices(histories.num_users)))
        exclusions = (block.offsets, block.item_ids) if exclude_seen else None
        columns = block.columns(self.retriever.max_length)
        retrieved = self.retriever.top(columns, k, exclusions=exclusions)
        frame = self._named(retrieved.top, block.user_ids)
        is_popular = np.repeat(retrieved.is_popular, retrieved.top.counts)
        strategies = pl.Series(np.where(is_popular, POPULAR, MODEL), dtype=pl.String)
        names = ["user_id", "item_id", "score", "rank"]
        return frame.with_columns(strategy=strategies).select(*names, "strategy", *_title(frame))

    def _named(self, top: TopK, user_ids: pl.Series) -> pl.DataFrame:
        """The rows of a search, with outside ids and titles; places without a candidate leave."""
        rows, columns = np.nonzero(top.item_ids)
        dense = top.item_ids[rows, columns]
        frame = self._items(dense).with_columns(
            user_id=user_ids.gather(rows),
            score=top.scores[rows, columns],
            rank=(columns + 1).astype(np.int32),
        )
        return frame.select("user_id", "item_id", "score", "rank", *_title(frame))

    def _items(self, dense: npt.NDArray[np.int32]) -> pl.DataFrame:
        """item_id, and title where the catalogue has titles, of known dense ids."""
        frame = pl.DataFrame({"item_id": self.vocabulary.decode(dense)})
        if self.run.catalogue is not None and "title" in self.run.catalogue.columns:
            titles = self.run.catalogue["title"].gather(dense.astype(np.int64) - 1)
            frame = frame.with_columns(title=titles)
        return frame

    def _evaluated(
        self, test: HeldOut | None, protocol: str, seed: int, request_time: bool
    ) -> tuple[dict[str, Any], Ranking]:
        split = self.run.split
        test = test or (split.test if split else None)
        if test is None:
            raise RequestError(
                "the run holds no test part, so there is nothing to evaluate on; fit with --split "
                "leave-one-out or global-time (in Python: fit the split, not split.train)"
            )
        self._check_vocabulary(test.histories)
        if not request_time:
            test = replace(test, histories=test.histories.asked(None))
        is_time_known = ASKED_AT in self.model.wants and test.histories.asked_at is not None
        is_trained = self.run.item_counts > 0
        rank = protocols.ranker(protocol, is_trained, seed)
        baselines, notes = self._baselines()
        scorer = ModelScorer(self.model, self.run.item_counts)
        ranking = protocols.ranker(protocol, self.run.is_placed, seed)(scorer, test)
        report = protocols.report(
            ranking,
            test,
            protocol=protocol,
            baselines={name: rank(scorer, test) for name, scorer in baselines.items()},
            is_trained=is_trained,
            seed=seed,
        )
        report["notes"] += notes
        if is_time_known:
            report["notes"].append(protocols.REQUEST_TIME_NOTE)
        kind = split.kind if split else "none"
        return {"split": kind, "request_time": is_time_known, **report}, ranking

    def _baselines(self) -> tuple[dict[str, Scorer], list[str]]:
        """The baselines that the run's training histories allow, and why others are missing."""
        if self.run.split is None:
            return {}, ["no baselines: the run holds no histories"]
        return usual_baselines(self.run.split.train, repeats=self.run.repeats)


def _listed(histories: Any) -> list[Any]:
    """Histories as a list of lists.

    Raises:
        RequestError: They are one text, or nothing that has rows.
    """
    if isinstance(histories, str) or not hasattr(histories, "__iter__"):
        raise RequestError(
            f"{histories!r} is no list of histories; recommend takes such as [[1270, 593]]"
        )
    return lists_of(histories)


def _title(frame: pl.DataFrame) -> list[str]:
    return ["title"] if "title" in frame.columns else []


def check_k(k: int) -> None:
    """Refuses a k that nothing can be answered to.

    Raises:
        RequestError: k is not in 1..500.
    """
    if k < 1:
        raise RequestError(f"k must be at least 1, got {k}")
    if k > MAX_K:
        raise RequestError(f"k must be at most {MAX_K}, got {k}")
