"""`Recommender`: outside ids in, ranked outside ids out, from a trained run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.artifact import Run, read_run, write_run
from segue.data.histories import Histories
from segue.data.splits import HeldOut
from segue.errors import RequestError
from segue.evaluation import protocol as protocols
from segue.evaluation.baselines import usual_baselines
from segue.evaluation.protocol import Ranking, Scorer
from segue.model.sasrec import SASRec
from segue.model.weights import load_weights
from segue.retrieval.index import ExactIndex, Exclusions, ItemIds, TopK
from segue.scoring import ModelScorer

MAX_K = 500
# Users encoded and ranked together when many are asked for.
BLOCK_USERS = 2_048
# Windows encoded together where somebody waits: more take longer for each, on a CPU. A service
# compiles the shapes up to this one.
ONLINE_ROWS = 32

Id = str | int
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

    def __init__(self, run: Run) -> None:
        """Builds the model of a run.

        Raises:
            RunError: the weights do not fit the configuration.
        """
        self.run = run
        self.vocabulary = run.vocabulary
        seed = run.config.training.seed
        self.model = SASRec(run.vocabulary.num_items, run.config.model, run.config.loss, seed=seed)
        load_weights(self.model, run.weights)
        self._scorer = ModelScorer(self.model, run.item_counts, is_final=True)
        self._index = ExactIndex(self._scorer.item_table)
        # Popularity is a product too: one column of counts against the query 1.
        self._popular = ExactIndex(run.item_counts[:, None].astype(np.float32))

    @classmethod
    def load(cls, path: str | Path) -> "Recommender":
        """The recommender of a run on disk, verified.

        Raises:
            RunError: not a run, damaged, incomplete or of a newer format.
        """
        return cls(read_run(path))

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Writes the run; the target is complete or untouched.

        Raises:
            OutputError: it exists (and `force` is not set) or cannot be written.
        """
        write_run(self.run, path, force=force)

    def evaluate(
        self,
        test: HeldOut | None = None,
        *,
        protocol: str = protocols.FULL,
        seed: int = 0,
    ) -> dict[str, Any]:
        """How well the model ranks the held-out targets, beside popularity and item-KNN.

        Args:
            test: histories and targets; by default the run's own test part.
            protocol: "full" (the whole catalogue) or "sampled" (100 negatives).
            seed: of the intervals and of the sampled negatives.

        Returns:
            The report of `evaluation.protocol.report`, with `split`.

        Raises:
            RequestError: the run holds no test part, the protocol is unknown, or the histories are
                over another vocabulary.
        """
        return self._evaluated(test, protocol, seed)[0]

    def with_report(self, test: HeldOut | None = None) -> "Recommender":
        """The same recommender whose run carries the full report and every user's rank."""
        report, ranking = self._evaluated(test, protocols.FULL, 0)
        return Recommender(replace(self.run, report=report, ranking=ranking))

    def recommend(
        self,
        histories: Sequence[Sequence[Id]],
        k: int = 10,
        *,
        exclude_seen: bool = True,
    ) -> pl.DataFrame:
        """The best k items for each history.

        Args:
            histories: outside item ids, oldest first; unknown ones are skipped.
            k: 1..500.
            exclude_seen: leave out the items of the history.

        Returns:
            user_id (the history's place in the list), item_id, score, rank, strategy, and title
            where the catalogue has titles.

        Raises:
            RequestError: k is out of range, or a history is no list of ids.
        """
        known = [self._known(history) for history in histories]
        encoded = Histories.from_lists(self.vocabulary, known)
        return self.recommend_histories(encoded, k, exclude_seen=exclude_seen)

    def recommend_histories(
        self, histories: Histories, k: int = 10, *, exclude_seen: bool = True
    ) -> pl.DataFrame:
        """`recommend` for histories over this run's vocabulary, by their own user ids."""
        check_k(k)
        self._check_vocabulary(histories)
        blocks = [
            self._block(histories, slice(at, at + BLOCK_USERS), k, exclude_seen)
            for at in range(0, histories.num_users, BLOCK_USERS)
        ]
        return pl.concat(blocks) if blocks else self._block(histories, slice(0, 0), k, exclude_seen)

    def answer(self, history: Sequence[Id], k: int = 10, *, exclude_seen: bool = True) -> Answer:
        """`recommend` for one history, with what was unknown in it."""
        is_known = self.vocabulary.encode_text(history) > 0
        unknown = [item for item, known in zip(history, is_known, strict=True) if not known]
        rows = self.recommend([history], k, exclude_seen=exclude_seen)
        strategy = MODEL if is_known.any() else POPULAR
        return Answer(strategy, unknown, rows.drop("user_id", "strategy"))

    def history_of(self, user_id: Id) -> list[Id]:
        """The items of one of the run's users, oldest first.

        Raises:
            RequestError: the run has no such user, or no histories.
        """
        if self.run.split is None:
            raise RequestError(f"the run holds no histories, so user {user_id!r} is unknown")
        histories = self.run.split.histories
        user = histories.index_of(user_id)
        if user is None:
            raise RequestError(
                f"user {user_id!r} is not among the run's {histories.num_users:,} users; "
                "give a history instead"
            )
        return list(self.vocabulary.decode(histories.items_of(user)))

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
        top = self.similar_to(dense, k)
        return self._named(top, pl.Series("user_id", [item_id])).drop("user_id")

    def top(
        self,
        strategy: str,
        windows: ItemIds,
        k: int,
        *,
        exclusions: Exclusions | None = None,
        allowed: ItemIds | None = None,
    ) -> TopK:
        """The best items after each window, by dense id; fewer where fewer candidates are left.

        Args:
            strategy: "model", for windows none of which is empty, or "popular", which looks at
                none of them.
            windows: int32[rows, length], dense ids as `Histories.windows` gives them.
            k: at least 1; cut to the number of items.
            exclusions, allowed: as `ExactIndex.search` takes them.
        """
        if strategy == MODEL:
            index, queries = self._index, self._scorer.encoder(windows)
        else:
            index, queries = self._popular, np.ones((len(windows), 1), dtype=np.float32)
        k = min(k, self.vocabulary.num_items)
        return index.search(queries, k, exclusions=exclusions, allowed=allowed)

    def similar_to(
        self,
        dense_id: int,
        k: int,
        *,
        denied: ItemIds | None = None,
        allowed: ItemIds | None = None,
    ) -> TopK:
        """One row: the items of the highest cosine with an item, itself left out, by dense id.

        Args:
            dense_id: 1..num_items.
            k: at least 1; cut to the number of items.
            denied: int32[n], what is not wanted either.
            allowed: int32[n], ascending: what may come; by default every item.
        """
        index, directions = self._directions
        left_out = np.append(np.zeros(0, np.int32) if denied is None else denied, dense_id)
        exclusions = (np.array([0, len(left_out)], np.int64), left_out.astype(np.int32))
        k = min(k, self.vocabulary.num_items)
        return index.search(directions[[dense_id]], k, exclusions=exclusions, allowed=allowed)

    def scores_of(self, histories: Histories, dense_id: int) -> npt.NDArray[np.float32]:
        """The score of one item after each history, float32[users]; 0 after an empty one.

        Args:
            histories: over this run's vocabulary.
            dense_id: 1..num_items.
        """
        item = self._scorer.item_table[dense_id]
        scores = [
            self._scorer.queries(histories, slice(at, at + ONLINE_ROWS)) @ item
            for at in range(0, histories.num_users, ONLINE_ROWS)
        ]
        return np.concatenate([np.zeros(0, np.float32), *scores])

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
    def max_length(self) -> int:
        """How many of a history's newest items the model looks at."""
        return self.run.config.model.max_length

    @cached_property
    def _directions(self) -> tuple[ExactIndex, npt.NDArray[np.float32]]:
        """The item vectors at length 1, float32[num_items + 1, width], and their index."""
        table = self._scorer.item_table
        norms = np.linalg.norm(table, axis=1, keepdims=True)
        directions = table / np.maximum(norms, np.finfo(np.float32).tiny)
        return ExactIndex(directions), directions

    def _check_vocabulary(self, histories: Histories) -> None:
        if not histories.vocabulary.equals(self.vocabulary):
            raise RequestError(
                "these histories count their items by another vocabulary; build them with "
                "Histories.from_log(log, recommender.vocabulary)"
            )

    def _known(self, history: Sequence[Id]) -> npt.NDArray[np.int32]:
        if isinstance(history, str) or not isinstance(history, Sequence | np.ndarray | pl.Series):
            raise RequestError(
                f"{history!r} is no history; a history is a list of ids, and recommend takes a "
                "list of histories: [[1270, 593]]"
            )
        dense = self.vocabulary.encode_text(history)
        return dense[dense > 0]

    def _block(
        self, histories: Histories, users: slice, k: int, exclude_seen: bool
    ) -> pl.DataFrame:
        """The recommendations of a slice of the users, in their order."""
        block = histories.take(np.arange(*users.indices(histories.num_users)))
        is_empty = block.lengths == 0
        parts = []
        for strategy, members in ((MODEL, ~is_empty), (POPULAR, is_empty)):
            chosen = block.take(np.flatnonzero(members))
            exclusions = (chosen.offsets, chosen.item_ids) if exclude_seen else None
            windows = chosen.windows(self.max_length)
            top = self.top(strategy, windows, k, exclusions=exclusions)
            frame = self._named(top, chosen.user_ids).with_columns(strategy=pl.lit(strategy))
            parts.append(frame.with_columns(order=np.repeat(np.flatnonzero(members), top.counts)))
        merged = pl.concat(parts).sort("order", maintain_order=True).drop("order")
        columns = ["user_id", "item_id", "score", "rank", "strategy"]
        return merged.select(*columns, pl.exclude(columns))

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
        self, test: HeldOut | None, protocol: str, seed: int
    ) -> tuple[dict[str, Any], Ranking]:
        split = self.run.split
        test = test or (split.test if split else None)
        if test is None:
            raise RequestError(
                "the run holds no test part, so there is nothing to evaluate on; fit with --split "
                "leave-one-out or global-time (in Python: fit the split, not split.train)"
            )
        self._check_vocabulary(test.histories)
        rank = protocols.ranker(protocol, self.run.item_counts > 0, seed)
        baselines, notes = self._baselines()
        ranking = rank(self._scorer, test)
        report = protocols.report(
            ranking,
            test,
            protocol=protocol,
            baselines={name: rank(scorer, test) for name, scorer in baselines.items()},
            is_trained=self.run.item_counts > 0,
            seed=seed,
        )
        report["notes"] += notes
        return {"split": split.kind if split else "none", **report}, ranking

    def _baselines(self) -> tuple[dict[str, Scorer], list[str]]:
        """The baselines that the run's training histories allow, and why others are missing."""
        if self.run.split is None:
            return {}, ["no baselines: the run holds no histories"]
        return usual_baselines(self.run.split.train)


def _title(frame: pl.DataFrame) -> list[str]:
    return ["title"] if "title" in frame.columns else []


def check_k(k: int) -> None:
    """Refuses a k that nothing can be answered to.

    Raises:
        RequestError: k is not in 1..500.
    """
    if k < 1:
        raise RequestError(f"k={k} asks for nothing; ask for at least 1")
    if k > MAX_K:
        raise RequestError(f"k={k} exceeds the limit of {MAX_K}; ask for at most {MAX_K}")
